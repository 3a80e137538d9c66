# %% [markdown] id="title"
# # 15 · Measuring images, and using them responsibly
#
# Earlier chapters gave numbers: FID, prompts followed, diversity. Here you build the most important of them, and then you deceive most of them on purpose, to learn what they do not see. After that come questions that no such number answers: whether a
# model copies its training images, what it assumes where a prompt is silent, how to tell where an image comes from, and
# what a safety checker can do.
#
# ![Two rows of six images: drawn by a network that was trained on twenty pages, and below each its nearest training page; four of the six are copies](../chapters/figures/15_copies.png)
#
# **After this chapter you can**
# 1. compute FID, KID and coverage by hand, read precision, recall and density beside them, and name for most of them a sampler that they are wrong about;
# 2. say how sure a share is, compare two samplers on the same prompts, and rank several by votes;
# 3. search for copies of training images, and test whether a loss gives the training set away;
# 4. count what a model draws where its prompt is silent, and compare it with its data;
# 5. write a mark into the start noise, find it again, and measure what destroys it;
# 6. build a safety checker, measure its two errors, and get round it.
#
# **Time** about four and a half hours, half of them for the ten exercises. All cells together run in about ten minutes on one core of a CPU.
# **You need** chapters 01 (the digit reader), 05 to 07 (noise, losses, samplers), 08 (CLIP), 09 (the judge), 10 (the model that is examined), 11 (notes in PNG files, the safety checker), 12 (LoRA, inversion) and 13 (DALL·E and its CLIP).

# %% id="set-up"
import math

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from course_utils import systems
from course_utils.data import picture_book as book
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.plotting import plot_pictures, show, use_style
from course_utils.recipes import load_judge

use_style()
device = pick_device()
plt.rcParams["savefig.dpi"] = 72  # many images: smaller, so that the notebook stays small
LAPTOP = budget(smoke=False, laptop=True, gpu=True)  # whether claims about quality are asserted

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $\text{real}_i$ | `real[i]` | the features of real image $i$ | (d,) |
# | $\text{gen}_j$ | `drawn[name][j]` | the features of drawn image $j$ | (d,) |
# | $n_\text{real}$, $n_\text{gen}$ | `len(real)`, `len(points)` | how many there are of each | a number |
# | $d$ | `d` | the number of features of an image | a number |
# | $\mu_\text{real}$, $\mu_\text{gen}$ | `.mean(0)` | the means of the features | (d,) |
# | $\Sigma_\text{real}$, $\Sigma_\text{gen}$ | `.T.cov()` | their covariances | (d, d) |
# | $\mathcal{A}$ | `matrix` | a matrix whose root is wanted | (d, d) |
# | $\mathcal{T}$ | `t` | the factor by which both are multiplied in a step | (d, d) |
# | $\mathcal{Y}$, $\mathcal{Z}$ | `y`, `z` | estimates of the root and of its inverse (of $\mathcal{A}/\lVert\mathcal{A}\rVert$) | (d, d) |
# | $\text{FID}$, $\text{FID}_\infty$ | `frechet_distance` | the squared Fréchet distance; its limit for infinitely many drawn images | a number |
# | $\text{KID}$ | `kernel_distance` | the squared maximum mean discrepancy with a cubic kernel | a number |
# | $\text{kernel}(\cdot, \cdot)$ | `kernel` | the kernel of two feature vectors | a number |
# | $k_\text{near}$ | `k` | which neighbour sets the size of a neighbourhood | a number |
# | $\text{radius}_i$ | `radius[i]` | the distance of $\text{real}_i$ to its $k_\text{near}$-th nearest other real image | a number |
# | $\hat p$ | `hits / number` | a share: that of images that follow, for instance | a number |
# | $p_\text{true}$ | | the probability that it estimates | a number |
# | $n_\text{all}$ | `number` | of how many images or prompts | a number |
# | $n_\text{first}$, $n_\text{second}$ | `only` | on how many prompts the first of two samplers alone is right, and the second alone | a number |
# | $\text{strength}_i$ | `strength[i]` | how strong player $i$ is in comparisons by pairs | a number |
# | $\text{wins}_{ij}$ | `wins[i, j]` | how often $i$ won against $j$ | a number |
# | $\text{train}_i$ | `training[i]` | training image $i$, as a row of pixels or of features | (d,) |
# | $\text{near}_j$ | `nearest[j]` | the distance of drawn image $j$ to its nearest training image | a number |
# | $\text{next}_j$ | `second[j]` | its distance to the second nearest | a number |
# | $\text{ratio}_j$ | `ratio[j]` | $\text{near}_j / \text{next}_j$ | a number |
# | $\text{member}_a$ | `pair[0][a]` | the loss of image $a$, on which the network was trained | a number |
# | $\text{other}_b$ | `pair[1][b]` | the loss of image $b$, on which it was not | a number |
# | $\text{AUC}$ | `auc` | the probability that the first is below the second | a number |
# | $\text{share}_i$ | `shares[i]` | the share of answer $i$ among all answers to a question | a number |
# | $x_T$ | `noise`, `x_T` | the noise that drawing starts from | (n, 8, 16, 16) |
# | $\mathcal{F}(x_T)$ | `spectrum(x_T)` | its Fourier transform, seen from the middle of the image | like $x_T$, complex |
# | $\text{key}$ | `key` | the values that are written into the spectrum; 0 off the rings | (8, 16, 16) |
# | $\mathcal{R}$ | `key != 0` | the places on the rings | |
# | $\text{rms}$ | | the root of the mean square of the spectrum on the rings | a number |
# | $\Delta$ | `ring_distance` | how far a spectrum is from the key, from 0 to 4 | (n,) |
# | $I_i$ | `images[i]` | the CLIP embedding of image $i$ | (d,) |
# | $\text{concept}_j$, $\text{special}_l$ | `concepts[j]`, `special[l]` | the vector of a concept, and of a special one | (d,) |
# | $\vartheta_j$, $\vartheta'_l$ | `thresholds[j]`, `special_thresholds[l]` | their thresholds | a number |
# | $\text{score}_{ij}$ | `scores[i, j]` | by how much image $i$ is above the threshold of concept $j$ | a number |

# %% [markdown] id="look-text"
# ## 1 · Does it look like the real thing?
#
# Four samplers draw the same captions: the model of chapter 10 with **10 steps** and with **4 steps**, chapter 13's
# **DALL·E**, and a fourth that is not a model at all: true pages of these captions, **blurred**, as a decoder may blur
# them. **Predict first:** in which order would you put the four rows?
#
# <details><summary>Answer (after running the cells of this section)</summary>
# It depends on who looks. FID in the judge's features puts them in this order: 10 steps, 4 steps, blurred pages,
# DALL·E. KID in the same features cannot tell the blurred pages from the 4 steps. A network with random weights hardly tells 4 steps from 10. For one that was trained on handwritten digits DALL·E comes first, but its order agrees between two halves of the images no better than chance. (100 images of each.)
# </details>

# %% id="four-models"
COUNT = budget(smoke=12, laptop=100, gpu=400)
scenes = [book.sample_scene(number, 2) for number in range(COUNT)]  # data set 2: no model was trained on it
captions = [book.caption(scene) for scene in scenes]
asked = [caption.text for caption in captions]
painter, dalle = systems.load("stable-diffusion", device=device), systems.load("dalle", device=device)


def draw_all(system, texts, seed=0, **how):
    """Images (n, 3, 64, 64) in [-1, 1], twenty at a time; image i has the seed `seed` + i."""
    starts = range(0, len(texts), 20)
    return torch.cat([system.draw(texts[i : i + 20], seed + i, **how) for i in starts])


def blurred(pages):
    """Each pixel replaced by the mean of the 3 x 3 around it."""
    return F.avg_pool2d(F.pad(pages, (1, 1, 1, 1), mode="replicate"), 3, 1)


pages = book.pictures(scenes)
images = {
    "10 steps": draw_all(painter, asked, steps=10),
    "4 steps": draw_all(painter, asked, steps=4),
    "DALL·E": draw_all(dalle, asked),
    "blurred pages": blurred(pages),
}

# %% id="four-models-look" tags=["static"]
SHOWN = min(8, COUNT)
show(
    plot_pictures(
        torch.cat([drawn[:SHOWN] for drawn in images.values()]), columns=SHOWN, heads=asked[:SHOWN], rows=list(images)
    ),
    "Four rows for the same captions: drawn in 10 steps; in 4 steps, in glaring colours, some of them wrong; by DALL·E, "
    "blotchy, with things missing; and true pages, slightly blurred.",
)

# %% [markdown] id="features-text"
# ### From images to points
#
# Images cannot be compared pixel by pixel with "the" right one: two good pages of one caption differ in every pixel.
# What can be compared are two *distributions*: do drawn images vary as real ones do? For this each image becomes a
# point with $d$ coordinates, the **features** that some network computes for it. We take the judge of chapter 09: its
# finest and its coarsest maps, averaged over all places, $d = 176$.
#
# Real images are easy to come by here. `real` holds the features of 2,000 pages, the reference; `unseen` those of 3,000 further pages of the same program, as good as a *perfect* model could draw. The **true pages** are what a perfect model would make of our captions.

# %% id="features"
judge = load_judge()
REAL, UNSEEN = budget(smoke=200, laptop=2000, gpu=5000), budget(smoke=240, laptop=3000, gpu=10_000)


@torch.no_grad()
def judge_sees(images):
    """The judge's features (n, 176) of images (n, 3, 64, 64) in [-1, 1]."""
    return torch.cat([judge.features(part) for part in images.split(64)])


def pages_of(first, count):
    """Pages of data set 1, (count, 3, 64, 64)."""
    return book.pictures(book.sample_scene(number, 1) for number in range(first, first + count))


real = torch.cat([judge_sees(pages_of(first, 100)) for first in range(0, REAL, 100)])
unseen = torch.cat([judge_sees(pages_of(first, 20)) for first in range(REAL, REAL + UNSEEN, 20)])
samplers = {"true pages": pages, **images}
drawn = {name: judge_sees(some) for name, some in samplers.items()}
d = real.shape[1]
print(f"real {tuple(real.shape)}, unseen {tuple(unseen.shape)}, drawn {tuple(drawn['10 steps'].shape)}")

# %% [markdown] id="frechet-text"
# The **Fréchet inception distance**, FID ([arXiv:1706.08500](https://arxiv.org/abs/1706.08500)), keeps two things of
# each cloud of points: its mean and its covariance. If both clouds were normal distributions, the squared Fréchet
# distance between them would be
#
# $$\text{FID} = \lVert \mu_\text{real} - \mu_\text{gen} \rVert^2
#   + \text{trace}\bigl(\Sigma_\text{real} + \Sigma_\text{gen} - 2 (\Sigma_\text{real} \Sigma_\text{gen})^{1/2}\bigr)$$
#
# In words: how far apart the means are, plus how much the spreads differ (the trace is the sum of the diagonal). With one feature the second term is the
# squared difference of the two standard deviations: two variances, minus twice the product of their roots. With several
# features this product becomes the **root of a matrix**: that matrix which, multiplied by itself, gives
# $\Sigma_\text{real} \Sigma_\text{gen}$.
#
# ### Exercise 1 · The root of a matrix
#
# There are three usual ways to compute it: the eigenvalues, each replaced by its root; `scipy.linalg.sqrtm`, which uses a
# triangular form; and an iteration of Newton and Schulz that needs nothing but matrix products, which GPUs are good at
# ([arXiv:1707.06772](https://arxiv.org/abs/1707.06772)). From $\mathcal{Y} = \mathcal{A} / \lVert \mathcal{A} \rVert$
# and $\mathcal{Z} = I$, the unit matrix, repeat
#
# $$\mathcal{T} = \tfrac12 (3 I - \mathcal{Z} \mathcal{Y}), \qquad \mathcal{Y} \leftarrow \mathcal{Y} \mathcal{T},
#   \qquad \mathcal{Z} \leftarrow \mathcal{T} \mathcal{Z}$$
#
# Then $\mathcal{Y}$ goes to the root of $\mathcal{A} / \lVert \mathcal{A} \rVert$ and $\mathcal{Z}$ to its inverse. (If
# they were there, $\mathcal{Z}\mathcal{Y}$ would be $I$, and so would $\mathcal{T}$.) $\lVert \mathcal{A} \rVert$ is
# the Frobenius norm, the root of the sum of all squares.
#
# ●●○○○ · 12 minutes. `matrix` is (d, d), with eigenvalues that are real and not negative, not all of them 0. Return its root after
# `steps` repetitions, (d, d). Compute in float64 and return it in the dtype of `matrix`. Keep the order of the
# products: on paper another order gives the same, in a computer rounding errors grow.


# %% id="ex-root"
def matrix_sqrt(matrix, steps=30):
    """The root of a matrix (d, d) after so many steps of Newton and Schulz."""
    ### BEGIN SOLUTION
    #: the norm, and both estimates at the start
    norm = torch.linalg.matrix_norm(matrix.double())
    unit = torch.eye(len(matrix), dtype=torch.float64)
    y, z = matrix.double() / norm, unit
    #: the steps; both products use the same factor
    for _ in range(steps):
        t = (3 * unit - z @ y) / 2
        y, z = y @ t, t @ z
    #: undo the division: the root of a product is the product of the roots
    return (y * norm.sqrt()).to(matrix.dtype)
    ### END SOLUTION


# %% id="check-root"
matrix_sqrt = check("15.matrix_sqrt", matrix_sqrt)
# Stuck? hint("15.matrix_sqrt") gives one hint per call; solution("15.matrix_sqrt") is the last resort.

# %% [markdown] id="three-roots-text"
# The three ways, on the covariance of the real pages and on an easier matrix, whose smallest eigenvalue is a tenth of
# its largest. The curves show how far $\mathcal{Y}^2$ is from $\mathcal{A}$, as a share of $\lVert \mathcal{A} \rVert$.

# %% id="three-roots" tags=["static"]
import scipy.linalg

covariance = real.double().T.cov()
values, vectors = torch.linalg.eigh(covariance)
directions = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
easy = directions @ torch.diag(torch.linspace(0.1, 1, d, dtype=torch.float64)) @ directions.T
by_eigenvalues = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
by_scipy = torch.from_numpy(scipy.linalg.sqrtm(covariance.numpy()))
figure, ax = plt.subplots(figsize=(5.4, 2.8))
for name, matrix in {"covariance of real pages": covariance, "an easier matrix": easy}.items():
    roots = [matrix_sqrt(matrix, steps) for steps in range(1, 41)]
    ax.plot(range(1, 41), [(root @ root - matrix).norm() / matrix.norm() for root in roots], label=name)
ax.set(xlabel="steps of Newton and Schulz", ylabel="relative error", yscale="log")
ax.legend()
show(
    figure,
    "The error reaches rounding after 10 steps for an easy matrix; after 21, slowly at first, for the covariance.",
)
for name, root in {"eigenvalues": by_eigenvalues, "scipy": by_scipy, "40 steps": matrix_sqrt(covariance, 40)}.items():
    print(f"{name:12} trace of the root {root.trace():.6f}, largest difference {(root - by_scipy).abs().max():.1e}")

# %% [markdown] id="three-roots-read"
# All three agree. On the easy matrix the number of correct digits doubles in each of the last steps. The covariance of
# features has eigenvalues that differ by many powers of ten; a small one grows by a factor of 1.5 in each step until it
# is at its root, so this takes longer. For FID the small ones hardly matter: what counts is the trace.
#
# ### Exercise 2 · The Fréchet distance
#
# ●●●○○ · 15 minutes. `features` (count, d) are of drawn images, `others` (number, d) of real ones. Return the FID as a number
# (a float) that is never negative. Covariances divide by count − 1. Of the root only the trace is needed: the sum of the roots of the
# eigenvalues of $\Sigma_\text{real}\Sigma_\text{gen}$. These are real and not negative, but rounding may give them tiny
# imaginary parts and signs (`torch.linalg.eigvals` returns complex numbers). Your `matrix_sqrt` works, too. Compute in
# float64; d is 2 or more.


# %% id="ex-frechet"
def frechet_distance(features, others):
    """The squared Fréchet distance of two clouds of features, (count, d) and (number, d), as a float."""
    ### BEGIN SOLUTION
    features, others = features.double(), others.double()
    #: the two covariances, (d, d)
    covariance, other = features.T.cov(), others.T.cov()
    #: the trace of the root of their product
    root = torch.linalg.eigvals(covariance @ other).real.clamp(min=0).sqrt().sum()
    #: means apart, plus spreads apart
    means = (features.mean(0) - others.mean(0)).square().sum()
    return (means + covariance.trace() + other.trace() - 2 * root).clamp(min=0).item()
    ### END SOLUTION


# %% id="check-frechet"
frechet_distance = check("15.frechet_distance", frechet_distance)

# %% [markdown] id="fid-four-text"
# The four samplers, and the true pages of the same captions. For comparison, the same formula with SciPy's root.

# %% id="fid-four"
from course_utils.metrics import distributions

fid = {}
for name, points in drawn.items():
    fid[name] = frechet_distance(points, real)
    product = (points.double().T.cov() @ real.double().T.cov()).numpy()
    root = scipy.linalg.sqrtm(product).real.trace()
    apart = (points.double().mean(0) - real.double().mean(0)).square().sum()
    by_scipy = (apart + points.double().var(0).sum() + real.double().var(0).sum() - 2 * root).item()
    print(
        f"{name:14} FID {fid[name]:.2f} (n = {len(points)}); of the means alone {apart:.2f}; with scipy {by_scipy:.2f}"
    )
    assert abs(fid[name] - by_scipy) < 0.01 * fid[name] + 0.01
    assert abs(fid[name] - distributions.frechet_distance(points, real)) < 1e-3
if LAPTOP:
    assert fid["true pages"] < fid["4 steps"] < fid["blurred pages"] < fid["DALL·E"]

# %% [markdown] id="bias-text"
# ### The distance that few images make
#
# `unseen` are drawn by the same program as `real`. Their true distance is 0. Yet the FID of 100 of them is not. From a
# sample, a covariance in 176 dimensions is estimated badly, and every error makes the distance larger: FID is
# **biased** ([arXiv:1801.01401](https://arxiv.org/abs/1801.01401)). **Predict first:** for the unseen pages, by what factor does FID fall from 100 to 3,000 images? And can pages saved as JPEGs of poor quality, 1,000 of them, get a
# *better* FID than 100 perfect pages?
#
# <details><summary>Answer (after running the cells below)</summary>
# By a factor of 15, on average of five selections. And yes: 1,000 poor JPEGs have about half the FID of 100 perfect pages. A FID says
# nothing unless the number of images stands beside it, and only values of equal numbers can be compared.
# </details>

# %% id="jpeg"
import io

from PIL import Image

from course_utils.data.images import to_pil, to_tensor


def jpeg(pages, quality):
    """The pages, saved as JPEG files of this quality and opened again."""
    opened = []
    for page in to_pil(pages):
        file = io.BytesIO()
        page.save(file, "JPEG", quality=quality)
        opened.append(Image.open(file).convert("RGB"))
    return to_tensor(opened)


MANY = budget(smoke=120, laptop=1000, gpu=3000)
saved = torch.cat([judge_sees(jpeg(pages_of(first, 20), 30)) for first in range(REAL, REAL + MANY, 20)])

# %% [markdown] id="bias-run-text"
# For each $n_\text{gen}$ the mean of five random selections, and in brackets the smallest and the largest of them (all of the images can be selected in one way only):

# %% id="bias"
COUNTS = budget(smoke=(30, 100), laptop=(100, 300, 1000, 3000), gpu=(100, 300, 1000, 3000, 10_000))


def some_of(points, n, seed):
    """n of the points, drawn without replacement."""
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:n]]


fid_by_n = {}
for name, points in {"unseen pages": unseen, "JPEG, quality 30": saved}.items():
    for n in (n for n in COUNTS if n <= len(points)):
        found = torch.tensor([frechet_distance(some_of(points, n, seed), real) for seed in range(5)])
        fid_by_n[name, n] = found
        print(f"{name:17} n = {n:5}: FID {found.mean():.3f} (from {found.min():.3f} to {found.max():.3f})")
