# %% [markdown] id="title"
# # 04 · Networks that draw
#
# From here to chapter 12, one kind of network does the drawing, in Stable Diffusion too: it takes an image and outputs
# an image of the same size. This chapter takes it apart into six components, builds each by hand, and puts them
# together again. The result is the *U-Net*.
#
# ![An astronaut's portrait: clean, with noise, restored by a U-Net, and, blurred, restored by another that was trained
# without skip connections.](../chapters/figures/04_restored.png)
#
# **After this chapter you can**
# 1. compute the output size, the parameters and the multiplications of a convolution, and avoid checkerboards;
# 2. write attention in three lines, read its maps, and work out how much memory it needs;
# 3. build a U-Net, explain each of its shapes, and measure what its skip connections carry.
#
# **Time** 80 minutes of reading, 105 of exercises; all cells take three to four minutes on a CPU, less on a GPU. **You
# need** chapters 01 to 03, which used convolutions as tools: here you look inside them.

# %% id="set-up"
import math

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from course_utils.data import digits, photos, picture_book
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.models import attention as attending
from course_utils.models import blocks
from course_utils.plotting import LivePlot, plot_pictures, show, use_style

use_style()
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | meaning | shape |
# |:--|:--|:--|:--|
# | $x$ | `x` | a batch of images, or what a layer computed from them | (batch, channels, height, width) |
# | $n$ | `size`, `side` | pixels along one side | a number |
# | $C_\text{in}, C_\text{out}$ | `channels`, `out` | channels of a layer's input and output | numbers |
# | $k, s, p, r$ | `kernel, stride, padding, dilation` | settings of a convolution, along one side | numbers |
# | $\theta$ | `weight` | the weights of a convolution | (channels out, channels in, k, k) |
# | $Q, K, V$ | `q, k, v` | queries, keys, values | (..., queries, d), (..., keys, d), (..., keys, width of a value) |
# | $d$ | `q.shape[-1]` | the width of a query and of a key | a number |
# | $A$ | `weights` | the *attention map*: how much each query attends to each key | (..., queries, keys) |
# | $x_t$ | `x_t` | the images that a U-Net is given; from chapter 06 on, noisy ones | like $x$ |
# | $t$ | `t` | time; from chapter 06 on, the level of the noise | (batch,) |
# | $\omega_i$ | `frequencies` | the frequency of number $i$ of the time embedding | (width / 2,) |
# | $e$ | `embedding`, `e` | the *time embedding*: the time as a vector of sines and cosines | (batch, width) |
#
# A *channel* is one number per pixel: three in a colour image, dozens inside a network.

# %% [markdown] id="toy"
# ## Learning edges from one digit
#
# The task: given a digit, output its edges (for each pixel, the mean of its three right neighbours minus the mean of
# its three left neighbours). We compare two layers. The *dense* layer connects each of 256 input pixels to each of 256
# output pixels: 65,536 weights. The *convolution* has nine weights and uses the same nine at every position. Both are
# fitted by least squares, which needs no training loop, to 1, 10, 30 or all 1,440 training digits.
#
# **Predict first.** Which of them gets *new* digits right after 1 training digit? After 30? After 1,440? And a cat?
#
# <details><summary>Answer (after running the cell below)</summary>
# The convolution is exact after one digit, for new digits and for the cat. Of the four numbers that are tried, the
# dense layer needs the largest, 1,440, to get new digits right, and it still fails on the cat: it has only learned
# what happens inside the space that digits span.
# </details>

# %% id="toy-run"
ink, _ = digits.load(16)  # (1440, 1, 16, 16) in [-1, 1]
unseen, unseen_labels = digits.load(16, split="test")  # (357, 1, 16, 16), (357,)
edge_kernel = torch.tensor([[-1.0, 0, 1], [-1, 0, 1], [-1, 0, 1]])[None, None] / 3  # (1, 1, 3, 3)


def edges(x):
    """The edges of digits; beyond the border the paper continues: (batch, 1, h, w) -> the same."""
    return F.conv2d(F.pad(x, (1, 1, 1, 1), value=-1), edge_kernel.to(x.dtype))


def patches(x):
    """The 3 x 3 neighbourhood of each pixel, as rows: (batch * h * w, 9)."""
    return F.unfold(F.pad(x, (1, 1, 1, 1), value=-1), 3).transpose(1, 2).flatten(0, 1)


def relative_error(output, test):
    """The squared error of edges, over their mean square; outputting 0 everywhere would score 1."""
    return ((output.reshape(test.shape) - edges(test)).square().mean() / edges(test).square().mean()).item()


# %% [markdown] id="toy-fit-text"
# Now both are fitted to 1, 10, 30 and all digits, and tested on 357 new digits and on a photograph of a cat:

# %% id="toy-fit"
cat = photos.load("chelsea", size=16).mean(1, keepdim=True).double()  # in grey, (1, 1, 16, 16)
tests = {"new digits": unseen.double(), "a cat": cat}
print("training digits   tested on    dense layer   convolution   (relative squared error)")
errors = {}
for number in (1, 10, 30, 1440):
    seen = ink[:number].double()
    dense = torch.linalg.pinv(seen.flatten(1), rtol=1e-6) @ edges(seen).flatten(1)  # (256, 256)
    shared = torch.linalg.lstsq(patches(seen), edges(seen).reshape(-1, 1)).solution  # (9, 1)
    for name, test in tests.items():
        of_dense = relative_error(test.flatten(1) @ dense, test)
        of_shared = relative_error(patches(test) @ shared, test)
        errors[number, name] = of_dense
        print(f"{number:15}   {name:10} {of_dense:13.3f} {of_shared:13.3f}")
        assert of_shared < 1e-6
assert errors[1440, "new digits"] < 0.001 < errors[30, "new digits"] and errors[1440, "a cat"] > 0.5

# %% [markdown] id="toy-read"
# One digit is enough for the nine weights, because it provides 256 training examples, one at each position. The dense
# layer has to learn each position separately, and what it learned holds for digits only. The nine weights are exactly
# those that defined the task: it was chosen so that a convolution can solve it. They apply to any image of any size:

# %% id="toy-look" tags=["static"]
cat = photos.load("chelsea", size=96)  # (1, 3, 96, 96)
lines = (patches(cat.mean(1, keepdim=True)) @ shared.float()).reshape(1, 1, 96, 96)
print("the nine weights, times 3:\n", (3 * shared).reshape(3, 3).round().int().numpy())
show(
    plot_pictures(torch.cat([unseen[:4], edges(unseen[:4])]), columns=8),
    "Four digits and their edges: white along the left border of a stroke, black along its right border.",
)
show(
    plot_pictures(torch.cat([cat, (3 * lines).expand(-1, 3, -1, -1)]), ["the cat", "its edges"]),
    "A photograph of a cat and what nine weights, fitted to digits, compute from it: differences between left and "
    "right, strongest at the eyes, the nose and the stripes of the forehead.",
)

# %% [markdown] id="conv-text"
# ## 1 · Convolution: sizes, parameters, multiplications
#
# Slide a small window, the *kernel*, over the image. At each position, multiply the numbers under it by the kernel's
# weights and add up the products, over all channels:
#
# $$y_{\text{out},\,i,j} = \text{bias}_{\text{out}} + \sum_{\text{in}}\sum_{u,v} \theta_{\text{out},\,\text{in},\,u,v}\;
#   x_{\text{in},\; s i + r u,\; s j + r v}$$
#
# In words: output channel "out" at row $i$ and column $j$ is a bias plus the weights $\theta$ times the pixels $x$ of
# all input channels under the window, where $u$ and $v$ count the rows and columns of the kernel from 0. The *stride*
# $s$ is the distance from one window to the next, the *dilation* $r$ the distance between neighbouring rows and
# columns of the kernel. *Padding* first puts $p$ rows and columns of zeros around the image.


# %% id="conv-by-hand"
def convolve(x, weight, bias, stride=1, padding=0, dilation=1):
    """A convolution, position by position: (batch, channels, h, w), (out, channels, k, k) -> (batch, out, h', w')."""
    x = F.pad(x, (padding,) * 4)
    reach = dilation * (weight.shape[2] - 1) + 1
    positions = []
    for i in range(0, x.shape[2] - reach + 1, stride):
        for j in range(0, x.shape[3] - reach + 1, stride):
            window = x[:, :, i : i + reach : dilation, j : j + reach : dilation]  # (batch, channels, k, k)
            positions.append(torch.einsum("bcuv,ocuv->bo", window, weight) + bias)
    columns = (x.shape[3] - reach) // stride + 1
    return torch.stack(positions, 2).unflatten(2, (-1, columns))  # (batch, out, h', w')


generator = torch.Generator().manual_seed(4)
x = torch.randn(2, 3, 11, 14, generator=generator)
weight = torch.randn(5, 3, 3, 3, generator=generator)
bias = torch.randn(5, generator=generator)
for settings in ((1, 0, 1), (2, 1, 1), (3, 2, 2)):
    mine = convolve(x, weight, bias, *settings)
    torch.testing.assert_close(mine, F.conv2d(x, weight, bias, *settings), rtol=1e-4, atol=1e-4)
    print("stride {}, padding {}, dilation {}:".format(*settings), tuple(x.shape), "->", tuple(mine.shape))

# %% [markdown] id="size-exercise"
# How large is the output? Think of a row of $n$ pixels, $n + 2p$ with padding. The dilated kernel covers $r(k-1)+1$
# of them. Put it at the left end, then move it by $s$ as often as it fits:
#
# $$n' = \left\lfloor \frac{n + 2p - r(k-1) - 1}{s} \right\rfloor + 1$$
#
# ### Exercise 1 · The output size
#
# **Difficulty** ●●○○○ **Minutes** 10.
#
# Replace the `raise` line, run both cells, and read what the second one prints. If you are stuck, remove the `#` before
# `hint`. Until your function is correct, the course's own version is used in later cells. All solutions are in the
# [solved notebook](../solutions/04_networks_that_draw.ipynb).


# %% id="conv-output-size"
def conv_output_size(size, kernel, stride=1, padding=0, dilation=1):
    """floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1, an int; all inputs are ints, for one side."""
    ### BEGIN SOLUTION
    #: how many pixels the dilated kernel covers
    reach = dilation * (kernel - 1) + 1
    #: the first position, and one more for each whole stride that is left
    return (size + 2 * padding - reach) // stride + 1
    ### END SOLUTION


# %% id="conv-output-size-check"
conv_output_size = check("04.conv_output_size", conv_output_size)
# hint("04.conv_output_size")

# %% [markdown] id="same-size-text"
# Two settings to know by heart: kernel 3, padding 1 keeps the size; kernel 3, stride 2, padding 1 halves an even one.
#
# Now the cost. With $C_\text{in}$ input and $C_\text{out}$ output channels, a convolution has
# $k^2\, C_\text{in} C_\text{out} + C_\text{out}$ parameters, *whatever the size of the image*, and does
# $k^2\, C_\text{in} C_\text{out}$ multiplications for each of its $n'^2$ output pixels. `FlopCounterMode` counts the
# floating-point operations that torch performs; a multiplication and the addition after it count as two.

# %% id="counting"
from torch.utils.flop_counter import FlopCounterMode

print("image         layer                      parameters   multiplications")
for size in (16, 32, 64):
    for name, layer, stride in (
        ("3x3, 3 to 64", nn.Conv2d(3, 64, 3, padding=1), 1),
        ("3x3, 3 to 64, stride 2", nn.Conv2d(3, 64, 3, 2, 1), 2),
    ):
        with FlopCounterMode(display=False) as counter:
            layer(torch.zeros(1, 3, size, size))
        out = conv_output_size(size, 3, stride, 1)
        parameters, products = 9 * 3 * 64 + 64, 9 * 3 * 64 * out**2
        print(f"{size} x {size}       {name:24} {parameters:12,} {products:17,}")
        assert parameters == sum(p.numel() for p in layer.parameters())
        assert 2 * products == counter.get_total_flops()
