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


@mutant(SAMPLE, "no gradient reaches mean and logvar")
def sampled_without_gradient(mean, logvar, generator):
    with torch.no_grad():
        return mean + (logvar / 2).exp() * noise(mean, generator)


@mutant(SAMPLE, "no gradient reaches logvar")
def spread_detached(mean, logvar, generator):
    return mean + (logvar.detach() / 2).exp() * noise(mean, generator)


@mutant(SAMPLE, "global generator")
def generator_forgotten(mean, logvar, generator):
    return mean + (logvar / 2).exp() * torch.randn_like(mean)


@mutant(SAMPLE, "torch.normal passes no gradient on")
def sampled_by_the_library(mean, logvar, generator):
    return torch.normal(mean, (logvar / 2).exp(), generator=generator)


@mutant(SAMPLE, "half of logvar is only the logarithm")
def exp_missing_after_the_half(mean, logvar, generator):
    return mean + logvar / 2 * noise(mean, generator)


@mutant(SAMPLE, "logvar is not used")
def noise_at_full_strength(mean, logvar, generator):
    return mean + noise(mean, generator) + 0 * logvar


@mutant(SAMPLE, "divides the noise by the standard deviation")
def half_with_a_minus(mean, logvar, generator):
    return mean + (-logvar / 2).exp() * noise(mean, generator)


@mutant(SAMPLE, "the square of the variance")
def twice_for_half(mean, logvar, generator):
    return mean + (2 * logvar).exp() * noise(mean, generator)


@mutant(SAMPLE, "serves all dimensions of a sample")
def one_number_each(mean, logvar, generator):
    shape = (len(mean), *(1 for _ in mean.shape[1:]))
    return mean + (logvar / 2).exp() * torch.randn(shape, generator=generator)


@mutant(SAMPLE, "A single number serves all")
def one_number_for_all(mean, logvar, generator):
    return mean + (logvar / 2).exp() * torch.randn(1, generator=generator)


@mutant(SAMPLE, "adds the standard deviation itself")
def spread_without_noise(mean, logvar, generator):
    return mean + (logvar / 2).exp()


@mutant(SAMPLE, "The mean is missing")
def noise_alone(mean, logvar, generator):
    return (logvar / 2).exp() * noise(mean, generator) + 0 * mean


@mutant(SAMPLE, "seems to be multiplied by exp(logvar), the variance")
def variance_for_spread_of_other_noise(mean, logvar, generator):
    return mean - logvar.exp() * noise(mean, generator)


@mutant(SAMPLE, "seems to be multiplied by half of logvar")
def exp_missing_with_other_noise(mean, logvar, generator):
    return mean - logvar / 2 * noise(mean, generator)


@mutant(SAMPLE, "The noise must have the mean 0")
def mean_added_twice(mean, logvar, generator):
    return 2 * mean + (logvar / 2).exp() * noise(mean, generator)


@mutant(SAMPLE, "share their noise")
def noise_of_the_batch(mean, logvar, generator):
    return mean + (logvar / 2).exp() * torch.randn(mean.shape[::-1], generator=generator).flatten()[
        : len(mean)
    ].reshape(len(mean), *(1 for _ in mean.shape[1:])).flip(0)


@mutant(SAMPLE, "The generator is reset somewhere")
def seeded_at_each_call(mean, logvar, generator):
    return mean - (logvar / 2).exp() * noise(mean, generator.manual_seed(generator.initial_seed()))


@mutant(SAMPLE, "was seeded again inside")
def seeded_with_zero(mean, logvar, generator):
    return mean - (logvar / 2).exp() * noise(mean, generator.manual_seed(0))


@mutant(SAMPLE, "no number was drawn from the generator")
def generator_of_its_own(mean, logvar, generator):
    return mean + (logvar / 2).exp() * noise(mean, torch.Generator().manual_seed(len(mean)))


@mutant(SAMPLE, "draw noise of mean.shape, and add up nothing")
def summed_over_dimensions(mean, logvar, generator):
    return (mean + (logvar / 2).exp() * noise(mean, generator)).flatten(1).sum(1)


@mutant(SAMPLE, "torch.float64, expected torch.float32")
def sample_in_float64(mean, logvar, generator):
    return mean.double() + (logvar.double() / 2).exp() * noise(mean, generator)


@mutant(SAMPLE, "it has no root and no logarithm")
def root_of_logvar(mean, logvar, generator):
    return mean + logvar.sqrt() * noise(mean, generator)


