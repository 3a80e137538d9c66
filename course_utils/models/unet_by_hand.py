"""The U-Net of the course, put together from the parts of `blocks` and `attention`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from course_utils.models.attention import PixelAttention
from course_utils.models.blocks import ResidualBlock, time_embedding


def through_the_u(
    x: torch.Tensor,
    down: Iterable[Callable],
    shrink: Iterable[Callable],
    middle: Callable,
    grow: Iterable[Callable],
    up: Iterable[Callable],
) -> torch.Tensor:
    """Go down one side of the U, through the middle and up the other side, with a skip connection at each level.

        down:  x <- down_i(x), keep x, x <- shrink_i(x)
        up:    x <- up_i([grow_i(x), what was kept at the same level])

    x: (batch, channels, height, width). `down` and `shrink` go from fine to coarse, `grow` and `up` from coarse to
    fine. [ , ] joins channels, the kept ones last. Source: Ronneberger et al., arXiv:1505.04597.
    """
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept.pop()], dim=1))
    return x


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the U-Net. `widths`: channels of each level, fine to coarse, multiples of 8; the last is the middle."""

    channels: int = 1
    widths: tuple[int, ...] = (16, 32, 64)
    attention: tuple[bool, ...] = (False, False, True)  # at which levels pixels look at pixels, and at words
    heads: int = 4
    cond_width: int | None = None  # numbers in each word; None: no words


class Level(nn.Module):
    """A residual block and, if asked for, attention: (batch, inside, h, w) -> (batch, outside, h, w)."""

    def __init__(self, inside: int, outside: int, time_width: int, config: UNetConfig, attention: bool):
        super().__init__()
        self.residual = ResidualBlock(inside, outside, time_width)
        self.attention = PixelAttention(outside, config.heads, config.cond_width) if attention else None

    def forward(self, x: torch.Tensor, embedding: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        """embedding: (batch, time_width), cond: (batch, words, cond_width) or None."""
        x = self.residual(x, embedding)
        return x if self.attention is None else self.attention(x, cond)


class UNet(nn.Module):
    """The hand-built U-Net: model(x_t, t, cond=None) -> prediction of the shape of x_t.

    Each level is half as wide and high as the one above; going up, each gets what the same level knew going down.
    Raises ValueError for other channels or sides than it was made for, for words it has no attention for, and if
    `attention` has not one entry a level.
    """

    def __init__(self, config: UNetConfig = UNetConfig()):  # noqa: B008 (frozen)
        super().__init__()
        widths, attention = config.widths, config.attention
        if len(widths) != len(attention):
            raise ValueError(f"Expected one entry of attention for each of the {len(widths)} levels, got {attention}.")
        self.config = config
        time_width = 4 * widths[0]
        self.time = nn.Sequential(nn.Linear(widths[0], time_width), nn.SiLU(), nn.Linear(time_width, time_width))
        self.first = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        sides = range(len(widths) - 1)  # the levels with a way down and a way up
        before = [widths[0], *widths]

        def level(inside, outside, i):
            return Level(inside, outside, time_width, config, attention[i])

        self.down = nn.ModuleList(level(before[i], widths[i], i) for i in sides)
        self.shrink = nn.ModuleList(nn.Conv2d(widths[i], widths[i], 3, stride=2, padding=1) for i in sides)
        self.middle = nn.ModuleList(
            [level(before[-2], widths[-1], -1), ResidualBlock(widths[-1], widths[-1], time_width)]
        )
        self.grow = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(widths[i + 1], widths[i + 1], 3, padding=1))
            for i in reversed(sides)
        )
        self.up = nn.ModuleList(level(widths[i + 1] + widths[i], widths[i], i) for i in reversed(sides))
        self.last = nn.Sequential(
            nn.GroupNorm(8, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], config.channels, 3, padding=1)
        )

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        """x_t: (batch, channels, height, width), t: (batch,), cond: (batch, words, cond_width) or None; like x_t."""
        self._require(x_t, cond)
        embedding = self.time(time_embedding(t, self.config.widths[0]).to(x_t.dtype))  # (batch, time_width)

        def at(level):
            return lambda x: level(x, embedding, cond)

        def middle(x):
            return self.middle[1](self.middle[0](x, embedding, cond), embedding)

        x = self.first(x_t)  # (batch, widths[0], height, width)
        x = through_the_u(
            x, [at(level) for level in self.down], self.shrink, middle, self.grow, [at(level) for level in self.up]
        )
        return self.last(x)

    def _require(self, x_t, cond):
        multiple = 2 ** (len(self.config.widths) - 1)
        if x_t.ndim != 4 or x_t.shape[1] != self.config.channels or x_t.shape[2] % multiple or x_t.shape[3] % multiple:
            raise ValueError(
                f"Expected pictures (batch, {self.config.channels}, height, width) whose sides {multiple} "
                f"divides, since they are halved {len(self.config.widths) - 1} times, got "
                f"{tuple(x_t.shape)}."
            )
        if cond is not None and not (self.config.cond_width and any(self.config.attention)):
            raise ValueError("Expected no words, since this network has no attention to them. Set cond_width.")
