"""Running code that is not ours: for some seconds only, with some output only, and leaving things as they were."""

import contextlib
import inspect
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch

SECONDS = 20  # for a whole check, of which a right answer takes a small part
CHARACTERS = 10_000  # printed during a whole check
OURS = (str(Path(__file__).parent), contextlib.__file__)  # files whose lines are not the learner's


class LimitExceeded(BaseException):
    """Not an Exception, so that `except Exception` in the learner's code does not keep it."""


@contextlib.contextmanager
def limited_time():
    """Raise LimitExceeded in the code within after SECONDS, where the system has timer signals.

    Only on the main thread, and not on Windows; elsewhere there is no limit. Python handles signals between its own
    instructions, so one long call of C code (a huge matrix product) is stopped only when it returns.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    stopped = []

    def stop(number, frame):
        if stopped and frame.f_code.co_filename.startswith(OURS):
            return  # it has left the learner's code, and what was there before is being put back
        stopped.append(number)
        _raise_once_more(frame)
        raise LimitExceeded(too_slow())

    handler, trace = signal.signal(signal.SIGALRM, stop), sys.gettrace()
    remaining = signal.setitimer(signal.ITIMER_REAL, SECONDS, 0.1)  # again and again, until it has left every loop
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *remaining)
        signal.signal(signal.SIGALRM, handler)
        sys.settrace(trace)


def too_slow() -> str:
    return (
        f"It was still running after {SECONDS} seconds, and was stopped. "
        "A `while` loop that never ends, or far too many steps?"
    )


def _raise_once_more(frame) -> None:
    """Raise LimitExceeded at the next line of the learner's, too: that of an `except:` or `finally:` that kept it."""

    def trace(frame, event, argument):
        if frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line":
            raise LimitExceeded(too_slow())  # Python then ends the tracing
        return trace

    while frame is not None and not frame.f_code.co_filename.startswith(OURS):
        frame.f_trace = trace
        frame = frame.f_back
    sys.settrace(trace)


class _Meter:
    """A stream that lets a number of characters through and then raises LimitExceeded."""

    def __init__(self, stream):
        self.stream, self.left = stream, CHARACTERS

    def write(self, text: str) -> int:
        written = self.stream.write(text[: max(self.left, 0)])
        self.left -= len(text)
        if self.left < 0:
            raise LimitExceeded(
                f"It printed more than {CHARACTERS:,} characters, and was stopped. Print less, or not in a loop."
            )
        return written

    def __getattr__(self, name):
        return getattr(self.stream, name)


@contextlib.contextmanager
def limited_output():
    """Raise LimitExceeded in the code within once it has printed more than CHARACTERS."""
    with contextlib.redirect_stdout(_Meter(sys.stdout)), contextlib.redirect_stderr(_Meter(sys.stderr)):
        yield


@contextlib.contextmanager
def state_kept():
    """Put torch's random numbers, gradient mode and default dtype back, and close figures that were opened."""
    random, dtype = torch.get_rng_state(), torch.get_default_dtype()
    pyplot = sys.modules.get("matplotlib.pyplot")
    figures = set(pyplot.get_fignums()) if pyplot else set()
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_rng_state(random)
        torch.set_default_dtype(dtype)
        pyplot = sys.modules.get("matplotlib.pyplot")
        for number in set(pyplot.get_fignums()) - figures if pyplot else ():
            pyplot.close(number)


def functions_of(candidate: Callable) -> list[Callable]:
    """Return the Python functions behind a function, a decorated function, or the methods of a class."""
    members = vars(candidate).values() if isinstance(candidate, type) else [candidate]
    plain = [getattr(member, "__func__", None) or getattr(member, "fget", None) or member for member in members]
    return [function for function in map(inspect.unwrap, plain) if hasattr(function, "__code__")]


@contextlib.contextmanager
def names_bound(candidate: Callable, meanings: dict[str, Callable]):
    """Let the global names that `candidate` sees have these meanings, and afterwards those they had before."""
    missing = object()
    spaces = {id(function.__globals__): function.__globals__ for function in functions_of(candidate)}
    before = [(space, name, space.get(name, missing)) for space in spaces.values() for name in meanings]
    try:
        for space, name, _ in before:
            space[name] = meanings[name]
        yield
    finally:
        for space, name, value in before:
            if value is missing:
                space.pop(name, None)
            else:
                space[name] = value
