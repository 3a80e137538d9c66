"""Attempts at the exercises of chapter 05."""

import math

import numpy as np
import torch
from attempts import mutant, variant

from course_utils.shapes import expand_like

STEP, BAR, NOISE, COSINE = "05.forward_step", "05.alpha_bar", "05.add_noise", "05.cosine_beta"
SNR, VARIANCE, KL = "05.snr", "05.variance_at", "05.kl_to_normal"


@mutant(STEP, "standard deviation, sqrt(beta_t)")
def variance_times_noise(x_before, eps, beta_t):
    return (1 - beta_t) ** 0.5 * x_before + beta_t * eps


@mutant(STEP, "not by 1 - beta_t")
def no_root_at_the_picture(x_before, eps, beta_t):
    return (1 - beta_t) * x_before + beta_t**0.5 * eps


@mutant(STEP, "variance would grow")
def picture_not_shrunk(x_before, eps, beta_t):
    return x_before + beta_t**0.5 * eps


@mutant(STEP, "swapped")
def swapped_step(x_before, eps, beta_t):
    return beta_t**0.5 * x_before + (1 - beta_t) ** 0.5 * eps


@mutant(STEP, "x_before was changed in place")
def step_in_place(x_before, eps, beta_t):
    x_before *= (1 - beta_t) ** 0.5
    return x_before + beta_t**0.5 * eps


@variant(STEP)
def step_with_math(x_before, eps, beta_t):
    return torch.lerp(torch.zeros_like(x_before), x_before, math.sqrt(1 - beta_t)) + eps * math.sqrt(beta_t)


@variant(STEP)
def step_in_float64(x_before, eps, beta_t):
    beta_t = torch.as_tensor(beta_t, dtype=torch.float64)
    return ((1 - beta_t).sqrt() * x_before.double() + beta_t.sqrt() * eps.double()).to(x_before.dtype)


@variant(STEP)
def step_by_numpy(x_before, eps, beta_t):
    stacked = np.stack([x_before.numpy(), eps.numpy()], -1) @ np.sqrt([1 - float(beta_t), float(beta_t)])
    return torch.from_numpy(stacked).float()


@mutant(STEP, "dtype torch.float64")
def step_left_in_float64(x_before, eps, beta_t):
    return (1 - beta_t) ** 0.5 * x_before.double() + beta_t**0.5 * eps.double()


@mutant(STEP, "Both roots are missing")
def no_roots_in_the_step(x_before, eps, beta_t):
    return (1 - beta_t) * x_before + beta_t * eps


@mutant(STEP, "The noise has a minus sign")
def noise_taken_away(x_before, eps, beta_t):
    return (1 - beta_t) ** 0.5 * x_before - beta_t**0.5 * eps


@mutant(STEP, "has no attribute 'sqrt'", state="error")
def root_of_a_tensor_only(x_before, eps, beta_t):
    return (1 - beta_t).sqrt() * x_before + beta_t.sqrt() * eps


@mutant(STEP, "the parameter beta_t is called beta")
def beta_renamed(x_before, eps, beta):
    return (1 - beta) ** 0.5 * x_before + beta**0.5 * eps


@mutant(BAR, "multiplies the betas")
def product_of_betas(beta):
    return beta.cumprod(0)


@mutant(BAR, "Shares are multiplied")
def sum_of_betas(beta):
    return 1 - beta.cumsum(0)


@mutant(BAR, "what one step leaves")
def alpha_only(beta):
    return 1 - beta


@mutant(BAR, "one step late")
def starts_with_one(beta):
    alpha = torch.cat([torch.ones(1), 1 - beta[:-1]])
    return alpha.cumprod(0)


@mutant(BAR, "a running product")
def total_product(beta):
    return (1 - beta).prod()


@variant(BAR)
def exponential_of_sum_of_logs(beta):
    return (1 - beta).log().cumsum(0).exp()


@variant(BAR)
def loop_over_steps(beta):
    left, shares = 1.0, []
    for b in beta.tolist():
        left *= 1 - b
        shares.append(left)
    return torch.tensor(shares)


