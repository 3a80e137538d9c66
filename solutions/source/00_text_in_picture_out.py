# %% [markdown] id="title"
# # 00 · Text in, picture out
#
# You type *a cute corgi puppy sitting on the grass*. A second later there is a picture that nobody has drawn
# before. In this chapter you do that, on your own computer, and then open the machine and look at every part of it.
#
# **After this chapter you can**
# 1. draw pictures from your own prompts and say what seed, steps and guidance change;
# 2. name the five parts of a text-to-image model and the shape of what each passes on;
# 3. write the loop that turns noise into a picture, and get the very picture that the library draws.
#
# **Time** 30 minutes of reading and trying; all cells together take about a minute on two CPU cores, less on a GPU.
# **You need** Python, and an idea of what a neural network is. Everything else is built in the chapters that follow.

# %% id="set-up"
import torch

from course_utils.data.images import to_tensor
from course_utils.machine.devices import budget, describe_machine, pick_device
from course_utils.pipelines.picture_book import PICTURE_BOOK, draw, load_picture_book, make_scheduler
from course_utils.pipelines.png_info import Settings
from course_utils.plotting import plot_pictures, show, use_style

use_style()
device = pick_device()
pipe = load_picture_book(device=device)

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape here |
# |:--|:--|:--|:--|
# | $c$ | `cond` | the prompt as the model reads it: one vector for each of 32 tokens | (1, 32, 128) |
# | $c_\varnothing$ | `null` | the same for the empty prompt | (1, 32, 128) |
# | $x_t$ | `x_t` | the noisy picture at time $t$, in latents | (1, 8, 16, 16) |
# | $x_0$ | `x0` | the clean picture, in latents | (1, 8, 16, 16) |
# | $t$ | `t` | the noise level: 999 is almost pure noise, 0 almost none | a number |
# | $\hat v$ | `v` | the U-Net's answer, which tells noise and picture apart | (1, 8, 16, 16) |
# | $\hat\varepsilon$ | `eps_hat` | the noise that the U-Net believes to be in $x_t$ | (1, 8, 16, 16) |
# | $w$ | `guidance` | how strictly to follow the prompt | a number |
# | $\bar\alpha_t$ | `alpha_bar` | how much of the picture's variance is left at time $t$ | (1000,) |

# %% [markdown] id="first"
# ## Your first picture
#
# The model knows one small world, a *picture book*: twelve subjects (a corgi puppy, a cat, a rabbit, a duck, a ball,
# a teapot, a house, a tree, a tulip, a mushroom, a car, a sailing boat), eight colours, eight places (on the grass,
# on the beach, in the snow, in the desert, in the forest, in a room, in the city, at night). Change the prompt and
# run the cell again.

# %% id="first-picture" tags=["static"]
prompt = "a cute corgi puppy sitting on the grass"
steps = budget(smoke=4, laptop=20, gpu=20)

((picture, made),) = draw(pipe, Settings(prompt, seed=3, steps=steps, guidance=4.0))
show(plot_pictures(to_tensor(picture), [prompt]), f"The model's picture of “{prompt}”.")

# %% [markdown] id="seed-question"
# **Predict first.** The picture starts as random noise, and the *seed* says which noise. What will stay the same if
# you keep the words and change the seed? What if you keep the seed and change the words?

# %% id="seeds" tags=["static"]
prompts = [prompt, "a blue car in the snow", "a red mushroom in the forest", "a white cat sitting at night"]
rows = []
for text in prompts:
    rows += draw(pipe, Settings(text, seed=10, steps=steps), count=5)  # seeds 10, 11, 12, 13, 14

titles = [f"seed {made.seed}" for _, made in rows]
grid = plot_pictures(to_tensor([picture for picture, _ in rows]), titles, columns=5)
show(grid, "Four rows for four prompts, five seeds each: the words decide what is seen, the seed decides the rest.")

