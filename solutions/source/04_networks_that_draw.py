# %% [markdown] id="title"
# # 04 · Networks that draw
#
# From here to chapter 12 one kind of network does the drawing, in Stable Diffusion too: it takes a picture and gives a
# picture of the same size. This chapter takes it apart into six small pieces, builds each by hand, and puts them
# together again: the *U-Net*.
#
# ![An astronaut's portrait: clean, with noise, restored by a U-Net, and restored by the same U-Net without skip
# connections, which is a blur.](../chapters/figures/04_restored.png)
#
# **After this chapter you can**
# 1. say which size, how many weights and how many multiplications a convolution has, and cure checkerboards;
# 2. write attention in three lines, read its maps, and say what it costs in bytes;
# 3. build a U-Net, explain each of its shapes, and measure what its skip connections carry.
#
# **Time** 75 minutes of reading, 105 of exercises; all cells take about three minutes on a CPU, less on a GPU. **You
# need** chapters 01 to 03, which used convolutions as tools: here you look into them.

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
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $x$ | `x` | a batch of pictures, or of what a layer made of them | (batch, channels, height, width) |
# | $n$ | `size` | pixels along one side | a number |
# | $k, s, p, d$ | `kernel, stride, padding, dilation` | the settings of a convolution, along one side | numbers |
# | $Q, K, V$ | `q, k, v` | queries, keys, values | (..., queries, d), (..., keys, d), (..., keys, d_v) |
# | $A$ | `weights` | who attends to whom: the attention map | (..., queries, keys) |
# | $t$ | `t` | a time, later the level of the noise | (batch,) |
# | $e$ | `embedding` | the time, said by sines and cosines | (batch, width) |
#
# A *channel* is one number a pixel: three in a colour picture, dozens inside a network. The letter $d$ is the dilation
# in section 1 and the length of a key in section 3. Both are usual.

# %% [markdown] id="toy"
# ## Who learns edges from one digit?
#
# The task: get a digit, return its edges (each pixel's right neighbours minus its left ones). Two pupils. The *dense*
# layer joins each of 256 pixels in to each of 256 pixels out: 65 536 weights. The *convolution* has nine, and uses
# the same nine at every place. Both are fitted exactly, by least squares, to very few digits.
#
# **Predict first.** Which of them gets *new* digits right after having seen 1 digit? After 30? After 1440? And a cat?

# %% id="toy-run"
ink, _ = digits.load(16)  # (1440, 1, 16, 16) in [-1, 1]
unseen, _ = digits.load(16, split="test")  # (357, 1, 16, 16)
kernel_of_edges = torch.tensor([[-1.0, 0, 1], [-1, 0, 1], [-1, 0, 1]])[None, None] / 3  # (1, 1, 3, 3)


def edges(x):
    """The edges of digits, on paper that goes on beyond the border: (batch, 1, h, w) -> the same."""
    return F.conv2d(F.pad(x, (1, 1, 1, 1), value=-1), kernel_of_edges.to(x.dtype))


def patches(x):
    """The 3 x 3 neighbourhood of each pixel, as rows: (batch * h * w, 9)."""
    return F.unfold(F.pad(x, (1, 1, 1, 1), value=-1), 3).transpose(1, 2).flatten(0, 1)


kitten = photos.load("chelsea", size=16).mean(1, keepdim=True)  # a cat in grey, (1, 1, 16, 16)
wanted = edges(unseen)
print("digits seen   dense layer: on new digits   on a cat   convolution: on new digits   on a cat")
for number in (1, 10, 30, 1440):
    seen = ink[:number].double()
    dense = torch.linalg.pinv(seen.flatten(1), rtol=1e-6) @ edges(seen).flatten(1)  # (256, 256)
    shared = torch.linalg.lstsq(patches(seen), edges(seen).reshape(-1, 1)).solution  # (9, 1)
    errors = []
    for test in (unseen.double(), kitten.double()):
        for guess in (test.flatten(1) @ dense, patches(test) @ shared):
            off = guess.reshape(test.shape) - edges(test)
            errors.append((off.square().mean() / edges(test).square().mean()).item())
    print(f"{number:11} {errors[0]:28.3f} {errors[2]:10.3f} {errors[1]:28.3f} {errors[3]:10.3f}")
    assert max(errors[1], errors[3]) < 1e-6
print("(the mean square error; 1 is as bad as answering 0)")

# %% [markdown] id="toy-read"
# One digit is enough for the nine weights: it shows them 256 examples, one at each place. The dense layer must learn
# each place anew, and what it learnt holds for digits only. And what did the nine learn? To the eye:

# %% id="toy-look" tags=["static"]
cat = photos.load("chelsea", size=96)  # (1, 3, 96, 96)
lines = (patches(cat.mean(1, keepdim=True)) @ shared.float()).reshape(1, 1, 96, 96)
print("the nine weights, times 3:\n", (3 * shared).reshape(3, 3).round().int().numpy())
digit_row = plot_pictures(torch.cat([unseen[:4], wanted[:4]]), columns=8)
show(digit_row, "Four digits and their edges: white where ink begins on the right, black where it ends.")
show(
    plot_pictures(torch.cat([cat, (3 * lines).expand(-1, 3, -1, -1)]), ["the cat", "its edges"]),
    "A photograph of a cat and what nine weights, fitted to digits, make of it: the edges of whiskers, ears and eyes.",
)

# %% [markdown] id="conv-text"
# ## 1 · Convolution, counted
#
# Slide a small window, the *kernel*, over the picture. At each place multiply the numbers under it with the kernel's
# weights and add up, over all channels:
#
# $$y_{o,i,j} = b_o + \sum_{c,u,v} w_{o,c,u,v}\; x_{c,\; s i + d u,\; s j + d v}$$
#
# In words: output channel $o$ at row $i$ and column $j$ is a bias $b_o$ plus the weights $w$ times the pixels $x$ of
# all channels $c$ under the window. The *stride* $s$ says how far the window jumps, the *dilation* $d$ how far its
# rows $u$ and columns $v$ lie apart. *Padding* puts $p$ rows of zeros around the picture first.


# %% id="conv-by-hand"
def convolve(x, weight, bias, stride=1, padding=0, dilation=1):
    """A convolution, place by place: (batch, channels, h, w), (out, channels, k, k) -> (batch, out, h', w')."""
    x = F.pad(x, (padding,) * 4)
    reach = dilation * (weight.shape[2] - 1) + 1
    rows = []
    for i in range(0, x.shape[2] - reach + 1, stride):
        for j in range(0, x.shape[3] - reach + 1, stride):
            window = x[:, :, i : i + reach : dilation, j : j + reach : dilation]  # (batch, channels, k, k)
            rows.append(torch.einsum("bcuv,ocuv->bo", window, weight) + bias)
    wide = (x.shape[3] - reach) // stride + 1
    return torch.stack(rows, 2).unflatten(2, (-1, wide))  # (batch, out, h', w')


generator = torch.Generator().manual_seed(4)
x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((2, 3, 11, 14), (5, 3, 3, 3), (5,)))
for settings in ((1, 0, 1), (2, 1, 1), (3, 2, 2)):
    mine = convolve(x, weight, bias, *settings)
    torch.testing.assert_close(mine, F.conv2d(x, weight, bias, *settings), rtol=1e-4, atol=1e-4)
    print("stride {}, padding {}, dilation {}:".format(*settings), tuple(x.shape), "->", tuple(mine.shape))