@variant(BAR)
def product_by_numpy(beta):
    return torch.from_numpy(np.multiply.accumulate(1 - beta.double().numpy())).to(beta.dtype)


@mutant(BAR, "dtype torch.float64")
def product_in_float64(beta):
    return (1 - beta.double()).cumprod(0)


@mutant(BAR, "This is the root")
def root_of_alpha_bar(beta):
    return (1 - beta).cumprod(0).sqrt()


@mutant(BAR, "for t = 0 steps")
def one_share_too_many(beta):
    return torch.cat([torch.ones(1), 1 - beta]).cumprod(0)


@mutant(BAR, "the variance of the noise, not that of the image")
def share_of_the_noise(beta):
    return 1 - (1 - beta).cumprod(0)


@mutant(BAR, "beta was changed in place")
def product_in_place(beta):
    return beta.neg_().add_(1).cumprod(0)


@mutant(NOISE, "ᾱ where √ᾱ belongs")
def no_root_of_alpha_bar(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x0)
    return a * x0 + (1 - a).sqrt() * eps


@mutant(NOISE, "1 - ᾱ where √(1 - ᾱ) belongs")
def no_root_at_the_noise(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x0)
    return a.sqrt() * x0 + (1 - a) * eps


@mutant(NOISE, "swapped")
def swapped_noise(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x0)
    return (1 - a).sqrt() * x0 + a.sqrt() * eps


@mutant(NOISE, "looks up t - 1")
def one_too_early(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t - 1], x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@mutant(NOISE, "time of the first")
def one_time_for_all(x0, eps, t, alpha_bar):
    a = alpha_bar[t[0]]
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@mutant(NOISE, "expand_like(values, x) does that", state="error")
def not_broadcast(x0, eps, t, alpha_bar):
    return alpha_bar[t].sqrt() * x0 + (1 - alpha_bar[t]).sqrt() * eps


@mutant(NOISE, "four axes whatever x0 has")
def for_pictures_only(x0, eps, t, alpha_bar):
    a = alpha_bar[t][:, None, None, None]
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@variant(NOISE)
def noise_in_a_loop(x0, eps, t, alpha_bar):
    rows = []
    for i, time in enumerate(t.tolist()):
        share = float(alpha_bar[time])
        rows.append(math.sqrt(share) * x0[i] + math.sqrt(1 - share) * eps[i])
    return torch.stack(rows)


@variant(NOISE)
def noise_by_einsum(x0, eps, t, alpha_bar):
    share = alpha_bar[t]
    picture, noise = (
        torch.einsum("b,b...->b...", share.sqrt(), x0),
        torch.einsum("b,b...->b...", (1 - share).sqrt(), eps),
    )
    return picture + noise


@mutant(NOISE, "dtype torch.float64")
def noise_in_float64(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x0).double()
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@mutant(NOISE, "not alpha_bar[t + 1]")
def one_too_late(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t + 1], x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@mutant(NOISE, "Both roots are missing")
def no_roots(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x0)
    return a * x0 + (1 - a) * eps


@mutant(NOISE, "Variances add up to 1, their roots do not")
def shares_of_the_roots(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t].sqrt(), x0)
    return a * x0 + (1 - a) * eps


@mutant(NOISE, "it must fade")
def picture_at_full_strength(x0, eps, t, alpha_bar):
    return x0 + (1 - expand_like(alpha_bar[t], x0)).sqrt() * eps


@mutant(NOISE, "The noise has a minus sign")
def noise_subtracted(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x0)
    return a.sqrt() * x0 - (1 - a).sqrt() * eps


@mutant(NOISE, "The noise is added at full strength")
def noise_at_full_strength(x0, eps, t, alpha_bar):
    return expand_like(alpha_bar[t], x0).sqrt() * x0 + eps


