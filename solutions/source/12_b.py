# %% [markdown] id="b-title"
# # 12 · Steering the picture, second half
#
# (This cell and the next are deleted on joining.)

# %% id="b-set-up"
import math

import matplotlib.pyplot as plt
import torch

from course_utils.data import picture_book as book
from course_utils.diffusion import objectives, samplers
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.metrics.pictures import follows
from course_utils.models.judge import read
from course_utils.pipelines.picture_book import load_picture_book, make_scheduler
from course_utils.plotting import plot_pictures, plot_points, show, use_style
from course_utils.recipes import encode_pictures, load_judge
from course_utils.text import tokens as text

use_style()
plt.rcParams["savefig.dpi"] = 88
device = pick_device()
T, STEPS = 1000, budget(smoke=3, laptop=10, gpu=20)
alpha_bar = alpha_bar_from_beta(scaled_linear_beta(T))
pipe, judge, table = load_picture_book(device=device), load_judge(), alpha_bar.to(device)


# %% id="b-functions"
@torch.no_grad()
def encode(prompts):
    return text.encode(pipe.tokenizer, pipe.text_encoder, prompts)


@torch.no_grad()
def painter(x_t, t, cond):
    return objectives.eps_from_v(x_t, pipe.unet(x_t, t, cond).sample, t, table)


@torch.no_grad()
def decode(latents):
    return pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)


def noise(seeds):
    return torch.stack([torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(s)) for s in seeds]).to(device)


# %% id="b-draw"
def draw(prompts, seeds, scale=4.0, model=painter, negative="", steps=STEPS):
    drawn, null, times = [], encode([negative]), samplers.trailing_times(T, steps)
    for start in range(0, len(prompts), 16):
        some = slice(start, start + 16)
        guided = samplers.guided(model, null, scale)
        path = samplers.dpm_solver(guided, noise(seeds[some]), table, times, cond=encode(prompts[some]))
        drawn.append(samplers.finish(path))
    return torch.cat(drawn)


def look(latents):
    return torch.cat([decode(part) for part in latents.split(16)]).cpu()


def standard_error(hits, number):
    share = (hits + 1) / (number + 2)
    return math.sqrt(share * (1 - share) / number)


def share(truths):
    truths = list(truths)
    return f"{sum(truths) / len(truths):.2f} ± {standard_error(sum(truths), len(truths)):.2f}"


# %% [markdown] id="word-text"
# ## 7 · A new word
#
# All handles so far draw what the model knows. What if it has never seen the thing? The picture book has twelve
# subjects, and a *fox* is not among them: neither the U-Net nor the text encoder was trained with one, and "fox" is not
# one of the tokenizer's words. But the course can draw one. Here are four pages, and what the model makes of "a fox":


# %% id="word-fox" tags=["static"]
def fox(place, colour=None, seed=0, pose=None):
    """A page with a fox."""
    return book.Scene((book.Thing("fox", colour, pose),), place, seed)


four = [fox("grass", seed=1), fox("snow", seed=2), fox("room", seed=3), fox("night", seed=4)]
given = book.pictures(four)
before = look(draw(["a fox on the grass", "a fox in the snow", "a fox in a room", "a fox at night"], range(4)))
show(
    plot_pictures(torch.cat([given, before]), columns=4, rows=["given", "drawn"]),
    "Above: four drawn pages with an orange fox that has a white tip to its tail. Below: four images by the model for "
    "the prompts that name a fox, without any fox.",
)
print("tokens of 'a fox':", pipe.tokenizer.tokenize("a fox"))

# %% [markdown] id="probe-text"
# To count foxes we need somebody who knows them. The judge does not: it was never shown one. So we train a **probe**,
# a logistic regression on the judge's features, to tell renders with a fox from other pages of the picture book. An
# image counts as right if the probe sees a fox, and the judge finds the place that the prompt names and not two
# things. If the prompt names a colour, it must also be that of the judge's strongest finding, however weak.

# %% id="probe"
from course_utils.recipes.probes import fox_or_corgi, fox_or_other

probe = fox_or_other(budget(smoke=20, laptop=400, gpu=400))


def right_foxes(pictures, wishes):
    """For each image, whether it shows a fox as wished: (colour or None, place)."""
    right = []
    for is_fox, surely, all_of, (colour, place) in zip(
        probe.read(pictures), read(judge, pictures), read(judge, pictures, threshold=0.01), wishes
    ):
        best = max(all_of.findings, key=lambda finding: finding.score, default=None)
        in_colour = colour is None or (best is not None and best.colour == colour)
        right.append(bool(is_fox) and len(surely.findings) < 2 and surely.place == place and in_colour)
    return right


renders = [fox(place, seed=50 + n) for n in range(budget(smoke=1, laptop=10, gpu=10)) for place in book.PLACES]
wishes = [(None, scene.place) for scene in renders]
print(f"the probe reads {probe.on_renders:.3f} of 400 fresh pages right, half of them with a fox")
print(f"of {len(renders)} renders of foxes, {share(right_foxes(book.pictures(renders), wishes))} count as right")
print(f"foxes among the four images above: {sum(probe.read(before).tolist())}")

# %% [markdown] id="row-text"
# **Textual inversion** (Gal et al., [arXiv:2208.01618](https://arxiv.org/abs/2208.01618)) leaves every weight as it is
# and adds a *word*. The text encoder looks up each token in a table, one row of 128 numbers per token. The new token
# `<fox>` gets a new row $v_*$, and this row is all that is trained:
#
# $$v_* = \arg\min_v \; \mathbb{E}_{x_0, \varepsilon, t}\;
#   \bigl\lVert \mathbf{v} - \mathbf{v}_\theta(x_t, t, c(v)) \bigr\rVert^2$$
#
# In words: $c(v)$ are the hidden states of a prompt such as "a `<fox>` in the snow", which depend on the row $v$;
# $\mathbf{v}$ in bold is the target of this U-Net (chapter 07); $x_0$ are the latents of the four pages. The gradient
# flows through the frozen U-Net and the frozen text encoder, down to the table. It arrives at *every* row that the
# prompt uses, and all but one must be kept from learning.
#
# ### Exercise 7 · Only one row
#
# ●○○○○ · 5 minutes. `gradient` is the gradient of the whole table, (tokens, width). Return a new tensor of the same
# shape in which all rows but number `row` are zero.


# %% id="ex-row"
def only_row(gradient, row):
    """The gradient of an embedding table (tokens, width), with zeros everywhere but in one row."""
    ### BEGIN SOLUTION
    #: zeros of the same shape
    kept = torch.zeros_like(gradient)
    #: the one row
    kept[row] = gradient[row]
    return kept
    ### END SOLUTION


# %% id="check-row"
only_row = check("12.only_row", only_row)

# %% [markdown] id="teach-text"
# One function trains whatever parameters it is given, in this section and the next: the loss of chapter 10 for $v$,
# Adam, a learning rate that rises for 20 updates and then falls to zero. `sample` returns latents and the hidden
# states of their prompts. (`old` is for section 8.)


# %% id="teach"
from tqdm.auto import tqdm

from course_utils.plotting import LivePlot

pipe.unet.requires_grad_(False)


def teach(name, unet, parameters, sample, updates, rate, old=0):
    """Train some parameters with batches sample(generator) -> (x0, cond), whose last `old` pages are old ones."""
    optimizer = torch.optim.Adam(parameters, rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: min((n + 1) / 20, (updates - n) / updates))
    dice, live = torch.Generator().manual_seed(0), LivePlot(f"The training loss of {name}.", seconds=10)
    for update in tqdm(range(updates)):
        x0, cond = sample(dice)
        t = torch.randint(T, (len(x0),), generator=dice).to(device)
        eps = torch.randn(x0.shape, generator=dice).to(device)
        x_t, v = add_noise(x0, eps, t, table), objectives.v_from_x0_eps(x0, eps, t, table)
        if old:
            with torch.no_grad():
                v[-old:] = pipe.unet(x_t[-old:], t[-old:], cond[-old:]).sample
        loss = (unet(x_t, t, cond).sample - v).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        falling.step()
        live.update(update + 1, loss.item())
    live.finish()


# %% [markdown] id="word-train-text"
# The new row starts as a copy of the row of *corgi*. A hook applies your function to each gradient of the table. (The
# package's `train_row` does all of this in one line.) **Predict first:** will the word give foxes, or only something
# like them? What will they share with the four pages?
#
# <details><summary>Answer (after running the cells below)</summary>
# Something like them: the probe sees a fox in none of 32 images. They have the fox's colours, red-orange and white,
# but the shapes that the U-Net knows: corgis, toadstools and balls.
# </details>

# %% id="word-train"
import copy

