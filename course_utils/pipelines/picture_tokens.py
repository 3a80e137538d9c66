"""Pictures as a few whole numbers, and back: the autoencoder of the picture book with a `VQModel` over its latents."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from course_utils.diffusion.latents import decode, encode
from course_utils.models.vq import from_patches, in_patches, nearest_code
from course_utils.pipelines.model_folder import REMEDY, load_network, quiet
from course_utils.pipelines.picture_book import CHECKPOINTS, PICTURE_BOOK

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from diffusers import AutoencoderKL, VQModel

VQ = CHECKPOINTS / "vq"
WEIGHTS = "diffusion_pytorch_model.safetensors"


class PictureTokens:
    """to_tokens(pictures) -> tokens, to_pictures(tokens) -> pictures.

        tokens = nearest_code( vq.encoder(vae.encoder(x)) ),     x_hat = vae.decoder( vq.decoder(codebook[tokens]) )

    vae: pictures to scaled latents and back. vq: these latents, in patches (`in_patches`), to a grid of codes. Neither
    is trained here. `count`: how many codes there are; `side`: how many places a side of the grid has; a picture has
    side * side tokens, int64 0 ... count - 1, row after row.
    """

    def __init__(self, vae: "AutoencoderKL", vq: "VQModel"):
        self.vae, self.vq = vae.eval().requires_grad_(False), vq.eval().requires_grad_(False)
        self.count = vq.config.num_vq_embeddings
        self.side, self.patch = vq.config.sample_size, math.isqrt(vq.config.in_channels // vae.config.latent_channels)

    @torch.no_grad()
    def to_tokens(self, pictures: torch.Tensor, batch: int = 32) -> torch.Tensor:
        """Pictures (n, 3, 64, 64) in [-1, 1] -> tokens, int64 (n, side * side), on the CPU.

        Raises ValueError for tensors that are no pictures.
        """
        parts = [self.latents_to_tokens(encode(self.vae, part.to(self.vae.device))) for part in pictures.split(batch)]
        return torch.cat(parts)

    @torch.no_grad()
    def latents_to_tokens(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents (n, c, h, w) -> tokens, int64 (n, side * side), on the CPU."""
        patches = in_patches(latents.to(self.vq.device), self.patch)  # (n, c patch^2, side, side)
        z = self.vq.encode(patches).latents  # (n, d, side, side)
        codes = nearest_code(z.permute(0, 2, 3, 1).flatten(0, 2), self.vq.quantize.embedding.weight)
        return codes.view(len(latents), -1).cpu()  # (n, side * side)

    @torch.no_grad()
    def to_pictures(self, tokens: torch.Tensor, batch: int = 32) -> torch.Tensor:
        """Tokens, int64 (n, side * side) -> pictures (n, 3, 64, 64) in [-1, 1], on the CPU.

        Raises ValueError for another number of tokens, or for tokens that are no codes.
        """
        if tokens.ndim != 2 or tokens.shape[1] != self.side**2:
            raise ValueError(
                f"Expected {self.side**2} tokens a picture, (n, {self.side**2}), got {tuple(tokens.shape)}; take what "
                "to_tokens returns."
            )
        if tokens.numel() and not 0 <= tokens.min() <= tokens.max() < self.count:
            raise ValueError(
                f"Expected tokens from 0 to {self.count - 1}, got {int(tokens.min())} to {int(tokens.max())}; words of "
                "a prompt, and marks such as the beginning, are no picture's tokens."
            )
        parts = [decode(self.vae, self.tokens_to_latents(part)) for part in tokens.split(batch)]
        return torch.cat(parts).clamp(-1, 1).cpu()

    @torch.no_grad()
    def tokens_to_latents(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens, int64 (n, side * side) -> scaled latents (n, c, h, w): `to_pictures` before the autoencoder."""
        z_q = self.vq.quantize.embedding(tokens.to(self.vq.device))  # (n, side * side, d)
        z_q = z_q.view(len(tokens), self.side, self.side, -1).permute(0, 3, 1, 2)  # (n, d, side, side)
        return from_patches(self.vq.decode(z_q, force_not_quantize=True).sample, self.patch)  # (n, c, 16, 16)


def load_picture_tokens(folder: Path | str = VQ, vae: "AutoencoderKL | None" = None, device=None) -> PictureTokens:
    """Return the tokeniser of pictures in `folder`, in float32 on the device (None: the CPU).

    vae: the autoencoder whose latents it was trained on; None: the shipped one.
    Raises ValueError, in one sentence, if there is none that can be read.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"There is no tokeniser of pictures in {folder}: {REMEDY}.")
    with quiet():
        if vae is None:
            vae = load_network(PICTURE_BOOK, "diffusers", "AutoencoderKL", f"vae/{WEIGHTS}")
        vq = load_network(folder, "diffusers", "VQModel", WEIGHTS)
    return PictureTokens(vae.to(device or "cpu"), vq.to(device or "cpu"))
