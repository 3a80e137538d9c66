"""Drawing with a model of one's own (`recipes.mine`): first a plan, then the page that shows it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

from course_utils.data.images import to_pil
from course_utils.data.picture_book import plans
from course_utils.diffusion.guidance import guide
from course_utils.files import new_file
from course_utils.machine.devices import autocast_dtype
from course_utils.models.dit import unpatchify
from course_utils.models.worded import LONGEST, NOTHING, PAD, UNKNOWN, WORD, WordedTransformer, as_numbers
from course_utils.pipelines.model_folder import quiet
from course_utils.plotting import picture_grid

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

HALVES = ("planner", "painter")
SPREAD = 0.5  # of the pixels of a page, in [-1, 1]: the painter's are divided by it
GUIDANCE = 2.0
REMEDY = "train it with `python3 course.py train mine`"  # `systems` has it too, which imports no torch


def falling_times(steps: int, shift: float) -> list[float]:
    """Times from 0.999 down to 0, `steps` + 1 of them, closer together where there is much noise if shift > 1.

    t = shift u / (1 + (shift - 1) u), u from 1 to 0. Stable Diffusion 3 (arXiv:2403.03206), equation 23.
    """
    times = [shift * u / (1 + (shift - 1) * u) for u in (1 - n / steps for n in range(steps + 1))]
    return [0.999, *times[1:]]


@torch.no_grad()
def sample(
    predict: Callable, eps: torch.Tensor, steps: int, shift: float = 2.0, clip: float | None = None
) -> torch.Tensor:
    """DPM-Solver++ 2M along the straight lines of rectified flow, from x0_hat = predict(x_t, t); returns the last one.

        lambda = log((1 - t) / t),   h = lambda_next - lambda,   D = x0_hat + h / (2 h_before) (x0_hat - x0_hat_before)
        x_next = t_next / t x_t - (1 - t_next) (exp(-h) - 1) D

    As `samplers.dpm_solver`, with signal 1 - t and noise t, at `falling_times`. arXiv:2211.01095, algorithm 2.
    """
    times, x_t, before, h_before = falling_times(steps, shift), eps, None, math.inf
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
    """predict(x_t, t) -> x0_hat, guided away from what the model predicts without words and map."""
    nothing = torch.full_like(words, PAD)
    nothing[:, 0] = NOTHING
    both = torch.cat([nothing, words])
    told = None if given is None else torch.cat([torch.zeros_like(given), given])
    number_format = autocast_dtype("cpu")

    def predict(x_t, t):
        with torch.autocast("cpu", number_format, enabled=number_format != torch.float32):
            null, cond = model(torch.cat([x_t, x_t]), torch.cat([t, t]), both, told).chunk(2)
        return guide(null, cond, scale)

    return predict


class PlannedPipeline(DiffusionPipeline):
    """Words -> plan -> page: a planner and a painter, both `WordedTransformer`s, in one folder.

        PlannedPipeline.from_pretrained("runs/mine")("a red car in the city").images[0]

    Raises ValueError if the two do not belong together.
    """

    def __init__(self, planner: WordedTransformer, painter: WordedTransformer):
        super().__init__()
        if list(planner.config.words) != list(painter.config.words):
            raise ValueError(
                "expected two halves that were trained together, got others; train both again, from nothing"
            )
        self.register_modules(planner=planner, painter=painter)
        self.words = list(planner.config.words)

    def plan(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int = 16, guidance: float = GUIDANCE
    ) -> torch.Tensor:
        """A plan for each prompt, (prompts, ROWS, NUMBERS), see `data.picture_book.plans`."""
        predict = guided(self.planner, as_numbers(prompts, self.words), guidance)
        return sample(predict, _noise(seeds, plans.ROWS, plans.NUMBERS, 1), steps) * self.planner.scale

    def paint(
        self,
        prompts: Sequence[str],
        plan: torch.Tensor,
        seeds: Sequence[int],
        steps: int = 24,
        guidance: float = GUIDANCE,
    ) -> torch.Tensor:
        """The pages, (prompts, 3, 64, 64) in [-1, 1], that show these plans."""
        maps = torch.stack([plans.map_of(one) for one in plan]) / self.painter.scale
        predict = guided(self.painter, as_numbers(prompts, self.words), guidance, maps)
        tokens = sample(predict, _noise(seeds, plans.SIDE**2, 3 * plans.PATCH**2, 0), steps, clip=1 / SPREAD)
        return unpatchify(tokens * SPREAD, plans.PATCH).clamp(-1, 1)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], guidance: float = GUIDANCE) -> torch.Tensor:
        """A page for each prompt, (prompts, 3, 64, 64) in [-1, 1]; the same seed and prompt, the same page."""
        return self.paint(prompts, self.plan(prompts, seeds, guidance=guidance), seeds, guidance=guidance)

    def __call__(self, prompt: str | Sequence[str], seed: int = 0, guidance_scale: float = GUIDANCE):
        """Draw a page for each prompt, as diffusers' pipelines answer: `.images`, a list of PIL pictures.

        Picture i has the seed `seed + i`. Raises ValueError if there is no prompt.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise ValueError("expected a prompt or several, got none; write a text, or a list of texts")
        pages = self.draw(prompts, [seed + n for n in range(len(prompts))], guidance_scale)
        return ImagePipelineOutput(images=to_pil(pages))


class WordList:
    """The words of a model, in the way in which `text.prompts.inspect_prompt` asks a tokenizer for them."""

    model_max_length = LONGEST + 2

    def __init__(self, words: list[str]):
        self.init_kwargs = {"words": words[UNKNOWN + 1 :]}

    def __call__(self, text: str, **options) -> dict[str, list[tuple[int, int]]]:
        """Where each word begins and ends in the text, between two that stand for beginning and end."""
        spans = [match.span() for match in WORD.finditer(text)]
        return {"offset_mapping": [(0, 0), *spans, (0, 0)]}


def load_mine(folder: Path) -> PlannedPipeline:
    """The model that `recipes.mine.train_mine` has left in `folder` so far.

    Raises ValueError, in one sentence, if one is missing, damaged, or does not belong to the other.
    """
    parts = {}
    for half in HALVES:
        if not (folder / half / "config.json").is_file():
            raise ValueError(f"There is no model of your own in {folder}, {half}/config.json is missing: {REMEDY}.")
    try:
        with quiet():
            for half in HALVES:
                parts[half] = WordedTransformer.from_pretrained(folder / half, local_files_only=True).eval()
        return PlannedPipeline(**parts)
    except Exception as error:  # a damaged file shows as any class
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(" .")
        raise ValueError(f"The model in {folder} cannot be used ({reason}): {REMEDY}.") from error


def draw_sheet(folder: Path, seed: int = 0) -> Path:
    """Draw the eight prompts of SHEET with the model as it is now, into `folder/sheet.png`, and complete the folder.

    Then it opens by `PlannedPipeline.from_pretrained`.
    """
    pipe = load_mine(folder)
    pipe.save_config(folder)  # model_index.json
    pages = pipe.draw(SHEET, [seed + n for n in range(len(SHEET))])
    with new_file(folder / "sheet.png") as part:
        picture_grid(pages, columns=4, scale=3).save(part, "PNG")
    return folder / "sheet.png"


def _noise(seeds: Sequence[int], tokens: int, numbers: int, stream: int) -> torch.Tensor:
    """Standard normal noise, (seeds, tokens, numbers), for each seed and stream its own."""
    dice = [torch.Generator().manual_seed(2 * seed + stream) for seed in seeds]
    return torch.stack([torch.randn(tokens, numbers, generator=one) for one in dice])
