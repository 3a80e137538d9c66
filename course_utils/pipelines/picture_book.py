"""Stable Diffusion pipelines: put one together from its parts, save it, load it, and draw with it.

diffusers and transformers take seconds to import, so every function imports them only when it is called.
"""

import contextlib
import dataclasses
import json
import logging
import warnings
from pathlib import Path

from course_utils.files import new_folder
from course_utils.pipelines.png_info import Settings, check_sampler, check_settings, whole_number

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
PICTURE_BOOK = CHECKPOINTS / "picture_book"
REMEDY = "train it with `python3 course.py train all`, or fetch the shipped one again with git"

# What a pipeline folder must hold; of the names in one tuple, one is enough.
NEEDED_FILES = [
    ("model_index.json",),
    ("vae/config.json",), ("vae/diffusion_pytorch_model.safetensors",),
    ("unet/config.json",), ("unet/diffusion_pytorch_model.safetensors",),
    ("text_encoder/config.json",), ("text_encoder/model.safetensors",),
    ("tokenizer/tokenizer_config.json",), ("tokenizer/tokenizer.json", "tokenizer/vocab.json"),
    ("scheduler/scheduler_config.json",),
]  # fmt: skip

# Course name -> diffusers class, and what is changed in the configuration of the pipeline's own scheduler.
SCHEDULERS: dict[str, tuple[str, dict]] = {
    "unipc": ("UniPCMultistepScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
}
BATCH_PIXELS = 16 * 64 * 64  # drawn at once: 16 pictures of 64x64, or one of 256x256


@contextlib.contextmanager
def quiet():
    """Silence the loading bars and notices of transformers and diffusers; afterwards they are as before."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity(logging.ERROR)
            library.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()


def load_picture_book(folder: Path | str = PICTURE_BOOK, device=None):
    """Load a pipeline folder without network or chatter, on `device` (None: the CPU), ready to draw.

    The shipped model turns a prompt into a 64x64 picture: CLIP text features (1, 32, 128), a U-Net on
    latents (1, 8, 16, 16), and an autoencoder that enlarges four-fold.

    Raises ValueError if the folder or a file in it is missing or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no model folder {folder}: {REMEDY}.")
    for names in NEEDED_FILES:
        if not any((folder / name).is_file() for name in names):
            raise ValueError(f"The model in {folder} is incomplete, {names[0]} is missing: {REMEDY}.")
    with quiet():
        from diffusers import StableDiffusionPipeline

        try:
            pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # a damaged file shows as any of half a dozen classes
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(f"The model in {folder} cannot be read ({reason}): {REMEDY}.") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe if device is None else pipe.to(device)


def assemble(vae, text_encoder, tokenizer, unet, scheduler):
    """Put five parts together as a diffusers StableDiffusionPipeline, after checking that they fit.

    Raises ValueError, naming both parts, if they do not.
    """
    with quiet():
        from diffusers import StableDiffusionPipeline

    features = text_encoder.config.hidden_size
    _fit("cross_attention_dim of the U-Net", unet.config.cross_attention_dim,
         "hidden_size of the text encoder", features)  # fmt: skip
    for side in ("in_channels", "out_channels"):
        _fit(f"{side} of the U-Net", unet.config[side],
             "latent_channels of the autoencoder", vae.config.latent_channels)  # fmt: skip
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    _fit(f"sample_size of the U-Net times {factor}", unet.config.sample_size * factor,
         "sample_size of the autoencoder", vae.config.sample_size)  # fmt: skip
    longest = text_encoder.config.max_position_embeddings
    _fit("model_max_length of the tokenizer", tokenizer.model_max_length,
         "max_position_embeddings of the text encoder", longest)  # fmt: skip
    if len(tokenizer) > text_encoder.config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but the text encoder knows only "
            f"{text_encoder.config.vocab_size}: use the tokenizer that the text encoder was trained with."
        )
    # With other values the pipeline would change the scheduler that it was handed, and warn.
    scheduler = scheduler.from_config(scheduler.config, steps_offset=1, clip_sample=False)
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _fit(name: str, value, other_name: str, other_value) -> None:
    if value != other_value:
        raise ValueError(
            f"The parts do not fit: {name} is {value}, but {other_name} is {other_value}; they must be "
            "equal. Configure one after the other and train it again."
        )


def save_pipeline(pipe, folder: Path | str) -> None:
    """Save U-Net and autoencoder in float16, the text encoder in float32: half the bytes, and it still draws.

    (Plain `from_pretrained` loads U-Net and autoencoder as float32, but leaves a text encoder in float16,
    and then the first product of matrices fails.) A pipeline already in `folder` is replaced as a whole, so that
    an interrupted save loses nothing.

    Raises ValueError if `folder` exists and holds something that is not a pipeline.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not _holds_only_parts(folder):
        raise ValueError(f"{folder} holds something else than a pipeline: choose a new folder to save in.")
    with new_folder(folder) as new:
        with quiet():
            pipe.save_pretrained(new, safe_serialization=True)
        convert(new / "unet" / "diffusion_pytorch_model.safetensors", "float16")
        convert(new / "vae" / "diffusion_pytorch_model.safetensors", "float16")
        convert(new / "text_encoder" / "model.safetensors", "float32")
        _write_dtype(new / "text_encoder" / "config.json", "float32")


def _holds_only_parts(path: Path) -> bool:
    """True for a pipeline's folder, finished or not: all that is in it is written again, or was left half-written."""
    parts = {Path(name).parts[0] for names in NEEDED_FILES for name in names}
    names = {p.name for p in path.iterdir() if p.suffix != ".part"} if path.is_dir() else {""}
    return "model_index.json" in names or names <= parts


