# %% [markdown] id="title"
# # 05 · Forward diffusion
#
# Nobody knows how to turn noise into a cat. Everybody knows how to turn a cat into noise. This chapter does the easy
# half so exactly that the hard half becomes learnable: chapter 06 trains a network on nothing but what you build here.
#
# ![A spiral of points, a photograph of a cat and a drawn corgi, each dissolving into noise from left to
# right.](../chapters/figures/forward_diffusion.png)
#
# **After this chapter you can**
# 1. take one step of the forward process, and jump to any step at once, and show that both give the same distribution;
# 2. build the three schedules in common use and read off where picture and noise are even;
# 3. say in bits how far the end is from pure noise, and what a model gets wrong because of it.
#
# **Time** 60 minutes of reading, 60 of exercises; all cells take about half a minute on a CPU, and a GPU has nothing
# to do. **You need** chapter 00, and what a normal distribution is.

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
print("Device: cpu. This chapter trains nothing, so a GPU would have nothing to do.")

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $x_0$ | `x0` | a clean picture, or a clean point | (batch, ...) |
# | $x_t$ | `x_t` | the same after step $t$, noisy | as `x0` |
# | $\varepsilon$ | `eps` | standard normal noise | as `x0` |
# | $T$ | `T` | how many steps there are | 1000 |
# | $t$ | `t` | which step: 1 ... T in papers, **0 ... T−1 in code** | (batch,) |
# | $\beta_t$ | `beta[t]` | the variance of the noise that step $t$ adds | `beta`: (T,) |
# | $\alpha_t$ | `1 - beta[t]` | the share of the variance that step $t$ keeps | |
# | $\bar\alpha_t$ | `alpha_bar[t]` | the share that all steps up to $t$ keep | `alpha_bar`: (T,) |
#
# Say "alpha bar" for $\bar\alpha$. `beta[0]` is the paper's $\beta_1$; the clean picture is the paper's $t = 0$ and
# has no index in code.

# %% [markdown] id="toy"
# ## A shape dissolves
#
# Start with something smaller than a picture: 1200 points on a spiral. Each has a colour that it keeps, so that you
# can follow it. Now give every point a small random push, again and again, a thousand times.
#
# **Predict first.** What will the cloud look like after 10 pushes, after 100, after 1000? Where does it end?


# %% id="naive" tags=["static"]
def likeness(a, b):
    """The correlation of two tensors: 1 for the same, 0 for unrelated."""
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
# First the gap between the arms goes, then the spiral; fine things die before coarse ones. So far, so good. But the
# cloud never settles. Variances of independent things add up, so after $n$ pushes it is $1 + 0.01\,n$: there is no
# end from which a model could start to draw. And it remembers: left is still darker than right.
#
# Both have one remedy. Before each push, shrink everything a little towards the middle.

# %% [markdown] id="step-text"
# ## 1 · One small step
#
# $$x_t = \sqrt{1 - \beta_t}\; x_{t-1} + \sqrt{\beta_t}\; \varepsilon, \qquad \varepsilon \sim N(0, I)$$
#
# In words: the new picture $x_t$ is the old one $x_{t-1}$, made smaller by the factor $\sqrt{1-\beta_t}$, plus
# standard normal noise $\varepsilon$ made small by the factor $\sqrt{\beta_t}$.
#
# Why roots? A factor $c$ makes a variance $c^2$ times as large. So if $x_{t-1}$ has variance 1, then $x_t$ has
# $(1-\beta_t)\cdot 1 + \beta_t \cdot 1 = 1$. It is a budget: the noise gets what the picture gives up.
#
# Papers write the same sentence as $q(x_t \mid x_{t-1}) = N(\sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I)$. It is a *Markov*
# step: it looks at $x_{t-1}$ and at nothing before. By hand, for one pixel:

# %% id="step-by-hand"
pixel, push, beta_t = 0.8, -1.3, 0.02

kept = math.sqrt(1 - beta_t) * pixel
added = math.sqrt(beta_t) * push
print(f"kept {kept:.4f} + added {added:.4f} = {kept + added:.4f}")
print(f"variance budget: {math.sqrt(1 - beta_t) ** 2:.2f} + {math.sqrt(beta_t) ** 2:.2f} = 1")

# %% [markdown] id="step-exercise"
# ### Exercise 1 · One step
#
# **Difficulty** ●○○○○ **Minutes** 5. Everything else in this chapter is this line, repeated or added up.
#
# Replace the `raise` line in the first cell below, run both cells, and read what the second one says. `beta_t` may be
# a Python number or a tensor with one; `** 0.5` takes the root of either. If you are stuck, take the `#` away before
# `hint`; each call says a little more. Whatever happens, the chapter goes on: until yours is right, the course's own
# version stands in. All are in the [solved notebook](../solutions/05_forward_diffusion.ipynb).


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
# Now the same thousand pushes with your step. The betas grow from 0.0001 to 0.02 in a straight line: tiny steps while
# there is fine detail to lose, larger ones later. That is the *linear schedule* of the DDPM paper.


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
show(figure, "The spiral dissolves into a round cloud of the same size, in which the colours are thoroughly mixed.")
print(f"correlation of where points are with where they came from: {likeness(spiral[:, 0], frames[999][:, 0]):.2f}")

