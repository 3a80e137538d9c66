"""The file of the progress: nothing in it is lost, and a lesson goes on whatever becomes of it."""

import json
import multiprocessing
from pathlib import Path

import pytest
from small import HALVE, books, right, stub, wrong  # noqa: F401 - a fixture is used by being there

from course_utils.exercises import account, check, messages, progress

DONE = {f"05.exercise_{number}": {"state": "pass", "passed": True} for number in range(40)}


def test_what_was_solved_once_stays_solved(capsys):
    for candidate, state in ((wrong, "fail"), (right, "pass"), (stub, "todo"), (wrong, "fail")):
        check("99.halve", candidate)
        assert account.load()["99.halve"]["state"] == state
    assert account.load()["99.halve"]["passed"]
    assert "solved this one already; your progress keeps that" in capsys.readouterr().out
    overview = str(messages.overview([(HALVE, "todo", True)], {"99": "Test"}))
    assert "✓ 99.halve" in overview and "solved earlier, empty when last checked" in overview


def test_what_cannot_be_read_is_not_written_over(tmp_path, monkeypatch, capsys):
    path = tmp_path / "progress.json"
    path.write_text(json.dumps(DONE))
    read_text = Path.read_text

    def locked(self, *arguments, **options):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return read_text(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", locked)
    for _ in range(2):
        assert check("99.halve", right) is right
    said = capsys.readouterr().err
    assert said.count("cannot be kept (Permission denied). What is there stays as it is") == 1
    monkeypatch.undo()
    assert json.loads(path.read_text()) == DONE


def record_many(name, start):
    start.wait()
    for number in range(100):
        account.record(f"{name}.{number}", "pass")


def test_notebooks_at_the_same_time_lose_nothing(tmp_path):
    # Forked where that can be, since a new process imports torch for seconds
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    start = context.Barrier(3)
    kernels = [context.Process(target=record_many, args=(name, start)) for name in "abc"]
    for kernel in kernels:
        kernel.start()
    for kernel in kernels:
        kernel.join(60)
    assert set(account.load()) == {f"{name}.{number}" for name in "abc" for number in range(100)}
    assert not list(tmp_path.glob("*.part"))


def test_a_lock_that_is_not_given_back_stops_no_lesson(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(account, "LOCK_SECONDS", 0.1)
    (tmp_path / "progress.json").write_text(json.dumps(DONE))
    with account.FileLock(str(tmp_path / "progress.json.lock")):
        assert check("99.halve", right) is right
    assert "another program keeps it locked" in capsys.readouterr().err
    assert account.load() == DONE


DAMAGED = [b"{", b"[]", b'{"99.halve": 3}', b'{"99.halve": {"state": "x"}}', b"\xff\xfe", b"[" * 100_000]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: content[:20].decode(errors="replace"))
def test_a_damaged_file_is_put_aside_and_said_once(tmp_path, content, capsys):
    (tmp_path / "progress.json").write_bytes(content)
    progress()
    assert (tmp_path / "progress.json").read_bytes() == content  # looking changes nothing
    check("99.halve", right)
    check("99.halve", right)
    assert capsys.readouterr().err.count("is damaged. What can be read of it is kept") == 1
    assert account.load() == {"99.halve": {"state": "pass", "passed": True}}
    assert (tmp_path / "progress.json.unreadable-1").read_bytes() == content


def test_damaged_files_are_numbered_and_their_sound_entries_kept(tmp_path, capsys):
    for number in (1, 2, 3):
        content = json.dumps({**DONE, "05.bad": number})
        (tmp_path / "progress.json").write_text(content)
        check("99.halve", right)
        assert (tmp_path / f"progress.json.unreadable-{number}").read_text() == content
        assert account.load() == DONE | {"99.halve": {"state": "pass", "passed": True}}


def test_a_folder_that_cannot_be_written_is_said_once_and_breaks_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "file" / "progress.json"))
    for _ in range(2):
        assert check("99.halve", right) is right
    assert capsys.readouterr().err.count("set the environment variable COURSE_PROGRESS") == 1
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("place", ["~nosuchuser/progress.json", ".", "/dev/zero"])
def test_a_place_that_cannot_be_used_is_said_once_and_the_lesson_goes_on(place, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROGRESS", place)
    for _ in range(2):
        assert check("99.halve", right) is right
        progress()
    said = capsys.readouterr().err
    assert said.count("cannot be kept") == 1 and said.count("cannot be read") <= 1 and place in said


def test_an_empty_setting_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COURSE_PROGRESS", "")
    check("99.halve", right)
    assert account.progress_path() == tmp_path / "image-generation-course" / "progress.json"
    assert account.load()["99.halve"]["passed"]


def test_the_default_place_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_PROGRESS")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert account.progress_path() == tmp_path / "image-generation-course" / "progress.json"
    assert account.load() == {} and not list(tmp_path.iterdir())  # nothing is made by looking
