"""Editing with a pipeline of diffusers' parts: picture to picture, inside a mask, from given noise, with other words.

The loops are written out and give what `StableDiffusionImg2ImgPipeline` and `StableDiffusionInpaintPipeline` give.
Shapes: pictures (n, 3, height, width) in [-1, 1]; latents (n, channels, h, w), scaled. Masks:
(n or 1, 1, height, width), 1 = paint again. In all functions

- `prompt` and `negative_prompt` are one text for all pictures, a list with one for each, or hidden states, of shape
  (n or 1, tokens, width);
- `generator` is one for all pictures, or a list with one for each;
- `scheduler` is any of diffusers'; a copy of it is set up for the steps. None: the course's "ddim";
- `on_step(done, total)` is called after each evaluation of the U-Net.

What cannot be drawn with raises ValueError before anything is drawn.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator

import torch

from course_utils.diffusion import editing, latents, samplers
from course_utils.diffusion.objectives import as_eps
from course_utils.pipelines.attention_maps import injected_maps, recorded_maps
from course_utils.pipelines.picture_book import check_size, enlargement, make_scheduler
from course_utils.shapes import require_pictures
from course_utils.text import tokens

KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}  # diffusers' names of what is predicted, and ours
Prompt = str | list[str] | torch.Tensor
Generators = torch.Generator | list[torch.Generator]
Report = Callable[[int, int], None] | None


def picture_to_picture(
    pipe, pictures: torch.Tensor, prompt: Prompt, strength: float, generator: Generators, **how
) -> torch.Tensor:
    """Return pictures drawn again, from noisy versions of the given ones; how: see `redraw`.

    strength: from 0 to 1, the share of the steps that are taken, and with it how noisy the given ones are made first.
    SDEdit (arXiv:2108.01073). Raises ValueError for a strength that leaves no step.
    """
    x0 = encode_pictures(pipe, pictures, generator)
    return decode_latents(pipe, redraw(pipe, x0, prompt, strength, generator, **how))


@torch.no_grad()
def redraw(
    pipe,
    x0: torch.Tensor,
    prompt: Prompt,
    strength: float,
    generator: Generators,
    negative_prompt: Prompt = "",
    guidance: float = 4.0,
    steps: int = 20,
    scheduler=None,
    on_step: Report = None,
) -> torch.Tensor:
    """Return latents drawn from noisy x0 (n, c, h, w): `picture_to_picture` without the autoencoder.

        x_t = add_noise(x0, eps, t),   t the first of `remaining_times`;   then the scheduler's steps from there

    Of `steps` steps int(steps strength) are taken. Even strength 1 starts with a trace of x0, since alpha_bar is not
    quite 0 at the first time. Equal to diffusers' `StableDiffusionImg2ImgPipeline`, but for PNDM (see `begin`).
    """
    model, cond = _guided(pipe, prompt, negative_prompt, guidance, x0)
    scheduler, times = begin(pipe, scheduler, steps, strength)
    noise = samplers.draw_noise(x0.shape, generator).to(x0)
    x_t = scheduler.add_noise(x0, noise, times[:1].expand(len(x0)))
    return _denoise(scheduler, times, model, cond, x_t, generator, on_step)


def inpaint(
    pipe,
    pictures: torch.Tensor,
    mask: torch.Tensor,
    prompt: Prompt,
    generator: Generators,
    strength: float = 1.0,
    **how,
) -> torch.Tensor:
    """Return the pictures with the inside of the mask drawn again, and the outside as it was, to the bit.

    how: see `redraw_inside`. Raises ValueError for a mask of another size, or without anything to paint.
    """
    require_mask_for(pipe, mask, pictures)
    x0 = encode_pictures(pipe, pictures, generator)
    inside = editing.mask_to_latents(mask.to(x0.device), (x0.shape[2], x0.shape[3]))
    drawn = decode_latents(pipe, redraw_inside(pipe, x0, inside, prompt, generator, strength, **how))
    return editing.paste(drawn, pictures.to(drawn), mask.to(drawn.device))


@torch.no_grad()
def redraw_inside(
    pipe,
    x0: torch.Tensor,
    mask: torch.Tensor,
    prompt: Prompt,
    generator: Generators,
    strength: float = 1.0,
    negative_prompt: Prompt = "",
    guidance: float = 4.0,
    steps: int = 20,
    scheduler=None,
    back_and_forth: int = 1,
    on_step: Report = None,
) -> torch.Tensor:
    """Return latents drawn inside the mask (n or 1, 1, h, w), and x0 (n, c, h, w) outside: `inpaint` in latents.

    After each step the outside is replaced by x0 with the noise that is left. Strength 1 starts from pure noise.
    back_and_forth above 1: each step so many times, see `editing.repaint`; these steps are DDIM's. Equal to diffusers'
    `StableDiffusionInpaintPipeline`, which blends if the U-Net has four channels (with nine it is one that was trained
    to be given mask and picture), but for PNDM (see `begin`) and DDPM, where the noises differ. Raises ValueError if
    back_and_forth is below 1, or above 1 with a scheduler.
    """
    if back_and_forth != 1 and scheduler is not None:
        raise ValueError("Expected no scheduler where steps are taken back and forth: they are DDIM's; leave it out.")
    x0 = x0.contiguous()  # as diffusers lays it out: then all roundings are the same
    mask = mask.to(x0)
    model, cond = _guided(pipe, prompt, negative_prompt, guidance, x0)
    scheduler, times = begin(pipe, scheduler, steps, strength)
    noise = samplers.draw_noise(x0.shape, generator).to(x0)
    x_t = scheduler.add_noise(x0, noise, times[:1].expand(len(x0)))
    if strength == 1:
        x_t = noise * scheduler.init_noise_sigma
    if back_and_forth != 1:
        model, alpha_bar = _as_eps(pipe, model), pipe.scheduler.alphas_cumprod
        walk = editing.repaint(
            model, x_t, x0, noise, mask, alpha_bar, times.tolist(), generator, cond, back_and_forth=back_and_forth
        )
        return samplers.finish(_reporting(walk, (len(times) - 1) * back_and_forth + 1, on_step))

    def blend(x_t, t):
        known = x0 if t is None else scheduler.add_noise(x0, noise, t.expand(len(x0)))
        return mask * x_t + (1 - mask) * known

    return _denoise(scheduler, times, model, cond, x_t, generator, on_step, blend)


def draw_from(pipe, x_T: torch.Tensor, prompt: Prompt, **how) -> torch.Tensor:
    """Return the pictures that are drawn from given noise x_T (n, c, h, w); how: see `draw_latents`."""
    return decode_latents(pipe, draw_latents(pipe, x_T, prompt, **how))


@torch.no_grad()
def draw_latents(
    pipe,
    x_T: torch.Tensor,
    prompt: Prompt,
    negative_prompt: Prompt = "",
    guidance: float = 4.0,
    steps: int = 20,
    scheduler=None,
    generator: Generators | None = None,
    on_step: Report = None,
) -> torch.Tensor:
    """Return the latents that are drawn from x_T (n, c, h, w): standard normal, mixed with `slerp`, or of `invert`.

    generator: for schedulers that draw noise at each step.
    """
    x_T = x_T.to(pipe.unet.device, pipe.unet.dtype)
    model, cond = _guided(pipe, prompt, negative_prompt, guidance, x_T)
    scheduler, times = begin(pipe, scheduler, steps, 1)
    return _denoise(scheduler, times, model, cond, x_T * scheduler.init_noise_sigma, generator, on_step)


@torch.no_grad()
def invert(
    pipe, pictures: torch.Tensor, prompt: Prompt, negative_prompt: Prompt = "", guidance: float = 1.0, steps: int = 20
) -> torch.Tensor:
    """Return the noise x_T (n, c, h, w) from which DDIM would draw these pictures: `samplers.ddim_inversion`.

    `draw_from` it, with the same prompts, steps and guidance, gives nearly the pictures. Guidance above 1 enlarges the
    error of each step. DDIM (arXiv:2010.02502), section 4.3. Raises ValueError for more steps than there are times.
    """
    x0 = encode_pictures(pipe, pictures)
    model, cond = _guided(pipe, prompt, negative_prompt, guidance, x0)
    alpha_bar = pipe.scheduler.alphas_cumprod
    times = samplers.trailing_times(len(alpha_bar), steps)
    return samplers.finish(samplers.ddim_inversion(_as_eps(pipe, model), x0, alpha_bar, times, cond))


def change_words(
    pipe, x_T: torch.Tensor, prompt: str, new_prompt: str, share: float = 0.8, self_share: float = 0.4, **how
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pictures of `prompt` drawn from x_T, and those of `new_prompt`, which keep what it does not change.

    While the first are drawn, their attention maps are recorded. In the first `share` of the steps of the second, each
    token with a partner in the old prompt (`editing.align_tokens`) is given its partner's map; in the first
    `self_share`, the maps of pixels to pixels are the old ones. how: see `draw_latents`. Prompt-to-prompt
    (arXiv:2208.01626). All maps stay in memory: megabytes for pictures of 64 x 64, gigabytes for 512 x 512.
    Raises ValueError for shares outside [0, 1].
    """
    old, new = tokens.tokenize(pipe.tokenizer, [prompt, new_prompt]).tolist()
    with recorded_maps(pipe.unet, len(x_T), of_pixels=self_share > 0) as kept:
        before = draw_from(pipe, x_T, prompt, **how)
    with injected_maps(pipe.unet, kept, editing.align_tokens(old, new), share, self_share):
        return before, draw_from(pipe, x_T, new_prompt, **how)


