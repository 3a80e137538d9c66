"""Two clouds of features: distances against scipy and by simulation, neighbourhoods against closed forms."""

import math

import numpy
import pytest
import scipy.linalg
import torch
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from course_utils.metrics import distributions as metrics


def cloud(count, d, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, d, generator=generator) @ torch.randn(d, d, generator=generator) + shift


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_distance_of_two_normal_distributions_in_one_dimension():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [11.0]])  # means 1 and 8, variances 2 and 18
    assert metrics.frechet_distance(a, b) == pytest.approx(7**2 + (2**0.5 - 18**0.5) ** 2)


def test_the_distance_is_that_of_scipys_matrix_root():
    a, b = cloud(40, 6), cloud(60, 6, 1.5, seed=1)
    root = scipy.linalg.sqrtm(numpy.cov(a.numpy().T) @ numpy.cov(b.numpy().T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + numpy.trace(
        numpy.cov(a.numpy().T) + numpy.cov(b.numpy().T) - 2 * root
    )
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert metrics.frechet_distance(b, a) == pytest.approx(expected, rel=1e-4)


def test_fewer_points_than_features_are_no_obstacle():
    a = cloud(5, 8)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-4)
    assert metrics.frechet_distance(a, a + 1) == pytest.approx(8, rel=1e-4)


FUNCTIONS = (metrics.frechet_distance, metrics.kernel_distance, metrics.frechet_at_infinity,
             metrics.precision, metrics.recall, metrics.density, metrics.coverage)  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS)
def test_clouds_that_cannot_be_compared_are_refused(function):
    for a, b in (
        (torch.zeros(14, 3), torch.zeros(14, 2)),
        (torch.zeros(1, 3), torch.zeros(14, 3)),
        (torch.zeros(14), torch.zeros(14)),
    ):
        with pytest.raises(ValueError, match="two clouds"):
            function(a, b)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_clouds_are_not_changed(function):
    a, b = cloud(20, 3), cloud(24, 3, seed=1)
    before = a.clone(), b.clone()
    function(a, b)
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])


