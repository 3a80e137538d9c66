"""Wrong versions of every reference, made by rewriting its code: each is refused, or right after all.

Some of them; `python3 course.py benchmark checks` tries all, on three seeds.
"""

from importlib import import_module
from pathlib import Path

import pytest
from generated import FEWEST, is_equivalent, versions
from legal import DRIVE, LEGAL

from course_utils.exercises import limits
from course_utils.exercises.registry import all_exercises
from course_utils.exercises.running import run

for file in sorted(Path(__file__).parent.glob("legal_*.py")):
    import_module(file.stem)

EXERCISES = all_exercises()
EVERY = 6  # one version in so many is tried here


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_wrong_versions_are_refused(exercise, monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 3)
    made = list(versions(exercise))
    assert len(made) >= FEWEST
    first = EXERCISES.index(exercise) % EVERY
    passed = [(change, version) for change, version in made[first::EVERY] if run(exercise, version).state == "pass"]
    assert not [change for change, version in passed if not is_equivalent(exercise, version, seeds=range(2))]


def test_every_exercise_has_legal_inputs():
    assert {exercise.id for exercise in EXERCISES} == set(LEGAL) | set(DRIVE)
    assert not set(LEGAL) & set(DRIVE)
