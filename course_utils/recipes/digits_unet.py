"""The U-Net that predicts the noise in digits: chapter 07's network, trained for longer than a chapter can."""

from pathlib import Path

import torch

from course_utils.data import digits
from course_utils.diffusion.objectives import noise_prediction_loss, uniform_times
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.models.unet import PictureUNet
from course_utils.pipelines.picture_book import CHECKPOINTS
from course_utils.recipes.task import Task, load_half, save_half

WIDTHS = (16, 32, 32)  # 0.28 million parameters: small enough to be shipped


def build_digits_unet(folder: Path, device: torch.device) -> Task:
    """Chapter 06's training, with its network, its data and its schedule: predict the noise, times uniform."""
    pictures = digits.load(16)[0].to(device)
    alpha_bar = alpha_bar_from_beta(scaled_linear_beta())
    model = PictureUNet(channels=1, size=16, widths=WIDTHS).to(device)

    def loss(model, samples):
        x0 = pictures[samples.integers(len(pictures)).to(device)]
        t = uniform_times(samples.uniforms(stream=1), len(alpha_bar)).to(device)
        eps = samples.normals(1, 16, 16, stream=2).to(device)
        return noise_prediction_loss(model(add_noise(x0, eps, t, alpha_bar), t), eps).mean()

    def export(model):
        save_half(model, folder / "digits_unet")

    return Task(model, loss, export)


def load_digits_unet(folder: Path = CHECKPOINTS / "digits_unet") -> PictureUNet:
    """The trained network, model(x_t, t) -> eps_hat for (batch, 1, 16, 16), in float32 on the CPU."""
    return load_half(PictureUNet(channels=1, size=16, widths=WIDTHS), folder).requires_grad_(False)
