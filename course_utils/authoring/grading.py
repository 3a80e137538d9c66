"""Run learners' notebooks strictly, and tell the state of each of their exercises."""

import re
import sys
import time
from pathlib import Path

import nbformat

from course_utils.authoring.kernel import Kernel, KernelEnded

CELL_SECONDS = 60
CELLS = 10  # a whole notebook may take as long as so many cells
EXERCISE = re.compile(r"""^[^#\n]*\bcheck\(\s*["'](\d\d\.\w+)["']""", re.MULTILINE)


def read_learners(path):
    """Return the notebook at the path. Raises ValueError if there is none."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise ValueError(
            f"{shown(path)} is not there: name a notebook, such as work/05_forward_diffusion.ipynb."
        ) from None
    except IsADirectoryError:
        raise ValueError(
            f"{shown(path)} is a folder: name the notebooks in it, such as {shown(path)}/*.ipynb."
        ) from None
    except OSError as error:
        raise ValueError(f"{shown(path)} cannot be read ({error.strerror}).") from None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError, nbformat.ValidationError):
        raise ValueError(
            f"{shown(path)} is not a notebook: expected a file that Jupyter saved, ending in .ipynb."
        ) from None
    return notebook


def shown(text):
    """Return a path or a text as the terminal can show it, whatever bytes a name has."""
    encoding = sys.stdout.encoding or "utf-8"
    return str(text).encode(encoding, "backslashreplace").decode(encoding)


def expected_ids(notebook, path, root):
    """Return the ids of the exercises that the notebook must solve, in order.

    Those that it checks, and those of the chapter of the same name, so that deleting a cell solves nothing.
    Raises ValueError if there is none, unless the chapter of that name has none.
    """
    chapter = Path(root) / "chapters" / Path(path).name
    notebooks = [notebook] + ([nbformat.read(chapter, as_version=4)] if chapter.exists() else [])
    ids = sorted({id for each in notebooks for cell in each.cells for id in ids_in(cell)})
    if not ids and not chapter.exists():
        raise ValueError(f"{shown(path)}: no exercise found. It is not named like a chapter, and calls no "
                         'check("05.snr", ...); give it the name that it had in work/.')  # fmt: skip
    return ids


def ids_in(cell):
    return EXERCISE.findall(cell.source) if cell.cell_type == "code" else []


def states_of(path, root, seconds=CELL_SECONDS):
    """Run a learner's notebook, each cell whatever the others did; return {id: state} of its exercises, and notes.

    path: the notebook; it is not changed. root: the course's folder. seconds: for a cell; the notebook may take ten
    times as long. The states are those of the exercises, and "missing" where the run did not come to one. A note is a
    sentence on a cell that was stopped, or that raised before its exercise. A cell that stops the kernel is left out,
    and the notebook run again. Training profile: COURSE_PROFILE, `smoke` if it is not set.
    Raises ValueError if there is no notebook with exercises at the path.
    """
    from course_utils.exercises.graded import draw_seeds

    notebook = read_learners(path)
    ids = expected_ids(notebook, path, root)
    grader = _Grader(notebook, ids, draw_seeds(), seconds)
    while ids and not grader.done:
        with Kernel(root, Path(path).resolve().parent) as kernel:
            grader.go_through(kernel)
    return {id: grader.states.get(id, "missing") for id in ids}, grader.notes


class _Grader:
    """What is known of a notebook's exercises, from one or more runs."""

    def __init__(self, notebook, ids, seeds, seconds):
        self.cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        self.ids, self.seeds, self.seconds = ids, seeds, seconds
        self.deadline = None  # set when the first kernel is ready
        self.states, self.notes, self.left_out, self.done = {}, [], set(), False

    def go_through(self, kernel):
        """Run the cells; done, unless one of them ended the kernel."""
        self.deadline = self.deadline or time.monotonic() + CELLS * self.seconds
        for number, cell in enumerate(self.cells, start=1):
            if number in self.left_out:
                continue
            remaining = self.deadline - time.monotonic()
            if remaining <= 0:
                self._note(
                    number, f"and those after it were not run: the notebook took {CELLS * self.seconds:g} seconds"
                )
                break
            try:
                problem = kernel.run(cell.source, min(self.seconds, remaining))
                self._ask(kernel, cell)
            except KernelEnded as ended:
                self._note(number, f"{ended}; the others were run without it")
                self.left_out.add(number)
                return
            unanswered = [id for id in ids_in(cell) if id not in self.states]
            if problem.startswith("was still") or (problem and unanswered):
                self._note(number, problem)
        self.done = True

    def _ask(self, kernel, cell):
        """Ask for the exercises that a cell checks."""
        for id in ids_in(cell):
            if id in self.ids and id not in self.states:
                state = kernel.state_of(id, self.seeds)
                if state is not None:
                    self.states[id] = state

    def _note(self, number, what):
        first = self.cells[number - 1].source.strip().splitlines()[0][:60]
        note = f"code cell {number} (`{first}`) {what}."
        if note not in self.notes:
            self.notes.append(note)
