# %% [markdown] id="title"
# # 00 · Text in, picture out
#
# You type *a cute corgi puppy sitting on the grass*, and moments later there is a picture of one. In this chapter you
# do that on your own computer, and then open the model and look at every part of it.
#
# ![Eight pictures drawn by the model for one prompt with eight seeds: a corgi puppy on the grass, in the second picture two](../chapters/figures/corgis.png)
#
# *One prompt, seeds 0 to 7, none left out. The second picture shows two puppies, and in the fifth the face is smeared.*
#
# **After this chapter you can**
# 1. draw pictures from your own prompts and say what seed, steps and guidance change;
# 2. name the five parts of a text-to-image model and the shape of what each passes on;
# 3. follow, line by line, the loop that turns noise into a picture, and check that it gives the library's picture.
#
# **Time** 30 minutes of reading and trying; all cells together take about a minute on two CPU cores.
# **You need** Python, the normal distribution, and an idea of what a neural network is. Everything else is built in the
# chapters that follow.

# %% id="set-up"
import time

import torch

from course_utils.data.images import to_tensor
from course_utils.machine.devices import budget, describe_machine, pick_device
from course_utils.pipelines.picture_book import PICTURE_BOOK, draw, load_picture_book, make_scheduler
from course_utils.pipelines.png_info import Settings
from course_utils.plotting import plot_pictures, show, use_style

use_style()
device = pick_device()
pipe = load_picture_book(device=device)

# %% [markdown] id="first"
# ## Your first picture
#
# The model was trained on one small world, a *picture book* of 64 × 64 pixels a page: twelve subjects (a corgi puppy, a
# cat, a rabbit, a duck, a ball, a teapot, a house, a tree, a tulip, a mushroom, a car, a sailing boat), eight colours
# (red, orange, yellow, green, blue, purple, pink, white), and eight places (on the grass, on the beach, in the snow, in
# the desert, in the forest, in a room, in the city, at night). Corgis and cats sit, stand or sleep; there may be
# up to three things of a kind, or two different ones; and *a watercolour of …*, *a coloured pencil drawing of …* or
# *pixel art of …* changes the style.
#
# Besides the prompt, three settings control how a picture is drawn. Drawing starts from random noise, and the *seed*
# fixes which noise. *Steps* is the number of times that some of the noise is removed. *Guidance* sets how strongly the
# prompt steers each step: 1 is the plain model, and larger values strengthen the prompt's effect. Run the cell below,
# then change the prompt and run it again. (Later cells use the same variable `prompt`, and the text about them
# describes the corgi, so set it back before you go on.)

# %% id="first-picture" tags=["static"]
prompt = "a cute corgi puppy sitting on the grass"
steps = budget(smoke=4, laptop=20, gpu=20)

start = time.perf_counter()
results = draw(pipe, Settings(prompt, seed=3, steps=steps, guidance=4.0))
print(f"drawn in {time.perf_counter() - start:.1f} seconds")
picture, made = results[0]  # the picture, and all settings it was made with
show(plot_pictures(to_tensor(picture), [prompt]), f"The model's picture of “{prompt}”.")

# %% [markdown] id="seed-question"
# **Predict first.** What stays the same if you keep the words and change the seed? And if you keep the seed and change
# the words?
#
# <details><summary>Answer (after running the cell below)</summary>
# Along a row of the figure, what the prompt names stays, and what it leaves open varies: where the subject stands, how
# large it is, on which side the sun or the moon is. Down a column all four pictures start from the same noise, and yet
# show four different things: the words decide what is drawn. If words, seed, steps and guidance are all the same, so is
# the picture: the last lines of the cell draw one again and compare. The pictures have faults, too: the faces of all
# five white cats are smeared, and the last three cats have two tails.
# </details>

