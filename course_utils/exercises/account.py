"""What the learner has solved, kept from session to session in a small JSON file.

The file is the one that COURSE_PROGRESS names, else one in the user's own Jupyter data folder. It holds, for each
exercise that was checked, {"state": its last state, "passed": whether it passed once}. A lesson goes on without it.
Several notebooks may write at the same time: each adds its own entry to what the file holds then, under a lock. What
could not be read is never written over.
"""

import contextlib
import itertools
import json
import os
import sys
from pathlib import Path

from filelock import FileLock, Timeout

STATES = ("todo", "pass", "fail", "error")
LOCK_SECONDS = 5  # another notebook holds the lock for milliseconds
ELSEWHERE = "to keep it elsewhere, set the environment variable COURSE_PROGRESS to a file that you may write"
_said: set[str] = set()  # each trouble with the file is said once a session


class _Unusable(Exception):
    """The file of the progress cannot be used as it is; the text says why."""


def progress_path() -> Path:
    """Return where the progress is kept. Raises RuntimeError if that names a home folder that is not there."""
    if os.environ.get("COURSE_PROGRESS"):
        return Path(os.environ["COURSE_PROGRESS"]).expanduser()
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "image-generation-course" / "progress.json"


def load() -> dict[str, dict]:
    """Return {id: {"state": ..., "passed": ...}}, empty if nothing is kept yet or the file cannot be read."""
    with _trouble_said("read"):
        path = _usable_path()
        with _locked(path):
            entries, damaged = _read(path)
        if damaged:
            say_once(f"Your progress in {path} is damaged. What can be read of it is shown.")
        return entries
    return {}


def record(id: str, state: str) -> dict[str, dict]:
    """Note the state of an exercise, and return all entries. What was passed once stays passed."""
    entries = {id: {"state": state, "passed": state == "pass"}}
    with _trouble_said("kept"):
        path = _usable_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            before, damaged = _read(path)
            passed = state == "pass" or before.get(id, {}).get("passed", False)
            entries = before | {id: {"state": state, "passed": passed}}
            if damaged:
                aside = _put_aside(path)
                say_once(f"Your progress in {path} is damaged. What can be read of it is kept, {len(before)} "
                          f"exercises; the old file is now {aside.name}.")  # fmt: skip
            if entries != before or damaged:
                _write(path, entries)
    return entries


def _usable_path() -> Path:
    path = progress_path()
    if path.exists() and not path.is_file():  # a device or a pipe would be read for ever, and must not be moved
        raise _Unusable("this is not a file")
    return path


def _read(path: Path) -> tuple[dict[str, dict], bool]:
    """Return the entries, and whether something in the file was none. Raises OSError."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, False
    except (ValueError, RecursionError):
        return {}, True
    if not isinstance(entries, dict):
        return {}, True
    sound = {id: entry for id, entry in entries.items() if _is_entry(entry)}
    return sound, len(sound) < len(entries)


def _is_entry(entry) -> bool:
    return isinstance(entry, dict) and entry.get("state") in STATES and isinstance(entry.get("passed"), bool)


def _put_aside(path: Path) -> Path:
    """Give a damaged file a name that no other one has."""
    numbered = (path.with_name(f"{path.name}.unreadable-{number}") for number in itertools.count(1))
    aside = next(candidate for candidate in numbered if not candidate.exists())
    path.rename(aside)
    return aside


def _write(path: Path, entries: dict[str, dict]) -> None:
    path = path.resolve()  # a link stays one
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def _locked(path: Path):
    """Hold the lock of the file, where its folder can have one; a folder that is read-only cannot."""
    if not path.parent.is_dir():  # nothing to read; and nothing is made by looking
        yield
        return
    lock = FileLock(f"{path}.lock", timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise _Unusable("another program keeps it locked") from None
    except (OSError, NotImplementedError):
        pass  # reading needs none; writing fails for the same reason, or merges without it
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _trouble_said(verb: str):
    """Say once why the progress cannot be read or kept, and let the lesson go on."""
    try:
        yield
        return
    except OSError as error:
        reason = error.strerror or str(error)
    except (_Unusable, RuntimeError) as error:
        reason = str(error)
    where = os.environ.get("COURSE_PROGRESS") or "Jupyter's data folder"
    with contextlib.suppress(RuntimeError):
        where = str(progress_path())
    say_once(f"Your progress in {where} cannot be {verb} ({reason}). What is there stays as it is, and the lesson "
              f"goes on; {ELSEWHERE}.")  # fmt: skip


def say_once(sentence: str) -> None:
    """Say a trouble on stderr, and not again in this session."""
    if sentence not in _said:
        _said.add(sentence)
        print(sentence, file=sys.stderr)