dense = (3 * 64**2 + 1) * 64 * 64**2
print(f"a dense layer from 3 to 64 channels of 64 x 64 pixels would have {dense:,} parameters")

# %% [markdown] id="reach-text"
# A 3 × 3 convolution has few weights, but each output pixel depends only on the nine positions under its window.
# Several layers in a row reach further. How far? The gradient tells us *which input pixels the middle output pixel
# depends on*: its *receptive field*.
#
# **Predict first.** How wide is the receptive field of three 3 × 3 convolutions in a row? And if the first two have a
# stride of 2?
#
# <details><summary>Answer (after running the cell below)</summary>
# 7 pixels: the first layer contributes 3, each further one adds 2. With strides of 2 it is 15. The second layer moves
# in steps of two input pixels and adds 4, the third in steps of four and adds 8: 3 + 4 + 8 = 15, as with dilations of
# 1, 2 and 4.
# </details>


# %% id="reach"
def view(layers, size=65):
    """How many pixels along a side the middle output pixel depends on: the width of the receptive field."""
    x = torch.zeros(1, 1, size, size, requires_grad=True)
    out = nn.Sequential(*layers)(x)
    middle = out.shape[-1] // 2
    (gradient,) = torch.autograd.grad(out[0, 0, middle, middle], x)
    return int((gradient[0, 0].abs().sum(0) > 0).sum())


def layer(stride=1, dilation=1):
    """A 3 x 3 convolution whose weights are all 1, so that no gradients cancel."""
    made = nn.Conv2d(1, 1, 3, stride, padding=dilation, dilation=dilation)
    nn.init.ones_(made.weight)
    return made


for name, layers, expected in (
    ("three plain", [layer(), layer(), layer()], 7),
    ("dilations 1, 2, 4", [layer(), layer(dilation=2), layer(dilation=4)], 15),
    ("strides 2, 2, 1", [layer(2), layer(2), layer()], 15),
    ("ten plain", [layer()] * 10, 21),
):
    print(f"{name:18} receptive field {view(layers)} pixels wide")
    assert view(layers) == expected

# %% [markdown] id="reach-read"
# Each plain layer adds two pixels. After the image has been halved, every later layer reaches twice as far and, with
# the same number of channels, costs a quarter. So networks that draw go *down* to a small image, compute there, and
# come back *up*. The next section is the way up.

# %% [markdown] id="up-text"
# ## 2 · Upsampling and its checkerboards
#
# To double the width and height of an image, *nearest* repeats each pixel and *bilinear* blends neighbours. A
# *transposed convolution* learns how to do it. It runs a convolution backwards: each input pixel writes a copy of the
# kernel, times its value, into the output, $s$ pixels further each time. Where copies overlap, they add up.
#
# (Upsampling is also the name of a whole stage: a first model draws a small image, a second one, a *super-resolution*
# model, draws a large one from it. Chapter 09 builds such a cascade.)

# %% id="up-look" tags=["static"]
corgi = picture_book.Scene((picture_book.Thing("corgi", pose="sitting"),), "grass", seed=4)
page = picture_book.pictures([corgi], size=32)  # (1, 3, 32, 32)

nearest = page.repeat_interleave(2, 2).repeat_interleave(2, 3)  # (1, 3, 64, 64)
bilinear = F.interpolate(page, scale_factor=2, mode="bilinear")
torch.testing.assert_close(nearest, F.interpolate(page, scale_factor=2))
kernel = torch.ones(3, 1, 3, 3) / (9 / 4)  # for each channel; its overlaps are 1 *on average*
transposed = F.conv_transpose2d(page, kernel, stride=2, groups=3)[..., 1:, 1:]
titles = ["nearest", "bilinear", "transposed, all weights equal"]
show(
    plot_pictures(torch.cat([nearest, bilinear, transposed]), titles, columns=3),
    "The corgi enlarged in three ways: in blocks, smoothly, and under a fine checkerboard of dark and bright pixels.",
)

# %% [markdown] id="overlap-text"
# The third corgi is covered by a grid although all weights are equal. Why? Take a kernel of 3 with stride 2, along one
# row. Copies begin at 0, 2, 4, … and are 3 long. Position 2 receives the end of the first copy *and* the start of the
# second; position 3 only the middle of the second. In two dimensions the counts multiply: 1, 2 or 4 contributions.

# %% [markdown] id="overlap-exercise"
# ### Exercise 2 · Count the overlaps
#
# **Difficulty** ●●●○○ **Minutes** 15. These counts explain a well-known artefact.
#
# Return an int64 tensor of shape ((size − 1) · stride + kernel,): how many input pixels reach each position of the
# output, along one side, without padding. All three arguments are ints of at least 1. If the stride is larger than the
# kernel, some positions are reached by no input pixel: their count is 0.


# %% id="overlap-count"
def overlap_count(size, kernel, stride):
    """How many of `size` input pixels reach each output position of a transposed convolution; int64 (positions,)."""
    ### BEGIN SOLUTION
    #: the last copy begins at (size - 1) stride and is `kernel` long
    count = torch.zeros((size - 1) * stride + kernel, dtype=torch.int64)
    #: each input pixel writes one copy of the kernel
    for i in range(size):
        #: where it begins, and how long it is
        count[i * stride : i * stride + kernel] += 1
    return count
    ### END SOLUTION


# %% id="overlap-count-check"
overlap_count = check("04.overlap_count", overlap_count)
# hint("04.overlap_count")

# %% [markdown] id="overlap-run-text"
# Two rows of counts in full, and then a test of which settings are even away from the border:

# %% id="overlap-run"
print("kernel 3, stride 2:", overlap_count(6, 3, 2).tolist())
print("kernel 4, stride 2:", overlap_count(6, 4, 2).tolist())
for kernel, stride in ((2, 2), (3, 2), (4, 2), (5, 2), (5, 3), (6, 3)):
    inside = overlap_count(20, kernel, stride)[kernel:-kernel]
    print(
        f"kernel {kernel}, stride {stride}: {sorted(set(inside.tolist()))} times, "
        f"{'even' if kernel % stride == 0 else 'UNEVEN'}"
    )
    assert (inside.min() == inside.max()) == (kernel % stride == 0)

# %% [markdown] id="overlap-read"
# In all six settings, the counts away from the border are equal exactly when the stride divides the kernel. So one cure
# is a kernel of 4 with stride 2. The other is to enlarge by *nearest* and then convolve with stride 1
# (*resize-convolution*).
#
# ### Explore it
#
# **Predict first.** Kernel 6, stride 4: which counts? And does an ordinary convolution with a stride *read* its input
# pixels evenly? Two settings are shown as still images, then the live control.
#
# <details><summary>Answer (after running the cell below)</summary>
# Kernel 6, stride 4 gives 1 or 2 (set the live control to these numbers), since 4 does not divide 6. A convolution with
# the same kernel and stride reads its pixels just as unevenly, in the same pattern: the two layers are each other's
# transpose. In training, the pattern appears in the gradients of its input.
# </details>

# %% id="film-overlap" tags=["static"]
from course_utils.widgets import attention_explorer, explore, filmstrip, overlap_explorer

overlaps = overlap_explorer()
filmstrip(overlaps, [{}, {"kernel": 4}])
assert set(overlap_count(20, 6, 4)[6:-6].tolist()) == {1, 2}

# %% id="explore-overlap"
explore(overlaps)

# %% [markdown] id="cure-text"
# Now three layers in a row, applied to a *constant* grey image. Any pattern in the output was made by the network.
# First all weights are equal, then they are random (one draw).
#
# **Predict first.** Is a kernel of 4 with stride 2 safe if its weights are random? Is resize-convolution?
#
# <details><summary>Answer (after running the cell below)</summary>
# Kernel 4 is even with equal weights; with this draw of random weights its pattern spans 0.57 of the mean brightness.
# Resize-convolution shows none in either case.
# </details>


# %% id="enlarge"
def enlarge(x, how, weight):
    """Double the side, by a transposed convolution with this kernel or by nearest and a convolution; (1, 1, h, w)."""
    if how == "resize":
        nearest = x.repeat_interleave(2, 2).repeat_interleave(2, 3)  # (1, 1, 2h, 2w)
        return F.conv2d(F.pad(nearest, (1, 1, 1, 1), mode="replicate"), weight)
    return F.conv_transpose2d(x, weight, stride=2)


def pattern(how, kernel, random):
    """The middle of a constant image after three doublings, with mean 1: (1, 1, 40, 40)."""
    x = torch.ones(1, 1, 12, 12)
    for step in range(3):
        weight = torch.rand(1, 1, kernel, kernel, generator=torch.Generator().manual_seed(step))
        x = enlarge(x, how, weight if random else torch.ones_like(weight))
    middle = slice(x.shape[-1] // 2 - 20, x.shape[-1] // 2 + 20)
    x = x[..., middle, middle]
    return x / x.mean()


# %% id="cure" tags=["static"]
ways = (("transposed", 3), ("transposed", 4), ("resize", 3))
cases = [(how, kernel, random) for random in (False, True) for how, kernel in ways]
found = [pattern(*case) for case in cases]
spread = [(x.max() - x.min()).item() for x in found]
across = ["transposed, kernel 3", "transposed, kernel 4", "resize-convolution"]
show(  # the mean is shown as grey
    plot_pictures(torch.cat(found) - 1, columns=3, heads=across, rows=["equal weights", "random weights"]),
    "A constant image after three doublings: a checkerboard for kernel 3, none for kernel 4 with equal weights but "
    "one with random weights, none for resize-convolution.",
)
for (how, kernel, random), number in zip(cases, spread, strict=True):
    weights = "random" if random else "equal"
    print(f"{how:10} kernel {kernel}, {weights:6} weights: brightest minus darkest, over the mean: {number:.4f}")
assert min(spread[0], spread[3]) > 1 and abs(spread[4] - 0.57) < 0.02
assert max(spread[1], spread[2], spread[5]) < 1e-5

# %% [markdown] id="cure-read"
# So the common advice is half true. With a kernel that the stride divides, even output is *possible*, and equal
# weights achieve it. But each output pixel is written by one of four separate sets of weights (even or odd row, even
# or odd column), and random weights do not make the four agree: training would have to. Away from the border,
# resize-convolution turns a constant image into a constant image whatever its weights. The U-Net below uses it.
#
# The methods are related: nearest and bilinear *are* transposed convolutions with fixed kernels whose copies add up
# evenly.

# %% id="relatives"
for name, row in (("nearest", [1.0, 1]), ("bilinear", [0.25, 0.75, 0.75, 0.25])):
    row = torch.tensor(row)
    kernel = (row[:, None] * row).expand(3, 1, -1, -1)  # for each channel, (3, 1, k, k)
    made = F.conv_transpose2d(page, kernel, stride=2, groups=3)
    cut = (made.shape[-1] - 64) // 2
    made = made[..., cut : cut + 64, cut : cut + 64]
    library = F.interpolate(page, scale_factor=2, mode=name)
    torch.testing.assert_close(made[..., 1:-1, 1:-1], library[..., 1:-1, 1:-1])
    print(f"{name:9} equals a transposed convolution with the row {row.tolist()} and stride 2 (except at the border)")

# %% [markdown] id="attention-text"
# ## 3 · Attention: every pixel reads from every pixel
#
# A corgi's left ear should match its right ear, a dozen pixels away on a page of 32 × 32. Convolutions pass such
# information on step by step; *attention* connects the two pixels directly. From each pixel three vectors are computed:
# a *query* (what to look for), a *key* (what this pixel can be found by) and a *value* (what it passes on).
#
# $$\text{attention}(Q, K, V) = A\,V, \qquad A = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt d}\right)$$
#
# In words: compare each query with each key by a dot product, divide by the square root of their width $d$, turn each
# row of these scores into positive shares that add up to 1 (*softmax*), and average the values with these shares. It
# works like a dictionary lookup that returns a blend of entries. By hand, with a known answer:

# %% id="attention-by-hand"
keys = {"red": [4.0, 0, 0, 0], "green": [0, 4.0, 0, 0], "blue": [0, 0, 4.0, 0]}  # one key of width 4 for each word
queries = {"red": [4.0, 0, 0, 0], "red or blue": [4.0, 0, 4.0, 0], "none of them": [0, 0, 0, 4.0]}
for name, query in queries.items():
    scores = []
    for key in keys.values():
        dot_product = sum(a * b for a, b in zip(query, key, strict=True))
        scores.append(dot_product / math.sqrt(4))
    total = sum(math.exp(score) for score in scores)
    shares = [round(math.exp(score) / total, 3) for score in scores]
    print(f"query {name:12} scores {scores}, shares {shares}")
assert shares == [0.333, 0.333, 0.333]

# %% [markdown] id="attention-exercise"
# ### Exercise 3 · Attention
#
# **Difficulty** ●●●○○ **Minutes** 15. Three lines that run in every transformer.
#
# Any axes may stand in front, such as the batch and the *heads* that are explained below. `k.transpose(-2, -1)` swaps
# the last two. Gradients will flow through your function, so use torch operations. `softmax` and `@` are allowed;
# `F.scaled_dot_product_attention` would pass the check but does the whole exercise for you. You compare with it below.


# %% id="attention"
def attention(q, k, v):
    """softmax(q k^T / sqrt(d)) v; (..., queries, d), (..., keys, d), (..., keys, d_v) -> (..., queries, d_v)."""
    ### BEGIN SOLUTION
    #: how well each query fits each key, over the square root of their width: (..., queries, keys)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    #: shares that add up to 1 over the keys
    weights = scores.softmax(-1)
    #: the values, averaged with these shares
    return weights @ v
    ### END SOLUTION


# %% id="attention-check"
attention = check("04.attention", attention)
# hint("04.attention")

# %% [markdown] id="scale-text"
# ### Why the square root of d?
#
# A dot product of two vectors of $d$ independent standard normal numbers adds up $d$ products, each of variance 1, so
# its standard deviation is $\sqrt d$. Take sixteen random keys and a thousand random queries: how large is the
# largest share on average?

# %% id="scale"
q = torch.randn(2, 8, 50, 32, generator=generator)
k = torch.randn(2, 8, 60, 32, generator=generator)
v = torch.randn(2, 8, 60, 32, generator=generator)
torch.testing.assert_close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v), rtol=1e-4, atol=1e-5)
torch.testing.assert_close(attention(q, k, v), attending.attention(q, k, v))

