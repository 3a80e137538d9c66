"""Explorers on the pages of the book: one control each, as a film of pictures drawn beforehand, under a slider."""

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from course_utils import widgets
from course_utils.language import label, translated
from course_utils.widgets import Explorer

REMARK = "One control of the explorer, drawn beforehand; in the notebook all of them move."
ELSEWHERE = "This explorer moves in the notebook; on this page it has the still pictures above."


class Film(NamedTuple):
    """An explorer, which of its controls moves, and the values that it takes; the others stay where they start."""

    explorer: Callable[[], Explorer]
    control: str
    values: Sequence[float]


def _kitten() -> Explorer:
    from course_utils.data import photos

    return widgets.noise_explorer(photos.load("chelsea", size=64))


def _corgi_page() -> Explorer:
    from course_utils.data import picture_book as book

    corgi = book.Scene((book.Thing("corgi", pose="sitting"),), "grass", seed=4)
    return widgets.attention_explorer(book.pictures([corgi], size=32))


def _clouds() -> Explorer:
    import math

    import torch

    from course_utils.diffusion import schedules

    angle = torch.tensor([90.0, 210.0, 330.0]) * math.pi / 180
    alpha_bar = schedules.alpha_bar_from_beta(schedules.scaled_linear_beta(1000))
    return widgets.guidance_explorer(torch.stack([angle.cos(), angle.sin()], 1), alpha_bar)


def _shifted_page() -> Explorer:
    from course_utils.data import picture_book as book

    return widgets.shift_explorer(book.Scene((book.Thing("corgi"),), "grass", 3))


# By chapter and cell: those that draw in a fraction of a second and need no trained network.
FILMS = {
    ("01", "field-explore"): Film(widgets.receptive_field_explorer, "layers", range(1, 11)),
    ("02", "explore-bound"): Film(widgets.bound_explorer, "s", [n / 10 for n in range(1, 16)]),
    ("03", "explore-best"): Film(widgets.best_judge_explorer, "mean", [n / 2 for n in range(-8, 9)]),
    ("04", "explore-overlap"): Film(widgets.overlap_explorer, "kernel", range(1, 7)),
    ("04", "explore-attention"): Film(_corgi_page, "sharpness", range(0, 20)),
    ("05", "explore-noise"): Film(_kitten, "t", [*range(0, 960, 40), 999]),
    ("05", "explore-schedule"): Film(widgets.schedule_explorer, "last_beta", [n / 1000 for n in range(2, 31, 2)]),
    ("10", "toy-explore"): Film(_clouds, "w", [n / 2 for n in range(0, 21)]),
    ("14", "shift-widget"): Film(_shifted_page, "t", [n / 20 for n in range(2, 19)]),
    ("15", "bias-widget"): Film(widgets.bias_explorer, "n", range(100, 1001, 100)),
}


def shoot(folder: Path) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Draw every film into `folder/NN-cell-id/K.png`; return for each its frames: the value, and a sentence on it."""
    return {place: _draw(film, folder / "-".join(place)) for place, film in FILMS.items()}


def _draw(film: Film, folder: Path) -> list[tuple[str, str]]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import as_png, use_style

    use_style()
    folder.mkdir(parents=True)
    explorer, frames = film.explorer(), []
    for number, value in enumerate(film.values):
        figure, said = explorer.picture({**explorer.start, film.control: value})
        (folder / f"{number}.png").write_bytes(as_png(figure))
        plt.close(figure)
        frames.append((f"{value:g}", said))
    return frames


def show(place: tuple[str, str], frames: list[tuple[str, str]], images: str = "../films") -> str:
    """Return the HTML of a film, which `static/films.js` moves: a slider, the picture, and the sentence below it.

    It begins at the frame where the explorer itself starts, or the one nearest to it.
    """
    film = FILMS[place]
    start = film.explorer().start[film.control]
    first = min(range(len(frames)), key=lambda number: abs(film.values[number] - start))
    value, said = frames[first]
    name = f"{images}/{'-'.join(place)}"
    data = json.dumps(frames, ensure_ascii=False).replace("</", "<\\/")
    return (
        f'<div class="film" data-images="{name}"><script type="application/json">{data}</script>\n'
        f"<p>{translated(REMARK)}</p>\n"
        f'<label>{html.escape(label(film.control))} <input type="range" min="0" max="{len(frames) - 1}" '
        f'value="{first}" aria-valuetext="{value}"> <output>{value}</output></label>\n'
        f'<img src="{name}/{first}.png" alt="{html.escape(said)}">\n<p><small>{html.escape(said)}</small></p>\n</div>'
    )
