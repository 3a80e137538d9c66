# %% [markdown] id="title"
# # 16 · A studio, and six uses
#
# In fifteen chapters you have built the parts of a program that draws. Here you put them together: first as a studio in
# the browser, as users of Stable Diffusion Web UI know it, and then for six kinds of work: art, games, virtual worlds,
# multimedia, shops and science. For each of them you measure whether it works, and see where it does not.
#
# ![The studio in a browser: prompts, tabs and settings at the left; at the right a white cat in watercolour and three smaller ones](../chapters/figures/studio.png)
#
# **After this chapter you can**
# 1. name, for each control of a drawing program, the equation behind it, and say what a weight such as (word:1.3) changes;
# 2. make tiles without seams, panoramas wider than the model's page, scenes with depth and films, and measure seams,
#    repetition and flicker;
# 3. keep given pixels to the bit while all around them is drawn;
# 4. fill in an incomplete measurement with a model as prior, with intervals that hold the truth as often as they claim, and
#    say what such an image is worth.
#
# **Time** about four and a half hours, nearly two of them for the nine exercises. All cells together run in about ten minutes on
# one core of a CPU.
# **You need** chapters 07 (samplers), 09 (the judge), 10 (guidance, the sampling loop), 11 (notes in PNG files), 12
# (image to image, masks, line drawings) and 14 (the few-step student).

# %% id="set-up"
import math
import re
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from course_utils.data import picture_book as book
from course_utils.diffusion import objectives, samplers
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.models.judge import read
from course_utils.pipelines import animation, editing
from course_utils.plotting import plot_pictures, show, use_style

use_style()
plt.rcParams["savefig.dpi"] = 72  # many images: smaller, so that the notebook stays small
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $x$ | `pages` | images | (batch, 3, 64, 64) |
# | $x_0$, $x_t$, $x_T$ | `x0`, `x_t`, `x_T` | clean latents, noisy latents, the noise that drawing starts from | (batch, 8, 16, 16) |
# | $\hat x_0$ | `x0_hat` | the clean latents that a prediction implies | as `x_t` |
# | $x_\text{earlier}$ | `x_earlier` | the latents after a step, at an earlier time | as `x_t` |
# | $t$ | `t` | time: the noise level | a number |
# | $\bar\alpha_t$ | `alpha_bar` | the share of the signal's variance that is left at time $t$ | (1000,) |
# | $\varepsilon$ | `noise(seeds)` | standard normal noise | as `x_t` |
# | $\hat\varepsilon$ | `eps` | a prediction of it | as `x_t` |
# | $\eta$ | `1.0` | DDIM's share of fresh noise | a number |
# | $c$ | `cond` | hidden states of a prompt, as the U-Net's condition | (batch, 32, 128) |
# | $c_a$, $c_b$ | `corner[a]`, `corner[b]` | those of two prompts | (32, 128) |
# | $\xi$ | `xi` | how far along the way from one noise, or from one prompt, to another | a number |
# | $H$, $H'$ | `hidden` | hidden states: one vector for each token; the same, weighted | (chunks, tokens, width) |
# | $\text{weight}_j$ | `weights[0, j]` | the weight of token $j$ | a number |
# | $n$ | | pixels along one side | a number |
# | $\text{col}_j$ | `pictures[..., j]` | column $j$ of an image | (batch, 3, height) |
# | $\text{step}_j$ | `steps[:, j]` | the mean difference of columns $j$ and $j + 1$ | (batch,) |
# | $\text{in}_j$, $\text{out}_j$, $\text{tap}_i$ | | input and output of a convolution in one dimension, and its weights | numbers |
# | $\hat\varepsilon^{(i)}$ | `parts[i]` | the noise that is predicted in window $i$ | (batch, 8, 16, 16) |
# | $\text{start}_i$ | `starts[i]` | the first column of window $i$ | a number |
# | $\text{blend}_j$ | `weights[j]` | how much column $j$ of a window counts | a number |
# | $\text{layer}$, $\text{cover}$ | `layer.picture`, `layer.cover` | the image of a layer; 1 where it hides what is behind it | (1, 3, 64, 64), (1, 1, 64, 64) |
# | $\text{depth}$, $\text{camera}$ | `layer.depth`, `camera` | from 0, far, to 1, near; how far the camera has moved | numbers |
# | $\text{scene}$ | `out` | the layers, laid on each other | (1, 3, 64, 64) |
# | $\mathcal{I}$ | `measure` | what an instrument makes of an image, linear | |
# | $y_\text{obs}$ | `y`, `measured` | what it has measured, with noise | (batch, ...) |
# | $\sigma_y$ | `NOISE` | the standard deviation of the measurement's noise | a number |
# | $p(\cdot)$ | | a probability density | |
# | $\text{dist}$ | `r` | how far the image of $\hat x_0$ is from the measurement | (batch,) |
# | $\text{floor}$ | `floor` | the distance that noise alone makes | a number |
# | $\text{pull}$ | `pull` | how large a share of the distance one step takes away | a number |
# | $\text{mean}$, $\text{spread}$ | `mean`, `spread` | mean and standard deviation of several samples, for each pixel and colour | (batch, 3, 64, 64) |
# | $\text{width}$ | `width` | half the length of an interval, in units of the spread | a number |