# %% [markdown] id="chain-read"
# The cloud keeps its size, and at the end the colours are mixed: where a point is no longer tells where it came from.
# (A correlation of 0.03 is what chance gives 1200 points.) This end is the same for *any* data set, a round normal
# cloud; section 6 says how nearly. A model that learns the way back can start from noise that anyone can draw with
# `torch.randn`.

# %% [markdown] id="two-steps-text"
# ## 2 · A thousand steps in one jump
#
# Training needs $x_t$ for random $t$, millions of times. Must we walk there? Take two steps and look:
#
# $$x_2 = \sqrt{\alpha_2}\bigl(\underbrace{\sqrt{\alpha_1}\,x_0 + \sqrt{\beta_1}\,\varepsilon_1}_{x_1}\bigr)
#   + \sqrt{\beta_2}\,\varepsilon_2
#   = \sqrt{\alpha_1\alpha_2}\;x_0 + \sqrt{\alpha_2\beta_1}\,\varepsilon_1 + \sqrt{\beta_2}\,\varepsilon_2$$
#
# with $\alpha_t = 1-\beta_t$, what a step keeps. Two independent normal numbers add up to one normal number whose
# variance is the sum: $\alpha_2\beta_1 + \beta_2$. Put in $\beta = 1-\alpha$ and it is
# $\alpha_2 - \alpha_1\alpha_2 + 1 - \alpha_2 = 1 - \alpha_1\alpha_2$. So the two noises are *one* noise, and what the
# picture gives up is again exactly what the noise gets. With numbers:

# %% id="two-steps"
beta_1, beta_2 = 0.1, 0.2
alpha_1, alpha_2 = 1 - beta_1, 1 - beta_2
print(f"variance kept of the picture  {alpha_1 * alpha_2:.2f}")
print(f"variance of the two noises    {alpha_2 * beta_1 + beta_2:.2f}")
print(f"1 minus what is kept          {1 - alpha_1 * alpha_2:.2f}")

# %% [markdown] id="alpha-bar-exercise"
# The same argument carries on from 2 to 3 and so to any $t$. What all steps keep is a product:
#
# $$\bar\alpha_t = \alpha_1\,\alpha_2 \cdots \alpha_t = \prod_{s=1}^{t} (1 - \beta_s)$$
#
# ### Exercise 2 · What all steps keep
#
# **Difficulty** ●○○○○ **Minutes** 5. One table, made once, replaces every walk.


# %% id="alpha-bar"
def alpha_bar_from_beta(beta):
    """alpha_bar_t = product over s = 1 ... t of (1 - beta_s); beta and the result: (T,)."""
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
# In words: the clean picture times the root of the share that is left, plus *one* noise times the root of the rest.
# Each sample of the batch has its own $t$. `alpha_bar[t]` has shape (batch,); the pictures have (batch, channels,
# height, width). `expand_like(values, x0)` gives the values as many axes as `x0` has, so that they multiply.


# %% id="add-noise"
def add_noise(x0, eps, t, alpha_bar):
    """x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps; x0, eps: (batch, ...), t: (batch,)."""
    ### BEGIN SOLUTION
    #: the share of the picture that is left for each sample, with the axes of x0
    share = expand_like(alpha_bar[t], x0)  # (batch, 1, ..., 1)
    #: the picture times one root, the noise times the other
    return share.sqrt() * x0 + (1 - share).sqrt() * eps
    ### END SOLUTION


# %% id="add-noise-check"
add_noise = check("05.add_noise", add_noise)
# hint("05.add_noise")

# %% [markdown] id="same-text"
# ### Is the jump the walk?
#
# Not for one pixel: the walk used a thousand noises, the jump used another one. The claim is that both have the same
# *distribution*. So let 20 000 pixels start at 0.8, walk them all, jump them all, and compare with what the formula
# says: mean $\sqrt{\bar\alpha_t}\,x_0$, standard deviation $\sqrt{1-\bar\alpha_t}$.

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
# Mean and spread agree within what 20 000 samples allow: the assertions demand it to five standard errors. But two
# distributions can share both and still differ. So now the whole shape, from a start that is not normal at all: two
# peaks, 40 % of the pixels near −1.2, 60 % near 0.8. The *Kolmogorov–Smirnov distance* is the largest gap between two
# cumulative histograms.

# %% id="shape"
from scipy.stats import ks_2samp


def two_peaks(number, generator):
    """Numbers near -1.2 (40 %) and 0.8 (60 %), each with spread 0.2: mean 0, variance 1; shape (number, 1)."""
    low = torch.rand(number, 1, generator=generator) < 0.4
    return torch.where(low, -1.2, 0.8) + 0.2 * torch.randn(number, 1, generator=generator)