# %% [markdown] id="size-exercise"
# How large is what comes out? Think of a row of $n$ pixels, $n + 2p$ with padding. The spread kernel covers
# $d(k-1)+1$ of them. Put it at the left end, then jump by $s$ as often as it fits:
#
# $$n' = \left\lfloor \frac{n + 2p - d(k-1) - 1}{s} \right\rfloor + 1$$
#
# ### Exercise 1 · The size that comes out
#
# **Difficulty** ●●○○○ **Minutes** 10. Most errors in other people's networks are errors of this line.
#
# Replace the `raise` line, run both cells, and read what the second says. If you are stuck, take the `#` away before
# `hint`. Until yours is right, the course's own version stands in. All are in the
# [solved notebook](../solutions/04_networks_that_draw.ipynb).


# %% id="conv-output-size"
def conv_output_size(size, kernel, stride=1, padding=0, dilation=1):
    """floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1, an int; all inputs are ints, for one side."""
    ### BEGIN SOLUTION
    #: how many pixels the spread kernel covers
    reach = dilation * (kernel - 1) + 1
    #: the first place, and one more for each whole stride that is left
    return (size + 2 * padding - reach) // stride + 1
    ### END SOLUTION


# %% id="conv-output-size-check"
conv_output_size = check("04.conv_output_size", conv_output_size)
# hint("04.conv_output_size")

# %% [markdown] id="same-size-text"
# Two settings to know by heart: kernel 3, padding 1 keeps the size; kernel 3, stride 2, padding 1 halves an even one.
# Now the costs. A convolution has $k^2 c\, c' + c'$ parameters, for $c$ channels in and $c'$ out, *whatever the size of
# the picture*. It does $k^2 c\, c'$ multiplications for each of its $n'^2$ output pixels. `FlopCounterMode` counts what
# torch really does; it counts a multiplication and the addition after it as two.

# %% id="counting"
from torch.utils.flop_counter import FlopCounterMode

print("picture       layer                      parameters   multiplications")
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
# Few weights, but short sight: an output pixel knows only the nine under its window. Layers in a row see further. How
# far? Ask the gradient: *which input pixels does the middle output pixel depend on?*
#
# **Predict first.** How wide is the view of three 3 x 3 convolutions in a row? And if the first two have a stride of 2?


# %% id="reach"
def view(layers, size=65):
    """How many pixels along a side the middle output pixel depends on: the receptive field."""
    x = torch.zeros(1, 1, size, size, requires_grad=True)
    out = nn.Sequential(*layers)(x)
    middle = out.shape[-1] // 2
    (gradient,) = torch.autograd.grad(out[0, 0, middle, middle], x)
    return int((gradient[0, 0].abs().sum(0) > 0).sum())


def layer(stride=1, dilation=1):
    """A 3 x 3 convolution whose weights are all 1, so that no gradient cancels."""
    made = nn.Conv2d(1, 1, 3, stride, padding=dilation, dilation=dilation)
    nn.init.ones_(made.weight)
    return made


for name, layers in (
    ("three plain", [layer()] * 3),
    ("dilations 1, 2, 4", [layer(dilation=d) for d in (1, 2, 4)]),
    ("strides 2, 2, 1", [layer(2), layer(2), layer()]),
    ("ten plain", [layer()] * 10),
):
    print(f"{name:18} see {view(layers)} pixels wide")
assert [view([layer()] * number) for number in (1, 2, 3)] == [3, 5, 7]

# %% [markdown] id="reach-read"
# Plain layers gain two pixels each. Halving the picture doubles the step of everything that comes after it, and makes
# that four times cheaper. So networks that draw go *down* to a small picture, think there, and come *up* again. The
# next section is the way up.

# %% [markdown] id="up-text"
# ## 2 · Upsampling and its checkerboards
#
# To make a picture twice as wide and high: *nearest* repeats each pixel; *bilinear* blends neighbours; a *transposed
# convolution* learns it. The last runs a convolution backwards: each input pixel writes a copy of the kernel, times
# its value, into the output, $s$ places further each time, and where copies overlap they add up.

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
# The third corgi lies under a grid, though all weights are equal. Why? Look at the kernel of 3 with stride 2, along one
# row. Copies begin at 0, 2, 4, ... and are 3 long. Place 2 gets the end of the first copy *and* the start of the
# second; place 3 only the middle of the second. In two dimensions: 1, 2 or 4 contributions.

# %% [markdown] id="overlap-exercise"
# ### Exercise 2 · Count the overlaps
#
# **Difficulty** ●●●○○ **Minutes** 15. The cause of a famous artefact, exactly, in integers.
#
# Return int64 counts: how many input pixels reach each place of the output, along one side, without padding.


# %% id="overlap-count"
def overlap_count(size, kernel, stride):
    """How many of `size` input pixels reach each output place of a transposed convolution; int64 (places,)."""
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
# Two rows in full, and then which settings are even away from the border:

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
# Away from the border the counts are even exactly if the stride divides the kernel. So one cure is a kernel of 4 with
# stride 2. The other: enlarge by *nearest*, then convolve with stride 1 (*resize-convolution*).
#
# ### Play with it
#
# **Predict first.** Kernel 5, stride 3: which counts? And does an ordinary convolution with a stride *read* its pixels
# evenly? Two settings as still pictures, then the live control.

# %% id="film-overlap" tags=["static"]
from course_utils.widgets import attention_explorer, explore, filmstrip, overlap_explorer

overlaps = overlap_explorer()
filmstrip(overlaps, [{}, {"kernel": 4}])

# %% id="explore-overlap"
explore(overlaps)

# %% [markdown] id="cure-text"
# (Yes, a strided convolution reads unevenly, in the same pattern: it shows up in its gradients.)
#
# Now three layers in a row, on a *constant* grey picture. Whatever pattern comes out was made by the network. First
# with equal weights, then with random ones.
#
# **Predict first.** Is a kernel of 4 with stride 2 safe if its weights are random? Is resize-convolution?


# %% id="enlarge"
def enlarge(x, how, weight):
    """Double the side, by a transposed convolution with this kernel or by nearest and a convolution; (1, 1, h, w)."""
    if how == "resize":
        nearest = x.repeat_interleave(2, 2).repeat_interleave(2, 3)  # (1, 1, 2h, 2w)
        return F.conv2d(F.pad(nearest, (1, 1, 1, 1), mode="replicate"), weight)
    return F.conv_transpose2d(x, weight, stride=2)


def pattern(how, kernel, random):
    """The middle of a constant picture after three doublings, with mean 1: (1, 1, 40, 40)."""
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
titles = [f"{how}, {kernel}, {'random' if random else 'equal'}" for how, kernel, random in cases]
show(
    plot_pictures(torch.cat(found) - 1, titles, columns=3),  # the mean is grey
    "A constant picture after three doublings: a checkerboard for kernel 3, none for kernel 4 with equal weights but "
    "one with random weights, none for resize-convolution.",
)
for title, number in zip(titles, spread, strict=True):
    print(f"{title:22} brightest minus darkest, over the mean: {number:.4f}")
assert min(spread[0], spread[3], spread[4]) > 0.1 and max(spread[1], spread[2], spread[5]) < 1e-5

# %% [markdown] id="cure-read"
# So the common advice is half true. A kernel that the stride divides *can* be even, and equal weights are; but four
# phases of weights write the four kinds of output pixels, and only training makes them agree. Resize-convolution
# cannot draw a checkerboard on a constant picture, whatever its weights. The U-Net below uses it.
#
# And all are relatives: nearest and bilinear *are* transposed convolutions, with fixed even kernels.

