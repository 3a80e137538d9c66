"""Answers that run for ever, crash, flood or end Python, and what must be said of them."""

import logging
import os
import sys
import time
import warnings

import torch


def keeps_every_exception(x):
    while True:
        try:  # noqa: SIM105
            sum(range(100))
        except:  # noqa: E722
            pass


def keeps_every_exception_twice(x):
    while True:
        try:
            keeps_every_exception(x)
        except:  # noqa: E722
            continue


def returns_in_finally(x):
    def once():
        try:
            time.sleep(0.01)
        finally:
            return 1  # noqa: B012

    while True:
        once()


def sleeps_in_compiled_code(x):
    while True:
        try:
            torch.linalg.svd(torch.randn(60, 60))
            time.sleep(60)
        except BaseException:
            pass


def recurses(x):
    sys.setrecursionlimit(10**9)
    return recurses(x)


def recurses_in_compiled_code(x):
    sys.setrecursionlimit(10**9)
    nested = []
    for _ in range(200_000):
        nested = [nested]
    return repr(nested)


def crashes(x):
    import ctypes

    ctypes.string_at(1)


def ends_python(x):
    os._exit(0)


def writes_to_the_descriptor(x):
    while True:
        os.write(1, b"flood " * 1000)


def writes_to_the_first_stdout(x):
    while True:
        sys.__stdout__.write("flood " * 1000)


def logs(x):
    logger = logging.getLogger("learner")
    logger.addHandler(logging.StreamHandler())
    while True:
        logger.error("flood")


def warns(x):
    warnings.simplefilter("always")
    warnings.showwarning = lambda *parts: sys.stderr.write(warnings.formatwarning(*parts[:4]))  # not pytest's
    while True:
        warnings.warn("flood", stacklevel=1)


def displays(x):
    from IPython.display import HTML, display

    while True:
        display(HTML("flood"))


def takes_memory(x):
    held = []
    while True:
        held.append(bytearray(100 * 2**20))


def takes_memory_at_once(x):
    return torch.zeros(10**12)


def raises_a_megabyte(x):
    raise ValueError("long " * 200_000)


def raises_the_worst(x):
    class Mine(BaseException):
        pass

    raise Mine("mine")


def interrupts(x):
    raise KeyboardInterrupt


def raises_what_has_no_text(x):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    raise Mute


def asks(x):
    input("Your answer?")


def starts_another_process(x):
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)


SLOW, LOUD = "still running after 0.4 seconds, and was stopped", "printed more than 10,000 characters"
KINDS = [
    (keeps_every_exception, SLOW),
    (returns_in_finally, SLOW),
    (raises_a_megabyte, "998,"),
    (raises_the_worst, "Mine: mine"),
    (raises_what_has_no_text, "Mute"),
]
FORKED = [
    (keeps_every_exception_twice, SLOW),
    (sleeps_in_compiled_code, SLOW),
    (recurses, SLOW),
    (recurses_in_compiled_code, "Python itself crash"),
    (crashes, "Python itself crash (SIGSEGV)"),
    (ends_python, "It ended Python (exit code 0)"),
    (writes_to_the_descriptor, LOUD),
    (writes_to_the_first_stdout, LOUD),
    (logs, LOUD),
    (warns, LOUD),
    (displays, LOUD),
    (takes_memory, "needed more memory"),
    (takes_memory_at_once, "needed more memory"),
    (interrupts, "KeyboardInterrupt"),
    (asks, "nobody can answer input()"),
    (starts_another_process, "It ended Python"),
]
