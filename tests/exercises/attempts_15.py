"""Attempts at the exercises of chapter 15."""

import itertools
import math

import numpy as np
import scipy.linalg
import torch
from attempts import mutant, variant
from scipy.spatial import cKDTree
from scipy.stats import binomtest, norm
from torch.nn import functional as F

from course_utils.metrics import copies, distributions, statistics
from course_utils.pipelines import watermark
from course_utils.pipelines.watermark import from_the_middle, spectrum

ROOT, FRECHET, KERNEL = "15.matrix_sqrt", "15.frechet_distance", "15.kernel_distance"
COVERAGE, WILSON = "15.coverage", "15.wilson_interval"
TERRY, RATIO, WRITE = "15.bradley_terry", "15.neighbour_ratio", "15.write_ring"
DISTANCE, FLAGGED = "15.ring_distance", "15.flagged"
matrix_sqrt = distributions.matrix_sqrt


def wrong(id, words, function, state="fail"):
    """Note a wrong answer that is one expression, by the words that its message must hold."""
    function.__name__ = "_".join(words.split()[:5])
    mutant(id, words, state)(function)


# The root of a matrix


def eye(d):
    return torch.eye(d, dtype=torch.float64)


def wrong_root(words, t=None, size=torch.norm, y_0=None, z_0=None, step=None, back=None, repeat=lambda steps: steps,
               end=None):  # fmt: skip
    """Note a wrong root. t: of (Y, Z, I); size, y_0, z_0: of the matrix; step: of (Y, Z, T); back: of the size."""

    def answer(matrix, steps=30):
        wide, unit = matrix.double(), eye(len(matrix))
        length = size(wide)
        y, z = y_0(wide) if y_0 else wide / length, z_0(wide) if z_0 else unit
        for _ in range(repeat(steps)):
            factor = t(y, z, unit) if t else (3 * unit - z @ y) / 2
            y, z = step(y, z, factor) if step else (y @ factor, factor @ z)
        root = end(y, z, length) if end else y * (back(length) if back else length.sqrt())
        return root.to(matrix.dtype)

    wrong(ROOT, words, answer)


wrong_root("One step is missing: range(steps)", repeat=lambda steps: steps - 1)
wrong_root("There is one step too many", repeat=lambda steps: steps + 1)
wrong_root("does the `return` stand inside the loop", repeat=lambda steps: 1)
wrong_root("The division by |A| was not undone", back=lambda length: 1.0)
wrong_root("Y was multiplied by |A|.", back=lambda length: length)
wrong_root("Y was divided by the root of |A|.", back=lambda length: 1 / length.sqrt())
wrong_root("The iteration began with A itself. Y starts", y_0=lambda a: a, back=lambda length: 1.0)
wrong_root("and the result was still multiplied", y_0=lambda a: a)
wrong_root("A was divided by the root of |A|", y_0=lambda a: a / a.norm().sqrt())
wrong_root("The root is missing in the norm", size=lambda a: a.square().sum())
wrong_root("This is the largest singular value", size=lambda a: torch.linalg.matrix_norm(a, 2))
wrong_root("A was divided by its trace", size=torch.trace)
wrong_root("A was divided by the sum of its absolute values", size=lambda a: a.abs().sum())
wrong_root("A was divided by its largest element", size=lambda a: a.abs().max())
wrong_root("The half is missing: T", lambda y, z, unit: 3 * unit - z @ y)
wrong_root("The half belongs to the whole bracket", lambda y, z, unit: 3 * unit - z @ y / 2)
wrong_root("The sign in T is wrong", lambda y, z, unit: (3 * unit + z @ y) / 2)
wrong_root("The factor 3 is missing", lambda y, z, unit: (unit - z @ y) / 2)
wrong_root("3 - Z Y subtracts from 3 everywhere", lambda y, z, unit: (3 - z @ y) / 2)
wrong_root("Z was the same as Y throughout", lambda y, z, unit: (3 * unit - y @ y) / 2)
wrong_root("Y stayed as it was", lambda y, z, unit: (3 * unit - z) / 2)
wrong_root("Z * Y multiplies element by element", lambda y, z, unit: (3 * unit - z * y) / 2)
wrong_root("Y * T and T * Z multiply element by element", step=lambda y, z, t: (y * t, t * z))
wrong_root("three times here", lambda y, z, unit: (3 * unit - z * y) / 2, step=lambda y, z, t: (y * t, t * z))
wrong_root("Z was left as it was", step=lambda y, z, t: (y @ t, z))
wrong_root("Y stayed as it was. T is made of Z Y", step=lambda y, z, t: (y, t @ z))
wrong_root("a T that was made of the new Y", step=lambda y, z, t: (y @ t, (3 * eye(len(y)) - z @ y @ t) / 2 @ z))
wrong_root("Z became T Y, with the new Y", step=lambda y, z, t: (y @ t, t @ (y @ t)))
wrong_root("Z began with ones everywhere", z_0=torch.ones_like)
wrong_root("Z began with zeros", z_0=torch.zeros_like)
wrong_root("Z was the same as Y throughout. T is made of Z Y", z_0=lambda a: a / a.norm())
wrong_root(
    "Z came back, which goes to the inverse of the root. Y begins",
    y_0=lambda a: eye(len(a)),
    z_0=lambda a: a / a.norm(),
)
wrong_root("Z came back", end=lambda y, z, length: z)
wrong_root("Z came back, which goes to the inverse", end=lambda y, z, length: z * length.sqrt())
wrong_root("Z came back, which goes to the inverse of the root", end=lambda y, z, length: z / length.sqrt())
wrong_root("The half belongs to the whole bracket: T", lambda y, z, unit: 0.5 * 3 * unit - z @ y)
wrong_root("torch.ones_like and torch.ones are 1 everywhere", lambda y, z, unit: (3 * torch.ones_like(y) - z @ y) / 2,
           z_0=torch.ones_like)  # fmt: skip
wrong_root("The matrix was made symmetric first", size=lambda a: (a + a.T).norm() / 2, y_0=lambda a: (
    (a + a.T) / (a + a.T).norm()))  # fmt: skip
