"""Between pictures and latents: an autoencoder's loss, its two directions by hand, the scale, and latents to look at.

vae: an object with the parts of diffusers' `AutoencoderKL`: `encoder`, `quant_conv`, `post_quant_conv`, `decoder` and
`config.scaling_factor`. Pictures: (batch, 3, f h, f w) in [-1, 1]. Latents: (batch, c, h, w).
Rombach et al. 2021 (arXiv:2112.10752).
"""

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import adaptive_avg_pool2d

from course_utils.diffusion.schedules import snr
from course_utils.models.variational import gaussian_kl
from course_utils.shapes import require_pictures, require_same_shape, require_times

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from diffusers import AutoencoderKL

LOGVAR = -30.0, 20.0  # diffusers keeps the logarithm of the variance in this range


def autoencoder_loss(
    x: torch.Tensor, x_hat: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor, kl_weight: float = 1e-6
) -> torch.Tensor:
    """Return the loss of a latent diffusion model's autoencoder, a number, shape ().

        L = mean |x - x_hat| + 4 mean (x - x_hat)^2 + kl_weight KL( N(mean, exp(logvar)) || N(0, I) )

    x, x_hat: (batch, 3, height, width); the first two are means over all numbers. mean, logvar: (batch, c, h, w); the
    KL is a sum over a picture's latents, in nats, and a mean over the batch. Raises ValueError for shapes that differ.
    """
    require_same_shape(x, x_hat, "x and x_hat")
    error = x - x_hat
    return error.abs().mean() + 4 * error.square().mean() + kl_weight * gaussian_kl(mean, logvar).mean()


def encode(vae: "AutoencoderKL", pictures: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return scaled latents of pictures: the mean of q(z|x), or a sample of it if there is a generator.

        mean, logvar = quant_conv(encoder(x)),   z = (mean + exp(logvar / 2) eps) scaling_factor

    pictures: (batch, 3, f h, f w) in [-1, 1]. Returns (batch, c, h, w), of a standard deviation near 1. eps: standard
    normal, from the generator; 0 without one. Raises ValueError for tensors that are no pictures.
    """
    require_pictures(pictures)
    mean, logvar = vae.quant_conv(vae.encoder(pictures)).chunk(2, dim=1)  # (batch, c, h, w) each
    if generator is not None:
        eps = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
        mean = mean + (logvar.clamp(*LOGVAR) / 2).exp() * eps
    return mean * vae.config.scaling_factor


def decode(vae: "AutoencoderKL", latents: torch.Tensor) -> torch.Tensor:
    """Return the pictures of scaled latents: decoder(post_quant_conv(latents / scaling_factor)).

    latents: (batch, c, h, w), as `encode` gives them. Returns (batch, 3, f h, f w), about in [-1, 1].
    """
    return vae.decoder(vae.post_quant_conv(latents / vae.config.scaling_factor))


def scaling_factor(latents: torch.Tensor) -> float:
    """Return 1 / (standard deviation of all numbers of the latents): what makes their spread 1.

    latents: (n, c, h, w), not yet scaled, of pictures of the training data. One number for all channels, so that
    they keep their proportions. Raises ValueError if all numbers are equal. Section G of arXiv:2112.10752.
    """
    spread = latents.std().item()
    if not spread > 0:
        raise ValueError(f"expected latents that vary, got a standard deviation of {spread}; encode other pictures")
    return 1 / spread


def time_of_equal_snr(t: torch.Tensor, std: float, alpha_bar: torch.Tensor) -> torch.Tensor:
    """Return the times at which data of spread 1 are as noisy as data of spread `std` are at t.

        SNR of the data at t = std^2 alpha_bar_t / (1 - alpha_bar_t);   t' = first time with SNR_t' not above it

    t: (batch,) int64. std > 0. alpha_bar: (T,). Returns (batch,) int64 in 0 ... T-1: T-1 where even the last time is
    not noisy enough. Raises ValueError for times out of range or std not positive.
    """
    require_times(t, len(alpha_bar))
    if not std > 0:
        raise ValueError(f"expected a positive standard deviation, got {std}")
    of_unit = snr(alpha_bar.double())  # (T,), falling
    of_data = std**2 * of_unit[t]  # (batch,)
    return (of_unit[None] > of_data[:, None]).sum(1).clamp(max=len(alpha_bar) - 1)


def fit_colours(latents: torch.Tensor, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights (3, c) and bias (3,) that best turn each place's latent into the colour it stands for.

        colour = weights z + bias,   least squares over all places of all pictures

    latents: (n, c, h, w). pictures: (n, 3, f h, f w) in [-1, 1]; a place's colour is the mean of its f x f pixels.
    Raises ValueError for another number of pictures.
    """
    if len(latents) != len(pictures):
        raise ValueError(f"expected one picture for each of the {len(latents)} latents, got {len(pictures)}")
    colours = adaptive_avg_pool2d(pictures, (latents.shape[2], latents.shape[3]))  # (n, 3, h, w)
    z = latents.movedim(1, -1).flatten(0, 2)  # (n h w, c)
    z = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)  # the bias is the weight of a 1
    found = torch.linalg.lstsq(z, colours.movedim(1, -1).flatten(0, 2)).solution.T  # (3, c + 1)
    return found[:, :-1], found[:, -1]


def as_colours(latents: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return latents as small pictures, (batch, 3, h, w) about in [-1, 1], by the weights of `fit_colours`."""
    return torch.einsum("oc,bchw->bohw", weights, latents) + bias[:, None, None]


def level_flops(size: int, channels: int, attention: bool = True) -> int:
    """Return the floating-point operations of one level of a U-Net for one picture: two convolutions, one attention.

        convolutions 2 * 2 * 9 c^2 n^2;   attention 4 * 2 c^2 n^2 + 2 * 2 c n^4

    A multiplication and the addition after it count as two. size n: the feature map is n x n. channels c: in and out,
    of 3 x 3 convolutions and of attention, which has four projections c -> c, the products of queries with keys, and
    the sums of values. Raises ValueError for numbers below 1.
    """
    if size < 1 or channels < 1:
        raise ValueError(f"expected size and channels of at least 1, got {size} and {channels}")
    places = size**2
    convolutions = 2 * 2 * 9 * channels**2 * places
    return convolutions + (4 * 2 * channels**2 * places + 2 * 2 * channels * places**2 if attention else 0)
