# %% [markdown] id="title"
# # 01 · Autoregressive pixels
#
# A writer writes one word after the other, each chosen in view of all that is already there. An image can be drawn in
# the same way, one pixel after the other. It is slow, but the probability that such a model gives to an image is known
# *exactly*.
#
# ![Handwritten digits that grow pixel by pixel from an empty sheet, and sixty finished
# ones.](../chapters/figures/01_digits_pixel_by_pixel.png)
#
# **After this chapter you can**
# 1. write the probability of an image as a product, and measure any such model in bits per dimension;
# 2. build a convolution that cannot look ahead, and show with gradients what it sees and what it misses;
# 3. train a PixelCNN, draw with it, and count the evaluations that an image takes.
#
# **Time** 60 minutes of reading, 85 of exercises. The training takes a minute or two of processor time, every other
# cell less. **You need** chapter 00, and should know what a convolution, a softmax and a gradient are.

# %% id="set-up"
import math

import matplotlib.pyplot as plt
import torch

from course_utils.data import digits
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.plotting import LivePlot, plot_pictures, show, use_style

use_style()
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $x$ | `x` | images, whole numbers: the level of each pixel; also what a layer reads | (batch, height, width) |
# | $x_i$ | `x[:, row, column]` | pixel number $i$ in *raster order*: along the rows, from the top | (batch,) |
# | $x_{<i}$ | | all pixels before pixel $i$ | |
# | $m$ | `levels` | the number of levels of a pixel; here 17, from 0 to 16 | a number |
# | $d_x$ | `height * width` | the number of pixels of an image: its dimension; here 64 | a number |
# | $p(\cdot)$ | `logits.softmax(1)` | a probability; here of each level, given the pixels before | as `logits` |
# | $\ell$ | `logits` | the logits, before the softmax | (batch, levels, height, width) |
# | $W$, $b$ | `weight`, `bias` | kernel and bias of a convolution | |
# | $y$ | `layer(x)` | the output of a layer | (batch, channels, height, width) |
# | $W_f$, $W_g$ | | the kernels of a gate (section 3) | |
# | $\tau$ | `temperature` | the temperature: how random the drawing is | a number |
#
# Papers count $i$ from 1 to $d_x$, the code from 0 to $d_x-1$: `row, column = divmod(i, width)`.

# %% [markdown] id="toy"
# ## Two pixels
#
# Start with an image of *two* pixels. We take two neighbours in the middle of scikit-learn's handwritten digits, and
# combine their 17 levels into three: paper, grey, ink. So there are nine images. Count how often each occurs in 1,440
# digits, and you have a perfect model of these images: a table. (In this chapter's pictures paper is black, ink white.)
#
# **Predict first.** Suppose you know how often the left pixel is ink, and how often the right one is, and so on for all
# levels. Can you work out the nine numbers? And what if you also know how the right pixel depends on the left one?
#
# <details><summary>Answer (after running the cells below)</summary>
# From the two pixels by themselves, no: their product is a different table, in which neighbours are no longer alike.
# But "one pixel, then the other <em>given</em> the first" loses nothing, and it does not matter which comes first. This
# is no approximation; it is the definition of "given": p(right | left) = p(left, right) / p(left).
# </details>

# %% id="toy-table"
x_train, x_test = digits.levels(), digits.levels("test")  # (1440, 8, 8), (357, 8, 8), int64 in 0..16
pair = x_train[:, 3, 3:5].contiguous()
left, right = torch.bucketize(pair, torch.tensor([4, 12])).T  # (1440,) each: 0 paper, 1 grey, 2 ink
joint = torch.zeros(3, 3)
for a, b in zip(left, right):
    joint[a, b] += 1 / len(left)

p_left, p_right = joint.sum(1), joint.sum(0)  # what each pixel does by itself
right_given_left = joint / p_left[:, None]  # each row adds up to 1
left_given_right = joint / p_right[None, :]  # each column adds up to 1

independent = p_left[:, None] * p_right[None, :]
left_first = p_left[:, None] * right_given_left
right_first = p_right[None, :] * left_given_right

# %% id="toy-plot" tags=["static"]
figure, axes = plt.subplots(1, 4, figsize=(9, 2.9), sharey=True)
titles = ["counted", "p(left) p(right)", "p(left)\np(right | left)", "p(right)\np(left | right)"]
for ax, table, title in zip(axes, (joint, independent, left_first, right_first), titles):
    ax.imshow(table.numpy(), cmap="Blues", vmin=0, vmax=0.45)
    for a in range(3):
        for b in range(3):
            dark = bool(table[a, b] > 0.25)
            ax.text(b, a, f"{table[a, b]:.3f}", ha="center", va="center", color="white" if dark else "black")
    ax.set(title=title, xticks=range(3), yticks=range(3), xlabel="right pixel")
    ax.set_xticklabels(["paper", "grey", "ink"])
    ax.set_yticklabels(["paper", "grey", "ink"])
    ax.grid(False)
axes[0].set_ylabel("left pixel")
show(
    figure,
    "Four tables of nine probabilities: the counted one; the product of the two single pixels, which is "
    "another; and two products of one pixel and the other given it, both equal to the counted one.",
)
assert torch.allclose(left_first, joint) and torch.allclose(right_first, joint)
assert (independent - joint).abs().max() > 0.02

# %% [markdown] id="toy-read"
# So why not count a table for whole digits?

# %% id="table-size"
entries = 17**64
print(f"levels to the power of pixels: 17^64 = {entries:.1e} images, and we have {len(x_train)} of them")

# %% [markdown] id="chain-text"
# ## 1 · An image is a product
#
# A table of whole digits would have $m^{d_x} = 17^{64}$ entries, nearly all of them never seen in 1,440 digits. But the
# step from the first pixel to the second can be repeated for all pixels. That is the **chain rule** of probability:
#
# $$p(x) = p(x_1)\; p(x_2 \mid x_1)\; p(x_3 \mid x_1, x_2) \cdots = \prod_{i=1}^{d_x} p(x_i \mid x_{<i})$$
#
# In words: the probability of the image $x$ is the product, over its $d_x$ pixels, of the probability of pixel $i$
# given all pixels before it. It holds for every distribution and every order of the pixels. We take **raster order**:
# row by row, as you read.
#
# A model of this kind is called *autoregressive*: it predicts each piece from the earlier ones. Each factor is
# a distribution over only 17 levels, which a network can learn.

# %% [markdown] id="bits-text"
# ### How good is a model? Count bits
#
# A product of 64 small numbers is tiny, so take logarithms, which add up. With base 2 the unit is the *bit*, and it
# has a meaning: if data are compressed with the help of the model, something of probability $1/8 = 1/2^3$ takes about 3
# bits.
#
# $$\text{bits per dimension} = -\frac{1}{d_x} \sum_{i=1}^{d_x} \log_2 p(x_i \mid x_{<i})$$
#
# In words: minus the mean, over the $d_x$ pixels, of the base-2 logarithm of the probability that the model gave to the
# level that was really there. Lower is better. By hand, for three pixels:

# %% id="bits-by-hand"
given_to_the_truth = [0.5, 0.25, 0.125]  # what a model gave to the true level of each pixel
bits = [-math.log2(p) for p in given_to_the_truth]
print(f"{bits} bits, {sum(bits) / 3} bits per dimension; probability of the picture: {math.prod(given_to_the_truth)}")
assert math.prod(given_to_the_truth) == 2 ** -sum(bits)

# %% [markdown] id="bits-exercise"
# ### Exercise 1 · Bits per dimension
#
# **Difficulty** ●●○○○ **Minutes** 10. This one number compares the models of this chapter.
#
# The network gives *logits*, any real numbers; softmax over axis 1 makes them probabilities. Torch's logarithms are
# natural, and their unit is the nat: one bit is $\ln 2$ nats. The network will be trained with this number, so stay
# with tensors: gradients must reach the logits. The result must also be right for a model that is certain and wrong,
# with logits 120 apart, where float32 rounds the probability of the true level to 0. If you are stuck, remove the `#`
# before `hint`; each call reveals a little more. All answers are in the
# [solved notebook](../solutions/01_autoregressive_pixels.ipynb).


