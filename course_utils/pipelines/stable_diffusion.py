"""Stable Diffusion v1.5: its facts, and how to load it from the Hub, a folder or a single file on the device at hand.

Nothing here is substituted silently: what cannot be loaded is a `StableDiffusionUnavailable`, in one sentence that also
offers the picture-book pipeline, which has the same classes and the same API.
"""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from course_utils.machine.devices import DTYPES, pick_device
from course_utils.machine.memory import peak_activations
from course_utils.machine.memory_plan import Machine, Part, Plan, look_at_machine, plan_memory
from course_utils.pipelines.picture_book import quiet

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from diffusers import ModelMixin
    from transformers import PreTrainedModel

FACTS = json.loads((Path(__file__).parent / "stable_diffusion_v1_5.json").read_text(encoding="utf-8"))
MODEL_ID, REVISION = FACTS["model_id"], FACTS["revision"]
INSTEAD = (
    "The picture-book model has the same parts and the same API: "
    "`from course_utils.pipelines.picture_book import load_picture_book; pipe = load_picture_book()`."
)
PICKLES = {".ckpt", ".bin", ".pt", ".pth"}
CONFIGS = ["*.json", "**/*.json", "**/*.txt"]  # what a single file lacks: configurations and the tokenizer


class StableDiffusionUnavailable(ValueError):
    """Stable Diffusion cannot be loaded here; the message says why, and what can be had instead."""

    def __init__(self, reason: str):
        super().__init__(f"Stable Diffusion cannot be loaded here: {reason} {INSTEAD}")


def bare_parts(names=("text_encoder", "unet", "vae", "safety_checker"), facts: dict = FACTS) -> dict:
    """Build parts from their configurations on the `meta` device: every shape is there, not one weight."""
    with quiet():
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

        build = {
            "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
            "unet": lambda config: UNet2DConditionModel(**config),
            "vae": lambda config: AutoencoderKL(**config),
            "safety_checker": lambda config: StableDiffusionSafetyChecker(CLIPConfig(**config)),
        }
        with torch.device("meta"):
            return {name: build[name](facts[name]).eval() for name in names}


def count_part(name: str, part: "PreTrainedModel | ModelMixin") -> Part:
    """Count a bare part: parameters, activations for one picture with guidance (float32), the largest layer."""
    config = part.config
    empty = functools.partial(torch.empty, device="meta")
    if name == "unet":
        latents = empty(2, config.in_channels, config.sample_size, config.sample_size)
        work = peak_activations(part, latents, empty(()), empty(2, 77, config.cross_attention_dim))
    elif name == "vae":
        side = config.sample_size // 2 ** (len(config.block_out_channels) - 1)
        work = peak_activations(part.decode, empty(1, config.latent_channels, side, side))
    elif name == "text_encoder":
        work = peak_activations(part, empty(2, config.max_position_embeddings, dtype=torch.long))
    else:
        side = config.vision_config.image_size
        work = peak_activations(part.vision_model, empty(1, 3, side, side))
    sizes = [parameter.numel() for parameter in part.parameters()]
    return Part(sum(sizes), work, max(sizes))


@functools.cache
def v1_5_parts() -> dict[str, Part]:
    """The counts for Stable Diffusion v1.5, made again from its configurations (a few seconds, once)."""
    return {name: count_part(name, part) for name, part in bare_parts().items()}


def load_stable_diffusion(
    model_id: Path | str = MODEL_ID, device: torch.device | str | None = None, *, revision: str | None = None,
    config: Path | str | None = None, pictures: int = 1, size: float = 1.0, machine: Machine | None = None,
    local_files_only: bool = False, say=print,
):  # fmt: skip
    """Load Stable Diffusion v1.5 (or what has its layout), planned for the memory found; return the pipeline.

    model_id: a name on the Hub (fetched at `revision`, by default one that is pinned), a folder in diffusers'
    layout, or a single `.safetensors` file (`config`: a folder in diffusers' layout with its configurations and
    tokenizer; without it they are asked of the Hub). device: None chooses. pictures, size: see `plan_memory`.
    machine: facts to plan with instead of those found. say: gets the choices and reasons, a line each.

    Only safetensors are read, never pickles. The safety checker that comes with the weights stays on.
    Raises `StableDiffusionUnavailable` if weights, network or memory are missing.
    """
    device = pick_device(quiet=True) if device is None else torch.device(device)
    source = _source(model_id)
    plan = plan_memory(v1_5_parts(), machine or look_at_machine(device), pictures, size)
    if not plan.fits:
        raise StableDiffusionUnavailable(plan.reasons[0])
    with quiet():
        try:
            if source.suffix == ".safetensors":
                pipe = _from_single_file(source, config, plan, local_files_only)
            else:
                pipe = _from_folder_or_hub(model_id, source, plan, revision, local_files_only)
        except StableDiffusionUnavailable:
            raise
        except Exception as error:  # no network, no file, a damaged file: half a dozen classes each
            reason = str(error).strip().partition("\n")[0][:160].rstrip(". ") or type(error).__name__
            if not source.exists():
                raise StableDiffusionUnavailable(
                    f"{model_id} is not on this disk, and could not be fetched from the "
                    f"Hub ({type(error).__name__}: {reason} ...)."
                ) from error
            raise StableDiffusionUnavailable(f"{model_id} cannot be read ({reason}).") from error
    apply_plan(pipe, plan, device)
    say(f"Loaded {model_id} on {device}, in {plan.dtype}:\n{plan}")
    if pipe.safety_checker is None:
        say("- This copy has no safety checker: what it draws is not looked at before you see it.")
    return pipe


