# %% [markdown] id="title"
# # 01 · Autoregressive pixels
#
# How do you draw a picture that nobody has drawn before? As a writer writes: one sign after the other, each chosen in
# view of all that stand there already. Here the signs are pixels. It is slow, and it can say *exactly* how probable a
# picture is.
#
# ![Handwritten digits that grow pixel by pixel from an empty sheet, and sixty finished
# ones.](../chapters/figures/01_digits_pixel_by_pixel.png)
#
# **After this chapter you can**
# 1. write the probability of a picture as a product, and measure any such model in bits per dimension;
# 2. build a convolution that cannot look ahead, and prove with gradients what it sees and what it misses;
# 3. train a PixelCNN, draw with it, and say what a picture costs.
#
# **Time** 60 minutes of reading, 70 of exercises. The training takes about two minutes of processor time, all other
# cells less than one. **You need** chapter 00, and what a convolution, a softmax and a gradient are.

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
# | $x$ | `x` | pictures, whole numbers: the level of each pixel | (batch, height, width) |
# | $x_i$ | `x[:, row, column]` | pixel number $i$ in *raster order*: along the rows, from the top | (batch,) |
# | $x_{<i}$ | | all pixels before pixel $i$ | |
# | $K$ | `levels` | how many levels there are: 0 ... 16 | 17 |
# | $D$ | `height * width` | how many pixels a picture has: its dimensions | 64 |
# | $p(x_i \mid x_{<i})$ | `logits.softmax(1)` | how likely each level is, given the pixels before | as `logits` |
# | $T$ | `temperature` | how freely we draw | a number |
#
# Papers count $i$ from 1 to $D$, the code from 0 to $D-1$: `row, column = divmod(i, width)`.

# %% [markdown] id="toy"
# ## Two pixels
#
# Start with a picture of *two* pixels. We take two neighbours in the middle of scikit-learn's handwritten digits, and
# only three levels: paper, grey, ink. So there are nine pictures. Count how often each occurs in 1,440 digits and you
# have a perfect model of these pictures: a table.
#
# **Predict first.** Somebody tells you how often the left pixel is ink, and how often the right one is. Can you work
# out the nine numbers? And what if they tell you how the right pixel depends on the left one?

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
# The product of the two single pixels is another table: it has lost that neighbours go together. "One pixel, then the
# other *given* the first" loses nothing, and it does not matter which one comes first. That is no approximation. It is
# what "given" means: $p(b \mid a) = p(a, b) / p(a)$.
#
# So why not count a table for whole digits?

# %% id="table-size"
entries = 17**64
print(f"levels to the power of pixels: 17^64 = {entries:.1e} pictures, and we have {len(x_train)} of them")

# %% [markdown] id="chain-text"
# ## 1 · A picture is a product
#
# The same step again and again, for as many pixels as there are, is the **chain rule**:
#
# $$p(x) = p(x_1)\; p(x_2 \mid x_1)\; p(x_3 \mid x_1, x_2) \cdots = \prod_{i=1}^{D} p(x_i \mid x_{<i})$$
#
# In words: the probability of the picture $x$ is the product, over its $D$ pixels, of the probability of pixel $i$
# given all pixels before it. It holds for every distribution and every order of the pixels. We take **raster order**:
# row by row, as you read.
#
# A model of this kind is called *autoregressive*: it predicts each piece from the earlier ones. Each factor is a
# modest thing, a choice between 17 levels. That a network can learn.

# %% [markdown] id="bits-text"
# ### How good is a model? Count bits
#
# A product of 64 small numbers is tiny, so take logarithms, which add up. With base 2 the unit is the *bit*, and it
# has a meaning: something of probability $1/2^n$ costs $n$ bits to write down, if you use the model as a code book.
#
# $$\text{bits per dimension} = -\frac{1}{D} \sum_{i=1}^{D} \log_2 p(x_i \mid x_{<i})$$
#
# In words: minus the mean, over the $D$ pixels, of the base-2 logarithm of the probability that the model gave to the
# level that was really there. Low is good. By hand, for three pixels:

# %% id="bits-by-hand"
given_to_the_truth = [0.5, 0.25, 0.125]  # what a model gave to the true level of each pixel
bits = [-math.log2(p) for p in given_to_the_truth]
print(f"{bits} bits, {sum(bits) / 3} bits per dimension; probability of the picture: {math.prod(given_to_the_truth)}")
assert math.prod(given_to_the_truth) == 2 ** -sum(bits)