# %% id="bits-per-dim"
def bits_per_dim(logits, x):
    """-1/d_x sum_i log2 p(x_i | x_<i): logits (batch, levels, height, width), x (batch, height, width) -> (batch,)."""
    ### BEGIN SOLUTION
    #: the logarithms of the probabilities of all levels
    log_p = logits.log_softmax(1)
    #: at each pixel, that of the level that is there
    log_p = log_p.gather(1, x[:, None])  # (batch, 1, height, width)
    #: minus the mean over each picture's pixels, in bits
    return -log_p.flatten(1).mean(1) / math.log(2)
    ### END SOLUTION


# %% id="bits-per-dim-check"
bits_per_dim = check("01.bits_per_dim", bits_per_dim)
# hint("01.bits_per_dim")

# %% [markdown] id="same-text"
# All versions agree: yours, the package's, and torch's categorical distribution.

# %% id="same"
from course_utils.models import pixelcnn

logits, x = torch.randn(5, 17, 8, 8, generator=torch.Generator().manual_seed(0)), x_test[:5]
library = -torch.distributions.Categorical(logits=logits.movedim(1, -1)).log_prob(x).mean((1, 2)) / math.log(2)
for answer in (pixelcnn.bits_per_dim(logits, x), library):
    torch.testing.assert_close(bits_per_dim(logits, x), answer)

# %% [markdown] id="baseline-text"
# ### Two simple baselines
#
# A model without any knowledge gives every level the probability $1/m = 1/17$. A better one counts, for each of the 64
# places, how often each level occurs there in the training digits, and treats the pixels as independent. (It adds one
# to every count. Otherwise a single new level at one place would make a test digit impossible: infinitely many bits.)
#
# We measure on the 357 test digits. No model of this chapter is trained on them. The number after ± is half the width
# of a 95% interval, 1.96 standard errors. It shows how much a mean, or later a share, may vary with the choice of the
# cases. It does not cover another training of the model.

# %% id="baseline"
histograms = pixelcnn.histogram_logits(x_train, 17)  # (1, 17, 8, 8)
print("p of levels 0, 8, 16 in the corner:", [f"{p:.3f}" for p in histograms.softmax(1)[0, [0, 8, 16], 0, 0]])

uniform_bits = bits_per_dim(torch.zeros(357, 17, 8, 8), x_test).mean().item()
each = bits_per_dim(histograms.expand(357, -1, -1, -1), x_test)  # (357,)
histogram_bits, error = each.mean().item(), 1.96 * each.std().item() / 357**0.5
print(f"uniform      {uniform_bits:.3f} bits/dim (log2 17 = {math.log2(17):.3f})")
print(f"histograms   {histogram_bits:.3f} ± {error:.3f} bits/dim, {64 * histogram_bits:.0f} bits an image")
assert abs(uniform_bits - math.log2(17)) < 1e-5 and histogram_bits < uniform_bits

# %% id="baseline-draw" tags=["static"]
drawn = torch.distributions.Categorical(logits=histograms[0].permute(1, 2, 0))
torch.manual_seed(0)
apart = drawn.sample((10,))  # (10, 8, 8)
show(
    plot_pictures(pixelcnn.to_pictures(torch.cat([x_test[:10], apart]), 17), columns=10, rows=["real", "independent"]),
    "Upper row: ten test digits of 8 x 8 pixels. Lower row: ten images with each pixel drawn by itself, clouds of "
    "grey in which no digit can be read.",
)

# %% [markdown] id="baseline-read"
# The histograms know where ink is likely. But each pixel is drawn on its own, and neighbours do not agree. This is
# the second table of the two pixels again, in 64 dimensions.
#
# ### Why so few pixels?
#
# Other chapters use digits of 16 × 16, enlarged from these 8 × 8. That looks nicer, but it would make the number of
# bits misleading. First the simplest case: each pixel becomes a square of 2 × 2 equal ones. Three of the four are
# copies of an earlier one, and a model can use that. A copy costs $\log_2 1 = 0$ bits.

# %% id="upsampled"
copies_cost = 0.0
doubled_bits = (64 * histogram_bits + 192 * copies_cost) / 256
print(f"the same digits and model, each pixel doubled: {doubled_bits:.3f} bits/dim, not {histogram_bits:.3f}")

enlarged, test_16 = (digits.load(16, split)[0].flatten(1).double() for split in ("train", "test"))  # (n, 256)
# sigma: the standard deviation of a little noise, without which the covariance has no inverse
print(f"enlarged smoothly: {torch.linalg.matrix_rank(enlarged)} of 256 directions are used")
for sigma in (0.1, 0.01, 0.001, 1e-6):
    covariance = enlarged.T.cov() + sigma**2 * torch.eye(256)
    normal = torch.distributions.MultivariateNormal(enlarged.mean(0), covariance)
    density_bits = -normal.log_prob(test_16).mean() / 256 / math.log(2)
    print(f"  density of a normal distribution with noise {sigma:g}: {density_bits:8.2f} bits/dim")

# %% [markdown] id="upsampled-read"
# Doubling divides the bits by four, although nothing was learned. Smooth enlarging is worse. Grey values are then real
# numbers with a *density*, which may be larger than 1, so that its bits are negative. And three quarters of the 256
# directions are not used at all. There a density may be as narrow as you like, so the number falls without limit, on
# unseen digits too. So compare bits per dimension only between models of the same data, as the data set has them: here,
# 17 levels in 8 × 8 pixels.

# %% [markdown] id="mask-text"
# ## 2 · A convolution that cannot look ahead
#
# We need 64 conditional distributions. 64 networks would learn the same strokes 64 times, while a convolution does the
# same at all places. Let a network of convolutions give 17 logits for each pixel, and read them as
# $p(x_i \mid x_{<i})$.
#
# That is allowed on one condition: the logits at pixel $i$ must not depend on pixel $i$, nor on any later one.
# Otherwise the network copies the answer. An ordinary kernel looks in all directions, so we set to zero those of its
# weights that look ahead, by a **mask** of zeros and ones over the kernel $W$:
#
# $$y = (W \odot \text{mask}) * x + b$$
#
# $y$ is the layer's output, $*$ is the convolution, $\odot$ multiplies element by element, and $b$ is the bias.

# %% [markdown] id="mask-exercise"
# ### Exercise 2 · The mask, kinds A and B
#
# **Difficulty** ●●○○○ **Minutes** 8. The mask decides which pixels a layer may see.
#
# The *first* layer reads the image. The middle of its kernel lies on pixel $i$ itself, the answer, so it is hidden.
# This is kind **A**. *Later* layers read the features of layers before them. The features at place $i$ depend only on
# pixels before $i$, so the middle may be seen: kind **B**. `size` is odd. Return a tensor of float32: a kernel will be
# multiplied by it.


# %% id="causal-mask"
def causal_mask(size, kind):
    """(size, size) float32, 1 (seen) and 0 (hidden): what comes before the middle, which is seen if kind is "B"."""
    ### BEGIN SOLUTION
    #: nothing is seen, at first
    mask = torch.zeros(size, size)
    middle = size // 2
    #: all of the rows above
    mask[:middle] = 1
    #: in its own row, what is to the left; kind "B" also sees the middle
    mask[middle, : middle + (kind == "B")] = 1
    return mask
    ### END SOLUTION


# %% id="causal-mask-check"
causal_mask = check("01.causal_mask", causal_mask)
# hint("01.causal_mask")

# %% [markdown] id="mask-look-text"
# Use it once by hand, before it becomes a layer: a masked kernel of ones, on an image of ones, *counts* the pixels
# that are seen.

