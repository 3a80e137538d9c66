# %% [markdown] id="title"
# # 10 · Text to image
#
# All parts are on the table: a network that sees noise, a sampler that steps back, words as numbers, pictures as
# latents. In this chapter the words get hold of the pencil. At its end you have trained a text-to-image model of your
# own, and put a whole `StableDiffusionPipeline` together.
#
# ![Four rows of drawn pictures of the same prompts, from no guidance at the top to far too much at the bottom](../chapters/figures/10_guidance.png)
#
# **After this chapter you can**
# 1. derive guidance from Bayes' rule, and say from measurements what its scale buys and what it costs;
# 2. write the training step with a prompt and the whole drawing loop, equal to diffusers' picture for picture;
# 3. train a small text-to-image model in minutes, and measure with a judge whether it does what it is told.
#
# **Time** about three hours, 90 minutes of them for eight exercises. All cells together run about seven minutes on a
# CPU, half of them for two trainings. **You need** chapter 04 (`Attention`, `UNet`), 06 (the loss), 07 (DDIM,
# the score), 08 (hidden states) and 09 (latents and their scaling factor).

# %% id="set-up"
import math

import matplotlib.pyplot as plt
import torch

from course_utils.data import picture_book as book
from course_utils.diffusion import objectives, samplers
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.plotting import LivePlot, plot_pictures, plot_points, show, use_style

use_style()
plt.rcParams["savefig.dpi"] = 88  # many pictures: a little smaller, so that the notebook stays small
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $x_0$, $x_t$ | `x0`, `x_t` | clean and noisy latents (points, in the toy) | (batch, 8, 16, 16) |
# | $c$ | `cond` | the prompt: hidden states of the text encoder | (batch, 32, 128) |
# | $\varnothing$ | `null` | the hidden states of the empty prompt "" | (1, 32, 128) |
# | $\varepsilon_\theta(x_t, t, c)$ | `model(x_t, t, cond)` | the noise that the network sees | as `x_t` |
# | $\hat\varepsilon_c$, $\hat\varepsilon_\varnothing$ | `eps_cond`, `eps_null` | its guess with and without the prompt | as `x_t` |
# | $w$ | `scale` | the guidance scale: 0 ignores the prompt, 1 is plain | a number |
# | $p(c \mid x_t)$ | | how well a noisy picture fits the prompt | a number |
# | $\nabla \log p(x_t)$ | `score` | the direction in which $x_t$ becomes more probable | as `x_t` |
# | $u$ | `uniforms` | one random number for each prompt, to drop it or not | (batch,) |

# %% id="schedule"
T = 1000
alpha_bar = alpha_bar_from_beta(scaled_linear_beta(T))  # (1000,), Stable Diffusion's schedule

# %% [markdown] id="toy"
# ## Three clouds and a wish
#
# A world of points, in three round clouds. Somebody asks for the upper one. For such a world the best
# $\hat\varepsilon$ has a formula, both for *all* points ($\hat\varepsilon_\varnothing$) and for those of the upper
# cloud alone ($\hat\varepsilon_c$).
#
# Draw with a mixture of both: start at $\hat\varepsilon_\varnothing$ and go $w$ times the way to $\hat\varepsilon_c$.
# **Predict first:** where do the points end with $w = 0$, with $w = 1$, and with $w = 4$?

# %% id="toy-run" tags=["static"]
from course_utils.diffusion.objectives import mixture_eps

angle = torch.tensor([90.0, 210.0, 330.0]) * math.pi / 180
centres, spread = torch.stack([angle.cos(), angle.sin()], 1), 0.45  # (3, 2); the upper one first
x_T = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
fifty = samplers.trailing_times(T, 50)


def both_guesses(x_t, t):
    """The exact eps for all three clouds, and that for the upper one."""
    return tuple(mixture_eps(x_t, t, alpha_bar, some, spread) for some in (centres, centres[:1]))


def mixed(w):
    """A model that goes w times the way from the guess without the wish to the one with it."""

    def model(x_t, t, cond=None):
        eps_null, eps_cond = both_guesses(x_t, t)
        return eps_null + w * (eps_cond - eps_null)

    return model


ends = {w: samplers.finish(samplers.ddim(mixed(w), x_T, alpha_bar, fifty)) for w in (0, 1, 4, 10)}

# %% id="toy-plot" tags=["static"]
figure, axes = plt.subplots(1, 4, figsize=(9.6, 2.9))
for ax, (w, cloud) in zip(axes, ends.items()):
    plot_points(cloud, title=f"w = {w}", reach=3.2, ax=ax).set(xlabel="", ylabel="")
    ax.plot(*centres.T, "+", color="black", markersize=10, markeredgewidth=2)
show(
    figure,
    "Points drawn with four scales, crosses at the middles of the clouds: w = 0 gives all three clouds, w = 1 "
    "the upper one; with w = 4 and 10 a small dense cloud lies beyond the upper cross.",
)
for w, cloud in ends.items():
    print(f"w = {w:2}: mean height {cloud[:, 1].mean():5.2f}, spread {cloud.std(0).mean():.2f}")
print(f"the cloud asked for: mean height 1.00, spread {spread}")
assert abs(ends[1][:, 1].mean() - 1) < 0.05 and ends[4][:, 1].mean() > 1.5 and ends[10].std(0).mean() < 0.7 * spread

# %% [markdown] id="toy-read"
# $w = 0$ does not listen. $w = 1$ draws exactly what was asked for. Larger $w$ draws a *caricature*: away from the
# other clouds, further than the data go, and with less variety. Why would anybody do that?

# %% [markdown] id="parts"
# ## The failure first
#
# > **The finished picture book.** Tokenizer and text encoder are built in chapter 08, the autoencoder in 09. The U-Net
# > that is loaded here was trained by the `train` command, with the loss of this chapter; section 5 trains one of your
# > own, and section 9 says how to train this one.
#
# Three functions hide the parts: `encode` (words to numbers), `painter` (the U-Net) and `decode` (latents to pixels).
# This U-Net says $v$, chapter 07's mixture; section 2 shows why. The painter translates, so that all that follows can
# speak of noise.

# %% id="parts-run"
from course_utils.metrics.pictures import follows
from course_utils.models.judge import read
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.recipes import load_judge
from course_utils.text import tokens as text

pipe, judge, table = load_picture_book(device=device), load_judge(), alpha_bar.to(device)


@torch.no_grad()
def encode(prompts):
    """The hidden states of a list of prompts: (n, 32, 128)."""
    return text.encode(pipe.tokenizer, pipe.text_encoder, prompts)


@torch.no_grad()
def painter(x_t, t, cond):
    """The finished U-Net: the noise that it sees in x_t at t, told the prompt."""
    return objectives.eps_from_v(x_t, pipe.unet(x_t, t, cond).sample, t, table)


@torch.no_grad()
def decode(latents):
    """Pictures (n, 3, 64, 64) in [-1, 1] from scaled latents (n, 8, 16, 16)."""
    return pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)


# %% [markdown] id="draw-text"
# And one function that draws, quickly, with the second-order solver of chapter 07. `samplers.guided` is given now;
# sections 3 and 4 build it. With `scale=1` it is nothing but the plain network, told the prompt.

# %% id="draw"
STEPS = budget(smoke=2, laptop=10, gpu=20)


def noise(seeds):
    """One x_T for each seed, (n, 8, 16, 16)."""
    return torch.stack([torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(s)) for s in seeds]).to(device)


def draw(prompts, seeds, scale=4.0, model=painter, negative=""):
    """Latents x_0 for each prompt and seed, drawn in batches of 16; decode makes pictures of them."""
    drawn, null = [], encode([negative])
    for start in range(0, len(prompts), 16):
        some = slice(start, start + 16)
        path = samplers.dpm_solver(
            samplers.guided(model, null, scale),
            noise(seeds[some]),
            table,
            samplers.trailing_times(T, STEPS),
            cond=encode(prompts[some]),
        )
        drawn.append(samplers.finish(path))
    return torch.cat(drawn)


def look(latents):
    """Pictures on the CPU, for plots and for the judge."""
    return torch.cat([decode(part) for part in latents.split(16)]).cpu()


# %% [markdown] id="failure-text"
# The **judge** reads what is in a picture (chapter 00); `follows` says whether that is all that the caption claims, and
# nothing else. Captions come from the picture book, so that the judge knows what is claimed.


# %% id="pages"
def caption(kind, colour, place):
    """The plain caption of one thing in a place, such as "a red ball on the grass"."""
    return book.caption(book.Scene((book.Thing(kind, colour),), place))


def page(place, *things, relation=None):
    """A page of the picture book with things (kind, colour)."""
    return book.Scene(tuple(book.Thing(*thing) for thing in things), place, relation=relation)


# %% id="failure" tags=["static"]
ASKED = [
    page("room", ("car", "green"), ("boat", "blue"), relation="above"),
    page("city", ("teapot", None), ("mushroom", "green"), relation="above"),
    page("beach", ("rabbit", "yellow"), ("house", "blue"), relation="above"),
    page("forest", ("cat", "red"), ("tree", "blue"), relation="above"),
    page("grass", ("ball", "red")),
    page("city", ("rabbit", None), ("teapot", "yellow"), relation="above"),
    page("grass", ("corgi", None)),
    page("forest", ("ball", "green"), ("teapot", "white"), relation="above"),
]
wishes = [book.caption(scene) for scene in ASKED]
plain = look(draw([wish.text for wish in wishes], range(8), scale=1.0))
right = [follows(verdict, wish) for verdict, wish in zip(read(judge, plain), wishes)]
names = [f"{wish.text}: {'yes' if ok else 'NO'}" for wish, ok in zip(wishes, right)]
show(
    plot_pictures(plain, names, columns=4),
    "Eight pictures drawn with scale 1, each with what was asked for and "
    "whether the judge finds it. Where it says NO, something is missing, another thing, or a shape of nothing.",
)
print(f"as asked: {sum(right)} of 8")

# %% [markdown] id="failure-read"
# The network was told every prompt, at every step, and most prompts come out right. These were picked because they are
# hard. Look at each NO: a thing that is missing, one too many, a shape that could be anything. The network has learnt to
# *use* words; it does not lean on them. Remember the toy: there, $w$ was a lever.

# %% [markdown] id="cross-text"
# ## 1 · How words enter
#
# At each layer with attention every pixel asks and the words answer (chapter 04):
#
# $$\text{out} = \text{softmax}\Bigl(\frac{Q K^\top}{\sqrt d}\Bigr) V, \qquad Q = x\,W_q,\quad K = c\,W_k,\quad V = c\,W_v$$
#
# In words: queries $Q$ from the pixels $x$, keys $K$ and values $V$ from the 32 word vectors $c$. That is the *only*
# door through which the prompt comes in. Your U-Net has it: `cond_width=128` builds it in.

