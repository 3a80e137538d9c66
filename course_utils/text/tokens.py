"""From words to numbers: a byte-pair tokenizer learned from captions, and the null prompt."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def most_frequent_pair(words: dict[tuple[str, ...], int]) -> tuple[str, str]:
    """Return the pair of neighbouring symbols that is seen most often in a text.

    words: each word as its symbols, such as ("c", "a", "t</w>"), and how often the text has it; a pair counts as
    often as its word. Of several equally frequent pairs it is the first in the order of Python's tuples.
    Raises ValueError if no word has two symbols. Source: Sennrich et al., arXiv:1508.07909, algorithm 1.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for symbols, times in words.items():
        for pair in zip(symbols, symbols[1:], strict=False):
            counts[pair] += times
    if not counts:
        raise ValueError("expected a word of two symbols or more, got none: all that can be merged is merged")
    return min(counts, key=lambda pair: (-counts[pair], pair))


def merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Return the symbols of a word with each occurrence of the pair, from the left, joined into one symbol.

    merge(("b", "a", "l", "l</w>"), ("a", "l")) is ("b", "al", "l</w>").
    """
    merged, at = [], 0
    while at < len(symbols):
        if symbols[at : at + 2] == tuple(pair):
            merged.append(symbols[at] + symbols[at + 1])
            at += 2
        else:
            merged.append(symbols[at])
            at += 1
    return tuple(merged)


def train_tokenizer(captions: Iterable[str], vocabulary_size: int = 1000, length: int = 32) -> "CLIPTokenizer":
    """Learn byte-pair merges from captions and return them as a `transformers.CLIPTokenizer`.

    The 256 bytes, alone and at a word's end, are always in the vocabulary, so that any text has tokens; a word
    seen often enough in the captions becomes one token, written `word</w>`.

    vocabulary_size: tokens in all, at least 514 (2 special ones + 2 x 256 bytes).
    length: tokens a prompt is padded or cut to, start and end token included (Stable Diffusion v1.5: 77).
    Source: Sennrich et al., arXiv:1508.07909; GPT-2's byte-level variant, as CLIP uses it.
    """
    from tokenizers import trainers
    from transformers import CLIPTokenizer

    if vocabulary_size < 514:
        raise ValueError(
            f"expected a vocabulary of at least 514 tokens (2 special + 2 x 256 bytes), "
            f"got {vocabulary_size}; raise vocabulary_size"
        )
    captions = list(captions)
    backend = CLIPTokenizer().backend_tokenizer
    alphabet = sorted(_byte_characters())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 256, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    backend.train_from_iterator(captions, trainer)
    state = _model_state(backend)
    learned = [token for token in state["vocab"] if token not in alphabet and token not in (START, END)]
    tokens = list(dict.fromkeys([*alphabet, *(character + "</w>" for character in alphabet), *learned, START, END]))
    return CLIPTokenizer(
        {token: i for i, token in enumerate(tokens)},
        [tuple(pair) for pair in state["merges"]],
        model_max_length=length,
        words=sorted(_words(captions)),
    )


def known_words(tokenizer: "CLIPTokenizer") -> set[str]:
    """The words of the captions that the tokenizer was learned from (saved in `tokenizer_config.json`).

    Empty for a tokenizer that `train_tokenizer` did not make.
    """
    return set(tokenizer.init_kwargs.get("words", ()))


def tokenize(tokenizer: "CLIPTokenizer", prompts: list[str], length: int | None = None) -> "torch.Tensor":
    """Token ids of prompts, padded and cut to a length (None: the tokenizer's own): int64 tensor (batch, length)."""
    length = length or tokenizer.model_max_length
    return tokenizer(prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids


def encode(tokenizer: "CLIPTokenizer", text_encoder: "CLIPTextModel", prompts: list[str]) -> "torch.Tensor":
    """Hidden states of prompts, (batch, length, channels); the empty prompt "" is the null condition."""
    return text_encoder(tokenize(tokenizer, prompts).to(text_encoder.device)).last_hidden_state


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower())}


def _byte_characters() -> list[str]:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel.alphabet()


def _model_state(backend) -> dict:
    return json.loads(backend.to_str())["model"]
