"""What an oracle works with: inputs from a seed (`Case`), and two comparisons, `close` and `require`.

An oracle knows the right answer by another way than the reference: a closed form, a limit, a statistic, another
library. It also knows the answers that common mistakes give, so that the message can name the mistake.
"""

import numpy as np
import torch

NUMBERS = (int, float, np.integer, np.floating)
SMALL = 1e-3  # numbers below this share of the largest one are compared as if they were that large
KINDS = {True: "numbers with a fraction (float)", False: "whole numbers (int64)"}


class Wrong(Exception):
    """An answer that is not right: what was found (got against expected), and the likely reason, if known."""

    called: str  # the learner's call, where it is known

    def __init__(self, found: str, advice: str = ""):
        super().__init__(found)
        self.found, self.advice = found, advice


class Case:
    """The inputs of one check, all of them a function of the seed, float32 on the CPU."""

    def __init__(self, seed: int):
        self.seed = seed
        self._stream = torch.Generator().manual_seed(2 * seed)

    def generator(self) -> torch.Generator:
        """A new generator, each time in the same state; its numbers are unrelated to those of the inputs."""
        return torch.Generator().manual_seed(2 * self.seed + 1_000_001)  # no seed that anybody writes by habit

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self._stream)

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Numbers uniform between low and high."""
        return low + (high - low) * torch.rand(shape, generator=self._stream)

    def whole(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """Whole numbers low ... high, both included, int64."""
        return torch.randint(low, high + 1, shape, generator=self._stream)


def require(holds: bool, found: str, advice: str = "") -> None:
    """Raise `Wrong` unless something holds; `found` says what was got and what was expected."""
    if not holds:
        raise Wrong(found, advice)


def close(got, expected, mistakes=(), tolerance: float = 1e-4, what: str = "the result") -> None:
    """Raise `Wrong` unless `got` is `expected`, in kind, shape and value.

    expected: a tensor, or a number. mistakes: pairs (value that a mistake gives, sentence that names the mistake).
    tolerance: the largest |got - expected| / |expected|, where an |expected| below a thousandth of the largest counts
    as that thousandth. The dtype may be any of its kind here: which one is right is a promise (`promises.py`).
    """
    expected = torch.as_tensor(expected).detach()
    if expected.ndim == 0 and not expected.is_floating_point() and isinstance(got, float) and got.is_integer():
        got = int(got)
    if expected.ndim == 0 and isinstance(got, NUMBERS) and not isinstance(got, bool):
        got = torch.tensor(got, dtype=torch.float64 if expected.is_floating_point() else None)
    require_tensor(got, expected, what)
    got = got.detach()
    if got.is_complex():
        _require_kind(got, expected, what)
    if got.shape == expected.shape and largest_error(got, expected) <= tolerance:
        return _require_kind(got, expected, what)
    for value, advice in mistakes:
        value = torch.as_tensor(value).detach()
        if got.shape == value.shape and largest_error(got, value) <= tolerance:
            raise Wrong(_difference(got, expected, tolerance, what), advice)
    _require_shape(got, expected, what)
    _require_kind(got, expected, what)
    _require_finite(got, expected, what)
    raise Wrong(_difference(got, expected, tolerance, what))


def require_tensor(got, expected: torch.Tensor, what: str = "the result") -> None:
    """Raise `Wrong` unless `got` is a tensor on the device of `expected`."""
    if got is None:
        raise Wrong(
            f"{what} is None, expected {_in_words(expected)}.",
            "A function without `return` gives None. Is the last line `return ...`?",
        )
    if not isinstance(got, torch.Tensor):
        kind = f"{type(got).__module__}.{type(got).__name__}".removeprefix("builtins.")
        raise Wrong(f"{what} is of type {kind}, expected {_in_words(expected)}.", _way_to_a_tensor(got))
    if got.device != expected.device:
        raise Wrong(
            f"{what} is on the device '{got.device}', expected '{expected.device}', where the inputs are.",
            "Let new tensors follow the inputs: torch.zeros_like(x), or torch.zeros(..., device=x.device).",
        )


def _in_words(expected: torch.Tensor) -> str:
    return f"a torch.Tensor of shape {tuple(expected.shape)}" if expected.ndim else "a single number"


def _way_to_a_tensor(got) -> str:
    """Return how what came back becomes the tensor that was wanted."""
    if isinstance(got, tuple) and len(got) == 1:
        return "A comma at the end of `return ...` makes a tuple of one: remove it."
    if type(got).__module__ == "torch.return_types":
        return f"With a dimension, {type(got).__name__} gives values and indices: take .values or .indices."
    if isinstance(got, tuple):
        return f"{len(got)} values were returned, separated by commas. Return one."
    if isinstance(got, list):
        return "torch.stack(list) makes one tensor of a list of tensors, torch.tensor(list) one of a list of numbers."
    if isinstance(got, np.ndarray):
        return "torch.from_numpy(array) makes a tensor of it; better stay with torch functions throughout."
    if isinstance(got, NUMBERS):
        return "This is one number. Was everything summed or averaged, or a single element taken?"
    if callable(got):
        return "This is a function or module that was not called: are its brackets missing?"
    return "Return the tensor itself."


def largest_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest relative error; shapes must agree. NaN agrees only with NaN, infinity with the same one."""
    if expected.numel() == 0:
        return 0.0
    scale = expected.double().abs()
    largest = scale.nan_to_num(0, 0, 0).max().item()
    error = _distance(got, expected) / scale.clamp(min=max(SMALL * largest, 1e-12))
    return error.masked_fill(_same(got, expected), 0).nan_to_num(torch.inf, torch.inf).max().item()


