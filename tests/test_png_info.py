"""Settings in a PNG: round trips, the form of Stable Diffusion Web UI, and files that are refused."""

import dataclasses
import struct
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from course_utils.pipelines.png_info import (
    Settings,
    check_settings,
    default_name,
    format_parameters,
    output_paths,
    parse_parameters,
    read_png,
    write_png,
)

CORGI = Settings("a cute corgi puppy on the grass", steps=4, width=64, height=64, model="tiny")

AWKWARD = [
    "a corgi, a ball: red",
    'she said "woof", \\ and: left',
    "first line\n\nthird line, Steps: 9, Seed: 1, Sampler: DDIM",
    "Hündchen 🐶 auf dem Gras, 小狗",
    "Steps: 20, Sampler: UniPC, CFG scale: 4, Seed: 7, Size: 64x64",
]


@pytest.mark.parametrize("prompt", AWKWARD)
@pytest.mark.parametrize("negative", ["", *AWKWARD[2:4]])
def test_settings_survive_the_png(tmp_path, prompt, negative):
    settings = Settings(prompt, negative, 7, "dpm++", 3.14, 2**32 - 1, 48, 80, 'my: "best", model')
    path = tmp_path / "picture.png"
    write_png(path, Image.new("RGB", (48, 80)), settings)
    assert read_png(path) == settings
    assert [path] == list(tmp_path.iterdir())


def test_the_form_is_web_uis():
    settings = Settings("a corgi", "rain", 20, "unipc", 4.0, 7, 64, 64, "picture_book")
    assert format_parameters(settings) == (
        "a corgi\nNegative prompt: rain\n"
        "Steps: 20, Sampler: UniPC, CFG scale: 4, Seed: 7, Size: 64x64, Model: picture_book"
    )
    for model, written in (("a: b", '"a: b"'), ('"a"', r'"\"a\""'), ('a, b: "c"', r'"a, b: \"c\""')):
        text = format_parameters(dataclasses.replace(settings, model=model))
        assert text.endswith(f"Model: {written}")
        assert parse_parameters(text).model == model


def test_what_web_ui_wrote_is_read_and_foreign_keys_are_ignored():
    text = (
        "masterpiece, (corgi:1.2)\nsecond line\nNegative prompt: blurry\nugly\n"
        "Steps: 28, Sampler: Euler, Schedule type: Automatic, CFG scale: 6.5, Seed: 965400086, "
        'Size: 512x768, Model hash: 45dee52b, Model: v1-5, Lora hashes: "one: 1a, two: 2b", TI/x-y: 3'
    )
    expected = Settings("masterpiece, (corgi:1.2)\nsecond line", "blurry\nugly", 28, "euler", 6.5, 965400086,
                        512, 768, "v1-5")  # fmt: skip
    assert parse_parameters(text) == expected
    assert parse_parameters(text.replace("Euler,", "Euler a,")).sampler == "Euler a"


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "does not say how it was made"),
        ("just a prompt", "has no last line of the form 'Steps: 20"),
        ("a\nSteps: 20, Sampler: UniPC, CFG scale: 4, Size: 64x64", "has no 'Seed'"),
        ("Steps: many, Sampler: DDIM, CFG scale: 4, Seed: 1, Size: 8x8", "'Steps' must be a whole number"),
        ("Steps: 20, Sampler: DDIM, CFG scale: 4, Seed: 1, Size: big", "'Size' must be of the form 64x64"),
    ],
)
def test_a_png_without_clear_settings_is_refused(tmp_path, text, words):
    info = PngInfo()
    if text:
        info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png", pnginfo=info)
    with pytest.raises(ValueError, match=rf"other\.png.*{words}"):
        read_png(tmp_path / "other.png")


def test_other_files_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "b.png").write_text("text")
    for name, words in (("a.jpg", "does not say"), ("b.png", "not a picture"), ("c.png", "cannot be read")):
        with pytest.raises(ValueError, match=words):
            read_png(tmp_path / name)


@pytest.mark.parametrize(
    "crafted",
    ["a" * 99_000, 'a:"' * 33_000, 'a:"\\",' * 16_000, " " * 99_000 + "x", ", " * 49_000, 'a: "' + '\\"' * 49_000],
)
def test_crafted_text_is_refused_at_once(crafted):
    start = time.process_time()
    for text in (crafted, "a corgi\n" + crafted):
        with pytest.raises(ValueError, match="no last line|has no 'Size'"):
            parse_parameters(text)
    assert time.process_time() - start < 1
    with pytest.raises(ValueError, match="150,000 characters long, and at most 100,000 are read"):
        parse_parameters("a" * 150_000)


