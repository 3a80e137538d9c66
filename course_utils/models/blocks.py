"""What networks that draw are made of: convolution arithmetic, upsampling, time embedding, group norm, residuals."""

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """How many pixels a convolution leaves along one side.

        floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1

    size, kernel, stride, dilation >= 1, padding >= 0, all whole. Raises ValueError if the spread kernel does not fit.
    Source: Dumoulin and Visin, arXiv:1603.07285, relation 15.
    """
    reach = dilation * (kernel - 1) + 1  # how many pixels the spread kernel covers
    if reach > size + 2 * padding:
        raise ValueError(
            f"Expected a kernel that fits into {size + 2 * padding} pixels, padding included, but it "
            f"covers {reach}. Take a smaller kernel or dilation, or more padding."
        )
    return (size + 2 * padding - reach) // stride + 1


def overlap_count(size: int, kernel: int, stride: int) -> torch.Tensor:
    """How many input pixels reach each output pixel of a transposed convolution, along one side, without padding.

        count[stride i + j] += 1  for each input pixel i = 0 ... size-1 and each weight j = 0 ... kernel-1

    Returns int64 ((size - 1) stride + kernel,). In two dimensions the counts of both sides are multiplied.
    Raises ValueError for numbers below 1. Source: Odena et al., doi:10.23915/distill.00003.
    """
    if min(size, kernel, stride) < 1:
        raise ValueError(f"Expected size, kernel and stride of at least 1, got {size}, {kernel} and {stride}.")
    count = torch.zeros((size - 1) * stride + kernel, dtype=torch.int64)
    for i in range(size):
        count[i * stride : i * stride + kernel] += 1
    return count


def upsample_nearest(x: torch.Tensor, factor: int = 2) -> torch.Tensor:
    """Make each pixel a block of factor x factor: (batch, channels, h, w) -> (batch, channels, factor h, factor w)."""
    return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def time_embedding(t: torch.Tensor, width: int) -> torch.Tensor:
    """Represent a time by sines and cosines, from high to low frequencies.

        [sin(w_0 t), ..., sin(w_{h-1} t), cos(w_0 t), ..., cos(w_{h-1} t)],  w_i = 10000^(-i / h),  h = width / 2

    t: (batch,), whole or not. Returns float32 (batch, width). Raises ValueError for an odd width.
    Equal to diffusers' `get_timestep_embedding(t, width, downscale_freq_shift=0)`; Stable Diffusion puts the cosines
    first. Source: Vaswani et al., arXiv:1706.03762, section 3.5.
    """
    if width % 2:
        raise ValueError(f"Expected an even width, for as many sines as cosines, got {width}.")
    half = width // 2
    speeds = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)  # (half,)
    angles = t.float()[:, None] * speeds  # (batch, half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def group_norm(x: torch.Tensor, groups: int, eps: float = 1e-5) -> torch.Tensor:
    """Give each group of channels of each picture mean 0 and variance 1.

        (x - mean) / sqrt(variance + eps), both over the channels of the group and over all its pixels

    x: (batch, channels, height, width). The variance is the mean square distance, without the "n - 1".
    Raises ValueError if `groups` does not divide the channels. Source: Wu and He, arXiv:1803.08494.
    """
    if x.shape[1] % groups:
        raise ValueError(f"Expected channels that {groups} groups divide, got {x.shape[1]}.")
    grouped = x.reshape(len(x), groups, -1)  # (batch, groups, channels in the group * pixels)
    mean = grouped.mean(2, keepdim=True)
    variance = grouped.var(2, keepdim=True, unbiased=False)
    return ((grouped - mean) / (variance + eps).sqrt()).reshape(x.shape)


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to their input, with the time added between them.

        h = conv1(silu(norm1(x))) + time(silu(embedding)),  out = shortcut(x) + conv2(silu(norm2(h)))

    conv2 starts at zero: at first the block returns its shortcut. shortcut is a 1 x 1 convolution if the number of
    channels changes, else nothing. Both are multiples of `groups`. Source: He et al., arXiv:1603.05027; Ho et al.,
    arXiv:2006.11239.
    """

    def __init__(self, inside: int, outside: int, time_width: int, groups: int = 8):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, inside), nn.GroupNorm(groups, outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.time = nn.Linear(time_width, outside)
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """x: (batch, inside, h, w), embedding: (batch, time_width) -> (batch, outside, h, w)."""
        silu = nn.functional.silu
        h = self.conv1(silu(self.norm1(x)))  # (batch, outside, h, w)
        h = h + self.time(silu(embedding))[:, :, None, None]  # one number a channel, the same for all pixels
        return self.shortcut(x) + self.conv2(silu(self.norm2(h)))


def extended(unet: "UNet2DConditionModel", **settings: object) -> "UNet2DConditionModel":
    """Return a copy of a diffusers U-Net with further settings: the same weights, and random ones in what is new."""
    copy = type(unet).from_config(unet.config, **settings)
    copy.load_state_dict({**copy.state_dict(), **unet.state_dict()})
    return copy.to(unet.device)


class PartlyTrained(nn.Module):
    """A network most of which others have already: what is trained of it is kept in a file of its own.

    names: of what is kept, filled by `remember`.
    """

    names: list[str]

    def remember(self, *buffers: str) -> None:
        """Keep what can be trained now, and these buffers; whether it can be trained later does not count."""
        self.names = [*(name for name, p in self.named_parameters() if p.requires_grad), *buffers]

    def kept(self) -> dict[str, torch.Tensor]:
        """What is to be kept beside the network as it was, by name."""
        state = self.state_dict()
        return {name: state[name] for name in self.names}