# %% id="cross"
from course_utils.models.unet_by_hand import UNet, UNetConfig


def new_unet():
    """The U-Net of chapter 04 for latents, with words at its two coarser levels."""
    torch.manual_seed(0)
    return UNet(UNetConfig(channels=8, widths=(32, 64, 96), attention=(False, True, True), cond_width=128)).to(device)


by_hand = new_unet()
when = torch.tensor([500, 500], device=device)
answer = by_hand(noise([0, 0]), when, encode(["a red ball on the grass", "a blue car at night"]))
print("eps_hat", tuple(answer.shape), f"; {sum(p.numel() for p in by_hand.parameters()) / 1e6:.2f} million parameters")
print("before any training the prompt changes:", (answer[0] - answer[1]).abs().max().item())

# %% [markdown] id="cross-read"
# Nothing, at first: the output layers of attention start at zero, and training must open the door.
#
# Is the finished U-Net built of the same parts? Take its first layer of cross-attention, give its weights to the
# `Attention` of chapter 04, and compare.

# %% id="cross-equal"
from course_utils.models.attention import Attention

theirs = pipe.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2
mine = Attention(128, heads=theirs.heads, context_width=128).to(device)
mine.load_state_dict({name.replace("to_out.0", "to_out"): value for name, value in theirs.state_dict().items()})
pixels, words = torch.randn(2, 64, 128, device=device), encode(["a red ball on the grass", ""])
with torch.no_grad():
    assert torch.allclose(mine(pixels, words), theirs(pixels, words), atol=1e-4)
    one_key = mine.weights(pixels, words[:, :1])
print("yours and diffusers' agree; weights with a single key: from", one_key.min().item(), "to", one_key.max().item())
assert torch.equal(one_key, torch.ones_like(one_key))

# %% [markdown] id="pooled-read"
# The last number says why the U-Net gets all 32 hidden states and not the *pooled* vector of chapter 08. With a single
# key the softmax has nothing to choose: every pixel gets the same answer. "A red ball left of a white cat" needs pixels
# that ask for different words.
#
# ### Exercise 1 · A map for each word
#
# ●●●○○ · 15 minutes. Turn the weights around: not "which words does this pixel look at" but "which pixels look at this
# word". `split_heads` and `attention_weights` are those of chapter 04.

# %% id="ex-maps"
from course_utils.models.attention import attention_weights, split_heads


def word_maps(q, k, heads):
    """Queries (batch, side * side, width) and keys (batch, words, width) -> maps (batch, words, side, side).

    Pixel number row * side + column; the mean over the heads.
    """
    ### BEGIN SOLUTION
    #: each head compares its own piece of query and key: (batch, heads, pixels, words)
    weights = attention_weights(split_heads(q, heads), split_heads(k, heads))
    #: the mean over the heads, and words first: (batch, words, pixels)
    maps = weights.mean(1).transpose(1, 2)
    #: the pixels in rows and columns
    side = math.isqrt(q.shape[1])
    return maps.unflatten(2, (side, side))
    ### END SOLUTION


# %% id="check-maps"
word_maps = check("10.word_maps", word_maps)
# Stuck? hint("10.word_maps") gives a hint, and one more each time; solution(...) is the last resort.

# %% [markdown] id="maps-text"
# Catch queries and keys of one layer while a picture is drawn. **Predict first:** "a red ball left of a white cat in
# the snow". Which of the words *red*, *ball*, *white*, *cat*, *snow* will share a place?

# %% id="maps-run"
*_, layer = (part for name, part in pipe.unet.named_modules() if name.startswith("up") and name.endswith("0.attn2"))
caught = []


