"""The explorer of chapter 06: the clean picture that a network predicts from a noisy one."""

from collections.abc import Callable

import torch

from course_utils.diffusion.objectives import best_x0, posterior_weights, x0_from_eps
from course_utils.diffusion.schedules import add_noise
from course_utils.plotting import plot_pictures
from course_utils.widgets.explorer import Explorer, Slider


def ink_blot_explorer(model: Callable, pictures: torch.Tensor, alpha_bar: torch.Tensor) -> Explorer:
    """A picture, the same in noise, and two predictions of it: the network's and the average of all candidates.

    model(x_t, t) -> eps_hat. pictures: the training set, (n, channels, height, width), on the device of alpha_bar.
    """

    def draw_guesses(ax, t: int, picture: int, seed: int) -> str:
        x0, times = pictures[picture : picture + 1], torch.tensor([t], device=pictures.device)
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)).to(x0)
        x_t = add_noise(x0, eps, times, alpha_bar)
        with torch.no_grad():
            guess = x0_from_eps(x_t, model(x_t, times), times, alpha_bar)
        likely = posterior_weights(x_t, times, alpha_bar, pictures)[0].max().item()
        average = best_x0(x_t, times, alpha_bar, pictures)
        titles = ["x_0", f"t = {t}", "network", "average"]
        plot_pictures(torch.cat([x0, x_t, guess, average]), titles, columns=2, ax=ax)
        return f"At t = {t} the most likely single picture has {likely:.0%} of the weight in the average."

    return Explorer(
        draw_guesses,
        {"t": Slider(0, len(alpha_bar) - 1), "picture": Slider(0, len(pictures) - 1), "seed": Slider(0, 99)},
        {"t": len(alpha_bar) * 3 // 5, "picture": 0, "seed": 0},
    )