# %% [markdown] id="bits-exercise"
# ### Exercise 1 · Bits per dimension
#
# **Difficulty** ●●○○○ **Minutes** 10. The one number by which this chapter compares models.
#
# The network gives *logits*, any real numbers; softmax over axis 1 makes them probabilities. Torch's logarithms are
# natural, their unit is the nat: one bit is $\ln 2$ nats. The network will be trained with this number, so stay with
# tensors: gradients must reach the logits. And let it hold for a model that is sure and wrong, with logits 100 apart,
# whose probabilities float32 rounds to 0. If you are stuck, take the `#` away before `hint`; each call
# says a little more. All answers are in the [solved notebook](../solutions/01_autoregressive_pixels.ipynb).


# %% id="bits-per-dim"
def bits_per_dim(logits, x):
    """-1/D sum_i log2 p(x_i | x_<i): logits (batch, levels, height, width), x (batch, height, width) -> (batch,)."""
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
# All versions agree: yours, the package's, and torch's distribution of whole numbers.

# %% id="same"
from course_utils.models import pixelcnn

logits, x = torch.randn(5, 17, 8, 8, generator=torch.Generator().manual_seed(0)), x_test[:5]
library = -torch.distributions.Categorical(logits=logits.movedim(1, -1)).log_prob(x).mean((1, 2)) / math.log(2)
for answer in (pixelcnn.bits_per_dim(logits, x), library):
    torch.testing.assert_close(bits_per_dim(logits, x), answer)

# %% [markdown] id="baseline-text"
# ### Two models that know little
#
# A model that knows nothing gives every level $1/17$. A better one counts, for each of the 64 places, how often each
# level occurs there in the training digits, and takes the pixels as independent. (It counts everything once more than
# it occurred. Otherwise one new level at one place would make a test digit impossible: infinitely many bits.)
#
# We measure on the 357 test digits. No model of this chapter is trained on them.

# %% id="baseline"
histograms = pixelcnn.histogram_logits(x_train, 17)  # (1, 17, 8, 8)
print("p of levels 0, 8, 16 in the corner:", [f"{p:.3f}" for p in histograms.softmax(1)[0, [0, 8, 16], 0, 0]])

uniform_bits = bits_per_dim(torch.zeros(357, 17, 8, 8), x_test).mean().item()
histogram_bits = bits_per_dim(histograms.expand(357, -1, -1, -1), x_test).mean().item()
print(f"uniform      {uniform_bits:.3f} bits/dim (log2 17 = {math.log2(17):.3f})")
print(f"histograms   {histogram_bits:.3f} bits/dim, {64 * histogram_bits:.0f} bits a picture")
assert abs(uniform_bits - math.log2(17)) < 1e-5 and histogram_bits < uniform_bits

# %% id="baseline-draw" tags=["static"]
drawn = torch.distributions.Categorical(logits=histograms[0].permute(1, 2, 0))
torch.manual_seed(0)
apart = drawn.sample((10,))  # (10, 8, 8)
show(
    plot_pictures(pixelcnn.to_pictures(torch.cat([x_test[:10], apart]), 17), columns=10),
    "Upper row: ten test digits of 8 x 8 pixels. Lower row: ten pictures with each pixel drawn by itself, clouds of "
    "grey in which no digit can be read.",
)

# %% [markdown] id="baseline-read"
# The histograms know where ink is likely. But each pixel is drawn alone, and neighbours do not agree: this is the
# second table of the toy, in 64 dimensions.
#
# ### Why so few pixels?
#
# Other chapters draw digits of 16 × 16, blown up from these 8 × 8. That looks nicer, and would make the number above
# meaningless. First the plain case: double every pixel. Three of four are copies of one that came before, and a model
# may know that. A copy costs $\log_2 1 = 0$ bits.

# %% id="upsampled"
copies_cost = 0.0
doubled_bits = (64 * histogram_bits + 192 * copies_cost) / 256
print(f"the same digits and model, each pixel doubled: {doubled_bits:.3f} bits/dim, not {histogram_bits:.3f}")

