"""The student that draws in four, two or one steps, distilled from the picture-book model with its guidance."""

from collections.abc import Callable
from pathlib import Path

import torch
from tqdm.auto import tqdm

from course_utils.diffusion import samplers
from course_utils.diffusion.few_steps import landing_velocity
from course_utils.diffusion.objectives import as_eps
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.machine.devices import budget, placed
from course_utils.pipelines.editing import hidden_states
from course_utils.pipelines.few_steps import load_student, new_student
from course_utils.recipes.kept import fingerprint, kept
from course_utils.recipes.task import Task, plain_attention, save_half
from course_utils.recipes.unet import PromptedUNet, page_prompts, picture_book_of
from course_utils.training import Samples

GUIDANCE, TEACHER_STEPS = 3.0, 12
PATHS, PART = 4800, 800  # how many of the teacher's paths, and how many are kept in one file
LEVELS = 4  # the student's noise levels, those of four steps; the clean picture is the fifth
# (from, to, steps): which jumps between the levels belong to drawing in so many steps
JUMPS = [(0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 4, 4), (0, 2, 2), (2, 4, 2), (0, 4, 1)]
OFTEN = [1, 1, 1, 1, 2, 2, 4]  # how often each is trained: the long ones are the hardest


def levels(alpha_bar: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (times, alpha_bar) of the student's levels, noise first; the last, clean one is at time 0 with 1: (5,)."""
    times = torch.tensor(samplers.trailing_times(len(alpha_bar), LEVELS))
    return torch.cat([times, torch.zeros(1, dtype=torch.long)]), torch.cat([alpha_bar[times], torch.ones(1)])


@torch.no_grad()
def teacher_paths(
    pipe, prompts: list[str], x_T: torch.Tensor, guidance: float = GUIDANCE, steps: int = TEACHER_STEPS
) -> torch.Tensor:
    """Return where the guided teacher is at each of the student's levels: (n, 5, channels, h, w), on the CPU.

    x_T: noise (n, channels, h, w). DPM-Solver++ in `steps` steps, of which every (steps / 4)-th is kept.
    """
    alpha_bar = alpha_bar_from_beta(scaled_linear_beta())
    kept_at = {*levels(alpha_bar)[0][:-1].tolist(), -1}
    cond, null = (hidden_states(pipe, texts, len(prompts)) for texts in (prompts, ""))
    model = samplers.guided(as_eps(PromptedUNet(pipe.unet), "v", alpha_bar.to(pipe.device)), null, guidance)
    x_T = x_T.to(pipe.device)
    times = samplers.trailing_times(len(alpha_bar), steps)
    walk = samplers.dpm_solver(model, x_T, alpha_bar.to(pipe.device), times, cond)
    return torch.stack([x_T, *(step.x_t for step in walk if step.t in kept_at)], dim=1).cpu()


def jump_loss(
    student: Callable, paths: torch.Tensor, cond: torch.Tensor, which: torch.Tensor, alpha_bar: torch.Tensor
) -> torch.Tensor:
    """Return the student's loss on one jump of each path: a number with gradients, shape ().

        L = mean of (v_hat(x_i, t_i, c, steps) - v)^2,   v = `landing_velocity`(x_i, x_j, alpha_bar_i, alpha_bar_j)

    paths: (batch, 5, channels, h, w), see `teacher_paths`. which: (batch,), numbers into `JUMPS`. alpha_bar: (T,), on
    the CPU. Progressive distillation (arXiv:2202.00512) halves the steps again and again; here all jumps are learned at
    once, each from the teacher.
    """
    times, level = (values.to(paths.device) for values in levels(alpha_bar))
    start, end, steps = torch.tensor(JUMPS, device=paths.device)[which].unbind(1)
    row = torch.arange(len(paths), device=paths.device)
    x_t, x_s = paths[row, start], paths[row, end]
    v = landing_velocity(x_t, x_s, level[start], level[end])
    return (student(x_t, times[start], cond, steps) - v).square().mean()


def build_few_steps(folder: Path, device: torch.device) -> Task:
    """L = |v - v_hat|^2 over all jumps of four, two and one steps; trained are a LoRA and what tells the steps.

    The teacher is the picture-book model in `folder`, or the shipped one where `folder` has none.
    """
    pipe = picture_book_of(folder, device)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).eval()
    texts, paths = training_paths(folder, pipe, budget(smoke=32, laptop=PATHS, gpu=PATHS))
    model = placed(new_student(pipe.unet), device)
    alpha_bar = alpha_bar_from_beta(scaled_linear_beta())
    draw_from = torch.tensor([n for n, often in enumerate(OFTEN) for _ in range(often)])

    def loss(model, samples: Samples):
        number = samples.integers(len(paths))
        cond = hidden_states(pipe, [texts[n] for n in number], len(number))
        which = draw_from[samples.integers(len(draw_from), stream=1)].to(device)
        with plain_attention(device):
            return jump_loss(model, paths[number].to(device), cond, which, alpha_bar)

    def begin():
        model.load_state_dict(load_student(pipe.unet, folder / "few_steps").state_dict())

    def export(model):
        save_half(model, folder / "few_steps")

    return Task(model, loss, export, begin)


def training_paths(folder: Path, pipe, count: int) -> tuple[list[str], torch.Tensor]:
    """Return captions of training pages, and the teacher's path to an image of each: (count, 5, 8, 16, 16).

    The paths are kept in `folder/few_steps` for the next start, in parts, so that an interruption costs one of them.
    """
    texts = page_prompts(count, seed=1)
    weights = fingerprint((*pipe.unet.parameters(), *pipe.text_encoder.parameters()))
    shape = (LEVELS + 1, pipe.unet.config.in_channels, *[pipe.unet.config.sample_size] * 2)
    starts = range(0, count, PART)
    parts = []
    for start in tqdm(starts, "drawing the teacher's paths", disable=len(starts) == 1):
        some = texts[start : start + PART]

        def make(some=some, start=start):
            return torch.cat([
                teacher_paths(pipe, some[n : n + 32], _noise(start + n, len(some[n : n + 32]), shape[1:]))
                for n in range(0, len(some), 32)
            ])  # fmt: skip

        path = folder / "few_steps" / f"paths-{count}-{start}-{weights}.safetensors"
        parts.append(kept(path, "paths", (len(some), *shape), make))
    return texts, torch.cat(parts)


def _noise(number: int, count: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(10**6 + number))
