# %% [markdown] id="title"
# # 06 · Predicting the noise
#
# An image is buried in noise. A network receives it and predicts the noise in it. Most diffusion models are trained on
# this task or a close relative of it. Here you train such a network, first on points in the plane, then on handwritten
# digits. You write the parts of the training loop: times, loss, training step and moving average.
#
# ![Sixty handwritten digits, about two thirds of them legible, drawn by the network](../chapters/figures/06_digits_drawn.png)
#
# **After this chapter you can**
# 1. put together the training loop of a diffusion model, and test each part on a case whose answer is known;
# 2. say where the loss comes from, what its value means, and why it stays above zero;
# 3. explain why the clean image predicted from strong noise is a blur, and prove that it has to be one.
#
# **Time** about three hours, including 80 minutes for seven exercises. All training together takes about five minutes
# of processor time (on a GPU the trainings are longer, and get further).
# **You need** from chapter 05: $x_t$, $\bar\alpha_t$ and `add_noise`. Two things are given now and explained elsewhere:
# the U-Net (chapter 04) and the sampler (chapter 07).

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
# | $x_0$ | `x0` | a clean image, or a point | (batch, 1, 16, 16), or (batch, 2) |
# | $\varepsilon$ | `eps` | the noise: standard normal numbers | as `x0` |
# | $t$, $T$ | `t`, `T` | the time, $0 \dots T-1$ in code; the number of times | (batch,); 1000 |
# | $\bar\alpha_t$ | `alpha_bar[t]` | the share of the image's variance that is left at $t$ | `alpha_bar`: (T,) |
# | $\beta_t$, $\alpha_t$ | `beta`, `alpha` | the variance of the noise that step $t$ adds; $1 - \beta_t$ | (T,) |
# | $x_t$ | `x_t` | the noisy image $\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$ | as `x0` |
# | $\theta$, $\bar\theta$ | `model.parameters()` | the weights of the network; their moving average | |
# | $\varepsilon_\theta$, $\hat\varepsilon$ | `eps_hat = model(x_t, t)` | the network; its prediction of the noise | as `x0` |
# | $\hat x_0$ | `x0_hat` | the clean image that this prediction implies | as `x0` |
# | $L$ | `loss` | the mean squared error of the prediction | a number |
# | $d_x$ | `eps[0].numel()` | the number of values in an image | a number |
# | $\mathbb{E}$ | `.mean()` | the expectation: the average over everything random | |
# | $q$, $p_\theta$ | | probability densities: of the forward process, of the model (section 3) | |
# | $L_{t-1}$ | | the term of the bound that belongs to the step from $t$ to $t-1$ (section 3) | a number |
# | $\mu_\theta$ | | the mean of $p_\theta(x_{t-1} \mid x_t)$ (section 3) | as `x0` |
# | $\tilde\mu_t$, $\tilde\beta_t$ | | mean and variance of $q(x_{t-1} \mid x_t, x_0)$ (section 3) | as `x0`; a number |
# | $\zeta_t$ | `zeta` | the weight of time $t$ in the bound (section 3) | (T−1,) |
# | $\rho$ | `decay` | how much of itself a moving average keeps | a number |
# | $x^{(i)}$ | `data[i]` | image $i$ of a finite data set (section 7) | (1, 16, 16), or (2,) |
# | $\pi_i$ | `weights` | the probability that training image $i$ is behind $x_t$ (section 7) | (images,) |
#
# Papers count $t$ from 1 to $T$, the code from 0 to $T-1$. The schedule is Stable Diffusion's.

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
# **Predict first.** You see $x_t = 0.3$. Which number do you name in thin fog, at $t = 100$? Which in thick fog, at
# $t = 900$? Could it make sense to say 0, which no coin ever shows?
#
# We use no formula yet. We toss 200,000 coins, sort them by what is seen, and look at what they really were.
#
# <details><summary>Answer (after running the cells below)</summary>
# In thin fog the average is a step, and at 0.3 it is 0.99 (section 7 computes it): +1 is almost certain. In thick fog
# almost half of the coins that look like 0.3 are tails. Say +1, and you are wrong nearly half of the time and pay 4
# each time. The number with the smallest expected cost is the <em>average</em> of all coins that look like this, and it
# is close to 0.
# </details>


# %% id="coin"
def toss_coins(t, number=200_000):
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
    x0, x_t = toss_coins(t)
    jitter = 0.06 * torch.randn(400, generator=torch.Generator().manual_seed(0))
    ax.scatter(x_t[:400], x0[:400] + jitter, s=5, color="#9A9A9A", label="coins")
    ax.plot(middles, average_by_sight(x0, x_t, edges), color="#D55E00", label="their average")
    ax.axvline(0.3, color="black", linewidth=0.8, linestyle=":")
    ax.set(title=f"t = {t}", xlabel="what is seen, $x_t$", xlim=(-2.6, 2.6))
panels[0].set_ylabel("what it was, $x_0$")
panels[0].legend(loc="upper left", fontsize=8)
show(
    figure,
    "Coins by what is seen of them in three fogs, and their average: a step from -1 to 1 in thin fog, a gentle S at "
    "t = 500, a line that hardly rises in thick fog and is close to 0 at 0.3, the dotted line.",
)

# %% [markdown] id="coin-read"
# The best answer under squared error is an average, even where the average is something that never occurs. A network
# trained to remove noise faces this problem at every pixel. In section 7 the same average appears as a blurred digit.
# (In the figure the coins are spread a little up and down, so that they do not hide each other.)

# %% [markdown] id="target"
# ## 1 · What should the network predict?
#
# Three quantities are tied together by $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$. The
# network is given $x_t$ and $t$. From these and the noise $\varepsilon$ the clean image $x_0$ follows, and the other
# way round:
#
# $$x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\;\varepsilon}{\sqrt{\bar\alpha_t}}$$
#
# In words: subtract the noise, scaled as it is in $x_t$; then undo the dimming. Here it is with one digit.

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
titles = ["$x_0$", r"$\varepsilon$", "$x_t$, t = 300", r"$x_t$ without $\varepsilon$"]
show(
    plot_pictures(torch.cat([x0, eps, x_t, undone]), titles, columns=4),
    "A digit, pure noise, the mixture of both, and the digit again, which is left when exactly that noise is removed.",
)

# %% [markdown] id="why-eps"
# So why predict the noise and not the image? Ho, Jain and Abbeel compared several targets and chose the noise.
#
# * **One scale for all.** $\varepsilon$ has mean 0 and variance 1 at every $t$ and for every data set.
# * **It fits the theory.** Written with the noise, the loss that the theory suggests takes a simple form: section 3.
# * **Their images were better**, but only together with that simple loss: FID 3.17 on CIFAR-10. (The *Fréchet inception
#   distance* compares sets of images; lower is better.) With the exact bound of section 3 as the loss, predicting the
#   noise gave 13.51 and predicting the mean of the next step 13.22 (their table 2).
#
# It is a choice, not a law: chapter 07 also uses $x_0$ and a mixture called $v$. And it has a price. To get from
# $\hat\varepsilon$ to $\hat x_0$ one divides by $\sqrt{\bar\alpha_t}$, which magnifies every error where the noise
# is strong:

# %% id="magnified"
for level in (0, 250, 500, 750, 999):
    a = alpha_bar[level].item()
    magnified = 0.1 * ((1 - a) / a) ** 0.5
    print(f"t = {level:3}: signal {a**0.5:.3f}, noise {(1 - a) ** 0.5:.3f}; ", end="")
    print(f"an error of 0.1 in eps is one of {magnified:.3f} in x0")

# %% [markdown] id="loss"
# ### The loss
#
# The network should predict the noise, so we compare its output with the noise that we put in:
#
# $$L(\theta) \;=\; \mathbb{E}_{x_0,\,\varepsilon,\,t}\;\Bigl[\tfrac{1}{d_x}\,\bigl\|\,\varepsilon -
#   \varepsilon_\theta(\underbrace{\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon}_{x_t},\; t)\,
#   \bigr\|^2\Bigr]$$
#
# $\mathbb{E}$ is the average over the images $x_0$ of the data, over noise $\varepsilon$ and over times $t$.
# $\varepsilon_\theta$ is the network with its weights $\theta$; it gets the noisy image *and the time*.
# $\|\cdot\|^2$ is the sum of the squares over all $d_x$ pixels; divided by $d_x$ it is their mean.
#
# By hand, for a predictor that always outputs 0, "no noise at all":

# %% id="loss-by-hand"
pixels = eps.numel()
eps_hat = torch.zeros_like(eps)
squares = (eps - eps_hat) ** 2  # (1, 1, 16, 16)
print(f"{pixels} squares, their sum {squares.sum():.1f}, their mean {squares.sum() / pixels:.3f}")

