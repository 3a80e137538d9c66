"""A small U-Net for pictures without captions: the course's first network that predicts noise."""

import torch
from torch import nn


class PictureUNet(nn.Module):
    """diffusers' `UNet2DModel`, called as the course calls its models: model(x_t, t) -> eps_hat.

    Three levels (at size 16: 16x16, 8x8 and 4x4 pixels), self-attention at the coarsest. channels: 1 for grey pictures,
    3 for colour. size: side of the pictures, a multiple of 4. widths: channels at each level.
    """

    def __init__(self, channels: int = 1, size: int = 16, widths: tuple[int, int, int] = (16, 32, 64)):
        super().__init__()
        if size % 4:
            raise ValueError(f"Expected a size that 4 divides, since it is halved twice, but got {size}.")
        from diffusers import UNet2DModel

        self.unet = UNet2DModel(
            sample_size=size, in_channels=channels, out_channels=channels, layers_per_block=1,
            block_out_channels=widths, norm_num_groups=8, attention_head_dim=16,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )  # fmt: skip

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        """x_t (batch, channels, size, size), t (batch,) -> eps_hat of the shape of x_t. `cond` is not used."""
        return self.unet(x_t, t).sample
