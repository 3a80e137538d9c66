"""Attention maps of diffusers' U-Net, recorded and exchanged while it draws (prompt-to-prompt, arXiv:2208.01626).

A layer is named as in the U-Net: "down_blocks.1.attentions.0.transformer_blocks.0.attn2". In layers that end in `attn2`
pixels look at tokens, in those that end in `attn1` pixels look at pixels. Maps:
(batch, heads, pixels, tokens or pixels), each row with sum 1.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch

from course_utils.diffusion.editing import inject_maps
from course_utils.models.attention import attention_weights, merge_heads, split_heads

OF_TOKENS, OF_PIXELS = "attn2", "attn1"
Maps = dict[str, list[torch.Tensor]]  # layer -> the maps of its evaluations, in order


@contextlib.contextmanager
def edited_attention(unet, edit: Callable, kinds: tuple[str, ...] = (OF_TOKENS,)) -> Iterator[None]:
    """Within this context each layer of these kinds uses the maps that `edit(layer, maps)` returns for its own.

    Attention is written out in them, as in `models.attention`, since fused attention never has the maps. Afterwards the
    U-Net is as it was.
    """
    before = unet.attn_processors
    named = {name: name.removesuffix(".processor") for name in before}
    # set_attn_processor empties the dictionary that it is given
    unet.set_attn_processor(
        {name: _Written(layer, edit) if layer.endswith(kinds) else before[name] for name, layer in named.items()}
    )
    try:
        yield
    finally:
        unet.set_attn_processor(before)


class _Written:
    """The attention of one layer, written out: what diffusers calls a processor."""

    def __init__(self, layer: str, edit: Callable):
        self.layer, self.edit = layer, edit

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *others, **options):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        parts = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (split_heads(part, attn.heads) for part in parts)  # (batch, heads, queries or tokens, d)
        maps = self.edit(self.layer, attention_weights(q, k))
        to_out, dropout = attn.to_out
        return dropout(to_out(merge_heads(maps @ v)))


@contextlib.contextmanager
def recorded_maps(unet, count: int, of_pixels: bool = False) -> Iterator[Maps]:
    """Record the maps of all that is drawn within this context: layer -> list of (count, heads, queries, tokens).

    count: the number of pictures; of a guided batch, which has the negative prompt first, the last `count` are kept.
    of_pixels: those of pixels to pixels too.
    """
    maps: Maps = {}

    def record(layer, own):
        maps.setdefault(layer, []).append(own[-count:])
        return own

    with edited_attention(unet, record, (OF_TOKENS, OF_PIXELS) if of_pixels else (OF_TOKENS,)):
        yield maps


@contextlib.contextmanager
def injected_maps(
    unet, kept: Maps, partners: Sequence[int | None], share: float = 1.0, self_share: float = 0.0
) -> Iterator[None]:
    """Within this context, draw with recorded maps: as many pictures, in as many steps, by the same scheduler.

    partners: see `inject_maps`. share: of the evaluations, from the first, those with the kept maps of tokens;
    self_share: with the kept maps of pixels to pixels. Of a guided batch only the half with the prompt is changed.
    Raises ValueError for shares outside [0, 1], and if nothing has been recorded that is needed.
    """
    shares = {OF_TOKENS: share, OF_PIXELS: self_share}
    kinds = tuple(kind for kind in shares if shares[kind])
    if not 0 <= share <= 1 or not 0 <= self_share <= 1:
        raise ValueError(f"Expected shares of the steps from 0 to 1, but got {share} and {self_share}.")
    if not all(any(layer.endswith(kind) for layer in kept) for kind in kinds):
        raise ValueError(
            "Expected recorded maps, but got none: draw within recorded_maps first (with of_pixels for self_share)."
        )
    done: dict[str, int] = {}

    def inject(layer, own):
        number = done.get(layer, 0) % len(kept[layer])
        done[layer] = number + 1
        if number >= shares[layer[-len(OF_TOKENS) :]] * len(kept[layer]):
            return own
        there = kept[layer][number]
        mapped = inject_maps(own[-len(there) :], there, partners if layer.endswith(OF_TOKENS) else None)
        return torch.cat([own[: -len(there)], mapped])

    with edited_attention(unet, inject, kinds):
        yield
