"""How an oracle calls what the learner wrote: on copies of the inputs, and held to what the reference keeps."""

import inspect
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from course_utils.exercises.oracles import Wrong
from course_utils.exercises.promises import (
    CHANCE,
    Facts,
    detached,
    function_name,
    gradients_of,
    leaves_of,
    left_after,
    parts_of,
    require_drawn,
    require_inputs_left,
    require_networks_left,
    require_same_gradients,
    require_same_kinds,
    require_same_parameters,
)
from course_utils.exercises.registry import Exercise


class Raised(Exception):
    """The learner's code raised its __cause__."""


class Learner:
    """The learner's function or class as an oracle calls it.

    promised: the facts of the reference's calls, in order; None while these are being noted. gradients: whether results
    must lead back to the inputs, and the gradients be the reference's. `broken` is the first promise that was not kept:
    the oracle goes on, since it may know better what is wrong, and `run` reports it at the end. `suspect` is what may
    explain a wrong answer and is no fault by itself.
    """

    def __init__(self, candidate: Callable, exercise: Exercise, promised: list[Facts] | None = None, gradients=False):
        self.candidate, self.reference, self.exercise = candidate, exercise.reference, exercise
        self.promised, self.gradients = promised, gradients
        self.calls: list[Facts] = []
        self.called = ""
        self.broken: Wrong | None = None
        self.suspect: Wrong | None = None

    def __call__(self, *inputs):
        """Call the function (or make an object of the class) and return what comes back."""
        return self.call(self.candidate, self.reference, *inputs)

    def method(self, made, name: str, *inputs):
        """Call a method of an object that the learner's class made."""
        if not hasattr(made, name):
            raise Wrong(f"the class has no method '{name}'.", "Keep the names of the methods as they were given.")
        return self.call(getattr(made, name), getattr(self.reference, name), *inputs)

    def call(self, function: Callable, reference: Callable, *inputs):
        names = _names(reference, inputs)
        self.called = described(reference, inputs)
        _require_callable(function, reference, inputs)
        copies = [_copied(value, self.gradients) for value in inputs]
        named = dict(zip(names, copies, strict=True))
        owner = getattr(function, "__self__", None)
        if isinstance(owner, nn.Module):
            named["self"] = owner
        networks = {name: parts_of(value) for name, value in named.items() if isinstance(value, nn.Module)}
        generators = {name: value for name, value in named.items() if isinstance(value, torch.Generator)}
        states = {name: (value.get_state(), value.initial_seed()) for name, value in generators.items()}
        wanted = {name: value.requires_grad for name, value in named.items() if isinstance(value, torch.Tensor)}
        random = torch.get_rng_state()
        try:
            result = function(*copies)
        except (Wrong, KeyboardInterrupt):
            raise
        except (Exception, SystemExit) as error:
            raise Raised from error
        for name, value, after in zip(names, inputs, copies, strict=True):
            _require_unchanged(name, value, after)
        if generators and not random.equal(torch.get_rng_state()):
            raise Wrong(
                "random numbers were drawn from torch's own, global generator, expected the one passed.",
                "Pass it on, as in torch.randn(shape, generator=generator): same seed, same picture.",
            )
        facts = Facts(function_name(reference), dict(leaves_of(result)))
        facts.random = not random.equal(torch.get_rng_state())
        self._keep(lambda: require_inputs_left(named, wanted, states))
        facts.drawn = {name: not states[name][0].equal(value.get_state()) for name, value in generators.items()}
        facts.networks = {name: left_after(parts, named[name]) for name, parts in networks.items()}
        if self.gradients:
            facts.gradients = gradients_of(facts.results, named)
            result = detached(result)
        self._compare(facts, function, reference)
        return result

    def _compare(self, facts: Facts, function, reference) -> None:
        """Note whether the facts are as the reference's were in the same call."""
        number = len(self.calls)
        self.calls.append(facts)
        if self.promised is None:
            return
        if function is self.candidate:
            self._keep(lambda: require_same_parameters(function, self.exercise.name, self.exercise.signature))
        elif hasattr(function, "__self__"):  # a method, and no wrapper of the oracle's own
            self._keep(lambda: require_same_parameters(function, facts.name, inspect.signature(reference)))
        if number < len(self.promised) and self.promised[number].name == facts.name:
            promised = self.promised[number]
            self._keep(lambda: require_same_kinds(facts.results, promised.results))
            if facts.random and not promised.random:
                self.suspect = self.suspect or CHANCE
            self._keep(lambda: require_drawn(facts.drawn, promised.drawn))
            self._keep(lambda: require_networks_left(facts.networks, promised.networks))
            self._keep(lambda: require_same_gradients(facts.gradients, promised.gradients))

    def _keep(self, requirement: Callable[[], None]) -> None:
        """Note the first promise that is broken."""
        try:
            requirement()
        except Wrong as wrong:
            wrong.called = self.called
            self.broken = self.broken or wrong


