"""Assembling, saving, loading and drawing."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from course_utils import files
from course_utils.pipelines import picture_book as pipelines
from course_utils.pipelines.picture_book import SCHEDULERS, assemble, draw, load_picture_book, save_pipeline
from course_utils.pipelines.png_info import WEB_UI_SAMPLERS, Settings, read_png, write_png

CORGI = Settings("a cute corgi puppy on the grass", steps=4, width=64, height=64, model="tiny")


@pytest.fixture(scope="module")
def pipe():
    return tiny.tiny_pipeline()


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_pipeline(pipe, folder)
    return folder


def pixels(picture):
    return np.asarray(picture).astype(int)


def far(one, other):
    """The largest difference of two pictures in grey levels."""
    return np.abs(pixels(one) - pixels(other)).max()


# --- assemble, save, load ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part, changes, words",
    [
        ("unet", {"cross_attention_dim": 16}, "cross_attention_dim of the U-Net is 16, .* encoder is 32"),
        ("unet", {"in_channels": 8}, "in_channels of the U-Net is 8, but latent_channels .* is 4"),
        ("vae", {"sample_size": 32}, "times 4 is 64, but sample_size of the autoencoder is 32"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(part, changes, words):
    parts = tiny.tiny_parts()
    parts[part].register_to_config(**changes)
    with pytest.raises(ValueError, match=words):
        assemble(**parts)


def test_a_tokenizer_that_does_not_fit_is_refused():
    parts = tiny.tiny_parts()
    with pytest.raises(ValueError, match="model_max_length of the tokenizer is 16"):
        assemble(**{**parts, "tokenizer": tiny.tiny_tokenizer(length=16)})
    parts["text_encoder"].config.vocab_size = 100
    with pytest.raises(ValueError, match="the text encoder knows only 100"):
        assemble(**parts)


def test_assembling_leaves_the_scheduler_as_it_was(recwarn):
    parts = tiny.tiny_parts()
    before = dict(parts["scheduler"].config)
    pipe = assemble(**parts)
    assert dict(parts["scheduler"].config) == before
    assert pipe.scheduler.config.steps_offset == 1
    assert not [warning for warning in recwarn if "steps_offset" in str(warning.message)]


def test_number_formats_on_disk(folder):
    expected = {"unet/diffusion_pytorch_model": torch.float16, "vae/diffusion_pytorch_model": torch.float16,
                "text_encoder/model": torch.float32}  # fmt: skip
    for name, dtype in expected.items():
        tensors = load_file(folder / f"{name}.safetensors").values()
        assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {dtype}


def test_plain_diffusers_opens_the_folder_and_draws(folder):
    script = f"""
import sys
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({str(folder)!r})
picture = pipe("a cute corgi puppy", num_inference_steps=2).images[0]
print(picture.size, "course_utils" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder.parent)
    assert run.stdout.strip() == "(64, 64) False", run.stderr


def test_a_text_encoder_in_half_precision_is_saved_so_that_it_draws(tmp_path):
    parts = tiny.tiny_parts()
    parts["text_encoder"].half()
    save_pipeline(assemble(**parts), tmp_path / "half")
    ((picture, _),) = draw(load_picture_book(tmp_path / "half"), CORGI)
    assert picture.size == (64, 64)


def test_what_is_loaded_draws_the_same_and_quietly(pipe, folder, capfd):
    transformers.utils.logging.enable_progress_bar()
    loaded = load_picture_book(folder)
    assert transformers.utils.logging.is_progress_bar_enabled()  # silenced for the while only
    ((picture, made),) = draw(loaded, dataclasses.replace(CORGI, model=""))
    assert capfd.readouterr() == ("", "")
    assert made == CORGI  # size and model are filled in
    assert far(picture, draw(pipe, CORGI)[0][0]) <= 2  # float16 on disk


def test_an_interrupted_save_loses_nothing(pipe, folder, tmp_path, monkeypatch):
    home = tmp_path / "model"
    shutil.copytree(folder, home)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}

    def interrupt(*_):
        raise KeyboardInterrupt

    for place in ("convert", "_write_dtype"):
        monkeypatch.setattr(pipelines, place, interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_pipeline(pipe, home)
        monkeypatch.undo()
    rename = Path.rename

    def rename_old_only(self, target):
        return interrupt() if self.name.endswith(".part") else rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_old_only)
    monkeypatch.setattr(files, "_exchange", lambda *_: False)  # as on a system without it
    with pytest.raises(KeyboardInterrupt):
        save_pipeline(pipe, home)
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [home]


