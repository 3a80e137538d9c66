"""Attempts at the exercises of chapter 02."""

import math

import torch
from attempts import mutant, variant
from torch.distributions import Independent, Normal, kl_divergence

SAMPLE, KL, SCORE = "02.reparametrise", "02.gaussian_kl", "02.score_gradient"
LOSS, BOUND, PATH = "02.negative_elbo", "02.importance_bound", "02.spherical_path"


def noise(mean, generator):
    return torch.randn(mean.shape, generator=generator)


@mutant(SAMPLE, "exp(logvar) is the variance")
def variance_for_spread(mean, logvar, generator):
    return mean + logvar.exp() * noise(mean, generator)


@mutant(SAMPLE, "logvar itself can be negative")
def exp_missing(mean, logvar, generator):
    return mean + logvar * noise(mean, generator)


@mutant(SAMPLE, "One noise serves the whole batch")
def noise_shared(mean, logvar, generator):
    return mean + (logvar / 2).exp() * torch.randn(mean.shape[1:], generator=generator)


@mutant(SAMPLE, "all positive")
def uniform_noise(mean, logvar, generator):
    return mean + (logvar / 2).exp() * torch.rand(mean.shape, generator=generator)


@mutant(SAMPLE, "without any noise")
def no_noise(mean, logvar, generator):
    return mean + 0 * logvar


@mutant(SAMPLE, "has no gradient")
def sampled_without_gradient(mean, logvar, generator):
    with torch.no_grad():
        return mean + (logvar / 2).exp() * noise(mean, generator)


@mutant(SAMPLE, "no gradient reaches logvar")
def spread_detached(mean, logvar, generator):
    return mean + (logvar.detach() / 2).exp() * noise(mean, generator)


@mutant(SAMPLE, "global generator")
def generator_forgotten(mean, logvar, generator):
    return mean + (logvar / 2).exp() * torch.randn_like(mean)


@mutant(SAMPLE, "Gradients must flow")
def sampled_by_the_library(mean, logvar, generator):
    return torch.normal(mean, (logvar / 2).exp(), generator=generator)


@variant(SAMPLE)
def sample_by_root(mean, logvar, generator):
    return torch.addcmul(mean, logvar.exp().sqrt(), noise(mean, generator))


@variant(SAMPLE)
def sample_minus_noise(mean, logvar, generator):
    return mean - torch.exp(0.5 * logvar) * torch.randn(mean.shape[::-1], generator=generator).T


@mutant(KL, "never negative")
def kl_sign(mean, logvar):
    return 0.5 * (1 + logvar - mean**2 - logvar.exp()).flatten(1).sum(1)


@mutant(KL, "mean over the dimensions")
def kl_mean(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).mean(1)


@mutant(KL, "the other direction")
def kl_reversed(mean, logvar):
    return 0.5 * ((1 + mean**2) / logvar.exp() - 1 + logvar).flatten(1).sum(1)


@mutant(KL, "factor 1/2 is missing")
def kl_without_half(mean, logvar):
    return (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)


@mutant(KL, "logarithm of the standard deviation")
def kl_of_log_std(mean, logvar):
    return 0.5 * (mean**2 + (2 * logvar).exp() - 1 - 2 * logvar).flatten(1).sum(1)


@mutant(KL, "is its root")
def kl_std_for_variance(mean, logvar):
    return 0.5 * (mean**2 + (0.5 * logvar).exp() - 1 - logvar).flatten(1).sum(1)


