"""Examine a learner's function: call it on an oracle's inputs, and say in an `Outcome` how it went."""

import functools
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from course_utils.exercises.calls import Learner, Raised
from course_utils.exercises.limits import (
    LimitExceeded,
    functions_of,
    limited_output,
    limited_time,
    names_bound,
    state_kept,
)
from course_utils.exercises.oracles import Case, Wrong
from course_utils.exercises.promises import Facts
from course_utils.exercises.registry import Exercise, find

# Frames of a traceback that are not the learner's
FOREIGN = [str(Path(__file__).resolve().parents[1]), *(sysconfig.get_path(n) for n in ("stdlib", "purelib", "platlib")),
           str(Path(torch.__file__).resolve().parents[1]), "<frozen"]  # fmt: skip

# What usually is behind an exception, by words of its text
REASONS = {
    "must match the size of tensor": "Two shapes do not broadcast. One number for each sample must become "
    "(batch, 1, 1, 1) before it meets pictures: expand_like(values, x) does that.",
    "has no attribute 'sqrt'": "Only tensors have .sqrt(); for Python's numbers write math.sqrt(x) or x ** 0.5.",
    "'float' object has no attribute": "A plain number has no tensor methods. torch.as_tensor(x) makes a tensor of a "
    "number and leaves a tensor as it is.",
    "is out of bounds for dimension": "An index is larger than its axis is long. Indices run from 0 to length - 1, and "
    "height and width may differ.",
    "greater or equal to the number of dimensions": "What is written has an axis more than the place that it is "
    "written into: take one element of it, as in [:, 0].",
    "element 0 of tensors does not require grad": "No way leads back from this number to a parameter. Was something "
    "detached, made under torch.no_grad(), or turned into a plain number?",
    "must be Tensor, not": "torch.sqrt and its kind want tensors; for Python's numbers use math.sqrt, or x ** 0.5.",
    "tensors used as indices must be": "Times that index a tensor are whole numbers: t.long().",
    "is not defined": "Is the name spelled as in the cell above? Was the cell that defines it run?",
    "NoneType": "One of the values here is None. Does the docstring say when an input may be None, and what then?",
    "math domain error": "math.sqrt and math.log were given a negative number, or 0: print it. (For the clean picture, "
    "alpha_bar[-1] is the table's last entry and not 1.)",
    "division by zero": "What is divided by became 0. For the clean picture 1 - alpha_bar is 0: that step may need a "
    "case of its own.",
    "differentiated Tensors does not require grad": "A tensor by which a gradient is taken must want one before it is "
    "used: x = x.detach().requires_grad_().",
    "to not have been used in the graph": "The gradient is asked for by a tensor that was not used on the way: a copy, "
    "or one of another name. Give the function the very tensor that the gradient is taken by.",
    "'tuple' object has no attribute": "This is a tuple of several tensors, or of one: torch.autograd.grad gives such. "
    "Take the tensor out, as in (gradient,) = torch.autograd.grad(...).",
    "Dimension out of range": "An axis is asked for that this tensor does not have. (batch, ...) means any number of "
    "axes after the first; .flatten(1) makes one of them.",
    "implicitly created only for scalar": "A gradient is that of a single number: sum or average first.",
    "a leaf Variable that requires grad": "Parameters that learn may not be changed in place while gradients are "
    "recorded: put the change under `with torch.no_grad():`.",
}


@dataclass(frozen=True)
class Outcome:
    """How an exercise went. state: todo, pass, fail (a wrong answer) or error (the learner's code raised)."""

    state: str
    called: str = ""  # with what, in words
    found: str = ""  # got against expected, or the exception
    advice: str = ""  # the likely misconception


def run(exercise: Exercise, candidate: Callable, seed: int = 0) -> Outcome:
    """Examine `candidate` by the exercise's oracle, with inputs from `seed`, on the references of what it uses."""
    used = {other.name: other.reference for other in map(find, exercise.uses)}
    outcome = Outcome("pass")
    for gradients in (False, True) if exercise.gradients else (False,):
        learner = Learner(candidate, exercise, _promised(exercise, seed, gradients), gradients)
        with state_kept(), names_bound(candidate, used), limited_output(), limited_time():
            outcome = _outcome(exercise, learner, seed)
        if outcome.state != "pass":
            break
    return outcome


@functools.lru_cache(maxsize=8)
def _promised(exercise: Exercise, seed: int, gradients: bool) -> list[Facts]:
    """Return what the reference keeps, call by call."""
    noting = Learner(exercise.reference, exercise, gradients=gradients)
    with state_kept():
        exercise.oracle(noting, Case(seed))
    return noting.calls


def _outcome(exercise: Exercise, learner: Learner, seed: int) -> Outcome:
    try:
        exercise.oracle(learner, Case(seed))
    except LimitExceeded as limit:
        return Outcome("error", learner.called, str(limit))
    except Raised as raised:
        error = raised.__cause__
        if isinstance(error, NotImplementedError) and _raised_by(learner.candidate, error):
            return Outcome("todo")
        return Outcome("error", learner.called, learners_lines(error), _reason(error))
    except Wrong as error:
        wrong = error
    except Exception as error:  # an oracle accepts the reference: it stumbled over what the learner returned
        found = f"what came back cannot be used as intended: {type(error).__name__}: {error}"
        wrong = Wrong(found, "Compare the kind of value with what the docstring promises.")
        wrong = learner.broken or wrong
    else:
        wrong = learner.broken
    if wrong is None:
        return Outcome("pass", learner.called)
    if not wrong.advice and learner.broken:
        wrong = learner.broken
    return Outcome("fail", getattr(wrong, "called", learner.called), wrong.found, wrong.advice)


def _raised_by(candidate, error) -> bool:
    """True if the innermost frame of the traceback is code of the candidate itself."""
    code = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    return any(code is function.__code__ for function in functions_of(candidate))


def learners_lines(error: BaseException) -> str:
    """Return the last line of the learner's own code that the traceback names, and the exception's text."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(tuple(FOREIGN))]
    where = [f"line {frame.lineno}, in {frame.name}:\n    {frame.line}" for frame in own[-1:]]
    return "\n".join([*where, *(line.rstrip() for line in traceback.format_exception_only(error))])


def _reason(error) -> str:
    return next((advice for words, advice in REASONS.items() if words in str(error)), "")
