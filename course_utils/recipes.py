"""How each part of the picture-book model is configured and trained: `train_part("vae", folder)` and so on.

A part trains in `folder/NAME/`, where its checkpoint lies, and when it is finished it is exported beside the others:
`folder/picture_book/` (the diffusers folder), `folder/clip/` and `folder/judge/`.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from course_utils.data import picture_book as book
from course_utils.devices import autocast_dtype, budget, pick_device
from course_utils.models.clip import Embed, contrastive_loss, small_clip
from course_utils.models.judge import Judge, JudgeConfig, detection_loss
from course_utils.objectives import logit_normal_times, noise_prediction_loss
from course_utils.pipelines import assemble, save_pipeline
from course_utils.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.text import encode, tokenize, train_tokenizer
from course_utils.training import MovingAverage, Record, Samples, gather, train

CHECKPOINTS = Path(__file__).parent / "checkpoints"
CAPTIONS_PER_SCENE = 8
LATENT_CHANNELS = 8  # with 4 (Stable Diffusion v1.5) eyes and windows blurred


@dataclass(frozen=True)
class Part:
    """One part of the model: what it is, how long it trains, and `build(folder, device)`, which makes the task."""

    what: str
    build: Callable
    steps: int
    batch: int
    learning_rate: float
    ema: float = 0.999


@dataclass(frozen=True)
class Task:
    """What `train` needs, and `export(model)`, which writes the trained (averaged) model for others to load."""

    model: nn.Module
    loss: Callable[[nn.Module, Samples], torch.Tensor]
    export: Callable[[nn.Module], None]


def train_part(name: str, folder: Path | str, steps: int | None = None, seed: int = 0,
               restart: bool = False) -> Iterator[Record]:
    """Train one part (a key of PARTS), yielding a record after each update, and export it at the end.

    It goes on from the checkpoint in `folder/NAME` if there is one. Raises ValueError for an unknown part, or if an
    earlier part is needed that is neither in `folder` nor shipped.
    """
    if name not in PARTS:
        raise ValueError(f"expected a part out of: {', '.join(PARTS)}; got {name!r}")
    part, folder, device = PARTS[name], Path(folder), pick_device(quiet=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        task = part.build(folder, device)
    average = MovingAverage(task.model, part.ema)
    steps = steps or budget(smoke=12, laptop=part.steps, gpu=part.steps)
    record = None
    for record in train(task.model, task.loss, steps=steps, batch=part.batch, folder=folder / name, seed=seed,
                        learning_rate=part.learning_rate, average=average, precision=autocast_dtype(device),
                        restart=restart):
        yield record
    if os.environ.get("RANK", "0") == "0":
        task.export(average.model)
        _write_record(folder / name, name, steps, seed, record)


# --- pictures ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PictureSet:
    """Scenes and their pictures, uint8 (count, 3, size, size): what the parts are trained on."""

    scenes: list
    pixels: torch.Tensor

    def pictures(self, index) -> torch.Tensor:
        """Pictures in [-1, 1], (batch, 3, size, size)."""
        return self.pixels[index].float() / 127.5 - 1


@lru_cache(maxsize=2)
def picture_set(count: int, split: str = "train", seed: int = 0) -> PictureSet:
    """Draw the first `count` scenes of a data set (see `picture_book.sample_scene`)."""
    scenes = [book.sample_scene(number, seed, split) for number in range(count)]
    drawn = [np.asarray(book.draw(scene)) for scene in tqdm(scenes, "drawing the picture book", disable=count < 2000)]
    return PictureSet(scenes, torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous())


def _scene_count() -> int:
    return budget(smoke=64, laptop=20_000, gpu=50_000)


def _training_set(split: str = "train") -> PictureSet:
    return picture_set(_scene_count(), split)


# --- the autoencoder ---------------------------------------------------------------------------------------


class Reconstruct(nn.Module):
    """Picture and noise -> reconstruction, and mean and log-variance of the latents."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, pictures, eps):
        q = self.vae.encode(pictures).latent_dist
        return self.vae.decode(q.mean + q.std * eps).sample, q.mean, q.logvar