@mutant(KL, "one number for the whole batch")
def kl_total(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum()


@mutant(KL, "mean over the batch")
def kl_batch_mean(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1).mean()


@variant(KL)
def kl_by_the_library(mean, logvar):
    q = Independent(Normal(mean.flatten(1), (logvar.flatten(1) / 2).exp()), 1)
    p = Independent(Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 1)
    return kl_divergence(q, p)


@variant(KL)
def kl_in_a_loop(mean, logvar):
    pairs = zip(mean.double(), logvar.double(), strict=True)
    return torch.stack([((m.square() + v.exp() - v).sum() - m.numel()) / 2 for m, v in pairs])


@mutant(SCORE, "points to z")
def score_sign(f_z, z, mean, logvar):
    return f_z[:, None] * (mean - z) / logvar.exp()


@mutant(SCORE, "f is missing")
def score_without_f(f_z, z, mean, logvar):
    return (z - mean) / logvar.exp()


@mutant(SCORE, "divides by the standard deviation")
def score_over_std(f_z, z, mean, logvar):
    return f_z[:, None] * (z - mean) / (logvar / 2).exp()


@mutant(SCORE, "logvar is a logarithm")
def score_over_logvar(f_z, z, mean, logvar):
    return f_z[:, None] * (z - mean) / logvar


@mutant(SCORE, "mean over the samples")
def score_averaged(f_z, z, mean, logvar):
    return (f_z[:, None] * (z - mean) / logvar.exp()).mean(0)


@mutant(SCORE, "The division by the variance is missing")
def score_not_divided(f_z, z, mean, logvar):
    return f_z[:, None] * (z - mean)


@variant(SCORE)
def score_by_autograd(f_z, z, mean, logvar):
    m = mean.expand(z.shape).clone().requires_grad_()
    total = (f_z * Normal(m, (logvar / 2).exp()).log_prob(z).sum(1)).sum()
    return torch.autograd.grad(total, m)[0]


@variant(SCORE)
def score_by_einsum(f_z, z, mean, logvar):
    return torch.einsum("n,nd,d->nd", f_z, z - mean, torch.exp(-logvar))


# `gaussian_kl` has no meaning here; a check gives it that of the reference


def miss(x, x_hat, sigma):
    sigma = torch.as_tensor(sigma)
    return ((x - x_hat) ** 2 / (2 * sigma**2) + sigma.log() + math.log(2 * math.pi) / 2).flatten(1)


@mutant(LOSS, "averaged over the pixels while the KL is summed")
def pixels_averaged(x, x_hat, sigma, mean, logvar, beta=1.0):
    return miss(x, x_hat, sigma).mean(1) + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "This is the mean squared error")
def mean_squared_error(x, x_hat, sigma, mean, logvar, beta=1.0):
    return (x - x_hat).square().flatten(1).mean(1) + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "wrong sign")
def kl_subtracted(x, x_hat, sigma, mean, logvar, beta=1.0):
    return miss(x, x_hat, sigma).sum(1) - beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "multiplies the wrong term")
def beta_on_the_picture(x, x_hat, sigma, mean, logvar, beta=1.0):
    return beta * miss(x, x_hat, sigma).sum(1) + gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "beta is left out")
def beta_forgotten(x, x_hat, sigma, mean, logvar, beta=1.0):
    return miss(x, x_hat, sigma).sum(1) + gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "Without log(sigma)")
def constants_forgotten(x, x_hat, sigma, mean, logvar, beta=1.0):
    return ((x - x_hat) ** 2 / (2 * sigma**2)).flatten(1).sum(1) + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "divide by sigma²")
def sigma_not_squared(x, x_hat, sigma, mean, logvar, beta=1.0):
    nats = miss(x, x_hat, sigma) + ((x - x_hat) ** 2 * (1 / (2 * sigma) - 1 / (2 * sigma**2))).flatten(1)
    return nats.sum(1) + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "The loss is its negative")
def bound_itself(x, x_hat, sigma, mean, logvar, beta=1.0):
    return -miss(x, x_hat, sigma).sum(1) - beta * gaussian_kl(mean, logvar)  # noqa: F821


@variant(LOSS)
def loss_by_the_library(x, x_hat, sigma, mean, logvar, beta=1.0):
    picture = Independent(Normal(x_hat, sigma), x.ndim - 1).log_prob(x)
    kl = kl_divergence(Normal(mean, logvar.exp().sqrt()), Normal(0.0, 1.0)).sum(1)
    return beta * kl - picture