@pytest.mark.parametrize("d", (1, 4, 30))
def test_the_root_is_scipys(d):
    covariance = cloud(5 * d + 5, d).double().T.cov().reshape(d, d)
    root = metrics.matrix_sqrt(covariance, 60)
    torch.testing.assert_close(root @ root, covariance, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(root, torch.from_numpy(scipy.linalg.sqrtm(covariance.numpy())), rtol=1e-6, atol=1e-6)


def test_the_root_of_a_product_of_two_covariances():
    one, other = cloud(60, 6).double().T.cov(), cloud(60, 6, seed=1).double().T.cov()
    theirs = torch.from_numpy(scipy.linalg.sqrtm((one @ other).numpy()).real)
    torch.testing.assert_close(metrics.matrix_sqrt(one @ other, 50), theirs, rtol=1e-6, atol=1e-6)


def test_the_root_of_matrices_known_by_heart():
    torch.testing.assert_close(
        metrics.matrix_sqrt(torch.diag(torch.tensor([4.0, 9.0]))), torch.diag(torch.tensor([2.0, 3.0]))
    )
    assert metrics.matrix_sqrt(torch.eye(3)).dtype == torch.float32
    assert torch.equal(metrics.matrix_sqrt(torch.zeros(2, 2)), torch.zeros(2, 2))


def test_without_an_inverse_the_root_is_near():
    low = cloud(5, 8).double().T.cov()  # rank 4 of 8
    root = metrics.matrix_sqrt(low)
    assert (root @ root - low).abs().max() < 1e-6 * low.abs().max()


def test_the_error_is_squared_in_each_step():
    """For a number s, r = 1 - s / y^2 becomes 3/4 r^2 + 1/4 r^3."""
    matrix = torch.diag(torch.tensor([0.8, 0.6], dtype=torch.float64))  # its Frobenius norm is 1
    errors = [1 - 0.6 / metrics.matrix_sqrt(matrix, steps)[1, 1].item() ** 2 for steps in range(1, 5)]
    residuals = [1 - metrics.matrix_sqrt(matrix, steps)[1, 1].item() ** 2 / 0.6 for steps in range(1, 4)]
    assert all(abs(later) < 1.2 * abs(earlier) ** 2 + 1e-15 for earlier, later in zip(errors, errors[1:], strict=False))
    for earlier, later in zip(residuals, residuals[1:], strict=False):
        assert later == pytest.approx(0.75 * earlier**2 + 0.25 * earlier**3, rel=1e-6, abs=1e-14)


def test_what_has_no_such_root_is_refused():
    for matrix in (torch.zeros(2, 3), torch.zeros(4), torch.eye(2)[None]):
        with pytest.raises(ValueError, match="a matrix"):
            metrics.matrix_sqrt(matrix)
    with pytest.raises(ValueError, match="steps >= 1"):
        metrics.matrix_sqrt(torch.eye(2), 0)
    for matrix in (
        torch.diag(torch.tensor([1.0, -0.5])),
        torch.tensor([[0.0, 1.0], [-1.0, 0.0]]),
        torch.eye(2) * torch.nan,
    ):
        with pytest.raises(ValueError, match="eigenvalues >= 0"):
            metrics.matrix_sqrt(matrix, 60)


def test_at_infinity_the_bias_is_gone():
    """Two samples of one distribution: the distance is far from 0 for few, and the line ends near it."""
    d, others = 8, normal(20_000, 8, seed=1)
    found = [metrics.frechet_at_infinity(normal(1000, d, seed=seed), others) for seed in range(2, 8)]
    values, slopes = zip(*found, strict=True)
    few = metrics.frechet_distance(normal(100, d, seed=9), others)
    assert few > 0.2 and abs(sum(values) / 6) < 0.02 and min(slopes) > 0


def test_the_line_is_least_squares():
    a, b = normal(60, 2), normal(60, 2, seed=1)
    order = torch.Generator().manual_seed(3)
    points = [metrics.frechet_distance(a[torch.randperm(60, generator=order)[:n]], b) for n in (20, 60)]
    value, slope = metrics.frechet_at_infinity(a, b, (20, 60), torch.Generator().manual_seed(3))
    assert value + slope / 20 == pytest.approx(points[0]) and value + slope / 60 == pytest.approx(points[1])
    for counts in ((60,), (20, 20), (20, 61), (1, 20)):
        with pytest.raises(ValueError, match="different counts"):
            metrics.frechet_at_infinity(a, b, counts)


def test_the_kernel_distance_is_its_definition():
    a, b = normal(7, 3), normal(5, 3, seed=1) + 0.5
    kernel = {
        name: polynomial_kernel(*pair, degree=3) for name, pair in {"aa": (a, a), "bb": (b, b), "ab": (a, b)}.items()
    }
    of_a = sum(kernel["aa"][i, j] for i in range(7) for j in range(7) if i != j) / 42
    of_b = sum(kernel["bb"][i, j] for i in range(5) for j in range(5) if i != j) / 20
    assert metrics.kernel_distance(a, b) == pytest.approx(of_a + of_b - 2 * kernel["ab"].mean())
    assert metrics.kernel_distance(a, b) == pytest.approx(metrics.kernel_distance(b, a))


@pytest.mark.parametrize("q", (0.5, 0.9))
@pytest.mark.parametrize("count, rounds", ((4, 2000), (40, 400)))
def test_the_kernel_distance_is_unbiased(q, count, rounds):
    """Of coins that show 1 with the probabilities 0.5 and q, else 0: (ab + 1)^3 is 8 for two ones, and 1 otherwise."""
    expected, dice = 7 * (0.5 - q) ** 2, torch.Generator().manual_seed(count)
    x, y = ((torch.rand(rounds, count, 1, generator=dice) < p).double() for p in (0.5, q))
    found = torch.tensor([metrics.kernel_distance(a, b) for a, b in zip(x, y, strict=True)])
    error = found.std().item() / rounds**0.5
    assert abs(found.mean().item() - expected) < 4 * error
    if count == 4:  # what pairs of a point with itself would add is seen
        assert (7 * 0.25 + 7 * q * (1 - q)) / count > 4 * error


def test_neighbourhoods_counted_by_another_library():
    x, y, k = normal(30, 4), normal(40, 4, seed=1) * 1.3, 3
    near = NearestNeighbors(n_neighbors=k + 1).fit(y).kneighbors(y)[0][:, k]  # the first is the point itself
    inside = torch.cdist(x, y).numpy() <= near
    assert metrics.precision(x, y, k) == pytest.approx(inside.any(1).mean())
    assert metrics.density(x, y, k) == pytest.approx(inside.sum(1).mean() / k)
    assert metrics.coverage(x, y, k) == pytest.approx(inside.any(0).mean())
    assert metrics.recall(x, y, k) == metrics.precision(y, x, k)


def test_neighbourhoods_on_a_line():
    y = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # radii for k = 1: 1, 1, 1, 8
    x = torch.tensor([[0.5], [-0.5], [30.0]])
    assert metrics.precision(x, y, 1) == pytest.approx(2 / 3)  # 30 is in no neighbourhood
    assert metrics.density(x, y, 1) == pytest.approx((2 + 1 + 0) / 3)  # 0.5 is in those of 0 and 1, -0.5 in that of 0
    assert metrics.coverage(x, y, 1) == pytest.approx(2 / 4)  # 2 and 10 have nobody
    assert metrics.recall(x, y, 1) == pytest.approx(1)  # 30's neighbourhood reaches 29.5 far


def test_copies_are_precise_and_cover_what_they_copy():
    y = normal(40, 3)
    assert metrics.precision(y, y) == metrics.recall(y, y) == metrics.coverage(y, y) == 1
    assert metrics.coverage(y[:1].expand(40, 3), y) < 0.5 < metrics.precision(y[:1].expand(40, 3), y)


@pytest.mark.parametrize("count, number, k", ((50, 50, 5), (30, 90, 3), (200, 40, 1)))
def test_coverage_of_one_distribution_is_the_closed_form(count, number, k):
    """Whatever the distribution: here normal in 1 dimension and uniform in 5."""
    expected = metrics.expected_coverage(count, number, k)
    missed = math.prod((number - m) / (count + number - m) for m in range(1, k + 1))
    assert expected == pytest.approx(1 - missed)
    for d in (1, 5):
        dice = torch.Generator().manual_seed(d)
        draw = torch.randn if d == 1 else torch.rand
        clouds = [(draw(count, d, generator=dice), draw(number, d, generator=dice)) for _ in range(150)]
        found = torch.tensor([metrics.coverage(x, y, k) for x, y in clouds])
        assert abs(found.mean().item() - expected) < 4 * found.std().item() / 150**0.5


def test_the_density_of_one_distribution_is_one():
    dice = torch.Generator().manual_seed(0)
    clouds = [(torch.randn(60, 2, generator=dice), torch.randn(60, 2, generator=dice)) for _ in range(200)]
    found = torch.tensor([metrics.density(x, y) for x, y in clouds])
    assert abs(found.mean().item() - 1) < 4 * found.std().item() / 200**0.5 + 0.01


@pytest.mark.parametrize("function", (metrics.precision, metrics.recall, metrics.density, metrics.coverage))
def test_neighbours_that_are_not_there_are_refused(function):
    for k in (0, 4, 9):
        with pytest.raises(ValueError, match="k from 1"):
            function(normal(4, 2), normal(4, 2, seed=1), k)


def test_expected_coverage_refuses_what_cannot_be():
    for count, number, k in ((0, 9, 1), (9, 5, 5), (9, 5, 0)):
        with pytest.raises(ValueError, match="1 <= k < number"):
            metrics.expected_coverage(count, number, k)
