"""Attempts at the exercises of chapter 09."""

import bisect
import math

import numpy
import torch
from attempts import mutant, variant

ENCODE, DECODE, LOSS, FACTOR = "09.encode", "09.decode", "09.autoencoder_loss", "09.scaling_factor"
EQUAL, COLOURS, FLOPS = "09.time_of_equal_snr", "09.fit_colours", "09.level_flops"


# Encode


def halves(vae, pictures):
    return vae.quant_conv(vae.encoder(pictures)).chunk(2, dim=1)


def drawn(mean, generator):
    return torch.randn(mean.shape, generator=generator) if generator else torch.zeros_like(mean)


@mutant(ENCODE, "The scaling factor is missing")
def latents_as_they_come(vae, pictures, generator=None):
    mean, logvar = halves(vae, pictures)
    return mean + (logvar / 2).exp() * drawn(mean, generator)


@mutant(ENCODE, "This divides by the scaling factor")
def divided_on_the_way_there(vae, pictures, generator=None):
    return latents_as_they_come(vae, pictures, generator) / vae.config.scaling_factor


@mutant(ENCODE, "quant_conv is missing")
def straight_from_the_encoder(vae, pictures, generator=None):
    mean, logvar = vae.encoder(pictures).chunk(2, dim=1)
    return (mean + (logvar / 2).exp() * drawn(mean, generator)) * vae.config.scaling_factor


@mutant(ENCODE, "second half of the channels")
def halves_exchanged(vae, pictures, generator=None):
    logvar, mean = halves(vae, pictures)
    return (mean + (logvar / 2).exp() * drawn(mean, generator)) * vae.config.scaling_factor


@mutant(ENCODE, "This splits the *batch*")
def batch_split(vae, pictures, generator=None):
    mean, _ = vae.quant_conv(vae.encoder(pictures)).chunk(2)
    return mean * vae.config.scaling_factor


@mutant(ENCODE, "*logarithm* of the variance as the standard deviation")
def logvar_as_the_spread(vae, pictures, generator=None):
    mean, logvar = halves(vae, pictures)
    return (mean + logvar * drawn(mean, generator)) * vae.config.scaling_factor


@mutant(ENCODE, "with the half")
def variance_as_the_spread(vae, pictures, generator=None):
    mean, logvar = halves(vae, pictures)
    return (mean + logvar.exp() * drawn(mean, generator)) * vae.config.scaling_factor


@mutant(ENCODE, "multiplies only the mean")
def noise_left_out_of_the_scaling(vae, pictures, generator=None):
    mean, logvar = halves(vae, pictures)
    return mean * vae.config.scaling_factor + (logvar / 2).exp() * drawn(mean, generator)


@mutant(ENCODE, "but this is the mean")
def generator_ignored(vae, pictures, generator=None):
    return halves(vae, pictures)[0] * vae.config.scaling_factor


@mutant(ENCODE, "two calls without a generator")
def always_a_sample(vae, pictures, generator=None):
    mean, logvar = halves(vae, pictures)
    return (mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=generator)) * vae.config.scaling_factor


@mutant(ENCODE, "Each autoencoder has its own")
def the_factor_by_heart(vae, pictures, generator=None):
    mean, logvar = halves(vae, pictures)
    return (mean + (logvar / 2).exp() * drawn(mean, generator)) * 0.18215


@mutant(ENCODE, "These are both halves")
def not_split(vae, pictures, generator=None):
    return vae.quant_conv(vae.encoder(pictures)) * vae.config.scaling_factor


@mutant(ENCODE, "The noise has its full strength")
def noise_of_spread_one(vae, pictures, generator=None):
    mean, _ = halves(vae, pictures)
    return (mean + drawn(mean, generator)) * vae.config.scaling_factor


@mutant(ENCODE, "seeded again")
def seeded_in_encode(vae, pictures, generator=None):
    mean, logvar = halves(vae, pictures)
    if generator is not None:
        generator.manual_seed(0)
    return (mean + (logvar / 2).exp() * drawn(mean, generator)) * vae.config.scaling_factor


@mutant(ENCODE, "Keep the `def` line as it was given")
def default_dropped(vae, pictures, generator):
    return scaled_first(vae, pictures, generator)


