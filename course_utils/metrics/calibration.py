"""Are the intervals of a random estimate as wide as they claim? Samples, their mean and spread, and the truth.

Shapes: samples (number, ...); mean, spread and truth (...), pictures or anything else.
"""

from collections.abc import Sequence

import torch
from torch.distributions import Normal

from course_utils.shapes import require_same_shape


def mean_and_spread(samples: torch.Tensor, floor: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the standard deviation of samples over their first axis, each (...).

        spread = sqrt( 1 / (number - 1) sum_i (sample_i - mean)^2 + floor^2 )

    floor: an error that all samples share, so that they cannot show it (that of a decoder, say); 0 for none.
    Raises ValueError for fewer than two samples, or a negative floor.
    """
    if len(samples) < 2 or floor < 0:
        raise ValueError(f"Expected two samples or more and a floor >= 0, but got {len(samples)} and {floor}.")
    return samples.mean(0), (samples.var(0) + floor**2).sqrt()


def normal_width(level: float) -> float:
    """Return how many standard deviations to each side hold a normal number with probability `level`: 1.96 for 0.95.

    Raises ValueError unless 0 < level < 1.
    """
    _require_level(level)
    return Normal(0.0, 1.0).icdf(torch.tensor((1 + level) / 2, dtype=torch.float64)).item()


def held(truth: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor, width: float) -> float:
    """Return the share of numbers of the truth that lie inside mean ± width spread, the ends included.

    Raises ValueError for shapes that differ, and for a negative width.
    """
    _require_alike(truth, mean, spread)
    if width < 0:
        raise ValueError(f"Expected a width of at least 0, but got {width}.")
    return ((truth - mean).abs() <= width * spread).double().mean().item()


def calibrated_width(truth: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor, level: float) -> float:
    """Return the smallest width for which mean ± width spread holds at least the share `level` of the truth.

        the k-th smallest of |truth - mean| / spread,   k = ceil(level n), n numbers in all

    Where the error and the spread are both 0 the truth is held by any width. Chosen on some pictures, it holds about
    the share `level` on others of their kind, whatever the distribution of the errors (split conformal prediction,
    arXiv:2107.07511, section 1). Raises ValueError for shapes that differ or a level outside (0, 1).
    """
    _require_level(level)
    _require_alike(truth, mean, spread)
    error = (truth - mean).abs().double().flatten()
    ratio = torch.where(error == 0, 0, error / spread.double().flatten())
    k = int(-(-level * len(ratio) // 1))
    return ratio.kthvalue(max(k, 1)).values.item()


def reliability(
    truth: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor, levels: Sequence[float] = (0.5, 0.8, 0.95)
) -> list[float]:
    """Return for each nominal level how often the normal interval of that level holds the truth: `held` of each."""
    return [held(truth, mean, spread, normal_width(level)) for level in levels]


def _require_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"Expected a level between 0 and 1, such as 0.95, but got {level}.")


def _require_alike(truth: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor) -> None:
    require_same_shape(truth, mean, "truth and mean")
    require_same_shape(truth, spread, "truth and spread")
