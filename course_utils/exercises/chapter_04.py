"""The exercises of chapter 04: what networks that draw are made of, and how it is put together."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.exercises.mistakes_04 import (
    CONV,
    CONV_MISTAKES,
    Part,
    Sums,
    counted,
    norm_mistakes,
    phases,
    residual_mistakes,
    walk,
)
from course_utils.exercises.oracles import Wrong, close, require
from course_utils.exercises.registry import exercise
from course_utils.models import attention as attending
from course_utils.models import blocks, unet_by_hand

TITLE = "Networks that draw"


@exercise(
    "04.conv_output_size", blocks.conv_output_size, difficulty=2, minutes=10,
    hints=[
        "Dilation spreads the kernel: with gaps it covers dilation * (kernel - 1) + 1 pixels. Padding comes on both "
        "sides.",
        "The kernel's first place is free. After it, each further place costs `stride` pixels of what is left.",
        "left = size + 2 * padding - (dilation * (kernel - 1) + 1), and then left // stride + 1.",
    ],
)  # fmt: skip
def conv_output_size(learner, case):
    """Find how many pixels a convolution leaves along one side."""
    settings = [(16, 3, 1, 0, 1), (16, 3, 1, 1, 1), (8, 2, 2, 0, 1), (17, 3, 2, 1, 2), (12, 3, 4, 0, 1)]
    settings += [
        (
            int(case.whole(12, 40)),
            int(case.whole(2, 4)),
            int(case.whole(1, 4)),
            int(case.whole(0, 3)),
            int(case.whole(1, 3)),
        )
        for _ in range(12)
    ]
    expected = [nn.Conv1d(1, 1, *rest)(torch.zeros(1, 1, size)).shape[-1] for size, *rest in settings]  # torch is asked
    got = []
    for setting, right in zip(settings, expected, strict=True):
        one = learner(*setting)
        number = isinstance(one, int | float) or isinstance(one, torch.Tensor) and one.ndim == 0
        require(number, f"the result is {one!r}, expected the number {right}.", "Return one number.")
        got.append(float(one))
    if got != expected:
        setting, one, right = next(row for row in zip(settings, got, expected, strict=True) if row[1] != row[2])
        learner(*setting)  # once more, so that this call is the one that is named
        named = ", ".join(f"{name} {value}" for name, value in zip(CONV, setting, strict=True))
        wrong = [advice for formula, advice in CONV_MISTAKES if [formula(*each) for each in settings] == got]
        raise Wrong(
            f"for {named}: got {one:g}, expected {right}.",
            wrong[0]
            if wrong
            else "Draw it: a row of pixels, "
            "the padding at both ends, the kernel with its gaps, and all the places where it can stand.",
        )


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
    settings = [(5, 3, 2), (5, 4, 2), (4, 2, 3)] + [tuple(case.whole(2, 6, 3).tolist()) for _ in range(5)]
    for size, kernel, stride in settings:
        ones = torch.ones(1, 1, kernel)
        expected = F.conv_transpose1d(torch.ones(1, 1, size), ones, stride=stride)[0, 0].round().long()
        forward = F.conv1d(F.pad(torch.ones(1, 1, size), (kernel - 1, kernel - 1)), ones)[0, 0].round().long()
        mistakes = [
            (F.pad(expected, (0, max(0, size * stride - len(expected))))[: size * stride],
             "This is size * stride long. Without padding the output ends where the last kernel ends: "
             "(size - 1) * stride + kernel."),
            (forward, "The stride is ignored: neighbouring pixels write `stride` places apart."),
            (torch.ones_like(expected), "Everything is counted once. Copies that overlap add up: `+= 1`, not `= 1`."),
            (expected.clamp(max=1), "Everything that is reached is counted once. Copies that overlap add up: `+= 1`, "
                                    "not `= 1`."),
            (F.pad(expected, (0, 1))[1:], "This begins one place late: the first pixel writes at place 0."),
            (phases(size, kernel, stride), "This counts the weights at each phase of the stride, which is right inside "
                                            "the picture. At the two ends there are fewer neighbours."),
            (counted(size, stride, kernel), "Kernel and stride are swapped: a pixel's copy is `kernel` long, and the "
                                             "next begins `stride` later."),
            (counted(size, kernel - 1, stride, expected), "Each copy is one too short: a slice a:b leaves b out."),
        ]  # fmt: skip
        got = learner(size, kernel, stride)
        if isinstance(got, torch.Tensor) and got.is_floating_point() and got.equal(got.round()):
            got = got.long()  # whole numbers in a float tensor are counts as well
        close(got, expected, mistakes, what=f"for size {size}, kernel {kernel} and stride "
              f"{stride}, the result")  # fmt: skip


@exercise(
    "04.attention", attending.attention, difficulty=3, minutes=15,
    hints=[
        "Three lines: scores of each query with each key, a softmax over the keys, an average of the values.",
        "k.transpose(-2, -1) swaps the last two axes and leaves any batch and head axes alone. The scores are divided "
        "by the root of d = q.shape[-1].",
        "The softmax goes over the keys: they are the last axis of the scores (..., queries, keys).",
        "weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1), and then weights @ v.",
    ],
)  # fmt: skip
def attention(learner, case):
    """Let each query average the values whose keys fit it."""
    for lead in ((2, 3), (2,), ()):  # with batch and heads, with a batch, without
        q, k, v = case.normal(*lead, 5, 7), case.normal(*lead, 6, 7), case.normal(*lead, 6, 4)
        scores = torch.einsum("...qd,...kd->...qk", q, k)
        scaled = scores / math.sqrt(7)
        mistakes = [
            (scores.softmax(-1) @ v, "The scale is missing: divide the scores by the root of d, or long vectors make "
                                     "the softmax nearly a hard choice."),
            ((scores / 7).softmax(-1) @ v, "The scores are divided by d. Their standard deviation is the root of d, so "
                                           "divide by sqrt(d)."),
            ((scores * math.sqrt(7)).softmax(-1) @ v, "The scores are multiplied by sqrt(d); divide by it."),
            ((scores / math.sqrt(6)).softmax(-1) @ v, "The scale is the root of d, the width of a key, not of the "
                                                      "number of keys."),
            ((scores / math.sqrt(4)).softmax(-1) @ v, "The scale takes d from the values. It belongs to queries and "
                                                      "keys: q.shape[-1]."),
            (scaled.softmax(-2) @ v, "The softmax goes over the queries. Each query shares its attention out among the "
                                     "keys: softmax(-1)."),
            (scaled @ v, "The softmax is missing: weights must be positive and add up to 1."),
            (scaled.softmax(-1), "These are the weights. They still have to average the values: weights @ v."),
            (scaled.exp() @ v, "This is exp without the division by its sum, so weights do not add up to 1."),
        ]  # fmt: skip
        if lead:
            mistakes.append((scaled.softmax(0) @ v, "The softmax goes over the batch; the keys are the last axis."))
        if len(lead) == 2:
            mistakes.append((scaled.softmax(1) @ v, "The softmax goes over the heads; the keys are the last axis, -1."))
        close(learner(q, k, v), F.scaled_dot_product_attention(q, k, v), mistakes, tolerance=1e-3)


@exercise(
    "04.split_heads", attending.split_heads, difficulty=2, minutes=10,
    hints=[
        "First cut the last axis: width = heads * d becomes two axes (heads, d). Nothing moves in memory.",
        "Then the heads have to come before the tokens. That needs a transpose; a second reshape would mix tokens.",
        "x.reshape(batch, tokens, heads, width // heads), and then .transpose(1, 2).",
    ],
)  # fmt: skip
def split_heads(learner, case):
    """Cut each token's vector into one shorter vector a head."""
    for batch, tokens, heads, d in ((2, 5, 3, 4), (1, 6, 2, 6)):
        x = case.normal(batch, tokens, heads * d)
        expected = torch.stack([x[..., h * d : (h + 1) * d] for h in range(heads)], 1)
        comb = torch.stack([x[..., h::heads] for h in range(heads)], 1)
        mistakes = [
            (x.reshape(batch, heads, tokens, d), "The vector was cut without a transpose, so a head gets pieces of "
                                                 "several tokens. Reshape to (batch, tokens, heads, d) first, then "
                                                 "swap two axes."),
            (x.reshape(batch, tokens, heads, d), "The transpose is missing: heads come before tokens."),
            (comb, "Each head got every heads-th number. By agreement, head 0 has the *first* d numbers of a token: "
                   "reshape to (..., heads, d), not to (..., d, heads)."),
            (expected.transpose(2, 3), "The last two axes are swapped: (batch, heads, tokens, d) is wanted."),
            (expected.transpose(0, 1), "The heads came before the batch: (batch, heads, tokens, d) is wanted."),
            (expected.flatten(0, 1), "Batch and heads were merged into one axis; keep both."),
        ]  # fmt: skip
        close(learner(x, heads), expected, mistakes)


