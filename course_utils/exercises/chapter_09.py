"""The exercises of chapter 09: images to latents, latents to images, and what lies between."""

import math

import torch

from course_utils.diffusion import latents
from course_utils.exercises.mistakes_09 import (
    BY_HEART,
    STABLE_DIFFUSION,
    colour_mistakes,
    counted,
    loss_mistakes,
    mean_mistakes,
    sample_mistakes,
    small_autoencoder,
)
from course_utils.exercises.oracles import close, require
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import close_in_all

TITLE = "Latent diffusion"


@exercise(
    "09.encode", latents.encode, difficulty=2, minutes=15,
    hints=[
        "Four steps: encoder, quant_conv, split, scale. Print the shape after each.",
        "mean, logvar = vae.quant_conv(vae.encoder(pictures)).chunk(2, dim=1)",
        "With a generator, chapter 02's trick: mean + (logvar / 2).exp() * eps, where eps is "
        "torch.randn(mean.shape, generator=generator).to(mean).",
        "In both cases, mean or sample, multiply by vae.config.scaling_factor at the end.",
    ],
)  # fmt: skip
def encode(learner, case):
    """Encode images as the scaled latents that a U-Net is trained on."""
    vae = small_autoencoder(case)
    x, scale = case.uniform(-1, 1, 2, 3, 8, 6), vae.config.scaling_factor
    out, q = vae.encoder(x), vae.encode(x).latent_dist
    mean, logvar = q.mean, q.logvar
    got, again = learner(vae, x), learner(vae, x)
    require(not isinstance(got, torch.Tensor) or torch.equal(got, again),
            "two calls without a generator gave two different results, expected the same result twice.",
            "Without a generator nothing is random: return the mean of q(z|x).")  # fmt: skip
    close(got, mean * scale, mean_mistakes(out, mean, logvar, scale), tolerance=1e-3)
    eps = torch.randn(mean.shape, generator=case.generator())
    right = (mean + (logvar / 2).exp() * eps) * scale
    got = learner(vae, x, case.generator())
    # randn_like fills in the order in which the mean lies in memory: other numbers, as good as these
    like = (mean + (logvar / 2).exp() * torch.randn_like(mean, generator=case.generator())) * scale
    if isinstance(got, torch.Tensor) and got.shape == like.shape and torch.allclose(got.to(like), like, rtol=1e-3):
        return
    close(got, right, sample_mistakes(mean, logvar, eps, scale), tolerance=1e-3,
          what="with a generator, the result")  # fmt: skip


@exercise(
    "09.decode", latents.decode, difficulty=1, minutes=5,
    hints=[
        "Go back through the same steps in reverse order: undo the scaling first.",
        "The encoder multiplied by the scaling factor, so the decoder divides by it.",
        "vae.decoder(vae.post_quant_conv(z)), where z is no longer scaled.",
    ],
)  # fmt: skip
def decode(learner, case):
    """Decode scaled latents to images."""
    for batch, height, width in ((2, 4, 3), (1, 3, 4)):
        vae = small_autoencoder(case)
        z, scale = case.normal(batch, 3, height, width), vae.config.scaling_factor
        close(learner(vae, z), vae.decode(z / scale).sample, _decode_mistakes(vae, z, scale), tolerance=1e-3)


def _decode_mistakes(vae, z, scale):
    def pictures(z):
        return vae.decode(z).sample

    return [
        (pictures(z / STABLE_DIFFUSION), BY_HEART),
        (pictures(z * scale), "This multiplies by the scaling factor. Encoding has multiplied by it; divide "
                                  "by it here."),
        (pictures(z), "The scaling factor is missing: the decoder was trained on unscaled latents."),
        (vae.decoder(z / scale), "post_quant_conv is missing: it comes before the decoder."),
        (pictures(z) / scale, "This divides the *image* by the scaling factor. Divide the latents."),
        (pictures(z / scale).clamp(-1, 1), "This clamps the images. Clamp them where they are shown: a loss has to "
                                           "depend on how far outside [-1, 1] they are."),
    ]  # fmt: skip


@exercise(
    "09.autoencoder_loss", latents.autoencoder_loss, difficulty=2, minutes=10, gradients=True,
    hints=[
        "Three parts: a mean of absolute values, four times a mean of squares, and the weighted KL.",
        "The KL is chapter 02's, for each latent number: (mean ** 2 + exp(logvar) - 1 - logvar) / 2.",
        "Sum it over the axes (1, 2, 3), then take the mean over the batch.",
    ],
)  # fmt: skip
def autoencoder_loss(learner, case):
    """Write the loss: two errors of the pixels, and a small KL term."""
    x, x_hat = case.uniform(-1, 1, 3, 3, 8, 8), case.uniform(-1, 1, 3, 3, 8, 8)
    mean, logvar = case.normal(3, 4, 2, 2), case.uniform(-4, 1, 3, 4, 2, 2)
    weight = round(case.uniform(0.02, 0.2).item(), 3)
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum() / 3
    flat = (x - x_hat).flatten()
    right = flat.norm(1) / len(flat) + 4 * flat.norm(2) ** 2 / len(flat) + weight * kl
    close(learner(x, x_hat, mean, logvar, weight), right, loss_mistakes(x, x_hat, mean, logvar, weight))
    near = learner(x, x + 0.1, mean[:, :1], logvar[:, :1], 0.0)
    close(near, 0.1 + 4 * 0.01, what="for kl_weight = 0 and an error of 0.1 everywhere, the loss")
    perfect = learner(x, x, torch.zeros_like(mean), torch.zeros_like(logvar), weight)
    close(perfect, 0.0, what="for a perfect copy and latents N(0, I), the loss")


