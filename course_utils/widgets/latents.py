"""The explorers of chapter 09: one channel of a latent turned up and down, and a scale that was forgotten."""

from collections.abc import Callable

import torch

from course_utils.diffusion.latents import time_of_equal_snr
from course_utils.diffusion.schedules import add_noise, snr, variance_at
from course_utils.plotting import plot_pictures
from course_utils.widgets.explorer import Explorer, Slider


def latent_explorer(decode: Callable, latents: torch.Tensor) -> Explorer:
    """A page's latent channel by channel: its map, and the picture when the channel is multiplied by `gain`.

    decode(latents) -> (batch, 3, height, width). latents: (pages, channels, h, w), scaled.
    """

    def draw_channel(axes, page: int, channel: int, gain: float) -> str:
        z = latents[page : page + 1]
        changed = z.clone()
        changed[:, channel] *= gain
        with torch.no_grad():
            before, after = decode(torch.cat([z, changed])).clamp(-1, 1)
        axes[0].imshow(changed[0, channel].numpy(), cmap="coolwarm", vmin=-3, vmax=3)  # blue -3, red 3
        axes[0].set_title(f"channel {channel}, times {gain:g}", fontsize=9)
        axes[0].axis("off")
        plot_pictures(before[None], ["as it was"], ax=axes[1])
        plot_pictures(after[None], ["decoded"], ax=axes[2])
        return (
            f"Page {page}, channel {channel} times {gain:g}: pixels move by {(after - before).abs().mean():.2f} on "
            "average."
        )

    controls = {
        "page": Slider(0, len(latents) - 1),
        "channel": Slider(0, latents.shape[1] - 1),
        "gain": Slider(-2.0, 3.0, 0.25),
    }
    return Explorer(draw_channel, controls, {"page": 0, "channel": 0, "gain": 0.0}, 3)


def scale_explorer(decode: Callable, latents: torch.Tensor, alpha_bar: torch.Tensor) -> Explorer:
    """Latents of another spread under the same noise: where they are on the curve of the SNR, and what is left to see.

    decode(latents) -> (1, 3, height, width) of latents of spread 1, (1, channels, h, w), of one page.
    """
    eps = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    curve = snr(alpha_bar).log10()

    def draw_scale(axes, t: int, std: float) -> str:
        at = torch.tensor([t])
        x_t = add_noise(std * latents, eps, at, alpha_bar)
        same = time_of_equal_snr(at, std, alpha_bar).item()
        found = curve[t] + 2 * torch.log10(torch.tensor(std))
        axes[0].plot(curve, color="#9A9A9A", linestyle="-", label="spread 1")
        axes[0].plot([t, same], [found, found], color="#D55E00", linestyle="--", marker="o")
        axes[0].set(xlabel="t", ylabel="$\\log_{10}$ SNR", ylim=(-3.5, 5.5))
        variance = variance_at(alpha_bar[t], std**2)
        with torch.no_grad():
            picture = decode(x_t / variance.sqrt()).clamp(-1, 1)  # of spread 1, as the decoder knows them
        plot_pictures(picture, [f"t = {t}, spread {std:g}"], ax=axes[1])
        return f"A spread of {std:g} at t = {t} is as noisy as a spread of 1 at t = {same}."

    return Explorer(
        draw_scale,
        {"t": Slider(0, len(alpha_bar) - 1), "std": Slider(0.2, 6.0, 0.1)},
        {"t": len(alpha_bar) // 2, "std": 1.0},
        2,
    )
