"""The prior of unCLIP (DALL·E 2): from a caption to the CLIP embedding of a picture that it may describe.

    L_prior = E || f(z_t, t, y) - z ||^2

z: the embedding of the caption's picture, standardised; y: the caption's word states and its text embedding. It is a
diffusion model of vectors whose network predicts z itself, not the noise. Embeddings of pictures and texts are CLIP's,
unit vectors (batch, width), wherever nothing else is said. Source: Ramesh et al., arXiv:2204.06125, section 2.2.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.shapes import require_same_shape

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from diffusers import PriorTransformer
    from transformers import CLIPModel


def small_prior(clip: "CLIPModel", layers: int = 6, heads: int = 4) -> "PriorTransformer":
    """diffusers' `PriorTransformer` for a small CLIP whose word states are as wide as its embeddings.

    It begins as the identity on average embeddings: `clip_mean` 0 and `clip_std` 1, which are to be set to those of the
    embeddings it is trained on, and which no training changes. Called without a mask, every token of its sequence sees
    every other; in the paper a token sees those before it only.
    Raises ValueError if the two widths differ, since the class has one setting for both.
    """
    from diffusers import PriorTransformer

    words, width = clip.config.text_config.hidden_size, clip.config.projection_dim
    if words != width:
        raise ValueError(
            f"Expected word states as wide as the embeddings, got {words} and {width}; take a CLIP with "
            "projection_dim = hidden_size."
        )
    prior = PriorTransformer(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        num_layers=layers,
        embedding_dim=width,
        num_embeddings=clip.config.text_config.max_position_embeddings,
        additional_embeddings=4,  # the text, the time, the noisy embedding and the query
    )
    prior.clip_mean.requires_grad_(False)
    prior.clip_std.requires_grad_(False).fill_(1.0)
    return prior


def read_caption(clip: "CLIPModel", tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what CLIP makes of token ids (batch, length): word states (batch, length, width) and unit vectors."""
    read = clip.text_model(input_ids=tokens)
    return read.last_hidden_state, F.normalize(clip.text_projection(read.pooler_output), dim=1)


def read_picture(clip: "CLIPModel", pictures: torch.Tensor) -> torch.Tensor:
    """Return CLIP's embeddings of pictures in [-1, 1], (batch, 3, height, width): unit vectors (batch, width)."""
    return F.normalize(clip.visual_projection(clip.vision_model(pixel_values=pictures).pooler_output), dim=1)


def condition(words: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """Return word states and one embedding as one tensor, so that a model is called as model(x_t, t, cond).

    words: (batch, length, width), embedding: (batch, width). Returns (batch, length + 1, width), the embedding last.
    Raises ValueError for other shapes.
    """
    if words.ndim != 3 or embedding.shape != (len(words), words.shape[-1]):
        raise ValueError(
            f"Expected word states (batch, length, width) and one embedding (batch, width) for each, got shapes "
            f"{tuple(words.shape)} and {tuple(embedding.shape)}; encode as many captions as there are embeddings."
        )
    return torch.cat([words, embedding[:, None]], dim=1)  # (batch, length + 1, width)


def prior_sequence(
    words: torch.Tensor, text: torch.Tensor, time: torch.Tensor, noisy: torch.Tensor, query: torch.Tensor
) -> torch.Tensor:
    """Return the tokens that the prior's transformer reads: word states, text, time, noisy embedding, query.

        [w_1 ... w_n, y, tau(t), z_t, q]

    words: (batch, n, width), the others (batch, width), each projected to one width; query: (width,), learned. What the
    transformer gives at the query is the prediction. Returns (batch, n + 4, width). arXiv:2204.06125, section 2.2.
    Raises ValueError for widths or batches that differ.
    """
    for name, other in (("text", text), ("time", time), ("noisy embedding", noisy)):
        if other.shape != (len(words), words.shape[-1]):
            raise ValueError(
                f"Expected a {name} of shape {(len(words), words.shape[-1])}, one for each caption and as wide as the "
                f"word states, got {tuple(other.shape)}; project it to their width."
            )
    tokens = torch.stack([text, time, noisy, query.expand_as(text)], dim=1)  # (batch, 4, width)
    return torch.cat([words, tokens], dim=1)  # (batch, n + 4, width)


class Prior(nn.Module):
    """A `PriorTransformer` as the course calls its models: model(z_t, t, cond) -> z_hat, the clean embedding.

    cond: (batch, length + 1, width), the word states and in the last row the text embedding (`condition`). This is a
    unit vector; multiplied by sqrt(width) its numbers are about as large as those of z_t, of variance 1.
    """

    def __init__(self, transformer: "PriorTransformer"):
        super().__init__()
        self.transformer = transformer

    def forward(self, z_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        """z_t: (batch, width), standardised and noisy; t: (batch,), whole. Returns (batch, width)."""
        words, text = cond[:, :-1], cond[:, -1] * math.sqrt(cond.shape[-1])
        return self.transformer(z_t, t, proj_embedding=text, encoder_hidden_states=words).predicted_image_embedding


def mean_and_std(embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each of the numbers of unit vectors (n, width): (1, width) each.

    Raises ValueError for fewer than two embeddings, or for a number that is the same in all of them.
    """
    if len(embeddings) < 2:
        raise ValueError(f"Expected at least two embeddings, got {len(embeddings)}; take those of a whole data set.")
    std = embeddings.std(0, keepdim=True)
    if not (std > 0).all():
        raise ValueError("Expected embeddings that differ in each of their numbers; take those of other pictures.")
    return embeddings.mean(0, keepdim=True), std


def standardise(embedding: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Return z = (e - mean) / std, of mean 0 and variance 1 in each number, as diffusion wants it: (batch, width)."""
    return (embedding - mean) / std


def to_embedding(z: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Return the unit vector of a standardised embedding: e = z std + mean, divided by its length; (batch, width).

    z std + mean is `PriorTransformer.post_process_latents`.
    """
    return F.normalize(z * std + mean, dim=1)


def better_of_two(first: torch.Tensor, second: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Return for each caption that one of two sampled image embeddings which is more similar to the text embedding.

        z = argmax over z in {z_1, z_2} of <z, y>

    All unit vectors (batch, width), so that the dot product is the cosine. arXiv:2204.06125, section 2.2. Raises
    ValueError if the shapes differ.
    """
    require_same_shape(first, second, "the two samples")
    require_same_shape(first, text, "samples and text embeddings")
    is_first = (first * text).sum(1, keepdim=True) >= (second * text).sum(1, keepdim=True)  # (batch, 1)
    return torch.where(is_first, first, second)
