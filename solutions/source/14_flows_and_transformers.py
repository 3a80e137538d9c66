# %% [markdown] id="title"
# # 14 · Flows, transformers, few steps
#
# Stable Diffusion 1.5 was published in 2022. What replaced it, Stable Diffusion 3 and Flux, differs in three
# things. The path from noise to an image is a straight line, along which the network predicts a velocity. The network
# is a transformer. And distilled versions draw in one to four steps. In this chapter you build all three.
#
# **After this chapter you can**
# 1. derive the velocity of rectified flow, show that it is the noise prediction of chapter 06 in other units, and
#    measure how straight its paths are;
# 2. choose and shift the times of training and sampling as Stable Diffusion 3 does;
# 3. build a diffusion transformer from patches, adaLN-zero and joint attention, equal to the library's;
# 4. distil a guided model of twenty steps into one of four, two and one, and measure what is lost;
# 5. say what Stable Diffusion 3 and Flux consist of, and what they need.
#
# **You need** chapter 04 (attention), 06 and 07 (losses, samplers), 10 (guidance) and 12 (LoRA).

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
# | $x_0$, $\varepsilon$ | `x0`, `eps` | data, standard normal noise | (batch, ...) |
# | $t$ | `t` | the share of noise, from 0 (data) to 1 (noise) | (batch,) |
# | $x_t$ | `x_t` | the point at $t$ on the line from $x_0$ to $\varepsilon$ | as the data |
# | $u$, $\hat u$ | `u` | the velocity, and its prediction | as the data |
# | $\bar\alpha_s$ | `alpha_bar` | the share of the data's variance left at the whole time $s$ of a diffusion model | (T,) |

# %% [markdown] id="line-text"
# ## 1 · Straight lines
#
# The forward process of chapter 05 leads from data to noise on a curve: the shares of signal and noise are
# $\sqrt{\bar\alpha}$ and $\sqrt{1-\bar\alpha}$. **Rectified flow** ([arXiv:2209.03003](https://arxiv.org/abs/2209.03003))
# and flow matching ([arXiv:2210.02747](https://arxiv.org/abs/2210.02747)) take the simplest path there is:
#
# $$x_t = (1 - t)\, x_0 + t\, \varepsilon, \qquad u = \frac{dx_t}{dt} = \varepsilon - x_0$$
#
# In words: at time $t$ we have gone the share $t$ of the way from the data to the noise, at a constant velocity $u$.
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
# Take three clouds of points as data. Many lines pass near one point $x_t$, and each has a velocity of its own. The
# network sees only $x_t$ and $t$. The prediction with the least error is the mean over all lines through the point,
#
# $$u(x_t, t) = \mathbb{E}[\varepsilon - x_0 \mid x_t]$$
#
# In words: the **marginal velocity** is the average velocity of what could have led here.
# **Predict first:** near $t = 1$, where do the arrows point? And near $t = 0$?
#
# <details><summary>Answer (after running the cell below)</summary>
# Near $t = 1$ the point says next to nothing about $x_0$, so the velocity is the point itself minus the mean of the data:
# all arrows point away from one centre. (Sampling goes against the arrows.) Near $t = 0$ each arrow points away from the
# cloud that the point belongs to.
# </details>
#
# ### Exercise 2 · The marginal velocity
#
# ●●●○○ · 15 minutes. The data are `n` points $c_k$, all equally likely: `data` is (n, d). Given $x_t$, how probable is
# it that it lies on a line from $c_k$? The noise would have to be $\varepsilon_k = (x_t - (1 - t)\, c_k) / t$, and noise is
# normal: the weights are the softmax over $k$ of $-\lVert \varepsilon_k \rVert^2 / 2$. `x_t` is (batch, d), `t` (batch,), all
# above 0. Return the weighted mean of $\varepsilon_k - c_k$, (batch, d).

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

# %% id="arrows" tags=["static"]
dice = torch.Generator().manual_seed(0)
centres = torch.tensor([[0.0, 1.6], [-1.4, -0.9], [1.4, -0.9]])
data = centres.repeat_interleave(40, 0) + 0.15 * torch.randn(120, 2, generator=dice)
axis = torch.linspace(-2.4, 2.4, 13)
grid = torch.cartesian_prod(axis, axis)
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.2))
for ax, level in zip(axes, (0.95, 0.6, 0.2)):
    u = marginal_velocity(grid, torch.full((len(grid),), level), data)
    ax.scatter(*data.T, s=4, color="tab:orange")
    ax.quiver(*grid.T, *(-u).T, angles="xy", width=0.004)
    ax.set(title=f"t = {level}, against the velocity", aspect="equal")