blown_up, test_16 = (digits.load(16, split)[0].flatten(1).double() for split in ("train", "test"))  # (n, 256)
print(f"blown up smoothly: {torch.linalg.matrix_rank(blown_up)} of 256 directions are used")
for sigma in (0.1, 0.01, 0.001, 1e-6):
    covariance = blown_up.T.cov() + sigma**2 * torch.eye(256)
    normal = torch.distributions.MultivariateNormal(blown_up.mean(0), covariance)
    print(
        f"  density of a normal distribution with noise {sigma:g}: "
        f"{-normal.log_prob(test_16).mean() / 256 / math.log(2):8.2f} bits/dim"
    )

# %% [markdown] id="upsampled-read"
# Doubling divides the bits by four, and nothing was learnt. Smooth enlarging is worse. Grey values are then real
# numbers with a *density*, and three quarters of the 256 directions hold nothing at all. A density may be as narrow there as it
# likes, so the score falls for ever, on unseen digits too. Bits per dimension mean something only for data as they
# were recorded: here, 17 levels in 8 × 8 pixels.

# %% [markdown] id="mask-text"
# ## 2 · A convolution that cannot look ahead
#
# We need 64 conditionals. 64 networks would learn the same strokes 64 times. A convolution does one thing at all
# places. Let its last layer give 17 logits for each pixel, and read them as $p(x_i \mid x_{<i})$.
#
# That is allowed on one condition: the logits at pixel $i$ must not depend on pixel $i$, nor on any later one.
# Otherwise the network copies the answer. An ordinary kernel looks in all directions. So we set to zero those of its
# weights that look ahead. With a 0/1 **mask** $M$ over the kernel $W$:
#
# $$y = (W \odot M) * x + b$$
#
# $*$ is the convolution, $\odot$ multiplies element by element, $b$ is the bias.

# %% [markdown] id="mask-exercise"
# ### Exercise 2 · The mask, kinds A and B
#
# **Difficulty** ●●○○○ **Minutes** 8. Who may see what.
#
# The *first* layer reads the picture. The middle of its kernel lies on pixel $i$ itself, the answer: hidden. This is
# kind **A**. *Later* layers read the features of layers before them. The features at place $i$ know only pixels before
# $i$, so the middle may be seen: kind **B**. Return a tensor of float32, since a kernel will be multiplied with it.


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
# Use it once by hand, before it becomes a layer: the kernel of ones, masked, on a picture of ones *counts* the pixels
# that are seen.

# %% id="mask-look"
from torch.nn.functional import conv2d

for kind in ("A", "B"):
    print(f"kind {kind}:", causal_mask(5, kind).int().tolist())
counted = conv2d(torch.ones(1, 1, 4, 5), causal_mask(3, "A")[None, None], padding=1)  # (1, 1, 4, 5)
print(counted[0, 0].int())

# %% [markdown] id="mask-look-read"
# The first pixel sees nothing, those of the first row one, those at the edges fewer than the four in the middle. At
# the edges zeros are filled in (*padding*).
#
# ### Exercise 3 · The layer
#
# **Difficulty** ●●●○○ **Minutes** 15. It will be trained, so beware: an update changes *all* weights. What must be
# zero must be made zero each time the layer is used, while the weights themselves stay as they are.
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
# By hand, yours and the package's: one output, as the sum that it should be, and all of them.

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
# ## 3 · What does the network see? Ask the gradient
#
# Layers on layers reach further: that is the point of stacking them. Which pixels does a *stack* see? There is a test
# that needs no thinking. If an output depends on a pixel, its derivative by that pixel is not zero:
#
# $$\text{field}(r, c) = \Bigl\{\,j : \frac{\partial\, y_{r,c}}{\partial x_j} \neq 0\,\Bigr\}$$
#
# In words: the *receptive field* of the output at row $r$, column $c$ is the set of pixels $j$ by which its gradient is
# not zero. Autograd computes it for any network, and finds every leak.
#
# ### Exercise 4 · The receptive field
#
# **Difficulty** ●●●○○ **Minutes** 12. A tool that will serve you for any network, so it must leave the network as it
# was: `torch.autograd.grad(number, x)` asks for one gradient, where `number.backward()` would leave one in every
# parameter.