@mutant(NOISE, "one step's alpha_t")
def one_step_only(x0, eps, t, alpha_bar):
    alpha = alpha_bar / torch.cat([torch.ones(1), alpha_bar[:-1]])
    a = expand_like(alpha[t], x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@mutant(NOISE, "the input x0 was changed in place")
def noise_in_place(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x0)
    return x0.mul_(a.sqrt()).add_((1 - a).sqrt() * eps)


@variant(NOISE)
def noise_by_numpy(x0, eps, t, alpha_bar):
    share = alpha_bar.numpy()[t.numpy()].reshape(-1, *[1] * (x0.ndim - 1))
    return torch.from_numpy(np.sqrt(share) * x0.numpy() + np.sqrt(1 - share) * eps.numpy())


def cosine(T, s=0.008, power=2, start=0):
    t = torch.arange(start, T + 1, dtype=torch.float64)
    return torch.cos((t / T + s) / (1 + s) * math.pi / 2) ** power


@mutant(COSINE, "Clip the betas")
def not_clipped(T):
    f = cosine(T)
    return 1 - f[1:] / f[:-1]


@mutant(COSINE, "offset 0.008")
def no_offset(T):
    f = cosine(T, s=0)
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


@mutant(COSINE, "alpha_bar is its square")
def not_squared(T):
    f = cosine(T, power=1)
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


@mutant(COSINE, "This is alpha_bar. From it")
def alpha_bar_instead(T):
    f = cosine(T)
    return f[1:] / f[0]


@mutant(COSINE, "one beta too few")
def one_beta_too_few(T):
    f = cosine(T, start=1)
    return (1 - f[1:] / f[:-1]).clamp(max=0.999).float()


@variant(COSINE)
def cosine_in_a_loop(T):
    def f(t):
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor([min(0.999, 1 - f(t + 1) / f(t)) for t in range(T)])


@variant(COSINE)
def cosine_by_numpy(T):
    f = np.cos((np.linspace(0, 1, T + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
    return torch.as_tensor(np.clip(1 - f[1:] / f[:-1], 0, 0.999), dtype=torch.float32)


@mutant(COSINE, "dtype torch.float64")
def cosine_left_in_float64(T):
    f = cosine(T)
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


@mutant(COSINE, "one step early")
def times_from_minus_one(T):
    t = torch.arange(-1, T, dtype=torch.float64)
    f = torch.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999).float()


@mutant(COSINE, "This is alpha_t = 1 - beta_t")
def ratios_instead(T):
    f = cosine(T)
    return (f[1:] / f[:-1]).clamp(max=0.999).float()


@mutant(COSINE, "divide by alpha_bar_{t-1}")
def all_steps_together(T):
    f = cosine(T)
    return (1 - f[1:] / f[0]).clamp(max=0.999).float()


@mutant(COSINE, "t is divided by T - 1")
def times_from_0_to_beyond_1(T):
    t = torch.arange(T + 1, dtype=torch.float64)
    f = torch.cos((t / max(T - 1, 1) + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999).float()


@mutant(COSINE, "This is f(t), at T + 1 moments")
def f_itself(T):
    return cosine(T).float()


@mutant(COSINE, "torch.tensor(list) one of a list of numbers")
def betas_in_a_list(T):
    f = cosine(T)
    return (1 - f[1:] / f[:-1]).clamp(max=0.999).tolist()


@variant(COSINE)
def cosine_in_float32(T):
    f = cosine(T).float()
    alpha_bar = f / f[0]
    return torch.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], torch.tensor(0.999))


@mutant(SNR, "upside down")
def noise_to_signal(alpha_bar):
    return (1 - alpha_bar) / alpha_bar


@mutant(SNR, "no roots")
def ratio_of_factors(alpha_bar):
    return alpha_bar.sqrt() / (1 - alpha_bar).sqrt()


@mutant(SNR, "This is the logarithm")
def log_snr(alpha_bar):
    return torch.log(alpha_bar / (1 - alpha_bar))


@mutant(SNR, "The signal has a root and the noise has none")
def root_of_the_signal(alpha_bar):
    return alpha_bar.sqrt() / (1 - alpha_bar)


@mutant(SNR, "The noise has a root and the signal has none")
def root_of_the_noise(alpha_bar):
    return alpha_bar / (1 - alpha_bar).sqrt()


@mutant(SNR, "alpha_bar was changed in place")
def snr_in_place(alpha_bar):
    return alpha_bar.div_(1 - alpha_bar)


@mutant(SNR, "dtype torch.float64")
def snr_in_float64(alpha_bar):
    return alpha_bar.double() / (1 - alpha_bar.double())


@mutant(SNR, "over a 0-d tensor", state="error")
def snr_in_a_list(alpha_bar):
    return torch.tensor([a / (1 - a) for a in alpha_bar])


@variant(SNR)
def snr_by_logit(alpha_bar):
    return torch.logit(alpha_bar).exp()


@variant(SNR)
def snr_by_one_over(alpha_bar):
    return 1 / (1 / alpha_bar.double() - 1).to(alpha_bar.dtype)


@mutant(VARIANCE, "only if the images have variance 1")
def always_one(alpha_bar, x0_variance):
    return torch.ones_like(alpha_bar)


@mutant(VARIANCE, "standard deviation; the variance")
def deviation(alpha_bar, x0_variance):
    return (alpha_bar * x0_variance + 1 - alpha_bar).sqrt()


@mutant(VARIANCE, "A factor multiplies the variance by its square")
def roots_kept(alpha_bar, x0_variance):
    return alpha_bar.sqrt() * x0_variance + (1 - alpha_bar).sqrt()


@mutant(VARIANCE, "not squared again")
def squared_again(alpha_bar, x0_variance):
    return alpha_bar * x0_variance**2 + 1 - alpha_bar


@mutant(VARIANCE, "does not stay the same as x0")
def noise_like_the_pictures(alpha_bar, x0_variance):
    return alpha_bar * x0_variance + (1 - alpha_bar) * x0_variance


@mutant(VARIANCE, "are roots already")
def shares_squared(alpha_bar, x0_variance):
    return alpha_bar**2 * x0_variance + (1 - alpha_bar) ** 2


@mutant(VARIANCE, "image's part only")
def noise_forgotten(alpha_bar, x0_variance):
    return alpha_bar * x0_variance


@mutant(VARIANCE, "The two shares are swapped")
def shares_swapped(alpha_bar, x0_variance):
    return (1 - alpha_bar) * x0_variance + alpha_bar


@mutant(VARIANCE, "dtype torch.float64")
def variance_in_float64(alpha_bar, x0_variance):
    return 1 + alpha_bar.double() * (x0_variance - 1)


@mutant(VARIANCE, "alpha_bar was changed in place")
def variance_in_place(alpha_bar, x0_variance):
    alpha_bar *= x0_variance - 1
    return 1 + alpha_bar


@variant(VARIANCE)
def variance_by_lerp(alpha_bar, x0_variance):
    return torch.lerp(torch.ones_like(alpha_bar), torch.as_tensor(x0_variance).expand_as(alpha_bar), alpha_bar)


@variant(VARIANCE)
def distance_to_one(alpha_bar, x0_variance):
    return 1 + alpha_bar * (x0_variance - 1)


@mutant(KL, "This is in nats")
def in_nats(x0, alpha_bar_t):
    return (alpha_bar_t * (x0**2 - 1) - torch.log1p(-alpha_bar_t)).flatten(1).mean(1) / 2


@mutant(KL, "sum over all dimensions")
def summed(x0, alpha_bar_t):
    return (alpha_bar_t * (x0**2 - 1) - torch.log1p(-alpha_bar_t)).flatten(1).sum(1) / 2 / math.log(2)


@mutant(KL, "one number for the whole batch")
def averaged_over_all(x0, alpha_bar_t):
    return (alpha_bar_t * (x0**2 - 1) - torch.log1p(-alpha_bar_t)).mean() / 2 / math.log(2)


@mutant(KL, "never negative")
def wrong_sign(x0, alpha_bar_t):
    return -(alpha_bar_t * (x0**2 - 1) - torch.log1p(-alpha_bar_t)).flatten(1).mean(1) / 2 / math.log(2)


@mutant(KL, "not symmetric")
def other_direction(x0, alpha_bar_t):
    v = 1 - alpha_bar_t
    return ((1 + alpha_bar_t * x0**2) / v - 1 + v.log()).flatten(1).mean(1) / 2 / math.log(2)


@mutant(KL, "of the variance 1 - alpha_bar_t, not of its root")
def log_of_the_deviation(x0, alpha_bar_t):
    return (alpha_bar_t * (x0**2 - 1) - (1 - alpha_bar_t).sqrt().log()).flatten(1).mean(1) / 2 / math.log(2)


@variant(KL)
def kl_from_mean_and_variance(x0, alpha_bar_t):
    mean, variance = x0.double() * math.sqrt(alpha_bar_t), 1 - alpha_bar_t.double()
    kl = 0.5 * (variance + mean**2 - 1 - variance.log())
    return (kl.mean(dim=list(range(1, x0.ndim))) / math.log(2)).to(x0.dtype)


@variant(KL)
def kl_by_the_library(x0, alpha_bar_t):
    a = alpha_bar_t.double()
    q = torch.distributions.Normal(a.sqrt() * x0.double(), (1 - a).sqrt().expand_as(x0))
    nats = torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros(()).double(), 1.0))
    return torch.stack([each.mean() for each in nats]).to(x0.dtype) / math.log(2)