# %% id="relatives"
for name, row in (("nearest", [1.0, 1]), ("bilinear", [0.25, 0.75, 0.75, 0.25])):
    row = torch.tensor(row)
    made = F.conv_transpose2d(page, (row[:, None] * row).expand(3, 1, -1, -1), stride=2, groups=3)
    cut = (made.shape[-1] - 64) // 2
    made = made[..., cut : cut + 64, cut : cut + 64]
    torch.testing.assert_close(made[..., 1:-1, 1:-1], F.interpolate(page, scale_factor=2, mode=name)[..., 1:-1, 1:-1])
    print(f"{name:9} equals a transposed convolution with the row {row.tolist()} and stride 2")

# %% [markdown] id="attention-text"
# ## 3 · Attention: every pixel may ask every pixel
#
# A corgi's left ear should match its right ear, twenty pixels away. Convolutions pass that on step by step; *attention*
# asks directly. Each pixel makes three vectors: a *query* (what do I look for?), a *key* (what am I?), a *value* (what
# do I tell?).
#
# $$\text{attention}(Q, K, V) = A\,V, \qquad A = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt d}\right)$$
#
# In words: compare each query with each key by a dot product, divide by the root of their length $d$, turn each row
# into shares that add up to 1 (*softmax*), and average the values with these shares. It is a dictionary that answers
# with a blend. By hand, with a known answer:

# %% id="attention-by-hand"
words = ["red", "green", "blue"]
k = torch.tensor([[4.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0]])  # one key for each word: (3, 4)
v = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])  # what each word means, as a colour: (3, 3)
for name, query in (("red", [4.0, 0, 0, 0]), ("red or blue", [4, 0, 4, 0]), ("none of them", [0, 0, 0, 4])):
    scores = [sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(4) for key in k.tolist()]
    total = sum(math.exp(score) for score in scores)
    shares = [math.exp(score) / total for score in scores]
    print(f"asked for {name:12} scores {scores}, shares {[round(share, 3) for share in shares]}")

# %% [markdown] id="attention-exercise"
# ### Exercise 3 · Attention
#
# **Difficulty** ●●●○○ **Minutes** 15. Three lines that run in every large model of today.
#
# Any axes may stand in front, such as batch and heads. `k.transpose(-2, -1)` swaps the last two. Training will send
# gradients through your function, so stay with torch functions.


# %% id="attention"
def attention(q, k, v):
    """softmax(q k^T / sqrt(d)) v; (..., queries, d), (..., keys, d), (..., keys, d_v) -> (..., queries, d_v)."""
    ### BEGIN SOLUTION
    #: how well each query fits each key, over the root of their length: (..., queries, keys)
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
# ### Why the root of d?
#
# A dot product of two random vectors of length $d$ adds up $d$ products, each of variance 1: so its standard deviation
# is $\sqrt d$. Sixteen random keys, a thousand random queries: how large is the largest share?

# %% id="scale"
q, k, v = (torch.randn(2, 8, number, 32, generator=generator) for number in (50, 60, 60))
torch.testing.assert_close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v), rtol=1e-4, atol=1e-5)
torch.testing.assert_close(attention(q, k, v), attending.attention(q, k, v))

print("   d   std of the dot product   largest share: unscaled   over sqrt(d)   over d")
for d in (4, 64, 1024):
    q, k = torch.randn(1000, d, generator=generator), torch.randn(16, d, generator=generator)
    largest = [(q @ k.T / scale).softmax(-1).amax(-1).mean().item() for scale in (1, math.sqrt(d), d)]
    print(f"{d:4} {(q @ k.T).std():24.2f} {largest[0]:24.2f} {largest[1]:14.2f} {largest[2]:8.2f}")

# %% [markdown] id="scale-read"
# Unscaled, long vectors make the softmax a hard choice of one key, through which hardly any gradient flows. Over $d$ it
# is the plain average, 1/16 = 0.06, whatever is asked. Over $\sqrt d$ the sharpness does not depend on $d$.
#
# ### Look at a map
#
# Below, a pixel of the corgi attends to all pixels of its page. Query and key are simply the pixel's colour, times a
# *sharpness*, and its place, times a *nearness*. (A network learns what to compare instead.)
#
# **Predict first.** The query is a pixel of the orange fur. Where will the map be bright? What does nearness change?

# %% id="film-attention" tags=["static"]
maps = attention_explorer(page)
fur = {"row": 22, "column": 7}
filmstrip(maps, [fur | {"sharpness": 2.0}, fur | {"sharpness": 5.0}, fur | {"sharpness": 5.0, "nearness": 4.0}])

# %% id="explore-attention"
explore(maps)

# %% [markdown] id="heads-text"
# With colour alone the fur finds all the fur: tail, body, both ears, at any distance, in one step. With nearness it
# finds the fur close by.
#
# ### Several heads
#
# One softmax gives one blend. To ask several questions at once, cut each vector of length $h \cdot d$ into $h$ pieces,
# attend with each (a *head*), and put the answers side by side. The pieces must become an axis of their own, in
# front of the tokens: (batch, tokens, heads · d) → (batch, heads, tokens, d).
#
# ### Exercise 4 · Split the heads
#
# **Difficulty** ●●○○○ **Minutes** 10. One line, and a silent error if it is wrong: everything runs, and mixes
# tokens.


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
# The way back, `merge_heads`, swaps the axes again and flattens. With four linear layers around it this is the
# package's `Attention`, and torch's `MultiheadAttention`: with the same weights, the same answer.

# %% id="module"
tokens = torch.randn(2, 10, 32, generator=generator)
torch.testing.assert_close(attending.merge_heads(split_heads(tokens, 4)), tokens)

ours, library = attending.Attention(32, heads=4), nn.MultiheadAttention(32, 4, batch_first=True)
with torch.no_grad():
    library.in_proj_weight.copy_(torch.cat([ours.to_q.weight, ours.to_k.weight, ours.to_v.weight]))
    library.in_proj_bias.zero_()
    library.out_proj.weight.copy_(ours.to_out.weight)
    library.out_proj.bias.copy_(ours.to_out.bias)
    q, k, v = (split_heads(part(tokens), 4) for part in (ours.to_q, ours.to_k, ours.to_v))
    by_hand = ours.to_out(attending.merge_heads(attention(q, k, v)))
    for name, answer in (("course_utils", ours(tokens)), ("torch", library(tokens, tokens, tokens)[0])):
        print(f"{name:13} largest difference {(by_hand - answer).abs().max():.1e}")
        torch.testing.assert_close(by_hand, answer, rtol=1e-4, atol=1e-5)

# %% [markdown] id="memory-text"
# ### What it costs
#
# A picture of $n \times n$ pixels has $n^2$ queries and $n^2$ keys: the map has $n^4$ numbers. In float32 that is
# $4 n^4$ bytes a head and picture. Training keeps the map for the backward pass. How much is really kept? torch can
# tell: a hook sees every tensor that is saved.