# %% id="receptive-field"
def receptive_field(network, x, row, column):
    """Which pixels of x (1, channels, height, width) the output at (row, column) depends on: bool (height, width)."""
    ### BEGIN SOLUTION
    #: a copy of the input whose gradient torch keeps
    x = x.clone().requires_grad_(True)
    #: one number from the output at this place: the sum over its channels
    number = network(x)[0, :, row, column].sum()
    #: its gradient by the input
    (gradient,) = torch.autograd.grad(number, x)  # (1, channels, height, width)
    #: where it is not zero, in any channel
    return (gradient[0] != 0).any(0)
    ### END SOLUTION


# %% id="receptive-field-check"
receptive_field = check("01.receptive_field", receptive_field)
# hint("01.receptive_field")

# %% [markdown] id="blind-text"
# Now look. A stack: one layer of kind A, then layers of kind B, each with a 3 × 3 kernel. Black is the pixel that is to
# be predicted; blue is what its prediction depends on; a cross marks pixels that came before and are *not* seen.
#
# **Predict first.** With enough layers, will the stack see all earlier pixels?

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
assert seen_by_plain < before

# %% [markdown] id="blind-read"
# No. To the right there is a **blind spot**, and depth does not help. Why? To get information from the right, a layer must go up one row to move one column to the right, since the right
# part of its own row is hidden. So it never sees below that diagonal. Of the row just above it sees one pixel to the
# right and no further, and a flat stroke that leans to the right is lost.
#
# No pixel from the future is seen; this network is *correct*, only poorer than it could be. It is what the first
# PixelCNN paper proposed, and the second one repaired.

# %% [markdown] id="cure-text"
# ### The cure: two stacks
#
# Let one stack see **rows above** only. For it a whole row is one moment, so left and right are both allowed, and it
# needs no mask, only a shift: move the picture down by one row, and a kernel that looks up and to both sides cannot see
# the row that it stands in. A second stack looks **left in its own row** (the picture moved one column to the right),
# and after each layer hears what the first one knows.
#
# Information flows from the first to the second, never back: the second knows parts of the row that the first must not
# know. In the small version, without anything else:

# %% id="cure"
from torch.nn.functional import pad


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
            v = above(pad(v, (1, 1, 1, 0)))  # this (moved) row and the one above it, three columns
            h = left(pad(h, (1, 0, 0, 0))) + v  # this (moved) column and the one to the left, and the news from above
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
print(
    f"with 10 layers {int(field.sum())} of the {11 * row + column} earlier pixels, "
    f"and {int((field & ~earlier).sum())} of the others"
)
assert torch.equal(field, earlier)

# %% [markdown] id="gates-text"
# The package's `PixelCNN` is this skeleton with three additions. *Skip connections* ($h + \ldots$) make depth
# trainable. Two channels more tell row and column, which are no secret. And each layer ends in a **gate**:
#
# $$y = \tanh(W_f * h) \odot \sigma(W_g * h)$$
#
# In words: one convolution, with kernel $W_f$, proposes a value between −1 and 1; another, with kernel $W_g$, decides
# by a sigmoid $\sigma$, between 0 and 1, how much of it passes. The explorer shows both stacks at any depth and place.

# %% id="field-strip" tags=["static"]
from course_utils.widgets import explore, filmstrip, receptive_field_explorer

explorer = receptive_field_explorer()
filmstrip(
    explorer, [{"layers": 3}, {"layers": 6}, {"stack": "two stacks", "layers": 3}, {"stack": "two stacks", "layers": 6}]
)

# %% [markdown] id="field-explore-text"
# **Predict, then move the sliders.** From which row on does the plain stack see all of the pixels before it, in the
# rightmost column? How many layers do two stacks need until the upper right corner is seen from the lower left one?

# %% id="field-explore"
explore(explorer)

# %% [markdown] id="train-text"
# ## 4 · Training
#
# The loss is the bits per dimension itself: make the data probable. A digit goes in *whole*, and one pass gives all 64
# conditionals at once, since the masks see to it that none of them knows its answer. That is why this model is fast to
# train.

# %% id="model"
torch.manual_seed(0)
model = pixelcnn.PixelCNN(levels=17, hidden=48, blocks=6, dropout=0.2).to(device)
x_train, x_test = x_train.to(device), x_test.to(device)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters; logits {tuple(model(x_test[:2]).shape)}")

