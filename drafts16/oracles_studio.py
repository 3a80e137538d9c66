"""The oracles of 16.read_weights and 16.weighted_features, for exercises/chapter_16.py and mistakes_16.py."""

import re

import torch

from course_utils.exercises.mistakes_13 import reasons_given
from course_utils.exercises.oracles import Wrong, require
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import called_as, close_in_all
from course_utils.text import syntax

NAMES = "abcdefghijklmnopqrstuvwxyz"
PART = re.compile(r"\\.?|:\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*\)|[()\[\]]|[^\\()\[\]:]+|:", re.DOTALL)


def read_in_one_way(text, round_=1.1, square=1 / 1.1, twice=False, inner=False, adds=False, to_the_end=True,
                    escapes="text", one_stack=False, stray="text", join=True, keep_empty=False):  # fmt: skip
    """Pairs of a prompt, as the course reads it, or with one of the mistakes that the parameters stand for."""
    pieces, opened = [], []  # opened: [bracket, where it begins]

    def multiply(start, weight):
        for piece in pieces[start:]:
            if inner and piece[2]:
                continue
            piece[1] = piece[1] + weight - 1 if adds else piece[1] * weight
            piece[2] = True

    def close(bracket, weight):
        fitting = [i for i, (kind, _) in enumerate(opened) if one_stack or kind == bracket]
        multiply(opened.pop(fitting[-1])[1], weight)

    for part in PART.findall(text.replace("\\", "") if escapes == "ignored" else text):
        some = {kind: any(one_stack or other == kind for other, _ in opened) for kind in "(["}
        if part[0] == "\\":
            pieces.append([part if escapes == "kept" else part[1:], 1.0, False])
        elif part in ("(", "["):
            opened.append([part, len(pieces)])
        elif part[0] == ":" and part[-1] == ")" and (some["("] or stray == "dropped"):
            if some["("]:
                close("(", float(part[1:-1]) * (round_ if twice else 1))
        elif part in (")", "]") and (some["(" if part == ")" else "["] or stray == "dropped"):
            if some["(" if part == ")" else "["]:
                close("(" if part == ")" else "[", round_ if part == ")" else square)
        else:
            pieces.append([part, 1.0, False])
    for kind, start in [*(o for o in opened if o[0] == "("), *(o for o in opened if o[0] == "[")] if to_the_end else []:
        multiply(start, round_ if kind == "(" else square)
    pairs = []
    for piece, weight, _ in pieces:
        if join and pairs and abs(pairs[-1][1] - weight) < 1e-12:
            pairs[-1] = (pairs[-1][0] + piece, pairs[-1][1])
        elif piece or keep_empty:
            pairs.append((piece, weight))
    return pairs


READ_MISTAKES = (
    ({"square": 1.1}, "Square brackets were taken for round ones. They weaken: [word] has the weight 1 / 1.1."),
    ({"square": 0.9}, "Square brackets divide by 1.1: a weight of 0.909, and not 0.9."),
    ({"twice": True}, "A weight that is written out was multiplied by 1.1 as well. It stands in place of the 1.1."),
    ({"inner": True}, "Only the innermost bracket counted. Brackets in brackets multiply: one that closes multiplies "
     "all pieces since it was opened, those of inner brackets too."),
    ({"adds": True}, "The weights of brackets in brackets were added up. They multiply: ((word)) has 1.21."),
    ({"to_the_end": False}, "A bracket that is never closed was forgotten. It holds to the end of the prompt: "
     "after the loop, look at what is still open."),
    ({"escapes": "kept"}, "The backslash was kept. It only says that the next character is text: part[1:]."),
    ({"escapes": "ignored"}, "An escaped bracket was taken for a bracket. A piece that begins with a backslash is "
     "text: look for it first."),
    ({"one_stack": True}, "Round and square brackets share one list of what is open. A round one closes the last round "
     "one, even if a square one was opened since: one list for each kind."),
    ({"stray": "dropped"}, "What closes no bracket was dropped. It is text: a ')' or a ':1.3)' without "
     "an open '(' stays."),
    ({"join": False}, "Neighbours of one weight were not joined. At the end, return joined(pieces)."),
    ({"keep_empty": True}, "There are pairs with an empty text. Leave them out, as joined(pieces) does."),
)  # fmt: skip