print("   d   std of the dot product   largest share: unscaled   over sqrt(d)   over d")
largest = {}
for d in (4, 64, 1024):
    q, k = torch.randn(1000, d, generator=generator), torch.randn(16, d, generator=generator)
    for scale in (1, math.sqrt(d), d):
        largest[d, scale] = (q @ k.T / scale).softmax(-1).amax(-1).mean().item()
    print(f"{d:4} {(q @ k.T).std():24.2f} {largest[d, 1]:24.2f} {largest[d, math.sqrt(d)]:14.2f} {largest[d, d]:8.2f}")
assert largest[1024, 1] > 0.9 and abs(largest[1024, 1024] - 1 / 16) < 0.02
assert all(0.15 < largest[d, math.sqrt(d)] < 0.3 for d in (4, 64, 1024))

# %% [markdown] id="scale-read"
# Unscaled, wide vectors make the softmax pick almost a single key. Its slope, share · (1 − share), then approaches 0,
# and hardly any gradient flows. Divided by $d$, the largest share approaches the plain average, 1/16 = 0.06, as $d$
# grows, whatever the query is. Divided by $\sqrt d$, it stays between 0.15 and 0.3 for all three widths.
#
# ### Look at a map
#
# Below, one pixel of the corgi attends to all pixels of its page. Queries and keys are built from each pixel's colour,
# times a *sharpness*, and its position, times a *nearness*, in such a way that a score is higher the closer the two
# pixels are in both. (A network learns what to compare instead.) The caption says over how many pixels the attention is
# spread: ten equal shares would count as ten.
#
# **Predict first.** The query is a pixel of the orange fur. Where will the map be bright? What does nearness change?
#
# <details><summary>Answer (after running the cell below)</summary>
# With colour alone the map is bright on all orange fur, at any distance: tail, body and both ears. A higher sharpness
# removes the grass, which is faintly visible at a low one. Nearness restricts the map to the fur close to the query.
# </details>

# %% id="film-attention" tags=["static"]
maps = attention_explorer(page)
fur = {"row": 22, "column": 7}
filmstrip(maps, [fur | {"sharpness": 2.0}, fur | {"sharpness": 5.0}, fur | {"sharpness": 5.0, "nearness": 4.0}])

# %% id="explore-attention"
explore(maps)

# %% [markdown] id="heads-text"
# ### Several heads
#
# One softmax yields one blend. To look for several things at once, cut each vector of width heads · d into pieces of
# width d, run attention on each (a *head*), and concatenate the results. The pieces must become an axis of their own,
# in front of the tokens (a *token* is one vector of the sequence, here one pixel):
# (batch, tokens, heads · d) → (batch, heads, tokens, d).
#
# ### Exercise 4 · Split the heads
#
# **Difficulty** ●●○○○ **Minutes** 10. One line, in which an error is easily overlooked: everything still runs, but
# tokens get mixed.


# %% id="split-heads"
def split_heads(x, heads):
    """(batch, tokens, heads * d) -> (batch, heads, tokens, d); head 0 has the first d numbers of each token."""
    ### BEGIN SOLUTION
    #: cut the last axis in two, then bring the heads before the tokens
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, width // heads).transpose(1, 2)  # (batch, heads, tokens, d)
    ### END SOLUTION


# %% id="split-heads-check"
split_heads = check("04.split_heads", split_heads)
# hint("04.split_heads")

# %% [markdown] id="module-text"
# The way back, `merge_heads`, swaps the axes again and flattens. With four linear layers around it (for queries, keys,
# values and the output), this is the package's `Attention` and torch's `MultiheadAttention`: with the same weights, all
# three agree.

# %% id="module"
tokens = torch.randn(2, 10, 32, generator=generator)
torch.testing.assert_close(attending.merge_heads(split_heads(tokens, 4)), tokens)

ours, library = attending.Attention(32, heads=4), nn.MultiheadAttention(32, 4, batch_first=True)
with torch.no_grad():
    library.in_proj_weight.copy_(torch.cat([ours.to_q.weight, ours.to_k.weight, ours.to_v.weight]))
    library.in_proj_bias.zero_()
    library.out_proj.weight.copy_(ours.to_out.weight)
    library.out_proj.bias.copy_(ours.to_out.bias)
    q = split_heads(ours.to_q(tokens), 4)
    k = split_heads(ours.to_k(tokens), 4)
    v = split_heads(ours.to_v(tokens), 4)
    by_hand = ours.to_out(attending.merge_heads(attention(q, k, v)))
    for name, result in (("course_utils", ours(tokens)), ("torch", library(tokens, tokens, tokens)[0])):
        print(f"{name:13} largest difference {(by_hand - result).abs().max():.1e}")
        torch.testing.assert_close(by_hand, result, rtol=1e-4, atol=1e-5)

# %% [markdown] id="memory-text"
# ### What it costs
#
# An image of $n \times n$ pixels has $n^2$ queries and $n^2$ keys, so the map has $n^4$ numbers. In float32 that is
# $4 n^4$ bytes per head and image, and training keeps the map for the backward pass. How much is kept in fact?
# `saved_tensors_hooks` calls a function for every tensor that is saved.


