"""What the exercises of chapter 15 give with common mistakes, and what their oracles measure with.

Each `..._mistakes` returns the right value, by another way than the course's functions, and pairs (value that a mistake
gives, sentence that names it), for `close`.
"""

import itertools
import math

import numpy as np
import torch
from torch.nn import functional as F

from course_utils.exercises.oracles import NUMBERS, Wrong, require
from course_utils.exercises.settings import called_as


def in_float64(pairs):
    """Values as tensors in float64, each with its sentence."""
    return [(torch.as_tensor(value, dtype=torch.float64), advice) for value, advice in pairs]


def require_real(got, what, advice, called) -> None:
    """Raise `Wrong` if one of Python's complex numbers came back."""
    with called_as(called):
        require(not isinstance(got, complex | np.complexfloating), f"{what} is the complex number {got}, expected a "
                "single number.", advice)  # fmt: skip


# The root of a matrix

CHOLESKY = "Cholesky's factor L has L Lᵀ = A. The root of a matrix is the one which, multiplied by itself, gives A."
ROOT_REASONS = [
    ("same dtype", "torch.eye makes float32, and a product needs one kind of numbers: torch.eye(d, "
                   "dtype=torch.float64), and matrix.double()."),
    ("linalg.cholesky", CHOLESKY),
]  # fmt: skip


def turned(case, d):
    """A random orthogonal matrix."""
    return torch.linalg.qr(case.normal(d, d).double())[0]


def with_eigenvalues(case, d, symmetric):
    """A matrix (d, d) with known eigenvalues: (matrix, eigenvalues, vectors, their inverse), in float64."""
    values, vectors = case.uniform(0.3, 3.0, d).double(), turned(case, d)
    if not symmetric:
        vectors = vectors @ torch.diag(case.uniform(0.5, 1.5, d).double()) @ turned(case, d)
    inverse = torch.linalg.inv(vectors)
    return vectors @ torch.diag(values) @ inverse, values, vectors, inverse


def root_mistakes(matrix, values, vectors, inverse, steps, got):
    """The right matrix, by the same steps for each eigenvalue alone, and those of mistakes, by the steps themselves."""
    norm, unit = values.new_tensor((matrix.double() ** 2).sum().item() ** 0.5), torch.eye(len(values)).double()
    start, ones = matrix.double() / norm, torch.ones_like(unit)

    def alone(steps):
        share, y = values / norm, values / norm
        for _ in range(steps):
            y = y * (3 - y * y / share) / 2
        return vectors @ torch.diag(y * norm.sqrt()) @ inverse

    def half(y, z):
        return (3 * unit - z @ y) / 2

    def run(t=half, y=start, z=unit, steps=steps, product=torch.matmul, back=None, order=None):
        for _ in range(steps):
            factor = t(y, z)
            y, z = order(y, z, factor) if order else (product(y, factor), product(factor, z))
        return y * (norm.sqrt() if back is None else back)

    def other_norm(size):
        return run(y=matrix.double() / size, back=size**0.5)

    def inverse_root():
        y, z = start, unit
        for _ in range(steps):
            y, z = y @ half(y, z), half(y, z) @ z
        return z

    def with_the_new_y(y, z, factor):
        y = y @ factor
        return y, half(y, z) @ z

    def stopped():
        """The matrix after fewer steps that is the nearest to what came back."""
        if not isinstance(got, torch.Tensor) or got.shape != unit.shape:
            return unit
        return min(map(alone, range(1, steps + 1)), key=lambda y: (y - got).abs().max().item())

    singular = torch.linalg.matrix_norm(matrix.double(), 2).item()
    even = (matrix.double() + matrix.double().T) / 2
    parts, directions = torch.linalg.eigh(matrix.double())
    return alone(steps), in_float64([
        (vectors @ torch.diag(values.sqrt()) @ inverse, "This is the exact root, or that of many more steps. The "
         "matrix after `steps` repetitions is wanted: section 1 plots how it comes closer."),
        (alone(steps - 1), "One step is missing: range(steps) repeats as often as `steps` says."),
        (alone(steps + 1), "There is one step too many: range(steps) repeats as often as `steps` says."),
        (run(steps=1), "One step was made, whatever `steps` says: does the `return` stand inside the loop?"),
        (run(back=1), "The division by |A| was not undone: multiply Y by the root of |A|."),
        (run(back=norm), "Y was multiplied by |A|. The root of a product is the product of the roots: multiply by the "
                         "root of |A|."),
        (run(back=1 / norm.sqrt()), "Y was divided by the root of |A|. A was divided by |A| before, so multiply."),
        (run(y=matrix.double(), back=1), "The iteration began with A itself. Y starts as A / |A|: it converges only if "
                                         "no eigenvalue is too large."),
        (run(y=matrix.double(), back=norm.sqrt()), "The iteration began with A itself, and the result was still "
         "multiplied by the root of |A|. Y starts as A / |A|."),
        (run(y=matrix.double() / norm.sqrt()), "A was divided by the root of |A|. Y starts as A / |A|."),
        (other_norm(norm.item() ** 2), "The root is missing in the norm: |A| is the root of the sum of all squares."),
        (other_norm(singular), "This is the largest singular value. |A| is the Frobenius norm, the root of the sum of "
                               "all squares: torch.linalg.matrix_norm(A), without 2."),
        (other_norm(matrix.double().trace().item()), "A was divided by its trace. |A| is the Frobenius norm, the root "
                                                     "of the sum of all squares."),
        (other_norm(matrix.abs().double().sum().item()), "A was divided by the sum of its absolute values. |A| is the "
                                                         "root of the sum of all squares."),
        (other_norm(matrix.abs().max().item()), "A was divided by its largest element. |A| is the root of the sum of "
                                                "all squares."),
        (run(lambda y, z: 3 * unit - z @ y), "The half is missing: T = (3 I - Z Y) / 2."),
        (run(lambda y, z: 3 * unit - z @ y / 2), "The half belongs to the whole bracket: T = (3 I - Z Y) / 2."),
        (run(lambda y, z: 1.5 * unit - z @ y), "The half belongs to the whole bracket: T = (3 I - Z Y) / 2."),
        (run(lambda y, z: (3 * unit + z @ y) / 2), "The sign in T is wrong: T = (3 I - Z Y) / 2."),
        (run(lambda y, z: (unit - z @ y) / 2), "The factor 3 is missing: T = (3 I - Z Y) / 2."),
        (run(lambda y, z: (3 - z @ y) / 2), "3 - Z Y subtracts from 3 everywhere. The 3 stands on the diagonal only: "
                                            "3 I, with torch.eye."),
        (run(lambda y, z: (3 * unit - z * y) / 2), "Z * Y multiplies element by element. The matrix product is Z @ Y."),
        (run(product=torch.mul), "Y * T and T * Z multiply element by element. The matrix products are Y @ T and "
                                 "T @ Z."),
        (run(lambda y, z: (3 * unit - z * y) / 2, product=torch.mul), "* multiplies element by element, three times "
         "here. The matrix product is @."),
        (run(order=lambda y, z, t: (y @ t, z)), "Z was left as it was. In each step it becomes T Z."),
        (run(steps=0), "Y stayed as it was. T is made of Z Y, and in each step Y becomes Y T."),
        (run(order=with_the_new_y), "Z was multiplied by a T that was made of the new Y. Both products use the same "
                                    "factor T: compute it once."),
        (run(order=lambda y, z, t: (y @ t, t @ (y @ t))), "Z became T Y, with the new Y. It becomes T Z."),
        (run(z=ones), "Z began with ones everywhere. It begins with I: torch.eye."),
        (run(lambda y, z: (3 * ones - z @ y) / 2, z=ones), "torch.ones_like and torch.ones are 1 everywhere. I has its "
         "ones on the diagonal only: torch.eye."),
        (run(lambda y, z: half(start, unit)), "T was made once, before the loop. Each step makes its own, of the Y "
                                              "and Z it begins with."),
        (run(z=0 * unit), "Z began with zeros. It begins with I: torch.eye."),
        (run(z=start), "Z was the same as Y throughout. T is made of Z Y, and Z begins with I."),
        *[(inverse_root() * back, "Z came back, which goes to the inverse of the root. Y begins with A / |A|, and Z "
           "with I; the root is Y, times the root of |A|.") for back in (1, norm.sqrt(), 1 / norm.sqrt())],
        *[(root, "This is the root of each element. The root of a matrix is the one which, multiplied by itself, gives "
           "the matrix.") for root in (matrix.double().sqrt(), matrix.double().clamp(min=0).sqrt())],
        *[(directions @ torch.diag(root) @ directions.T, "torch.linalg.eigh is for symmetric matrices: it looks at one "
           "half only. Here the matrix after `steps` repetitions is wanted, symmetric or not.")
          for root in (parts.sqrt(), parts.clamp(min=0).sqrt(), parts.abs().sqrt())],
        (torch.linalg.cholesky_ex(matrix.double()).L, CHOLESKY),
        (run(y=even / even.norm(), back=even.norm().sqrt()), "The matrix was made symmetric first. A product of two "
         "covariances is not symmetric, and neither is its root."),
        (stopped(), STOPPED),
    ])  # fmt: skip


STOPPED = (
    "Fewer steps were made than `steps` says. Did a condition stop them early? Small eigenvalues grow slowly, by a "
    "factor of 1.5 a step, and little changes meanwhile."
)
IN_FLOAT32 = (
    "In float32, rounding makes eigenvalues of 0 slightly negative, and each step lets them grow. Compute in float64: "
    "matrix.double(), and torch.eye(d, dtype=torch.float64)."
)
ORDER = (
    "Rounding errors stay small in one order of the products only: Y @ T and T @ Z, with T made of Z @ Y. In another "
    "order each step lets them grow."
)


def of_one_direction(case, d):
    """A matrix all of whose eigenvalues but one are 0, and its root: the same matrix, divided by a length."""
    along = (case.whole(1, 9, d) * (1 - 2 * case.whole(0, 1, d))).double()
    return torch.outer(along, along), torch.outer(along, along) / along.norm()


def require_its_own_kind(got, matrix, called) -> None:
    with called_as(called):
        require(got.dtype == matrix.dtype, f"the root has the dtype {got.dtype}, expected {matrix.dtype}, that of "
                "the matrix.", "Whatever the computation is in, the result follows the matrix: .to(matrix.dtype), not "
                ".float().")  # fmt: skip


def require_accurate(got, right, largest, what, advice, called) -> None:
    """Raise `Wrong` if an element is off by more than a share `largest` of the largest one, or is not a number."""
    off = (got.double() - right).abs().max().item() / right.abs().max().item()
    with called_as(called):
        require(math.isfinite(off), f"{what} the root is NaN or infinite in places, expected an error of less than "
                f"{largest:g}.", advice)  # fmt: skip
        require(off < largest, f"{what} the root is off by {off:.2g} of its largest element, expected less than "
                f"{largest:g}.", advice)  # fmt: skip


def require_all_steps(learner) -> None:
    """Raise `Wrong` if a small eigenvalue does not grow in each of 30 steps."""
    got, right = learner(torch.diag(torch.tensor([1, 1e-10], dtype=torch.float64)), 30), 1e-10
    for _ in range(30):
        right = right * (3 - right * right / 1e-10) / 2
    off = abs(got[1, 1].item() - right) / right
    require(off < 1e-3, f"after 30 steps the root of an eigenvalue of 1e-10, beside one of 1, is {got[1, 1]:.3g}, "
            f"expected {right:.3g}.", STOPPED)  # fmt: skip


# The Fréchet distance

