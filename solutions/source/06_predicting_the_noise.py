# %% [markdown] id="title"
# # 06 · Predicting the noise
#
# A picture is buried in noise. A network looks at it and says: *this much of what I see is noise*. That one sentence
# is all that a diffusion model ever learns. Here you teach it to a network, first on points in the plane, then on
# handwritten digits, in a training loop of which you write every line.
#
# ![Sixty handwritten digits, most of them easy to read, drawn by the network](../chapters/figures/06_digits_drawn.png)
#
# **After this chapter you can**
# 1. write the whole training loop of a diffusion model, and test each part on a case whose answer is known;
# 2. say where the loss comes from, what its number means, and why it never reaches zero;
# 3. explain why the first guess out of strong noise is an ink blot, and prove that it has to be one.
#
# **Time** about three hours, one of them for six exercises. All training together takes about four minutes of
# processor time (on a GPU it goes on for longer, and gets further).
# **You need** from chapter 05: $x_t$, $\bar\alpha_t$ and `add_noise`. Two things are given now and built later: the
# U-Net (chapter 04 takes it apart) and the sampler (chapter 07).

# %% id="set-up"
import matplotlib.pyplot as plt
import torch

from course_utils.data import digits, points
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.plotting import LivePlot, plot_pictures, show, use_style
from course_utils.shapes import expand_like

use_style()
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $x_0$ | `x0` | a clean picture, or a point | (batch, 1, 16, 16), or (batch, 2) |
# | $\varepsilon$ | `eps` | the noise: standard normal numbers | that of `x0` |
# | $t$, $T$ | `t`, `T` | the noise level, $0 \dots T-1$ in code; how many there are | (batch,); 1000 |
# | $\bar\alpha_t$ | `alpha_bar[t]` | how much of the picture's variance is left at $t$ | `alpha_bar`: (T,) |
# | $x_t$ | `x_t` | the noisy picture $\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$ | that of `x0` |
# | $\theta$ | `model.parameters()` | the weights of the network | |
# | $\varepsilon_\theta(x_t, t) = \hat\varepsilon$ | `eps_hat = model(x_t, t)` | the noise that it sees | of `x0` |
# | $\hat x_0$ | `x0_hat` | the clean picture that this answer implies | that of `x0` |
# | $L$ | `loss` | how wrong the answers are | a number |
#
# The papers count $t$ from 1 to $T$, the code from 0 to $T-1$. The schedule is that of Stable Diffusion.

# %% id="schedule"
T = 1000
alpha_bar = alpha_bar_from_beta(scaled_linear_beta(T)).to(device)

# %% [markdown] id="coin-question"
# ## A coin in the fog
#
# A coin lies on the table: heads is $x_0 = +1$, tails is $x_0 = -1$. Then fog comes in, and all that you see is
# $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$: the coin, dimmed, plus noise. You name a
# number, and you pay the square of your error.
#
# **Predict first.** You see $x_t = 0.3$. What do you say in thin fog, at $t = 100$? What in thick fog, at $t = 900$?
# May you say 0, which no coin ever shows?
#
# No formula now. We throw 200,000 coins, sort them by what is seen, and look at what they really were.


# %% id="coin"
def throw_coins(t, number=200_000):
    """Coins x0 = +1 or -1 and how they look at time t: two tensors (number,)."""
    generator = torch.Generator().manual_seed(t)
    x0 = 2.0 * torch.randint(2, (number,), generator=generator) - 1
    eps = torch.randn(number, generator=generator)
    return x0, add_noise(x0, eps, torch.full((number,), t), alpha_bar.cpu())


def average_by_sight(x0, x_t, edges):
    """The average coin among those seen between one edge and the next; NaN where there are few."""
    place = torch.bucketize(x_t, edges)
    groups = [x0[place == i] for i in range(1, len(edges))]
    return torch.stack([g.mean() if len(g) > 50 else torch.tensor(torch.nan) for g in groups])


# %% id="coin-plot" tags=["static"]
edges = torch.linspace(-2.5, 2.5, 51)
middles = (edges[1:] + edges[:-1]) / 2
figure, panels = plt.subplots(1, 3, figsize=(9, 3), sharey=True)
for ax, t in zip(panels, (100, 500, 900)):
    x0, x_t = throw_coins(t)
    jitter = 0.06 * torch.randn(400, generator=torch.Generator().manual_seed(0))
    ax.scatter(x_t[:400], x0[:400] + jitter, s=5, color="#9A9A9A", label="coins")
    ax.plot(middles, average_by_sight(x0, x_t, edges), color="#D55E00", label="their average")
    ax.axvline(0.3, color="black", linewidth=0.8, linestyle=":")
    ax.set(title=f"t = {t}", xlabel="what is seen, $x_t$", xlim=(-2.6, 2.6))
panels[0].set_ylabel("what it was, $x_0$")
panels[0].legend(loc="upper left", fontsize=8)
show(
    figure,
    "Coins by what is seen of them in three fogs, and their average: a step from -1 to 1 in thin fog, "
    "almost a flat line at 0 in thick fog. The dotted line is at 0.3.",
)

# %% [markdown] id="coin-read"
# In thin fog there is nothing to guess: the average is a step, and you say $+1$. In thick fog half of the coins that
# look like 0.3 were tails. Whoever says $+1$ is wrong half of the time, and pays 4 each time. The cheapest answer is
# the *average* of all the coins that look like this, close to 0: a coin on its edge, which nobody ever threw.
#
# Keep this picture in mind. A network that removes noise is in your place, at every pixel. In section 7 its coin on
# the edge is called an ink blot.

# %% [markdown] id="target"
# ## 1 · What shall the network say?
#
# Three things hang together: $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$. The network is
# given $x_t$ and $t$. Whoever then knows the noise $\varepsilon$ knows the picture $x_0$, and the other way round:
#
# $$x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\;\varepsilon}{\sqrt{\bar\alpha_t}}$$
#
# In words: take the noise away, as much as there is of it; then undo the dimming. Look at it with one digit.

# %% id="one-digit" tags=["static"]
pictures, labels = digits.load(16)  # (1440, 1, 16, 16) in [-1, 1]
pictures = pictures.to(device)
x0 = pictures[3:4]
eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(device)
t = torch.tensor([300], device=device)

signal, noise = alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()
x_t = signal * x0 + noise * eps
undone = (x_t - noise * eps) / signal
assert torch.allclose(undone, x0, atol=1e-5)
titles = ["x_0", "eps", "x_t, t = 300", "x_t without eps"]
show(
    plot_pictures(torch.cat([x0, eps, x_t, undone]), titles, columns=4),
    "A digit, pure noise, the mixture of both, and the digit again, which is left when exactly that noise is removed.",
)

# %% [markdown] id="why-eps"
# So why ask for the noise and not for the picture? Ho, Jain and Abbeel tried several targets and chose the noise.
#
# * **One size fits all.** $\varepsilon$ has mean 0 and variance 1 at every $t$ and for every data set.
# * **It falls out of the theory** with a simple loss: section 3.
# * **Their pictures were better** with it than with the mean of the next step.
#
# It is a choice, not a law: chapter 07 also uses $x_0$ and a mixture called $v$. And it has a price. To get from
# $\hat\varepsilon$ to $\hat x_0$ one divides by $\sqrt{\bar\alpha_t}$, which magnifies every error where the noise
# is strong:

# %% id="magnified"
for level in (0, 250, 500, 750, 999):
    a = alpha_bar[level].item()
    print(
        f"t = {level:3}: signal {a**0.5:.3f}, noise {(1 - a) ** 0.5:.3f}; "
        f"an error of 0.1 in eps is one of {0.1 * ((1 - a) / a) ** 0.5:.3f} in x0"
    )

# %% [markdown] id="loss"
# ### The loss
#
# The network shall see the noise. So compare what it says with the noise that we put in:
#
# $$L(\theta) \;=\; \mathbb{E}_{x_0,\,\varepsilon,\,t}\;\Bigl[\tfrac{1}{d}\,\bigl\|\,\varepsilon -
#   \varepsilon_\theta(\underbrace{\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon}_{x_t},\; t)\,
#   \bigr\|^2\Bigr]$$
#
# $\mathbb{E}$ is the average: over the pictures $x_0$ of the data, over noise $\varepsilon$, over times $t$.
# $\varepsilon_\theta$ is the network with its weights $\theta$; it gets the noisy picture *and the time*.
# $\|\cdot\|^2$ is the sum of the squares over all $d$ pixels; divided by $d$ it is their mean.
#
# By hand, for a network that has learnt nothing and says "no noise at all":

