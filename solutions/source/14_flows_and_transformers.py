# %% [markdown] id="title"
# # 14 · Flows, transformers, few steps
#
# Stable Diffusion 1.5 was published in 2022. What replaced it, Stable Diffusion 3 and Flux, differs above all in three
# things. Noise and image are joined by a straight line, along which the network predicts a velocity. The network
# is a transformer. And distilled versions draw in one to four steps. In this chapter you build all three.
#
# ![Four rows of the same six captions: one, two and four steps of the few-step student, and twenty guided steps of its teacher; with one step details are blurred or missing, with four the images are close to the teacher's](../chapters/figures/14_few_steps.png)
#
# **After this chapter you can**
# 1. derive the velocity of rectified flow, show that it is the noise prediction of chapter 06 in other units, and
#    measure how straight its paths are;
# 2. choose and shift the times of training and sampling as Stable Diffusion 3 does;
# 3. build a diffusion transformer from patches, adaLN-zero and joint attention, equal to the library's;
# 4. distil a guided model into one of four steps, two and one, and measure what is lost;
# 5. say what Stable Diffusion 3 and Flux consist of, and what they need.
#
# **Time** about four and a half hours, half of them for the ten exercises. All cells together run in about twelve minutes on one core of a CPU.
# **You need** chapters 04 (attention), 05 to 07 (noise, losses, samplers), 10 (guidance), 11 (memory plans) and 12 (LoRA).

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
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $x_0$ | `x0` | clean data: points, or scaled latents | (batch, ...) |
# | $\varepsilon$ | `eps` | standard normal noise | like $x_0$ |
# | $t$ | `t` | time: the share of noise, from 0 (data) to 1 (noise); in a diffusion model, the noise level | (batch,) |
# | $x_t$ | `x_t` | the point at $t$ on the way from $x_0$ to $\varepsilon$ | like $x_0$ |
# | $x_1$ | `x_1` | the start of sampling a flow: noise | like $x_0$ |
# | $u_t$ | `u` | the velocity at $x_t$ | like $x_0$ |
# | $\hat u$ | `u` | a prediction of it | like $x_0$ |
# | $t_\text{next}$ | `s` | the time that a step leads to | (batch,) |
# | $x_\text{next}$ | `x_s` | the point that a step leads to | like $x_0$ |
# | $U$ | `U` | the mean velocity from $t$ to $t_\text{next}$ | like $x_0$ |
# | $\bar\alpha$, $\bar\alpha_t$ | `alpha_bar` | the share that is left of the clean image's variance, at one noise level | a number, or (batch,) |
# | $x^{(i)}$ | `data[i]` | point $i$ of the data | (d,) |
# | $\pi_i$ | `weights` | the probability that point $i$ is behind $x_t$ | (batch, n) |
# | $\hat x_0$, $\hat\varepsilon$ | `x0`, `eps` | the clean image and the noise that a prediction implies | like $x_0$ |
# | $v$, $\hat v$ | `v` | $\sqrt{\bar\alpha}\,\varepsilon - \sqrt{1-\bar\alpha}\,x_0$, and a prediction of it | like $x_0$ |
# | $c$, $\varnothing$ | `cond`, `null` | the features of the prompt, and of the empty prompt | (batch, words, width) |
# | $w$ | `w` | the guidance scale | a number, or (batch,) |

# %% [markdown] id="line-text"
# ## 1 · Straight lines
#
# The forward process of chapter 05 leads from data to noise on a curve: the shares of signal and noise are
# $\sqrt{\bar\alpha}$ and $\sqrt{1-\bar\alpha}$. **Rectified flow** ([arXiv:2209.03003](https://arxiv.org/abs/2209.03003))
# and flow matching ([arXiv:2210.02747](https://arxiv.org/abs/2210.02747)) can take the simplest path there is (the papers let $t$ run the other way):
#
# $$x_t = (1 - t)\, x_0 + t\, \varepsilon, \qquad u_t = \frac{dx_t}{dt} = \varepsilon - x_0$$
#
# In words: at time $t$ we have gone the share $t$ of the way from the data to the noise, at a constant velocity $u_t$.
# A network $\hat u(x_t, t)$ is trained to predict it, by the mean squared error.
#
# ### Exercise 1 · The loss
#
# ●●○○○ · 8 minutes. `x0` and `eps` are (batch, ...), `t` (batch,), real numbers in [0, 1]. `model(x_t, t, cond)` returns a
# velocity. Return the mean squared error of each sample, (batch,). `expand_like(t, x0)` gives `t` the axes of `x0`.

# %% id="ex-loss"
from course_utils.shapes import expand_like


def velocity_loss(model, x0, t, eps, cond=None):
    """Each sample's mean squared error of the velocity: (batch,)."""
    ### BEGIN SOLUTION
    #: the point at t on the line
    share = expand_like(t, x0)
    x_t = (1 - share) * x0 + share * eps
    #: the velocity along it
    u = eps - x0
    #: the mean over all axes but the first
    return (model(x_t, t, cond) - u).square().flatten(1).mean(1)
    ### END SOLUTION


# %% id="check-loss"
velocity_loss = check("14.velocity_loss", velocity_loss)

# %% [markdown] id="marginal-text"
# ### What the network learns
#
# Take three clouds of points as data. Many lines pass through or near one point $x_t$, and each has a velocity of its own. The
# network sees only $x_t$ and $t$. The prediction with the least error is the mean over all lines through the point,
#
# $$u(x_t, t) = \mathbb{E}[\varepsilon - x_0 \mid x_t]$$
#
# In words: the **marginal velocity** is the average velocity of what could have led here.
# **Predict first:** where does it point near $t = 1$? And near $t = 0$?
#
# <details><summary>Answer (after running the cell below)</summary>
# Near $t = 1$ the point says next to nothing about $x_0$, so the velocity is the point itself minus the mean of the data:
# it points away from one centre everywhere. At a low $t$, such as 0.2, it points away from the cloud that
# the point most probably came from. The arrows in the figure point the opposite way, in the direction of sampling.
# </details>
#
# ### Exercise 2 · The marginal velocity
#
# ●●●○○ · 15 minutes. The data are `n` points $x^{(i)}$, all equally likely: `data` is (n, d). Given $x_t$, how probable is
# it that it lies on a line from $x^{(i)}$? The noise would have to be $\varepsilon^{(i)} = (x_t - (1 - t)\, x^{(i)}) / t$, and noise is
# normal: the weights $\pi_i$ are the softmax over $i$ of $-\lVert \varepsilon^{(i)} \rVert^2 / 2$. `x_t` is (batch, d), `t` (batch,), all
# above 0. Return the weighted mean of $\varepsilon^{(i)} - x^{(i)}$, (batch, d), in the dtype of `x_t`.


# %% id="ex-marginal"
def marginal_velocity(x_t, t, data):
    """E[eps - x0 | x_t] where x0 is one of the points of data (n, d): (batch, d)."""
    ### BEGIN SOLUTION
    #: the noise that would have led from each point to x_t
    t = t[:, None, None]
    eps = (x_t[:, None] - (1 - t) * data) / t  # (batch, n, d)
    #: how probable each is
    weights = (-eps.square().sum(2) / 2).softmax(1)  # (batch, n)
    #: the mean velocity
    return (weights[:, :, None] * (eps - data)).sum(1)
    ### END SOLUTION


# %% id="check-marginal"
marginal_velocity = check("14.marginal_velocity", marginal_velocity)

# %% [markdown] id="arrows-text"
# The arrows point against the velocity, which is the direction of sampling:

# %% id="arrows" tags=["static"]
dice = torch.Generator().manual_seed(0)
centres = torch.tensor([[0.0, 1.6], [-1.4, -0.9], [1.4, -0.9]])
data = centres.repeat_interleave(40, 0) + 0.15 * torch.randn(120, 2, generator=dice)
axis = torch.linspace(-2.4, 2.4, 13)
grid = torch.cartesian_prod(axis, axis)
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.2))
for ax, level in zip(axes, (0.95, 0.6, 0.2)):
    u = marginal_velocity(grid, torch.full((len(grid),), level), data)
    ax.scatter(*data.T, s=4, color="#E69F00")
    ax.quiver(*grid.T, *(-u).T, angles="xy", width=0.004)
    ax.set(title=f"t = {level}, against the velocity", aspect="equal")
show(
    figure,
    "Three clouds and arrows of the direction of sampling: at a high t all point to the middle, at a low t to a cloud.",
)

# %% [markdown] id="diffusion-text"
# ### A diffusion model is a flow
#
# Nothing here is new but the units. A noisy sample of chapter 05, $x = \sqrt{\bar\alpha}\, x_0 +
# \sqrt{1 - \bar\alpha}\, \varepsilon$, divided by $\sqrt{\bar\alpha} + \sqrt{1 - \bar\alpha}$, lies on the straight line
# from $x_0$ to $\varepsilon$:
#
# $$x_t = \frac{x}{\sqrt{\bar\alpha} + \sqrt{1 - \bar\alpha}} = (1 - t)\, x_0 + t\, \varepsilon, \qquad
#   t = \frac{\sqrt{1 - \bar\alpha}}{\sqrt{\bar\alpha} + \sqrt{1 - \bar\alpha}}$$
#
# In words: rescaled, each noise level of a diffusion model is a time of rectified flow. So every model that predicts
# $\varepsilon$ or $v$ predicts a velocity, too.
#
# ### Exercise 3 · Diffusion as a flow
#
# ●●●○○ · 12 minutes. `x` is (batch, ...), a noisy sample at the noise level `alpha_bar`, a number; `eps` is the
# model's prediction there. Return a triple: the time `t` (a Python float), the rescaled sample `y`, and the velocity at `y`, both in the
# dtype of `x`.


# %% id="ex-flow"
def as_flow(x, eps, alpha_bar):
    """(t, y, velocity) of rectified flow, from a noisy sample of diffusion and the noise predicted there."""
    ### BEGIN SOLUTION
    #: the shares of signal and noise
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    #: the predicted x0
    x0 = (x - noise * eps) / signal
    #: time, point and velocity
    return noise / (signal + noise), x / (signal + noise), eps - x0
    ### END SOLUTION


# %% id="check-flow"
as_flow = check("14.as_flow", as_flow)

# %% [markdown] id="views-text"
# Chapter 07 turned predictions into one another. Here is how each becomes a velocity.
# The velocity at $x_t = x / (\sqrt{\bar\alpha} + \sqrt{1 - \bar\alpha})$ is
#
# | from | velocity |
# |:--|:--|
# | $\varepsilon$ | $\varepsilon - (x - \sqrt{1 - \bar\alpha}\,\varepsilon) / \sqrt{\bar\alpha}$ |
# | $x_0$ | $(x - \sqrt{\bar\alpha}\, x_0) / \sqrt{1 - \bar\alpha} - x_0$ |
# | $v$ | $(\sqrt{\bar\alpha} + \sqrt{1 - \bar\alpha})\, v - (\sqrt{\bar\alpha} - \sqrt{1 - \bar\alpha})\, x$ |
# | the score | as from $\varepsilon$, with $\varepsilon = -\sqrt{1 - \bar\alpha} \cdot \text{score}$ |

