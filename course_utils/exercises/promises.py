"""What a call must keep beside its values: the promises of a function, as the reference keeps them.

The names and defaults of the parameters, the kind and dtype of what comes back, whether a generator was used, how
inputs and networks were left, and the gradients. The facts of a call are compared with those of the reference's.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from course_utils.exercises.oracles import NUMBERS, Wrong

CUT = (
    ".item(), float(), .detach(), .data, torch.tensor(...), math functions, NumPy and torch.no_grad() cut off "
    "the gradient. Stay with tensors and torch functions from the inputs to the result."
)
CHANCE = Wrong(
    "random numbers were drawn, expected none: the same inputs must give the same result.",
    "All randomness comes in with the arguments: use them as they are.",
)
SEED = "Use the generator as it is passed, in torch.randn(..., generator=generator): the caller decides on the seed."


@dataclass
class Facts:
    """What a call gave back, and how it left its inputs, beside their values."""

    name: str  # of the function or method
    results: dict[str, object]  # where in what came back: a tensor, or a number
    random: bool = False  # whether numbers were drawn from torch's own, global generator
    drawn: dict[str, bool] = field(default_factory=dict)  # generator: whether numbers were drawn from it
    networks: dict[str, dict[str, "Part"]] = field(default_factory=dict)  # network: its parts, by name
    gradients: dict[str, torch.Tensor | None] = field(default_factory=dict)  # input: of the results, with respect to it


@dataclass(frozen=True)
class Part:
    """How a call left a module, parameter or buffer of a network."""

    training: bool | None  # of a module
    requires_grad: bool | None = None  # of a parameter, as the rest
    dtype: torch.dtype | None = None
    has_grad: bool | None = None
    changed: bool | None = None


def require_inputs_left(named, wanted, states) -> None:
    for name, wants in wanted.items():
        if named[name].requires_grad != wants:
            raise Wrong(
                f"the input {name} was left with requires_grad={not wants}, expected {wants}, as it came.",
                f"`{name}.requires_grad_()` marks the caller's own tensor. Take one of your own first: "
                f"{name} = {name}.detach().requires_grad_().",
            )
    for name, (_, seed) in states.items():
        if named[name].initial_seed() != seed:
            raise Wrong(
                f"the {name} was seeded again inside the function, expected it to go on from where it was.", SEED
            )


def function_name(function: Callable) -> str:
    return getattr(function, "__name__", type(function).__name__)


# The parameters


def require_same_parameters(function, name: str, signature: inspect.Signature) -> None:
    """Raise `Wrong` unless each parameter has its name and its default: later cells use both."""
    try:
        own, given = dict(inspect.signature(function).parameters), dict(signature.parameters)
    except ValueError:
        return
    if "self" not in own:  # a method that is bound
        given.pop("self", None)
    kinds = {parameter.kind for parameter in own.values()}
    if kinds >= {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:  # takes them by any name
        return
    line = f"The `def` line was {name}{_without_annotations(signature)}: later cells rely on it."
    for (name, parameter), other in zip(given.items(), [*own, *[""] * len(given)], strict=False):
        if name not in own:
            raise Wrong(
                f"the parameter {name} is called {other or 'nothing at all'} here, expected its own name.", line
            )
        got, expected = own[name].default, parameter.default
        if expected is not parameter.empty and (got is parameter.empty or not _same_default(got, expected)):
            found = "no default" if got is parameter.empty else f"the default {got!r}"
            raise Wrong(f"the parameter {name} has {found}, expected {name}={expected!r}.", line)


def _same_default(got, expected) -> bool:
    return got is expected or repr(got) == repr(expected) or (isinstance(expected, NUMBERS) and got == expected)


def _without_annotations(signature: inspect.Signature) -> str:
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(plain))


# What comes back


def leaves_of(result, place: str = "") -> Iterator[tuple[str, object]]:
    """Yield (place, value) for each tensor and each number in what came back."""
    if isinstance(result, (torch.Tensor, bool, *NUMBERS)):
        yield place, result
    elif isinstance(result, dict):
        for key, value in result.items():
            yield from leaves_of(value, f"{place}[{key!r}]")
    elif isinstance(result, list | tuple):
        for index, value in enumerate(result):
            yield from leaves_of(value, f"{place}[{index}]")


def detached(result):
    if isinstance(result, torch.Tensor):
        return result.detach()
    if isinstance(result, dict):
        return {key: detached(value) for key, value in result.items()}
    if type(result) in (list, tuple):
        return type(result)(map(detached, result))
    return result


def require_same_kinds(results, promised) -> None:
    for place, expected in promised.items():
        if place not in results:
            continue  # a tuple for a list, a number too many: the oracle sees to it
        got, what = results[place], f"the result{place}"
        if isinstance(expected, torch.Tensor) != isinstance(got, torch.Tensor):
            if isinstance(expected, torch.Tensor) and expected.ndim == 0:
                raise Wrong(f"{what} is the Python number {got}, expected a tensor with one number.", CUT)
            if isinstance(got, torch.Tensor) and got.ndim == 0:
                raise Wrong(f"{what} is a tensor with one number, expected a plain Python number.",
                            "End with .item(), or with float(...) or int(...): later cells print it and calculate "
                            "with it outside torch.")  # fmt: skip
            continue
        if not isinstance(expected, torch.Tensor):
            continue
        if got.is_floating_point() and expected.is_floating_point() and got.dtype != expected.dtype:
            raise Wrong(
                f"{what} has the dtype {got.dtype}, expected {expected.dtype}.",
                "Later cells combine it with tensors and networks in float32, which refuse other dtypes. If you "
                "calculate in another one, convert the result: .to(x.dtype), or .float() where there is no input x."
                if expected.dtype == torch.float32
                else "It follows the inputs, or the dtype that is asked for, from the start.",
            )
        if not got.is_floating_point() and not expected.is_floating_point() and got.dtype != expected.dtype:
            raise Wrong(
                f"{what} has the dtype {got.dtype}, expected {expected.dtype}.",
                f"For whole numbers and truth values there are several dtypes: .to({expected.dtype}).",
            )
        if got.requires_grad and not expected.requires_grad:
            raise Wrong(
                f"{what} still records gradients, expected one without.",
                "Nothing more is learned from it, and the record holds on to the step's memory: end with .detach(), "
                "or work under torch.no_grad() where nothing is learned at all.",
            )
        if expected.requires_grad and not got.requires_grad:
            raise Wrong(
                f"{what} has no way back to what it was made from, expected one: training needs its gradient.", CUT
            )


def require_drawn(drawn, promised) -> None:
    for name, expected in promised.items():
        if drawn.get(name) and not expected:
            raise Wrong(
                f"numbers were drawn from the {name}, expected none in this case.",
                "Where no noise is added none is drawn, so that what is drawn later stays the same.",
            )
        if expected and not drawn.get(name):
            raise Wrong(
                f"no number was drawn from the {name} that was passed, expected that the noise comes from it.", SEED
            )


# Networks


def parts_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of a network's parameters and buffers, to compare with afterwards."""
    return {name: value.detach().clone() for name, value in _tensors(network)}


