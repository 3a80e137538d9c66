"""CLIP in small: `transformers.CLIPModel` with a transformer for words and one for 8 x 8 patches of the picture."""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from transformers import CLIPModel, CLIPTokenizer


def small_clip(
    tokenizer: "CLIPTokenizer", width: int = 128, layers: int = 4, heads: int = 4, size: int = 64, patch: int = 8
) -> "CLIPModel":
    """A `transformers.CLIPModel` for pictures of `size` pixels and the given tokenizer, randomly initialised.

    Its text model is what Stable Diffusion reads: hidden states (batch, length, width).
    """
    from transformers import CLIPConfig, CLIPModel

    shared = dict(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
    )
    text = dict(
        shared,
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = dict(shared, image_size=size, patch_size=patch)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))


class Embed(nn.Module):
    """Pictures and token ids to unit vectors of one shared space: what the contrastive training calls.

    Returns (image vectors (batch, width), text vectors (batch, width), the inverse temperature).
    """

    def __init__(self, clip: "CLIPModel"):
        super().__init__()
        self.clip = clip

    def forward(self, pictures: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`pictures` in [-1, 1], (batch, 3, height, width); `tokens` (batch, length)."""
        out = self.clip(pixel_values=pictures, input_ids=tokens)
        return out.image_embeds, out.text_embeds, self.clip.logit_scale.exp().clamp(max=100)


def cosine_logits(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """Compare each picture with each caption by the angle between their vectors.

        logits_ij = scale <I_i / |I_i|, C_j / |C_j|>,  scale = 1 / tau

    image: (pictures, width), text: (captions, width), of any length; scale: the inverse temperature, 1 / tau.
    Returns (pictures, captions), each between -scale and scale.
    """
    return scale * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T


def info_nce(logits: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE: match each image with its caption among the batch's, and each caption with its image.

        L = 1/2 [mean_i -log softmax(logits_i.)_i + mean_j -log softmax(logits_.j)_j]

    logits: (batch, batch), pictures in rows, captions in columns, pairs on the diagonal; -inf where two are not to be
    compared. Returns a scalar >= 0; log(batch) where all logits are equal.
    Source: Radford et al., arXiv:2103.00020, figure 3; van den Oord et al., arXiv:1807.03748.
    """
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def without_false_negatives(logits: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Leave out the pairs that are true though they are not on the diagonal: their logits become -inf.

    logits: (batch, batch), pictures in rows. same: bool (batch, batch), same[i, j] says that caption j is true of
    picture i. The diagonal stays, whatever `same` says of it.
    """
    own = torch.eye(len(same), dtype=torch.bool, device=same.device)
    return logits.masked_fill(same & ~own, float("-inf"))


def contrastive_loss(
    image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor | float, same: torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE of unit vectors I, C (batch, width), in which true pairs off the diagonal are left out.

    L = 1/2 [CE(scale I C^t, diagonal) + CE(scale C I^t, diagonal)], scale = 1 / tau.
    same[i, j] (bool) says that caption j is true of picture i as well.
    """
    return info_nce(without_false_negatives(scale * image @ text.T, same))


def zero_shot(image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Name the class of each picture by the class prompts that it is nearest to, without training for these classes.

    image: (pictures, width), text: (classes, templates, width): each class said in several ways. The class vector
    is the mean of its prompts' unit vectors, made a unit vector again. Returns int64 (pictures,).
    Source: Radford et al., arXiv:2103.00020, section 3.1.4.
    """
    classes = F.normalize(F.normalize(text, dim=-1).mean(1), dim=-1)  # (classes, width)
    return cosine_logits(image, classes, 1.0).argmax(1)