# %% id="views"
dice = torch.Generator().manual_seed(0)
x0, eps = torch.randn(2, 64, generator=dice, dtype=torch.float64)
for a2 in (0.01, 0.3, 0.5, 0.99):
    a, b = math.sqrt(a2), math.sqrt(1 - a2)
    x, v, score = a * x0 + b * eps, a * eps - b * x0, -eps / b
    views = [eps - (x - b * eps) / a, (x - a * x0) / b - x0, (a + b) * v - (a - b) * x]
    views += [-b * score - (x + b**2 * score) / a, as_flow(x, eps, a2)[2]]
    assert all(torch.allclose(u, eps - x0) for u in views)

# %% [markdown] id="euler-text"
# ### Sampling
#
# The velocity is the derivative of the path, so sampling solves a differential equation, from $t = 1$ to $0$. Euler's method
# takes each velocity as constant until the next time, $t_\text{next} < t$; Heun's method looks at both ends of the step:
#
# $$x_\text{next} = x_t + (t_\text{next} - t)\, \hat u(x_t, t), \qquad
#   x_\text{next} = x_t + (t_\text{next} - t)\, \tfrac12 \bigl(\hat u(x_t, t) + \hat u(x', t_\text{next})\bigr)$$
#
# where $x'$ is Euler's point. In words: go along the velocity, or along the mean of the velocities here and there.
#
# ### Exercise 4 · Euler and Heun
#
# ●●●○○ · 15 minutes. `times` is a list of falling numbers from 1 to 0. Return the last $x$. With `second=True` use Heun's
# method, except in the step to 0, which is Euler's: one evaluation fewer, and a velocity at $t = 0$ is never needed.
# `model(x_t, t, cond)` wants `t` as a tensor (batch,).


# %% id="ex-euler"
@torch.no_grad()
def sample_flow(model, x_1, times, cond=None, second=False):
    """From noise x_1 (batch, ...) along the velocity to t = 0."""

    ### BEGIN SOLUTION
    #: the velocity at one time for the whole batch
    def u_at(x, t):
        return model(x, torch.full((len(x),), float(t)), cond)

    x = x_1
    for t, s in zip(times[:-1], times[1:]):
        u = u_at(x, t)
        #: Heun: the mean with the velocity at Euler's point
        if second and s > 0:
            u = (u + u_at(x + (s - t) * u, s)) / 2
        #: one step along it
        x = x + (s - t) * u
    return x
    ### END SOLUTION


# %% id="check-euler"
sample_flow = check("14.sample_flow", sample_flow)

# %% [markdown] id="ddim-text"
# With `as_flow`, the shipped diffusion model becomes a flow, and Euler's method on it becomes a sampler that you know.
# **Predict first:** which one?
#
# <details><summary>Answer (after running the cell below)</summary>
# DDIM. It keeps $\hat x_0$ and $\hat\varepsilon$ and mixes them with the shares of the next noise level; in the coordinates of the flow this
# is a straight step along $\hat\varepsilon - \hat x_0$.
# </details>

# %% id="ddim"
from course_utils.diffusion import flow, samplers
from course_utils.diffusion.objectives import as_eps
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.pipelines.editing import decode_latents, hidden_states
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.recipes.unet import PromptedUNet

