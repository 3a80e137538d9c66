"""The exercises of chapter 04: the components of a U-Net, and how they are put together."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from course_utils.exercises.mistakes_04 import (
    CONV,
    CONV_MISTAKES,
    U_MISTAKES,
    attention_mistakes,
    attention_of_fixed_width,
    joining_failed,
    norm_mistakes,
    overlap_mistakes,
    residual_mistakes,
    u_parts,
    walk,
)
from course_utils.exercises.oracles import NUMBERS, Wrong, close, require
from course_utils.exercises.registry import exercise
from course_utils.models import attention as attending
from course_utils.models import blocks, unet_by_hand

TITLE = "Networks that draw"


@exercise(
    "04.conv_output_size", blocks.conv_output_size, difficulty=2, minutes=10,
    hints=[
        "Dilation spreads the kernel: with gaps it covers dilation * (kernel - 1) + 1 pixels. Padding is added on both "
        "sides.",
        "The first position of the kernel is free. Each further position uses up `stride` of the pixels that are left.",
        "left = size + 2 * padding - (dilation * (kernel - 1) + 1), and then left // stride + 1.",
    ],
)  # fmt: skip
def conv_output_size(learner, case):
    """Compute the output size of a convolution, along one side."""
    settings = [(16, 3, 1, 0, 1), (16, 3, 1, 1, 1), (8, 2, 2, 0, 1), (17, 3, 2, 1, 2), (12, 3, 4, 0, 1)]
    settings += [(5, 5, 3, 0, 1), (5, 3, 1, 0, 2), (7, 1, 3, 0, 3), (1, 1, 1, 0, 1), (9, 2, 5, 0, 4)]  # it just fits
    ranges = ((12, 40), (2, 4), (1, 4), (0, 3), (1, 3))
    settings += [tuple(int(case.whole(*each)) for each in ranges) for _ in range(12)]
    expected = [nn.Conv1d(1, 1, *rest)(torch.zeros(1, 1, size)).shape[-1] for size, *rest in settings]  # torch is asked
    got = []
    for setting, right in zip(settings, expected, strict=True):
        one = learner(*setting)
        require(isinstance(one, (*NUMBERS, torch.Tensor)) and not isinstance(one, bool),
                f"the result is {one!r}, expected the number {right}.", "Return one number.")  # fmt: skip
        got.append(float(one))
    if got != expected:
        setting, one, right = next(row for row in zip(settings, got, expected, strict=True) if row[1] != row[2])
        learner(*setting)  # once more, so that this call is the one that is named
        named = ", ".join(f"{name} {value}" for name, value in zip(CONV, setting, strict=True))
        wrong = [advice for formula, advice in CONV_MISTAKES if [formula(*each) for each in settings] == got]
        draw = "Draw it: a row of pixels, the padding at both ends, the kernel with its gaps, all its positions."
        raise Wrong(f"for {named}: got {one:g}, expected {right}.", wrong[0] if wrong else draw)
    require(not isinstance(one, float | np.floating), f"the result is {one!r}, a float, expected the int {right}.",
            "The side of an image is a whole number, and torch.zeros and range refuse a float: use //, or "
            "int(...).")  # fmt: skip


@exercise(
    "04.overlap_count", blocks.overlap_count, difficulty=3, minutes=15,
    hints=[
        "Input pixel i writes a copy of the kernel into the output. Where does it begin, and how long is it?",
        "It begins at i * stride and is `kernel` long. The last input pixel is number size - 1: how long is the "
        "output?",
        "Start with torch.zeros((size - 1) * stride + kernel, dtype=torch.int64), and add 1 to a slice of it for each "
        "i.",
    ],
)  # fmt: skip
def overlap_count(learner, case):
    """Count how many input pixels reach each output pixel of a transposed convolution."""
    settings = [(5, 5, 3), (5, 3, 2), (5, 4, 2), (4, 2, 3)] + [tuple(case.whole(2, 6, 3).tolist()) for _ in range(5)]
    for size, kernel, stride in [*settings, (1, 3, 2), (4, 1, 1), (3, 1, 4), (3, 2, 2), (6, 5, 1)]:
        ones = torch.ones(1, 1, kernel)
        expected = F.conv_transpose1d(torch.ones(1, 1, size), ones, stride=stride)[0, 0].round().long()
        clear = (size, kernel, stride) == settings[0]  # here no two mistakes give the same
        what = f"for size {size}, kernel {kernel} and stride {stride}, the result"
        close(learner(size, kernel, stride), expected, overlap_mistakes(expected) if clear else (), what=what)


@exercise(
    "04.attention", attending.attention, difficulty=3, minutes=15, gradients=True,
    hints=[
        "Three lines: the scores of each query with each key, a softmax over the keys, an average of the values.",
        "k.transpose(-2, -1) swaps the last two axes and leaves any batch and head axes alone. The scores are divided "
        "by the square root of d = q.shape[-1].",
        "The softmax goes over the keys: they are the last axis of the scores (..., queries, keys).",
        "weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1), and then weights @ v.",
    ],
)  # fmt: skip
def attention(learner, case):
    """Average the values for each query, weighted by how well their keys fit."""
    for lead, d in (((2, 3), 7), ((2,), 3), ((), 5), ((1, 1), 1)):  # batch and heads, a batch, neither, one of all
        q, k, v = case.normal(*lead, 5, d), case.normal(*lead, 6, d), case.normal(*lead, 6, 4)
        mistakes = attention_mistakes(q, k, v) if d == 7 else attention_of_fixed_width(q, k, v)
        close(_attend(learner, q, k, v), F.scaled_dot_product_attention(q, k, v), mistakes, tolerance=1e-3)
    q, k, v = case.normal(2, 3, 7), case.normal(2, 1, 7), case.normal(2, 1, 4)
    close(learner(q, k, v), v.expand(2, 3, 4), what="with one key, the result")
    q, k, v = torch.full((1, 4), 15.0), torch.stack([torch.full((4,), 15.0), torch.zeros(4)]), case.normal(2, 3)
    got = learner(q, k, v)
    require(not isinstance(got, torch.Tensor) or bool(got.isfinite().all()), "for a score of 450 the result is not "
            "finite.", "exp(450) is infinite in float32. torch.softmax subtracts the largest score first.")  # fmt: skip
    close(got, v[:1], what="for a score of 450, the result")


def _attend(learner, q, k, v):
    try:
        return learner(q, k, v)
    except Exception as raised:
        text = str(raised.__cause__)
        if any(words in text for words in ("must match", "Expected size", "cannot be multiplied", "dimension")):
            raise Wrong(f"a product failed: {text}", "(..., queries, d) @ (..., d, keys) gives the scores, and (..., "
                        "queries, keys) @ (..., keys, d_v) the result. k.transpose(-2, -1) swaps the last two axes of "
                        "k, and only these.") from None  # fmt: skip
        raise


@exercise(
    "04.split_heads", attending.split_heads, difficulty=2, minutes=10, gradients=True,
    hints=[
        "First cut the last axis: width = heads * d becomes two axes (heads, d). Nothing moves in memory.",
        "Then the heads have to come before the tokens. That needs a transpose; a second reshape would mix tokens.",
        "x.reshape(batch, tokens, heads, width // heads), and then .transpose(1, 2).",
    ],
)  # fmt: skip
def split_heads(learner, case):
    """Cut each token's vector into one shorter vector per head."""
    for batch, tokens, heads, d in ((2, 5, 3, 4), (1, 6, 2, 5), (3, 4, 1, 6), (2, 1, 4, 1)):
        x = case.normal(batch, tokens, heads * d)
        expected = torch.stack([x[..., h * d : (h + 1) * d] for h in range(heads)], 1)
        comb = torch.stack([x[..., h::heads] for h in range(heads)], 1)
        mistakes = [
            (x.reshape(batch, heads, tokens, d), "The vector was cut without a transpose, so one head gets pieces of "
                                                 "several tokens. Reshape to (batch, tokens, heads, d) first, then "
                                                 "swap two axes."),
            (x.reshape(batch, tokens, heads, d), "The transpose is missing: heads come before tokens."),
            (comb, "Each head got every heads-th number. By convention, head 0 has the *first* d numbers of a token: "
                   "reshape to (..., heads, d), not to (..., d, heads)."),
            (expected.transpose(2, 3), "The last two axes are swapped: (batch, heads, tokens, d) is wanted."),
            (expected.transpose(0, 1), "The heads came before the batch: (batch, heads, tokens, d) is wanted."),
            (torch.stack(x.split(heads, -1), 1), "split(heads) makes pieces that are `heads` long. There are `heads` "
                                                 "pieces: chunk(heads)."),
            (expected.flatten(0, 1), "Batch and heads were merged into one axis; keep both."),
        ]  # fmt: skip
        close(learner(x, heads), expected, mistakes if heads == 3 else ())


