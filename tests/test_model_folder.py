"""A damaged model folder: one sentence that names the file and the fault, before anything is drawn."""

import hashlib
import json
import re
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from course_utils.pipelines import picture_book
from course_utils.pipelines.model_folder import CONFIGURATIONS, MODELS, require_as_shipped
from course_utils.pipelines.picture_book import load_picture_book, save_pipeline

UNET, VAE, TEXT = (MODELS[part][2] for part in ("unet", "vae", "text_encoder"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_pipeline(tiny.tiny_pipeline(), folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def refused(folder, *words):
    """Assert that loading says one sentence with these words."""
    with pytest.raises(ValueError, match=".*".join(re.escape(word) for word in words)) as caught:
        load_picture_book(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def change_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def change_configuration(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "missing", ["model_index.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"]
)
def test_an_incomplete_folder_is_named(folder, missing):
    (folder / missing).unlink()
    refused(folder, f"{missing} is missing", "course.py train all")


def test_a_missing_folder_is_named(tmp_path):
    refused(tmp_path / "nowhere", "There is no model folder ", "nowhere", "course.py train all")


@pytest.mark.parametrize("name", [UNET, VAE, TEXT])
def test_weights_that_are_missing_of_another_shape_or_not_finite_are_refused(folder, name):
    whole = (folder / name).read_bytes()
    first = min(load_file(folder / name))
    changes = {
        "it lacks": lambda tensors: tensors.pop(first),
        "": lambda tensors: tensors.update({first: torch.zeros(3, 5)}),  # either library has its own words
        "not finite": lambda tensors: tensors[first].view(-1)[:1].fill_(float("nan")),
        "numbers that are not finite": lambda tensors: tensors[first].view(-1)[:1].fill_(float("-inf")),
    }
    for words, change in changes.items():
        change_tensors(folder / name, change)
        refused(folder, name, "is damaged", words, "course.py train all")
        (folder / name).write_bytes(whole)
    for content in (b"", b"half a file", whole[:100], whole[:-5], b"\xff" * 8 + whole[8:]):
        (folder / name).write_bytes(content)
        refused(folder, name, "is damaged")


@pytest.mark.parametrize("name", [*CONFIGURATIONS.values(), "model_index.json"])
def test_a_configuration_without_content_is_refused(folder, name):
    for content in ("", "{", "[]", "null", "{}"):
        (folder / name).write_text(content)
        refused(folder, name, "is damaged")


@pytest.mark.parametrize(
    "part, changes, words",
    [
        ("unet", {"sample_size": None}, "sample_size must be a whole number from 1, but is None"),
        ("unet", {"sample_size": 0}, "but is 0"),
        ("unet", {"norm_num_groups": 0}, ""),
        ("vae", {"block_out_channels": 8}, "block_out_channels must be a list"),
        ("vae", {"scaling_factor": 0}, "not finite"),
        ("vae", {"scaling_factor": None}, ""),
        ("scheduler", {"num_train_timesteps": 0}, "num_train_timesteps must be a whole number from 1, but is 0"),
        ("scheduler", {"trained_betas": []}, "each of its 1000 times"),
        ("scheduler", {"beta_end": "much"}, ""),
        ("tokenizer", {"model_max_length": None}, "model_max_length"),
        ("tokenizer", {"words": 5}, "list of words"),
    ],
)
def test_a_configuration_that_cannot_be_drawn_with_is_refused(folder, part, changes, words):
    change_configuration(folder / CONFIGURATIONS[part], **changes)
    file = MODELS[part][2] if words == "not finite" else CONFIGURATIONS[part]
    refused(folder, file, words)


def test_parts_that_do_not_fit_together_are_refused(folder):
    change_configuration(folder / CONFIGURATIONS["tokenizer"], model_max_length=16)
    refused(folder, "model_max_length of the tokenizer is 16", "of the text encoder is 32")


def test_a_shipped_file_that_has_changed_is_refused(folder, monkeypatch):
    files = {p.relative_to(folder.parent).as_posix(): p for p in folder.rglob("*.*")}
    entries = {name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for name, path in files.items()}
    manifest = folder.parent / "manifest.json"
    manifest.write_text(json.dumps({"files": entries}))
    monkeypatch.setattr(picture_book, "PICTURE_BOOK", folder)
    monkeypatch.setattr(picture_book, "CHECKPOINTS", folder.parent)
    load_picture_book(folder)
    json_file = folder / CONFIGURATIONS["unet"]
    json_file.write_bytes(json_file.read_bytes().replace(b"\n", b"\r\n"))  # as git writes it on Windows
    require_as_shipped(folder, manifest)
    content = bytearray((folder / UNET).read_bytes())
    content[-100] ^= 1
    (folder / UNET).write_bytes(content)
    refused(folder, UNET, "has changed since it was shipped", "git restore course_utils/checkpoints")
    for text in ("", "[]", '{"files": 3}'):  # `doctor` speaks of a manifest that cannot be read
        manifest.write_text(text)
        load_picture_book(folder)


def test_the_shipped_model_is_as_it_was_shipped():
    require_as_shipped(picture_book.PICTURE_BOOK, picture_book.CHECKPOINTS / "manifest.json")