# %% id="seeds" tags=["static"]
prompts = [prompt, "a blue car in the snow", "a red mushroom in the forest", "a white cat sitting at night"]
seeds = [10, 11, 12, 13, 14]
pictures = []
for text in prompts:
    for picture, _ in draw(pipe, Settings(text, seed=seeds[0], steps=steps), count=5):  # seeds 10, 11, 12, 13, 14
        pictures.append(picture)

heads = [f"seed {seed}" for seed in seeds]
grid = plot_pictures(to_tensor(pictures), columns=5, heads=heads, rows=prompts)
show(
    grid,
    "One row for each of four prompts, five seeds each: each row shows one subject in one place, in five versions; "
    "the white cats have smeared faces.",
)

again, _ = draw(pipe, Settings(prompts[0], seed=12, steps=steps))[0]
difference = (to_tensor(again) - to_tensor(pictures[2])).abs().max().item()
assert difference <= 2 / 255  # the same seed, the same picture, to one grey level

# %% [markdown] id="explore-question"
# ## Four controls
#
# You have varied the prompt and the seed. Now vary the steps and the guidance, one at a time, with all else unchanged.
# **Predict first.** What does a picture drawn in a single step look like, and one in three? What do guidance 1 (the
# plain model) and guidance 12 do to the picture? Below are five settings as still pictures, and then live controls for
# all four.
#
# <details><summary>Answer (after running the cell below)</summary>
# One step gives a blur, in colours that are too strong, with corgi, grass and sun already in their places; three steps
# give a corgi with a clear outline, but a yellowish coat, streaky grass and no cloud; twenty give a clean picture.
# Guidance 1 draws nearly the same corgi as guidance 4, in the same place. With guidance 12 the colours are too strong,
# and the sky and the grass become patchy. These are five pictures with one seed: how often pictures follow their
# prompts, and how that depends on guidance, is measured over many in chapter 10.
# </details>

# %% id="filmstrip" tags=["static"]
from course_utils.widgets import explore, filmstrip, prompt_explorer

explorer = prompt_explorer(pipe, prompt)
filmstrip(explorer, [{"steps": 1}, {"steps": 3}, {"steps": 20}, {"guidance": 1.0}, {"guidance": 12.0}])

# %% [markdown] id="explore-how"
# Move a slider and let go, or change the prompt and press Enter. From which number of steps on does the picture hardly
# change any more? Try a second seed before you settle on an answer.
#
# <details><summary>Answer</summary>
# With this prompt at guidance 4, from about 15 on, both with seed 3 and with seed 7. With 10 steps the shapes are there,
# but the coat still has another colour: yellowish with seed 3, red with seed 7. Two seeds are few; chapter 07 measures
# how the result depends on the number of steps.
# </details>

# %% id="explore"
explore(explorer)

# %% [markdown] id="your-turn"
# ## A prompt that fails
#
# **Predict first.** The model draws eight pictures for each of these three prompts. For one of them most of the eight
# pictures are wrong. Which one, and what do they show?
#
# 1. *a blue corgi puppy in the snow*
# 2. *three ducks at night*
# 3. *a house without a tree*
#
# <details><summary>Answer (after running the cell below)</summary>
# The third. The corgis are blue in all eight pictures: no real corgi is, but the training set combines every subject
# with every colour. (With seed 0 the corgi has two heads.) There are three ducks in each picture, though not all are
# well formed. But <em>without</em> appears in no training caption, while <em>tree</em> does, and wherever it does there
# is a tree in the picture: five of the eight pictures show a tree in place of the house. From eight pictures a rate is
# known only roughly (five of eight: a 95% interval from 31% to 86%), but it is clear that the word did not keep the
# trees away. Large CLIP models handle negation poorly, too (Alhamoud et al., linked at the end), presumably because the
# captions that they were trained on seldom say what is absent; Stable Diffusion v1.5 uses the text encoder of such a
# model. What you do not want belongs in a <em>negative prompt</em> (chapter 10). Now try prompts of your own, in the
# first cell or in the controls.
# </details>

