"""Pictures from incomplete measurements: with the picture-book model as a prior, and by classical methods.

Shapes: pictures (n, 3, height, width) in [-1, 1]. The measurements are those of `data.measurements`.
"""

from collections.abc import Callable

import numpy
import torch

from course_utils.data.measurements import Measure, blur_spectrum, transposed
from course_utils.diffusion import latents, posterior, samplers
from course_utils.diffusion.objectives import as_eps
from course_utils.pipelines.editing import KINDS, Prompt, Report, _reporting, decode_latents, hidden_states
from course_utils.shapes import require_pictures

STEPS = 20  # about 25 seconds of one core for 16 pages


def reconstruct(
    pipe,
    measure: Measure,
    measured: torch.Tensor,
    noise: float,
    generator: torch.Generator | list[torch.Generator],
    prompt: Prompt = "",
    pull: float = posterior.PULL,
    steps: int = STEPS,
    on_step: Report = None,
) -> torch.Tensor:
    """Return one sample of the picture behind each measurement, (n, 3, height, width) in [-1, 1], by `posterior.dps`.

    measured: (n, ...); repeat it for several samples of one; where it is exactly 0 nothing was measured. noise: the
    standard deviation of its noise. prompt: "" where nothing is known. No guidance: that would
    make another prior. In latents, with the decoder inside the measurement, cf. PSLD (arXiv:2307.00619, section 3.2).
    Gradients pass through decoder and U-Net: about as long as three evaluations. The pipeline is left as it was.
    """
    alpha_bar, kind = pipe.scheduler.alphas_cumprod, pipe.scheduler.config.prediction_type
    model = as_eps(lambda x_t, t, c: pipe.unet(x_t, t, encoder_hidden_states=c).sample, KINDS[kind], alpha_bar)
    cond = hidden_states(pipe, prompt, len(measured))
    side = pipe.unet.config.sample_size
    x_T = samplers.draw_noise((len(measured), pipe.unet.config.in_channels, side, side), generator).to(pipe.device)

    def seen(z: torch.Tensor) -> torch.Tensor:
        return measure(latents.decode(pipe.vae, z))

    floor = noise * (measured[0] != 0).sum().sqrt().item()
    times = samplers.trailing_times(len(alpha_bar), steps)
    walk = posterior.dps(model, x_T, alpha_bar, times, seen, measured, floor, generator, cond, pull)
    z = samplers.finish(_reporting(walk, steps, on_step))
    return decode_latents(pipe, z)


def interpolate_pixels(measured: torch.Tensor, mask: torch.Tensor, method: str = "linear") -> torch.Tensor:
    """Fill in the pixels where the mask (1, 1, height, width) is 0, from the triangle of known pixels around each.

    method: "linear" or "cubic", scipy's `griddata`; outside the known pixels' hull the nearest one counts.
    """
    from scipy.interpolate import griddata

    require_pictures(measured)
    known = mask[0, 0].numpy() > 0
    at, everywhere = numpy.argwhere(known), tuple(numpy.mgrid[: known.shape[0], : known.shape[1]])
    values = measured.permute(2, 3, 0, 1).numpy()[known].reshape(len(at), -1)  # (pixels, n channels)
    found, nearest = (griddata(at, values, everywhere, each) for each in (method, "nearest"))
    filled = numpy.where(numpy.isnan(found), nearest, found)  # (height, width, n channels)
    return torch.from_numpy(filled).float().reshape(*known.shape, *measured.shape[:2]).permute(2, 3, 0, 1)


def biharmonic(measured: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Fill in the pixels where the mask is 0 by the smoothest surface through the known ones, scikit-image's."""
    from skimage.restoration import inpaint_biharmonic

    return _each(measured, lambda page: inpaint_biharmonic(page, mask[0, 0].numpy() == 0, channel_axis=-1))


def wiener(measured: torch.Tensor, width: float, weight: float) -> torch.Tensor:
    """Take a blur back in frequencies: x = h y / (h^2 + weight), the best linear filter for data of a flat spectrum.

    weight: the variance of the noise over that of the pictures.
    """
    h = blur_spectrum(width, measured.shape[-1])
    return torch.fft.ifft2(torch.fft.fft2(measured) * h / (h.square() + weight)).real


def richardson_lucy(measured: torch.Tensor, width: float, rounds: int) -> torch.Tensor:
    """Take a blur back by scikit-image's Richardson-Lucy, on pages continued at each edge as `blur` continues them."""
    from skimage.restoration import richardson_lucy

    size = measured.shape[-1]
    pad = size // 2
    spot = torch.fft.fftshift(torch.fft.ifft2(blur_spectrum(width, size)).real).double().numpy()[1:, 1:]  # odd sides

    def restored(page: numpy.ndarray) -> numpy.ndarray:
        light = numpy.pad((page + 1) / 2, ((pad, pad), (pad, pad), (0, 0)), mode="wrap").clip(1e-3, 1)
        layers = [richardson_lucy(light[..., c], spot, rounds) for c in range(light.shape[-1])]
        return numpy.stack(layers, -1)[pad:-pad, pad:-pad] * 2 - 1

    return _each(measured, restored)


def total_variation(
    measure: Measure, measured: torch.Tensor, start: torch.Tensor, weight: float, rounds: int = 60
) -> torch.Tensor:
    """Return the x of the smallest || A x - y ||^2 / 2 + weight TV(x), for any linear A that enlarges nothing.

        v <- x + momentum;   x <- denoise_tv_chambolle( v - A^T (A v - y), weight )

    TV(x): the sum of the lengths of the differences of neighbours. FISTA (Beck & Teboulle 2009, SIAM Journal on Imaging
    Sciences 2, 183), with scikit-image's denoising for its inner problem. start: a first x, such as zeros.
    """
    from skimage.restoration import denoise_tv_chambolle

    def denoised(page: numpy.ndarray) -> numpy.ndarray:
        return denoise_tv_chambolle(page, weight=weight, max_num_iter=15, channel_axis=-1)

    x, v, k = start, start, 1.0
    for _ in range(rounds):
        before, x = x, _each(v - transposed(measure, measure(v) - measured, v.shape), denoised)
        later = (1 + (1 + 4 * k**2) ** 0.5) / 2
        v, k = x + (k - 1) / later * (x - before), later
    return x


def _each(pictures: torch.Tensor, change: Callable[[numpy.ndarray], numpy.ndarray]) -> torch.Tensor:
    """Change each picture as an array (height, width, 3)."""
    require_pictures(pictures)
    changed = [change(page.permute(1, 2, 0).double().numpy()) for page in pictures]
    return torch.from_numpy(numpy.stack(changed)).permute(0, 3, 1, 2).float()
