"""Small readers of pictures, trained on renders in a minute: which pixels belong to a thing; whether it is a fox.

They read the judge's maps, so that they need few pages. How they do on renders that they have not met comes with them.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.data import picture_book as book
from course_utils.models.judge import Judge
from course_utils.recipes.judge import load_judge

SEGMENTER_SET, PROBE_SET = 7, 8  # data sets of their own: the model is trained on 0, measured on 1
RATE = 2e-2  # the segmenter's largest learning rate
UNSEEN = 100  # added to the number of a reader's data set: pages that it is measured on


def things_masks(scenes: Iterable[book.Scene]) -> torch.Tensor:
    """Return which pixels belong to a thing, (scenes, 64, 64), bool: exact, since the pages are drawn."""
    return torch.stack([book.maps(scene).things > 0 for scene in scenes])


@dataclass(frozen=True)
class Reader:
    """Something that reads pictures (n, 3, 64, 64) in [-1, 1], and how well it did on renders that it had not met."""

    read: Callable[[torch.Tensor], torch.Tensor]
    on_renders: float


class Outliner(nn.Module):
    """Pictures (n, 3, 64, 64) -> logits (n, 64, 64): does a pixel belong to a thing? The judge stays as it is.

    The judge's maps of 16 x 16 places say where things are; its finest map and the picture itself, where they end.
    """

    def __init__(self, judge: Judge, width: int = 32):
        super().__init__()
        self.judge = judge.requires_grad_(False)
        _, fine, joined, _ = judge.config.widths
        self.where = _conv(joined + fine, 2 * width)
        self.edges = nn.Sequential(
            _conv(2 * width + fine + 12, width), _conv(width, width), nn.Conv2d(width, 16, 3, padding=1)
        )
        self.last = nn.Sequential(_conv(4 + 3, 16), nn.Conv2d(16, 1, 3, padding=1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            fine, _, joined = self.judge.maps(pictures)  # (n, 48, 32, 32), ..., (n, 96, 16, 16)
        where = self.where(torch.cat([joined, F.avg_pool2d(fine, 2)], dim=1))
        halves = torch.cat([F.interpolate(where, scale_factor=2), fine, F.pixel_unshuffle(pictures, 2)], dim=1)
        return self.last(torch.cat([F.pixel_shuffle(self.edges(halves), 2), pictures], dim=1))[:, 0]


def _conv(inside: int, outside: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1), nn.GroupNorm(8, outside), nn.SiLU())


@functools.cache
def segmenter(updates: int = 280, seed: int = 0) -> Reader:
    """A small network that reads which pixels belong to a thing: pictures -> (n, 64, 64), bool.

    Trained on `updates` batches of 16 pages, by cross-entropy and 0.3 (1 - soft IoU), so that small things count as
    much as large ones. on_renders: the mean IoU on 200 pages of another data set.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Outliner(load_judge())
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(weights, RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, updates)
    scenes = [book.sample_scene(n, SEGMENTER_SET, "all") for n in range(6 * updates)]
    pages, masks = book.pictures(scenes), things_masks(scenes)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        batch = torch.randint(len(pages), (16,), generator=generator)
        logits, true = network(pages[batch]), masks[batch].float()
        both, either = _overlap(logits.sigmoid(), true)
        loss = F.binary_cross_entropy_with_logits(logits, true) + 0.3 * (1 - (both + 1) / (either + 1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    @torch.no_grad()
    def read(pictures):
        return torch.cat([network(part.float().cpu()) > 0 for part in pictures.split(32)])

    unseen = [book.sample_scene(n, SEGMENTER_SET + UNSEEN, "all") for n in range(200)]
    both, either = _overlap(read(book.pictures(unseen)).float(), things_masks(unseen).float())
    return Reader(read, (both / either).mean().item())


def _overlap(masks: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many pixels two batches of masks in [0, 1] share, and how many they have together: (n,) each."""
    both = (masks * others).sum((1, 2))
    return both, (masks + others).sum((1, 2)) - both


@functools.cache
def fox_or_corgi(count: int = 400, seed: int = 0) -> Reader:
    """Tells a fox from a corgi: pictures -> (n,), True for a fox. For pictures that show one of the two.

    Of anything else (a red boat) it says "fox" as often as not, since it is no corgi; `fox_or_other` does not.
    A linear probe on how strongly the judge sees each of its features anywhere in the picture, trained on `count`
    renders of each and, since drawn pictures are less sharp, on the same blurred. on_renders: the
    share of 400 fresh renders that it reads rightly. The judge was never shown a fox.
    """
    return _probe(count, lambda n, data_set: _alone("corgi", n, data_set), seed)


@functools.cache
def fox_or_other(count: int = 400, seed: int = 0) -> Reader:
    """Tells pages with a fox from all that the model was trained on: pictures -> (n,), True for a fox.

    As `fox_or_corgi`, with twice as many pages of the world (one to three things, all subjects) instead of corgis.
    """
    return _probe(count, lambda n, data_set: book.sample_scene(n, data_set, "all"), seed, others=2)


def _probe(count: int, other: Callable[[int, int], book.Scene], seed: int, others: int = 1) -> Reader:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    judge = load_judge()

    @torch.no_grad()
    def features(pictures):
        found = []
        for part in pictures.split(64):
            _, coarse, joined = judge.maps(part.float().cpu())
            found.append(torch.cat([coarse.amax((2, 3)), F.avg_pool2d(joined, 3, 1).amax((2, 3))], dim=1))
        return torch.cat(found).numpy()

    def renders(data_set, foxes, rest):
        scenes = [_alone("fox", n, data_set) for n in range(foxes)] + [other(n, data_set) for n in range(rest)]
        return book.pictures(scenes), [n < foxes for n in range(foxes + rest)]

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=seed))
    pages, answers = renders(PROBE_SET, count, others * count)
    blurred = F.avg_pool2d(F.pad(pages, (1, 1, 1, 1), mode="replicate"), 3, 1)
    probe.fit(features(torch.cat([pages, blurred])), answers * 2)
    unseen, right = renders(PROBE_SET + UNSEEN, 200, 200)

    def read(pictures):
        return torch.from_numpy(probe.predict(features(pictures)))

    return Reader(read, float(probe.score(features(unseen), right)))


def _alone(kind: str, number: int, data_set: int) -> book.Scene:
    """Page `number` of a data set of pages with one fox, or corgi: in all places, colours, styles and poses."""
    like = book.sample_scene(number, data_set, "all")
    pose = book.POSES[kind][number % len(book.POSES[kind])] if kind in book.POSES else None
    return book.Scene((book.Thing(kind, like.things[0].colour, pose),), like.place, like.seed, like.style)
