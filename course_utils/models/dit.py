"""The diffusion transformer by hand: patches, fixed positions, adaLN-zero, and joint attention of patches and words.

DiT (Peebles & Xie, arXiv:2212.09748) has one stream of patches; MMDiT (Esser et al., arXiv:2403.03206), the network of
Stable Diffusion 3, has a second one of words. c is one vector for each sample, of time and prompt, (batch, width).
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.models.attention import merge_heads, split_heads
from course_utils.models.blocks import time_embedding


def patchify(x: torch.Tensor, size: int) -> torch.Tensor:
    """Cut pictures into square patches, row by row, and each patch into one vector.

    x: (batch, channels, height, width). Returns (batch, height * width / size^2, channels * size * size), in each
    vector all numbers of the first channel first. Raises ValueError if `size` does not divide height and width.
    """
    batch, channels, height, width = x.shape
    if height % size or width % size:
        raise ValueError(f"Expected a height and width that {size} divides, got {height} and {width}.")
    x = x.reshape(batch, channels, height // size, size, width // size, size)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (batch, patches, channels * size * size)


def unpatchify(tokens: torch.Tensor, size: int) -> torch.Tensor:
    """Undo `patchify` for square pictures: (batch, side * side, channels * size * size) -> (batch, channels, h, h).

    h = side * size. Raises ValueError if the number of tokens is no square, or the width no multiple of size^2.
    """
    batch, count, width = tokens.shape
    side, channels = math.isqrt(count), width // size**2
    if side * side != count or channels * size**2 != width:
        raise ValueError(f"Expected a square number of tokens, each of a multiple of {size**2} numbers, got {count} "
                         f"of {width}.")  # fmt: skip
    x = tokens.reshape(batch, side, side, channels, size, size)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, side * size, side * size)


def sincos_positions(side: int, width: int) -> torch.Tensor:
    """Return the fixed positions of side * side patches, row by row: `time_embedding` of the column, then of the row.

    float32 (side * side, width). Nothing of them is trained: neighbours are near from the start. Raises ValueError
    unless 4 divides the width. DiT (arXiv:2212.09748), section 3.1.
    """
    if width % 4:
        raise ValueError(f"Expected a width that 4 divides, for sines and cosines of two axes, got {width}.")
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.cat([time_embedding(axis.flatten(), width // 2) for axis in (column, row)], dim=1)


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return norm(x) (1 + scale) + shift: tokens (batch, n, width), normalised, then moved by what c asks for.

    shift, scale: (batch, width), the same for all tokens of a sample. norm: each token to mean 0 and variance 1.
    """
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


def half_block(x: torch.Tensor, c: torch.Tensor, linear: Callable, f: Callable) -> torch.Tensor:
    """Let c steer one half of a block: x + gate f(norm(x) (1 + scale) + shift), like x.

        [shift, scale, gate] = linear(silu(c))

    x: (batch, tokens, width). c: (batch, width). linear: from width to 3 width. f: from tokens to tokens, attention or
    a feed-forward network. DiT (arXiv:2212.09748), section 3.2.
    """
    shift, scale, gate = linear(F.silu(c)).chunk(3, dim=1)  # (batch, width) each
    return x + gate[:, None] * f(modulate(x, shift, scale))


class AdaLNZero(nn.Linear):
    """The layer that makes from silu(c) what steers a stream of tokens: shift, scale and gate, all 0 before training.

    With gates of 0 a block returns what came in, so that a deep network begins as the identity. arXiv:2212.09748, 3.2.
    """

    def __init__(self, width: int, count: int = 3):
        super().__init__(width, count * width)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class FeedForward(nn.Sequential):
    """Each token on its own: W_2 gelu(W_1 x), four times as wide in between; gelu by its tanh approximation."""

    def __init__(self, width: int):
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))


class Projections(nn.Module):
    """Queries, keys and values of a stream, (batch, heads, tokens, d) each, and the way back from its heads.

    With `qk_norm`, queries and keys are divided by their root mean square in each head (RMSNorm, with learned scales),
    so that their products cannot grow without bound: arXiv:2403.03206, section 5.3.2.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False, back: bool = True):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = (
            nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity() for _ in range(2)
        )
        self.to_out: nn.Module = nn.Linear(width, width) if back else nn.Identity()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x: (batch, tokens, width)."""
        q, k, v = (split_heads(to(x), self.heads) for to in (self.to_q, self.to_k, self.to_v))
        return self.norm_q(q), self.norm_k(k), v


