"""Drawing with a picture, a mask, a line drawing and LoRAs: what they do, what stays, and what is refused."""

import dataclasses
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from safetensors.torch import save_file
from tiny import tiny_parts
from typer.testing import CliRunner

from course_utils import cli
from course_utils.models.control import small_controlnet
from course_utils.models.lora import add_lora, remove_lora, save_lora
from course_utils.pipelines import picture_book, png_info, steering
from course_utils.pipelines.png_info import Settings, format_parameters, parse_parameters, read_png, write_png
from course_utils.pipelines.steering import Given, draw_given, painted, parse_lora, read_given

PROMPT = "a blue ball on the beach"
SETTINGS = Settings(PROMPT, steps=3, seed=4)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the shipped model, a ControlNet as if trained, two LoRAs, and files to give."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(picture_book.PICTURE_BOOK, folder / "picture_book")
    pipe = picture_book.load_picture_book(folder / "picture_book")
    generator = torch.Generator().manual_seed(0)
    controlnet = small_controlnet(pipe.unet)
    with torch.no_grad():
        for weights in controlnet.parameters():
            if not weights.any():
                weights += 0.05 * torch.randn(weights.shape, generator=generator)
    controlnet.save_pretrained(folder / "control")
    for name in ("fox", "snail"):
        for layer in add_lora(pipe.unet, 2, generator=generator):
            layer.B.data.normal_(0, 0.3, generator=generator)
        save_lora(pipe.unet, folder / f"{name}.safetensors")
        remove_lora(pipe.unet)

    rows, columns = np.mgrid[:64, :64]
    page = np.stack([4 * rows, 4 * columns, 255 - 2 * (rows + columns)], axis=2).clip(0, 255).astype(np.uint8)
    Image.fromarray(page).save(folder / "page.png")
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).ellipse((20, 20, 50, 40), fill=255)
    mask.save(folder / "mask.png")
    sketch = Image.new("L", (128, 128), 255)
    ImageDraw.Draw(sketch).ellipse((30, 30, 90, 90), outline=0, width=4)
    sketch.save(folder / "sketch.png")
    return folder


@pytest.fixture(scope="module")
def pipe(home):
    return picture_book.load_picture_book(home / "picture_book")