def wrong_kl(words, terms):
    """A wrong answer from its four terms, given m, v, a and x0."""

    def answer(x0, alpha_bar_t):
        summed = terms(alpha_bar_t.sqrt() * x0, 1 - alpha_bar_t, alpha_bar_t, x0)
        return summed.flatten(1).mean(1) / 2 / math.log(2)

    answer.__name__ = words.replace(" ", "_")
    mutant(KL, words)(answer)


wrong_kl("The variance of x_t is 1 - alpha_bar_t", lambda m, v, a, x0: a + m**2 - 1 - a.log())
wrong_kl("The logarithm is missing", lambda m, v, a, x0: v + m**2 - 1)
wrong_kl("ln σ² has the wrong sign", lambda m, v, a, x0: v + m**2 - 1 + v.log())
wrong_kl("The mean μ is sqrt(alpha_bar_t) x0", lambda m, v, a, x0: v + (a * x0) ** 2 - 1 - v.log())
wrong_kl("The factor 1/2 is missing", lambda m, v, a, x0: 2 * (v + m**2 - 1 - v.log()))


@mutant(KL, "not the square of the mean")
def square_of_the_mean(x0, alpha_bar_t):
    power = x0.flatten(1).mean(1).square()
    return (alpha_bar_t * (power - 1) - torch.log1p(-alpha_bar_t)) / 2 / math.log(2)


