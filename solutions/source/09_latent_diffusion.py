# %% [markdown] id="title"
# # 09 · Latent diffusion
#
# Diffusion in pixels is dear: four times the pixels, at least four times the work, at every step. So first make the
# picture small, by an autoencoder, then diffuse *there*, and enlarge what comes out. That is Stable Diffusion's main
# idea, and the whole chapter is about the two doors, in and out.
#
# ![Drawn after equally long training: above coloured noise, below corgis](../chapters/figures/09_equal_time.png)
#
# **After this chapter you can**
# 1. take pictures through an `AutoencoderKL` by hand, both ways, and say what its KL weight and scaling factor do;
# 2. compute what a network costs at which size, and show what equal time buys in pixels and in latents;
# 3. say what the autoencoder loses, by style, and save trained parts in diffusers' layout.
#
# **Time** about three hours, 75 minutes of them for seven exercises. Live training takes two to three minutes on a CPU.
# **You need** from chapter 02 mean, log-variance and KL; from 05 the SNR; from 06 the loop; from 07 a sampler.

# %% id="set-up"
import matplotlib.pyplot as plt
import torch
from diffusers import AutoencoderKL

from course_utils.data import photos, picture_book
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.metrics.pictures import psnr
from course_utils.plotting import LivePlot, plot_pictures, show, use_style

use_style()
plt.rcParams["savefig.dpi"] = 78  # many pictures: a little smaller, so that the notebook stays small
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $x$ | `pictures`, `pages` | pictures in $[-1, 1]$ | (batch, 3, 64, 64) |
# | $f$ | 4 | how many times smaller a latent's side is | a number |
# | $z$ | `z`, `latents` | a latent: a small map of $c = 8$ numbers at each place | (batch, 8, 16, 16) |
# | $\mu, \log\sigma^2$ | `mean`, `logvar` | of $q(z \mid x)$, what the encoder says | each as `z` |
# | $w$ | `kl_weight` | how much the KL counts in the autoencoder's loss | a number |
# | $s$ | `scaling_factor` | what latents are multiplied with before they are diffused | a number |
# | $x_0, x_t, \hat\varepsilon$ | `x0`, `x_t`, `eps_hat` | as before; $x_0$ is now a *scaled latent* | as `z` |
# | $\bar\alpha_t$ | `alpha_bar` | the share of $x_0$'s variance that is left | (1000,) |
#
# A **page** is a picture of the picture book. Latents have no grey or red: their numbers mean what the decoder makes
# of them.

# %% [markdown] id="cost-text"
# ## What a picture costs
#
# Chapter 06 drew digits of 16 · 16 pixels. The same network, with three colours, can be given larger pictures.
#
# **Predict first.** From side 16 to side 128, eight times the side: how many times more operations, and seconds, does
# one look of the network take: 8, 64, or more?

# %% id="cost"
import time

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from course_utils.models.unet_by_hand import UNet, UNetConfig


@torch.no_grad()
def operations(model, x):
    """Operations of one look at x. (The counter cannot see into fused attention: for counting it is switched off.)"""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x, torch.zeros(len(x), device=x.device))
    return counter.get_total_flops()


network, costs = UNet(UNetConfig(channels=3)).eval(), {}
for side in (16, 32, 64, 128):
    x = torch.zeros(1, 3, side, side)
    costs[side], start = operations(network, x), time.perf_counter()
    with torch.no_grad():
        network(x, torch.zeros(1))
    print(
        f"side {side:3}: {x.numel():6,} numbers, {costs[side] / 1e9:6.3f} billion operations "
        f"({costs[side] / costs[16]:6.1f} times), {1000 * (time.perf_counter() - start):6.1f} ms"
    )
assert costs[128] > 64 * costs[16]

# %% [markdown] id="cost-read"
# More than 64 times: convolutions grow with the number of pixels, 64 times here, and attention with its *square*. A
# sampler looks 20 times for each picture, a training many thousand times.
#
# Does a picture need all its numbers? A toy answers it, with no network at all.

# %% [markdown] id="toy-text"
# ## Six times fewer numbers
#
# Cut a photograph into blocks of 4 · 4 pixels. Each block is a row of 3 · 4 · 4 = 48 numbers. Find the 8 directions
# along which the blocks of this photograph vary most (principal components), keep 8 numbers for each block, and go
# back.
#
# **Predict first.** You keep 8 numbers of 48. What will the cat look like: the same, blurred, or in coarse squares?


# %% id="toy"
def blocks(x, f=4):
    """Pictures (batch, 3, f h, f w) as rows, one for each place: (batch h w, 3 f f)."""
    x = x.unflatten(3, (-1, f)).unflatten(2, (-1, f))  # (batch, 3, h, f, w, f)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2)


