"""A pen that draws rounded, outlined shapes in a local frame, as a picture book does.

The local frame of a subject: x to the right, y *up*, the ground at y = 0, one unit = the subject's size.
Shapes are collected first. `ink` then draws the outlines of all shapes, and the fills over them, so that parts
that overlap melt into one silhouette with a single line around it.
"""

import math

import numpy as np
from PIL import ImageDraw

Colour = tuple[int, int, int]

LINE: Colour = (74, 52, 58)  # a warm dark brown: softer than black
_ANGLES = np.linspace(0, 2 * math.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (`factor` < 1) or lighten (`factor` > 1, towards white) an RGB colour, each channel 0-255."""
    if factor <= 1:
        return tuple(int(channel * factor) for channel in colour)
    return tuple(int(channel + (255 - channel) * (factor - 1)) for channel in colour)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour at `share` (0-1) of the way from `first` to `second`."""
    return tuple(int(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def smooth(points, steps: int = 6) -> np.ndarray:
    """A closed curve through `points` (n, 2): Catmull-Rom spline, `steps` points a piece, shape (n * steps, 2)."""
    p1 = np.asarray(points, dtype=float)
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    s = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (p[:, None, :] for p in (p0, p1, p2, p3))
    curve = 0.5 * (2 * p1 + (p2 - p0) * s + (2 * p0 - 5 * p1 + 4 * p2 - p3) * s**2
                   + (3 * p1 - p0 - 3 * p2 + p3) * s**3)
    return curve.reshape(-1, 2)


class Pen:
    """Collects shapes in a local frame and inks them on a PIL picture.

    `x`, `y`: where the local origin lies, in pixels from the top left; `unit`: pixels per local unit;
    `flip`: mirror left and right.
    """

    def __init__(self, picture, x: float, y: float, unit: float, flip: bool = False):
        self.draw = ImageDraw.Draw(picture)
        self.origin = np.array([x, y])
        self.scale = np.array([-unit if flip else unit, -unit])
        self.unit = unit
        self.shapes = []

    def _pixels(self, points) -> list[tuple[float, float]]:
        return [tuple(p) for p in (np.asarray(points) * self.scale + self.origin).tolist()]

    def polygon(self, points, fill: Colour, line: bool = True) -> None:
        """A filled polygon; `line=False` leaves it without an outline (details inside a shape)."""
        self.shapes.append((self._pixels(points), fill, line))

    def blob(self, points, fill: Colour, line: bool = True) -> None:
        """A smooth closed shape through `points`."""
        self.polygon(smooth(points), fill, line)

    def ellipse(self, x, y, rx, ry, fill: Colour, line: bool = True, angle: float = 0) -> None:
        """An ellipse with half-axes `rx`, `ry`, turned by `angle` degrees counter-clockwise."""
        points = _CIRCLE * (rx, ry)
        if angle:
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            points = points @ np.array([[cos, sin], [-sin, cos]])
        self.polygon(points + (x, y), fill, line)

    def stroke(self, points, width: float, fill: Colour, line: bool = False) -> None:
        """A round-ended line of `width` local units through `points`; `line=True` gives it an outline."""
        self.shapes.append((self._pixels(points), fill, (width * self.unit, line)))

    def ink(self, thickness: float, colour: Colour = LINE) -> None:
        """Draw what was collected, with outlines `thickness` pixels wide in `colour`, and start afresh."""
        for points, _, kind in self.shapes:
            if kind is True:
                self.draw.line([*points, points[0], points[1]], fill=colour, width=round(2 * thickness), joint="curve")
            elif isinstance(kind, tuple) and kind[1]:
                self._line(points, kind[0] + 2 * thickness, colour)
        for points, fill, kind in self.shapes:
            if isinstance(kind, tuple):
                self._line(points, kind[0], fill)
            else:
                self.draw.polygon(points, fill=fill)
        self.shapes = []

    def _line(self, points, width: float, fill: Colour) -> None:
        self.draw.line(points, fill=fill, width=max(1, round(width)), joint="curve")
        radius = width / 2
        for x, y in (points[0], points[-1]):
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
