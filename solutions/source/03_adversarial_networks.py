# %% [markdown] id="title"
# # 03 · Adversarial networks
#
# Think of a forger and an expert. The expert examines pictures and judges which are real. The forger never sees a real
# picture; it learns only from the expert's verdicts on its own work. Both improve against each other. With two
# networks in these roles we have a *generative adversarial network*, a GAN: the *generator* makes samples, and the
# *discriminator* estimates how likely each sample is to be real.
#
# ![Two rows: eight pages of the picture book, and below each the blurred average of its nine shifted
# versions.](../chapters/figures/03_sharp_and_blurred.png)
#
# Where the position of a thing is uncertain, a squared error favours the lower row (section 9). An expert who knows
# real pages rejects it at a glance.
#
# **After this chapter you can**
# 1. write both losses and both training steps, and test each against a closed form;
# 2. say what the best discriminator outputs, and what its loss then measures;
# 3. provoke mode collapse, measure it, reduce it, and explain why the loss curves do not reveal it.
#
# **Time** about three hours, one and a quarter of them for the seven exercises. All training together takes about five
# minutes of processor time.
# **You need** from chapter 02: what a latent $z$ is, and why a squared error blurs. Used here, built in chapter 15: a
# distance between sets of images (FID).

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
# | $x$ | `x` | real samples: numbers, points, images | (batch, ...) |
# | $z$ | `z` | the latent: standard normal numbers, the generator's input | (batch, latent) |
# | $G(z)$ | `fake = G(z)` | the generator's samples, called *fakes* | as `x` |
# | $a$ | `logits = D(x)` | the discriminator's output: a logit, any number (a critic's: a score) | (batch,) |
# | $D(x) = \text{sigmoid}(a)$ | `torch.sigmoid(D(x))` | the estimated probability that $x$ is real, 0 to 1 | (batch,) |
# | $p_\text{data}$, $p_g$ | `p_data`, `p_g` | the density of real samples, and of the generator's | |
# | $D^*$ | `best` | the best discriminator against a fixed generator | as $D(x)$ |
# | $\mathbb{E}$ | `.mean()` | the expectation: the average of what stands in the brackets | a number |
# | $V(D, G)$ | | the value of the game: $D$ is trained to raise it, $G$ to lower it | a number |
# | $L_D$, $L_G$ | | the losses of the two networks | a number |
# | JSD, $W_1$ | `jsd` | two distances between densities (sections 1 and 5) | a number |
# | $F_\text{data}$, $F_g$ | `.cumsum(0)` | the share of real samples, of fakes, below each place (section 5) | |
# | $\theta$ | `theta` | the one parameter of a very small generator: where its sample or hill lies | a number |
# | $\psi$ | `psi` | the one parameter of a very small discriminator | a number |
# | $R_1$, $\gamma$ | `r1_penalty`, `gamma` | a gradient penalty, and the weight of a penalty (section 5) | a number |

# %% [markdown] id="logit-or-probability"
# The *sigmoid* (logistic function), $\text{sigmoid}(a) = 1/(1+e^{-a})$, turns a logit into a probability. In formulas
# $D$ is the probability; **in code `D(x)` is the logit**, and section 2 shows why. Losses are in nats (natural
# logarithms).

# %% [markdown] id="toy"
# ## Real or fake?
#
# A discriminator receives one number at a time. Half of the numbers are real, drawn from $\mathcal{N}(0, 1)$. The
# other half are fakes, drawn from $\mathcal{N}(2, 0.7^2)$. For each number it must output the probability that it is
# real.
#
# No formula is needed. We draw 200,000 of each, sort them into bins, and look at the share of real numbers in each
# bin.
#
# **Predict first.** What is the right output for 1.3? And far to the right, at 4? Can *any* discriminator always be
# right?
#
# <details><summary>Answer (after running the cell below)</summary>
# About 0.33 at 1.3: of all the numbers that fall there, a third are real. At 4 it is between 0.01 and 0.02 (exactly
# 0.014; section 2 prints it): nearly all numbers there are fakes. But it does not stay so. The real hill is wider, so
# very far out real numbers win again: at 7 the exact share is 0.66, although none of our 400,000 samples lies beyond
# 6. Where both hills overlap, nobody can always be right, because the same number occurs as real and as fake.
# </details>

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
ax.stairs(count_fake / 25_000, edges, fill=True, color="#D55E00", alpha=0.35, label="fake")
ax.plot(middles, share, ".", color="black", label="share of real numbers")
ax.axvline(1.3, color="#777777", linestyle=":", linewidth=1)
ax.set(xlabel="the number x", ylabel="share; density")
ax.legend(fontsize=8)
show(
    figure,
    "Two overlapping hills of numbers, real ones left, fakes right; the share of real numbers falls from 1 "
    "on the left to nearly 0 on the right. The dotted line marks 1.3.",
)
print(f"near 1.3 the share of real numbers is {share[(middles - 1.3).abs().argmin()]:.2f}")
assert abs(share[(middles - 1.3).abs().argmin()] - 0.33) < 0.02 and max(real.max(), fake.max()) < 6

# %% [markdown] id="toy-read"
# The best possible output at each place is the share of real samples there. Where the hills overlap, every
# discriminator makes mistakes. Now turn this round: if the generator made its hill equal to the real one, the share
# would be 1/2 everywhere, and even the best discriminator would be right only half of the time. *That* is the
# generator's goal, and to pursue it the generator needs nothing but the discriminator: its outputs, and their
# gradients.
#
# Why go to this trouble? Chapter 02 compared images by squared error, and the prediction with the lowest squared error
# is an average: a blur. A discriminator trained on real images can tell a blur from a real image. Here the loss itself
# is learned.

# %% [markdown] id="best-text"
# ## 1 · The game, and its best discriminator
#
# $$\min_G \max_D \; V(D, G), \qquad V(D, G) = \mathbb{E}_{x \sim p_\text{data}}\bigl[\log D(x)\bigr]
#   + \mathbb{E}_{z \sim \mathcal{N}(0, I)}\bigl[\log\bigl(1 - D(G(z))\bigr)\bigr]$$
#
# $\mathbb{E}$ is the *expectation*: the average of what stands in the brackets, first over real samples $x$, then over
# latents $z$. $\log D(x)$ is 0 if $D$ outputs 1 for a real sample, and very negative if it outputs nearly 0. In the
# second term it is the other way round: $\log(1 - D(G(z)))$ is 0 if $D$ outputs 0 for a fake, and very negative if it
# outputs nearly 1. $D$ is trained to maximise $V$ and $G$ to minimise it: a *minimax game*.

# %% [markdown] id="best-ex-text"
# Fix $G$, and look at one place $x$. It contributes $p_\text{data}\log D + p_g\log(1-D)$ to $V$. The derivative with
# respect to $D$ is $p_\text{data}/D - p_g/(1-D)$. It falls as $D$ grows, and is 0 where $D$ is the share of real
# samples, which you have just counted: there the contribution is largest.
#
# ### Exercise 1 · The best discriminator
#
# ●○○○○ · 5 minutes. You are given the two densities at the same places. Return $D^*$ at each place. Only the ratio of
# the densities matters, so the result must also be right where both are tiny. (At no place are both exactly 0.)


# %% id="ex-best"
def optimal_discriminator(p_data, p_g):
    """D*(x) = p_data(x) / (p_data(x) + p_g(x)) at each place; all tensors have the same shape."""
    ### BEGIN SOLUTION
    #: real samples here, divided by all samples here
    return p_data / (p_data + p_g)
    ### END SOLUTION


# %% id="check-best"
optimal_discriminator = check("03.optimal_discriminator", optimal_discriminator)
# Stuck? hint("03.optimal_discriminator") gives a hint, and one more each time; solution(...) is the last resort.

# %% [markdown] id="loss-text"
# ## 2 · The discriminator's loss
#
# Optimisers minimise, so the loss of $D$ is $-V$. But a program should never compute $\log D$ from $D$:

# %% id="overflow"
a = torch.tensor([1.0, 20.0, 120.0])  # the logits of three fakes, each rated as more likely real than the last
print("D           ", torch.sigmoid(a).tolist())
print("log(1 - D)  ", (1 - torch.sigmoid(a)).log().tolist())
print("-softplus(a)", (-torch.nn.functional.softplus(a)).tolist())

# %% [markdown] id="overflow-read"
# The last two lines should hold the same three numbers. But float32 rounds $\text{sigmoid}(20)$ to 1, and the
# logarithm of 0 is minus infinity: the loss is useless, and so is its gradient. Therefore the network outputs the
# logit $a$, and we compute the loss from it in one step:
#
# $$-\log \text{sigmoid}(a) = \log(1 + e^{-a}) = \text{softplus}(-a), \qquad -\log(1 - \text{sigmoid}(a)) =
# \text{softplus}(a)$$
#
# Write $a_x$ for the logit of a real sample and $a_{G(z)}$ for the logit of a fake. Then
#
# $$L_D = \mathbb{E}_x\bigl[\text{softplus}(-a_x)\bigr] + \mathbb{E}_z\bigl[\text{softplus}(a_{G(z)})\bigr]$$
#
# ### Exercise 2 · The discriminator's loss
#
# ●●○○○ · 10 minutes. `torch.nn.functional.softplus` is safe for any logit. Return a tensor of shape (), not a Python
# number: gradients must flow back to both batches of logits, which may differ in size.

# %% id="ex-d-loss"
from torch.nn.functional import softplus


def discriminator_loss(real_logits, fake_logits):
    """Mean of -log D(x) plus mean of -log(1 - D(G(z))), each from logits (batch,); a tensor of shape ()."""
    ### BEGIN SOLUTION
    #: the loss of the real samples: low where the logit is high
    of_real = softplus(-real_logits).mean()
    #: the loss of the fakes: low where the logit is low
    of_fake = softplus(fake_logits).mean()
    #: their sum
    return of_real + of_fake
    ### END SOLUTION


# %% id="check-d-loss"
discriminator_loss = check("03.discriminator_loss", discriminator_loss)

# %% [markdown] id="d-equal-text"
# We compute it by hand, with your function, with the package's function, and with torch, where this loss is called
# *binary cross-entropy* with logits:

# %% id="d-equal"
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from course_utils.models import adversarial

real_logits, fake_logits = torch.tensor([1.2, -0.3]), torch.tensor([0.4, -2.0])
by_hand = (-torch.sigmoid(real_logits).log() - (1 - torch.sigmoid(fake_logits)).log()).mean()
library = cross_entropy(real_logits, torch.ones(2)) + cross_entropy(fake_logits, torch.zeros(2))
for loss in (discriminator_loss, adversarial.discriminator_loss):
    assert torch.allclose(loss(real_logits, fake_logits), by_hand) and torch.allclose(by_hand, library)
print(f"L_D {by_hand:.4f}; for D = 1/2 everywhere {discriminator_loss(torch.zeros(2), torch.zeros(2)):.4f} = 2 log 2")

# %% [markdown] id="learned-text"
# ### Does a network find the best discriminator?
#
# The formula needs both densities. A network has only samples with labels. We train a small one on the numbers above,
# with your loss, and compare.