painter = load_picture_book()
alpha_bar = alpha_bar_from_beta(scaled_linear_beta())
asked = ["a cute corgi puppy sitting on the grass", "a red ball left of a white cat", "a blue car in the snow"]
words, nothing = hidden_states(painter, asked, 3), hidden_states(painter, "", 3)
guided = samplers.guided(as_eps(PromptedUNet(painter.unet), "v", alpha_bar), nothing, 3.0)
whole = samplers.trailing_times(1000, budget(smoke=4, laptop=20, gpu=20))
x_T = torch.randn(3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
times = [*flow.flow_time(alpha_bar[whole]).tolist(), 0.0]


def velocity(y, t, cond):
    """The shipped model as a flow, at the times of its own noise levels."""
    s = whole[min(range(len(whole)), key=lambda i: abs(times[i] - t[0].item()))]
    a = alpha_bar[s].item()
    x = y * (math.sqrt(a) + math.sqrt(1 - a))
    return as_flow(x, guided(x, torch.full((len(y),), s), cond), a)[2]


a = alpha_bar[-1].item()
by_flow = sample_flow(velocity, x_T / (math.sqrt(a) + math.sqrt(1 - a)), times, words)
by_ddim = samplers.finish(samplers.ddim(guided, x_T, alpha_bar, whole, words))
print(f"largest difference of the latents: {(by_flow - by_ddim).abs().max():.1e}")
assert torch.allclose(by_flow, by_ddim, atol=1e-3)

# %% [markdown] id="curved-text"
# ### Are the lines straight?
#
# The lines of training are. But the *marginal* velocity is an average, and its paths bend: they begin towards the mean
# of all data and turn to one cloud later. How far a path is from a straight one at constant speed is measured by
#
# $$\text{curvature} = \int_0^1 \frac{\lVert \hat u(x_t, t) - (x_1 - x_0) \rVert^2}{\lVert x_1 - x_0 \rVert^2}\, dt$$
#
# where $x_1$ and $x_0$ are the ends of the *sampled* path. In words: the curvature is 0 if the velocity stays the same along the whole path; then one step of
# Euler's method is exact.
#
# ### Exercise 5 · Curvature
#
# ●●●○○ · 12 minutes. `path` is a list of the points that Euler's method visits, from noise to data, (batch, d) each, and `times` the
# falling times at which it is there. Return the curvature of each path, (batch,), in the dtype
# of its points: a sum over steps, each weighted with its length in time.


# %% id="ex-curved"
def curvature(path, times):
    """How far each path is from a straight line at constant speed: (batch,)."""
    ### BEGIN SOLUTION
    #: what a straight path would have as velocity
    straight = path[0] - path[-1]
    total = 0.0
    for before, after, t, s in zip(path[:-1], path[1:], times[:-1], times[1:]):
        #: the velocity in this step
        u = (before - after) / (t - s)
        total = total + (t - s) * (u - straight).square().sum(1)
    return total / straight.square().sum(1)
    ### END SOLUTION


# %% id="check-curved"
curvature = check("14.curvature", curvature)

# %% [markdown] id="curved-points-text"
# The three clouds again, with the exact velocity: how much do its paths bend?

# %% id="curved-points" tags=["static"]
from course_utils.diffusion.samplers import finish


def exact(x, t, cond=None):
    """The marginal velocity of the three clouds."""
    return marginal_velocity(x, t, data)


def path_of(model, x_1, times):
    """All points that Euler's method visits."""
    return [x_1, *(step.x_t for step in flow.euler(model, x_1, times))]


fine = flow.flow_times(64).tolist()
x_1 = torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
paths = path_of(exact, x_1, fine)
print(f"curvature of the exact flow, median of {len(x_1)} paths: {curvature(paths, fine).median():.2f}")
figure, ax = plt.subplots(figsize=(3.6, 3.6))
ax.plot(*torch.stack(paths)[:, :60].unbind(2), color="tab:gray", linewidth=0.6, linestyle="-")
ax.scatter(*data.T, s=6, color="#E69F00", zorder=3)
ax.set(title="60 paths from noise to data", aspect="equal")
show(figure, "Paths of the exact flow start towards the middle and bend to one of three clouds.")
assert curvature(paths, fine).median() > 0.1

# %% [markdown] id="reflow-text"
# ### Reflow
#
# **Reflow** straightens the sampled paths: sample a path from each of many noise samples, discard the points between, and keep its ends
# as new pairs $(x_0, \varepsilon)$. A second model is trained on the lines between *these* pairs. Paths of one flow never
# cross, so few of the new lines do, and there is less to average at each point.
#
# Two networks of the same size learn the flow of the clouds, one from random pairs, the other from the pairs that the exact flow makes.
# Both see equally many pairs. **Predict first:** which of the two is better with one step, and which with 64?
#
# <details><summary>Answer (after running the cells below)</summary>
# With one step the reflowed one, by far: its paths are almost straight. With 64 steps there is little between them. What
# reflow costs is the sampling of the pairs, and their errors: the second model learns what the first one draws, not the data.
# </details>

# %% id="small-flow"
from torch import nn


class PointFlow(nn.Module):
    """model(x_t, t) -> velocity of points (batch, 2). With s, the mean velocity from t to s: see section 4."""

    def __init__(self, width=128):
        super().__init__()
        layers = [
            nn.Linear(10, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
        ]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, x, t, s=None):
        s = t if s is None else s
        waves = [wave(k * time) for time in (t, s) for k in (3, 6) for wave in (torch.sin, torch.cos)]
        return self.layers(torch.cat([x, torch.stack(waves, 1)], 1))


# %% [markdown] id="fit-points-text"
# Every training in this plane is the same short loop:


# %% id="fit-points"
def fit_points(model, loss, steps):
    """Adam, with a learning rate that falls to zero."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for n in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - n / steps)
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return model


# %% id="reflow"
def from_pairs(x0, eps, dice):
    """A loss on lines between these pairs, 256 at random times."""

    def loss(model):
        which = torch.randint(len(x0), (256,), generator=dice)
        return velocity_loss(model, x0[which], torch.rand(256, generator=dice), eps[which]).mean()

    return loss


PAIRS, UPDATES = budget(smoke=(500, 50), laptop=(4000, 2000), gpu=(4000, 2000))
flows = {}
for seed in range(3):
    dice = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    eps = torch.randn(PAIRS, 2, generator=dice)
    random = data[torch.randint(len(data), (PAIRS,), generator=dice)]
    reflowed = torch.cat([flow.reflow_pairs(exact, part, flow.flow_times(16))[0] for part in eps.split(1000)])
    for name, x0 in (("random pairs", random), ("reflowed pairs", reflowed)):
        model, loss = PointFlow(), from_pairs(x0, eps, dice)
        flows[name, seed] = fit_points(model, lambda model=model, loss=loss: loss(model), UPDATES)

# %% [markdown] id="apart-text"
# How far is what they draw from the data? As in chapter 07: project both clouds on 32 directions, sort the projections, and
# take the mean gap (the sliced Wasserstein distance). Mean and standard deviation over three trainings:

# %% id="reflow-table"
angle = torch.arange(32) * math.pi / 32
directions = torch.stack([angle.cos(), angle.sin()])  # (2, 32)
noise = torch.randn(2400, 2, generator=torch.Generator().manual_seed(7))


def apart(cloud, other):
    """The sliced Wasserstein distance of two clouds of one size."""
    return ((cloud @ directions).sort(0).values - (other @ directions).sort(0).values).abs().mean().item()


def in_words(values):
    return f"{torch.tensor(values).mean():.3f} ± {torch.tensor(values).std():.3f}"


target, bends, distances = data.repeat(20, 1), {}, {}
for name in ("random pairs", "reflowed pairs"):
    three = [flows[name, seed] for seed in range(3)]
    bends[name] = [curvature(path_of(model, x_1, fine), fine).median().item() for model in three]
    for n in (1, 2, 4, 64):
        distances[name, n] = [apart(finish(flow.euler(m, noise, flow.flow_times(n))), target) for m in three]
    cells = "  ".join(f"{n}: {in_words(distances[name, n])}" for n in (1, 2, 4, 64))
    print(f"{name:15} curvature {in_words(bends[name])}   distance after steps {cells}")
if budget(smoke=False, laptop=True, gpu=True):
    assert max(bends["reflowed pairs"]) < min(bends["random pairs"]) / 4
    assert max(distances["reflowed pairs", 1]) < min(distances["random pairs", 4])

# %% [markdown] id="reflow-read"
# In all three trainings the curvature all but vanishes, and one step of the reflowed model is nearer to the data than four steps
# of the other.

# %% [markdown] id="times-text"
# ## 2 · Time
#
# ### Times to train on
#
# In chapter 06 all times were equally likely. Stable Diffusion 3 ([arXiv:2403.03206](https://arxiv.org/abs/2403.03206),
# section 3.1) argues that both ends are easy: at $t = 0$ the best answer is the mean of the noise minus $x_0$, at $t = 1$ it
# is the noise minus the mean of the data, and what is hard lies between. It draws the times from the **logit-normal**
# distribution, which chapter 06 mentioned and which favours the middle:
#
# $$t = \frac{1}{1 + e^{-r}}, \qquad r \sim \mathcal N(0, 1)$$
#
# In words: a normal random number $r$, squeezed into the interval from 0 to 1. Two thirds of all times then lie between 0.27 and 0.73. (Other means and
# standard deviations move and narrow the peak; the paper found these, 0 and 1, to be among the best.)

# %% id="logit-normal" tags=["static"]
from diffusers.training_utils import compute_density_for_timestep_sampling

normals = torch.randn(20000, generator=torch.Generator().manual_seed(0))
t = torch.sigmoid(normals)
library = compute_density_for_timestep_sampling(
    "logit_normal", 20000, logit_mean=0.0, logit_std=1.0, generator=torch.Generator().manual_seed(0)
)
assert torch.allclose(t, library)
figure, ax = plt.subplots(figsize=(4.6, 2.4))
ax.hist(t, bins=60, density=True, color="#0072B2")
ax.axhline(1, color="black", linewidth=1, linestyle="--")
ax.set(xlabel="t", ylabel="density", title="logit-normal (bars) and uniform (dashed)")
show(figure, "The logit-normal density is highest at t = 0.5 and falls to zero at both ends.")
print(f"between 0.27 and 0.73: {((t > 0.27) & (t < 0.73)).float().mean():.2f} of all times")

# %% [markdown] id="shift-text"
# ### Times to sample at
#
# An image whose sides are twice as long, at the same $t$, hides less: averaging 2 × 2 pixels halves the noise and keeps
# what they have in common. Suppose that the sides become `shift` times as long, and that all shift × shift pixels of a square show the
# same thing. Their mean is as uncertain at the time $t'$ as one pixel was at the time $t$ if
#
# $$\frac{1}{\text{shift}} \cdot \frac{t'}{1 - t'} = \frac{t}{1 - t} \qquad\Longleftrightarrow\qquad t' = \frac{\text{shift} \cdot t}{1 + (\text{shift} - 1)\, t}$$
#
# In words: the ratio of noise to signal has to grow as the sides do (arXiv:2403.03206, section 5.3.2, equation 23).
#
# ### Exercise 6 · Shifted times
#
# ●●○○○ · 8 minutes. Return the `steps + 1` times that sampling visits, float64: `steps` evenly spaced ones from 1 to `1 / steps`,
# each shifted, and then 0.


# %% id="ex-times"
def flow_times(steps, shift=1.0):
    """The falling times of sampling, from 1 to 0: (steps + 1,), float64."""
    ### BEGIN SOLUTION
    #: even times
    t = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    #: shifted
    t = shift * t / (1 + (shift - 1) * t)
    #: and 0
    return torch.cat([t, torch.zeros(1, dtype=torch.float64)])
    ### END SOLUTION


# %% id="check-times"
flow_times = check("14.flow_times", flow_times)

# %% [markdown] id="scheduler-text"
# In diffusers this is `FlowMatchEulerDiscreteScheduler`, which holds the times as `sigmas`. Given even times it shifts them
# as you do. Its step is Euler's.

# %% id="scheduler"
from diffusers import FlowMatchEulerDiscreteScheduler

scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 8, 8).tolist())
ours = flow_times(8, 3.0)
print("shift 1: " + "  ".join(f"{t:.3f}" for t in flow_times(8)))
print("shift 3: " + "  ".join(f"{t:.3f}" for t in ours))
assert torch.allclose(scheduler.sigmas.double(), ours, atol=1e-6)
x = noise[:5]
by_library = scheduler.step(exact(x, torch.ones(5)), scheduler.timesteps[0], x).prev_sample
assert torch.allclose(by_library, x + (ours[1] - ours[0]).float() * exact(x, torch.ones(5)), atol=1e-6)

# %% [markdown] id="shift-look-text"
# The same page with 32 × 32 and with 64 × 64 pixels. **Predict first:** at which shift do
# the 2 × 2 means of the large page look like the small page?
#
# <details><summary>Answer (after running the cell below)</summary>
# At shift 2. Then the ratio of noise to signal is 1 in the small page at $t = 0.5$, 2 in the large one, and again 1 in its means. (The
# means have less contrast: signal and noise are both a third there, not a half.)
# </details>

# %% id="shift-filmstrip" tags=["static"]
from course_utils.widgets import explore, filmstrip, shift_explorer

page = shift_explorer(book.Scene((book.Thing("corgi"),), "grass", 3))
filmstrip(page, [{"shift": 1.0}, {"shift": 2.0}, {"shift": 4.0}])

# %% id="shift-widget"
explore(page)

# %% [markdown] id="schedule-note"
# Both choices are about *where* on the line a model spends its effort, in training and in sampling. Neither changes what
# is learned at one $t$: that is the marginal velocity.

# %% [markdown] id="transformer-text"
# ## 3 · The diffusion transformer
#
# A transformer reads a sequence of vectors. Cut the latents into patches of 2 × 2, and each patch is a vector. DiT
# ([arXiv:2212.09748](https://arxiv.org/abs/2212.09748)) is this, with fixed position embeddings and one more idea about time.
#
# ### Exercise 7 · Patches
#
# ●●○○○ · 10 minutes. `x` is (batch, channels, height, width), with sides that `size` divides. Return (batch, patches,
# channels · size · size), patches row by row; in each vector all numbers of the first channel come first, row by row.


# %% id="ex-patches"
def patchify(x, size):
    """Images as sequences of patches: (batch, patches, channels * size * size)."""
    ### BEGIN SOLUTION
    batch, channels, height, width = x.shape
    #: give each patch its own axes
    x = x.reshape(batch, channels, height // size, size, width // size, size)
    #: patches first, then what is in a patch
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * size**2)
    ### END SOLUTION


# %% id="check-patches"
patchify = check("14.patchify", patchify)

# %% [markdown] id="adaln-text"
# ### adaLN-zero
#
# The U-Net *adds* the time to its features. DiT lets the time, and with it the class (in our model the prompt as a whole), steer both halves of each block, the
# attention and the feed-forward network. For each half, a linear layer computes three vectors, a shift, a scale
# and a gate, from a vector $c$. (In this part $c$ is one vector for each sample, made of the time and the prompt, not the word features of the symbol table.)
#
# $$x \leftarrow x + \text{gate} \cdot f\bigl(\text{norm}(x)\,(1 + \text{scale}) + \text{shift}\bigr)$$
#
# In words: each token is normalised, then scaled and shifted depending on $c$; the output of the layer $f$ is multiplied by the gate and
# added. The linear layer starts at **zero**, so all gates are closed and each block begins as the identity.
#
# ### Exercise 8 · One half of a block
#
# ●●●○○ · 12 minutes. `x` is (batch, tokens, width), `c` (batch, width); `linear` maps width to 3 · width, in the order shift,
# scale, gate; `f` maps tokens to tokens. Before `linear`, `c` passes through SiLU. The norm has no weights (`F.layer_norm`,
# `eps=1e-6`). Return `x` after the half block.


# %% id="ex-half"
def half_block(x, c, linear, f):
    """x + gate * f(norm(x) * (1 + scale) + shift), steered by c: like x."""
    ### BEGIN SOLUTION
    #: three vectors for each sample, the same for all of its tokens
    shift, scale, gate = linear(F.silu(c))[:, None].chunk(3, dim=-1)
    #: normalise, steer
    steered = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    #: and add, as far as the gate opens
    return x + gate * f(steered)
    ### END SOLUTION


# %% id="check-half"
half_block = check("14.half_block", half_block)

# %% [markdown] id="blocks-text"
# With these two pieces a whole block is short. `course_utils.models.dit` has it in torch modules: attention in one half block,
# a feed-forward network in the other. Given the same weights, it is the block that diffusers' `DiTTransformer2DModel` is made of (a test of the course compares them).
# Before any training it does nothing at all:

# %% id="blocks"
from course_utils.models import dit

torch.manual_seed(0)
block = dit.DiTBlock(width=64, heads=4)
x, c = torch.randn(2, 16, 64), torch.randn(2, 64)
print(f"a new block: it changes its input by {(block(x, c) - x).abs().max():.0f}")
linear = nn.Linear(64, 3 * 64)
print(f"with torch's usual start: by {(half_block(x, c, linear, block.feed) - x).abs().max():.1f}")
assert torch.equal(block(x, c), x)

# %% [markdown] id="zero-text"
# Why begin with nothing? The whole stack then starts as the identity, however deep it is, and opens its gates where that helps. DiT
# compared both initialisations at 400,000 updates of 28 blocks, and adaLN-zero was clearly better (arXiv:2212.09748, figure 5). You will
# compare them below, for about a minute each.

# %% [markdown] id="joint-text"
# ### Words and patches in one attention
#
# In the U-Net, pixels attend to words by cross-attention; words stay as the text encoder made them. In **MMDiT**, the network of
# Stable Diffusion 3, the words are a second stream of tokens with weights of its own. In each block both streams make queries,
# keys and values, and then *one* attention runs over all tokens together.
#
# ### Exercise 9 · Joint attention
#
# ●●●●○ · 20 minutes. This time there is only the contract. `image` and `words` are triples (q, k, v) with shapes (batch, heads,
# tokens, d); the numbers of tokens differ. Return a pair: what attention over all tokens gives for the patches and for the words,
# (batch, heads, tokens, d) each.


# %% id="ex-joint"
def joint_attention(image, words):
    """One attention over patches and words: the outputs at the patches, and at the words."""
    ### BEGIN SOLUTION
    #: the contract is above
    q, k, v = (torch.cat(pair, dim=2) for pair in zip(image, words))
    out = F.scaled_dot_product_attention(q, k, v)
    patches = image[0].shape[2]
    return out[:, :, :patches], out[:, :, patches:]
    ### END SOLUTION


# %% id="check-joint"
joint_attention = check("14.joint_attention", joint_attention)

# %% [markdown] id="mmdit-text"
# `dit.JointBlock` wraps it up: two streams, each with adaLN-zero, projections and feed-forward network of its own, and `joint_attention`
# between them. Given the same weights it equals diffusers' `JointTransformerBlock` (tested as well). Nothing reads the words after the last block, so their
# stream is cut short there: their keys and values still enter the attention, but there is no feed-forward network for them.
#
# For its large models at high resolution the paper adds **QK-norm**: queries and keys are divided by their root mean square in each head, then
# multiplied by learned scales. (The published Stable Diffusion 3 medium lacks it, 3.5 has it.) Without it, the products of queries and keys can grow during training until training in half precision becomes unstable
# (arXiv:2403.03206, section 5.3.2). **Predict first:** the weights of queries and keys become twenty times as large. What
# happens to the attention?
#
# <details><summary>Answer (after running the cell below)</summary>
# Without the norm the logits grow 400-fold, and each token attends to a single one. With it nothing changes, since the size of queries and
# keys is divided out.
# </details>

# %% id="qk-norm"
for normed in (False, True):
    torch.manual_seed(0)
    project = dit.Projections(64, 4, qk_norm=normed)
    largest = []
    for grown in (1, 20):
        with torch.no_grad():
            for layer in (project.to_q, project.to_k):
                layer.weight.mul_(grown)
                layer.bias.mul_(grown)
            q, k, _ = project(x)
            largest.append((q @ k.transpose(2, 3) / math.sqrt(16)).softmax(-1).amax(-1).mean().item())
    name = "with QK-norm" if normed else "without"
    print(f"{name:13} largest attention weight of a token, mean: {largest[0]:.2f}, weights times 20: {largest[1]:.2f}")
    assert (abs(largest[1] - largest[0]) < 0.01) == normed

# %% [markdown] id="race-text"
# ### Transformer against U-Net
#
# Which network should predict the velocity? Train them on the same latents of picture-book pages, with the same words, loss, times and learning rate, for **the same
# processor time**: the U-Net of chapter 10 from
# scratch, an MMDiT, and an MMDiT whose adaLN layers are not initialised at zero.

# %% id="race-data"
from diffusers import UNet2DConditionModel

from course_utils.recipes.vae import encode_pictures

HELD = 100
PAGES = HELD + budget(smoke=50, laptop=1200, gpu=1200)
scenes = [book.sample_scene(n) for n in range(PAGES)]
told = [book.caption(scene).text for scene in scenes]
with torch.no_grad():
    latents = painter.vae.config.scaling_factor * encode_pictures(painter.vae, book.pictures(scenes))
    cond = torch.cat([hidden_states(painter, told[n : n + 100], len(told[n : n + 100])) for n in range(0, PAGES, 100)])
dice = torch.Generator().manual_seed(0)
held_t = torch.rand(HELD, generator=dice)
held_eps = torch.randn(latents[:HELD].shape, generator=dice)
print(
    f"{PAGES - HELD} pages to train on, {HELD} to test; latents {tuple(latents.shape[1:])}, words {tuple(cond.shape[1:])}"
)


# %% id="race"
class AsFlow(nn.Module):
    """A U-Net whose output counts as a velocity."""

    def __init__(self):
        super().__init__()
        self.unet = UNet2DConditionModel.from_config(painter.unet.config)

    def forward(self, x_t, t, cond):
        return self.unet(x_t, 1000 * t, cond).sample


def mmdit(zero=True):
    """A new MMDiT; not zero: with torch's usual start in the adaLN layers."""
    model = dit.MMDiT()
    for layer in model.modules():
        if isinstance(layer, dit.AdaLNZero) and not zero:
            layer.reset_parameters()
    return model


SECONDS = budget(smoke=1, laptop=70, gpu=70)
makers = {"U-Net": AsFlow, "MMDiT": mmdit, "MMDiT, not zero": lambda: mmdit(zero=False)}
for name, make in makers.items():
    print(f"{name}: {sum(p.numel() for p in make().parameters()) / 1e6:.1f} million parameters")

# %% [markdown] id="race-run-text"
# One loop trains all networks of the rest of this chapter, for a given number of seconds of processor time:

# %% id="race-run"
from course_utils.recipes.task import plain_attention


def fit(model, loss, seconds, rate=1e-3, report=None):
    """Adam for so many seconds of processor time, with a warm-up and a rate that falls to zero; the number of updates."""
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, begin, done, n = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99)), time.process_time(), 0.0, 0
    while done < 1:
        optimizer.param_groups[0]["lr"] = rate * min((n + 1) / 30, 1 - done)
        with plain_attention(device):
            value = loss(model)
            optimizer.zero_grad()
            value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        n, done = n + 1, (time.process_time() - begin) / seconds
        if report is not None:
            report(n, value.item())
    model.eval()
    return n