def joined(rows, like, f=4):
    """The way back: rows as pictures of the shape of `like`."""
    batch, _, height, width = like.shape
    x = rows.reshape(batch, height // f, width // f, 3, f, f)
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def directions(rows):
    """The mean of rows, and the directions along which they vary, the strongest first: (48,), (48, 48)."""
    return rows.mean(0), torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[2]


# %% [markdown] id="toy-between"
# "Encoding" is then one product with a matrix, "decoding" another:

# %% id="toy-run" tags=["static"]
cat = photos.load("chelsea", 256)
rows = blocks(cat)  # (4096, 48)
mean, basis = directions(rows)
rebuilt = {}
for k in (1, 3, 8):
    code = (rows - mean) @ basis[:k].T  # (4096, k): the encoder
    rebuilt[k] = joined(code @ basis[:k] + mean, cat)  # the decoder
titles = ["48 numbers a block"] + [f"{k}: {psnr(x, cat).item():.1f} dB" for k, x in rebuilt.items()]
show(
    plot_pictures(torch.cat([cat, *rebuilt.values()]), titles, columns=4),
    "A cat's portrait, and rebuilt from 1, 3 and 8 numbers for each block of 4 by 4 pixels: coarse and in a single "
    "hue, coarse in nearly all colours, and hardly to be told from the portrait.",
)
assert psnr(rebuilt[8], cat) > 30

# %% [markdown] id="toy-read"
# Nearly the same: neighbouring pixels are so alike that most of a block's 48 numbers say nothing new. The code of a
# 64 · 64 picture has the shape (8, 16, 16), 2,048 numbers for 12,288.
#
# But eight directions cannot serve all pictures. Pages of the picture book have outlines, eyes, hatching. There the
# same trick does worse, and this is where a network comes in.

# %% id="toy-pages"
from course_utils.recipes import picture_set

drawn_pages = picture_set(budget(smoke=48, laptop=320, gpu=320), seed=9)  # scenes that no training has seen
pages = drawn_pages.pictures(torch.arange(len(drawn_pages.scenes)))  # (320, 3, 64, 64)
seen, unseen = pages[:-32], pages[-32:]
mean, basis = directions(blocks(seen))
linear = joined((blocks(unseen) - mean) @ basis[:8].T @ basis[:8] + mean, unseen)
print(f"unseen pages from 8 numbers a block: {psnr(linear, unseen).mean():.1f} dB")

# %% [markdown] id="kl-class-text"
# ## 1 · Three letters more: `AutoencoderKL`
#
# The autoencoder of the shipped model has learnt from tens of thousands of pages. It is of the class that Stable
# Diffusion uses, and it is chapter 02's VAE with four changes:
#
# | | chapter 02 | here |
# |:--|:--|:--|
# | a latent is | 16 numbers, after a linear layer | a *map*, 8 numbers at each of 16 · 16 places; no linear layer |
# | the encoder's last layer gives | mean and logvar | 16 channels: 8 of the mean, then 8 of logvar |
# | beside that | | `quant_conv`, `post_quant_conv`: a 1 · 1 convolution after and before |
# | the KL counts | once | a millionth |
#
# Follow a page on its way in, station by station.

# %% id="stations"
from course_utils.pipelines.picture_book import PICTURE_BOOK

vae = AutoencoderKL.from_pretrained(PICTURE_BOOK / "vae").float().to(device).eval().requires_grad_(False)
encoder = vae.encoder
stations = {
    "conv_in": encoder.conv_in,
    **{f"down_blocks[{i}]": block for i, block in enumerate(encoder.down_blocks)},
    "mid_block": encoder.mid_block,
    "conv_out": encoder.conv_out,
}


def announcing(name):
    """A hook that prints the shape of what leaves a station."""
    return lambda module, given, got: print(f"{name:15} {tuple(got.shape[1:])}")


hooks = [module.register_forward_hook(announcing(name)) for name, module in stations.items()]
moments = vae.quant_conv(vae.encoder(unseen[:1].to(device)))  # (1, 16, 16, 16)
for handle in hooks:
    handle.remove()
print(f"quant_conv      {tuple(moments.shape[1:])}: 8 channels of the mean, 8 of logvar")
print(
    f"{sum(p.numel() for p in vae.parameters()):,} weights, {sum(p.numel() for p in encoder.parameters()):,} of them "
    "in the encoder"
)

# %% [markdown] id="encode-text"
# The last station splits. With $\mu$ and $\log\sigma^2$, the halves of `quant_conv`'s channels,
#
# $$z = s\,\bigl(\mu + e^{\frac12 \log\sigma^2}\,\varepsilon\bigr), \qquad
#   x \approx \text{decoder}\bigl(\text{post\_quant\_conv}(z / s)\bigr)$$
#
# In words: a sample of $q(z \mid x)$ (or its mean, with $\varepsilon = 0$), times the scaling factor $s$; and on the
# way back the scaling is undone first. What $s$ is for is section 3; `vae.config.scaling_factor` has it.
#
# ### Exercise 1 · Encode
#
# ●●○○○ · 15 minutes. From pictures to scaled latents. Use the parts, `vae.encoder` and `vae.quant_conv`, so that
# you have seen each of them. (Gradients may flow.)


# %% id="ex-encode"
def encode(vae, pictures, generator=None):
    """Scaled latents (batch, c, h, w): the mean of q(z|x), or a sample of it if there is a generator."""
    ### BEGIN SOLUTION
    #: through the encoder and quant_conv, then split the channels into mean and logvar
    mean, logvar = vae.quant_conv(vae.encoder(pictures)).chunk(2, dim=1)
    #: with a generator: add noise of the spread that logvar states
    if generator is not None:
        eps = torch.randn(mean.shape, generator=generator).to(mean)
        mean = mean + (logvar / 2).exp() * eps
    #: scale
    return mean * vae.config.scaling_factor
    ### END SOLUTION


# %% id="check-encode"
encode = check("09.encode", encode)
# Stuck? hint("09.encode") gives a hint, and one more each time; solution(...) is the last resort.

# %% [markdown] id="ex-decode-text"
# ### Exercise 2 · Decode
#
# ●○○○○ · 5 minutes. The way back, from scaled latents to pictures.


# %% id="ex-decode"
def decode(vae, latents):
    """Pictures (batch, 3, f h, f w) of scaled latents (batch, c, h, w)."""
    ### BEGIN SOLUTION
    #: undo the scaling, then post_quant_conv and the decoder
    return vae.decoder(vae.post_quant_conv(latents / vae.config.scaling_factor))
    ### END SOLUTION


# %% id="check-decode"
decode = check("09.decode", decode)

# %% [markdown] id="library-text"
# By hand, the package's version, and the library's: the same numbers.

# %% id="library"
from course_utils.diffusion import latents as package

x = unseen[:8].to(device)
q, s = vae.encode(x).latent_dist, vae.config.scaling_factor
z = encode(vae, x)  # (8, 8, 16, 16)
torch.testing.assert_close(z, q.mode() * s)
torch.testing.assert_close(z, package.encode(vae, x))
seeded = [torch.Generator().manual_seed(3) for _ in range(3)]
sampled = encode(vae, x, seeded[0])
torch.testing.assert_close(sampled, q.sample(seeded[1]) * s)
torch.testing.assert_close(sampled, package.encode(vae, x, seeded[2]))
torch.testing.assert_close(decode(vae, z), vae.decode(z / s).sample)
torch.testing.assert_close(decode(vae, z), package.decode(vae, z))
print(f"{tuple(x.shape)} -> {tuple(z.shape)}: {x[0].numel() / z[0].numel():.0f} times fewer numbers; s = {s:.4f}")

# %% id="rebuilt" tags=["static"]
rebuilt_mean, rebuilt_sample = decode(vae, z).cpu(), decode(vae, sampled).cpu()
show(
    plot_pictures(
        torch.cat([x[:4].cpu(), rebuilt_mean[:4], linear[:4]]),
        ["page"] * 4 + ["AutoencoderKL"] * 4 + ["8 directions"] * 4,
        columns=4,
    ),
    "Four pages, below them rebuilt by the autoencoder, hardly changed, and at the bottom by the eight linear "
    "directions, with frayed edges in blocks.",
)
print(
    f"mean {psnr(rebuilt_mean, x.cpu()).mean():.2f} dB, sample {psnr(rebuilt_sample, x.cpu()).mean():.2f} dB, "
    f"8 directions {psnr(linear[:8], x.cpu()).mean():.2f} dB"
)
print(f"spread of a latent's sample: {(q.std * s).median():.3f}, of the latents themselves {z.std():.2f}")
assert psnr(rebuilt_mean, x.cpu()).mean() > psnr(linear[:8], x.cpu()).mean() + 2

# %% [markdown] id="rebuilt-read"
# The same budget of numbers, and the network beats eight directions by several decibels: it can use a latent's
# neighbours, and bend.
#
# Mean or sample hardly matters: $q(z \mid x)$ is fifty times narrower than the cloud of all latents. Training on
# samples and training on means is nearly the same thing.
#
# And no part asks for a size. Pixels in, a quarter of the side out; so a photograph will do, although this network has
# never seen one:

# %% id="any-size"
for name, picture in (("a cat, 256 x 256", cat), ("a wide strip", cat[..., 64:128, :])):
    z_cat = encode(vae, picture.to(device))
    print(
        f"{name}: {tuple(picture.shape[1:])} -> {tuple(z_cat.shape[1:])} -> "
        f"{psnr(decode(vae, z_cat).cpu(), picture).item():.1f} dB (8 directions of this cat: "
        f"{psnr(rebuilt[8], cat).item():.1f})"
    )
sd_pixels, sd_latents = 3 * 512 * 512, 4 * 64 * 64
print(f"Stable Diffusion v1.5: {sd_pixels:,} -> {sd_latents:,} numbers, {sd_pixels / sd_latents:.0f} times fewer")

# %% [markdown] id="any-size-read"
# It manages, but here the linear toy wins: those directions were made for this one cat, and the network for drawings.
# An autoencoder is at home where its training pictures were. Stable Diffusion's was trained on photographs and
# paintings without number, has $f = 8$, $c = 4$, and packs much tighter than ours: a small network cannot afford that.

# %% [markdown] id="kl-text"
# ## 2 · What is a millionth of a KL good for?
#
# The loss of our autoencoder (look it up: `course_utils/recipes/vae.py`):
#
# $$L = \overline{|x - \hat x|} + 4\,\overline{(x - \hat x)^2} + w\,\text{KL}\bigl(q(z \mid x)\,\|\,N(0, I)\bigr)$$
#
# In words: the mean absolute error, which keeps edges; four times the mean square, which punishes large errors; and
# $w = 10^{-6}$ times chapter 02's KL, summed over a picture's latents. The bars are means over all numbers.
#
# The sum and the means matter. Latent diffusion's own code also says $10^{-6}$, but sums its errors over the pixels:
# seen that way its KL counts 12,288 times less than ours at 64 · 64.
#
# ### Exercise 3 · The autoencoder's loss
#
# ●●○○○ · 10 minutes. Mean over the batch in all three parts.


# %% id="ex-loss"
def autoencoder_loss(x, x_hat, mean, logvar, kl_weight=1e-6):
    """mean |x - x_hat| + 4 mean (x - x_hat)^2 + kl_weight KL, a number; mean, logvar: (batch, c, h, w)."""
    ### BEGIN SOLUTION
    #: the two errors, means over all numbers
    error = x - x_hat
    fit = error.abs().mean() + 4 * error.square().mean()
    #: the KL: a sum over the latents of each picture, a mean over the batch
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
    #: together
    return fit + kl_weight * kl
    ### END SOLUTION


# %% id="check-loss"
autoencoder_loss = check("09.autoencoder_loss", autoencoder_loss)

# %% [markdown] id="kl-predict"
# Now three small autoencoders that differ in $w$ alone: $10^{-6}$, $10^{-4}$ and $10^{-2}$.
#
# **Predict first**, for each: how good are its reconstructions? How wide is $q(z \mid x)$? And what comes out if you
# decode pure noise from $N(0, I)$?


# %% id="kl-build"
def small_autoencoder(widths=(16, 24, 32)):
    """An AutoencoderKL with the shapes of the shipped one, but far fewer weights."""
    torch.manual_seed(0)  # the same start for all
    made = AutoencoderKL(
        latent_channels=8,
        sample_size=64,
        layers_per_block=1,
        block_out_channels=widths,
        norm_num_groups=8,
        mid_block_add_attention=False,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
    )
    made.quant_conv.bias.data[8:] = -4  # logvar: at first q(z|x) is narrow, so that the decoder can hear something
    return made.to(device)


def loss_on(model, pictures, kl_weight, generator):
    """The loss of reconstructing the pictures from samples of q(z|x)."""
    q = model.encode(pictures).latent_dist
    return autoencoder_loss(pictures, model.decode(q.sample(generator)).sample, q.mean, q.logvar, kl_weight)


# %% id="kl-train"
from tqdm.auto import tqdm

from course_utils.training import learning_rate_at

small, steps = {}, budget(smoke=8, laptop=430, gpu=900)
live = LivePlot("The losses of three autoencoders, one after the other: the larger the KL weight, the higher.", 4, True)
for number, kl_weight in enumerate((1e-6, 1e-4, 1e-2)):
    model, generator = small_autoencoder(), torch.Generator().manual_seed(1)
    before = loss_on(model, unseen[:8].to(device), kl_weight, torch.Generator().manual_seed(2)).item()
    optimizer = torch.optim.AdamW(model.parameters())
    for step in tqdm(range(steps), desc=f"KL weight {kl_weight:g}"):
        optimizer.param_groups[0]["lr"] = learning_rate_at(step, steps, peak=3e-3, warmup=30)
        index = torch.randint(len(seen), (4,), generator=generator)
        i, j = 4 * torch.randint(9, (2,), generator=generator)  # where a crop of 8 x 8 latents begins
        loss = loss_on(model, seen[index, :, i : i + 32, j : j + 32].to(device), kl_weight, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        live.update(number * steps + step + 1, loss.item())
    small[kl_weight] = model.eval().requires_grad_(False)
    assert loss_on(model, unseen[:8].to(device), kl_weight, torch.Generator().manual_seed(2)) < before
live.finish()

# %% [markdown] id="kl-table-text"
# The same pages for all three, and the same noise from $N(0, I)$:

# %% id="kl-table" tags=["static"]
from course_utils.recipes import PARTS

noise = torch.randn(8, 8, 16, 16, generator=torch.Generator().manual_seed(5)).to(device)
strip, kl_facts = [unseen[:8]], {}
print("KL weight   rebuilt   width of q(z|x)   bits a page")
for kl_weight, model in small.items():
    q = model.encode(unseen.to(device)).latent_dist
    back = model.decode(q.mean).sample.cpu()
    kl_facts[kl_weight] = psnr(back, unseen).mean().item(), q.std.median().item(), q.kl().mean().item() / 0.6931
    strip += [back[:8], model.decode(noise).sample.cpu()]
    print("{:9g} {:6.1f} dB {:14.3f} {:14,.0f}".format(kl_weight, *kl_facts[kl_weight]))
print(f"{steps} updates each; the shipped autoencoder: {PARTS['vae'].steps:,}")
names = ["page"] * 8 + sum(([f"w = {w:g}"] * 8 + ["from noise"] * 8 for w in small), [])
show(
    plot_pictures(torch.cat(strip), names, columns=8),
    "Pages, and for each KL weight the rebuilt pages and pictures decoded from noise: for a millionth and a "
    "ten-thousandth coarse pages in few colours, and patterns from noise; for a hundredth fog in both rows.",
)
if budget(smoke=False, laptop=True, gpu=True):
    (sharp, narrow, much), (_, _, less), (fog, wide, least) = kl_facts.values()
    assert much > 3 * less > 9 * least and wide > 3 * narrow and sharp > fog + 2

# %% [markdown] id="kl-read"
# With $w = 10^{-2}$ the latents fall nearly silent, as in chapter 02: $q(z \mid x)$ is wide for every page, few bits
# come through, and the decoder draws fog. The other two rebuild equally well so far: after some twenty seconds the
# *networks* are the limit. The shipped one is larger and had many times the updates. What differs is how much they
# tell, and how wide $q(z \mid x)$ is. But in all three, noise from $N(0, I)$ decodes to mush.
#
# So the KL here does not make latents $N(0, I)$. It keeps them from flying apart (no mean pays for being at 1,000) and
# keeps a little noise in $z$, so that the decoder must take nearby latents for nearby pictures. That is all that a
# diffusion model needs: it learns the true distribution of latents itself.

# %% [markdown] id="cloud-text"
# How far from $N(0, I)$ are the latents of the shipped autoencoder? Give noise first the right mean and spread of each
# channel, then also the right correlations *between* the channels of a place. Does that make pages?

# %% id="cloud" tags=["static"]
z_all = torch.cat([encode(vae, part.to(device)) for part in seen.split(32)]).cpu()  # (288, 8, 16, 16)
centre, spread = z_all.mean((0, 2, 3)), z_all.std((0, 2, 3))
places = z_all.movedim(1, 0).flatten(1)  # (8, 288 * 16 * 16): one column for each place
factor = torch.linalg.cholesky(places.cov())
plain = noise[:8].cpu()
moved = plain * spread[:, None, None] + centre[:, None, None]
mixed = torch.einsum("oc,bchw->bohw", factor, plain) + centre[:, None, None]
fakes = decode(vae, torch.cat([plain, moved, mixed, z_all[:8]]).to(device)).cpu()
titles = ["N(0, I)"] * 8 + ["mean, spread"] * 8 + ["and channels"] * 8 + ["real latents"] * 8
show(
    plot_pictures(fakes, titles, columns=8),
    "Pictures decoded from three kinds of noise, each of them mush of other "
    "colours, and below from latents of real pages.",
)
standard = (z_all - centre[:, None, None]) / spread[:, None, None]
neighbours = (standard[..., 1:] * standard[..., :-1]).mean()
print("channel means  ", [round(value, 2) for value in centre.tolist()])
print("channel spreads", [round(value, 2) for value in spread.tolist()])
print(f"correlation of neighbouring places: {neighbours:.2f}; in N(0, I) it is 0")
assert neighbours > 0.3

# %% [markdown] id="cloud-read"
# Mush in all three. What is missing lies *between places*: an ear is above a head. No list of means and covariances
# has that. So we need a model of latents, and that model is chapters 05 to 07, with $x_0$ a latent.

# %% [markdown] id="factor-text"
# ## 3 · The scaling factor
#
# Everything in chapter 05 was made for data of a spread near 1: with a schedule, the SNR at $t$ is
# $\bar\alpha_t / (1 - \bar\alpha_t)$ *times the variance of the data*. Nothing in the autoencoder's loss says how
# large latents are. So one measures them once, and multiplies:
#
# $$s = \frac{1}{\text{standard deviation of the latents}}$$
#
# One number, over all pictures, channels and places. Stable Diffusion v1.5 has $s = 0.18215$: its latents have a spread
# of 5.49.
#
# ### Exercise 4 · The scaling factor
#
# ●○○○○ · 5 minutes. Of latents that are not yet scaled. Return a plain number.


# %% id="ex-factor"
def scaling_factor(latents):
    """1 / (standard deviation of all numbers of the latents (n, c, h, w)): what makes their spread 1."""
    ### BEGIN SOLUTION
    #: the spread of all numbers together, upside down
    return 1 / latents.std().item()
    ### END SOLUTION


# %% id="check-factor"
scaling_factor = check("09.scaling_factor", scaling_factor)

# %% [markdown] id="factor-between"
# Beside the number in the config, which was measured on other pages; and for your three small autoencoders:

# %% id="factor-run"
raw = z_all / vae.config.scaling_factor  # as the encoder gives them
print(
    f"of {len(raw)} pages here: {scaling_factor(raw):.4f}; in the config, from 512 others: "
    f"{vae.config.scaling_factor:.4f}; package {package.scaling_factor(raw):.4f}"
)
assert abs(scaling_factor(raw) / vae.config.scaling_factor - 1) < budget(smoke=0.15, laptop=0.05, gpu=0.05)
print("a new AutoencoderKL says", small[1e-6].config.scaling_factor, "before anybody has measured:")
print({w: round(scaling_factor(model.encode(unseen.to(device)).latent_dist.mean), 3) for w, model in small.items()})

# %% [markdown] id="factor-trap"
# > **A trap in the library.** A new `AutoencoderKL` does not say "unknown". It says 0.18215, the number of Stable
# > Diffusion, whatever it was trained on. Whoever trains an autoencoder must write the right one into its config:
# > `vae.register_to_config(scaling_factor=...)`. Section 7 does.

# %% [markdown] id="equal-text"
# What happens if one forgets it? Let the data have a spread of `std` where the schedule expects 1. At $t$ their SNR is
#
# $$\text{std}^2 \cdot \frac{\bar\alpha_t}{1 - \bar\alpha_t} = \frac{\bar\alpha_{t'}}{1 - \bar\alpha_{t'}}$$
#
# for some other time $t'$: unscaled latents at $t$ are as noisy as scaled ones at $t'$. So a forgotten factor *bends
# the schedule*.
#
# ### Exercise 5 · The time of equal SNR
#
# ●●●○○ · 15 minutes. For each $t$ the first $t'$ whose SNR is not above. Where even the last is, the last.


# %% id="ex-equal"
def time_of_equal_snr(t, std, alpha_bar):
    """First times t' with SNR_t' <= std^2 SNR_t, or T-1; t: (batch,) -> (batch,), whole numbers; alpha_bar: (T,)."""
    ### BEGIN SOLUTION
    #: the SNR of data with spread 1, at all T times
    snr = alpha_bar / (1 - alpha_bar)
    #: that of these data, at their times
    wanted = std**2 * snr[t]
    #: how many times have a larger one?
    return (snr[None] > wanted[:, None]).sum(1).clamp(max=len(alpha_bar) - 1)
    ### END SOLUTION


# %% id="check-equal"
time_of_equal_snr = check("09.time_of_equal_snr", time_of_equal_snr)

# %% [markdown] id="equal-between"
# Our autoencoder, Stable Diffusion's, and the opposite mistake:

# %% id="equal-run"
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta

alpha_bar = alpha_bar_from_beta(scaled_linear_beta())  # (1000,), Stable Diffusion's schedule
t = torch.tensor([0, 100, 300, 500, 700, 900, 999])
print("t                                    ", t.tolist())
for name, std in (
    ("ours, forgotten: spread", 1 / vae.config.scaling_factor),
    ("Stable Diffusion's:", 1 / 0.18215),
    ("scaled twice:", 0.18215),
):
    found = time_of_equal_snr(t, std, alpha_bar)
    assert torch.equal(found, package.time_of_equal_snr(t, std, alpha_bar))
    print(f"{name:25} {std:5.2f}: t' = {found.tolist()}")
last_time = time_of_equal_snr(torch.tensor([999]), 1 / 0.18215, alpha_bar).item()
assert last_time < 700

# %% [markdown] id="equal-read"
# Ours would forgive: its spread happens to be near 1. With Stable Diffusion's latents the *last* time of the schedule
# would be no noisier than $t' \approx 600$ should be. The network would never train on the noisiest third, and a
# sampler starts exactly there. Scaled twice, it is the other way: everything drowns early, and the first steps teach
# nothing.
#
# See it, for a page whose noisy latents are decoded. **Predict first:** at $t = 500$, with which spread can you still
# see the page: 0.2, 1 or 5.5? And with 5.5 at the very end?

# %% id="filmstrip" tags=["static"]
from course_utils.widgets import explore, filmstrip, latent_explorer, scale_explorer


def to_pictures(z):
    """Scaled latents to pictures, on the CPU, for explorers."""
    with torch.no_grad():
        return decode(vae, z.to(device)).cpu()


scales = scale_explorer(to_pictures, z_all[3:4], alpha_bar)
filmstrip(scales, [{"t": t, "std": std} for t, std in ((500, 0.2), (500, 1.0), (500, 5.5), (999, 5.5))])

# %% id="explore"
explore(scales)

# %% [markdown] id="start-text"
# ### Is the start of the way back $N(0, I)$?
#
# A sampler starts from $N(0, I)$. Training ends at $q(x_T)$: latents, dimmed to $\sqrt{\bar\alpha_T} = 0.068$, plus
# noise. Are these the same? Chapter 05 asked it for pixels.

# %% id="start"
from course_utils.diffusion.schedules import kl_to_normal

eps = torch.randn(z_all.shape, generator=torch.Generator().manual_seed(6))
print(f"the share of x_0 in x_T: sqrt(alpha_bar_T) = {alpha_bar[-1].sqrt():.3f}")
for name, x0 in (("scaled", z_all), ("spread 5.49", z_all / 0.18215)):
    x_T = add_noise(x0, eps, torch.full((len(x0),), 999), alpha_bar)
    alike = torch.corrcoef(torch.stack([x_T.flatten(), x0.flatten()]))[0, 1]
    away = kl_to_normal(x0, alpha_bar[-1]).mean() * x0[0].numel()  # bits a number, times numbers
    print(
        f"{name:12}: variance of x_T {x_T.var():.3f}, correlation with x_0 {alike:.3f}, "
        f"KL of q(x_T | x_0) to N(0, I) {away:5.1f} bits a page"
    )
assert abs(alpha_bar[-1].sqrt() - 0.068) < 0.001 and alike > 0.3

# %% [markdown] id="start-read"
# Not exactly. Even scaled, a trace of the page is left in $x_T$: a correlation of 0.07. It is the same for every prompt
# and every model that uses this schedule, Stable Diffusion too. With unscaled latents it is no trace any more.
#
# The other way to lose the factor: on the way out. Multiply where you should divide, or leave it out:

# %% id="swapped"
q = vae.encode(x).latent_dist
for name, s in (("ours", vae.config.scaling_factor), ("if s were 0.18215", 0.18215)):
    wrong = {"right": q.mean, "not unscaled": q.mean * s, "multiplied again": q.mean * s * s}
    print(f"{name:18}", {how: f"{psnr(vae.decode(z).sample, x).mean():.1f} dB" for how, z in wrong.items()})

# %% [markdown] id="swapped-read"
# With a factor near 1 such a mistake hides: pages come out a bit pale. With 0.18215 nothing is left. "It works with my
# model" is no proof that the factor is in the right place; a test with another factor is.

# %% [markdown] id="look-text"
# ## 4 · What do latents look like?
#
# A latent is a map, so look at it. Eight channels of one page, blue for negative numbers, red for positive ones:

# %% id="channels" tags=["static"]
page, z = seen[3:4], z_all[3:4]
figure, axes = plt.subplots(1, 9, figsize=(9.6, 1.5))
plot_pictures(page, ax=axes[0])
axes[0].set_title("page", fontsize=9)
for c, ax in enumerate(axes[1:]):
    ax.imshow(z[0, c].numpy(), cmap="coolwarm", vmin=-3, vmax=3)
    ax.set_title(f"$z_{c}$", fontsize=9)
    ax.axis("off")
show(
    figure,
    "A page, and its eight channels as small maps in blue and red: in each the page can be recognised, in "
    "some as areas, in others as outlines.",
)

# %% [markdown] id="colours-text"
# Each is the page once more, in some filter. How much of a latent is simply colour? Fit it: from the 8 numbers at a
# place to the mean colour of its 4 · 4 pixels, by least squares over all places of all pages:
#
# $$\min_{A,\, b} \sum_\text{places} \bigl\|\,\text{colour} - (A z + b)\,\bigr\|^2$$
#
# with a matrix $A$ of shape (3, 8), the weights, and a bias $b$ of three numbers.
#
# ### Exercise 6 · The colours of latents
#
# ●●●○○ · 15 minutes. `torch.linalg.lstsq(rows, wanted).solution` solves it. For the bias, append a column of ones. A
# place's colour is the mean of its block of pixels, however large that block is. From here on the stubs leave the lines
# to you.

# %% id="ex-colours"
from torch.nn.functional import adaptive_avg_pool2d


def fit_colours(latents, pictures):
    """Weights (3, c) and bias (3,) that give each place's mean colour; latents (n, c, h, w), pictures (n, 3, ., .)."""
    ### BEGIN SOLUTION
    colours = adaptive_avg_pool2d(pictures, latents.shape[2:])
    rows = latents.movedim(1, -1).flatten(0, 2)
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    wanted = colours.movedim(1, -1).flatten(0, 2)
    found = torch.linalg.lstsq(rows, wanted).solution
    return found[:-1].T, found[-1]
    ### END SOLUTION


# %% id="check-colours"
fit_colours = check("09.fit_colours", fit_colours)

# %% [markdown] id="colours-between"
# Fitted on the seen pages, tried on unseen ones:

# %% id="colours" tags=["static"]
weights, bias = fit_colours(z_all, seen)  # (3, 8), (3,)
torch.testing.assert_close((weights, bias), package.fit_colours(z_all, seen), rtol=1e-3, atol=1e-4)
z_new = torch.cat([encode(vae, part.to(device)) for part in unseen.split(32)]).cpu()
guessed, wanted = package.as_colours(z_new, weights, bias), adaptive_avg_pool2d(unseen, 16)
explained = 1 - (guessed - wanted).var() / wanted.var()
print(f"of the variance of unseen pages' colours {explained:.1%} is a linear function of the latent at that place")
show(
    plot_pictures(torch.cat([guessed[:8], wanted[:8]]), ["from latents"] * 8 + ["averaged"] * 8, columns=8),
    "Eight unseen pages of 16 by 16 pixels: above as read from latents by a matrix, below averaged from the pages. "
    "They can hardly be told apart.",
)
assert explained > 0.8

# %% [markdown] id="colours-read"
# Three of the eight numbers' worth is a thumbnail of the page; the other five carry what is inside a block, edges and
# dots. So these latents are no *abstract* code. They are a small picture with more than three colours. (Drawing
# programs use just such a matrix to show a preview at each step, without the dear decoder. See the bonus.)
#
# Hence they can be cut and pasted. **Predict first:** the middle of one latent is put into another. What is at the
# seam?

# %% id="paste" tags=["static"]
a, b = z_new[3:4], z_new[6:7]
pasted = a.clone()
pasted[..., 4:12, 4:12] = b[..., 4:12, 4:12]
one_place = a.clone()
one_place[..., 8, 8] += 2
edits = torch.cat([a, b, pasted, a.flip(3), one_place])
edited = to_pictures(edits)
change = (edited[4] - edited[0]).square().sum(0)  # (64, 64): where pixels moved
titles = ["a", "b", "a, middle of b", "a, mirrored", "a, one place moved"]
show(
    plot_pictures(edited, titles, columns=5),
    "Two pages, one with the middle of the other pasted in as latents, one "
    "with its latent mirrored, and one with a coloured spot where a single place was changed.",
)
print(
    f"mirrored latent against mirrored page: {psnr(edited[3:4], unseen[3:4].flip(3)).item():.1f} dB, rebuilt "
    f"{psnr(edited[0:1], unseen[3:4]).item():.1f} dB"
)
near = {2 * r: change[34 - r : 34 + r, 34 - r : 34 + r].sum() / change.sum() for r in (2, 6, 10)}
print(
    "one place moved; of the squared change of pixels lie around it, within "
    + ", ".join(f"{side} x {side}: {share:.0%}" for side, share in near.items())
)
assert near[20] > 0.8

# %% [markdown] id="paste-read"
# The middle of b stands in a like a cut-out, with an edge a few pixels wide. A latent is *local*: what one place says
# shows there, and next to nothing far away. The mirrored latent is a mirrored page, but a worse one: each place also
# says where within its block an edge lies, and that is not mirrored.
#
# Now turn one channel up and down yourself. **Predict first:** which channel is brightness?

# %% id="filmstrip-channels" tags=["static"]
channels = latent_explorer(to_pictures, z_new[[0, 5, 9]])
filmstrip(channels, [{"channel": c, "gain": g} for c, g in ((0, -1.0), (3, 2.5), (5, -1.0))])

# %% id="explore-channels"
explore(channels)

# %% [markdown] id="brightness-text"
# The answer, as the correlation of each channel with the brightness of its places:

# %% id="brightness"
light = wanted.mean(1).flatten()  # the brightness of each place of the unseen pages
for c in range(8):
    found = torch.corrcoef(torch.stack([z_new[:, c].flatten(), light]))[0, 1].item()
    print(f"channel {c}: {found:+.2f} " + "#" * round(30 * abs(found)))

# %% [markdown] id="between-text"
# No channel *is* the brightness; several have a share in it. Nobody told the encoder to sort its channels, and any
# mixture of them would do as well. What a channel means is for the decoder to know.
#
# And between two latents? Chapter 02 walked from one digit to another through digits. **Predict first:** half-way
# between two latents, what does the decoder draw: a third thing, or both at once?

# %% id="between" tags=["static"]
shares = torch.linspace(0, 1, 7)[:, None, None, None]
in_latents = to_pictures((1 - shares) * a + shares * b)
in_pixels = (1 - shares) * edited[0:1] + shares * edited[1:2]
show(
    plot_pictures(torch.cat([in_latents, in_pixels]), columns=7),
    "Two rows that look alike: on the way from one page "
    "to another both show the two pages on top of each other. Above mixed in latents, below in pixels.",
)
print(
    f"half-way, latents against pixels: {psnr(in_latents[3:4], in_pixels[3:4]).item():.1f} dB; the two pages against "
    f"each other: {psnr(edited[0:1], edited[1:2]).item():.1f} dB"
)
assert psnr(in_latents[3:4], in_pixels[3:4]) > psnr(edited[0:1], edited[1:2]) + 5

# %% [markdown] id="between-read"
# Both at once, nearly as in pixels. Nothing here turns a cat into a car by way of something alive. Do not expect
# meaning from *these* latents; they were not made for it. Where chapter 07 mixed two noises and drew, it was the
# diffusion model that made a proper digit of it.

# %% [markdown] id="loss-text"
# ## 5 · What is lost
#
# Everything that is drawn goes out by this door, so the autoencoder's worst is the whole model's best. Four styles, and
# two kinds of judgement: decibels, and whether the judge still reads everything right (things, colours, place, style).
# For comparison, the same pages with a *slight blur*, a quarter of each pixel from either side.
#
# **Predict first:** which style suffers most from the blur: picture book, coloured pencil, pixel art or watercolour?

# %% id="blur"
from torch.nn import functional as F

from course_utils.metrics.pictures import adherence
from course_utils.recipes import load_judge

judge = load_judge()


def blurred(pictures, w=0.25):
    """Each pixel mixed with its neighbours, w from either side, first across and then down."""
    across = torch.tensor([w, 1 - 2 * w, w])
    kernel = (across[:, None] * across).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)


# %% [markdown] id="styles-text"
# The judge reads the pages themselves, their copies by the shipped autoencoder, and the blurred ones:

# %% id="styles"
quality = {}
print("style           pages   autoencoder       blurred")
for style in picture_book.STYLES:
    scenes = [
        scene for scene in picture_set(budget(smoke=40, laptop=400, gpu=800), seed=9).scenes if scene.style == style
    ][: budget(smoke=4, laptop=48, gpu=96)]
    given, captions = picture_book.pictures(scenes), [picture_book.caption(scene) for scene in scenes]
    back = torch.cat([to_pictures(encode(vae, part.to(device))) for part in given.split(16)]).clamp(-1, 1)
    quality[style] = [adherence(judge, pictures, captions) for pictures in (given, back, blurred(given))]
    print(
        "{:15} {:5.0%} {:5.0%} {:4.1f} dB {:5.0%} {:4.1f} dB".format(
            style, *quality[style][:2], psnr(back, given).mean(), quality[style][2], psnr(blurred(given), given).mean()
        )
    )
if budget(smoke=False, laptop=True, gpu=True):
    assert min(quality, key=lambda style: quality[style][2]) == "pixel art"
    assert min(copies for _, copies, _ in quality.values()) > 0.9

# %% [markdown] id="styles-read"
# The blur costs three styles next to nothing, and pixel art its life: such a page is no longer read as pixel art. (Look
# at the decibels: they do not tell.) The shipped autoencoder passes. Where are *its* errors? Bright is a large one, the
# same scale for all:

# %% id="error-map" tags=["static"]
scenes = [
    picture_book.Scene((picture_book.Thing("corgi"),), "grass", seed=4, style=style) for style in picture_book.STYLES
]
given = picture_book.pictures(scenes)
back = to_pictures(encode(vae, given.to(device))).clamp(-1, 1)
error = (back - given).abs().mean(1)  # (4, 64, 64)
figure, axes = plt.subplots(3, 4, figsize=(8, 6.2))
for column, style in enumerate(picture_book.STYLES):
    for row, picture in enumerate((blurred(given), back)):
        plot_pictures(picture[column : column + 1], ax=axes[row, column])
    axes[2, column].imshow(error[column].numpy(), cmap="magma", vmin=0, vmax=0.5)
    axes[2, column].axis("off")
    axes[0, column].set_title(f"{style}\n{psnr(back, given)[column]:.1f} dB", fontsize=9)
show(
    figure,
    "A corgi in four styles: blurred, rebuilt by the autoencoder, and the autoencoder's errors, thin lines "
    "along outlines.",
)

# %% [markdown] id="error-read"
# Errors sit on edges, and pixel art is nothing but edges, each exactly on a pixel. Squared and absolute errors invite
# blur: half-way between two colours is the cheapest place for an edge one is not sure of. It is the blur of chapter 02,
# in small.
#
# So the shipped autoencoder was trained in *two* rounds. The first had the loss of section 2. In the second the decoder
# alone went on, with one term more, which compares the *differences of neighbours*:
#
# $$L + \overline{|D x - D \hat x|}$$
#
# where $D$ takes each pixel from the next one, across and down. The encoder stood still. **Why?** Because then every
# latent keeps its meaning, and a U-Net that was trained on them need not be trained again. (`build_decoder` in
# `course_utils/recipes/vae.py`.)
#
# One fault stayed hidden for long. Both rounds train on crops of 32 · 32 pixels, and at first these began anywhere. But
# a latent stands for 4 · 4 pixels, and a block of pixel art is 2 · 2: in a crop that begins at an odd pixel the blocks
# lie askew to the latents, while in a whole page they never do. The decoder learned to be ready for both. Real pages
# still came back as pixel art. The latents that a U-Net *draws* are never quite right, and from those it made soft
# edges: of the finished model's pixel art the judge read 64% right. Now crops begin at multiples of four. The same
# U-Net, with the decoder trained on: 92%. (What it is today: `python3 course.py benchmark adherence`.) Try a decoder on
# what the U-Net draws, not only on pages that come back.

# %% [markdown] id="error-sd"
# The decoder of Stable Diffusion was finished in the same way, by its makers, after the model was out. And its first
# round had two more terms against blur. A *perceptual* loss compares features of a network that knows photographs
# (LPIPS) instead of pixels. And an *adversarial* one: a discriminator, as in chapter 03, looks at patches and must not
# find the copies; it joins after 50,000 steps. Both prefer a sharp guess to a blurred average, even if it is a bit off.
# Ours has neither.

# %% [markdown] id="flops-text"
# ## 6 · Pixels against latents, for equally long
#
# What exactly is saved? Take one level of a U-Net on a map of $n \cdot n$ places with $c$ channels: two 3 · 3
# convolutions, and attention. A multiplication and the addition after it count as two operations:
#
# $$\underbrace{2 \cdot 2 \cdot 9\,c^2 n^2}_\text{two convolutions} \;+\;
#   \underbrace{4 \cdot 2\,c^2 n^2}_\text{four projections} \;+\; \underbrace{2 \cdot 2\,c\,n^4}_\text{all pairs}$$
#
# The projections are attention's query, key, value and output. The last term is queries times keys, and weights times
# values: each of $n^2$ places with each.
#
# ### Exercise 7 · Count
#
# ●●●○○ · 10 minutes. A level has two convolutions and, if `attention` is true, one attention.


# %% id="ex-flops"
def level_flops(size, channels, attention=True):
    """Operations of one level for one picture: two 3 x 3 convolutions and, if asked for, attention; a whole number."""
    ### BEGIN SOLUTION
    places = size**2
    total = 2 * 2 * 9 * channels**2 * places
    if attention:
        total += 4 * 2 * channels**2 * places + 2 * 2 * channels * places**2
    return total
    ### END SOLUTION


# %% id="check-flops"
level_flops = check("09.level_flops", level_flops)

# %% [markdown] id="flops-between"
# A level like the first one of Stable Diffusion v1.5's U-Net: 320 channels, attention at 64 · 64. What if it worked
# on pixels?

# %% id="flops-table"
print("a level like the first of Stable Diffusion v1.5's, 320 channels, in billions of operations")
for name, size in (("512 x 512 pixels", 512), ("64 x 64 latents", 64)):
    assert level_flops(size, 320) == package.level_flops(size, 320)
    bare = level_flops(size, 320, attention=False)
    print(f"{name:17} convolutions {bare / 1e9:10,.0f}   attention {(level_flops(size, 320) - bare) / 1e9:10,.0f}")
ratio = level_flops(512, 320) / level_flops(64, 320)
print(
    f"in pixels this level would cost {ratio:,.0f} times as much, at each step; without attention "
    f"{level_flops(512, 320, False) / level_flops(64, 320, False):.0f} times"
)

# %% [markdown] id="duel-text"
# Now the race. The pages: one corgi, on the grass, in the picture book's style; place, size and weather vary. Two
# networks, the same class. The one for latents has three levels, for sides 16, 8 and 4. The one for pixels gets the
# same three, *and two more in front*, for sides 64 and 32: it must do itself what the autoencoder does for the other.
# Both train for the same seconds.
#
# > The class is chapter 04's U-Net. Around it stand the two classes from which all models of diffusers descend, so that
# > it can be saved as they are (section 7).

# %% id="duel-data"
from course_utils.recipes import encode_pictures

count = budget(smoke=32, laptop=768, gpu=2048)
corgi = picture_book.Thing("corgi")
kennel = picture_book.pictures([picture_book.Scene((corgi,), "grass", seed=number) for number in range(count)])
start = time.perf_counter()
kennel_z = encode_pictures(vae, kennel) * vae.config.scaling_factor  # once, before training
print(
    f"{count} pages {tuple(kennel.shape[1:])}, their latents {tuple(kennel_z.shape[1:])}; encoding took "
    f"{1000 * (time.perf_counter() - start) / count:.0f} ms a page, once"
)
torch.testing.assert_close(kennel_z[:4], encode(vae, kennel[:4].to(device)).cpu(), rtol=1e-3, atol=1e-3)

# %% id="duel-nets"
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


class PredictNoise(ModelMixin, ConfigMixin):
    """model(x_t, t) -> eps_hat: chapter 04's U-Net, with attention in the middle, as a model of diffusers."""

    @register_to_config  # notes the arguments, for config.json
    def __init__(self, channels=8, widths=(32, 64, 96)):
        super().__init__()
        self.unet = UNet(UNetConfig(channels, tuple(widths), (False,) * (len(widths) - 1) + (True,)))

    def forward(self, x_t, t, cond=None):
        return self.unet(x_t, t)


WIDTHS = (32, 64, 96)  # channels at sides 16, 8 and 4
torch.manual_seed(0)
racers = {"pixels": PredictNoise(3, (16, 24, *WIDTHS)), "latents": PredictNoise(8, WIDTHS)}
racers = {name: model.to(device) for name, model in racers.items()}
data = {"pixels": kennel, "latents": kennel_z}

# %% [markdown] id="duel-cost-text"
# **Predict first.** How many times dearer is one look of the pixel network, and how many more steps will the other make
# in the same time?

# %% id="duel-cost"
look = {name: operations(model, data[name][:1].to(device)) for name, model in racers.items()}
for name, model in racers.items():
    weights_in = sum(p.numel() for p in model.parameters())
    print(f"{name:8} {weights_in:9,} weights, {look[name] / 1e9:.3f} billion operations a look")
twin = operations(PredictNoise(3, WIDTHS).eval(), kennel[:1])  # the latents' own network, on pixels
print(
    f"pixels / latents: {look['pixels'] / look['latents']:.1f}; with the latents' own network on pixels it would be "
    f"{twin / look['latents']:.1f}"
)
assert look["pixels"] > 2 * look["latents"] and twin > 10 * look["latents"]

# %% [markdown] id="clock-text"
# The loop is chapter 06's, with a clock in the place of a number of steps. On a CPU the clock counts seconds of
# processor time, so that other programs do not matter. The learning rate rises over 50 steps and falls with the time
# that is left. One thing is new: times in the middle are drawn more often (`logit_normal_times`), since both ends teach
# little. The same for both.

# %% id="clock"
import copy

from course_utils.diffusion.objectives import logit_normal_times, noise_prediction_loss
from course_utils.machine.devices import autocast_dtype
from course_utils.training import ema_update

clock = time.process_time if device.type == "cpu" else time.perf_counter
precision = autocast_dtype(device)


def race_loss(model, x0, generator):
    """The mean loss at random times: chapter 06's training step, with more times in the middle."""
    x0 = x0.to(device)
    t = logit_normal_times(torch.randn(len(x0), generator=generator), len(alpha_bar)).to(device)
    eps = torch.randn(x0.shape, generator=generator).to(device)
    return noise_prediction_loss(model(add_noise(x0, eps, t, alpha_bar.to(device)), t), eps).mean()


# %% id="clock-loop"
def fit_for(seconds, model, average, data, batch=16, peak=2e-3):
    """Train until the time is up; yield (steps, seconds spent, loss) after each update."""
    generator, step, spent, start = torch.Generator().manual_seed(0), 0, 0.0, clock()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99))
    while spent < seconds or step < 6:
        optimizer.param_groups[0]["lr"] = peak * min((step + 1) / 50, max(1 - spent / seconds, 0.05))
        x0 = data[torch.randint(len(data), (batch,), generator=generator)]
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            loss = race_loss(model, x0, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema_update(average, model, min(0.995, (1 + step) / (10 + step)))
        step, spent = step + 1, clock() - start
        yield step, spent, loss.item()


# %% [markdown] id="duel-train-text"
# An exam, always the same, checks that each has learnt something:


# %% id="duel-train"
@torch.no_grad()
def exam(model, data):
    """The loss on 16 examples with fixed times and noises."""
    return race_loss(model, data[:16], torch.Generator().manual_seed(9)).item()


seconds, runs, averages = budget(smoke=2, laptop=42, gpu=60), {}, {}
for name, model in racers.items():
    before, averages[name] = exam(model, data[name]), copy.deepcopy(model).requires_grad_(False)
    live = LivePlot(f"The loss of the network for {name} falls while the clock runs.", 4, True)
    bar, runs[name] = tqdm(total=seconds, desc=name, bar_format="{desc} {n:.0f} of {total} s |{bar}| {postfix}"), []
    for step, spent, loss in fit_for(seconds, model, averages[name], data[name]):
        live.update(step, loss)
        bar.n = min(spent, seconds)
        bar.set_postfix(step=step, loss=round(loss, 3))
        runs[name].append((step, spent, loss))
    bar.close()
    live.finish()
    print(f"{name}: {step} steps in {spent:.0f} s; the exam {before:.3f} -> {exam(averages[name], data[name]):.3f}")
    assert exam(averages[name], data[name]) < before
if budget(smoke=False, laptop=True, gpu=True):
    assert len(runs["latents"]) > 1.5 * len(runs["pixels"])

# %% [markdown] id="duel-draw-text"
# Draw with both: chapter 07's DPM-Solver++ in 20 steps, the same number of pictures. Two rulers: the Fréchet distance
# in the judge's features to the training pages (smaller is better; its floor is what unseen real pages get), and the
# share of pictures in which the judge finds one corgi and nothing else.

# %% id="duel-draw"
from course_utils.diffusion.samplers import dpm_solver, finish, trailing_times
from course_utils.metrics.pictures import frechet_distance
from course_utils.models.judge import read

drawing_times = trailing_times(1000, budget(smoke=3, laptop=20, gpu=20))


def draw(name, count):
    """`count` pictures by one of the two, in [-1, 1], on the CPU."""
    noise = torch.randn(count, *data[name].shape[1:], generator=torch.Generator().manual_seed(1))
    parts = []
    for part in noise.to(device).split(20):
        clip = 1 if name == "pixels" else None  # latents know no bounds
        x0 = finish(dpm_solver(averages[name], part, alpha_bar, drawing_times, clip=clip))
        parts.append(decode(vae, x0) if name == "latents" else x0)
    return torch.cat(parts).clamp(-1, 1).cpu()


@torch.no_grad()
def rulers(pictures):
    """(Fréchet distance to the training pages, share of pictures with one corgi) by the judge."""
    verdicts = read(judge, pictures)
    alone = [len(v.findings) == 1 and v.findings[0].kind == "corgi" for v in verdicts]
    return frechet_distance(judge.features(pictures), real_features), sum(alone) / len(alone)


# %% [markdown] id="duel-numbers-text"
# Real pages that no network has seen are measured too, as many as are drawn:

# %% id="duel-numbers"
number = budget(smoke=4, laptop=60, gpu=120)
with torch.no_grad():
    real_features = torch.cat([judge.features(part) for part in kennel.split(64)])
unseen_corgis = picture_book.pictures([picture_book.Scene((corgi,), "grass", seed=90_000 + i) for i in range(number)])
drawings, scores = {}, {"real, unseen": rulers(unseen_corgis)}
for name in racers:
    start = clock()
    with torch.no_grad():
        drawings[name] = draw(name, number)
    scores[name] = rulers(drawings[name])
    print(f"{name:8} {len(runs[name]):4} steps, drawing {(clock() - start) / number:.3f} s a picture")
for name, (distance, share) in scores.items():
    print(f"{name:13} distance {distance:6.2f}   one corgi {share:4.0%}")
if budget(smoke=False, laptop=True, gpu=True):
    assert scores["latents"][0] < 0.5 * scores["pixels"][0]

# %% id="duel-show" tags=["static"]
show(
    plot_pictures(torch.cat([drawings["pixels"][:10], drawings["latents"][:10]]), columns=min(number, 10)),
    "Pages drawn from noise, seed 1, nothing chosen. Above from pixels: coloured noise or vague shapes. "
    "Below from latents, after the same seconds of training: corgis on the grass, rough but plain to see.",
)

# %% [markdown] id="duel-read"
# The same seconds, the same pages. In latents the network gets several times as many steps, and each step has an easier
# job: texture and edges are the decoder's, only *what is where* has to be learnt.
#
# Look at the exams once more: the network for pixels may well have the *lower* loss. Losses in two spaces do not compare.
# In pixels most noise is easy to see, since clean neighbours are alike; that earns a low loss and draws nothing.
#
# Be fair: the autoencoder had to be trained too, for far longer than this race (section 2). But once, on pages of all
# kinds, before anybody knew what would be drawn with it. Every later model gets it for nothing: that is the bargain.
# And its limits (section 5) come with it.

# %% [markdown] id="save-text"
# ## 7 · Parts that others can load
#
# Weights in a notebook are gone when it closes. Libraries agree on a *layout*: a folder for each part, in it
# `config.json` (how to build it) and a `safetensors` file (its weights). `save_pretrained` writes it, also for a class
# of your own. Save the race's network in it, and your small
# autoencoder with *its own* scaling factor.

# %% id="save"
import tempfile
from pathlib import Path

from diffusers import DDIMScheduler

folder, mine = Path(tempfile.mkdtemp()), small[1e-6]
mine.register_to_config(scaling_factor=float(scaling_factor(mine.encode(seen[:64].to(device)).latent_dist.mean)))
mine.save_pretrained(folder / "vae")
averages["latents"].save_pretrained(folder / "unet")
DDIMScheduler(
    beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, timestep_spacing="trailing"
).save_pretrained(folder / "scheduler")
for path in sorted(folder.rglob("*.*")):
    print(f"{path.relative_to(folder).as_posix():45} {path.stat().st_size:>10,} bytes")

# %% [markdown] id="load-text"
# Loaded again, nothing may have changed: not a weight, not an answer, and not the factor.

# %% id="load"
again = AutoencoderKL.from_pretrained(folder / "vae").to(device).eval()
unet = PredictNoise.from_pretrained(folder / "unet").to(device).eval()
with torch.no_grad():
    assert torch.equal(encode(again, x), encode(mine, x))
    assert torch.equal(decode(again, z_new.to(device)), decode(mine, z_new.to(device)))
    at, averages["latents"] = torch.full((8,), 500, device=device), averages["latents"].eval()
    torch.testing.assert_close(unet(z_new[:8].to(device), at), averages["latents"](z_new[:8].to(device), at))
assert all(torch.equal(a, b) for a, b in zip(unet.state_dict().values(), averages["latents"].state_dict().values()))
print(
    f"all equal; the config remembers s = {again.config.scaling_factor:.4f}; its latents have the spread "
    f"{encode(again, unseen.to(device)).std():.3f}"
)
assert abs(encode(again, unseen.to(device)).std() - 1) < 0.15

# %% [markdown] id="load-read"
# The scheduler has a folder and no weights: the schedule is part of the model too. With a text encoder and a tokenizer
# beside them, these folders are what `StableDiffusionPipeline.from_pretrained` opens. Chapter 10 puts them there.
#
# But mind what fits what. The race's network speaks the latents of the *shipped* autoencoder. Decode its drawings with
# your small one, which has the same shapes:

# %% id="mismatch" tags=["static"]
with torch.no_grad():
    noise = torch.randn(6, 8, 16, 16, generator=torch.Generator().manual_seed(1)).to(device)
    times = trailing_times(1000, budget(smoke=4, laptop=20, gpu=20))
    x0 = finish(dpm_solver(averages["latents"], noise, alpha_bar, times))
    both = torch.cat([decode(vae, x0), decode(mine, x0)]).cpu()
show(
    plot_pictures(both, ["its decoder"] * 6 + ["another decoder"] * 6, columns=6),
    "Six drawn latents by the decoder they were made for, corgis, and by another one of the same shapes: patches of "
    "wrong colours.",
)

# %% [markdown] id="mismatch-read"
# No error, no warning, and no corgi. Shapes agree, languages do not: two autoencoders that differ in nothing but their
# training give every channel another meaning. Autoencoder and U-Net are a pair.

# %% [markdown] id="elsewhere"
# ## 8 · What you will read elsewhere
#
# **"Diffusion models work in a low-dimensional latent space."** Those of this chapter do. A *pixel* diffusion model
# does not: its $x_T$ has as many numbers as the picture, and noise fills all of them. How many of the 48 directions of
# a block hold 95% of the variance?


# %% id="elsewhere-low"
def needed(x0, t):
    """How many of the 48 directions of blocks hold 95% of the variance of x_t."""
    x_t = (
        x0
        if t < 0
        else add_noise(
            x0, torch.randn(x0.shape, generator=torch.Generator().manual_seed(8)), torch.full((len(x0),), t), alpha_bar
        )
    )
    strength = torch.linalg.svdvals(blocks(x_t) - blocks(x_t).mean(0)).square()
    return int((strength.cumsum(0) / strength.sum() < 0.95).sum()) + 1


for t in (-1, 100, 400, 999):
    print(f"pixels, {'clean' if t < 0 else f't = {t}':8}: {needed(seen[:64], t):2} of 48 directions")
print(
    f"numbers in x_T: pixels {kennel[0].numel():,}, as many as in the page; latents {kennel_z[0].numel():,}; "
    f"Stable Diffusion {sd_latents:,}, its pictures {sd_pixels:,}"
)
assert needed(seen[:64], -1) < 24 < needed(seen[:64], 999) and data["pixels"].shape == kennel.shape

# %% [markdown] id="elsewhere-flow"
# **"Noise goes in, reverse diffusion takes it away, the picture comes out."** In Stable Diffusion and here, what comes
# out of the reverse diffusion is no picture. It has eight channels (there four), and a quarter of the side. Without the
# autoencoder this is the best you could show of it:

# %% id="elsewhere-flow-run" tags=["static"]
print(f"reverse diffusion ends with {tuple(x0.shape[1:])}; a picture is {tuple(kennel.shape[1:])}")
thumbs = package.as_colours(x0.cpu(), weights, bias).repeat_interleave(4, 2).repeat_interleave(4, 3)
show(
    plot_pictures(torch.cat([thumbs, both[:6]]), ["without decoder"] * 6 + ["decoded"] * 6, columns=6),
    "Six drawn latents, above their colours as 16 by 16 squares, below decoded to 64 by 64 pixels.",
)
assert x0.shape[1:] != kennel.shape[1:]

# %% [markdown] id="elsewhere-more"
# And in training the encoder stands before the noise. A data flow without these two doors does not work.
#
# **"The KL makes the latents normally distributed, so you can sample them."** Section 2: neighbouring places of our
# latents are correlated, the channels have other means and spreads, and $N(0, I)$ decodes to mush.
#
# **"In latent space one can interpolate meanings."** Section 4: half-way between two pages are two pages.
#
# **"The scaling factor is a detail of the implementation."** Section 3: with Stable Diffusion's latents, leaving it out
# shifts the end of the schedule:

# %% id="elsewhere-scale"
print(f"t = 999 with a spread of {1 / 0.18215:.2f} is as noisy as t' = {last_time} with a spread of 1")
print(
    f"N(0, I) against latents: correlation of neighbours {neighbours:.2f}, not 0; half-way in latents is half-way in "
    f"pixels at {psnr(in_latents[3:4], in_pixels[3:4]).item():.1f} dB"
)

# %% [markdown] id="next"
# ## The failure that comes next
#
# Corgis, corgis, corgis. Train on the whole book, and you get whatever comes. This network cannot be *asked*: it takes
# $x_t$ and $t$, and no word. Chapter 08 has turned words into numbers that know about pictures. Chapter 10 leads them
# into every step of the denoising, and the parts of this chapter become a text-to-image model.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $z = s(\mu + e^{\frac12\log\sigma^2}\varepsilon)$ | `encode(vae, pictures, generator)` |
# | $\hat x = \text{decoder}(\text{post\_quant\_conv}(z / s))$ | `decode(vae, latents)` |
# | $L = \overline{\lvert x - \hat x\rvert} + 4\,\overline{(x-\hat x)^2} + w\,\text{KL}$ | `autoencoder_loss` |
# | $s = 1 / \text{std}(z)$ | `scaling_factor(latents)` |
# | $\text{SNR}_{t'} = \text{std}^2\,\text{SNR}_t$ | `time_of_equal_snr(t, std, alpha_bar)` |
# | $\min \lVert \text{colour} - (A z + b)\rVert^2$ | `fit_colours(latents, pictures)` |
# | $36 c^2 n^2 + 8 c^2 n^2 + 4 c n^4$ | `level_flops(size, channels)` |
#
# Five sentences to keep: The autoencoder makes pictures small; the diffusion model draws. A tiny KL keeps latents in
# bounds, it does not make them $N(0, I)$. Multiply by $s$ on the way in, divide on the way out. What the autoencoder
# cannot rebuild nobody can draw. Autoencoder and U-Net are a pair.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. Why not f = 64, a single place for the whole page? The U-Net would cost next to
# nothing.</summary> Then the latent is a code such as chapter 02's: the decoder would have to draw all by itself,
# blurred, and the U-Net would have nothing spatial to work on. f trades the cost of diffusion for what is lost on the
# way out.
# </details>
# <details><summary>2. A friend trains a U-Net on latents of the mean, you on samples of q(z|x). Who is right?</summary>
# Both, here: q(z|x) has a spread of about 0.02 beside 1, far below the noise at all but the first few times. With a
# larger KL weight it would matter.
# </details>
# <details><summary>3. In pixels samplers clip x0_hat to [-1, 1]. Why does draw pass clip=None for latents?</summary>
# Latents are no colours: with a spread of 1 every third number lies outside [-1, 1]. Clipping would cut them off.
# </details>
#
# **Papers** Latent diffusion: Rombach et al., [arXiv:2112.10752](https://arxiv.org/abs/2112.10752) (the scale of
# latents is in its appendix G). The VAE: Kingma and Welling, [arXiv:1312.6114](https://arxiv.org/abs/1312.6114).
# Perceptual loss: Zhang et al., [arXiv:1801.03924](https://arxiv.org/abs/1801.03924). Perceptual and adversarial
# together: Esser et al., [arXiv:2012.09841](https://arxiv.org/abs/2012.09841). More channels, and why: Stable
# Diffusion 3, Esser et al., [arXiv:2403.03206](https://arxiv.org/abs/2403.03206).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: a preview without the decoder
#
# At each step of a sampler there is a guess $\hat x_0$. The matrix of exercise 6 makes a thumbnail of it for the
# price of 27 numbers. Here is the way of one page, at every fourth step:

# %% id="bonus-run" tags=["static"]
with torch.no_grad():
    way = list(dpm_solver(averages["latents"], noise[:1], alpha_bar, times))[:: budget(smoke=1, laptop=3, gpu=3)]
guesses = torch.cat([step.x0_hat for step in way]).cpu()
previews = package.as_colours(guesses, weights, bias).repeat_interleave(4, 2).repeat_interleave(4, 3)
titles = [f"t = {step.t}" if step.t >= 0 else "clean" for step in way] * 2
show(
    plot_pictures(torch.cat([previews, to_pictures(guesses)]), titles, columns=len(guesses)),
    "The guess of the clean latent along the way, above as squares of colour, below decoded: first a blur of sky and "
    "grass, at the end a page.",
)
