"""The judge: a small detector that reads a picture: which subjects are where, in which colour and pose, the
place and the style.

It works like CenterNet ("Objects as points", Zhou et al., arXiv:1904.07850): for each cell of a coarse grid it
says how likely a subject of each kind has its centre there, and what colour and pose that subject has.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

THRESHOLD = 0.25  # what scores above it counts as found


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes of the judge; the first five are the words it knows."""

    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    poses: tuple[str, ...]
    places: tuple[str, ...]
    styles: tuple[str, ...]
    widths: tuple[int, ...] = (24, 48, 96, 128)
    stride: int = 4  # pixels per grid cell


class Judge(nn.Module):
    """Pictures (batch, 3, size, size) in [-1, 1] -> maps of logits on the grid, and logits of place and style.

    Returns a dict: "kind" (batch, kinds, rows, columns), "colour" and "pose" likewise, "place" (batch, places) and
    "style" (batch, styles).
    """

    def __init__(self, config: JudgeConfig):
        super().__init__()
        self.config = config
        a, b, c, d = config.widths
        self.finest = nn.Sequential(_conv(3, a), _conv(a, b, 2), _conv(b, b))
        self.fine = nn.Sequential(_conv(b, c, 2), _conv(c, c))
        self.coarse = nn.Sequential(_conv(c, d, 2), _conv(d, d), _conv(d, d))
        self.join = nn.Sequential(nn.Conv2d(c + d, c, 1), _conv(c, c))
        heads = (len(config.kinds), len(config.colours), len(config.poses))
        self.heads = nn.ModuleList(nn.Conv2d(c, n, 1) for n in heads)
        self.place = nn.Linear(d, len(config.places))
        self.style = nn.Linear(b + d, len(config.styles))  # hatching and outlines show only in the fine maps
        nn.init.constant_(self.heads[0].get_parameter("bias"), -4.0)  # at first, no cell holds a subject

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        finest, coarse, joined = self.maps(pictures)
        kind, colour, pose = (head(joined) for head in self.heads)
        whole = coarse.mean((2, 3))
        return {
            "kind": kind,
            "colour": colour,
            "pose": pose,
            "place": self.place(whole),
            "style": self.style(torch.cat([finest.mean((2, 3)), whole], dim=1)),
        }

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """What the judge sees in pictures, (batch, features): its finest and its coarsest map, averaged over places."""
        finest, coarse, _ = self.maps(pictures)
        return torch.cat([finest.mean((2, 3)), coarse.mean((2, 3))], dim=1)

    def maps(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Its maps inside: the finest (2 pixels a place), the coarsest (8), and what the heads read (4)."""
        finest = self.finest(pictures)
        fine = self.fine(finest)
        coarse = self.coarse(fine)
        return finest, coarse, self.join(torch.cat([fine, F.interpolate(coarse, scale_factor=2)], dim=1))


def _conv(inside: int, outside: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), nn.GroupNorm(8, outside), nn.SiLU())


@dataclass(frozen=True)
class Finding:
    """One subject that the judge found; `score` in 0-1, `x`, `y` its centre in pixels."""

    kind: str
    colour: str
    pose: str
    score: float
    x: float
    y: float


@dataclass(frozen=True)
class Verdict:
    """What the judge reads in one picture."""

    findings: tuple[Finding, ...]
    place: str
    style: str


@torch.no_grad()
def read(judge: Judge, pictures: torch.Tensor, threshold: float = THRESHOLD) -> list[Verdict]:
    """Read pictures (batch, 3, size, size) in [-1, 1]: a subject is a local maximum of its kind above `threshold`.

    Between 0.2 and 0.5 renders are read equally well. Of generated pictures, labelled by eye, 0.25 reads more rightly
    than 0.4: what is drawn badly gets a low score.
    """
    config, maps = judge.config, judge(pictures)
    score = maps["kind"].sigmoid()
    best = score.amax(1, keepdim=True)
    peaks = (score == F.max_pool2d(best, 5, 1, 2)) & (score > threshold)
    places, styles = maps["place"].argmax(1).tolist(), maps["style"].argmax(1).tolist()
    findings: list[list[Finding]] = [[] for _ in places]
    for picture, kind, row, column in peaks.nonzero().tolist():
        colour = maps["colour"][picture, :, row, column].argmax().item()
        pose = maps["pose"][picture, :, row, column].argmax().item()
        findings[picture].append(
            Finding(
                config.kinds[kind],
                config.colours[colour],
                config.poses[pose],
                score[picture, kind, row, column].item(),
                (column + 0.5) * config.stride,
                (row + 0.5) * config.stride,
            )
        )
    return [
        Verdict(tuple(found), config.places[place], config.styles[style])
        for found, place, style in zip(findings, places, styles, strict=True)
    ]


def detection_loss(maps: dict, things: torch.Tensor, wholes: torch.Tensor, radius: float = 1.0) -> torch.Tensor:
    """Focal loss of the centres plus cross-entropy of colour, pose, place and style.

    things: int64 (batch, things, 5), each thing's kind, colour, pose, row and column of its centre's cell; -1 where
    there is no pose, and throughout where there is no thing. wholes: int64 (batch, 2), place and style.
    Cells near a centre are punished less, by a Gaussian of `radius` cells (arXiv:1904.07850, eq. 1, alpha = 2,
    beta = 4).
    """
    heat = maps["kind"].float()
    batch, _, height, width = heat.shape
    picture, slot = (things[..., 0] >= 0).nonzero(as_tuple=True)
    kind, colour, pose, row, column = things[picture, slot].unbind(1)
    y = torch.arange(height, device=heat.device)[None, :, None] - row[:, None, None]
    x = torch.arange(width, device=heat.device)[None, None, :] - column[:, None, None]
    near = torch.exp(-(x**2 + y**2) / (2 * radius**2))
    target = torch.zeros_like(heat)
    for number in range(len(near)):  # two of a kind may stand near each other
        torch.maximum(target[picture[number], kind[number]], near[number], out=target[picture[number], kind[number]])
    p = heat.sigmoid().clamp(1e-5, 1 - 1e-5)
    hit = (target == 1) * (1 - p) ** 2 * p.log()
    miss = (target < 1) * (1 - target) ** 4 * p**2 * (1 - p).log()
    loss = -(hit + miss).sum() / batch
    loss = loss + F.cross_entropy(maps["colour"].float()[picture, :, row, column], colour)
    # a sum, so that a batch without poses gives 0 and not 0/0; left out, processes would disagree about gradients
    of_pose = F.cross_entropy(maps["pose"].float()[picture, :, row, column], pose, ignore_index=-1, reduction="sum")
    loss = loss + of_pose / (pose >= 0).sum().clamp(min=1)
    place, style = wholes.unbind(1)
    return loss + F.cross_entropy(maps["place"].float(), place) + F.cross_entropy(maps["style"].float(), style)
