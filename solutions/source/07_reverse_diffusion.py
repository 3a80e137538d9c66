# %% [markdown] id="title"
# # 07 · Reverse diffusion and samplers
#
# A network can predict the noise in an image. How do you get from there to a new image? You take a small step back,
# evaluate the network again, and repeat. This chapter is about that step: what theory allows, four ways to take it, and
# how many steps are enough.
#
# ![Six images, one in each row, coming out of noise from left to right](../chapters/figures/07_way_back.png)
#
# **After this chapter you can**
# 1. say why $q(x_{t-1} \mid x_t)$ is out of reach, and derive its tractable relative, $q(x_{t-1} \mid x_t, x_0)$;
# 2. write DDPM, DDIM, DPM-Solver++ 2M and Heun, each equal to diffusers' version to float tolerance;
# 3. turn a predicted noise into a score, and check it against the gradient of a known density;
# 4. measure the order of a sampler where the truth is known, and find where more steps stop helping a real network.
#
# **Time** about three hours, 90 minutes of them for nine exercises. The one training takes one to two minutes on a
# CPU, the comparison of samplers four to eight. **You need** from chapter 05 $\bar\alpha_t$ and `add_noise`; from
# chapter 06 the network that predicts $\varepsilon$, `x0_from_eps`, and the average $\mathbb{E}[x_0 \mid x_t]$.

# %% id="set-up"
import math

import matplotlib.pyplot as plt
import torch

from course_utils.data import digits, points
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.plotting import LivePlot, plot_pictures, plot_points, show, use_style

use_style()
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | meaning | shape |
# |:--|:--|:--|:--|
# | $x_t$ | `x_t` | a noisy image or point at time $t$ | (batch, ...) |
# | $t$, "$t-1$" | `t`, `earlier` | a time, and the *next one to go to*; not always one less | whole numbers |
# | $\bar\alpha_t$ | `alpha_bar_at(alpha_bar, t)` | the share of the clean image's variance that is left | a number |
# | $\alpha_t$, $\beta_t$ | `alpha`, `beta` | $\bar\alpha_t / \bar\alpha_{t-1}$, which a step keeps, and $1 - \alpha_t$ | numbers |
# | $\hat\varepsilon$ or $\varepsilon_\theta$ | `eps` | the noise that the model predicts in $x_t$ | as `x_t` |
# | $\hat x_0$ | `x0_hat` | the clean image that follows from it | as `x_t` |
# | $\tilde\mu_t$, $\tilde\beta_t$ | `mean`, `variance` | mean and variance of $q(x_{t-1} \mid x_t, x_0)$ | as `x_t`; a number |
# | $\sigma_t$, $\varepsilon'$ | `sigma`, `noise` | standard deviation of the fresh noise in a step; that noise, $\mathcal{N}(0, I)$ | a number; as `x_t` |
# | $\eta$ | `eta` | share of fresh noise. 0: none, 1: as much as DDPM | a number |
# | $\tilde\sigma_t$, $\bar x$ | `s`, `x_t / a**0.5` | noise-to-signal ratio $\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}$; $x_t/\sqrt{\bar\alpha_t}$ | a number; as `x_t` |
# | $v$ | `v` | $\sqrt{\bar\alpha_t}\,\varepsilon - \sqrt{1-\bar\alpha_t}\,x_0$ | as `x_t` |
# | $p_t$, $\nabla \log p_t$ | `log_density`, `score` | density of all $x_t$; gradient of its logarithm, the *score* | a number; as `x_t` |
# | $\lambda_t$, $h$ | `lam`, `h` | half the logarithm of the signal-to-noise ratio (SNR); its growth in a step | numbers |
# | $\hat x_0^\text{before}$, $h_\text{before}$ | `x0_hat_before`, (yours) | $\hat x_0$ and $h$ of the step before | as `x_t`; a number |
# | $\hat x_0'$ | (yours) | $\hat x_0$ extrapolated to the middle of a step | as `x_t` |
# | $\varepsilon_1$, $x'$, $\varepsilon_2$ | (yours) | Heun's step: $\hat\varepsilon$ here, the trial step, $\hat\varepsilon$ there | as `x_t` |
# | $\varphi_t$ | | the angle with cosine $\sqrt{\bar\alpha_t}$ and sine $\sqrt{1-\bar\alpha_t}$ | a number |
#
# Code counts $t$ from 0 to $T-1$. The clean image is $t = -1$, where $\bar\alpha = 1$.

# %% id="schedule"
T = 1000
alpha_bar = alpha_bar_from_beta(scaled_linear_beta(T))  # (1000,), Stable Diffusion's schedule


def alpha_bar_at(alpha_bar, t):
    """alpha_bar at time t as a number; 1 at t = -1, the clean image."""
    return 1.0 if t == -1 else alpha_bar[t].item()


print(f"alpha_bar[-1] is the table's *last* entry, {alpha_bar[-1]:.4f}; alpha_bar_at(alpha_bar, -1) is 1")

# %% [markdown] id="toy"
# ## Three ways back that look right
#
# To judge a sampler we need a world in which the model makes no errors: eight round blobs of points on a ring. For such
# a mixture of Gaussians the best $\hat\varepsilon$ has a formula, `mixture_eps`, a relative of chapter 06's average.
# So whatever goes wrong below is the sampler's fault.
#
# Start from pure noise, $x_T$. **Predict first:** what does each of these give?
#
# - **Rewind:** a thousand times, remove fresh noise: solve $x_t = \sqrt{\alpha_t}\,x_{t-1} + \sqrt{\beta_t}\,\varepsilon'$
#   for $x_{t-1}$, with a new $\varepsilon'$ each time.
# - **Jump:** evaluate the model once, and go straight to $\hat x_0$.
# - **Straight on:** evaluate it once, then remove this $\hat\varepsilon$ in a thousand portions.
#
# <details><summary>Answer (after running the cells below)</summary>
# Rewinding gives a cloud far wider than the noise it started from. The jump lands inside the ring, where there are no
# data. "Straight on" gives exactly the same as the jump, because the portions add up to it.
# </details>

# %% id="toy-run" tags=["static"]
from course_utils.diffusion.objectives import mixture_eps

generator = torch.Generator().manual_seed(7)
centres = points.ring_centres(8, 0.1)  # (8, 2)
ring = points.gaussian_ring(2000, generator)  # (2000, 2): what we want to draw


def exact(x_t, t, cond=None):
    """The best eps for the ring: no network can do better."""
    return mixture_eps(x_t, t, alpha_bar, centres.to(x_t), 0.1)


x_T = torch.randn(2000, 2, generator=generator)
rewound = x_T
for beta in scaled_linear_beta(T).flip(0):
    noise = torch.randn(x_T.shape, generator=generator)
    rewound = (rewound - beta.sqrt() * noise) / (1 - beta).sqrt()
a, eps = alpha_bar[-1], exact(x_T, torch.full((2000,), T - 1))
jumped = (x_T - (1 - a).sqrt() * eps) / a.sqrt()

# %% [markdown] id="toy-plot-text"
# "Straight on" needs no loop: with $\hat\varepsilon$ fixed, all portions add up to the jump. So there are two results
# to look at, next to what we want.

# %% id="toy-plot" tags=["static"]
figure, axes = plt.subplots(1, 4, figsize=(9.6, 3))
clouds = {"start: noise": x_T, "rewind": rewound, "jump": jumped, "wanted": ring}
for ax, (name, cloud) in zip(axes, clouds.items()):
    reach = 60 if name == "rewind" else 3
    plot_points(cloud, title=f"{name}\nvariance {cloud.var():.3g}", reach=reach, ax=ax).set(ylabel="")
show(
    figure,
    "A round cloud of noise; after rewinding a cloud many times as wide (note its axes); after the jump a small disc in "
    "the middle of the ring, where there are no data; wanted are eight blobs on a ring.",
)


def off(cloud):
    """The root mean square distance of points to the nearest centre; for the data it is 0.1 sqrt(2) = 0.141."""
    return torch.cdist(cloud.cpu(), centres).min(1).values.square().mean().sqrt().item()


print(f"distance to the nearest centre: jump {off(jumped):.2f}, data {off(ring):.3f}")
assert rewound.var() > 100 and off(jumped) > 5 * off(ring)

# %% [markdown] id="toy-read"
# Rewinding *adds* noise: the fresh $\varepsilon'$ has nothing to do with the noise in $x_t$. Subtracting it makes the
# variances add up, and the division makes them grow. The jump lands in the middle, because $\hat x_0$ is the average of
# all points that could lie behind $x_T$: the blurred average of chapter 06.
#
# So you have to go back in small steps *and evaluate the model again after each*. What exactly is one step?

# %% [markdown] id="bayes-text"
# ## 1 · Where was it a moment ago?
#
# Bayes' rule turns the forward step around:
#
# $$q(x_{t-1} \mid x_t) = \frac{q(x_t \mid x_{t-1})\;q(x_{t-1})}{q(x_t)}$$
#
# In words: a place $x_{t-1}$ is probable if the step from there to $x_t$ is probable, and if it was a probable place to
# begin with. The denominator makes the total 1. The first factor is chapter 05's Gaussian. The other two, $q(x_{t-1})$
# and $q(x_t)$, are densities of *all noisy images*. To compute them you would need the distribution of all images, and
# if you had that, you would need no model.
#
# In one dimension we can compute it. Take two data sets, one with two peaks, one with a single peak, and observe the same
# $x_t = 0.3$ at the same time in both. **Predict first:** is $q(x_{t-1} \mid x_t)$ the same in both?
#
# <details><summary>Answer (after running the cells below)</summary>
# No. The means differ by 0.3, and only the data set with two peaks gives a lopsided curve. The forward step is the
# same in both, but the factor for where the points were before is not.
# </details>


# %% id="bayes" tags=["static"]
def normal(x, mean, variance):
    """The density of N(mean, variance) at x."""
    return torch.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


WORLDS = {"two peaks": [(0.4, -1.2, 0.2), (0.6, 0.8, 0.2)], "one peak": [(1.0, -0.5, 0.3)]}  # weight, centre, spread
t, earlier, seen = 600, 400, 0.3
a, a_earlier = alpha_bar_at(alpha_bar, t), alpha_bar_at(alpha_bar, earlier)
alpha = a / a_earlier  # what is kept on the way from `earlier` to t
grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)  # possible x_{t-1}


def density_at(x, a, world):
    """The density q(x) of the noisy data of a world, where alpha_bar is a."""
    return sum(weight * normal(x, a**0.5 * c, a * s**2 + 1 - a) for weight, c, s in WORLDS[world])


def where_from(world):
    """q(x_{t-1} | x_t = seen) on the grid, by Bayes' rule."""
    product = normal(seen, alpha**0.5 * grid, 1 - alpha) * density_at(grid, a_earlier, world)
    return product / torch.trapezoid(product, grid)  # divided by q(x_t), which makes the area 1


# %% [markdown] id="bayes-x0"
# Now suppose that somebody tells us the clean $x_0$, say 0.8. Bayes' rule again, with $x_0$ as a condition everywhere:
#
# $$q(x_{t-1} \mid x_t, x_0) = \frac{q(x_t \mid x_{t-1})\;q(x_{t-1} \mid x_0)}{q(x_t \mid x_0)}$$
#
# Now all three factors are Gaussians that we know, and no data set appears.

# %% id="bayes-plot" tags=["static"]
given_x0 = normal(seen, alpha**0.5 * grid, 1 - alpha) * normal(grid, a_earlier**0.5 * 0.8, 1 - a_earlier)
given_x0 = given_x0 / torch.trapezoid(given_x0, grid)
figure, ax = plt.subplots(figsize=(7, 3))
for world, line in zip(WORLDS, ("-", "--")):
    ax.plot(grid, where_from(world), line, label=f"$q(x_{{t-1}} | x_t)$, {world}")
ax.plot(grid, given_x0, "-.", color="black", label="$q(x_{t-1} | x_t, x_0 = 0.8)$, any data")
ax.axvline(seen, color="#777777", linewidth=0.8, linestyle=":")
ax.set(xlabel="$x_{t-1}$", ylabel="density", xlim=(-2.5, 3))
ax.legend(fontsize=9)
show(
    figure,
    "Three densities of where x at t = 600 may have been at t = 400: lopsided for data with two peaks, "
    "further left for one peak, and a bell further right when the clean value 0.8 is known.",
)
averages = {world: torch.trapezoid(grid * where_from(world), grid).item() for world in WORLDS}
print("mean of q(x_{t-1} | x_t): " + ", ".join(f"{world} {value:.3f}" for world, value in averages.items()))
assert abs(averages["two peaks"] - averages["one peak"] - 0.312) < 0.01

