"""Try-outs for a speedrun: a text-to-image model from nothing, in pixels, by a plain transformer on one thread.

Three jobs share one network class:
  pixels: words -> page
  layout: words -> a coarse map of what covers each patch (kind, colour, pose, way to its thing's centre)
  render: words + that map -> page
"""

import argparse
import contextlib
import json
import math
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from benchmarks.prompts import TASKS, load
from course_utils.data import picture_book as book
from course_utils.diffusion.samplers import trailing_times  # noqa: F401
from course_utils.metrics.pictures import faults
from course_utils.models.blocks import time_embedding
from course_utils.models.dit import patchify, sincos_positions, unpatchify
from course_utils.plotting import picture_grid
from course_utils.recipes import load_judge

KINDS, COLOURS, POSES = list(book.SUBJECTS), [*book.COLOURS, "natural"], list(book.ALL_POSES)
SUB = 4  # sub-cells of a patch
SEM = len(KINDS) + len(COLOURS) + len(POSES) + 2 + SUB
PATCH, SIDE = 8, 8
DATA_STD = 0.5


# --- pages and their maps ----------------------------------------------------------------------------------


def page_and_things(scene):
    """The page, uint8 (64, 64, 3), and which thing is seen where, uint8 (64, 64)."""
    page, rng = book._empty_page(scene, 64)
    things = Image.new("L", page.size)
    style = book.STYLES[scene.style]
    for number, thing, spot in book._far_to_near(scene):
        pen = book.Pen(page, *book._frame(page, spot), style.line)
        thick = book._thickness(page, spot, style)
        if spot.cloud:
            book.places.draw_cloud(pen, thick)
        below = page.getpixel((int(pen.x), int(pen.y)))
        pen.ellipse(0, 0.01, 0.42, 0.055, book.mix(below, (40, 36, 60), 0.32), line=False)
        pen.ink(0)
        before = rng.getstate()
        book._draw_thing(pen, thing, rng, thick)
        rng.setstate(before)
        book._draw_thing(book.LinePen(things, *book._frame(page, spot), line=number, fill=number), thing, rng, thick)
    pixels = style.finish(page, random.Random(f"paper/{scene.seed}"), 64).clip(0, 255).astype(np.uint8)
    return pixels, np.asarray(things)[2::4, 2::4]


def semantics(scene, things):
    """What covers each patch, float32 (64, SEM)."""
    out = np.zeros((SIDE, SIDE, SEM), np.float32)
    at = np.arange(SIDE) + 0.5
    for number, (thing, spot) in enumerate(zip(scene.things, book.layout(scene), strict=True), 1):
        seen = (things == number).reshape(SIDE, PATCH, SIDE, PATCH).mean((1, 3))
        out[..., KINDS.index(thing.kind)] += seen
        out[..., len(KINDS) + COLOURS.index(book.seen_colour(thing) or "natural")] += seen
        if thing.pose:
            out[..., len(KINDS) + len(COLOURS) + POSES.index(thing.pose)] += seen
        x, y = spot.centre
        way = len(KINDS) + len(COLOURS) + len(POSES)
        mine = np.minimum(seen * 3, 1)
        out[..., way] += mine * (x * SIDE - at[None, :]).clip(-3, 3)
        out[..., way + 1] += mine * (y * SIDE - at[:, None]).clip(-3, 3)
    half = (things > 0).reshape(SIDE, 2, 4, SIDE, 2, 4).mean((2, 5))  # (8, 2, 8, 2)
    out[..., -SUB:] = half.transpose(0, 2, 1, 3).reshape(SIDE, SIDE, SUB)
    return out.reshape(SIDE * SIDE, SEM)


