"""The explorer of chapter 15: what a Fréchet distance makes of two samples of one and the same distribution."""

import torch

from course_utils.metrics.distributions import frechet_distance
from course_utils.widgets.explorer import Explorer, Slider

COUNTS = range(100, 1001, 100)
PAIRS = 10


def bias_explorer() -> Explorer:
    """FID of two samples of n points each, both of one standard normal distribution in d dimensions: means of ten."""
    means: dict[int, list[float]] = {}

    def means_of(d: int) -> list[float]:
        if d not in means:
            generator = torch.Generator().manual_seed(0)
            samples = torch.randn(PAIRS, 2, max(COUNTS), d, generator=generator)
            means[d] = [sum(frechet_distance(*pair[:, :n]) for pair in samples) / PAIRS for n in COUNTS]
        return means[d]

    def draw(ax, n: int, d: int) -> str:
        fid = means_of(d)[COUNTS.index(n)]
        ax.plot(COUNTS, means_of(d))
        ax.plot([n], [fid], "o", color="C1", markersize=9)
        ax.set(xlabel="n", ylabel="FID", yscale="log", ylim=(1e-3, 10), title=f"d = {d}")
        return (
            f"Two samples of {n} points each in {d} dimensions have FID {fid:.3f} on average of {PAIRS} pairs, though "
            "both come from one distribution."
        )

    return Explorer(draw, {"n": Slider(100, 1000, 100), "d": Slider(2, 32, 2)}, {"n": 100, "d": 8})
