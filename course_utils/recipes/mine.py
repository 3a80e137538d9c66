"""A text-to-image model of one's own, from nothing, in half an hour: a planner and a painter, both in plain numbers.

    words -> plan (what covers each patch of the page, `data.plans`) -> page

Both are the same small transformer (`models.worded`) and neither needs an autoencoder or a text encoder that was
trained before. A plan is 20 times smaller than its page, and all its numbers are about what the prompt says: the
planner soon learns to follow prompts, which a network that learns from pages alone does last. The painter is told
what stands where, and learns how it looks. The two train apart from each other, so each can have a core of its own.
The plans come from the program that draws the pages; for photographs a segmenter would have to make them.
"""

import json
import random
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from course_utils.data import picture_book as book
from course_utils.data import plans
from course_utils.diffusion.flow import interpolate
from course_utils.files import new_files
from course_utils.machine.devices import autocast_dtype
from course_utils.models.dit import patchify
from course_utils.models.worded import LONGEST, NOTHING, PAD, UNKNOWN, WordedConfig, WordedTransformer
from course_utils.optimizers import Muon
from course_utils.timed_training import train_for
from course_utils.training import MovingAverage, Record, Samples

HALVES = ("planner", "painter")
PAGES = 40_000  # drawn in a minute; in half an hour each is seen two or three times
SPREAD = 0.5  # of the pixels of a page, in [-1, 1]
DROPPED = 0.1  # of the prompts, for guidance
SEVERAL = {"alike": 1.0, "different": 2.0}  # how often pages of several things are seen, against those of one


@dataclass(frozen=True)
class Pages:
    """Scenes, their pages, uint8 (count, 3, 64, 64), where things are, bool (count, 64, 64), and their plans."""

    scenes: list[book.Scene]
    pixels: torch.Tensor
    covered: torch.Tensor
    plans: torch.Tensor


def draw_pages(count: int, seed: int = 0) -> Pages:
    """The first pages of the data set `seed`, taken as often as they count (`weight`), and their plans."""
    scenes: list[book.Scene] = []
    dice, number = random.Random(seed), 0
    pixels = torch.empty(count, 3, 64, 64, dtype=torch.uint8)
    covered = torch.empty(count, 64, 64, dtype=torch.bool)
    drawn = torch.empty(count, plans.SIDE**2, plans.NUMBERS, dtype=torch.float16)
    while len(scenes) < count:
        scene = book.sample_scene(number, seed)
        number += 1
        if 6 * dice.random() < weight(scene):
            page, things = book.page_and_things(scene)
            pixels[len(scenes)] = torch.from_numpy(page).permute(2, 0, 1)
            covered[len(scenes)] = torch.from_numpy(things > 0)
            drawn[len(scenes)] = plans.plan_of(scene, things)
            scenes.append(scene)
    return Pages(scenes, pixels, covered, drawn)


def weight(scene: book.Scene) -> int:
    """How much a page counts, 1 ... 6: the rarer styles three times, several things twice as much."""
    return (1 if scene.style == "picture book" else 3) * min(2, len(scene.things))


def vocabulary() -> list[str]:
    """The words of the captions of the first 3,000 training scenes, behind three that stand for no word."""
    texts = (book.caption(book.sample_scene(n), k).text for n in range(3000) for k in range(4))
    return ["<pad>", "<nothing>", "<unknown>", *sorted({word for text in texts for word in split(text)})]


def split(text: str) -> list[str]:
    """The words of a text, commas among them."""
    return text.lower().replace(",", " , ").split()


