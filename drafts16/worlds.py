# %% [markdown] id="worlds-set-up-text"
# The parts are those of chapters 10 and 12. `draw` samples images with the solver of chapter 07 from one noise for each
# seed; `prompts` may be texts or hidden states, and `drawing` is a line drawing for the ControlNet.

# %% id="worlds-set-up"
import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from course_utils.data import picture_book as book
from course_utils.diffusion import objectives, samplers
from course_utils.diffusion.editing import lerp
from course_utils.exercises import check
from course_utils.machine.devices import budget, pick_device
from course_utils.models.control import steered
from course_utils.models.judge import read
from course_utils.pipelines import animation, editing, panorama, parallax, tiling
from course_utils.pipelines.control import load_control
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.plotting import plot_pictures, show, use_style
from course_utils.recipes import load_judge
from course_utils.text import tokens

use_style()
device = pick_device()

# %% id="worlds-parts"
pipe, judge, STEPS = load_picture_book(device=device), load_judge(), budget(smoke=2, laptop=10, gpu=20)
ENOUGH = budget(smoke=False, laptop=True, gpu=True)  # are there enough images for claims about quality?
controlnet, alpha_bar = load_control(pipe).controlnet, pipe.scheduler.alphas_cumprod.to(device)
times = samplers.trailing_times(len(alpha_bar), STEPS)


def encode(prompts):
    """The hidden states of a list of prompts: (n, 32, 128)."""
    return torch.no_grad()(tokens.encode)(pipe.tokenizer, pipe.text_encoder, prompts)