@exercise(
    "04.time_embedding", blocks.time_embedding, difficulty=2, minutes=10,
    hints=[
        "half = width // 2 frequencies. They fall from 1 by equal factors: 10000 ** (-i / half), i = 0 ... half - 1.",
        "One angle for each time and each frequency: t[:, None] * frequencies, of shape (batch, half).",
        "All sines first, then all cosines: torch.cat([angles.sin(), angles.cos()], dim=1).",
    ],
)  # fmt: skip
def time_embedding(learner, case):
    """Encode times as sines and cosines of many frequencies."""
    width = 2 * int(case.whole(4, 9))
    half = width // 2
    _require_waves(learner, case.whole(1, 60, 10), width)
    zero = torch.cat([torch.zeros(1, half), torch.ones(1, half)], 1)
    close(learner(torch.zeros(1, dtype=torch.int64), width), zero, what="at t = 0 the result")
    for t, other in ((torch.tensor([1]), 2), (torch.tensor([3, 0, 17]), 10), (torch.arange(8), 8)):
        close(learner(t, other), _waves(t, other), tolerance=1e-3)
    between = torch.cat([case.uniform(0.1, 0.9, 2), torch.tensor([37.5])])
    close(learner(between, width), _waves(between, width), [
        (_waves(between.floor(), width), "The fractions of the times were cut off. Some samplers use times between "
                                         "two integers: compute with t.float()."),
        (_waves(between.round(), width), "The times were rounded. Some samplers use times between two integers: "
                                         "compute with t.float()."),
    ], tolerance=1e-3, what="for times with a fraction, the result")  # fmt: skip