# %% id="memory"
def kept_bytes(function, side):
    """Bytes that one head's attention on side x side pixels keeps for its backward pass."""
    q = torch.randn(1, 1, side**2, 16, requires_grad=True)
    k = torch.randn(1, 1, side**2, 16, requires_grad=True)
    v = torch.randn(1, 1, side**2, 16, requires_grad=True)
    seen = {}

    def on_save(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def on_load(tensor):
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(on_save, on_load):
        function(q, k, v)
    return sum(seen.values())


# %% [markdown] id="memory-table-text"
# We measure your function and the *fused* one of torch, which computes the same result:

# %% id="memory-table"
print("pixels     the map, counted   by hand, measured   fused, measured   (bytes)")
for side in (16, 32, 64):
    counted = 4 * side**4
    by_hand = kept_bytes(attention, side)
    fused = kept_bytes(F.scaled_dot_product_attention, side)
    print(f"{side} x {side} {counted:18,} {by_hand:19,} {fused:17,}")
    assert counted <= by_hand and fused < counted / 3
print(f"512 x 512 {4 * 512**4:17,}")

# %% [markdown] id="memory-read"
# Doubling the side makes the map sixteen times larger: from 0.26 megabytes at 16 × 16 to 67 at 64 × 64. At 512 × 512, a
# single head's map would need 275 gigabytes. With the fused function, much less is kept, 1.1 megabytes at 64 × 64, and
# doubling the side makes it only four times as much.
#
# Stable Diffusion, as diffusers runs it, uses two remedies. It works on a small *latent* of 64 × 64 in place of the
# image of 512 × 512 (chapter 09), so that each map is $8^4 = 4096$ times smaller. And the fused function computes the
# map in pieces, which are discarded and recomputed when needed. (The time still grows as $n^4$.)

# %% [markdown] id="cross-text"
# ## 4 · Words enter the image
#
# So far queries, keys and values came from one image: *self-attention*. If the queries come from the pixels, and the
# keys and values from *words*, it is *cross-attention*: each pixel reads from the sentence what to draw. The map has a
# row for each pixel and a column for each word. This is how text enters Stable Diffusion.
#
# Here is a toy problem with a known solution: an image of four quarters, and a prompt of four words in any order. Each
# word names a quarter and a colour, such as "upper left: red". Which word matters where has to be learned.

# %% id="painter"
PALETTE = torch.tensor(
    [[0.8, -0.6, -0.6], [0.8, 0.7, -0.7], [-0.6, 0.4, -0.5], [-0.7, -0.2, 0.8], [0.7, 0.2, 0.7], [-0.8, -0.8, -0.8]]
)  # red, yellow, green, blue, pink, black: (6, 3)
half_of = torch.arange(16) // 8  # 0 for the first eight rows or columns, else 1
quarter = (2 * half_of[:, None] + half_of).flatten()  # which quarter each of the 256 pixels lies in


class Painter(nn.Module):
    """Words (batch, 4, width) to images (batch, 256, 3): one layer of cross-attention."""

    def __init__(self, width=32):
        super().__init__()
        self.place, self.colour = nn.Embedding(4, width), nn.Embedding(6, width)
        self.pixels = nn.Parameter(0.1 * torch.randn(1, 256, width))  # a learned query for each pixel
        self.look, self.paint = attending.Attention(width, heads=1), nn.Linear(width, 3)

    def words(self, places, colours):
        return self.place(places) + self.colour(colours)  # (batch, 4, width)

    def forward(self, words):
        return self.paint(self.look(self.pixels.expand(len(words), -1, -1), words))


# %% [markdown] id="painter-train-text"
# The training data are random prompts and the images they describe.


# %% id="painter-train"
def prompts(number, generator):
    """Random prompts: quarters in random order, colours (number, 4), and the images (number, 256, 3)."""
    places = torch.stack([torch.randperm(4, generator=generator) for _ in range(number)])
    colours = torch.randint(6, (number, 4), generator=generator)
    of_quarter = colours.gather(1, places.argsort(1))  # the colour of quarter 0, 1, 2, 3
    return places, colours, PALETTE[of_quarter[:, quarter]]


torch.manual_seed(0)
painter = Painter()
optimizer = torch.optim.Adam(painter.parameters(), lr=1e-2)
test_prompts = prompts(64, torch.Generator().manual_seed(1))


def error(data):
    """The mean squared error of the painter on these prompts, a number with gradients."""
    places, colours, image = data
    return (painter(painter.words(places, colours)) - image).square().mean()


# %% [markdown] id="painter-fit-text"
# The training loop:

# %% id="painter-fit"
before = error(test_prompts).item()
live = LivePlot("The painter's loss falls by several powers of ten.", log_scale=True)
for step in range(budget(smoke=30, laptop=200, gpu=200)):
    loss = error(prompts(32, generator))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    live.update(step, loss.item())
live.finish()
after = error(test_prompts).item()
print(f"error on 64 new prompts: before {before:.3f}, after {after:.1e}")
assert after < before

# %% [markdown] id="painter-maps-text"
# What did it learn? The attention map of each word, for the first test prompt:

# %% id="painter-maps" tags=["static"]
places, colours, image = (part[:1] for part in test_prompts)
with torch.no_grad():
    words = painter.words(places, colours)  # (1, 4, 32)
    weights = painter.look.weights(painter.pixels, words)[0, 0]  # (256, 4)
    drawn = painter(words)

corners = ("upper left", "upper right", "lower left", "lower right")
names = ("red", "yellow", "green", "blue", "pink", "black")
figure, axes = plt.subplots(1, 5, figsize=(9, 2.1))
axes[0].imshow((drawn.reshape(16, 16, 3) + 1) / 2)
axes[0].set_title("drawn", size=9)
for word, ax in enumerate(axes[1:]):
    ax.imshow(weights[:, word].reshape(16, 16), cmap="cividis", vmin=0, vmax=1)
    ax.set_title(f'"{corners[places[0, word]]}: {names[colours[0, word]]}"', size=9)
for ax in axes:
    ax.set_axis_off()
show(
    figure,
    "An image of four coloured quarters and, for each of the four words, its attention map: bright on the quarter that "
    "the word names, dark elsewhere.",
)

# %% [markdown] id="painter-order-text"
# In numbers, for all 64 test prompts, and once more with the words of the first prompt in another order:

# %% id="painter-order"
with torch.no_grad():
    all_words = painter.words(*test_prompts[:2])  # (64, 4, 32)
    pixels = painter.pixels.expand(64, -1, -1)
    weights = painter.look.weights(pixels, all_words)[:, 0]  # (64, 256, 4)
    right_word = test_prompts[0].argsort(1)[:, quarter]  # which word names the pixel's quarter, (64, 256)
    share = weights.gather(2, right_word[..., None])
    shuffled = painter(words[:, [2, 0, 3, 1]])
print(f"attention to the right word: on average {share.mean():.3f}, at the worst pixel {share.min():.3f}")
print(f"another order of the words changes the image by at most {(shuffled - drawn).abs().max():.1e}")
assert torch.allclose(shuffled, drawn, atol=1e-5)
if budget(smoke=False, laptop=True, gpu=True):
    assert share.min() > 0.95 and after < 1e-3

# %% [markdown] id="painter-read"
# Each pixel attends to the word that names its quarter. The image does not depend on the order of the words: attention
# treats the words as a *set*. If the order should matter, it must be encoded in the word vectors, as the text encoder
# of chapter 08 does.
#
# > **Given now, built in chapters 06 to 10:** the finished picture-book model, whose U-Net reads a sentence in the same
# > way. We record queries and keys of its last two cross-attention layers, where a map of 8 × 8 positions, each of
# > which stands for 8 × 8 pixels of the page, attends to the words, while it draws with four different seeds.

# %% id="real-maps"
from course_utils.pipelines.picture_book import load_picture_book

pipe = load_picture_book()
crossing = [module for name, module in pipe.unet.named_modules() if name.startswith("up") and name.endswith("attn2")]
layers = {"last but one": crossing[-2], "last": crossing[-1]}
caught = {layer: [] for layer in crossing}


def catch(module, arguments, named):
    """Note the attention maps of one step, averaged over the heads: (images, pixels, words)."""
    q = module.head_to_batch_dim(module.to_q(arguments[0]))
    k = module.head_to_batch_dim(module.to_k(named["encoder_hidden_states"]))
    weights = attending.attention_weights(q, k).unflatten(0, (-1, module.heads)).mean(1)
    caught[module].append(weights[4:])  # each step runs without and with the prompt (chapter 10); these are with


hooks = [layer.register_forward_pre_hook(catch, with_kwargs=True) for layer in layers.values()]
prompt = "a corgi puppy sitting on the grass"
images = pipe(
    [prompt] * 4,
    num_inference_steps=budget(smoke=2, laptop=20, gpu=20),
    guidance_scale=3,
    output_type="pt",
    generator=[torch.Generator().manual_seed(seed) for seed in range(4)],
).images.cpu()

# %% id="real-maps-look" tags=["static"]
for hook in hooks:
    hook.remove()
looks = {name: torch.stack(caught[layer]).mean(0).cpu() for name, layer in layers.items()}  # means over the steps
words = [pipe.tokenizer.decode([number]) for number in pipe.tokenizer(prompt).input_ids]
shown = ("corgi", "sitting", "grass", "a")
figure, axes = plt.subplots(2, 5, figsize=(8, 3.5))
for seed in (0, 1):
    axes[seed, 0].imshow(images[seed].permute(1, 2, 0))
    for ax, word in zip(axes[seed, 1:], shown, strict=True):
        ax.imshow(looks["last but one"][seed, :, words.index(word)].reshape(8, 8), cmap="magma")
for ax, title in zip(axes[0], ("drawn", *shown), strict=True):
    ax.set_title(title)
for ax in axes.flat:
    ax.set_axis_off()
show(
    figure,
    "Two drawings of a corgi on grass (in the second, another puppy sits behind the first), and the attention maps of "
    "four words in the last layer but one, each from black at its own minimum to white at its own maximum: 'corgi' "
    "and 'sitting' are bright on the body of the puppy, 'grass' around it, 'a' outside the puppy.",
)

# %% [markdown] id="real-maps-table-text"
# All four drawings in numbers, for the last two layers: how much attention each word gets on average over the pixels,
# and how strongly its map correlates with the map of "corgi" (the lowest and the highest of the four):


# %% id="real-maps-table"
def correlations(maps, word):
    """The correlation of each word's map with this word's map, in each drawing: (drawings, words)."""
    return torch.stack([torch.corrcoef(one.T)[words.index(word)] for one in maps])


print("                  last layer but one           last layer")
print("word              share   with 'corgi'         share   with 'corgi'")
for number, word in enumerate(words):
    listed = []
    for maps in looks.values():
        found = correlations(maps, "corgi")[:, number]
        listed.append(f"{maps[..., number].mean():.3f}   {found.min():5.2f} to {found.max():5.2f}")
    print(f"{word:17} {'        '.join(listed)}")
assert all(torch.allclose(maps.sum(2), torch.ones(4, 64), atol=1e-4) for maps in looks.values())
if budget(smoke=False, laptop=True, gpu=True):
    share = {word: looks["last but one"][..., number].mean() for number, word in enumerate(words)}
    assert share["<|startoftext|>"] > 2.5 * share["corgi"] and share["corgi"] > 10 * share["sitting"]
    found = correlations(looks["last but one"], "corgi")
    assert found[:, words.index("grass")].max() < -0.2 < 0.4 < found[:, words.index("sitting")].min()
    assert correlations(looks["last"], "corgi")[:, words.index("grass")].min() > 0

# %% [markdown] id="real-maps-read"
# In the last layer but one, the map of "corgi" is bright on the puppy and the map of "grass" around it in the two
# drawings shown; in all four drawings of this one prompt, the two maps are negatively correlated. Three warnings. The
# map of "sitting" resembles that of "corgi"; a likely reason, not tested here, is that the text encoder passes
# information from earlier words on to later ones. Yet "sitting" gets less than a tenth of what "corgi" gets, which a
# map scaled to its own maximum hides. The start token, which is the same in every prompt, gets a third of the
# attention. The shares of a pixel must add up to 1, so they cannot all be small, even where no word is of use. And in
# the very last layer nothing of this kind is found: "grass" correlates *positively* with "corgi", and both get hardly
# any attention. Read such maps with care, and check which layer is shown.

# %% [markdown] id="time-text"
# ## 5 · Three small components
#
# ### The time embedding
#
# From chapter 06 on, a network must be given *how much* noise its input contains: a number $t$ from 0 to 999. One
# number times a weight is a poor input, since $t = 10$ and $t = 11$ hardly differ. So $t$ is written as many numbers
# that oscillate at different speeds, like the hands of a clock, each slower than the last:
#
# $$e(t) = [\sin(\omega_0 t), \sin(\omega_1 t), \dots,\ \cos(\omega_0 t), \cos(\omega_1 t), \dots], \qquad
#   \omega_i = 10000^{-2i/\text{width}}, \qquad i = 0, \dots, \tfrac{\text{width}}{2} - 1$$
#
# In words: half of the width is sines, half cosines; number $i$ oscillates with the frequency $\omega_i$, which falls
# from 1 towards 1/10000.

# %% [markdown] id="time-exercise"
# ### Exercise 5 · The time embedding
#
# **Difficulty** ●●○○○ **Minutes** 10. Many diffusion models begin with it. Times may be integers or fractions (some
# samplers evaluate the network between two integer times); `width` is even; the result is float32.


# %% id="time-embedding"
def time_embedding(t, width):
    """[sin(w_i t), cos(w_i t)], w_i = 10000^(-2 i / width): t (batch,), int or float -> (batch, width)."""
    ### BEGIN SOLUTION
    #: the frequencies, one for each i = 0 ... width / 2 - 1
    half = width // 2
    frequencies = 10_000.0 ** (-torch.arange(half, device=t.device) / half)  # (half,)
    #: the angle for each time and each frequency
    angles = t.float()[:, None] * frequencies  # (batch, half)
    #: all sines, then all cosines
    return torch.cat([angles.sin(), angles.cos()], dim=1)
    ### END SOLUTION


# %% id="time-embedding-check"
time_embedding = check("04.time_embedding", time_embedding)
# hint("04.time_embedding")

# %% [markdown] id="time-look-text"
# Here are all thousand embeddings as columns of an image, and their dot products, which show how similar two times are:

# %% id="time-look" tags=["static"]
from diffusers.models.embeddings import get_timestep_embedding

t = torch.arange(1000)
e = time_embedding(t, 64)  # (1000, 64)
torch.testing.assert_close(e, get_timestep_embedding(t, 64, downscale_freq_shift=0), rtol=0, atol=1e-4)
torch.testing.assert_close(e, blocks.time_embedding(t, 64), rtol=0, atol=1e-4)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
left.imshow(e.T, aspect="auto", cmap="coolwarm", interpolation="nearest")
left.set(xlabel="t", ylabel="index in $e(t)$", title="sines above, cosines below")
left.grid(False)
for time in (100, 500):
    right.plot(e @ e[time] / 32, label=f"with t = {time}")
right.set(xlabel="t", ylabel="dot product / 32", title="similarity of two times")
right.legend()
show(
    figure,
    "Left: stripes that get broader from row to row, in the sines and again in the cosines. Right: each time is most "
    "similar to itself; the similarity falls steeply to both sides and then fluctuates at a low level.",
)
similarity = {other: (e[500] @ e[other] / 32).item() for other in (501, 510, 900)}
print("similarity of t = 500 with", {other: round(value, 3) for other, value in similarity.items()})
assert similarity[501] > 0.9 > similarity[510] > 0.5 > similarity[900]

# %% [markdown] id="time-read"
# Nearby times have similar embeddings, distant times different ones: the similarity falls steeply at first, then slowly
# and with fluctuations. The similarity depends on the distance only, since
# $\sin a \sin b + \cos a \cos b = \cos(a - b)$. Conventions differ: Stable Diffusion puts the cosines first
# (`flip_sin_to_cos`), and DDPM divides $i$ by width/2 − 1 in place of width/2. A network must be run with the
# convention it was trained with.

# %% [markdown] id="norm-text"
# ### Keeping numbers in range
#
# Deep inside a network, the scale of the numbers drifts. *Normalisation* restores it: subtract a mean and divide by a
# standard deviation,
#
# $$\text{out} = \frac{x - \text{mean}}{\sqrt{\text{variance} + \text{eps}}}$$
#
# where the tiny number eps prevents a division by zero. (Most of torch's layers then apply a learned factor and a
# learned shift.) Four well-known norms, batch, layer, instance and group norm, differ only in *which numbers* the mean
# and the variance are taken over. We read that off the layers themselves: on which inputs does one output number
# depend? The gradient shows it.

# %% id="norm-axes" tags=["static"]
from matplotlib.colors import ListedColormap

x = torch.randn(4, 6, 3, 3, dtype=torch.float64, requires_grad=True)  # 4 images, 6 channels, 3 x 3 pixels
norms = {
    "batch norm": nn.BatchNorm2d(6),
    "layer norm": nn.LayerNorm((6, 3, 3)),
    "instance norm": nn.InstanceNorm2d(6),
    "group norm (3 groups)": nn.GroupNorm(3, 6),
}
counts = []
figure, axes = plt.subplots(1, 4, figsize=(9.4, 2.5), sharey=True)
for ax, (name, norm) in zip(axes, norms.items(), strict=True):
    (gradient,) = torch.autograd.grad(norm.double()(x)[0, 0, 1, 1], x)
    used = (gradient.abs() > 1e-9).int()
    counts.append(int(used.sum()))
    used[0, 0, 1, 1] = 2  # the output number itself
    ax.imshow(used.permute(0, 2, 1, 3).reshape(12, 18), cmap=ListedColormap(["#E8E8E8", "#56B4E9", "#D55E00"]))
    ax.hlines([2.5, 5.5, 8.5], -0.5, 17.5, color="white", linewidth=3)
    ax.vlines([2.5, 5.5, 8.5, 11.5, 14.5], -0.5, 11.5, color="white", linewidth=3)
    ax.set(title=f"{name}\n{counts[-1]} numbers", xlabel="channel", xticks=range(1, 18, 3), xticklabels=range(6))
    ax.grid(False)
assert counts == [4 * 9, 6 * 9, 9, 2 * 9]
axes[0].set(ylabel="image", yticks=range(1, 12, 3), yticklabels=range(4))
show(figure, "Four grids of 4 images by 6 channels, 9 pixels in each cell. Blue are the numbers that the orange one is "
     "normalised with: its channel in all images (batch norm), its whole image (layer norm), its own channel and image "
     "(instance norm), two neighbouring channels of its image (group norm).")  # fmt: skip

# %% [markdown] id="norm-exercise"
# *Group norm*, the one that U-Nets use, divides the channels into groups of neighbours. With one group it equals layer
# norm as shown here, with one channel per group instance norm. (In a transformer, layer norm uses the channels of one
# token only.)
#
# ### Exercise 6 · Group norm
#
# **Difficulty** ●●●○○ **Minutes** 10. Write it with `reshape`, `mean` and `var`, without a learned factor or shift;
# `groups` divides the number of channels. `F.group_norm` would pass the check but does the whole exercise for you; you
# compare with it below.


# %% id="group-norm"
def group_norm(x, groups, eps=1e-5):
    """(x - mean) / sqrt(variance + eps) in each group of neighbouring channels: (batch, channels, h, w) -> like x."""
    ### BEGIN SOLUTION
    #: one row for each group of each image
    rows = x.reshape(len(x), groups, -1)  # (batch, groups, channels of the group * pixels)
    #: mean and variance of each row (the plain mean of squared distances: unbiased=False)
    mean = rows.mean(2, keepdim=True)
    variance = rows.var(2, keepdim=True, unbiased=False)
    #: the formula, and back to the shape of x
    return ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)
    ### END SOLUTION


