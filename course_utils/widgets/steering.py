"""The explorer of chapter 12: a line drawing, moved by sliders, and the image that follows it."""

from collections.abc import Callable

import torch
from torch.nn.functional import interpolate

from course_utils.data import picture_book as book
from course_utils.plotting import plot_pictures
from course_utils.widgets.explorer import Choice, Explorer, Slider

SIDE = 64


def moved_lines(kind: str, x: float, y: float, size: float) -> torch.Tensor:
    """The lines of one thing, (1, 3, 64, 64) in [0, 1], with its middle at pixel (x, y), `size` times its usual size.

    What lies beyond the edge is cut off. Raises ValueError for a size that is not above 0, and for an unknown kind.
    """
    if size <= 0:
        raise ValueError(f"Expected a size above 0, got {size}; 1 is the usual one.")
    lines = book.maps(book.Scene((book.Thing(kind),), "grass")).lines[0]
    rows, columns = (lines.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    thing = lines[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(size * side)) for side in thing.shape)
    thing = interpolate(thing[None, None], (height, width), mode="bilinear", antialias=True)[0, 0]
    thing = (thing / thing.max()).clamp(0, 1)
    paper = torch.zeros(3 * SIDE, 3 * SIDE)  # with room for what is cut off
    top, left = SIDE + round(y - height / 2), SIDE + round(x - width / 2)
    paper[top : top + height, left : left + width] = thing
    return paper[SIDE : 2 * SIDE, SIDE : 2 * SIDE].expand(1, 3, -1, -1)


def drawing_explorer(draw: Callable[[str, int, torch.Tensor, float], torch.Tensor]) -> Explorer:
    """A thing's lines, moved and scaled, beside the image that is drawn after them.

    draw(prompt, seed, drawing (1, 3, 64, 64) in [0, 1], weight) -> image (1, 3, 64, 64) in [-1, 1].
    """

    def draw_after(ax, drawn: str, prompt: str, x: int, y: int, size: float, weight: float, seed: int) -> str:
        lines = moved_lines(drawn, x, y, size)
        plot_pictures(torch.cat([2 * lines - 1, draw(prompt, seed, lines, weight)]), columns=1, ax=ax)
        return f"The lines of a {drawn} at ({x}, {y}), size {size:g}, with “{prompt}” and weight {weight:g}."

    return Explorer(
        draw_after,
        {
            "drawn": Choice(("cat", "ball", "house", "car")),
            "prompt": None,
            "x": Slider(4, 60),
            "y": Slider(4, 60),
            "size": Slider(0.3, 1.5, 0.1),
            "weight": Slider(0.0, 1.5, 0.1),
            "seed": Slider(0, 20),
        },
        {"drawn": "cat", "prompt": "a white cat on the grass", "x": 32, "y": 38, "size": 1.0, "weight": 1.0, "seed": 0},
    )
