"""Run a solved notebook, and keep of its outputs what reads well on a page."""

import json
import os
import re
import sys
import tempfile
from copy import deepcopy
from pathlib import Path

import nbformat

PROFILE = "laptop"
QUIET = ["--IPKernelApp.log_level=ERROR"]  # no warning about its connection, which stays on this machine
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# The file that warnings and tracebacks name for a cell; bounded, since pictures in HTML are long strings
CELL_FILE = re.compile(r"(/|[A-Za-z]:\\)[^\s\"'=]{0,200}ipykernel_\d+[/\\]\d+\.py")


def environment_for(root):
    """Return the environment for a kernel in which the course is found and checks are strict."""
    search = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "COURSE_STRICT": "1", "PYTHONPATH": search}
    environment.pop("MPLBACKEND", None)  # only the kernel's own back end leaves pictures in the notebook
    return environment


def client_for(notebook, root, folder, **options):
    """Return a client that runs a notebook in `folder`, and the environment for its kernel, checks being strict."""
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook,
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=True,  # without it nbclient (0.11) stumbles over Output widgets; dropped below
        record_timing=False,
        startup_timeout=180,
        iopub_timeout=60,
        extra_arguments=QUIET,
        **options,
    )
    return client, environment_for(root)


def run(notebook, root, name, language="en"):
    """Return the notebook with the outputs of a run in the `laptop` profile, working folder `solutions/`.

    `progress()` shows all exercises as solved: a solution has solved them, wherever it was built.

    root: the course's folder. name: the source's, for messages. language: that of the package's own words.
    COURSE_STRICT makes a check that does not pass raise, and so stop the build.
    Raises ValueError if a cell raises that is not tagged `raises-exception`.
    """
    from nbclient.exceptions import CellExecutionError

    from course_utils.exercises.registry import all_exercises

    client, environment = client_for(
        deepcopy(notebook),
        root,
        root / "solutions",
        kernel_name=notebook.metadata.kernelspec.name,
        coalesce_streams=True,  # of a progress bar only the last state stays
    )
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "progress.json"
        solved = {exercise.id: {"state": "pass", "passed": True} for exercise in all_exercises()}
        progress.write_text(json.dumps(solved), encoding="utf-8")
        try:
            own = {"COURSE_PROFILE": PROFILE, "COURSE_PROGRESS": str(progress), "COURSE_LANGUAGE": language}
            executed = client.execute(env={**environment, **own})
        except CellExecutionError as error:
            message = f"{name}: a cell raised in the {PROFILE} profile; fix it and build again.\n{error}"
            raise ValueError(message) from error
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = [tidied(output, root) for output in cell.outputs if not is_bare_widget(output)]
    executed.metadata = deepcopy(notebook.metadata)  # without the Python version of this machine
    return executed


def is_bare_widget(output):
    """True for a widget view with no picture or text of its own: without a kernel it reads as broken text."""
    kinds = set(output.get("data", {}))
    return WIDGET_VIEW in kinds and kinds <= {WIDGET_VIEW, "text/plain"}


def tidied(value, root):
    """Return an output (or a part of one) without widget views and without the folders of this machine.

    A warning or a traceback then reads the same wherever the notebook was built.
    """
    if isinstance(value, dict):
        unwanted = {WIDGET_VIEW} | ({"image/jpeg"} if "image/png" in value else set())  # Pillow gives both
        kept = {key: part for key, part in value.items() if key not in unwanted}
        tidy = {key: part if key.startswith("image/") else tidied(part, root) for key, part in kept.items()}
        return nbformat.from_dict(tidy)
    if isinstance(value, list):
        return [tidied(part, root) for part in value]
    if not isinstance(value, str):
        return value
    value = CELL_FILE.sub("<cell>", value)
    for folder in (root, sys.prefix, sys.base_prefix, Path.home()):
        if len(str(folder)) > 1:
            # Not within a word: letters of an encoded picture might match. A colour code (…32m) may precede.
            start = r"((?<![A-Za-z0-9+/])|(?<=\dm))"
            value = re.sub(start + re.escape(f"{folder}{os.sep}"), "", value)
    return value
