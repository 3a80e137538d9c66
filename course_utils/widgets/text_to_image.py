"""The explorers of chapter 10: guidance where its effect is exact, and two prompts that share one drawing."""

from collections.abc import Callable

import torch

from course_utils.diffusion import samplers, steps
from course_utils.diffusion.guidance import guide
from course_utils.diffusion.objectives import mixture_eps
from course_utils.plotting import plot_pictures, plot_points
from course_utils.widgets.explorer import Choice, Explorer, Slider


def guidance_explorer(centres: torch.Tensor, alpha_bar: torch.Tensor, number: int = 400) -> Explorer:
    """Round clouds of points, one of them asked for: where guided drawing ends, beside what the data are.

    centres: (clouds, 2); the first is the one asked for. Both predictions are exact, so all that is seen is guidance.
    """
    x_T = torch.randn(number, 2, generator=torch.Generator().manual_seed(0))
    offsets = torch.randn(len(centres), 150, 2, generator=torch.Generator().manual_seed(1))
    times = samplers.trailing_times(len(alpha_bar), min(40, len(alpha_bar)))

    def draw_guided(ax, w: float, spread: float) -> str:
        def model(x_t, t, cond=None):
            eps_null, eps_cond = (mixture_eps(x_t, t, alpha_bar, c, spread) for c in (centres, centres[:1]))
            return guide(eps_null, eps_cond, w)

        drawn = samplers.finish(samplers.ddim(model, x_T, alpha_bar, times))
        cloud = centres[:, None] + spread * offsets  # (clouds, 150, 2)
        ax.scatter(*cloud[1:].flatten(0, 1).T, s=4, color="#C8C8C8", linewidths=0)
        ax.scatter(*cloud[0].T, s=4, color="#E69F00", linewidths=0)
        plot_points(drawn, title=f"w = {w:g}, spread {spread:g}", reach=3.4, ax=ax).set(xlabel="", ylabel="")
        ax.plot(*centres[0], "+", color="black", markersize=11, markeredgewidth=2)
        way = (drawn - centres[0]).mean(0).norm()
        return (
            f"At w = {w:g} the middle of what is drawn lies {way:.2f} from that of the cloud asked for, and its "
            f"spread is {drawn.std(0).mean():.2f} (the cloud's: {spread:g})."
        )

    return Explorer(
        draw_guided, {"w": Slider(0.0, 10.0, 0.5), "spread": Slider(0.2, 0.8, 0.05)}, {"w": 1.0, "spread": 0.45}
    )


def two_prompts_explorer(
    encode: Callable,
    model: Callable,
    decode: Callable,
    shape: tuple[int, ...],
    alpha_bar: torch.Tensor,
    prompts: list[str],
    number: int = 12,
    device: torch.device | str = "cpu",
) -> Explorer:
    """One drawing, two prompts: the first rules the first steps, the second the rest.

    encode, model, decode: as in `samplers.text_to_image`. shape: of the latents of one picture. number: steps in all.
    """
    times = samplers.trailing_times(len(alpha_bar), number)
    null = encode([""])

    @torch.no_grad()
    def draw_both(ax, first: str, then: str, switch: int, guidance: float, seed: int) -> str:
        x_t = torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed)).to(device)
        conds = encode([first, then])
        for index, (t, earlier) in enumerate(zip(times, [*times[1:], -1], strict=True)):
            cond = conds[:1] if index < switch else conds[1:]
            eps = guide(steps.ask(model, x_t, t, null), steps.ask(model, x_t, t, cond), guidance)
            x_t = steps.ddim_step(x_t, eps, t, earlier, alpha_bar)
        plot_pictures(decode(x_t).cpu(), [f"switch after {switch} of {number}"], ax=ax)
        return f"“{first}” for {switch} steps, then “{then}” for {number - switch}, seed {seed}, w = {guidance:g}."

    words = Choice(tuple(prompts))
    return Explorer(
        draw_both,
        {
            "first": words,
            "then": words,
            "switch": Slider(0, number),
            "guidance": Slider(1.0, 12.0, 0.5),
            "seed": Slider(0, 99),
        },
        {"first": prompts[0], "then": prompts[-1], "switch": number // 3, "guidance": 4.0, "seed": 0},
    )
