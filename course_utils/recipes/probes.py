"""Small readers of pictures, trained on renders in a minute: which pixels belong to a thing; whether it is a fox.

How they do on renders that they have not met is returned with them.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from course_utils.data import picture_book as book
from course_utils.models.unet_by_hand import UNet, UNetConfig
from course_utils.recipes.judge import load_judge

SEGMENTER_SET, PROBE_SET = 7, 8  # data sets of their own: the model is trained on 0, measured on 1


def things_masks(scenes) -> torch.Tensor:
    """Return which pixels belong to a thing, (scenes, 64, 64), bool: exact, since the pages are drawn."""
    return torch.stack([book.maps(scene).things > 0 for scene in scenes])


@dataclass(frozen=True)
class Reader:
    """Something that reads pictures (n, 3, 64, 64) in [-1, 1], and how well it did on renders that it had not met."""

    read: Callable[[torch.Tensor], torch.Tensor]
    on_renders: float


@functools.cache
def segmenter(updates: int = 400, seed: int = 0) -> Reader:
    """A small U-Net that reads which pixels belong to a thing: pictures -> (n, 64, 64), bool.

    Trained on `updates` batches of 16 pages; on_renders: the mean IoU on 200 pages of another data set.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UNet(UNetConfig(channels=3, attention=(False, False, False)))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    scenes = [book.sample_scene(n, SEGMENTER_SET, "all") for n in range(8 * updates)]
    pages, masks = (book.pictures(scenes) * 127.5 + 127.5).round().to(torch.uint8), things_masks(scenes)
    generator = torch.Generator().manual_seed(seed)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, updates)

    def logits(pictures):
        return network(pictures, torch.zeros(len(pictures)))[:, 0]

    for _ in range(updates):
        batch = torch.randint(len(pages), (16,), generator=generator)
        loss = F.binary_cross_entropy_with_logits(logits(pages[batch] / 127.5 - 1), masks[batch].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    @torch.no_grad()
    def read(pictures):
        return torch.cat([logits(part.float().cpu()) > 0 for part in pictures.split(32)])

    unseen = [book.sample_scene(n, SEGMENTER_SET + 100, "all") for n in range(200)]
    return Reader(read, iou(read(book.pictures(unseen)), things_masks(unseen)).mean().item())


@functools.cache
def fox_or_corgi(count: int = 400, seed: int = 0) -> Reader:
    """A linear probe on the judge's features that tells a fox from a corgi: pictures -> (n,), True for a fox.

    Trained on `count` renders of each, in all places, colours, styles and poses. on_renders: the share of 400 fresh
    renders that it reads rightly. The judge itself has never been shown a fox.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    judge = load_judge()

    @torch.no_grad()
    def features(pictures):
        return torch.cat([judge.features(part.float().cpu()) for part in pictures.split(64)])

    def renders(data_set, count):
        scenes = [_alone(kind, n, data_set) for kind in ("fox", "corgi") for n in range(count)]
        return features(book.pictures(scenes)).numpy(), [scene.things[0].kind == "fox" for scene in scenes]

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=seed))
    probe.fit(*renders(PROBE_SET, count))

    def read(pictures):
        return torch.from_numpy(probe.predict(features(pictures).numpy()))

    return Reader(read, float(probe.score(*renders(PROBE_SET + 100, 200))))


def _alone(kind: str, number: int, data_set: int) -> book.Scene:
    """Page `number` of a data set of pages with one fox, or corgi."""
    like = book.sample_scene(number, data_set, "all")
    pose = book.POSES[kind][number % len(book.POSES[kind])] if kind in book.POSES else None
    return book.Scene((book.Thing(kind, like.things[0].colour, pose),), like.place, like.seed, like.style)