# %% [markdown] id="loss-read"
# The expected mean is 1, since $\varepsilon$ has variance 1; in this one draw it happens to be 0.88. Remember the 1: it
# is the expected loss of a predictor that always outputs 0. An untrained network is near it, and a loss that stays
# there shows that nothing has been learned. (A lower loss need not mean much either: section 6 compares with a
# predictor that has learned nothing and yet stays below 1. The sum would be 256 on average here and 786,432 for an
# image of Stable Diffusion's size. Section 8 returns to that.)
#
# ### Exercise 1 · The loss of each image of a batch
#
# ●●○○○ · 10 minutes. Return one number *for each image*, so that we can later sort them by $t$. The function also has
# to serve for points of the plane, (batch, 2), so average over every axis but the first. In training, gradients flow
# through it.


# %% id="ex-loss"
def noise_prediction_loss(eps_hat, eps):
    """Each sample's mean squared error, || eps - eps_hat ||^2 / d_x: (batch, ...), (batch, ...) -> (batch,)."""
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
# How do you test a loss? With a case whose answer is known. In **a world with a single image** $x_0$ nothing is
# uncertain: the noise in $x_t$ can be computed exactly, and for this prediction the loss must be 0, up to rounding.
# (The check of your exercise uses this.) And all versions should agree: by hand, yours, the package's, torch's.

# %% id="oracle-run"
from torch.nn.functional import mse_loss

from course_utils.diffusion import objectives

perfect = (x_t - signal * x0) / noise  # possible only because this world holds nothing but x0
print(f"loss of the perfect prediction: {noise_prediction_loss(perfect, eps).item():.1e}")
assert noise_prediction_loss(perfect, eps).item() < 1e-8

by_hand = squares.sum() / pixels
for function in (noise_prediction_loss, objectives.noise_prediction_loss, mse_loss):
    assert torch.allclose(function(eps_hat, eps), by_hand)

# %% [markdown] id="times"
# ## 2 · A time for each image
#
# One network serves all noise levels. So every batch mixes them: each image draws *its own* $t$.
#
# How often should each level come up? The loss above is a plain average over $t$. If every $t$ is equally likely
# (**uniform**), the mean over a batch is an unbiased estimate of it. That is DDPM's choice, and ours in this chapter.
# Some models, Stable Diffusion 3 among them, are trained with *logit-normal* times instead, the sigmoid of a normal
# random number, scaled to the range of $t$. They visit the middle more often; section 6 returns to that.
#
# ### Exercise 2 · Draw the times
#
# ●○○○○ · 5 minutes. The random numbers come from the generator that is passed in, so that the same seed gives the same
# run. In this notebook all generators are on the CPU, and so is what you return; the caller moves it to the device.


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
# With it we can make the network's input: a batch of noisy images, each at its own level.

# %% id="batch" tags=["static"]
generator = torch.Generator().manual_seed(3)
x0 = pictures[:10]
t = sample_times(10, T, generator).to(device)
eps = torch.randn(x0.shape, generator=generator).to(device)
x_t = add_noise(x0, eps, t, alpha_bar)

heads = [f"t = {time}" for time in t.tolist()]
show(
    plot_pictures(torch.cat([x0, x_t]), columns=10, heads=heads, rows=["$x_0$", "$x_t$"]),
    "Upper row: ten clean digits. Lower row: what the network receives, each at its own time.",
)

# %% [markdown] id="bound"
# ## 3 · Where the loss comes from
#
# *(You may skip this section and read it after the trainings. Nothing below needs it.)*
#
# The loss is plausible. Is it more than that? It follows, up to a weight for each time, from *maximum likelihood*:
# making the data as probable as possible under the model. The model goes from noise $x_T$ to an image in $T$ small
# random steps, $p_\theta(x_{t-1} \mid x_t)$, each a Gaussian whose mean is given by the network. We want
# $-\log p_\theta(x_0)$ to be small for the images of the data.

# %% [markdown] id="bound-step"
# **Step 1: a bound.** We cannot compute it, since any chain of noisy images could lead to $x_0$. As for the variational
# autoencoder of chapter 02, there is an upper bound. The chain $x_1 \dots x_T$ plays the part of the latent, the
# forward process $q$ is the encoder (with nothing to learn), and $\mathbb{E}_q$ averages over its chains. The gap
# between the two sides is again a KL divergence (chapter 05), so it is never negative:
#
# $$-\log p_\theta(x_0) \;\le\; \mathbb{E}_q\bigl[\,\log q(x_1, \dots, x_T \mid x_0)
#   - \log p_\theta(x_0, x_1, \dots, x_T)\,\bigr]$$

# %% [markdown] id="bound-sort"
# **Step 2: sort by time.** Both chains are products over the steps, so their logarithms are sums. Sorted by $t$, the
# bound becomes a sum with one term for each step. The term at $x_T$ has nothing to learn. The one at $x_0$ is
# $-\log p_\theta(x_0 \mid x_1)$, the fit of the last step. Each term in between is the average over $q$ of a KL
# divergence (from here on we leave this average out of the formulas):
#
# $$L_{t-1} = \text{KL}\bigl(\,q(x_{t-1} \mid x_t, x_0)\;\big\|\;p_\theta(x_{t-1} \mid x_t)\,\bigr)$$
#
# On the left is where $x_{t-1}$ lay, *given $x_0$*: a Gaussian with mean $\tilde\mu_t$ and variance $\tilde\beta_t$
# (chapter 07 derives both). On the right is the network's approximation, without $x_0$. It is sometimes said that
# $p_\theta$ follows from Bayes' rule. It does not: to get $q(x_{t-1} \mid x_t)$ from Bayes' rule one needs the density
# of all noisy images, which nobody knows.

# %% [markdown] id="bound-kl"
# **Step 3: two Gaussians of one variance.** Let $p_\theta$ have the variance $\tilde\beta_t$ too, and the mean
# $\mu_\theta$. Then the divergence is a squared distance of means:
#
# $$L_{t-1} = \frac{1}{2\tilde\beta_t}\,\bigl\|\tilde\mu_t - \mu_\theta\bigr\|^2$$
#
# A check with numbers:

# %% id="bound-kl-run"
from torch.distributions import Normal, kl_divergence

mean_q, mean_p, sigma = torch.tensor([0.3, -1.0]), torch.tensor([0.1, 0.5]), 0.2
kl = kl_divergence(Normal(mean_q, sigma), Normal(mean_p, sigma)).sum()
formula = (mean_q - mean_p).square().sum() / (2 * sigma**2)
print(f"KL {kl:.4f}, formula {formula:.4f}")
assert torch.isclose(kl, formula)

# %% [markdown] id="bound-eps"
# **Step 4: express the means through the noise.** $\tilde\mu_t$ is a mixture of $x_0$ and $x_t$. Insert
# $x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\varepsilon) / \sqrt{\bar\alpha_t}$, simplify, and only $x_t$ and
# $\varepsilon$ are left:
#
# $$\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
#   + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t
#   \;=\; \frac{1}{\sqrt{\alpha_t}}\Bigl(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\varepsilon\Bigr)$$
#
# The network is given $x_t$, so the only unknown is $\varepsilon$: let the network predict it, and use the same formula
# with $\varepsilon_\theta$ for $\mu_\theta$.

# %% id="bound-eps-run"
beta = scaled_linear_beta(T).double()  # float64: the weights below span several powers of ten
alpha = 1 - beta
a = alpha.cumprod(0)
a_before = torch.cat([torch.ones(1, dtype=torch.float64), a[:-1]])  # alpha_bar at t-1; before the first step: 1

level = 500
x0_, eps_ = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).double()
x_t_ = a[level].sqrt() * x0_ + (1 - a[level]).sqrt() * eps_
of_x0 = a_before[level].sqrt() * beta[level] * x0_
of_x_t = alpha[level].sqrt() * (1 - a_before[level]) * x_t_
with_x0 = (of_x0 + of_x_t) / (1 - a[level])
with_eps = (x_t_ - beta[level] / (1 - a[level]).sqrt() * eps_) / alpha[level].sqrt()
print("largest difference of the two forms:", (with_x0 - with_eps).abs().max().item())
assert torch.allclose(with_x0, with_eps)

