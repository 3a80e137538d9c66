"""What common mistakes in the exercises of chapter 02 give, each with the sentence that names it."""

import math

import torch
from torch.distributions import Normal, kl_divergence

LOST_AXIS = "A batch of one lost its axis: squeeze() takes away every axis of length 1."
SPREAD = "logvar is ln of the variance; what multiplies the noise is the standard deviation, exp(logvar / 2)."


def noise_mistakes(mean, logvar, eps, case):
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
        (std * eps, "The mean is missing: every image would get a code around 0."),
    ]
    return known if len(mean) > 1 else known[:6]


def losses(x, x_hat, sigma, mean, logvar, beta):
    """Return the right loss, and those of common mistakes."""
    squares = (x - x_hat).square().flatten(1)
    D, constants = squares.shape[1], math.log(sigma) + math.log(2 * math.pi) / 2
    miss = -Normal(x_hat, sigma).log_prob(x).flatten(1).sum(1)
    kl = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
    expected = miss + beta * kl

    def loss(factor, constant):
        return factor * squares.sum(1) + D * constant + beta * kl

    half, whole = 1 / (2 * sigma**2), "This is one number for the whole batch. Keep one for each image."
    whole = whole if len(x) > 1 else LOST_AXIS
    mistakes = [
        (miss / D + beta * kl, "The reconstruction is averaged over the pixels while the KL is summed. This is no "
         "longer a bound: it acts like a beta larger by the number of pixels, and the latent would collapse."),
        (squares.mean(1) + beta * kl, "This is the mean squared error: no sum over the pixels, no sigma. Averaging "
         "over pixels while the KL is summed acts like a beta that many times too large."),
        (squares.mean() + beta * kl, "This is the mean squared error of the whole batch. Each image has its own, as "
         "a sum over its pixels, in units of 2 sigma²."),
        (miss - beta * kl, "The KL has the wrong sign: this loss would reward codes far from the prior."),
        (beta * miss + kl, "beta multiplies the wrong term: it weighs the KL."),
        (beta * (miss + kl), "beta multiplies both terms, which only rescales the loss. It weighs the KL only."),
        (miss + kl, "beta is left out."),
        (miss + beta * kl.mean(), "The KL is averaged over the batch. Each image has its own."),
        (loss(half, 0), "The constants log(sigma) + log(2 pi) / 2 of each pixel are missing. Without log(sigma) a "
         "larger sigma would always look better."),
        (loss(half, math.log(2 * math.pi) / 2), "log(sigma) is missing. Without it a larger sigma would always look "
         "better."),
        (loss(half, math.log(sigma)), "log(2 pi) / 2 is missing, the constant of the normal density."),
        (loss(half, math.log(sigma) + math.log(2 * math.pi)), "log(2 pi) is not halved: the normal density has the "
         "square root of 2 pi."),
        (loss(half, 2 * math.log(sigma) + math.log(2 * math.pi) / 2), "This has log(sigma²). The normal density has "
         "sigma in the denominator, not its square: log(sigma)."),
        (loss(half, -math.log(sigma) + math.log(2 * math.pi) / 2), "log(sigma) has the wrong sign: a wide distribution "
         "is low everywhere, which costs."),
        (loss(1, 0), "The squared error must be divided by 2 sigma²: sigma determines what an error costs."),
        (half * squares.sum() + D * constants + beta * kl, "The squares are added up over the whole batch. Each "
         "image has its own sum."),
        (loss(half / sigma**2, constants + math.log(sigma)), "This is the density with the standard deviation sigma². "
         "Normal(mean, std) wants sigma itself."),
        (loss(1 / (2 * sigma), constants), "sigma is a standard deviation: divide by sigma²."),
        (loss(1 / sigma**2, constants), "The factor 1/2 before the squares is missing."),
        (loss(half, constants / D), "The constants belong to each pixel: they are inside the sum."),
        (-expected, "This is the bound itself, which should be large. The loss is its negative."),
        (expected.mean(), whole),
        (expected.sum(), whole),
        (miss, "The KL is missing: this is a plain autoencoder's loss."),
    ]  # fmt: skip
    return expected, mistakes