x0 = two_peaks(20_000, generator)
walk = dict(enumerate(chain(x0, beta, generator)))
for t in (9, 99, 299, 999):
    jumped = add_noise(x0, torch.randn(x0.shape, generator=generator), torch.full((20_000,), t), alpha_bar)
    distance = ks_2samp(walk[t].flatten(), jumped.flatten()).statistic
    print(
        f"t = {t:3}: walk and jump differ by {distance:.4f}; walk and clean by "
        f"{ks_2samp(walk[t].flatten(), x0.flatten()).statistic:.4f}"
    )
    assert distance < 0.02

# %% [markdown] id="density-text"
# The distance between walk and jump is what chance gives two samples of this size (below 0.0136 in 19 cases of 20);
# the distance to the clean ones is real. Here is all of it in one picture. The colours are the exact density of $x_t$
# (its root, so that thin places show too; yellow is likely, violet is not): each peak of the data becomes a normal bump
# with mean $\sqrt{\bar\alpha_t}\,c$ and variance $\bar\alpha_t\, s^2 + 1 - \bar\alpha_t$, for a peak at $c$ with
# spread $s$. The white lines are eight of your walks.


# %% id="two-peaks"
def density(x, share):
    """The density of x_t for the two peaks, where the share alpha_bar_t is left; x and share broadcast."""
    std = (share * 0.2**2 + 1 - share).sqrt()
    bumps = [w * torch.exp(-(((x - share.sqrt() * c) / std) ** 2) / 2) / std for w, c in ((0.4, -1.2), (0.6, 0.8))]
    return sum(bumps) / math.sqrt(2 * math.pi)


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
show(figure, "Two sharp peaks melt into one round bump while eight wiggling walks wander between them.")

# %% [markdown] id="density-read"
# Two peaks go in, one bump comes out. Look where the two bright bands merge: left of it, a walk knows from which peak
# it came; right of it, hardly. This is where a model that goes backwards must *decide*.

# %% [markdown] id="package-text"
# ### The same in the package, and in diffusers
#
# From here on the course imports these functions from `course_utils.diffusion.schedules`. Are they yours? And are both what the
# library `diffusers` computes, with which Stable Diffusion is trained and run?

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
# This is Chelsea, a cat that lives in scikit-image. Her 128 · 128 · 3 numbers, in [−1, 1], are one point in a space of
# 49 152 dimensions. Nothing changes: each number is treated like a coordinate of the spiral.
#
# **Predict first.** The jump to $t = 500$ is half the way. Is half of the cat left?

# %% id="cat" tags=["static"]
cat = photos.load("chelsea", size=128)  # (1, 3, 128, 128)
noise = torch.randn(cat.shape, generator=generator)
t = torch.tensor([50, 150, 300, 500])

film = add_noise(cat.expand(4, -1, -1, -1), noise.expand(4, -1, -1, -1), t, alpha_bar)
titles = ["clean"] + [f"t = {i}, {100 * alpha_bar[i]:.2g}% left" for i in t.tolist()]
show(
    plot_pictures(torch.cat([cat, film]), titles, columns=5),
    "The cat under more and more noise: first her whiskers go, then her stripes, then her eyes; at last she is gone.",
)

# %% [markdown] id="snr-text"
# Half way, 8 % of her variance is left, and she is gone. Or is she? Squint. Section 7 will find her. (Values beyond
# ±1 are shown as black or white: the noise is larger than a screen can show.)
#
# To speak of noise levels without counting steps, compare the two shares:
#
# $$\text{SNR}_t = \frac{\bar\alpha_t}{1 - \bar\alpha_t}$$
#
# In words: the *signal-to-noise ratio* is the variance that comes from the picture, divided by the variance that comes
# from the noise (for a picture of variance 1). At 1 they are even.
#
# ### Exercise 4 · Signal to noise
#
# **Difficulty** ●○○○○ **Minutes** 3. Schedules with different $T$ become comparable, and so do papers.


# %% id="snr"
def snr(alpha_bar):
    """SNR_t = alpha_bar_t / (1 - alpha_bar_t); alpha_bar and the result have one shape, (T,) or any other."""
    ### BEGIN SOLUTION
    #: variance from the picture over variance from the noise
    return alpha_bar / (1 - alpha_bar)
    ### END SOLUTION


# %% id="snr-check"
snr = check("05.snr", snr)
# hint("05.snr")

# %% [markdown] id="explore-noise-text"
# ### Slide through time
#
# **Predict first.** At which $t$ is the SNR 1? Half way? And what becomes of the histogram of the cat's pixel values,
# which has a shape of its own, as $t$ grows? Three settings as still pictures; below them the live control.

# %% id="film-noise" tags=["static"]
from course_utils.widgets import explore, filmstrip, noise_explorer, schedule_explorer

