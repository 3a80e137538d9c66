"""The exercises of chapter 02: the bound of a variational autoencoder, its parts, and paths between its latents."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from course_utils.exercises.mistakes_02 import LOST_AXIS, SPREAD, bounds, losses, noise_mistakes, paths
from course_utils.exercises.oracles import close, require, require_tensor
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import broadcasting_explained
from course_utils.models import variational

TITLE = "Variational autoencoders"


@exercise(
    "02.reparametrise", variational.reparametrise, difficulty=2, minutes=10,
    hints=[
        "A normal number with mean m and standard deviation s is m + s times a standard normal number.",
        "logvar is the logarithm of the *variance*. Halve it before you take exp, and you have the standard deviation.",
        "Each element of the batch needs noise of its own: torch.randn(mean.shape, generator=generator).",
        "Return mean + torch.exp(logvar / 2) * eps.",
    ],
)  # fmt: skip
def reparametrise(learner, case):
    """Draw a latent so that gradients reach mean and logvar."""
    for shape in ((6, 3), (1, 4), (2, 2, 3, 2)):
        mean, logvar = case.normal(*shape), case.uniform(-3, 1, *shape)
        eps = torch.randn(shape, generator=case.generator())
        with broadcasting_explained("mean and logvar may have any shape (batch, ...): draw noise of mean.shape."):
            got = learner(mean, logvar, case.generator())
        require_same_shape(got, mean)
        _no_mistake(got, mean + (logvar / 2).exp() * eps, noise_mistakes(mean, logvar, eps, case))
    _statistics(learner, case)
    certain = torch.full_like(mean, -80.0)
    close(learner(mean, certain, case.generator()), mean, what="where logvar is -80, the spread nearly 0, the result")
    _gradients(learner, case)


def require_same_shape(got, like):
    """Raise Wrong unless got is a tensor of the shape of mean and logvar."""
    require_tensor(got, like)
    require(
        got.shape == like.shape,
        f"the result has the shape {tuple(got.shape)}, expected {tuple(like.shape)}, that of mean.",
        "One latent number for each mean: draw noise of mean.shape, and add up nothing.",
    )


def _no_mistake(got, usual, known):
    """Raise what `close` says of a result that is one of the known mistakes; any other may be right."""
    for value, _ in known:
        if torch.allclose(got.detach().to(value), value, rtol=1e-4, atol=1e-5):
            close(got, usual, known)


def _statistics(learner, case):
    """Many samples must have the mean and the spread that were asked for, each element its own noise."""
    wide, narrow = torch.full((4000, 2), 1.5), torch.full((4000, 2), math.log(0.25))
    random = case.generator()
    got = learner(wide, narrow, random)
    require_same_shape(got, wide)
    mean, std = got.mean().item(), got.std().item()
    require(math.isfinite(std), f"the samples hold NaN or infinity: their standard deviation is {std}.",
            f"logvar may be negative, so it has no root and no logarithm. {SPREAD}")  # fmt: skip
    instead = {0.25: "exp(logvar), the variance", math.log(4): "logvar", math.log(2): "half of logvar", 1: "nothing",
               2: "one over the standard deviation", 0.0625: "the square of the variance", 0: "0"}  # fmt: skip
    other = next((words for value, words in instead.items() if abs(std - value) < 0.03), "")
    require(
        abs(std - 0.5) < 0.04,
        f"the standard deviation of 8,000 samples is {std:.3f}, expected 0.500, within 0.04.",
        f"The noise seems to be multiplied by {other}. {SPREAD}"
        if other
        else f"Is the noise standard normal? {SPREAD}",
    )
    require(
        abs(mean - 1.5) < 0.04,
        f"the mean of 8,000 samples is {mean:.3f}, expected 1.500, within 0.04.",
        "The noise must have the mean 0, and be added to the mean as it is.",
    )
    require(
        min(got.std(0).min().item(), got.std(1).mean().item()) > 0.2,
        "elements of the result share their noise.",
        "Each element needs its own: noise of mean.shape.",
    )
    require(
        learner.broken is not None or not torch.equal(got, learner(wide, narrow, random)),
        "two calls with one generator, one after the other, gave the same samples.",
        "The generator is reset somewhere. Use it as it is passed in, so that each call draws new numbers.",
    )


def _gradients(learner, case):
    lost = "Gradients must flow from z back to both, which .detach(), torch.no_grad() and Normal(...).sample() prevent."
    drawn = "torch.normal passes no gradient on to mean and logvar. Draw standard noise, and compute z from it."
    m, v = case.normal(6, 3).requires_grad_(), case.uniform(-3, 1, 6, 3).requires_grad_()
    z = learner(m, v, case.generator())
    require(z.requires_grad, "no gradient reaches mean and logvar, expected one of both.", lost)
    by_mean, by_logvar = torch.autograd.grad(z.sum(), [m, v], allow_unused=True)
    for name, gradient in (("mean", by_mean), ("logvar", by_logvar)):
        require(gradient is not None, f"no gradient reaches {name}.", f"{name} was cut off. {lost}")
    close(by_mean, torch.ones_like(m), [(torch.zeros_like(m), drawn)], what="the gradient of z with respect to mean")
    close(by_logvar, ((z - m) / 2).detach(), what="the gradient of z with respect to logvar", tolerance=1e-3)


@exercise(
    "02.gaussian_kl", variational.gaussian_kl, difficulty=2, minutes=10, gradients=True,
    hints=[
        "The dimensions are independent, so the divergence is the sum of one term for each.",
        "The variance is logvar.exp(). One dimension gives half of: mean squared + variance - 1 - logvar.",
        "Sum over all axes but the first: .flatten(1).sum(1).",
    ],
)  # fmt: skip
def gaussian_kl(learner, case):
    """Measure in nats how far the encoder's normal distribution is from the prior N(0, I)."""
    for shape in ((5, 4), (3, 2, 4, 3), (1, 6)):
        mean, logvar = case.normal(*shape), case.uniform(-2.5, 1, *shape)
        q = Normal(mean.double(), (logvar.double() / 2).exp())
        p = Normal(torch.zeros(()).double(), torch.ones(()).double())
        each, reverse = kl_divergence(q, p).flatten(1), kl_divergence(p, q).flatten(1)

        def half_sum(square, variance, logarithm):
            return (0.5 * (square + variance - 1 - logarithm)).flatten(1).sum(1)  # noqa: B023

        mistakes = [
            (-each.sum(1), "The sign is wrong: a KL divergence is never negative."),
            (each.mean(1), "This is the mean over the dimensions. Independent dimensions *add up*: take the sum, or "
             "the loss weighs the KL too little, and another weight for each size of the latent."),
            (each.sum(), "This is one number for the whole batch. Keep one for each sample: .flatten(1).sum(1)."
             if len(mean) > 1 else LOST_AXIS),
            (each.sum(1).mean(), "This is the mean over the batch. Keep one number for each sample."),
            (reverse.sum(1), "This is the other direction, KL( N(0, I) || q ). The divergence is not symmetric: it "
             "averages over what the encoder draws, so q comes first."),
            (2 * each.sum(1), "The factor 1/2 is missing."),
            (half_sum(mean**2, 2 * logvar.exp() - 1, 2 * logvar), "The factor 1/2 belongs to all four terms, not to "
             "the first alone: brackets are missing."),
            (each.sum(0), "This adds up the batch and keeps the dimensions. Add up the dimensions."),
            (each.mean(), "This is the mean over everything. Add up the dimensions, and keep one number for each "
             "sample."),
            (half_sum(mean**2, (2 * logvar).exp(), 2 * logvar), "logvar is treated as the logarithm of the standard "
             "deviation. It is the logarithm of the variance."),
            (half_sum(mean**2, (logvar / 2).exp(), logvar), "The variance is exp(logvar); exp(logvar / 2) is its root, "
             "the standard deviation."),
            (half_sum(mean**2, logvar, logvar.log()), "logvar is treated as the variance itself. The variance is "
             "exp(logvar)."),
            (half_sum(mean, logvar.exp(), logvar), "The mean is not squared."),
            (half_sum(mean**2, logvar.exp(), -logvar), "The logarithm of the variance has the wrong sign: a narrow "
             "distribution must cost more, not less."),
            (half_sum(mean**2, logvar.exp() + 1, logvar), "The -1 is missing in each dimension: the divergence of "
             "N(0, I) from itself must come out as 0."),
            (each.sum(1) / math.log(2), "This is in bits; the result should be in nats."),
            (each.reshape(shape), "This is one number for each dimension. Add them up."),
            (each.reshape(shape).sum(1), "Sum over *all* axes but the first: .flatten(1).sum(1)."),
        ]  # fmt: skip
        close(learner(mean, logvar), each.sum(1), mistakes)


