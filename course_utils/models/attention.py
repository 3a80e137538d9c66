"""Attention by hand: one head, several heads, and pixels that look at pixels and at words.

The maps are written out in `attention_weights` and `attention`; the modules call torch's fused
`scaled_dot_product_attention`, which computes the same without keeping the map.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def attention_weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """How much each query looks at each key.

        A = softmax(q k^T / sqrt(d)), the softmax taken over the keys

    q: (..., queries, d), k: (..., keys, d). Returns (..., queries, keys), each row positive with sum 1.
    Raises ValueError if q and k differ in d. Source: Vaswani et al., arXiv:1706.03762, eq. 1.
    """
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"Expected queries and keys of one width, got {q.shape[-1]} and {k.shape[-1]}. "
            "Project both to the same number of dimensions first."
        )
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., queries, keys)
    return scores.softmax(-1)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """For each query, the average of the values, weighted by how well their keys fit.

        attention(q, k, v) = softmax(q k^T / sqrt(d)) v

    q: (..., queries, d), k: (..., keys, d), v: (..., keys, d_v). Returns (..., queries, d_v).
    Raises ValueError if q and k differ in d. Source: Vaswani et al., arXiv:1706.03762, eq. 1.
    """
    return attention_weights(q, k) @ v


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Cut each token's vector into `heads` shorter ones: (batch, tokens, heads * d) -> (batch, heads, tokens, d).

    Head 0 takes the first d numbers of every token, head 1 the next d, and so on.
    Raises ValueError if `heads` does not divide the width.
    """
    batch, tokens, width = x.shape
    if width % heads:
        raise ValueError(f"Expected a width that {heads} heads divide, got {width}. Choose another number of heads.")
    return x.reshape(batch, tokens, heads, width // heads).transpose(1, 2)  # (batch, heads, tokens, d)


def merge_heads(x: torch.Tensor) -> torch.Tensor:
    """Undo `split_heads`: (batch, heads, tokens, d) -> (batch, tokens, heads * d)."""
    return x.transpose(1, 2).flatten(2)


def word_maps(q: torch.Tensor, k: torch.Tensor, heads: int) -> torch.Tensor:
    """For each word, where in a square picture it is looked at; the mean over the heads.

        maps[word, row, column] = mean over heads of A[pixel, word],   pixel = row * side + column

    q: (batch, side * side, width), the pixels' queries. k: (batch, words, width), the words' keys, heads not yet split.
    Returns (batch, words, side, side); at each pixel the words' shares add up to 1. Raises ValueError if the number of
    pixels is no square. After Hertz et al., arXiv:2208.01626.
    """
    side = math.isqrt(q.shape[1])
    if side * side != q.shape[1]:
        raise ValueError(f"Expected the queries of a square picture, got {q.shape[1]} of them.")
    weights = attention_weights(split_heads(q, heads), split_heads(k, heads)).mean(1)  # (batch, pixels, words)
    return weights.transpose(1, 2).unflatten(2, (side, side))  # (batch, words, side, side)


class Attention(nn.Module):
    """Multi-head attention: tokens of `width` numbers look at themselves, or at tokens of `context_width` numbers.

        out = W_o [head_1, ..., head_h],  head_i = attention(x W_q, c W_k, c W_v) in its own width / heads dimensions

    With c = x it is self-attention, with another c cross-attention. The parameters have the names of diffusers'
    `Attention`, without its dropout. Raises ValueError if `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int = 4, context_width: int | None = None):
        super().__init__()
        if width % heads:
            raise ValueError(f"Expected a width that {heads} heads divide, got {width}.")
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width or width, width, bias=False)
        self.to_v = nn.Linear(context_width or width, width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """x: (batch, tokens, width), context: (batch, others, context_width) or None for x itself; like x."""
        context = x if context is None else context
        q, k, v = (split_heads(part, self.heads) for part in (self.to_q(x), self.to_k(context), self.to_v(context)))
        return self.to_out(merge_heads(F.scaled_dot_product_attention(q, k, v)))

    def weights(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """The maps, to look at: (batch, heads, tokens, others)."""
        context = x if context is None else context
        return attention_weights(split_heads(self.to_q(x), self.heads), split_heads(self.to_k(context), self.heads))


class PixelAttention(nn.Module):
    """Each pixel looks at all pixels and, if `cond_width` is given, then at the words; both add to what was there.

        x <- x + self(norm(x)),  x <- x + cross(norm(x), cond)

    Both output layers start at zero, so that the block does nothing at first. `width`: channels, a multiple of
    `groups` and `heads`. Raises ValueError if words are missing where `cond_width` asks for them, or the reverse.
    """

    def __init__(self, width: int, heads: int = 4, cond_width: int | None = None, groups: int = 8):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.attend = Attention(width, heads)
        self.cond_width = cond_width
        if cond_width:
            self.norm_cross = nn.LayerNorm(width)
            self.cross = Attention(width, heads, cond_width)
        for part in [self.attend, *([self.cross] if cond_width else [])]:
            nn.init.zeros_(part.to_out.weight)
            nn.init.zeros_(part.to_out.bias)

    def forward(self, x: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        """x: (batch, width, height, width of the picture), cond: (batch, words, cond_width) or None; like x."""
        if (cond is None) != (self.cond_width is None):
            wanted = f"words of {self.cond_width} numbers" if self.cond_width else "no words (cond=None)"
            got = "none" if cond is None else f"words of shape {tuple(cond.shape)}"
            raise ValueError(f"Expected {wanted}, got {got}. Set cond_width when the network is made.")
        pixels = x.flatten(2).transpose(1, 2)  # (batch, pixels, width)
        pixels = pixels + self.attend(self.norm(x).flatten(2).transpose(1, 2))
        if self.cond_width:
            pixels = pixels + self.cross(self.norm_cross(pixels), cond)
        return pixels.transpose(1, 2).reshape(x.shape)  # (batch, width, height, width of the picture)
