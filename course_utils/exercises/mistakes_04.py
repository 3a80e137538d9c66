"""What common mistakes give in the exercises of chapter 04, each with the sentence that names it."""

import math
import re

import torch
from torch.nn import functional as F

CONV = ("size", "kernel", "stride", "padding", "dilation")
CONV_MISTAKES = [
    (
        lambda n, k, s, p, r: (n + 2 * p - r * (k - 1) - 1) / s + 1,
        "The floor is missing: only whole positions count, so the remainder is dropped. Use //.",
    ),
    (
        lambda n, k, s, p, r: -(-(n + 2 * p - r * (k - 1) - 1) // s) + 1,
        "This rounds up. If less than a whole stride is left, there is no further position: round down.",
    ),
    (
        lambda n, k, s, p, r: (n + p - r * (k - 1) - 1) // s + 1,
        "Padding is counted once. It is added on both sides: 2 * padding.",
    ),
    (
        lambda n, k, s, p, r: (n + 2 * p - k) // s + 1,
        "Dilation is ignored: a kernel with gaps covers dilation * (kernel - 1) + 1 pixels.",
    ),
    (
        lambda n, k, s, p, r: (n + 2 * p - r * k) // s + 1,
        "There are gaps only *between* the weights: dilation * (kernel - 1) + 1 pixels, not dilation * kernel.",
    ),
    (
        lambda n, k, s, p, r: (n + 2 * p - r * (k - 1) - 1) // s,
        "One position is missing: the first position of the kernel needs no stride. Add 1.",
    ),
    (
        lambda n, k, s, p, r: (n + 2 * p - r * (k - 1)) // s,
        "The 1 belongs after the division: the first position of the kernel needs no stride.",
    ),
    (
        lambda n, k, s, p, r: n + 2 * p - r * (k - 1),
        "The stride is ignored: the kernel moves by `stride` pixels at a time.",
    ),
    (
        lambda n, k, s, p, r: (n - r * (k - 1) - 1) // s + 1,
        "The padding is ignored: 2 * padding pixels are added to the side.",
    ),
    (
        lambda n, k, s, p, r: (n + 2 * p - r * (k - 1)) // s + 1,
        "The dilated kernel covers one pixel more: dilation * (kernel - 1) + 1.",
    ),
    (
        lambda n, k, s, p, r: round((n + 2 * p - r * (k - 1) - 1) / s) + 1,
        "This rounds to the nearest. If less than a whole stride is left, there is no further position: round down.",
    ),
    (
        lambda n, k, s, p, r: (n - 1) * s - 2 * p + r * (k - 1) + 1,
        "This is the output size of a *transposed* convolution. An ordinary one divides by the stride.",
    ),
    (
        lambda n, k, s, p, r: -(-n // s),
        "This is the size for a padding that is chosen to fit (padding='same'). Use the padding that is given.",
    ),
]


def overlap_mistakes(expected, size=5, kernel=5, stride=3):
    """What wrong counts come to, for settings in which no two mistakes give the same."""
    late, offset = torch.cat([torch.zeros(1, dtype=torch.int64), expected[:-1]]), torch.arange(len(expected)) % stride
    forward = torch.tensor([sum(0 <= place - i < kernel for i in range(size)) for place in range(size + kernel - 1)])
    inside = torch.tensor([len(range(place, kernel, stride)) for place in offset.tolist()])
    short = F.pad(counted(size, kernel - 1, stride), (0, 1))
    once = "Everything is counted once. Copies that overlap add up: `+= 1`, not `= 1`."
    return [
        (expected[: size * stride], "This is size * stride long. Without padding the output ends where the last kernel "
                                    "ends: (size - 1) * stride + kernel."),
        (F.pad(forward, (0, len(expected) - len(forward))), "The copies lie side by side. Neighbouring pixels write "
                                                            "`stride` positions apart."),
        (forward, "The stride is ignored: neighbouring pixels write `stride` positions apart."),
        (expected.clamp(max=1), once),
        (late, "This begins one position late: the first pixel writes at position 0."),
        (inside, "This counts the weights at each phase of the stride, which is right inside the output. At the two "
                 "ends fewer copies overlap."),
        (counted(size, stride, kernel), "Kernel and stride are swapped: a pixel's copy is `kernel` long, and the next "
                                        "begins `stride` later."),
        (short, "Each copy is one too short: a slice a:b leaves b out."),
        (expected[:-1], "The output is one position too short: the last copy begins at (size - 1) * stride and is "
                        "`kernel` long."),
    ]  # fmt: skip


def attention_mistakes(q, k, v):
    """What wrong attentions make of q (2, 3, 5, 7), k (2, 3, 6, 7) and v (2, 3, 6, 4)."""
    scores = torch.einsum("...qd,...kd->...qk", q, k)
    scaled = scores / math.sqrt(7)
    return [
        (scores.softmax(-1) @ v, "The scale is missing: divide the scores by the square root of d, or wide vectors "
                                 "make the softmax pick almost a single key."),
        ((scores / 7).softmax(-1) @ v, "The scores are divided by d. Their standard deviation is the square root of "
                                       "d, so divide by sqrt(d)."),
        ((scores * math.sqrt(7)).softmax(-1) @ v, "The scores are multiplied by sqrt(d); they are divided by it."),
        ((scores / math.sqrt(6)).softmax(-1) @ v, "The scale is the square root of d, the width of a key, not of the "
                                                  "number of keys."),
        ((scores / math.sqrt(5)).softmax(-1) @ v, "The scale is the square root of d, the width of a query, not of "
                                                  "the number of queries."),
        ((scores / math.sqrt(4)).softmax(-1) @ v, "The scale takes d from the values. It is the width of queries and "
                                                  "keys: q.shape[-1]."),
        (scores.softmax(-1) @ v / math.sqrt(7), "The scale came too late: the scores are divided before the softmax."),
        (scaled.softmax(-2) @ v, "The softmax goes over the queries. Each query distributes its attention over the "
                                 "keys: softmax(-1)."),
        (scaled @ v, "The softmax is missing: weights must be positive and add up to 1."),
        (scaled.softmax(-1), "These are the weights. They still have to average the values: weights @ v."),
        (scaled.softmax(-1) @ k, "The keys are averaged here. They determine the weights; the values are "
                                 "averaged."),
        (scaled.masked_fill(torch.ones(5, 6).triu(1).bool(), -math.inf).softmax(-1) @ v,
         "A causal mask restricts each query to the first keys. Here every query attends to all keys."),
        (scaled.exp() @ v, "This is exp without the division by its sum, so weights do not add up to 1."),
        (scaled.softmax(0) @ v, "The softmax goes over the batch; the keys are the last axis."),
        (scaled.softmax(1) @ v, "The softmax goes over the heads; the keys are the last axis, -1."),
        (scaled.flatten(-2).softmax(-1).reshape(scaled.shape) @ v, "One softmax goes over the whole map. The weights "
                                                                   "of *each* query add up to 1: softmax(-1)."),
    ]  # fmt: skip


def counted(size, kernel, stride):
    count = torch.zeros((size - 1) * stride + kernel, dtype=torch.int64)
    for i in range(size):
        count[i * stride : i * stride + kernel] += 1
    return count


def attention_of_fixed_width(q, k, v):
    return [
        ((q @ k.mT / math.sqrt(d)).softmax(-1) @ v, "d is not always the same number: it is the width of these keys, "
                                                    "q.shape[-1].")
        for d in (4, 7, 8, 16, 32, 64) if d != q.shape[-1]
    ]  # fmt: skip


def norm_mistakes(x, eps):
    """What wrong group norms make of x (3, 6, 2, 3) in three groups."""
    rows = x.reshape(3, 3, -1)
    mean = rows.mean(2, keepdim=True)
    biased, unbiased = rows.var(2, keepdim=True, correction=0), rows.var(2, keepdim=True)

    def normal(variance_eps):
        return ((rows - mean) / variance_eps).reshape(x.shape)

    batch_mean, batch_var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    comb = x.reshape(3, 2, 3, 6).transpose(1, 2).reshape(3, 6, 2, 3)
    comb = F.group_norm(comb, 3, eps=eps).reshape(3, 3, 2, 6).transpose(1, 2).reshape(x.shape)
    return [
        (normal((unbiased + eps).sqrt()), "The variance is divided by n - 1. Here it is the plain mean of the squares: "
                                          "unbiased=False."),
        (normal(biased.sqrt() + eps), "eps stands outside the square root. Add it to the variance, under the root."),
        (normal(unbiased.sqrt() + eps), "eps stands outside the square root, and the variance is divided by n - 1: "
                                        "unbiased=False, and eps under the root."),
        (normal(biased.sqrt()), "eps is missing: a group that is constant would divide by zero."),
        (normal(biased + eps), "This divides by the variance. The standard deviation is its square root."),
        (F.group_norm(x, 6, eps=eps), "Each channel is normalised separately (that is instance norm). Take the mean "
                                      "over all channels of a group."),
        (F.group_norm(x, 2, eps=eps), "`groups` is the number of groups, not the number of channels in each."),
        (_over_groups(rows, eps).reshape(x.shape), "The statistics go over the groups. Each group has its own: the "
                                                   "last axis of its row, dim=2."),
        (F.group_norm(x, 1, eps=eps), "All channels are normalised together (that is layer norm). Normalise each "
                                      "group separately."),
        ((x - batch_mean) / (batch_var + eps).sqrt(), "The statistics go over the batch (that is batch norm). "
                                                      "Normalise each image separately."),
        (_over_channels(x, eps), "The statistics go over the group's channels at each pixel. They go over all pixels "
                                 "as well."),
        (_over_batch(x, eps), "The statistics go over the whole batch. Each image has its own."),
        (comb, "The groups take every third channel. By convention a group's channels are neighbours: reshape to "
               "(batch, groups, channels of the group, ...)."),
        (rows.reshape(x.shape) - mean.repeat_interleave(2, 1)[..., None], "Only the mean is subtracted; divide by the "
                                                                          "standard deviation."),
        (((rows - mean) / (biased + eps).sqrt()), "The result keeps the shape of the rows: end with "
                                                  ".reshape(x.shape)."),
    ]  # fmt: skip


def _over_channels(x, eps):
    rows = x.reshape(3, 3, 2, 2, 3)
    variance, mean = torch.var_mean(rows, 2, keepdim=True, correction=0)
    return ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)


def _over_groups(rows, eps):
    variance, mean = torch.var_mean(rows, 1, keepdim=True, correction=0)
    return (rows - mean) / (variance + eps).sqrt()


def _over_batch(x, eps):
    rows = x.reshape(3, 3, -1)
    variance, mean = torch.var_mean(rows, (0, 2), keepdim=True, correction=0)
    return ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)