# %% id="your-turn-run" tags=["static"]
prompts = ["a blue corgi puppy in the snow", "three ducks at night", "a house without a tree"]
pictures = []
for text in prompts:
    for picture, _ in draw(pipe, Settings(text, seed=0, steps=steps), count=8):
        pictures.append(picture)
show(
    plot_pictures(to_tensor(pictures), columns=8, heads=[f"seed {seed}" for seed in range(8)], rows=prompts),
    "Eight pictures for each of three prompts: blue corgis in the snow (the first has two heads), three ducks at "
    "night, and for “a house without a tree” three houses and five trees.",
)

# %% [markdown] id="words-unknown"
# What happens with words that no training caption contains? No caption mentions a dragon, and yet a picture comes out.
# The model gives no warning, so the course has a function that does.

# %% id="unknown" tags=["static"]
from course_utils.text.prompts import inspect_prompt

strange = "a purple dragon flying over the volcano"
for sentence in inspect_prompt(pipe.tokenizer, strange).advice():
    print(sentence)

pictures = []
for picture, _ in draw(pipe, Settings(strange, seed=0, steps=steps), count=4):
    pictures.append(picture)
show(
    plot_pictures(to_tensor(pictures), columns=4),
    f"Four pictures for “{strange}”: there is something purple, but no dragon and no volcano; shapes of the picture "
    "book stand in for them.",
)

# %% [markdown] id="chinese-text"
# All training captions are in English, so a Chinese prompt has no word that the model knows. But the world of the picture
# book is small: some 150 words and a few rules turn a Chinese sentence into a caption. What this dictionary lacks is
# named, not guessed. (`python3 course.py generate` does the same with every Chinese prompt.)

# %% id="chinese" tags=["static"]
from course_utils.data.picture_book.chinese import to_english

sentences = ["一只可爱的柯基犬坐在草地上", "雪地里，一个红色的球在一只白猫的左边", "一只猫和一条恐龙在城市里"]
captions = [to_english(sentence) for sentence in sentences]
for sentence, caption in zip(sentences, captions):
    print(f"{sentence}: {caption.text}", *[f"(not in the dictionary: {word})" for word in caption.unknown])

pictures = [draw(pipe, Settings(caption.text, seed=0, steps=steps))[0][0] for caption in captions]
show(
    plot_pictures(to_tensor(pictures), columns=3, heads=[caption.text for caption in captions]),
    "Three pictures of Chinese prompts: a sitting corgi puppy on grass, a red ball left of a white cat in the snow, a "
    "cat in the city; the dragon of the third prompt is not in the dictionary.",
)

# %% [markdown] id="inside"
# ## Inside the model
#
# Five parts work together: the *tokenizer*, the *text encoder*, the *U-Net*, the *scheduler* and the *autoencoder*,
# whose second half is the *decoder*. (Guidance is no part: it is one line of arithmetic between the U-Net and the
# scheduler.) This is the data flow of Stable Diffusion, and of our small model, whose parts have the same names and
# come from the same libraries, *diffusers* and *transformers*. Sections 1 to 6 go through it box by box, and explain
# the symbols. (*Latents* are an image in compressed form, and `cond` is the encoded prompt.)
#
# ```mermaid
# graph TB
#     A["prompt"] --> B["tokenizer"] --> C["text encoder"]
#     C -- "cond, at every step" --> D["U-Net: predicts the noise"]
#     N["noise N(0, I)<br/>from the seed"] --> X["latents x_t"]
#     X --> D --> G["guidance"] --> S["scheduler:<br/>a little less noise"]
#     S -- "repeat" --> X
#     S -- "after the last step: x_0" --> V["decoder"] --> P["picture"]
# ```
#
# Two things to notice. The prompt does *not* touch the starting noise: it enters at every step. And no real picture
# comes in anywhere: it is training that needs real pictures, with noise added (chapters 05 and 06). One box is
# simplified: our U-Net outputs a mixture of noise and image, from which the noise can be computed (section 4).
#
# The five parts are attributes of one object, the *pipeline*, which we called `pipe`. The autoencoder is named `vae`
# there, for *variational autoencoder* (chapter 02).

