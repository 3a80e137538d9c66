# %% [markdown] id="title"
# # 05 · Forward diffusion
#
# Turning noise into a cat is hard. Turning a cat into noise is easy. This chapter does the easy half so precisely that
# the hard half becomes something a network can learn: chapter 06 trains one on nothing but what you build here.
#
# ![A spiral of points, a photograph of a cat and a drawn corgi, each dissolving into noise from left to
# right.](../chapters/figures/forward_diffusion.png)
#
# **After this chapter you can**
# 1. take one step of the forward process, jump to any step at once, and show that both give the same distribution;
# 2. build the cosine schedule, compare it with two others in common use, and read off where signal and noise are equal;
# 3. say in bits how far the end is from pure noise, and what a model gets wrong because of it.
#
# **Time** 60 minutes of reading, 60 of exercises; all cells take about half a minute on a CPU. There is nothing to
# train, so a GPU makes no difference. **You need** chapter 00, and what a normal distribution is.

# %% id="set-up"
import math

import matplotlib.pyplot as plt
import torch

from course_utils.data import digits, photos, picture_book, points
from course_utils.diffusion import schedules
from course_utils.exercises import check, hint, progress, solution
from course_utils.plotting import plot_pictures, plot_points, show, use_style
from course_utils.shapes import expand_like

use_style()
print("Device: cpu. This chapter trains nothing, so it does not use a GPU.")

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $x_0$ | `x0` | a clean image, or a clean point | (batch, ...) |
# | $x_t$, $x_T$ | `x_t` | the same after step $t$, noisy; after the last step | as `x0` |
# | $\varepsilon$ | `eps` | standard normal noise | as `x0` |
# | $T$ | `T` | the number of steps | 1000 |
# | $t$ | `t` | the step: 1 ... T in papers, **0 ... T−1 in code** | (batch,) |
# | $\beta_t$ | `beta[t]` | the variance of the noise that step $t$ adds | `beta`: (T,) |
# | $\alpha_t$ | `1 - beta[t]` | the share of the variance that step $t$ keeps | |
# | $\bar\alpha_t$ | `alpha_bar[t]` | the share that all steps up to $t$ keep | `alpha_bar`: (T,) |
# | $\text{SNR}_t$ | `snr(alpha_bar)` | signal-to-noise ratio, of variances: $\bar\alpha_t/(1-\bar\alpha_t)$ | (T,) |
# | $\tilde\sigma_t$ | `sigma` | the noise-to-signal ratio, of standard deviations: $1/\sqrt{\text{SNR}_t}$ | (T,) |
# | $f(t)$ | `f` | the cosine schedule's curve, at the paper's $t = 0$ ... $T$ | (T + 1,) |
# | $\mathcal{N}(\mu, \sigma^2)$ | `torch.randn` | the normal distribution with mean $\mu$ and variance $\sigma^2$ | |
# | $\mathcal{N}(\mu, \sigma^2 I)$ | | the same for each value, independently ($I$: identity matrix) | |
# | $q(x_t \mid x_0)$ | | the distribution of $x_t$ for a given $x_0$; $q(x_t)$: over all images | |
# | $\text{Var}(x)$, $\text{KL}$ | `x.var()`, `kl_to_normal` | variance; Kullback–Leibler divergence (section 6) | |
# | $d_x$ | `x0[0].numel()` | the number of values in an image, its dimension | a number |
# | $k$ | 6 | the side of the blocks that section 7 averages over | a number |
#
# Read $\bar\alpha$ as "alpha bar". `beta[0]` is the paper's $\beta_1$; the clean image is the paper's $t = 0$ and
# has no index in code.

# %% [markdown] id="toy"
# ## A shape dissolves
#
# We start with something smaller than an image: 1,200 points on a spiral. The colour of a point tells where it started,
# from left (violet) to right (yellow), and never changes, so that you can follow it. Give every point a small random
# push, again and again, a thousand times.
#
# **Predict first.** What will the cloud look like after 10 pushes, after 100, after 1,000? Does it settle?
#
# <details><summary>Answer (after running the cell below)</summary>
# After 10 pushes the gap between the arms is nearly closed, after 100 the spiral is gone: fine structure disappears
# before coarse structure. But the cloud does not settle. Variances of independent things add up, so every push adds 0.01 to
# the variance, and it keeps growing. The cloud also keeps a trace of where the points came from: on the left it is
# still darker than on the right.
# </details>


# %% id="naive" tags=["static"]
def likeness(a, b):
    """The correlation of two tensors: 1 for the same, near 0 for unrelated ones."""
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]


generator = torch.Generator().manual_seed(5)
spiral = points.swiss_roll(1200, generator)  # (1200, 2), variance about 1

x, frames = spiral, {0: spiral}
for step in range(1, 1001):
    x = x + 0.1 * torch.randn(x.shape, generator=generator)  # a push of variance 0.01
    if step in (10, 100, 1000):
        frames[step] = x

figure, axes = plt.subplots(1, 4, figsize=(9, 3.1), sharey=True)
for ax, (step, cloud) in zip(axes, frames.items(), strict=True):
    plot_points(cloud, spiral[:, 0], f"{step} pushes\nvariance {cloud.var():.2f}", reach=9, ax=ax).label_outer()
show(figure, "The spiral blurs, then becomes a cloud, and the cloud keeps growing.")
print(f"correlation of where points are with where they came from: {likeness(spiral[:, 0], x[:, 0]):.2f}")

# %% [markdown] id="naive-read"
# The variance, printed above each panel, keeps growing: every push adds its 0.01. And even after a thousand pushes the
# place of a point still tells a little about where the point came from: the printed correlation is far from 0. Both
# change in section 1, where everything shrinks a little towards the middle before each push.

# %% [markdown] id="step-text"
# ## 1 · One small step
#
# $$x_t = \sqrt{1 - \beta_t}\; x_{t-1} + \sqrt{\beta_t}\; \varepsilon, \qquad \varepsilon \sim \mathcal{N}(0, I)$$
#
# In words: the new image $x_t$ is the old one $x_{t-1}$, multiplied by $\sqrt{1-\beta_t}$, plus standard normal noise
# $\varepsilon$ multiplied by $\sqrt{\beta_t}$.
#
# Why the roots? Multiplying by a number multiplies the variance by its square. So if $x_{t-1}$ has variance 1, then
# $x_t$ has variance $(1-\beta_t)\cdot 1 + \beta_t \cdot 1 = 1$. Think of a fixed budget of variance: the noise gains
# what the image loses.
#
# Papers write the same as $q(x_t \mid x_{t-1}) = \mathcal{N}(\sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I)$: the distribution
# $q$ of $x_t$ when $x_{t-1}$ is given. The identity matrix $I$ says that each number gets independent noise. It is a
# *Markov* step: given $x_{t-1}$, nothing before it matters. By hand, for one pixel:

# %% id="step-by-hand"
pixel, push, beta_t = 0.8, -1.3, 0.02

kept = math.sqrt(1 - beta_t) * pixel
added = math.sqrt(beta_t) * push
print(f"kept {kept:.4f} + added {added:.4f} = {kept + added:.4f}")
print(f"variance budget: {math.sqrt(1 - beta_t) ** 2:.2f} + {math.sqrt(beta_t) ** 2:.2f} = 1")

# %% [markdown] id="step-exercise"
# ### Exercise 1 · One step
#
# **Difficulty** ●○○○○ **Minutes** 5. The rest of the chapter builds on this line.
#
# Replace the `raise` line in the first cell below, run both cells, and read what the second one prints. `beta_t` may be
# a Python number or a tensor with one element; `** 0.5` takes the root of either. If you are stuck, remove the `#`
# before `hint`; each call reveals a little more. The chapter always goes on: until your version is right, the course's
# own is used in its place. All answers are in the [solved notebook](../solutions/05_forward_diffusion.ipynb).