# %% [markdown] id="seeds-read"
# Along a row, everything that the prompt names stays, and everything that it leaves open changes: where the subject
# stands, how large it is, which way it looks, where the clouds are. Down a column the same noise is read in the light
# of four different prompts. The same words with the same seed give the same picture, every time.

# %% [markdown] id="explore-question"
# ## Four knobs
#
# **Predict first.** What will one single step look like? What does guidance 1 (no guidance at all) do to the picture,
# and what does 12? Here are five settings as still pictures; below them the live controls.

# %% id="filmstrip" tags=["static"]
from course_utils.widgets import explore, filmstrip, prompt_explorer

explorer = prompt_explorer(pipe, prompt)
filmstrip(explorer, [{"steps": 1}, {"steps": 3}, {"steps": 20}, {"guidance": 1.0}, {"guidance": 12.0}])

# %% [markdown] id="explore-how"
# Move a slider and let go, or change the prompt and press Enter.

# %% id="explore"
explore(explorer)

# %% [markdown] id="words-unknown"
# What happens with words that the model has never seen? It has no idea of a dragon, and draws all the same. The course
# tells you so; the model would not.

# %% id="unknown" tags=["static"]
from course_utils.text.prompts import inspect_prompt

strange = "a purple dragon flying over the volcano"
for sentence in inspect_prompt(pipe.tokenizer, strange).advice():
    print(sentence)

odd = draw(pipe, Settings(strange, seed=0, steps=steps), count=4)
show(
    plot_pictures(to_tensor([picture for picture, _ in odd])),
    f"Four pictures for “{strange}”: purple is there, the dragon is not; familiar things of the picture book stand in.",
)

# %% [markdown] id="inside"
# ## Inside the box
#
# Five parts work together. This is the whole flow of Stable Diffusion, and of our small model, which has the same
# parts with the same names:
#
# ```mermaid
# graph TB
#     A["prompt"] --> B["tokenizer"] --> C["text encoder"]
#     C -- "cond, at every step" --> D["U-Net: what is noise, what is picture?"]
#     N["noise N(0, I)<br/>from the seed"] --> X["latents x_t"]
#     X --> D --> G["guidance"] --> S["scheduler:<br/>a little less noise"]
#     S -- "repeat" --> X
#     S -- "after the last step: x_0" --> V["decoder"] --> P["picture"]
# ```
#
# Look for two things. The prompt does *not* touch the starting noise: it enters at every step. And nothing here adds
# noise to a picture: that happens in training only (chapters 05 and 06).

# %% id="parts"
for name in ("tokenizer", "text_encoder", "unet", "scheduler", "vae"):
    part = getattr(pipe, name)
    numbers = sum(p.numel() for p in part.parameters()) if hasattr(part, "parameters") else 0
    print(f"{name:13} {type(part).__name__:26} {numbers / 1e6:6.2f} million parameters")

# %% [markdown] id="tokens"
# ### 1 · Words become numbers
#
# The tokenizer cuts the prompt into tokens and gives each its number. Known words are one token; others fall into
# pieces. A start and an end token are added, and the end token fills up to 32 places (Stable Diffusion v1.5: 77).

# %% id="tokenize"
ids = pipe.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids.to(device)
print("shape", tuple(ids.shape))
print(pipe.tokenizer.convert_ids_to_tokens(ids[0])[:12], "...")
print(pipe.tokenizer.tokenize("a purple dragon"))

# %% [markdown] id="encode-text"
# ### 2 · Numbers become meaning
#
# The text encoder, a small transformer, turns each token into a vector that also knows its neighbours: the vector of
# *corgi* in "a blue corgi" is not that in "a red corgi". We also encode the empty prompt; guidance will need it.

# %% id="text-encoder"
with torch.no_grad():
    cond = pipe.text_encoder(ids).last_hidden_state
    empty = pipe.tokenizer("", padding="max_length", return_tensors="pt").input_ids.to(device)
    null = pipe.text_encoder(empty).last_hidden_state
