"""What holds for every built notebook; that the cells run is proved by nbval (see `conftest.py`).

`pytest` collects each notebook of chapters/ and solutions/ and runs its cells. Here: the notebooks are in
sync with their sources, they read well, and the machinery in conftest.py does turn red when it should.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import conftest
from course_utils import authoring
from course_utils.authoring.execution import WIDGET_VIEW

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 25
MARKDOWN_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)[^)]*\)")
HTML_IMAGE = re.compile(r"<img\b[^>]*>")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/+])(/(home|Users|root|tmp|var|usr|opt|private|work|mnt)/|[A-Z]:\\)\w")


def test_notebooks_are_in_sync_with_their_sources():
    assert authoring.check(ROOT) == [], "run `python3 course.py build` and look at what changes"


def test_notebooks_read_well():
    found = []
    for folder in ("chapters", "solutions"):
        for path in sorted((ROOT / folder).glob("*.ipynb")):
            notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))  # nbformat.read would mend ids
            problems = form_problems(notebook) + prose_problems(notebook, path.parent)
            problems += output_problems(notebook, folder)
            found += [f"{folder}/{path.name}: {problem}" for problem in problems]
    assert found == []


@pytest.mark.parametrize("folder", ["chapters", "solutions"])
def test_notebooks_are_small(folder):
    sizes = {path.name: path.stat().st_size for path in (ROOT / folder).glob("*.ipynb")}
    assert {name: size for name, size in sizes.items() if size > authoring.SIZE_LIMIT} == {}
    assert sum(sizes.values()) / len(sizes) <= authoring.MEAN_SIZE_LIMIT, sizes


def form_problems(notebook):
    """Return what is wrong with a notebook's cells: title, ids, length, prose between code, leftovers."""
    problems = []
    first = notebook.cells[0] if notebook.cells else {"cell_type": "none", "source": ""}
    if first["cell_type"] != "markdown" or not first["source"].startswith("# "):
        problems.append("the first cell is not a title")
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) < len(ids):
        problems.append("a cell lacks an id of its own")
    if "widgets" in notebook.metadata:
        problems.append("it holds widget state")
    in_a_row = 0
    for cell in notebook.cells:
        name = f"cell '{cell.get('id')}'"
        in_a_row = in_a_row + 1 if cell.cell_type == "code" else 0
        if in_a_row == 3:
            problems.append(f"{name} is the third code cell in a row without prose")
        lines = sum(1 for line in map(str.strip, cell.source.splitlines()) if line and line[0] != "#")
        if cell.cell_type == "code" and lines > MOST_LINES:
            problems.append(f"{name} has {lines} lines of code, more than {MOST_LINES}")
        if "BEGIN SOLUTION" in cell.source or "END SOLUTION" in cell.source:
            problems.append(f"{name} holds a marker line")
    return problems


def prose_problems(notebook, folder):
    """Return which pictures in a notebook's prose lack a description or do not exist."""
    problems = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for description, target in MARKDOWN_IMAGE.findall(cell.source):
            if not description.strip():
                problems.append(f"cell '{cell.id}' shows {target} without a description")
            if not (folder / target).is_file():
                problems.append(f"cell '{cell.id}' shows {target}, which is not there")
        for tag in HTML_IMAGE.findall(cell.source):
            if not re.search(r"""\balt=(["'])\s*[^"'\s]""", tag):
                problems.append(f"cell '{cell.id}' has an <img> without a description (alt)")
    return problems


def output_problems(notebook, folder):
    """Return what is wrong with a notebook's outputs. folder: "chapters" or "solutions"."""
    problems = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if folder == "chapters" and "static" not in tags:
                problems.append(f"cell '{cell.id}' has an output, but no tag 'static'")
            if folder == "chapters" and not all(kind.startswith("image/") for kind in data or ["none"]):
                problems.append(f"cell '{cell.id}' has an output that is no picture")
            if output.output_type == "error" and "raises-exception" not in tags:
                problems.append(f"cell '{cell.id}' shows an error")
            if WIDGET_VIEW in data:
                problems.append(f"cell '{cell.id}' holds a widget view")
            texts = {kind: text for kind, text in data.items() if not kind.startswith("image/")}
            path = ABSOLUTE_PATH.search(json.dumps([output.get("text"), output.get("traceback"), texts]))
            if path:
                problems.append(f"cell '{cell.id}' shows an absolute path, {path.group()}…")
    return problems