# %% id="mask-look"
from torch.nn.functional import conv2d

for kind in ("A", "B"):
    print(f"kind {kind}:", causal_mask(5, kind).int().tolist())
counted = conv2d(torch.ones(1, 1, 4, 5), causal_mask(3, "A")[None, None], padding=1)  # (1, 1, 4, 5)
print(counted[0, 0].int())

# %% [markdown] id="mask-look-read"
# The first pixel sees nothing, the others of the first row one, those at the edges fewer than the four in the middle.
# Outside the image zeros are filled in (*padding*).
#
# ### Exercise 3 · The layer
#
# **Difficulty** ●●●○○ **Minutes** 15. It is not enough to set the hidden weights to zero once: the first update in
# training would change them like all others. So `forward` multiplies the weights by the mask each time, and leaves the
# stored `weight` as it is.
#
# A *buffer* is a tensor that belongs to a layer (it moves to the GPU with it) and is not trained. Keep the mask as the
# buffer `mask`, and let `forward` use `self.mask`: later cells read and replace it by this name.


# %% id="masked-conv"
class MaskedConv2d(torch.nn.Conv2d):
    """y = conv(x; weight * causal_mask(size, kind)) + bias: (batch, in, h, w) -> (batch, out, h, w)."""

    def __init__(self, in_channels, out_channels, size, kind):
        super().__init__(in_channels, out_channels, size, padding=size // 2)
        ### BEGIN SOLUTION
        #: keep the mask as a buffer
        self.register_buffer("mask", causal_mask(size, kind))
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        #: the convolution, with masked weights, the bias, and the padding that keeps the size
        return conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)
        ### END SOLUTION


# %% id="masked-conv-check"
MaskedConv2d = check("01.masked_conv", MaskedConv2d)
# hint("01.masked_conv")

# %% [markdown] id="layer-same-text"
# By hand, yours and the package's: one output as the sum that it should be, and then all of them.

# %% id="layer-same"
torch.manual_seed(0)
mine, package = MaskedConv2d(1, 1, 3, "A"), pixelcnn.MaskedConv2d(1, 1, 3, "A")
package.load_state_dict({"weight": mine.weight, "bias": mine.bias, "mask": causal_mask(3, "A")})
x = torch.randn(1, 1, 6, 6)

w, seen = mine.weight[0, 0], x[0, 0]
by_hand = w[0, 0] * seen[2, 1] + w[0, 1] * seen[2, 2] + w[0, 2] * seen[2, 3] + w[1, 0] * seen[3, 1] + mine.bias[0]
print(f"at row 3, column 2: by hand {by_hand:.4f}, the layer {mine(x)[0, 0, 3, 2]:.4f}")
torch.testing.assert_close(by_hand, mine(x)[0, 0, 3, 2])
torch.testing.assert_close(mine(x), package(x))

# %% [markdown] id="field-text"
# ## 3 · What does the network see? Use the gradient
#
# Several layers reach further than one: that is the point of stacking them. Which pixels does a *stack* see? There is a
# simple test. Where the derivative of an output with respect to a pixel is not zero, the output depends on that pixel:
#
# $$\text{field}(\text{row}, \text{column}) =
# \Bigl\{\,i : \frac{\partial\, y_{\text{row},\text{column}}}{\partial x_i} \neq 0\,\Bigr\}$$
#
# In words: the *receptive field* of the output at a row and a column is the set of pixels $i$ with respect to which its
# derivative is not zero. Autograd computes it for any network. A derivative can be zero by chance although the output
# depends on the pixel, but hardly ever at random inputs and weights. So this test finds leaks.
#
# ### Exercise 4 · The receptive field
#
# **Difficulty** ●●●○○ **Minutes** 12. This tool works for any network, a module or a plain function, and must leave it
# as it was: `torch.autograd.grad(number, x)` returns a tuple whose only entry is the gradient with respect to `x`,
# where `number.backward()` would leave a gradient in every parameter. The place is given as row, then column, both
# counted from 0.


# %% id="receptive-field"
def receptive_field(network, x, row, column):
    """Which pixels of x (1, channels, height, width) the output at (row, column) depends on: bool (height, width)."""
    ### BEGIN SOLUTION
    #: a copy of the input whose gradient torch keeps
    x = x.clone().requires_grad_(True)
    #: one number from the output at this place: the sum over its channels
    number = network(x)[0, :, row, column].sum()
    #: its gradient with respect to the input
    (gradient,) = torch.autograd.grad(number, x)  # (1, channels, height, width)
    #: where it is not zero, in any channel
    return (gradient[0] != 0).any(0)
    ### END SOLUTION


# %% id="receptive-field-check"
receptive_field = check("01.receptive_field", receptive_field)
# hint("01.receptive_field")

# %% [markdown] id="blind-text"
# Apply it to a stack: one layer of kind A, then layers of kind B, each with a 3 × 3 kernel. Black is the pixel that is
# to be predicted; blue is what its prediction depends on; a cross marks pixels that come before and are *not* seen.
# Each title gives the number of layers, and then that of the pixels seen.
#
# **Predict first.** With enough layers, will the stack see all earlier pixels?
#
# <details><summary>Answer (after running the cell below)</summary>
# No. To the upper right there is a <em>blind spot</em>, and depth does not help. Since the right part of its own row is
# hidden, a layer has to go up one row to reach one column further right. So the stack never sees below that diagonal:
# of the row just above it sees one pixel to the right and no further. No pixel from the future is seen; this network is
# <em>correct</em>, but it misses information. The first PixelCNN paper used such a stack; the second one removed the
# blind spot (both are listed below).
# </details>

# %% id="blind" tags=["static"]
from course_utils.widgets.pixel_by_pixel import plot_field


def plain_stack(layers):
    """One masked convolution of kind A, then layers - 1 of kind B; eight channels in between."""
    torch.manual_seed(0)
    kinds = ["A"] + ["B"] * (layers - 1)
    return torch.nn.Sequential(*(MaskedConv2d(1 if i == 0 else 8, 8, 3, kind) for i, kind in enumerate(kinds))).double()


x = torch.randn(1, 1, 11, 11, dtype=torch.float64)
row, column = 6, 4
figure, axes = plt.subplots(1, 4, figsize=(9, 2.7))
for ax, layers in zip(axes, (1, 2, 4, 12)):
    field = receptive_field(plain_stack(layers), x, row, column)
    plot_field(field, row, column, f"{layers} layer{'s' * (layers > 1)}: {int(field.sum())}", ax)
show(
    figure,
    "The field grows from 4 pixels to a region that ends at a diagonal; to the upper right of the pixel a "
    "wedge stays unseen, with 12 layers as with 4.",
)
seen_by_plain = int(receptive_field(plain_stack(30), x, row, column).sum())
before = 11 * row + column
print(f"with 30 layers {seen_by_plain} of the {before} earlier pixels: {before - seen_by_plain} are missed")
assert seen_by_plain < before and not field.flatten()[before:].any()  # some are missed, no later one is seen

# %% [markdown] id="cure-text"
# ### The fix: two stacks
#
# Let one stack see the **rows above** only. There, left and right are both allowed, and it needs no mask, only a shift:
# move the image down by one row, and a kernel that looks up and to both sides cannot see the row that it is in. A
# second stack looks **left in its own row** (the image moved one column to the right), and after each layer adds what
# the first one found.
#
# Information flows from the first stack to the second, never back: the second has seen parts of the row that the first
# must not see.
#
# ### Exercise 5 · One layer of both stacks
#
# **Difficulty** ●●●○○ **Minutes** 15. `v` is the state of the stack that sees rows above, `h` of the one that looks
# left; both are already shifted, so a layer may read its own (shifted) row and column. `above` is a convolution with a
# kernel of 2 rows and 3 columns, `left` one with 1 row and 2 columns, both *without* padding. `pad(x, (1, 2, 3, 4))`
# adds zeros: one column on the left, two on the right, three rows at the top, four at the bottom. Return the new `v`,
# and the new `h` to which the *new* `v` has been added, both of the height and width that they had.