# %% id="race-fit"
def page_loss(model):
    """The loss on 16 pages at logit-normal times."""
    which = torch.randint(HELD, PAGES, (16,), generator=dice)
    t = torch.sigmoid(torch.randn(16, generator=dice))
    eps = torch.randn(16, *latents.shape[1:], generator=dice)
    return velocity_loss(model, latents[which], t, eps, cond[which]).mean()


def with_error(values):
    """Mean and standard error."""
    return f"{values.mean():.3f} ± {values.std() / len(values) ** 0.5:.3f}"


racers, held = {}, {}
for name, make in makers.items():
    torch.manual_seed(0)
    dice.manual_seed(1)
    racers[name] = make()
    updates = fit(racers[name], page_loss, SECONDS)
    with torch.no_grad():
        held[name] = velocity_loss(racers[name], latents[:HELD], held_t, held_eps, cond[:HELD])
    print(f"{name:16} {updates:4} updates, loss on held-out pages {with_error(held[name])}")
for name in ("U-Net", "MMDiT, not zero"):
    print(f"{name} minus MMDiT, page by page: {with_error(held[name] - held['MMDiT'])}")
if budget(smoke=False, laptop=True, gpu=True):
    assert held["MMDiT"].mean() < held["U-Net"].mean()

# %% [markdown] id="race-look-text"
# What they draw, with your sampler, from the same noise:

# %% id="race-look" tags=["static"]
start = torch.randn(6, *latents.shape[1:], generator=torch.Generator().manual_seed(3))
grid = flow_times(budget(smoke=2, laptop=20, gpu=20)).tolist()
looks = [decode_latents(painter, sample_flow(model, start, grid, cond[:6])) for model in racers.values()]
show(
    plot_pictures(torch.cat(looks), columns=6, heads=told[:6], rows=list(racers)),
    "Blocks of colour without shapes: after this short training the MMDiTs' images have the place's colours at most.",
)

# %% [markdown] id="race-read"
# After so little training the MMDiT is ahead. Its updates take less time, so it has made more of them, as is printed above; whether that
# is the reason, this run does not show. None of the three draws yet: the MMDiTs' images have the
# colours of a caption's place at most, hardly those of its things. And one seed at the very beginning says little about the end. The shipped U-Net
# was trained for hours.
#
# Of the two initialisations of the MMDiT the one at zero is not clearly better here: their losses differ by about a hundredth or less. (The
# standard error is over test pages, with one training each; another seed, or another computer, could reverse the order.) This does not contradict
# DiT's experiment: there the network had 28 blocks and several thousand times as many updates.

# %% [markdown] id="race-mine"
# ### A whole model in half an hour
#
# After this race none of the networks can draw yet. Can a text-to-image model be trained from nothing in half an hour? Yes, with one command:
# `python3 course.py train mine --minutes 30`. It trains two transformers of the kind of this section (width 192, six layers; time and prompt steer
# them by adaLN-zero), and neither an autoencoder nor a text encoder. After half an hour on two cores the model followed 168 of the first 200 frozen prompts (84.0%; 95% interval 78.3 to 88.4%),
# where the recipe of the shipped model, for all of its parts, had given 0.5% in the same time, on a faster machine; after an hour on one core it was 94.0%
# (89.8 to 96.5%; `benchmarks/speedrun.md`). These are the first model's pictures of eight prompts:
#
# ![Eight pictures of a model trained in half an hour: a sitting corgi, a red car in the city, two purple cats in the snow, a blue teapot and a yellow duck on the beach, a house in watercolour, something green above a pink mushroom at night that is hardly a boat, three rough rabbits in pixel art, and a tulip above a ball in coloured pencil.](../chapters/figures/mine.png)
#
# Three choices (one seed each; in the first and the last something else changed as well, see the tables of `speedrun.md`):
#
# - **First a plan.** A *planner* turns the words into a list of things, a row of 29 numbers for each: kind, colour, pose, place on the page, size. A *painter*
#   draws the page that the list describes. After two and a half minutes of training on one core 93.5 to 95% of 200 such lists, depending on the guidance, followed their prompts. When the plan had
#   to be drawn instead, as silhouettes on the 64 patches, a fifth did: there many patches must agree on where a thing is, while a list has one place
#   for it. (The things of a list have one order. While it was left open, 82.5% of the prompts were followed after an hour, with the same painter:
#   most of the wrong plans named one thing twice, two cats for *a cat and a tree*.)
# - **Words only where they are needed.** The list, drawn as a map, tells the painter what each patch shows, so its patches do not attend to
#   words; of the prompt only the mean of the word vectors enters, by adaLN-zero. With two layers that read the prompt its loss was higher after
#   the same minutes, with 188 updates in place of 237.
# - **No seams.** A transformer predicts each patch from a vector of its own, and lines break where two patches meet. A small U-Net at the
#   end sees the whole page; with it no seams could be seen, and the loss was about the same.
#
# This is no better way to learn from captions. The lists come from the program that draws the pages, and say what captions leave open; for
# photographs, people or a detector would have to write them. Large systems use layouts, too: GLIGEN ([arXiv:2301.07093](https://arxiv.org/abs/2301.07093))
# is told boxes, and LLM-grounded diffusion ([arXiv:2305.13655](https://arxiv.org/abs/2305.13655)) lets a language model write them from the prompt.

# %% [markdown] id="few-text"
# ## 4 · Few steps
#
# Twenty guided steps are forty evaluations of the network, since each needs one with the prompt and one without. **Distillation** trains a
# *student* to do in one evaluation what its *teacher*, the finished model, does in several.
#
# ### Guidance in one evaluation
#
# Half of the evaluations can be saved ([arXiv:2210.03142](https://arxiv.org/abs/2210.03142)) by giving the guidance scale $w$ to the student
# as an input, like the time, and training it to predict in one evaluation what the teacher predicts in two.
#
# $$\lVert \hat v(x_t, t, c, w) - \bigl(\hat v(x_t, t, \varnothing) + w\,(\hat v(x_t, t, c) - \hat v(x_t, t, \varnothing))\bigr) \rVert^2$$
#
# In words: the student's single prediction is compared with the teacher's guided one. According to its model card, FLUX.1 [dev] was
# guidance-distilled, too; its
# "guidance" is an input of the network. (In diffusers the input is called `timestep_cond` in a U-Net, and `guidance` in Flux.)
# Our student is the teacher with a LoRA of rank 16 (chapter 12), and with one additional matrix, which adds the guidance scale to the time embedding:

# %% id="w-student"
from course_utils.diffusion.objectives import v_from_x0_eps
from course_utils.diffusion.schedules import add_noise
from course_utils.models.blocks import time_embedding
from course_utils.pipelines.few_steps import adapted

w_student = adapted(painter.unet, told=16)
null = hidden_states(painter, "", 1)
dice = torch.Generator().manual_seed(0)


def guidance_loss(student):
    """The student's one answer against the teacher's guided one, for 12 pages and 12 different w."""
    which = torch.randint(HELD, PAGES, (12,), generator=dice)
    t, w = torch.randint(1000, (12,), generator=dice), 1 + 4 * torch.rand(12, generator=dice)
    x_t = add_noise(latents[which], torch.randn(12, *latents.shape[1:], generator=dice), t, alpha_bar)
    with torch.no_grad():
        both = painter.unet(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([null.expand(12, -1, -1), cond[which]]))
        v_null, v_cond = both.sample.chunk(2)
    target = v_null + expand_like(w, v_null) * (v_cond - v_null)
    v_hat = student(x_t, t, cond[which], timestep_cond=time_embedding(100 * w, 16)).sample
    return (v_hat - target).square().mean()


updates = fit(w_student, guidance_loss, budget(smoke=1, laptop=75, gpu=75), 5e-3)
print(f"{sum(p.numel() for p in w_student.parameters() if p.requires_grad):,} numbers trained, {updates} updates")

# %% [markdown] id="w-look-text"
# Does one evaluation now do the work of two? The same prompts, noise and ten steps:

# %% id="w-look" tags=["static"]
from course_utils.metrics.pictures import followed
from course_utils.recipes import load_judge

judge = load_judge()
MANY = budget(smoke=4, laptop=40, gpu=40)
wishes = [book.caption(book.sample_scene(n, 5)) for n in range(MANY)]
wished = hidden_states(painter, [wish.text for wish in wishes], MANY)
x_T = torch.randn(MANY, *latents.shape[1:], generator=torch.Generator().manual_seed(11))


def told_w(x, s, cond):
    """The student, told w = 3."""
    return w_student(x, s, cond, timestep_cond=time_embedding(torch.full((len(x),), 300.0), 16)).sample


def drawn(model, steps=10):
    """The images that this model of v draws."""
    times = samplers.trailing_times(1000, steps)
    return decode_latents(painter, samplers.finish(samplers.dpm_solver(model, x_T, alpha_bar, times, wished)))


# %% [markdown] id="w-count-text"
# How many of the captions each follows, and how far its images are from those of $w = 3$:

# %% id="w-count"
unguided = as_eps(PromptedUNet(painter.unet), "v", alpha_bar)
images = {}
ways = {"w = 3": samplers.guided(unguided, null, 3.0), "w = 1": unguided, "student": as_eps(told_w, "v", alpha_bar)}
away = {}
for name, model in ways.items():
    begin = time.process_time()
    images[name] = drawn(model)
    seconds = (time.process_time() - begin) / MANY
    away[name] = 127.5 * (images[name] - images["w = 3"]).abs().flatten(1).mean(1)
    follow = sum(followed(judge, images[name], wishes))
    print(
        f"{name:8} {follow} of {MANY} follow, {seconds:.2f} s an image, {with_error(away[name])} grey levels from w = 3"
    )

# %% [markdown] id="w-images-text"
# And the first of these images:

# %% id="w-images" tags=["static"]
show(
    plot_pictures(torch.cat([images[name][:6] for name in ways]), columns=min(6, MANY), rows=list(ways)),
    "Rows: two guided evaluations a step, one without guidance, one of the student, which is told w = 3.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert away["student"].mean() < away["w = 1"].mean()

# %% [markdown] id="w-look-read"
# With prompts like these the count does not tell the three apart: this model follows nearly all of them without guidance, too. The distance
# shows a little at most: the student's images are nearer to the guided ones than the unguided images are, but by no more than about twice the
# standard errors printed beside the two distances. This is a first sign and no more: after little more than a minute of training, one evaluation does not
# yet do the work of two. Below, guidance is distilled together with the steps, in a longer training.

# %% [markdown] id="ideas-text"
# ### Five ways to few steps
#
# A student that jumps needs to know where it is and where it is to land: $U(x_t, t, t_\text{next})$ is the **mean velocity** on the way, so
# that $x_\text{next} = x_t + (t_\text{next} - t)\, U(x_t, t, t_\text{next})$. All of the following train such a network, and
# differ in where the target comes from. (In the units of a flow, one DDIM step is one such jump; so a student of images can go on predicting $v$.)
#
# **Trajectories.** Let the teacher draw whole paths first, and learn all jumps between the kept points by the squared error. With the ends
# only, this is knowledge distillation ([arXiv:2101.02388](https://arxiv.org/abs/2101.02388)). Its price is sampling the teacher's paths. Progressive
# distillation ([arXiv:2202.00512](https://arxiv.org/abs/2202.00512)) needs no stored paths: two steps of the teacher, starting from noisy data, become one step
# of the student, which then serves as the next teacher.

# %% id="ideas-1"
B = 256


def some_pairs(dice):
    """Random data, noise, and times s <= t, many of them from 1 or to 0."""
    x0, eps = data[torch.randint(len(data), (B,), generator=dice)], torch.randn(B, 2, generator=dice)
    s, t = torch.rand(2, B, generator=dice).sort(0).values
    t = torch.where(torch.rand(B, generator=dice) < 0.3, 1.0, t).clamp(min=0.02)
    s = torch.where(torch.rand(B, generator=dice) < 0.3, 0.0, torch.minimum(s, t))
    return x0, eps, t, s


def trajectories(U, dice):
    """All jumps along 2,000 paths of the teacher."""
    grid = flow_times(16).float()
    noises = torch.randn(2000, 2, generator=dice).split(500)
    kept = torch.cat([torch.stack([e, *(p.x_t for p in flow.heun(exact, e, grid))], 1) for e in noises])

    def loss():
        ends = torch.randint(17, (B, 2), generator=dice).sort(1).values
        ends[torch.rand(B, generator=dice) < 0.3] = torch.tensor([0, 16])
        i, j = ends[ends[:, 0] < ends[:, 1]].T
        path = torch.randint(len(kept), i.shape, generator=dice)
        x_t, x_s, t, s = kept[path, i], kept[path, j], grid[i], grid[j]
        return (U(x_t, t, s) - (x_t - x_s) / (t - s)[:, None]).square().mean()

    return loss


# %% [markdown] id="ideas-2-text"
# **Consistency** ([arXiv:2303.01469](https://arxiv.org/abs/2303.01469)). All points of one path must lead to the same end: the end that the student
# predicts at $t$ is compared with the one it predicts after one small step of the teacher. Only jumps to 0 are learned; to sample in several steps,
# fresh noise is added between them. Latent consistency models, LCM, apply this to Stable Diffusion ([arXiv:2310.04378](https://arxiv.org/abs/2310.04378)).
#
# **Shortcut** ([arXiv:2410.12557](https://arxiv.org/abs/2410.12557)). One jump must equal two of the student's own jumps of half the
# length; for a jump of length zero, the mean velocity is the velocity itself. (In their papers, this and the next need no teacher: the velocity is that of random pairs,
# $\varepsilon - x_0$. Here all five get the exact one.)


# %% id="ideas-2"
def consistency(U, dice):
    """The end as seen from t, against the end as seen one teacher's step on."""

    def loss():
        x0, eps, t, _ = some_pairs(dice)
        x_t, s = flow.interpolate(x0, eps, t), (t - 1 / 16).clamp(min=0)
        with torch.no_grad():
            x_s = x_t + (s - t)[:, None] * exact(x_t, t)
            end = x_s - s[:, None] * U(x_s, s, torch.zeros(B))
        return (x_t - t[:, None] * U(x_t, t, torch.zeros(B)) - end).square().mean()

    return loss


def shortcut(U, dice):
    """One jump against two of half the length; half of the batch learns the velocity itself."""

    def loss():
        x0, eps, t, s = some_pairs(dice)
        x_t, half, now = flow.interpolate(x0, eps, t), (t + s) / 2, torch.arange(B) < B // 2
        with torch.no_grad():
            first = U(x_t, t, half)
            second = U(x_t + (half - t)[:, None] * first, half, s)
            target = torch.where(now[:, None], exact(x_t, t), (first + second) / 2)
        return (U(x_t, t, torch.where(now, t, s)) - target).square().mean()

    return loss


# %% [markdown] id="ideas-3-text"
# **MeanFlow** ([arXiv:2505.13447](https://arxiv.org/abs/2505.13447)). $(t - t_\text{next})\, U$ is the integral of the velocity from $t_\text{next}$ to $t$; its derivative along the path gives an
# identity without any path: $U = u_t - (t - t_\text{next})\, \frac{d}{dt} U$. `torch.func.jvp` computes $U$ and $\frac{d}{dt} U$ together.


# %% id="ideas-3"
def mean_flow(U, dice):
    """U against u - (t - s) dU/dt, where d/dt follows the path: x moves with u, t with 1, s stays."""

    def loss():
        x0, eps, t, s = some_pairs(dice)
        s = torch.where(torch.rand(B, generator=dice) < 0.25, t, s)
        x_t = flow.interpolate(x0, eps, t)
        u = exact(x_t, t)
        out, slope = torch.func.jvp(lambda x, time: U(x, time, s), (x_t, t), (u, torch.ones(B)))
        return (out - (u - (t - s)[:, None] * slope).detach()).square().mean()

    return loss


# %% [markdown] id="ideas-4-text"
# **Distribution matching** (DMD, [arXiv:2311.18828](https://arxiv.org/abs/2311.18828)). Do not imitate paths at all. A second network
# learns the velocity of what the student draws; where it differs from the teacher's, the student's images are moved. No image needs a target of
# its own (the first paper still added a regression on the teacher's images; the second,
# [arXiv:2405.14867](https://arxiv.org/abs/2405.14867), dropped it). For two and four steps our student also learns to start from noisy data;
# the second paper starts from the student's own images with noise, which is what it meets when it draws.
#
# A sixth way is a discriminator (chapter 03). FLUX.1 [schnell] was trained in this way, by latent adversarial diffusion distillation
# ([model card](https://huggingface.co/black-forest-labs/FLUX.1-schnell), [arXiv:2403.12015](https://arxiv.org/abs/2403.12015)).


# %% id="ideas-4"
def distribution(U, dice):
    """Moves what the student draws along the difference of two velocities: the teacher's, and that of its own images."""
    fake = PointFlow()
    optimizer = torch.optim.Adam(fake.parameters(), lr=2e-3)

    def draw():
        x0, eps, _, _ = some_pairs(dice)
        t = torch.tensor([1.0, 1.0, 0.75, 0.5, 0.25])[torch.randint(5, (B,), generator=dice)]
        x_t = flow.interpolate(x0, eps, t)
        return x_t - t[:, None] * U(x_t, t, torch.zeros(B))

    def loss():
        for _ in range(2):
            _, eps, t, _ = some_pairs(dice)
            with torch.no_grad():
                y = draw()
            optimizer.zero_grad()
            velocity_loss(fake, y, t, eps).mean().backward()
            optimizer.step()
        y, (_, eps, t, _) = draw(), some_pairs(dice)
        x_t = flow.interpolate(y.detach(), eps, t)
        with torch.no_grad():
            way = t[:, None] * (fake(x_t, t) - exact(x_t, t))  # from the fake x0 to the real one
        return (y - (y + way).detach()).square().mean()

    return loss


# %% [markdown] id="ideas-jump-text"
# And this is how the students draw:


# %% id="ideas-jump"
def jumped(U, n, again):
    """Where n jumps lead: from jump to jump, or always to 0 and back by fresh noise."""
    x, grid, dice = noise, flow_times(n).float(), torch.Generator().manual_seed(8)
    for t, s in zip(grid[:-1], grid[1:]):
        if again:
            end = x - t * U(x, t.expand(len(x)), torch.zeros(len(x)))
            x = (1 - s) * end + s * torch.randn(x.shape, generator=dice)
        else:
            x = x + (s - t) * U(x, t.expand(len(x)), s.expand(len(x)))
    return x


# %% [markdown] id="ideas-run-text"
# All five, each in its simplest form, for the same processor time (the teacher's paths included), from the same starts, on the three
# clouds; three trainings each. **Predict first:** which is nearest to the data with one step?
#
# <details><summary>Answer (after running the cell below)</summary>
# The trajectories, at about 0.05; with four steps they are hardly better, and shortcut comes near them. The other three are at least twice as
# far off with one step; three trainings are too few to rank MeanFlow and consistency. The methods do not make equally many updates in the
# same time: distribution matching, which trains a second network, makes the fewest. That is not the whole explanation: consistency makes about
# as many as shortcut, or more, and is further off. Its target passes from one small step to the next, which is probably slow.
# </details>

# %% id="ideas-run"
ideas = {
    "trajectories": trajectories,
    "consistency": consistency,
    "shortcut": shortcut,
    "MeanFlow": mean_flow,
    "distribution matching": distribution,
}
clouds, results = {}, {}
for name, idea in ideas.items():
    rows = results[name] = {n: [] for n in (1, 2, 4)}
    for seed in range(budget(smoke=2, laptop=3, gpu=3)):
        torch.manual_seed(seed)
        U, begin = PointFlow(), time.process_time()
        loss = idea(U, torch.Generator().manual_seed(seed))
        left = budget(smoke=0.5, laptop=8, gpu=8) - (time.process_time() - begin)
        updates = fit(U, lambda _, loss=loss: loss(), max(left, 0.1), 2e-3)
        with torch.no_grad():
            clouds[name] = {n: jumped(U, n, name in ("consistency", "distribution matching")) for n in rows}
        for n, found in rows.items():
            found.append(apart(clouds[name][n], target))
    print(f"{name:22} {updates:5} updates   " + "   ".join(f"{n}: {in_words(found)}" for n, found in rows.items()))

# %% id="ideas-plot" tags=["static"]
figure, axes = plt.subplots(1, 5, figsize=(11, 2.5), sharex=True, sharey=True)
for ax, name in zip(axes, ideas):
    ax.scatter(*clouds[name][1][:800].T, s=2, color="#0072B2")
    ax.scatter(*data.T, s=3, color="#E69F00")
    ax.set(title=name, aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.2, 2.6))