# %% id="forward-step"
def forward_step(x_before, eps, beta_t):
    """x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps; x_before, eps and x_t: (batch, ...), beta_t: a number."""
    ### BEGIN SOLUTION
    #: the factor of what was there before
    signal = (1 - beta_t) ** 0.5
    #: the factor of the noise
    noise = beta_t**0.5
    #: their sum
    return signal * x_before + noise * eps
    ### END SOLUTION


# %% id="forward-step-check"
forward_step = check("05.forward_step", forward_step)
# hint("05.forward_step")

# %% [markdown] id="chain-text"
# Now take a thousand of your steps. The betas grow from 0.0001 to 0.02 in a straight line: tiny steps while there is
# fine detail to lose, larger ones later. This is the *linear schedule* of the paper on denoising diffusion
# probabilistic models (DDPM).


# %% id="chain" tags=["static"]
def chain(x, beta, generator):
    """Take one step for each beta, and yield x_t after each."""
    for beta_t in beta:
        x = forward_step(x, torch.randn(x.shape, generator=generator), beta_t)
        yield x


beta = schedules.linear_beta()  # (1000,)
moments = (49, 149, 299, 999)
frames = {t: x for t, x in enumerate(chain(spiral, beta, generator)) if t in moments}

figure, axes = plt.subplots(1, 5, figsize=(10, 2.9), sharey=True)
plot_points(spiral, spiral[:, 0], f"clean\nvariance {spiral.var():.2f}", ax=axes[0])
for ax, (t, cloud) in zip(axes[1:], frames.items(), strict=True):
    plot_points(cloud, spiral[:, 0], f"t = {t}\nvariance {cloud.var():.2f}", ax=ax).label_outer()
show(
    figure, "The spiral dissolves into a round cloud of about the same size, in which the colours are thoroughly mixed."
)
remembered = likeness(spiral[:, 0], frames[999][:, 0])
print(f"correlation between where the points are and where they came from: {remembered:.2f}")
print(f"by chance alone it lies within ±{1.96 / math.sqrt(1200):.2f} in 19 cases of 20")
assert abs(remembered) < 4 / math.sqrt(1200) and all(abs(cloud.var() - 1) < 0.15 for cloud in frames.values())

# %% [markdown] id="chain-read"
# The cloud keeps its size, and at the end the place of a point hardly tells where it came from: the correlation is no
# larger than chance allows. *Any* data set whose variance is about 1 ends as nearly the same round normal cloud;
# section 6 measures how nearly. A model that learns the way back can start from noise that anyone can draw with
# `torch.randn`.

# %% [markdown] id="two-steps-text"
# ## 2 · A thousand steps in one jump
#
# Training needs $x_t$ for random $t$, millions of times. Do we have to take all the steps? Take two and look:
#
# $$x_2 = \sqrt{\alpha_2}\bigl(\underbrace{\sqrt{\alpha_1}\,x_0 + \sqrt{\beta_1}\,\varepsilon_1}_{x_1}\bigr)
#   + \sqrt{\beta_2}\,\varepsilon_2
#   = \sqrt{\alpha_1\alpha_2}\;x_0 + \sqrt{\alpha_2\beta_1}\,\varepsilon_1 + \sqrt{\beta_2}\,\varepsilon_2$$
#
# with $\alpha_t = 1-\beta_t$, the share that a step keeps. The sum of two independent normal variables is normal again,
# and its variance is the sum of theirs: $\alpha_2\beta_1 + \beta_2$. Insert $\beta = 1-\alpha$ to get
# $\alpha_2 - \alpha_1\alpha_2 + 1 - \alpha_2 = 1 - \alpha_1\alpha_2$. So the two noises act like *one* noise, and once
# more it gains exactly what the image loses. With numbers:

# %% id="two-steps"
beta_1, beta_2 = 0.1, 0.2
alpha_1, alpha_2 = 1 - beta_1, 1 - beta_2
print(f"variance kept of the image    {alpha_1 * alpha_2:.2f}")
print(f"variance of the two noises    {alpha_2 * beta_1 + beta_2:.2f}")
print(f"1 minus what is kept          {1 - alpha_1 * alpha_2:.2f}")

# %% [markdown] id="alpha-bar-exercise"
# The same argument takes us from 2 to 3 and so to any $t$. What all steps together keep is a product:
#
# $$\bar\alpha_t = \alpha_1\,\alpha_2 \cdots \alpha_t = \prod_{i=1}^{t} (1 - \beta_i)$$
#
# ### Exercise 2 · What all steps keep
#
# **Difficulty** ●○○○○ **Minutes** 5. One table, computed once, replaces every walk.
#
# Return the product for every $t$ at once, in the dtype of `beta`. The entry at index `t` includes `beta[t]`. An
# example: `torch.tensor([0.1, 0.2])` becomes 0.9 and 0.72.


# %% id="alpha-bar"
def alpha_bar_from_beta(beta):
    """alpha_bar_t = product over i = 1 ... t of (1 - beta_i); beta and the result: (T,)."""
    ### BEGIN SOLUTION
    #: what each single step keeps, then the running product
    return (1 - beta).cumprod(0)
    ### END SOLUTION


# %% id="alpha-bar-check"
alpha_bar_from_beta = check("05.alpha_bar", alpha_bar_from_beta)
# hint("05.alpha_bar")

# %% [markdown] id="jump-text"
# ### Exercise 3 · The jump
#
# **Difficulty** ●●○○○ **Minutes** 10. The most used line of the course: every training step of a diffusion model calls
# it.
#
# $$x_t = \sqrt{\bar\alpha_t}\;x_0 + \sqrt{1-\bar\alpha_t}\;\varepsilon$$
#
# In words: the clean image times the root of the share that is left, plus *one* noise times the root of the rest. Each
# sample of the batch has its own $t$. `alpha_bar[t]` has shape (batch,), but images have (batch, channels, height,
# width). `expand_like(values, x0)` gives the values as many axes as `x0` has, so that they broadcast. `t` holds
# integers. An example: where `alpha_bar[t]` is 0.64, a pixel of 1 with a noise of −1 becomes 0.8 − 0.6 = 0.2.


# %% id="add-noise"
def add_noise(x0, eps, t, alpha_bar):
    """x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps; x0, eps: (batch, ...), t: (batch,)."""
    ### BEGIN SOLUTION
    #: the share of the image that is left for each sample, with the axes of x0
    share = expand_like(alpha_bar[t], x0)  # (batch, 1, ..., 1)
    #: the image times one root, the noise times the other
    return share.sqrt() * x0 + (1 - share).sqrt() * eps
    ### END SOLUTION


# %% id="add-noise-check"
add_noise = check("05.add_noise", add_noise)
# hint("05.add_noise")

# %% [markdown] id="same-text"
# ### Is the jump the walk?
#
# Not for a single pixel: the walk uses a thousand noises, the jump uses another one. The claim is that both have the
# same *distribution*. So let 20,000 pixels start at 0.8, take all of them through the walk and through the jump, and
# compare with the formula: mean $\sqrt{\bar\alpha_t}\,x_0$, standard deviation $\sqrt{1-\bar\alpha_t}$.

# %% id="same"
alpha_bar = alpha_bar_from_beta(beta)
start = torch.full((20_000, 1), 0.8)

print("  t     mean: walk   jump  formula     std: walk   jump  formula")
for t, walked in enumerate(chain(start, beta, generator)):
    if t in (9, 99, 299, 599, 999):
        jumped = add_noise(start, torch.randn(start.shape, generator=generator), torch.full((20_000,), t), alpha_bar)
        mean, std = 0.8 * alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()
        print(
            f"{t:3} {walked.mean():12.3f} {jumped.mean():8.3f} {mean:7.3f} "
            f"{walked.std():14.3f} {jumped.std():6.3f} {std:7.3f}"
        )
        assert max(abs(walked.mean() - mean), abs(jumped.mean() - mean)) < 5 * std / 20_000**0.5
        assert max(abs(walked.std() - std), abs(jumped.std() - std)) < 5 * std / 40_000**0.5

