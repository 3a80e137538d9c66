"""Attempts at the exercises of chapter 07."""

import math

import torch
from attempts import mutant, variant

POSTERIOR, GUESS, DDPM, DDIM = "07.posterior", "07.guess", "07.ddpm_step", "07.ddim_step"
V, SCORE, MULTI, HEUN, INVERT = "07.eps_from_v", "07.score", "07.dpm_solver_step", "07.heun_step", "07.inversion_step"


def level(alpha_bar, t):
    return 1.0 if t == -1 else alpha_bar[t].item()


def levels(t, earlier, alpha_bar):
    return level(alpha_bar, t), level(alpha_bar, earlier)


# The posterior


def mean_and_variance(x0, x_t, a, e):
    alpha = a / e
    beta = 1 - alpha
    mean = (math.sqrt(e) * beta * x0 + math.sqrt(alpha) * (1 - e) * x_t) / (1 - a)
    return mean, (1 - e) / (1 - a) * beta


@mutant(POSTERIOR, "variance of the *forward* step")
def beta_for_the_posterior_variance(x0, x_t, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    return mean_and_variance(x0, x_t, a, e)[0], 1 - a / e


@mutant(POSTERIOR, "This is the standard deviation")
def sigma_for_the_variance(x0, x_t, t, earlier, alpha_bar):
    mean, variance = mean_and_variance(x0, x_t, *levels(t, earlier, alpha_bar))
    return mean, math.sqrt(variance)


@mutant(POSTERIOR, "is the table's last entry")
def the_end_of_the_table_for_clean(x0, x_t, t, earlier, alpha_bar):
    return mean_and_variance(x0, x_t, alpha_bar[t].item(), alpha_bar[earlier].item())


@mutant(POSTERIOR, "goes to t - 1, but the step goes to `earlier`")
def always_one_step(x0, x_t, t, earlier, alpha_bar):
    return mean_and_variance(x0, x_t, *levels(t, t - 1, alpha_bar))


@mutant(POSTERIOR, "weights are swapped")
def swapped_weights(x0, x_t, t, earlier, alpha_bar):
    return mean_and_variance(x_t, x0, *levels(t, earlier, alpha_bar))


@mutant(POSTERIOR, "This is ᾱ where α belongs")
def alpha_bar_for_alpha(x0, x_t, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    mean = (math.sqrt(e) * (1 - a / e) * x0 + math.sqrt(a) * (1 - e) * x_t) / (1 - a)
    return mean, (1 - e) / (1 - a) * (1 - a / e)


@mutant(POSTERIOR, "1 - ᾱ where β belongs")
def all_the_noise_for_beta(x0, x_t, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    return (math.sqrt(e) * (1 - a) * x0 + math.sqrt(a / e) * (1 - e) * x_t) / (1 - a), (1 - e) / (1 - a) * (1 - a / e)


@mutant(POSTERIOR, "return mean, variance")
def mean_alone(x0, x_t, t, earlier, alpha_bar):
    return mean_and_variance(x0, x_t, *levels(t, earlier, alpha_bar))[0]


@mutant(POSTERIOR, "still to be divided by 1 - alpha_bar_t")
def not_divided(x0, x_t, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    mean, variance = mean_and_variance(x0, x_t, a, e)
    return mean * (1 - a), variance


@mutant(POSTERIOR, "The roots are missing")
def posterior_without_roots(x0, x_t, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    return (e * (1 - a / e) * x0 + a / e * (1 - e) * x_t) / (1 - a), mean_and_variance(x0, x_t, a, e)[1]


@mutant(POSTERIOR, "of the earlier time; this has sqrt(alpha_bar_t)")
def weight_of_the_later_time(x0, x_t, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    mean = (math.sqrt(a) * (1 - a / e) * x0 + math.sqrt(a / e) * (1 - e) * x_t) / (1 - a)
    return mean, mean_and_variance(x0, x_t, a, e)[1]


@mutant(POSTERIOR, "which does not know x_t")
def forward_mean(x0, x_t, t, earlier, alpha_bar):
    e = level(alpha_bar, earlier)
    return math.sqrt(e) * x0, 1 - e


@mutant(POSTERIOR, "earlier = 0 is still a noisy time")
def zero_taken_for_clean(x0, x_t, t, earlier, alpha_bar):
    e = alpha_bar[earlier].item() if earlier > 0 else 1.0
    return mean_and_variance(x0, x_t, alpha_bar[t].item(), e)


@mutant(POSTERIOR, "This goes to `earlier` + 1")
def papers_times(x0, x_t, t, earlier, alpha_bar):
    return mean_and_variance(x0, x_t, alpha_bar[t].item(), alpha_bar[min(earlier + 1, t - 1) if t else 0].item())


@mutant(POSTERIOR, "This goes to `earlier` - 1")
def one_time_too_far(x0, x_t, t, earlier, alpha_bar):
    return mean_and_variance(x0, x_t, *levels(t, max(earlier - 1, -1), alpha_bar))


@mutant(POSTERIOR, "The factor beta_t is missing")
def variance_without_beta(x0, x_t, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    return mean_and_variance(x0, x_t, a, e)[0], (1 - e) / (1 - a)


@mutant(POSTERIOR, "fraction is upside down")
def fraction_upside_down(x0, x_t, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    return mean_and_variance(x0, x_t, a, e)[0], (1 - a) / max(1 - e, 1e-12) * (1 - a / e)


@mutant(POSTERIOR, "is a tensor with one number")
def variance_as_a_tensor(x0, x_t, t, earlier, alpha_bar):
    mean, variance = mean_and_variance(x0, x_t, *levels(t, earlier, alpha_bar))
    return mean, torch.tensor(variance)


@variant(POSTERIOR)
def two_witnesses(x0, x_t, t, earlier, alpha_bar):
    a, e = (torch.tensor(value, dtype=torch.float64) for value in levels(t, earlier, alpha_bar))
    if earlier == -1:
        return x0, 0
    alpha = a / e
    precision = alpha / (1 - alpha) + 1 / (1 - e)
    mean = (alpha.sqrt() / (1 - alpha) * x_t + e.sqrt() / (1 - e) * x0) / precision
    return mean.to(x0.dtype), (1 / precision).item()


@variant(POSTERIOR)
def a_line_towards_x0(x0, x_t, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    pull = math.sqrt(a / e) * (1 - e) / (1 - a)
    return math.sqrt(e) * x0 + pull * (x_t - math.sqrt(a) * x0), 1 - e - pull**2 * (1 - a)


# The guess


@mutant(GUESS, "but eps is the old one")
def eps_not_mended(x_t, eps, t, alpha_bar, clip=None):
    a = level(alpha_bar, t)
    x0_hat = (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)
    return (x0_hat if clip is None else x0_hat.clamp(-clip, clip)), eps


@mutant(GUESS, "was not clipped")
def clamp_forgotten(x_t, eps, t, alpha_bar, clip=None):
    a = level(alpha_bar, t)
    x0_hat = (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)
    x0_hat.clamp(-1, 1)
    return x0_hat, eps


@mutant(GUESS, "clips at 1, whatever")
def clips_at_one(x_t, eps, t, alpha_bar, clip=None):
    a = level(alpha_bar, t)
    x0_hat = (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)
    x0_hat = x0_hat if clip is None else x0_hat.clamp(-1, 1)
    return x0_hat, (x_t - math.sqrt(a) * x0_hat) / math.sqrt(1 - a)


@mutant(GUESS, "The roots are missing")
def guess_without_roots(x_t, eps, t, alpha_bar, clip=None):
    a = level(alpha_bar, t)
    return (x_t - (1 - a) * eps) / a, eps


@mutant(GUESS, "x0_hat first, then eps")
def other_order(x_t, eps, t, alpha_bar, clip=None):
    return eps, right_guess(x_t, eps, t, alpha_bar, clip)[0]


@mutant(GUESS, "also if nothing was clipped")
def returns_one_thing(x_t, eps, t, alpha_bar, clip=None):
    return right_guess(x_t, eps, t, alpha_bar, clip)[0]


@mutant(GUESS, "clips x_t")
def clips_the_noisy_picture(x_t, eps, t, alpha_bar, clip=None):
    return right_guess(x_t if clip is None else x_t.clamp(-clip, clip), eps, t, alpha_bar, None)


@mutant(GUESS, "clips eps as well")
def clips_both(x_t, eps, t, alpha_bar, clip=None):
    x0_hat, _ = right_guess(x_t, eps, t, alpha_bar, clip)
    return x0_hat, (eps if clip is None else eps.clamp(-clip, clip))


@mutant(GUESS, "This clips from 0 upwards")
def clips_from_zero(x_t, eps, t, alpha_bar, clip=None):
    x0_hat, _ = right_guess(x_t, eps, t, alpha_bar)
    x0_hat = x0_hat if clip is None else x0_hat.clamp(0, clip)
    a = level(alpha_bar, t)
    return x0_hat, (x_t - math.sqrt(a) * x0_hat) / math.sqrt(1 - a)


@mutant(GUESS, "takes 1 - ᾱ of eps away")
def noise_without_root(x_t, eps, t, alpha_bar, clip=None):
    a = level(alpha_bar, t)
    x0_hat = (x_t - (1 - a) * eps) / math.sqrt(a)
    return (x0_hat if clip is None else x0_hat.clamp(-clip, clip)), eps


@mutant(GUESS, "The roots are missing in eps")
def eps_without_roots(x_t, eps, t, alpha_bar, clip=None):
    x0_hat, _ = right_guess(x_t, eps, t, alpha_bar, clip)
    a = level(alpha_bar, t)
    return x0_hat, (eps if clip is None else (x_t - a * x0_hat) / (1 - a))


@variant(GUESS)
def right_guess(x_t, eps, t, alpha_bar, clip=None):
    a = level(alpha_bar, t)
    x0_hat = x_t / math.sqrt(a) - eps * math.sqrt(1 / a - 1)
    if clip is None:
        return x0_hat, eps
    x0_hat = torch.minimum(torch.maximum(x0_hat, torch.tensor(-clip)), torch.tensor(clip))
    return x0_hat, (x_t - math.sqrt(a) * x0_hat) / math.sqrt(1 - a)


@variant(GUESS)
def guess_in_place_of_its_own(x_t, eps, t, alpha_bar, clip=None):
    a = alpha_bar[t]
    x0_hat = x_t.sub((1 - a).sqrt() * eps).div_(a.sqrt())
    if clip is not None:
        x0_hat = x0_hat.clamp_(min=-clip).clamp_(max=clip)
        eps = (x_t - x0_hat * a.sqrt()) * (1 - a).rsqrt()
    return x0_hat, eps


# DDPM


def parts(x_t, eps, t, earlier, alpha_bar, clip):
    a, e = levels(t, earlier, alpha_bar)
    x0_hat, _ = right_guess(x_t, eps, t, alpha_bar, clip)
    return *mean_and_variance(x0_hat, x_t, a, e), 1 - a / e


@mutant(DDPM, "adds noise of variance β")
def beta_as_variance(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    mean, _, beta = parts(x_t, eps, t, earlier, alpha_bar, clip)
    return mean + math.sqrt(beta) * noise * (earlier >= 0)


@mutant(DDPM, "no later step would remove it")
def noise_at_the_last_step(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    mean, variance, beta = parts(x_t, eps, t, earlier, alpha_bar, clip)
    return mean + math.sqrt(variance if earlier >= 0 else beta) * noise


@mutant(DDPM, "it is multiplied by its square root")
def variance_for_sigma(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    mean, variance = posterior(guess(x_t, eps, t, alpha_bar, clip)[0], x_t, t, earlier, alpha_bar)  # noqa: F821
    return mean + variance * noise


@mutant(DDPM, "the mean of the step")
def no_noise(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    return parts(x_t, eps, t, earlier, alpha_bar, clip)[0]


@mutant(DDPM, "not passed to guess")
def clip_not_passed_on(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    mean, variance, _ = parts(x_t, eps, t, earlier, alpha_bar, None)
    return mean + math.sqrt(variance) * noise


@mutant(DDPM, "the predicted eps once more")
def eps_for_noise(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    mean, variance, _ = parts(x_t, eps, t, earlier, alpha_bar, clip)
    return mean + math.sqrt(variance) * eps


@mutant(DDPM, "full strength")
def noise_at_full_strength(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    return parts(x_t, eps, t, earlier, alpha_bar, clip)[0] + noise


@mutant(DDPM, "The noise has a minus sign")
def noise_subtracted(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    mean, variance, _ = parts(x_t, eps, t, earlier, alpha_bar, clip)
    return mean - math.sqrt(variance) * noise


@mutant(DDPM, "which is still a noisy time: only the step")
def noise_only_above_zero(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    mean, variance, _ = parts(x_t, eps, t, earlier, alpha_bar, clip)
    return mean + math.sqrt(variance) * noise if earlier > 0 else mean


@mutant(DDPM, "This is ᾱ where α belongs")
def alpha_bar_in_equation_11(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    a, e = levels(t, earlier, alpha_bar)
    _, mended = right_guess(x_t, eps, t, alpha_bar, clip)
    _, variance, beta = parts(x_t, eps, t, earlier, alpha_bar, clip)
    mean = (x_t - beta / math.sqrt(1 - a) * mended) / math.sqrt(a)
    return mean + math.sqrt(variance) * noise


def ddpm_to(x_t, eps, t, e, alpha_bar, noise, clip):
    a = level(alpha_bar, t)
    mean, variance = mean_and_variance(right_guess(x_t, eps, t, alpha_bar, clip)[0], x_t, a, e)
    return mean + max(variance, 0) ** 0.5 * noise


@mutant(DDPM, "This goes to t - 1")
def ddpm_one_time_back(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    return ddpm_to(x_t, eps, t, level(alpha_bar, t - 1), alpha_bar, noise, clip)


@mutant(DDPM, "This goes to `earlier` + 1")
def ddpm_to_the_next_time(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    return ddpm_to(x_t, eps, t, level(alpha_bar, min(earlier + 1, t - 1)), alpha_bar, noise, clip)


@mutant(DDPM, "This goes to `earlier` - 1")
def ddpm_too_far(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    return ddpm_to(x_t, eps, t, level(alpha_bar, max(earlier - 1, -1)), alpha_bar, noise, clip)


@mutant(DDPM, "earlier = 0 is still a noisy time, with")
def ddpm_clean_at_zero(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    e = alpha_bar[earlier].item() if earlier > 0 else 1.0
    return ddpm_to(x_t, eps, t, e, alpha_bar, noise, clip)


@mutant(DDPM, "is the table's last entry")
def ddpm_from_the_end_of_the_table(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    a, e = alpha_bar[t].item(), alpha_bar[earlier].item()
    mean, variance = mean_and_variance(right_guess(x_t, eps, t, alpha_bar, clip)[0], x_t, a, e)
    return (mean + variance**0.5 * noise) if variance >= 0 else mean * math.nan


@variant(DDPM)
def by_the_exercises(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    mean, variance = posterior(guess(x_t, eps, t, alpha_bar, clip)[0], x_t, t, earlier, alpha_bar)  # noqa: F821
    return mean if earlier < 0 else mean + variance**0.5 * noise


@variant(DDPM)
def ddim_with_eta_one(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    return mixed(x_t, eps, t, earlier, alpha_bar, 1.0, noise, clip)


# DDIM


def mixed(x_t, eps, t, earlier, alpha_bar, eta, noise, clip, sigma=None, direction=None, e=None, old=False):
    a, right_e = levels(t, earlier, alpha_bar)
    e = right_e if e is None else e
    x0_hat, mended = right_guess(x_t, eps, t, alpha_bar, clip)
    eps = eps if old else mended
    sigma = (eta * math.sqrt((1 - e) / (1 - a) * (1 - a / e))) if sigma is None else sigma(a, e)
    direction = math.sqrt(1 - e - sigma**2) if direction is None else direction(e, sigma)
    return math.sqrt(e) * x0_hat + direction * eps + (sigma * noise if noise is not None else 0)


@mutant(DDIM, "η stands under the root")
def eta_times_the_variance(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return mixed(
        x_t,
        eps,
        t,
        earlier,
        alpha_bar,
        eta,
        noise,
        clip,
        sigma=lambda a, e: math.sqrt(eta * (1 - e) / (1 - a) * (1 - a / e)),
    )


@mutant(DDIM, "forgets sigma")
def direction_without_sigma(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return mixed(x_t, eps, t, earlier, alpha_bar, eta, noise, clip, direction=lambda e, s: math.sqrt(1 - e))


@mutant(DDIM, "Under the root stands sigma; it is sigma²")
def sigma_not_squared(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return mixed(x_t, eps, t, earlier, alpha_bar, eta, noise, clip, direction=lambda e, s: math.sqrt(max(1 - e - s, 0)))


@mutant(DDIM, "sigma was taken off after the root")
def sigma_off_after_the_root(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return mixed(x_t, eps, t, earlier, alpha_bar, eta, noise, clip, direction=lambda e, s: math.sqrt(1 - e) - s)


@mutant(DDIM, "sigma is η √β̃")
def sigma_from_beta(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return mixed(
        x_t,
        eps,
        t,
        earlier,
        alpha_bar,
        eta,
        noise,
        clip,
        sigma=lambda a, e: eta * math.sqrt(1 - a / e),
        direction=lambda e, s: math.sqrt(max(1 - e - s**2, 0)),
    )


@mutant(DDIM, "uses alpha_bar_t; at the earlier time")
def noise_level_of_t(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    a = level(alpha_bar, t)
    return mixed(x_t, eps, t, earlier, alpha_bar, eta, noise, clip, direction=lambda e, s: math.sqrt(1 - a - s**2))


@mutant(DDIM, "diffusers does so by default")
def old_eps_after_clipping(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return mixed(x_t, eps, t, earlier, alpha_bar, eta, noise, clip, old=True)


@mutant(DDIM, "A root of a negative number came out complex")
def ddim_to_the_end_of_the_table(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    a, e = alpha_bar[t].item(), alpha_bar[earlier].item()
    x0_hat, eps = right_guess(x_t, eps, t, alpha_bar, clip)
    sigma = eta * ((1 - e) / (1 - a) * (1 - a / e)) ** 0.5  # of a negative number: Python makes it complex
    mixed = e**0.5 * x0_hat + (1 - e - sigma**2) ** 0.5 * eps
    return mixed + sigma * noise if eta > 0 else mixed


@mutant(DDIM, "alpha_bar_at(alpha_bar, earlier) knows better")
def ddim_to_the_last_entry(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return ddim_to(x_t, eps, t, alpha_bar[earlier].item(), alpha_bar, eta, noise, clip)


@mutant(DDIM, "The fresh noise is missing")
def noise_forgotten(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return mixed(x_t, eps, t, earlier, alpha_bar, eta, None, clip)


@mutant(DDIM, "the second factor is missing")
def sigma_without_second_factor(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return mixed(
        x_t, eps, t, earlier, alpha_bar, eta, noise, clip, sigma=lambda a, e: eta * math.sqrt((1 - e) / (1 - a)),
        direction=lambda e, s: math.sqrt(max(1 - e - s**2, 0)),
    )  # fmt: skip


@mutant(DDIM, "the root of the product is missing")
def sigma_without_root(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    def sigma(a, e):
        return eta * (1 - e) / (1 - a) * (1 - a / e)

    return mixed(x_t, eps, t, earlier, alpha_bar, eta, noise, clip, sigma=sigma)


@mutant(DDIM, "The root over the factor of eps is missing")
def direction_without_root(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return mixed(x_t, eps, t, earlier, alpha_bar, eta, noise, clip, direction=lambda e, s: 1 - e - s**2)


@mutant(DDIM, "in front of x0_hat")
def picture_without_root(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    e = level(alpha_bar, earlier)
    x0_hat, _ = right_guess(x_t, eps, t, alpha_bar, clip)
    return mixed(x_t, eps, t, earlier, alpha_bar, eta, noise, clip) + (e - math.sqrt(e)) * x0_hat


@mutant(DDIM, "This goes straight to x0_hat")
def straight_to_the_guess(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return right_guess(x_t, eps, t, alpha_bar, clip)[0]


@mutant(DDIM, "`clip` was not passed to guess")
def ddim_without_clip(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return mixed(x_t, eps, t, earlier, alpha_bar, eta, noise, None)


def ddim_to(x_t, eps, t, e, alpha_bar, eta, noise, clip):
    a = level(alpha_bar, t)
    x0_hat, eps = right_guess(x_t, eps, t, alpha_bar, clip)
    variance = eta**2 * max((1 - e) / (1 - a) * (1 - a / e), 0)
    result = math.sqrt(e) * x0_hat + math.sqrt(1 - e - variance) * eps
    return result if eta == 0 else result + math.sqrt(variance) * noise


@mutant(DDIM, "This goes to t - 1")
def ddim_one_time_back(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return ddim_to(x_t, eps, t, level(alpha_bar, t - 1), alpha_bar, eta, noise, clip)


@mutant(DDIM, "This goes to `earlier` + 1")
def ddim_to_the_next_time(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return ddim_to(x_t, eps, t, level(alpha_bar, min(earlier + 1, t - 1)), alpha_bar, eta, noise, clip)


@mutant(DDIM, "This goes to `earlier` - 1")
def ddim_too_far(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    return ddim_to(x_t, eps, t, level(alpha_bar, max(earlier - 1, -1)), alpha_bar, eta, noise, clip)


@mutant(DDIM, "earlier = 0 is still a noisy time")
def ddim_clean_at_zero(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    e = alpha_bar[earlier].item() if earlier > 0 else 1.0
    return ddim_to(x_t, eps, t, e, alpha_bar, eta, noise, clip)


@variant(DDIM)
def ddim_by_the_posterior_variance(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    a, e = levels(t, earlier, alpha_bar)
    x0_hat, eps = guess(x_t, eps, t, alpha_bar, clip)  # noqa: F821
    variance = eta**2 * mean_and_variance(x0_hat, x_t, a, e)[1]
    result = e**0.5 * x0_hat.double() + (1 - e - variance) ** 0.5 * eps.double()
    return (result if noise is None else result + variance**0.5 * noise).to(x_t.dtype)


@variant(DDIM)
def ddim_along_the_line(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    a, e = levels(t, earlier, alpha_bar)
    _, eps = right_guess(x_t, eps, t, alpha_bar, clip)
    sigma = eta * math.sqrt((1 - e) / (1 - a)) * math.sqrt(1 - a / e)
    clean = x_t / math.sqrt(a) - math.sqrt(1 / a - 1) * eps
    terms = [math.sqrt(e) * clean, math.sqrt(1 - e - sigma**2) * eps]
    return sum(terms + ([sigma * noise] if sigma else []))


# v


@mutant(V, "This is x0. The noise is the other component")
def x0_from_v(x_t, v, t, alpha_bar):
    a = column(alpha_bar[t], x_t)
    return a.sqrt() * x_t - (1 - a).sqrt() * v


@mutant(V, "A sign is wrong")
def turned_the_wrong_way(x_t, v, t, alpha_bar):
    a = column(alpha_bar[t], x_t)
    return a.sqrt() * v - (1 - a).sqrt() * x_t


@mutant(V, "Sine and cosine are swapped")
def sine_for_cosine(x_t, v, t, alpha_bar):
    a = column(alpha_bar[t], x_t)
    return a.sqrt() * x_t + (1 - a).sqrt() * v


@mutant(V, "the factors are √(1 - ᾱ) and √ᾱ")
def v_without_roots(x_t, v, t, alpha_bar):
    a = column(alpha_bar[t], x_t)
    return (1 - a) * x_t + a * v


@mutant(V, "Each has its own")
def time_of_the_first(x_t, v, t, alpha_bar):
    a = alpha_bar[t[0]]
    return (1 - a).sqrt() * x_t + a.sqrt() * v


@mutant(V, "as if it were the noise")
def v_for_the_noise(x_t, v, t, alpha_bar):
    a = column(alpha_bar[t], x_t)
    return (x_t - (1 - a).sqrt() * v) / a.sqrt()


@mutant(V, "This looks up t + 1")
def v_one_time_late(x_t, v, t, alpha_bar):
    a = column(alpha_bar[(t + 1).clamp(max=len(alpha_bar) - 1)], x_t)
    return (1 - a).sqrt() * x_t + a.sqrt() * v


@mutant(V, "This is v itself")
def v_untouched(x_t, v, t, alpha_bar):
    return v


@variant(V)
def by_solving_two_equations(x_t, v, t, alpha_bar):
    a = column(alpha_bar[t], x_t).double()
    x0 = a.sqrt() * x_t - (1 - a).sqrt() * v
    return ((x_t - a.sqrt() * x0) / (1 - a).sqrt()).float()


@variant(V)
def by_angles(x_t, v, t, alpha_bar):
    angle = column(torch.acos(alpha_bar[t].sqrt()), x_t)
    return angle.sin() * x_t + angle.cos() * v


def column(values, x):
    return values.reshape(-1, *[1] * (x.ndim - 1))


# The score


@mutant(SCORE, "The minus sign is missing")
def towards_the_noise(eps, t, alpha_bar):
    return eps / column(1 - alpha_bar[t], eps).sqrt()


@mutant(SCORE, "divides by the variance 1 - ᾱ")
def over_the_variance(eps, t, alpha_bar):
    return -eps / column(1 - alpha_bar[t], eps)


@mutant(SCORE, "divides by √ᾱ")
def over_the_signal(eps, t, alpha_bar):
    return -eps / column(alpha_bar[t], eps).sqrt()


@mutant(SCORE, "multiplies by √(1 - ᾱ)")
def times_the_noise(eps, t, alpha_bar):
    return -eps * column(1 - alpha_bar[t], eps).sqrt()


@mutant(SCORE, "This is only -ε̂")
def minus_eps(eps, t, alpha_bar):
    return -eps


@mutant(SCORE, "All samples got the time of the first")
def score_at_the_first_time(eps, t, alpha_bar):
    return -eps / (1 - alpha_bar[t[0]]).sqrt()


@mutant(SCORE, "This looks up t + 1")
def score_one_time_late(eps, t, alpha_bar):
    return -eps / column(1 - alpha_bar[(t + 1).clamp(max=len(alpha_bar) - 1)], eps).sqrt()


@mutant(SCORE, "This looks up t - 1")
def score_one_time_early(eps, t, alpha_bar):
    return -eps / column(1 - alpha_bar[(t - 1).clamp(min=0)], eps).sqrt()


@mutant(SCORE, "It needs the axes of eps")
def score_without_axes(eps, t, alpha_bar):
    return -eps / (1 - alpha_bar[t]).sqrt()


@mutant(SCORE, "gradient")
def score_without_gradient(eps, t, alpha_bar):
    return -eps.detach() / column(1 - alpha_bar[t], eps).sqrt()


@variant(SCORE)
def score_by_matrix(eps, t, alpha_bar):
    scale = torch.diag((1 - alpha_bar[t]).rsqrt())
    return -(scale @ eps.flatten(1)).reshape(eps.shape)


@variant(SCORE)
def score_sample_by_sample(eps, t, alpha_bar):
    return torch.stack([-eps[i] / (1 - alpha_bar[t[i]]).sqrt() for i in range(len(t))])


# DPM-Solver++ 2M


def lam(alpha_bar, t, half=0.5):
    return half * math.log(alpha_bar[t].item() / (1 - alpha_bar[t].item()))


def solved(x_t, now, then, before, t, earlier, alpha_bar, towards, half=0.5):
    if earlier == -1:
        return now
    h = lam(alpha_bar, earlier, half) - lam(alpha_bar, t, half)
    a, e = levels(t, earlier, alpha_bar)
    D = now
    if then is not None:
        D = towards(h, lam(alpha_bar, t, half) - lam(alpha_bar, before, half), now, then)
    return math.sqrt((1 - e) / (1 - a)) * x_t - math.sqrt(e) * (math.exp(-h) - 1) * D


def right_aim(h, h_before, now, then):
    return now + h / (2 * h_before) * (now - then)


@mutant(MULTI, "was not used")
def first_order(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    return solved(x_t, x0_hat, None, None, t, earlier, alpha_bar, right_aim)


@mutant(MULTI, "equally long")
def equal_steps(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    return solved(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, lambda h, b, n, o: n + (n - o) / 2)


@mutant(MULTI, "ratio is upside down")
def ratio_upside_down(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    return solved(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, lambda h, b, n, o: right_aim(b, h, n, o))


@mutant(MULTI, "to the *end* of the step")
def whole_step_ahead(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    return solved(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, lambda h, b, n, o: n + h / b * (n - o))


@mutant(MULTI, "*half* the logarithm")
def whole_logarithm(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    return solved(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, right_aim, half=1.0)


@mutant(MULTI, "goes on as it moved")
def backwards(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    return solved(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, lambda h, b, n, o: right_aim(-h, b, n, o))


@mutant(MULTI, "nothing can be extrapolated")
def foresees_at_the_last_step(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    if earlier == -1:
        return x0_hat + (x0_hat - x0_hat_before) / 2
    return solved(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, right_aim)


@mutant(MULTI, "1 - alpha_bar is 0", state="error")
def no_case_for_the_last_step(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    h = math.log(e / (1 - e)) / 2 - lam(alpha_bar, t)
    D = x0_hat
    if x0_hat_before is not None:
        D = right_aim(h, lam(alpha_bar, t) - lam(alpha_bar, before), x0_hat, x0_hat_before)
    return math.sqrt((1 - e) / (1 - a)) * x_t - math.sqrt(e) * (math.exp(-h) - 1) * D


@mutant(MULTI, "is the table's last entry")
def last_step_to_the_end_of_the_table(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    return solved(x_t, x0_hat, x0_hat_before, before, t, earlier % len(alpha_bar), alpha_bar, right_aim)


def solved_by(x_t, now, then, before, t, earlier, alpha_bar, formula):
    if earlier == -1:
        return now
    a, e = levels(t, earlier, alpha_bar)
    h, D = lam(alpha_bar, earlier) - lam(alpha_bar, t), now
    if then is not None:
        D = right_aim(h, lam(alpha_bar, t) - lam(alpha_bar, before), now, then)
    return formula(x_t, D, h, a, e)


@mutant(MULTI, "The roots are missing")
def solver_without_roots(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    def formula(x, D, h, a, e):
        return (1 - e) / (1 - a) * x - e * math.expm1(-h) * D

    return solved_by(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, formula)


@mutant(MULTI, "second term has the wrong sign")
def solver_with_plus(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    def formula(x, D, h, a, e):
        return math.sqrt((1 - e) / (1 - a)) * x + math.sqrt(e) * math.expm1(-h) * D

    return solved_by(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, formula)


@mutant(MULTI, "factors of the solver for eps")
def solver_for_eps(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    def formula(x, D, h, a, e):
        return math.sqrt(e / a) * x - math.sqrt(1 - e) * math.expm1(h) * D

    return solved_by(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, formula)


@mutant(MULTI, "h has the wrong sign")
def h_forwards(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    def formula(x, D, h, a, e):
        return math.sqrt((1 - e) / (1 - a)) * x - math.sqrt(e) * math.expm1(h) * D

    return solved_by(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, formula)


@mutant(MULTI, "starts from the previous prediction")
def from_the_old_guess(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    return solved(
        x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, lambda h, b, n, o: o + h / (2 * b) * (n - o)
    )


@mutant(MULTI, "earlier = 0 is still a noisy time")
def stops_at_zero(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    if earlier <= 0:
        return x0_hat
    return solved(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar, right_aim)


@variant(MULTI)
def by_ddim_with_another_aim(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    if earlier == -1:
        return x0_hat
    a, e = levels(t, earlier, alpha_bar)
    noise = (x_t - math.sqrt(a) * x0_hat) / math.sqrt(1 - a)
    result = math.sqrt(e) * x0_hat + math.sqrt(1 - e) * noise
    if x0_hat_before is not None:
        h, h_before = (lam(alpha_bar, earlier) - lam(alpha_bar, t)), lam(alpha_bar, t) - lam(alpha_bar, before)
        result = result + math.sqrt(e) * (1 - math.exp(-h)) * h / h_before / 2 * (x0_hat - x0_hat_before)
    return result


@variant(MULTI)
def in_double_precision(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    then = None if x0_hat_before is None else x0_hat_before.double()
    return solved(x_t.double(), x0_hat.double(), then, before, t, earlier, alpha_bar.double(), right_aim).float()


# Heun


def ask(model, x, t):
    return model(x, torch.full((len(x),), t))


def ddim(x, eps, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    return math.sqrt(e) * (x - math.sqrt(1 - a) * eps) / math.sqrt(a) + math.sqrt(1 - e) * eps


@mutant(HEUN, "the trial step, a DDIM step")
def euler(model, x_t, t, earlier, alpha_bar):
    return ddim(x_t, ask(model, x_t, t), t, earlier, alpha_bar)


@mutant(HEUN, "given the old time")
def old_time_ahead(model, x_t, t, earlier, alpha_bar):
    eps = ask(model, x_t, t)
    ahead = ddim(x_t, eps, t, earlier, alpha_bar)
    return ddim(x_t, (eps + ask(model, ahead, t)) / 2, t, earlier, alpha_bar) if earlier >= 0 else ahead


@mutant(HEUN, "divide by 2")
def sum_of_slopes(model, x_t, t, earlier, alpha_bar):
    eps = ask(model, x_t, t)
    ahead = ddim(x_t, eps, t, earlier, alpha_bar)
    return ddim(x_t, eps + ask(model, ahead, earlier), t, earlier, alpha_bar) if earlier >= 0 else ahead


@mutant(HEUN, "starts from x_t again")
def starts_from_ahead(model, x_t, t, earlier, alpha_bar):
    eps = ask(model, x_t, t)
    ahead = ddim(x_t, eps, t, earlier, alpha_bar)
    return ddim(ahead, (eps + ask(model, ahead, earlier)) / 2, t, earlier, alpha_bar) if earlier >= 0 else ahead


@mutant(HEUN, "knows no time -1")
def asks_at_the_clean_picture(model, x_t, t, earlier, alpha_bar):
    eps = ask(model, x_t, t)
    ahead = ddim(x_t, eps, t, earlier, alpha_bar)
    return ddim(x_t, (eps + ask(model, ahead, earlier)) / 2, t, earlier, alpha_bar)


@mutant(HEUN, "with the slope ahead alone")
def slope_ahead(model, x_t, t, earlier, alpha_bar):
    ahead = ddim(x_t, ask(model, x_t, t), t, earlier, alpha_bar)
    return ddim(x_t, ask(model, ahead, earlier), t, earlier, alpha_bar) if earlier >= 0 else ahead


@mutant(HEUN, "one time for each sample", state="fail")
def time_as_a_number(model, x_t, t, earlier, alpha_bar):
    return ddim(x_t, model(x_t, t), t, earlier, alpha_bar)


@mutant(HEUN, "The second evaluation was at x_t")
def asks_twice_at_the_same_place(model, x_t, t, earlier, alpha_bar):
    eps = ask(model, x_t, t)
    if earlier < 0:
        return ddim(x_t, eps, t, earlier, alpha_bar)
    return ddim(x_t, (eps + ask(model, x_t, earlier)) / 2, t, earlier, alpha_bar)


@mutant(HEUN, "mean of two places")
def mean_of_places(model, x_t, t, earlier, alpha_bar):
    ahead = ddim(x_t, ask(model, x_t, t), t, earlier, alpha_bar)
    if earlier < 0:
        return ahead
    ask(model, ahead, earlier)
    return (x_t + ahead) / 2


@mutant(HEUN, "The second half starts from the place ahead")
def second_half_from_ahead(model, x_t, t, earlier, alpha_bar):
    ahead = ddim(x_t, ask(model, x_t, t), t, earlier, alpha_bar)
    if earlier < 0:
        return ahead
    return (ahead + ddim(ahead, ask(model, ahead, earlier), t, earlier, alpha_bar)) / 2


@mutant(HEUN, "keep the predictions in variables")
def asks_three_times(model, x_t, t, earlier, alpha_bar):
    ahead = ddim(x_t, ask(model, x_t, t), t, earlier, alpha_bar)
    if earlier < 0:
        return ahead
    return ddim(x_t, (ask(model, x_t, t) + ask(model, ahead, earlier)) / 2, t, earlier, alpha_bar)


@mutant(HEUN, "the model was evaluated once at earlier = 0")
def only_one_question_at_zero(model, x_t, t, earlier, alpha_bar):
    eps = ask(model, x_t, t)
    ahead = ddim(x_t, eps, t, earlier, alpha_bar)
    return ddim(x_t, (eps + ask(model, ahead, earlier)) / 2, t, earlier, alpha_bar) if earlier > 0 else ahead


@variant(HEUN)
def heun_by_the_exercise(model, x_t, t, earlier, alpha_bar):
    here = ask(model, x_t, t)
    ahead = ddim_step(x_t, here, t, earlier, alpha_bar)  # noqa: F821
    if earlier == -1:
        return ahead
    there = ddim_step(x_t, ask(model, ahead, earlier), t, earlier, alpha_bar)  # noqa: F821
    return torch.stack([ahead, there]).mean(0)


@variant(HEUN)
def trapezoid_in_sigma(model, x_t, t, earlier, alpha_bar):
    a, e = levels(t, earlier, alpha_bar)
    s, s_earlier = math.sqrt((1 - a) / a), math.sqrt((1 - e) / e)
    bar, slope = x_t / math.sqrt(a), ask(model, x_t, t)
    ahead = bar + (s_earlier - s) * slope
    if earlier >= 0:
        slope = (slope + ask(model, ahead * math.sqrt(e), earlier)) / 2
    return math.sqrt(e) * (bar + (s_earlier - s) * slope)


# Inversion


@mutant(INVERT, "The model was given `later`")
def told_later(model, x_t, t, later, alpha_bar):
    if t < 0:
        return clean_start(model, x_t, later, alpha_bar)
    return ddim(x_t, ask(model, x_t, later), t, later, alpha_bar)


@mutant(INVERT, "two times are swapped")
def times_swapped(model, x_t, t, later, alpha_bar):
    if t < 0:
        return clean_start(model, x_t, later, alpha_bar)
    return ddim(x_t, ask(model, x_t, t), later, t, alpha_bar)


@mutant(INVERT, "taken for the clean picture")
def adds_noise_only(model, x_t, t, later, alpha_bar):
    return clean_start(model, x_t, later, alpha_bar, told=max(t, 0) if t >= 0 else later)


@mutant(INVERT, "knows no time -1")
def asks_for_the_clean_picture(model, x_t, t, later, alpha_bar):
    return ddim(x_t, ask(model, x_t, t), t, later, alpha_bar)


@mutant(INVERT, "alpha_bar[-1] is the table's last entry")
def last_entry_for_the_clean_picture(model, x_t, t, later, alpha_bar):
    at = t if t >= 0 else len(alpha_bar) - 1
    return ddim(x_t, ask(model, x_t, t if t >= 0 else later), at, later, alpha_bar)


@mutant(INVERT, "so nothing moves")
def mixes_for_the_same_time(model, x_t, t, later, alpha_bar):
    return ddim(x_t, ask(model, x_t, later if t < 0 else t), t, t, alpha_bar)


@mutant(INVERT, "eps comes with the wrong sign")
def eps_subtracted(model, x_t, t, later, alpha_bar):
    return ddim(x_t, -ask(model, x_t, t if t >= 0 else later), t, later, alpha_bar)


@mutant(INVERT, "roots are missing where x0_hat and eps are mixed")
def mixed_without_roots(model, x_t, t, later, alpha_bar):
    a, e = levels(t, later, alpha_bar)
    eps = ask(model, x_t, t if t >= 0 else later)
    return e * (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a) + (1 - e) * eps


@mutant(INVERT, "t = 0 is still a noisy time")
def zero_taken_for_the_clean_picture(model, x_t, t, later, alpha_bar):
    if t <= 0:
        return clean_start(model, x_t, later, alpha_bar)
    return ddim(x_t, ask(model, x_t, t), t, later, alpha_bar)


@variant(INVERT)
def guess_and_mix(model, x_t, t, later, alpha_bar):
    times = torch.full((len(x_t),), t) if t != -1 else torch.full((len(x_t),), later)
    eps = model(x_t, times)
    x0_hat = x_t if t == -1 else (x_t - (1 - alpha_bar[t]) ** 0.5 * eps) / alpha_bar[t] ** 0.5
    return alpha_bar[later] ** 0.5 * x0_hat + (1 - alpha_bar[later]) ** 0.5 * eps


@variant(INVERT)
def straight_line(model, x_t, t, later, alpha_bar):
    a, e = levels(t, later, alpha_bar)
    eps = ask(model, x_t, t if t >= 0 else later)
    return math.sqrt(e) * (x_t / math.sqrt(a) + (math.sqrt(1 / e - 1) - math.sqrt(1 / a - 1)) * eps)


def clean_start(model, x_t, later, alpha_bar, told=None):
    a = level(alpha_bar, later)
    return math.sqrt(a) * x_t + math.sqrt(1 - a) * ask(model, x_t, later if told is None else told)
