"""What an examination says of code that is right, wrong, hangs, prints or breaks."""

import contextlib
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from small import COUNT, HALVE, books, halve, halves, raising, right, stub, wrong  # noqa: F401 - a fixture is used by being there

from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta
from course_utils.exercises import limits, registry
from course_utils.exercises.calls import described
from course_utils.exercises.oracles import Case, Wrong, close, require
from course_utils.exercises.running import run

ROOT = Path(__file__).resolve().parents[2]


def endless(x):
    while True:
        with contextlib.suppress(Exception):
            sum(range(100))


def talkative(x):
    for number in range(1_000_000):
        print("number", number)


def in_place(x):
    x /= 2
    return x


def in_place_by_index(x):
    x[0] = 0
    return x / 2


def calls_what_is_not_implemented(x):
    return helper(x)


def helper(x):
    raise NotImplementedError("not on this machine")


def stops_python(x):
    sys.exit(3)


@pytest.mark.parametrize(
    "function, state, words",
    [
        (right, "pass", ""),
        (wrong, "fail", "This doubles."),
        (stub, "todo", ""),
        (talkative, "error", "printed more than 10,000 characters, and was stopped"),
        (in_place, "fail", "the input x was changed in place"),
        (in_place_by_index, "fail", "x[...] = ..."),
        (raising, "error", "size = x.shape[7]"),
        (calls_what_is_not_implemented, "error", "NotImplementedError: not on this machine"),
        (stops_python, "error", "SystemExit: 3"),
        (lambda x: None, "fail", "Is the last line `return ...`?"),
        (lambda x: x.numpy() / 2, "fail", "of type numpy.ndarray, expected a torch.Tensor"),
        (lambda x: (x / 2,), "fail", "makes a tuple of one"),
        (lambda x: x[:1] / 2, "fail", "got the shape (1, 3), expected (2, 3)"),
        (lambda x: x.T / 2, "fail", "an axis too many, too few, or in another place"),
        (lambda x: x[:, None] - x / 2, "fail", "broadcast against each other"),
        (lambda x: (x / 2).long(), "fail", "dtype torch.int64, expected numbers with a fraction"),
        (lambda x: [x / 2], "fail", "torch.stack(list)"),
        (lambda x: (x / 2, x), "fail", "2 values were returned"),
        (lambda x: (x / 2).to(torch.complex64), "fail", "came out complex"),
        (lambda x: x > 0, "fail", "A comparison gives True and False"),
        (lambda x: x.relu, "fail", "are its brackets missing?"),
        (lambda x: x / 0, "fail", "6 of 6 elements are NaN or infinite"),
        (lambda x: torch.full((2, 3), torch.nan), "fail", "6 of 6 elements are NaN or infinite"),
        (lambda x: (x / 2).to("meta"), "fail", "on the device 'meta', expected 'cpu'"),
        (lambda x: x / 2 + 0.001, "fail", "The largest relative error is"),
        (lambda: 1, "fail", "cannot be called as halve(x)"),
        (lambda x, y: x, "fail", "Keep the `def` line as it was given"),
        (lambda x: x.double() / 2, "fail", "has the dtype torch.float64, expected torch.float32"),
        (torch.no_grad()(right), "pass", ""),
        (torch.no_grad()(stub), "todo", ""),
    ],
)
def test_outcomes(function, state, words):
    outcome = run(HALVE, function)
    assert outcome.state == state, outcome
    assert words in f"{outcome.found}\n{outcome.advice}", outcome


def test_what_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.3)
    outcome = run(HALVE, endless)
    assert (outcome.state, outcome.called) == ("error", "halve(x (2, 3))")
    assert "still running after 0.3 seconds" in outcome.found
    assert run(HALVE, right).state == "pass"


def test_a_timer_that_was_there_is_put_back():
    import signal

    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        run(HALVE, right)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
        signal.raise_signal(signal.SIGALRM)
        assert rang == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_it_works_outside_the_main_thread():
    states = []
    thread = threading.Thread(target=lambda: states.append(run(HALVE, right).state))
    thread.start()
    thread.join()
    assert states == ["pass"]


def test_what_was_printed_is_seen_up_to_the_limit(capsys):
    run(HALVE, talkative)
    assert len(capsys.readouterr().out) == limits.CHARACTERS
    run(HALVE, lambda x: print("looking at", x.shape) or x / 2)
    assert "looking at torch.Size([2, 3])" in capsys.readouterr().out


def test_an_error_shows_the_learners_line_only():
    outcome = run(HALVE, raising)
    assert outcome.found.startswith("line ") and ", in raising:" in outcome.found
    assert "IndexError" in outcome.found
    assert "running.py" not in outcome.found and "course_utils" not in outcome.found
    inside_a_library = run(HALVE, lambda x: torch.distributions.Normal(x, -1))
    assert "torch.distributions.Normal(x, -1)" in inside_a_library.found and "ValueError" in inside_a_library.found