def _waves(t, width):
    speeds = [10_000.0 ** (-2 * i / width) for i in range(width // 2)]
    angles = torch.tensor([[time * speed for speed in speeds] for time in t.tolist()], dtype=torch.float64)
    return torch.cat([angles.sin(), angles.cos()], 1)


def _speeds(half):
    return 10_000.0 ** (-torch.arange(half) / half)


def _sin_cos(angles):
    return angles.sin(), angles.cos()


def _require_waves(learner, t, width):
    half = width // 2

    def waves(count=half, divisor=half, base=10_000.0, first=0, sign=-1):
        speeds = [base ** (sign * (i + first) / divisor) for i in range(count)]
        angles = torch.tensor([[time * speed for speed in speeds] for time in t.tolist()], dtype=torch.float64)
        return angles.sin(), angles.cos()

    sin, cos = waves()
    mistakes = [
        (torch.cat([cos, sin], 1), "Sines come first here, then cosines. (Stable Diffusion has them the other way "
                                   "round: look it up for each network.)"),
        (torch.stack([sin, cos], 2).flatten(1), "Sines and cosines alternate. Here all sines come first."),
        (torch.cat(waves(divisor=half - 1), 1), "The frequencies are off by one: divide i by half, not by half - 1. "
                                                "(Both are in use; diffusers calls the difference "
                                                "downscale_freq_shift.)"),
        (torch.cat(waves(first=1), 1), "The frequencies are off by one: i starts at 0, so that the highest frequency "
                                       "is 1."),
        (torch.cat(waves(divisor=width), 1), "i is divided by the width. There are only half as many frequencies: "
                                             "divide by half."),
        (torch.cat(waves(base=math.e), 1), "The frequencies fall only to 1/e. The base is 10000."),
        (torch.cat(waves(divisor=half / 2), 1), "The exponent is twice too large: it is -2 i / width, which equals "
                                                "-i / half."),
        (torch.cat(_sin_cos(2 * math.pi * t[:, None] * _speeds(half)), 1), "The angles are w_i t; there is no 2 pi."),
        (torch.cat([sin, sin], 1), "The second half holds sines again; cosines belong there."),
        (torch.cat([sin, cos], 0), "Sines and cosines were concatenated along the batch. They go side by side: dim=1."),
    ]  # fmt: skip
    try:
        got = learner(t, width)
    except Exception as raised:
        if "must match the size of tensor" not in str(raised.__cause__):
            raise
        raise Wrong(f"the product failed: {raised.__cause__}", "Multiply each time by each frequency: make t a "
                    "column, t[:, None] * frequencies.") from None  # fmt: skip
    rising = torch.cat(waves(sign=1), 1)
    if isinstance(got, torch.Tensor) and got.shape == rising.shape:  # float32 holds such angles to some hundredths
        require((got - rising).abs().mean().item() > 0.1, f"the first row is {[round(n, 3) for n in got[0].tolist()]}, "
                f"expected {[round(n, 3) for n in torch.cat([sin, cos], 1)[0].tolist()]}.",
                "The frequencies rise, up to 10000. They fall from 1: the exponent has a minus sign.")  # fmt: skip
    close(got, torch.cat([sin, cos], 1), mistakes, tolerance=1e-3)


@exercise(
    "04.group_norm", blocks.group_norm, difficulty=3, minutes=10, gradients=True,
    hints=[
        "Make each group of each image one row: x.reshape(batch, groups, -1). Channels of a group are neighbours.",
        "Mean and variance over the last axis, with keepdim=True. The variance is a plain mean of squares: "
        "unbiased=False.",
        "eps goes under the square root: (row - mean) / (variance + eps) ** 0.5. At the end reshape to x.shape.",
    ],
)  # fmt: skip
def group_norm(learner, case):
    """Normalise each group of channels of each image to mean 0 and variance 1."""
    x = 0.05 * case.normal(3, 6, 2, 3) + 0.1 * case.normal(3, 6, 1, 1)  # small, so that eps matters
    groups, eps = 3, 1e-3
    try:
        got = learner(x, groups, eps)
    except Exception as raised:
        if "must match the size of tensor" not in str(raised.__cause__):
            raise
        raise Wrong(f"two shapes do not fit: {raised.__cause__}", "keepdim=True keeps an axis of length 1, so that "
                    "mean and variance broadcast over their rows.") from None  # fmt: skip
    close(got, F.group_norm(x, groups, eps=eps), norm_mistakes(x, eps))
    shifted = 3 * x + 0.5
    close(learner(shifted, groups, 9 * eps), F.group_norm(x, groups, eps=eps), tolerance=1e-3,
          what="for 3 x + 0.5, with 9 eps, the result")  # fmt: skip
    for shape, groups in (((1, 8, 5, 4), 4), ((2, 4, 3, 3), 1), ((2, 5, 3, 2), 5)):
        other = case.normal(*shape)
        close(learner(other, groups, 1e-5), F.group_norm(other, groups), tolerance=1e-3)
    flat = torch.full((2, 4, 3, 3), 0.75)
    close(learner(flat, 2, 1e-5), torch.zeros(2, 4, 3, 3), what="for an image of one colour, the result")


@exercise(
    "04.residual_block", blocks.ResidualBlock, difficulty=3, minutes=15, gradients=True,
    hints=[
        "Norm, silu, conv, twice. The time is added between the two halves, the shortcut at the end.",
        "self.time(silu(embedding)) is (batch, outside). With two more axes, [:, :, None, None], it fits all pixels.",
        "h = self.conv1(silu(self.norm1(x))), then h + the time, then self.conv2(silu(self.norm2(h))).",
        "x itself may have another number of channels than the output; self.shortcut(x) has the same.",
    ],
)  # fmt: skip
def residual_block(learner, case):
    """Compute a residual block with a time embedding."""
    for inside, outside, batch, groups in ((8, 8, 2, 4), (8, 16, 2, 8), (4, 6, 1, 2)):
        block = learner(inside, outside, 12, groups)
        require(isinstance(block, nn.Module), f"got {type(block).__name__}, expected an nn.Module.",
                "Keep the class line and __init__ as they were given.")  # fmt: skip
        parts = {name: getattr(block, name, None) for name in ("norm1", "conv1", "time", "norm2", "conv2", "shortcut")}
        missing = [name for name, part in parts.items() if part is None]
        require(not missing, f"the block has no {', '.join(missing)}.", "Keep __init__ as it was given.")
        x, embedding = case.normal(batch, inside, 4, 5), case.normal(batch, 12)
        start = _forward(learner, block, x, embedding)
        with torch.no_grad():
            for parameter in block.parameters():  # conv2 starts at zero, which would hide everything
                parameter.copy_(0.5 * case.normal(*parameter.shape))
            (expected, _), *mistakes = residual_mistakes(parts, x, embedding)
        close(_forward(learner, block, x, embedding), expected, mistakes, tolerance=1e-3)
        if inside == outside:
            close(start, x, what="with conv2 at zero, as it starts, the result")


def _forward(learner, block, x, embedding):
    try:
        return learner.method(block, "forward", x, embedding)
    except Exception as raised:
        text = str(raised.__cause__)
        if "size of tensor a (8) must match the size of tensor b (16)" in text:
            raise Wrong(f"adding failed: {text}", "x has another number of channels than what is added to it; "
                        "self.shortcut(x) has the same.") from None  # fmt: skip
        if "must match the size of tensor b" in text:
            raise Wrong(f"adding failed: {text}", "self.time(...) is (batch, channels). To broadcast over h and w "
                        "it needs two more axes: [:, :, None, None].") from None  # fmt: skip
        raise


@exercise(
    "04.through_the_u", unet_by_hand.through_the_u, difficulty=3, minutes=20, gradients=True,
    hints=[
        "Keep a list. Append to it on the way down, take from its end on the way up: kept.append(x), kept.pop().",
        "Keep the output of `down`, before `shrink`: it has the size to which `grow` returns.",
        "torch.cat([larger, kept.pop()], dim=1) concatenates along the channels: axis 1 of (batch, channels, h, w).",
        "for block, smaller in zip(down, shrink): ... and after x = middle(x): for larger, block in zip(grow, up): "
        "x = block(torch.cat([larger(x), kept.pop()], dim=1))",
    ],
)  # fmt: skip
def through_the_u(learner, case):
    """Connect the way down, the middle and the way up, with a skip connection at each level."""
    for levels, shape in ((2, (2, 3, 8, 16)), (1, (1, 2, 4, 2)), (3, (2, 1, 16, 8))):
        x, parts = case.normal(*shape), u_parts(case, levels, shape[1])
        got = _walked(learner, x, parts)
        mistakes = [(walk(x, *parts, **{key: how}), advice) for key, how, advice in U_MISTAKES] if levels == 2 else []
        close(got, walk(x, *parts), mistakes)


def _walked(learner, x, parts):
    try:
        got = learner(x, *parts)
    except Exception as raised:
        text = str(raised.__cause__).partition("\n")[0]
        if "Sizes of tensors must match" in text:
            raise Wrong(f"concatenating failed: {text}", joining_failed(text, x, parts)) from None
        raise
    channels = [part.given[0] for part in parts[-1] if part.given]
    require(all(number == 2 * x.shape[1] for number in channels), f"`up` was given {channels} channels, expected "
            f"{2 * x.shape[1]} each time: {x.shape[1]} from below and {x.shape[1]} that were kept.",
            "Concatenate skips along the channels, torch.cat([...], dim=1), not added and not along the "
            "batch.")  # fmt: skip
    return got
