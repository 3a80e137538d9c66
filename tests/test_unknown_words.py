"""The benchmark of unknown words: its words are unknown, and inserted and not more."""

import json

import pytest

from benchmarks.prompts import load
from benchmarks.unknown_words import PLACELESS, WORDS, with_unknown
from course_utils.data.picture_book.captions import PLACE_WORDS
from course_utils.pipelines.picture_book import PICTURE_BOOK


def test_the_words_are_unknown_and_the_prompts_without_a_place_name_none():
    known = set(json.loads((PICTURE_BOOK / "tokenizer/tokenizer_config.json").read_text())["words"])
    assert not known & set(WORDS) and len(set(WORDS)) == len(WORDS)
    assert all(set(prompt.split()) <= known for prompt in PLACELESS)
    assert not any(place in prompt for prompt in PLACELESS for places in PLACE_WORDS.values() for place in places)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_words_are_inserted_and_the_others_keep_their_order(number):
    for seed, prompt in enumerate(load()[:20]):
        text = prompt.caption.text
        parts = with_unknown(text, number, seed).split()
        assert [word for word in parts if word not in WORDS] == text.split()
        assert len(parts) == len(text.split()) + number
        assert with_unknown(text, number, seed).split() == parts
