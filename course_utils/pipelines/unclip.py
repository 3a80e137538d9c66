"""unCLIP (DALL·E 2) in miniature: caption -> image embedding (the prior) -> page (the decoder).

Variations of a page, pages between two, and edits along the difference of two captions need the decoder only.
Embeddings are CLIP's, unit vectors (n, width). Pictures: (n, 3, height, width) in [-1, 1]. In all functions

- `generator` is one for all pictures, or a list with one for each;
- `prompts` are one text for all, or a list with one for each; "" tells nothing.

Source: Ramesh et al., arXiv:2204.06125.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from course_utils.diffusion import samplers
from course_utils.diffusion.editing import slerp
from course_utils.diffusion.objectives import as_eps
from course_utils.diffusion.schedules import alpha_bar_from_beta, cosine_beta
from course_utils.models.lora import EVERYWHERE, add_lora
from course_utils.models.prior import Prior, better_of_two, condition, read_caption, read_picture, to_embedding
from course_utils.models.unclip import UnCLIPUNet, with_projection
from course_utils.pipelines.editing import Generators, decode_latents, hidden_states, require_fit
from course_utils.pipelines.model_folder import give_trained, read_trained
from course_utils.pipelines.picture_book import make_scheduler
from course_utils.shapes import require_same_shape
from course_utils.text.tokens import tokenize

FILE = "model.safetensors"
RANK = 16


@dataclass(frozen=True)
class UnCLIP:
    """All parts: the picture-book pipeline, CLIP, the prior and the decoder, on one device.

    Of the pipeline the autoencoder, the text encoder, the tokenizer and the schedule are used.
    """

    pipe: Any
    clip: Any
    prior: Prior
    decoder: UnCLIPUNet


@functools.cache
def prior_alpha_bar() -> torch.Tensor:
    """The prior's noise schedule, alpha_bar (1000,): the cosine, as in the paper (diffusers: "squaredcos_cap_v2")."""
    return alpha_bar_from_beta(cosine_beta(1000))


def new_decoder(unet, width: int, seed: int = 0) -> UnCLIPUNet:
    """Return a decoder around a copy of the U-Net, which draws what that draws as long as it is told no embedding.

    Trained are a LoRA of rank 16 in its linear layers and the two projections of the embedding; the rest is frozen.
    """
    told = with_projection(unet, width)
    add_lora(told, RANK, targets=EVERYWHERE, generator=torch.Generator().manual_seed(seed))
    told.class_embedding.requires_grad_(True)
    return UnCLIPUNet(told).to(unet.device)


def load_decoder(unet, folder: Path | str) -> UnCLIPUNet:
    """Return the trained decoder around a copy of the U-Net that it was trained with; it is not to be trained.

    Raises ValueError, in one sentence, if the file is missing, cannot be read, or belongs to another U-Net.
    """
    path, what = Path(folder) / FILE, "decoder of unCLIP"
    saved = read_trained(path, what)
    width = saved["mean"].shape[-1] if "mean" in saved else 1
    return give_trained(new_decoder(unet, width), saved, path, what)


# --- embeddings


@torch.no_grad()
def embed_pictures(system: UnCLIP, pictures: torch.Tensor) -> torch.Tensor:
    """Return CLIP's embeddings of pictures, (n, width). Raises ValueError for other shapes and numbers."""
    require_fit(system.pipe, pictures)
    return read_picture(system.clip, pictures.to(system.pipe.device))