# %% id="two-stack-layer"
from torch.nn.functional import pad


def two_stack_layer(v, h, above, left):
    """v <- above(v): this row and the one above, three columns; h <- left(h) + v: this column and the one to its left."""
    ### BEGIN SOLUTION
    #: zeros so that the 2 x 3 kernel sees its own row, the row above, and one column to either side
    v = above(pad(v, (1, 1, 1, 0)))
    #: zeros so that the 1 x 2 kernel sees its own column and the one to the left; then what the first stack found
    h = left(pad(h, (1, 0, 0, 0))) + v
    return v, h
    ### END SOLUTION


# %% id="two-stack-layer-check"
two_stack_layer = check("01.two_stacks", two_stack_layer)
# hint("01.two_stacks")

# %% [markdown] id="two-stacks-text"
# A whole network of such layers, with the two shifts in front. (A negative number in `pad` removes a row or a column.)


# %% id="cure"
class TwoStacks(torch.nn.Module):
    """The skeleton: (batch, 1, h, w) -> (batch, 8, h, w); each output sees the pixels before it, and no other."""

    def __init__(self, layers):
        super().__init__()
        widths = [1] + [8] * layers
        pairs = list(zip(widths, widths[1:]))
        self.above = torch.nn.ModuleList(torch.nn.Conv2d(i, o, (2, 3)) for i, o in pairs)
        self.left = torch.nn.ModuleList(torch.nn.Conv2d(i, o, (1, 2)) for i, o in pairs)

    def forward(self, x):
        v, h = pad(x, (0, 0, 1, -1)), pad(x, (1, -1, 0, 0))  # one row down; one column to the right
        for above, left in zip(self.above, self.left):
            v, h = two_stack_layer(v, h, above, left)
        return h


# %% id="cure-plot" tags=["static"]
figure, axes = plt.subplots(1, 4, figsize=(9, 2.7))
torch.manual_seed(0)
for ax, layers in zip(axes, (1, 2, 4, 10)):
    field = receptive_field(TwoStacks(layers).double(), x, row, column)
    plot_field(field, row, column, f"{layers} layer{'s' * (layers > 1)}: {int(field.sum())}", ax)
show(
    figure,
    "With two stacks the field grows to both sides; with ten layers it holds all earlier pixels, and no later one.",
)
earlier = (torch.arange(121) < 11 * row + column).reshape(11, 11)
print(f"with 10 layers {int(field.sum())} of the {int(earlier.sum())} earlier pixels, ", end="")
print(f"and {int((field & ~earlier).sum())} of the others")
assert torch.equal(field, earlier)

# %% [markdown] id="gates-text"
# The package's `PixelCNN` adds several things to this skeleton. *Skip connections* ($x + \ldots$) make deep networks
# trainable. *Dropout* hides a random part of the features during training. Two more input channels hold row and column,
# which are known in advance. Convolutions of 1 × 1 mix the channels at each place, and the last one gives the 17
# logits. And each layer but the first has a **gate**:
#
# $$y = \tanh(W_f * x) \odot \text{sigmoid}(W_g * x)$$
#
# In words: one convolution of what the layer reads, with kernel $W_f$, and then tanh give a value between −1 and 1;
# another, with kernel $W_g$, and then the sigmoid give a factor between 0 and 1 by which it is multiplied.
#
# The explorer shows what is seen from any place, by the plain stack of masked convolutions or by the two stacks, with 1
# to 10 layers.

# %% id="field-strip" tags=["static"]
from course_utils.widgets import explore, filmstrip, receptive_field_explorer

explorer = receptive_field_explorer()
filmstrip(
    explorer, [{"layers": 3}, {"layers": 6}, {"stack": "two stacks", "layers": 3}, {"stack": "two stacks", "layers": 6}]
)

# %% [markdown] id="field-explore-text"
# **Predict first, then move the sliders.** Does the plain stack have a blind spot when it predicts a pixel of the
# rightmost column? How many layers do two stacks need until the upper right corner is seen from the lower left one?
#
# <details><summary>Answer (after moving the sliders)</summary>
# In the rightmost column there is none: nothing lies to the right, and with enough layers everything above is
# seen. From the lower left corner the upper right one is ten columns away, and each layer of the two stacks
# reaches one column further: ten layers.
# </details>

# %% id="field-explore"
explore(explorer)

# %% [markdown] id="field-answer-text"
# The answer in numbers:

# %% id="field-answer"
right_edge = receptive_field(plain_stack(10), x, 6, 10)
print(f"plain stack of 10 layers, row 6, last column: {int(right_edge.sum())} of the {6 * 11 + 10} earlier pixels")
reached = {layers: receptive_field(TwoStacks(layers).double(), x, 10, 0)[0, 10].item() for layers in (9, 10)}
print(f"two stacks see the upper right corner from the lower left one: {reached}")
assert int(right_edge.sum()) == 6 * 11 + 10 and reached == {9: False, 10: True}

# %% [markdown] id="train-text"
# ## 4 · Training
#
# The loss is the bits per dimension itself: training makes the data probable (*maximum likelihood*). A digit goes in
# *whole*, and one pass gives all 64 conditional distributions at once, since the shifts make sure that none of them
# sees its answer. That is why this model is fast to train.

# %% id="model"
torch.manual_seed(0)
model = pixelcnn.PixelCNN(levels=17, hidden=48, blocks=6, dropout=0.2).to(device)
x_train, x_test = x_train.to(device), x_test.to(device)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters; logits {tuple(model(x_test[:2]).shape)}")

for place in (0, 20, 63):  # the real network, examined with your tool
    spot = divmod(place, 8)
    field = receptive_field(model.eval().see, torch.randn(1, 3, 8, 8, device=device), *spot)
    print(f"pixel {place} at {spot} sees {int(field.sum())} of the {place} pixels before it, and no other")
    assert int(field.sum()) == place and not field.flatten()[place:].any()

# %% [markdown] id="loop-text"
# The loop `fit` is a generator: after each update it yields the step and the loss. `Adam` changes the weights, with a
# learning rate that falls to zero along a cosine. Gradients longer than 1 are shortened (*clipped*), so that one
# unusual batch cannot change the weights too much. (Dropout hides a fifth of the features, a common remedy against
# overfitting when data are few.)


# %% id="loop"
def fit(model, x, steps, batch=16, learning_rate=3e-3, seed=0):
    """Train by maximum likelihood on the images x; yields (step, bits per dimension of its batch) after each update."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        chosen = x[torch.randint(len(x), (batch,), generator=generator).to(x.device)]
        loss = bits_per_dim(model(chosen), chosen).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield step, loss.item()


# %% id="train"
import time

from tqdm.auto import tqdm


@torch.no_grad()
def bits_of(model, x):
    """The bits per dimension of each picture, the model's dropout switched off: (batch,)."""
    return torch.cat([bits_per_dim(model.eval()(part), part) for part in x.split(360)])


before = bits_of(model, x_test).mean().item()
steps = budget(smoke=12, laptop=1400, gpu=3000)
live = LivePlot("The bits per dimension of the batch: a steep fall, then a slow one.", seconds=5)
start = time.process_time()
model.train()
for step, loss in tqdm(fit(model, x_train, steps, batch=budget(smoke=8, laptop=16, gpu=32)), total=steps):
    live.update(step, loss)
live.finish()
training_seconds = time.process_time() - start
print(f"{steps} updates took {training_seconds:.0f} seconds of processor time")

# %% [markdown] id="exam-text"
# The test, on digits that the network has not been trained on:

