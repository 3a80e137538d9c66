"""The explorers of chapter 01: what a pixel's network can see, and pictures of which only a part is drawn."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from course_utils.models.pixelcnn import PixelCNN, StackedPixelCNN, receptive_field, sample_by_rows, to_pictures
from course_utils.plotting import plot_pictures
from course_utils.widgets.explorer import Choice, Explorer, Slider

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from matplotlib.axes import Axes

STACKS = ("plain stack", "two stacks")
UNSEEN = torch.tensor([0.1, 0.5, 1.0])  # the colour of pixels that are not known yet, a light blue


def plot_field(field: torch.Tensor, row: int, column: int, title: str = "", ax: "Axes | None" = None) -> "Axes":
    """Show which pixels a network sees from (row, column): blue ones it does, crossed ones came before and are missed.

    field: bool (height, width), as `receptive_field` gives it. The pixel itself is black. Returns the axes.
    """
    import matplotlib.pyplot as plt

    ax = plt.subplots(figsize=(2.6, 2.8))[1] if ax is None else ax
    height, width = field.shape
    earlier = (torch.arange(height * width) < row * width + column).reshape(height, width)
    colours = torch.full((height, width, 3), 0.93)
    colours[field] = torch.tensor([0.34, 0.71, 0.91])
    blind, ahead = earlier & ~field, field & ~earlier
    colours[blind] = torch.tensor([1.0, 0.85, 0.75])
    colours[row, column] = torch.zeros(3)
    ax.imshow(colours.numpy())
    for missed, mark in ((blind, "x"), (ahead, "s")):  # a square: something that a causal network may not see
        rows, columns = missed.nonzero().T.tolist()
        ax.plot(columns, rows, mark, color="#D55E00", markersize=5)
    ax.set(title=title, xticks=[], yticks=[])
    ax.set_xticks([c - 0.5 for c in range(width + 1)], minor=True)
    ax.set_yticks([r - 0.5 for r in range(height + 1)], minor=True)
    ax.grid(which="minor", color="white", linewidth=1)
    ax.grid(which="major", visible=False)
    ax.tick_params(which="minor", length=0)
    return ax


@functools.lru_cache(maxsize=64)
def untrained(stack: str, layers: int) -> Callable:
    """The network of a stack with this many layers, its weights random, from numbers (1, 3, h, w) to logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind = {"plain stack": StackedPixelCNN, "two stacks": PixelCNN}[stack]
        return kind(levels=2, hidden=16, blocks=layers - 1).double().eval().see


def receptive_field_explorer(size: int = 11) -> Explorer:
    """Which pixels of a picture (size, size) are seen from one of them, by networks of 3x3 kernels."""
    numbers = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).double()

    def draw_field(ax, stack: str, layers: int, row: int, column: int) -> str:
        field = receptive_field(untrained(stack, layers), numbers, row, column)
        plot_field(field, row, column, f"{stack}, {layers} layer{'s' * (layers > 1)}", ax)
        before = row * size + column
        return (
            f"{stack.capitalize()} of {layers} layer{'s' * (layers > 1)}: from row {row}, column {column}, "
            f"{int(field.sum())} of the {before} earlier pixels are seen."
        )

    return Explorer(
        draw_field,
        {"stack": Choice(STACKS), "layers": Slider(1, 10), "row": Slider(0, size - 1), "column": Slider(0, size - 1)},
        {"stack": "plain stack", "layers": 2, "row": size // 2 + 1, "column": size // 2 - 1},
    )


def fill_in_explorer(model: PixelCNN, x: torch.Tensor) -> Explorer:
    """Keep the first pixels of a picture and let the model draw the rest, four times.

    x: pictures as symbols, (number, height, width), on the model's device.
    """
    height, width = x.shape[1:]

    def draw_rest(ax, keep: int, temperature: float, picture: int, seed: int) -> str:
        chosen = x[picture : picture + 1]
        drawn = sample_by_rows(model, chosen.expand(4, -1, -1), keep, torch.Generator().manual_seed(seed), temperature)
        shown = to_pictures(torch.cat([chosen, chosen, drawn]), model.levels, model.channels).cpu()
        shown = shown.expand(-1, 3, -1, -1).clone()
        shown[1].flatten(1)[:, keep:] = UNSEEN[:, None]
        plot_pictures(shown, ["real", f"keep {keep}", *[f"T = {temperature:g}"] * 4], columns=3, ax=ax)
        return (
            f"Picture {picture}, seed {seed}: the first {keep} of {height * width} pixels are kept, the others "
            f"drawn at temperature {temperature:g}."
        )

    return Explorer(
        draw_rest,
        {
            "keep": Slider(0, height * width),
            "temperature": Slider(0.1, 2.0, 0.1),
            "picture": Slider(0, len(x) - 1),
            "seed": Slider(0, 99),
        },
        {"keep": height * width // 2, "temperature": 1.0, "picture": 0, "seed": 0},
    )