@torch.no_grad()
def embed_prompts(system: UnCLIP, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return CLIP's word states (n, length, width) and embeddings (n, width) of a list of captions."""
    return read_caption(system.clip, tokenize(system.pipe.tokenizer, list(prompts)).to(system.pipe.device))


@torch.no_grad()
def imagine(
    system: UnCLIP, prompts: Sequence[str], generator: Generators, guidance: float = 2.0, steps: int = 20
) -> torch.Tensor:
    """Return an embedding of a picture for each caption of a list, (n, width): the prior's better of two samples.

    Each is drawn by DDIM in `steps` steps from noise of its own, with classifier-free guidance.
    """
    cond, null = (condition(*embed_prompts(system, texts)) for texts in (prompts, [""]))
    text = cond[:, -1]
    first, second = (sample_prior(system.prior, cond, null, generator, guidance, steps) for _ in range(2))
    return better_of_two(first, second, text)


@torch.no_grad()
def sample_prior(
    prior: Prior, cond: torch.Tensor, null: torch.Tensor, generator: Generators, guidance: float = 2.0, steps: int = 20
) -> torch.Tensor:
    """Return one sample of the prior for each caption, (n, width), by DDIM from noise.

        z_hat = f(z_t, t, null) + w (f(z_t, t, y) - f(z_t, t, null))

    cond, null: see `prior.condition`, (n, length + 1, width) and the same of the empty caption. w: `guidance`. The
    guidance of what is predicted, z, is that of the noise, which follows from it linearly.
    """
    alpha_bar = prior_alpha_bar().to(cond.device)
    z_T = samplers.draw_noise((len(cond), cond.shape[-1]), generator).to(cond)
    model = samplers.guided(as_eps(prior, "x0", alpha_bar), null, guidance)
    z = samplers.finish(samplers.ddim(model, z_T, alpha_bar, samplers.trailing_times(len(alpha_bar), steps), cond))
    return to_embedding(z, prior.transformer.clip_mean, prior.transformer.clip_std)


def text_diff(
    embedding: torch.Tensor, text_before: torch.Tensor, text_after: torch.Tensor, share: torch.Tensor | float
) -> torch.Tensor:
    """Return an image embedding turned towards what is new in a caption: a text diff.

        e_s = slerp(e, d, s),   d = (y_after - y_before) / | y_after - y_before |

    All (n, width) or, of the texts, (1, width); unit vectors. share s: of the angle between e and d, a number or one
    for each; 0 leaves e as it is, 1 leaves nothing of it. arXiv:2204.06125, section 3.3, ends between 0.25 and 0.5.
    Raises ValueError for shapes that differ, a share outside [0, 1], and captions of the same embedding.
    """
    require_same_shape(text_before, text_after, "the embeddings of the two captions")
    difference = text_after - text_before
    if not (difference.norm(dim=1) > 1e-6).all():
        raise ValueError("Expected two captions with different embeddings, got the same; change a word of one of them.")
    share = torch.as_tensor(share, dtype=embedding.dtype, device=embedding.device)
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"Expected a share from 0 (as it was) to 1, got {share.tolist()}; 0.25 to 0.5 is usual.")
    return F.normalize(slerp(embedding, F.normalize(difference, dim=1).expand_as(embedding), share), dim=1)


# --- pages


@torch.no_grad()
def draw_embeddings(
    system: UnCLIP,
    embeddings: torch.Tensor,
    x_T: torch.Tensor,
    prompts: str | list[str] = "",
    guidance: float = 3.0,
    steps: int = 20,
    sampler: str = "unipc",
) -> torch.Tensor:
    """Return a page for each embedding, drawn from noise x_T: (n, 3, height, width) in [-1, 1].

        v = v(x_t, t, "", 0) + w (v(x_t, t, prompt, embedding) - v(x_t, t, "", 0))

    embeddings: (n, width), unit vectors, or zeros for none. x_T: (n, channels, h, w), standard normal (`first_noise`).
    w: `guidance`. sampler: a key of `picture_book.SCHEDULERS`. Raises ValueError for embeddings of another shape, for
    another number of noises or prompts, and for an unknown sampler.
    """
    pipe, count = system.pipe, len(embeddings)
    if len(x_T) != count:
        raise ValueError(f"Expected noise for each of {count} embeddings, got {len(x_T)}; see first_noise.")
    words, nothing = (hidden_states(pipe, texts, count) for texts in (prompts, ""))
    embeddings = embeddings.to(words)
    cond, null = condition(words, embeddings), condition(nothing, torch.zeros_like(embeddings))
    scheduler = make_scheduler(sampler, pipe.scheduler.config)
    scheduler.set_timesteps(steps, device=pipe.device)
    model = samplers.guided(system.decoder, null, guidance)
    x_t = x_T.to(words) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = model(scheduler.scale_model_input(x_t, t), t.expand(count), cond)
        x_t = scheduler.step(output, t, x_t).prev_sample
    return decode_latents(pipe, x_t)