for place in (0, 20, 63):  # the real network, examined by your tool
    spot = divmod(place, 8)
    field = receptive_field(model.eval().see, torch.randn(1, 3, 8, 8, device=device), *spot)
    print(
        f"pixel {place} at {spot} sees {int(field.sum())} pixels, the last of them number "
        f"{field.flatten().nonzero().max().item() if field.any() else None}"
    )
    assert int(field.sum()) == place

# %% [markdown] id="loop-text"
# The loop is a generator: it makes one update and hands you step and loss. `Adam` changes the weights, with a learning
# rate that falls to zero along a cosine. Gradients longer than 1 are shortened, so that one odd batch does no harm.
# (*Dropout* hides a fifth of the features at random during training: 1,440 digits are few, and are soon learnt by
# heart.)


# %% id="loop"
def fit(model, x, steps, batch=16, learning_rate=3e-3, seed=0):
    """Make the pictures x probable; yields (step, bits per dimension of its batch) after each update."""
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
# The exam, on digits that it has never seen:

# %% id="exam"
model_bits, known_bits = bits_of(model, x_test).mean().item(), bits_of(model, x_train).mean().item()
print(f"uniform               {uniform_bits:.3f} bits/dim on test digits")
print(f"independent pixels    {histogram_bits:.3f}")
print(f"PixelCNN, untrained   {before:.3f}")
print(f"PixelCNN              {model_bits:.3f}   (on its training digits {known_bits:.3f})")
gain = 64 * (histogram_bits - model_bits)
print(
    f"a digit costs {64 * model_bits:.0f} bits, {gain:.0f} fewer than with independent pixels: it is "
    f"2^{gain:.0f} times as probable"
)
assert model_bits < before
if budget(smoke=False, laptop=True, gpu=True):
    assert model_bits < histogram_bits - 0.4

# %% [markdown] id="where-text"
# Where does it save? The same number before the mean over the pixels: a map of bits.

# %% id="where" tags=["static"]
from torch.nn.functional import cross_entropy

with torch.no_grad():
    by_place = [
        cross_entropy(logits, x_test, reduction="none").mean(0).cpu() / math.log(2)
        for logits in (histograms.to(device).expand(len(x_test), -1, -1, -1), model(x_test))
    ]
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9))
maps = [*by_place, by_place[0] - by_place[1]]
for ax, bits, title in zip(axes, maps, ("independent pixels", "PixelCNN", "saved")):
    drawn = ax.imshow(bits.numpy(), cmap="viridis", vmin=0, vmax=4.1)
    ax.set(title=title, xlabel="column", ylabel="row")
    ax.grid(False)
figure.colorbar(drawn, ax=axes, label="bits")
show(
    figure,
    "Bits at each of the 64 places. Independent pixels pay up to four bits in the middle; PixelCNN pays less "
    "almost everywhere, and saves most in the lower half.",
)
print(f"bits saved in the first two rows {maps[2][:2].sum():.1f}, in the last two {maps[2][-2:].sum():.1f}")

# %% [markdown] id="where-read"
# At the top there is nothing to go by, and little is saved. Further down most of the digit stands there already, and
# the rest follows from it. Empty margins cost next to nothing in either model.

# %% [markdown] id="temperature-text"
# ## 5 · Drawing
#
# The chain rule is a recipe as well. Draw the first pixel. Given it, draw the second; given both, the third. This is
# **ancestral sampling**: each pixel after its ancestors.
#
# Often one adds a knob, the *temperature* $T$:
#
# $$p_T(k) = \frac{e^{\ell_k / T}}{\sum_{j} e^{\ell_j / T}}$$
#
# In words: the logits $\ell_k$ of the levels $k$ are divided by $T$ before the softmax. $T = 1$ is the model as it was
# trained. Cold ($T < 1$) makes the likely likelier, hot ($T > 1$) makes all more equal.
#
# ### Exercise 5 · Temperature
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
# ### Exercise 6 · Pixel by pixel
#
# **Difficulty** ●●●●○ **Minutes** 20. The sampler, and a bit more: it keeps the first `keep` pixels of `x` and draws
# only the others. With `keep=0` it draws from nothing.
#
# What stands in `x` behind the kept pixels does not matter: the network cannot look ahead. Ask the model once for each
# pixel that is drawn, leave the caller's `x` as it is, and return whole numbers (int64). `torch.multinomial(p, 1,
# generator=generator)` draws for each row of `p` (batch, levels) one index, (batch, 1): same seed, same picture. `p` must
# be where the generator is, so write `p.cpu()`.
#
# For example, with two pictures of 8 × 8, `fill_in(model, x, 24, generator)` keeps the first three rows of each and
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
# Watch one row of digits grow. Blue is not drawn yet.

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
    plot_pictures(torch.cat(stages), columns=8),
    "Eight digits after 8, 20, 32, 44 and 64 pixels: each grows from the top, row by row, until it is whole.",
)