def _same(got: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (got == expected) | (got.isnan() & expected.isnan())


def _distance(got: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return |got - expected|, infinite where only one of them is a number."""
    away = (got.double() - expected.double()).abs()
    return away.masked_fill(_same(got, expected), 0).nan_to_num(torch.inf, torch.inf)


def _difference(got, expected, tolerance, what) -> str:
    if got.shape != expected.shape:
        return _shapes(got, expected, what)
    error, away = largest_error(got, expected), _distance(got, expected)
    # The element that is farthest off tells more than the one with the largest relative error, which is near 0
    # (by NumPy: torch's own unravel_index imports a library that takes a second)
    place = tuple(map(int, np.unravel_index(int(away.argmax()), away.shape))) if away.ndim else ()
    where = f"{what} at {list(place)}" if place else what
    found = f"{where}: got {_number(got[place])}, expected {_number(expected[place])}."
    if not expected.is_floating_point() or not expected[place].isfinite() or not got[place].isfinite():
        return found
    return f"{found} The largest relative error is {error:.2g}; up to {tolerance:g} is allowed."


def _number(value: torch.Tensor) -> str:
    return f"{value.item():.6g}" if value.is_floating_point() else str(value.item())


def _shapes(got, expected, what) -> str:
    if not expected.ndim:
        return f"{what}: got a tensor of shape {tuple(got.shape)}, expected a single number."
    return f"{what}: got the shape {tuple(got.shape)}, expected {tuple(expected.shape)}."


def _require_shape(got, expected, what) -> None:
    if got.shape == expected.shape:
        return
    advice = "Print the shape after each line to see where it changes."
    if got.numel() == expected.numel():
        advice = "The number of elements is right: there is an axis too many, too few, or in another place."
    elif not expected.ndim:
        advice = "The values are not yet summed or averaged to one."
    elif (
        got.ndim > expected.ndim and got.shape[-expected.ndim :] == expected.shape and got.shape[0] == expected.shape[0]
    ):
        advice = "Two tensors were broadcast against each other that should go element by element, or be averaged."
    elif got.ndim > expected.ndim:
        advice = "There are more axes than expected: one still has to be reduced, by a sum, a mean, or argmax."
    raise Wrong(_shapes(got, expected, what), advice)


def _require_kind(got, expected, what) -> None:
    numbers = not got.is_complex() and got.dtype != torch.bool
    if got.is_floating_point() == expected.is_floating_point() and numbers:
        return
    if got.is_complex():
        advice = "A root or power of a negative number came out complex. What is under the root should be positive."
    elif got.dtype == torch.bool:
        advice = (
            "A comparison gives True and False. For numbers end with .float() or .long(), or choose by torch.where."
        )
    elif expected.is_floating_point():
        advice = (
            "Whole numbers lose everything after the decimal point. Look for .long(), //, or values that are assigned "
            "to an integer tensor."
        )
    else:
        advice = "These count or index something, so they are whole numbers: end with .long()."
    raise Wrong(f"{what}: got the dtype {got.dtype}, expected {KINDS[expected.is_floating_point()]}.", advice)


def _require_finite(got, expected, what) -> None:
    bad = (~got.isfinite() & expected.isfinite()).sum().item()
    if bad and expected.isfinite().all():  # elsewhere NaN may be an answer
        elements = f"{bad} of {got.numel()} elements are" if got.numel() > 1 else "got"
        raise Wrong(
            f"{what}: {elements} NaN or infinite, expected finite numbers.",
            "Look for a division by zero, the square root of a negative number, or log(0).",
        )