@variant(LOSS)
def loss_with_constants_apart(x, x_hat, sigma, mean, logvar, beta=1.0):
    d = x[0].numel()
    squares = torch.stack([(a - b).pow(2).sum() for a, b in zip(x, x_hat, strict=True)])
    constants = d * math.log(float(sigma) * math.sqrt(2 * math.pi))
    return squares / 2 / sigma**2 + constants + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(BOUND, "mean of the logs")
def mean_of_logs(log_w):
    return log_w.mean(0)


@mutant(BOUND, "log K is missing")
def log_k_missing(log_w):
    return log_w.logsumexp(0)


@mutant(BOUND, "This subtracts K")
def k_subtracted(log_w):
    return log_w.logsumexp(0) - len(log_w)


@mutant(BOUND, "wrong sign")
def log_k_added(log_w):
    return log_w.logsumexp(0) + math.log(len(log_w))


@mutant(BOUND, "averages over the batch")
def wrong_axis(log_w):
    return log_w.logsumexp(1) - math.log(log_w.shape[1])


@mutant(BOUND, "not finite")
def underflow(log_w):
    return log_w.exp().mean(0).log()


@mutant(BOUND, "the logarithm is missing")
def mean_weight(log_w):
    return log_w.exp().mean(0)


@variant(BOUND)
def largest_out_first(log_w):
    top = log_w.max(0).values
    return top + (log_w - top).exp().mean(0).log()


@variant(BOUND)
def one_after_the_other(log_w):
    total = log_w[0].double()
    for row in log_w[1:]:
        total = torch.logaddexp(total, row.double())
    return total - math.log(log_w.shape[0])


@mutant(PATH, "straight line")
def straight(start, end, count):
    return torch.lerp(start, end, torch.linspace(0, 1, count)[:, None])


def arc(start, end, s, angle=None):
    if angle is None:
        angle = torch.arccos(start @ end / start.norm() / end.norm())
    return (torch.sin((1 - s) * angle) * start + torch.sin(s * angle) * end) / torch.sin(angle)


@mutant(PATH, "stops short of the end")
def end_missing(start, end, count):
    return arc(start, end, torch.arange(count)[:, None] / count)


@mutant(PATH, "from end to start")
def backwards(start, end, count):
    return arc(end, start, torch.linspace(0, 1, count)[:, None])


@mutant(PATH, "made to length 1")
def unit_ends(start, end, count):
    return arc(start / start.norm(), end / end.norm(), torch.linspace(0, 1, count)[:, None])


@mutant(PATH, "The division by sin(a) is missing")
def not_divided(start, end, count):
    angle = torch.arccos(start @ end / start.norm() / end.norm())
    return arc(start, end, torch.linspace(0, 1, count)[:, None]) * torch.sin(angle)


@mutant(PATH, "The ends themselves are missing")
def ends_left_out(start, end, count):
    return arc(start, end, torch.linspace(0, 1, count + 2)[1:-1, None])


@variant(PATH)
def path_one_by_one(start, end, count):
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=0).item()
    a = math.acos(cosine)
    weights = [(math.sin((1 - i / (count - 1)) * a), math.sin(i / (count - 1) * a)) for i in range(count)]
    return torch.stack([(p * start + q * end) / math.sin(a) for p, q in weights])


@variant(PATH)
def path_by_two_axes(start, end, count):
    u = start / start.norm()
    v = end / end.norm()
    a = torch.arccos(u @ v)
    w = (v - torch.cos(a) * u) / torch.sin(a)
    s = torch.linspace(0, 1, count)[:, None]
    # the same arc on each of the two lengths, mixed with the weights that the ends have
    along = torch.cos(s * a) * u + torch.sin(s * a) * w
    return along * start.norm() + torch.sin(s * a) / torch.sin(a) * (end - v * start.norm())