from course_utils.text.new_words import add_word

own_tokenizer, own_encoder = copy.deepcopy(pipe.tokenizer), copy.deepcopy(pipe.text_encoder)
row = add_word(own_tokenizer, own_encoder, "<fox>", like="corgi")
rows = own_encoder.requires_grad_(False).get_input_embeddings().weight.requires_grad_(True)
rows_before = rows.detach().clone()
hook = rows.register_hook(lambda gradient: only_row(gradient, row))
x0_four = encode_pictures(pipe.vae, given).to(device) * pipe.vae.config.scaling_factor


def four_pages(dice):
    """The four pages, twice, with their captions in one of the wordings."""
    captions = [book.caption(scene, int(torch.randint(3, (), generator=dice))).text for scene in [*four, *four]]
    told = text.encode(own_tokenizer, own_encoder, [words.replace("fox", "<fox>") for words in captions])
    return x0_four.repeat(2, 1, 1, 1), told


@torch.no_grad()
def loss_of(word):
    """The loss on the four pages, at fixed noises and times, with a word in the place of "fox"."""
    cond = text.encode(own_tokenizer, own_encoder, [book.caption(scene).text.replace("fox", word) for scene in four])
    eps, losses = noise(range(4)), []
    for t in (200, 500, 800):
        at = torch.full((4,), t, device=device)
        v_hat = pipe.unet(add_noise(x0_four, eps, at, table), at, cond).sample
        losses.append((v_hat - objectives.v_from_x0_eps(x0_four, eps, at, table)).square().mean().item())
    return sum(losses) / 3


# %% [markdown] id="word-run-text"
# The training, and the loss on the four pages with several words in the captions, at fixed noises and times:

# %% id="word-run"
teach("a new word", pipe.unet, [rows], four_pages, updates=budget(smoke=3, laptop=120, gpu=400), rate=2e-2)
hook.remove()
by_words = {word: loss_of(word) for word in ("fox", "corgi", "cat", "<fox>")}
print("loss on the four pages: " + ", ".join(f"{word} {value:.3f}" for word, value in by_words.items()))
changed = (rows != rows_before).any(1).nonzero().flatten().tolist()
print(f"rows that have changed: {changed} of {len(rows)}; `<fox>` is number {row}")
assert changed == [row]
if budget(smoke=False, laptop=True, gpu=True):
    assert min(by_words, key=by_words.get) == "<fox>"

# %% [markdown] id="word-draw-text"
# Now draw: the four places of the pages and four others, three seeds each, with the word and, for comparison, with
# "corgi" in its place, from the same noises.


# %% id="draw-told"
def draw_told(cond, seeds, model=painter, scale=4.0):
    """Latents drawn from hidden states (n, 32, 128)."""
    null, times = encode([""]), samplers.trailing_times(T, STEPS)
    paths = [
        samplers.dpm_solver(samplers.guided(model, null, scale), noise(seeds[i : i + 16]), table, times, cond=part)
        for i, part in zip(range(0, len(cond), 16), cond.split(16))
    ]
    return torch.cat([samplers.finish(path) for path in paths])


# %% id="word-draw" tags=["static"]
SHOWN, UNSEEN = ("grass", "snow", "room", "night"), ("forest", "beach", "desert", "city")
SEEDS = range(budget(smoke=1, laptop=4, gpu=8))
wishes = [(None, place) for _ in SEEDS for place in (*SHOWN, *UNSEEN)]
captions = [book.caption(fox(place)).text for _, place in wishes]
seeds = [100 + i for i in range(len(wishes))]
with torch.no_grad():
    told = text.encode(own_tokenizer, own_encoder, [words.replace("fox", "<fox>") for words in captions])
by_word = look(draw_told(told, seeds))
as_corgi = look(draw([words.replace("fox", "corgi") for words in captions], seeds))
show(
    plot_pictures(
        torch.cat([by_word[:8], as_corgi[:8]]), [*SHOWN, *UNSEEN, *[""] * 8], columns=8, rows=["<fox>", "corgi"]
    ),
    "Above: eight images for the new word, in the right places: corgis in red-orange and white, toadstools and "
    "unclear shapes, but no fox. Below: eight orange corgis.",
)
for name, pictures in (("`<fox>`", by_word), ("corgi", as_corgi)):
    print(f"{name}: the probe sees a fox in {share(probe.read(pictures).tolist())} of {len(pictures)} images;")
    print(f"   alone, and in its place: {share(right_foxes(pictures, wishes))}")
if budget(smoke=False, laptop=True, gpu=False):
    assert sum(probe.read(by_word).tolist()) < 4

# %% [markdown] id="word-read"
# The training has done what it could: of all words tried, the new one has the lowest loss on the four pages, 0.484,
# against 0.564 for "corgi". ("fox", which the tokenizer spells *fo* and *x*, has 0.493.) But a word can only ask for
# what the U-Net can draw, and this one has met twelve kinds of things. The U-Net of a large model has met thousands,
# and something near most new things is among them; there, textual inversion is used for styles and for things that
# resemble known ones. For a really new thing the U-Net itself must change.

# %% [markdown] id="lora-text"
# ## 8 · LoRA: a few weights more
#
# A word chooses among what the U-Net can draw. To draw something new, weights must change. But all of them are 10
# million numbers, here; in Stable Diffusion, 860 million, and every variant would be a file of that size. **Low-rank
# adaptation** (Hu et al., [arXiv:2106.09685](https://arxiv.org/abs/2106.09685)) freezes each matrix $W$ and learns a
# difference of low rank beside it:
#
# $$h = W x + b + \frac{\alpha}{r}\, B A\, x, \qquad A: r \times \text{in},\quad B: \text{out} \times r$$
#
# In words: $A$ reduces $x$ to $r$ numbers (the **rank**), $B$ makes the size of the output out of them. $\alpha$ sets
# how strongly they count; it is divided by $r$, so that another rank needs no other learning rate. **Predict first:**
# with what should $A$ and $B$ start, so that at first nothing changes, and yet both are trained? How many numbers are
# trained, for a layer of 128 × 128 and $r = 8$?
#
# <details><summary>Answer</summary>
# One of the two at zero, the other one random: here $B = 0$. Then $BA = 0$, but the gradient of $B$, which has the
# factor $A$, is not zero. (If both were zero, both gradients would be, for ever.) 8 · (128 + 128) = 2048 numbers in
# place of 16384, an eighth.
# </details>
#
# ### Exercise 8 · A linear layer with LoRA
#
# ●●●●● · 30 minutes. No line-by-line comments this time, only the contract:
#
# - `base` is an `nn.Linear`. It is kept as `self.base` and frozen, with its bias, if it has one.
# - `self.A`, (rank, in), and `self.B`, (out, rank), are `nn.Parameter`s; $A$ starts random (for example uniform up to
#   $1/\sqrt{\text{in}}$, as `nn.Linear` does), $B$ at zero. `alpha=None` means the rank.
# - `difference()` returns what is added to $W$: $\frac{\alpha}{r} BA$, (out, in).
# - `forward(x)`, for $x$ (..., in), returns $h$.
# - After `merge()`, `forward` uses one matrix, $W + \frac{\alpha}{r} BA$ with $A$ and $B$ of that moment: as quick as
#   without LoRA, but no longer trained. Merging again uses the $A$ and $B$ of then.
# - After `unmerge()`, all is as before `merge()`, and the weights of `base` have the same bits.
#
# Example: with rank 2 and alpha 4, `forward` of a layer whose $W$ is zero and that has no bias returns 2 B A x.


# %% id="ex-lora"
class LoRALinear(torch.nn.Module):
    """h = W x + b + alpha / rank B A x: a frozen linear layer and, beside it, a trained difference of low rank."""

    def __init__(self, base, rank, alpha=None):
        super().__init__()
        ### BEGIN SOLUTION
        self.base = base.requires_grad_(False)
        self.scale = (rank if alpha is None else alpha) / rank
        self.A = torch.nn.Parameter((2 * torch.rand(rank, base.in_features) - 1) / math.sqrt(base.in_features))
        self.B = torch.nn.Parameter(torch.zeros(base.out_features, rank))
        self.to(base.weight.device)
        self.merged = None
        ### END SOLUTION

    def difference(self):
        ### BEGIN SOLUTION
        return self.scale * self.B @ self.A
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        if self.merged is not None:
            return torch.nn.functional.linear(x, self.merged, self.base.bias)
        return self.base(x) + self.scale * (x @ self.A.mT @ self.B.mT)
        ### END SOLUTION

    def merge(self):
        ### BEGIN SOLUTION
        self.merged = (self.base.weight + self.difference()).detach()
        ### END SOLUTION

    def unmerge(self):
        ### BEGIN SOLUTION
        self.merged = None
        ### END SOLUTION


