"""Two small exercises for the tests of the machinery, answers to them, and books of their own for each test."""

import pytest

from course_utils import exercises
from course_utils.exercises import account, registry
from course_utils.exercises.oracles import close


def halve(x):
    """The reference of the exercise below."""
    return x / 2


class Counter:
    """The reference of another: counts, and doubles what was counted."""

    def __init__(self, start):
        self.count = start

    def add(self, x):
        self.count = self.count + halve(x)
        return self.count


def halves(learner, case):
    """Take the half."""
    x = case.normal(2, 3)
    close(learner(x), x / 2, [(x * 2, "This doubles.")])


def counts(learner, case):
    """Count halves."""
    x = case.normal(2)
    made = learner(1.0)
    close(learner.method(made, "add", x), 1 + x / 2)


HALVE = registry.Exercise("99.halve", halve, halves, "Take the half.", 1, 1, ("a", "b"))
COUNT = registry.Exercise("99.count", Counter, counts, "Count.", 1, 1, ("a", "b"), uses=("99.halve",))


@pytest.fixture(autouse=True)
def books(tmp_path, monkeypatch):
    """Progress in a folder of its own, and the two exercises above among those of the course."""
    for name in ("COURSE_STRICT", "NBGRADER_EXECUTION", "COURSE_REPORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(account, "_said", set())
    monkeypatch.setattr(exercises, "_revealed", {})
    monkeypatch.setattr(exercises, "handed", {})
    registry.all_exercises()
    monkeypatch.setattr(registry, "_EXERCISES", {**registry._EXERCISES, HALVE.id: HALVE, COUNT.id: COUNT})
    return tmp_path


def right(x):
    return x * 0.5


def wrong(x):
    return x * 2


def stub(x):
    raise NotImplementedError


def raising(x):
    size = x.shape[7]
    return x / size