def code(source, *outputs, tags=(), cell_id=None):
    """Return a code cell that looks as if it had been run."""
    cell = nbformat.v4.new_code_cell(source, outputs=list(outputs), execution_count=1)
    cell.metadata.tags = list(tags)
    cell.id = cell_id or cell.id
    return cell


def notebook_of(*cells, title="# Title"):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(title, id="title")])
    notebook.cells += cells  # afterwards: nbformat would mend what is to be found wrong
    return notebook


TEXT = nbformat.v4.new_output("stream", text="ratio 1/2, see course_utils/x.py, https://example.org/usr/x\n")
PATH = nbformat.v4.new_output("stream", text="saved in /home/ada/picture.png\n")
PICTURE = nbformat.v4.new_output("display_data", data={"image/png": "AAAA/usr/AAAA"})
BOTH = nbformat.v4.new_output("display_data", data={"image/png": "AAAA", "text/plain": "<Figure>"})
WIDGET = nbformat.v4.new_output("display_data", data={WIDGET_VIEW: {}, "image/png": "AAAA"})
ERROR = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
LONG = "\n".join(["# a comment", ""] * 9 + ["x = 1"] * 25)


@pytest.mark.parametrize(
    "notebook, words",
    [
        (notebook_of(code("1"), code(LONG)), None),
        (notebook_of(), None),
        (notebook_of(title="Title"), "not a title"),
        (nbformat.v4.new_notebook(), "not a title"),
        (notebook_of(code("1", cell_id="a"), code("2", cell_id="a")), "lacks an id of its own"),
        (notebook_of(code(LONG + "\nx = 1")), "has 26 lines of code"),
        (notebook_of(code("1"), code("2"), code("3", cell_id="c")), "'c' is the third code cell in a row"),
        (notebook_of(code("def f():\n    ### BEGIN SOLUTION")), "holds a marker line"),
        (nbformat.from_dict(notebook_of() | {"metadata": {"widgets": {}}}), "holds widget state"),
    ],
)
def test_form_problems(notebook, words):
    assert_only(form_problems(notebook), words)


@pytest.mark.parametrize(
    "title, words",
    [
        ("# T ![a corgi](figures/corgi.png) <img src='figures/corgi.png' alt='a corgi'>", None),
        ("# T ![](figures/corgi.png)", "shows figures/corgi.png without a description"),
        ("# T ![a cat](figures/cat.png)", "figures/cat.png, which is not there"),
        ("# T <img src='figures/corgi.png'>", "<img> without a description"),
        ("# T <img src='figures/corgi.png' alt=''>", "<img> without a description"),
    ],
)
def test_prose_problems(tmp_path, title, words):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "corgi.png").write_bytes(b"")
    assert_only(prose_problems(notebook_of(title=title), tmp_path), words)


@pytest.mark.parametrize(
    "folder, cell, words",
    [
        ("solutions", code("1", TEXT, BOTH), None),
        ("solutions", code("1", ERROR, tags=["raises-exception"]), None),
        ("solutions", code("1", ERROR), "shows an error"),
        ("solutions", code("1", WIDGET), "holds a widget view"),
        ("solutions", code("1", PATH), "shows an absolute path, /home/a"),
        ("chapters", code("1", PICTURE, tags=["static"]), None),
        ("chapters", code("1", PICTURE), "has an output, but no tag"),
        ("chapters", code("1", BOTH, tags=["static"]), "no picture"),
        ("chapters", code("1", TEXT, tags=["static"]), "no picture"),
    ],
)
def test_output_problems(folder, cell, words):
    assert_only(output_problems(notebook_of(cell), folder), words)


def assert_only(problems, words):
    """Assert that there is one problem, which says `words`; or none, if words is None."""
    assert len(problems) == (words is not None), problems
    assert not problems or words in problems[0]