# %% id="learned-train"
import math


def small_discriminator(width=32):
    """A network from a number (batch, 1) to a logit (batch,)."""
    layers = [torch.nn.Linear(1, width), torch.nn.Tanh(), torch.nn.Linear(width, width), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 1), torch.nn.Flatten(0))


torch.manual_seed(0)
D = small_discriminator()
optimizer = torch.optim.Adam(D.parameters(), lr=1e-2)
before = discriminator_loss(D(real[:5000, None]), D(fake[:5000, None])).item()
live = LivePlot(
    "The discriminator's loss falls from above log 4, its value for D = 1/2, to near the lowest possible, 0.559."
)
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
ax.set(xlabel="x", ylabel="density; output of D", xlim=(-4, 5.5))
ax.legend(fontsize=8)
show(figure, "The learned discriminator lies close to the formula wherever there are samples; beyond 5 they part.")
gap = ((learned - best).abs() * (p_data + p_g) / 2).sum() * (x[1] - x[0])
print(f"mean distance of the learned D from the formula, over all samples: {gap:.3f}")
print("D* at 1.3, 4 and 7:", [round(best[(x - place).abs().argmin()].item(), 3) for place in (1.3, 4, 7)])
assert best[x.argmax()] > 0.65 > 0.02 > best[(x - 4).abs().argmin()]
if budget(smoke=False, laptop=True, gpu=True):
    assert gap < 0.02

# %% [markdown] id="jsd-text"
# ### What its loss measures
#
# Insert $D^*$ into $V$:
#
# $$V(D^*, G) = \int \Bigl[ p_\text{data} \log\frac{p_\text{data}}{p_\text{data} + p_g}
#   + p_g \log \frac{p_g}{p_\text{data} + p_g} \Bigr] \, dx \;=\; 2\,\text{JSD}(p_\text{data}, p_g) - \log 4$$
#
# JSD is the *Jensen–Shannon divergence*: the mean of two Kullback–Leibler divergences (KL, chapter 02), from each
# density to their average $(p_\text{data}+p_g)/2$. It is 0 for equal densities and at most $\log 2$. So the lowest
# possible $L_D$ is $\log 4 - 2\,\text{JSD}$: the loss of a well-trained discriminator measures how far the generator
# is from the data. We compute the value in three ways, and compare it with the loss of the network just trained, which
# is known from 5,000 samples of each kind only up to its standard error.

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
with torch.no_grad():
    terms = softplus(-D(real[:5000, None])), softplus(D(fake[:5000, None]))
error = sum(term.var() / len(term) for term in terms) ** 0.5
print(f"minus the learned D's loss   {-after:.4f}, standard error {error:.3f} (5,000 samples of each kind)")
assert abs(value - (2 * jsd - math.log(4))) < 1e-3 and abs(2 * jensenshannon(p_data, p_g) ** 2 - 2 * jsd) < 1e-3
if budget(smoke=False, laptop=True, gpu=True):
    assert abs(after + value) < 3 * error

# %% [markdown] id="explore-best-text"
# **Predict first.** Suppose the generator's hill has the right mean but is too narrow. Where does the best
# discriminator then output more than 1/2? Below are three settings, and after them the interactive figure.
#
# <details><summary>Answer (after running the cell below)</summary>
# In the tails, on both sides (middle picture). A hill that is too narrow is too high in the middle, so fakes outnumber
# real samples there and D* falls below 1/2; outside, real samples outnumber fakes and D* approaches 1. If mean and
# spread both match (right), D* is 1/2 everywhere, V is −log 4 = −1.386 and the divergence is 0.
# </details>

# %% id="film-best" tags=["static"]
from course_utils.widgets import best_judge_explorer, explore, filmstrip, game_explorer, latent_walk_explorer

judge = best_judge_explorer()
filmstrip(judge, [{"mean": 3.0}, {"mean": 0.0, "spread": 0.5}, {"mean": 0.0, "spread": 1.0}])

# %% id="explore-best"
explore(judge)

# %% [markdown] id="g-loss-text"
# ## 3 · The generator's loss
#
# In the minimax game $G$ minimises $\log(1 - D(G(z)))$. At the beginning the fakes are bad and the discriminator
# rejects them: $D(G(z)) \approx 0$. There this loss is flat:

# %% id="slopes" tags=["static"]
a = torch.linspace(-8, 4, 241, requires_grad=True)
saturating, other = -softplus(a), softplus(-a)  # log(1 - D) and -log D
slopes = [torch.autograd.grad(curve.sum(), a)[0] for curve in (saturating, other)]

figure, panels = plt.subplots(1, 2, figsize=(9, 3))
for name, curve, slope, style in (
    ("minimax, $\\log(1-D)$", saturating, slopes[0], "--"),
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
    "Two losses of the generator and their slopes. In the grey zone, where D is below 0.02, the "
    "minimax loss is flat and the other one falls with slope -1.",
)
print(f"at logit -6, D = {torch.sigmoid(torch.tensor(-6.0)):.4f}: slopes {slopes[0][40]:.4f} and {slopes[1][40]:.4f}")

# %% [markdown] id="g-loss-ex-text"
# In the grey zone the fakes are at their worst, and there the minimax loss (it *saturates*) has almost no slope.
# Goodfellow et al. noticed this in the first paper and proposed another loss that pushes in the same direction:
#
# $$L_G = \mathbb{E}_z\bigl[-\log D(G(z))\bigr] = \mathbb{E}_z\bigl[\text{softplus}(-a_{G(z)})\bigr]$$
#
# In words: the loss is high for each fake that $D$ rejects. This *non-saturating loss* is a common default, and we use
# it from here on; section 5 names alternatives. The game is then no longer minimax, since each network has its own
# loss.
#
# ### Exercise 3 · The generator's loss
#
# ●○○○○ · 5 minutes. One line, from logits. Return a tensor of shape (), with gradients.


# %% id="ex-g-loss"
def generator_loss(fake_logits):
    """Mean of -log D(G(z)), from logits (batch,); a tensor of shape ()."""
    ### BEGIN SOLUTION
    #: the loss is high for each fake that D rejects; the mean over the batch
    return softplus(-fake_logits).mean()
    ### END SOLUTION


# %% id="check-g-loss"
generator_loss = check("03.generator_loss", generator_loss)

# %% [markdown] id="steps-text"
# ## 4 · Taking turns
#
# One round consists of one update of $D$ and one update of $G$.
#
# The two networks share one graph: in $D(G(z))$ the gradient of a loss flows back through $D$ *and on into* $G$. In
# $D$'s update it must not reach $G$, so we cut the graph with `.detach()`: the numbers stay, but the record of how
# they were computed is dropped. In $G$'s update the gradient must pass through $D$ to reach $G$, but only $G$'s
# optimiser takes a step.
#
# ### Exercise 4 · The discriminator's update
#
# ●●●○○ · 15 minutes. Update $D$ once, and change nothing in $G$ (not even its `.grad`).
# * `optimizer` holds the parameters of $D$. Clear old gradients before `backward()`, because `backward()` adds to
#   them.
# * Call $D$ twice: once on the real batch `x` and once on the fake batch. The two batches may differ in size, and each
#   term of $L_D$ is a mean over its own batch.
# * Use `discriminator_loss` on the logits as they come. Do not build labels of length `len(x)`: in section 6 $D$ takes
#   several samples at a time and outputs fewer logits than there are samples.
# * Return the loss from before the update as `loss.detach()`, a tensor of shape () without a graph; later cells call
#   `.item()` on it.


# %% id="ex-d-step"
def discriminator_step(G, D, optimizer, x, z):
    """One update of D, and of nothing else, on real samples x and fakes G(z); returns the loss before the update."""
    ### BEGIN SOLUTION
    #: fakes, cut off from G
    fake = G(z).detach()
    #: the loss of the real and the fake logits
    loss = discriminator_loss(D(x), D(fake))
    #: the three lines of every update
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    #: the loss without its graph
    return loss.detach()
    ### END SOLUTION


# %% id="check-d-step"
discriminator_step = check("03.discriminator_step", discriminator_step)

# %% [markdown] id="ex-g-step-text"
# ### Exercise 5 · The generator's update
#
# ●●●○○ · 10 minutes. Update $G$ once, and leave $D$'s parameters, its mode (training or evaluation) and
# `requires_grad` as they were. (Gradients may be left in $D$'s `.grad`: its own update clears them first.)
# * `optimizer` holds the parameters of $G$. No real samples are needed.
# * The loss is `generator_loss` of the logits that $D$ outputs for $G(z)$. Nothing is detached on the way.
# * Return the loss from before the update as `loss.detach()`, a tensor of shape ().


# %% id="ex-g-step"
def generator_step(G, D, optimizer, z):
    """One update of G, and of nothing else; returns its loss before the update."""
    ### BEGIN SOLUTION
    #: the loss of the logits for the fakes: nothing is detached
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
# The data are eight small hills on a ring. $G$ is a network with two hidden layers that turns two random numbers into
# a point; $D$ is another one that turns a point into a logit.
#
# `betas` are the decay rates of Adam's two moving averages. The first, momentum, is 0.9 by default. In a game old
# gradients go out of date quickly because the other network changes, so a smaller value is common; DCGAN uses 0.5. The
# second, of the squared gradients, is 0.999 by default, and 0.99 here.

# %% id="ring-play"
from course_utils.models.gan import PointDiscriminator, PointGenerator


def players(seed, D=None, learning_rate=1e-3):
    """A new G and D (or the given D), and an optimizer for each."""
    torch.manual_seed(seed)
    G, D = PointGenerator(latent=2), D or PointDiscriminator()
    return G, D, *(torch.optim.Adam(n.parameters(), learning_rate, betas=(0.5, 0.99)) for n in (G, D))


def latents(number, generator, latent=2):
    """Standard normal numbers (number, latent)."""
    return torch.randn(number, latent, generator=generator)


ring = points.gaussian_ring(20_000, torch.Generator().manual_seed(0), spread=0.1)  # (20000, 2)
G, D, optimizer_G, optimizer_D = players(0, learning_rate=2e-3)
generator, before, losses = torch.Generator().manual_seed(0), G(latents(1000, torch.Generator().manual_seed(1))), []
for _ in range(budget(smoke=60, laptop=600, gpu=600)):
    x = ring[torch.randint(len(ring), (128,), generator=generator)]
    d_loss = discriminator_step(G, D, optimizer_D, x, latents(128, generator))
    g_loss = generator_step(G, D, optimizer_G, latents(128, generator))
    losses.append((d_loss.item(), g_loss.item()))

# %% id="ring-plot" tags=["static"]
centres = points.ring_centres(spread=0.1)


def off(samples, centres=centres):
    """The mean distance of samples from their nearest centre."""
    return torch.cdist(samples, centres).min(1).values.mean().item()