def apply_plan(pipe, plan: Plan, device: torch.device | str) -> None:
    """Put a pipeline where the plan says, and switch the decoder's ways of saving memory on or off."""
    {"sliced": pipe.vae.enable_slicing}.get(plan.decoder, pipe.vae.disable_slicing)()
    {"tiled": pipe.vae.enable_tiling}.get(plan.decoder, pipe.vae.disable_tiling)()
    if plan.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif plan.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)


def _source(model_id: Path | str) -> Path:
    """The path that `model_id` may be; `StableDiffusionUnavailable` if it can be seen at once that it will not do."""
    source = Path(model_id)
    if source.suffix in PICKLES:
        raise StableDiffusionUnavailable(
            f"{model_id} is a pickle, which can run any code when it is opened; use the "
            ".safetensors file of the same model."
        )
    is_path = isinstance(model_id, Path) or str(model_id).count("/") != 1 or str(model_id)[0] in "./~"
    if not source.exists() and (is_path or source.suffix == ".safetensors"):
        raise StableDiffusionUnavailable(f"there is no folder or file {model_id}.")
    if source.is_dir() and not (source / "model_index.json").is_file():
        raise StableDiffusionUnavailable(
            f"the folder {model_id} has no model_index.json, so it is no pipeline in diffusers' layout."
        )
    return source


def _from_folder_or_hub(model_id, source: Path, plan: Plan, revision: str | None, local_files_only: bool):
    from diffusers import StableDiffusionPipeline

    options = {"dtype": DTYPES[plan.dtype], "use_safetensors": True, "local_files_only": local_files_only}
    if source.is_dir():
        unet = source / "unet"
        half, whole = ((unet / f"diffusion_pytorch_model{kind}.safetensors").is_file() for kind in (".fp16", ""))
        if not half and not whole:
            raise StableDiffusionUnavailable(f"{unet} has no .safetensors file; pickles (.bin) are not read.")
        variant = "fp16" if half and (plan.dtype != "float32" or not whole) else None
        options |= {"local_files_only": True}
    else:
        variant = "fp16" if plan.dtype != "float32" else None
        options |= {"revision": revision or (REVISION if model_id == MODEL_ID else "main")}
    return StableDiffusionPipeline.from_pretrained(model_id, variant=variant, **options)


def _from_single_file(source: Path, config: Path | str | None, plan: Plan, local_files_only: bool):
    from diffusers import StableDiffusionPipeline

    if config is None:
        from huggingface_hub import snapshot_download

        config = snapshot_download(MODEL_ID, revision=REVISION, allow_patterns=CONFIGS,
                                   local_files_only=local_files_only)  # fmt: skip
    if not Path(config).is_dir():
        raise StableDiffusionUnavailable(f"there is no folder {config} with the configurations.")
    dtype = DTYPES[plan.dtype]
    pipe = StableDiffusionPipeline.from_single_file(
        str(source), config=str(config), dtype=dtype, local_files_only=True, safety_checker=None
    )
    checker = _safety_checker(Path(config), dtype)
    if checker is not None:
        pipe.register_modules(safety_checker=checker)
        pipe.register_to_config(requires_safety_checker=True)
    return pipe


def _safety_checker(folder: Path, dtype: torch.dtype):
    """A single file holds no safety checker: take it from the folder of configurations, if it is there."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    if not any((folder / "safety_checker").glob("*.safetensors")):
        return None
    return StableDiffusionSafetyChecker.from_pretrained(folder / "safety_checker", dtype=dtype)