# %% id="parts"
for name in ("tokenizer", "text_encoder", "unet", "scheduler", "vae"):
    part = getattr(pipe, name)
    numbers = sum(p.numel() for p in part.parameters()) if hasattr(part, "parameters") else 0
    print(f"{name:13} {type(part).__name__:26} {numbers / 1e6:6.2f} million parameters")

# %% [markdown] id="symbols"
# Three of the five have parameters: these are neural networks. Most of the parameters are in the U-Net.
#
# The symbols of this chapter, for reference; sections 1 to 6 introduce them one by one. They keep their meaning
# throughout the course.
#
# | symbol | in code | what it is | shape here |
# |:--|:--|:--|:--|
# | $c$ | `cond` | the prompt as features: one vector for each of 32 tokens | (1, 32, 128) |
# | $\varnothing$ | `null` | the features of the empty prompt | (1, 32, 128) |
# | $x_t$ | `x_t` | the noisy image at time $t$, as latents | (1, 8, 16, 16) |
# | $x_0$, $\hat x_0$ | `clean`, `x0_hat` | the clean image, as latents; its prediction | (1, 8, 16, 16) |
# | $x_T$ | `noise` | the start of drawing: pure noise | (1, 8, 16, 16) |
# | $\mathcal{N}(0, I)$ | `torch.randn` | independent normal numbers with mean 0 and variance 1 | |
# | $t$ | `t` | the time, which sets the noise level: 999 is almost pure noise, 0 almost none | a number |
# | $\varepsilon$, $\hat\varepsilon$ | `eps`, `eps_hat` | the noise in $x_t$; its prediction | (1, 8, 16, 16) |
# | $v$, $\hat v$ | `v` | a mixture of noise and image (section 4); its prediction, the U-Net's output | (1, 8, 16, 16) |
# | $w$ | `guidance` | the guidance scale: how strongly the prompt steers | a number |
# | $\bar\alpha_t$ | `alpha_bar` | the share of the clean image's variance that is left at time $t$ | (1000,) |

# %% [markdown] id="tokens"
# ### 1 · Words become numbers
#
# The *tokenizer* splits the prompt into *tokens* and gives each its number. A known word is one token; others are split
# into pieces. In the output, `</w>` marks the end of a word. A start token and an end token are added, and the end
# token is repeated to fill 32 places (77 in Stable Diffusion v1.5).

# %% id="tokenize"
ids = pipe.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids.to(device)
print("shape", tuple(ids.shape))
print(pipe.tokenizer.convert_ids_to_tokens(ids[0])[:12], "...")
print(ids[0, :12].tolist(), "...")
print(pipe.tokenizer.tokenize("a purple dragon"))

# %% [markdown] id="encode-text"
# ### 2 · Numbers become features
#
# The *text encoder*, a small transformer, turns each token into a vector that depends on the token and on those before
# it: the vector of *corgi* in "a blue corgi" differs from the one in "a red corgi". To show this, the cell compares the
# two prompts token by token by their *cosine similarity*, which is 1 for two vectors of the same direction. At *a* it
# is 1, although different words follow; at *corgi* it is far below 1, although the word is the same. We also encode the
# empty prompt, which guidance will need.


# %% id="text-encoder"
@torch.no_grad()
def encode(text):
    """The features of a prompt: (1, 32, 128)."""
    ids = pipe.tokenizer(text, padding="max_length", return_tensors="pt").input_ids.to(device)
    return pipe.text_encoder(ids).last_hidden_state


cond, null = encode(prompt), encode("")
print("cond", tuple(cond.shape), " null", tuple(null.shape))
similarity = torch.cosine_similarity(encode("a blue corgi"), encode("a red corgi"), dim=-1)[0]
print(f"cosine similarity at 'a' {similarity[1]:.2f}, at 'blue' and 'red' {similarity[2]:.2f}, ", end="")
print(f"at 'corgi' {similarity[3]:.2f}")
assert similarity[1] > 0.999 > similarity[3]

