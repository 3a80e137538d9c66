"""Stable Diffusion 3 and Flux: their facts, untrained copies of the same layout, and how to load the real ones.

What is not trained here is `thin_copy`: each part of its class, few and narrow layers, random weights. What cannot be
loaded is a `RectifiedFlowUnavailable`, in one sentence; nothing is substituted silently. Esser et al.,
arXiv:2403.03206; Black Forest Labs, FLUX.1 (2024); the configurations as published with the weights.
"""

import json
from pathlib import Path

import torch

from course_utils.language import translated
from course_utils.machine.devices import pick_device
from course_utils.machine.memory_plan import Machine, Part, Plan, look_at_machine, plan_memory
from course_utils.pipelines.model_folder import quiet
from course_utils.pipelines.stable_diffusion import (
    CONFIGS,
    StableDiffusionUnavailable,
    apply_plan,
    bare_parts,
    build_part,
    count_part,
    find_source,
    in_one_sentence,
    reading_options,
)
from course_utils.text.tokens import train_tokenizer

SD3, FLUX_DEV, FLUX_SCHNELL = (
    json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("stable_diffusion_3_medium", "flux_1_dev", "flux_1_schnell")
)
PARTS = ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae")  # in the order in which they work
T5_OF_SD3 = "text_encoder_3"


class RectifiedFlowUnavailable(StableDiffusionUnavailable):
    """Stable Diffusion 3 or Flux cannot be loaded here; the message says why, and what can be had instead."""

    what = "This model"
    instead = (
        "An untrained copy has the same parts and the same API: "
        "`from course_utils.pipelines.rectified_flow_models import SD3, thin_copy; pipe = thin_copy(SD3)`."
    )


# --- facts -------------------------------------------------------------------------------------------------


def flow_parts(facts: dict) -> dict[str, Part]:
    """The counts for `SD3`, `FLUX_DEV`, `FLUX_SCHNELL` or other facts of that form (a few seconds)."""
    names = [name for name in PARTS if name in facts]
    return {name: count_part(part, facts) for name, part in bare_parts(names, facts).items()}


def plan_flow(
    parts: dict[str, Part], machine: Machine, pictures: int = 1, size: float = 1.0, t5: bool | None = None
) -> tuple[Plan, bool]:
    """Return the plan, and whether the third text encoder of Stable Diffusion 3, T5, is in it.

    t5: None leaves it out only where that avoids offloading layer by layer, or drawing nothing at all. The network has
    been trained with each text encoder left out at random, and draws without (arXiv:2403.03206, section 5.3).
    size: 1 is 1024 pixels a side. For the rest see `plan_memory`.
    """
    without = {name: part for name, part in parts.items() if name != T5_OF_SD3}
    has_t5 = len(without) < len(parts)
    plan = plan_memory(without if t5 is False else parts, machine, pictures, size)
    if t5 is None and has_t5 and not _is_quick(plan):
        less = plan_memory(without, machine, pictures, size)
        if _is_quick(less) or not plan.fits:
            return less, False
    return plan, has_t5 and t5 is not False


def _is_quick(plan: Plan) -> bool:
    return plan.fits and plan.offload != "sequential"


# --- an untrained copy -------------------------------------------------------------------------------------

CLIP = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "projection_dim": 16}  # fmt: skip
FEW: dict[str, dict] = {
    "CLIPTextModel": CLIP,
    "CLIPTextModelWithProjection": CLIP,
    "T5EncoderModel": {"d_model": 40, "d_kv": 20, "d_ff": 40, "num_layers": 1, "num_heads": 2},
    "AutoencoderKL": {
        "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64
    },
    "SD3Transformer2DModel": {
        "sample_size": 8, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12,
        "joint_attention_dim": 40, "caption_projection_dim": 24, "pooled_projection_dim": 32, "pos_embed_max_size": 12,
    },
    "FluxTransformer2DModel": {
        "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 12,
        "joint_attention_dim": 40, "pooled_projection_dim": 16, "axes_dims_rope": (4, 4, 4),
    },
}  # fmt: skip
CAPTIONS = ("a cute corgi puppy sitting on the grass", "a red ball on the beach, watercolour")