# %% id="grid" tags=["static"]
from course_utils.models.pixelcnn import sample_by_rows, to_pictures

blank = torch.zeros(60, 8, 8, dtype=torch.int64, device=device)
drawn = fill_in(model, blank, 0, torch.Generator().manual_seed(0))
package = pixelcnn.fill_in(model, blank, 0, torch.Generator().manual_seed(0))
print(f"{int((drawn == package).flatten(1).all(1).sum())} of 60 are the package's, pixel by pixel")
show(
    plot_pictures(to_pictures(drawn, 17), columns=15),
    "Sixty digits drawn pixel by pixel by the trained network: seed 0, nothing chosen.",
)

# %% [markdown] id="grid-read"
# With `torch.multinomial` and the same seed, your function and the package's draw the same sixty. Many can be read as
# digits, some cannot: one early unlikely pixel leads the rest astray, and nothing is ever corrected.
#
# "Many" is no number.
#
# > **Given now, explained in chapter 15: the Fréchet distance** between drawn and real digits, in features of a small
# > network that reads digits. 0 would be a perfect match of means and spreads. It wants 16 × 16, so everything is blown
# > up alike. The floor is what unseen real digits get.

# %% id="fid"
from torch.nn.functional import interpolate

from course_utils.metrics.pictures import digit_fid


def as_16(x):
    """Levels (n, 8, 8) as pictures (n, 1, 16, 16), blown up as `digits.load(16)` does it."""
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
# Has it learnt digits by heart? For each drawn digit, look for the nearest training digit: the mean difference of
# levels a pixel. Unseen real digits set the scale.

# %% id="copies"
known = x_train.flatten(1).float()
for name, pictures in (("drawn", many), ("unseen real", x_test)):
    nearest = torch.cdist(pictures.flatten(1).float(), known, p=1).min(1).values / 64
    print(
        f"{name:12} nearest training digit {nearest.median():.2f} levels away (the middle one of 357), "
        f"exact copies {(nearest == 0).sum()}"
    )

# %% [markdown] id="fill-strip-text"
# ### Half a digit
#
# A model of this kind completes what you begin. The explorer keeps the first pixels of a real digit (one that it was
# not trained on) and draws the rest four times.
#
# **Predict, then move the sliders.** After how many rows do all four continuations show the same digit? What does a
# temperature of 0.1 do to four drawings from nothing, and what one of 2?

# %% id="fill-strip" tags=["static"]
from course_utils.widgets import fill_in_explorer

explorer = fill_in_explorer(model, x_test)
filmstrip(explorer, [{"keep": 16}, {"keep": 32}, {"keep": 48}, {"keep": 0, "temperature": 0.3}])

# %% id="fill-explore"
explore(explorer)

# %% [markdown] id="cost-text"
# ## 6 · What a picture costs
#
# To *score* a picture takes one pass. To *draw* one takes as many passes as it has pixels, one after the other: no
# computer, however wide, can draw pixel 20 before pixel 19 is known. Count them.


# %% id="cost"
class Counting(torch.nn.Module):
    """A model that counts how often it is asked."""

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
print(f"scoring one picture: 1 pass, {1000 * score_seconds:.1f} ms")
print(
    f"drawing one picture: {counting.passes} passes, {1000 * draw_seconds:.0f} ms, "
    f"{draw_seconds / score_seconds:.0f} times as long"
)

with torch.no_grad():
    per_pixel = seconds(lambda: model(x_test), 2) / x_test.numel()