# %% id="loss-by-hand"
d = eps.numel()
eps_hat = torch.zeros_like(eps)
squares = (eps - eps_hat) ** 2  # (1, 1, 16, 16)
print(f"{d} squares, their sum {squares.sum():.1f}, their mean {squares.sum() / d:.3f}")

# %% [markdown] id="loss-read"
# The mean is near 1, since $\varepsilon$ has variance 1. Remember it as the **loss of ignorance**: whatever lies below
# 1 is knowledge. (The sum would be 256 here and 786,432 for a photograph of Stable Diffusion's size. We return to
# that.)
#
# ### Exercise 1 · The loss, for each picture of a batch
#
# ●●○○○ · 10 minutes. One number *for each picture*, so that we can later sort them by $t$. It also has to serve for
# points of the plane, (batch, 2), so average over every axis but the first. Training sends gradients through it.


# %% id="ex-loss"
def noise_prediction_loss(eps_hat, eps):
    """Each sample's mean squared error, || eps - eps_hat ||^2 / d: (batch, ...), (batch, ...) -> (batch,)."""
    ### BEGIN SOLUTION
    #: the squared difference, element by element
    squares = (eps_hat - eps) ** 2
    #: the mean over every axis but the first, whatever their number
    return squares.flatten(1).mean(1)
    ### END SOLUTION


# %% id="check-loss"
noise_prediction_loss = check("06.noise_prediction_loss", noise_prediction_loss)
# Stuck? hint("06.noise_prediction_loss") gives a hint, and one more each time; solution(...) is the last resort.

# %% [markdown] id="oracle"
# How does one test a loss? With a case whose answer is known. In **a world with a single picture** $x_0$ there is no
# secret: whoever sees $x_t$ can compute the noise exactly, and the loss must be 0. (Your exercise was checked with
# it.) And of course all versions agree: by hand, yours, the package's, torch's.

# %% id="oracle-run"
from torch.nn.functional import mse_loss

from course_utils.diffusion import objectives

perfect = (x_t - signal * x0) / noise  # possible only because this world holds nothing but x0
print(f"loss of the perfect answer: {noise_prediction_loss(perfect, eps).item():.1e}")
assert noise_prediction_loss(perfect, eps).item() < 1e-8

by_hand = squares.sum() / d
others = [f(eps_hat, eps).squeeze() for f in (noise_prediction_loss, objectives.noise_prediction_loss, mse_loss)]
assert torch.allclose(torch.stack(others), by_hand)

# %% [markdown] id="times"
# ## 2 · A time for each picture
#
# One network serves all noise levels. So every batch mixes them: each picture draws *its own* $t$.
#
# Which levels, how often? The loss above is a plain average over $t$. If we draw every $t$ equally often
# (**uniform**), the mean over a batch is an honest estimate of it. That is DDPM's choice, and ours in this chapter.
# The model of chapter 00 was trained with *logit-normal* times, which visit the middle more often; section 6 shows
# why one may want that.
#
# ### Exercise 2 · Draw the times
#
# ●○○○○ · 5 minutes. Numbers come from the generator that is passed in: same seed, same run.


# %% id="ex-times"
def sample_times(count, T, generator):
    """Draw `count` whole numbers, each of 0 ... T-1 equally likely: int64, (count,)."""
    ### BEGIN SOLUTION
    #: look up which of the two bounds of torch.randint can come out
    return torch.randint(0, T, (count,), generator=generator, device=generator.device)
    ### END SOLUTION


# %% id="check-times"
sample_times = check("06.sample_times", sample_times)

# %% [markdown] id="batch-text"
# With it we can make what the network is going to see: a batch of noisy pictures, each at a level of its own.

# %% id="batch" tags=["static"]
generator = torch.Generator().manual_seed(3)
x0 = pictures[:10]
t = sample_times(10, T, generator).to(device)
eps = torch.randn(x0.shape, generator=generator).to(device)
x_t = add_noise(x0, eps, t, alpha_bar)

titles = [""] * 10 + [f"t = {time}" for time in t.tolist()]
show(
    plot_pictures(torch.cat([x0, x_t]), titles, columns=10),
    "Upper row: ten clean digits. Lower row: what the network sees of them, each at a time of its own.",
)

# %% [markdown] id="bound"
# ## 3 · Where the loss comes from
#
# *(You may read this section after the trainings. Nothing below needs it.)*
#
# Is the loss just a good idea? It is more: it comes out of asking for the most likely data. The model goes from noise
# $x_T$ to a picture in $T$ small random steps, $p_\theta(x_{t-1} \mid x_t)$, each a Gaussian whose mean the network
# gives. We want $-\log p_\theta(x_0)$ to be small for the pictures of the data.

# %% [markdown] id="bound-step"
# **Step 1: a bound.** Nobody can compute it, since any chain of noisy pictures could lead to $x_0$. As for the
# variational autoencoder of chapter 02, there is an upper bound. The chain $x_1 \dots x_T$ is the hidden variable, the
# forward process $q$ is the encoder (with nothing to learn), and $\mathbb{E}_q$ averages over its chains. What is too
# much on the right is again a divergence, so it is never negative:
#
# $$-\log p_\theta(x_0) \;\le\; \mathbb{E}_q\bigl[\,\log q(x_1, \dots, x_T \mid x_0)
#   - \log p_\theta(x_0, x_1, \dots, x_T)\,\bigr]$$

# %% [markdown] id="bound-sort"
# **Step 2: sort by time.** Both chains are products over the steps, so their logarithms are sums. Sorted by $t$, the
# bound is a sum of Kullback–Leibler divergences (KL: how far one distribution is from another), one for each step,
# plus a term at either end: at $x_T$ there is nothing to learn, and at $x_0$ it is like the others. For $t$ in between
#
# $$L_{t-1} = \text{KL}\bigl(\,q(x_{t-1} \mid x_t, x_0)\;\big\|\;p_\theta(x_{t-1} \mid x_t)\,\bigr)$$
#
# Left stands where $x_{t-1}$ lay, *for someone who knows $x_0$*: a Gaussian, mean $\tilde\mu_t$, variance
# $\tilde\beta_t$ (chapter 07 derives both). Right stands the network's imitation, which does not know $x_0$. Some write
# that $p_\theta$ follows from Bayes' rule. It does not: Bayes' $q(x_{t-1} \mid x_t)$ needs the density of all pictures.

# %% [markdown] id="bound-kl"
# **Step 3: two Gaussians of one variance.** Let $p_\theta$ have the variance $\sigma_t^2 = \tilde\beta_t$ too. Then
# their divergence is the squared distance of their means $\tilde\mu_t$ and $\mu_\theta$:
#
# $$L_{t-1} = \frac{1}{2\sigma_t^2}\,\bigl\|\tilde\mu_t - \mu_\theta\bigr\|^2$$
#
# Do not believe it, run it:

# %% id="bound-kl-run"
from torch.distributions import Normal, kl_divergence

mean_q, mean_p, sigma = torch.tensor([0.3, -1.0]), torch.tensor([0.1, 0.5]), 0.2
kl = kl_divergence(Normal(mean_q, sigma), Normal(mean_p, sigma)).sum()
formula = (mean_q - mean_p).square().sum() / (2 * sigma**2)
print(f"KL {kl:.4f}, formula {formula:.4f}")
assert torch.isclose(kl, formula)

# %% [markdown] id="bound-eps"
# **Step 4: the means, told through the noise.** $\tilde\mu_t$ is a mixture of $x_0$ and $x_t$. Put
# $x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\varepsilon) / \sqrt{\bar\alpha_t}$ into it, tidy up, and only $x_t$ and
# $\varepsilon$ are left. Here $\beta_t$ is the share of noise that step $t$ adds, and $\alpha_t = 1 - \beta_t$:
#
# $$\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
#   + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t
#   \;=\; \frac{1}{\sqrt{\alpha_t}}\Bigl(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\varepsilon\Bigr)$$
#
# The network knows $x_t$ as well. The one thing that it lacks is $\varepsilon$: so let it say $\varepsilon_\theta$, and
# use the same formula for $\mu_\theta$.

