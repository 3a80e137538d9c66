"""Exercises: `check` examines what the learner wrote, `hint` and `solution` help, `progress` keeps the account.

    add_noise = check("05.add_noise", add_noise)

gives back the learner's function if it is right, and the course's own if it is not, so that a chapter always runs
to its end. Environment variables: COURSE_STRICT=1 (or NBGRADER_EXECUTION) makes every state but `pass` raise an
ExerciseError and leaves the progress alone; COURSE_REPORT names a file that each state is appended to, one JSON
object a line; COURSE_PROGRESS names the file of the progress.
"""

import inspect
import json
import os
import sys
from collections.abc import Callable

from course_utils.exercises import account, messages
from course_utils.exercises.apart import examine
from course_utils.exercises.registry import Exercise, all_exercises, chapters, find
from course_utils.exercises.running import Outcome, run

__all__ = ["ExerciseError", "check", "hint", "progress", "solution"]

_revealed: dict[str, int] = {}  # hints shown of each exercise, in this session
handed: dict[str, tuple[object, str]] = {}  # what was last handed to `check` for each exercise, and its state


class ExerciseError(Exception):
    """An exercise that does not pass, where that must not go unnoticed: in tests and when work is graded."""


def check(id: str, candidate: Callable, seed: int = 0) -> Callable:
    """Examine the learner's function or class; return it if it is right, else the course's own version.

    seed: another one examines with other inputs. Raises ValueError for an unknown id, and ExerciseError in strict
    mode for every state but `pass`; the course's version then has the exercise's name in the caller's module.
    """
    if isinstance(candidate, str) and not isinstance(id, str):
        raise ValueError(f'expected the id first and then the function, got them the other way round: write '
                         f'check("{candidate}", {getattr(id, "__name__", "your_function")})')  # fmt: skip
    exercise = find(id)
    outcome = outcome_of(exercise, candidate, seed)
    handed[id] = (candidate, outcome.state)
    strict = os.environ.get("COURSE_STRICT") == "1" or "NBGRADER_EXECUTION" in os.environ
    _report(id, outcome.state)
    entries = account.load() if strict else account.record(id, outcome.state)
    if outcome.state == "pass":
        own = [other.id for other in all_exercises() if other.chapter == exercise.chapter]
        solved = sum(entries.get(other, {}).get("passed", False) for other in own)
        count = "" if strict else f" Chapter {exercise.chapter}: {solved} of {len(own)} solved."
        messages.say(f"✓ {id}: right.{count}")
        return candidate
    message = messages.not_passed(exercise, outcome, seed, strict, entries.get(id, {}).get("passed", False))
    if strict:
        sys._getframe(1).f_globals[exercise.name] = exercise.reference  # for the cells after this one
        raise ExerciseError(str(message))
    messages.show(message)
    return exercise.reference


def outcome_of(exercise: Exercise, candidate, seed: int, run: Callable = run) -> Outcome:
    """Examine what was handed in, whatever it is. run: what examines a function."""
    if candidate is exercise.reference:
        return messages.not_yours(exercise)
    if not callable(candidate):
        return messages.not_callable(exercise, candidate)
    return examine(exercise, candidate, seed, run)


def _report(id: str, state: str) -> None:
    """Add a line to the report, if one is wanted; a lesson goes on if it cannot be written."""
    if os.environ.get("COURSE_REPORT"):
        try:
            with open(os.environ["COURSE_REPORT"], "a", encoding="utf-8") as report:
                report.write(json.dumps({"id": id, "state": state}) + "\n")
        except OSError as error:
            account.say_once(f"The report {os.environ['COURSE_REPORT']}, which COURSE_REPORT names, cannot be written "
                             f"({error.strerror}). Everything else works as usual.")  # fmt: skip


def hint(id: str) -> None:
    """Show one hint more of an exercise each time. Raises ValueError for an unknown id."""
    exercise = find(id)
    _revealed[id] = min(_revealed.get(id, 0) + 1, len(exercise.hints))
    messages.show(messages.hints(exercise, _revealed[id]))


def solution(id: str) -> None:
    """Show the course's own version of an exercise. Raises ValueError for an unknown id."""
    exercise = find(id)
    messages.show(messages.solution(exercise, inspect.getsource(exercise.reference)))


def progress() -> None:
    """Show every exercise of the course by chapter: its state, its difficulty and its minutes."""
    entries = account.load()
    rows = [(exercise, entries.get(exercise.id, {})) for exercise in all_exercises()]
    table = [(exercise, entry.get("state", ""), entry.get("passed", False)) for exercise, entry in rows]
    messages.show(messages.overview(table, {number: module.TITLE for number, module in chapters().items()}))