# %% [markdown] id="noise"
# ### 3 · A seed becomes noise
#
# The model does not work on pixels but on *latents*: an autoencoder turns 3 · 64 · 64 = 12,288 pixel values into
# 8 · 16 · 16 = 2,048 numbers, a sixth as many: an image with a quarter of the side length and eight channels. (Stable
# Diffusion v1.5 turns 3 · 512 · 512 into 4 · 64 · 64, a forty-eighth as many.) Drawing starts from standard normal
# noise, $x_T \sim \mathcal{N}(0, I)$, which a random number generator produces from the seed.

# %% id="start"
noise = torch.randn((1, 8, 16, 16), generator=torch.Generator().manual_seed(3)).to(device)
print(f"x_T {tuple(noise.shape)}, mean {noise.mean():.2f}, standard deviation {noise.std():.2f}")

# %% [markdown] id="predict"
# ### 4 · The U-Net predicts, twice
#
# At each step the U-Net is evaluated twice, once with the prompt and once with the empty prompt. Its output is called
# $\hat v$; what it predicts is explained below the cell. The difference between the two outputs is the effect of the
# words, and *guidance* amplifies it:
#
# $$\hat v = \hat v(x_t, t, \varnothing) + w \,\bigl[\hat v(x_t, t, c) - \hat v(x_t, t, \varnothing)\bigr]$$
#
# In words: start from the prediction without the prompt and go $w$ times the way to the prediction with it. With
# $w = 1$ you arrive exactly there. Chapter 10 derives this formula from Bayes' rule, and measures what a larger $w$
# gains and what it costs.


# %% id="guided"
@torch.no_grad()
def guided(x_t, t, guidance):
    """The U-Net's output v at (x_t, t), with guidance; shape of x_t."""
    v_null = pipe.unet(x_t, t, null).sample
    v_cond = pipe.unet(x_t, t, cond).sample
    return v_null + guidance * (v_cond - v_null)


v = guided(noise, 999, 4.0)
print("v", tuple(v.shape))

# %% [markdown] id="answer"
# And what is $v$? A noisy image is a mixture, $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$,
# of the clean image $x_0$ and noise $\varepsilon$ (chapter 05). $v$ is *another* mixture of the same two,
# $v = \sqrt{\bar\alpha_t}\,\varepsilon - \sqrt{1-\bar\alpha_t}\,x_0$, so that $x_t$ and $v$ together determine both:
#
# $$\hat\varepsilon = \sqrt{1-\bar\alpha_t}\;x_t + \sqrt{\bar\alpha_t}\;\hat v, \qquad
#   \hat x_0 = \sqrt{\bar\alpha_t}\;x_t - \sqrt{1-\bar\alpha_t}\;\hat v$$
#
# Many networks, including that of Stable Diffusion v1.5, output $\hat\varepsilon$ itself. Chapter 07 converts one into
# the other, and chapter 10 explains why this network predicts $v$.

# %% [markdown] id="loop-text"
# ### 5 · The scheduler removes a little noise, again and again
#
# From $x_t$ and $\hat v$ the *scheduler* computes a slightly less noisy $x_{t-1}$ (chapter 07 builds one). Here $t-1$
# stands for the time that comes next: with 20 steps the times are 999, 949, …, 49. The scheduler is *UniPC*, which also
# uses the earlier predictions. Its `alphas_cumprod` holds $\bar\alpha_t$ for all thousand times. With the scheduler,
# the loop that generates an image is complete:

# %% id="loop"
scheduler = make_scheduler("unipc", pipe.scheduler.config)
scheduler.set_timesteps(steps)
alpha_bar = scheduler.alphas_cumprod