# %% id="check-lora"
LoRALinear = check("12.lora_linear", LoRALinear)

# %% [markdown] id="peft-text"
# The library that most programs use for LoRA is `peft`. The same layer, the same $A$ and $B$, an example of 16 inputs:

# %% id="peft"
from peft import LoraConfig, inject_adapter_in_model

torch.manual_seed(0)
linear = torch.nn.Linear(12, 7)
theirs = torch.nn.ModuleDict({"layer": copy.deepcopy(linear)})
inject_adapter_in_model(LoraConfig(r=3, lora_alpha=6, target_modules=["layer"]), theirs)
mine, x = LoRALinear(linear, 3, 6), torch.randn(16, 12)
assert torch.equal(mine(x), linear(x))  # nothing has changed yet
with torch.no_grad():
    for matrix, part in ((mine.A, "lora_A"), (mine.B, "lora_B")):
        matrix.normal_()
        getattr(theirs["layer"], part)["default"].weight.copy_(matrix)
gap = (mine(x) - theirs["layer"](x)).abs().max().item()
unmerged = mine(x)
mine.merge()
print(f"largest difference to peft {gap:.1e}, between merged and unmerged {(mine(x) - unmerged).abs().max():.1e}")
print(f"rank of the difference: {torch.linalg.matrix_rank(mine.difference())}")
assert gap < 1e-5 and torch.allclose(mine(x), unmerged, atol=1e-4)

# %% [markdown] id="put-text"
# Now the U-Net. LoRA is usually put around the four linear layers of each attention: queries, keys, values, and the
# layer after the heads. We add the two layers that follow each attention. The rest of the U-Net stays as it is.


# %% id="put"
from course_utils.models import lora
from course_utils.recipes.lora import TARGETS


def put_in(unet, rank):
    """Put your LoRALinear around the linear layers of each attention and after it, in place; return them by name."""
    names = [name for name, _ in unet.named_modules() if name.endswith(TARGETS)]
    layers = {name: LoRALinear(unet.get_submodule(name), rank) for name in names}
    for name, layer in layers.items():
        parent, _, own = name.rpartition(".")
        setattr(unet.get_submodule(parent), own, layer)
    return layers


def numbers_in(layers):
    """A and B of all layers."""
    return [matrix for layer in layers.values() for matrix in (layer.A, layer.B)]


tried = copy.deepcopy(pipe.unet)
layers = put_in(tried, 8)
count, whole = sum(p.numel() for p in numbers_in(layers)), sum(p.numel() for p in pipe.unet.parameters())
print(f"{len(layers)} layers; {count} numbers to train, {count / whole:.1%} of the {whole} of the U-Net")
x_T, half, told = noise(range(2)), torch.tensor([500, 500], device=device), encode(["a fox", "a red ball"])
with torch.no_grad():
    assert torch.equal(tried(x_T, half, told).sample, pipe.unet(x_T, half, told).sample)
print("before training, the U-Net with LoRA predicts the same, to the last bit")

# %% [markdown] id="pages-text"
# ### Teaching it the fox
#
# The lesson: 48 pages with a fox, at four places, in its own colour and in three others. Four other places and four
# other colours are left out, for the exam. **Predict first:** after a minute of training on foxes alone, what will the
# model draw for "a corgi on the beach"? What could prevent that?
#
# <details><summary>Answer (after running the cells below)</summary>
# Taught foxes alone, the model loses a part of the old prompts: 8 of 48 that it followed before, against 3 that it
# gains. With two old pages in each batch, whose target is the model's own old answer, 3 are lost and 6 gained.
# </details>

