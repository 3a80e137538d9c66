"""Stable Diffusion v1.5: its facts, and how to load it from the Hub, a folder or a single file on the device at hand.

Nothing here is substituted silently: what cannot be loaded is a `StableDiffusionUnavailable`, in one sentence that also
offers the picture-book pipeline, which has the same classes and the same API. Parts from configurations, their counts,
and the checks on what is read serve Stable Diffusion 3 and Flux too (`rectified_flow_models`).
"""

import contextlib
import functools
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from course_utils.language import translated
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

    what, instead = "Stable Diffusion", INSTEAD

    def __init__(self, reason: str):
        super().__init__(translated(f"{self.what} cannot be loaded here: {reason} {self.instead}"))


def build_part(name: str, facts: dict):
    """Build one part from its configuration, with random weights, on torch's default device.

    facts: "model_index" names library and class of each part, as in a pipeline's model_index.json; facts[name] is the
    part's configuration.
    """
    library, kind = facts["model_index"][name]
    if library == "stable_diffusion":  # where diffusers keeps the safety checker
        library = "diffusers.pipelines.stable_diffusion.safety_checker"
    part = getattr(importlib.import_module(library), kind)
    if library == "diffusers":
        return part.from_config(facts[name]).eval()
    return part(part.config_class(**facts[name])).eval()


def bare_parts(names=("text_encoder", "unet", "vae", "safety_checker"), facts: dict = FACTS) -> dict:
    """Build parts from their configurations on the `meta` device: every shape is there, not one weight."""
    with quiet(), torch.device("meta"):
        return {name: build_part(name, facts) for name in names}


def count_part(part: "PreTrainedModel | ModelMixin", facts: dict = FACTS) -> Part:
    """Count a bare part: parameters, activations for one picture (float32), the largest layer.

    facts: "guidance" says whether each picture takes two evaluations, with the prompt and with the negative prompt, in
    one batch; "t5_tokens" how many tokens T5 pads a prompt to.
    """
    sizes = {name: parameter.numel() for name, parameter in part.named_parameters()}
    wide = set(getattr(part, "_keep_in_fp32_modules", None) or ())  # in the words of transformers
    return Part(
        sum(sizes.values()),
        peak_activations(_one_run(part, facts)),
        max(sizes.values()),
        sum(buffer.numel() for buffer in part.buffers() if buffer.is_floating_point()),
        sum(size for name, size in sizes.items() if wide & set(name.split("."))),
    )


def _one_run(part, facts: dict):
    """A bare part's work for one picture, as a function without arguments."""
    batch, words, config = 2 if facts["guidance"] else 1, facts.get("t5_tokens", 0), part.config
    empty = functools.partial(torch.empty, device="meta")
    match type(part).__name__:
        case "UNet2DConditionModel":
            latents = empty(batch, config.in_channels, config.sample_size, config.sample_size)
            return functools.partial(part, latents, empty(()), empty(batch, 77, config.cross_attention_dim))
        case "SD3Transformer2DModel":
            return functools.partial(
                part,
                empty(batch, config.in_channels, config.sample_size, config.sample_size),
                empty(batch, 77 + words, config.joint_attention_dim),  # CLIP's 77 tokens, and T5's
                empty(batch, config.pooled_projection_dim),
                empty(batch),
            )
        case "FluxTransformer2DModel":
            patches = 64**2  # of a picture of 1024 x 1024: its configuration names no size
            return functools.partial(
                part,
                empty(batch, patches, config.in_channels),
                empty(batch, words, config.joint_attention_dim),
                empty(batch, config.pooled_projection_dim),
                empty(batch),
                img_ids=empty(patches, 3),
                txt_ids=empty(words, 3),
                guidance=empty(batch) if config.guidance_embeds else None,
            )
        case "AutoencoderKL":
            side = config.sample_size // 2 ** (len(config.block_out_channels) - 1)
            return functools.partial(part.decode, empty(1, config.latent_channels, side, side))
        case "StableDiffusionSafetyChecker":
            side = config.vision_config.image_size
            return functools.partial(part.vision_model, empty(1, 3, side, side))
        case "T5EncoderModel":
            return functools.partial(part, empty(batch, words, dtype=torch.long))
        case _:  # CLIP
            return functools.partial(part, empty(batch, config.max_position_embeddings, dtype=torch.long))