# %% [markdown] id="bound-weight"
# **Step 5: subtract, and drop the weight.** In $\tilde\mu_t - \mu_\theta$ everything cancels but the noises. With
# $\tilde\beta_t = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t$ from chapter 07 the result is
#
# $$L_{t-1} = \zeta_t\,\bigl\|\varepsilon - \varepsilon_\theta(x_t, t)\bigr\|^2, \qquad
#   \zeta_t = \frac{\beta_t^2}{2\,\tilde\beta_t\,\alpha_t\,(1-\bar\alpha_t)}$$
#
# But for a weight $\zeta_t$ for each time, and the constant $1/d_x$, this is our loss. DDPM sets every weight to 1 and
# calls the result $L_\text{simple}$.
#
# ### Exercise 3 · The weights of the bound
#
# ●●●○○ · 15 minutes. Return $\zeta_t$ for $t = 1 \dots T-1$ (in code), so one number fewer than there are betas: at
# $t = 0$ the variance $\tilde\beta_0$ is 0, and the term of that last step, $-\log p_\theta(x_0 \mid x_1)$ in the
# papers' counting, has another form. An example: the betas 0.1 and 0.2 give the single weight 1.25.


# %% id="ex-bound"
def bound_weights(beta):
    """zeta_t = beta_t^2 / (2 beta_tilde_t alpha_t (1 - alpha_bar_t)) for t = 1 ... T-1; (T,) -> (T-1,), as beta."""
    ### BEGIN SOLUTION
    #: alpha_t, alpha_bar_t and alpha_bar_{t-1}, each without t = 0
    alpha = 1 - beta
    alpha_bar = alpha.cumprod(0)
    now, before = alpha_bar[1:], alpha_bar[:-1]
    #: the variance of the step back
    beta_tilde = (1 - before) / (1 - now) * beta[1:]
    #: the weight
    return beta[1:] ** 2 / (2 * beta_tilde * alpha[1:] * (1 - now))
    ### END SOLUTION


# %% id="check-bound"
bound_weights = check("06.bound_weights", bound_weights)

# %% [markdown] id="bound-weight-text"
# How far is this from the weight 1 for all times, which $L_\text{simple}$ uses?

# %% id="bound-weight-run" tags=["static"]
zeta = bound_weights(beta)
figure, ax = plt.subplots(figsize=(6.4, 2.8))
ax.semilogy(range(1, T), zeta, label=r"the bound, $\zeta_t$")
ax.axhline(zeta.mean(), color="#D55E00", linestyle="--", label="the same for all (scaled to the same mean)")
ax.set(xlabel="time $t$", ylabel="weight")
ax.legend()
show(
    figure,
    f"The bound's weight falls steeply from {zeta[0]:.2f} near t = 0 to {zeta.min():.4f} in the middle, and "
    f"nearly doubles again towards {zeta[-1]:.4f} at the end; the simple loss has one weight for all.",
)
share = zeta[:100].sum() / zeta.sum()
print(f"the bound weighs t = 1 about {zeta[0] / zeta[500]:.0f} times as much as t = 501")
print(f"share of all the weight on the cleanest tenth of the times: {share:.0%}")
assert zeta[-1] < 2 * zeta.min()
assert share > 0.3 and zeta[0] > 100 * zeta[500]

# %% [markdown] id="bound-read"
# The bound weighs the last traces of noise most heavily, because every bit of a pixel counts for a likelihood.
# $L_\text{simple}$ shifts the network's effort to stronger noise, where the content of the image is decided. In DDPM's
# experiments likelihoods became slightly worse, from 3.70 to 3.75 bits per value, and images much better, from an FID
# of 13.51 to 3.17 (their table 1).
#
# Note what the weights do *not* change. Each term is smallest for the same prediction, whatever its positive weight. A
# network that could represent any function would end at the same one; the weights decide at which times a *limited*
# network does best.

# %% [markdown] id="points"
# ## 4 · The whole loop, on points
#
# Before images, a world that can be seen whole: points on two half moons. An "image" is now a pair of numbers,
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
# > **Given now, explained in chapter 04: how the time enters.** A number such as $t = 437$ is hard to use for a
# > network. So it is turned into a vector of sines and cosines of different frequencies, like the hands of many clocks.
# > Times close to each other get similar vectors, distant ones different vectors. The network reads that vector beside
# > its input. The coordinates of the point get such a vector too, so that a small change of place changes
# > the input noticeably. (`cond` is not used in this chapter: in later ones it holds what the image is to show.)


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
# The loss of one training step takes five short lines. Here they are by hand, for four points:

# %% id="step-by-hand"
torch.manual_seed(0)  # the network's random start
model = PointNet().to(device)
generator = torch.Generator().manual_seed(0)
x0 = moons[:4]

t = sample_times(4, T, generator).to(device)  # (4,)
eps = torch.randn(x0.shape, generator=generator).to(device)  # (4, 2)
x_t = add_noise(x0, eps, t, alpha_bar)  # (4, 2)
eps_hat = model(x_t, t)  # (4, 2): the network receives x_t and t, neither x0 nor eps
loss = noise_prediction_loss(eps_hat, eps).mean()  # a number
print("t", t.tolist(), " loss", round(loss.item(), 3))

# %% [markdown] id="ex-step-text"
# An untrained network has a loss near 1 (only near: four points are few, and its outputs are not exactly 0).
#
# ### Exercise 4 · The training step
#
# ●●●○○ · 15 minutes. Make these lines a function of model, clean data, schedule and generator. It should work for
# points and for images of any size, with any model: nothing in it depends on what the data are. There are
# `len(alpha_bar)` times; do not use the $T$ of this notebook. Draw random numbers from `generator` only. The training
# loop calls `.backward()` on what you return.


# %% id="ex-step"
def training_step(model, x0, alpha_bar, generator):
    """Add noise to the clean x0, let the model predict it, return the mean loss: a number with gradients, shape ()."""
    ### BEGIN SOLUTION
    #: a time for each sample (the generator may live on the CPU: .to(x0.device))
    t = sample_times(len(x0), len(alpha_bar), generator).to(x0.device)
    #: standard normal noise of the shape of x0
    eps = torch.randn(x0.shape, generator=generator, device=generator.device).to(x0.device)
    #: the noisy samples
    x_t = add_noise(x0, eps, t, alpha_bar)
    #: compare the model's prediction with the noise; the mean over the batch
    return noise_prediction_loss(model(x_t, t), eps).mean()
    ### END SOLUTION


# %% id="check-step"
training_step = check("06.training_step", training_step)

# %% [markdown] id="ema-text"
# ### A moving average of the weights
#
# Each batch is a small random sample, so each update also moves the weights in a random direction: they fluctuate
# around good values without settling. The remedy is to keep a second copy of the network whose weights are a slow
# average of the first one's, an *exponential moving average* (EMA). The copy is never trained itself.
#
# $$\bar\theta \;\leftarrow\; \rho\,\bar\theta + (1 - \rho)\,\theta$$
#
# $\theta$ are the weights after the update, $\bar\theta$ the averaged ones, and $\rho$ (`decay`) is how much of itself
# the average keeps. With $\rho = 0.99$ it averages over about $1 / (1 - \rho) = 100$ updates. Images are drawn with
# $\bar\theta$.
#
# ### Exercise 5 · Update the average
#
# ●●○○○ · 10 minutes. Work in place: the tensors of `average` themselves change, no gradient is recorded, and
# nothing is returned.


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
# torch has its own function for this, in `torch.optim.swa_utils`. After twenty updates both are equal:

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
# Data, times, noise, `add_noise`, model, loss, optimiser, average: everything is in place. We write the loop as a
# function with `yield` (Python calls this a generator, too; it has nothing to do with random numbers). It makes one
# update, yields the step and the loss, and waits, so that the progress bar and the plot can stay outside.
#
# Three things are new. `AdamW` is the usual optimiser. Gradients longer than 1 are shortened to length 1 (*gradient
# clipping*), so that a single unusual batch cannot ruin the weights. And early in training the average keeps less of
# itself, so that the random start is soon forgotten.


# %% id="loop"
def fit(model, average, data, steps, batch=256, learning_rate=2e-3, decay=0.995, seed=0):
    """Train `model` to predict the noise in `data`, and update `average`; yields (step, loss) after each update."""
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
# The loss of a batch fluctuates, since each batch has other samples, other times and other noise. To compare networks
# we need the *same* test for all: fixed samples, fixed noise, times spread evenly from 0 to $T-1$.


