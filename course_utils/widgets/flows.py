"""The explorer of chapter 14: one time of rectified flow, and what it leaves of a page at two sizes."""

import torch

from course_utils.data import picture_book as book
from course_utils.diffusion.flow import interpolate, shift_times
from course_utils.plotting import picture_grid
from course_utils.widgets.explorer import Explorer, Slider

SIDES = (32, 64)


def shift_explorer(scene: book.Scene) -> Explorer:
    """A page with 32 x 32 pixels at t, and with 64 x 64 at the shifted t; the large one also averaged over 2 x 2."""
    small, large = (book.pictures([scene], side)[0] for side in SIDES)
    eps = [torch.randn(3, side, side, generator=torch.Generator().manual_seed(side)) for side in SIDES]

    def draw(axes, t: float, shift: float) -> str:
        times = torch.tensor([t]), shift_times(torch.tensor([t]), shift)
        seen = [interpolate(x0[None], noise[None], s) for x0, noise, s in zip((small, large), eps, times, strict=True)]
        seen.append(torch.nn.functional.avg_pool2d(seen[1], 2))
        titles = (f"32 pixels, t = {t:.2f}", f"64 pixels, t = {times[1].item():.2f}", "its 2 x 2 means")
        for ax, x, title in zip(axes, seen, titles, strict=True):
            ax.imshow(picture_grid(x.clamp(-1, 1), padding=0))
            ax.set_title(title, fontsize=9)
            ax.axis("off")
        ratios = [float(s / (1 - s)) for s in times]
        return (
            f"At t = {t:g} there is {ratios[0]:.2f} times as much noise as signal in the small page; with shift "
            f"{shift:g}, {ratios[1]:.2f} times in the large one, and {ratios[1] / 2:.2f} times in its means of four."
        )

    return Explorer(draw, {"t": Slider(0.1, 0.9, 0.05), "shift": Slider(1.0, 4.0, 0.5)}, {"t": 0.5, "shift": 1.0}, 3)