def catch(module, arguments, named):
    """Note the word maps of one step; with guidance the second half of the batch is told the prompt."""
    q, k = module.to_q(arguments[0]), module.to_k(named["encoder_hidden_states"])
    caught.append(word_maps(q, k, module.heads)[len(q) // 2 :])


pair = "a red ball left of a white cat in the snow"
hook = layer.register_forward_pre_hook(catch, with_kwargs=True)
with torch.no_grad():
    pages = look(draw([pair] * 4, range(4)))
hook.remove()
maps = torch.stack(caught).mean(0).cpu()  # over the steps: (4, 32, side, side)
assert torch.allclose(maps.sum(1), torch.ones_like(maps[:, 0]), atol=1e-4)
print("maps", tuple(maps.shape), "; at each pixel the shares of all 32 tokens add up to 1")

# %% id="maps-plot" tags=["static"]
tokens = [pipe.tokenizer.decode([number]) for number in pipe.tokenizer(pair).input_ids]
figure, axes = plt.subplots(2, 6, figsize=(9.6, 3.5))
for row, number in zip(axes, (0, 1)):
    plot_pictures(pages[number : number + 1], ["drawn"], ax=row[0])
    for ax, word in zip(row[1:], ("red", "ball", "white", "cat", "snow")):
        ax.imshow(maps[number, tokens.index(word)], cmap="magma")
        ax.set_title(f'"{word}"', fontsize=10)
        ax.set_axis_off()
show(
    figure,
    "Two drawings of a red ball left of a white cat in the snow, each with the maps of five words: bright "
    "where the word is looked at.",
)
columns = torch.arange(maps.shape[-1]) / maps.shape[-1]
middle = {
    w: (maps[:, tokens.index(w)].sum(1) * columns).sum(1) / maps[:, tokens.index(w)].sum((1, 2))
    for w in ("red", "ball", "white", "cat")
}
print("mean column of each word's map, 0 left, 1 right: " + ", ".join(f"{w} {m.mean():.2f}" for w, m in middle.items()))

# %% [markdown] id="maps-read"
# Read such maps with care (chapter 04). Not every layer sorts by place: try the next one, with `1.attn2` in the first
# line. And each hidden state has heard the words before it, so a map shows where a *token* is used, not what it means
# there. Whether colours stay with their things is a question that section 8 measures.

# %% [markdown] id="loss-text"
# ## 2 · The loss with a prompt
#
# One thing changes against chapter 06: the network is told the prompt.
#
# $$L(\theta) = \mathbb{E}_{x_0,\,c,\;\varepsilon \sim N(0, I),\;t}\;
#   \bigl\lVert \varepsilon - \varepsilon_\theta(x_t, t, c) \bigr\rVert^2, \qquad
#   x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$$
#
# In words: take a picture's latents $x_0$ with their caption $c$, noise $\varepsilon$ and a time $t$; the network sees
# $x_t$, is told $t$ and $c$, and says which noise is there. **Predict first:** how much does the loss of the finished
# network rise if it is told *no* prompt, or that of *another* picture? At which $t$ most?

# %% id="loss-by-hand"
from course_utils.recipes import encode_pictures

fresh = [book.sample_scene(number, seed=7) for number in range(budget(smoke=4, laptop=32, gpu=256))]
latents = encode_pictures(pipe.vae, book.pictures(fresh)).to(device) * pipe.vae.config.scaling_factor
told = encode([book.caption(scene).text for scene in fresh])
null = encode([""])
eps = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(device)


def loss_at(t, cond, tell=None):
    """The mean squared error at time t, told the prompts `cond` and the time `tell` (the true one if None)."""
    at = torch.full((len(latents),), t, device=device)
    x_t = add_noise(latents, eps, at, table)
    with torch.no_grad():
        v = pipe.unet(x_t, t if tell is None else tell, cond).sample
    return (objectives.eps_from_v(x_t, v, at, table) - eps).square().mean().item()


LEVELS = budget(smoke=(100, 900), laptop=(50, 200, 400, 600, 800, 950), gpu=(50, 200, 400, 600, 800, 950))
losses = {
    name: [loss_at(t, cond) for t in LEVELS]
    for name, cond in (("its own", told), ("none", null.expand_as(told)), ("another's", told.roll(1, 0)))
}
print("t          " + "".join(f"{t:9}" for t in LEVELS))
for name, row in losses.items():
    print(f"{name:11}" + "".join(f"{value:9.4f}" for value in row))

# %% [markdown] id="loss-plot-text"
# As shares of the loss with the right prompt:

# %% id="loss-plot" tags=["static"]
figure, ax = plt.subplots(figsize=(6, 3.1))
for name, line in (("none", "o-"), ("another's", "s--")):
    ax.plot(
        LEVELS,
        [100 * (a / b - 1) for a, b in zip(losses[name], losses["its own"])],
        line,
        label=f"told {name if name != 'none' else 'no prompt'}",
    )
ax.axhline(0, color="#777777", linewidth=1)
ax.set(xlabel="t", ylabel="loss rises by (%)")
ax.legend()
show(
    figure,
    "How much the loss rises, in percent. Told no prompt: near nothing at small t, to about twice at large t. Told "
    "another picture's prompt: far more, at all t.",
)
if budget(smoke=False, laptop=True, gpu=True):
    rises = [a / b - 1 for a, b in zip(losses["none"], losses["its own"])]
    assert max(rises[-3:]) > rises[0]

# %% [markdown] id="loss-read"
# Where there is little noise, the picture itself says what it shows; the words add nothing. Only in thick noise do they
# help, and there the loss is smallest: nearly all of $x_t$ *is* noise, so the noise is soon guessed. In sum, **listening
# pays little**: that is why a network that was told everything still does not lean on the words, and why a lever is
# needed.
#
# ### What should it be asked for?
#
# Yet in thick noise it is decided *what* will be drawn. Count the same errors in pictures: an error $\delta$ of the
# noise is one of $\delta\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}$ in $x_0$, chapter 07's conversion. A network that says
# $\varepsilon$ must repeat nearly all of its input there and hide the picture in the last digits. One that says
# $v = \sqrt{\bar\alpha_t}\,\varepsilon - \sqrt{1-\bar\alpha_t}\,x_0$ says almost nothing but $-x_0$: the picture, at
# full size.
#
# Suppose that a network knew the *perfect* answer, and only rounded it to bfloat16, as computers in a hurry do. **Predict
# first:** how far off is the picture then, at each $t$?

# %% id="rounded"
off = {"eps": [], "v": []}
for t in LEVELS:
    at = torch.full((len(latents),), t, device=device)
    x_t, v = add_noise(latents, eps, at, table), objectives.v_from_x0_eps(latents, eps, at, table)
    for kind, answer, x0_from in (("eps", eps, objectives.x0_from_eps), ("v", v, objectives.x0_from_v)):
        error = x0_from(x_t, answer.bfloat16().float(), at, table) - latents
        off[kind].append(error.square().mean().sqrt().item())
for kind, row in off.items():
    print(f"{kind:3} rounded, error of x0: " + ", ".join(f"t = {t}: {value:.4f}" for t, value in zip(LEVELS, row)))
assert off["eps"][-1] > 5 * off["v"][-1]

# %% [markdown] id="weigh-text"
# The *loss* decides too what is learnt. The squared error of $v$ is the sum of both squares:
#
# $$\lVert v - \hat v \rVert^2 = \lVert \varepsilon - \hat\varepsilon \rVert^2 + \lVert x_0 - \hat x_0 \rVert^2
#   = \frac{1}{\bar\alpha_t}\,\lVert \varepsilon - \hat\varepsilon \rVert^2$$
#
# In words: it is the loss of the noise, each sample weighted by $1/\bar\alpha_t$. Which share of all errors lies in thick
# noise, before and after?

# %% id="weigh"
before = torch.tensor(losses["its own"])
after = before * objectives.v_weight(alpha_bar[list(LEVELS)])
for name, row in (("noise", before), ("v", after)):
    print(
        f"{name:6}"
        + "".join(f"{value:9.4f}" for value in row.tolist())
        + f"   of it at t > 700: {row[torch.tensor(LEVELS) > 700].sum() / row.sum():.0%}"
    )
assert after[-1] / after.sum() > before[-1] / before.sum()

# %% [markdown] id="weigh-read"
# With the loss of the noise nobody notices when the first steps of drawing go wrong; with that of $v$ they count. The
# finished U-Net once said $\varepsilon$, first with the plain loss and then with this weight; then it learnt to say $v$.
# Section 5 tries both ways on a small one, section 8 tells what they brought to the finished one.
#
# And the time? Some texts write $\varepsilon_\theta(x_t, c)$, without $t$. Tell the network a wrong time:

# %% id="wrong-time"
TRUE = 300
by_time = {tell: loss_at(TRUE, told, tell) for tell in (20, 150, 300, 450, 700)}
print(f"x_t is at t = {TRUE}. Loss if told " + ", ".join(f"{tell}: {value:.3f}" for tell, value in by_time.items()))
if budget(smoke=False, laptop=True, gpu=True):
    assert min(by_time, key=by_time.get) == TRUE

# %% [markdown] id="drop-text"
# ### One network, two answers
#
# The lever needs $\hat\varepsilon_\varnothing$ as well: the guess *without* a prompt. Two networks? One is enough, if
# in training a share of the prompts, usually a tenth, is replaced by the empty one, **each as a whole**:
#
# $$c_i \leftarrow \varnothing \quad\text{where } u_i < \text{share}$$
#
# In words: for sample number $i$ throw a number $u_i$ between 0 and 1; below the share its prompt goes. The picture
# stays.
#
# ### Exercise 2 · Drop whole prompts
#
# ●●○○○ · 10 minutes. The numbers are passed in, so that it can be tested. Each decides for a whole prompt; one that is
# equal to the share keeps it.


# %% id="ex-drop"
def drop_prompts(cond, null, uniforms, share=0.1):
    """cond (batch, words, width) with prompt i replaced by null (1, words, width) where uniforms[i] < share."""
    ### BEGIN SOLUTION
    #: which prompts go, with the axes of cond: (batch, 1, 1)
    goes = (uniforms < share)[:, None, None]
    #: null there, the prompt elsewhere
    return torch.where(goes, null, cond)
    ### END SOLUTION


# %% id="check-drop"
drop_prompts = check("10.drop_prompts", drop_prompts)

# %% [markdown] id="ex-loss-text"
# ### Exercise 3 · The loss
#
# ●●●○○ · 10 minutes. All chance comes in: the times `t`, the noise `eps`, the numbers `uniforms`. The result is one
# number, with gradients.


# %% id="ex-loss"
def text_loss(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    """The mean of (eps - model(x_t, t, c'))^2 over everything, where c' is cond with some prompts dropped; shape ()."""
    ### BEGIN SOLUTION
    #: the noisy latents
    x_t = add_noise(x0, eps, t, alpha_bar)
    #: the prompts, some of them dropped
    told = drop_prompts(cond, null, uniforms, share)
    #: the mean squared error of the noise
    return (model(x_t, t, told) - eps).square().mean()
    ### END SOLUTION


# %% id="check-loss"
text_loss = check("10.text_loss", text_loss)

# %% [markdown] id="loss-equal-text"
# By hand above, as a function here, and the package's, on the finished network:

# %% id="loss-equal"
from course_utils.diffusion import guidance

at = torch.full((len(latents),), LEVELS[-1], device=device)
never = torch.ones(len(latents), device=device)  # no number below the share: nothing is dropped
yours = text_loss(painter, latents, told, null, at, eps, never, table)
package = guidance.text_loss(painter, latents, told, null, at, eps, never, table)
print(f"by hand {losses['its own'][-1]:.6f}, your function {yours:.6f}, the package {package:.6f}")
assert abs(yours.item() - losses["its own"][-1]) < 1e-5 and torch.allclose(yours, package)

# %% [markdown] id="element-text"
# ### A failure: dropping elements
#
# `nn.Dropout` is at hand and drops too: single *elements*. **Predict first:** what will a network that was trained so
# say when it is asked with the empty prompt?
#
# In the toy world the truth is known. Two networks of points, the same but for the dropping. The "prompts" are three
# random vectors, the null prompt a fourth.

# %% id="element-setup"
from course_utils.models.blocks import time_embedding
from course_utils.training import MovingAverage, train

vectors = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))  # three prompts of two words, and ""


class PointNet(torch.nn.Module):
    """model(x_t, t, cond) -> eps_hat for points."""

    def __init__(self, width=96):
        super().__init__()
        sizes = [2 + 32 + 16, width, width, width]
        hidden = [torch.nn.Sequential(torch.nn.Linear(i, o), torch.nn.SiLU()) for i, o in zip(sizes, sizes[1:])]
        self.layers = torch.nn.Sequential(*hidden, torch.nn.Linear(width, 2))

    def forward(self, x_t, t, cond):
        return self.layers(torch.cat([x_t, time_embedding(t, 32), cond.flatten(1)], 1))


def point_loss(model, samples, by_element=False):
    """Your text_loss on points of the three clouds; or with single elements of the prompts dropped."""
    which = samples.integers(3)
    x0 = centres[which] + spread * samples.normals(2, stream=1)
    t, eps = samples.integers(T, stream=2), samples.normals(2, stream=3)
    cond, share, numbers = vectors[which], 0.1, samples.uniforms(stream=4)
    if by_element:
        holes = samples.uniforms(2, 8, stream=5) < share
        cond, share = torch.where(holes, vectors[3:], cond), 0.0
    return text_loss(model, x0, cond, vectors[3:], t, eps, numbers, alpha_bar, share)


# %% id="element-train"
from functools import partial

point_nets = {}
for way in ("whole prompts", "elements"):
    torch.manual_seed(0)
    net = PointNet()
    kept = MovingAverage(net, 0.99)
    live = LivePlot(f"The loss on points, with {way} dropped: it falls fast, then hardly.", seconds=5)
    for record in train(
        net,
        partial(point_loss, by_element=way == "elements"),
        learning_rate=3e-3,
        average=kept,
        steps=budget(smoke=30, laptop=700, gpu=3000),
        batch=budget(smoke=32, laptop=128, gpu=256),
    ):
        live.update(record.step, record.loss)
    live.finish()
    point_nets[way] = kept.model
    print(f"{way}: {record.seconds:.0f} seconds")

# %% [markdown] id="element-plot-text"
# How far is each network's guess *without* a prompt from the true one? And where do the points end?

# %% id="element-error"
points_now = centres[torch.arange(3000) % 3] + spread * torch.randn(3000, 2, generator=torch.Generator().manual_seed(5))
error = {}
for way, net in point_nets.items():
    found = []
    for level in (100, 300, 500, 700, 900):
        at = torch.full((3000,), level)
        x_t = add_noise(points_now, torch.randn(3000, 2, generator=torch.Generator().manual_seed(level)), at, alpha_bar)
        with torch.no_grad():
            found.append((net(x_t, at, vectors[3:].expand(3000, -1, -1)) - both_guesses(x_t, at)[0]).square().mean())
    error[way] = torch.stack(found).mean().item()
print("error of the guess without a prompt: " + ", ".join(f"{way} {value:.3f}" for way, value in error.items()))
if budget(smoke=False, laptop=True, gpu=True):
    assert error["elements"] > 1.5 * error["whole prompts"]

# %% id="element-plot" tags=["static"]
figure, axes = plt.subplots(1, 4, figsize=(9.6, 2.9))
shown = zip(axes, [(way, w) for way in point_nets for w in (0, 4)])
for ax, (way, w) in shown:
    model = samplers.guided(point_nets[way], vectors[3:], w)
    cloud = samplers.finish(samplers.ddim(model, x_T, alpha_bar, fifty, cond=vectors[:1].expand(2000, -1, -1)))
    plot_points(cloud, title=f"{way}\nw = {w}", reach=5.5, ax=ax).set(xlabel="", ylabel="")
    ax.plot(*centres.T, "+", color="black", markersize=9, markeredgewidth=2)
show(
    figure,
    "Points from two trained networks. Whole prompts dropped: w = 0 covers all three clouds, w = 4 gives a "
    "cloud above the upper one. Elements dropped: w = 0 covers only a part, w = 4 lies far outside.",
)

# %% [markdown] id="element-read"
# A prompt with holes still says what it is, so the second network was never asked without one. At the null prompt it
# makes something up, and guidance multiplies the difference to a fiction. The error message is: none.

# %% [markdown] id="bayes-text"
# ## 3 · Guidance, derived
#
# How well does a noisy picture fit the prompt? Bayes' rule, and its logarithm:
#
# $$p(c \mid x_t) = \frac{p(x_t \mid c)\,p(c)}{p(x_t)} \quad\Rightarrow\quad
#   \nabla \log p(c \mid x_t) = \nabla \log p(x_t \mid c) - \nabla \log p(x_t)$$
#
# $\nabla$ is the gradient by $x_t$, so $p(c)$ is gone. Both terms on the right are *scores*, directions towards more
# probable pictures, and a network that predicts noise knows them (chapter 07):
# $\nabla \log p(x_t) = -\hat\varepsilon_\varnothing / \sqrt{1-\bar\alpha_t}$. So the network contains a classifier that
# nobody trained:
#
# $$\nabla \log p(c \mid x_t) = -\frac{\hat\varepsilon_c - \hat\varepsilon_\varnothing}{\sqrt{1-\bar\alpha_t}}$$

# %% [markdown] id="ex-score-text"
# ### Exercise 4 · The classifier that nobody trained
#
# ●●●○○ · 10 minutes. Each sample has its own $t$; `expand_like(alpha_bar[t], x)` gives it the axes of `x`.

# %% id="ex-score"
from course_utils.shapes import expand_like


def classifier_score(eps_cond, eps_null, t, alpha_bar):
    """grad log p(c | x_t) from both guesses, each (batch, ...); t (batch,), alpha_bar (T,)."""
    ### BEGIN SOLUTION
    #: the factor of the noise in x_t: (batch, 1, ...)
    noise_factor = (1 - expand_like(alpha_bar[t], eps_cond)).sqrt()
    #: score with the prompt minus score without; each is -eps / that factor
    return -(eps_cond - eps_null) / noise_factor
    ### END SOLUTION


# %% id="check-score"
classifier_score = check("10.classifier_score", classifier_score)

# %% [markdown] id="score-plot-text"
# In the toy world, at three times. The colour is the probability that a noisy point belongs to the upper cloud,
# computed directly; the arrows come from your function, that is, from two guesses of *noise*.

# %% id="score-plot" tags=["static"]
line = torch.linspace(-2.4, 2.4, 13)
grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), 2).reshape(-1, 2)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.7))
for ax, level in zip(axes, (100, 400, 700)):
    at = torch.full((len(grid),), level)
    eps_null, eps_cond = both_guesses(grid, at)
    arrows = classifier_score(eps_cond, eps_null, at, alpha_bar)
    a = alpha_bar[level]
    logs = -torch.cdist(grid, a.sqrt() * centres).square() / (2 * (a * spread**2 + 1 - a))
    ax.imshow(
        logs.softmax(1)[:, 0].reshape(13, 13), origin="lower", extent=(-2.6, 2.6) * 2, cmap="Blues", vmin=0, vmax=1
    )
    ax.quiver(*grid.T, *arrows.T, color="#D55E00", width=0.006)
    ax.set(title=f"t = {level}", xlabel="$x_t$, first")
    ax.grid(False)