@exercise(
    "02.score_gradient", variational.score_gradient, difficulty=3, minutes=15,
    hints=[
        "log N(z; m, v) = -(z - m)² / (2 v) + something without m. Differentiate it with respect to m.",
        "That derivative is (z - mean) / variance. Each sample weights it with its own value of f.",
        "f_z has shape (n,), z has (n, d): f_z[:, None] lets them multiply. The variance is logvar.exp().",
    ],
)  # fmt: skip
def score_gradient(learner, case):
    """Estimate a gradient from values of a function alone."""
    for n, d in ((7, 3), (4, 4), (1, 5), (6, 1)):
        mean, logvar, z, f_z = case.normal(d), case.uniform(-2, 1, d), case.normal(n, d), case.uniform(0.5, 2, n)
        _close_score(learner, f_z, z, mean, logvar)
    _close_score(learner, -f_z, z, mean, logvar)


def _close_score(learner, f_z, z, mean, logvar):
    m = mean.clone().double().requires_grad_()
    q = Normal(m, (logvar.double() / 2).exp())
    score = torch.stack([torch.autograd.grad(q.log_prob(row.double()).sum(), m)[0] for row in z])
    expected, f = f_z[:, None] * score, f_z[:, None]
    mistakes = [
        (-expected, "The sign is wrong: log N falls when z goes away from the mean, so its derivative with "
         "respect to the *mean* is "
         "(z - mean) / variance, and points towards z."),
        (score, "f is missing: without it this is the score, and its mean is 0. Multiply by f_z[:, None]."),
        (f * (z - mean) / (logvar / 2).exp(), "This divides by the standard deviation. The derivative of "
         "(z - mean)² / (2 variance) has the variance in the denominator."),
        (f * (z - mean) / logvar, "logvar is a logarithm: the variance is logvar.exp()."),
        (f * (z - mean) * logvar.exp(), "This multiplies by the variance, by which it should be divided."),
        (f * z / logvar.exp(), "The mean is missing: the derivative has z - mean in the numerator."),
        (f * (z - mean), "The division by the variance is missing."),
        (f * (z - mean).square() / logvar.exp(), "The square is still there: differentiating with respect to "
         "the mean removes it."),
        (f * q.log_prob(z.double()).detach(), "This multiplies f by log N itself. Its derivative with respect "
         "to the mean is "
         "wanted."),
        (f.log() * score, "f itself multiplies the score; the logarithm is of q only."),
        (expected.mean(0), "This is the mean over the samples. Return the estimate of each sample: we "
         "look at their variance."),
        (expected.sum(0), "This adds up the samples. Return the estimate of each sample, (n, d)."),
        (f_z.mean() * score if len(f_z) > 1 else expected, "f was averaged first. Each sample has its own value of f."),
        ((f - f_z.mean()) * score, "The mean of f was subtracted. Such a baseline lowers the variance, but here the "
         "plain estimate is wanted."),
        (expected.sum(1), "This adds up the dimensions. The gradient has one number for each of them."),
        (2 * expected, "The 1/2 of the normal density cancels the 2 that differentiating gives."),
        (f_z * score if len(f_z) == len(mean) else expected, "f_z multiplies the dimensions instead of the samples. "
         "f_z[:, None] makes one row for each."),
    ]  # fmt: skip
    with broadcasting_explained(
        "f_z has the shape (n,) and z (n, d). f_z[:, None] is (n, 1), one row for each sample."
    ):
        got = learner(f_z, z, mean, logvar)
    close(got, expected, mistakes)


