"""Examine a learner's code where it can be ended: in a forked process, with limits of time, output and memory.

Only Linux forks safely here: macOS's own libraries may crash in a forked process, and Windows has none. Nor can a GPU
be used after a fork. There, the limits within the process remain (see `limits.py`).
"""

import builtins
import codecs
import contextlib
import faulthandler
import json
import os
import selectors
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import astuple

import torch

from course_utils.exercises import limits
from course_utils.exercises.registry import Exercise
from course_utils.exercises.running import Outcome, learners_lines, promised, run

MEMORY = 4 * 2**30  # bytes that an answer may take beside what the session holds already
GRACE = 1  # seconds by which the limit within the process may be late
SHOWN = 2_000  # characters of each part of a message
TOKENIZERS = "TOKENIZERS_PARALLELISM"
TOO_MUCH = f"It printed more than {limits.CHARACTERS:,} characters, and was stopped. Print less, or not in a loop."


def examine(exercise: Exercise, candidate: Callable, seed: int = 0, run: Callable = run) -> Outcome:
    """Do what `run` does, in a process of its own where that can be: whatever happens there, this one goes on."""
    for gradients in {False, exercise.gradients}:  # here, to import and calculate it once and not in each process
        promised(exercise, seed, gradients)
    outcome = _examine_apart(exercise, candidate, seed, run) if can_fork() else None
    return _examined(exercise, candidate, seed, run) if outcome is None else outcome


def can_fork() -> bool:
    """True where a forked process can go on with torch."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()


def shortened(text: str) -> str:
    """Return a text with its middle left out if it is too long to be read."""
    if len(text) <= SHOWN:
        return text
    return f"{text[: SHOWN // 2]}\n[... {len(text) - SHOWN:,} characters left out ...]\n{text[-SHOWN // 2 :]}"


def _examined(exercise, candidate, seed, run) -> Outcome:
    try:
        outcome = run(exercise, candidate, seed)
    except KeyboardInterrupt:
        raise
    except limits.LimitExceeded as limit:
        outcome = Outcome("error", found=str(limit))
    except BaseException as error:  # an exception of the learner's own that is no Exception
        outcome = Outcome("error", found=learners_lines(error))
    return Outcome(*(shortened(part) for part in astuple(outcome)))


def _examine_apart(exercise, candidate, seed, run) -> Outcome | None:
    """Return the outcome, or None if the system gives no process, or torch does not work in it."""
    answer, answer_end = os.pipe()
    output, output_end = os.pipe()
    try:
        with _quiet_fork():
            child = os.fork()
    except OSError:  # too many processes, or too little memory
        for end in (answer, answer_end, output, output_end):
            os.close(end)
        return None
    if child == 0:
        _be_the_child(exercise, candidate, seed, run, answer_end, output_end)
    os.close(answer_end)
    os.close(output_end)
    seconds = limits.SECONDS * (2 if exercise.gradients else 1)
    try:
        answered, trouble = _listen(child, answer, output, time.monotonic() + seconds + GRACE)
    finally:  # also if the learner interrupts
        status = _end(child)
        os.close(answer)
        os.close(output)
    if trouble is not None:
        return Outcome("error", found=trouble)
    return _outcome_from(answered, status)


@contextlib.contextmanager
def _quiet_fork() -> Iterator[None]:
    """Fork without the warnings of Python (since 3.12) and of tokenizers, both about threads that are not used."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else the child might write once more what is waiting
    before = os.environ.get(TOKENIZERS)
    os.environ.setdefault(TOKENIZERS, "false")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if before is None:
            os.environ.pop(TOKENIZERS, None)


# In the child


