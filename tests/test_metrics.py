"""Fréchet distances in the features of networks that are at home in the course's data."""

import json
from pathlib import Path

import pytest
import torch

from course_utils.data import digits
from course_utils.data import picture_book as book
from course_utils.metrics import eyes
from course_utils.metrics import pictures as metrics
from course_utils.models.judge import THRESHOLD


def test_digits_are_nearer_to_digits_than_anything_else():
    real = digits.load(16, "test")[0]
    blurred = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
    noise = torch.randn(len(real), 1, 16, 16, generator=torch.Generator().manual_seed(0))
    floor, blur, rubbish = map(metrics.digit_fid, (real, blurred, noise))
    assert 3 * floor < blur < rubbish / 3


def test_pages_are_nearer_to_pages_than_anything_else():
    scenes = metrics.one_thing_pages(120, seed=1)
    assert all(len(scene.things) == 1 and scene.style == "picture book" for scene in scenes)
    real = book.pictures(scenes, 32)
    blurred = torch.nn.functional.avg_pool2d(real, 5, 1, 2)
    assert 2 * metrics.picture_book_fid(real) < metrics.picture_book_fid(blurred)
    assert metrics.one_thing(real) > 0.9 > metrics.one_thing(blurred)


def test_iou_of_masks():
    half, quarter, none = torch.zeros(3, 4, 4, dtype=torch.bool)
    half[:2], quarter[:2, :2] = True, True
    pairs = [(half, half, 1), (half, ~half, 0), (half, quarter, 0.5), (half, none, 0), (none, none, 1)]
    first, second, shares = zip(*pairs, strict=True)
    assert metrics.iou(torch.stack(first), torch.stack(second)).tolist() == list(shares)
    for other in (half[None, :3], half[None].float()):
        with pytest.raises(ValueError, match="two bool batches"):
            metrics.iou(half[None], other)


def test_the_pictures_labelled_by_eye_are_those_of_the_benchmark():
    labels = json.loads((Path(__file__).parent.parent / "benchmarks" / "eyes.json").read_text(encoding="utf-8"))
    rows = eyes.labelled()
    assert [number for number, row in enumerate(rows) if row.right] == labels["right"] and len(rows) == 200
    assert json.loads(eyes.MEASURED.read_text(encoding="utf-8"))["model"] == labels["model"]
    assert all(f"{THRESHOLD:g}" in row.faults and row.faults.keys() == rows[0].faults.keys() for row in rows)
    assert sum(row.faults[f"{THRESHOLD:g}"] is None for row in rows) == 191


def test_labelled_pictures_are_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(eyes, "MEASURED", tmp_path / "eyes.json")
    rows = [
        eyes.Labelled("a “cat”", "colours", True, {"0.25": None}),
        eyes.Labelled("b", "counting", False, {"0.25": "pose"}),
    ]
    eyes.keep(rows, {"model": "abc"})
    assert eyes.labelled() == rows and json.loads(eyes.MEASURED.read_text())["model"] == "abc"
