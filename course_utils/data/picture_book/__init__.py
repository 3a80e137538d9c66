"""The picture book: a small world that is drawn, not downloaded, with captions that are exactly true."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from course_utils.data.picture_book import places, subjects
from course_utils.data.picture_book.captions import OPPOSITE, Caption, caption, facts, seen_colour
from course_utils.data.picture_book.pen import Colour, LinePen, Pen, mix
from course_utils.data.picture_book.scenes import (
    ALL_POSES,
    COLOURS,
    NEW_SUBJECTS,
    PLACES,
    POSES,
    RELATIONS,
    SUBJECTS,
    Scene,
    Thing,
    is_held_out,
    sample_scene,
)
from course_utils.data.picture_book.styles import STYLES, Style

__all__ = [
    "ALL_POSES",
    "COLOURS",
    "NEW_SUBJECTS",
    "OPPOSITE",
    "PLACES",
    "POSES",
    "RELATIONS",
    "STYLES",
    "SUBJECTS",
    "Caption",
    "Maps",
    "Scene",
    "Spot",
    "Thing",
    "caption",
    "draw",
    "facts",
    "is_held_out",
    "layout",
    "maps",
    "page_and_things",
    "pictures",
    "sample_scene",
    "seen_colour",
]

SUPERSAMPLING = 4
SMALLEST = 3 * SUPERSAMPLING  # what is smaller gets no outline of its own in a line drawing
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
    "fox": 0.62,
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
class Maps:
    """What is where on a page.

    `lines`: float (1, size, size) in [0, 1], a drawing of the things alone: 1 on their outlines and on the lines inside
    (eyes, ears, windows), 0 on the paper. Places have no outlines, so they are not in it, nor are shadows and clouds.
    `things`: int64 (size, size), which thing is seen: 1, 2, 3 in the order of `scene.things`, 0 for the place, the
    shadows on it and the cloud that a thing stands on. `depth`: float (size, size) in [0, 1], how near the thing is,
    the `y` of its `Spot`; 0 for the place.
    """

    lines: torch.Tensor
    things: torch.Tensor
    depth: torch.Tensor


def maps(scene: Scene, size: int = 64) -> Maps:
    """The maps of the page that `draw` draws of a scene: the same strokes once more, in flat values.

    They fit the drawing before its style finishes it: pixel art moves edges by a pixel, watercolour fades the page's
    margin. A pixel belongs to what covers most of it. Lines are a pixel wide, the same in every style and colour
    (but lights on white things are not seen, so not drawn). Raises ValueError for sizes other than 32 and 64.
    """
    page, rng = _empty_page(scene, size)
    lines, things = Image.new("L", page.size), Image.new("L", page.size)
    foot = np.zeros(len(scene.things) + 1, dtype=np.float32)
    for number, thing, spot in _far_to_near(scene):
        foot[number] = spot.y
        frame, before = _frame(page, spot), rng.getstate()
        pen = LinePen(lines, *frame, line=255, fill=0, smallest=SMALLEST)
        _draw_thing(pen, thing, rng, thick=SUPERSAMPLING)
        rng.setstate(before)
        pen = LinePen(things, *frame, line=number, fill=number)
        _draw_thing(pen, thing, rng, _thickness(page, spot, STYLES[scene.style]))
    shares = [
        things.point([255 * (n == value) for value in range(256)]).reduce(SUPERSAMPLING) for n in range(len(foot))
    ]
    number = np.stack([np.asarray(share) for share in shares]).argmax(0)
    return Maps(
        torch.from_numpy(np.asarray(lines.reduce(SUPERSAMPLING), dtype=np.float32) / 255)[None],
        torch.from_numpy(number),
        torch.from_numpy(foot[number]),
    )


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


def page_and_things(scene: Scene, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A page, uint8 (size, size, 3), and which thing is seen at the middle of each pixel, uint8 (size, size).

    The numbers are those of `Maps.things`; made together with the page, they cost a third of what `maps` takes.
    """
    things = Image.new("L", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    page = _page(scene, size, things)
    middle = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
    return page, np.asarray(things)[middle, middle].copy()


def _page(scene: Scene, size: int, things: Image.Image | None = None) -> np.ndarray:
    """The finished picture, uint8 (size, size, 3). `things`: a sheet that gets the number of the thing seen."""
    page, rng = _empty_page(scene, size)
    style = STYLES[scene.style]
    for number, thing, spot in _far_to_near(scene):
        pen = Pen(page, *_frame(page, spot), style.line)
        if spot.cloud:
            places.draw_cloud(pen, _thickness(page, spot, style))
        below: Colour = page.getpixel((int(pen.x), int(pen.y)))  # type: ignore[assignment]
        pen.ellipse(0, 0.01, 0.42, 0.055, mix(below, (40, 36, 60), 0.32), line=False)
        pen.ink(0)
        if things is not None:
            before = rng.getstate()
            flat = LinePen(things, *_frame(page, spot), line=number, fill=number)
            _draw_thing(flat, thing, rng, _thickness(page, spot, style))
            rng.setstate(before)
        _draw_thing(pen, thing, rng, _thickness(page, spot, style))
    return style.finish(page, random.Random(f"paper/{scene.seed}"), size).clip(0, 255).astype(np.uint8)


def _empty_page(scene: Scene, size: int) -> tuple[Image.Image, random.Random]:
    """The place alone, SUPERSAMPLING times as large, and the random numbers of all details to come."""
    if size not in (32, 64):
        raise ValueError(f"expected a size of 32 or 64 pixels, got {size}; resize the picture yourself for others")
    rng, large = random.Random(f"details/{scene.seed}"), size * SUPERSAMPLING
    page = Image.new("RGB", (large, large))
    getattr(places, f"draw_{scene.place}")(page, rng)
    return page, rng


def _far_to_near(scene: Scene) -> list[tuple[int, Thing, Spot]]:
    """The things in the order in which they are drawn, each after its number (1, 2, 3)."""
    things = zip(range(1, len(scene.things) + 1), scene.things, layout(scene), strict=True)
    return sorted(things, key=lambda thing: thing[2].y)


def _frame(page: Image.Image, spot: Spot) -> tuple[float, float, float, bool]:
    """The local frame of a thing on a page, as `Pen` takes it."""
    return spot.x * page.height, spot.y * page.height, spot.unit * page.height, spot.flip


def _thickness(page: Image.Image, spot: Spot, style: Style) -> float:
    return page.height / 105 * style.thickness * (0.8 if spot.unit < 0.35 else 1)


def _draw_thing(pen: Pen, thing: Thing, rng: random.Random, thick: float) -> None:
    colour = COLOURS[thing.colour] if thing.colour else None
    getattr(subjects, f"draw_{thing.kind}")(pen, colour, thing.pose, rng, thick=thick)
