# %% [markdown] id="title"
# # 13 · DALL·E and DALL·E 2 in miniature
#
# A language model predicts the next word of a text. If an image is written as a sequence of whole numbers, the same
# model can go on from a caption to an image. This is how DALL·E works
# ([arXiv:2102.12092](https://arxiv.org/abs/2102.12092)), and in the first half of this chapter you build its two parts:
# a tokeniser, which turns an image into numbers and back, and a transformer that writes these numbers. The second half
# takes up DALL·E 2, which keeps the name and little else: it is a diffusion model told CLIP's embedding of an image.
#
# ![Three rows of the same six captions, drawn in miniature by DALL·E, whose things are often blurred or missing, and by
# DALL·E 2 and Stable Diffusion, whose things are clear](../chapters/figures/13_three_systems.png)
#
# **After this chapter you can**
# 1. turn continuous features into whole numbers by vector quantisation, EMA codebooks and FSQ, and say from
#    measurements why codes die and what brings them into use;
# 2. train a transformer on words and image tokens, sample from it with a key–value cache, and check that the
#    cache leaves the logits as they are;
# 3. measure what temperature, guidance and re-ranking by CLIP do for prompt adherence, with intervals;
# 4. say what a generator that writes an image in raster order cannot do;
# 5. train a prior over CLIP embeddings and use a decoder of embeddings for variations and edits, and measure what an
#    embedding does not hold;
# 6. compare the three systems by the same prompts and the same judge.
#
# **Time** about five hours, half of them for the exercises. All cells of both halves together run in about
# a quarter of an hour on one core of a CPU. **You need** chapter 01 (autoregressive models), 04 (attention), 08 (CLIP), 09 (latents, the judge)
# and 10 (guidance).

# %% id="set-up"
import math
import time

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from course_utils.data import picture_book as book
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.plotting import LivePlot, plot_pictures, show, smooth, use_style

use_style()
plt.rcParams["savefig.dpi"] = 72  # many images: smaller, so that the notebook stays small
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $z$ | `z` | what an encoder outputs for each place of a grid, as rows | (n, d) |
# | $z_q$ | `z_q` | the same, quantised: each row replaced by its code's row | (n, d) |
# | $e_j$ | `codebook[j]` | row $j$ of the codebook | (d,) |
# | $J$ | `len(codebook)` | the number of codes | a number |
# | $d$ | `width` | the length of a row | a number |
# | $\text{sg}$ | `.detach()` | stop gradient: the value of its argument, as a constant | |
# | $\beta_\text{commit}$ | `beta` | the weight of the commitment loss | a number |
# | $n_j$ | `n` | how many rows of a batch chose code $j$ | (J,) |
# | $N_j$, $m_j$ | `counts`, `sums` | moving averages of $n_j$, and of the sum of the rows that chose code $j$ | (J,), (J, d) |
# | $\rho$ | `decay` | how much of itself a moving average keeps | a number |
# | $p_j$ | `p` | the share of code $j$ among all codes of some images | (J,) |
# | $\Lambda_i$ | `levels[i]` | the number of levels in dimension $i$ (FSQ) | a number |
# | $g_j$ | `noise` | Gumbel noise | as the logits |
# | $\tau$ | `temperature` | the temperature of a softmax | a number |
# | $\ell$ | `logits` | logits of the next token | (batch, J) |
# | $\ell_c$, $\ell_\varnothing$ | `cond`, `free` | the same, given the prompt and given the empty prompt | (batch, J) |
# | $w$ | `guidance` | the guidance scale: 1 means no guidance | a number |
# | $S$ | `length` | the number of tokens of a prompt, start, end and padding included: 24 in sections 2 to 4, 32 for CLIP and the U-Net | a number |
# | $\text{token}_i$ | `text`, `codes` | token $i$ of the sequence: first those of the text, then the codes | (batch, S), (batch, 64) |
# | $Q$, $K$, $V$ | `q`, `k`, `v` | queries, keys and values | (batch, heads, tokens, d) |
# | $x$ | `pages` | an image | (batch, 3, 64, 64) |
# | $I$, $C$ | `I`, `C` | CLIP's embeddings of images and of captions, unit vectors | (batch, d) |
# | $x_0$, $\hat x_0$ | `x0` | in the prior: a standardised image embedding, and its prediction | (batch, d) |
# | $t$, $\varepsilon$, $\bar\alpha_t$ | `t`, `eps`, `alpha_bar` | time, noise, and the share of the data's variance left at that time | (batch,), (batch, d), (T,) |
# | $x_t$ | `x_t` | the noisy embedding or, in the decoder, the noisy latents | as the data |
# | $c$, $\varnothing$ | `cond`, `null` | the caption as features and one embedding: in the prior the caption's, in the decoder an image's; the same of the empty caption | (batch, S + 1, d), (1, S + 1, d) |
# | $u$ | `uniforms` | a uniform random number for each sample | (batch,) |
# | $v$ | `v` | what the decoder predicts, $\sqrt{\bar\alpha_t}\,\varepsilon - \sqrt{1-\bar\alpha_t}\,x_0$ | as the latents |
# | $\xi$ | `share` | how far along the way from one embedding to another | a number |
# | $\delta_\text{text}$ | `direction` | the direction of the difference of two captions, a unit vector | (batch, d) |
# | $I_\xi$ | `turned` | an image embedding, turned by the share $\xi$ towards it | (batch, d) |

# %% [markdown] id="judge-text"
# As in chapter 12, the judge reads images. `followed` returns for each image whether the judge finds everything that
# its caption names and nothing else, and each share stands with its standard error.

# %% id="judge"
from course_utils.metrics.pictures import followed, psnr
from course_utils.recipes import load_dalle, load_judge, load_vq

judge, pictures = load_judge(), load_vq()  # pictures: images to tokens and back


def rate(truths):
    """The share of true values with its standard error, in words."""
    number, hits = max(1, len(truths)), sum(truths)
    share = (hits + 1) / (number + 2)  # one more hit and one more miss, so that the error is never 0
    return f"{hits / number:.2f} ± {math.sqrt(share * (1 - share) / number):.2f}"


# %% [markdown] id="numbers-text"
# ## 1 · From images to whole numbers
#
# A transformer for text has a table of embeddings, one row for each token. An image has no tokens. An encoder gives a
# vector $z$ for each place of a grid; to make it a token we need a **codebook**, a table of $J$ rows
# $e_0, \dots, e_{J-1}$, and take the nearest one (VQ-VAE, [arXiv:1711.00937](https://arxiv.org/abs/1711.00937)):
#
# $$\text{code} = \arg\min_j \lVert z - e_j \rVert^2, \qquad z_q = e_\text{code}$$
#
# In words: the code is the number of the row that is closest to $z$, and the decoder sees this row in place of $z$.
#
# ### Exercise 1 · The nearest code
#
# ●○○○○ · 8 minutes. `z` is (n, d) and `codebook` is (J, d). Return one whole number for each row of `z`, int64 (n,).


# %% id="ex-nearest"
def nearest_code(z, codebook):
    """The number of the codebook's row that is nearest to each row of z: (n, d), (J, d) -> int64 (n,)."""
    ### BEGIN SOLUTION
    #: all squared distances, (n, J): |z|² - 2 z·e + |e|²
    squared = z.square().sum(1, keepdim=True) - 2 * z @ codebook.T + codebook.square().sum(1)
    #: the smallest one in each row
    return squared.argmin(1)
    ### END SOLUTION


# %% id="check-nearest"
nearest_code = check("13.nearest_code", nearest_code)
# Stuck? hint("13.nearest_code") gives one hint per call; solution("13.nearest_code") is the last resort.

# %% [markdown] id="dead-text"
# ### A codebook for points
#
# Take points in the plane, in eight small clusters on a ring around (2.5, 2.5), and a codebook of 16 rows that start
# as tables of embeddings do, as standard normal numbers. We improve it as in k-means: each code moves to the mean of
# the points that chose it, again and again. **Predict first:** how many of the 16 codes are in use after 20 rounds?
#
# <details><summary>Answer (after running the cell below)</summary>
# Five. The codes that happened to lie nearest to the ring win all points and move to them. A code that no point
# chooses has no mean to move to. It stays where it is, far away, and after the first rounds it is farther from every
# point than the codes that have moved. It is <b>dead</b>.
# </details>

# %% id="dead"
from course_utils.data.points import gaussian_ring
from course_utils.models.vq import perplexity

dice = torch.Generator().manual_seed(0)
points = 2.5 + gaussian_ring(2000, dice)
start = torch.randn(16, 2, generator=dice)
codebook = start.clone()
for _ in range(20):
    codes = nearest_code(points, codebook)
    for j in codes.unique():
        codebook[j] = points[codes == j].mean(0)
codes = nearest_code(points, codebook)
print(f"codes in use: {len(codes.unique())} of 16, perplexity {perplexity(codes, 16):.1f}")
assert len(codes.unique()) == 5

# %% [markdown] id="perplexity-text"
# The **perplexity** of the shares $p_j$ is the effective number of codes in use:
#
# $$\text{perplexity} = \exp\Bigl(-\sum_j p_j \log p_j\Bigr)$$
#
# In words: 1 if a single code takes all points, $J$ if all codes are chosen equally often. Dead codes are the common
# failure of VQ: you pay for $J$ codes and use a fraction of them.
#
# ### Gradients through a choice
#
# The codes are chosen between an encoder and a decoder, and both are trained. The loss reaches $z_q$, but argmin has
# gradient zero almost everywhere, so nothing would reach the encoder. The **straight-through** estimator
# ([arXiv:1308.3432](https://arxiv.org/abs/1308.3432)) hands the gradient over as if the choice were the identity:
#
# $$\text{output} = z + \text{sg}(z_q - z)$$
#
# In words: its value is $z_q$, and its derivative with respect to $z$ is 1. sg, stop gradient, treats its argument as a
# constant.
#
# ### Exercise 2 · Straight through
#
# ●●○○○ · 8 minutes. Return a tensor with the value of `z_q` whose gradient goes to `z` as it is, and not to `z_q`.


# %% id="ex-through"
def straight_through(z, z_q):
    """z_q by value, with the gradient of z; all of one shape."""
    ### BEGIN SOLUTION
    #: add the difference as a constant
    return z + (z_q - z).detach()
    ### END SOLUTION


# %% id="check-through"
straight_through = check("13.straight_through", straight_through)

# %% [markdown] id="loss-text"
# The gradient is biased: it is taken at $z_q$ and applied at $z$. It is useful only if the two are close, so two terms
# pull them together:
#
# $$L_\text{VQ} = \underbrace{\lVert \text{sg}(z) - z_q \rVert^2}_\text{codebook}
#   + \beta_\text{commit} \underbrace{\lVert z - \text{sg}(z_q) \rVert^2}_\text{commitment}$$
#
# In words: the first moves the codes to the encoder's outputs, the second keeps the encoder's outputs near their
# codes. Without the second, $z$ may grow faster than the codes can follow. The usual $\beta_\text{commit}$ is 0.25.
# The first term can be replaced. If $z$ stood still, the best $e_j$ would be the mean of the $z$ that choose it. So
# keep moving averages of how many there were and of their sum, and divide (appendix A.1 of the paper):
#
# $$N_j \leftarrow \rho N_j + (1-\rho)\, n_j, \qquad
#   m_j \leftarrow \rho\, m_j + (1-\rho) \sum_{z:\, \text{code} = j} z, \qquad e_j = m_j / N_j$$
#
# This is k-means, a little at a time, and needs no gradient; $\rho$ sets how fast it moves. It also tells us which
# codes are dead: those whose $N_j$ has become small. Such a code **begins again** at a row of $z$ from the batch,
# where it will be chosen ([arXiv:2005.00341](https://arxiv.org/abs/2005.00341)).
#
# ### Exercise 3 · A codebook that follows
#
# ●●●○○ · 20 minutes. `counts` (J,) and `sums` (J, d) are $N_j$ and $m_j$; `codes` (n,) are those that the rows of `z`
# (n, d) chose. Update both; then each code whose *new* count is below `least` gets the count 1 and the sum
# `fresh[j]`, a row that the caller drew from `z`. Return the new counts, sums and the codebook, which
# `codebook_from(counts, sums)` computes ($m_j / N_j$, with a small constant so that $N_j = 0$ does no harm). $N_j$
# settles at how often a batch chooses code $j$, so 0.03 means about once in 33 batches. The inputs stay as they are.

# %% id="ex-update"
from course_utils.models.vq import codebook_from


def update_codebook(counts, sums, z, codes, fresh, decay=0.99, least=0.03):
    """Counts (J,), sums (J, d) and codebook (J, d) after a batch z (n, d) with codes (n,); fresh: (J, d)."""
    ### BEGIN SOLUTION
    #: how often each code was chosen, and the sum of the rows that chose it
    n = torch.bincount(codes, minlength=len(counts))
    added = torch.zeros_like(sums).index_add(0, codes, z)
    #: the moving averages
    counts = decay * counts + (1 - decay) * n
    sums = decay * sums + (1 - decay) * added
    #: dead codes begin again
    dead = counts < least
    counts = torch.where(dead, 1.0, counts)
    sums = torch.where(dead[:, None], fresh, sums)
    #: the codebook is their quotient
    return counts, sums, codebook_from(counts, sums)
    ### END SOLUTION


# %% id="check-update"
update_codebook = check("13.update_codebook", update_codebook)

