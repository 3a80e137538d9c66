"""`course.py check`: a learner's notebook is run from nothing, and each exercise has its state."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from test_cli import refused, run

import conftest
from course_utils.authoring import grading

ROOT = Path(__file__).resolve().parent.parent
TITLE = "from course_utils.exercises import check"
RIGHT = 'def snr(alpha_bar):\n    return alpha_bar / (1 - alpha_bar)\n\nsnr = check("05.snr", snr)'
WRONG = "def alpha_bar_from_beta(beta):\n    return 1 - beta\n\ncheck('05.alpha_bar', alpha_bar_from_beta)"
STUB = 'def forward_step(x, eps, beta_t):\n    raise NotImplementedError\n\ncheck("05.forward_step", forward_step)'
NEVER = 'undefined\ncheck("05.add_noise", None)'
LATER = 'assert __import__("os").environ["COURSE_PROFILE"] == "smoke"\nprint("# check(\'05.hidden\')")'


def notebook(path, *cells):
    cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in ("COURSE_PROFILE", "COURSE_STRICT", "COURSE_REPORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path


def test_each_exercise_has_its_state_whatever_the_others_did(here, capfd):
    path = notebook(here / "05_mine.ipynb", TITLE, NEVER, WRONG, STUB, LATER, RIGHT)
    before = path.read_bytes()
    result = run("check", path, "--report", here / "report.jsonl")
    assert result.exit_code == 1
    expected = {"05.add_noise": "missing", "05.alpha_bar": "fail", "05.forward_step": "todo", "05.snr": "pass"}
    lines = (here / "report.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"id": id, "state": state} for id, state in expected.items()]
    assert all(re.search(rf"^  {id} +{state}$", result.stdout, re.MULTILINE) for id, state in expected.items())
    assert "Note: code cell 2 (`undefined`) raised NameError: name 'undefined' is not defined." in result.stdout
    assert result.stdout.splitlines()[-1] == "1 of 4 exercises passed."
    assert path.read_bytes() == before
    assert not (here / "progress.json").exists()
    assert capfd.readouterr() == ("", "")  # the kernel has nothing to say


def test_what_never_ends_or_ends_the_kernel_is_named_and_left_out(here):
    stubborn = "while True:\n    try:\n        pass\n    except:\n        pass"
    cells = ["while True:\n    pass", RIGHT, "import os; os._exit(1)", WRONG, stubborn, STUB]
    result = run("check", notebook(here / "05_mine.ipynb", TITLE, *cells), "--cell-seconds", 4)
    states = {"05.alpha_bar": "fail", "05.forward_step": "todo", "05.snr": "pass"}
    assert all(re.search(rf"^  {id} +{state}$", result.stdout, re.MULTILINE) for id, state in states.items())
    assert "code cell 2 (`while True:`) was still running after 4 seconds, and was stopped." in result.stdout
    assert "code cell 4 (`import os; os._exit(1)`) ended Python; the others were run without it." in result.stdout
    assert result.stderr == ""


def test_a_notebook_has_a_limit_as_a_whole(here, monkeypatch):
    monkeypatch.setattr(grading, "CELLS", 2)
    path = notebook(here / "05_mine.ipynb", TITLE, RIGHT, *["import time; time.sleep(1.5)"] * 4, WRONG)
    states, notes = grading.states_of(path, ROOT, 2)
    assert states == {"05.alpha_bar": "missing", "05.snr": "pass"}
    assert "those after it were not run: the notebook took 4 seconds" in notes[-1]


# Marks are for answers. What a notebook may do to get them without one:
CHEATS = {
    "a check of its own": ["def check(id, function, seed=0):\n    return function", WRONG],
    "a line in the report": [
        TITLE,
        "import os\nfor name in [os.environ.get('COURSE_REPORT') or 'report.jsonl']:\n"
        '    open(name, \'a\').write(\'{"id": "05.alpha_bar", "state": "pass"}\\n[nonsense\')',
        WRONG,
    ],
}


@pytest.mark.parametrize("cells", CHEATS.values(), ids=CHEATS)
def test_no_marks_without_an_answer(here, cells):
    states, _ = grading.states_of(notebook(here / "05_mine.ipynb", *cells), ROOT)
    assert states == {"05.alpha_bar": "fail"}


def test_a_failed_check_leaves_the_courses_version_to_the_cells_after_it(here):
    slow = "from course_utils.exercises import limits\nlimits.SECONDS = 1\n"
    slow += "def snr(alpha_bar):\n    while True:\n        pass"
    later = "import torch\nassert snr(torch.tensor(0.5)) == 1\nprint(check('05.alpha_bar', lambda beta: 1))"
    path = notebook(here / "05_mine.ipynb", TITLE, slow, 'snr = check("05.snr", snr)', later)
    states, notes = grading.states_of(path, ROOT)
    assert (states, notes) == ({"05.alpha_bar": "fail", "05.snr": "error"}, [])


def test_exit_code_0_only_if_all_pass(here, monkeypatch):
    monkeypatch.setattr("course_utils.cli.ROOT", here)
    (here / "chapters").mkdir()
    notebook(here / "chapters" / "00_read.ipynb", "1 / 1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = notebook(here / "05_mine.ipynb", TITLE, RIGHT)
    empty = notebook(here / "00_read.ipynb", "1 / 1")
    result = run("check", path, empty)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "1 of 1 exercises passed.")
    assert "00_read.ipynb: it has no exercises" in result.stdout


def test_a_notebook_that_cannot_be_checked_stops_none_after_it(here):
    (here / "a.ipynb").write_text("{}")
    renamed = notebook(here / "renamed.ipynb", "1 / 1")
    good = notebook(here / "05_mine.ipynb", TITLE, RIGHT)
    result = run("check", here / "a.ipynb", renamed, good)
    assert result.exit_code == 2
    assert result.stdout.splitlines()[-1] == "1 of 1 exercises passed."
    assert "a.ipynb is not a notebook" in result.stderr and "renamed.ipynb: no exercise found" in result.stderr


def test_a_deleted_check_is_missed(here):
    (here / "chapters").mkdir()
    notebook(here / "chapters" / "05_a.ipynb", RIGHT, WRONG)
    path = notebook(here / "05_a.ipynb", RIGHT)
    ids = grading.expected_ids(grading.read_learners(path), path, here)
    assert ids == ["05.alpha_bar", "05.snr"]


def test_what_is_no_notebook_is_refused(here):
    refused(run("check", here / "none.ipynb"), "none.ipynb is not there", "work/05")
    refused(run("check", here), "is a folder")
    deep = '{"cells": ' + "[" * 100_000
    wrong = [("a.txt", "print(1)"), ("b.ipynb", "{}"), ("c.ipynb", "[1]"), ("d.ipynb", '{"cells": 3}'), ("e", deep)]
    for name, content in wrong:
        (here / name).write_text(content)
        refused(run("check", here / name), f"{name} is not a notebook")
    refused(run("check"), "Missing argument 'notebooks'")
    refused(run("check", here / "b.ipynb", "--cell-seconds", 0), "must be a whole number from 1 to 3600")


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="this system wants file names that are text")
def test_a_name_that_is_no_text_is_shown(here):
    path = notebook(Path(os.fsdecode(os.fsencode(here) + b"/05_bad\xff.ipynb")), "1 / 1")
    refused(run("check", path), r"05_bad\udcff.ipynb: no exercise found")


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to one process")
def test_ctrl_c_is_tidy(here):
    path = notebook(here / "05_mine.ipynb", "open('started', 'w'); import time; time.sleep(100)", RIGHT)
    command = [sys.executable, "-m", "course_utils.cli", "check", str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (here / "started").exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == "" and err.count("\n") == 1 and err.startswith("Stopped in ")


def test_the_tests_of_notebooks_look_for_the_same_checks():
    assert grading.EXERCISE.pattern == conftest.EXERCISE.pattern


@pytest.mark.parametrize("line", ["[nonsense", "3", '{"id": "05.snr"}', '{"id": [], "state": "pass"}', "[" * 100_000])
def test_a_line_that_is_no_state_is_named(here, line):
    (here / "report.jsonl").write_text('{"id": "05.snr", "state": "pass"}\n' + line)
    assert "got '" in conftest.unexpected_states('check("05.snr", snr)', here / "report.jsonl", "pass")
