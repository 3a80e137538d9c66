"""How each style turns the drawing into a picture: its outlines, and what is done to the finished page.

`finish(page, rng, size)` gets the drawing at SUPERSAMPLING times the size and returns float RGB 0-255,
(size, size, 3).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image

from course_utils.data.picture_book.pen import LINE, Colour

PAPER = np.array([252.0, 249.0, 240.0], dtype=np.float32)


@dataclass(frozen=True)
class Style:
    """The colour of outlines, their thickness (1: the picture book's), and what is done to the finished page."""

    line: Colour
    thickness: float
    finish: Callable


def _reduced(page: Image.Image, size: int) -> np.ndarray:
    return np.asarray(page.reduce(page.width // size), dtype=np.float32)


def print_page(page: Image.Image, rng: Random, size: int) -> np.ndarray:
    """The picture book's own: the drawing as it is."""
    return _reduced(page, size)


@lru_cache
def _hatching(size: int, direction: int) -> np.ndarray:
    """Diagonal strokes, 0 (paper) to 1 (on the stroke), eight pixels apart across, (size, size, 1).

    Not four: an autoencoder that makes four pixels of one latent by repeating it cannot draw strokes so fine.
    """
    y, x = np.mgrid[:size, :size]
    return (0.5 + 0.5 * np.cos(np.pi / 4 * (x + direction * y))).astype(np.float32)[..., None]


def hatch(page: Image.Image, rng: Random, size: int) -> np.ndarray:
    """Coloured pencil: strokes that leave the paper through, crossed where it is dark."""
    picture = _reduced(page, size)
    light = picture.mean(-1, keepdims=True) / 255
    picture = picture + (PAPER - picture) * (0.06 + 0.24 * (1 - _hatching(size, 1)))
    return picture * (1 - 0.16 * (1 - light) * _hatching(size, -1))


def blocks(page: Image.Image, rng: Random, size: int) -> np.ndarray:
    """Pixel art: half the resolution, few levels of each colour."""
    picture = _reduced(page, size // 2)
    return (np.round(picture / 32) * 32).clip(0, 255).repeat(2, 0).repeat(2, 1)


@lru_cache
def _clouds(size: int) -> np.ndarray:
    """Slow random waves, about -1...1, (2 size, 2 size, 1), that a window may be cut from anywhere."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: 2 * size, : 2 * size] / size
    waves = sum(
        np.sin(2 * np.pi * (fx * x + fy * y) + phase) / np.hypot(fx, fy)
        for fx, fy, phase in zip(rng.uniform(-3, 3, 12), rng.uniform(-3, 3, 12), rng.uniform(0, 6.3, 12), strict=True)
    )
    return (waves / np.abs(waves).max()).astype(np.float32)[..., None]


@lru_cache
def _border(size: int) -> np.ndarray:
    """How far each pixel lies from the page's edge, 0-1 over an eighth of the page, (size, size, 1)."""
    near = np.minimum(np.arange(size), np.arange(size)[::-1]).astype(np.float32) + 0.5
    return np.minimum(near[:, None], near[None, :])[..., None] / (size / 8)


def wash(page: Image.Image, rng: Random, size: int) -> np.ndarray:
    """Watercolour: pigment that flows, dries darker at its edges, and stops before the paper does."""
    picture = _reduced(page, size)
    soft = np.asarray(
        page.resize((size // 4, size // 4), Image.Resampling.BOX).resize((size, size), Image.Resampling.BICUBIC),
        dtype=np.float32,
    )
    picture = picture - 0.3 * np.maximum(soft - picture, 0)
    i, j = rng.randrange(size), rng.randrange(size)
    flow = _clouds(size)[i : i + size, j : j + size]
    amount = 0.8 + 0.22 * flow
    edge = (_border(size) * 1.6 - 0.35 + 0.7 * flow).clip(0, 1)
    return PAPER + (picture - PAPER) * amount * edge


STYLES = {
    "picture book": Style(LINE, 1.0, print_page),
    "coloured pencil": Style((84, 74, 92), 0.9, hatch),
    "pixel art": Style((52, 38, 52), 1.15, blocks),
    "watercolour": Style((146, 124, 132), 0.7, wash),
}
