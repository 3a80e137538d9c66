"""A pen that draws rounded, outlined shapes in a local frame, as a picture book does.

The local frame of a subject: x to the right, y *up*, the ground at y = 0, one unit = the subject's size.
Shapes are collected first. `ink` then draws the outlines of all shapes, and the fills over them, so that parts
that overlap melt into one silhouette with a single line around it.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = np.ndarray | Sequence[Sequence[float]]  # (n, 2)

LINE: Colour = (74, 52, 58)  # a warm dark brown: softer than black
DARK = 200  # the sum of red, green and blue below which a spot is drawn for its darkness
_ANGLES = np.linspace(0, 2 * math.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (`factor` < 1) or lighten (`factor` > 1, towards white) an RGB colour, each channel 0-255."""
    if factor > 1:
        return mix(colour, (255, 255, 255), factor - 1)
    red, green, blue = (int(channel * factor) for channel in colour)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour at `share` (0-1) of the way from `first` to `second`."""
    red, green, blue = (int(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def smooth(points: Points, steps: int = 6) -> np.ndarray:
    """A closed curve through `points` (n, 2): Catmull-Rom spline, `steps` points a piece, shape (n * steps, 2)."""
    return _smooth(tuple(map(tuple, points)), steps)


@lru_cache(maxsize=2048)  # most shapes are the same in every picture
def _smooth(points: Points, steps: int) -> np.ndarray:
    p1 = np.asarray(points, dtype=float)
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    s = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (p[:, None, :] for p in (p0, p1, p2, p3))
    curve = 0.5 * (2 * p1 + (p2 - p0) * s + (2 * p0 - 5 * p1 + 4 * p2 - p3) * s**2 + (3 * p1 - p0 - 3 * p2 + p3) * s**3)
    return curve.reshape(-1, 2)


class Pen:
    """Collects shapes in a local frame and inks them on a PIL picture.

    `x`, `y`: where the local origin lies, in pixels from the top left; `unit`: pixels per local unit;
    `flip`: mirror left and right; `line`: the colour of outlines.
    """

    def __init__(self, picture: Image.Image, x: float, y: float, unit: float, flip: bool = False, line: Colour = LINE):
        self.draw = ImageDraw.Draw(picture)
        self.x, self.y = x, y
        self.scale = -unit if flip else unit
        self.unit = unit
        self.line = line
        self.shapes: list[tuple] = []  # (how it is inked, where, fill colour, outline or not)

    def _pixels(self, points: Points) -> list[float]:
        """Local points as x, y, x, y, ... in pixels."""
        if isinstance(points, np.ndarray):
            return (points * (self.scale, -self.unit) + (self.x, self.y)).ravel().tolist()
        flat: list[float] = []
        for x, y in points:  # for a handful of points faster than an array
            flat += (self.x + x * self.scale, self.y - y * self.unit)
        return flat

    def polygon(self, points: Points, fill: Colour, line: bool = True) -> None:
        """A filled polygon; `line=False` leaves it without an outline (details inside a shape)."""
        self.shapes.append((self._polygon, self._pixels(points), fill, line))

    def blob(self, points: Points, fill: Colour, line: bool = True) -> None:
        """A smooth closed shape through `points`."""
        self.polygon(smooth(points), fill, line)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, fill: Colour, line: bool = True, angle: float = 0
    ) -> None:
        """An ellipse with half-axes `rx`, `ry`, turned by `angle` degrees counter-clockwise."""
        if angle:
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            self.polygon(_CIRCLE * (rx, ry) @ np.array([[cos, sin], [-sin, cos]]) + (x, y), fill, line)
            return
        (x, y), rx, ry = self._pixels([(x, y)]), rx * self.unit, ry * self.unit
        self.shapes.append((self._ellipse, (x - rx, y - ry, x + rx, y + ry), fill, line))

    def stroke(self, points: Points, width: float, fill: Colour, line: bool = False) -> None:
        """A round-ended line of `width` local units through `points`; `line=True` gives it an outline."""
        self.shapes.append((self._stroke, (self._pixels(points), width * self.unit), fill, line))

    def ink(self, thickness: float, colour: Colour | None = None) -> None:
        """Draw what was collected, with outlines `thickness` pixels wide in `colour`, and start afresh."""
        for shape, where, _, line in self.shapes:
            if line:
                shape(where, colour or self.line, thickness)
        for shape, where, fill, _ in self.shapes:
            shape(where, fill, 0)
        self.shapes = []

    # each draws a shape that has grown by `more` pixels on all sides

    def _ellipse(self, box, fill: Colour, more: float) -> None:
        left, top, right, bottom = box
        self.draw.ellipse((left - more, top - more, right + more, bottom + more), fill)

    def _polygon(self, points, fill: Colour, more: float) -> None:
        if not more:
            self.draw.polygon(points, fill)
            return
        self.draw.line([*points, *points[:2]], fill, round(2 * more))
        if len(points) <= 2 * 10:  # a polygon has corners to round; the pieces of a smooth curve are too short for that
            self._dots(points, more, fill)

    def _stroke(self, where, fill: Colour, more: float) -> None:
        points, width = where
        width += 2 * more
        self.draw.line(points, fill, max(1, round(width)), joint="curve" if len(points) > 4 else None)
        if width > 2.4:
            self._dots(points[:2] + points[-2:], width / 2, fill)

    def _dots(self, points, radius: float, fill: Colour) -> None:
        for x, y in zip(points[::2], points[1::2], strict=True):
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)


class LinePen(Pen):
    """A pen without colours: every shape is filled with the number `fill`, and its lines drawn with the number `line`.

    Lines are the outlines, the strokes and dark spots inside a thing (mouths, eyes), and around each other detail
    that is not smaller than `smallest` pixels across, a line of half the thickness. `picture` has one channel.
    """

    def __init__(
        self,
        picture: Image.Image,
        x: float,
        y: float,
        unit: float,
        flip: bool,
        line: int,
        fill: int,
        smallest: float = math.inf,
    ):
        super().__init__(picture, x, y, unit, flip)
        self.values, self.smallest = (line, fill), smallest

    def ink(self, thickness: float, colour: Colour | None = None) -> None:
        """Draw what was collected, with outlines `thickness` pixels wide, and start afresh."""
        line, flat = self.values
        outlined = [fill for _, _, fill, has_outline in self.shapes if has_outline]
        for shape, where, _, has_outline in self.shapes:
            if has_outline:
                shape(where, line, thickness)
        for shape, where, fill, has_outline in self.shapes:
            drawn = not has_outline and (shape == self._stroke or sum(fill) < DARK)
            if not drawn and fill not in outlined and _across(where) >= self.smallest:
                shape(where, line, thickness / 2)
            shape(where, line if drawn else flat, 0)
        self.shapes = []


def _across(points: Sequence[float]) -> float:
    """The shorter side of the box around points, given as x, y, x, y, ..."""
    return min(max(points[i::2]) - min(points[i::2]) for i in (0, 1))