# %% [markdown] id="posterior-text"
# The same $x_t$ (the dotted line), but another distribution for other data: *that* is why $q(x_{t-1} \mid x_t)$ is out
# of reach. The black curve, for a known $x_0$, can be computed. A product of two Gaussian bells is a bell. Collecting
# the squares in the exponent shows that the *precisions* (one over the variance) add up:
#
# $$\frac{1}{\tilde\beta_t} = \frac{\alpha_t}{\beta_t} + \frac{1}{1-\bar\alpha_{t-1}}, \qquad
#   \tilde\mu_t = \tilde\beta_t\Bigl(\frac{\sqrt{\alpha_t}}{\beta_t}\,x_t
#   + \frac{\sqrt{\bar\alpha_{t-1}}}{1-\bar\alpha_{t-1}}\,x_0\Bigr)$$
#
# In words: $x_t$ and $x_0$ each tell us something about $x_{t-1}$, and each counts in proportion to its precision. With
# $\bar\alpha_t = \alpha_t \bar\alpha_{t-1}$ this simplifies to the form in the papers:
#
# $$\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
#   + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t, \qquad
#   \tilde\beta_t = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t$$

# %% id="posterior-by-hand"
beta = 1 - alpha
precision = alpha / beta + 1 / (1 - a_earlier)
mean = (alpha**0.5 / beta * seen + a_earlier**0.5 / (1 - a_earlier) * 0.8) / precision
print(f"precisions:  mean {mean:.5f}, variance {1 / precision:.5f}")

on_grid = torch.trapezoid(grid * given_x0, grid)
spread = torch.trapezoid((grid - on_grid) ** 2 * given_x0, grid)
print(f"on the grid: mean {on_grid:.5f}, variance {spread:.5f}")
assert abs(mean - on_grid) < 1e-5 and abs(1 / precision - spread) < 1e-5

# %% [markdown] id="ex-posterior-text"
# ### Exercise 1 · The posterior
#
# ●●○○○ · 10 minutes. Mean and variance, in the papers' form. The step goes from `t` to any `earlier` time, so use
# $\alpha_t = \bar\alpha_t / \bar\alpha_{t-1}$, not a table of betas. `earlier` may be −1; `alpha_bar_at` handles that.


# %% id="ex-posterior"
def posterior(x0, x_t, t, earlier, alpha_bar):
    """Mean (batch, ...) and variance (a number) of q(x_{t-1} | x_t, x0), where t-1 stands for `earlier`."""
    ### BEGIN SOLUTION
    #: alpha_bar at both times
    a, a_earlier = alpha_bar_at(alpha_bar, t), alpha_bar_at(alpha_bar, earlier)
    #: what the step keeps, and the noise that it adds
    alpha = a / a_earlier
    beta = 1 - alpha
    #: the two weights of the mean
    mean = a_earlier**0.5 * beta / (1 - a) * x0 + alpha**0.5 * (1 - a_earlier) / (1 - a) * x_t
    #: the variance
    return mean, (1 - a_earlier) / (1 - a) * beta
    ### END SOLUTION


# %% id="check-posterior"
posterior = check("07.posterior", posterior)
# Stuck? hint("07.posterior") gives a hint, and one more each time; solution(...) is the last resort.

# %% [markdown] id="posterior-gauss-text"
# A second proof, without a grid. Given $x_0$, the pair $(x_{t-1}, x_t)$ is a two-dimensional Gaussian, with means
# $m_1, m_2$, variances $v_1, v_2$ and covariance $v_{12}$ (`c` in the code). Conditioning the first on the second gives
# the mean $m_1 + \frac{v_{12}}{v_2}(x_t - m_2)$ and the variance $v_1 - \frac{v_{12}^2}{v_2}$. A third check compares
# your function with the package, and its variance with diffusers.

# %% id="posterior-gauss"
from diffusers import DDPMScheduler

from course_utils.diffusion import steps

LIBRARY = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}
m1, m2 = a_earlier**0.5 * 0.8, a**0.5 * 0.8
v1, v2, c = 1 - a_earlier, 1 - a, alpha**0.5 * (1 - a_earlier)
conditioned = m1 + c / v2 * (seen - m2), v1 - c**2 / v2
for function in (posterior, steps.posterior):
    found = function(torch.tensor([[0.8]]), torch.tensor([[seen]]), t, earlier, alpha_bar)
    assert all(abs(float(got) - want) < 1e-6 for got, want in zip(found, conditioned))
assert all(alpha_bar_at(alpha_bar, level) == steps.alpha_bar_at(alpha_bar, level) for level in (-1, 0, 999))

# %% id="posterior-table"
library = DDPMScheduler(**LIBRARY)
library.set_timesteps(1000)
print("    t       beta  posterior variance   ratio")
for level in (0, 1, 10, 100, 999):
    variance = posterior(torch.zeros(1, 1), torch.zeros(1, 1), level, level - 1, alpha_bar)[1]
    step_beta = 1 - alpha_bar_at(alpha_bar, level) / alpha_bar_at(alpha_bar, level - 1)
    print(f"{level:5} {step_beta:10.6f} {variance:19.6f} {variance / step_beta:7.3f}")
    assert abs(library._get_variance(level).item() - max(variance, 1e-20)) < 1e-6

# %% [markdown] id="posterior-read"
# For steps between neighbouring times, $\tilde\beta_t$ is nearly $\beta_t$, except at the clean end, where it falls to
# 0: given $x_0$, the last step has nothing left to draw. Keep that zero in mind.
#
# **What the model does.** It does not have $x_0$. It uses the same formula with its estimate $\hat x_0$ in the place of
# $x_0$: $p_\theta(x_{t-1} \mid x_t) = \mathcal{N}(\tilde\mu_t(x_t, \hat x_0),\ \tilde\beta_t I)$. So $p_\theta$ is not
# the $q(x_{t-1} \mid x_t)$ of Bayes' rule. It is a Gaussian with a learned mean that approximates it.
#
# Is a Gaussian good enough? $q(x_{t-1} \mid x_t)$ was lopsided. Measure how lopsided, by its *skewness*, which is 0 for
# a Gaussian, for smaller and smaller steps:


# %% id="small-steps"
def skewness_of_step(earlier):
    """The skewness of q(x_{t-1} | x_t = seen) at t = 600, for the data with two peaks; 0 for a Gaussian."""
    a_earlier = alpha_bar_at(alpha_bar, earlier)
    alpha = alpha_bar_at(alpha_bar, 600) / a_earlier
    p = normal(seen, alpha**0.5 * grid, 1 - alpha) * density_at(grid, a_earlier, "two peaks")
    p = p / p.sum()
    m = (p * grid).sum()
    v = (p * (grid - m) ** 2).sum()
    return ((p * (grid - m) ** 3).sum() / v**1.5).item()


skews = {earlier: skewness_of_step(earlier) for earlier in (200, 400, 550, 590)}
for earlier_time, skew in skews.items():
    print(f"from t = 600 to {earlier_time}: skewness {skew:+.4f}")
assert abs(skews[590]) < abs(skews[550]) < abs(skews[400]) / 3

# %% [markdown] id="small-steps-read"
# The skewness shrinks towards 0 with the step. This is one measure in one example, but the result is general: for
# smaller and smaller steps $q(x_{t-1} \mid x_t)$ approaches a Gaussian. With *few large* steps it does not have to be
# close to one. This is one reason why DDPM takes a thousand.

# %% [markdown] id="ddpm-text"
# ## 2 · DDPM: estimate, step, repeat
#
# One step of DDPM (*denoising diffusion probabilistic models*, chapter 05) has two halves: turn $\hat\varepsilon$ into
# an estimate $\hat x_0$; then draw from the posterior with it.
#
# For images the first half needs a safeguard. Pixels lie in $[-1, 1]$, but at large $t$ an error of $\hat\varepsilon$
# is magnified (up to 15 times, chapter 06). So $\hat x_0$ is **clipped** to $[-1, 1]$. After that it no longer fits
# $\hat\varepsilon$, and if a step uses both, $\hat\varepsilon$ has to be recomputed:
#
# $$\hat x_0 = \text{clip}\Bigl(\frac{x_t - \sqrt{1-\bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}}\Bigr), \qquad
#   \hat\varepsilon \leftarrow \frac{x_t - \sqrt{\bar\alpha_t}\,\hat x_0}{\sqrt{1-\bar\alpha_t}}$$
#
# ### Exercise 2 · The estimate
#
# ●●○○○ · 10 minutes. `clip` is a number, or None for unbounded data (points, latents).


# %% id="ex-guess"
def guess(x_t, eps, t, alpha_bar, clip=None):
    """(x0_hat, eps): the clean image behind x_t, limited to [-clip, clip], and the eps that belongs to it."""
    ### BEGIN SOLUTION
    #: the factors of image and noise in x_t
    a = alpha_bar_at(alpha_bar, t)
    signal, noise = a**0.5, (1 - a) ** 0.5
    #: remove the noise, undo the scaling
    x0_hat = (x_t - noise * eps) / signal
    #: if there is a clip: clamp x0_hat, and recompute eps, so that x_t is made of these two
    if clip is not None:
        x0_hat = x0_hat.clamp(-clip, clip)
        eps = (x_t - signal * x0_hat) / noise
    return x0_hat, eps
    ### END SOLUTION


# %% id="check-guess"
guess = check("07.guess", guess)

# %% [markdown] id="ex-ddpm-text"
# ### Exercise 3 · The DDPM step
#
# ●●○○○ · 10 minutes. Estimate, then draw from the posterior:
#
# $$x_{t-1} = \tilde\mu_t(x_t, \hat x_0) + \sqrt{\tilde\beta_t}\;\varepsilon'$$
#
# $\varepsilon'$ is fresh standard normal noise; it is passed in as `noise`, so that a step can be tested. There is a
# root because $\tilde\beta_t$ is a variance.


# %% id="ex-ddpm"
def ddpm_step(x_t, eps, t, earlier, alpha_bar, noise, clip=None):
    """x_{t-1} drawn from q(x_{t-1} | x_t, x0_hat), with standard normal noise; x_t, eps, noise: (batch, ...)."""
    ### BEGIN SOLUTION
    #: the clean image that follows from eps (clipped)
    x0_hat, _ = guess(x_t, eps, t, alpha_bar, clip)
    #: where the step goes on average, and its variance
    mean, variance = posterior(x0_hat, x_t, t, earlier, alpha_bar)
    #: the mean, plus noise of that variance
    return mean + variance**0.5 * noise
    ### END SOLUTION


# %% id="check-ddpm"
ddpm_step = check("07.ddpm_step", ddpm_step)

# %% [markdown] id="ddpm-loop-text"
# The loop: predict, step, repeat. It is a generator, like the training loop of chapter 06, so that you can look at
# every stage. `trailing_times(1000, 4)` is `[999, 749, 499, 249]`: it starts at the noisy end. Above each panel stands
# how far *off* the points are: the root mean square distance to the nearest centre, which is 0.141 for the data.

# %% id="ddpm-loop"
from course_utils.diffusion.samplers import trailing_times


def ddpm(model, x_T, alpha_bar, times, generator, clip=None):
    """Yield x_t after each step of DDPM; times fall, and the last step goes to the clean image, -1."""
    x_t = x_T
    for t, earlier in zip(times, [*times[1:], -1]):
        eps = model(x_t, torch.full((len(x_t),), t, device=x_t.device))
        noise = torch.randn(x_t.shape, generator=generator).to(x_t) if earlier >= 0 else torch.zeros_like(x_t)
        x_t = ddpm_step(x_t, eps, t, earlier, alpha_bar, noise, clip)
        yield x_t


def last(stages):
    """The last of what a generator yields."""
    for stage in stages:
        final = stage
    return final


# %% id="ddpm-ring" tags=["static"]
figure, axes = plt.subplots(1, 4, figsize=(9.6, 3))
widths = {}
for ax, n in zip(axes, (5, 20, 100, 1000)):
    drawn = last(ddpm(exact, x_T, alpha_bar, trailing_times(T, n), torch.Generator().manual_seed(1)))
    widths[n] = off(drawn)
    plot_points(drawn, title=f"{n} steps\n{widths[n]:.3f} off", reach=2.2, ax=ax).set(ylabel="")
show(
    figure,
    "2,000 points drawn by DDPM: in 5 steps a disc, in 20 an octagon with points between the corners, in 100 eight "
    "blobs that are clearly too small, in 1000 eight blobs nearly as wide as the data.",
)
print(f"the data are {off(ring):.3f} off, give or take {0.141 / 2 / 2000**0.5:.4f}")
assert widths[100] < 0.115 and 0.12 < widths[1000] < off(ring) - 0.005

