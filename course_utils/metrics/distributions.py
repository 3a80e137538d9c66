"""Two clouds of features compared: those of drawn pictures and those of real ones, each picture one point.

`features` are always those of the drawn pictures, `others` those of the real ones, (count, d) each. What turns a
picture into d numbers is chosen by the caller, and every number here depends on it.
"""

from collections.abc import Sequence

import numpy
import torch


def frechet_distance(features: torch.Tensor, others: torch.Tensor) -> float:
    """Return the squared Fréchet distance of two clouds of features, taken for normal distributions (FID).

        d^2 = |m - n|^2 + trace(S + R - 2 (S R)^(1/2))

    features: (count, d), with mean m and covariance S. others: (number, d), with mean n and covariance R. It is 0 for
    the same mean and covariance. Few pictures make it larger than it is: compare only values of the same counts.
    Heusel et al. 2017 (arXiv:1706.08500), equation 6. Raises ValueError for other shapes, or fewer than two rows.
    """
    _require_clouds(features, others)
    features, others = features.double(), others.double()
    covariance, other = (cloud.T.cov().reshape(cloud.shape[1], -1) for cloud in (features, others))
    # the eigenvalues of a product of two covariances are real and not negative, up to rounding
    root = torch.linalg.eigvals(covariance @ other).real.clamp(min=0).sqrt().sum()
    spread = features.var(0).sum() + others.var(0).sum() - 2 * root
    return ((features.mean(0) - others.mean(0)).square().sum() + spread).clamp(min=0).item()


def matrix_sqrt(matrix: torch.Tensor, steps: int = 30) -> torch.Tensor:
    """Return the square root X of a matrix A, X X = A, by products alone: the iteration of Newton and Schulz.

        Y_0 = A / |A|,  Z_0 = I;   T = (3 I - Z Y) / 2,  Y <- Y T,  Z <- T Z;   X = Y |A|^(1/2)

    matrix: (d, d) with real eigenvalues >= 0, such as a covariance or a product of two. |A| is its Frobenius norm: no
    eigenvalue exceeds it. Y goes to the root of Y_0, Z to its inverse. Close to the root the number of right digits
    doubles in each step; the root of a share s of |A| takes about 1.2 log(1 / s) steps to get there, and an eigenvalue
    of 0 stays near 0. Z grows by 1.5 a step there, so that many more steps than 30 spoil a matrix without an inverse.
    Returns (d, d) in the matrix's kind of numbers; the computation is in float64.
    Source: Higham, Functions of Matrices (2008), chapter 6; for networks Lin and Maji (arXiv:1707.06772).
    Raises ValueError unless the matrix is square and steps >= 1, and where the iteration leaves all bounds, as it does
    for a negative eigenvalue.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or steps < 1:
        raise ValueError(f"expected a matrix (d, d) and steps >= 1, got {tuple(matrix.shape)} and {steps} steps")
    norm = torch.linalg.matrix_norm(matrix.double())
    if norm == 0:
        return torch.zeros_like(matrix)
    unit = torch.eye(len(matrix), dtype=torch.float64, device=matrix.device)
    y, z = matrix.double() / norm, unit
    for _ in range(steps):
        t = (3 * unit - z @ y) / 2
        y, z = y @ t, t @ z
    if not torch.linalg.matrix_norm(y) < 1e6:  # not a number, or far above any root of a matrix of norm 1
        raise ValueError(
            "expected a matrix with real eigenvalues >= 0, such as a covariance, got one for which the iteration "
            "leaves all bounds; look at torch.linalg.eigvals, or take fewer steps"
        )
    return (y * norm.sqrt()).to(matrix.dtype)


def frechet_at_infinity(
    features: torch.Tensor,
    others: torch.Tensor,
    counts: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Return (value, slope): the Fréchet distance that infinitely many drawn pictures would have, by a straight line.

        d^2(n) = value + slope / n,   by least squares

    For each n of counts (15 from a tenth of the pictures to all of them, if not given) so many of `features` are drawn
    without replacement, from `generator`. Only the drawn pictures become infinitely many; `others` stay as few as they
    are. Source: Chong and Forsyth, arXiv:1911.07023, section 4 (there called FID-infinity).
    Raises ValueError for clouds that `frechet_distance` refuses, for counts that are not all from 2 to the number of
    features, and for fewer than two different ones.
    """
    _require_clouds(features, others)
    if counts is None:
        counts = [round(n) for n in numpy.linspace(max(2, len(features) / 10), len(features), 15)]
    if len(set(counts)) < 2 or min(counts) < 2 or max(counts) > len(features):
        raise ValueError(
            f"expected at least two different counts from 2 to the {len(features)} features, got {list(counts)}"
        )
    some = [features[torch.randperm(len(features), generator=generator)[:n]] for n in counts]
    slope, value = numpy.polyfit([1 / n for n in counts], [frechet_distance(one, others) for one in some], 1)
    return float(value), float(slope)