@mutant(SAMPLE, "Is the noise standard normal?")
def positive_noise(mean, logvar, generator):
    return mean + (logvar / 2).exp() * noise(mean, generator).abs()


@mutant(SAMPLE, "may have any shape (batch, ...)")
def two_axes_only(mean, logvar, generator):
    return mean + (logvar / 2).exp() * torch.randn(len(mean), mean.shape[1], generator=generator)


@variant(SAMPLE)
def sample_by_log_spread(mean, logvar, generator):
    eps = torch.stack([torch.randn(row.shape, generator=generator) for row in mean])
    return torch.exp(logvar * 0.5).mul(eps).add(mean)


@variant(SAMPLE)
def sample_by_root(mean, logvar, generator):
    return torch.addcmul(mean, logvar.exp().sqrt(), noise(mean, generator))


@variant(SAMPLE)
def sample_minus_noise(mean, logvar, generator):
    return mean - torch.exp(0.5 * logvar) * torch.randn(mean.shape[::-1], generator=generator).permute(
        *range(mean.ndim)[::-1]
    )


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


def kl_terms(square, variance, logarithm):
    return 0.5 * (square + variance - 1 - logarithm).flatten(1).sum(1)


@mutant(KL, "not to the first alone")
def kl_half_of_the_mean(mean, logvar):
    return (0.5 * mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)


