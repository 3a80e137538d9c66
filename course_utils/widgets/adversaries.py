"""The explorers of chapter 03: the best discriminator between two densities, and a game played over the plane."""

import math

import torch

from course_utils.models.adversarial import optimal_discriminator
from course_utils.models.gan import PictureGenerator
from course_utils.widgets.explorer import Choice, Explorer, Slider


def best_judge_explorer() -> Explorer:
    """Data N(0, 1) against a generator N(mean, spread^2): both densities and D*, and the value 2 JSD - log 4."""
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    p_data = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    def draw_judge(ax, mean: float, spread: float) -> str:
        p_g = torch.exp(-(((x - mean) / spread) ** 2) / 2) / (spread * math.sqrt(2 * math.pi))
        best = optimal_discriminator(p_data, p_g + 1e-300)
        value = torch.trapezoid(p_data * best.clamp(min=1e-300).log() + p_g * (1 - best).clamp(min=1e-300).log(), x)
        ax.fill_between(x, p_data, color="#0072B2", alpha=0.35, linewidth=0, label="$p_{data}$")
        ax.fill_between(x, p_g, color="#D55E00", alpha=0.35, linewidth=0, label="$p_g$")
        ax.plot(x, best, color="black", linewidth=1.5, label="$D^*$")
        ax.axhline(0.5, color="#777777", linewidth=1, linestyle=":")
        ax.set(xlabel="x", xlim=(-6, 6), ylim=(0, 1.65), yticks=(0, 0.5, 1), title=f"mean {mean:g}, spread {spread:g}")
        ax.legend(fontsize=8, loc="upper center", handlelength=1, ncol=3, columnspacing=0.8)
        return (
            f"Against a generator of mean {mean:g} and spread {spread:g} the best discriminator reaches the value "
            f"{value:.3f}, a Jensen-Shannon divergence of {(value + math.log(4)) / 2:.3f}."
        )

    return Explorer(
        draw_judge, {"mean": Slider(-4, 4, 0.5), "spread": Slider(0.25, 3, 0.25)}, {"mean": 2.0, "spread": 1.0}
    )


def game_explorer(games: dict, data: torch.Tensor) -> Explorer:
    """Games over the plane, each a list of moments (step, D, samples): D's output, and where the samples lie.

    D: points (n, 2) -> logits (n,), as it was at that moment. samples: (number, 2) that G drew then. data: (n, 2).
    """
    side = torch.linspace(-2.4, 2.4, 61)
    plane = torch.cartesian_prod(side, side)  # first coordinate slowest
    length = min(len(moments) for moments in games.values())

    def draw_game(ax, moment: int, game: str) -> str:
        step, D, samples = games[game][moment]
        with torch.no_grad():
            belief = torch.sigmoid(D(plane)).reshape(61, 61).T
            at = torch.sigmoid(D(samples)).mean().item()
        ax.imshow(
            belief, extent=(-2.4, 2.4, -2.4, 2.4), origin="lower", cmap="PuOr", vmin=0, vmax=1, interpolation="bilinear"
        )
        ax.plot(*data[:300].numpy().T, ".", color="#555555", markersize=1.5)
        ax.plot(*samples[:300].numpy().T, ".", color="#009E73", markersize=2.5)
        ax.set(title=f"{game}, step {step}", xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), xticks=(), yticks=())
        ax.grid(False)
        return f"Moment {moment} ({game}, step {step}): mean D on the samples: {at:.0%}."

    return Explorer(
        draw_game,
        {"moment": Slider(0, length - 1), "game": Choice(tuple(games))},
        {"moment": length - 1, "game": next(iter(games))},
    )


def latent_walk_explorer(G: PictureGenerator, start: int = 0, end: int = 1) -> Explorer:
    """One picture on the straight line between two random z of a generator: z(s) = (1 - s) z_start + s z_end."""
    from course_utils.plotting import plot_pictures

    def draw_walk(ax, share: float, start: int, end: int) -> str:
        first, last = (torch.randn(1, G.latent, generator=torch.Generator().manual_seed(s)) for s in (start, end))
        device = next(G.parameters()).device
        z = ((1 - share) * first + share * last).to(device)
        with torch.no_grad():
            plot_pictures(G(z), [f"share {share:g}"], ax=ax)
        return f"The picture at the share {share:g} of the way from z of seed {start} to z of seed {end}."

    return Explorer(
        draw_walk,
        {"share": Slider(0, 1, 0.05), "start": Slider(0, 99), "end": Slider(0, 99)},
        {"share": 0.5, "start": start, "end": end},
    )