@exercise(
    "04.time_embedding", blocks.time_embedding, difficulty=2, minutes=10,
    hints=[
        "half = width // 2 waves. Their speeds fall from 1 by equal factors: 10000 ** (-i / half), i = 0 ... half - 1.",
        "An angle for each time and each wave: t[:, None] * speeds, of shape (batch, half).",
        "All sines first, then all cosines: torch.cat([angles.sin(), angles.cos()], dim=1).",
    ],
)  # fmt: skip
def time_embedding(learner, case):
    """Say a time by sines and cosines of many speeds."""
    width = 2 * int(case.whole(4, 9))
    half = width // 2
    _require_waves(learner, case.whole(1, 60, 6), width)
    zero = torch.cat([torch.zeros(1, half), torch.ones(1, half)], 1)
    close(learner(torch.zeros(1, dtype=torch.int64), width), zero, what="at t = 0 the result")


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
        (torch.cat(waves(first=1), 1), "The frequencies are off by one: i starts at 0, so that the quickest wave has "
                                       "the speed 1."),
        (torch.cat(waves(divisor=width), 1), "i is divided by the width. There are only half as many waves: divide by "
                                             "half."),
        (torch.cat(waves(base=math.e), 1), "The speeds fall only to 1/e. The base is 10000."),
        (torch.cat([sin, sin], 1), "The second half are sines too; it shall be cosines."),
    ]  # fmt: skip
    got, rising = learner(t, width), torch.cat(waves(sign=1), 1)
    if isinstance(got, torch.Tensor) and got.shape == rising.shape:  # float32 knows such angles to some hundredths
        require((got - rising).abs().mean().item() > 0.1, f"the first row is {[round(n, 3) for n in got[0].tolist()]}, "
                f"expected {[round(n, 3) for n in torch.cat([sin, cos], 1)[0].tolist()]}.",
                "The speeds rise, up to 10000. They fall from 1: the exponent has a minus sign.")  # fmt: skip
    close(got, torch.cat([sin, cos], 1), mistakes, tolerance=1e-3)


