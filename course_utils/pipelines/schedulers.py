"""diffusers' schedulers, two of them corrected: all seven take any number of steps and end at the clean picture.

A scheduler of diffusers steps from t to t - T // n where n steps are taken. Where n does not divide T that is not the
next of its times, and the last step may end at t = 0, a little noise still there, rather than at the clean picture.
"""

import diffusers
import torch

from course_utils.diffusion.steps import ddim_step
from course_utils.pipelines.denoising import clean_guess

# `picture_book.SCHEDULERS` finds all of its classes here by name.
DDPMScheduler = diffusers.DDPMScheduler
EulerDiscreteScheduler = diffusers.EulerDiscreteScheduler
HeunDiscreteScheduler = diffusers.HeunDiscreteScheduler
UniPCMultistepScheduler = diffusers.UniPCMultistepScheduler


class DPMSolverMultistepScheduler(diffusers.DPMSolverMultistepScheduler):
    """diffusers' DPM-Solver++, which begins at its first noise level even if two levels have the same time.

    Karras's levels lie so close together at the noisy end of a cosine schedule that the first few are all t = 999.
    The library looks up where it is by the time, takes the second of them, and runs past the end of its list.
    """

    def set_timesteps(self, *options, **named):
        super().set_timesteps(*options, **named)
        self.set_begin_index(0)


class PNDMScheduler(diffusers.PNDMScheduler):
    """diffusers' PLMS (the linear multistep method of PNDM), stepping between the times that it really has."""

    def _get_prev_sample(self, sample: torch.Tensor, timestep, prev_timestep, model_output) -> torch.Tensor:
        """Step from x_t with the averaged output; the second call takes the first step once more, with a better one."""
        times = [*dict.fromkeys(self.timesteps.tolist()), -1]  # each once
        t, earlier = times[max(self.counter - 1, 0) :][:2]
        x_t = sample.float()  # in half precision the differences below would be lost
        x0_hat = clean_guess(self, model_output.float(), t, x_t)
        a = self.alphas_cumprod[t]
        eps = (x_t - a.sqrt() * x0_hat) / (1 - a).sqrt()
        return ddim_step(x_t, eps, t, earlier, self.alphas_cumprod).to(sample.dtype)


def as_the_librarys(scheduler):
    """The same scheduler as a class of diffusers, so that a saved pipeline needs nothing of the course."""
    return getattr(diffusers, type(scheduler).__name__).from_config(scheduler.config)
