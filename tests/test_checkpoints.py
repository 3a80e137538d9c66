"""The shipped model and judge: they are what the manifest says, small enough, and do what they are shipped for."""

import json
from pathlib import Path

import pytest

from benchmarks.adherence import draw_prompts
from course_utils.data import digits
from course_utils.data import picture_book as book
from course_utils.doctor import check_checkpoints
from course_utils.metrics.pictures import adherence
from course_utils.models.judge import read
from course_utils.pipelines.picture_book import CHECKPOINTS, load_picture_book
from course_utils.recipes import PARTS, load_judge, load_reader

MOST_BYTES = {
    "picture_book/vae": 4e6,
    "picture_book/text_encoder": 4e6,
    "picture_book/unet": 21e6,
    "control": 6e6,
    "vq": 3.2e6,
    "dalle": 16e6,
    "prior": 3e6,
    "unclip": 12e6,
    "few_steps": 8e6,
    "clip": 4e6,
    "judge": 2e6,
    "digit_reader": 1e5,
    "digits_unet": 6e5,
}


@pytest.fixture(scope="module")
def judge():
    return load_judge()


def test_the_files_are_those_of_the_manifest_and_small():
    assert check_checkpoints(CHECKPOINTS) == ([], [])
    manifest = json.loads((CHECKPOINTS / "manifest.json").read_text())
    assert set(manifest["training"]) == set(PARTS) and manifest["metrics"]["drawing"]
    for home, most in MOST_BYTES.items():
        assert sum(path.stat().st_size for path in (CHECKPOINTS / home).rglob("*")) <= most, home
    for path in CHECKPOINTS.rglob("config.json"):  # diffusers notes where a part was loaded from
        assert not Path(json.loads(path.read_text()).get("_name_or_path", "")).is_absolute(), path


@pytest.mark.parametrize("style", book.STYLES)
def test_the_judge_reads_fresh_renders(judge, style):
    scenes = [scene for scene in (book.sample_scene(n, 4, "all") for n in range(300)) if scene.style == style][:40]
    assert adherence(judge, book.pictures(scenes), [book.caption(scene) for scene in scenes]) >= 0.85


def test_the_reader_reads_digits_that_it_was_not_trained_on():
    pictures, labels = digits.load(16, "test")
    assert (load_reader()(pictures).argmax(1) == labels).float().mean() > 0.98


def test_the_model_draws_a_corgi_on_the_grass(judge):
    """Of eight pictures most show grass, and some a corgi that even the judge, used to sharp renders, calls one."""
    pictures = draw_prompts(load_picture_book(), ["a cute corgi puppy sitting on the grass"] * 8, 20, 4.0, "unipc")
    verdicts = read(judge, pictures)
    assert sum(verdict.place == "grass" for verdict in verdicts) >= 6
    kinds = [[found.kind for found in verdict.findings] for verdict in verdicts]
    assert kinds.count(["corgi"]) >= 2 and all(set(kind) <= {"corgi"} for kind in kinds), kinds
