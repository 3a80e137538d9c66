"""A LoRA is taught a new subject: what is trained and what is not, and what old pages ask for."""

import pytest
import torch

from benchmarks import lora as benchmark
from course_utils.data import picture_book as book
from course_utils.models.lora import LoRALinear, lora_parameters, remove_lora
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.recipes import lora as recipe
from course_utils.recipes.lora import pages_of, teach


@pytest.fixture(scope="module")
def pipe():
    return load_picture_book()


@pytest.fixture(autouse=True)
def few_old_pages(monkeypatch):
    monkeypatch.setattr(recipe, "OLD_PAGES", 6)


def taught(pipe, **settings):
    """Losses and trained matrices of two updates; the U-Net is without LoRA again."""
    losses = [record.loss for record in teach(pipe, pages_of("fox", 4), rank=2, steps=2, batch=2, **settings)]
    matrices = [matrix.detach().clone() for matrix in lora_parameters(pipe.unet)]
    remove_lora(pipe.unet)
    return losses, matrices


def test_only_the_lora_is_trained_and_the_same_arguments_give_the_same_one(pipe):
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    words = {name: value.clone() for name, value in pipe.text_encoder.state_dict().items()}
    losses, matrices = taught(pipe, old=0.5)
    assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
    assert all(torch.equal(value, words[name]) for name, value in pipe.text_encoder.state_dict().items())
    assert not pipe.unet.training and all(matrix.isfinite().all() for matrix in matrices)
    assert all(B.any() for B in matrices[1::2])  # all have left zero
    again, same = taught(pipe, old=0.5)
    assert again == losses and all(torch.equal(a, b) for a, b in zip(matrices, same, strict=True))
    other, _ = taught(pipe, old=0.5, seed=1)
    assert other != losses


def test_old_pages_ask_for_what_the_model_answers_already(pipe, monkeypatch):
    differences = []

    def loss(v_hat, v):
        differences.append((v_hat - v).detach())
        return v_hat - v

    monkeypatch.setattr(recipe, "noise_prediction_loss", loss)
    for _ in teach(pipe, pages_of("fox", 4), rank=2, steps=1, batch=2, old=0.5):
        pass
    remove_lora(pipe.unet)
    old, new = differences[0]  # before the first update B is zero: the answer is the U-Net's own
    assert old.abs().max() < 1e-5 and new.abs().mean() > 0.05


def test_the_lora_counts_again_after_the_old_pages_were_asked(pipe):
    for _ in teach(pipe, pages_of("fox", 4), rank=2, steps=1, batch=2, old=0.5):
        pass
    layers = [layer for layer in pipe.unet.modules() if isinstance(layer, LoRALinear)]
    remove_lora(pipe.unet)
    assert layers and all(layer.weight == 1 for layer in layers)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(scenes=[]), "got none"),
        (dict(old=1.0), "leaves room"),
        (dict(old=-0.5), "leaves room"),
        (dict(rank=0), "rank"),
    ],
)
def test_what_cannot_be_taught_is_refused_and_the_model_is_as_it_was(pipe, settings, words):
    with pytest.raises(ValueError, match=words):
        teach(pipe, **{"scenes": pages_of("fox", 4), **settings})
    assert not lora_parameters(pipe.unet)


def test_pages_show_one_new_thing_in_all_places_and_colours_asked_for_and_prompts_ask_for_the_others():
    scenes = pages_of("fox", 16)
    assert {(scene.place, scene.things[0].colour) for scene in scenes} == {
        (place, colour) for place in recipe.SHOWN_PLACES for colour in recipe.SHOWN_COLOURS
    }
    captions = benchmark.asked()
    assert len(captions) == 50 and all("fox" in caption.text for caption in captions)
    seen = {book.seen_colour(scene.things[0]) for scene in scenes}
    assert not any(caption.place in recipe.SHOWN_PLACES for caption in captions)
    assert not any(book.seen_colour(caption.things[0]) in seen for caption in captions)
