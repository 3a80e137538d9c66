"""The explorer of chapter 07: points on their way from noise to data."""

from collections.abc import Callable

import torch

from course_utils.diffusion import samplers
from course_utils.plotting import plot_points
from course_utils.widgets.explorer import Choice, Explorer, Slider

SAMPLERS: dict[str, Callable] = {
    "DDPM": samplers.ddpm,
    "DDIM": samplers.ddim,
    "DPM-Solver++ 2M": samplers.dpm_solver,
    "Heun": samplers.heun,
}


def trajectory_explorer(model: Callable, data: torch.Tensor, alpha_bar: torch.Tensor, number: int = 400) -> Explorer:
    """Points flowing from noise to data: which sampler, how many steps, and how far along the way to look.

    model(x_t, t, cond) -> eps, for points. data: (n, 2), shown pale behind. number: how many points flow.
    """
    x_T = torch.randn(number, 2, generator=torch.Generator().manual_seed(0)).to(data)

    def draw_points(ax, sampler: str, steps: int, way: int) -> str:
        options = {"generator": torch.Generator().manual_seed(1)} if sampler == "DDPM" else {}
        times = samplers.trailing_times(len(alpha_bar), steps)
        path = list(SAMPLERS[sampler](model, x_T, alpha_bar, times, **options))
        done = round(way / 100 * steps)
        clouds = torch.stack([x_T, *(step.x_t for step in path[:done])]).cpu()  # (done + 1, number, 2)
        ax.plot(*clouds[:, :12].unbind(2), "-", color="#D55E00", linewidth=0.8)
        ax.scatter(*data[:1000].cpu().T, s=3, color="#C8C8C8", linewidths=0, zorder=0)
        time = path[done - 1].t if done else times[0]
        where = "clean" if time == -1 else f"t = {time}"
        plot_points(clouds[-1], title=f"{sampler}\n{done} of {steps} steps, {where}", ax=ax)
        ax.set(xlabel="", ylabel="")
        asked = 2 * steps - 1 if sampler == "Heun" else steps
        return f"{sampler} with {steps} steps ({asked} evaluations), {way} percent of the way: {where}."

    return Explorer(
        draw_points,
        {"sampler": Choice(tuple(SAMPLERS)), "steps": Slider(1, 50), "way": Slider(0, 100, 5)},
        {"sampler": "DDIM", "steps": 10, "way": 100},
    )
