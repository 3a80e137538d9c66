"""Between pictures as the world keeps them and pictures as the networks see them.

The world: `PIL.Image` or numpy uint8, whole numbers 0..255, `(height, width, channels)`.
The networks: float32 tensors in [-1, 1], `(batch, channels, height, width)`.
Only `data` and `plotting` cross this border.
"""

import base64
import io
from collections.abc import Sequence

import numpy
import torch
from PIL import Image

from course_utils.shapes import require_pictures

Picture = Image.Image | numpy.ndarray


def to_tensor(pictures: Picture | Sequence[Picture], size: int | None = None) -> torch.Tensor:
    """Turn one picture or a list of pictures into one batch: x = 2 k / 255 - 1 for k = 0..255.

    `pictures`: `PIL.Image`s of any mode, or uint8 arrays `(height, width)` or `(height, width, 3 or 4)`.
    With `size`, each is first cropped to the square at its centre and resized; without it, all must be
    equally large. What is transparent becomes white.

    Returns (batch, 3, height, width), float32 in [-1, 1].
    Raises ValueError for no pictures, for unequal sizes, and for what is not a picture.
    """
    if isinstance(pictures, Picture):
        pictures = [pictures]
    pages = [as_rgb(picture) for picture in pictures]
    if not pages:
        raise ValueError("Expected at least one picture, got an empty list.")
    if size is not None:
        pages = [crop_and_resize(page, size) for page in pages]
    sizes = sorted({page.size for page in pages})
    if len(sizes) > 1:
        raise ValueError(
            f"Expected pictures of one size, got (width, height) = {sizes[0]} and {sizes[-1]} among others. "
            "Give size=64, for example, to make them all square and equally large."
        )
    levels = numpy.stack([numpy.asarray(page) for page in pages])  # (batch, height, width, 3)
    x = torch.from_numpy(levels).permute(0, 3, 1, 2)  # (batch, 3, height, width)
    return x.contiguous().float() / 127.5 - 1


def to_pil(pictures: torch.Tensor) -> list[Image.Image]:
    """Turn a batch into PIL pictures: k = round(127.5 (x + 1)), what lies outside [-1, 1] is clipped.

    `pictures`: (batch, 1 or 3, height, width), floating point. One channel gives mode "L", three "RGB".
    Raises ValueError for another shape, for whole numbers and for values that are not finite.
    """
    require_pictures(pictures)
    if pictures.shape[1] not in (1, 3) or 0 in pictures.shape:
        raise ValueError(f"Expected (batch, 1 or 3, height, width), none 0, got {tuple(pictures.shape)}.")
    pictures = pictures.detach().float().cpu()
    if not pictures.isfinite().all():
        bad = int((~pictures.isfinite().flatten(1).all(dim=1)).sum())
        raise ValueError(
            f"Expected finite numbers, got NaN or infinity in {bad} of {len(pictures)} pictures. "
            "Training or sampling has diverged: try a lower learning rate, and look at the loss."
        )
    rounded = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    levels = rounded.permute(0, 2, 3, 1).numpy()  # (batch, height, width, channels)
    return [Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture) for picture in levels]


def as_rgb(picture: Picture) -> Image.Image:
    """Return a picture of any mode (or a uint8 array) in mode "RGB", on white where it is transparent.

    Greyscale of 16 bits is scaled to 8, which PIL's own `convert` would clip.
    Raises ValueError for floating point pictures, whose range cannot be known, and for other things.
    """
    if isinstance(picture, numpy.ndarray):
        has_picture_shape = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))
        if picture.dtype != numpy.uint8 or not has_picture_shape:
            raise ValueError(
                "Expected a uint8 array (height, width) or (height, width, 3 or 4), "
                f"got {picture.dtype} {picture.shape}."
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise ValueError(f"Expected a PIL.Image or a uint8 array, got {type(picture).__name__}.")
    if picture.mode == "F":
        raise ValueError("floating point pixels have no fixed range: save the picture with 8 bits a channel")
    if picture.mode.startswith("I"):  # 16 bits, which PIL keeps as "I;16" or, in older files, as "I"
        levels = numpy.asarray(picture).astype(numpy.float64) / 257  # 65535 = 257 * 255
        picture = Image.fromarray(levels.clip(0, 255).round().astype(numpy.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        page = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(page, picture)
    return picture.convert("RGB")


def crop_and_resize(picture: Image.Image, size: int) -> Image.Image:
    """Cut out the largest square at the centre and resize it, without aliasing, to size x size pixels."""
    require_size(size)
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.LANCZOS)


def recolour(pictures: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return pictures whose red is blue, and whose blue is red, where the mask is 1.

    pictures: (batch, 3, height, width). mask: (batch or 1, 1, height, width), 1 = change, 0 = keep to the bit.
    Raises ValueError for other shapes.
    """
    fits = mask.ndim == 4 and mask.shape[0] in (1, len(pictures)) and mask.shape[1] == 1
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not fits or mask.shape[2:] != pictures.shape[2:]:
        raise ValueError(
            f"Expected pictures (batch, 3, height, width) and masks (batch, 1, height, width) of one size, "
            f"got {tuple(pictures.shape)} and {tuple(mask.shape)}."
        )
    return torch.where(mask > 0.5, pictures.flip(1), pictures)


def require_size(size: int) -> None:
    """Raise ValueError unless `size` is a whole number of pixels."""
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"Expected a whole number of pixels, at least 1, as size, got {size!r}.")


def data_url(picture: Image.Image, optimize: bool = False) -> str:
    """Return a picture as an address that holds it, "data:image/png;base64,...", for pages that need no other file.

    optimize: take longer, for a smaller PNG.
    """
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=optimize)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
