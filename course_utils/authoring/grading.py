"""Run learners' notebooks strictly, and tell the state of each of their exercises."""

import contextlib
import json
import re
import tempfile
from pathlib import Path

import nbformat

from course_utils.authoring.execution import client_for

CELL_SECONDS = 600
EXERCISE = re.compile(r"""^[^#\n]*\bcheck\(\s*["'](\d\d\.\w+)["']""", re.MULTILINE)


def read_learners(path):
    """Return the notebook at the path. Raises ValueError if there is none."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise ValueError(f"{path} is not there: name a notebook, such as work/05_forward_diffusion.ipynb.") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder: name the notebooks in it, such as {path}/*.ipynb.") from None
    except (ValueError, AttributeError, KeyError, TypeError, nbformat.ValidationError):
        raise ValueError(f"{path} is not a notebook: expected a file that Jupyter saved, ending in .ipynb.") from None
    return notebook


def expected_ids(notebook, path, root):
    """Return the ids of the exercises that the notebook must solve, in order.

    Those that it checks, and those of the chapter of the same name, so that deleting a cell solves nothing.
    """
    chapter = Path(root) / "chapters" / Path(path).name
    notebooks = [notebook] + ([nbformat.read(chapter, as_version=4)] if chapter.exists() else [])
    cells = [cell.source for each in notebooks for cell in each.cells if cell.cell_type == "code"]
    return sorted({id for source in cells for id in EXERCISE.findall(source)})


def states_of(path, root):
    """Run a learner's notebook, each cell whatever the others did, and return {id: last state} of its exercises.

    path: the notebook; it is not changed. root: the course's folder. The states are those of the exercises, and
    "missing" where the run did not come to the check: its cell is gone, or raised before, or the kernel died, or a
    cell took more than 10 minutes. Training profile: COURSE_PROFILE, `smoke` if it is not set.
    Raises ValueError if there is no notebook at the path.
    """
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    notebook = read_learners(path)
    ids = expected_ids(notebook, path, root)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        # The learner's kernel may have a name that this machine does not know; the course has one kernel only
        client, environment = client_for(notebook, root, Path(path).resolve().parent, kernel_name="python3",
                                         allow_errors=True, timeout=CELL_SECONDS)  # fmt: skip
        with contextlib.suppress(CellTimeoutError, DeadKernelError):  # what was reported until then counts
            client.execute(env={"COURSE_PROFILE": "smoke", **environment, "COURSE_REPORT": str(report)})
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    reported = {entry["id"]: entry["state"] for entry in map(json.loads, lines)}
    return {id: reported.get(id, "missing") for id in sorted({*ids, *reported})}