@mutant(ENCODE, "was left in training mode")
def left_in_training(vae, pictures, generator=None):
    return scaled_first(vae.train(), pictures, generator)


@variant(ENCODE)
def noise_like_the_mean(vae, pictures, generator=None):
    mean, logvar = halves(vae, pictures)
    if generator is not None:
        mean = mean + (logvar / 2).exp() * torch.randn_like(mean, generator=generator)
    return mean * vae.config.scaling_factor


@variant(ENCODE)
def by_the_library(vae, pictures, generator=None):
    q = vae.encode(pictures).latent_dist
    return (q.mode() if generator is None else q.sample(generator)) * vae.config.scaling_factor


@variant(ENCODE)
def scaled_first(vae, pictures, generator=None):
    moments = vae.quant_conv(vae.encoder(pictures))
    channels = moments.shape[1] // 2
    z = vae.config.scaling_factor * moments[:, :channels]
    if generator is not None:
        spread = moments[:, channels:].exp().sqrt() * vae.config.scaling_factor
        z = z + spread * torch.randn(z.shape, generator=generator)
    return z


# Decode


@mutant(DECODE, "This multiplies by the scaling factor")
def multiplied_on_the_way_back(vae, latents):
    return vae.decoder(vae.post_quant_conv(latents * vae.config.scaling_factor))


@mutant(DECODE, "The scaling factor is missing")
def still_scaled(vae, latents):
    return vae.decoder(vae.post_quant_conv(latents))


@mutant(DECODE, "post_quant_conv is missing")
def straight_to_the_decoder(vae, latents):
    return vae.decoder(latents / vae.config.scaling_factor)


@mutant(DECODE, "divides the *image*")
def picture_divided(vae, latents):
    return vae.decoder(vae.post_quant_conv(latents)) / vae.config.scaling_factor


@mutant(DECODE, "This clamps the images")
def clamped(vae, latents):
    return vae.decoder(vae.post_quant_conv(latents / vae.config.scaling_factor)).clamp(-1, 1)


@mutant(DECODE, "Each autoencoder has its own")
def decoded_by_heart(vae, latents):
    return vae.decoder(vae.post_quant_conv(latents / 0.18215))


@variant(DECODE)
def by_the_items_of_the_config(vae, latents):
    return vae.decoder(vae.post_quant_conv(latents * (1 / vae.config["scaling_factor"])))


@variant(DECODE)
def decoded_by_the_library(vae, latents):
    return vae.decode(latents / vae.config.scaling_factor).sample


# The loss


def terms(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar)


def errors(x, x_hat):
    return (x - x_hat).abs().mean() + 4 * (x - x_hat).square().mean()


@mutant(LOSS, "The KL is a *mean* over the latents")
def kl_averaged_over_latents(x, x_hat, mean, logvar, kl_weight=1e-6):
    return errors(x, x_hat) + kl_weight * terms(mean, logvar).mean()


@mutant(LOSS, "summed over the batch too")
def kl_summed_over_all(x, x_hat, mean, logvar, kl_weight=1e-6):
    return errors(x, x_hat) + kl_weight * terms(mean, logvar).sum()


@mutant(LOSS, "minus sign")
def kl_subtracted(x, x_hat, mean, logvar, kl_weight=1e-6):
    return errors(x, x_hat) - kl_weight * terms(mean, logvar).sum((1, 2, 3)).mean()


@mutant(LOSS, "counts four times")
def four_forgotten(x, x_hat, mean, logvar, kl_weight=1e-6):
    error = x - x_hat
    return error.abs().mean() + error.square().mean() + kl_weight * terms(mean, logvar).sum((1, 2, 3)).mean()


@mutant(LOSS, "sums over the pixels")
def pixels_summed(x, x_hat, mean, logvar, kl_weight=1e-6):
    error = (x - x_hat).flatten(1)
    kl = terms(mean, logvar).sum((1, 2, 3))
    return (error.abs().sum(1) + 4 * error.square().sum(1) + kl_weight * kl).mean()


