"""Numbers for pictures: how faithful a reconstruction is, and whether a picture shows what its prompt says."""

import torch

from course_utils.data.picture_book import Caption, seen_colour
from course_utils.models.judge import Judge, Verdict, read


def psnr(pictures: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in decibels, (batch,), of pictures in [-1, 1]: 10 log10(2^2 / mean squared error)."""
    if pictures.shape != others.shape:
        raise ValueError(f"expected two batches of one shape, got {tuple(pictures.shape)} and {tuple(others.shape)}")
    return 10 * torch.log10(4 / (pictures - others).float().square().flatten(1).mean(1))


def follows(verdict: Verdict, caption: Caption) -> bool:
    """Whether the judge found everything that the caption names, in exactly one subject of that kind, and no other.

    Like GenEval (arXiv:2310.11513), a picture is right or wrong as a whole.
    """
    if len(verdict.findings) != 1 or caption.place not in (None, verdict.place):
        return False
    found, claim = verdict.findings[0], caption.thing
    return (found.kind == claim.kind and found.colour == (seen_colour(claim) or "natural")
            and (claim.pose is None or found.pose == claim.pose))


def adherence(judge: Judge, pictures: torch.Tensor, captions: list[Caption]) -> float:
    """Prompt adherence, 0-1: the share of pictures (batch, 3, 64, 64) in [-1, 1] that follow their captions."""
    if len(pictures) != len(captions):
        raise ValueError(f"expected one caption a picture, got {len(pictures)} pictures and {len(captions)} captions")
    verdicts = read(judge, pictures)
    return sum(follows(v, c) for v, c in zip(verdicts, captions, strict=True)) / len(captions)
