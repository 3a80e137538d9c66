"""Assignments for nbgrader: the chapters with its marks, and with hidden tests, the same oracles on other seeds."""

import random
import secrets
import shutil
from copy import deepcopy

import nbformat

from course_utils.authoring.grading import EXERCISE
from course_utils.authoring.source import BEGIN, END, plain_comment, read_source
from course_utils.exercises.registry import find

HIDDEN_SEEDS = 3  # in each assignment others: an answer made to fit the visible case fails
CONFIGURATION = """\
# Written by `python3 course.py build --nbgrader`; change it as you like, it is not written again.
import os

os.environ["COURSE_PROFILE"] = "smoke"  # trainings of some steps only, so that no cell takes a minute
c = get_config()  # noqa: F821 - nbgrader defines it
c.CourseDirectory.course_id = "image-generation"
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}
c.ExecutePreprocessor.timeout = 60  # seconds a cell
"""


def write_assignments(root, folder, sources):
    """Write an nbgrader course into `folder`: source/NN_name/NN_name.ipynb for each source that has exercises.

    root: the course's folder. sources: paths of chapters' sources. Returns the paths written.
    Raises ValueError for a cell that nbgrader could not use, and if there is no exercise at all.
    """
    written = []
    for path in sources:
        notebook = assignment_from(read_source(path), path.name)
        if not any("nbgrader" in cell.metadata for cell in notebook.cells):
            continue
        target = folder / "source" / path.stem / f"{path.stem}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        figures = root / "chapters" / "figures"
        if figures.is_dir() and any("](figures/" in cell.source for cell in notebook.cells):
            shutil.copytree(figures, target.parent / "figures", dirs_exist_ok=True)
        written.append(target)
    if not written:
        raise ValueError("expected chapters with exercises to grade, got none; name others, such as 05")
    configuration = folder / "nbgrader_config.py"
    if not configuration.exists():
        configuration.write_text(CONFIGURATION, encoding="utf-8")
    return written


def assignment_from(notebook, name):
    """Return the notebook with nbgrader's marks; `name`, the source's, is for messages."""
    notebook = deepcopy(notebook)
    seeds = random.SystemRandom().sample(range(1, 10**6), HIDDEN_SEEDS)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        checked = [find(id) for id in EXERCISE.findall(cell.source)]
        if checked and BEGIN in cell.source:
            raise ValueError(f"{name}: cell '{cell.id}' holds a solution and its check; nbgrader grades cells of "
                             "their own, so move the check into the next cell")  # fmt: skip
        if BEGIN in cell.source:
            cell.source = hints_before_block(cell.source)
            cell.metadata["nbgrader"] = _marks(cell.id, solution=True)
        if checked:
            cell.source += "\n" + hidden_tests(checked, seeds)
            cell.metadata["nbgrader"] = _marks(cell.id, grade=True, locked=True)
            cell.metadata["nbgrader"]["points"] = sum(exercise.difficulty for exercise in checked)
    return notebook


def hints_before_block(source):
    """Move the `#:` lines of each solution block above it as comments, since nbgrader empties the block."""
    lines, block = [], None
    for line in source.splitlines():
        if line.strip() == BEGIN:
            block = [line]
        elif block is None:
            lines.append(line)
        elif line.strip().startswith("#:"):
            lines.append(plain_comment(line))
        else:
            block.append(line)
            if line.strip() == END:
                lines, block = lines + block, None
    return "\n".join(lines)


def hidden_tests(exercises, seeds):
    """Return the part of a check's cell that students do not get; its name is one that no notebook can have taken."""
    name = f"graded_{secrets.token_hex(8)}"
    tests = [f'{name}.require("{exercise.id}", {exercise.name}, {seeds})' for exercise in exercises]
    lines = [f"import course_utils.exercises.graded as {name}", *tests]
    return "\n".join(["### BEGIN HIDDEN TESTS", *lines, "### END HIDDEN TESTS"])


def _marks(cell_id, grade=False, solution=False, locked=False):
    return nbformat.from_dict({"schema_version": 3, "grade_id": cell_id, "grade": grade, "solution": solution,
                               "locked": locked, "task": False, "cell_type": "code"})  # fmt: skip
