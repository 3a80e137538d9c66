"""What is said about a prompt: unknown words, and the end that is cut off."""

import pytest
import tiny

from course_utils.text.prompts import inspect_prompt, whole_word_tokens


def test_unknown_words_get_suggestions():
    report = inspect_prompt(tiny.tiny_tokenizer(), "A Corgy and a corgi PUPPY, zzz on the grass; corgy!")
    assert report.unknown == [("corgy", ["corgi"]), ("and", []), ("zzz", [])]
    assert report.cut == ""
    assert inspect_prompt(tiny.tiny_tokenizer(), "ppy").unknown == [("ppy", ["puppy"])]  # a token, but no word
    assert "'corgy'" in report.advice()[0] and "'corgi'" in report.advice()[0]
    assert inspect_prompt(tiny.tiny_tokenizer(), "a corgi", {"a", "car"}).unknown == [("corgi", [])]


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