def _be_the_child(exercise, candidate, seed, run, answer_end: int, output_end: int) -> None:
    """Examine, write the outcome, and never return."""
    status = 1
    try:
        os.setsid()  # Ctrl-C is for the parent, which then ends this process and all that it started
        _set_limits()
        stream = _redirect(output_end)
        if _torch_works():
            try:
                outcome = _examined(exercise, candidate, seed, run)
            except KeyboardInterrupt as error:  # the learner's code raised it
                outcome = Outcome("error", found=learners_lines(error))
            stream.flush()
            data = json.dumps(astuple(outcome)) + "\n"
        else:
            data = "null\n"
        os.write(answer_end, data.encode())
        status = 0
    finally:
        os._exit(status)


def _set_limits() -> None:
    import resource

    torch.set_num_threads(1)  # the threads of the parent's pools are not here, and would be waited for
    os.environ[TOKENIZERS] = "false"
    faulthandler.disable()  # the parent says what happened
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    with contextlib.suppress(ValueError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))


def _redirect(output_end: int):
    """Let everything that is printed, by whatever way, go to the parent, and nothing be asked."""
    with open(os.devnull, encoding="ascii") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output_end, 1)
    os.dup2(output_end, 2)
    stream = open(output_end, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    for old in (sys.stdout, sys.stderr):  # a logger may keep them
        with contextlib.suppress(AttributeError, TypeError):
            vars(old).update(write=stream.write, flush=stream.flush)
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        setattr(sys, name, stream)
    if "IPython" in sys.modules:  # without its shell, `display` prints
        from IPython.core.interactiveshell import InteractiveShell

        if InteractiveShell.initialized():
            type(InteractiveShell.instance()).clear_instance()

    def ask(prompt=""):
        raise EOFError("a check runs by itself: nobody can answer input()")

    builtins.input = ask
    return stream


def _torch_works() -> bool:
    """False where gradients cannot be had after a fork, as with a GPU that gradients were taken on before."""
    try:
        torch.ones(1, requires_grad=True).sum().backward()
    except RuntimeError:
        return False
    return True


# In the parent


def _listen(child: int, answer: int, output: int, deadline: float) -> tuple[bytes, str | None]:
    """Show what the child prints until it has answered or ended; return the answer, and why it was not awaited."""
    answered, shown = b"", 0
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with selectors.DefaultSelector() as selector:
        selector.register(answer, selectors.EVENT_READ)
        selector.register(output, selectors.EVENT_READ)
        while True:
            ended = answered.endswith(b"\n") or _has_ended(child)
            ready = selector.select(0 if ended else 0.05)
            for key, _ in ready:
                data = os.read(key.fd, 65_536)
                if not data:
                    selector.unregister(key.fd)
                elif key.fd == answer:
                    answered += data
                else:
                    text = decoder.decode(data)
                    sys.stdout.write(text[: limits.CHARACTERS - shown])
                    shown = min(shown + len(text), limits.CHARACTERS + 1)
            if shown > limits.CHARACTERS:
                return answered, TOO_MUCH
            if ended and not ready:
                return answered, None
            if time.monotonic() > deadline:
                return answered, limits.too_slow()


def _has_ended(child: int) -> bool:
    """True if the process is over; it is not yet taken off the system's list."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(child: int) -> int:
    """End the child, if it has not, with all that it started; return its exit code, or minus the signal's number."""
    ended = _has_ended(child)
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if ended else 0


def _outcome_from(answered: bytes, status: int) -> Outcome | None:
    """Return the outcome that the child wrote, or say how it ended without one."""
    with contextlib.suppress(ValueError, TypeError):
        data = json.loads(answered)
        return data if data is None else Outcome(*data)
    if status == -signal.SIGKILL:
        found = "The system ended it, most likely because it took too much memory."
        return Outcome("error", found=found, advice="Is a list or tensor made larger in each turn of a loop?")
    if status < 0:
        found = f"It made Python itself crash ({signal.Signals(-status).name})."
        advice = "The usual reason is a function that calls itself without end, after sys.setrecursionlimit."
        return Outcome("error", found=found, advice=advice)
    found = f"It ended Python (exit code {status}) before it returned anything."
    return Outcome("error", found=found, advice="Leave out os._exit, quit and exit: `return` ends a function.")