def thin_copy(facts: dict, seed: int = 0):
    """Return an untrained pipeline with the parts, classes and settings of `facts`, but few and narrow layers.

    facts: `SD3`, `FLUX_DEV` or `FLUX_SCHNELL`. It draws noise, at once, for a side of 16 pixels or a multiple.
    """
    index = facts["model_index"]
    tokenizers = {"CLIPTokenizer": train_tokenizer(CAPTIONS, 520, length=77), "T5TokenizerFast": _letters()}
    clip, t5 = tokenizers.values()
    words = {
        "CLIP": {"vocab_size": len(clip), "bos_token_id": clip.bos_token_id, "eos_token_id": clip.eos_token_id,
                 "pad_token_id": clip.pad_token_id},
        "T5": {"vocab_size": len(t5)},
    }  # fmt: skip
    parts = {}
    with torch.random.fork_rng(), quiet():
        import diffusers

        torch.manual_seed(seed)
        for name, (_, kind) in ((name, of) for name, of in index.items() if isinstance(of, list)):
            if kind in FEW:
                told = next((told for start, told in words.items() if kind.startswith(start)), {})
                parts[name] = build_part(name, {**facts, name: {**facts[name], **FEW[kind], **told}})
            else:
                parts[name] = tokenizers.get(kind) or getattr(diffusers, kind)(**facts[name])
        pipe = getattr(diffusers, index["_class_name"])(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _letters():
    """A tokenizer of T5's class whose pieces are letters."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer([*pieces, *((letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz,.")], extra_ids=0)


# --- loading -----------------------------------------------------------------------------------------------


def load_rectified_flow(
    model_id: Path | str, device: torch.device | str | None = None, *, t5: bool | None = None, revision: str = "main",
    pictures: int = 1, size: float = 1.0, machine: Machine | None = None, local_files_only: bool = False, say=print,
):  # fmt: skip
    """Load Stable Diffusion 3 or Flux, planned for the memory found; return the pipeline for `draw_sd3` or `draw_flux`.

    model_id: a name on the Hub, such as SD3["model_id"], or a folder in diffusers' layout. The plan counts the parts
    that its own configurations describe, so relatives of other sizes can be loaded too. t5, pictures, size: see
    `plan_flow`. device: None chooses. machine: facts to plan with instead of those found. say: gets the choices and
    reasons, a line each.

    Only safetensors are read, never pickles. Raises `RectifiedFlowUnavailable` if weights, network, memory, or the
    consent to the licence that the Hub asks for are missing.
    """
    device = pick_device(quiet=True) if device is None else torch.device(device)
    source = find_source(model_id, RectifiedFlowUnavailable)
    with in_one_sentence(model_id, source, RectifiedFlowUnavailable):
        facts = read_facts(_configurations(model_id, source, revision, local_files_only))
    machine = machine or look_at_machine(device, wide=True)
    plan, has_t5 = plan_flow(flow_parts(facts), machine, pictures, size, t5)
    if not plan.fits:
        raise RectifiedFlowUnavailable(plan.reasons[0])
    left_out = T5_OF_SD3 in facts and not has_t5
    with in_one_sentence(model_id, source, RectifiedFlowUnavailable):
        import diffusers

        options = reading_options(source, "transformer", plan, revision, local_files_only, RectifiedFlowUnavailable)
        if left_out:
            options |= {T5_OF_SD3: None, "tokenizer_3": None}
        pipe = getattr(diffusers, facts["model_index"]["_class_name"]).from_pretrained(model_id, **options)
    apply_plan(pipe, plan, device)
    say(translated(f"Loaded {model_id} on {device}, in {plan.dtype}:") + f"\n{plan}")
    if left_out:
        why = "as asked" if t5 is False else "for no plan with it is both small and quick enough (`t5=True` insists)"
        say("- " + translated(f"T5 is left out, {why}."))
    return pipe


def _configurations(model_id, source: Path, revision: str, local_files_only: bool) -> Path:
    """A folder with the configurations: the given one, or what little of the Hub's is needed to plan."""
    if source.is_dir():
        return source
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        str(model_id), revision=revision, allow_patterns=CONFIGS, local_files_only=local_files_only
    )
    return Path(folder)


def read_facts(folder: Path) -> dict:
    """Return the facts of a pipeline in diffusers' layout from its configurations, in the form of `SD3`.

    Raises `RectifiedFlowUnavailable` if it is neither Stable Diffusion 3 nor Flux.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    kind = index["_class_name"]
    if kind not in ("StableDiffusion3Pipeline", "FluxPipeline"):
        raise RectifiedFlowUnavailable(f"it is a {kind}, neither a StableDiffusion3Pipeline nor a FluxPipeline.")
    configs = {name: folder / name / "config.json" for name in PARTS}
    facts = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in configs.items() if path.is_file()}
    like = SD3 if kind.startswith("Stable") else FLUX_DEV if facts["transformer"]["guidance_embeds"] else FLUX_SCHNELL
    return {"guidance": like["guidance"], "t5_tokens": like["t5_tokens"], "model_index": index, **facts}
