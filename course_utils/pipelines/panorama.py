"""Pictures wider than a model has been trained for: overlapping windows, whose predictions are averaged at each step.

MultiDiffusion (Bar-Tal et al., arXiv:2302.08113). Shapes: wide latents (batch, channels, height, width); windows are
as high as they are.
"""

from collections.abc import Callable, Sequence

import torch

from course_utils.shapes import require_pictures


def window_starts(width: int, window: int, stride: int) -> list[int]:
    """Return the first column of each window: 0, stride, 2 stride, ..., and the last one that fits, width - window.

    Together they cover every column, and neighbours overlap by window - stride columns or more. A window as wide as
    the whole gives [0]. Raises ValueError unless 1 <= stride <= window <= width.
    """
    if not 1 <= stride <= window <= width:
        raise ValueError(
            f"Expected 1 <= stride <= window <= width, so that windows fit and leave no gap, but got stride {stride}, "
            f"window {window} and width {width}."
        )
    last = width - window
    return [*range(0, last, stride), last]


def cut_windows(x: torch.Tensor, starts: Sequence[int], window: int) -> torch.Tensor:
    """Return the windows of x (batch, channels, height, width): (windows, batch, channels, height, window).

    Raises ValueError for a window that does not lie in x.
    """
    require_pictures(x)
    _require_inside(starts, window, x.shape[3])
    return torch.stack([x[..., start : start + window] for start in starts])


def taper(window: int) -> torch.Tensor:
    """Return weights that are largest in the middle of a window and fall to its two ends: (window,), at most 1.

        w[k] = min(k + 1, window - k) / ceil(window / 2)

    So a window that begins or ends changes the average little by little, and not at once. ValueError for window < 1.
    """
    if window < 1:
        raise ValueError(f"Expected a window of at least one column, but got {window}.")
    k = torch.arange(window)
    return torch.minimum(k + 1, window - k) / ((window + 1) // 2)


def average_windows(
    parts: torch.Tensor, starts: Sequence[int], width: int, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the wide tensor that is, in each column, the weighted mean of all windows that cover it.

        y[..., k] = ( sum over i of w[k - s_i] parts_i[..., k - s_i] ) / ( sum over i of w[k - s_i] ),   s_i = starts[i]

    over the windows i that cover k. It is the solution of "be equal to every window" in least squares, with weights w.
    parts: (windows, batch, channels, height, window). weights: (window,), positive; None: all 1, the plain mean.
    Returns (batch, channels, height, width). arXiv:2302.08113, equation 5.
    Raises ValueError for another number of windows or weights, for weights that are not positive, for a window that
    does not lie inside, and for a column without any.
    """
    if parts.ndim != 5 or len(parts) != len(starts):
        raise ValueError(
            f"Expected parts of shape (windows, batch, channels, height, window) for {len(starts)} windows, but got "
            f"{tuple(parts.shape)}; make them with cut_windows."
        )
    window = parts.shape[4]
    _require_inside(starts, window, width)
    weights = torch.ones(window) if weights is None else weights
    if weights.shape != (window,) or not (weights > 0).all():
        raise ValueError(
            f"Expected {window} positive weights, one for each column of a window, but got {weights}; see taper."
        )
    weights = weights.to(parts)
    total, count = parts.new_zeros(*parts.shape[1:4], width), parts.new_zeros(width)
    for part, start in zip(parts, starts, strict=True):
        total[..., start : start + window] += weights * part
        count[start : start + window] += weights
    if not count.all():
        raise ValueError(
            f"Expected windows that cover all {width} columns, but column {int(count.argmin())} has none; take the "
            "starts of window_starts."
        )
    return total / count


def windowed(model: Callable, window: int, stride: int, weights: torch.Tensor | None = None) -> Callable:
    """Return a model for wide x_t: `model` sees overlapping windows, and what it predicts is averaged.

        eps(x_t, t, c) = average_windows over i of model(x_t[window i], t, c_i)

    A step of DDIM or DPM-Solver++ is linear in the prediction, with the same numbers in all columns, so this is the
    mean of their steps, as in the paper. (Heun evaluates twice in a step: there it is not.) All are one batch.
    cond c: (batch, tokens, features) for all windows, or (windows, batch, tokens, features), one for each, from left
    to right. With one window that covers all it is `model`. Raises ValueError, when called, for an x_t that is
    narrower than a window, and for another number of conditions than windows.
    """

    def wide_model(x_t, t, cond=None):
        starts = window_starts(x_t.shape[3], window, stride)
        parts = cut_windows(x_t, starts, window)  # (windows, batch, channels, height, window)
        number, batch = parts.shape[:2]
        if cond is not None and cond.ndim == 3:
            cond = cond.expand(number, *cond.shape)
        if cond is not None and cond.shape[:2] != (number, batch):
            raise ValueError(
                f"Expected one condition for all windows, or for each of {number} windows and {batch} pictures, but "
                f"got {tuple(cond.shape)}."
            )
        every = None if cond is None else cond.flatten(0, 1)  # (windows batch, tokens, features)
        predicted = model(parts.flatten(0, 1), t.expand(batch).repeat(number), every)
        return average_windows(predicted.unflatten(0, (number, batch)), starts, x_t.shape[3], weights)

    return wide_model


def likeness(first: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return how alike pictures are to others, by the correlation of their columns: (n, m) in [-1, 1].

        r = <a, b> / (|a| |b|),   a, b the pictures minus the mean of each of their rows

    The rows' means are what all columns share, such as sky above grass; without them 1 is left for pictures whose
    columns differ in the same way. first (n, channels, height, width), others (m, ...) of the same size.
    Raises ValueError if the sizes differ. A picture without any change from left to right is like none: 0.
    """
    require_pictures(first)
    require_pictures(others)
    if first.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"Expected pictures of one size, but got {tuple(first.shape)} and {tuple(others.shape)}; cut them equally."
        )
    a, b = ((x - x.mean(3, keepdim=True)).flatten(1) for x in (first, others))
    norms = a.norm(dim=1)[:, None] * b.norm(dim=1)
    return torch.where(norms > 0, a @ b.T / norms.clamp(min=torch.finfo(a.dtype).tiny), torch.zeros_like(norms))


def _require_inside(starts: Sequence[int], window: int, width: int) -> None:
    if not starts or min(starts) < 0 or max(starts) + window > width:
        raise ValueError(
            f"Expected windows of {window} columns inside {width}, but they start at {list(starts)}; take the starts "
            "of window_starts."
        )