show(figure, "Where one step of each student leads (blue), and the data (orange).")
if budget(smoke=False, laptop=True, gpu=True):
    assert all(max(results["trajectories"][1]) < min(results[name][1]) for name in ideas if name != "trajectories")

# %% [markdown] id="chosen-text"
# For points, with an exact teacher and a few seconds, learning from trajectories was clearly best with one step, so this is what we build for
# images. This result is a reason to try it first. It does not show that it is best for images: with more time, tuning or other data the order can
# change.

# %% [markdown] id="landing-text"
# ### Exercise 10 · Where must the velocity point?
#
# ●●●●○ · 15 minutes. Again there is only the contract. The teacher went from $x_t$ to $x_\text{next}$ in several small steps. The student
# is to get there in *one* step of DDIM. With its prediction $v$ that step is (chapter 07)
#
# $$x_\text{next} = \sqrt{\bar\alpha_\text{next}}\, \hat x_0 + \sqrt{1 - \bar\alpha_\text{next}}\, \hat\varepsilon, \qquad
#   \hat x_0 = \sqrt{\bar\alpha_t}\, x_t - \sqrt{1 - \bar\alpha_t}\, v, \qquad
#   \hat\varepsilon = \sqrt{1 - \bar\alpha_t}\, x_t + \sqrt{\bar\alpha_t}\, v$$
#
# In words: $v$ fixes an image and a noise, and the step mixes these two with the shares of the next noise level. Here both ends
# are known, and $v$ is not. `x_t` and `x_s` are (batch, ...); `alpha_bar_t` and `alpha_bar_s` are (batch,), their noise levels.
# (`x_s` is $x_\text{next}$.) There is less noise at `x_s`: `alpha_bar_s` is larger, and at most 1, the clean image. Return the $v$ with which the step from `x_t`
# lands on `x_s`, of the shape of `x_t`.


# %% id="ex-landing"
def landing_velocity(x_t, x_s, alpha_bar_t, alpha_bar_s):
    """The v with which one DDIM step from x_t, at alpha_bar_t, lands on x_s, at alpha_bar_s: like x_t."""
    ### BEGIN SOLUTION
    #: the contract is above
    a, b = expand_like(alpha_bar_t.sqrt(), x_t), expand_like((1 - alpha_bar_t).sqrt(), x_t)
    c, d = expand_like(alpha_bar_s.sqrt(), x_t), expand_like((1 - alpha_bar_s).sqrt(), x_t)
    # two equations, x_t = a x0 + b eps and x_s = c x0 + d eps, for two unknowns
    area = c * b - a * d
    x0 = (b * x_s - d * x_t) / area
    eps = (c * x_t - a * x_s) / area
    return a * eps - b * x0
    ### END SOLUTION


# %% id="check-landing"
landing_velocity = check("14.landing_velocity", landing_velocity)

# %% [markdown] id="live-paths-text"
# First the teacher draws some images, guided, in twelve steps, and every third point of each path is kept:

# %% id="live-paths"
from course_utils.pipelines.few_steps import draw_fast, load_student, new_student
from course_utils.recipes.few_steps import JUMPS, PATHS, levels, teacher_paths

FEW = budget(smoke=2, laptop=48, gpu=48)
begin = time.process_time()
live_texts = [book.caption(book.sample_scene(n, 9)).text for n in range(FEW)]
starts = torch.randn(FEW, *latents.shape[1:], generator=torch.Generator().manual_seed(12))
live_paths = teacher_paths(painter, live_texts, starts)
live_cond = hidden_states(painter, live_texts, FEW)
print(f"{FEW} paths, kept at {live_paths.shape[1]} noise levels, in {time.process_time() - begin:.0f} s")
print("jumps (from, to, steps): ", JUMPS)

# %% [markdown] id="live-text"
# The student learns seven of the ten jumps between the kept levels at once: four of one level, for drawing in four steps; two of two levels; and one from
# noise to the image. It is told which kind is wanted. With your `landing_velocity` as the target, the loss itself is a single expression:

# %% id="live"
student = new_student(painter.unet)
times_at, level_at = levels(alpha_bar)
dice = torch.Generator().manual_seed(0)


def jumping_loss(student):
    """12 random jumps on the teacher's paths."""
    n = torch.randint(FEW, (12,), generator=dice)
    start, end, steps = torch.tensor(JUMPS)[torch.randint(len(JUMPS), (12,), generator=dice)].T
    x_t, x_s = live_paths[n, start], live_paths[n, end]
    v = landing_velocity(x_t, x_s, level_at[start], level_at[end])
    return (student(x_t, times_at[start], live_cond[n], steps) - v).square().mean()


live = LivePlot("The loss of the few-step student.", seconds=5)
updates = fit(student, jumping_loss, budget(smoke=1, laptop=60, gpu=60), 2e-3, live.update)
live.finish()

# %% [markdown] id="shipped-text"
# One step is the hardest: all of the image has to follow from the noise at once. A minute and a few dozen paths are not enough for it. The
# shipped student is the same network, trained by `python3 course.py train few_steps` on 4,800 paths, with the long jumps drawn more often. Its file has 1.3 MB, since it
# holds the LoRA and the matrix of three columns only. The rows below show images for four captions: one step before any training, one step of the live student, one, two and four steps of the
# shipped student, and ten guided steps of the teacher:

# %% id="shipped" tags=["static"]
from course_utils.pipelines.picture_book import CHECKPOINTS

shipped = load_student(painter.unet, CHECKPOINTS / "few_steps")
file = CHECKPOINTS / "few_steps" / "model.safetensors"
print(f"trained on {PATHS:,} paths; {file.stat().st_size / 1e6:.1f} MB")
four = [wish.text for wish in wishes[:4]]
rows = {
    "untrained, 1 step": draw_fast(painter, new_student(painter.unet), four, x_T[:4], 1),
    "live, 1 step": draw_fast(painter, student, four, x_T[:4], 1),
}
for steps in (1, 2, 4):
    rows[f"shipped, {steps} step{'s' * (steps > 1)}"] = draw_fast(painter, shipped, four, x_T[:4], steps)
rows["teacher, 10 guided"] = images["w = 3"][:4]
show(
    plot_pictures(torch.cat(list(rows.values())), columns=4, heads=four, rows=list(rows)),
    "Rows: one step untrained, after a minute, and shipped; the shipped student in two and four steps; the teacher.",
)

# %% [markdown] id="count-text"
# How much is lost? The same captions as above (the teacher's row there is that for $w = 3$), and the time of one image drawn by
# itself, with all its parts (not to be compared with the seconds in a batch above):

# %% id="count"
for steps in (1, 2, 4):
    drawn_fast = draw_fast(painter, shipped, [wish.text for wish in wishes], x_T, steps)
    begin = time.perf_counter()
    for n in range(4):
        draw_fast(painter, shipped, [wishes[n].text], x_T[n : n + 1], steps)
    seconds = (time.perf_counter() - begin) / 4
    follow = sum(followed(judge, drawn_fast, wishes))
    print(f"steps: {steps}; {follow} of {MANY} follow the prompt; one image in {seconds:.2f} s")

# %% [markdown] id="count-table-text"
# `python3 course.py benchmark few_steps` measures the same with 200 frozen prompts of all six tasks, several things and relations
# among them. Its results are kept beside the weights (`stable-diffusion` is the teacher's network, at guidance 4):

# %% id="count-table"
import json

measured = json.loads((CHECKPOINTS / "manifest.json").read_text(encoding="utf-8"))["few_steps"]["rows"]
for row in measured:
    followed_all = "{percent}% ({from} to {to}, n = {n})".format(**row["followed"])
    print(f"{row['system']:16} {row['steps']:2} steps: {followed_all}; {row['seconds a picture']} s for one image")

# %% [markdown] id="count-read"
# With four steps the student follows 93% of the prompts. Its teacher's network, here in fifty steps at guidance 4, follows 95%, and the
# intervals overlap. (The student was distilled at guidance 3 from paths of twelve steps, so more than the number of steps differs.) With two
# steps it follows 89%, and the intervals still overlap slightly; with one step 75%, an interval far below the teacher's. In return, an image takes
# about a twelfth (four steps) or a thirtieth (one step) of the time of the fifty steps, and a fifth or a fourteenth of the time of twenty, which
# follow 96%.
#
# `python3 course.py generate "a cute corgi puppy sitting on the grass" --fast` draws with the student (`--steps 2` or `1` for still fewer).

# %% [markdown] id="large-text"
# ## 5 · From here to Stable Diffusion 3 and Flux
#
# You now have all three ideas: the straight line, the transformer and the few steps. This section takes apart the
# models that brought them to large scale, **Stable Diffusion 3** (Esser et al.,
# [arXiv:2403.03206](https://arxiv.org/abs/2403.03206)) and **FLUX.1** (Black Forest Labs,
# [code](https://github.com/black-forest-labs/flux); a short description is in
# [arXiv:2506.15742](https://arxiv.org/abs/2506.15742), section 2). The text-to-image model FLUX.1 comes in two versions with open weights:
# *dev* and, for few steps, *schnell* (German for fast). As in chapter 11, the configurations alone tell a lot. The next
# cell builds every part without weights and counts its parameters.
#
# **Predict first:** in Stable Diffusion 3 medium, which part has the most parameters: the transformer that draws, the
# text encoders, or the autoencoder?
#
# <details><summary>Answer (after running the cell below)</summary>
#
# The text encoders, by far. The largest of them, T5-XXL, has 4.8 billion parameters, more than twice as many as the
# transformer with its 2.0 billion. In Flux it is the transformer, with 11.9 billion. In both, the autoencoder is almost
# exactly as large as that of v1.5.
# </details>

# %% id="large-parts"
from course_utils.pipelines.rectified_flow_models import FLUX_DEV, FLUX_SCHNELL, SD3, flow_parts
from course_utils.pipelines.stable_diffusion import FACTS, bare_parts, v1_5_parts