def noise(seeds, width=16):
    """One noise for each seed: (n, 8, 16, width)."""
    one = [torch.randn(8, 16, width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(one).to(device)


def painter(drawing=None):
    """model(x_t, t, cond) -> predicted noise; with line drawings (n or 1, 3, 64, 64), by the ControlNet."""
    unet = pipe.unet if drawing is None else steered(pipe.unet, controlnet, drawing.to(device))
    return torch.no_grad()(lambda x_t, t, c: objectives.eps_from_v(x_t, unet(x_t, t, c).sample, t, alpha_bar))


def draw(prompts, seeds, scale=4.0, drawing=None):
    """Images (n, 3, 64, 64) in [-1, 1], on the CPU, one for each prompt (or its hidden states) and seed."""
    cond = encode(prompts) if isinstance(prompts, list) else prompts
    model = samplers.guided(painter(drawing), encode([""]), scale)
    drawn = samplers.finish(samplers.dpm_solver(model, noise(seeds), alpha_bar, times, cond=cond))
    return editing.decode_latents(pipe, drawn).cpu()


def interval(values):
    """The mean and its 95% interval, ± 1.96 standard errors, in words."""
    return f"{values.mean():.2f} ± {1.96 * values.std() / len(values) ** 0.5:.2f}"


# %% [markdown] id="style-text"
# ## Art: a style sheet
#
# A studio that illustrates a book begins with a style sheet: one motif in all its styles. Ours has four. A prompt can
# only name one of them, but the model never sees the words: it sees hidden states $c$, and between the hidden states
# $c_a$ and $c_b$ of two prompts lies a straight line,
#
# $$c(\xi) = (1 - \xi)\, c_a + \xi\, c_b .$$
#
# In words: at $\xi = 0$ the first prompt, at $\xi = 1$ the second, between them a mixture of both, number by number.
# The noise stays the same. **Predict first:** halfway between pixel art and watercolour, will the image be in one of
# the two styles, in both at once, or in neither?
#
# <details><summary>Answer (after running the cells below)</summary>
# Mostly in one. At the halfway points of the six lines one style has most of the probability, and which one differs
# from line to line: picture book against pixel art, all images are picture book pages (6 seeds each). Coloured pencil
# and pixel art have neither of both in the middle: 82% go to the other two styles. A mixture of hidden states is no
# mixture of images; the style changes within a short piece of the line, and not always at its middle.
# </details>

# %% id="style-sheet" tags=["static"]
STYLES = list(book.STYLES)
motif = book.Thing("corgi", "orange", "sitting")
words = {style: book.caption(book.Scene((motif,), "grass", style=style)).text for style in STYLES}
corner = dict(zip(STYLES, encode(list(words.values()))))  # (32, 128) each
SIDE = budget(smoke=2, laptop=5, gpu=7)
shares = torch.linspace(0, 1, SIDE).tolist()
sheet = []
for down in shares:  # from the two styles above to the two below
    left = lerp(corner[STYLES[0]][None], corner[STYLES[2]][None], down)
    right = lerp(corner[STYLES[1]][None], corner[STYLES[3]][None], down)
    sheet += [lerp(left, right, across) for across in shares]
page = draw(torch.cat(sheet), [0] * SIDE**2)
above, below = ([a, *[""] * (SIDE - 2), b] for a, b in (STYLES[:2], STYLES[2:]))
corners = [*above, *[""] * (SIDE * (SIDE - 2)), *below]  # the titles
print("corners: " + "; ".join(words.values()))
show(
    plot_pictures(page, corners, columns=SIDE),
    "A square of images of one sitting corgi on the grass, from one noise, with one style at each corner. The hatching "
    "comes in from the right, the coarse pixels at the lower left corner only, and the white margin of the watercolour "
    "takes most of the lower right half.",
)

# %% [markdown] id="style-measure-text"
# One sheet is one seed. The judge has an output for the style (a softmax over the four), so we can ask it along each of
# the six lines between two styles, with several seeds: how probable does it find the first style, the second, and the
# other two together?

# %% id="style-measure"
SEEDS = list(range(budget(smoke=2, laptop=6, gpu=32)))
along = torch.linspace(0, 1, budget(smoke=3, laptop=5, gpu=9)).tolist()
LINES = [(a, b) for i, a in enumerate(STYLES) for b in STYLES[i + 1 :]]


def style_read(pictures):
    """The judge's probability of each style: (n, 4), in the order of STYLES."""
    known = [judge.config.styles.index(style) for style in STYLES]
    return torch.no_grad()(judge)(pictures)["style"].softmax(1)[:, known]


def on_the_line(a, b, share, scale=4.0):
    """The judge's probabilities of the styles (seeds, 4) at a share of the way from style a to style b."""
    cond = lerp(corner[a][None], corner[b][None], share).expand(len(SEEDS), -1, -1)
    return style_read(draw(cond, SEEDS, scale))


ends = {style: on_the_line(style, style, 0.0) for style in STYLES}
middle = {line: [ends[line[0]], *[on_the_line(*line, xi) for xi in along[1:-1]], ends[line[1]]] for line in LINES}

# %% id="style-plot" tags=["static"]
figure, axes = plt.subplots(1, len(LINES), figsize=(9.6, 2.4), sharey=True)
halfway = {}
for ax, (a, b) in zip(axes, LINES):
    values = torch.stack(middle[a, b])[..., [STYLES.index(a), STYLES.index(b)]]  # (shares, seeds, 2)
    halfway[a, b] = values[len(along) // 2]  # (seeds, 2)
    ax.plot(along, values[..., 0].mean(1), "o-", color="#0072B2", label="first")
    ax.plot(along, values[..., 1].mean(1), "s--", color="#D55E00", label="second")
    ax.plot(along, 1 - values.sum(2).mean(1), ":", color="#555555", label="other two")
    ax.set(title=f"{a} →\n{b}", xlabel="ξ", ylim=(-0.05, 1.05))
    ax.title.set_size(7)
axes[0].set_ylabel("probability")
axes[0].legend(fontsize=6, loc="center left")
show(
    figure, "Six diagrams, one for each pair of styles: the judge's probability of the first, second and other styles."
)
right_ends = torch.stack([ends[style].argmax(1) == STYLES.index(style) for style in STYLES]).float()
print(f"ends: the judge reads the style that was asked for in {right_ends.mean():.2f} of {right_ends.numel()} images")
for (a, b), both in halfway.items():
    print(f"halfway {a} / {b}: {both[:, 0].mean():.2f}, {both[:, 1].mean():.2f}, others {1 - both.sum(1).mean():.2f}")
if ENOUGH:
    assert right_ends.mean() > 0.9 and halfway["picture book", "pixel art"][:, 0].mean() > 0.9
    assert halfway["coloured pencil", "pixel art"].sum(1).mean() < 0.5

# %% [markdown] id="xy-text"
# ### The X/Y sheet as a tool of thought
#
# A sheet with one setting to the right and another one downwards shows what neither shows alone: whether they act
# together. **Predict first:** guidance amplifies what the prompt changes (chapter 10). On the way from one style to
# another, will more guidance make the change of style *sharper*, that is, will the middle belong more clearly to one of
# both?
#
# <details><summary>Answer (after running the cell below)</summary>
# No. Even at guidance 1 nearly all images are clearly one or the other: 97%, the same as at 4, and 87% at 8 (6 seeds at
# each of 5 places; the difference of a few images is within chance). What the sheet shows instead: at
# guidance 8 the orange corgi has become red, in both styles alike. So the two settings act nearly independently.
# </details>

# %% id="xy" tags=["static"]
SCALES, (A, B) = budget(smoke=(1.0, 4.0), laptop=(1.0, 4.0, 8.0), gpu=(1.0, 4.0, 8.0)), ("picture book", "watercolour")
table, rows = torch.zeros(len(SCALES), len(along), len(SEEDS)), []
for i, scale in enumerate(SCALES):
    for j, xi in enumerate(along):
        cond = lerp(corner[A][None], corner[B][None], xi).expand(len(SEEDS), -1, -1)
        pictures = draw(cond, SEEDS, scale)
        table[i, j] = style_read(pictures)[:, STYLES.index(B)]
        rows.append(pictures[0])
show(
    plot_pictures(
        torch.stack(rows),
        columns=len(along),
        heads=[f"ξ = {xi:g}" for xi in along],
        rows=[f"guidance {scale:g}" for scale in SCALES],
    ),
    "Three rows, guidance 1, 4 and 8, of one corgi between the picture book at the left and watercolour at the right. "
    "From the middle on there is a white margin in all rows; at guidance 8 the orange coat is red.",
)
for scale, row in zip(SCALES, table):
    print(f"guidance {scale:g}: probability of {B} " + ", ".join(f"{value:.2f}" for value in row.mean(1)))
    print(f"   clearly one or the other (below 0.1 or above 0.9): {((row - 0.5).abs() > 0.4).float().mean():.2f}")
if ENOUGH:
    assert ((table - 0.5).abs() > 0.4).float().mean((1, 2)).min() > 0.75

# %% [markdown] id="tiles-text"
# ## Games: tiles and sprites
#
# A game's ground is laid with one small image, again and again: its last column must fit its first one, and its last
# row its first. An ordinary image does not. Why should it? The convolutions of U-Net and decoder pad with zeros at the
# edge, and attention sees the whole page, so nothing ever compares the two sides.
#
# First a number for "does not fit". With $x_k$ column $k$ of an image of width $W$:
#
# $$\text{step}_k = \operatorname{mean} |x_{k+1} - x_k|, \qquad \text{seam ratio} =
# \frac{\text{step}_{W-1}}{\operatorname{mean}_{k < W-1} \text{step}_k}, \qquad x_W = x_0 .$$
#
# In words: how much larger the step from the last column to the first is than the steps inside. A ratio of 1 is no
# seam at all: one step among others.
#
# ### Exercise · The seam
#
# ●●○○○ · 10 minutes. `pictures` is (batch, channels, height, width), with two columns or more. Return one ratio for each
# picture, (batch,). The mean of a step is over channels and rows. A picture whose seam is 0 has the ratio 0, also if all
# its steps are 0.


# %% id="ex-seam"
def seam_ratio(pictures):
    """The seam between last and first column over the mean step inside: (batch,)."""
    ### BEGIN SOLUTION
    steps = (pictures.roll(-1, 3) - pictures).abs().mean((1, 2))  # (batch, width); the last one is the seam
    seam, inner = steps[:, -1], steps[:, :-1].mean(1)
    return torch.where(seam == 0, torch.zeros_like(seam), seam / inner)
    ### END SOLUTION


# %% id="check-seam"
seam_ratio = check("16.seam_ratio", seam_ratio)

# %% [markdown] id="ring-text"
# ### On a ring
#
# Now let each convolution pad with the *other end* of the image. With weights $w$ (one dimension, three taps):
#
# $$y_k = w_{-1}\, x_{(k-1) \bmod W} + w_0\, x_k + w_1\, x_{(k+1) \bmod W} .$$
#
# In words: the image is bent to a ring, and to the right of its last column stands its first. Attention needs no
# change, since this U-Net gives it no positions. No weight is trained. `tiling.circular` does so in a `with` block and
# undoes it afterwards. If this is right, no column is the first any more: shifting the noise around the ring must shift
# the prediction, and nothing else.

# %% id="ring-check"
x_T, at, told = noise([0]), torch.full((1,), 500, device=device), encode(["a red mushroom in the forest"])
turn = {"shifts": (4, 8), "dims": (2, 3)}  # by multiples of 4: the U-Net halves twice
plain = painter()(x_T, at, told)
with tiling.circular(pipe.unet, pipe.vae.decoder):
    ring_gap = (painter()(x_T.roll(**turn), at, told) - painter()(x_T, at, told).roll(**turn)).abs().max().item()
zero_gap = (painter()(x_T.roll(**turn), at, told) - plain.roll(**turn)).abs().max().item()
print(f"largest difference after a shift: on the ring {ring_gap:.1e}, with zeros {zero_gap:.2f}")
assert ring_gap < 1e-4 < 1e-1 < zero_gap and torch.equal(painter()(x_T, at, told), plain)

# %% id="tiles" tags=["static"]
ASKED = ["mushrooms in the forest", "a blue ball on desert sand", "three pink tulips in a green meadow, watercolour"]
EACH = budget(smoke=1, laptop=8, gpu=32)
wishes, seeds = ASKED * EACH, [seed for seed in range(EACH) for _ in ASKED]
ordinary = draw(wishes, seeds)
with tiling.circular(pipe.unet, pipe.vae.decoder):
    tiles = draw(wishes, seeds)
ratios = {}
for name, pictures in (("ordinary", ordinary), ("on the ring", tiles)):
    ratios[name] = torch.stack([seam_ratio(pictures), seam_ratio(pictures.mT)])  # (2, n): columns, rows
    across, down = map(interval, ratios[name])
    print(f"{name}: seam ratio of columns {across}, of rows {down}, n = {len(seeds)} (95% intervals)")
show(
    plot_pictures(
        tiling.tiled(torch.cat([ordinary[:3], tiles[:3]])), columns=3, heads=ASKED, rows=["ordinary", "on the ring"]
    ),
    "Three images, each laid three times beside and below itself. Above, ordinary ones: horizontal edges, where ground "
    "meets sky. Below, drawn on the ring: continuous patterns.",
)
if ENOUGH:
    low = {name: each.mean(1) - 1.96 * each.std(1) / len(seeds) ** 0.5 for name, each in ratios.items()}
    assert (low["on the ring"] < 1).all() and low["ordinary"][1] > 3

# %% [markdown] id="tiles-read"
# On the ring the mean ratio is 1.08 ± 0.34 for columns and 0.93 ± 0.23 for rows (95% intervals, 24 tiles): no more than
# any other step, as it must be where no column is special. The ratio of a *single* tile can be above 1 all the same: if
# an outline happens to lie on the seam, the step there is large, and invisible as a seam. For ordinary images the rows'
# ratio is 4.55 ± 1.07; the columns' is smaller, 1.49 ± 0.50, because left and right sides of these pages show the same
# place. The ring has changed *what* is drawn, too: with no top and no bottom the model gives up the horizon, and things
# stand above one another.

# %% [markdown] id="sprites-text"
# ### A sprite sheet
#
# A character of a game is drawn in several poses and must remain the same character. Words can ask for the poses, a
# fixed seed keeps the noise, and a line drawing (chapter 12) says where each line goes. **Predict first:** which of the
# two, seed or drawing, keeps the *place behind* the character the same from pose to pose? And which one makes the pose
# right?
#
# <details><summary>Answer (after running the cell below)</summary>
# The seed keeps the place: with other seeds the pixels behind differ by 4.9 grey levels between the poses, with one
# seed by 1.9, and by 2.1 with words alone. In all three rows the judge finds the right pose
# (12 of 12 each), so words suffice for that. But look at the standing cat of the first row: it has two heads, which the
# judge does not notice. In the rows with drawings every line is where it belongs.
# </details>

# %% id="sprites"
HEROES = [
    book.Thing("cat", "white"),
    book.Thing("corgi", "orange"),
    book.Thing("cat", "purple"),
    book.Thing("corgi", "blue"),
]
HEROES = HEROES[: budget(smoke=1, laptop=4, gpu=4)]
scenes = [
    book.Scene((book.Thing(hero.kind, hero.colour, pose),), "snow", seed=3)
    for hero in HEROES
    for pose in book.ALL_POSES
]
maps = [book.maps(scene) for scene in scenes]
lines = torch.stack([each.lines for each in maps]).repeat(1, 3, 1, 1)  # (heroes * poses, 3, 64, 64)
asked, POSES = [book.caption(scene).text for scene in scenes], len(book.ALL_POSES)
one_seed = [7] * len(scenes)
sprites = {
    "words, seed": draw(asked, one_seed),
    "drawing, seed": draw(asked, one_seed, drawing=lines),
    "drawing, other seeds": draw(asked, range(len(scenes)), drawing=lines),
}
inside = torch.stack([each.things > 0 for each in maps])[:, None]  # (heroes * poses, 1, 64, 64)


# %% id="sprites-measure" tags=["static"]
def spread(values):
    """How far the poses of one hero are from their mean: (heroes * poses, ...) -> root mean square, grey levels."""
    values = values.unflatten(0, (-1, POSES))
    return ((values - values.mean(1, keepdim=True)).square().mean().sqrt() * 127.5).item()


nowhere = ~inside.unflatten(0, (-1, POSES)).any(1).repeat_interleave(POSES, 0)  # outside in all poses of a hero
nowhere = parallax.grow((~nowhere).float(), 4) == 0
behind, coats, poses_right = {}, {}, {}
for name, pictures in sprites.items():
    coat = (pictures * inside).sum((2, 3)) / inside.sum((2, 3))  # the mean colour of the character, (n, 3)
    behind[name], coats[name] = spread(pictures * nowhere), spread(coat)
    found = [{(f.kind, f.pose) for f in verdict.findings} for verdict in read(judge, pictures)]
    poses_right[name] = sum({(s.things[0].kind, s.things[0].pose)} == f for s, f in zip(scenes, found))
    print(f"{name}: pose right {poses_right[name]} of {len(scenes)}; between the poses the coat's colour differs by "
          f"{coats[name]:.1f}, the place behind by {behind[name]:.1f} grey levels")  # fmt: skip
show(
    plot_pictures(
        torch.cat([pictures[:6] for pictures in sprites.values()]), columns=min(6, len(scenes)), rows=list(sprites)
    ),
    "A white cat and an orange corgi sitting, standing and sleeping in the snow, in three rows. By words the standing "
    "cat has two heads; by drawings all figures are whole. With other seeds the trees behind change from pose to pose.",
)
if ENOUGH:
    assert behind["drawing, seed"] < 0.7 * behind["drawing, other seeds"]
    assert min(poses_right.values()) >= 11

# %% [markdown] id="panorama-text"
# ## Virtual worlds: a wide panorama
#
# A world is wider than a page. This U-Net accepts wide latents as they are, but a prompt then holds for the whole
# width, and the memory of attention grows with the square of it. **MultiDiffusion** keeps the model at the width it was
# trained for: it looks through overlapping windows, and at each step the predictions of all windows that cover a
# column are averaged. With $s_i$ the first column of window $i$ and $w$ a weight for each column of a window:
#
# $$\hat\varepsilon_k = \frac{\sum_i w_{k - s_i}\; \hat\varepsilon^{(i)}_{k - s_i}}{\sum_i w_{k - s_i}},
# \qquad \hat\varepsilon^{(i)} = \hat\varepsilon(\text{window } i \text{ of } x_t,\, t,\, c_i).$$
#
# In words: each window predicts noise for its own columns, with its own prompt, and where windows overlap they find a
# compromise. A step of DDIM is linear in $\hat\varepsilon$, so averaging predictions is averaging steps.
#
# ### Exercise · The mean of the windows
#
# ●●●○○ · 15 minutes. `parts` is (windows, batch, channels, height, window), `starts` has the first column of each
# window, in any order, `width` is that of the whole, and `weights` (window,), all positive. Return (batch, channels,
# height, width), with the dtype and the device of `parts`; `weights.to(parts)` has both. You may rely on it that every
# column is covered. `parts` stays as it was.


# %% id="ex-average"
def average_windows(parts, starts, width, weights):
    """The weighted mean of all windows that cover a column: (batch, channels, height, width)."""
    ### BEGIN SOLUTION
    window = parts.shape[4]
    total, count = torch.zeros(*parts.shape[1:4], width).to(parts), torch.zeros(width).to(parts)
    for part, start in zip(parts, starts):
        total[..., start : start + window] += weights.to(parts) * part
        count[start : start + window] += weights.to(parts)
    return total / count
    ### END SOLUTION


# %% id="check-average"
average_windows = check("16.average_windows", average_windows)

# %% [markdown] id="windowed-text"
# With it the wide model is short. It has the contract of every model in this course, model(x_t, t, cond), so that any
# sampler can use it. Three checks: it equals the package's `panorama.windowed`; one window that covers all is the plain
# model; and the mean of predictions gives the mean of the windows' DDIM steps.


# %% id="windowed"
def windowed(model, window, stride, weights):
    """A model for wide x_t; cond: (windows, batch, tokens, features)."""

    def wide_model(x_t, t, cond):
        starts = panorama.window_starts(x_t.shape[3], window, stride)
        parts = torch.stack([model(x_t[..., s : s + window], t, c) for s, c in zip(starts, cond)])
        return average_windows(parts, starts, x_t.shape[3], weights)

    return wide_model


EVEN, TAPERED = torch.ones(16), panorama.taper(16) ** 2
x_T, starts = noise([0], 28), panorama.window_starts(28, 16, 6)
told = encode(["a house in the snow", "a tree in the forest", "a boat on the beach"])[:, None]  # (3, 1, 32, 128)
mine, theirs = windowed(painter(), 16, 6, TAPERED), panorama.windowed(painter(), 16, 6, TAPERED)
gaps = [(mine(x_T, at, told) - theirs(x_T, at, told)).abs().max().item()]
gaps.append((theirs(x_T[..., :16], at, told[:1]) - painter()(x_T[..., :16], at, told[0])).abs().max().item())


def first_step(model, x_T, cond):
    """x_t after the first step of DDIM."""
    return next(iter(samplers.ddim(model, x_T, alpha_bar, [999, 500], cond=cond))).x_t


steps = torch.stack([first_step(painter(), x_T[..., s : s + 16], c) for s, c in zip(starts, told)])
gaps.append((first_step(mine, x_T, told) - average_windows(steps, starts, 28, TAPERED)).abs().max().item())
print("largest differences: package {:.1e}, one window {:.1e}, mean of steps {:.1e}".format(*gaps))
assert max(gaps) < 1e-4

# %% [markdown] id="journey-text"
# ### A journey
#
# Nine windows, 6 latents (24 pixels) apart, each with a prompt of its own, give a page four times as wide as any that
# the model was trained on. **Predict first:** with all weights 1, where will seams be visible, and why do weights that
# fall towards a window's ends (the squares of `panorama.taper(16)`) help?
#
# <details><summary>Answer (after running the cells below)</summary>
# Where a window begins or ends. There its prediction, for another place, suddenly joins the mean or drops out of it,
# and the colours jump. Weights that are small at the ends let it join little by little; then the places blend.
# </details>

# %% id="journey" tags=["static"]
JOURNEY = ["a house in the snow", "trees in the snow", "a tree in the forest", "a red mushroom in the forest",
           "three pink tulips on the grass", "a corgi puppy on the grass", "a red ball on the beach",
           "a boat on the beach", "a blue car in the city"]  # fmt: skip
WIDTH, stride = budget(smoke=32, laptop=64, gpu=64), 6
starts = panorama.window_starts(WIDTH, 16, stride)
told = encode(JOURNEY[: len(starts)])[:, None]  # (windows, 1, 32, 128)


def travel(seed, weights, cond=told):
    """A panorama (1, 3, 64, 4 * WIDTH) of one seed."""
    model = panorama.windowed(samplers.guided(painter(), encode([""]), 4.0), 16, stride, weights)
    drawn = samplers.finish(samplers.dpm_solver(model, noise([seed], WIDTH), alpha_bar, times, cond=cond))
    return editing.decode_latents(pipe, drawn).cpu()


WORLDS = list(range(budget(smoke=2, laptop=4, gpu=24)))
wide = {name: torch.cat([travel(s, w) for s in WORLDS]) for name, w in (("even", EVEN), ("tapered", TAPERED))}
pages = draw(JOURNEY[::2][: WIDTH // 16], [0] * len(JOURNEY[::2][: WIDTH // 16]))
side_by_side = torch.cat(list(pages), 2)[None]  # ordinary pages, one beside the other
figure, axes = plt.subplots(3, 1, figsize=(9.6, 7.6))
for ax, (name, row) in zip(axes, {"pages side by side": side_by_side, **wide}.items()):
    plot_pictures(row[:1], ax=ax)
    ax.set_title(name, fontsize=9)
show(
    figure,
    "Three wide pages from a house in the snow to a city. Ordinary pages side by side have vertical edges. With even "
    "weights the places change in vertical bands and things are pale; with tapered weights they blend, and the "
    "things are drawn in full colours.",
)

# %% [markdown] id="border-text"
# Seams first. A window begins or ends at known columns. Are the steps there larger than elsewhere? The decoder makes
# four columns of one latent, so a border is compared with the other columns between two latents.

# %% id="borders"
edges = sorted({4 * s - 1 for s in starts if s} | {4 * (s + 16) - 1 for s in starts if s + 16 < WIDTH})
between = sorted(set(range(3, 4 * WIDTH - 1, 4)) - set(edges))  # other columns where a latent ends and the next begins


def border_ratio(pictures):
    """The mean step at the borders of windows, over that at the other latents' ends: one number for each panorama."""
    steps = tiling.column_steps(pictures)  # (worlds, columns)
    return steps[:, edges].mean(1) / steps[:, between].mean(1)


borders = {name: border_ratio(pictures) for name, pictures in wide.items()}
for name, values in borders.items():
    print(f"{name} weights: a step at a window's border over the other steps {interval(values)} (n = {len(values)})")
if ENOUGH:
    gain = borders["even"] - borders["tapered"]  # pairs: the same seeds
    assert gain.mean() > 1.96 * gain.std() / len(gain) ** 0.5

# %% [markdown] id="borders-read"
# With even weights the steps at the borders are 1.85 ± 0.18 times the others (95% interval, 4 panoramas): seams. With
# tapered weights it is 1.03 ± 0.22, no more than elsewhere within the error. Two things 24 pixels apart can still
# run into each other, as the corgi and the ball do: each of them is wider than that. That places
# change from window to window adds to these steps; below, the measure is repeated with one prompt for all windows.

# %% [markdown] id="repeat-text"
# Then repetition. A panorama that shows the same columns again and again is wide, but no world. To see whether the
# measure can find such a case, we make one: the noise of one page, repeated, with one prompt for all windows. The
# measure is the correlation of two windows that do not overlap, after the mean of each row is subtracted (all windows
# have sky above and ground below); of all pairs we take the largest. The yardstick: the same number for four ordinary
# pages with the prompts of those windows, drawn from independent noises.


# %% id="repeats"
def most_alike(pictures):
    """The largest likeness of two of the 64-pixel pages that a panorama (1, 3, 64, width) is cut into."""
    cut = torch.cat(pictures[..., : pictures.shape[3] // 64 * 64].split(64, dim=3))
    return max([*panorama.likeness(cut, cut)[*torch.triu_indices(len(cut), len(cut), 1)].tolist(), -1.0])


cut_at = range(0, WIDTH - 15, 16)  # the windows of the pages that most_alike cuts
own = [JOURNEY[min(range(len(starts)), key=lambda i: abs(starts[i] - column))] for column in cut_at]
independent = [torch.cat(list(draw(own, range(100 + 10 * s, 100 + 10 * s + len(own)))), 2)[None] for s in WORLDS]
same = encode([JOURNEY[0]])[:, None].expand(len(starts), -1, -1, -1)  # one prompt for all windows
model = panorama.windowed(samplers.guided(painter(), encode([""]), 4.0), 16, stride, TAPERED)
copies = noise([0]).repeat(1, 1, 1, WIDTH // 16 + 1)[..., :WIDTH]  # the noise of one page, again and again
copied = samplers.finish(samplers.dpm_solver(model, copies, alpha_bar, times, cond=same))
plain_wide = torch.cat([travel(s, TAPERED, same) for s in WORLDS])
alike = {
    "panoramas": torch.tensor([most_alike(wide["tapered"][i : i + 1]) for i in range(len(WORLDS))]),
    "independent pages": torch.tensor([most_alike(pages) for pages in independent]),
    "repeated noise, one prompt": torch.tensor([most_alike(editing.decode_latents(pipe, copied).cpu())]),
    "one prompt": torch.tensor([most_alike(each[None]) for each in plain_wide]),
}
for name, values in alike.items():
    print(f"{name}: largest likeness {', '.join(f'{value:.2f}' for value in values)}")
print(f"one prompt: a step at a window's border over the other steps {interval(border_ratio(plain_wide))}")
if ENOUGH:
    assert alike["panoramas"].max() < alike["repeated noise, one prompt"].min()

# %% [markdown] id="repeats-read"
# The measure finds repetition where there is some: 0.44 for the repeated noise. The four panoramas have 0.11 at most,
# and ordinary pages of the same prompts 0.07 to 0.25: the windows are no more alike than pages that know nothing of
# each other. With one prompt for all windows it is 0.08 to 0.32 (the same *kind* of house comes again), and
# the steps at the borders are 1.36 ± 0.23 times the others: here the windows still leave a trace.

# %% [markdown] id="parallax-text"
# ### A scene with depth
#
# When you move your head, near things move across the view and far ones hardly do: **parallax**. A flat image shows it
# if it is cut into layers. A line drawing says where the things are, and `book.maps(scene)` has the map of the same
# scene: which pixel belongs to which thing, and how low on the page the thing stands (the lower, the nearer). So we
# draw a page by a line drawing, cut its things out by the map, and need one thing more: what is *behind* them.
#
# That is inpainting (chapter 12) with a prompt that names the place alone. **Predict first:** every training page shows
# at least one thing. What will the model paint where the cat was, if it is asked for "on the grass"?
#
# <details><summary>Answer (after running the cell below)</summary>
# Another thing: something animal-like, often cut off at the border of the hole. An empty place is not in the training
# data. A *blank* line drawing, handed to the ControlNet, asks for no lines there, but it does not help reliably. What
# does help: each seed paints another thing, and the grass is the same. The median of nine seeds, pixel by pixel, keeps
# what most of them agree on.
# </details>

# %% id="behind"
from course_utils.diffusion import editing as edits

scene = book.Scene((book.Thing("cat", "white", "sitting"), book.Thing("ball", "red")), "grass", 3, relation="left of")
maps = book.maps(scene)
flat = draw([book.caption(scene).text], [0], drawing=maps.lines.repeat(3, 1, 1)[None])  # (1, 3, 64, 64)
hole = parallax.grow((maps.things > 0).float()[None, None], 4)  # with the shadows around their feet
MANY = budget(smoke=3, laptop=9, gpu=17)


def paint_behind(drawing):
    """The page with its hole painted in (MANY, 3, 64, 64), one for each seed; drawing: None for none."""
    x0 = editing.encode_pictures(pipe, flat.to(device)).expand(MANY, -1, -1, -1)
    inside, start = edits.mask_to_latents(hole, (16, 16)).to(device), noise(range(MANY))
    model, cond = samplers.guided(painter(drawing), encode([""]), 4.0), encode(["on the grass"] * MANY)
    walk = edits.repaint(model, start, x0, start, inside, alpha_bar, times, torch.Generator().manual_seed(0), cond)
    drawn = editing.decode_latents(pipe, samplers.finish(walk)).cpu()
    return edits.paste(drawn, flat.expand(MANY, -1, -1, -1), hole)


several = {"words": paint_behind(None), "blank drawing": paint_behind(torch.zeros(1, 3, 64, 64))}
behind = several["blank drawing"].median(0).values[None]  # pixel by pixel, over the seeds

# %% id="behind-plot" tags=["static"]
show(
    plot_pictures(
        torch.cat([flat, several["words"][:3], flat, several["blank drawing"][:3]]), columns=4, rows=list(several)
    ),
    "The page with cat and ball, and what three seeds paint in their place: above by words, below with a blank "
    "drawing. Most of them have some new thing on the grass, sometimes cut off at a vertical border.",
)


def roughness(pictures):
    """The mean step between neighbouring columns inside the hole, over that beside it in the same rows: (n,)."""
    steps = (pictures[..., 1:] - pictures[..., :-1]).abs().mean(1, keepdim=True)
    inside = (hole[..., 1:] * hole[..., :-1]).expand_as(steps)
    beside = (hole.amax(3, keepdim=True) * (1 - hole[..., 1:]) * (1 - hole[..., :-1])).expand_as(steps)
    rough, normal = ((steps * where).sum((1, 2, 3)) / where.sum((1, 2, 3)) for where in (inside, beside))
    return rough / normal


rough = {"page": roughness(flat), **{name: roughness(each) for name, each in several.items()}}
rough["median of the blank drawing's"] = roughness(behind)
for name, values in rough.items():
    print(f"roughness of the {name}: {values.mean():.2f} (n = {len(values)})")
print(f"words minus blank drawing, seed by seed: {interval(rough['words'] - rough['blank drawing'])}")
if ENOUGH:
    assert rough["median of the blank drawing's"].item() < 0.8 * rough["blank drawing"].mean() < rough["page"].item()
    assert not read(judge, behind)[0].findings

# %% [markdown] id="ex-shift-text"
# A camera that moves to the left by $m$ pixels sees a layer of depth $d$ (0 far, 1 near) moved to the right by
# $\operatorname{round}(m\, d)$. The layers are laid on each other from far to near. With a layer's image $x$ and its
# cover $\kappa$ (1 where it hides what is behind it), both moved:
#
# $$\text{out} \leftarrow \kappa\, x + (1 - \kappa)\, \text{out} .$$
#
# ### Exercise · Layers in motion
#
# ●●●○○ · 15 minutes. `layers` is a list of `parallax.Layer` (picture (1, 3, height, width), cover (1, 1, height,
# width) of zeros and ones, depth), *in any order*, each with a depth of its own; the farthest has depth 0 and covers
# everything. `camera` is a number, possibly negative or larger than the width. `parallax.moved(x, pixels)` moves a
# tensor by a whole number of pixels to the right (to the left if it is negative) and fills with 0. Return the scene,
# (1, 3, height, width), each pixel to the last bit that of a layer. The layers stay as they were.


# %% id="ex-shift"
def shift_layers(layers, camera):
    """The scene seen by a camera that has moved `camera` pixels to the left: (1, 3, height, width)."""
    ### BEGIN SOLUTION
    far_to_near = sorted(layers, key=lambda layer: layer.depth)
    out = far_to_near[0].picture
    for layer in far_to_near[1:]:
        pixels = round(camera * layer.depth)
        cover = parallax.moved(layer.cover, pixels)
        out = cover * parallax.moved(layer.picture, pixels) + (1 - cover) * out
    return out
    ### END SOLUTION


# %% id="check-shift"
shift_layers = check("16.shift_layers", shift_layers)

# %% [markdown] id="scene-text"
# The depths of $n$ things are $1/n, 2/n, \dots, 1$, by their order on the page. With each pixel enlarged to 4 × 4, the
# layers can move by a quarter of a pixel. The same layers make a GIF, in which the camera swings, and a page of HTML
# that holds the layers as PNGs with transparency and moves them with the mouse or the arrow keys; it needs no other
# file and no network.

# %% id="scene" tags=["static"]
layers = parallax.cut_layers(flat, behind, maps.things, maps.depth)
large = parallax.enlarged(layers, 4)
FRAMES = budget(smoke=6, laptop=24, gpu=48)
swing = [24 * math.sin(2 * math.pi * k / FRAMES) for k in range(FRAMES)]
frames = torch.cat([shift_layers(large, camera) for camera in swing])
folder = Path("pictures")
folder.mkdir(exist_ok=True)
animation.write_gif(frames, folder / "scene.gif", per_second=12, scale=1)
words = "A white cat and a red ball on the grass; the nearer of the two moves more than the other."
(folder / "scene.html").write_text(parallax.parallax_page(layers, "A scene with depth", words), encoding="utf-8")
sizes = {name: (folder / name).stat().st_size / 1024 for name in ("scene.gif", "scene.html")}
print(", ".join(f"{name}: {size:.0f} KiB" for name, size in sizes.items()))
views = torch.cat([shift_layers(large, camera) for camera in (-24, 0, 24)])
show(
    plot_pictures(views, columns=3, heads=["camera right", "at rest", "camera left"]),
    "Three views of a white cat and a red ball on a meadow. With the camera at the right both have moved to the left, "
    "the ball farther than the cat; the sky stands still.",
)
rest = torch.where(parallax.grow((maps.things > 0).float()[None, None], 1) > 0, flat, behind)
assert torch.equal(shift_layers(layers, 0), rest)  # at rest the things are the page's, to the bit

# %% [markdown] id="order-text"
# Does the order hold? Two checks: the farther thing, moved behind the nearer one, is hidden by it; and a list of layers
# in any order gives the same scene.

# %% id="order"
near, far = layers[2], layers[1]
covered = near.cover.bool().expand_as(flat)
meet = shift_layers([layers[0], far._replace(cover=torch.ones_like(far.cover)), near], 0)  # the far one covers all
assert torch.equal(meet[covered], near.picture[covered])  # still the near one is seen
assert torch.equal(shift_layers(layers[::-1], 10), shift_layers(layers, 10))