kitten = photos.load("chelsea", size=64)  # the same cat on fewer pixels
noise_on_cat = noise_explorer(kitten)
filmstrip(noise_on_cat, [{"t": 20}, {"t": 259}, {"t": 900}])

# %% id="explore-noise"
explore(noise_on_cat)

# %% [markdown] id="explore-noise-read"
# The SNR is 1 at $t = 259$, a quarter of the way. Yet she is hardly to be seen there: the SNR speaks of a picture of
# variance 1, and hers is far smaller (section 5). The histogram loses its own shape and slides under the dashed bell
# of $N(0, 1)$. Note the scale of the SNR: it is logarithmic, and covers more than eight powers of ten.

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
# $$\bar\alpha_t = \frac{f(t)}{f(0)}, \quad f(t) = \cos^2\!\Bigl(\frac{t/T + s}{1 + s}\cdot\frac{\pi}{2}\Bigr), \quad
#   \beta_t = \min\Bigl(1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}},\ 0.999\Bigr)$$
#
# In words: the share that is left falls from 1 to 0 like a squared cosine over a quarter of its wave, and $\beta_t$ is
# what step $t$ takes of what was left before it. The offset $s = 0.008$ keeps the first steps from being too tiny. The
# minimum matters at the last step, where $f(T) = 0$: a $\beta$ of 1 would leave nothing at all, and formulas that
# divide by $\sqrt{\bar\alpha_t}$ would break.

# %% [markdown] id="cosine-exercise"
# ### Exercise 5 · The cosine schedule
#
# **Difficulty** ●●●○○ **Minutes** 15. Here the time of the paper, $t = 0 \dots T$, has one moment more than the code
# has betas: you need $f$ at $T + 1$ moments for $T$ ratios.


# %% id="cosine"
def cosine_beta(T):
    """beta_t = min(1 - f(t) / f(t-1), 0.999), f(t) = cos^2((t/T + s)/(1 + s) pi/2), s = 0.008; float32 (T,)."""
    ### BEGIN SOLUTION
    #: the paper's times 0 ... T: one more than betas (float64 keeps the small differences exact)
    t = torch.arange(T + 1, dtype=torch.float64)
    #: f at each of them
    f = torch.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2
    #: 1 minus each f over the one before, at most 0.999
    return (1 - f[1:] / f[:-1]).clamp(max=0.999).float()
    ### END SOLUTION


# %% id="cosine-check"
cosine_beta = check("05.cosine_beta", cosine_beta)
# hint("05.cosine_beta")

# %% [markdown] id="curves-text"
# All three; the table below also compares them with the library's, which have other names there. The dotted lines mark
# where picture and noise are even.

# %% id="curves" tags=["static"]
betas = {
    "linear": schedules.linear_beta(),
    "scaled linear": schedules.scaled_linear_beta(),
    "cosine": cosine_beta(1000).float(),
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
    "Three schedules: the cosine keeps the picture longest and ends with the least of it; Stable Diffusion's "
    "scaled linear one ends with the most.",
)

# %% id="schedule-table"
names = {
    "linear": ("linear", 1e-4, 0.02),
    "scaled linear": ("scaled_linear", 0.00085, 0.012),
    "cosine": ("squaredcos_cap_v2", 1e-4, 0.02),
}  # the cosine takes no end points
print("schedule        first SNR   even at t   SNR in 0.01...100   sqrt(alpha_bar) at the end")
for name, (kind, first, last) in names.items():
    library = DDPMScheduler(beta_schedule=kind, beta_start=first, beta_end=last)
    torch.testing.assert_close(betas[name], library.betas, rtol=1e-3, atol=1e-6)
    ratio = snr(shares[name])
    busy = ((ratio > 0.01) & (ratio < 100)).double().mean()
    print(f"{name:13} {ratio[0]:11.0f} {int((ratio > 1).sum()):11} {busy:18.0%} {shares[name][-1].sqrt():18.5f}")

# %% [markdown] id="curves-read"
# Read the table as a time budget. The network meets every $t$ equally often. Where the SNR is above 100 there is
# hardly any noise to see, below 0.01 hardly any picture. Of its thousand steps the linear schedule spends the last
# third there, in the dark: that is what the cosine schedule was invented to mend.
#
# And see the last column. Two schedules end with almost nothing of the picture. Stable Diffusion's ends with the
# factor 0.068, which is little, but is not nothing. Keep that number in mind.

# %% [markdown] id="schedule-corgis-text"
# What it looks like, on a page of the picture book, with the same noise everywhere:

# %% id="schedule-corgis" tags=["static"]
corgi = picture_book.Scene((picture_book.Thing("corgi", pose="sitting"),), "grass", seed=4)
page = picture_book.pictures([corgi])  # (1, 3, 64, 64)
page_noise = torch.randn(page.shape, generator=generator)
t = torch.tensor([100, 250, 400, 550, 700])
rows = [
    add_noise(page.expand(5, -1, -1, -1), page_noise.expand(5, -1, -1, -1), t, share.float())
    for share in shares.values()
]
titles = [f"{name}, t = {i}" for name in shares for i in t.tolist()]
show(
    plot_pictures(torch.cat(rows), titles, columns=5),
    "One corgi, one noise, the same times, a row for each schedule: with the cosine she can be seen much longer.",
)