V1_5, SD_3, DEV = "v1.5", "SD 3 medium", "FLUX.1 dev"
parts = {V1_5: v1_5_parts(), SD_3: flow_parts(SD3), DEV: flow_parts(FLUX_DEV)}
facts = {V1_5: FACTS, SD_3: SD3, DEV: FLUX_DEV}
for model, counted in parts.items():
    print(f"{model}: {sum(part.parameters for part in counted.values()):,} parameters")
    for name, part in counted.items():
        print(f"    {name:15} {facts[model]['model_index'][name][1]:29} {part.parameters:14,}")
fast = bare_parts(["transformer"], FLUX_SCHNELL)["transformer"]
fewer = parts[DEV]["transformer"].parameters - sum(weights.numel() for weights in fast.parameters())
print(f"FLUX.1 schnell: as dev, but {fewer:,} fewer in the transformer")
billions = [part.parameters / 1e9 for part in (*parts[SD_3].values(), parts[DEV]["transformer"])]
assert [round(number, 1) for number in billions] == [0.1, 0.7, 4.8, 2.0, 0.1, 11.9]

# %% [markdown] id="large-facts-text"
# The U-Net has gone, and with it cross-attention. Stable Diffusion 3's transformer, and the first 19 blocks of Flux's, are
# the joint blocks of section 3. In Flux 38 others follow, in which all tokens share the same weights, with attention and feed-forward network side by side. Flux also rotates queries and keys according to their positions (rotary position
# embedding). The configurations show what else has changed.

# %% id="large-facts"
from course_utils.pipelines.rectified_flow import flux_times