COVARIANCE = (
    "Are these covariances (d, d)? torch.cov wants a row for each variable, and here a row is an image: "
    "features.T.cov()."
)
BY_NUMPY = (
    "Are these covariances (d, d)? np.cov wants a row for each variable, and here a row is an image: np.cov(features, "
    "rowvar=False)."
)
EACH_MEAN = "Is this the mean of each image, over its features? Each feature has its own, features.mean(0): (d,)."
FRECHET_REASONS = [
    ("mat1 and mat2 shapes", COVARIANCE),
    ("non-singleton dimension 1", COVARIANCE),
    ("non-singleton dimension 0", EACH_MEAN),
    ("with shapes (9,) (14,)", EACH_MEAN),
    ("operands could not be broadcast", BY_NUMPY),
    ("mismatch in its core dimension", BY_NUMPY),
    ("omplex", "torch.linalg.eigvals returns complex numbers, which have no order: first .real, then .clamp(min=0)."),
    ("leaves all bounds", "With too many steps rounding errors of eigenvalues near 0 grow: keep the default of 30."),
]  # fmt: skip
COMPLEX = (
    "torch.linalg.eigvals and scipy.linalg.sqrtm return complex numbers. Their imaginary parts are rounding errors "
    "here: take .real."
)
ON_THE_DIAGONAL = "Something was added to the diagonal of the covariances. Add nothing: .clamp(min=0) suffices."
ROUNDED = "The result was rounded. Return it as it is: `print` can round."


def clouds(case, count, number, d, dtype=torch.float32):
    """Two clouds of points, the second shifted, wider and turned."""
    x, y = case.normal(count, d), case.normal(number, d) @ (torch.eye(d) + 0.4 * case.normal(d, d))
    return x.to(dtype), (1.5 * y + case.uniform(2, 3, d)).to(dtype)


def parts_of_frechet(x, y):
    """The four parts of the distance: means apart, both traces, and the trace of the root by singular values."""
    x, y = x.double(), y.double()
    a, b = ((cloud - cloud.mean(0)) / math.sqrt(len(cloud) - 1) for cloud in (x, y))
    return (
        (x.mean(0) - y.mean(0)).square().sum(),
        a.square().sum(),
        b.square().sum(),
        torch.linalg.svdvals(a @ b.T).sum(),
    )


def frechet_mistakes(x, y):
    """The right distance, by the singular values of the centred points, and those of mistakes."""
    means, of_x, of_y, root = parts_of_frechet(x, y)
    x, y = x.double(), y.double()
    apart, d = x.mean(0) - y.mean(0), x.shape[1]
    s, r = (torch.from_numpy(np.cov(cloud.numpy(), rowvar=False)) for cloud in (x, y))
    product = s @ r
    moments = [cloud.T @ cloud / (len(cloud) - 1) for cloud in (x, y)]
    less = [(len(cloud) - 1) / len(cloud) for cloud in (x, y)]
    ratio = (len(y) - 1) / (len(x) - 1)
    correlations = [torch.from_numpy(np.corrcoef(cloud.numpy(), rowvar=False)) for cloud in (x, y)]

    def eigen(matrix):
        return torch.linalg.eigvals(matrix).real.clamp(min=0)

    def fid(means=means, spread=of_x + of_y, root=root):
        return means + spread - 2 * root

    one, other = (_root_of(matrix) for matrix in (s, r))
    mistakes = in_float64([
        (fid().clamp(min=0).sqrt(), "A root was taken at the end. The FID is the squared distance itself."),
        (fid(means=means.sqrt()), "The distance of the means is not squared: the first term is the sum of the squared "
                                  "differences."),
        (fid(means=apart.square().mean()), "In the first term the squares were averaged. Their sum is wanted."),
        (fid(means=apart.abs().sum()), "In the first term absolute differences were added up. Square them."),
        (fid(means=apart.sum().square()), "The differences of the means were added up before the square: square "
                                          "each, then sum."),
        (fid(means=(x.mean() - y.mean()).square()), "One mean was taken over all features. Each feature has its own: "
                                                    "features.mean(0)."),
        (fid(means=0), "The term of the means is missing."),
        (means, "The term of the covariances is missing: this is how far the means are apart."),
        (fid(root=0), "The root is missing: subtract 2 trace((S R)^(1/2))."),
        (fid(root=root / 2), "The factor 2 before the root is missing."),
        (fid(root=-root), "The sign before the root is wrong: it is subtracted, twice."),
        (fid(root=eigen(product).sum()), "The eigenvalues were added up without their roots: this is the trace of "
                                         "the product."),
        (fid(root=eigen(product).sum().sqrt()), "This is the root of the trace. The trace of the root is the sum of "
                                                "the roots of the eigenvalues."),
        *[(fid(root=each.sqrt().trace()), "The root was taken element by element. The root of a matrix is another: its "
           "trace is the sum of the roots of the eigenvalues.") for each in (product, product.clamp(min=0))],
        (fid(root=(torch.linalg.eigvalsh(s) * torch.linalg.eigvalsh(r)).sqrt().sum()), "The eigenvalues of both "
         "covariances were multiplied one by one. Those of the product S @ R are wanted: the two have other "
         "directions."),
        (fid(root=eigen(s + r).sqrt().sum()), "This is the root of the sum of both covariances. The root of their "
                                              "product, S @ R, is wanted."),
        (fid(root=(one @ other).trace()), "The roots of both covariances were multiplied. That is not the root of the "
                                          "product, unless both have the same directions."),
        (fid(root=torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum()), "eigvalsh is for symmetric matrices, and "
         "looks at one half only. The product of two covariances is not symmetric: eigvals."),
        (fid(root=torch.linalg.svdvals(product).sqrt().sum()), "These are singular values of the product. Eigenvalues "
                                                               "are wanted, and S @ R is not symmetric."),
        (fid(spread=of_x), "The trace of the second covariance is missing."),
        (fid(spread=of_y), "The trace of the first covariance is missing."),
        (fid(spread=of_x * less[0] + of_y * less[1], root=root * math.sqrt(less[0] * less[1])), "The covariances were "
         "divided by the count. They are divided by count - 1."),
        (fid(spread=sum(m.trace() for m in moments), root=eigen(moments[0] @ moments[1]).sqrt().sum()), "The means "
         "were not subtracted in the covariances."),
        (fid(spread=of_x * (len(x) - 1) + of_y * (len(y) - 1), root=root * math.sqrt((len(x) - 1) * (len(y) - 1))),
         "The covariances were not divided by count - 1."),
        (fid(spread=s.diagonal().sqrt().sum() + r.diagonal().sqrt().sum()), "Standard deviations were added up. The "
                                                                            "traces are sums of variances."),
        (means + (s.diagonal().sqrt() - r.diagonal().sqrt()).square().sum(), "Only the variances of single features "
         "were used. The covariances of different features count, too. The product of matrices is S @ R, not S * R."),
        (means + (s.sum() + r.sum() - 2 * _sum_of_root(product)), "All elements were added up. The trace is the sum "
                                                                  "of the diagonal."),
        (means + (s - r).square().sum(), "The covariances were compared element by element. Two normal distributions "
         "are apart by trace(S + R - 2 (S R)^(1/2))."),
        (fid() / d, "The distance was divided by the number of features. It is a sum over all of them."),
        *[(fid(spread=a * of_x + b * of_y, root=math.sqrt(a * b) * root), "Both covariances were divided by the count "
           "of one cloud. Each has its own: count - 1 and number - 1.") for a, b in ((1, ratio), (1 / ratio, 1))],
        (fid(spread=2 * d, root=eigen(correlations[0] @ correlations[1]).sqrt().sum()), "These are correlations, of "
         "corrcoef. Covariances are wanted: cov."),
        *[(_with_more(x, y, *more), ON_THE_DIAGONAL) for more in MORE],
        (fid().round(), ROUNDED),
    ])  # fmt: skip
    return fid(), mistakes + [(value.clamp(min=0).nan_to_num(0), advice) for value, advice in mistakes]


MORE = list(itertools.product([10.0**power for power in range(-9, 1)], (False, True)))


def _with_more(x, y, more, traces):
    """The distance with something added to the diagonals of both covariances; traces: whether in the traces, too."""
    means, of_x, of_y, _ = parts_of_frechet(x, y)
    s, r = (cloud.double().T.cov() + more * torch.eye(x.shape[1], dtype=torch.float64) for cloud in (x, y))
    root = torch.linalg.eigvals(s @ r).real.clamp(min=0).sqrt().sum()
    return means + of_x + of_y + 2 * more * len(s) * traces - 2 * root


def _root_of(symmetric):
    values, vectors = torch.linalg.eigh(symmetric)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T


def _sum_of_root(product):
    """The sum of all elements of a matrix's root."""
    values, vectors = torch.linalg.eig(product)
    return (vectors @ torch.diag(values.sqrt()) @ torch.linalg.inv(vectors)).real.sum()


def require_few_images(results) -> None:
    """results: (got, x, y, called) for clouds of fewer points than features, which leave eigenvalues of 0."""
    advice = _likely([(float(got), x, y) for got, x, y, _ in results if isinstance(got, NUMBERS) or got.numel() == 1])
    for got, x, y, called in results:
        means, of_x, of_y, root = parts_of_frechet(x, y)
        right, size = (means + of_x + of_y - 2 * root).item(), (of_x + of_y).item()
        with called_as(called):
            require(isinstance(got, NUMBERS) or got.numel() == 1, "got several numbers, expected one.", "Return one.")
            got, expected = float(got), max(right, 0)
            found = (f"of {len(x)} and {len(y)} images with {x.shape[1]} features, the distance is {got:.7g}, expected "
                     f"{expected:.7g}.")  # fmt: skip
            require(math.isfinite(got), found, "Rounding makes some eigenvalues of 0 slightly negative, and their root "
                    "is NaN: .clamp(min=0) before the root.")  # fmt: skip
            require(abs(got - right) < 1e-5 * size, found, advice)


def _likely(results) -> str:
    """What is likely behind wrong distances of few images; results: (got, x, y)."""
    if all(round(got, 4) == got for got, _, _ in results):
        return ROUNDED
    for more in MORE:
        if all(abs(got - max(0, _with_more(x, y, *more))) < 1e-7 * x.var(0).sum() for got, x, y in results):
            return ON_THE_DIAGONAL
    return (
        "With few images many eigenvalues are 0. In float32 rounding makes them as large as 1e-7, with roots of 3e-4: "
        "compute in float64. (matrix_sqrt keeps its 30 steps: in more of them rounding errors grow.)"
    )


def require_not_negative(results) -> None:
    """results: (got, called) for clouds whose distance is 0 up to rounding."""
    for got, called in results:
        with called_as(called):
            require(float(got) >= 0, f"of two equal clouds the distance is {float(got):.2g}, expected 0, or a little "
                    "more by rounding.", "A squared distance is never negative. Rounding can make it so: "
                    ".clamp(min=0), or max(0.0, ...), at the end.")  # fmt: skip


# The kernel distance

ALL_PRODUCTS = (
    "The products of all pairs of images are x @ y.T: the rows are images, so the table is (count, number), and the d "
    "features are summed over."
)
PAIRS = "Every pair of two images counts. x @ y.T holds the products of all of them, (count, number)."
ROOT_OF_KID = "A root was taken at the end. KID is the squared discrepancy itself, and may be negative."
KERNEL_REASONS = [("mat1 and mat2 shapes", ALL_PRODUCTS), ("math domain error", ROOT_OF_KID)]