print("cond", tuple(cond.shape), " null", tuple(null.shape))

# %% [markdown] id="noise"
# ### 3 · A seed becomes noise
#
# The model does not work on pixels but on *latents*, a picture made 4 times smaller on each side by an autoencoder:
# 3 · 64 · 64 = 12 288 numbers become 8 · 16 · 16 = 2 048. (Stable Diffusion v1.5 makes 4 · 64 · 64 of
# 3 · 512 · 512, 48 times fewer.) The start is standard normal noise, $x_T \sim N(0, I)$.

# %% id="start"
noise = torch.randn((1, 8, 16, 16), generator=torch.Generator().manual_seed(3)).to(device)
print(f"x_T {tuple(noise.shape)}, mean {noise.mean():.2f}, standard deviation {noise.std():.2f}")

# %% [markdown] id="predict"
# ### 4 · The U-Net tells noise from picture, twice
#
# Once with the prompt, once with the empty prompt. The difference is what the words change, and *guidance*
# exaggerates it:
#
# $$\hat v = \hat v(x_t, t, c_\varnothing) + w \,\bigl[\hat v(x_t, t, c) - \hat v(x_t, t, c_\varnothing)\bigr]$$
#
# In words: take the guess without the prompt and go $w$ times the way to the guess with it. With $w = 1$ it is the
# guess with the prompt; chapter 10 derives why a larger $w$ draws more faithfully, and what that costs.


# %% id="guided"
@torch.no_grad()
def guided(x_t, t, guidance):
    """The U-Net's answer v at (x_t, t), with guidance; shape of x_t."""
    v_null = pipe.unet(x_t, t, null).sample
    v_cond = pipe.unet(x_t, t, cond).sample
    return v_null + guidance * (v_cond - v_null)


v = guided(noise, 999, 4.0)
print("v", tuple(v.shape))

# %% [markdown] id="answer"
# And what is $v$? A noisy picture is a mixture, $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$,
# of the picture $x_0$ and noise $\varepsilon$ (chapter 05). $v$ is *another* mixture of the same two, so that $x_t$ and
# $v$ together give away both:
#
# $$\hat\varepsilon = \sqrt{1-\bar\alpha_t}\;x_t + \sqrt{\bar\alpha_t}\;\hat v, \qquad
#   \hat x_0 = \sqrt{\bar\alpha_t}\;x_t - \sqrt{1-\bar\alpha_t}\;\hat v$$
#
# In words: whoever knows $v$ knows which noise is in $x_t$, and which picture is behind it. Most networks, that of Stable
# Diffusion v1.5 too, say $\hat\varepsilon$ itself; chapter 07 turns one into the other, and chapter 10 shows why this
# one says $v$.

# %% [markdown] id="loop-text"
# ### 5 · The scheduler takes a little noise away, again and again
#
# From $x_t$ and $\hat v$ the scheduler computes a slightly less noisy $x_{t-1}$ (chapter 07 builds it). This is
# the whole of image generation:

# %% id="loop"
scheduler = make_scheduler("unipc", pipe.scheduler.config)
scheduler.set_timesteps(steps)
alpha_bar = scheduler.alphas_cumprod

x_t, film = noise, []
for t in scheduler.timesteps:
    v = guided(x_t, t, guidance=4.0)
    x0_hat = alpha_bar[t].sqrt() * x_t - (1 - alpha_bar[t]).sqrt() * v  # what it believes the picture is
    film.append((t.item(), x_t, x0_hat))
    x_t = scheduler.step(v, t, x_t).prev_sample
print("x_0", tuple(x_t.shape))

# %% [markdown] id="decode-text"
# ### 6 · Latents become pixels
#
# The decoder half of the autoencoder draws the picture. The scaling factor is a constant that brings latents to unit
# variance (chapter 09). And here is the proof that there was no magic: our loop gives the picture of the pipeline.