def begin(pipe, scheduler, steps: int, strength: float):
    """Return (scheduler, times): a copy that is ready to take the last int(steps strength) of `steps` steps, and when.

    A step of two evaluations (Heun) counts once. PNDM evaluates its second time twice; here it does so wherever it
    begins, while diffusers' pipelines leave that out at strengths below 1 and are then a step behind. Raises ValueError
    if no step is left.
    """
    scheduler = make_scheduler("ddim", pipe.scheduler.config) if scheduler is None else copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps, device=pipe.unet.device)
    taken = len(editing.remaining_times(range(steps), strength))
    if not taken:
        raise ValueError(
            f"Expected a strength that leaves at least one of {steps} steps, but got {strength}: "
            "choose a higher one, or more steps."
        )
    if hasattr(scheduler, "plms_timesteps") and scheduler.config.skip_prk_steps:  # others may keep PNDM's settings
        first, *rest = editing.remaining_times(list(dict.fromkeys(scheduler.timesteps.tolist())), strength)
        scheduler.timesteps = scheduler.timesteps.new_tensor([first, *rest[:1], *rest])
        return scheduler, scheduler.timesteps
    skipped = (steps - taken) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    return scheduler, scheduler.timesteps[skipped:]


def _denoise(scheduler, times, model, cond, x_t, generator, on_step=None, blend=None) -> torch.Tensor:
    """Take the scheduler's steps at `times`; after each, x_t = blend(x_t, time that it has reached; None: 0)."""
    # the same question that diffusers' pipelines ask: not every scheduler draws noise
    draws = "generator" in inspect.signature(scheduler.step).parameters
    for number, t in enumerate(times, start=1):
        output = model(scheduler.scale_model_input(x_t, t), t.expand(len(x_t)), cond)
        x_t = scheduler.step(output, t, x_t, **({"generator": generator} if draws else {})).prev_sample
        if blend is not None:
            x_t = blend(x_t, times[number] if number < len(times) else None)
        if on_step is not None:
            on_step(number, len(times))
    return x_t