# %% [markdown] id="ddpm-equal-text"
# A thousand steps draw the ring, though its blobs are still about a tenth too narrow: 0.128 off, where the 2,000 data
# points are 0.142 off, with a standard error of 0.0016. Two things shrink them. The last step goes straight to
# $\hat x_0$, an average; the larger that step, the more spread it removes. With 100 steps the points are 0.102 off. And
# $\tilde\beta_t$ is the variance for somebody who *knows* $x_0$; the true $q(x_{t-1} \mid x_t)$ is wider. More on that
# below.
#
# Look at the points, not only at the number: in 20 steps they are 0.146 off, nearly as much as the data, and yet they
# form an octagon. The points between its corners are too far away, and those at the corners too close together.
#
# Is this the DDPM of the libraries? Here are diffusers' scheduler and our loop side by side, with the same random numbers,
# with and without clipping; and the package's sampler, which later chapters use.

# %% id="ddpm-equal"
from course_utils.diffusion import samplers

start, times = torch.randn(64, 2, generator=generator), trailing_times(T, 20)


def library_path(scheduler, model, x, **options):
    """x after each step of a diffusers scheduler that is given the model's output."""
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t.expand(len(x))), t, x, **options).prev_sample
        yield x


# %% id="ddpm-equal-run"
for clip in (None, 1.0):
    library = DDPMScheduler(**LIBRARY, clip_sample=clip is not None)
    library.set_timesteps(20)
    theirs = library_path(library, exact, start, generator=torch.Generator().manual_seed(2))
    ours = ddpm(exact, start, alpha_bar, times, torch.Generator().manual_seed(2), clip)
    package = samplers.ddpm(exact, start, alpha_bar, times, torch.Generator().manual_seed(2), clip=clip)
    to_diffusers, to_package = 0.0, 0.0
    for our_x, their_x, step in zip(ours, theirs, package, strict=True):
        to_diffusers = max(to_diffusers, (our_x - their_x).abs().max().item())
        to_package = max(to_package, (our_x - step.x_t).abs().max().item())
    print(f"clip {clip}: largest difference to diffusers {to_diffusers:.1e}, to the package {to_package:.1e}")
    assert to_diffusers < 2e-4 and to_package < 2e-4

# %% [markdown] id="last-text"
# ### Two variances, and a failure at the last step
#
# The paper offers a second choice, $\sigma_t^2 = \beta_t$. It is the right variance if the data are
# $\mathcal{N}(0, I)$; $\tilde\beta_t$ is right if they are a single point. Real data lie in between. The ratio of the
# two is printed below for the 20 steps that we take. **Predict first:** you use $\beta_t$ and add noise at the last
# step too. What is wrong with the points?
#
# <details><summary>Answer (after running the cells below)</summary>
# The points scatter widely around the octagon: no later step removes the noise of the last one. Without it, both
# variances give octagons, and in 1,000 steps the blobs of the larger one are closer to the data.
# </details>


# %% id="last-step"
def ddpm_with_beta(x_T, times, noise_at_the_end):
    """DDPM with the paper's other variance, sigma_t^2 = beta_t."""
    generator, x_t = torch.Generator().manual_seed(1), x_T
    for t, earlier in zip(times, [*times[1:], -1]):
        eps = exact(x_t, torch.full((len(x_t),), t))
        x_t = ddpm_step(x_t, eps, t, earlier, alpha_bar, torch.zeros_like(x_t))
        if earlier >= 0 or noise_at_the_end:
            beta = 1 - alpha_bar_at(alpha_bar, t) / alpha_bar_at(alpha_bar, earlier)
            x_t = x_t + beta**0.5 * torch.randn(x_t.shape, generator=generator)
    return x_t


ratios = [
    (1 - alpha_bar_at(alpha_bar, earlier)) / (1 - alpha_bar_at(alpha_bar, t))
    for t, earlier in zip(times, [*times[1:], -1])
]
print("smaller over larger variance in 20 steps: " + " ".join(f"{ratio:.2f}" for ratio in ratios))
assert min(ratios[:14]) > 0.8 and ratios[-1] == 0

# %% id="last-step-plot" tags=["static"]
clouds = {
    r"smaller variance, $\tilde\beta_t$": last(ddpm(exact, x_T, alpha_bar, times, torch.Generator().manual_seed(1))),
    r"larger variance, $\beta_t$": ddpm_with_beta(x_T, times, False),
    r"larger, and noise at the end": ddpm_with_beta(x_T, times, True),
}
figure, axes = plt.subplots(1, 3, figsize=(8.4, 3.2))
for ax, (name, cloud) in zip(axes, clouds.items()):
    plot_points(cloud, title=f"{name}\n{off(cloud):.3f} off", reach=2.2, ax=ax).set(ylabel="")
show(
    figure,
    "Twenty steps of DDPM: an octagon with dense corners for the smaller variance and for beta, and wide "
    "clouds where noise was added at the last step too.",
)
small, large, noisy_end = (off(cloud) for cloud in clouds.values())
many = off(ddpm_with_beta(x_T, trailing_times(T, 1000), False))
print(f"1000 steps: smaller variance {widths[1000]:.3f} off, beta {many:.3f}, data {off(ring):.3f}")
assert noisy_end > 1.3 * large and widths[1000] + 0.004 < many < off(ring)

# %% [markdown] id="last-read"
# In the first 14 of the 20 steps the two variances differ by less than a fifth. Then they part, and at the last step
# $\tilde\beta_t$ is 0 and $\beta_t$ is not. Noise that is added there stays; in an image it would be a grain over
# everything. With $\tilde\beta_t$ this cannot happen, if $\bar\alpha_{t-1}$ is 1 at the last step. If you write
# `alpha_bar[t - 1]`, you get `alpha_bar[-1]` there, the last entry of the table, and no error message.
#
# In 1,000 steps the larger variance comes closer to the data's width: its points are 0.137 off, those of the smaller
# one 0.128, and the data 0.142. Each number is from 2,000 points, with a standard error of about 0.0016. In 20 steps
# neither variance gives separate blobs.

# %% [markdown] id="ddim-text"
# ## 3 · DDIM: the same ends, another way
#
# DDIM (*denoising diffusion implicit models*) makes use of a fact about training: it never used a *chain*. It used
# $x_t$ at single times: the loss depends on
# $q(x_t \mid x_0) = \mathcal{N}(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t) I)$ only. So any step that preserves *that*
# will do. Take the two ingredients of $x_t$ and mix them again for the next time:
#
# $$x_{t-1} = \sqrt{\bar\alpha_{t-1}}\;\hat x_0 + \sqrt{1-\bar\alpha_{t-1} - \sigma_t^2}\;\hat\varepsilon
#   + \sigma_t\,\varepsilon'$$
#
# In words: the clean image, scaled as it should be at $t-1$; the old noise; and fresh noise. Together the two noises have
# the variance $1-\bar\alpha_{t-1}$, whatever $\sigma_t$ is. So $\sigma_t$ is free. DDIM sets it by $\eta$:
#
# $$\sigma_t = \eta \sqrt{\frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\Bigl(1-\frac{\bar\alpha_t}{\bar\alpha_{t-1}}\Bigr)}
#   = \eta\,\sqrt{\tilde\beta_t}$$
#
# $\eta = 1$ is DDPM (compared below). $\eta = 0$ uses no fresh noise at all: the image is a function of $x_T$. The cell
# checks mean and variance with the true $x_0 = 0.8$ and 200,000 noises: for three values of $\eta$ they agree with
# $q(x_{t-1} \mid x_0)$ to within 0.01.

# %% id="ddim-by-hand"
eps, fresh_noise = torch.randn(2, 200_000, generator=generator)  # one clean value, 0.8, and 200,000 noises
for eta in (0.0, 0.5, 1.0):
    sigma = eta * math.sqrt((1 - a_earlier) / (1 - a) * (1 - alpha))
    mixed = a_earlier**0.5 * 0.8 + math.sqrt(1 - a_earlier - sigma**2) * eps + sigma * fresh_noise
    print(f"eta {eta}: sigma {sigma:.3f}; mean {mixed.mean():.3f}, variance {mixed.var():.3f}")
    assert abs(mixed.mean() - a_earlier**0.5 * 0.8) < 0.01 and abs(mixed.var() - (1 - a_earlier)) < 0.01
print(f"wanted: mean {a_earlier**0.5 * 0.8:.3f}, variance {1 - a_earlier:.3f}")

# %% [markdown] id="ex-ddim-text"
# ### Exercise 4 · The DDIM step
#
# ●●●○○ · 15 minutes. `noise` may be None if `eta` is 0. Clipping is in `guess`; use the $\hat\varepsilon$ that it
# returns, so that $\hat x_0$ and $\hat\varepsilon$ fit. For $0 \le \eta \le 1$ the number under the root in front of
# $\hat\varepsilon$ is never negative: if you get a complex number or nan at $\eta = 1$, look at your $\sigma_t$.


# %% id="ex-ddim"
def ddim_step(x_t, eps, t, earlier, alpha_bar, eta=0.0, noise=None, clip=None):
    """x_{t-1} = sqrt(a_{t-1}) x0_hat + sqrt(1 - a_{t-1} - sigma^2) eps + sigma noise, where a is alpha_bar."""
    ### BEGIN SOLUTION
    #: alpha_bar at both times, and the two ingredients of x_t
    a, a_earlier = alpha_bar_at(alpha_bar, t), alpha_bar_at(alpha_bar, earlier)
    x0_hat, eps = guess(x_t, eps, t, alpha_bar, clip)
    #: sigma: eta times a standard deviation
    sigma = eta * ((1 - a_earlier) / (1 - a) * (1 - a / a_earlier)) ** 0.5
    #: mix them again
    mixed = a_earlier**0.5 * x0_hat + (1 - a_earlier - sigma**2) ** 0.5 * eps
    #: fresh noise, if there is any
    return mixed + sigma * noise if eta > 0 else mixed
    ### END SOLUTION


# %% id="check-ddim"
ddim_step = check("07.ddim_step", ddim_step)

# %% [markdown] id="ddim-loop-text"
# The loop differs from DDPM's in the step alone. It agrees with diffusers and with the package, and for $\eta = 1$ with
# your DDPM, given the same fresh noise:

# %% id="ddim-loop"


def ddim(model, x_T, alpha_bar, times, eta=0.0, generator=None, clip=None):
    """Yield x_t after each step of DDIM."""
    x_t = x_T
    for t, earlier in zip(times, [*times[1:], -1]):
        eps = model(x_t, torch.full((len(x_t),), t, device=x_t.device))
        noise = torch.randn(x_t.shape, generator=generator).to(x_t) if eta and earlier >= 0 else torch.zeros_like(x_t)
        x_t = ddim_step(x_t, eps, t, earlier, alpha_bar, eta, noise, clip)
        yield x_t


# %% id="ddim-equal"
from diffusers import DDIMScheduler


def seed(number):
    return torch.Generator().manual_seed(number)


for eta, clip in ((0.0, None), (0.5, None), (1.0, None), (0.5, 1.0)):
    library = DDIMScheduler(**LIBRARY, clip_sample=clip is not None)
    library.set_timesteps(20)
    options = {"eta": eta, "use_clipped_model_output": True, "generator": seed(2)}
    theirs = library_path(library, exact, start, **options)
    package = samplers.ddim(exact, start, alpha_bar, times, eta=eta, generator=seed(2), clip=clip)
    ours = ddim(exact, start, alpha_bar, times, eta, seed(2), clip)
    for our_x, their_x, step in zip(ours, theirs, package, strict=True):
        assert torch.allclose(our_x, their_x, atol=2e-4) and torch.allclose(our_x, step.x_t, atol=1e-5)
print("DDIM: ours, the package's and diffusers' agree after each of 20 steps, for all four settings")
by_ddpm, by_ddim = ddpm(exact, start, alpha_bar, times, seed(2)), ddim(exact, start, alpha_bar, times, 1.0, seed(2))
gap = max((one - other).abs().max().item() for one, other in zip(by_ddpm, by_ddim, strict=True))
print(f"DDIM with eta = 1 against DDPM: largest difference {gap:.1e}")
assert gap < 1e-4

# %% [markdown] id="clip-box"
# > **A trap in the library.** `use_clipped_model_output=True` makes diffusers recompute $\hat\varepsilon$ after clipping,
# > as you did. Its default is False: then $\hat x_0$ is clipped and the old $\hat\varepsilon$ is kept. Neither is wrong;
# > they are two samplers, and one reason why two programs draw two images from one seed.

# %% [markdown] id="paths-text"
# What $\eta$ does is best seen along the way. Six points, the same starts, three settings, 200 steps.
#
# **Predict first:** which paths are smooth? Do all three end in the same blob?
#
# <details><summary>Answer (after running the cell below)</summary>
# Only the paths for $\eta = 0$ are smooth curves. The more fresh noise, the wilder the path, and the same start can
# then end in another blob: at least half of the six do, for each of the other two settings.
# </details>