# %% [markdown] id="explore-schedule-text"
# ### Build your own
#
# **Predict first.** Take the linear schedule and only change $T$ from 1000 to 100, betas as before. What is left of
# the picture at the end? And with $T = 1000$, but a last beta of 0.002?

# %% id="film-schedule" tags=["static"]
own_schedule = schedule_explorer()
filmstrip(own_schedule, [{}, {"T": 100}, {"last_beta": 0.002}])

# %% id="explore-schedule"
explore(own_schedule)

# %% [markdown] id="T-text"
# ### How large is "T large enough"?
#
# Books say that $x_T$ is noise "for $T$ large enough". It is not $T$ that counts. For small betas
# $\ln(1-\beta) \approx -\beta$, so
#
# $$\bar\alpha_T = \prod_t (1 - \beta_t) \approx \exp\Bigl(-\sum_t \beta_t\Bigr)$$
#
# In words: what is left falls exponentially with the *sum* of the betas. Now the sum for several $T$, once with
# the same end points, once with betas enlarged by $1000/T$.

# %% id="T-large"
print("   T   betas         sum of betas   sqrt(alpha_bar_T)   exp(-sum/2)")
for T in (50, 100, 1000, 4000):
    for scale in sorted({1.0, 1000 / T}):
        b = schedules.linear_beta(T, start=1e-4 * scale, end=0.02 * scale)
        left = alpha_bar_from_beta(b.double())[-1].sqrt()
        print(f"{T:4}   x {scale:<8g} {b.sum():13.2f} {left:19.2e} {torch.exp(-b.sum() / 2):13.1e}")

# %% [markdown] id="T-read"
# Large enough means: the betas add up to about 10, in however many steps. Fifty bold steps end about where a thousand
# timid ones end. (In the film above, the second and the third row end alike: both sums are near 1.) What many small
# steps buy is something else: the way *back* is then made of steps so small that each is nearly normal (chapter 07).

# %% [markdown] id="variance-text"
# ## 5 · When is the variance preserved?
#
# The process is called *variance preserving*. Is it? $x_0$ and $\varepsilon$ know nothing of each other, so their
# variances add:
#
# $$\text{Var}(x_t) = \bar\alpha_t\,\text{Var}(x_0) + (1 - \bar\alpha_t)$$
#
# In words: the variance of the noisy picture is the share that is left, times the variance of clean pictures, plus the
# share of the noise, whose variance is 1. It stays 1 only if $\text{Var}(x_0) = 1$.
#
# ### Exercise 6 · The variance at time t
#
# **Difficulty** ●●○○○ **Minutes** 5. It tells what sizes of numbers the network will meet.
#
# `alpha_bar` is a tensor of any shape, `x0_variance` a number or a tensor with one. An example: where `alpha_bar` is
# 0.5, pictures of variance 0.25 have become noisy ones of variance 0.625.


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
# Four data sets: the points, which were made with variance 1; handwritten digits of 8 · 8 pixels; forty pages of the
# picture book; the cat. $\text{Var}$ is taken over all their numbers together. The lines are your formula, the dots
# are measured.

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
show(figure, "Only the points keep variance 1; digits, picture book and cat start lower and climb to 1.")

# %% [markdown] id="variance-read"
# The digits have about 0.57, the picture book a quarter, the cat a ninth. Nothing breaks: the drift is known and
# smooth. But the true ratio of picture to noise is $\text{Var}(x_0)\cdot\text{SNR}_t$, so for the cat *the same
# schedule is a noisier one*. Two ways out: another schedule, or data scaled to variance 1. Latent diffusion does the
# second, with one constant (chapter 09).

# %% id="scaling"
import json

from course_utils.pipelines.picture_book import PICTURE_BOOK

for name, x0 in worlds.items():
    print(f"{name:13} picture and noise are truly even at t = {int((x0.var() * snr(alpha_bar) > 1).sum())}")
factor = json.loads((PICTURE_BOOK / "vae" / "config.json").read_text())["scaling_factor"]
print(f"latents are multiplied by {factor:.3f} in the course's model, by 0.18215 in Stable Diffusion v1.5")

# %% [markdown] id="kl-text"
# ## 6 · How far is the end from pure noise?
#
# Sampling will start from $N(0, I)$, training ends at $q(x_T \mid x_0) = N(\sqrt{\bar\alpha_T}\,x_0,\
# (1-\bar\alpha_T) I)$. The usual measure of the gap is the *KL divergence*. For one dimension with mean $m$ and
# variance $v$ it is $\tfrac12 (v + m^2 - 1 - \ln v)$ nats. Put in $m$ and $v$, average over the $d$ dimensions, and
# divide by $\ln 2$ to have bits:
#
# $$\frac{\text{KL}}{d} = \frac{1}{2 \ln 2}\Bigl(\bar\alpha_t\,\bigl(\overline{x_0^2} - 1\bigr)
#   - \ln(1 - \bar\alpha_t)\Bigr)$$
#
# where $\overline{x_0^2}$ is the mean square of the picture's numbers. In words: how many bits a dimension would be
# wasted by one who takes $x_T$ for pure noise.

