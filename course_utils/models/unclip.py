"""The decoder of unCLIP (DALL·E 2): a U-Net that is told the CLIP embedding of a picture beside a caption.

    v_hat = U-Net( x_t,  tau(t) + P z,  [c_1 ... c_n, W z] ),   z = (e - mean) / std

e: a CLIP embedding of a picture, a unit vector. P z is added to the time embedding, W z are four more tokens after the
caption's word states c. Ramesh et al. (arXiv:2204.06125), section 2.1, there with GLIDE's U-Net in pixels.

What diffusers has of it: P is the U-Net's own `class_embed_type="projection"`, as in Stable unCLIP. For the four tokens
its U-Net has no setting; W is named as in `UnCLIPTextProjModel`, which belongs to a pipeline that is no longer kept up,
puts the tokens before the words, and projects these and the text embedding as well.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from course_utils.models.blocks import PartlyTrained, extended

if TYPE_CHECKING:  # named in hints only: importing it takes seconds
    from diffusers import UNet2DConditionModel

TOKENS = 4  # for which UnCLIPTextProjModel says clip_extra_context_tokens


def with_projection(unet: "UNet2DConditionModel", width: int) -> "UNet2DConditionModel":
    """Return a copy of the U-Net that adds a projection of `class_labels` (batch, width) to its time embedding.

    The projection, `class_embedding`, is two linear layers with SiLU between; the second begins at zero, so that the
    copy draws what the U-Net draws. Raises ValueError if the U-Net has class labels already.
    """
    if unet.config.class_embed_type is not None:
        raise ValueError(
            f"Expected a U-Net without class labels, got one with class_embed_type = {unet.config.class_embed_type!r}; "
            "take one that was trained with prompts only."
        )
    told = extended(unet, class_embed_type="projection", projection_class_embeddings_input_dim=width)
    nn.init.zeros_(told.class_embedding.linear_2.weight)
    nn.init.zeros_(told.class_embedding.linear_2.bias)
    return told


class UnCLIPUNet(PartlyTrained):
    """A U-Net of `with_projection`, called as the course calls its models: model(x_t, t, cond) -> v_hat.

    What of the U-Net can be trained, when it is handed over, belongs to the decoder; the rest stays (`kept`).
    cond: (batch, length + 1, width), the caption's word states and in the last row the embedding of a picture, a unit
    vector (`prior.condition`), or zeros for none: then no one attends to the four tokens, which in the attention's
    softmax would count even as zeros, and z is 0.
    """

    def __init__(self, unet: "UNet2DConditionModel"):
        super().__init__()
        width = unet.config.projection_class_embeddings_input_dim
        self.unet = unet
        self.clip_extra_context_tokens_proj = nn.Linear(width, TOKENS * unet.config.cross_attention_dim)
        nn.init.zeros_(self.clip_extra_context_tokens_proj.weight)
        nn.init.zeros_(self.clip_extra_context_tokens_proj.bias)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.zeros(1, width))
        self.register_buffer("std", torch.ones(1, width))
        self.remember("mean", "std")

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        """x_t: (batch, channels, height, width), t: (batch,). Returns the shape of x_t."""
        words, embedding = cond[:, :-1], cond[:, -1]
        told = embedding.any(dim=1, keepdim=True)  # (batch, 1)
        z = torch.where(told, (embedding - self.mean) / self.std, 0.0)
        tokens = self.clip_extra_context_tokens_proj(z).unflatten(1, (TOKENS, -1))  # (batch, 4, words' width)
        heeded = torch.cat([torch.ones_like(words[:, :, 0], dtype=torch.bool), told.expand(-1, TOKENS)], dim=1)
        return self.unet(
            x_t,
            t,
            encoder_hidden_states=torch.cat([words, tokens], dim=1),  # (batch, length + 4, words' width)
            encoder_attention_mask=heeded,
            class_labels=z,
        ).sample
