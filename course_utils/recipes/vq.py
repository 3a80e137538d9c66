"""The tokeniser of pictures: the autoencoder's latents to an 8 x 8 grid of whole numbers, and back."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from course_utils.data import picture_book as book
from course_utils.files import new_files
from course_utils.models.vq import Quantiser, VectorQuantiser, from_patches, in_patches
from course_utils.pipelines.picture_tokens import VQ, PictureTokens, load_picture_tokens
from course_utils.recipes.pictures import scene_count
from course_utils.recipes.task import Task, plain_attention
from course_utils.recipes.unet import picture_book_of, training_latents
from course_utils.recipes.vae import LATENT_CHANNELS
from course_utils.training import gather

if TYPE_CHECKING:
    from diffusers import VQModel

CODES, WIDTH = 2048, 16  # how many codes, of how many numbers each
PLACES = 16  # of the latents, a side
PATCH = 2  # places of the latents, a side, that one code stands for
THINGS_COUNT = 10  # how much the error counts where a thing stands; elsewhere 1


def small_vq(channels: int = 96, count: int = CODES, width: int = WIDTH, patch: int = PATCH) -> "VQModel":
    """A `VQModel` for latents (8, 16, 16) in patches: 16 / patch places a side, each with one of `count` codes.

    Its inputs are `in_patches(latents, patch)`, so that all convolutions work on the small grid: a convolution with
    stride 2 from 16 x 16 to 8 x 8 would take twice the time.
    """
    from diffusers import VQModel

    return VQModel(
        in_channels=LATENT_CHANNELS * patch**2,
        out_channels=LATENT_CHANNELS * patch**2,
        sample_size=PLACES // patch,
        layers_per_block=1,
        block_out_channels=(channels,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        latent_channels=width,
        vq_embed_dim=width,
        num_vq_embeddings=count,
        norm_num_groups=8,
        scaling_factor=1.0,
    )


class Tokenise(nn.Module):
    """A `VQModel` with a quantiser of the course in its middle: model(latents) -> latents_hat, codes, loss.

    quantise: a module of `models.vq`; its vectors z_q have as many channels as the model's codes. project: for one that
    wants other inputs (logits), a 1 x 1 convolution to them.
    """

    def __init__(self, vq: "VQModel", quantise: Quantiser):
        super().__init__()
        vq.quantize.requires_grad_(False)  # diffusers' own: it gets our codebook in the end
        self.vq, self.quantise, self.patch = vq, quantise, PLACES // vq.config.sample_size
        width = vq.config.vq_embed_dim
        self.project = nn.Identity() if quantise.inputs == width else nn.Conv2d(width, quantise.inputs, 1)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        patches = in_patches(latents, self.patch).contiguous(memory_format=torch.channels_last)
        z_q, codes, loss = self.quantise(self.project(self.vq.encode(patches).latents))
        patches = self.vq.decode(z_q, force_not_quantize=True).sample.float()
        return from_patches(patches, self.patch), codes, loss


def weighted_error(x: torch.Tensor, x_hat: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean of weights (x - x_hat)^2, over the mean of the weights, shape ().

    x, x_hat: latents (batch, c, h, w); weights: (batch, 1, h, w), positive.
    """
    return (weights * (x - x_hat).square()).mean() / weights.mean()


def where_things_are(scenes) -> torch.Tensor:
    """Weights (count, 1, 16, 16), THINGS_COUNT in the disc around each thing of a scene and 1 elsewhere."""
    middles = (torch.arange(PLACES) + 0.5) / PLACES
    weights = torch.ones(len(scenes), 1, PLACES, PLACES)
    for number, scene in enumerate(scenes):
        for spot in book.layout(scene):
            x, y = spot.centre
            distance = torch.hypot(middles[:, None] - y, middles - x)  # (16, 16)
            weights[number, 0, distance < (spot.unit + 1 / PLACES) / 2] = THINGS_COUNT
    return weights


def build_vq(folder: Path, device: torch.device) -> Task:
    """L = weighted_error(latents, latents_hat) + beta |z - sg(z_q)|^2, on the latents of the autoencoder, which stays.

    Things count more than what is around them: skies are learned soon, eyes late. The autoencoder is that in `folder`,
    or the shipped one where `folder` has none.
    """
    pipe = picture_book_of(folder, device)
    scenes, latents = training_latents(folder, pipe.vae.requires_grad_(False), scene_count())
    weights = where_things_are(scenes)
    vq, quantiser = small_vq(), VectorQuantiser(CODES, WIDTH, gather=gather)
    model = Tokenise(vq, quantiser)
    # on so small a grid this order of the numbers is faster on a CPU too
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's hints
    model.to(device)

    def loss(model, samples):
        index = samples.integers(len(latents))
        x, weight = latents[index].to(device), weights[index].to(device)
        with plain_attention(device):
            x_hat, _, commitment = model(x)
        return weighted_error(x, x_hat, weight) + commitment

    def begin():
        finished = load_picture_tokens(folder / "vq", pipe.vae, device).vq
        model.vq.load_state_dict(finished.state_dict())
        quantiser.start_from(finished.quantize.embedding.weight)

    def export(model):
        model.vq.quantize.embedding.weight.data.copy_(model.quantise.codebook)
        model.vq.to(memory_format=torch.contiguous_format)  # safetensors keeps no other
        with new_files(folder / "vq") as part:
            model.vq.half().save_pretrained(part)

    return Task(model, loss, export, begin)


def load_vq(folder: Path | str = VQ) -> PictureTokens:
    """The trained tokeniser of pictures with the shipped autoencoder, in float32 on the CPU."""
    return load_picture_tokens(folder)