# %% id="bound-eps-run"
beta = scaled_linear_beta(T).double()  # float64: the weights below span many powers of ten
alpha, a = 1 - beta, (1 - beta).cumprod(0)
a_before = torch.cat([torch.ones(1, dtype=torch.float64), a[:-1]])  # alpha_bar at t-1; before the first step: 1

level = 500
x0_, eps_ = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).double()
x_t_ = a[level].sqrt() * x0_ + (1 - a[level]).sqrt() * eps_
with_x0 = (a_before[level].sqrt() * beta[level] * x0_ + alpha[level].sqrt() * (1 - a_before[level]) * x_t_) / (
    1 - a[level]
)
with_eps = (x_t_ - beta[level] / (1 - a[level]).sqrt() * eps_) / alpha[level].sqrt()
print("largest difference of the two forms:", (with_x0 - with_eps).abs().max().item())
assert torch.allclose(with_x0, with_eps)

# %% [markdown] id="bound-weight"
# **Step 5: subtract, and drop the weight.** In $\tilde\mu_t - \mu_\theta$ everything cancels but the noises:
#
# $$L_{t-1} = w_t\,\bigl\|\varepsilon - \varepsilon_\theta(x_t, t)\bigr\|^2, \qquad
#   w_t = \frac{\beta_t^2}{2\,\sigma_t^2\,\alpha_t\,(1-\bar\alpha_t)}$$
#
# That is our loss, but for a weight $w_t$ for each time. DDPM sets every weight to 1 and calls it $L_\text{simple}$.
# How much does that change?

# %% id="bound-weight-run" tags=["static"]
variance = (1 - a_before) / (1 - a) * beta  # sigma_t^2 in step 3
w = (beta**2 / (2 * variance * alpha * (1 - a)))[1:]  # the first step has no variance: it is the term at the end
figure, ax = plt.subplots(figsize=(6.4, 2.8))
ax.semilogy(range(1, T), w, label="the bound, $w_t$")
ax.axhline(w.mean(), color="#D55E00", linestyle="--", label="$L_{simple}$: the same for all")
ax.set(xlabel="time $t$", ylabel="weight")
ax.legend()
show(
    figure,
    f"The bound's weight falls steeply from {w[0]:.2f} near t = 0 to {w.min():.4f} in the middle, and rises a "
    f"little towards {w[-1]:.4f} at the end; the simple loss has one weight for all.",
)
print(f"the bound weighs t = 1 about {w[0] / w[500]:.0f} times as much as t = 501")
print(f"share of all the weight on the cleanest tenth of the times: {w[:100].sum() / w.sum():.0%}")

# %% [markdown] id="bound-read"
# The bound cares most about the last traces of noise: every bit of a pixel counts for a likelihood. $L_\text{simple}$
# gives that up, and spends the network's effort on stronger noise, where it is decided what the picture shows.
# DDPM found likelihoods a little worse and pictures far better.
#
# Note what the weights do *not* change. Each term is smallest for the same answer, whatever its positive weight. A
# network that could do everything would come out the same; weights decide where a *limited* one puts its effort.

# %% [markdown] id="points"
# ## 4 · The whole loop, on points
#
# Before pictures, a world that can be seen whole: points on two half moons. A "picture" is now a pair of numbers,
# and noise pushes a point around.

# %% id="points-noisy" tags=["static"]
moons = points.two_moons(4000, torch.Generator().manual_seed(0)).to(device)  # (4000, 2)
figure, panels = plt.subplots(1, 4, figsize=(9, 3), sharex=True, sharey=True)
for ax, level in zip(panels, (0, 100, 300, 999)):
    eps = torch.randn(moons.shape, generator=torch.Generator().manual_seed(1)).to(device)
    x_t = add_noise(moons, eps, torch.full((4000,), level, device=device), alpha_bar).cpu()
    ax.scatter(*x_t[:1500].T, s=2, color="#0072B2")
    ax.set(title=f"t = {level}", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xlabel="$x_t$, first")
panels[0].set_ylabel("$x_t$, second")
show(figure, "Two half moons of points at four times: sharp, blurred, hardly to be seen, and a round cloud of noise.")

# %% [markdown] id="net-box"
# > **Given now, explained in chapter 04: how the time gets in.** A number such as $t = 437$ is hard to use for a
# > network. So it becomes a row of sines and cosines of different speeds, like the hands of many clocks. Levels close
# > to each other get similar rows, far ones different rows. The network reads that row beside its input. The
# > coordinates of the point get such a row too, so that small differences of place are easy to see.


# %% id="net"
def waves(values, speeds):
    """Sines and cosines of each value at each speed: (batch, k), (w,) -> (batch, 2 k w)."""
    angle = (values[:, :, None] * speeds.to(values.device)).flatten(1)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class PointNet(torch.nn.Module):
    """model(x_t, t) -> eps_hat for points: (batch, 2), (batch,) -> (batch, 2)."""

    PLACE = torch.tensor([1.0, 2.0, 4.0, 8.0])
    TIME = 10_000 ** -(torch.arange(16) / 16)  # from 1 down to about 1/10000

    def __init__(self, width=128):
        super().__init__()
        sizes = [2 + 16 + 32, width, width, width]
        hidden = [torch.nn.Sequential(torch.nn.Linear(i, o), torch.nn.SiLU()) for i, o in zip(sizes, sizes[1:])]
        self.layers = torch.nn.Sequential(*hidden, torch.nn.Linear(width, 2))

    def forward(self, x_t, t, cond=None):
        return self.layers(torch.cat([x_t, waves(x_t, self.PLACE), waves(t[:, None], self.TIME)], dim=1))


# %% [markdown] id="step-text"
# One training step is five short lines. Here they are by hand, for four points:

# %% id="step-by-hand"
torch.manual_seed(0)  # the network's random start
model = PointNet().to(device)
generator = torch.Generator().manual_seed(0)
x0 = moons[:4]

t = sample_times(4, T, generator).to(device)  # (4,)
eps = torch.randn(x0.shape, generator=generator).to(device)  # (4, 2)
x_t = add_noise(x0, eps, t, alpha_bar)  # (4, 2)
eps_hat = model(x_t, t)  # (4, 2): the network sees x_t and t; it sees neither x0 nor eps
loss = noise_prediction_loss(eps_hat, eps).mean()  # a number
print("t", t.tolist(), " loss", round(loss.item(), 3))

# %% [markdown] id="ex-step-text"
# A fresh network is near the loss of ignorance, 1 (only near: four points are few).
#
# ### Exercise 3 · The training step
#
# ●●●○○ · 15 minutes. Make these lines a function of model, clean data, schedule and generator. It works for points
# and for pictures of any size, with any model: nothing in it knows what the data are. There are `len(alpha_bar)` times;
# do not use the $T$ of this notebook. Draw from `generator` only. The training loop calls `.backward()` on what you
# return.


# %% id="ex-step"
def training_step(model, x0, alpha_bar, generator):
    """Noise the clean x0, ask the model for the noise, return the mean loss: a number with gradients, shape ()."""
    ### BEGIN SOLUTION
    #: a time for each sample (the generator may live on the CPU: .to(x0.device))
    t = sample_times(len(x0), len(alpha_bar), generator).to(x0.device)
    #: standard normal noise of the shape of x0
    eps = torch.randn(x0.shape, generator=generator, device=generator.device).to(x0.device)
    #: the noisy samples
    x_t = add_noise(x0, eps, t, alpha_bar)
    #: compare the model's answer with the noise; the mean over the batch
    return noise_prediction_loss(model(x_t, t), eps).mean()
    ### END SOLUTION


# %% id="check-step"
training_step = check("06.training_step", training_step)