@mutant(LOSS, "cancel in a plain mean")
def bars_forgotten(x, x_hat, mean, logvar, kl_weight=1e-6):
    error = x - x_hat
    return error.mean() + 4 * error.square().mean() + kl_weight * terms(mean, logvar).sum((1, 2, 3)).mean()


@mutant(LOSS, "Two terms of the KL are swapped")
def kl_exchanged(x, x_hat, mean, logvar, kl_weight=1e-6):
    kl = 0.5 * (mean**2 + logvar - 1 - logvar.exp()).sum((1, 2, 3)).mean()
    return errors(x, x_hat) + kl_weight * kl


@mutant(LOSS, "kl_weight is not used")
def kl_in_full(x, x_hat, mean, logvar, kl_weight=1e-6):
    return errors(x, x_hat) + terms(mean, logvar).sum((1, 2, 3)).mean()


@mutant(LOSS, "The absolute error is missing")
def squares_alone(x, x_hat, mean, logvar, kl_weight=1e-6):
    return 4 * (x - x_hat).square().mean() + kl_weight * terms(mean, logvar).sum((1, 2, 3)).mean()


@mutant(LOSS, "The squared error is missing")
def absolutes_alone(x, x_hat, mean, logvar, kl_weight=1e-6):
    return (x - x_hat).abs().mean() + kl_weight * terms(mean, logvar).sum((1, 2, 3)).mean()


@mutant(LOSS, "The KL is missing, or its weight")
def without_kl(x, x_hat, mean, logvar, kl_weight=1e-6):
    return errors(x, x_hat)


@mutant(LOSS, "The half before the KL is missing")
def whole_kl(x, x_hat, mean, logvar, kl_weight=1e-6):
    return errors(x, x_hat) + 2 * kl_weight * terms(mean, logvar).sum((1, 2, 3)).mean()


@mutant(LOSS, "no gradient comes back to x_hat")
def error_detached(x, x_hat, mean, logvar, kl_weight=1e-6):
    return errors(x, x_hat.detach()) + kl_weight * terms(mean, logvar).sum((1, 2, 3)).mean()


@mutant(LOSS, "is the Python number")
def loss_as_a_number(x, x_hat, mean, logvar, kl_weight=1e-6):
    return (errors(x, x_hat) + kl_weight * terms(mean, logvar).sum((1, 2, 3)).mean()).item()


@mutant(LOSS, "the parameter kl_weight has no default")
def weight_without_default(x, x_hat, mean, logvar, kl_weight):
    return errors(x, x_hat) + kl_weight * terms(mean, logvar).sum((1, 2, 3)).mean()


@variant(LOSS)
def by_the_librarys_losses(x, x_hat, mean, logvar, kl_weight=1e-6):
    fit = torch.nn.functional.l1_loss(x_hat, x) + 4 * torch.nn.functional.mse_loss(x_hat, x)
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return fit + kl_weight * torch.distributions.kl_divergence(q, p).flatten(1).sum(1).mean()


@variant(LOSS)
def a_picture_at_a_time(x, x_hat, mean, logvar, kl_weight=1e-6):
    total = 0
    for a, b, m, v in zip(x.double(), x_hat.double(), mean, logvar, strict=True):
        error = (a - b).abs()
        kl = -0.5 * (1 + v - m.pow(2) - v.exp()).sum()
        total = total + (error + 4 * error**2).mean() + kl_weight * kl
    return (total / len(x)).float()


# The scaling factor


@mutant(FACTOR, "This is the standard deviation itself")
def spread_itself(latents):
    return latents.std().item()


@mutant(FACTOR, "one over the *variance*")
def over_the_variance(latents):
    return 1 / latents.var().item()


@mutant(FACTOR, "These are four numbers")
def one_a_channel(latents):
    return 1 / latents.std((0, 2, 3))


@mutant(FACTOR, "mean of the channels' standard deviations")
def over_the_mean_of_channels(latents):
    return 1 / latents.std((0, 2, 3)).mean()


@mutant(FACTOR, "root mean square")
def over_the_root_mean_square(latents):
    return 1 / latents.square().mean().sqrt()


@mutant(FACTOR, "largest number to 1")
def over_the_largest(latents):
    return 1 / latents.abs().max()


@variant(FACTOR)
def by_numpy(latents):
    return 1 / float(numpy.std(latents.numpy()))