def _reporting(walk: Iterable, total: int, on_step: Report) -> Iterator:
    for number, step in enumerate(walk, start=1):
        if on_step is not None:
            on_step(number, total)
        yield step


def _guided(pipe, prompt: Prompt, negative_prompt: Prompt, guidance: float, x: torch.Tensor) -> tuple:
    """Return (model, cond) for `_denoise`: the U-Net with guidance, and the prompts, one for each of x (n, ...)."""

    def unet(x_t, t, cond):
        return pipe.unet(x_t, t, encoder_hidden_states=cond).sample

    null, cond = (hidden_states(pipe, words, len(x)).to(x) for words in (negative_prompt, prompt))
    return samplers.guided(unet, null, guidance), cond


def _as_eps(pipe, model: Callable) -> Callable:
    kind = pipe.scheduler.config.prediction_type
    return as_eps(model, KINDS.get(kind, kind), pipe.scheduler.alphas_cumprod)


@torch.no_grad()
def hidden_states(pipe, prompt: Prompt, count: int) -> torch.Tensor:
    """Return what the U-Net reads of `count` prompts, (count, tokens, width): encoded, if they are not yet.

    Raises ValueError for another number of prompts.
    """
    if isinstance(prompt, str):
        prompt = [prompt] * count
    if len(prompt) not in (1, count):
        raise ValueError(f"Expected one prompt, or one for each of {count} pictures, but got {len(prompt)}.")
    if not isinstance(prompt, torch.Tensor):
        prompt = tokens.encode(pipe.tokenizer, pipe.text_encoder, prompt)
    return prompt.expand(count, -1, -1)