# %% [markdown] id="shape-text"
# Mean and standard deviation agree within what 20,000 samples allow: at $t = 599$ the standard error of a mean is
# 0.007, and the assertions check all of them to five standard errors. But two distributions can share both and still
# differ. So now compare the whole shape, from a start that is not normal at all: two peaks, 40% of the pixels near −1.2
# and 60% near 0.8. The *Kolmogorov–Smirnov distance* is the largest gap between two cumulative distributions (for each
# value, the share of samples below it). What chance allows is known for independent samples, so the walk starts from
# one sample of the two peaks, the jump from another.

# %% id="shape"
from scipy.stats import ks_2samp


def two_peaks(number, generator):
    """Numbers near -1.2 (40%) and 0.8 (60%), each with spread 0.2: mean 0, variance 1; shape (number, 1)."""
    low = torch.rand(number, 1, generator=generator) < 0.4
    return torch.where(low, -1.2, 0.8) + 0.2 * torch.randn(number, 1, generator=generator)


x0 = two_peaks(20_000, generator)
walk = dict(enumerate(chain(x0, beta, generator)))
second = two_peaks(20_000, torch.Generator().manual_seed(6))  # independent of x0
by_chance = 1.36 * math.sqrt(2 / 20_000)  # not exceeded by two samples of one distribution in 19 cases of 20
print(f"by chance alone, two samples differ by up to {by_chance:.4f}")
for t in (9, 99, 299, 999):
    jumped = add_noise(second, torch.randn(x0.shape, generator=generator), torch.full((20_000,), t), alpha_bar)
    distance = ks_2samp(walk[t].flatten(), jumped.flatten()).statistic
    from_clean = ks_2samp(walk[t].flatten(), second.flatten()).statistic
    print(f"t = {t:3}: walk and jump differ by {distance:.4f}, walk and clean by {from_clean:.4f}")
    assert distance < 1.5 * by_chance and (from_clean > 5 * by_chance) == (t >= 99)

# %% [markdown] id="density-text"
# The distance between walk and jump is no larger than what chance allows in 19 cases of 20. The distance to the clean
# samples is real from $t = 99$ on; at $t = 9$ so little noise has been added that 20,000 samples cannot tell the
# difference.
#
# Here is the whole process in one picture. The colours show the exact density of $x_t$ (its square root, so that low
# densities show too; yellow is likely, violet is not). Each peak of the data is a normal bump and remains one: its
# centre is multiplied by $\sqrt{\bar\alpha_t}$, its variance by $\bar\alpha_t$, and $1 - \bar\alpha_t$ is added to the
# variance. The white lines are eight of your walks.


# %% id="two-peaks"
def bumps(x, share):
    """What each of the two peaks adds to the density of x_t, where the share alpha_bar_t is left; both broadcast."""
    std = (share * 0.2**2 + 1 - share).sqrt()
    low = torch.distributions.Normal(-1.2 * share.sqrt(), std).log_prob(x).exp()
    high = torch.distributions.Normal(0.8 * share.sqrt(), std).log_prob(x).exp()
    return 0.4 * low, 0.6 * high


def density(x, share):
    """The density of x_t for the two peaks; x and share broadcast."""
    return sum(bumps(x, share))


# %% id="density" tags=["static"]
levels = torch.linspace(-3, 3, 241)
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.6), sharey=True, width_ratios=[1, 6, 1])
heat = {"origin": "lower", "aspect": "auto", "cmap": "viridis", "interpolation": "bilinear"}
middle.imshow(density(levels[:, None], alpha_bar[None]).sqrt(), extent=(0, 999, -3, 3), **heat)
middle.plot(torch.cat([walk[t][:8].T for t in range(1000)]), "-", color="white", linewidth=0.7, alpha=0.85)
middle.set(xlabel="t", xlim=(0, 999), ylim=(-3, 3), title="density of $x_t$, and eight walks")
middle.grid(False)
lying = {"orientation": "horizontal", "histtype": "stepfilled", "color": "#56B4E9"}
for ax, sample, share, name in ((left, x0, torch.ones(()), "$x_0$"), (right, walk[999], alpha_bar[999], "$x_T$")):
    ax.hist(sample.flatten(), bins=60, range=(-3, 3), density=True, **lying)
    ax.plot(density(levels, share), levels, color="black", linewidth=1.2)
    ax.set(title=name, xticks=[])
left.set_ylabel("value of a pixel")
show(figure, "Two sharp peaks melt into one round bump; eight wiggling walks start in the peaks and spread over it.")

# %% [markdown] id="density-read"
# Two peaks go in, one bump comes out. How long does the value of a walk tell from which peak it started? For each of
# the 20,000 walks, choose the peak whose bump is the higher one at this value:

# %% id="which-peak"
started_high = x0 > -0.2  # each peak is five spreads away from -0.2
correct = {}
for t in (99, 199, 249, 299, 399, 599, 999):
    low, high = bumps(walk[t], alpha_bar[t])
    correct[t] = ((high > low) == started_high).double().mean()
    within = 1.96 * math.sqrt(correct[t] * (1 - correct[t]) / 20_000)
    curve = density(levels, alpha_bar[t])
    maxima = int(((curve[1:-1] > curve[:-2]) & (curve[1:-1] > curve[2:])).sum())
    print(f"t = {t:3}: maxima of the density {maxima}; right choices {correct[t]:.1%} ± {within:.1%}")
    assert maxima == (2 if t < 249 else 1)
assert min(correct[99], correct[199]) > 0.9 > correct[249] > correct[299] > correct[399] > 0.65 > correct[999]

# %% [markdown] id="which-peak-read"
# While the density has two maxima, the choice is right in about nine of ten cases or more. Then the bumps merge, and
# the choice gets worse gradually, down to the 60% that always choosing the larger peak gives. On the way back it is in
# this range, from about $t = 600$ to $t = 200$, that a sample comes to lie near one peak or the other.

# %% [markdown] id="exploding-text"
# ### Growing or keeping the variance: one process
#
# Shrinking is convenient, but it is not essential. Divide $x_t$ by $\sqrt{\bar\alpha_t}$, and you get the clean
# image plus noise of standard deviation $\tilde\sigma_t = \sqrt{(1-\bar\alpha_t)/\bar\alpha_t}$: the growing cloud of
# the beginning. The two forms are called *variance preserving* and *variance exploding*. They are the same process, up
# to a scale that is known: a model can be trained on either form, and in both the way back starts from normal noise, of
# standard deviation 1 or $\tilde\sigma_T$. The pushes of the beginning merely stopped early.

# %% id="exploding"
sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
eps = torch.randn(spiral.shape, generator=generator)
for t in (149, 299, 999):
    exploding = spiral + sigma[t] * eps
    preserving = add_noise(spiral, eps, torch.full((1200,), t), alpha_bar)
    assert torch.allclose(alpha_bar[t].sqrt() * exploding, preserving, atol=1e-4)
    print(f"t = {t}: noise of standard deviation {sigma[t]:.1f} on the spiral is the chain at this t, up to scale")
print(f"the thousand pushes of the beginning ended at {math.sqrt(0.01 * 1000):.1f}")

# %% [markdown] id="package-text"
# ### The same in the package, and in diffusers
#
# Later chapters import these functions from `course_utils.diffusion.schedules`. The next cell compares yours with them,
# and with `diffusers`, the library in which Stable Diffusion is often run and fine-tuned. All three agree: differences
# of a few millionths are rounding.