def test_saving_over_something_else_is_refused(pipe, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else than a pipeline"):
        save_pipeline(pipe, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


# --- drawing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["unipc", "ddpm"])  # ddpm adds noise at each step too
def test_picture_i_of_a_run_is_the_picture_of_seed_plus_i(pipe, monkeypatch, sampler):
    settings = dataclasses.replace(CORGI, sampler=sampler, seed=5)
    run = draw(pipe, settings, count=3)
    assert [made.seed for _, made in run] == [5, 6, 7]
    for picture, made in run:
        ((single, again),) = draw(pipe, made)
        assert far(picture, single) <= 1
        assert again == made
    assert far(run[0][0], run[1][0]) > 50
    sizes, draw_batch = [], pipelines._draw_batch
    monkeypatch.setattr(pipelines, "BATCH", {"cpu": 2, "other": 2})

    def counted(pipe, batch, on_step_end):
        sizes.append(len(batch))
        return draw_batch(pipe, batch, on_step_end)

    monkeypatch.setattr(pipelines, "_draw_batch", counted)
    assert all(far(a, b) <= 1 for (a, _), (b, _) in zip(draw(pipe, settings, count=3), run, strict=True))
    assert sizes == [2, 1]


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a red ball"}, {"steps": 3}, {"sampler": "ddim"}, {"guidance": 8.0}, {"guidance": 1},
     {"negative_prompt": "the beach at night"}, {"seed": 1}],
)  # fmt: skip
def test_every_setting_shows_in_the_picture(pipe, change):
    strong = dataclasses.replace(CORGI, guidance=30.0)
    assert far(draw(pipe, strong)[0][0], draw(pipe, dataclasses.replace(strong, **change))[0][0]) > 1


def test_guidance_zero_draws_the_negative_prompt(pipe):
    zero = dataclasses.replace(CORGI, guidance=0, negative_prompt="a red ball")
    ball = dataclasses.replace(CORGI, guidance=1, prompt="a red ball")
    assert far(draw(pipe, zero)[0][0], draw(pipe, ball)[0][0]) == 0


def test_every_sampler_draws_and_reports_its_steps(pipe):
    assert list(SCHEDULERS) == list(WEB_UI_SAMPLERS)
    pictures = []
    for sampler in SCHEDULERS:
        seen = []
        settings = dataclasses.replace(CORGI, sampler=sampler, guidance=30.0)
        ((picture, _),) = draw(pipe, settings, on_step=lambda *step, seen=seen: seen.append(step))
        total = {"heun": 7, "pndm": 5}.get(sampler, 4)
        assert seen == [(i + 1, total) for i in range(total)]
        pictures.append(picture)
    assert all(far(pictures[0], other) > 0 for other in pictures[1:])


def test_steps_are_counted_over_all_batches(pipe, monkeypatch):
    monkeypatch.setattr(pipelines, "BATCH", {"cpu": 1, "other": 1})
    seen = []
    draw(pipe, dataclasses.replace(CORGI, steps=2), 2, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_drawing_leaves_the_pipeline_as_it_was(folder):
    pipe = load_picture_book(folder)
    pipe.set_progress_bar_config(leave=False)
    scheduler = pipe.scheduler

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(pipe, CORGI, on_step=stop)
    assert pipe.scheduler is scheduler
    assert pipe._progress_bar_config == {"leave": False}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 1000, but is 0"),
        ({"steps": 1001}, "but is 1001"),
        ({"steps": 2.5}, "but is 2.5"),
        ({"steps": True}, "but is True"),
        ({"guidance": float("nan")}, "guidance must be a number from 1 .* but is nan"),
        ({"guidance": float("inf")}, "but is inf"),
        ({"guidance": 0.5}, "but is 0.5"),
        ({"guidance": -1}, "but is -1"),
        ({"guidance": "4"}, "but is '4'"),
        ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, but is -1"),
        ({"seed": 2**32}, "but is 4294967296"),
        ({"sampler": "magic"}, "no scheduler 'magic': choose one of unipc, dpm"),
        ({"width": 60}, "width must be a multiple of 8, but is 60; the model is made for 64"),
        ({"height": 8}, "height .* 64 pixels.* from 16 to 256, but is 8"),
        ({"height": 512}, "but is 512"),
    ],
)
def test_a_bad_setting_is_refused_in_one_sentence(pipe, change, words):
    with pytest.raises(ValueError, match=words) as caught:
        draw(pipe, dataclasses.replace(CORGI, **change))
    assert "\n" not in str(caught.value)


def test_other_sizes_are_drawn(pipe):
    ((picture, made),) = draw(pipe, dataclasses.replace(CORGI, width=72, height=40, steps=1))
    assert picture.size == (made.width, made.height) == (72, 40)


def test_reading_it_back_gives_the_same_picture(pipe, tmp_path):
    (picture, made) = draw(pipe, dataclasses.replace(CORGI, seed=3, negative_prompt="a, red: ball"), 2)[1]
    write_png(tmp_path / "corgi.png", picture, made)
    ((again, _),) = draw(pipe, read_png(tmp_path / "corgi.png"))
    assert far(again, Image.open(tmp_path / "corgi.png")) <= 1
