"""The shipped model without torch: the pictures of the pipeline, its words, and the pipeline wherever more is asked."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import refused, run
from test_web import TEXTS

from course_utils import systems
from course_utils.pipelines import picture_book, quick
from course_utils.pipelines.png_info import Settings, format_parameters, read_png
from course_utils.text.prompts import inspect_prompt
from course_utils.text.tokens import tokenize

pytest.importorskip("onnxruntime", reason="an environment from before it was asked for: python3 course.py repair")
PROMPT = "a cute corgi puppy sitting on the grass"


@pytest.fixture(scope="module")
def fast():
    return systems.load_quick()


@pytest.fixture(scope="module")
def slow():
    return systems.load("stable-diffusion")


def settings(prompt=PROMPT, **changes):
    """Those of `generate`, once `systems.prepare` has completed them."""
    return Settings(prompt, **{"width": 64, "height": 64, **changes})


def levels(drawn):
    return np.stack([np.asarray(picture).astype(int) for picture, _ in drawn])


@pytest.mark.parametrize(
    "prompt, count, changes",
    [
        (PROMPT, 1, {}),
        ("two red cats in the snow at night, pixel art", 3, {"seed": 7}),
        ("an orange teapot", 1, {"guidance": 1, "seed": 2**32 - 1}),
        (PROMPT, 2, {"guidance": 0, "negative_prompt": "a red car", "steps": 6}),
        ("a zebra 柯基 🐶 riding", 4, {"guidance": 7.5, "negative_prompt": "blue", "steps": 7, "seed": 2**32 - 9}),
        ("a " * 60 + "cat", 1, {"steps": 1}),
        (PROMPT, 1, {"steps": 2, "seed": 3}),
        (PROMPT, 1, {"steps": 33, "guidance": quick.HIGHEST_GUIDANCE}),
    ],
)
def test_the_picture_is_that_of_the_pipeline_to_one_grey_level(fast, slow, prompt, count, changes):
    asked = settings(prompt, **changes)
    assert quick.can_draw(asked, count, picture_book.PICTURE_BOOK)
    seen = {"fast": [], "slow": []}
    drawn = list(systems.draw_in_turn(fast, asked, None, count, lambda *at: seen["fast"].append(at)))
    expected = list(systems.draw_in_turn(slow, asked, None, count, lambda *at: seen["slow"].append(at)))
    assert abs(levels(drawn) - levels(expected)).max() <= 1
    assert levels(expected).std() > 20  # pictures, and not one colour
    assert [made for _, made in drawn] == [made for _, made in expected]
    assert [format_parameters(made) for _, made in drawn] == [format_parameters(made) for _, made in expected]
    assert seen["fast"] == seen["slow"]


def test_the_noise_is_torchs():
    for seed in (0, 1, 12345, 2**31, 2**32 - 1):
        expected = torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(seed)).numpy()
        np.testing.assert_allclose(quick.randn(seed, (8, 16, 16)), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="a multiple of 16 numbers"):
        quick.randn(0, (3, 5))


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 33, 1000])
def test_the_sampler_is_diffusers(fast, slow, steps):
    scheduler = picture_book.make_scheduler("unipc", slow.parts.scheduler.config)
    np.testing.assert_allclose(fast.parts.alpha_bar, scheduler.alphas_cumprod.numpy(), rtol=1e-5)
    scheduler.set_timesteps(steps)
    x = quick.randn(0, (1, 2, 16, 16))
    expected, asked = torch.from_numpy(x), []

    def predict(x_t, t):
        asked.append(t)
        return np.tanh(x_t) * (t / 1000) - 0.3

    drawn = list(quick.unipc(predict, x, fast.parts.alpha_bar, steps))
    assert asked == scheduler.timesteps.tolist()
    for t, x in zip(scheduler.timesteps, drawn, strict=True):
        output = expected.tanh() * (t / 1000) - 0.3
        expected = scheduler.step(output, t, expected).prev_sample
        np.testing.assert_allclose(x, expected.numpy(), rtol=0, atol=2e-4)


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_and_the_advice_are_those_of_the_librarys_tokenizer(fast, slow, text):
    assert fast.tokenizer.tokens([text]).tolist() == tokenize(slow.tokenizer, [text]).tolist()
    if text.strip():
        assert inspect_prompt(fast.tokenizer, text) == inspect_prompt(slow.tokenizer, text)


@pytest.mark.parametrize(
    "count, changes",
    [
        (5, {}),
        (1, {"sampler": "ddim"}),
        (1, {"width": 48, "height": 48}),
        (1, {"width": 48}),
        (1, {"guidance": quick.HIGHEST_GUIDANCE + 1}),
        (1, {"image": "a.png", "strength": 0.5}),
        (1, {"mask": "a.png"}),
        (1, {"control": "a.png"}),
        (1, {"loras": (("a.safetensors", 1.0),)}),
        (1, {"variation": 0.5}),
        (1, {"system": "dalle"}),
        (1, {"candidates": 2}),
    ],
)
def test_what_asks_for_more_is_left_to_the_libraries(count, changes):
    assert quick.can_draw(settings(), 1, picture_book.PICTURE_BOOK)
    assert not quick.can_draw(settings(**changes), count, picture_book.PICTURE_BOOK)


def test_so_are_other_models_other_devices_and_a_model_that_nothing_vouches_for(model, monkeypatch, tmp_path):
    assert not quick.can_draw(settings(), 1, Path(model))
    with monkeypatch.context() as patch:
        patch.setenv("COURSE_DEVICE", "cuda")
        assert not quick.can_draw(settings(), 1, picture_book.PICTURE_BOOK)
    with monkeypatch.context() as patch:
        patch.setattr(quick.importlib.util, "find_spec", lambda name: None)
        assert not quick.can_draw(settings(), 1, picture_book.PICTURE_BOOK)
    monkeypatch.setattr(quick, "CHECKPOINTS", tmp_path)  # without a manifest
    assert not quick.can_draw(settings(), 1, picture_book.PICTURE_BOOK)


def generated(name, *options):
    """The result of `generate`, and the settings of its picture."""
    result = run("generate", *options, "--output", name)
    assert result.exit_code == 0, result.output
    return result, read_png(name)


def test_generate_says_what_it_said_and_imports_no_torch(here, monkeypatch):
    options = ["a corgy on the gras", "--guidance", "1", "--negative", "blue", "--steps", "2", "--seed", "5"]
    script = "import sys; from course_utils.cli import app\ntry: app(sys.argv[1:])\n" \
             "finally: print({'torch', 'diffusers', 'transformers'} & {*sys.modules})"  # fmt: skip
    command = [sys.executable, "-c", script, "generate", *options, "--output", "fast.png"]
    fast = subprocess.run(command, capture_output=True, text=True, check=True)
    monkeypatch.setattr(quick, "can_draw", lambda *given: False)
    slow, expected = generated("slow.png", *options)
    assert fast.stdout == slow.stdout.replace("slow.png", "fast.png") + "set()\n"
    notes = [line for line in fast.stderr.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 3 and notes == [line for line in slow.stderr.splitlines() if line.startswith("Note: ")]
    assert read_png("fast.png") == expected


def test_where_the_quick_start_fails_the_libraries_draw_and_one_sentence_says_so(here, monkeypatch):
    monkeypatch.setattr(quick, "GRAPHS", here)
    result, made = generated("a.png", PROMPT, "--steps", "1")
    assert result.stderr.count("Note: ") == 1
    assert "Note: The quick start failed (" in result.stderr
    assert "), so this takes some seconds longer.\n" in result.stderr and made.steps == 1


def test_a_file_that_has_changed_is_refused_as_before(here, monkeypatch):
    changed = here / "checkpoints"
    shutil.copytree(picture_book.PICTURE_BOOK, changed / "picture_book")
    shutil.copy(picture_book.CHECKPOINTS / "manifest.json", changed)
    weights = changed / "picture_book" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    for name, value in (("CHECKPOINTS", changed), ("PICTURE_BOOK", changed / "picture_book")):
        monkeypatch.setattr(quick, name, value)
        monkeypatch.setattr(picture_book, name, value)
    said = f"{weights} has changed since it was shipped"
    refused(run("generate", PROMPT, "--model", changed / "picture_book"), said)
    monkeypatch.setattr(quick, "can_draw", lambda *given: False)
    refused(run("generate", PROMPT, "--model", changed / "picture_book"), said)


def test_ctrl_c_ends_it_between_two_steps(here, monkeypatch):
    take = quick.unipc

    def pressed(*given):
        for step, x in enumerate(take(*given)):
            if step == 1:  # not in the single step that is tried out when the model is loaded
                os.kill(os.getpid(), signal.SIGINT)
            yield x

    monkeypatch.setattr(quick, "unipc", pressed)
    result = run("generate", PROMPT, "--steps", "4", "--count", "2")
    assert result.exit_code == 130 and "Stopped; 0 of 2 pictures are drawn and written." in result.stderr
    assert not list(here.iterdir())
