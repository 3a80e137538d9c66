"""The systems side by side: each draws as its own pipeline does, PNGs draw again, and what one lacks is refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from benchmarks import systems as benchmark
from benchmarks.prompts import TASKS, load
from course_utils import cli, recipes, systems
from course_utils.data.images import to_pil
from course_utils.models.prior import Prior, small_prior
from course_utils.models.tokens_to_pixels import Dalle, DalleConfig
from course_utils.pipelines import picture_book, unclip
from course_utils.pipelines.dalle import load_tokenizer, similarity
from course_utils.pipelines.picture_book import CHECKPOINTS, load_picture_book
from course_utils.pipelines.png_info import Settings, format_parameters, parse_parameters, read_png
from course_utils.recipes.clip import clip_of
from course_utils.recipes.task import save_half
from course_utils.recipes.vq import small_vq

PROMPT = "a red ball on the beach"


def write_dalle(folder):
    """A small DALL·E with random weights, and its tokeniser of pictures, for the shipped autoencoder and tokenizer."""
    config = DalleConfig(words=len(load_tokenizer(folder / "clip")), codes=16, width=16, layers=1, heads=2)
    model = Dalle(config)
    for weights in model.parameters():
        weights.data += 0.2 * torch.randn(weights.shape)
    save_half(model, folder / "dalle")
    (folder / "dalle" / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    small_vq(channels=8, count=16).save_pretrained(folder / "vq")


def write_unclip(folder):
    """A small prior with random weights, and a decoder that has learnt nothing, for the shipped U-Net."""
    clip, _ = recipes.load_clip()
    prior = Prior(small_prior(clip, layers=1))
    prior.transformer.save_config(folder / "prior")
    save_half(prior.transformer, folder / "prior", "diffusion_pytorch_model.safetensors")
    decoder = unclip.new_decoder(load_picture_book().unet, 128)
    decoder.clip_extra_context_tokens_proj.weight.data.normal_()
    (folder / "unclip").mkdir()
    save_file(
        {name: value.half().contiguous() for name, value in decoder.kept().items()}, folder / "unclip" / unclip.FILE
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which `dalle` and `unclip` are as if trained, for a moment."""
    folder = tmp_path_factory.mktemp("runs")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_dalle(folder)
        write_unclip(folder)
    return folder


@pytest.fixture(scope="module")
def dalle(home):
    return systems.load("dalle", home / "dalle")


@pytest.fixture(scope="module")
def other(home):
    return systems.load("unclip", home / "unclip")


@pytest.fixture(scope="module")
def ours(model):
    return systems.load("stable-diffusion", model)


def run(*arguments):
    return CliRunner().invoke(cli.app, ["generate", *map(str, arguments)])


def far(one, another):
    """By how many grey levels two PIL pictures differ at most."""
    return numpy.abs(numpy.asarray(one, int) - numpy.asarray(another, int)).max()


def test_the_table_names_what_there_is():
    assert list(systems.SYSTEMS) == ["stable-diffusion", "dalle", "unclip", "few-steps", "mine"]
    for name, system in systems.SYSTEMS.items():
        shipped = recipes.SHIPPED.get(system.folder.name, system.files)  # mine is not shipped
        assert set(system.trained) <= set(recipes.PARTS) and set(system.files) <= set(shipped)
        assert system.options <= {*systems.FIELDS, "size"} and systems.find(name) is system
    assert set(systems.FIELDS.values()) <= {field.name for field in dataclasses.fields(Settings)}
    names = "stable-diffusion, dalle, unclip, few-steps, mine"
    with pytest.raises(ValueError, match=f"no system 'magic': choose one of {names}"):
        systems.load("magic")


def test_each_draws_as_its_own_pipeline(ours, dalle, other):
    settings = Settings(PROMPT, steps=3, sampler="ddpm", seed=5)
    expected = [picture for picture, _ in picture_book.draw(ours.parts, settings, 2)]
    drawn = ours.draw([PROMPT] * 2, 5, steps=3, sampler="ddpm")
    assert drawn.shape == (2, 3, 64, 64) and max(map(far, to_pil(drawn), expected)) <= 1
    pipe, _ = dalle.parts
    assert dalle.draw([PROMPT, "a cat"], 5).equal(pipe([PROMPT, "a cat"], 5, 3.0))
    generators = [torch.Generator().manual_seed(5)]
    expected = unclip.draw(other.parts, [PROMPT], generators, guidance=2.0, steps=2, sampler="ddim")
    assert other.draw([PROMPT], 5, 2.0, steps=2, sampler="ddim").equal(expected)


def test_a_picture_depends_on_its_seed_alone(ours, dalle):
    for loaded, how in ((ours, {"steps": 2}), (dalle, {}), (dalle, {"candidates": 2})):
        together = loaded.draw(["a cat", PROMPT], 5, **how)
        torch.testing.assert_close(loaded.draw([PROMPT], 6, **how), together[1:], atol=2e-3, rtol=0)
        assert not together[0].equal(together[1])


