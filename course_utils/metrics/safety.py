"""Filters on what goes into a model and on what comes out: a checker of embeddings, its thresholds, and a word list."""

import re
from collections.abc import Iterable

import torch
from torch.nn import functional as F

CARE = 0.01  # how much lower the thresholds are for a picture that calls for care, in Stable Diffusion's checker


def flagged(
    images: torch.Tensor,
    concepts: torch.Tensor,
    thresholds: torch.Tensor,
    special: torch.Tensor | None = None,
    special_thresholds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return which pictures show a concept, bool (n,), by the cosines of CLIP's embeddings.

        score_ij = cos(image_i, concept_j) - threshold_j + (0.01 if image i has any positive special score, else 0)
        flagged_i = any score_ij > 0;   special scores: cos(image_i, special_k) - special_threshold_k

    images: (n, d). concepts: (m, d), thresholds: (m,). special: (k, d), special_thresholds: (k,), or neither.
    Embeddings of any length. All scores are rounded to three decimals, so that at most half a thousandth above the
    threshold is not above it. Equal to diffusers' `StableDiffusionSafetyChecker`. Raises ValueError for other shapes.
    """
    careful = torch.zeros(len(images), 1)
    if special is not None and special_thresholds is not None:
        careful = (_scores(images, special, special_thresholds) > 0).any(1, keepdim=True)
    elif special is not None or special_thresholds is not None:
        raise ValueError("Expected both special concepts and their thresholds, or neither, but got one of them.")
    scores = _scores(images, concepts, thresholds, CARE * careful.to(images))
    return (scores > 0).any(1)


def _scores(images: torch.Tensor, concepts: torch.Tensor, thresholds: torch.Tensor, more=0.0) -> torch.Tensor:
    """Cosines above thresholds, (n, m), rounded as diffusers rounds them."""
    if images.ndim != 2 or concepts.ndim != 2 or images.shape[1] != concepts.shape[1]:
        raise ValueError(
            f"Expected embeddings (n, d) of pictures and (m, d) of concepts, but got {tuple(images.shape)} and "
            f"{tuple(concepts.shape)}."
        )
    if thresholds.shape != concepts.shape[:1]:
        raise ValueError(f"Expected one threshold for each of {len(concepts)} concepts, got {tuple(thresholds.shape)}.")
    cosines = F.normalize(images, dim=1) @ F.normalize(concepts, dim=1).T  # (n, m)
    return (cosines - thresholds + more).round(decimals=3)


def threshold_for(harmless: torch.Tensor, rate: float) -> float:
    """Return the lowest threshold that at most the share `rate` of the harmless scores lies above.

    harmless: (n,), scores of pictures that do not show the concept, labelled by someone. rate: from 0 to below 1. It
    holds for these pictures; what it means for others has to be measured on others.
    Raises ValueError for no scores, or another rate.
    """
    if harmless.ndim != 1 or not len(harmless) or not 0 <= rate < 1:
        raise ValueError(f"Expected scores (n,) and a rate from 0 to below 1, but got {tuple(harmless.shape)}, {rate}.")
    ordered = harmless.sort(descending=True).values
    return ordered[int(rate * len(ordered))].item()


def forbidden_words(prompt: str, words: Iterable[str]) -> list[str]:
    """Return the words of a list that a prompt has, in the order of the prompt: whole words, in lower or upper case.

    It reads letters, as a list of forbidden words does, and knows no synonyms, plurals or misspellings.
    Raises ValueError for one text in the place of a list.
    """
    if isinstance(words, str):
        raise ValueError(f"Expected a list of words, but got the text {words!r}: write [{words!r}].")
    forbidden = {word.lower() for word in words}
    return [word for word in re.findall(r"[^\W_]+", prompt.lower()) if word in forbidden]