def as_numbers(texts: list[str], words: list[str]) -> torch.Tensor:
    """The words of the texts as numbers, int64 (batch, longest), behind the last word of each PAD."""
    number = {word: n for n, word in enumerate(words)}
    rows = [[number.get(word, UNKNOWN) for word in split(text)][:LONGEST] or [NOTHING] for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


class Told:
    """told(samples) -> numbers of pages, (batch,), their captions, of which some are dropped, as words and as texts."""

    def __init__(self, pages: Pages, words: list[str]):
        self.pages, self.words = pages, words
        often = [1.0 if len(s.things) == 1 else SEVERAL["different" if s.relation else "alike"] for s in pages.scenes]
        self.up_to = torch.tensor(often, dtype=torch.float64).cumsum(0)

    def __call__(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        index = torch.searchsorted(self.up_to, samples.uniforms().double() * self.up_to[-1], right=True)
        which, drop = samples.integers(64, stream=1).tolist(), samples.uniforms(stream=2) < DROPPED
        texts = [
            "" if dropped else book.caption(self.pages.scenes[page], k).text
            for page, k, dropped in zip(index.tolist(), which, drop, strict=True)
        ]
        return index, as_numbers(texts, self.words), texts


def planner_loss(pages: Pages, words: list[str], scale: torch.Tensor) -> Callable:
    """L = |x0 - x0_hat|^2 / max(t, 0.05)^2: that of the velocity, for plans. scale: their deviation, (NUMBERS,)."""
    told = Told(pages, words)

    def loss(model, samples):
        index, prompts, _ = told(samples)
        x0 = pages.plans[index].float() / scale
        t = torch.sigmoid(0.4 + samples.normals(stream=3))
        eps = samples.normals(*x0.shape[1:], stream=4)
        x0_hat = model(interpolate(x0, eps, t), t, prompts)
        return ((x0_hat - x0).square().mean((1, 2)) / t.clamp(min=0.05).square()).mean()

    return loss


def painter_loss(pages: Pages, words: list[str], scale: torch.Tensor) -> Callable:
    """L = w |x0 - x0_hat|^2 / max(t, 0.2)^2, w = 3 on things, 1 elsewhere; the plan, slightly noisy, is given.

    The painter will get plans that are not quite right. Without a prompt there is no plan either.
    """
    told = Told(pages, words)

    def loss(model, samples):
        index, prompts, texts = told(samples)
        x0 = patchify((pages.pixels[index].float() / 127.5 - 1) / SPREAD, plans.PATCH)  # (batch, 64, 192)
        w = patchify(1 + 2 * pages.covered[index].float()[:, None].expand(-1, 3, -1, -1), plans.PATCH)
        plan = pages.plans[index].float() / scale
        noise = 0.3 * samples.uniforms(1, 1, stream=5).square()
        plan = (1 - noise) * plan + noise * samples.normals(*plan.shape[1:], stream=6)
        plan = plan * torch.tensor([float(text != "") for text in texts])[:, None, None]
        t = torch.sigmoid(0.8 + samples.normals(stream=3))
        eps = samples.normals(*x0.shape[1:], stream=4)
        x0_hat = model(interpolate(x0, eps, t), t, prompts, plan)
        error = (w * (x0_hat - x0).square()).mean((1, 2)) / w.mean((1, 2))
        return (error / t.clamp(min=0.2).square()).mean()

    return loss


def build(half: str, words: list[str]) -> WordedTransformer:
    """The untrained network of one of HALVES."""
    if half not in HALVES:
        raise ValueError(f"expected one of {', '.join(HALVES)}, got {half!r}")
    if half == "planner":
        return WordedTransformer(WordedConfig(len(words), plans.NUMBERS, mixes=True))
    return WordedTransformer(WordedConfig(len(words), 3 * plans.PATCH**2, given=plans.NUMBERS, width=256))


def train_half(
    half: str,
    folder: Path,
    minutes: float,
    clock: Callable[[], float] = time.perf_counter,
    pages: int = PAGES,
    seed: int = 0,
    export_every: float = 180.0,
) -> Generator[Record, None, None]:
    """Train the planner or the painter for so many minutes, drawing the pages among them, and export it.

    It is exported to `folder/HALF/` every `export_every` seconds too, so that the model can be tried while it trains;
    there lies its checkpoint as well, from which the same call goes on.
    """
    start = clock()
    words, drawn = vocabulary(), draw_pages(pages)
    scale = drawn.plans[:4000].float().std((0, 1)).clamp(min=0.05)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(half, words)
    inside = {id(p) for p in model.matrices()}
    optimizer = Muon(model.matrices(), [p for p in model.parameters() if id(p) not in inside])
    loss = {"planner": planner_loss, "painter": painter_loss}[half](drawn, words, scale)
    average, home, exported = MovingAverage(model, 0.996), folder / half, 0.0
    run = train_for(
        60 * minutes,
        model,
        loss,
        optimizer,
        batch=16,
        learning_rate=2e-3,
        average=average,
        folder=home,
        spent=clock() - start,
        clock=clock,
        precision=autocast_dtype("cpu"),
        seed=seed,
    )
    for record in run:
        if record.seconds - exported > export_every:
            exported = record.seconds
            export(average.model, model.config, words, scale, home)
        yield record
    export(average.model, model.config, words, scale, home)


def export(model: nn.Module, config: WordedConfig, words: list[str], scale: torch.Tensor, home: Path) -> None:
    """Write a half into its folder: `model.safetensors` in float16, and `config.json` with its words."""
    with new_files(home) as part:
        tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
        save_file({**tensors, "scale_of_plans": scale}, part / "model.safetensors")
        (part / "config.json").write_text(json.dumps({**asdict(config), "vocabulary": words}))


def load_half_of(folder: Path, half: str) -> tuple[WordedTransformer, list[str], torch.Tensor]:
    """What `export` wrote: the network in evaluation mode, its words and the scale of plans."""
    facts = json.loads((folder / half / "config.json").read_text())
    words = facts.pop("vocabulary")
    tensors = {name: value.float() for name, value in load_file(folder / half / "model.safetensors").items()}
    scale = tensors.pop("scale_of_plans")
    model = WordedTransformer(WordedConfig(**facts))
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False), words, scale