@exercise(
    "09.scaling_factor", latents.scaling_factor, difficulty=1, minutes=5,
    hints=[
        "You want latents * factor to have the standard deviation 1.",
        "One number over all images, channels and places: latents.std() without an axis.",
    ],
)  # fmt: skip
def scaling_factor(learner, case):
    """Find the factor that brings latents to a standard deviation of 1."""
    spreads = case.uniform(0.5, 9, 1, 4, 1, 1)
    z = case.normal(32, 4, 8, 8) * spreads * case.uniform(0.2, 2, 32, 1, 1, 1) + case.uniform(2, 6, 1, 4, 1, 1)
    flat = z.double().flatten()
    spread = ((flat**2).mean() - flat.mean() ** 2).sqrt()
    by_channel = z.std((0, 2, 3))
    mistakes = [
        (spread, "This is the standard deviation itself. The factor is one over it."),
        (1 / spread**2, "This is one over the *variance*."),
        (1 / by_channel, "These are four numbers, one for each channel. diffusers keeps a single one."),
        (1 / by_channel.mean(), "This is one over the mean of the channels' standard deviations. If channels differ "
                                "in their means, that of all numbers together is larger."),
        (1 / flat.square().mean().sqrt(), "The mean was not subtracted: this is the root mean square, not the "
                                          "standard deviation."),
        (torch.tensor(STABLE_DIFFUSION), "0.18215 is the factor of Stable Diffusion's latents. Measure these."),
        (1 / flat.abs().max(), "This brings the largest number to 1. Bring the standard deviation to 1."),
        (1 / z.flatten(1).std(1).mean(), "This is the mean over images of each one's own standard deviation. Take "
                                         "the standard deviation of all numbers together."),
    ]  # fmt: skip
    close(learner(z), 1 / spread.float(), mistakes, tolerance=1e-3)


@exercise(
    "09.time_of_equal_snr", latents.time_of_equal_snr, difficulty=3, minutes=15,
    hints=[
        "Chapter 05: the SNR of data with a standard deviation of 1 is alpha_bar / (1 - alpha_bar), at all T times.",
        "Data with a standard deviation of std have std ** 2 times the variance, so std ** 2 times the SNR.",
        "The SNR falls with t. Count the times with a larger SNR than the data's. This count *is* the first time whose "
        "SNR is not larger.",
        "(snr[None] > wanted[:, None]).sum(1), clamped at T - 1: there is no later time.",
    ],
)  # fmt: skip
def time_of_equal_snr(learner, case):
    """Translate a time: find when data with a standard deviation of 1 are as noisy."""
    T, pace = 60, 0.15
    snrs = torch.exp(4.1 - pace * torch.arange(T, dtype=torch.float64))  # a line on a logarithmic axis
    alpha_bar = (snrs / (1 + snrs)).float()
    t = torch.tensor([0, 25, *case.whole(10, 50, 3).tolist(), T - 1])
    shifts = int(case.whole(6, 12)), -int(case.whole(6, 12))
    # std such that the same noise lies `shift` - 0.7, and `shift` - 0.3, times earlier; and std = 1
    aheads = [shift - part for shift in shifts for part in (0.7, 0.3)]
    settings = []
    for times, ahead in (*((t, ahead) for ahead in aheads), (t[1:2], 0)):
        std = math.exp(pace * ahead / 2)
        right = torch.ceil(times - ahead).long().clamp(0, T - 1)
        got = learner(times, std, alpha_bar)
        mistakes = _snr_mistakes(times, T, ahead, right)
        settings.append((got, right, mistakes, f"for std = {std:.3g}, the times", learner.called))
    close_in_all(settings)


def _snr_mistakes(t, T, ahead, right):
    """Times that mistakes give where the same noise lies `ahead` times earlier, for data of one std."""

    def first(change, last=T - 1):
        return torch.ceil(t - change).long().clamp(0, last)

    early = "This is one too early: at that time the SNR is still above the wanted one."
    at_or_above = t + 1 if ahead == 0 else right
    return [
        (first(ahead / 2), "std enters once here; the SNR compares variances, so it is std ** 2."),
        (first(-ahead), "This goes the wrong way: a larger std means *more* signal under the same noise, so the time "
                        "of equal SNR is earlier."),
        (first(ahead, T), "Some of these times are beyond the schedule's end: T - 1 is the last."),
        ((torch.ceil(t - ahead).long() - 1).clamp(0, T - 1), early),
        ((torch.ceil(t - ahead).long() - 1).clamp(0, T - 2), early),
        (torch.round(t - ahead).long().clamp(0, T - 1), "These are the times of the *nearest* SNR. Return the first "
                                                        "time whose SNR is not above."),
        (t, "These are the times that were passed: std is not used."),
        (at_or_above, "At std = 1 the SNR at t itself is not above the wanted one, so t is the answer: compare with >, "
                      "not with >=."),
    ]  # fmt: skip