# %% id="package"
from diffusers import DDPMScheduler

library = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
x0 = torch.randn(4, 3, 8, 8, generator=generator)
eps = torch.randn(4, 3, 8, 8, generator=generator)
t = torch.tensor([0, 10, 500, 999])

mine = add_noise(x0, eps, t, alpha_bar)
for name, other in (
    ("course_utils", schedules.add_noise(x0, eps, t, schedules.alpha_bar_from_beta(beta))),
    ("diffusers", library.add_noise(x0, eps, t)),
):
    print(f"{name:13} largest difference {(mine - other).abs().max():.1e}")
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-5, check_dtype=False)
torch.testing.assert_close(beta, library.betas)

# %% [markdown] id="cat-text"
# ## 3 · A real photograph
#
# This is Chelsea, a cat whose photograph comes with scikit-image. Her 128 · 128 · 3 numbers, in [−1, 1], are one point
# in a space of 49,152 dimensions. Nothing else changes: each number is treated like a coordinate of a point.
#
# **Predict first.** The jump to $t = 500$ is half the way. Is half of the cat left?
#
# <details><summary>Answer (after running the cell below)</summary>
# No: at t = 500 only 8% of her variance is left, and the eye finds no cat. Fine detail such as the whiskers is lost
# first, the dark eyes last. (Noise exceeds what a screen can show: each colour is cut off at ±1.)
# </details>

# %% id="cat" tags=["static"]
cat = photos.load("chelsea", size=128)  # (1, 3, 128, 128)
noise = torch.randn(cat.shape, generator=generator)
t = torch.tensor([50, 150, 300, 500])

film = add_noise(cat.expand(4, -1, -1, -1), noise.expand(4, -1, -1, -1), t, alpha_bar)
titles = ["clean"] + [f"t = {i}, {100 * alpha_bar[i]:.2g}% left" for i in t.tolist()]
show(
    plot_pictures(torch.cat([cat, film]), titles, columns=5),
    "The cat under more and more noise: first her whiskers disappear, then her stripes, then her eyes; in the last one "
    "no cat is to be seen.",
)
assert 0.07 < alpha_bar[500] < 0.09

# %% [markdown] id="snr-text"
# Or is she still there? Look at the pictures from a distance, with half-closed eyes, so that neighbouring pixels blur:
# at $t = 300$ her face is back, and even at $t = 500$ there is a dark patch where the eye on the left was.
# Section 7 explains why.
#
# To speak of noise levels without counting steps, compare the two shares:
#
# $$\text{SNR}_t = \frac{\bar\alpha_t}{1 - \bar\alpha_t}$$
#
# In words: the *signal-to-noise ratio* is the variance that comes from the image, divided by the variance that comes
# from the noise (for images of variance 1). At 1 the two are equal.
#
# ### Exercise 4 · Signal to noise
#
# **Difficulty** ●○○○○ **Minutes** 3. With it you can compare schedules of different $T$, and of different papers. An
# example: where `alpha_bar` is 0.8, the SNR is 4.


# %% id="snr"
def snr(alpha_bar):
    """SNR_t = alpha_bar_t / (1 - alpha_bar_t); alpha_bar and the result have one shape, (T,) or any other."""
    ### BEGIN SOLUTION
    #: variance from the image over variance from the noise
    return alpha_bar / (1 - alpha_bar)
    ### END SOLUTION


# %% id="snr-check"
snr = check("05.snr", snr)
# hint("05.snr")

# %% [markdown] id="explore-noise-text"
# ### Slide through time
#
# **Predict first.** At which $t$ is the SNR 1: half way, earlier or later? And what happens to the histogram of the
# cat's pixel values, which has a shape of its own, as $t$ grows? Three settings as still pictures; below them the live
# control.
#
# <details><summary>Answer (after running the cell below)</summary>
# The SNR is 1 at t = 259, a quarter of the way. Yet the cat is hard to see there: the SNR is that of an image of
# variance 1, and hers is far smaller (section 5). The histogram loses its own shape and approaches the dashed curve of
# the standard normal distribution. Note the axis of the SNR: it is logarithmic, and the curve falls by more than eight
# powers of ten.
# </details>

# %% id="film-noise" tags=["static"]
from course_utils.widgets import explore, filmstrip, noise_explorer, schedule_explorer

kitten = photos.load("chelsea", size=64)  # the same cat on fewer pixels
noise_on_cat = noise_explorer(kitten)
filmstrip(noise_on_cat, [{"t": 20}, {"t": 259}, {"t": 900}])

# %% id="explore-noise"
explore(noise_on_cat)

# %% [markdown] id="schedules-text"
# ## 4 · Schedules
#
# How the betas grow is for you to choose. Three choices are in wide use:
#
# - **linear** (DDPM): $\beta_t$ rises in a straight line from 0.0001 to 0.02;
# - **scaled linear** (Stable Diffusion): $\sqrt{\beta_t}$ rises in a straight line, from $\sqrt{0.00085}$ to
#   $\sqrt{0.012}$;
# - **cosine** (Improved DDPM): choose how the *share* $\bar\alpha_t$ falls, and derive the betas from it.

# %% [markdown] id="cosine-text"
# The cosine schedule in formulas:
#
# $$\bar\alpha_t = \frac{f(t)}{f(0)}, \quad f(t) = \cos^2\!\Bigl(\frac{t/T + 0.008}{1 + 0.008}\cdot\frac{\pi}{2}\Bigr),
#   \quad \beta_t = \min\Bigl(1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}},\ 0.999\Bigr)$$
#
# In words: the share that is left falls from 1 to 0 like a cosine over the first quarter of its period, squared; and
# $\beta_t$ is the fraction that step $t$ takes of what was left before it. The offset 0.008 keeps the first steps from
# being too tiny. The minimum matters at the last step, where $f(T) = 0$: a $\beta$ of 1 would leave nothing at all, and
# formulas that divide by $\sqrt{\bar\alpha_t}$ would break.

# %% [markdown] id="cosine-exercise"
# ### Exercise 5 · The cosine schedule
#
# **Difficulty** ●●●○○ **Minutes** 15. The paper's time, $t = 0 \dots T$, has one moment more than there are betas: you
# need $f$ at $T + 1$ moments for $T$ ratios. Compute in float64, since neighbouring values of $f$ are almost equal, and
# return float32. An example: `cosine_beta(2)` is 0.506 and 0.999.


# %% id="cosine"
def cosine_beta(T):
    """beta_t = min(1 - f(t) / f(t-1), 0.999), f(t) = cos^2((t/T + 0.008)/1.008 pi/2); float32 (T,)."""
    ### BEGIN SOLUTION
    #: the paper's times 0 ... T, one more than betas, in float64
    t = torch.arange(T + 1, dtype=torch.float64)
    #: f at each of them
    f = torch.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2
    #: 1 minus each f over the one before, at most 0.999, in float32
    return (1 - f[1:] / f[:-1]).clamp(max=0.999).float()
    ### END SOLUTION


# %% id="cosine-check"
cosine_beta = check("05.cosine_beta", cosine_beta)
# hint("05.cosine_beta")

# %% [markdown] id="curves-text"
# All three in one figure; the dotted lines mark where signal and noise are equal. The cell after it prints a table, and
# asserts that the betas are those of `diffusers`, where the schedules have other names.

# %% id="curves" tags=["static"]
betas = {
    "linear": schedules.linear_beta(),
    "scaled linear": schedules.scaled_linear_beta(),
    "cosine": cosine_beta(1000),
}
shares = {name: alpha_bar_from_beta(b.double()) for name, b in betas.items()}

figure, axes = plt.subplots(1, 3, figsize=(10, 3.1))
for name, b in betas.items():
    axes[0].plot(b, label=name)
    axes[1].plot(shares[name], label=name)
    axes[2].plot(snr(shares[name]), label=name)