def kernel_mistakes(x, y):
    """The right distance, by the features whose products the cubic kernel is, and those of mistakes."""
    count, number, d = len(x), len(y), x.shape[1]
    a, b = (_cubes(cloud.double()) for cloud in (x, y))

    def of_pairs(cloud):
        return (cloud.sum(0).square().sum() - cloud.square().sum()) / (len(cloud) * (len(cloud) - 1))

    right = of_pairs(a) + of_pairs(b) - 2 * (a.mean(0) * b.mean(0)).sum()

    def cubic(one, other):
        return (one @ other.T / d + 1) ** 3

    def without(table):
        return (table.sum() - table.trace()) / (len(table) * (len(table) - 1))

    def kid(kernel=cubic, within=without, between=torch.mean, weight=2, change=lambda cloud: cloud):
        x64, y64 = change(x.double()), change(y.double())
        return within(kernel(x64, x64)) + within(kernel(y64, y64)) - weight * between(kernel(x64, y64))

    def emptied(table):
        return table.clone().fill_diagonal_(0)

    def gaussian(size):
        return lambda one, other: (-torch.cdist(one, other).square() / size).exp()

    def elsewhere(table):
        return (table.sum() - table.trace()) / (table.numel() - min(table.shape))

    def unit(cloud):
        return cloud / cloud.norm(dim=1, keepdim=True)

    def diagonal_of_all(one, other):
        return torch.cat([one, other]) @ torch.cat([one, other]).T / d + 1

    pooled = without(diagonal_of_all(x.double(), y.double()) ** 3)
    halves = [table.triu(1).sum() / (len(table) * (len(table) - 1)) for table in _tables(x, y, cubic)]
    first, second = (without(table) for table in _tables(x, y, cubic))
    middle = cubic(x.double(), y.double())
    weighted = (count * first + number * second) / (count + number)
    pairs = count * (count - 1) / (number * (number - 1))
    return right, in_float64([
        (kid(within=torch.mean), "The pairs of an image with itself were kept. Leave out the diagonal, and divide by "
                                 "n (n - 1)."),
        (kid(within=lambda t: (t.sum() - t.trace()) / t.numel()), "The diagonal was left out of the sum, but not out "
         "of the count: there are n (n - 1) pairs of different points, not n²."),
        (kid(within=lambda t: t.sum() / (len(t) * (len(t) - 1))), "The sum was divided by n (n - 1), but the diagonal "
                                                                  "is still in it."),
        (kid(within=lambda t: (t.sum() - t.trace()) / (len(t) - 1) ** 2), "The sum was divided by (n - 1)². There are "
                                                                          "n (n - 1) pairs of different points."),
        (kid(within=lambda t: emptied(t).sum() / (t.numel() - 1)), "The sum was divided by n² - 1. There are "
                                                                   "n (n - 1) pairs of different points."),
        (kid(within=lambda t: (t.sum() - len(t)) / (len(t) * (len(t) - 1))), "1 was subtracted for each point with "
         "itself. The kernel of a point with itself is not 1: subtract the trace."),
        (sum(halves) - 2 * middle.mean(), "Each pair was counted once, but the sum was divided by n (n - 1), which "
                                          "counts it twice: divide by n (n - 1) / 2."),
        (kid(within=torch.sum, between=torch.sum), "The tables were added up. Averages are wanted, without the "
                                                   "diagonals."),
        (kid(between=lambda t: t.diagonal().mean()), "Between both clouds every pair "
         "counts, not only j = i."),
        *[(kid(between=between), "Between both clouds nothing is left out: image j of one and image j of the other are "
           "different images.") for between in (without, elsewhere, lambda t: (t.sum() - t.trace()) / t.numel())],
        *[(first * a + second * b - 2 * middle.mean(), "Both sums were divided by the number of pairs of one cloud. "
           "Each has its own: count and number may differ.") for a, b in ((1, 1 / pairs), (pairs, 1))],
        (kid(within=lambda t: emptied(t)[:-1].sum() / (len(t) * (len(t) - 1))), "The last image was left out as the "
         "first of a pair: range(n), not range(n - 1), if j runs over all but i."),
        (kid(lambda a, b: (a @ b.T + 1) ** 3), "The product is not divided by d, the number of features."),
        *[(kid(lambda a, b, size=size: (a @ b.T / (size or len(a)) + 1) ** 3), "The product was divided by the number "
           "of images. d is the number of features, x.shape[1].") for size in (None, count, number)],
        (kid(lambda a, b: (a @ b.T / 176 + 1) ** 3), "d is the number of features of what was passed, "
         "features.shape[1]; the notebook's d is another."),
        (kid(lambda a, b: (a @ b.T / (d + 1)) ** 3), "The 1 was added to d. It is added to the quotient: "
                                                     "(a · b / d + 1)³."),
        (kid(lambda a, b: (a @ b.T / math.sqrt(d) + 1) ** 3), "The product was divided by the root of d. Divide by d."),
        (kid(lambda a, b: ((a @ b.T + 1) / d) ** 3), "The 1 was divided by d, too. Add it after the division."),
        (kid(lambda a, b: (a @ b.T / d) ** 3), "The 1 is missing under the cube: (a · b / d + 1)³. Added later, it "
                                               "cancels in the differences."),
        (kid(lambda a, b: (a @ b.T / d + 1) ** 2), "The kernel was squared. It is a cube: (a · b / d + 1)³."),
        (kid(lambda a, b: a @ b.T / d + 1), "The cube is missing: (a · b / d + 1)³."),
        *[(kid(gaussian(size)), "This is a Gaussian kernel of distances. KID takes (a · b / d + 1)³, of products.")
          for size in (2, 1, d, 2 * d)],
        (kid(lambda a, b: (torch.cdist(a, b).square() / d + 1) ** 3), "The kernel was made of distances. It is made of "
                                                                      "products, a · b: a @ b.T."),
        (kid(lambda a, b: cubic(unit(a), unit(b))), "The features were brought to length 1. The kernel takes them as "
                                                    "they are."),
        (kid(change=lambda cloud: cloud[: min(count, number)]), "Both clouds were cut to the same number of images. "
         "All of them count: the means do not need equal numbers."),
        (kid(change=lambda cloud: cloud - cloud.mean(0)), "The mean of each cloud was subtracted first, and with it "
         "how far the clouds are apart. Features enter as they are."),
        (kid(weight=1), "The factor 2 is missing: the mean between both clouds is subtracted twice."),
        (kid(weight=-2), "The sign is wrong: the mean between both clouds is subtracted."),
        (kid(weight=0), "The mean between both clouds is missing."),
        (-right, "The signs are swapped: the means within each cloud are added, twice that between both is "
                 "subtracted."),
        (first - 2 * middle.mean(), "The mean within `others` is missing."),
        (second - 2 * middle.mean(), "The mean within `features` is missing."),
        (2 * first - 2 * middle.mean(), "The mean within `features` was taken twice. One is that within `others`."),
        (2 * weighted - 2 * middle.mean(), "The means within both clouds were weighted with their counts. Each counts "
                                           "alike."),
        (first + second - 2 * pooled, "Between both clouds only pairs of one from each count, not all pairs of all "
                                      "points."),
        (right.clamp(min=0), "Values below 0 were set to 0. KID without bias may be negative, and its mean is right "
                             "only if it may."),
        (right.clamp(min=0).sqrt(), ROOT_OF_KID),
        (right.sqrt(), ROOT_OF_KID),
        (right.abs(), "The sign was removed. KID without bias may be negative, and its mean is right only if it may."),
        (1000 * right, "This is a thousand times KID, as tables print it. Return KID itself."),
    ])  # fmt: skip


def _tables(x, y, kernel):
    return [kernel(cloud.double(), cloud.double()) for cloud in (x, y)]


def _cubes(x):
    """Vectors whose products are the cubic kernel: (count, d) -> (count, (d + 1)^3)."""
    one = torch.cat([x / math.sqrt(x.shape[1]), torch.ones(len(x), 1).to(x)], 1)
    return torch.einsum("ni,nj,nk->nijk", one, one, one).flatten(1)


def require_kernel_in_float64(got, right, called) -> None:
    with called_as(called):
        off = abs(float(got) - right.item()) / abs(right.item())
        require(off < 1e-6, f"of large features the distance is {float(got):.7g}, expected {right.item():.7g}.",
                "Means of large numbers that nearly cancel are subtracted here, and float32 has seven digits. Compute "
                "in float64: features.double() and others.double(), before the products.")  # fmt: skip


# Coverage


def require_share(got, called) -> None:
    with called_as(called):
        require(not isinstance(got, bool | np.bool_), f"the coverage is {got}, expected a number.", "any() and all() "
                "of everything leave one truth value. The share of the real images for which it is true is a mean: "
                ".double().mean().")  # fmt: skip


TABLES = (
    "In torch.cdist(others, features) the real images are the rows, (number, count): the nearest drawn one of each is "
    "amin(1), and radius has one number for each row."
)
TOO_FEW = (
    "k is more than a row holds. The balls are drawn around the real images: their radii come from torch.cdist(others, "
    "others), and of `others` there are more than k. `features` may be fewer."
)
IN_PAIRS = "min(1), kthvalue and sort return pairs, of values and indices: take .values. amin(1) returns values alone."
COVERAGE_REASONS = [
    ("out of range", TOO_FEW),
    ("out of bounds", TOO_FEW),
    ("could not infer output dtype", "torch takes no mean of True and False: .double().mean()."),
    ("return_types", IN_PAIRS),
    ("tuple indices must be", IN_PAIRS),
    ("Boolean value of Tensor", f"Several truth values were taken for one, as if pairs are compared. {IN_PAIRS}"),
]