def bounds(log_w):
    """Return the right bounds, and those of common mistakes."""
    K, batch = log_w.shape
    sums = torch.tensor([math.fsum(math.exp(value) for value in column) for column in log_w.T.tolist()])
    rows = torch.tensor([math.fsum(math.exp(value) for value in row) for row in log_w.tolist()])
    expected = (sums / K).log()
    whole = "This is one number for the batch. Keep one for each image." if batch > 1 else LOST_AXIS
    mistakes = [
        (log_w.mean(0), "This is the mean of the logs: the ELBO, averaged over M samples. The mean of the weights "
         "comes first, then the logarithm."),
        (sums.log(), "log M is missing: this is the logarithm of the sum, not of the mean. It grows with M "
         "without limit "
         "and bounds nothing."),
        (sums.log() + math.log(K), "log M has the wrong sign: dividing by M subtracts it."),
        (sums.log() - K, "This subtracts M. A mean divides by M, and in the logarithm that is minus log M."),
        (sums.log() / K, "Divide by M inside the logarithm: outside, that is minus log M."),
        (sums / K, "This is the mean weight; the logarithm is missing."),
        (log_w.max(0).values, "This is the largest weight alone. All weights count: logsumexp."),
        (rows.log() - math.log(K), "This averages over the batch. The samples lie along axis 0."),
        (sums.log() - math.log2(K), "math.log2 has the base 2, logsumexp the base e: math.log."),
        ((rows / batch).log(), "This averages over the batch. The samples lie along axis 0."),
        (expected.mean(), whole),
        ((sums.sum() / log_w.numel()).log(), whole),
        (sums.log() - math.log(batch), "This divides by the size of the batch, not by the number of samples."),
        (sums.log() - math.log(log_w.numel()), "This divides by all the numbers of log_w. The samples of an image lie "
         "along axis 0, M of them."),
        (-expected, "This bounds -log p(x), and a bound on log p(x) is wanted: the sign is wrong."),
    ]  # fmt: skip
    return expected, mistakes


def paths(start, end, count):
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
        (_arc(start / start.norm(), end / end.norm(), a, s), "The ends were normalised to length 1. Only the "
         "angle needs "
         "that; the path runs between start and end as they are."),
        (_arc(start, end, a, torch.linspace(0, 1, count + 2)[1:-1, None]), "The ends themselves are missing."),
        (_arc(start, end, a, torch.linspace(0, 1, count + 1)[:, None]), "This is one latent too many: count includes "
         "both ends."),
        (_arc(start, end, a, s) * torch.sin(a), "The division by sin(a) is missing: the path misses its ends."),
        (_arc(start, end, torch.arccos(start @ end), s), "The cosine is the dot product *divided by both lengths*; "
         "without it this is no angle."),
        (_arc(start, end, a, s).T, "Each latent is a column. Return one in each row: (count, d)."),
        (_arc(start, end, torch.tensor(math.pi / 2), s), "This assumes that the ends are at a right angle. "
         "Compute the angle "
         "between them, by the arccos of their dot product over both lengths."),
        ((torch.sin(1 - s * a) * start + torch.sin(s * a) * end) / torch.sin(a), "Brackets are missing: the start is "
         "multiplied by sin((1 - s) a)."),
        (_arc(start, end, torch.cos(a), s), "This uses the cosine as the angle. torch.arccos gives the angle."),
        (line / line.norm(dim=1, keepdim=True) * lengths, "This is the straight line, rescaled to the lengths "
         "of an arc. Its "
         "steps are not equal: they are longest in the middle. Use the two sines."),
    ]  # fmt: skip
    return _arc(start, end, a, s), mistakes


def _angle(start, end):
    u, v = start / start.norm(), end / end.norm()
    return 2 * torch.atan2((u - v).norm(), (u + v).norm())


def _arc(start, end, angle, s):
    return (torch.sin((1 - s) * angle) * start + torch.sin(s * angle) * end) / torch.sin(angle)
