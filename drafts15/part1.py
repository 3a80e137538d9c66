# %% id="set-up"
import math

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from course_utils import systems
from course_utils.data import picture_book as book
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget
from course_utils.plotting import plot_pictures, show, use_style
from course_utils.recipes import load_judge

use_style()
plt.rcParams["savefig.dpi"] = 72  # many images: smaller, so that the notebook stays small
LAPTOP = budget(smoke=False, laptop=True, gpu=True)  # whether claims about quality are asserted

# %% [markdown] id="symbols-1"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $\text{real}_i$ | `real[i]` | the features of real image $i$ | (d,) |
# | $\text{gen}_j$ | `drawn[j]` | the features of drawn image $j$ | (d,) |
# | $n_\text{real}$, $n_\text{gen}$ | `len(real)`, `len(drawn)` | how many there are of each | a number |
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

# %% [markdown] id="look-text"
# ## 1 · Does it look like the real thing?
#
# Four samplers draw the same captions: the model of chapter 10 with **10 steps** and with **4 steps**, chapter 13's
# **DALL·E**, and a fourth that is not a model at all: true pages of these captions, **blurred**, as a decoder may blur
# them. **Predict first:** in which order would you put the four rows?
#
# <details><summary>Answer (after running the cells of this section)</summary>
# It depends on who looks. FID in the judge's features puts them in this order: 10 steps, 4 steps, blurred pages,
# DALL·E. KID in the same features puts the blurred pages before the 4 steps. A network with random weights hardly tells
# 4 steps from 10, and one that was trained on handwritten digits puts DALL·E first.
# </details>

# %% id="four-models"
COUNT = budget(smoke=12, laptop=100, gpu=400)
scenes = [book.sample_scene(number, 2) for number in range(COUNT)]  # data set 2: no model was trained on it
captions = [book.caption(scene) for scene in scenes]
asked = [caption.text for caption in captions]
painter, dalle = systems.load("stable-diffusion"), systems.load("dalle")


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
# Real images are easy to come by here. `real` are the reference; `unseen` are further pages of the same program,
# numbered differently: a *perfect* model would draw these. And the **true pages** of our captions are what a perfect
# model would make of them.

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
# In words: how far apart the means are, plus how much the spreads differ. With one feature the second term is the
# squared difference of the two standard deviations: two variances, minus twice the product of their roots. With several
# features this product becomes the **root of a matrix**: that matrix which, multiplied by itself, gives
# $\Sigma_\text{real} \Sigma_\text{gen}$.
#
# ### Exercise 1 · The root of a matrix
#
# There are three usual ways to it: the eigenvalues, each replaced by its root; `scipy.linalg.sqrtm`, which uses a
# triangular form; and an iteration of Newton and Schulz that needs nothing but matrix products, which GPUs are good at
# ([arXiv:1707.06772](https://arxiv.org/abs/1707.06772)). From $\mathcal{Y} = \mathcal{A} / \lVert \mathcal{A} \rVert$
# and $\mathcal{Z} = I$, repeat
#
# $$\mathcal{T} = \tfrac12 (3 I - \mathcal{Z} \mathcal{Y}), \qquad \mathcal{Y} \leftarrow \mathcal{Y} \mathcal{T},
#   \qquad \mathcal{Z} \leftarrow \mathcal{T} \mathcal{Z}$$
#
# Then $\mathcal{Y}$ goes to the root of $\mathcal{A} / \lVert \mathcal{A} \rVert$ and $\mathcal{Z}$ to its inverse. (If
# they were there, $\mathcal{Z}\mathcal{Y}$ would be $I$, and so would $\mathcal{T}$.) $\lVert \mathcal{A} \rVert$ is
# the Frobenius norm, the root of the sum of all squares.
#
# ●●○○○ · 12 minutes. `matrix` is (d, d), with eigenvalues that are real and not negative. Return its root after
# `steps` repetitions, (d, d). Compute in float64 and return the matrix's own kind of numbers.


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
show(figure, "The error falls steeply after some ten steps for an easy matrix; for the covariance of features slowly.")
for name, root in {"eigenvalues": by_eigenvalues, "scipy": by_scipy, "40 steps": matrix_sqrt(covariance, 40)}.items():
    print(f"{name:12} trace of the root {root.trace():.6f}, largest difference {(root - by_scipy).abs().max():.1e}")