# %% id="exam"
test_bits, known_bits = bits_of(model, x_test), bits_of(model, x_train).mean().item()
model_bits, error = test_bits.mean().item(), 1.96 * test_bits.std().item() / len(x_test) ** 0.5
print(f"uniform               {uniform_bits:.3f} bits/dim on test digits")
print(f"independent pixels    {histogram_bits:.3f}")
print(f"PixelCNN, untrained   {before:.3f}")
print(f"PixelCNN              {model_bits:.3f} ± {error:.3f}, n = 357   (on its training digits {known_bits:.3f})")
gain = 64 * (histogram_bits - model_bits)
print(f"a digit costs {64 * model_bits:.0f} bits, {gain:.0f} fewer than with independent pixels: ", end="")
print(f"on average 2^{gain:.0f} times as probable")
assert model_bits < before
if budget(smoke=False, laptop=True, gpu=True):
    assert model_bits < histogram_bits - 0.4

# %% [markdown] id="bars-text"
# PixelCNN needs fewer bits than independent pixels, and their two intervals for the 357 test digits are far apart. On
# its training digits it needs fewer still, so it overfits a little. (The bits were averaged, so "on average" means the
# geometric mean of the ratios.)
#
# What does a conditional distribution look like? Below are the first two test digits, with one pixel marked, and the
# probabilities that each model gives to the 17 levels of this pixel. The network is given the pixels before it; the
# histograms are the same for every digit.

# %% id="bars" tags=["static"]
row, column = 5, 4
with torch.no_grad():
    predicted = model(x_test[:2])[:, :, row, column].softmax(1).cpu()  # (2, 17)
counted = histograms.softmax(1)[0, :, row, column].cpu()  # (17,)
figure, axes = plt.subplots(1, 4, figsize=(9.6, 2.6), width_ratios=[1, 2, 1, 2])
for n in range(2):
    level = int(x_test[n, row, column])
    plot_pictures(pixelcnn.to_pictures(x_test[n : n + 1], 17).cpu(), ax=axes[2 * n])
    spot = plt.Rectangle((column / 8, row / 8), 1 / 8, 1 / 8, fill=False, color="#D55E00", linewidth=2)
    axes[2 * n].add_patch(spot)
    bars = axes[2 * n + 1]
    bars.bar(range(17), predicted[n], color="#56B4E9", label="PixelCNN")
    bars.step(range(17), counted, where="mid", color="black", linewidth=1, label="histogram")
    bars.axvline(level, color="#D55E00", linestyle=":", label="what was there")
    bars.set(xlabel="level", xticks=(0, 8, 16))
    print(f"digit {n}: level {level} was there; PixelCNN gave it {predicted[n, level]:.2f}, ", end="")
    print(f"the histogram {counted[level]:.2f}")
axes[1].set_ylabel("probability")
axes[1].legend(fontsize=8)
show(
    figure,
    "Two digits with one marked pixel each, and beside each the probabilities of its 17 levels: blue bars, which differ "
    "between the digits, and the outline of the histogram, the same for both; a dotted line at the true level.",
)

# %% [markdown] id="where-text"
# Where does the network save bits? Here is the same number before the mean over the pixels: a map of bits.

# %% id="where" tags=["static"]
from torch.nn.functional import cross_entropy


def bits_by_place(logits):
    """The mean bits of each pixel on the test digits: (8, 8)."""
    return cross_entropy(logits, x_test, reduction="none").mean(0).cpu() / math.log(2)


with torch.no_grad():
    by_network = bits_by_place(model(x_test))
by_histograms = bits_by_place(histograms.to(device).expand(len(x_test), -1, -1, -1))
saved = by_histograms - by_network
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9))
for ax, bits, title in zip(axes, (by_histograms, by_network, saved), ("independent pixels", "PixelCNN", "saved")):
    drawn = ax.imshow(bits.numpy(), cmap="viridis", vmin=0, vmax=4.1)
    ax.set(title=title, xlabel="column", ylabel="row")
    ax.grid(False)
