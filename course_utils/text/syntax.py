"""Prompts in the syntax of Stable Diffusion Web UI: weights of words, changes while drawing, chunks.

    (word)  (word:1.3)  [word]     weight 1.1, 1.3 and 1/1.1; brackets in brackets multiply
    [cat:dog:0.5]                  "cat" for the first half of the steps, then "dog"; [cat:dog:7] after step 7
    [dog:0.5]  [cat::0.5]          "dog" only after the first half; "cat" only before
    [cat|dog]                      one after the other, step by step
    a cat BREAK on the beach       what follows begins a new chunk of tokens
    \\( \\) \\[ \\] \\\\                 the characters themselves

As in the Web UI a bracket that is never closed holds to the end, and what is no syntax is text.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

EMPHASIS = 1.1  # of one pair of round brackets; square ones divide by it
MOST_KEPT = 2.0  # times by which features are made larger or smaller to keep their mean
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
PIECE = re.compile(rf"\\(?P<escaped>.?)|:\s*(?P<weight>{NUMBER})\s*\)|(?P<bracket>[()\[\]])|[^\\()\[\]:]+|:", re.DOTALL)
BREAK = re.compile(r"\s*\bBREAK\b\s*")
Weighted = list[tuple[str, float]]  # pieces of text, each with the weight of its tokens


def read_weights(text: str) -> Weighted:
    """Return a prompt as pieces (text, weight); neighbours of one weight are joined, and there is no empty piece.

    read_weights("a ((red) ball:0.5)") is [("a ", 1.0), ("red", 0.55), (" ball", 0.5)], but for rounding.
    BREAK and changes such as [a:b:0.5] are text here: see `parse_weights` and `prompt_at`.
    """
    pieces = [(piece, weight) for piece, weight, _ in _weigh(text)]
    joined: Weighted = []
    for piece, weight in pieces:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + piece, weight)
        elif piece:
            joined.append((piece, weight))
    return joined


def parse_weights(text: str) -> list[Weighted]:
    """Return the chunks of a prompt (split at BREAK), each as pieces (text, weight); changes must be resolved before.

    parse_weights("a (red:1.3) ball") is [[("a ", 1.0), ("red", 1.3), (" ball", 1.0)]].
    """
    return _chunks(_weigh(text))


def _weigh(text: str) -> list[list]:
    """The pieces of a prompt: [text, weight, whether BREAK may stand in it]."""
    pieces: list[list] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, weight: float) -> None:
        for piece in pieces[start:]:
            piece[1] *= weight

    for match in PIECE.finditer(text):
        bracket, weight, escaped = match["bracket"], match["weight"], match["escaped"]
        if escaped is not None:
            pieces.append([escaped, 1.0, False])
        elif weight is not None and opened["("]:
            multiply(opened["("].pop(), float(weight))
        elif bracket in ("(", "["):
            opened[bracket].append(len(pieces))
        elif bracket == ")" and opened["("]:
            multiply(opened["("].pop(), EMPHASIS)
        elif bracket == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / EMPHASIS)
        else:
            pieces.append([match[0], 1.0, True])
    for start in opened["("]:
        multiply(start, EMPHASIS)
    for start in opened["["]:
        multiply(start, 1 / EMPHASIS)
    return pieces


def _chunks(pieces: list[list]) -> list[Weighted]:
    """Split at BREAK, and join neighbours of one weight."""
    chunks: list[Weighted] = [[]]
    for text, weight, may_break in pieces:
        for number, part in enumerate(BREAK.split(text) if may_break else [text]):
            if number:
                chunks.append([])
            chunk = chunks[-1]
            if chunk and chunk[-1][1] == weight:
                chunk[-1] = (chunk[-1][0] + part, weight)
            elif part:
                chunk.append((part, weight))
    return chunks


def plain_text(text: str) -> str:
    """The words of a prompt as they stand at the last step, without weights and chunks."""
    return " ".join("".join(piece for piece, _ in chunk) for chunk in parse_weights(prompt_at(text, 1000, 1000)))


def prompt_at(text: str, step: int, steps: int) -> str:
    """Return the prompt that counts in a step, 1 to steps: each change resolved, weights left as they are written.

    [a:b:when] is a up to and including step `when`; a number below 1, or with a point, is a share of the steps.
    Raises ValueError if the step is none of the steps.
    """
    if not 1 <= step <= steps:
        raise ValueError(f"Expected a step from 1 to {steps}, got {step}: the first is 1.")
    resolved, at = [], 0
    while at < len(text):
        end = _closing(text, at) if text[at] == "[" else None
        if end is not None:
            resolved.append(_choose(text[at + 1 : end], step, steps))
            at = end + 1
        else:
            length = 2 if text[at] == "\\" else 1
            resolved.append(text[at : at + length])
            at += length
    return "".join(resolved)


def _choose(inside: str, step: int, steps: int) -> str:
    """What stands in square brackets in this step."""
    parts = _split(inside, ":")
    if len(parts) in (2, 3) and re.fullmatch(NUMBER, parts[-1].strip()):
        *before, after, when = ["", *parts][-3:]
        number = float(when)
        last = int(number * steps) if number < 1 or "." in when else int(number)
        return prompt_at(before[0] if step <= last else after, step, steps)
    parts = _split(inside, "|")
    if len(parts) > 1:
        return prompt_at(parts[(step - 1) % len(parts)], step, steps)
    return f"[{prompt_at(inside, step, steps)}]"


def _depths(text: str, start: int = 0):
    """Yield (place, character, how many brackets are open there), escaped characters left out."""
    depth, at = 0, start
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        depth -= text[at] in ")]"
        yield at, text[at], depth
        depth += text[at] in "(["
        at += 1


def _closing(text: str, start: int) -> int | None:
    """Where the bracket that is opened at `start` is closed; None if nowhere."""
    return next((at for at, character, depth in _depths(text, start) if character in ")]" and depth == 0), None)


def _split(text: str, separator: str) -> list[str]:
    """Split where the separator stands outside of all brackets."""
    cuts = [at for at, character, depth in _depths(text) if character == separator and depth == 0]
    return [text[a + 1 : b] for a, b in zip([-1, *cuts], [*cuts, len(text)], strict=True)]


def weighted_tokens(tokenizer: "CLIPTokenizer", text: str) -> tuple[list[list[int]], list[list[float]]]:
    """Return (ids, weights) of a prompt's chunks, each of `model_max_length` numbers, start and end token included.

    What does not fit into a chunk begins the next one. Start, end and padding have the weight 1.
    """
    room = tokenizer.model_max_length - 2
    chunks: list[tuple[list[int], list[float]]] = []
    for chunk in parse_weights(text):
        ids: list[int] = []
        weights: list[float] = []
        for piece, weight in chunk:
            found = tokenizer(piece, add_special_tokens=False, truncation=False, verbose=False).input_ids
            ids += found
            weights += [weight] * len(found)
        chunks += [(ids[at : at + room], weights[at : at + room]) for at in range(0, max(len(ids), 1), room)]
    length, start, end, filler = room + 2, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return (
        [[start, *ids, end, *[filler] * (length - 2 - len(ids))] for ids, _ in chunks],
        [[1.0, *weights, *[1.0] * (length - 1 - len(weights))] for _, weights in chunks],
    )


def weighted_features(hidden: "torch.Tensor", weights: "torch.Tensor") -> "torch.Tensor":
    """Return features of tokens, scaled by their weights, with the mean of each chunk kept: (chunks, tokens, width).

        H' = weight H * mean(H) / mean(weight H)

    hidden: H, (chunks, tokens, width); weights: (chunks, tokens). The mean is over all numbers of a chunk, so that
    weights do not change it; where the ratio of the means is not between 1/2 and 2, as for means near 0, it is left out
    (the Web UI has no such bounds). A chunk whose weights are all 1 stays as it is, bit for bit.
    Source: Stable Diffusion Web UI, "Emphasis: Original".
    """
    import torch

    weights = weights.to(hidden)[:, :, None]  # (chunks, tokens, 1)
    scaled = weights * hidden
    kept = hidden.mean((1, 2), keepdim=True) / scaled.mean((1, 2), keepdim=True)
    kept = torch.where((kept > 1 / MOST_KEPT) & (kept < MOST_KEPT), kept, 1.0)
    plain = (weights == 1).flatten(1).all(1)[:, None, None]  # bit for bit as it was
    return torch.where(plain, hidden, scaled * kept)


def encode_weighted(
    tokenizer: "CLIPTokenizer", text_encoder: "CLIPTextModel", text: str, chunks: int | None = None
) -> "torch.Tensor":
    """Return the features of a prompt with weights: (1, chunks * length, width), see `weighted_features`.

    Without weights these are the features of `tokens.encode`.
    chunks: at least so many, filled up with empty ones (None: as many as the prompt has).
    """
    import torch

    ids, weights = weighted_tokens(tokenizer, text)
    if chunks is not None and len(ids) < chunks:
        empty_ids, empty_weights = weighted_tokens(tokenizer, "")
        ids, weights = ids + empty_ids * (chunks - len(ids)), weights + empty_weights * (chunks - len(weights))
    with torch.no_grad():
        z = text_encoder(torch.tensor(ids, device=text_encoder.device)).last_hidden_state  # (chunks, length, width)
    return weighted_features(z, torch.tensor(weights).to(z)).flatten(0, 1)[None]  # (1, chunks length, width)


def encode_schedule(
    tokenizer: "CLIPTokenizer", text_encoder: "CLIPTextModel", prompts: Sequence[str], steps: int
) -> "list[list[torch.Tensor]]":
    """Return, for each prompt, its features in each of the steps: all (1, tokens, width), with as many tokens.

    prompts: those that are used together, such as the negative one and the prompt. Each text is encoded once.
    """
    texts = [[prompt_at(prompt, step, steps) for step in range(1, steps + 1)] for prompt in prompts]
    different = {text for row in texts for text in row}
    chunks = max(len(weighted_tokens(tokenizer, text)[0]) for text in different)
    features = {text: encode_weighted(tokenizer, text_encoder, text, chunks) for text in different}
    return [[features[text] for text in row] for row in texts]