def first_noise(system: UnCLIP, count: int, generator: Generators) -> torch.Tensor:
    """Return the noise that `count` pages are drawn from, (count, channels, height, width) of latents."""
    config = system.pipe.unet.config
    return samplers.draw_noise((count, config.in_channels, config.sample_size, config.sample_size), generator)


def draw(system: UnCLIP, prompts: list[str], generator: Generators, **how) -> torch.Tensor:
    """Return a page for each caption, by both stages: the prior imagines an embedding, the decoder draws it.

    The decoder is told the caption too, as in the paper. The noise it starts from is the first that a generator draws,
    the same as the picture-book model's with this seed. how: see `draw_embeddings`.
    """
    x_T = first_noise(system, len(prompts), generator)
    embeddings = imagine(system, prompts, generator)
    return draw_embeddings(system, embeddings, x_T, prompts, **how)


def vary(system: UnCLIP, picture: torch.Tensor, count: int, generator: Generators, **how) -> torch.Tensor:
    """Return `count` pages with the embedding of a picture (1, 3, height, width), each from noise of its own.

    What they share is what CLIP tells of the picture; the rest is left to chance. how: see `draw_embeddings`; without
    `prompts` no caption is told. arXiv:2204.06125, section 3.1, without the inverted noise that it starts from there.
    Raises ValueError unless there is one picture.
    """
    if len(picture) != 1:
        raise ValueError(f"Expected one picture to vary, of shape (1, 3, height, width), got {len(picture)}.")
    embedding = embed_pictures(system, picture).expand(count, -1)
    return draw_embeddings(system, embedding, first_noise(system, count, generator), **how)


def slide(
    system: UnCLIP, first: torch.Tensor, second: torch.Tensor, count: int, generator: torch.Generator, **how
) -> torch.Tensor:
    """Return `count` pages whose embeddings lie on the great circle from one picture's to another's, ends included.

    first, second: (1, 3, height, width). All start from the same noise, so that they differ by the embedding only.
    how: see `draw_embeddings`. arXiv:2204.06125, section 3.2. Raises ValueError for fewer than two pages.
    """
    if count < 2:
        raise ValueError(f"Expected at least the two ends, count = 2, but got {count}.")
    start, end = (embed_pictures(system, picture).expand(count, -1) for picture in (first, second))
    embeddings = slerp(start, end, torch.linspace(0, 1, count))
    x_T = first_noise(system, 1, generator).expand(count, -1, -1, -1)
    return draw_embeddings(system, embeddings, x_T, **how)


def change(
    system: UnCLIP,
    picture: torch.Tensor,
    before: str,
    after: str,
    shares: Sequence[float],
    generator: torch.Generator,
    **how,
) -> torch.Tensor:
    """Return a page for each share, its embedding that of the picture turned by a `text_diff` from `before` to `after`.

    picture: (1, 3, height, width); before: a caption of it, after: of what it is to become. All start from the same
    noise. how: see `draw_embeddings`. arXiv:2204.06125, section 3.3.
    """
    embedding = embed_pictures(system, picture).expand(len(shares), -1)
    first, second = embed_prompts(system, [before, after])[1].split(1)
    x_T = first_noise(system, 1, generator).expand(len(shares), -1, -1, -1)
    return draw_embeddings(system, text_diff(embedding, first, second, torch.tensor(shares)), x_T, **how)
