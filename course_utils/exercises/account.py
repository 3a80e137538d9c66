"""What the learner has solved, kept from session to session in a small JSON file.

The file is the one that COURSE_PROGRESS names, else one in the user's own Jupyter data folder. It holds, for each
exercise that was checked, {"state": its last state, "passed": whether it passed once}. A lesson goes on without it.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

STATES = ("todo", "pass", "fail", "error")
_said: set[str] = set()  # each trouble with the file is said once a session


def progress_path() -> Path:
    """Return where the progress is kept."""
    if "COURSE_PROGRESS" in os.environ:
        return Path(os.environ["COURSE_PROGRESS"]).expanduser()
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "image-generation-course" / "progress.json"


def load() -> dict[str, dict]:
    """Return {id: {"state": ..., "passed": ...}}, empty if nothing is kept yet or the file cannot be read."""
    path = progress_path()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        for entry in entries.values():
            if entry["state"] not in STATES or not isinstance(entry["passed"], bool):
                raise ValueError("an entry is not as expected")
        return entries
    except FileNotFoundError:
        return {}
    except OSError as error:
        _say_once(f"Your progress in {path} cannot be read ({error.strerror}). Everything else works as usual.")
    except (ValueError, TypeError, KeyError, AttributeError):
        aside = path.with_name(path.name + ".unreadable")
        _say_once(f"Your progress in {path} is damaged. It starts anew; the old file is kept as {aside.name}.")
        with contextlib.suppress(OSError):
            path.replace(aside)
    return {}


def record(id: str, state: str) -> dict[str, dict]:
    """Note the state of an exercise, and return all entries. What was passed once stays passed."""
    entries = load()
    passed = state == "pass" or entries.get(id, {}).get("passed", False)
    entry = {"state": state, "passed": passed}
    if entries.get(id) != entry:
        entries[id] = entry
        _write(entries)
    return entries


def _write(entries: dict[str, dict]) -> None:
    path = progress_path()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")  # two notebooks may write at the same time
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        _say_once(
            f"Your progress cannot be kept in {path} ({error.strerror}). The lesson goes on; to keep it "
            "elsewhere, set the environment variable COURSE_PROGRESS to a file that you may write."
        )
        with contextlib.suppress(OSError):
            temporary.unlink()


def _say_once(sentence: str) -> None:
    if sentence not in _said:
        _said.add(sentence)
        print(sentence, file=sys.stderr)
