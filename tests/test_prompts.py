"""What is said about a prompt: unknown words, and the end that is cut off."""

import re
import time

import pytest
import tiny
from matplotlib.figure import Figure
from transformers import AutoTokenizer

from course_utils.data import picture_book as book
from course_utils.pipelines.picture_book import PICTURE_BOOK
from course_utils.text.prompts import ONLY_IN, inspect_prompt, whole_word_tokens
from course_utils.widgets import prompt_explorer


def test_unknown_words_get_suggestions():
    report = inspect_prompt(tiny.tiny_tokenizer(), "A Corgy and a corgi PUPPY, zzz on the grass; corgy!")
    assert report.unknown == [("corgy", ["corgi"]), ("and", []), ("zzz", [])]
    assert report.cut == ""
    assert inspect_prompt(tiny.tiny_tokenizer(), "ppy").unknown == [("ppy", ["puppy"])]  # a token, but no word
    assert "'corgy'" in report.advice()[0] and "'corgi'" in report.advice()[0]
    assert inspect_prompt(tiny.tiny_tokenizer(), "a corgi", {"a", "car"}).unknown == [("corgi", [])]


def test_many_unknown_words_and_a_long_end_are_shown_in_part():
    long = " ".join(f"{a}{b}{c}q" for a in "bcdfgh" for b in "klmnpr" for c in "stvwxz") * 9
    start = time.process_time()
    report = inspect_prompt(tiny.tiny_tokenizer(), long)
    said = report.advice()
    assert time.process_time() - start < 1
    assert len(report.unknown) <= 30  # what is cut off is not looked at
    assert len(said) <= 7 and max(map(len, said)) < 250
    assert "further words: " in said[-2] and "characters)" in said[-1]


def test_a_colour_that_the_model_lacks_gets_those_that_it_has():
    (said,) = inspect_prompt(tiny.tiny_tokenizer(), "a black car").advice()
    assert "'black'" in said and said.endswith("captions' colours are blue, green, red and white.")


@pytest.mark.parametrize("prompt", ["🐶", "-", "2 + 2", "!?"])
def test_a_prompt_without_words_draws_by_the_seed(prompt):
    (said,) = inspect_prompt(tiny.tiny_tokenizer(), prompt).advice()
    assert "no word in letters" in said


def test_a_word_known_from_one_phrase_only_is_named():
    tokenizer = AutoTokenizer.from_pretrained(PICTURE_BOOK / "tokenizer")
    (said,) = inspect_prompt(tokenizer, "two dogs on the grass").advice()
    assert "'dogs' only in 'corgi dogs'" in said
    assert inspect_prompt(tokenizer, "Two corgi dogs on the grass, pixel art").advice() == []
    del tokenizer.init_kwargs["words"]  # another model's tokenizer says nothing of its captions
    assert inspect_prompt(tokenizer, "two dogs on the grass").only_in == []


def test_the_phrases_are_those_of_the_captions():
    captions = [book.caption(book.sample_scene(number), 0).text.lower() for number in range(1500)]
    for word, phrase in ONLY_IN.items():
        inside = [re.findall(rf"\b{phrase}\b", text) for text in captions]
        alone = [re.findall(rf"\b{word}\b", text) for text in captions]
        assert sum(map(len, alone)) == sum(map(len, inside)) > 0, word


def test_a_tokenizer_without_a_list_of_words_knows_its_whole_words():
    tokenizer = tiny.tiny_tokenizer()
    del tokenizer.init_kwargs["words"]
    assert {"corgi", "puppy", "grass"} <= whole_word_tokens(tokenizer)
    assert inspect_prompt(tokenizer, "a corgi pupppy").unknown == [("pupppy", ["puppy"])]


def test_what_is_cut_is_said():
    tokenizer = tiny.tiny_tokenizer(length=8)
    assert inspect_prompt(tokenizer, "a cute corgi puppy on the").cut == ""
    report = inspect_prompt(tokenizer, "a cute corgi puppy\n on the grass, at Night")
    assert report.cut == "grass, at Night"
    assert "does not read 'grass, at Night'" in report.advice()[-1]


@pytest.mark.parametrize("prompt", ["", " \n", None])
def test_an_empty_prompt_is_refused(prompt):
    with pytest.raises(ValueError, match="The prompt is empty"):
        inspect_prompt(tiny.tiny_tokenizer(), prompt)


def test_the_widget_says_it_too():
    explorer = prompt_explorer(tiny.tiny_pipeline())
    axes = Figure().subplots()
    said = explorer.draw(axes, prompt="a black corgi", seed=0, steps=1, guidance=1.0)
    assert "has the word 'black'" in said
    with pytest.raises(ValueError, match="The prompt is empty"):
        explorer.draw(axes, prompt=" ", seed=0, steps=1, guidance=1.0)
