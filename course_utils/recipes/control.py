"""The ControlNet that makes the picture-book model follow a line drawing."""

import functools
from pathlib import Path

import torch
from torch import nn

from course_utils.data import picture_book as book
from course_utils.diffusion.objectives import noise_prediction_loss, v_from_x0_eps
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.machine.devices import placed
from course_utils.models.control import small_controlnet, steered
from course_utils.recipes.task import Task, plain_attention, save_half
from course_utils.recipes.unet import PromptedLatents, picture_book_of
from course_utils.training import Samples

FILE = "diffusion_pytorch_model.safetensors"


class Steering(nn.Module):
    """A ControlNet and the frozen U-Net that it steers, as one model: model(x_t, t, cond, drawing) -> output.

    Only the ControlNet is in `parameters()` and `state_dict()`.
    """

    def __init__(self, controlnet, unet):
        super().__init__()
        self.controlnet = controlnet
        self.others = (unet,)  # in a tuple, so that it is no part of this one

    def forward(self, x_t, t, cond, drawing):
        return steered(self.others[0], self.controlnet, drawing)(x_t, t, cond).sample


def control_loss(
    model, x0: torch.Tensor, cond: torch.Tensor, drawing: torch.Tensor, t: torch.Tensor, eps: torch.Tensor,
    alpha_bar: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Return the loss of a ControlNet beside a frozen U-Net that predicts v: a number with gradients, shape ().

        L = mean of (v - model(x_t, t, c, drawing))^2,   v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x0

    x0, eps: (batch, channels, height, width); t: (batch,); cond: (batch, words, width), of which the caller has dropped
    some; drawing: (batch, 3, 4 height, 4 width) in [0, 1]. arXiv:2302.05543, equation 5, for v.
    """
    v_hat = model(add_noise(x0, eps, t, alpha_bar), t, cond, drawing)
    return noise_prediction_loss(v_hat, v_from_x0_eps(x0, eps, t, alpha_bar)).mean()


def build_control(folder: Path, device: torch.device) -> Task:
    """L = |v - v_hat|^2, through the frozen U-Net; half of the prompts are dropped, so that the drawing is heeded.

    The model that is steered is that in `folder`, or the shipped one where `folder` has none.
    """
    pipe = picture_book_of(folder, device)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).eval()
    data = PromptedLatents(folder, pipe.vae, pipe.tokenizer, dropped=0.5)
    alpha_bar = alpha_bar_from_beta(scaled_linear_beta()).to(device)
    model = placed(Steering(small_controlnet(pipe.unet), pipe.unet), device)

    def loss(model, samples: Samples):
        x0, tokens = (part.to(device) for part in data(samples))
        drawing = torch.stack([_lines(data.scenes[n]) for n in data.which(samples)]).to(device) / 255
        t = samples.integers(len(alpha_bar), stream=3).to(device)
        eps = samples.normals(*x0.shape[1:], stream=4).to(device)
        with torch.no_grad():
            cond = pipe.text_encoder(tokens).last_hidden_state
        with plain_attention(device):
            return control_loss(model, x0, cond, drawing.expand(-1, 3, -1, -1), t, eps, alpha_bar)

    def begin():
        from diffusers import ControlNetModel

        finished = ControlNetModel.from_pretrained(folder / "control", local_files_only=True)
        model.controlnet.load_state_dict(finished.state_dict())

    def export(model):
        model.controlnet.save_config(folder / "control")
        save_half(model.controlnet, folder / "control", FILE)

    return Task(model, loss, export, begin)


@functools.cache
def _lines(scene: book.Scene) -> torch.Tensor:
    """The outlines on a page, (1, 64, 64), uint8: drawing them takes longer than the page, and each is met often."""
    return (book.maps(scene).lines * 255).round().to(torch.uint8)