def residual_mistakes(parts, x, embedding):
    norm1, conv1, time, norm2, conv2, shortcut = parts.values()
    silu = F.silu
    told, raw = time(silu(embedding))[:, :, None, None], time(embedding)[:, :, None, None]
    h = conv1(silu(norm1(x)))
    change, way = conv2(silu(norm2(h + told))), shortcut(x)
    found = [
        (way + change, ""),
        (change, "The input is not added: return self.shortcut(x) + ... Without it, gradients have no short path "
                 "back."),
        (way + conv2(silu(norm2(h))), "The time is not used: add self.time(silu(embedding)) between the convolutions."),
        (way + conv2(silu(norm2(h + raw))), "The embedding goes into self.time without silu."),
        (way + conv2(silu(norm2(h) + told)), "The time is added after norm2; add it before, to the output of conv1."),
        (way + conv2(norm2(h + told)), "The second silu is missing: norm2, silu, conv2."),
        (way + conv2(silu(norm2(conv1(norm1(x)) + told))), "The first silu is missing: norm1, silu, conv1."),
        (way + conv2(silu(norm2(conv1(silu(x)) + told))), "norm1 is not used: norm1, silu, conv1."),
        (way + conv2(silu(h + told)), "norm2 is not used: norm2, silu, conv2."),
        (way + silu(norm2(h + told)), "conv2 is not used: norm2, silu, conv2."),
        (silu(way + change), "There is a silu after the sum. The shortcut has to reach the output unchanged, or the "
                             "block cannot pass x on."),
        (shortcut(silu(norm1(x))) + change, "The shortcut takes the normalised x. It takes the unchanged x."),
        (way + conv2(silu(norm2(h * told))), "The time is multiplied; add it."),
        (way * change, "The two paths are multiplied; add them."),
    ]  # fmt: skip
    relu = F.relu(norm1(x))
    found += [
        (way + conv2(F.relu(norm2(conv1(relu) + time(F.relu(embedding))[:, :, None, None]))),
         "This is relu where silu belongs."),
        (way + conv2(silu(norm2(h + told[:1]))), "All images got the time of the first. Each has its own."),
    ]  # fmt: skip
    if x.shape[1] == h.shape[1]:
        order = "The order of each half is norm, silu, conv: conv1 comes last, not first."
        found += [
            (way + conv2(silu(norm2(silu(norm1(conv1(x))) + told))), order),
            (way + conv2(silu(norm2(silu(norm2(conv1(x))) + told))), order),
            (way + conv2(silu(norm1(h + told))), "norm1 is used twice; the second is norm2."),
            (way + conv1(silu(norm2(h + told))), "conv1 is used twice; the second is conv2."),
            (way + conv2(silu(norm2(conv1(silu(norm1(x + told)))))), "The time is added to x, before conv1. Add it "
                                                                     "to the output of conv1."),
        ]  # fmt: skip
    return found