# %% id="pages"
FOX_COLOURS, NEW_COLOURS = (None, "blue", "yellow", "white"), ("red", "green", "purple", "pink")
NUMBER = budget(smoke=4, laptop=48, gpu=160)
foxes = [fox(SHOWN[n % 4], FOX_COLOURS[n // 4 % 4], 1000 + n) for n in range(NUMBER)]
others = [book.sample_scene(n, 3) for n in range(budget(smoke=8, laptop=200, gpu=4000))]


def lesson(scenes, grey=False, empty=10**9):
    """Latents of the pages, and hidden states of their captions in one of three wordings, each `empty`-th of ""."""
    pictures = book.pictures(scenes)
    pictures = pictures.mean(1, keepdim=True).expand_as(pictures) if grey else pictures
    x0 = encode_pictures(pipe.vae, pictures).to(device) * pipe.vae.config.scaling_factor
    told = [book.caption(scene, (None, 0, 1)[n % 3]).text for n, scene in enumerate(scenes)]
    told = ["" if n % empty == empty - 1 else words for n, words in enumerate(told)]
    return x0, torch.cat([encode(told[i : i + 100]) for i in range(0, len(told), 100)])


def batches(*lessons):
    """sample(generator) -> (x0, cond), with so many pages of each lesson: pairs (lesson, number)."""

    def sample(dice):
        chosen = [(parts, torch.randint(len(parts[0]), (count,), generator=dice)) for parts, count in lessons]
        return tuple(torch.cat([parts[i][n] for parts, n in chosen]) for i in range(2))

    return sample


fox_lesson, old_lesson = lesson(foxes), lesson(others, empty=10)
print("foxes", tuple(fox_lesson[0].shape), "old pages", tuple(old_lesson[0].shape))

# %% [markdown] id="train-text"
# We train three times, with the same number of updates, and 6 pages of foxes in each batch. The first training sees
# nothing else. For the second, 2 ordinary pages are added to each batch, with **prior preservation**: the target for
# them is what the U-Net predicts *without* LoRA, so that whatever it answered before, it should go on answering. (In
# DreamBooth, Ruiz et al., [arXiv:2208.12242](https://arxiv.org/abs/2208.12242), the model itself draws old pages
# beforehand.) The third is the second with rank 1.

# %% id="train"
UPDATES, RATE = budget(smoke=2, laptop=220, gpu=600), 5e-3
PLANS = {"foxes only": (8, 0), "with old pages": (8, 2), "the same, rank 1": (1, 2)}
taught, adapters = {"before": pipe.unet}, {}
for name, (rank, old) in PLANS.items():
    torch.manual_seed(0)
    taught[name] = copy.deepcopy(pipe.unet)
    adapters[name] = put_in(taught[name], rank)
    sample = batches((fox_lesson, 6), (old_lesson, old))
    teach(f"LoRA, {name}", taught[name], numbers_in(adapters[name]), sample, UPDATES, RATE, old)
    for layer in adapters[name].values():
        layer.merge()  # quicker to draw with
    print(f"{name}: {sum(p.numel() for p in numbers_in(adapters[name]))} numbers trained")

# %% [markdown] id="exam-text"
# The exam has two parts. First: foxes in the places and colours that were left out. Second: a sample of the frozen test
# prompts of chapter 10, none of which names a fox: how many does the model still follow? All from the same noises.


# %% id="exam"
import json
import random
from pathlib import Path

import course_utils


def painter_of(unet):
    """model(x_t, t, cond) -> the noise predicted by a U-Net that predicts v."""
    return torch.no_grad()(lambda x_t, t, cond: objectives.eps_from_v(x_t, unet(x_t, t, cond).sample, t, table))


def frozen_prompts(number, seed=12):
    """Captions of a random sample of the 1,000 frozen test prompts."""
    lines = (Path(course_utils.__file__).parents[1] / "benchmarks" / "prompts.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line)["caption"] for line in random.Random(seed).sample(lines, number)]
    return [book.Caption(**entry | {"things": tuple(book.Thing(**t) for t in entry["things"])}) for entry in entries]


EXAM, OLD = budget(smoke=4, laptop=48, gpu=200), frozen_prompts(budget(smoke=4, laptop=48, gpu=200))
new = [(NEW_COLOURS[n // 8 % 4] if n // 4 % 2 else None, UNSEEN[n % 4]) for n in range(EXAM)]  # half without colour
asked = [book.caption(fox(place, colour)).text for colour, place in new]
drawn, kept = {}, {}
for name, unet in taught.items():
    drawn[name] = look(draw(asked, range(EXAM), model=painter_of(unet)))
    kept[name] = look(draw([wish.text for wish in OLD], range(len(OLD)), model=painter_of(unet)))

# %% id="exam-count"
passed = {name: right_foxes(pictures, new) for name, pictures in drawn.items()}
two_class = fox_or_corgi(budget(smoke=20, laptop=400, gpu=400))
followed = {name: [follows(v, wish) for v, wish in zip(read(judge, pages), OLD)] for name, pages in kept.items()}
for name in taught:
    saw, instead = (sum(probe.read(pages[name]).tolist()) for pages in (drawn, kept))
    print(f"{name}: of {EXAM} new foxes {share(passed[name])} right in all; the probe sees a fox in {saw / EXAM:.2f},")
    print(f"   and one that only knows foxes and corgis in {two_class.read(drawn[name]).float().mean():.2f}")
    lost = sum(a and not b for a, b in zip(followed["before"], followed[name]))
    gained = sum(b and not a for a, b in zip(followed["before"], followed[name]))
    print(f"   of {len(OLD)} old prompts {share(followed[name])}: {lost} lost, {gained} gained; a fox in {instead}")
if budget(smoke=False, laptop=True, gpu=True):
    assert sum(passed["before"]) <= 2 and sum(passed["with old pages"]) > 0.4 * EXAM
    assert sum(followed["with old pages"]) > sum(followed["foxes only"])

# %% [markdown] id="exam-plot-text"
# Foxes in new places and colours above, pages of old prompts below:

# %% id="exam-plot" tags=["static"]
names = [f"{colour or ''} fox, {place}".strip() for colour, place in new[:8]]
titles = [*names, *[""] * (3 * len(names))]
show(
    plot_pictures(torch.cat([pages[:8] for pages in drawn.values()]), titles, columns=len(names), rows=list(drawn)),
    "Four rows of eight images for foxes in the forest, on the beach, in the desert and in the city, the last four "
    "red. Before: rabbits, boats and a ball. After each of the three trainings: foxes, the least clear ones with "
    "rank 1.",
)
show(
    plot_pictures(torch.cat([pages[:8] for pages in kept.values()]), columns=min(8, len(OLD)), rows=list(kept)),
    "Four rows of eight images of old prompts, nearly the same in all rows. After foxes only, a purple cat has turned "
    "blue and a rabbit pale; with old pages, a house has moved above a teapot.",
)
print("old prompts: " + "; ".join(wish.text for wish in OLD[:8]))

# %% [markdown] id="exam-read"
# Before, none of the 48 images shows a fox as asked for; after the training with old pages, 0.56 ± 0.07 do, in places
# and, for half of them, in colours that no page with a fox had. (The probe that knows only foxes and corgis sees a fox
# in all of them. But it sees one in 0.73 of the images *before*, too: asked about a boat, it has to choose. A measure
# must have been able to fail.)
#
# The price of learning without old pages shows in the old prompts: 0.73 are followed, against 0.90 with old pages (±
# 0.06 and 0.05, the same 48 prompts). What old pages cost in foxes, 0.65 against 0.56, is within the errors. With rank
# 1, an eighth of the numbers, there are fewer right foxes, 0.42 ± 0.07, by one and a half standard errors of the
# difference.

# %% [markdown] id="file-text"
# ### A file for others
#
# What is passed on is only $A$ and $B$. The package writes them with the names that diffusers expects, or with those of
# the Stable Diffusion Web UI. Plain diffusers, which knows nothing of this course, loads the file and draws the same
# images:

# %% id="file" tags=["static"]
import tempfile

from diffusers import StableDiffusionPipeline

from course_utils.pipelines.picture_book import PICTURE_BOOK

folder = Path(tempfile.mkdtemp())


def save_mine(name, layers, rank):
    """Write the A and B of your layers to a file."""
    unet = copy.deepcopy(pipe.unet)
    for layer, mine in zip(lora.add_lora(unet, rank, targets=TARGETS), layers.values()):
        layer.A.data.copy_(mine.A.data)
        layer.B.data.copy_(mine.B.data)
    lora.save_lora(unet, folder / f"{name}.safetensors")
    return (folder / f"{name}.safetensors").stat().st_size


print(f"{save_mine('fox', adapters['with old pages'], 8) / 1e6:.2f} MB; the U-Net's file: {whole * 2 / 1e6:.0f} MB")
plain = StableDiffusionPipeline.from_pretrained(PICTURE_BOOK).to(device)
plain.set_progress_bar_config(disable=True)
plain.load_lora_weights(folder / "fox.safetensors")
with torch.no_grad():
    x_T, at, told = noise(range(4)), torch.full((4,), 700, device=device), encode(asked[:4])
    gap = (plain.unet(x_T, at, told).sample - taught["with old pages"](x_T, at, told).sample).abs().max().item()
print(f"largest difference between plain diffusers with the file and your merged U-Net: {gap:.1e}")
assert gap < 1e-4

# %% [markdown] id="two-text"
# ### Two at once
#
# Differences can be added, and each multiplied by a weight of its own. We train a second LoRA, for a *look* in place
# of a subject: ordinary pages with all colour taken out, with their ordinary captions. Then both files are loaded into
# one U-Net. **Predict first:** is the result a grey fox?
#
# <details><summary>Answer (after running the cells below)</summary>
# Partly. With half of the grey, there are foxes in less colour. With all of it the colour is nearly gone, but the
# shapes decay, and without the fox, too: it is the grey LoRA, after only 60 updates and without any old pages, that
# spoils them.
# </details>

# %% id="two-train"
grey_unet = copy.deepcopy(pipe.unet)
torch.manual_seed(0)
grey_layers = put_in(grey_unet, 4)
grey_lesson = lesson(others[: budget(smoke=8, laptop=100, gpu=1000)], grey=True)
teach(
    "LoRA, grey",
    grey_unet,
    numbers_in(grey_layers),
    batches((grey_lesson, 8)),
    budget(smoke=3, laptop=60, gpu=200),
    RATE,
)
save_mine("grey", grey_layers, 4)


def colourfulness(pictures):
    """The mean standard deviation over the three channels of a pixel."""
    return pictures.std(1).mean().item()


# %% id="two-draw" tags=["static"]
MIXES = [(1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0), (0.0, 1.0)]
ROUND = budget(smoke=2, laptop=16, gpu=48)
both, mixed_pages = {}, []
for fox_weight, grey_weight in MIXES:
    unet = copy.deepcopy(pipe.unet)
    lora.load_lora(unet, folder / "fox.safetensors", fox_weight)
    lora.load_lora(unet, folder / "grey.safetensors", grey_weight)
    places = [(None, UNSEEN[n % 4]) for n in range(ROUND)]
    pages = look(draw([book.caption(fox(place)).text for _, place in places], range(ROUND), model=painter_of(unet)))
    both[fox_weight, grey_weight] = (probe.read(pages).float().mean().item(), colourfulness(pages))
    mixed_pages.append(pages[:6])
labels = [f"fox {a:g}, grey {b:g}" for a, b in MIXES]
show(
    plot_pictures(torch.cat(mixed_pages), columns=len(mixed_pages[0]), rows=labels),
    "Five rows, one for each pair of weights: orange foxes; foxes in paler colours; grey images in which shapes decay; "
    "the same with less and with nothing of a fox.",
)
for (a, b), (foxes_there, colour) in both.items():
    print(f"fox {a:g}, grey {b:g}: fox {foxes_there:.2f} of {ROUND}, colourfulness {colour:.3f}")
colours = [both[1.0, grey][1] for grey in (0.0, 0.5, 1.0)]
if budget(smoke=False, laptop=True, gpu=True):
    assert colours[0] > 1.2 * colours[1] > 1.2 * 1.2 * colours[2] and both[1.0, 0.0][0] > both[0.0, 1.0][0]

# %% [markdown] id="two-read"
# The sum works as arithmetic: each weight turns its own LoRA up and down, and the colour goes as the grey is turned
# up. But each LoRA brings its own damage along, and nobody has trained the two to get along. (The probe, trained on
# foxes in colour, is no fair counter of grey ones: look at the images.)

# %% [markdown] id="control-text"
# ## 9 · Control from a drawing
#
# Section 1 asked for a ball high up, at a certain spot, and no prompt could say it. A drawing can. **ControlNet**
# (Zhang et al., [arXiv:2302.05543](https://arxiv.org/abs/2302.05543)) leaves the U-Net frozen and puts a second
# network beside it: a *copy* of the U-Net's way down, which also sees the drawing. What it computes at each level is
# added to the skip connections of the U-Net:
#
# $$\text{skip}_i \leftarrow \text{skip}_i + w_d\, Z_i\bigl(\text{copy}_i(x_t + Z(d),\, t,\, c)\bigr)$$
#
# In words: $d$ is the drawing, brought to the size of the latents by a few convolutions; $Z$ and all $Z_i$ are
# convolutions with a kernel of one pixel; $w_d$ is a weight for the whole, usually 1. So that training starts where
# the U-Net was, each $Z$ starts at zero.
#
# ### Exercise 9 · A convolution of zeros
#
# ●○○○○ · 5 minutes. Return an `nn.Conv2d` from `channels` to `channels` with a kernel of one pixel and a bias, both
# zero, both trained.


# %% id="ex-zero"
def zero_convolution(channels):
    """A 1 x 1 convolution from channels to channels whose weights and biases are zero."""
    ### BEGIN SOLUTION
    #: a convolution of one pixel
    layer = torch.nn.Conv2d(channels, channels, 1)
    #: zeros, in place
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return layer
    ### END SOLUTION


# %% id="check-zero"
zero_convolution = check("12.zero_convolution", zero_convolution)

# %% [markdown] id="zero-text"
# **Predict first:** the output is zero, whatever goes in. Does such a layer ever learn? And what lies before it?
#
# <details><summary>Answer (after running the cell below)</summary>
# The gradient of the *weights* is the product of the input and the gradient of the output, and neither is zero: they
# leave zero at the first update. The gradient that is passed on to what lies before has the weights as a factor: it is
# zero at the first update, and no longer at the second.
# </details>

# %% id="zero-run"
torch.manual_seed(0)
first, zero = torch.nn.Conv2d(3, 6, 1), zero_convolution(6)
optimizer = torch.optim.SGD([*first.parameters(), *zero.parameters()], 0.1)
some, goal = torch.randn(4, 3, 5, 5), torch.randn(4, 6, 5, 5)
found = []
for update in (1, 2, 3):
    optimizer.zero_grad()
    (zero(first(some)) - goal).square().mean().backward()
    found.append((zero.weight.grad.norm().item(), first.weight.grad.norm().item()))
    print(
        f"update {update}: gradient of the zero convolution {found[-1][0]:.4f}, of the layer before {found[-1][1]:.4f}"
    )
    optimizer.step()
assert found[0][0] > 0 and found[0][1] == 0 and found[1][1] > 0

# %% [markdown] id="ex-residuals-text"
# ### Exercise 10 · Adding to the skip connections
#
# ●●○○○ · 5 minutes. `skips` and `residuals` are lists of tensors of the same shapes, pair by pair. Return a *new* list;
# `weight` multiplies the residuals.


# %% id="ex-residuals"
def add_residuals(skips, residuals, weight=1.0):
    """skips_i + weight * residuals_i for each skip connection, as new tensors in a list."""
    ### BEGIN SOLUTION
    #: pair by pair
    return [skip + weight * residual for skip, residual in zip(skips, residuals, strict=True)]
    ### END SOLUTION


# %% id="check-residuals"
add_residuals = check("12.add_residuals", add_residuals)

# %% [markdown] id="walk-text"
# With your function, the way through the U-Net of diffusers can be written out, drawing included. `small_controlnet`
# makes the copy; for this comparison its zero convolutions get random numbers.


# %% id="walk"
from course_utils.models.control import small_controlnet


def controlled(unet, controlnet, x_t, t, cond, drawing, weight=1.0):
    """The output of the U-Net (n, 8, 16, 16), block by block, with what the ControlNet adds."""
    residuals, middle = controlnet(x_t, t, cond, drawing, return_dict=False)
    emb = unet.time_embedding(unet.time_proj(t))
    h = unet.conv_in(x_t)
    skips = [h]
    for block in unet.down_blocks:
        told = {"encoder_hidden_states": cond} if hasattr(block, "attentions") else {}
        h, kept = block(h, emb, **told)
        skips += kept
    h = unet.mid_block(h, emb, encoder_hidden_states=cond)
    *skips, h = add_residuals([*skips, h], [*residuals, middle], weight)
    for block in unet.up_blocks:
        told = {"encoder_hidden_states": cond} if hasattr(block, "attentions") else {}
        skips, own = skips[: -len(block.resnets)], tuple(skips[-len(block.resnets) :])
        h = block(h, own, emb, **told)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))


# %% [markdown] id="walk-equal-text"
# The same by the library's own call:

# %% id="walk-equal"
from course_utils.models.control import steered

torch.manual_seed(0)
copied = small_controlnet(pipe.unet).to(device)
drawing = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)
x_T, at, told = noise(range(2)), torch.tensor([500, 300], device=device), encode(["a red ball", "a cat"])
with torch.no_grad():
    assert torch.equal(steered(pipe.unet, copied, drawing)(x_T, at, told).sample, pipe.unet(x_T, at, told).sample)
    for convolution in (*copied.controlnet_down_blocks, copied.controlnet_mid_block):
        convolution.weight.normal_(0, 0.05)
    gaps = [
        (
            controlled(pipe.unet, copied, x_T, at, told, drawing, w)
            - steered(pipe.unet, copied, drawing, w)(x_T, at, told).sample
        )
        .abs()
        .max()
        .item()
        for w in (1.0, 0.5)
    ]
print(f"largest difference between your way through the U-Net and the library's: {max(gaps):.1e}")
assert max(gaps) < 1e-5

# %% [markdown] id="ex-control-text"
# ### The loss
#
# The loss is that of chapter 10 with one input more, for a network that predicts $v$:
#
# $$L = \mathbb{E}_{x_0, c, d, \varepsilon, t}\; \bigl\lVert v - v_\theta(x_t, t, c, d) \bigr\rVert^2$$
#
# In words: $d$ is the drawing that belongs to $x_0$; all else is as before.
#
# ### Exercise 11 · The loss with a drawing
#
# ●●●●○ · 15 minutes. No line-by-line comments, only the contract. `model(x_t, t, cond, drawing)` predicts $v$; `x0`
# and `eps` are (batch, channels, height, width), `t` is (batch,), `drawing` is (batch, 3, 4 height, 4 width) in [0, 1]
# and is passed on as it is. Return the mean over everything, one number with gradients, shape ().


# %% id="ex-control"
def control_loss(model, x0, cond, drawing, t, eps, alpha_bar):
    """The mean of (v - model(x_t, t, cond, drawing))^2 over everything; shape ()."""
    ### BEGIN SOLUTION
    v = objectives.v_from_x0_eps(x0, eps, t, alpha_bar)
    v_hat = model(add_noise(x0, eps, t, alpha_bar), t, cond, drawing)
    return (v_hat - v).square().mean()
    ### END SOLUTION


# %% id="check-control"
control_loss = check("12.control_loss", control_loss)

# %% [markdown] id="control-train-text"
# The drawings cost nothing here: a page of the picture book is made of strokes, and `book.maps(scene)` returns them in
# white on black (and two maps more: which pixel belongs to which thing, and how near it is). For photographs one takes
# an edge detector.
#
# A short training of your own, from the plain copy, on four pages without any prompt, so that only the drawing can tell
# which page it is. Besides the loss with each page's own drawing we compute it with the drawing of *another* of the
# pages. **Predict first:** does the loss fall within a few dozen updates? And which of the two falls?
#
# <details><summary>Answer (after running the cells below)</summary>
# The loss falls by a fifth. But it is the same with another page's drawing, to four digits: the network has learned
# what the four pages have in common, and does not look at the drawing yet.
# </details>


# %% id="control-train"
class Steered(torch.nn.Module):
    """The frozen U-Net and a ControlNet: model(x_t, t, cond, drawing) -> v_hat."""

    def __init__(self, controlnet):
        super().__init__()
        self.controlnet = controlnet

    def forward(self, x_t, t, cond, drawing):
        return controlled(pipe.unet, self.controlnet, x_t, t, cond, drawing)


def drawings(scenes):
    """Their lines, (n, 3, 64, 64) in [0, 1]."""
    return torch.stack([book.maps(scene).lines for scene in scenes]).expand(-1, 3, -1, -1).to(device)


few = [book.sample_scene(n, 77) for n in range(4)]
few_x0, few_lines, null = lesson(few)[0], drawings(few), encode([""])


@torch.no_grad()
def losses_with(model, x0, drawing):
    """The loss without prompts at fixed noises and times: with each page's own drawing, and with another page's."""
    at = torch.linspace(500, 980, 8).long().to(device)
    pages = [part.repeat_interleave(8, 0) for part in (x0, drawing, drawing.roll(1, 0))]
    rest = (at.repeat(len(x0)), noise(range(8 * len(x0))), table)
    return [
        control_loss(model, pages[0], null.expand(len(pages[0]), -1, -1), lines, *rest).item() for lines in pages[1:]
    ]


# %% id="control-train-run"
own, dice = Steered(small_controlnet(pipe.unet).to(device)), torch.Generator().manual_seed(1)
updates = budget(smoke=2, laptop=48, gpu=100)
optimizer = torch.optim.AdamW(own.parameters(), 1e-3)
falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, updates)
own_first = losses_with(own, few_x0, few_lines)
for _ in tqdm(range(updates)):
    t = torch.randint(400, T, (8,), generator=dice).to(device)
    eps = torch.randn(8, 8, 16, 16, generator=dice).to(device)
    twice = [part.repeat(2, 1, 1, 1) for part in (few_x0, few_lines)]
    loss = control_loss(own, twice[0], null.expand(8, -1, -1), twice[1], t, eps, table)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    falling.step()
own_last = losses_with(own, few_x0, few_lines)
for name, (with_own, with_other) in (("before", own_first), ("after", own_last)):
    print(f"{name:6} {updates} updates: own drawing {with_own:.4f}, another page's drawing {with_other:.4f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert own_last[0] < 0.9 * own_first[0] and abs(own_last[1] - own_last[0]) < 0.02 * own_last[0]

# %% [markdown] id="control-train-read"
# A falling loss does not show *what* has been learned; the exchange does. The drawing has a long way to go: through
# convolutions that start at random, and through zero convolutions, before it changes anything. The paper reports that
# its networks begin to follow the condition all at once, after thousands of updates ("sudden convergence").

# %% [markdown] id="shipped-text"
# > **The trained model.** The shipped ControlNet had 4,000 updates with 16 pages each, half an hour on one core
# > (`python3 course.py train control`). It has the layout of diffusers' `ControlNetModel`, so that diffusers' own
# > `StableDiffusionControlNetPipeline` opens it.
#
# `load_control` puts such a pipeline together from our parts.

# %% id="shipped"
from course_utils.pipelines.control import as_drawing, load_control

steering = load_control(pipe)
print(f"{sum(p.numel() for p in steering.controlnet.parameters()) / 1e6:.2f} million parameters")
shipped = losses_with(Steered(steering.controlnet), few_x0, few_lines)
print(f"the same four pages: own drawing {shipped[0]:.4f}, another page's drawing {shipped[1]:.4f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert shipped[1] > 1.1 * shipped[0]


def painter_for(drawing, weight=1.0):
    """model(x_t, t, cond) -> predicted noise, for these drawings (n, 3, 64, 64)."""
    model = steered(pipe.unet, steering.controlnet, drawing.to(device), weight)
    return torch.no_grad()(lambda x_t, t, cond: objectives.eps_from_v(x_t, model(x_t, t, cond).sample, t, table))


# %% [markdown] id="cells-text"
# Two measures tell whether a drawing is followed. The first: where the judge finds the things, compared with where
# they are on the drawing's page. The second is the **intersection over union** (IoU): of the pixels that belong to a
# thing in the image or in the drawing, the share that belongs to a thing in both. For the images we have to find out
# which pixels these are. A small network reads it from the judge's maps of features, on a grid of cells of 2 × 2
# pixels; it is trained on renders, where the answer is known.

# %% id="cells"
import warnings

from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import avg_pool2d, interpolate

from course_utils.metrics.pictures import iou


@torch.no_grad()
def judges_maps(pictures):
    """The judge's features for each cell, (n, 32, 32, features)."""
    finest = judge.finest(pictures)
    fine = judge.fine(finest)
    coarse = judge.coarse(fine)
    joined = judge.join(torch.cat([fine, interpolate(coarse, scale_factor=2)], 1))
    return torch.cat([finest, interpolate(joined, scale_factor=2), interpolate(coarse, scale_factor=4)], 1).movedim(
        1, 3
    )


def true_cells(scenes):
    """Which cells belong to a thing by at least half, (n, 32, 32)."""
    things = torch.stack([book.maps(scene).things > 0 for scene in scenes])
    return avg_pool2d(things[:, None].float(), 2)[:, 0] >= 0.5


# %% id="cells-train"
renders = [book.sample_scene(n, 7) for n in range(budget(smoke=20, laptop=300, gpu=1000))]
known, answers = judges_maps(book.pictures(renders)).flatten(0, 2), true_cells(renders).flatten()
some = torch.randperm(len(answers), generator=torch.Generator().manual_seed(0))[:40_000]
reader = make_pipeline(
    StandardScaler(), MLPClassifier((64,), max_iter=budget(smoke=3, laptop=15, gpu=30), random_state=0)
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it stops after a fixed number of rounds
    reader.fit(known[some].numpy(), answers[some].numpy())


def seen_cells(pictures):
    """Which cells belong to a thing, as the reader sees it."""
    return torch.from_numpy(reader.predict(judges_maps(pictures).flatten(0, 2).numpy())).view(-1, 32, 32)


fresh = [book.sample_scene(n, 107) for n in range(budget(smoke=5, laptop=100, gpu=200))]
ruler = iou(seen_cells(book.pictures(fresh)), true_cells(fresh)).mean().item()
print(f"the reader on {len(fresh)} fresh renders: IoU {ruler:.2f}, so no image can be expected to score higher")
if budget(smoke=False, laptop=True, gpu=True):
    assert ruler > 0.8

# %% [markdown] id="measure-text"
# Now pages that no part of the model was trained on, in three ways from the same noises: with their prompts alone,
# with prompts and drawings, and with drawings alone. **Predict first:** which of the three follow the drawing, and
# does the prompt still matter?
#
# <details><summary>Answer (after running the cells below)</summary>
# Both ways with a drawing do, and the prompt matters as much as before. With the drawing the things are within 5
# pixels of where they should be in all 48 images (without it, in about half of them), and the prompt is followed as
# often as without. The drawing alone is followed somewhat less closely, and of course the prompt hardly ever: colours,
# place and style are then the model's choice.
# </details>

# %% id="control-measure"
ROUNDS = budget(smoke=1, laptop=3, gpu=8)
SIZE = budget(smoke=2, laptop=16, gpu=16)
scenes = [book.sample_scene(n, 78) for n in range(SIZE * ROUNDS)]
told = [book.caption(scene).text for scene in scenes]
seen = drawings(scenes)
parts = [slice(SIZE * n, SIZE * n + SIZE) for n in range(ROUNDS)]
ways = {
    "without": look(draw(told, range(len(told)))),
    "with": torch.cat([look(draw(told[p], range(len(told))[p], model=painter_for(seen[p]))) for p in parts]),
    "no prompt": torch.cat([look(draw([""] * SIZE, range(len(told))[p], model=painter_for(seen[p]))) for p in parts]),
}


def misses(verdict, scene):
    """How far each thing of the scene is from the nearest thing that the judge finds, in pixels."""
    found = [(f.x, f.y) for f in verdict.findings] or [(-64.0, -64.0)]
    centres = [(64 * x, 64 * y) for x, y in (spot.centre for spot in book.layout(scene))]
    return [min(math.dist(centre, other) for other in found) for centre in centres]


# %% id="control-count"
masks, measured = true_cells(scenes), {}
for name, pictures in ways.items():
    verdicts = read(judge, pictures)
    overlap = iou(seen_cells(pictures), masks)
    there = [max(misses(v, s)) < 5 and len(v.findings) == len(s.things) for v, s in zip(verdicts, scenes)]
    right = [follows(v, book.caption(s)) for v, s in zip(verdicts, scenes)]
    measured[name] = (overlap.mean().item(), sum(there) / len(there), sum(right) / len(right))
    print(f"{name:10} IoU {overlap.mean():.2f} ± {overlap.std() / len(overlap) ** 0.5:.2f}, ", end="")
    print(f"all things within 5 pixels and none more: {share(there)}, prompt followed: {share(right)}")
if budget(smoke=False, laptop=True, gpu=True):
    assert measured["with"][0] > measured["without"][0] + 0.15 and measured["no prompt"][0] > 0.6
    assert measured["with"][1] > 0.9 and measured["without"][1] < 0.75 and measured["no prompt"][2] < 0.2
    assert measured["with"][2] > measured["without"][2] - 0.05

# %% [markdown] id="control-plot-text"
# The first six of these pages:

# %% id="control-plot" tags=["static"]
sheet = torch.cat(
    [2 * seen[:6].cpu() - 1, book.pictures(scenes[:6]), *[ways[name][:6] for name in ("with", "without")]]
)
show(
    plot_pictures(sheet, columns=min(6, len(seen)), rows=["drawing", "its page", "with", "without"]),
    "Four rows of six images: white line drawings on black; the pages from which they were made; images with the "
    "drawing and the prompt, whose things have the same places and outlines; images with the prompt alone, with the "
    "same kinds of things elsewhere.",
)
print("prompts: " + "; ".join(told[:6]))

# %% [markdown] id="control-read"
# With the drawing, the IoU rises from 0.53 to 0.78, where the reader itself reaches 0.86 on renders. (It is not near 0
# without one, because things stand in much the same places on most pages.) The drawing decides where and in which
# outline, and the prompt all that lines cannot show: colour, place and style.

# %% [markdown] id="pipeline-text"
# The same by diffusers' own pipeline for ControlNet, from the same noise, with DDIM:

# %% id="pipeline-equal"
steering.scheduler = make_scheduler("ddim", steering.scheduler.config)
times = samplers.trailing_times(T, STEPS)
library = steering(
    told[:2],
    image=seen[:2],
    num_inference_steps=STEPS,
    guidance_scale=4.0,
    latents=noise(range(2)),
    output_type="latent",
).images
guided = samplers.guided(painter_for(seen[:2]), encode([""]), 4.0)
ours = samplers.finish(samplers.ddim(guided, noise(range(2)), table, times, cond=encode(told[:2])))
print(f"largest difference in latents: {(ours - library).abs().max():.1e}")
assert (ours - library).abs().max() < 1e-3

# %% [markdown] id="here-text"
# ### Exactly here
#
# Back to the ball of section 1, wanted "high up, at the height of the treetops", at (20, 14). We sketch a ball at
# three spots, an ellipse and an arc each, drawn with PIL; the last is the wanted one. **Predict first:** does the ball
# go where no training page has one?
#
# <details><summary>Answer (after running the cell below)</summary>
# At the left of the meadow: yes, in 4 of 6 images. High up at the right: in all 6, but each has a second ball on the
# ground. In the upper left corner, where the ball was wanted: in none.
# </details>

# %% id="here"
from PIL import Image, ImageDraw

SPOTS = ((22, 44), (45, 20), (20, 14))


def sketch(x, y, radius=9):
    """A ball in dark lines on white paper, 64 x 64 pixels, drawn four times as large."""
    paper = Image.new("RGB", (256, 256), "white")
    pen = ImageDraw.Draw(paper)
    pen.ellipse([4 * (x - radius), 4 * (y - radius), 4 * (x + radius), 4 * (y + radius)], outline="black", width=4)
    pen.arc([4 * (x - radius), 4 * (y - 3), 4 * (x + radius), 4 * (y + 3)], 0, 180, fill="black", width=4)
    return paper


# %% [markdown] id="here-draw-text"
# Six images for each of the three sketches:

# %% id="here-draw" tags=["static"]
BALLS = budget(smoke=1, laptop=6, gpu=16)
landed, sheet = {}, []
for x, y in SPOTS:
    wanted = as_drawing(sketch(x, y), 64, 64)
    pages = look(draw(["a red ball on the grass"] * BALLS, range(BALLS), model=painter_for(wanted)))
    landed[x, y] = [[(f.x, f.y) for f in v.findings if f.kind == "ball"] for v in read(judge, pages)]
    sheet += [2 * wanted - 1, pages[:5]]
show(
    plot_pictures(torch.cat(sheet), columns=1 + min(5, BALLS)),
    "Three rows, each with a sketch of a ball and five images. At the left: three of five balls are there. High at the "
    "right: a ball is drawn there, on a small cloud, and a second one on the ground. In the upper left corner: the "
    "sketch is ignored, and the ball is in the middle.",
)
for (x, y), found in landed.items():
    near = [any(math.dist((x, y), spot) < 5 for spot in spots) for spots in found]
    alone = [len(spots) == 1 for spots in found]
    print(
        f"wanted at ({x}, {y}): a ball within 5 pixels in {sum(near)} of {len(near)} images, one ball in {sum(alone)}"
    )

# %% [markdown] id="here-read"
# So a drawing goes further than any prompt, and still not anywhere. The model has been trained on pages in which a
# thing in the air floats on a cloud above another thing, and it draws the other thing as well. For the corner, where
# nothing ever was, the drawing has no effect at all. (Six images for each spot; the judge looks for balls.)
#
# Now draw yourself: a picture of dark lines on white, from any paint program, is opened with
# `as_drawing(Image.open("my_drawing.png"), 64, 64)`. Or move a thing with sliders. **Predict first, then move the
# sliders:** what happens if the drawing shows a cat, and the prompt says "a car"?
#
# <details><summary>Answer (after running the cell below)</summary>
# In the one seed shown, a car is drawn, and nothing of the cat: with weight 0, without a drawing, nearly the same car
# appears. No training page has a cat's lines and the caption of a car, and this model then believes the prompt. The
# cat itself follows its lines where they are; moved to the left or made smaller, it is joined by a part of a second
# cat where cats usually sit.
# </details>

# %% id="sketch-filmstrip" tags=["static"]
from course_utils.widgets import drawing_explorer, explore, filmstrip

easel = drawing_explorer(
    lambda prompt, seed, wanted, weight: look(draw([prompt], [seed], model=painter_for(wanted, weight)))
)
filmstrip(easel, [{}, {"x": 20, "y": 30}, {"size": 0.6}, {"prompt": "a car"}, {"prompt": "a car", "weight": 0.0}])

# %% [markdown] id="sketch-how"
# The drawing is shown above, the image below it. In the live version `drawn` is the thing
# whose lines are drawn, `x` and `y` its middle in pixels, `size` its size, and `weight` what the residuals are
# multiplied by.

# %% id="sketch-explore"
explore(easel)

# %% [markdown] id="elsewhere"
# ## 10 · What you will read elsewhere
#
# **"More words, better picture." "Add: masterpiece, best quality, highly detailed, 4k."** Words can only do what they
# did in the training captions. First look at whether the model knows them. Then draw the same prompts with and without
# them, from the same noises:

# %% id="more-words" tags=["static"]
from course_utils.text.prompts import inspect_prompt

EXTRA = ", masterpiece, best quality, highly detailed, 4k"
unknown = [word for word, _ in inspect_prompt(pipe.tokenizer, EXTRA).unknown]
print("not in any training caption: " + ", ".join(unknown))
MANY = budget(smoke=4, laptop=48, gpu=200)
wanted = OLD[:MANY]
padded = look(draw([wish.text + EXTRA for wish in wanted], range(len(wanted))))
short_right = followed["before"][:MANY]
long_right = [follows(verdict, wish) for verdict, wish in zip(read(judge, padded), wanted)]
lost, gained = (
    sum(a and not b for a, b in zip(*pair)) for pair in ((short_right, long_right), (long_right, short_right))
)
show(
    plot_pictures(torch.cat([kept["before"][:6], padded[:6]]), columns=6, rows=["plain", "with words"]),
    "Above: six images of the plain prompts. Below: the same with the added words; the things are the same, but two "
    "pages of pixel art and another one have turned into hatching.",
)
print(f"followed: plain {share(short_right)}, with the words {share(long_right)}; {lost} lost, {gained} gained")
sharp = [(p[..., 1:] - p[..., :-1]).abs().mean().item() for p in (kept["before"][:MANY], padded)]
print(f"mean step between neighbouring pixels, a measure of detail: {sharp[0]:.4f} and {sharp[1]:.4f}")

# %% [markdown] id="more-read"
# The model knows none of these words, and the images are not better: 0.73 of the prompts are followed, against 0.83 (±
# 0.06 each; 6 of 48 are lost and 1 is gained). The measure of detail rises by a tenth, because some images have
# changed their *style*, to one with hatching. A model in whose training captions "4k" goes with certain images will
# draw more like those; that is a style, too.
#
# **"4k makes it sharper."** The number of pixels is fixed before the first step, by the size of the latents: 64 × 64
# pixels come out, whatever the prompt says.
#
# **"Negative prompts delete things."** Section 2 has measured it: what the prompt itself names stays.
#
# **"`(red:1.3)` makes the model look 1.3 times as much at the word."** The Web UI multiplies the *hidden states* of the
# word's tokens by 1.3, and then all hidden states by a number that restores their mean. By hand:


# %% id="brackets"
def emphasise(prompt, word, weight):
    """The hidden states of a prompt (1, 32, 128) with those of a word multiplied, and the mean restored."""
    hidden = encode([prompt])
    tokens = pipe.tokenizer(prompt).input_ids
    number = tokens.index(pipe.tokenizer(word).input_ids[1])
    changed = hidden.clone()
    changed[:, number] *= weight
    return changed * hidden.mean() / changed.mean()


prompt = "a red ball left of a white cat"
place = pipe.tokenizer(prompt).input_ids.index(pipe.tokenizer("red").input_ids[1])
factors = {}
for weight in (0.0, 1.0, 1.3, 2.0):
    ratio = (emphasise(prompt, "red", weight) / encode([prompt]))[0].mean(1)
    factors[weight] = (ratio[place].item(), ratio[place + 1].item())
    print(
        f"(red:{weight:g}): its hidden state times {ratio[place]:.3f}, each of the others times {ratio[place + 1]:.3f}"
    )
assert abs(factors[1.3][0] / factors[1.3][1] - 1.3) < 1e-3 and factors[1.3][0] < 1.3

# %% [markdown] id="brackets-share-text"
# And the attention? In one layer, halfway through the noise levels, the share of attention that goes to the token (mean
# over all pixels of 16 noises):

# %% id="brackets-share"
from course_utils.models.attention import word_maps

*_, layer = (part for name, part in pipe.unet.named_modules() if name.startswith("up") and name.endswith("0.attn2"))
caught = []


def catch(module, arguments, named):
    """Record the share of the word in one evaluation."""
    q, k = module.to_q(arguments[0]), module.to_k(named["encoder_hidden_states"])
    caught.append(word_maps(q, k, module.heads)[:, place].mean().item())


hook = layer.register_forward_pre_hook(catch, with_kwargs=True)
for weight in (1.0, 1.3, 2.0):
    painter(
        noise(range(16)), torch.full((16,), 500, device=device), emphasise(prompt, "red", weight).expand(16, -1, -1)
    )
hook.remove()
print("share at weights 1, 1.3 and 2: " + ", ".join(f"{value:.4f}" for value in caught))
if budget(smoke=False, laptop=True, gpu=True):
    assert 1.4 < caught[1] / caught[0] < 1.7 and 2.2 < caught[2] / caught[0] < 2.8

# %% [markdown] id="brackets-text"
# So the number in the brackets multiplies keys and values *relative to the other words*, which become smaller; what
# that does to attention, a softmax, is another matter: in this layer the word's share grows by half at 1.3, and to two
# and a half times at 2. And does a weight of 0 remove the word? The hidden states of the tokens after it have read it.
# **Predict first:** with weight 0 on *red*, how many balls are still red? And how many follow the whole prompt at
# weights 1.3 and 2?
#
# <details><summary>Answer (after running the cell below)</summary>
# With weight 0 all 24 balls are still red: the hidden states of the tokens after it have read the word. Both things
# are right in 0.62 to 0.92 of the images, without any trend (the standard error of each share is 0.07 to 0.10).
# </details>

# %% id="brackets-run" tags=["static"]
COUNT = budget(smoke=2, laptop=24, gpu=96)
reds, sheet = {}, []
for weight in (0.0, 1.0, 1.3, 2.0):
    pages = look(draw_told(emphasise(prompt, "red", weight).expand(COUNT, -1, -1), range(COUNT)))
    found = [{(f.colour, f.kind) for f in v.findings} for v in read(judge, pages)]
    reds[weight] = [("red", "ball") in pairs for pairs in found]
    whole_prompt = [pairs == {("red", "ball"), ("white", "cat")} for pairs in found]
    sheet.append(pages[:6])
    print(f"(red:{weight:g}): red ball {share(reds[weight])}, both things right {share(whole_prompt)} of {COUNT}")
if budget(smoke=False, laptop=True, gpu=True):
    assert sum(reds[0.0]) > 0.9 * COUNT
show(
    plot_pictures(torch.cat(sheet), columns=len(sheet[0]), rows=[f"{w:g}" for w in reds]),
    "Four rows, one for each weight of the word red, from 0 to 2: red balls left of white cats in all of them.",
)

# %% [markdown] id="brackets-read"
# At weight 2 the images change more: other places, and red patches on one of the cats shown. So such a weight does
# something, but not what its number suggests: it neither removes a word at 0 nor makes the image 1.3 times as red.
#
# **"A LoRA is a small model of its own."** It is a difference, and a difference of *this* model's weights. Without
# them it draws nothing. Here the trained $A$ and $B$ stand alone ($W$ set to zero in the layers that have them), and
# then beside the weights of another model of the same shape, with random numbers:

# %% id="alone" tags=["static"]
from course_utils.recipes.unet import small_unet

ROW = budget(smoke=2, laptop=6, gpu=6)
alone = copy.deepcopy(pipe.unet)
for layer in lora.load_lora(alone, folder / "fox.safetensors"):
    layer.base.weight.data.zero_()
torch.manual_seed(0)
foreign = small_unet().to(device).requires_grad_(False)
lora.load_lora(foreign, folder / "fox.safetensors")
rows_drawn = {
    name: look(draw(asked[:ROW], range(ROW), model=painter_of(unet)))
    for name, unet in (("with its model", taught["with old pages"]), ("W = 0", alone), ("other weights", foreign))
}
show(
    plot_pictures(torch.cat(list(rows_drawn.values())), columns=ROW, rows=list(rows_drawn)),
    "Three rows: foxes by the U-Net with its LoRA; a grey pattern without things where W is zero; coloured specks with "
    "random weights.",
)
for name, pictures in rows_drawn.items():
    print(f"{name}: right foxes {sum(right_foxes(pictures, new[:ROW]))} of {ROW}")

# %% [markdown] id="alone-read"
# Nor is a LoRA at home in another model of the same shape: what it adds means something only to the features of the
# model that it was trained with.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | the last $\lfloor \text{steps} \cdot \text{strength} \rfloor$ times | `remaining_times(times, strength)` |
# | $\mathcal{M} x_t + (1-\mathcal{M})(\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon)$ | `blend_known` |
# | $\sqrt{\bar\alpha_t/\bar\alpha_\text{earlier}}\;x + \sqrt{1 - \bar\alpha_t/\bar\alpha_\text{earlier}}\;\varepsilon$ | `renoise` |
# | a path from $\varepsilon_a$ to $\varepsilon_b$ on which every point is noise | `between(a, b, count)` |
# | the maps of the old prompt in those of the new one | `inject_maps(own, kept, partners)` |
# | $\partial L/\partial v$ of one row, 0 elsewhere | `only_row(gradient, row)` |
# | $W x + b + \frac{\alpha}{r} B A x$ | `LoRALinear(base, rank, alpha)` |
# | $Z = 0$ at the start | `zero_convolution(channels)` |
# | $\text{skip}_i + w_d\,\text{residual}_i$ | `add_residuals(skips, residuals, weight)` |
# | $\lVert v - v_\theta(x_t, t, c, d) \rVert^2$ | `control_loss(model, x0, cond, drawing, t, eps, …)` |
#
# Five sentences to keep: A prompt names a set of images, and each handle of this chapter chooses within it or goes
# beyond it. What is to be kept must be put in: as noisy latents, as attention maps, or as pixels at the end. What
# starts at zero changes nothing at first, and learns all the same. If you teach a model something new, measure also
# what it forgets. Words do only what they did in the training captions.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. You load a LoRA with weight 2 instead of 1. Is that like training it twice as long?</summary>
# No. The weight multiplies the difference that was found, in its direction, and the U-Net leaves the range in which it
# was trained. A longer training can change the direction, and stops where the loss no longer falls.
# </details>
# <details><summary>2. How large is the file of section 7's word, and what can it not learn?</summary>
# It is 128 numbers of four bytes each. They enter where all words enter, as keys and values of cross-attention; the
# weights that turn these into pixels stay as they are. A word can only ask for combinations of what these can draw.
# </details>
# <details><summary>3. A ControlNet was trained with line drawings. You pass a photograph. What is drawn?</summary>
# No error is raised: a photograph is a tensor of the same shape. But its copy has met only thin white lines on black,
# and takes every bright area for something that no drawing contains. Use the same preparation as in training:
# as_drawing, or an edge detector.
# </details>
#
# **Papers** Noising and going back (SDEdit): Meng et al., [arXiv:2108.01073](https://arxiv.org/abs/2108.01073).
# Inpainting by going back and forth (RePaint): Lugmayr et al., [arXiv:2201.09865](https://arxiv.org/abs/2201.09865).
# Prompt-to-prompt: Hertz et al., [arXiv:2208.01626](https://arxiv.org/abs/2208.01626). Inverting real images: Mokady
# et al., [arXiv:2211.09794](https://arxiv.org/abs/2211.09794). Textual inversion: Gal et al.,
# [arXiv:2208.01618](https://arxiv.org/abs/2208.01618). LoRA: Hu et al.,
# [arXiv:2106.09685](https://arxiv.org/abs/2106.09685). DreamBooth: Ruiz et al.,
# [arXiv:2208.12242](https://arxiv.org/abs/2208.12242). ControlNet: Zhang et al.,
# [arXiv:2302.05543](https://arxiv.org/abs/2302.05543).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: control from colours
#
# `book.maps(scene)` has two maps more: `things` (which pixel belongs to which thing) and `depth` (how near it is).
# Train a ControlNet with one of them in place of the lines: in `drawings`, return `maps(scene).depth` three times, and
# let the training cell of section 9 run for as long as you can wait. Compare the IoU with that of lines. Which of the
# three kinds of map leaves the model the most freedom?