@exercise(
    "02.negative_elbo", variational.negative_elbo, difficulty=3, minutes=15, uses=("02.gaussian_kl",),
    gradients=True,
    hints=[
        "Two terms: the reconstruction, -log N(x; x_hat, sigma²) summed over the pixels, and beta times the KL.",
        "For one pixel: (x - x_hat)² / (2 sigma²) + log(sigma) + log(2 pi) / 2.",
        "Sum over all axes but the first, .flatten(1).sum(1), and add beta * gaussian_kl(mean, logvar).",
        "torch.as_tensor(sigma).log() works for a number and for a tensor.",
    ],
)  # fmt: skip
def negative_elbo(learner, case):
    """Write the loss of a variational autoencoder."""
    settings = [
        ((4, 1, 5, 5), 3, 0.25, 3.0),
        ((3, 2, 4, 3), 5, torch.tensor(1.6), 0.5),
        ((1, 6), 2, 0.7, 1.0),
        ((2, 3, 4), 4, torch.tensor(0.3), 0.0),
    ]
    for shape, d, sigma, beta in settings:
        x, x_hat = case.uniform(-1, 1, *shape), case.uniform(-1, 1, *shape)
        mean, logvar = case.normal(shape[0], d), case.uniform(-2, 1, shape[0], d)
        expected, mistakes = losses(x, x_hat, float(sigma), mean, logvar, beta)
        if beta != 1:
            close(learner(x, x_hat, sigma, mean, logvar, beta), expected, mistakes)
        else:
            close(learner(x, x_hat, sigma, mean, logvar), expected, mistakes, what="with beta = 1, the default, the "
                  "result")  # fmt: skip


