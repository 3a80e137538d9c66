# %% [markdown] id="title"
# # 11 · Stable Diffusion
#
# You have built every part of a text-to-image model. This chapter replaces them with the parts of the model that made
# the field famous, and shows that *nothing in the loop changes*. You write the loop of Stable Diffusion v1.5 on a library's
# components, get the same picture as its pipeline, and learn to make it fit into the machine that you have.
#
# ![A corgi puppy emerging from noise in six stages, and the predicted clean picture below each of
# them.](../chapters/figures/11_by_hand.png)
#
# **After this chapter you can**
# 1. write the denoising loop on diffusers' components, equal to the pipeline's picture for the same seed;
# 2. tell from a configuration alone how many bytes a model needs, and choose number format, decoder and offload;
# 3. load Stable Diffusion v1.5 safely, or say in one sentence why it cannot be loaded here.
#
# **Time** about two and a half hours, including 75 minutes for eight exercises. All cells together take three minutes on
# two CPU cores; nothing is trained. **You need** chapters 07 (schedulers), 08 (text features), 09 (latents) and 10
# (guidance).

# %% id="set-up"
import os

import matplotlib.pyplot as plt
import torch

from course_utils.data.images import to_tensor
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, describe_machine, pick_device
from course_utils.plotting import plot_pictures, show, use_style

use_style()
device = pick_device()

# %% [markdown] id="choice-text"
# **One choice.** Every cell below always runs on the small picture-book model, and also on Stable Diffusion v1.5 if you
# have its weights or let the course download them (2.7 GB in half precision, 5.5 GB in float32). Change the word
# and run the notebook again. A folder or a `.safetensors` file works too. If something cannot be loaded, you get an
# error that says so; it is never silently replaced.

# %% id="choice"
from course_utils.pipelines.picture_book import draw, load_picture_book, make_scheduler
from course_utils.pipelines.stable_diffusion import MODEL_ID, load_stable_diffusion

MODEL = os.environ.get("COURSE_MODEL", "picture book")  # or "stable diffusion v1.5", or the path of a folder or file

if MODEL == "picture book":
    pipe = load_picture_book(device=device)
else:
    pipe = load_stable_diffusion(MODEL_ID if MODEL == "stable diffusion v1.5" else MODEL, device)
pipe.set_progress_bar_config(disable=True)
SIDE, CHANNELS = pipe.unet.config.sample_size, pipe.unet.config.in_channels
name = MODEL if MODEL in ("picture book", "stable diffusion v1.5") else "a model of your own"
pixels = SIDE * pipe.vae_scale_factor
print(f"{name}: latents {CHANNELS} x {SIDE} x {SIDE}, images 3 x {pixels} x {pixels}")

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape here |
# |:--|:--|:--|:--|
# | $x_t$, $x_T$ | `x_t`, `x_T` | the noisy latents; the first ones | (batch, channels, side, side) |
# | $x_0$, $\hat x_0$ | `x0_hat` | the clean latents; those that an output implies | as `x_t` |
# | $\varepsilon$ | | standard normal noise | as `x_t` |
# | $t$ | `t` | a time from `scheduler.timesteps` | a number |
# | $c_-$, $c_+$ | `both` | features of the negative prompt and of the prompt | (2, tokens, features) |
# | $w$ | `guidance` | the guidance scale | a number |
# | $o$ | `output` | the U-Net's output: $\hat\varepsilon$, $\hat v$ or $\hat x_0$ | as `x_t` |
# | $\hat\varepsilon$, $\hat v$ | | a prediction of the noise, of $v$ (chapter 07) | as `x_t` |
# | $\sigma_\text{init}$ | `init_noise_sigma` | the standard deviation of the first noise | a number |
# | $\tilde\sigma_t$ | | the noise-to-signal ratio $\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}$ | a number |
# | $\bar\alpha_t$ | `alphas_cumprod[t]` | the share of $x_0$'s variance that is left; diffusers' name | (1000,) |
# | $f$ | `pipe.vae_scale_factor` | the autoencoder's downsampling factor | 4 here, 8 in v1.5 |
# | $\kappa$ | `vae.config.scaling_factor` | what latents are multiplied by | a number |

# %% [markdown] id="toy"
# ## The example that everybody copies
#
# Nearly every introduction to Stable Diffusion has these lines: *a cute Corgi puppy sitting on the grass*, 50 steps,
# then the same "in 4k".
#
# **Predict first.** The second prompt asks for *photorealistic, 4k resolution*. How many pixels will the second picture
# have? Will it show the same dog?
#
# <details><summary>Answer (after running the cells below)</summary>
# As many as the first: the number of pixels is the side of the latents times f, and no word changes either. Text enters
# the U-Net's attention, and the shape of the first noise is fixed before. The dog is nearly the same; "4k" can change the
# <em>style</em> only if captions in training contained it, and the picture book's did not.
# </details>

# %% id="article" tags=["static"]
PROMPT = "A cute Corgi puppy sitting on the grass"
steps = budget(smoke=3, laptop=50, gpu=50)


def article(prompt, **options):
    """The picture of the pipeline for a prompt, from the same noise each time."""
    return pipe(prompt, num_inference_steps=steps, generator=torch.Generator().manual_seed(3), **options).images[0]


plain = article(PROMPT)
asked_4k = article(f"{PROMPT}, photorealistic, 4k resolution")
show(
    plot_pictures(to_tensor([plain, asked_4k]), [f"{p.width} x {p.height}" for p in (plain, asked_4k)], columns=3),
    "Two pictures from the same noise: for the prompt, and for the prompt with photorealistic and 4k resolution; both "
    "have the same number of pixels.",
)
changed = (to_tensor(plain) - to_tensor(asked_4k)).abs().mean().item() * 127.5
print(f"sizes: {plain.size} and {asked_4k.size}; the pixels differ by {changed:.1f} of 255 grey levels on average")
assert plain.size == asked_4k.size == (SIDE * pipe.vae_scale_factor,) * 2

# %% [markdown] id="toy-read"
# Did the picture book's captions contain these words?

# %% id="toy-words"
from course_utils.text.prompts import inspect_prompt

if MODEL == "picture book":
    for sentence in inspect_prompt(pipe.tokenizer, f"{PROMPT}, photorealistic, 4k resolution").advice():
        print(sentence)
pixels = plain.width * plain.height
print(f"4k is 3840 x 2160 = {3840 * 2160:,} pixels; here are {pixels:,}, {3840 * 2160 / pixels:,.0f} times fewer")

# %% [markdown] id="stale-text"
# Now the code as it is usually printed. Three of its lines are from 2022. `pipe(prompt)["sample"][0]` fails; the field
# is called `.images`. `torch_dtype=` is giving way to `dtype=`. And the weights are no longer at
# `runwayml/stable-diffusion-v1-5`, which was withdrawn; a mirror keeps them, and a pinned revision makes sure that
# you always get the same ones.

# %% id="stale"
from course_utils.pipelines.stable_diffusion import REVISION

result = pipe(PROMPT, num_inference_steps=1)
try:
    result["sample"][0]
except KeyError as error:
    print(f"result['sample'] -> KeyError: {error}; there are {list(result.keys())}")
else:
    raise AssertionError("this library is older than the course")
print(f"the weights: {MODEL_ID}, revision {REVISION}")

# %% [markdown] id="naive-text"
# ### The failure: simply ask for more pixels
#
# `height=2160, width=3840` would really make a picture of 4k. What would it take? To find out we need no weights.
# Torch has a device called `meta`, where tensors have a shape but no values. A model built there needs no memory, and
# running it computes only shapes. `peak_activations` adds up the tensors that would be in memory at the same time.

# %% id="naive"
from course_utils.machine.memory import gib, peak_activations
from course_utils.pipelines.stable_diffusion import bare_parts