# %% id="paths" tags=["static"]
few = x_T[:6]
figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.4))
nearest = {}
for ax, eta in zip(axes, (0.0, 0.3, 1.0)):
    way = torch.stack([few, *ddim(exact, few, alpha_bar, trailing_times(T, 200), eta, seed(4))])  # (201, 6, 2)
    nearest[eta] = torch.cdist(way[-1], centres).argmin(1)
    plot_points(ring[:600], title=rf"$\eta$ = {eta}", reach=3, ax=ax).set(ylabel="")
    ax.collections[0].set_alpha(0.15)
    for i in range(6):
        ax.plot(*way[:, i].T, "-", linewidth=0.9, color="#D55E00")
    ax.plot(*way[0].T, "o", color="black", markersize=4)
    ax.plot(*way[-1].T, "s", color="#009E73", markersize=5)
show(
    figure,
    "Paths of six points from noise (black dots) to blobs (green squares): smooth curves for eta 0, trembling "
    "ones for 0.3, wild walks for 1. Some of the same starts end in other blobs.",
)
moved = {eta: (blob != nearest[0.0]).sum().item() for eta, blob in nearest.items()}
print(f"of six points, another blob than with eta = 0: eta 0.3: {moved[0.3]}, eta 1: {moved[1.0]}")
assert moved[0.3] >= 3 and moved[1.0] >= 3

# %% [markdown] id="paths-read"
# With $\eta = 0$ the paths are smooth, because they follow a differential equation. Divide $x_t$ by
# $\sqrt{\bar\alpha_t}$ and call the result $\bar x$; let $\tilde\sigma = \sqrt{(1-\bar\alpha)/\bar\alpha}$ be the
# noise-to-signal ratio. Then
#
# $$\frac{d\bar x}{d\tilde\sigma} = \hat\varepsilon(x_t, t)$$
#
# This is the *probability-flow ODE* (ordinary differential equation), and a DDIM step is its *Euler step*: go straight
# on with the slope of the starting point. The cell checks that. Section 5 is about following such a smooth curve with
# few steps.

# %% id="ode-by-hand"
s, s_earlier = ((1 - a) / a) ** 0.5, ((1 - a_earlier) / a_earlier) ** 0.5  # at t = 600 and at 400
slope = exact(start, torch.full((64,), 600))
euler = start / a**0.5 + (s_earlier - s) * slope
by_ddim = ddim_step(start, slope, 600, 400, alpha_bar) / a_earlier**0.5
print(
    f"Euler step from {s:.2f} to {s_earlier:.2f} against DDIM: largest difference {(euler - by_ddim).abs().max():.1e}"
)
assert torch.allclose(euler, by_ddim, atol=1e-4)

# %% [markdown] id="eta-text"
# Does $\eta$ matter for *what* is drawn? Compare clouds of points, not single ones: project both on each of 32
# directions, sort the projections, and take the mean gap (the *sliced Wasserstein distance*). Two sets of real data are
# not at distance 0 either; that is the floor. Five times, with other starts, other noise and other data:

# %% id="eta-table"
angle = torch.arange(32) * math.pi / 32
directions = torch.stack([angle.cos(), angle.sin()])  # (2, 32)


def apart(cloud, data):
    """The mean gap between two clouds of one size, both sorted along each of 32 directions."""
    return ((cloud @ directions).sort(0).values - (data @ directions).sort(0).values).abs().mean()


def over_starts(draw):
    """The distances of what draw(x_T, number) gives to fresh data, for five starts; (5,)."""
    found = []
    for number in range(5):
        generator = seed(number)
        x_T = torch.randn(2000, 2, generator=generator)
        found.append(apart(draw(x_T, number), points.gaussian_ring(2000, generator)))
    return torch.stack(found)


def in_words(values):
    return f"{values.mean():.3f} ± {values.std():.3f}"


# %% id="eta-run"
counts = budget(smoke=(5, 20), laptop=(5, 20, 100), gpu=(5, 20, 100))
gaps = {}
for eta in (0.0, 0.5, 1.0):
    for n in counts:

        def draw(x_T, number, eta=eta, n=n):
            return last(ddim(exact, x_T, alpha_bar, trailing_times(T, n), eta, seed(100 + number)))

        gaps[eta, n] = over_starts(draw)
print("real data " + in_words(over_starts(lambda x_T, number: points.gaussian_ring(2000, seed(200 + number)))))
print("eta   " + "".join(f"{n:9} steps" for n in counts))
for eta in (0.0, 0.5, 1.0):
    print(f"{eta:4}    " + "  ".join(in_words(gaps[eta, n]) for n in counts))
if budget(smoke=False, laptop=True, gpu=True):
    assert (gaps[1.0, 5] > gaps[0.0, 5]).all()
    assert (gaps[0.0, 20].mean() - gaps[1.0, 20].mean()).abs() < 0.012
    assert all(gaps[eta, 100].mean() < gaps[eta, 5].mean() / 2 for eta in (0.0, 0.5, 1.0))

# %% [markdown] id="eta-read"
# (± is the standard deviation over the five.) On the ring, with the exact model, randomness makes little difference to
# the result: at 5 steps $\eta = 1$ is slightly worse, in all five; at 20 and 100 steps the rows differ by no more than
# about their spread. In 100 steps all three means are still above that of real data, though for $\eta = 0.5$ and
# $\eta = 1$ the intervals overlap with that of real data. Section 6 repeats the comparison of $\eta = 0$ and $\eta = 1$
# with a network.

# %% [markdown] id="views-text"
# ## 4 · $\varepsilon$, $x_0$, $v$ and the score: four views of one thing
#
# A network may be trained to predict $\varepsilon$, $x_0$, or a mixture of both:
#
# $$v = \sqrt{\bar\alpha_t}\;\varepsilon - \sqrt{1-\bar\alpha_t}\;x_0$$
#
# Why this one? The squares of $\sqrt{\bar\alpha_t}$ and $\sqrt{1-\bar\alpha_t}$ add up to 1, so they are the cosine and
# the sine of an angle $\varphi_t$, and the pair $(x_t, v)$ is the pair $(x_0, \varepsilon)$ *rotated by* $-\varphi_t$:
#
# $$x_t = \cos\varphi_t\; x_0 + \sin\varphi_t\;\varepsilon, \qquad
#   v = -\sin\varphi_t\; x_0 + \cos\varphi_t\;\varepsilon$$
#
# Rotating back, by $+\varphi_t$, divides by nothing. To get $\hat x_0$ from $\hat\varepsilon$ you divide by
# $\sqrt{\bar\alpha_t}$: at $\bar\alpha_T = 0$ (chapter 05's bonus) $\varepsilon$ does not determine $x_0$. But $v$
# does: there it is $-x_0$.

# %% [markdown] id="ex-v-text"
# ### Exercise 5 · The noise from $v$
#
# ●●○○○ · 5 minutes. Our samplers expect $\varepsilon$. Rotate $(x_t, v)$ back and take the second component. Each sample
# has its own $t$; use `expand_like(alpha_bar[t], x_t)` as in chapter 05.

# %% id="ex-v"
from course_utils.shapes import expand_like


def eps_from_v(x_t, v, t, alpha_bar):
    """The noise in x_t, from x_t and v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x0; t: (batch,)."""
    ### BEGIN SOLUTION
    #: the cosine's square, with the axes of x_t
    a = expand_like(alpha_bar[t], x_t)
    #: sine times x_t plus cosine times v
    return (1 - a).sqrt() * x_t + a.sqrt() * v
    ### END SOLUTION


# %% id="check-v"
eps_from_v = check("07.eps_from_v", eps_from_v)

# %% [markdown] id="views-run-text"
# So a sampler can work with any of the three, if the output is converted. Three models of the ring that predict
# $\varepsilon$, $x_0$ and $v$; `as_eps` converts; 20 steps of DDIM from the same noise:

# %% id="views-run"
from course_utils.diffusion import objectives


def predict_x0(x_t, t, cond=None):
    return objectives.x0_from_eps(x_t, exact(x_t, t), t, alpha_bar)


def predict_v(x_t, t, cond=None):
    return objectives.v_from_x0_eps(predict_x0(x_t, t), exact(x_t, t), t, alpha_bar)


ends = {}
for kind, model in (("eps", exact), ("x0", predict_x0), ("v", predict_v)):
    ends[kind] = last(ddim(objectives.as_eps(model, kind, alpha_bar), start, alpha_bar, times))
library = DDIMScheduler(**LIBRARY, clip_sample=False, prediction_type="v_prediction")
library.set_timesteps(20)
ends["diffusers, given v"] = last(library_path(library, predict_v, start))
for kind, end in ends.items():
    print(f"{kind:18} largest difference to eps {(end - ends['eps']).abs().max():.1e}")
    assert torch.allclose(end, ends["eps"], atol=1e-3)
mixed_times = torch.tensor([100, 900] * 32)
back = eps_from_v(start, predict_v(start, mixed_times), mixed_times, alpha_bar)
assert torch.allclose(back, exact(start, mixed_times), atol=1e-4)

# %% [markdown] id="views-read"
# An exact model draws the same points in all three parametrisations. For a *network* the choice matters, because an
# error of a given size in the prediction, $\hat\varepsilon$, $\hat x_0$ or $\hat v$, weighs differently at each $t$.
# Section 7 trains a network that predicts $v$.

# %% [markdown] id="score-text"
# ### The score
#
# A fourth view. Which small change makes $x_t$ more probable? The density of all noisy images at time $t$, the $q(x_t)$
# of section 1, is $p_t(x_t) = \int q(x_t \mid x_0)\,p(x_0)\,dx_0$, where $p(x_0)$ is the density of the clean images.
# Its *score* is the gradient of $\log p_t$ with respect to $x_t$. Differentiate under the integral: the Gaussian $q$
# gives the factor $-(x_t - \sqrt{\bar\alpha_t}\,x_0)/(1-\bar\alpha_t) = -\varepsilon/\sqrt{1-\bar\alpha_t}$, and
# dividing by $p_t$ turns the integral into an average over all $x_0$ that could lie behind $x_t$:
#
# $$\nabla \log p_t(x_t) = -\frac{\mathbb{E}[\varepsilon \mid x_t]}{\sqrt{1-\bar\alpha_t}}
#   \approx -\frac{\hat\varepsilon}{\sqrt{1-\bar\alpha_t}}$$
#
# The last step is chapter 06: a network with the smallest squared error predicts $\mathbb{E}[\varepsilon \mid x_t]$. So
# training it to predict noise *is* learning the score; this is *denoising score matching*. Solved for the clean image, the
# same equation is *Tweedie's formula*,
# $\mathbb{E}[x_0 \mid x_t] = \bigl(x_t + (1-\bar\alpha_t)\,\nabla \log p_t\bigr)/\sqrt{\bar\alpha_t}$.
#
# No network is needed to test this: for the ring we can write $\log p_t$ down and let autograd differentiate it.

# %% id="score-exact"


def log_density(x, t):
    """ln p_t(x) of the noisy ring: a mixture of eight Gaussians; x (batch, 2), one t for all; (batch,)."""
    a = alpha_bar_at(alpha_bar, t)
    variance = a * 0.1**2 + 1 - a
    distance = (x[:, None] - a**0.5 * centres).square().sum(2)  # (batch, 8)
    return (-distance / (2 * variance)).logsumexp(1) - math.log(8 * 2 * math.pi * variance)


for t in (50, 300, 700):
    x = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_density(x, t).sum(), x)
    from_eps = -exact(start, torch.full((64,), t)) / (1 - alpha_bar[t]).sqrt()
    print(f"t = {t}: largest entry {gradient.abs().max():6.2f}, difference {(gradient - from_eps).abs().max():.1e}")
    assert torch.allclose(gradient, from_eps, rtol=1e-3, atol=1e-3)

# %% [markdown] id="ex-score-text"
# ### Exercise 6 · The score
#
# ●●○○○ · 5 minutes. From the predicted noise to the score, for images of any shape. Each sample has its own time, and
# gradients should flow through your result.


# %% id="ex-score"
def score(eps, t, alpha_bar):
    """The gradient of ln p_t at x_t, from the eps predicted there (batch, ...); t: (batch,)."""
    ### BEGIN SOLUTION
    #: alpha_bar at each time, with the axes of eps
    a = expand_like(alpha_bar[t], eps)
    #: against the noise, divided by its standard deviation
    return -eps / (1 - a).sqrt()
    ### END SOLUTION


# %% id="check-score"
score = check("07.score", score)