def test_nothing_of_the_session_is_changed():
    def meddles(x):
        import matplotlib.pyplot as plt

        plt.figure()
        torch.manual_seed(1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return x / 2

    import matplotlib.pyplot as plt

    plt.figure()
    before, figures, pythons = torch.get_rng_state(), plt.get_fignums(), random.getstate()
    assert run(HALVE, meddles).state == "pass"
    assert before.equal(torch.get_rng_state())
    assert plt.get_fignums() == figures
    assert random.getstate() == pythons
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    plt.close("all")
    with torch.no_grad():
        run(HALVE, right)
        assert not torch.is_grad_enabled()


# Other exercises that an exercise uses


def test_uses_are_replaced_by_the_references_and_put_back():
    space = {}
    exec("def halve(x):\n    return x\n\ndef count_from(x):\n    return halve(x)", space)
    uses = registry.Exercise("99.uses", halve, halves, "Take the half.", 1, 1, ("a", "b"), uses=("99.halve",))
    its_own = space["halve"]
    assert run(uses, space["count_from"]).state == "pass"
    assert run(HALVE, space["count_from"]).state == "fail"
    assert space["halve"] is its_own
    del space["halve"]
    assert run(uses, space["count_from"]).state == "pass"
    assert "halve" not in space


def learners_class(body="self.count = self.count + halve(x)"):
    space = {"halve": stub}
    exec(f"class Counter:\n def __init__(self, start):\n  self.count = start\n def add(self, x):\n  {body}\n"
         "  return self.count", space)  # fmt: skip
    return space


@pytest.mark.parametrize(
    "body, state, words",
    [
        ("self.count = self.count + halve(x)", "pass", ""),
        ("self.count = self.count - halve(x)", "fail", "largest relative error"),
        ("raise NotImplementedError", "todo", ""),
        ("x += 1", "fail", "x was changed in place"),
        ("self.missing", "error", "AttributeError"),
    ],
)
def test_classes_are_exercises_too(body, state, words):
    space = learners_class(body)
    outcome = run(COUNT, space["Counter"])
    assert outcome.state == state, outcome
    assert words in outcome.found
    assert space["halve"] is stub


def test_a_method_that_is_missing_is_named():
    class Counter:
        def __init__(self, start):
            pass

    assert "no method 'add'" in run(COUNT, Counter).found


# The parts


def test_another_seed_is_another_case():
    seen = []
    exercise = registry.Exercise("99.seen", halve, lambda learner, case: seen.append(case.normal(2)), "", 1, 1, ())
    for seed in (0, 1):
        run(exercise, right, seed)  # and once each for the promises of the reference
    assert seen[0].equal(seen[1]) and not seen[0].equal(seen[2])
    case = Case(0)
    assert not case.normal(5).equal(torch.randn(5, generator=case.generator()))


def test_an_id_cannot_be_taken_twice_nor_an_exercise_be_incomplete():
    def fine(learner, case):
        """Do it."""

    with pytest.raises(ValueError, match="'05.add_noise', which add_noise has"):
        registry.exercise("05.add_noise", halve, difficulty=1, minutes=1, hints=["a", "b"])(fine)
    for change in ({"difficulty": 6}, {"minutes": 0}, {"hints": ["a"]}):
        with pytest.raises(ValueError, match="add what is missing"):
            registry.exercise("99.x", halve, **{"difficulty": 1, "minutes": 1, "hints": ["a", "b"]} | change)(fine)


def test_close_compares_numbers_and_names_mistakes():
    close(2.0, 2.0)
    close(3, torch.tensor(3))
    close(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.nan]))
    close(torch.tensor([1.0, 1e-9]), torch.tensor([1.0, 0.0]))
    close(torch.tensor([-torch.inf, 1.0]), torch.tensor([-torch.inf, 1.0]))
    for got, expected in ((torch.tensor([0.0, 1.0]), torch.tensor([-torch.inf, 1.0])),
                          (torch.tensor([-torch.inf, 2.0]), torch.tensor([-torch.inf, 1.0])),
                          (torch.tensor([torch.nan, 1.0]), torch.tensor([torch.inf, 1.0])),
                          (torch.tensor([torch.nan]), torch.ones(1)), (torch.ones(1), torch.tensor([torch.nan])),
                          (True, 1), (torch.ones(2), torch.ones(1)), (torch.ones(1), torch.ones(1).long()),
                          (torch.tensor([1.0, 0.01]), torch.tensor([1.0, 0.011]))):  # fmt: skip
        with pytest.raises(Wrong):
            close(got, expected)
    with pytest.raises(Wrong) as caught:
        close(torch.ones(()), torch.ones(3) * 2, [(torch.ones(3), "no"), (torch.ones(()), "yes")])
    assert caught.value.advice == "yes"
    require(True, "")
    with pytest.raises(Wrong, match="found"):
        require(False, "found")


def test_calls_are_described_in_words():
    t = torch.tensor([0, 7])
    said = described(add_noise, (torch.zeros(4, 3, 8, 8), torch.zeros(2, 2), t, torch.tensor(0.123456)))
    assert said == "add_noise(x0 (4, 3, 8, 8), eps (2, 2), t = [0, 7], alpha_bar = tensor(0.1235))"
    assert described(alpha_bar_from_beta, (3,)) == "alpha_bar_from_beta(beta = 3)"


def test_importing_is_quick():
    code = "import course_utils.exercises, sys; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    slow = {"diffusers", "transformers", "accelerate", "matplotlib", "sklearn", "IPython"}
    assert "course_utils.exercises" in loaded and slow & set(loaded) == set()
