"""The U-Net that predicts v in noisy latents, given a prompt."""

from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from course_utils.data import picture_book as book
from course_utils.diffusion.objectives import noise_prediction_loss, v_from_x0_eps
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.machine.devices import autocast_dtype, placed
from course_utils.pipelines.picture_book import PICTURE_BOOK, assemble, load_picture_book, save_pipeline
from course_utils.recipes.clip import load_clip
from course_utils.recipes.kept import fingerprint, kept
from course_utils.recipes.pictures import CAPTIONS_PER_SCENE, picture_set, scene_count, which_caption
from course_utils.recipes.task import Task, plain_attention, require_trained
from course_utils.recipes.vae import LATENT_CHANNELS, encode_pictures
from course_utils.text.tokens import tokenize
from course_utils.training import Samples

PLAIN = "picture book"  # the style of four pages in seven


def small_unet():
    """A `UNet2DConditionModel` in small: 8 x 16 x 16 latents, two attention layers each at 8 x 8 and in the middle."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        transformer_layers_per_block=2,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


class PromptedUNet(nn.Module):
    """The U-Net as the course calls its models: model(x_t, t, cond) -> v_hat."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, x_t, t, cond):
        return self.unet(x_t, t, cond).sample


class ReadAndPredict(PromptedUNet):
    """U-Net and text encoder as one model: model(x_t, t, tokens) -> v_hat."""

    def __init__(self, unet, text_encoder):
        super().__init__(unet)
        self.text_encoder = text_encoder

    def forward(self, x_t, t, tokens):
        with plain_attention(x_t.device):
            return super().forward(x_t, t, self.text_encoder(tokens).last_hidden_state)


def build_unet(folder: Path, device: torch.device) -> Task:
    """L = |v - v_hat|^2 in the latents, all times equally often.

    A network that answers with the noise must tell almost pure noise from pure noise at the first steps of drawing, and
    these decide what the picture shows: after the same training it follows far fewer prompts (`benchmarks/recipe.py`).

    The text encoder begins as CLIP's and is trained on, as in latent diffusion (arXiv:2112.10752, equation 3; Stable
    Diffusion keeps it as it is): its contrastive training hardly asks who is left of whom.
    """
    vae, text_encoder, tokenizer = load_trained(folder, device)
    data = PromptedLatents(folder, vae, tokenizer)
    alpha_bar = alpha_bar_from_beta(scaled_linear_beta()).to(device)
    model = placed(ReadAndPredict(small_unet(), text_encoder.requires_grad_(True)), device)

    def loss(model, samples):
        x0, tokens = (part.to(device) for part in data(samples))
        t = samples.integers(len(alpha_bar), stream=3).to(device)
        eps = samples.normals(*x0.shape[1:], stream=4).to(device)
        v_hat = model(add_noise(x0, eps, t, alpha_bar), t, tokens)
        return noise_prediction_loss(v_hat, v_from_x0_eps(x0, eps, t, alpha_bar)).mean()

    def begin():
        finished = load_picture_book(folder / "picture_book")
        model.unet.load_state_dict(finished.unet.state_dict())
        model.text_encoder.load_state_dict(finished.text_encoder.state_dict())

    def export(model):
        from diffusers import UniPCMultistepScheduler

        scheduler = UniPCMultistepScheduler(
            num_train_timesteps=1000,
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            prediction_type="v_prediction",
        )
        pipeline = assemble(vae, model.text_encoder, tokenizer, model.unet, scheduler)
        save_pipeline(pipeline, folder / "picture_book")

    return Task(model, loss, export, begin)