# %% [markdown] id="score-plot-text"
# Your score as arrows over the density, at three noise levels. **Predict first:** where do the arrows in the middle of the
# ring point at $t = 700$, and at $t = 50$? At which time are they longest?
#
# <details><summary>Answer (after running the cell below)</summary>
# At $t = 700$ the density is a single hill, and all arrows point to its centre. At $t = 50$ there are eight hills, and
# each arrow points to a nearby one: in the middle that is outwards. The less noise, the longer: on average
# over these places they are several times as long at $t = 50$ as at $t = 700$.
# </details>

# %% id="score-plot" tags=["static"]
line = torch.linspace(-2.4, 2.4, 13)
places = torch.cartesian_prod(line, line)  # (169, 2)
dense = torch.linspace(-2.6, 2.6, 105)
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.9))
lengths = {}
for ax, t in zip(axes, (700, 300, 50)):
    density = log_density(torch.cartesian_prod(dense, dense), t).exp().reshape(105, 105)
    ax.contourf(dense, dense, density.T, levels=12, cmap="Blues")
    at = torch.full((169,), t)
    arrows = score(exact(places, at), at, alpha_bar)
    lengths[t] = arrows.norm(dim=1).mean().item()
    ax.quiver(*places.T, *arrows.T, color="#D55E00", width=0.006)
    ax.set(title=f"t = {t}, mean length {lengths[t]:.1f}", aspect="equal", xlabel="first coordinate")
axes[0].set_ylabel("second coordinate")
show(
    figure,
    "Arrows of the score over the density of the noisy ring. At t = 700 one round hill and arrows to its middle; at 300 "
    "a broad hill, slightly lower in the middle; at 50 eight hills, each with arrows towards it. Arrow lengths are "
    "scaled in each panel; the mean length stands above.",
)
assert lengths[50] > 4 * lengths[700]

# %% [markdown] id="score-read"
# The score points uphill. It has two uses. *Guidance* (chapter 10) adds the gradient of another log density to it, to
# steer towards a prompt. And the ODE of section 3 is $d\bar x / d\tilde\sigma = -\sqrt{1-\bar\alpha_t}\;\nabla \log p_t$:
# a sampler walks uphill while the noise decreases.

# %% [markdown] id="order-text"
# ## 5 · Fewer steps: solvers of second order
#
# On its way from $t$ to $t-1$, DDIM keeps $\hat x_0$ fixed. But $\hat x_0$ changes along the way, from a blurred
# average to a single image. In a step of length $h$ this causes an error proportional to $h^2$. The number of steps is
# proportional to $1/h$, so the error at the end is proportional to $h$: **first order**. Twice the steps, half the
# error.

# %% [markdown] id="second-text"
# If you also know *how $\hat x_0$ is changing*, you can reach **second order**: twice the steps, a quarter of the error.
# There are two ways to find out:
#
# - **look back:** compare $\hat x_0$ with its value one step before. This is free (DPM-Solver++ 2M: order 2,
#   *multistep*, because it uses the evaluation of an earlier step);
# - **look ahead:** take a trial step, evaluate the model there, and use the mean of both predictions (Heun). This costs a
#   second evaluation.

# %% [markdown] id="lambda-text"
# **Looking back.** The natural variable is not $t$ but $\lambda_t = \tfrac12 \ln\frac{\bar\alpha_t}{1-\bar\alpha_t}$, half
# the logarithm of the SNR. With $h = \lambda_{t-1} - \lambda_t$, the growth of $\lambda$ in this step, DDIM
# ($\eta = 0$) reads
#
# $$x_{t-1} = \sqrt{\frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}}\;x_t - \sqrt{\bar\alpha_{t-1}}\,\bigl(e^{-h} - 1\bigr)\,
#   \hat x_0$$
#
# It is exact if $\hat x_0$ is constant. If $\hat x_0$ changes at a constant rate, its value in the *middle* of
# the step, $h/2$ further on, is better. In the previous step, of length $h_\text{before}$, it changed by
# $\hat x_0 - \hat x_0^\text{before}$. So replace it by
#
# $$\hat x_0' = \hat x_0 + \frac{h}{2\,h_\text{before}}\,\bigl(\hat x_0 - \hat x_0^\text{before}\bigr)$$
#
# There are two exceptions: the first step has no previous one, and the step to the clean image has
# $h = \infty$. Both take $\hat x_0' = \hat x_0$.


# %% id="lambda-by-hand"
def lam(t):
    """Half the logarithm of the SNR at time t."""
    a = alpha_bar_at(alpha_bar, t)
    return math.log(a / (1 - a)) / 2


x, eps = 0.7, -0.4  # one pixel, and the noise predicted in it
t, earlier = 600, 400
a, a_earlier = alpha_bar_at(alpha_bar, t), alpha_bar_at(alpha_bar, earlier)
x0_hat = (x - (1 - a) ** 0.5 * eps) / a**0.5
h = lam(earlier) - lam(t)
by_lambda = ((1 - a_earlier) / (1 - a)) ** 0.5 * x - a_earlier**0.5 * (math.exp(-h) - 1) * x0_hat
by_ddim = ddim_step(torch.tensor([[x]]), torch.tensor([[eps]]), t, earlier, alpha_bar).item()
print(f"h = {h:.4f}; in lambda {by_lambda:.6f}, by your DDIM step {by_ddim:.6f}")
assert abs(by_lambda - by_ddim) < 1e-5

# %% [markdown] id="ex-2m-text"
# ### Exercise 7 · A step of DPM-Solver++ 2M
#
# ●●●●○ · 15 minutes. `before` is the time of the previous prediction, noisier than `t`; both are None at the first
# step. Compute $\lambda$ from the table that is passed in, with `alpha_bar_at(alpha_bar, t)`. The
# `lam` of the cell above reads the global schedule and must not be used here: the check passes other schedules.
# Return $x_{t-1}$, in the shape of `x_t`.


# %% id="ex-2m"
def dpm_solver_step(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar):
    """One step of DPM-Solver++ 2M from t to `earlier`; x0_hat_before was the guess at time `before`."""
    ### BEGIN SOLUTION
    #: the step to the clean image
    if earlier == -1:
        return x0_hat

    #: lambda at a time
    def lam(t):
        a = alpha_bar_at(alpha_bar, t)
        return math.log(a / (1 - a)) / 2

    #: where x0_hat is heading: half of this step ahead
    h, aim = lam(earlier) - lam(t), x0_hat
    if x0_hat_before is not None:
        aim = x0_hat + h / (2 * (lam(t) - lam(before))) * (x0_hat - x0_hat_before)
    #: the step
    a, a_earlier = alpha_bar_at(alpha_bar, t), alpha_bar_at(alpha_bar, earlier)
    return ((1 - a_earlier) / (1 - a)) ** 0.5 * x_t - a_earlier**0.5 * (math.exp(-h) - 1) * aim
    ### END SOLUTION


# %% id="check-2m"
dpm_solver_step = check("07.dpm_solver_step", dpm_solver_step)

# %% [markdown] id="ex-heun-text"
# **Looking ahead.** Heun's method is short, because DDIM's step can be reused:
#
# $$\varepsilon_1 = \varepsilon_\theta(x_t, t), \quad x' = \text{DDIM}(x_t, \varepsilon_1), \quad
#   \varepsilon_2 = \varepsilon_\theta(x', t-1), \quad x_{t-1} = \text{DDIM}\bigl(x_t, \tfrac{\varepsilon_1 +
#   \varepsilon_2}{2}\bigr)$$
#
# In words: take a trial step; evaluate the model there; go back, and step with the mean of both predictions.
#
# Why is the mean right? Divided by $\sqrt{\bar\alpha_t}$, DDIM's step is a straight line,
# $\bar x_{t-1} = \bar x_t + (\tilde\sigma_{t-1} - \tilde\sigma_t)\,\hat\varepsilon$. So
# $\hat\varepsilon$ is a slope, and the mean of the slopes at both ends is the trapezoid rule.
#
# ### Exercise 8 · Heun's step
#
# ●●●○○ · 10 minutes. `model(x_t, t)` needs `t` as a tensor of shape (batch,). At the step to the clean image,
# `earlier = -1`, the model cannot be evaluated again: the DDIM step is the result. Evaluate the model at most twice.
# The argument `t` is a whole number; use your `ddim_step`, and return $x_{t-1}$ in the shape of `x_t`. From here on the
# stubs leave the lines to you.


# %% id="ex-heun"
def heun_step(model, x_t, t, earlier, alpha_bar):
    """One Heun step from t to `earlier`: DDIM with the mean of the eps here and the eps ahead."""
    ### BEGIN SOLUTION
    eps = model(x_t, torch.full((len(x_t),), t, device=x_t.device))
    ahead = ddim_step(x_t, eps, t, earlier, alpha_bar)
    if earlier == -1:
        return ahead
    eps_ahead = model(ahead, torch.full((len(x_t),), earlier, device=x_t.device))
    return ddim_step(x_t, (eps + eps_ahead) / 2, t, earlier, alpha_bar)
    ### END SOLUTION


# %% id="check-heun"
heun_step = check("07.heun_step", heun_step)

# %% [markdown] id="solvers-text"
# Now both loops, each compared with diffusers. Its `HeunDiscreteScheduler` works with $\bar x = x_t / \sqrt{\bar\alpha_t}$,
# which `scale_model_input` converts back; two of its steps are one of ours.


# %% id="solvers"
def dpm_solver(model, x_T, alpha_bar, times):
    """Yield x_t after each step of DPM-Solver++ 2M."""
    x_t, x0_hat_before, before = x_T, None, None
    for t, earlier in zip(times, [*times[1:], -1]):
        x0_hat, _ = guess(x_t, model(x_t, torch.full((len(x_t),), t, device=x_t.device)), t, alpha_bar)
        x_t = dpm_solver_step(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar)
        x0_hat_before, before = x0_hat, t
        yield x_t


def heun(model, x_T, alpha_bar, times):
    """Yield x_t after each step of Heun's method."""
    x_t = x_T
    for t, earlier in zip(times, [*times[1:], -1]):
        x_t = heun_step(model, x_t, t, earlier, alpha_bar)
        yield x_t


# %% id="solvers-equal"
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler

library = DPMSolverMultistepScheduler(**LIBRARY, final_sigmas_type="zero")
library.set_timesteps(20)
for a_, b_, c_ in zip(
    dpm_solver(exact, start, alpha_bar, times),
    library_path(library, exact, start),
    samplers.dpm_solver(exact, start, alpha_bar, times),
    strict=True,
):
    assert torch.allclose(a_, b_, atol=1e-3) and torch.allclose(a_, c_.x_t, atol=1e-5)

library = HeunDiscreteScheduler(**LIBRARY)
library.set_timesteps(20)
x = start / alpha_bar[-1].sqrt()
for t in library.timesteps:
    seen_by_model = library.scale_model_input(x, t)
    x = library.step(exact(seen_by_model, t.long().expand(64)), t, x).prev_sample
ours, package = last(heun(exact, start, alpha_bar, times)), last(samplers.heun(exact, start, alpha_bar, times)).x_t
print(f"largest difference after 20 steps of Heun: {(ours - x).abs().max():.1e}")
assert torch.allclose(ours, x, atol=1e-3) and torch.allclose(ours, package, atol=1e-5)

# %% [markdown] id="rates-text"
# ### The order, measured
#
# For $\eta = 0$ every start has one true end: the point to which the smooth curve leads. We compute it with 900 tiny
# Heun steps in double precision, from $t = 999$ to $t = 99$, for 500 starts. (The rest of the way is left out: its last
# step, to the clean image, has $h = \infty$, and the argument for small $h$ does not apply to it.) Then each solver
# gets fewer steps, and we measure how far from the truth it ends. On logarithmic axes an error proportional to a power
# of the number of steps is a straight line, and minus its slope is the **order**.
#
# **Predict first.** With 12 steps, which solver is best? And if evaluations are counted, not steps?
#
# <details><summary>Answer (after running the cells below)</summary>
# On these 500 starts Heun is best with 12 steps, and 2M close behind (errors 0.014 and 0.019). Counted in evaluations,
# 2M is best: Heun needs two for each step, and with 24 of them 2M's error is less than half as large.
# </details>

# %% id="rates"
import numpy

fine = alpha_bar.double()
starts = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)).double()
COUNTS = (12, 24, 48, 96)


def exact_fine(x_t, t, cond=None):
    return mixture_eps(x_t, t, fine, centres.double(), 0.1)


def at_99(solver, n):
    """Where `solver` is at t = 99 after n even steps from t = 999."""
    times = [round(999 - i * 900 / n) for i in range(n + 1)]
    *_, there, _ = solver(exact_fine, starts, fine, times)
    return there


