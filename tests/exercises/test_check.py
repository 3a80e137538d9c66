"""`check`, `hint`, `solution` and `progress` as a learner meets them."""

import io
import json
import sys

import pytest
import torch
from small import HALVE, books, halve, raising, right, stub, wrong  # noqa: F401 - a fixture is used by being there

from course_utils.diffusion.schedules import add_noise
from course_utils.exercises import ExerciseError, account, check, hint, messages, progress, registry, solution
from course_utils.exercises.running import Outcome

STEP = "05.forward_step"


def test_a_right_answer_is_given_back(capsys):
    assert check("99.halve", right) is right
    assert capsys.readouterr().out == "✓ 99.halve: right. Chapter 99: 1 of 2 solved.\n"


def test_any_other_answer_is_explained_and_replaced(capsys):
    assert check("99.halve", wrong) is halve
    said = capsys.readouterr().out
    order = ["✗ 99.halve: not right yet", "Called    halve(x (2, 3)), inputs made with seed 0",
             "Found     the result at [", "Likely    This doubles.", 'hint("99.halve")', 'solution("99.halve")',
             "Meanwhile halve is now the course"]  # fmt: skip
    places = [said.index(words) for words in order]
    assert places == sorted(places)
    assert check("99.halve", stub) is halve
    said = capsys.readouterr().out
    assert "○ 99.halve: still to do" in said and "Replace `raise NotImplementedError`" in said


def test_the_courses_own_version_is_not_taken_for_the_learners(capsys):
    halved = check("99.halve", wrong)
    assert check("99.halve", halved) is halve
    assert "Run the cell that defines your halve first" in capsys.readouterr().out
    assert account.load()["99.halve"] == {"state": "todo", "passed": False}


def test_what_is_no_function_is_refused(capsys):
    assert check("99.halve", torch.zeros(2)) is halve
    assert "expected the function halve itself, got Tensor" in capsys.readouterr().out


def test_messages_in_html_are_escaped_and_say_all_that_the_text_says():
    exercise = registry.find("99.halve")
    outcome = Outcome("error", "f(<b>)", "<script>\nin two lines", "<i>")
    message = messages.not_passed(exercise, outcome, 0, False, True)
    html = message._repr_html_()
    assert not any(tag in html for tag in ("<script>", "f(<b>)", "<i>"))
    assert "&lt;script&gt;" in html and "&lt;i&gt;" in html
    for label, text in message.parts:
        assert label in html and label in str(message)
        assert text.splitlines()[0] in str(message)
    assert "solved this one already" in str(message)


@pytest.mark.parametrize("name, value", [("COURSE_STRICT", "1"), ("NBGRADER_EXECUTION", "autograde")])
def test_strict_mode_raises_and_leaves_the_progress_alone(monkeypatch, name, value, capsys):
    monkeypatch.setenv(name, value)
    assert check("99.halve", right) is right
    assert capsys.readouterr().out == "✓ 99.halve: right.\n"
    for candidate in (wrong, stub, raising, halve, None):
        with pytest.raises(ExerciseError, match="99.halve") as caught:
            check("99.halve", candidate)
        assert "Meanwhile" not in str(caught.value)
    assert not account.progress_path().exists()


def test_each_state_is_reported(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_REPORT", str(tmp_path / "report.jsonl"))
    for candidate in (right, wrong, stub, raising):
        check("99.halve", candidate)
    lines = (tmp_path / "report.jsonl").read_text().splitlines()
    states = ("pass", "fail", "todo", "error")
    assert [json.loads(line) for line in lines] == [{"id": "99.halve", "state": state} for state in states]


def test_unknown_ids_name_those_that_look_alike():
    for ask in (lambda id: check(id, right), hint, solution):
        with pytest.raises(ValueError, match="05.add_noise"):
            ask("05.ad_noise")
    with pytest.raises(ValueError, match="got None"):
        check(None, right)


def test_an_id_and_a_function_the_other_way_round_are_named():
    with pytest.raises(ValueError) as caught:
        check(right, "99.halve")
    assert str(caught.value).endswith('write check("99.halve", right)')
    for id in ("nothing like it", None, "x" * 1000, right):
        with pytest.raises(ValueError) as caught:
            check(id, right)
        assert len(str(caught.value)) < 200 and 'one such as "05.snr"' in str(caught.value)


def test_the_courses_version_is_bound_before_strict_mode_raises(monkeypatch):
    monkeypatch.setenv("COURSE_STRICT", "1")
    space = {"check": check, "halve": wrong}
    with pytest.raises(ExerciseError):
        exec('halve = check("99.halve", halve)', space)
    assert space["halve"] is halve


def test_a_report_that_cannot_be_written_is_said_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_REPORT", str(tmp_path / "missing" / "report.jsonl"))
    for _ in range(2):
        assert check("99.halve", right) is right
    said = capsys.readouterr().err
    assert said.count("which COURSE_REPORT names, cannot be written (No such file or directory)") == 1


def test_a_stream_without_ticks_and_crosses_loses_nothing_else(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    assert check("99.halve", right) is right
    assert check("99.halve", wrong) is halve
    progress()
    sys.stdout.flush()
    assert b"? 99.halve: right." in written.getvalue() and b"99.halve: not right yet" in written.getvalue()


def test_hints_come_one_by_one(capsys):
    for number in (1, 2, 3, 4):
        hint(STEP)
        said = capsys.readouterr().out
        assert said.count("Hint ") == min(number, 3)
    assert "That was the last of 3" in said


def test_solution_shows_the_source(capsys):
    solution(STEP)
    assert "def forward_step(" in capsys.readouterr().out


def test_progress_lists_every_exercise(capsys):
    registry._EXERCISES.pop("99.halve"), registry._EXERCISES.pop("99.count")
    check("05.alpha_bar", lambda beta: (1 - beta).cumprod(0))
    check("05.add_noise", add_noise)
    capsys.readouterr()
    progress()
    said = capsys.readouterr().out
    assert all(exercise.id in said for exercise in registry.all_exercises())
    assert f"1 of {len(registry.all_exercises())} exercises solved" in said
    assert "05        Forward diffusion: 1 of 7 solved, 5 of 63 minutes" in said
    assert "✓ 05.alpha_bar                 ●○○○○   5 min  solved" in said
    assert "○ 05.add_noise                 ●●○○○  10 min  to do" in said
    assert "○ 05.snr                       ●○○○○   3 min  not tried" in said
