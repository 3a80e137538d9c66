"""ControlNet: a trainable copy of the U-Net's encoder, whose outputs reach the frozen U-Net through zero convolutions.

    skips_i <- skips_i + Z_i(copy_i(x_t + Z(drawing), t, c)),   Z: a 1x1 convolution whose weights begin at zero

Zhang et al. (arXiv:2302.05543). At the start each Z gives zeros, so that the U-Net draws as it did.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from diffusers import ControlNetModel, UNet2DConditionModel


def zero_convolution(channels: int) -> nn.Conv2d:
    """A 1x1 convolution from `channels` to `channels` whose weights and biases are all zero; they can be trained.

    Its output is zero, but the gradient of its weights is not: the weights leave zero at the first update, and from the
    second on what lies before it is trained too. arXiv:2302.05543, section 3.1. ValueError for channels < 1.
    """
    if channels < 1:
        raise ValueError(f"Expected at least one channel, got {channels}; take as many as the skip connection has.")
    layer = nn.Conv2d(channels, channels, 1)
    for weights in layer.parameters():
        nn.init.zeros_(weights)
    return layer


def add_residuals(
    skips: Sequence[torch.Tensor], residuals: Sequence[torch.Tensor], weight: float = 1.0
) -> list[torch.Tensor]:
    """Return skips_i + weight * residuals_i for each skip connection of the U-Net, as new tensors.

    weight 0 leaves the U-Net as it was. Raises ValueError unless there is one residual of its shape for each skip.
    """
    shapes, others = ([tuple(part.shape) for part in parts] for parts in (skips, residuals))
    if shapes != others:
        raise ValueError(
            f"Expected one residual of its shape for each skip connection, {shapes}, got {others}; take a ControlNet "
            "that was made for this U-Net."
        )
    return [skip + weight * residual for skip, residual in zip(skips, residuals, strict=True)]


def small_controlnet(unet: "UNet2DConditionModel") -> "ControlNetModel":
    """A `ControlNetModel` for a small `UNet2DConditionModel`, with the weights of its encoder.

    It takes a drawing (batch, 3, height, width) in [0, 1] in pixels, four times as high and wide as the latents. The
    middle is copied without its attention, which would be a third of the file.
    """
    from diffusers import ControlNetModel

    kept = (
        "in_channels", "down_block_types", "block_out_channels", "layers_per_block", "cross_attention_dim",
        "attention_head_dim", "norm_num_groups", "transformer_layers_per_block",
    )  # fmt: skip
    controlnet = ControlNetModel(
        **{name: unet.config[name] for name in kept},
        mid_block_type="UNetMidBlock2D",
        conditioning_embedding_out_channels=(16, 32, 64),
    )
    weights, here = unet.state_dict(), controlnet.state_dict()
    controlnet.load_state_dict({name: weights.get(name, value) for name, value in here.items()})
    return controlnet


def steered(
    unet: "UNet2DConditionModel", controlnet: "ControlNetModel", drawing: torch.Tensor, weight: float = 1.0
) -> Callable:
    """Return the U-Net with a ControlNet that sees `drawing` beside it, called as the U-Net is.

        output = steered(x_t, t, encoder_hidden_states=features).sample

    drawing: (1 or batch, 3, height, width) in [0, 1]; x_t may have twice the batch (guidance): then it is seen twice.
    weight: what the residuals are multiplied by; 0 draws as without a ControlNet.
    Raises ValueError unless the batch is a multiple of the number of drawings.
    """

    def model(x_t, t, encoder_hidden_states):
        if len(x_t) % len(drawing):
            raise ValueError(
                f"Expected one drawing, or one for each picture, got {len(drawing)} for a batch of {len(x_t)}."
            )
        seen = drawing.repeat(len(x_t) // len(drawing), 1, 1, 1).to(x_t)
        down, middle = controlnet(x_t, t, encoder_hidden_states, seen, weight, return_dict=False)
        output = unet(
            x_t, t, encoder_hidden_states,
            down_block_additional_residuals=down, mid_block_additional_residual=middle, return_dict=False,
        )[0]  # fmt: skip
        return SimpleNamespace(sample=output)

    return model
