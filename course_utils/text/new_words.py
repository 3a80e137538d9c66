"""A new word for a text encoder that is otherwise left as it is: textual inversion, Gal et al., arXiv:2208.01618.

A word such as "<fox>" becomes one token; its embedding, one row of the text encoder's table, is all that is trained.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from course_utils.files import new_file

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from transformers import CLIPTextModel, CLIPTokenizer


def add_word(tokenizer: "CLIPTokenizer", text_encoder: "CLIPTextModel", word: str, like: str | None = None) -> int:
    """Add one token and one row of the embedding table for a new word, in place; return its id, the row's number.

    The row starts as the mean of the rows of `like`, a word or some that are known ("dog"), or of all rows (None).
    All other rows keep their bits. The tokenizer makes no difference between small and capital letters.

    Raises ValueError, with both as they were, for a word with blanks, for one of letters and digits only, which might
    be part of others ("the" of "there"), for one that is a token already, and if `like` has no token.
    """
    _require_new(tokenizer, word)
    table = text_encoder.get_input_embeddings().weight
    rows = slice(None)
    if like is not None:
        rows = tokenizer(like, add_special_tokens=False).input_ids
        if not rows:
            raise ValueError(f"Expected a word to start from, got {like!r}: choose a known one, or None for the mean.")
    start = table.detach()[rows].mean(0)

    tokenizer.add_tokens(word)
    row = tokenizer.convert_tokens_to_ids(word)
    if row >= len(table):
        text_encoder.resize_token_embeddings(row + 1, mean_resizing=False)
    _set_row(text_encoder, row, start)
    return row


def _require_new(tokenizer, word: Any) -> None:
    """Raise ValueError unless the word can be added to the tokenizer."""
    if not isinstance(word, str) or not word or any(letter.isspace() for letter in word):
        raise ValueError(f"Expected a word without blanks, got {word!r}: choose one such as '<fox>'.")
    if word.isalnum():
        raise ValueError(
            f"Expected a word that cannot be part of others, got {word!r}: put it between brackets, '<{word}>'."
        )
    if word in tokenizer.get_vocab() or len(tokenizer.tokenize(word)) == 1:
        raise ValueError(f"Expected a word that is new, got {word!r}, which is a token already: choose another.")


def _set_row(text_encoder, row: int, embedding: torch.Tensor) -> None:
    with torch.no_grad():
        text_encoder.get_input_embeddings().weight[row] = embedding


def only_row(gradient: torch.Tensor, row: int) -> torch.Tensor:
    """The gradient of an embedding table, (tokens, width), with zeros everywhere but in one row.

    Adam without weight decay leaves all other rows then, to the last bit.
    """
    kept = torch.zeros_like(gradient)
    kept[row] = gradient[row]
    return kept


@contextlib.contextmanager
def train_row(text_encoder: "CLIPTextModel", row: int) -> Iterator[torch.nn.Parameter]:
    """Within the block, one row of the embedding table is all of the text encoder that has a gradient.

    Gives the table, (tokens, width), for an optimizer without weight decay, which would shrink the other rows. After
    the block, the same parameters are trained as before. Raises ValueError if there is no such row.
    """
    table = text_encoder.get_input_embeddings().weight
    if not 0 <= row < len(table):
        raise ValueError(f"Expected a row from 0 to {len(table) - 1}, got {row}: take the id that add_word returns.")
    before = [(parameter, parameter.requires_grad) for parameter in text_encoder.parameters()]
    text_encoder.requires_grad_(False)
    table.requires_grad_(True)
    hook = table.register_hook(lambda gradient: only_row(gradient, row))
    try:
        yield table
    finally:
        hook.remove()
        for parameter, trained in before:
            parameter.requires_grad_(trained)


def save_word(path: Path | str, text_encoder: "CLIPTextModel", tokenizer: "CLIPTokenizer", word: str) -> None:
    """Write a new word's embedding to a .safetensors file, which `pipe.load_textual_inversion` of diffusers reads.

    It has one tensor, (1, width), by the name of the word. A file that is there already is replaced as a whole.
    Raises ValueError for a path that does not end in .safetensors, for a word that was not added, and if the embedding
    is not finite.
    """
    from safetensors.torch import save_file

    path = _safetensors(path)
    row = tokenizer.get_added_vocab().get(word)
    if row is None:
        raise ValueError(f"Expected a word that was added, got {word!r}: call add_word first, or choose another.")
    embedding = text_encoder.get_input_embeddings().weight.detach()[row : row + 1].cpu().clone()
    if not embedding.isfinite().all():
        raise ValueError(
            f"Expected finite numbers to save, got nan or infinity for {word!r}: train again, with smaller steps."
        )
    with new_file(path) as part:
        save_file({word: embedding}, part, metadata={"format": "pt"})


def load_word(pipe: Any, path: Path | str) -> str:
    """Add the word of a .safetensors file that `save_word` or diffusers wrote; return it, as it is written in a prompt.

    pipe: a pipeline, or anything else with a `tokenizer` and a `text_encoder`, which are changed in place.
    Raises ValueError, with both as they were, if the file is missing or cannot be read, holds something else than one
    embedding of this text encoder's width, or a word that `add_word` does not take.
    """
    path = _safetensors(path)
    word, embedding = _read(path)
    width = pipe.text_encoder.get_input_embeddings().weight.shape[1]
    if embedding.shape not in ((width,), (1, width)):
        raise ValueError(
            f"Expected one embedding of {width} numbers, got shape {tuple(embedding.shape)} in {path}: choose a word "
            "that was trained for this text encoder."
        )
    if not embedding.is_floating_point() or not embedding.isfinite().all():
        raise ValueError(f"Expected finite numbers, got others in {path}: fetch the file again.")
    try:
        row = add_word(pipe.tokenizer, pipe.text_encoder, word)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None
    _set_row(pipe.text_encoder, row, embedding.reshape(width))
    return word


def _safetensors(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"Expected a word's file that ends in .safetensors, got {path}: choose such a file.")
    return path


def _read(path: Path) -> tuple[str, torch.Tensor]:
    """The word in a file, and its embedding."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"Expected a word's file, got no file {path}: look for its name and folder.")
    try:
        tensors = load_file(path)
    except Exception as error:  # a damaged file shows as any class
        raise ValueError(
            f"Expected a word's file in safetensors form, got {path}, which cannot be read ({error}): fetch it again."
        ) from error
    if len(tensors) != 1:
        raise ValueError(
            f"Expected a file with one word, got {len(tensors)} tensors in {path}: choose one that save_word wrote."
        )
    return next(iter(tensors.items()))