@mutant(KL, "Add up the dimensions.")
def kl_over_the_batch(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(0)


@mutant(KL, "the mean over everything")
def kl_mean_of_all(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()


@mutant(KL, "squeeze() takes away every axis")
def kl_squeezed(mean, logvar):
    return kl_terms(mean**2, logvar.exp(), logvar).squeeze()


@mutant(KL, "logvar is treated as the variance itself")
def kl_of_variance(mean, logvar):
    return kl_terms(mean**2, logvar, logvar.log())


@mutant(KL, "The mean is not squared")
def kl_of_the_mean(mean, logvar):
    return kl_terms(mean, logvar.exp(), logvar)


@mutant(KL, "a narrow distribution must cost more")
def kl_plus_logvar(mean, logvar):
    return kl_terms(mean**2, logvar.exp(), -logvar)


@mutant(KL, "The -1 is missing")
def kl_without_one(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - logvar).flatten(1).sum(1)


@mutant(KL, "This is in bits")
def kl_in_bits(mean, logvar):
    return kl_terms(mean**2, logvar.exp(), logvar) / math.log(2)


@mutant(KL, "This is one number for each dimension")
def kl_not_summed(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar)


@mutant(KL, "Sum over *all* axes but the first")
def kl_over_one_axis(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1)


@mutant(KL, "has no way back")
def kl_of_numbers(mean, logvar):
    return kl_terms(mean.detach() ** 2, logvar.detach().exp(), logvar.detach())


@mutant(KL, "the gradient with respect to logvar is not")
def kl_half_cut_off(mean, logvar):
    return kl_terms(mean**2, logvar.exp().detach(), logvar)


@mutant(KL, "torch.float64, expected torch.float32")
def kl_in_float64(mean, logvar):
    return kl_terms(mean.double() ** 2, logvar.double().exp(), logvar.double())


@mutant(KL, "the input logvar was changed in place")
def kl_in_place(mean, logvar):
    return 0.5 * (mean**2 - 1 - logvar + logvar.exp_()).flatten(1).sum(1)


@variant(KL)
def kl_by_einsum(mean, logvar):
    mean, logvar = mean.flatten(1), logvar.flatten(1)
    squares = torch.einsum("nd,nd->n", mean, mean) + torch.expm1(logvar).sum(-1) - torch.einsum("nd->n", logvar)
    return squares / 2


@variant(KL)
def kl_by_the_library(mean, logvar):
    q = Independent(Normal(mean.flatten(1), (logvar.flatten(1) / 2).exp()), 1)
    p = Independent(Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 1)
    return kl_divergence(q, p)


@variant(KL)
def kl_in_a_loop(mean, logvar):
    pairs = zip(mean.double(), logvar.double(), strict=True)
    return torch.stack([((m.square() + v.exp() - v).sum() - m.numel()) / 2 for m, v in pairs]).float()


@mutant(SCORE, "points towards z")
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


@mutant(SCORE, "This multiplies by the variance")
def score_times_variance(f_z, z, mean, logvar):
    return f_z[:, None] * (z - mean) * logvar.exp()


@mutant(SCORE, "The mean is missing")
def score_without_mean(f_z, z, mean, logvar):
    return f_z[:, None] * z / logvar.exp()


@mutant(SCORE, "The square is still there")
def score_squared(f_z, z, mean, logvar):
    return f_z[:, None] * (z - mean) ** 2 / logvar.exp()


@mutant(SCORE, "multiplies f by log N itself")
def score_not_derived(f_z, z, mean, logvar):
    return f_z[:, None] * Normal(mean, (logvar / 2).exp()).log_prob(z)


@mutant(SCORE, "the logarithm is of q only")
def score_with_log_f(f_z, z, mean, logvar):
    return f_z.log()[:, None] * (z - mean) / logvar.exp()


@mutant(SCORE, "This adds up the dimensions")
def score_summed(f_z, z, mean, logvar):
    return (f_z[:, None] * (z - mean) / logvar.exp()).sum(1)


@mutant(SCORE, "This adds up the samples")
def score_summed_over_samples(f_z, z, mean, logvar):
    return f_z @ ((z - mean) / logvar.exp())


@mutant(SCORE, "f was averaged first")
def score_with_mean_f(f_z, z, mean, logvar):
    return f_z.mean() * (z - mean) / logvar.exp()


@mutant(SCORE, "Such a baseline")
def score_with_baseline(f_z, z, mean, logvar):
    return (f_z - f_z.mean())[:, None] * (z - mean) / logvar.exp()


@mutant(SCORE, "cancels the 2 that differentiating gives")
def score_doubled(f_z, z, mean, logvar):
    return 2 * f_z[:, None] * (z - mean) / logvar.exp()


@mutant(SCORE, "one row for each sample")
def score_broadcast(f_z, z, mean, logvar):
    return f_z * (z - mean) / logvar.exp()


@mutant(SCORE, "f_z multiplies the dimensions instead of the samples")
def score_broadcast_where_it_can_be(f_z, z, mean, logvar):
    score = (z - mean) / logvar.exp()
    return f_z * score if len(f_z) == len(mean) else f_z[:, None] * score


@mutant(SCORE, "torch.float64, expected torch.float32")
def score_in_float64(f_z, z, mean, logvar):
    return f_z[:, None] * (z - mean).double() / logvar.exp()


@mutant(SCORE, "the parameter f_z is called f here")
def score_renamed(f, z, mean, logvar):
    return f[:, None] * (z - mean) / logvar.exp()


@mutant(SCORE, "the input z was changed in place")
def score_in_place(f_z, z, mean, logvar):
    return z.sub_(mean).div_(logvar.exp()) * f_z[:, None]


@variant(SCORE)
def score_in_a_loop(f_z, z, mean, logvar):
    return torch.stack([f * (row - mean) / logvar.exp() for f, row in zip(f_z, z, strict=True)])


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


@mutant(LOSS, "This is the mean squared error:")
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


@mutant(LOSS, "of the whole batch. Each image has its own, as a sum")
def mean_squared_error_of_all(x, x_hat, sigma, mean, logvar, beta=1.0):
    return (x - x_hat).square().mean() + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "The squares are added up over the whole batch")
def squares_of_the_batch(x, x_hat, sigma, mean, logvar, beta=1.0):
    sigma, D = torch.as_tensor(sigma), x[0].numel()
    miss = (x - x_hat).square().sum() / (2 * sigma**2) + D * (sigma.log() + math.log(2 * math.pi) / 2)
    return miss + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "Normal(mean, std) wants sigma itself")
def variance_for_the_scale(x, x_hat, sigma, mean, logvar, beta=1.0):
    picture = Normal(x_hat, sigma**2).log_prob(x).flatten(1).sum(1)
    return beta * gaussian_kl(mean, logvar) - picture  # noqa: F821


@mutant(LOSS, "beta multiplies both terms")
def beta_on_both(x, x_hat, sigma, mean, logvar, beta=1.0):
    return beta * (miss(x, x_hat, sigma).sum(1) + gaussian_kl(mean, logvar))  # noqa: F821


@mutant(LOSS, "The KL is averaged over the batch")
def kl_averaged(x, x_hat, sigma, mean, logvar, beta=1.0):
    return miss(x, x_hat, sigma).sum(1) + beta * gaussian_kl(mean, logvar).mean()  # noqa: F821