@variant(FACTOR)
def by_the_variance(latents):
    return latents.var(correction=0).rsqrt().item()


@variant(FACTOR)
def a_number_of_numpy(latents):
    return numpy.float32(1) / latents.numpy().std()


@mutant(FACTOR, "is a tensor with one number")
def as_a_tensor(latents):
    return 1 / latents.std()


@mutant(FACTOR, "Measure these")
def stable_diffusions(latents):
    return 0.18215


@mutant(FACTOR, "the mean over images of each one's own standard deviation")
def picture_by_picture(latents):
    return (1 / latents.flatten(1).std(1).mean()).item()


# Times of equal SNR


def ratios(alpha_bar):
    return alpha_bar.double() / (1 - alpha_bar.double())


@mutant(EQUAL, "so it is std ** 2")
def spread_for_variance(t, std, alpha_bar):
    all_of_them = ratios(alpha_bar)
    return (all_of_them[None] > std * all_of_them[t][:, None]).sum(1).clamp(max=len(alpha_bar) - 1)


@mutant(EQUAL, "goes the wrong way")
def divided_by_the_variance(t, std, alpha_bar):
    all_of_them = ratios(alpha_bar)
    return (all_of_them[None] > all_of_them[t][:, None] / std**2).sum(1).clamp(max=len(alpha_bar) - 1)


@mutant(EQUAL, "beyond the schedule's end")
def no_clamp(t, std, alpha_bar):
    all_of_them = ratios(alpha_bar)
    return (all_of_them[None] > std**2 * all_of_them[t][:, None]).sum(1)


@mutant(EQUAL, "This is one too early")
def the_last_time_above(t, std, alpha_bar):
    all_of_them = ratios(alpha_bar)
    return ((all_of_them[None] > std**2 * all_of_them[t][:, None]).sum(1) - 1).clamp(min=0)


@mutant(EQUAL, "std is not used")
def times_as_they_came(t, std, alpha_bar):
    return t.clone()


@mutant(EQUAL, "times of the *nearest* SNR")
def nearest_on_a_logarithmic_axis(t, std, alpha_bar):
    logs = torch.logit(alpha_bar.double())
    wanted = logs[t] + 2 * math.log(std)
    return (logs[None] - wanted[:, None]).abs().argmin(1)


@mutant(EQUAL, "compare with >, not with >=")
def at_or_above(t, std, alpha_bar):
    all_of_them = ratios(alpha_bar)
    return (all_of_them[None] >= std**2 * all_of_them[t][:, None]).sum(1).clamp(max=len(alpha_bar) - 1)


@variant(EQUAL)
def by_searchsorted(t, std, alpha_bar):
    snr = alpha_bar / (1 - alpha_bar)
    return torch.searchsorted(-snr, -(std**2) * snr[t]).clamp(max=len(snr) - 1)


@variant(EQUAL)
def by_bisection(t, std, alpha_bar):
    rising = (-ratios(alpha_bar)).tolist()
    return torch.tensor([min(bisect.bisect_left(rising, std**2 * rising[i]), len(rising) - 1) for i in t.tolist()])


# Colours


def fitted(rows, colours):
    rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
    found = torch.linalg.lstsq(rows, colours).solution
    return found[:-1].T, found[-1]


def pooled(latents, pictures):
    return torch.nn.functional.adaptive_avg_pool2d(pictures, latents.shape[2:])


def rows_of(x):
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


@mutant(COLOURS, "The fit has no bias")
def without_bias(latents, pictures):
    found = torch.linalg.lstsq(rows_of(latents), rows_of(pooled(latents, pictures))).solution
    return found.T, torch.zeros(3)


@mutant(COLOURS, "one pixel of each block")
def corners(latents, pictures):
    factor = pictures.shape[2] // latents.shape[2]
    return fitted(rows_of(latents), rows_of(pictures[..., ::factor, ::factor]))


@mutant(COLOURS, "reshape does not move axes")
def axes_not_moved(latents, pictures):
    return fitted(latents.reshape(-1, latents.shape[1]), rows_of(pooled(latents, pictures)))