# %% id="memory"
def kept_bytes(function, side):
    """Bytes that one head's attention on side x side pixels keeps for its backward pass."""
    q, k, v = (torch.randn(1, 1, side**2, 16, requires_grad=True) for _ in range(3))
    seen = {}

    def note(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        function(q, k, v)
    return sum(seen.values())


print("pixels     the map, counted   by hand, measured   fused, measured")
for side in (16, 32, 64):
    counted, by_hand = 4 * side**4, kept_bytes(attention, side)
    fused = kept_bytes(F.scaled_dot_product_attention, side)
    print(f"{side} x {side} {counted:18,} {by_hand:19,} {fused:17,}")
    assert counted <= by_hand and fused < counted / 3
print(f"512 x 512 {4 * 512**4:17,}")

# %% [markdown] id="memory-read"
# Twice the side, sixteen times the map: from a quarter of a megabyte to 67. At 512 x 512 pixels one head's map would
# have 275 gigabytes. Two ways out, and Stable Diffusion takes both. Attend only where the picture is small. And
# compute the map in pieces that are thrown away and made again when needed: that is what the *fused* function does.
# (The time still grows with $n^4$.)

# %% [markdown] id="cross-text"
# ## 4 · Words enter the picture
#
# So far queries, keys and values came from one picture: *self-attention*. Let the queries come from the pixels and
# keys and values from *words*: *cross-attention*. Each pixel asks the sentence what it should be. The map has a row for
# each pixel and a column for each word. This is how text enters Stable Diffusion.
#
# A toy whose answer is known: a picture of four quarters, a prompt of four words in any order. Each word names a
# quarter and a colour, such as "upper left: red". Nobody tells the network which word matters where.

# %% id="painter"
PALETTE = torch.tensor(
    [[0.8, -0.6, -0.6], [0.8, 0.7, -0.7], [-0.6, 0.4, -0.5], [-0.7, -0.2, 0.8], [0.7, 0.2, 0.7], [-0.8, -0.8, -0.8]]
)  # red, yellow, green, blue, pink, black: (6, 3)
side = torch.arange(16) // 8
quarter = (2 * side[:, None] + side).flatten()  # which quarter each of the 256 pixels lies in


class Painter(nn.Module):
    """Words (batch, 4, width) to pictures (batch, 256, 3): one layer of cross-attention."""

    def __init__(self, width=32):
        super().__init__()
        self.place, self.colour = nn.Embedding(4, width), nn.Embedding(6, width)
        self.pixels = nn.Parameter(0.1 * torch.randn(1, 256, width))  # a learned query for each place
        self.look, self.paint = attending.Attention(width, heads=1), nn.Linear(width, 3)

    def words(self, places, colours):
        return self.place(places) + self.colour(colours)  # (batch, 4, width)

    def forward(self, words):
        return self.paint(self.look(self.pixels.expand(len(words), -1, -1), words))


# %% [markdown] id="painter-train-text"
# Its training: prompts at random, and the picture that each asks for.


# %% id="painter-train"
def prompts(number, generator):
    """Random prompts: quarters in random order, colours (number, 4), and the pictures (number, 256, 3)."""
    places = torch.stack([torch.randperm(4, generator=generator) for _ in range(number)])
    colours = torch.randint(6, (number, 4), generator=generator)
    of_quarter = colours.gather(1, places.argsort(1))  # the colour of quarter 0, 1, 2, 3
    return places, colours, PALETTE[of_quarter[:, quarter]]


torch.manual_seed(0)
painter = Painter()
optimizer = torch.optim.Adam(painter.parameters(), lr=1e-2)
examination = prompts(64, torch.Generator().manual_seed(1))


def error(exam):
    """The mean square error of the painter on these prompts, a number with gradients."""
    return (painter(painter.words(*exam[:2])) - exam[2]).square().mean()


before = error(examination).item()
live = LivePlot("The painter's loss falls by several powers of ten.", log_scale=True)
for step in range(budget(smoke=30, laptop=200, gpu=200)):
    loss = error(prompts(32, generator))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    live.update(step, loss.item())
live.finish()
after = error(examination).item()
print(f"error on new prompts: before {before:.3f}, after {after:.1e}")
assert after < before

# %% id="painter-maps" tags=["static"]
places, colours, picture = (part[:1] for part in examination)
with torch.no_grad():
    words = painter.words(places, colours)  # (1, 4, 32)
    weights = painter.look.weights(painter.pixels, words)[0, 0]  # (256, 4)
    drawn = painter(words)

corners = ("upper left", "upper right", "lower left", "lower right")
names = ("red", "yellow", "green", "blue", "pink", "black")
titles = ["drawn"] + [f"{corners[p]}: {names[c]}" for p, c in zip(places[0], colours[0], strict=True)]
heat = (2 * weights.T - 1).reshape(4, 1, 16, 16).expand(-1, 3, -1, -1)
show(
    plot_pictures(torch.cat([drawn.reshape(1, 16, 16, 3).permute(0, 3, 1, 2), heat]), titles, columns=5),
    "A picture of four coloured quarters and, for each of the four words, its attention map: white on the quarter it "
    "names, black elsewhere.",
)
share = torch.stack([weights[quarter == p, word].mean() for word, p in enumerate(places[0].tolist())])
shuffled = torch.tensor([2, 0, 3, 1])
print("share of the right word in its quarter:", [round(s, 3) for s in share.tolist()])
assert torch.allclose(painter(words[:, shuffled]), drawn, atol=1e-5)
if budget(smoke=False, laptop=True, gpu=True):
    assert share.min() > 0.95 and after < 1e-3

# %% [markdown] id="painter-read"
# Each pixel found the word that speaks of it. And the picture does not depend on the order of the words: attention
# sees a *set* of words. Whoever wants word order must write it into the words, as the text encoder of chapter 08 does.
#
# > **Given now, built in chapters 06 to 10:** the finished picture-book model. Its U-Net asks a sentence in the same
# > way. We catch queries and keys of its last cross-attention layer but one while it draws.

# %% id="real-maps"
from course_utils.pipelines.picture_book import load_picture_book

pipe = load_picture_book()
*_, layer = (module for name, module in pipe.unet.named_modules() if name.startswith("up") and name.endswith("0.attn2"))
caught = []


def catch(module, arguments, named):
    """Note the attention map of one step, averaged over the heads: (pixels, words)."""
    q = module.head_to_batch_dim(module.to_q(arguments[0]))
    k = module.head_to_batch_dim(module.to_k(named["encoder_hidden_states"]))
    weights = attending.attention_weights(q, k).unflatten(0, (-1, module.heads)).mean(1)
    caught.append(weights[-1])  # each step runs without and with the prompt (chapter 10); this is with


hook = layer.register_forward_pre_hook(catch, with_kwargs=True)
prompt = "a corgi puppy sitting on the grass"
picture = pipe(
    prompt,
    num_inference_steps=budget(smoke=2, laptop=20, gpu=20),
    guidance_scale=3,
    output_type="pt",
    generator=torch.Generator().manual_seed(3),
).images.cpu()
hook.remove()
looks = torch.stack(caught).mean(0).cpu()  # over the steps: (pixels, words)
assert torch.allclose(looks.sum(1), torch.ones(len(looks)), atol=1e-4)

# %% id="real-maps-look" tags=["static"]
words = [pipe.tokenizer.decode([number]) for number in pipe.tokenizer(prompt).input_ids]
extent = int(len(looks) ** 0.5)
figure, axes = plt.subplots(1, 5, figsize=(9, 2.3))
axes[0].imshow(picture[0].permute(1, 2, 0))
axes[0].set_title("drawn")
for ax, word in zip(axes[1:], ("corgi", "sitting", "grass", "a"), strict=True):
    ax.imshow(looks[:, words.index(word)].reshape(extent, extent), cmap="magma")
    ax.set_title(f'"{word}"')
for ax in axes:
    ax.set_axis_off()
show(
    figure,
    "A drawn corgi on grass, and where four words of the prompt are looked at: corgi and sitting on the body "
    "of the puppy, grass around it, the first word everywhere but on the puppy.",
)
puppy, lawn = looks[:, words.index("corgi")], looks[:, words.index("grass")]
print(f"correlation of the maps of corgi and grass: {torch.corrcoef(torch.stack([puppy, lawn]))[0, 1]:.2f}")

# %% [markdown] id="real-maps-read"
# The pixels of the puppy ask "corgi", those around it do not. But see "sitting": it lights up the puppy as well. The
# text encoder lets each word hear the words before it, so later words carry the puppy too. And words that say little
# get much attention: the shares must add up to 1, so a pixel that needs no word has to look somewhere. Read such maps
# with care.

# %% [markdown] id="time-text"
# ## 5 · Three small parts
#
# ### Telling the time
#
# From chapter 05 on a network must know *how much* noise it looks at: a number $t$ from 0 to 999. One number times a
# weight is a poor signal: $t = 10$ and $t = 11$ hardly differ. So it is said in many rhythms at once, like a clock with
# $h$ hands, each slower than the last:
#
# $$e(t) = [\sin(\omega_0 t), \dots, \sin(\omega_{h-1} t),\ \cos(\omega_0 t), \dots, \cos(\omega_{h-1} t)], \qquad
#   \omega_i = 10000^{-i/h}$$
#
# In words: half of the numbers are sines, half cosines; hand $i$ turns with the speed $\omega_i$, from 1 down to nearly
# 1/10000.

# %% [markdown] id="time-exercise"
# ### Exercise 5 · The time embedding
#
# **Difficulty** ●●○○○ **Minutes** 10. The first layer of every diffusion model. Times may be whole numbers or not
# (some samplers ask in between); the result is float32.


# %% id="time-embedding"
def time_embedding(t, width):
    """[sin(w_i t), cos(w_i t)], w_i = 10000^(-i / h), h = width / 2: t (batch,), int or float -> (batch, width)."""
    ### BEGIN SOLUTION
    #: the speeds of the h hands
    half = width // 2
    speeds = 10_000.0 ** (-torch.arange(half, device=t.device) / half)  # (half,)
    #: the angle of each hand at each time
    angles = t.float()[:, None] * speeds  # (batch, half)
    #: all sines, then all cosines
    return torch.cat([angles.sin(), angles.cos()], dim=1)
    ### END SOLUTION


# %% id="time-embedding-check"
time_embedding = check("04.time_embedding", time_embedding)
# hint("04.time_embedding")

# %% [markdown] id="time-look-text"
# All thousand codes as columns of a picture. And how alike are two times? Their dot product tells:

# %% id="time-look" tags=["static"]
from diffusers.models.embeddings import get_timestep_embedding

t = torch.arange(1000)
e = time_embedding(t, 64)  # (1000, 64)
torch.testing.assert_close(e, get_timestep_embedding(t, 64, downscale_freq_shift=0), rtol=0, atol=1e-4)
torch.testing.assert_close(e, blocks.time_embedding(t, 64), rtol=0, atol=1e-4)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
left.imshow(e.T, aspect="auto", cmap="coolwarm", interpolation="nearest")
left.set(xlabel="t", ylabel="number in $e(t)$", title="sines above, cosines below")
left.grid(False)
for time in (100, 500):
    right.plot(e @ e[time] / 32, label=f"with t = {time}")
right.set(xlabel="t", ylabel="dot product / 32", title="how alike times are")
right.legend()
show(
    figure,
    "Left: stripes that get broader from row to row, in sines and again in cosines. Right: each time is most "
    "like itself; the likeness falls steeply to both sides and then wanders about a low level.",
)
print(
    f"likeness of t = 500 with 501: {(e[500] @ e[501] / 32):.3f}, with 510: {(e[500] @ e[510] / 32):.3f}, "
    f"with 900: {(e[500] @ e[900] / 32):.3f}"
)

# %% [markdown] id="time-read"
# Near times have near codes, far times have codes of their own. And the likeness depends only on the distance, since
# $\sin a \sin b + \cos a \cos b = \cos(a - b)$. Conventions differ: Stable Diffusion puts the cosines first
# (`flip_sin_to_cos`), and DDPM divides by $h - 1$. Weights trained with one do not work with the other.

# %% [markdown] id="norm-text"
# ### Keeping numbers in range
#
# Deep inside, numbers drift in size. *Group norm* brings them back: take the channels in groups; within each group and
# each picture subtract the mean $\mu$ and divide by the standard deviation:
#
# $$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}$$
#
# $\mu$ and $\sigma^2$, the mean and the variance, are over the group's channels *and* all pixels; $\epsilon$ is tiny
# and keeps from dividing by zero. (torch's layer then has a learned factor and shift for each channel.)

# %% [markdown] id="norm-exercise"
# ### Exercise 6 · Group norm
#
# **Difficulty** ●●●○○ **Minutes** 10. Which axes? That is the whole difference between four famous norms.


# %% id="group-norm"
def group_norm(x, groups, eps=1e-5):
    """(x - mean) / sqrt(variance + eps) in each group of neighbouring channels: (batch, channels, h, w) -> like x."""
    ### BEGIN SOLUTION
    #: one row for each group of each picture
    rows = x.reshape(len(x), groups, -1)  # (batch, groups, channels of the group * pixels)
    #: mean and variance of each row (the plain mean of squares: unbiased=False)
    mean, variance = rows.mean(2, keepdim=True), rows.var(2, keepdim=True, unbiased=False)
    #: the formula, and back to the shape of x
    return ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)
    ### END SOLUTION