# %% id="group-norm-check"
group_norm = check("04.group_norm", group_norm)
# hint("04.group_norm")

# %% [markdown] id="norm-why"
# Why not batch norm? In the training of a diffusion model, one batch contains images at all levels of noise, from
# nearly clean ones to pure noise. The output for one image should not depend on the other images of its batch:

# %% id="norm-run"
x = torch.randn(8, 16, 8, 8, generator=generator)
torch.testing.assert_close(group_norm(x, 4), F.group_norm(x, 4), rtol=1e-4, atol=1e-5)
torch.testing.assert_close(group_norm(x, 4), blocks.group_norm(x, 4), rtol=1e-4, atol=1e-5)

louder = torch.cat([x[:1], 5 * x[1:]])  # the same first image, while the others have five times the contrast
change = {}
for name, norm in (("batch norm", nn.BatchNorm2d(16)), ("group norm", nn.GroupNorm(4, 16))):
    change[name] = (norm(x)[0] - norm(louder)[0]).abs().mean().item()
    print(f"{name}: the output for the first image changes by {change[name]:.3f}")
assert change["group norm"] < 1e-5 < 0.3 < change["batch norm"]

# %% [markdown] id="residual-text"
# ### A short path for gradients
#
# Deep networks of plain layers are hard to train: in the backward pass each layer multiplies the gradient by a factor,
# and a product of many factors tends to vanish or explode. A *residual block* adds what it computes to its input:
#
# $$\text{out} = x + g(x)$$
#
# where $g$ stands for a few layers. The derivative of the sum is $1 + g'$, so one part of the gradient passes
# unchanged.
#
# An experiment: stacks of 1, 10 and 40 convolutions, with and without a sum around each layer, with and without a group
# norm before it. A layer here is a convolution after a *silu*, $\text{silu}(x) = x \cdot \text{sigmoid}(x)$, which is a
# smooth version of $\text{relu}(x) = \max(x, 0)$. All four stacks have *the same* weights. We measure the gradient that
# arrives at the input from one output pixel. Initialisation matters too, so everything is repeated with torch's default
# weights times $\sqrt 6$, which gives them the variance that He et al. recommend for relu; each with five seeds.


# %% id="arriving"
def arriving(depth, residual, norm, gain, seed):
    """The gradient's norm at the input of a stack of fresh 3 x 3 convolutions, from one output pixel."""
    torch.manual_seed(seed)
    x = torch.randn(4, 8, 16, 16, requires_grad=True)
    h = x
    for _ in range(depth):
        conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        change = gain * conv(F.silu(F.group_norm(h, 2) if norm else h))
        h = h + change if residual else change
    h[:, :, 8, 8].sum().backward()
    return x.grad.norm().item()


# %% [markdown] id="depth-text"
# From layer 1 to layer 40, 39 layers multiply the gradient. The figure shows the average factor per layer: 1 is ideal,
# and a factor of 1.4 in each of 39 layers already makes 500,000.

# %% id="depth" tags=["static"]
stacks = {"plain": (False, False), "norm": (False, True), "residual": (True, False), "both": (True, True)}
gains = {"default weights": 1.0, "times root of 6": math.sqrt(6)}
figure, ax = plt.subplots(figsize=(6.4, 3))
factors = {}
print("                           gradient, median of 5 seeds:   factor per layer,")
print("stack     weights              1 layer  10 layers  40 layers   lowest to highest")
for place, (name, (residual, norm)) in enumerate(stacks.items()):
    for (weights, gain), colour in zip(gains.items(), ("#0072B2", "#D55E00"), strict=True):
        rows = []
        for seed in range(5):
            rows.append([arriving(depth, residual, norm, gain, seed) for depth in (1, 10, 40)])
        sizes = torch.tensor(rows)  # (5 seeds, 3 depths)
        per_layer = (sizes[:, 2] / sizes[:, 0]) ** (1 / 39)
        factors[name, weights] = per_layer
        listed = " ".join(f"{size:10.1e}" for size in sizes.median(0).values)
        print(f"{name:9} {weights:16} {listed}   {per_layer.min():.3f} to {per_layer.max():.3f}")
        ax.scatter([place + 0.2 * (gain > 1) - 0.1] * 5, per_layer, color=colour, s=25, label="" if place else weights)
ax.axhline(1, color="black", linewidth=0.8)
ax.set(xticks=range(4), xticklabels=stacks, ylim=(0, 1.6), ylabel="factor per layer")
ax.legend()
show(figure, "The factor by which a layer multiplies the gradient: far below 1 in the plain stack, above 1 with a norm "
     "or a residual alone, closest to 1 with both; two initialisations, five seeds each, as points.")  # fmt: skip

# %% [markdown] id="depth-check-text"
# The next cell checks, for all five seeds and both initialisations, the comparisons that are drawn below it. It prints
# nothing if they all hold.

# %% id="depth-check"
for weights in gains:
    assert factors["plain", weights].max() < 0.8
    for name in ("norm", "residual"):
        assert factors["both", weights].max() < factors[name, weights].min()
    assert 1 < factors["both", weights].min() < factors["both", weights].max() < 1.06
assert 1.05 < factors["norm", "default weights"].min() < factors["norm", "default weights"].max() < 1.15
assert factors["residual", "default weights"].max() < 1.15 < 1.3 < factors["residual", "times root of 6"].min()

# %% [markdown] id="residual-read"
# In the plain stack the gradient vanishes, and how fast depends strongly on the initialisation. A norm or a residual
# alone prevents that. But with a norm alone the gradient grows by about a tenth per layer, and a residual alone depends
# on the initialisation again: 1.08 per layer with the default weights, 1.4, an explosion, with the larger ones. With
# both, the factor is the closest to 1 under *either* initialisation: the sum keeps the path open, and the norm keeps
# what each layer adds at one scale. (This is the gradient of fresh networks; it does not show how well
# they train.)

# %% [markdown] id="residual-block-text"
# So the standard block has both: two convolutions, one sum around the two, and the time in between:
#
# $$h = \text{conv}_1(\text{silu}(\text{norm}_1(x))) + \text{time}(\text{silu}(e)), \qquad
#   \text{out} = \text{shortcut}(x) + \text{conv}_2(\text{silu}(\text{norm}_2(h)))$$
#
# In words: each convolution comes after a norm and a silu; *time* is a linear layer that turns the time embedding $e$
# into one number per channel, which is added at every pixel; the *shortcut* is the identity, or a 1 × 1 convolution
# where the number of channels changes. $\text{conv}_2$ starts at zero, so that a fresh block outputs its shortcut
# alone.

# %% [markdown] id="residual-exercise"
# ### Exercise 7 · The residual block
#
# **Difficulty** ●●●○○ **Minutes** 15. The building block of U-Nets. `__init__` is given; write `forward` with its
# parts, following the two equations above. To test it: a fresh block returns its input unchanged,
# `ResidualBlock(8, 8, 12)(x, e)` equals `x`, and `ResidualBlock(8, 16, 12)(x, e)` equals its shortcut. Take for
# example `x = torch.randn(2, 8, 4, 4)` and `e = torch.randn(2, 12)`.