def figures(facts):
    """Return what the configurations of a model's parts say about it."""
    network, vae = facts.get("transformer") or facts["unet"], facts["vae"]
    side = vae["sample_size"] // 2 ** (len(vae["block_out_channels"]) - 1)
    numbers = vae["latent_channels"] * side**2
    layers = network.get("num_layers", 0), network.get("num_single_layers", 0)
    return {
        "pixels along a side": vae["sample_size"],
        "latents": f"{vae['latent_channels']} x {side} x {side}",
        "colour values per latent": 3 * vae["sample_size"] ** 2 // numbers,
        "tokens of the image": (side // 2) ** 2 if any(layers) else "-",
        "tokens of the prompt": facts.get("t5_tokens", 77) + 77 * ("text_encoder_3" in facts),
        "blocks, two streams + one": f"{layers[0]} + {layers[1]}" if any(layers) else "-",
        "width": network["num_attention_heads"] * network["attention_head_dim"] if any(layers) else "-",
        "scaling, shift of latents": f"{vae['scaling_factor']}, {vae.get('shift_factor', 0)}",
        "evaluations per step": 2 if facts["guidance"] else 1,
    }


columns = [figures(of) for of in facts.values()]
print(f"{'':26}" + "".join(f"{model:>16}" for model in facts))
for name in columns[0]:
    print(f"{name:26}" + "".join(f"{column[name]:>16}" for column in columns))
assert [column["colour values per latent"] for column in columns] == [48, 12, 12]

# %% [markdown] id="large-read"
# - **Latents.** 16 channels in place of 4: a latent number now stands for 12 colour values, not 48. More channels keep
#   more of the image, and are harder to model, which pays off in larger networks (arXiv:2403.03206, section 5.2.1).
#   The latents have a *shift* beside their scaling: the network sees
#   `scaling_factor * (z - shift_factor)`, and the decoder gets `x_0 / scaling_factor + shift_factor`. (It has nothing to do with the shift of times.)
# - **Text.** CLIP was trained to match whole captions with whole images (chapter 08). Its **pooled vector** sums up the
#   caption; it is added to the time and steers every block by adaLN. But it is coarse, so that the network reads single
#   words as well (section 4 of the paper). Those come from **T5-XXL**, the encoder of a language model, trained on text
#   alone. Stable Diffusion 3 also puts the words of its two CLIPs in front. Flux takes the vector from one CLIP and the
#   words from T5 only.
# - **Guidance.** Stable Diffusion 3 is guided as in chapter 10: two evaluations per step. Flux dev is *told* the
#   guidance scale, as it is told the time: guidance has been distilled into it, at half the cost
#   ([model card](https://huggingface.co/black-forest-labs/FLUX.1-dev)). Flux schnell was distilled to one to four
#   steps ([model card](https://huggingface.co/black-forest-labs/FLUX.1-schnell)), and takes no guidance scale: the
#   layers that read it are the 10 million parameters that it lacks.
#
# ### The same loop
#
# Do your functions draw with the real parts? We have no weights here, but we do not need them to find out. `thin_copy`
# builds a pipeline with the same parts, classes and settings, in which only the layers are few and narrow. **It is
# untrained, so it draws noise.** But if our noise and diffusers' are equal, up to rounding, then the loop is the same.
#
# First Stable Diffusion 3, by hand, with your `sample_flow`. The real network was trained with times from 0 to 1000, so we multiply ours by 1000. `sd3_times` are shifted times with a shift of 3. Before the shift they are spaced evenly
# from 1 almost to 0, as in diffusers' scheduler, where section 2 stopped at 1 / `steps`.

# %% id="large-loop"
from course_utils.pipelines.rectified_flow import sd3_times
from course_utils.pipelines.rectified_flow_models import thin_copy

thin = {SD_3: thin_copy(SD3), DEV: thin_copy(FLUX_DEV), "FLUX.1 schnell": thin_copy(FLUX_SCHNELL)}
pipe, prompts, w = thin[SD_3], ["a red ball on the beach", "a corgi puppy on the grass"], 7.0
steps = budget(smoke=4, laptop=28, gpu=28)
x_1 = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
words, _, pooled, _ = pipe.encode_prompt(["", "", *prompts], None, None, do_classifier_free_guidance=False)


def guided_velocity(x_t, t, cond=None):
    """Classifier-free guidance of the velocity, as of the noise in chapter 10."""
    told = {"encoder_hidden_states": words, "pooled_projections": pooled, "timestep": 1000 * t.repeat(2)}
    null, asked = pipe.transformer(x_t.repeat(2, 1, 1, 1), **told).sample.chunk(2)
    return null + w * (asked - null)


with torch.no_grad():
    x_0 = sample_flow(guided_velocity, x_1, sd3_times(pipe, steps).tolist())
    a, b = pipe.vae.config.scaling_factor, pipe.vae.config.shift_factor
    by_hand = pipe.vae.decode(x_0 / a + b).sample
how = {"num_inference_steps": steps, "height": 64, "width": 64, "output_type": "pt"}
by_diffusers = pipe(prompts, latents=x_1, guidance_scale=w, **how).images
gap = ((by_hand / 2 + 0.5).clamp(0, 1) - by_diffusers).abs().max()
print(f"words {tuple(words.shape)}, pooled {tuple(pooled.shape)}; largest difference to diffusers {gap:.1e}")
assert gap < 1e-5

# %% [markdown] id="large-flux-text"
# `draw_sd3` in `course_utils/pipelines/rectified_flow.py` is this cell as a function, and `draw_flux` is its counterpart for Flux. Flux cuts
# its patches before the transformer (your `patchify`) and has no guidance to compute; Flux dev also chooses its shift by the number of patches. **Predict first:** how often is the transformer evaluated for one image, with 28 steps in Stable Diffusion 3
# and Flux dev, and 4 in schnell?
#
# <details><summary>Answer (after running the cell below)</summary>
#
# 56, 28 and 4 times (in the smoke profile all take 4 steps: 8, 4 and 4). The guided model works on two inputs in each
# step, for the prompt and for the negative prompt; diffusers puts them into one batch.
# </details>

# %% id="large-flux" tags=["static"]
from course_utils.pipelines.rectified_flow import draw_flux, draw_sd3, first_noise

drawn, evaluated = [], {model: 0 for model in thin}
for model, pipe in thin.items():
    steps = 4 if model == "FLUX.1 schnell" else budget(smoke=4, laptop=28, gpu=28)

    def count(part, inputs, output, model=model):
        evaluated[model] += len(output.sample)

    counter = pipe.transformer.register_forward_hook(count)
    x_1 = first_noise(pipe, 1, torch.Generator().manual_seed(0), side=64)
    ours = (draw_sd3 if model == SD_3 else draw_flux)(pipe, prompts[:1], x_1, steps)
    counter.remove()
    settings = how | {"num_inference_steps": steps}
    if model == "FLUX.1 schnell":
        settings["max_sequence_length"] = 256
    theirs = pipe(prompts[:1], generator=torch.Generator().manual_seed(0), **settings).images
    gap = ((ours / 2 + 0.5).clamp(0, 1) - theirs).abs().max()
    print(f"{model:15} {steps:2} steps, {evaluated[model]:2} evaluations, largest difference to diffusers {gap:.1e}")
    assert gap < 1e-5 and evaluated[model] == (2 if model == SD_3 else 1) * steps
    drawn.append(ours[0])
show(plot_pictures(torch.stack(drawn), list(thin)), "Three images of coloured noise: the thin copies are untrained.")

# %% [markdown] id="large-shift-text"
# And the shift of section 2? Stable Diffusion 3 always takes 3, Flux schnell 1, which changes nothing. Flux dev uses $e$ to the power of `mu`, a number that grows linearly with the number of patches. How does that compare with the
# rule of section 2, from an image of 256 pixels a side to one of 1024?

# %% id="large-shift"
for model, of in {SD_3: SD3, "FLUX.1 schnell": FLUX_SCHNELL}.items():
    print(f"{model}: shift {of['scheduler']['shift']}")
shifts = {}
for pixels in (256, 512, 1024):
    t = flux_times(thin[DEV], 2, (pixels // 16) ** 2)[1].item()  # 1/2 before the shift: t / (1 - t) is the shift
    shifts[pixels] = t / (1 - t)
    print(f"{DEV}, {pixels} pixels, {(pixels // 16) ** 2} patches: shift {shifts[pixels]:.2f}")
print(f"from 256 to 1024 pixels: {shifts[1024] / shifts[256]:.2f} times as large; the sides are 4 times as long")
assert abs(shifts[256] - math.exp(0.5)) < 1e-6 and abs(shifts[1024] - math.exp(1.15)) < 1e-6
assert 1.8 < shifts[1024] / shifts[256] < 2

# %% [markdown] id="large-memory-text"
# Larger images get a larger shift, as the rule of section 2 requires, but a smaller increase than it gives: 1.9 times where the sides are
# 4 times as long. The
# rule was derived for an image without detail. The 3 of Stable Diffusion 3 was chosen
# by asking people which images they prefer (arXiv:2403.03206, section 5.3).
#
# ### What fits where
#
# `plan_memory` of chapter 11 plans these models, too: weights in bfloat16 (in float16 numbers inside T5 overflow),
# activations counted for one image of 1024 pixels, plus its margins. `plan_flow` adds one choice. Stable Diffusion 3
# was trained with each text encoder dropped at random, so it also draws **without T5**, from zeros in place of T5's
# words. The paper finds that T5 matters for long, detailed prompts and for text written in the image, and that most
# other images are competitive without (arXiv:2403.03206, section 5.3, figure 9).
#
# **Predict first:** which of the models fit whole on a card with 12 GB? Which on one with 24?
#
# <details><summary>Answer (after running the cell below)</summary>
#
# With 12 GB: v1.5, and Stable Diffusion 3 without T5. With T5 it has to bring its parts to the card one after another; on a card with
# 24 GB it fits whole. On these two cards Flux fits neither whole nor part by part: its transformer alone has 22.2 GiB of weights, and of a card
# with 24 GB we count on 22.3. It has to go layer by layer, copying 22 GiB in every step, unless the weights are
# quantised to fewer bits, which this course leaves out. It fits whole on a card with 80 GB.
# </details>

# %% id="large-memory"
from course_utils.machine.devices import GIBIBYTE
from course_utils.machine.memory_plan import Machine
from course_utils.pipelines.rectified_flow_models import plan_flow

CARDS = (8, 12, 16, 24, 80)
WAYS = {"none": "whole", "model": "part by part", "sequential": "layer by layer"}
rows = {V1_5: (V1_5, None), "SD 3, no T5": (SD_3, False), SD_3: (SD_3, True), DEV: (DEV, None)}
chosen = {}
print(f"{'':12}" + "".join(f"{card:>13} GB" for card in CARDS))
for row, (model, t5) in rows.items():
    for card in CARDS:  # 95% of it free, and 64 GiB of main memory
        machine = Machine("cuda", round(0.95 * card * GIBIBYTE), "bfloat16", 64 * GIBIBYTE)
        plan, _ = plan_flow(parts[model], machine, t5=t5)
        chosen[row, card] = WAYS[plan.offload] if plan.fits else "not at all"
    print(f"{row:12}" + "".join(f"{chosen[row, card]:>16}" for card in CARDS))
usable, weighs = (0.95 * 24 - 0.5), parts[DEV]["transformer"].weights("bfloat16") / GIBIBYTE
print(f"a card of 24 GB: {usable:.1f} GiB usable; the transformer of {DEV}: {weighs:.1f} GiB of weights")
poor = plan_flow(parts[DEV], Machine("cuda", 12 * GIBIBYTE, "bfloat16", 24 * GIBIBYTE))[0]
print(f"{DEV}, 12 GB and 24 GiB of main memory: {poor.reasons[0]}")
assert chosen["SD 3, no T5", 12] == chosen[SD_3, 24] == chosen[DEV, 80] == "whole" and not poor.fits
assert chosen[SD_3, 12] == "part by part" and chosen[DEV, 24] == chosen[SD_3, 8] == "layer by layer"
assert round(usable, 1) == 22.3 and round(weighs, 1) == 22.2

# %% id="large-bars" tags=["static"]
KINDS = {"CLIP": "#56B4E9", "T5": "#E69F00", "network": "#009E73", "autoencoder": "#CC79A7", "checker": "#999999"}


def kind_of(model, name):
    """Return which kind of part it is, by its class."""
    of = facts[model]["model_index"][name][1]
    words = {"CLIP": "CLIP", "T5": "T5", "Auto": "autoencoder", "StableDiffusionSafety": "checker"}
    return next((kind for start, kind in words.items() if of.startswith(start)), "network")


figure, ax = plt.subplots(figsize=(8, 2.8))
totals = []
for y, (model, t5) in enumerate(rows.values()):
    left = 0
    for name, part in parts[model].items():
        size = 0 if t5 is False and name == "text_encoder_3" else part.weights("bfloat16") / GIBIBYTE
        ax.barh(y, size, left=left, color=KINDS[kind_of(model, name)], height=0.6)
        left += size
    totals.append(round(left))
for card in (8, 12, 24):
    ax.axvline(card, color="black", linestyle="--", linewidth=1)
    ax.text(card + 0.2, -0.75, f"{card} GB", fontsize=8)
ax.legend([plt.Rectangle((0, 0), 1, 1, color=c) for c in KINDS.values()], KINDS, loc="upper right", fontsize=8)
ax.set(
    yticks=range(len(rows)), yticklabels=list(rows), xlabel="GiB of weights, 16 bits each", ylim=(len(rows) - 0.4, -1)
)
show(figure, "Weights as bars: v1.5 has 3 GiB, Stable Diffusion 3 without T5 6, with T5 14, Flux 31.")
assert totals == [3, 6, 14, 31]

# %% [markdown] id="large-real-text"
# ### With the real weights
#
# `load_rectified_flow` reads a folder in diffusers' layout or a name on the Hub, plans for the memory it finds, says
# what it chose and why, and leaves T5 out only if it must. Like chapter 11's loader it reads safetensors only, and never substitutes another model for one it cannot load.
#
# On the Hub, the model's page may ask you to accept a licence first
# ([Stable Diffusion 3](https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers),
# [FLUX.1 dev](https://huggingface.co/black-forest-labs/FLUX.1-dev)), and to log in with `hf auth login`. Read what it
# allows before you publish an image. *Not tested:* loading these weights. Tests load copies of the same layout.

# %% id="large-refused"
from course_utils.pipelines.rectified_flow_models import RectifiedFlowUnavailable, load_rectified_flow

for wish in ("./weights-that-i-have-not-got", "flux1-dev.ckpt"):
    try:
        load_rectified_flow(wish)
    except RectifiedFlowUnavailable as error:
        print(error, end="\n\n")

# %% [markdown] id="large-real-how"
# Name your weights below, or in the environment variable `COURSE_FLOW_MODEL`, and run the cell. If they are not on your
# disk yet, the download is large: about as many GiB as the bars above are long.

# %% id="large-real" tags=["static"]
import os

FLOW_MODEL = os.environ.get("COURSE_FLOW_MODEL", "")  # the path of a folder, or a name such as SD3["model_id"]
PROMPT = "a cute corgi puppy sitting on the grass, holding a sign that reads 'velocity'"

if FLOW_MODEL:
    pipe = load_rectified_flow(FLOW_MODEL, device)
    is_sd3 = "text_encoder_3" in pipe.components
    is_fast = not is_sd3 and not pipe.transformer.config.guidance_embeds
    x_1 = first_noise(pipe, 1, torch.Generator().manual_seed(0)).to(device)
    image = (draw_sd3 if is_sd3 else draw_flux)(pipe, [PROMPT], x_1, steps=4 if is_fast else 28)
    show(plot_pictures(image.cpu(), [type(pipe).__name__]), f"The model's image for: {PROMPT}.")
else:
    print("No weights named, so nothing is drawn here. The names on the Hub:")
    print(*(of["model_id"] for of in (SD3, FLUX_DEV, FLUX_SCHNELL)), sep="\n")

# %% [markdown] id="elsewhere"
# ## 6 · What you will read elsewhere
#
# **"Flow matching replaces diffusion."** In section 1 the shipped diffusion model *was* a flow, without any training: Euler's
# method on its velocity gave DDIM's latents, up to rounding. What differs between the two families is which times are trained how much, what the network's
# output is scaled by, and at which times one samples.
#
# **"The paths of rectified flow are straight."** The lines of training are. The paths that are sampled were not; one round of
# reflow made them nearly so. Stable Diffusion 3 is trained without reflow.
#
# **"Transformers are better denoisers than U-Nets."** In section 3 one was ahead at the very start of a training, and no more was seen. The
# papers' argument is about scale: DiT's FID falls steadily with the operations spent (arXiv:2212.09748, figure 2).
#
# **"Flux uses classifier-free guidance of 3.5."** FLUX.1 [dev] is *told* 3.5; there is one evaluation a step and no negative prompt. That is
# guidance distillation, as in section 4.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $\lVert \hat u(x_t, t) - (\varepsilon - x_0) \rVert^2 / d$ | `velocity_loss(model, x0, t, eps)` |
# | $\mathbb{E}[\varepsilon - x_0 \mid x_t]$ | `marginal_velocity(x_t, t, data)` |
# | $x_t = x / (\sqrt{\bar\alpha} + \sqrt{1 - \bar\alpha})$, $\hat u = \hat\varepsilon - \hat x_0$ | `as_flow(x, eps, alpha_bar)` |
# | $x_\text{next} = x_t + (t_\text{next} - t)\, \hat u$ | `sample_flow(model, x_1, times)` |
# | $\sum (t - t_\text{next}) \lVert \hat u - (x_1 - x_0) \rVert^2 / \lVert x_1 - x_0 \rVert^2$ | `curvature(path, times)` |
# | $t' = \text{shift} \cdot t / (1 + (\text{shift} - 1)\, t)$ | `flow_times(steps, shift)` |
# | (batch, channels, h, w) → (batch, patches, numbers) | `patchify(x, size)` |
# | $x + \text{gate} \cdot f(\text{norm}(x)(1 + \text{scale}) + \text{shift})$ | `half_block(x, c, linear, f)` |
# | one softmax over patches and words | `joint_attention(image, words)` |
# | the $v$ of a step that lands on $x_\text{next}$ | `landing_velocity(x_t, x_s, alpha_bar_t, alpha_bar_s)` |
#
# Five sentences to keep: A diffusion model is a flow in other coordinates. The learned velocity is an average over lines, so the sampled
# paths bend. A gate that begins at zero lets a deep network start as the identity. Guidance can be an input. Few-step students differ in where
# their targets come from, and each has its cost: the teacher's paths, more evaluations of the student, or a second network.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. Two pairs (x_0, ε) whose lines cross at the same t, two among many: what does the model predict there, and where do the two sampled paths go?</summary>
# The mean of the velocities of all lines through this point; if only these two pass there, the mean of both. Sampled paths cannot cross,
# because the velocity at a point and a time is unique. If two equal streams of lines cross, each path continues along the other stream, so
# the ends are exchanged. The distribution of the ends is still that of the data.
# </details>
# <details><summary>2. Could a student with one step be better than its teacher with fifty?</summary>
# Not by imitating trajectories: there the targets are the teacher's images. With distribution matching it could avoid the errors of the
# teacher's sampler, since it is compared with the teacher's velocity and not with its paths. With a loss that compares with data, it could
# also avoid errors of the teacher itself.
# </details>
# <details><summary>3. Why is the words' stream of the last joint block cut short?</summary>
# Nothing reads the words after it. Their keys and values still count in the last attention; their feed-forward network would be
# computed for nothing.
# </details>
#
# **Papers** Flow matching: Lipman et al., [arXiv:2210.02747](https://arxiv.org/abs/2210.02747). Rectified flow: Liu et al.,
# [arXiv:2209.03003](https://arxiv.org/abs/2209.03003). DiT: Peebles & Xie, [arXiv:2212.09748](https://arxiv.org/abs/2212.09748). Stable
# Diffusion 3: Esser et al., [arXiv:2403.03206](https://arxiv.org/abs/2403.03206). Guidance distillation: Meng et al.,
# [arXiv:2210.03142](https://arxiv.org/abs/2210.03142). Progressive distillation: Salimans & Ho,
# [arXiv:2202.00512](https://arxiv.org/abs/2202.00512). Consistency models: Song et al., [arXiv:2303.01469](https://arxiv.org/abs/2303.01469);
# latent: Luo et al., [arXiv:2310.04378](https://arxiv.org/abs/2310.04378). Shortcut models: Frans et al.,
# [arXiv:2410.12557](https://arxiv.org/abs/2410.12557). MeanFlow: Geng et al., [arXiv:2505.13447](https://arxiv.org/abs/2505.13447).
# DMD: Yin et al., [arXiv:2311.18828](https://arxiv.org/abs/2311.18828).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: distribution matching on images
#
# The student of section 4 is trained with a squared error. Where it cannot reproduce the teacher's mapping from noise to image exactly, it
# predicts an average, which is probably why its one-step images look soft.
# Add the fifth idea: a second LoRA as the network that learns the velocity of the student's own images, and the step that moves the
# student along the difference. Begin with the shipped student at one step, and see whether a few hundred updates make the edges sharper.
# Does the share of prompts that it follows rise, too?
