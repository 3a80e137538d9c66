"""What the exercises of chapter 09 give with common mistakes, and an autoencoder small enough to know by hand.

Each `..._mistakes` returns pairs (value that a mistake gives, sentence that names it) for `close`.
"""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

STABLE_DIFFUSION = 0.18215
BY_HEART = ("0.18215 is the factor of Stable Diffusion's autoencoder. Each autoencoder has its own, in "
            "vae.config.scaling_factor.")  # fmt: skip


def small_autoencoder(case):
    """Return diffusers' `AutoencoderKL` with few weights, from the case: 3 x 2h x 2w pixels <-> 3 x h x w latents."""
    from diffusers import AutoencoderKL  # seconds, where it was not imported yet

    levels = ["DownEncoderBlock2D"] * 2, ["UpDecoderBlock2D"] * 2
    factor = round(case.uniform(0.3, 0.6).item(), 3)
    sizes = {"block_out_channels": (4, 4), "layers_per_block": 1, "latent_channels": 3, "norm_num_groups": 2}
    vae = AutoencoderKL(3, 3, *levels, **sizes, scaling_factor=factor)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.copy_(0.4 * case.normal(*parameter.shape))
        vae.quant_conv.bias[3:] -= 1
    return vae.requires_grad_(False).eval()


def loss_mistakes(x, x_hat, mean, logvar, weight):
    """Values of the autoencoder's loss when one of its three parts is wrong."""
    error, terms = x - x_hat, 0.5 * (mean**2 + logvar.exp() - 1 - logvar)
    first, second = error.abs().mean(), error.square().mean()
    fit, kl = first + 4 * second, terms.flatten(1).sum(1).mean()
    other = 0.5 * (mean**2 + logvar - 1 - logvar.exp()).flatten(1).sum(1).mean()
    return [
        (fit + weight * terms.mean(), "The KL is a *mean* over the latents here. It is a sum over the latents of an "
         "image, and a mean over the batch only: otherwise the effect of a weight depends on the size of the image."),
        (fit + weight * terms.sum(), "The KL is summed over the batch too; over the images it is a mean."),
        (fit, "The KL is missing, or its weight is."),
        (fit + kl, "The KL enters at full strength: kl_weight is not used."),
        (fit - weight * kl, "The KL has a minus sign. It is added to the loss."),
        (first + second + weight * kl, "The squared error counts four times."),
        (second * 4 + weight * kl, "The absolute error is missing."),
        (first + weight * kl, "The squared error is missing."),
        (error.abs().flatten(1).sum(1).mean() + 4 * error.square().flatten(1).sum(1).mean() + weight * kl,
         "Both errors are sums over the pixels here; they are means over all numbers."),
        (error.mean() + 4 * second + weight * kl, "The absolute value is missing: positive and negative errors "
                                                  "cancel in a plain mean."),
        (fit + weight * other, "Two terms of the KL are swapped: exp(logvar) has a plus, logvar a minus."),
        (fit + weight * 2 * kl, "The half before the KL is missing."),
    ]  # fmt: skip


def mean_mistakes(out, mean, logvar, scale):
    """Scaled latents without a generator, and what goes wrong on the way to them."""
    return [
        (mean * STABLE_DIFFUSION, BY_HEART),
        (mean, "The scaling factor is missing: the U-Net is trained on latents with a standard deviation of 1."),
        (mean / scale, "This divides by the scaling factor. Encoding multiplies; decoding divides."),
        (out.chunk(2, 1)[0] * scale, "quant_conv is missing: it comes between the encoder and the two halves."),
        (logvar * scale, "This is the second half of the channels, the log-variance. The mean comes first."),
        (torch.cat([mean, logvar], 1)[: len(mean) // 2] * scale, "This splits the *batch* in two. Split the channels: "
         ".chunk(2, dim=1)."),
        (torch.cat([mean, logvar], 1) * scale, "These are both halves. Split them: .chunk(2, dim=1)."),
    ]  # fmt: skip


def sample_mistakes(mean, logvar, eps, scale):
    """Scaled latents drawn with `eps`, and what goes wrong on the way to them."""
    std = (logvar / 2).exp()
    return [
        (mean * scale, "A generator was passed, but this is the mean. Draw a sample: mean + std * eps."),
        ((mean + logvar * eps) * scale, "This uses the *logarithm* of the variance as the standard "
         "deviation, which is exp(logvar / 2)."),
        ((mean + std**2 * eps) * scale, "This uses the variance as the standard deviation, which is "
         "exp(logvar / 2), with the half."),
        (mean * scale + std * eps, "The scaling factor multiplies only the mean. Multiply the whole sample by it."),
        ((mean + eps) * scale, "The noise has its full strength: multiply it by exp(logvar / 2)."),
    ]  # fmt: skip


def colour_mistakes(z, pictures, factor):
    """Weights (3, c) of wrong fits of colours to latents, as float32."""

    def weights(z, colours, bias=True):
        if bias:
            z = torch.cat([z, torch.ones_like(z[:, :1])], 1)
        return torch.linalg.lstsq(z, colours).solution.T[:, :channels].float()

    channels = z.shape[1]
    rows = z.permute(0, 2, 3, 1).reshape(-1, channels).double()
    small = pictures.unflatten(3, (-1, factor)).unflatten(2, (-1, factor)).mean((3, 5)).double()
    colours = small.permute(0, 2, 3, 1).reshape(-1, 3)
    corner = pictures[..., ::factor, ::factor].permute(0, 2, 3, 1).reshape(-1, 3).double()
    middle = pictures[..., factor // 2 :: factor, factor // 2 :: factor].permute(0, 2, 3, 1).reshape(-1, 3).double()
    picked = "This takes one pixel of each block. A place's colour is the *mean* of its block."
    mixed = ("reshape does not move axes: here a row mixes numbers of several places. Move the channels to the end "
             "first, .movedim(1, -1).")  # fmt: skip
    places = z.shape[2] * z.shape[3]
    return [
        (weights(rows, colours, bias=False), "The fit has no bias: without it a latent of 0 always gives mid-grey. "
                                             "Append a column of ones to the latents."),
        (weights(rows, corner), picked),
        (weights(rows, middle), picked),
        (weights(z.reshape(-1, channels).double(), colours), mixed),
        (weights(z.reshape(-1, channels).double(), small.reshape(-1, 3)), mixed),
        (weights(rows[:places], colours[:places]), "Only the first image was used. Fit over the places of all."),
    ]  # fmt: skip


def counted(size, channels):
    """What torch counts for two convolutions and for an attention on (channels, size, size): two whole numbers."""
    with FlopCounterMode(display=False) as convolutions:
        x = torch.empty(1, channels, size, size, device="meta")
        weight = torch.empty(channels, channels, 3, 3, device="meta")
        for _ in range(2):
            x = nn.functional.conv2d(x, weight, padding=1)
    with FlopCounterMode(display=False) as attention:
        words, square = x.flatten(2).mT, torch.empty(channels, channels, device="meta")
        query, key, value = (words @ square for _ in range(3))
        (query @ key.mT @ value) @ square
    return convolutions.get_total_flops(), attention.get_total_flops()