def fold(sem, size):
    """(batch, 64, numbers) -> (batch, 64 / size^2, numbers size^2)."""
    x = sem.reshape(len(sem), SIDE // size, size, SIDE // size, size, -1)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(len(sem), (SIDE // size) ** 2, -1)


def unfold(x, size):
    """Undo `fold`."""
    x = x.reshape(len(x), SIDE // size, SIDE // size, size, size, -1)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(len(x), SIDE * SIDE, -1)


def weight(scene):
    return (1 if scene.style == "picture book" else 3) * min(2, len(scene.things))


def make_pool(count, first=0, seed=0, log=print):
    """Scenes drawn as often as they count, their pages and maps."""
    dice, scenes, number = random.Random(first), [], first
    start = time.process_time()
    pixels = torch.empty(count, 3, 64, 64, dtype=torch.uint8)
    covered = torch.empty(count, 64, 64, dtype=torch.uint8)
    sem = torch.empty(count, SIDE * SIDE, SEM, dtype=torch.float16)
    while len(scenes) < count:
        scene = book.sample_scene(number, seed)
        number += 1
        if dice.random() * 6 >= weight(scene):
            continue
        page, things = page_and_things(scene)
        n = len(scenes)
        pixels[n] = torch.from_numpy(page).permute(2, 0, 1)
        covered[n] = torch.from_numpy(things.copy())
        sem[n] = torch.from_numpy(semantics(scene, things))
        scenes.append(scene)
    log(f"{count} pages drawn in {time.process_time() - start:.0f} CPU-s")
    return Pool(scenes, pixels, covered, sem)


@dataclass
class Pool:
    scenes: list
    pixels: torch.Tensor
    covered: torch.Tensor
    sem: torch.Tensor


# --- words -------------------------------------------------------------------------------------------------


def words_of(text):
    return text.lower().replace(",", " , ").split()


def vocabulary():
    seen = Counter(
        w for n in range(3000) for k in range(4) for w in words_of(book.caption(book.sample_scene(n), k).text)
    )
    return ["<pad>", "<none>", "<unknown>", *sorted(seen)]


def tokenize(texts, numbers):
    rows = [[numbers.get(w, 2) for w in words_of(text)][:32] or [1] for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


# --- the network -------------------------------------------------------------------------------------------


@dataclass
class Config:
    job: str = "pixels"
    width: int = 256
    depth: int = 8
    heads: int = 4
    text_depth: int = 2
    words: int = 130
    hidden: int = 4
    # training
    minutes: float = 5.0
    batch: int = 32
    rate: float = 2e-3
    optimizer: str = "muon"
    decay: float = 0.0
    warmup: int = 100
    clip: float = 1.0
    dropped: float = 0.1
    logit_mean: float = 0.4
    logit_std: float = 1.0
    subject_weight: float = 3.0
    aux: float = 0.0  # weight of the labels on a middle layer
    neighbours: int = 1  # 1: words begin with their neighbours, and positions of order one
    several: str = "2,2"  # how much pages of several things alike, of two different ones count; of one: 1
    fold: int = 1  # the layout's patches, so many by so many in one token
    skip: int = 1  # 1: x0_hat = skip(t) x_t + out(t) F, as in EDM; 0: x0_hat = F
    conv: int = 0  # channels of two last convolutions over the whole page, which see the noisy page too
    floor: float = 0.2  # errors of x0 count 1 / max(t, floor)^2
    sem_noise: float = 0.3  # most noise on the map that the renderer gets
    pool: int = 20000
    seed: int = 0


class Block(nn.Module):
    def __init__(self, width, heads, hidden, steered=True):
        super().__init__()
        self.heads = heads
        self.qkv, self.back = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden * width), nn.Linear(hidden * width, width)
        self.ada = nn.Linear(width, 6 * width) if steered else None
        if steered:
            nn.init.zeros_(self.ada.weight)
            nn.init.zeros_(self.ada.bias)

    def forward(self, x, c, mask):
        width = x.shape[-1]
        if self.ada is None:
            x = x + self.attend(F.layer_norm(x, (width,)), mask)
            return x + self.feed(F.layer_norm(x, (width,)))
        a, b, g, d, e, h = self.ada(c)[:, None].chunk(6, dim=-1)
        x = torch.addcmul(x, g, self.attend(torch.addcmul(a, F.layer_norm(x, (width,)), 1 + b), mask))
        return torch.addcmul(x, h, self.feed(torch.addcmul(d, F.layer_norm(x, (width,)), 1 + e)))

    def attend(self, x, mask):
        batch, n, width = x.shape
        d = width // self.heads
        q, k, v = self.qkv(x).reshape(batch, n, 3, self.heads, d).permute(2, 0, 3, 1, 4)
        q, k = F.layer_norm(q, (d,)), F.layer_norm(k, (d,))
        weights = (q @ k.transpose(-1, -2)) * d**-0.5
        weights = (weights + mask).softmax(-1)
        return self.back((weights @ v).transpose(1, 2).reshape(batch, n, width))

    def feed(self, x):
        h = F.relu(self.up(x))
        return self.down(h * h)


class Net(nn.Module):
    """net(x, t, tokens, sem) -> x0_hat like x, (batch, 64, numbers), and what a middle layer knows."""

    def __init__(self, config):
        super().__init__()
        self.config, width = config, config.width
        self.numbers = SEM * config.fold**2 if config.job == "layout" else 3 * PATCH**2
        self.embed = nn.Linear(self.numbers, width)
        self.of_sem = nn.Linear(SEM, width) if config.job == "render" else None
        self.positions = nn.Parameter(sincos_positions(SIDE // config.fold, width))
        self.word = nn.Embedding(config.words, width)
        self.word_positions = nn.Parameter(0.02 * torch.randn(32, width))
        self.near = None
        if config.neighbours:
            self.word_positions = nn.Parameter(0.5 * time_embedding(torch.arange(32), width))
            self.near = nn.Linear(2 * width, width)
        nn.init.normal_(self.word.weight, std=0.5)
        self.readers = nn.ModuleList(Block(width, config.heads, 4, False) for _ in range(config.text_depth))
        self.of_time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.of_prompt = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, config.hidden) for _ in range(config.depth))
        self.ada = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, self.numbers)
        self.label = nn.Linear(width, SEM) if config.aux else None
        self.fine = self.conv_1 = self.conv_2 = None
        if config.conv and config.job != "layout":
            self.fine = nn.Linear(width, config.conv * PATCH**2)
            self.conv_1 = nn.Conv2d(config.conv + 3, 2 * config.conv, 3, padding=1)
            self.conv_2 = nn.Conv2d(2 * config.conv, 3, 3, padding=1)
            nn.init.zeros_(self.conv_2.weight)
            nn.init.zeros_(self.conv_2.bias)
        for layer in (self.ada, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x, t, tokens, sem=None):
        width, x_t = self.config.width, x
        pad = tokens == 0
        low = torch.finfo(torch.bfloat16).min / 4
        word_mask = (pad[:, None, None] * low).bfloat16()
        words = self.word(tokens)
        if self.near is not None:
            sides = torch.cat([F.pad(words, (0, 0, 1, 0))[:, :-1], F.pad(words, (0, 0, 0, 1))[:, 1:]], -1)
            words = words + self.near(sides)
        words = words + self.word_positions[: tokens.shape[1]]
        for block in self.readers:
            words = block(words, None, word_mask)
        words = F.layer_norm(words, (width,))
        keep = (~pad)[..., None].float()
        c = self.of_time(time_embedding(1000 * t, width)) + self.of_prompt((words * keep).sum(1) / keep.sum(1))
        c = F.silu(c).bfloat16()
        x = self.embed(x) + self.positions
        if self.of_sem is not None:
            x = x + self.of_sem(sem)
        patches = x.shape[1]
        x = torch.cat([x, words], 1).bfloat16()
        mask = torch.cat([word_mask.new_zeros(len(x), 1, 1, patches), word_mask], -1)
        middle = None
        for n, block in enumerate(self.blocks):
            x = block(x, c, mask)
            if n == self.config.depth // 2 and self.label is not None:
                middle = self.label(x[:, :patches])
        shift, scale = self.ada(c)[:, None].chunk(2, dim=-1)
        x = torch.addcmul(shift, F.layer_norm(x[:, :patches], (width,)), 1 + scale)
        x0_hat = self.out(x).float()
        if self.fine is not None:
            z = torch.cat([unpatchify(self.fine(x), PATCH), unpatchify(x_t, PATCH).to(x.dtype)], 1)
            z = self.conv_2(F.relu(self.conv_1(z.contiguous(memory_format=torch.channels_last))))
            x0_hat = x0_hat + patchify(z.float(), PATCH)
        if self.config.skip:
            t = t[:, None, None]
            power = (1 - t) ** 2 + t**2
            x0_hat = (1 - t) / power * x_t + t / power.sqrt() * x0_hat
        return x0_hat, middle


# --- training ----------------------------------------------------------------------------------------------


class Data:
    """Batches for a job: x0, weights, tokens, sem."""

    def __init__(self, config, pool, numbers, scale, seed=0):
        self.config, self.pool, self.numbers, self.scale = config, pool, numbers, scale
        self.dice, self.random = torch.Generator().manual_seed(seed), random.Random(seed)
        alike, different = map(float, config.several.split(","))
        self.weights = torch.tensor(
            [1.0 if len(s.things) < 2 else (different if s.relation else alike) / 2 for s in pool.scenes]
        )
        self.order, self.at = self.shuffled(), 0

    def shuffled(self):
        return torch.multinomial(self.weights, len(self.weights), True, generator=self.dice)

    def indices(self, batch):
        if self.at + batch > len(self.order):
            self.order, self.at = self.shuffled(), 0
        self.at += batch
        return self.order[self.at - batch : self.at]

    def __call__(self, batch):
        config, index = self.config, self.indices(batch)
        texts = [
            "" if self.random.random() < config.dropped
            else book.caption(self.pool.scenes[i], self.random.randrange(64)).text
            for i in index.tolist()
        ]  # fmt: skip
        tokens = tokenize(texts, self.numbers)
        sem = self.pool.sem[index].float() / self.scale
        if config.job == "layout":
            return fold(sem, config.fold), None, tokens, None, None
        x0 = patchify((self.pool.pixels[index].float() / 127.5 - 1) / DATA_STD, PATCH)
        seen = (self.pool.covered[index] > 0).float()[:, None].expand(-1, 3, -1, -1)
        weights = patchify(1 + (config.subject_weight - 1) * seen, PATCH)
        given = None
        if config.job == "render":
            level = config.sem_noise * torch.rand(batch, 1, 1, generator=self.dice) ** 2
            given = (1 - level) * sem + level * torch.randn(sem.shape, generator=self.dice)
            given = given * torch.tensor([float(t != "") for t in texts])[:, None, None]
        return x0, weights / weights.mean(), tokens, given, sem

    def noise(self, x0):
        config = self.config
        t = torch.sigmoid(config.logit_mean + config.logit_std * torch.randn(len(x0), generator=self.dice))
        return t, torch.randn(x0.shape, generator=self.dice)


def loss_of(net, x0, weights, tokens, given, sem, t, eps):
    share = t[:, None, None]
    x_t = (1 - share) * x0 + share * eps
    with torch.autocast("cpu", torch.bfloat16):
        x0_hat, middle = net(x_t, t, tokens, given)
    error = ((x0_hat - x0) / share.clamp(min=net.config.floor)).square()
    loss = ((error if weights is None else error * weights).mean((1, 2))).mean()
    if middle is not None:
        loss = loss + net.config.aux * F.mse_loss(middle.float(), sem)
    return loss, error.detach().mean((1, 2))


def optimizers_of(net, config):
    if config.optimizer == "adamw":
        return [torch.optim.AdamW(net.parameters(), lr=config.rate, betas=(0.9, 0.99), weight_decay=config.decay, fused=True)]
    inner = [p for m in (net.blocks, net.readers) for n, p in m.named_parameters() if p.ndim == 2 and "ada" not in n]
    ids = {id(p) for p in inner}
    rest = [p for p in net.parameters() if id(p) not in ids]
    return [
        torch.optim.Muon(inner, lr=config.rate, weight_decay=config.decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=config.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
    ]


def train(config, pool, check, folder, log=print):
    torch.manual_seed(config.seed)
    vocab = vocabulary()
    numbers = {w: n for n, w in enumerate(vocab)}
    scale = scale_of(pool)
    config = replace(config, words=len(vocab))
    net = Net(config)
    log(f"{config.job}: {sum(p.numel() for p in net.parameters()) / 1e6:.1f} M parameters, {len(vocab)} words")
    average = {n: p.detach().clone() for n, p in net.named_parameters()}
    optimizers = optimizers_of(net, config)
    data = Data(config, pool, numbers, scale, config.seed)
    still = Data(replace(config, dropped=0.0), check, numbers, scale, 123)
    fixed = []
    for part in range(2):
        batch = still(64)
        t, eps = still.noise(batch[0])
        fixed.append((*batch, (torch.arange(64) + 0.5) / 64, eps))

    @torch.no_grad()
    def validate():
        kept = {n: p.detach().clone() for n, p in net.named_parameters()}
        for n, p in net.named_parameters():
            p.copy_(average[n])
        errors = torch.stack([loss_of(net, *batch)[1] for batch in fixed]).mean(0)
        for n, p in net.named_parameters():
            p.copy_(kept[n])
        return [round(e.mean().item(), 4) for e in (errors, *errors.chunk(4))]

    budget, used, step, last, losses = 60 * config.minutes, 0.0, 0, 0.0, []
    rows, saved = [], 0.0
    while used < budget:
        start = time.process_time()
        left = 1 - used / budget
        rate = config.rate * min((step + 1) / config.warmup, left / 0.75 if left < 0.75 else 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        batch = data(config.batch)
        t, eps = data.noise(batch[0])
        loss, _ = loss_of(net, *batch, t, eps)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 5 == 0:
            d = min(0.98, (1 + step / 5) / (10 + step / 5))
            torch._foreach_lerp_(list(average.values()), [p.detach() for p in net.parameters()], 1 - d)
        losses.append(loss.item())
        used += time.process_time() - start
        if used - last > 30 or used >= budget:
            last = used
            row = dict(cpu=round(used), updates=step, pages=step * config.batch, loss=round(float(np.mean(losses[-100:])), 4),
                       norm=round(norm.item(), 2), val=validate())
            rows.append(row)
            log(json.dumps(row), flush=True)
        if folder and (used - saved > 150 or used >= budget):
            saved = used
            save(folder, config.job, average, config, vocab, scale, rows)
            if config.job == "render":
                look(folder, config, scale, numbers, check)
    with torch.no_grad():
        for n, p in net.named_parameters():
            p.copy_(average[n])
    return net.eval()


def look(folder, config, scale, numbers, check):
    """A sheet of pages painted from true maps, above the true pages, and how many the judge finds right."""
    net, captions, pictures = load_net(folder, "render")[0], [book.caption(s, 3) for s in check.scenes[:48]], []
    pictures, _ = draw([c.text for c in captions], net, None, numbers, 0, 16, 1.5, given=check.sem[:48].float() / scale)
    wrong = faults(load_judge(), pictures, captions)
    print("true maps", sum(w is None for w in wrong) / 48, dict(Counter(w for w in wrong if w)), flush=True)
    picture_grid(torch.cat([pictures[:8], check.pixels[:8].float() / 127.5 - 1]), columns=8, scale=2).save(folder / "look.png")


def scale_of(pool):
    return pool.sem[:4000].float().std((0, 1)).clamp(min=0.05)


def save(folder, name, average, config, vocab, scale, rows):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({**average, "semantic_scale": scale}, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps({"config": asdict(config), "vocabulary": vocab, "rows": rows}))


def load_net(folder, name):
    facts = json.loads((folder / f"{name}.json").read_text())
    config = Config(**facts["config"])
    tensors = load_file(folder / f"{name}.safetensors")
    scale = tensors.pop("semantic_scale")
    net = Net(config)
    net.load_state_dict(tensors)
    return net.eval(), scale, {w: n for n, w in enumerate(facts["vocabulary"])}


# --- drawing -----------------------------------------------------------------------------------------------


def times_of(steps, shift):
    u = torch.linspace(1, 0, steps + 1)
    t = shift * u / (1 + (shift - 1) * u)
    t[0] = 0.999
    return t.tolist()


@torch.no_grad()
def sample(net, tokens, given, eps, steps, guidance, shift=2.0, clip=None):
    """DPM-Solver++ 2M on the straight line, from x0_hat guided."""
    null = torch.zeros_like(tokens)
    null[:, 0] = 1
    times, x, before, h_before = times_of(steps, shift), eps, None, None
    both = torch.cat([null, tokens])
    if given is not None:
        given = torch.cat([torch.zeros_like(given), given])
    for now, then in zip(times, times[1:], strict=False):
        t = torch.full((2 * len(x),), now)
        with torch.autocast("cpu", torch.bfloat16):
            none, cond = net(torch.cat([x, x]), t, both, given)[0].chunk(2)
        x0 = none + guidance * (cond - none)
        if clip:
            x0 = x0.clamp(-clip, clip)
        if then == 0:
            return x0
        h = math.log((1 - then) / then) - math.log((1 - now) / now)
        d = x0 if before is None else x0 + h / (2 * h_before) * (x0 - before)
        x = then / now * x - (1 - then) * math.expm1(-h) * d
        before, h_before = x0, h


def noise_for(first, count, numbers):
    return torch.stack([torch.randn(64, numbers, generator=torch.Generator().manual_seed(first + i)) for i in range(count)])


def layout_noise(layouter, first, count):
    return fold(noise_for(first, count, SEM), layouter.config.fold)


def draw(texts, painter, layouter, numbers, first=0, steps=24, guidance=2.5, layout_guidance=2.0, layout_steps=16, given=None):
    tokens = tokenize(texts, numbers)
    if layouter is not None:
        given = sample(layouter, tokens, None, layout_noise(layouter, 5000 + first, len(texts)), layout_steps, layout_guidance)
        given = unfold(given, layouter.config.fold)
    x0 = sample(painter, tokens, given, noise_for(first, len(texts), 3 * PATCH**2), steps, guidance, clip=1 / DATA_STD)
    return unpatchify(x0 * DATA_STD, PATCH).clamp(-1, 1), given


def measure(painter, layouter, numbers, count, **how):
    prompts, pictures = load()[:count], []
    start = time.process_time()
    for at in range(0, count, 40):
        pictures.append(draw([p.caption.text for p in prompts[at : at + 40]], painter, layouter, numbers, at, **how)[0])
    pictures = torch.cat(pictures)
    wrong = faults(load_judge(), pictures, [p.caption for p in prompts])
    tasks = {t: sum(w is None for w, p in zip(wrong, prompts) if p.task == t) / max(1, sum(p.task == t for p in prompts)) for t in TASKS}
    held = [w is None for w, p in zip(wrong, prompts) if p.held_out]
    table = {
        "n": count,
        "followed": sum(w is None for w in wrong) / count,
        "held out": round(sum(held) / len(held), 3),
        "tasks": {t: round(v, 2) for t, v in tasks.items()},
        "faults": dict(Counter(w for w in wrong if w).most_common()),
        "seconds a picture": round((time.process_time() - start) / count, 3),
        **{k: v for k, v in how.items() if k != "given"},
    }
    return table, pictures


def layout_facts(layouter, numbers, scale, count=200, guidance=2.0, steps=16):
    """Do the kinds, colours and number of things in sampled layouts fit the prompts?"""
    prompts = load()[:count]
    right, by = Counter(), Counter()
    for at in range(0, count, 40):
        part = prompts[at : at + 40]
        sem = sample(layouter, tokenize([p.caption.text for p in part], numbers), None,
                     layout_noise(layouter, 5000 + at, len(part)), steps, guidance)
        sem = unfold(sem, layouter.config.fold) * scale
        for p, s in zip(part, sem, strict=True):
            found, asked = read_layout(s), p.caption.things
            kinds = Counter(f[0] for f in found) == Counter(t.kind for t in asked)
            ok = kinds and all(
                any(f[0] == t.kind and f[1] == (book.seen_colour(t) or "natural") and t.pose in (None, f[2]) for f in found)
                for t in asked
            )
            right["set"] += {f[0] for f in found} == {t.kind for t in asked}
            right["set, number"] += kinds
            right["set, number, colour, pose"] += ok
            if ok and p.caption.relation:
                one, two = (next(f for f in found if f[0] == t.kind) for t in asked)
                x, y = one[3] - two[3], one[4] - two[4]
                ok = {"left of": -x, "right of": x, "above": -y, "below": y}[p.caption.relation] > 0.5
            right["all"] += ok
            by[p.task, ok] += 1
    tasks = {t: round(by[t, True] / max(1, by[t, True] + by[t, False]), 2) for t in TASKS}
    return {k: v / count for k, v in right.items()}, tasks


def read_layout(s):
    """The things in a map (64, SEM): kind, colour, pose, x, y, by the votes of its patches for a centre."""
    s, clusters = s.reshape(SIDE, SIDE, SEM).numpy(), []
    a, b = len(KINDS), len(KINDS) + len(COLOURS)
    for row in range(SIDE):
        for column in range(SIDE):
            v = s[row, column]
            kind, share = int(v[:a].argmax()), float(v[:a].max())
            if share < 0.35:
                continue
            x, y = column + 0.5 + v[b + 3], row + 0.5 + v[b + 4]
            for c in clusters:
                if math.hypot(c["x"] / c["w"] - x, c["y"] / c["w"] - y) < 1.1:
                    break
            else:
                c = {"x": 0, "y": 0, "w": 0, "sum": np.zeros(SEM)}
                clusters.append(c)
            c["x"], c["y"], c["w"], c["sum"] = c["x"] + share * x, c["y"] + share * y, c["w"] + share, c["sum"] + share * v
    return [
        (KINDS[c["sum"][:a].argmax()], COLOURS[c["sum"][a:b].argmax()], POSES[c["sum"][b : b + 3].argmax()], c["x"] / c["w"], c["y"] / c["w"])
        for c in clusters
        if c["w"] > 0.8
    ]  # fmt: skip


def sheet(folder, name, painter, layouter, numbers, how):
    texts = [
        "a cute corgi puppy sitting on the grass", "a red car in the city", "two purple cats in the snow",
        "a blue teapot left of a yellow duck on the beach", "a house in the forest, watercolour",
        "a green boat above a pink mushroom at night", "three white rabbits in a room, pixel art",
        "a tulip next to a ball in the desert, coloured pencil",
    ]  # fmt: skip
    pictures, given = draw(texts, painter, layouter, numbers, 777, **how)
    picture_grid(pictures, columns=4, scale=3).save(folder / f"{name}.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--layout", type=Path, default=None)
    for name, value in asdict(Config()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    options = vars(parser.parse_args())
    folder, count, layout = options.pop("folder"), options.pop("count"), options.pop("layout")
    config = Config(**options)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    pool, check = cached_pool(config.pool), make_pool(128, seed=7)
    net = train(config, pool, check, folder)
    _, scale, numbers = load_net(folder, config.job)
    if config.job == "layout":
        for guidance in (1.0, 2.0, 3.0):
            print("layout", guidance, layout_facts(net, numbers, scale, count, guidance), flush=True)
        return
    if config.job == "pixels":
        for guidance in (2.0, 4.0):
            table, pictures = measure(net, None, numbers, count, guidance=guidance)
            print(json.dumps(table), flush=True)
        sheet(folder, "sheet", net, None, numbers, {"guidance": 3.0})
        picture_grid(pictures[:24], columns=8, scale=2).save(folder / "frozen.png")
        return
    # the renderer by itself: the true maps of other scenes, and their captions
    test = make_pool(count, seed=8)
    captions = [book.caption(s, 3) for s in test.scenes]
    pictures = []
    for at in range(0, count, 40):
        texts = [c.text for c in captions[at : at + 40]]
        pictures.append(draw(texts, net, None, numbers, at, guidance=2.0, given=test.sem[at : at + 40].float() / scale)[0])
    pictures = torch.cat(pictures)
    wrong = faults(load_judge(), pictures, captions)
    print("given true maps", sum(w is None for w in wrong) / count, dict(Counter(w for w in wrong if w)))
    picture_grid(torch.cat([pictures[:16], test.pixels[:16].float() / 127.5 - 1]), columns=8, scale=2).save(folder / "true_maps.png")


    if layout:
        evaluate(folder, layout, net, count)


def evaluate(folder, layout, net, count):
    layouter, scale, numbers = load_net(layout, "layout")
    for guidance in (1.5, 3.0):
        table, pictures = measure(net, layouter, numbers, count, guidance=guidance)
        print(json.dumps(table), flush=True)
    sheet(folder, "sheet", net, layouter, numbers, {"guidance": 2.0})
    picture_grid(pictures[:24], columns=8, scale=2).save(folder / "frozen.png")


def cached_pool(count):
    """Only for try-outs: the pool is kept on disk."""
    home = Path("/tmp/speedrun_pool")
    path = home / f"{count}.safetensors"
    if not path.exists():
        pool = make_pool(count)
        home.mkdir(exist_ok=True)
        save_file({"pixels": pool.pixels, "covered": pool.covered, "sem": pool.sem}, path)
        return pool
    tensors, dice, scenes, number = load_file(path), random.Random(0), [], 0
    while len(scenes) < count:
        scene = book.sample_scene(number, 0)
        number += 1
        if dice.random() * 6 < weight(scene):
            scenes.append(scene)
    return Pool(scenes, tensors["pixels"], tensors["covered"], tensors["sem"])


if __name__ == "__main__":
    main()