@exercise(
    "09.fit_colours", latents.fit_colours, difficulty=3, minutes=15,
    hints=[
        "A place's colour: adaptive_avg_pool2d(pictures, latents.shape[2:]) gives (n, 3, h, w).",
        "Least squares takes rows: latents.movedim(1, -1).flatten(0, 2) is (n h w, channels); the colours likewise.",
        "For the bias append a column of ones to the rows. torch.linalg.lstsq(rows, colours).solution is "
        "(channels + 1, 3).",
        "Return all rows but the last, transposed, as the weights (3, channels), and the last row as the bias (3,).",
    ],
)  # fmt: skip
def fit_colours(learner, case):
    """Fit the mean colour of each place as a linear function of its latent."""
    for factor, number in ((4, 5), (2, 3)):
        _check_colours(learner, case, factor, number)


def _check_colours(learner, case, factor, number):
    z = case.normal(number, 4, 6, 5) + case.normal(4, 1, 1)
    planted = torch.einsum("oc,bchw->bohw", case.normal(3, 4), z) + 0.5
    pictures = planted.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    pictures = pictures + 0.5 * case.normal(*pictures.shape)
    got = learner(z, pictures)
    require(isinstance(got, tuple | list) and len(got) == 2, f"got {type(got).__name__}, expected the two tensors "
            "weights (3, 4) and bias (3,).", "End with `return weights, bias`.")  # fmt: skip
    # What least squares gives, from covariances
    rows = z.movedim(1, -1).reshape(-1, 4).double()
    small = pictures.reshape(number, 3, 6, factor, 5, factor).mean((3, 5)).movedim(1, -1).reshape(-1, 3).double()
    away = rows - rows.mean(0)
    weights = torch.linalg.solve(away.T @ away, away.T @ (small - small.mean(0))).T
    bias = small.mean(0) - weights @ rows.mean(0)
    if isinstance(got[0], torch.Tensor) and got[0].shape == (4, 3):
        require(False, "the weights have the shape (4, 3), expected (3, 4): a row for each colour.",
                "Least squares gives (channels, 3): transpose it, .T.")  # fmt: skip
    close(got[0], weights.float(), colour_mistakes(z, pictures, factor), tolerance=5e-3, what="the weights")
    mistakes = [(small.mean(0).float(), "This is the mean colour. The bias is the colour where the latents are 0, not "
                                        "where they are at their mean.")]  # fmt: skip
    close(got[1], bias.float(), mistakes, tolerance=5e-3, what="the bias")


@exercise(
    "09.level_flops", latents.level_flops, difficulty=3, minutes=10,
    hints=[
        "A map has size ** 2 places. A 3 x 3 convolution does 9 * channels ** 2 products at each; there are two.",
        "Each projection of attention does channels ** 2 products at each place; there are four: query, key, value and "
        "output.",
        "Queries with keys: every place with every place, `channels` products each time. The weighted sums of values: "
        "as many again.",
        "Count every product twice: once for itself, once for the addition.",
    ],
)  # fmt: skip
def level_flops(learner, case):
    """Count the operations of one level of a U-Net."""
    for attention in (True, False):
        size, channels = int(case.whole(5, 20)), int(case.whole(3, 24))
        convolutions, attending = counted(size, channels)
        places, square = size**2, channels**2
        right = convolutions + attention * attending
        products, projections = 4 * channels * places**2, 8 * square * places
        mistakes = [
            (right / 2, "This counts products. Each comes with an addition: two operations."),
            (convolutions / 2 + attention * attending, "This counts one convolution; a level has two."),
            (convolutions + attending, "This counts attention where there is none: look at `attention`."),
            (convolutions, "This counts the convolutions alone."),
            (convolutions + projections + 4 * channels * places, "Attention compares each place with *every* place: "
             "size ** 4 pairs, not size ** 2."),
            (convolutions + projections + products / 2, "Attention has two large products: queries with keys, and the "
             "weights with the values."),
            (convolutions + projections * 3 / 4 + products, "There are four projections: query, key, value, and one "
             "at the end."),
            (convolutions + projections, "The two products over pairs of places are missing." if attention else
             "The projections belong to attention: without it there are none."),
            (convolutions / 9 + attention * attending, "A 3 x 3 convolution looks at nine places: 9 * channels ** 2 "
             "products."),
            ((convolutions + attention * projections) / size + attention * products / size**2,
             "`size` is the side of the map: it has size ** 2 places."),
        ]  # fmt: skip
        got = learner(size, channels, attention)
        mistakes = [(int(value), advice) for value, advice in mistakes if value != right]
        close(got, right, mistakes, tolerance=1e-9, what=f"with attention={attention}, the count")