# %% [markdown] id="kl-exercise"
# ### Exercise 7 · The distance to noise
#
# **Difficulty** ●●●●○ **Minutes** 20. It turns "almost pure noise" into a number; papers call it $L_T$.
#
# Return one number for each sample, whatever axes samples have: `.flatten(1).mean(1)` averages over all but the first.
# `alpha_bar_t` is a tensor with one number, such as `alpha_bar[-1]`. Tip: `torch.log1p(-a)` is $\ln(1 - a)$, exact even
# where $a$ is tiny. An example: for `x0 = torch.zeros(1, 3, 8, 8)` and `torch.tensor(0.5)` it is 0.139 bits.


# %% id="kl"
def kl_to_normal(x0, alpha_bar_t):
    """KL(q(x_t | x0) || N(0, I)) in bits per dimension; x0: (batch, ...), alpha_bar_t: a tensor (); (batch,)."""
    ### BEGIN SOLUTION
    share = expand_like(alpha_bar_t, x0)  # (1, 1, ..., 1)
    nats = (share * (x0**2 - 1) - torch.log1p(-share)) / 2  # of each dimension: (v + m^2 - 1 - ln v) / 2
    return nats.flatten(1).mean(1) / math.log(2)
    ### END SOLUTION


# %% id="kl-check"
kl_to_normal = check("05.kl_to_normal", kl_to_normal)
# hint("05.kl_to_normal")

# %% [markdown] id="kl-run-text"
# Now in numbers, at the end of each schedule, and for the picture book's pages: per dimension, and for a whole page of
# 3 · 64 · 64 = 12 288 dimensions. The last line is the mistake of the explorer: 100 steps with the betas of 1000.

# %% id="kl-run"
ends = {name: share[-1] for name, share in shares.items()}
ends["linear, T=100"] = alpha_bar_from_beta(schedules.linear_beta(100).double())[-1]

print("schedule        sqrt(alpha_bar_T)   bits a dimension   bits a page")
for name, share in ends.items():
    bits = kl_to_normal(pages.double(), share).mean()
    print(f"{name:13} {share.sqrt():17.6f} {bits:20.2e} {bits * pages[0].numel():13.2g}")

# %% [markdown] id="kl-read"
# A thousandth of a bit in each dimension, for Stable Diffusion's schedule: that looks like nothing. But a page has
# 12 288 dimensions, and fifteen bits are *not* nothing. They leave room for the answers to some yes-or-no
# questions about the picture, fifteen at most. Which ones?

# %% [markdown] id="failure-text"
# ## A failure, explained: dark or light?
#
# Take forty cats at night and forty in the snow. Add noise up to the very last step. Then let a judge without any
# training guess which was which, by one number: the mean of all pixels of $x_T$.
#
# **Predict first.** How often is it right with each schedule? Here are two pages and their $x_T$. Can *you* tell?


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
    guess = x_T.mean((1, 2, 3)) > share[-1].sqrt() * between
    right = (guess == is_snow).double().mean()
    print(
        f"{name:13} pages of mean {night.mean():+.2f} and {snow.mean():+.2f} become "
        f"{x_T[~is_snow].mean():+.4f} and {x_T[is_snow].mean():+.4f}: guessed right {right:.0%}"
    )
    assert (right > 0.9) == (name == "scaled linear")

# %% [markdown] id="failure-read"
# To the eye it is noise; to an average it is an open book. The noise of 12 288 numbers averages out to
# $1/\sqrt{12288}$, while the brightness, which all of them share, survives at 0.068 of its size.

# %% id="averaging"
print(f"the mean of pure noise has the standard deviation {1 / math.sqrt(12288):.4f}")
gap = shares["scaled linear"][-1].sqrt() * (snow.mean() - night.mean())
print(f"night and snow lie {gap:.4f} apart at the end: {gap * math.sqrt(12288):.1f} of these")

# %% [markdown] id="failure-why"
# A network finds this out. It learns that *the mean of $x_T$ tells how bright the picture is*. At sampling we then
# hand it true noise, whose mean is always near 0, and it believes: medium bright. Lin et al. (see the papers below)
# found that this is why Stable Diffusion hardly ever draws a really dark or really bright picture, whatever the prompt
# says. The cure is a schedule that ends at $\bar\alpha_T = 0$; you build one in the bonus.