axes[0].set_ylabel("$x_t$, second")
show(
    figure,
    "The probability of the upper cloud as shades of blue, and arrows that point up from everywhere else; "
    "they are short where the point already is clearly in that cloud.",
)

# %% [markdown] id="guide-text"
# Now the lever. Draw not from $p(x_t \mid c)$, but add $w - 1$ more portions of the classifier's gradient to its score:
#
# $$\nabla \log p(x_t \mid c) + (w - 1)\,\nabla \log p(c \mid x_t)
#   = \nabla \log p(x_t) + w\,\nabla \log p(c \mid x_t)$$
#
# Multiply by $-\sqrt{1-\bar\alpha_t}$ and it is a recipe for noise, **classifier-free guidance**:
#
# $$\hat\varepsilon = \hat\varepsilon_\varnothing + w\,(\hat\varepsilon_c - \hat\varepsilon_\varnothing)$$
#
# In words: from the guess without the prompt go $w$ times the way to the guess with it.
#
# ### Exercise 5 · The lever
#
# ●●○○○ · 5 minutes.


# %% id="ex-guide"
def guide(eps_null, eps_cond, scale):
    """eps_null + scale * (eps_cond - eps_null); all (batch, ...)."""
    ### BEGIN SOLUTION
    #: what the prompt changes, taken `scale` times, from eps_null on
    return eps_null + scale * (eps_cond - eps_null)
    ### END SOLUTION


# %% id="check-guide"
guide = check("10.guide", guide)

# %% [markdown] id="conventions"
# > **Two conventions.** The paper writes $(1 + w')\,\hat\varepsilon_c - w'\,\hat\varepsilon_\varnothing$: its $w'$ is
# > ours minus 1. diffusers' `guidance_scale` is our $w$. "No guidance" is $w = 1$, or $w' = 0$: ask which one is meant.

# %% id="guide-equal"
eps_null, eps_cond = both_guesses(grid, torch.full((len(grid),), 400))
at = torch.full((len(grid),), 400)
root = (1 - alpha_bar[400]).sqrt()
by_scores = -root * (-eps_cond / root + 3 * classifier_score(eps_cond, eps_null, at, alpha_bar))
papers = (1 + 3) * eps_cond - 3 * eps_null
for other in (by_scores, papers, guidance.guide(eps_null, eps_cond, 4.0)):
    assert torch.allclose(guide(eps_null, eps_cond, 4.0), other, atol=1e-4)
print("w = 4: your guide, the sum of scores, the paper's formula with w' = 3, and the package's agree")

# %% [markdown] id="explore-text"
# Guidance where everything is exact, under your hands. **Predict, then move the sliders:** if the clouds overlap less
# (smaller spread), does the same $w$ overshoot more or less?

# %% id="toy-filmstrip" tags=["static"]
from course_utils.widgets import explore, filmstrip, guidance_explorer, two_prompts_explorer

clouds = guidance_explorer(centres, alpha_bar)
filmstrip(clouds, [{"w": 1.0}, {"w": 5.0}, {"w": 1.0, "spread": 0.2}, {"w": 5.0, "spread": 0.2}])

# %% [markdown] id="toy-explore-how"
# Live: `w` is the scale, `spread` the size of the clouds. The cross marks the middle of the one asked for.

# %% id="toy-explore"
explore(clouds)

# %% [markdown] id="loop-text"
# ## 4 · The whole loop
#
# Everything is there. To draw: encode the prompt and the empty one; start from noise; at each time ask twice, guide,
# step; at the end decode.
#
# ### Exercise 6 · Text to image
#
# ●●●●○ · 20 minutes. The parts come in as functions: `encode(list of texts)`, `model(x_t, t, cond)`, `decode(latents)`.
# The model wants `t` as a tensor, (n,), one time for each sample.
# The step is your DDIM step of chapter 07. `negative` is the text that stands in the place of the empty prompt; section
# 7 says what for.

# %% id="ex-loop"
from course_utils.diffusion.steps import ddim_step