axes[0].set(xlabel="t", ylabel=r"$\beta_t$ (log scale)", yscale="log")
axes[1].set(xlabel="t", ylabel=r"share left, $\bar\alpha_t$")
axes[2].set(xlabel="t", ylabel="SNR (log scale)", yscale="log", ylim=(1e-9, 1e5))
for ax, even in ((axes[1], 0.5), (axes[2], 1)):
    ax.axhline(even, color="#777777", linewidth=1, linestyle=":")
axes[0].legend()
show(
    figure,
    "Three schedules: the cosine keeps the image longest and ends with the least of it; Stable Diffusion's "
    "scaled linear one ends with the most.",
)

# %% id="schedule-table"
names = {
    "linear": ("linear", 1e-4, 0.02),
    "scaled linear": ("scaled_linear", 0.00085, 0.012),
    "cosine": ("squaredcos_cap_v2", 1e-4, 0.02),
}  # the cosine takes no end points
print("schedule        first SNR   SNR 1 at t   SNR > 100   SNR < 0.01   sqrt(alpha_bar) at the end")
spent = {}
for name, (kind, first, last) in names.items():
    library = DDPMScheduler(beta_schedule=kind, beta_start=first, beta_end=last)
    torch.testing.assert_close(betas[name], library.betas, rtol=1e-3, atol=1e-6)
    ratio = snr(shares[name])
    bright, dark = (ratio > 100).double().mean(), (ratio < 0.01).double().mean()
    spent[name] = bright + dark
    end = shares[name][-1].sqrt()
    print(f"{name:13} {ratio[0]:11.0f} {int((ratio > 1).sum()):12} {bright:11.0%} {dark:12.0%} {end:18.5f}")
assert spent["linear"] > 1 / 3 and max(spent["cosine"], spent["scaled linear"]) < 1 / 8
assert shares["scaled linear"][-1] > 100 * shares["linear"][-1]

# %% [markdown] id="curves-read"
# Read the table as a time budget. In training every $t$ occurs equally often. Where the SNR is above 100 there is
# hardly any noise, and below 0.01 hardly any image. The linear schedule spends more than a third of its thousand steps
# in these two ranges. The cosine schedule was designed to avoid this and spends less than an eighth. So does the scaled
# linear one, for another reason: it stops before the image is gone.
#
# The last column shows this. Two schedules end with almost nothing of the image. Stable Diffusion's ends with the
# factor 0.068, which is small but not nothing. Keep that number in mind.

# %% [markdown] id="schedule-corgis-text"
# What this looks like on a page of the picture book, with the same noise everywhere:

# %% id="schedule-corgis" tags=["static"]
corgi = picture_book.Scene((picture_book.Thing("corgi", pose="sitting"),), "grass", seed=4)
page = picture_book.pictures([corgi])  # (1, 3, 64, 64)
page_noise = torch.randn(page.shape, generator=generator)
t = torch.tensor([100, 250, 400, 550, 700])
rows = []
for share in shares.values():
    rows.append(add_noise(page.expand(5, -1, -1, -1), page_noise.expand(5, -1, -1, -1), t, share.float()))
heads = [f"t = {i}" for i in t.tolist()]
show(
    plot_pictures(torch.cat(rows), columns=5, heads=heads, rows=list(shares)),
    "One corgi, one noise, the same times, a row for each schedule: with the cosine schedule the corgi stays visible "
    "longest.",
)

# %% [markdown] id="explore-schedule-text"
# ### Build your own
#
# **Predict first.** Take the linear schedule and only change $T$ from 1000 to 100; the first and the last beta stay.
# How much of the image is left at the end? And with $T = 1000$, but a last beta of 0.002?
#
# <details><summary>Answer (after running the cell below)</summary>
# In both cases more than a third of its variance: the factor of the image ends near 0.6, the SNR above one half. The
# noise has only just overtaken the image, at t = 82 and at t = 803. The two end alike because their betas have about
# the same sum, near 1. The section below the sliders shows why the sum is what matters.
# </details>

# %% id="film-schedule" tags=["static"]
own_schedule = schedule_explorer()
filmstrip(own_schedule, [{}, {"T": 100}, {"last_beta": 0.002}])

# %% id="explore-schedule"
explore(own_schedule)

# %% [markdown] id="T-text"
# ### How large is "T large enough"?
#
# Books say that $x_T$ is noise "for $T$ large enough". But it is not $T$ that matters. For small betas
# $\ln(1-\beta_t) \approx -\beta_t$, so
#
# $$\bar\alpha_T = \prod_t (1 - \beta_t) \approx \exp\Bigl(-\sum_t \beta_t\Bigr)$$
#
# In words: what is left falls exponentially with the *sum* of the betas. Here is the sum for several $T$, once with the
# same end points, once with betas multiplied by $1000/T$. The last two columns compare the roots: the factor
# $\sqrt{\bar\alpha_T}$ of the image, and its approximation, e to the power of minus half the sum.

# %% id="T-large"
print("   T   betas         sum of betas   sqrt(alpha_bar_T)   exp(-sum/2)")
reached = {}
for T in (50, 100, 1000, 4000):
    for scale in sorted({1.0, 1000 / T}):
        b = schedules.linear_beta(T, start=1e-4 * scale, end=0.02 * scale)
        left = alpha_bar_from_beta(b.double())[-1].sqrt()
        reached[T, scale] = left
        print(f"{T:4}   x {scale:<8g} {b.sum():13.2f} {left:19.2e} {torch.exp(-b.sum() / 2):13.1e}")
assert 0.4 < reached[50, 20.0] / reached[1000, 1.0] < 0.5 and reached[1000, 1.0] < 0.007

# %% [markdown] id="T-read"
# Large enough means: the betas add up to about 10 or more, in however many steps. Fifty large steps leave the factor
# 0.003 and a thousand small ones 0.006 (the approximation is meant for small betas): both next to nothing. Small steps
# are useful for another reason: the steps of the way *back* are then small too, and the distribution of a small step
# back is nearly normal (chapter 07).

# %% [markdown] id="variance-text"
# ## 5 · When is the variance preserved?
#
# The process is called *variance preserving*. Is it? $x_0$ and $\varepsilon$ are independent, so their variances add:
#
# $$\text{Var}(x_t) = \bar\alpha_t\,\text{Var}(x_0) + (1 - \bar\alpha_t)$$
#
# In words: the variance of the noisy image is the share that is left, times the variance of clean images, plus the
# share of the noise, whose variance is 1. It stays 1 only if $\text{Var}(x_0) = 1$.
#
# ### Exercise 6 · The variance at time t
#
# **Difficulty** ●●○○○ **Minutes** 5. It tells how large the numbers are that the network will meet.
#
# `alpha_bar` is a tensor of any shape, `x0_variance` a number or a tensor with one element. An example: where
# `alpha_bar` is 0.5, images of variance 0.25 have become noisy ones of variance 0.625.


# %% id="variance-at"
def variance_at(alpha_bar, x0_variance):
    """Var(x_t) = alpha_bar_t Var(x0) + 1 - alpha_bar_t; the result has the shape of alpha_bar."""
    ### BEGIN SOLUTION
    return alpha_bar * x0_variance + 1 - alpha_bar
    ### END SOLUTION


# %% id="variance-at-check"
variance_at = check("05.variance_at", variance_at)
# hint("05.variance_at")

# %% [markdown] id="variance-run"
# Four data sets: the points, which have a variance near 1; handwritten digits of 8 · 8 pixels; forty pages of the
# picture book; the cat. $\text{Var}$ is taken over all their numbers together. The lines are your formula, the dots are
# measured.

# %% id="variance" tags=["static"]
pages = picture_book.pictures([picture_book.sample_scene(i) for i in range(40)])  # (40, 3, 64, 64)
worlds = {"points": spiral, "digits": digits.load(8)[0], "picture book": pages, "cat": cat}

