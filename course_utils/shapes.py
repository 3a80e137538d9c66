"""Shapes: one helper that broadcasts coefficients, and checks whose errors say what to do."""

import torch


def expand_like(values: torch.Tensor | float, target: torch.Tensor) -> torch.Tensor:
    """Give one number per sample the axes it needs to be multiplied with `target`.

    values: a number, or a tensor of shape () or (batch,). target: (batch, ...), floating point.
    Returns (batch, 1, ..., 1), or (1, 1, ..., 1) for a single number, with the target's dtype and device.
    Raises ValueError if `values` has more axes, or another batch size than `target`.
    """
    values = torch.as_tensor(values)
    if values.ndim > 1 or (values.ndim == 1 and len(values) not in (1, len(target))):
        raise ValueError(
            f"Expected one number, or one for each of the {len(target)} samples, but got values of shape "
            f"{tuple(values.shape)} for a target of shape {tuple(target.shape)}. Pass shape ({len(target)},)."
        )
    values = values.to(device=target.device, dtype=target.dtype)
    return values.reshape(-1, *[1] * (target.ndim - 1))  # (batch, 1, ..., 1)


def require_pictures(x: torch.Tensor) -> None:
    """Raise ValueError unless `x` is a floating-point tensor of shape (batch, channels, height, width)."""
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"Expected a tensor of pictures, but got {type(x).__name__}. Convert it first.")
    if x.ndim == 3:
        raise ValueError(
            f"Expected pictures of shape (batch, channels, height, width), but got {tuple(x.shape)}. "
            "A single picture needs a batch axis: x[None]."
        )
    if x.ndim != 4:
        raise ValueError(f"Expected pictures of shape (batch, channels, height, width), but got {tuple(x.shape)}.")
    if not x.is_floating_point():
        raise ValueError(
            f"Expected floating-point pictures in [-1, 1], but got {x.dtype}. Convert bytes with x.float() / 127.5 - 1."
        )


def require_same_shape(first: torch.Tensor, second: torch.Tensor, names: str) -> None:
    """Raise ValueError unless both tensors have one shape; `names` says what they are, e.g. "x0 and eps".

    Without this check torch would broadcast one over the other and return a plausible wrong number.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"Expected {names} of one shape, but got {tuple(first.shape)} and {tuple(second.shape)}. "
            "Check what the model returns, and the order of the axes."
        )


def require_times(t: torch.Tensor, T: int) -> None:
    """Raise ValueError unless `t` is a whole-number tensor of shape (batch,) or () with values 0 ... T-1.

    A negative t would otherwise count from the schedule's end without a word.
    """
    if not isinstance(t, torch.Tensor) or t.is_floating_point() or t.dtype == torch.bool or t.ndim > 1:
        found = f"{t.dtype} of shape {tuple(t.shape)}" if isinstance(t, torch.Tensor) else type(t).__name__
        raise ValueError(f"Expected whole-number times t of shape (batch,), but got {found}. Use t.long().")
    if t.numel() and not 0 <= t.min() <= t.max() < T:
        raise ValueError(
            f"Expected times t from 0 to {T - 1}, but got {int(t.min())} to {int(t.max())}. "
            "In code t starts at 0: the paper's t minus 1."
        )