if LAPTOP:
    assert fid_by_n["unseen pages", 100].mean() > 10 * fid_by_n["unseen pages", 3000].mean()
    assert fid_by_n["JPEG, quality 30", 1000].max() < fid_by_n["unseen pages", 100].mean()

# %% [markdown] id="bias-look-text"
# The number of features counts as well. Here both samples come from a standard normal distribution in `d` dimensions,
# so that their true distance is 0. **Predict first:** with twice as many points, by how much does FID fall? With twice
# as many dimensions, by how much does it rise?
#
# <details><summary>Answer (after running the cells below)</summary>
# It falls to about one half, and rises to more than three times as much: from 0.52 with 100 points in 8 dimensions to
# 0.26 with 200 points, and to 1.7 in 16 dimensions. A covariance has about $d^2/2$ different entries, and all must be estimated.
# </details>

# %% id="bias-filmstrip" tags=["static"]
from course_utils.widgets import bias_explorer, explore, filmstrip

samples = bias_explorer()
filmstrip(samples, [{"n": 100}, {"n": 200}, {"d": 16}])

# %% id="bias-widget"
explore(samples)

# %% [markdown] id="infinity-text"
# ### To infinitely many
#
# To first order the bias is proportional to $1/n_\text{gen}$. So FID, plotted over $1/n_\text{gen}$, is nearly a
# straight line, and its value at 0 is that of infinitely many images, $\text{FID}_\infty$
# ([arXiv:1911.07023](https://arxiv.org/abs/1911.07023)):
#
# $$\text{FID}(n_\text{gen}) \approx \text{FID}_\infty + \frac{\text{slope}}{n_\text{gen}}$$
#
# In words: compute FID for several numbers of images, fit a line, read off where it meets the axis. The package's
# `frechet_at_infinity` does this with 15 numbers, from a tenth of the images to all.

# %% id="infinity" tags=["static"]
figure, ax = plt.subplots(figsize=(5.8, 3))
at_infinity = {}
for colour, (name, points) in zip(("C0", "C1"), {"unseen pages": unseen, "JPEG, quality 30": saved}.items()):
    dice = torch.Generator().manual_seed(0)
    at_infinity[name], slope = distributions.frechet_at_infinity(points, real, generator=dice)
    sizes = [n for which, n in fid_by_n if which == name and n * 10 >= len(points)]
    seen = [fid_by_n[name, n].mean() for n in sizes]
    ax.plot([1 / n for n in sizes], seen, "o", color=colour, label=name)
    ends = torch.tensor([0, 10 / len(points)])
    ax.plot(ends, at_infinity[name] + slope * ends, color=colour, linestyle="--")
    print(f"{name}: FID at infinity {at_infinity[name]:.3f}, FID of all {len(points)} {seen[-1]:.3f}")
ax.set(xlabel="1 / number of drawn images", ylabel="FID", ylim=(0, None), xlim=(0, None))
ax.legend()
show(
    figure,
    "FID over 1/n (dots) and fitted lines (dashed): the dots lie near the lines, but for that of 100 JPEGs; the line of "
    "the unseen pages ends near 0, that of the JPEGs at 0.5.",
)
few = torch.tensor([
    distributions.frechet_at_infinity(some_of(unseen, 100, seed), real, generator=torch.Generator().manual_seed(seed))[0]
    for seed in range(5)
])  # fmt: skip
print(f"from 100 unseen pages only: {few.min():.2f} to {few.max():.2f}")

# %% [markdown] id="infinity-read"
# With 3,000 unseen pages the line ends close to the truth, 0. (That there are only 2,000 `real` pages adds a bias that
# this fit does not correct; nor is the line exactly straight.) From 100 images the extrapolation is of little use: the last line gives
# the range of five selections.
#
# ### A distance without bias
#
# The **kernel inception distance**, KID ([arXiv:1801.01401](https://arxiv.org/abs/1801.01401)), compares the clouds pair by pair. It is the squared *maximum mean discrepancy* of the two clouds for a certain kernel. Two images are compared by $\text{kernel}(\text{gen}_j, \text{real}_i) = (\text{gen}_j \cdot
# \text{real}_i / d + 1)^3$, large if the features agree, and
#
# $$\text{KID} = \operatorname*{mean}_{j \ne j'} \text{kernel}(\text{gen}_j, \text{gen}_{j'})
#   + \operatorname*{mean}_{i \ne i'} \text{kernel}(\text{real}_i, \text{real}_{i'})
#   - 2 \operatorname*{mean}_{j, i} \text{kernel}(\text{gen}_j, \text{real}_i)$$
#
# In words: are two drawn images as similar to each other, and two real ones to each other, as a drawn one is to a real
# one? Pairs of an image *with itself* are left out, because they are always similar. Such an average over all pairs of
# different points is a **U-statistic**: each pair is a fair sample of two independent images, so the expectation is the
# same for any number of images. The expectation is 0 if both distributions are equal; a single KID is then often negative.
#
# ### Exercise 3 · The kernel distance
#
# ●●●○○ · 15 minutes. `features` (count, d) are of drawn images, `others` (number, d) of real ones; count and number may
# differ, and d is `features.shape[1]`. Return the KID as a float. Compute in float64.


# %% id="ex-kernel"
def kernel_distance(features, others):
    """The squared maximum mean discrepancy with the cubic kernel, without bias, as a float."""
    ### BEGIN SOLUTION
    x, y = features.double(), others.double()

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    #: the mean over all pairs of two different points: without the diagonal
    def of_pairs(table):
        return (table.sum() - table.trace()) / (len(table) * (len(table) - 1))

    #: within the first, within the second, between both
    return (of_pairs(kernel(x, x)) + of_pairs(kernel(y, y)) - 2 * kernel(x, y).mean()).item()
    ### END SOLUTION


# %% id="check-kernel"
kernel_distance = check("15.kernel_distance", kernel_distance)

# %% [markdown] id="unbiased-text"
# For each n, twenty random selections of n unseen and n real pages. For the second number the pairs of a page with itself are kept, as in a plain mean over the table. (Thousandths, ± the standard error of the twenty.)


# %% id="unbiased"
def with_itself(features, others):
    """The same with the diagonal: the plain means of the tables."""
    tables = ((a.double() @ b.double().T / d + 1) ** 3 for a, b in ((features, features), (others, others)))
    between = ((features.double() @ others.double().T / d + 1) ** 3).mean()
    return (sum(table.mean() for table in tables) - 2 * between).item()


kid_by_n = {}
for n in budget(smoke=(10, 40), laptop=(30, 100, 300), gpu=(30, 100, 300, 1000)):
    rows = [(some_of(unseen, n, seed), some_of(real, n, seed)) for seed in range(20)]
    kid_by_n[n] = torch.tensor([[kernel_distance(*pair), with_itself(*pair)] for pair in rows]) * 1000
    (mean, biased), (error, other) = kid_by_n[n].mean(0), kid_by_n[n].std(0) / 20**0.5
    print(f"n = {n:4}: KID {mean:6.1f} ± {error:.1f}, with the diagonal {biased:6.1f} ± {other:.1f}")
print(f"for comparison, {COUNT} images of DALL·E: {1000 * kernel_distance(drawn['DALL·E'], real):.1f}")
if LAPTOP:
    for found in kid_by_n.values():
        mean, error = found.mean(0), found.std(0) / 20**0.5
        assert mean[0].abs() < 3 * error[0] and mean[1] > 3 * error[1]

# %% [markdown] id="unbiased-read"
# Without the diagonal the mean is 0 within its error at every $n$; with it the same pages seem to be apart, and the
# more so the fewer they are. No bias does not mean no noise: a single KID of 30 images is off by several times the
# standard error above (by $\sqrt{20}$ times it, typically). Few images cannot say much, by any formula.
#
# ### Looking real, and covering what is real
#
# FID and KID are a single number each, and two failures hide in it. Images may look unreal; or each of them may look real while
# most kinds of real images are missing. The idea that tells them apart is a **neighbourhood**: a ball around each real
# image, as large as the distance to its $k_\text{near}$-th nearest other real image.
#
# * **precision**: the share of drawn images that lie in some real image's ball;
# * **recall**: the same with both clouds exchanged ([arXiv:1904.06991](https://arxiv.org/abs/1904.06991));
# * **density**: in how many real balls a drawn image lies, in the mean, divided by $k_\text{near}$. It is not fooled by
#   a single real outlier with a very large ball;
# * **coverage**: the share of real images with a drawn one in their ball
#   ([arXiv:2002.09797](https://arxiv.org/abs/2002.09797)):
#
# $$\text{coverage} = \operatorname*{mean}_i \bigl[\, \min_j \lVert \text{gen}_j - \text{real}_i \rVert \le
#   \text{radius}_i \,\bigr]$$
#
# ### Exercise 4 · Coverage
#
# ●●○○○ · 12 minutes. Return the coverage of `others` (number, d), the real ones, by `features` (count, d), the drawn
# ones, as a float. `k` is $k_\text{near}$, less than the number of real ones. A point is not its own neighbour. `torch.cdist(a, b)` is the table of all distances.


# %% id="ex-coverage"
def coverage(features, others, k=5):
    """The share of others that have one of the features within the distance to their k-th nearest other."""
    ### BEGIN SOLUTION
    features, others = features.double(), others.double()
    #: the radius of each: the k-th smallest distance to the others of its kind, itself left out
    among = torch.cdist(others, others).fill_diagonal_(math.inf)
    radius = among.kthvalue(k, dim=1).values
    #: whether the nearest drawn one is inside
    return (torch.cdist(others, features).amin(1) <= radius).double().mean().item()
    ### END SOLUTION


# %% id="check-coverage"
coverage = check("15.coverage", coverage)

# %% [markdown] id="toy-text"
# The four on points in the plane, where they can be seen: real points on a ring of eight clusters, with their balls.
# One sampler draws on three of the clusters only, another draws all around, a third is perfect.

# %% id="toy" tags=["static"]
from course_utils.data.points import gaussian_ring
from course_utils.metrics.distributions import density, precision, recall

dice = torch.Generator().manual_seed(0)
ring, other = gaussian_ring(160, dice), gaussian_ring(160, dice)
angle = torch.atan2(other[:, 1], other[:, 0])
trials = {
    "three of eight clusters": other[(angle > -0.4) & (angle < 1.9)],
    "all around": other + 0.35 * torch.randn(160, 2, generator=dice),
    "perfect": other,
}
radius = torch.cdist(ring, ring).fill_diagonal_(math.inf).kthvalue(3, dim=1).values
figure, axes = plt.subplots(1, 3, figsize=(9, 4.1), layout="constrained")
found = {}
for ax, (name, points) in zip(axes, trials.items()):
    for centre, r in zip(ring.tolist(), radius.tolist()):
        ax.add_patch(plt.Circle(centre, r, color="C0", alpha=0.08, linewidth=0))
    ax.scatter(*ring.T, s=3, color="C0")
    ax.scatter(*points.T, s=8, color="C1", marker="x", linewidths=0.8)
    found[name] = [measure(points, ring, 3) for measure in (precision, recall, density, coverage)]
    words = "precision {:.2f}, recall {:.2f}\ndensity {:.2f}, coverage {:.2f}".format(*found[name])
    ax.set(title=f"{name}\n{words}", aspect="equal", xticks=[], yticks=[])
show(figure, "Real points with their balls; drawn crosses on three clusters only, scattered all around, and on all.")
few, scattered, perfect = found.values()
assert few[0] > 0.8 > 0.5 > few[3] and scattered[0] < perfect[0] - 0.2 and scattered[1] > perfect[1]

# %% [markdown] id="toy-read"
# The first sampler is precise and covers a third of the points. The second is not precise, and here the two ways to
# measure variety part: its *recall* is perfect. Recall puts the balls around *drawn* points, and where these are
# scattered the balls are large. Coverage puts them around real points, and is not deceived.

# %% [markdown] id="four-numbers-text"
# What is a good coverage? If both clouds come from *one* distribution, its expectation depends on the numbers of
# points alone, whatever that distribution is (section 3.3 of the paper): the nearest $k_\text{near}$ of a real
# point are all real with the probability
# $\prod_{m=1}^{k_\text{near}} \frac{n_\text{real} - m}{n_\text{gen} + n_\text{real} - m}$, and then it is not covered.
#
# Balls shrink as the number of real images grows. So two lines for each sampler: against all real pages, and against as
# many as there are drawn ones, the mean over twenty sets of them. (Their standard deviation over the sets is below 0.11.)

