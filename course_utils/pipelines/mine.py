"""Drawing with a model of one's own (`recipes.mine`): first a plan for each prompt, then the page that shows it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from course_utils.data import plans
from course_utils.diffusion.guidance import guide
from course_utils.files import new_file
from course_utils.machine.devices import autocast_dtype
from course_utils.models.dit import unpatchify
from course_utils.models.worded import NOTHING, PAD, WordedTransformer
from course_utils.plotting import picture_grid
from course_utils.recipes.mine import SPREAD, as_numbers, load_half_of

SHEET = (
    "a cute corgi puppy sitting on the grass",
    "a red car in the city",
    "two purple cats in the snow",
    "a blue teapot left of a yellow duck on the beach",
    "a house in the forest, watercolour",
    "a green boat above a pink mushroom at night",
    "three white rabbits in a room, pixel art",
    "a tulip next to a ball in the desert, coloured pencil",
)


def falling_times(steps: int, shift: float = 2.0) -> list[float]:
    """Times from 0.999 down to 0, `steps` + 1 of them, closer together where there is much noise if shift > 1.

    t = shift u / (1 + (shift - 1) u), u from 1 to 0. Stable Diffusion 3 (arXiv:2403.03206), equation 23.
    """
    times = [shift * u / (1 + (shift - 1) * u) for u in (1 - n / steps for n in range(steps + 1))]
    return [0.999, *times[1:]]


@torch.no_grad()
def sample(predict: Callable, eps: torch.Tensor, steps: int, clip: float | None = None) -> torch.Tensor:
    """DPM-Solver++ 2M along the straight lines of rectified flow, from x0_hat = predict(x_t, t); returns the last one.

        lambda = log((1 - t) / t),   h = lambda_next - lambda,   D = x0_hat + h / (2 h_before) (x0_hat - x0_hat_before)
        x_next = t_next / t x_t - (1 - t_next) (exp(-h) - 1) D

    As `samplers.dpm_solver`, with signal 1 - t and noise t. arXiv:2211.01095, algorithm 2.
    """
    times, x_t, before, h_before = falling_times(steps), eps, None, math.inf
    for t, later in zip(times, times[1:], strict=False):
        x0_hat = predict(x_t, torch.full((len(x_t),), t))
        if clip is not None:
            x0_hat = x0_hat.clamp(-clip, clip)
        if later == 0:
            break
        h = math.log((1 - later) / later) - math.log((1 - t) / t)
        d = x0_hat if before is None else x0_hat + h / (2 * h_before) * (x0_hat - before)
        x_t = later / t * x_t - (1 - later) * math.expm1(-h) * d
        before, h_before = x0_hat, h
    return x0_hat


def guided(model: WordedTransformer, words: torch.Tensor, scale: float, given: torch.Tensor | None = None) -> Callable:
    """predict(x_t, t) -> x0_hat, guided away from what the model predicts without words and without a plan."""
    nothing = torch.full_like(words, PAD)
    nothing[:, 0] = NOTHING
    both = torch.cat([nothing, words])
    plan = None if given is None else torch.cat([torch.zeros_like(given), given])
    number_format = autocast_dtype("cpu")

    def predict(x_t, t):
        with torch.autocast("cpu", number_format, enabled=number_format != torch.float32):
            null, cond = model(torch.cat([x_t, x_t]), torch.cat([t, t]), both, plan).chunk(2)
        return guide(null, cond, scale)

    return predict


@dataclass(frozen=True)
class Mine:
    """A planner and a painter, the words that both know, and the scale of the plans."""

    planner: WordedTransformer
    painter: WordedTransformer
    words: list[str]
    scale: torch.Tensor

    def plan(self, prompts: list[str], seeds: list[int], steps: int = 16, guidance: float = 1.5) -> torch.Tensor:
        """A plan for each prompt, (prompts, 64, NUMBERS), in the units of `data.plans`."""
        eps = _noise(seeds, plans.NUMBERS, 1)
        return sample(guided(self.planner, as_numbers(prompts, self.words), guidance), eps, steps) * self.scale

    def paint(
        self, prompts: list[str], plan: torch.Tensor, seeds: list[int], steps: int = 24, guidance: float = 1.5
    ) -> torch.Tensor:
        """The pages, (prompts, 3, 64, 64) in [-1, 1], that show these plans."""
        predict = guided(self.painter, as_numbers(prompts, self.words), guidance, plan / self.scale)
        tokens = sample(predict, _noise(seeds, 3 * plans.PATCH**2, 0), steps, clip=1 / SPREAD)
        return unpatchify(tokens * SPREAD, plans.PATCH)

    def draw(self, prompts: list[str], seeds: list[int]) -> torch.Tensor:
        """A page for each prompt, (prompts, 3, 64, 64) in [-1, 1]; the same seed and prompt, the same page."""
        return self.paint(prompts, self.plan(prompts, seeds), seeds)


def load_mine(folder: Path) -> Mine:
    """The model that `recipes.mine.train_half` has left in `folder` so far; both halves must have begun."""
    planner, words, scale = load_half_of(folder, "planner")
    painter, painter_words, painter_scale = load_half_of(folder, "painter")
    if words != painter_words or not torch.equal(scale, painter_scale):
        raise ValueError(f"expected two halves that belong together in {folder}; train both again, from nothing")
    return Mine(planner, painter, words, scale)


def draw_sheet(folder: Path, seed: int = 0) -> Path:
    """Draw the eight prompts of SHEET with the model as it is now, into `folder/sheet.png`."""
    pages = load_mine(folder).draw(list(SHEET), [seed + n for n in range(len(SHEET))])
    with new_file(folder / "sheet.png") as part:
        picture_grid(pages, columns=4, scale=3).save(part, "PNG")
    return folder / "sheet.png"


def _noise(seeds: list[int], numbers: int, stream: int) -> torch.Tensor:
    """Standard normal noise, (seeds, 64, numbers), for each seed and stream its own."""
    dice = [torch.Generator().manual_seed(2 * seed + stream) for seed in seeds]
    return torch.stack([torch.randn(plans.SIDE**2, numbers, generator=one) for one in dice])