show(figure, "Three clouds and arrows of the direction of sampling: at a high t all point to the middle, at a low t to a cloud.")

# %% [markdown] id="diffusion-text"
# ### A diffusion model is a flow
#
# Nothing here is new but the units. A noisy sample of chapter 05, $x_s = \sqrt{\bar\alpha_s}\, x_0 +
# \sqrt{1 - \bar\alpha_s}\, \varepsilon$, divided by $\sqrt{\bar\alpha_s} + \sqrt{1 - \bar\alpha_s}$, lies on the straight line
# from $x_0$ to $\varepsilon$:
#
# $$y = \frac{x_s}{\sqrt{\bar\alpha_s} + \sqrt{1 - \bar\alpha_s}} = (1 - t)\, x_0 + t\, \varepsilon, \qquad
#   t = \frac{\sqrt{1 - \bar\alpha_s}}{\sqrt{\bar\alpha_s} + \sqrt{1 - \bar\alpha_s}}$$
#
# In words: rescaled, each noise level of a diffusion model is a time of rectified flow. So every model that predicts
# $\varepsilon$ or $v$ predicts a velocity, too.
#
# ### Exercise 3 · Diffusion as a flow
#
# ●●●○○ · 12 minutes. `x` is (batch, ...), a noisy sample at the noise level `alpha_bar`, a number; `eps` is the
# model's prediction there. Return a triple: the time `t` (a number), the rescaled sample `y`, and the velocity at `y`.

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

# %% [markdown] id="euler-text"
# ### Sampling
#
# The velocity is the derivative of the path, so sampling solves a differential equation, from $t = 1$ to $0$. Euler's method
# takes each velocity as constant until the next time $s < t$; Heun's method looks at both ends of the step:
#
# $$x_s = x_t + (s - t)\, \hat u(x_t, t), \qquad
#   x_s = x_t + (s - t)\, \tfrac12 \bigl(\hat u(x_t, t) + \hat u(\tilde x_s, s)\bigr)$$
#
# where $\tilde x_s$ is Euler's point. In words: go along the velocity, or along the mean of the velocities here and there.
#
# ### Exercise 4 · Euler and Heun
#
# ●●●○○ · 15 minutes. `times` is a list of falling numbers from 1 to 0. Return the last $x$. With `second=True` use Heun's
# method, except in the step to 0, which is Euler's: one evaluation less, and a velocity at $t = 0$ is never needed.
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
# DDIM. It goes straight towards the predicted $x_0$, to the noise level of the next time; in the coordinates of the flow this
# is a straight step along $\hat\varepsilon - \hat x_0$.
# </details>

# %% id="ddim"
from course_utils.diffusion import flow, samplers
from course_utils.diffusion.objectives import as_eps
from course_utils.pipelines.editing import decode_latents, hidden_states
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.recipes.unet import PromptedUNet

painter = load_picture_book()
alpha_bar = alpha_bar_from_beta(scaled_linear_beta())
asked = ["a cute corgi puppy sitting on the grass", "a red ball left of a white cat", "a blue car in the snow"]
words, nothing = hidden_states(painter, asked, 3), hidden_states(painter, "", 3)
guided = samplers.guided(as_eps(PromptedUNet(painter.unet), "v", alpha_bar), nothing, 3.0)
whole = samplers.trailing_times(1000, 20)
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
# $$S = \int_0^1 \frac{\lVert \hat u(x_t, t) - (x_1 - x_0) \rVert^2}{\lVert x_1 - x_0 \rVert^2}\, dt$$
#
# where $x_1$ and $x_0$ are the ends of the *sampled* path. In words: 0 if the velocity is the same all along the path.
# If it is 0, one step of Euler's method is exact.
#
# ### Exercise 5 · Curvature
#
# ●●●○○ · 12 minutes. `path` is a list of the points that Euler's method visits, from noise to data, (batch, d) each, and `times` the
# falling times at which it is there. Return $S$ for each path, (batch,): a sum over steps, each weighted with its length in time.

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
# The three clouds again, with the exact velocity. A second set of lines is made by **reflow**: sample a path from each of
# many noises, forget the way, and keep only its ends as new pairs $(x_0, \varepsilon)$. A new flow is trained on lines
# between *these* pairs. Paths of one flow never cross, so that fewer lines cross now, and the average over the lines
# through a point has less to average. **Predict first:** by how much does one round of reflow lower the curvature?
#
# <details><summary>Answer (after running the cells below)</summary>
# TODO-number
# </details>