# %% id="group-norm-check"
group_norm = check("04.group_norm", group_norm)
# hint("04.group_norm")

# %% [markdown] id="norm-why"
# Why not batch norm, which takes its statistics over the batch? In a diffusion model one batch holds nearly clean
# pictures and pure noise. A picture's answer should not depend on its neighbours in the batch:

# %% id="norm-run"
x = torch.randn(8, 16, 8, 8, generator=generator)
torch.testing.assert_close(group_norm(x, 4), F.group_norm(x, 4), rtol=1e-4, atol=1e-5)
torch.testing.assert_close(group_norm(x, 4), blocks.group_norm(x, 4), rtol=1e-4, atol=1e-5)

louder = torch.cat([x[:1], 5 * x[1:]])  # the same first picture, with louder neighbours
for name, norm in (("batch norm", nn.BatchNorm2d(16)), ("group norm", nn.GroupNorm(4, 16))):
    change = (norm(x)[0] - norm(louder)[0]).abs().mean().item()
    print(f"{name}: the first picture changes by {change:.3f} when its neighbours get louder")

# %% [markdown] id="residual-text"
# ### A short way for gradients
#
# Deep networks of plain layers are hard to train: each layer's backward pass multiplies the gradient by something, and
# products of many factors vanish or explode. A *residual block* adds what it computes to what came in:
#
# $$\text{out} = x + f(x)$$
#
# where $f$ is a few layers. The gradient of the sum is $1 + f'$: there is always the 1. We stack up to 40 layers
# with fresh weights and measure the gradient that arrives at the input.


# %% id="arriving"
def arriving(depth, residual, norm, channels=8):
    """The gradient's size at the input of a stack of fresh 3 x 3 convolutions, asked at one output pixel."""
    torch.manual_seed(0)
    x = torch.randn(4, channels, 16, 16, requires_grad=True)
    h = x
    for _ in range(depth):
        change = nn.Conv2d(channels, channels, 3, padding=1)(F.silu(F.group_norm(h, 2) if norm else h))
        h = h + change if residual else change
    h[:, :, 8, 8].sum().backward()
    return x.grad.norm().item()


# %% id="depth" tags=["static"]
figure, ax = plt.subplots(figsize=(6.4, 3))
depths = (1, 2, 5, 10, 20, 30, 40)
for residual, norm, name in (
    (False, False, "plain"),
    (False, True, "with norm"),
    (True, False, "residual"),
    (True, True, "residual with norm"),
):
    sizes = [arriving(depth, residual, norm) for depth in depths]
    ax.semilogy(depths, sizes, marker="o", markersize=4, label=name)
    print(
        f"{name:18} at 10 layers {sizes[3]:.1e}, at 40 layers {sizes[-1]:.1e}, per layer x "
        f"{(sizes[-1] / sizes[0]) ** (1 / 39):.2f}"
    )
    assert (sizes[-1] < 1e-10) == (name == "plain")
