"""`course.py check`: a learner's notebook is run from nothing, and each exercise has its state."""

import json
import re

import nbformat
import pytest
from test_cli import refused, run

import conftest
from course_utils.authoring import grading

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


def test_each_exercise_has_its_state_whatever_the_others_did(here):
    path = notebook(here / "05_mine.ipynb", TITLE, NEVER, WRONG, STUB, LATER, RIGHT)
    before = path.read_bytes()
    result = run("check", path, "--report", here / "report.jsonl")
    assert result.exit_code == 1
    expected = {"05.add_noise": "missing", "05.alpha_bar": "fail", "05.forward_step": "todo", "05.snr": "pass"}
    lines = (here / "report.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"id": id, "state": state} for id, state in expected.items()]
    assert all(re.search(rf"^  {id} +{state}$", result.stdout, re.MULTILINE) for id, state in expected.items())
    assert result.stdout.splitlines()[-1] == "1 of 4 exercises passed."
    assert path.read_bytes() == before
    assert not (here / "progress.json").exists()


def test_exit_code_0_only_if_all_pass(here):
    path = notebook(here / "05_mine.ipynb", TITLE, RIGHT)
    empty = notebook(here / "00_read.ipynb", "1 / 1")
    result = run("check", path, empty)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "1 of 1 exercises passed.")
    assert "00_read.ipynb: it has no exercises" in result.stdout


def test_a_deleted_check_is_missed(here):
    (here / "chapters").mkdir()
    notebook(here / "chapters" / "05_a.ipynb", RIGHT, WRONG)
    path = notebook(here / "05_a.ipynb", RIGHT)
    ids = grading.expected_ids(grading.read_learners(path), path, here)
    assert ids == ["05.alpha_bar", "05.snr"]


def test_a_kernel_that_dies_is_survived(here, monkeypatch):
    path = notebook(here / "05_mine.ipynb", TITLE, RIGHT, "import os; os._exit(1)", WRONG)
    assert grading.states_of(path, here) == {"05.alpha_bar": "missing", "05.snr": "pass"}


def test_what_is_no_notebook_is_refused(here):
    refused(run("check", here / "none.ipynb"), "none.ipynb is not there", "work/05")
    refused(run("check", here), "is a folder")
    for name, content in (("a.txt", "print(1)"), ("b.ipynb", "{}"), ("c.ipynb", "[1]"), ("d.ipynb", '{"cells": 3}')):
        (here / name).write_text(content)
        refused(run("check", here / name), f"{name} is not a notebook")
    refused(run("check"), "Missing argument 'notebooks'")


def test_the_tests_of_notebooks_look_for_the_same_checks():
    assert grading.EXERCISE.pattern == conftest.EXERCISE.pattern