# What goes in


def _copied(value, gradients: bool):
    """Return a copy of an input, so that changes stay without consequences. What is no plain data is handed on."""
    if isinstance(value, torch.Tensor):
        # A clone of a tensor that wants a gradient leads back to it, so that an oracle can ask for that gradient.
        wants = gradients and value.is_floating_point() and not value.requires_grad
        return value.clone().requires_grad_() if wants else value.clone()
    if type(value) in (list, tuple):
        return type(value)(_copied(item, gradients) for item in value)
    if type(value) is dict:
        return {key: _copied(item, gradients) for key, item in value.items()}
    return value.copy() if isinstance(value, set | np.ndarray) else value


def _require_unchanged(name, value, after) -> None:
    if isinstance(value, torch.Tensor):
        if value.shape == after.shape and torch.equal(value.detach().nan_to_num(), after.detach().nan_to_num()):
            return
        advice = (
            f"Methods that end in an underscore, `{name} += ...` and `{name}[...] = ...` write into the caller's "
            "tensor. Make a new one, a = a + b, or write into a copy, x.clone()."
        )
    elif isinstance(value, list | tuple) and not _same(value, after) and _written_into(value, after):
        advice = (
            f"Methods that end in an underscore, `{name}[0] += ...` and `{name}[0][...] = ...` write into the caller's "
            "tensors. Make new ones, a = a + b, or write into a copy, x.clone()."
        )
    elif isinstance(value, list | dict | set | np.ndarray) and not _same(value, after):
        kind = type(value).__name__
        advice = (
            f"pop, append, sort, update and `{name}[...] = ...` write into the caller's {kind}. Make a new one, as in "
            f"{name} = {kind if kind != 'ndarray' else 'np.array'}({name}), before you change it."
        )
    else:
        return
    raise Wrong(f"the input {name} was changed in place, expected it to stay as it was.", advice)


def _written_into(value, after) -> bool:
    """True if a list or tuple has as many items as before, and the first that changed is a tensor."""
    changed = [item for item, other in zip(value, after, strict=False) if not _same(item, other)]
    return len(value) == len(after) and bool(changed) and isinstance(changed[0], torch.Tensor)


def _same(value, after) -> bool:
    if isinstance(value, torch.Tensor):
        return value.shape == after.shape and torch.equal(value.detach().nan_to_num(), after.detach().nan_to_num())
    if isinstance(value, np.ndarray):
        return np.array_equal(value, after, equal_nan=value.dtype.kind == "f")
    if isinstance(value, list | tuple):
        return len(value) == len(after) and all(map(_same, value, after))
    if isinstance(value, dict):
        return list(value) == list(after) and all(map(_same, value.values(), after.values()))
    return value is after or bool(value == after)


def _require_callable(function, reference, inputs) -> None:
    try:
        inspect.signature(function).bind(*inputs)
    except TypeError as error:
        first = f"{function_name(reference)}({', '.join(_names(reference, inputs))})"
        raise Wrong(f"it cannot be called as {first}: {error}.", "Keep the `def` line as it was given.") from None
    except ValueError:  # some callables have no signature to look at
        pass


# In words


def described(reference: Callable, inputs) -> str:
    """Return a call in words, such as "add_noise(x0 (4, 3, 8, 8), t = [0, 7])"."""
    parts = [f"{name}{_described_value(value)}" for name, value in zip(_names(reference, inputs), inputs, strict=True)]
    return f"{function_name(reference)}({', '.join(parts)})"


def _described_value(value) -> str:
    if isinstance(value, torch.Tensor):
        if value.numel() <= 6 and value.ndim <= 1:
            numbers = [f"{number:.4g}" for number in value.flatten().tolist()]
            return f" = [{', '.join(numbers)}]" if value.ndim else f" = tensor({numbers[0]})"
        return f" {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return _described_items(value)
    if isinstance(value, float):
        return f" = {value:.4g}"
    if isinstance(value, str):
        return f" = {value[:40]!r}"
    return f" = {value}" if value is None or isinstance(value, int | torch.dtype) else ""


def _described_items(values) -> str:
    """Return the shapes in a list of tensors, or the numbers in a short list of them."""
    if values and all(isinstance(value, torch.Tensor) for value in values):
        shapes = list(dict.fromkeys(str(tuple(value.shape)) for value in values))
        return f": {len(values)} tensors {shapes[0]}" if len(shapes) == 1 else f": {len(values)} tensors"
    if values and len(values) <= 8 and all(type(value) in (int, float) for value in values):
        return f" = [{', '.join(f'{value:.4g}' for value in values)}]"
    return ""


def _names(reference: Callable, inputs) -> list[str]:
    """Return the names of the parameters that the inputs are for."""
    parameters = [name for name in inspect.signature(reference).parameters if name != "self"]
    return parameters[: len(inputs)] + [f"input {i + 1}" for i in range(len(parameters), len(inputs))]
