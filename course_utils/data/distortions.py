"""What happens to pictures on their way: saved, compressed, cut, made smaller, brighter or noisy.

Pictures: (n, 3, height, width) in [-1, 1]; each function returns pictures of the same shape and range, as they are
found after having been saved with 8 bits a number. Other shapes or values that are not finite raise ValueError.
"""

import io
from collections.abc import Callable

import torch
from PIL import Image, ImageEnhance

from course_utils.data.images import to_pil, to_tensor

Change = Callable[[Image.Image], Image.Image]


def saved(pictures: torch.Tensor) -> torch.Tensor:
    """Round to the 256 levels of a PNG: x = 2 k / 255 - 1."""
    return _each(pictures, lambda picture: picture)


def as_jpeg(pictures: torch.Tensor, quality: int) -> torch.Tensor:
    """Save as JPEG with `quality` from 1 to 95, and read again; the colours at half the resolution, as is usual.

    Raises ValueError for another quality.
    """
    if not 1 <= quality <= 95:
        raise ValueError(f"Expected a JPEG quality from 1 (coarse) to 95 (fine), but got {quality}.")

    def change(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
        return Image.open(file).convert("RGB")

    return _each(pictures, change)


def cropped(pictures: torch.Tensor, margin: int) -> torch.Tensor:
    """Cut off `margin` pixels on each side and enlarge the rest to the size before.

    Raises ValueError for a margin that leaves nothing.
    """
    width, height = pictures.shape[-1], pictures.shape[-2]
    if not 0 <= margin < min(width, height) / 2:
        raise ValueError(f"Expected a margin from 0 to below half of {width} x {height} pixels, but got {margin}.")
    box = (margin, margin, width - margin, height - margin)
    return _each(pictures, lambda picture: picture.crop(box).resize((width, height), Image.Resampling.LANCZOS))


def shrunk(pictures: torch.Tensor, factor: float) -> torch.Tensor:
    """Make the sides `factor` times as long, from above 0 to 1, and enlarge to the size before.

    Raises ValueError for another factor.
    """
    if not 0 < factor <= 1:
        raise ValueError(f"Expected a factor above 0, and 1 at most, but got {factor}.")
    width, height = pictures.shape[-1], pictures.shape[-2]
    small = max(1, round(factor * width)), max(1, round(factor * height))
    way = Image.Resampling.LANCZOS
    return _each(pictures, lambda picture: picture.resize(small, way).resize((width, height), way))


def brighter(pictures: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply the levels 0 ... 255 by `factor` (darker below 1); what would be above 255 becomes 255.

    Raises ValueError for a factor below 0.
    """
    if not factor >= 0:
        raise ValueError(f"Expected a factor of 0 or more, but got {factor}.")
    return _each(pictures, lambda picture: ImageEnhance.Brightness(picture).enhance(factor))


def noisy(pictures: torch.Tensor, std: float, generator: torch.Generator) -> torch.Tensor:
    """Add normal noise of the standard deviation `std` to each number, clipped to [-1, 1].

    Raises ValueError for a negative standard deviation.
    """
    if not std >= 0:
        raise ValueError(f"Expected a standard deviation of 0 or more, but got {std}.")
    noise = torch.randn(pictures.shape, generator=generator, device=generator.device).to(pictures)
    return saved(pictures + std * noise)


def _each(pictures: torch.Tensor, change: Change) -> torch.Tensor:
    return to_tensor([change(picture) for picture in to_pil(pictures)]).to(pictures)
