"""The exercises of chapter 02: the bound of a variational autoencoder, its parts, and walks among its latents."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from course_utils.exercises.calls import Raised
from course_utils.exercises.oracles import Wrong, close, require, require_tensor
from course_utils.exercises.registry import exercise
from course_utils.models import variational

TITLE = "Variational autoencoders"
LOST_AXIS = "A batch of one lost its axis: squeeze() takes away every axis of length 1."
SPREAD = "logvar is ln of the variance; what multiplies the noise is the standard deviation, exp(logvar / 2)."


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
        got = learner(mean, logvar, case.generator())
        require_same_shape(got, mean)
        _no_mistake(got, mean + (logvar / 2).exp() * eps, _noise_mistakes(mean, logvar, eps, case))
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


def _noise_mistakes(mean, logvar, eps, case):
    """What goes wrong with noise that was drawn as mean.shape says, or in another shape."""
    std, var = (logvar / 2).exp(), logvar.exp()
    row = torch.randn(mean.shape[1:], generator=case.generator())
    one_each = torch.randn((len(mean), *(1 for _ in mean.shape[1:])), generator=case.generator())
    one = torch.randn(1, generator=case.generator())
    flat = torch.rand(mean.shape, generator=case.generator())
    known = [
        (mean + var * eps, f"exp(logvar) is the variance. {SPREAD}"),
        (mean + logvar * eps, f"exp is missing: logvar itself can be negative. {SPREAD}"),
        (mean + logvar / 2 * eps, f"exp is missing: half of logvar is only the logarithm of the spread. {SPREAD}"),
        (mean + eps, f"logvar is not used. {SPREAD}"),
        (mean + eps / std, f"This divides the noise by the standard deviation. {SPREAD}"),
        (mean + var.square() * eps, f"exp(2 logvar) is the square of the variance. {SPREAD}"),
        (mean + std * row, "One noise serves the whole batch. Each sample needs its own: noise of mean.shape."),
        (mean + std * one_each, "One number serves all dimensions of a sample. Draw noise of mean.shape."),
        (mean + std * one, "A single number serves all. Draw noise of mean.shape."),
        (mean + std * flat, "torch.rand draws uniform numbers, all positive. Normal ones come from torch.randn."),
        (mean, "This is the mean, without any noise: a plain autoencoder."),
        (mean + std, "This adds the standard deviation itself. It multiplies the noise."),
        (std * eps, "The mean is missing: every picture would get a code around 0."),
    ]
    return known if len(mean) > 1 else known[:6]


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
    instead = {0.25: "exp(logvar), the variance", math.log(4): "logvar", math.log(2): "half of logvar", 1: "nothing",
               2: "one over the standard deviation", 0.0625: "the square of the variance", 0: "0"}  # fmt: skip
    other = next((words for value, words in instead.items() if abs(std - value) < 0.03), "something else")
    require(
        abs(std - 0.5) < 0.04,
        f"the standard deviation of 8,000 samples is {std:.3f}, expected 0.500, within 0.04.",
        f"The noise seems to be multiplied by {other}. {SPREAD}",
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
        "The generator is put back to its beginning somewhere. Use it as it is passed, so that it goes on.",
    )


def _gradients(learner, case):
    lost = "Gradients must flow from z back to both, which .detach(), torch.no_grad() and Normal(...).sample() prevent."
    drawn = "torch.normal draws without a way back to mean and logvar. Draw standard noise, and compute z from it."
    m, v = case.normal(6, 3).requires_grad_(), case.uniform(-3, 1, 6, 3).requires_grad_()
    z = learner(m, v, case.generator())
    require(z.requires_grad, "no gradient reaches mean and logvar, expected one of both.", lost)
    by_mean, by_logvar = torch.autograd.grad(z.sum(), [m, v], allow_unused=True)
    for name, gradient in (("mean", by_mean), ("logvar", by_logvar)):
        require(gradient is not None, f"no gradient reaches {name}.", f"{name} was cut off. {lost}")
    close(by_mean, torch.ones_like(m), [(torch.zeros_like(m), drawn)], what="the gradient of z by mean")
    close(by_logvar, ((z - m) / 2).detach(), what="the gradient of z by logvar", tolerance=1e-3)


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
            (half_sum(mean**2, (2 * logvar).exp(), 2 * logvar), "logvar is taken for the logarithm of the standard "
             "deviation. It is that of the variance."),
            (half_sum(mean**2, (logvar / 2).exp(), logvar), "The variance is exp(logvar); exp(logvar / 2) is its root, "
             "the standard deviation."),
            (half_sum(mean**2, logvar, logvar.log()), "logvar is taken for the variance itself. The variance is "
             "exp(logvar)."),
            (half_sum(mean, logvar.exp(), logvar), "The mean is not squared."),
            (half_sum(mean**2, logvar.exp(), -logvar), "The logarithm of the variance has the wrong sign: a narrow "
             "distribution must cost more, not less."),
            (half_sum(mean**2, logvar.exp() + 1, logvar), "The -1 is missing in each dimension: the divergence of "
             "N(0, I) from itself must come out as 0."),
            (each.sum(1) / math.log(2), "This is in bits; wanted are nats."),
            (each.reshape(shape), "This is one number for each dimension. Add them up."),
            (each.reshape(shape).sum(1), "Sum over *all* axes but the first: .flatten(1).sum(1)."),
        ]  # fmt: skip
        close(learner(mean, logvar), each.sum(1), mistakes)


@exercise(
    "02.score_gradient", variational.score_gradient, difficulty=3, minutes=15,
    hints=[
        "log N(z; m, v) = -(z - m)² / (2 v) + something without m. Differentiate it by m.",
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
        (-expected, "The sign is wrong: log N falls when z goes away from the mean, so its derivative by the *mean* is "
         "(z - mean) / variance, and points to z."),
        (score, "f is missing: without it this is the score, and its mean is 0. Multiply with f_z[:, None]."),
        (f * (z - mean) / (logvar / 2).exp(), "This divides by the standard deviation. The derivative of "
         "(z - mean)² / (2 variance) has the variance below the line."),
        (f * (z - mean) / logvar, "logvar is a logarithm: the variance is logvar.exp()."),
        (f * (z - mean) * logvar.exp(), "This multiplies by the variance, by which it should be divided."),
        (f * z / logvar.exp(), "The mean is missing: the derivative has z - mean above the line."),
        (f * (z - mean), "The division by the variance is missing."),
        (f * (z - mean).square() / logvar.exp(), "The square is still there: differentiating by the mean takes it "
         "away."),
        (f * q.log_prob(z.double()).detach(), "This multiplies f by log N itself. Its derivative by the mean is "
         "wanted."),
        (f.log() * score, "f itself multiplies the score; the logarithm is of q only."),
        (expected.mean(0), "This is the mean over the samples. Return each one's estimate: their spread is what we "
         "want to see."),
        (expected.sum(1), "This adds up the dimensions. The gradient has one number for each of them."),
        (2 * expected, "The 1/2 of the normal density cancels the 2 that differentiating gives."),
        (f_z * score if len(f_z) == len(mean) else expected, "f_z met the dimensions instead of the samples. "
         "f_z[:, None] makes one row for each."),
    ]  # fmt: skip
    try:
        got = learner(f_z, z, mean, logvar)
    except Raised as raised:
        if "must match the size of tensor" in str(raised.__cause__):
            raise Wrong(f"multiplying failed: {raised.__cause__}", "f_z has the shape (n,) and z (n, d). f_z[:, None] "
                        "is (n, 1), one row for each sample.") from None  # fmt: skip
        raise
    close(got, expected, mistakes)


@exercise(
    "02.negative_elbo", variational.negative_elbo, difficulty=3, minutes=15, uses=("02.gaussian_kl",),
    gradients=True,
    hints=[
        "Two terms: what the decoder misses, -log N(x; x_hat, sigma²) summed over the pixels, and beta times the KL.",
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
        expected, mistakes = _losses(x, x_hat, float(sigma), mean, logvar, beta)
        if beta != 1:
            close(learner(x, x_hat, sigma, mean, logvar, beta), expected, mistakes)
        else:
            close(learner(x, x_hat, sigma, mean, logvar), expected, mistakes, what="with beta = 1, the default, the "
                  "result")  # fmt: skip


def _losses(x, x_hat, sigma, mean, logvar, beta):
    """Return the right loss, and those of common mistakes."""
    squares = (x - x_hat).square().flatten(1)
    D, constants = squares.shape[1], math.log(sigma) + math.log(2 * math.pi) / 2
    miss = -Normal(x_hat, sigma).log_prob(x).flatten(1).sum(1)
    kl = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
    expected = miss + beta * kl

    def loss(factor, constant):
        return factor * squares.sum(1) + D * constant + beta * kl

    half, whole = 1 / (2 * sigma**2), "This is one number for the whole batch. Keep one for each picture."
    whole = whole if len(x) > 1 else LOST_AXIS
    mistakes = [
        (miss / D + beta * kl, "The reconstruction is averaged over the pixels while the KL is summed. This is a "
         "bound no longer: it acts like a beta larger by the number of pixels, and the latent would collapse."),
        (squares.mean(1) + beta * kl, "This is the mean squared error: no sum over the pixels, no sigma. Averaging "
         "over pixels while the KL is summed acts like a beta that many times too large."),
        (squares.mean() + beta * kl, "This is the mean squared error of the whole batch. Each picture has its own, as "
         "a sum over its pixels, in units of 2 sigma²."),
        (miss - beta * kl, "The KL has the wrong sign: this loss would reward codes far from the prior."),
        (beta * miss + kl, "beta multiplies the wrong term: it weighs the KL."),
        (beta * (miss + kl), "beta multiplies both terms, which changes nothing but the step. It weighs the KL only."),
        (miss + kl, "beta is left out."),
        (miss + beta * kl.mean(), "The KL is averaged over the batch. Each picture has its own."),
        (loss(half, 0), "The constants log(sigma) + log(2 pi) / 2 of each pixel are missing. Without log(sigma) a "
         "larger sigma would always look better."),
        (loss(half, math.log(2 * math.pi) / 2), "log(sigma) is missing. Without it a larger sigma would always look "
         "better."),
        (loss(half, math.log(sigma)), "log(2 pi) / 2 is missing, the constant of the normal density."),
        (loss(half, math.log(sigma) + math.log(2 * math.pi)), "log(2 pi) is not halved: the normal density has the "
         "root of 2 pi."),
        (loss(half, 2 * math.log(sigma) + math.log(2 * math.pi) / 2), "This has log(sigma²). The normal density has "
         "sigma below the line, not its square: log(sigma)."),
        (loss(half, -math.log(sigma) + math.log(2 * math.pi) / 2), "log(sigma) has the wrong sign: a wide distribution "
         "is low everywhere, which costs."),
        (loss(1, 0), "The squared error must be divided by 2 sigma²: sigma sets what a miss costs."),
        (loss(1 / (2 * sigma), constants), "sigma is a standard deviation: divide by sigma²."),
        (loss(1 / sigma**2, constants), "The factor 1/2 before the squares is missing."),
        (loss(half, constants / D), "The constants belong to each pixel: they are inside the sum."),
        (-expected, "This is the bound itself, which wants to be large. The loss is its negative."),
        (expected.mean(), whole),
        (expected.sum(), whole),
        (miss, "The KL is missing: this is a plain autoencoder's loss."),
    ]  # fmt: skip
    return expected, mistakes


@exercise(
    "02.importance_bound", variational.importance_bound, difficulty=3, minutes=10,
    hints=[
        "Weights average first, then the logarithm is taken: log of the mean, not mean of the logs.",
        "log(1/K sum w) = log(sum exp(log_w)) - log K. torch.logsumexp does the first part without overflow.",
        "The samples lie along axis 0, and there are len(log_w) of them.",
    ],
)  # fmt: skip
def importance_bound(learner, case):
    """Turn K samples into one bound that is tighter than the ELBO."""
    for K, batch in ((6, 4), (3, 1), (1, 5)):
        log_w = 2 * case.normal(K, batch)
        expected, mistakes = _bounds(log_w)
        close(learner(log_w), expected, mistakes)
    close(learner(log_w.double()), expected.double(), what="for log-weights in float64, the result")
    log_w = 2 * case.normal(5, 3)
    expected, _ = _bounds(log_w)
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


def _bounds(log_w):
    """Return the right bounds, and those of common mistakes."""
    K, batch = log_w.shape
    sums = torch.tensor([math.fsum(math.exp(value) for value in column) for column in log_w.T.tolist()])
    rows = torch.tensor([math.fsum(math.exp(value) for value in row) for row in log_w.tolist()])
    expected = (sums / K).log()
    whole = "This is one number for the batch. Keep one for each picture." if batch > 1 else LOST_AXIS
    mistakes = [
        (log_w.mean(0), "This is the mean of the logs: the ELBO, averaged over K samples. The mean of the weights "
         "comes first, then the logarithm."),
        (sums.log(), "log K is missing: this is the logarithm of the sum, not of the mean. It grows with K without end "
         "and bounds nothing."),
        (sums.log() + math.log(K), "log K has the wrong sign: dividing by K subtracts it."),
        (sums.log() - K, "This subtracts K. A mean divides by K, and in the logarithm that is minus log K."),
        (sums.log() / K, "Divide by K inside the logarithm: outside, that is minus log K."),
        (sums / K, "This is the mean weight; the logarithm is missing."),
        (log_w.max(0).values, "This is the largest weight alone. All weights count: logsumexp."),
        ((rows / batch).log(), "This averages over the batch. The samples lie along axis 0."),
        (expected.mean(), whole),
        ((sums.sum() / log_w.numel()).log(), whole),
        (sums.log() - math.log(batch), "This divides by the size of the batch, not by the number of samples."),
        (sums.log() - math.log(log_w.numel()), "This divides by all the numbers of log_w. The samples of a picture are "
         "K, along axis 0."),
        (-expected, "The sign is wrong: this is the bound of -log p(x). Wanted is that of log p(x)."),
    ]  # fmt: skip
    return expected, mistakes


@exercise(
    "02.spherical_path", variational.spherical_path, difficulty=3, minutes=15,
    hints=[
        "s runs from 0 to 1, both included: torch.linspace(0, 1, count). Give it the shape (count, 1).",
        "The angle between the ends: the arccos of their dot product, divided by both lengths.",
        "The start is multiplied by sin((1 - s) a) / sin(a), the end by sin(s a) / sin(a).",
    ],
)  # fmt: skip
def spherical_path(learner, case):
    """Walk from one latent to another without leaving the shell where latents live."""
    for count, d in ((5, 8), (8, 3), (2, 16)):
        start, end = case.normal(d), case.normal(d)
        expected, mistakes = _paths(start, end, count)
        close(learner(start, end, count), expected, mistakes, tolerance=1e-3)
    start = case.normal(8)
    for side in (1, -1):  # an acute angle, and an obtuse one
        end = side * start + 0.5 * case.normal(8)
        end = end * start.norm() / end.norm()
        got = learner(start, end, 9)
        close(got.norm(dim=1), start.norm().expand(9), what="between ends of one length, the lengths", tolerance=1e-3)
        close(got[[0, -1]], torch.stack([start, end]), what="the first and the last latent", tolerance=1e-3)
        chords = got.diff(dim=0).norm(dim=1)
        close(chords, chords.mean().expand(8), what="the lengths of the steps", tolerance=1e-3)


def _paths(start, end, count):
    """Return the right path, and those of common mistakes."""
    s, a = torch.linspace(0, 1, count)[:, None], _angle(start, end)
    late = torch.arange(count)[:, None] / count
    line = (1 - s) * start + s * end
    lengths = (1 - s) * start.norm() + s * end.norm()
    straight = "This is the straight line. Its middle is nearer to 0 than almost any latent: use the two sines."
    missing_end = "The path stops short of the end: count latents with both ends make count - 1 steps."
    mistakes = [
        (line, straight),
        ((1 - late) * start + late * end, straight),
        (_arc(start, end, a, late), missing_end),
        (_arc(end, start, a, s), "The path runs from end to start: at s = 0 only the start may count."),
        (_arc(start / start.norm(), end / end.norm(), a, s), "The ends were made to length 1. Only the angle needs "
         "that; the path goes from start to end as they are."),
        (_arc(start, end, a, torch.linspace(0, 1, count + 2)[1:-1, None]), "The ends themselves are missing."),
        (_arc(start, end, a, torch.linspace(0, 1, count + 1)[:, None]), "This is one latent too many: count includes "
         "both ends."),
        (_arc(start, end, a, s) * torch.sin(a), "The division by sin(a) is missing: the path misses its ends."),
        (_arc(start, end, torch.arccos(start @ end), s), "The cosine is the dot product *divided by both lengths*; "
         "without it this is no angle."),
        (_arc(start, end, torch.cos(a), s), "This takes the cosine for the angle. torch.arccos turns it into one."),
        (line / line.norm(dim=1, keepdim=True) * lengths, "This is the straight line, pulled out to the shell. Its "
         "steps are not equal: they are longest in the middle. Use the two sines."),
    ]  # fmt: skip
    return _arc(start, end, a, s), mistakes


def _angle(start, end):
    u, v = start / start.norm(), end / end.norm()
    return 2 * torch.atan2((u - v).norm(), (u + v).norm())


def _arc(start, end, angle, s):
    return (torch.sin((1 - s) * angle) * start + torch.sin(s * angle) * end) / torch.sin(angle)
