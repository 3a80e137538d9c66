"""Every exercise of the course: wrong answers are rejected by the right words, right ones accepted, stubs are todo."""

import ast
import inspect
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
from attempts import MUTANTS, VARIANTS

from course_utils.exercises import oracles
from course_utils.exercises.registry import all_exercises, chapters, find
from course_utils.exercises.running import run

for file in sorted(Path(__file__).parent.glob("attempts_*.py")):  # each fills the lists of attempts
    import_module(file.stem)

EXERCISES = all_exercises()
ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 11, 202, 3003)  # the learner's, and others, as when work is graded


@pytest.mark.parametrize("attempt", MUTANTS, ids=lambda a: f"{a.id}-{a.function.__name__}")
def test_wrong_answers_are_rejected_by_name(attempt):
    for seed in SEEDS:
        outcome = run(find(attempt.id), attempt.function, seed)
        assert outcome.state == attempt.state, outcome
        assert attempt.words in f"{outcome.found} {outcome.advice}", outcome
        assert attempt.state == "error" or outcome.advice, outcome


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_each_sentence_is_given_to_the_mistakes_that_it_names_and_to_no_other(exercise, monkeypatch):
    said = sentences_of(exercise, monkeypatch)
    given = set()
    own = [attempt for attempt in MUTANTS if attempt.id == exercise.id]
    for attempt in own:
        outcome = run(exercise, attempt.function)
        message = f"{outcome.found} {outcome.advice}"
        given.add(outcome.advice)
        others = {other.words for other in own if other.words not in attempt.words and attempt.words not in other.words}
        wrongly = {words for words in others if words in message}
        assert not wrongly, f"{attempt.function.__name__} is told what belongs to another mistake: {outcome}"
    unproven = said - given
    assert not unproven, f"no wrong answer is told: {sorted(unproven)}"


def sentences_of(exercise, monkeypatch):
    """Return every sentence on a mistake that the oracle of an exercise compares an answer with."""
    said = set()

    def noting(got, expected, mistakes=(), *rest, **options):
        mistakes = list(mistakes)
        said.update(advice for _, advice in mistakes)
        return oracles.close(got, expected, mistakes, *rest, **options)

    for module in [module for name, module in sys.modules.items() if name.startswith("course_utils.exercises.")]:
        if getattr(module, "close", None) is oracles.close and module is not oracles:
            monkeypatch.setattr(module, "close", noting)
    assert run(exercise, exercise.reference).state == "pass"
    monkeypatch.undo()
    return said


@pytest.mark.parametrize("attempt", VARIANTS, ids=lambda a: f"{a.id}-{a.function.__name__}")
def test_right_answers_are_accepted_however_they_are_written(attempt):
    for seed in SEEDS:
        assert run(find(attempt.id), attempt.function, seed).state == "pass"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_each_exercise_keeps_what_the_course_promises(exercise):
    def stub(*inputs):
        raise NotImplementedError

    assert run(exercise, stub).state == "todo"
    assert all(run(exercise, exercise.reference, seed).state == "pass" for seed in range(20))
    assert len(exercise.hints) >= 2 and len(set(exercise.hints)) == len(exercise.hints)
    assert exercise.difficulty in range(1, 6) and 1 <= exercise.minutes <= 60
    assert exercise.task.endswith(".")
    assert all(find(id).chapter <= exercise.chapter for id in exercise.uses)
    of_this = [attempt for attempt in MUTANTS if attempt.id == exercise.id]
    assert len(of_this) >= 3, "three wrong answers at least, each a mistake that learners make"
    assert len({attempt.words for attempt in of_this}) == len(of_this), "each by a message of its own"
    assert any(attempt.id == exercise.id for attempt in VARIANTS)


def test_ids_are_unique_and_name_their_chapter():
    ids = [exercise.id for exercise in EXERCISES]
    assert len(set(ids)) == len(ids)
    assert {exercise.chapter for exercise in EXERCISES} == set(chapters())
    for exercise in EXERCISES:
        assert exercise.oracle.__module__ == f"course_utils.exercises.chapter_{exercise.chapter}"


def parameters(definition):
    """The def line's parameters as text, by function or method."""
    if isinstance(definition, ast.ClassDef):
        return {m.name: parameters(m)[m.name] for m in definition.body if isinstance(m, ast.FunctionDef)}
    for argument in ast.walk(definition.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return {definition.name: ast.unparse(definition.args)}


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_exercises_have_the_parameters_that_their_check_knows(exercise):
    (source,) = (ROOT / "solutions" / "source").glob(f"{exercise.chapter}_*.py")
    reference = ast.parse(textwrap.dedent(inspect.getsource(exercise.reference))).body[0]
    expected = parameters(reference)
    if exercise.given and isinstance(reference, ast.ClassDef):  # its other methods, as far as they are taught
        expected["__init__"] = f"self, {exercise.given}"
    elif exercise.given:
        expected = {exercise.name: exercise.given}
    given = [
        parameters(node)
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == exercise.name
    ]
    if inspect.isclass(exercise.reference) and exercise.given:
        expected = {name: expected[name] for each in given for name in each}
    assert given == [expected]