def test_the_best_is_the_candidate_that_clip_finds_nearest(dalle):
    pipe, clip = dalle.parts
    for seed in (0, 7):
        candidates = pipe([PROMPT] * 3, 3 * seed)
        near = similarity(clip, pipe.tokenizer, PROMPT, candidates)
        best = dalle.draw([PROMPT], seed, candidates=3)
        assert similarity(clip, pipe.tokenizer, PROMPT, best).item() == pytest.approx(near.max().item(), abs=1e-5)


def test_shared_parts_are_those_beside_the_folder_or_the_shipped_ones(home, other, tmp_path):
    shipped = clip_of(tmp_path, "embedder")[0].text_projection.weight
    assert other.parts.clip.text_projection.weight.equal(shipped)
    (tmp_path / "unclip").mkdir()
    with pytest.raises(ValueError, match=r"no (decoder of unCLIP|prior) in"):
        systems.load("unclip", tmp_path / "unclip")
    with pytest.raises(ValueError, match="There is no DALL·E in"):
        systems.load("dalle", home / "unclip")


# --- settings in a PNG


def test_a_png_names_the_system_and_nothing_that_it_lacks():
    dalle = Settings(PROMPT, guidance=3.0, seed=7, width=64, height=64, model="dalle", system="dalle", candidates=4)
    text = f"{PROMPT}\nCFG scale: 3, Seed: 7, Size: 64x64, Model: dalle, System: dalle, Candidates: 4"
    assert format_parameters(dalle) == text and parse_parameters(text) == dalle
    other = dataclasses.replace(dalle, steps=9, sampler="ddim", model="unclip", system="unclip", candidates=1)
    text = f"{PROMPT}\nSteps: 9, Sampler: DDIM, CFG scale: 3, Seed: 7, Size: 64x64, Model: unclip, System: unclip"
    assert format_parameters(other) == text and parse_parameters(text) == other
    for name in ("unclip", "magic"):
        with pytest.raises(ValueError, match="has no 'Sampler'"):
            parse_parameters(f"a\nCFG scale: 3, Seed: 7, Size: 64x64, System: {name}")
    with pytest.raises(ValueError, match="'Candidates' must be a whole number, but is 'few'"):
        parse_parameters("a\nCFG scale: 3, Seed: 7, Size: 64x64, System: dalle, Candidates: few")


@pytest.mark.parametrize(
    "name, options, last",
    [
        ("dalle", ["--count", 2], "CFG scale: 3, Seed: 5, Size: 64x64, Model: dalle, System: dalle"),
        ("dalle", ["--candidates", 2, "--guidance", 1], "Model: dalle, System: dalle, Candidates: 2"),
        ("unclip", ["--steps", 1], "Steps: 1, Sampler: UniPC, CFG scale: 3, Seed: 4"),
    ],
)
def test_generate_draws_what_the_png_draws_again(here, home, dalle, other, name, options, last):
    result = run(PROMPT, "--system", name, "--seed", 4, "--model", home / name, *options)
    assert result.exit_code == 0, result.output
    assert last in result.stdout and "drawing: 100%" in result.stderr and "Note" not in result.stderr
    loaded = {"dalle": dalle, "unclip": other}[name]
    for path in here.iterdir():
        found = read_png(path)
        ((picture, made),) = systems.draw_in_turn(loaded, found)
        assert made == found and far(Image.open(path), picture) <= 1


def test_more_words_than_are_read_are_named(here, home):
    words = "puppy " * 25
    result = run(words, "--system", "dalle", "--model", home / "dalle", "--output", "a.png")
    assert result.exit_code == 0 and "does not read 'puppy puppy puppy'" in result.stderr


def test_ctrl_c_keeps_the_batches_that_were_drawn(here, home, monkeypatch):
    draw = systems.Loaded.draw

    def interrupted(*given, **how):
        os.kill(os.getpid(), signal.SIGINT)
        return draw(*given, **how)

    monkeypatch.setattr(systems.Loaded, "draw", interrupted)
    result = run(PROMPT, "--system", "dalle", "--count", 6, "--model", home / "dalle")
    assert result.exit_code == 130 and len(list(here.iterdir())) == 4
    assert "Stopped; 4 of 6 pictures are drawn and written." in result.stderr


# --- what is refused