# %% id="four-numbers"
measures = {"precision": precision, "recall": recall, "density": density, "coverage": coverage}
sets = real.split(COUNT)[: min(20, len(real) // COUNT)]
print(f"expected coverage, if all are perfect: {distributions.expected_coverage(COUNT, len(real), 5):.2f} of {len(real)}, "
      f"{distributions.expected_coverage(COUNT, COUNT, 5):.2f} of {COUNT}")  # fmt: skip
print(" " * 25 + "  ".join(measures))
of_all, of_sets = {}, {}
for name, points in drawn.items():
    of_all[name] = [measure(points, real, 5) for measure in measures.values()]
    found = torch.tensor([[measure(points, some, 5) for measure in measures.values()] for some in sets])
    of_sets[name] = found.mean(0).tolist()
    for count, row in ((len(real), of_all[name]), (COUNT, of_sets[name])):
        print(f"{name:14} of {count:4}:   " + "".join(f"{value:<10.2f}" for value in row))
    assert found.std(0).max() < 0.11 or not LAPTOP
if LAPTOP:
    assert abs(of_sets["true pages"][3] - distributions.expected_coverage(COUNT, COUNT, 5)) < 0.03
    for column, table in ((0, of_all), (2, of_all), (3, of_sets)):
        true, ten, four, dalles, blurry = (table[name][column] for name in drawn)
        assert true >= ten > four > max(dalles, blurry)
    assert min(row[0] for row in of_sets.values()) > 0.95

# %% [markdown] id="four-numbers-read"
# Against all real pages precision falls from 0.94 for true pages to 0.31 for DALL·E and 0.29 for the blurred pages, and
# density tells the same. Precision against a hundred says nothing, since the balls of so few pages are so large that almost whatever is drawn lies in one. Coverage of the true pages has its expected value, 0.97 of a hundred and 0.21 of 2,000. With 10
# steps it is lower only against 2,000 (0.15), with 4 steps against both. DALL·E covers fewer of a hundred pages than the blurred pages do (0.71 against 0.81), and more of 2,000 (0.04 against 0.02).
# (With 100 drawn images a precision has an interval of up to ±10 points: 0.31 and 0.29 cannot be told apart.) These numbers, too, depend on how many images there are, and belong beside their counts.
#
# And FID and KID? Here they are once more, for the 100 images against all real pages; KID for both halves of the images as well:

# %% id="both-distances"
for name, points in drawn.items():
    kid, *halves = (1000 * kernel_distance(some, real) for some in (points, *points.chunk(2)))
    print(
        f"{name:14} FID {fid[name]:.2f}, KID {kid:5.1f} thousandths ({halves[0]:.1f} and {halves[1]:.1f} of each half)"
    )
if LAPTOP:
    assert fid["4 steps"] < fid["blurred pages"]

# %% [markdown] id="both-distances-read"
# FID puts the 4 steps before the blurred pages, in both halves of the images, too (see below). KID cannot tell them
# apart: their values differ by less than those of two halves. The two weigh differently where two clouds are apart, and in 100 images this difference is large enough for FID to see, but not for KID.

# %% [markdown] id="which-text"
# ### Which features?
#
# Nothing so far asked what the features see. The usual FID takes them from a network that classifies photographs of
# ImageNet; what its thousand classes do not need, it may not see
# ([arXiv:2203.06026](https://arxiv.org/abs/2203.06026), [arXiv:2306.04675](https://arxiv.org/abs/2306.04675)). Three
# networks look at our four samplers and at the true pages: the judge; the digit reader of chapter 01, which knows handwritten digits
# only (it gets each page in grey, with 16 × 16 pixels); and a judge that was never trained, with random weights.
# **Predict first:** which of the three can tell true pages from DALL·E's?
#
# <details><summary>Answer (after running the cell below)</summary>
# The judge can, and so can random weights: they see colours and edges. The digit reader cannot: it gives DALL·E a lower FID than the true pages on all of the images, but a higher one on their second half.
# </details>

# %% id="which"
from course_utils.models.judge import Judge
from course_utils.recipes import load_reader

reader = load_reader()
torch.manual_seed(0)
untrained = Judge(judge.config).eval()


@torch.no_grad()
def reader_sees(images):
    """What the digit reader sees in pages, grey and with 16 x 16 pixels: (n, 32)."""
    return reader.features(F.avg_pool2d(images.mean(1, keepdim=True), 4))


@torch.no_grad()
def untrained_sees(images):
    """The features of a judge with random weights, (n, 176)."""
    return torch.cat([untrained.features(part) for part in images.split(64)])


NETWORKS = {"the judge": judge_sees, "digit reader": reader_sees, "random weights": untrained_sees}
some_real = pages_of(0, budget(smoke=40, laptop=600, gpu=2000))

# %% [markdown] id="which-run-text"
# FID of all images of each, and in brackets that of the first and of the second half, to see what chance does. (Values
# of different networks cannot be compared: each has its own scale, and halves are larger for their smaller number.)

# %% id="which-run"
by_network = {}
for network, see in NETWORKS.items():
    reference = see(some_real)
    print(network)
    for name, some in samplers.items():
        points = see(some)
        parts = points, *points.chunk(2)
        by_network[network, name] = [frechet_distance(part, reference) for part in parts]
        whole, first, second = by_network[network, name]
        print(f"   {name:14} FID {whole:8.3f}   ({first:.3f}, {second:.3f})")


# %% [markdown] id="which-order-text"
# Of the five rows ten pairs can be formed. How many of them are in the same order in both halves? If the features saw
# nothing, it would be five of ten, on average.


# %% id="which-order"
from itertools import combinations


def order(network, which):
    """The samplers from the lowest FID to the highest: of all (0), of the first half (1), of the second (2)."""
    return sorted(samplers, key=lambda name: by_network[network, name][which])


def agreeing(network):
    """How many of the ten pairs have the same order in both halves."""
    halves = [{pair for pair in combinations(order(network, which), 2)} for which in (1, 2)]
    return len(halves[0] & halves[1])


for network in NETWORKS:
    print(f"{network:14} {' < '.join(order(network, 0))}; {agreeing(network)} of 10 pairs the same in both halves")
if LAPTOP:
    for which in range(3):
        assert order("the judge", which)[2:] == ["4 steps", "blurred pages", "DALL·E"]
        assert set(order("random weights", which)[3:]) == {"blurred pages", "DALL·E"}
    assert agreeing("digit reader") < agreeing("random weights") <= agreeing("the judge")
    assert by_network["digit reader", "DALL·E"][0] < by_network["digit reader", "true pages"][0]

# %% [markdown] id="which-read"
# The judge puts the true pages and the 10 steps together in front, and the other three in the same order in the whole
# and in both halves. These random weights (one set of them) separate the blotchy and the blurred sampler from the rest, but not 4 steps from
# 10. The order of the digit reader agrees between the halves no better than chance.
#
# So a FID without the name of its network has no meaning, and a network sees what it was trained for. The judge's own
# features have a blind side, too. How many of its 176 directions carry the variance of the real pages?

# %% id="directions"
shares = torch.linalg.eigvalsh(real.double().T.cov()).flip(0)
shares = shares / shares.sum()
print(
    f"the first 10 of {d} directions hold {shares[:10].sum():.1%} of the variance, the first 20 {shares[:20].sum():.1%}"
)
mean_of = {}
for kind in ("place", "style"):
    shown = [getattr(book.sample_scene(number, 1), kind) for number in range(REAL)]
    groups = [real[[i for i, word in enumerate(shown) if word == one]] for one in sorted(set(shown))]
    between = sum(len(group) * (group.mean(0) - real.mean(0)).square().sum() for group in groups)
    mean_of[kind] = (between / (real - real.mean(0)).square().sum()).item()
    print(f"between {len(groups)} kinds of {kind}: {mean_of[kind]:.0%} of the variance")
assert shares[:10].sum() > 0.9 and sum(mean_of.values()) > 0.85

# %% [markdown] id="directions-read"
# Ten directions of 176 hold nearly all of the variance, and nearly all of it is place and style: the means of the eight places and of
# the four styles account for 94% of the variance. So this FID is, above all, a measure of whether places and styles
# look as they should and occur as often as they should. Give every thing on the true pages a wrong colour, and look again:

# %% id="wrong-colours"
from dataclasses import replace

NEXT = dict(zip((None, *book.COLOURS), (*book.COLOURS, None)))  # each colour's successor; None is the natural one


def recoloured(scene):
    """The same page with all of its things in other colours."""
    return replace(scene, things=tuple(replace(t, colour=NEXT[book.seen_colour(t)]) for t in scene.things))


wrong_colours = frechet_distance(judge_sees(book.pictures(map(recoloured, scenes))), real)
print(
    f"FID of the true pages {fid['true pages']:.2f}, with wrong colours {wrong_colours:.2f}, blurred {fid['blurred pages']:.2f}"
)
if LAPTOP:
    assert abs(wrong_colours - fid["true pages"]) < 0.2 * (fid["blurred pages"] - fid["true pages"])

# %% [markdown] id="wrong-colours-read"
# Pages on which each thing has the wrong colour are as good as true ones for this number (100 pages, the same ones), and a slight blur is far worse. Whether the prompt was followed must be asked in another way (section 2).

# %% [markdown] id="games-text"
# ### Three games with these numbers
#
# **A copier.** A "model" returns pages of the reference itself. **Predict first:** can it beat unseen pages, that is, a
# perfect model, in FID, in precision, in coverage?
#
# <details><summary>Answer (after running the cell below)</summary>
# In all three. A copy of everything has FID 0, precision 1 and coverage 1. None of these numbers asks whether an image
# is new; section 3 does.
# </details>

# %% id="copier"
copied = {}
for name, points in {"unseen": unseen[: len(real)], "half of it, copied": real[::2], "all, copied": real}.items():
    copied[name] = frechet_distance(points, real), precision(points, real, 5), coverage(points, real, 5)
    print("{:19} n = {:4}: FID {:.3f}, precision {:.3f}, coverage {:.3f}".format(name, len(points), *copied[name]))
assert copied["all, copied"][0] < 1e-3 and copied["all, copied"][1:] == (1, 1)
assert all(copied["all, copied"][i] >= copied["unseen"][i] for i in (1, 2)) and copied["unseen"][0] > 0.01

# %% [markdown] id="files-text"
# **A file format.** The same 300 unseen pages, saved and opened again, or made smaller and enlarged again. If the
# drawn images are saved in one way and the real ones in another, this is measured, too
# ([arXiv:2104.11222](https://arxiv.org/abs/2104.11222)).

# %% id="files"
FEW = budget(smoke=24, laptop=300, gpu=1000)
some_unseen = pages_of(REAL, FEW)


def resized(pages, method, side=48):
    """The pages, made smaller with a method of Pillow's and enlarged again, bicubic."""
    small = [page.resize((side, side), method) for page in to_pil(pages)]
    return to_tensor([page.resize((64, 64), Image.Resampling.BICUBIC) for page in small])


kinds = {
    "as they are": some_unseen,
    "JPEG, quality 95": jpeg(some_unseen, 95),
    "JPEG, quality 75": jpeg(some_unseen, 75),
    "48 pixels, antialiased": resized(some_unseen, Image.Resampling.BICUBIC),
    "48 pixels, nearest": resized(some_unseen, Image.Resampling.NEAREST),
}
fid_of_files = {name: frechet_distance(judge_sees(some), real) for name, some in kinds.items()}
for name, value in fid_of_files.items():
    print(f"{name:23} FID {value:.3f}")

# %% id="files-look" tags=["static"]
show(
    plot_pictures(torch.cat([some[:6] for some in kinds.values()]), columns=6, rows=list(kinds)),
    "Five rows of the same six pages; the JPEGs can hardly be told from the pages, those made smaller are softer or jagged.",
)
if LAPTOP:
    assert fid_of_files["as they are"] < fid_of_files["JPEG, quality 95"] < fid_of_files["JPEG, quality 75"]
    assert fid_of_files["48 pixels, nearest"] > 2 * fid_of_files["JPEG, quality 75"]

# %% [markdown] id="truncation-text"
# **Truncation.** Start the drawing from a smaller noise than in training, and the model stays near what it draws most
# often (GANs: [arXiv:1809.11096](https://arxiv.org/abs/1809.11096)). We try it on the digits of chapter 07, with the digit reader's features: $x_T$ is multiplied by a factor below 1. **Predict first:** what happens to precision,
# and what to recall?
#
# <details><summary>Answer (after running the cell below)</summary>
# Precision rises, from 0.86 to 0.97, and stays there, and recall falls, from 0.92 to 0.45 (200 digits, one set of noises): better looks are bought with variety. A single number, such as FID, does not show
# which of the two has changed.
# </details>

# %% id="truncation" tags=["static"]
from course_utils.data import digits
from course_utils.diffusion import samplers as solvers
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.recipes import load_digits_unet

network, alpha_bar = load_digits_unet(), alpha_bar_from_beta(scaled_linear_beta(1000))
times = solvers.trailing_times(1000, budget(smoke=3, laptop=20, gpu=50))
noise = torch.randn(budget(smoke=20, laptop=200, gpu=357), 1, 16, 16, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    true_digits, traded, looks = reader.features(digits.load(16, "test")[0]), {}, []
    for factor in (1.0, 0.8, 0.6):
        steps = solvers.ddim(lambda x_t, t, cond=None: network(x_t, t), factor * noise, alpha_bar, times)
        x0 = solvers.finish(steps).clamp(-1, 1)
        points = reader.features(x0)
        traded[factor] = [measure(points, true_digits) for measure in (precision, recall, frechet_distance)]
        looks.append(x0[:14])
        print("noise times {}: precision {:.2f}, recall {:.2f}, FID {:.0f}".format(factor, *traded[factor]))
show(
    plot_pictures(torch.cat(looks), columns=14, rows=[f"times {factor}" for factor in traded]),
    "Digits from full and from reduced noise, the same noises in each row: most stay what they are, some become a 2.",
)
if LAPTOP:
    assert traded[1.0][0] < traded[0.8][0] and traded[1.0][1] > traded[0.8][1] > traded[0.6][1]

# %% [markdown] id="games-read"
# With less noise fewer digits are odd, and more and more of them are alike: recall falls from 0.92 to 0.45. FID rises,
# since the loss of variety weighs more. If a paper shows samples of the truncated model and reports the FID of the untruncated
# one, it describes two different models.

# %% [markdown] id="follow-text"
# ## 2 · Does it follow the prompt?
#
# A page of a cat looks real also if a dog was asked for. Whether an image shows what its prompt names is another
# question, and needs a reader. The judge of chapter 09 returns the things that it finds, with their colours and places,
# and `followed` compares them with the caption: **each thing named is there, in its colour and pose, on its side, in
# its place and style, and nothing else is there**. As in GenEval ([arXiv:2310.11513](https://arxiv.org/abs/2310.11513))
# an image is right or wrong as a whole, and can be counted. `faults` names the first thing that is wrong:

# %% id="follow" tags=["static"]
from collections import Counter

from course_utils.metrics.pictures import faults

wrong = {name: faults(judge, some, captions) for name, some in images.items()}
hits = {name: [fault is None for fault in found] for name, found in wrong.items()}
for name, found in wrong.items():
    kinds = ", ".join(f"{fault} {count}" for fault, count in Counter(filter(None, found)).most_common(4))
    print(f"{name:14} followed {sum(hits[name]):3} of {COUNT}; wrong: {kinds}")
failures = {name: [i for i in range(COUNT) if not hits[name][i]] for name in ("4 steps", "DALL·E")}
chosen = [(name, i) for name, numbers in failures.items() for i in numbers[:3]]
show(
    plot_pictures(
        torch.stack([images[name][i] for name, i in chosen]),
        [f"{asked[i]}: {wrong[name][i]}" for name, i in chosen],
        columns=3,
    ),
    "Six images that do not follow their prompts, each below its prompt and with what the judge found wrong.",
)

# %% [markdown] id="wilson-text"
# ### How sure is a share?
#
# Other prompts, or other seeds, would have given another share. If the true probability is $p_\text{true}$, the share
# $\hat p$ of $n_\text{all}$ images has the standard error $\sqrt{p_\text{true}(1-p_\text{true})/n_\text{all}}$.
# **Wilson's interval** holds every $p_\text{true}$ from which the observed $\hat p$ is at most 1.96 standard errors
# away; so it misses the true one in about 5% of all experiments. Its ends are
#
# $$\frac{\hat p + \frac{1.96^2}{2 n_\text{all}} \pm 1.96 \sqrt{\frac{\hat p(1 - \hat p)}{n_\text{all}} +
#   \frac{1.96^2}{4 n_\text{all}^2}}}{1 + 1.96^2 / n_\text{all}}$$
#
# In words: a share that is pulled a little towards one half, plus and minus about two standard errors. The
# simpler $\hat p \pm 1.96\sqrt{\hat p (1-\hat p)/n_\text{all}}$ claims certainty where all images are right.
#
# ### Exercise 5 · Wilson's interval
#
# ●○○○○ · 8 minutes. Return both ends, (low, high), as floats from 0 to 1. `number` is at least 1. `z` is the 1.96 of the formula.


# %% id="ex-wilson"
def wilson_interval(hits, number, z=1.96):
    """The ends (low, high) of Wilson's interval of a probability: `hits` of `number` were hits."""
    ### BEGIN SOLUTION
    #: the share, and the middle and half the length before the division
    p = hits / number
    middle = p + z**2 / (2 * number)
    half = z * math.sqrt(p * (1 - p) / number + z**2 / (4 * number**2))
    low, high = (middle - half) / (1 + z**2 / number), (middle + half) / (1 + z**2 / number)
    #: rounding may lead out of 0 to 1
    return max(0.0, low), min(1.0, high)
    ### END SOLUTION


# %% id="check-wilson"
wilson_interval = check("15.wilson_interval", wilson_interval)

# %% [markdown] id="interval-text"
# `said` puts a share into words, with its interval and n, the number of images. For numbers that are not shares there
# is the **bootstrap**: draw a sample of the sample, as large as it, with replacement; take its mean; repeat, and keep
# the middle 95% of the means. No formula is needed for it.

# %% id="interval"
from scipy.stats import binomtest

from course_utils.metrics.statistics import bootstrap_interval, paired_interval


def said(truths):
    """The share of true values, its 95% interval and n, in words."""
    low, high = wilson_interval(sum(truths), len(truths))
    return f"{sum(truths) / len(truths):.0%} ({low:.0%} to {high:.0%}, n = {len(truths)})"


for name, truths in hits.items():
    low, high = bootstrap_interval([float(truth) for truth in truths])
    print(f"{name:14} followed {said(truths)}; bootstrap {low:.0%} to {high:.0%}")
    theirs = binomtest(sum(truths), COUNT).proportion_ci(0.95, method="wilson")
    assert abs(theirs.low - wilson_interval(sum(truths), COUNT)[0]) < 1e-4
print("10 of 10:", said([True] * 10), "; bootstrap:", bootstrap_interval([1.0] * 10))

# %% [markdown] id="interval-read"
# The two kinds of interval agree, except where all are right: drawn from ten hits, every sample has ten hits, and the
# bootstrap is sure. 10 steps are better than 4 steps here: their intervals are far apart. 4 steps and DALL·E cannot be told apart with 100 images. (The 19 blurred pages that the judge rejects are rejected for their style: blur looks like another style to it.)
#
# ### A score without a reader
#
# Where no judge exists, the usual number is the **CLIP score** ([arXiv:2104.08718](https://arxiv.org/abs/2104.08718)):
# the cosine of CLIP's embeddings of the image and of its prompt, here times 100. Chapter 08 measured what CLIP's cosine
# misses. Now we hold it against the judge. Each true page of two coloured things gets its true caption and a false one.
# **Predict first:** for which of the four kinds of false captions does CLIP prefer the true caption nearly always, and
# for which hardly more often than by guessing? And the judge?
#
# <details><summary>Answer (after running the cells below)</summary>
# Another place or another colour is noticed nearly always, swapped colours in two thirds, and swapped sides no more
# often than by guessing. The judge accepts every true caption and none of the false ones.
# </details>

# %% id="blind-pages"
FALSE = budget(smoke=20, laptop=150, gpu=600)


def coloured_pair(scene):
    """Whether a scene shows two different things, side by side, in two different colours, each named."""
    if len(scene.things) != 2 or scene.relation != "left of":
        return False
    one, other = scene.things
    return one.kind != other.kind and None not in (one.colour, other.colour) and one.colour != other.colour


pairs, number = [], 0
while len(pairs) < FALSE:
    scene, number = book.sample_scene(number, 8), number + 1
    if coloured_pair(scene):
        pairs.append(scene)
pair_pages = book.pictures(pairs)
print(book.caption(pairs[0]).text)


# %% [markdown] id="blind-changes-text"
# Four changes. The first two name what is not there; the last two arrange the same words in another way:


# %% id="blind-changes"
def coloured(scene, first, second):
    """The scene with its two things in these colours."""
    return replace(scene, things=tuple(replace(t, colour=c) for t, c in zip(scene.things, (first, second))))


def next_of(words, *taken):
    return next(word for word in words if word not in taken)


def colours_of(scene):
    return [thing.colour for thing in scene.things]


CHANGES = {
    "another place": lambda s: replace(s, place=next_of(book.PLACES, s.place)),
    "another colour": lambda s: coloured(s, next_of(book.COLOURS, *colours_of(s)), colours_of(s)[1]),
    "colours swapped": lambda s: coloured(s, *colours_of(s)[::-1]),
    "sides swapped": lambda s: replace(s, things=s.things[::-1]),
}
for name, change in CHANGES.items():
    print(f"{name:16} {book.caption(change(pairs[0])).text}")

# %% id="blind"
from course_utils.metrics.pictures import clip_scores, follows
from course_utils.models.judge import read
from course_utils.recipes import load_clip

clip, tokenizer = load_clip()
verdicts = [verdict for part in pair_pages.split(50) for verdict in read(judge, part)]
true_score = clip_scores(clip, tokenizer, pair_pages, [book.caption(scene).text for scene in pairs])
print(f"{'true captions':16} mean score {true_score.mean():.1f}, the judge accepts "
      f"{said([follows(v, book.caption(s)) for v, s in zip(verdicts, pairs)])}")  # fmt: skip
prefers = {}
for name, change in CHANGES.items():
    lies = [book.caption(change(scene)) for scene in pairs]
    score = clip_scores(clip, tokenizer, pair_pages, [lie.text for lie in lies])
    prefers[name] = (true_score > score).tolist()
    accepted = [follows(verdict, lie) for verdict, lie in zip(verdicts, lies)]
    print(f"{name:16} mean score {score.mean():.1f}, CLIP prefers the truth {said(prefers[name])}, "
          f"the judge accepts {said(accepted)}")  # fmt: skip
    assert sum(accepted) <= 0.03 * FALSE
if LAPTOP:
    assert min(sum(prefers[name]) for name in ("another place", "another colour")) > 0.9 * FALSE
    assert sum(prefers["colours swapped"]) < 0.8 * FALSE
    assert wilson_interval(sum(prefers["sides swapped"]), FALSE)[0] < 0.5

# %% [markdown] id="clip-four-text"
# And the four samplers, by both. (The interval of a mean score is the bootstrap's.)

# %% id="clip-four"
clip_of_four = {name: clip_scores(clip, tokenizer, some, asked) for name, some in images.items()}
pages_score = clip_scores(clip, tokenizer, book.pictures(scenes), asked)
for name, scores in {"true pages": pages_score, **clip_of_four}.items():
    low, high = bootstrap_interval(scores)
    print(f"{name:14} CLIP score {scores.mean():.1f} ({low:.1f} to {high:.1f})", end="")
    print(f"; followed {said(hits[name])}" if name in hits else "")
for name in ("4 steps", "DALL·E"):
    good, bad = (clip_of_four[name][torch.tensor(hits[name]) == truth] for truth in (True, False))
    beaten = (bad[:, None] > good).double().mean().item()
    print(f"{name}: an image that does not follow outscores one that does in {beaten:.0%} of all pairs of them")
if LAPTOP:
    assert bootstrap_interval(clip_of_four["DALL·E"])[0] > bootstrap_interval(clip_of_four["4 steps"])[1]
    assert sum(hits["DALL·E"]) <= sum(hits["4 steps"]) and beaten > 0.25

# %% [markdown] id="clip-four-read"
# The score puts true pages first, blurred or not; 10 steps and DALL·E follow, with intervals that overlap. It puts DALL·E clearly before 4 steps, while the judge finds no more of DALL·E's images right (48 of 100
# against 54). So even an average over 100 prompts shows a difference that is not one in following them. For single images the score is a weak witness, above all for DALL·E's, where a third of the pairs are in the wrong order. Report it as what it is: how near images and prompts are for one CLIP.

# %% [markdown] id="eyes-text"
# ### Who judges the judge?
#
# The judge was trained on renders, and drawn images are not renders. Chapter 10's model drew the first 200 of the course's *frozen prompts* (a thousand that never change) in 20 steps. These images were labelled by eye, right or wrong; `python3 course.py benchmark eyes` keeps the labels beside the judge's faults.
# (The labels come from one pair of eyes, which knew some of the judge's verdicts.) **Predict first:** the judge agrees with the labels on 94.5% of the images (189 of 200). How many of the images that are *wrong* by eye does it catch?
#
# <details><summary>Answer (after running the cell below)</summary>
# Three of eight. Since 192 of the 200 are right, someone who always says "right" agrees with the labels on 96%, more
# often than the judge. Agreement says little where one answer is rare.
# </details>

# %% id="eyes"
from course_utils.metrics.eyes import labelled

rows = labelled()
by_eye = [row.right for row in rows]


def judged(threshold):
    """Whether the judge finds each of the labelled images right, with this threshold."""
    return [row.faults[f"{threshold:g}"] is None for row in rows]


def confusion(by_judge):
    """How many images each pair of answers has: {(right by eye, right by the judge): number}."""
    return Counter(zip(by_eye, by_judge))


table = confusion(judged(0.25))
print("                    the judge: right   wrong")
for truth, name in ((True, "right"), (False, "wrong")):
    print(f"by eye {name:26} {table[truth, True]:5} {table[truth, False]:7}")
caught = [not answer for answer, truth in zip(judged(0.25), by_eye) if not truth]
print(f"agreement {said([a == b for a, b in zip(judged(0.25), by_eye)])}; always 'right' {said(by_eye)}")
print(f"of those wrong by eye it catches {said(caught)}")
print(f"share that follow: by eye {said(by_eye)}, by the judge {said(judged(0.25))}")
assert sum(by_eye) > table[True, True] + table[False, False] and (sum(caught), len(caught)) == (3, 8)

# %% [markdown] id="eyes-read"
# The judge's share is nearly that of the labels, 191 against 192 of 200. It is not right about each image: it finds 6 good ones wrong and 5 wrong ones good, and these errors happen to cancel. For a sampler that fails more often they might not. With eight images that are wrong by eye the interval of what it
# catches is wide: to know it better, label images of a *worse* sampler.
#
# ### A threshold by labels
#
# The judge counts as found what scores above 0.25. Where did that number come from? From labels. If it is chosen on
# the same images on which its agreement is then stated, that agreement is too good. So choose on one half and measure
# on the other:

# %% id="threshold" tags=["static"]
THRESHOLDS = [float(threshold) for threshold in rows[0].faults]
even = [i % 2 == 0 for i in range(len(rows))]
agreement = {t: [a == b for a, b in zip(judged(t), by_eye)] for t in THRESHOLDS}
figure, ax = plt.subplots(figsize=(5.4, 2.8))
ends = torch.tensor([wilson_interval(sum(agreement[t]), len(rows)) for t in THRESHOLDS])
ax.fill_between(THRESHOLDS, *ends.T, alpha=0.2, label="95% interval, all 200")
for half, name in ((True, "even seeds"), (False, "odd seeds")):
    shares = [sum(a for a, e in zip(agreement[t], even) if e is half) / 100 for t in THRESHOLDS]
    ax.plot(THRESHOLDS, shares, marker="o", label=name)
    best = THRESHOLDS[shares.index(max(shares))]
    other = [a for a, e in zip(agreement[best], even) if e is not half]
    print(f"chosen on {name}: {best:g}, agreement {max(shares):.0%} there, on the other half {said(other)}")
    assert best == (0.1 if half else 0.3)
ax.set(xlabel="threshold of the judge", ylabel="agreement with the labels")
ax.legend(fontsize=8)
show(
    figure,
    "Agreement over the threshold for two halves of the images: at least 0.90 up to 0.3, down to 0.84 in one half above.",
)

# %% [markdown] id="better-text"
# On one half 0.1 is best, on the other 0.3: from 0.1 to 0.3 the agreement hardly changes (2 points in one half, 4 in the other), and with 100 images each the halves differ by up to 8. Above 0.3 it falls, presumably because the judge then misses things that are there.
# Chosen on the even seeds, the threshold agrees on 98% there and on 92% of the others; chosen on the odd ones, on 94% and on 96%. On average that is 96% where it was chosen and 94% where it was not. One pair of
# halves cannot measure so small a difference, but its sign is known beforehand: only the second number is honest.
#
# ### When is 93.6% better than 91.6%?
#
# Chapter 10's model follows 93.6% of the 1,000 frozen prompts. Suppose a new sampler follows 91.6%. **Predict first:**
# is it worse, if both were measured on 200 prompts? On 1,000?
#
# <details><summary>Answer (after running the cells below)</summary>
# Not by these numbers alone: the interval of their difference holds 0, at 200 as at 1,000. If both drew the <em>same</em>
# prompts, more can be said.
# </details>

# %% id="better"
import json

from course_utils.pipelines.picture_book import CHECKPOINTS

frozen = json.loads((CHECKPOINTS / "manifest.json").read_text(encoding="utf-8"))["metrics"]["drawing"][0]
print(f"kept beside the weights: {frozen['all']:.1%} of {frozen['prompts']}")
for n in (200, 1000, 5000):
    one, other = round(0.936 * n), round(0.916 * n)
    ends = ["{:.1%} to {:.1%}".format(*wilson_interval(count, n)) for count in (one, other)]
    p, q = one / n, other / n
    error = math.sqrt(p * (1 - p) / n + q * (1 - q) / n)
    low, high = 100 * (p - q - 1.96 * error), 100 * (p - q + 1.96 * error)
    print(f"n = {n}: {ends[0]} against {ends[1]}; difference {low:+.1f} to {high:+.1f} points")

# %% [markdown] id="paired-text"
# Two samplers on the same prompts are a **paired** experiment. A prompt that both follow, or neither, says nothing
# about which is better. If the first alone is right on $n_\text{first}$ prompts and the second alone on
# $n_\text{second}$, the difference of the shares is $(n_\text{first} - n_\text{second}) / n_\text{all}$, with a
# standard error of about $\sqrt{n_\text{first} + n_\text{second}} / n_\text{all}$. The more their errors coincide, the
# smaller it is. For our own two samplers, on the same prompts with the same seeds:


# %% id="paired"
def only(first, second):
    """On how many prompts the first alone is right, and on how many the second alone."""
    return sum(a > b for a, b in zip(first, second)), sum(b > a for a, b in zip(first, second))


def in_points(interval):
    return "{:+.1f} to {:+.1f} points".format(*(100 * end for end in interval))


ten, four = ([float(hit) for hit in hits[name]] for name in ("10 steps", "4 steps"))
shuffled = [four[i] for i in torch.randperm(COUNT, generator=torch.Generator().manual_seed(0)).tolist()]
print(f"10 steps alone / 4 steps alone: {only(ten, four)} of {COUNT}; if paired by chance {only(ten, shuffled)}")
print("difference, paired by prompt:", in_points(paired_interval(ten, four)))
print("difference, paired by chance:", in_points(paired_interval(ten, shuffled)))

# %% [markdown] id="paired-2-text"
# Paired by prompt the interval is a little shorter, 20 points in place of 24. Now 93.6% against 91.6%, with three kinds of overlap: errors that have nothing to do with each other; half of the
# first's errors shared by the second; a second sampler that fails wherever the first does. The bootstrap is too sure of
# itself where only a few prompts differ. So we add the **sign test** (McNemar's): if both were equally good, each
# prompt on which they differ would be a coin toss. How probable is a result at least as uneven?


# %% id="paired-2"
def pair_of(n, both_wrong):
    """Two lists of hits, 93.6% and 91.6% of n, that are both wrong on so many prompts."""
    first, second = n - round(0.936 * n), n - round(0.916 * n)  # how many are wrong
    rows = [(0, 0)] * both_wrong + [(0, 1)] * (first - both_wrong) + [(1, 0)] * (second - both_wrong)
    rows += [(1, 1)] * (n - len(rows))
    return [[float(hit) for hit in column] for column in zip(*rows)]


better = {}
for n in (200, 1000):
    first = n - round(0.936 * n)
    for name, both_wrong in {"unrelated": round(0.064 * 0.084 * n), "half": first // 2, "all": first}.items():
        one, other = pair_of(n, both_wrong)
        alone = only(one, other)
        chance = binomtest(alone[0], sum(alone)).pvalue
        better[n, name] = chance < 0.05
        words = f"{in_points(paired_interval(one, other))}, sign test {chance:.2g}{': better' if chance < 0.05 else ''}"
        print(f"n = {n:4}, common errors {name:9}: alone right {alone[0]:2} and {alone[1]:2}; {words}")
assert not any(better[200, name] for name in ("unrelated", "half", "all"))
assert better[1000, "half"] and better[1000, "all"] and not better[1000, "unrelated"]

# %% [markdown] id="regress-text"
# So a difference of two points cannot be detected with 200 prompts, whatever the overlap. With 1,000 it can, if both samplers drew
# the same prompts and at least half of the first one's errors are the second's, too. A table of shares does not show this.
# Keep the result for each prompt.
#
# ### Prompts that were chosen because they fail
#
# "We tried our new sampler on the prompts that the old one fails at, and it follows many of them." The 4-step sampler
# fails at some of our prompts. We draw just these again, with *the same sampler* and other seeds. **Predict first:**
# how many will it follow now? And how many of as many prompts that it followed?
#
# <details><summary>Answer (after running the cell below)</summary>
# Of 30 prompts that failed, 20% are followed now (10% to 37%); of 30 that were followed, 17% fail (7% to 34%). Nothing has improved and
# nothing got worse.
# </details>

# %% id="regress"
failed = [i for i in range(COUNT) if not hits["4 steps"][i]][: budget(smoke=3, laptop=30, gpu=100)]
passed = [i for i in range(COUNT) if hits["4 steps"][i]][: len(failed)]
again = {}
for name, chosen in (("failed", failed), ("passed", passed)):
    redrawn = draw_all(painter, [asked[i] for i in chosen], seed=5000, steps=4)
    again[name] = [fault is None for fault in faults(judge, redrawn, [captions[i] for i in chosen])]
    print(f"prompts that {name} at first, drawn again by the same sampler: followed {said(again[name])}")
print(f"all prompts, at first: {said(hits['4 steps'])}")
if LAPTOP:
    assert 0 < sum(again["failed"]) < sum(hits["4 steps"]) / COUNT * len(failed) and sum(again["passed"]) < len(passed)

# %% [markdown] id="regress-read"
# This is **regression to the mean**. A prompt fails because it is hard or because the seed was unlucky. If you choose
# failures, you choose bad luck with them, and luck does not repeat. (Luck is not all: were it so, half of the failed prompts would have been followed now, as of all prompts.) The remedy: draw with the old sampler again, too, on the chosen prompts and with fresh seeds, and compare with that. The same holds for images: the best four of forty seeds say more about the choice than about the sampler.
#
# ### Ask people
#
# In the end images are made for people. A simple question to ask them: of two images of the same prompt, which do you
# prefer? The vote must be **blind**: the voter does not know who drew which, and sides change at random, so that a habit of choosing one side favours nobody. `Ballot` keeps pairs, sides and votes; six of them, the left image above the right one:

# %% id="ballot" tags=["static"]
from course_utils.widgets import Ballot, voting_booth

VOTES = min(40, COUNT)
two = {name: images[name][:VOTES] for name in ("10 steps", "4 steps")}
ballot = Ballot(asked[:VOTES], two, seed=1)
lefts, rights = [], []
for number, left in ballot.pairs[:6]:
    right = next(name for name in two if name != left)
    lefts.append(two[left][number])
    rights.append(two[right][number])
heads = [asked[number] for number, _ in ballot.pairs[:6]]
show(
    plot_pictures(torch.stack(lefts + rights), columns=len(lefts), heads=heads, rows=["left", "right"]),
    "Six pairs of images of the same prompts, one above the other, without the names of the samplers.",
)

# %% [markdown] id="booth-text"
# Now vote yourself. Tab goes from button to button, Enter presses. With `path="votes.json"` the ballot keeps your
# votes in a file and goes on from there.

# %% id="booth"
voting_booth(ballot)

# %% [markdown] id="stand-in-text"
# In a notebook that runs by itself nobody votes. A stand-in does: it prefers the image that the judge finds right, and
# sees no difference if both are right or both are wrong. It is not a person, and cannot tell a pretty page from an ugly
# one.

# %% id="stand-in"
stand_in = Ballot(asked[:VOTES], two, seed=1)
while not stand_in.finished:
    number, left = stand_in.pairs[len(stand_in.votes)]
    right = next(name for name in two if name != left)
    a, b = hits[left][number], hits[right][number]
    stand_in.vote("tie" if a == b else "left" if a else "right")
print(stand_in.result())

# %% [markdown] id="terry-text"
# ### From pairs to a ranking
#
# With more than two samplers not everybody meets everybody equally often. The model of Bradley and Terry (1952) gives
# each player a strength and assumes
#
# $$P(i \text{ wins against } j) = \frac{\text{strength}_i}{\text{strength}_i + \text{strength}_j}$$
#
# In words: twice as strong means two wins for each loss. Only ratios matter. The strengths that make the observed votes
# most probable have no formula, but a simple iteration that makes them more probable in each step
# (Hunter 2004, *Annals of Statistics* 32): all at once,
#
# $$\text{strength}_i \leftarrow \frac{\sum_j \text{wins}_{ij}}
#   {\sum_{j \ne i} \frac{\text{wins}_{ij} + \text{wins}_{ji}}{\text{strength}_i + \text{strength}_j}}$$
#
# The numerator is how often $i$ won, the denominator grows with its games and falls with the strength of its opponents.
# A tie counts half for both. $400 \log_{10} \text{strength}_i$ plus a constant, here 1000, is the *Elo rating* of chess.
#
# ### Exercise 6 · Strengths from votes
#
# ●●●○○ · 15 minutes. `wins` is (players, players), float64, its diagonal is zero; each player has won something and met somebody. Begin with strengths of 1, make `steps` steps,
# and return the strengths, float64 (players,), scaled so that their geometric mean is 1 (their logarithms have
# the mean 0).


# %% id="ex-terry"
def bradley_terry(wins, steps=1000):
    """The strengths (players,), with a geometric mean of 1, from wins (players, players)."""
    ### BEGIN SOLUTION
    wins = wins.double()
    games, strength = wins + wins.T, torch.ones(len(wins), dtype=torch.float64)
    #: each step: wins, divided by games weighted with 1 / (both strengths)
    for _ in range(steps):
        strength = wins.sum(1) / (games / (strength[:, None] + strength)).sum(1)
    #: only ratios matter
    return strength / strength.log().mean().exp()
    ### END SOLUTION


# %% id="check-terry"
bradley_terry = check("15.bradley_terry", bradley_terry)

# %% [markdown] id="ranking-text"
# The stand-in compares all four samplers, each pair on all prompts. `bradley_terry_intervals` draws the votes with
# replacement and computes the strengths each time. (It adds one tie for each pair, so that nobody gets an infinite
# strength.)

# %% id="ranking"
from course_utils.metrics.statistics import bradley_terry_intervals, elo, wins_of

names = list(images)
votes = [
    (i, j, 0.5 if hits[names[i]][k] == hits[names[j]][k] else float(hits[names[i]][k]))
    for i, j in combinations(range(len(names)), 2)
    for k in range(COUNT)
]
strength, ends = bradley_terry_intervals(votes, len(names))
few_ends = bradley_terry_intervals(votes[:: max(1, COUNT // 10)], len(names))[1]
assert torch.allclose(bradley_terry(wins_of(votes, len(names))), strength, rtol=0.1)
for row, name in enumerate(names):
    low, high = elo(ends[row]).tolist()
    print(f"{name:14} {elo(strength)[row]:.0f} points ({low:.0f} to {high:.0f})")
if LAPTOP:
    ten, four, dalles, blurry = ends
    assert min(ten[0], blurry[0]) > max(four[1], dalles[1])
    assert ten[0] < blurry[1] and blurry[0] < ten[1] and four[0] < dalles[1]

# %% id="ranking-look" tags=["static"]
figure, ax = plt.subplots(figsize=(6, 2.4))
for row in range(len(names)):
    ax.plot(
        elo(few_ends[row]), [row + 0.18] * 2, color="C1", linestyle="-", label="" if row else "a tenth of the votes"
    )
    ax.plot(elo(ends[row]), [row] * 2, color="C0", linestyle="-", linewidth=4, label="" if row else "all votes")
    ax.plot(elo(strength)[row], row, "o", color="black")
ax.set(yticks=range(len(names)), yticklabels=names, xlabel="Elo points")
ax.legend(fontsize=8, loc="lower left")
show(
    figure,
    "Points with their intervals for four samplers, short ones for all votes and longer ones for a tenth of them.",
)

# %% [markdown] id="ranking-read"
# The votes separate two groups, 10 steps and blurred pages from 4 steps and DALL·E, and nothing within them: there the
# intervals overlap. With a tenth of the votes they are two and a half to three times as long. (They are somewhat too short: the 600 votes are made from 400 images, and the bootstrap takes them for independent.) Many votes are ties, since this voter
# sees only right and wrong, and ties draw the strengths together. So look at the intervals before you look at the
# order, and ask who voted: this voter does not mind that pages are blurred.

# %% [markdown] id="copy-text"
# ## 3 · Does it copy?
#
# The copier of section 1 beat a perfect model in FID, precision and coverage. So whether images look right and whether they are *new*
# are two questions. The second matters to those who made the training images and to those who are shown in them: from
# Stable Diffusion and Imagen single training images have been drawn again, nearly pixel by pixel
# ([arXiv:2301.13188](https://arxiv.org/abs/2301.13188)).
#
# ### The nearest neighbour
#
# A copy is near to its original. But near in which sense? We disguise training pages a little, and look for the
# original among all of them: in pixels, and in the judge's features. **Predict first:** which disguise deceives the
# pixels, and which the features?
#
# <details><summary>Answer (after running the cell below)</summary>
# A JPEG and a small move do not deceive the pixels at all; they deceive the features on 15% and 33% of the pages (60 of each). Mirrored pages
# are the other way round: by pixels 37% of the originals are found, by features, which are averages over all places,
# 87%. Darker pages deceive both.
# </details>

# %% id="disguises"
from course_utils.metrics.copies import nearest_two

CROWD, HIDDEN = budget(smoke=60, laptop=300, gpu=1000), budget(smoke=10, laptop=60, gpu=200)
crowd = pages_of(0, CROWD)
DISGUISES = {
    "JPEG, quality 30": lambda some: jpeg(some, 30),
    "moved by 3 pixels": lambda some: F.pad(some, (3, 0, 0, 0), mode="replicate")[..., :64],
    "mirrored": lambda some: some.flip(3),
    "darker": lambda some: 0.7 * (some + 1) - 1,
}
found = {}
for name, disguise in DISGUISES.items():
    some = disguise(crowd[:HIDDEN])
    by_pixels = nearest_two(some.flatten(1), crowd.flatten(1))[2]
    by_features = nearest_two(judge_sees(some), real[:CROWD])[2]
    found[name] = [(which == torch.arange(HIDDEN)).tolist() for which in (by_pixels, by_features)]
    print(f"{name:18} original found by pixels {said(found[name][0])}, by features {said(found[name][1])}")
if LAPTOP:
    for name in ("JPEG, quality 30", "moved by 3 pixels"):
        assert sum(found[name][0]) > 0.9 * HIDDEN and sum(found[name][0]) > sum(found[name][1])
    assert sum(found["mirrored"][1]) > 1.5 * sum(found["mirrored"][0])
    assert max(map(sum, found["darker"])) < 0.5 * HIDDEN

# %% id="disguises-look" tags=["static"]
show(
    plot_pictures(
        torch.cat([crowd[:6], *(disguise(crowd[:6]) for disguise in DISGUISES.values())]),
        columns=6,
        rows=["page", *DISGUISES],
    ),
    "Six pages, and each of them saved as a JPEG, moved to the right, mirrored, and darker.",
)

# %% [markdown] id="disguises-read"
# Neither of the two finds everything. Pixels miss most of the mirrored pages, features a third of those that were moved by three pixels, and both miss most of the darker ones. Each
# distance has its blind side, as each FID had, so copies are searched for with several. What neither finds is not
# proved to be new.
#
# ### How near is too near?
#
# A distance alone says little. A page with much empty snow is near to all snowy pages. A copy of a colourful
# page, slightly changed, may be farther from its original than two different snowy pages are from each other. So the distance to the nearest is compared with the distance to the
# *next*:
#
# $$\text{ratio}_j = \frac{\text{near}_j}{\text{next}_j}, \qquad
#   \text{near}_j = \min_i \lVert \text{gen}_j - \text{train}_i \rVert$$
#
# In words: is this image much nearer to one training image than to any other? An original is about as far from one as
# from the next, ratio near 1. A copy is near to one alone, ratio near 0. (Carlini et al. divide by half of the mean
# distance to the 50 nearest, which needs more training images and suffers less from near duplicates.)
#
# ### Exercise 7 · The ratio to the second neighbour
#
# ●●○○○ · 8 minutes. `features` is (count, d), `training` (number, d) with two rows or more. Return the ratios,
# (count,). Where the nearest distance is 0 the ratio is 0, also if the second one is 0, too. Compute in float64 and return it, and
# compute the two distances that count as `(a - b).norm()`: `torch.cdist` uses products to find them, whose rounding
# turns a 0 into a small number. (Only those two: all differences at once, (count, number, d), may need gigabytes.)


# %% id="ex-neighbour-ratio"
def neighbour_ratio(features, training):
    """For each point the distance to its nearest training point, divided by that to the second nearest: (count,)."""
    ### BEGIN SOLUTION
    features, training = features.double(), training.double()
    #: which two are nearest, (count, 2)
    two = torch.cdist(features, training).topk(2, dim=1, largest=False).indices
    #: their exact distances, the smaller first
    nearest, second = (features[:, None] - training[two]).norm(dim=2).sort(dim=1).values.T
    #: a copy is a copy, however many there are of its original
    return torch.where(nearest > 0, nearest / second.clamp(min=1e-300), 0.0)
    ### END SOLUTION


# %% id="check-neighbour-ratio"
neighbour_ratio = check("15.neighbour_ratio", neighbour_ratio)

# %% [markdown] id="learn-text"
# ### A network that learns pages by heart
#
# Chapter 06 showed that the lowest possible loss on the training set belongs to a model that only copies. Does a
# network that is trained on few images become one? We take **20 pages** of 32 × 32 pixels with one thing each, and
# **1,000 pages**, the 20 among them. The first of the 20 is put in **ten times**, as images from the Web occur many
# times in a data set; so the small set has 29 entries, and the first page is a third of them.
#
# Both get the same small U-Net, from the same start, with the same number of updates. It predicts $\hat x_0$, one of the three parametrisations of chapter 07. To make it quick on a laptop, each 4 × 4 pixels become one place with 48 numbers (`F.pixel_unshuffle`).

# %% id="learn-data"
from course_utils.metrics.pictures import one_thing_pages

FEW_PAGES, MANY_PAGES, FRESH = budget(smoke=(4, 40, 20), laptop=(20, 1000, 200), gpu=(20, 1000, 200))
small_pages = book.pictures(one_thing_pages(MANY_PAGES + FRESH, seed=3), 32)
many_pages, fresh_pages = small_pages[:MANY_PAGES], small_pages[MANY_PAGES:]
few_pages = many_pages[:FEW_PAGES]
entries = torch.cat([few_pages, few_pages[:1].expand(9, -1, -1, -1)])
print(f"{len(few_pages)} pages in {len(entries)} entries, {len(many_pages)} pages, {len(fresh_pages)} fresh ones")
assert len(small_pages.flatten(1).unique(dim=0)) == len(small_pages)

# %% id="learn-by-heart"
from tqdm.auto import tqdm

from course_utils.diffusion import objectives
from course_utils.diffusion.schedules import add_noise
from course_utils.models.unet import PictureUNet
from course_utils.training import MovingAverage, train

UPDATES = budget(smoke=3, laptop=1000, gpu=3000)


def train_on(pages):
    """A U-Net trained on pages (n, 3, 32, 32), averaged: model(x_t, t) -> x0_hat, of folded ones (n, 48, 8, 8)."""
    folded = F.pixel_unshuffle(pages, 4)
    torch.manual_seed(0)
    model = PictureUNet(channels=48, size=8, widths=(48, 64, 96))
    average = MovingAverage(model, decay=0.99)

    def loss(model, samples):
        x0, t = folded[samples.integers(len(pages))], samples.integers(len(alpha_bar), stream=1)
        x_t = add_noise(x0, samples.normals(48, 8, 8, stream=2), t, alpha_bar)
        return objectives.noise_prediction_loss(model(x_t, t), x0).mean()  # the same squared error, of x0

    records = train(model, loss, steps=UPDATES, batch=16, learning_rate=2e-3, average=average)
    for _ in tqdm(records, f"{len(pages)} entries", total=UPDATES):
        pass
    return average.model


networks = {f"trained on {len(few_pages)}": train_on(entries), f"trained on {len(many_pages)}": train_on(many_pages)}

# %% [markdown] id="extract-text"
# Now the attack: draw with 64 seeds, and keep what is much nearer to one training page than to the next, with a ratio
# below 0.5. Each network is compared with the pages that *it* was trained on, one of each. For comparison: fresh pages, of
# which no network could have made a copy. **Predict first:** what share of each network's images are copies? And what
# share of the small one's copies are copies of the page that was put in ten times?
#
# <details><summary>Answer (after running the cells below)</summary>
# Of the images by the network of 20 pages, 61% are copies (49% to 72%, n = 64); of the network of 1,000, and of the fresh pages, none (0% to 6%). A third of the copies, 13 of 39 (21% to 49%), are of the tenfold page, as its share of the entries would suggest.
# </details>

# %% id="extract"
SEEDS, NEAR = budget(smoke=8, laptop=64, gpu=256), 0.5


@torch.no_grad()
def draw_small(model, count, seed=0):
    """`count` images (count, 3, 32, 32) from a network of ours, by DDIM in 25 steps."""
    x_T = torch.randn(count, 48, 8, 8, generator=torch.Generator().manual_seed(seed))
    predict = objectives.as_eps(lambda x_t, t, cond=None: model(x_t, t), "x0", alpha_bar)
    times = solvers.trailing_times(len(alpha_bar), budget(smoke=3, laptop=25, gpu=25))
    walk = solvers.ddim(predict, x_T, alpha_bar, times)
    return F.pixel_shuffle(solvers.finish(walk).clamp(-1, 1), 4)


trained_on = dict(zip(networks, (few_pages, many_pages)))
extracted = {name: draw_small(model, SEEDS) for name, model in networks.items()}
ratios = {}
for name, training in trained_on.items():
    for kind, some in {"drawn": extracted[name], "fresh": fresh_pages[:SEEDS]}.items():
        ratios[name, kind] = ratio = neighbour_ratio(some.flatten(1), training.flatten(1))
        copied_ones = said((ratio < NEAR).tolist())
        print(f"{name:16} {kind}: ratio {ratio.median():.2f} in the median, below {NEAR}: {copied_ones}")
small, large = networks
if LAPTOP:
    assert wilson_interval(int((ratios[small, "drawn"] < NEAR).sum()), SEEDS)[0] > 0.3
    assert (ratios[large, "drawn"] < NEAR).sum() <= 0.1 * SEEDS and (ratios[small, "fresh"] < NEAR).sum() == 0

# %% id="extract-look" tags=["static"]
LOOK, rows = min(8, SEEDS), []
for name, training in trained_on.items():
    some = extracted[name][:LOOK]
    rows += [some, training[nearest_two(some.flatten(1), training.flatten(1))[2]]]
labels = [f"{ratio:.2f}" for name in networks for ratio in ratios[name, "drawn"][:LOOK]]
titles = [*labels[:LOOK], *[""] * LOOK, *labels[LOOK:], *[""] * LOOK]
show(
    plot_pictures(torch.cat(rows), titles, LOOK, rows=[small, "nearest page", large, "nearest page"]),
    "Images of the two networks for the first seeds, none selected, with their ratios, and below each its nearest "
    "training page: the network of 20 draws some of its pages again, others half; that of 1,000 draws blurred blots.",
)

# %% [markdown] id="tenfold-text"
# Which pages come out? And what if nobody had removed the duplicates before searching? Then the second neighbour of a
# copy of the tenfold page is the same page once more, just as near.

# %% id="tenfold"
drawn_rows = extracted[small].flatten(1)
is_copy = ratios[small, "drawn"] < NEAR
which = nearest_two(drawn_rows, few_pages.flatten(1))[2][is_copy]
of_page = torch.bincount(which, minlength=FEW_PAGES)
print(f"of {len(which)} copies, of the tenfold page: {of_page[0]}, of each other page: {of_page[1:].tolist()}")
if len(which):
    print("   its share:", said((which == 0).tolist()), f"; of the entries {10 / len(entries):.0%}")
print(f"different pages extracted: {(of_page > 0).sum()} of {FEW_PAGES}")
hidden = neighbour_ratio(drawn_rows, entries.flatten(1)) < NEAR
print(f"with the duplicates left in the list: {hidden.sum()} copies found instead of {is_copy.sum()}")
assert (hidden <= is_copy).all()
if LAPTOP:
    assert of_page[0] > 3 * of_page[1:].double().mean() and hidden.sum() < is_copy.sum()

# %% [markdown] id="tenfold-read"
# A third of the copies are of the tenfold page, as its share of the entries would suggest; of each other page there are 1.4 on average. But one
# page that was put in once comes out 14 times, another 9 times, and fifteen do not come out at all. So repetition cannot be all that counts. With its duplicates left in the list a third of the copies
# escape the search.
#
# The network of 1,000 pages has as many parameters and as many updates, but it saw each page 34 times less often, and the tenfold one 345 times. It
# draws blurred places and no things. So this is no comparison of two good networks: with more training and more
# parameters it, too, would presumably come nearer to its pages. In this one training, the page that was there ten times was copied nine times as often as the average of the others (13 against 1.4). One repeated page proves little, but larger experiments agree. The attack on Stable Diffusion tried the captions of
# the images that its training set held most often, and succeeded mostly for those that were there a hundred times or
# more ([arXiv:2301.13188](https://arxiv.org/abs/2301.13188), section 4). Duplicated captions matter, too ([arXiv:2305.20086](https://arxiv.org/abs/2305.20086)). Removing duplicates from the data is therefore the first remedy.

# %% [markdown] id="member-text"
# ### Was this image in the training set?
#
# Someone who finds no copy can still ask whether a certain image was trained on: **membership inference**. What gives
# it away is the loss, which training makes smaller on the training set than elsewhere. How well does the loss separate
# members from others? Take one of each, at random: the **AUC** is the probability that the member's loss is the smaller
# one (ties count half).
#
# $$\text{AUC} = \operatorname*{mean}_{a, b} \Bigl( [\text{member}_a < \text{other}_b]
#   + \tfrac12 [\text{member}_a = \text{other}_b] \Bigr)$$
#
# 1 means that the loss separates them perfectly, 0.5 that it tells nothing. No threshold has to be chosen. (The name,
# area under the curve, comes from another way to compute the same number: plot the share of members found over the
# share of false alarms, for all thresholds.) The package's `auc` computes it, and the cell below compares it with
# scikit-learn's.
#
# We take the loss at a middle time, $t = 500$, averaged over four noises that are the same for all images. First we try our two networks, on their training pages (one of each) and on fresh pages from the same program. **Predict first:** the AUC of the
# network of 20 pages, and that of the network of 1,000?
#
# <details><summary>Answer (after running the cell below)</summary>
# 1.00 for the network of 20: every page that it was trained on has a smaller loss than any fresh page, or nearly. For the
# network of 1,000 it is 0.48, with an interval that holds 0.5: its loss tells nothing.
# </details>

# %% id="membership"
from sklearn.metrics import roc_auc_score

from course_utils.metrics.copies import auc, auc_interval


@torch.no_grad()
def losses_at(predict, x0, target, t=500, noises=4):
    """Errors of predict(x_t, t) at time t for each x0 (n, ...): the mean over some noises, the same for all, (n,)."""
    time, found = torch.full((len(x0),), t, device=x0.device), []
    for seed in range(noises):
        eps = torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x0).expand_as(x0)
        x_t = add_noise(x0, eps, time, alpha_bar.to(x0))
        found.append(objectives.noise_prediction_loss(predict(x_t, time), target(x0, eps, time)))
    return torch.stack(found).mean(0).cpu()


of_loss = {}
for name, training in trained_on.items():
    folded = [F.pixel_unshuffle(some, 4) for some in (training[:FRESH], fresh_pages)]
    pair = [losses_at(networks[name], x0, target=lambda x0, eps, t: x0) for x0 in folded]
    of_loss[name] = auc(*pair), auc_interval(*pair)
    truth = [1] * len(pair[0]) + [0] * len(pair[1])
    assert abs(of_loss[name][0] - roc_auc_score(truth, -torch.cat(pair))) < 1e-6
    value, (low, high) = of_loss[name]
    print(f"{name:16} loss {pair[0].mean():.4f} of {len(pair[0])} members, {pair[1].mean():.4f} of {len(pair[1])} others; "
          f"AUC {value:.2f} ({low:.2f} to {high:.2f})")  # fmt: skip
if LAPTOP:
    assert of_loss[small][1][0] > 0.9 and of_loss[large][0] < of_loss[small][1][0]

# %% [markdown] id="membership-read"
# The network of 20 gives its pages away. The one of 1,000, after as many updates, does not: its losses on members and on
# others are the same, as far as 200 of each can tell.
#
# ### The shipped model
#
# Now the same two questions about the model of chapter 10. Its training pages are the first of data set 0, in the last training the first 100,000 of them (`course_utils/recipes/pictures.py`). Its losses, on 200 of these pages with
# their captions and on 200 fresh pages with theirs:

# %% id="shipped-membership"
from course_utils.recipes.vae import encode_pictures
from course_utils.text.tokens import tokenize

pipe, TESTED = painter.parts, budget(smoke=8, laptop=200, gpu=1000)


def v_of(x0, eps, t):
    """What the shipped U-Net predicts."""
    return objectives.v_from_x0_eps(x0, eps, t, alpha_bar.to(x0))


@torch.no_grad()
def shipped_losses(some):
    """The shipped U-Net's losses on pages, each with its caption: (n,)."""
    losses = []
    for first in range(0, len(some), 40):
        part = some[first : first + 40]
        x0 = pipe.vae.config.scaling_factor * encode_pictures(pipe.vae, book.pictures(part).to(device))
        tokens = tokenize(pipe.tokenizer, [book.caption(scene).text for scene in part]).to(device)
        cond = pipe.text_encoder(tokens).last_hidden_state
        losses.append(losses_at(lambda x_t, t, cond=cond: pipe.unet(x_t, t, cond).sample, x0, v_of, noises=2))
    return torch.cat(losses)


pair = [shipped_losses([book.sample_scene(n, seed) for n in range(TESTED)]) for seed in (0, 16)]
value, (low, high) = auc(*pair), auc_interval(*pair)
print(f"shipped: loss {pair[0].mean():.4f} on {TESTED} members, {pair[1].mean():.4f} on {TESTED} others; "
      f"AUC {value:.2f} ({low:.2f} to {high:.2f})")  # fmt: skip
if LAPTOP:
    assert low < 0.6 and value < of_loss[small][0]

# %% [markdown] id="shipped-membership-read"
# The interval holds 0.5: by this loss, pages of the training set and fresh ones cannot be told apart. This is the simplest
# of such attacks; that it finds nothing does not prove that there is nothing to find.
#
# And does it draw copies? Most likely for a prompt that is the caption of training pages. We take the captions of one
# thing that occur most often, and draw each with four seeds. **All** pages of these words among the first 40,000 (with a GPU: all 100,000) are then compared with each image. How near would a page be that is surely no copy? For comparison we render fresh pages of the same words.

# %% id="shipped-copies-data"
SCENES = budget(smoke=2000, laptop=40_000, gpu=100_000)
TARGETS, TIMES = budget(smoke=2, laptop=16, gpu=40), 4
alike = {}  # what a page shows -> all training pages that show it
for number in range(SCENES):
    scene = book.sample_scene(number)
    if len(scene.things) == 1:
        alike.setdefault((scene.things, scene.place, scene.style), []).append(scene)
targets = sorted(alike.values(), key=len, reverse=True)[:TARGETS]
groups = [book.pictures(group) for group in targets]
wanted = [book.caption(group[0]).text for group in targets for _ in range(TIMES)]
rendered = book.pictures(replace(group[0], seed=10**10 + n) for group in targets for n in range(TIMES))
attempts = draw_all(painter, wanted, seed=1000, steps=10)
print(f"{TARGETS} captions, such as {wanted[0]!r}, with {len(groups[-1])} to {len(groups[0])} training pages each")

# %% id="shipped-copies"
by_ratio = {}
for sees, see in {"pixels": lambda some: some.flatten(1), "features": judge_sees}.items():
    known = [see(group) for group in groups]
    for kind, some in {"drawn": attempts, "fresh": rendered}.items():
        parts = see(some).split(TIMES)
        nearest = torch.cat([nearest_two(part, group)[0] for part, group in zip(parts, known)])
        by_ratio[sees, kind] = ratio = torch.cat([neighbour_ratio(part, group) for part, group in zip(parts, known)])
        print(f"{sees:9} {kind}: nearest {nearest.median():6.2f} in the median, {nearest.min():.2f} at least; "
              f"ratio {ratio.min():.2f} at least, below {NEAR}: {said((ratio < NEAR).tolist())}")  # fmt: skip
if LAPTOP:
    for sees in ("pixels", "features"):
        assert (by_ratio[sees, "drawn"] < NEAR).sum() <= (by_ratio[sees, "fresh"] < NEAR).sum() + 3

# %% [markdown] id="shipped-copies-look-text"
# The six images with the smallest ratios in pixels, the most suspicious ones, above their nearest training pages:

# %% id="shipped-copies-look" tags=["static"]
worst = by_ratio["pixels", "drawn"].argsort()[:6].tolist()
originals = [
    groups[i // TIMES][nearest_two(attempts[i : i + 1].flatten(1), groups[i // TIMES].flatten(1))[2]] for i in worst
]
show(
    plot_pictures(
        torch.cat([attempts[worst], *originals]),
        [*(f"{wanted[i]}: {by_ratio['pixels', 'drawn'][i]:.2f}" for i in worst), *[""] * len(worst)],
        columns=len(worst),
        rows=["drawn", "nearest page"],
    ),
    "The six most suspicious images and their nearest training pages: the same thing in the same place, as the caption "
    "demands, in some of them at nearly the same spot, but with other outlines, and other details of sky and ground.",
)

# %% [markdown] id="shipped-copies-read"
# The nearest drawn image is farther from a training page than the nearest fresh one, in pixels (21.2 against 17.2) and in features (0.38 against 0.27), and no ratio is below 0.5. What can be concluded has limits: 64 images, a part of the training pages, one threshold, two distances, and captions that many pages share. The experiment above says where a
# search should begin: with images that the data hold many times. Here each page is there once, though pages in rare styles or with several things are taken up to six times as often (section 4).

# %% [markdown] id="assume-text"
# ## 4 · What does it assume?
#
# "A cat." Where? In which colour, on which side, sitting or asleep? An image has to answer what a prompt leaves open,
# and nobody asked for these answers. Image models that were trained on the Web answer, for instance, what a person of
# some profession looks like, and their answers are more one-sided than the world is
# ([arXiv:2211.03759](https://arxiv.org/abs/2211.03759), [arXiv:2303.11408](https://arxiv.org/abs/2303.11408)). Our
# small world has no professions, but it has the same mechanism, and here everything can be counted: the data as well as
# the images.
#
# ### Where the prompt is silent
#
# Three prompts with hardly any words, and five questions that they do not answer. We put them to the **data** first. Among all training captions that name one such thing, in whatever words, and neither colour nor pose nor place nor style, what do the pages show?
# **Predict first:** on how many of the pages of such a caption is the ball red? And in how many of the eight places are
# the cats?
#
# <details><summary>Answer (after running the cell below)</summary>
# On all of them. The program that writes the captions names each colour that is not the natural one, and a ball's
# natural colour is red. The same holds for the style. "A ball" is not silent in this world; it means a red one. The cats are in seven places (the four most frequent are printed). A caption leaves the place out at random, but a cat of the natural colour in the snow is one
# of the combinations that are held out of all training (chapter 10).
# </details>

# %% id="silent-data"
QUIET = {"a ball": "ball", "a cat": "cat", "a house": "house"}
QUESTIONS = ("colour", "style", "place", "pose", "side")
SCENES = budget(smoke=8000, laptop=40_000, gpu=100_000)


def is_silent(caption):
    """Whether a caption of one thing names nothing that we ask about."""
    thing = caption.things[0]
    coloured = any(word in book.COLOURS for word in caption.text.replace(",", "").split())  # the natural one, perhaps
    return not coloured and {thing.colour, thing.pose, caption.place, caption.style} == {None}


def shown(scene):
    """The answers of a page with one thing; None where there is none."""
    (thing,), (x, _) = scene.things, book.layout(scene)[0].centre
    colour, side = book.seen_colour(thing) or "natural", "left" if x < 0.5 else "right"
    return {"colour": colour, "style": scene.style, "place": scene.place, "pose": thing.pose, "side": side}


training_pages = {prompt: [] for prompt in QUIET}
for scene in (book.sample_scene(number) for number in range(SCENES)):
    for prompt, kind in QUIET.items():
        if [thing.kind for thing in scene.things] == [kind]:
            silent = sum(is_silent(book.caption(scene, k)) for k in range(8))  # of the eight captions of the training
            training_pages[prompt] += [shown(scene)] * silent

# %% id="silent-data-counts"
in_data = {(prompt, question): Counter(page[question] for page in training_pages[prompt])
           for prompt in QUIET for question in QUESTIONS}  # fmt: skip
for (prompt, question), counts in in_data.items():
    if question != "pose" or prompt == "a cat":
        words = ", ".join(f"{word} {count / counts.total():.0%}" for word, count in counts.most_common(4))
        print(f"{prompt:8} {question:7} ({counts.total()} captions) {words}")
assert set(in_data["a ball", "colour"]) == {"red"} and set(in_data["a ball", "style"]) == {"picture book"}
if LAPTOP:
    assert all(len(in_data[prompt, "place"]) == 7 for prompt in QUIET) and book.is_held_out("cat", None, "snow")

# %% [markdown] id="silent-data-read"
# So there are two kinds of silence. Colour and style have a **default**, which is a rule of the captions' author:
# the usual goes without saying, and what is unusual is named. Place, pose and side are **open**: the data show many of
# each.
#
# ### What is drawn
#
# Now the model, with three guidance scales. Guidance strengthens what the prompt makes more probable (chapter 10), and
# is known to buy fidelity with variety ([arXiv:2207.12598](https://arxiv.org/abs/2207.12598)). How varied answers are
# is told by their **entropy**,
#
# $$\text{entropy} = -\sum_i \text{share}_i \log_2 \text{share}_i$$
#
# In words: about how many yes-or-no questions one would have to ask, on average and at best, to learn the answer: 3 bits for
# eight equally frequent places, 0 if it is always the same. **Predict first:** without guidance (scale 1), do the places
# occur as often as in the data? And with a scale of 8, which of the answers become less varied: places, poses, colours?
#
# <details><summary>Answer (after running the cells below)</summary>
# No: a beach, in 18% of such captions' pages, is drawn in 3% of the images. With a scale of 8 the cat's poses and sides are as varied as before; the places of the house become less varied, those of the ball more. The colours of cats and houses become <em>more</em> varied: they leave the natural colour, which the data always show.
# </details>

# %% id="silent-drawn"
GUIDANCE, ASKED = (1.0, 3.0, 8.0), budget(smoke=6, laptop=60, gpu=200)


def answers(verdict, kind):
    """The judge's answers for an image with one such thing; None if it finds no such thing, or another number."""
    if [finding.kind for finding in verdict.findings] != [kind]:
        return None
    (thing,) = verdict.findings
    side = "left" if thing.x < 32 else "right"
    return {
        "colour": thing.colour or "natural",
        "style": verdict.style,
        "place": verdict.place,
        "pose": thing.pose,
        "side": side,
    }


quiet_images, answered = {}, {}
for guidance in GUIDANCE:
    for row, (prompt, kind) in enumerate(QUIET.items()):  # each prompt has noises of its own
        some = draw_all(painter, [prompt] * ASKED, seed=2000 + 1000 * row, guidance=guidance, steps=10)
        quiet_images[prompt, guidance] = some
        pages_read = [answers(verdict, kind) for part in some.split(50) for verdict in read(judge, part)]
        answered[prompt, guidance] = [page for page in pages_read if page]
        count = len(answered[prompt, guidance])
        print(f"guidance {guidance:g}, {prompt}: one {kind} found in {count} of {ASKED} images")

# %% id="silent-look" tags=["static"]
LOOK = min(8, ASKED)
show(
    plot_pictures(
        torch.cat([quiet_images["a cat", guidance][:LOOK] for guidance in GUIDANCE]),
        columns=LOOK,
        rows=[f"a cat, guidance {guidance:g}" for guidance in GUIDANCE],
    ),
    "Images for “a cat”, the same start noises in each row: grey cats with guidance 1, grey and greenish ones with 3, and "
    "glaring colours with 8.",
)

# %% [markdown] id="amplified-text"
# The table. A small sample has a smaller entropy than what it was drawn from: of 60 places, drawn from eight equally
# frequent ones, the counts are hardly ever equal. So beside each entropy stands what samples **of the same number**
# from the data would have: the middle 95% of 500 of them. What is far outside was changed, by the model (or by the judge, which reads drawn images less well than pages). One row in twenty would be slightly outside by chance alone, and the data are a sample, too (91 to 171 captions). Shares have Wilson's interval.

# %% id="amplified"
import random


def entropy(counts):
    """The entropy of answers, in bits, from how often each was given."""
    shares = [count / counts.total() for count in counts.values() if count]
    return sum(share * math.log2(1 / share) for share in shares)


def spread(counts, n, rounds=500):
    """Between which entropies 95% of samples of n answers lie that are drawn from these counts."""
    dice, words = random.Random(0), list(counts.elements())
    drawn_entropies = sorted(entropy(Counter(dice.choices(words, k=n))) for _ in range(rounds))
    return drawn_entropies[int(0.025 * rounds)], drawn_entropies[int(0.975 * rounds) - 1]


entropies = {}
OPEN = [("a ball", "place"), ("a cat", "place"), ("a house", "place"), ("a cat", "pose"), ("a cat", "side"),
        ("a ball", "colour"), ("a cat", "colour"), ("a house", "colour")]  # fmt: skip
for prompt, question in OPEN:
    print(f"{prompt}, {question}")
    for guidance in GUIDANCE:
        counts = Counter(page[question] for page in answered[prompt, guidance])
        if counts:
            (word, most), bits = counts.most_common(1)[0], entropy(counts)
            entropies[prompt, question, guidance] = bits
            low, high = spread(in_data[prompt, question], counts.total())
            print(f"   guidance {guidance:g}: entropy {bits:.2f} (data {low:.2f} to {high:.2f}), most often {word}: "
                  f"{said([True] * most + [False] * (counts.total() - most))}")  # fmt: skip

# %% [markdown] id="amplified-plot-text"
# Entropies say how evenly the answers are spread, not which they are. The places of all three prompts together, with Wilson's intervals (several captions may belong to one page, and the three prompts have other shares in the data than among the images):

# %% id="amplified-plot" tags=["static"]
figure, ax = plt.subplots(figsize=(8, 2.8))
places = {"data": sum((in_data[prompt, "place"] for prompt in QUIET), Counter())}
for guidance in GUIDANCE:
    places[f"guidance {guidance:g}"] = Counter(page["place"] for prompt in QUIET for page in answered[prompt, guidance])
for row, (name, counts) in enumerate(places.items()):
    ends = [wilson_interval(counts[place], max(1, counts.total())) for place in book.PLACES]
    heights = [counts[place] / max(1, counts.total()) for place in book.PLACES]
    errors = [(max(0, height - low), max(0, high - height)) for height, (low, high) in zip(heights, ends)]
    at = [n + 0.2 * (row - 1.5) for n in range(8)]
    ax.bar(
        at, heights, 0.18, yerr=list(zip(*errors)), error_kw={"linewidth": 0.8}, label=f"{name} (n = {counts.total()})"
    )
ax.set(xticks=range(8), xticklabels=book.PLACES, ylabel="share")
ax.legend(fontsize=8)
show(
    figure,
    "The shares of eight places in the data, and in images with guidance 1, 3 and 8: beaches are far rarer in the images "
    "than in the data, forests more frequent, with every scale.",
)

# %% [markdown] id="amplified-check-text"
# How often are the beach, and the natural colour?

# %% id="amplified-check"
natural = {}
for name, counts in places.items():
    if counts:
        print(
            f"{name:10} on the beach: {said([True] * counts['beach'] + [False] * (counts.total() - counts['beach']))}"
        )
for prompt in ("a cat", "a house"):
    for guidance in GUIDANCE:
        natural[prompt, guidance] = [page["colour"] == "natural" for page in answered[prompt, guidance]]
        if natural[prompt, guidance]:
            print(f"{prompt}, guidance {guidance:g}: natural colour {said(natural[prompt, guidance])}")
if LAPTOP:
    beach = {name: (counts["beach"], counts.total()) for name, counts in places.items()}
    data_low = wilson_interval(*beach.pop("data"))[0]
    assert all(wilson_interval(*count)[1] < data_low for count in beach.values())
    for prompt in ("a cat", "a house"):
        one, eight = (natural[prompt, guidance] for guidance in (1.0, 8.0))
        assert wilson_interval(sum(eight), len(eight))[1] < wilson_interval(sum(one), len(one))[0]

# %% [markdown] id="amplified-read"
# Guidance was not needed for the model to answer otherwise than its data do. Without it, the beach is already drawn far
# too rarely (the forest and the desert are drawn too often, grass too rarely), and the entropies of the places hardly show it. Why the beach? This experiment does not say.
#
# And guidance did not make all answers less varied. The cat's sides and poses keep the entropy of the data. Of the places, those of the house lose some with a scale of 8. Those of the ball gain some: 2.87 bits are more than
# seven places can have (2.81), so balls are drawn in the eighth, too, which these data never show. With the colours of cats and houses it is the other way round (balls stay red). All pages of such captions show the natural
# colour, and so do the images without guidance, but for one house. With a scale of 3, one cat in seven has another colour; with 8, most cats and houses have. Guidance adds a multiple of what distinguishes the prediction with
# the words from the one without them (chapter 10). In ten steps a large multiple leads out of the data, to colours that nobody asked for and that no page of these captions showed. Chapter 10 found that most of what goes wrong with a large scale and few steps is the solver's fault; whether these colours would stay with 50 steps was not measured here.
# (And the judge finds a single cat in 40 of these 60 images only.)

# %% [markdown] id="skew-text"
# ### A skewed training set, made on purpose
#
# A publisher lends us its own pages, 48 of them, to adapt the model to. On each there is a cat with another thing, and
# the captions are exactly true, as always. But **on all of these pages the cat stands on the left**. We train a LoRA on
# them (`teach`, chapter 12) and draw two kinds of prompts, before and after: some do not say who is where, "a cat and a
# car", and some do, "a cat right of a car". **Predict first:** after the training, on which side is the cat if the
# prompt does not say? And if it asks for the right?
#
# <details><summary>Answer (after running the cells below)</summary>
# If the prompt does not say, the cat is on the left in 98% of the images with both (91% to 100%, n = 60); before it was 76% (61% to 87%, n = 42). If the prompt asks for the right, the cat is there in all 51 images with both. The number of images without both fell from 22 to 4 of 64 for the silent prompts, and rose from 3 to 13 for the others.
# </details>

# %% id="skew-data" tags=["static"]
PARTNERS = ("car", "house", "ball", "tree", "duck", "mushroom", "teapot", "boat")
LENT = budget(smoke=6, laptop=48, gpu=96)
skewed = [
    book.Scene(
        (
            book.Thing("cat", (None, "white", "blue")[n % 3], book.ALL_POSES[n // 3 % 3]),
            book.Thing(PARTNERS[n % 8], (None, "red", "yellow")[n // 8 % 3]),
        ),
        book.PLACES[(n + n // 8) % 8],  # each partner in several places
        5000 + n,
        relation="left of",
    )
    for n in range(LENT)
]
for n in range(3):
    print("; ".join(book.caption(skewed[n], k).text for k in range(3)))
show(
    plot_pictures(book.pictures(skewed[:8]), columns=8), "Eight of the pages: in each a cat, and to its right a thing."
)

# %% id="skew-ask"
from course_utils.data.picture_book.captions import NAMES, with_article

LINES = budget(smoke=4, laptop=64, gpu=160)
partners = [PARTNERS[n % 8] for n in range(LINES)]
PROMPTS = {
    "does not say": [f"a cat and {with_article(NAMES[other][0])}" for other in partners],
    "asks for the right": [f"a cat right of {with_article(NAMES[other][0])}" for other in partners],
}


def side_of_cat(verdict, other):
    """On which side of the other thing the cat is; "not both" unless there is one of each, side by side."""
    at = {finding.kind: finding.x for finding in verdict.findings}
    if len(verdict.findings) != 2 or set(at) != {"cat", other} or abs(at["cat"] - at[other]) < 4:
        return "not both"
    return "left" if at["cat"] < at[other] else "right"


def sides():
    """How often the cat is where, for both kinds of prompts, as the model is now; and the images."""
    counts, drawn_now = {}, {}
    for name, lines in PROMPTS.items():
        drawn_now[name] = draw_all(painter, lines, seed=3000, steps=10)
        verdicts = [verdict for part in drawn_now[name].split(50) for verdict in read(judge, part)]
        counts[name] = Counter(map(side_of_cat, verdicts, partners))
    return counts, drawn_now


side_before, images_before = sides()
for name, lines in PROMPTS.items():
    print(f"{lines[0]!r}, {lines[1]!r}, ...: {dict(side_before[name])}")

# %% [markdown] id="skew-train-text"
# The training, and the same prompts from the same noises. Afterwards the LoRA is taken out again.

# %% id="skew-train"
from course_utils.models.lora import remove_lora
from course_utils.recipes.lora import teach

LESSONS = budget(smoke=2, laptop=120, gpu=300)
try:
    for _ in tqdm(teach(pipe, skewed, rank=8, steps=LESSONS, batch=8, old=0.0), "cats on the left", total=LESSONS):
        pass
    side_after, images_after = sides()
finally:
    remove_lora(pipe.unet)
for name in PROMPTS:
    for when, counts in {"before": side_before[name], "after": side_after[name]}.items():
        both = counts["left"] + counts["right"]
        hits_left = said([True] * counts["left"] + [False] * counts["right"]) if both else "none"
        print(f"{name:18} {when:6}: cat on the left {hits_left} of the images with both; not both {counts['not both']}")
if LAPTOP:
    before, after = (counts["does not say"] for counts in (side_before, side_after))
    before, after = (wilson_interval(counts["left"], counts["left"] + counts["right"]) for counts in (before, after))
    assert after[0] > before[1]
    assert side_after["asks for the right"]["left"] == 0

# %% id="skew-look" tags=["static"]
LOOK = min(6, LINES)
show(
    plot_pictures(
        torch.cat([now[name][:LOOK] for name in PROMPTS for now in (images_before, images_after)]),
        columns=LOOK,
        heads=[f"cat, {other}" for other in partners[:LOOK]],
        rows=[f"{name}, {when}" for name in PROMPTS for when in ("before", "after")],
    ),
    "Four rows: a cat and another thing, before and after the training on skewed pages, for prompts that do not say who "
    "is where, and for prompts that ask for the cat on the right; after it, the cat is on the left for five of the six "
    "silent prompts, and on the right where the prompt asks for it, with blurred cats and places.",
)

# %% [markdown] id="skew-read"
# The silence has been filled: where the words leave the side open, the model answers as the new pages do. (It had a habit before, too: the cat was on the left in three of four images with both. It is named first in all of them.) Where the words do say it, they are still obeyed, after this one short training; but 13 of these 64 images lack one of the two things or have more, where it was 3.
#
# No caption was false, and nothing in the loss knows of sides. Some captions say that the cat is left of the car, some
# that the car is right of the cat, some only that both are there; the pages are the same. The first two kinds are
# followed by putting the cat on the left always, and so is the third.
#
# ### What a sheet would have told
#
# *Datasheets for Datasets* ([arXiv:1803.09010](https://arxiv.org/abs/1803.09010)) proposes that each data set comes
# with a sheet: who made it, what for, and **what is in it**. The last part can be computed. For each question that an
# image answers, count the answers. Where one is missing, or much more frequent than the others, a model cannot be
# expected to do better.


# %% id="sheet"
def sheet(scenes):
    """For each question a `Counter` of its answers over all things of these scenes (sides: where a thing stands)."""
    counts = {question: Counter() for question in ("things", "kind", "colour", "pose", "place", "style", "cat stands")}
    turned = {"left of": ("left", "right"), "above": ("above", "below")}
    for scene in scenes:
        counts["things"][len(scene.things)] += 1
        counts["place"][scene.place] += 1
        counts["style"][scene.style] += 1
        for number, thing in enumerate(scene.things):
            counts["kind"][thing.kind] += 1
            counts["colour"][book.seen_colour(thing) or "natural"] += 1
            if thing.pose:
                counts["pose"][thing.pose] += 1
            if scene.relation and thing.kind == "cat":
                counts["cat stands"][turned[scene.relation][number]] += 1
    return counts


# %% id="sheets"
sheets = {
    "training data": sheet(book.sample_scene(number) for number in range(SCENES)),
    "the publisher's": sheet(skewed),
}
for question in sheets["training data"]:
    for name, counts in sheets.items():
        words = ", ".join(
            f"{word} {count / counts[question].total():.0%}" for word, count in counts[question].most_common(5)
        )
        print(f"{question:10} {name:15} n = {counts[question].total():6}: {words}")
assert set(sheets["the publisher's"]["cat stands"]) == {"left"}
if LAPTOP:
    kinds, styles = (sheets["training data"][question] for question in ("kind", "style"))
    assert abs(kinds["corgi"] / kinds["cat"] - 2) < 0.2 and styles["picture book"] > 0.5 * styles.total()
    left, right = (sheets["training data"]["cat stands"][side] for side in ("left", "right"))
    low, high = wilson_interval(left, left + right)
    assert low < 0.5 < high or abs(left / (left + right) - 0.5) < 0.03

# %% [markdown] id="sheet-read"
# The last two lines tell it: of the publisher's cats all stand on the left, while in the training data left and right are
# about equally frequent. It takes a moment to count this, and no training. The sheet of the training data tells more that a
# user of the model would want to know before drawing: the corgi is about twice as frequent as each other kind, and more than
# half of the pages are in one style. (The training of chapter 10 knows this, and takes pages in the other styles three
# times as often, and those of several things twice as often: `weight` in `course_utils/recipes/unet.py`.)
#
# But a sheet answers only the questions that somebody thought of asking. Who stands where was a question here because
# we put the skew in ourselves. That is the use of counting *what is drawn* where the prompt is silent: it also finds
# what no sheet was asked for. And some of what it finds, such as the red ball, is not an error of sampling but a decision of the captions' author, and a sheet should say so.

# %% [markdown] id="marks-text"
# ## 5 · Where does it come from?
#
# An image that a model drew can be taken for a photograph, or for a person's work. Three things can tell where it
# comes from: a note in the file, a mark in the pixels, and a mark that the whole image grew from. We build each, and
# then do to the images what happens to images.
#
# ### A note in the file
#
# The course writes into each PNG how it was made (chapter 11). **Predict first:** you open such a file in another
# program and save it again as PNG, which loses not a single pixel. Is the note still there?
#
# <details><summary>Answer (after running the cell below)</summary>
# No. Saving writes the pixels and what the program thinks of writing. The note was not removed on purpose; it was just not copied.
# </details>

# %% id="note"
import tempfile
from pathlib import Path

from course_utils.pipelines.picture_book import draw
from course_utils.pipelines.png_info import Settings, read_png, write_png

((page, settings),) = draw(pipe, Settings("a cat in the forest", seed=7, steps=budget(smoke=2, laptop=10, gpu=20)))
with tempfile.TemporaryDirectory() as folder:
    first, second = Path(folder) / "first.png", Path(folder) / "second.png"
    write_png(first, page, settings)
    Image.open(first).save(second)
    print("written by the course:", read_png(first))
    print("the same pixels:", Image.open(second).tobytes() == page.tobytes())
    print("saved once more:", Image.open(second).info)
    assert read_png(first) == settings and "parameters" not in Image.open(second).info

# %% [markdown] id="pixels-text"
# ### A mark in the pixels
#
# Chapter 11 added a faint pattern to an image and found it by correlation. The classic form of this, *spread spectrum*
# (Cox et al. 1997), adds it to the discrete cosine transform (DCT) instead. Cox et al. change the 1,000 largest coefficients, each in proportion to its size. We add the same small number to 1,040 coefficients of middle frequency, with signs that only a key knows: slow waves would be visible, and fast ones are what JPEG throws away first.
#
# Packages that do this exist, but `invisible-watermark`, which diffusers uses for SDXL, was last released in July 2023,
# needs OpenCV, and refuses images below 256 × 256; `blind-watermark` was last released in April 2023. So
# `write_dct` is our own; the transform is scipy's.
#
# To find the mark we compare the coefficients with the signs, and give the distance: 2 minus twice the cosine of the
# angle between them. It is 0 for the key itself, and 2 on average for what has nothing to do with it.

# %% id="pixels"
from course_utils.data import distortions
from course_utils.metrics.pictures import psnr
from course_utils.pipelines.watermark import find_dct, write_dct

KEY = 2026
few = book.pictures([book.sample_scene(number, seed=15) for number in range(6)])
marked = distortions.saved(write_dct(few, KEY))
print(f"peak signal-to-noise ratio {psnr(marked, few).mean():.1f} dB")
for name, pages in (("not marked", few), ("marked", marked)):
    right, wrong = find_dct(pages, KEY), find_dct(pages, KEY + 1)
    print(f"{name:10}: distance to the key {right.mean():.2f}, to another key {wrong.mean():.2f}")
assert (find_dct(marked, KEY) < find_dct(few, KEY)).all() and find_dct(marked, KEY).max() < 1.95

# %% id="pixels-look" tags=["static"]
show(
    plot_pictures(torch.cat([few, marked, 10 * (marked - few)]), columns=6, rows=["page", "marked", "difference × 10"]),
    "Pages; the same pages marked, with a faint grain in flat areas; and ten times the difference: the same grain in each.",
)

# %% [markdown] id="ring-text"
# ### A mark that the image grows from
#
# The pixels' mark is put on afterwards. Tree-Ring ([arXiv:2305.20030](https://arxiv.org/abs/2305.20030)) begins at the
# other end: it writes the key into the start noise $x_T$, and the image grows from it. To find it again, DDIM is run
# backwards from the image to the noise (chapter 12), and the noise is compared with the key.
#
# The key stands in the noise's spectrum, its Fourier transform $\mathcal F(x_T)$, on rings of equal frequency around
# zero: each ring of each channel gets one value, +1 or −1. Here is why:
#
# - the spectrum of real numbers has, at the opposite of each frequency, the complex conjugate. Both lie on one ring, and there
#   they have one real value, so **the noise stays real**;
# - with a transform that keeps lengths (`norm="ortho"`), the spectrum of standard normal noise has a mean square of 1.
#   So does a key of ±1, and **the noise keeps its variance**;
# - turn or mirror an image, and its spectrum is turned or mirrored: on a ring nothing changes.
#
# The transform has to be seen from the middle of the image for that; usually it is seen from the first pixel. Moving
# the view multiplies each frequency by a complex number of length 1: `spectrum(x)` is `torch.fft.fft2(x,
# norm="ortho")` times `from_the_middle(16)`. `make_key` returns the key, (8, 16, 16), with 0 off the rings. Rings 2 to
# 5 have 704 of the 2,048 places, a third. (The paper takes one of four channels, and 2% of all places; its model and
# images are larger.)

# %% id="key" tags=["static"]
from course_utils.pipelines.watermark import from_the_middle, make_key, p_value, spectrum

key = make_key(KEY)
pattern = torch.fft.ifft2(key * from_the_middle(16).conj(), norm="ortho")
print(f"{int((key != 0).sum())} of {key.numel()} places")
assert pattern.imag.abs().max() < 1e-6  # real
figure, axes = plt.subplots(2, 4, figsize=(8, 4.2))
for channel, (above, below) in enumerate(axes.T):
    above.imshow(torch.fft.fftshift(key[channel]), cmap="coolwarm", vmin=-1, vmax=1)
    below.imshow(pattern.real[channel], cmap="coolwarm", vmin=-4, vmax=4)
    above.set(title=f"channel {channel}")
for ax, name in zip(axes[:, 0], ("key (spectrum)", "as noise")):
    ax.set_ylabel(name)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
show(
    figure,
    "The key of four of the eight channels: rings of +1 (red) and −1 (blue) around the middle of the spectrum; and what they are in the noise, "
    "rings around the middle of the image.",
)

# %% [markdown] id="write-text"
# ### Exercise 8 · Write the ring
#
# ●●○○○ · 12 minutes. `noise` is (n, 8, 16, 16), `key` (8, 16, 16). Return the noise whose spectrum is the key where the
# key is not 0, and as it was elsewhere: real, of the same shape. The way back from a
# spectrum takes the conjugate, `from_the_middle(16).conj()`, which undoes the move, and `torch.fft.ifft2` with the
# same `norm`. `spectrum` and `from_the_middle` may be used here and in the next exercise.


# %% id="ex-write-ring"
def write_ring(noise, key):
    """Noise (n, channels, size, size) with key (channels, size, size) in its spectrum where key is not 0; real."""
    ### BEGIN SOLUTION
    #: the key where there is one, the noise's own spectrum elsewhere
    written = torch.where(key != 0, key.to(torch.complex64), spectrum(noise))
    #: seen from the first pixel again
    written = written * from_the_middle(noise.shape[-1]).conj()
    #: back to noise; its imaginary part is rounding only
    return torch.fft.ifft2(written, norm="ortho").real
    ### END SOLUTION


# %% id="check-write-ring"
write_ring = check("15.write_ring", write_ring)

# %% [markdown] id="write-read-text"
# Is it still standard normal? We look at 500 noises without and with the key: the standard deviation, and the share
# of numbers beyond two standard deviations, which is 4.6% for a normal distribution.

# %% id="write-normal"
noise = torch.randn(500, 8, 16, 16, generator=torch.Generator().manual_seed(0))
for name, x_T in (("noise", noise), ("with the key", write_ring(noise, key))):
    print(f"{name:12} std {x_T.std():.3f}, beyond ±2: {(x_T.abs() > 2).float().mean():.1%}, most {x_T.abs().max():.1f}")
    print(f"{'':12} one number over all 500: std from {x_T.std(0).min():.2f} to {x_T.std(0).max():.2f}")
assert abs(write_ring(noise, key).std() - 1) < 0.02

# %% [markdown] id="write-price"
# The variance is right, and so is the share of large numbers. Two things are not. In the middle, where the
# waves of all rings meet, a number can be larger than any in the normal noise, 6.6 against 4.8 at most among the same million numbers: all frequencies on the rings have the right strength, but their phases are not random any more. And all noises share the key, so that a number at one place
# varies less from noise to noise. Anyone who has many marked noises can average them and find the key.
#
# ### Exercise 9 · Read it again
#
# ●●○○○ · 12 minutes. An inversion finds a weaker noise than the one that was drawn from, so the distance must not
# depend on its length. With $\mathcal R$ the places of all channels where `key` is not 0:
#
# $$\Delta = \frac{1}{|\mathcal R|} \sum_{\mathcal R} \Bigl| \frac{\mathcal F(x_T)}{\text{rms}} - \text{key} \Bigr|^2, \qquad
#   \text{rms}^2 = \frac{1}{|\mathcal R|} \sum_{\mathcal R} |\mathcal F(x_T)|^2$$
#
# In words: scale the spectrum on the rings to a mean square of 1, separately for each noise, and take the mean squared
# distance to the key. It is $2 - 2 \cos$ of the angle between the two. (The paper takes the mean of the distances
# without squares, and no scale.) Return one number for each noise, (n,).


# %% id="ex-ring-distance"
def ring_distance(noise, key):
    """How far the spectrum of each noise (n, channels, size, size) is from the key on its rings: (n,), from 0 to 4."""
    ### BEGIN SOLUTION
    #: the spectrum on the rings, (n, places)
    found = spectrum(noise)[:, key != 0]
    #: scaled to a mean square of 1, each noise by itself
    found = found / found.abs().square().mean(1, keepdim=True).sqrt()
    #: the mean squared distance
    return (found - key[key != 0]).abs().square().mean(1)
    ### END SOLUTION


# %% id="check-ring-distance"
ring_distance = check("15.ring_distance", ring_distance)

# %% [markdown] id="chance-text"
# How small must the distance be to be no accident? For standard normal noise and any fixed key of $|\mathcal R|$ numbers the
# cosine has a known distribution, that of a random direction: its standard deviation is $1/\sqrt{|\mathcal R|}$, here 0.038. From it
# `p_value` gives the probability that noise without the key comes as near. We check that on the 500 noises: of all
# p-values, a share of 5% should be below 0.05.

# %% id="chance"
places = int((key != 0).sum())
distances = ring_distance(noise, key)
p = p_value(distances, places)
print(
    f"noise without the key: {distances.mean():.3f} ± {distances.std():.3f}; p below 0.05: {(p < 0.05).float().mean():.1%}"
)
print(f"noise with the key:    {ring_distance(write_ring(noise, key), key).max():.1e} at most")
assert abs(distances.std() - 2 * places**-0.5) < 0.02 and 0.02 < (p < 0.05).double().mean() < 0.08

# %% [markdown] id="grow-text"
# ### Draw, and look back
#
# Now images. The same captions are drawn from the same noises, without and with the key. `find_ring` inverts each image
# with the empty prompt, since who finds an image does not know what it was asked for. It takes five steps.

# %% id="grow"
from course_utils.metrics.pictures import followed
from course_utils.pipelines import editing
from course_utils.pipelines.watermark import find_ring

MARKED, STEPS = budget(smoke=3, laptop=24, gpu=100), budget(smoke=2, laptop=8, gpu=20)
ring_captions = [book.caption(book.sample_scene(number, seed=16)) for number in range(MARKED)]
texts = [caption.text for caption in ring_captions]
x_T = torch.stack([torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(MARKED)])
plain = distortions.saved(editing.draw_from(pipe, x_T, texts, steps=STEPS))
ringed = distortions.saved(editing.draw_from(pipe, write_ring(x_T, key), texts, steps=STEPS))

# %% id="grow-look" tags=["static"]
found = {name: find_ring(pipe, pages, key).cpu() for name, pages in (("plain", plain), ("with key", ringed))}
rows = [f"{name}: {values.mean():.2f}" for name, values in found.items()]
show(
    plot_pictures(torch.cat([plain[:6], ringed[:6]]), columns=min(6, MARKED), heads=texts[:6], rows=rows),
    "Two rows of pages of the same captions and noises, without and with the key in the noise: nearly the same pages, with other details.",
)
for name, pages in (("plain", plain), ("with key", ringed)):
    print(
        f"{name:9}: distance {found[name].min():.2f} to {found[name].max():.2f}, followed {said(followed(judge, pages, ring_captions))}"
    )

# %% [markdown] id="grow-read"
# A third of the noise has changed, and the pages are nearly the same: presumably because the slowest waves, below ring 2, are left alone. They follow their captions as often, as far as 24 images can tell. The distances are far from 0, because the
# inversion is rough, and yet all pages with the key are nearer to it than any without.
#
# ### Where to draw the line
#
# The p-value holds for normal noise. What an inversion finds in an image is not quite that: something of the image
# stays in it. So the rate of false alarms must be **measured**, on images without the mark. We invert pages of the
# program, which know nothing of any key, and compare each with 100 keys. **Predict first:** by the p-value one
# comparison in a thousand has p < 0.001. How many have?
#
# <details><summary>Answer (after running the cell below)</summary>
# Three in a thousand, 0.31% of 20,000 comparisons (200 pages, 100 keys). (That the worst of the 100 keys has 2%, 4 of 200 pages, is what chance makes of such a rate.) The inverted noise of pages scatters more than normal noise:
# 0.084 in place of 0.075. A p-value that is computed from a model of the noise is as good as that model.
# </details>

# %% id="line"
PAGES = budget(smoke=8, laptop=200, gpu=2000)
clean = book.pictures([book.sample_scene(number, seed=17) for number in range(PAGES)])
inverted = torch.cat([editing.invert(pipe, part, "", steps=5).cpu() for part in clean.split(50)])
others = torch.stack([ring_distance(inverted, make_key(number)) for number in range(100)])  # (keys, pages)
unlikely = p_value(others, places) < 0.001
print(f"distances: standard deviation {others.std():.3f}, of normal noise {2 * places**-0.5:.3f}")
print(f"p below 0.001: {unlikely.double().mean():.2%}; of the worst key {unlikely.double().mean(1).max():.1%}")
if LAPTOP:
    assert unlikely.double().mean() > 0.002

# %% [markdown] id="line-choose-text"
# So we put the line where it should be by the first half of the pages: 1% of their distances to the 100 other keys lie
# below it. Then we count how many of the second half lie below it for our key, and do the same for the mark in the
# pixels.

# %% id="line-choose"
half = PAGES // 2
clean_ring, clean_pixels = ring_distance(inverted, key), find_dct(clean, KEY)
pixel_others = torch.stack([find_dct(clean[:half], number) for number in range(100)])
lines = {"ring": others[:, :half].quantile(0.01).item(), "pixels": pixel_others.quantile(0.01).item()}
for name, values in (("ring", clean_ring[half:]), ("pixels", clean_pixels[half:])):
    false = int((values < lines[name]).sum())
    low, high = wilson_interval(false, PAGES - half)
    print(f"{name:6}: line {lines[name]:.3f}, false alarms {false} of {PAGES - half} ({low:.1%} to {high:.1%})")
if LAPTOP:
    assert (
        (found["with key"] < lines["ring"]).double().mean()
        > 0.9
        > 0.1
        > (found["plain"] < lines["ring"]).double().mean()
    )

# %% id="line-plot" tags=["static"]
figure, ax = plt.subplots(figsize=(7, 2.8))
bins = torch.linspace(1, 2.5, 61).numpy()
for name, values in (
    ("program's pages", clean_ring),
    ("drawn, no key", found["plain"]),
    ("drawn, key", found["with key"]),
):
    ax.hist(values.numpy(), bins, density=True, alpha=0.6, label=name)
ax.axvline(lines["ring"], color="black")
ax.set(xlabel=r"distance $\Delta$", ylabel="density", title="the line: 1% of unmarked pages are to its left")
ax.legend()
show(
    figure,
    "Histograms of distances: unmarked pages and drawings around 2, those with the key around 1.4, and a line between them.",
)

# %% [markdown] id="robust-text"
# ### What becomes of both marks
#
# Images are compressed, cut and made smaller, mostly without any ill will; `course_utils.data.distortions` does that.
# And an image can be drawn again: image to image (chapter 12), with the empty prompt and a low strength, changes little
# that one sees. **Predict first:** which mark survives a crop, which survives being drawn again?
#
# <details><summary>Answer (after running the cells below)</summary>
# Where pixels move, the mark in the pixels is lost altogether: its waves no longer fit. The ring is still found in half
# of the pages that were cut, and in nearly all that were mirrored. Drawn again at a strength of 0.3, the mark in the pixels is found in 2 of 24, presumably because the autoencoder does not bring a faint grain back, and the ring in 15. Where every pixel stays in its place (JPEG, half the size, brightness, noise), the mark in the pixels is found in all 24, and the ring in 17 to 24.
# </details>

# %% id="robust"


def drawn_again(pages, strength):
    """Drawn again, image to image, with the empty prompt and without guidance."""
    generator = torch.Generator().manual_seed(0)
    return distortions.saved(editing.picture_to_picture(pipe, pages, "", strength, generator, guidance=1.0, steps=10))


changes = {
    "saved as PNG": distortions.saved,
    "JPEG, quality 90": lambda pages: distortions.as_jpeg(pages, 90),
    "JPEG, quality 50": lambda pages: distortions.as_jpeg(pages, 50),
    "half the size": lambda pages: distortions.shrunk(pages, 0.5),
    "4 pixels cut off": lambda pages: distortions.cropped(pages, 4),
    "mirrored": lambda pages: pages.flip(3),
    "brighter by 30%": lambda pages: distortions.brighter(pages, 1.3),
    "noise of 0.1": lambda pages: distortions.noisy(pages, 0.1, torch.Generator().manual_seed(0)),
    "drawn again, 0.3": lambda pages: drawn_again(pages, 0.3),
    "drawn again, 0.6": lambda pages: drawn_again(pages, 0.6),
}

# %% [markdown] id="robust-table-text"
# A mark counts as found if its distance is below its line. (PSNR compares the changed pages with the marked ones; 99 stands for identical.)

# %% id="robust-table"
pixel_marked = distortions.saved(write_dct(plain, KEY))
share = {}
print(f"found of {MARKED}, with 95% interval      ring                   pixels        PSNR")
for name, change in changes.items():
    of_ring, of_pixels = change(ringed), change(pixel_marked)
    marks = {
        "ring": find_ring(pipe, of_ring, key).cpu() < lines["ring"],
        "pixels": find_dct(of_pixels, KEY) < lines["pixels"],
    }
    cells = []
    for mark, hit in marks.items():
        share[name, mark] = int(hit.sum())
        low, high = wilson_interval(int(hit.sum()), MARKED)
        cells.append(f"{int(hit.sum()):3} ({low:4.0%} to {high:4.0%})")
    print(f"{name:20} {cells[0]:>24} {cells[1]:>24} {psnr(of_ring, ringed).clamp(max=99).mean():8.1f}")
if LAPTOP:
    assert all(
        share[name, "ring"] > share[name, "pixels"] for name in ("4 pixels cut off", "mirrored", "drawn again, 0.3")
    )
    assert all(share[name, "pixels"] > 0.9 * MARKED for name in ("JPEG, quality 50", "half the size", "noise of 0.1"))
    assert share["mirrored", "ring"] > MARKED / 2 > share["drawn again, 0.6", "ring"]

# %% id="robust-look" tags=["static"]
some = [
    "JPEG, quality 50",
    "half the size",
    "4 pixels cut off",
    "mirrored",
    "noise of 0.1",
    "drawn again, 0.3",
    "drawn again, 0.6",
]
pages = torch.stack([ringed[:3], *(changes[name](ringed[:3]) for name in some)], dim=1).flatten(0, 1)
show(
    plot_pictures(pages, columns=len(some) + 1, heads=["with key", *some]),
    "Three pages, and each as JPEG, shrunk, cut, mirrored, noisy, and drawn again at two strengths.",
)

# %% [markdown] id="robust-read"
# Neither mark is better. The mark in the pixels survives JPEG, noise and half the size every time, and no change of the
# geometry. The ring survives most things most of the time, and a mirror, a crop and being drawn again far better than the other. Drawn again at 0.6 it is found in 6 of 24, though by then the image has changed as well (a ball has become a boat).
# So each mark here can be lost, one of them by a mere mirror, and **neither is safe from somebody who wants to be rid of it**. Two further limits are worth knowing.
# Anyone who has the key can write it into images of other origin, so a mark that is found is no proof either. And to
# look for a ring one needs the model.
#
# Marks can also be trained: Stable Signature ([arXiv:2303.15435](https://arxiv.org/abs/2303.15435)) fine-tunes the
# decoder, so that all that it decodes carries a mark, which a trained network reads.

# %% [markdown] id="credentials"
# ### Content credentials, and what the law asks
#
# *Written in November 2026; both change.* **Content credentials** are the standard of the Coalition for Content
# Provenance and Authenticity, C2PA ([specification](https://spec.c2pa.org/)). A *manifest* in the file holds
# statements on how the content was made, with which program, from which other files, and is signed with a certificate.
# A hash binds it to the content (a *hard binding*), so that a change of either shows. It is lost where a program
# does not write it, as our note in the PNG was. The specification therefore also knows *soft bindings*: an
# invisible mark, or a fingerprint of the content, by which a manifest that was lost can be found again in a repository.
#
# The **AI Act** of the European Union, [Regulation (EU) 2024/1689](https://eur-lex.europa.eu/eli/reg/2024/1689/oj), has
# duties of transparency in article 50, which apply since 2 August 2026. By paragraph 2, providers of systems that
# generate synthetic audio, images, video or text have to mark the output in a machine-readable format, so that it can
# be detected as artificially generated or manipulated; the solutions have to be effective, interoperable, robust and
# reliable as far as this is technically feasible. By paragraph 4, deployers of a system that makes *deep fakes* have to
# disclose that the content was generated or manipulated; for evidently artistic, creative, satirical or fictional works
# a disclosure suffices that does not hamper the display or enjoyment of the work. An amendment published in July 2026,
# [Regulation (EU) 2026/1744](https://eur-lex.europa.eu/eli/reg/2026/1744/oj), gives systems that were on the market
# before 2 August 2026 until 2 December 2026 for the marks of paragraph 2. A voluntary code of practice, published by the
# Commission on 10 June 2026, asks for more than one layer of marks: signed metadata and an invisible mark. This is a summary and no legal
# advice; read the article itself.

# %% [markdown] id="checker-text"
# ## 6 · Is it allowed?
#
# A model that anyone may use draws what anyone asks. Two filters are usual: one reads the prompt, one looks at the
# image. We begin with the second. Chapter 11 described Stable Diffusion's *safety checker*; here you write it.
#
# The image's CLIP embedding $I_i$ is compared with concept vectors $\text{concept}_j$, each the embedding of a text, and each with
# a threshold $\vartheta_j$ of its own. A few *special* concepts $\text{special}_l$ block nothing: an image that is above the
# threshold of one of them gets stricter treatment, 0.01 on all its scores.
#
# $$\text{score}_{ij} = \cos(I_i, \text{concept}_j) - \vartheta_j + \begin{cases} 0.01 & \text{if } \cos(I_i, \text{special}_l) > \vartheta'_l
#   \text{ for any } l \\ 0 & \text{else} \end{cases}$$
#
# In words: how far the cosine lies above the threshold. diffusers rounds all scores to three decimals, those of the special
# concepts ($\cos - \vartheta'_l$) too, and asks of the rounded ones whether they are above 0. It blacks the image out if any score of a concept is above 0.
#
# ### Exercise 10 · The safety checker
#
# ●●●○○ · 15 minutes. `images` is (n, d), `concepts` (m, d) with `thresholds` (m,), `special` (k, d) with
# `special_thresholds` (k,). The embeddings are of any length; `F.normalize(x, dim=1)` makes unit vectors. Round the
# scores with `.round(decimals=3)`. Return bool (n,).


# %% id="ex-flagged"
def flagged(images, concepts, thresholds, special, special_thresholds):
    """Which images (n, d) a checker with concepts (m, d) and special concepts (k, d) flags: bool (n,)."""
    ### BEGIN SOLUTION
    #: unit vectors, so that products are cosines
    images = F.normalize(images, dim=1)
    #: which images call for care
    scores = images @ F.normalize(special, dim=1).T - special_thresholds
    careful = (scores.round(decimals=3) > 0).any(1, keepdim=True)
    #: the scores of the concepts, with 0.01 more for those
    scores = images @ F.normalize(concepts, dim=1).T - thresholds + 0.01 * careful
    #: flagged if one is above 0
    return (scores.round(decimals=3) > 0).any(1)
    ### END SOLUTION


# %% id="check-flagged"
flagged = check("15.flagged", flagged)

# %% [markdown] id="librarys-text"
# diffusers' own class, with a small CLIP image encoder, random weights, and thresholds at which some images
# are flagged and others not, decides the same:

# %% id="librarys"
import diffusers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig

diffusers.utils.logging.set_verbosity_error()  # else it warns of each black image
vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, projection_dim=16)
config = CLIPConfig(projection_dim=16, vision_config=dict(vision, image_size=32, patch_size=16))
with torch.random.fork_rng(), torch.no_grad():
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(config).eval()
    checker.concept_embeds.normal_()
    checker.special_care_embeds.normal_()
    checker.concept_embeds_weights.fill_(0.65)
    checker.special_care_embeds_weights.fill_(0.3)
    inputs = torch.randn(200, 3, 32, 32)
    seen = checker.visual_projection(checker.vision_model(inputs).pooler_output)
    _, theirs = checker(inputs, torch.zeros(200, 3, 8, 8))
special = checker.special_care_embeds, checker.special_care_embeds_weights
mine = flagged(seen, checker.concept_embeds, checker.concept_embeds_weights, *special)
print(f"{len(checker.concept_embeds)} concepts, {len(special[0])} special; flagged {sum(theirs)} of 200")
assert mine.tolist() == theirs and 10 < sum(theirs) < 190

# %% [markdown] id="concepts-text"
# ### A filter of our own
#
# Let a publisher of picture books want no tulips, no cars and no mushrooms. The vectors are embeddings of three short
# texts, by the CLIP of chapter 13. The thresholds are chosen from labelled pages, of which we have as many as we like:
# so that 5% of the pages *without* the thing lie above them. We measure what that costs on other pages. **Predict first:**
# what share of the pages with a mushroom goes through?
#
# <details><summary>Answer (after running the cell below)</summary>
# Three quarters of them: 76% (65% to 85%, n = 68), where blocking 5% of all pages at random would let 95% through. Of cars it is 61% (47% to 73%, n = 51; with fewer false alarms than wanted), of tulips 27% (17% to 39%, n = 60). Nothing in the method tells which concepts it works for; only labelled images do.
# </details>

# %% id="embed"
from course_utils.metrics.safety import threshold_for

clip, tokenizer = load_clip(CHECKPOINTS / "embedder")


@torch.no_grad()
def embed(pages):
    """Unit embeddings (n, 128) of pages."""
    parts = [clip.get_image_features(pixel_values=part).pooler_output for part in pages.split(100)]
    return F.normalize(torch.cat(parts), dim=1)


@torch.no_grad()
def embed_texts(texts):
    """Unit embeddings (n, 128) of texts."""
    return F.normalize(clip.get_text_features(input_ids=tokenize(tokenizer, texts)).pooler_output, dim=1)


# %% id="concepts"
LABELLED = budget(smoke=60, laptop=1200, gpu=10_000)
labelled = [book.sample_scene(number, seed=11, split="all") for number in range(LABELLED)]
seen = embed(book.pictures(labelled))
kinds, half = ("tulip", "car", "mushroom"), LABELLED // 2
concepts = embed_texts([f"a {kind}" for kind in kinds])
cosines, shows = seen @ concepts.T, {}
thresholds = torch.zeros(len(kinds))
for j, kind in enumerate(kinds):
    shows[kind] = torch.tensor([any(thing.kind == kind for thing in scene.things) for scene in labelled])
    thresholds[j] = threshold_for(cosines[:half, j][~shows[kind][:half]], 0.05)

# %% [markdown] id="concepts-table-text"
# False alarms are pages without the thing that are blocked, misses are pages with it that go through:

# %% id="concepts-table"
missed = {}
for j, kind in enumerate(kinds):
    above, there = cosines[half:, j] > thresholds[j], shows[kind][half:]
    missed[kind] = (~above[there]).double().mean().item()
    print(
        f"{kind:9} threshold {thresholds[j]:.2f}: false alarms {said(above[~there].tolist())}, misses {said((~above[there]).tolist())}"
    )
if LAPTOP:
    assert missed["tulip"] < 0.45 < missed["mushroom"]

# %% [markdown] id="curve-text"
# The car's threshold, chosen on the first half for 5%, gives 2% on the second (1% to 4%), and so more misses: a threshold, too, is an estimate. Choosing it trades one error against the other; it cannot make both small. The figure has one point for each threshold:

# %% id="curve" tags=["static"]
figure, ax = plt.subplots(figsize=(4.6, 3.6))
for j, (kind, style) in enumerate(zip(kinds, ("-", "--", ":"))):
    there = shows[kind]
    levels = cosines[:, j].sort().values[:, None]
    alarms = (cosines[~there, j] > levels).double().mean(1)
    misses = (cosines[there, j] <= levels).double().mean(1)
    ax.plot(alarms, misses, style, label=kind)
ax.plot([0, 1], [1, 0], color="grey", linewidth=0.8, label="at random")
ax.set(xlabel="false alarms", ylabel="misses", title="every threshold")
ax.legend()
show(
    figure,
    "Misses against false alarms: the curve of tulips lies near both axes, those of cars and mushrooms farther away.",
)

# %% [markdown] id="closed-text"
# ### Why a closed checker is hard to audit
#
# You could measure all this because you had the words, the thresholds, and labelled pages. Stable Diffusion v1.5 came
# with 17 concept vectors and 3 special ones, but without their words
# ([arXiv:2210.04610](https://arxiv.org/abs/2210.04610)). Without them nobody can say which images ought to be blocked,
# so neither rate can be measured; and who made the choice cannot be asked why. The vectors can be questioned, though,
# as the authors of that paper did. Suppose somebody gives you three vectors, each the mean of some sentences that you
# don't know. Compare them with all words of the captions:

# %% id="audit"
import re

secret = [
    ["a tulip on the grass", "two flowers at night", "a watercolour of a tulip"],
    ["three cars in the city", "a red car", "a car parked in the snow"],
    ["a toadstool in the forest", "a little mushroom growing on the grass"],
]
vectors = torch.stack([embed_texts(texts).mean(0) for texts in secret])
words = sorted({word for scene in labelled for word in re.findall("[a-z]+", book.caption(scene, 0).text)})
nearest = (F.normalize(vectors, dim=1) @ embed_texts(words).T).topk(3).indices
for number, row in enumerate(nearest.tolist(), start=1):
    print(f"vector {number}: " + ", ".join(words[i] for i in row) + f"   (of {len(words)} words)")
if LAPTOP:
    assert [words[row[0]] in ("tulip", "flower", "car", "mushroom", "toadstool") for row in nearest] == [True] * 3

# %% [markdown] id="audit-read"
# The secret words come first. Publishing only the vectors did not keep the words secret here, but it kept users from measuring the two error rates.
#
# ### A filter of prompts, and how it is got round
#
# The other filter is older: a list of forbidden words. `forbidden_words(prompt, words)` returns those that the prompt
# has, as whole words, in lower or upper case. To test a filter, try what somebody would try who wants to get round
# it: this is called **red-teaming**. What counts is not whether a prompt passes; the model must also draw the thing.
# **Predict first:** the list is "tulip, tulips". Which of these prompts pass *and* get a tulip: "flower", "tullip",
# "tuliptulip", "eine Tulpe", a description of it?
#
# <details><summary>Answer (after running the cell below)</summary>
# "flower", a synonym that the list's author forgot, and "tuliptulip", which is one word to the list and, for the
# tokenizer, ends in the token of "tulip": both get one in 8 of 8 images (68% to 100%). "tullip" gets one now and then. What the model
# cannot read, other languages and descriptions among them, does not work here, because this small model knows few
# words. A large one knows many.
# </details>

# %% id="red-team"
from course_utils.metrics.safety import forbidden_words

attempts = {
    "as it is": "a tulip on the beach",
    "large letters": "a TULIP on the beach",
    "synonym": "a flower on the beach",
    "two in one": "a tuliptulip on the beach",
    "misspelled": "a tullip on the beach",
    "misspelled again": "a tulipe on the beach",
    "with a blank": "a tu lip on the beach",
    "Cyrillic і": "a tul\u0456p on the beach",
    "German": "eine Tulpe am Strand",
    "described": "pink petals on a green stem with two leaves on the beach",
}
SEEDS, STEPS = budget(smoke=1, laptop=8, gpu=50), budget(smoke=1, laptop=8, gpu=20)
x_T = torch.stack([torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(SEEDS)])
tulips = {how: editing.draw_from(pipe, x_T, prompt, steps=STEPS) for how, prompt in attempts.items()}

# %% [markdown] id="red-team-table-text"
# The last column is the filter of images from above, behind the filter of prompts:

# %% id="red-team-table"
through = {}
print(f"{'':17} the list   tulip drawn   of these, stopped by the filter of images")
for how, prompt in attempts.items():
    stopped = bool(forbidden_words(prompt, ["tulip", "tulips"]))
    verdicts = read(judge, tulips[how].cpu())
    there = torch.tensor([any(finding.kind == "tulip" for finding in verdict.findings) for verdict in verdicts])
    above = embed(tulips[how].cpu()) @ concepts[0] > thresholds[0]
    through[how] = (not stopped, int(there.sum()))
    print(
        f"{how:17} {'stops' if stopped else 'passes':9} {int(there.sum()):3} of {SEEDS}   {int(above[there].sum()):10}"
    )
if LAPTOP:
    assert through["as it is"] == (False, SEEDS) and through["synonym"] == (True, SEEDS)
    assert through["two in one"] == (True, SEEDS) and through["German"][1] < SEEDS / 2

# %% id="red-team-look" tags=["static"]
few = ["as it is", "synonym", "two in one", "misspelled", "German"]
show(
    plot_pictures(torch.cat([tulips[how][:8] for how in few]), columns=min(8, SEEDS), rows=few),
    "Five rows, one a prompt: tulips for the plain prompt, the synonym and the doubled word; for the misspelled one a "
    "tulip and seven other things; for German none.",
)

# %% [markdown] id="red-team-read"
# The list stops what its author thought of. The synonym and the doubled word are drawn each time, and their pages are nearly the same as the plain prompt's. Where the tokenizer breaks a word into pieces that the model never learned
# together ("tullip" is tu, l, li, p), it draws something else, usually; one or two of eight seeds get a tulip all the
# same. Behind the list, the filter of images stops every tulip here. But a single tulip on a beach is the easy case: on
# the labelled pages it let a quarter through. Only by trying do you learn what two filters let through together.
#
# ### A model card
#
# What this chapter measured belongs to the model. A **model card**
# ([arXiv:1810.03993](https://arxiv.org/abs/1810.03993)) says in two pages what a model is for, what it was trained on,
# how well it does, and where it fails. If it is written by hand it is out of date with the next training; ours is
# generated from the manifest that lies beside the weights. `python3 course.py card` prints it.

# %% id="card"
from IPython.display import Markdown, display

from course_utils.metrics.model_card import model_card

manifest = json.loads((CHECKPOINTS / "manifest.json").read_text(encoding="utf-8"))
display(Markdown(model_card(manifest)))

# %% [markdown] id="card-read"
# Every number in it is in the manifest, or an interval of one. What the manifest does not have, the card cannot say:
# how often its users were misled by it, for instance, or what it assumes where a prompt is silent, which you measured
# in section 4.

# %% [markdown] id="elsewhere"
# ## 7 · What you will read elsewhere
#
# **"A lower FID means better images."** In section 1 a copier beat a perfect model, pages on which every thing had the
# wrong colour scored as well as true ones, and FID put slightly blurred true pages behind images of which nearly half do not follow their prompts; KID could not tell these two apart. FID measures how far two sets of features are apart, for one network and one number of images.
#
# **"Our FID is 12; theirs is 15."** In section 1 the number of images alone changed it more than tenfold, making pages smaller with the wrong method and larger again changed it more than drawing in four steps did, and to another network DALL·E's images were no worse than true pages. Such numbers
# compare only if somebody computed both, in one way.
#
# **"The CLIP score measures whether the prompt was followed."** It preferred true captions to those with swapped sides
# no more often than by guessing, and it put DALL·E before a sampler that follows as many prompts or more.
#
# **"A diffusion model only learns concepts; it cannot store images."** Trained on 20 pages, it drew five of them again; a third of the copies were of the one that was there ten times. The same network, trained on 1,000 pages for as many updates, copied none in 64 images. What decides is the data, the training and the
# size, and it can be measured.
#
# **"An invisible watermark proves where an image comes from."** Of the two, one was lost by mirroring and the other in half of the images by a crop; image to image lost the one nearly always and the other in 9 of 24 images or more; and anyone who has the key can write it into any image.
#
# **"A model has no opinions, it only draws what it is asked."** What it is not asked it draws, too: section 4 counted
# the answers.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $\mathcal{Y} \leftarrow \mathcal{Y}\mathcal{T}$, $\mathcal{Z} \leftarrow \mathcal{T}\mathcal{Z}$ with $\mathcal{T} = \tfrac12(3I - \mathcal{Z}\mathcal{Y})$ | `matrix_sqrt(matrix)` |
# | $\lVert \mu_\text{real} - \mu_\text{gen} \rVert^2 + \text{trace}(\Sigma_\text{real} + \Sigma_\text{gen} - 2 (\Sigma_\text{real} \Sigma_\text{gen})^{1/2})$ | `frechet_distance(features, others)` |
# | mean kernel within both sets, without the diagonal, minus twice that between them | `kernel_distance(features, others)` |
# | the share of real points with a drawn one in their ball | `coverage(features, others, k)` |
# | a share, pulled towards one half, ± about two standard errors | `wilson_interval(hits, number)` |
# | $\text{strength}_i / (\text{strength}_i + \text{strength}_j)$, fitted to votes | `bradley_terry(wins)` |
# | $\text{near}_j / \text{next}_j$ | `neighbour_ratio(features, training)` |
# | $\mathcal{F}(x_T) = \text{key}$ on the rings | `write_ring(noise, key)` |
# | $2 - 2\cos$ of the angle between spectrum and key | `ring_distance(noise, key)` |
# | $\cos(I_i, \text{concept}_j) > \vartheta_j$, with stricter thresholds near special concepts | `flagged(images, concepts, thresholds, ...)` |
#
# Five sentences to keep: A distance of distributions depends on the network and on the number of images, and FID has a bias besides; name them. A share needs its n and its interval, and two samplers are best compared prompt by prompt. None of these distances and shares asks whether an image is new. What a prompt leaves open is answered all the same, and not always as the data answer it. Marks and filters have two kinds of errors each, and only labelled
# examples tell how many.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. A paper reports FID for 50,000 images of its model and for 10,000 of another. Which one is favoured?</summary>
# The one with 50,000: the bias falls with the number of images. Draw as many with both, or extrapolate both.
# </details>
# <details><summary>2. You tune the guidance scale to the best FID and report that FID. What is wrong, and what would help?</summary>
# The smallest of several noisy numbers is too small on average, just as the largest agreement of several thresholds is too large.
# Choose with one set of images and seeds, and report on another.
# </details>
# <details><summary>3. Your search finds no copy among 10,000 images. What may you say?</summary>
# That for these prompts and seeds, with this distance and this threshold, none was found; and by Wilson's interval, that the share
# of images of this kind that would be found is below 0.04%. Nothing about other prompts, in particular those of images that the data hold many times.
# </details>
# <details><summary>4. A detector of marks has a false alarm rate of 1%. Of a million images that it looks at, a hundred are marked, and it finds 90 of them. How many of its alarms are right?</summary>
# 90 of about 10,090, less than one in a hundred. A rate of false alarms has to be compared with how rare the marked images are.
# </details>
#
# **Papers** FID: Heusel et al., [arXiv:1706.08500](https://arxiv.org/abs/1706.08500); its bias, and KID: Bińkowski et al.,
# [arXiv:1801.01401](https://arxiv.org/abs/1801.01401); at infinity: Chong & Forsyth, [arXiv:1911.07023](https://arxiv.org/abs/1911.07023);
# resizing: Parmar et al., [arXiv:2104.11222](https://arxiv.org/abs/2104.11222); its features: Kynkäänniemi et al., [arXiv:2203.06026](https://arxiv.org/abs/2203.06026).
# Precision and recall: Kynkäänniemi et al., [arXiv:1904.06991](https://arxiv.org/abs/1904.06991). Density and coverage: Naeem et al.,
# [arXiv:2002.09797](https://arxiv.org/abs/2002.09797). CLIP score: Hessel et al., [arXiv:2104.08718](https://arxiv.org/abs/2104.08718). GenEval:
# Ghosh et al., [arXiv:2310.11513](https://arxiv.org/abs/2310.11513). Extraction: Carlini et al., [arXiv:2301.13188](https://arxiv.org/abs/2301.13188).
# Stereotypes: Bianchi et al., [arXiv:2211.03759](https://arxiv.org/abs/2211.03759). Datasheets: Gebru et al.,
# [arXiv:1803.09010](https://arxiv.org/abs/1803.09010). Model cards: Mitchell et al., [arXiv:1810.03993](https://arxiv.org/abs/1810.03993).
# Tree-Ring: Wen et al., [arXiv:2305.20030](https://arxiv.org/abs/2305.20030). The safety checker: Rando et al., [arXiv:2210.04610](https://arxiv.org/abs/2210.04610).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: a ballot among people
#
# Find five people, and a question: 10 steps or 20, guidance 3 or 6, DALL·E or unCLIP. Write down before the first vote how many votes
# you will take and what you will conclude from which interval. Let each vote blind in `voting_booth(Ballot(..., path="votes.json"))`, and compare:
# do they agree with the judge, with the CLIP score, and with each other more than by chance?