def text_to_image(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    """What decode makes of the latents drawn for each prompt, from noise x_T (n, ...), by DDIM over falling times."""
    ### BEGIN SOLUTION
    #: what to go towards, and what to go away from: (n, words, width) each
    cond, null = encode(prompts), encode([negative] * len(prompts))
    #: start at the noise; each time and the next, the last one -1
    x_t = x_T
    for t, earlier in zip(times, [*times[1:], -1]):
        #: ask twice, told the time
        at = torch.full((len(x_t),), t, device=x_t.device)
        eps = guide(model(x_t, at, null), model(x_t, at, cond), scale)
        #: one step back
        x_t = ddim_step(x_t, eps, t, earlier, alpha_bar)
    #: latents to pictures
    return decode(x_t)
    ### END SOLUTION


# %% id="check-loop"
text_to_image = check("10.text_to_image", text_to_image)

# %% [markdown] id="loop-equal-text"
# Four prompts, four noises: your loop, the package's (`samplers.text_to_image`) and diffusers' own pipeline, which is
# set to its DDIM.

# %% id="loop-equal" tags=["static"]
from course_utils.pipelines.picture_book import make_scheduler

four = [
    "a corgi puppy sitting on the grass",
    "a blue boat on the beach",
    "a red mushroom in the forest",
    "a white rabbit at night",
]
pipe.scheduler = make_scheduler("ddim", pipe.scheduler.config)
steps = budget(smoke=2, laptop=20, gpu=50)
times = samplers.trailing_times(T, steps)
ours = text_to_image(four, encode, painter, decode, noise(range(4)), table, times)
package = samplers.text_to_image(four, encode, painter, decode, noise(range(4)), table, times)
library = pipe(four, num_inference_steps=steps, guidance_scale=4.0, latents=noise(range(4)), output_type="pt").images
gaps = [(ours - package).abs().max().item() * 127.5, (ours - (2 * library - 1)).abs().max().item() * 127.5]
show(
    plot_pictures(torch.cat([ours, 2 * library - 1]).cpu(), [*four, *[""] * 4], columns=4),
    "Above: four pictures by the hand-written loop. Below: the same four by diffusers' pipeline.",
)
print(f"largest difference in grey levels of 255: to the package {gaps[0]:.3f}, to diffusers {gaps[1]:.3f}")
assert max(gaps) < 1

# %% [markdown] id="same-start-text"
# ### Where does the prompt come in?
#
# **Predict first:** three prompts, *one* noise. When do the three drawings part? Each row shows the guess $\hat x_0$ at
# five times.

# %% id="same-start" tags=["static"]
three = ["a red ball on the grass", "a blue car in the snow", "a white cat at night"]
path = list(samplers.ddim(samplers.guided(painter, null, 4.0), noise([5, 5, 5]), table, times, cond=encode(three)))
chosen = [round(share * (len(path) - 1)) for share in (0, 0.15, 0.35, 0.6, 1)]
with torch.no_grad():
    guesses = torch.stack([decode(path[i].x0_hat) for i in chosen], 1).flatten(0, 1).cpu()
titles = [f"asked at t = {times[i]}" for i in chosen] + [""] * 10
show(
    plot_pictures(guesses, titles, columns=5),
    "Three rows, one for each prompt, all from the same noise: the first "
    "guesses are blurs of different colours already, then things appear, then details.",
)
for i in chosen:
    flat = path[i].x_t.flatten(1)
    alike = torch.corrcoef(flat)[0, 1:].mean()
    print(f"after the step from t = {times[i]:3}: correlation of the first x_t with the others {alike:.2f}")

# %% [markdown] id="same-start-read"
# The start is the same to the last digit. What differs is the *answer* to the first question, and to each one after it.
# The prompt never touches $x_T$.
#
# So one may change one's mind on the way. **Predict, then move the sliders:** the first prompt rules the first steps,
# the second the rest. After which step can the place not be changed any more? And the colour?

# %% id="switch-filmstrip" tags=["static"]
minds = two_prompts_explorer(
    encode, painter, decode, (8, 16, 16), table, [three[0], three[1], three[2], four[0]], number=STEPS, device=device
)
filmstrip(minds, [{"then": three[1], "switch": round(share * STEPS)} for share in (0, 0.25, 0.5, 0.75, 1)])

# %% [markdown] id="switch-how"
# Live: choose two prompts and the step at which the second takes over.

# %% id="switch-explore"
explore(minds)

# %% [markdown] id="own-text"
# ## 5 · A text-to-image model of your own
#
# The U-Net that you wrote in chapter 04, untrained, 0.97 million parameters. A small world, so that minutes are enough:
# four things in four colours at four places, one thing a page. Some combinations are *held out*: no picture of them is
# ever seen. Text encoder and autoencoder are the finished ones, frozen; the U-Net starts from nothing.

# %% id="own-combinations"
import itertools

KINDS = ("corgi", "car", "ball", "house")
COLOURS = ("red", "yellow", "blue", "purple")
PLACES = ("grass", "snow", "desert", "night")
combinations = list(itertools.product(KINDS, COLOURS, PLACES))
held_out = [wish for wish in combinations if book.is_held_out(*wish)]
trained = [wish for wish in combinations if wish not in held_out]

# %% [markdown] id="own-data-text"
# Pages of the first, encoded once, and three captions of each:


# %% id="own-data"
def scene(kind, colour, place, seed):
    """A page of the picture book: one thing, the corgi sitting."""
    return book.Scene((book.Thing(kind, colour, "sitting" if kind == "corgi" else None),), place, seed)


def said_of(scenes, wording):
    """The hidden states of the pages' captions in one of the wordings, encoded 256 at a time."""
    texts = [book.caption(drawn, wording).text for drawn in scenes]
    return torch.cat([encode(texts[i : i + 256]) for i in range(0, len(texts), 256)])


scenes = [scene(*wish, seed) for seed in range(budget(smoke=1, laptop=14, gpu=200)) for wish in trained]
clean = encode_pictures(pipe.vae, book.pictures(scenes)).to(device) * pipe.vae.config.scaling_factor
said = torch.stack([said_of(scenes, wording) for wording in (None, 0, 1)], 1)  # (pages, 3, tokens, width)
print(f"{len(trained)} combinations to learn from, {len(held_out)} held out; {len(scenes)} pages")
print("latents", tuple(clean.shape), f"standard deviation {clean.std():.2f}; three captions each", tuple(said.shape))

# %% [markdown] id="own-loss-text"
# Two U-Nets, the same but for what they are asked for: one says $\varepsilon$ and learns from your `text_loss`; the other
# says $v$ and learns from the squared error of that. Times come from the logit-normal distribution of chapter 06's bonus,
# which visits the middle more often; a tenth of the prompts is dropped. **Predict first:** which of the two will do what
# it is told?

# %% id="own-loss"
import numpy

from course_utils.training import Samples


def own_loss(model, samples, kind):
    """The loss on pages of the small world of a model that says `kind`; all chance is the samples' own numbers."""
    page, wording = samples.integers(len(clean)).to(device), samples.integers(3, stream=1).to(device)
    t = objectives.logit_normal_times(samples.normals(stream=2), T).to(device)
    eps = samples.normals(8, 16, 16, stream=3).to(device)
    uniforms = samples.uniforms(stream=4).to(device)
    x0, cond = clean[page], said[page, wording]
    if kind == "eps":
        return text_loss(model, x0, cond, null, t, eps, uniforms, table)
    v_hat = model(add_noise(x0, eps, t, table), t, drop_prompts(cond, null, uniforms))
    return (v_hat - objectives.v_from_x0_eps(x0, eps, t, table)).square().mean()


exam = Samples(numpy.arange(10_000_000, 10_000_000 + budget(smoke=16, laptop=128, gpu=512)), seed=5)

# %% id="own-train"
from tqdm.auto import tqdm

settings = {
    "steps": budget(smoke=15, laptop=1200, gpu=20_000),
    "batch": budget(smoke=4, laptop=16, gpu=64),
    "learning_rate": 2e-3,
    "warmup": budget(smoke=5, laptop=50, gpu=100),
}
trained_nets = {}
for kind in ("eps", "v"):
    torch.manual_seed(0)
    own, loss = new_unet(), partial(own_loss, kind=kind)
    average = MovingAverage(own, 0.995)
    with torch.no_grad():
        before = loss(own, exam).item()
    description = f"The loss of your model that says {kind}: a steep fall, then a slow one."
    live = LivePlot(description, seconds=5, log_scale=True)
    for record in tqdm(train(own, loss, average=average, **settings), total=settings["steps"]):
        live.update(record.step, record.loss)
    live.finish()
    with torch.no_grad():
        after = loss(average.model, exam).item()
    print(f"says {kind}: loss on a fixed batch before {before:.3f}, after {after:.3f}; {record.seconds:.0f} seconds")
    assert after < before
    trained_nets[kind] = average.model

# %% [markdown] id="own-draw-text"
# The two losses cannot be compared: they measure different things. The pictures can. Draw, with *your* loop and *your*
# U-Nets: every thing in two colours, the places in turn. Two of these eight combinations were held out.

# %% id="own-draw" tags=["static"]
own_painters = {kind: torch.no_grad()(objectives.as_eps(net, kind, table)) for kind, net in trained_nets.items()}
square = [(kind, colour, PLACES[(i + j + 1) % 4]) for i, kind in enumerate(KINDS) for j, colour in enumerate(COLOURS)]
sheet = square[::2]
names = [
    f"{colour} {kind}, {place}{' (held out)' if (kind, colour, place) in held_out else ''}"
    for kind, colour, place in sheet
]
texts = [caption(*wish).text for wish in sheet]
few_times = samplers.trailing_times(T, budget(smoke=2, laptop=20, gpu=50))
drawn = [
    text_to_image(texts, encode, own_painter, decode, noise(range(8)), table, few_times, scale=3.0)
    for own_painter in own_painters.values()
]
show(
    plot_pictures(torch.cat(drawn).cpu(), [*names, *[""] * 8], columns=8),
    "Above: eight pictures by the model that says "
    "eps: corgis, cars, balls and houses, in several colours and places. Below: the same by the one that says v.",
)

# %% [markdown] id="own-judge-text"
# And what does the judge say? It was trained on clean pages and overlooks rough things, so it is asked twice:
# *strictly* as before, and *mildly*, for the strongest thing it sees, however unsure it is. All 64 combinations, two
# scales. Guessing would get one thing, one colour and one place of four right, and all three in 2 of 100 pictures.


# %% id="shares"
def shares(pictures, wanted):
    """Of the pictures the share in which thing, colour, place and all three are right, mildly; and all, strictly."""
    hits = []
    for mild, strict, wish in zip(read(judge, pictures, threshold=0.1), read(judge, pictures), wanted):
        best = max(mild.findings, key=lambda f: f.score, default=None)
        right = [
            best is not None and best.kind == wish[0],
            best is not None and best.colour == wish[1],
            mild.place == wish[2],
        ]
        hits.append([*right, all(right), follows(strict, caption(*wish))])
    return torch.tensor(hits).float().mean(0).tolist()


# %% id="own-judge"
WHAT = ("thing", "colour", "place", "all three", "strictly")
asked = trained[:: budget(smoke=20, laptop=1, gpu=1)] + held_out
found = {}
for says, own_painter in own_painters.items():
    for scale in (1.0, 3.0):
        pictures = look(draw([caption(*wish).text for wish in asked], range(len(asked)), scale, own_painter))
        found[says, scale], new = shares(pictures, asked), shares(pictures[-len(held_out) :], held_out)
        line = ", ".join(f"{what} {share:.2f}" for what, share in zip(WHAT, found[says, scale]))
        new_line = f"of the {len(held_out)} held out, all three {new[3]:.2f}"
        print(f"says {says:3}, scale {scale:.0f}: {line} ({len(asked)} prompts); {new_line}")
if budget(smoke=False, laptop=True, gpu=True):  # the thresholds of section 5
    assert found["v", 3.0][3] > max(0.5, found["v", 1.0][3]) and found["v", 1.0][3] > found["eps", 1.0][3] + 0.1

# %% [markdown] id="own-read"
# A few minutes for both, and colour, place and thing follow the words far more often than luck would have it, sometimes
# even in combinations that were never met. Look at what is decided in thick noise: to the network that says
# $\varepsilon$ night is a grey day and snow a dusk; the one that says $v$ has both right, at once and without guidance. It
# pays in thin noise: its outlines are rougher. (What training leaves behind is an *average* over all $t$, and the loss
# of $v$ spends more of it on the noisy ones.) And look at the scales: the lever does the same here as in the toy.
#
# The finished U-Net, which the next sections use, has ten times the parameters, the whole picture book and some hours
# of training. Its text encoder learnt on with it: chapter 08's exam had hardly asked who is left of whom.

# %% [markdown] id="measure-text"
# ## 6 · What guidance buys, and what it costs
#
# The finished U-Net, several scales, three numbers:
#
# - **adherence**: the share of pictures in which the judge finds all that is asked for, and nothing else;
# - **contrast**: the standard deviation of the latents, beside that of real pages;
# - **variety**: a prompt that names no place may be drawn at any of eight. How many does one get? The *effective
#   number* is $\exp(-\sum_k p_k \ln p_k)$, with $p_k$ the share of place $k$: 8 if all are equally frequent, 1 if it is
#   always the same.
#
# **Predict first:** which of the three rises with $w$, which falls?

# %% id="measure"
from dataclasses import replace

SCALES = budget(smoke=(1.0, 4.0), laptop=(1.0, 2.0, 4.0, 12.0), gpu=(1.0, 1.5, 2.0, 4.0, 7.0, 12.0))
SEEDS = budget(smoke=2, laptop=4, gpu=16)
many = [wish for wish in wishes for _ in range(SEEDS)]
sheets, adheres, contrast = {}, {}, {}
for scale in SCALES:
    latent = draw([wish.text for wish in many], list(range(SEEDS)) * len(wishes), scale)
    sheets[scale], contrast[scale] = look(latent), latent.std().item()
    ok = [follows(v, wish) for v, wish in zip(read(judge, sheets[scale]), many)]
    adheres[scale] = sum(ok) / len(ok)
    error = math.sqrt(adheres[scale] * (1 - adheres[scale]) / len(ok))
    print(f"w = {scale:4}: adherence {adheres[scale]:.2f} ± {error:.2f}, contrast {contrast[scale]:.2f}")

real = book.pictures([replace(scene, seed=seed) for scene in ASKED for seed in range(SEEDS)])
mark = (encode_pictures(pipe.vae, real) * pipe.vae.config.scaling_factor).std().item()
print(f"real pages: contrast {mark:.2f}")

# %% [markdown] id="variety-text"
# Variety with two prompts that leave the place open. To compare: the same number of fair draws of eight places.

# %% id="variety"
from collections import Counter

OPEN, DRAWS = ("a corgi puppy sitting", "a yellow car"), budget(smoke=2, laptop=12, gpu=64)


def effective(places):
    """The effective number of different words in a list."""
    shares = torch.tensor(list(Counter(places).values())) / len(places)
    return (-shares * shares.log()).sum().exp().item()


variety = {}
for scale in SCALES:
    drawn = look(draw([prompt for prompt in OPEN for _ in range(DRAWS)], list(range(DRAWS)) * 2, scale))
    places = [verdict.place for verdict in read(judge, drawn)]
    variety[scale] = (effective(places[:DRAWS]) + effective(places[DRAWS:])) / 2
    print(f"w = {scale:4}: {variety[scale]:.1f} places; {OPEN[0]}: {dict(Counter(places[:DRAWS]))}")
fair = torch.randint(8, (500, DRAWS), generator=torch.Generator().manual_seed(0)).tolist()
fair = sum(effective(draws) for draws in fair) / len(fair)
print(f"fair draws: {fair:.1f} places")

# %% [markdown] id="measure-plot-text"
# As curves, with what real pages or fair draws give as dotted lines:

# %% id="measure-plot" tags=["static"]
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3))
for ax, curve, name, line in zip(
    axes, (adheres, variety, contrast), ("adherence", "variety: places", "contrast"), (1, fair, mark)
):
    ax.plot(SCALES, [curve[scale] for scale in SCALES], "o-")
    ax.axhline(line, color="#777777", linestyle=":")
    ax.set(xlabel="guidance scale w", title=name, ylim=(0, 1.12 * max(line, *curve.values())), xticks=SCALES)