# %% id="examine"
@torch.no_grad()
def examine(model, data, count=1000, seed=1):
    """The loss and the time of `count` test cases, the same for every model: two tensors (count,)."""
    generator = torch.Generator().manual_seed(seed)
    x0 = data[torch.randint(len(data), (count,), generator=generator).to(data.device)]
    eps = torch.randn(x0.shape, generator=generator).to(x0)
    t = (torch.arange(count) * T // count).to(x0.device)
    return noise_prediction_loss(model(add_noise(x0, eps, t, alpha_bar), t), eps), t


# %% id="train-points"
model = PointNet().to(device)
first_weights = copy.deepcopy(model.state_dict())
average = copy.deepcopy(model).requires_grad_(False)
before = examine(model, moons)[0].mean().item()
steps = budget(smoke=150, laptop=2000, gpu=2000)

tests = []
live = LivePlot("The loss on the points falls steeply, then slowly, and stays well above zero.")
for step, loss in fit(model, average, moons, steps):
    live.update(step, loss)
    if step % (steps // 50) == 0:
        raw, smooth_loss = (examine(network, moons)[0].mean().item() for network in (model, average))
        tests.append((step, raw, smooth_loss))
live.finish()

# %% [markdown] id="ema-plot-text"
# The curve looks as if training were nearly over after a few hundred steps. Now the fixed test, for both networks. (Do
# not compare its values with those of the curve: these 1,000 cases, points of the training set, may happen to be easier
# or harder than most. Compare values within one test.)

# %% id="ema-plot" tags=["static"]
numbers, raw_losses, smooth_losses = zip(*tests)
figure, ax = plt.subplots(figsize=(6.4, 2.8))
ax.plot(numbers, raw_losses, color="#9A9A9A", linewidth=1.2, linestyle="-", label=r"the network, $\theta$")
ax.plot(numbers, smooth_losses, color="#0072B2", linestyle="-", label=r"its average, $\bar\theta$")
ax.set(xlabel="step", ylabel="loss in the test", ylim=(min(smooth_losses) - 0.005, min(smooth_losses) + 0.06))
ax.legend()
show(figure, "The network's test loss fluctuates from step to step; the average's falls smoothly, mostly below it.")

later = len(tests) // 2
gain = [raw - slow for raw, slow in zip(raw_losses[later:], smooth_losses[later:])]
better = sum(g > 0 for g in gain)
print(f"before training {before:.3f}; after: network {raw_losses[-1]:.3f}, average {smooth_losses[-1]:.3f}")
print(f"the average is better in {better} of the last {len(gain)} tests, by {sum(gain) / len(gain):.4f} on average")
assert smooth_losses[-1] < before
if budget(smoke=False, laptop=True, gpu=True):
    assert better > len(gain) / 2

# %% [markdown] id="floor-text"
# At some steps the network is as good as its average, at others clearly worse, and nobody knows beforehand at which. So
# draw with the average, as DDPM does. (This is one training, and it compares losses, not samples. Section 5 compares
# the losses again, on digits.)
#
# ### Why not zero?
#
# For the same reason as with the coin in the fog. A noisy point may have come from many clean ones; even the best
# prediction is an average, and misses. Here we can compute by how much. The data are 4,000 known points, so the best
# prediction is the average over all of them, each weighted by how likely it is to be behind this $x_t$ (`best_x0`
# computes it; section 7 shows the formula). On average no network can have a lower loss on these data than this
# prediction: its loss is the **floor**.

# %% id="floor"
from course_utils.diffusion.objectives import best_x0, eps_from_x0


def best_model(data):
    """The best possible eps_hat for a finite data set, as a model(x_t, t)."""
    return lambda x_t, t, cond=None: eps_from_x0(x_t, best_x0(x_t, t, alpha_bar, data), t, alpha_bar)


best = examine(best_model(moons), moons)[0]
floor, excess = best.mean().item(), examine(average, moons)[0] - best
error = 1.96 * excess.std().item() / len(excess) ** 0.5
print(f"untrained {before:.3f}, our averaged network {smooth_losses[-1]:.3f}, the floor {floor:.3f}")
print(f"above the floor by {excess.mean().item():.3f} ± {error:.3f} (95%, the same {len(excess)} cases)")
assert smooth_losses[-1] > floor
if budget(smoke=False, laptop=True, gpu=True):
    assert smooth_losses[-1] < floor + 0.03

# %% [markdown] id="sampler-box"
# So most of the remaining loss cannot be avoided by any network. (Both numbers are for these 1,000 cases.) Can this one
# draw?
#
# > **Given now, built in chapter 07: the sampler**, here DDPM's. It starts from pure noise at $t = T-1$, lets the
# > network predict the noise, goes a small step towards $\hat x_0$, adds a little fresh noise, and repeats.
# > With `clip=1` every $\hat x_0$ on the way is cut to $[-1, 1]$, the range of images.

# %% id="sampler"
from course_utils.diffusion.samplers import ddpm, finish, trailing_times


def draw(model, shape, steps=50, seed=0, clip=None):
    """Samples of the given shape, drawn by the model from pure noise."""
    generator = torch.Generator().manual_seed(seed)
    x_T = torch.randn(shape, generator=generator).to(device)
    return finish(ddpm(model, x_T, alpha_bar, trailing_times(T, steps), generator, clip=clip))


# %% [markdown] id="blind-text"
# ### A failure: a network without the time
#
# In many articles the loss reads $\|\varepsilon - \varepsilon_\theta(x_t)\|^2$, without $t$. Does that matter?
#
# **Predict first.** Take the same network, from the same start and with the same training, but always give it $t = 0$.
# What happens to the loss, and to the samples?
#
# <details><summary>Answer (after running the two cells below)</summary>
# The loss is about a third higher, and the samples fill the space between the moons. Consider a point somewhat beside a
# moon. At t = 50 it is a point of the moon that was pushed aside, and the noise in it is known quite well. At t = 900
# it is nearly pure noise. Without the time the network has to give one output for both: an average again, over answers
# to different questions.
# </details>


# %% id="blind"
class Blind(PointNet):
    """A PointNet that does not get the time."""

    def forward(self, x_t, t, cond=None):
        return super().forward(x_t, torch.zeros_like(t))


blind = Blind().to(device)
blind.load_state_dict(first_weights)
blind_average = copy.deepcopy(blind).requires_grad_(False)
for _ in fit(blind, blind_average, moons, steps):
    pass
tested = [examine(network, moons)[0] for network in (average, blind_average)]
with_time, without_time = (each.mean().item() for each in tested)
rise = tested[1] - tested[0]
error = 1.96 * rise.std().item() / len(rise) ** 0.5
print(f"loss with the time {with_time:.3f}, without it {without_time:.3f}; ", end="")
print(f"difference {rise.mean().item():.3f} ± {error:.3f} (95%, {len(rise)} cases, one training each)")
if budget(smoke=False, laptop=True, gpu=True):
    assert without_time > with_time + 0.04

# %% id="blind-plot" tags=["static"]
drawn = [moons[:1500], draw(average, (1500, 2)), draw(blind_average, (1500, 2))]
gaps = [torch.cdist(found, moons).min(1).values for found in drawn[1:]]
off, far = [gap.mean().item() for gap in gaps], [(gap > 0.1).float().mean().item() for gap in gaps]
titles = ["the data", f"with the time\n{off[0]:.2f} off", f"without it\n{off[1]:.2f} off"]
figure, panels = plt.subplots(1, 3, figsize=(8.4, 3.5), sharex=True, sharey=True)
for ax, found, title in zip(panels, drawn, titles):
    ax.scatter(*found.cpu().T, s=2, color="#0072B2")
    ax.set(title=title, xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xlabel="$x_0$, first")
panels[0].set_ylabel("$x_0$, second")
show(
    figure,
    "The moons; samples of our network, most of them on the moons and some in between; samples of the network without "
    "the time, which fill the space between the moons. Above each: how far its samples lie from the nearest point of "
    "the data, on average.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert off[0] < 0.08 and off[0] < off[1] and far[0] < 0.25 < far[1]

# %% [markdown] id="field-text"
# What has the network learned? Evaluate it everywhere. From each place on a grid a line leads to $\hat x_0$, the
# prediction of where this point came from.
#
# **Predict first.** Where do the lines end at $t = 800$?
#
# <details><summary>Answer (after running the cell below)</summary>
# Around the middle, between the moons, where there are hardly any data: the average again. At t = 100 most end near the
# moons. (In regions that noisy points never reach, the network was never trained, and its output means nothing.)
# </details>

# %% id="field" tags=["static"]
from course_utils.diffusion.objectives import x0_from_eps as clean_prediction  # you write it in section 7

side = torch.linspace(-2.2, 2.2, 12, device=device)
places = torch.cartesian_prod(side, side)  # (144, 2)
in_data = {"angles": "xy", "scale_units": "xy", "scale": 1}  # lines in the units of the axes
figure, panels = plt.subplots(1, 3, figsize=(8.4, 3.5), sharex=True, sharey=True)
for ax, level in zip(panels, (100, 400, 800)):
    t = torch.full((len(places),), level, device=device)
    with torch.no_grad():
        x0_hat = clean_prediction(places, average(places, t), t, alpha_bar)
    ax.scatter(*moons[:800].cpu().T, s=1, color="#B8B8B8")
    ax.quiver(*places.cpu().T, *(x0_hat - places).cpu().T, width=0.003, color="#56B4E9", **in_data)
    ax.scatter(*x0_hat.cpu().T, s=7, color="#D55E00", zorder=3)
    ax.set(title=f"t = {level}", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xlabel="$x_t$, first")
panels[0].set_ylabel("$x_t$, second")
show(
    figure,
    "Lines from a grid of places to the predicted clean points, orange dots: most of them near the moons at t = 100, on "
    "a slanted patch between the moons' outer ends at t = 400, crowded around the middle at t = 800.",
)

# %% [markdown] id="unet-box"
# ## 5 · The same loop, on images
#
# > **Given now, explained in chapter 04: the U-Net.** A network that processes an image at three sizes (16 × 16, 8 × 8,
# > 4 × 4) and returns one of the same size. The time enters every block, as sines and cosines. `PictureUNet` is
# > a small version of `diffusers.UNet2DModel`.
#
# For the loop it is a model like any other: `model(x_t, t)`. Not one line of `fit` changes.

# %% id="unet"
from course_utils.models.unet import PictureUNet

torch.manual_seed(0)
model = PictureUNet(channels=1, size=16).to(device)
print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters")
print("output", tuple(model(pictures[:2], torch.tensor([3, 700], device=device)).shape))

# %% [markdown] id="overfit-text"
# ### First of all: overfit one image
#
# Before any long training, try the shortest one: a data set of *one image*. Section 1 says what must happen: in a
# world with a single image the floor is 0, so the loss must fall far, and sampling must give that image. If it does
# not, look for a bug in data, noise, model or loss before you train any longer.

# %% id="overfit" tags=["static"]
one = pictures[3:4]
overfitted = copy.deepcopy(model)
average = copy.deepcopy(overfitted).requires_grad_(False)
before = examine(overfitted, one, 100)[0].mean().item()
for _ in fit(overfitted, average, one, budget(smoke=8, laptop=100, gpu=300), batch=16, decay=0.95):
    pass
after = examine(average, one, 100)[0].mean().item()
print(f"loss before {before:.3f}, after {after:.3f}")
assert after < before

sample = draw(average.eval(), (1, 1, 16, 16), steps=20, clip=1)
show(
    plot_pictures(torch.cat([one, sample]), ["the one image", "drawn from noise"], columns=6),
    "The one image that the network was trained on, and what it draws from pure noise: the same digit, at most "
    "a little paler, on a ground that is not quite black.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert after < 0.1 and (sample - one).abs().mean() < 0.25

# %% [markdown] id="train-text"
# ### Now all of them
#
# The chapter's main training: 1,440 digits, and the same loop. The bar shows the time left. Halfway we
# keep a copy, for a comparison below; after that you can stop the cell and go on with the network as it is then.

# %% id="train"
import time

from tqdm.auto import tqdm

average = copy.deepcopy(model).requires_grad_(False)
untrained = copy.deepcopy(model)
unseen, _ = digits.load(16, split="test")  # 357 digits that it never trains on
unseen = unseen.to(device)
before = examine(model, unseen, 300)[0].mean().item()
steps = budget(smoke=12, laptop=1000, gpu=6000)
batch = budget(smoke=16, laptop=32, gpu=64)

live = LivePlot("The loss on the digits: a steep fall, then a long slow decline.", seconds=5, log_scale=True)
start = time.process_time()
for step, loss in tqdm(fit(model, average, pictures, steps, batch=batch), total=steps):
    live.update(step, loss)
    if step == steps // 2:
        halfway = copy.deepcopy(average).eval()
live.finish()
print(f"{steps} updates took {time.process_time() - start:.0f} seconds of processor time")

# %% [markdown] id="train-read-text"
# The test, on digits that were not used for training, and then what the network draws:

# %% id="train-read"
model.eval()
average.eval()
of_average, of_network = (examine(network, unseen, 300)[0] for network in (average, model))
after, gain = of_average.mean().item(), of_network - of_average
error = 1.96 * gain.std().item() / len(gain) ** 0.5
print(f"loss on unseen digits: before {before:.3f}, after {after:.3f}")
print(f"the network without averaging: higher by {gain.mean().item():.4f} ± {error:.4f} (95%, {len(gain)} cases)")
assert after < before
if budget(smoke=False, laptop=True, gpu=True):
    assert after < 0.06 and gain.mean() > error

# %% id="digits-drawn" tags=["static"]
drawn = draw(average, (60, 1, 16, 16), steps=budget(smoke=5, laptop=50, gpu=50), clip=1)
show(plot_pictures(drawn, columns=15), "Sixty digits that the network drew from pure noise: seed 0, none selected.")

# %% [markdown] id="legible-text"
# ### Are they digits?
#
# To compare networks we need a number, not an impression. Here is a simple one. A drawn image counts as *legible* if
# (a) its nearest training image is at most half as far away as the median training image (noise and blurs are about
# equally far from everything), and (b) its five nearest training images all show the same digit. Unseen real digits set
# the scale; pure noise and the mean of all digits are the controls. In brackets are 95% intervals. They are Wilson's,
# since the formula of chapter 02 would give an interval of no width for 0 of 60.


# %% id="legible"
def legible(candidates):
    """Which images pass as digits, and which digit the nearest one is: (n,) bool, (n,) int64."""
    distance = torch.cdist(candidates.flatten(1), pictures.flatten(1))  # (n, 1440)
    nearest = distance.topk(5, largest=False)
    which = labels.to(distance.device)[nearest.indices]  # (n, 5)
    is_near = nearest.values[:, 0] <= distance.median(1).values / 2
    return is_near & (which == which[:, :1]).all(1), which[:, 0]


def with_error(passed):
    """A share and its 95% interval (Wilson's), as text."""
    n, share, z = len(passed), passed.float().mean().item(), 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return f"{share:.0%} ({abs(middle - half):.0%} to {middle + half:.0%}) of {n}"


noise_pictures = torch.randn(60, 1, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
mean_picture = pictures.mean(0, keepdim=True)
for name, candidates in [("real, unseen", unseen), ("drawn", drawn), ("noise", noise_pictures)]:
    passed, which = legible(candidates)
    print(
        f"{name:13} {with_error(passed)} pass; nearest to a 0, 1, … 9: {torch.bincount(which, minlength=10).tolist()}"
    )
print("the mean of all digits", "passes" if legible(mean_picture)[0].item() else "does not pass")
if budget(smoke=False, laptop=True, gpu=True):
    assert legible(drawn)[0].float().mean() > 0.4 and len(legible(drawn)[1].unique()) >= 8
    assert not legible(noise_pictures)[0].any() and not legible(mean_picture)[0].any()

# %% [markdown] id="blind-digits-text"
# About two thirds of the sixty drawn images pass, fewer than of the real digits: the two intervals do not overlap. Each
# of the ten digits is the nearest one to at least two of them. Neither the noise nor the mean of all digits passes.
#
# ### Is the time needed for images, too?
#
# Two coordinates hardly show how noisy they are; 256 pixels may. So perhaps a network for images can do without $t$.
# We train a U-Net that always gets $t = 0$, from the same start, for half of the updates, and compare it with the copy
# that we kept halfway.
#
# **Predict first.** Will it be as bad as on the points?
#
# <details><summary>Answer (after running the cell below)</summary>
# Its loss is much less bad: after 500 updates it is about a tenth higher on the same 1,000 test cases, where on the
# points it was about a third higher. A likely reason is that the noise level can be estimated from the image itself,
# though not perfectly. But fewer of its digits are legible: 23 per cent against 41, and the two intervals of 200 digits
# each do not overlap. All this holds for these two networks; how much one training differs from the next, a
# single training each cannot show.
# </details>


# %% id="blind-digits"
class BlindUNet(PictureUNet):
    """A PictureUNet that does not get the time."""

    def forward(self, x_t, t, cond=None):
        return super().forward(x_t, torch.zeros_like(t))


blind = BlindUNet(channels=1, size=16).to(device)
blind.load_state_dict(untrained.state_dict())
blind_average = copy.deepcopy(blind).requires_grad_(False)
for _ in fit(blind, blind_average, pictures, steps // 2, batch=batch):
    pass
blind_average.eval()
number = budget(smoke=10, laptop=200, gpu=200)
losses = {}
for name, network in (("with the time", halfway), ("without it", blind_average)):
    losses[name] = examine(network, unseen, 1000)[0].mean().item()
    passed, _ = legible(draw(network, (number, 1, 16, 16), steps=budget(smoke=3, laptop=20, gpu=20), clip=1))
    print(f"{name:13} after {steps // 2} updates: loss {losses[name]:.4f}, legible {with_error(passed)}")
if budget(smoke=False, laptop=True, gpu=True):
    assert losses["with the time"] < losses["without it"] < 1.3 * losses["with the time"]

# %% [markdown] id="package-text"
# ### The package's loop
#
# Later chapters train with `course_utils.training.train`. It is the same loop, plus what long trainings need: warm-up
# (the learning rate rises from nearly 0 at the start) and decay of the learning rate, checkpoints, resuming, several
# GPUs. Its random numbers are a function of the seed and of the sample's number in the run, so that a stopped run
# continues exactly as if it had never stopped. With the same numbers, written out by hand:

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
# One number for a thousand levels hides a lot. `examine` returned a loss for each test case, together with its time.
# Sort them into bins of time and average within each bin: time $t$ belongs to bin number
# $\lfloor t \cdot \text{bins} / T \rfloor$, counted from 0, where $\lfloor\cdot\rfloor$ rounds down.
#
# **Predict first.** At which end is the loss larger, where there is hardly any noise ($t \approx 0$) or hardly any
# image ($t \approx T$)?
#
# <details><summary>Answer (after running the cells below)</summary>
# At the clean end. At t near 0 there is so little noise that it is hard to find (and removing it hardly changes the
# image). At t near T nearly everything is noise, and even the trivial prediction "all of it" is nearly right. So a
# small loss says little by itself; compare it with the trivial prediction's.
# </details>

# %% [markdown] id="ex-by-time-text"
# ### Exercise 6 · The mean loss in each bin
#
# ●●●○○ · 15 minutes. A bin without samples has no mean: leave it NaN, and a plot leaves a gap. `bins` need not divide
# `T`. An example: losses 1, 2 and 6 at the times 0, 4 and 9, with `T = 10` and `bins = 2`, give 1.5 and 6.


# %% id="ex-by-time"
def loss_by_time(losses, t, T, bins):
    """The mean loss in each of `bins` equal parts of 0 ... T-1: (n,), (n,) -> (bins,); NaN where there is none."""
    ### BEGIN SOLUTION
    place = t * bins // T  # the bin of each sample
    return torch.stack([losses[place == b].mean() for b in range(bins)])
    ### END SOLUTION


# %% id="check-by-time"
loss_by_time = check("06.loss_by_time", loss_by_time)

# %% [markdown] id="by-time-plot-text"
# We plot our network on training digits and on unseen ones, and two predictors that need no training, for comparison:
#
# * **the trivial prediction** "nearly everything is noise": $\hat\varepsilon = \sqrt{1-\bar\alpha_t}\;x_t$;
# * **the memoriser**: `best_x0` with the training digits, the optimal predictor if no other digits existed.


# %% id="by-time-plot" tags=["static"]
def trivial(x_t, t):
    """Call x_t itself the noise, scaled as it would be if there were no image."""
    return expand_like((1 - alpha_bar[t]).sqrt(), x_t) * x_t


memoriser = best_model(pictures)
curves = {
    "trivial prediction": (trivial, unseen),
    "network, unseen digits": (average, unseen),
    "network, training digits": (average, pictures),
    "memoriser, unseen digits": (memoriser, unseen),
    "memoriser, training digits": (memoriser, pictures),
}
figure, ax = plt.subplots(figsize=(7, 4))
by_time = {}
for name, (predict, data) in curves.items():
    by_time[name] = loss_by_time(*examine(predict, data, budget(smoke=100, laptop=1000, gpu=4000)), T, 20).cpu()
    ax.semilogy(torch.arange(20) * 50 + 25, by_time[name], label=name)
ax.set(xlabel="time $t$", ylabel="loss", ylim=(5e-4, 3))
ax.legend(fontsize=9)
show(
    figure,
    "Loss against time. The network's two curves nearly coincide, far below the trivial prediction until they approach "
    "it at the noisy end. The memoriser's loss on training digits is almost 0 in weak noise; on unseen ones it shoots "
    "up there, far above the network's; in strong noise it is at or below the network's on both.",
)

# %% id="by-time-print"
print("mean loss for t in   " + "".join(f"{50 * b:>5}-{50 * b + 49:<4}" for b in (0, 2, 6, 10, 14, 19)))
for name, curve in by_time.items():
    print(f"{name:27}" + "".join(f"{curve[b].item():<10.4f}" for b in (0, 2, 6, 10, 14, 19)))
if budget(smoke=False, laptop=True, gpu=True):
    ours, theirs = by_time["network, unseen digits"], by_time["network, training digits"]
    assert ours[0] > 3 * ours[19] and (ours / theirs).log().abs().max() < 0.3
    assert by_time["memoriser, unseen digits"][0] > 5 * ours[0]
    assert ours[19] < by_time["trivial prediction"][19]
if budget(smoke=False, laptop=True, gpu=False):
    assert by_time["memoriser, unseen digits"][19] < ours[19]

# %% [markdown] id="by-time-read"
# (Each number is a mean over 50 test cases, or 200 on a GPU.) At the noisy end the trivial prediction is already good,
# and the network gains little over it. There is more to gain: at 950 to 999 the memoriser has about a third of the
# network's loss, even on unseen digits. But the difference is of two thousandths, and in a plain average over $t$ it
# hardly counts. The usual argument for visiting the middle more often in training is that the content of an image is
# decided there. Our table does not show whether it is right.
#
# **A perfect fit would only copy.** The memoriser *is* the floor on the training digits, and in weak noise it
# fails on unseen ones, since its prediction is always an average of training digits. Our network's losses on unseen
# digits and on those it was trained on differ by about a tenth at most in this table, and on the latter it stays above
# the floor. Section 8 shows what follows for drawing.

# %% [markdown] id="blot-text"
# ## 7 · The blurred average
#
# The predicted noise $\hat\varepsilon$ implies a whole image: solve $x_t = \sqrt{\bar\alpha_t}\,x_0 +
# \sqrt{1-\bar\alpha_t}\,\varepsilon$ for $x_0$, with $\hat\varepsilon$ in place of $\varepsilon$:
#
# $$\hat x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\;\hat\varepsilon}{\sqrt{\bar\alpha_t}}$$
#
# $\hat x_0$ is the clean image that follows from the prediction: denoising in a single step.
#
# ### Exercise 7 · From the noise to the image
#
# ●●○○○ · 10 minutes. Each sample of the batch has its own $t$; `expand_like` gives one number per sample the
# shape that it needs, for images and for points. A test: for `x_t = add_noise(x0, eps, t, alpha_bar)` it returns `x0`.


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
# `pred_original_sample`: all agree.

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
# Now take one unseen digit in ever stronger noise, always with the same $\varepsilon$.
#
# **Predict first.** What will $\hat x_0$ from $t = 900$ look like? A wrong digit? A noisy one? Something else?
#
# <details><summary>Answer (after running the cell below)</summary>
# Something else: a speckled bright column in the middle. It resembles the average of many digits. The rest of this
# section shows that the blur belongs to the best possible prediction, too. The speckles do not: they are the network's
# own errors.
# </details>

# %% id="blot" tags=["static"]
levels = torch.tensor([50, 200, 400, 550, 700, 800, 900, 999], device=device)
x0 = unseen[7:8].expand(len(levels), -1, -1, -1)
eps = torch.randn(unseen[:1].shape, generator=torch.Generator().manual_seed(4)).to(device).expand_as(x0)
x_t = add_noise(x0, eps, levels, alpha_bar)
with torch.no_grad():
    x0_hat = x0_from_eps(x_t, average(x_t, levels), levels, alpha_bar)
heads = [f"t = {level}" for level in levels.tolist()]
show(
    plot_pictures(torch.cat([x_t, x0_hat]), columns=len(levels), heads=heads, rows=["$x_t$", r"$\hat x_0$"]),
    "Upper row: one digit in ever stronger noise. Lower row: the clean image predicted in one step, sharp at first, then "
    "softer, at last a speckled bright column in the middle.",
)

# %% [markdown] id="blot-why"
# Why is that the best prediction? The proof has two steps.
#
# **The best prediction is the average.** Given $x_t$, predict any $\hat x_0$, and let $\mathbb{E}[x_0 \mid x_t]$ be the
# average of all $x_0$ that could be behind this $x_t$, weighted by how likely each is. Add and subtract it inside the
# square; the cross term averages to zero, and
#
# $$\mathbb{E}\bigl[\|x_0 - \hat x_0\|^2 \mid x_t\bigr] = \mathbb{E}\bigl[\|x_0 - \mathbb{E}[x_0 \mid x_t]\|^2 \mid
#   x_t\bigr] + \bigl\|\mathbb{E}[x_0 \mid x_t] - \hat x_0\bigr\|^2$$
#
# The first part does not depend on the prediction: it is the floor. The second is smallest for
# $\hat x_0 = \mathbb{E}[x_0 \mid x_t]$. Since $\hat\varepsilon$ and $\hat x_0$ determine each other, the best
# $\hat\varepsilon$ leads to the same $\hat x_0$.

# %% [markdown] id="average-text"
# **The average can be written down.** In a finite data set of images $x^{(1)}, x^{(2)}, \dots$, each could be behind
# $x_t$, with suitable noise. Beforehand all are equally probable, and the noise is normal, so by Bayes' rule the
# probability of image $i$ is
#
# $$\pi_i = \frac{\exp\bigl(-\|x_t - \sqrt{\bar\alpha_t}\,x^{(i)}\|^2 \,/\, (2(1-\bar\alpha_t))\bigr)}
#   {\sum_j \exp\bigl(-\|x_t - \sqrt{\bar\alpha_t}\,x^{(j)}\|^2 \,/\, (2(1-\bar\alpha_t))\bigr)},
#   \qquad \mathbb{E}[x_0 \mid x_t] = \sum_i \pi_i\,x^{(i)}$$
#
# In words: the closer a dimmed image is to $x_t$, the more it counts; the denominator makes the weights add
# up to 1. This is a softmax. In strong noise the dimmed images hardly differ from each other, and $1-\bar\alpha_t$ is
# close to 1; so the weights become nearly equal, and the sum is a blur of many images. By hand:

# %% id="average"
from course_utils.diffusion.objectives import posterior_weights


def weights_by_hand(x_t, t, data):
    """The probability of each image of the data, for one x_t: (1, ...), a whole number, (n, ...) -> (n,)."""
    a = alpha_bar[t]
    distance = (x_t - a.sqrt() * data).flatten(1).square().sum(1)  # (n,)
    return torch.softmax(-distance / (2 * (1 - a)), dim=0)


weights = weights_by_hand(x_t[3:4], 550, pictures)
assert torch.allclose(weights, posterior_weights(x_t[3:4], levels[3:4], alpha_bar, pictures)[0], atol=1e-4)
print(f"{len(weights)} weights, sum {weights.sum():.3f}, largest {weights.max():.3f}; ", end="")
print(f"{(weights > 0.001).sum()} are above 0.001")

# %% [markdown] id="coin-again"
# Is that the right average? Test it with the coins. For a data set of two points, $+1$ and $-1$, the sum is a known
# function, $\tanh\bigl(\sqrt{\bar\alpha_t}\,x_t / (1-\bar\alpha_t)\bigr)$. Up to chance, the average of those of your
# 200,000 coins that look like 0.3 must agree with it.

# %% id="coin-again-run"
coins = torch.tensor([[-1.0], [1.0]], device=device)
for level in (100, 500, 900):
    x0, x_t_ = toss_coins(level)
    like_this = x0[(x_t_ - 0.3).abs() < 0.02]  # the coins that look like 0.3
    t = torch.tensor([level], device=device)
    formula = best_x0(torch.tensor([[0.3]], device=device), t, alpha_bar, coins).item()
    a = alpha_bar[level]
    print(f"t = {level}: {len(like_this):5} coins, average {like_this.mean():+.3f}; formula {formula:+.3f}")
    assert abs(formula - torch.tanh(a.sqrt() * 0.3 / (1 - a)).item()) < 1e-4
    assert abs(like_this.mean().item() - formula) < 0.05

# %% [markdown] id="compare-text"
# Now the digits: the network's predictions, the exact average of the 1,440 training digits, and the single training
# digit with the largest weight, with that weight above it.

# %% id="compare" tags=["static"]
weights = posterior_weights(x_t, levels, alpha_bar, pictures)  # (8, 1440)
exact = best_x0(x_t, levels, alpha_bar, pictures)
top = weights.max(1)
titles = [f"t = {level}" for level in levels.tolist()] + [""] * 8 + [f"{share:.0%}" for share in top.values.tolist()]
names = ["network", "exact average", "most likely digit"]
show(
    plot_pictures(torch.cat([x0_hat, exact, pictures[top.indices]]), titles, columns=8, rows=names),
    "Top: the network's predictions. Middle: the exact average, a sharp digit at small t and a grey blur at large t. "
    "Bottom: the most likely training digit and its share of the weight, large at small t and nearly 0 at large t.",
)

# %% [markdown] id="compare-many-text"
# That is one digit and one noise. Now a hundred training digits and a hundred unseen ones, each with a noise of its
# own: how well do network and exact average agree, and how often does one training image have nearly all of the weight?

# %% id="compare-many"
fresh = torch.randn(100, 1, 16, 16, generator=torch.Generator().manual_seed(5)).to(device)
near, alone = {}, {}
for name, data in (("training digits", pictures[:100]), ("unseen digits", unseen[:100])):
    for level in levels.tolist():
        t = torch.full((100,), level, device=device)
        noisy = add_noise(data, fresh, t, alpha_bar)
        with torch.no_grad():
            both = [x0_from_eps(noisy, average(noisy, t), t, alpha_bar), best_x0(noisy, t, alpha_bar, pictures)]
        both = [each.flatten(1) - each.flatten(1).mean(1, keepdim=True) for each in both]
        r = torch.cosine_similarity(*both)  # the correlation for each digit: (100,)
        near[name, level] = r.mean().item()
        largest = posterior_weights(noisy, t, alpha_bar, pictures).max(1).values
        alone[name, level] = (largest > 0.9).float().mean().item()
        print(f"{name:15} t = {level:3}: correlation {r.mean():.2f} ± {1.96 * r.std() / 10:.3f}; ", end="")
        print(f"one image has over 90% of the weight for {alone[name, level]:4.0%}")
if budget(smoke=False, laptop=True, gpu=True):
    assert min(near.values()) > 0.7 and all(value > 0.9 for (_, level), value in near.items() if level <= 800)
assert alone["training digits", 200] > 0.8 and alone["unseen digits", 200] < 0.7 and alone["training digits", 550] < 0.1

# %% [markdown] id="compare-read"
# The network's predictions agree well with the exact average, with a mean correlation above 0.9 up to t = 800: the blur
# is what the least squared error demands. In the strongest noise the agreement is less close. There small errors in
# $\hat\varepsilon$ are magnified up to 15 times, the price mentioned in section 1, and in the figure above the
# network's prediction is speckled where the average is smooth.
#
# In weak noise the average is often little more than a single training image: at t = 200 one image has over 90 per cent
# of the weight for 97 of the hundred training digits, and for 47 of the hundred unseen ones; from t = 550 on for none.
#
# The blur is also why one step does not make an image: the average of many digits is not a digit. A sampler goes only a
# *small* step towards the average, evaluates the network again, and so settles on one of the many, step by step
# (chapter 07).
#
# **Predict first, then move the slider.** The explorer begins with the first training digit. Does one image have nearly
# all of the weight at $t = 200$ here, too? And does the network's prediction become sharp at about the same $t$ as the
# average?
#
# <details><summary>Answer (after running the cells below)</summary>
# No: for this digit the most likely image has only about half of the weight at t = 200, and the rest is left for
# others. When the average becomes a single image depends on the digit and on the noise. For this one, network and
# average become sharp gradually and over about the same times: both are blurs at t = 900 and show a clear 0 at t = 500,
# where the most likely image has only 14 per cent of the weight.
# </details>

# %% id="filmstrip" tags=["static"]
from course_utils.widgets import explore, filmstrip, ink_blot_explorer

explorer = ink_blot_explorer(average, pictures, alpha_bar)
filmstrip(explorer, [{"t": level} for level in (200, 500, 700, 900)])

# %% [markdown] id="explore-how"
# Live: choose an image and a noise, and move $t$.

# %% id="explore"
explore(explorer)

# %% [markdown] id="elsewhere"
# ## 8 · What you will read elsewhere
#
# **"The network predicts the noise that was added in the last step."** No: *all* the noise in $x_t$. Training jumps
# straight to $t$, and there is no last step in it. To test the claim we jump to $t - 1$, take one more step with fresh
# noise, and compare the network's prediction with all the noise in $x_t$ and with the noise of that last step.

# %% id="last-step"
from course_utils.diffusion.schedules import forward_step

level = 500
t = torch.full((300,), level, device=device)
generator = torch.Generator().manual_seed(0)
early = torch.randn(unseen[:300].shape, generator=generator).to(device)
last = torch.randn(unseen[:300].shape, generator=generator).to(device)
x_t = forward_step(add_noise(unseen[:300], early, t - 1, alpha_bar), last, scaled_linear_beta(T)[level].item())
total = eps_from_x0(x_t, unseen[:300], t, alpha_bar)  # all the noise in x_t
with torch.no_grad():
    eps_hat = average(x_t, t)
with_total = torch.corrcoef(torch.stack([eps_hat.flatten(), total.flatten()]))[0, 1].item()
with_last = torch.corrcoef(torch.stack([eps_hat.flatten(), last.flatten()]))[0, 1].item()
print(f"correlation of the prediction with all the noise {with_total:.2f}, with the last step's {with_last:.2f}")
assert with_total > 0.5 > with_last

# %% [markdown] id="one-network"
# **"There is one network for each step."** One network has just been used at every level, with $t$ as an input. A
# thousand networks would have a thousand times the parameters, each with a thousandth of the training.
#
# **"The loss is the negative log-likelihood."** It comes from a *bound* on it, by removing the weights: section 3.
#
# **"When the loss goes down, the samples get better."** Often, not always. Let the memoriser of section 6 draw. Its
# loss on unseen digits is several times our network's.
#
# **Predict first.** What will its digits look like?
#
# <details><summary>Answer (after running the cell below)</summary>
# More legible: 90 per cent pass against our network's 65, of 60 each, and the two intervals do not overlap, although
# its loss is by far the larger. But they are copies. An image counts as a copy here if it is closer than 0.5 to a
# training image, where the largest possible distance is 32. All sixty of the memoriser's are copies, and none of our
# network's. The loss measures how well the noise in <em>these</em> images is predicted. What samples are worth has to
# be measured on the samples.
# </details>

# %% id="copyist" tags=["static"]
rows, results = [], {}
for name, predict in [("network", average), ("memoriser", memoriser)]:
    loss = examine(predict, unseen)[0].mean().item()
    found = drawn if name == "network" else draw(memoriser, drawn.shape, clip=1)
    passed, _ = legible(found)
    copies = torch.cdist(found.flatten(1), pictures.flatten(1)).min(1).values < 0.5  # of up to 32: hardly visible
    results[name] = loss, passed.float().mean().item(), copies.float().mean().item()
    rows.append(found[:12])
    print(
        f"{name:9} loss {loss:.3f}, legible {with_error(passed)}, copies of a training image {copies.float().mean():.0%}"
    )
show(
    plot_pictures(torch.cat(rows), columns=12, rows=["network", "memoriser"]),
    "Twelve digits each. Top: drawn by our network. Bottom: drawn by the "
    "memoriser, all of them training digits. In several columns it is the same digit.",
)

# %% [markdown] id="copyist-read"
# Compare the columns, too. Both rows start from the same noise and use the same random numbers, and in some columns
# they arrive at the same digit. This is not surprising: section 7 has shown that the two predictions resemble each
# other.

# %% id="copyist-assert"
if budget(smoke=False, laptop=True, gpu=True):
    assert results["memoriser"][0] > 2 * results["network"][0] and results["memoriser"][1] > results["network"][1]
    assert results["memoriser"][2] > 0.9 and results["network"][2] < 0.1

# %% [markdown] id="sum-or-mean"
# **"Sum or mean over the pixels: the two differ only by a constant."** But it multiplies the gradient, and so the
# learning rate. Here is the same plain gradient descent with learning rate 0.1, for twenty updates on batches of 64
# digits, with a network that is a single linear layer:


# %% id="sum-or-mean-run"
class Linear(torch.nn.Module):
    """eps_hat = A x_t + b, the same for all times."""

    def __init__(self, pixels):
        super().__init__()
        self.layer = torch.nn.Linear(pixels, pixels)

    def forward(self, x_t, t, cond=None):
        return self.layer(x_t.flatten(1)).reshape(x_t.shape)


# %% id="sum-or-mean-loop"
def descend(size, factor):
    """The mean squared error before each of twenty updates of plain gradient descent on factor * loss."""
    torch.manual_seed(0)
    small, generator = Linear(size * size), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    x0, _ = digits.load(size)
    losses = []
    for step in range(20):
        loss = factor * training_step(small, x0[step * 64 : step * 64 + 64], alpha_bar.cpu(), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / factor)
    return losses


for size in (8, 16, 32):
    for name, factor in (("mean", 1), ("sum", size * size)):
        losses = descend(size, factor)
        print(f"{size:2} x {size:<2} {name:4}: mean squared error {losses[0]:.2f} -> {losses[-1]:.3g}")
        assert (losses[-1] < losses[0]) == (name == "mean")

# %% [markdown] id="sum-or-mean-read"
# With the mean, the same learning rate works at every size. With the sum, each size would need another one, and this
# one is far too large: each step overshoots, the next overcorrects, and the loss explodes. This is what a learning rate
# that is too large looks like in any training. (Adam hides the difference, since it divides by the gradient's size.
# Clipping would limit the damage: of a long gradient only the direction counts then.)

# %% [markdown] id="own-text"
# ## 9 · Your own images
#
# The loop requires one thing of the data: a tensor of images in $[-1, 1]$. Put the path of a folder of yours in
# place of `None`. PNG, JPEG and other formats are read, cropped to a square and resized. Otherwise the notebook makes
# a folder of its own, with two dozen pages from the picture book.

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
# A short training only shows that it runs. For images worth looking at, train for several thousand updates, best on a
# GPU; then `draw(own_average, (16, 3, 32, 32), clip=1)`. The cost grows quickly with the size of the images;
# chapter 09 shows a remedy.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $t \sim$ uniform on $0 \dots T-1$ | `t = sample_times(len(x0), T, generator)` |
# | $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$ | `x_t = add_noise(x0, eps, t, alpha_bar)` |
# | $\tfrac{1}{d_x}\lVert\varepsilon - \varepsilon_\theta(x_t, t)\rVert^2$ | `noise_prediction_loss(model(x_t, t), eps)` |
# | $\zeta_t = \beta_t^2 / (2\tilde\beta_t\alpha_t(1-\bar\alpha_t))$ | `bound_weights(beta)` |
# | $\bar\theta \leftarrow \rho\,\bar\theta + (1-\rho)\,\theta$ | `ema_update(average, model, decay)` |
# | $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\hat\varepsilon)/\sqrt{\bar\alpha_t}$ | `x0_from_eps(x_t, eps_hat, t, …)` |
# | $\mathbb{E}[x_0 \mid x_t] = \sum_i \pi_i\, x^{(i)}$ | `best_x0(x_t, t, alpha_bar, data)` |
#
# Five sentences to remember: The network predicts all the noise in $x_t$. A loss of 1 means nothing has been learned,
# and the floor is not 0. The best prediction is an average, and in strong noise the average is a blur. Give the network
# the time. Draw with the averaged weights.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. A colleague's network has a loss of 0.4 on 2-D points, another's has 0.04 on photographs. Which
# one is better trained?</summary>
# The numbers do not tell. The floor differs between data sets: neighbouring pixels of a photograph determine much of
# each other, two coordinates do not. Compare each with its own floor, or with the trivial prediction.
# </details>
# <details><summary>2. You train on a single image, and the loss stays at 1. Name three bugs that cause this.</summary>
# New noise is drawn for the loss, so that it is not the noise in x_t: then the best prediction is 0. The optimiser got
# another model's parameters. There is a zero_grad() between backward() and step(), which deletes all gradients.
# </details>
# <details><summary>3. The memoriser has the lowest possible loss on the training set. Why not draw with it?</summary>
# It draws training images and nothing else, as you have seen. A network of our size does not reach it in this training
# and smooths over the differences; everything new that it draws comes from there. (Large networks, trained for long on
# few images, do copy some of them.)
# </details>
#
# **Papers** DDPM: Ho, Jain, Abbeel, [arXiv:2006.11239](https://arxiv.org/abs/2006.11239) (algorithm 1 is your loop;
# section 3.4 drops the weights). Where the bound was first used: Sohl-Dickstein et al.,
# [arXiv:1503.03585](https://arxiv.org/abs/1503.03585). The best denoiser is an average: Karras et al.,
# [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), appendix B. What weights over $t$ do: Kingma and Gao,
# [arXiv:2303.00848](https://arxiv.org/abs/2303.00848). Logit-normal times: Esser et al.,
# [arXiv:2403.03206](https://arxiv.org/abs/2403.03206).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: which times teach most?
#
# Change `sample_times` so that it visits the middle more often, in one line:
# `logit_normal_times(torch.randn(count, generator=generator), T)`, from `course_utils.diffusion.objectives`. Train
# again, and compare `loss_by_time` of both networks. Which levels improved, which got worse? Then decide by `legible`,
# on at least 200 drawn digits of each and with the intervals, which network you prefer.
