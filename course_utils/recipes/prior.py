"""The prior of unCLIP: from a caption to the CLIP embedding of a page."""

from collections.abc import Callable
from pathlib import Path

import torch
from tqdm.auto import tqdm

from course_utils.data import picture_book as book
from course_utils.diffusion.guidance import drop_prompts
from course_utils.diffusion.objectives import noise_prediction_loss
from course_utils.diffusion.schedules import add_noise
from course_utils.models.prior import (
    Prior,
    condition,
    mean_and_std,
    read_caption,
    read_picture,
    small_prior,
    standardise,
)
from course_utils.pipelines.model_folder import REMEDY, load_network, quiet
from course_utils.pipelines.picture_book import CHECKPOINTS
from course_utils.pipelines.unclip import prior_alpha_bar
from course_utils.recipes.clip import clip_of
from course_utils.recipes.kept import fingerprint, kept
from course_utils.recipes.pictures import scene_count, training_set
from course_utils.recipes.task import Task, plain_attention, save_half
from course_utils.recipes.unet import Prompted
from course_utils.text.tokens import tokenize
from course_utils.training import Samples

FILE = "diffusion_pytorch_model.safetensors"
EMBEDDER = "embedder"  # the part whose embeddings are drawn


def prior_loss(
    model: Callable,
    x0: torch.Tensor,
    cond: torch.Tensor,
    null: torch.Tensor,
    t: torch.Tensor,
    eps: torch.Tensor,
    uniforms: torch.Tensor,
    alpha_bar: torch.Tensor,
    share: float = 0.1,
) -> torch.Tensor:
    """Return the loss of a prior, which predicts the clean embedding: a number with gradients, shape ().

        L = mean over the batch of || x0 - model(x_t, t, c') ||^2 / d,   c' = c, or null with the probability `share`

    x0: standardised image embeddings (batch, d). cond: (batch, length + 1, d), see `models.prior.condition`; null: the
    same of the empty caption, (1, length + 1, d). t, eps, uniforms: the chance in it, drawn by the caller.
    Predicting the noise instead is `diffusion.guidance.text_loss`, with the same arguments.
    Source: arXiv:2204.06125, section 2.2, whose captions are dropped in a tenth of the samples too.
    """
    x0_hat = model(add_noise(x0, eps, t, alpha_bar), t, drop_prompts(cond, null, uniforms, share))
    return noise_prediction_loss(x0_hat, x0).mean()


def build_prior(folder: Path, device: torch.device) -> Task:
    """L = |z - z_hat|^2 for standardised CLIP embeddings z; a tenth of the captions is dropped.

    The CLIP is the embedder in `folder`, or the shipped one where `folder` has none.
    """
    clip, tokenizer = clip_of(folder, EMBEDDER)
    scenes, embeddings = page_embeddings(folder, clip.to(device))
    data = Prompted(scenes, embeddings, tokenizer, dropped=0.0)
    transformer = small_prior(clip)
    with torch.no_grad():
        null = condition(*read_caption(clip, tokenize(tokenizer, [""]).to(device)))
        mean, std = mean_and_std(embeddings)
        transformer.clip_mean.copy_(mean)
        transformer.clip_std.copy_(std)
    alpha_bar = prior_alpha_bar().to(device)
    model = Prior(transformer).to(device)

    def loss(model, samples: Samples):
        embedding, tokens = data(samples)
        x0 = standardise(embedding, mean, std).to(device)
        t = samples.integers(len(alpha_bar), stream=3).to(device)
        eps = samples.normals(x0.shape[1], stream=4).to(device)
        uniforms = samples.uniforms(stream=5).to(device)
        with torch.no_grad():
            cond = condition(*read_caption(clip, tokens.to(device)))
        with plain_attention(device):
            return prior_loss(model, x0, cond, null, t, eps, uniforms, alpha_bar)

    def begin():
        model.load_state_dict(load_prior(folder / "prior").state_dict())

    def export(model):
        model.transformer.save_config(folder / "prior")
        save_half(model.transformer, folder / "prior", FILE)

    return Task(model, loss, export, begin)


def load_prior(folder: Path | str = CHECKPOINTS / "prior") -> Prior:
    """The trained prior, in float32 on the CPU and not to be trained.

    Raises ValueError, in one sentence, if there is none that can be read.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"There is no prior in {folder}: {REMEDY}.")
    with quiet():
        return Prior(load_network(folder, "diffusers", "PriorTransformer", FILE)).requires_grad_(False).eval()


def page_embeddings(folder: Path, clip) -> tuple[list[book.Scene], torch.Tensor]:
    """The scenes of the training set and the embeddings of their pages, (n, width), kept in `folder/prior`."""
    count = scene_count()
    weights = fingerprint((*clip.vision_model.parameters(), *clip.visual_projection.parameters()))

    @torch.no_grad()
    def make():
        data = training_set()
        parts = tqdm(torch.arange(count).split(64), "embedding the pictures", disable=count < 2000)
        return torch.cat([read_picture(clip, data.pictures(part).to(clip.device)).cpu() for part in parts])

    path = folder / "prior" / f"embeddings-{count}-{weights}.safetensors"
    embeddings = kept(path, "embeddings", (count, clip.config.projection_dim), make)
    return [book.sample_scene(n) for n in range(count)], embeddings