@exercise(
    "04.group_norm", blocks.group_norm, difficulty=3, minutes=10,
    hints=[
        "Let each group of each picture be one row: x.reshape(batch, groups, -1). Channels of a group are neighbours.",
        "Mean and variance over the last axis, with keepdim=True. The variance is a plain mean of squares: "
        "unbiased=False.",
        "eps goes under the root: (row - mean) / (variance + eps) ** 0.5. At the end reshape to x.shape.",
    ],
)  # fmt: skip
def group_norm(learner, case):
    """Give each group of channels of each picture mean 0 and variance 1."""
    x = 0.05 * case.normal(3, 6, 2, 3) + 0.1 * case.normal(3, 6, 1, 1)  # small, so that eps matters
    groups, eps = 3, 1e-3
    mistakes = norm_mistakes(x, eps)
    close(learner(x, groups, eps), F.group_norm(x, groups, eps=eps), mistakes)
    shifted = 3 * x + 0.5
    close(learner(shifted, groups, 9 * eps), F.group_norm(x, groups, eps=eps), tolerance=1e-3,
          what="for 3 x + 0.5, with 9 eps, the result")  # fmt: skip


@exercise(
    "04.residual_block", blocks.ResidualBlock, difficulty=3, minutes=15,
    hints=[
        "Twice the same three: norm, silu, conv. Between the two comes the time; at the end what came in is added.",
        "self.time(silu(embedding)) is (batch, outside). Give it two axes, [:, :, None, None], to meet all pixels.",
        "h = self.conv1(silu(self.norm1(x))), then h + the time, then self.conv2(silu(self.norm2(h))).",
        "x itself may have another number of channels than the result. self.shortcut(x) has the right one.",
    ],
)  # fmt: skip
def residual_block(learner, case):
    """Let a picture through, changed a little, and told the time."""
    for inside, outside in ((8, 16), (8, 8)):
        block = learner(inside, outside, 12)
        require(isinstance(block, nn.Module), f"got {type(block).__name__}, expected an nn.Module.",
                "Keep the class line and __init__ as they were given.")  # fmt: skip
        parts = {name: getattr(block, name, None) for name in ("norm1", "conv1", "time", "norm2", "conv2", "shortcut")}
        missing = [name for name, part in parts.items() if part is None]
        require(not missing, f"the block has no {', '.join(missing)}.", "Keep __init__ as it was given.")
        x, embedding = case.normal(2, inside, 4, 5), case.normal(2, 12)
        start = _forward(learner, block, x, embedding)
        with torch.no_grad():
            for parameter in block.parameters():  # conv2 starts at zero, which would hide everything
                parameter.copy_(0.5 * case.normal(*parameter.shape))
            mistakes = residual_mistakes(parts, x, embedding)
            expected = mistakes.pop(0)[0]
        close(_forward(learner, block, x, embedding), expected, mistakes, tolerance=1e-3)
        if inside == outside:
            close(start, x, what="with conv2 at zero, as it starts, the result")