class Part:
    """A stand-in for a block of the U, which notes the shape it was given: (..., h, w) -> an output of its own."""

    def __init__(self, factor, kind, channels):
        self.factor, self.kind, self.channels = factor, kind, channels
        self.given = ()  # the shape of its input, without the batch

    def __call__(self, x):
        self.given = tuple(x.shape[1:])
        if self.kind == "shrink":
            return self.factor * x[:, :, ::2, ::2]
        if self.kind == "grow":
            return self.factor * x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        if self.kind == "up" and x.shape[1] == 2 * self.channels:  # weighs the halves differently
            x = 0.7 * x[:, : self.channels] + 0.2 * x[:, self.channels :]
        return self.factor * x + self.factor**2


def u_parts(case, levels, channels):
    """Parts for a U: lists down and shrink, one middle, lists grow and up."""

    def parts(kind, count):
        return [Part(factor, kind, channels) for factor in case.uniform(0.5, 1.5, count).tolist()]

    return [parts("down", levels), parts("shrink", levels), *parts("middle", 1), parts("grow", levels),
            parts("up", levels)]  # fmt: skip


U_MISTAKES = [
    ("save", "before", "The input of `down` was kept. Keep its output: x = block(x), then append."),
    ("join", "swapped", "The order is swapped: what comes from below goes first, what was kept second."),
    ("bottom", "none", "`middle` was not called."),
    ("bottom", "each", "`middle` was called at each level. Call it once, at the bottom."),
    ("skip", "zero", "What was kept is not used: zeros were concatenated in its place."),
    ("skip", "self", "The image was concatenated with itself; use what was kept at the same level."),
    ("side", "way", "The output of `down` was kept, but not passed on: x = block(x), keep x, and then shrink that x."),
    (
        "early",
        "join",
        "Concatenated before `grow`, with the output of `shrink`. Concatenate after `grow`, with that of `down`.",
    ),
    ("order", "reversed", "`grow` and `up` were run backwards. They already go from coarse to fine."),
]