x_t, film = noise, []
for t in scheduler.timesteps:
    v = guided(x_t, t, guidance=4.0)
    x0_hat = alpha_bar[t].sqrt() * x_t - (1 - alpha_bar[t]).sqrt() * v  # the clean image predicted at this step
    film.append((t.item(), x_t, x0_hat))
    x_t = scheduler.step(v, t, x_t).prev_sample
print("x_0", tuple(x_t.shape))

# %% [markdown] id="decode-text"
# ### 6 · Latents become pixels
#
# The decoder half of the autoencoder produces the picture. The scaling factor is a constant that brings latents to unit
# variance (chapter 09). If the loop above is all that the pipeline does, both must give the same picture, except that
# the pipeline rounds to whole grey levels:


# %% id="decode" tags=["static"]
@torch.no_grad()
def decode(latents):
    """Images in [-1, 1] from scaled latents: (batch, 8, 16, 16) -> (batch, 3, 64, 64)."""
    return pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)


by_hand = decode(x_t).cpu()
picture, _ = draw(pipe, Settings(prompt, seed=3, steps=steps, guidance=4.0))[0]
difference = (by_hand - to_tensor(picture)).abs().max().item()
assert difference <= 2 / 255, difference  # one grey level: the pipeline rounds to whole ones
show(
    plot_pictures(torch.cat([by_hand, to_tensor(picture)]), ["our loop", "the pipeline"]),
    f"The picture of our loop and that of the pipeline; they differ by at most {difference * 127.5:.1f} of 255 grey levels.",
)

# %% [markdown] id="film-text"
# ### Watching it happen
#
# The upper row is $x_t$, the latents in the loop. The lower row is $\hat x_0$, the clean image that the guided output
# implies at that time. Both are decoded; the decoder turns latents of pure noise into coloured patches. The first
# $\hat x_0$ is a blur in strong colours, but the sun, the grass and the corgi are already in their places; later steps
# sharpen it. The printed numbers measure how far $\hat x_0$ still is from the final picture, in pixel values
# from −1 to 1.