bare = bare_parts()  # Stable Diffusion v1.5 from its configurations, on the meta device
for width, height in ((512, 512), (1024, 1024), (3840, 2160)):
    latents = torch.empty(1, 4, height // 8, width // 8, device="meta")
    decode = peak_activations(bare["vae"].decode, latents)
    print(f"{width} x {height}: {latents[0].numel():7,} latent values; decoding takes {gib(decode)} in float32")

# %% [markdown] id="naive-read"
# Decoding a single picture of 4k fills a graphics card of 24 GiB to the brim, weights not counted. And the U-Net was
# never trained on latents of that size: v1.5 is known to repeat its subject there. So this chapter has two halves: the
# loop, and memory.

# %% [markdown] id="parts-text"
# ## 1 · The parts, weighed without weights
#
# A configuration is a page of numbers: how many channels, how many blocks. It is all that you need for counting. On the
# left the model of this course, on the right Stable Diffusion v1.5; names and classes are the same.


# %% id="parts"
def count(model):
    """The number of parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


ours = load_picture_book()
counts = {name: count(model) for name, model in bare.items()}
for name in counts:
    part = getattr(ours, name)
    here = "none" if part is None else f"{count(part):,}"
    print(f"{name:15} {here:>10} {counts[name]:13,}  {type(bare[name]).__name__}")
total = sum(count(model) for model in (ours.text_encoder, ours.unet, ours.vae))
print(f"{'all':15} {total:10,} {sum(counts.values()):13,}")
assert counts["unet"] == 859_520_964 and counts["text_encoder"] == 123_060_480 and counts["vae"] == 83_653_863

# %% [markdown] id="parts-read"
# These are the counts of the published weights, to the last parameter. Our model has no *safety checker*; section 8 comes
# back to it. Most parameters are in the U-Net. What else differs? Everything in this table is read from the two models'
# configurations:

# %% id="compare-models"
models = {
    "picture book": (ours.unet, ours.vae, ours.text_encoder),
    "v1.5": (bare["unet"], bare["vae"], bare["text_encoder"]),
}
predicted = {"picture book": ours.scheduler.config.prediction_type, "v1.5": "epsilon"}  # v1.5's scheduler_config.json
table = {}
for name, (unet, vae, text) in models.items():
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    table[name] = {
        "tokens, width of their vectors": f"{text.config.max_position_embeddings}, {text.config.hidden_size}",
        "layers of the text encoder": text.config.num_hidden_layers,
        "downsampling factor f": factor,
        "latents": f"{unet.config.in_channels} x {unet.config.sample_size} x {unet.config.sample_size}",
        "image": f"{unet.config.sample_size * factor} pixels a side",
        "scaling factor": f"{vae.config.scaling_factor:.5f}",
        "channels of the U-Net": str(tuple(unet.config.block_out_channels)),
        "the U-Net predicts": predicted[name],
    }
for fact in table["v1.5"]:
    print(f"{fact:31} {table['picture book'][fact]!s:22} {table['v1.5'][fact]}")

# %% [markdown] id="compare-models-read"
# | | picture book | Stable Diffusion v1.5 |
# |:--|:--|:--|
# | text encoder trained by | this course, on the picture book's captions (chapter 08) | OpenAI (CLIP ViT-L/14) |
# | autoencoder trained on | pages of the picture book (chapter 09) | OpenImages |
# | U-Net trained on | pages and captions of the picture book (chapter 10) | subsets of LAION-5B |
#
# (For v1.5: its [model card](https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5).) The numbers differ; the
# parts, their classes and the loop do not.
#
# You will read that Stable Diffusion is "a transformer, like DALL·E". Which layers hold the U-Net's parameters?


# %% id="shares"
def share(model, inside):
    """The share of a model's parameters whose name satisfies `inside`."""
    return sum(p.numel() for name, p in model.named_parameters() if inside(name)) / count(model)


for name, unet in (("picture book", ours.unet), ("v1.5", bare["unet"])):
    kernels = set()  # convolutions outside the attention blocks
    for path, module in unet.named_modules():
        if isinstance(module, torch.nn.Conv2d) and ".attentions." not in path:
            kernels.add(f"{path}.weight")
    attention, convolution = share(unet, lambda n: ".attentions." in n), share(unet, kernels.__contains__)
    rest = 1 - attention - convolution
    print(f"{name:13} convolutions {convolution:.0%}, attention blocks {attention:.0%}, the rest {rest:.0%}")
    assert convolution > 1.5 * attention

# %% [markdown] id="shares-read"
# Around two thirds are convolutions: it is chapter 04's U-Net. But there are two kinds of transformers in Stable
# Diffusion: the *text encoder* is one as a whole, and each attention block of the U-Net contains a small *transformer
# block* (self-attention, cross-attention, a feed-forward network). In DALL·E a transformer does everything; in Stable
# Diffusion 3 and Flux it is the denoiser (chapter 14).
#
# ### Exercise 1 · From numbers to bytes
#
# ●○○○○ · 5 minutes. Floating-point numbers take `dtype.itemsize` bytes; whole numbers keep their own format.


# %% id="ex-bytes"
def weight_bytes(model, dtype):
    """Bytes of all parameters and buffers of a model, if floating-point ones are kept in `dtype`; a whole number."""
    ### BEGIN SOLUTION
    #: parameters, and buffers (running means, position ids): both take memory
    tensors = [*model.parameters(), *model.buffers()]
    #: a floating-point tensor: numel() numbers of dtype.itemsize bytes; another: of element_size() bytes
    return sum(t.numel() * (dtype.itemsize if t.is_floating_point() else t.element_size()) for t in tensors)
    ### END SOLUTION


# %% id="check-bytes"
weight_bytes = check("11.weight_bytes", weight_bytes)
# Stuck? hint("11.weight_bytes") gives a hint, and one more each time; solution(...) is the last resort.

# %% [markdown] id="bytes-text"
# The four parts of v1.5 in two formats. Half precision makes the difference between fitting into a small graphics card
# or not:

# %% id="bytes"
from course_utils.machine import memory

for dtype in (torch.float32, torch.float16):
    sizes = {name: weight_bytes(model, dtype) for name, model in bare.items()}
    assert sizes == {name: memory.weight_bytes(model, dtype) for name, model in bare.items()}
    each = ", ".join(f"{name} {gib(size)}" for name, size in sizes.items())
    print(f"{str(dtype):14} {each}; together {gib(sum(sizes.values()))}")

# %% [markdown] id="encode-text"
# ## 2 · Two prompts, one batch
#
# Guidance needs two outputs at each step: one for the prompt $c_+$ and one for the negative prompt $c_-$ (often empty).
# Chapter 10 evaluated the U-Net twice. Libraries evaluate it once, with a batch of two, and then everything depends on an
# order that no shape reveals: **the negative half comes first**.
#
# Every prompt is cut or padded to the same number of tokens, 77 in v1.5. The padding is *not* neutral. CLIP's loss only
# used the vector at the first end token, which a causal mask keeps from seeing what follows, so CLIP itself does not
# depend on the padding. But the U-Net was trained with all 77 vectors, and it attends to those of the padding too.
#
# ### Exercise 2 · Both prompts
#
# ●●○○○ · 10 minutes. The tokenizer takes a list of texts and four keywords: `padding="max_length"`, `max_length=` (the
# tokenizer's `model_max_length`), `truncation=True` and `return_tensors="pt"`. Pass only its `input_ids` to the encoder,
# on the encoder's device; Stable Diffusion does not pass the attention mask.


# %% id="ex-encode"
@torch.no_grad()
def encode_both(tokenizer, text_encoder, prompt, negative_prompt=""):
    """Text features of both prompts, the negative one FIRST: (2, tokens, features)."""
    ### BEGIN SOLUTION
    #: the tokens of both, cut or filled up to tokenizer.model_max_length: (2, tokens)
    ids = tokenizer(
        [negative_prompt, prompt],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    #: a vector for each token, on the encoder's device
    return text_encoder(ids.to(text_encoder.device)).last_hidden_state
    ### END SOLUTION


# %% id="check-encode"
encode_both = check("11.encode_both", encode_both)

# %% [markdown] id="encode-equal-text"
# Does the pipeline give its U-Net the same?

# %% id="encode-equal"
from course_utils.pipelines import denoising

NEGATIVE = "a car at night"
both = encode_both(pipe.tokenizer, pipe.text_encoder, PROMPT, NEGATIVE)
positive, negative = pipe.encode_prompt(PROMPT, device, 1, True, NEGATIVE)  # diffusers: the other way round
assert torch.allclose(both, torch.cat([negative, positive]), atol=1e-5)
assert torch.allclose(both, denoising.encode_both(pipe.tokenizer, pipe.text_encoder, PROMPT, NEGATIVE), atol=1e-6)
print(f"both: {tuple(both.shape)}, equal to those of the pipeline")

# %% [markdown] id="start-text"
# ## 3 · The start
#
# $$x_T = \sigma_\text{init}\, \varepsilon, \qquad \varepsilon \sim \mathcal{N}(0, I)$$
#
# In words: standard normal noise $\varepsilon$, scaled as the scheduler requires. Chapter 07's schedulers mix image
# and noise so that the variance stays 1; for them $\sigma_\text{init} = 1$. Others (Euler, Heun) *add* noise and leave the
# image as it is (the variance-exploding form of chapter 05): $x_0 + \tilde\sigma_t\,\varepsilon$, and at the noisy end
# $\tilde\sigma_t = \sqrt{(1-\bar\alpha_t)/\bar\alpha_t}$ is far above 1. Both are the same noisy image in two units. The
# scheduler knows which:

# %% id="sigmas"
from course_utils.pipelines.picture_book import SCHEDULERS

for name, spacing in [*((name, "trailing") for name in SCHEDULERS), ("euler", "leading")]:
    scheduler = make_scheduler(name, pipe.scheduler.config)
    scheduler = scheduler.from_config(scheduler.config, timestep_spacing=spacing)
    before = float(scheduler.init_noise_sigma)
    scheduler.set_timesteps(20)
    after = float(scheduler.init_noise_sigma)
    print(f"{name:6} {spacing:8} init_noise_sigma {before:6.3f}, after set_timesteps {after:6.3f}; ", end="")
    print(f"the first t is {scheduler.timesteps[0]:.0f}; {len(scheduler.timesteps)} evaluations")

# %% [markdown] id="ex-start-text"
# The last line is the spacing that v1.5 comes with, *leading*: it starts below the noisiest time, so its first noise is
# weaker, and how much is known only after `set_timesteps`. (Heun and PNDM evaluate the U-Net more often than there are
# steps.)
#
# ### Exercise 3 · The first latents
#
# ●●○○○ · 5 minutes. Call `set_timesteps` here: only then does the scheduler know its times, and so how
# strong its first noise is. Draw the noise with `torch.randn`, on the generator's device, in the given `dtype`.


# %% id="ex-start"
def first_latents(scheduler, steps, shape, generator, dtype=torch.float32):
    """Set the scheduler to `steps`, and return x_T = init_noise_sigma * eps of that shape."""
    ### BEGIN SOLUTION
    #: tell the scheduler how many steps there will be
    scheduler.set_timesteps(steps)
    #: standard normal noise from the generator
    eps = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
    #: scaled as the scheduler requires
    return eps * scheduler.init_noise_sigma
    ### END SOLUTION


# %% [markdown] id="start-dtype-text"
# Does the number format change the noise? On a CPU, the half-precision formats get the float32 numbers, rounded; only
# float64 draws others. A GPU's generator gives other numbers than the CPU's altogether, which is why the course draws
# noise on the CPU.

# %% id="start-dtype"
exact = torch.randn(1, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
for dtype in (torch.float16, torch.bfloat16, torch.float64):
    other = torch.randn(exact.shape, generator=torch.Generator().manual_seed(3), dtype=dtype)
    difference = (other.float() - exact).abs().max().item()
    print(f"{str(dtype):14} largest difference to float32: {difference:.4f}")
    assert (difference > 0.1) == (dtype == torch.float64)

# %% id="check-start"
first_latents = check("11.first_latents", first_latents)

# %% [markdown] id="guided-text"
# ## 4 · One step
#
# $$o = o(x, t, c_-) + w\,\bigl[o(x, t, c_+) - o(x, t, c_-)\bigr]$$
#
# In words: start from the U-Net's output $o$ for the negative prompt and go $w$ times the way to the output for the
# prompt.
#
# What is $x$? The U-Net was trained on inputs of variance 1. A scheduler that adds noise has a much larger $x_t$.
# `scheduler.scale_model_input(x_t, t)` converts it for the U-Net: $x_t / \sqrt{\tilde\sigma_t^2 + 1}$ for Euler,
# $x_t$ itself for others. The *step* starts from the unscaled $x_t$.
#
# ### Exercise 4 · A guided output, in one batch
#
# ●●●○○ · 15 minutes. Evaluate the U-Net once, on a batch of twice the size. With more than one latent, the features are
# needed once for each: all negative ones, then all positive ones. `.chunk(2)` splits the output into the two halves.


# %% id="ex-guided"
@torch.no_grad()
def guided_output(unet, scheduler, x_t, t, both, guidance):
    """The U-Net's output at (x_t, t), guided; x_t: (batch, ...); both: (2, tokens, features), negative first."""
    ### BEGIN SOLUTION
    #: x_t twice, scaled for the U-Net: (2 batch, ...)
    x_in = scheduler.scale_model_input(torch.cat([x_t, x_t]), t)
    #: the features for each of them: (2 batch, tokens, features)
    features = both.repeat_interleave(len(x_t), 0)
    #: evaluate once, and split the output
    negative, positive = unet(x_in, t, encoder_hidden_states=features).sample.chunk(2)
    #: from the negative output, w times the way to the other
    return negative + guidance * (positive - negative)
    ### END SOLUTION


# %% id="check-guided"
guided_output = check("11.guided_output", guided_output)

# %% [markdown] id="guess-text"
# ### What does the output mean?
#
# A network may predict $\varepsilon$, $v$ or $x_0$ (chapter 07). Stable Diffusion v1.5 predicts $\varepsilon$; v2.1 for
# 768 pixels predicts $v$, as the picture book does; and their U-Nets look alike. Only the *scheduler's configuration*
# tells: `prediction_type`. A loop with $\varepsilon$ written into its code draws mud with a network that predicts $v$.
# So read it, and raise an error for a word that you do not know:
#
# | `prediction_type` | $\hat x_0$ from $x$ (what the U-Net received) and $o$ |
# |:--|:--|
# | `epsilon` | $(x - \sqrt{1-\bar\alpha_t}\;o) / \sqrt{\bar\alpha_t}$ |
# | `v_prediction` | $\sqrt{\bar\alpha_t}\;x - \sqrt{1-\bar\alpha_t}\;o$ |
# | `sample` | $o$ |
#
# ### Exercise 5 · The clean prediction
#
# ●●●○○ · 10 minutes. We use it to watch the loop. Some schedulers have fractional times: look up
# `scheduler.alphas_cumprod[int(t)]`. Scaled for the U-Net, $x$ has variance 1 for *every*
# scheduler, so one table serves all.


# %% id="ex-guess"
def clean_guess(scheduler, output, t, x_t):
    """x0_hat, the clean latents that the output implies; shape of x_t. ValueError for an unknown prediction_type."""
    ### BEGIN SOLUTION
    #: what the U-Net received, and the share of the image in it
    x = scheduler.scale_model_input(x_t, t)
    a = scheduler.alphas_cumprod[int(t)].to(x)
    #: three formulas, by scheduler.config.prediction_type
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (x - (1 - a).sqrt() * output) / a.sqrt()
    if kind == "v_prediction":
        return a.sqrt() * x - (1 - a).sqrt() * output
    if kind == "sample":
        return output
    #: anything else is an error
    raise ValueError(f"expected prediction_type epsilon, v_prediction or sample, got {kind!r}")
    ### END SOLUTION


# %% id="check-guess"
clean_guess = check("11.clean_guess", clean_guess)

# %% [markdown] id="loop-text"
# ## 5 · The loop
#
# ### Exercise 6 · Denoise
#
# ●●●○○ · 10 minutes. For each of the scheduler's timesteps: compute the guided output, take the step.
# `scheduler.step(output, t, x_t)` returns an object with `.prev_sample`. Three lines, and the loop is complete.


# %% id="ex-denoise"
@torch.no_grad()
def denoise(unet, scheduler, x_T, both, guidance):
    """From x_T to x_0 along scheduler.timesteps (which `first_latents` has set); shape of x_T."""
    ### BEGIN SOLUTION
    x_t = x_T
    #: for each t of the scheduler: the guided output, then the step from x_t
    for t in scheduler.timesteps:
        output = guided_output(unet, scheduler, x_t, t, both, guidance)
        x_t = scheduler.step(output, t, x_t).prev_sample
    return x_t
    ### END SOLUTION


# %% id="check-denoise"
denoise = check("11.denoise", denoise)

# %% [markdown] id="ex-pixels-text"
# ### Exercise 7 · To pixels
#
# ●●○○○ · 10 minutes. Latents were multiplied by the *scaling factor* $\kappa$ for training (chapter 09); divide by it
# before decoding. The decoder's output lies in $[-1, 1]$, roughly: some values lie outside, and a `uint8` above 255 wraps
# around to 0.


# %% id="ex-pixels"
@torch.no_grad()
def to_pixels(vae, latents):
    """Whole pixels (batch, height, width, 3), uint8, from latents (batch, channels, side, side)."""
    ### BEGIN SOLUTION
    #: decode without the scaling factor
    pictures = vae.decode(latents / vae.config.scaling_factor).sample
    #: [-1, 1] to [0, 1], clamped, times 255
    pixels = (pictures.float() / 2 + 0.5).clamp(0, 1) * 255
    #: round, make whole, channels last
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
    ### END SOLUTION


# %% id="check-pixels"
to_pixels = check("11.to_pixels", to_pixels)

# %% [markdown] id="by-hand-text"
# **All of it together**, as a function. Is the result the pipeline's picture, for the same seed, with
# every scheduler? (DDPM adds fresh noise at each step, from a generator that the pipeline passes on; see the bonus.)


# %% id="by-hand"
def by_hand(prompt, negative_prompt="", seed=3, steps=20, sampler="unipc", guidance=7.5):
    """The picture (1, height, width, 3) uint8 of the loop that you have written."""
    scheduler = make_scheduler(sampler, pipe.scheduler.config)
    both = encode_both(pipe.tokenizer, pipe.text_encoder, prompt, negative_prompt)
    shape, generator = (1, CHANNELS, SIDE, SIDE), torch.Generator().manual_seed(seed)
    x_T = first_latents(scheduler, steps, shape, generator, pipe.unet.dtype).to(device)
    return to_pixels(pipe.vae, denoise(pipe.unet, scheduler, x_T, both, guidance))


def by_pipeline(prompt, negative_prompt="", seed=3, steps=20, sampler="unipc", guidance=7.5):
    """The same from diffusers' StableDiffusionPipeline."""
    before, pipe.scheduler = pipe.scheduler, make_scheduler(sampler, pipe.scheduler.config)
    picture = pipe(
        prompt,
        negative_prompt=negative_prompt,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    pipe.scheduler = before
    return to_tensor(picture)


# %% id="equal" tags=["static"]
def from_pixels(pixels):
    """Images in [-1, 1], (batch, 3, height, width), from whole pixels (batch, height, width, 3)."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


n = budget(smoke=3, laptop=10, gpu=20)
samplers = [name for name in SCHEDULERS if name != "ddpm"]
ours_, theirs = [], []
for name in samplers:
    ours_.append(from_pixels(by_hand(PROMPT, NEGATIVE, steps=n, sampler=name)))
    theirs.append(by_pipeline(PROMPT, NEGATIVE, steps=n, sampler=name).reshape(ours_[-1].shape))
    gap = (ours_[-1] - theirs[-1]).abs().max().item() * 127.5
    print(f"{name:6} largest difference to the pipeline: {gap:.0f} of 255 grey levels")
    assert gap < 1.5 or pipe.unet.dtype != torch.float32
show(
    plot_pictures(torch.cat(ours_ + theirs), columns=len(samplers), heads=samplers, rows=["by hand", "pipeline"]),
    "Six pictures drawn by the loop of this chapter with six schedulers, five of them a corgi, the last one dark and "
    "blotched; below them the same six pictures drawn by diffusers' pipeline.",
)

# %% [markdown] id="equal-read"
# They are the same, pixel for pixel. (PNDM, the scheduler that v1.5 was published with, overshoots in so few steps with
# this guidance; it is meant for 50.) With `MODEL = "stable diffusion v1.5"` the same cells drive 860
# million parameters, and not a line changes. The package keeps these functions for later chapters.

# %% id="package-equal"
scheduler, shape, half = make_scheduler("euler", pipe.scheduler.config), (2, CHANNELS, SIDE, SIDE), pipe.unet.dtype
x_T = first_latents(scheduler, 4, shape, torch.Generator().manual_seed(0), half).to(device)
mine = denoise(pipe.unet, scheduler, x_T, both, 5.0)
again = denoising.first_latents(scheduler, 4, shape, torch.Generator().manual_seed(0), half).to(device)
packages = denoising.denoise(pipe.unet, scheduler, again, both, 5.0)
assert torch.allclose(mine, packages, atol=1e-4)
assert torch.equal(to_pixels(pipe.vae, mine), denoising.to_pixels(pipe.vae, mine))
print(f"the package's loop gives the same latents {tuple(packages.shape)}")

# %% [markdown] id="film-text"
# ### Watching it
#
# `watch` is the same loop as a generator. Above is $x_t$, below $\hat x_0$ (`clean_guess`), both decoded. The printed
# numbers tell how far each prediction is from the final picture.

# %% id="film" tags=["static"]
scheduler = make_scheduler("unipc", pipe.scheduler.config)
both = encode_both(pipe.tokenizer, pipe.text_encoder, PROMPT)
film_steps = budget(smoke=6, laptop=20, gpu=20)
shape = (1, CHANNELS, SIDE, SIDE)
x_T = first_latents(scheduler, film_steps, shape, torch.Generator().manual_seed(3), pipe.unet.dtype)
stages = list(denoising.watch(pipe.unet, scheduler, x_T.to(device), both, 4.0))
chosen = [stages[round(i * (film_steps - 1) / 5)] for i in range(6)]
noisy = [from_pixels(to_pixels(pipe.vae, stage.x_t)) for stage in chosen]
predicted = [from_pixels(to_pixels(pipe.vae, stage.x0_hat)) for stage in chosen]
heads = [f"after t = {stage.t:.0f}" for stage in chosen]
show(
    plot_pictures(torch.cat(noisy + predicted), columns=6, heads=heads, rows=["$x_t$", r"$\hat x_0$"]),
    "Above, six stages from noise to a corgi on the grass. Below, the predicted clean picture at each: first a blur of "
    "the right colours, then a corgi that comes closer and closer to the final one.",
)
distances = [(x0 - predicted[-1]).abs().mean().item() * 127.5 for x0 in predicted]
print("grey levels from the final picture: " + ", ".join(f"{distance:.0f}" for distance in distances))
if budget(smoke=False, laptop=True, gpu=True):
    assert distances[0] > distances[2] > distances[4]

# %% [markdown] id="wrong-text"
# ### Four failures, to know them by sight
#
# Each is one forgotten detail: the halves swapped; Euler's noise not multiplied by $\sigma_\text{init}$; the U-Net given
# $x_t$ without `scale_model_input`; its $v$ read as $\varepsilon$ (or, with v1.5, the other way round).
#
# **Predict first.** Which of them still draws a corgi?
#
# <details><summary>Answer (after running the cells below)</summary>
# The second and the third draw dogs, and none of the four raises an error. (diffusers logs a warning for the third.)
# Anyone can see that something is wrong with the first and the last. The other two are dangerous: the result is a
# plausible picture, only not <em>the</em> picture, and without the equality test above you would not notice.
# </details>

# %% id="wrong-ways"
from diffusers.utils import logging

logging.set_verbosity_error()  # the library warns of the third one; here we know


class Unscaled:
    """A scheduler that forgets scale_model_input."""

    def __init__(self, scheduler):
        self.inner, self.timesteps = scheduler, scheduler.timesteps

    def scale_model_input(self, x, t):
        return x

    def step(self, output, t, x):
        return self.inner.step(output, t, x)


own_kind = pipe.scheduler.config.prediction_type
other_kind = "epsilon" if own_kind == "v_prediction" else "v_prediction"


def euler(both=both, weaken=False, wrap=lambda scheduler: scheduler, kind=own_kind):
    """Euler's picture in the notebook's number of steps, with something wrong."""
    scheduler = make_scheduler("euler", pipe.scheduler.config)
    scheduler.register_to_config(prediction_type=kind)
    x = first_latents(scheduler, n, shape, torch.Generator().manual_seed(3), pipe.unet.dtype).to(device)
    x = x / scheduler.init_noise_sigma if weaken else x
    return from_pixels(to_pixels(pipe.vae, denoise(pipe.unet, wrap(scheduler), x, both, 7.5)))


# %% id="wrong" tags=["static"]
shown = [euler(), euler(both=both.flip(0)), euler(weaken=True), euler(wrap=Unscaled), euler(kind=other_kind)]
wrongs = ["halves swapped", "noise too weak", "input not scaled", "output misread"]
show(
    plot_pictures(torch.cat(shown), ["right", *wrongs], columns=5),
    "Five pictures: a corgi; a violet blur, drawn away from the prompt since the halves are swapped; nearly the same "
    "corgi, from noise that is too weak; two redder dogs, from an input that is not scaled; and mud, since the output "
    "was misread.",
)
for name, picture in zip(wrongs, shown[1:]):
    off = (picture - shown[0]).abs().mean().item() * 127.5
    print(f"{name:17} {off:.0f} grey levels from the right picture on average")

# %% [markdown] id="img2img-text"
# ### Starting from a picture
#
# The loop need not start from pure noise. Encode a picture, jump to a middle time $t$ with chapter 05's formula, and
# run the rest of the loop with a prompt: this is *image-to-image*. The *strength* is the share of the steps that are
# run: 0 returns the picture, 1 starts from noise. diffusers has a pipeline for it; chapter 12 goes on from here.


# %% id="img2img"
@torch.no_grad()
def from_picture(picture, prompt, strength, steps=20, guidance=4.0, seed=0):
    """Image-to-image: a picture (1, 3, height, width) in [-1, 1], redrawn for the prompt; of the same shape."""
    scheduler, generator = make_scheduler("ddim", pipe.scheduler.config), torch.Generator().manual_seed(seed)
    scheduler.set_timesteps(steps)
    first = steps - int(steps * strength)
    clean = pipe.vae.encode(picture.to(device, pipe.vae.dtype)).latent_dist.sample(generator)
    clean = clean * pipe.vae.config.scaling_factor
    eps = torch.randn(clean.shape, generator=generator, dtype=clean.dtype).to(device)
    scheduler.timesteps = scheduler.timesteps[first:]
    scheduler.set_begin_index(first)
    x_t = scheduler.add_noise(clean, eps, scheduler.timesteps[:1])
    x_0 = denoise(pipe.unet, scheduler, x_t, encode_both(pipe.tokenizer, pipe.text_encoder, prompt), guidance)
    return from_pixels(to_pixels(pipe.vae, x_0))


# %% id="img2img-run" tags=["static"]
from diffusers import StableDiffusionImg2ImgPipeline

original = to_tensor(plain)
in_snow = "a cute corgi puppy sitting in the snow"
strengths = (0.3, 0.6, 0.9)
redrawn = [from_picture(original, in_snow, strength) for strength in strengths]
library = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
library.set_progress_bar_config(disable=True)
library.scheduler = make_scheduler("ddim", pipe.scheduler.config)
same = library(
    in_snow, image=original / 2 + 0.5, strength=0.6, num_inference_steps=20, guidance_scale=4.0,
    generator=torch.Generator().manual_seed(0),
).images[0]  # fmt: skip
gap = (to_tensor(same) - redrawn[1]).abs().max().item() * 127.5
print(f"largest difference to diffusers' image-to-image pipeline: {gap:.0f} of 255 grey levels")
assert gap < 1.5 or pipe.unet.dtype != torch.float32
changes = [(picture - original).abs().mean().item() * 127.5 for picture in redrawn]
print("grey levels from the original: " + ", ".join(f"{s}: {c:.0f}" for s, c in zip(strengths, changes)))
show(
    plot_pictures(torch.cat([original, *redrawn]), ["original", *(f"strength {s}" for s in strengths)], columns=4),
    "A corgi on the grass, and the same picture redrawn for a corgi in the snow with growing strength: at first nearly "
    "unchanged, at last in the snow.",
)

# %% [markdown] id="steps-text"
# ## 6 · Schedulers and steps
#
# "More steps give a better picture." Measure it: the distance of each picture from the one that 200 steps give from the
# same noise.
#
# **Predict first.** By how much does it shrink from 10 to 20 steps, and from 20 to 50?
#
# <details><summary>Answer (after running the cells below)</summary>
# It keeps shrinking, by a factor of two or three each time; but from 20 steps on it is one or two grey levels, which the
# eye hardly sees. Whether the picture shows what was asked for does not depend on such small differences.
# </details>

# %% id="steps-run"
from course_utils.pipelines.png_info import Settings

few = budget(smoke=1, laptop=12, gpu=12)
COUNTS = budget(smoke=(1, 2), laptop=(2, 5, 10, 20, 50), gpu=(2, 5, 10, 20, 50, 100))


def pictures_of(sampler, steps, count=few):
    """Pictures (count, 3, height, width) in [-1, 1] for the prompt, seeds 0, 1, 2, ..."""
    drawn = draw(pipe, Settings(PROMPT, steps=steps, sampler=sampler, guidance=4.0), count)
    return to_tensor([picture for picture, _ in drawn])


limit = pictures_of("unipc", budget(smoke=4, laptop=200, gpu=200))
drawn, distance = {}, {}
for name in ("unipc", "ddim"):
    for k in COUNTS:
        drawn[name, k] = pictures_of(name, k)
        distance[name, k] = (drawn[name, k] - limit).abs().mean().item() * 127.5
    print(f"{name:6} " + ", ".join(f"{k} steps: {distance[name, k]:.1f}" for k in COUNTS), end="")
    print(f" grey levels, mean of {few}")

# %% id="steps-plot" tags=["static"]
figure, (ax, beside) = plt.subplots(1, 2, figsize=(9.6, 3.9), width_ratios=(1, 1.25))
for name, line in (("unipc", "o-"), ("ddim", "s--")):
    ax.plot(COUNTS, [distance[name, k] for k in COUNTS], line, label=name)
ax.set(xlabel="steps", ylabel="distance to 200 steps\n(grey levels)", xscale="log", yscale="log")
ax.set_xticks(COUNTS, [str(k) for k in COUNTS])
ax.minorticks_off()
ax.legend()
row = [drawn["unipc", k][:1] for k in COUNTS] + [limit[:1]]
plot_pictures(torch.cat(row), [f"{k} steps" for k in COUNTS] + ["200 steps"], columns=3, ax=beside)
show(
    figure,
    "Left, the distance to the picture of 200 steps falls with the number of steps; with 20 and 50 unipc "
    "is nearer than ddim. Right, a corgi in 2, 5, 10, 20, 50 and 200 steps: the last ones are hard to tell apart.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert distance["unipc", 50] < distance["unipc", 20] < distance["unipc", 10]

# %% [markdown] id="steps-judge-text"
# Being nearer to the limit is not the same as being *better*. For that the course has the judge of chapter 09, a detector
# that checks whether a picture shows what its caption says. (It was trained on the picture book only.)

# %% id="steps-judge"
from course_utils.data import picture_book as book
from course_utils.metrics.pictures import adherence
from course_utils.recipes import load_judge

if MODEL == "picture book":
    judge, caption = load_judge(), book.Caption(PROMPT, (book.Thing("corgi", pose="sitting"),), place="grass")
    follow = {k: adherence(judge, drawn["unipc", k].cpu(), [caption] * few) for k in COUNTS}
    shares = ", ".join(f"{k} steps {value:.2f}" for k, value in follow.items())
    print(f"share of {few} pictures that show what was asked for: {shares}, 200 steps ", end="")
    print(f"{adherence(judge, limit.cpu(), [caption] * few):.2f}")

# %% [markdown] id="memory-text"
# ## 7 · Making it fit
#
# Memory is used for two things: **weights**, which stay, and **activations**, which exist while a part runs. There are
# four ways to save, and each has a price:
#
# | what | in diffusers | saves | costs |
# |:--|:--|:--|:--|
# | float16, bfloat16 | `StableDiffusionPipeline.from_pretrained(..., dtype=torch.float16)` | half of both | precision; time on processors without fast half precision |
# | slicing: decode images one by one | `pipe.vae.enable_slicing()` | activations of the decoder, with several images | next to nothing |
# | tiling: decode in overlapping tiles | `pipe.vae.enable_tiling()` | activations of the decoder, with large images | time; faint seams |
# | offload: weights wait in main memory | `pipe.enable_model_cpu_offload()`, `pipe.enable_sequential_cpu_offload()` | weights on the GPU | time for copying |
#
# Now measure them on the machine at hand:

# %% id="formats"
import copy

from course_utils.machine.memory import measure

print(describe_machine())


@torch.no_grad()
def in_format(dtype, calls):
    """The U-Net's output for a fixed input in a number format, and what it took."""
    unet = copy.deepcopy(pipe.unet).to(dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, CHANNELS, SIDE, SIDE, generator=generator).to(device, dtype)
    unet(x, 500, both.to(dtype))  # the first call sets things up: not counted
    with measure(device) as took:
        for _ in range(calls):
            output = unet(x, 500, both.to(dtype)).sample
    return output.float(), took


# %% id="formats-run"
calls = budget(smoke=1, laptop=3, gpu=10)
exact, _ = in_format(torch.float32, 1)
errors = {}
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    output, took = in_format(dtype, calls)
    errors[dtype] = ((output - exact).norm() / exact.norm()).item()
    print(f"{str(dtype):14} weights {weight_bytes(pipe.unet, dtype) / 2**20:7.1f} MiB, ", end="")
    print(f"{took.seconds / calls:.3f} s a call, relative error {errors[dtype]:.5f}")
    assert errors[dtype] < {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.01}[dtype]
assert 4 < errors[torch.bfloat16] / errors[torch.float16] < 16

# %% [markdown] id="formats-read"
# bfloat16 keeps 8 bits of precision, float16 keeps 11, so bfloat16's error is about eight times as large. What bfloat16
# offers is *range*, which training needs and drawing does not. So on a GPU the course draws in float16. On a CPU it
# uses bfloat16 if that wins a short race against float32: processors without instructions for half precision only
# emulate it, and are slower.
#
# Now the decoder. Beside the measured peak is the count on the `meta` device, which needs no memory at all.

# %% id="decoder"
from diffusers import AutoencoderKL

with torch.device("meta"):
    bare_vae = AutoencoderKL.from_config(pipe.vae.config)


@torch.no_grad()
def decode_cost(pictures, side, way):
    """Decode random latents in one of three ways; return the images, what it took, and the counted bytes."""
    for vae in (pipe.vae, bare_vae):
        vae.use_slicing, vae.use_tiling = way == "sliced", way == "tiled"
    z = torch.randn(pictures, CHANNELS, side, side, generator=torch.Generator().manual_seed(1))
    z = z.to(device, pipe.vae.dtype)
    with measure(device) as took:
        decoded = pipe.vae.decode(z).sample.cpu()
    counted = peak_activations(bare_vae.decode, z.float().to("meta"))
    pipe.vae.use_slicing = pipe.vae.use_tiling = False
    return decoded.float(), took, counted


many, wide = budget(smoke=2, laptop=16, gpu=16), SIDE * budget(smoke=2, laptop=4, gpu=2)
ways = {}
for key in (many, SIDE, "whole"), (many, SIDE, "sliced"), (1, wide, "whole"), (1, wide, "tiled"):
    number, side, way = key
    ways[key] = decode_cost(number, side, way)
    _, took, counted = ways[key]
    print(f"{number:2} of {side * pipe.vae_scale_factor} pixels, {way:6}: {took}; counted {counted / 2**20:.0f} MiB")

# %% [markdown] id="decoder-read"
# The count is lower than the peak, because convolutions use scratch memory that belongs to no tensor. That is why plans
# keep a margin. But it shows correctly which way helps. Does the *picture* stay the same?

# %% id="decoder-same"
whole, sliced = ways[many, SIDE, "whole"][0], ways[many, SIDE, "sliced"][0]
print(f"slicing changes a value by {(whole - sliced).abs().max():.1e} at most")
large, tiled = ways[1, wide, "whole"][0], ways[1, wide, "tiled"][0]
seam = (large - tiled).abs()
print(f"tiling changes a value by {seam.max():.3f} at most, {seam.mean():.4f} on average")
assert (whole - sliced).abs().max() < 1e-3 or pipe.vae.dtype != torch.float32
assert ways[many, SIDE, "sliced"][2] < 0.6 * ways[many, SIDE, "whole"][2]
assert ways[1, wide, "tiled"][2] < 0.5 * ways[1, wide, "whole"][2]

# %% [markdown] id="tiling-note"
# Note what tiling does *not* do: a tile is as large as an image of the trained size, so at 512 pixels
# `pipe.vae.enable_tiling()` changes nothing for v1.5. It is for larger images. And **attention slicing**
# (`pipe.enable_attention_slicing()`), which old guides recommend: attention of 4,096 latent places with each other is a
# matrix of 16 million numbers per head, but today's fused attention never stores it. How much would it be otherwise?

# %% id="attention"
inputs = [torch.empty(shape, device="meta") for shape in ((2, 4, 64, 64), (), (2, 77, 768))]  # x, t, both
fused = peak_activations(bare["unet"], *inputs)
matrix = peak_activations(bare["unet"], *inputs, fused_attention=False)
print(f"activations of v1.5's U-Net, float32: {gib(fused)} with fused attention, {gib(matrix)} with the matrix")
assert matrix > 5 * fused

# %% [markdown] id="calls-text"
# Method names change from version to version. All calls that this chapter names exist in the installed one:

# %% id="calls"
import diffusers

calls_of = {
    diffusers.StableDiffusionPipeline: [
        "enable_model_cpu_offload",
        "enable_sequential_cpu_offload",
        "enable_attention_slicing",
    ],
    diffusers.AutoencoderKL: ["enable_slicing", "enable_tiling"],
}
for owner, names in calls_of.items():
    assert all(callable(getattr(owner, name)) for name in names)
print(f"diffusers {diffusers.__version__} has them all")

# %% [markdown] id="ex-need-text"
# ### Exercise 8 · What does it need?
#
# ●●○○○ · 10 minutes. Parts run one after another: text encoder, U-Net (many times), VAE. All values are bytes, in
# dictionaries by the part's name. `layers` holds the weights of each part's largest layer.
#
# - `"none"`: all weights are on the device all the time.
# - `"model"`: only the part that is running is there.
# - `"sequential"`: only the layer that is running is there (with the part's activations).


# %% id="ex-need"
def memory_need(weights, work, layers, offload):
    """Bytes needed on the device; weights, work (activations) and layers: bytes for each part, by name."""
    ### BEGIN SOLUTION
    #: all weights, and the activations of the part that needs most
    if offload == "none":
        return sum(weights.values()) + max(work.values())
    #: for each part its weights and its activations; the largest sum
    if offload == "model":
        return max(weights[name] + work[name] for name in weights)
    #: the same with the largest layer in the place of all weights
    return max(layers[name] + work[name] for name in weights)
    ### END SOLUTION


# %% id="check-need"
memory_need = check("11.memory_need", memory_need)

# %% [markdown] id="plan-text"
# Now the decision is arithmetic: list the options from the fastest to the most frugal, and take the first that fits.
# `plan_memory` does that from given facts alone, so you can also use it for machines that you do not have.

# %% id="plan"
from course_utils.machine.devices import GIBIBYTE
from course_utils.machine.memory_plan import Machine, look_at_machine, plan_memory
from course_utils.pipelines.stable_diffusion import v1_5_parts

parts = v1_5_parts()  # parameters, activations and largest layer of each part, counted as above
weights = {name: 2 * part.parameters for name, part in parts.items()}  # float16: two bytes a number
work = {name: part.work / 2 for name, part in parts.items()}  # counted in float32
layers = {name: 2 * part.layer for name, part in parts.items()}
needs = [f"{way} {gib(memory_need(weights, work, layers, way))}" for way in ("none", "model", "sequential")]
print("float16: " + ", ".join(needs))

# %% [markdown] id="plan-machines"
# And for six machines:

# %% id="plan-run"
for free, device_name, half in (
    (23, "cuda", "float16"),
    (7.2, "cuda", "float16"),
    (3.3, "cuda", "float16"),
    (1.5, "cuda", "float16"),
    (5, "mps", "float32"),
    (2, "cpu", "float32"),
):
    plan = plan_memory(parts, Machine(device_name, round(free * GIBIBYTE), half, 12 * GIBIBYTE))
    option = plan.tried[-1][0] if plan.fits else "does not fit"
    print(f"{device_name:4} {free:4} GiB free: {option}, {gib(plan.need)}")

# %% [markdown] id="plan-mine-text"
# And for this machine, with the reasons:

# %% id="plan-mine"
mine = plan_memory(parts, look_at_machine(device))
print(f"Stable Diffusion v1.5 on this machine ({device}):\n{mine}")
assert not mine.attention_slicing

# %% [markdown] id="widget-text"
# **Predict first, then move the slider.** With 7.5 GiB free, how many images at once fit before the decoder has to go
# one by one? With how much free memory does a single image of 1024 pixels fit without offload?
#
# <details><summary>Answer (after running the cells below)</summary>
# The still pictures give bounds: ten images do not fit into 7.5 GiB with a whole decoder, but do with slicing; an image
# of 1024 pixels fits into 5 GiB, with tiling. The sliders find the exact limits: look for the first setting at which the
# green bar says "sliced", or "model".
# </details>

# %% id="filmstrip" tags=["static"]
from course_utils.widgets import explore, filmstrip, plan_explorer

explorer = plan_explorer(parts)
filmstrip(explorer, [{"free": 12.0}, {"free": 3.5}, {"pictures": 10}, {"pixels": "1024", "free": 5.0}])

# %% [markdown] id="widget-how"
# Green is what is chosen; grey was considered first and is too large. "All there": all weights on the device. "Model"
# and "sequential" are the two kinds of offload.

# %% id="explore"
explore(explorer)

# %% [markdown] id="offload-text"
# **Offload, measured.** It moves weights between two memories, so it can be tried only where there are two.

# %% id="offload"
if device.type == "cuda":
    mover = load_picture_book()
    mover.enable_model_cpu_offload(device=device)
    for name, what in (("all on the GPU", load_picture_book(device=device)), ("model offload", mover)):
        draw(what, Settings(PROMPT, steps=2))
        with measure(device) as took:
            draw(what, Settings(PROMPT, steps=10))
        print(f"{name}: {took}")
else:
    print(f"On {device} there is one memory only: nothing to offload to, and nothing to measure here.")

# %% [markdown] id="shrink-text"
# ### When a plan was too optimistic
#
# Other programs use memory too. So a batch that fitted yesterday may fail today. `in_batches_that_fit` halves the batch
# when memory runs out, keeps what is done, and continues. Here a function plays the part of a GPU with room for three
# pictures:

# %% id="shrink"
from course_utils.machine.memory import in_batches_that_fit


def small_gpu(seeds):
    """Draw the squares of seeds, unless there are more than three."""
    if len(seeds) > 3:
        print(f"{len(seeds)} at once: out of memory")
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    print(f"{len(seeds)} at once: drawn")
    return [seed**2 for seed in seeds]


assert in_batches_that_fit(small_gpu, list(range(8)), batch_size=8) == [seed**2 for seed in range(8)]

# %% [markdown] id="real-text"
# ## 8 · The real one
#
# `load_stable_diffusion()` does what this chapter taught: it looks at the machine, plans, loads the half-precision
# files where half precision is used, puts the parts in place, and reports what it chose and why. It reads safetensors
# only: a `.ckpt` is a pickle, and opening a pickle can run any program. If something is missing, you get one sentence:

# %% id="refused"
from course_utils.pipelines.stable_diffusion import StableDiffusionUnavailable

for wish in ("./weights-that-are-not-there", "v1-5-pruned-emaonly.ckpt"):
    try:
        load_stable_diffusion(wish)
    except StableDiffusionUnavailable as error:
        print(error, end="\n\n")

# %% [markdown] id="real-how"
# ```python
# pipe = load_stable_diffusion()                                    # from the Hub, pinned revision
# pipe = load_stable_diffusion("my/folder")                         # diffusers' layout, whole or fp16 variant
# pipe = load_stable_diffusion("v1-5-pruned-emaonly.safetensors",   # a single file: the original names
#                              config="my/folder")                  # configurations and tokenizer from here
# ```
#
# **No GPU?** *Google Colab* and *Kaggle* lend one. On Colab: Runtime, Change runtime type, T4 GPU. On Kaggle:
# Settings, Accelerator, GPU (and Internet on, which requires a verified phone number). Then, in a cell:
# `!git clone` of this course, `%cd` into it, `%pip install .`, restart, open this chapter there and set `MODEL`. The
# first run downloads 2.7 GB. The free tiers cost nothing but have limits on time, which change; look them up. *Not tried:*
# this page was built without a GPU and without the weights, so the way to Colab is as its help pages
# describe it, and loading was tested on a small model of the same layout.

# %% [markdown] id="licence"
# ### What the licence says
#
# The weights of v1.5 are under *CreativeML OpenRAIL-M*. You may use and sell what you draw, and the makers claim no
# rights in it. You may pass the weights on, also modified, *with the same restrictions and a copy of the licence*. And
# there is a list of forbidden uses, among them: breaking the law, harming minors, false
# information made to harm, defaming or harassing people, personal data used to harm, medical advice, fully automated
# decisions that affect someone's rights. Read attachment A before you publish. (The picture-book model was
# trained on drawings made by this course's own program.)

# %% [markdown] id="safety-text"
# ### The safety checker
#
# It is a CLIP image encoder applied to the *finished* image. It compares its embedding with 17 undisclosed concept
# vectors (and 3 for special care), and replaces the image by a black one if a cosine is above that concept's threshold. It
# does not read prompts, and it errs in both directions. Build two, with the judge's features in place of CLIP's: one
# that should block *night scenes*, one that should block *cars*.
#
# **Predict first.** Which is easier?
#
# <details><summary>Answer (after running the cell below)</summary>
# Night: it fills the page, and one direction in feature space separates it from everything else. Cars hardly differ from
# the rest: these features vary mostly with place and style. A checker can only block what its encoder represents, and
# wherever the classes overlap, every threshold blocks some innocent images or lets others pass.
# </details>

# %% id="safety"
from course_utils.metrics.pictures import judge_features, one_thing_pages

pages = one_thing_pages(budget(smoke=120, laptop=400, gpu=400), seed=5)
features = judge_features(book.pictures(pages, size=32))
half = len(pages) // 2  # the first half makes the concept vectors, the second half is checked
embeddings = torch.nn.functional.normalize(features - features[:half].mean(0), dim=1)
for name, shows in (
    ("night", [page.place == "night" for page in pages]),
    ("car", [page.things[0].kind == "car" for page in pages]),
):
    shows = torch.tensor(shows)
    concept = torch.nn.functional.normalize(embeddings[:half][shows[:half]].mean(0), dim=0)
    cosines = embeddings[half:] @ concept
    for threshold in (0.1, 0.3, 0.5):
        black = (cosines > threshold).float()
        print(
            f"{name:5} above {threshold}: {black[shows[half:]].mean():4.0%} of those {shows[half:].sum():2} blocked, ",
            end="",
        )
        print(f"{black[~shows[half:]].mean():4.0%} of the other {(~shows[half:]).sum()}")

# %% [markdown] id="safety-read"
# So a checker is a coarse filter. It is on by default: `load_stable_diffusion` keeps it, for a single file too if
# the `config` folder has it, and says so if there is none. Leave it on if you show images to others.

# %% id="safety-mine"
print(f"the safety checker of this pipeline: {type(pipe.safety_checker).__name__}")
if pipe.safety_checker is None:
    print("The picture book has none: there is nothing in its world that needs to be blocked.")

# %% [markdown] id="watermark-text"
# ### The watermark
#
# The first release of Stable Diffusion wrote an invisible mark into each image, so that generated images can be told
# from photographs. diffusers' pipeline for v1.5 writes none (the one for SDXL does if a package is installed). The idea
# takes a few lines: add a faint pattern that only a key can make; detect it by correlation. Does it survive JPEG?

# %% id="watermark"
import io

import numpy
from PIL import Image


def pattern(key, shape):
    """Plus and minus one, in blocks of 2x2 pixels, from a key."""
    small = torch.randint(0, 2, (shape[0] // 2, shape[1] // 2), generator=torch.Generator().manual_seed(key)) * 2.0 - 1
    return small.repeat_interleave(2, 0).repeat_interleave(2, 1)


def found(picture, key):
    """How surely the key's pattern is in a picture: correlation, in standard deviations."""
    grey = torch.from_numpy(numpy.array(picture.convert("L"))).float()
    grey = grey - torch.nn.functional.avg_pool2d(grey[None], 5, 1, 2)[0]  # without what varies slowly
    mark = pattern(key, grey.shape)
    return ((grey * mark).sum() / (grey.norm() * 2)).item()  # blocks of four pixels vary together


faint = 5 * pattern(42, (plain.height, plain.width))[..., None]
levels = torch.from_numpy(numpy.array(plain)).float() + faint
marked = Image.fromarray(levels.round().clamp(0, 255).byte().numpy())
file = io.BytesIO()
marked.save(file, "JPEG", quality=75)
jpeg = Image.open(file)
smaller = marked.resize((marked.width * 3 // 4, marked.height * 3 // 4)).resize(marked.size)

# %% id="watermark-found" tags=["static"]
versions = {"not marked": plain, "marked": marked, "as JPEG": jpeg.convert("RGB"), "made smaller": smaller}
scores = {name: (found(picture, 42), found(picture, 7)) for name, picture in versions.items()}
for name, (right, wrong) in scores.items():
    print(f"{name:13} right key {right:5.1f}, wrong key {wrong:5.1f}")
titles = [f"{name}: {right:.1f}" for name, (right, _) in scores.items()]
show(
    plot_pictures(to_tensor(list(versions.values())), titles, columns=4),
    "The corgi four times: not marked, marked, marked and saved as JPEG, marked and made smaller. The mark is a faint "
    "grain; the key's correlation is in the titles.",
)
assert scores["marked"][0] > scores["not marked"][0] + 3

# %% [markdown] id="watermark-read"
# In this one picture the mark survives both. It helps to label generated images honestly, but it does not stop anyone who
# wants to remove it. Chapter 15 measures that.
#
# ### A picture that remembers
#
# What you *can* always keep is how a picture was made. The course writes it into the PNG, in the form of Stable
# Diffusion Web UI, and can draw it again from that.

# %% id="png-info"
import tempfile
from pathlib import Path

from course_utils.pipelines.png_info import format_parameters, read_png, write_png

settings = Settings(PROMPT, steps=budget(smoke=2, laptop=10, gpu=20), seed=3, sampler="dpm++")
picture, made = draw(pipe, settings)[0]
with tempfile.TemporaryDirectory() as folder:
    write_png(Path(folder) / "corgi.png", picture, made)
    remembered = read_png(Path(folder) / "corgi.png")
print(format_parameters(remembered))
again, _ = draw(pipe, remembered)[0]
assert (to_tensor(again) - to_tensor(picture)).abs().max() <= 2 / 255

# %% [markdown] id="elsewhere"
# ## 9 · What you will read elsewhere
#
# **"`pipe(prompt)["sample"][0]`"** and **"`runwayml/stable-diffusion-v1-5`"**: see the beginning of this page. The field
# is `.images`, and the weights are at the mirror.
#
# **"More steps, more quality."** Section 6 again, in a line. The distance to the limit falls, but the share of pictures
# that show what was asked for changes no more:

# %% id="elsewhere-steps"
saved = {k: distance["unipc", k] for k in COUNTS}
print("unipc, grey levels from 200 steps: " + ", ".join(f"{k}: {value:.1f}" for k, value in saved.items()))
if budget(smoke=False, laptop=True, gpu=True):
    assert saved[20] < 0.5 * saved[5] and saved[20] - saved[50] < saved[5] - saved[20]
    print(f"steps 5 to 20 gain {saved[5] - saved[20]:.1f}, the 30 steps after that {saved[20] - saved[50]:.1f}")
    if MODEL == "picture book":
        print(f"share that follows the prompt: 20 steps {follow[20]:.2f}, 50 steps {follow[50]:.2f}, n = {few}")
        assert abs(follow[50] - follow[20]) < 0.2

# %% [markdown] id="elsewhere-4k"
# **"'4k resolution' makes the picture sharper."** It has the same number of pixels; the first example asserts it. To have
# more, draw large (memory: section 7) or enlarge (chapter 09's cascade). **"Stable Diffusion is a transformer."**
# Section 1: its denoiser is a U-Net, two thirds convolutions, with transformer blocks inside. **"The prompt sets where
# the picture starts."** Same seed, two prompts, the start:

# %% id="elsewhere-start"
shape = (1, CHANNELS, SIDE, SIDE)
starts = []
for _ in (PROMPT, "a blue car at night"):
    scheduler = make_scheduler("ddim", pipe.scheduler.config)
    starts.append(first_latents(scheduler, 20, shape, torch.Generator().manual_seed(3)))
assert torch.equal(starts[0], starts[1])
print("x_T for two prompts: equal; the text has not been used yet")

# %% [markdown] id="next"
# ## The failure that comes next
#
# You like the corgi, but it should sit in the snow. Same seed, one word changed:

# %% id="next-run" tags=["static"]
n_next = budget(smoke=3, laptop=20, gpu=20)
places = ["on the grass", "in the snow", "on the beach", "at night"]
row = []
for place in places:
    row.append(from_pixels(by_hand(f"a cute corgi puppy sitting {place}", steps=n_next, seed=11, guidance=4.0)))
row = torch.cat(row)
show(
    plot_pictures(row, places, columns=4),
    "Four pictures from the same noise for a corgi in four places: the place changes, and so do details of the dog.",
)
change = [(row[i] - row[0]).abs().mean().item() * 127.5 for i in (1, 2, 3)]
print("average change of a pixel, in grey levels: " + ", ".join(f"{p} {c:.0f}" for p, c in zip(places[1:], change)))

# %% [markdown] id="next-read"
# The dog changed too. A prompt steers the whole picture, from the first step. To change one thing and keep the rest you
# need other means: start from a picture (as above), paint inside a mask, mix prompts, or teach the model a new word.
# Chapter 12 does.

# %% [markdown] id="recap"
# ## Recap
#
# | equation or idea | code |
# |:--|:--|
# | $c_-$, $c_+$: (2, tokens, features) | `encode_both(tokenizer, text_encoder, prompt, negative_prompt)` |
# | $x_T = \sigma_\text{init}\,\varepsilon$ | `first_latents(scheduler, steps, shape, generator)` |
# | $o_- + w\,(o_+ - o_-)$ | `guided_output(unet, scheduler, x_t, t, both, guidance)` |
# | $\hat x_0$ by `prediction_type` | `clean_guess(scheduler, output, t, x_t)` |
# | $x_T \to x_0$ | `denoise(unet, scheduler, x_T, both, guidance)` |
# | $x_0 / \kappa \to$ pixels | `to_pixels(vae, latents)` |
# | weights + largest activations | `memory_need(weights, work, layers, offload)` |
#
# Five sentences to remember: The scheduler decides times, strength of noise, scaling and the meaning of the output. The
# negative half comes first. The number of pixels is the latents' side times $f$. More steps help only up to a point.
# Weights stay in memory and activations do not: count both before you load.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. With guidance 1 the negative half cancels out. What does diffusers do, and what
# does that say about the price of guidance?</summary>
# It leaves the half out for w of 1 or less, so guidance doubles the work of the U-Net. (That is why w below 1 is not
# available there, and why distilled models that need no guidance take half the time per step.)
# </details>
# <details><summary>2. A friend's GPU has 4 GiB. The weights in float16 are 2.6 GiB. Why does the plan still say model
# offload?</summary>
# Not all of the memory is free, half a GiB is kept for kernels, and the decoder's activations and scratch memory are
# needed on top. With offload only the largest part counts: the U-Net.
# </details>
# <details><summary>3. The same seed gives another picture on your GPU than in a blog post with the same prompt,
# scheduler and steps. Name three reasons.</summary>
# Noise drawn on the GPU differs from noise drawn on the CPU; the spacing of the timesteps (leading or trailing) is a
# setting that posts leave out; and half precision rounds every step. (The noise itself hardly depends on the format: in
# float16 it is float32's, rounded.)
# </details>
#
# **Papers** Latent diffusion: Rombach et al., [arXiv:2112.10752](https://arxiv.org/abs/2112.10752). Guidance: Ho and
# Salimans, [arXiv:2207.12598](https://arxiv.org/abs/2207.12598). CLIP: Radford et al.,
# [arXiv:2103.00020](https://arxiv.org/abs/2103.00020). Image-to-image by noising: Meng et al., SDEdit,
# [arXiv:2108.01073](https://arxiv.org/abs/2108.01073). Fused attention: Dao et al.,
# [arXiv:2205.14135](https://arxiv.org/abs/2205.14135). The safety checker taken apart: Rando et al.,
# [arXiv:2210.04610](https://arxiv.org/abs/2210.04610). The licence:
# [CreativeML OpenRAIL-M](https://huggingface.co/spaces/CompVis/stable-diffusion-license).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: DDPM, equal too
#
# We left DDPM out because its steps add noise. `scheduler.step` takes a `generator`; the pipeline passes on the one
# that drew $x_T$. So *one* generator has to serve both, in this order:

# %% id="bonus-run"
scheduler, generator = make_scheduler("ddpm", pipe.scheduler.config), torch.Generator().manual_seed(3)
both = encode_both(pipe.tokenizer, pipe.text_encoder, PROMPT)
x_t = first_latents(scheduler, n, shape, generator, pipe.unet.dtype).to(device)
for t in scheduler.timesteps:
    output = guided_output(pipe.unet, scheduler, x_t, t, both, 7.5)
    x_t = scheduler.step(output, t, x_t, generator=generator).prev_sample
gap = (from_pixels(to_pixels(pipe.vae, x_t)) - by_pipeline(PROMPT, steps=n, sampler="ddpm")).abs().max().item() * 127.5
print(f"ddpm: largest difference to the pipeline {gap:.0f} of 255 grey levels")
assert gap < 1.5 or pipe.unet.dtype != torch.float32
