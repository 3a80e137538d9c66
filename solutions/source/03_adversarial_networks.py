# %% [markdown] id="title"
# # 03 · Adversarial networks
#
# A forger makes pictures. An expert tells forgeries from real ones, and says so. The forger never sees a real picture,
# only what the expert makes of each of its own. Both learn, each from the other: that is a *generative adversarial
# network*, a GAN.
#
# ![Three rows of digits: real ones, sharp ones drawn by a GAN, and blurred ones drawn by a variational autoencoder
# with the same decoder.](../chapters/figures/03_sharp_and_blurred.png)
#
# **After this chapter you can**
# 1. write both losses and the two updates, and test each against a closed form;
# 2. say what the best discriminator answers, and what its loss then measures;
# 3. provoke mode collapse, count it, cure it, and explain why the loss curves never told you.
#
# **Time** about three hours, one of them for seven exercises. All training together takes about four minutes of
# processor time.
# **You need** from chapter 02: what a latent $z$ is, and why a squared error blurs. Given now, built in chapter 15: a
# distance between sets of pictures (FID).

# %% id="set-up"
import matplotlib.pyplot as plt
import torch

from course_utils.data import digits, picture_book, points
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.plotting import LivePlot, plot_pictures, plot_points, show, smooth, use_style

use_style()
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $x$ | `x` | real samples: numbers, points, pictures | (batch, ...) |
# | $z$ | `z` | standard normal numbers, the forger's dice | (batch, latent) |
# | $G(z)$ | `fake = G(z)` | what the generator (the forger) makes of them | as `x` |
# | $a$ | `logits = D(x)` | the discriminator's (the expert's) answer, any number | (batch,) |
# | $D(x) = \sigma(a)$ | `torch.sigmoid(D(x))` | how sure it is that $x$ is real, 0 to 1 | (batch,) |
# | $p_\text{data}$, $p_g$ | `p_data`, `p_g` | the density of real samples, and of the generator's | |
# | $V$ | | the value of the game: $D$ wants it high, $G$ low | a number |
# | $L_D$, $L_G$ | | what each of the two lowers | a number |
# | $\gamma$ | `gamma` | the weight of a penalty (section 5) | a number |

# %% [markdown] id="logit-or-probability"
# The logistic function $\sigma(a) = 1/(1+e^{-a})$ turns a logit into a probability. In formulas $D$ is the
# probability; **in code `D(x)` is the logit**, and section 2 says why. Losses are in nats.

# %% [markdown] id="toy"
# ## The expert at the market
#
# An expert sees one number after the other. Half of them are real, drawn from $N(0, 1)$. Half are forged, drawn from
# $N(2, 0.7^2)$. For each it must name a probability that it is real.
#
# **Predict first.** The number is 1.3. What should the expert say? What far to the right, at 4? And can *any* expert
# be right always?
#
# No formula. Take 200,000 of each, sort them by what is seen, and look at the share of the real ones.

# %% id="toy-count" tags=["static"]
generator = torch.Generator().manual_seed(3)
real = torch.randn(200_000, generator=generator)
fake = 2 + 0.7 * torch.randn(200_000, generator=generator)

edges = torch.linspace(-3, 4.5, 61)
middles = (edges[1:] + edges[:-1]) / 2
count_real, count_fake = (torch.histogram(v, edges).hist for v in (real, fake))
share = count_real / (count_real + count_fake)

figure, ax = plt.subplots(figsize=(6.4, 3))
ax.stairs(count_real / 25_000, edges, fill=True, color="#0072B2", alpha=0.35, label="real")
ax.stairs(count_fake / 25_000, edges, fill=True, color="#D55E00", alpha=0.35, label="forged")
ax.plot(middles, share, ".", color="black", label="share of the real")
ax.axvline(1.3, color="#777777", linestyle=":", linewidth=1)
ax.set(xlabel="the number x", ylabel="share; counts to scale")
ax.legend(fontsize=8)
show(
    figure,
    "Two overlapping hills of numbers, real ones left, forged ones right; the share of the real falls from 1 "
    "on the left to 0 on the right.",
)
print(f"near 1.3 the share of the real is {share[(middles - 1.3).abs().argmin()]:.2f}")

# %% [markdown] id="toy-read"
# The best expert says the share of the real, place by place. Where both hills overlap nobody can be sure. Now turn it
# round. If the forger moves its hill to the left until both lie on each other, the share is 1/2 everywhere, and the
# best expert in the world throws a coin. *That* is the forger's aim, and it needs nothing but the expert's answers.
#
# Why go to this trouble? Chapter 02 compared pictures by squared error, and the cheapest answer to a squared error is
# an average: a blur. An expert who has seen real pictures recognises a blur at once. Here the loss itself is learned.

# %% [markdown] id="best-text"
# ## 1 · The game, and its best expert
#
# $$\min_G \max_D \; V, \qquad V = \mathbb{E}_{x \sim p_\text{data}}\bigl[\log D(x)\bigr]
#   + \mathbb{E}_{z}\bigl[\log\bigl(1 - D(G(z))\bigr)\bigr]$$
#
# $\mathbb{E}$ is an average: over real samples $x$, and over the dice $z$. $\log D(x)$ is 0 if the expert is sure that
# a real $x$ is real, and very negative if it is sure of the opposite; the second term does the same for forgeries. $D$
# wants $V$ high, $G$ wants it low: a *minimax game*.

# %% [markdown] id="best-ex-text"
# For a fixed $G$, at one place $x$, the expert collects $p_\text{data}\log D + p_g\log(1-D)$. The derivative by $D$ is
# $p_\text{data}/D - p_g/(1-D)$, which is 0 where $D$ is the share that you have just counted.
#
# ### Exercise 1 · The best discriminator
#
# ●○○○○ · 5 minutes. From the two densities at the same places. Only their ratio counts, so the answer must be right for
# tiny densities too.


# %% id="ex-best"
def optimal_discriminator(p_data, p_g):
    """D*(x) = p_data(x) / (p_data(x) + p_g(x)), place by place; all of one shape."""
    ### BEGIN SOLUTION
    #: the real that fall here, over all that fall here
    return p_data / (p_data + p_g)
    ### END SOLUTION


# %% id="check-best"
optimal_discriminator = check("03.optimal_discriminator", optimal_discriminator)
# Stuck? hint("03.optimal_discriminator") gives a hint, and one more each time; solution(...) is the last resort.

# %% [markdown] id="loss-text"
# ## 2 · The expert's loss
#
# An optimiser lowers, so $D$ gets $-V$ as its loss. And a computer should never form $\log D$ from $D$:

# %% id="overflow"
a = torch.tensor([-1.0, -20.0, -120.0])  # logits: ever surer that it is a forgery
print("D            ", torch.sigmoid(a).tolist())
print("log(1 - D(-a))", (1 - torch.sigmoid(-a)).log().tolist())
print("softplus      ", (-torch.nn.functional.softplus(-a)).tolist())

# %% [markdown] id="overflow-read"
# Each line after the first should hold the same three numbers. But float32 rounds $\sigma(20)$ to 1, and the logarithm
# of 0 is minus infinity: the loss is gone, and its gradient too. So the network gives the logit $a$, and we go to
# the loss in one step:
#
# $$-\log \sigma(a) = \log(1 + e^{-a}) = \text{softplus}(-a), \qquad -\log(1 - \sigma(a)) = \text{softplus}(a)$$
#
# With $a_x$ for the logit of a real sample and $a_{G(z)}$ for that of a fake one,
#
# $$L_D = \mathbb{E}\bigl[\text{softplus}(-a_x)\bigr] + \mathbb{E}\bigl[\text{softplus}(a_{G(z)})\bigr]$$
#
# ### Exercise 2 · The discriminator's loss
#
# ●●○○○ · 10 minutes. `torch.nn.functional.softplus` is safe at any logit. Return a tensor of shape (), not a Python
# number: gradients must come back to both logits. The two batches may differ in size.