samples = G(latents(1000, torch.Generator().manual_seed(1))).detach()
figure, panels = plt.subplots(1, 3, figsize=(9, 3))
for ax, cloud, name in zip(panels, (ring[:1000], before.detach(), samples), ("data", "G before", "G after")):
    plot_points(cloud, title=f"{name}\n{off(cloud):.2f} from a centre", reach=2.4, ax=ax).label_outer()
show(
    figure,
    "The ring of eight hills; the first samples, a small blob in the middle; and samples after the game, on "
    "the ring, on the hills and between them.",
)
angle = 2 * math.pi * torch.rand(20_000, generator=torch.Generator().manual_seed(2))
circle = centres.norm(dim=1).mean() * torch.stack([angle.cos(), angle.sin()], 1)
on_hill = [(torch.cdist(v, centres).min(1).values < 0.3).float().mean().item() for v in (ring, circle, samples)]
print("on a hill: data {:.0%}, an even circle {:.0%}, G {:.0%}".format(*on_hill))
assert off(samples) < off(before.detach()) and abs(on_hill[1] - 0.54) < 0.02
if budget(smoke=False, laptop=True, gpu=True):
    assert on_hill[1] < on_hill[2] < (on_hill[0] + on_hill[1]) / 2

# %% [markdown] id="bridges"
# $G$ has never received a real point, and its samples now lie along the ring of the data. Compare three shares,
# though. *On a hill* means within 0.3, three standard deviations, of a centre. A circle drawn evenly through the
# centres has 54% of its points on a hill; $G$ has 64% (of 1,000 samples, so give or take 3%; the next experiment
# repeats the game on three seeds), the data 99%. $G$ is closer to an even circle than to the data. Some points between
# the hills are unavoidable: $G$ is continuous, so it cannot tear one connected cloud of latents into eight separate
# pieces. How many there are depends on the training.
#
# ### Two mistakes with `detach`, measured
#
# (a) *Not detached in $D$'s update.* The gradient flows on into $G$ and stays in its `.grad`. This only costs time if
# $G$'s update begins with `zero_grad()`; but in a loop that clears gradients after the step, it is added to $G$'s own
# gradient. And it points the wrong way: $D$'s loss is low when fakes are recognised. (b) *Detached in $G$'s update
# too.* Then no gradient reaches $G$.


# %% id="detach"
def length(network):
    """The length of all the gradients stored in a network."""
    return sum(p.grad.square().sum().item() for p in network.parameters() if p.grad is not None) ** 0.5


def gradients(network):
    return torch.cat([p.grad.flatten() for p in network.parameters()])


x, z = ring[:512], latents(512, generator)
for name, fake in (("detached", G(z).detach()), ("not detached", G(z))):
    G.zero_grad()
    D.zero_grad()
    discriminator_loss(D(x), D(fake)).backward()
    print(f"D's update, {name:13} gradient left in D {length(D):.3f}, in G {length(G):.3f}")
left_over = gradients(G)
for name, fake in (("not detached", G(z)), ("detached", G(z).detach())):
    G.zero_grad()
    D.zero_grad()
    generator_loss(D(fake)).backward()
    print(f"G's update, {name:13} gradient left in D {length(D):.3f}, in G {length(G):.3f}")
    if name == "not detached":
        own = gradients(G)