class DiTBlock(nn.Module):
    """One block of a DiT: attention among patches, then a feed-forward network, both steered and gated by c.

        x <- x + gate_1 attention(norm(x) (1 + scale_1) + shift_1)
        x <- x + gate_2 feed_forward(norm(x) (1 + scale_2) + shift_2)

    Equal to diffusers' `BasicTransformerBlock` with "ada_norm_zero", given the same weights. arXiv:2212.09748.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ada_attend, self.attend = AdaLNZero(width), Projections(width, heads)
        self.ada_feed, self.feed = AdaLNZero(width), FeedForward(width)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """x: (batch, patches, width), c: (batch, width); like x."""
        x = half_block(x, c, self.ada_attend, self.attention)
        return half_block(x, c, self.ada_feed, self.feed)

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        return self.attend.to_out(merge_heads(F.scaled_dot_product_attention(*self.attend(x))))


def joint_attention(image: tuple, words: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    """Let patches and words attend to each other and among themselves, in one softmax.

        [out_image, out_words] = attention([q_image, q_words], [k_image, k_words], [v_image, v_words])

    image, words: (q, k, v) of each stream, (batch, heads, tokens, d) each. Returns what leaves at the patches and at
    the words, (batch, heads, tokens, d) each. MMDiT (arXiv:2403.03206), figure 2.
    """
    q, k, v = (torch.cat(pair, dim=2) for pair in zip(image, words, strict=True))
    out = F.scaled_dot_product_attention(q, k, v)  # (batch, heads, patches + words, d)
    patches = image[0].shape[2]
    return out[:, :, :patches], out[:, :, patches:]


class JointBlock(nn.Module):
    """One block of an MMDiT: two streams with weights of their own that meet in one attention.

    As `DiTBlock`, for patches and for words, with `joint_attention` in place of attention. In the last block nothing
    reads the words any more: there they are normalised and attended to, and no more. Equal to diffusers'
    `JointTransformerBlock`, given the same weights. arXiv:2403.03206, figure 2.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = True, last: bool = False):
        super().__init__()
        self.last = last
        self.ada_attend, self.attend = AdaLNZero(width), Projections(width, heads, qk_norm)
        self.ada_feed, self.feed = AdaLNZero(width), FeedForward(width)
        self.ada_attend_words = AdaLNZero(width, count=2 if last else 3)
        self.attend_words = Projections(width, heads, qk_norm, back=not last)
        if not last:
            self.ada_feed_words, self.feed_words = AdaLNZero(width), FeedForward(width)

    def forward(
        self, x: torch.Tensor, words: torch.Tensor, c: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x: (batch, patches, width), words: (batch, words, width), c: (batch, width). Returns both, or (x, None)."""
        shift, scale, gate = self.ada_attend(F.silu(c)).chunk(3, dim=1)
        shift_words, scale_words, *gate_words = self.ada_attend_words(F.silu(c)).chunk(2 if self.last else 3, dim=1)
        image = self.attend(modulate(x, shift, scale))
        text = self.attend_words(modulate(words, shift_words, scale_words))
        seen, read = map(merge_heads, joint_attention(image, text))
        x = half_block(x + gate[:, None] * self.attend.to_out(seen), c, self.ada_feed, self.feed)
        if self.last:
            return x, None
        words = words + gate_words[0][:, None] * self.attend_words.to_out(read)
        return x, half_block(words, c, self.ada_feed_words, self.feed_words)


class MMDiT(nn.Module):
    """A small Stable Diffusion 3: model(x_t, t, cond) -> velocity, of latents (batch, channels, side, side).

        tokens = patches W + positions;   c = mlp(time_embedding(1000 t)) + mlp(mean of the words)
        then `depth` joint blocks, and a last adaLN and projection, which begins at zero

    t: (batch,), in [0, 1]. cond: (batch, words, cond_width). In Stable Diffusion 3 the second term of c is CLIP's
    pooled embedding. arXiv:2403.03206, figure 2. Raises ValueError for latents of another size.
    """

    def __init__(
        self,
        channels: int = 8,
        side: int = 16,
        patch: int = 2,
        width: int = 192,
        depth: int = 6,
        heads: int = 4,
        cond_width: int = 128,
    ):
        super().__init__()
        self.channels, self.side, self.patch, self.width = channels, side, patch, width
        self.embed = nn.Linear(channels * patch**2, width)
        self.register_buffer("positions", sincos_positions(side // patch, width), persistent=False)
        self.of_time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.of_prompt = nn.Sequential(nn.Linear(cond_width, width), nn.SiLU(), nn.Linear(width, width))
        self.of_words = nn.Linear(cond_width, width)
        self.blocks = nn.ModuleList(JointBlock(width, heads, last=n == depth - 1) for n in range(depth))
        self.ada, self.out = AdaLNZero(width, count=2), nn.Linear(width, channels * patch**2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        if x_t.shape[1:] != (self.channels, self.side, self.side):
            raise ValueError(
                f"Expected latents of shape (batch, {self.channels}, {self.side}, {self.side}), got {tuple(x_t.shape)}."
            )
        x = self.embed(patchify(x_t, self.patch)) + self.positions  # (batch, patches, width)
        c = self.of_time(time_embedding(1000 * t, self.width).to(x)) + self.of_prompt(cond.mean(1))  # (batch, width)
        words = self.of_words(cond)  # (batch, words, width)
        for block in self.blocks:
            x, words = block(x, words, c)
        shift, scale = self.ada(F.silu(c)).chunk(2, dim=1)
        return unpatchify(self.out(modulate(x, shift, scale)), self.patch)
