"""The frozen prompts stay what they are, and say what they are for."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch

from benchmarks import eyes, full_size, prompts, recipe, sampling, scale, throughput, variety
from course_utils.data import picture_book as book
from course_utils.pipelines.stable_diffusion import FACTS
from course_utils.recipes import load_judge
from course_utils.training import Samples

ROOT = Path(__file__).resolve().parent.parent


def test_benchmarks_are_listed_and_found_by_name():
    def run(*words):
        return subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True)

    listed = run().stdout
    assert all(
        f"  {name} " in listed
        for name in (
            "adherence",
            "eyes",
            "families",
            "full_size",
            "lora",
            "minutes",
            "prompts",
            "race",
            "recipe",
            "recipe_book",
            "sampling",
            "scale",
            "speedrun",
            "steering",
            "systems",
            "throughput",
            "tokens",
            "variety",
        )
    )
    assert "--seeds" in run("variety", "--help").stdout
    wrong = run("speed")
    assert wrong.returncode == 2 and "no benchmark 'speed'" in wrong.stderr and "adherence" in wrong.stderr


def test_the_frozen_prompts_are_those_that_the_program_makes():
    assert prompts.load() == prompts.make()


def test_every_task_is_asked_for_as_often_and_two_of_five_name_what_was_never_trained_on():
    frozen = prompts.load()
    counts = Counter(prompt.task for prompt in frozen)
    assert set(counts) == set(prompts.TASKS) and max(counts.values()) - min(counts.values()) <= 1
    assert sum(prompt.held_out for prompt in frozen) == 400
    assert all(prompt.caption.place for prompt in frozen)


def test_variety_counts_what_differs_and_how_near_the_training_is():
    scenes = variety.scenes_to_draw()
    assert {scene.things[0].kind for scene in scenes} == set(book.SUBJECTS) and len(scenes) == len(book.SUBJECTS)
    assert not any(book.is_held_out(scene.things[0].kind, None, scene.place) for scene in scenes)
    same = book.pictures(scenes[:2]).repeat_interleave(4, 0)
    other = book.pictures([book.Scene(s.things, s.place, n) for s in scenes[:2] for n in range(4)])
    judge = load_judge()
    assert variety.spread(judge, same, 4) == {"position, pixels": 0.0, "standard deviation of a pixel": 0.0}
    assert variety.spread(judge, other, 4)["position, pixels"] > 1
    training = ((same[:1] + 1) * 127.5).round().to(torch.uint8)
    distance = variety.nearest(torch.stack([same[0], same[0] + 0.1]), training)
    assert torch.allclose(distance, torch.tensor([0.0, 0.1]), atol=5e-3)


def test_every_recipe_trains_on_shapes_that_are_what_their_words_say():
    samples = Samples(torch.arange(64).numpy(), 0)
    words = recipe.sample_words(samples)
    drawn = recipe.pictures(words, samples)
    for (_, colour, corner), picture in zip(words.tolist(), drawn, strict=True):
        quarters = (1 - picture).mean(0).reshape(2, 16, 2, 16).mean((1, 3)).flatten()  # how dark each corner is
        assert quarters.argmax() == corner
        darkest = picture[:, picture.sum(0) == picture.sum(0).amin()][:, 0] / 2 + 0.5
        assert (recipe.RGB - darkest).square().sum(1).argmin() == colour
    for name, one in recipe.RECIPES.items():
        if name in ("course", "ours", "flow", "words with time"):
            few = Samples(torch.arange(4).numpy(), 0)
            assert 0 < recipe.loss_of(one)(recipe.Painter(one.patch, one.pooled), few).item() < 100


def test_prompts_are_compared_with_scenes_that_they_are_true_of():
    for i, prompt in enumerate(prompts.load()[:200]):
        scene = sampling._scene(prompt.caption, random.Random(i))
        assert prompt.caption.is_true_of(scene)


def test_ways_are_timed_in_turns_and_the_first_round_is_not_counted():
    calls = []
    seconds = throughput.in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == list("abababab") and [len(times) for times in seconds.values()] == [3, 3]


def test_the_exponent_of_a_power_law_is_found():
    xs = [1, 2, 4, 8]
    assert abs(scale.exponent(xs, [3 * x**1.7 for x in xs]) - 1.7) < 1e-9


def test_labels_by_eye_are_counted_against_the_judge():
    table = eyes.compare([True, True, False, False, False], [True, False, True, False, False])
    assert table == {
        "pictures": 5,
        "right by eye": 2,
        "right by the judge": 2,
        "agreement": 0.6,
        "only the eye says right": 1,
        "only the judge finds right": 1,
    }
    labels = json.loads(eyes.LABELS.read_text())
    assert len(labels["model"]) == 64 and labels["right"] == sorted(set(labels["right"]) & set(range(eyes.COUNT)))


def test_full_size_runs_any_layout_and_counts_its_work():
    facts = {
        **FACTS,
        "unet": {**FACTS["unet"], "sample_size": 8, "block_out_channels": [32] * 4, "cross_attention_dim": 32},
        "vae": {**FACTS["vae"], "sample_size": 64, "block_out_channels": [32] * 4},
        "text_encoder": {
            **FACTS["text_encoder"],
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 100,
        },
    }
    row = full_size.run(full_size.Way("float32"), torch.device("cpu"), 1, facts)
    assert row["step"] > 0 and row["decode"] >= 0
    wide = {**facts, "unet": {**facts["unet"], "block_out_channels": [64] * 4}}
    assert 3 < full_size.flops_of_a_step(wide) / full_size.flops_of_a_step(facts) < 4