# %% id="rates-run"
truth = at_99(heun, 900)
errors = {
    name: [(at_99(solver, n) - truth).square().sum(1).mean().sqrt().item() for n in COUNTS]
    for name, solver in (("DDIM", ddim), ("DPM-Solver++ 2M", dpm_solver), ("Heun", heun))
}
orders = {name: -numpy.polyfit(numpy.log(COUNTS), numpy.log(error), 1)[0] for name, error in errors.items()}
for name, error in errors.items():
    print(f"{name:16} error " + " ".join(f"{value:.1e}" for value in error) + f"   order {orders[name]:.2f}")
assert abs(orders["DDIM"] - 1) < 0.15 and all(abs(orders[name] - 2) < 0.2 for name in ("DPM-Solver++ 2M", "Heun"))

# %% [markdown] id="rates-plot-text"
# As a figure, against steps and against evaluations of the model, which take the time:

# %% id="rates-plot" tags=["static"]
figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True)
for (name, error), marker in zip(errors.items(), "os^"):
    left.loglog(COUNTS, error, marker + "-", label=f"{name}, order {orders[name]:.2f}")
    right.loglog([n * (2 if name == "Heun" else 1) for n in COUNTS], error, marker + "-")
left.set(xlabel="steps", ylabel="distance to the true end", ylim=(1e-4, 1))
right.set(xlabel="evaluations of the model")
for ax in (left, right):
    ax.set_xticks((12, 24, 48, 96, 192), ("12", "24", "48", "96", "192"))
    ax.minorticks_off()
left.set_xlim(10, 115)
left.legend(fontsize=8, loc="upper right")
show(
    figure,
    "Error against steps on logarithmic axes: DDIM falls along a line of slope about -1, the two solvers of "
    "second order along lines of slope about -2. Counted in evaluations, Heun moves to the right, behind 2M.",
)
at_24 = {"DDIM": errors["DDIM"][1], "2M": errors["DPM-Solver++ 2M"][1], "Heun": errors["Heun"][0]}
print("with 24 evaluations: " + ", ".join(f"{name} {error:.1e}" for name, error in at_24.items()))
assert at_24["2M"] < at_24["Heun"] < at_24["DDIM"]

# %% [markdown] id="ddpm-rate-text"
# **And DDPM?** It has no true end for each start, but it has a true *distribution*. Take data from a single Gaussian
# with standard deviation 0.5. Then each step is linear in $x_t$, so the variance can be followed exactly, without
# drawing a single random number: a factor squared times the variance, plus the variance of the step's own noise. In the
# range of the cell the order is about 0.8. It grows with the number of steps, but stays below 1.


# %% id="ddpm-rate"
def final_deviation(n):
    """The standard deviation of what n steps of DDPM draw, if the data are N(0, 0.25) and eps is exact."""
    variance, times = 1.0, trailing_times(T, n)
    one, none = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for t, earlier in zip(times, [*times[1:], -1]):
        a = alpha_bar_at(fine, t)
        eps = (1 - a) ** 0.5 / (0.25 * a + 1 - a) * one  # the exact eps for x_t = 1
        factor = ddpm_step(one, eps, t, earlier, fine, none)
        own = ddpm_step(none, none, t, earlier, fine, one)
        variance = factor.item() ** 2 * variance + own.item() ** 2
    return variance**0.5


gaps = {n: abs(final_deviation(n) - 0.5) for n in (50, 100, 200, 500, 1000)}
print("steps -> error of the standard deviation: " + ", ".join(f"{n}: {gap:.4f}" for n, gap in gaps.items()))
ddpm_order = -numpy.polyfit(numpy.log(list(gaps)), numpy.log(list(gaps.values())), 1)[0]
print(f"order {ddpm_order:.2f} in this range")
assert 0.7 < ddpm_order < 0.9 and gaps[50] / gaps[100] < gaps[100] / gaps[200] < gaps[500] / gaps[1000]

# %% [markdown] id="explore-text"
# Now explore it yourself.
#
# **Predict first, then move the sliders.** With 3 steps, which sampler comes closest to a ring? With DDIM in 20 steps,
# what share of the way is left when the ring appears?
#
# <details><summary>Answer (after moving the sliders)</summary>
# Heun, which evaluates the model five times in 3 steps; the other three give a filled disc. With DDIM in 20 steps the
# ring appears late, in the last quarter of the way, and the blobs only at the very end: on this schedule the first half
# of the steps hardly moves the points.
# </details>

# %% id="filmstrip" tags=["static"]
from course_utils.widgets import explore, filmstrip, trajectory_explorer

explorer = trajectory_explorer(exact, ring, alpha_bar)
filmstrip(
    explorer,
    [{"sampler": name, "steps": n} for name, n in (("DDPM", 10), ("DDIM", 10), ("DPM-Solver++ 2M", 10), ("Heun", 5))],
)

# %% [markdown] id="explore-how"
# Live: choose a sampler and its number of steps; `way` sets how far along to stop, in per cent.

# %% id="explore"
explore(explorer)

# %% [markdown] id="flow-text"
# ### Flow matching in half a page
#
# DDIM's path is not the only one that leads from noise to data. Take another between image and noise, a straight line,
# with $t$ from 0 (clean) to 1 (noise):
#
# $$x_t = (1-t)\,x_0 + t\,\varepsilon, \qquad \frac{dx_t}{dt} = \varepsilon - x_0$$
#
# In *flow matching* the network predicts this *velocity*, $\varepsilon - x_0$, with the squared error; so it learns
# $\mathbb{E}[\varepsilon - x_0 \mid x_t]$, which is $\hat\varepsilon - \hat x_0$. The sampler follows it backwards, by
# Euler steps. For the ring the exact velocity follows from the same mixture formula.


# %% id="flow-run"
def velocity(x, t):
    """The exact E[eps - x0 | x_t = x] for the ring, at a time t in (0, 1]."""
    variance = (1 - t) ** 2 * 0.1**2 + t**2  # of each noisy blob
    offset = x[:, None] - (1 - t) * centres  # (batch, 8, 2)
    weights = (-offset.square().sum(2) / (2 * variance)).softmax(1)  # (batch, 8): which blob?
    mean_offset = (weights[:, :, None] * offset).sum(1)  # (batch, 2)
    eps = t / variance * mean_offset
    x0 = weights @ centres + (1 - t) * 0.1**2 / variance * mean_offset
    return eps - x0


def flow(x, n):
    """Yield x after each of n Euler steps from t = 1 to t = 0."""
    for i in range(n):
        x = x - velocity(x, 1 - i / n) / n
        yield x


scale = 0.5**0.5  # at t = 1/2 image and noise have the factor 1/2; scaled to squares that add up to 1, alpha_bar = 1/2
same_eps = mixture_eps(start / scale, torch.zeros(64, dtype=torch.int64), torch.tensor([0.5]), centres, 0.1)
assert torch.allclose(start + 0.5 * velocity(start, 0.5), same_eps, atol=1e-4)  # eps = x_t + (1 - t) (eps - x0)

# %% [markdown] id="flow-compare-text"
# Both with few steps, from the five sets of starts of section 3. And how much of the path lies in the first half of the
# steps?

# %% id="flow-compare"
few_steps = {}
for n in (3, 5, 10):
    few_steps["flow", n] = over_starts(lambda x, k, n=n: last(flow(x, n)))
    few_steps["DDIM", n] = over_starts(lambda x, k, n=n: last(ddim(exact, x, alpha_bar, trailing_times(T, n))))
    print(f"{n:3} steps: flow {in_words(few_steps['flow', n])}, DDIM {in_words(few_steps['DDIM', n])} from the data")
    assert (few_steps["flow", n] < few_steps["DDIM", n]).all()
halves = {}
for name, stages in (("flow", flow(x_T, 100)), ("DDIM", ddim(exact, x_T, alpha_bar, trailing_times(T, 100)))):
    whole = torch.stack([x_T, *stages])  # (101, 2000, 2)
    moves = (whole[1:] - whole[:-1]).norm(dim=2).mean(1)  # (100,): the mean length of each step
    halves[name] = (moves[:50].sum() / moves.sum()).item()
    chord = torch.linspace(0, 1, 101)[:, None, None]
    bend = (whole - whole[0] - chord * (whole[-1] - whole[0])).square().sum(2).mean().sqrt()
    print(f"{name}: {halves[name]:.0%} of the path in the first half of the steps; {bend:.2f} off a straight line")
assert halves["DDIM"] < 0.1 < 0.3 < halves["flow"]

# %% [markdown] id="flow-read"
# With equally few steps, flow matching is closer to the data in all five sets. Two things differ here, the path and the
# spacing of the steps, so this is no test of the path alone. The spacing certainly differs: on this schedule the first
# half of DDIM's steps hardly moves anything. The straight line holds for a *pair* of one image and one noise. The path
# that follows the average over pairs, which the network learns, bends. The last numbers are the root mean square
# distance, over 2,000 starts, between each path and a straight line from its start to its end, covered in equal steps.
# By this measure, in which DDIM's uneven speed counts too, flow matching on the ring is no closer to a straight line
# than DDIM. Chapter 14 builds flow matching with a network.

# %% [markdown] id="digits-text"
# ## 6 · A real network
#
# With a network instead of the exact $\hat\varepsilon$ there are two errors: the sampler's, which falls with the number of
# steps, and the network's, *which does not*. So there must be a point beyond which more steps gain nothing.
#
# The network is chapter 06's, narrower (0.28 million parameters) and trained for four times as many updates. It comes with
# the course; `python3 course.py train digits_unet` trains it from scratch. First look at a sampling run from the inside:
# $x_t$ above, and below it the $\hat x_0$ towards which each step goes.

# %% id="way-back" tags=["static"]
from course_utils.recipes import load_digits_unet

network = load_digits_unet().to(device)
on_device = alpha_bar.to(device)
noise_16 = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(11)).to(device)
path = list(samplers.ddim(network, noise_16, on_device, trailing_times(T, 50), clip=1))
shown = [path[i] for i in (0, 14, 24, 32, 39, 44, 49)]
heads = [f"t = {step.t}" if step.t >= 0 else "clean" for step in shown]
frames = torch.cat([step.x_t for step in shown] + [step.x0_hat for step in shown]).cpu()
show(
    plot_pictures(frames, columns=7, heads=heads, rows=["$x_t$", r"$\hat x_0$"]),
    "Upper row: noise in which a digit slowly appears. Lower row: the predicted clean digit, at first a blur, then ever "
    "sharper.",
)

# %% [markdown] id="way-back-read"
# The network never outputs $x_{t-1}$. It outputs $\hat\varepsilon$, from which $\hat x_0$ follows, a blur at first; the
# step moves $x_t$ only a little towards it.
#
# ### How many steps?
#
# We measure with the *Fréchet distance* (FID): it compares many drawn digits with the real ones in the features of a small
# digit classifier. Smaller is better; real, unseen digits set the floor. Chapter 15 explains it in detail. All
# samplers start from the same noises: five sets of 200.
#
# **Predict first.** From how many evaluations on is each curve flat?
#
# <details><summary>Answer (after running the cells below)</summary>
# DDIM after about 20 evaluations, 2M after about 10. Heun reaches the same level at 19 (10 steps), its
# last setting, so whether it is flat there is not measured. For DDPM the spread between sets is
# too large to tell.
# </details>

# %% id="steps-run"
from time import perf_counter

from course_utils.metrics.pictures import digit_fid

count = budget(smoke=20, laptop=200, gpu=357)
sets = [
    torch.randn(count, 1, 16, 16, generator=seed(number)).to(device)
    for number in range(budget(smoke=2, laptop=5, gpu=8))
]
noises = sets[0]
PLAN = {"DDPM": (10, 20, 50, 100), "DDIM": (5, 10, 20, 50), "DPM-Solver++ 2M": (5, 10, 20), "Heun": (3, 5, 10)}
SAMPLERS = {"DDPM": samplers.ddpm, "DDIM": samplers.ddim, "DPM-Solver++ 2M": samplers.dpm_solver, "Heun": samplers.heun}


def draw_digits(name, steps, noises, number=0):
    """The digits that a sampler draws from `noises`; number: the seed of DDPM's fresh noise."""
    options = {"generator": seed(1000 + number)} if name == "DDPM" else {}
    return samplers.finish(SAMPLERS[name](network, noises, on_device, trailing_times(T, steps), clip=1, **options))


# %% id="steps-measure"
quality = {}  # (sampler, evaluations): the FID of each set, (sets,)
for name, plan in PLAN.items():
    for n in budget(smoke=plan[:2], laptop=plan, gpu=plan):
        started = perf_counter()
        fids = torch.tensor([digit_fid(draw_digits(name, n, each, number)) for number, each in enumerate(sets)])
        evaluations = 2 * n - 1 if name == "Heun" else n
        quality[name, evaluations] = fids
        print(
            f"{name:16} {evaluations:4} evaluations  FID {fids.mean():5.1f}, from {fids.min():5.1f} to {fids.max():5.1f}"
            f"  {perf_counter() - started:5.1f} s"
        )

