"""Stable Diffusion v1.5: its counts, and loading what has its layout, offline, in every form."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from thin_stable_diffusion import save_single_file, thin_parts, thin_pipeline

from course_utils.machine.devices import GIBIBYTE
from course_utils.machine.memory import peak_activations
from course_utils.machine.memory_plan import Machine, Plan
from course_utils.pipelines.stable_diffusion import (
    MODEL_ID,
    REVISION,
    StableDiffusionUnavailable,
    apply_plan,
    bare_parts,
    load_stable_diffusion,
    v1_5_parts,
)

CPU = Machine("cpu", 16 * GIBIBYTE, "float32", 16 * GIBIBYTE)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the thin pipeline as a folder, as an fp16 variant and as a single file."""
    home, pipe = tmp_path_factory.mktemp("thin"), thin_pipeline()
    pipe.save_pretrained(home / "folder")
    pipe.save_pretrained(home / "half", variant="fp16")
    save_single_file(pipe, home / "single.safetensors")
    shutil.copytree(home / "folder", home / "configs", ignore=shutil.ignore_patterns("*.safetensors"))
    return home


def pixels(pipe, prompt="a red ball"):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return np.asarray(pipe(prompt, num_inference_steps=2, generator=generator).images[0]).astype(int)


def load(*inputs, **options):
    said = []
    return load_stable_diffusion(*inputs, **{"device": "cpu", "machine": CPU, "say": said.append, **options}), said


# --- counts ------------------------------------------------------------------------------------------------


def test_the_counts_are_those_of_the_published_weights():
    counts = {name: part.parameters for name, part in v1_5_parts().items()}
    # the number of parameters is 4 bytes each in the published float32 files, less their headers
    assert counts["unet"] == 859_520_964 and counts["text_encoder"] == 123_060_480 and counts["vae"] == 83_653_863
    assert 303e6 < counts["safety_checker"] < 305e6


def test_slicing_and_tiling_save_what_the_plan_says():
    vae = bare_parts(["vae"])["vae"]
    one = v1_5_parts()["vae"].work

    def peak(pictures, side):
        return peak_activations(vae.decode, torch.empty(pictures, 4, side, side, device="meta"))

    assert peak(2, 64) == pytest.approx(2 * one, rel=0.01)
    assert peak(1, 128) == pytest.approx(4 * one, rel=0.01)
    vae.enable_slicing()
    assert peak(4, 64) == pytest.approx(one, rel=0.05)
    vae.disable_slicing()
    vae.enable_tiling()
    assert peak(1, 128) == pytest.approx(one, rel=0.05)
    assert peak(1, 64) == pytest.approx(one, rel=0.01)  # tiling begins above 512 pixels


def test_the_revision_is_a_commit():
    assert len(REVISION) == 40 and set(REVISION) <= set("0123456789abcdef") and MODEL_ID.count("/") == 1


# --- loading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form, options", [("folder", {}), ("half", {}), ("single.safetensors", {"config": "folder"})])
def test_every_form_draws_the_same(home, form, options):
    pipe, said = load(home / form, **{name: home / value for name, value in options.items()})
    parts = {"tokenizer", "text_encoder", "unet", "vae", "scheduler", "safety_checker", "feature_extractor"}
    assert {name for name, part in pipe.components.items() if part is not None} == parts
    assert pipe.config.requires_safety_checker and pipe.unet.dtype == torch.float32
    assert np.abs(pixels(pipe) - pixels(thin_pipeline())).max() <= (2 if form == "half" else 0)
    assert "float32" in said[0] and "All weights stay" in said[0]


def test_a_single_file_without_a_checker_says_so(home):
    pipe, said = load(home / "single.safetensors", config=home / "configs")
    assert pipe.safety_checker is None and "no safety checker" in said[-1]


def test_the_half_variant_is_read_where_half_precision_is_used(home, tmp_path):
    shutil.copytree(home / "folder", tmp_path / "both")
    shutil.copy(home / "half/unet/diffusion_pytorch_model.fp16.safetensors", tmp_path / "both/unet")
    for part in ("vae", "text_encoder", "safety_checker"):
        for file in (home / "half" / part).glob("*.safetensors"):
            shutil.copy(file, tmp_path / "both" / part)
    (tmp_path / "both/unet/diffusion_pytorch_model.safetensors").write_bytes(b"not to be read")
    pipe, _ = load(tmp_path / "both", machine=dataclasses.replace(CPU, half="bfloat16"))
    assert pipe.unet.dtype == torch.bfloat16