def small_vae():
    """An `AutoencoderKL` in small: 64 x 64 pixels -> 8 x 16 x 16 latents, 6 times fewer numbers."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(in_channels=3, out_channels=3, latent_channels=LATENT_CHANNELS, sample_size=64,
                        layers_per_block=1, block_out_channels=(32, 64, 96), norm_num_groups=8,
                        mid_block_add_attention=False, down_block_types=("DownEncoderBlock2D",) * 3,
                        up_block_types=("UpDecoderBlock2D",) * 3)
    # q(z|x) begins almost without noise: with the usual log-variance of 0 the decoder would first have to learn
    # to read through noise as strong as the signal
    vae.quant_conv.bias.data[LATENT_CHANNELS:] = -6.0
    return vae


def build_vae(folder: Path, device: torch.device) -> Task:
    """L = |x - x_hat| + 4 |x - x_hat|^2 + 1e-6 KL, on random 32 x 32 crops.

    Convolutions do not mind crops, and four times as many different ones fit into an update.
    """
    data, crop, kl_weight = _training_set(), 32, 1e-6
    model = Reconstruct(small_vae()).to(device, memory_format=torch.channels_last)

    def loss(model, samples):
        x = data.pictures(samples.integers(len(data.scenes)))
        corners = (samples.uniforms(2, stream=1) * (x.shape[-1] - crop + 1)).long().tolist()
        x = torch.stack([one[:, i:i + crop, j:j + crop] for one, (i, j) in zip(x, corners, strict=True)]).to(device)
        eps = samples.normals(LATENT_CHANNELS, crop // 4, crop // 4, stream=2).to(device)
        x_hat, mean, logvar = model(x, eps)
        kl = 0.5 * (mean.float() ** 2 + logvar.float().exp() - 1 - logvar.float()).sum((1, 2, 3)).mean()
        error = x - x_hat.float()
        return error.abs().mean() + 4 * error.square().mean() + kl_weight * kl

    def export(model):
        latents = encode_pictures(model.vae, data.pictures(torch.arange(min(512, len(data.scenes)))))
        model.vae.register_to_config(scaling_factor=1 / latents.std().item())  # Stable Diffusion v1.5: 0.18215
        model.vae.half().save_pretrained(folder / "picture_book" / "vae")

    return Task(model, loss, export)


@torch.no_grad()
def encode_pictures(vae, pictures: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """The mean latents of pictures in [-1, 1], not yet scaled, float32 on the CPU."""
    return torch.cat([vae.encode(part.to(vae.device)).latent_dist.mean.float().cpu() for part in pictures.split(batch)])


# --- the text encoder --------------------------------------------------------------------------------------


def build_clip(folder: Path, device: torch.device) -> Task:
    """Symmetric InfoNCE between pictures and captions; captions that are true of another picture are no negatives."""
    data = _training_set()
    tokenizer = train_tokenizer(book.caption(scene, k).text for scene in data.scenes for k in range(2))
    model = Embed(small_clip(tokenizer)).to(device)

    def loss(model, samples):
        index = samples.integers(len(data.scenes))
        scenes = [data.scenes[i] for i in index]
        captions = [book.caption(scene, k) for scene, k in zip(scenes, _which_caption(samples), strict=True)]
        tokens = tokenize(tokenizer, [caption.text for caption in captions])
        image, text, scale = model(data.pictures(index).to(device), tokens.to(device))
        claims = gather(_facts([(c.thing, c.place) for c in captions]).to(device))
        facts = gather(_facts([(scene.things[0], scene.place) for scene in scenes]).to(device))
        same = ((claims[None] == facts[:, None]) | (claims[None] < 0)).all(-1)  # [picture, caption]
        return contrastive_loss(gather(image).float(), gather(text).float(), scale, same)

    def export(model):
        model.clip.save_pretrained(folder / "clip")
        tokenizer.save_pretrained(folder / "clip")
        # in float32: loaded by itself, a text encoder keeps its dtype, while U-Net and VAE become float32
        model.clip.text_model.save_pretrained(folder / "picture_book" / "text_encoder")
        tokenizer.save_pretrained(folder / "picture_book" / "tokenizer")

    return Task(model, loss, export)


def _which_caption(samples: Samples):
    return samples.integers(CAPTIONS_PER_SCENE, stream=1).tolist()


def _facts(seen) -> torch.Tensor:
    """(thing, place) pairs as whole numbers (batch, 4): kind, colour, pose, place; -1 where nothing is said."""
    return torch.tensor([[KINDS.index(thing.kind), COLOURS.index(book.seen_colour(thing) or "natural"),
                          POSES.index(thing.pose) if thing.pose else -1,
                          book.PLACES.index(place) if place else -1] for thing, place in seen])


# --- the U-Net ---------------------------------------------------------------------------------------------


def small_unet():
    """A `UNet2DConditionModel` in small: 8 x 16 x 16 latents, attention to the words at 8 x 8 and in the middle."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, layers_per_block=1,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128, attention_head_dim=4, norm_num_groups=16)