@pytest.mark.parametrize(
    "name, option, value, able",
    [
        ("dalle", "steps", 20, "stable-diffusion or unclip or few-steps"),
        ("dalle", "scheduler", "unipc", "stable-diffusion or unclip"),
        ("dalle", "negative", "", "stable-diffusion"),
        ("dalle", "image", "a.png", "stable-diffusion"),
        ("dalle", "lora", "a.safetensors", "stable-diffusion"),
        ("unclip", "size", 64, "stable-diffusion"),
        ("unclip", "strength", 0.5, "stable-diffusion"),
        ("unclip", "mask", "a.png", "stable-diffusion"),
        ("unclip", "control", "a.png", "stable-diffusion"),
        ("unclip", "candidates", 1, "dalle"),
        ("stable-diffusion", "candidates", 1, "dalle"),
    ],
)
def test_an_option_of_another_system_is_refused_whatever_its_value(here, name, option, value, able):
    result = run("a", "--system", name, f"--{option}", value)
    message = f"Error: The system {name} has no --{option}: leave it out, or draw with --system {able}.\n"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", message)


@pytest.mark.parametrize(
    "settings, words",
    [
        (Settings("a", negative_prompt="b", system="dalle"), "dalle has no --negative"),
        (Settings("a", width=32, height=32, system="dalle"), "dalle has no --size"),
        (Settings("a", seed=-1, system="dalle"), "The seed"),
        (Settings("a", candidates=513, system="dalle"), "from 1 to 512, but is 513"),
        (Settings("a", system="unclip"), "settings are of the system unclip, but dalle is loaded"),
    ],
)
def test_settings_that_cannot_be_drawn_with_are_refused(dalle, settings, words):
    with pytest.raises(ValueError, match=words):
        next(systems.draw_in_turn(dalle, settings))


def test_the_picture_book_refuses_the_settings_of_others(ours):
    with pytest.raises(ValueError, match=r"of the system dalle: draw with systems\.draw_in_turn"):
        picture_book.draw(ours.parts, Settings("a", system="dalle"))


def test_what_is_refused_is_said_before_the_slow_imports(home, tmp_path):
    script = "import sys; from course_utils.cli import app\ntry: app(['generate', 'a', *sys.argv[1:]])\n" \
             "finally: print('torch' in sys.modules, 'diffusers' in sys.modules)"  # fmt: skip
    for options, words in (
        (["--system", "dalle", "--steps", "1"], "has no --steps"),
        (["--system", "unclip", "--model", str(tmp_path)], "no model of unclip"),
    ):
        result = subprocess.run([sys.executable, "-c", script, *options], capture_output=True, text=True)
        assert (result.returncode, result.stdout) == (2, "False False\n") and words in result.stderr


# --- the benchmark


def test_every_network_that_draws_is_counted_and_no_other(ours, dalle, other):
    def counted(loaded, candidates=1):
        return [p for one in benchmark.networks(loaded.name, loaded.parts, candidates) for p in one.parameters()]

    for loaded, candidates in ((ours, 1), (dalle, 1), (dalle, 2), (other, 1)):
        each = [id(p) for p in counted(loaded, candidates)]
        assert len(set(each)) == len(each)
    pipe = ours.parts
    every = {p for part in (pipe.vae, pipe.unet, pipe.text_encoder) for p in part.parameters()}
    assert every - set(counted(ours)) == {*pipe.vae.encoder.parameters(), *pipe.vae.quant_conv.parameters()}


def test_hours_are_of_processors_and_none_where_a_record_lacks(tmp_path):
    training = json.loads((CHECKPOINTS / "manifest.json").read_text())["training"]
    facts = {"command": "", "steps": 1, "seconds": 3600, "threads": 2, "processes": 3}
    recipes.write_record(tmp_path / "vq", facts)
    assert benchmark.hours(["vq"], tmp_path) == 6
    vae = training["vae"]["seconds"] * training["vae"]["processes"] * training["vae"]["threads"] / 3600
    assert benchmark.hours(["vae", "vq"], tmp_path) == round(6 + vae, 1)
    assert benchmark.hours(["vae", "magic"], tmp_path) is None


def test_a_row_of_the_benchmark_and_its_table(dalle, monkeypatch):
    scenes = benchmark.scenes_to_draw()[:1]
    monkeypatch.setattr(benchmark, "scenes_to_draw", lambda: scenes)
    judge, prompts = recipes.load_judge(), load()[:4]
    rows = benchmark.with_fid(
        judge,
        [
            benchmark.measure_renders(judge, prompts, 3),
            benchmark.measure("dalle", dalle, judge, prompts, 2, 1),
            benchmark.measure("best", dalle, judge, prompts[:3], 2, 2),
        ],
        prompts,
    )
    renders, single, best = rows
    assert renders["followed"]["percent"] == 100 and single["followed"]["n"] == 4 and best["followed"]["n"] == 3
    assert set(single["tasks"]) == set(TASKS[:4]) and {row["pictures of the FID"] for row in rows} == {3}
    assert (
        renders["FID"] < single["FID"]
        and best["numbers"] > single["numbers"]
        and best["trained parts"][-1] == "embedder"
    )
    lines = benchmark.table(rows).splitlines()
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1 and "| dalle | " in lines[3]
