"""A text-to-image model of one's own, from nothing, in half an hour: a planner and a painter, both in plain numbers.

    words -> plan: which things stand where (`data.picture_book.plans`) -> map of the page -> page

Both are the same small transformer (`models.worded`), and neither needs an autoencoder or a text encoder that was
trained before. A plan is a few dozen numbers, all of them about what the prompt says, so that the planner learns to
follow prompts in minutes; a network that learns from pages alone does that last. The painter is told which thing each
patch shows and what part of it, and learns how it looks. The plans come from the program that draws the pages, and
tell far more than captions do; for photographs a detector would have to make them.
"""

import contextlib
import copy
import random
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from course_utils.data import picture_book as book
from course_utils.data.picture_book import plans
from course_utils.diffusion.flow import interpolate
from course_utils.files import new_files
from course_utils.machine.devices import autocast_dtype
from course_utils.models.dit import patchify
from course_utils.models.worded import WordedTransformer, as_numbers, split
from course_utils.optimizers import Muon
from course_utils.pipelines.mine import SPREAD
from course_utils.timed_training import train_for
from course_utils.training import MovingAverage, Record, Samples


@dataclass(frozen=True)
class Half:
    """Planner or painter: its share of the time, its batch, the sizes of its network."""

    share: float
    batch: int
    sizes: dict


HALVES = {
    "planner": Half(0.15, 64, dict(numbers=plans.NUMBERS, tokens=plans.ROWS, mixes=True)),
    "painter": Half(0.85, 16, dict(numbers=3 * plans.PATCH**2, given=plans.TOLD, finish=24, readers=0)),
}
SCENES = 60_000  # whose plans the planner learns
PAGES = 20_000  # of them are drawn, in less than a minute; in half an hour on two cores each is seen five times
DROPPED = 0.1  # of the prompts, for guidance
OWN = {*HALVES, "training", "model_index.json", "sheet.png", "frozen.png", ".DS_Store"}  # what may lie in the folder


@dataclass(frozen=True)
class Pages:
    """Pages, uint8 (count, 3, 64, 64), where things are, bool (count, 64, 64), and their maps (`plans.map_of`)."""

    pixels: torch.Tensor
    covered: torch.Tensor
    maps: torch.Tensor


def choose_scenes(count: int, seed: int = 0) -> list[book.Scene]:
    """The first scenes of the data set `seed`, taken as often as they count (`weight`)."""
    scenes: list[book.Scene] = []
    dice, number = random.Random(seed), 0
    while len(scenes) < count:
        scene = book.sample_scene(number, seed)
        number += 1
        if 6 * dice.random() < weight(scene):
            scenes.append(scene)
    return scenes


def weight(scene: book.Scene) -> int:
    """How much a page counts, 1 ... 6: the rarer styles three times, several things twice as much."""
    return (1 if scene.style == "picture book" else 3) * min(2, len(scene.things))


def draw_pages(scenes: Sequence[book.Scene]) -> Pages:
    """Draw the scenes, some 500 to 900 a second."""
    count = len(scenes)
    pixels = torch.empty(count, 3, 64, 64, dtype=torch.uint8)
    covered = torch.empty(count, 64, 64, dtype=torch.bool)
    maps = torch.empty(count, plans.SIDE**2, plans.TOLD, dtype=torch.float16)
    for number, scene in enumerate(scenes):
        page, things = book.page_and_things(scene)
        pixels[number] = torch.from_numpy(page).permute(2, 0, 1)
        covered[number] = torch.from_numpy(things > 0)
        maps[number] = plans.map_of(plans.plan_of(scene))
    return Pages(pixels, covered, maps)


def vocabulary() -> list[str]:
    """The words of the captions of the first 3,000 training scenes, behind three that stand for no word."""
    texts = (book.caption(book.sample_scene(n), k).text for n in range(3000) for k in range(4))
    return ["<pad>", "<nothing>", "<unknown>", *sorted({word for text in texts for word in split(text)})]


