"""Stable Diffusion 3 and Flux, drawn by the course's own loop: diffusers' parts, `flow.euler` between them.

A pipeline is diffusers' `StableDiffusion3Pipeline` or `FluxPipeline`, of which the parts are used, not the call. Both
are the loop of Stable Diffusion v1.5 with three things exchanged: a velocity in place of eps, a transformer in place of
the U-Net, and more text encoders. Sources: Esser et al., arXiv:2403.03206; Black Forest Labs, FLUX.1 (2024, no paper).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from course_utils.diffusion import flow
from course_utils.diffusion.guidance import guide
from course_utils.diffusion.samplers import draw_noise, finish
from course_utils.models.dit import patchify, unpatchify

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from diffusers import FluxPipeline, StableDiffusion3Pipeline


def first_noise(pipe, count: int, generator: torch.Generator | list[torch.Generator], side: int | None = None):
    """Return the noise that `count` square pictures are drawn from: (count, channels, h, h), h = side / vae factor.

    side: in pixels; None: the size that the transformer was trained on. Raises ValueError for a side whose latents
    cannot be cut into patches of 2 x 2.
    """
    factor = pipe.vae_scale_factor
    side = side or pipe.default_sample_size * factor
    if side % (2 * factor):
        raise ValueError(f"Expected a side that {2 * factor} divides, got {side} pixels.")
    return draw_noise((count, pipe.vae.config.latent_channels, side // factor, side // factor), generator)


def sd3_times(pipe: "StableDiffusion3Pipeline", steps: int) -> torch.Tensor:
    """Return the times of Stable Diffusion 3: `flow_times` with the scheduler's shift, which is 3; (steps + 1,).

    Left to itself the scheduler shifts its smallest time twice; so do we, to draw the same pictures.
    """
    shift = pipe.scheduler.config.shift
    last = flow.shift_times(torch.tensor(1 / pipe.scheduler.config.num_train_timesteps, dtype=torch.float64), shift)
    return flow.flow_times(steps, shift, last.item())


def flux_times(pipe: "FluxPipeline", steps: int, tokens: int) -> torch.Tensor:
    """Return the times of Flux: `flow_times`, shifted the more, the more patches there are; (steps + 1,).

        shift = exp(mu),   mu on the line through (256, 0.5) and (4096, 1.15)

    tokens: the number of 2 x 2 patches. The line's ends are the scheduler's settings. Without dynamic shifting, as in
    the few-step FLUX.1 [schnell], the scheduler's fixed shift counts.
    """
    config = pipe.scheduler.config
    if not config.use_dynamic_shifting:
        return flow.flow_times(steps, config.shift)
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    mu = config.base_shift + slope * (tokens - config.base_image_seq_len)
    return flow.flow_times(steps, math.exp(mu))


@torch.no_grad()
def draw_sd3(
    pipe: "StableDiffusion3Pipeline",
    prompts: Sequence[str],
    x_1: torch.Tensor,
    steps: int = 28,
    guidance: float = 7.0,
    negative: str = "",
) -> torch.Tensor:
    """Draw a picture for each prompt from noise x_1 (n, channels, h, h): (n, 3, height, width), in about [-1, 1].

        u = guide(u(x_t, t, negative), u(x_t, t, prompt), guidance);   x_t by Euler's method;   decode(x_0 / a + b)

    a, b: the autoencoder's scaling and shift. The words are those of two CLIPs, side by side, and behind them T5's
    (zeros, if the pipeline has been loaded without T5); the vector that is added to the time is that of both CLIPs.
    x_1 is float32, on the device where the parts work, whatever their number format. `StableDiffusion3Pipeline` draws
    the same.
    """
    both = [negative] * len(prompts) + list(prompts)  # at once, so that each text encoder is needed only once
    words, _, pooled, _ = pipe.encode_prompt(both, None, None, x_1.device, do_classifier_free_guidance=False)
    told = {"encoder_hidden_states": words, "pooled_projections": pooled}

    def velocity(x_t, t, _):
        twice = torch.cat([x_t, x_t]).to(pipe.transformer.dtype)
        null, cond = pipe.transformer(twice, timestep=1000 * torch.cat([t, t]), **told).sample.to(x_t).chunk(2)
        return guide(null, cond, guidance)

    return _decode(pipe, finish(flow.euler(velocity, x_1, sd3_times(pipe, steps))))


@torch.no_grad()
def draw_flux(
    pipe: "FluxPipeline", prompts: Sequence[str], x_1: torch.Tensor, steps: int = 28, guidance: float = 3.5
) -> torch.Tensor:
    """Draw a picture for each prompt from noise x_1 (n, channels, h, h): (n, 3, height, width), in about [-1, 1].

    The words are T5's, the vector that is added to the time is CLIP's. There is one evaluation a step: guidance has
    been distilled into the network, which is told w as it is told the time (FLUX.1 [dev]; [schnell] is not). Patches of
    2 x 2 latents are cut before the transformer, which rotates queries and keys by row and column for positions.
    x_1 is float32, on the device where the parts work, whatever their number format. `FluxPipeline` draws the same,
    told [schnell]'s number of words.
    """
    tells_w = pipe.transformer.config.guidance_embeds
    length = 512 if tells_w else 256  # words that T5 pads a prompt to, in [dev] and in [schnell]
    words, pooled, text_ids = pipe.encode_prompt(list(prompts), None, x_1.device, max_sequence_length=length)
    side = x_1.shape[-1] // 2
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    places = torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).to(x_1)  # (patches, 3)
    told = {
        "encoder_hidden_states": words,
        "pooled_projections": pooled,
        "txt_ids": text_ids,
        "img_ids": places,
        "guidance": torch.full((len(x_1),), float(guidance), device=x_1.device) if tells_w else None,
    }

    def velocity(tokens, t, _):
        return pipe.transformer(tokens.to(pipe.transformer.dtype), timestep=t, **told).sample.to(tokens)

    tokens = finish(flow.euler(velocity, patchify(x_1, 2), flux_times(pipe, steps, side**2)))
    return _decode(pipe, unpatchify(tokens, 2))


def _decode(pipe, x_0: torch.Tensor) -> torch.Tensor:
    config = pipe.vae.config
    image = pipe.vae.decode((x_0 / config.scaling_factor + config.shift_factor).to(pipe.vae.dtype)).sample
    pipe.maybe_free_model_hooks()  # with offload: the last part leaves the GPU, too
    return image.to(x_0)
