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

TOO_LARGE = "It needed more memory than a check may use. Print the shapes: is one axis, or a loop, far too long?"

# What usually is behind an exception, by words of its text
REASONS = {
    "must match the size of tensor": "Two shapes do not broadcast: print both just before this line. If one of them "
    "has a number for each sample, it needs as many axes as the other, such as (batch, 1, 1, 1)",
    "has no attribute 'sqrt'": "Only tensors have .sqrt(); for Python's numbers write math.sqrt(x) or x ** 0.5.",
    "'float' object has no attribute": "A plain number has no tensor methods. torch.as_tensor(x) makes a tensor of a "
    "number and leaves a tensor as it is.",
    "is out of bounds for dimension": "An index is larger than its axis is long. Indices run from 0 to length - 1, and "
    "height and width may differ.",
    "greater or equal to the number of dimensions": "The values have one axis more than the place that they "
    "are assigned to: take one element along it, as in [:, 0].",
    "element 0 of tensors does not require grad": "No gradient can flow from this number to a parameter. Was something "
    "detached, made under torch.no_grad(), or turned into a plain number?",
    "must be Tensor, not": "torch.sqrt and similar functions take tensors; for Python's numbers use math.sqrt.",
    "tensors used as indices must be": "Times that index a tensor are whole numbers: t.long().",
    "is not defined": "Is the name spelled as in the cell above? Was the cell that defines it run?",
    "NoneType": "One of the values here is None. Does the docstring say when an input may be None, and what then?",
    "Sequence length must be less": "Long prompts must be cut: truncation=True, max_length=tokenizer.model_max_length.",
    "Unable to create tensor": "Two prompts of different lengths do not go into one tensor of tokens. Fill both up to "
    'the same length, padding="max_length", and cut the longer, truncation=True.',
    "cannot be converted to Scalar": "A tensor with several numbers was turned into one number. Indexing by None keeps "
    "the whole table: is None treated first?",
    "math domain error": "math.sqrt and math.log were given a negative number, or 0: print it. (For the clean picture, "
    "alpha_bar[-1] is the table's last entry and not 1.)",
    "division by zero": "The divisor became 0. For the clean picture 1 - alpha_bar is 0: that step may need a "
    "case of its own.",
    "differentiated Tensors does not require grad": "A tensor with respect to which a gradient is taken needs "
    "requires_grad before it is used: x = x.detach().requires_grad_().",
    "to not have been used in the graph": "The gradient is taken with respect to a tensor that was not used in the "
    "computation: a copy, or one of another name. Use the same tensor in both places.",
    "'tuple' object has no attribute": "This is a tuple of several tensors, or of one: torch.autograd.grad gives such. "
    "Take the tensor out, as in (gradient,) = torch.autograd.grad(...).",
    "Dimension out of range": "An axis is asked for that this tensor does not have. (batch, ...) means any number of "
    "axes after the first; .flatten(1) makes one of them.",
    "implicitly created only for scalar": "Gradients are taken of a single number: sum or average first.",
    "MemoryError": TOO_LARGE,
    "can't allocate memory": TOO_LARGE,
    "a leaf Variable that requires grad": "Trainable parameters may not be changed in place while gradients are "
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
        learner = Learner(candidate, exercise, promised(exercise, seed, gradients), gradients)
        error = None
        try:  # around the limits: their timer rings again while there is time
            with state_kept(), names_bound(candidate, used), limited_output(), limited_time():
                exercise.oracle(learner, Case(seed))
        except (Exception, LimitExceeded) as caught:
            error = caught
        outcome = _outcome(learner, error)
        if outcome.state != "pass":
            break
    return outcome


@functools.lru_cache(maxsize=8)
def promised(exercise: Exercise, seed: int, gradients: bool = False) -> list[Facts]:
    """Return what the reference keeps, call by call."""
    noting = Learner(exercise.reference, exercise, gradients=gradients)
    with state_kept():
        exercise.oracle(noting, Case(seed))
    return noting.calls


def _outcome(learner: Learner, error: BaseException | None) -> Outcome:
    """Say how an examination went that ended with an error, or without one."""
    if isinstance(error, LimitExceeded):
        return Outcome("error", learner.called, str(error))
    if isinstance(error, Raised):
        error = error.__cause__ or error
        if isinstance(error, NotImplementedError) and _raised_by(learner.candidate, error):
            return Outcome("todo")
        return Outcome("error", learner.called, learners_lines(error), _reason(error, learner.exercise.chapter))
    if error is None or not getattr(error, "advice", ""):
        error = learner.broken or (learner.suspect if error else None) or error
    if error is None:
        return Outcome("pass", learner.called)
    if not isinstance(error, Wrong):  # an oracle accepts the reference: it stumbled over what the learner returned
        found = f"the result cannot be used as intended: {in_words(error)}"
        error = Wrong(found, "Compare the kind of value with what the docstring promises.")
    return Outcome("fail", getattr(error, "called", learner.called), error.found, error.advice)


def _raised_by(candidate, error) -> bool:
    """True if the innermost frame of the traceback is code of the candidate itself."""
    code = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    return any(code is function.__code__ for function in functions_of(candidate))


def learners_lines(error: BaseException) -> str:
    """Return the last line of the learner's own code that the traceback names, and the exception's text."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(tuple(FOREIGN))]
    where = [f"line {frame.lineno}, in {frame.name}:\n    {frame.line}" for frame in own[-1:]]
    return "\n".join([*where, in_words(error)])


def in_words(error: BaseException) -> str:
    """Return an exception's class and text, also where its own `__str__` raises."""
    return "".join(traceback.format_exception_only(error)).rstrip()


def _reason(error, chapter: str) -> str:
    """Return what usually is behind an exception, in the words that the chapter knows."""
    reason = next((advice for words, advice in REASONS.items() if words in in_words(error)), "")
    if reason is REASONS["must match the size of tensor"]:
        return f"{reason}: expand_like(values, x) does that." if chapter >= "05" else f"{reason}."
    return reason