figure, ax = plt.subplots(figsize=(7, 3.4))
for name, x0 in worlds.items():
    (line,) = ax.plot(variance_at(alpha_bar, x0.var()), label=f"{name}: Var($x_0$) = {x0.var():.2f}")
    for t in range(0, 1000, 111):
        x_t = add_noise(x0, torch.randn(x0.shape, generator=generator), torch.full((len(x0),), t), alpha_bar)
        ax.plot(t, x_t.var(), "o", color=line.get_color(), markersize=5)
        assert abs(x_t.var() / variance_at(alpha_bar[t], x0.var()) - 1) < 0.1
    print(f"{name:13} Var(x0) = {x0.var():.3f}")
ax.set(xlabel="t", ylabel="Var($x_t$)", ylim=(0, 1.2))
ax.legend(loc="lower right")
show(figure, "The points stay near variance 1; digits, picture book and cat start lower and climb to 1.")

# %% [markdown] id="variance-read"
# The digits start with about 0.57, the picture book with a quarter, the cat with a ninth. Nothing breaks: the drift is
# known and smooth. But the true ratio of signal to noise is $\text{Var}(x_0)\cdot\text{SNR}_t$, so for the cat *the
# same schedule is a noisier one*. There are two remedies: another schedule, or data scaled to variance 1. Latent
# diffusion does the second: it multiplies its *latents*, the compressed images of chapter 00, by one constant (chapter
# 09).

# %% id="scaling"
import json

from course_utils.pipelines.picture_book import PICTURE_BOOK

for name, x0 in worlds.items():
    print(f"{name:13} signal and noise are truly equal at t = {int((x0.var() * snr(alpha_bar) > 1).sum())}")
factor = json.loads((PICTURE_BOOK / "vae" / "config.json").read_text())["scaling_factor"]
print(f"latents are multiplied by {factor:.3f} in the course's model, by 0.18215 in Stable Diffusion v1.5")

# %% [markdown] id="kl-text"
# ## 6 · How far is the end from pure noise?
#
# Sampling will start from $\mathcal{N}(0, I)$, but the noisiest images of training come from
# $q(x_T \mid x_0) = \mathcal{N}(\sqrt{\bar\alpha_T}\,x_0,\ (1-\bar\alpha_T) I)$. The usual measure of the gap is the
# *Kullback–Leibler (KL) divergence*, written $\text{KL}(q \,\Vert\, p)$ and in code `KL(q || p)`: how far $q$ is from
# $p$. It is 0 only if both are equal, but it is no distance in the strict sense, since the order matters. In one
# dimension
#
# $$\text{KL}\bigl(\mathcal{N}(\mu, \sigma^2) \,\Vert\, \mathcal{N}(0, 1)\bigr)
#   = \tfrac12 (\sigma^2 + \mu^2 - 1 - \ln \sigma^2)$$
#
# in *nats*, of which $\ln 2$ make one bit. Insert $\mu = \sqrt{\bar\alpha_t}\,x_0$ and $\sigma^2 = 1 - \bar\alpha_t$,
# average over the $d_x$ dimensions, and divide by $\ln 2$ to get bits:
#
# $$\frac{\text{KL}}{d_x} = \frac{1}{2 \ln 2}\Bigl(\bar\alpha_t\,\bigl(\overline{x_0^2} - 1\bigr)
#   - \ln(1 - \bar\alpha_t)\Bigr)$$
#
# where $\overline{x_0^2}$ is the mean square of the image's numbers. In words: the number of bits per dimension that
# are wasted by a code made for pure noise, when it is used for $x_t$.

# %% [markdown] id="kl-exercise"
# ### Exercise 7 · The distance to noise
#
# **Difficulty** ●●●●○ **Minutes** 20. It turns "almost pure noise" into a number; papers call it $L_T$.
#
# Return one number for each sample, whatever axes samples have: `.flatten(1).mean(1)` averages over all but the first.
# `alpha_bar_t` is a tensor with one element, such as `alpha_bar[-1]`. For the logarithm use `torch.log1p`: it adds 1
# and takes $\ln$, and it is exact even where the sum is very near 1. An example: for `x0 = torch.zeros(1, 3, 8, 8)` and
# `torch.tensor(0.5)` it is 0.139 bits.


# %% id="kl"
def kl_to_normal(x0, alpha_bar_t):
    """KL(q(x_t | x0) || N(0, I)) in bits per dimension, (batch,); x0: (batch, ...), alpha_bar_t: a tensor ()."""
    ### BEGIN SOLUTION
    share = expand_like(alpha_bar_t, x0)  # (1, 1, ..., 1)
    nats = (share * (x0**2 - 1) - torch.log1p(-share)) / 2  # of each dimension: (v + m^2 - 1 - ln v) / 2
    return nats.flatten(1).mean(1) / math.log(2)
    ### END SOLUTION


# %% id="kl-check"
kl_to_normal = check("05.kl_to_normal", kl_to_normal)
# hint("05.kl_to_normal")

# %% [markdown] id="kl-run-text"
# Here are the numbers at the end of each schedule, the mean over the forty pages of the picture book: per dimension,
# and for a whole page of 3 · 64 · 64 = 12,288 dimensions. The last line is the schedule from the explorer that stopped
# too early: 100 steps from beta 0.0001 to 0.02.

# %% id="kl-run"
ends = {name: share[-1] for name, share in shares.items()}
ends["linear, T=100"] = alpha_bar_from_beta(schedules.linear_beta(100).double())[-1]

print("schedule        sqrt(alpha_bar_T)   bits a dimension   bits a page")
for name, share in ends.items():
    bits = kl_to_normal(pages.double(), share).mean()
    print(f"{name:13} {share.sqrt():17.6f} {bits:20.2e} {bits * pages[0].numel():13.2g}")
assert 10 < kl_to_normal(pages.double(), ends["scaled linear"]).mean() * pages[0].numel() < 20

# %% [markdown] id="kl-read"
# A thousandth of a bit in each dimension, for Stable Diffusion's schedule, looks like nothing. But a page has 12,288
# dimensions, and together they make fifteen bits. This is the most that $x_T$ can tell about its page on average; it
# may be less, because the fifteen bits include what all pages have in common. A yes-or-no question takes one bit at
# most. Is there one that $x_T$ answers?

# %% [markdown] id="failure-text"
# ## A failure, explained: dark or light?
#
# Take forty pages with a cat at night and forty with a cat in the snow. Add noise up to the very last step, ten times
# to each. Then try to tell which was which from a single number, the mean of all pixels of $x_T$: above the midpoint of
# the two groups' means (faded as the images are) call it snow. No network is trained.
#
# **Predict first.** How often is this right with each schedule? Here are two pages and their $x_T$. Can *you* tell them
# apart?
#
# <details><summary>Answer (after running the two cells below)</summary>
# To the eye both are noise. The mean tells them apart in all 800 cases with Stable Diffusion's schedule; somewhat
# better than chance with the linear one, in 500 of 800, which is 62.5% (95% interval 59% to 66%); with the cosine one
# no better than chance, in 402 of 800 (47% to 54%).
# </details>


# %% id="failure-look" tags=["static"]
def cats(place):
    """Forty pages with a cat at this place: (40, 3, 64, 64)."""
    cat_alone = (picture_book.Thing("cat"),)
    return picture_book.pictures([picture_book.Scene(cat_alone, place, seed=i) for i in range(40)])


night, snow = cats("night"), cats("snow")
both = torch.cat([night[:1], snow[:1]])
last = torch.tensor([999, 999])
noisy = add_noise(both, torch.randn(both.shape, generator=generator), last, shares["scaled linear"].float())
show(
    plot_pictures(torch.stack([both, noisy], 1).flatten(0, 1), ["night", "its x_T", "snow", "its x_T"], columns=4),
    "A cat at night and one in the snow, each with its last noisy version; the two noisy ones look alike.",
)

