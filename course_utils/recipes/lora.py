"""Teaching the picture-book model a new subject by a LoRA, without its forgetting the others."""

import contextlib
from collections.abc import Iterator, Sequence

import torch

from course_utils.data import picture_book as book
from course_utils.diffusion.objectives import noise_prediction_loss, v_from_x0_eps
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.models.lora import ATTENTION, LoRALinear, add_lora
from course_utils.recipes.task import plain_attention
from course_utils.recipes.unet import PromptedUNet
from course_utils.recipes.vae import encode_pictures
from course_utils.text.tokens import tokenize
from course_utils.training import Record, Samples, train

# where and how a new subject is shown, so that the other four of each are left to ask for
SHOWN_PLACES, SHOWN_COLOURS = ("grass", "snow", "room", "night"), (None, "blue", "yellow", "white")
OLD_PAGES = 200
# attention decides where a thing is and what is around; the layers after it, which have more room, how it looks
TARGETS = (*ATTENTION, "ff.net.0.proj", "ff.net.2")
CAPTIONS = 8  # paraphrases of each page


def pages_of(
    kind: str,
    count: int,
    places: Sequence[str] = SHOWN_PLACES,
    colours: Sequence[str | None] = SHOWN_COLOURS,
    seed: int = 0,
) -> list[book.Scene]:
    """`count` pages with one thing of that kind each, in all of the places and colours in turn."""
    return [
        book.Scene(
            (book.Thing(kind, colours[n // len(places) % len(colours)]),), places[n % len(places)], 1000 * seed + n
        )
        for n in range(count)
    ]


def teach(
    pipe,
    scenes: Sequence[book.Scene],
    rank: int = 8,
    steps: int = 300,
    batch: int = 8,
    old: float = 0.25,
    learning_rate: float = 5e-3,
    seed: int = 0,
) -> Iterator[Record]:
    """Put a LoRA into the pipeline's U-Net and train it on pages of a new subject; yield a `Record` after each update.

        L = mean of (v - v_hat)^2;   on old pages, v is what the U-Net answers without the LoRA

    The text encoder stays as it is. `old`: the share of each batch, rounded, that are pages of the world as it was, a
    tenth of them without prompt: the prior preservation of DreamBooth (arXiv:2208.12242, equation 2), there with
    pictures that the model has drawn, here with what it answers to noisy pages, which is less noisy a target and costs
    no drawing. 0 for none of it: then other prompts suffer.

    The same arguments give the same LoRA, and its A and B are all that changes. Raises ValueError if there is no scene,
    if nothing of the batch is left for the new pages, and for a rank that no LoRA can have.
    """
    kept = round(old * batch)
    if not scenes:
        raise ValueError("Expected pages of a new subject, got none: give some, such as pages_of('fox', 48).")
    if not 0 <= kept < batch:
        raise ValueError(
            f"Expected a share of old pages that leaves room for new ones, got {old} of a batch of {batch}, so "
            f"{kept} old ones: choose a smaller share."
        )
    layers = add_lora(pipe.unet, rank, targets=TARGETS, generator=torch.Generator().manual_seed(seed))
    for part in (pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    shown = [*scenes, *(book.sample_scene(n) for n in range(OLD_PAGES if kept else 0))]
    x0_of_all = pipe.vae.config.scaling_factor * encode_pictures(pipe.vae, book.pictures(shown))
    alpha_bar = alpha_bar_from_beta(scaled_linear_beta()).to(pipe.device)

    def loss(model, samples: Samples):
        is_old = torch.from_numpy(samples.numbers % batch) < kept
        which = torch.where(
            is_old, len(scenes) + samples.integers(max(1, len(shown) - len(scenes))), samples.integers(len(scenes))
        )
        captions = [book.caption(shown[n], k).text for n, k in zip(which, samples.integers(CAPTIONS, 1), strict=True)]
        dropped = is_old & (samples.uniforms(stream=2) < 0.1)
        tokens = tokenize(pipe.tokenizer, ["" if d else text for d, text in zip(dropped, captions, strict=True)])
        x0, t = x0_of_all[which].to(pipe.device), samples.integers(len(alpha_bar), stream=3).to(pipe.device)
        eps = samples.normals(*x0.shape[1:], stream=4).to(pipe.device)
        x_t, v = add_noise(x0, eps, t, alpha_bar), v_from_x0_eps(x0, eps, t, alpha_bar)
        with torch.no_grad():
            cond = pipe.text_encoder(tokens.to(pipe.device)).last_hidden_state
            if kept:
                with _without(layers):
                    v[is_old] = pipe.unet(x_t[is_old], t[is_old], cond[is_old]).sample
        with plain_attention(pipe.device):
            return noise_prediction_loss(model(x_t, t, cond), v).mean()

    return _until_done(
        pipe.unet,
        train(
            PromptedUNet(pipe.unet), loss, steps=steps, batch=batch, seed=seed, learning_rate=learning_rate, warmup=20
        ),
    )


@contextlib.contextmanager
def _without(layers: Sequence[LoRALinear]) -> Iterator[None]:
    """Within the block, the LoRAs do not count."""
    weights = [layer.weight for layer in layers]
    try:
        for layer in layers:
            layer.weight = 0.0
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = weight


def _until_done(unet, records: Iterator[Record]) -> Iterator[Record]:
    """Hand the records on; afterwards the U-Net is ready to draw again."""
    try:
        yield from records
    finally:
        unet.eval()
