"""Stable Diffusion 3 and Flux: their counts and plans, untrained copies, and loading what has their layout, offline."""

import functools
import importlib
import inspect
import json
import shutil

import httpx
import pytest
import torch
from thin_flow import thin_flux, thin_sd3

from course_utils.machine.devices import GIBIBYTE
from course_utils.machine.memory_plan import RESERVE, Machine, Part, look_at_machine
from course_utils.pipelines import rectified_flow, stable_diffusion
from course_utils.pipelines import rectified_flow_models as models
from course_utils.pipelines.rectified_flow_models import FLUX_DEV, FLUX_SCHNELL, SD3

CPU = Machine("cpu", 16 * GIBIBYTE, "float32", 16 * GIBIBYTE)
FACTS = {"sd3": SD3, "dev": FLUX_DEV, "schnell": FLUX_SCHNELL}
PROMPTS = ["a red ball on the beach", "a cat"]
parts_of = functools.cache(lambda name: models.flow_parts(FACTS[name]))


def thin(name):
    return thin_sd3() if name == "sd3" else thin_flux(name == "dev")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the three thin pipelines."""
    home = tmp_path_factory.mktemp("flows")
    for name in FACTS:
        thin(name).save_pretrained(home / name)
    return home


def load(*inputs, **options):
    said = []
    return models.load_rectified_flow(*inputs, **{"device": "cpu", "machine": CPU, "say": said.append, **options}), said


# --- facts -------------------------------------------------------------------------------------------------


def test_the_counts():
    counts = {name: {part: count.parameters for part, count in parts_of(name).items()} for name in FACTS}
    t5, vae = 4_762_310_656, 83_819_683
    assert counts["sd3"] == {
        "text_encoder": 123_650_304, "text_encoder_2": 694_659_840, "text_encoder_3": t5,
        "transformer": 2_028_328_000, "vae": vae,
    }  # fmt: skip
    text = {"text_encoder": stable_diffusion.v1_5_parts()["text_encoder"].parameters, "text_encoder_2": t5, "vae": vae}
    assert counts["dev"] == {**text, "transformer": 11_901_408_320}
    # [schnell] lacks only the two layers that read the guidance: 256 numbers -> width -> width
    width = 24 * 128
    assert counts["schnell"] == {**text, "transformer": 11_901_408_320 - (256 * width + width + width * width + width)}


def test_what_is_kept_beside_the_parameters_and_in_float32():
    parts = parts_of("sd3")
    assert parts["transformer"].buffers == 192**2 * 1536  # the table of positions
    assert parts["text_encoder_3"].wide == 24 * 4096 * 10240  # T5's `wo`
    part = Part(100, 0, 0, buffers=10, wide=30)
    assert [part.weights(name) for name in ("float32", "bfloat16", "float16")] == [440, 220, 280]


def test_guidance_costs_stable_diffusion_3_twice_the_activations():
    bare = stable_diffusion.bare_parts(["transformer"], SD3)["transformer"]
    once = stable_diffusion.count_part(bare, {**SD3, "guidance": False}).work
    assert parts_of("sd3")["transformer"].work == pytest.approx(2 * once, rel=0.01)
    assert SD3["guidance"] and not FLUX_DEV["guidance"] and not FLUX_SCHNELL["guidance"]


@pytest.mark.parametrize("name", FACTS)
def test_the_facts_name_the_parts_that_the_pipeline_takes(name):
    index = FACTS[name]["model_index"]
    pipeline = getattr(importlib.import_module("diffusers"), index["_class_name"])
    takes = inspect.signature(pipeline.__init__).parameters.values()
    needed = {each.name for each in takes if each.default is inspect.Parameter.empty and each.name != "self"}
    assert {key for key in index if not key.startswith("_")} == needed


@pytest.mark.parametrize(
    "card, sd3, without_t5, flux",
    [
        (8, "sequential", "model", "sequential"),
        (12, "model", "none", "sequential"),
        (16, "model", "none", "sequential"),
        (24, "none", "none", "sequential"),
        (48, "none", "none", "none"),
        (80, "none", "none", "none"),
    ],
)
def test_plans_for_cards(card, sd3, without_t5, flux):
    machine = Machine("cuda", round(0.95 * card * GIBIBYTE), "bfloat16", 64 * GIBIBYTE)
    for t5, offload in ((True, sd3), (False, without_t5)):
        plan, has_t5 = models.plan_flow(parts_of("sd3"), machine, t5=t5)
        assert plan.fits and plan.offload == offload and has_t5 == t5
    plan, has_t5 = models.plan_flow(parts_of("sd3"), machine)
    assert has_t5 == (card > 8) and plan.offload == (sd3 if has_t5 else without_t5)
    for name in ("dev", "schnell"):
        plan, has_t5 = models.plan_flow(parts_of(name), machine)
        assert plan.fits and plan.offload == flux and not has_t5


def test_where_nothing_fits():
    short_of_main = Machine("cuda", 12 * GIBIBYTE, "bfloat16", 24 * GIBIBYTE)
    plan, _ = models.plan_flow(parts_of("dev"), short_of_main)
    assert not plan.fits and "too little main memory" in str(plan)
    plan, has_t5 = models.plan_flow(parts_of("sd3"), Machine("cuda", GIBIBYTE, "bfloat16", 24 * GIBIBYTE))
    assert not plan.fits and not has_t5 and "most frugal way" in str(plan)


def test_a_wide_range_is_kept_where_it_is_asked_for(monkeypatch):
    monkeypatch.delenv("COURSE_DTYPE", raising=False)
    for name, value in {"autocast_dtype": torch.bfloat16, "memory": (GIBIBYTE, GIBIBYTE)}.items():
        monkeypatch.setattr(f"course_utils.machine.memory_plan.{name}", lambda device, value=value: value)
    assert look_at_machine("cuda").half == "float16" and look_at_machine("cuda", wide=True).half == "bfloat16"


# --- an untrained copy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FACTS)
def test_a_thin_copy_has_the_published_layout(home, name):
    written = json.loads((home / name / "model_index.json").read_text())
    published = FACTS[name]["model_index"]
    assert written["_class_name"] == published["_class_name"]
    written = {key: of for key, of in written.items() if not key.startswith("_") and of != [None, None]}

    def classes(index):  # transformers 5 calls T5TokenizerFast T5Tokenizer
        return {key: getattr(importlib.import_module(of[0]), of[1]) for key, of in index.items() if key[0] != "_"}

    assert classes(written) == classes(published)
    scheduler = thin(name).scheduler.config
    assert {key: scheduler[key] for key in FACTS[name]["scheduler"]} == FACTS[name]["scheduler"]


def test_another_seed_gives_other_weights_and_leaves_the_dice_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two = (models.thin_copy(FLUX_SCHNELL, seed).transformer.proj_out.weight for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, thin_flux(False).transformer.proj_out.weight) and not torch.equal(one, two)


# --- loading -----------------------------------------------------------------------------------------------


def both_ways(pipe, name):
    """What the course's loop and what diffusers draws, from the same noise."""
    options = {"height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "pt"}
    options |= {"max_sequence_length": FACTS[name]["t5_tokens"]}
    pipe.set_progress_bar_config(disable=True)
    dice = [[torch.Generator().manual_seed(seed) for seed in range(2)] for _ in range(2)]
    theirs = pipe(PROMPTS, generator=dice[0], **options).images
    draw = rectified_flow.draw_sd3 if name == "sd3" else rectified_flow.draw_flux
    ours = draw(pipe, PROMPTS, rectified_flow.first_noise(pipe, 2, dice[1], 64), 3, 3.0)
    return (ours / 2 + 0.5).clamp(0, 1), theirs


@pytest.mark.parametrize("name", FACTS)
def test_what_is_loaded_draws_the_same(home, name):
    pipe, said = load(home / name)
    ours, theirs = both_ways(pipe, name)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours, both_ways(thin(name), name)[0], rtol=0, atol=1e-5)
    assert len(said) == 1 and "float32" in said[0] and "All weights stay" in said[0]