wrong_root("Fewer steps were made than", repeat=lambda steps: (steps + 1) // 2)
wrong(ROOT, "This is the root of each element. The", lambda matrix, steps=30: matrix.double().sqrt().to(matrix.dtype))
wrong(ROOT, "Cholesky's factor L has", lambda matrix, steps=30: (
    torch.linalg.cholesky(matrix.double()).to(matrix.dtype)))  # fmt: skip
wrong(ROOT, "Cholesky's factor L has L", lambda matrix, steps=30: (
    torch.linalg.cholesky_ex(matrix.double()).L.to(matrix.dtype)))  # fmt: skip


def stops_early(tolerance):
    def answer(matrix, steps=30):
        wide, unit = matrix.double(), eye(len(matrix))
        y, z = wide / wide.norm(), unit
        for _ in range(steps):
            t = (3 * unit - z @ y) / 2
            if (y @ t - y).abs().max() < tolerance:
                break
            y, z = y @ t, t @ z
        return (y * wide.norm().sqrt()).to(matrix.dtype)

    return answer


wrong(ROOT, "Fewer steps were made than `steps`", stops_early(1e-2))
wrong(ROOT, "Fewer steps were made than `steps` says", stops_early(1e-6))
wrong(ROOT, "Fewer steps were made than `steps` says.", stops_early(1e-9))


@mutant(ROOT, "T was made once, before the loop")
def one_factor_for_all_steps(matrix, steps=30):
    wide, unit = matrix.double(), eye(len(matrix))
    y, z = wide / wide.norm(), unit
    t = (3 * unit - z @ y) / 2
    for _ in range(steps):
        y, z = y @ t, t @ z
    return (y * wide.norm().sqrt()).to(matrix.dtype)


@mutant(ROOT, "torch.linalg.eigh is for symmetric matrices")
def by_symmetric_eigenvalues(matrix, steps=30):
    values, vectors = torch.linalg.eigh(matrix.double())
    return (vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T).to(matrix.dtype)


@mutant(ROOT, "This is the exact root")
def by_eigenvalues(matrix, steps=30):
    values, vectors = torch.linalg.eig(matrix.double())
    return (vectors @ torch.diag(values.sqrt()) @ torch.linalg.inv(vectors)).real.to(matrix.dtype)


@mutant(ROOT, "This is the root of each element")
def of_each_element(matrix, steps=30):
    return matrix.clamp(min=0).sqrt()


@mutant(ROOT, "In float32, rounding makes eigenvalues of 0")
def in_float32(matrix, steps=30):
    norm, unit = torch.linalg.matrix_norm(matrix), torch.eye(len(matrix), dtype=matrix.dtype)
    y, z = matrix / norm, unit
    for _ in range(steps):
        t = (3 * unit - z @ y) / 2
        y, z = y @ t, t @ z
    return y * norm.sqrt()


@mutant(ROOT, "in one order of the products only")
def in_another_order(matrix, steps=30):
    wide, unit = matrix.double(), eye(len(matrix))
    y, z = wide / wide.norm(), unit
    for _ in range(steps):
        t = (3 * unit - z @ y) / 2
        y, z = t @ y, z @ t
    return (y * wide.norm().sqrt()).to(matrix.dtype)


@mutant(ROOT, "In float32, rounding makes eigenvalues of 0 slightly")
def single_precision_for_all(matrix, steps=30):
    return in_float32(matrix.float(), steps).to(matrix.dtype)


@mutant(ROOT, "has the dtype torch.float64, expected torch.float32")
def left_in_float64(matrix, steps=30):
    return distributions.matrix_sqrt(matrix.double(), steps)


@mutant(ROOT, "has the dtype torch.float32, expected torch.float64")
def always_float32(matrix, steps=30):
    return distributions.matrix_sqrt(matrix.double(), steps).float()


@mutant(ROOT, "torch.eye makes float32, and a product needs")
def with_a_unit_in_float32(matrix, steps=30):
    y, z = matrix.double() / matrix.double().norm(), torch.eye(len(matrix))
    for _ in range(steps):
        t = (3 * torch.eye(len(matrix)) - z @ y) / 2
        y, z = y @ t, t @ z
    return y


@mutant(ROOT, "`matrix += ...` and `matrix[...] = ...` write into")
def writes_into_the_matrix(matrix, steps=30):
    size = matrix.norm().item()
    matrix /= size
    return distributions.matrix_sqrt(matrix, steps) * size**0.5


@mutant(ROOT, "the parameter steps has the default 10")
def another_default(matrix, steps=10):
    return distributions.matrix_sqrt(matrix, steps)


@variant(ROOT)
def eigenvalue_by_eigenvalue(matrix, steps=30):
    of = torch.linalg.eigh if matrix.equal(matrix.T) else torch.linalg.eig
    values, vectors = of(matrix.double())
    size = matrix.double().square().sum().sqrt()
    y, z = values.real.clamp(min=0) / size, torch.ones(len(values), dtype=torch.float64)
    for _ in range(steps):
        t = (3 - z * y) / 2
        y, z = y * t, t * z
    root = vectors.real @ torch.diag(y * size.sqrt()) @ torch.linalg.inv(vectors.real)
    return root.to(matrix.dtype)


@variant(ROOT)
def in_numpy(matrix, steps=30):
    a = matrix.numpy().astype(np.float64)
    size = np.linalg.norm(a)
    y, z = a / size, np.eye(len(a))
    for _ in range(steps):
        t = 1.5 * np.eye(len(a)) - 0.5 * np.dot(z, y)
        y, z = y.dot(t), t.dot(z)
    return torch.from_numpy(y * np.sqrt(size)).to(matrix.dtype)


@variant(ROOT)
def with_a_loop_of_its_own(matrix, steps=30):
    kind, wide = matrix.dtype, matrix.to(torch.float64)
    factor = torch.linalg.norm(wide)
    y, z, number = wide.div(factor), torch.diag(torch.ones(wide.shape[0], dtype=torch.float64)), 0
    while number < steps:
        t = torch.einsum("ij,jk->ik", z, y).neg()
        t.diagonal().add_(3)
        t /= 2
        y, z = torch.mm(y, t), torch.mm(t, z)
        number += 1
    return y.mul(factor**0.5).to(kind)


# The Fréchet distance


def eigen(matrix):
    return torch.linalg.eigvals(matrix).real.clamp(min=0)


def wrong_frechet(words, means=None, spread=None, root=None, covariance=None, whole=None, end=None):
    """Note a wrong distance. means: of the differences; spread, root, whole: of both covariances; end: of the sum."""

    def answer(features, others):
        x, y = features.double(), others.double()
        s, r = (covariance(cloud) if covariance else cloud.T.cov() for cloud in (x, y))
        apart = x.mean(0) - y.mean(0)
        first = means(apart) if means else apart.square().sum()
        traces = spread(s, r) if spread else s.trace() + r.trace()
        second = whole(s, r) if whole else traces - 2 * (root(s, r) if root else eigen(s @ r).sqrt().sum())
        total = (first + second).clamp(min=0)
        return (end(total, x) if end else total).item()

    wrong(FRECHET, words, answer)


wrong_frechet("A root was taken at the end. The FID", end=lambda total, x: total.sqrt())
wrong_frechet("The distance of the means is not squared", lambda apart: apart.norm())
wrong_frechet("In the first term the squares were averaged", lambda apart: apart.square().mean())
wrong_frechet("absolute differences were added up. Square", lambda apart: apart.abs().sum())
wrong_frechet("were added up before the square", lambda apart: apart.sum().square())
wrong_frechet("One mean was taken over all features", lambda apart: apart.mean().square())
wrong_frechet("The term of the means is missing", lambda apart: 0)
wrong_frechet("The term of the covariances is missing", whole=lambda s, r: torch.zeros(()))
wrong_frechet("The root is missing: subtract 2", root=lambda s, r: 0)
wrong_frechet("The factor 2 before the root is missing", root=lambda s, r: eigen(s @ r).sqrt().sum() / 2)
wrong_frechet("The sign before the root is wrong", root=lambda s, r: -eigen(s @ r).sqrt().sum())
wrong_frechet("added up without their roots", root=lambda s, r: eigen(s @ r).sum())
wrong_frechet("This is the root of the trace", root=lambda s, r: (s @ r).trace().sqrt())
wrong_frechet("The root was taken element by element", root=lambda s, r: (s @ r).clamp(min=0).sqrt().trace())
wrong_frechet("Only the variances of single features", root=lambda s, r: (s * r).sqrt().trace())
wrong_frechet("were multiplied one by one", root=lambda s, r: (
    (torch.linalg.eigvalsh(s) * torch.linalg.eigvalsh(r)).sqrt().sum()))  # fmt: skip
wrong_frechet("the root of the sum of both covariances", root=lambda s, r: matrix_sqrt(s + r).trace())
wrong_frechet("The roots of both covariances were multiplied", root=lambda s, r: (
    (matrix_sqrt(s, 60) @ matrix_sqrt(r, 60)).trace()))  # fmt: skip
wrong_frechet("eigvalsh is for symmetric matrices", root=lambda s, r: (
    torch.linalg.eigvalsh(s @ r).clamp(min=0).sqrt().sum()))  # fmt: skip
wrong_frechet("These are singular values of the product", root=lambda s, r: torch.linalg.svdvals(s @ r).sqrt().sum())
wrong_frechet("The trace of the second covariance is missing", spread=lambda s, r: s.trace())
wrong_frechet("The trace of the first covariance is missing", spread=lambda s, r: r.trace())
wrong_frechet("The covariances were divided by the count", covariance=lambda x: x.T.cov(correction=0))
wrong_frechet("The means were not subtracted", covariance=lambda x: x.T @ x / (len(x) - 1))
wrong_frechet("The covariances were not divided by count", covariance=lambda x: (x - x.mean(0)).T @ (x - x.mean(0)))
wrong_frechet("Standard deviations were added up", spread=lambda s, r: (
    s.diagonal().sqrt().sum() + r.diagonal().sqrt().sum()))  # fmt: skip
wrong_frechet("Only the variances of single features were used", whole=lambda s, r: (
    (s.diagonal().sqrt() - r.diagonal().sqrt()).square().sum()))  # fmt: skip
wrong_frechet("The trace is the sum of the diagonal", whole=lambda s, r: (s + r - 2 * matrix_sqrt(s @ r, 60)).sum())
wrong_frechet("were compared element by element", whole=lambda s, r: (s - r).square().sum())
wrong_frechet("divided by the number of features. It", end=lambda total, x: total / x.shape[1])
wrong_frechet("The root was taken element by element. The", root=lambda s, r: (s @ r).sqrt().trace())
wrong_frechet("These are correlations, of corrcoef", covariance=lambda x: x.T.corrcoef())
wrong_frechet("Something was added to the diagonal", covariance=lambda x: x.T.cov() + 1e-2 * eye(x.shape[1]))
wrong_frechet("The result was rounded.", end=lambda total, x: total.round())
wrong_frechet("The result was rounded. Return", end=lambda total, x: total.round(decimals=2))
wrong_frechet("keep the default of 30", root=lambda s, r: matrix_sqrt(s @ r, steps=60).trace())
wrong_frechet("torch.cov wants a row for each variable, and", covariance=torch.cov, whole=lambda s, r: (s - r).sum())


def of_parts(features, others, root):
    x, y = features.double(), others.double()
    s, r = x.T.cov(), y.T.cov()
    return (x.mean(0) - y.mean(0)).square().sum() + s.trace() + r.trace() - 2 * root(s @ r)


wrong(FRECHET, "and their root is NaN", lambda features, others: (
    of_parts(features, others, lambda product: torch.linalg.eigvals(product).real.sqrt().sum())
    .clamp(min=0).item()))  # fmt: skip
wrong(FRECHET, "A squared distance is never negative", lambda features, others: (
    of_parts(features, others, lambda product: eigen(product).sqrt().sum()).item()))  # fmt: skip
wrong(FRECHET, "imaginary parts are rounding errors", lambda features, others: (
    of_parts(features, others, lambda product: torch.linalg.eigvals(product).sqrt().sum()).item()))  # fmt: skip
wrong(FRECHET, "complex numbers, which have no order", lambda features, others: (
    of_parts(features, others, lambda product: torch.linalg.eigvals(product).clamp(min=0).sqrt().sum())))  # fmt: skip
wrong(FRECHET, "complex numbers, which have no order: first", lambda features, others: (
    max(0, of_parts(features, others, lambda product: torch.linalg.eigvals(product).sqrt().sum()).item())))  # fmt: skip
wrong(FRECHET, "Is this the mean of each image", lambda features, others: (
    features.mean(1) - others.mean(1)).square().sum().item())  # fmt: skip
wrong(FRECHET, "Is this the mean of each image, over", lambda features, others: (
    np.square(features.numpy().mean(1) - others.numpy().mean(1)).sum()))  # fmt: skip
wrong(FRECHET, "np.cov wants a row for each variable", lambda features, others: (
    np.trace(np.cov(features) + np.cov(others))))  # fmt: skip
wrong(FRECHET, "np.cov wants a row for each variable, and", lambda features, others: (
    np.trace(np.cov(features) @ np.cov(others))))  # fmt: skip
wrong(FRECHET, "expected a plain Python number", lambda features, others: (
    of_parts(features, others, lambda product: eigen(product).sqrt().sum()).clamp(min=0)))  # fmt: skip


@mutant(FRECHET, "In float32 rounding makes them as large")
def distance_in_float32(features, others):
    x, y = features.float(), others.float()
    s, r = x.T.cov(), y.T.cov()
    root = torch.linalg.eigvals(s @ r).real.clamp(min=0).sqrt().sum()
    return ((x.mean(0) - y.mean(0)).square().sum() + s.trace() + r.trace() - 2 * root).clamp(min=0).item()


@mutant(FRECHET, "Both covariances were divided by the count of one")
def divided_by_one_count(features, others):
    x, y = features.double(), others.double()
    s, r = x.T.cov(), y.T.cov(correction=0) * len(y) / (len(x) - 1)
    root = eigen(s @ r).sqrt().sum()
    return ((x.mean(0) - y.mean(0)).square().sum() + s.trace() + r.trace() - 2 * root).clamp(min=0).item()


@mutant(FRECHET, "Something was added to the diagonal of")
def with_something_on_the_diagonal(features, others):
    x, y = features.double(), others.double()
    s, r, more = x.T.cov(), y.T.cov(), 1e-6 * eye(x.shape[1])
    root = eigen((s + more) @ (r + more)).sqrt().sum()
    return ((x.mean(0) - y.mean(0)).square().sum() + s.trace() + r.trace() - 2 * root).clamp(min=0).item()


@mutant(FRECHET, "torch.cov wants a row for each variable")
def covariances_of_images(features, others):
    root = torch.linalg.eigvals(features.cov() @ others.cov()).real.clamp(min=0).sqrt().sum()
    return (features.var(0).sum() + others.var(0).sum() - 2 * root).item()


@mutant(FRECHET, "`features += ...` and `features[...] = ...` write into")
def centres_the_features(features, others):
    value = distributions.frechet_distance(features, others)
    features -= features.mean(0)
    return value


@variant(FRECHET)
def with_the_root_of_exercise_1(features, others):
    x, y = features.double(), others.double()
    s, r = x.T.cov(), y.T.cov()
    root = matrix_sqrt(s @ r)
    spread = torch.trace(s + r - 2 * root)
    return max(0.0, (torch.dist(x.mean(0), y.mean(0)) ** 2 + spread).item())


@variant(FRECHET)
def with_scipy(features, others):
    x, y = features.numpy().astype(np.float64), others.numpy().astype(np.float64)
    s, r = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(s @ r))
    apart = x.mean(axis=0) - y.mean(axis=0)
    return max(0.0, float(apart @ apart + np.trace(s) + np.trace(r) - 2 * np.trace(root)))


@variant(FRECHET)
def by_symmetric_roots(features, others):
    x, y = features.double(), others.double()
    a, b = x - x.mean(dim=0, keepdim=True), y - y.mean(dim=0, keepdim=True)
    s, r = torch.einsum("ni,nj->ij", a, a) / (len(a) - 1), torch.einsum("ni,nj->ij", b, b) / (len(b) - 1)
    values, vectors = torch.linalg.eigh(s)
    half = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    root = torch.linalg.eigvalsh(half @ r @ half).clamp(min=0).sqrt().sum()
    value = ((x.mean(0) - y.mean(0)) ** 2).sum() + s.diag().sum() + r.diag().sum() - 2 * root
    return float(F.relu(value))


@variant(FRECHET)
def by_singular_values(features, others):
    a, b = (cloud.double() - cloud.double().mean(0) for cloud in (features, others))
    root = torch.linalg.matrix_norm(a @ b.T, "nuc") / math.sqrt((len(a) - 1) * (len(b) - 1))
    means = (features.double().mean(0) - others.double().mean(0)).pow(2).sum()
    return abs((means + features.double().var(0).sum() + others.double().var(0).sum() - 2 * root).item())


# The kernel distance


def cubic(a, b):
    return (a @ b.T / a.shape[1] + 1) ** 3


def without_diagonal(table):
    return (table.sum() - table.trace()) / (len(table) * (len(table) - 1))


def wrong_kernel(words, kernel=cubic, within=without_diagonal, between=torch.mean, weight=2, end=None):
    """Note a wrong distance. kernel: of two clouds; within, between: of its table; end: of the distance."""

    def answer(features, others):
        x, y = features.double(), others.double()
        value = within(kernel(x, x)) + within(kernel(y, y)) - weight * between(kernel(x, y))
        return (end(value) if end else value).item()

    wrong(KERNEL, words, answer)