def prompts(case):
    """Prompts with each piece of the syntax, of other words and weights each time."""
    order = case.uniform(0, 1, len(NAMES)).argsort().tolist()
    a, b, c, d = (NAMES[i] * 3 for i in order[:4])
    u, v = (round(number, 2) for number in case.uniform(0.3, 0.9, 2).tolist())
    return [
        f"{a} {b}", "", f"{a} ({b}) {c}", f"{a} ({b}:{u}) {c}", f"{a} [{b}] {c}", f"(({a}:{u}) {b}:{v}) {c}",
        f"(({a})) [[{b}]]", f"{a} ({b} [{c}] {d})", rf"\({a}\) \[{b}\] \\",
        f"{a} ({b}", f"{a} [{b}", f"{a} ({b} ({c}",
        f"{a}) {b}] {c}", f"{a}:{u}) {b}", f"10:30 ({a}:{b})", f"[{a}:{u}]", f"({a})({b})", "()", f"{a} () {b}",
        f"({a} [{b}) {c}]", f"({a}:-1)", f"({a}: {u} )", f"({a}:.5)", f"({a}:+2.) {b}",
        f"({a} \\({b}\\):{v})", f"({a})\\",
    ]  # fmt: skip


def as_pairs(got):
    """A list of (text, number), or None if it is no such thing."""
    if not isinstance(got, list) or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in got):
        return None
    fits = all(isinstance(t, str) and isinstance(w, int | float) and not isinstance(w, bool) for t, w in got)
    return [(t, float(w)) for t, w in got] if fits else None


def same_pairs(got, wanted):
    return got is not None and [t for t, _ in got] == [t for t, _ in wanted] and all(
        abs(w - other) < 1e-6 for (_, w), (_, other) in zip(got, wanted, strict=True)
    )  # fmt: skip


@exercise(
    "16.read_weights", syntax.read_weights, difficulty=3, minutes=20,
    hints=[
        "Keep a list of pieces, each with a weight, 1.0 at first, and for each kind of bracket a list of where the "
        "open ones begin: len(pieces) when the bracket is met.",
        "When a bracket closes, pop the last place of its kind, and multiply the weights of all pieces from there on.",
        "The order of the questions matters: first a backslash, then an opening bracket, then ':1.3)', then a closing "
        "bracket; all else is text, also what closes nothing.",
        "After the loop, brackets that are still open hold to the end: pop and multiply until both lists are empty. "
        "Then return joined(pieces).",
    ],
)  # fmt: skip
def read_weights(learner, case):
    """Read the weights of a prompt: pairs of text and weight, without brackets."""
    results = [(learner(text), text, learner.called) for text in prompts(case)]
    for got, text, called in results:
        pairs, wanted = as_pairs(got), read_in_one_way(text)
        if same_pairs(pairs, wanted):
            continue
        found = f"for {text!r}: got {got!r}, expected {wanted!r}."
        with called_as(called):
            require(pairs is not None, found, "Return a list of pairs (text, weight), also for the empty prompt: [].")
            for change, advice in READ_MISTAKES:
                if all(same_pairs(as_pairs(g), read_in_one_way(t, **change)) for g, t, _ in results):
                    raise Wrong(found, advice)
            raise Wrong(found, "Go through this prompt, piece by piece, with pencil and paper.")


FEATURE_REASONS = (
    ("must match the size of tensor", "Two shapes do not fit: weights is (chunks, tokens), hidden (chunks, tokens, "
     "width). weights[:, :, None] has one number for each vector, and factor[:, None, None] one for each chunk."),
)  # fmt: skip


