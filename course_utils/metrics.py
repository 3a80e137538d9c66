"""Numbers for pictures: how faithful a reconstruction is, and whether a picture shows what its prompt says."""

import itertools

import torch

from course_utils.data.picture_book import Caption, Thing, seen_colour
from course_utils.models.judge import Finding, Judge, Verdict, read


def psnr(pictures: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in decibels, (batch,), of pictures in [-1, 1]: 10 log10(2^2 / mean squared error)."""
    if pictures.shape != others.shape:
        raise ValueError(f"expected two batches of one shape, got {tuple(pictures.shape)} and {tuple(others.shape)}")
    return 10 * torch.log10(4 / (pictures - others).float().square().flatten(1).mean(1))


def follows(verdict: Verdict, caption: Caption) -> bool:
    """Whether the judge found what the caption names: each thing with its attributes, and no other thing.

    Like GenEval (arXiv:2310.11513), a picture is right or wrong as a whole.
    """
    if caption.place not in (None, verdict.place) or caption.style not in (None, verdict.style):
        return False
    if len(verdict.findings) != len(caption.things):
        return False
    return any(all(_is(found, thing) for found, thing in zip(order, caption.things, strict=True))
               and _stands(order, caption.relation) for order in itertools.permutations(verdict.findings))


def _is(found: Finding, claim: Thing) -> bool:
    return (found.kind == claim.kind and found.colour == (seen_colour(claim) or "natural")
            and claim.pose in (None, found.pose))


def _stands(order, relation: str | None) -> bool:
    """Whether the first finding's centre lies to this side of the second's, by at least four pixels."""
    if relation is None:
        return True
    right, down = order[0].x - order[1].x, order[0].y - order[1].y
    return {"left of": -right, "right of": right, "above": -down, "below": down}[relation] >= 4


def adherence(judge: Judge, pictures: torch.Tensor, captions: list[Caption]) -> float:
    """Prompt adherence, 0-1: the share of pictures (batch, 3, 64, 64) in [-1, 1] that follow their captions."""
    if len(pictures) != len(captions):
        raise ValueError(f"expected one caption a picture, got {len(pictures)} pictures and {len(captions)} captions")
    verdicts = read(judge, pictures)
    return sum(follows(v, c) for v, c in zip(verdicts, captions, strict=True)) / len(captions)