class PredictNoise(nn.Module):
    """The U-Net as the course calls its models: model(x_t, t, cond) -> eps_hat."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, x_t, t, cond):
        return self.unet(x_t, t, cond).sample


def build_unet(folder: Path, device: torch.device) -> Task:
    """L = |eps - eps_hat|^2 in the latents, with logit-normal t and the whole prompt dropped in 1 of 10 samples."""
    vae, text_encoder, tokenizer = load_trained(folder, device)
    scenes, latents = _latents(folder, vae)
    alpha_bar = alpha_bar_from_beta(scaled_linear_beta()).to(device)
    model = PredictNoise(small_unet()).to(device, memory_format=torch.channels_last)

    def loss(model, samples):
        index = samples.integers(len(scenes))
        x0 = latents[index].to(device)
        prompts = [book.caption(scenes[i], k).text for i, k in zip(index, _which_caption(samples), strict=True)]
        dropped = samples.uniforms(stream=2) < 0.1
        with torch.no_grad():
            cond = encode(tokenizer, text_encoder, ["" if d else p for d, p in zip(dropped, prompts, strict=True)])
        t = logit_normal_times(samples.normals(stream=3), len(alpha_bar)).to(device)
        eps = samples.normals(*x0.shape[1:], stream=4).to(device)
        eps_hat = model(add_noise(x0, eps, t, alpha_bar), t, cond)
        return noise_prediction_loss(eps_hat.float(), eps).mean()

    def export(model):
        from diffusers import UniPCMultistepScheduler

        scheduler = UniPCMultistepScheduler(num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=0.00085,
                                            beta_end=0.012)
        pipeline = assemble(vae, text_encoder, tokenizer, model.unet, scheduler)
        save_pipeline(pipeline, folder / "picture_book")

    return Task(model, loss, export)


def load_trained(folder: Path, device: torch.device):
    """(autoencoder, text encoder, tokenizer) trained in `folder`, each frozen, in float32; ValueError if missing."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

    home = folder / "picture_book"
    for name, needed in (("vae", "vae"), ("clip", "text_encoder")):
        if not (home / needed / "config.json").exists():
            raise ValueError(f"expected a trained {needed} in {home}, found none; train it first: "
                             f"python3 course.py train {name} --folder {folder}")
    vae = AutoencoderKL.from_pretrained(home / "vae").float().to(device).requires_grad_(False)
    text_encoder = CLIPTextModel.from_pretrained(home / "text_encoder").to(device).requires_grad_(False)
    return vae, text_encoder, CLIPTokenizer.from_pretrained(home / "tokenizer")


def _latents(folder: Path, vae):
    """The scenes of the training set and their scaled latents, kept in `folder/unet` for the next start."""
    count = _scene_count()
    weights = b"".join(p.detach().cpu().numpy().tobytes() for p in vae.parameters())
    path = folder / "unet" / f"latents-{count}-{hashlib.sha256(weights).hexdigest()[:12]}.safetensors"
    if path.exists():
        return [book.sample_scene(n) for n in range(count)], load_file(path)["latents"]
    data = _training_set()
    parts = tqdm(torch.arange(count).split(256), "encoding the pictures", disable=count < 2000)
    latents = torch.cat([encode_pictures(vae, data.pictures(part)) for part in parts]) * vae.config.scaling_factor
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"latents": latents}, path)
    return data.scenes, latents


# --- the judge ---------------------------------------------------------------------------------------------

KINDS = tuple(book.SUBJECTS)
COLOURS = (*book.COLOURS, "natural")
POSES = tuple(sorted({pose for poses in book.POSES.values() for pose in poses}))