# %% id="residual-block"
class ResidualBlock(nn.Module):
    """out = shortcut(x) + conv2(silu(norm2(h))), h = conv1(silu(norm1(x))) + time(silu(embedding))."""

    def __init__(self, inside, outside, time_width, groups=8):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, inside), nn.GroupNorm(groups, outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.time = nn.Linear(time_width, outside)
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x, embedding):
        """x: (batch, inside, h, w), embedding: (batch, time_width) -> (batch, outside, h, w)."""
        ### BEGIN SOLUTION
        h = self.conv1(F.silu(self.norm1(x)))  # (batch, outside, h, w)
        h = h + self.time(F.silu(embedding))[:, :, None, None]  # one number per channel, the same for all pixels
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))
        ### END SOLUTION


# %% id="residual-block-check"
ResidualBlock = check("04.residual_block", ResidualBlock)
# hint("04.residual_block")

# %% [markdown] id="residual-same-text"
# Is it the block of diffusers, `ResnetBlock2D`, from which Stable Diffusion's U-Net is built? We copy the weights and
# compare:

# %% id="residual-same"
from diffusers.models.resnet import ResnetBlock2D

library = ResnetBlock2D(in_channels=16, out_channels=32, temb_channels=64, groups=8, eps=1e-5)
block = ResidualBlock(16, 32, 64)
state = {}
for name, parameter in library.state_dict().items():
    name = name.replace("time_emb_proj", "time").replace("conv_shortcut", "shortcut")
    state[name] = parameter
block.load_state_dict(state)
x, e = torch.randn(2, 16, 8, 8, generator=generator), torch.randn(2, 64, generator=generator)
print(f"largest difference {(block(x, e) - library(x, e)).abs().max():.1e}")
torch.testing.assert_close(block(x, e), library(x, e), rtol=1e-4, atol=1e-5)
assert torch.equal(blocks.ResidualBlock(16, 16, 64)(x, e), x), "a fresh block passes its input on unchanged"

# %% [markdown] id="zero-text"
# Can a block that starts at zero learn at all? We compute the gradients of the first training step, with
# $\text{conv}_2$ at zero, and for comparison with more layers at zero.


# %% id="zero-start"
def first_gradients(zeroed):
    """The norms of conv1's and conv2's gradients in the first step of a block in which these layers start at zero."""
    torch.manual_seed(0)
    block = blocks.ResidualBlock(16, 16, 64)
    for name in zeroed:
        for parameter in getattr(block, name).parameters():
            nn.init.zeros_(parameter)
    loss = (block(x, e) - x.flip(3)).square().mean()  # the task: mirror the image
    loss.backward()
    return block.conv1.weight.grad.norm().item(), block.conv2.weight.grad.norm().item()


print("start at zero             gradient of conv1   of conv2")
gradients = {}
for zeroed in (["conv2"], ["conv1", "conv2"], ["conv1", "conv2", "time"]):
    gradients[len(zeroed)] = first_gradients(zeroed)
    print(f"{', '.join(zeroed):25} {gradients[len(zeroed)][0]:17.3f} {gradients[len(zeroed)][1]:10.3f}")
assert [one > 0.01 for one in gradients[1]] == [one > 0.01 for one in gradients[2]] == [False, True]
assert gradients[3] == (0, 0)

# %% [markdown] id="zero-read"
# With $\text{conv}_2$ at zero, it gets a gradient at once, and $\text{conv}_1$ from the second step on: its gradient is
# multiplied by the weights of $\text{conv}_2$. The weights of both are stuck only if everything that enters
# $\text{conv}_2$ is zero as well: then only the bias of $\text{conv}_2$ gets a gradient. Question 3 at the end comes
# back to the second row.

# %% [markdown] id="u-text"
# ## 6 · The U-Net
#
# Now the overall design. Going *down*: a block, then half the size, and again. At the bottom, where the image is small,
# the *middle* may use attention. Going *up*: twice the size, then a block. At each level, the output of the way down is
# *kept* and concatenated, along the channels, with what comes from below: these are the **skip connections**.
#
# ```
# 16x16  down ─────── kept ──────▶ up  16x16
#    8x8    down ──── kept ───▶ up  8x8
#              4x4   middle
# ```

# %% [markdown] id="u-exercise"
# ### Exercise 8 · Through the U
#
# **Difficulty** ●●●○○ **Minutes** 20. The wiring of every U-Net, independent of what its blocks are.
#
# `down` and `shrink` are lists of functions from fine to coarse, `grow` and `up` from coarse to fine. Keep the output
# of `down`; on the way up concatenate `[grown, kept]` in this order, along the channels. There may be any number of
# levels, and the four lists must stay unchanged. With one level, `kept` is `down[0](x)`, and `up[0]` gets
# `[grow[0](middle(shrink[0](kept))), kept]`.


# %% id="through-the-u"
def through_the_u(x, down, shrink, middle, grow, up):
    """Down: x = down(x), keep it, x = shrink(x). Up: x = up([grow(x), kept of that level]). (batch, channels, h, w)."""
    ### BEGIN SOLUTION
    kept = []
    for block, smaller in zip(down, shrink):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(grow, up):
        x = block(torch.cat([larger(x), kept.pop()], dim=1))
    return x
    ### END SOLUTION


# %% id="through-the-u-check"
through_the_u = check("04.through_the_u", through_the_u)
# hint("04.through_the_u")

# %% [markdown] id="unet-text"
# The package's `UNet` consists of these parts, connected as in exercise 8. `UNetConfig` holds its sizes. We send two
# digits through a fresh one. A *hook*, a function that torch calls after each part, records what goes in and out.

# %% id="unet-table"
from course_utils.models.unet_by_hand import UNet, UNetConfig

torch.manual_seed(0)
model = UNet(UNetConfig(channels=1, widths=(16, 32, 64), attention=(False, False, True)))
way_down = ["time", "first", "down 0", "shrink 0", "down 1", "shrink 1", "middle 0", "middle 1"]
way_up = ["grow 0", "up 0", "grow 1", "up 1", "last"]
parts = {name: model.get_submodule(name.replace(" ", ".")) for name in way_down + way_up}
name_of = {part: name for name, part in parts.items()}
went_in, came_out = {}, {}  # name of the part -> (channels, height, width)


def note(part, given, made):
    """Record the shapes, without the batch, of what goes in and out of a part."""
    went_in[name_of[part]] = tuple(given[0].shape[1:])
    came_out[name_of[part]] = tuple(made.shape[1:])


hooks = [part.register_forward_hook(note) for part in parts.values()]
x_t, t = ink[:2], torch.tensor([3, 700])
output = model(x_t, t)
for hook in hooks:
    hook.remove()
assert output.shape == x_t.shape

# %% [markdown] id="unet-rows-text"
# The recorded shapes, part by part:


# %% id="unet-rows"
def size_of(*modules):
    """How many parameters these modules have together."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


print("part       input               output              parameters")
for name, part in parts.items():
    print(f"{name:10} {str(went_in[name]):19} {str(came_out[name]):19} {size_of(part):10,}")
finest = [parts[name] for name in ("time", "first", "down 0", "up 1", "last")]
print(f"{'all':50} {size_of(model):10,}")
below = 1 - size_of(*finest) / size_of(model)
print(f"below the finest level: {below:.0%} of the parameters")
assert below > 0.9


# %% id="unet-drawn" tags=["static"]
def draw_u(shapes, skips):
    """Boxes as tall as the image's side and as wide as its channels, level by level, with arrows for the skips."""
    figure, ax = plt.subplots(figsize=(9.4, 4.2))
    spots = {}
    for place, (name, (channels, side, _)) in enumerate(shapes.items()):
        spots[name] = (1.15 * place, 2.2 * math.log2(side))
        x, y = spots[name]
        width, height = 0.1 + channels / 90, side / 10
        ax.add_patch(plt.Rectangle((x - width / 2, y - height / 2), width, height, color="#56B4E9"))
        ax.text(x, y - height / 2 - 0.1, f"{name}\n{channels}×{side}×{side}", ha="center", va="top", size=8)
    ax.plot(*zip(*spots.values(), strict=True), color="#9A9A9A", linestyle="-", linewidth=1, zorder=0)
    arrow = {"arrowstyle": "->", "color": "#D55E00", "linewidth": 2}
    for down, up in skips:
        (left, y), (right, _) = spots[down], spots[up]
        top = y + shapes[down][1] / 20
        ax.plot([left, left, right], [top, top + 0.4, top + 0.4], color="#D55E00", linestyle="-")
        ax.annotate("", xy=(right, top), xytext=(right, top + 0.47), arrowprops=arrow)
        ax.text((left + right) / 2, top + 0.45, f"skip: {shapes[down][0]} channels", ha="center", va="bottom", size=9)
    ax.set(xlim=(-0.8, 1.15 * len(shapes) - 0.4), ylim=(3.2, 10.4))
    ax.axis("off")
    return figure


shapes = {name: shape for name, shape in came_out.items() if name != "time"}
u = draw_u(shapes, [("down 0", "up 1"), ("down 1", "up 0")])
show(u, "The U-Net, each part as a box with the shape of its output: down from 16 x 16 to 4 x 4 pixels while the "
     "channels grow from 16 to 64, and up again; two arrows lead from the way down to the way up.")  # fmt: skip

# %% [markdown] id="unet-read"
# Follow the boxes. *time*, which has none, is two linear layers that widen the time embedding from 16 to 64; all levels
# receive their output. *first* turns 1 channel into 16. *down* works at one size; *shrink* is a convolution with stride
# 2; *down 1* widens to 32: half the pixels along a side, twice the channels. *middle 0* contains the attention, over 4
# · 4 = 16 pixels. *grow* doubles by nearest and convolves. *up 0* gets 64 + 32 = 96 channels: 64 from below, 32 from
# the skip. *last* outputs one channel again. More than nine tenths of the parameters lie below the finest level, if
# *shrink 0* and *grow 1*, which connect it to the next, are counted as below.
#
# Finally, the same forward pass with your wiring:


# %% id="unet-by-hand"
def by_hand(model, x_t, t):
    """The model's forward pass, its parts connected by your `through_the_u`."""
    e = model.time(time_embedding(t, 16))  # (batch, 64)

    def with_time(level):
        def run(x):
            return level(x, e)

        return run

    def middle(x):
        return model.middle[1](model.middle[0](x, e), e)

    down = [with_time(level) for level in model.down]
    up = [with_time(level) for level in model.up]
    x = model.first(x_t)
    x = through_the_u(x, down, model.shrink, middle, model.grow, up)
    return model.last(x)


# %% [markdown] id="unet-compare-text"
# We first change all parameters a little, so that no part starts at zero, and compare:

# %% id="unet-compare"
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    torch.testing.assert_close(by_hand(model, x_t, t), model(x_t, t), rtol=1e-4, atol=1e-4)
    change = (model(x_t, t + 200) - model(x_t, t)).abs().mean()
    print(f"your wiring and the package's agree; another time changes the output by {change:.2f} on average")

    with_words = UNet(UNetConfig(cond_width=8))
    sentence = torch.randn(2, 5, 8, generator=generator)  # five words of eight numbers
    print("with words:", tuple(with_words(x_t, t, sentence).shape))

# %% [markdown] id="contract-read"
# `model(x_t, t, cond=None)` returns a tensor with the shape of `x_t`: the denoising networks that later chapters build
# by hand, and their samplers, keep to this interface. `cond` are words, for cross-attention (chapter 10). `t` is needed
# from chapter 06 on; in the trainings below it is always 0.