@torch.no_grad()
def encode_pictures(pipe, pictures: torch.Tensor, generator: Generators | None = None) -> torch.Tensor:
    """Return scaled latents: a sample of q(z|x), as diffusers' pipelines draw it, or without generator its mean.

    Raises ValueError for pictures that are not in [-1, 1], or of a size that the model is not made for.
    """
    require_fit(pipe, pictures)
    pictures = pictures.to(pipe.vae.device, pipe.vae.dtype)
    if not isinstance(generator, list):
        return latents.encode(pipe.vae, pictures, generator)
    if len(generator) != len(pictures):
        raise ValueError(f"Expected one generator for each of {len(pictures)} pictures, but got {len(generator)}.")
    return torch.cat([latents.encode(pipe.vae, x, each) for x, each in zip(pictures.split(1), generator, strict=True)])


@torch.no_grad()
def decode_latents(pipe, z: torch.Tensor) -> torch.Tensor:
    """Return the pictures of latents, (n, 3, height, width), float32, held in [-1, 1]."""
    return latents.decode(pipe.vae, z.to(pipe.vae.dtype)).float().clamp(-1, 1)


def require_fit(pipe, pictures: torch.Tensor) -> None:
    """Raise ValueError unless these are pictures (n, 3, height, width) in [-1, 1], of a size that can be drawn."""
    require_pictures(pictures)
    if not len(pictures) or pictures.shape[1] != 3:
        raise ValueError(f"Expected pictures of 3 channels, red, green and blue, but got {tuple(pictures.shape)}.")
    check_size(pipe.unet.config, pipe.vae.config, pictures.shape[3], pictures.shape[2])
    lowest, highest = pictures.min(), pictures.max()
    if not (lowest >= -1 and highest <= 1):
        raise ValueError(
            f"Expected pictures in [-1, 1], but got {lowest:.3g} to {highest:.3g}. From bytes: x.float() / 127.5 - 1."
        )


def require_mask_for(pipe, mask: torch.Tensor, pictures: torch.Tensor) -> None:
    """Raise ValueError unless the mask has the pictures' size and something to paint for each, in latents too."""
    require_fit(pipe, pictures)
    editing.require_mask(mask)
    height, width = pictures.shape[2:]
    if len(mask) not in (1, len(pictures)) or mask.shape[2:] != (height, width):
        raise ValueError(
            f"Expected a mask of shape ({len(pictures)} or 1, 1, {height}, {width}), as the pictures, but got "
            f"{tuple(mask.shape)}. Resize the mask."
        )
    factor = enlargement(pipe.vae.config)
    inside = editing.mask_to_latents(mask, (height // factor, width // factor))
    if not inside.flatten(1).any(1).all():
        raise ValueError(
            f"Expected a mask with something to paint, but no latent would be painted: make a region of at least "
            f"{factor} x {factor} pixels 1."
        )