def build_judge(folder: Path, device: torch.device) -> Task:
    """A detector, trained on renders of *all* combinations: it must know what the other parts have never seen."""
    data = _training_set("all")
    model = Judge(JudgeConfig(KINDS, COLOURS, POSES, book.PLACES)).to(device, memory_format=torch.channels_last)
    stride = model.config.stride
    facts = _facts([(scene.things[0], scene.place) for scene in data.scenes])
    spots = [book.layout(scene)[0] for scene in data.scenes]
    size = data.pixels.shape[-1]
    centres = torch.tensor([[(spot.y - spot.unit / 2) * size, spot.x * size] for spot in spots])
    cells = (centres / stride).long().clamp(0, size // stride - 1)

    def loss(model, samples):
        index = samples.integers(len(data.scenes))
        noise = samples.normals(3, size, size, stream=1) * 0.06 * samples.uniforms(1, 1, 1, stream=2)
        kinds, colours, poses, places = facts[index].to(device).unbind(1)
        rows, columns = cells[index].to(device).unbind(1)
        maps = model((data.pictures(index) + noise).to(device))
        return detection_loss(maps, kinds, colours, poses, rows, columns, places)

    def export(model):
        home = folder / "judge"
        home.mkdir(parents=True, exist_ok=True)
        save_file({name: value.half().contiguous() for name, value in model.state_dict().items()},
                  home / "model.safetensors")
        (home / "config.json").write_text(json.dumps(asdict(model.config), indent=2) + "\n")

    return Task(model, loss, export)


def load_judge(folder: Path = CHECKPOINTS / "judge") -> Judge:
    """The trained judge, in float32 on the CPU."""
    config = {name: tuple(value) if isinstance(value, list) else value
              for name, value in json.loads((folder / "config.json").read_text()).items()}
    judge = Judge(JudgeConfig(**config))
    judge.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    return judge.eval()


PARTS = {
    "vae": Part("the autoencoder: pictures to latents and back", build_vae, 4500, 8, 1e-3),
    "clip": Part("the text encoder, with its picture encoder", build_clip, 1500, 64, 1e-3),
    "unet": Part("the U-Net that predicts the noise", build_unet, 2500, 16, 1e-3),
    "judge": Part("the judge that reads pictures", build_judge, 2000, 32, 2e-3),
}


def _write_record(home: Path, name: str, steps: int, seed: int, record: Record | None) -> None:
    """Keep what the manifest says of a training: command, seed, steps, wall time, machine, versions."""
    if record is None:  # the run had ended before: nothing new to say
        return
    facts = {"command": f"python3 course.py train {name} --steps {steps} --seed {seed}", "seed": seed, "steps": steps,
             "seconds": round(record.seconds), "final_loss": record.loss, "machine": platform.processor() or
             platform.machine(), "threads": torch.get_num_threads(),
             "processes": int(os.environ.get("WORLD_SIZE", "1")), "python": sys.version.split()[0],
             "torch": torch.__version__}
    (home / "record.json").write_text(json.dumps(facts, indent=2) + "\n")


def ship(folder: Path | str, destination: Path = CHECKPOINTS) -> None:
    """Put the trained model and judge in the place of the shipped ones, and write `manifest.json` beside them.

    The manifest gives size and SHA-256 of each file and how each part was trained; `benchmarks/adherence.py
    --manifest` adds what is measured.
    Raises ValueError if a part has not been trained to its end in `folder`.
    """
    folder, destination = Path(folder), Path(destination)
    missing = [name for name in PARTS if not (folder / name / "record.json").is_file()]
    if missing:
        raise ValueError(f"expected all parts trained in {folder}, but {', '.join(missing)} are not; "
                         f"train them first: python3 course.py train all --folder {folder}")
    wanted = [path for path in sorted((folder / "picture_book").rglob("*")) if path.is_file()]
    wanted += [folder / "judge" / name for name in ("config.json", "model.safetensors")]
    for home in ("picture_book", "judge"):
        shutil.rmtree(destination / home, ignore_errors=True)
    files = {}
    for path in wanted:
        name = path.relative_to(folder)
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination / name)
        files[name.as_posix()] = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    training = {name: json.loads((folder / name / "record.json").read_text()) for name in PARTS}
    manifest = {"files": files, "training": training}
    (destination / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
