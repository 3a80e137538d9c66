# %% [markdown] id="studio-set-up-text"
# The set-up of this draft: in the chapter it is merged with that of the others.

# %% id="studio-set-up"
import re
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from course_utils.diffusion import objectives, samplers
from course_utils.exercises import check
from course_utils.machine.devices import budget, pick_device
from course_utils.models.judge import read
from course_utils.pipelines import editing
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.plotting import plot_pictures, show, use_style
from course_utils.recipes import load_judge
from course_utils.text import tokens

use_style()
device = pick_device()
pipe, judge, STEPS = load_picture_book(device=device), load_judge(), budget(smoke=2, laptop=10, gpu=20)
ENOUGH = budget(smoke=False, laptop=True, gpu=True)
alpha_bar = pipe.scheduler.alphas_cumprod.to(device)
times = samplers.trailing_times(len(alpha_bar), STEPS)
FOLDER = Path(tempfile.mkdtemp())


def encode(prompts):
    """The hidden states of a list of prompts: (n, 32, 128)."""
    return torch.no_grad()(tokens.encode)(pipe.tokenizer, pipe.text_encoder, prompts)


def noise(seeds, width=16):
    """One noise for each seed: (n, 8, 16, width)."""
    one = [torch.randn(8, 16, width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(one).to(device)


def painter(drawing=None):
    """model(x_t, t, cond) -> predicted noise."""
    return torch.no_grad()(lambda x_t, t, c: objectives.eps_from_v(x_t, pipe.unet(x_t, t, c).sample, t, alpha_bar))


def interval(values):
    """The mean and its 95% interval, in words."""
    return f"{values.mean():.2f} ± {1.96 * values.std() / len(values) ** 0.5:.2f}"


def draw(prompts, seeds, scale=4.0, drawing=None):
    """Images (n, 3, 64, 64) in [-1, 1], on the CPU, one for each prompt (or its hidden states) and seed."""
    cond = encode(prompts) if isinstance(prompts, list) else prompts
    model = samplers.guided(painter(drawing), encode([""]), scale)
    drawn = samplers.finish(samplers.dpm_solver(model, noise(seeds), alpha_bar, times, cond=cond))
    return editing.decode_latents(pipe, drawn).cpu()


# %% [markdown] id="studio-text"
# ## 1 · The studio
#
# **Stable Diffusion Web UI** is the program with which many people draw: a page in the browser, with a prompt, dozens of
# settings and a button. It looks complicated, but you have built nearly all of its parts:
#
# | in the Web UI | what it is | chapter | here |
# |:--|:--|:--|:--|
# | *checkpoint* | a folder with U-Net, autoencoder, text encoder and tokenizer | 11 | `pipelines/model_folder.py` |
# | *txt2img* | noise, text features, the sampling loop, the decoder | 10 | `pipelines/picture_book.py` |
# | *sampling method*, *steps* | which solver, and how many times it evaluates the U-Net | 07 | `diffusion/samplers.py` |
# | *CFG scale*, *negative prompt* | guidance, and what it moves away from | 10 | `diffusion/guidance.py` |
# | *img2img*, *denoising strength* | noise added to an image up to a time, and the way back | 12 | `pipelines/editing.py` |
# | *inpaint* | new latents inside a mask only | 12 | `pipelines/editing.py` |
# | *ControlNet* | an encoder for a drawing, added to the U-Net | 12 | `models/control.py` |
# | *LoRA* | low-rank additions to the weights | 12 | `models/lora.py` |
# | *variation seed* | a noise on the arc between two noises | 12 | `diffusion/editing.py` |
# | *live preview* | $\hat x_0$ at each step, decoded or mapped to colours | 09 | `diffusion/latents.py` |
# | *PNG info* | the settings, written into the file | 11 | `pipelines/png_info.py` |
# | `(word:1.3)`, `[a:b:0.5]`, `BREAK` | a syntax for prompts | this one | `text/syntax.py` |
# | *X/Y/Z plot* | a sheet of images with a setting along each side | this one | `studio/grid.py` |
# | *interrupt*, progress, gallery | a thread that reports after each step and can be stopped | this one | `studio/session.py` |
#
# So this section builds the rest, and then puts a studio together. The syntax of prompts comes first: what does it do to the numbers, and does it do what people say?

# %% [markdown] id="weights-text"
# ### A weight for a word
#
# In `a (blue:1.3) ball` the word "blue" has the weight 1.3; `(blue)` is short for 1.1, `[blue]` for 1/1.1. Brackets in
# brackets multiply: `((blue))` has 1.21, and in `((blue:1.3) ball:2)` "blue" has 2.6. `\(` is the character itself. A
# bracket that is never closed holds to the end, and a closing one that closes nothing is text.
#
# First the prompt is cut into pieces: a character after a backslash, a weight with its closing bracket, a single bracket,
# and text.

# %% id="pieces"
PIECE = re.compile(r"\\.?|:\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*\)|[()\[\]]|[^\\()\[\]:]+|:", re.DOTALL)
print(PIECE.findall(r"a ((blue:1.3) ball:2), [very] small \(:-\)"))


def joined(pieces):
    """Pairs (text, weight), neighbours of exactly the same weight made one, empty texts left out."""
    whole = []
    for piece, weight in pieces:
        if whole and whole[-1][1] == weight:
            whole[-1] = (whole[-1][0] + piece, weight)
        elif piece:
            whole.append((piece, weight))
    return whole


# %% [markdown] id="ex-weights-text"
# ### Exercise · Read the weights
#
# ●●●○○ · 20 minutes. Return the prompt as a list of pairs `(text, weight)` without its syntax, in order. Neighbours of
# exactly the same weight are joined, empty texts left out: "a ball" gives `[("a ball", 1.0)]`, "" gives `[]`. Both kinds
# of brackets are kept apart: in `(a [b) c]` the round bracket closes at ")", the square one at "]". A weight such as
# `:2)` without an open round bracket is text, and so is a `:` elsewhere, or a number that square brackets close, as in
# `[b:2]`. `PIECE` and `joined` are at
# your disposal. (`BREAK` is text here.)


# %% id="ex-weights"
def read_weights(text):
    """The prompt as pairs (text, weight), neighbours of one weight joined."""
    ### BEGIN SOLUTION
    pieces, opened, factor = [], {"(": [], "[": []}, {"(": 1.1, "[": 1 / 1.1}
    opener = {")": "(", "]": "["}

    def close(bracket, weight):
        start = opened[bracket].pop()
        pieces[start:] = [(piece, before * weight) for piece, before in pieces[start:]]

    for part in PIECE.findall(text):
        if part[0] == "\\":
            pieces.append((part[1:], 1.0))
        elif part in opened:
            opened[part].append(len(pieces))
        elif part[0] == ":" and part[-1] == ")" and opened["("]:
            close("(", float(part[1:-1]))
        elif opened.get(opener.get(part)):
            close(opener[part], factor[opener[part]])
        else:
            pieces.append((part, 1.0))
    for bracket in opened:  # what was never closed holds to the end
        while opened[bracket]:
            close(bracket, factor[bracket])
    return joined(pieces)
    ### END SOLUTION


# %% id="check-weights"
read_weights = check("16.read_weights", read_weights)
# Stuck? hint("16.read_weights") gives one hint per call; solution("16.read_weights") is the last resort.

# %% [markdown] id="weigh-text"
# What is done with a weight? The U-Net never sees words. It sees hidden states, one vector for each token
# (chapter 08), and the Web UI multiplies those of a weighted word. With $H_j$ the hidden state of token $j$:
#
# $$H'_j = \text{weight}_j\, H_j \cdot \frac{\operatorname{mean}(H)}{\operatorname{mean}(\text{weight}\, H)}$$
#
# In words: each vector times its weight, then everything by one factor, so that the mean of all numbers is what it was.
# Start, end and padding have the weight 1.
#
# ### Exercise · Weigh the features
#
# ●●○○○ · 10 minutes. `hidden` is (chunks, tokens, width), `weights` (chunks, tokens); return a tensor like `hidden`. Each
# chunk has a mean of its own. Where the factor of a chunk is not strictly between 1/2 and 2, as it happens for means near 0, leave
# the factor out. (The Web UI has no such bound; where the mean of a chunk is near 0, its factor can be anything.) A chunk whose
# weights are all 1 stays as it is, to the bit.


# %% id="ex-features"
def weighted_features(hidden, weights):
    """Hidden states times their weights, with the mean of each chunk kept: (chunks, tokens, width)."""
    ### BEGIN SOLUTION
    scaled = hidden * weights.to(hidden)[:, :, None]  # (chunks, tokens, width)
    #: one factor for each chunk
    factor = hidden.mean((1, 2)) / scaled.mean((1, 2))  # (chunks,)
    factor = torch.where((factor > 0.5) & (factor < 2), factor, torch.ones_like(factor))
    plain = (weights == 1).all(1)
    return torch.where(plain[:, None, None], hidden, scaled * factor[:, None, None])
    ### END SOLUTION


# %% id="check-features"
weighted_features = check("16.weighted_features", weighted_features)

# %% [markdown] id="by-hand-text"
# Both together, compared with the package's `syntax.encode_weighted`. Without weights they must give what chapter 10's
# `encode` gives.

# %% id="by-hand"
from course_utils.text import syntax


@torch.no_grad()
def weigh(prompt):
    """The hidden states of a prompt with weights, by hand: (1, 32, 128)."""
    ids, weights = [pipe.tokenizer.bos_token_id], [1.0]
    for text, weight in read_weights(prompt):
        new = pipe.tokenizer(text, add_special_tokens=False).input_ids
        ids, weights = ids + new, weights + [weight] * len(new)
    free = pipe.tokenizer.model_max_length - len(ids)  # for the end and the padding
    ids += [pipe.tokenizer.eos_token_id] + [pipe.tokenizer.pad_token_id] * (free - 1)
    hidden = pipe.text_encoder(torch.tensor([ids], device=device)).last_hidden_state
    return weighted_features(hidden, torch.tensor([weights + [1.0] * free]))


for prompt in ("a white cat", "a (white:1.3) cat", r"((a [small]) \(red\) ball:0.8) on the (beach", "(white cat:-1)"):
    theirs = syntax.encode_weighted(pipe.tokenizer, pipe.text_encoder, prompt)
    assert torch.allclose(weigh(prompt), theirs, atol=1e-6), prompt
    print(f"{prompt:46} {read_weights(prompt)}")
assert torch.equal(weigh("a white cat"), encode(["a white cat"]))

# %% [markdown] id="contest-text"
# ### What does a weight do?
#
# "Use (word:1.3) to get more of it", one reads. Three prompts test that. In two of them a weighted colour has a rival:
# `a (blue:w) red ball` and `a (white:w) orange cat`. In the third it stands alone. The judge counts how many images show
# the weighted colour on the right thing. **Predict first:** from which weight on does the first word win? And does a weight
# help where there is no rival?
#
# <details><summary>Answer (after running the cells below)</summary>
# Between 1.3 and 2. At 1.3 the first colour wins in none of 16 images of either contest (0% to 19%), as without a
# weight; at 2 it wins in 13 of 16 (57% to 93%) and 10 of 16 (39% to 82%). Without a rival the word gains nothing: 13, 13 and 11
# white cats of 16. At 4 nothing is left that the judge would call a ball or a cat.
# </details>

# %% id="contest"
from course_utils.metrics.statistics import wilson_interval

WEIGHTS = budget(smoke=(1, 2), laptop=(1, 1.3, 2, 4), gpu=(1, 1.15, 1.3, 1.6, 2, 3, 4))
SHOTS = list(range(budget(smoke=2, laptop=16, gpu=64)))
CASES = {
    "a ({}) red ball on the grass": ("blue", "ball"),
    "a ({}) orange cat on the grass": ("white", "cat"),
    "a ({}) cat on the grass": ("white", "cat"),
}


def said(truths):
    """The share of true values, its 95% interval and n, in words."""
    low, high = wilson_interval(sum(truths), len(truths))
    return f"{sum(truths)} of {len(truths)} ({low:.0%} to {high:.0%})"


wins, weighed = {}, {}
for case, (colour, kind) in CASES.items():
    for weight in WEIGHTS:
        prompt = case.format(f"{colour}:{weight}")
        weighed[prompt] = draw(weigh(prompt).expand(len(SHOTS), -1, -1), SHOTS)
        found = [{(f.colour, f.kind) for f in verdict.findings} for verdict in read(judge, weighed[prompt])]
        wins[case, weight] = [each == {(colour, kind)} for each in found]
        named = sum(kind in [name for _, name in each] for each in found)
        print(f"{prompt:37} {colour} {kind} alone: {said(wins[case, weight])}; a {kind} at all: {named}")

# %% id="contest-plot" tags=["static"]
show(
    plot_pictures(
        torch.cat([pictures[:2] for pictures in weighed.values()]),
        columns=2 * len(WEIGHTS),
        heads=[f"weight {weight}" for weight in WEIGHTS for _ in range(2)],
        rows=["blue, red ball", "white, orange cat", "white cat"],
    ),
    "Three prompts, a row each, two seeds for each weight. Up to 1.3 balls are red and cats with two colours orange; at 2 they are "
    "mostly blue and white, some in two colours; at 4 the images are blotches of blue and white.",
)
if ENOUGH:
    rate = {key: sum(truths) / len(truths) for key, truths in wins.items()}
    ball, cat, alone = CASES
    assert max(rate[ball, 1.3], rate[cat, 1.3]) < 0.2 and min(rate[ball, 2], rate[cat, 2]) > 0.4
    assert rate[alone, 2] <= rate[alone, 1] and max(rate[case, 4] for case in CASES) < 0.2

# %% [markdown] id="contest-read"
# So a weight does not simply give more of a word. Where two words compete it can decide which wins, and the balance tips somewhere between
# 1.3 and 2. Where nothing competes there is nothing to win: 11 of 16 in place of 13 is within chance. The text encoder ends
# in a normalisation, so the U-Net has never met a hidden state of four times the usual length, and what it makes of one is no
# longer a thing. (In another model the numbers will differ.)

# %% [markdown] id="change-text"
# ### Change the prompt while drawing
#
# `[a:b:0.5]` is "a" for the first half of the steps, then "b"; `[a:b:7]` changes after step 7, `[b:0.5]` adds and
# `[a::0.5]` takes away. Since the sampler hands the prompt to the model at each step, this takes a line: another condition
# from some step on. **Predict first:** `[a white cat:an orange corgi:0.5] on the grass`. Will it be a cat, a corgi, or
# something between? From which share on is it a cat?
#
# <details><summary>Answer (after running the cells below)</summary>
# A corgi, and not only at 0.5: of 12 images all are corgis at 0.5 and at 0.8 (76% to 100%), and still 8 at 0.9, where
# only the last of ten steps has the second prompt, and 3 are cats. What the first prompt leaves behind is the
# *arrangement*: pose, size, sun and clouds are the cat's, and not those that the second prompt alone draws from these seeds.
# </details>

# %% id="change"
CHANGES = budget(smoke=(0.5,), laptop=(0.5, 0.8, 0.9), gpu=(0.3, 0.5, 0.7, 0.8, 0.9))
FEW = SHOTS[:12]
first, then = (weigh(f"{what} on the grass").expand(len(FEW), -1, -1) for what in ("a white cat", "an orange corgi"))
steered_by = samplers.guided(painter(), encode([""]), 4.0)


def changing(last):
    """A model that reads the first prompt in the steps up to `last`, and then the second one."""
    return lambda x_t, t, cond: steered_by(x_t, t, first if times.index(int(t.flatten()[0])) < last else then)


changed = {"cat only": draw(first, FEW), "corgi only": draw(then, FEW)}
for change_at in CHANGES:
    walk = samplers.dpm_solver(changing(int(change_at * STEPS)), noise(FEW), alpha_bar, times, cond=first)
    changed[f"change at {change_at}"] = editing.decode_latents(pipe, samplers.finish(walk)).cpu()

# %% id="change-measure" tags=["static"]
kinds = {name: [{f.kind for f in v.findings} for v in read(judge, pictures)] for name, pictures in changed.items()}
nearer = {}
for name, pictures in changed.items():
    cats, corgis = (sum(each == {kind} for each in kinds[name]) for kind in ("cat", "corgi"))
    from_cat, from_corgi = (
        (pictures - changed[only]).abs().mean((1, 2, 3)) * 127.5 for only in ("cat only", "corgi only")
    )
    nearer[name] = from_corgi - from_cat  # one number for each seed
    print(
        f"{name}: {cats} cats, {corgis} corgis of {len(FEW)}; nearer to the cat's image by {interval(nearer[name])} grey levels"
    )
strip = torch.cat([pictures[:6] for pictures in changed.values()])
show(
    plot_pictures(strip, columns=len(strip) // len(changed), rows=list(changed)),
    "Six seeds, a row for each prompt: white cats; orange corgis, in other poses; with a change at 0.5 or 0.8, orange corgis "
    "in the poses of the cats, below the same clouds; at 0.9 pale orange animals between cat and corgi.",
)
if ENOUGH:
    low = nearer["change at 0.8"].mean() - 1.96 * nearer["change at 0.8"].std() / len(FEW) ** 0.5
    assert low > 0 and sum(each == {"corgi"} for each in kinds["change at 0.8"]) >= 0.75 * len(FEW)
    assert not sum(each == {"cat"} for each in kinds["change at 0.5"])

# %% [markdown] id="change-read"
# The early steps decide where things are, the late ones what they are: here, with a guidance of 4, a single step at the
# end is enough to turn most cats into something that the judge takes for a corgi. So the syntax is of use for one purpose
# above all, to take the composition from one prompt and the content from another.

# %% [markdown] id="break-text"
# The package's `syntax.prompt_at` resolves such a prompt for a step, with brackets in brackets; `BREAK` is the third piece
# of syntax. A text encoder reads a fixed number of tokens: CLIP 77, ours 32. What is longer goes into further **chunks**,
# each encoded by itself, and their hidden states are joined: (1, 32 · chunks, 128). Cross-attention takes any number of
# tokens. `BREAK` begins a new chunk by hand. It is said to keep colours apart: no token of one chunk can look into the other.
# **Predict first:** will `a red ball BREAK a white cat on the grass` mix up ball and cat less than the same with "and"?
#
# <details><summary>Answer (after running the cell below)</summary>
# Far worse: of 16 images none shows both (0% to 19%), and 14 show red balls only; with "and" 10 do (39% to 82%). It is not the length:
# with an empty second chunk, as many tokens, there are 11.
# </details>

# %% id="break"
schedule = [syntax.prompt_at("a [white cat:corgi:0.5] on the grass", step, 10) for step in range(1, 11)]
assert schedule == ["a white cat on the grass"] * 5 + ["a corgi on the grass"] * 5

both = syntax.encode_weighted(pipe.tokenizer, pipe.text_encoder, "a red ball BREAK a white cat on the grass")
assert torch.allclose(both, torch.cat([weigh("a red ball"), weigh("a white cat on the grass")], 1), atol=1e-6)
plain = weigh("a red ball and a white cat on the grass")
ways = {"one chunk": plain, "with an empty chunk": torch.cat([plain, weigh("")], 1), "BREAK": both}
kept = {}
for name, hidden in ways.items():
    empty = torch.cat([encode([""])] * (hidden.shape[1] // 32), 1)  # as many chunks for the empty prompt
    model, cond = samplers.guided(painter(), empty, 4.0), hidden.expand(len(SHOTS), -1, -1)
    walk = samplers.dpm_solver(model, noise(SHOTS), alpha_bar, times, cond=cond)
    verdicts = read(judge, editing.decode_latents(pipe, samplers.finish(walk)).cpu())
    found = [{(f.colour, f.kind) for f in v.findings} for v in verdicts]
    kept[name] = [each == {("red", "ball"), ("white", "cat")} for each in found]
    alone = sum(each == {("red", "ball")} for each in found)
    print(f"{name}, {tuple(hidden.shape)}: red ball and white cat {said(kept[name])}, only red balls {alone}")
if ENOUGH:
    assert sum(kept["BREAK"]) < sum(kept["one chunk"]) and sum(kept["with an empty chunk"]) > sum(kept["BREAK"])

# %% [markdown] id="break-read"
# This U-Net has never met a second chunk in training, and a second beginning of a sentence even less. The words are not mixed up; those
# of the second chunk hardly count: 14 of 16 images show red balls only. In large models, which are run with several chunks every day, `BREAK` may do better.
# Whether it does can be found out by a count like this one.

# %% [markdown] id="variation-text"
# ### A little different: variation seeds
#
# You like an image and want variants of it. Another seed gives an unrelated image. A *variation seed* gives a second noise, and the
# first is turned towards it by a share $\xi$, on the arc of chapter 12 (`slerp`), so that it keeps its length. **Predict
# first:** at $\xi = 0.2$, how far is the image from the first one, compared with an unrelated one? A fifth of the distance?
#
# <details><summary>Answer (after running the cell below)</summary>
# A little more than a quarter: 8 ± 4 grey levels, where the image of another seed is 30 ± 4 away (95% intervals, n = 12). The mean hides
# that the way is not even: some images hardly change, others take another pose.
# </details>

# %% id="variation" tags=["static"]
from course_utils.diffusion.editing import slerp

TURNS = budget(smoke=(0.0, 1.0), laptop=(0.0, 0.1, 0.2, 0.5, 1.0), gpu=(0.0, 0.05, 0.1, 0.2, 0.5, 1.0))
puppy = encode(["a cute corgi puppy on the grass"]).expand(len(FEW), -1, -1)
one, other = noise(FEW), noise([1000 + seed for seed in FEW])
relatives = []
for xi in TURNS:
    turned = torch.cat([slerp(a[None], b[None], xi) for a, b in zip(one, other)])
    walk = samplers.dpm_solver(steered_by, turned, alpha_bar, times, cond=puppy)
    relatives.append(editing.decode_latents(pipe, samplers.finish(walk)).cpu())
away = {xi: (some - relatives[0]).abs().mean((1, 2, 3)) * 127.5 for xi, some in zip(TURNS, relatives)}  # grey levels
for xi, levels in away.items():
    print(f"ξ = {xi}: {interval(levels)} grey levels from the first image (95% interval, n = {len(FEW)})")
if ENOUGH:
    assert 0.15 < away[0.2].mean() / away[1.0].mean() < 0.45
strip = torch.stack([pictures[seed] for seed in range(min(3, len(FEW))) for pictures in relatives])
show(
    plot_pictures(strip, columns=len(TURNS), heads=[f"ξ = {xi}" for xi in TURNS]),
    "Three corgi puppies, a row each, and how they change while the noise is turned: at 0.1 hardly, at 0.2 two of them hardly and the "
    "third one lies down, at 0.5 pose and place have changed, and at 1 it is another image.",
)

# %% [markdown] id="variation-read"
# Small turns give small changes on average, so the control does what it is meant for. But no share guarantees it: some
# images change little by little, and others jump to another pose.

# %% [markdown] id="plot-text"
# ### A sheet with axes
#
# A sheet of images with one setting along each side shows at a glance what a table of numbers hides; the Web UI calls it
# X/Y/Z plot. Axes are written as text: `1-5`, `1-9 (+2)`, `0-1 [5]`, or words that take turns in the prompt. `Session`
# is the studio without its page: it draws what it is asked for, reports, and keeps each image in a folder.

# %% id="plot" tags=["static"]
from course_utils.pipelines.png_info import Settings
from course_utils.studio import grid, session
from course_utils.studio.gallery import Gallery
from course_utils.studio.shelf import Shelf

desk = session.Session(Shelf(device=device), Gallery(FOLDER / "gallery"))
wish = session.Request(Settings("a blue red ball on the grass", steps=STEPS, seed=7))
x_axis = grid.parse_axis(
    "words", budget(smoke="blue, (blue:2)", laptop="blue, (blue:1.3), (blue:2)", gpu="blue, (blue:2)")
)
y_axis = grid.parse_axis("guidance", budget(smoke="4", laptop="1, 4, 8", gpu="1, 2, 4, 8"))
plot = grid.plan(wish, x_axis, y_axis)


def drawn_by(requests):
    """What a session draws for these requests: a list of `Drawn` (picture, settings, path)."""
    events = []
    desk.run(requests, events.append)
    assert not events[-1].failed, events[-1].message
    return [event for event in events if isinstance(event, session.Drawn)]


shots = drawn_by(plot.requests)
print(
    f"{grid.parse_axis('seed', '1-9 (+2)').values}; {grid.parse_axis('variation', '0-1 [5]').values}; {len(shots)} images"
)
show(
    grid.sheet(plot, [shot.picture for shot in shots]),
    "A red ball becomes a blue one as the weight of the word blue grows, from left to right; downwards, with guidance 1, 4 and 8, colours get stronger, and with both at their largest the ball dissolves.",
)

# %% [markdown] id="info-text"
# ### An image that knows how it was made
#
# Each file carries its settings, in the words of the Web UI (chapter 11). Reading them and drawing once more must give the
# same pixels, all of them, or something is missing from what was written.

# %% id="info"
from PIL import ImageChops

from course_utils.pipelines.png_info import format_parameters, read_png

last = shots[-1]
settings = read_png(last.path)
(again,) = drawn_by([session.Request(settings)])
assert ImageChops.difference(again.picture, last.picture).getbbox() is None  # no pixel differs
(other_seed,) = drawn_by([session.Request(Settings(settings.prompt, steps=STEPS, seed=8))])
assert ImageChops.difference(other_seed.picture, last.picture).getbbox() is not None
print(format_parameters(settings))

# %% [markdown] id="page-text"
# ### The page
#
# ![The studio in a browser: prompt and negative prompt at the upper left, below them tabs for text to image, image to
# image, inpainting, drawing, plots, PNG info and the gallery, then the settings; at the right a white cat in
# watercolour and three smaller ones](../chapters/figures/studio.png)
#
# The rest is a page with controls. It works in the notebook, and as a program of its own, with
# `python3 course.py studio`. Two pages that are open at once are two sessions, which do not disturb each other. Try:
#
# - stop a drawing of 50 steps half way;
# - draw, press *Send to inpaint* in the gallery, paint over the thing, change its colour in the prompt, and draw;
# - draw a house with the mouse, and let it be followed;
# - drop an image of yesterday on *PNG info*, and send it to *Text to image*.

# %% id="page"
from course_utils.studio.panel import studio

studio(FOLDER / "gallery")