# %% [markdown] id="parts-text"
# The parts are those of chapters 10 and 12. `draw` samples images with the solver of chapter 07, from one noise for each
# seed; `prompts` may be texts or hidden states, and `drawing` is a line drawing for the ControlNet. Files go to a folder
# that is made for this run.

# %% id="parts"
from course_utils.models.control import steered
from course_utils.pipelines.control import load_control
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.recipes import load_judge
from course_utils.text import tokens

pipe, judge, STEPS = load_picture_book(device=device), load_judge(), budget(smoke=2, laptop=10, gpu=20)
controlnet, alpha_bar = load_control(pipe).controlnet, pipe.scheduler.alphas_cumprod.to(device)
times = samplers.trailing_times(len(alpha_bar), STEPS)
ENOUGH = budget(smoke=False, laptop=True, gpu=True)  # are there enough images for claims about quality?
FOLDER = Path(tempfile.mkdtemp())  # Path("pictures") would keep the files beside the notebook


def encode(prompts):
    """The hidden states of a list of prompts: (n, 32, 128)."""
    return torch.no_grad()(tokens.encode)(pipe.tokenizer, pipe.text_encoder, prompts)


def noise(seeds, width=16):
    """One noise for each seed: (n, 8, 16, width)."""
    one = [torch.randn(8, 16, width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(one).to(device)


# %% id="draw"
def painter(drawing=None):
    """model(x_t, t, cond) -> predicted noise; with line drawings (n or 1, 3, 64, 64), by the ControlNet."""
    unet = pipe.unet if drawing is None else steered(pipe.unet, controlnet, drawing.to(device))
    return torch.no_grad()(lambda x_t, t, c: objectives.eps_from_v(x_t, unet(x_t, t, c).sample, t, alpha_bar))


def draw(prompts, seeds, scale=4.0, drawing=None):
    """Images (n, 3, 64, 64) in [-1, 1], on the CPU, one for each prompt (or its hidden states) and seed."""
    cond = encode(prompts) if isinstance(prompts, list) else prompts
    model = samplers.guided(painter(drawing), encode([""]), scale)
    drawn = samplers.finish(samplers.dpm_solver(model, noise(seeds), alpha_bar, times, cond=cond))
    return editing.decode_latents(pipe, drawn).cpu()


def interval(values):
    """The mean and its 95% interval, ± 1.96 standard errors, in words."""
    return f"{values.mean():.2f} ± {1.96 * values.std() / len(values) ** 0.5:.2f}"

