"""Attempts at 16.read_weights and 16.weighted_features, for tests/exercises/attempts_16.py."""

import re

import torch
from attempts import mutant, variant
from oracles_studio import READ_MISTAKES, read_in_one_way

READ, FEATURES = "16.read_weights", "16.weighted_features"
NUMBER = re.compile(r":\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*\)")


def wrong(id, words, function, state="fail"):
    """Note a wrong answer that is one expression, by the words that its message must hold."""
    function.__name__ = "_".join(re.findall(r"\w+", words)[:5])
    mutant(id, words, state)(function)


def read_wrongly(change):
    return lambda text: read_in_one_way(text, **change)


for change, advice in READ_MISTAKES:
    wrong(READ, advice[:40], read_wrongly(change))
wrong(READ, "Return a list of pairs", lambda text: [list(text)])
wrong(READ, "Return a list of pairs", lambda text: dict(read_in_one_way(text)))
wrong(READ, "with pencil and paper", lambda text: read_in_one_way(text)[::-1])


@variant(READ)
def character_by_character(text):
    """No list of pieces: a weight for each character, and runs of equal ones at the end."""
    letters, weights, opened, at = [], [], {"(": [], "[": []}, 0

    def close(kind, factor):
        start = opened[kind].pop()
        weights[start:] = [weight * factor for weight in weights[start:]]

    while at < len(text):
        one, number = text[at], NUMBER.match(text, at)
        at += 1
        if one == "\\":
            letters += text[at : at + 1]
            at += 1
        elif one in "([":
            opened[one].append(len(letters))
        elif number and opened["("]:
            at = number.end()
            close("(", float(number[1]))
        elif (one == ")" and opened["("]) or (one == "]" and opened["["]):
            close(*(("(", 1.1) if one == ")" else ("[", 1 / 1.1)))
        elif number:  # text as a whole, or its bracket would count
            letters += text[at - 1 : number.end()]
            at = number.end()
        else:
            letters.append(one)
        weights += [1.0] * (len(letters) - len(weights))
    for kind, factor in (("[", 1 / 1.1), ("(", 1.1)):
        while opened[kind]:
            close(kind, factor)
    pairs = []
    for letter, weight in zip(letters, weights, strict=True):
        if pairs and abs(pairs[-1][1] - weight) < 1e-9:
            pairs[-1] = (pairs[-1][0] + letter, weight)
        else:
            pairs.append((letter, weight))
    return pairs


def mean(x):
    return x.mean((1, 2), keepdim=True)


def weigh(hidden, weights, low=0.5, high=2.0, of=mean):
    scaled = hidden * weights.unsqueeze(2).to(hidden)
    factor = of(hidden) / of(scaled)
    return scaled * torch.where((factor > low) & (factor < high), factor, torch.ones_like(factor))


def wrong_features(words, **change):
    wrong(FEATURES, words, lambda hidden, weights: weigh(hidden, weights, **change))


wrong(FEATURES, "The mean was not kept", lambda hidden, weights: hidden * weights[:, :, None].to(hidden))
wrong_features("One factor for all chunks", of=torch.mean)
wrong_features("The mean is over tokens only", of=lambda x: x.mean(1, True))
wrong_features("Each token got a factor", of=lambda x: x.mean(2, True))
wrong_features("The bounds are missing", low=-1e9, high=1e9)
wrong_features("The factor is upside down", of=lambda x: 1 / mean(x))
wrong_features("root of the mean square", of=lambda x: mean(x.square()).sqrt())
wrong(FEATURES, "Two shapes do not fit", lambda hidden, weights: hidden * weights)


@variant(FEATURES)
def by_einsum_and_a_loop(hidden, weights):
    done = []
    for one, w in zip(hidden, weights, strict=True):
        scaled = torch.einsum("tw,t->tw", one, w.to(one))
        factor = (one.sum() / scaled.sum()).item()
        done.append(scaled * factor if 0.5 < factor < 2 else scaled)
    return torch.stack(done)