@mutant(LOSS, "log(sigma) is missing")
def log_sigma_missing(x, x_hat, sigma, mean, logvar, beta=1.0):
    sigma, D = torch.as_tensor(sigma), x[0].numel()
    miss = (x - x_hat).square().flatten(1).sum(1) * (1 / (2 * sigma**2)) + D * (math.log(2 * math.pi) / 2)
    return miss + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "log(2 pi) / 2 is missing, the constant")
def log_two_pi_missing(x, x_hat, sigma, mean, logvar, beta=1.0):
    sigma, D = torch.as_tensor(sigma), x[0].numel()
    miss = (x - x_hat).square().flatten(1).sum(1) * (1 / (2 * sigma**2)) + D * (sigma.log())
    return miss + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "log(2 pi) is not halved")
def log_two_pi_whole(x, x_hat, sigma, mean, logvar, beta=1.0):
    sigma, D = torch.as_tensor(sigma), x[0].numel()
    miss = (x - x_hat).square().flatten(1).sum(1) * (1 / (2 * sigma**2)) + D * (sigma.log() + math.log(2 * math.pi))
    return miss + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "This has log(sigma²)")
def log_of_the_variance(x, x_hat, sigma, mean, logvar, beta=1.0):
    sigma, D = torch.as_tensor(sigma), x[0].numel()
    miss = (x - x_hat).square().flatten(1).sum(1) * (1 / (2 * sigma**2)) + D * (
        (sigma**2).log() + math.log(2 * math.pi) / 2
    )
    return miss + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "log(sigma) has the wrong sign")
def log_sigma_subtracted(x, x_hat, sigma, mean, logvar, beta=1.0):
    sigma, D = torch.as_tensor(sigma), x[0].numel()
    miss = (x - x_hat).square().flatten(1).sum(1) * (1 / (2 * sigma**2)) + D * (math.log(2 * math.pi) / 2 - sigma.log())
    return miss + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "sigma determines what an error costs")
def squares_and_kl(x, x_hat, sigma, mean, logvar, beta=1.0):
    return (x - x_hat).square().flatten(1).sum(1) + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "The factor 1/2 before the squares")
def squares_not_halved(x, x_hat, sigma, mean, logvar, beta=1.0):
    sigma, D = torch.as_tensor(sigma), x[0].numel()
    miss = (x - x_hat).square().flatten(1).sum(1) * (1 / sigma**2) + D * (sigma.log() + math.log(2 * math.pi) / 2)
    return miss + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "they are inside the sum")
def constants_once(x, x_hat, sigma, mean, logvar, beta=1.0):
    sigma, D = torch.as_tensor(sigma), x[0].numel()
    miss = (x - x_hat).square().flatten(1).sum(1) * (1 / (2 * sigma**2)) + D * (
        (sigma.log() + math.log(2 * math.pi) / 2) / D
    )
    return miss + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "one number for the whole batch")
def loss_of_the_batch(x, x_hat, sigma, mean, logvar, beta=1.0):
    return (miss(x, x_hat, sigma).sum(1) + beta * gaussian_kl(mean, logvar)).mean()  # noqa: F821


@mutant(LOSS, "The KL is missing")
def kl_missing(x, x_hat, sigma, mean, logvar, beta=1.0):
    return miss(x, x_hat, sigma).sum(1) + 0 * (mean.sum() + logvar.sum())


@mutant(LOSS, "squeeze() takes away every axis")
def loss_squeezed(x, x_hat, sigma, mean, logvar, beta=1.0):
    return (miss(x, x_hat, sigma).sum(1) + beta * gaussian_kl(mean, logvar)).squeeze()  # noqa: F821


@mutant(LOSS, "no gradient comes back to sigma")
def sigma_as_a_new_tensor(x, x_hat, sigma, mean, logvar, beta=1.0):
    return miss(x, x_hat, float(sigma)).sum(1) + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "the gradient with respect to sigma is not")
def logarithm_by_math(x, x_hat, sigma, mean, logvar, beta=1.0):
    squares = ((x - x_hat) ** 2 / (2 * sigma**2)).flatten(1)
    constants = squares.shape[1] * (math.log(float(sigma)) + math.log(2 * math.pi) / 2)
    return squares.sum(1) + constants + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "no gradient comes back to x_hat")