def feature_mistakes(hidden, weights):
    """(right, mistakes) of hidden states (chunks, tokens, width) and weights (chunks, tokens)."""
    scaled = weights.to(hidden)[:, :, None] * hidden

    def kept(dims=(1, 2), low=0.5, high=2.0, clamp=False, away=torch.mean, closed=False, inverse=False):
        factor = away(hidden, dims, keepdim=True) / away(scaled, dims, keepdim=True)
        factor = 1 / factor if inverse else factor
        if clamp:
            return scaled * factor.clamp(low, high)
        inside = (factor >= low) & (factor <= high) if closed else (factor > low) & (factor < high)
        return scaled * torch.where(inside, factor, torch.ones_like(factor))

    def size(x, dims, keepdim):
        return x.square().mean(dims, keepdim=keepdim).sqrt()

    infinite = float("inf")
    by_weights = scaled / weights.to(hidden).mean(1)[:, None, None]
    return kept(), [
        (scaled, "The mean was not kept: the result is weight times H. One factor for each chunk is missing."),
        (kept((0, 1, 2)), "One factor for all chunks: each chunk has a mean of its own, .mean((1, 2))."),
        (kept(1), "The mean is over tokens only. It is over all numbers of a chunk, tokens and width: .mean((1, 2))."),
        (
            kept(2),
            "Each token got a factor of its own, which undoes its weight. The mean is over all numbers of a chunk.",
        ),
        (
            kept(low=-infinite, high=infinite),
            "The bounds are missing: a factor that is not between 1/2 and 2 is left out.",
        ),
        (kept(clamp=True), "A factor beyond the bounds was cut to the bound. It is left out, as if it were 1."),
        (kept(closed=True), "The bounds themselves are out: leave a factor of exactly 1/2 or 2 out, too."),
        (kept(inverse=True), "The factor is upside down: it is the mean before over the mean after."),
        (kept(away=size), "This keeps the root of the mean square. Keep the mean."),
        (by_weights, "Divided by the mean of the weights. The factor compares the means of the features."),
    ]


@exercise(
    "16.weighted_features", syntax.weighted_features, difficulty=2, minutes=10,
    hints=[
        "weights[:, :, None] has the shape (chunks, tokens, 1), and multiplies each token's vector by its weight.",
        "factor = hidden.mean((1, 2)) / scaled.mean((1, 2)) is one number for each chunk, (chunks,).",
        "torch.where((factor > 0.5) & (factor < 2), factor, 1.0) leaves out what is too large a change; then "
        "scaled * factor[:, None, None].",
    ],
)  # fmt: skip
def weighted_features(learner, case):
    """Multiply hidden states by the weights of their tokens, and keep the mean of each chunk."""
    settings = []
    for (chunks, tokens, width), shift in (((2, 5, 3), 1.0), ((1, 4, 4), -0.8), ((3, 2, 5), 2.0), ((1, 1, 2), 1.5)):
        hidden, weights = case.normal(chunks, tokens, width) * 0.3 + shift, case.uniform(0.8, 1.7, chunks, tokens)
        settings.append((hidden, weights))
        settings.append((hidden, 2.5 * weights))  # the factor is below 1/2
        settings.append((hidden, torch.ones(chunks, tokens)))
    hidden = case.normal(2, 4, 3) + 1
    settings += [
        (hidden, torch.full((2, 4), 2.0)),
        (hidden, torch.full((2, 4), 0.5)),
        (hidden, torch.full((2, 4), -1.0)),
    ]
    settings.append((torch.cat([hidden, hidden - 1]), case.uniform(0.7, 1.6, 4, 4)))
    settings.append((hidden.double(), torch.tensor([[1, 1, 1, 1], [1, 0.4, 1, 1.8]])))
    results = []
    for hidden, weights in settings:
        with reasons_given(FEATURE_REASONS):
            got = learner(hidden, weights)
        results.append((got, *feature_mistakes(hidden, weights), "H'", learner.called))
    close_in_all(results)
