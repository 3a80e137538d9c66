"""The tokenizer learnt from captions."""

import pytest
import torch

from course_utils.data import picture_book as book
from course_utils.text.tokens import known_words, merge, most_frequent_pair, tokenize, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([book.caption(book.sample_scene(n), n % 4).text for n in range(3000)])


def test_words_of_the_captions_are_one_token(tokenizer):
    assert tokenizer.tokenize("A cute Corgi puppy sitting on the grass") == [
        "a</w>",
        "cute</w>",
        "corgi</w>",
        "puppy</w>",
        "sitting</w>",
        "on</w>",
        "the</w>",
        "grass</w>",
    ]
    assert {"corgi", "purple", "toadstool"} <= known_words(tokenizer)
    assert "ppy" not in known_words(tokenizer) and "dinosaur" not in known_words(tokenizer)


def test_any_text_has_tokens_and_comes_back(tokenizer):
    for text in ("a dinosaur at 3 o'clock!", "柯基犬 🐶", "", "naïve"):
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_prompts_are_padded_and_cut_to_the_length(tokenizer):
    ids = tokenize(tokenizer, ["a cat", "a very " * 40, ""])
    assert ids.shape == (3, 32) and ids.dtype == torch.int64
    assert (ids[2, 1:] == tokenizer.eos_token_id).all()
    assert ids[1, -1] == tokenizer.eos_token_id


def test_it_is_the_same_after_saving(tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    for text in ("a cute corgi", "a dinosaur", "柯基犬"):
        assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.model_max_length == 32 and known_words(loaded) == known_words(tokenizer)


def test_the_merges_are_those_of_byte_pair_encoding():
    """On a corpus small enough to do by hand: "ab" is the most frequent pair, then "ab" + "c</w>"."""
    tokenizer = train_tokenizer(["abc"] * 5 + ["abd"] * 3, vocabulary_size=600)
    assert tokenizer.tokenize("abc") == ["abc</w>"] and tokenizer.tokenize("abe") == ["ab", "e</w>"]


def test_too_small_a_vocabulary_is_an_error():
    with pytest.raises(ValueError, match="514"):
        train_tokenizer(["a"], vocabulary_size=300)


def test_merges_by_hand_are_those_of_the_library():
    texts = ["hug"] * 10 + ["pug"] * 5 + ["pun"] * 12 + ["bun"] * 4 + ["hugs"] * 6
    words = {(*text[:-1], f"{text[-1]}</w>"): texts.count(text) for text in texts}
    learnt = []
    for _ in range(6):
        learnt.append(most_frequent_pair(words))
        words = {merge(symbols, learnt[-1]): times for symbols, times in words.items()}
    import json

    state = json.loads(train_tokenizer(texts, 600).backend_tokenizer.to_str())["model"]
    assert learnt == [tuple(pair) for pair in state["merges"][:6]]


def test_pairs_count_as_often_as_their_words_and_merges_do_not_overlap():
    assert most_frequent_pair({("a", "b", "c"): 1, ("b", "c"): 3, ("a", "b", "a", "b"): 1}) == ("b", "c")
    assert most_frequent_pair({("b", "c"): 2, ("a", "z"): 2}) == ("a", "z")
    assert merge(("a", "a", "a", "b"), ("a", "a")) == ("aa", "a", "b") and merge(("a",), ("a", "a")) == ("a",)
    with pytest.raises(ValueError, match="two symbols"):
        most_frequent_pair({("ab",): 4})