ax.set(xlabel="layers", ylabel="gradient at the input", ylim=(1e-12, 1e4))
ax.legend()
show(
    figure,
    "The gradient of the plain stack falls out of the picture; with norm it grows, with residuals it grows as "
    "well; with both it stays nearly level.",
)

# %% [markdown] id="residual-read"
# Plain, the gradient at the input is as good as zero after 20 layers. Norm or residual alone repair that and overshoot;
# together they keep the size for 40 layers. So the standard block has both, twice, and the time goes in between:
#
# $$h = \text{conv}_1(\text{silu}(\text{norm}_1(x))) + W\,\text{silu}(e), \qquad
#   \text{out} = \text{shortcut}(x) + \text{conv}_2(\text{silu}(\text{norm}_2(h)))$$
#
# In words: $\text{silu}(a) = a \cdot \text{sigmoid}(a)$ is a smooth bend; $W$ turns the time's embedding $e$ into one
# number for each channel, added at every pixel; the *shortcut* is nothing, or a 1 x 1 convolution where the number of
# channels changes. $\text{conv}_2$ starts with zeros, so that a new block does nothing, and learns what to change.

# %% [markdown] id="residual-exercise"
# ### Exercise 7 · The residual block
#
# **Difficulty** ●●●○○ **Minutes** 15. The brick of which U-Nets are made. `__init__` is given; write `forward` with
# its parts, by the two equations above. To test it: a fresh block returns its picture unchanged,
# `ResidualBlock(8, 8, 12)(x, e)` equals `x`, and `ResidualBlock(8, 16, 12)(x, e)` equals its shortcut.


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
        h = h + self.time(F.silu(embedding))[:, :, None, None]  # one number a channel, the same for all pixels
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))
        ### END SOLUTION


# %% id="residual-block-check"
ResidualBlock = check("04.residual_block", ResidualBlock)
# hint("04.residual_block")

# %% [markdown] id="residual-same-text"
# Is it the block of diffusers, `ResnetBlock2D`, from which Stable Diffusion's U-Net is made? Same weights, same answer:

# %% id="residual-same"
from diffusers.models.resnet import ResnetBlock2D

library = ResnetBlock2D(in_channels=16, out_channels=32, temb_channels=64, groups=8, eps=1e-5)
block = ResidualBlock(16, 32, 64)
renamed = {"time": "time_emb_proj", "shortcut": "conv_shortcut"}
state = library.state_dict()
block.load_state_dict(
    {name: state[".".join(renamed.get(part, part) for part in name.split("."))] for name in block.state_dict()}
)
x, e = torch.randn(2, 16, 8, 8, generator=generator), torch.randn(2, 64, generator=generator)
print(f"largest difference {(block(x, e) - library(x, e)).abs().max():.1e}")
torch.testing.assert_close(block(x, e), library(x, e), rtol=1e-4, atol=1e-5)
assert torch.equal(blocks.ResidualBlock(16, 16, 64)(x, e), x), "a fresh block passes its picture on unchanged"

# %% [markdown] id="u-text"
# ## 6 · The U
#
# Now the plan. Going *down*: a block, then half the size, and again. At the bottom, where the picture is small, the
# *middle* may use attention. Going *up*: twice the size, then a block. And at each level, what the way down knew is
# *kept* and joined to what comes from below, channel to channel: the **skip connections**.
#
# ```
# 16x16  down ─────── kept ──────▶ up  16x16
#    8x8    down ──── kept ───▶ up  8x8
#              4x4   middle
# ```
#
# The bottom knows *what* is in the picture, the skips know *where* exactly.

# %% [markdown] id="u-exercise"
# ### Exercise 8 · Through the U
#
# **Difficulty** ●●●○○ **Minutes** 20. The wiring of every U-Net, apart from what its blocks are.
#
# `down` and `shrink` are lists of functions from fine to coarse, `grow` and `up` from coarse to fine. Keep what `down`
# made; on the way up join `[grown, kept]` in this order, along the channels. There may be any number of levels, and the
# four lists stay as they are. With one level: `up[0]` gets `[grow[0](middle(shrink[0](kept))), kept]`, where `kept` is
# `down[0](x)`.


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
# The package's `UNet` is these parts and your wiring. `UNetConfig` holds its sizes. We open one, send a digit through,
# let a hook note what each part makes of it, and then wire its parts by *your* function.

# %% id="unet-table"
from course_utils.models.unet_by_hand import UNet, UNetConfig

torch.manual_seed(0)
model = UNet(UNetConfig(channels=1, widths=(16, 32, 64), attention=(False, False, True)))
way_down = ["time", "first", "down 0", "shrink 0", "down 1", "shrink 1", "middle 0", "middle 1"]
way_up = ["grow 0", "up 0", "grow 1", "up 1", "last"]
parts = {name: model.get_submodule(name.replace(" ", ".")) for name in way_down + way_up}
rows = []


def note(name):
    """A hook that notes what goes in and out of the part of this name."""
    return lambda module, given, made: rows.append((name, module, given[0], made))


hooks = [part.register_forward_hook(note(name)) for name, part in parts.items()]
x_t, t = ink[:2], torch.tensor([3, 700])
answer = model(x_t, t)
for hook in hooks:
    hook.remove()

print("part       what comes in       what goes out       parameters")
for name, module, given, made in rows:
    number = sum(p.numel() for p in module.parameters())
    print(f"{name:10} {str(tuple(given.shape[1:])):19} {str(tuple(made.shape[1:])):19} {number:10,}")
total = sum(p.numel() for p in model.parameters())
fine = sum(p.numel() for name in ("time", "first", "down 0", "up 1", "last") for p in parts[name].parameters())
print(f"{'all':50} {total:10,}\nnot in time, first, down 0, up 1 and last: {1 - fine / total:.0%}")
assert answer.shape == x_t.shape

# %% [markdown] id="unet-read"
# Read it line by line. *first* turns 1 channel into 16. *down* works at one size, *shrink* is a convolution with
# stride 2, *down 1* widens to 32: half the pixels along a side, twice the channels. *middle 0* has the attention, over
# 4 · 4 = 16 pixels. *grow* doubles by nearest and convolves. *up 0* gets 64 + 32 = 96 channels: 64 from below, 32 by
# the skip. *last* makes one channel again. Nine tenths of the parameters lie below the finest level.


# %% id="unet-by-hand"
def by_hand(model, x_t, t):
    """The model's forward, wired by the learner's function from its parts."""
    e = model.time(time_embedding(t, 16))  # (batch, 64)

    def at(level):
        return lambda x: level(x, e)

    def middle(x):
        return model.middle[1](model.middle[0](x, e), e)

    x = model.first(x_t)
    x = through_the_u(x, [*map(at, model.down)], model.shrink, middle, model.grow, [*map(at, model.up)])
    return model.last(x)


with torch.no_grad():
    for parameter in model.parameters():  # so that no part starts at zero and hides
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    torch.testing.assert_close(by_hand(model, x_t, t), model(x_t, t), rtol=1e-4, atol=1e-4)
    print(
        "your wiring and the package's agree;",
        f"another time changes the answer by {(model(x_t, t + 200) - model(x_t, t)).abs().mean():.2f}",
    )

    reader = UNet(UNetConfig(cond_width=8))
    sentence = torch.randn(2, 5, 8, generator=generator)  # five words of eight numbers
    print("with words:", tuple(reader(x_t, t, sentence).shape))

# %% [markdown] id="contract-read"
# `model(x_t, t, cond=None)` returns something of the shape of `x_t`: every model and sampler of the course keeps to
# this contract. `cond` are words, for cross-attention (chapter 10). `t` is there for chapter 06; in this chapter it is
# always 0.