# %% [markdown] id="steps-plot-text"
# As a picture: means, bars from the smallest to the largest of the sets, and the floor from as many real digits:

# %% id="steps-plot" tags=["static"]
unseen_digits = digits.load(16, split="test")[0]
floors = torch.tensor([digit_fid(unseen_digits[torch.randperm(357, generator=seed(k))[:count]]) for k in range(5)])
floor = floors.mean().item()
figure, ax = plt.subplots(figsize=(6.8, 3.6))
for (name, marker), shift in zip(zip(PLAN, "Dos^"), (0.97, 0.99, 1.01, 1.03)):
    curve = {evaluations: fids for (who, evaluations), fids in quality.items() if who == name}
    values = torch.stack(list(curve.values()))  # (settings, sets)
    means = values.mean(1)
    bars = torch.stack([means - values.min(1).values, values.max(1).values - means])
    ax.errorbar([n * shift for n in curve], means, yerr=bars, marker=marker, label=name, capsize=2)
ax.axhline(floor, color="#777777", linestyle=":", label="real, unseen digits")
ax.set(xscale="log", xlabel="evaluations of the network", ylabel="FID (smaller is better)", ylim=(0, None))
ax.set_xticks((5, 10, 20, 50, 100), ("5", "10", "20", "50", "100"))
ax.minorticks_off()
ax.legend(fontsize=9)
show(
    figure,
    "FID against evaluations: the means of DDIM and 2M fall at first and then go flat, above the line of the real "
    "digits; Heun's fall to the same level, DDPM's fall and then go up and down. The bars over "
    "the sets of noises are long and overlap nearly everywhere.",
)

# %% [markdown] id="steps-read"
# The bars are long: with another set of noises the same sampler gets quite another FID. With 200 digits the FID is not
# precise. But all settings use the same sets of noises. So compare *within* each set: by how much does a setting differ
# from DDIM in its largest number of steps, and in how many sets is it better?

# %% id="steps-seeds"
longest = quality["DDIM", budget(smoke=10, laptop=50, gpu=50)]
print(f"real digits {floor:.1f} (from {floors.min():.1f} to {floors.max():.1f})")
for (name, evaluations), fids in quality.items():
    difference = fids - longest
    print(
        f"{name:16} {evaluations:4} evaluations: {difference.mean():+6.1f} ± {difference.std():4.1f}, "
        f"better in {(difference < 0).sum()} of {len(fids)} sets"
    )
if budget(smoke=False, laptop=True, gpu=True):
    assert (quality["DDIM", 5] > longest + 5).all()
    assert ((quality["DDIM", 20] - longest).abs() < 3).all()
    assert ((quality["DPM-Solver++ 2M", 10] - longest).abs() < 3).all()

# %% [markdown] id="seeds-read"
# For the samplers without fresh noise this is far steadier (± is the standard deviation over the five sets). In every
# set, DDIM in 5 steps is clearly worse than in 50, and in 20 steps it is already within 3 points. 2M is there after 10
# evaluations. Compare with section 5: there the error kept falling. Here DDIM and 2M reach a level that more steps do
# not lower. What remains does not come from the steps: it is the network's error, and the chance in a set of 200
# digits.
#
# DDPM draws fresh noise of its own, so its differences have a standard deviation of 17 to 26 points over the sets. With
# 10 steps it is worse in four of five sets; with 20 to 100 steps, five sets do not tell whether it ends above or below
# the others.

# %% [markdown] id="grid-text"
# And the digits themselves: six noises (seed 3, none selected), from left to right, by 2M in 20 steps.

# %% id="grid" tags=["static"]
six = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(3)).to(device)
stages = list(samplers.dpm_solver(network, six, on_device, trailing_times(T, 20), clip=1))
chosen = [six, *(stages[i].x_t for i in (4, 9, 12, 14, 16, 17, 18, 19))]
names = [f"t = {t}" for t in (999, *(stages[i].t for i in (4, 9, 12, 14, 16, 17, 18)))] + ["clean"]
show(
    plot_pictures(torch.stack(chosen, 1).flatten(0, 1).cpu(), heads=names, columns=9),
    "Six rows of nine stages: noise at the left, in the middle the shape of a digit under the noise, at the right a "
    "clean image; in the third row it is no clear digit.",
)

# %% [markdown] id="train-text"
# ## 7 · A network that predicts $v$
#
# Is anything special about $\varepsilon$? Train a network that predicts $v$: same data, same schedule, same loop
# (`training.train`, chapter 06). One line of the loss differs, the target.

# %% id="v-loss"
from course_utils.diffusion.objectives import noise_prediction_loss, uniform_times, v_from_x0_eps
from course_utils.models.unet import PictureUNet
from course_utils.training import MovingAverage, Samples, train

pictures = digits.load(16)[0].to(device)  # (1440, 1, 16, 16)


def v_loss(model, samples):
    """The mean squared error of the predicted v; data, times and noise follow from the samples' own numbers."""
    x0 = pictures[samples.integers(len(pictures)).to(device)]
    t = uniform_times(samples.uniforms(stream=1), T).to(device)
    eps = samples.normals(1, 16, 16, stream=2).to(device)
    v = v_from_x0_eps(x0, eps, t, on_device)
    return noise_prediction_loss(model(add_noise(x0, eps, t, on_device), t), v).mean()


exam = Samples(numpy.arange(10_000, 10_000 + budget(smoke=50, laptop=300, gpu=300)), seed=5)

# %% id="v-train"
from tqdm.auto import tqdm

torch.manual_seed(0)
v_network = PictureUNet(channels=1, size=16, widths=(16, 32, 32)).to(device)
average = MovingAverage(v_network, 0.99)
with torch.no_grad():
    before = v_loss(v_network, exam).item()
updates = budget(smoke=10, laptop=600, gpu=4000)
batch = budget(smoke=16, laptop=32, gpu=64)

live = LivePlot(
    "The loss of the network that predicts v: a steep fall, then a slow decline.", seconds=5, log_scale=True
)
training = train(v_network, v_loss, steps=updates, batch=batch, learning_rate=2e-3, average=average)
for record in tqdm(training, total=updates):
    live.update(record.step, record.loss)
live.finish()
with torch.no_grad():
    after = v_loss(average.model, exam).item()
print(f"loss on a fixed batch: before {before:.3f}, after {after:.3f}; {record.seconds:.0f} seconds")
assert after < before

# %% [markdown] id="v-draw-text"
# The samplers need no change: `as_eps` converts its $v$ to $\hat\varepsilon$.

# %% id="v-draw" tags=["static"]
v_as_eps = objectives.as_eps(average.model, "v", on_device)
drawn_v = samplers.finish(samplers.dpm_solver(v_as_eps, noises, on_device, trailing_times(T, 20), clip=1))
drawn_eps = draw_digits("DPM-Solver++ 2M", 20, noises)
show(
    plot_pictures(torch.cat([drawn_eps[:15], drawn_v[:15]]).cpu(), columns=15, rows=["eps", "v"]),
    "Above: fifteen digits drawn by the network of section 6, which predicts eps. Below: by the one just trained, which "
    "predicts v, from the same noises; in most columns the shapes are alike.",
)
print(f"FID of {count}: eps, 4000 updates {digit_fid(drawn_eps):.1f}; v, {updates} updates {digit_fid(drawn_v):.1f}")


def alike(a, b):
    """The correlation of two images, or of two sets of images, pixel by pixel."""
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


same_noise, other_noise = alike(drawn_eps, drawn_v), alike(drawn_eps, drawn_v.roll(1, 0))
print(f"correlation of both networks' digits: same noise {same_noise:.2f}, another noise {other_noise:.2f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert same_noise > other_noise + 0.05

# %% [markdown] id="v-read"
# The network that predicts $v$ had far fewer updates, and its FID is larger, in the one set of noises that was drawn;
# with both the target and the updates changed, this comparison says nothing about $v$ itself. But the samplers work
# with it unchanged. And from the *same* noise both networks, which were trained separately, tend to draw the same
# shapes: over the 200 images the correlation is 0.95, and 0.56 where the noises differ. The smooth curves of section 3
# are determined by the data and the schedule, and each network only approximates them.

# %% [markdown] id="inversion-text"
# ## 8 · Backwards: DDIM inversion
#
# With $\eta = 0$ the image is a function of $x_T$. Can we go the other way, from a *given* image to the noise from
# which it would be drawn? Take DDIM's formula with the times exchanged, from $x_t$ to a later, noisier time:
#
# $$x_\text{later} = \sqrt{\bar\alpha_\text{later}}\;\hat x_0 + \sqrt{1-\bar\alpha_\text{later}}\;\hat\varepsilon$$
#
# There is no fresh noise: $\hat\varepsilon$ is predicted at $x_t$. This is not an exact inverse. Drawing evaluates the
# network at $x_\text{later}$, inversion at $x_t$, so each step leaves a small mismatch.
#
# **Predict first.** You invert with $n$ steps and draw with $n$ steps. How does the mismatch shrink with $n$?
#
# <details><summary>Answer (after running the cells below)</summary>
# About like 1/n: twice the steps, half the mismatch. Both directions are methods of first order.
# </details>

# %% [markdown] id="ex-inversion-text"
# ### Exercise 9 · The inversion step
#
# ●●●○○ · 10 minutes. `t` and `later` are whole numbers; as in exercise 8, `model(x_t, t)` needs its time as a tensor of
# shape (batch,). From the clean image, `t = -1`, the model cannot be evaluated at $t$: pass `later` as its time. Write
# the formula above with the `alpha_bar` that is passed in. Do not call `ddim_step` with the times exchanged: its
# $\sigma_t$ would be the root of a negative number, which Python makes complex. Return $x_\text{later}$, in the shape
# of `x_t`; your `guess` may be used.


# %% id="ex-inversion"
def inversion_step(model, x_t, t, later, alpha_bar):
    """From x_t to the noisier time `later` > t: DDIM the other way round, with the eps predicted at x_t."""
    ### BEGIN SOLUTION
    time = later if t == -1 else t
    eps = model(x_t, torch.full((len(x_t),), time, device=x_t.device))
    a, a_later = alpha_bar_at(alpha_bar, t), alpha_bar_at(alpha_bar, later)
    x0_hat = (x_t - (1 - a) ** 0.5 * eps) / a**0.5
    return a_later**0.5 * x0_hat + (1 - a_later) ** 0.5 * eps
    ### END SOLUTION


# %% id="check-inversion"
inversion_step = check("07.inversion_step", inversion_step)

# %% [markdown] id="invert-text"
# The whole way up, for points of the ring, compared with diffusers and the package. The result should look like noise of
# variance 1. In 20 steps the variance is clearly too small, in 200 steps within a tenth of 1.

# %% id="inversion-equal"
from diffusers import DDIMInverseScheduler


def invert(model, x0, alpha_bar, times):
    """Yield x_t on the way from the clean x0 up to times[0]."""
    x_t = x0
    for t, later in zip([-1, *times[:0:-1]], times[::-1]):
        x_t = inversion_step(model, x_t, t, later, alpha_bar)
        yield x_t


library = DDIMInverseScheduler(**LIBRARY, clip_sample=False)
library.set_timesteps(20)
x, t = ring[:64], -1
for later, ours in zip(library.timesteps.tolist(), invert(exact, ring[:64], alpha_bar, times), strict=True):
    x, t = library.step(exact(x, torch.full((64,), later if t == -1 else t)), later, x).prev_sample, later
    assert torch.allclose(ours, x, atol=2e-4)
assert torch.allclose(ours, samplers.finish(samplers.ddim_inversion(exact, ring[:64], alpha_bar, times)), atol=1e-5)
found = {n: samplers.finish(samplers.ddim_inversion(exact, ring, alpha_bar, trailing_times(T, n))) for n in (20, 200)}
print("variance of the noise found: " + ", ".join(f"{x.var():.2f} in {n} steps" for n, x in found.items()))
assert found[20].var() < 0.9 < found[200].var() < 1.1

# %% [markdown] id="round-trip-text"
# There and back, on the ring with the exact model, in double precision: 500 points between $t = 99$ and $t = 999$.


# %% id="round-trip"
def round_trip(n):
    """Root mean square distance after n steps up from t = 99 to 999, and n steps back."""
    rising = [round(99 + i * 900 / n) for i in range(n + 1)]
    x = truth
    for t, later in zip(rising, rising[1:]):
        x = inversion_step(exact_fine, x, t, later, fine)
    *_, back, _ = ddim(exact_fine, x, fine, rising[::-1])
    return (back - truth).square().sum(1).mean().sqrt().item()


trips = {n: round_trip(n) for n in COUNTS}
rate = -numpy.polyfit(numpy.log(COUNTS), numpy.log(list(trips.values())), 1)[0]
print("steps -> error of the round trip: " + ", ".join(f"{n}: {error:.4f}" for n, error in trips.items()))
print(f"it shrinks like n to the power of -{rate:.2f}: twice the steps, half the error; it is never zero")
assert 0.8 < rate < 1.3

# %% [markdown] id="round-digits-text"
# Now real digits and the network. One use of inversion: invert two digits, mix their noises, and draw what lies between.

# %% id="round-digits" tags=["static"]
unseen = digits.load(16, split="test")[0].to(device)
pair = unseen[[6, 8]]
columns, heads = [pair], ["given"]
for n in (5, 20, budget(smoke=30, laptop=100, gpu=100)):
    up = list(invert(network, pair, on_device, trailing_times(T, n)))[-1]
    back = last(ddim(network, up, on_device, trailing_times(T, n)))
    columns.append(back)
    heads.append(f"{n} steps")
    print(f"{n:3} steps: mean difference of a pixel {(back - pair).abs().mean():.3f}")
show(
    plot_pictures(torch.stack(columns, 1).flatten(0, 1).cpu(), columns=4, heads=heads),
    "Two unseen digits, and the same after inversion and drawing in 5, 20 and 100 steps: in 5 "
    "darker and smoother strokes, in 100 nearly as given.",
)


# %% id="between" tags=["static"]
def between(a, b, share):
    """Noise between two noises, along the arc on which the length stays (slerp)."""
    angle = torch.acos(torch.cosine_similarity(a.flatten(), b.flatten(), 0))
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)