# %% id="ex-d-loss"
from torch.nn.functional import softplus


def discriminator_loss(real_logits, fake_logits):
    """Mean of -log D(x) plus mean of -log(1 - D(G(z))), from logits (batch,) each; a tensor of shape ()."""
    ### BEGIN SOLUTION
    #: what the real samples cost: little where the logit is high
    of_real = softplus(-real_logits).mean()
    #: what the fakes cost: little where the logit is low
    of_fake = softplus(fake_logits).mean()
    #: their sum
    return of_real + of_fake
    ### END SOLUTION


# %% id="check-d-loss"
discriminator_loss = check("03.discriminator_loss", discriminator_loss)

# %% [markdown] id="d-equal-text"
# By hand, as your function, in the package, and in torch, where it is called binary cross-entropy with logits:

# %% id="d-equal"
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from course_utils.models import adversarial

real_logits, fake_logits = torch.tensor([1.2, -0.3]), torch.tensor([0.4, -2.0])
by_hand = (-torch.sigmoid(real_logits).log() - (1 - torch.sigmoid(fake_logits)).log()).mean()
library = cross_entropy(real_logits, torch.ones(2)) + cross_entropy(fake_logits, torch.zeros(2))
for loss in (discriminator_loss, adversarial.discriminator_loss):
    assert torch.allclose(loss(real_logits, fake_logits), by_hand) and torch.allclose(by_hand, library)
print(f"L_D {by_hand:.4f}; two coins would cost {discriminator_loss(torch.zeros(2), torch.zeros(2)):.4f} = 2 log 2")

# %% [markdown] id="learned-text"
# ### Does a network find the best expert?
#
# The formula needs both densities. A network has only samples: numbers with their labels. Train a small one on the
# market of above, with your loss, and compare.

# %% id="learned-train"
import math


def expert(width=32):
    """A network from a number (batch, 1) to a logit (batch,)."""
    layers = [torch.nn.Linear(1, width), torch.nn.Tanh(), torch.nn.Linear(width, width), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 1), torch.nn.Flatten(0))


torch.manual_seed(0)
D = expert()
optimizer = torch.optim.Adam(D.parameters(), lr=1e-2)
before = discriminator_loss(D(real[:5000, None]), D(fake[:5000, None])).item()
live = LivePlot("The expert's loss falls from that of a coin to a floor which no expert can pass.")
for step in range(1, budget(smoke=60, laptop=500, gpu=500) + 1):
    now = torch.randint(200_000, (512,), generator=generator)
    loss = discriminator_loss(D(real[now, None]), D(fake[now, None]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    live.update(step, loss.item())
live.finish()
after = discriminator_loss(D(real[:5000, None]), D(fake[:5000, None])).item()
assert after < before


# %% id="learned-plot" tags=["static"]
def normal(x, mean, std):
    """The density of N(mean, std^2) at x."""
    return torch.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))


x = torch.linspace(-5, 7, 2401)
p_data, p_g = normal(x, 0, 1), normal(x, 2, 0.7)
best = optimal_discriminator(p_data, p_g)
with torch.no_grad():
    learned = torch.sigmoid(D(x[:, None]))