large = 512 * 512
print(
    f"a photograph of 512 x 512 in this way: {large:,} passes over {large:,} pixels each, at "
    f"{1e6 * per_pixel:.1f} microseconds a pixel: {large**2 * per_pixel / 86_400:.0f} days"
)
assert counting.passes == 64
if budget(smoke=False, laptop=True, gpu=True):
    assert draw_seconds > 20 * score_seconds

# %% [markdown] id="rows-text"
# Much of that work is done again and again. Rows that are finished do not change, so the first stack need run only once
# a row, and the second only on the row at hand. The package's `sample_by_rows` does so (it drew the 357 above). It
# gives the same picture, number for number, but it still takes 64 steps, one after the other.

# %% id="rows"
slow = seconds(lambda: fill_in(model, blank[:60], 0, torch.Generator().manual_seed(0)), 1)
fast = seconds(lambda: sample_by_rows(model, blank[:60], 0, torch.Generator().manual_seed(0)), 1)
assert torch.equal(sample_by_rows(model, blank[:60], 0, torch.Generator().manual_seed(0)), package)
print(f"sixty digits: {slow:.2f} s, with finished rows kept {fast:.2f} s: {slow / fast:.1f} times faster")

# %% [markdown] id="leak-text"
# ## A failure, explained: the answer leaks
#
# One letter is wrong: the first layer gets a mask of kind B. Nothing crashes. The shapes are right, and the loss is
# splendid. **Predict first:** how low will it go, and what will the samples look like?

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

# %% [markdown] id="leak-read"
# It learnt to copy: "the level here is the level here". When it draws, the place of the next pixel holds a zero, and it
# faithfully copies the zero. Its number is no likelihood at all, because its factors are no conditionals. Whenever a
# likelihood looks too good, look at the receptive field first. It takes one line.

# %% [markdown] id="latent-text"
# ## The failure that leads on: no place to stand
#
# Suppose you want a digit *between* a 3 and an 8, or this 3 but rounder. Where would you turn? PixelCNN has no code
# for a picture, no point in a space that you could move. All it has are pixels and dice.
#
# **Predict first.** Blend two digits pixel by pixel. What does the network think of the blend? And if we draw with the
# *same dice* and change one pixel at the top by hand, is the picture almost the same?

# %% id="latent" tags=["static"]
labels = digits.load(8, "test")[1]
threes, eights = x_test[(labels == 3).to(device)][:30], x_test[(labels == 8).to(device)][:30]
blends = (threes + eights + 1) // 2  # half-way, rounded to levels
three, blend, eight = (bits_of(model, x).mean().item() for x in (threes, blends, eights))
print(f"bits per dimension: threes {three:.2f}, their blends {blend:.2f}, eights {eight:.2f}")