# %% [markdown] id="three-roots-read"
# All three agree. On the easy matrix the number of correct digits doubles in each of the last steps. The covariance of
# features has eigenvalues that differ by many powers of ten; a small one grows by a factor of 1.5 in each step until it
# is at its root, so this takes longer. For FID the small ones hardly matter: what counts is the trace.
#
# ### Exercise 2 · The Fréchet distance
#
# ●●●○○ · 15 minutes. `features` is (count, d) and `others` (number, d). Return the FID as a number (a float) that is
# never negative. Covariances divide by count − 1. Of the root only the trace is needed: the sum of the roots of the
# eigenvalues of $\Sigma_\text{real}\Sigma_\text{gen}$. These are real and not negative, but rounding may give them tiny
# imaginary parts and signs (`torch.linalg.eigvals` returns complex numbers). Your `matrix_sqrt` works, too.


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
    assert abs(fid[name] - distributions.frechet_distance(points, real)) < 1e-6
if LAPTOP:
    assert fid["true pages"] < fid["4 steps"] < fid["blurred pages"] < fid["DALL·E"]

# %% [markdown] id="bias-text"
# ### The distance that few images make
#
# `unseen` are drawn by the same program as `real`. Their true distance is 0. Yet the FID of 100 of them is not. From a
# sample, a covariance in 176 dimensions is estimated badly, and every error makes the distance larger: FID is
# **biased** ([arXiv:1801.01401](https://arxiv.org/abs/1801.01401)). **Predict first:** for the unseen pages, by which
# factor does FID fall from 100 to 3,000 images? And can pages saved as JPEGs of poor quality, 1,000 of them, get a
# *better* FID than 100 perfect pages?
#
# <details><summary>Answer (after running the cells below)</summary>
# By a factor of more than ten. And yes: 1,000 poor JPEGs have about half the FID of 100 perfect pages. A FID says
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
# For each $n_\text{gen}$ the mean of five random selections, and in brackets the smallest and the largest of them:

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
    figure, "Two nearly straight lines over one over n; that of the unseen pages ends near 0, that of the JPEGs above."
)
few = torch.tensor([
    distributions.frechet_at_infinity(some_of(unseen, 100, seed), real, generator=torch.Generator().manual_seed(seed))[0]
    for seed in range(5)
])  # fmt: skip
print(f"from 100 unseen pages only: {few.min():.2f} to {few.max():.2f}")

# %% [markdown] id="infinity-read"
# Of 3,000 unseen pages the line ends close to the truth, 0. (There are only 2,000 `real` pages, and no line is drawn for
# their number; nor is the line exactly straight.) From 100 images the extrapolation is of little use: the last line gives
# the range of five selections.
#
# ### A distance without bias
#
# The **kernel inception distance**, KID ([arXiv:1801.01401](https://arxiv.org/abs/1801.01401)), compares the clouds
# pair by pair. Two images are compared by $\text{kernel}(\text{gen}_j, \text{real}_i) = (\text{gen}_j \cdot
# \text{real}_i / d + 1)^3$, large if the features agree, and
#
# $$\text{KID} = \operatorname*{mean}_{j \ne j'} \text{kernel}(\text{gen}_j, \text{gen}_{j'})
#   + \operatorname*{mean}_{i \ne i'} \text{kernel}(\text{real}_i, \text{real}_{i'})
#   - 2 \operatorname*{mean}_{j, i} \text{kernel}(\text{gen}_j, \text{real}_i)$$
#
# In words: are two drawn images as similar to each other, and two real ones to each other, as a drawn one is to a real
# one? Pairs of an image *with itself* are left out, because they are always similar. Such an average over all pairs of
# different points is a **U-statistic**: each pair is a fair sample of two independent images, so the expectation is the
# same for any number of images. It is 0 if both distributions are equal, hence negative about half of the time.
#
# ### Exercise 3 · The kernel distance
#
# ●●●○○ · 15 minutes. `features` is (count, d) and `others` (number, d), and count and number may differ. Return the KID
# as a float. Compute in float64.


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
# Twenty random selections of as many unseen and real pages for each number. In the last column the pairs of a page with
# itself are kept, as a plain mean over the table would have it. (Thousandths, ± the standard error of the twenty.)


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
# FID and KID are one number, and two failures hide in it. Images may look unreal; or each of them may look real while
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
# ones, as a float. A point is not its own neighbour. `torch.cdist(a, b)` is the table of all distances.


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
figure, axes = plt.subplots(1, 3, figsize=(9, 3.7))
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
# many as there are drawn ones, the mean over twenty sets of them. (Their standard deviation over the sets is at most
# 0.1.)

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
# density tells the same. Against a hundred it says nothing: the balls of so few pages are so large that whatever is
# drawn lies in one. Coverage has its expected value for true pages, 0.97 of a hundred, and falls in the same order.
# These numbers, too, depend on how many images there are, and belong beside their counts.
#
# And FID and KID? Here they are once more, for the 100 images against all real pages:

# %% id="both-distances"
kid = {name: 1000 * kernel_distance(points, real) for name, points in drawn.items()}
for name in drawn:
    print(f"{name:14} FID {fid[name]:.2f}, KID {kid[name]:5.1f} thousandths")
if LAPTOP:
    assert fid["4 steps"] < fid["blurred pages"] and kid["4 steps"] > kid["blurred pages"]

# %% [markdown] id="both-distances-read"
# They disagree about the blurred pages and the 4 steps. A covariance and a cubic kernel weigh differently where and how
# two clouds are apart. "Which is nearer?" has no answer before you say in which sense.

# %% [markdown] id="which-text"
# ### Which features?
#
# Nothing so far asked what the features see. The usual FID takes them from a network that classifies photographs of
# ImageNet; what its thousand classes do not need, it may not see
# ([arXiv:2203.06026](https://arxiv.org/abs/2203.06026), [arXiv:2306.04675](https://arxiv.org/abs/2306.04675)). Three
# networks look at our four samplers: the judge; the digit reader of chapter 01, which knows handwritten digits
# only (it gets each page in grey, with 16 × 16 pixels); and a judge that was never trained, with random weights.
# **Predict first:** which of the three can tell true pages from DALL·E's?
#
# <details><summary>Answer (after running the cell below)</summary>
# The judge, and random weights can, too: they see colours and edges. The digit reader cannot. It gives DALL·E a lower
# FID than the true pages.
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
# nothing, it would be five of ten, in the mean.


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
# and in both halves. Random weights separate the blotchy and the blurred sampler from the rest, but not 4 steps from
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
# Ten directions of 176, and what varies along them is nearly all place and style: the means of the eight places and of
# the four styles account for 94% of the variance. So this FID is, above all, a measure of whether places and styles
# look as they should and occur as often as they should. Give every thing on the true pages a wrong colour, and look again:

# %% id="wrong-colours"
from dataclasses import replace

NEXT = dict(zip((None, *book.COLOURS), (*book.COLOURS, None)))  # each colour's successor; None is the natural one


def recoloured(scene):
    """The same page with all of its things in other colours."""
    return replace(scene, things=tuple(replace(thing, colour=NEXT[thing.colour]) for thing in scene.things))


wrong_colours = frechet_distance(judge_sees(book.pictures(map(recoloured, scenes))), real)
print(
    f"FID of the true pages {fid['true pages']:.2f}, with wrong colours {wrong_colours:.2f}, blurred {fid['blurred pages']:.2f}"
)
if LAPTOP:
    assert abs(wrong_colours - fid["true pages"]) < 0.2 * (fid["blurred pages"] - fid["true pages"])

# %% [markdown] id="wrong-colours-read"
# A page on which each thing has the wrong colour is as good as a true one, for this number, and a slight blur is far
# worse. Whether the prompt was followed must be asked in another way (section 2).

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
# **A file format.** The same unseen pages, saved and opened again, or made smaller and enlarged again. If the
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
# often (GANs: [arXiv:1809.11096](https://arxiv.org/abs/1809.11096)). We try it on the digits of chapter 07, where a
# network that knows digits sees them: $x_T$ is multiplied by a factor. **Predict first:** what happens to precision,
# and what to recall?
#
# <details><summary>Answer (after running the cell below)</summary>
# Precision rises, and recall falls: better looks are bought with variety. A single number, such as FID, does not show
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
    "Digits from full and from reduced noise: fewer of them are odd, and more of them are alike.",
)
if LAPTOP:
    assert traded[1.0][0] < traded[0.8][0] and traded[1.0][1] > traded[0.8][1] > traded[0.6][1]

# %% [markdown] id="games-read"
# With less noise fewer digits are odd, and more and more of them are alike: from 0.92 to 0.45 in recall. FID rises,
# since the lost variety outweighs. Samples from a truncated model beside the FID of the untruncated one show two
# different models.