def coverage_mistakes(x, y, k):
    """The right coverage of y by x, by NumPy in float64, and those of mistakes."""
    x, y = x.double().numpy(), y.double().numpy()

    def apart(a, b, p=2):
        return (np.abs(a[:, None] - b[None]) ** p).sum(2) ** (1 / p)

    def order(cloud, p=2):
        return np.sort(apart(cloud, cloud, p), axis=1)  # the first of each row is the point itself

    between, own = apart(y, x), order(y)  # (number, count), (number, number)
    radius, least = own[:, k], between.min(1)
    zeros = np.sort(np.where(apart(y, y) == 0, np.inf, apart(y, y)), axis=1)
    to_drawn = np.sort(between, axis=1)
    kinds = order(x)[:, min(k, len(x) - 1)]
    inside = between <= radius[:, None]
    squared = own[:, k] ** 2
    others = torch.from_numpy(apart(y, y)).fill_diagonal_(torch.inf)
    real_one = between.argmin(0)  # the nearest of each drawn one
    own_ball = between.min(0) <= radius[real_one]

    def share(holds):
        return holds.mean()

    right = share(least <= radius)
    return right, in_float64([
        (share(least < radius), "At exactly the radius a drawn image is inside: <=."),
        (share(least <= own[:, k - 1]), "Each point was taken for its own nearest neighbour. Leave it out, by inf on "
                                        "the diagonal, or take the (k + 1)-th smallest distance."),
        (share(least <= own[:, min(k + 1, len(y) - 1)]), "The radius is that of the neighbour after the k-th."),
        (share(least <= own[:, 1]), "The radius is the distance to the nearest other. It is that to the k-th nearest."),
        (share(least <= own[:, -k]), "The radius is the k-th *largest* distance. It is the k-th smallest."),
        (share(least <= own[:, -1]), "The radius is the largest distance. It is the k-th smallest."),
        (share(least <= own[:, 1 : k + 1].mean(1)), "The radius is the mean distance of the k nearest. It is the "
                                                    "distance to the k-th alone."),
        (share(least <= radius.mean()), "One mean radius was used for all. Each real image has its own."),
        (share(least <= zeros[:, k - 1]), "All distances of 0 were left out. Two real images may be equal, and then "
                                          "each is a neighbour of the other: leave out the diagonal only."),
        (share(inside.any(0)), "This is precision: the share of drawn images that are inside. Coverage is the share of "
                               "real ones with a drawn one inside."),
        (share(apart(x, y).min(1) <= kinds), "The clouds are swapped: the radii are those of the real images, `others`,"
         " and the share is that of the real ones."),
        (share((apart(x, y) <= kinds[:, None]).any(0)), "This is recall: the radii belong to the drawn images here. "
                                                        "Coverage takes those of the real ones."),
        (inside.sum(0).mean() / k, "This is density. Coverage asks of each real image whether *some* drawn one is "
                                   "inside."),
        (inside.sum(1).mean(), "The drawn images inside were counted. Coverage asks of each real image whether there "
                               "is one at all."),
        (share(inside), "This is the share of all pairs. Ask of each real image first whether some drawn one is "
                        "inside: any(1), or the smallest distance."),
        (share(inside.all(1)), "All drawn images had to be inside, even the farthest. One is enough: the nearest."),
        (share(between.mean(1) <= radius), "The mean distance of the drawn images was compared. The nearest one "
                                           "counts."),
        (share(to_drawn[:, min(k, len(x)) - 1] <= radius), "The k-th nearest drawn image was compared. The nearest one "
                                                           "counts."),
        (share(least <= to_drawn[:, min(k, len(x)) - 1]), "The radius was measured among the drawn images. It is the "
         "distance to the k-th nearest *other real* one."),
        (share(least**2 <= radius), "A squared distance was compared with a radius."),
        (share(least <= squared), "A distance was compared with a squared radius."),
        (share(apart(y, x, 1).min(1) <= order(y, 1)[:, k]), "These are sums of absolute differences. Distances are "
                                                            "Euclidean: torch.cdist as it is, without p=1."),
        (share(least > radius), "This is the share that is *not* covered."),
        (float((least <= radius).sum()), "This is how many are covered. Divide by the number of real images."),
        ((least <= radius).sum() / len(x), "The number of covered ones was divided by the number of drawn images. "
                                           "Divide by that of the real ones."),
        (100 * right, "This is the share in percent. It is a number from 0 to 1."),
        (share(least <= own[:, min(5, len(y) - 1)]), "The radius is the distance to the fifth nearest, whatever k is. "
                                                     "Use k."),
        *[(holds.mean(), "Indices were compared, not distances: .values, not .indices.")
          for holds in (least <= others.kthvalue(k).indices.numpy(), between.argmin(1) <= radius,
                        between.argmin(1) <= others.kthvalue(k).indices.numpy())],
        (share(least <= radius[:, None]), "Each nearest distance was compared with all radii: one of the two has an "
         "axis too many. Both are (number,), without keepdim."),
        *[(value, "Each drawn image was looked at with its nearest real one alone. Ask of each *real* image how far "
           "its nearest drawn one is: torch.cdist(others, features).amin(1).")
          for value in (own_ball.mean(), len(set(real_one)) / len(y), len(set(real_one[own_ball])) / len(y))],
        (share(least >= radius), "This is the share with the nearest drawn one outside. Inside the distance is at most "
                                 "the radius: <=, not >=."),
        *_decided_by_rounding(x, y, k, torch.float32),
        *_decided_by_rounding(x, y, k, torch.float64),
    ])  # fmt: skip


def _decided_by_rounding(x, y, k, dtype):
    """Mistakes by which distances are equal up to rounding, made as learners make them."""
    x, y = (torch.from_numpy(cloud).to(dtype) for cloud in (x, y))
    together = torch.cdist(y, torch.cat([x, y])).kthvalue(k + 1, dim=1).values
    a, b = F.normalize(x, dim=1), F.normalize(y, dim=1)
    radius = (1 - b @ b.T).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values
    return [
        ((torch.cdist(y, x).amin(1) <= together).double().mean(), "The radius was measured among real and drawn images "
         "together. It is the distance to the k-th nearest other *real* one."),
        (((1 - b @ a.T).amin(1) <= radius).double().mean(), "Directions were compared, by cosines. Distances are "
                                                            "Euclidean: torch.cdist."),
    ]  # fmt: skip


# Wilson's interval


UNDER_ROOT = "What is under the root is negative: print p. It is the share hits / number, from 0 to 1."
WILSON_REASONS = [
    ("math domain error", UNDER_ROOT),
    ("ZeroDivisionError", "Something was divided by 0. `number` may be 1 and `hits` 0: divide by number itself, "
                          "neither by number - 1 nor by hits."),
]  # fmt: skip


def require_two_numbers(got, called):
    """Return both ends as tensors. Raises `Wrong` unless two plain numbers came back."""
    with called_as(called):
        require(got is not None, "got None, expected two numbers.", "A function without `return` gives None. Is the "
                "last line `return ...`?")  # fmt: skip
        pair = isinstance(got, tuple | list) and len(got) == 2
        found = f"{len(got)} results" if isinstance(got, tuple | list) else type(got).__name__
        require(pair, f"got {found}, expected two numbers.", "Return both ends, separated by a comma: return low, "
                "high.")  # fmt: skip
        for end, name in zip(got, ("low", "high"), strict=True):
            require_real(end, name, UNDER_ROOT, called)
            if not isinstance(end, (torch.Tensor, *NUMBERS)):
                raise Wrong(f"{name} is of type {type(end).__name__}, expected a float.", "Return two plain numbers.")
    return tuple(torch.as_tensor(end, dtype=torch.float64) for end in got)


def require_from_0_to_1(ends, called) -> None:
    low, high = (end.item() for end in ends)
    with called_as(called):
        require(low >= 0 and high <= 1, f"the ends are {low} and {high}, expected numbers from 0 to 1.", "Rounding "
                "leads slightly out of 0 to 1: max(0.0, low), min(1.0, high).")  # fmt: skip


