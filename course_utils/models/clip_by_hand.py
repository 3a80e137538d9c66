"""CLIP by hand: a causal transformer reads the words, another one the patches of the picture.

The parameters have the names of `transformers.CLIPModel`, so that the weights of one fit into the other.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.models.attention import merge_heads, split_heads


def pool(hidden: torch.Tensor, tokens: torch.Tensor, end: int) -> torch.Tensor:
    """Return the hidden state at the end of each prompt: where its *first* end token stands.

    hidden: (batch, length, width), tokens: int64 (batch, length), end: the id of the end token, with which a prompt
    is padded as well. Returns (batch, width). Raises ValueError if a prompt has no end token.
    Source: Radford et al., arXiv:2103.00020, section 2.4.
    """
    is_end = tokens == end
    if not is_end.any(1).all():
        raise ValueError(
            f"expected the end token {end} in each prompt, got prompts without it; tokenize with "
            "truncation, which keeps the end token"
        )
    first = is_end.int().argmax(1)  # of several largest values argmax takes the first
    return hidden[torch.arange(len(hidden), device=hidden.device), first]


def embed_patches(
    pictures: torch.Tensor, weight: torch.Tensor, first: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """Turn a picture into tokens: a learned first vector, then one vector for each square patch, each with its place.

        x_0 = first + places_0,   x_n = W patch_n + places_n,   patches row by row, from the top left

    pictures: (batch, colours, height, width), weight: W as (d, colours, patch, patch), first: (d,),
    places: (1 + patches, d). Returns (batch, 1 + patches, d).
    Source: Dosovitskiy et al., arXiv:2010.11929, equation 1.
    """
    patches = F.conv2d(pictures, weight, stride=weight.shape[-1]).flatten(2).transpose(1, 2)  # (batch, patches, d)
    return torch.cat([first.expand(len(pictures), 1, -1), patches], dim=1) + places


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """CLIP's activation, x sigmoid(1.702 x): close to GELU, x times the normal distribution function."""
    return x * torch.sigmoid(1.702 * x)


class SelfAttention(nn.Module):
    """Chapter 04's attention of tokens to themselves, with biases; `causal`: each sees only itself and what is before.

    (batch, tokens, width) -> the same. Raises ValueError if `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"expected a width that {heads} heads divide, got {width}; choose another number of heads")
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor, causal: bool) -> torch.Tensor:
        q, k, v = (split_heads(part(x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=causal)))


class MLP(nn.Module):
    """Two layers that work on each token by itself, four times as wide inside."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(quick_gelu(self.fc1(x)))


class Block(nn.Module):
    """x <- x + attention(norm(x)), then x <- x + mlp(norm(x)); (batch, tokens, width) -> the same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.self_attn, self.mlp = SelfAttention(width, heads), MLP(width)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, causal: bool) -> torch.Tensor:
        x = x + self.self_attn(self.layer_norm1(x), causal)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """Several blocks, one after the other."""

    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def forward(self, x: torch.Tensor, causal: bool) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, causal)
        return x


class TextEncoder(nn.Module):
    """Token ids (batch, length) -> hidden states (batch, length, width): what Stable Diffusion reads."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, heads: int):
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {"token_embedding": nn.Embedding(vocabulary, width), "position_embedding": nn.Embedding(length, width)}
        )
        self.encoder = Encoder(width, layers, heads)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = self.embeddings["position_embedding"](torch.arange(tokens.shape[1], device=tokens.device))
        return self.final_layer_norm(self.encoder(self.embeddings["token_embedding"](tokens) + places, causal=True))


class PatchEmbeddings(nn.Module):
    """Pictures (batch, 3, size, size) -> (batch, 1 + patches, width): a learned vector, then one for each patch."""

    def __init__(self, size: int, patch: int, width: int):
        super().__init__()
        self.class_embedding = nn.Parameter(0.02 * torch.randn(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding(1 + (size // patch) ** 2, width)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        weight, places = self.patch_embedding.weight, self.position_embedding.weight
        return embed_patches(pictures, weight, self.class_embedding, places)


class PictureEncoder(nn.Module):
    """Pictures (batch, 3, size, size) -> one vector each (batch, width): the state of the learned first token."""

    def __init__(self, size: int, patch: int, width: int, layers: int, heads: int):
        super().__init__()
        self.embeddings = PatchEmbeddings(size, patch, width)
        self.pre_layrnorm = nn.LayerNorm(width)  # the missing letter is that of transformers
        self.encoder = Encoder(width, layers, heads)
        self.post_layernorm = nn.LayerNorm(width)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = self.encoder(self.pre_layrnorm(self.embeddings(pictures)), causal=False)
        return self.post_layernorm(x[:, 0])


class ClipByHand(nn.Module):
    """Pictures and token ids to unit vectors of one shared space.

    Returns (image vectors (batch, width), text vectors (batch, width), the inverse temperature exp(logit_scale),
    at most 100), as `course_utils.models.clip.Embed` does. end: the id of the end token. size, patch: pixels.
    Source: Radford et al., arXiv:2103.00020.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        end: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        size: int = 32,
        patch: int = 8,
    ):
        super().__init__()
        self.end = end
        self.text_model = TextEncoder(vocabulary, length, width, layers, heads)
        self.vision_model = PictureEncoder(size, patch, width, layers, heads)
        self.text_projection = nn.Linear(width, width, bias=False)
        self.visual_projection = nn.Linear(width, width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for part in self.modules():
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids (batch, length) -> unit vectors (batch, width)."""
        return F.normalize(self.text_projection(pool(self.text_model(tokens), tokens, self.end)), dim=1)

    def encode_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (batch, 3, size, size) in [-1, 1] -> unit vectors (batch, width)."""
        return F.normalize(self.visual_projection(self.vision_model(pictures)), dim=1)

    def forward(self, pictures: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.encode_pictures(pictures), self.encode_text(tokens), self.logit_scale.exp().clamp(max=100)