# %% [markdown] id="ema-text"
# ### The average that follows
#
# Each batch is a small random sample, so each update pulls the weights a little aside: they jitter around good values
# without settling. Remedy: keep a second network whose weights are a slow average of the first one's, an *exponential
# moving average* (EMA). It never trains. It follows.
#
# $$\bar\theta \;\leftarrow\; m\,\bar\theta + (1 - m)\,\theta$$
#
# $\theta$ are the weights after the update, $\bar\theta$ the average's, and $m$ (`decay`) is how much of itself the
# average keeps. With $m = 0.99$ it remembers about $1 / (1 - m) = 100$ updates. Pictures are drawn with $\bar\theta$.
#
# ### Exercise 4 · Update the average
#
# ●●○○○ · 10 minutes. In place: the tensors of `average` themselves change, and no gradient is recorded.


# %% id="ex-ema"
@torch.no_grad()
def ema_update(average, model, decay):
    """Move each parameter of `average` towards that of `model`: average <- decay average + (1 - decay) parameter."""
    ### BEGIN SOLUTION
    #: go through the parameters of both networks in pairs
    for slow, fast in zip(average.parameters(), model.parameters()):
        #: write into the old tensor: slow.copy_(...)
        slow.copy_(decay * slow + (1 - decay) * fast)
    ### END SOLUTION


# %% id="check-ema"
ema_update = check("06.ema_update", ema_update)

# %% [markdown] id="ema-equal-text"
# The same by torch's own function, `torch.optim.swa_utils`: equal after twenty updates.

# %% id="ema-equal"
import copy

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

fast = torch.nn.Linear(3, 2)
slow, library = copy.deepcopy(fast), AveragedModel(fast, multi_avg_fn=get_ema_multi_avg_fn(0.9))
library.update_parameters(fast)  # its first update copies
for step in range(20):
    torch.nn.init.normal_(fast.weight, generator=torch.Generator().manual_seed(step))  # stands for a training step
    ema_update(slow, fast, decay=0.9)
    library.update_parameters(fast)
assert torch.allclose(slow.weight, library.module.weight, atol=1e-6)

# %% [markdown] id="loop-text"
# ### The loop
#
# Data, times, noise, `add_noise`, model, loss, optimiser, average: everything is there. The loop is a generator. It
# makes one update, hands you step and loss, and waits, so that progress bar and plot stay outside.
#
# Two lines are new. `AdamW` is the usual optimiser, with learning rate $\eta$ = `learning_rate`. And gradients longer
# than 1 are shortened to 1: one odd batch shall not throw the network off its way. Early in training the average
# keeps less of itself, so that the random start is soon forgotten.


