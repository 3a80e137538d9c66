"""The assignments for nbgrader: an empty one scores nothing, a right one all, a wrong answer less."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from needs import needs
from test_cli import refused, run

from course_utils import cli
from course_utils.authoring import classroom
from course_utils.authoring.source import read_source

ROOT = Path(__file__).resolve().parent.parent
SOURCE = '''\
# %% [markdown] id="title"
# # A class ![a corgi](figures/corgi.png)

# %% id="set-up"
from course_utils.exercises import check

# %% id="snr"
def snr(alpha_bar):
    """Return the signal-to-noise ratio."""
    ### BEGIN SOLUTION
    #: signal over noise
    return alpha_bar / (1 - alpha_bar)
    ### END SOLUTION

# %% id="snr-check"
snr = check("05.snr", snr)

# %% id="alpha-bar"
def alpha_bar_from_beta(beta):
    """Return the running product of 1 - beta."""
    ### BEGIN SOLUTION
    #: a running product
    return (1 - beta).cumprod(0)
    ### END SOLUTION

# %% id="alpha-bar-check"
alpha_bar_from_beta = check("05.alpha_bar", alpha_bar_from_beta)
'''


def make_course(root, source=SOURCE):
    path = root / "solutions" / "source" / "05_class.py"
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    (root / "chapters" / "figures").mkdir(parents=True)
    (root / "chapters" / "figures" / "corgi.png").write_bytes(b"corgi")
    return path


@pytest.fixture
def course(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    make_course(tmp_path)
    return tmp_path


def test_cells_are_marked(course):
    notebook = classroom.assignment_from(read_source(course / "solutions" / "source" / "05_class.py"), "05_class.py")
    cells = {cell.id: cell for cell in notebook.cells}
    assert [cell.id for cell in notebook.cells if "nbgrader" in cell.metadata] == [
        "snr", "snr-check", "alpha-bar", "alpha-bar-check"
    ]  # fmt: skip
    marks = cells["snr"].metadata["nbgrader"]
    assert (marks["solution"], marks["grade"], marks["locked"]) == (True, False, False)
    marks = cells["snr-check"].metadata["nbgrader"]
    assert (marks["solution"], marks["grade"], marks["locked"], marks["points"]) == (False, True, True, 1)
    lines = cells["snr"].source.splitlines()
    assert lines.index("    # signal over noise") < lines.index("    ### BEGIN SOLUTION")
    hidden = cells["snr-check"].source.split("### BEGIN HIDDEN TESTS")[1]
    assert re.search(r"import course_utils.exercises.graded as (graded_\w+)\n\1.require\(\"05.snr\", snr, \[", hidden)
    assert hidden.endswith("### END HIDDEN TESTS")


def test_other_seeds_in_each_assignment(course):
    source = course / "solutions" / "source" / "05_class.py"
    first, second = (classroom.assignment_from(read_source(source), "").cells[3].source for _ in range(2))
    assert first != second


def test_build_writes_an_nbgrader_course_and_keeps_the_teachers_settings(course):
    folder = course / "class"
    result = run("build", "--nbgrader", folder, "05")
    assert result.exit_code == 0, result.output
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert names == {"nbgrader_config.py", "source/05_class/05_class.ipynb", "source/05_class/figures/corgi.png"}
    (folder / "nbgrader_config.py").write_text("# mine")
    assert run("build", "--nbgrader", folder).exit_code == 0
    assert (folder / "nbgrader_config.py").read_text() == "# mine"
    assert not list(course.glob("solutions/*.ipynb"))


def test_what_nbgrader_could_not_use_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    path = make_course(tmp_path, SOURCE.replace('\n# %% id="snr-check"\n', ""))
    refused(run("build", "--nbgrader", tmp_path / "class"), "05_class.py: cell 'snr' holds a solution and its check")
    path.write_text('# %% id="a"\n1 + 1\n', encoding="utf-8")
    refused(run("build", "--nbgrader", tmp_path / "class"), "chapters with exercises to grade")
    refused(run("build", "--nbgrader", tmp_path / "class", "--check"), "--check, --no-execute and --nbgrader")


def nbgrader(folder, *arguments):
    """Run nbgrader in its course's folder, and return what it printed."""
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "nbgrader", *arguments]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # nbgrader calls alembic by name
    environment = {**os.environ, "PYTHONPATH": search, "PATH": path}
    environment.pop("COURSE_STRICT", None)
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@needs(find_spec("nbgrader") is not None, "nbgrader is not installed: pip install -c constraints.txt nbgrader")
def test_nbgrader_takes_the_assignment_and_grades_it(course):
    folder = course / "class"
    assert run("build", "--nbgrader", folder).exit_code == 0
    nbgrader(folder, "generate_assignment", "05_class")
    released = nbformat.read(folder / "release" / "05_class" / "05_class.ipynb", as_version=4)
    everything = "\n".join(cell.source for cell in released.cells)
    assert "HIDDEN" not in everything and "SOLUTION" not in everything and "cumprod" not in everything
    assert "    # signal over noise\n    raise NotImplementedError" in everything

    right, wrong = "return alpha_bar / (1 - alpha_bar)", "return (1 - alpha_bar) / alpha_bar"
    product, no_product = "return (1 - beta).cumprod(0)", "return 1 - beta"
    answers = {"empty": {}, "solved": {"snr": right, "alpha-bar": product},
               "half": {"snr": wrong, "alpha-bar": product},
               "mutant": {"snr": right, "alpha-bar": no_product},
               "cheat": {"snr": wrong, "alpha-bar": no_product}}  # fmt: skip
    for student, written in answers.items():
        submission = nbformat.read(folder / "release" / "05_class" / "05_class.ipynb", as_version=4)
        for cell in submission.cells:
            if cell.id in written:
                cell.source = cell.source.replace("raise NotImplementedError", written[cell.id])
        if student == "cheat":
            submission.cells[1].source += "\ndef check(id, function, seed=0): return function"
        path = folder / "submitted" / student / "05_class" / "05_class.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(submission, path)
    nbgrader(folder, "autograde", "05_class")
    nbgrader(folder, "export")
    header, *rows = [line.split(",") for line in (folder / "grades.csv").read_text().splitlines()]
    score, most, student = (header.index(name) for name in ("score", "max_score", "student_id"))
    scores = {row[student]: (float(row[score]), float(row[most])) for row in rows}
    assert scores == {"empty": (0, 2), "solved": (2, 2), "half": (1, 2), "mutant": (1, 2), "cheat": (0, 2)}
