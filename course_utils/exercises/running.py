"""Examine a learner's function: call it on an oracle's inputs, and say in an `Outcome` how it went."""

import inspect
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from course_utils.exercises.limits import (
    LimitExceeded,
    functions_of,
    limited_output,
    limited_time,
    names_bound,
    state_kept,
)
from course_utils.exercises.oracles import Case, Wrong
from course_utils.exercises.registry import Exercise, find

# Frames of a traceback that are not the learner's
FOREIGN = [str(Path(__file__).resolve().parents[1]), *(sysconfig.get_path(n) for n in ("stdlib", "purelib", "platlib")),
           str(Path(torch.__file__).resolve().parents[1]), "<frozen"]  # fmt: skip

# What usually is behind an exception, by words of its text
REASONS = {
    "must match the size of tensor": "Two shapes do not broadcast. One number for each sample must become "
    "(batch, 1, 1, 1) before it meets pictures: expand_like(values, x) does that.",
    "has no attribute 'sqrt'": "Only tensors have .sqrt(); for Python's numbers write math.sqrt(x) or x ** 0.5.",
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


class _Raised(Exception):
    """The learner's code raised its __cause__."""


class Learner:
    """The learner's function as an oracle calls it: on copies of the inputs, which it may not change."""

    def __init__(self, candidate: Callable, reference: Callable):
        self.candidate, self.reference = candidate, reference
        self.called = ""

    def __call__(self, *inputs):
        """Call the function (or make an object of the class) and return what comes back."""
        return self.call(self.candidate, self.reference, *inputs)

    def method(self, made, name: str, *inputs):
        """Call a method of an object that the learner's class made."""
        if not hasattr(made, name):
            raise Wrong(f"the class has no method '{name}'.", "Keep the names of the methods as they were given.")
        return self.call(getattr(made, name), getattr(self.reference, name), *inputs)

    def call(self, function: Callable, reference: Callable, *inputs):
        self.called = described(reference, inputs)
        copies = [value.clone() if isinstance(value, torch.Tensor) else value for value in inputs]
        _require_signature(function, reference, copies)
        random = torch.get_rng_state()
        try:
            result = function(*copies)
        except (Wrong, KeyboardInterrupt):
            raise
        except (Exception, SystemExit) as error:
            raise _Raised from error
        for name, value, copy in zip(_names(reference, inputs), inputs, copies, strict=True):
            _require_unchanged(name, value, copy)
        if any(isinstance(value, torch.Generator) for value in inputs) and not random.equal(torch.get_rng_state()):
            raise Wrong(
                "random numbers were drawn from torch's own, global generator, expected the one passed.",
                "Pass it on, as in torch.randn(shape, generator=generator): same seed, same picture.",
            )
        return result


def run(exercise: Exercise, candidate: Callable, seed: int = 0) -> Outcome:
    """Examine `candidate` by the exercise's oracle, with inputs from `seed`, on the references of what it uses."""
    learner = Learner(candidate, exercise.reference)
    used = [find(id) for id in exercise.uses]
    try:
        with state_kept(), names_bound(candidate, {other.name: other.reference for other in used}):  # noqa: SIM117
            with limited_output(), limited_time():
                exercise.oracle(learner, Case(seed))
    except Wrong as wrong:
        return Outcome("fail", learner.called, wrong.found, wrong.advice)
    except LimitExceeded as limit:
        return Outcome("error", learner.called, str(limit))
    except _Raised as raised:
        error = raised.__cause__
        if isinstance(error, NotImplementedError) and _raised_by(candidate, error):
            return Outcome("todo")
        return Outcome("error", learner.called, learners_lines(error), _reason(error))
    except Exception as error:  # an oracle accepts the reference: it stumbled over what the learner returned
        found = f"what came back cannot be used as intended: {type(error).__name__}: {error}"
        return Outcome("fail", learner.called, found, "Compare the kind of value with what the docstring promises.")
    return Outcome("pass", learner.called)


def described(reference: Callable, inputs) -> str:
    """Return a call in words, such as "add_noise(x0 (4, 3, 8, 8), t = [0, 7])"."""
    parts = [f"{name}{_described_value(value)}" for name, value in zip(_names(reference, inputs), inputs, strict=True)]
    return f"{reference.__name__}({', '.join(parts)})"


def _described_value(value) -> str:
    if isinstance(value, torch.Tensor):
        if value.numel() <= 6 and value.ndim <= 1:
            numbers = [f"{number:.4g}" for number in value.flatten().tolist()]
            return f" = [{', '.join(numbers)}]" if value.ndim else f" = {numbers[0]}"
        return f" {tuple(value.shape)}"
    return f" = {value:.4g}" if isinstance(value, int | float) else ""


def _names(reference: Callable, inputs) -> list[str]:
    """Return the names of the parameters that the inputs are for."""
    parameters = [name for name in inspect.signature(reference).parameters if name != "self"]
    return parameters[: len(inputs)] + [f"input {i + 1}" for i in range(len(parameters), len(inputs))]


def _require_signature(function, reference, inputs) -> None:
    try:
        inspect.signature(function).bind(*inputs)
    except TypeError as error:
        first = f"{reference.__name__}({', '.join(_names(reference, inputs))})"
        raise Wrong(f"it cannot be called as {first}: {error}.", "Keep the `def` line as it was given.") from None
    except ValueError:  # some callables have no signature to look at
        pass


def _require_unchanged(name, value, copy) -> None:
    if isinstance(value, torch.Tensor) and not (
        value.shape == copy.shape and torch.equal(value.detach().nan_to_num(), copy.detach().nan_to_num())
    ):
        raise Wrong(
            f"the input {name} was changed in place, expected it to stay as it was.",
            f"Methods that end in an underscore, `{name} += ...` and `{name}[...] = ...` write into the "
            "caller's tensor. Make a new one: a = a + b.",
        )


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