def convert(path: Path, dtype: str) -> None:
    """Rewrite a safetensors file with its floating-point tensors in `dtype`."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = tensor.to(getattr(torch, dtype))
    save_file(tensors, path, metadata={"format": "pt"})  # transformers refuses a file without this entry


def _write_dtype(path: Path, dtype: str) -> None:
    """transformers loads a model in the number format that its configuration names: keep the two in step."""
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "dtype": dtype}, indent=2) + "\n", encoding="utf-8")


def make_scheduler(sampler: str, config):
    """Build the diffusers scheduler of that name on the noise schedule and prediction type in `config`.

    Raises ValueError for an unknown name.
    """
    check_sampler(sampler)
    import diffusers

    class_name, changes = SCHEDULERS[sampler]
    # Latents exceed [-1, 1], so clipping x0 there (the default of DDIM and DDPM) would spoil the picture.
    # "trailing" starts at the noisiest step; "leading" (Stable Diffusion's habit) one stride below it, which
    # with few steps is far from the pure noise that drawing starts from (arXiv:2305.08891, section 3.3).
    changes = {"clip_sample": False, "timestep_spacing": "trailing", **changes}
    with quiet():
        return getattr(diffusers, class_name).from_config(config, **changes)


def draw(pipe, settings: Settings, count: int = 1, on_step=None) -> list:
    """Draw `count` pictures; return a list of (PIL picture, Settings), the settings complete for each.

    Picture i starts from noise of seed + i, drawn on the CPU, however the run is split into batches, so that
    it equals the only picture of a run with that seed (to one grey level, the rounding of other batch sizes).
    `on_step(done, total)` is called after each step. The pipeline is left as it was.

    Raises ValueError if a setting, the count or the size cannot be drawn with.
    """
    check_settings(settings, count)
    width, height = check_size(pipe, settings.width, settings.height)
    model = settings.model or Path(pipe.config.get("_name_or_path") or "").name
    settings = dataclasses.replace(settings, width=width, height=height, model=model)
    made = [dataclasses.replace(settings, seed=settings.seed + i) for i in range(count)]

    size = max(1, BATCH_PIXELS // (width * height))
    batches = [made[start : start + size] for start in range(0, count, size)]
    scheduler, bar = pipe.scheduler, getattr(pipe, "_progress_bar_config", {})
    try:
        pipe.scheduler = make_scheduler(settings.sampler, scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        pictures = []
        for index, batch in enumerate(batches):
            pictures += _draw_batch(pipe, batch, _report(on_step, index, len(batches)))
    finally:
        pipe.scheduler = scheduler
        pipe.set_progress_bar_config(**bar)
    return list(zip(pictures, made, strict=True))


def _draw_batch(pipe, batch: list[Settings], on_step_end) -> list:
    """Run the pipeline once for settings that differ only in their seeds."""
    import torch

    settings = batch[0]
    prompt, guidance = settings.prompt, settings.guidance
    if guidance == 0:  # eps_negative + 0 (eps_prompt - eps_negative): only the negative prompt is left
        prompt, guidance = settings.negative_prompt, 1
    return pipe(
        prompt=[prompt] * len(batch),
        negative_prompt=[settings.negative_prompt] * len(batch),
        num_inference_steps=settings.steps,
        guidance_scale=float(guidance),
        width=settings.width,
        height=settings.height,
        generator=[torch.Generator("cpu").manual_seed(made.seed) for made in batch],
        callback_on_step_end=on_step_end,
    ).images


def _report(on_step, batch: int, batches: int):
    """Return a callback for diffusers that counts the steps of all batches for `on_step(done, total)`."""

    def on_step_end(pipe, step, timestep, tensors):
        if on_step is not None:
            # Heun and PNDM make more evaluations than steps were asked for: the pipeline knows how many.
            on_step(batch * pipe.num_timesteps + step + 1, batches * pipe.num_timesteps)
        return tensors

    return on_step_end


def made_for(pipe) -> int:
    """The side in pixels of the pictures that the pipeline was trained on."""
    return pipe.unet.config.sample_size * pipe.vae_scale_factor


def check_size(pipe, width: int | None, height: int | None) -> tuple[int, int]:
    """Return (width, height) in pixels; ValueError unless both are multiples of 8 near the trained size."""
    side = made_for(pipe)
    multiple = max(8, pipe.vae_scale_factor)  # diffusers asks for 8 whatever the autoencoder's factor
    for name, value in (("width", width), ("height", height)):
        if value is None:
            continue
        whole_number(f"The {name} (the model is made for {side} pixels)", value, side // 4, side * 4)
        if value % multiple:
            raise ValueError(
                f"The {name} must be a multiple of {multiple}, but is {value}; the model is made for {side}."
            )
    return width or side, height or side