def joining_failed(error, x, parts):
    """Why torch.cat found sizes that do not fit, of the learner's way through the U."""
    down, grow = parts[0], parts[3]
    if not grow[0].given:
        return "What comes from below was not enlarged: call `grow` before concatenating."
    first, second = map(int, re.findall(r"size (\d+)", error)[:2])
    if first > second and first > down[-1].given[1]:
        return "The same kept tensor was used twice. Take it out of the list: kept.pop()."
    if max(first, second) > down[-1].given[1]:
        return "The finest level was taken first. The way up starts at the coarsest, kept last: .pop(), not .pop(0)."
    return "What is kept has already been shrunk: keep the output of `down`, before `shrink`."


def walk(x, down, shrink, middle, grow, up, save="", join="", skip="", order="", **other):
    """The way through the U of `Part`s, right or wrong in one named way."""
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        before, x = x, block(x)
        kept.append(before if save else x)
        x = smaller(before if other.get("side") else x)
        if other.get("early"):
            kept[-1] = x
    if other.get("bottom") != "none":
        x = middle(x)
    pairs = list(zip(grow, up, strict=True))
    for number, (larger, block) in enumerate(reversed(pairs) if order else pairs):
        if other.get("early"):
            x = larger(block(torch.cat([x, kept.pop()], 1)))
            continue
        x, old = larger(x), kept.pop()
        old = torch.zeros_like(old) if skip == "zero" else x if skip == "self" else old
        x = block(torch.cat([old, x] if join else [x, old], 1))
        if other.get("bottom") == "each" and number < len(pairs) - 1:
            x = middle(x)
    return x