# %% id="loop"
def fit(model, average, data, steps, batch=256, learning_rate=2e-3, decay=0.995, seed=0):
    """Train `model` to see the noise in `data`, and let `average` follow; yields (step, loss) after each update."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    for step in range(1, steps + 1):
        x0 = data[torch.randint(len(data), (batch,), generator=generator).to(data.device)]
        loss = training_step(model, x0, alpha_bar, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema_update(average, model, min(decay, step / (step + 9)))
        yield step, loss.item()


# %% [markdown] id="examine-text"
# The loss of a batch jumps about, since each batch has other times. To compare networks we need the *same* exam for
# all: fixed pictures, fixed noise, times spread evenly from 0 to $T-1$.


# %% id="examine"
@torch.no_grad()
def examine(model, data, count=1000, seed=1):
    """Ask the model the same `count` questions each time; returns each one's loss and its time, both (count,)."""
    generator = torch.Generator().manual_seed(seed)
    x0 = data[torch.randint(len(data), (count,), generator=generator).to(data.device)]
    eps = torch.randn(x0.shape, generator=generator).to(x0)
    t = (torch.arange(count) * T // count).to(x0.device)
    return noise_prediction_loss(model(add_noise(x0, eps, t, alpha_bar), t), eps), t


# %% id="train-points"
model = PointNet().to(device)
average = copy.deepcopy(model).requires_grad_(False)
before = examine(model, moons)[0].mean().item()
steps = budget(smoke=150, laptop=2000, gpu=2000)

exams = []
live = LivePlot("The loss on the points falls at once, and then jumps about a level well above zero.")
for step, loss in fit(model, average, moons, steps):
    live.update(step, loss)
    if step % (steps // 50) == 0:
        exams.append([step, *(examine(network, moons)[0].mean().item() for network in (model, average))])
live.finish()

# %% [markdown] id="ema-plot-text"
# The curve looks as if the training were over after a few hundred steps. Now the exam, for both networks:

# %% id="ema-plot" tags=["static"]
numbers, jittery, smooth_one = zip(*exams)
figure, ax = plt.subplots(figsize=(6.4, 2.8))
ax.plot(numbers, jittery, color="#9A9A9A", linewidth=1.2, linestyle="-", label=r"the network, $\theta$")
ax.plot(numbers, smooth_one, color="#0072B2", linestyle="-", label=r"its average, $\bar\theta$")
ax.set(xlabel="step", ylabel="loss in the exam", ylim=(min(smooth_one) - 0.005, min(smooth_one) + 0.06))
ax.legend()
show(figure, "The network's loss in the exam jumps from step to step; that of its average falls smoothly below it.")

later = len(exams) // 2
gain = [raw - slow for raw, slow in zip(jittery[later:], smooth_one[later:])]
print(f"before training {before:.3f}; after: network {jittery[-1]:.3f}, average {smooth_one[-1]:.3f}")
print(
    f"the average is better in {sum(g > 0 for g in gain)} of the last {len(gain)} exams, "
    f"by {sum(gain) / len(gain):.4f} in the mean"
)
assert smooth_one[-1] < before

# %% [markdown] id="floor-text"
# ### Why not zero?
#
# Because of the coin in the fog. A noisy point may have come from many clean ones; even the best answer is an average,
# and misses. How much, can be computed here. The data are 4,000 known points, so the best answer is the average over
# all of them, each weighted by how likely it made this $x_t$ (section 7 shows the formula; `best_x0` is it). No network
# whatsoever can have a lower loss on these data: it is the **floor**.

# %% id="floor"
from course_utils.diffusion.objectives import best_x0, eps_from_x0


def best_model(data):
    """The best possible eps_hat for a finite data set, as a model(x_t, t)."""
    return lambda x_t, t, cond=None: eps_from_x0(x_t, best_x0(x_t, t, alpha_bar, data), t, alpha_bar)


floor = examine(best_model(moons), moons)[0].mean().item()
print(f"ignorance 1, our average network {smooth_one[-1]:.3f}, the floor {floor:.3f}")
assert smooth_one[-1] > floor
if budget(smoke=False, laptop=True, gpu=True):
    assert smooth_one[-1] < floor + 0.03

# %% [markdown] id="sampler-box"
# So this loss is nothing to be ashamed of: most of it is fog, and cannot be had. Does such a network draw?
#
# > **Given now, built in chapter 07: the sampler**, here that of DDPM. It starts from pure noise at $t = T-1$, asks the
# > network for the noise, goes a little way towards $\hat x_0$, and repeats.

# %% id="sampler"
from course_utils.diffusion.samplers import ddpm, finish, trailing_times


def draw(model, shape, steps=50, seed=0, clip=None):
    """Samples of the given shape, drawn by the model from pure noise."""
    generator = torch.Generator().manual_seed(seed)
    x_T = torch.randn(shape, generator=generator).to(device)
    return finish(ddpm(model, x_T, alpha_bar, trailing_times(T, steps), generator, clip=clip))


# %% [markdown] id="blind-text"
# ### A failure: nobody tells the network the time
#
# In many articles the loss reads $\|\varepsilon - \varepsilon_\theta(x_t)\|^2$, without $t$. A misprint, surely?
# **Predict first:** the same network, the same training, but it always hears $t = 0$. What becomes of the loss, and
# what of the samples?


# %% id="blind"
class Blind(PointNet):
    """A PointNet that is not told the time."""

    def forward(self, x_t, t, cond=None):
        return super().forward(x_t, torch.zeros_like(t))


blind = Blind().to(device)
blind_average = copy.deepcopy(blind).requires_grad_(False)
for _ in fit(blind, blind_average, moons, steps):
    pass
told, untold = (examine(network, moons)[0].mean().item() for network in (average, blind_average))
print(f"loss, told the time {told:.3f}, not told {untold:.3f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert untold > told + 0.04

# %% id="blind-plot" tags=["static"]
drawn = [moons[:1500], draw(average, (1500, 2)), draw(blind_average, (1500, 2))]
off = [torch.cdist(found, moons).min(1).values.mean().item() for found in drawn[1:]]
titles = ["the data", f"told the time\n{off[0]:.2f} off", f"not told\n{off[1]:.2f} off"]
figure, panels = plt.subplots(1, 3, figsize=(8.4, 3.5), sharex=True, sharey=True)
for ax, found, title in zip(panels, drawn, titles):
    ax.scatter(*found.cpu().T, s=2, color="#0072B2")
    ax.set(title=title, xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xlabel="$x_0$, first")
panels[0].set_ylabel("$x_0$, second")
show(
    figure,
    "The moons; samples of our network, which lie on them; samples of the blind network, which do not. Above "
    "each: how far its samples lie from the nearest point of the data, on average.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert off[0] < 0.08 and off[0] < off[1]

# %% [markdown] id="blind-why"
# **Why?** A point somewhat beside a moon: at $t = 50$ it is a moon's point pushed aside, and the step to take is
# small. At $t = 900$ it is nearly pure noise, and says nothing. Without the time, the network must give one answer
# for both: an average again, of answers to different questions.
#
# In pictures this failure is milder, and articles get away with it. 256 pixels show by themselves how grainy they
# are; two coordinates do not. Still, every serious model is told the time.

# %% [markdown] id="field-text"
# What has the network learnt? Ask it everywhere. From each place an arrow points to its guess $\hat x_0$ of where this
# point came from.
#
# **Predict first:** where do the arrows end at $t = 800$?

# %% id="field" tags=["static"]
from course_utils.diffusion.objectives import x0_from_eps as clean_guess  # you write it in section 7

side = torch.linspace(-2.2, 2.2, 12, device=device)
places = torch.cartesian_prod(side, side)  # (144, 2)
in_data = {"angles": "xy", "scale_units": "xy", "scale": 1}  # arrows in the units of the axes
figure, panels = plt.subplots(1, 3, figsize=(8.4, 3.5), sharex=True, sharey=True)
for ax, level in zip(panels, (100, 400, 800)):
    t = torch.full((len(places),), level, device=device)
    with torch.no_grad():
        x0_hat = clean_guess(places, average(places, t), t, alpha_bar)
    ax.scatter(*moons[:800].cpu().T, s=1, color="#B8B8B8")
    ax.quiver(*places.cpu().T, *(x0_hat - places).cpu().T, width=0.003, color="#56B4E9", **in_data)
    ax.scatter(*x0_hat.cpu().T, s=7, color="#D55E00", zorder=3)
    ax.set(title=f"t = {level}", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xlabel="$x_t$, first")
panels[0].set_ylabel("$x_t$, second")
show(
    figure,
    "Arrows from a grid of places to the network's guesses, red dots: near the moons at t = 100, on "
    "shrunken moons at t = 400, crowded in the middle at t = 800, where there are no data.",
)

# %% [markdown] id="field-read"
# At $t = 100$ the guesses lie near the moons. At $t = 800$ they crowd in the middle of everything, where there is no
# point at all: the coin on its edge once more. (Where points never come, the network was never asked.)

# %% [markdown] id="unet-box"
# ## 5 · The same loop, on pictures
#
# > **Given now, explained in chapter 04: the U-Net.** A network that sees a picture at three sizes (16 × 16, 8 × 8,
# > 4 × 4) and gives back one of the same size. The time enters every block, as sines and cosines. `PictureUNet` is
# > `diffusers.UNet2DModel` in small.
#
# For the loop it is a model like any other: `model(x_t, t)`. Not one line of `fit` changes.

# %% id="unet"
from course_utils.models.unet import PictureUNet

torch.manual_seed(0)
model = PictureUNet(channels=1, size=16).to(device)
print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters")
print("answer", tuple(model(pictures[:2], torch.tensor([3, 700], device=device)).shape))

# %% [markdown] id="overfit-text"
# ### First of all: learn one picture by heart
#
# Before any long training, try the shortest one: a data set of *one picture*. Section 1 says what must happen: in a
# world with a single picture the floor is 0, so the loss must go far down, and sampling must give that picture. If
# it does not, there is a bug in data, noise, model or loss, and you know after half a minute and not after a night.

# %% id="overfit" tags=["static"]
one = pictures[3:4]
copycat = copy.deepcopy(model)
average = copy.deepcopy(copycat).requires_grad_(False)
before = examine(copycat, one, 100)[0].mean().item()
for _ in fit(copycat, average, one, budget(smoke=8, laptop=100, gpu=300), batch=16, decay=0.95):
    pass
after = examine(average, one, 100)[0].mean().item()
print(f"loss before {before:.3f}, after {after:.3f}")
assert after < before

sample = draw(average.eval(), (1, 1, 16, 16), steps=20, clip=1)
show(
    plot_pictures(torch.cat([one, sample]), ["the one picture", "drawn from noise"]),
    "The one picture that the network was trained on, and what it draws from pure noise: nearly the same.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert after < 0.1 and (sample - one).abs().mean() < 0.25

# %% [markdown] id="train-text"
# ### Now all of them
#
# The chapter's main training: 1,440 digits, and the loop that you wrote. The bar shows the time left. You can stop it
# at any moment; what the network has learnt so far stays.

# %% id="train"
import time

from tqdm.auto import tqdm

average = copy.deepcopy(model).requires_grad_(False)
unseen, _ = digits.load(16, split="test")  # 357 digits that it never trains on
unseen = unseen.to(device)
before = examine(model, unseen, 300)[0].mean().item()
steps = budget(smoke=12, laptop=1000, gpu=6000)
batch = budget(smoke=16, laptop=32, gpu=64)

live = LivePlot("The loss on the digits: a steep fall, then a long slow decline.", seconds=5, log_scale=True)
start = time.process_time()
for step, loss in tqdm(fit(model, average, pictures, steps, batch=batch), total=steps):
    live.update(step, loss)
live.finish()
print(f"{steps} updates took {time.process_time() - start:.0f} seconds of processor time")

# %% [markdown] id="train-read-text"
# The exam, on digits that neither network has seen, and what the network draws:

# %% id="train-read"
model.eval()
average.eval()
after = examine(average, unseen, 300)[0].mean().item()
print(
    f"loss on unseen digits: before {before:.3f}, after {after:.3f} (the network itself: "
    f"{examine(model, unseen, 300)[0].mean().item():.3f})"
)
assert after < before
if budget(smoke=False, laptop=True, gpu=True):
    assert after < 0.06

# %% id="digits-drawn" tags=["static"]
drawn = draw(average, (60, 1, 16, 16), steps=budget(smoke=5, laptop=50, gpu=50), clip=1)
show(plot_pictures(drawn, columns=15), "Sixty digits that the network drew from pure noise: seed 0, nothing chosen.")

# %% [markdown] id="legible-text"
# ### Are they digits?
#
# "Looks good" is not a number. Here is a simple one. A drawn picture counts as a digit if (a) its nearest training
# picture is at most half as far away as the middle one of all (noise and blots are about equally far from everything),
# and (b) its five nearest training pictures all show the same digit. Digits that the network never saw set the scale;
# pure noise, and the mean of all digits, are the control.


# %% id="legible"
def legible(candidates):
    """Which pictures pass as digits, and which digit the nearest one is: (n,) bool, (n,) int64."""
    distance = torch.cdist(candidates.flatten(1), pictures.flatten(1))  # (n, 1440)
    nearest = distance.topk(5, largest=False)
    which = labels.to(distance.device)[nearest.indices]  # (n, 5)
    is_near = nearest.values[:, 0] <= distance.median(1).values / 2
    return is_near & (which == which[:, :1]).all(1), which[:, 0]


noise_pictures = torch.randn(60, 1, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
mean_picture = pictures.mean(0, keepdim=True)
for name, candidates in [("real, unseen", unseen), ("drawn", drawn), ("noise", noise_pictures), ("mean", mean_picture)]:
    passed, which = legible(candidates)
    print(f"{name:13} {passed.float().mean():4.0%} pass; of each digit: {torch.bincount(which, minlength=10).tolist()}")
if budget(smoke=False, laptop=True, gpu=True):
    assert legible(drawn)[0].float().mean() > 0.4 and len(legible(drawn)[1].unique()) >= 8

# %% [markdown] id="package-text"
# ### The package's loop
#
# Later chapters train with `course_utils.training.train`. It is your loop, plus what long trainings need: a warm-up and
# decay of $\eta$, checkpoints, resuming, several GPUs. Its random numbers are a function of (seed, step, sample), so
# that a stopped run goes on as if nothing had happened. With the same numbers, written out by hand:

# %% id="package"
import numpy

from course_utils.diffusion.objectives import uniform_times
from course_utils.training import Samples, learning_rate_at, train


def point_loss(model, samples):
    """The loss of one batch; data, times and noise all follow from the samples' own numbers."""
    x0 = moons[samples.integers(len(moons)).to(device)]
    t = uniform_times(samples.uniforms(stream=1), T).to(device)
    eps = samples.normals(2, stream=2).to(device)
    return noise_prediction_loss(model(add_noise(x0, eps, t, alpha_bar), t), eps).mean()


ours = PointNet().to(device)
theirs = copy.deepcopy(ours)
records = list(train(theirs, point_loss, steps=5, batch=16, warmup=2))

# %% id="package-equal"
optimizer = torch.optim.AdamW(ours.parameters(), betas=(0.9, 0.99), weight_decay=0)
for step in range(5):
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(step, 5, 1e-3, warmup=2)
    loss = point_loss(ours, Samples(step * 16 + numpy.arange(16), seed=0))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(ours.parameters(), 1.0)
    optimizer.step()
    assert abs(loss.item() - records[step].loss) < 1e-5
assert all(torch.allclose(p, q, atol=1e-6) for p, q in zip(ours.parameters(), theirs.parameters()))

# %% [markdown] id="by-time-text"
# ## 6 · The loss at each noise level
#
# One number for a thousand levels hides a lot. `examine` kept a loss for each question, together with its time. Sort
# them into bins of time and average within each bin: bin $b$ holds the times with
# $\lfloor t \cdot \text{bins} / T \rfloor = b$, where $\lfloor\cdot\rfloor$ cuts off what follows the point.
#
# **Predict first:** at which end is the loss larger, where there is hardly any noise ($t \approx 0$) or hardly any
# picture ($t \approx T$)?
#
# ### Exercise 5 · The mean loss in each bin
#
# ●●●○○ · 15 minutes. A bin without samples has no mean: leave it NaN, and a plot leaves a gap. `bins` need not divide
# `T`. An example: losses 1, 2 and 6 at the times 0, 4 and 9, with `T = 10` and `bins = 2`, give 1.5 and 6.


# %% id="ex-by-time"
def loss_by_time(losses, t, T, bins):
    """The mean loss in each of `bins` equal stretches of 0 ... T-1: (n,), (n,) -> (bins,); NaN where there is none."""
    ### BEGIN SOLUTION
    place = t * bins // T  # the bin of each sample
    return torch.stack([losses[place == b].mean() for b in range(bins)])
    ### END SOLUTION


# %% id="check-by-time"
loss_by_time = check("06.loss_by_time", loss_by_time)

# %% [markdown] id="by-time-plot-text"
# We plot our network on training digits and on unseen ones, and two answers that need no training, for comparison:
#
# * **the lazy answer** "nearly everything I see is noise": $\hat\varepsilon = \sqrt{1-\bar\alpha_t}\;x_t$;
# * **the know-all**: `best_x0` with the training digits. It believes that no others exist.


# %% id="by-time-plot" tags=["static"]
def lazy(x_t, t):
    """Call x_t itself the noise, scaled as it would be if there were no picture."""
    return expand_like((1 - alpha_bar[t]).sqrt(), x_t) * x_t


know_all = best_model(pictures)
curves = {
    "lazy answer": (lazy, unseen),
    "network, unseen digits": (average, unseen),
    "network, training digits": (average, pictures),
    "know-all, unseen digits": (know_all, unseen),
    "know-all, training digits": (know_all, pictures),
}
figure, ax = plt.subplots(figsize=(7, 4))
by_time = {}
for name, (answer, data) in curves.items():
    by_time[name] = loss_by_time(*examine(answer, data, budget(smoke=100, laptop=1000, gpu=4000)), T, 20).cpu()
    ax.semilogy(torch.arange(20) * 50 + 25, by_time[name], label=name)
ax.set(xlabel="time $t$", ylabel="loss", ylim=(5e-4, 3))
ax.legend(fontsize=9)
show(
    figure,
    "Loss against time. The network's two curves lie on each other, far below the lazy answer until they meet "
    "it at the noisy end. The know-all's loss on training digits is almost 0 in weak noise; on unseen ones it shoots "
    "up there, far above the network's.",
)

# %% id="by-time-print"
print("mean loss for t in   " + "".join(f"{50 * b:>5}-{50 * b + 49:<4}" for b in (0, 2, 6, 10, 14, 19)))
for name, curve in by_time.items():
    print(f"{name:27}" + "".join(f"{curve[b].item():<10.4f}" for b in (0, 2, 6, 10, 14, 19)))

# %% [markdown] id="by-time-read"
# Read it slowly.
#
# * **The loss is largest where the task is dullest.** At $t \approx 0$ there is so little noise that finding it is
#   hard, and finding it changes next to nothing. At $t \approx T$ even the lazy answer is nearly right.
# * So a small loss is no achievement in itself. Compare it with the lazy answer: at the noisy end hardly anything is
#   left to win, the network earns its living before. That is the case for visiting the middle more often.

# %% [markdown] id="by-time-copyist"
# **A perfect student would be a copyist.** The know-all *is* the floor on the training digits, and in weak noise it
# fails on unseen ones: it sees a training digit in everything. Our network does as well on unseen digits as on its
# own. It falls short of the floor, and *that* is why it can draw digits that nobody wrote.

# %% [markdown] id="blot-text"
# ## 7 · The ink blot
#
# The network's answer $\hat\varepsilon$ implies a whole picture: turn $x_t = \sqrt{\bar\alpha_t}\,x_0 +
# \sqrt{1-\bar\alpha_t}\,\varepsilon$ around, with $\hat\varepsilon$ in the place of $\varepsilon$:
#
# $$\hat x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\;\hat\varepsilon}{\sqrt{\bar\alpha_t}}$$
#
# $\hat x_0$ is the picture that the network believes to be behind the noise: denoising in a single step.
#
# ### Exercise 6 · From the noise to the picture
#
# ●●○○○ · 10 minutes. Each sample of the batch has its own $t$; `expand_like` gives one number for each sample the
# shape that it needs, for pictures and for points. A test: for `x_t = add_noise(x0, eps, t, alpha_bar)` it returns `x0`.


# %% id="ex-x0"
def x0_from_eps(x_t, eps, t, alpha_bar):
    """x0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t); x_t, eps, x0: (batch, ...), t: (batch,)."""
    ### BEGIN SOLUTION
    a = expand_like(alpha_bar[t], x_t)
    return (x_t - (1 - a).sqrt() * eps) / a.sqrt()
    ### END SOLUTION


# %% id="check-x0"
x0_from_eps = check("06.x0_from_eps", x0_from_eps)

# %% [markdown] id="x0-equal-text"
# By hand (section 1), as your function, in the package, and in diffusers, whose scheduler calls it
# `pred_original_sample`: all the same.

# %% id="x0-equal"
from diffusers import DDIMScheduler

x0, t = pictures[3:4], torch.tensor([300], device=device)
eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(device)
x_t = add_noise(x0, eps, t, alpha_bar)
scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
scheduler.set_timesteps(T)
library = scheduler.step(eps.cpu(), 300, x_t.cpu()).pred_original_sample
assert torch.allclose(x0_from_eps(x_t, eps, t, alpha_bar).cpu(), library, atol=1e-5)
assert torch.allclose(objectives.x0_from_eps(x_t, eps, t, alpha_bar), undone, atol=1e-5)

# %% [markdown] id="blot-question"
# Now one digit that the network has never seen, in ever stronger noise, always with the same $\varepsilon$.
#
# **Predict first.** The guess from $t = 900$ uses a well-trained network. Will it be a wrong digit? A noisy one?
# Something else?

# %% id="blot" tags=["static"]
levels = torch.tensor([50, 200, 400, 550, 700, 800, 900, 999], device=device)
x0 = unseen[7:8].expand(len(levels), -1, -1, -1)
eps = torch.randn(unseen[:1].shape, generator=torch.Generator().manual_seed(4)).to(device).expand_as(x0)
x_t = add_noise(x0, eps, levels, alpha_bar)
with torch.no_grad():
    guess = x0_from_eps(x_t, average(x_t, levels), levels, alpha_bar)
titles = [f"t = {level}" for level in levels.tolist()] + [""] * len(levels)
show(
    plot_pictures(torch.cat([x_t, guess]), titles, columns=len(levels)),
    "Upper row: one digit in ever stronger noise. Lower row: the network's guesses in one step, sharp at first, then "
    "softer, at last a grey blot in the middle.",
)

# %% [markdown] id="blot-why"
# An ink blot. It is *not* a lack of training, and here is the proof, in two steps.
#
# **The cheapest answer is the average.** Someone sees $x_t$ and answers $a$. Let $m = \mathbb{E}[x_0 \mid x_t]$ be the
# average of all $x_0$ that could be behind this $x_t$. Then, since the mixed term averages to zero,
#
# $$\mathbb{E}\bigl[\|x_0 - a\|^2 \mid x_t\bigr] = \mathbb{E}\bigl[\|x_0 - m\|^2 \mid x_t\bigr] + \|m - a\|^2$$
#
# The first part nobody can change: it is the floor. The second is least for $a = m$. Since $\hat\varepsilon$ and
# $\hat x_0$ are two ways of saying one thing, the best $\hat\varepsilon$ leads to that same $\hat x_0 = m$.

# %% [markdown] id="average-text"
# **The average can be written down.** Of a finite data set $x_1, \dots, x_n$, each could have made $x_t$, with noise
# just right. Noise is normal, so by Bayes' rule the probability that it was $x_i$ is
#
# $$w_i = \frac{\exp\bigl(-\|x_t - \sqrt{\bar\alpha_t}\,x_i\|^2 \,/\, 2(1-\bar\alpha_t)\bigr)}
#   {\sum_j \exp\bigl(-\|x_t - \sqrt{\bar\alpha_t}\,x_j\|^2 \,/\, 2(1-\bar\alpha_t)\bigr)},
#   \qquad \mathbb{E}[x_0 \mid x_t] = \sum_i w_i\,x_i$$
#
# In words: the closer a dimmed picture comes to what is seen, the more it counts; the fraction makes the weights add
# up to 1. That is a softmax. In strong noise, $1-\bar\alpha_t$ is large, all weights become alike, and the sum is a
# blur of many pictures. By hand:

# %% id="average"
from course_utils.diffusion.objectives import posterior_weights


def weights_by_hand(x_t, t, data):
    """The probability of each x_i of the data, for one x_t: (1, ...), a whole number, (n, ...) -> (n,)."""
    a = alpha_bar[t]
    distance = (x_t - a.sqrt() * data).flatten(1).square().sum(1)  # (n,)
    return torch.softmax(-distance / (2 * (1 - a)), dim=0)


w = weights_by_hand(x_t[3:4], 550, pictures)
assert torch.allclose(w, posterior_weights(x_t[3:4], levels[3:4], alpha_bar, pictures)[0], atol=1e-4)
print(f"{len(w)} weights, sum {w.sum():.3f}, largest {w.max():.3f}; {(w > 0.001).sum()} are above 0.001")

# %% [markdown] id="coin-again"
# Is that the right average? Ask the coins. For a data set of two, $+1$ and $-1$, the sum is a known function,
# $\tanh\bigl(\sqrt{\bar\alpha_t}\,x_t / (1-\bar\alpha_t)\bigr)$. Your 200,000 coins must lie on it, and they do.

# %% id="coin-again-run"
coins = torch.tensor([[-1.0], [1.0]], device=device)
for level in (100, 500, 900):
    x0, x_t_ = throw_coins(level)
    like_this = x0[(x_t_ - 0.3).abs() < 0.02]  # the coins that look like 0.3
    t = torch.tensor([level], device=device)
    formula = best_x0(torch.tensor([[0.3]], device=device), t, alpha_bar, coins).item()
    a = alpha_bar[level]
    print(f"t = {level}: {len(like_this):5} coins, average {like_this.mean():+.3f}; formula {formula:+.3f}")
    assert abs(formula - torch.tanh(a.sqrt() * 0.3 / (1 - a)).item()) < 1e-4
    assert abs(like_this.mean().item() - formula) < 0.05

# %% [markdown] id="compare-text"
# Now the digits. Below the network's guesses stands the exact average of the 1,440 training digits, and below that
# the single training digit with the largest weight.

# %% id="compare" tags=["static"]
weights = posterior_weights(x_t, levels, alpha_bar, pictures)  # (8, 1440)
exact = best_x0(x_t, levels, alpha_bar, pictures)
top = weights.max(1)
titles = [f"t = {level}" for level in levels.tolist()] + [""] * 8 + [f"{share:.0%}" for share in top.values.tolist()]
show(
    plot_pictures(torch.cat([guess, exact, pictures[top.indices]]), titles, columns=8),
    "Top: the network's guesses. Middle: the exact average, a sharp digit at small t and a grey blot at large t. "
    "Bottom: the likeliest training digit and its share of the weight, large at small t and nearly 0 at large t.",
)
near = [torch.corrcoef(torch.stack([guess[i].flatten(), exact[i].flatten()]))[0, 1].item() for i in range(8)]
print("correlation of guess and exact average:", " ".join(f"{value:.2f}" for value in near))
if budget(smoke=False, laptop=True, gpu=True):
    assert min(near[4:7]) > 0.7

# %% [markdown] id="compare-read"
# The blots agree. So the blot is not the network's weakness but the right answer to an impossible question. (Where the
# network's is speckled, at the far right, its small errors in $\hat\varepsilon$ are magnified, up to 15 times: the
# price named in section 1.)
#
# It also tells why one step does not make a picture: the average of many digits is not a digit. A sampler goes only a
# *little* way towards the blot, looks again, and so chooses one of the many, step by step. That is chapter 07.
#
# **Predict, then move the slider:** at which $t$ does the average start to be one single training picture? Is the
# network there at the same time?

# %% id="filmstrip" tags=["static"]
from course_utils.widgets import explore, filmstrip, ink_blot_explorer

explorer = ink_blot_explorer(average, pictures, alpha_bar)
filmstrip(explorer, [{"t": level} for level in (200, 500, 700, 900)])

# %% [markdown] id="explore-how"
# Live: choose a picture and a noise, and move $t$.

# %% id="explore"
explore(explorer)

# %% [markdown] id="elsewhere"
# ## 8 · What you will read elsewhere
#
# **"The network predicts the noise that was added in the last step."** No: *all* the noise in $x_t$. Training jumps
# straight to $t$, and there is no last step in it. Here we walk to $t - 1$, take one more step with fresh noise
# $z$, and ask the network.

# %% id="last-step"
from course_utils.diffusion.schedules import forward_step

level = 500
t = torch.full((300,), level, device=device)
generator = torch.Generator().manual_seed(0)
early, z = (torch.randn(unseen[:300].shape, generator=generator).to(device) for _ in range(2))
x_t = forward_step(add_noise(unseen[:300], early, t - 1, alpha_bar), z, scaled_linear_beta(T)[level].item())
total = eps_from_x0(x_t, unseen[:300], t, alpha_bar)  # all the noise in x_t
with torch.no_grad():
    eps_hat = average(x_t, t)
with_total, with_last = (torch.corrcoef(torch.stack([eps_hat.flatten(), n.flatten()]))[0, 1].item() for n in (total, z))
print(f"correlation of the answer with all the noise {with_total:.2f}, with that of the last step {with_last:.2f}")
assert with_total > with_last

# %% [markdown] id="one-network"
# **"There is one network for each step."** One network has just been used at every level, with $t$ as an input. A
# thousand of them would be a thousand times the parameters, each seeing a thousandth of the training.
#
# **"The loss is the negative log-likelihood."** It is a *bound* on it with its weights taken away: section 3.
#
# **"When the loss goes down, the samples get better."** Often, not always. Let the know-all of section 6 draw. Its loss
# on unseen digits is several times that of our network. **Predict first:** what will its digits look like?

# %% id="copyist" tags=["static"]
rows, results = [], {}
for name, answer in [("network", average), ("know-all", know_all)]:
    loss = examine(answer, unseen)[0].mean().item()
    found = drawn if name == "network" else draw(know_all, drawn.shape, clip=1)
    copies = torch.cdist(found.flatten(1), pictures.flatten(1)).min(1).values < 0.5  # of up to 32: hardly to be seen
    results[name] = loss, legible(found)[0].float().mean().item(), copies.float().mean().item()
    rows.append(found[:12])
    print("{:8} loss {:.3f}, legible {:.0%}, copies of a training picture {:.0%}".format(name, *results[name]))
show(
    plot_pictures(torch.cat(rows), columns=12),
    "Twelve digits each. Top: drawn by our network. Bottom: drawn by the "
    "know-all, all real digits. In several columns it is the same digit.",
)

# %% [markdown] id="copyist-read"
# The know-all has by far the larger loss and the more legible digits, since each is a training picture, to the pixel.
# And our network, which loses on legibility, is the only one of the two that draws anything new. The loss asks: how
# well do you see noise in *these* pictures? What samples are worth is another question; chapter 15 is about it.
#
# Look along the columns, too. Both started from the same noise and drew the same random numbers, and now and then they
# come to the same digit: two very different answerers of one question.

# %% id="copyist-assert"
if budget(smoke=False, laptop=True, gpu=True):
    assert results["know-all"][0] > 2 * results["network"][0] and results["know-all"][1] > results["network"][1]
    assert results["know-all"][2] > 0.9 and results["network"][2] < 0.1

# %% [markdown] id="sum-or-mean"
# **"Sum or mean over the pixels, that is only a constant."** A constant that multiplies the gradient, and so the
# learning rate $\eta$. Here the same plain gradient descent, $\eta = 0.1$, for twenty updates on batches of 64 digits,
# with a network that is a single linear layer:


# %% id="sum-or-mean-run"
class Linear(torch.nn.Module):
    """eps_hat = A x_t + b, the same for all times."""

    def __init__(self, d):
        super().__init__()
        self.layer = torch.nn.Linear(d, d)

    def forward(self, x_t, t, cond=None):
        return self.layer(x_t.flatten(1)).reshape(x_t.shape)


# %% id="sum-or-mean-loop"
for size in (8, 16, 32):
    for name, factor in (("mean", 1), ("sum", size * size)):
        torch.manual_seed(0)
        small, generator = Linear(size * size), torch.Generator().manual_seed(0)
        x0, losses = digits.load(size)[0], []
        for step in range(20):
            loss = factor * training_step(small, x0[step * 64 : step * 64 + 64], alpha_bar.cpu(), generator)
            for p, gradient in zip(small.parameters(), torch.autograd.grad(loss, list(small.parameters()))):
                p.data -= 0.1 * gradient
            losses.append(loss.item() / factor)
        print(f"{size:2} x {size:<2} {name:4}: mean squared error {losses[0]:.2f} -> {losses[-1]:.3g}")

# %% [markdown] id="sum-or-mean-read"
# With the mean, the same $\eta$ works at every size. With the sum, each size needs another one, and this one is far too
# large: each step overshoots, the next corrects too much, and the loss explodes. It is also what a too large $\eta$
# looks like in any training. (Adam hides the difference, since it divides by the gradient's size; clipping does not.)

# %% [markdown] id="own-text"
# ## 9 · Your own pictures
#
# The loop asks of the data one thing: a tensor of pictures in $[-1, 1]$. Put the path of a folder of yours in the
# place of `None`. PNG, JPEG and others are read, cut square and resized. Until then the notebook makes a folder of its
# own, with two dozen pictures from the picture book.

# %% id="own-folder" tags=["static"]
import tempfile
from pathlib import Path

from course_utils.data import folder, picture_book

MY_FOLDER = None  # for example "~/Pictures/cats"; a few hundred pictures are a good start

with tempfile.TemporaryDirectory(prefix="pictures_", dir=".") as made:
    for number in range(24):
        picture_book.draw(picture_book.sample_scene(number)).save(Path(made) / f"{number:02}.png")
    own = folder.load(MY_FOLDER or Path(made).name, size=32)
mine = own.pictures.to(device)
show(plot_pictures(mine[:12], columns=12), "The first twelve pictures of the folder, 32 pixels a side.")

# %% id="own-train"
own_model = PictureUNet(channels=3, size=32, widths=(16, 32, 32)).to(device)
own_average = copy.deepcopy(own_model).requires_grad_(False)
before = examine(own_model, mine, 50)[0].mean().item()
steps = budget(smoke=8, laptop=40, gpu=2000)
for _ in tqdm(fit(own_model, own_average, mine, steps, batch=16), total=steps):
    pass
after = examine(own_average, mine, 50)[0].mean().item()
print(f"{len(mine)} pictures of {tuple(mine.shape[1:])}: loss before {before:.3f}, after {after:.3f}")
assert after < before

# %% [markdown] id="own-read"
# These few steps only show that it runs. For pictures worth looking at give it some thousands, best on a GPU; then
# `draw(own_average, (16, 3, 32, 32), clip=1)`. Larger pictures get dear quickly, and chapter 09 helps.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $t \sim$ uniform on $0 \dots T-1$ | `t = sample_times(len(x0), T, generator)` |
# | $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$ | `x_t = add_noise(x0, eps, t, alpha_bar)` |
# | $\tfrac1d\lVert\varepsilon - \varepsilon_\theta(x_t, t)\rVert^2$ | `noise_prediction_loss(model(x_t, t), eps)` |
# | $\bar\theta \leftarrow m\,\bar\theta + (1-m)\,\theta$ | `ema_update(average, model, decay)` |
# | $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\hat\varepsilon)/\sqrt{\bar\alpha_t}$ | `x0_from_eps(x_t, eps_hat, t, …)` |
# | $\mathbb{E}[x_0 \mid x_t] = \sum_i w_i x_i$ | `best_x0(x_t, t, alpha_bar, data)` |
#
# Five sentences to keep: The network says how much of what it sees is noise. A loss of 1 is ignorance, and the floor is
# not 0. The best answer is an average; in strong noise it is a blot. Tell the network the time. Draw with the average
# weights.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. A colleague's network has a loss of 0.4 on 2-D points, another's has 0.04 on photographs. Which
# one is better trained?</summary>
# One cannot tell. The floor differs between data sets: neighbouring pixels of a photograph tell much about each other,
# two coordinates do not. Compare each with its own floor, or with the lazy answer.
# </details>
# <details><summary>2. You train on a single picture, and the loss stays at 1. Name three bugs that do this.</summary>
# Noise drawn anew for the loss, so that it is not the noise in x_t: then the best answer is 0. An optimiser that was
# given another model's parameters. A zero_grad() between backward() and step(): all gradients are 0.
# </details>
# <details><summary>3. The know-all has the lowest loss there is. Why does nobody use it to draw?</summary>
# It draws training pictures and nothing else, as you have seen. What a network cannot learn
# exactly it must smooth over, and in that lies everything new that it draws.
# </details>
#
# **Papers** DDPM: Ho, Jain, Abbeel, [arXiv:2006.11239](https://arxiv.org/abs/2006.11239) (algorithm 1 is your loop;
# section 3.4 drops the weights). Where the bound was first used: Sohl-Dickstein et al.,
# [arXiv:1503.03585](https://arxiv.org/abs/1503.03585). The best denoiser is an average, in pictures: Karras et al.,
# [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), appendix B. What weights over $t$ do: Kingma and Gao,
# [arXiv:2303.00848](https://arxiv.org/abs/2303.00848). Logit-normal times: Esser et al.,
# [arXiv:2403.03206](https://arxiv.org/abs/2403.03206).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: which times teach most?
#
# Change `sample_times` so that it visits the middle more often: `logit_normal_times(torch.randn(count), T)` from
# `course_utils.diffusion.objectives` is one line. Train again, and compare `loss_by_time` of both networks. Which levels gained,
# which lost? Then ask `legible`, not the loss, which network you prefer.