def test_stable_diffusion_3_draws_without_t5(home):
    pipe, said = load(home / "sd3", t5=False)
    assert pipe.text_encoder_3 is None and pipe.tokenizer_3 is None and "T5 is left out, as asked" in said[-1]
    ours, theirs = both_ways(pipe, "sd3")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (ours - both_ways(thin("sd3"), "sd3")[0]).abs().max() > 1e-3


def test_t5_is_left_out_where_memory_demands_it(home):
    parts = models.flow_parts(models.read_facts(home / "sd3"))
    roomy = Machine("cpu", GIBIBYTE, "bfloat16")
    need = models.plan_flow(parts, roomy, t5=False)[0].need
    assert need < models.plan_flow(parts, roomy, t5=True)[0].need
    tight = Machine("cpu", RESERVE + need, "bfloat16")
    pipe, said = load(home / "sd3", machine=tight)
    assert pipe.text_encoder_3 is None and "no plan with it is both small and quick" in said[-1]
    refuse("Nothing fits", home / "sd3", machine=tight, t5=True)
    pipe, said = load(home / "sd3", machine=roomy)
    assert pipe.text_encoder_3.dtype == torch.bfloat16 and len(said) == 1


@pytest.mark.parametrize(
    "kind, name", [(0, "to"), (1, "enable_model_cpu_offload"), (2, "enable_sequential_cpu_offload")]
)
def test_injected_gpus_get_what_their_plan_says(home, monkeypatch, kind, name):
    from diffusers import FluxPipeline

    parts = models.flow_parts(models.read_facts(home / "dev"))
    plan, _ = models.plan_flow(parts, Machine("cuda", RESERVE, "bfloat16", GIBIBYTE))
    needs = [need for _, need, _ in plan.tried]
    assert len(needs) == 3 and sorted(needs, reverse=True) == needs
    seen = []
    for method in ("to", "enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        monkeypatch.setattr(FluxPipeline, method, lambda self, *_, method=method, **__: seen.append(method))
    pipe, _ = load(home / "dev", machine=Machine("cuda", RESERVE + needs[kind], "bfloat16", GIBIBYTE))
    assert seen == [name] and pipe.transformer.dtype == torch.bfloat16


def test_the_plan_counts_what_is_in_the_folder(home):
    facts = models.read_facts(home / "schnell")
    parts = models.flow_parts(facts)
    assert facts["t5_tokens"] == 256 and models.read_facts(home / "dev")["t5_tokens"] == 512
    pipe = thin("schnell")
    for name, part in parts.items():
        assert part.parameters == sum(each.numel() for each in getattr(pipe, name).parameters())


def refuse(words, *inputs, **options):
    with pytest.raises(models.RectifiedFlowUnavailable, match=words) as caught:
        load(*inputs, **options)
    assert "\n" not in str(caught.value) and "thin_copy(SD3)" in str(caught.value)


def test_what_cannot_be_loaded_is_said_in_one_sentence(home, tmp_path):
    refuse("there is no folder or file .*nowhere", tmp_path / "nowhere")
    refuse("is a pickle", "flux1-dev.ckpt")
    refuse("has no model_index.json", tmp_path)
    refuse("Nothing fits", home / "dev", machine=Machine("cpu", GIBIBYTE // 2, "float32"))
    refuse("is not on this disk, and could not be fetched", SD3["model_id"], local_files_only=True)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    refuse("it is a StableDiffusionPipeline, neither", tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    refuse("cannot be read", tmp_path)


def test_pickled_weights_are_not_read(home, tmp_path):
    shutil.copytree(home / "dev", tmp_path / "pickled")
    for part in ("transformer", "text_encoder_2"):
        (weights,) = (tmp_path / "pickled" / part).glob("*.safetensors")
        kept = weights.read_bytes()
        torch.save({}, weights.with_suffix(".bin"))
        weights.unlink()
        refuse("pickles .* are not read" if part == "transformer" else "cannot be read", tmp_path / "pickled")
        weights.write_bytes(kept)


@pytest.mark.parametrize("loader", ["flow", "v1.5"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_licence_that_has_not_been_accepted_is_named(monkeypatch, loader, wrapped):
    from diffusers import StableDiffusionPipeline
    from huggingface_hub.errors import GatedRepoError

    def refused(*_, **__):
        response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))
        gated = GatedRepoError("403 Client Error.\nAccess is restricted", response=response)
        if wrapped:
            raise OSError("cannot load the model") from gated
        raise gated

    monkeypatch.setattr("huggingface_hub.snapshot_download", refused)
    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", refused)
    if loader == "flow":
        refuse(
            "the licence of black-forest-labs/FLUX.1-dev must be accepted first.*`hf auth login`", FLUX_DEV["model_id"]
        )
    else:
        with pytest.raises(stable_diffusion.StableDiffusionUnavailable, match="licence of a/b .*load_picture_book"):
            stable_diffusion.load_stable_diffusion("a/b", "cpu", machine=CPU, say=lambda _: None)
