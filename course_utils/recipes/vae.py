"""The autoencoder: pictures to latents and back."""

from pathlib import Path

import torch
from torch import nn

from course_utils.data import picture_book as book
from course_utils.diffusion.latents import autoencoder_loss, scaling_factor
from course_utils.files import new_folder
from course_utils.machine.devices import placed
from course_utils.recipes.pictures import training_set
from course_utils.recipes.task import Task, require_trained

LATENT_CHANNELS = 8  # with 4 (Stable Diffusion v1.5) eyes and windows blurred
CROP = 32


class Reconstruct(nn.Module):
    """Picture and noise -> reconstruction, and mean and log-variance of the latents."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, pictures, eps):
        q = self.vae.encode(pictures).latent_dist
        return self.vae.decode(q.mean + q.std * eps).sample, q.mean, q.logvar


def small_vae():
    """An `AutoencoderKL` in small: 64 x 64 pixels -> 8 x 16 x 16 latents, 6 times fewer numbers."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        sample_size=64,
        layers_per_block=1,
        block_out_channels=(32, 64, 96),
        norm_num_groups=8,
        mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )
    # q(z|x) begins almost without noise: with the usual log-variance of 0 the decoder would first have to learn
    # to read through noise as strong as the signal
    vae.quant_conv.bias.data[LATENT_CHANNELS:] = -6.0
    return vae


def build_vae(folder: Path, device: torch.device) -> Task:
    """L = |x - x_hat| + 4 |x - x_hat|^2 + 1e-6 KL, on 32 x 32 crops.

    Convolutions do not mind crops, and four times as many different ones fit into an update. Three of four lie near
    the middle of a thing: skies are learned soon, eyes late.
    """
    data, kl_weight = training_set(), 1e-6
    model = placed(Reconstruct(small_vae()), device)

    def loss(model, samples):
        x = _crops(data, samples.integers(len(data.scenes)), samples).to(device)
        eps = samples.normals(LATENT_CHANNELS, CROP // 4, CROP // 4, stream=2).to(device)
        x_hat, mean, logvar = model(x, eps)
        return autoencoder_loss(x, x_hat.float(), mean.float(), logvar.float(), kl_weight)

    def export(model):
        latents = encode_pictures(model.vae, data.pictures(torch.arange(min(512, len(data.scenes)))))
        model.vae.register_to_config(scaling_factor=scaling_factor(latents))  # Stable Diffusion v1.5: 0.18215
        with new_folder(folder / "picture_book" / "vae") as part:
            model.vae.half().save_pretrained(part)

    return Task(model, loss, export)


def build_decoder(folder: Path, device: torch.device) -> Task:
    """L = |x - x_hat| + 4 |x - x_hat|^2 + |D x - D x_hat|, D the differences of neighbouring pixels: the decoder alone.

    The encoder stands still, so that latents mean what they meant and a U-Net trained on them goes on to fit.
    """
    from diffusers import AutoencoderKL

    require_trained(folder, "vae", "picture_book/vae")
    home = folder / "picture_book" / "vae"
    vae = AutoencoderKL.from_pretrained(home).float()
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    model, data = placed(Reconstruct(vae), device), training_set()

    def loss(model, samples):
        x = _crops(data, samples.integers(len(data.scenes)), samples).to(device)
        eps = samples.normals(LATENT_CHANNELS, CROP // 4, CROP // 4, stream=2).to(device)
        error = x - model(x, eps)[0].float()
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        return error.abs().mean() + 4 * error.square().mean() + edges

    def export(model):
        with new_folder(home) as part:
            model.vae.half().save_pretrained(part)

    return Task(model, loss, export)


def _crops(data, index: torch.Tensor, samples) -> torch.Tensor:
    """A crop of each picture `index` (batch,) of the data set, (batch, 3, CROP, CROP)."""
    draws = samples.uniforms(4, stream=1).tolist()
    return torch.stack(
        [
            _crop(picture, data.scenes[number], *numbers)
            for picture, number, numbers in zip(data.pictures(index), index, draws, strict=True)
        ]
    )


def _crop(picture: torch.Tensor, scene, which: float, down: float, right: float, near: float) -> torch.Tensor:
    """A crop of a picture (3, size, size), (3, CROP, CROP); the other arguments are random numbers in [0, 1)."""
    last = picture.shape[-1] - CROP
    i, j = int(down * (last + 1)), int(right * (last + 1))
    if near < 0.75:
        spots = book.layout(scene)
        x, y = spots[int(which * len(spots))].centre
        i, j = (
            min(max(round(at * picture.shape[-1] - CROP / 2 + 20 * (shift - 0.5)), 0), last)
            for at, shift in ((y, down), (x, right))
        )
    i, j = i // 4 * 4, j // 4 * 4  # where the blocks of pixel art, 2 x 2, lie in the latents of a whole page
    return picture[:, i : i + CROP, j : j + CROP]


@torch.no_grad()
def encode_pictures(vae, pictures: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """The mean latents of pictures in [-1, 1], not yet scaled, float32 on the CPU."""
    return torch.cat([vae.encode(part.to(vae.device)).latent_dist.mean.float().cpu() for part in pictures.split(batch)])
