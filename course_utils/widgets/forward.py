"""The explorers of chapter 05: a picture that turns to noise, and the schedules by which it does."""

from collections.abc import Callable

import torch

from course_utils.diffusion.schedules import (
    add_noise,
    alpha_bar_from_beta,
    cosine_beta,
    linear_beta,
    scaled_linear_beta,
    snr,
)
from course_utils.plotting import plot_pictures
from course_utils.shapes import require_pictures
from course_utils.widgets.explorer import Choice, Explorer, Slider

SCHEDULES: dict[str, Callable] = {"linear": linear_beta, "scaled linear": scaled_linear_beta, "cosine": cosine_beta}


def noise_explorer(x0: torch.Tensor, seed: int = 0) -> Explorer:
    """Noise on one picture (1, channels, height, width): the noisy picture, its histogram, and the SNR at time t.

    The noise is the same at every t, so that the slider plays a film.
    """
    require_pictures(x0)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    tables = {name: alpha_bar_from_beta(schedule()) for name, schedule in SCHEDULES.items()}
    normal_x = torch.linspace(-4, 4, 161)
    normal = torch.exp(-(normal_x**2) / 2) / (2 * torch.pi) ** 0.5

    def draw_noise(axes, t: int, schedule: str) -> str:
        alpha_bar = tables[schedule]
        x_t = add_noise(x0, eps, torch.tensor([t]), alpha_bar)
        plot_pictures(x_t, [f"x_t, t = {t}"], ax=axes[0])
        axes[1].hist(x_t.flatten().numpy(), bins=80, range=(-4, 4), density=True, color="#56B4E9", label="$x_t$")
        axes[1].plot(normal_x, normal, "--", color="black", label="$N(0, 1)$")
        axes[1].set(xlabel="value of a pixel", ylabel="density", ylim=(0, 1.3))
        axes[1].legend(loc="upper right", handlelength=1.2)
        axes[2].plot(snr(alpha_bar), color="#0072B2")
        axes[2].plot(t, snr(alpha_bar)[t], "o", color="#D55E00", markersize=9)
        axes[2].axhline(1, color="#777777", linewidth=1, linestyle=":")
        axes[2].set(xlabel="t", ylabel="SNR (log scale)", yscale="log", ylim=(1e-5, 1e5))
        return (
            f"At t = {t} of the {schedule} schedule the picture keeps the factor "
            f"{alpha_bar[t].sqrt():.2f}, the noise has {(1 - alpha_bar[t]).sqrt():.2f}, the SNR is "
            f"{snr(alpha_bar)[t]:.2g}."
        )

    return Explorer(
        draw_noise,
        {"t": Slider(0, 999), "schedule": Choice(tuple(SCHEDULES))},
        {"t": 250, "schedule": "linear"},
        panels=3,
    )


def schedule_explorer() -> Explorer:
    """A schedule taken apart: its betas, the factors of picture and noise, and the SNR, for any T and last beta."""

    def draw_schedule(axes, schedule: str, T: int, last_beta: float) -> str:
        beta = cosine_beta(T) if schedule == "cosine" else SCHEDULES[schedule](T, end=last_beta)
        alpha_bar = alpha_bar_from_beta(beta)
        ratio = snr(alpha_bar)
        axes[0].plot(beta, color="#0072B2")
        axes[0].set(xlabel="t", ylabel=r"$\beta_t$ (log scale)", yscale="log", ylim=(5e-5, 1.5))
        axes[1].plot(alpha_bar.sqrt(), "-", color="#0072B2", label=r"image, $\sqrt{\bar\alpha_t}$")
        axes[1].plot((1 - alpha_bar).sqrt(), "--", color="#D55E00", label=r"noise, $\sqrt{1-\bar\alpha_t}$")
        axes[1].set(xlabel="t", ylabel="factor", ylim=(-0.03, 1.8), yticks=(0, 0.5, 1))
        axes[1].legend(loc="upper center", handlelength=1.5)
        axes[2].plot(ratio, color="#0072B2")
        axes[2].axhline(1, color="#777777", linewidth=1, linestyle=":")
        axes[2].set(xlabel="t", ylabel="SNR (log scale)", yscale="log", ylim=(1e-9, 1e5))
        even = int((ratio > 1).sum())
        met = f"picture and noise are even at t = {even}" if even < T else "the noise never outweighs the picture"
        fixed = " (its betas follow from T alone)" if schedule == "cosine" else f" up to {last_beta:g}"
        return (
            f"The {schedule} schedule{fixed} with T = {T}: {met}; at the end the picture keeps the factor "
            f"{alpha_bar[-1].sqrt():.2g}."
        )

    return Explorer(
        draw_schedule,
        {"schedule": Choice(tuple(SCHEDULES)), "T": Slider(10, 1000, 10), "last_beta": Slider(0.001, 0.05, 0.001)},
        {"schedule": "linear", "T": 1000, "last_beta": 0.02},
        panels=3,
    )