wrong_kernel("The pairs of an image with itself were kept", within=torch.mean)
wrong_kernel("but not out of the count", within=lambda t: (t.sum() - t.trace()) / len(t) ** 2)
wrong_kernel("but the diagonal is still in it", within=lambda t: t.sum() / (len(t) * (len(t) - 1)))
wrong_kernel("The sum was divided by (n - 1)²", within=lambda t: (t.sum() - t.trace()) / (len(t) - 1) ** 2)
wrong_kernel("The sum was divided by n² - 1", within=lambda t: (t.sum() - t.trace()) / (len(t) ** 2 - 1))
wrong_kernel("1 was subtracted for each point", within=lambda t: (t.sum() - len(t)) / (len(t) * (len(t) - 1)))
wrong_kernel("Each pair was counted once", within=lambda t: t.triu(1).sum() / (len(t) * (len(t) - 1)))
wrong_kernel("The tables were added up", within=torch.sum, between=torch.sum)
wrong_kernel("every pair counts, not only j = i", between=lambda t: t.diagonal().mean())
wrong_kernel("Between both clouds nothing is left out", between=without_diagonal)
wrong_kernel("The product is not divided by d", lambda a, b: (a @ b.T + 1) ** 3)
wrong_kernel("divided by the number of images. d is", lambda a, b: (a @ b.T / len(a) + 1) ** 3)
wrong_kernel("divided by the root of d", lambda a, b: (a @ b.T / a.shape[1] ** 0.5 + 1) ** 3)
wrong_kernel("The 1 was divided by d, too", lambda a, b: ((a @ b.T + 1) / a.shape[1]) ** 3)
wrong_kernel("The 1 is missing under the cube", lambda a, b: (a @ b.T / a.shape[1]) ** 3)
wrong_kernel("The kernel was squared", lambda a, b: (a @ b.T / a.shape[1] + 1) ** 2)
wrong_kernel("The cube is missing", lambda a, b: a @ b.T / a.shape[1] + 1)
wrong_kernel("The 1 is missing under the cube: (a", lambda a, b: (a @ b.T / a.shape[1]) ** 3 + 1)
wrong_kernel("This is a Gaussian kernel", lambda a, b: torch.exp(-(torch.cdist(a, b) ** 2) / 2))
wrong_kernel("The kernel was made of distances", lambda a, b: (torch.cdist(a, b) ** 2 / a.shape[1] + 1) ** 3)
wrong_kernel("brought to length 1", lambda a, b: cubic(F.normalize(a), F.normalize(b)))
wrong_kernel("The factor 2 is missing: the mean", weight=1)
wrong_kernel("The sign is wrong: the mean between", weight=-2)
wrong_kernel("The mean between both clouds is missing", weight=0)
wrong_kernel("The signs are swapped", end=lambda value: -value)
wrong_kernel("Values below 0 were set to 0", end=lambda value: value.clamp(min=0))
wrong_kernel("A root was taken at the end. KID", end=lambda value: value.clamp(min=0).sqrt())
wrong_kernel("The sign was removed", end=torch.abs)
wrong_kernel("This is a thousand times KID", end=lambda value: 1000 * value)
wrong_kernel("the notebook's d is another", lambda a, b: (a @ b.T / 176 + 1) ** 3)
wrong_kernel("The 1 was added to d", lambda a, b: (a @ b.T / (a.shape[1] + 1)) ** 3)
wrong_kernel("This is a Gaussian kernel of", lambda a, b: torch.exp(-(torch.cdist(a, b) ** 2) / (2 * a.shape[1])))
wrong_kernel("Between both clouds nothing is left out: image", between=lambda t: (
    (t.sum() - t.diagonal().sum()) / (t.numel() - min(t.shape))))  # fmt: skip
wrong_kernel("Between both clouds nothing is left out: image j", between=lambda t: t.fill_diagonal_(0).mean())
wrong_kernel("The last image was left out as the first", within=lambda t: (
    (t[:-1].sum() - t.diagonal()[:-1].sum()) / (len(t) * (len(t) - 1))))  # fmt: skip
wrong_kernel("A root was taken at the end. KID is", end=torch.sqrt)
wrong_kernel("A root was taken at the end. KID is the", end=lambda value: torch.tensor(math.sqrt(value)))
wrong_kernel("The products of all pairs of images are", lambda a, b: (a @ b / a.shape[1] + 1) ** 3)
wrong_kernel("The products of all pairs of images are x", lambda a, b: (a.T @ b / a.shape[1] + 1) ** 3)
wrong(KERNEL, "A root was taken at the end. KID is the squared", lambda features, others: (
    distributions.kernel_distance(features, others) ** 0.5))  # fmt: skip
wrong(KERNEL, "Both clouds were cut to the same number", lambda features, others: (
    distributions.kernel_distance(features[: len(others)], others[: len(features)])))  # fmt: skip
wrong(KERNEL, "The mean of each cloud was subtracted", lambda features, others: (
    distributions.kernel_distance(features.double() - features.double().mean(0),
                                  others.double() - others.double().mean(0))))  # fmt: skip


def of_tables(combine):
    """An answer made of the kernel's three tables."""

    def answer(features, others):
        x, y = features.double(), others.double()
        return combine(cubic(x, x), cubic(y, y), cubic(x, y)).item()

    return answer


wrong(KERNEL, "The mean within `others` is missing", of_tables(lambda a, b, c: without_diagonal(a) - 2 * c.mean()))
wrong(KERNEL, "The mean within `features` is missing", of_tables(lambda a, b, c: without_diagonal(b) - 2 * c.mean()))
wrong(KERNEL, "was taken twice. One is that", of_tables(lambda a, b, c: 2 * without_diagonal(a) - 2 * c.mean()))
wrong(KERNEL, "were weighted with their counts", of_tables(lambda a, b, c: (
    2 * (len(a) * without_diagonal(a) + len(b) * without_diagonal(b)) / (len(a) + len(b)) - 2 * c.mean())))  # fmt: skip


wrong(KERNEL, "Both sums were divided by the number of pairs", of_tables(lambda a, b, c: (
    (a.sum() - a.trace() + b.sum() - b.trace()) / (len(a) * (len(a) - 1)) - 2 * c.mean())))  # fmt: skip


