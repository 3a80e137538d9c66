"""Stable Diffusion pipelines: put one together from its parts, save it, load it, and draw with it.

diffusers and transformers take seconds to import, so every function imports them only when it is called.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from course_utils.files import new_folder
from course_utils.pipelines.model_folder import (
    CONFIGURATIONS,
    NEEDED_FILES,
    damaged,
    load_parts,
    quiet,
    read_configurations,
    require_as_shipped,
    require_equal,
    require_fit,
)
from course_utils.pipelines.png_info import Settings, check_sampler, check_settings, whole_number

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
PICTURE_BOOK = CHECKPOINTS / "picture_book"
# Course name -> class in `schedulers`, and what is changed in the configuration of the pipeline's own scheduler.
SCHEDULERS: dict[str, tuple[str, dict]] = {
    "unipc": ("UniPCMultistepScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    # DPM-Solver++ of first order is DDIM (arXiv:2211.01095, section 4), here in the library's words. Its DDIMScheduler
    # steps from t to t - T // n, which is the next of its n times only where n divides T.
    "ddim": ("DPMSolverMultistepScheduler", {"solver_order": 1}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
}
# For all of them, whatever the configuration says: the name alone decides how the steps are taken.
# Latents exceed [-1, 1], so clipping x0 there (the default of DDPM) would spoil the picture. "trailing" starts at the
# noisiest step; "leading" (Stable Diffusion's habit) one stride below it, which with few steps is far from the pure
# noise that drawing starts from (arXiv:2305.08891, section 3.3).
COMMON = {
    "clip_sample": False, "timestep_spacing": "trailing", "final_sigmas_type": "zero", "solver_order": 2,
    "algorithm_type": "dpmsolver++", "use_karras_sigmas": False, "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}  # fmt: skip
# Drawn at once, in pictures of 64x64. On a processor 4 take as long a picture as 16 do, and less is lost when drawing
# is stopped; a GPU wants many.
BATCH = {"cpu": 4, "other": 16}


def load_picture_book(folder: Path | str = PICTURE_BOOK, device=None):
    """Load a pipeline folder without network or chatter, on `device` (None: the CPU), ready to draw.

    The shipped model turns a prompt into a 64x64 picture: CLIP text features (1, 32, 128), a U-Net on
    latents (1, 8, 16, 16), and an autoencoder that enlarges four-fold.

    Raises ValueError, in one sentence that names the file, if the folder or a file in it is missing or damaged.
    """
    folder = Path(folder)
    read_configurations(folder)
    if folder.resolve() == PICTURE_BOOK:
        require_as_shipped(PICTURE_BOOK, CHECKPOINTS / "manifest.json")
    pipe = load_parts(folder)
    try:
        make_scheduler("unipc", pipe.scheduler.config)
    except ValueError as error:
        raise damaged(folder, CONFIGURATIONS["scheduler"], error) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe if device is None else pipe.to(device)


def assemble(vae, text_encoder, tokenizer, unet, scheduler):
    """Put five parts together as a diffusers StableDiffusionPipeline, after checking that they fit.

    Raises ValueError, naming both parts, if they do not.
    """
    with quiet():
        from diffusers import StableDiffusionPipeline

    require_fit(vae, text_encoder, tokenizer, unet)
    factor = enlargement(vae.config)
    require_equal(f"sample_size of the U-Net times {factor}", unet.config.sample_size * factor,
                  "sample_size of the autoencoder", vae.config.sample_size)  # fmt: skip
    # With other values the pipeline would change the scheduler that it was handed, and warn.
    scheduler = scheduler.from_config(scheduler.config, steps_offset=1, clip_sample=False)
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


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
            from course_utils.pipelines.schedulers import as_the_librarys

            with _set_up(pipe, as_the_librarys(pipe.scheduler)):
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
    """Build the scheduler of that name on the noise schedule and prediction type in `config`.

    Raises ValueError for an unknown name, and for a noise schedule that cannot be drawn with.
    """
    check_sampler(sampler)
    with quiet():
        from course_utils.pipelines import schedulers

        class_name, changes = SCHEDULERS[sampler]
        try:
            scheduler = getattr(schedulers, class_name).from_config(config, **{**COMMON, **changes})
        except Exception as error:  # a value that does not fit shows as any class, in any library below
            raise ValueError(f"The scheduler {sampler!r} cannot use this noise schedule ({error}).") from error
    alpha_bar, kind = scheduler.alphas_cumprod, scheduler.config.prediction_type
    if kind != "epsilon":  # a last step without any signal is no harm: it is eps alone that does not tell x0 then
        alpha_bar = alpha_bar[:-1]
    times = scheduler.config.num_train_timesteps
    if len(scheduler.alphas_cumprod) != times or not ((alpha_bar > 0) & (alpha_bar < 1)).all():
        raise ValueError(
            f"The scheduler {sampler!r} cannot use this noise schedule: the share of the picture that is left, "
            f"alpha_bar, must stay between 0 and 1 at each of its {times} times; choose other betas."
        )
    return scheduler


def draw(pipe, settings: Settings, count: int = 1, on_step=None) -> list:
    """Draw `count` pictures; return a list of (PIL picture, Settings), the settings complete for each.

    See `draw_in_turn`, which hands out each picture as soon as it is drawn.
    """
    return list(draw_in_turn(pipe, settings, count, on_step))


def draw_in_turn(pipe, settings: Settings, count: int = 1, on_step=None, **more) -> Iterator[tuple]:
    """Yield (PIL picture, Settings) for each of `count` pictures, the settings complete, once its batch is drawn.

    Picture i starts from noise of seed + i, drawn on the CPU, however the run is split into batches, so that
    it equals the only picture of a run with that seed (to one grey level, the rounding of other batch sizes).
    `on_step(done, total)` is called after each step. The pipeline is left as it was.
    more: what else a pipeline of another class takes, such as `image` where there is a ControlNet.

    Raises ValueError, before anything is drawn, if a setting, the count or the size cannot be drawn with, and for
    settings with pictures or LoRAs, which `steering` draws with.
    """
    if settings.strength is not None or settings.image or settings.mask or settings.control or settings.loras:
        raise ValueError("These settings ask for more than a prompt, pictures or LoRAs: draw with steering.draw_given.")
    if settings.variation:
        raise ValueError("These settings have a variation seed: draw with studio.drawing.draw_one, or take 0 of it.")
    scheduler, batches = prepare(pipe, settings, count)
    for index, batch in enumerate(batches):
        with _set_up(pipe, scheduler):
            pictures = _draw_batch(pipe, batch, _report(on_step, index, len(batches)), **more)
        yield from zip(pictures, batch, strict=True)


def prepare(pipe, settings: Settings, count: int) -> tuple:
    """Return (scheduler, batches): the settings of each picture, complete, in lists of those that are drawn at once.

    Raises ValueError if a setting, the count or the size cannot be drawn with.
    """
    check_settings(settings, count)
    if settings.system != Settings.system:
        raise ValueError(f"These settings are of the system {settings.system}: draw with systems.draw_in_turn.")
    width, height = check_size(pipe.unet.config, pipe.vae.config, settings.width, settings.height)
    model = settings.model or name_of(pipe).name
    settings = dataclasses.replace(settings, width=width, height=height, model=model)
    made = [dataclasses.replace(settings, seed=settings.seed + i) for i in range(count)]
    scheduler = make_scheduler(settings.sampler, pipe.scheduler.config)
    whole_number("The number of steps", settings.steps, 1, scheduler.config.num_train_timesteps)
    size = max(1, BATCH.get(pipe.device.type, BATCH["other"]) * 64 * 64 // (width * height))
    return scheduler, [made[start : start + size] for start in range(0, count, size)]


def name_of(pipe) -> Path:
    """The folder that a pipeline was loaded from, "." if from none."""
    return Path(pipe.config.get("_name_or_path") or "")


@contextlib.contextmanager
def _set_up(pipe, scheduler):
    """Give the pipeline another scheduler and no progress bar; afterwards it is as it was."""
    before, bar = pipe.scheduler, getattr(pipe, "_progress_bar_config", {})
    try:
        pipe.scheduler = scheduler
        pipe.set_progress_bar_config(disable=True)
        yield
    finally:
        pipe.scheduler = before
        pipe.set_progress_bar_config(**bar)


def _draw_batch(pipe, batch: list[Settings], on_step_end, **more) -> list:
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
        **more,
    ).images


def _report(on_step, batch: int, batches: int):
    """Return a callback for diffusers that counts the steps of all batches for `on_step(done, total)`."""

    def on_step_end(pipe, step, timestep, tensors):
        if on_step is not None:
            # Heun and PNDM make more evaluations than steps were asked for: the pipeline knows how many.
            on_step(batch * pipe.num_timesteps + step + 1, batches * pipe.num_timesteps)
        return tensors

    return on_step_end


def enlargement(vae_config) -> int:
    """How many pixels the side of a latent stands for."""
    return 2 ** (len(vae_config["block_out_channels"]) - 1)


def made_for(unet_config, vae_config) -> int:
    """The side in pixels of the pictures that a model was trained on."""
    return unet_config["sample_size"] * enlargement(vae_config)


def check_size(unet_config, vae_config, width: int | None, height: int | None) -> tuple[int, int]:
    """Return (width, height) in pixels; ValueError unless both are multiples of 8 near the trained size.

    The configurations may be those of a pipeline's parts, or what their files say before anything is loaded.
    """
    side = made_for(unet_config, vae_config)
    multiple = max(8, enlargement(vae_config))  # diffusers asks for 8 whatever the autoencoder's factor
    for name, value in (("width", width), ("height", height)):
        if value is None:
            continue
        whole_number(f"The {name} (the model is made for {side} pixels)", value, side // 4, side * 4)
        if value % multiple:
            raise ValueError(
                f"The {name} must be a multiple of {multiple}, but is {value}; the model is made for {side}."
            )
    return width or side, height or side