# %% id="failure"
clean = torch.cat([night, snow]).repeat(10, 1, 1, 1)  # (800, 3, 64, 64): each page with ten different noises
is_snow = torch.tensor([0] * 40 + [1] * 40).repeat(10).bool()
eps = torch.randn(clean.shape, generator=generator)
between = (night.mean() + snow.mean()) / 2

for name, share in shares.items():
    x_T = add_noise(clean, eps, torch.full((800,), 999), share.float())
    called_snow = x_T.mean((1, 2, 3)) > share[-1].sqrt() * between
    right = int((called_snow == is_snow).sum())
    print(f"{name:13} pages of mean {night.mean():+.2f} and {snow.mean():+.2f} become ", end="")
    print(f"{x_T[~is_snow].mean():+.4f} and {x_T[is_snow].mean():+.4f}: {right} of 800 right")
    fewest, most = {"linear": (472, 528), "scaled linear": (795, 800), "cosine": (372, 428)}[name]
    assert fewest <= right <= most
print("by chance alone, 372 to 428 are right in 19 cases of 20")

# %% [markdown] id="failure-read"
# The noise of 12,288 numbers averages out to a standard deviation of $1/\sqrt{12288}$, while the brightness, which all
# of them share, survives at 0.068 of its size.

# %% id="averaging"
print(f"the mean of pure noise has the standard deviation {1 / math.sqrt(12288):.4f}")
gap = shares["scaled linear"][-1].sqrt() * (snow.mean() - night.mean())
print(f"night and snow lie {gap:.4f} apart at the end: {gap * math.sqrt(12288):.1f} times as much")

# %% [markdown] id="failure-why"
# A network can learn this too: *the mean of $x_T$ tells how bright the image is*. At sampling it then gets pure noise,
# whose mean is always near 0, and predicts an image of medium brightness. Lin et al. (see the papers below) showed that
# this is why Stable Diffusion hardly ever produces a very dark or a very bright image, whatever the prompt. Their
# remedy starts with a schedule that ends at $\bar\alpha_T = 0$; the bonus builds it.

# %% [markdown] id="resolution-text"
# ## 7 · Large images survive longer
#
# The same averaging finds the cat. Where neighbouring pixels are alike, the mean of a block of $k \cdot k$ pixels keeps
# the image, but its noise has $1/k^2$ of the variance. So
#
# $$\text{SNR of the averaged image} \approx k^2 \cdot \text{SNR}_t$$
#
# **Predict first.** One cat has 192 · 192 pixels, another 32 · 32, so $k = 6$. Both get noise of the *same* schedule at
# the *same* $t$. Which one is destroyed first?
#
# <details><summary>Answer (after running the two cells below)</summary>
# The small one. Averaged down to 32 pixels, the large noisy cat is as clear as the small one at a much earlier time,
# where the SNR is 36 times as high: the last two of the three correlations differ by 0.02 at most. (Each is measured
# with one noise on 3,072 numbers: in 19 cases of 20 chance moves it by no more than 0.035.)
# </details>

# %% id="resolution" tags=["static"]
from torch.nn.functional import avg_pool2d

large = photos.load("chelsea", size=192)
small = avg_pool2d(large, 6)  # (1, 3, 32, 32)
eps_large = torch.randn(large.shape, generator=generator)
eps_small = torch.randn(small.shape, generator=generator)

seen = add_noise(large, eps_large, torch.tensor([400]), alpha_bar)
direct = add_noise(small, eps_small, torch.tensor([400]), alpha_bar)
averaged = avg_pool2d(seen, 6)
blown_up = [x.repeat_interleave(6, 2).repeat_interleave(6, 3) for x in (averaged, direct)]
same_contrast = torch.cat([seen, *blown_up]) / alpha_bar[400].sqrt()  # as in the clean image
titles = ["192 pixels wide, t = 400", "the same, averaged to 32", "32 pixels wide, t = 400"]
show(
    plot_pictures(same_contrast, titles, columns=3),
    "At equal t, and with the contrast of the clean image, the large image still shows the cat, most clearly when "
    "averaged; the small one hardly does.",
)

# %% id="resolution-numbers"
for t in (300, 500, 700):
    seen = avg_pool2d(add_noise(large, eps_large, torch.tensor([t]), alpha_bar), 6)
    direct = add_noise(small, eps_small, torch.tensor([t]), alpha_bar)
    rest = (seen - alpha_bar[t].sqrt() * small).var() / (1 - alpha_bar[t])  # the noise that averaging leaves
    earlier = int((snr(alpha_bar) > 36 * snr(alpha_bar[t])).sum())
    before = add_noise(small, eps_small, torch.tensor([earlier]), alpha_bar)
    print(f"t = {t}: averaging leaves {rest:.4f} of the noise's variance; 1/36 is {1 / 36:.4f}")
    print(f"  correlation with the clean small cat: small at t = {t} {likeness(direct, small):.2f}, ", end="")
    print(f"large averaged {likeness(seen, small):.2f}, small at t = {earlier} {likeness(before, small):.2f}")
    assert abs(likeness(seen, small) - likeness(before, small)) < 0.03
    assert likeness(seen, small) > likeness(direct, small) + 0.05

# %% [markdown] id="resolution-shift"
# A schedule made for small images therefore destroys large ones too late: the coarse layout can be read from $x_t$ for
# many more of its steps, and few training examples are left in which the network has to predict the layout from almost
# nothing. Models for large images shift the schedule towards more noise: they divide the SNR by $k^2$ where the side is
# $k$ times as long (Hoogeboom et al.; Stable Diffusion 3 shifts its times for the same reason, Esser et al.). This is
# one more reason to run diffusion on small latents.

# %% [markdown] id="worlds-text"
# ## Three worlds, one formula
#
# Points, a photograph and a page of the picture book: clean, and at the same four moments of the cosine schedule. Every
# training example of a diffusion model is made like one of the noisy panels, with random noise and a random $t$.

# %% id="worlds" tags=["static"]
kitten_noise = torch.randn(kitten.shape, generator=generator)
spiral_noise = torch.randn(spiral.shape, generator=generator)

figure, axes = plt.subplots(3, 5, figsize=(8, 5.2))
for column, t in enumerate((None, 150, 350, 600, 999)):
    at = torch.tensor([t or 0])
    name = "clean" if t is None else f"t = {t}"
    share = shares["cosine"].float() if t is not None else torch.ones(1)
    moved = add_noise(spiral, spiral_noise, at.expand(1200), share)
    plot_points(moved, spiral[:, 0], name, ax=axes[0, column]).set_axis_off()
    plot_pictures(add_noise(kitten, kitten_noise, at, share), ax=axes[1, column])
    plot_pictures(add_noise(page, page_noise, at, share), ax=axes[2, column])
show(
    figure,
    "Three rows, a spiral of points, a photograph of a cat and a drawn corgi puppy, each dissolving into "
    "noise from left to right.",
)

# %% [markdown] id="elsewhere"
# ## What you will read elsewhere
#
# The following sentences stand in many articles. The runs in the cells below correct them.
#
# - **"Noise is added until the image is exactly $\mathcal{N}(0, I)$."** Almost; section 6 measures how close.
# - **"$x_t = \bar\alpha_t x_0 + (1 - \bar\alpha_t)\,\varepsilon$."** The roots are missing.
# - **"The variance stays 1."** Only for data of variance 1.
# - **"At time $t$ the image has noise of variance $\beta_t$."** That is what *one step* adds.

# %% id="elsewhere-numbers"
for name, share in shares.items():
    print(f"exactly N(0, I)?    {name:13} keeps the factor {share[-1].sqrt():.5f} of the image, not 0")
