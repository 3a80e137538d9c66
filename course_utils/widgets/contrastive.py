"""The explorers of chapter 08: the temperature of a softmax over captions, and a search for pages in words."""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from course_utils.models.clip import info_nce
from course_utils.plotting import plot_pictures
from course_utils.shapes import require_pictures
from course_utils.widgets.explorer import Explorer, Slider


def temperature_explorer(image: torch.Tensor, text: torch.Tensor) -> Explorer:
    """Pairs of unit vectors (count, width) at a temperature: the probabilities, the loss, and who pushes the first.

    `pairs` says how many of them make the batch.
    """
    cosines = image @ text.T

    def draw_temperature(axes, log10_temperature: float, pairs: int) -> str:
        scale = 10**-log10_temperature
        logits = scale * cosines[:pairs, :pairs]
        shares = logits.softmax(1)  # a row for each picture
        axes[0].imshow(shares, cmap="viridis", vmin=0, vmax=1)
        ticks = range(0, pairs, max(1, pairs // 4))
        axes[0].set(title="probability", xlabel="caption", ylabel="picture", xticks=ticks, yticks=ticks)
        axes[0].grid(False)
        pushes = shares[0, 1:].sort(descending=True).values
        pushes = pushes / pushes.sum().clamp(min=1e-30)
        axes[1].bar(range(1, pairs), pushes.tolist(), color="#D55E00")
        axes[1].plot([0.5, pairs - 0.5], [1 / (pairs - 1)] * 2, "--", color="black", linewidth=1)
        axes[1].set(
            xlabel="wrong caption, nearest first",
            ylabel="share of the push",
            ylim=(0, 1),
            xticks=range(1, pairs, max(1, pairs // 4)),
        )
        share, loss = shares.diagonal().mean(), info_nce(logits)
        return (
            f"With log10 temperature {log10_temperature:g}, that is tau = {1 / scale:.3g}, and {pairs:g} pairs the "
            f"right caption gets {share:.0%} on average, the loss is {loss:.2f}, and of what pushes picture 0 away "
            f"{pushes[0]:.0%} comes from its nearest wrong caption (dashed: all alike)."
        )

    return Explorer(
        draw_temperature,
        {"log10_temperature": Slider(-2, 0, 0.1), "pairs": Slider(2, len(cosines))},
        {"log10_temperature": -1.2, "pairs": len(cosines)},
        panels=2,
    )


def search_explorer(
    pictures: torch.Tensor,
    image: torch.Tensor,
    encode: Callable[[list[str]], torch.Tensor],
    query: str = "a red boat in the snow",
) -> Explorer:
    """The pages that fit a sentence best, by their cosines.

    pictures: (count, 3, height, width); image: their unit vectors (count, width); encode: a list of sentences to
    their unit vectors. Minus a second sentence, `without`, if there is one.
    """
    require_pictures(pictures)

    def draw_search(ax, wanted: str, without: str, shown: int) -> str:
        if not wanted.strip():
            raise ValueError("There is nothing to look for: write a few words into `wanted`.")
        vector = encode([wanted])[0]
        if without.strip():
            vector = F.normalize(vector - encode([without])[0], dim=0)
        found = (image @ vector).topk(shown)
        titles = [f"{cosine:.2f}" for cosine in found.values]
        plot_pictures(pictures[found.indices], titles, columns=math.ceil(shown**0.5), ax=ax)
        minus = f' minus "{without}"' if without.strip() else ""
        return (
            f'The {shown:g} pages nearest to "{wanted}"{minus}, with cosines from {found.values[0]:.2f} down to '
            f"{found.values[-1]:.2f}."
        )

    return Explorer(
        draw_search,
        {"wanted": None, "without": None, "shown": Slider(1, min(12, len(pictures)))},
        {"wanted": query, "without": "", "shown": min(8, len(pictures))},
    )