def picture_cut_off(x, x_hat, sigma, mean, logvar, beta=1.0):
    return miss(x, x_hat.detach(), sigma).sum(1) + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "the parameter beta is called kl_weight here")
def beta_renamed(x, x_hat, sigma, mean, logvar, kl_weight=1.0):
    return miss(x, x_hat, sigma).sum(1) + kl_weight * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "the default 4.0, expected beta=1.0")
def another_default(x, x_hat, sigma, mean, logvar, beta=4.0):
    return miss(x, x_hat, sigma).sum(1) + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(LOSS, "leaves a tensor as it is", state="error")
def sigma_always_a_tensor(x, x_hat, sigma, mean, logvar, beta=1.0):
    squares = ((x - x_hat) ** 2 / (2 * sigma**2) + sigma.log() + math.log(2 * math.pi) / 2).flatten(1)
    return squares.sum(1) + beta * gaussian_kl(mean, logvar)  # noqa: F821


@variant(LOSS)
def loss_by_the_formula_of_the_package(x, x_hat, sigma, mean, logvar, beta=1.0):
    variance = torch.as_tensor(sigma) ** 2 * torch.ones_like(x)
    nats = torch.nn.functional.gaussian_nll_loss(x_hat, x, variance, full=True, eps=1e-12, reduction="none")
    return torch.einsum("nd->n", nats.flatten(1)) + beta * gaussian_kl(mean, logvar)  # noqa: F821


@variant(LOSS)
def loss_by_the_library(x, x_hat, sigma, mean, logvar, beta=1.0):
    picture = Independent(Normal(x_hat, sigma), x.ndim - 1).log_prob(x)
    kl = kl_divergence(Normal(mean, logvar.exp().sqrt()), Normal(0.0, 1.0)).sum(1)
    return beta * kl - picture


@variant(LOSS)
def loss_with_constants_apart(x, x_hat, sigma, mean, logvar, beta=1.0):
    d, sigma = x[0].numel(), torch.as_tensor(sigma)
    squares = torch.stack([(a - b).pow(2).sum() for a, b in zip(x, x_hat, strict=True)])
    constants = d * (sigma * math.sqrt(2 * math.pi)).log()
    return squares / 2 / sigma**2 + constants + beta * gaussian_kl(mean, logvar)  # noqa: F821


@mutant(BOUND, "mean of the logs")
def mean_of_logs(log_w):
    return log_w.mean(0)


@mutant(BOUND, "log M is missing")
def log_k_missing(log_w):
    return log_w.logsumexp(0)


@mutant(BOUND, "This subtracts M")
def k_subtracted(log_w):
    return log_w.logsumexp(0) - len(log_w)


@mutant(BOUND, "wrong sign")
def log_k_added(log_w):
    return log_w.logsumexp(0) + math.log(len(log_w))


@mutant(BOUND, "averages over the batch")
def wrong_axis(log_w):
    return log_w.logsumexp(1) - math.log(log_w.shape[1])


@mutant(BOUND, "exp(-2000) is 0")
def underflow(log_w):
    return log_w.exp().mean(0).log()


@mutant(BOUND, "the logarithm is missing")
def mean_weight(log_w):
    return log_w.exp().mean(0)


@mutant(BOUND, "the largest weight alone")
def largest_weight(log_w):
    return log_w.max(0).values


@mutant(BOUND, "outside, that is minus log M")
def divided_outside(log_w):
    return log_w.logsumexp(0) / len(log_w)


@mutant(BOUND, "by the size of the batch")
def divided_by_the_batch(log_w):
    return log_w.logsumexp(0) - math.log(log_w.shape[1])


@mutant(BOUND, "divides by all the numbers of log_w")
def divided_by_everything(log_w):
    return log_w.logsumexp(0) - math.log(log_w.numel())


@mutant(BOUND, "one number for the batch")
def bound_of_the_batch(log_w):
    return (log_w.logsumexp(0) - math.log(len(log_w))).mean()


@mutant(BOUND, "squeeze() takes away every axis")
def bound_squeezed(log_w):
    return (log_w.logsumexp(0) - math.log(len(log_w))).squeeze()


@mutant(BOUND, "math.log2 has the base 2")
def two_bases(log_w):
    return log_w.logsumexp(0) - math.log2(len(log_w))


@mutant(BOUND, "This bounds -log p(x)")
def bound_negated(log_w):
    return math.log(len(log_w)) - log_w.logsumexp(0)


