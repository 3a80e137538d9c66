"""The picture book: a small world that is drawn, not downloaded, with captions that are exactly true."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from course_utils.data.picture_book import places, subjects
from course_utils.data.picture_book.captions import OPPOSITE, Caption, caption, facts, seen_colour
from course_utils.data.picture_book.pen import Pen, mix
from course_utils.data.picture_book.scenes import (
    ALL_POSES,
    COLOURS,
    PLACES,
    POSES,
    RELATIONS,
    SUBJECTS,
    Scene,
    Thing,
    is_held_out,
    sample_scene,
)
from course_utils.data.picture_book.styles import STYLES

__all__ = [
    "ALL_POSES",
    "COLOURS",
    "OPPOSITE",
    "PLACES",
    "POSES",
    "RELATIONS",
    "STYLES",
    "SUBJECTS",
    "Caption",
    "Scene",
    "Spot",
    "Thing",
    "caption",
    "draw",
    "facts",
    "is_held_out",
    "layout",
    "pictures",
    "sample_scene",
    "seen_colour",
]

SUPERSAMPLING = 4
SIZES = {
    "corgi": 0.66,
    "cat": 0.64,
    "rabbit": 0.6,
    "duck": 0.62,
    "ball": 0.56,
    "teapot": 0.62,
    "house": 0.64,
    "tree": 0.72,
    "tulip": 0.58,
    "mushroom": 0.6,
    "car": 0.66,
    "boat": 0.66,
}  # units in picture heights


def draw(scene: Scene, size: int = 64) -> Image.Image:
    """Draw a scene as an RGB picture of `size` x `size` pixels (32 or 64): the same scene, the same picture.

    Drawn at four times the size and averaged down, which is what smooths the edges.
    """
    return Image.fromarray(_page(scene, size))


def pictures(scenes: Iterable[Scene], size: int = 64) -> torch.Tensor:
    """Draw scenes as one float tensor in [-1, 1], (batch, 3, size, size)."""
    stack = np.stack([_page(scene, size) for scene in scenes])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True)
class Spot:
    """Where a thing stands: its foot (`x` from the left, `y` from the top) and its size, in picture heights."""

    x: float
    y: float
    unit: float
    flip: bool
    cloud: bool = False  # whether it has a cloud to stand on

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the thing, (x, y) in picture heights."""
        return self.x, self.y - self.unit / 2


def layout(scene: Scene) -> list[Spot]:
    """Where each thing of the scene stands."""
    rng = random.Random(f"layout/{scene.seed}")
    count = len(scene.things)
    if scene.relation == "above":
        stands = [(0.5 + rng.uniform(-0.17, 0.17), y, share) for y, share in ((0.45, 0.48), (0.96, 0.54))]
    elif count < 2:
        stands = [(0.5 + rng.uniform(-0.13, 0.13), 0.9, 1.0)] * count
    else:
        side = 0.24 if count == 2 else 0.31
        stands = [
            (
                0.5 + side * (2 * i / (count - 1) - 1),
                0.9 - (0.05 if i == 1 and count == 3 else 0),
                0.64 if count == 2 else 0.47,
            )
            for i in range(count)
        ]
    spots: list[Spot] = []
    for thing, (x, y, share) in zip(scene.things, stands, strict=True):
        unit = SIZES[thing.kind] * share * rng.uniform(0.87, 1.1)
        half = unit * (0.6 if thing.pose in ("standing", "sleeping") else 0.5)
        x = min(max(x + rng.uniform(-0.02, 0.02), half), 1 - half)
        y = min(y + rng.uniform(-0.05, 0.03) * (0.5 + 0.5 * share), 0.97)
        spots.append(Spot(x, y, unit, rng.random() < 0.5, scene.relation == "above" and not spots))
    return spots


def _page(scene: Scene, size: int) -> np.ndarray:
    """The finished picture, uint8 (size, size, 3)."""
    if size not in (32, 64):
        raise ValueError(f"expected a size of 32 or 64 pixels, got {size}; resize the picture yourself for others")
    rng, style = random.Random(f"details/{scene.seed}"), STYLES[scene.style]
    large = size * SUPERSAMPLING
    page = Image.new("RGB", (large, large))
    getattr(places, f"draw_{scene.place}")(page, rng)
    for thing, spot in sorted(zip(scene.things, layout(scene), strict=True), key=lambda pair: pair[1].y):
        _draw_thing(page, thing, spot, style, rng)
    return style.finish(page, random.Random(f"paper/{scene.seed}"), size).clip(0, 255).astype(np.uint8)


def _draw_thing(page, thing: Thing, spot: Spot, style, rng) -> None:
    large = page.height
    pen = Pen(page, spot.x * large, spot.y * large, spot.unit * large, spot.flip, style.line)
    thick = large / 105 * style.thickness * (0.8 if spot.unit < 0.35 else 1)
    if spot.cloud:
        places.draw_cloud(pen, thick)
    below = page.getpixel((int(spot.x * large), int(spot.y * large)))
    pen.ellipse(0, 0.01, 0.42, 0.055, mix(below, (40, 36, 60), 0.32), line=False)
    pen.ink(0)
    colour = COLOURS[thing.colour] if thing.colour else None
    getattr(subjects, f"draw_{thing.kind}")(pen, colour, thing.pose, rng, thick=thick)