class Prompted:
    """data(samples) -> what is known of their pages, `values[page]`, and the tokens of their prompts (batch, length).

    The whole prompt is dropped in a share of the samples. Pages in the other styles are taken three times as often as
    they are, so that each style is near a quarter, and those of several things twice as often, which are the hardest.
    """

    def __init__(
        self, scenes: list[book.Scene], values: torch.Tensor, tokenizer, dropped: float = 0.1, length: int | None = None
    ):
        self.scenes, self.values, self.tokenizer, self.dropped, self.length = scenes, values, tokenizer, dropped, length
        self.pages = torch.tensor(as_often_as_they_count(scenes))

    def which(self, samples: Samples) -> torch.Tensor:
        """Which scene each sample shows: numbers into `scenes`, (batch,)."""
        return self.pages[samples.integers(len(self.pages))]

    def __call__(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        index = self.which(samples)
        prompts = prompts_of([self.scenes[i] for i in index], samples, self.dropped)
        return self.values[index], tokenize(self.tokenizer, prompts, self.length)


class PromptedLatents(Prompted):
    """data(samples) -> scaled latents (batch, 8, 16, 16) and the tokens of their prompts (batch, length)."""

    def __init__(self, folder: Path, vae, tokenizer, dropped: float = 0.1):
        scenes, latents = training_latents(folder, vae, scene_count())
        super().__init__(scenes, latents, tokenizer, dropped)


def as_often_as_they_count(scenes: list[book.Scene]) -> list[int]:
    """The numbers of the scenes, each as often as its `weight` says."""
    return [n for n, scene in enumerate(scenes) for _ in range(weight(scene))]


def weight(scene: book.Scene) -> int:
    """How much a page counts in the training, 1 ... 6: the rarer styles three times, several things twice as much."""
    return (1 if scene.style == PLAIN else 3) * min(2, len(scene.things))


def prompts_of(scenes, samples: Samples, dropped: float) -> list[str]:
    """A caption of the scene of each sample, or, in the share `dropped`, the empty prompt."""
    prompts = [_say(scene, k) for scene, k in zip(scenes, which_caption(samples), strict=True)]
    return ["" if u < dropped else prompt for u, prompt in zip(samples.uniforms(stream=2), prompts, strict=True)]


def _say(scene: book.Scene, k: int) -> str:
    """Caption k of a scene; one that tells who is where is exchanged for another, so that half of them leave it open.

    Told only of "a ball with a cat", the network must settle by itself who goes where, or it draws one of them twice.
    """
    caption = book.caption(scene, k)
    return (caption if caption.relation is None else book.caption(scene, k + CAPTIONS_PER_SCENE)).text


def page_prompts(count: int, seed: int) -> list[str]:
    """Captions of pages of the training set, each page as often as it counts there."""
    scenes = [book.sample_scene(n) for n in range(scene_count())]
    pages, dice = as_often_as_they_count(scenes), torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(pages), (count,), generator=dice).tolist()
    return [_say(scenes[pages[n]], int(torch.randint(2 * CAPTIONS_PER_SCENE, (1,), generator=dice))) for n in chosen]


def picture_book_of(folder: Path, device: torch.device | str | None):
    """The picture-book pipeline that was trained in `folder`, or the shipped one where `folder` has none."""
    home = folder / "picture_book"
    return load_picture_book(home if (home / "unet").exists() else PICTURE_BOOK, device)


def load_trained(folder: Path, device: torch.device):
    """(autoencoder, CLIP's text encoder, tokenizer) trained in `folder`, frozen, in float32; ValueError if missing."""
    from diffusers import AutoencoderKL

    require_trained(folder, "vae", "picture_book/vae")
    require_trained(folder, "clip", "clip")
    clip, tokenizer = load_clip(folder / "clip")
    vae = AutoencoderKL.from_pretrained(folder / "picture_book" / "vae").float().to(device).requires_grad_(False)
    return vae, clip.text_model.to(device), tokenizer


def training_latents(folder: Path, vae, count: int):
    """The first `count` scenes of the training set and their scaled latents, kept in `folder/unet` for the next start.

    The latents: float32 (count, 8, 16, 16), on the CPU.
    """
    weights = fingerprint((*vae.encoder.parameters(), *vae.quant_conv.parameters()))
    number_format = autocast_dtype(vae.device)  # bfloat16 moves a latent by a hundredth of its deviation at most

    def make():
        data = picture_set(count)
        parts = tqdm(torch.arange(count).split(256), "encoding the pictures", disable=count < 2000)
        with torch.autocast(vae.device.type, number_format, enabled=number_format != torch.float32):
            latents = torch.cat([encode_pictures(vae, data.pictures(part)) for part in parts])
        return latents * vae.config.scaling_factor

    path = folder / "unet" / f"latents-{count}-{weights}.safetensors"
    latents = kept(path, "latents", (count, LATENT_CHANNELS, 16, 16), make)
    return [book.sample_scene(n) for n in range(count)], latents
