"""The model card: every number in it is the manifest's, and what is missing there is said."""

import copy
import json
import re

import pytest

from course_utils.metrics.model_card import TRAINED, model_card, read_manifest
from course_utils.metrics.statistics import wilson_interval
from course_utils.pipelines.picture_book import CHECKPOINTS

MANIFEST = CHECKPOINTS / "manifest.json"


@pytest.fixture
def manifest():
    return copy.deepcopy(read_manifest(MANIFEST))


def test_a_card_has_its_sections_and_changes_nothing(manifest):
    before = copy.deepcopy(manifest)
    card = model_card(manifest)
    assert manifest == before
    heads = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert heads == [
        "The model", "What it is for", "Training data", "What was measured", "Known faults", "Marks and filters",
        "Licence", "The files",
    ]  # fmt: skip
    assert "Not measured" not in card and "MIT" in card and "CC BY 4.0" in card


def test_the_numbers_follow_the_manifest(manifest):
    row = manifest["metrics"]["drawing"][0]
    row["all"], row["prompts"] = 0.5, 400
    row["tasks"] = {"one object": 0.75, "counting": 0.25}
    manifest["training"]["vae"]["steps"] = 12_345
    manifest["files"]["picture_book/unet/config.json"]["sha256"] = "f00d"
    card = model_card(manifest)
    low, high = wilson_interval(200, 400)
    assert (
        f"400 frozen prompts, {row['steps']} steps" in card and f"50.0%, 95% interval {low:.1%} to {high:.1%}" in card
    )
    assert "counting 25.0%, one object 75.0%" in card and "| vae | 12,345 |" in card and "`f00d`" in card


def test_no_number_is_written_by_hand(manifest):
    """With every number of the manifest made 7 (or 0.77), no other digits are left but names and intervals."""

    def sevens(value):
        if isinstance(value, dict):
            return {re.sub(r"[\d,]+", "7", key): sevens(one) for key, one in value.items()}
        if isinstance(value, list):
            return [sevens(one) for one in value]
        if isinstance(value, str):
            return "x"
        return 0.77 if isinstance(value, float) else 7

    plain = {
        "metrics": sevens(manifest["metrics"]),
        "eyes": sevens(manifest["eyes"]),
        "variety": sevens(manifest["variety"]),
    }
    plain["files"] = {name: {"bytes": 7, "sha256": "x"} for name in manifest["files"]}
    plain["training"] = {name: sevens(manifest["training"][name]) for name in TRAINED}
    card = model_card(plain)
    card = re.sub(
        r"v1\.5|4\.0|SHA-256|\(7.*?\)|95% interval [\d.%to ]+|\([\d.%]+ to [\d.%]+\)|MB|text_encoder", "", card
    )
    numbers = set(re.findall(r"\d[\d.,]*\d|\d", card))
    hours, size = (
        f"{7 * 7 / 3600:.1f}",
        f"{7 * sum(name.startswith('picture_book/') for name in plain['files']) / 1e6:.1f}",
    )
    assert numbers <= {"7", "0.77", "77.0", str(7 * len(manifest["metrics"]["drawing"][0]["faults"])), hours, size}, (
        numbers
    )


def test_what_was_not_measured_is_named_with_its_command(manifest):
    bare = {"files": manifest["files"], "training": manifest["training"]}
    card = model_card(bare)
    for name in ("adherence", "variety", "eyes"):
        assert f"`python3 course.py benchmark {name} --manifest`" in card


def test_what_is_no_manifest_is_refused(tmp_path, manifest):
    for wrong in ({}, [], {"files": {}}, {"files": manifest["files"]}, {"files": {}, "training": manifest["training"]}):
        with pytest.raises(ValueError, match="take checkpoints/manifest.json"):
            model_card(wrong)
    with pytest.raises(ValueError, match="manifest.json cannot be read"):
        read_manifest(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        read_manifest(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(ValueError, match="manifest"):
        read_manifest(tmp_path / "manifest.json")