show(
    figure,
    "Three curves over the guidance scale: adherence rises at first, and falls when there is too much; the "
    "number of places falls a little, and the contrast rises past that of real pages.",
)
if budget(smoke=False, laptop=True, gpu=True):  # the thresholds of section 6
    assert max(adheres[scale] for scale in SCALES[1:]) > adheres[1.0] > adheres[12.0]
    assert contrast[12.0] > contrast[4.0] > contrast[1.0]

# %% id="measure-sheet" tags=["static"]
rows_are = ", ".join(f"{scale:g}" for scale in SCALES)
ax = plot_pictures(torch.cat([sheets[scale][::SEEDS] for scale in SCALES]), columns=8)
ax.figure.set_size_inches(9.6, 1.25 * len(SCALES))
show(
    ax,
    f"One row for each scale, {rows_are}, all from the same noise: a car above a boat, a teapot above a "
    "mushroom, a rabbit above a house, a cat above a tree, a ball, a rabbit above a teapot, a corgi, a ball above a "
    "teapot. Soft at the top, harsh at the bottom.",
)

# %% [markdown] id="measure-read"
# The caricature of the toy, in pictures. Guidance buys adherence, most of it early. It pays with contrast: the latents
# leave the range of real ones, colours burn out, edges harden, until the judge does not know things any more. That is the
# **over-saturated end**. It pays with variety as well, plainly in the toy, hardly in the places here. Where to stop is a
# matter of purpose; 3 to 7 is usual.

# %% [markdown] id="rescale-text"
# ### Mending the contrast
#
# The guided guess has grown; so make it as large as the plain one, and mix:
#
# $$\hat x_0 \leftarrow \phi\;\frac{\text{std}(\hat x_0^{\,c})}{\text{std}(\hat x_0)}\;\hat x_0 + (1 - \phi)\,\hat x_0$$
#
# In words: $\hat x_0$ follows from the guided noise, $\hat x_0^{\,c}$ from the plain guess with the prompt, std is the
# standard deviation of *all* numbers of one sample, and the share $\phi$ is about 0.7.
#
# ### Exercise 7 · Rescale
#
# ●●○○○ · 10 minutes. For any two guesses, of $x_0$ or of something else, each (batch, ...). From here on the stubs leave
# the lines to you.


# %% id="ex-rescale"
def rescale(guided, plain, share=0.7):
    """`guided` with the standard deviation that `plain` has, sample by sample, mixed with itself; (batch, ...)."""
    ### BEGIN SOLUTION
    ratio = plain.flatten(1).std(1) / guided.flatten(1).std(1)
    return share * expand_like(ratio, guided) * guided + (1 - share) * guided
    ### END SOLUTION


# %% id="check-rescale"
rescale = check("10.rescale", rescale)

# %% [markdown] id="rescale-run-text"
# Of *what* does one rescale the guess? Try both, at $w = 12$: the noise $\hat\varepsilon$ itself, and the $\hat x_0$
# that it implies.

# %% id="rescaled"
from course_utils.diffusion.objectives import eps_from_x0, x0_from_eps


def rescaled(kind, scale=12.0, share=0.7):
    """The finished U-Net with guidance and rescaling of its "eps" or of the "x0" that this implies."""

    def model(x_t, t, cond):
        eps_cond = painter(x_t, t, cond)
        eps = guide(painter(x_t, t, null.expand_as(cond)), eps_cond, scale)
        if kind == "eps":
            return rescale(eps, eps_cond, share)
        x0, x0_cond = (x0_from_eps(x_t, guess, t, table) for guess in (eps, eps_cond))
        return eps_from_x0(x_t, rescale(x0, x0_cond, share), t, table)

    return model


# %% id="rescale-run" tags=["static"]
few = [wish.text for wish in wishes]
versions = {
    "w = 12": draw(few, range(8), 12.0),
    "eps rescaled": draw(few, range(8), 1.0, rescaled("eps")),
    "x0 rescaled": draw(few, range(8), 1.0, rescaled("x0")),
}
harsh = {name: latent.std().item() for name, latent in versions.items()}
show(
    plot_pictures(torch.cat([look(latent) for latent in versions.values()]), columns=8),
    "Three rows of the same pictures at scale 12: burnt; with the noise rescaled, hardly better; with the guess of "
    "the clean latents rescaled, softer.",
)
harsh["real pages"] = mark
print("contrast: " + ", ".join(f"{name} {value:.2f}" for name, value in harsh.items()))
if budget(smoke=False, laptop=True, gpu=True):
    assert harsh["x0 rescaled"] < harsh["eps rescaled"]

# %% [markdown] id="rescale-read"
# The noise of a sample has a standard deviation near 1 with or without guidance: there is nothing to mend. What grows
# is $\hat x_0$. (diffusers' `guidance_rescale` works on what the network says; it was made for networks that say $v$.)

# %% [markdown] id="compose-text"
# ## 7 · Away from, and both at once
#
# $\hat\varepsilon_\varnothing$ is one end of the lever. Put another guess there, that for "blue" say, and guidance
# leads *away* from blue: the **negative prompt** $n$. And several prompts $c_1, c_2, \dots$ can pull at once, each with
# a weight of its own:
#
# $$\hat\varepsilon = \hat\varepsilon_\varnothing + \sum_i w_i\,(\hat\varepsilon_{c_i} - \hat\varepsilon_\varnothing)$$
#
# A weight below zero pushes. **Predict first:** which two weights give exactly the negative prompt,
# $\hat\varepsilon_n + w\,(\hat\varepsilon_c - \hat\varepsilon_n)$?
#
# ### Exercise 8 · Several prompts
#
# ●●○○○ · 10 minutes. `eps_each` holds the guesses, (prompts, batch, ...); `weights` is a list of as many numbers.


# %% id="ex-compose"
def compose(eps_null, eps_each, weights):
    """eps_null (batch, ...) plus, for each prompt, its weight times (its guess - eps_null)."""
    ### BEGIN SOLUTION
    eps = eps_null
    for weight, eps_i in zip(weights, eps_each):
        eps = eps + weight * (eps_i - eps_null)
    return eps
    ### END SOLUTION


# %% id="check-compose"
compose = check("10.compose", compose)

# %% [markdown] id="compose-equal-text"
# The answer to the question, by numbers:

# %% id="compose-equal"
x_t, at = noise([1, 2]), torch.full((2,), 600, device=device)
three_prompts = ("", "a car in the snow", "a blue car")
eps_null, eps_car, eps_blue = (painter(x_t, at, encode([prompt] * 2)) for prompt in three_prompts)
both = torch.stack([eps_car, eps_blue])
assert torch.allclose(guide(eps_blue, eps_car, 4.0), compose(eps_null, both, [4.0, -3.0]), atol=1e-4)
assert torch.allclose(compose(eps_null, both, [4.0, -3.0]), guidance.compose(eps_null, both, [4.0, -3.0]), atol=1e-5)
print("a negative prompt with scale w is compose with the weights w and 1 - w: eps_null cancels out")

# %% [markdown] id="negative-text"
# The corgi of section 6, whose place is left open. Take the place that it is drawn at most often, and lead away from
# *that*. Then, with two weights, ask for "a red ball" as well. **Predict first:** what will the second one show?

# %% id="negative" tags=["static"]
from course_utils.data.picture_book.captions import PLACE_WORDS


def composed(prompts, weights):
    """The finished U-Net, told several prompts at once."""
    conds = encode(prompts)

    def model(x_t, t, cond):
        each = torch.stack([painter(x_t, t, one.expand_as(cond)) for one in conds])
        return compose(painter(x_t, t, null.expand_as(cond)), each, weights)

    return model


number = budget(smoke=2, laptop=8, gpu=16)
pictures = {"plain": look(draw([OPEN[0]] * number, range(number)))}
usual = Counter(verdict.place for verdict in read(judge, pictures["plain"])).most_common(1)[0][0]
away = f"{OPEN[0]} {PLACE_WORDS[usual][0]}"
pictures["negative"] = look(draw([OPEN[0]] * number, range(number), negative=away))
with_ball = composed([f"{OPEN[0]} on the grass", "a red ball"], [3.0, 3.0])
pictures["with ball"] = look(draw([""] * number, range(number), 1.0, with_ball))
show(
    plot_pictures(torch.cat(list(pictures.values())), columns=number),
    f"Three rows from the same noises: {OPEN[0]}; "
    f"the same with the negative prompt “{away}”; and with “a red ball” added by a weight of its own.",
)

# %% id="negative-count"
there = {}
for name, drawn in pictures.items():
    verdicts = read(judge, drawn)
    there[name] = sum(verdict.place == usual for verdict in verdicts)
    found_things = Counter(f"{f.colour} {f.kind}" for verdict in verdicts for f in verdict.findings)
    print(f"{name:10} place {usual}: {there[name]} of {number}; things {dict(found_things)}")
if budget(smoke=False, laptop=True, gpu=True):
    assert there["negative"] < there["plain"]

# %% [markdown] id="negative-read"
# A negative prompt is no eraser that looks at the finished picture. It is the other end of the lever, at every step: it
# pushes towards pictures that fit the prompt *better than* they fit the negative one.
#
# And two weights do not draw two things. Both differences are added *at each pixel*: where the corgi is, "red" pulls as
# well. Look at the colours of the last row.

# %% [markdown] id="new-text"
# ## 8 · What was never seen, and what goes wrong
#
# A tenth of all combinations of thing, colour and place was kept out of all training, though every *pair* was shown.
# Does the model know *purple corgi, desert* from its parts, or has it only learnt pages by heart? **Predict first:**
# how far does adherence fall?