def _tensors(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def left_after(before: dict[str, torch.Tensor], network: nn.Module) -> dict[str, Part]:
    """Return how a call left each module, parameter and buffer of a network."""
    parts = {f"module {name}": Part(module.training) for name, module in network.named_modules()}
    for name, value in _tensors(network):
        same = name in before and before[name].dtype == value.dtype and torch.equal(before[name], value.detach())
        parts[name] = Part(None, value.requires_grad, value.dtype, value.grad is not None, not same)
    return parts


def require_networks_left(networks, promised) -> None:
    for network, parts in promised.items():
        own = networks.get(network, {})
        for name, expected in parts.items():
            got = own.get(name)
            if got is None:
                continue
            whose = "the network" if network in ("self", "network") else f"the network {network}"
            if got.training != expected.training:
                raise Wrong(
                    f"{whose} was left in {_mode(got)} mode, expected {_mode(expected)} mode, as the course's version "
                    "leaves it.",
                    "model.train() and model.eval() last beyond the function. Who calls decides on the mode; if you "
                    "need another, put the old one back.",
                )
            if got.requires_grad != expected.requires_grad:
                state = "learn" if got.requires_grad else "be frozen"
                raise Wrong(
                    f"{whose} was left with its parameter {name} set to {state}, expected it as it came.",
                    "requires_grad_() lasts beyond the function, and the next training step would find it so. "
                    "To do without a gradient use torch.no_grad() or .detach().",
                )
            if got.dtype != expected.dtype:
                raise Wrong(
                    f"{whose} was left with its parameter {name} as {got.dtype}, expected {expected.dtype}.",
                    "model.to(dtype), .half() and .double() change the caller's network: convert a copy, or the input.",
                )
            if got.changed and not expected.changed:
                raise Wrong(f"the values of {name} in {whose} changed, expected them to stay as they were.",
                            "Only an optimizer's step changes parameters; here none belongs.")  # fmt: skip
            if got.has_grad and not expected.has_grad:
                raise Wrong(
                    f"{whose} was left with a gradient in {name}, expected none.",
                    "backward() leaves gradients in every parameter it meets, and they add up. Return the loss, and "
                    "let the caller go backward.",
                )


def _mode(part: Part) -> str:
    return "training" if part.training else "evaluation"


# Gradients


def gradients_of(results, named) -> dict[str, torch.Tensor | None]:
    """Return the gradients of the results, added up with fixed weights, with respect to inputs and parameters."""
    sources = {name: value for name, value in named.items() if isinstance(value, torch.Tensor) and value.requires_grad}
    for network, value in named.items():
        if isinstance(value, nn.Module):
            sources |= {f"{network}.{name}": p for name, p in value.named_parameters() if p.requires_grad}
    outputs = [value for value in results.values() if isinstance(value, torch.Tensor) and value.requires_grad]
    if not outputs or not sources:
        return dict.fromkeys(sources)
    weights = torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for value in outputs:
        total = total + (value * torch.rand(value.shape, generator=weights).to(value)).sum()
    found = torch.autograd.grad(total, list(sources.values()), allow_unused=True, retain_graph=True)
    return dict(zip(sources, found, strict=True))


def require_same_gradients(gradients, promised) -> None:
    for name, expected in promised.items():
        if expected is None or name not in gradients:
            continue
        got = gradients[name]
        if got is None and expected.any():
            raise Wrong(f"no gradient comes back to {name}, expected one: training needs it.", CUT)
        if got is not None and not (got - expected).norm() <= 1e-2 * expected.norm() + 1e-6:
            raise Wrong(
                f"the values are right, but the gradient with respect to {name} is not.",
                f"A part of the way from {name} to the result was cut: {CUT}",
            )