figure, ax = plt.subplots(figsize=(6.4, 3))
ax.fill_between(x, p_data, color="#0072B2", alpha=0.3, label="$p_{data}$")
ax.fill_between(x, p_g, color="#D55E00", alpha=0.3, label="$p_g$")
ax.plot(x, best, "--", color="black", label="$D^*$, the formula")
ax.plot(x, learned, "-", color="#009E73", label="D, learned")
ax.set(xlabel="x", xlim=(-4, 5.5))
ax.legend(fontsize=8)
show(figure, "The learned discriminator lies on the formula wherever there are samples.")
gap = ((learned - best).abs() * (p_data + p_g) / 2).sum() * (x[1] - x[0])
print(f"mean distance of the learned D from the formula, over all samples: {gap:.3f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert gap < 0.02

# %% [markdown] id="jsd-text"
# ### What its loss measures
#
# Put $D^*$ into $V$ and something known comes out:
#
# $$V(D^*) = \int p_\text{data} \log\frac{p_\text{data}}{p_\text{data} + p_g}
#   + p_g \log \frac{p_g}{p_\text{data} + p_g} \; dx \;=\; 2\,\text{JSD}(p_\text{data}, p_g) - \log 4$$
#
# JSD is the *Jensen–Shannon divergence*: the mean of two Kullback–Leibler divergences (chapter 02), from each density
# to the average $m = (p_\text{data}+p_g)/2$ of both. It is 0 for equal densities and at most $\log 2$. So the floor of
# $L_D$ is $\log 4 - 2\,\text{JSD}$: a good expert's loss *tells how far the forger is*. Check it in three ways.

# %% id="jsd"
from scipy.spatial.distance import jensenshannon

dx = x[1] - x[0]
other = optimal_discriminator(p_g, p_data)  # 1 - D*, which float32 would round to 0 where D* is nearly 1
value = ((p_data * best.log() + p_g * other.log()) * dx).sum()
mean = (p_data + p_g) / 2
jsd = sum((p * (p / mean).log()).nan_to_num(0).sum() * dx for p in (p_data, p_g)) / 2
print(f"V(D*) by the integral        {value:.4f}")
print(f"2 JSD - log 4, by definition {2 * jsd - math.log(4):.4f}")
print(f"2 JSD - log 4, by scipy      {2 * jensenshannon(p_data, p_g) ** 2 - math.log(4):.4f}")
print(f"minus the learned D's loss   {-after:.4f}")
assert abs(value - (2 * jsd - math.log(4))) < 1e-3 and abs(2 * jensenshannon(p_data, p_g) ** 2 - 2 * jsd) < 1e-3

# %% [markdown] id="explore-best-text"
# **Predict first.** The forger's hill gets the right place, but stays too narrow. Where does the best expert then say
# "real"? Three settings; below them the live one.

# %% id="film-best" tags=["static"]
from course_utils.widgets import best_judge_explorer, explore, filmstrip, game_explorer, latent_walk_explorer

judge = best_judge_explorer()
filmstrip(judge, [{"mean": 3.0}, {"mean": 0.0, "spread": 0.5}, {"mean": 0.0, "spread": 1.0}])

# %% id="explore-best"
explore(judge)

# %% [markdown] id="g-loss-text"
# ## 3 · The forger's loss
#
# By the game $G$ lowers $\log(1 - D(G(z)))$. Look what that means at the beginning. The forger is bad, and the expert
# is sure, $D(G(z)) \approx 0$. There the curve is flat:

# %% id="slopes" tags=["static"]
a = torch.linspace(-8, 4, 241, requires_grad=True)
saturating, other = -softplus(a), softplus(-a)  # log(1 - D) and -log D
slopes = [torch.autograd.grad(curve.sum(), a)[0] for curve in (saturating, other)]

figure, panels = plt.subplots(1, 2, figsize=(9, 3))
for name, curve, slope, style in (
    ("saturating, $\\log(1-D)$", saturating, slopes[0], "--"),
    ("non-saturating, $-\\log D$", other, slopes[1], "-"),
):
    panels[0].plot(a.detach(), curve.detach(), style, label=name)
    panels[1].plot(a.detach(), slope, style, label=name)
for ax, label in zip(panels, ("loss of G", "its slope")):
    ax.axvspan(-8, -4, color="#777777", alpha=0.2, linewidth=0)
    ax.set(xlabel="logit $a$ of a fake", ylabel=label, xlim=(-8, 4))
panels[0].legend(fontsize=8)
show(
    figure,
    "Two losses of the generator and their slopes. In the grey zone, where D is sure of a fake, the "
    "saturating loss is flat and the other one falls with slope -1.",
)
print(f"at logit -6, D = {torch.sigmoid(torch.tensor(-6.0)):.4f}: slopes {slopes[0][40]:.4f} and {slopes[1][40]:.4f}")

# %% [markdown] id="g-loss-ex-text"
# In the grey zone the expert is surest and the forger has most to learn, and there the saturating loss gives it no
# slope. Goodfellow et al. saw this at once and proposed another loss that pulls in the same direction:
#
# $$L_G = \mathbb{E}_z\bigl[-\log D(G(z))\bigr] = \mathbb{E}_z\bigl[\text{softplus}(-a_{G(z)})\bigr]$$
#
# In words: be surprised when a fake is *not* believed. Practically everyone uses it, and from now on the game is no
# longer minimax: each side has a loss of its own.
#
# ### Exercise 3 · The generator's loss
#
# ●○○○○ · 5 minutes. One line, from logits; a tensor of shape (), with gradients.


# %% id="ex-g-loss"
def generator_loss(fake_logits):
    """Mean of -log D(G(z)), from logits (batch,); a number, shape ()."""
    ### BEGIN SOLUTION
    #: what each fake costs that is not believed; the mean over the batch
    return softplus(-fake_logits).mean()
    ### END SOLUTION


# %% id="check-g-loss"
generator_loss = check("03.generator_loss", generator_loss)

# %% [markdown] id="steps-text"
# ## 4 · Taking turns
#
# One round: a step of $D$, then a step of $G$.
#
# The two networks hang together. In $D(G(z))$ the gradient of a loss flows through $D$ *and on into* $G$. In $D$'s turn
# that must not happen: the fakes are cut off by `.detach()`, which keeps the numbers and forgets where they came from.
# In $G$'s turn it must: the way to $G$ leads through $D$, but only $G$'s optimiser makes a step.
#
# ### Exercise 4 · The discriminator's turn
#
# ●●●○○ · 15 minutes. `optimizer` holds the parameters of $D$. Clear old gradients first: `backward()` adds. Return the
# loss as a tensor without its graph, `loss.detach()`: later cells call `.item()` on it. Take as many logits as $D$ gives:
# in section 6 it will judge several samples at once.


# %% id="ex-d-step"
def discriminator_step(G, D, optimizer, x, z):
    """One update of D, and of nothing else, on real samples x and fakes G(z); returns its loss before the update."""
    ### BEGIN SOLUTION
    #: fakes, cut off from G
    fake = G(z).detach()
    #: the loss of the real and the fake logits
    loss = discriminator_loss(D(x), D(fake))
    #: the three lines of every update
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    #: the number alone, without the graph that led to it
    return loss.detach()
    ### END SOLUTION


# %% id="check-d-step"
discriminator_step = check("03.discriminator_step", discriminator_step)

# %% [markdown] id="ex-g-step-text"
# ### Exercise 5 · The generator's turn
#
# ●●●○○ · 10 minutes. `optimizer` holds the parameters of $G$. No real sample is anywhere in sight. Return
# `loss.detach()` here, too, and leave $D$ as it was: neither frozen nor in another mode.


# %% id="ex-g-step"
def generator_step(G, D, optimizer, z):
    """One update of G, and of nothing else; returns its loss before the update."""
    ### BEGIN SOLUTION
    #: the loss of what D says about the fakes: nothing is detached
    loss = generator_loss(D(G(z)))
    #: the three lines of every update
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
    ### END SOLUTION


# %% id="check-g-step"
generator_step = check("03.generator_step", generator_step)

# %% [markdown] id="ring-text"
# ### A first game
#
# Eight small hills on a ring. $G$ is a network of two hidden layers that turns two random numbers into a point; $D$ is
# another one that turns a point into a logit. `G` and `D` may be anything with these shapes.
#
# `betas` are Adam's two memories. The first one, momentum, is 0.9 by default, and too much here: the opponent moves,
# and old gradients point to where it was. DCGAN's 0.5 is usual.

# %% id="ring-play"
from course_utils.models.gan import PointDiscriminator, PointGenerator


def players(seed, D=None, learning_rate=1e-3):
    """A fresh G and D (or the given D), and an optimiser for each."""
    torch.manual_seed(seed)
    G, D = PointGenerator(latent=2), D or PointDiscriminator()
    return G, D, *(torch.optim.Adam(n.parameters(), learning_rate, betas=(0.5, 0.99)) for n in (G, D))


def dice(number, generator, latent=2):
    """Standard normal numbers (number, latent)."""
    return torch.randn(number, latent, generator=generator)


ring = points.gaussian_ring(20_000, torch.Generator().manual_seed(0), spread=0.1)  # (20000, 2)
G, D, optimizer_G, optimizer_D = players(0, learning_rate=2e-3)
generator, before, losses = torch.Generator().manual_seed(0), G(dice(1000, torch.Generator().manual_seed(1))), []
for _ in range(budget(smoke=60, laptop=600, gpu=600)):
    x = ring[torch.randint(len(ring), (128,), generator=generator)]
    d_loss = discriminator_step(G, D, optimizer_D, x, dice(128, generator))
    g_loss = generator_step(G, D, optimizer_G, dice(128, generator))
    losses.append((d_loss.item(), g_loss.item()))

# %% id="ring-plot" tags=["static"]
centres = points.ring_centres(spread=0.1)


def off(samples, centres=centres):
    """How far samples lie from the nearest centre, on average."""
    return torch.cdist(samples, centres).min(1).values.mean().item()


samples = G(dice(1000, torch.Generator().manual_seed(1))).detach()
figure, panels = plt.subplots(1, 3, figsize=(9, 3))
for ax, cloud, name in zip(panels, (ring[:1000], before.detach(), samples), ("data", "G at first", "G after the game")):
    plot_points(cloud, title=f"{name}\n{off(cloud):.2f} off", reach=2.4, ax=ax).label_outer()
show(
    figure,
    "The ring of eight hills; a small blot in the middle, the first samples; and samples after the game, on "
    "all hills and on thin bridges between them.",
)
assert off(samples) < off(before.detach())

# %% [markdown] id="bridges"
# $G$ has never seen a point of the data, and found all the hills. The thin bridges between them are no accident: $G$ is
# continuous, so it cannot tear its one blot of dice into eight pieces.
#
# ### Two mistakes with `detach`, measured
#
# (a) *Not detached in $D$'s turn.* The gradient runs on into $G$ and lies there. Harmless if $G$'s turn begins with
# `zero_grad()`, only dear; but in a loop that clears after the step it is added. And it points the wrong way: $D$'s
# loss is low when fakes are recognised. (b) *Detached in $G$'s turn too.* Then nothing reaches $G$.


# %% id="detach"
def length(network):
    """The length of all gradients that lie in a network."""
    return sum(p.grad.square().sum().item() for p in network.parameters() if p.grad is not None) ** 0.5


def gradients(network):
    return torch.cat([p.grad.flatten() for p in network.parameters()])


x, z = ring[:512], dice(512, generator)
for name, fake in (("detached", G(z).detach()), ("not detached", G(z))):
    G.zero_grad()
    D.zero_grad()
    discriminator_loss(D(x), D(fake)).backward()
    print(f"D's turn, {name:13} gradient left in D {length(D):.3f}, in G {length(G):.3f}")
left_over = gradients(G)
for name, fake in (("not detached", G(z)), ("detached", G(z).detach())):
    G.zero_grad()
    D.zero_grad()
    generator_loss(D(fake)).backward()
    print(f"G's turn, {name:13} gradient left in D {length(D):.3f}, in G {length(G):.3f}")
    if name == "not detached":
        own = gradients(G)
print(f"cosine of what was left over and what G wants: {torch.cosine_similarity(left_over, own, dim=0):.2f}")

# %% [markdown] id="leak-text"
# The cosine is negative: the two pull against each other. Now the loop that forgets both, `detach` and clearing before
# the step, against the right one, with the same seeds:


# %% id="leak"
def leaky_round(G, D, optimizer_G, optimizer_D, x, generator):
    """A wrong round: nothing is detached, and gradients are cleared only when both have moved."""
    d_loss = discriminator_loss(D(x), D(G(dice(128, generator))))
    d_loss.backward()
    optimizer_D.step()
    D.zero_grad()
    generator_loss(D(G(dice(128, generator)))).backward()
    optimizer_G.step()  # with what D's turn left in G
    G.zero_grad()
    D.zero_grad()
    return d_loss.detach()


def right_round(G, D, optimizer_G, optimizer_D, x, generator):
    d_loss = discriminator_step(G, D, optimizer_D, x, dice(128, generator))
    generator_step(G, D, optimizer_G, dice(128, generator))
    return d_loss


# %% id="leak-run"
result = {}
for name, one_round in (("right", right_round), ("leaky", leaky_round)):
    for seed in range(2):
        both, generator = players(seed, learning_rate=2e-3), torch.Generator().manual_seed(seed)
        for _ in range(budget(smoke=10, laptop=600, gpu=600)):
            loss = one_round(*both, ring[torch.randint(len(ring), (128,), generator=generator)], generator)
        on = torch.cdist(both[0](dice(2000, generator)), centres).min(1).values < 0.3
        result[name, seed] = on.float().mean().item()
        print(f"{name}, seed {seed}: {on.float().mean():.0%} of the samples on a hill; loss of D {loss:.2f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert all(result["right", seed] > result["leaky", seed] for seed in range(2))

# %% [markdown] id="leak-read"
# No error, no warning, and pictures that look almost right: the leak only makes the forger worse, and the expert's loss
# *lower*. So test for it: after $D$'s turn no gradient may lie in $G$. (Your exercise was checked with it.)

# %% [markdown] id="line-text"
# ## 5 · Going round in circles
#
# The smallest game there is (Mescheder et al.). All real data sit at 0. The forger makes one number, $\theta$. The
# expert has one slope, $\psi$: its logit is $\psi x$. There is a perfect end: $\theta = 0$, and $\psi = 0$.
#
# **Predict first.** Both start away from it, and take turns with the steps that you wrote. Where do they go?

# %% [markdown] id="line-cure"
# The cure to be tried along with it: punish the expert for being steep *where the data are*,
#
# $$L_D + \frac{\gamma}{2} R_1, \qquad
#   R_1 = \mathbb{E}_{x \sim p_\text{data}}\Bigl[\bigl\|\nabla_x\, a(x)\bigr\|^2\Bigr]$$
#
# $\nabla_x a$ is the gradient of the logit *by the sample*: which change of $x$ would make it look more real? The
# squared length is a sum over all numbers of a sample. At the end of a perfect game real samples have nothing left to
# improve, so the slope there should be 0.

# %% [markdown] id="r1-text"
# ### Exercise 6 · The gradient penalty R1
#
# ●●●●○ · 20 minutes. `torch.autograd.grad(y, x, create_graph=True)` gives the gradient of a number `y` by a tensor `x`
# that has `requires_grad`, as a tuple with one entry, and keeps the way back to $D$'s weights, because $D$ must learn
# from it. The caller's `x` and $D$ must be left as they were.
#
# For example, if $D$ adds up the squares of two numbers, its gradient at $(1, 2)$ is $(2, 4)$, and for a batch of this
# one sample R1 is $2^2 + 4^2 = 20$.


# %% id="ex-r1"
def r1_penalty(D, x):
    """Mean over the batch of || d D(x_i) / d x_i ||^2, D giving logits; x: (batch, ...); shape (), with gradients."""
    ### BEGIN SOLUTION
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()
    ### END SOLUTION


# %% id="check-r1"
r1_penalty = check("03.r1_penalty", r1_penalty)

# %% [markdown] id="line-run-text"
# The package's `discriminator_step` is yours plus `gamma / 2 * r1_penalty(D, x)`, with a weight `gamma` that is 0 if
# not given. Here are the two players on the line.

# %% id="line-run"
import copy


class Place(torch.nn.Module):
    """A generator that makes one number, theta, whatever the dice say."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, z):
        return self.theta + 0 * z


class Slope(torch.nn.Module):
    """A discriminator with one slope: logit psi x."""

    def __init__(self):
        super().__init__()
        self.psi = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        return (self.psi * x).squeeze(1)


# %% id="line-plot" tags=["static"]
zero, paths = torch.zeros(4, 1), {}
for gamma in (0.0, 0.3):
    G_line, D_line = Place(), Slope()
    both = [torch.optim.SGD(n.parameters(), lr=0.2) for n in (G_line, D_line)]
    paths[gamma] = [(1.0, 0.0)]
    for _ in range(250):
        adversarial.discriminator_step(G_line, D_line, both[1], zero, zero, gamma)
        adversarial.generator_step(G_line, D_line, both[0], zero)
        paths[gamma].append((G_line.theta.item(), D_line.psi.item()))

figure, panels = plt.subplots(1, 2, figsize=(7, 3.2), sharex=True, sharey=True)
for ax, (gamma, path) in zip(panels, paths.items()):
    ax.plot(*zip(*path), color="#0072B2", linewidth=1)
    ax.plot(*path[-1], "o", color="#D55E00", markersize=7)
    ax.set(title=f"$\\gamma$ = {gamma:g}", xlabel="forger's place, $\\theta$")
    print(f"gamma {gamma}: after 250 rounds theta = {path[-1][0]:+.4f}, psi = {path[-1][1]:+.4f}")
panels[0].set_ylabel("expert's slope, $\\psi$")
show(figure, "Without the penalty forger and expert go round and round the perfect end; with it they spiral into it.")
assert math.hypot(*paths[0.3][-1]) < 0.01 < 0.1 < math.hypot(*paths[0.0][-1])

# %% [markdown] id="line-read"
# Without a penalty they circle. The expert points, the forger runs; when it arrives, the expert's slope is still there,
# and drives it past the data; then the expert turns. A fall in *one* loss would stop at the bottom of a valley. A game
# has no valley. With the penalty the expert lets go near the data, and the circle becomes a spiral inwards.
#
# Is the package's version yours, but for the penalty? Five rounds with either, from the same start:

# %% id="package-equal"
torch.manual_seed(0)
G_mine, D_mine = PointGenerator(), PointDiscriminator()
G_theirs, D_theirs = copy.deepcopy(G_mine), copy.deepcopy(D_mine)
mine = [torch.optim.Adam(n.parameters()) for n in (G_mine, D_mine)]
theirs = [torch.optim.Adam(n.parameters()) for n in (G_theirs, D_theirs)]
for step in range(5):
    x, z = ring[step * 64 : step * 64 + 64], dice(64, torch.Generator().manual_seed(step))
    discriminator_step(G_mine, D_mine, mine[1], x, z)
    generator_step(G_mine, D_mine, mine[0], z)
    adversarial.discriminator_step(G_theirs, D_theirs, theirs[1], x, z)
    adversarial.generator_step(G_theirs, D_theirs, theirs[0], z)
for own, other in ((G_mine, G_theirs), (D_mine, D_theirs)):
    assert all(torch.allclose(p, q, atol=1e-6) for p, q in zip(own.parameters(), other.parameters()))
assert torch.allclose(r1_penalty(D_mine, x), adversarial.r1_penalty(D_mine, x))
print("five rounds with your steps and with the package's: equal weights")

# %% [markdown] id="collapse-text"
# ## 6 · Mode collapse
#
# Now a forger in a hurry: five steps of $G$ for each of $D$. A sharper ring, with hills of spread 0.05.
#
# **Predict first.** More steps are more learning. Will it be better or worse?
#
# First a number for what we are going to see: *modes covered*. A sample belongs to its nearest centre, and counts if it
# lies within a radius of it. A centre is covered if at least `least` samples count for it.
#
# ### Exercise 7 · Count the modes
#
# ●●○○○ · 10 minutes. `torch.cdist` gives all distances; `.min(1)` gives the smallest ones and where they are. Each sample
# belongs to its nearest centre only, and counts if it is at most `radius` away. Return a plain `int`.
#
# For example, with centres at 0 and 10, samples at 1, 2 and 9, a radius of 2 and `least=2`, one mode is covered.


# %% id="ex-modes"
def modes_covered(samples, centres, radius, least=20):
    """How many centres (modes, d) have at least `least` samples (n, d) of their own at most `radius` away: an int."""
    ### BEGIN SOLUTION
    distance, nearest = torch.cdist(samples, centres).min(1)
    counts = torch.bincount(nearest[distance <= radius], minlength=len(centres))
    return int((counts >= least).sum())
    ### END SOLUTION


# %% id="check-modes"
modes_covered = check("03.modes_covered", modes_covered)

# %% [markdown] id="pack-text"
# Three games on four seeds each:
#
# * **hurried**: five steps of $G$ for each of $D$;
# * **packed**: just as hurried, but $D$ looks at *four samples at a time*, all real or all fake, and gives one answer
#   (PacGAN, Lin et al.);
# * **balanced**: one step each.


# %% id="pack"
class Packed(torch.nn.Module):
    """A discriminator of `size` points at a time: (batch, 2) -> (batch / size,)."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.layers = PointDiscriminator().layers
        self.layers[0] = torch.nn.Linear(2 * size, 64)

    def forward(self, x):
        return self.layers(x.reshape(len(x) // self.size, -1)).squeeze(1)  # (batch / size,)


sharp_ring = points.gaussian_ring(20_000, torch.Generator().manual_seed(0), spread=0.05)
sharp_centres = points.ring_centres(spread=0.05)


def snapshot(step, G, D):
    """A moment of a game, to look at later: step, a copy of D, samples."""
    return step, copy.deepcopy(D), G(dice(2000, torch.Generator().manual_seed(1))).detach()


# %% id="pack-run"
def game(seed, steps, hurry=1, pack=1, batch=128):
    """Play on the sharp ring with `hurry` steps of G a round; returns snapshots and the last two losses."""
    torch.manual_seed(seed)
    G, D, optimizer_G, optimizer_D = players(seed, Packed(pack) if pack > 1 else None)
    generator, moments = torch.Generator().manual_seed(seed), [snapshot(0, G, D)]
    for step in range(1, steps + 1):
        x = sharp_ring[torch.randint(len(sharp_ring), (batch,), generator=generator)]
        d_loss = discriminator_step(G, D, optimizer_D, x, dice(batch, generator))
        for _ in range(hurry):
            g_loss = generator_step(G, D, optimizer_G, dice(batch, generator))
        if step % max(1, steps // 12) == 0:
            moments.append(snapshot(step, G, D))
    return moments, (d_loss.item(), g_loss.item())


# %% [markdown] id="pack-go"
# Each game reports the mean over its last six moments, since a collapsed forger does not stand still.

# %% id="collapse-run"
settings = {"hurried": dict(hurry=5), "packed": dict(hurry=5, pack=4), "balanced": dict()}
games, covered = {}, {}
for name, setting in settings.items():
    for seed in range(budget(smoke=1, laptop=4, gpu=4)):
        moments, last = game(seed, budget(smoke=24, laptop=900, gpu=900), **setting)
        counts = [modes_covered(samples, sharp_centres, radius=0.2) for _, _, samples in moments[-6:]]
        covered[name, seed] = sum(counts) / 6
        games.setdefault(name, moments)
        on = (torch.cdist(moments[-1][2], sharp_centres).min(1).values < 0.2).float().mean()
        print(f"{name:8} seed {seed}: modes {counts}, on a hill {on:4.0%}, losses {last[0]:.2f} and {last[1]:.2f}")
if budget(smoke=False, laptop=True, gpu=True):
    for seed in range(4):
        assert covered["hurried", seed] < 2 and covered["packed", seed] > 3 and covered["balanced", seed] > 5
assert off(games["balanced"][-1][2], sharp_centres) < off(games["balanced"][0][2], sharp_centres)

# %% [markdown] id="collapse-read"
# The hurried forger covers one hill of eight, or none: **mode collapse**. Look at its losses, though: $D$ near
# $2\log 2 = 1.386$ and $G$ near $\log 2 = 0.693$, the numbers of a *perfect* forger, and nearer to them than those of
# the balanced game, which is so much better. Packing brings the hills back, though most of its samples lie between
# them.
#
# Look at it happen: violet is where $D$ believes, brown where it does not, grey the data, green the samples.

# %% id="film-game" tags=["static"]
alone = {name: games[name] for name in ("hurried", "balanced")}  # D of "packed" cannot be asked about one point
landscape = game_explorer(alone, sharp_ring)
filmstrip(landscape, [{"moment": m, "game": "hurried"} for m in (4, 6, 8)] + [{"moment": 12, "game": "balanced"}])

# %% [markdown] id="collapse-explore-text"
# In the hurried game the map is pale: the expert is a coin almost everywhere, and wherever a faint violet is left,
# there the forger goes next. **Predict, then move the slider** through that game: does it ever come to rest?

# %% id="explore-game"
explore(landscape)

# %% [markdown] id="collapse-why"
# **Why.** Let $D$ stand still, and give $G$ all the time in the world. What is its best answer? One point: the place
# where $D$ believes most. It need not cover anything. Then $D$ catches up, and learns that this place is fake; $G$
# jumps to the next. The theory said $\min_G \max_D$, the best forger against an expert who *always keeps up*. A
# hurried forger plays $\max_D \min_G$, and that is another game.
#
# Two cures. Keep $D$ ahead of $G$ (the balanced game). Or give $D$ eyes for variety: four fakes that are all alike are
# suspicious, however good each of them is. No single sample of a collapsed forger is wrong. Only the *set* is.

# %% [markdown] id="dcgan-text"
# ## 7 · Digits
#
# From points to pictures only the networks change. *DCGAN* (Radford et al.) builds both of convolutions. $G$ turns 32
# numbers into 4 × 4 cells, and each *transposed convolution* doubles the side, to 8 and to 16; $D$ is $G$ turned round.
# (Chapter 04 takes these layers apart.) In the game: the non-saturating loss, R1 with $\gamma = 0.1$, and, as in many
# modern GANs, a moving average of $G$'s weights (`average`, built in chapter 06) from which we draw: circles average
# out.

# %% id="dcgan"
from course_utils.metrics.pictures import digit_fid
from course_utils.models.gan import PictureDiscriminator, PictureGenerator

pictures = digits.load(16)[0].to(device)  # (1440, 1, 16, 16) in [-1, 1]
unseen = digits.load(16, split="test")[0].to(device)  # (357, 1, 16, 16)
fixed_z = dice(357, torch.Generator().manual_seed(0), latent=32).to(device)


@torch.no_grad()
def draw(G, z=fixed_z):
    return G(z)


torch.manual_seed(0)
G, D = PictureGenerator(channels=1, size=16, width=16).to(device), PictureDiscriminator(1, 16, width=16).to(device)
print("z", tuple(fixed_z.shape), "G(z)", tuple(draw(G).shape), "D(G(z))", tuple(D(draw(G)).shape))
print("parameters", *(f"{name} {sum(p.numel() for p in n.parameters()):,}" for name, n in (("G", G), ("D", D))))
print(f"FID of untrained pictures {digit_fid(draw(G)):.0f}, of real unseen digits {digit_fid(unseen):.1f}")

# %% [markdown] id="fid-box"
# > **Given now, built in chapter 15: FID.** A network that reads digits looks at the pictures of two sets. If they look
# > alike *to it*, in mean and in spread, the Fréchet distance is small. It compares sets, so it notices lost variety as
# > well as bad drawing. Real unseen digits set the floor, which you just saw.
#
# The loop is the one above; `play` of the package yields both losses of each round. Before each measurement we also ask
# $D$ about 357 real and 357 fake digits: its **accuracy** is the share that it tells rightly.

# %% id="dcgan-game"
from tqdm.auto import tqdm

from course_utils.models.adversarial import play


@torch.no_grad()
def accuracy(D, real, fake):
    """The share of real and fake pictures that D tells rightly."""
    return ((D(real) > 0).float().mean() + (D(fake) <= 0).float().mean()).item() / 2


def train(G, D, steps, live=None, every=None, **settings):
    """Play on the digits; returns the average G, a list of (D's loss, G's loss), one of (step, accuracy, FID)."""
    average, losses, exams = copy.deepcopy(G).requires_grad_(False), [], []
    for now in tqdm(play(G, D, pictures, steps, average=average, **settings), total=steps):
        losses.append((now.discriminator_loss, now.generator_loss))
        if live:
            live.update(now.step, now.generator_loss)
        if every and now.step % every == 0:
            exams.append((now.step, accuracy(D, unseen, draw(G)), digit_fid(draw(average))))
    return average, losses, exams


# %% [markdown] id="dcgan-train-text"
# The chapter's main training. **Predict first:** the plot shows the loss of $G$. Which way will it go?

# %% id="dcgan-train"
import time

steps = budget(smoke=60, laptop=2400, gpu=6000)
untrained, start = digit_fid(draw(G)), time.process_time()
live = LivePlot("The generator's loss on the digits does not fall: it jumps, and drifts.", seconds=5)
average, losses, exams = train(G, D, steps, live, every=max(1, steps // 15), learning_rate=2e-3, gamma=0.1)
live.finish()
seconds = time.process_time() - start
trained = digit_fid(draw(average))
print(f"{steps} rounds took {seconds:.0f} seconds of processor time; FID before {untrained:.0f}, after {trained:.0f}")
assert trained < untrained

# %% id="dcgan-drawn" tags=["static"]
show(plot_pictures(draw(average)[:60], columns=15), "Sixty digits that the generator drew: seed 0, nothing chosen.")

# %% [markdown] id="curves-text"
# ### Curves that can be read
#
# Three curves of the same training, from the first exam on.

# %% id="curves" tags=["static"]
at, right, fid = zip(*exams)
d_losses, g_losses = zip(*losses)
figure, panels = plt.subplots(1, 3, figsize=(10, 3))
for values, name, colour in ((d_losses, "$L_D$", "#0072B2"), (g_losses, "$L_G$", "#D55E00")):
    panels[0].plot(range(1, steps + 1), smooth(values, max(1, steps // 50)), "-", color=colour, label=name)
panels[0].axhline(math.log(4), color="#0072B2", linewidth=1, linestyle=":")
panels[0].axhline(math.log(2), color="#D55E00", linewidth=1, linestyle=":")
panels[0].set(title="losses", xlabel="round", ylim=(0.4, 2.2))
panels[0].legend(fontsize=8)
panels[1].plot(at, right, "o-", color="#0072B2", markersize=3)
panels[1].axhline(0.5, color="#777777", linewidth=1, linestyle=":")
panels[1].set(title="accuracy of D", xlabel="round", ylim=(0.4, 1))
panels[2].plot(at, fid, "o-", color="#009E73", markersize=3)
panels[2].set(title="FID (log scale)", xlabel="round", yscale="log")
show(
    figure,
    "Left: after a few hundred rounds both losses stay where they are. Middle: the accuracy wanders. Right: "
    "the distance to real digits falls all the while. Dotted: what a coin would give.",
)

# %% id="no-progress"
third = len(exams) // 3
half = [
    [sum(v[s]) / len(v[s]) for v in (d_losses, g_losses)]
    for s in (slice(steps // 5, 3 * steps // 5), slice(3 * steps // 5, steps))
]
print(
    f"mean losses, rounds {steps // 5} to {3 * steps // 5}: D {half[0][0]:.2f}, G {half[0][1]:.2f}; "
    f"after that: D {half[1][0]:.2f}, G {half[1][1]:.2f}"
)
print(f"FID at round {at[third - 1]}: {fid[third - 1]:.0f}; at round {at[-1]}: {fid[-1]:.0f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert fid[-1] < 0.7 * fid[third - 1] and abs(half[0][0] - half[1][0]) < 0.15

# %% [markdown] id="no-progress-read"
# **The losses do not show progress, because they are relative.** Each is measured by the other player, who gets better
# too. A chess club's share of won games stays at one half for years, while everybody learns. So watch something from
# outside the game: samples from fixed dice, and a distance between sets.
#
# What *can* be read off? $L_D \to 0$ with an accuracy of 1: the expert has won, and $G$ gets hardly a useful gradient.
# $L_G$ climbing without end: the same. Both at the dotted lines: a perfect forger, *or a collapsed one* (section 6), or
# an expert that sees nothing (section 10).

# %% [markdown] id="book-text"
# ## 8 · The picture book
#
# The same networks with three channels and one doubling more: 32 × 32 pixels. Pages with one thing, in the picture
# book's own style, as the course's table of families has them. It is a short training, for a first impression.

# %% id="book-train"
from course_utils.metrics.pictures import one_thing_pages

pages = picture_book.pictures(one_thing_pages(budget(smoke=64, laptop=1000, gpu=4000)), size=32).to(device)
torch.manual_seed(0)
G_book, D_book = PictureGenerator(3, 32, 64, width=16).to(device), PictureDiscriminator(3, 32, width=16).to(device)
average_book = copy.deepcopy(G_book).requires_grad_(False)
book_z = dice(20, torch.Generator().manual_seed(0), 64).to(device)


def colour_gap(drawn):
    """How far the mean page that is drawn lies from the mean page."""
    return (drawn.mean(0) - pages.mean(0)).square().mean().sqrt().item()


first, book_steps = colour_gap(G_book(book_z)), budget(smoke=80, laptop=900, gpu=8000)
for _ in tqdm(
    play(G_book, D_book, pages, book_steps, batch=32, average=average_book, learning_rate=1e-3, gamma=1.0),
    total=book_steps,
):
    pass

# %% id="book-drawn" tags=["static"]
drawn = draw(average_book, book_z)
show(
    plot_pictures(torch.cat([pages[:10], drawn]), columns=10),
    "Top: ten pages of the picture book. Below: twenty "
    "that the generator drew after a short training, with skies and grounds, and coloured shapes without a subject.",
)
print(f"mean page off by {first:.2f} before, {colour_gap(drawn):.2f} after")
assert colour_gap(drawn) < first

# %% [markdown] id="book-read"
# Places and colours come first, things last. With a GPU or an hour of patience it gets further; the course's table
# (section 11) says how far each family comes in one minute.

# %% [markdown] id="sharp-text"
# ## 9 · Sharp, and blurred
#
# Chapter 02 drew blurred digits. Is that the network's fault, or the loss's? The fairest comparison keeps everything
# but the loss: a variational autoencoder with *the same $G$* as its decoder, as encoder a network like $D$ that gives
# 2 · 32 numbers, the same data, rounds and batch.
#
# A simple measure of sharpness: the mean squared difference of neighbouring pixels. A blur has little of it.


# %% id="vae-train"
def vae_loss(encoder, decoder, x, generator):
    """Squared error plus KL to N(0, I) of chapter 02, a picture: a number."""
    mean, log_variance = encoder(x).chunk(2, dim=1)  # (batch, 32) each
    z = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator).to(x.device)
    kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
    return ((x - decoder(z)).square().flatten(1).sum(1) / (2 * 0.3**2) + kl).mean()  # pixel noise 0.3


torch.manual_seed(0)
encoder, decoder = PictureDiscriminator(1, 16, 16, outputs=64).to(device), PictureGenerator(1, 16, width=16).to(device)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
generator, live = torch.Generator().manual_seed(0), LivePlot("The loss of the autoencoder falls as losses do.")
before = vae_loss(encoder, decoder, unseen, torch.Generator().manual_seed(1)).item()
for step in range(1, steps + 1):
    x = pictures[torch.randint(len(pictures), (64,), generator=generator).to(device)]
    loss = vae_loss(encoder, decoder, x, generator)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    live.update(step, loss.item())
live.finish()
assert vae_loss(encoder, decoder, unseen, torch.Generator().manual_seed(1)).item() < before


# %% id="sharp" tags=["static"]
def sharpness(pictures):
    """The mean squared difference of neighbouring pixels."""
    return (pictures.diff(dim=2).square().mean() + pictures.diff(dim=3).square().mean()).item() / 2


rows = {"real": unseen, "GAN": draw(average), "VAE": draw(decoder)}
show(
    plot_pictures(torch.cat([row[:15] for row in rows.values()]), columns=15),
    "Three rows of digits: real ones, sharp ones drawn by the GAN, and blurred ones drawn by a variational "
    "autoencoder with the same decoder.",
)
for name, row in rows.items():
    print(f"{name:5} sharpness {sharpness(row):.3f}, FID {digit_fid(row):.0f}")
if budget(smoke=False, laptop=True, gpu=True):
    real, gan, vae = (sharpness(row) for row in rows.values())
    assert abs(gan - real) < abs(vae - real) and vae < 0.9 * real

# %% [markdown] id="sharp-read"
# Same network, other loss: the blur is the squared error's. And $D$ is one loss that never forgives a blur.
#
# It has a price. **A GAN has no likelihood.** The autoencoder gives a bound on $\log p(x)$ for any $x$, PixelCNN the
# number itself. $G$ turns 32 numbers into 256 pixels: a thin sheet in a large space. Nearly every picture, also nearly
# every real one, lies off it and has density 0. One cannot ask a GAN how likely a picture is, nor compare GANs by it.

# %% [markdown] id="walk-text"
# ### Moving in latent space
#
# What the dice are good for: neighbouring $z$ give similar pictures, so a straight line from one $z$ to another is a
# film. **Predict first:** half way between a 3 and a 7, is there a digit?

# %% id="film-walk" tags=["static"]
walk = latent_walk_explorer(average, start=3, end=8)
filmstrip(walk, [{"share": s} for s in (0.0, 0.25, 0.5, 0.75, 1.0)])

# %% [markdown] id="walk-how"
# Live: choose two ends, and go from one to the other.

# %% id="explore-walk"
explore(walk)

# %% [markdown] id="unstable-text"
# ## A failure: the balance is lost
#
# Everything above was well set. Now leave out one thing, the penalty: $\gamma = 0$, else the same, on two seeds. And
# once more with a learning rate four times as large, which can only make it worse. **Predict first:** which of the
# numbers will warn you?

# %% id="unstable"
falls, length = {}, budget(smoke=32, laptop=800, gpu=2400)
runs = ("no penalty, seed 0", 0, 2e-3), ("no penalty, seed 1", 1, 2e-3), ("no penalty, faster", 0, 8e-3)
for name, seed, rate in runs:
    torch.manual_seed(seed)
    pair = PictureGenerator(1, 16, width=16).to(device), PictureDiscriminator(1, 16, width=16).to(device)
    lost, its_losses, its_exams = train(*pair, length, every=length // 8, learning_rate=rate, seed=seed)
    falls[name] = lost, its_exams
    d, g = (sum(v[-length // 4 :]) / (length // 4) for v in zip(*its_losses))
    print(f"{name}: FID {[round(e[2]) for e in its_exams]}; L_D {d:.2f}, L_G {g:.2f}, accuracy {its_exams[-1][1]:.2f}")
with_penalty = min(exams, key=lambda exam: abs(exam[0] - length))[2]
print(f"with the penalty, at the same round, the FID was {with_penalty:.0f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert all(falls[f"no penalty, seed {seed}"][1][-1][2] > 1.2 * with_penalty for seed in range(2))

# %% id="unstable-plot" tags=["static"]
figure, ax = plt.subplots(figsize=(6.4, 2.8))
for (name, (_, its_exams)), style in zip({"with penalty": (average, exams), **falls}.items(), ("-", "--", "-.", ":")):
    ax.plot([e[0] for e in its_exams], [e[2] for e in its_exams], style, label=name)
ax.set(xlabel="round", ylabel="FID (log scale)", yscale="log", xlim=(0, length))
ax.legend(fontsize=8)
show(
    figure,
    "FID against rounds: with the penalty it falls all the while. Without it, it turns and rises, but for the "
    "faster game.",
)

# %% [markdown] id="unstable-drawn-text"
# And what they draw at the end: fifteen pictures of each.

# %% id="unstable-drawn" tags=["static"]
show(
    plot_pictures(torch.cat([draw(lost)[:15] for lost, _ in falls.values()]), columns=15),
    "Fifteen digits each of the three games without a penalty.",
)

# %% [markdown] id="unstable-why"
# Without the penalty the expert pulls ahead: $L_D$ sinks, $L_G$ climbs, and on both seeds the pictures get *worse*
# after a while. But $L_G$ climbs as high in the faster game, which does about as well as the one with the penalty. So
# much for "can only make it worse": nothing told us beforehand, and the losses do not tell us afterwards.

# %% [markdown] id="balance"
# A GAN is a *balance* of two learners, and each setting (rates, sizes, steps, penalties) shifts it. What helps on one
# data set fails on the next, and no number tells that it is failing. That is the failure that motivates the second
# half of this course: diffusion models have *one* network and *one* loss that falls, and do in many small steps what
# is hard here in one.

# %% [markdown] id="elsewhere"
# ## 10 · What you will read elsewhere
#
# **"When the discriminator ends at 1/2, the training has converged."** You have seen a collapsed forger at 1/2. Here
# is the other way: an expert too simple to see. It gets one straight line for the ring (and the penalty, so that the
# game settles).

# %% id="blind"
torch.manual_seed(0)
line = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0))
G_blind, D_blind, optimizer_G, _ = players(0, line)
optimizer_D = torch.optim.Adam(D_blind.parameters(), 1e-2, betas=(0.5, 0.99))  # few weights may learn fast
generator = torch.Generator().manual_seed(0)
for _ in range(budget(smoke=20, laptop=600, gpu=600)):
    x = sharp_ring[torch.randint(len(sharp_ring), (128,), generator=generator)]
    d_loss = adversarial.discriminator_step(G_blind, D_blind, optimizer_D, x, dice(128, generator), gamma=1.0)
    generator_step(G_blind, D_blind, optimizer_G, dice(128, generator))
samples = G_blind(dice(2000, generator)).detach()
belief = torch.sigmoid(D_blind(samples)).mean().item()
found = modes_covered(samples, sharp_centres, radius=0.2)
print(f"D believes {belief:.2f}, loss of D {d_loss:.3f} (a coin: {math.log(4):.3f}), modes covered: {found} of 8")
if budget(smoke=False, laptop=True, gpu=True):
    assert abs(belief - 0.5) < 0.02 and found < 4

# %% [markdown] id="elsewhere-js"
# A coin on every sample, and a forger that gets nothing right but the mean. An expert at 1/2 means that *this* expert
# sees no difference.
#
# **"A GAN minimises the Jensen–Shannon divergence."** Only if $D$ is the best one at every step, *and* $G$ has the
# saturating loss. With the non-saturating one Arjovsky and Bottou derived something else: at $D^*$ its gradient is that
# of $\text{KL}(p_g \Vert p_\text{data}) - 2\,\text{JSD}$, in which the divergence has a *minus*. Check it: the forger
# is $N(\theta, 0.7^2)$, $D^*$ is frozen, and all the integrals are sums over a fine grid.

# %% id="elsewhere-js-run"
x = torch.linspace(-10, 12, 20_001, dtype=torch.float64)
dx, p_data = x[1] - x[0], normal(x, 0, 1)


def divergences(theta):
    """JSD(p_data, p_g) and KL(p_g || p_data) for the forger N(theta, 0.7^2)."""
    p_g = normal(x, theta, 0.7) + 1e-300
    mean = (p_data + p_g) / 2
    jsd = sum((p * (p / mean).log()).sum() * dx for p in (p_data + 1e-300, p_g)) / 2
    return jsd, (p_g * (p_g / (p_data + 1e-300)).log()).sum() * dx


print("theta   slope of: log(1-D*)   2 JSD      -log D*   KL - 2 JSD      JSD")
for start in (0.5, 1.5, 2.5):
    theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    jsd, kl = divergences(theta)
    logit = p_data.log() - normal(x, start, 0.7).log()  # of D*, frozen at this theta
    losses_of = [
        -(normal(x, theta, 0.7) * softplus(logit)).sum() * dx,
        (normal(x, theta, 0.7) * softplus(-logit)).sum() * dx,
    ]
    s, j, n, k = (
        torch.autograd.grad(y, theta, retain_graph=True)[0].item()
        for y in (losses_of[0], 2 * jsd, losses_of[1], kl - 2 * jsd)
    )
    print(f"{start:5} {s:20.4f} {j:9.4f} {n:12.4f} {k:12.4f} {jsd:10.3f}")
    assert abs(s - j) < 1e-3 and abs(n - k) < 1e-3 and abs(n - j) > 0.05

# %% [markdown] id="elsewhere-js-read"
# The first two columns agree, the next two agree, and the pairs differ. Where the densities hardly overlap (last row)
# JSD is near its ceiling $\log 2$, and its slope dies; the other slope grows.
#
# **"The generator learns from the real pictures."** It never gets one. Count what `generator_step` is given: $G$, $D$,
# an optimiser, and dice.
#
# **"The latent space is low-dimensional."** True here: 32 numbers for 256 pixels. It will not be true of diffusion in
# pixels, where the noise is as large as the picture.

# %% [markdown] id="compare-text"
# ## 11 · The families so far
#
# One more row. FID is for 357 digits each; bits per dimension, the likelihood, must stay empty.

# %% id="compare"
from course_utils.metrics.families import Row, compare

start = time.process_time()
draw(average)
per_picture = (time.process_time() - start) / len(fixed_z)
compare(
    Row(
        family="GAN",
        data="digits 16x16",
        parameters=sum(p.numel() for p in G.parameters()),
        training_seconds=seconds,
        seconds_per_picture=per_picture,
        fid=trained,
    ),
    upto="GAN",
)

# %% [markdown] id="compare-read"
# It draws in one pass: no pixel waits for another. Speed at drawing is what GANs are still used for.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $D^* = p_\text{data}/(p_\text{data}+p_g)$ | `optimal_discriminator(p_data, p_g)` |
# | $V(D^*) = 2\,\text{JSD} - \log 4$ | `-discriminator_loss(...)` of the best $D$ |
# | $L_D = \mathbb{E}[\text{softplus}(-a_x) + \text{softplus}(a_{G(z)})]$ | `discriminator_loss(D(x), D(fake))` |
# | $L_G = \mathbb{E}[\text{softplus}(-a_{G(z)})]$ | `generator_loss(D(G(z)))` |
# | $R_1 = \mathbb{E}\,\lVert\nabla_x a(x)\rVert^2$ | `r1_penalty(D, x)` |
# | one round | `discriminator_step(...)`, `generator_step(...)` |
# | variety | `modes_covered(samples, centres, radius)` |
#
# Five sentences to keep: The loss is learned, and it moves. Detach in $D$'s turn, not in $G$'s. The losses do not show
# progress. Variety must be measured on sets. Sharp, fast, no likelihood, easily unbalanced.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. A friend trains D to the very end before each step of G, with the saturating loss. What goes
# wrong, though theory asks for the best D?</summary>
# A D that is nearly perfect is sure of every fake, and there log(1 - D) is flat: the slope is almost 0. Where the
# densities hardly overlap, the Jensen–Shannon divergence itself has no slope.
# </details>
# <details><summary>2. G learns ten training pictures by heart and draws nothing else. What do D's loss, FID and a
# person who sees one picture say?</summary>
# Each picture is perfect. D cannot tell them from the real ten, but sees the others missing only if it compares
# frequencies. FID sees too little spread. A person who sees one picture notices nothing.
# </details>
# <details><summary>3. Why is R1 taken at real samples, and not at fakes?</summary>
# At the end of a perfect game the fakes lie on the data, and D must be flat there for G to stay. Far from the data D
# must be steep: that slope is all that G has to learn from.
# </details>
#
# **Papers** GANs: Goodfellow et al. 2014, [arXiv:1406.2661](https://arxiv.org/abs/1406.2661). DCGAN: Radford et al.,
# [arXiv:1511.06434](https://arxiv.org/abs/1511.06434). What the losses minimise: Arjovsky and Bottou,
# [arXiv:1701.04862](https://arxiv.org/abs/1701.04862). R1, and the game on a line: Mescheder et al.,
# [arXiv:1801.04406](https://arxiv.org/abs/1801.04406). Packing: Lin et al.,
# [arXiv:1712.04086](https://arxiv.org/abs/1712.04086). FID: Heusel et al.,
# [arXiv:1706.08500](https://arxiv.org/abs/1706.08500). A modern recipe: Huang et al. (R3GAN),
# [arXiv:2501.05441](https://arxiv.org/abs/2501.05441).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: other cures
#
# In the hurried game of section 6, try what does *not* help: put `gamma=1.0` into the package's `discriminator_step`.
# (R1 stops circles; it does not make $D$ faster.) Then let $D$ have ten samples in a pack. And try a *relativistic*
# loss, `softplus(-(D(x) - D(fake))).mean()` for $D$ and its mirror image for $G$: each fake must look more real than
# one real sample.