REPORT = """\
import json, os
def check(name, state):
    with open(os.environ["COURSE_REPORT"], "a") as report:
        print(json.dumps({"id": name, "state": state}), file=report)
"""
UNSTRICT = 'assert "COURSE_STRICT" not in os.environ'
STRICT = 'assert (os.environ["COURSE_STRICT"], os.environ["COURSE_PROFILE"]) == ("1", "smoke")'
WRONG = 'check("01.a", "pass")\nif False:\n    check("01.b", "todo")'
FAILING_CALLBACK = "from ipywidgets import interact\ninteract(lambda x: 1 / 0, x=(0, 1));"

NOTEBOOKS = {
    "chapters/00_right": [REPORT, f'{UNSTRICT}\ncheck("00.a", "todo")'],
    "chapters/01_wrong": [REPORT, WRONG],
    "solutions/00_right": [REPORT, f'{STRICT}\ncheck("00.a", "pass")', "# end"],
    "solutions/01_raises": ["1 / 1", FAILING_CALLBACK],
    "work/00_attempt": ["1 / 0"],
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{"chapters/00_right::Cell 0": ("PASSED", words)} of a small course under the project's settings."""
    root = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "conftest.py", root)
    shutil.copy(ROOT / "pyproject.toml", root)
    for name, sources in NOTEBOOKS.items():
        path = root / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook_of(*map(nbformat.v4.new_code_cell, sources)), path)
    output = pytest_output(root, ".", COURSE_STRICT="1")
    lines = re.findall(r"^(PASSED|FAILED|ERROR) (\S+)\.ipynb::(Cell \d+)(.*)$", output, re.MULTILINE)
    assert lines, output
    return {f"{notebook}::{cell}": (outcome, words) for outcome, notebook, cell, words in lines}


def pytest_output(folder, *options, **environment):
    """Return what a pytest of its own, in the folder, prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COURSE_"))}
    environment = clean | {"COLUMNS": "400"} | environment
    command = [sys.executable, "-m", "pytest", "-rA", "--color=no", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout


def test_notebooks_are_run_as_tests_and_copies_in_work_are_not(outcomes):
    assert {name.split("::")[0] for name in outcomes} == set(NOTEBOOKS) - {"work/00_attempt"}
    right = [outcome for name, (outcome, _) in outcomes.items() if "00_right" in name]
    assert right == ["PASSED"] * 5


@pytest.mark.parametrize(
    "cell, words",
    [
        ("chapters/01_wrong::Cell 1", "'todo', but 01.a reported pass; 01.b reported nothing"),
        ("solutions/01_raises::Cell 1", ""),
    ],
)
def test_a_notebook_that_is_not_right_fails(outcomes, cell, words):
    outcome, said = outcomes[cell]
    assert outcome == "FAILED"
    assert words in said
    notebook = cell.split("::")[0]
    others = {name for name in outcomes if name.startswith(notebook)} - {cell}
    assert all(outcomes[name][0] == "PASSED" for name in others)


def test_a_notebook_over_its_budget_fails(tmp_path):
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").touch()
    sleep = nbformat.v4.new_code_cell("import time; time.sleep(1.2)")
    nbformat.write(notebook_of(sleep), tmp_path / "slow.ipynb")
    options = ["-n", "0", "--nbval-lax", "--nbval-current-env", "slow.ipynb"]
    output = pytest_output(tmp_path, *options, COURSE_NOTEBOOK_SECONDS="1")
    assert "FAILED slow.ipynb::Cell 0" in output
    assert re.search(r"at most 1 s for the notebook, got \d+\.\d s so far. Slowest: Cell 0 \d", output)


def test_memory_budget(monkeypatch):
    class Kernel:
        class km:  # noqa: N801 - nbval's name
            class provisioner:  # noqa: N801
                pid = os.getpid()

    assert conftest.over_memory(Kernel) is None
    monkeypatch.setattr(conftest, "GIGABYTES", 0.001)
    assert "expected at most 0.001 GB" in conftest.over_memory(Kernel)