def wilson_mistakes(hits, number, z):
    """The right ends, the solutions p of (share - p)² = z² p (1 - p) / number, and those of mistakes."""
    p, n = hits / number, number
    right = tuple(sorted(np.roots([1 + z * z / n, -2 * p - z * z / n, p * p]).real.tolist()))

    def ends(
        middle=p + z * z / (2 * n),
        spread=p * (1 - p) / n,
        more=z * z / (4 * n * n),
        below=1 + z * z / n,
        factor=z,
        half=None,
    ):
        half = factor * math.sqrt(spread + more) if half is None else half
        return (middle - half) / below, (middle + half) / below

    low, high = ends()
    both = (low, high), (max(0.0, low), min(1.0, high))
    plain = p - z * math.sqrt(p * (1 - p) / n), p + z * math.sqrt(p * (1 - p) / n)
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    below = 1 + z * z / n
    close_to = (hits + z * z / 2) / (n + z * z)
    wald = z * math.sqrt(close_to * (1 - close_to) / (n + z * z))
    pairs = [
        (plain, "This is the share plus and minus z standard errors. Where all or none are right, it has no length: "
                "Wilson's interval is another."),
        (tuple(min(1.0, max(0.0, end)) for end in plain), "This is the share plus and minus z standard errors, cut off "
         "at 0 and 1. Where all or none are right, it has no length: Wilson's interval is another."),
        (ends(below=1), "The division by 1 + z² / n is missing."),
        (ends(below=1 + z / n), "In the divisor z is not squared: 1 + z² / n."),
        (ends(below=1 + z * z), "In the divisor z² is not divided by n: 1 + z² / n."),
        (ends(below=1 - z * z / n), "The divisor is 1 + z² / n, with a plus."),
        ((middle - half / below, middle + half / below), "Only the half length was divided by 1 + z² / n. Divide the "
                                                         "middle as well."),
        ((middle / below - half, middle / below + half), "Only the middle was divided by 1 + z² / n. Divide the half "
                                                         "length as well."),
        ((middle - half / below, (middle + half) / below), "The lower end is divided in one part only: are there "
                                                           "brackets around middle - half?"),
        (ends(middle=p), "The middle is not pulled towards one half: p + z² / (2 n)."),
        (ends(middle=p + z / (2 * n)), "In the middle z is not squared: p + z² / (2 n)."),
        (ends(middle=p + z * z / n), "In the middle the 2 is missing: p + z² / (2 n)."),
        (ends(middle=p + z * z / 2), "In the middle z² / 2 is not divided by n: p + z² / (2 n)."),
        (ends(middle=p + z * z / 2 * n), "z² / 2 * n multiplies by n. Brackets: z² / (2 * n)."),
        (ends(middle=p - z * z / (2 * n)), "The middle is p + z² / (2 n), with a plus."),
        (ends(factor=1), "The factor z before the root is missing."),
        (ends(factor=z * z), "z stands squared before the root. There it is z itself."),
        (ends(more=0), "Under the root z² / (4 n²) is missing."),
        (ends(more=z * z / (4 * n)), "Under the root n is not squared: z² / (4 n²)."),
        (ends(more=z * z / (2 * n * n)), "Under the root stands a 2 instead of the 4: z² / (4 n²)."),
        (ends(more=z / (4 * n * n)), "Under the root z is not squared: z² / (4 n²)."),
        (ends(more=z * z / n / n), "Under the root the 4 is missing: z² / (4 n²)."),
        (ends(more=z * z / 4 * n * n), "z² / 4 * n² multiplies by n². Brackets: z² / (4 * n²)."),
        (ends(spread=p * (1 - p)), "Under the root p (1 - p) is not divided by n."),
        (ends(spread=p / n), "Under the root the factor 1 - p is missing: p (1 - p) / n."),
        (ends(spread=p * p / n), "Under the root stands p². It is p (1 - p) / n."),
        (ends(half=z * (p * (1 - p) / n + z * z / (4 * n * n))), "The root is missing."),
        (ends(half=z * (math.sqrt(p * (1 - p) / n) + z / (2 * n))), "Two roots were added. One root is taken of the "
                                                                    "sum."),
        (ends(half=z * (math.sqrt(p * (1 - p) / n) + z * z / (4 * n * n))), "The first term only is under the root: "
         "z² / (4 n²) stands under it as well."),
        ((close_to - wald, close_to + wald), "This is the interval of Agresti and Coull: the middle is Wilson's, but "
                                             "not the length."),
        ((high, low), "The order is (low, high): both ends are swapped."),
        ((middle / below, half / below), "Middle and half length came back. The ends are their difference and sum."),
        ((half / below, middle / below), "Half length and middle came back. The ends are their difference and sum."),
        ((p - half / below, p + half / below), "The interval was laid around the share. Its middle is pulled towards "
                                               "one half."),
        *[((100 * a, 100 * b), "These are percentages. The ends are numbers from 0 to 1.") for a, b in both],
        *[((n * a, n * b), "These are numbers of hits. The ends are probabilities: divide by `number`.")
          for a, b in both],
        (plain if hits in (0, n) else (low, high), "Where all or none are hits, no case of its own is needed: the "
                                                   "formula gives an interval with a length there."),
        ((0.0, 1.0), "From 0 to 1 whatever was counted: `min` and `max` are swapped. max(0.0, low), min(1.0, high)."),
        *[((round(low, digits), round(high, digits)), ROUNDED) for digits in (1, 2, 3)],
        (_clopper_pearson(hits, n, z), "This is the interval of Clopper and Pearson, which scipy takes if no method is "
                                       "named. Wilson's is another."),
    ]  # fmt: skip
    others = [
        (_wilson(hits, number, 1.96), "1.96 was taken whatever z is. Use z."),
        (
            _wilson(float(hits // number), number, z, share=True),
            "hits // number is 0 or 1. The share is hits / number.",
        ),
        (_wilson(number - hits, number, z), "The interval is that of the misses. `hits` are what is counted."),
    ]
    mistakes = [*pairs, *others]
    cut = [((max(0.0, low), min(1.0, high)), advice) for (low, high), advice in mistakes]
    return _tensors(right), [(_tensors(ends), advice) for ends, advice in mistakes + cut]


def _clopper_pearson(hits, number, z):
    from scipy.special import betaincinv

    tail = math.erfc(z / math.sqrt(2)) / 2
    low = betaincinv(hits, number - hits + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, number - hits, 1 - tail) if hits < number else 1.0
    return float(low), float(high)


def _wilson(hits, number, z, share=False):
    p = hits if share else hits / number
    middle = (p + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * math.sqrt(p * (1 - p) / number + z * z / (4 * number * number))
    return middle - half, middle + half


def _tensors(ends):
    return tuple(torch.tensor(float(end), dtype=torch.float64) for end in ends)


def require_float64(results, what) -> None:
    """results: (got, called) for each call, whose values are right: they are float64 as well."""
    for got, called in results:
        with called_as(called):
            require(got.dtype == torch.float64, f"{what} have the dtype {got.dtype}, expected torch.float64.", "Take "
                    ".double() of the inputs at the start, and make new tensors with dtype=torch.float64.")  # fmt: skip


# Strengths from votes


def played(case, games):
    """wins, float64, of players with these numbers of games (i, j, number); ties are halves. Each wins against each."""
    players = 1 + max(j for _, j, _ in games)
    wins = torch.zeros(players, players, dtype=torch.float64)
    for i, j, number in games:
        won = int(case.whole(2, 2 * number - 2)) / 2
        wins[i, j], wins[j, i] = won, number - won
    return wins


def likeliest(wins):
    """The strengths that make the games most probable, by Newton's method, float64 (players,)."""
    wins = wins.double().numpy()
    games, log = wins + wins.T, np.zeros(len(wins))
    for _ in range(50):
        p = 1 / (1 + np.exp(log[None] - log[:, None]))
        slope = wins.sum(1) - (games * p).sum(1)
        weight = games * p * (1 - p)
        log = log + np.linalg.pinv(np.diag(weight.sum(1)) - weight) @ slope
        log -= log.mean()
    return torch.from_numpy(np.exp(log))


def stopped_early(wins, steps, got):
    """The strengths after 1, ..., `steps` steps, from which those are taken that come nearest to what came back."""
    games, s, all_of_them = (wins + wins.T).numpy(), np.ones(len(wins)), []
    for _ in range(steps):
        s = wins.sum(1).numpy() / (games / (s[:, None] + s)).sum(1)
        s = s / np.exp(np.log(s).mean())
        all_of_them.append(torch.from_numpy(s))
    if not isinstance(got, torch.Tensor) or got.shape != (len(wins),):
        return all_of_them[-1]
    return min(all_of_them, key=lambda s: (s - got).abs().max().item())


EARLY = "It stopped before `steps` steps. Make them all."


def strength_mistakes(wins, steps, got):
    """The right strengths, computed player by player, and those of mistakes; got: what came back."""
    w = wins.double().numpy()
    games, players, won = w + w.T, len(w), w.sum(1)

    def scaled(s):
        return s / np.exp(np.log(s).mean())

    def stepped(s):
        new = []
        for i in range(players):
            below = sum((w[i, j] + w[j, i]) / (s[i] + s[j]) for j in range(players) if j != i)
            new.append(sum(w[i]) / below)
        return scaled(np.array(new))

    def one_by_one(s):
        s = s.copy()
        for i in range(players):
            s[i] = won[i] / (games[i] / (s[i] + s)).sum()
        return scaled(s)

    def run(step=stepped, count=steps):
        s = np.ones(players)
        with np.errstate(all="ignore"):
            for _ in range(count):
                s = step(s)
        return s

    def both(s):
        return s[:, None] + s

    def below(s, games=games):
        return (games / both(s)).sum(1)

    def of(below, won=won, scale=scaled):
        return run(lambda s: scale(won / below(s)))

    right, unscaled, others = run(), of(below, scale=lambda s: s), 1 - np.eye(players)
    factor = got[0].item() / right[0] if isinstance(got, torch.Tensor) and got.shape == (players,) else -1.0
    geometric = "The geometric mean is wanted: divide by strength.log().mean().exp()."
    unmet = "How often they met is missing in the denominator: each opponent counts with its games, wins_ij + wins_ji."
    apart = "All games were added up, and all strengths, and then divided. Divide for each opponent first, then add."
    mistakes = [
        (run(one_by_one), "The strengths were updated one after the other. All of a step are computed from those of "
                          "the step before."),
        (run(count=1), "This is the result of one step, as are the shares of games won. Is the `return` inside the "
                       "loop, does each step begin with strengths of 1, or is there no loop?"),
        (run(count=steps - 1), "There was a step too few: range(steps) makes `steps` of them."),
        (run(count=steps + 1), "There was a step too many: range(steps) makes `steps` of them. To begin with the "
                               "shares of games won is one more, too: begin with ones."),
        (run(count=400), "`steps` has no effect: so many steps are made, and no more."),
        (stopped_early(wins, steps, got).numpy(), EARLY),
        (of(below, w.sum(0)), "Losses stand in the numerator. wins[i, j] is how often i won: wins.sum(1)."),
        (of(lambda s: below(s, w.T)), "In the denominator stand the games that i lost. All games of i with j count: "
                                      "wins_ij + wins_ji."),
        (of(lambda s: below(s, np.triu(games))), "Only half of the table counts: the last player has no games left, "
                                                 "and is divided by 0. Each pair stands there twice: wins + wins.T."),
        (of(lambda s: below(s, w * w.T)), "The games of a pair are a sum: wins + wins.T."),
        (of(lambda s: below(s, games + others), won + others.sum(1) / 2), "Something was added to wins. Use them as "
                                                                          "they are."),
        (of(lambda s: below(s, np.floor(w) + np.floor(w).T), np.floor(w).sum(1)), "Ties are halves: do not make whole "
                                                                                  "numbers of the wins."),
        (of(lambda s: below(s, others)), unmet),
        (of(lambda s: below(s, 1.0)), unmet),
        (of(lambda s: below(s, games > 0)), unmet),
        (of(lambda s: (games / s).sum(1)), "In the denominator stands the opponent's strength alone, or twice. "
                                           "strength[:, None] + strength has strength_i + strength_j."),
        (of(lambda s: games.sum(1) / s), "In the denominator stands the player's own strength alone. "
                                         "strength[:, None] + strength has strength_i + strength_j."),
        (of(lambda s: (games / s[:, None] + s).sum(1)), "Parentheses are missing around strength_i + strength_j."),
        (of(lambda s: (games * s[:, None] / both(s)).sum(1)), "These are the wins divided by those expected, a factor "
         "for the old strength: strength * wins / expected."),
        (of(lambda s: (games * both(s)).sum(1)), "The games were multiplied by the sum of the strengths. They are "
                                                 "divided by it."),
        (of(lambda s: (games / (s[:, None] * s)).sum(1)), "The strengths were multiplied. Their sum is wanted, "
                                                          "strength_i + strength_j."),
        (of(lambda s: games.sum(1) / both(s).sum(1)), apart),
        (of(lambda s: games.sum(1) / (both(s) * others).sum(1)), apart),
        (run(lambda s: scaled(below(s) / won)), "The fraction is upside down: the wins stand above."),
        (run(lambda s: scaled(s * won / below(s))), "The new strength was multiplied by the old one. It takes its "
                                                    "place."),
        (run(lambda s: scaled(s + won / below(s))), "The new strength was added to the old one, or averaged with it. "
                                                    "It takes its place."),
        (won / games.sum(1), "This is the share of games won. It does not see against whom: strengths need the steps."),
        (won / w.sum(0), "These are wins divided by losses. They do not see against whom: strengths need the steps."),
        (np.log(right), "These are the logarithms of the strengths: return the strengths themselves."),
        (1000 + 400 * np.log10(right), "These are Elo ratings. Return the strengths themselves."),
        (np.ones(players), "The strengths are all 1, as at the start. Does the loop give them new values? And do all "
                            "games of i with j stand in the denominator, wins_ij + wins_ji?"),
        (unscaled, "The strengths are not scaled. " + geometric),
        (unscaled - np.log(unscaled).mean(), "The mean of the logarithms was subtracted from the strengths. "
         + geometric),
        (right / right.mean(), "The arithmetic mean was made 1. " + geometric),
        (right / right.sum(), "The sum was made 1. " + geometric),
        (right * (factor if 0 < factor < np.inf else -1.0), "The ratios are right, but not the scale. " + geometric),
    ]  # fmt: skip
    return torch.from_numpy(right), [(torch.from_numpy(value), advice) for value, advice in mistakes]


# The ratio to the second neighbour


RATIO_REASONS = [
    *((words, "The neighbours of each row of features are looked for in training: torch.cdist(features, training), and "
              "dim=1.") for words in ("dimension 0 with size 1", "selected index k out of range")),
    ("Boolean value of Tensor", "`if` decides once for all. torch.where decides for each."),
    ("must match the size of tensor", "training[two] is (count, 2, d): beside it features need an axis, features[:, "
                                      "None]."),
]  # fmt: skip


def crowd(case, count, number, d, away=0.0, spread=1.0):
    """Points and training points (float32), `away` from the origin, with copies and near copies where there is room."""
    features, training = spread * case.normal(count, d) + away, spread * case.normal(number, d) + away
    if number > 3 and count > 3:
        training[3] = training[2]
        features[0], features[1] = training[1], training[3]  # a copy, and one whose original is there twice
        features[2:4] = training[[0, 3]] + 0.05 * spread * case.normal(2, d)  # near a single one, and near that one
    return features, training


def ratio_mistakes(features, training, got):
    """The right ratios, by scipy's tree of neighbours, and those of mistakes; got: what came back."""
    from scipy.spatial import KDTree

    x, y = features.double(), training.double()
    distance, _ = KDTree(y.numpy()).query(x.numpy(), k=2)
    near, after = torch.from_numpy(distance).unbind(1)
    right = torch.where(near > 0, near / after, 0.0)
    difference = x[:, None] - y

    def ratio(near, after):
        return torch.where(near > 0, near / after, 0.0)

    def apart_from_the_nearest(value):
        """Where both are near it depends on rounding what comes back."""
        known = isinstance(got, torch.Tensor) and got.shape == value.shape
        return torch.where(after < 1e-4, got.double(), value) if known else value

    def of(distances, dim=1, first=0, second=1):
        ordered = distances.sort(dim).values
        second = min(second, ordered.shape[dim] - 1)
        return ratio(ordered.select(dim, min(first, second)), ordered.select(dim, second))

    all_distances = difference.norm(dim=2)
    of_floats = torch.cdist(features.float(), training.float())
    same = torch.where(near > 0, right, torch.where(after > 0, 0.0, torch.nan))
    last = all_distances.max(1).values
    one, other = torch.cdist(x, y).topk(2, dim=1, largest=False).values.unbind(1)
    first, then = y[torch.cdist(x, y).topk(2, dim=1, largest=False).indices].unbind(1)
    chosen = of((x[:, None] - y[of_floats.topk(2, dim=1, largest=False).indices]).norm(dim=2))
    beyond = all_distances.masked_fill(all_distances == all_distances.amin(1, keepdim=True), torch.inf).amin(1)
    unit = F.normalize(x, dim=1)[:, None] - F.normalize(y, dim=1)
    cosines = 1 - F.cosine_similarity(x[:, None], y, dim=2)
    columns = all_distances.T.sort(1).values
    swapped = torch.where(columns[:, 0] > 0, columns[:, 0] / columns[:, min(1, len(x) - 1)], 0.0)
    mistakes = [
        *((value, "Where an original is in the training set twice both distances are 0, and 0 / 0 is NaN. There the "
                  "ratio is 0.") for value in (same, one / other)),
        (same.nan_to_num(1.0), "Where both distances are 0 the ratio came out as 1. It is a copy: there the ratio is "
                               "0."),
        (after / near, "The fraction is upside down: the nearest is divided by the second nearest."),
        (torch.where(near > 0, after / near, 0.0), "The fraction is upside down: the nearest is divided by the second "
                                                   "nearest."),
        (near, "This is the distance to the nearest point. Divide it by that to the second nearest."),
        (after, "This is the distance to the second nearest point. The nearest is divided by it."),
        (after - near, "The two distances were subtracted. The ratio divides them."),
        (1 - right, "This is 1 minus the ratio: for a copy it is 0."),
        (right.square(), "The squared distances were divided. A root is missing: .norm()."),
        (right.sqrt(), "A root too many: the ratio divides the distances themselves."),
        (of(difference.abs().sum(2)), "The absolute differences were added up. The distance is the root of the sum "
                                      "of squares: .norm()."),
        (of(difference.abs().amax(2)), "The largest difference of a coordinate was taken. The distance is the root of "
                                       "the sum of squares: .norm()."),
        (apart_from_the_nearest(of(cosines)), "The angles were compared. The distance is the length of the "
                                              "difference."),
        (apart_from_the_nearest(of(all_distances, first=1, second=2)), "The nearest training point was left out. It is "
         "no point itself here: divide the first by the second."),
        (of(all_distances, second=2), "The nearest was divided by the third nearest. Python counts from 0: the second "
                                      "is number 1."),
        (near / last, "The nearest was divided by the farthest. The second *nearest* is wanted."),
        (near / all_distances.mean(1), "The nearest was divided by the mean distance to all training points. The "
                                       "second nearest is wanted."),
        (torch.where(near > 0, 2 * near / (near + after), 0.0), "The nearest was divided by the "
         "mean of the two. The second is wanted alone."),
        (near / after.min(), "All were divided by one distance. Each point has a second neighbour of its own: dim=1."),
        (torch.where(all_distances[:, 0] > 0, all_distances[:, 0] / all_distances[:, 1], 0.0), "The first two training "
         "points were taken, whichever they are. Sort the distances: the nearest two."),
        (_last_two(all_distances), "The two *farthest* training points were taken: topk takes the largest unless told "
                                   "largest=False."),
        (swapped, "For each training point the nearest drawn points were found. Each row of features looks for its "
                  "neighbours in training."),
        (of(of_floats), "The distances were computed in float32 from products, whose rounding hides small "
                        "ones. Take .double() first, and (a - b).norm() of the two that count."),
        *((near / divisor, "Something was added to the divisor, or it was clamped, which changes small ratios. Treat "
                           "the 0 by itself, with torch.where.")
          for power in range(5, 11) for divisor in (after + 10.0**-power, after.clamp(min=10.0**-power))),
        (F.pairwise_distance(x, first) / F.pairwise_distance(x, then), "F.pairwise_distance adds 1e-6 to each "
         "difference. (a - b).norm() is exact."),
        (ratio((x - first).norm(dim=1), (x - then).norm(dim=1)), "The nearest came out farther than the second: sort "
                                                                 "the two exact distances once more."),
        (chosen, "The neighbours were chosen in float32, whose rounding confuses "
                                                   "them. Choose them in float64, too: .double() before torch.cdist."),
        (ratio(near, beyond), "What is in the training set twice was counted once. Then it is the nearest and the "
                              "second nearest, and the ratio is 1."),
        (of(all_distances.masked_fill(all_distances == 0, torch.inf)), "Distances of 0 were left out. They are copies: "
                                                                       "there the ratio is 0."),
        (of(torch.stack([x - first, x - then], 1).norm(dim=1)), "The norm went over the two neighbours. It goes over "
                                                                "the features: norm(dim=2)."),
        ((near > 0).double(), "The nearest was divided by itself. kthvalue counts from 1, topk and sort from 0."),
        (ratio(near, near + after), "The nearest was divided by the sum of the two. The second is wanted alone."),
        (of(unit.norm(dim=2)), "The rows were brought to length 1. The distances are those of the features as they "
                               "are."),
        *((apart_from_the_nearest(value), "Digits got lost: rounding to float32, and the products in torch.cdist, hide "
           "how near the nearest two are. Compute in float64, and these two distances as (a - b).norm().")
          for value in (right, chosen)),
    ]  # fmt: skip
    return right, [(value.double(), advice) for value, advice in mistakes]


def _last_two(distances):
    """Of the two largest in each row, the smaller divided by the larger."""
    largest, other = distances.topk(2, dim=1).values.unbind(1)
    return torch.where(other > 0, other / largest, 0.0)


def require_copies_found(results) -> None:
    """results: (got, right, called). Raise `Wrong` unless a ratio of 0 is 0 exactly."""
    for got, right, called in results:
        most = got[right == 0].abs().max().item() if bool((right == 0).any()) else 0.0
        with called_as(called):
            require(most == 0, f"the ratio of a copy is {most:.2g}, expected exactly 0.", "torch.cdist rounds: compute "
                    "the two distances that count again, as (a - b).norm(), in float64.")  # fmt: skip


# The ring in the noise


def transform(size):
    """The matrix of a Fourier transform of `size` numbers that is seen from their middle, complex128."""
    waves, places = np.fft.fftfreq(size) * size, np.arange(size) - (size - 1) / 2
    return torch.from_numpy(np.exp(-2j * np.pi * np.outer(waves, places) / size) / np.sqrt(size))


def seen(x):
    """The spectrum of x (..., size, size) by matrices, complex128."""
    matrix = transform(x.shape[-1])
    return matrix @ x.to(torch.complex128) @ matrix.T


def unseen(spectrum):
    """The way back from `seen`, complex128."""
    matrix = transform(spectrum.shape[-1])
    return matrix.mH @ spectrum @ matrix.conj()


def moved(size):
    """What `from_the_middle` gives, complex128."""
    waves = torch.fft.fftfreq(size, dtype=torch.float64) * size
    phase = torch.exp(1j * torch.pi * (size - 1) / size * waves)
    return phase[:, None] * phase


WRITE_REASONS = [
    ("source and destination dtypes match", "The spectrum is complex: key[key != 0].to(torch.complex64)."),
    ("cannot be broadcast to indexing result", "The value needs the mask as well: key[key != 0]."),
    ("condition to be a boolean", "The condition is a comparison: key != 0."),
    ("conjugate bit set", "torch only notes a conjugate: .conj().resolve_conj().numpy(), or torch.fft throughout."),
    ("(8) at non-singleton dimension 3", "from_the_middle takes the length of a side of the noise, 16. The 8 is "
                                         "the number of channels."),
]  # fmt: skip


def written_mistakes(noise, key):
    """The right noise with the key, by matrices in float64, and what mistakes give."""
    x, K, on, move = noise.double(), key.to(torch.complex128), key != 0, moved(noise.shape[-1])
    spectrum, plain = seen(x), torch.fft.fft2(x, norm="ortho")

    def where(values, rest=spectrum, on=on):
        return torch.where(on, values.expand_as(rest), rest)

    def back(written):
        return torch.fft.ifft2(written, norm="ortho").real

    right, nothing = unseen(where(K)).real, torch.zeros_like(K)
    shifted = torch.fft.fftshift(key, dim=(-2, -1))
    first = unseen(where(K[:1], on=on[:1])).real
    moved_noise = "The move multiplies the spectrum: before ifft2, not after it (after fft2, not before it)."
    all_axes = "torch.fft.fftn and ifftn transform noises and channels as well. fft2 and ifft2 take the last two axes."
    scaled = "The noise was scaled at the end. It has the right variance already."
    mistakes = [
        (torch.where(on, key, x), "The key was written into the noise itself. It belongs in its spectrum."),
        ((torch.fft.ifft2(where(K), norm="ortho") * move.conj()).real, moved_noise),
        ((torch.fft.ifft2(where(K, torch.fft.fft2(x * move, norm="ortho")), norm="ortho") * move.conj()).real,
         moved_noise),
        (torch.fft.ifft(where(K) * move.conj(), norm="ortho").real, "torch.fft.ifft goes back along one axis. ifft2 "
                                                                    "takes both."),
        (torch.fft.ifftn(where(K) * move.conj(), norm="ortho").real, all_axes),
        (torch.fft.ifftn(where(K, torch.fft.fftn(x, norm="ortho") * move) * move.conj(), norm="ortho").real, all_axes),
        (unseen(where(seen(key))).real, "The key was transformed. It is a spectrum already."),
        (back(where(K * move, plain)), "Beside torch.fft.fft2 alone the key needs the conjugate move: it was moved the "
                                       "other way."),
        (unseen(where(K * noise.shape[-1])).real, "The key was multiplied by the size. With norm=\"ortho\" it is "
                                                  "written as it is."),
        (unseen(where(K, spectrum.mean(0, keepdim=True))).real.expand_as(x), "The mean of all noises was taken. Each "
         "keeps its own spectrum off the rings."),
        (right / right.std((1, 2, 3), keepdim=True), scaled),
        (back(where(K)), "The move to the middle was not undone: before the way back, multiply by "
                         "from_the_middle(16).conj()."),
        (back(where(K) * move), "The spectrum was moved twice. The way back takes the conjugate, "
                                "from_the_middle(16).conj()."),
        (back(where(K, plain)), "The spectrum was seen from the first pixel, and so is the ring. spectrum(x) sees it "
                                "from the middle; the way back takes from_the_middle(16).conj()."),
        (back(where(K, plain) * move.conj()), "torch.fft.fft2 alone sees the spectrum from the first pixel, and the "
                                              "way back undoes a move that was not made: use spectrum(x)."),
        (right / noise.shape[-1], "The way back made it too weak. torch.fft.ifft2 needs norm=\"ortho\" as well."),
        (right * noise.shape[-1], "The way back made it too strong. torch.fft.ifft2 needs norm=\"ortho\"."),
        (unseen(where(K / noise.shape[-1])).real, "The noise was transformed without norm=\"ortho\", so that the key "
                                                  "is far too weak beside it."),
        (unseen(where(spectrum + K)).real, "The key was added to the spectrum. It takes its place."),
        (unseen(where(spectrum * K)).real, "The spectrum was multiplied by the key. The key takes its place."),
        (unseen(spectrum * K).real, "Everything was multiplied by the key, which is 0 off the rings: there the noise "
                                    "stays as it was."),
        (unseen(where(spectrum.abs() * K)).real, "The spectrum kept its lengths and got the signs of the key. The key "
                                                 "itself takes its place."),
        (unseen(where(K / 2 + spectrum / 2)).real, "The mean of key and spectrum was taken. The key takes its place."),
        (unseen(where(K + 1j * spectrum.imag)).real, "The imaginary part stayed on the rings. The key is real: its "
                                                     "imaginary part is 0."),
        (unseen(where(K, spectrum.real.to(K))).real, "The imaginary part of the noise's spectrum got lost. It belongs "
         "to the noise: the key becomes complex, not the spectrum real."),
        (unseen(K.expand_as(spectrum)).real, "Only the key came back: off the rings the noise is missing."),
        (unseen(where(spectrum, K.expand_as(spectrum))).real, "The condition is the wrong way round: the key stands "
                                                              "where key != 0."),
        (unseen(where(K, on=key > 0)).real, "Only the +1 were written. The key is -1 as well: key != 0."),
        (unseen(where(nothing)).real, "The rings were emptied. The key belongs there."),
        (unseen(where(-K)).real, "The key was written with the other sign."),
        (first, "The first channel's ring was written into all. Each channel has its own."),
        (unseen(torch.cat([where(K)[:, :1], spectrum[:, 1:]], 1)).real, "Only the first channel got its ring."),
        (torch.cat([right[:1], x[1:]]), "Only the first noise got the key. Each of them gets it."),
        (right[:1].expand_as(x), "All noises became the first. Each keeps its own spectrum off the rings."),
        (unseen(where(shifted.to(K), on=shifted != 0)).real, "The key was shifted. It has the order of the spectrum "
                                                             "already: no fftshift."),
        (torch.fft.fftshift(right, dim=(-2, -1)), "The noise was shifted at the end. Nothing needs a shift here."),
        (torch.fft.fft2(where(K) * move.conj(), norm="ortho").real, "The last transform goes forward again. The way "
                                                                    "back is torch.fft.ifft2."),
        (seen(where(K)).real, "The last transform goes forward again. The way back is torch.fft.ifft2."),
        (right.abs(), "This is .abs(), which makes negative numbers positive. Take .real."),
        (right / right.std(), scaled),
        (x, "The noise came back as it was."),
    ]  # fmt: skip
    return right.float(), [(value.float(), advice) for value, advice in mistakes]


def require_real_noise(got, noise, key, called) -> None:
    """Raise `Wrong` if complex numbers came back, or imaginary parts."""
    if not isinstance(got, torch.Tensor):
        return
    with called_as(called):
        if got.is_complex():
            spectrum = got.shape == noise.shape and got.imag.abs().max().item() > 1e-3
            require(False, f"the noise has the dtype {got.dtype}, expected real numbers, {noise.dtype}.", "This is "
                    "still a spectrum, or the way back from one that is no real noise's. The last steps are the "
                    "conjugate move, torch.fft.ifft2, and .real." if spectrum else "The imaginary part is rounding "
                    "only: end with .real.")  # fmt: skip
        require(got.numel() == 0 or got.abs().max().item() > 1e-3, "all numbers are nearly 0, expected standard normal "
                "ones.", "These are imaginary parts, which are rounding only. Take .real.")  # fmt: skip


def marked(noise, key):
    """The noise with the key on its rings, float32."""
    return unseen(torch.where(key != 0, key.to(torch.complex128), seen(noise))).real.float()


DISTANCE_REASONS = [
    ("The shape of the mask", "The first axis counts noises: [:, key != 0]."),
    ("must match the size of tensor", "spectrum(noise)[:, key != 0] is (n, places). Beside it rms needs (n, 1), "
                                      "keepdim=True, and the key (places,), key[key != 0]."),
]  # fmt: skip


def distance_mistakes(noise, key):
    """The right distances, from cosines of real noises, and what mistakes give."""
    on, K = key != 0, key[key != 0].double()
    spectrum = seen(noise)
    ring, pattern = unseen(torch.where(on, spectrum, 0)).real.flatten(1), unseen(key.to(torch.complex128)).real
    cosine = F.cosine_similarity(ring, pattern.flatten()[None], dim=1, eps=1e-30)
    right = (2 - 2 * cosine).clamp(0, 4)
    found, plain = spectrum[:, on], torch.fft.fft2(noise.double(), norm="ortho")[:, on]
    square = found.abs().square()
    places = len(K)

    def length(found):
        return found.abs().square().mean(1, keepdim=True).sqrt()

    def off(found=found, s=None, K=K):
        return (found / (length(found) if s is None else s) - K).abs().square()

    s = length(found)
    everywhere = spectrum.flatten(1)
    of_all = everywhere.abs().square().mean(1, keepdim=True).sqrt()
    by_channel = torch.where(on, spectrum.abs().square(), 0).sum((2, 3)) / on.sum((1, 2)).clamp(min=1)
    channel = on.nonzero()[:, 0]
    real = found.real
    spread = (found - found.mean(1, keepdim=True)).abs().square().sum(1, keepdim=True)
    deviation = noise.double().flatten(1).std(1, keepdim=True)
    whole = "rms was taken from the whole spectrum, or from the noise. It is the root mean square on the rings."
    plus = "Only the places with +1 were compared. The key is -1 as well: key != 0."
    mistakes = [
        (off(s=1.0).mean(1), "The spectrum was not divided by rms, so that a weaker noise is farther off."),
        (off(s=s.square()).mean(1), "The spectrum was divided by rms². The root is missing."),
        (off(s=s.sqrt()).mean(1), "A root too many in rms: it is the root of the mean square."),
        (off(s=1 / s).mean(1), "The spectrum was multiplied by rms. It is divided by it."),
        ((found - s * K).abs().square().mean(1), "The key was multiplied by rms, so that a weaker noise comes nearer. "
                                                 "Divide the spectrum by it."),
        (off(s=square.mean().sqrt()).mean(1), "One rms was taken for all noises. Each has its own: mean(1, "
                                              "keepdim=True)."),
        (off(s=square.mean(0).sqrt()).mean(1), "rms was taken over the noises. It goes over the places, axis 1."),
        (off(s=of_all).mean(1), whole),
        (off(s=deviation).mean(1), whole),
        (off(s=found.square().mean(1, keepdim=True).sqrt()).mean(1), "The mean square of complex numbers is that of "
                                                                     "their lengths: .abs().square()."),
        (off(s=length(real)).mean(1), "rms was taken from the real parts alone. The length has both: .abs().square()."),
        (off(s=found.abs().mean(1, keepdim=True)).mean(1), "rms is here the mean length. It is the root of the mean "
                                                           "*square*."),
        (off(s=square.sum(1, keepdim=True).sqrt()).mean(1), "rms is here the root of the *sum* of squares, so that the "
                                                            "spectrum is far shorter than the key. Take their mean."),
        (off(s=found.abs().amax(1, keepdim=True)).mean(1), "rms is here the largest number. It is the root of the mean "
                                                           "square."),
        (off(s=by_channel[:, channel].sqrt()).mean(1), "Each channel got an rms of its own. One belongs to each "
                                                       "noise: over the places of all channels."),
        (off(s=(spread / (places - 1)).sqrt()).mean(1), "rms is here a standard deviation. No mean is subtracted: the "
                                                        "root of the mean square."),
        (off(s=(spread / places).sqrt()).mean(1), "rms is here a standard deviation. No mean is subtracted: the root "
                                                  "of the mean square."),
        (off(s=(square.sum(1, keepdim=True) / 704).sqrt()).sum(1) / 704, "704 is the number of places of the usual "
         "key. Take the mean, whichever the rings are."),
        (off().sum(1), "The squares were added up. Take their mean."),
        (off().sqrt().mean(1), "The distances were not squared. (The paper does not square them; here they are.)"),
        (off().mean(1).sqrt(), "A root was taken at the end. The distance is the mean square itself."),
        (off().sum(1).sqrt(), "A length was taken. The distance is the mean square."),
        (right * places / key.numel(), "The mean goes over all places, also those off the rings. Divide by the number "
                                       "of places where key != 0."),
        ((everywhere / s - key.flatten()).abs().square().mean(1), "The places off the rings were compared with 0. "
                                                                  "Only those count where key != 0."),
        ((everywhere / of_all - key.flatten()).abs().square().mean(1), "All places were compared and scaled, also "
         "those off the rings. Only those count where key != 0."),
        (off(torch.fft.fftshift(spectrum, (2, 3))[:, on]).mean(1), "The spectrum was shifted. It has the order of the "
                                                                   "key already: no fftshift."),
        (off(K=seen(key)[on]).mean(1), "The key was transformed. It is a spectrum already."),
        (off(found[:, channel == 0], K=K[channel == 0]).mean(1), "Only the first channel was compared. The rings of "
                                                                 "all channels count."),
        (off(plain).mean(1), "The spectrum was seen from the first pixel, by torch.fft.fft2 alone. spectrum(x) sees it "
                             "from the middle."),
        (off()[:, K > 0].mean(1), plus),
        (off(found[:, K > 0], K=1).mean(1), plus),
        ((real / s - K).square().mean(1), "Only the real parts were compared. The imaginary ones are a distance, too: "
                                          ".abs().square() of the complex difference."),
        (off(real).mean(1), "The imaginary parts were dropped "
         "before scaling. They belong to the length and to the distance."),
        ((found.abs() / s - K).square().mean(1), "The length of the spectrum was compared with the key. The difference "
                                                 "is complex: subtract first, then .abs()."),
        ((found / s + K).abs().square().mean(1), "The key was added. The distance is that of the difference."),
        (((found / s - K) ** 2).mean(1).real, "The square of a complex number is not that of its length: "
                                              ".abs().square()."),
        (off().mean(1) / 2, "This is half of the distance, 1 - cos, or a mean over real and imaginary parts. "
                            ".abs().square() adds the two, and no factor belongs there."),
        (cosine, "This is the cosine. The distance is 2 - 2 cos."),
        (2 - cosine, "This is 2 - cos. The factor 2 before the cosine is missing: 2 - 2 cos."),
        (2 - 2 * cosine.abs(), "The absolute value of the cosine was taken. Where the key is the other way round it is "
                               "negative, and the distance 4."),
        (off().mean(0), "The mean went over the noises. It goes over the places, axis 1."),
        (off(), "The squares are not averaged yet: .mean(1) leaves one number for each noise."),
    ]  # fmt: skip
    return right.float(), [(value.float(), advice) for value, advice in mistakes]


def require_one_for_each(got, right, advice, called) -> None:
    """Raise `Wrong` if a single number came back where there are several."""
    with called_as(called):
        single = isinstance(got, torch.Tensor) and not got.ndim and len(right) > 1
        require(not single, f"got a single number, expected {len(right)}.", advice)


def require_real_distance(got, called) -> None:
    """Raise `Wrong` if complex numbers came back."""
    with called_as(called):
        require(not isinstance(got, torch.Tensor) or not got.is_complex(), "the distance is complex, expected real "
                "numbers.", "The square of a complex number is complex. |...|² is .abs().square().")  # fmt: skip


# The safety checker

CARE = 0.01


def planted(case, n, m, k, careful=True, d=32):
    """The arguments of a checker, and their scores in float64: (inputs, scores, special).

    In each image one concept decides, and up to three special ones; the others are far below their thresholds.
    careful: whether there are images that are above a special threshold.
    """
    roles = [  # scores of the concept that decides, of special ones, and of all other concepts where they matter
        (-0.0052, (), None), (0.0300, (), None), (0.0003, (), None), (0.0007, (), None), (-0.0094, (0.03,), None),
        (-0.0097, (0.03,), None), (-0.0052, (0.0003,), None), (-0.0052, (0.0007,), None), (-0.0044, (0.02, 0.03), None),
        (-0.0153, (0.02, 0.02, 0.02), None), (-0.0300, (0.04,), None), (0.0052, (0.04,), None), (0.0062, (), 0.02),
        (-0.0003, (), None), (0.0042, (), None), (-0.0052, (-0.0003,), None), (-0.0032, (0.012,), -0.0042),
        (-0.0052, (-0.0042,), None), (-0.0052, (-0.0042, 0.012), None), (-0.0052, (0.012, -0.0042), None),
        (0.0042, (), -0.0042), (-0.0003, (0.03,), None), (0.0300, (), -0.0042), (0.0003, (), 0.0003),
        (-0.1200, (0.04,), -0.13), (-0.3000, (), -0.3), (-0.5000, (), -0.5), (-0.0092, (0.0044,), None),
        (-0.5000, (0.05,), -0.5), (0.0300, (-0.0042,), None), (-0.0052, (0.0040, -0.0042), None),
    ]  # fmt: skip
    # An odd number: in the next round each falls to the other special concept of two
    roles = [role for role in roles if careful or max(role[1], default=0) < 0.0005]
    order = [0, *(1 + torch.randperm(len(roles) - 1, generator=case.generator())).tolist()]
    scores, special = case.uniform(-0.3, -0.04, n, m).double(), case.uniform(-0.4, -0.04, n, k).double()
    for i in range(n):
        deciding, above, rest = roles[order[i % len(roles)]]
        scores[i] = scores[i] if rest is None else rest
        scores[i, (i + i // m) % m] = deciding
        for place, score in enumerate(above[:k]):
            special[i, (i + place) % k] = score
    # they differ by more than the scores do: the largest cosine need not have the largest score
    thresholds, special_thresholds = (
        torch.linspace(0.17, 0.23, c)[torch.randperm(c, generator=case.generator())] + case.uniform(0, 0.01, c)
        for c in (m, k)
    )
    basis = torch.linalg.qr(case.normal(d, d).double()).Q
    vectors = F.normalize(basis[: m + k] + 0.1 * basis[: m + k].roll(1, 0), dim=1)
    wanted = torch.cat([scores + thresholds.double(), special + special_thresholds.double()], 1)
    images = wanted @ torch.linalg.pinv(vectors).T  # these have the wanted products, and are shorter than 1
    beside = F.normalize(case.normal(n, d - m - k).double(), dim=1) @ basis[m + k :]
    images = images + (1 - images.square().sum(1, keepdim=True)).sqrt() * beside
    images = (images * case.uniform(0.3, 3, n, 1)).float()
    vectors = (vectors * case.uniform(0.3, 3, m + k, 1)).float()
    return (images, vectors[:m], thresholds, vectors[m:], special_thresholds), scores, special


FLAG_REASONS = [
    ("round() takes", "decimals has to be named: .round(decimals=3)."),
    ("__round__", "Python's round takes no tensor: scores.round(decimals=3)."),
    ("non-singleton dimension 0", "All images meet all concepts, (n, m): F.cosine_similarity compares row with row "
                                  "(take a product of unit vectors), and thresholds (m,) broadcast as they are."),
    ("must match the size of tensor", "Which images call for care is (n,), the scores are (n, m): any(1, keepdim=True) "
                                      "keeps it as (n, 1)."),
]  # fmt: skip


def flag_mistakes(inputs, scores, special):
    """The right flags by known scores, as diffusers' loop finds them, and those of mistakes; all int64."""
    right = []
    for of_concepts, of_special in zip(scores.tolist(), special.tolist(), strict=True):
        more = CARE if any(round(score, 3) > 0 for score in of_special) else 0.0
        right.append(any(round(score + more, 3) > 0 for score in of_concepts))
    images, concepts, limits, others, special_limits = (value.double() for value in inputs)

    def unit(x, dim=1):
        return F.normalize(x, dim=dim)

    def rounded(x, decimals=3):
        return x.round(decimals=decimals)

    def flags(scores=scores, more=None, decide=lambda s: (rounded(s) > 0).any(1)):
        careful = (rounded(special) > 0).any(1, keepdim=True) if more is None else more
        return decide(scores + CARE * careful)

    none, everywhere = torch.zeros(len(images), 1), torch.ones(len(images), 1)
    careful = (rounded(special) > 0).any(1, keepdim=True)
    lengths = "A product of vectors is a cosine only if both have the length 1: F.normalize(x, dim=1)."
    columns = "The columns were brought to length 1. Each row is a vector: dim=1."
    raw = images @ concepts.T - limits
    raw_special = images @ others.T - special_limits
    cosines, special_cosines = unit(images) @ unit(concepts).T, unit(images) @ unit(others).T

    def all_of(scores, special):
        return flags(scores, (rounded(special) > 0).any(1, keepdim=True))

    half_images = (unit(images) @ concepts.T - limits, unit(images) @ others.T - special_limits)
    half_concepts = (images @ unit(concepts).T - limits, images @ unit(others).T - special_limits)
    by_columns = unit(images, 0), unit(concepts, 0), unit(others, 0)
    mistakes = [
        (flags(more=none), "The special concepts have no effect. An image that is above one of their thresholds gets "
                           "0.01 more on all its scores."),
        (flags(more=everywhere), "All images got 0.01 more. Only those get it that are above a special threshold."),
        (flags(more=careful.any()), "One image that calls for care made all of them stricter. Each decides for itself: "
                                    "any(1, keepdim=True)."),
        (flags(more=-1.0 * careful), "Images that call for care got 0.01 less. They are treated more strictly: 0.01 "
                                     "more."),
        (flags(more=10.0 * careful), "0.1 was added. It is 0.01."),
        (flags(more=0.1 * careful), "0.001 was added. It is 0.01."),
        (flags(more=(rounded(special) > 0).sum(1, keepdim=True)), "0.01 was added for each special concept. It is "
                                                                  "added once, for any of them."),
        (flags(more=(rounded(special) > 0).all(1, keepdim=True)), "Care was taken only where all special concepts are "
                                                                  "above. One of them suffices: any."),
        (flags(more=(special > 0).any(1, keepdim=True)), "The special scores were not rounded. A special score below "
                                                         "half a thousandth is no care."),
        (flags(more=(rounded(special) >= 0).any(1, keepdim=True)), "A special score of 0 was taken for care. It has to "
                                                                   "be above 0."),
        (flags(more=(rounded(special) >= 0).any(1, keepdim=True), decide=lambda s: (rounded(s) >= 0).any(1)),
         "Scores of 0 count as above 0 here, those of the special concepts as well. A score of 0 is not above 0."),
        (flags(more=(rounded(special + CARE) > 0).any(1, keepdim=True)), "0.01 was added to the special scores. Only "
                                                                         "those of the concepts get it."),
        (flags(more=rounded(special)[:, -1:] > 0), "Only the last special concept decided: the loop overwrites what "
                                                   "it found before."),
        (flags(more=rounded(special)[:, :1] > 0), "Only the first special concept was looked at."),
        (flags(more=rounded(special.gather(1, special_cosines.argmax(1, keepdim=True))) > 0), "Only the special "
         "concept with the largest cosine was compared with its threshold. Another may be above its own."),
        (flags(more=careful.cumsum(0) > 0), "After the first image that calls for care all got 0.01 more. Each image "
                                            "begins with 0."),
        (flags(more=~careful), "The images that call for no care got the 0.01."),
        (flags(more=-1.0 * careful, decide=lambda s: (s > 0).any(1)), "0.01 was added to the thresholds, so that "
         "images that call for care pass more easily, and the scores were not rounded."),
        (flags(more=(rounded(special_cosines) > 0).any(1, keepdim=True)), "The special thresholds were not "
                                                                          "subtracted."),
        (flags(decide=lambda s: (s > 0).any(1)), "The scores were not rounded. One of less than half a thousandth is "
                                                 "not above 0."),
        (flags(more=(special > 0).any(1, keepdim=True), decide=lambda s: (s > 0).any(1)), "Nothing was rounded. Scores "
         "and special scores are, to three decimals."),
        (flags(more=none, decide=lambda s: (s > 0).any(1)), "The special concepts have no effect, and the scores were "
                                                            "not rounded."),
        (flags(decide=lambda s: (rounded(s, 2) > 0).any(1)), "The scores were rounded to two decimals. Three are "
                                                             "wanted."),
        (flags(decide=lambda s: (rounded(s) >= 0).any(1)), "A score of 0 was flagged. It has to be above 0."),
        (flags(decide=lambda s: (rounded(s) > 0).all(1)), "An image was flagged only where all concepts are above. One "
                                                          "of them suffices: any."),
        (flags(decide=lambda s: rounded(s).sum(1) > 1e-6), "The mean or the sum of the scores decided. One that is "
                                                           "above 0 suffices: any."),
        (flags(decide=lambda s: rounded(s)[:, 0] > 0), "Only the first concept was looked at."),
        (flags(decide=lambda s: rounded(s)[:, -1] > 0), "Only the last concept decided: the loop overwrites what it "
                                                        "found before."),
        (flags(decide=lambda s: rounded(s.gather(1, cosines.argmax(1, keepdim=True)))[:, 0] > 0), "Only the concept "
         "with the largest cosine was compared with its threshold. Another may be above its own."),
        (flags(-scores), "The cosines were subtracted from the thresholds. It is the other way round: those above are "
                         "blocked."),
        (~flags(), "The answers are the wrong way round: True is an image that is blocked."),
        (flags() | careful[:, 0], "Special concepts blocked images by themselves. They only add 0.01 to the scores."),
        (flags() & careful[:, 0], "Only images that call for care were flagged. The concepts flag others as well."),
        (careful[:, 0], "This is which images call for care. It adds 0.01 to the scores of the concepts, which "
                        "decide."),
        (flags(rounded(cosines) - limits), "The cosines were rounded. The scores are: subtract the threshold first."),
        (flags(rounded(cosines) - limits, (rounded(special_cosines) - special_limits > 0).any(1, keepdim=True),
               lambda s: (s > 0).any(1)),
         "The cosines were rounded, and the scores were not. Subtract the thresholds first."),
        (flags(cosines), "The thresholds of the concepts were not subtracted."),
        (flags(cosines + limits), "The thresholds were added. They are subtracted."),
        (all_of(raw, raw_special), lengths),
        (all_of(*half_images), "The concepts were not brought to length 1: F.normalize(concepts, dim=1), and special "
                               "as well."),
        (all_of(*half_concepts), "The images were not brought to length 1: F.normalize(images, dim=1)."),
        (all_of(scores, half_images[1]), "The special concepts were not brought to length 1: F.normalize(special, "
                                         "dim=1)."),
        (all_of(scores, half_concepts[1]), "For the special scores the images were not brought to length 1."),
        (all_of(by_columns[0] @ by_columns[1].T - limits, by_columns[0] @ by_columns[2].T - special_limits), columns),
        (flags(cosines.abs() - limits), "Negative cosines were made positive."),
        (flags(special, (rounded(scores) > 0).any(1, keepdim=True)), "Concepts and special concepts have changed "
                                                                     "places."),
        (torch.zeros(len(images), dtype=torch.bool), "No image was flagged. Are there three decimals, "
                                                           ".round(decimals=3), and has each row the length 1, "
                                                           "F.normalize(x, dim=1)?"),
        (torch.ones(len(images), dtype=torch.bool), "All images were flagged."),
        ((rounded(scores + CARE * careful) > 0), "One answer for each concept came back. An image is flagged if any of "
                                                 "them is above 0: any(1)."),
        (flags(decide=lambda s: (rounded(s) > 0).any(0)), "any went over the images. It goes over the concepts, axis "
                                                          "1."),
    ]  # fmt: skip
    return torch.tensor(right).long(), [(value.long(), advice) for value, advice in mistakes]


def as_flags(got, called):
    """What came back as int64, if it is bool; a list of them is left to `close`."""
    if not isinstance(got, torch.Tensor):
        return got
    with called_as(called):
        require(got.dtype == torch.bool, f"the flags have the dtype {got.dtype}, expected torch.bool.", "Return the "
                "comparison itself, (... > 0).any(1): True and False.")  # fmt: skip
    return got.long()