@mutant(COLOURS, "Only the first image")
def first_picture(latents, pictures):
    return fitted(rows_of(latents[:1]), rows_of(pooled(latents, pictures)[:1]))


@mutant(COLOURS, "transpose it")
def not_transposed(latents, pictures):
    weights, bias = fitted(rows_of(latents), rows_of(pooled(latents, pictures)))
    return weights.T, bias


@mutant(COLOURS, "This is the mean colour")
def mean_colour(latents, pictures):
    weights, _ = fitted(rows_of(latents), rows_of(pooled(latents, pictures)))
    return weights, pictures.mean((0, 2, 3))


@mutant(COLOURS, "", state="error")
def factor_by_heart(latents, pictures):
    return fitted(rows_of(latents), rows_of(torch.nn.functional.avg_pool2d(pictures, 4)))


@variant(COLOURS)
def by_the_normal_equations(latents, pictures):
    rows, colours = rows_of(latents).double(), rows_of(pooled(latents, pictures)).double()
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
    found = (torch.linalg.inv(rows.T @ rows) @ rows.T @ colours).float()
    return found[:-1].T, found[-1]


@variant(COLOURS)
def by_numpy_least_squares(latents, pictures):
    rows, colours = rows_of(latents).numpy(), rows_of(pooled(latents, pictures)).numpy()
    design = numpy.hstack([numpy.ones((len(rows), 1)), rows])
    found = torch.from_numpy(numpy.linalg.lstsq(design, colours, rcond=None)[0]).to(latents)
    return found[1:].T, found[0]


# Operations


@mutant(FLOPS, "This counts products")
def products_alone(size, channels, attention=True):
    places = size**2
    return 18 * channels**2 * places + attention * (4 * channels**2 * places + 2 * channels * places**2)


@mutant(FLOPS, "a level has two")
def one_convolution(size, channels, attention=True):
    places = size**2
    return 18 * channels**2 * places + attention * (8 * channels**2 * places + 4 * channels * places**2)


@mutant(FLOPS, "look at `attention`")
def attention_always(size, channels, attention=True):
    places = size**2
    return 36 * channels**2 * places + 8 * channels**2 * places + 4 * channels * places**2


@mutant(FLOPS, "with *every* place")
def each_place_with_one(size, channels, attention=True):
    places = size**2
    return 36 * channels**2 * places + attention * (8 * channels**2 * places + 4 * channels * places)


@mutant(FLOPS, "two large products")
def one_large_product(size, channels, attention=True):
    places = size**2
    return 36 * channels**2 * places + attention * (8 * channels**2 * places + 2 * channels * places**2)


@mutant(FLOPS, "four projections")
def three_projections(size, channels, attention=True):
    places = size**2
    return 36 * channels**2 * places + attention * (6 * channels**2 * places + 4 * channels * places**2)


@mutant(FLOPS, "`size` is the side")
def side_for_area(size, channels, attention=True):
    return 36 * channels**2 * size + attention * (8 * channels**2 * size + 4 * channels * size**2)


@mutant(FLOPS, "the convolutions alone")
def convolutions_alone(size, channels, attention=True):
    return 36 * channels**2 * size**2


@mutant(FLOPS, "products over pairs of places are missing")
def no_pairs(size, channels, attention=True):
    return 36 * channels**2 * size**2 + attention * 8 * channels**2 * size**2


@mutant(FLOPS, "looks at nine places")
def one_place_a_kernel(size, channels, attention=True):
    places = size**2
    return 4 * channels**2 * places + attention * (8 * channels**2 * places + 4 * channels * places**2)


@mutant(FLOPS, "without it there are none")
def projections_always(size, channels, attention=True):
    return 44 * channels**2 * size**2 + (4 * channels * size**4 if attention else 0)


@variant(FLOPS)
def counted_by_a_loop(size, channels, attention=True):
    total = 0
    for _place in range(size * size):
        total += 2 * 2 * 9 * channels * channels
        if attention:
            total += 4 * 2 * channels * channels + 2 * 2 * size * size * channels
    return total


@variant(FLOPS)
def as_a_fraction(size, channels, attention=True):
    places = float(size) ** 2
    return 4 * channels * places * (9 * channels + (2 * channels + places if attention else 0))
