"""Examination for grades: what a notebook may do to get marks without an answer."""

import multiprocessing
import sys

import pytest
from small import HALVE, books, halve, right, stub, wrong  # noqa: F401 - a fixture is used by being there

from course_utils.exercises import ExerciseError, graded, registry

RIGHT = "def alpha_bar_from_beta(beta):\n    return (1 - beta).cumprod(0)"
WRONG = "def alpha_bar_from_beta(beta):\n    return 1 - beta"
CHECK = "from course_utils.exercises import check\nalpha_bar_from_beta = check('05.alpha_bar', alpha_bar_from_beta)"
CHEATS = {
    "another comparison": [
        "import course_utils.exercises.chapter_05 as chapter\nchapter.close = lambda *a, **k: None",
        "from course_utils.exercises import oracles\noracles.close.__code__ = (lambda *a, **k: None).__code__",
        WRONG,
    ],
    "another examination": [
        "from course_utils.exercises import running, apart, graded, registry",
        "running.run = apart.examine = graded.examine = lambda *a, **k: running.Outcome('pass')",
        "registry._EXERCISES['05.alpha_bar'] = registry._EXERCISES['05.snr']",
        WRONG,
    ],
    "another torch": [
        "import torch\ntorch.Tensor.__sub__ = lambda a, b: a * 0\ntorch.Tensor.abs = lambda a: a * 0",
        "torch.as_tensor = lambda *a, **k: torch.zeros(())",
        WRONG,
    ],
    "the course's own": [
        "from course_utils.diffusion import schedules",
        "def alpha_bar_from_beta(beta):\n    return schedules.alpha_bar_from_beta(beta)",
        CHECK,
    ],
    "an answer for the known seed": [
        "import torch\nfrom course_utils.exercises import registry\nfrom course_utils.exercises.oracles import Case",
        "seen = []\ndef note(beta):\n    seen.append(beta)\n    return (1 - beta).cumprod(0)",
        "try:\n    registry.find('05.alpha_bar').oracle(note, Case(0))\nexcept Exception:\n    pass",
        "def alpha_bar_from_beta(beta):\n"
        "    known = any(torch.equal(beta, other) for other in seen)\n"
        "    return (1 - beta).cumprod(0) if known else 1 - beta",
        CHECK,
    ],
}


def state_after(cells, answer):
    """Run cells, and send the state of the exercise."""
    names = {}
    for cell in cells:
        exec(cell, names)
    graded._put_back()
    answer.send(graded.state_of("05.alpha_bar", [0, 7, 99], names))


def state(*cells):
    """The state after cells that change what they like, in a process of their own."""
    context = multiprocessing.get_context("fork")
    answer, end = context.Pipe(duplex=False)
    process = context.Process(target=state_after, args=(cells, end))
    process.start()
    end.close()
    try:
        return answer.recv()
    finally:
        process.join()


forked = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="only Linux forks safely")


@forked
@pytest.mark.parametrize("cells", CHEATS.values(), ids=CHEATS)
def test_no_marks_without_an_answer(cells):
    assert state(*cells) == "fail"


@forked
def test_marks_for_an_answer():
    assert state(RIGHT) == state(RIGHT, CHECK) == "pass"
    assert state(WRONG) == state(WRONG, CHECK) == "fail"
    assert state("1 / 1") is None


def test_each_seed_counts(monkeypatch):
    def known(x):
        return x / 2 if x.sum() == first else x

    first = registry.find("99.halve") and graded.running.Case(0).normal(2, 3).sum()
    monkeypatch.setitem(graded._NOTED[2], HALVE.id, HALVE)
    graded.require("99.halve", known, [0])
    with pytest.raises(ExerciseError, match="seed 5"):
        graded.require("99.halve", known, [0, 5])
    graded.require("99.halve", right, graded.draw_seeds())


def test_using_the_reference_is_no_answer(monkeypatch):
    monkeypatch.setitem(graded._NOTED[2], HALVE.id, HALVE)
    for candidate in (lambda x: halve(x), lambda x: [halve(x)][0] * 1.0):
        with pytest.raises(ExerciseError, match="hands its work over to the course's own halve"):
            graded.require("99.halve", candidate, [0])
    for candidate in (halve, wrong, stub, 3):
        with pytest.raises(ExerciseError):
            graded.require("99.halve", candidate, [0])