print(f"cosine of the left-over gradient and G's own: {torch.cosine_similarity(left_over, own, dim=0):.2f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert torch.cosine_similarity(left_over, own, dim=0) < -0.8

# %% [markdown] id="leak-text"
# The cosine is −0.98: the two gradients point in nearly opposite directions. We now run a loop with mistake (a) in
# which gradients are cleared only after the step, so that the left-over gradient does harm, against the correct one,
# with the same seeds:


# %% id="leak"
def leaky_round(G, D, optimizer_G, optimizer_D, x, generator):
    """A wrong round: nothing is detached, and gradients are cleared only after the steps."""
    d_loss = discriminator_loss(D(x), D(G(latents(128, generator))))
    d_loss.backward()
    optimizer_D.step()
    D.zero_grad()
    generator_loss(D(G(latents(128, generator)))).backward()
    optimizer_G.step()  # with the gradient that D's update left in G
    G.zero_grad()
    D.zero_grad()
    return d_loss.detach()


def right_round(G, D, optimizer_G, optimizer_D, x, generator):
    d_loss = discriminator_step(G, D, optimizer_D, x, latents(128, generator))
    generator_step(G, D, optimizer_G, latents(128, generator))
    return d_loss


# %% id="leak-run"
result = {}
for name, one_round in (("right", right_round), ("leaky", leaky_round)):
    for seed in range(3):
        both, generator, its_losses = players(seed, learning_rate=2e-3), torch.Generator().manual_seed(seed), []
        for _ in range(budget(smoke=10, laptop=600, gpu=600)):
            x = ring[torch.randint(len(ring), (128,), generator=generator)]
            its_losses.append(one_round(*both, x, generator).item())
        on = (torch.cdist(both[0](latents(2000, generator)), centres).min(1).values < 0.3).float().mean().item()
        result[name, seed] = on, sum(its_losses[-100:]) / len(its_losses[-100:])
        print(f"{name}, seed {seed}: {on:.0%} on a hill (+- 2%); mean loss of D {result[name, seed][1]:.2f}")
if budget(smoke=False, laptop=True, gpu=True):
    for seed in range(3):
        (right_on, right_loss), (leaky_on, leaky_loss) = result["right", seed], result["leaky", seed]
        assert right_on > leaky_on and right_loss > leaky_loss

# %% [markdown] id="leak-read"
# There is no error and no warning. On each of the three seeds the leak leaves fewer samples on the hills (2,000 for
# each share), while the discriminator's loss, a mean over the last 100 rounds, is *lower*. So test for it: after $D$'s
# update no gradient may be left in $G$. (The check of your exercise does this.)

# %% [markdown] id="line-text"
# ## 5 · Going round in circles
#
# Here is the smallest possible game (Mescheder et al.). All real data are at 0. The generator has one parameter, its
# sample $\theta$. The discriminator has one parameter $\psi$ and outputs the logit $\psi x$. The ideal end is
# $\theta=0$ and $\psi=0$.
#
# **Predict first.** The game starts at $\theta=1$ and $\psi=0$, and the two take turns. Do they reach the ideal end?
# Does it matter which of the two generator losses is used?
#
# <details><summary>Answer (after running the cells of this section)</summary>
# With the minimax loss they do not arrive: they go round on a closed curve, and after 5,000 rounds they are as far
# away as at the start (0.99, from 1). With the non-saturating loss they spiral in, but ever more slowly: distance 0.37
# after 250 rounds, 0.20 after 1,000, 0.09 after 5,000. With the penalty below, the game arrives (nearer than
# 0.01) within 250 rounds, with either loss.
# </details>

# %% [markdown] id="line-cure"
# The remedy we try is a penalty on the discriminator for being steep *at the data*:
#
# $$L_D + \frac{\gamma}{2} R_1, \qquad
#   R_1 = \mathbb{E}_{x \sim p_\text{data}}\Bigl[\bigl\|\nabla_x\, a(x)\bigr\|^2\Bigr]$$
#
# $\nabla_x a$ is the gradient of the logit *with respect to the sample*: in which direction would $x$ have to change
# to look more real? The squared length is the sum of squares over all numbers of a sample. At the end of a perfect
# game no change makes a real sample look more real, so this slope should be 0.

# %% [markdown] id="r1-text"
# ### Exercise 6 · The gradient penalty R1
#
# ●●●●○ · 20 minutes. `torch.autograd.grad(y, x, create_graph=True)` returns the gradient of a number `y` with respect
# to a tensor `x` that has `requires_grad`, as a tuple with one entry. `create_graph=True` keeps it differentiable,
# because $D$'s weights must be trained through it. Leave the caller's `x` and $D$ as they were.
#
# For example, if $D$ adds the squares of two numbers, its gradient at $(1, 2)$ is $(2, 4)$, and for a batch of this
# one sample $R_1$ is $2^2 + 4^2 = 20$.


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
# The package's `discriminator_step` is yours plus `gamma / 2 * r1_penalty(D, x)`, with a weight `gamma` that is 0 by
# default. On the line both updates are short enough to write by hand, for either generator loss. Write
# $D(\theta)=\text{sigmoid}(\psi\theta)$ for the output at the fake:
#
# $$\frac{\partial}{\partial \psi}\Bigl(L_D + \frac{\gamma}{2} R_1\Bigr) = D(\theta)\,\theta + \gamma\,\psi, \qquad
#   \frac{\partial L_G}{\partial \theta} = -\bigl(1 - D(\theta)\bigr)\,\psi \;\text{ (non-saturating)}
# \quad\text{or}\quad
#   -D(\theta)\,\psi \;\text{ (minimax)}$$

# %% [markdown] id="line-check-text"
# First, check one round by hand against the package's steps; then play 5,000.

# %% id="line-run"
import copy


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def line_round(theta, psi, gamma, minimax, rate=0.2):
    """One round on the line: an update of psi, then one of theta, by plain gradient descent."""
    psi = psi - rate * (sigmoid(psi * theta) * theta + gamma * psi)
    D_fake = sigmoid(psi * theta)  # with the new psi
    slope = -D_fake * psi if minimax else -(1 - D_fake) * psi
    return theta - rate * slope, psi


class Place(torch.nn.Module):
    """A generator with one parameter, theta, whatever z is."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, z):
        return self.theta + 0 * z


# %% id="line-equal"
zero = torch.zeros(4, 1)
G_line, D_line = Place(), torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Flatten(0))
torch.nn.init.constant_(D_line[0].weight, 0.5)
optimizer_G = torch.optim.SGD(G_line.parameters(), lr=0.2)
optimizer_D = torch.optim.SGD(D_line.parameters(), lr=0.2)
adversarial.discriminator_step(G_line, D_line, optimizer_D, zero, zero, gamma=0.3)
adversarial.generator_step(G_line, D_line, optimizer_G, zero)
theta, psi = line_round(1.0, 0.5, gamma=0.3, minimax=False)
print(
    f"by hand theta {theta:.4f}, psi {psi:.4f}; by the steps {G_line.theta.item():.4f}, {D_line[0].weight.item():.4f}"
)
assert abs(theta - G_line.theta.item()) < 1e-5 and abs(psi - D_line[0].weight.item()) < 1e-5

# %% [markdown] id="line-equal-read"
# The two agree. Now the games: both losses, with and without the penalty.

# %% id="line-plot" tags=["static"]
figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), sharex=True, sharey=True)
panel = iter(panels)
distance = {}
for minimax, gamma in ((True, 0.0), (False, 0.0), (True, 0.3), (False, 0.3)):
    path = [(1.0, 0.0)]
    for _ in range(5000):
        path.append(line_round(*path[-1], gamma, minimax))
    name = "minimax" if minimax else "non-saturating"
    distance[name, gamma] = [math.hypot(*path[rounds]) for rounds in (250, 1000, 5000)]
    print(f"{name:14} gamma {gamma}: distance", [round(r, 3) for r in distance[name, gamma]])
    if gamma and minimax:
        continue  # printed, not drawn: it looks like the last panel
    ax = next(panel)
    ax.plot(*torch.tensor(path).T, color="#0072B2", linewidth=0.8)
    ax.plot(*path[-1], "o", color="#D55E00", markersize=6)
    ax.set(title=f"{name}, $\\gamma$ = {gamma:g}", xlabel="generator's $\\theta$")
panels[0].set_ylabel("discriminator's $\\psi$")
show(
    figure,
    "5,000 rounds on the line; a dot marks the last. Minimax loss: a closed curve around the ideal end at 0. "
    "Non-saturating loss: a slow spiral inwards. With the penalty: into the end after little more than one turn.",
)
assert all(0.9 < r < 1.1 for r in distance["minimax", 0.0])
assert 0.35 < distance["non-saturating", 0.0][0] < 0.4 and 0.05 < distance["non-saturating", 0.0][2] < 0.12
assert max(distance["minimax", 0.3] + distance["non-saturating", 0.3]) < 0.01

# %% [markdown] id="line-read"
# With the *minimax loss* the two circle (left): $\psi$ points from the fake towards the data, $\theta$ moves that way,
# and when it arrives, $\psi$ is not yet 0 and carries it past. With the *non-saturating loss* the circle becomes a
# spiral that narrows more and more slowly (middle). When one loss is minimised, each small step goes downhill; in a
# game each step changes the other player's loss too, and nothing need fall. With the penalty (right) $\psi$ also
# shrinks towards 0 by itself, and with either loss the game reaches the end quickly.
#
# Does the package's version equal yours, apart from the penalty? Play five rounds with each, from the same start:

# %% id="package-equal"
torch.manual_seed(0)
G_mine, D_mine = PointGenerator(), PointDiscriminator()
G_theirs, D_theirs = copy.deepcopy(G_mine), copy.deepcopy(D_mine)
mine = [torch.optim.Adam(n.parameters()) for n in (G_mine, D_mine)]
theirs = [torch.optim.Adam(n.parameters()) for n in (G_theirs, D_theirs)]
for step in range(5):
    x, z = ring[step * 64 : step * 64 + 64], latents(64, torch.Generator().manual_seed(step))
    discriminator_step(G_mine, D_mine, mine[1], x, z)
    generator_step(G_mine, D_mine, mine[0], z)
    adversarial.discriminator_step(G_theirs, D_theirs, theirs[1], x, z)
    adversarial.generator_step(G_theirs, D_theirs, theirs[0], z)
for own, other in ((G_mine, G_theirs), (D_mine, D_theirs)):
    assert all(torch.allclose(p, q, atol=1e-6) for p, q in zip(own.parameters(), other.parameters()))
assert torch.allclose(r1_penalty(D_mine, x), adversarial.r1_penalty(D_mine, x))
print("five rounds with your steps and with the package's: equal weights")

# %% [markdown] id="wasserstein-text"
# ### A distance that does not saturate
#
# Section 3 repaired a flat loss by choosing another loss. The problem lies deeper: where two hills hardly overlap, the
# *Jensen–Shannon divergence itself* is nearly flat. The *Wasserstein distance* $W_1$ measures something else: think of
# one density as a heap of sand, and of $W_1$ as the least amount of work (mass times distance) that turns it into the
# other. In one dimension it is the area between the cumulative distribution functions $F_\text{data}$ and $F_g$ (the
# share of samples below each place):
#
# $$W_1(p_\text{data}, p_g) = \int \bigl|F_\text{data}(x) - F_g(x)\bigr| \, dx$$
#
# **Predict first.** Move the fake hill $\mathcal{N}(\theta, 0.7^2)$ away from the real one, $\mathcal{N}(0, 1)$. How
# does each of the two grow with $\theta$?
#
# <details><summary>Answer (after running the cell below)</summary>
# JSD rises quickly and then stops: 0.41 at θ = 2, 0.667 at 4, 0.693 = log 2 at 6 and from there on. Its slope is then
# almost 0: moving the fake hill a little nearer changes next to nothing. W₁ equals θ from about 1 on: from there each
# unit of distance adds one, so its slope is 1 however far away the hill is.
# </details>

# %% id="wasserstein" tags=["static"]
x = torch.linspace(-10, 25, 35_001, dtype=torch.float64)
dx, p_data = x[1] - x[0], normal(x, 0, 1)
places, jsds, distances = torch.arange(0, 16.5, 0.5).tolist(), [], []
for theta in places:
    p_g = normal(x, theta, 0.7)
    mean = (p_data + p_g) / 2
    both = torch.xlogy(p_data, p_data / mean) + torch.xlogy(p_g, p_g / mean)
    jsds.append((both.nan_to_num(0).sum() * dx / 2).item())
    distances.append((((p_data - p_g).cumsum(0) * dx).abs().sum() * dx).item())  # the area between F_data and F_g

figure, panels = plt.subplots(1, 2, figsize=(8, 2.8))
panels[0].plot(places, jsds, color="#0072B2")
panels[0].axhline(math.log(2), color="#777777", linewidth=1, linestyle=":")
panels[0].set(xlabel="distance of the hills, $\\theta$", ylabel="JSD")
panels[1].plot(places, distances, color="#D55E00")
panels[1].set(xlabel="distance of the hills, $\\theta$", ylabel="$W_1$")
show(
    figure, "Against the distance of two hills JSD rises and is flat from about 5 on; W1 goes on along a straight line."
)
for theta in (2, 4, 6, 8, 16):
    print(f"theta {theta:2}: JSD {jsds[2 * theta]:.3f}, W1 {distances[2 * theta]:.3f}")
assert abs(jsds[8] - 0.667) < 0.001 and all(abs(jsd - math.log(2)) < 0.001 for jsd in jsds[12:])
assert all(abs(distance - theta) < 0.01 for theta, distance in zip(places[2:], distances[2:]))

# %% [markdown] id="critic-text"
# The area between two functions $F$ gives $W_1$ in one dimension only, so not for images. But in any dimension $W_1$
# is also a maximum, over all functions $a(x)$ whose slope is nowhere larger than 1 (*1-Lipschitz* functions):
#
# $$W_1(p_\text{data}, p_g) = \max_{\|\nabla a\| \le 1} \; \mathbb{E}_{x \sim p_\text{data}}\bigl[a(x)\bigr] -
# \mathbb{E}_z\bigl[a(G(z))\bigr]$$
#
# A network can approximate $a$. It outputs a score, not a logit, and is called a *critic*. Its loss is minus the
# difference above, plus $\gamma$ times a penalty for slopes larger than 1, taken at random places between a real and a
# fake sample. This is the critic of a WGAN (Arjovsky et al.), with a one-sided form of the gradient penalty of
# Gulrajani et al. We train a critic and an ordinary discriminator at four distances, and compare the slopes that
# $\theta$ receives from them.


# %% id="critic"
def critic_loss(critic, x, fake, gamma=100.0):
    """Minus the estimate of W1, plus gamma times the penalty for slopes above 1; x, fake: (batch, 1)."""
    share = torch.rand(len(x), 1)
    between = (share * x + (1 - share) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    too_steep = (gradient.norm(dim=1) - 1).relu()  # (batch,)
    return critic(fake).mean() - critic(x).mean() + gamma * too_steep.square().mean()


def trained(network, loss, theta, steps):
    """Train a network on real numbers from N(0, 1) against fakes from N(theta, 0.7^2)."""
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.5, 0.99))
    for _ in range(steps):
        value = loss(network, torch.randn(256, 1), theta + 0.7 * torch.randn(256, 1))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return network


def two_logits(D, x, fake):
    return discriminator_loss(D(x), D(fake))


# %% id="critic-run"
print("theta  W1  critic's estimate   slopes with respect to theta: critic, minimax, non-saturating")
for start in (2.0, 4.0, 8.0, 16.0):
    for seed in range(budget(smoke=1, laptop=3, gpu=3)):
        torch.manual_seed(seed)
        critic = trained(small_discriminator(), critic_loss, start, budget(smoke=20, laptop=400, gpu=400))
        D = trained(small_discriminator(), two_logits, start, budget(smoke=20, laptop=400, gpu=400))
        theta = torch.tensor(start, requires_grad=True)
        real, fake = torch.randn(20_000, 1), theta + 0.7 * torch.randn(20_000, 1)
        estimate = critic(real).mean() - critic(fake).mean()
        values = estimate, -softplus(D(fake)).mean(), softplus(-D(fake)).mean()
        slopes = [torch.autograd.grad(value, theta, retain_graph=True)[0].item() for value in values]
        print(f"{start:5} {start:3g} {estimate.item():18.2f} {slopes[0]:38.2f} {slopes[1]:8.4f} {slopes[2]:15.2f}")
        if budget(smoke=False, laptop=True, gpu=True):
            assert 0.8 < slopes[0] < 1.25 and abs(estimate.item() / start - 1) < 0.25
            assert (start < 8 or abs(slopes[1]) < 0.001) and (start < 16 or slopes[2] < 0.2)

# %% [markdown] id="critic-read"
# The critic's estimate follows $W_1$, and its slope stays near 1 at every distance, within about a tenth. (The penalty
# only discourages slopes above 1, so the slope can exceed 1 a little.) The slope of the minimax loss is 0.4 to 0.5 at
# $\theta = 2$ and less than 0.001 at 8. The non-saturating loss still has a usable slope at 8, but it too is far
# smaller there than at 2, and at 16 it has nearly vanished. This is a property of these trained networks: once the
# hills are far apart, their logit is steep only in the gap between the hills, and nearly level where the fakes lie.
# With the exact $D^*$ that slope grows with the distance (section 10).
#
# ### What other GANs use
#
# *WGAN* trains a critic as here; the first version limited its slope by clipping the weights, later ones by a gradient
# penalty. *Hinge loss*: $\mathbb{E}[\max(0, 1 - a_x)] + \mathbb{E}[\max(0, 1 + a_{G(z)})]$ for $D$ and
# $-\mathbb{E}[a_{G(z)}]$ for $G$, so that samples with a clear score no longer affect $D$; *BigGAN* used it for 1,000
# classes of photographs. *Spectral normalisation* divides each weight matrix by its largest singular value, which
# bounds the slope of $D$ without a penalty; BigGAN has it in both networks. *StyleGAN* became known for its generator,
# which first maps $z$ to a "style" that then scales the features of every layer; versions 1 (on its faces from Flickr)
# and 2 train with what you have built, the non-saturating loss and $R_1$ (version 2 adds a penalty on $G$).

# %% [markdown] id="collapse-text"
# ## 6 · Mode collapse
#
# Now let the generator run ahead: five updates of $G$ for each update of $D$. The ring is sharper, with hills of
# spread (standard deviation) 0.05.
#
# **Predict first.** $G$ is now updated five times as often. Will its samples be better or worse?
#
# <details><summary>Answer (after running the cells of this section)</summary>
# Worse. On all four seeds the samples form one small blob instead of a ring, and the blob jumps from place to place.
# With one update each, the samples cover all eight hills in the last snapshot of every seed.
# </details>
#
# First we need a number for what we are going to see: *modes covered*. A *mode* is a place where the density has a
# peak: here, the centre of a hill. A sample belongs to its nearest centre, and counts if it lies within a radius of
# it. A mode is covered if at least `least` samples count for its centre.
#
# ### Exercise 7 · Count the modes
#
# ●●○○○ · 10 minutes. `torch.cdist` gives all distances; `.min(1)` gives the smallest ones and their indices. Each
# sample belongs to its nearest centre only, and counts if it is at most `radius` away. Return a plain `int`.
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
# We play three games, each on four seeds:
#
# * **hurried**: five updates of $G$ for each update of $D$;
# * **packed**: just as hurried, but $D$ takes *four samples at a time*, all real or all fake, and outputs one logit
#   for the four (PacGAN, Lin et al.);
# * **balanced**: one update each.


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
    """A snapshot of a game: step, a copy of D, samples."""
    return step, copy.deepcopy(D), G(latents(2000, torch.Generator().manual_seed(1))).detach()


# %% id="pack-run"
def game(seed, steps, hurry=1, pack=1, batch=128):
    """Play on the sharp ring with `hurry` steps of G a round; returns snapshots and both losses, of the last rounds."""
    torch.manual_seed(seed)
    G, D, optimizer_G, optimizer_D = players(seed, Packed(pack) if pack > 1 else None)
    generator, moments, its_losses = torch.Generator().manual_seed(seed), [snapshot(0, G, D)], []
    for step in range(1, steps + 1):
        x = sharp_ring[torch.randint(len(sharp_ring), (batch,), generator=generator)]
        d_loss = discriminator_step(G, D, optimizer_D, x, latents(batch, generator))
        for _ in range(hurry):
            g_loss = generator_step(G, D, optimizer_G, latents(batch, generator))
        its_losses.append((d_loss.item(), g_loss.item()))
        if step % max(1, steps // 12) == 0:
            moments.append(snapshot(step, G, D))
    return moments, torch.tensor(its_losses[-100:]).mean(0).tolist()


# %% [markdown] id="pack-go"
# For each game we look at the last six snapshots: how many modes are covered; how *wide* the cloud of samples is (the
# length of the vector of its two standard deviations; the data: 1.41); how far its mean *jumps* from one snapshot to
# the next; and the share of the 2,000 samples on a hill in the last snapshot. On this sharper ring a sample is on a
# hill if it lies within 0.2, four standard deviations, of a centre. The losses are means over the last 100 rounds.

# %% id="collapse-run"
settings = {"hurried": dict(hurry=5), "packed": dict(hurry=5, pack=4), "balanced": dict()}
games, covered, width, on, last = {}, {}, {}, {}, {}
for name, setting in settings.items():
    for seed in range(budget(smoke=1, laptop=4, gpu=4)):
        moments, last[name, seed] = game(seed, budget(smoke=24, laptop=900, gpu=900), **setting)
        clouds = torch.stack([samples for _, _, samples in moments[-6:]])  # (6, 2000, 2)
        counts = [modes_covered(cloud, sharp_centres, radius=0.2) for cloud in clouds]
        covered[name, seed] = sum(counts) / 6
        width[name, seed] = clouds.std(1).norm(dim=1).mean().item()
        jump = clouds.mean(1).diff(dim=0).norm(dim=1).mean()
        games.setdefault(name, moments)
        on[name, seed] = (torch.cdist(clouds[-1], sharp_centres).min(1).values < 0.2).float().mean()
        facts = f"width {width[name, seed]:.2f}, jump {jump:.2f}, on a hill {on[name, seed]:4.0%}"
        print(f"{name:8} seed {seed}: modes {counts}, {facts}, losses " + "{:.2f}, {:.2f}".format(*last[name, seed]))
even = circle[:2000] * sharp_centres[0].norm() / centres[0].norm()
on_even = (torch.cdist(even, sharp_centres).min(1).values < 0.2).float().mean()
print(f"an even circle: modes {modes_covered(even, sharp_centres, radius=0.2)}, on a hill {on_even:.0%}")
if budget(smoke=False, laptop=True, gpu=True):
    for seed in range(4):
        assert covered["hurried", seed] < 2 and covered["packed", seed] > 3 and covered["balanced", seed] > 5
        assert width["hurried", seed] < 0.35 < 1 < min(width["packed", seed], width["balanced", seed])
        assert on["packed", seed] < on_even and last["hurried", seed][0] > last["balanced", seed][0]
assert off(games["balanced"][-1][2], sharp_centres) < off(games["balanced"][0][2], sharp_centres)

# %% [markdown] id="collapse-read"
# In the last six snapshots of the hurried game the samples form a single small blob, on each seed less than a quarter
# as wide as the data: **mode collapse**. But it does not rest on a hill, as the textbook picture has it. It jumps
# across the ring from one snapshot to the next, and often lies on none of the hills. Collapse and oscillation come
# together here.
#
# Now look at the losses of the hurried game: $D$ near $2\log 2 = 1.386$ and $G$ near $\log 2 = 0.693$, the values for
# a *perfect* generator, and nearer to them than the losses of the balanced game, which is far better. Packing makes
# the cloud as wide as the ring again and covers most modes, but leaves fewer samples on the hills than an even circle
# has (36%, last line). So read "modes covered" together with that share: the even circle covers all eight.
#
# The next figure shows $D$ over the plane: violet where its output is above 1/2, brown where it is below. The data are
# grey, the samples green. (A *moment* of the figure is one snapshot, and its *steps* are rounds.)

# %% id="film-game" tags=["static"]
alone = {name: games[name] for name in ("hurried", "balanced")}  # D of "packed" takes four points at a time
landscape = game_explorer(alone, sharp_ring)
filmstrip(landscape, [{"moment": m, "game": "hurried"} for m in (4, 6, 8)] + [{"moment": 12, "game": "balanced"}])
means = torch.stack([samples.mean(0) for _, _, samples in games["hurried"][1:]])
jumps = means.diff(dim=0).norm(dim=1)
print(f"jumps of the hurried game: {jumps.min():.2f} to {jumps.max():.2f}, {(jumps > 1).sum()} of {len(jumps)} above 1")
if budget(smoke=False, laptop=True, gpu=True):
    assert (jumps > 1).sum() > len(jumps) / 2

# %% [markdown] id="collapse-explore-text"
# In the hurried game the map is pale: $D$ is close to 1/2 almost everywhere. Each update of $G$ moves the samples
# towards where it is slightly higher. In a snapshot they need not be at the highest place, because each update of $D$
# lowers its output where they are.
#
# **Predict first, then move the slider** through that game: does it ever come to rest?
#
# <details><summary>Answer (after moving the slider)</summary>
# No. From snapshot to snapshot the mean of the blob jumps by 0.2 to 3.2, on a ring of radius 1.41; all but one of the
# eleven jumps are longer than 1. When the blob has been in one place for a while, D is trained to reject that place,
# and the blob moves on.
# </details>

# %% id="explore-game"
explore(landscape)

# %% [markdown] id="collapse-why"
# **Why.** Suppose $D$ is fixed and $G$ is trained to the end. Its loss is then lowest if *all* samples lie at the one
# point where $D$ is highest; nothing rewards variety. Then $D$ is trained to reject this point, and $G$ moves to the
# next. The theory asks for $\min_G \max_D$: the best generator against a discriminator that *always keeps up*. A
# generator that runs ahead plays $\max_D \min_G$, which is a different game.
#
# Two remedies reduce it. Keep $D$ up to date (the balanced game). Or let $D$ compare samples with each other: four
# fakes that are all alike are easy to reject, however good each one is. If a blob sits exactly on a hill, no single
# sample reveals the collapse. Only the *set* does.

# %% [markdown] id="dcgan-text"
# ## 7 · Digits
#
# From points to images only the networks change. *DCGAN* (Radford et al.) builds both from convolutions. $G$ turns 32
# numbers into 4 × 4 cells, and each *transposed convolution* doubles the side, to 8 and then 16; $D$ goes the other
# way, from 16 down to 4 × 4 cells and one logit. (Chapter 04 takes these layers apart.) We use the non-saturating
# loss, $R_1$ with $\gamma = 0.1$, and, as many modern GANs do, a *moving average* of $G$'s weights (`average`, built
# in chapter 06) for drawing: it averages over roughly the last hundred rounds, and so smooths some of the circling.

# %% id="dcgan"
from course_utils.metrics.pictures import digit_fid
from course_utils.models.gan import PictureDiscriminator, PictureGenerator

pictures = digits.load(16)[0].to(device)  # (1440, 1, 16, 16) in [-1, 1]
unseen = digits.load(16, split="test")[0].to(device)  # (357, 1, 16, 16)
fixed_z = latents(357, torch.Generator().manual_seed(0), latent=32).to(device)


@torch.no_grad()
def draw(G, z=fixed_z):
    return G(z)


torch.manual_seed(0)
G, D = PictureGenerator(channels=1, size=16, width=16).to(device), PictureDiscriminator(1, 16, width=16).to(device)
print("z", tuple(fixed_z.shape), "G(z)", tuple(draw(G).shape), "D(G(z))", tuple(D(draw(G)).shape))
print("parameters", *(f"{name} {sum(p.numel() for p in n.parameters()):,}" for name, n in (("G", G), ("D", D))))
print(f"FID of the untrained generator {digit_fid(draw(G)):.0f}, of real unseen digits {digit_fid(unseen):.1f}")

# %% [markdown] id="fid-box"
# > **Used here, built in chapter 15: FID.** A network trained to classify digits turns the images of two sets into
# > feature vectors. The *Fréchet distance* compares the means and covariances of the two sets of vectors; it is small
# > if these agree. Here the two sets are 357 drawn digits and the 1,440 training digits. It compares sets, so it
# > responds to lost variety as well as to bad drawing. The value for 357 real unseen digits, printed above, is about
# > what a perfect generator would have.
#
# The loop is the same as above; the package's `play` yields both losses after each round. At each measurement we also
# compute the **accuracy** of $D$: the share of the 357 unseen real digits and of 357 fakes that it classifies
# correctly.

# %% id="dcgan-game"
from tqdm.auto import tqdm

from course_utils.models.adversarial import play
from course_utils.training import ema_update


@torch.no_grad()
def accuracy(D, real, fake):
    """The share of real and fake images that D classifies correctly."""
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
# This is the chapter's main training.
#
# **Predict first.** The plot shows the loss of $G$. Which way will it go?
#
# <details><summary>Answer (after running the cell below)</summary>
# At first up: it rises for about the first hundred rounds and comes back. After one more small bump it hardly moves,
# from about 0.90 to 0.85, although FID, the distance to the real digits, halves between round 800 and round 2,400.
# </details>

# %% id="dcgan-train"
import time

steps = budget(smoke=60, laptop=2400, gpu=6000)
untrained, start = digit_fid(draw(G)), time.process_time()
live = LivePlot("After an early peak the generator's loss falls only very slowly.", seconds=5)
average, losses, exams = train(G, D, steps, live, every=max(1, steps // 15), learning_rate=2e-3, gamma=0.1)
live.finish()
seconds = time.process_time() - start
trained = digit_fid(draw(average))
print(f"{steps} rounds took {seconds:.0f} seconds of processor time; FID before {untrained:.0f}, after {trained:.0f}")
assert trained < untrained

# %% id="dcgan-drawn" tags=["static"]
show(
    plot_pictures(draw(average)[:60], columns=15),
    "Sixty digits drawn by the generator from the first sixty latents: none were selected.",
)

# %% [markdown] id="curves-text"
# ### Curves that can be read
#
# Three curves of the same training:

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
panels[2].minorticks_off()
panels[2].set_yticks([50, 100, 200, 400, 800], ["50", "100", "200", "400", "800"])
show(
    figure,
    "Left: after a few hundred rounds both losses only drift, slowly, towards the dotted values for D = 1/2. "
    "Middle: the accuracy falls with large fluctuations. Right: the distance to real digits falls.",
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
    assert fid[-1] < 0.7 * fid[third - 1] and all(abs(one - other) < 0.1 for one, other in zip(*half))

# %% [markdown] id="no-progress-read"
# **The losses hardly show progress, because they are relative.** Each depends on the other network, which improves
# too. Here they drift by less than 0.1 towards the dotted lines while FID halves, and the hurried game of section 6,
# with nothing but a blob, was nearer to these lines than this one is. In the same way the share of games won within a
# chess club is always one half, even while everyone improves. So watch something outside the game: samples from fixed
# latents, and a distance between sets.
#
# What *can* be read off the losses? If $L_D \to 0$ with an accuracy of 1, $D$ has won: often its logit is then nearly
# flat around the fakes, and $G$ receives hardly any useful gradient, whichever loss it has (section 5). If $L_G$
# climbs without end: the same. If both are at the dotted lines, the generator is perfect, *or it has collapsed*
# (section 6), or the discriminator is too weak to see the difference (section 10).

# %% [markdown] id="asked-text"
# ### A GAN that draws the digit you ask for
#
# So far you take what you get. To *ask* for a digit, both networks receive its label. This is a *conditional GAN*
# (Mirza and Osindero). The label is *one-hot*: ten numbers, all 0 but one. $G$ gets it beside $z$. $D$ gets it as ten
# extra image channels ("planes"), each 0 or 1 everywhere, and must estimate whether image *and* label together are
# real. A good 3 with the label 7 never occurs in the data, so it can be rejected.
#
# The two update steps need no change: `x` and `G(z)` now simply carry their planes along.


# %% id="asked"
from torch.nn.functional import one_hot

from course_utils.recipes.reader import load_reader

_, labels = digits.load(16)  # (1440,)


def with_label(pictures, label):
    """Digits (batch, 1, 16, 16) and one-hot labels (batch, 10), as planes: (batch, 11, 16, 16)."""
    planes = label[:, :, None, None].expand(-1, -1, 16, 16)
    return torch.cat([pictures, planes], dim=1)


class LabelledGenerator(torch.nn.Module):
    """z and a one-hot label, side by side (batch, 42), to a digit with its label planes (batch, 11, 16, 16)."""

    def __init__(self):
        super().__init__()
        self.G = PictureGenerator(1, 16, latent=42, width=16)

    def forward(self, z):
        return with_label(self.G(z), z[:, 32:])


# %% id="asked-train"
def latents_for(label, generator):
    """Random latents beside the labels (batch,) that are asked for: (batch, 42)."""
    return torch.cat([latents(len(label), generator, 32), one_hot(label, 10)], dim=1).to(device)


torch.manual_seed(0)
G_asked, D_asked = LabelledGenerator().to(device), PictureDiscriminator(11, 16, width=16).to(device)
average_asked = copy.deepcopy(G_asked).requires_grad_(False)
optimizer_G = torch.optim.Adam(G_asked.parameters(), 2e-3, betas=(0.5, 0.99))
optimizer_D = torch.optim.Adam(D_asked.parameters(), 2e-3, betas=(0.5, 0.99))
generator, asked_start = torch.Generator().manual_seed(0), time.process_time()
for step in tqdm(range(1, budget(smoke=20, laptop=800, gpu=2000) + 1)):
    now = torch.randint(len(pictures), (64,), generator=generator)
    x = with_label(pictures[now.to(device)], one_hot(labels[now], 10).to(device))
    z = latents_for(labels[now], generator)
    adversarial.discriminator_step(G_asked, D_asked, optimizer_D, x, z, gamma=0.1)
    wanted = torch.randint(10, (64,), generator=generator)
    generator_step(G_asked, D_asked, optimizer_G, latents_for(wanted, generator))
    ema_update(average_asked, G_asked, min(0.99, step / (step + 9)))
print(f"{step} rounds took {time.process_time() - asked_start:.0f} seconds of processor time")

# %% [markdown] id="asked-read-text"
# How often does it draw what was asked for? The digit classifier of the FID box counts. We ask for each digit 50
# times.

# %% id="asked-drawn" tags=["static"]
wanted = torch.arange(500) % 10
drawn = draw(average_asked.G, latents_for(wanted, torch.Generator().manual_seed(1))).cpu()
right = (load_reader()(drawn).argmax(1) == wanted).float()
unseen_labels = digits.load(16, split="test")[1]
reads = (load_reader()(unseen.cpu()).argmax(1) == unseen_labels).float().mean()
half_width = 1.96 * (right.mean() * (1 - right.mean()) / len(right)).sqrt()
show(
    plot_pictures(drawn[:40], heads=[str(digit) for digit in range(10)], columns=10),
    "Four rows of drawn digits; each column was asked for the digit above it.",
)
print(f"as asked: {right.mean():.1%} of {len(right)}, 95% interval +- {half_width:.1%}")
print("digit by digit:", [f"{digit}: {right[wanted == digit].mean():.0%}" for digit in range(10)])
print(f"(the classifier reads {reads:.1%} of the unseen real digits correctly)")
if budget(smoke=False, laptop=True, gpu=True):
    assert right.mean() - half_width > 0.7

# %% [markdown] id="asked-read"
# Without a label the right share would be about one in ten. The interval covers the chance of these 500 latents; it
# does not cover another training run. For a single digit there are only 50 images, and an interval of up to ± 12
# points. This is the first generator you have trained that is told what to draw. The condition is one of ten labels
# here; in chapter 10 it becomes text.

# %% [markdown] id="book-text"
# ## 8 · The picture book
#
# The same networks with three channels and one more doubling: 32 × 32 pixels. Each page shows one thing, in the
# picture book's plain style; section 11 compares the families on the same kind of page. The training is short and
# gives only a first impression.

# %% id="book-train"
from course_utils.metrics.pictures import one_thing_pages

pages = picture_book.pictures(one_thing_pages(budget(smoke=64, laptop=1000, gpu=4000)), size=32).to(device)
torch.manual_seed(0)
G_book, D_book = PictureGenerator(3, 32, 64, width=16).to(device), PictureDiscriminator(3, 32, width=16).to(device)
average_book = copy.deepcopy(G_book).requires_grad_(False)
book_z = latents(20, torch.Generator().manual_seed(0), 64).to(device)


def colour_gap(drawn):
    """The distance of the mean drawn page from the mean real page."""
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
    "Top: ten pages of the picture book. Below: twenty that the generator drew after a short training: speckled "
    "patches of colour in which hardly a subject can be recognised.",
)
print(f"mean page off by {first:.2f} before, {colour_gap(drawn):.2f} after")
assert colour_gap(drawn) < first

# %% [markdown] id="book-read"
# The mean of the twenty drawn pages is nearer to the mean real page than before the training: roughly, the colours are
# in their places. A subject can hardly be recognised. With a GPU you can train for longer; the course's table (section
# 11, column "one thing") counts how many pages show one recognisable thing after about a minute of training: 7% for
# the GAN, 9% and 8% for the others. With 357 pages and one training each, every share is uncertain by about 3 points:
# too much to rank the families.

# %% [markdown] id="sharp-text"
# ## 9 · Sharp, and blurred
#
# Why does a squared error blur? Suppose that what a decoder receives does not determine exactly where an object
# stands: it may be two pixels further left or right, up or down, or both. It must output one image. Take the nine
# shifted versions of a page as the possible answers, and compare two outputs: one of the nine, sharp; and the average
# of all nine.


# %% id="blur" tags=["static"]
def shifted(pages):
    """The nine versions of pages (n, 3, 32, 32), moved by -2, 0 or 2 pixels each way: (9, n, 3, 32, 32)."""
    padded = torch.nn.functional.pad(pages, (2, 2, 2, 2), mode="replicate")  # (n, 3, 36, 36)
    versions = [padded[:, :, top : top + 32, left : left + 32] for top in (0, 2, 4) for left in (0, 2, 4)]
    return torch.stack(versions)


versions = shifted(picture_book.pictures(one_thing_pages(200, seed=1), size=32).to(device))
average_page = versions.mean(0)  # (200, 3, 32, 32)
one_of_nine = (versions - versions[4]).square().mean((0, 2, 3, 4))  # of each page, the middle version as the answer
of_average = (versions - average_page).square().mean((0, 2, 3, 4))
show(
    plot_pictures(torch.cat([versions[4, :8], average_page[:8]]), columns=8, rows=["page", "average of nine"]),
    "Two rows: eight pages of the picture book, and below each the blurred average of its nine shifted versions.",
)
print(f"squared error: a sharp version {one_of_nine.mean():.3f}, the average {of_average.mean():.3f}")
assert (of_average < one_of_nine).all()

# %% id="blur-seen"
torch.manual_seed(0)
D_blur, generator = PictureDiscriminator(3, 32, width=8).to(device), torch.Generator().manual_seed(0)
optimizer = torch.optim.Adam(D_blur.parameters(), 2e-3)
for _ in range(budget(smoke=2, laptop=120, gpu=120)):
    x = shifted(pages[torch.randint(len(pages), (32,), generator=generator).to(device)])
    loss = discriminator_loss(D_blur(x[4]), D_blur(x.mean(0)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
blur_accuracy = accuracy(D_blur, versions[4], average_page)
margin = 1.96 * (blur_accuracy * (1 - blur_accuracy) / 400) ** 0.5
print(f"a discriminator classifies {blur_accuracy:.1%} (+- {margin:.1%}) of 200 other pages and 200 averages correctly")
if budget(smoke=False, laptop=True, gpu=True):
    assert blur_accuracy > 0.95

# %% [markdown] id="blur-read"
# For each of the 200 pages the average has the lower squared error, although no real page looks like it. (This is not
# luck: the mean is what minimises a mean squared error.) A small discriminator, trained on other pages for a few
# seconds, classifies about 99% of 400 pages and averages correctly (one training). A loss that is itself such a
# network does not reward a blur.
#
# Is that the reason why chapter 02's images are blurred? A fair comparison changes only the training. So train a
# variational autoencoder on the digits with *the same $G$* as its decoder, a network like $D$ with 2 · 32 outputs as
# its encoder, the same number of updates, the same batch size and optimiser settings, and a moving average of the
# decoder's weights. A simple measure of sharpness is the mean squared difference of neighbouring pixels, which is low
# for a blur. (Noise makes it high: read it together with FID.)


# %% id="vae-train"
def vae_loss(encoder, decoder, x, generator):
    """Squared error plus KL to N(0, I) of chapter 02, per image: a number."""
    mean, log_variance = encoder(x).chunk(2, dim=1)  # (batch, 32) each
    z = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator).to(x.device)
    kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
    return ((x - decoder(z)).square().flatten(1).sum(1) / (2 * 0.3**2) + kl).mean()  # pixel noise 0.3


torch.manual_seed(0)
encoder, decoder = PictureDiscriminator(1, 16, 16, outputs=64).to(device), PictureGenerator(1, 16, width=16).to(device)
average_decoder = copy.deepcopy(decoder).requires_grad_(False)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3, betas=(0.5, 0.99))
generator, live = torch.Generator().manual_seed(0), LivePlot("The loss of the autoencoder falls.", log_scale=True)
before = vae_loss(encoder, decoder, unseen, torch.Generator().manual_seed(1)).item()
for step in range(1, steps + 1):
    x = pictures[torch.randint(len(pictures), (64,), generator=generator).to(device)]
    loss = vae_loss(encoder, decoder, x, generator)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    ema_update(average_decoder, decoder, min(0.99, step / (step + 9)))
    live.update(step, loss.item())
live.finish()
assert vae_loss(encoder, decoder, unseen, torch.Generator().manual_seed(1)).item() < before


# %% id="sharp"
def sharpness(pictures):
    """The mean squared difference of neighbouring pixels of each image: (batch,)."""
    return (pictures.diff(dim=2).square().mean((1, 2, 3)) + pictures.diff(dim=3).square().mean((1, 2, 3))) / 2


rows = {"real": unseen, "GAN": draw(average), "VAE": draw(average_decoder)}
for name, row in rows.items():
    each = sharpness(row)
    margin = 1.96 * each.std() / len(each) ** 0.5
    print(f"{name:5} sharpness {each.mean():.3f} +- {margin:.3f}, FID {digit_fid(row):.0f}")
if budget(smoke=False, laptop=True, gpu=True):
    real, gan, vae = (sharpness(row).mean() for row in rows.values())
    assert abs(gan - real) < abs(vae - real) and vae < 0.9 * real
    assert digit_fid(rows["GAN"]) < 0.7 * digit_fid(rows["VAE"])

# %% [markdown] id="sharp-read"
# Same decoder, same data, different training: the VAE's digits have less contrast between neighbouring pixels than
# real ones, the GAN's have about as much, and the GAN's FID is much lower. This is one training of each, with 357
# digits for each number; the intervals cover the choice of these digits, not another training. So squared error is a
# likely reason for the blur. The comparison does not show that it is the only one, since the VAE also has a KL term.
#
# There is a price. **A GAN has no likelihood.** The autoencoder gives a bound on $\log p(x)$ for any $x$, and PixelCNN
# the number itself. $G$ turns 32 numbers into 256 pixels: a thin sheet in a large space. Nearly every image, including
# nearly every real one, lies off this sheet and has density 0. So a GAN cannot be evaluated, or compared with other
# models, by its likelihood.

# %% [markdown] id="walk-text"
# ### Moving in latent space
#
# Neighbouring $z$ give similar images, so a straight line from one $z$ to another gives a film. (Its middle is shorter
# than most latents are; chapter 02's arc avoids that, and the count below shows whether it matters here.) We choose
# the two ends by a rule: going through the seeds 0, 1, 2, ..., the first one whose image the digit classifier reads as
# a 3 with a probability above 99%, and the first one that it reads as a 7.
#
# **Predict first.** Half way between a 3 and a 7, is there a digit?
#
# <details><summary>Answer (after running the cell below)</summary>
# Yes, about as often as at an end. The second cell counts, for 500 random pairs, how many images the classifier reads
# with a probability above 0.9: nearly as many half way as at the start. In the walk drawn here the reading changes
# only in the last quarter: at 0.75 the classifier still reads a 3, where you may already see a 7. (A high probability
# from the classifier does not prove that an image is good: look at it too.)
# </details>

# %% id="film-walk" tags=["static"]
reader, chosen = load_reader(), {}
seeds = range(100)
ends = torch.cat([latents(1, torch.Generator().manual_seed(seed), 32) for seed in seeds]).to(device)  # (100, 32)
probability = reader(draw(average, ends).cpu()).softmax(1)  # (100, 10)
for digit in (3, 7):
    sure = (probability[:, digit] > 0.99).nonzero().flatten().tolist()
    chosen[digit] = sure[0] if sure else int(probability[:, digit].argmax())
print("seeds of the two ends:", chosen)
walk = latent_walk_explorer(average, start=chosen[3], end=chosen[7])
filmstrip(walk, [{"share": s} for s in (0.0, 0.25, 0.5, 0.75, 1.0)])

# %% id="walk-read"
for share in (0.0, 0.25, 0.5, 0.75, 1.0):
    z = torch.lerp(ends[chosen[3]], ends[chosen[7]], share)[None]
    best, digit = reader(draw(average, z).cpu()).softmax(1)[0].max(0)
    print(f"share {share:4}: read as {digit.item()} with probability {best:.2f}")
start_z, end_z = (latents(500, torch.Generator().manual_seed(seed), 32).to(device) for seed in (2, 3))
clear = {}
for share in (0.0, 0.5):
    certainty = reader(draw(average, torch.lerp(start_z, end_z, share)).cpu()).softmax(1).max(1).values
    clear[share] = (certainty > 0.9).float().mean().item()
    print(f"500 random pairs, share {share}: {clear[share]:.0%} read with a probability above 0.9 (+- 4%)")
on_way = torch.stack([reader(draw(average, torch.lerp(start_z, end_z, s / 10)).cpu()).argmax(1) for s in range(11)])
differ = on_way[0] != on_way[-1]  # on_way: (11, 500) digits as read
third = ((on_way != on_way[0]) & (on_way != on_way[-1])).any(0)[differ].float().mean()
print(f"of {differ.sum()} pairs with two different digits, {third:.0%} are read as a third digit on the way (+- 5%)")
if budget(smoke=False, laptop=True, gpu=True):
    assert abs(clear[0.5] - clear[0.0]) < 0.1 and 0.5 < third < 0.7

# %% [markdown] id="walk-how"
# Interactive: choose two random ends by their seeds, and move from one to the other. Do some walks pass through a
# third digit?
#
# <details><summary>Answer (after moving the sliders)</summary>
# Yes, many: of 500 random pairs 449 have two different digits at their ends, and 59% of these (± 5%) are
# read as a third digit at one or more of the nine places between. Each image depends continuously on the share, so
# small moves never make it jump.
# </details>

# %% id="explore-walk"
explore(walk)

# %% [markdown] id="unstable-text"
# ## A failure: the balance is lost
#
# The training of section 7 had a penalty. Now remove this one thing: $\gamma = 0$, all else equal, on two seeds, and
# for comparison the penalty on the second seed too. (Section 7 was the first.) Then once more without it, with a
# learning rate four times as large.
#
# **Predict first.** Which of the numbers will warn you?
#
# <details><summary>Answer (after running the cell below)</summary>
# The losses and the accuracy do warn that D pulls ahead: in all three runs without the penalty L_D is below its value
# with it, L_G far above, and D classifies more images correctly. But they do not tell what happens to the images. In
# the two runs with the usual learning rate FID turns and rises in the second half; in the faster run, whose L_G is just
# as high, it does not.
# </details>

# %% id="unstable"
falls, length = {}, budget(smoke=32, laptop=800, gpu=2400)
runs = [("penalty, seed 1", 1, 2e-3, 0.1), ("no penalty, seed 0", 0, 2e-3, 0.0), ("no penalty, seed 1", 1, 2e-3, 0.0)]
for name, seed, rate, gamma in [*runs, ("no penalty, faster", 0, 8e-3, 0.0)]:
    torch.manual_seed(seed)
    pair = PictureGenerator(1, 16, width=16).to(device), PictureDiscriminator(1, 16, width=16).to(device)
    lost, its_losses, its_exams = train(*pair, length, None, length // 8, learning_rate=rate, gamma=gamma, seed=seed)
    falls[name] = lost, its_exams
    d, g = (sum(v[-length // 4 :]) / (length // 4) for v in zip(*its_losses))
    print(f"{name}: FID {[round(e[2]) for e in its_exams]}; L_D {d:.2f}, L_G {g:.2f}, accuracy {its_exams[-1][1]:.2f}")
with_penalty = [min(exams, key=lambda exam: abs(exam[0] - length))[2], falls["penalty, seed 1"][1][-1][2]]
d, g = (sum(v[3 * length // 4 : length]) / (length // 4) for v in (d_losses, g_losses))
print(f"penalty, seed 0 (section 7), at the same round: FID {with_penalty[0]:.0f}; L_D {d:.2f}, L_G {g:.2f}")
if budget(smoke=False, laptop=True, gpu=True):
    for seed in range(2):
        its_fids = [exam[2] for exam in falls[f"no penalty, seed {seed}"][1]]
        assert its_fids[-1] > 1.2 * max(with_penalty) and its_fids[-1] > 1.05 * min(its_fids)
    calm, *pulled_ahead = [its_exams[-1][1] for _, its_exams in falls.values()]  # the accuracies
    assert calm < min(pulled_ahead)
    faster = [exam[2] for exam in falls["no penalty, faster"][1]]
    assert faster[-1] < 1.1 * min(faster)

# %% id="unstable-plot" tags=["static"]
figure, ax = plt.subplots(figsize=(6.4, 2.8))
styles = "-", "-", "--", "-.", ":"
for (name, (_, its_exams)), style in zip({"penalty, seed 0": (average, exams), **falls}.items(), styles):
    ax.plot([e[0] for e in its_exams], [e[2] for e in its_exams], style, label=name)
ax.set(xlabel="round", ylabel="FID (log scale)", yscale="log", xlim=(0, length))
ax.minorticks_off()
ax.set_yticks([100, 150, 200, 300, 500, 1000], ["100", "150", "200", "300", "500", "1000"])
ax.legend(fontsize=8)
show(figure, "FID against rounds, on a logarithmic scale: two games with the penalty, and three without it.")

# %% [markdown] id="unstable-drawn-text"
# Here is what these four generators draw at the end, fifteen images each. Look for a difference between the first row
# and the others.

# %% id="unstable-drawn" tags=["static"]
show(
    plot_pictures(torch.cat([draw(lost)[:15] for lost, _ in falls.values()]), columns=15, rows=list(falls)),
    "Fifteen digits from each of four games, the first with the penalty: the rows look much alike.",
)

# %% [markdown] id="unstable-why"
# Without the penalty the discriminator pulls ahead: its accuracy is higher, $L_D$ is low, $L_G$ high. On both seeds
# FID turns and *rises* towards the end, and is higher than with the penalty. Fifteen images in a row do not show this
# difference; a distance between sets does. The faster run has an $L_G$ just as high, and yet its
# FID does not rise. (One run says nothing about larger learning rates in general.) So the losses show that the balance
# is lost, but not what this does to the images: for that you need a measure from outside the game.

# %% [markdown] id="balance"
# Training a GAN means keeping a *balance* of two networks, and each setting (rates, sizes, updates, penalties) shifts
# it. What works on one data set may fail on the next. This motivates the rest of this course, from chapter 05 on:
# diffusion models train *one* network with *one* loss that falls, and generate in many small steps.

# %% [markdown] id="elsewhere"
# ## 10 · What you will read elsewhere
#
# **"When the discriminator ends at 1/2, the training has converged."** You have seen a collapsed generator with $D$
# near 1/2. There is another way to get there: a discriminator that is too simple. In this game on the ring $D$ is a
# single linear layer (with the penalty, so that the game settles).

# %% id="blind"
torch.manual_seed(0)
line = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0))
G_blind, D_blind, optimizer_G, _ = players(0, line)
optimizer_D = torch.optim.Adam(D_blind.parameters(), 1e-2, betas=(0.5, 0.99))  # few weights may learn fast
generator = torch.Generator().manual_seed(0)
for _ in range(budget(smoke=20, laptop=600, gpu=600)):
    x = sharp_ring[torch.randint(len(sharp_ring), (128,), generator=generator)]
    d_loss = adversarial.discriminator_step(G_blind, D_blind, optimizer_D, x, latents(128, generator), gamma=1.0)
    generator_step(G_blind, D_blind, optimizer_G, latents(128, generator))
samples = G_blind(latents(2000, generator)).detach()
mean_D = torch.sigmoid(D_blind(samples)).mean().item()
found = modes_covered(samples, sharp_centres, radius=0.2)
print(f"mean D {mean_D:.2f}, loss of D {d_loss:.3f} (for D = 1/2: {math.log(4):.3f}), modes covered: {found} of 8")
shift, wide = (samples.mean(0) - sharp_ring.mean(0)).norm(), samples.std(0).norm()
print(f"means of samples and data {shift:.2f} apart; width {wide:.2f}, of the data {sharp_ring.std(0).norm():.2f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert abs(mean_D - 0.5) < 0.02 and found < 4 and shift < 0.3 and wide < 0.7

# %% [markdown] id="elsewhere-js"
# $D$ is near 1/2 on the samples, though the generator has matched only the mean of the data, and that roughly: neither
# their width nor a single hill. (One run, as an example of what can happen.) An output of 1/2 means that *this*
# discriminator finds no difference.
#
# **"A GAN minimises the Jensen–Shannon divergence."** Only if $D$ is optimal at every step *and* $G$ has the minimax
# loss. For the non-saturating loss Arjovsky and Bottou derived something else: at $D^*$ its gradient equals the
# gradient of $\text{KL}(p_g \Vert p_\text{data}) - 2\,\text{JSD}$, in which JSD has a *minus* sign. We check this: the
# generator's density is $\mathcal{N}(\theta, 0.7^2)$, $D^*$ is frozen, and all integrals are sums over a fine grid.

# %% id="elsewhere-js-run"
x = torch.linspace(-10, 12, 20_001, dtype=torch.float64)
dx, p_data = x[1] - x[0], normal(x, 0, 1)


def divergences(theta):
    """JSD(p_data, p_g) and KL(p_g || p_data) for a generator with density N(theta, 0.7^2)."""
    p_g = normal(x, theta, 0.7) + 1e-300
    mean = (p_data + p_g) / 2
    jsd = sum((p * (p / mean).log()).sum() * dx for p in (p_data + 1e-300, p_g)) / 2
    return jsd, (p_g * (p_g / (p_data + 1e-300)).log()).sum() * dx


print("theta   slope of: log(1-D*)   2 JSD      -log D*   KL - 2 JSD | value of: JSD")
for start in (0.5, 1.5, 2.5, 4.0, 6.0):
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
    print(f"{start:5} {s:20.4f} {j:9.4f} {n:12.4f} {k:12.4f} {jsd:15.3f}")
    assert abs(s - j) < 1e-3 and abs(n - k) < 1e-3 and abs(n - j) > 0.05
assert j < 0.01 < 1 < n and jsd > 0.99 * math.log(2)  # of the last row, theta = 6

# %% [markdown] id="elsewhere-js-read"
# The first two columns agree, the next two agree, and the pairs differ. At $\theta = 2.5$ the hills still overlap, and
# the slope of $2\,\text{JSD}$ is still 0.36. Only when they separate does it vanish: at $\theta = 6$ JSD is at its
# ceiling, $\log 2 = 0.693$, and the slope is down to 0.003, while the slope of the non-saturating loss keeps growing.
#
# **"The generator learns from the real images."** It never receives one. Look at the arguments of `generator_step`:
# $G$, $D$, an optimiser, and $z$. All information about the data comes through the gradient of $D$.
#
# **"The latent space is low-dimensional."** True here: 32 numbers for 256 pixels. It will not be true of diffusion in
# pixels, where the noise has as many numbers as the image.

# %% [markdown] id="compare-text"
# ## 11 · The families so far
#
# One more row. FID is computed from 357 digits; bits per dimension stay empty, because a GAN has no likelihood. The
# parameters are those of both networks, $G$ and $D$. The table's own rows had a minute of training, whatever number of
# rounds that allowed, and one seed each, so your row need not repeat the GAN's. FID on pages uses another network than
# on digits: compare within one data set only.

# %% id="compare"
from course_utils.metrics.families import Row, compare

start = time.process_time()
draw(average)
per_picture = (time.process_time() - start) / len(fixed_z)
compare(
    Row(
        family="GAN",
        data="digits 16x16",
        parameters=sum(p.numel() for network in (G, D) for p in network.parameters()),
        training_seconds=seconds,
        seconds_per_picture=per_picture,
        fid=trained,
    ),
    upto="GAN",
)

# %% [markdown] id="compare-read"
# A GAN draws in one pass, as a VAE does: no pixel waits for another. In the table both need less than a thousandth of
# a second for an image, PixelCNN 9 to 268 thousandths. The speed is still a reason to use a GAN.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $D^* = p_\text{data}/(p_\text{data}+p_g)$ | `optimal_discriminator(p_data, p_g)` |
# | $V(D^*, G) = 2\,\text{JSD} - \log 4$ | `-discriminator_loss(...)` of the best $D$ |
# | $L_D = \mathbb{E}[\text{softplus}(-a_x)] + \mathbb{E}[\text{softplus}(a_{G(z)})]$ | `discriminator_loss(D(x), D(fake))` |
# | $L_G = \mathbb{E}_z[\text{softplus}(-a_{G(z)})]$ | `generator_loss(D(G(z)))` |
# | $R_1 = \mathbb{E}_x\,\lVert\nabla_x a(x)\rVert^2$ | `r1_penalty(D, x)` |
# | $W_1 = \int \lvert F_\text{data} - F_g \rvert \, dx$ | `(p_data - p_g).cumsum(0)`, or a critic |
# | one round | `discriminator_step(...)`, `generator_step(...)` |
# | variety | `modes_covered(samples, centres, radius)` |
#
# To remember: The loss is learned, and it changes during training. Detach in $D$'s update, not in $G$'s. The losses do
# not show progress. Variety must be measured on sets. GANs are fast at drawing, have no likelihood, and lose their
# balance easily.

# %% [markdown] id="questions"
# **Questions** (open a line for the answer)
#
# <details><summary>1. Someone trains D to the very end before each update of G, with the minimax (saturating) loss.
# What goes wrong, although the theory asks for the best D?</summary>
# A nearly perfect D outputs almost 0 for every fake, and there log(1 − D) is flat: G receives almost no gradient.
# Where the densities hardly overlap, the Jensen–Shannon divergence itself has almost no slope.
# </details>
# <details><summary>2. G memorises ten of the 1,440 training images and draws nothing else. Can the best D, FID, and a
# person who sees a single image detect it?</summary>
# The best D does: it compares densities, and these ten occur far too often among the fakes. On them D* = (1/1440) /
# (1/1440 + 1/10) = 0.007, and 1 on all other images, so its loss is only 0.04. A real D has to learn which ten they
# are. FID is large, because the spread is too small. A person who sees a single image cannot detect anything.
# </details>
# <details><summary>3. Why is R1 computed at real samples, and not at fakes?</summary>
# At the end of a perfect game the fakes lie on the data, and D must be flat there for G to stay. Far from the data D
# must be steep: this slope is all that G learns from.
# </details>
#
# **Papers** GANs: Goodfellow et al. 2014, [arXiv:1406.2661](https://arxiv.org/abs/1406.2661). Conditional GANs: Mirza
# and Osindero, [arXiv:1411.1784](https://arxiv.org/abs/1411.1784). DCGAN: Radford et al.,
# [arXiv:1511.06434](https://arxiv.org/abs/1511.06434). What the losses minimise: Arjovsky and Bottou,
# [arXiv:1701.04862](https://arxiv.org/abs/1701.04862). WGAN: Arjovsky et al.,
# [arXiv:1701.07875](https://arxiv.org/abs/1701.07875); its gradient penalty: Gulrajani et al.,
# [arXiv:1704.00028](https://arxiv.org/abs/1704.00028). Spectral normalisation: Miyato et al.,
# [arXiv:1802.05957](https://arxiv.org/abs/1802.05957). BigGAN: Brock et al.,
# [arXiv:1809.11096](https://arxiv.org/abs/1809.11096). StyleGAN: Karras et al.,
# [arXiv:1812.04948](https://arxiv.org/abs/1812.04948), version 2:
# [arXiv:1912.04958](https://arxiv.org/abs/1912.04958). R1, and the game on a line: Mescheder et al.,
# [arXiv:1801.04406](https://arxiv.org/abs/1801.04406). Packing: Lin et al.,
# [arXiv:1712.04086](https://arxiv.org/abs/1712.04086). FID: Heusel et al.,
# [arXiv:1706.08500](https://arxiv.org/abs/1706.08500). A modern recipe, with a relativistic loss: Huang et al.
# (R3GAN), [arXiv:2501.05441](https://arxiv.org/abs/2501.05441).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: other remedies
#
# In the hurried game of section 6, pass `gamma=1.0` to the package's `discriminator_step`. Does R1, which stops the
# circles on the line, help here as well? Then give $D$ eight samples in a pack (the batch of 128 must be divisible by
# that number). And try a *relativistic* loss: `softplus(-(D(x) - D(fake))).mean()` for $D$ and its mirror image for
# $G$, so that each fake must look more real than one real sample. (`hurry`, `pack` and `game` are those of section 6.)
#
# <details><summary>Answer (after trying it)</summary>
# R1 does not help here: on four seeds the samples stay one blob, 0.13 to 0.22 wide, that jumps by about 2 from one
# snapshot to the next. Eight in a pack, like four, make the cloud as wide as the ring (1.4 to 1.5), and again few of
# the samples, 3% to 13%, lie on a hill. The relativistic loss alone leaves the blob too (0.13 to 0.19 wide). In all
# three the generator still runs ahead, five updates to one.
# </details>
