"""Examination for grades: on several seeds, by the course's code as it was loaded, and without help of the reference.

A notebook may change what it likes in the process that it runs in. So the functions and classes of the course, of
torch and of Python are noted when this module is loaded, and put back before each examination. `course.py check`
loads it before the notebook's first cell (`listen`), hidden tests do where they stand. What this does not
prevent, TEACHING.md says.
"""

import builtins
import math
import random
import sys

import torch

from course_utils import exercises
from course_utils.exercises import calls, messages, registry, running
from course_utils.exercises.limits import functions_of
from course_utils.exercises.running import Outcome

COMM = "course"  # the name by which `course.py check` reaches `answer` in a kernel
SEEDS = 2  # beside that which the learner knows
_PLACES = (builtins, math, torch, torch.nn.functional, torch.Tensor, torch.nn.Module)


def require(id: str, candidate, seeds) -> None:
    """Raise ExerciseError unless the answer passes for every seed."""
    seed, outcome = examine(id, candidate, seeds)
    if outcome.state != "pass":
        raise exercises.ExerciseError(str(messages.not_passed(registry.find(id), outcome, seed, True, False)))


def examine(id: str, candidate, seeds) -> tuple[int, Outcome]:
    """Examine an answer as `check` does, for one seed after the other; return the last seed and its outcome."""
    _put_back()
    exercise, outcome, seed = registry.find(id), Outcome("todo"), 0
    for seed in seeds:
        outcome = exercises.outcome_of(exercise, candidate, seed, _run_watched)
        if outcome.state != "pass":
            break
    return seed, outcome


def _run_watched(exercise, candidate, seed) -> Outcome:
    """Run the examination; an answer is none if the reference did the work."""
    functions = functions_of(exercise.reference)  # what makes the object may be inherited, what it does may not
    codes = {id(function.__code__) for function in functions if function.__name__ != "__init__"}
    used = []

    def watch(frame, event, argument):
        if event == "call" and id(frame.f_code) in codes and _called_by(candidate, frame):
            used.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        outcome = running.run(exercise, candidate, seed)
    finally:
        sys.setprofile(before)
    if outcome.state == "pass" and used:
        found = f"it hands its work over to the course's own {exercise.name}."
        return Outcome("fail", outcome.called, found, "Write it with what the exercise names, as in the lesson.")
    return outcome


def _called_by(candidate, frame) -> bool:
    """True if the frame belongs to a call of the candidate, and not to the oracle's own work."""
    while frame is not None:
        if frame.f_code is calls.Learner.call.__code__:
            return frame.f_locals["self"].candidate is candidate
        frame = frame.f_back
    return False


# In the kernel of a notebook


def listen() -> None:
    """Let `course.py check` ask this kernel, by a message of its own, for the state of an exercise."""
    from IPython import get_ipython

    get_ipython().kernel.comm_manager.register_target(COMM, answer)


def answer(comm, message) -> None:
    """Send the state of one exercise, for the seeds that are asked for.

    Examined is what the notebook handed to `check`, or else what it calls by the exercise's name. No state is sent if
    there is neither.
    """
    from IPython import get_ipython

    _put_back()
    state = state_of(message["content"]["data"]["id"], message["content"]["data"]["seeds"], get_ipython().user_ns)
    comm.send({"state": state})


def state_of(id: str, seeds, names: dict) -> str | None:
    """Return the state of an exercise in a notebook with these names, or None if there is nothing to examine."""
    candidate, state = exercises.handed.get(id, (names.get(registry.find(id).name), None))
    if state in ("todo", "fail", "error"):  # nobody forges these, so it need not be examined again
        return state
    return None if candidate is None else examine(id, candidate, seeds)[1].state


def draw_seeds() -> list[int]:
    """The seed of the lesson, and others that nobody can foresee."""
    return [0, *random.SystemRandom().sample(range(1, 10**6), SEEDS)]


# What the notebook may have changed


def _attributes_of(place) -> dict[str, object]:
    """What of a module or class can be called, and of a class also what is bound to its objects."""
    found = {name: value for name, value in vars(place).items() if callable(value) or hasattr(value, "__get__")}
    for name in ("__dict__", "__weakref__", "__class__"):
        found.pop(name, None)
    return found


def _noted() -> tuple[list, list, dict]:
    registry.all_exercises()
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "course_utils"]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__.startswith("course_utils.")
    }
    places = [(place, _attributes_of(place)) for place in (*_PLACES, *modules, *classes)]
    functions = {value for _, attributes in places for value in attributes.values() if type(value) is type(_noted)}
    return places, [(function, function.__code__) for function in functions], dict(registry._EXERCISES)


def _put_back() -> None:
    places, codes, known = _NOTED
    for place, attributes in places:
        now = vars(place)
        for name, value in attributes.items():
            if now.get(name) is not value:
                setattr(place, name, value)
        for name in set(now) - set(attributes) if place is torch.Tensor else ():
            if callable(now[name]):  # hides the operator that Tensor inherits
                delattr(place, name)
    for function, code in codes:
        if function.__code__ is not code:
            function.__code__ = code
    registry._EXERCISES.clear()
    registry._EXERCISES.update(known)
    running.promised.cache_clear()


_NOTED = _noted()