# %% [markdown] id="train-text"
# ## 7 · What do the skips carry?
#
# A simple task: remove a little noise of *one* fixed strength. The network gets a noisy image and is meant to output
# the clean one; the loss is the mean squared error. We use two data sets: the digits, and crops of 16 × 16 pixels from
# grey photographs (trained on a cat and a cup, tested on an astronaut).
#
# On each data set we train the same U-Net with skips and with zeros in place of the skips, with three seeds each. The
# measure is *PSNR* (peak signal-to-noise ratio), in decibels: $10 \log_{10}(2^2 / \text{mean squared error})$, since
# pixels span a range of 2. 10 dB more is a tenth of the error. The noise has standard deviation 0.3 on digits and 0.1
# on photographs, so between the data sets two things differ; within each, only the skips do.
#
# **Predict first.** For which data do the skips matter more? And is the network without skips better than leaving the
# noise in?
#
# <details><summary>Answer (after running the cells below)</summary>
# For photographs: the skips gain between 3 and 4 dB there, in each of three seeds, on digits hardly anything. Without
# skips, the network removes more error from digits than it adds; on photographs it does not: its output is further
# from the clean image than the noisy input is.
# </details>


# %% id="worlds"
def crops(names, number, seed):
    """Random squares of 16 x 16 pixels from grey photographs: (number, 1, 16, 16)."""
    whole = [photos.load(name, size=256)[0].mean(0, keepdim=True) for name in names]
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(240, (number, 2), generator=generator).tolist()
    found = []
    for i, (row, column) in enumerate(corners):
        found.append(whole[i % len(whole)][:, row : row + 16, column : column + 16])
    return torch.stack(found)


def psnr(found, clean):
    """10 log10(4 / mean squared error) of each image, averaged: decibels."""
    return (10 * torch.log10(4 / (found - clean).square().mean((1, 2, 3)))).mean().item()


WORLDS = {  # training images, test images, the standard deviation of the noise
    "digits": (ink, unseen, 0.3),
    "photographs": (crops(("chelsea", "coffee"), 3000, 0), crops(("astronaut",), 300, 1), 0.1),
}
clean, _, sigma = WORLDS["photographs"]
noisy = clean[:8] + sigma * torch.randn(clean[:8].shape, generator=torch.Generator().manual_seed(0))
show(
    plot_pictures(torch.cat([clean[:8], noisy]), columns=8),
    "Eight crops of photographs in grey, above clean, below noisy.",
)

# %% [markdown] id="silence-text"
# To switch a skip off, we wrap a level of the way up in a module that first sets the skip's channels to zero:


# %% id="silence"
class WithoutSkip(nn.Module):
    """A level of the way up whose skip, the last `width` channels of its input, is set to zero."""

    def __init__(self, level, width):
        super().__init__()
        self.level = level
        self.width = width

    def forward(self, x, embedding, cond=None):
        x = x.clone()
        x[:, -self.width :] = 0
        return self.level(x, embedding, cond)


def silence(model, i):
    """Set the skip into `model.up[i]` to zero; the coarsest level is i = 0."""
    width = model.config.widths[-2 - i]  # the channels that were kept at this level
    model.up[i] = WithoutSkip(model.up[i], width)


def restore(model, i):
    """Undo `silence`."""
    model.up[i] = model.up[i].level


# %% [markdown] id="fit-text"
# The training is the usual loop; the learning rate rises over 30 steps and then falls to 0:


