"""The exercises of chapter 02: the bound of a variational autoencoder, its parts, and walks among its latents."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from course_utils.exercises.oracles import close, require, require_tensor
from course_utils.exercises.registry import exercise
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
    mean, logvar = case.normal(6, 3), case.uniform(-3, 1, 6, 3)
    std, var = (logvar / 2).exp(), logvar.exp()
    spread = "logvar is ln of the variance; what multiplies the noise is the standard deviation, exp(logvar / 2)."
    eps = torch.randn(mean.shape, generator=case.generator())
    row = torch.randn(mean.shape[1:], generator=case.generator())
    one_each = torch.randn((6, 1), generator=case.generator())
    flat = torch.rand(mean.shape, generator=case.generator())
    known = [
        (mean + var * eps, f"exp(logvar) is the variance. {spread}"),
        (mean + logvar * eps, f"exp is missing: logvar itself can be negative. {spread}"),
        (mean + logvar / 2 * eps, f"exp is missing: half of logvar is only the logarithm of the spread. {spread}"),
        (mean + std * row, "One noise serves the whole batch. Each sample needs its own: noise of mean.shape."),
        (mean + std * one_each, "One number serves all dimensions of a sample. Draw noise of mean.shape."),
        (mean + std * flat, "torch.rand draws uniform numbers, all positive. Normal ones come from torch.randn."),
        (mean, "This is the mean, without any noise: a plain autoencoder."),
        (std * eps, "The mean is missing: every picture would get a code around 0."),
    ]
    big = (4000, 2)
    wide, narrow = torch.full(big, 1.5), torch.full(big, math.log(0.25))
    _no_mistake(learner(mean, logvar, case.generator()), mean + std * eps, known)
    got = learner(wide, narrow, case.generator())
    require_tensor(got, wide)
    close(torch.as_tensor(got.shape), torch.tensor(big), what="the shape of the result")
    for name, found, expected in (("mean", got.mean(), 1.5), ("standard deviation", got.std(), 0.5)):
        require(
            abs(found.item() - expected) < 0.04,
            f"the {name} of 8,000 samples is {found:.3f}, expected {expected:.3f}, within 0.04.",
            spread,
        )
    require(
        got.std(0).min() > 0.4,
        "the samples of a batch all get the same noise.",
        "Each sample needs its own: noise of mean.shape.",
    )
    _gradients(learner, mean, logvar, case)


def _no_mistake(got, usual, known):
    """Raise what `close` says of a result that is one of the known mistakes; any other may be right."""
    for value, _ in known:
        require_tensor(got, value)
        if got.shape == value.shape and torch.allclose(got.detach().to(value), value, rtol=1e-4, atol=1e-5):
            close(got, usual, known)


def _gradients(learner, mean, logvar, case):
    lost = (
        "Gradients must flow from z back to both: no .detach(), no torch.no_grad(), no Normal(...).sample(). "
        "That is what the trick is for."
    )
    m, v = mean.clone().requires_grad_(), logvar.clone().requires_grad_()
    z = learner.call(
        lambda *inputs: learner.candidate(m, v, inputs[2]), learner.reference, mean, logvar, case.generator()
    )
    require(z.requires_grad, "the result has no gradient, expected one to mean and to logvar.", lost)
    by_mean, by_logvar = torch.autograd.grad(z.sum(), [m, v], allow_unused=True)
    for name, gradient in (("mean", by_mean), ("logvar", by_logvar)):
        require(gradient is not None, f"no gradient reaches {name}.", lost)
    close(by_mean, torch.ones_like(mean), [(torch.zeros_like(mean), lost)], what="the gradient of z by mean")
    close(by_logvar, ((z - m) / 2).detach(), what="the gradient of z by logvar", tolerance=1e-3)


@exercise(
    "02.gaussian_kl", variational.gaussian_kl, difficulty=2, minutes=10,
    hints=[
        "The dimensions are independent, so the divergence is the sum of one term for each.",
        "The variance is logvar.exp(). One dimension gives half of: mean squared + variance - 1 - logvar.",
        "Sum over all axes but the first: .flatten(1).sum(1).",
    ],
)  # fmt: skip
def gaussian_kl(learner, case):
    """Measure in nats how far the encoder's normal distribution is from the prior N(0, I)."""
    for shape in ((5, 4), (3, 2, 2, 2)):
        mean, logvar = case.normal(*shape), case.uniform(-2.5, 1, *shape)
        q = Normal(mean.double(), (logvar.double() / 2).exp())
        p = Normal(torch.zeros(()).double(), torch.ones(()).double())
        each, reverse = kl_divergence(q, p).flatten(1), kl_divergence(p, q).flatten(1)
        variance_taken = (0.5 * (mean**2 + logvar - 1 - logvar.abs().log())).flatten(1).sum(1)
        as_std = kl_divergence(Normal(mean, logvar.exp()), Normal(0.0, 1.0)).flatten(1).sum(1)
        half = (0.5 * (mean**2 + (logvar / 2).exp() - 1 - logvar)).flatten(1).sum(1)
        mistakes = [
            (-each.sum(1), "The sign is wrong: a KL divergence is never negative."),
            (
                each.mean(1),
                "This is the mean over the dimensions. Independent dimensions *add up*: take the sum, or "
                "the loss weighs the KL too little, and another weight for each size of the latent.",
            ),
            (each.sum(), "This is one number for the whole batch. Keep one for each sample: .flatten(1).sum(1)."),
            (each.sum(1).mean(), "This is the mean over the batch. Keep one number for each sample."),
            (
                reverse.sum(1),
                "This is the other direction, KL( N(0, I) || q ). The divergence is not symmetric: it "
                "averages over what the encoder draws, so q comes first.",
            ),
            (2 * each.sum(1), "The factor 1/2 is missing."),
            (as_std, "logvar is taken for the logarithm of the standard deviation. It is that of the variance."),
            (half, "The variance is exp(logvar); exp(logvar / 2) is its root, the standard deviation."),
            (variance_taken, "logvar is taken for the variance itself. The variance is exp(logvar)."),
            (each.sum(1) / math.log(2), "This is in bits; wanted are nats."),
            (each.reshape(shape), "This is one number for each dimension. Add them up."),
            (each.reshape(shape).sum(1), "Sum over *all* axes but the first: .flatten(1).sum(1)."),
        ]
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
    n, d = 7, 3
    mean, logvar, z, f_z = case.normal(d), case.uniform(-2, 1, d), case.normal(n, d), case.uniform(0.5, 2, n)
    m = mean.clone().double().requires_grad_()
    q = Normal(m, (logvar.double() / 2).exp())
    score = torch.stack([torch.autograd.grad(q.log_prob(row.double()).sum(), m)[0] for row in z])
    expected = f_z[:, None] * score
    std = (logvar / 2).exp()
    mistakes = [
        (
            -expected,
            "The sign is wrong: log N falls when z goes away from the mean, so its derivative by the *mean* is "
            "(z - mean) / variance, and points to z.",
        ),
        (score, "f is missing: without it this is the score, and its mean is 0. Multiply with f_z[:, None]."),
        (
            f_z[:, None] * (z - mean) / std,
            "This divides by the standard deviation. The derivative of "
            "(z - mean)² / (2 variance) has the variance below the line.",
        ),
        (f_z[:, None] * (z - mean) / logvar, "logvar is a logarithm: the variance is logvar.exp()."),
        (f_z[:, None] * (z - mean), "The division by the variance is missing."),
        (f_z.log()[:, None] * score, "f itself multiplies the score; the logarithm is of q only."),
        (
            expected.mean(0),
            "This is the mean over the samples. Return each one's estimate: their spread is what we want to see.",
        ),
        (expected.sum(1), "This adds up the dimensions. The gradient has one number for each of them."),
        (2 * expected, "The 1/2 of the normal density cancels the 2 that differentiating gives."),
    ]
    close(learner(f_z, z, mean, logvar), expected, mistakes)


