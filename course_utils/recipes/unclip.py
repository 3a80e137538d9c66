"""The decoder of unCLIP: the picture-book model, told the CLIP embedding of a page beside its caption."""

from collections.abc import Callable
from pathlib import Path

import torch

from course_utils.diffusion.guidance import drop_prompts
from course_utils.diffusion.objectives import noise_prediction_loss, v_from_x0_eps
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.machine.devices import placed
from course_utils.models.prior import condition, mean_and_std
from course_utils.pipelines.picture_book import CHECKPOINTS
from course_utils.pipelines.unclip import FILE, UnCLIP, load_decoder, new_decoder
from course_utils.recipes.clip import clip_of
from course_utils.recipes.prior import EMBEDDER, load_prior, page_embeddings
from course_utils.recipes.task import Task, plain_attention, save_half
from course_utils.recipes.unet import PromptedLatents, picture_book_of
from course_utils.text.tokens import tokenize
from course_utils.training import Samples

CAPTIONS_DROPPED, EMBEDDINGS_DROPPED = 0.5, 0.1  # arXiv:2204.06125, section 2.1


def unclip_loss(
    model: Callable,
    x0: torch.Tensor,
    words: torch.Tensor,
    null: torch.Tensor,
    embedding: torch.Tensor,
    t: torch.Tensor,
    eps: torch.Tensor,
    uniforms: torch.Tensor,
    alpha_bar: torch.Tensor,
) -> torch.Tensor:
    """Return the loss of a decoder that predicts v from a caption and an image embedding: with gradients, shape ().

        L = mean of (v - model(x_t, t, [c', e']))^2,   v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x0
        c' = c, or the empty caption in half of the samples;   e' = e, or 0 in a tenth of them

    x0, eps: (batch, channels, height, width); t: (batch,). words: (batch, length, width), the captions' word states;
    null: (1, length, width), those of the empty caption. embedding: (batch, width), those of the pictures themselves.
    uniforms: (batch, 2), which decide what is dropped. arXiv:2204.06125, section 2.1.
    """
    words = drop_prompts(words, null, uniforms[:, 0], CAPTIONS_DROPPED)
    embedding = drop_prompts(embedding, torch.zeros_like(embedding[:1]), uniforms[:, 1], EMBEDDINGS_DROPPED)
    v_hat = model(add_noise(x0, eps, t, alpha_bar), t, condition(words, embedding))
    return noise_prediction_loss(v_hat, v_from_x0_eps(x0, eps, t, alpha_bar)).mean()


def build_unclip(folder: Path, device: torch.device) -> Task:
    """L = |v - v_hat|^2; trained are a LoRA in the U-Net and what tells it the embedding.

    Model and CLIP are those in `folder`, or the shipped ones where `folder` has none.
    """
    pipe = picture_book_of(folder, device)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).eval()
    data = PromptedLatents(folder, pipe.vae, pipe.tokenizer, dropped=0.0)
    clip, _ = clip_of(folder, EMBEDDER)
    _, embeddings = page_embeddings(folder, clip.to(device))
    model = new_decoder(pipe.unet, clip.config.projection_dim)
    for buffer, value in zip((model.mean, model.std), mean_and_std(embeddings), strict=True):
        buffer.copy_(value)
    model = placed(model, device)
    alpha_bar = alpha_bar_from_beta(scaled_linear_beta()).to(device)
    with torch.no_grad():
        null = pipe.text_encoder(tokenize(pipe.tokenizer, [""]).to(device)).last_hidden_state

    def loss(model, samples: Samples):
        x0, tokens = (part.to(device) for part in data(samples))
        embedding = embeddings[data.which(samples)].to(device)
        t = samples.integers(len(alpha_bar), stream=3).to(device)
        eps = samples.normals(*x0.shape[1:], stream=4).to(device)
        uniforms = samples.uniforms(2, stream=5).to(device)
        with torch.no_grad():
            words = pipe.text_encoder(tokens).last_hidden_state
        with plain_attention(device):
            return unclip_loss(model, x0, words, null, embedding, t, eps, uniforms, alpha_bar)

    def begin():
        finished = load_decoder(pipe.unet, folder / "unclip").state_dict()
        model.load_state_dict({**finished, "mean": model.mean, "std": model.std})

    def export(model):
        save_half(model, folder / "unclip", FILE)

    return Task(model, loss, export, begin)


def load_unclip(folder: Path | str = CHECKPOINTS / "unclip", device: torch.device | str | None = None) -> UnCLIP:
    """The whole system around the decoder in `folder`, in float32 on the device (None: the CPU).

    Its picture-book model, CLIP and prior are those beside the folder; the shipped ones where there are none.
    Raises ValueError, in one sentence, if a part is missing or cannot be read.
    """
    home = Path(folder).absolute().parent
    prior = (home if (home / "prior" / "config.json").exists() else CHECKPOINTS) / "prior"
    pipe = picture_book_of(home, device)
    clip, _ = clip_of(home, EMBEDDER)
    decoder = load_decoder(pipe.unet, folder)
    return UnCLIP(pipe, clip.to(pipe.device), load_prior(prior).to(pipe.device), decoder)
