"""The student of a distillation: a U-Net that is told, beside the time, how it is being used.

    v_hat = U-Net( x_t,  tau(t) + P k,  c ),   k = one of (1, 0, 0), (0, 1, 0), (0, 0, 1) for 4, 2 and 1 steps

P begins at zero. diffusers has it as `time_cond_proj_dim` and `timestep_cond`, for the guidance that latent consistency
models are told (arXiv:2310.04378).
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from course_utils.models.blocks import PartlyTrained, extended

if TYPE_CHECKING:  # named in hints only: importing it takes seconds
    from diffusers import UNet2DConditionModel

STEPS = (4, 2, 1)  # in how many steps the student can draw


def with_condition(unet: "UNet2DConditionModel", width: int) -> "UNet2DConditionModel":
    """Return a copy of the U-Net that adds a projection of `timestep_cond` (batch, width) to the waves of its time.

    The projection, `time_embedding.cond_proj`, begins at zero, so that the copy draws what the U-Net draws.
    Raises ValueError if the U-Net is told something already.
    """
    if unet.config.time_cond_proj_dim is not None:
        raise ValueError(
            f"Expected a U-Net that is told the time only, got one with time_cond_proj_dim = "
            f"{unet.config.time_cond_proj_dim}; take the teacher that it was distilled from."
        )
    told = extended(unet, time_cond_proj_dim=width)
    nn.init.zeros_(told.time_embedding.cond_proj.weight)
    return told


class FewStepsUNet(PartlyTrained):
    """A U-Net of `with_condition`, told in how many steps it is to draw: model(x_t, t, cond, steps) -> v_hat.

    What of the U-Net can be trained, when it is handed over, belongs to the student; the rest stays (`kept`).
    """

    def __init__(self, unet: "UNet2DConditionModel"):
        super().__init__()
        self.unet = unet
        self.remember()

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """x_t: (batch, channels, height, width), t: (batch,). steps: (batch,), each 4, 2 or 1. Like x_t."""
        told = (steps[:, None] == torch.tensor(STEPS, device=steps.device)).to(x_t.dtype)  # (batch, 3)
        return self.unet(x_t, t, cond, timestep_cond=told).sample