# %% id="new"
import random

dice = random.Random(10)
every = [wish for wish in itertools.product(book.SUBJECTS, book.COLOURS, book.PLACES)]
groups = {
    "seen in training": [wish for wish in every if not book.is_held_out(*wish)],
    "held out": [wish for wish in every if book.is_held_out(*wish)],
}
number = budget(smoke=3, laptop=24, gpu=200)
for name, group in groups.items():
    some = [caption(*wish) for wish in dice.sample(group, number)]
    ok = [follows(v, wish) for v, wish in zip(read(judge, look(draw([w.text for w in some], range(number)))), some)]
    share = sum(ok) / number
    print(f"{name:17} adherence {share:.2f} ± {math.sqrt(share * (1 - share) / number):.2f} ({number} prompts)")

# %% [markdown] id="new-read"
# The ± is the standard error: with so few prompts only large gaps mean something. If both numbers are alike, the model
# *composes*: it has learnt "purple" and "corgi" and "desert" as words with a life of their own. (Of a thousand prompts
# in all tasks it followed 95% and 91%: `python3 course.py benchmark adherence`.)

# %% [markdown] id="binding-text"
# ### Whose colour is it?
#
# "A red ball left of a white cat", and the same with the colours exchanged. Both sentences have the same *words*. Where
# most models fail, does this one? And a third sentence, which leaves open who stands where: "a red ball and a white
# cat". **Predict first:** is that easier, or harder?


# %% id="binding-counts"
def binding_counts(verdicts, wish, one, other):
    """In how many pictures the judge finds what; one and other: (kind, colour) of the two things."""
    found = [{(f.kind, f.colour) for f in verdict.findings} for verdict in verdicts]
    swapped = {(one[0], other[1]), (other[0], one[1])}
    return {
        "as asked": sum(follows(verdict, wish) for verdict in verdicts),
        "both things with their colours": sum({one, other} <= things for things in found),
        "a colour on the wrong thing": sum(bool(swapped & things) for things in found),
        "a thing is missing": sum(not {one[0], other[0]} <= {kind for kind, _ in things} for things in found),
    }


# %% id="binding" tags=["static"]
number = budget(smoke=2, laptop=12, gpu=64)
pairs = [
    (("ball", "red"), ("cat", "white"), "left of"),
    (("ball", "white"), ("cat", "red"), "left of"),
    (("ball", "red"), ("cat", "white"), None),
]
kept = []
for one, other, relation in pairs:
    asked_for = book.caption(book.Scene((book.Thing(*one), book.Thing(*other)), "grass", relation="left of"))
    if relation is None:
        asked_for = replace(asked_for, text=asked_for.text.replace("left of", "and"), relation=None)
    pictures = look(draw([asked_for.text] * number, range(number)))
    counts = binding_counts(read(judge, pictures), asked_for, one, other)
    kept.append(pictures[:8])
    print(f"{asked_for.text} ({number} pictures): " + ", ".join(f"{what} {n}" for what, n in counts.items()))
show(
    plot_pictures(torch.cat(kept), columns=len(kept[0])),
    "Above: drawings of a red ball left of a white cat. Middle: of "
    "a white ball left of a red cat. Below: of a red ball and a white cat. Where one is wrong, look whether a thing is "
    "missing or wears the other's colour.",
)

# %% [markdown] id="binding-read"
# What it takes: the hidden state of "ball" must carry *its* red, and not the cat's white; the pixels that ask for "ball"
# must not hear "white" as well; and a thing that is missed at the first steps, when places are settled, never comes
# back. Models a thousand times larger fail here: Stable Diffusion v1.5 gets 6 of 100 such prompts right (GenEval,
# arXiv:2310.11513). The captions of its training hardly ever say which thing is where; those of the picture book often
# do. Even so, this model once drew *none* of such prompts right, but two of one thing for two different ones, until three
# things were changed: the loss of $v$; a text encoder that learns on; and captions that name the left thing first in four
# of five cases, not in two. With both orders equally frequent, neither the order nor the word "left" says anything
# *alone*, and the network had not begun to learn it after some hours. Three hours on two cores later it followed 82% of
# all prompts, but, of those with two colours, 67%: its commonest mistake was two of one thing again, where the caption
# leaves open who stands where. Then the network must break the tie by itself, early, everywhere alike. Two more
# changes and an hour and a half: it says $v$, not the noise; and half of the captions of two things leave their places
# open, not three in ten. It followed 87% of all prompts, 80% of those with two colours, 91% of those with a relation; and
# since the decoder draws pixel art as it should (chapter 09), 92%, 86% and 95%. Then each block got a second layer of
# attention, the training set 100,000 pages instead of 40,000, and the training three hours more: 94%, 92% and 96%. (What
# changed together was not measured apart.)

# %% [markdown] id="pipeline-text"
# ## 9 · Your own `StableDiffusionPipeline`
#
# diffusers' pipeline wants five parts, and asks each for its configuration. Your U-Net of section 5 only lacks manners:
# it is called by other names. Fifteen lines teach them, and diffusers draws with it. That it says $v$ stands in the
# scheduler's configuration: `prediction_type`.

# %% id="adapter"
from diffusers.configuration_utils import FrozenDict

from course_utils.pipelines.picture_book import assemble, save_pipeline


