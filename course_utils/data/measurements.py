"""What an instrument keeps of a picture: some of its pixels, a blur, a part of its frequencies; all linear.

    y = A x + sigma n,   n standard normal

A `measure` is any function that takes pictures x (batch, channels, height, width) to A x. Gradients pass through it.
"""

import math
from collections.abc import Callable

import torch

from course_utils.shapes import require_pictures, require_same_shape

Measure = Callable[[torch.Tensor], torch.Tensor]


def pixel_mask(share: float, size: int, generator: torch.Generator) -> torch.Tensor:
    """Return a mask (1, 1, size, size) with ones at round(share size^2) random pixels, and zeros at all others.

    Raises ValueError for a share that keeps no pixel or more than all.
    """
    kept = round(share * size**2)
    if not 0 < kept <= size**2:
        raise ValueError(f"Expected a share above 0, and 1 at most, that keeps a pixel of {size}², but got {share}.")
    mask = torch.zeros(size**2)
    mask[torch.randperm(size**2, generator=generator)[:kept]] = 1
    return mask.reshape(1, 1, size, size)


def keep_pixels(pictures: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the pictures where the mask (1, 1, height, width) is 1, and zeros elsewhere, of the same shape.

    Raises ValueError for a mask of another size.
    """
    require_pictures(pictures)
    if mask.shape != (1, 1, *pictures.shape[2:]):
        raise ValueError(
            f"Expected a mask of shape {(1, 1, *pictures.shape[2:])}, but got {tuple(mask.shape)}; "
            "make it with pixel_mask."
        )
    return pictures * mask


def blur_spectrum(width: float, size: int) -> torch.Tensor:
    """Return what a Gaussian blur multiplies each frequency by, (size, size), in the order of `torch.fft.fftfreq`.

        h_uv = exp( -2 pi^2 width^2 (u^2 + v^2) ),   u and v in waves a pixel

    width: the standard deviation of the blur, in pixels. Raises ValueError unless it is positive.
    """
    if not width > 0:
        raise ValueError(f"Expected a positive width of the blur, in pixels, but got {width}.")
    falls = torch.exp(-2 * (math.pi * width * torch.fft.fftfreq(size)) ** 2)
    return falls[:, None] * falls


def blur(pictures: torch.Tensor, width: float) -> torch.Tensor:
    """Return square pictures blurred by a Gaussian of that width in pixels; the left edge follows on the right one.

    So the blur is a product in frequencies, and Wiener's filter is exact for it. See `blur_spectrum`.
    """
    _require_squares(pictures)
    return torch.fft.ifft2(torch.fft.fft2(pictures) * blur_spectrum(width, pictures.shape[-1]).to(pictures)).real


def wedge(size: int) -> torch.Tensor:
    """Return a mask (size, size) of the frequencies with |v| <= |u|, u waves across and v down; 1 = kept.

    About half of all: those that an instrument sees that cannot be turned by more than 45 degrees, as in electron
    tomography ("missing wedge"). (u, v) and (-u, -v) are kept together.
    """
    waves = torch.fft.fftfreq(size).abs()
    return (waves[:, None] <= waves).float()


def frequencies(pictures: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return the Fourier transform of square pictures where `kept` (size, size) is 1: (batch, channels, size, size, 2).

    Real and imaginary part, with norm="ortho": the sum of squares is that of the pictures if all are kept.
    """
    _require_squares(pictures)
    if kept.shape != pictures.shape[2:]:
        raise ValueError(f"Expected a mask {tuple(pictures.shape[2:])} of frequencies, but got {tuple(kept.shape)}.")
    return torch.view_as_real(torch.fft.fft2(pictures, norm="ortho")) * kept.to(pictures)[..., None]


def observe(measure: Measure, pictures: torch.Tensor, noise: float, generator: torch.Generator) -> torch.Tensor:
    """Return y = A x + noise n, where n is standard normal; where every A x is 0 nothing is measured, and y is 0.

    noise: its standard deviation, on the scale [-1, 1] of the pictures. Raises ValueError if it is negative.
    """
    if noise < 0:
        raise ValueError(f"Expected a standard deviation of the noise of at least 0, but got {noise}.")
    clean = measure(pictures)
    probe = measure(torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0)).to(pictures))
    errors = torch.randn(clean.shape, generator=generator).to(clean)
    return clean + noise * torch.where(probe == 0, 0, errors)


def transposed(measure: Measure, measured: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return A^T y, pictures of that shape, for a linear measure: <A x, y> = <x, A^T y> for all x.

    It is the gradient of <A x, y> with respect to x. Raises ValueError if `measured` has not the shape of A x.
    """
    with torch.enable_grad():
        x = torch.zeros(shape, device=measured.device, requires_grad=True)
        found = measure(x)
        require_same_shape(found, measured, "A x and what was measured")
        return torch.autograd.grad((found * measured).sum(), x)[0]


def _require_squares(pictures: torch.Tensor) -> None:
    require_pictures(pictures)
    if pictures.shape[2] != pictures.shape[3]:
        raise ValueError(f"Expected square pictures, but got {tuple(pictures.shape)}; crop them first.")