# %% id="curved-points" tags=["static"]
def path_of(model, x_1, times):
    """The points that Euler's method visits."""
    return [x_1, *(step.x_t for step in flow.euler(model, x_1, torch.tensor(times)))]


fine = flow.flow_times(50).tolist()
x_1 = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))
exact = lambda x, t, cond=None: marginal_velocity(x, t, data)
path = path_of(exact, x_1, fine)
print(f"curvature {curvature(path, fine).mean():.3f}")

# %% [markdown] id="times-text"
# ## 2 · Time
#
# ### Times to train on
#
# In chapter 06 all times were equally likely. But both ends teach little: near $t = 0$ there is hardly any noise to see, and
# near $t = 1$ the best answer is the point minus the mean of the data. Stable Diffusion 3 draws times from the **logit-normal**
# distribution, $t = \text{sigmoid}(m + s\, n)$ with a normal $n$, which favours the middle
# ([arXiv:2403.03206](https://arxiv.org/abs/2403.03206), section 3.1).
#
# ### Times to sample at
#
# An image with four times as many pixels, at the same $t$, hides less: averaging 2 × 2 pixels halves the noise and keeps
# what they have in common. For a flat image with $m$ times as many pixels, the mean of the noisy pixels is as uncertain as one
# pixel was at time $t$, if the time is $t'$ with
#
# $$\frac{t'}{1 - t'} = \sqrt{m}\, \frac{t}{1 - t} \qquad\Longleftrightarrow\qquad t' = \frac{\sqrt m\, t}{1 + (\sqrt m - 1)\, t}$$
#
# In words: the ratio of noise to signal has to grow by $\sqrt m$. $\sqrt m$ is called **shift**.
#
# ### Exercise 6 · Shifted times
#
# ●●○○○ · 8 minutes. Return the `steps + 1` times that sampling visits, float64: `steps` evenly spaced ones from 1 to `1 / steps`,
# each shifted, and then 0.

# %% id="ex-times"
def shifted_times(steps, shift):
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
shifted_times = check("14.shifted_times", shifted_times)

# %% [markdown] id="transformer-text"
# ## 3 · The diffusion transformer
#
# A transformer reads a sequence of vectors. Cut the latents into patches of 2 × 2, and each patch is a vector. DiT
# ([arXiv:2212.09748](https://arxiv.org/abs/2212.09748)) is this, with fixed positions and one more idea about time.
#
# ### Exercise 7 · Patches
#
# ●●○○○ · 10 minutes. `x` is (batch, channels, height, width), with sides that `size` divides. Return (batch, patches,
# channels · size · size), patches row by row; in each vector all numbers of the first channel come first, row by row.

# %% id="ex-patches"
def patchify(x, size):
    """Pictures as sequences of patches: (batch, patches, channels * size * size)."""
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
# The U-Net *adds* the time to its features. DiT lets the time, and with it the prompt, steer each block: one linear layer makes
# from a vector $c$ six vectors, a shift, a scale and a gate for the attention, and three more for the feed-forward network:
#
# $$x \leftarrow x + \text{gate} \cdot f\bigl(\text{norm}(x)\,(1 + \text{scale}) + \text{shift}\bigr)$$
#
# In words: each token is normalised, then scaled and shifted as $c$ asks for, and what the layer $f$ answers is added as far
# as the gate opens. The linear layer starts at **zero**, so all gates are closed and each block begins as the identity.
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

# %% [markdown] id="joint-text"
# ### Words and patches in one attention
#
# In the U-Net, pixels look at words by cross-attention; words stay as the text encoder made them. In **MMDiT**, the network of
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
    """One attention over patches and words: what leaves at the patches, and at the words."""
    ### BEGIN SOLUTION
    #: the contract is above
    q, k, v = (torch.cat(pair, dim=2) for pair in zip(image, words))
    out = F.scaled_dot_product_attention(q, k, v)
    patches = image[0].shape[2]
    return out[:, :, :patches], out[:, :, patches:]
    ### END SOLUTION


# %% id="check-joint"
joint_attention = check("14.joint_attention", joint_attention)