# %% id="decode" tags=["static"]
@torch.no_grad()
def decode(latents):
    """Pictures in [-1, 1] from scaled latents: (batch, 8, 16, 16) -> (batch, 3, 64, 64)."""
    return pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)


by_hand = decode(x_t)
((picture, _),) = draw(pipe, Settings(prompt, seed=3, steps=steps, guidance=4.0))
difference = (by_hand.cpu() - to_tensor(picture)).abs().max().item()
assert difference <= 2 / 255, difference  # one grey level: the pipeline rounds to whole ones
show(
    plot_pictures(torch.cat([by_hand.cpu(), to_tensor(picture)]), ["our loop", "the pipeline"]),
    f"Two equal pictures; the largest difference is {difference * 127.5:.1f} of 255 grey levels.",
)

# %% [markdown] id="film-text"
# ### Watching it happen
#
# The upper row is $x_t$, what the loop holds; the lower row is what the U-Net believes at that moment that the picture
# will be, $\hat x_0$; both decoded. First the places of things are settled, then their shapes, last their eyes.

# %% id="film" tags=["static"]
chosen = [film[i] for i in (0, len(film) // 8, len(film) // 4, len(film) // 2, 3 * len(film) // 4, len(film) - 1)]
frames = torch.cat([decode(x).cpu() for _, x, _ in chosen] + [decode(x0).cpu() for _, _, x0 in chosen])
titles = [f"x_t, t = {t}" for t, _, _ in chosen] + [f"x0_hat, t = {t}" for t, _, _ in chosen]
show(
    plot_pictures(frames, titles, columns=6),
    "Upper row: from noise to the picture. Lower row: the guess of the final picture, from a blur to the same picture.",
)

# %% [markdown] id="elsewhere"
# ## What you will read elsewhere
#
# Three sentences that many articles repeat, and a run of the model against each.
#
# **"The text embedding determines the starting latent distribution."** No: the start is $N(0, I)$ whatever the prompt
# says. Here the same noise is used for two prompts.

# %% id="same-start"
starts = []
hook = pipe.unet.register_forward_pre_hook(lambda unet, inputs: starts.append(inputs[0][:1]))
for text in ("a corgi on the grass", "a blue boat at night"):
    draw(pipe, Settings(text, seed=3, steps=1))
hook.remove()

print("what the U-Net is given first is the same for both:", torch.equal(*starts))
assert torch.equal(*starts)

# %% [markdown] id="not-the-image"
# **"The U-Net outputs the noise-free image $x_{t-1}$."** Two errors in one: it says which noise is in $x_t$ (or $v$, from
# which that follows), and the *scheduler* computes $x_{t-1}$ from it; and $x_{t-1}$ is only a little less noisy than
# $x_t$. Half way through the loop:

# %% id="not-the-image-run"
half = len(film) // 2
t, x_t, _ = film[half]
_, x_next, _ = film[half + 1]
_, _, clean = film[-1]
with torch.no_grad():
    output = pipe.unet(x_t, t, cond).sample
eps_hat = (1 - alpha_bar[t]).sqrt() * x_t + alpha_bar[t].sqrt() * output
true_noise = (x_t - alpha_bar[t].sqrt() * clean) / (1 - alpha_bar[t]).sqrt()


def correlation(a, b):
    """How alike two tensors of one shape are: 1 for equal ones, 0 for unrelated ones."""
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


next_present, next_final = correlation(x_next, x_t), correlation(x_next, clean)
print(f"the next x with the present one: correlation {next_present:.2f}, with the final image {next_final:.2f}")
output_next, output_final = correlation(output, x_next), correlation(output, clean)
noises = correlation(eps_hat, true_noise)
print(
    f"the U-Net's output with the next x: {output_next:.2f}, with the final image {output_final:.2f}; "
    f"the noise that follows from it with the noise in x_t: {noises:.2f}"
)
assert noises > 0.5 > output_next

# %% [markdown] id="forward-is-training"
# **"First, noise is added to a real image; then the model removes it."** Adding noise to pictures (the forward process)
# makes the training examples. In the loop above there is no picture to add noise to. The usual diagram also leaves out
# the two parts without which Stable Diffusion does not work: the autoencoder, and guidance. You have used both.

# %% [markdown] id="map"
# ## The map of the course
#
# | box | built in | what you write there |
# |:--|:--|:--|
# | the families before diffusion | 01, 02, 03 | pixel by pixel; an autoencoder; two networks that compete |
# | the U-Net and its attention | 04 | every layer, each equal to the library's |
# | how training examples are made | 05 | adding noise, in one step and in a thousand |
# | how the U-Net is trained | 06 | the whole training loop |
# | the scheduler | 07 | DDPM, DDIM and a faster solver |
# | tokenizer and text encoder | 08 | learning words from pictures |
# | autoencoder and latents | 09 | from pixels to latents and back |
# | `cond` and guidance | 10 | the assembled model: yours, in the place of the one used here |
# | the real Stable Diffusion | 11 | the same loop on v1.5, with about a hundred times the parameters |
#
# The README says which of them are there already.

# %% id="machine"
print(describe_machine())
print(
    "model:",
    PICTURE_BOOK.name,
    f"({sum(f.stat().st_size for f in PICTURE_BOOK.rglob('*') if f.is_file()) / 1e6:.1f} MB)",
)

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $x_T \sim N(0, I)$ | `noise = torch.randn(..., generator=...)` |
# | $c = \text{encoder}(\text{tokens})$ | `cond = pipe.text_encoder(ids).last_hidden_state` |
# | $\hat v = \hat v_\varnothing + w(\hat v_c - \hat v_\varnothing)$ | `v_null + guidance * (v_cond - v_null)` |
# | $\hat x_0 = \sqrt{\bar\alpha_t}\,x_t - \sqrt{1-\bar\alpha_t}\,\hat v$ | `alpha_bar[t].sqrt() * x_t - (1 - alpha_bar[t]).sqrt() * v` |
# | $x_t \to x_{t-1}$ | `scheduler.step(v, t, x_t).prev_sample` |
#
# **To think about** (open a line for the answer)
#
# <details><summary>1. Why does the same seed put different subjects at similar places?</summary>
# The first steps settle large shapes, and they depend mostly on the noise; the words only say what the shapes are.
# </details>
# <details><summary>2. A step with guidance runs the U-Net twice. When could you save the second run?</summary>
# With w = 1 the empty prompt cancels out. Batching both into one call saves time too, but no arithmetic.
# </details>
# <details><summary>3. Could you write a prompt that the text encoder cannot tell from another?</summary>
# Yes: anything after the 32nd token is cut off, and capital letters are made small before encoding.
# </details>
#
# **Papers** Latent diffusion: Rombach et al., [arXiv:2112.10752](https://arxiv.org/abs/2112.10752). DDPM: Ho et al.,
# [arXiv:2006.11239](https://arxiv.org/abs/2006.11239). Guidance: Ho and Salimans,
# [arXiv:2207.12598](https://arxiv.org/abs/2207.12598). CLIP: Radford et al.,
# [arXiv:2103.00020](https://arxiv.org/abs/2103.00020).

# %% [markdown] id="bonus"
# ## Bonus: pictures that remember
#
# From a terminal, `python3 course.py generate "a red ball on the beach"` writes a PNG that carries prompt and settings
# with it, in the form that Stable Diffusion Web UI reads. So does this cell, and then it reads them back.

# %% id="remember"
import tempfile
from pathlib import Path

from course_utils.pipelines.png_info import read_png, write_png

((picture, made),) = draw(pipe, Settings(prompt, seed=3, steps=steps))
with tempfile.TemporaryDirectory() as folder:
    write_png(Path(folder) / "corgi.png", picture, made)
    print(read_png(Path(folder) / "corgi.png"))