# %% [markdown] id="restart-text"
# The points again, now in batches of 100, from the same start, without and with restarts. (`least=0` never restarts.)

# %% id="restart" tags=["static"]
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.1))
used = {}
for ax, (name, least, rounds) in zip(axes, (("start", 0.0, 0), ("no restarts", 0.0, 200), ("with restarts", 0.5, 200))):
    dice = torch.Generator().manual_seed(1)
    counts, sums, codebook = torch.ones(16), start.clone(), start.clone()
    for _ in range(rounds):
        some = points[torch.randint(2000, (100,), generator=dice)]
        fresh = some[torch.randint(100, (16,), generator=dice)]
        codes = nearest_code(some, codebook)
        counts, sums, codebook = update_codebook(counts, sums, some, codes, fresh, 0.9, least)
    codes = nearest_code(points, codebook)
    used[name] = len(codes.unique())
    ax.scatter(*points.T, c=codes, s=3, cmap="tab20")
    ax.scatter(*codebook.T, marker="x", color="black")
    ax.set(title=f"{name}: {used[name]} of 16 used", aspect="equal")
show(
    figure,
    "Points in eight clusters on a ring and 16 codes as crosses. At the start and without restarts most crosses lie "
    "away from the ring; with restarts all clusters have crosses.",
)
assert used["with restarts"] == 16 and used["no restarts"] <= 5

# %% [markdown] id="restart-read"
# With restarts every code is in use, up to four of them in one cluster of points. Without them three codes
# take all points. The other thirteen have gone to the origin together: both their averages decay to zero, and then the
# small constant in `codebook_from` that prevents a division by zero decides.

# %% [markdown] id="latents-text"
# ### On latents
#
# Now on the picture book. The autoencoder of chapter 09 turns a page into 8 × 16 × 16 numbers. A small encoder turns
# each patch of 2 × 2 latents into one vector, so a page has 8 × 8 vectors, each of which becomes a code; a small
# decoder turns them back into latents. We compare four ways to choose the codes, each trained for the same processor
# time:
#
# * **no restarts** and **EMA** (exponential moving averages): your update as the package has it, with `least` 0 and 0.03.
#   With restarts every code begins in the first batch, at a row of it or at the mean of the rows that chose it;
# * **Gumbel**: the encoder gives logits $\ell_j$, and the decoder sees a *mixture* of all rows with the weights
#   $\text{softmax}((\ell_j + g_j)/\tau)$, where $g_j$ is Gumbel noise. The largest $\ell_j + g_j$ is an exact sample
#   from $\text{softmax}(\ell)$; as $\tau$ falls from 1 to 1/16, the mixture becomes a choice. DALL·E's own tokeniser is
#   trained this way;
# * **FSQ**, which has no codebook at all. It comes next.
#
# ### Finite scalar quantisation
#
# If the decoder learns anyway, why learn the codes? FSQ ([arXiv:2309.15505](https://arxiv.org/abs/2309.15505)) uses a
# short $z$, squeezes dimension $i$ so that rounding gives one of $\Lambda_i$ whole numbers, and rounds it straight
# through. `fsq_bound(z, levels)` does the squeezing, by a shifted tanh. All combinations are codes. A combination
# is read as a number whose digit $i$ has the base $\Lambda_i$:
#
# $$\text{code} = \sum_i \bigl(\text{number}_i + \lfloor \Lambda_i / 2 \rfloor\bigr) \prod_{i'<i} \Lambda_{i'}$$
#
# ### Exercise 4 · Finite scalar quantisation
#
# ●●●○○ · 15 minutes. `z` is (n, d) and `levels` int64 (d,). Return the rounded values of
# `fsq_bound(z, levels)`, (n, d), with its gradient, and the codes, int64 (n,). The rounded values lie around 0, from
# $-\lfloor \Lambda_i/2 \rfloor$ on. The first dimension runs fastest.

# %% id="ex-fsq"
from course_utils.models.vq import fsq_bound


def fsq(z, levels):
    """Numbers (n, d), rounded straight through, and one code for each row, int64 (n,)."""
    ### BEGIN SOLUTION
    #: squeeze and round, with the gradient of the squeezing
    bounded = fsq_bound(z, levels)
    numbers = straight_through(bounded, bounded.round())
    #: digits from 0 on, and the factor of each: the product of the levels before it
    digits = bounded.round().long() + levels // 2
    factors = torch.cat([torch.ones_like(levels[:1]), levels[:-1].cumprod(0)])
    #: one code for each row
    return numbers, (digits * factors).sum(1)
    ### END SOLUTION


# %% id="check-fsq"
fsq = check("13.fsq", fsq)

# %% [markdown] id="quantisers-text"
# The package has modules for the four, each called as `quantise(z)` with `z` on a grid, and returning $z_q$, the codes
# and what is added to the loss. First, are yours and the package's the same?

# %% id="quantisers"
from course_utils.models import vq

dice = torch.Generator().manual_seed(0)
z = torch.randn(4, 3, 8, 8, generator=dice)  # (batch, d, height, width)
rows = vq.as_rows(z)  # (256, 3)
package = vq.VectorQuantiser(20, 3, least=0)
codebook, counts, sums = package.codebook.clone(), package.counts.clone(), package.sums.clone()
z_q, codes, _ = package(z)  # in training mode this moves the codebook
yours = nearest_code(rows, codebook)
_, _, moved = update_codebook(counts, sums, rows, yours, rows[:20], least=0.0)
restarted = vq.VectorQuantiser(20, 3)
restarted(z)  # each code begins at a row of z, or at the mean of those that chose it
assert restarted.codebook.norm(dim=1).max() <= 1.01 * rows.norm(dim=1).max()
assert torch.equal(yours, codes.flatten()) and torch.allclose(moved, package.codebook, atol=1e-5)
levels = torch.tensor([8, 5, 5])
numbers, yours = fsq(rows, levels)
theirs, codes, _ = vq.FiniteScalarQuantiser((8, 5, 5))(z)
assert torch.equal(yours, codes.flatten())
assert torch.allclose(numbers / (levels // 2), vq.as_rows(theirs), atol=1e-6)
print("codes and codebook: yours are the package's")

# %% [markdown] id="pages-text"
# The pages to train on, and others to measure on, as latents. `where_things_are` weights the error: where a thing
# stands it counts ten times, since skies are learned quickly and eyes slowly.

# %% id="pages"
from course_utils.diffusion.latents import decode, encode
from course_utils.recipes.vq import Tokenise, small_vq, weighted_error, where_things_are


@torch.no_grad()
def latents_of(images):
    """Scaled latents (n, 8, 16, 16) of images (n, 3, 64, 64)."""
    return torch.cat([encode(pictures.vae, part) for part in images.split(32)])


@torch.no_grad()
def images_of(latents):
    """Images (n, 3, 64, 64) in [-1, 1] of scaled latents."""
    return torch.cat([decode(pictures.vae, part) for part in latents.split(32)]).clamp(-1, 1)


lesson = [book.sample_scene(number) for number in range(budget(smoke=16, laptop=1000, gpu=8000))]
latents = torch.cat([latents_of(book.pictures(lesson[i : i + 100])) for i in range(0, len(lesson), 100)])
weights = where_things_are(lesson)
unseen = [book.sample_scene(number, 1, "all") for number in range(budget(smoke=4, laptop=100, gpu=400))]
pages, captions = book.pictures(unseen), [book.caption(scene) for scene in unseen]
unseen_latents = latents_of(pages)
print(f"{len(latents)} pages to train on, {len(pages)} to measure on")

# %% [markdown] id="fit-text"
# One training loop for all. It stops after a fixed processor time, with a learning rate that falls to zero by then, and
# notes the perplexity of each batch's codes. (Only the Gumbel quantiser has a temperature to lower.)


# %% id="fit"
SECONDS = budget(smoke=0.3, laptop=25, gpu=120)


def fit(quantise, width):
    """Train a small tokeniser around a quantiser; return it, and the perplexity of each batch."""
    torch.manual_seed(0)
    model = Tokenise(small_vq(48, quantise.count, width), quantise)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.99), weight_decay=0.0)
    dice, curve, begun, done = torch.Generator().manual_seed(0), [], time.process_time(), 0.0
    while done < 1:
        optimizer.param_groups[0]["lr"] = 2e-3 * min((len(curve) + 1) / 50, 1 - done)
        quantise.temperature = vq.temperature_at(round(1000 * done), 1000)
        some = torch.randint(len(latents), (16,), generator=dice)
        x_hat, codes, extra = model(latents[some])
        loss = weighted_error(latents[some], x_hat, weights[some]) + extra
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        curve.append(perplexity(codes, quantise.count))
        done = (time.process_time() - begun) / SECONDS
    return model.eval(), curve


# %% [markdown] id="race-text"
# All have 512 codes. **Predict first:** a batch has 16 · 64 = 1024 codes. Which of the four uses the most of its 512,
# and which the fewest?
#
# <details><summary>Answer (after running the cells below)</summary>
# In the run of the solved notebook, 11 codes were in use on unseen pages without restarts, 286 with them, 195 with
# FSQ and 21 with Gumbel-softmax. An FSQ code cannot lie far from all $z$: the codes fill the range of the tanh from the
# start. The codes counted for Gumbel-softmax are those of the largest
# logits, without noise.
# </details>