@mutant(KL, "in nats; wanted are their mean, and bits")
def summed_in_nats(x0, alpha_bar_t):
    return (alpha_bar_t * (x0**2 - 1) - torch.log1p(-alpha_bar_t)).flatten(1).sum(1) / 2


@mutant(KL, "not by multiplying")
def bits_by_multiplying(x0, alpha_bar_t):
    return (alpha_bar_t * (x0**2 - 1) - torch.log1p(-alpha_bar_t)).flatten(1).mean(1) / 2 * math.log(2)


@mutant(KL, "points of the plane have only one")
def for_pictures_alone(x0, alpha_bar_t):
    return (alpha_bar_t * (x0**2 - 1) - torch.log1p(-alpha_bar_t)).mean((1, 2, 3)) / 2 / math.log(2)


@mutant(KL, "dtype torch.float64")
def kl_in_float64(x0, alpha_bar_t):
    return (alpha_bar_t * (x0.double() ** 2 - 1) - torch.log1p(-alpha_bar_t)).flatten(1).mean(1) / 2 / math.log(2)


@variant(KL)
def kl_in_base_two(x0, alpha_bar_t):
    power = x0.square().flatten(1).mean(1)
    return (alpha_bar_t * (power - 1) / math.log(2) - torch.log2(1 - alpha_bar_t)) / 2