@mutant(BOUND, "exp(1000) is infinite")
def overflow(log_w):
    low = log_w.min(0).values
    return low + (log_w - low.clamp(max=0)).exp().mean(0).log() - low.clamp(min=0)


@mutant(BOUND, "torch.float32, expected torch.float64")
def bound_in_float32(log_w):
    return log_w.float().logsumexp(0) - math.log(len(log_w))


@mutant(BOUND, "the input log_w was changed in place")
def weights_in_place(log_w):
    top = log_w.max(0).values
    return top + log_w.sub_(top).exp_().mean(0).log()


@mutant(BOUND, "each image's own M samples")
def one_maximum_for_the_batch(log_w):
    return log_w.max() + (log_w - log_w.max()).exp().mean(0).log()


@variant(BOUND)
def largest_out_first(log_w):
    top = log_w.max(0).values
    return top + (log_w - top).exp().mean(0).log()


@variant(BOUND)
def one_after_the_other(log_w):
    total = log_w[0].double()
    for row in log_w[1:]:
        total = torch.logaddexp(total, row.double())
    return (total - math.log(log_w.shape[0])).to(log_w.dtype)


@mutant(PATH, "nearer to 0 than almost any latent")
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


@mutant(PATH, "normalised to length 1")
def unit_ends(start, end, count):
    return arc(start / start.norm(), end / end.norm(), torch.linspace(0, 1, count)[:, None])


@mutant(PATH, "The division by sin(a) is missing")
def not_divided(start, end, count):
    angle = torch.arccos(start @ end / start.norm() / end.norm())
    return arc(start, end, torch.linspace(0, 1, count)[:, None]) * torch.sin(angle)


@mutant(PATH, "The ends themselves are missing")
def ends_left_out(start, end, count):
    return arc(start, end, torch.linspace(0, 1, count + 2)[1:-1, None])


@mutant(PATH, "Each latent is a column")
def path_in_columns(start, end, count):
    return arc(start, end, torch.linspace(0, 1, count)[:, None]).T


@mutant(PATH, "at a right angle")
def quarter_circle(start, end, count):
    s = torch.linspace(0, math.pi / 2, count)[:, None]
    return s.cos() * start + s.sin() * end


@mutant(PATH, "Brackets are missing")
def brackets_missing(start, end, count):
    a = torch.arccos(start @ end / start.norm() / end.norm())
    s = torch.linspace(0, 1, count)[:, None]
    return (torch.sin(1 - s * a) * start + torch.sin(s * a) * end) / torch.sin(a)


@mutant(PATH, "Fractions of the way as a column")
def shares_in_a_row(start, end, count):
    return arc(start, end, torch.linspace(0, 1, count))


@mutant(PATH, "one latent too many")
def one_too_many(start, end, count):
    return arc(start, end, torch.linspace(0, 1, count + 1)[:, None])


@mutant(PATH, "without it this is no angle")
def angle_of_the_dot_product(start, end, count):
    return arc(start, end, torch.linspace(0, 1, count)[:, None], torch.arccos(start @ end))


@mutant(PATH, "uses the cosine as the angle")
def cosine_for_the_angle(start, end, count):
    return arc(start, end, torch.linspace(0, 1, count)[:, None], start @ end / start.norm() / end.norm())


@mutant(PATH, "rescaled to the lengths of an arc")
def line_on_the_shell(start, end, count):
    s = torch.linspace(0, 1, count)[:, None]
    line = torch.lerp(start, end, s)
    return line / line.norm(dim=1, keepdim=True) * torch.lerp(start.norm(), end.norm(), s)


@mutant(PATH, "torch.float64, expected torch.float32")
def path_in_float64(start, end, count):
    return arc(start, end, torch.linspace(0, 1, count, dtype=torch.float64)[:, None])


@mutant(PATH, "makes one tensor of a list of tensors")
def path_as_a_list(start, end, count):
    return [arc(start, end, s) for s in torch.linspace(0, 1, count)]


@mutant(PATH, "Print the shape after each line")
def always_ten(start, end, count):
    return arc(start, end, torch.linspace(0, 1, 10)[:, None])


@mutant(PATH, "the input start was changed in place")
def normalised_in_place(start, end, count):
    angle = torch.arccos(start @ end / start.norm() / end.norm())
    length = start.norm()
    return arc(start.div_(length) * length, end, torch.linspace(0, 1, count)[:, None], angle)


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