# %% [markdown] id="resolution-text"
# ## 7 · Large pictures hide less
#
# The same power of averaging finds the cat. If neighbouring pixels are alike, the mean of a block of $k \cdot k$
# pixels keeps the picture, but its noise has $1/k^2$ of the variance. So
#
# $$\text{SNR of the averaged picture} \approx k^2 \cdot \text{SNR}_t$$
#
# **Predict first.** One cat has 192 · 192 pixels, another 32 · 32, so $k = 6$. Both get noise of the *same* schedule at
# the *same* $t$. Which one is destroyed first?

# %% id="resolution" tags=["static"]
from torch.nn.functional import avg_pool2d

large = photos.load("chelsea", size=192)
small = avg_pool2d(large, 6)  # (1, 3, 32, 32)
eps_large = torch.randn(large.shape, generator=generator)
eps_small = torch.randn(small.shape, generator=generator)

seen = add_noise(large, eps_large, torch.tensor([400]), alpha_bar)
direct = add_noise(small, eps_small, torch.tensor([400]), alpha_bar)
averaged = avg_pool2d(seen, 6) / alpha_bar[400].sqrt()  # divided, so that the contrast is as it was
blown_up = [x.repeat_interleave(6, 2).repeat_interleave(6, 3) for x in (averaged, direct)]
titles = ["192 pixels wide, t = 400", "the same, averaged to 32", "32 pixels wide, t = 400"]
show(
    plot_pictures(torch.cat([seen, *blown_up]), titles, columns=3),
    "At equal t the large picture still shows the cat, most of all when averaged; the small one hardly does.",
)

# %% id="resolution-numbers"
for t in (300, 500, 700):
    seen = avg_pool2d(add_noise(large, eps_large, torch.tensor([t]), alpha_bar), 6)
    direct = add_noise(small, eps_small, torch.tensor([t]), alpha_bar)
    rest = (seen - alpha_bar[t].sqrt() * small).var() / (1 - alpha_bar[t])  # the noise that averaging leaves
    earlier = int((snr(alpha_bar) > 36 * snr(alpha_bar[t])).sum())
    before = add_noise(small, eps_small, torch.tensor([earlier]), alpha_bar)
    print(f"t = {t}: averaging leaves {rest:.4f} of the noise's variance; 1/36 is {1 / 36:.4f}")
    print(
        f"  correlation with the clean small cat: averaged {likeness(seen, small):.2f}, noised small "
        f"{likeness(direct, small):.2f}, noised small at t = {earlier} {likeness(before, small):.2f}"
    )

# %% [markdown] id="resolution-read"
# The last number of each line takes the small cat at the earlier $t$ where the SNR is 36 times as high: it is that of
# the averaged large cat. On the large picture, every $t$ is a milder one.

# %% [markdown] id="resolution-shift"
# A schedule made for small pictures destroys large ones too late: at high resolution most of its steps leave the
# coarse layout readable, and the network never learns to invent it. So models for large pictures shift the schedule
# towards more noise: by $k^2$ in SNR for a side $k$ times as long (Hoogeboom et al.; Stable Diffusion 3 shifts its
# times in the same spirit). And it is one more reason to diffuse in small latents.

# %% [markdown] id="worlds-text"
# ## Three worlds, one formula
#
# Points, a photograph, and a page of the picture book, at the same five moments of the cosine schedule. Every training
# picture of the model that you will build is a column of the last row, with a random noise and a random $t$.

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
# Six sentences that many articles repeat, and a run against each.
#
# - **"Noise is added until the image is exactly $N(0, I)$."** Almost, and section 6 says how almost.
# - **"$x_t = \bar\alpha_t x_0 + (1 - \bar\alpha_t)\,\varepsilon$."** The roots are missing.
# - **"The variance stays 1."** Only for data of variance 1.
# - **"At time $t$ the picture has noise of variance $\beta_t$."** That is what *one step* adds.

# %% id="elsewhere-numbers"
for name, share in shares.items():
    print(f"exactly N(0, I)?    {name:13} keeps the factor {share[-1].sqrt():.5f} of the picture, not 0")
a = alpha_bar[258]
print(f"without the roots:  at t = 258 variance 1 becomes {a**2 + (1 - a) ** 2:.3f}; with them {a + (1 - a):.3f}")
print(f"variance stays 1?   digits start with {worlds['digits'].var():.2f}, the cat with {cat.var():.2f}")
print(f"noise at t = 500:   beta is {beta[500]:.3f}, but 1 - alpha_bar is {1 - alpha_bar[500]:.3f}")
assert abs(a**2 + (1 - a) ** 2 - 0.5) < 0.01 and min(share[-1] for share in shares.values()) > 0

# %% [markdown] id="elsewhere-gauss"
# **"$q(x_t)$ is a Gaussian", "the marginals are known".** Given *one* picture, $q(x_t \mid x_0)$ is a Gaussian. But
# over all pictures $q(x_t)$ is a mixture with one bump for each of them, and nobody knows it, since nobody has all
# pictures. This is why Bayes' rule alone does not give the way back (chapter 07). A Gaussian has excess kurtosis 0:

# %% id="elsewhere-gauss-run"
from scipy.stats import kurtosis

one = torch.full((20_000, 1), 0.8)
many = two_peaks(20_000, generator)
for t in (49, 149, 999):
    eps = torch.randn(one.shape, generator=generator)
    given, marginal = (add_noise(x0, eps, torch.full((20_000,), t), alpha_bar) for x0 in (one, many))
    narrow, broad = kurtosis(given).item(), kurtosis(marginal).item()
    print(f"t = {t:3}: excess kurtosis of q(x_t | x0) {narrow:+.2f}, of q(x_t) {broad:+.2f}")
    assert abs(narrow) < 0.2 and (t == 999 or broad < -0.4)

# %% [markdown] id="elsewhere-walk"
# **"To train, noise is added to the image step by step."** Nobody does. The closed form is the reason why diffusion
# models can be trained at all: the walk costs $t$ times as much and gives the same distribution.

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
# | $\bar\alpha_t = \prod_{s \le t} (1-\beta_s)$ | `(1 - beta).cumprod(0)` |
# | $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$ | `add_noise(x0, eps, t, alpha_bar)` |
# | $\text{SNR}_t = \bar\alpha_t / (1-\bar\alpha_t)$ | `snr(alpha_bar)` |
# | $\text{Var}(x_t) = \bar\alpha_t \text{Var}(x_0) + 1 - \bar\alpha_t$ | `variance_at(alpha_bar, x0_variance)` |
# | $\text{KL}(q(x_T \mid x_0) \,\Vert\, N(0, I))$ | `kl_to_normal(x0, alpha_bar[-1])` |
#
# The forward process has no parameters and learns nothing. It is a machine that makes exercises of every difficulty
# from one picture: *here is $x_t$; which noise is in it?* Chapter 06 gives them to a network.

# %% [markdown] id="questions"
# `progress()`, in a cell of its own, shows which exercises of the course you have solved.
#
# ### To think about
#
# Open a line for the answer.
#
# <details><summary>1. A schedule with T = 500 uses every second alpha_bar of a schedule with T = 1000. What are its
# betas?</summary>
# One minus the ratio of neighbours that are left: 1 − ᾱ₂/ᾱ₀ and so on, about twice the old ones. The jump does not
# care how many steps lie between; that is why a sampler may later skip steps.
# </details>
# <details><summary>2. You multiply all pictures by 3 and keep the schedule. Which change of the schedule would have
# done the same?</summary>
# One to 9 times the SNR at every t: scaling the data and shifting the schedule are one thing.
# </details>
# <details><summary>3. Why can you not run the walk backwards, with noise taken away instead of added?</summary>
# You do not know which noise was added. Many pairs of picture and noise give the same noisy picture; the way back
# needs to know which pictures are likely, and that has to be learned.
# </details>

# %% [markdown] id="papers"
# **Papers** The idea: Sohl-Dickstein et al., [arXiv:1503.03585](https://arxiv.org/abs/1503.03585). DDPM, linear
# schedule: Ho et al., [arXiv:2006.11239](https://arxiv.org/abs/2006.11239). Cosine schedule: Nichol and Dhariwal,
# [arXiv:2102.09672](https://arxiv.org/abs/2102.09672). Latent diffusion, scaled linear schedule: Rombach et al.,
# [arXiv:2112.10752](https://arxiv.org/abs/2112.10752). SNR as the one thing that counts: Kingma et al.,
# [arXiv:2107.00630](https://arxiv.org/abs/2107.00630). Schedules that do not end at noise: Lin et al.,
# [arXiv:2305.08891](https://arxiv.org/abs/2305.08891). Resolution and schedule: Hoogeboom et al.,
# [arXiv:2301.11093](https://arxiv.org/abs/2301.11093), and Chen,
# [arXiv:2301.10972](https://arxiv.org/abs/2301.10972).

# %% [markdown] id="bonus"
# ## Bonus: a schedule that does end at noise
#
# Take the factors $\sqrt{\bar\alpha_t}$ of Stable Diffusion's schedule, move them down so that the last is 0, and
# stretch them so that the first is what it was. The judge of section 6 is then left with a coin.

# %% id="bonus-run"
root = shares["scaled linear"].sqrt()
mended = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2

library = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, rescale_betas_zero_snr=True)
torch.testing.assert_close(mended.float(), library.alphas_cumprod, rtol=1e-3, atol=1e-5)

eps = torch.randn(clean.shape, generator=generator)
x_T = add_noise(clean, eps, torch.full((800,), 999), mended.float())
right = ((x_T.mean((1, 2, 3)) > 0) == is_snow).double().mean()
print(f"at the end {mended[-1].sqrt():.3f} of the picture is left; night or snow guessed right: {right:.0%}")

# %% [markdown] id="bonus-read"
# It has a price. At the last step $x_T$ holds nothing of the picture, so "which noise is in it?" has the trivial
# answer "all of it". A network for such a schedule predicts something else, $v$ (chapter 07).