def _forward(learner, block, x, embedding):
    try:
        return learner.method(block, "forward", x, embedding)
    except Exception as raised:
        text = str(raised.__cause__)
        if "size of tensor a (8) must match the size of tensor b (16)" in text:
            raise Wrong(f"adding failed: {text}", "x has another number of channels than what is added to it. "
                        "self.shortcut(x) has the right one.") from None  # fmt: skip
        if "must match the size of tensor b" in text:
            raise Wrong(f"adding failed: {text}", "self.time(...) is (batch, channels). To meet (batch, channels, h, "
                        "w) it needs two more axes: [:, :, None, None].") from None  # fmt: skip
        raise


JOINED = "Skips are joined along the channels, torch.cat([...], dim=1), not added and not along the batch."


@exercise(
    "04.through_the_u", unet_by_hand.through_the_u, difficulty=3, minutes=20,
    hints=[
        "Keep a list. Going down append to it, going up take from its end: kept.append(x), kept.pop().",
        "What is kept is what `down` made, before it is shrunk, so that it has the size that `grow` comes back to.",
        "torch.cat([larger, kept.pop()], dim=1) joins along the channels: axis 1 of (batch, channels, h, w).",
        "for block, smaller in zip(down, shrink): ... and after x = middle(x): for larger, block in zip(grow, up): "
        "x = block(torch.cat([larger(x), kept.pop()], dim=1))",
    ],
)  # fmt: skip
def through_the_u(learner, case):
    """Go down, through the middle and up again, with a skip connection at each level."""
    levels = 2

    def parts(kind, count):
        return [Part(factor, kind) for factor in case.uniform(0.5, 1.5, count).tolist()]

    down, shrink, grow, up = (parts(kind, levels) for kind in ("down", "shrink", "grow", "up"))
    (middle,) = parts("middle", 1)
    x = case.normal(2, 3, 8, 8)
    expected = walk(x, down, shrink, middle, grow, up)
    wrong = {
        "save=before": "What is kept is the picture before `down`. Keep what `down` made: x = block(x), then append.",
        "join=swapped": "The order is swapped: what comes from below stands first, what was kept second.",
        "bottom=none": "`middle` was not called.",
        "bottom=each": "`middle` was called at each level. It comes once, at the bottom.",
        "skip=zero": "The kept pictures are not used: zeros were joined in their place.",
        "skip=self": "The picture was joined with itself; join it with what was kept at the same level.",
        "order=reversed": "`grow` and `up` were run backwards. They are given from coarse to fine already.",
    }  # fmt: skip
    mistakes = []
    for name, advice in wrong.items():
        key, how = name.split("=")
        mistakes.append((walk(x, down, shrink, middle, grow, up, **{key: how}), advice))
    try:
        got = learner(x, down, shrink, middle, grow, up)
    except Exception as raised:
        text = str(raised.__cause__)
        if "Sizes of tensors must match" in text:
            raise Wrong(f"joining failed: {text.splitlines()[0]}",
                        "Two sizes meet that do not fit. Is the kept picture the one of the *same* level: the last "
                        "one kept, taken by .pop(), not .pop(0)? Kept before `shrink`? Grown before it is joined, "
                        "along dim=1?") from None  # fmt: skip
        if "size of tensor a" in text:
            raise Wrong(f"adding failed: {text.splitlines()[0]}", JOINED) from None
        raise
    close(got, expected, mistakes)
    with_sum = Sums()
    summed = learner(x, down, shrink, middle, grow, [with_sum] * levels)
    require(all(channels == 6 for channels in with_sum.channels), f"`up` was given {with_sum.channels} channels, "
            "expected 6 each time: 3 from below and 3 that were kept.",
            JOINED)  # fmt: skip
    require(summed.shape == x.shape, f"the result has the shape {tuple(summed.shape)}, expected {tuple(x.shape)}.",
            "Each level up comes back to the size that it had going down.")  # fmt: skip