changed = blank[:6].clone()
changed[:, 0, 3] = torch.tensor([0, 3, 6, 9, 12, 15])  # the fourth pixel, by hand
rows = [fill_in(model, changed[i : i + 1], 4, torch.Generator().manual_seed(2)) for i in range(6)]
titles = ["3", "blend", "8"] * 2 + [f"pixel {level}" for level in (0, 3, 6, 9, 12, 15)]
shown = torch.cat([*(torch.stack([threes[i], blends[i], eights[i]]) for i in (0, 1)), *rows])
show(
    plot_pictures(to_pictures(shown, 17), titles, columns=6),
    "Above: a three, its blend with an eight, the eight, twice; the blends are ghosts of both. Below: six digits "
    "drawn with the same dice, but for one pixel in the first row; some stay alike, others become another digit.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert blend > max(three, eight)

# %% [markdown] id="latent-read"
# The blend is improbable: it is no digit. And one pixel, changed a little, may leave the picture nearly as it was or
# make another digit of it: there is no telling. There is no short
# list of numbers that says *what* the picture is, so that near numbers mean like pictures. Chapter 02 builds models
# that have one, a **latent space**, and that draw in a single pass. The price is that the likelihood is no longer
# exact.

# %% [markdown] id="compare-text"
# ## The families, side by side
#
# Each of the next chapters adds a kind of model to one table. The upper rows are the course's: every model gets one
# minute of processor time on digits, and one on small pages of the picture book (32 × 32 pixels, one thing on each).
# *Real* is the floor: other real pictures. *FID* is the Fréchet distance, *one thing* the share of pages on which a
# judge, a small detector, finds just one thing. Your row: what it cost to train and to draw, and how good it is.

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
# On pages the same recipe is nowhere near. They have 16 times as many pixels as a digit, each one of 512 colours, and a
# minute is enough for a few dozen updates. Their bits are left out: the table's likelihoods are of 8 × 8 digits.

# %% [markdown] id="elsewhere"
# ## What you will read elsewhere
#
# **"PixelCNN, a method of the 1990s."** Its two papers are from January and June 2016. (arXiv numbers are dates.) What
# comes from the 1980s and 1990s is the convolutional network: Fukushima's neocognitron of 1980, LeCun's reader of
# handwritten digits of 1989. What PixelCNN adds is the mask. Take it away, and the old layer is left:

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
# conditionals. Here are both ways, for the same digit: 64 passes, each on a picture that ends before pixel $i$, and
# one pass.

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
# **"A better likelihood means better pictures."** Not even nearly. Make a model that throws dice: once in a hundred
# times it uses PixelCNN, 99 times it paints pure noise. Its probability of any $x$ is at least a hundredth of
# PixelCNN's. So it costs at most $\log_2 100 = 6.6$ bits more a *picture*, whatever the picture's size.

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
# | $-\frac{1}{D}\sum_i \log_2 p(x_i \mid x_{<i})$ | `bits_per_dim(logits, x)` |
# | $M$, of kind A or B | `causal_mask(size, kind)` |
# | $(W \odot M) * x + b$ | `MaskedConv2d(in_channels, out_channels, size, kind)` |
# | $\{j : \partial y_{r,c} / \partial x_j \neq 0\}$ | `receptive_field(network, x, row, column)` |
# | $\text{softmax}(\ell / T)$ | `pixel_probabilities(logits, temperature)` |
# | $x_i \sim p(x_i \mid x_{<i})$, one after the other | `fill_in(model, x, keep, generator)` |
#
# Exact likelihood, one pass to score, $D$ passes to draw, no latent space. The same recipe with words in place of
# pixels is a language model; chapter 13 uses it once more, on a picture's *tokens*.

# %% [markdown] id="questions"
# `progress()`, in a cell of its own, shows which exercises of the course you have solved.
#
# ### To think about
#
# Open a line for the answer.
#
# <details><summary>1. Would the digits come out differently if the pixels were drawn from bottom to top?</summary>
# A perfect model would give the same distribution: the chain rule holds for every order, as in the toy. A network is
# not perfect, and some orders are easier to learn, so its digits and its bits would differ a little.
# </details>
# <details><summary>2. What is the lowest possible number of bits per dimension on the test digits?</summary>
# The entropy of digits themselves, which nobody knows: handwriting is really random. It is not 0. A model that gives 0
# bits to new digits has seen them, or looks ahead.
# </details>
# <details><summary>3. A language model says "temperature 0". What would that be here, and why a bad
# idea?</summary>
# The likeliest level at each pixel: no randomness, so always the same picture. Going for the likeliest pixel each time
# is also not the way to the likeliest picture, and it tends to stay on blank paper.
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
# softmax gets 512 outputs, and nothing else changes: not the loss, not the masks, not the sampler. Here are pages of
# the picture book in 512 colours.

# %% id="bonus-run" tags=["static"]
from course_utils.data import picture_book as book

pages = book.pictures([book.sample_scene(n) for n in range(8)], size=32)
symbols = pixelcnn.to_symbols(pages, levels=8)  # (8, 32, 32), int64 in 0..511
coarse = to_pictures(symbols, levels=8, channels=3)
show(
    plot_pictures(torch.cat([pages, coarse]), columns=8),
    "Upper row: eight pages of the picture book. Lower row: the same with eight levels a channel; soft shades became flat areas.",
)

colourful = pixelcnn.PixelCNN(levels=8, channels=3, hidden=32, blocks=4, size=5).to(device)
with torch.no_grad():
    logits = colourful(symbols.to(device))
print(f"{symbols.unique().numel()} of 512 colours occur; logits {tuple(logits.shape)}")
print(f"untrained: {bits_per_dim(logits, symbols.to(device)).mean() / 3:.2f} bits per channel and pixel")

# %% [markdown] id="bonus-read"
# `fit(colourful, symbols, steps)` trains it, with your own loop. Take thousands of pages, and patience, or a GPU. To
# draw one page takes 1,024 passes.
