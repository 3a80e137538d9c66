"""The loop of Stable Diffusion, written out: prompts to features, noise, guided steps, pixels.

It drives diffusers' components, whatever their sizes, and gives what `StableDiffusionPipeline` gives.
Shapes: latents (batch, channels, height, width); text features (batch, tokens, features).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from course_utils.diffusion.guidance import guide


@torch.no_grad()
def encode_both(tokenizer, text_encoder, prompt: str, negative_prompt: str = "") -> torch.Tensor:
    """Return the text features of both prompts, the negative one FIRST: (2, tokens, features).

    Each is cut or filled up to the tokenizer's `model_max_length` tokens: 77 for Stable Diffusion v1.5.
    """
    ids = tokenizer([negative_prompt, prompt], padding="max_length", max_length=tokenizer.model_max_length,
                    truncation=True, return_tensors="pt").input_ids  # fmt: skip
    return text_encoder(ids.to(text_encoder.device)).last_hidden_state


def first_latents(
    scheduler, steps: int, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Tell the scheduler how many steps there will be, and return the noise to start from, on the generator's device.

        x_T = init_noise_sigma * eps,  eps standard normal

    `init_noise_sigma` is 1 where noisy pictures keep their variance (DDPM, DDIM, ...), and about 14.6 where noise is
    simply added (Euler, Heun); it is known only once the steps are.
    """
    scheduler.set_timesteps(steps)
    z = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
    return z * scheduler.init_noise_sigma


@torch.no_grad()
def guided_output(unet, scheduler, x_t: torch.Tensor, t, both: torch.Tensor, guidance: float) -> torch.Tensor:
    """Return the U-Net's output at (x_t, t) with classifier-free guidance of strength w, from one batch.

        out = out(negative) + w (out(prompt) - out(negative))

    x_t: (batch, ...). both: (2, tokens, features), the negative prompt first. The U-Net sees
    `scheduler.scale_model_input(x_t, t)`. Ho & Salimans (arXiv:2207.12598), whose strength is w - 1.
    """
    x_in = scheduler.scale_model_input(torch.cat([x_t, x_t]), t)
    features = both.repeat_interleave(len(x_t), 0)
    negative, positive = unet(x_in, t, encoder_hidden_states=features).sample.chunk(2)
    return guide(negative, positive, guidance)


def clean_guess(scheduler, output: torch.Tensor, t, x_t: torch.Tensor) -> torch.Tensor:
    """Return x0_hat, the clean latents that the output implies, by the scheduler's own `prediction_type`.

        epsilon:       (x - sqrt(1 - alpha_bar) out) / sqrt(alpha_bar)
        v_prediction:  sqrt(alpha_bar) x - sqrt(1 - alpha_bar) out
        sample:        out

    x: what the U-Net saw, `scheduler.scale_model_input(x_t, t)`; t: whole. Raises ValueError for another type.
    """
    x = scheduler.scale_model_input(x_t, t)
    a = scheduler.alphas_cumprod[int(t)].to(x)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (x - (1 - a).sqrt() * output) / a.sqrt()
    if kind == "v_prediction":
        return a.sqrt() * x - (1 - a).sqrt() * output
    if kind == "sample":
        return output
    raise ValueError(f"Expected prediction_type epsilon, v_prediction or sample, got {kind!r}.")


class Stage(NamedTuple):
    """After a step: the time it was taken at, the latents that it gave, and the clean guess that it aimed at."""

    t: float
    x_t: torch.Tensor
    x0_hat: torch.Tensor


@torch.no_grad()
def denoise(unet, scheduler, x_T: torch.Tensor, both: torch.Tensor, guidance: float) -> torch.Tensor:
    """Return x_0: for each of the scheduler's timesteps, compute the guided output at x_t and take the step.

    The scheduler must know its timesteps: see `first_latents`.
    """
    x_t = x_T
    for t in scheduler.timesteps:
        output = guided_output(unet, scheduler, x_t, t, both, guidance)
        x_t = scheduler.step(output, t, x_t).prev_sample
    return x_t


@torch.no_grad()
def watch(unet, scheduler, x_T: torch.Tensor, both: torch.Tensor, guidance: float) -> Iterator[Stage]:
    """The same loop as a generator: yield a `Stage` after each step."""
    x_t = x_T
    for t in scheduler.timesteps:
        output = guided_output(unet, scheduler, x_t, t, both, guidance)
        before, x_t = x_t, scheduler.step(output, t, x_t).prev_sample
        yield Stage(t.item(), x_t, clean_guess(scheduler, output, t, before))


@torch.no_grad()
def to_pixels(vae, latents: torch.Tensor) -> torch.Tensor:
    """Decode latents to whole pixels, (batch, height, width, 3) uint8.

    The decoder wants latents / scaling_factor and gives [-1, 1], roughly: mapped to 0 ... 255, held there, rounded.
    """
    pictures = vae.decode(latents / vae.config.scaling_factor).sample
    pixels = (pictures.float() / 2 + 0.5).clamp(0, 1) * 255
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