def kernel_distance(features: torch.Tensor, others: torch.Tensor) -> float:
    """Return the squared maximum mean discrepancy of two clouds, by a cubic kernel and without bias (KID).

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),   k(a, b) = (a.b / d + 1)^3

    features x: (count, d); others y: (number, d). Pairs of a point with itself are left out: that makes it a
    U-statistic, whose expectation is the same for any counts, and 0 for two samples of one distribution. So it may be
    negative.
    Source: Binkowski et al., arXiv:1801.01401, section 4. Raises ValueError for other shapes, or fewer than two rows.
    """
    _require_clouds(features, others)
    x, y = features.double(), others.double()
    return (_mean_of_pairs(_cubic(x, x)) + _mean_of_pairs(_cubic(y, y)) - 2 * _cubic(x, y).mean()).item()


def precision(features: torch.Tensor, others: torch.Tensor, k: int = 3) -> float:
    """Return the share of drawn pictures, 0-1, that lie among the real ones: how believable they are.

        mean_j [some i: |x_j - y_i| <= radius_i],   radius_i = the distance from y_i to its k-th nearest other y

    features x: (count, d); others y: (number, d). Source: Kynkäänniemi et al., arXiv:1904.06991, section 2.
    Raises ValueError for other shapes, and unless 1 <= k < number.
    """
    return (_distances(features, others) <= _radius(others, k)).any(1).double().mean().item()


def recall(features: torch.Tensor, others: torch.Tensor, k: int = 3) -> float:
    """Return the share of real pictures, 0-1, that lie among the drawn ones: how much of the variety is drawn.

    It is `precision` with both clouds exchanged; see there.
    """
    return precision(others, features, k)


def density(features: torch.Tensor, others: torch.Tensor, k: int = 5) -> float:
    """Return in how many neighbourhoods of real pictures a drawn one lies, in the mean, divided by k.

        1/k mean_j sum_i [|x_j - y_i| <= radius_i],   radius_i as in `precision`

    1 is expected if both come from one distribution; it can be more, where the drawn ones crowd together. Unlike
    precision it is hardly moved by one real outlier with a large neighbourhood.
    Source: Naeem et al., arXiv:2002.09797, equation 3. Raises ValueError as `precision` does.
    """
    return (_distances(features, others) <= _radius(others, k)).double().sum(1).mean().item() / k


def coverage(features: torch.Tensor, others: torch.Tensor, k: int = 5) -> float:
    """Return the share of real pictures, 0-1, that have a drawn one in their neighbourhood.

        mean_i [some j: |x_j - y_i| <= radius_i],   radius_i as in `precision`

    Its expectation for two samples of one distribution does not depend on what that is; see `expected_coverage`.
    Source: Naeem et al., arXiv:2002.09797, equation 4. Raises ValueError as `precision` does.
    """
    return (_distances(features, others) <= _radius(others, k)).any(0).double().mean().item()


def expected_coverage(count: int, number: int, k: int = 5) -> float:
    """Return the `coverage` to be expected of `count` points for `number` others of one and the same distribution.

        1 - prod_{m=1..k} (number - m) / (count + number - m)

    In words: one of the others is missed if its k nearest, of all others and points, are others, which has the
    probability that is subtracted. Source: Naeem et al., arXiv:2002.09797, section 3.3.
    Raises ValueError unless count >= 1 and 1 <= k < number.
    """
    if count < 1 or not 1 <= k < number:
        raise ValueError(f"expected count >= 1 and 1 <= k < number, got count={count}, number={number} and k={k}")
    return 1 - float(numpy.prod([(number - m) / (count + number - m) for m in range(1, k + 1)]))


def _require_clouds(features: torch.Tensor, others: torch.Tensor) -> None:
    if features.ndim != 2 or features.shape[1:] != others.shape[1:] or min(len(features), len(others)) < 2:
        raise ValueError(
            f"expected two clouds (count, d) of the same d, each of two points or more, got "
            f"{tuple(features.shape)} and {tuple(others.shape)}"
        )


def _cubic(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The kernel of all pairs: (count, d), (number, d) -> (count, number)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_of_pairs(kernel: torch.Tensor) -> torch.Tensor:
    """The mean of a square matrix without its diagonal."""
    return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))


def _distances(features: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """All distances between two clouds, (count, number)."""
    _require_clouds(features, others)
    return torch.cdist(features.double(), others.double())


def _radius(others: torch.Tensor, k: int) -> torch.Tensor:
    """The distance of each point to its k-th nearest other one, (number,)."""
    if not 1 <= k < len(others):
        raise ValueError(f"expected k from 1 to less than the {len(others)} points, got {k}")
    return _distances(others, others).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values