figure.colorbar(drawn, ax=axes, label="bits")
show(
    figure,
    "Bits at each of the 64 places. Independent pixels pay up to four bits in the middle; PixelCNN pays less "
    "almost everywhere, and saves most in the lower half.",
)
print(f"bits saved in the upper four rows {saved[:4].sum():.1f}, in the lower four {saved[4:].sum():.1f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert saved[4:].sum() > saved[:4].sum()

# %% [markdown] id="where-read"
# The network saves more bits in the lower four rows than in the upper four, on average over the 357 test digits. At the
# top there is little to go by; further down more of the digit is already known. At the left margin, which is nearly
# always empty, both models need almost no bits.

# %% [markdown] id="temperature-text"
# ## 5 · Drawing
#
# The chain rule is also a recipe for drawing. Draw the first pixel. Given it, draw the second; given both, the third.
# This is **ancestral sampling**: each pixel after its ancestors.
#
# Often one adds a control, the *temperature* $\tau$:
#
# $$p_\tau(j) = \frac{e^{\ell_j / \tau}}{\sum_{j'} e^{\ell_{j'} / \tau}}$$
#
# In words: the logit $\ell_j$ of each level $j$ is divided by $\tau$ before the softmax. $\tau = 1$ is the model as
# trained. A low temperature ($\tau < 1$) makes likely levels more likely, a high one ($\tau > 1$) makes all more equal.
#
# ### Exercise 6 · Temperature
#
# **Difficulty** ●○○○○ **Minutes** 5. Axis 1 holds the levels, whatever comes after it: logits may be (batch, levels) or
# (batch, levels, height, width).


# %% id="pixel-probabilities"
def pixel_probabilities(logits, temperature=1.0):
    """softmax(logits / temperature) over axis 1: (batch, levels, ...) -> the same shape."""
    ### BEGIN SOLUTION
    return (logits / temperature).softmax(1)
    ### END SOLUTION


# %% id="pixel-probabilities-check"
pixel_probabilities = check("01.pixel_probabilities", pixel_probabilities)
# hint("01.pixel_probabilities")

# %% [markdown] id="fill-in-text"
# ### Exercise 7 · Pixel by pixel
#
# **Difficulty** ●●●●○ **Minutes** 20. This is the sampler, and a bit more: it keeps the first `keep` pixels of `x` and
# draws only the others. With `keep=0` it draws everything.
#
# `model(x)` gives the logits, (batch, levels, height, width); your `pixel_probabilities` turns them into probabilities.
# What `x` holds after the kept pixels does not matter: the network cannot look ahead. For each pixel that is drawn,
# evaluate the model once, on the whole batch. Leave the caller's `x` as it is, and return whole numbers (int64).
# `torch.multinomial(p, 1, generator=generator)` draws one index for each row of `p` (batch, levels), giving (batch, 1).
# `p` must be on the generator's device, the CPU, so write `p.cpu()`.
#
# For example, with two images of 8 × 8, `fill_in(model, x, 24, generator)` keeps the first three rows of each and
# draws forty pixels, from row 3, column 0 on.


# %% id="fill-in"
@torch.no_grad()
def fill_in(model, x, keep, generator, temperature=1.0):
    """Keep the first `keep` pixels of x (batch, height, width), draw the others one by one in raster order."""
    ### BEGIN SOLUTION
    x = x.clone()
    height, width = x.shape[1:]
    for i in range(keep, height * width):
        row, column = divmod(i, width)
        p = pixel_probabilities(model(x)[:, :, row, column], temperature)  # (batch, levels)
        x[:, row, column] = torch.multinomial(p.cpu(), 1, generator=generator)[:, 0].to(x.device)
    return x
    ### END SOLUTION


# %% id="fill-in-check"
fill_in = check("01.fill_in", fill_in)
# hint("01.fill_in")

# %% [markdown] id="grow-text"
# Watch a row of digits grow. Blue means not drawn yet.

# %% id="grow" tags=["static"]
from course_utils.widgets.pixel_by_pixel import UNSEEN

blank = torch.zeros(8, 8, 8, dtype=torch.int64, device=device)
grown = fill_in(model, blank, 0, torch.Generator().manual_seed(1))
stages = []
for drawn in (8, 20, 32, 44, 64):
    picture = pixelcnn.to_pictures(grown, 17).cpu().expand(-1, 3, -1, -1).clone()  # (8, 3, 8, 8)
    picture.flatten(2)[:, :, drawn:] = UNSEEN[:, None]
    stages.append(picture)
show(
    plot_pictures(torch.cat(stages), columns=8, rows=[f"{drawn} pixels" for drawn in (8, 20, 32, 44, 64)]),
    "Eight digits after 8, 20, 32, 44 and 64 pixels: each grows from the top, row by row, until it is whole.",
)

# %% id="grid" tags=["static"]
from course_utils.models.pixelcnn import sample_by_rows, to_pictures

blank = torch.zeros(60, 8, 8, dtype=torch.int64, device=device)
drawn = fill_in(model, blank, 0, torch.Generator().manual_seed(0))
package = pixelcnn.fill_in(model, blank, 0, torch.Generator().manual_seed(0))
print(f"{int((drawn == package).flatten(1).all(1).sum())} of 60 equal the package's, pixel by pixel")
show(
    plot_pictures(to_pictures(drawn, 17), columns=15),
    "Sixty digits drawn pixel by pixel by the trained network: seed 0, none selected.",
)

# %% [markdown] id="grid-read"
# With `torch.multinomial` and the same seed, your function and the package's draw the same sixty. Some look like
# digits, others do not. (A pixel is never corrected once it is drawn, even if it turns out not to fit.) How close the
# drawings are to real digits, as a whole, can be measured.
#
# > **Given now, explained in chapter 15: the Fréchet distance** between drawn digits and the training digits, in
# > features of a small network that classifies digits. Lower is better; 0 would be a perfect match of means and
# > covariances. The network needs 16 × 16 pixels, so everything is enlarged in the same way. Few images give a larger
# > distance than many, so we take 357 of each kind. The *floor*, for comparison, is what unseen real digits get.

# %% id="fid"
from torch.nn.functional import interpolate

from course_utils.metrics.pictures import digit_fid


def as_16(x):
    """Levels (n, 8, 8) as images (n, 1, 16, 16), enlarged as `digits.load(16)` does it."""
    return interpolate(to_pictures(x, 17).cpu(), size=(16, 16), mode="bilinear", align_corners=False)


blank = torch.zeros(357, 8, 8, dtype=torch.int64, device=device)
start = time.perf_counter()
many = sample_by_rows(model, blank, 0, torch.Generator().manual_seed(0))
seconds_per_picture = (time.perf_counter() - start) / 357
torch.manual_seed(0)
alone = torch.distributions.Categorical(logits=histograms[0].permute(1, 2, 0).cpu()).sample((357,))
fid, alone_fid, floor = digit_fid(as_16(many)), digit_fid(as_16(alone)), digit_fid(as_16(x_test))
print(f"Fréchet distance: independent pixels {alone_fid:.0f}, PixelCNN {fid:.0f}, unseen real digits {floor:.0f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert floor < fid < alone_fid / 3

# %% [markdown] id="copies-text"
# By this measure, PixelCNN's digits are much closer to the training digits than images of independent pixels, but not
# as close as unseen real digits. (This is one training and one set of drawings, without an interval.)
#
# Has it memorised training digits? For each drawn digit, find the nearest training digit: the one with the smallest
# absolute difference in levels, averaged over the pixels. Unseen real digits set the scale.

# %% id="copies"
known = x_train.flatten(1).float()
for name, pictures in (("drawn", many), ("unseen real", x_test)):
    nearest = torch.cdist(pictures.flatten(1).float(), known, p=1).min(1).values / 64
    print(f"{name:12} nearest training digit {nearest.median():.2f} levels away (median of 357), ", end="")
    print(f"exact copies {(nearest == 0).sum()}")

# %% [markdown] id="fill-strip-text"
# No drawn digit is a copy of a training digit, and at the median the drawn ones are farther from their nearest training
# digit than unseen real ones. This test finds no sign of memorising.
#
# ### Half a digit
#
# A model of this kind completes what you begin. The explorer keeps the first pixels of a real test digit, eight to a
# row, and draws the rest four times. In its pictures, T stands for the temperature.
#
# **Predict first, then move the sliders.** After how many rows do all four continuations show the same digit? What does
# a temperature of 0.3 do to drawings from nothing, and what does one of 2?
#
# <details><summary>Answer (after running the cells below)</summary>
# After six of eight rows a digit classifier reads all four alike for every one of 60 digits, after two rows only for
# about one in six: see the printed shares and intervals. Drawings from nothing differ from each other a little less at
# 0.3 than at 1, and a little more at 2. The printed means over 40 drawings each are only a few tenths of a level per
# pixel apart, and they have no interval.
# </details>

# %% id="fill-strip" tags=["static"]
from course_utils.widgets import explore, fill_in_explorer, filmstrip

explorer = fill_in_explorer(model, x_test)
filmstrip(explorer, [{"keep": 16}, {"keep": 32}, {"keep": 48}, {"keep": 0, "temperature": 0.3}])

# %% id="fill-explore"
explore(explorer)

# %% [markdown] id="alike-text"
# The same questions with numbers: four continuations of each of 60 test digits, read by a digit classifier; then 40
# drawings from nothing at each temperature, and the mean difference in levels between two of them. (Where all 60 are
# alike, the formula gives an interval of no width, which is too narrow: if the true share were 95%, 60 of 60 would
# still occur in about one case in twenty.)

# %% id="alike"
from course_utils.recipes import load_reader

classifier = load_reader()
begun = x_test[:60].repeat_interleave(4, 0)  # (240, 8, 8)
shares = {}
for kept_rows in (2, 4, 6):
    continued = sample_by_rows(model, begun, 8 * kept_rows, torch.Generator().manual_seed(0))
    with torch.no_grad():
        read = classifier(as_16(continued)).argmax(1).reshape(60, 4)
    shares[kept_rows] = (read == read[:, :1]).all(1).float().mean().item()
    error = 1.96 * (shares[kept_rows] * (1 - shares[kept_rows]) / 60) ** 0.5
    print(f"{kept_rows} rows kept: all four read alike for {shares[kept_rows]:.0%} ± {error:.0%} of 60 digits")
for temperature in (0.3, 1, 2):
    found = sample_by_rows(model, blank[:40], 0, torch.Generator().manual_seed(0), temperature).flatten(1).float()
    print(f"temperature {temperature}: two drawings differ by {torch.pdist(found, p=1).mean() / 64:.1f} levels a pixel")
if budget(smoke=False, laptop=True, gpu=True):
    assert shares[2] < 0.5 < shares[6]

# %% [markdown] id="cost-text"
# ## 6 · What an image costs
#
# To compute the probability of an image (to *score* it) takes one pass. To *draw* one takes as many passes as it has
# pixels, one after the other: however many processors a computer has, pixel 20 is drawn only when pixel 19 is known.
# Count the passes.


# %% id="cost"
class Counting(torch.nn.Module):
    """A model that counts how often it is evaluated."""

    def __init__(self, model):
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, x):
        self.passes += 1
        return self.model(x)


def seconds(work, times=5):
    """The shortest of several runs, in seconds."""
    runs = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        runs.append(time.perf_counter() - start)
    return min(runs)


# %% id="cost-run"
one = torch.zeros(1, 8, 8, dtype=torch.int64, device=device)
counting = Counting(model)
fill_in(counting, one, 0, torch.Generator().manual_seed(0))
with torch.no_grad():
    score_seconds = seconds(lambda: model(one))
draw_seconds = seconds(lambda: fill_in(model, one, 0, torch.Generator().manual_seed(0)), 3)
print(f"scoring one image: 1 pass, {1000 * score_seconds:.1f} ms")
ratio = draw_seconds / score_seconds
print(f"drawing one image: {counting.passes} passes, {1000 * draw_seconds:.0f} ms, {ratio:.0f} times as long")

with torch.no_grad():
    per_pixel = seconds(lambda: model(x_test), 2) / x_test.numel()
large = 512 * 512
days = large**2 * per_pixel / 86_400
print(f"a photograph of 512 x 512 in this way: {large:,} passes over {large:,} pixels each, ", end="")
print(f"at {1e6 * per_pixel:.1f} microseconds a pixel: {days:.0f} days")
assert counting.passes == 64
if budget(smoke=False, laptop=True, gpu=True):
    assert draw_seconds > 20 * score_seconds

# %% [markdown] id="rows-text"
# The ratio of the times need not be 64, since a step does more than its pass, and times as short as these vary from run
# to run.
#
# Much of that work is repeated. Rows that are finished do not change, so the first stack needs to run only once
# per row, and the second only on the current row. The package's `sample_by_rows` does this (it drew the 357 above). It
# gives the same image, number for number, but it still takes 64 steps, one after the other.

# %% id="rows"
slow = seconds(lambda: fill_in(model, blank[:60], 0, torch.Generator().manual_seed(0)), 1)
fast = seconds(lambda: sample_by_rows(model, blank[:60], 0, torch.Generator().manual_seed(0)), 1)
assert torch.equal(sample_by_rows(model, blank[:60], 0, torch.Generator().manual_seed(0)), package)
print(f"sixty digits: {slow:.2f} s, with finished rows kept {fast:.2f} s: {slow / fast:.1f} times faster")

# %% [markdown] id="leak-text"
# ## A failure, explained: the answer leaks
#
# Here is a plain stack of masked convolutions, as in section 3, and one letter in it is wrong: the first layer gets a
# mask of kind B. Nothing crashes, and all shapes are right. (The "honest network" that is printed beside it is the
# PixelCNN of section 4, which is larger and was trained for longer.)
#
# **Predict first.** How low will the loss go, and what will the samples look like?
#
# <details><summary>Answer (after running the two cells below)</summary>
# Far too low: the network copies the level that it is meant to predict. When it draws, the place of the next pixel
# holds a zero, and it copies the zero: the samples are nearly blank. Its number is not a likelihood, because its
# factors are not conditional probabilities. Whenever a likelihood looks too good, check the receptive field first; it
# takes one line.
# </details>

# %% id="leak"
torch.manual_seed(0)
leaky = pixelcnn.StackedPixelCNN(levels=17, hidden=32, blocks=2, first="B").to(device)
leaky_before = bits_of(leaky, x_test).mean().item()
for _ in fit(leaky.train(), x_train, budget(smoke=12, laptop=400, gpu=500)):
    pass
leaky_bits = bits_of(leaky, x_test).mean().item()
print(f"bits/dim on test digits: {leaky_before:.3f} before, {leaky_bits:.3f} after; honest network {model_bits:.3f}")
assert leaky_bits < leaky_before
if budget(smoke=False, laptop=True, gpu=True):
    assert leaky_bits < model_bits / 2

field = receptive_field(leaky.see, torch.randn(1, 3, 8, 8, device=device), 4, 3)
print("sees the pixel that it predicts:", bool(field[4, 3]))
assert field[4, 3]

# %% id="leak-draw" tags=["static"]
junk = fill_in(leaky, blank[:10], 0, torch.Generator().manual_seed(0))
show(
    plot_pictures(to_pictures(junk, 17), columns=10), "Ten pictures drawn by the leaky network: nearly or wholly blank."
)
if budget(smoke=False, laptop=True, gpu=True):
    print(f"mean level: drawn {junk.float().mean():.2f}, real {x_test.float().mean():.2f}")
    assert junk.float().mean() < x_test.float().mean() / 2

# %% [markdown] id="latent-text"
# ## A failure that leads to chapter 02: no latent space
#
# Suppose you want a digit *between* a 3 and an 8, or this 3 but rounder. PixelCNN has no code for an image, no point in
# a space that you could move. It has only pixels and random numbers.
#
# **Predict first.** Blend two digits pixel by pixel. How probable is the blend under the model? And if we draw with the
# *same random numbers* and change one pixel at the top by hand, is the image almost the same?
#
# <details><summary>Answer (after running the cells below)</summary>
# On average over 30 pairs, the blends are less probable than the threes and than the eights. And one changed pixel
# turns the image into another digit in most of 100 pairs (the last printed line). For comparison: if drawings were
# unrelated, and all ten digits equally frequent, the two of a pair would differ in 90%. No short list of numbers says
# <em>what</em> the image shows, such that similar numbers mean similar images. Chapter 02 builds models that have one,
# a point in a <em>latent space</em>, and that draw in a single pass. The price is that the likelihood is no longer
# exact.
# </details>

# %% id="latent" tags=["static"]
labels = digits.load(8, "test")[1]
threes, eights = x_test[(labels == 3).to(device)][:30], x_test[(labels == 8).to(device)][:30]
blends = (threes + eights + 1) // 2  # half-way, rounded to levels
three, blend, eight = (bits_of(model, x).mean().item() for x in (threes, blends, eights))
print(f"bits per dimension, 30 of each: threes {three:.2f}, their blends {blend:.2f}, eights {eight:.2f}")

changed = blank[:6].clone()
changed[:, 0, 3] = torch.tensor([0, 3, 6, 9, 12, 15])  # the fourth pixel, by hand
rows = [fill_in(model, changed[i : i + 1], 4, torch.Generator().manual_seed(2)) for i in range(6)]
titles = ["3", "blend", "8"] * 2 + [f"pixel {level}" for level in (0, 3, 6, 9, 12, 15)]
shown = torch.cat([*(torch.stack([threes[i], blends[i], eights[i]]) for i in (0, 1)), *rows])
show(
    plot_pictures(to_pictures(shown, 17), titles, columns=6),
    "Above: a three, its blend with an eight, the eight, twice; the blends show both at once. Below: six digits "
    "drawn with the same random numbers, but for one pixel in the first row.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert blend > max(three, eight)

# %% [markdown] id="latent-read"
# In the lower row, each title gives the level of the fourth pixel. How often does a digit become another one? We draw
# 100 pairs. The two of a pair share all random numbers, but the fourth pixel is 0 in one and 15 in the other; a digit
# classifier reads both.

# %% id="latent-pairs"
read = []
for level in (0, 15):
    start_with = torch.zeros(100, 8, 8, dtype=torch.int64, device=device)
    start_with[:, 0, 3] = level
    found = sample_by_rows(model, start_with, 4, torch.Generator().manual_seed(2))
    with torch.no_grad():
        read.append(classifier(as_16(found)).argmax(1))
other = (read[0] != read[1]).float().mean().item()
error = 1.96 * (other * (1 - other) / 100) ** 0.5
print(f"read as another digit after one pixel was changed: {other:.0%} ± {error:.0%} of 100 pairs")

# %% [markdown] id="compare-text"
# ## The families, side by side
#
# Later chapters add other kinds of models to this table. The upper rows are the course's: every model gets about one
# minute of processor time on digits, and one on small pages of the picture book (32 × 32 pixels, one thing on each),
# and draws 357 images. *Real* is the floor: other real images. *FID* is the Fréchet distance; for pages it uses
# features of another network, so compare it only between rows of the same data. *One thing* is the share of pages on
# which a small detector finds exactly one thing. In the row of 16 × 16, too, PixelCNN draws digits of 8 × 8, which are
# then enlarged, and its bits are those of 8 × 8. The last row is yours: what the model cost to train and to draw, and
# how good it is.

# %% id="compare"
from course_utils.metrics.families import Row, compare

compare(
    Row(
        "PixelCNN",
        "digits 8x8",
        parameters=sum(p.numel() for p in model.parameters()),
        training_seconds=training_seconds,
        seconds_per_picture=seconds_per_picture,
        fid=fid,
        bits_per_dim=model_bits,
    ),
    upto="PixelCNN",
)

# %% [markdown] id="compare-read"
# For pages, one minute of the same recipe is not enough: 9% (± 3%) of the 357 drawn pages show exactly one thing, while
# all real ones do. Pages have 16 times as many pixels as a digit, each with one of 512 colours; which of the two
# matters more, the table does not show. The column of bits is left empty there, since its likelihoods are of 8 × 8
# digits.

# %% [markdown] id="elsewhere"
# ## What you will read elsewhere
#
# **"PixelCNN, a method of the 1990s."** Some introductions date it so. Its two papers are from January and June 2016.
# (arXiv numbers are dates.) What is older is the convolutional network: Fukushima's neocognitron dates from 1980,
# LeCun's network for handwritten digits from 1989. PixelCNN adds a mask to the convolutional layer. Remove the
# mask, and the ordinary layer is left:

# %% id="elsewhere-date"
for number in ("1601.06759", "1606.05328"):
    print(f"arXiv:{number} appeared in month {number[2:4]} of 20{number[:2]}")
layer = MaskedConv2d(1, 4, 3, "B")
layer.mask = torch.ones(3, 3)
x = torch.randn(2, 1, 8, 8)
torch.testing.assert_close(layer(x), conv2d(x, layer.weight, layer.bias, padding=1))
print("with a mask of ones the layer is an ordinary convolution")

# %% [markdown] id="elsewhere-order"
# **"Autoregressive models are trained pixel by pixel."** They *draw* pixel by pixel. In training one pass gives all
# conditional distributions, because all pixels before each one are known from the data (*teacher forcing*). Here are
# both ways, for the same digit: 64 passes, each on an image that ends before pixel $i$, and one pass.

# %% id="elsewhere-order-run"
digit = x_test[:1]
one_by_one = []
with torch.no_grad():
    for i in range(64):
        so_far = digit.clone()
        so_far.flatten(1)[:, i:] = 0
        one_by_one.append(model(so_far)[:, :, i // 8, i % 8])
    at_once = model(digit).flatten(2)  # (1, 17, 64)
difference = (torch.stack(one_by_one, 2) - at_once).abs().max().item()
print(f"largest difference of any logit: {difference:.1e}")
assert difference < 1e-3

# %% [markdown] id="elsewhere-quality"
# **"A better likelihood means better images."** Not necessarily. Build a model that uses PixelCNN with probability
# 1/100, and otherwise draws pure noise. Its probability of any $x$ is at least a hundredth of PixelCNN's. So it costs
# at most $\log_2 100 = 6.6$ bits more per *image*, whatever the image's size. Although 99 of 100 of its images are
# noise, it still needs fewer bits than independent pixels:

# %% id="elsewhere-quality-run"
log_p = -64 * bits_of(model, x_test).double() * math.log(2)  # of whole pictures, in nats
log_noise = torch.full_like(log_p, -64 * math.log(17))
mixture = torch.logaddexp(log_p + math.log(0.01), log_noise + math.log(0.99))
mixture_bits = (-mixture / 64 / math.log(2)).mean().item()
print(f"PixelCNN {model_bits:.3f} bits/dim; 99 % noise {mixture_bits:.3f}; independent pixels {histogram_bits:.3f}")
assert mixture_bits - model_bits <= math.log2(100) / 64 + 1e-6
if budget(smoke=False, laptop=True, gpu=True):
    assert mixture_bits < histogram_bits  # a better likelihood, and nearly all of its pictures are noise

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | $-\frac{1}{d_x}\sum_i \log_2 p(x_i \mid x_{<i})$ | `bits_per_dim(logits, x)` |
# | mask of kind A or B | `causal_mask(size, kind)` |
# | $(W \odot \text{mask}) * x + b$ | `MaskedConv2d(in_channels, out_channels, size, kind)` |
# | $\{i : \partial y_{\text{row},\text{column}} / \partial x_i \neq 0\}$ | `receptive_field(network, x, row, column)` |
# | the rows above, then left in the own row | `two_stack_layer(v, h, above, left)` |
# | $\text{softmax}(\ell / \tau)$ | `pixel_probabilities(logits, temperature)` |
# | $x_i \sim p(x_i \mid x_{<i})$, one after the other | `fill_in(model, x, keep, generator)` |
#
# Exact likelihood, one pass to score, $d_x$ passes to draw, no latent space. The same recipe with words in place of
# pixels is a language model; chapter 13 uses it again, on an image's *tokens*.

# %% [markdown] id="questions"
# `progress()`, in a cell of its own, shows which exercises of the course you have solved.
#
# ### To think about
#
# Open a line for the answer.
#
# <details><summary>1. Would the digits come out differently if the pixels were drawn from bottom to top?</summary>
# A perfect model would give the same distribution: the chain rule holds for every order, as for two pixels. A network
# is not perfect, and some orders may be easier to learn, so its digits and its bits can differ.
# </details>
# <details><summary>2. What is the lowest number of bits per dimension that a model can reach on new digits, on
# average?</summary>
# The entropy of such digits, divided by their 64 pixels. It is unknown, but not 0, since handwriting varies. A model
# that needs almost no bits for test digits has seen them, or looks ahead.
# </details>
# <details><summary>3. Language models offer "temperature 0". What would that be here, and why is it a bad
# idea?</summary>
# The most likely level at each pixel: no randomness, so always the same image. And taking the most likely pixel each
# time does not lead to the most likely image.
# </details>

# %% [markdown] id="papers"
# **Papers** PixelRNN and PixelCNN: van den Oord, Kalchbrenner and Kavukcuoglu,
# [arXiv:1601.06759](https://arxiv.org/abs/1601.06759). Two stacks and gates: van den Oord et al.,
# [arXiv:1606.05328](https://arxiv.org/abs/1606.05328). Improved: Salimans et al., PixelCNN++,
# [arXiv:1701.05517](https://arxiv.org/abs/1701.05517). Masks in fully connected networks: Germain et al., MADE,
# [arXiv:1502.03509](https://arxiv.org/abs/1502.03509). What likelihood does not say: Theis, van den Oord and Bethge,
# [arXiv:1511.01844](https://arxiv.org/abs/1511.01844).

# %% [markdown] id="bonus"
# ## Bonus: colour
#
# A colour pixel has three channels. One can predict them in order, green given red, blue given both: three times as
# many passes. Or all at once: with 8 levels a channel there are $8^3 = 512$ colours, and each is one *symbol*. The
# network reads three channels, its softmax gets 512 outputs, and nothing else changes: not the loss, not the shifts,
# not the sampler. Here are pages of the picture book in 512 colours. If all colours are equally probable, each
# channel of a pixel costs $\log_2 8 = 3$ bits.

# %% id="bonus-run" tags=["static"]
from course_utils.data import picture_book as book

pages = book.pictures([book.sample_scene(n) for n in range(8)], size=32)
symbols = pixelcnn.to_symbols(pages, levels=8)  # (8, 32, 32), int64 in 0..511
coarse = to_pictures(symbols, levels=8, channels=3)
show(
    plot_pictures(torch.cat([pages, coarse]), columns=8, rows=["page", "512 colours"]),
    "Upper row: eight pages of the picture book. Lower row: the same with eight levels a channel; soft shades became flat "
    "areas.",
)

colourful = pixelcnn.PixelCNN(levels=8, channels=3, hidden=32, blocks=4, size=5).to(device)
with torch.no_grad():
    logits = colourful(symbols.to(device))
print(f"{symbols.unique().numel()} of 512 colours occur; logits {tuple(logits.shape)}")
print(f"untrained: {bits_per_dim(logits, symbols.to(device)).mean() / 3:.2f} bits per channel and pixel")

# %% [markdown] id="bonus-read"
# `fit(colourful, symbols.to(device), steps)` trains it, with the loop of section 4 and your loss. Take many more pages
# than these eight, and expect it to take long without a GPU. To draw one page takes 1,024 passes.
