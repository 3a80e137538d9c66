"""CLIP in small: `transformers.CLIPModel` with a transformer for words and one for 8 x 8 patches of the picture."""

import torch
from torch import nn
from torch.nn import functional as F


def small_clip(tokenizer, width: int = 128, layers: int = 4, heads: int = 4, size: int = 64, patch: int = 8):
    """A `transformers.CLIPModel` for pictures of `size` pixels and the given tokenizer, randomly initialised.

    Its text model is what Stable Diffusion reads: hidden states (batch, length, width).
    """
    from transformers import CLIPConfig, CLIPModel

    shared = dict(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                  num_attention_heads=heads, projection_dim=width)
    text = dict(shared, vocab_size=len(tokenizer), max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id)
    vision = dict(shared, image_size=size, patch_size=patch)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))


class Embed(nn.Module):
    """Pictures and token ids to unit vectors of one shared space: what the contrastive training calls.

    Returns (image vectors (batch, width), text vectors (batch, width), the inverse temperature).
    """

    def __init__(self, clip):
        super().__init__()
        self.clip = clip

    def forward(self, pictures, tokens):
        """`pictures` in [-1, 1], (batch, 3, height, width); `tokens` (batch, length)."""
        out = self.clip(pixel_values=pictures, input_ids=tokens)
        return out.image_embeds, out.text_embeds, self.clip.logit_scale.exp().clamp(max=100)


def contrastive_loss(image, text, scale, same) -> torch.Tensor:
    """Symmetric InfoNCE: each picture finds its caption among the batch's, and each caption its picture.

    L = 1/2 [CE(s I T^t, diagonal) + CE(s T I^t, diagonal)] with unit vectors I, T (batch, width), scale s = 1 / tau.
    same[i, j] (bool) says that caption j is true of picture i as well; off the diagonal such pairs are no negatives
    and are left out. Source: Radford et al., arXiv:2103.00020.
    """
    logits = scale * image @ text.T
    other = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    logits = logits.masked_fill(other, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