@pytest.fixture
def inside(home, monkeypatch):
    """In the folder of files to give, on the CPU."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    return home


def far(one, other):
    """The largest difference of two pictures in grey levels."""
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


def opened(home, **names):
    return Given(**{name: Image.open(home / file) for name, file in names.items()})


WAYS = {
    "image": {"image": "page.png", "strength": 0.7},
    "mask": {"image": "page.png", "mask": "mask.png"},
    "control": {"control": "sketch.png"},
    "loras": {"loras": (("fox.safetensors", 0.8), ("snail.safetensors", -0.5))},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_of_two_is_two_runs_of_one_and_a_png_can_be_drawn_again(pipe, inside, tmp_path, way):
    settings = dataclasses.replace(SETTINGS, **WAYS[way])
    seen = []
    run = draw_given(pipe, settings, count=2, on_step=lambda *step: seen.append(step))
    assert seen == [(i + 1, seen[0][1]) for i in range(seen[0][1])] and len(seen) in (2, 3)
    assert [made.seed for _, made in run] == [4, 5] and {made.model for _, made in run} == {"picture_book"}
    assert far(run[0][0], run[1][0]) > 20
    for number, (picture, made) in enumerate(run):
        write_png(tmp_path / f"{number}.png", picture, made)
        again = read_png(tmp_path / f"{number}.png")
        assert again == made
        ((single, _),) = draw_given(pipe, again)
        assert far(picture, single) <= 1


def test_steps_are_counted_over_all_batches(pipe, inside, monkeypatch):
    settings, seen = dataclasses.replace(SETTINGS, **WAYS["image"]), []
    together = draw_given(pipe, settings, count=2)
    monkeypatch.setattr(picture_book, "BATCH", {"cpu": 1, "other": 1})
    one_by_one = draw_given(pipe, settings, count=2, on_step=lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(far(a, b) <= 1 for (a, _), (b, _) in zip(together, one_by_one, strict=True))


def test_what_is_given_shows_in_the_picture(pipe, inside):
    ((plain, made),) = draw_given(pipe, SETTINGS)
    assert far(plain, picture_book.draw(pipe, SETTINGS)[0][0]) == 0 and made.strength is None
    for way in WAYS.values():
        assert far(plain, draw_given(pipe, dataclasses.replace(SETTINGS, **way))[0][0]) > 20


def test_a_strength_that_is_not_said(pipe, home):
    for files, strength in (({"image": "page.png"}, 0.6), ({"image": "page.png", "mask": "mask.png"}, 1)):
        ((_, made),) = draw_given(pipe, SETTINGS, opened(home, **files))
        assert made.strength == strength and made.image == ""  # no file was named
        assert f"Denoising strength: {strength}" in format_parameters(made)


def test_little_strength_leaves_the_picture_nearly_as_it_was(pipe, home):
    given, page = opened(home, image="page.png"), Image.open(home / "page.png")
    changes = []
    for strength in (0.2, 0.9):
        settings = dataclasses.replace(SETTINGS, steps=5, strength=strength)
        picture = draw_given(pipe, settings, given)[0][0]
        changes.append(np.abs(np.asarray(picture, float) - np.asarray(page, float)).mean())
    assert changes[0] < changes[1] / 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1"])
def test_outside_the_mask_every_bit_stays(pipe, home, mode):
    page, mask = (Image.open(home / name) for name in ("page.png", "mask.png"))
    page = page.convert(mode)
    for picture, _ in draw_given(pipe, SETTINGS, Given(page, mask.convert("RGB" if mode == "P" else "L")), 2):
        kept, new = np.asarray(page.convert("RGB")), np.asarray(picture)
        outside = np.asarray(mask) == 0
        assert np.array_equal(new[outside], kept[outside])
        assert not np.array_equal(new[~outside], kept[~outside])


def test_a_mask_is_halved_between_black_and_white():
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert np.array_equal(np.asarray(painted(grey)).ravel(), 255 * (np.arange(256) >= 128))
    assert painted(grey.convert("RGBA")).tobytes() == painted(grey.convert("LA")).tobytes() == painted(grey).tobytes()


def test_the_drawing_and_the_loras_are_the_librarys(pipe, inside):
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline

    theirs = StableDiffusionControlNetPipeline.from_pretrained(
        inside / "picture_book", controlnet=ControlNetModel.from_pretrained(inside / "control"), local_files_only=True
    )
    theirs.scheduler = picture_book.make_scheduler("ddim", theirs.scheduler.config)
    settings = dataclasses.replace(SETTINGS, sampler="ddim")
    how = {"num_inference_steps": 3, "guidance_scale": 4.0, "generator": torch.Generator().manual_seed(4)}
    lines = ImageOps.invert(Image.open("sketch.png")).resize((64, 64), Image.Resampling.BOX).convert("RGB")
    picture = draw_given(pipe, dataclasses.replace(settings, control="sketch.png"))[0][0]
    assert far(picture, theirs(PROMPT, image=lines, **how).images[0]) <= 1

    theirs = StableDiffusionPipeline.from_pretrained(inside / "picture_book", local_files_only=True)
    theirs.scheduler = picture_book.make_scheduler("ddim", theirs.scheduler.config)
    for name, _ in WAYS["loras"]["loras"]:
        theirs.load_lora_weights(inside, weight_name=name, adapter_name=name.split(".")[0])
    theirs.set_adapters(["fox", "snail"], [0.8, -0.5])
    how["generator"].manual_seed(4)
    picture = draw_given(pipe, dataclasses.replace(settings, **WAYS["loras"]))[0][0]
    assert far(picture, theirs(PROMPT, **how).images[0]) <= 1


def test_drawing_leaves_the_pipeline_as_it_was(inside):
    pipe = picture_book.load_picture_book("picture_book")
    pipe.unet.requires_grad_(True)
    own = add_lora(pipe.unet, 1, targets=["to_q"])  # as in a notebook that trains one
    state = {name: (tensor, tensor.clone()) for name, tensor in pipe.unet.state_dict(keep_vars=True).items()}
    trained = {name: parameter.requires_grad for name, parameter in pipe.unet.named_parameters()}
    scheduler, parts = pipe.scheduler, dict(pipe.components)

    def stop(done, total):
        raise KeyboardInterrupt

    settings = dataclasses.replace(SETTINGS, **WAYS["loras"])
    for way in WAYS.values():
        with pytest.raises(KeyboardInterrupt):
            draw_given(pipe, dataclasses.replace(settings, **way), on_step=stop)
    bad = (("fox.safetensors", 1.0), ("page.png", 1.0))
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        draw_given(pipe, SETTINGS, Given(loras=bad))
    assert pipe.scheduler is scheduler and pipe.components == parts
    after = pipe.unet.state_dict(keep_vars=True)
    assert list(after) == list(state)
    assert all(after[name] is tensor and tensor.equal(before) for name, (tensor, before) in state.items())
    assert {name: parameter.requires_grad for name, parameter in pipe.unet.named_parameters()} == trained
    assert all(any(layer is module for module in pipe.unet.modules()) for layer in own)


def test_plain_drawing_of_such_settings_is_refused(pipe):
    for way in WAYS.values():
        with pytest.raises(ValueError, match=r"more than a prompt.*steering\.draw_given"):
            picture_book.draw(pipe, dataclasses.replace(SETTINGS, **way))


# --- the command


def run(*arguments):
    return CliRunner().invoke(cli.app, ["generate", *map(str, arguments)])


def refused(result, *words):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def test_the_command_draws_what_draw_given_draws(pipe, inside, tmp_path):
    quick = ("--steps", 3, "--seed", 4, "--model", "picture_book", "--output", tmp_path / "a.png", "--force")
    given = {
        "image": ("--image", "page.png", "--strength", 0.7),
        "mask": ("--image", "page.png", "--mask", "mask.png"),
        "control": ("--control", "sketch.png"),
        "loras": ("--lora", "fox.safetensors:0.8", "--lora", "snail.safetensors:-0.5"),
    }
    for way, options in given.items():
        result = run(PROMPT, *options, *quick)
        assert result.exit_code == 0, result.output
        ((picture, made),) = draw_given(pipe, dataclasses.replace(SETTINGS, **WAYS[way]))
        assert read_png(tmp_path / "a.png") == made
        assert far(Image.open(tmp_path / "a.png"), picture) <= 1
        assert "Note" not in result.stderr and "drawing: 100%" in result.stderr


@pytest.fixture(scope="module")
def odd(home):
    """Files that cannot be used, beside those that can."""
    page, mask, sketch = (Image.open(home / name) for name in ("page.png", "mask.png", "sketch.png"))
    page.resize((60, 64)).save(home / "sixty.png")
    page.resize((512, 512)).save(home / "large.png")
    page.convert("F").save(home / "floats.tiff")
    (home / "text.png").write_text("text")
    mask.resize((32, 32)).save(home / "small-mask.png")
    Image.new("L", (64, 64), 100).save(home / "dark-mask.png")
    dot = Image.new("L", (64, 64))
    dot.putpixel((5, 5), 255)
    dot.save(home / "dot-mask.png")
    clear = mask.convert("RGBA")
    clear.putalpha(mask)
    clear.save(home / "clear-mask.png")
    Image.new("I;16", (64, 64), 65535).save(home / "deep-mask.png")
    sketch.resize((128, 100)).save(home / "wide-sketch.png")
    Image.new("L", (64, 64), 255).save(home / "empty-sketch.png")
    save_file({"lora_te_text_model.lora_down.weight": torch.zeros(2, 2)}, home / "text-lora.safetensors")
    (home / "broken.safetensors").write_bytes(b"half")
    other = tiny_parts()["unet"]
    add_lora(other, 1)
    save_lora(other, home / "other.safetensors")
    return home


IMAGE = ("--image", "page.png")


@pytest.mark.parametrize(
    "options, words",
    [
        (("--strength", "0.5"), ["A strength (--strength)", "give that picture too (--image)"]),
        (("--mask", "mask.png"), ["A mask (--mask)", "give that picture too (--image)"]),
        ((*IMAGE, "--strength", "1.5"), ["strength must be a number from 0", "but is 1.5"]),
        ((*IMAGE, "--strength", "nan"), ["strength must be a number from 0", "but is nan"]),
        ((*IMAGE, "--strength", "much"), ["--strength", "'much'"]),
        ((*IMAGE, "--strength", "0.3"), ["strength 0.3 leaves none of 3 steps"]),
        ((*IMAGE, "--strength", "0"), ["strength 0 leaves none of 3 steps"]),
        ((*IMAGE, "--control", "sketch.png"), ["--control", "--image", "not supported together"]),
        ((*IMAGE, "--size", "32"), ["picture to start from, 64 x 64 pixels", "leave it out (--size)"]),
        (("--image", "sixty.png"), ["Resize the picture, which is of 60 x 64", "multiple of 8, but is 60"]),
        (("--image", "large.png"), ["Resize the picture, which is of 512 x 512", "from 16 to 256, but is 512"]),
        (("--image", "floats.tiff"), ["The image has pixels of mode 'F'", "8 bits"]),
        (("--image", "nowhere.png"), ["nowhere.png cannot be read (No such file or directory)"]),
        (("--image", "text.png"), ["text.png is not a picture"]),
        (("--image", "."), [". cannot be read (Is a directory)"]),
        ((*IMAGE, "--mask", "nowhere.png"), ["nowhere.png cannot be read"]),
        ((*IMAGE, "--mask", "small-mask.png"), ["mask is of 32 x 32 pixels, the picture of 64 x 64"]),
        ((*IMAGE, "--mask", "dark-mask.png"), ["mask has nothing to paint"]),
        ((*IMAGE, "--mask", "dot-mask.png"), ["mask with something to paint", "4 x 4"]),
        ((*IMAGE, "--mask", "clear-mask.png"), ["mask has transparent pixels"]),
        ((*IMAGE, "--mask", "page.png"), ["mask has colours"]),
        ((*IMAGE, "--mask", "deep-mask.png"), ["The mask has pixels of mode 'I;16'"]),
        (("--control", "nowhere.png"), ["nowhere.png cannot be read"]),
        (("--control", "wide-sketch.png"), ["drawing is of 128 x 100 pixels, the page of 64 x 64", "proportions"]),
        (("--control", "empty-sketch.png"), ["one colour only; draw something"]),
        (("--lora", "nowhere.safetensors"), ["no LoRA file nowhere.safetensors"]),
        (("--lora", "fox"), ["FILE.safetensors or FILE.safetensors:WEIGHT", "'fox'"]),
        (("--lora", "fox.safetensors:much"), ["weight of the LoRA fox.safetensors must be a number", "'much'"]),
        (("--lora", "fox.safetensors:"), ["weight of the LoRA fox.safetensors must be a number", "''"]),
        (("--lora", "fox.safetensors:nan"), ["weight of the LoRA fox.safetensors must be a finite number", "nan"]),
        (("--lora", "broken.safetensors"), ["broken.safetensors, which cannot be read"]),
        (("--lora", "text-lora.safetensors"), ["Expected keys such as", "lora_te_text_model"]),
        (("--lora", "other.safetensors"), ["other.safetensors", "trained for this model"]),
    ],
)
def test_a_wrong_option_gets_one_sentence(inside, odd, options, words):
    before = sorted(inside.iterdir())
    refused(run(PROMPT, "--steps", 3, "--model", "picture_book", *options), *words)
    assert sorted(inside.iterdir()) == before


def test_a_tag_in_the_prompt_is_not_taken_for_a_lora(inside):
    refused(run("a fox <lora:fox:1>", "--model", "picture_book"), "'<lora:fox:1>'", "(--lora)")


def test_a_model_without_controlnet_says_how_to_make_one(inside, model, tmp_path, monkeypatch):
    refused(run(PROMPT, "--control", "sketch.png", "--model", model), "There is no ControlNet in",
            "course.py train control --folder")  # fmt: skip
    monkeypatch.setattr(steering, "CHECKPOINTS", tmp_path)
    with pytest.raises(ValueError, match="There is no ControlNet in .*control: train it with .*, or fetch the shipped"):
        steering.control_folder(tmp_path / "picture_book")


def test_files_that_have_gone_are_named(pipe, inside, tmp_path):
    for way, words in {
        "image": "page.png cannot be read",
        "mask": "page.png cannot be read",
        "control": "sketch.png cannot be read",
        "loras": "no LoRA file fox.safetensors",
    }.items():
        ((picture, made),) = draw_given(pipe, dataclasses.replace(SETTINGS, **WAYS[way]))
        write_png(tmp_path / "made.png", picture, made)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            with pytest.raises(ValueError, match=words):
                read_given(read_png("made.png"))


# --- in the form of Web UI


def test_parse_lora():
    assert parse_lora("a/fox.safetensors") == ("a/fox.safetensors", 1)
    assert parse_lora("C:\\fox.safetensors:-.5") == ("C:\\fox.safetensors", -0.5)


def test_the_form_is_web_uis():
    made = Settings("a fox", "rain", 20, "unipc", 4.0, 7, 64, 64, "picture_book", 0.6, "my page, 1.png", "mask.png",
                    "", (("x/fox.safetensors", 0.8), ("a:b.safetensors", 1)))  # fmt: skip
    text = format_parameters(made)
    assert text == (
        "a fox <lora:fox:0.8> <lora:a_b:1>\nNegative prompt: rain\n"
        "Steps: 20, Sampler: UniPC, CFG scale: 4, Seed: 7, Size: 64x64, Model: picture_book, Denoising strength: 0.6, "
        'Mask blur: 0, Init image: "my page, 1.png", Mask image: mask.png, LoRA 0: x/fox.safetensors, '
        'LoRA 1: "a:b.safetensors"'
    )
    assert parse_parameters(text) == made
    drawn = dataclasses.replace(made, prompt="", strength=None, image="", mask="", control=" s.png")
    text = format_parameters(drawn)
    assert 'ControlNet 0: "Module: none, Model: control, Weight: 1.0, Resize Mode: Just Resize, ' in text
    assert parse_parameters(text) == drawn


def test_what_web_ui_wrote_is_read():
    text = (
        "masterpiece <lora:one:.8>, <lora:two>, <lora:three:1:0.5> fox\nNegative prompt: <lora:four:1>\n"
        "Steps: 28, Sampler: Euler, CFG scale: 6.5, Seed: 9, Size: 512x768, Denoising strength: 0.45, Mask blur: 4, "
        'ControlNet 0: "Module: canny, Weight: 1.0", Lora hashes: "one: 1a, two: 2b"'
    )
    read = parse_parameters(text)
    assert read.prompt == "masterpiece,, fox" and read.negative_prompt == "<lora:four:1>"
    assert read.loras == (("one", 0.8), ("two", 1), ("three", 1)) and read.strength == 0.45
    with pytest.raises(ValueError, match=r"ends in \.safetensors, but 'one' does not"):
        read_given(read)
    assert parse_parameters(text + ", Hires upscale: 2").strength is None
    with pytest.raises(ValueError, match="LoRA tag must be of the form <lora:NAME:WEIGHT>, but is '<lora:one:te=1>'"):
        parse_parameters(text.replace(":.8", ":te=1"))
    with pytest.raises(ValueError, match="'Denoising strength' must be a number, but is 'much'"):
        parse_parameters(text.replace("0.45", "much"))


def test_crafted_tags_are_read_at_once():
    line = "\nSteps: 28, Sampler: Euler, CFG scale: 6.5, Seed: 9, Size: 512x768"
    start = time.process_time()
    for crafted in ("<lora:" * 16_000, " " * 99_000, "<lora:" + ":" * 99_000):
        assert parse_parameters(crafted + line).prompt == crafted.strip()
    assert time.process_time() - start < 1
    assert png_info.LORA_TAG.sub("", "a <lora:x> b") == "a b"