a = alpha_bar[258]
print(f"without the roots:  at t = 258 variance 1 becomes {a**2 + (1 - a) ** 2:.3f}; with them {a + (1 - a):.3f}")
print(f"variance stays 1?   digits start with {worlds['digits'].var():.2f}, the cat with {cat.var():.2f}")
print(f"noise at t = 500:   beta is {beta[500]:.3f}, but 1 - alpha_bar is {1 - alpha_bar[500]:.3f}")
assert abs(a**2 + (1 - a) ** 2 - 0.5) < 0.01 and min(share[-1] for share in shares.values()) > 0

# %% [markdown] id="elsewhere-gauss"
# **"$q(x_t)$ is a Gaussian", "the marginals are known".** Given *one* image, $q(x_t \mid x_0)$ is a *Gaussian*, which
# is another name for a normal distribution. But over all images $q(x_t)$, which papers call the *marginal*, is a
# mixture with one bump for each of them, and it is unknown because the distribution of all images is unknown. This is
# why Bayes' rule alone does not give the way back (chapter 07).
#
# The run compares $q(x_t \mid x_0)$ for a pixel that starts at 0.8 with $q(x_t)$ for the two peaks of section 2.
# *Excess kurtosis*, the mean fourth power of values scaled to mean 0 and variance 1, minus 3, is 0 for every Gaussian.
# With 20,000 samples of one it lies within ±0.07 in 19 cases of 20; a value far outside rules a Gaussian out. By
# $t = 999$ the bumps of the two peaks have become one, and the measure finds no difference any more:

# %% id="elsewhere-gauss-run"
from scipy.stats import kurtosis

one = torch.full((20_000, 1), 0.8)
many = two_peaks(20_000, generator)
for t in (49, 149, 999):
    eps = torch.randn(one.shape, generator=generator)
    times = torch.full((20_000,), t)
    given = kurtosis(add_noise(one, eps, times, alpha_bar)).item()
    marginal = kurtosis(add_noise(many, eps, times, alpha_bar)).item()
    print(f"t = {t:3}: excess kurtosis of q(x_t | x0) {given:+.2f}, of q(x_t) {marginal:+.2f}")
    assert abs(given) < 0.2 and (t == 999 or marginal < -0.4)

# %% [markdown] id="elsewhere-walk"
# **"To train, noise is added to the image step by step."** In practice the jump (papers: "the closed form") is used.
# The walk gives the same distribution, but takes $t$ steps instead of one.

# %% id="elsewhere-walk-run"
from time import perf_counter

started = perf_counter()
*_, walked = chain(cat, beta, generator)
middle = perf_counter()
for _ in range(100):
    jumped = add_noise(cat, torch.randn(cat.shape, generator=generator), torch.tensor([999]), alpha_bar)
walk_ms, jump_ms = 1000 * (middle - started), 10 * (perf_counter() - middle)
print(f"the walk to t = 999 took {walk_ms:.0f} ms, the jump {jump_ms:.2f} ms: {walk_ms / jump_ms:.0f} times less")

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $x_t = \sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,\varepsilon$ | `forward_step(x_before, eps, beta_t)` |
# | $\bar\alpha_t = \prod_{i \le t} (1-\beta_i)$ | `(1 - beta).cumprod(0)` |
# | $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$ | `add_noise(x0, eps, t, alpha_bar)` |
# | $\text{SNR}_t = \bar\alpha_t / (1-\bar\alpha_t)$ | `snr(alpha_bar)` |
# | $\text{Var}(x_t) = \bar\alpha_t \text{Var}(x_0) + 1 - \bar\alpha_t$ | `variance_at(alpha_bar, x0_variance)` |
# | $\text{KL}(q(x_T \mid x_0) \,\Vert\, \mathcal{N}(0, I)) / d_x$, in bits | `kl_to_normal(x0, alpha_bar[-1])` |
#
# The forward process has no parameters and learns nothing. It turns one image into training examples of every
# difficulty: *given $x_t$, which noise is in it?* Chapter 06 trains a network to answer.

# %% [markdown] id="questions"
# `progress()`, in a cell of its own, shows which exercises of the course you have solved.
#
# ### To think about
#
# Open a line for the answer.
#
# <details><summary>1. A schedule with T = 500 uses every second alpha_bar of one with T = 1000: those with odd t in
# code. What are its betas?</summary>
# The first is 1 − <code>alpha_bar[1]</code>. Each other is one minus the ratio of neighbours in the new table: the
# second is 1 − <code>alpha_bar[3]</code> / <code>alpha_bar[1]</code>, and so on. Where betas are small, they are about
# twice the old ones. The jump does not depend on how many steps lie between; that is why a sampler may later skip
# steps.
# </details>
# <details><summary>2. You multiply all images by 3 and keep the schedule. Which change of the schedule would have
# done the same?</summary>
# One to 9 times the SNR at every t: scaling the data and shifting the schedule are equivalent, up to the scale of x_t.
# </details>
# <details><summary>3. Why can you not run the walk backwards, with noise removed instead of added?</summary>
# You do not know which noise was added. Many pairs of image and noise give the same noisy image; to go back one
# needs to know which images are likely, and that has to be learned.
# </details>

# %% [markdown] id="papers"
# **Papers** The idea: Sohl-Dickstein et al., [arXiv:1503.03585](https://arxiv.org/abs/1503.03585). DDPM, linear
# schedule: Ho et al., [arXiv:2006.11239](https://arxiv.org/abs/2006.11239). Variance preserving and exploding: Song et
# al., [arXiv:2011.13456](https://arxiv.org/abs/2011.13456). Cosine schedule: Nichol and Dhariwal,
# [arXiv:2102.09672](https://arxiv.org/abs/2102.09672). Latent diffusion, scaled linear schedule: Rombach et al.,
# [arXiv:2112.10752](https://arxiv.org/abs/2112.10752). The SNR as the measure of a schedule: Kingma et al.,
# [arXiv:2107.00630](https://arxiv.org/abs/2107.00630). Schedules that do not end at noise: Lin et al.,
# [arXiv:2305.08891](https://arxiv.org/abs/2305.08891). Resolution and schedule: Hoogeboom et al.,
# [arXiv:2301.11093](https://arxiv.org/abs/2301.11093), and Chen, [arXiv:2301.10972](https://arxiv.org/abs/2301.10972).
# Stable Diffusion 3: Esser et al., [arXiv:2403.03206](https://arxiv.org/abs/2403.03206).

# %% [markdown] id="bonus"
# ## Bonus: a schedule that does end at noise
#
# Take the factors $\sqrt{\bar\alpha_t}$ of Stable Diffusion's schedule, shift them down so that the last is 0, and
# stretch them so that the first is what it was. The test of night and snow should then do no better than chance.

# %% id="bonus-run"
root = shares["scaled linear"].sqrt()
zero_end = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2

library = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, rescale_betas_zero_snr=True)
torch.testing.assert_close(zero_end.float(), library.alphas_cumprod, rtol=1e-3, atol=1e-5)

eps = torch.randn(clean.shape, generator=generator)
x_T = add_noise(clean, eps, torch.full((800,), 999), zero_end.float())
right = int(((x_T.mean((1, 2, 3)) > 0) == is_snow).sum())
print(f"at the end {zero_end[-1].sqrt():.3f} of the image is left; night or snow: {right} of 800 right")
print("by chance alone, 372 to 428 are right in 19 cases of 20")
assert 372 <= right <= 428

# %% [markdown] id="bonus-read"
# It has a price. At the last step $x_T$ holds nothing of the image, so the question "which noise is in it?" has the
# trivial answer "all of it", and teaches nothing. A network for such a schedule predicts something else: $v$, a mixture
# of noise and image (chapter 07).