class ForDiffusers(torch.nn.Module):
    """Your U-Net as diffusers' pipeline wants it: called by its names, with a configuration to read."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet
        self.config = FrozenDict(
            in_channels=8, out_channels=8, sample_size=16, cross_attention_dim=128, time_cond_proj_dim=None
        )
        self.device, self.dtype = unet.first.weight.device, unet.first.weight.dtype

    def forward(self, sample, timestep, encoder_hidden_states, **others):
        return (self.unet(sample, timestep.expand(len(sample)), encoder_hidden_states),)


# %% id="assemble"
yours = assemble(
    vae=pipe.vae,
    text_encoder=pipe.text_encoder,
    tokenizer=pipe.tokenizer,
    unet=ForDiffusers(trained_nets["v"]),
    scheduler=pipe.scheduler,
)
yours.set_progress_bar_config(disable=True)

# %% [markdown] id="own-pipeline-text"
# Four prompts, by your loop and by the pipeline, from the same noises:

# %% id="own-pipeline" tags=["static"]
four_wishes = [
    ("corgi", "yellow", "grass"),
    ("car", "red", "desert"),
    ("ball", "purple", "night"),
    ("house", "yellow", "snow"),
]
wanted = [caption(*wish).text for wish in four_wishes]
by_loop = text_to_image(wanted, encode, own_painters["v"], decode, noise(range(20, 24)), table, times, scale=3.0)
made = yours(wanted, num_inference_steps=steps, guidance_scale=3.0, latents=noise(range(20, 24)), output_type="pt")
by_pipe = 2 * made.images - 1  # from [0, 1] to [-1, 1]
show(
    plot_pictures(torch.cat([by_loop, by_pipe]).cpu(), [*wanted, *[""] * 4], columns=4),
    "Above: four pictures by your loop with your U-Net. Below: the same by StableDiffusionPipeline with your U-Net.",
)
gap = (by_loop - by_pipe).abs().max().item() * 127.5
own_unet = type(yours.unet.unet)
print(
    f"{type(yours).__name__} with a {own_unet.__name__} of {own_unet.__module__}: largest difference {gap:.3f} grey levels"
)
assert gap < 1

# %% [markdown] id="save-text"
# ### A folder that others can open
#
# Saving is another matter. Plain `from_pretrained` builds only classes that diffusers knows, and yours is not among
# them. So the U-Net of full size is diffusers' `UNet2DConditionModel`. Its parts are those you wrote: section 1 gave
# the weights of its attention to your class. Assemble it with DDIM, save the folder, open it as anybody would, without
# a line of this course, and compare with *your* loop.

# %% id="save-run"
import tempfile
from pathlib import Path

from diffusers import StableDiffusionPipeline

whole = assemble(
    vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, unet=pipe.unet, scheduler=pipe.scheduler
)
with tempfile.TemporaryDirectory() as folder:
    save_pipeline(whole, f"{folder}/mine")
    print("saved:", ", ".join(sorted(path.name for path in Path(f"{folder}/mine").iterdir())))
    again = StableDiffusionPipeline.from_pretrained(f"{folder}/mine").to(device)
again.set_progress_bar_config(disable=True)

# %% [markdown] id="save-compare-text"
# Your loop with the parts of the reopened folder, and the reopened pipeline:

# %% id="save-compare" tags=["static"]
with torch.no_grad():
    by_loop = text_to_image(
        four,
        lambda prompts: text.encode(again.tokenizer, again.text_encoder, prompts),
        lambda x_t, t, cond: objectives.eps_from_v(x_t, again.unet(x_t, t, cond).sample, t, table),
        lambda x: again.vae.decode(x / again.vae.config.scaling_factor).sample.clamp(-1, 1),
        noise(range(4)),
        table,
        times,
    )
by_pipe = (
    2 * again(four, num_inference_steps=steps, guidance_scale=4.0, latents=noise(range(4)), output_type="pt").images - 1
)
gap = (by_loop - by_pipe).abs().max().item() * 127.5
show(
    plot_pictures(torch.cat([by_loop, by_pipe]).cpu(), [*four, *[""] * 4], columns=4),
    "Above: four pictures by your loop with the reloaded parts. Below: the same by the reloaded pipeline.",
)
print(f"largest difference {gap:.3f} grey levels")
assert gap < 1

# %% [markdown] id="full-text"
# ### All of it, at full size
#
# How long does the finished U-Net take? Measure a few updates of its size on *this* machine, and multiply.

# %% id="full-time"
from time import perf_counter

from course_utils.recipes import PARTS
from course_utils.recipes.unet import PromptedUNet, small_unet

part = PARTS["unet"]
big = PromptedUNet(small_unet()).to(device)
optimizer = torch.optim.AdamW(big.parameters(), lr=part.learning_rate)
for count in range(4):
    if count == 1:  # the first update warms up
        started = perf_counter()
    own_loss(big, Samples(count * part.batch + numpy.arange(part.batch), seed=0), "v").backward()
    optimizer.step()
    optimizer.zero_grad()
each = (perf_counter() - started) / 3
print(
    f"{sum(p.numel() for p in big.parameters()) / 1e6:.1f} million parameters, {each:.2f} seconds an update of "
    f"{part.batch}: {part.steps} updates take about {each * part.steps / 3600:.1f} hours here"
)

# %% [markdown] id="full-how"
# The next cell trains it, if you set `TRAIN_FULL = True`: on a GPU in this notebook, on a CPU better over night. It can
# be stopped at any time and goes on where it was. `adopt` copies the shipped parts into your folder; with `GO_ON = True`
# the training begins with the finished U-Net and not with random numbers. The same from a terminal:
# `python3 course.py train unet --folder my_run`, with or without `--from-shipped`.

# %% id="full-train"
from course_utils.recipes import adopt, train_part

TRAIN_FULL, GO_ON, MY_RUN = False, False, Path("my_run")
if TRAIN_FULL:
    adopt(MY_RUN)
    live = LivePlot("The loss of the U-Net of full size.", seconds=10)
    for record in tqdm(train_part("unet", MY_RUN, from_shipped=GO_ON), total=part.steps):
        live.update(record.step, record.loss)
    live.finish()
    pipe = load_picture_book(MY_RUN / "picture_book", device)  # now run the cells from section 6 on again

# %% [markdown] id="elsewhere"
# ## 10 · What you will read elsewhere
#
# **"The text embedding determines the distribution of the starting latents."** It does not for this kind of model. Here
# are the first latents that the U-Net gets, for a hundred prompts:

# %% id="elsewhere-start"
starts = []


def first_only(x_t, t, cond):
    """Note what the model is given, and answer nothing."""
    starts.append(x_t)
    return torch.zeros_like(x_t)


hundred = [caption(*wish).text for wish in every[:: len(every) // 100][:100]]
text_to_image(hundred, encode, first_only, lambda x: x, noise(range(100)), table, [T - 1])
given = torch.cat(starts)  # asked twice: without and with the prompts
assert torch.equal(given[:100], noise(range(100))) and torch.equal(given[100:], noise(range(100)))
embedding = encode(hundred).mean(1)
fresh_noise = torch.randn(100, 128, generator=torch.Generator().manual_seed(1)).to(embedding)
link, chance = (
    torch.corrcoef(torch.cat([embedding.T, other.T]))[:128, 128:].abs().mean()
    for other in (given[100:].flatten(1)[:, :128], fresh_noise)
)
print(
    f"mean {given.mean():.3f}, standard deviation {given.std():.3f}; mean |correlation| with the numbers of "
    f"the prompts {link:.3f}, of fresh noise {chance:.3f}"
)
print(
    f"(training, by the way, never sees pure noise: at t = {T - 1} the picture still has the factor "
    f"{alpha_bar[-1].sqrt():.3f})"
)
assert abs(link - chance) < 0.02

# %% [markdown] id="elsewhere-t"
# What does start from the text is the *prior* of DALL·E 2 (chapter 13), and that makes an embedding of a picture, not
# latents.
#
# **"$\varepsilon_\theta(x_t, c)$: the network sees the noisy picture and the text."** And the time. Section 2: told a
# wrong time, the same network with the same picture is far off.

# %% id="elsewhere-time"
print("loss at t = 300 if told " + ", ".join(f"{tell}: {value:.3f}" for tell, value in by_time.items()))
always_500 = objectives.as_eps(lambda x_t, t, cond: pipe.unet(x_t, 500, cond).sample, "v", table)
with torch.no_grad():
    blind = text_to_image(four, encode, always_500, lambda x: x, noise(range(4)), table, times)
print(
    f"latents drawn by a network that is always told t = 500: standard deviation {blind.std():.1f}, real ones "
    f"{mark:.2f}"
)
if budget(smoke=False, laptop=True, gpu=True):
    assert by_time[700] > 1.2 * by_time[300]

# %% [markdown] id="elsewhere-power"
# **"Guidance draws from $p(x)\,p(c \mid x)^w$."** So it looks in section 3, and at *every single* $t$ the score is that
# of such a product. But these products, one for each $t$, are not noisy versions of one and the same distribution, so
# the way through them does not end in the one named. In one dimension both can be computed: two bells, the right one
# asked for.

# %% id="bells"
bells, wide = torch.tensor([[1.0], [-1.0]]), 0.6
axis = torch.linspace(-2, 5, 2001, dtype=torch.float64)
log_c = -((axis - 1) ** 2) / (2 * wide**2)
log_all = torch.logaddexp(log_c, -((axis + 1) ** 2) / (2 * wide**2))
start_1d = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(1))


def guided_bells(w):
    """The exact eps of the right bell, with guidance w against both bells."""

    def model(x, t, cond=None):
        eps_all, eps_c = mixture_eps(x, t, alpha_bar, bells, wide), mixture_eps(x, t, alpha_bar, bells[:1], wide)
        return guidance.guide(eps_all, eps_c, w)

    return model


# %% [markdown] id="elsewhere-power-plot"
# Draws with guidance, and the density that they are said to have:

# %% id="elsewhere-power-run" tags=["static"]
figure, axes = plt.subplots(1, 3, figsize=(9.4, 2.8), sharey=True)
for ax, w in zip(axes, (1.0, 2.0, 5.0)):
    product = (w * log_c + (1 - w) * log_all).softmax(0) / (axis[1] - axis[0])
    drawn = samplers.finish(samplers.ddim(guided_bells(w), start_1d, alpha_bar, samplers.trailing_times(T, 100)))
    ax.hist(drawn[:, 0], bins=80, range=(-2, 5), density=True, color="#56B4E9", label="drawn")
    ax.plot(axis, product, color="black", label=r"$p(x)\,p(c|x)^w$")
    ax.set(title=f"w = {w:g}", xlabel="x")
    mean = (axis * product).sum() * (axis[1] - axis[0])
    print(f"w = {w:g}: mean of the product {mean:.2f}, of what is drawn {drawn.mean():.2f}")
axes[0].legend(fontsize=9)
show(
    figure,
    "Histograms of guided draws and the curve of the product density: nearly the same for w = 1, the draws "
    "further right and narrower for w = 2, and far off for w = 5.",
)
assert drawn.mean() > mean + 0.4

# %% [markdown] id="elsewhere-more"
# **"More guidance, better pictures."** Section 6 once more: adherence stops rising, the rest goes on paying.

# %% id="elsewhere-more-run"
for scale in SCALES:
    print(
        f"w = {scale:4}: adherence {adheres[scale]:.2f}, {variety[scale]:.1f} places, "
        f"{contrast[scale] / mark:.2f} of the contrast of real pages"
    )

# %% [markdown] id="next"
# ## The failure that comes next
#
# Ask for something that is not in the book:

# %% id="next-run" tags=["static"]
from course_utils.text.prompts import inspect_prompt

strange = ["an astronaut riding a horse", "a teapot made of glass", "a cute corgi puppy reading a newspaper"]
for prompt in strange:
    unknown = [word for word, _ in inspect_prompt(pipe.tokenizer, prompt).unknown]
    print(f"{prompt!r}: words it never saw: {', '.join(unknown) or 'none'}")
show(
    plot_pictures(look(draw(strange, range(3))), strange, columns=3),
    "Three drawings for things that the model never saw: familiar things of the picture book stand in for them.",
)

# %% [markdown] id="next-read"
# The machine is right, its world is small. The same five parts, a hundred times larger and fed with a large part of the
# web's pictures, are Stable Diffusion. Chapter 11 runs *your* loop on it.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $\text{softmax}(QK^\top/\sqrt d)$, word by word | `word_maps(q, k, heads)` |
# | $c_i \leftarrow \varnothing$ where $u_i <$ share | `drop_prompts(cond, null, uniforms, share)` |
# | $\lVert \varepsilon - \varepsilon_\theta(x_t, t, c) \rVert^2$ | `text_loss(model, x0, cond, null, t, eps, uniforms, …)` |
# | $\nabla \log p(c \mid x_t) = -(\hat\varepsilon_c - \hat\varepsilon_\varnothing)/\sqrt{1-\bar\alpha_t}$ | `classifier_score` |
# | $\hat\varepsilon_\varnothing + w(\hat\varepsilon_c - \hat\varepsilon_\varnothing)$ | `guide(eps_null, eps_cond, scale)` |
# | $\hat\varepsilon_\varnothing + \sum_i w_i(\hat\varepsilon_{c_i} - \hat\varepsilon_\varnothing)$ | `compose(eps_null, eps_each, weights)` |
# | std of $\hat x_0$ back to that of $\hat x_0^{\,c}$ | `rescale(guided, plain, share)` |
# | prompt → picture | `text_to_image(prompts, encode, model, decode, x_T, …)` |
#
# Five sentences to keep: Words come in at every step, never at the start. Listening pays little in the loss; guidance
# makes it pay. It is a classifier's gradient that nobody trained. It buys adherence with variety and contrast. Drop
# prompts whole.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. You train without ever dropping a prompt and draw with w = 4. What happens?</summary>
# The guess for the empty prompt is made up: the network never met it. The difference is multiplied all the same, and
# pictures drift off, as in the failure of section 2. With w = 1 nothing is wrong: the empty prompt is not used.
# </details>
# <details><summary>2. Why does guidance hardly change anything at the last steps?</summary>
# There the picture itself says what it shows, both guesses agree (the curve of section 2), and four times a small
# difference is still small. Some people save the second evaluation there.
# </details>
# <details><summary>3. Somebody sets the negative prompt to the prompt itself. What is drawn, at which scale?</summary>
# Both ends of the lever are equal, so every scale gives eps_cond: the plain conditional drawing, w = 1.
# </details>
#
# **Papers** Classifier-free guidance: Ho and Salimans, [arXiv:2207.12598](https://arxiv.org/abs/2207.12598). With a
# trained classifier: Dhariwal and Nichol, [arXiv:2105.05233](https://arxiv.org/abs/2105.05233). Latent diffusion:
# Rombach et al., [arXiv:2112.10752](https://arxiv.org/abs/2112.10752). Several prompts: Liu et al.,
# [arXiv:2206.01714](https://arxiv.org/abs/2206.01714). Rescaling: Lin et al.,
# [arXiv:2305.08891](https://arxiv.org/abs/2305.08891). Maps of words: Hertz et al.,
# [arXiv:2208.01626](https://arxiv.org/abs/2208.01626). What guidance does not draw from: Bradley and Nakkiran,
# [arXiv:2408.09000](https://arxiv.org/abs/2408.09000). Judging by objects: Ghosh et al.,
# [arXiv:2310.11513](https://arxiv.org/abs/2310.11513).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: guidance for a part of the way
#
# Must the lever be pulled at every step? Write a model that guides only between two times and is plain elsewhere:
# `scale if low <= t[0] < high else 1`. Draw the prompts of section 6 with $w = 7$ between $t = 300$ and $t = 900$, and
# compare the three numbers with those of $w = 7$ everywhere. (Kynkäänniemi et al.,
# [arXiv:2404.07724](https://arxiv.org/abs/2404.07724), report that an interval keeps more variety.)
