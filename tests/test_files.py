"""What is written takes the place of the old as a whole, whenever the writer is stopped; and whether there is room."""

import errno
import os
import shutil
import sys

import pytest

from course_utils import files
from course_utils.files import new_file, new_files, new_folder, require_room, saying


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path):
    """A folder with two files, alone in its parent."""
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "a").write_text("old")
    (folder / "part" / "b").write_text("old")
    return folder


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file"
    for text in ("one", "two"):
        with new_file(path) as part:
            part.write_text(text)
    with pytest.raises(Killed), new_file(path) as part:
        part.write_text("half")
        raise Killed
    assert content(tmp_path) == {"new/file": "two"}


def test_files_join_what_the_folder_holds(home, tmp_path):
    with new_files(home) as part:
        (part / "a").write_text("new")
        (part / "c").write_text("new")
    assert content(tmp_path) == {"model/a": "new", "model/c": "new", "model/part/b": "old"}


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_as_a_whole(home, tmp_path, monkeypatch, exchange):
    if not exchange:  # as on a system that has no such call
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    before = content(tmp_path)
    with pytest.raises(Killed), new_folder(home) as part:
        (part / "a").write_text("half")
        raise Killed
    assert content(tmp_path) == before
    with new_folder(home) as part:
        (part / "a").write_text("new")
    assert content(tmp_path) == {"model/a": "new"} and list(tmp_path.iterdir()) == [home]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the running system")
def test_this_system_exchanges_folders_in_one_step(home, tmp_path):
    (tmp_path / "other").mkdir()
    assert files._exchange(home, tmp_path / "other")
    assert content(tmp_path) == {"other/a": "old", "other/part/b": "old"}
    assert not files._exchange(home, tmp_path / "missing")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.parametrize(
    "place, left", [("written", "old"), ("first rename", "old"), ("second rename", "new"), ("exchange", "new")]
)
def test_a_killed_writer_leaves_the_old_or_the_new(home, tmp_path, place, left):
    if (child := os.fork()) == 0:  # a process of its own, which ends as by kill -9: nothing is tidied up
        count, exchange = iter(("first rename", "second rename")), files._exchange

        def rename(self, target):
            os.rename(self, target)
            if next(count) == place:
                os._exit(9)

        files._exchange = lambda *names: place == "exchange" and exchange(*names) and os._exit(9)
        type(home).rename = rename
        part = new_folder.__wrapped__(home)
        (next(part) / "a").write_text("new")
        if place == "written":
            os._exit(9)
        next(part, None)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    if place == "first rename":  # the one moment when the folder has another name; the next writer gives it back
        with pytest.raises(Killed), new_folder(home):
            raise Killed
    assert content(home) == ({"a": "old", "part/b": "old"} if left == "old" else {"a": "new"})
    with new_folder(home) as part:
        (part / "a").write_text("newest")
    assert content(tmp_path) == {"model/a": "newest"} and list(tmp_path.iterdir()) == [home]


def test_what_a_running_process_is_writing_stays(home, tmp_path):
    with new_folder(home) as mine:
        (mine / "a").write_text("new")
        theirs = tmp_path / f".model.{os.getppid()}.part"
        theirs.mkdir()
        (tmp_path / ".model.999999999.part").mkdir()  # of a process that is no more
        with new_file(tmp_path / "other"):
            (tmp_path / f".other.{os.getpid()}.part").touch()
        assert mine.exists() and theirs.exists()
    with new_folder(home):
        assert theirs.exists() and not (tmp_path / ".model.999999999.part").exists()


def test_room_is_asked_for(tmp_path, monkeypatch):
    require_room(tmp_path / "new" / "folder", "elsewhere", 1000)
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2e9, 2e9, 5e6))
    with pytest.raises(ValueError, match=r"expected 7 MB of free disk .*, got 5 MB; free some, or go elsewhere"):
        require_room(tmp_path, "go elsewhere", 7_000_000)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"written into, got .*folder \(.*\); go elsewhere"):
        require_room(tmp_path / "file" / "folder", "go elsewhere")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_folder_that_cannot_be_made_is_said():
    with pytest.raises(ValueError, match=r"written into, got /proc/x"):
        require_room(files.Path("/proc/x"), "go elsewhere")


def test_the_error_of_a_full_disk_says_what_is_kept(tmp_path):
    from safetensors import SafetensorError

    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ):
        with pytest.raises(OSError) as caught, saying(tmp_path, "all is kept"):
            raise error
        assert (caught.value.strerror, caught.value.filename) == ("No space left on device; all is kept", str(tmp_path))
