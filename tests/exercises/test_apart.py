"""What learners' code may do to the process that examines it: it is ended, said so, and the session goes on."""

import builtins
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from small import HALVE, books, right, stub, wrong  # noqa: F401 - a fixture is used by being there
from unruly import FORKED, KINDS, SLOW, ends_python, keeps_every_exception

from course_utils.exercises import apart, check, limits, registry
from course_utils.exercises.apart import examine

ROOT = Path(__file__).resolve().parents[2]
forked = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks safely")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.4)
    monkeypatch.setattr(apart, "GRACE", 0.2)
    monkeypatch.setattr(apart, "MEMORY", 2**30)


def held(function, words, capsys, monkeypatch):
    if words != SLOW:
        monkeypatch.setattr(limits, "SECONDS", 10)
    start = time.monotonic()
    outcome = examine(HALVE, function)
    assert outcome.state == "error", outcome
    assert words in f"{outcome.found}\n{outcome.advice}"
    printed = capsys.readouterr()
    assert len(printed.out) + len(printed.err) <= limits.CHARACTERS
    assert all(len(text) < 3000 for text in (outcome.called, outcome.found, outcome.advice))
    assert time.monotonic() - start < max(5, limits.SECONDS), "what is not slow is ended before its time is up"
    assert examine(HALVE, right).state == "pass"


@pytest.mark.parametrize("function, words", KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_within_the_process(function, words, capsys, monkeypatch):
    monkeypatch.setattr(apart, "can_fork", lambda: False)
    held(function, words, capsys, monkeypatch)


@forked
@pytest.mark.parametrize("function, words", KINDS + FORKED, ids=lambda value: getattr(value, "__name__", ""))
def test_in_a_process_of_its_own(function, words, capsys, monkeypatch):
    held(function, words, capsys, monkeypatch)


@forked
def test_nothing_of_the_session_is_touched(capfd):
    counter = []

    def meddles(x):
        counter.append(1)
        torch.manual_seed(1)
        builtins.print = None
        os.environ["COURSE_STRICT"] = "1"
        return x / 2

    before = torch.get_rng_state()
    assert examine(HALVE, meddles).state == "pass"
    assert (counter, builtins.print is None, "COURSE_STRICT" in os.environ) == ([], False, False)
    assert before.equal(torch.get_rng_state())


@forked
def test_no_descriptor_and_no_process_is_left():
    examine(HALVE, right)
    before = sorted(os.listdir("/proc/self/fd"))
    for function in (right, ends_python, keeps_every_exception):
        examine(HALVE, function)
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_answer_is_as_within_the_process(monkeypatch):
    outcomes = [examine(HALVE, function) for function in (right, wrong, stub)]
    monkeypatch.setattr(apart, "can_fork", lambda: False)
    assert [examine(HALVE, function) for function in (right, wrong, stub)] == outcomes


def test_without_a_process_to_be_had_it_is_examined_here(monkeypatch, capsys):
    def refused():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused, raising=False)
    assert (examine(HALVE, right).state, examine(HALVE, wrong).state) == ("pass", "fail")
    monkeypatch.undo()
    monkeypatch.setattr(apart, "_torch_works", lambda: False)  # as after gradients on a GPU
    assert (examine(HALVE, right).state, examine(HALVE, wrong).state) == ("pass", "fail")


def test_it_works_in_another_thread(capsys):
    states = []
    thread = threading.Thread(target=lambda: states.append(check("99.halve", right) is right))
    thread.start()
    thread.join()
    assert states == [True]


def test_what_is_printed_is_seen(capsys):
    examine(HALVE, lambda x: print("looking at", x.shape, "✓") or x / 2)
    assert capsys.readouterr().out == "looking at torch.Size([2, 3]) ✓\n"


@forked
def test_an_interrupt_ends_the_examination(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 60)
    threading.Timer(0.3, lambda: os.kill(os.getpid(), 2)).start()
    with pytest.raises(KeyboardInterrupt):
        examine(HALVE, keeps_every_exception)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# After the parent has computed with many threads, a forked process that uses those threads would wait for ever.
THREADS = """
import torch
from course_utils.exercises import apart
from course_utils.exercises.registry import all_exercises
from tokenizers import Tokenizer, models

torch.set_num_threads(4)
layer = torch.nn.Conv2d(16, 16, 3)
layer(torch.randn(32, 16, 64, 64)).square().mean().backward()
torch.linalg.svd(torch.randn(300, 300) @ torch.randn(300, 300))
words = Tokenizer(models.WordLevel({"a": 0}, "a"))
words.encode_batch(["a"] * 1000)
for exercise in all_exercises():
    if exercise.id in ("05.add_noise", "04.attention", "06.training_step"):
        print(exercise.id, apart.examine(exercise, exercise.reference).state)

def heavy(alpha_bar):
    layer(torch.randn(32, 16, 64, 64)).square().mean().backward()
    words.encode_batch(["a"] * 1000)
    return exercise.reference(alpha_bar)

exercise = next(exercise for exercise in all_exercises() if exercise.id == "05.snr")
print(apart.examine(exercise, heavy).state)
"""


@forked
def test_it_works_after_computing_with_many_threads():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(ROOT)
    result = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    ids = [id for id in ("04.attention", "05.add_noise", "06.training_step") if id in registry._EXERCISES]
    assert result.stdout.splitlines() == [f"{id} pass" for id in ids] + ["pass"]