@mutant(KERNEL, "divided by the number of images. d is the")
def count_as_d(features, others):
    x, y, d = features.double(), others.double(), len(features)
    tables = [(a @ b.T / d + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    return (without_diagonal(tables[0]) + without_diagonal(tables[1]) - 2 * tables[2].mean()).item()


@mutant(KERNEL, "not all pairs of all points")
def of_all_pairs(features, others):
    x, y = features.double(), others.double()
    everything = torch.cat([x, y])
    within = without_diagonal(cubic(x, x)) + without_diagonal(cubic(y, y))
    return (within - 2 * without_diagonal(cubic(everything, everything))).item()


@mutant(KERNEL, "Every pair of two images counts")
def row_by_row(features, others):
    x, y = features.double(), others.double()
    between = ((x * y).sum(1) / x.shape[1] + 1) ** 3
    return (without_diagonal(cubic(x, x)) + without_diagonal(cubic(y, y)) - 2 * between.mean()).item()


@mutant(KERNEL, "float32 has seven digits")
def kernel_in_float32(features, others):
    within = without_diagonal(cubic(features, features)) + without_diagonal(cubic(others, others))
    return (within - 2 * cubic(features, others).mean()).item()


@mutant(KERNEL, "expected a plain Python number")
def kernel_as_a_tensor(features, others):
    x, y = features.double(), others.double()
    return without_diagonal(cubic(x, x)) + without_diagonal(cubic(y, y)) - 2 * cubic(x, y).mean()


@mutant(KERNEL, "without `return`")
def prints_only(features, others):
    distributions.kernel_distance(features, others)


@mutant(KERNEL, "`features += ...` and `features[...] = ...` write into")
def scales_the_features(features, others):
    value = distributions.kernel_distance(features, others)
    features /= features.shape[1] ** 0.5
    return value


@variant(KERNEL)
def pair_by_pair(features, others):
    x, y = features.double().numpy(), others.double().numpy()

    def kernel(a, b):
        return (a.dot(b) / len(a) + 1) ** 3

    within = sum(
        sum(kernel(a, b) for a, b in itertools.combinations(cloud, 2)) / math.comb(len(cloud), 2) for cloud in (x, y)
    )
    return within - 2 * np.mean([kernel(a, b) for a, b in itertools.product(x, y)])


@variant(KERNEL)
def with_a_mask(features, others):
    d = features.shape[1]
    x, y = features.to(torch.float64), others.to(torch.float64)

    def mean(a, b):
        table = torch.einsum("id,jd->ij", a, b).div(d).add(1).pow(3)
        if a is not b:
            return table.mean()
        return table[~torch.eye(len(a), dtype=torch.bool)].mean()

    return float(mean(x, x) - 2 * mean(x, y) + mean(y, y))


@variant(KERNEL)
def with_an_empty_diagonal(features, others):
    x, y = features.double(), others.double()
    n, m = x.shape[0], y.shape[0]
    a, b = cubic(x, x).fill_diagonal_(0).sum() / (n * n - n), cubic(y, y).fill_diagonal_(0).sum() / (m * m - m)
    return (a + b - cubic(y, x).mean(0).mean() * 2).item()


# Coverage


def own_distances(cloud):
    return torch.cdist(cloud, cloud).fill_diagonal_(math.inf)


def wrong_coverage(words, radius=None, holds=None, share=None):
    """Note a wrong coverage. radius: of (others, features, k); holds: of (distances (number, count), radius (number,),
    k); share: of what holds."""

    def answer(features, others, k=5):
        x, y = features.double(), others.double()
        size = radius(y, x, k) if radius else own_distances(y).kthvalue(k, dim=1).values
        inside = holds(torch.cdist(y, x), size, k) if holds else torch.cdist(y, x).amin(1) <= size
        return (share(inside) if share else inside.double().mean()).item()

    wrong(COVERAGE, words, answer)


def sorted_distances(cloud):
    return torch.cdist(cloud, cloud).sort(dim=1).values


def without_zeros(cloud):
    table = torch.cdist(cloud, cloud)
    return table.masked_fill(table == 0, math.inf)


wrong_coverage("At exactly the radius", holds=lambda t, radius, k: t.amin(1) < radius)
wrong_coverage("taken for its own nearest neighbour", lambda y, x, k: sorted_distances(y)[:, k - 1])
wrong_coverage("that of the neighbour after the k-th", lambda y, x, k: (
    sorted_distances(y)[:, min(k + 1, len(y) - 1)]))  # fmt: skip
wrong_coverage("the distance to the nearest other. It", lambda y, x, k: own_distances(y).amin(1))
wrong_coverage("the k-th *largest* distance", lambda y, x, k: torch.cdist(y, y).topk(k).values[:, -1])
wrong_coverage("The radius is the largest distance", lambda y, x, k: torch.cdist(y, y).amax(1))
wrong_coverage("the mean distance of the k nearest", lambda y, x, k: sorted_distances(y)[:, 1 : k + 1].mean(1))
wrong_coverage("One mean radius was used", lambda y, x, k: own_distances(y).kthvalue(k).values.mean())
wrong_coverage("All distances of 0 were left out", lambda y, x, k: without_zeros(y).kthvalue(k).values)
wrong_coverage("The radius was measured among the drawn", lambda y, x, k: (
    torch.cdist(y, x).kthvalue(min(k, len(x))).values))  # fmt: skip
wrong_coverage("This is precision", holds=lambda t, radius, k: (t <= radius[:, None]).any(0))
wrong_coverage("This is density", holds=lambda t, radius, k: (t <= radius[:, None]).sum(0).double() / k)
wrong_coverage("The drawn images inside were counted", holds=lambda t, radius, k: (t <= radius[:, None]).sum(1))
wrong_coverage("the share of all pairs", holds=lambda t, radius, k: t <= radius[:, None])
wrong_coverage("All drawn images had to be inside, even", holds=lambda t, radius, k: (t <= radius[:, None]).all(1))
wrong_coverage("The mean distance of the drawn images", holds=lambda t, radius, k: t.mean(1) <= radius)
wrong_coverage("All drawn images had to be inside, even the farthest", holds=lambda t, radius, k: t.amax(1) <= radius)
wrong_coverage("The k-th nearest drawn image was compared", holds=lambda t, radius, k: (
    t.kthvalue(min(k, t.shape[1])).values <= radius))  # fmt: skip
wrong_coverage("A squared distance was compared with a radius", holds=lambda t, radius, k: t.amin(1) ** 2 <= radius)
wrong_coverage("A distance was compared with a squared", lambda y, x, k: own_distances(y).kthvalue(k).values ** 2)
wrong_coverage("the share that is *not* covered", holds=lambda t, radius, k: t.amin(1) > radius)
wrong_coverage("This is how many are covered", share=lambda inside: inside.double().sum())
wrong_coverage("This is the share in percent", share=lambda inside: 100 * inside.double().mean())
wrong_coverage("leave one truth value", share=lambda inside: inside.any())
wrong_coverage("In torch.cdist(others, features) the real", holds=lambda t, radius, k: t.amin(0) <= radius)
wrong(COVERAGE, "k is more than a row holds", lambda features, others, k=5: (
    (torch.cdist(features, others).amin(1) <= own_distances(features).kthvalue(k).values)
    .double().mean().item()))  # fmt: skip
wrong(COVERAGE, "k is more than a row holds. The", lambda features, others, k=5: (
    (torch.cdist(others, features) <= sorted_distances(features)[:, k]).any(1).double().mean().item()))  # fmt: skip
wrong_coverage("the distance to the fifth nearest", lambda y, x, k: own_distances(y).kthvalue(5).values)
wrong_coverage("no mean of True and False", share=lambda inside: inside.mean())
wrong_coverage("sort return pairs", holds=lambda t, radius, k: t.min(1) <= radius)
wrong_coverage("and sort return pairs", lambda y, x, k: own_distances(y).kthvalue(k))
wrong_coverage("kthvalue and sort return pairs", lambda y, x, k: own_distances(y).sort(dim=1)[:, k - 1])
wrong_coverage("taken for one, as if pairs are compared. min(1), kthvalue and sort return pairs",
               lambda y, x, k: own_distances(y).kthvalue(k), lambda t, radius, k: t.min(1) <= radius)  # fmt: skip
wrong_coverage("Indices were compared", lambda y, x, k: own_distances(y).kthvalue(k).indices)
wrong_coverage("Indices were compared, not", holds=lambda t, radius, k: t.min(1).indices <= radius)
wrong_coverage("Indices were compared, not distances", lambda y, x, k: own_distances(y).kthvalue(k).indices,
               lambda t, radius, k: t.argmin(1) <= radius)  # fmt: skip
wrong_coverage("compared with all radii", lambda y, x, k: own_distances(y).kthvalue(k, keepdim=True).values)
wrong_coverage("was compared with all radii", holds=lambda t, radius, k: t.amin(1, keepdim=True) <= radius)
wrong_coverage("with its nearest real one alone", holds=lambda t, radius, k: t.amin(0) <= radius[t.argmin(0)])
wrong_coverage("the nearest drawn one outside", holds=lambda t, radius, k: t.amin(1) >= radius)
wrong_coverage("among real and drawn images together", lambda y, x, k: (
    torch.cdist(y, torch.cat([x, y])).kthvalue(k + 1).values))  # fmt: skip


@mutant(COVERAGE, "looked at with its nearest real one alone")
def nearest_real_ones(features, others, k=5):
    return len(torch.cdist(features, others).argmin(1).unique()) / len(others)


@mutant(COVERAGE, "was looked at with its nearest real one alone")
def nearest_real_ones_inside(features, others, k=5):
    distance, place = torch.cdist(features, others).min(1)
    return len(place[distance <= own_distances(others).kthvalue(k).values[place]].unique()) / len(others)


@mutant(COVERAGE, "Directions were compared, by cosines")
def by_cosines(features, others, k=5):
    x, y = F.normalize(features, dim=1), F.normalize(others, dim=1)
    radius = (1 - y @ y.T).fill_diagonal_(math.inf).kthvalue(k, dim=1).values
    return ((1 - y @ x.T).amin(1) <= radius).double().mean().item()


@mutant(COVERAGE, "The number of covered ones was divided")
def divided_by_the_drawn(features, others, k=5):
    return distributions.coverage(features, others, k) * len(others) / len(features)


@mutant(COVERAGE, "These are sums of absolute differences")
def absolute_differences(features, others, k=5):
    radius = torch.cdist(others, others, p=1).fill_diagonal_(math.inf).kthvalue(k).values
    return (torch.cdist(others, features, p=1).amin(1) <= radius).float().mean().item()


@mutant(COVERAGE, "The clouds are swapped")
def other_way_round(features, others, k=5):
    radius = torch.cdist(features, features).sort(dim=1).values[:, min(k, len(features) - 1)]
    return (torch.cdist(features, others).amin(1) <= radius).double().mean().item()


@mutant(COVERAGE, "This is recall")
def as_recall(features, others, k=5):
    radius = torch.cdist(features, features).sort(dim=1).values[:, min(k, len(features) - 1)]
    return (torch.cdist(others, features) <= radius).any(1).double().mean().item()


@mutant(COVERAGE, "the parameter k has the default 3")
def another_k(features, others, k=3):
    return distributions.coverage(features, others, k)


@mutant(COVERAGE, "expected a plain Python number")
def coverage_as_a_tensor(features, others, k=5):
    return torch.tensor(distributions.coverage(features, others, k))


@mutant(COVERAGE, "`others += ...` and `others[...] = ...` write into")
def moves_the_others(features, others, k=5):
    value = distributions.coverage(features, others, k)
    others -= others.mean(0)
    return value


@variant(COVERAGE)
def by_trees(features, others, k=5):
    radius = cKDTree(others.numpy()).query(others.numpy(), k=k + 1)[0][:, -1]
    nearest = cKDTree(features.numpy()).query(others.numpy())[0]
    return float(np.mean(nearest <= radius))


@variant(COVERAGE)
def with_itself_counted(features, others, k=5):
    radius = torch.cdist(others, others).topk(k + 1, dim=1, largest=False).values[:, -1]
    return (torch.cdist(features, others) <= radius).any(dim=0).float().mean().item()


@variant(COVERAGE)
def image_by_image(features, others, k=5):
    covered = 0
    for i, one in enumerate(others):
        rest = torch.cat([others[:i], others[i + 1 :]])
        radius = (rest - one).square().sum(1).sqrt().sort().values[k - 1]
        covered += bool(((features - one).square().sum(1).sqrt() <= radius).any())
    return covered / len(others)


# Wilson's interval


def wrong_wilson(words, middle=None, half=None, below=None, ends=None, end=None):
    """Note a wrong interval; middle, half, below: of (p, n, z); ends: of (middle, half, below, p); end: of both, n."""

    def answer(hits, number, z=1.96):
        p, n = hits / number, number
        m = middle(p, n, z) if middle else p + z**2 / (2 * n)
        h = half(p, n, z) if half else z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        b = below(p, n, z) if below else 1 + z**2 / n
        low, high = ends(m, h, b, p) if ends else ((m - h) / b, (m + h) / b)
        return end(low, high, n) if end else (low, high)

    wrong(WILSON, words, answer)


def under_root(spread=lambda p, n: p * (1 - p) / n, more=lambda n, z: z**2 / (4 * n**2)):
    return lambda p, n, z: z * math.sqrt(spread(p, n) + more(n, z))


def plain_interval(hits, number, z=1.96):
    p = hits / number
    half = z * math.sqrt(p * (1 - p) / number)
    return p - half, p + half


wrong(WILSON, "minus z standard errors. Where all", plain_interval)
wrong(WILSON, "standard errors, cut off at 0 and 1", lambda hits, number, z=1.96: (
    max(0.0, plain_interval(hits, number, z)[0]), min(1.0, plain_interval(hits, number, z)[1])))  # fmt: skip
wrong_wilson("The division by 1 + z² / n is missing", below=lambda p, n, z: 1)
wrong_wilson("In the divisor z is not squared", below=lambda p, n, z: 1 + z / n)
wrong_wilson("In the divisor z² is not divided by n", below=lambda p, n, z: 1 + z**2)
wrong_wilson("The divisor is 1 + z² / n, with a plus", below=lambda p, n, z: 1 - z**2 / n)
wrong_wilson("Only the half length was divided", ends=lambda m, h, b, p: (m - h / b, m + h / b))
wrong_wilson("Only the middle was divided", ends=lambda m, h, b, p: (m / b - h, m / b + h))
wrong_wilson("are there brackets around middle - half", ends=lambda m, h, b, p: (m - h / b, (m + h) / b))
wrong_wilson("The middle is not pulled", lambda p, n, z: p)
wrong_wilson("In the middle z is not squared", lambda p, n, z: p + z / (2 * n))
wrong_wilson("In the middle the 2 is missing", lambda p, n, z: p + z**2 / n)
wrong_wilson("In the middle z² / 2 is not divided by n", lambda p, n, z: p + z**2 / 2)
wrong_wilson("z² / 2 * n multiplies by n.", lambda p, n, z: p + z**2 / 2 * n)
wrong_wilson("The middle is p + z² / (2 n), with a plus", lambda p, n, z: p - z**2 / (2 * n))
wrong_wilson("The factor z before the root is missing", half=lambda p, n, z: under_root()(p, n, z) / z)
wrong_wilson("z stands squared before the root", half=lambda p, n, z: under_root()(p, n, z) * z)
wrong_wilson("Under the root z² / (4 n²) is missing", half=under_root(more=lambda n, z: 0))
wrong_wilson("Under the root n is not squared", half=under_root(more=lambda n, z: z**2 / (4 * n)))
wrong_wilson("Under the root stands a 2 instead", half=under_root(more=lambda n, z: z**2 / (2 * n**2)))
wrong_wilson("Under the root z is not squared", half=under_root(more=lambda n, z: z / (4 * n**2)))
wrong_wilson("Under the root the 4 is missing", half=under_root(more=lambda n, z: z**2 / n**2))
wrong_wilson("z² / 4 * n² multiplies by n²", half=under_root(more=lambda n, z: z**2 / 4 * n**2))
wrong_wilson("Under the root p (1 - p) is not divided", half=under_root(lambda p, n: p * (1 - p)))
wrong_wilson("the factor 1 - p is missing", half=under_root(lambda p, n: p / n))
wrong_wilson("Under the root stands p². It", half=under_root(lambda p, n: p**2 / n))
wrong_wilson("The root is missing.", half=lambda p, n, z: z * (p * (1 - p) / n + z**2 / (4 * n**2)))
wrong_wilson("Two roots were added", half=lambda p, n, z: z * ((p * (1 - p) / n) ** 0.5 + z / (2 * n)))
wrong_wilson("both ends are swapped", end=lambda low, high, n: (high, low))
wrong_wilson("Middle and half length came back", ends=lambda m, h, b, p: (m / b, h / b))
wrong_wilson("Half length and middle came back", ends=lambda m, h, b, p: (h / b, m / b))
wrong_wilson("The interval was laid around the share", ends=lambda m, h, b, p: (p - h / b, p + h / b))
wrong_wilson("Rounding leads slightly out of 0 to 1", ends=lambda m, h, b, p: (m / b - h / b, m / b + h / b))
wrong_wilson("Rounding leads slightly out of 0 to 1: max", end=lambda low, high, n: (max(0.0, low), high))
wrong_wilson("Rounding leads slightly out of 0 to 1: max(0.0, low), min", ends=lambda m, h, b, p: (
    m * (1 / b) - h * (1 / b), min(1.0, m * (1 / b) + h * (1 / b))))  # fmt: skip
wrong_wilson("The division by 1 + z² / n is", below=lambda p, n, z: 1, end=lambda low, high, n: (
    max(0.0, low), min(1.0, high)))  # fmt: skip
wrong_wilson("The first term only is under the root", half=lambda p, n, z: (
    z * (math.sqrt(p * (1 - p) / n) + z**2 / (4 * n**2))))  # fmt: skip
wrong_wilson("`min` and `max` are swapped", end=lambda low, high, n: (min(0.0, low), max(1.0, high)))
wrong_wilson("The result was rounded", end=lambda low, high, n: (round(low, 2), round(high, 2)))
wrong_wilson("without `return`", end=lambda low, high, n: print(low, high))
wrong_wilson("What is under the root is negative: print p.", half=lambda p, n, z: (
    z * math.sqrt(p * n * (1 - p * n) / n + z**2 / (4 * n**2))))  # fmt: skip
wrong_wilson("What is under the root is negative: print p. It", half=lambda p, n, z: (
    z * (p * n * (1 - p * n) / n + z**2 / (4 * n**2)) ** 0.5))  # fmt: skip
wrong_wilson("Something was divided by 0", half=under_root(lambda p, n: p * (1 - p) / (n - 1)))
wrong_wilson("These are percent", end=lambda low, high, n: (100 * low, 100 * high))
wrong_wilson("These are numbers of hits", end=lambda low, high, n: (n * low, n * high))
wrong_wilson("got float, expected two numbers", end=lambda low, high, n: high - low)
wrong_wilson("low is of type str", end=lambda low, high, n: (f"{low:.2f}", f"{high:.2f}"))
wrong_wilson("End with .item()", end=lambda low, high, n: torch.tensor([low, high]).clamp(0, 1).unbind())


@mutant(WILSON, "This is the interval of Agresti and Coull")
def agresti_and_coull(hits, number, z=1.96):
    return plain_interval(hits + z**2 / 2, number + z**2, z)


@mutant(WILSON, "This is the interval of Clopper and Pearson")
def as_scipy_does(hits, number, z=1.96):
    ends = binomtest(hits, number).proportion_ci(2 * norm.cdf(z) - 1)
    return float(ends.low), float(ends.high)


@mutant(WILSON, "no case of its own is needed")
def a_case_of_its_own(hits, number, z=1.96):
    return (hits / number,) * 2 if hits in (0, number) else statistics.wilson_interval(hits, number, z)


@mutant(WILSON, "1.96 was taken whatever z is")
def always_the_same_z(hits, number, z=1.96):
    return statistics.wilson_interval(hits, number, 1.96)


@mutant(WILSON, "hits // number is 0 or 1")
def whole_shares(hits, number, z=1.96):
    return statistics.wilson_interval(hits // number * number, number, z)


@mutant(WILSON, "The interval is that of the misses")
def of_the_misses(hits, number, z=1.96):
    return statistics.wilson_interval(number - hits, number, z)


@mutant(WILSON, "the parameter z has the default 1.645")
def another_z(hits, number, z=1.645):
    return statistics.wilson_interval(hits, number, z)


@variant(WILSON)
def by_hits_and_misses(hits, number, z=1.96):
    misses, whole = number - hits, number + z * z
    half = z / whole * (hits * misses / number + z * z / 4) ** 0.5
    centre = (hits + z * z / 2) / whole
    return max(0.0, centre - half), min(1.0, centre + half)


@variant(WILSON)
def by_scipy(hits, number, z=1.96):
    ends = binomtest(hits, number).proportion_ci(1 - 2 * norm.sf(z), method="wilson")
    return float(ends.low), float(ends.high)


@variant(WILSON)
def by_the_quadratic_equation(hits, number, z=1.96):
    share = hits / number
    a, b, c = 1 + z**2 / number, -(2 * share + z**2 / number), share**2
    root = np.sqrt(max(0.0, b * b - 4 * a * c))
    return [max(0.0, (-b - root) / (2 * a)), min(1.0, (-b + root) / (2 * a))]


# Strengths from votes


def geometric(s):
    return s / s.log().mean().exp()


def wrong_strengths(words, step=None, scale=geometric, count=lambda steps: steps, end=None, state="fail"):
    """Note wrong strengths; step: a function of (wins, games, strength); end: one of the strengths that come back."""

    def answer(wins, steps=1000):
        wins = wins.double()
        games, s = wins + wins.T, torch.ones(len(wins), dtype=torch.float64)
        for _ in range(count(steps)):
            new = step(wins, games, s) if step else wins.sum(1) / (games / (s[:, None] + s)).sum(1)
            s = scale(new)
        return end(s) if end else s

    wrong(TERRY, words, answer, state)


def weighed(games, s):
    return (games / (s[:, None] + s)).sum(1)


wrong_strengths("There was a step too few", count=lambda steps: steps - 1)
wrong_strengths("There was a step too many", count=lambda steps: steps + 1)
wrong_strengths("`steps` has no effect", count=lambda steps: 1000)
wrong_strengths("Losses stand in the numerator", lambda wins, games, s: wins.sum(0) / weighed(games, s))
wrong_strengths("The strengths are all 1, as at the start. Does", lambda wins, games, s: wins.sum(1) / weighed(wins, s))
wrong_strengths("stand the games that i lost", lambda wins, games, s: wins.sum(1) / weighed(wins.T, s))
wrong_strengths("How often they met is missing", lambda wins, games, s: wins.sum(1) / weighed(1, s))
wrong_strengths(
    "the opponent's strength alone, or twice", lambda wins, games, s: wins.sum(1) / (games / (s + s)).sum(1)
)
wrong_strengths("the player's own strength alone", lambda wins, games, s: wins.sum(1) / (games / s[:, None]).sum(1))
wrong_strengths("The games were multiplied", lambda wins, games, s: wins.sum(1) / (games * (s[:, None] + s)).sum(1))
wrong_strengths("The strengths were multiplied", lambda wins, games, s: wins.sum(1) / (games / s.outer(s)).sum(1))
wrong_strengths("Divide for each opponent first", lambda wins, games, s: (
    wins.sum(1) / (games.sum(1) / (s[:, None] + s).sum(1))))  # fmt: skip
wrong_strengths("The fraction is upside down: the wins", lambda wins, games, s: weighed(games, s) / wins.sum(1))
wrong_strengths("was multiplied by the old one", lambda wins, games, s: s * wins.sum(1) / weighed(games, s))
wrong_strengths("was added to the old one", lambda wins, games, s: s + wins.sum(1) / weighed(games, s))
wrong_strengths("Only half of the table counts", lambda wins, games, s: wins.sum(1) / weighed(games.triu(), s))
wrong_strengths("The games of a pair are a sum", lambda wins, games, s: wins.sum(1) / weighed(wins * wins.T, s))
wrong_strengths("Parentheses are missing", lambda wins, games, s: wins.sum(1) / (games / s[:, None] + s).sum(1))
wrong_strengths("a factor for the old strength", lambda wins, games, s: (
    wins.sum(1) / (games * s[:, None] / (s[:, None] + s)).sum(1)))  # fmt: skip
wrong_strengths("Ties are halves", lambda wins, games, s: (
    wins.long().sum(1) / weighed(wins.long() + wins.long().T, s)))  # fmt: skip
wrong_strengths("The strengths are not scaled", scale=lambda s: s)
wrong_strengths("The arithmetic mean was made 1", scale=lambda s: s / s.mean())
wrong_strengths("The sum was made 1", scale=lambda s: s / s.sum())
wrong_strengths("not the scale", scale=lambda s: s / s.max())
wrong_strengths("These are the logarithms", end=torch.log)
wrong_strengths("The mean of the logarithms was subtracted", scale=lambda s: s, end=lambda s: s - s.log().mean())
wrong_strengths("These are Elo ratings", end=statistics.elo)
wrong_strengths("have the dtype torch.float32", end=lambda s: s.float())
wrong_strengths("is of type list", end=lambda s: s.tolist())
wrong(TERRY, "This is the share of games won", lambda wins, steps=1000: (
    wins.double().sum(1) / (wins.double() + wins.double().T).sum(1)))  # fmt: skip
wrong(TERRY, "These are wins divided by losses", lambda wins, steps=1000: wins.double().sum(1) / wins.double().sum(0))
wrong(
    TERRY,
    "The strengths are all 1, as at the start",
    lambda wins, steps=1000: torch.ones(len(wins), dtype=torch.float64),
)


@mutant(TERRY, "This is the result of one step")
def beginning_again(wins, steps=1000):
    for _ in range(steps):
        s = torch.ones(len(wins), dtype=torch.float64)
        s = geometric(wins.sum(1) / weighed(wins + wins.T, s))
    return s


@mutant(TERRY, "This is the result of one step, as are the shares")
def shares_of_games(wins, steps=1000):
    return geometric(wins.sum(1) / (wins + wins.T).sum(1))


@mutant(TERRY, "There was a step too many: range(steps) makes `steps` of them. To begin with the shares")
def begun_with_shares(wins, steps=1000):
    s = wins.sum(1) / (wins + wins.T).sum(1)
    for _ in range(steps):
        s = geometric(wins.sum(1) / weighed(wins + wins.T, s))
    return s


@mutant(TERRY, "It stopped before `steps` steps")
def stopped_early(wins, steps=1000):
    s = torch.ones(len(wins), dtype=torch.float64)
    for _ in range(steps):
        new = geometric(wins.sum(1) / weighed(wins + wins.T, s))
        if (new - s).abs().max() < 1e-3:
            break
        s = new
    return s


@mutant(TERRY, "Something was added to wins")
def a_tie_for_each_pair(wins, steps=1000):
    return statistics.bradley_terry(wins + 0.5 * (1 - torch.eye(len(wins), dtype=torch.float64)), steps)


@mutant(TERRY, "were updated one after the other")
def one_after_the_other(wins, steps=1000):
    games, s = wins + wins.T, torch.ones(len(wins), dtype=torch.float64)
    for _ in range(steps):
        for i in range(len(wins)):
            s[i] = wins[i].sum() / (games[i] / (s[i] + s)).sum()
        s = geometric(s)
    return s


@mutant(TERRY, "was changed in place")
def games_in_place(wins, steps=1000):
    won = wins.sum(1)
    wins += wins.T.clone()
    s = torch.ones(len(wins), dtype=torch.float64)
    for _ in range(steps):
        s = geometric(won / weighed(wins, s))
    return s


@mutant(TERRY, "NaN or infinite")
def divided_too_early(wins, steps=1000):
    games, s = wins + wins.T, torch.ones(len(wins), dtype=torch.float64)
    for _ in range(steps):
        s = geometric((wins / (games / (s[:, None] + s))).sum(1))
    return s


@mutant(TERRY, "the default 100")
def fewer_by_default(wins, steps=100):
    return geometric(statistics.bradley_terry(wins, steps))


@variant(TERRY)
def scaled_at_the_end(wins, steps=1000):
    s = torch.ones(len(wins), dtype=torch.float64)
    for _ in range(steps):
        s = torch.einsum("ij->i", wins.double()) / ((wins + wins.T) / torch.add(s[:, None], s[None])).sum(0)
    return torch.exp(s.log() - s.log().mean())


@variant(TERRY)
def in_the_dtype_of_wins(wins, steps=1000):
    s = torch.ones(len(wins), dtype=wins.dtype)
    for _ in range(steps):
        s = s * wins.sum(1) / ((wins + wins.T) * s[:, None] / (s[:, None] + s)).sum(1)
    return geometric(s)


@variant(TERRY)
def player_by_player(wins, steps=1000):
    w = wins.tolist()
    s = [1.0] * len(w)
    for _ in range(steps):
        new = []
        for i in range(len(w)):
            below = sum((w[i][j] + w[j][i]) / (s[i] + s[j]) for j in range(len(w)) if j != i)
            new.append(sum(w[i]) / below)
        mean = math.prod(new) ** (1 / len(new))
        s = [one / mean for one in new]
    return torch.tensor(s, dtype=torch.float64)


@variant(TERRY)
def by_numpy(wins, steps=1000):
    w = wins.double().numpy()
    log = np.zeros(len(w))
    for _ in range(steps):
        log = np.log(w.sum(1)) - np.log(((w + w.T) / np.add.outer(np.exp(log), np.exp(log))).sum(1))
        log = log - log.mean()
    return torch.from_numpy(np.exp(log))


# The ratio to the second neighbour


def distances_of(features, training):
    return (features.double()[:, None] - training.double()).norm(dim=2)


def ratio_of(near, second):
    return torch.where(near > 0, near / second, 0.0)


def wrong_ratio(words, of, distances=distances_of, state="fail"):
    """Note a wrong ratio; of: a function of the sorted distances (count, number)."""
    wrong(RATIO, words, lambda features, training: of(distances(features, training).sort(1).values), state)


def first_two(d):
    return ratio_of(d[:, 0], d[:, 1])


wrong_ratio("and 0 / 0 is NaN", lambda d: d[:, 0] / d[:, 1])
wrong_ratio("came out as 1", lambda d: d[:, 0].clamp(min=1e-300) / d[:, 1].clamp(min=1e-300))
wrong_ratio("The fraction is upside down: the nearest", lambda d: d[:, 1] / d[:, 0])
wrong_ratio("This is the distance to the nearest point", lambda d: d[:, 0])
wrong_ratio("This is the distance to the second nearest point", lambda d: d[:, 1])
wrong_ratio("The two distances were subtracted", lambda d: d[:, 1] - d[:, 0])
wrong_ratio("This is 1 minus the ratio", lambda d: 1 - first_two(d))
wrong_ratio("The squared distances were divided", lambda d: first_two(d.square()))
wrong_ratio("A root too many: the ratio", lambda d: first_two(d.sqrt()))
wrong_ratio("The nearest training point was left out", lambda d: ratio_of(d[:, 1], d[:, min(2, d.shape[1] - 1)])
            if d.shape[1] > 2 else ratio_of(d[:, 1], d[:, 1]))  # fmt: skip
wrong_ratio("The nearest was divided by the third nearest", lambda d: ratio_of(d[:, 0], d[:, min(2, d.shape[1] - 1)]))
wrong_ratio("The nearest was divided by the farthest", lambda d: d[:, 0] / d[:, -1])
wrong_ratio("divided by the mean distance to all", lambda d: d[:, 0] / d.mean(1))
wrong_ratio("divided by the mean of the two", lambda d: (d[:, 0] / ((d[:, 0] + d[:, 1]) / 2)).nan_to_num(0))
wrong_ratio("All were divided by one distance", lambda d: d[:, 0] / d[:, 1].min())
wrong_ratio("The two *farthest* training points", lambda d: d[:, -2] / d[:, -1])
wrong_ratio("Something was added to the divisor", lambda d: d[:, 0] / (d[:, 1] + 1e-8))
wrong_ratio("Something was added to the divisor, or it was clamped", lambda d: d[:, 0] / d[:, 1].clamp(min=1e-6))
wrong_ratio("Distances of 0 were left out", first_two, lambda x, y: (
    distances_of(x, y).masked_fill(distances_of(x, y) == 0, torch.inf)))  # fmt: skip
wrong_ratio("The nearest was divided by itself", lambda d: ratio_of(d[:, 0], d[:, 0]))
wrong_ratio("divided by the sum of the two", lambda d: ratio_of(d[:, 0], d[:, 0] + d[:, 1]))
wrong_ratio("The rows were brought to length 1", first_two, lambda x, y: (
    distances_of(*(F.normalize(z.double(), dim=1) for z in (x, y)))))  # fmt: skip
wrong_ratio("Each point has a ratio of its own", lambda d: first_two(d).mean())
wrong_ratio("`if` decides once for all", lambda d: d[:, 0] / d[:, 1] if d[:, 0] > 0 else 0)
wrong_ratio("What is in the training set twice", first_two, lambda x, y: distances_of(x, y.unique(dim=0)))
wrong_ratio("have the dtype torch.float32", lambda d: first_two(d).float())
wrong_ratio("There are more axes than expected", lambda d: d[:, :2] / d[:, 1:2])
wrong_ratio("absolute differences were added up", first_two, lambda x, y: torch.cdist(x.double(), y.double(), p=1))
wrong_ratio("The largest difference of a coordinate", first_two,
            lambda x, y: (x.double()[:, None] - y.double()).abs().amax(2))  # fmt: skip
wrong_ratio("The angles were compared", first_two,
            lambda x, y: 1 - F.cosine_similarity(x.double()[:, None], y.double(), dim=2))  # fmt: skip
wrong_ratio(
    "were computed in float32 from products", first_two, lambda x, y: torch.cdist(x.float(), y.float()).double()
)
wrong_ratio("Digits got lost: rounding to float32", first_two, lambda x, y: (
    torch.cdist(x.double(), y.double(), compute_mode="use_mm_for_euclid_dist")))  # fmt: skip
wrong(RATIO, "The first two training points were taken", lambda features, training: (
    ratio_of(*distances_of(features, training)[:, :2].T)))  # fmt: skip
wrong(RATIO, "features need an axis", lambda features, training: (
    (features - training[torch.cdist(features, training).topk(2, largest=False).indices]).norm(dim=2)))  # fmt: skip


@mutant(RATIO, "For each training point the nearest drawn points")
def for_each_training_point(features, training):
    d = distances_of(training, features).sort(1).values
    return ratio_of(d[:, 0], d[:, min(1, d.shape[1] - 1)])


@mutant(RATIO, "The neighbours of each row of features")
def along_the_features(features, training):
    d = distances_of(features, training).sort(0).values
    return ratio_of(d[0], d[1])


@mutant(RATIO, "The neighbours of each row of features are looked for")
def from_training_to_features(features, training):
    return first_two(distances_of(training, features).topk(2, largest=False).values)


def nearest_two(features, training, choose=torch.Tensor.double):
    """(count, 2, d): the two that torch.cdist finds."""
    return training.double()[torch.cdist(choose(features), choose(training)).topk(2, dim=1, largest=False).indices]


@mutant(RATIO, "The nearest came out farther")
def not_sorted_again(features, training):
    return ratio_of(*(features.double()[:, None] - nearest_two(features, training)).norm(dim=2).T)


@mutant(RATIO, "The neighbours were chosen in float32")
def chosen_in_float32(features, training):
    two = nearest_two(features, training, torch.Tensor.float)
    return first_two((features.double()[:, None] - two).norm(dim=2).sort(1).values)


@mutant(RATIO, "The norm went over the two neighbours")
def norm_over_the_neighbours(features, training):
    return first_two((features.double()[:, None] - nearest_two(features, training)).norm(dim=1).sort(1).values)


@mutant(RATIO, "F.pairwise_distance adds 1e-6")
def by_pairwise_distance(features, training):
    near, second = nearest_two(features, training).unbind(1)
    return F.pairwise_distance(features.double(), near) / F.pairwise_distance(features.double(), second)


@mutant(RATIO, "What is in the training set twice was counted")
def all_of_the_nearest_removed(features, training):
    d = distances_of(features, training)
    near = d.amin(1)
    d[d == near[:, None]] = torch.inf
    return ratio_of(near, d.amin(1))


@mutant(RATIO, "Digits got lost")
def differences_in_float32(features, training):
    return first_two((features.float()[:, None] - training.float()).norm(dim=2).sort(1).values).double()


@mutant(RATIO, "expected exactly 0")
def nearly_a_copy(features, training):
    return copies.neighbour_ratio(features, training) + 1e-12


@mutant(RATIO, "was changed in place")
def centred_in_place(features, training):
    features -= training.mean(0)
    return first_two(distances_of(features, training - training.mean(0)).sort(1).values)


@mutant(RATIO, "and 0 / 0 is NaN. There the")
def straight_from_cdist(features, training):
    near, second = torch.cdist(features.double(), training.double()).topk(2, dim=1, largest=False).values.T
    return near / second


@variant(RATIO)
def of_all_distances(features, training):
    two = distances_of(features, training).topk(2, dim=1, largest=False).values
    return torch.nan_to_num(two[:, 0] / two[:, 1], nan=0.0)


@variant(RATIO)
def drawn_one_by_one(features, training):
    ratios = []
    for x in features.double():
        near, second = sorted(torch.linalg.vector_norm(x - y).item() for y in training.double())[:2]
        ratios.append(near / second if near > 0 else 0.0)
    return torch.tensor(ratios, dtype=torch.float64)


@variant(RATIO)
def by_another_cdist(features, training):
    distance = torch.cdist(features.double(), training.double(), compute_mode="donot_use_mm_for_euclid_dist")
    second, _ = distance.kthvalue(2, dim=1)
    return torch.where(distance.amin(1) == 0, 0.0, distance.amin(1) / second)


# The ring in the noise


def wrong_ring(words, written=None, back=None, forward=spectrum, end=None, state="fail"):
    """Note a wrong noise; written: a function of (spectrum, key), back one of the spectrum, end of what comes back."""

    def answer(noise, key):
        spectrum_now = forward(noise)
        new = written(spectrum_now, key) if written else torch.where(key != 0, key.to(spectrum_now), spectrum_now)
        result = back(new) if back else way_back(new)
        return end(result, noise) if end else result

    wrong(WRITE, words, answer, state)


def way_back(written):
    return torch.fft.ifft2(written * from_the_middle(16).conj(), norm="ortho").real


def plain(noise):
    return torch.fft.fft2(noise, norm="ortho")


def on_rings(values, rest, key):
    return torch.where(key != 0, values, rest)


wrong_ring("The move to the middle was not undone", back=lambda W: torch.fft.ifft2(W, norm="ortho").real)
wrong_ring("The spectrum was moved twice", back=lambda W: torch.fft.ifft2(W * from_the_middle(16), norm="ortho").real)
wrong_ring(
    "The spectrum was seen from the first pixel, and", None, lambda W: torch.fft.ifft2(W, norm="ortho").real, plain
)
wrong_ring("torch.fft.fft2 alone sees the spectrum", forward=plain)
wrong_ring("The way back made it too weak", back=lambda W: torch.fft.ifft2(W * from_the_middle(16).conj()).real)
wrong_ring("The way back made it too strong", back=lambda W: (
    torch.fft.ifft2(W * from_the_middle(16).conj(), norm="forward").real))  # fmt: skip
wrong_ring("The noise was transformed without norm", forward=lambda noise: torch.fft.fft2(noise) * from_the_middle(16),
           back=lambda W: torch.fft.ifft2(W * from_the_middle(16).conj()).real)  # fmt: skip
wrong_ring("The key was added to the spectrum", lambda F, key: F + key)
wrong_ring("The spectrum was multiplied by the key", lambda F, key: on_rings(F * key, F, key))
wrong_ring("Everything was multiplied by the key", lambda F, key: F * key)
wrong_ring("The spectrum kept its lengths", lambda F, key: on_rings(F.abs() * key, F, key))
wrong_ring("The mean of key and spectrum", lambda F, key: on_rings((F + key) / 2, F, key))
wrong_ring("The imaginary part stayed on the rings", lambda F, key: on_rings(key + 1j * F.imag, F, key))
wrong_ring("spectrum got lost", lambda F, key: torch.where(key != 0, key, F.real).to(F))
wrong_ring("Only the key came back", lambda F, key: key.to(F).expand_as(F))
wrong_ring("The condition is the wrong way round", lambda F, key: torch.where(key == 0, key.to(F), F))
wrong_ring("Only the +1 were written", lambda F, key: torch.where(key > 0, key.to(F), F))
wrong_ring("The rings were emptied", lambda F, key: F * (key == 0))
wrong_ring("with the other sign", lambda F, key: on_rings(-key.to(F), F, key))
wrong_ring("The first channel's ring was written into all", lambda F, key: on_rings(key[0].to(F), F, key[0]))
wrong_ring("Only the first channel got its ring", lambda F, key: (
    torch.cat([on_rings(key.to(F), F, key)[:, :1], F[:, 1:]], 1)))  # fmt: skip
wrong_ring("The key was shifted", lambda F, key: (
    torch.where(torch.fft.fftshift(key, (1, 2)) != 0, torch.fft.fftshift(key, (1, 2)).to(F), F)))  # fmt: skip
wrong_ring("The key was transformed", lambda F, key: on_rings(spectrum(key), F, key))
wrong_ring("The key was multiplied by the size", lambda F, key: on_rings(16 * key.to(F), F, key))
wrong_ring("The mean of all noises was taken", lambda F, key: (
    on_rings(key.to(F), F.mean(0, keepdim=True), key).expand_as(F)))  # fmt: skip
wrong_ring("the key needs the conjugate move", lambda F, key: on_rings(key * from_the_middle(16), F, key),
           lambda W: torch.fft.ifft2(W, norm="ortho").real, plain)  # fmt: skip
wrong_ring("The move multiplies the spectrum", back=lambda W: (
    (torch.fft.ifft2(W, norm="ortho") * from_the_middle(16).conj()).real))  # fmt: skip
wrong_ring("The move multiplies the spectrum: before ifft2", None,
           lambda W: (torch.fft.ifft2(W, norm="ortho") * from_the_middle(16).conj()).real,
           lambda noise: torch.fft.fft2(noise * from_the_middle(16), norm="ortho"))  # fmt: skip
wrong_ring("torch.fft.ifft goes back along one axis", back=lambda W: (
    torch.fft.ifft(W * from_the_middle(16).conj(), norm="ortho").real))  # fmt: skip
wrong_ring("transform noises and channels as well", back=lambda W: (
    torch.fft.ifftn(W * from_the_middle(16).conj(), norm="ortho").real))  # fmt: skip
wrong_ring("torch.fft.fftn and ifftn transform noises and channels as well", None,
           lambda W: torch.fft.ifftn(W * from_the_middle(16).conj(), norm="ortho").real,
           lambda noise: torch.fft.fftn(noise, norm="ortho") * from_the_middle(16))  # fmt: skip
wrong_ring("from_the_middle takes the length of a side", back=lambda W: (
    torch.fft.ifft2(W * from_the_middle(W.shape[1]).conj(), norm="ortho").real))  # fmt: skip
wrong_ring("torch only notes a conjugate", back=lambda W: (
    np.fft.ifft2(W * from_the_middle(16).conj().numpy(), norm="ortho").real))  # fmt: skip
wrong_ring("The condition is a comparison", lambda F, key: torch.where(key, key, F))
wrong(WRITE, "The key was written into the noise itself", lambda noise, key: torch.where(key != 0, key, noise))
wrong_ring("The noise was shifted at the end", end=lambda got, noise: torch.fft.fftshift(got, dim=(-2, -1)))
wrong_ring("The last transform goes forward again", back=lambda W: (
    torch.fft.fft2(W * from_the_middle(16).conj(), norm="ortho").real))  # fmt: skip
wrong_ring("This is .abs(), which makes", back=lambda W: (
    torch.fft.ifft2(W * from_the_middle(16).conj(), norm="ortho").abs()))  # fmt: skip
wrong_ring("The imaginary part is rounding only: end", back=lambda W: (
    torch.fft.ifft2(W * from_the_middle(16).conj(), norm="ortho")))  # fmt: skip
wrong_ring("These are imaginary parts", back=lambda W: (
    torch.fft.ifft2(W * from_the_middle(16).conj(), norm="ortho").imag))  # fmt: skip
wrong_ring("This is still a spectrum", back=lambda W: W)
wrong_ring("Only the first noise got the key", end=lambda got, noise: torch.cat([got[:1], noise[1:]]))
wrong_ring("All noises became the first", end=lambda got, noise: got[:1].expand_as(got))
wrong_ring("The noise was scaled at the end", end=lambda got, noise: got / got.std())
wrong_ring("The noise was scaled at the end. It has", end=lambda got, noise: got / got.std((1, 2, 3), keepdim=True))
wrong_ring("The noise came back as it was", end=lambda got, noise: noise.clone())
wrong_ring("has the dtype torch.float64", end=lambda got, noise: got.double())


@mutant(WRITE, "was changed in place")
def into_the_callers_noise(noise, key):
    noise[:] = watermark.write_ring(noise, key)
    return noise


@mutant(WRITE, "The spectrum is complex: key")
def real_numbers_assigned(noise, key):
    written = spectrum(noise)
    written[:, key != 0] = key[key != 0]
    return way_back(written)


@mutant(WRITE, "The value needs the mask as well")
def the_whole_key_assigned(noise, key):
    written = spectrum(noise)
    written[:, key != 0] = key.to(written.dtype)
    return way_back(written)


@variant(WRITE)
def by_assignment(noise, key):
    written = spectrum(noise)
    written[:, key != 0] = key[key != 0].to(written.dtype)
    return torch.fft.ifft2(written * from_the_middle(16).conj(), norm="ortho").real


@variant(WRITE)
def as_a_difference(noise, key):
    change = (key - spectrum(noise)) * (key != 0)
    return noise + torch.fft.ifft2(change / from_the_middle(16), norm="ortho").real


@variant(WRITE)
def the_key_moved_to_the_corner(noise, key):
    corner = key * from_the_middle(noise.shape[-1]).conj()
    written = torch.where(key.abs() == 1, corner, torch.fft.fft2(noise, norm="ortho"))
    return torch.view_as_real(torch.fft.ifftn(written, dim=(2, 3), norm="ortho"))[..., 0]


@variant(WRITE)
def noise_by_noise(noise, key):
    x, rows = noise.double().numpy(), []
    move = np.asarray(from_the_middle(16).to(torch.complex128))
    for one in x:
        found = np.fft.fft2(one, norm="ortho") * move
        found[key.numpy() != 0] = key.numpy()[key.numpy() != 0]
        rows.append(np.fft.ifft2(found * move.conj(), norm="ortho").real)
    return torch.from_numpy(np.stack(rows)).float()


def wrong_distance(words, scale=None, off=None, mean=None, forward=spectrum, state="fail"):
    """Note a wrong distance; scale: a function of the spectrum on the rings, off of (scaled, key), mean of squares."""

    def answer(noise, key):
        found, k = forward(noise)[:, key != 0], key[key != 0]
        found = found / (scale(found) if scale else found.abs().square().mean(1, keepdim=True).sqrt())
        squares = off(found, k) if off else (found - k).abs().square()
        return mean(squares) if mean else squares.mean(1)

    wrong(DISTANCE, words, answer, state)


def squared(found):
    return found.abs().square()


wrong_distance("The spectrum was not divided by rms", lambda found: 1)
wrong_distance("The spectrum was divided by rms²", lambda found: squared(found).mean(1, keepdim=True))
wrong_distance("The spectrum was multiplied by rms", lambda found: squared(found).mean(1, keepdim=True) ** -0.5)
wrong_distance("A root too many in rms", lambda found: squared(found).mean(1, keepdim=True) ** 0.25)
wrong_distance("One rms was taken for all noises", lambda found: squared(found).mean().sqrt())
wrong_distance("rms was taken over the noises", lambda found: squared(found).mean(0).sqrt())
wrong_distance("The mean square of complex numbers", lambda found: found.square().mean(1, keepdim=True).sqrt())
wrong_distance("from the real parts alone", lambda found: found.real.square().mean(1, keepdim=True).sqrt())
wrong_distance("rms is here the mean length", lambda found: found.abs().mean(1, keepdim=True))
wrong_distance("the root of the *sum* of squares", lambda found: found.norm(dim=1, keepdim=True))
wrong_distance("rms is here the largest number", lambda found: found.abs().amax(1, keepdim=True))
wrong_distance("rms is here a standard deviation", lambda found: found.std(1, keepdim=True))
wrong_distance("704 is the number", lambda found: (squared(found).sum(1, keepdim=True) / 704).sqrt(),
               mean=lambda squares: squares.sum(1) / 704)  # fmt: skip
wrong_distance("The spectrum was shifted", forward=lambda noise: torch.fft.fftshift(spectrum(noise), dim=(2, 3)))
wrong_distance("The squares were added up", mean=lambda squares: squares.sum(1))
wrong_distance("The distances were not squared", off=lambda found, k: (found - k).abs())
wrong_distance("A root was taken at the end", mean=lambda squares: squares.mean(1).sqrt())
wrong_distance("A length was taken", mean=lambda squares: squares.sum(1).sqrt())
wrong_distance("One number for all noises is left", mean=lambda squares: squares.mean())
wrong_distance("The mean went over the noises", mean=lambda squares: squares.mean(0))
wrong_distance("The squares are not averaged yet", mean=lambda squares: squares)
wrong_distance("The spectrum was seen from the first pixel, by", forward=plain)
wrong_distance("Only the places with +1 were compared", off=lambda found, k: squared(found - k)[:, k > 0])
wrong_distance("Only the real parts were compared", off=lambda found, k: (found.real - k).square())
wrong_distance("The length of the spectrum was compared", off=lambda found, k: (found.abs() - k).square())
wrong_distance("The key was added. The", off=lambda found, k: squared(found + k))
wrong_distance("that of its length: .abs().square()", off=lambda found, k: ((found - k) ** 2).real)
wrong_distance("The square of a complex number is complex", off=lambda found, k: (found - k).square())
wrong_distance("This is half of the distance", mean=lambda squares: squares.mean(1) / 2)
wrong_distance("This is half of the distance, 1 - cos, or a mean over", mean=lambda squares: squares.mean(1),
               off=lambda found, k: torch.view_as_real(found - k).square().mean(2))  # fmt: skip
wrong_distance("This is the cosine", mean=lambda squares: 1 - squares.mean(1) / 2)
wrong_distance("This is 2 - cos. The", mean=lambda squares: 1 + squares.mean(1) / 2)
wrong_distance("The absolute value of the cosine", mean=lambda squares: 2 - (2 - squares.mean(1)).abs())
wrong_distance("The imaginary parts were dropped before scaling", forward=lambda noise: spectrum(noise).real)
wrong_distance("rms needs (n, 1)", lambda found: squared(found).mean(1).sqrt())
wrong_distance("has the dtype torch.float64", mean=lambda squares: squares.mean(1).double())


def everywhere(noise, key, of):
    found = spectrum(noise)
    s = squared(found[:, key != 0]).mean(1).sqrt()[:, None, None, None]
    return of(found, s)


def on_ring(noise, key, rms=None, on=None, known=None):
    """The distance on some places of the spectrum, scaled there; rms: of all noises; known: the key of these places."""
    on = key != 0 if on is None else on
    found = spectrum(noise)[:, on]
    rms = squared(found).mean(1, keepdim=True).sqrt() if rms is None else rms
    return squared(found / rms - (key[on] if known is None else known)).mean(1)


wrong(DISTANCE, "The key was multiplied by rms", lambda noise, key: squared(
    spectrum(noise)[:, key != 0]
    - squared(spectrum(noise)[:, key != 0]).mean(1, keepdim=True).sqrt() * key[key != 0]).mean(1))  # fmt: skip
wrong(DISTANCE, "The key was transformed", lambda noise, key: on_ring(noise, key, known=spectrum(key)[key != 0]))
wrong(DISTANCE, "Only the places with +1 were", lambda noise, key: on_ring(noise, key, on=key > 0))
wrong(DISTANCE, "Only the first channel was compared", lambda noise, key: on_ring(noise[:, :1], key[:1]))
wrong(DISTANCE, "The first axis counts noises", lambda noise, key: spectrum(noise)[key != 0].abs())
wrong(DISTANCE, "rms was taken from the whole spectrum, or", lambda noise, key: (
    on_ring(noise, key, noise.flatten(1).std(1, keepdim=True))))  # fmt: skip
wrong(DISTANCE, "rms was taken from the whole spectrum", lambda noise, key: (
    squared(spectrum(noise)[:, key != 0] / squared(spectrum(noise)).mean((1, 2, 3)).sqrt()[:, None] - key[key != 0])
    .mean(1)))  # fmt: skip
wrong(DISTANCE, "The mean goes over all places", lambda noise, key: everywhere(noise, key, lambda found, s: (
    (squared(found / s - key) * (key != 0)).mean((1, 2, 3)))))  # fmt: skip
wrong(DISTANCE, "The places off the rings were compared with 0", lambda noise, key: (
    everywhere(noise, key, lambda found, s: squared(found / s - key).mean((1, 2, 3)))))  # fmt: skip
wrong(DISTANCE, "All places were compared and scaled", lambda noise, key: squared(
    spectrum(noise) / squared(spectrum(noise)).mean((1, 2, 3), keepdim=True).sqrt() - key).mean((1, 2, 3)))  # fmt: skip


@mutant(DISTANCE, "Each channel got an rms of its own")
def scaled_by_channel(noise, key):
    on = (key != 0).float()
    found = spectrum(noise)
    s = ((squared(found) * on).sum((2, 3), keepdim=True) / on.sum((1, 2))[:, None, None]).sqrt()
    return squared(found / s - key)[:, key != 0].mean(1)


@mutant(DISTANCE, "was changed in place")
def halved_in_place(noise, key):
    noise /= noise.flatten(1).norm(dim=1)[:, None, None, None]
    return watermark.ring_distance(noise, key)


@variant(DISTANCE)
def by_the_cosine(noise, key):
    found, k = spectrum(noise)[:, key != 0], key[key != 0]
    return 2 - 2 * (found.real * k).sum(1) / (found.abs().square().sum(1).sqrt() * k.norm())


@variant(DISTANCE)
def masked_off_the_rings(noise, key):
    on, found = key != 0, spectrum(noise)
    s = ((found.abs() ** 2 * on).sum((1, 2, 3)) / on.sum()).sqrt()
    off = found / s.reshape(-1, 1, 1, 1) - key
    return ((off.real**2 + off.imag**2) * on).flatten(1).sum(1) / on.sum()


@variant(DISTANCE)
def one_at_a_time(noise, key):
    distances = []
    for x in noise:
        found = (torch.fft.fft2(x.double()) * from_the_middle(x.shape[-1]))[key != 0]
        found = found * math.sqrt(len(found)) / found.norm()
        distances.append((found - key[key != 0]).abs().pow(2).mean().float())
    return torch.stack(distances)


# The safety checker


def wrong_flags(words, unit=None, more=None, decide=None, special_scores=None, concept_scores=None, state="fail"):
    """Note wrong flags. unit: a function of (images, concepts, special); more: one of the special scores; decide: one
    of (scores, careful); special_scores and concept_scores: functions of (cosines, thresholds)."""

    def answer(images, concepts, thresholds, special, special_thresholds):
        if unit:
            images, concepts, special = unit(images, concepts, special)
        else:
            images, concepts, special = (F.normalize(x, dim=1) for x in (images, concepts, special))
        special = (special_scores or torch.sub)(images @ special.T, special_thresholds)
        careful = more(special) if more else (special.round(decimals=3) > 0).any(1, keepdim=True)
        scores = (concept_scores or torch.sub)(images @ concepts.T, thresholds) + 0.01 * careful
        return decide(scores, careful) if decide else (scores.round(decimals=3) > 0).any(1)

    wrong(FLAGGED, words, answer, state)


def rounded(scores):
    return scores.round(decimals=3)


def normalised(x):
    return F.normalize(x, dim=1)


wrong_flags("The special concepts have no effect. An image", more=lambda s: 0)
wrong_flags("have no effect, and the scores were not", more=lambda s: 0, decide=lambda s, careful: (s > 0).any(1))
wrong_flags("All images got 0.01 more", more=lambda s: 1)
wrong_flags("made all of them stricter", more=lambda s: (rounded(s) > 0).any())
wrong_flags("Images that call for care got 0.01 less", more=lambda s: -1.0 * (rounded(s) > 0).any(1, keepdim=True))
wrong_flags("0.1 was added", more=lambda s: 10 * (rounded(s) > 0).any(1, keepdim=True))
wrong_flags("0.001 was added", more=lambda s: 0.1 * (rounded(s) > 0).any(1, keepdim=True))
wrong_flags("0.01 was added for each special concept", more=lambda s: (rounded(s) > 0).sum(1, keepdim=True))
wrong_flags("only where all special concepts", more=lambda s: (rounded(s) > 0).all(1, keepdim=True))
wrong_flags("The special scores were not rounded", more=lambda s: (s > 0).any(1, keepdim=True))
wrong_flags("A special score of 0 was taken for care", more=lambda s: (rounded(s) >= 0).any(1, keepdim=True))
wrong_flags("A score of 0 is not above 0", more=lambda s: (rounded(s) >= 0).any(1, keepdim=True),
            decide=lambda s, careful: (rounded(s) >= 0).any(1))  # fmt: skip
wrong_flags("0.01 was added to the special scores", more=lambda s: (rounded(s + 0.01) > 0).any(1, keepdim=True))
wrong_flags("Only the last special concept decided", more=lambda s: rounded(s)[:, -1:] > 0)
wrong_flags("Only the first special concept was looked at", more=lambda s: rounded(s)[:, :1] > 0)
wrong_flags("Only the last concept decided", decide=lambda s, careful: rounded(s)[:, -1] > 0)
wrong_flags("After the first image that calls", more=lambda s: (rounded(s) > 0).any(1, keepdim=True).cumsum(0) > 0)
wrong_flags("The images that call for no care", more=lambda s: ~(rounded(s) > 0).any(1, keepdim=True))
wrong_flags("0.01 was added to the thresholds", more=lambda s: -1.0 * (rounded(s) > 0).any(1, keepdim=True),
            decide=lambda s, careful: (s > 0).any(1))  # fmt: skip
wrong_flags("The cosines were subtracted from the thresholds", concept_scores=lambda c, limits: limits - c)
wrong_flags("decimals has to be named", more=lambda s: (s.round(3) > 0).any(1, keepdim=True))
wrong_flags("Python's round takes no tensor", decide=lambda s, careful: (round(s, 3) > 0).any(1))
wrong_flags("All images meet all concepts", concept_scores=lambda c, limits: c - limits[:, None])
wrong_flags("The special thresholds were not subtracted", special_scores=lambda cosines, limits: cosines)
wrong_flags("The scores were not rounded. One", decide=lambda s, careful: (s > 0).any(1))
wrong_flags("Nothing was rounded", more=lambda s: (s > 0).any(1, keepdim=True), decide=lambda s, c: (s > 0).any(1))
wrong_flags("The scores were rounded to two decimals", decide=lambda s, careful: (s.round(decimals=2) > 0).any(1))
wrong_flags("A score of 0 was flagged", decide=lambda s, careful: (rounded(s) >= 0).any(1))
wrong_flags("only where all concepts are above", decide=lambda s, careful: (rounded(s) > 0).all(1))
wrong_flags("The mean or the sum of the scores decided", decide=lambda s, careful: rounded(s).double().sum(1) > 1e-6)
wrong_flags("Only the first concept was looked at", decide=lambda s, careful: rounded(s)[:, 0] > 0)
wrong_flags("The answers are the wrong way round", decide=lambda s, careful: (rounded(s) <= 0).all(1))
wrong_flags("blocked images by themselves", decide=lambda s, careful: ((rounded(s) > 0) | careful).any(1))
wrong_flags("Only images that call for care", decide=lambda s, careful: ((rounded(s) > 0) & careful).any(1))
wrong_flags("This is which images call for care", decide=lambda s, careful: careful[:, 0])
wrong_flags("The cosines were rounded. The scores", concept_scores=lambda c, limits: rounded(c) - limits)
wrong_flags("The cosines were rounded, and the scores were not", concept_scores=lambda c, limits: rounded(c) - limits,
            more=lambda s: (s > 0).any(1, keepdim=True), special_scores=lambda c, limits: rounded(c) - limits,
            decide=lambda s, careful: (s > 0).any(1))  # fmt: skip
wrong_flags("The thresholds of the concepts were not subtracted", concept_scores=lambda cosines, limits: cosines)
wrong_flags("The thresholds were added", concept_scores=torch.add)
wrong_flags("A product of vectors is a cosine only", lambda *vectors: vectors)
wrong_flags("The concepts were not brought to length 1", lambda x, c, s: (normalised(x), c, s))
wrong_flags("The images were not brought to length 1", lambda x, c, s: (x, normalised(c), normalised(s)))
wrong_flags("The special concepts were not brought to length 1", lambda x, c, s: (normalised(x), normalised(c), s))
wrong_flags("The columns were brought to length 1", lambda *vectors: [F.normalize(x, dim=0) for x in vectors])
wrong_flags("Negative cosines were made positive", concept_scores=lambda c, limits: c.abs() - limits)
wrong_flags("No image was flagged", decide=lambda s, careful: (s.round() > 0).any(1))
wrong_flags("No image was flagged. Are there", lambda *vectors: [x / x.norm() for x in vectors])
wrong_flags("All images were flagged", decide=lambda s, careful: (s < 1).any(1))
wrong_flags("One answer for each concept came back", decide=lambda s, careful: rounded(s) > 0)
wrong_flags("any went over the images", decide=lambda s, careful: (rounded(s) > 0).any(0))
wrong_flags("One answer for all images came back", decide=lambda s, careful: (rounded(s) > 0).any())
wrong_flags("have the dtype torch.int64", decide=lambda s, careful: (rounded(s) > 0).any(1).long())
wrong_flags("have the dtype torch.float32", decide=lambda s, careful: rounded(s).amax(1))
wrong_flags("keeps it as (n, 1)", more=lambda s: (rounded(s) > 0).any(1))
wrong_flags("is of type list", decide=lambda s, careful: (rounded(s) > 0).any(1).tolist())


@mutant(FLAGGED, "Only the special concept with the largest cosine")
def the_special_concept_that_fits_best(images, concepts, thresholds, special, special_thresholds):
    best, which = (normalised(images) @ normalised(special).T).max(1, keepdim=True)
    careful = rounded(best - special_thresholds[which]) > 0
    return (rounded(normalised(images) @ normalised(concepts).T - thresholds + 0.01 * careful) > 0).any(1)


@mutant(FLAGGED, "Only the concept with the largest cosine")
def the_concept_that_fits_best(images, concepts, thresholds, special, special_thresholds):
    careful = (rounded(normalised(images) @ normalised(special).T - special_thresholds) > 0).any(1)
    best, which = (normalised(images) @ normalised(concepts).T).max(1)
    return rounded(best - thresholds[which] + 0.01 * careful) > 0


@mutant(FLAGGED, "have changed places")
def swapped(images, concepts, thresholds, special, special_thresholds):
    images, concepts, special = (normalised(x) for x in (images, concepts, special))
    careful = (rounded(images @ concepts.T - thresholds) > 0).any(1, keepdim=True)
    return (rounded(images @ special.T - special_thresholds + 0.01 * careful) > 0).any(1)


@mutant(FLAGGED, "For the special scores the images were not brought")
def careful_before_normalising(images, concepts, thresholds, special, special_thresholds):
    careful = (rounded(images @ normalised(special).T - special_thresholds) > 0).any(1, keepdim=True)
    images = normalised(images)
    return (rounded(images @ normalised(concepts).T - thresholds + 0.01 * careful) > 0).any(1)


@mutant(FLAGGED, "was changed in place")
def normalised_in_place(images, concepts, thresholds, special, special_thresholds):
    images /= images.norm(dim=1, keepdim=True)
    return (rounded(images @ normalised(concepts).T - thresholds) > 0).any(1)


@variant(FLAGGED)
def as_in_diffusers(images, concepts, thresholds, special, special_thresholds):
    flags = []
    for image in images:
        adjustment = 0.0
        for concept, threshold in zip(special, special_thresholds, strict=True):
            if round(F.cosine_similarity(image, concept, dim=0).item() - threshold.item(), 3) > 0:
                adjustment = 0.01
        found = []
        for concept, threshold in zip(concepts, thresholds, strict=True):
            score = F.cosine_similarity(image, concept, dim=0).item() - threshold.item() + adjustment
            found.append(round(score, 3) > 0)
        flags.append(any(found))
    return torch.tensor(flags)


@variant(FLAGGED)
def by_the_largest_score(images, concepts, thresholds, special, special_thresholds):
    def scores(vectors, limits):
        return F.cosine_similarity(images[:, None], vectors[None], dim=2) - limits

    careful = scores(special, special_thresholds).round(decimals=3).amax(1) > 0
    return (scores(concepts, thresholds).amax(1) + torch.where(careful, 0.01, 0.0)).round(decimals=3) > 0


@variant(FLAGGED)
def with_lower_thresholds(images, concepts, thresholds, special, special_thresholds):
    images, concepts, special = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (images, concepts, special))
    careful = ((images @ special.T - special_thresholds).round(decimals=3) > 0).sum(1) > 0
    lowered = thresholds - 0.01 * careful[:, None]
    return ((torch.einsum("nd,md->nm", images, concepts) - lowered).round(decimals=3) > 0).sum(1).bool()