@pytest.mark.parametrize("free, calls", [(23, ["to"]), (7.2, ["to"]), (3.3, ["model"]), (1.5, ["sequential"])])
def test_injected_gpus_get_what_their_plan_says(home, monkeypatch, free, calls):
    from diffusers import StableDiffusionPipeline

    seen = []
    for method, word in [("to", "to"), ("enable_model_cpu_offload", "model"),
                         ("enable_sequential_cpu_offload", "sequential")]:  # fmt: skip
        monkeypatch.setattr(StableDiffusionPipeline, method, lambda self, *_, word=word, **__: seen.append(word))
    for method in ("enable_attention_slicing", "enable_xformers_memory_efficient_attention"):
        monkeypatch.setattr(StableDiffusionPipeline, method, lambda self, *_, m=method: seen.append(m))
    machine = Machine("cuda", round(free * GIBIBYTE), "float16", 16 * GIBIBYTE)
    pipe, said = load(home / "half", machine=machine)
    assert seen == calls and pipe.unet.dtype == torch.float16
    assert "float16" in said[0]


@pytest.mark.parametrize("free, dtype", [(12, torch.float32), (5, torch.float16)])
def test_an_apple_gpu_gets_the_longest_format_that_fits(home, monkeypatch, free, dtype):
    from diffusers import StableDiffusionPipeline

    seen = []
    monkeypatch.setattr(StableDiffusionPipeline, "to", lambda self, device: seen.append(device))
    pipe, _ = load(home / "folder", machine=Machine("mps", free * GIBIBYTE))
    assert pipe.unet.dtype == dtype and seen == [torch.device("cpu")]  # `load` asks for it, whatever the facts


def test_a_plan_switches_slicing_and_tiling_on_and_off():
    pipe = thin_pipeline()
    for decoder in ("sliced", "tiled", "whole"):
        apply_plan(pipe, Plan("cpu", "float32", "none", decoder, 0, True, ()), "cpu")
        assert (pipe.vae.use_slicing, pipe.vae.use_tiling) == (decoder == "sliced", decoder == "tiled")


def refuse(words, *inputs, **options):
    with pytest.raises(StableDiffusionUnavailable, match=words) as caught:
        load(*inputs, **options)
    assert "\n" not in str(caught.value) and "load_picture_book()" in str(caught.value)


def test_what_cannot_be_loaded_is_said_in_one_sentence(home, tmp_path):
    refuse("there is no folder or file .*nowhere", tmp_path / "nowhere")
    refuse("there is no folder or file", "./nowhere")
    refuse("there is no folder or file", "weights.safetensors")
    refuse("is a pickle", "model.ckpt")
    refuse("has no model_index.json", tmp_path)
    refuse("there is no folder .* with the configurations", home / "single.safetensors", config=tmp_path / "none")
    refuse("Nothing fits", home / "folder", machine=Machine("cpu", GIBIBYTE, "float32"))
    (tmp_path / "broken.safetensors").write_bytes(b"half a file")
    refuse("cannot be read", tmp_path / "broken.safetensors", config=home / "configs")


def test_pickled_weights_are_not_read(home, tmp_path):
    shutil.copytree(home / "folder", tmp_path / "pickled")
    weights = tmp_path / "pickled/unet/diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    refuse("pickles .* are not read", tmp_path / "pickled")


def test_without_network_the_picture_book_is_offered():
    refuse(f"{MODEL_ID} is not on this disk, and could not be fetched", local_files_only=True)


# --- the safety checker ------------------------------------------------------------------------------------


def test_the_safety_checker_stays_on_and_blacks_out(home):
    pipe, _ = load(home / "folder")
    pipe.safety_checker.concept_embeds_weights.data.fill_(-2)
    assert pixels(pipe).max() == 0
    assert thin_parts()["safety_checker"].concept_embeds_weights.min() == 2
