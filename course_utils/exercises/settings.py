"""Comparing results for several settings of the inputs at once, so that no coincidence names a mistake."""

import contextlib
from collections.abc import Iterable

import torch

from course_utils.exercises.calls import Raised
from course_utils.exercises.oracles import NUMBERS, Wrong, close, largest_error

NO_RESULT = torch.empty(0, 0, 0, 0, 0, 0)  # of a shape that no result has


def close_in_all(settings: Iterable, tolerance: float = 1e-4) -> None:
    """Raise what `close` says of the first wrong result; a mistake is named if it explains the results of all settings.

    settings: (got, expected, mistakes, what, called) for each, the mistakes in the same order in all of them; called:
    the call in words, as `learner.called` has it.
    """
    settings = list(settings)
    explains = [
        all(_same(got, mistakes[number][0], tolerance) for got, _, mistakes, *_ in settings)
        for number in range(len(settings[0][2]))
    ]
    for got, expected, mistakes, what, called in settings:
        named = [(value if it else NO_RESULT, advice) for (value, advice), it in zip(mistakes, explains, strict=True)]
        with called_as(called):
            close(got, expected, named, tolerance, what)


def asked(learner, model, *inputs):
    """Call the learner's loss; where gradients are compared, those of the model's weights only are asked for."""
    if not learner.gradients:
        return learner(model, *inputs)
    return learner.call(lambda model: learner.candidate(model, *inputs), learner.reference, model)


@contextlib.contextmanager
def called_as(called: str):
    """Let a Wrong that is raised within speak of this call, though others were made since."""
    try:
        yield
    except Wrong as wrong:
        wrong.called = called
        raise


@contextlib.contextmanager
def broadcasting_explained(advice: str):
    """Let shapes that do not broadcast in the learner's code be told this advice."""
    try:
        yield
    except Raised as raised:
        if "must match the size of tensor" not in str(raised.__cause__):
            raise
        raise Wrong(f"two shapes do not fit: {raised.__cause__}", advice) from None


def _same(got, value, tolerance) -> bool:
    if not isinstance(got, (torch.Tensor, *NUMBERS)):
        return False
    got, value = torch.as_tensor(got).detach(), torch.as_tensor(value).detach()
    return got.shape == value.shape and largest_error(got, value) <= tolerance