@exercise(
    "02.negative_elbo", variational.negative_elbo, difficulty=3, minutes=15, uses=("02.gaussian_kl",),
    hints=[
        "Two terms: what the decoder misses, -log N(x; x_hat, sigma²) summed over the pixels, and beta times the KL.",
        "For one pixel: (x - x_hat)² / (2 sigma²) + log(sigma) + log(2 pi) / 2.",
        "Sum over all axes but the first, .flatten(1).sum(1), and add beta * gaussian_kl(mean, logvar).",
        "torch.as_tensor(sigma).log() works for a number and for a tensor.",
    ],
)  # fmt: skip
def negative_elbo(learner, case):
    """Write the loss of a variational autoencoder."""
    x, x_hat, sigma, beta = case.uniform(-1, 1, 4, 1, 5, 5), case.uniform(-1, 1, 4, 1, 5, 5), 0.4, 3.0
    mean, logvar = case.normal(4, 3), case.uniform(-2, 1, 4, 3)
    pixels = -Normal(x_hat, sigma).log_prob(x).flatten(1)
    squares = (x - x_hat).square().flatten(1)
    d, constants = squares.shape[1], math.log(sigma) + math.log(2 * math.pi) / 2
    kl = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
    miss, expected = pixels.sum(1), pixels.sum(1) + beta * kl
    mistakes = [
        (
            pixels.mean(1) + beta * kl,
            "The reconstruction is averaged over the pixels while the KL is summed. This is a "
            f"bound no longer: it is as if beta were {d} times as large, and the latent would collapse.",
        ),
        (
            squares.mean(1) + beta * kl,
            "This is the mean squared error: no sum over the pixels, no sigma. Averaging "
            f"over pixels while the KL is summed acts like a beta {d} times too large.",
        ),
        (
            squares.mean() + beta * kl,
            "This is the mean squared error of the whole batch. Each picture has its own, as a "
            "sum over its pixels, in units of 2 sigma².",
        ),
        (miss - beta * kl, "The KL has the wrong sign: this loss would reward codes far from the prior."),
        (beta * miss + kl, "beta multiplies the wrong term: it weighs the KL."),
        (beta * (miss + kl), "beta multiplies both terms, which changes nothing but the step. It weighs the KL only."),
        (miss + kl, "beta is left out."),
        (
            squares.sum(1) / (2 * sigma**2) + beta * kl,
            "The constants log(sigma) + log(2 pi) / 2 of each pixel are "
            "missing. Without log(sigma) a larger sigma would always look better.",
        ),
        (squares.sum(1) + beta * kl, "The squared error must be divided by 2 sigma²: sigma sets what a miss costs."),
        (squares.sum(1) / (2 * sigma) + d * constants + beta * kl, "sigma is a standard deviation: divide by sigma²."),
        (squares.sum(1) / sigma**2 + d * constants + beta * kl, "The factor 1/2 before the squares is missing."),
        (
            squares.sum(1) / (2 * sigma**2) + constants + beta * kl,
            "The constants belong to each pixel: they are inside the sum.",
        ),
        (-expected, "This is the bound itself, which wants to be large. The loss is its negative."),
        (expected.mean(), "This is one number for the whole batch. Keep one for each picture."),
        (miss, "The KL is missing: this is a plain autoencoder's loss."),
    ]
    close(learner(x, x_hat, sigma, mean, logvar, beta), expected, mistakes)
    close(
        learner(x, x_hat, torch.tensor(1.0), mean, logvar, 1.0),
        squares.sum(1) / 2 + d * math.log(2 * math.pi) / 2 + kl,
        what="with sigma = 1 and beta = 1, the result",
    )


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
    K, batch = 6, 4
    log_w = 2 * case.normal(K, batch)
    sums = torch.tensor([math.fsum(math.exp(value) for value in column) for column in log_w.T.tolist()])
    expected = (sums / K).log()
    rows = torch.tensor([math.log(math.fsum(math.exp(v) for v in row) / batch) for row in log_w.tolist()])
    mistakes = [
        (
            log_w.mean(0),
            "This is the mean of the logs: the ELBO, averaged over K samples. The mean of the weights "
            "comes first, then the logarithm.",
        ),
        (
            sums.log(),
            "log K is missing: this is the logarithm of the sum, not of the mean. It grows with K without end "
            "and bounds nothing.",
        ),
        (sums.log() + math.log(K), "log K has the wrong sign: dividing by K subtracts it."),
        (sums.log() - K, "This subtracts K. A mean divides by K, and in the logarithm that is minus log K."),
        (sums.log() / K, "Divide by K inside the logarithm: outside, that is minus log K."),
        (sums / K, "This is the mean weight; the logarithm is missing."),
        (log_w.max(0).values, "This is the largest weight alone. A smooth maximum: logsumexp."),
        (rows, "This averages over the batch. The samples lie along axis 0."),
        (expected.mean(), "This is one number for the batch. Keep one for each picture."),
        (sums.log() - math.log(batch), "This divides by the size of the batch, not by the number of samples."),
    ]
    close(learner(log_w), expected, mistakes)
    got = learner(log_w - 2000)
    require(
        torch.is_tensor(got) and bool(got.isfinite().all()),
        "with log-weights near -2000, as pictures have them, the result is not finite.",
        "exp(-2000) is 0 in floating point, and its logarithm minus infinity. "
        "torch.logsumexp takes the largest out first.",
    )
    close(got, expected - 2000, what="with log-weights near -2000, the result")


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
    count, d = 5, 8
    start, end = case.normal(d), case.normal(d)
    s = torch.linspace(0, 1, count)[:, None]
    path, ways = _arc(start, end), {"s": s}
    late = torch.arange(count)[:, None] / count
    unit = (start / start.norm(), end / end.norm())
    straight = "This is the straight line. Its middle is nearer to 0 than almost any latent: use the two sines."
    missing_end = "The path stops short of the end: count latents with both ends make count - 1 steps."
    mistakes = [
        ((1 - s) * start + s * end, straight),
        (path(late), missing_end),
        ((1 - late) * start + late * end, f"{missing_end} And it is a straight line."),
        (path(1 - ways["s"]), "The path runs from end to start: at s = 0 only the start may count."),
        (
            _arc(*unit)(s),
            "The ends were made to length 1. Only the angle needs that; the path goes from start to end as they are.",
        ),
        (path(torch.linspace(0, 1, count + 1)[:-1, None]), missing_end),
        (path(torch.linspace(0, 1, count + 2)[1:-1, None]), "The ends themselves are missing."),
        (path(s) * torch.sin(_angle(start, end)), "The division by sin(a) is missing: the path misses its ends."),
        (
            _arc(start, end, torch.arccos((start @ end).clamp(-1, 1)))(s),
            "The cosine is the dot product *divided by both lengths*; without it this is no angle.",
        ),
    ]
    close(learner(start, end, count), path(s), mistakes, tolerance=1e-3)
    end = end * start.norm() / end.norm()
    got = learner(start, end, 9)
    close(got.norm(dim=1), start.norm().expand(9), what="between ends of one length, the lengths", tolerance=1e-3)
    close(got[[0, -1]], torch.stack([start, end]), what="the first and the last latent", tolerance=1e-3)
    chords = got.diff(dim=0).norm(dim=1)
    close(chords, chords.mean().expand(8), what="the lengths of the steps", tolerance=1e-3)


def _angle(start, end):
    return 2 * torch.atan2(
        (start / start.norm() - end / end.norm()).norm(), (start / start.norm() + end / end.norm()).norm()
    )


def _arc(start, end, angle=None):
    a = _angle(start, end) if angle is None else angle
    return lambda s: (torch.sin((1 - s) * a) * start + torch.sin(s * a) * end) / torch.sin(a)
