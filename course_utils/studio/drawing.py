"""One picture from complete settings, step by step: prompt syntax, variation of the noise, previews, and a way to stop.

The loops are those of `pipelines.editing`: they are given a pipeline whose U-Net is a `Watched` one.
"""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from course_utils.data import picture_book as book
from course_utils.data.images import to_pil, to_tensor
from course_utils.diffusion import latents
from course_utils.diffusion.editing import slerp
from course_utils.diffusion.guidance import guide
from course_utils.diffusion.samplers import draw_noise
from course_utils.pipelines import editing
from course_utils.pipelines.control import CONTROL, as_drawing, load_control
from course_utils.pipelines.denoising import clean_guess
from course_utils.pipelines.picture_book import enlargement, made_for, make_scheduler, name_of
from course_utils.pipelines.png_info import Settings
from course_utils.pipelines.steering import Given, complete, control_folder, painted, with_loras
from course_utils.text.syntax import encode_schedule

SMALL = 128  # pixels: up to here a preview is decoded in milliseconds; larger ones are a linear map of the latents

# (share of the steps that are taken, x0_hat: latents (1, c, h, w)); what it raises ends the drawing
OnStep = Callable[[float, torch.Tensor], None]


class Watched:
    """A U-Net that reads other text features in each step, and shows what it predicts.

    features: for the negative prompt and the prompt, those of each step (1, tokens, width). evaluations: how many there
    are in all. network(x, t, features) -> output. `on_step` is called after each evaluation.
    """

    def __init__(self, pipe, network: Callable, features, guidance: float, evaluations: int, on_step: OnStep):
        self.config, self.device, self.dtype = pipe.unet.config, pipe.unet.device, pipe.unet.dtype
        self.network, self.features, self.guidance, self.on_step = network, features, guidance, on_step
        self.evaluations, self.done = evaluations, 0
        self.scheduler = make_scheduler("ddim", pipe.scheduler.config)  # one that hands x_t to the U-Net as it is

    def __call__(self, x: torch.Tensor, t: torch.Tensor, encoder_hidden_states: torch.Tensor):
        """x: (1 or 2, c, h, w), the negative prompt first where there are two. Returns an object with `sample`."""
        negative, positive = self.features
        step = min(self.done * len(positive) // self.evaluations, len(positive) - 1)
        cond = torch.cat([negative[step], positive[step]]) if len(x) == 2 else positive[step]
        out = self.network(x, t, cond.to(encoder_hidden_states))
        self.done += 1
        guided = guide(out[:1], out[1:], self.guidance) if len(x) == 2 else out
        self.on_step(self.done / self.evaluations, clean_guess(self.scheduler, guided, t.flatten()[0], x[:1]))
        return SimpleNamespace(sample=out)


@torch.no_grad()
def draw_one(pipe, settings: Settings, given: Given | None = None, on_step: OnStep = lambda share, x0: None) -> tuple:
    """Return (PIL picture, Settings): one picture, and the complete settings that draw it again.

    Prompts may have the Web UI's syntax (`text.syntax`). The noise is that of `seed`, turned by `variation` towards
    that of `variation_seed` on the great circle (`slerp`). For plain prompts without variation the picture is the one
    that `steering.draw_given` draws. on_step(share of the steps taken, x0_hat) may raise, which ends the drawing.

    Raises ValueError, in one sentence, for what cannot be drawn with.
    """
    given = Given() if given is None else given
    settings = complete(settings, given, pipe.unet.config, pipe.vae.config)
    if settings.variation and given.image is not None:
        raise ValueError("A variation seed turns the noise that drawing starts from: with a picture to start from, "
                         "set its strength to 0.")  # fmt: skip
    settings = dataclasses.replace(settings, model=settings.model or name_of(pipe).name)
    scheduler = make_scheduler(settings.sampler, pipe.scheduler.config)
    strength = 1.0 if settings.strength is None else settings.strength
    _, times = editing.begin(pipe, scheduler, settings.steps, strength)
    prompts = settings.negative_prompt, settings.prompt
    features = encode_schedule(pipe.tokenizer, pipe.text_encoder, prompts, max(int(settings.steps * strength), 1))
    network = _plain(pipe) if given.drawing is None else _steered(pipe, settings, given.drawing)
    unet = Watched(pipe, network, features, settings.guidance, len(times), on_step)
    view = SimpleNamespace(unet=unet, vae=pipe.vae, scheduler=pipe.scheduler)
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    how: dict[str, Any] = {"negative_prompt": features[0][0], "guidance": float(settings.guidance),
                           "steps": settings.steps, "scheduler": scheduler}  # fmt: skip
    with with_loras(pipe.unet, given.loras):
        cond = features[1][0]
        if given.image is None:
            x_T = _noise(pipe, settings, generator)
            drawn = editing.draw_from(view, x_T, cond, generator=[generator], **how)
        elif given.mask is None:
            drawn = editing.picture_to_picture(view, to_tensor(given.image), cond, strength, [generator], **how)
        else:
            inside = (to_tensor(painted(given.mask))[:, :1] + 1) / 2  # (1, 1, height, width)
            drawn = editing.inpaint(view, to_tensor(given.image), inside, cond, [generator], strength, **how)
    return to_pil(drawn)[0], settings


def _plain(pipe) -> Callable:
    return lambda x, t, cond: pipe.unet(x, t, encoder_hidden_states=cond).sample


def _steered(pipe, settings: Settings, drawing: Image.Image) -> Callable:
    """The U-Net with what the ControlNet beside the model adds for a drawing."""
    home = name_of(pipe)
    controlnet = load_control(pipe, control_folder(home) if home.name else CONTROL).controlnet
    lines = as_drawing(drawing, settings.width or 0, settings.height or 0).to(pipe.device)

    def network(x, t, cond):
        down, middle = controlnet(x, t, encoder_hidden_states=cond, return_dict=False,
                                  controlnet_cond=lines.expand(len(x), -1, -1, -1))  # fmt: skip
        return pipe.unet(x, t, encoder_hidden_states=cond, down_block_additional_residuals=down,
                         mid_block_additional_residual=middle).sample  # fmt: skip

    return network


def _noise(pipe, settings: Settings, generator: torch.Generator) -> torch.Tensor:
    """x_T of the seed (1, c, h, w), turned towards that of the variation seed."""
    factor = enlargement(pipe.vae.config)
    shape = (1, pipe.unet.config.in_channels, (settings.height or 0) // factor, (settings.width or 0) // factor)
    x_T = draw_noise(shape, [generator])
    if not settings.variation:
        return x_T
    other = draw_noise(shape, [torch.Generator("cpu").manual_seed(settings.variation_seed)])
    return slerp(x_T, other, settings.variation)


class Preview:
    """x0_hat as a picture, cheaply: decoded where pictures are small, else by a linear map of each place's latent.

    The map is fitted once, with `latents.fit_colours`, on pages of the picture book that the autoencoder encodes.
    """

    def __init__(self, pipe, small: int = SMALL):
        self.pipe, self.decodes = pipe, made_for(pipe.unet.config, pipe.vae.config) <= small
        self.map: tuple | None = None

    @torch.no_grad()
    def __call__(self, x0: torch.Tensor) -> Image.Image:
        """x0: (1, c, h, w), scaled. Returns a picture of f h x f w pixels if it is decoded, else of h x w."""
        if self.decodes:
            return to_pil(editing.decode_latents(self.pipe, x0))[0]
        if self.map is None:
            pages = book.pictures(book.sample_scene(number) for number in range(8))
            pages = torch.nn.functional.interpolate(pages, scale_factor=4, mode="nearest").to(self.pipe.vae.device)
            z = latents.encode(self.pipe.vae, pages.to(self.pipe.vae.dtype)).float()
            self.map = latents.fit_colours(z, pages.float())
        return to_pil(latents.as_colours(x0.float(), *self.map).clamp(-1, 1))[0]