def test_a_wrong_value_is_shown_in_part():
    text = f"Steps: 20, Sampler: DDIM, CFG scale: 4, Seed: {'9' * 5000}, Size: 8x8"
    with pytest.raises(ValueError, match="'Seed' must be a whole number, but is '9{60}…'"):
        parse_parameters(text)


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_crafted(path, side, *chunks):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(side * (side + 1) if side < 100 else 100)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + png_chunk(b"IEND", b""))


def test_bombs_are_refused_in_a_sentence(tmp_path):
    for side in (10_000, 50_000):  # PIL warns of the first, and raises at the second
        write_crafted(tmp_path / "wide.png", side)
        with pytest.raises(ValueError, match=r"wide\.png has too many pixels to be read safely"):
            read_png(tmp_path / "wide.png")
    text = png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 50_000_000))
    write_crafted(tmp_path / "long.png", 8, text)
    with pytest.raises(ValueError, match=r"long\.png cannot be read \("):
        read_png(tmp_path / "long.png")


def test_a_broken_file_is_refused_in_a_sentence(tmp_path):
    write_png(tmp_path / "corgi.png", Image.effect_noise((64, 64), 50), CORGI)
    whole = (tmp_path / "corgi.png").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "half.png").write_bytes(whole[:length])
        try:
            assert read_png(tmp_path / "half.png") == CORGI  # its settings stand before the pixels
        except ValueError as error:
            assert "half.png" in str(error) and "\n" not in str(error)


def test_a_model_whose_name_is_no_text_is_written(tmp_path):
    settings = dataclasses.replace(CORGI, model="bad\udcff")
    write_png(tmp_path / "corgi.png", Image.new("RGB", (64, 64)), settings)
    assert read_png(tmp_path / "corgi.png").model == "bad\\udcff"


def test_a_failed_write_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "corgi.png"
    write_png(path, Image.new("RGB", (64, 64)), CORGI)
    before = path.read_bytes()

    def disk_full(self, target, **options):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", disk_full)
    with pytest.raises(ValueError, match="corgi.png cannot be written .No space left"):
        write_png(path, Image.new("RGB", (64, 64)), CORGI)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_prompts_that_a_png_cannot_hold_are_refused_or_tidied():
    assert Settings("  a corgi \r\n on grass\n").prompt == "a corgi\non grass"
    for wrong in ("a corgi\nNegative prompt: rain", "bad \udc80", None):
        with pytest.raises(ValueError, match="The prompt"):
            Settings(wrong)


def test_names_that_are_taken_are_passed_over(tmp_path):
    path = tmp_path / "corgi.png"
    assert output_paths(tmp_path / "corgi", 1, False) == [path]
    assert output_paths(path, 2, False) == [tmp_path / "corgi-1.png", tmp_path / "corgi-2.png"]
    for name in ("corgi.png", "corgi-2.png"):
        (tmp_path / name).touch()
    assert output_paths(path, 1, False) == [tmp_path / "corgi-3.png"]
    assert output_paths(path, 2, False) == [tmp_path / "corgi-1.png", tmp_path / "corgi-3.png"]
    assert output_paths(path, 1, True) == [path]
    assert output_paths(path, 2, True) == [tmp_path / "corgi-1.png", tmp_path / "corgi-2.png"]


def test_bad_counts_are_refused():
    for count in (0, 65, 1.5):
        with pytest.raises(ValueError, match=f"pictures must be a whole number from 1 to 64, but is {count}"):
            check_settings(CORGI, count)
    with pytest.raises(ValueError, match="the seed can be 4294967293 at most"):
        check_settings(dataclasses.replace(CORGI, seed=2**32 - 2), 3)


def test_a_file_is_named_after_its_prompt():
    assert default_name("A cute corgi, sitting!") == "a-cute-corgi-sitting.png"
    assert default_name("?!") == "picture.png"
    assert default_name("小狗 / 2") == "小狗-2.png"
    assert len(default_name("word " * 100)) <= 64
