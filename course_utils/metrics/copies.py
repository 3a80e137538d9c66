"""Does a model copy? How near a drawn picture is to its nearest training picture, and whether a loss betrays them.

`features` are those of drawn pictures, `training` those of the pictures that a model was trained on, (count, d) each:
pixels in one long row, or what a network sees in them.
"""

import torch
from numpy.typing import ArrayLike

from course_utils.metrics.statistics import middle


def nearest_two(features: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (nearest, second, which): the Euclidean distances of each point to the two nearest others, and the nearer.

    features: (count, d); others: (number, d). nearest, second: float64 (count,), in the units of the features; which:
    int64 (count,), the row of others that is nearest. A point among others equal to it has the distance 0, exactly.
    Raises ValueError for other shapes, for no point, and for fewer than two others.
    """
    if features.ndim != 2 or features.shape[1:] != others.shape[1:] or len(features) < 1 or len(others) < 2:
        raise ValueError(
            f"expected points (count, d) and two others or more, (number, d), got {tuple(features.shape)} and "
            f"{tuple(others.shape)}; flatten(1) makes rows of pictures"
        )
    features, others = features.double(), others.double()
    two = torch.cdist(features, others).topk(2, dim=1, largest=False).indices
    # once more without the products in cdist, whose rounding hides what is 0
    distances = (features[:, None] - others[two]).norm(dim=2)
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, 0], distances[:, 1], two.gather(1, order)[:, 0]


def neighbour_ratio(features: torch.Tensor, training: torch.Tensor) -> torch.Tensor:
    """Return how much nearer each drawn picture is to its nearest training picture than to the second nearest.

        ratio_j = min_i |x_j - y_i| / (the second smallest |x_j - y_i|),   0 where the smallest is 0

    features x: (count, d); training y: (number, d). Returns float64 (count,) in [0, 1]: near 0 for a copy, near 1 for a
    picture that is no nearer to one training picture than to the next. The same picture twice in `training` hides a
    copy, since the second nearest is then as near as the nearest: keep one of each.

    Carlini et al. (arXiv:2301.13188, section 5) divide by half of the mean distance to the 50 nearest instead of by
    the second: it needs a larger training set, and is less disturbed by near duplicates.
    Raises ValueError as `nearest_two` does.
    """
    nearest, second, _ = nearest_two(features, training)
    return torch.where(nearest > 0, nearest / second.clamp(min=torch.finfo(torch.float64).tiny), 0.0)


def auc(members: ArrayLike, others: ArrayLike) -> float:
    """Return the probability that a member's loss is below another's: how well the loss tells who was trained on.

        mean_{a, b} [members_a < others_b] + 1/2 [members_a = others_b]

    members: (count,), the losses of pictures that a model was trained on; others: (number,), those of pictures that it
    was not. 1: each member is below each other one; 0.5: the loss tells nothing. It is the area under the curve of true
    over false alarms (ROC), and the statistic of Mann and Whitney divided by count * number.
    Source: Hanley and McNeil 1982, Radiology 143, pages 29-36.
    Raises ValueError unless both are one row of one or more finite numbers.
    """
    return _won(members, others).mean().item()


def auc_interval(
    members: ArrayLike,
    others: ArrayLike,
    rounds: int = 2000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Return a bootstrap interval (low, high) of `auc`: members and others are both drawn again, with replacement.

    The middle `level` of the AUCs of `rounds` such samples, from `generator` (seed 0 if not given). Where all members
    are below all others it has no length, however few they are. See `statistics.bootstrap_interval`.
    Raises ValueError as `auc` does, for rounds < 1, and for a level that is not between 0 and 1.
    """
    won = _won(members, others)
    if rounds < 1 or not 0 < level < 1:
        raise ValueError(f"expected rounds >= 1 and a level between 0 and 1, got {rounds} and {level}")
    generator = generator or torch.Generator().manual_seed(0)
    count, number = won.shape
    of_members, of_others = (torch.randint(n, (rounds, n), generator=generator) for n in (count, number))
    drawn = torch.stack([won[rows][:, columns].mean() for rows, columns in zip(of_members, of_others, strict=True)])
    low, high = middle(drawn, level).tolist()
    return low, high


def _won(members: ArrayLike, others: ArrayLike) -> torch.Tensor:
    """1 where the member's loss is below the other's, 1/2 where they are equal, else 0: float64 (count, number)."""
    losses, rest = (torch.as_tensor(one, dtype=torch.float64) for one in (members, others))
    if any(one.ndim != 1 or len(one) == 0 or not one.isfinite().all() for one in (losses, rest)):
        raise ValueError(
            f"expected finite losses (count,) of members and (number,) of others, got {tuple(losses.shape)} and "
            f"{tuple(rest.shape)}; take one loss for each picture"
        )
    return (losses[:, None] < rest).double() + (losses[:, None] == rest).double() / 2