# %% id="film" tags=["static"]
chosen = [film[i] for i in (0, len(film) // 8, len(film) // 4, len(film) // 2, 3 * len(film) // 4, len(film) - 1)]
noisy = [decode(x).cpu() for _, x, _ in chosen]
predicted = [decode(x0).cpu() for _, _, x0 in chosen]
heads = [f"t = {t}" for t, _, _ in chosen]
grid = plot_pictures(torch.cat(noisy + predicted), columns=6, heads=heads, rows=["$x_t$", r"$\hat x_0$"])
show(
    grid,
    "Upper row: from pure noise to a picture with a little noise left. Lower row: the predicted clean image, from a "
    "blur to the final picture.",
)
distances = [(x0 - by_hand).square().mean().sqrt().item() for x0 in predicted]
print("root mean square distance to the final picture: " + ", ".join(f"{distance:.2f}" for distance in distances))
if budget(smoke=False, laptop=True, gpu=True):
    assert distances == sorted(distances, reverse=True)

# %% [markdown] id="elsewhere"
# ## What you will read elsewhere
#
# Three sentences that you may meet in articles about text-to-image models, and what the parts above show about each.
#
# **"The text embedding determines the starting latent distribution."** No: drawing starts from $\mathcal{N}(0, I)$
# whatever the prompt is. Here we record the U-Net's first input for two prompts with one seed.

# %% id="same-start"
given = []


def record(unet, inputs):
    """Keep the noisy latents that the U-Net is called with."""
    given.append(inputs[0][:1])


hook = pipe.unet.register_forward_pre_hook(record)
for text in ("a corgi on the grass", "a blue boat at night"):
    draw(pipe, Settings(text, seed=3, steps=1))
hook.remove()

print("the U-Net's first input is the same for both prompts:", torch.equal(given[0], given[1]))
assert torch.equal(given[0], given[1])

# %% [markdown] id="not-the-image"
# **"The U-Net outputs the noise-free image $x_{t-1}$."** Three errors in one. The U-Net outputs a prediction of the
# noise (or of $v$, from which, with $x_t$, the noise follows). It is the *scheduler* that computes $x_{t-1}$ from it.
# And $x_{t-1}$ is not free of noise: it is only a little less noisy than $x_t$. We check all three half-way through the
# loop, with root mean square distances. First, is the output close to $x_{t-1}$, or does it predict the noise in $x_t$?
# That noise is computed with the clean latents from the end of the loop.


# %% id="not-the-image-run"
def distance(a, b):
    """The root mean square difference of two tensors of one shape."""
    return (a - b).square().mean().sqrt().item()


half = len(film) // 2
t, x_t, _ = film[half]
later, x_next, _ = film[half + 1]
clean = film[-1][2]
output = guided(x_t, t, guidance=4.0)
eps_hat = (1 - alpha_bar[t]).sqrt() * x_t + alpha_bar[t].sqrt() * output
eps = (x_t - alpha_bar[t].sqrt() * clean) / (1 - alpha_bar[t]).sqrt()
print(
    f"distance of x_t and x_(t-1) {distance(x_t, x_next):.2f}; of the output and x_(t-1) {distance(output, x_next):.2f}"
)
print(f"distance of the noise that follows from the output and the noise in x_t {distance(eps_hat, eps):.2f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert distance(x_t, x_next) < distance(output, x_next) / 3 and distance(eps_hat, eps) < 0.5

# %% [markdown] id="not-the-image-scheduler"
# The output is not $x_{t-1}$: even $x_t$ is much closer to it. The noise that follows from the output, though, is close
# to the noise in $x_t$: their distance is small compared with 1, the standard deviation of standard normal noise.
#
# Second, one output leads to different $x_{t-1}$ with different schedulers. DDIM and DDPM (chapter 07) both use nothing
# but $x_t$ and this output; DDPM adds fresh noise, DDIM none. And third, $x_{t-1}$ is still noisy: the standard
# deviation of its noise is hardly smaller than that of the noise in $x_t$:

# %% id="not-the-image-other"
stepped = []
for name in ("ddim", "ddpm"):
    other = make_scheduler(name, pipe.scheduler.config)
    other.set_timesteps(steps)
    fresh = torch.Generator(device).manual_seed(0)
    stepped.append(other.step(output, t, x_t, generator=fresh).prev_sample)
print(f"distance of the x_(t-1) of DDIM and DDPM, from one x_t and one output {distance(*stepped):.2f}")
levels = [(1 - alpha_bar[time]).sqrt().item() for time in (t, later)]
print(f"standard deviation of the noise: {levels[0]:.2f} in x_t, {levels[1]:.2f} in x_(t-1)")
assert distance(*stepped) > 0.1
if budget(smoke=False, laptop=True, gpu=True):
    assert levels[1] > levels[0] / 2

# %% [markdown] id="forward-is-training"
# **"First, noise is added to a real image; then the model removes it."** That describes training: adding noise to
# images (the forward process) makes the training examples. In the loop above there is no real image to add noise to.
# Two kinds of drawing do add noise: samplers that add a little fresh noise at every step (chapter 07), and drawing that
# starts from a given picture, to which noise is added first (chapter 11).

# %% [markdown] id="map"
# ## The map of the course
#
# | part | built in | what you write there |
# |:--|:--|:--|
# | other kinds of generative models | 01, 02, 03 | drawing pixel by pixel; a VAE's loss; a GAN's losses and updates |
# | the U-Net and its attention | 04 | attention, the time embedding, the residual block, the way through the U |
# | how training examples are made | 05 | adding noise, in one step and in a thousand |
# | how the U-Net is trained | 06 | the parts of the training loop |
# | the scheduler | 07 | DDPM, DDIM and faster solvers |
# | tokenizer and text encoder | 08 | the tokenizer's merges, the contrastive loss, classification by text |
# | autoencoder and latents | 09 | encoding, decoding, and the factor that gives latents unit variance |
# | `cond` and guidance | 10 | guidance, and the loop from prompt to picture, for a model that you train |
# | the real Stable Diffusion | 11 | the same loop on v1.5, with about eighty times the parameters |
#
# The cell below prints what to add to a question or a bug report: versions, hardware and the size of the model.

# %% id="machine"
print(describe_machine())
size = sum(file.stat().st_size for file in PICTURE_BOOK.rglob("*") if file.is_file())
print(f"model: {PICTURE_BOOK.name} ({size / 1e6:.1f} MB)")

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $x_T \sim \mathcal{N}(0, I)$ | `noise = torch.randn(..., generator=...)` |
# | $c = \text{text encoder}(\text{tokens})$ | `cond = pipe.text_encoder(ids).last_hidden_state` |
# | $\hat v = \hat v(x_t, t, \varnothing) + w[\hat v(x_t, t, c) - \hat v(x_t, t, \varnothing)]$ | `v_null + guidance * (v_cond - v_null)` |
# | $\hat x_0 = \sqrt{\bar\alpha_t}\,x_t - \sqrt{1-\bar\alpha_t}\,\hat v$ | `alpha_bar[t].sqrt() * x_t - (1 - alpha_bar[t]).sqrt() * v` |
# | $x_t \to x_{t-1}$ | `scheduler.step(v, t, x_t).prev_sample` |
#
# **To think about** (open a line for the answer)
#
# <details><summary>1. Why is a picture drawn in one step a blur?</summary>
# Pure noise is compatible with every picture that fits the prompt. The prediction with the smallest expected squared
# error is the average of them all, and an average of many pictures is blurred (chapter 06). Guidance above 1 goes
# beyond that average, but does not make it sharp: compare one step with guidance 1 and with guidance 4 in the controls
# above.
# </details>
# <details><summary>2. A step with guidance evaluates the U-Net twice. When could you save the second evaluation?</summary>
# With w = 1 the prediction for the empty prompt cancels out. Putting both into one batch can save time, too, but no
# arithmetic.
# </details>
# <details><summary>3. Could you write two different prompts for which the model draws the same picture from each seed?</summary>
# Yes: of the 32 places two are for the start and end tokens, so the pipeline cuts off everything after the 30th token
# of the prompt; and capital letters become small ones before encoding.
# </details>
#
# **Papers** Latent diffusion: Rombach et al., [arXiv:2112.10752](https://arxiv.org/abs/2112.10752). DDPM: Ho et al.,
# [arXiv:2006.11239](https://arxiv.org/abs/2006.11239). Guidance: Ho and Salimans,
# [arXiv:2207.12598](https://arxiv.org/abs/2207.12598). CLIP: Radford et al.,
# [arXiv:2103.00020](https://arxiv.org/abs/2103.00020). The output $v$: Salimans and Ho,
# [arXiv:2202.00512](https://arxiv.org/abs/2202.00512). UniPC: Zhao et al.,
# [arXiv:2302.04867](https://arxiv.org/abs/2302.04867). CLIP and negation: Alhamoud et al.,
# [arXiv:2501.09425](https://arxiv.org/abs/2501.09425).

# %% [markdown] id="bonus"
# ## Bonus: pictures that carry their settings
#
# From a terminal, `python3 course.py generate "a red ball on the beach"` writes a PNG that carries its prompt and
# settings, in the form that the program *Stable Diffusion Web UI* reads. This cell does the same, and then reads them
# back.

# %% id="remember"
import tempfile
from pathlib import Path

from course_utils.pipelines.png_info import read_png, write_png

picture, made = draw(pipe, Settings(prompt, seed=3, steps=steps))[0]
with tempfile.TemporaryDirectory() as folder:
    write_png(Path(folder) / "corgi.png", picture, made)
    print(read_png(Path(folder) / "corgi.png"))