@functools.cache
def v1_5_parts() -> dict[str, Part]:
    """The counts for Stable Diffusion v1.5, made again from its configurations (a few seconds, once)."""
    return {name: count_part(part) for name, part in bare_parts().items()}


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
    source = find_source(model_id)
    plan = plan_memory(v1_5_parts(), machine or look_at_machine(device), pictures, size)
    if not plan.fits:
        raise StableDiffusionUnavailable(plan.reasons[0])
    with in_one_sentence(model_id, source):
        if source.suffix == ".safetensors":
            pipe = _from_single_file(source, config, plan, local_files_only)
        else:
            pipe = _from_folder_or_hub(model_id, source, plan, revision, local_files_only)
    apply_plan(pipe, plan, device)
    say(translated(f"Loaded {model_id} on {device}, in {plan.dtype}:") + f"\n{plan}")
    if pipe.safety_checker is None:
        say("- " + translated("This copy has no safety checker: what it draws is not looked at before you see it."))
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


def find_source(
    model_id: Path | str, unavailable: type[StableDiffusionUnavailable] = StableDiffusionUnavailable
) -> Path:
    """The path that `model_id` may be; raises `unavailable` if it can be seen at once that it will not do."""
    source = Path(model_id)
    if source.suffix in PICKLES:
        raise unavailable(
            f"{model_id} is a pickle, which can run any code when it is opened; use the "
            ".safetensors file of the same model."
        )
    is_path = isinstance(model_id, Path) or str(model_id).count("/") != 1 or str(model_id)[0] in "./~"
    if not source.exists() and (is_path or source.suffix == ".safetensors"):
        raise unavailable(f"there is no folder or file {model_id}.")
    if source.is_dir() and not (source / "model_index.json").is_file():
        raise unavailable(f"the folder {model_id} has no model_index.json, so it is no pipeline in diffusers' layout.")
    return source


@contextlib.contextmanager
def in_one_sentence(
    model_id: Path | str, source: Path, unavailable: type[StableDiffusionUnavailable] = StableDiffusionUnavailable
):
    """Read without chatter, and turn whatever the libraries raise meanwhile into one sentence: `unavailable`."""
    try:
        with quiet():
            yield
    except StableDiffusionUnavailable:
        raise
    except Exception as error:  # no network, no file, a damaged file: half a dozen classes each
        if _is_gated(error):
            raise unavailable(
                f"the licence of {model_id} must be accepted first, on https://huggingface.co/{model_id}, and this "
                "computer must be logged in (`hf auth login`)."
            ) from error
        reason = str(error).strip().partition("\n")[0][:160].rstrip(". ") or type(error).__name__
        if not source.exists():
            raise unavailable(
                f"{model_id} is not on this disk, and could not be fetched from the "
                f"Hub ({type(error).__name__}: {reason} ...)."
            ) from error
        raise unavailable(f"{model_id} cannot be read ({reason}).") from error


def _is_gated(error: BaseException | None) -> bool:
    """Whether the Hub refused because its user has not accepted a licence; diffusers may wrap that error."""
    from huggingface_hub.errors import GatedRepoError

    return error is not None and (isinstance(error, GatedRepoError) or _is_gated(error.__cause__))


def reading_options(
    source: Path, part: str, plan: Plan, revision: str, local_files_only: bool,
    unavailable: type[StableDiffusionUnavailable] = StableDiffusionUnavailable,
) -> dict:  # fmt: skip
    """How `from_pretrained` is to read a folder, or the Hub at `revision`: safetensors only, in the plan's format.

    part: the one whose files say in which variants the folder holds its weights.
    """
    options = {"dtype": DTYPES[plan.dtype], "use_safetensors": True, "local_files_only": local_files_only}
    if not source.is_dir():
        return options | {"revision": revision}
    half = [".fp16" in path.name for path in (source / part).glob("*.safetensors")]
    if not half:
        raise unavailable(f"{source / part} has no .safetensors file; pickles (.bin) are not read.")
    variant = "fp16" if any(half) and (plan.dtype != "float32" or all(half)) else None
    return options | {"local_files_only": True, "variant": variant}


def _from_folder_or_hub(model_id, source: Path, plan: Plan, revision: str | None, local_files_only: bool):
    from diffusers import StableDiffusionPipeline

    revision = revision or (REVISION if model_id == MODEL_ID else "main")
    options = reading_options(source, "unet", plan, revision, local_files_only)
    if not source.is_dir() and plan.dtype != "float32":
        options["variant"] = "fp16"
    return StableDiffusionPipeline.from_pretrained(model_id, **options)


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