@exercise(
    "02.importance_bound", variational.importance_bound, difficulty=3, minutes=10,
    hints=[
        "Weights average first, then the logarithm is taken: the log of the mean, not the mean of the logs.",
        "log(1/M sum w) = log(sum exp(log_w)) - log M. torch.logsumexp does the first part without overflow.",
        "The samples lie along axis 0, and there are len(log_w) of them.",
    ],
)  # fmt: skip
def importance_bound(learner, case):
    """Turn M samples into one bound that is tighter than the ELBO."""
    for K, batch in ((6, 4), (3, 1), (1, 5)):
        log_w = 2 * case.normal(K, batch)
        expected, mistakes = bounds(log_w)
        close(learner(log_w), expected, mistakes)
    close(learner(log_w.double()), expected.double(), what="for log-weights in float64, the result")
    log_w = 2 * case.normal(5, 3)
    expected, _ = bounds(log_w)
    for shift, advice in (
        (-2000, "exp(-2000) is 0 in floating point, and its logarithm minus infinity."),
        (1000, "exp(1000) is infinite in floating point."),
    ):
        got = learner(log_w + shift)
        require(
            not isinstance(got, torch.Tensor) or bool(got.isfinite().all()),
            f"with log-weights near {shift}, the result is not finite.",
            f"{advice} torch.logsumexp takes the largest out first.",
        )
        close(got, expected + shift, what=f"with log-weights near {shift}, the result")
    apart = torch.tensor([[-100.0, -2000.0, 900.0], [-160.0, -1890.0, 300.0]])  # (K, batch)
    got = learner(apart)
    require(
        not isinstance(got, torch.Tensor) or bool(got.isfinite().all()),
        "with log-weights that lie far apart, the result is not finite.",
        "Take out the largest log-weight of each image's own M samples, not one for the batch, a mean or the "
        "smallest: torch.logsumexp(log_w, 0).",
    )
    close(got, apart.amax(0) - math.log(2), what="with log-weights that lie far apart, the result")


@exercise(
    "02.spherical_path", variational.spherical_path, difficulty=3, minutes=15,
    hints=[
        "s runs from 0 to 1, both included: torch.linspace(0, 1, count). Give it the shape (count, 1).",
        "The angle between the ends: the arccos of their dot product, divided by both lengths.",
        "The start is multiplied by sin((1 - s) a) / sin(a), the end by sin(s a) / sin(a).",
    ],
)  # fmt: skip
def spherical_path(learner, case):
    """Interpolate between two latents along an arc, so that lengths stay typical of the prior."""
    for count, d in ((5, 8), (8, 3), (2, 16)):
        start, end = case.normal(d), case.normal(d)
        expected, mistakes = paths(start, end, count)
        with broadcasting_explained("start has the shape (d,). Fractions of the way as a column, (count, 1), give one "
                                    "row for each latent: s[:, None]."):  # fmt: skip
            got = learner(start, end, count)
        close(got, expected, mistakes, tolerance=1e-3)
    start = case.normal(8)
    for side in (1, -1):  # an acute angle, and an obtuse one
        end = side * start + 0.5 * case.normal(8)
        end = end * start.norm() / end.norm()
        got = learner(start, end, 9)
        close(got.norm(dim=1), start.norm().expand(9), what="between ends of one length, the lengths", tolerance=1e-3)
        close(got[[0, -1]], torch.stack([start, end]), what="the first and the last latent", tolerance=1e-3)
        chords = got.diff(dim=0).norm(dim=1)
        close(chords, chords.mean().expand(8), what="the lengths of the steps", tolerance=1e-3)