# %% id="fit"
def fit(model, clean, sigma, steps, batch=32, seed=0):
    """Train the model to remove noise of standard deviation sigma; yields the loss of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min((i + 1) / 30, 1) * (1 - i / steps))  # up, down
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = clean[torch.randint(len(clean), (batch,), generator=generator)].to(device)
        noisy = x + sigma * torch.randn(x.shape, generator=generator).to(device)
        loss = (model(noisy, torch.zeros(batch, device=device)) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        yield loss.item()


# %% [markdown] id="examine-text"
# Twelve trainings: two data sets, with and without skips, three seeds each. The seed sets the initial weights, the
# batches and the noise. All networks of a data set are tested on the same images, 357 digits or 300 crops that none was
# trained on, with the same noise. (A thirteenth training, in the section
# "A failure that leads on", is drawn at the end of the same plot.)

# %% id="train"
import time

from tqdm.auto import tqdm

steps = budget(smoke=12, laptop=150, gpu=600)
seeds = budget(smoke=1, laptop=3, gpu=3)
live = LivePlot("Each grey peak begins a training: on digits, then on photographs.", seconds=3, log_scale=True)


def trained(clean, sigma, skips, seed):
    """A U-Net trained to remove this noise, with or without its skips."""
    torch.manual_seed(seed)
    model = UNet(UNetConfig(channels=1, widths=(16, 24, 32))).to(device)
    if not skips:
        silence(model, 0)
        silence(model, 1)
    for loss in fit(model, clean, sigma, steps, seed=seed):
        live.update(len(live.steps) + 1, loss)
    return model.eval()


models, started = {}, time.process_time()
runs = [(world, skips, seed) for world in WORLDS for skips in (True, False) for seed in range(seeds)]
for world, skips, seed in tqdm(runs):
    clean, _, sigma = WORLDS[world]
    models[world, skips, seed] = trained(clean, sigma, skips, seed)
live.finish()
print(f"{len(runs)} trainings of {steps} steps took {time.process_time() - started:.0f} seconds of processor time")

# %% [markdown] id="skips-text"
# The test, in PSNR. *Clean input* shows how well a network returns an image without any noise: what it loses there is
# lost on the way through the network.


# %% id="skips-table"
@torch.no_grad()
def denoise(model, noisy):
    """What the model makes of noisy images, on the CPU."""
    return model(noisy.to(device), torch.zeros(len(noisy), device=device)).cpu()


def with_noise(clean, sigma, seed=1):
    """Clean images plus noise from a fixed seed."""
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


scores = {}
print("data set      noisy   skips   PSNR of the output, one number per seed   of a clean input")
for world, (_, test, sigma) in WORLDS.items():
    noisy = with_noise(test, sigma)
    scores[world] = {"noisy": psnr(noisy, test)}
    for skips in (True, False):
        ours = [models[world, skips, seed] for seed in range(seeds)]
        found = torch.tensor([psnr(denoise(model, noisy), test) for model in ours])
        of_clean = torch.tensor([psnr(denoise(model, test), test) for model in ours])
        scores[world][skips] = found
        scores[world]["clean", skips] = of_clean
        listed = ", ".join(f"{one:.1f}" for one in found)
        print(f"{world:12} {psnr(noisy, test):6.1f} {str(skips):>7} {listed:>41} {of_clean.mean():18.1f}")

# %% [markdown] id="skips-silence-text"
# And what do the networks that were trained *with* skips lose if one of them is set to zero afterwards?

# %% id="skips-silence"
for world, (_, test, sigma) in WORLDS.items():
    noisy = with_noise(test, sigma)
    for i, name in ((1, "fine"), (0, "coarse")):
        lost = []
        for seed in range(seeds):
            model = models[world, True, seed]
            silence(model, i)
            lost.append(scores[world][True][seed].item() - psnr(denoise(model, noisy), test))
            restore(model, i)
        scores[world][name] = torch.tensor(lost)
        print(f"{world:12} without the {name:6} skip: {', '.join(f'{one:.1f}' for one in lost)} dB less")
if budget(smoke=False, laptop=True, gpu=False):
    gain = {world: score[True] - score[False] for world, score in scores.items()}
    assert gain["digits"].abs().max() < 0.6 and 2.5 < gain["photographs"].min() < gain["photographs"].max() < 4.5
    assert scores["photographs"][True].min() > scores["photographs"]["noisy"] + 1
    assert max(scores["photographs"][way].max() for way in (False, ("clean", False))) < scores["photographs"]["noisy"]
    loss = {world: (score["clean", True] - score["clean", False]).mean() for world, score in scores.items()}
    assert loss["digits"] < 3 < 4 < loss["photographs"]  # on clean input
    assert all((score["fine"] > score["coarse"]).all() for score in scores.values())

# %% [markdown] id="skips-read"
# Digits hardly need skips here: in each of three seeds the PSNR without them is lower by at most a few tenths of a
# decibel. The stronger noise may play a part, since it hides detail that skips could carry; on clean input, too, digits
# lose less without skips than photographs, but that does not rule it out, because the networks were trained with
# different noise. Another possible reason lies in the data. A 16 × 16 digit is an enlarged 8 × 8 one, and all digits
# are similar. A crop of a photograph can contain anything. The middle has room for it, 4 · 4 · 32 = 512 numbers for 256
# pixels, but the network must *learn* to encode every detail in them and to decode each at its place. In this short
# training it does not get far: even on clean crops, its error is larger than that of the noise. Skips carry the detail
# past the middle, so that it need not be encoded there.
#
# The second table shows something else: how much the trained networks *rely* on each skip. All rely more on the fine
# one, the digit networks too, although they could have learned to do without it.
#
# Here is the result on the whole portrait, cut into 64 tiles, with the networks of the first seed:

# %% id="portrait" tags=["static"]
portrait = photos.load("astronaut", size=256).mean(1, keepdim=True)[..., :128, 48:176]  # (1, 1, 128, 128)
tiles = F.unfold(portrait, 16, stride=16)[0].T.reshape(64, 1, 16, 16)


def together(tiles):
    """64 tiles back to one image: (64, 1, 16, 16) -> (1, 1, 128, 128)."""
    return F.fold(tiles.reshape(64, -1).T[None], 128, 16, stride=16)


noisy = with_noise(tiles, 0.1)
results = {
    "noisy": together(noisy),
    "with skips": together(denoise(models["photographs", True, 0], noisy)),
    "without": together(denoise(models["photographs", False, 0], noisy)),
}
titles = ["clean"] + [f"{name}, {psnr(found, portrait):.1f} dB" for name, found in results.items()]
show(
    plot_pictures(torch.cat([portrait, *results.values()]), titles, columns=4),
    "An astronaut's portrait: clean, with noise, restored by a U-Net with skips, and restored by one without, which "
    "is blurred and blocky.",
)

# %% [markdown] id="failure-text"
# ## A failure that leads on
#
# The digit networks remove a little noise. Can they draw? We take one of them, with skips and from the first seed, and
# give it more and more noise, up to noise alone. A classifier of digits, the *reader*, tests whether the output is
# still legible, on all 357 test digits. For comparison, another network is trained in the same way for noise of
# standard deviation 1.0 in place of 0.3.
#
# **Predict first.** From which noise on does the network trained at 0.3 fail? And what does it output for pure noise: a
# digit, a blur, or noise?
#
# <details><summary>Answer (after running the cells below)</summary>
# There is no sharp limit. At twice its noise level, 0.6, nineteen outputs in twenty are legible, at 1.0 more than
# four in five, at 2.0 about half. In the two cases of pure noise shown, it outputs smooth blobs that resemble no
# digit.
# </details>

# %% id="failure-table"
from course_utils.metrics.pictures import load_reader

reader = load_reader()
weak = models["digits", True, 0]
strong = trained(ink, 1.0, True, 0)
print("          legible, of 357 digits (± 2 standard errors)            PSNR of the output")
print("noise     noisy input   trained at 0.3   trained at 1.0     trained at 0.3   trained at 1.0")
legible, quality = {}, {}
for level in (0.1, 0.3, 0.6, 1.0, 1.5, 2.0):
    noisy = with_noise(unseen, level, seed=2)
    images = (noisy, denoise(weak, noisy), denoise(strong, noisy))
    with torch.no_grad():
        shares = [(reader(image).argmax(1) == unseen_labels).float().mean().item() for image in images]
    legible[level] = shares
    quality[level] = [psnr(image, unseen) for image in images[1:]]
    listed = [f"{share:4.0%} ± {2 * math.sqrt(share * (1 - share) / len(unseen)):3.0%}" for share in shares]
    print(
        f"{level:5} {listed[0]:>15} {listed[1]:>16} {listed[2]:>16} {quality[level][0]:18.1f} {quality[level][1]:16.1f}"
    )
if budget(smoke=False, laptop=True, gpu=False):
    assert legible[0.6][1] > 0.92 and 0.78 < legible[1.0][1] < 0.92 and 0.38 < legible[2.0][1] < 0.62
    assert all(legible[level][1] > legible[level][0] for level in (0.6, 1.0, 1.5, 2.0))
    assert abs(legible[1.0][1] - legible[1.0][2]) < 0.05
    assert quality[0.1][0] > quality[0.1][1] + 4 and quality[1.5][1] > quality[1.5][0] + 1.5

# %% [markdown] id="failure-look-text"
# The network trained at 0.3, on the first two test digits and on pure noise:

# %% id="failure" tags=["static"]
levels = (0.3, 0.6, 1.0, 2.0)
rows = []
for number in (0, 1):
    inputs = [with_noise(unseen[number], level, seed=number) for level in levels]
    inputs = torch.stack([*inputs, with_noise(torch.zeros(1, 16, 16), 1.0, seed=number)])  # the last: no digit at all
    rows += [inputs, denoise(weak, inputs)]
show(
    plot_pictures(
        torch.cat(rows),
        columns=5,
        heads=[f"noise {level}" for level in levels] + ["noise alone"],
        rows=["input", "output", "input", "output"],
    ),
    "Two digits under four strengths of noise, and noise alone; below each what the network outputs: the digits, "
    "rougher and rougher, and for noise alone blobs that are no digit.",
)

# %% [markdown] id="failure-read"
# The network trained at 0.3 degrades gradually: beyond that level its outputs are less and less legible, though more
# legible than the noisy images. By PSNR, each of the two networks (one seed each) is the better one near the level it
# was trained for: at 0.1 the network trained at 0.3 is better by 7.6 dB, at 1.5 the network trained at 1.0 is better by
# 2.8 dB. (Legible outputs at 1.0 are equally frequent within the intervals.) But the network trained at 1.0 cannot
# restore every digit from strong noise either. The stronger the noise, the less is left of the digit, and from pure
# noise no network can restore *the* digit, since there is none.
#
# So two things are missing. One network should handle *all* levels, and be given the level of its input: that is what
# $t$ is for. And there must be a path from pure noise to an image in steps so small that each is an easy restoration.
# Chapter 05 builds that path.

# %% [markdown] id="elsewhere"
# ## What you will read elsewhere
#
# **"Stable Diffusion is a transformer, like DALL·E."** Its denoiser is a U-Net: residual blocks like yours, with
# attention in between. Its text encoder is a transformer. We build both with the settings of Stable Diffusion v1.5, on
# torch's `meta` device, which keeps shapes but no numbers: 860 million parameters without any memory.

# %% id="elsewhere-sd-parts"
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

with torch.device("meta"):  # shapes without numbers
    denoiser = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    encoder = CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    )

# %% id="elsewhere-sd"
from collections import Counter


def kind_of(name, module):
    """To which kind of layer the module of this name belongs."""
    if ".attentions." in name:
        return "transformer blocks"
    return "convolutions" if isinstance(module, nn.Conv2d) else "time and norms"


kinds = Counter()
for name, module in denoiser.named_modules():
    kinds[kind_of(name, module)] += sum(p.numel() for p in module.parameters(recurse=False))
total = sum(kinds.values())
for kind, number in kinds.most_common():
    print(f"{kind:32} {number:12,} {number / total:6.1%}")
print(f"{'the U-Net':32} {total:12,}")
print(f"{'the text encoder':32} {sum(p.numel() for p in encoder.parameters()):12,}")
sides = [64 // 2**i for i, kind in enumerate(denoiser.config.down_block_types) if kind == "CrossAttnDownBlock2D"]
print("levels with attention on the way down, pixels along a side:", sides)
assert total == 859_520_964 and kinds["convolutions"] > 0.6 * total and sides == [64, 32, 16]

# %% [markdown] id="elsewhere-sd-read"
# About two thirds of the parameters are convolutions. Another 31 % sit in small transformer blocks inside the U-Net,
# each with an attention to pixels, one to words, and a small feed-forward network (and a 1 × 1 convolution before and
# after, counted with them here). They stand at three levels, the full 64 × 64 latent included, and in
# the middle. The first DALL·E, in contrast, is a transformer that writes image tokens one after the other (chapter
# 13); DALL·E 2 and 3 are diffusion models. Stable Diffusion 3 and Flux replaced the U-Net by a transformer (chapter
# 14).
#
# **"Attention takes into account where pixels are."** It does not. If the pixels are shuffled, the outputs are shuffled
# in the same way and otherwise unchanged: attention is *permutation-equivariant*. A convolution is not:

# %% id="elsewhere-where"
x = torch.randn(1, 16, 8, 8, generator=generator)
order = torch.randperm(64, generator=generator)


def shuffle(x):
    """Move all pixels, in all channels alike: like x."""
    return x.flatten(2)[:, :, order].reshape(x.shape)


attend = attending.PixelAttention(16)
nn.init.normal_(attend.attend.to_out.weight)  # it starts at zero
for name, layer in (("attention", attend), ("convolution", nn.Conv2d(16, 16, 3, padding=1))):
    difference = (layer(shuffle(x)) - shuffle(layer(x))).abs().mean() / layer(x).abs().mean()
    print(f"{name:12} shuffled before, or after: relative difference of the outputs {difference:.1e}")
    assert (difference < 1e-5) == (name == "attention")

# %% [markdown] id="elsewhere-where-read"
# In a U-Net the convolutions provide the neighbourhoods that attention ignores. A transformer without convolutions
# needs positions written into its tokens, like the painter's learned queries.
#
# **"Transposed convolutions cause checkerboards; a kernel that the stride divides cures them."** Half true: in section
# 2, a kernel of 4 with stride 2 left a constant image constant with equal weights, but not with random ones. **"A U-Net
# is nothing without its skips."** Section 7 measured it: hardly a loss for digits, a large one for photographs.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $n' = \lfloor (n + 2p - r(k-1) - 1)/s \rfloor + 1$ | `conv_output_size(size, kernel, stride, padding, dilation)` |
# | copies of the kernel that reach an output position | `overlap_count(size, kernel, stride)` |
# | $\text{softmax}(QK^\top/\sqrt d)\,V$ | `attention(q, k, v)` |
# | (batch, tokens, heads · d) → (batch, heads, tokens, d) | `split_heads(x, heads)` |
# | $[\sin \omega_i t, \cos \omega_i t]$, $\omega_i = 10000^{-2i/\text{width}}$ | `time_embedding(t, width)` |
# | $(x - \text{mean})/\sqrt{\text{variance} + \text{eps}}$ | `group_norm(x, groups)` |
# | $x + g(x)$, with the time inside | `ResidualBlock(inside, outside, time_width)` |
# | down, middle, up, with skips | `through_the_u(x, down, shrink, middle, grow, up)` |
#
# Together they make `UNet(UNetConfig(...))`, called as `model(x_t, t, cond)`.

# %% [markdown] id="questions"
# `progress()`, in a cell of its own, shows which exercises of the course you have solved.
#
# ### To think about
#
# Open a line for the answer.
#
# <details><summary>1. A convolution with kernel 3, stride 2 and padding 1 halves 16 to 8. What does it make of 15, and
# what does that mean for a U-Net?</summary>
# Also 8. On the way up, 8 becomes 16, and the skip of 15 does not fit. So a U-Net requires sides that can be halved
# evenly, or pads its input.
# </details>
# <details><summary>2. You give every pixel the same query. What does its self-attention return, and what if all
# keys are the same?</summary>
# With the same query for all, every pixel gets the same blend of values. With the same key for all, each share is
# 1/n² in an image of n × n pixels, so every pixel gets the plain mean of all values. In both cases the output is the
# same vector at every pixel; only in the first can the blend favour some pixels.
# </details>
# <details><summary>3. Only the last convolution of a residual block starts at zero. What would happen if the first one
# started at zero as well?</summary>
# In a block without the time, the weights of neither would get a gradient: that of conv1 is multiplied by conv2's
# weights, and that of conv2 by its input, silu(norm2(0)) = 0. With the time in between, conv2's input is not zero, so
# conv2 learns in the first step and conv1 from the second on (section 5 printed both cases). But nothing is gained:
# with conv2 at zero the block already outputs its shortcut alone, and zeros in conv1 would only make conv2's first
# updates blind to the image.
# </details>

# %% [markdown] id="papers"
# **Papers** Convolution arithmetic: Dumoulin and Visin, [arXiv:1603.07285](https://arxiv.org/abs/1603.07285).
# Checkerboards: Odena et al., [distill.pub](https://distill.pub/2016/deconv-checkerboard/). Attention: Vaswani et
# al., [arXiv:1706.03762](https://arxiv.org/abs/1706.03762). Attention without keeping the map: Rabe and Staats,
# [arXiv:2112.05682](https://arxiv.org/abs/2112.05682); Dao et al.,
# [arXiv:2205.14135](https://arxiv.org/abs/2205.14135). Maps of words: Hertz et al.,
# [arXiv:2208.01626](https://arxiv.org/abs/2208.01626). Group norm: Wu and He,
# [arXiv:1803.08494](https://arxiv.org/abs/1803.08494). Initial weights: He et al.,
# [arXiv:1502.01852](https://arxiv.org/abs/1502.01852). Residual blocks: He et al.,
# [arXiv:1603.05027](https://arxiv.org/abs/1603.05027). U-Net: Ronneberger et al.,
# [arXiv:1505.04597](https://arxiv.org/abs/1505.04597). The U-Net of diffusion: Ho et al.,
# [arXiv:2006.11239](https://arxiv.org/abs/2006.11239).

# %% [markdown] id="bonus"
# ## Bonus: one network, any size
#
# No layer of the U-Net depends on the size of its input. The networks trained on 16 × 16 crops can also process
# larger tiles, or the whole portrait at once, as long as the sides can be halved twice. Is the result better or
# worse?

# %% id="bonus-run"
noisy_portrait = together(with_noise(tiles, 0.1))
model = models["photographs", True, 0]
score = {}
for side in (16, 32, 64, 128):
    number = (128 // side) ** 2
    cut = F.unfold(noisy_portrait, side, stride=side)[0].T.reshape(number, 1, side, side)
    found = F.fold(denoise(model, cut).reshape(number, -1).T[None], 128, side, stride=side)
    score[side] = psnr(found, portrait)
    print(f"in tiles of {side:3} x {side:3}: {score[side]:.2f} dB")
if budget(smoke=False, laptop=True, gpu=False):
    assert score[16] > score[32] > score[128] and score[16] > score[128] + 2

# %% [markdown] id="bonus-read"
# Worse for this network and this image, although each pixel has more context. The network *runs* at any size, which
# does not mean that it works there. At 16 × 16 the zeros of the padding are near every pixel, the norms average over
# 256 pixels, and the attention over 16. In larger tiles all three change. (This run does not tell which of them matters
# most. To find out, change one at a time: for example, process the whole portrait, but let only the norms, or only the
# attention, work separately in each square of 16 × 16 pixels.) Stable Diffusion v1.5 has the same limitation: trained
# at 512 × 512, it runs at other sizes too, with more errors the further they are from that.