mixed = torch.stack([between(up[0], up[1], share) for share in torch.linspace(0, 1, 9).tolist()])
morph = last(ddim(network, mixed, on_device, trailing_times(T, 50)))
line = torch.stack([(1 - s) * pair[0] + s * pair[1] for s in torch.linspace(0, 1, 9).tolist()])
show(
    plot_pictures(torch.cat([morph, line]).cpu(), columns=9),
    "Above: nine images drawn from noises between those of a five and a zero: at the left fives, then two that are no "
    "clear digit, and a zero only at the end. Below: the plain "
    "mixtures of the two pictures, which show both at once.",
)

# %% [markdown] id="elsewhere"
# ## 9 · What you will read elsewhere
#
# **"$p_\theta$ is the posterior by Bayes' rule; $q(x_{t-1})$ is known."** Section 1: both $q(x_{t-1})$ and $q(x_t)$
# depend on the data. Same schedule, same times, same place, other data:

# %% id="elsewhere-bayes"
for name, level in (("q(x_{t-1})", 400), ("q(x_t)", 600)):
    a_ = alpha_bar_at(alpha_bar, level)
    found = {
        world: float(sum(w * normal(torch.tensor(1.5), a_**0.5 * c, a_ * s**2 + 1 - a_) for w, c, s in peaks))
        for world, peaks in WORLDS.items()
    }
    print(f"{name:10} at 1.5: " + ", ".join(f"{world} {value:.3f}" for world, value in found.items()))
    assert abs(found["two peaks"] / found["one peak"] - 1) > 0.2

# %% [markdown] id="elsewhere-output"
# **"The U-Net outputs the noise-free image $x_{t-1}$."** Three errors: it outputs $\hat\varepsilon$ (or $\hat v$); the
# *scheduler*, diffusers' name for a sampler, computes $x_{t-1}$ from that; and $x_{t-1}$ is not noise-free. A
# correlation is no test: at the noisy end $x_t$, $x_{t-1}$ and $\hat\varepsilon$ are all nearly the same noise. Look at
# sizes instead. How far is the output from $x_{t-1}$, compared with $x_t$, which is only one step away? For 50 digits
# in 50 steps:

# %% id="elsewhere-output-run"
fifty = noises[:50]
film = list(samplers.ddim(network, fifty, on_device, trailing_times(T, 50), clip=1))


def rms(x):
    return x.square().mean().sqrt().item()


print("   t  output to x_{t-1}  x_t to x_{t-1}  correlation with x_{t-1}  with the final digit")
for i in (4, 24, 44):
    x_t, x_before, t = film[i].x_t, film[i + 1].x_t, film[i].t
    with torch.no_grad():
        output = network(x_t, torch.full((len(x_t),), t, device=device))
    far, near = rms(output - x_before), rms(x_t - x_before)
    print(f"{t:4} {far:18.3f} {near:15.3f} {alike(output, x_before):25.2f} {alike(output, film[-1].x_t):22.2f}")
    assert far > 5 * near
earlier = film[45].t
by_ddim = ddim_step(x_t, output, t, earlier, on_device, clip=1)
by_ddpm = ddpm_step(x_t, output, t, earlier, on_device, torch.randn(x_t.shape, generator=seed(5)).to(x_t), clip=1)
print(f"one output, two schedulers: DDIM's and DDPM's x_{{t-1}} differ by {rms(by_ddim - by_ddpm):.3f}")
print(f"noise in x_{{t-1}} at t = {earlier}: standard deviation {(1 - alpha_bar_at(alpha_bar, earlier)) ** 0.5:.3f}")
print(f"correlation of x_T with the final digit {alike(fifty, film[-1].x_t):.2f}")
assert rms(by_ddim - by_ddpm) > 0.05

# %% [markdown] id="elsewhere-output-read"
# In these three rows the output is ten to 25 times as far from $x_{t-1}$ as $x_t$ is, and one output gives two
# different $x_{t-1}$ with two schedulers. So $x_{t-1}$ is not what the network outputs. The output's small positive
# correlation with the final digit is no prediction of the digit either: with $\eta = 0$ the digit grows out of $x_T$,
# so bright places in the noise tend to become bright pixels, and $\hat\varepsilon$ is that noise.

# %% [markdown] id="elsewhere-steps"
# **"More inference steps give better pictures."** Up to a point. Here are the means of section 6 again, a line each.
# Their spread over the sets is in section 6, and with it DDPM's last three cannot be told apart:

# %% id="elsewhere-steps-run"
for name in PLAN:
    curve = [(n, fids.mean()) for (who, n), fids in quality.items() if who == name]
    print(f"{name:16} " + ", ".join(f"{n}: {fid:.1f}" for n, fid in curve))

# %% [markdown] id="elsewhere-more"
# Section 5 showed the other half: with an exact model the error keeps falling. With a network it falls until the
# *network's* error is left, and further steps are wasted. 2M gets there sooner, after about 10 evaluations, where DDIM
# needs about 20. Heun at 19 is no sooner than DDIM.
#
# **"DDIM needs its own network."** Every digit of section 6 came from one network, trained once; its training does not
# involve any sampler.
#
# **"Without noise in the steps all pictures would be the same."** Without it, variety comes from $x_T$. 2M adds no
# noise in its steps; which digits are among the 200 that it drew from the first set of section 6?

# %% id="asked" tags=["static"]
from course_utils.recipes import load_reader

with torch.no_grad():
    read_as = load_reader()(drawn_eps.cpu()).argmax(1)
numbers = torch.bincount(read_as, minlength=10).tolist()
print("digits drawn by 2M: " + ", ".join(f"{n} of {digit}" for digit, n in enumerate(numbers)))
assert len(read_as.unique()) > 5
show(
    plot_pictures(drawn_eps[:30].cpu(), [str(digit) for digit in read_as[:30].tolist()], columns=15),
    "Thirty digits drawn by DPM-Solver++ 2M in 20 steps from the first set of section 6, each under the digit that the "
    "digit classifier reads.",
)

# %% [markdown] id="next"
# ## The failure that comes next
#
# Now draw a seven. You cannot: the sampler takes noise and a network, and has no input for what you want. You can only
# draw until a seven comes by chance. To ask for something, words must become numbers that describe images: chapter 08.
# How these numbers then steer every single step is the subject of chapter 10.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $\tilde\mu_t,\ \tilde\beta_t$ of $q(x_{t-1} \mid x_t, x_0)$ | `posterior(x0, x_t, t, earlier, alpha_bar)` |
# | $\hat x_0 = \text{clip}((x_t - \sqrt{1-\bar\alpha_t}\,\hat\varepsilon)/\sqrt{\bar\alpha_t})$ | `guess` |
# | $x_{t-1} = \tilde\mu_t + \sqrt{\tilde\beta_t}\,\varepsilon'$ | `ddpm_step` |
# | $\sqrt{\bar\alpha_{t-1}}\hat x_0 + \sqrt{1-\bar\alpha_{t-1}-\sigma_t^2}\hat\varepsilon + \sigma_t \varepsilon'$ | `ddim_step` |
# | $\nabla \log p_t(x_t) = -\hat\varepsilon/\sqrt{1-\bar\alpha_t}$ | `score(eps, t, alpha_bar)` |
# | $\varepsilon = \sqrt{1-\bar\alpha_t}\,x_t + \sqrt{\bar\alpha_t}\,v$ | `eps_from_v(x_t, v, t, alpha_bar)` |
# | $\hat x_0' = \hat x_0 + \frac{h}{2 h_\text{before}}(\hat x_0 - \hat x_0^\text{before})$ | `dpm_solver_step` |
# | $\text{DDIM}(x_t, (\varepsilon_1 + \varepsilon_2)/2)$ | `heun_step` |
#
# In five sentences: $q(x_{t-1} \mid x_t)$ is out of reach, so we use the posterior for a known $x_0$. The network
# predicts $\hat\varepsilon$; the sampler takes the step. The last step adds no noise. A solver's error falls as the
# number of steps grows, at the rate that its order gives. The network's does not.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. You take a single DDIM step from t = T-1 to the clean image. What do you see, and what would
# DDPM and 2M give?</summary>
# The same, all three: x0_hat, the blurred average. At the last step DDPM's variance is 0 and its mean is x0_hat, and 2M
# takes x0_hat' = x0_hat.
# </details>
# <details><summary>2. Two people use the same network, seed and sampler, on a CPU and on a GPU. With eta = 0 their
# pictures agree, with eta = 1 they are unrelated. Why?</summary>
# With eta = 0 only x_T is random, and it may come from the same CPU generator. With eta = 1 each step draws noise; if
# that comes from the device's own generator, the numbers differ, whatever the seed.
# </details>
# <details><summary>3. Why does a second-order solver not help DDPM?</summary>
# It follows a smooth curve and estimates how it bends. A path with fresh noise at each step has no such bend.
# There are solvers for stochastic equations too, with other formulas.
# </details>
#
# **Papers** DDPM: Ho et al., [arXiv:2006.11239](https://arxiv.org/abs/2006.11239). DDIM and its inversion: Song et al.,
# [arXiv:2010.02502](https://arxiv.org/abs/2010.02502). The score and the probability flow: Song et al.,
# [arXiv:2011.13456](https://arxiv.org/abs/2011.13456). DPM-Solver++: Lu et al.,
# [arXiv:2211.01095](https://arxiv.org/abs/2211.01095). Heun, and samplers taken apart: Karras et al.,
# [arXiv:2206.00364](https://arxiv.org/abs/2206.00364). $v$: Salimans and Ho,
# [arXiv:2202.00512](https://arxiv.org/abs/2202.00512). Flow matching: Lipman et al.,
# [arXiv:2210.02747](https://arxiv.org/abs/2210.02747). Start at the noisy end: Lin et al.,
# [arXiv:2305.08891](https://arxiv.org/abs/2305.08891).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: where to put few steps
#
# `trailing_times` spreads the steps evenly over $t$ and starts at the noisy end. `leading_times`, the default of
# diffusers' DDPM and DDIM, starts below it, although it is given pure noise. A third choice spreads them evenly over
# $\lambda$. With ten steps of 2M:

# %% id="bonus-run"
lams = numpy.array([lam(level) for level in range(T)])
even = numpy.linspace(lams[-1], lams[0], 11)[:-1]
spacings = {
    "trailing": trailing_times(T, 10),
    "leading": samplers.leading_times(T, 10),
    "even in lambda": sorted({int(abs(lams - value).argmin()) for value in even}, reverse=True),
}
for name, chosen in spacings.items():
    drawn = last(dpm_solver(exact, x_T, alpha_bar, chosen))
    print(f"{name:15} {chosen}: {off(drawn):.3f} off (data 0.141)")

# %% [markdown] id="bonus-read"
# Spacing evenly over $\lambda$ puts five of the ten steps below $t = 250$, near the clean end, where the blobs get
# their shape; `trailing` has two there. `leading` first evaluates the model at $t = 900$, with noise that belongs to
# $t = 999$. (One set of 2,000 starts: how much the numbers vary from set to set is not measured here.) To compare the
# three on digits, draw with `network` from each of the `sets` and compare `digit_fid` within each set, as in section 6.