# %% id="race"
torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
KINDS = {  # name: the quantiser, and how many numbers the encoder gives for a place
    "no restarts": (vq.VectorQuantiser(512, 16, least=0), 16),
    "EMA": (vq.VectorQuantiser(512, 16), 16),
    "Gumbel": (vq.GumbelQuantiser(512, 16, generator), 16),
    "FSQ": (vq.FiniteScalarQuantiser((8, 8, 8)), 3),
}
figure, ax = plt.subplots(figsize=(6.4, 3.1))
models = {}
for name, (quantise, width) in KINDS.items():
    models[name], curve = fit(quantise, width)
    ax.plot(torch.linspace(0, SECONDS, len(curve)), smooth(curve, 1 + len(curve) // 50), label=name)
    print(f"{name}: {len(curve)} updates in {SECONDS} seconds of processor time")
ax.set(xlabel="processor time (seconds)", ylabel="perplexity of a batch's codes", yscale="log")
ax.legend(fontsize=8)
show(
    figure, "Perplexity of the codes in a batch over processor time, one curve for each of the four ways of quantising."
)

# %% [markdown] id="race-table-text"
# How well are unseen pages reconstructed from their codes? PSNR compares pixels. The column after it is the share of
# pages in which the judge still finds what the caption names; then come the number of codes that are used and their
# perplexity. For comparison, the pages themselves and what the autoencoder alone makes of them.

# %% id="race-table"
rebuilt, used = {"pages": pages, "autoencoder": images_of(unseen_latents)}, {}
for name, model in models.items():
    with torch.no_grad():
        x_hat, codes, _ = model(unseen_latents)
    rebuilt[name], used[name] = images_of(x_hat), (len(codes.unique()), perplexity(codes, 512))
shipped = pictures.to_tokens(pages)  # (n, 64)
rebuilt["shipped"] = pictures.to_pictures(shipped)
used["shipped"] = len(shipped.unique()), perplexity(shipped, pictures.count)
read_right = {name: followed(judge, images, captions) for name, images in rebuilt.items()}
for name, images in rebuilt.items():
    quality = f"{psnr(images, pages).mean():.1f} dB" if name != "pages" else "-"
    count = "{} codes used, perplexity {:.0f}".format(*used[name]) if name in used else ""
    print(f"{name:12} PSNR {quality:8} judge reads {rate(read_right[name])}  {count}")
if budget(smoke=False, laptop=True, gpu=True):
    assert used["EMA"][1] > 2 * used["no restarts"][1] and used["FSQ"][1] > 2 * used["no restarts"][1]
    assert sum(read_right["shipped"]) > max(sum(read_right[name]) for name in models)

# %% [markdown] id="race-sheet-text"
# "shipped" is the tokeniser of the course, with 2,048 codes, EMA and restarts. It has the same architecture at twice
# the width and was trained for longer. Eight unseen pages, and what is left of them:

# %% id="race-sheet" tags=["static"]
shown = ("pages", "no restarts", "EMA", "FSQ", "shipped")
SOME = min(8, len(pages))
show(
    plot_pictures(torch.cat([rebuilt[name][:SOME] for name in shown]), columns=SOME, rows=list(shown)),
    "Five rows of the same eight pages: as drawn, after each of three small tokenisers, and after the shipped one, where "
    "colours and things are clearest.",
)

# %% [markdown] id="race-read"
# Twenty-five seconds are enough to show dead codes, and not enough for good reconstructions: after the small
# tokenisers the judge still reads at most 11 of the 100 pages correctly, and PSNR is the better measure to compare
# them by. After the shipped one it reads 84. This tells how much of a given page the codes can hold: finer than
# that, no transformer can draw in them.
#
# Would a finer grid be better? `python3 course.py benchmark tokens` trains tokenisers on a grid of 8 × 8 and one of
# 16 × 16 for the same three minutes of processor time: after them the judge reads 42% of 400 pages against 82%. For
# reconstruction the finer grid is clearly the better one. But its 256 tokens are four times as many to predict: each
# update and each image of the transformer takes more than four times as long, since the cost of attention grows with
# the square of their number. We take 8 × 8, and train the tokeniser for longer. DALL·E itself writes 32 × 32 tokens
# with 8,192 codes for an image of 256 × 256 pixels.

# %% [markdown] id="language-text"
# ## 2 · A language model over words and codes
#
# Now an image is a sequence of 64 whole numbers, row after row. Put the caption's $S = 24$ tokens before them, and a
# page with its caption is one sequence of 88 tokens. A transformer learns
#
# $$p(\text{text}, \text{image}) = \prod_i p(\text{token}_i \mid \text{token}_0, \dots, \text{token}_{i-1})$$
#
# In words: each token from all tokens before it, as in chapter 01, but with attention in place of convolutions.

# %% id="sequence"
pipe = load_dalle()  # the transformer, with the tokenisers of prompts and of images
config = pipe.model.config
text, codes = pipe.text([captions[0].text]), shipped[:1]
print(f"“{captions[0].text}”: {config.length} tokens of text, of {config.words} words and marks")
print(text[0].tolist())
print(f"its page: {config.places} codes of {config.codes}; the first row is {codes[0, :8].tolist()}")
text_logits, code_logits = pipe.model(text, codes)
print(f"logits: {tuple(text_logits.shape)} for the text, {tuple(code_logits.shape)} for the image")

# %% [markdown] id="positions-text"
# Each token enters as its row of a table of embeddings plus one for where it is: its place in the line for words; for
# codes the sum of one for the row and one for the column, so that the model need not learn that a code lies below the
# one eight places before it. A **causal mask** lets each token attend to itself and to those before it:

# %% id="mask" tags=["static"]
from course_utils.models.tokens_to_pixels import causal_mask

seen = causal_mask(config.length + config.places).float()
figure, ax = plt.subplots(figsize=(3.6, 3.6))
ax.imshow(seen, cmap="Blues", vmax=1.5)
ax.axhline(config.length - 0.5, color="black")
ax.axvline(config.length - 0.5, color="black")
ax.set(xlabel="attended to", ylabel="token", title="text, then codes row by row")
show(
    figure,
    "A square with its lower triangle filled: each token attends to itself and earlier ones. Lines separate 24 words from "
    "64 codes; codes attend to all words, and words to no code.",
)

# %% [markdown] id="loss2-text"
# Because of the mask, no token sees what it is to predict. So the logits of all places are trained in *one* pass, while
# sampling needs a pass for each code.
#
# ### Exercise 5 · The loss
#
# The loss is cross-entropy. The image matters more than the caption, so DALL·E weights the mean over the text by 1/8
# and the mean over the image by 7/8.
#
# ●●○○○ · 12 minutes. `text_logits` (batch, S − 1, words) predict `text[:, 1:]`, and `code_logits` (batch, 64, J)
# predict all of `codes`. Return `share` times the mean over the text plus 1 − `share` times the mean over the codes,
# a tensor with one number. Padding counts as text.


# %% id="ex-loss"
def dalle_loss(text_logits, code_logits, text, codes, share=1 / 8):
    """share · mean of -log p(word) + (1 - share) · mean of -log p(code)."""
    ### BEGIN SOLUTION
    #: the words, each predicted from those before it
    of_text = F.cross_entropy(text_logits.flatten(0, 1), text[:, 1:].flatten())
    #: the codes
    of_codes = F.cross_entropy(code_logits.flatten(0, 1), codes.flatten())
    #: weighted
    return share * of_text + (1 - share) * of_codes
    ### END SOLUTION


# %% id="check-loss"
dalle_loss = check("13.dalle_loss", dalle_loss)

# %% [markdown] id="cache-text"
# ### Sampling without doing everything again
#
# To sample the 40th code, a plain loop passes all 24 + 39 tokens through the network and uses the last logits alone.
# But earlier tokens do not see later ones, so what they compute never changes. All that a new token needs of them are
# their keys and values. Keep these, the **KV cache**, and pass only the new token.
#
# **Predict first:** how many tokens pass through the network for one image, without and with the cache? Will sampling
# become faster by the same factor?
#
# <details><summary>Answer (after running the cell at the end of this section)</summary>
# Without: 24 + 25 + … + 87 = 3,552. With: 24 + 63 = 87, that is 41 times fewer. In a batch of 4, sampling becomes about
# five times faster. A pass with a single token has the same number of small operations as one with many, and
# every pass reads all the weights.
# </details>
#
# ### Exercise 6 · Attention with a cache
#
# ●●●●○ · 25 minutes. This time there is only the contract.
#
# * `q`, `k`, `v`: (batch, heads, new, d), queries, keys and values of `new` ≥ 1 tokens that follow one another.
# * `cache`: None, or a pair (keys, values) of all tokens before, (batch, heads, past, d) each.
# * Return a pair: the attention's output for the new tokens, (batch, heads, new, d), and the cache for the next call, a
#   pair (keys, values) of all past + new tokens. What was passed stays as it is.
# * The output is what causal attention over the whole sequence gives for the last `new` tokens: scores are divided by
#   $\sqrt d$, and no token attends to a later one, also if `new` > 1 and there is a cache.


# %% id="ex-cache"
def cached_attention(q, k, v, cache=None):
    """Causal attention of new tokens to all so far: the output, and (keys, values) for the next call."""
    ### BEGIN SOLUTION
    #: the contract is above
    if cache is not None:
        k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
    queries, keys = q.shape[2], k.shape[2]
    mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (k, v)
    ### END SOLUTION


# %% id="check-cache"
cached_attention = check("13.cached_attention", cached_attention)

# %% [markdown] id="cache-run-text"
# Your function in the trained blocks, token by token, against the package's one pass over all tokens:


# %% id="cache-run"
from course_utils.models.attention import merge_heads, split_heads


@torch.no_grad()
def run_with_cache(model, x, caches):
    """New tokens (batch, new, width) through all blocks: what leaves them, and the caches."""
    kept = []
    for block, cache in zip(model.blocks, caches):
        q, k, v = (split_heads(part, block.heads) for part in block.to_qkv(block.norm_1(x)).chunk(3, dim=-1))
        attended, cache = cached_attention(q, k, v, cache)
        x = x + block.to_out(merge_heads(attended))
        x = x + block.down(F.gelu(block.up(block.norm_2(x)), approximate="tanh"))
        kept.append(cache)
    return model.norm(x), kept


caches, logits = [None] * config.layers, []
entering = torch.cat([pipe.model.embed_text(text), pipe.model.embed_codes(codes[:, :-1])], 1)
for part in (entering[:, : config.length], *entering[:, config.length :].split(1, dim=1)):
    h, caches = run_with_cache(pipe.model, part, caches)
    logits.append(pipe.model.code_head(h[:, -1]))
gap = (torch.stack(logits, 1) - code_logits).abs().max().item()
print(f"logits of 64 codes, one token at a time: largest difference to one pass {gap:.1e}")
assert gap < 1e-3

# %% [markdown] id="cache-time-text"
# And the time for four images, without and with the cache, from the same seeds. The codes are the same, unless a
# rounding error tips a draw.

# %% id="cache-time"
four, took, drawn = [caption.text for caption in captions[:4]], {}, {}
for cache in (False, True):
    begun = time.perf_counter()
    drawn[cache] = pipe.tokens(four, guidance=1.0, cache=cache)
    took[cache] = time.perf_counter() - begun
    print(f"cache {cache}: {took[cache]:.2f} seconds, {drawn[cache].numel() / took[cache]:.0f} codes per second")
print(
    f"{(drawn[True] == drawn[False]).float().mean():.1%} of the codes are equal; {took[False] / took[True]:.1f} times faster"
)
if budget(smoke=False, laptop=True, gpu=True):
    assert (drawn[True] == drawn[False]).float().mean() > 0.9 and took[True] < took[False]

# %% [markdown] id="small-text"
# ### A small one, trained live
#
# Below, a smaller transformer learns from the thousand training pages, as tokens
# of the shipped tokeniser, with your loss. Each update takes the next of four wordings. **Predict first:** at the
# start all logits are near 0. What is the loss?
#
# <details><summary>Answer (after running the cells below)</summary>
# All words and all codes are about equally likely, so the loss is near
# $\tfrac18 \log 848 + \tfrac78 \log 2048 \approx 7.5$. In less than a minute it falls to about 5.7. The images
# have the colours of places, but hardly any things.
# </details>

# %% id="small-data"
from course_utils.models.tokens_to_pixels import Dalle, DalleConfig
from course_utils.text.tokens import tokenize

lesson_codes = torch.cat([pictures.latents_to_tokens(part) for part in latents.split(32)])  # (pages, 64)
said = [[book.caption(scene, k).text for scene in lesson] for k in range(4)]
lesson_text = torch.stack([tokenize(pipe.tokenizer, words, config.length) for words in said])  # (4, pages, 24)
print(f"text {tuple(lesson_text.shape)}, codes {tuple(lesson_codes.shape)}")

# %% id="small-train"
torch.manual_seed(0)
small = Dalle(DalleConfig(config.words, config.length, config.codes, config.side, width=128, layers=4, heads=4))
optimizer = torch.optim.AdamW(small.parameters(), betas=(0.9, 0.95), weight_decay=0.05)
dice, begun, losses, done = torch.Generator().manual_seed(0), time.perf_counter(), [], 0.0
live = LivePlot("The loss of the small transformer falls from about 7.5, first steeply.", seconds=5)
MOST = budget(smoke=0.5, laptop=50, gpu=120)
while done < 1:
    optimizer.param_groups[0]["lr"] = 2e-3 * min((len(losses) + 1) / 50, 1 - done)
    some = torch.randint(len(lesson), (16,), generator=dice)
    text, codes = lesson_text[len(losses) % 4, some], lesson_codes[some]
    loss = dalle_loss(*small(text, codes), text, codes)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(small.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
    live.update(len(losses), losses[-1])
    done = (time.perf_counter() - begun) / MOST
live.finish()
print(f"{len(losses)} updates; first loss {losses[0]:.2f}, last {losses[-1]:.2f}")
assert abs(losses[0] - (math.log(config.words) / 8 + 7 * math.log(config.codes) / 8)) < 0.3

# %% [markdown] id="small-draw-text"
# The small transformer and the shipped one, which was trained for far longer, on the same eight captions of unseen
# pages:

# %% id="small-draw" tags=["static"]
from course_utils.pipelines.dalle import DallePipeline

wishes = captions[:SOME]
asked = [wish.text for wish in wishes]
both = {
    name: one(asked, guidance=1.0)
    for name, one in (("yours", DallePipeline(small, pipe.tokenizer, pictures)), ("shipped", pipe))
}
show(
    plot_pictures(torch.cat(list(both.values())), asked + [""] * SOME, columns=SOME, rows=list(both)),
    "Two rows for the same captions: blurs in the colours of places from the small transformer; pages with things from "
    "the shipped one.",
)
print("followed: " + ", ".join(f"{name} {sum(followed(judge, x, wishes))} of {SOME}" for name, x in both.items()))

# %% [markdown] id="drawing-text"
# ## 3 · Drawing
#
# The logits of the next code are turned into a draw. Three controls lie between: **temperature**, **filters** and
# **guidance**. The temperature $\tau$ divides the logits, $\text{softmax}(\ell / \tau)$: below 1, likely codes become
# likelier.
#
# Filters remove the tail. Together the many unlikely codes have a noticeable probability, and an image takes 64
# draws. **top-k** keeps that many of the largest logits. **top-p** (nucleus sampling,
# [arXiv:1904.09751](https://arxiv.org/abs/1904.09751)) keeps the fewest codes that together have at least a given
# probability: many where the model is unsure, one where it is sure.
#
# ### Exercise 7 · Filters
#
# ●●●○○ · 20 minutes. `logits` is (..., J). Return the logits with all codes that fall out at $-\infty$, and the
# others as they were. `top_k` first, if it is not None; it may be larger than J, and what equals the $k$-th largest
# stays. Then `top_p`, if it is not None, with the probabilities of what is *left*: the code with which the sum
# reaches `top_p` stays, and at least one always does; `top_p = 1` removes nothing. (The caller has applied guidance
# and temperature before.)


# %% id="ex-filter"
def filter_logits(logits, top_k=None, top_p=None):
    """The logits (..., J), with -inf for all but the likeliest codes."""
    ### BEGIN SOLUTION
    #: what is below the k-th largest falls out
    if top_k is not None and top_k < logits.shape[-1]:
        last = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < last, -math.inf)
    if top_p is not None and top_p < 1:
        #: sort what is left, and add the probabilities up
        ordered, places = logits.sort(dim=-1, descending=True)
        p = ordered.softmax(-1)
        #: a code falls out if those before it have top_p already
        out = p.cumsum(-1) - p >= top_p
        #: back to the order of the codes
        logits = logits.masked_fill(out.scatter(-1, places, out), -math.inf)
    return logits
    ### END SOLUTION


# %% id="check-filter"
filter_logits = check("13.filter_logits", filter_logits)

# %% [markdown] id="nucleus-text"
# How many codes are in the nucleus of 0.9, for each of the 64 places of an unseen page, given the true codes before it?

# %% id="nucleus" tags=["static"]
with torch.no_grad():
    texts = pipe.text([caption.text for caption in captions])
    page_logits = torch.cat([pipe.model(*part)[1] for part in zip(texts.split(16), shipped.split(16))])
left = filter_logits(page_logits, top_p=0.9).isfinite().sum(-1).float()  # (pages, 64)
figure, ax = plt.subplots(figsize=(4.2, 3.2))
image = ax.imshow(left.mean(0).view(8, 8), cmap="viridis")
figure.colorbar(image, label="codes in the nucleus")
ax.set(xlabel="column", ylabel="row", title=f"mean over {len(pages)} pages")
show(figure, "A grid of 8 × 8 places, coloured by how many codes are needed for a probability of 0.9 at each place.")
print(f"mean over all places {left.mean():.0f} of {config.codes} codes; least {left.min():.0f}, most {left.max():.0f}")

# %% [markdown] id="sweep-text"
# ### Temperature, measured
#
# **Predict first:** at which temperature are prompts followed most often? And what does a low temperature cost?
#
# <details><summary>Answer (after running the cell below)</summary>
# 0.27 at $\tau = 1$, 0.33 at 0.7 and 0.40 at 0.4, each ± 0.07. A low temperature avoids unlikely codes, but images of
# the same prompt become more alike: their mean difference falls from 20 to 16 grey levels.
# </details>

# %% id="sweep"
MANY = budget(smoke=2, laptop=48, gpu=200)
wishes = [book.caption(book.sample_scene(5000 + n, 1, "all")) for n in range(MANY)]
asked = [wish.text for wish in wishes]


def adherence_of(name, **how):
    """Draw all wishes, print how many are followed; return the images and the truths."""
    images = pipe(asked, seed=0, **how)
    truths = followed(judge, images, wishes)
    print(f"{name}: followed {rate(truths)} (n = {len(truths)})")
    return images, truths


sweep = {}
for temperature in budget(smoke=(1.0,), laptop=(0.4, 0.7, 1.0, 1.3), gpu=(0.2, 0.4, 0.7, 1.0, 1.3)):
    images, truths = adherence_of(f"temperature {temperature}", guidance=1.0, temperature=temperature)
    again = pipe(asked[:16], seed=10_000, guidance=1.0, temperature=temperature)
    differ = (again - images[:16]).abs().mean((1, 2, 3)) * 127.5
    sweep[temperature] = (sum(truths), differ.mean().item())
    error = differ.std() / len(differ) ** 0.5
    print(f"   two images of a prompt differ by {differ.mean():.0f} ± {error:.0f} grey levels (n = {len(differ)})")
if budget(smoke=False, laptop=True, gpu=True):
    assert sweep[0.4][1] < sweep[1.0][1]

# %% [markdown] id="guidance-text"
# ### Guidance
#
# A tenth of the training captions were empty, so the model also gives the logits $\ell_\varnothing$ without a prompt.
# Classifier-free guidance works on logits as it does on predicted noise
# ([arXiv:2203.13131](https://arxiv.org/abs/2203.13131)):
#
# $$\ell = \ell_\varnothing + w\,(\ell_c - \ell_\varnothing)$$
#
# In words: a code that the prompt makes likelier is made likelier still. Logits are logarithms, so this samples from
# $p_\varnothing\,(p_c / p_\varnothing)^w$, divided by its sum. It costs a second pass.
#
# **Predict first:** diffusion needed $w$ from 4 to 7. What happens here with large $w$?
#
# <details><summary>Answer (after running the cells below)</summary>
# Adherence doubles, from 0.27 at $w = 1$ to 0.54 at $w = 5$, and seems to fall again at 8, 0.42 (each ± 0.07). Large $w$
# also enlarges the differences between codes that both distributions find unlikely. A filter removes such codes, but
# what it adds at $w = 3$, 0.56 after 0.50, is within the error.
# </details>

# %% id="guidance" tags=["static"]
scales = budget(smoke=(1.0, 3.0), laptop=(1.0, 2.0, 3.0, 5.0, 8.0), gpu=(1.0, 1.5, 2.0, 3.0, 5.0, 8.0))
guided = {w: adherence_of(f"w = {w:g}", guidance=w) for w in scales}
filtered = adherence_of("w = 3, top_p = 0.9", guidance=3.0, top_p=0.9)
FEW = min(8, MANY)
show(
    plot_pictures(torch.cat([guided[w][0][:FEW] for w in scales]), columns=FEW, rows=[f"w = {w:g}" for w in scales]),
    "A row of images for each guidance scale, for the same prompts and seeds: with a larger scale more images show the "
    "things that were asked for.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert sum(guided[3.0][1]) > sum(guided[1.0][1])

# %% [markdown] id="rank-text"
# ### The best of many
#
# The samples in the DALL·E paper are the best of 512, chosen by CLIP. CLIP was trained apart from the transformer, so
# it may make different mistakes. Draw 16 candidates for a prompt and keep the one whose embedding is nearest to the
# prompt's. Our CLIP is that of chapter 08. From here on, images are sampled with $w = 3$, the pipeline's default.
#
# **Predict first:** how much does the best of 4 gain over a single image, and the best of 16 over that? And how often
# is at least one of the 16 right?
#
# <details><summary>Answer (after running the cells below)</summary>
# Single images follow the prompt in 0.50, the best of 4 in 0.53 and the best of 16 in 0.46 of the prompts: 24 prompts show no
# gain at all. Yet at least one of the 16 is right for 0.88. The right image was there nearly always, and CLIP preferred
# another.
# </details>

# %% id="rank"
from course_utils.pipelines.dalle import similarity
from course_utils.recipes import load_clip

clip, _ = load_clip()
PROMPTS, CANDIDATES = budget(smoke=2, laptop=24, gpu=100), budget(smoke=4, laptop=16, gpu=16)
right, near, candidates = [], [], []
for number, wish in enumerate(wishes[:PROMPTS]):
    images = pipe([wish.text] * CANDIDATES, seed=1000 * number)
    candidates.append(images)
    near.append(similarity(clip, pipe.tokenizer, wish.text, images))
    right.append(torch.tensor(followed(judge, images, [wish] * CANDIDATES)).float())
right, near = torch.stack(right), torch.stack(near)  # (prompts, candidates)

# %% [markdown] id="rank-plot-text"
# For the best of 4 we split the 16 into groups and average; the errors are over prompts.

# %% id="rank-plot" tags=["static"]
sizes, curve = [size for size in (1, 2, 4, 8, 16) if size <= CANDIDATES], {"by CLIP": [], "any is right": []}
for size in sizes:
    groups, marks = near.view(PROMPTS, -1, size), right.view(PROMPTS, -1, size)
    chosen = marks.gather(2, groups.argmax(2, keepdim=True)).mean((1, 2))
    for name, values in (("by CLIP", chosen), ("any is right", marks.amax(2).mean(1))):
        curve[name].append((values.mean().item(), values.std().item() / PROMPTS**0.5))
    by_clip, best = (curve[name][-1] for name in curve)
    print(f"best of {size:2}: by CLIP {by_clip[0]:.2f} ± {by_clip[1]:.2f}; any is right {best[0]:.2f} ± {best[1]:.2f}")
figure, ax = plt.subplots(figsize=(5.6, 3))
for (name, values), style in zip(curve.items(), ("o-", "s--")):
    heights, errors = zip(*values)
    ax.errorbar(sizes, heights, errors, fmt=style, capsize=3, label=name)
ax.set(xscale="log", xlabel="candidates", ylabel="prompts followed", ylim=(0, 1.05))
ax.set_xticks(sizes, [str(size) for size in sizes])
ax.legend(fontsize=8)
show(
    figure,
    "Share of prompts followed over the number of candidates: CLIP's choice, and whether any candidate is right.",
)

# %% [markdown] id="fooled-text"
# Where does CLIP choose wrongly? For each prompt with a right candidate whose winner is wrong, we look at what the
# judge objects to, among the winners and among all wrong candidates.

# %% id="fooled" tags=["static"]
from collections import Counter

from course_utils.metrics.pictures import faults

winners = near.argmax(1)
fooled = [n for n in range(PROMPTS) if right[n].any() and not right[n, winners[n]]]
objections, everywhere, shown, titles = Counter(), Counter(), [], []
for number in range(PROMPTS):
    named = faults(judge, candidates[number], [wishes[number]] * CANDIDATES)
    everywhere.update(name for name in named if name)
    if number in fooled:
        objections[named[winners[number]]] += 1
        best = torch.where(right[number] > 0, near[number], -1.0).argmax()
        shown += [candidates[number][winners[number]], candidates[number][best]]
        titles += [f"{wishes[number].text}: {near[number].max():.2f}", f"{near[number][best]:.2f}"]
print(f"fooled in {len(fooled)} of {int(right.amax(1).sum())} prompts with a right candidate: {dict(objections)}")
print(f"all wrong candidates: {dict(everywhere.most_common())}")
if shown:
    show(
        plot_pictures(torch.stack(shown[:12]), titles[:12], columns=4),
        "Pairs of images: CLIP's winner, which the judge calls wrong, and beside it the best of the right candidates, each "
        "with its similarity to the prompt.",
    )

# %% [markdown] id="fooled-read"
# In 10 of 21 prompts CLIP preferred a wrong candidate to a right one, and in 7 of these the winner lacks a thing, which
# is also the most common fault of all candidates. CLIP compares one vector for the image with one for the caption. The
# cosine depends on the setting and the style as well, and it hardly depends on which colour belongs to which thing
# (chapter 08). Re-ranking can only remove faults that the scorer sees, and choosing among many candidates also finds
# those that it overrates. With so few cases the list above is a hint, not a measurement; what is measured is the gap
# between the two curves, 0.42 at 16 candidates. DALL·E chose among 512, by a CLIP that had been trained on hundreds of
# millions of images.

# %% [markdown] id="bad-text"
# ## 4 · What raster order costs
#
# ### Where the bits are
#
# How surprised is the model by the codes of unseen pages? The mean of $-\log_2 p$ at each place, in bits, given the
# caption and the true codes before it. **Predict first:** where is it high?
#
# <details><summary>Answer (after running the cell below)</summary>
# Nowhere in particular: 7.1 bits in the first row, 7.7 in the fourth and 7.5 in the last, of the 11 that a random guess
# among 2,048 codes would cost. The second print compares with the bits that a code costs if only its position is known
# (estimated from 1,000 pages, so a little too many). The caption and the codes before save 3.3 bits in the first row
# and 3.6 in the last: what stands above adds little. Most bits are details that neither words nor neighbours tell.
# </details>

# %% id="bits" tags=["static"]
bits = F.cross_entropy(page_logits.flatten(0, 1), shipped.flatten(), reduction="none") / math.log(2)
bits = bits.view(len(pages), 8, 8)
by_row = bits.mean(2)  # (pages, rows)
figure, ax = plt.subplots(figsize=(4.2, 3.2))
figure.colorbar(ax.imshow(bits.mean(0), cmap="magma"), label="bits")
ax.set(xlabel="column", ylabel="row", title=f"surprise, mean over {len(pages)} pages")
show(figure, "A grid of 8 × 8 places coloured by the bits that the true code costs there.")
counts = torch.stack([torch.bincount(lesson_codes[:, i], minlength=config.codes) for i in range(config.places)]) + 0.1
alone = -(counts / counts.sum(1, keepdim=True)).log2()[torch.arange(config.places), shipped].view(-1, 8, 8).mean((0, 2))
for row in (0, 3, 7):
    error = by_row[:, row].std() / len(pages) ** 0.5
    print(f"row {row}: {by_row[:, row].mean():.2f} ± {error:.2f} bits; from its position alone {alone[row]:.2f}")

# %% [markdown] id="memory-text"
# ### Learned by heart
#
# A diffusion model meets a page with different noise each time. A language model meets the very same codes again in
# the next epoch, and can learn them by heart. The shipped transformer was trained on 160,000 pages, on the first 40,000
# of them far more often than on the others. **Predict first:** how many bits does a code cost on pages of the first
# 40,000, of the others, and on unseen pages?
#
# <details><summary>Answer (after running the cell below)</summary>
# 7.0, 7.2 and 7.4. What has been seen often is known best. More pages, or an earlier end of the training, keep such a
# difference small.
# </details>

# %% id="memory"
groups = {
    "of the first 40,000": lesson[: len(pages)],
    "of the other 120,000": [book.sample_scene(100_000 + number) for number in range(len(pages))],
    "unseen": [book.sample_scene(number, 1) for number in range(len(pages))],
}
for name, scenes in groups.items():
    codes = pictures.to_tokens(book.pictures(scenes))
    with torch.no_grad():
        logits = pipe.model(pipe.text([book.caption(scene).text for scene in scenes]), codes)[1]
    cost = F.cross_entropy(logits.mT, codes, reduction="none").mean(1) / math.log(2)
    print(f"{name}: {cost.mean():.2f} ± {cost.std() / len(cost) ** 0.5:.2f} bits for a code (n = {len(cost)} pages)")

# %% [markdown] id="complete-text"
# ### Half a page, completed
#
# Whatever stands at the beginning of a sequence can be given: to keep the upper half of a page, put its 32 codes there
# and draw the rest. **Predict first:** what if you want to keep the *lower* half?
#
# <details><summary>Answer (after running the cells below)</summary>
# The upper half is drawn first, and it cannot attend to codes that come later. So it is drawn from the prompt alone, and
# the given lower half is put below it, whatever it looks like. Under the new upper half each code of the lower half
# costs 3.1 ± 0.2 bits more than under its own.
# </details>


# %% id="complete"
@torch.no_grad()
def complete(text, given, seed=0, temperature=1.0):
    """Draw codes (batch, 64) after a text (batch, 24); where given (batch, 64) is not -1, it is kept."""
    generator = torch.Generator().manual_seed(seed)
    logits, past = pipe.model.read(text)
    drawn = []
    for place in range(config.places):
        p = filter_logits(logits / temperature, top_p=0.95).softmax(-1).cpu()
        code = torch.multinomial(p, 1, generator=generator)[:, 0]
        drawn.append(torch.where(given[:, place] < 0, code, given[:, place]))
        if place < config.places - 1:
            logits, past = pipe.model.step(drawn[-1].to(text.device), past)
    return torch.stack(drawn, 1)


upper = torch.arange(config.places) < config.places // 2
HALVES = min(len(pages), budget(smoke=2, laptop=48, gpu=200))
whole, blank = shipped[:HALVES], pipe.text([""] * HALVES)
kept = {"upper half kept": torch.where(upper, whole, -1), "lower half kept": torch.where(upper, -1, whole)}
halves = {"true page": whole, **{name: complete(blank, given) for name, given in kept.items()}}  # codes

# %% [markdown] id="seam-text"
# The prompt is empty, so that all that is known about the page is the given half. Do the halves fit together? The
# model itself can tell: the bits that a code of the lower half costs, given the upper one.


# %% id="seam" tags=["static"]
@torch.no_grad()
def lower_bits(codes):
    """The mean bits of a code in the lower half, given the upper half and no prompt: (batch,)."""
    logits = pipe.model(blank, codes)[1][:, ~upper]
    return F.cross_entropy(logits.mT, codes[:, ~upper], reduction="none").mean(1) / math.log(2)


surprise = {name: lower_bits(codes) for name, codes in halves.items()}
for name, values in surprise.items():
    print(f"{name}: {values.mean():.2f} bits for a code of the lower half (n = {HALVES})")
more = surprise["lower half kept"] - surprise["true page"]
print(f"the same lower halves under other upper halves: {more.mean():+.2f} ± {more.std() / HALVES**0.5:.2f} bits")
FEW = min(8, HALVES)
show(
    plot_pictures(pictures.to_pictures(torch.cat([c[:FEW] for c in halves.values()])), columns=FEW, rows=list(halves)),
    "Three rows of pages: true ones, rebuilt from their codes; pages whose lower half was drawn; and pages with a given lower half "
    "under an upper half that was drawn without knowing of it.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert more.mean() > 3 * more.std() / HALVES**0.5

# %% [markdown] id="drift-text"
# A diffusion model refines all places together, and inpainting (chapter 12) can keep any part. Here only a beginning
# can be kept; the order in which a page is written is part of the model.
#
# ### Drift
#
# In training, all codes before a place are true. In sampling they are the model's own, and one that does not fit is
# never corrected: what follows has to go on from it. To see how much a few such codes matter, replace some of the
# first 32 codes of true pages by codes drawn from the model's own distribution there, and measure how surprising the
# *true* second half becomes.

# %% id="drift"
dice, base = torch.Generator().manual_seed(0), None
choices = page_logits.softmax(-1).flatten(0, 1)
drawn_there = torch.multinomial(choices, 1, generator=dice).view(len(pages), -1)  # (pages, 64)
for count in (0, 1, 2, 4, 8):
    changed = shipped.clone()
    for number, page in enumerate(changed):
        places = torch.randperm(32, generator=dice)[:count]
        page[places] = drawn_there[number, places]
    with torch.no_grad():
        logits = torch.cat([pipe.model(*part)[1][:, 32:] for part in zip(texts.split(16), changed.split(16))])
    cost = F.cross_entropy(logits.mT, shipped[:, 32:], reduction="none").mean(1) / math.log(2)
    base = cost if base is None else base
    gain = cost - base
    print(
        f"{count} codes replaced: {cost.mean():.2f} bits for each true code of the second half, "
        f"{gain.mean():+.2f} ± {gain.std() / len(gain) ** 0.5:.2f} (n = {len(gain)})"
    )
if budget(smoke=False, laptop=True, gpu=True):
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5

# %% [markdown] id="speed-text"
# With 8 of 32 codes replaced, each true code of the second half costs 0.08 bits more: certain, but little, since most
# of a code's bits are details. In sampling all earlier codes are the model's own. Filters and a lower
# temperature may help, since they make unlikely codes rarer; they cannot take one back.
#
# ### Speed
#
# One image takes 64 passes, one after another, however many processors there are. For a grid of 32 × 32 it would be
# 1,024.

# %% id="speed"
for batch in (1, budget(smoke=2, laptop=16, gpu=64)):
    begun = time.perf_counter()
    drawn = pipe.tokens([asked[0]] * batch)
    between = time.perf_counter()
    pictures.to_pictures(drawn)
    done = time.perf_counter()
    print(
        f"batch of {batch}: {(between - begun) / batch:.2f} seconds for each image's codes, "
        f"{(done - between) / batch:.3f} to decode them"
    )

# %% [markdown] id="speed-read"
# Decoding is one pass for all places together; the codes take 64 passes, each of which waits for the one before. A
# larger batch uses the processor better, but does not make the first image come sooner. The number of passes of a
# diffusion model is a choice (chapter 07); here it is the number of tokens.
#
# To sum up this half: with discrete codes, the whole machinery of language models applies to images, including their
# sampling controls. The price is an order, the detail that the codes cannot hold, and one pass for each token. DALL·E
# 2 gave all of this up, and the second half shows what it does instead.

# %% [markdown] id="unclip-text"
# ## 5 · The prior: an idea of an image
#
# DALL·E 2 (unCLIP, [arXiv:2204.06125](https://arxiv.org/abs/2204.06125)) writes no image tokens. It asks two questions
# in turn. Which embedding would CLIP give to an image with this caption? And which image has this embedding?
#
# $$p(x \mid \text{caption}) = \underbrace{p(I \mid \text{caption})}_\text{prior}\;
#   \underbrace{p(x \mid I, \text{caption})}_\text{decoder}$$
#
# In words: draw an image embedding $I$ given the caption, then an image given both. Nothing is lost by this, because
# $I$ is computed from $x$: an image and the image with its embedding are equally probable. Both factors are diffusion
# models.
#
# ### Embeddings that say enough
#
# What the embedding leaves out, the decoder cannot know. The CLIP of chapter 08 found the captions of pages among 64 of all
# kinds. For that the setting, the style and a colour nearly suffice, so its vectors need not hold more. DALL·E 2 was
# trained with a CLIP of its own. Ours is `embedder`: chapter 08's CLIP, trained on with batches in which 32 pages show *one*
# setting in *one* style, so that only things, their number, their colours and their positions tell them apart. Such
# **hard negatives** are the subject of a small test: among 16 pages of one setting and style, how often is a page's own
# caption the nearest? By chance it would be 1 in 16.

# %% id="alike"
from course_utils.pipelines import unclip
from course_utils.recipes import load_unclip

system = load_unclip()
blocks, number = {}, 0
while sum(len(block) == 16 for block in blocks.values()) < budget(smoke=1, laptop=12, gpu=24):
    scene = book.sample_scene(number, 3, "all")
    number += 1
    block = blocks.setdefault((scene.place, scene.style), [])
    if len(block) < 16 and book.caption(scene).text not in [book.caption(other).text for other in block]:
        block.append(scene)
for name, one in (("CLIP of chapter 08", clip), ("embedder", system.clip)):
    hits = []
    for block in [block for block in blocks.values() if len(block) == 16]:
        tokens = tokenize(pipe.tokenizer, [book.caption(scene).text for scene in block])
        near = one(pixel_values=book.pictures(block), input_ids=tokens).logits_per_image  # (16 pages, 16 captions)
        hits += (near.argmax(1) == torch.arange(16)).tolist()
    print(f"{name}: own caption found {rate(hits)} (n = {len(hits)})")

# %% [markdown] id="gap-text"
# Both find most, and the embedder nearly all: it mistakes 2 in 100 where chapter 08's CLIP mistakes 11. Is it also a
# better judge of candidates? The drawings of section 3 again, ranked by both:

# %% id="rank-again"
for name, one in (("CLIP of chapter 08", clip), ("embedder", system.clip)):
    near = [similarity(one, pipe.tokenizer, wish.text, images) for wish, images in zip(wishes, candidates)]
    best = right.gather(1, torch.stack(near).argmax(1, keepdim=True))[:, 0]
    print(f"best of {CANDIDATES} by the {name}: followed {rate([hit > 0 for hit in best.tolist()])} (n = {len(best)})")

# %% [markdown] id="towards-text"
# The difference is within the errors. On 100 prompts (section 8) the embedder's best of 16 follow 46%, and on 200 single
# images follow 41%: little is gained, if anything. Both CLIPs were trained on true pages only, and images like these, with
# blurred things, are new to them.
#
# ### From captions to image embeddings
#
# An image and its caption have similar embeddings. So is the first question needed at all? **Predict first:** which is
# larger, the cosine of a page and its own caption, or that of two pages taken at random?
#
# <details><summary>Answer (after running the cell below)</summary>
# That of a page and its caption, 0.88 against -0.04. But 0.88 is not 1. Training compares each page with all captions of a
# batch, and rewards a larger cosine with its own caption <i>than with the others</i>, not a large one. A page is nearer
# to <i>another page</i> with its caption, 0.96, than to the caption itself. And that is not 1 either: a caption fits many
# pages.
# </details>

# %% id="gap" tags=["static"]
from dataclasses import replace

I = unclip.embed_pictures(system, pages)  # (pages, 128), unit vectors
_, C = unclip.embed_prompts(system, [caption.text for caption in captions])  # (pages, 128)
redrawn = [replace(scene, seed=scene.seed + 10_000) for scene in unseen]  # the same caption, everything else new
I_redrawn = unclip.embed_pictures(system, book.pictures(redrawn))
cosines = {
    "a page and its caption": (I * C).sum(1),
    "a page and another with its caption": (I * I_redrawn).sum(1),
    "a page and another page": (I * I.roll(1, 0)).sum(1),
    "a caption and another caption": (C * C.roll(1, 0)).sum(1),
}
figure, ax = plt.subplots(figsize=(6.4, 3))
for name, values in cosines.items():
    ax.hist(values, bins=torch.linspace(-0.5, 1, 46).tolist(), alpha=0.6, label=name)
    print(f"{name}: {values.mean():.2f} ± {values.std() / len(values) ** 0.5:.2f} (n = {len(values)})")
ax.set(xlabel="cosine of two embeddings", ylabel="pairs")
ax.legend(fontsize=8)
show(figure, "Histograms of cosines: a page and its caption, two pages with one caption, two pages, two captions.")

# %% [markdown] id="prior-text"
# A caption does not determine the embedding, so the prior must give a distribution. It is a diffusion model of
# vectors with 128 numbers. First each number is standardised, $x_0 = (I - \text{mean}) / \text{std}$, because noise
# of variance 1 has to match data of variance 1 (chapter 05). The network is a transformer. It reads the caption's
# hidden states, the caption's embedding, the time, the noisy vector $x_t$, and one learned query, at whose place it
# outputs its prediction.
#
# What should it predict? All of chapter 06 predicted the noise, and chapter 07 showed that noise, $x_0$ and $v$ can be
# computed from one another. DALL·E 2 predicts $x_0$ itself:
#
# $$L = \mathbb{E}\, \lVert x_0 - \hat x_0(x_t, t, c) \rVert^2 / d, \qquad
#   x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \varepsilon$$
#
# In words: make the embedding noisy, predict the clean one from it and from the caption, and take the mean squared
# error over all numbers. The condition $c$ is replaced by that of the empty caption, $\varnothing$, where a uniform
# random number $u$ is below 0.1.
#
# ### Exercise 8 · The prior's loss
#
# ●●●○○ · 20 minutes. `x0` and `eps` are (batch, d), `t` int64 (batch,), `uniforms` (batch,), `alpha_bar` (T,). `cond`
# is (batch, S + 1, d): the hidden states, and the caption's embedding as the last row; `null`, (1, S + 1, d), is the
# same for the empty caption. `model(x_t, t, cond)` returns a prediction (batch, d). Return the loss, one number: the
# mean over batch and numbers. `add_noise(x0, eps, t, alpha_bar)` makes $x_t$ (chapter 05), and `drop_prompts(cond,
# null, uniforms, share)` puts `null` where it belongs (chapter 10).

# %% id="ex-prior"
from course_utils.diffusion.guidance import drop_prompts
from course_utils.diffusion.schedules import add_noise


def prior_loss(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    """The mean squared error of a prediction of the clean embedding, captions dropped in a share of the samples."""
    ### BEGIN SOLUTION
    #: the noisy embeddings
    x_t = add_noise(x0, eps, t, alpha_bar)
    #: the empty caption where the uniform number is below the share
    cond = drop_prompts(cond, null, uniforms, share)
    #: the network predicts the clean embedding
    return (model(x_t, t, cond) - x0).square().mean()
    ### END SOLUTION


# %% id="check-prior"
prior_loss = check("13.prior_loss", prior_loss)

# %% [markdown] id="prior-data-text"
# Is $x_0$ the better choice, or only another one? We train two small priors on the lesson's pages, one with your
# loss, and one that predicts the noise (chapter 10's `text_loss`), with the same seed, network and processor time.

# %% id="prior-data"
from course_utils.diffusion.guidance import text_loss
from course_utils.models.prior import Prior, condition, mean_and_std, small_prior, standardise

lesson_I = torch.cat(
    [unclip.embed_pictures(system, book.pictures(lesson[i : i + 100])) for i in range(0, len(lesson), 100)]
)
lesson_c = [condition(*unclip.embed_prompts(system, words)) for words in said]  # four captions of each page
mean, std = mean_and_std(lesson_I)
x0 = standardise(lesson_I, mean, std)  # (pages, 128)
null = condition(*unclip.embed_prompts(system, [""]))
unseen_c = condition(*unclip.embed_prompts(system, [caption.text for caption in captions]))
alpha_bar = unclip.prior_alpha_bar()
print(f"x0 {tuple(x0.shape)}, condition {tuple(lesson_c[0].shape)}, of the empty caption {tuple(null.shape)}")

# %% [markdown] id="prior-fit-text"
# One loop for both, which stops after a fixed processor time.


# %% id="prior-fit"
def fit_prior(loss_of):
    """Train a small prior with a loss; return it, and its losses."""
    torch.manual_seed(0)
    model = Prior(small_prior(system.clip, layers=3))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.99), weight_decay=0.0)
    dice, losses, begun, done = torch.Generator().manual_seed(0), [], time.process_time(), 0.0
    while done < 1:
        optimizer.param_groups[0]["lr"] = 1e-3 * min((len(losses) + 1) / 50, 1 - done)
        some = torch.randint(len(x0), (64,), generator=dice)
        t = torch.randint(len(alpha_bar), (64,), generator=dice)
        eps, uniforms = torch.randn(64, x0.shape[1], generator=dice), torch.rand(64, generator=dice)
        loss = loss_of(model, x0[some], lesson_c[len(losses) % 4][some], null, t, eps, uniforms, alpha_bar)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
        done = (time.process_time() - begun) / budget(smoke=0.5, laptop=30, gpu=120)
    return model.eval(), losses


# %% [markdown] id="prior-sample-text"
# To sample, both use the DDIM of chapter 07 with guidance; it wants a prediction of the noise, which `as_eps`
# computes from one of $x_0$. To judge a sampled embedding, compare it with the embeddings of 100 unseen pages: is the
# nearest one that page whose caption was given? By chance this happens once in 100. And what is the cosine with that
# page? A perfect sampler would score like another page with this caption; a larger cosine means that variety is
# missing.

# %% id="prior-race"
from course_utils.diffusion import samplers
from course_utils.diffusion.objectives import as_eps, x0_from_eps
from course_utils.models.prior import to_embedding


@torch.no_grad()
def sampled(model, kind, guidance=2.0, seed=0, average=(mean, std)):
    """An embedding for each unseen caption, (pages, 128), by DDIM in 20 steps."""
    guided = samplers.guided(as_eps(model, kind, alpha_bar), null, guidance)
    x_T = torch.randn(len(unseen_c), x0.shape[1], generator=torch.Generator().manual_seed(seed))
    times = samplers.trailing_times(len(alpha_bar), 20)
    return to_embedding(samplers.finish(samplers.ddim(guided, x_T, alpha_bar, times, unseen_c)), *average)


def found(embeddings):
    """For each embedding, whether the nearest page is its own."""
    return ((embeddings @ I.T).argmax(1) == torch.arange(len(I))).tolist()


priors = {kind: fit_prior(loss) for kind, loss in (("x0", prior_loss), ("eps", text_loss))}
for kind, (model, losses) in priors.items():
    near = [sampled(model, kind, seed=seed) for seed in range(3)]
    own = torch.stack([(one * I).sum(1) for one in near])  # (3, pages)
    hits = torch.tensor([found(one) for one in near]).float().mean(0)
    print(
        f"predicting {kind}: {len(losses)} updates; cosine with the own page {own.mean():.2f} ± "
        f"{own.mean(0).std() / len(I) ** 0.5:.2f}, own page nearest {hits.mean():.2f} ± {hits.std() / len(I) ** 0.5:.2f}"
    )
print(
    f"another page with the caption: cosine {(I_redrawn * I).sum(1).mean():.2f}, own page nearest {rate(found(I_redrawn))}"
)

# %% [markdown] id="prior-why-text"
# Why? Compare what both know of $x_0$ at several times, on unseen pages. From a prediction of the noise,
# $\hat x_0 = (x_t - \sqrt{1 - \bar\alpha_t}\, \hat\varepsilon) / \sqrt{\bar\alpha_t}$. The numbers of $x_0$ have
# variance 1, so an error of 1 means that nothing is known.


# %% id="prior-why"
@torch.no_grad()
def x0_error(model, kind, level):
    """The mean squared error of x0 that a prediction implies, on the unseen pages at one time."""
    target, t = standardise(I, mean, std), torch.full((len(I),), level)
    x_t = add_noise(target, torch.randn(target.shape, generator=torch.Generator().manual_seed(0)), t, alpha_bar)
    predicted = model(x_t, t, unseen_c)
    x0_hat = predicted if kind == "x0" else x0_from_eps(x_t, predicted, t, alpha_bar)
    return (x0_hat - target).square().mean().item()


for level in (100, 500, 900, 999):
    errors = ", ".join(f"predicting {kind} {x0_error(model, kind, level):.3g}" for kind, (model, _) in priors.items())
    print(f"t = {level}, alpha_bar {alpha_bar[level]:.2g}: error of x0 when {errors}")

# %% [markdown] id="prior-read"
# After half a minute, sampling with the network that predicts $x_0$ finds the right page nearly always, and sampling
# with the other one hardly more often than chance. The second print says why. At low noise the prediction of the noise
# is even the better one. But at the end where sampling starts, $x_t$ is almost nothing but noise, and to compute $x_0$
# from it, what little is left is divided by $\sqrt{\bar\alpha_t}$; so is the error. A network that predicts $x_0$ can
# answer there from the caption alone. In latents of chapter 10 the same happens, but its schedule ends at
# $\bar\alpha_T = 0.005$, not at 2 in a billion, and $v$ needs no division. (Both networks were trained for a short time;
# the paper says only that predicting $x_0$ worked better.)
#
# ### The better of two
#
# The paper's prior samples two embeddings for each caption and keeps the one with the larger dot product with the
# *text* embedding. It is re-ranking again, as in section 3, but before anything is drawn.
#
# ### Exercise 9 · The better of two
#
# ●●○○○ · 8 minutes. `first`, `second` and `text` are unit vectors (batch, d). Return for each row whichever of the
# two has the larger dot product with the row of `text`, (batch, d). No ties occur.


# %% id="ex-better"
def better_of_two(first, second, text):
    """For each caption, whichever of two sampled embeddings is nearer to the text's: (batch, d)."""
    ### BEGIN SOLUTION
    #: a dot product for each row of both
    is_first = (first * text).sum(1) >= (second * text).sum(1)
    #: the choice is made for each row on its own
    return torch.where(is_first[:, None], first, second)
    ### END SOLUTION


# %% id="check-better"
better_of_two = check("13.better_of_two", better_of_two)

# %% [markdown] id="better-text"
# The shipped prior has six layers and was trained on 40,000 pages. One sample, the better of two, and for
# comparison what is nearest to the page itself: another page with its caption.

# %% id="better"
transformer = system.prior.transformer
average = transformer.clip_mean, transformer.clip_std
one, two = (sampled(system.prior, "x0", seed=seed, average=average) for seed in (0, 1))
rows = {"one sample": one, "the better of two": better_of_two(one, two, C), "another page": I_redrawn, "the text": C}
for name, embeddings in rows.items():
    to_text, to_page = (embeddings * C).sum(1), (embeddings * I).sum(1)
    print(
        f"{name:18} cosine with the text {to_text.mean():.2f}, with the page {to_page.mean():.2f} ± "
        f"{to_page.std() / len(I) ** 0.5:.2f}, own page nearest {rate(found(embeddings))}"
    )

# %% [markdown] id="better-read"
# The better of two is nearer to the text, as it must be, and no nearer to the page, as far as 100 pages can tell. Our
# prior's samples are about as near to a page as another page with the same caption is, so little is left to gain.
#
# ## 6 · The decoder: an image of the idea
#
# The decoder is a text-to-image diffusion model that is told one more thing. Ours is the U-Net of chapter 10, and the
# embedding enters it in two ways, as in the paper: projected to the width of the time embedding and *added to it*, and
# projected to **four more tokens** that stand behind the words, so that cross-attention can look at them.
#
# Both projections begin at zero, and LoRA layers of rank 16 in the U-Net, which at first change nothing (chapter 12),
# learn to use what comes in. `condition` appends the image embedding to the words' hidden states, or a vector of
# zeros for none. As long as there is none, the decoder draws exactly what the model of chapter 10 draws. With an
# embedding the four tokens, though still zero, take a share of the attention, so that the output changes a little
# even before training:

# %% id="decoder-start"
from course_utils.pipelines.editing import hidden_states
from course_utils.pipelines.picture_book import load_picture_book

painter = load_picture_book()
decoder = unclip.new_decoder(painter.unet, 128)
words = hidden_states(painter, [caption.text for caption in captions[:4]], 4)  # (4, S, 128)
dice = torch.Generator().manual_seed(0)
x_t, t = torch.randn(4, 8, 16, 16, generator=dice), torch.full((4,), 500)
with torch.no_grad():
    plain, untold = painter.unet(x_t, t, words).sample, decoder(x_t, t, condition(words, torch.zeros(4, 128)))
    told = decoder(x_t, t, condition(words, I[:4]))
for name, output in (("none", untold), ("of a page", told)):
    print(f"embedding {name}: largest difference to chapter 10's U-Net {(output - plain).abs().max():.1e}")
assert torch.allclose(untold, plain, atol=1e-5)
sizes = [sum(p.numel() for p in decoder.parameters() if p.requires_grad or every) for every in (False, True)]
print(f"{sizes[0]:,} of {sizes[1]:,} parameters are trained")

# %% [markdown] id="decoder-live-text"
# Train it for a minute. In half of the samples the caption is dropped, in a tenth the embedding, so that the decoder
# can draw from either alone and be guided (`unclip_loss`). We measure on fixed unseen pages, noises and times: the
# error in $v$ without any condition, and with the embedding of the page. **Predict first:** where will the embedding
# help more, at low noise or at high noise?
#
# <details><summary>Answer (after running the cell below)</summary>
# At high noise. At low noise the page itself can still be seen in $x_t$. At high noise, what is known about the page
# comes from the condition alone.
# </details>

# %% id="decoder-live"
from course_utils.diffusion.objectives import v_from_x0_eps
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.recipes.unclip import unclip_loss

table = alpha_bar_from_beta(scaled_linear_beta())
lesson_words = hidden_states(painter, said[0], len(lesson))  # (pages, S, 128)
nothing = hidden_states(painter, "", 1)  # (1, S, 128)
decoder.mean.copy_(mean)
decoder.std.copy_(std)


@torch.no_grad()
def errors_at(level, embedding):
    """The error in v on 32 unseen pages, all at one time, without a caption."""
    dice = torch.Generator().manual_seed(0)
    x0, t = unseen_latents[:32], torch.full((min(32, len(unseen_latents)),), level)
    eps = torch.randn(x0.shape, generator=dice)
    v = decoder(add_noise(x0, eps, t, table), t, condition(nothing.expand(len(x0), -1, -1), embedding[: len(x0)]))
    return (v - v_from_x0_eps(x0, eps, t, table)).square().mean().item()


def print_errors(when):
    for level in (100, 500, 900):
        without, told = errors_at(level, torch.zeros_like(I)), errors_at(level, I)
        print(f"{when}, t = {level}: error without anything {without:.3f}, with the embedding {told:.3f}")


print_errors("before")
trained = [p for p in decoder.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.99), weight_decay=0.0)

# %% [markdown] id="decoder-train-text"
# The training, with a live loss.

# %% id="decoder-train"
dice, losses, begun, done = torch.Generator().manual_seed(0), [], time.perf_counter(), 0.0
live = LivePlot(
    "The loss of the decoder: noisy and nearly flat, since it varies more with the noise level than it improves.",
    seconds=5,
)
while done < 1:
    optimizer.param_groups[0]["lr"] = 2e-3 * min((len(losses) + 1) / 20, 1 - done)
    some = torch.randint(len(lesson), (8,), generator=dice)
    t, eps = torch.randint(1000, (8,), generator=dice), torch.randn(8, 8, 16, 16, generator=dice)
    chance = torch.rand(8, 2, generator=dice)
    loss = unclip_loss(decoder, latents[some], lesson_words[some], nothing, lesson_I[some], t, eps, chance, table)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    losses.append(loss.item())
    live.update(len(losses), losses[-1])
    done = (time.perf_counter() - begun) / budget(smoke=0.5, laptop=60, gpu=120)
live.finish()
print(f"{len(losses)} updates")
print_errors("after")
gain = {level: errors_at(level, torch.zeros_like(I)) - errors_at(level, I) for level in (100, 900)}
if budget(smoke=False, laptop=True, gpu=True):
    assert gain[900] > max(0, gain[100])

# %% [markdown] id="ways-text"
# ### Five ways to the same page
#
# Now the shipped decoder. We draw 32 unseen captions in five ways, from the same noises: with the embedding of the true
# page, without and with the caption; with an embedding from the prior, without and with the caption; and with the
# caption's *text* embedding in the place where an image embedding belongs. **Predict first:** which way follows its
# captions most often, and which least?
#
# <details><summary>Answer (after running the cell below)</summary>
# With the caption nearly all images follow it, whichever embedding they are drawn from. From an embedding alone it is
# 0.34 to 0.41, and there 32 images do not tell which embedding is the best.
# </details>


# %% id="paint"
def paint(embeddings, prompts, noise):
    """Images (n, 3, 64, 64) of embeddings (n, 128), drawn from noise in batches of 16."""
    prompts = [prompts] * len(noise) if isinstance(prompts, str) else prompts
    parts = [slice(first, first + 16) for first in range(0, len(noise), 16)]
    return torch.cat([unclip.draw_embeddings(system, embeddings[p], noise[p], prompts[p]) for p in parts])


# %% id="ways" tags=["static"]
WAYS = min(len(pages), budget(smoke=2, laptop=32, gpu=100))
asked = [caption.text for caption in captions[:WAYS]]
dice = [torch.Generator().manual_seed(number) for number in range(WAYS)]  # one for each image
x_T = unclip.first_noise(system, WAYS, dice)
imagined = unclip.imagine(system, asked, dice)
ways = {
    "page's embedding": (I[:WAYS], ""),
    "page's and caption": (I[:WAYS], asked),
    "prior's embedding": (imagined, ""),
    "prior's and caption": (imagined, asked),
    "text embedding": (C[:WAYS], ""),
}

painted = {name: paint(*how, x_T) for name, how in ways.items()}
right = {name: followed(judge, images, captions[:WAYS]) for name, images in painted.items()}
for name, truths in right.items():
    print(f"{name:20} followed {rate(truths)} (n = {WAYS})")
FEW = min(8, WAYS)
show(
    plot_pictures(
        torch.cat([pages[:FEW], *(images[:FEW] for images in painted.values())]), columns=FEW, rows=["page", *painted]
    ),
    "Six rows: unseen pages, and what the decoder draws from the page's embedding, from the prior's, and from the text's.",
)

# %% [markdown] id="ways-read"
# Look at the rows that were drawn without captions. The setting is right nearly always, often also the colours, and
# the things are often other things. The decoder began as a model that follows words, and in half of the samples it
# still gets them. In 0.6 hours of training it has learned to *add* what an embedding says, not yet to do without words.
# The prior is not what limits this system: its embeddings do as well as those of true pages. And the *text's* embedding,
# of a kind which the decoder never saw in training, does no worse: for our embedder a caption and its pages are close
# (0.88). In the paper's comparison (its figure 8), with another CLIP, the prior's embeddings gave better images than the
# text's.
#
# ### Does the text set the start?
#
# You will read that in Stable Diffusion "the text embedding determines the starting distribution". It does not:
# drawing starts from standard normal noise whatever the prompt, and the text enters at every step through
# cross-attention. *Here* the text does set a prior, but over embeddings, and its samples are conditions, not starting
# points. Both stages start from noise that is drawn before any caption is read; two captions give two images from the
# same noise:

# %% id="start" tags=["static"]
two_captions = ["a red car in the desert", "a cat on the beach"]


def same_dice():
    return [torch.Generator().manual_seed(7) for _ in two_captions]


start = unclip.first_noise(system, 2, same_dice())
ideas = unclip.imagine(system, two_captions, same_dice())
drawn = unclip.draw_embeddings(system, ideas, start, two_captions)
print(f"the noises that the decoder starts from are equal: {torch.equal(start[0], start[1])}")
print(f"mean {start[0].mean():.2f}, standard deviation {start[0].std():.2f}")
print(f"cosine of the two embeddings: {(ideas[0] @ ideas[1]).item():.2f}")
show(plot_pictures(drawn, two_captions, columns=2), "Two different images that were drawn from the same noise.")
assert torch.equal(start[0], start[1]) and (drawn[0] - drawn[1]).abs().mean() > 0.1

# %% [markdown] id="only-text"
# ## 7 · What only this can do
#
# ### Variations
#
# Any image has an embedding. Draw it again from fresh noise, without a caption, and you get **variations**: what the
# embedding says stays, the rest is drawn freely. So they show what the decoder reads in it. **Predict first:** what
# stays most often, the kinds of things, their colours, the setting, or where they stand?
#
# <details><summary>Answer (after running the cells below)</summary>
# The setting, in 95% of 96 variations. The kinds of things are all the same in 43% only; where they are, their colours are
# too in 90%. A thing moves by 7 pixels on average: the embedding says little about where things stand.
# </details>

# %% id="vary" tags=["static"]
VARIED, EACH = min(len(pages), budget(smoke=2, laptop=16, gpu=40)), budget(smoke=2, laptop=6, gpu=8)
varied = torch.stack(
    [unclip.vary(system, pages[n : n + 1], EACH, torch.Generator().manual_seed(n)) for n in range(VARIED)]
)  # (pages, each, 3, 64, 64)
FEW = min(4, VARIED)
show(
    plot_pictures(
        torch.cat([torch.cat([pages[n : n + 1], varied[n]]) for n in range(FEW)]),
        columns=EACH + 1,
        heads=["page"] + [""] * EACH,
    ),
    "Four rows: a page at the left, and six variations of it.",
)

# %% [markdown] id="vary-count-text"
# What the judge reads in the variations, compared with what it reads in the page:

# %% id="vary-count"
from course_utils.models.judge import read


def in_common(verdict, other):
    """What two readings have in common: kinds, colours (None for other kinds), setting, style, and the distance."""
    mine, theirs = (sorted(v.findings, key=lambda f: (f.kind, f.x)) for v in (verdict, other))
    kinds = [f.kind for f in mine] == [f.kind for f in theirs]
    far = [math.hypot(a.x - b.x, a.y - b.y) for a, b in zip(mine, theirs)] if kinds else []
    colours = [f.colour for f in mine] == [f.colour for f in theirs] if kinds else None
    return kinds, colours, verdict.place == other.place, verdict.style == other.style, far


readings = read(judge, pages[:VARIED])
for against, turn in (("its own page", 0), ("another page", 1)):
    common = [
        in_common(verdict, readings[(n + turn) % VARIED])
        for n, images in enumerate(varied)
        for verdict in read(judge, images)
    ]
    for name, values in zip(("kinds", "colours", "setting", "style"), zip(*common)):
        known = [value for value in values if value is not None]
        print(f"{against}: same {name} {rate(known)} (n = {len(known)})")
    distances = [d for *_, far in common for d in far]
    print(f"{against}: a thing is {sum(distances) / max(1, len(distances)):.1f} pixels away (n = {len(distances)})")

# %% [markdown] id="slide-text"
# (Six variations of a page are not independent, so the printed errors are too small.) Most variations are of the same
# setting in the same colours, with another thing or another number of things in more than half of them. What stays is
# what the decoder *reads* in the embedding, which is less than what it holds: section 5 told 16 pages of one setting and
# style apart by it. Unrelated pages have next to nothing in common.
#
# ### From one image to another
#
# Between two embeddings lies an arc of the unit sphere, along which slerp (chapter 12) goes at a constant speed. Draw
# its points from *one* noise, so that nothing else changes. **Predict first:** halfway between a page with a cat and
# one with a car, will there be something between a cat and a car?
#
# <details><summary>Answer (after running the cell below)</summary>
# There is, in a sense: an animal with the blue of the car, on its four wheels' place, until the car appears. The judge has no
# word for such a thing and calls it a cat, or nothing.
# </details>

# %% id="slide" tags=["static"]
ENDS = (("cat", "grass", "car", "grass"), ("ball", "beach", "ball", "forest"), ("boat", "night", "tree", "snow"))
ENDS, ALONG = ENDS[: budget(smoke=1, laptop=3, gpu=3)], budget(smoke=3, laptop=7, gpu=9)
rows = []
for number, (kind, place, other, there) in enumerate(ENDS):
    ends = book.pictures([book.Scene((book.Thing(k),), p, 5) for k, p in ((kind, place), (other, there))])
    rows.append(unclip.slide(system, ends[:1], ends[1:], ALONG, torch.Generator().manual_seed(number)))
show(
    plot_pictures(torch.cat(rows), columns=ALONG, rows=[f"{a}, {b} to {c}, {d}" for a, b, c, d in ENDS]),
    "Three rows, each with seven images along the arc from the embedding of one page to that of another.",
)
for row in rows:
    print("the judge sees: " + ", ".join("+".join(f.kind for f in v.findings) or "nothing" for v in read(judge, row)))

# %% [markdown] id="slide-read"
# Every image on the way is a plausible page, since the decoder was trained on nothing else. In the second row only the
# setting has to change, and it does at once rather than gradually: halfway between beach and forest there is grass. In
# the third row the setting changes before the thing does. A mixture of pixels would show two half transparent pages.
#
# ### Text diffs
#
# The direction from one caption to another also leads from image to image. A **text diff** turns the embedding of a
# given image towards what is new in a caption:
#
# $$\delta_\text{text} = \frac{C_\text{after} - C_\text{before}}{\lVert C_\text{after} - C_\text{before} \rVert}, \qquad
#   I_\xi = \text{slerp}(I, \delta_\text{text}, \xi)$$
#
# In words: the share $\xi$ of the angle from $I$ to the direction of the difference. The paper lets $\xi$ grow from 0
# to between 0.25 and 0.5; at 1 nothing is left of the image. There the noise is that which DDIM inversion finds in
# the image, so that $\xi = 0$ gives the image back; we take fresh noise, and $\xi = 0$ gives a variation.
#
# ### Exercise 10 · Text diffs
#
# ●●●○○ · 15 minutes. `embedding` is (n, d), `text_before` and `text_after` are both (n, d) or both
# (1, d); all rows are unit vectors. `share` is a
# number or (n,). Return unit vectors (n, d). `slerp(a, b, share)` wants `a` and `b` of one shape.

# %% id="ex-diff"
from course_utils.diffusion.editing import slerp


def text_diff(embedding, text_before, text_after, share):
    """Image embeddings (n, d), turned towards what is new in a caption."""
    ### BEGIN SOLUTION
    #: the direction of the difference, one row for each embedding
    direction = F.normalize(text_after - text_before, dim=1).expand_as(embedding)
    #: along the arc; rounding may have changed the length a little
    return F.normalize(slerp(embedding, direction, share), dim=1)
    ### END SOLUTION


# %% id="check-diff"
text_diff = check("13.text_diff", text_diff)

# %% [markdown] id="diff-text"
# Your function on unseen pages with one thing: its kind is to become another. We try several shares, always from the
# same noise, and count how often the judge sees the new kind, and how often the place of the page is kept.

# %% id="diff" tags=["static"]
SHARES = budget(smoke=(0.0, 0.4), laptop=(0.0, 0.15, 0.3, 0.45, 0.6), gpu=(0.0, 0.15, 0.3, 0.45, 0.6))
chosen = [n for n in range(len(unseen)) if len(unseen[n].things) == 1][: budget(smoke=1, laptop=12, gpu=24)]
kinds = sorted(book.SUBJECTS)
sheet, titles, became, kept = [], [], {share: [] for share in SHARES}, {share: [] for share in SHARES}
for row, n in enumerate(chosen):
    scene, new = unseen[n], kinds[(row * 5) % len(kinds)]
    new = new if new != scene.things[0].kind else kinds[(row * 5 + 1) % len(kinds)]
    goal = replace(scene, things=(replace(scene.things[0], kind=new, pose=None),))
    _, both = unclip.embed_prompts(system, [book.caption(scene).text, book.caption(goal).text])
    turned = text_diff(I[n : n + 1].expand(len(SHARES), -1), both[:1], both[1:], torch.tensor(SHARES))
    noise = unclip.first_noise(system, 1, torch.Generator().manual_seed(n)).expand(len(SHARES), -1, -1, -1)
    images = unclip.draw_embeddings(system, turned, noise)
    for share, verdict in zip(SHARES, read(judge, images)):
        became[share].append([f.kind for f in verdict.findings] == [new])
        kept[share].append(verdict.place == scene.place)
    sheet.append(images)
    titles += [f"{scene.things[0].kind} to {new}"] + [f"{share}" for share in SHARES[1:]]
for share in SHARES:
    print(
        f"share {share}: the new kind {rate(became[share])}, the page's place {rate(kept[share])} (n = {len(chosen)})"
    )
show(
    plot_pictures(torch.cat(sheet[:3]), titles[: 3 * len(SHARES)], columns=len(SHARES)),
    "Rows of images: a page's embedding, turned further and further towards the caption with another thing.",
)

# %% [markdown] id="diff-read"
# At a share of 0.3 two thirds of the images show the new thing, and all of them the setting of the page; at 0.6 the
# setting begins to be lost. (Without any turn, at 0, the embedding alone gives back the setting in 10 of 12.) With
# twelve pages the errors are large, but what a turn does is visible: the same embedding, moved by a direction that
# was computed from words only.
#
# ### What it cannot do: binding
#
# The paper's own example: asked for a red cube on top of a blue cube, unCLIP often mixes up the colours. The authors
# suspect CLIP's embedding, which may not say *which* thing has which colour: in its training hardly two captions of a
# batch differ in just this (chapter 08). We test it with captions of two things in two colours, with the embeddings of
# true pages, with the prior's, with the prior's and the caption, and with chapter 10's model.
# **Predict first:** does the caption, told to the decoder, repair what the embedding does not say?
#
# <details><summary>Answer (after running the cells below)</summary>
# Yes. From embeddings alone, even those of true pages, both things are there in 2 of 32 images at most, and no caption is
# followed. With the caption 0.88 ± 0.06 are followed; chapter 10's model alone follows 0.84 ± 0.07, which is the same
# within the errors.
# </details>

# %% id="painters"
from course_utils.data.images import to_tensor


def dice_of(count):
    """A generator for each image, with the seeds 0, 1, ..."""
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def draw_plain(prompts):
    """Images (n, 3, 64, 64) by the model of chapter 10, from the same first noises as the decoder's."""
    how = dict(num_inference_steps=20, guidance_scale=4.0, generator=dice_of(len(prompts)))
    return to_tensor(painter(prompts, **how).images)


# %% [markdown] id="binding-draw-text"
# Captions of two things in two colours, in the picture book's own style, and without left and right:

# %% id="binding"
BOUND = budget(smoke=2, laptop=32, gpu=200)
pairs, pair_scenes, number = [], [], 0
while len(pairs) < BOUND:
    scene = replace(book.sample_scene(number, 2, "all"), style="picture book")
    number += 1
    coloured = {thing.colour for thing in scene.things}
    if len({thing.kind for thing in scene.things}) < 2 or len(coloured) < 2 or None in coloured:
        continue
    wish = next((c for c in (book.caption(scene, k) for k in range(40)) if c.relation is None), None)
    if wish is not None:
        pairs.append(wish)
        pair_scenes.append(scene)
print(f"{len(pairs)} captions, such as “{pairs[0].text}”")

# %% [markdown] id="binding-four-text"
# In four ways, from the same noises. The first row uses the embeddings of true pages, so that no fault of the prior
# is in it.

# %% id="binding-four"
asked = [wish.text for wish in pairs]
dice = dice_of(BOUND)
x_T = unclip.first_noise(system, BOUND, dice)
ideas = unclip.imagine(system, asked, dice)
images = {
    "page's embedding": paint(unclip.embed_pictures(system, book.pictures(pair_scenes)), "", x_T),
    "prior's embedding": paint(ideas, "", x_T),
    "prior's and caption": paint(ideas, asked, x_T),
    "chapter 10": draw_plain(asked),
}

# %% [markdown] id="binding-look-text"
# `swapped` is true if both things are there, each in the colour of the other:


# %% id="binding-look" tags=["static"]
def swapped(verdict, wish):
    (one, other), found = wish.things, {f.kind: f.colour for f in verdict.findings}
    return found == {one.kind: book.seen_colour(other), other.kind: book.seen_colour(one)}


for name, drawn in images.items():
    verdicts = read(judge, drawn)
    both = [{f.kind for f in v.findings} == {t.kind for t in wish.things} for v, wish in zip(verdicts, pairs)]
    exchanged = [swapped(v, wish) for v, wish in zip(verdicts, pairs)]
    right = followed(judge, drawn, pairs)
    print(f"{name:20} followed {rate(right)}, both kinds there {rate(both)}, colours swapped {rate(exchanged)}")
FEW = min(6, BOUND)
show(
    plot_pictures(
        torch.cat([drawn[:FEW] for drawn in images.values()]), columns=FEW, heads=asked[:FEW], rows=list(images)
    ),
    "Four rows for the same captions of two coloured things: from the page's and from the prior's embedding, with the caption, "
    "and by chapter 10.",
)

# %% [markdown] id="binding-read"
# The failure looks different here. Colours are never swapped; from an embedding alone our decoder hardly ever draws both
# of the things that the page shows, so that there is little to bind. Where a caption is given, the words do the binding, as in chapter
# 10: the embedding neither helps nor harms, as far as 32 captions can tell.

# %% [markdown] id="systems-text"
# ## 8 · Three systems, side by side
#
# Three ways to an image are now in your hands, all on the same picture book: words to **codes** (DALL·E), words to an
# **embedding** to latents (DALL·E 2), words to **latents** (Stable Diffusion). `python3 course.py generate "a cat in
# the forest" --system dalle` (or `unclip`, or `stable-diffusion`) draws with each of them. Here are the same eight
# captions:

# %% id="systems" tags=["static"]
eight = [caption.text for caption in captions[:SOME]]
three = {
    "DALL·E": pipe(eight),
    "DALL·E 2": unclip.draw(system, eight, dice_of(SOME)),
    "Stable Diffusion": draw_plain(eight),
}
show(
    plot_pictures(torch.cat(list(three.values())), columns=SOME, heads=eight, rows=list(three)),
    "Three rows for the same captions: DALL·E, DALL·E 2 and Stable Diffusion, each in miniature.",
)

# %% [markdown] id="systems-table-text"
# For numbers more prompts are needed than a lesson has time for: `python3 course.py benchmark systems` draws the same
# 200 frozen prompts with each, in six tasks named after GenEval's
# ([arXiv:2310.11513](https://arxiv.org/abs/2310.11513)). Its results are kept beside the weights:

# %% id="systems-table"
import json

from course_utils.pipelines.picture_book import CHECKPOINTS

measured = json.loads((CHECKPOINTS / "manifest.json").read_text(encoding="utf-8"))["systems"]["rows"]
for row in measured:
    followed_all = "{percent}% ({from} to {to}, n = {n})".format(**row["followed"])
    print(f"{row['system']}: followed {followed_all}; FID {row['FID']}, diversity {row['diversity']}")
    print("   " + ", ".join(f"{task} {share['percent']}%" for task, share in row["tasks"].items()))
    if "numbers" in row:
        print(
            f"   {row['numbers']:,} parameters, {row['hours']} processor hours, {row['seconds a picture']} s an image"
        )

# %% [markdown] id="systems-read"
# Stable Diffusion and DALL·E 2 follow 96% and 92% of the prompts, and their intervals overlap. DALL·E follows 41%: it draws
# single things and their colours well (71% and 73%), and fails where several have to be placed (18% with two objects,
# 18% with left and right). The FID says the same of the looks, 3.1 against 0.3. In return it needs 0.07 seconds an image, a
# tenth of the others, a third of their parameters, and a quarter of the processor hours of training.
#
# What would scale change? The originals had hundreds of millions of image–caption pairs:
#
# | | parameters | training pairs | FID on MS-COCO, zero-shot, 256 × 256 |
# |:--|--:|--:|--:|
# | DALL·E ([arXiv:2102.12092](https://arxiv.org/abs/2102.12092)) | 12 billion | 250 million | about 28 |
# | DALL·E 2 ([arXiv:2204.06125](https://arxiv.org/abs/2204.06125)) | 1 billion (prior) + 3.5 billion (decoder) + upsamplers | 250 million (CLIP: 650 million) | 10.39 |
# | latent diffusion ([arXiv:2112.10752](https://arxiv.org/abs/2112.10752)) | 1.45 billion | 400 million | 12.63 |
#
# (The FID of DALL·E is that which the DALL·E 2 paper states in its table of comparisons.) These models differ in
# size, data and guidance at once, so the table does not tell which *idea* is best, and neither does ours: the three
# systems here share pages, captions, autoencoder and judge, but not the processor time of their training. And our
# DALL·E 2 contains the Stable Diffusion model: its skill in drawing, and a part of its binding, are inherited.

# %% [markdown] id="elsewhere"
# ## 9 · What you will read elsewhere
#
# **"DALL·E 2 and 3 are transformers that write image tokens."** Only the first one is. DALL·E 2 is a diffusion prior
# (a transformer inside, but one that removes noise), a diffusion decoder and two diffusion upsamplers. The paper also
# tried a prior that writes the *embedding* as tokens, and kept the diffusion prior. OpenAI's report on DALL·E 3
# (Betker et al. 2023, "Improving Image Generation with Better Captions") is about the captions that it was trained
# on; the models of its experiments are diffusion models too. The difference can be seen in your two systems. A
# sampler that writes tokens in raster order cannot revise. In which of them does the upper left corner change after
# it was first drawn?

# %% id="corner" tags=["static"]
prompt = [captions[0].text]
generator = [torch.Generator().manual_seed(0)]
cond = condition(hidden_states(system.pipe, prompt, 1), unclip.imagine(system, prompt, generator))
times = samplers.trailing_times(1000, 20)
model = as_eps(system.decoder, "v", table)
steps = list(samplers.ddim(model, unclip.first_noise(system, 1, generator), table, times, cond))
looks = images_of(torch.cat([step.x0_hat for step in steps]))
corner = looks[:, :, :8, :8]
moved = (corner[1:] - corner[:-1]).abs().mean((1, 2, 3)) * 127.5
print("the corner's change in each step of DALL·E 2, grey levels: " + " ".join(f"{value:.0f}" for value in moved))
show(
    plot_pictures(looks[[0, 3, 6, 9, 14, 19]], columns=6),
    "Six predictions of the clean image on the way from noise to the image.",
)
assert moved[:10].mean() > 1

# %% [markdown] id="elsewhere-2"
# **"The prior makes the start noise."** Section 6 showed two captions drawn from one and the same noise. What the prior
# samples is a vector of 128 numbers; the decoder starts from 2,048 numbers of noise that know nothing of the caption.
#
# **"VQ-VAE is a diffusion model"**, or "generates images". Neither is true: there is no time and no noise in it, and
# from the same codes it always decodes the same image. What makes images is the model *of the codes*. Random codes do
# not decode to a page:

# %% id="random-codes" tags=["static"]
dice = torch.Generator().manual_seed(0)
shuffled = torch.stack([page[torch.randperm(len(page), generator=dice)] for page in shipped[:4]])
trials = {
    "random codes": torch.randint(config.codes, (4, config.places), generator=dice),
    "a page's codes, shuffled": shuffled,
    "a page's codes": shipped[:4],
}
looks = {name: pictures.to_pictures(codes) for name, codes in trials.items()}
show(
    plot_pictures(torch.cat(list(looks.values())), columns=4, rows=list(looks)),
    "Three rows: random codes and shuffled codes decode to patches of colour, the codes of pages to pages.",
)

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $\arg\min_j \lVert z - e_j \rVert^2$ | `nearest_code(z, codebook)` |
# | $z + \text{sg}(z_q - z)$ | `straight_through(z, z_q)` |
# | $N_j \leftarrow \rho N_j + (1-\rho) n_j$, $e_j = m_j / N_j$ | `update_codebook(counts, sums, z, codes, fresh)` |
# | $\sum_i (\text{number}_i + \lfloor \Lambda_i/2 \rfloor) \prod_{i'<i} \Lambda_{i'}$ | `fsq(z, levels)` |
# | $\tfrac18$ of the text's cross-entropy $+ \tfrac78$ of the codes' | `dalle_loss` |
# | attention of new tokens to all so far | `cached_attention(q, k, v, cache)` |
# | the fewest codes with a probability of $p$ together | `filter_logits(logits, top_p=p)` |
# | $\lVert x_0 - \hat x_0(x_t, t, c) \rVert^2 / d$ | `prior_loss` |
# | the sample that is nearer to the text | `better_of_two(first, second, text)` |
# | $\text{slerp}(I, \delta_\text{text}, \xi)$ | `text_diff(embedding, before, after, share)` |
#
# Five sentences to keep: Once an image is a sequence of whole numbers, it can be modelled like a text; what the tokens
# lose, no model of the tokens brings back. A code that nobody chooses cannot learn; restarts or a fixed grid bring many
# more codes into use. A key–value cache trades memory for time and
# leaves the logits as they are. DALL·E 2 splits drawing into an idea and its
# execution; what the decoder cannot read in the idea has to come from the words. A prior over
# embeddings is not a prior over noise.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. You double the codebook from 2,048 to 4,096 codes. What becomes better, and what becomes harder?</summary>
# Each token can say one bit more, so reconstructions can improve. The transformer has twice as many classes at each
# place, each with half as many examples, and codes die more easily. Doubling the number of tokens would add eleven bits
# for each new token, at the price of a longer sequence.
# </details>
# <details><summary>2. Could the cache be used while training?</summary>
# It would save nothing. In training all tokens are known, and one pass with the causal mask computes the logits of all
# places at once; each key and value is computed once already.
# </details>
# <details><summary>3. A variation of a page with text on a sign shows a sign with other letters. Why?</summary>
# CLIP's embedding says that there is a sign, but hardly which letters. Where the embedding is silent, the decoder draws
# what its training makes likely. Variations are a way to see what an embedding does not say.
# </details>
#
# **Papers** VQ-VAE: van den Oord et al., [arXiv:1711.00937](https://arxiv.org/abs/1711.00937). Restarts: Dhariwal et
# al., [arXiv:2005.00341](https://arxiv.org/abs/2005.00341). Gumbel-softmax: Jang et al.,
# [arXiv:1611.01144](https://arxiv.org/abs/1611.01144). FSQ: Mentzer et al.,
# [arXiv:2309.15505](https://arxiv.org/abs/2309.15505). DALL·E: Ramesh et al.,
# [arXiv:2102.12092](https://arxiv.org/abs/2102.12092). Top-p: Holtzman et al.,
# [arXiv:1904.09751](https://arxiv.org/abs/1904.09751). Guidance on logits (Make-A-Scene): Gafni et al.,
# [arXiv:2203.13131](https://arxiv.org/abs/2203.13131). DALL·E 2: Ramesh et al.,
# [arXiv:2204.06125](https://arxiv.org/abs/2204.06125).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: an order of your own
#
# `causal_mask` and raster order are choices. Train the small transformer on codes in another order, from the middle
# outwards or all even places first, and measure the loss of section 2 after the same time. Masked models (MaskGIT,
# [arXiv:2202.04200](https://arxiv.org/abs/2202.04200)) go further: they fill in many positions in each pass, and need
# about eight passes for 256 tokens. Replace the causal mask by none, hide a random share of the codes behind one
# extra code, and predict the hidden ones. How many passes do you need for images that the judge can read?
