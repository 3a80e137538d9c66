"""Drawing in four, two or one evaluations: a student of the picture-book model, in which guidance is distilled, too.

A step is DDIM's, from noise level to noise level, with one evaluation. Training: `recipes/few_steps.py`.
"""

from pathlib import Path

import torch

from course_utils.diffusion import samplers
from course_utils.diffusion.objectives import as_eps
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.models.few_steps import STEPS, FewStepsUNet, with_condition
from course_utils.models.lora import EVERYWHERE, add_lora
from course_utils.pipelines.editing import decode_latents, hidden_states
from course_utils.pipelines.model_folder import give_trained, read_trained

FILE = "model.safetensors"
RANK = 16


def adapted(unet, told: int):
    """Return a copy of the U-Net for a student: told `told` numbers as `timestep_cond`, with a LoRA in all blocks.

    It draws what the U-Net draws until it is trained; trained are the LoRA and the projection of what it is told.
    """
    copy = with_condition(unet, told)
    add_lora(copy, RANK, targets=EVERYWHERE, generator=torch.Generator().manual_seed(0))
    copy.time_embedding.cond_proj.requires_grad_(True)
    return copy.to(unet.device)


def new_student(unet) -> FewStepsUNet:
    """Return a student around a copy of its teacher, the U-Net, that has learned nothing yet."""
    return FewStepsUNet(adapted(unet, len(STEPS)))


def load_student(unet, folder: Path | str) -> FewStepsUNet:
    """Return the trained student around a copy of the U-Net that was its teacher; it is not to be trained.

    Raises ValueError, in one sentence, if the file is missing, cannot be read, or belongs to another U-Net.
    """
    path, what = Path(folder) / FILE, "few-step student"
    saved = read_trained(path, what)
    return give_trained(new_student(unet), saved, path, what)


@torch.no_grad()
def draw_fast(pipe, student: FewStepsUNet, prompts: list[str], x_T: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Return an image for each prompt from noise x_T (n, channels, h, w): (n, 3, height, width) in [-1, 1].

    `steps` evaluations of the student in all, by `samplers.ddim`; there is no guidance left to choose.
    Raises ValueError unless steps is 4, 2 or 1.
    """
    if steps not in STEPS:
        raise ValueError(f"The few-step student draws in 1, 2 or 4 steps, not in {steps}: choose one of these.")
    alpha_bar = alpha_bar_from_beta(scaled_linear_beta()).to(pipe.device)
    cond = hidden_states(pipe, prompts, len(prompts))

    def v(x_t, t, cond):
        return student(x_t, t, cond, torch.full((len(x_t),), steps, device=x_t.device))

    model = as_eps(v, "v", alpha_bar)
    times = samplers.trailing_times(len(alpha_bar), steps)
    return decode_latents(pipe, samplers.finish(samplers.ddim(model, x_T.to(pipe.device), alpha_bar, times, cond)))