@mutant(STEP, "New noise is drawn inside")
def step_with_its_own_noise(x_before, eps, beta_t):
    return (1 - beta_t) ** 0.5 * x_before + beta_t**0.5 * torch.randn_like(eps)


@mutant(STEP, "multiplied by 1 - sqrt(beta_t)")
def one_minus_the_root(x_before, eps, beta_t):
    return (1 - beta_t**0.5) * x_before + beta_t**0.5 * eps


@mutant(BAR, "The alphas are added up")
def sum_of_alphas(beta):
    return (1 - beta).cumsum(0)


@mutant(BAR, "multiplies from t to the end")
def product_from_the_end(beta):
    return (1 - beta).flip(0).cumprod(0).flip(0)


@mutant(NOISE, "running product was taken once more")
def product_of_products(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar.cumprod(0)[t], x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@mutant(NOISE, "The table was taken for betas")
def table_of_betas(x0, eps, t, alpha_bar):
    a = expand_like((1 - alpha_bar).cumprod(0)[t], x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@mutant(NOISE, "without .item() or float()")
def number_of_many(x0, eps, t, alpha_bar):
    a = alpha_bar[t].item()
    return a**0.5 * x0 + (1 - a) ** 0.5 * eps


@mutant(NOISE, "New noise is drawn inside")
def jump_with_its_own_noise(x0, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * torch.randn_like(x0)


def cosine_of(T, angle):
    f = torch.cos(angle(torch.arange(T + 1, dtype=torch.float64) / T)) ** 2
    return 1 - f[1:] / f[:-1]


@mutant(COSINE, "cos takes radians")
def in_degrees(T):
    return cosine_of(T, lambda u: (u + 0.008) / 1.008 * 90).clamp(max=0.999).float()


@mutant(COSINE, "Brackets are missing")
def bracket_forgotten(T):
    return cosine_of(T, lambda u: u + 0.008 / 1.008 * math.pi / 2).clamp(max=0.999).float()


@mutant(COSINE, "They are at most that")
def clamped_from_below(T):
    return cosine_of(T, lambda u: (u + 0.008) / 1.008 * math.pi / 2).clamp(min=0.999).float()


@mutant(COSINE, "Python's min compares two numbers")
def min_of_python(T):
    return min(cosine_of(T, lambda u: (u + 0.008) / 1.008 * math.pi / 2), 0.999)


@mutant(SNR, "These are decibels")
def in_decibels(alpha_bar):
    return 10 * torch.log10(alpha_bar / (1 - alpha_bar))


@mutant(SNR, "This is the square.")
def ratio_of_squares(alpha_bar):
    return alpha_bar**2 / (1 - alpha_bar) ** 2


@mutant(VARIANCE, "variance is 1 - alpha_bar_t here")
def noise_of_variance_one(alpha_bar, x0_variance):
    return alpha_bar * x0_variance + 1


wrong_kl("This is ln(1 + alpha_bar_t)", lambda m, v, a, x0: v + m**2 - 1 - torch.log1p(a))
wrong_kl("Only the logarithm is in bits", lambda m, v, a, x0: math.log(2) * (v + m**2 - 1 - v.log2()))


@mutant(KL, "divides by log10(2)")
def bits_by_log10(x0, alpha_bar_t):
    return (alpha_bar_t * (x0**2 - 1) - torch.log1p(-alpha_bar_t)).flatten(1).mean(1) / 2 / math.log10(2)


@mutant(KL, "The batch was averaged away")
def averaged_over_the_batch(x0, alpha_bar_t):
    return (alpha_bar_t * (x0**2 - 1) - torch.log1p(-alpha_bar_t)).flatten(1).mean(0) / 2 / math.log(2)