class Told:
    """told(samples) -> numbers of scenes, (batch,), their captions as words, and which of these are left out, bool.

    Scenes of two different things are taken twice as often as others.
    """

    def __init__(self, scenes: Sequence[book.Scene], words: Sequence[str]):
        self.scenes, self.words = scenes, words
        often = torch.tensor([2.0 if scene.relation else 1.0 for scene in scenes], dtype=torch.float64)
        self.up_to = often.cumsum(0)

    def __call__(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        index = torch.searchsorted(self.up_to, samples.uniforms().double() * self.up_to[-1], right=True)
        which, dropped = samples.integers(64, stream=1).tolist(), samples.uniforms(stream=2) < DROPPED
        texts = [
            "" if drop else book.caption(self.scenes[number], k).text
            for number, k, drop in zip(index.tolist(), which, dropped, strict=True)
        ]
        return index, as_numbers(texts, self.words), dropped


def planner_loss(scenes: Sequence[book.Scene], planned: torch.Tensor, words: list[str]) -> Callable:
    """L = |x0 - x0_hat|^2 / max(t, 0.05)^2, that of the velocity, for plans (count, ROWS, NUMBERS)."""
    told = Told(scenes, words)

    def loss(model, samples):
        index, prompts, _ = told(samples)
        x0 = planned[index] / model.scale
        t = torch.sigmoid(0.4 + samples.normals(stream=3))
        eps = samples.normals(*x0.shape[1:], stream=4)
        x0_hat = model(interpolate(x0, eps, t), t, prompts)
        return ((x0_hat - x0).square().mean((1, 2)) / t.clamp(min=0.05).square()).mean()

    return loss


def painter_loss(scenes: Sequence[book.Scene], pages: Pages, words: list[str]) -> Callable:
    """L = w |x0 - x0_hat|^2 / max(t, 0.2)^2, w = 3 on things, 1 elsewhere; the map is given, empty without a prompt."""
    told = Told(scenes, words)

    def loss(model, samples):
        index, prompts, dropped = told(samples)
        x0 = patchify((pages.pixels[index].float() / 127.5 - 1) / SPREAD, plans.PATCH)  # (batch, 64, 192)
        w = patchify(1 + 2 * pages.covered[index].float()[:, None].expand(-1, 3, -1, -1), plans.PATCH)
        given = pages.maps[index].float() / model.scale * ~dropped[:, None, None]
        t = torch.sigmoid(0.8 + samples.normals(stream=3))
        eps = samples.normals(*x0.shape[1:], stream=4)
        x0_hat = model(interpolate(x0, eps, t), t, prompts, given)
        error = (w * (x0_hat - x0).square()).mean((1, 2)) / w.mean((1, 2))
        return (error / t.clamp(min=0.2).square()).mean()

    return loss


@dataclass(frozen=True)
class Progress:
    """How far a run is: which half is trained, its last update, the minutes that both have taken.

    exported: whether a new painter has just been written, with which the model can be tried.
    """

    half: str
    record: Record
    minutes: float
    exported: bool


def train_mine(
    folder: Path,
    minutes: float,
    *,
    scenes: int = SCENES,
    pages: int = PAGES,
    seed: int = 0,
    restart: bool = False,
    clock: Callable[[], float] = time.perf_counter,
    export_every: float = 300.0,
) -> Generator[Progress, None, None]:
    """Train planner and painter, one after the other, for so many minutes in all; drawing the pages counts too.

    They are exported to `folder/planner` and `folder/painter` at their end, the painter also every `export_every`
    seconds, so that the model can be tried while it trains. A run found in `folder/training` is gone on with, also
    after Ctrl-C or kill -9, unless `restart`; closing the generator saves it. clock: time.process_time counts what
    this process computes, not the time that passes. Raises ValueError unless the minutes are more than 0, if the folder
    holds something else, and as `timed_training.train_for` does.
    """
    check(folder, minutes)
    if restart:
        shutil.rmtree(folder / "training", ignore_errors=True)
    start = clock()
    words, chosen = vocabulary(), choose_scenes(max(scenes, pages))
    planned = torch.stack([plans.plan_of(scene) for scene in chosen])
    drawn = draw_pages(chosen[:pages])
    spent = {"planner": 0.0, "painter": clock() - start}
    losses = {"planner": planner_loss(chosen, planned, words), "painter": painter_loss(chosen[:pages], drawn, words)}
    shown, before = {"planner": planned, "painter": drawn.maps[:4000].float()}, 0.0
    for half in HALVES:
        model = build(half, words, shown[half].std((0, 1)), seed)
        average, seconds, exported = MovingAverage(model, 0.996), 60 * minutes * HALVES[half].share, 0.0
        run = train_for(
            seconds,
            model,
            losses[half],
            Muon(*model.matrices_and_others(), iterations=3),
            batch=HALVES[half].batch,
            learning_rate=2e-3,
            average=average,
            folder=folder / "training" / half,
            spent=spent[half],
            clock=clock,
            precision=autocast_dtype("cpu"),
            seed=seed,
        )
        with contextlib.closing(run):
            for record in run:
                due = half == "painter" and record.seconds - exported > export_every
                if due:
                    exported = record.seconds
                    export(average.model, folder / half)
                yield Progress(half, record, before + record.seconds / 60, due)
        export(average.model, folder / half)
        before += seconds / 60


def build(half: str, words: Sequence[str], scale: torch.Tensor, seed: int = 0) -> WordedTransformer:
    """The untrained network of one of HALVES, with its words and the deviations of the numbers that it sees."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WordedTransformer(list(words), **HALVES[half].sizes)
    model.scale.copy_(scale.clamp(min=0.05))
    return model


def check(folder: Path, minutes: float) -> None:
    """Raise ValueError unless the minutes are more than 0 and the folder, if there is one, a model of one's own."""
    if not 0 < minutes < 1e6:
        raise ValueError(f"expected a number of minutes above 0, got {minutes:g}; 30 are usual")
    others = sorted({path.name for path in folder.glob("*")} - OWN) if folder.is_dir() else []
    if others:
        raise ValueError(
            f"expected a new folder, or one with a model of your own, got {folder}, which holds {others[0]} too; "
            "name another one with --folder"
        )


def export(model: torch.nn.Module, folder: Path) -> None:
    """Write a half, in float16, as `WordedTransformer.from_pretrained` reads it."""
    with new_files(folder) as part:
        cast(WordedTransformer, copy.deepcopy(model).half()).save_pretrained(part)
