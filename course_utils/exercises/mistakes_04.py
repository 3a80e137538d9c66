"""What common mistakes give in the exercises of chapter 04, each with the sentence that names it."""

import torch
from torch.nn import functional as F

CONV = ("size", "kernel", "stride", "padding", "dilation")
CONV_MISTAKES = [
    (
        lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) / s + 1,
        "The floor is missing: the kernel fits in whole places only, so a rest is dropped. Use //.",
    ),
    (
        lambda n, k, s, p, d: -(-(n + 2 * p - d * (k - 1) - 1) // s) + 1,
        "This rounds up. Where less than a whole stride is left, the kernel has no further place: round down.",
    ),
    (
        lambda n, k, s, p, d: (n + p - d * (k - 1) - 1) // s + 1,
        "Padding is counted once. It is put on both sides: 2 * padding.",
    ),
    (
        lambda n, k, s, p, d: (n + 2 * p - k) // s + 1,
        "Dilation is ignored: a kernel with gaps covers dilation * (kernel - 1) + 1 pixels.",
    ),
    (
        lambda n, k, s, p, d: (n + 2 * p - d * k) // s + 1,
        "There are gaps only *between* the weights: dilation * (kernel - 1) + 1 pixels, not dilation * kernel.",
    ),
    (
        lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) // s,
        "One place is missing: the kernel's first place costs no stride. Add 1.",
    ),
    (
        lambda n, k, s, p, d: (n + 2 * p - d * (k - 1)) // s,
        "The 1 belongs behind the division: the kernel's first place costs no stride.",
    ),
    (
        lambda n, k, s, p, d: n + 2 * p - d * (k - 1),
        "The stride is ignored: the kernel jumps `stride` pixels at a time.",
    ),
    (
        lambda n, k, s, p, d: (n - d * (k - 1) - 1) // s + 1,
        "The padding is ignored: 2 * padding pixels are added to the side.",
    ),
]


def phases(size, kernel, stride):
    places = (size - 1) * stride + kernel
    return torch.tensor([len(range(place % stride, kernel, stride)) for place in range(places)])


def counted(size, kernel, stride, like=None):
    count = torch.zeros((size - 1) * stride + kernel if like is None else len(like), dtype=torch.int64)
    for i in range(size):
        count[i * stride : i * stride + kernel] += 1
    return count


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
        (normal(biased.sqrt() + eps), "eps stands outside the root. It is added to the variance, under the root."),
        (normal(unbiased.sqrt() + eps), "eps stands outside the root, and the variance is divided by n - 1: "
                                        "unbiased=False, and eps under the root."),
        (normal(biased.sqrt()), "eps is missing: a group that is constant would divide by zero."),
        (normal(biased + eps), "This divides by the variance. The standard deviation is its root."),
        (F.group_norm(x, 6, eps=eps), "Each channel is normalised alone (that is instance norm). Take the mean over "
                                      "all channels of a group."),
        (F.group_norm(x, 1, eps=eps), "All channels are normalised together (that is layer norm). Each group for "
                                      "itself."),
        ((x - batch_mean) / (batch_var + eps).sqrt(), "The statistics go over the batch (that is batch norm). Each "
                                                      "picture for itself."),
        (_over_channels(x, eps), "The statistics go over the group's channels at each pixel. They go over all pixels "
                                 "as well."),
        (_over_batch(x, eps), "The statistics go over the whole batch. Each picture has its own."),
        (comb, "The groups take every third channel. By agreement a group's channels are neighbours: reshape to "
               "(batch, groups, channels of the group, ...)."),
        (rows.reshape(x.shape) - mean.repeat_interleave(2, 1)[..., None], "Only the mean is taken away; divide by the "
                                                                          "standard deviation."),
        (((rows - mean) / (biased + eps).sqrt()), "The result keeps the shape of the rows: end with "
                                                  ".reshape(x.shape)."),
    ]  # fmt: skip


def _over_channels(x, eps):
    rows = x.reshape(3, 3, 2, 2, 3)
    variance, mean = torch.var_mean(rows, 2, keepdim=True, correction=0)
    return ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)


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
        (change, "What came in is not added: return self.shortcut(x) + ... Without it, gradients have no short way "
                 "back."),
        (way + conv2(silu(norm2(h))), "The time is not used: add self.time(silu(embedding)) between the convolutions."),
        (way + conv2(silu(norm2(h + raw))), "The embedding goes into self.time without silu."),
        (way + conv2(silu(norm2(h) + told)), "The time is added after norm2; add it before, to what conv1 gives."),
        (way + conv2(norm2(h + told)), "The second silu is missing: norm2, silu, conv2."),
        (way + conv2(silu(norm2(conv1(norm1(x)) + told))), "The first silu is missing: norm1, silu, conv1."),
        (way + conv2(silu(norm2(conv1(silu(x)) + told))), "norm1 is not used: norm1, silu, conv1."),
        (way + conv2(silu(h + told)), "norm2 is not used: norm2, silu, conv2."),
        (way + silu(norm2(h + told)), "conv2 is not used: norm2, silu, conv2."),
        (silu(way + change), "There is a silu behind the sum. Nothing may stand between what came in and what goes "
                             "out: else the block cannot just pass x on."),
        (shortcut(silu(norm1(x))) + change, "The shortcut takes the normalised x. It takes x as it came in."),
        (way + conv2(silu(norm2(h * told))), "The time is multiplied; add it."),
        (way * change, "The two ways are multiplied; add them."),
    ]  # fmt: skip
    if x.shape[1] == h.shape[1]:
        norms = conv2(silu(norm1(h + told)))
        found.append((way + norms, "norm1 is used twice; the second is norm2."))
    return found


class Part:
    """A stand-in for a block of the U: (..., h, w) -> something that shows who was called, in which order."""

    def __init__(self, factor, kind):
        self.factor, self.kind = factor, kind

    def __call__(self, x):
        if self.kind == "shrink":
            return self.factor * x[:, :, ::2, ::2]
        if self.kind == "grow":
            return self.factor * x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        if self.kind == "up":  # weighs the halves differently, and halves the channels as a network does
            x = 0.7 * x[:, : x.shape[1] // 2] + 0.2 * x[:, x.shape[1] // 2 :]
        return self.factor * x + self.factor**2


class Sums:
    def __init__(self):
        self.channels = []

    def __call__(self, x):
        self.channels.append(x.shape[1])
        return x[:, :3]


def walk(x, down, shrink, middle, grow, up, save="", join="", skip="", order="", **other):
    """The way through the U of `Part`s, right or wrong in one named way."""
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        before, x = x, block(x)
        kept.append(before if save else x)
        x = smaller(x)
    if other.get("bottom") != "none":
        x = middle(x)
    pairs = list(zip(grow, up, strict=True))
    for number, (larger, block) in enumerate(reversed(pairs) if order else pairs):
        x, old = larger(x), kept.pop()
        old = torch.zeros_like(old) if skip == "zero" else x if skip == "self" else old
        x = block(torch.cat([old, x] if join else [x, old], 1))
        if other.get("bottom") == "each" and number < len(pairs) - 1:
            x = middle(x)
    return x