# %% [markdown] id="train-text"
# ## 7 · What do the skips carry?
#
# A plain task: take away a little noise of *one* fixed strength. The network sees a noisy picture and shall return the
# clean one; the loss is the mean square of the difference. Two worlds: the digits, and 16 x 16 pixel cuttings of
# grey photographs (trained on a cat and a cup, examined on an astronaut).
#
# In each world we train the same U-Net twice, once with zeros in place of the skips. The measure is *PSNR*, in
# decibels: $10 \log_{10}(2^2 / \text{mean square error})$, since pixels span a range of 2. 10 dB more is a tenth of the
# error.
#
# **Predict first.** In which world do the skips matter more? And is the network without skips better than doing
# nothing?


# %% id="worlds"
def cuttings(names, number, seed):
    """Random squares of 16 x 16 pixels out of photographs in grey: (number, 1, 16, 16)."""
    whole = [photos.load(name, size=256)[0].mean(0, keepdim=True) for name in names]
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randint(240, (2, number), generator=generator).tolist()
    return torch.stack(
        [whole[i % len(whole)][:, r : r + 16, c : c + 16] for i, (r, c) in enumerate(zip(rows, columns, strict=True))]
    )


def psnr(found, clean):
    """10 log10(4 / mean square error) of each picture, averaged: decibels."""
    return (10 * torch.log10(4 / (found - clean).square().mean((1, 2, 3)))).mean().item()


WORLDS = {  # what to train on, what to examine with, the noise's standard deviation
    "digits": (ink, unseen, 0.3),
    "photographs": (cuttings(("chelsea", "coffee"), 3000, 0), cuttings(("astronaut",), 300, 1), 0.1),
}
clean, _, sigma = WORLDS["photographs"]
noisy = clean[:8] + sigma * torch.randn(clean[:8].shape, generator=torch.Generator().manual_seed(0))
show(plot_pictures(torch.cat([clean[:8], noisy]), columns=8), "Eight cuttings of photographs in grey, clean and noisy.")


# %% id="silence"
def without_skip(width):
    """A hook that puts zeros in place of the last `width` channels of what goes in."""

    def hook(module, given):
        x, *others = given
        kept, skip = x[:, :-width], x[:, -width:]
        return torch.cat([kept, torch.zeros_like(skip)], 1), *others

    return hook


def silence(model, levels):
    """Put zeros in place of the skips into these levels of the way up; returns the hooks, to remove."""
    widths = model.config.widths[-2::-1]  # of what is kept, coarse to fine
    return [model.up[i].register_forward_pre_hook(without_skip(widths[i])) for i in levels]


# %% [markdown] id="fit-text"
# The training is the usual loop; the learning rate rises over 30 steps and then falls to 0:


# %% id="fit"
def fit(model, clean, sigma, steps, batch=32, seed=0):
    """Train the model to take noise of strength sigma away; yields (step, loss)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min((i + 1) / 30, 1) * (1 - i / steps))  # up, down
    generator = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        x = clean[torch.randint(len(clean), (batch,), generator=generator)].to(device)
        noisy = x + sigma * torch.randn(x.shape, generator=generator).to(device)
        loss = (model(noisy, torch.zeros(batch, device=device)) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        yield step, loss.item()


# %% [markdown] id="examine-text"
# The examination is the same for all: fixed pictures that no network has trained on, with fixed noise.

# %% id="train"
import time

from tqdm.auto import tqdm


@torch.no_grad()
def examine(model, clean, sigma, seed=1):
    """The noisy pictures, and what the model makes of them."""
    noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    return noisy, model(noisy.to(device), torch.zeros(len(clean), device=device)).cpu()


steps = budget(smoke=12, laptop=300, gpu=2000)
models, started = {}, time.process_time()
live = LivePlot("Four trainings, one after the other; each starts high and falls at once.", seconds=3, log_scale=True)
for world, (clean, test, sigma) in WORLDS.items():
    for skips in (True, False):
        torch.manual_seed(0)
        model = UNet(UNetConfig(channels=1, widths=(16, 24, 32))).to(device)
        silence(model, () if skips else (0, 1))
        before = psnr(examine(model, test, sigma)[1], test)
        for _, loss in tqdm(fit(model, clean, sigma, steps), total=steps, desc=f"{world}, skips {skips}"):
            live.update(len(live.steps) + 1, loss)
        models[world, skips] = model.eval()
        assert psnr(examine(model, test, sigma)[1], test) > before
live.finish()
print(f"four trainings of {steps} steps took {time.process_time() - started:.0f} seconds of processor time")

# %% id="skips-table"
print("world          noisy   with skips   without   fine skip silenced   coarse skip silenced   (PSNR in dB)")
scores = {}
for world, (_, test, sigma) in WORLDS.items():
    noisy, found = examine(models[world, True], test, sigma)
    row = [psnr(noisy, test), psnr(found, test), psnr(examine(models[world, False], test, sigma)[1], test)]
    for level in (1, 0):  # of the network that was trained with both
        hooks = silence(models[world, True], [level])
        row.append(psnr(examine(models[world, True], test, sigma)[1], test))
        for hook in hooks:
            hook.remove()
    scores[world] = row
    print(f"{world:12} {row[0]:7.1f} {row[1]:12.1f} {row[2]:9.1f} {row[3]:20.1f} {row[4]:22.1f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert all(row[1] > max(row[0], row[3], row[4]) + 1 for row in scores.values())
    assert scores["photographs"][1] > scores["photographs"][2] + 1

# %% [markdown] id="skips-read"
# Digits do not need skips here: the network without them is as good. A 16 x 16 digit is a blown-up 8 x 8 one, and of a
# familiar kind, so it goes through the middle without loss. A cutting of a photograph can be anything. There would be
# room for it, 4 · 4 · 32 = 512 numbers for 256 pixels. But the network must *learn* to pack them in and to unpack each
# at its place, and in this training it does not get far: most of what it gains by removing noise it loses by
# blurring. Skips carry the detail past the middle, with nothing to learn.
#
# The last two columns silence one skip of the network that learned to rely on both. To the eye, on the whole portrait,
# cut into 64 pieces:

# %% id="portrait" tags=["static"]
portrait = photos.load("astronaut", size=256).mean(1, keepdim=True)[..., :128, 48:176]  # (1, 1, 128, 128)
tiles = F.unfold(portrait, 16, stride=16)[0].T.reshape(64, 1, 16, 16)


def together(tiles):
    """64 tiles back to one picture: (64, 1, 16, 16) -> (1, 1, 128, 128)."""
    return F.fold(tiles.reshape(64, -1).T[None], 128, 16, stride=16)


noisy, with_skips = examine(models["photographs", True], tiles, 0.1)
_, without = examine(models["photographs", False], tiles, 0.1)
restored = torch.cat([portrait, *map(together, (noisy, with_skips, without))])
titles = ["clean"] + [
    f"{name}, {psnr(together(found), portrait):.1f} dB"
    for name, found in (("noisy", noisy), ("with skips", with_skips), ("without", without))
]
show(
    plot_pictures(restored, titles, columns=4),
    "An astronaut's portrait: clean, with noise, restored by a U-Net with skips, and restored by one without, which "
    "is blurred and blocky.",
)

# %% [markdown] id="failure-text"
# ## A failure that leads on
#
# The digit network takes a little noise away. Can it draw? Give it more and more noise, up to nothing but noise.
#
# **Predict first.** What will it return for pure noise: a digit, a blur, or noise?

# %% id="failure" tags=["static"]
one = unseen[3:4]
network = models["digits", True]
inputs = torch.cat(
    [one + level * torch.randn(one.shape, generator=torch.Generator().manual_seed(2)) for level in (0.3, 0.6, 1.0, 2.0)]
)
inputs = torch.cat([inputs, torch.randn(one.shape, generator=torch.Generator().manual_seed(2))])
with torch.no_grad():
    outputs = network(inputs.to(device), torch.zeros(5, device=device)).cpu()
titles = ["noise 0.3", "0.6", "1.0", "2.0", "only noise"]
show(
    plot_pictures(torch.cat([inputs, outputs]), titles + ["restored"] * 4 + ["'restored'"], columns=5),
    "A digit under four strengths of noise and pure noise alone, and what the network makes of them: the digit, ever "
    "rougher, and for pure noise smears that are no digit.",
)
print("PSNR of what it returns:", [round(psnr(outputs[i : i + 1], one), 1) for i in range(4)])

# %% [markdown] id="failure-read"
# It knows one strength of noise and nothing else: not the strong ones, and it has no idea that it was given another.
# And from pure noise no network could restore *the* digit, since there is none. So two things are missing. The network
# must know *all* strengths, and be told which one it sees: that is what `t` is for. And there must be a path from
# pure noise to a picture in steps so small that each is an easy restoration. Chapter 05 builds the path.

# %% [markdown] id="elsewhere"
# ## What you will read elsewhere
#
# **"Stable Diffusion is a transformer, like DALL·E."** Its denoiser is a U-Net: blocks like yours, with attention in
# between. The transformer is the text encoder. We build both with the settings of Stable Diffusion v1.5, on torch's
# `meta` device, which keeps shapes but no numbers: 860 million parameters in no memory.

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
    if isinstance(module, nn.Conv2d):
        return "convolution"
    if ".attn" in name:
        return "attention"
    return "feed-forward, beside attention" if ".ff." in name else "time and norms"


kinds = Counter()
for name, module in denoiser.named_modules():
    kinds[kind_of(name, module)] += sum(p.numel() for p in module.parameters(recurse=False))
total = sum(kinds.values())
for kind, number in kinds.most_common():
    print(f"{kind:32} {number:12,} {number / total:6.1%}")
print(f"{'the U-Net':32} {total:12,}")
print(f"{'the text encoder, a transformer':32} {sum(p.numel() for p in encoder.parameters()):12,}")
assert total == 859_520_964 and kinds["convolution"] > 0.6 * total

# %% [markdown] id="elsewhere-sd-read"
# Two thirds are convolutions. Some 28 % sit in little transformer blocks inside the U-Net, each an attention to pixels,
# one to words, and a feed-forward part. DALL·E, in contrast, is a transformer that writes picture tokens one after the
# other (chapter 13). Stable Diffusion 3 and Flux did replace the U-Net by a transformer (chapter 14).
#
# **"Attention knows where pixels are."** It does not. Shuffle the pixels, and the answers come out shuffled in the same
# way, each unchanged: attention is *permutation-equivariant*. A convolution is not:

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
    print(f"{name:12} of shuffled pixels, against the shuffled answer: relative difference {difference:.1e}")
    assert (difference < 1e-5) == (name == "attention")

# %% [markdown] id="elsewhere-where-read"
# In a U-Net the convolutions, with their padded borders, tell the pixels where they are. A transformer without
# convolutions needs positions written into its tokens, as the painter's learned queries were.
#
# **"Transposed convolutions cause checkerboards; a kernel that the stride divides cures them."** Half true: section 2
# measured both. **"A U-Net is nothing without its skips."** Measured above: for digits no loss, for photographs a large
# one.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $n' = \lfloor (n + 2p - d(k-1) - 1)/s \rfloor + 1$ | `conv_output_size(size, kernel, stride, padding, dilation)` |
# | copies of the kernel that reach a place | `overlap_count(size, kernel, stride)` |
# | $\text{softmax}(QK^\top/\sqrt d)\,V$ | `attention(q, k, v)` |
# | (batch, tokens, h·d) → (batch, h, tokens, d) | `split_heads(x, heads)` |
# | $[\sin \omega_i t, \cos \omega_i t]$, $\omega_i = 10000^{-i/h}$ | `time_embedding(t, width)` |
# | $(x - \mu)/\sqrt{\sigma^2 + \epsilon}$ | `group_norm(x, groups)` |
# | $x + f(x)$, with the time inside | `ResidualBlock(inside, outside, time_width)` |
# | down, middle, up, with skips | `through_the_u(x, down, shrink, middle, grow, up)` |
#
# All of it is `UNet(UNetConfig(...))`, called as `model(x_t, t, cond)`.

# %% [markdown] id="questions"
# `progress()`, in a cell of its own, shows which exercises of the course you have solved.
#
# ### To think about
#
# Open a line for the answer.
#
# <details><summary>1. A convolution with kernel 3, stride 2 and padding 1 halves 16 to 8. What does it make of 15, and
# what does that mean for a U-Net?</summary>
# Also 8. Going up, 8 becomes 16, and the skip of 15 does not fit. So a U-Net asks for sides that can be halved evenly,
# or pads.
# </details>
# <details><summary>2. You give every pixel the same query. What does its self-attention return, and what if all
# keys are the same?</summary>
# With one query for all, every pixel gets the same blend of values: one colour for all. With one key for all, each
# share is 1/n², so every pixel gets the plain mean of all values. Both are blind, in different ways.
# </details>
# <details><summary>3. Why does the last convolution of a residual block start at zero, but not the first as
# well?</summary>
# With both at zero no gradient reaches either: the gradient of each is multiplied by the other. With one at zero the
# block passes x on, and that one convolution learns from the first step on.
# </details>

# %% [markdown] id="papers"
# **Papers** Convolution arithmetic: Dumoulin and Visin, [arXiv:1603.07285](https://arxiv.org/abs/1603.07285).
# Checkerboards: Odena et al., [distill.pub](https://distill.pub/2016/deconv-checkerboard/). Attention: Vaswani et al.,
# [arXiv:1706.03762](https://arxiv.org/abs/1706.03762). Attention without keeping the map: Rabe and Staats,
# [arXiv:2112.05682](https://arxiv.org/abs/2112.05682); Dao et al.,
# [arXiv:2205.14135](https://arxiv.org/abs/2205.14135). Maps of words: Hertz et al.,
# [arXiv:2208.01626](https://arxiv.org/abs/2208.01626). Group norm: Wu and He,
# [arXiv:1803.08494](https://arxiv.org/abs/1803.08494). Residual blocks: He et al.,
# [arXiv:1603.05027](https://arxiv.org/abs/1603.05027). U-Net: Ronneberger et al.,
# [arXiv:1505.04597](https://arxiv.org/abs/1505.04597). The U-Net of diffusion: Ho et al.,
# [arXiv:2006.11239](https://arxiv.org/abs/2006.11239).

# %% [markdown] id="bonus"
# ## Bonus: one network, any size
#
# Nothing in the U-Net knows the size of its pictures. Trained on 16 x 16 cuttings, it takes the whole portrait at once.
# Are its answers better or worse than those of the 64 pieces?

# %% id="bonus-run"
noise = together(noisy) - portrait
with torch.no_grad():
    whole = models["photographs", True]((portrait + noise).to(device), torch.zeros(1, device=device)).cpu()
print(f"in 64 pieces {psnr(together(with_skips), portrait):.2f} dB, at once {psnr(whole, portrait):.2f} dB")

# %% [markdown] id="bonus-read"
# Worse, although it sees more. It *runs* at any size, which is not the same as working there: its norms and its
# attention have met nothing but 16 x 16 pixels. Stable Diffusion v1.5 has the same trait: trained at 512 x 512, it
# draws at other sizes too, and the further they are from that, the odder.
