"""The picture book: a small world that is drawn, not downloaded, with captions that are exactly true."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from course_utils.data.picture_book import places, subjects
from course_utils.data.picture_book.captions import Caption, caption, seen_colour
from course_utils.data.picture_book.pen import Pen, mix
from course_utils.data.picture_book.scenes import (
    COLOURS,
    PLACES,
    POSES,
    SUBJECTS,
    Scene,
    Thing,
    is_held_out,
    sample_scene,
)

__all__ = ["COLOURS", "PLACES", "POSES", "SUBJECTS", "Caption", "Scene", "Spot", "Thing", "caption", "draw",
           "is_held_out", "layout", "pictures", "sample_scene", "seen_colour"]

SUPERSAMPLING = 4
SIZES = {"corgi": 0.66, "cat": 0.64, "rabbit": 0.6, "duck": 0.62, "ball": 0.56, "teapot": 0.62, "house": 0.64,
         "tree": 0.72, "tulip": 0.58, "mushroom": 0.6, "car": 0.66, "boat": 0.66}  # units in picture heights


def draw(scene: Scene, size: int = 64) -> Image.Image:
    """Draw a scene as an RGB picture of `size` x `size` pixels (32 or 64): the same scene, the same picture.

    Drawn at four times the size and averaged down, which is what smooths the edges.
    """
    if size not in (32, 64):
        raise ValueError(f"expected a size of 32 or 64 pixels, got {size}; resize the picture yourself for others")
    rng = random.Random(f"details/{scene.seed}")
    large = size * SUPERSAMPLING
    picture = Image.new("RGB", (large, large))
    getattr(places, f"draw_{scene.place}")(picture, rng)
    for thing, spot in zip(scene.things, layout(scene), strict=True):
        _draw_thing(picture, thing, spot, rng)
    return picture.reduce(SUPERSAMPLING)


@dataclass(frozen=True)
class Spot:
    """Where a thing stands: its foot (`x` from the left, `y` from the top) and its size, in picture heights."""

    x: float
    y: float
    unit: float
    flip: bool


def layout(scene: Scene) -> list[Spot]:
    """Where each thing of the scene stands."""
    rng = random.Random(f"layout/{scene.seed}")
    return [Spot(0.5 + rng.uniform(-0.13, 0.13), 0.9 + rng.uniform(-0.06, 0.03),
                 SIZES[thing.kind] * rng.uniform(0.85, 1.1), rng.random() < 0.5) for thing in scene.things]


def _draw_thing(picture, thing: Thing, spot: Spot, rng) -> None:
    large = picture.height
    x, y = int(spot.x * large), int(spot.y * large)
    pen = Pen(picture, spot.x * large, spot.y * large, spot.unit * large, spot.flip)
    pen.ellipse(0, 0.01, 0.42, 0.055, mix(picture.getpixel((x, y)), (40, 36, 60), 0.32), line=False)
    pen.ink(0)
    colour = COLOURS[thing.colour] if thing.colour else None
    getattr(subjects, f"draw_{thing.kind}")(pen, colour, thing.pose, rng, thick=large / 105)


def pictures(scenes, size: int = 64) -> torch.Tensor:
    """Draw scenes as one float tensor in [-1, 1], (batch, 3, size, size)."""
    stack = np.stack([np.asarray(draw(scene, size)) for scene in scenes])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1
