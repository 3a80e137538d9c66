"""The explorers of chapter 02: walks among the latents of an autoencoder, and the bound on a world of one number."""

import math
from collections.abc import Callable

import torch

from course_utils.models.variational import spherical_path
from course_utils.plotting import plot_pictures
from course_utils.widgets.explorer import Explorer, Slider


def latent_map_explorer(decode: Callable, codes: torch.Tensor, labels: torch.Tensor) -> Explorer:
    """A map of two-dimensional codes with a cross on it, and the picture that is decoded at the cross.

    decode(z) -> (batch, 1 or 3, height, width), z: (batch, 2). codes: (n, 2), of pictures; labels: (n,), 0 ... 9.
    """
    if codes.ndim != 2 or codes.shape[1] != 2:
        raise ValueError(f"Expected codes of shape (n, 2), which a map can show, got {tuple(codes.shape)}.")

    def draw_map(axes, z1: float, z2: float) -> str:
        z = torch.tensor([[z1, z2]])
        axes[0].scatter(*codes.T, c=labels, cmap="tab10", s=4, vmin=-0.5, vmax=9.5)
        axes[0].plot(z1, z2, "+", color="black", markersize=16, markeredgewidth=2)
        axes[0].set(xlabel="$z_1$", ylabel="$z_2$", xlim=(-5.5, 5.5), ylim=(-5.5, 5.5), aspect="equal")
        with torch.no_grad():
            picture = decode(z)
        plot_pictures(picture, [f"z = ({z1:.1f}, {z2:.1f})"], ax=axes[1])
        nearest = torch.cdist(z, codes)[0].topk(min(9, len(codes)), largest=False).indices
        found = labels[nearest]
        most = int(found.mode().values)
        return (
            f"At z = ({z1:g}, {z2:g}): of the {len(found)} codes nearest to the cross "
            f"{int((found == most).sum())} belong to the digit {most}."
        )

    return Explorer(draw_map, {"z1": Slider(-5.0, 5.0, 0.1), "z2": Slider(-5.0, 5.0, 0.1)}, {"z1": 0.0, "z2": 0.0}, 2)


def interpolation_explorer(decode: Callable, codes: torch.Tensor) -> Explorer:
    """From one code to another: the picture at the share s of the way, on the arc and on the straight line.

    decode(z) -> (batch, 1 or 3, height, width). codes: (n, d), d >= 2.
    """

    def draw_walk(ax, start: int, end: int, s: float) -> str:
        a, b = codes[start], codes[end]
        straight = torch.lerp(a, b, s)
        in_line = abs(torch.cosine_similarity(a, b, 0).item()) > 1 - 1e-5
        arc = straight if in_line else spherical_path(a, b, 101)[round(100 * s)]
        with torch.no_grad():
            pictures = decode(torch.stack([a, b, arc, straight]))
        plot_pictures(pictures, ["start", "end", f"arc, s = {s:.2f}", f"line, s = {s:.2f}"], columns=2, ax=ax)
        return (
            f"At s = {s:.2f} the latent on the arc is {arc.norm():.2f} long, on the line {straight.norm():.2f} "
            f"(typical of the prior: {math.sqrt(codes.shape[1]):.2f})."
        )

    return Explorer(
        draw_walk,
        {"start": Slider(0, len(codes) - 1), "end": Slider(0, len(codes) - 1), "s": Slider(0.0, 1.0, 0.05)},
        {"start": 0, "end": min(1, len(codes) - 1), "s": 0.5},
    )


def bound_explorer() -> Explorer:
    """The bound on log p(x) for z ~ N(0, 1), x = tanh(3 z) + 0.25 eps, with q(z) = N(m, s^2) of your choice."""
    z = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    step = z[1] - z[0]

    def normal(value, mean, std):
        return torch.exp(-(((value - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))

    def draw_bound(axes, x: float, m: float, s: float) -> str:
        joint = normal(z, 0, 1) * normal(x, torch.tanh(3 * z), 0.25)
        evidence = joint.sum() * step
        q = normal(z, m, s)
        elbo = (torch.xlogy(q, joint) - torch.xlogy(q, q)).sum() * step
        axes[0].plot(z, joint / evidence, label="posterior $p(z|x)$")
        axes[0].plot(z, q, label="yours, $q(z)$")
        axes[0].set(xlabel="z", ylabel="density", xlim=(-3.5, 3.5), ylim=(0, 1.6 * max(q.max(), 1.0)))
        axes[0].legend(fontsize=8, loc="upper left")
        axes[1].plot([0, 1], [evidence.log().item()] * 2, color="black", linestyle="-")
        axes[1].bar(0.5, max(elbo.item(), -15) + 15, bottom=-15, width=0.5, color="#56B4E9")
        axes[1].set(ylim=(-15, 1), xlim=(0, 1), xticks=[], ylabel="nats", title="line: log p(x), bar: ELBO")
        return (
            f"For x = {x:g}, log p(x) = {evidence.log():.2f} and your ELBO is {elbo:.2f}, "
            f"{evidence.log() - elbo:.2f} nats below."
        )

    controls = {"x": Slider(-1.5, 1.5, 0.1), "m": Slider(-2.0, 2.0, 0.1), "s": Slider(0.1, 1.5, 0.1)}
    return Explorer(draw_bound, controls, {"x": 0.9, "m": 0.0, "s": 1.0}, 2)
