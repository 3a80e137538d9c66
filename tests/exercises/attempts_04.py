"""Attempts at the exercises of chapter 04."""

import math

import torch
from attempts import mutant, variant
from torch import nn
from torch.nn import functional as F

from course_utils.models.blocks import ResidualBlock

SIZE, OVERLAP, ATTENTION, HEADS = "04.conv_output_size", "04.overlap_count", "04.attention", "04.split_heads"
TIME, NORM, RESIDUAL, U = "04.time_embedding", "04.group_norm", "04.residual_block", "04.through_the_u"


@mutant(SIZE, "floor is missing")
def no_floor(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1


@mutant(SIZE, "rounds up")
def rounded_up(size, kernel, stride=1, padding=0, dilation=1):
    return math.ceil((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1


@mutant(SIZE, "Padding is counted once")
def padding_once(size, kernel, stride=1, padding=0, dilation=1):
    return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


@mutant(SIZE, "Dilation is ignored")
def no_dilation(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - kernel) // stride + 1


@mutant(SIZE, "gaps only *between*")
def gap_behind_the_last(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * kernel) // stride + 1


@mutant(SIZE, "One place is missing")
def fence_without_last_post(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride


@variant(SIZE)
def places_counted(size, kernel, stride=1, padding=0, dilation=1):
    reach = dilation * (kernel - 1)
    return len([start for start in range(0, size + 2 * padding, stride) if start + reach < size + 2 * padding])


@variant(SIZE)
def size_as_a_tensor(size, kernel, stride=1, padding=0, dilation=1):
    return torch.tensor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1).floor()


@mutant(OVERLAP, "size * stride long")
def too_short_an_output(size, kernel, stride):
    count = torch.zeros((size - 1) * stride + kernel + size * stride, dtype=torch.int64)
    for i in range(size):
        count[i * stride : i * stride + kernel] += 1
    return count[: size * stride]


@mutant(OVERLAP, "counted once")
def set_and_not_added(size, kernel, stride):
    count = torch.zeros((size - 1) * stride + kernel, dtype=torch.int64)
    for i in range(size):
        count[i * stride : i * stride + kernel] = 1
    return count


@mutant(OVERLAP, "right inside the picture")
def ends_forgotten(size, kernel, stride):
    places = torch.arange((size - 1) * stride + kernel)
    return torch.tensor([len(range(int(place) % stride, kernel, stride)) for place in places])


@mutant(OVERLAP, "Each copy is one too short")
def one_too_short(size, kernel, stride):
    count = torch.zeros((size - 1) * stride + kernel, dtype=torch.int64)
    for i in range(size):
        for j in range(kernel - 1):
            count[i * stride + j] += 1
    return count


@mutant(OVERLAP, "Kernel and stride are swapped")
def kernel_and_stride_swapped(size, kernel, stride):
    count = torch.zeros((size - 1) * kernel + stride, dtype=torch.int64)
    for i in range(size):
        count[i * kernel : i * kernel + stride] += 1
    return count


@mutant(OVERLAP, "The stride is ignored")
def stride_ignored(size, kernel, stride):
    count = torch.zeros(size - 1 + kernel)
    for i in range(size):
        count[i : i + kernel] += 1
    return count


@variant(OVERLAP)
def overlap_by_the_library(size, kernel, stride):
    ones = torch.ones(1, 1, size, dtype=torch.float64), torch.ones(1, 1, kernel, dtype=torch.float64)
    return F.conv_transpose1d(*ones, stride=stride).flatten().round().long()


@variant(OVERLAP)
def overlap_by_bincount(size, kernel, stride):
    places = torch.arange(size)[:, None] * stride + torch.arange(kernel)
    return torch.bincount(places.flatten(), minlength=(size - 1) * stride + kernel)


@variant(OVERLAP)
def overlap_asked_from_the_output(size, kernel, stride):
    places = range((size - 1) * stride + kernel)
    return torch.tensor([sum(0 <= place - i * stride < kernel for i in range(size)) for place in places])


@mutant(ATTENTION, "The scale is missing")
def not_scaled(q, k, v):
    return (q @ k.mT).softmax(-1) @ v


@mutant(ATTENTION, "divide by sqrt(d)")
def scaled_by_d(q, k, v):
    return (q @ k.mT / q.shape[-1]).softmax(-1) @ v


@mutant(ATTENTION, "over the queries")
def softmax_over_queries(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-2) @ v


@mutant(ATTENTION, "over the batch")
def softmax_over_the_first_axis(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(0) @ v


@mutant(ATTENTION, "The softmax is missing")
def no_softmax(q, k, v):
    return q @ k.mT / q.shape[-1] ** 0.5 @ v


@mutant(ATTENTION, "not of the number of keys")
def scaled_by_the_number_of_keys(q, k, v):
    return (q @ k.mT / k.shape[-2] ** 0.5).softmax(-1) @ v


@mutant(ATTENTION, "These are the weights")
def weights_only(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


@variant(ATTENTION)
def attention_by_einsum(q, k, v):
    scores = torch.einsum("...qd,...kd->...qk", q.double(), k.double()) / math.sqrt(q.shape[-1])
    return torch.einsum("...qk,...kv->...qv", scores.softmax(-1), v.double())


@variant(ATTENTION)
def attention_with_its_own_softmax(q, k, v):
    scores = (q / q.shape[-1] ** 0.5) @ k.transpose(-2, -1)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights @ v / weights.sum(-1, keepdim=True)


@variant(ATTENTION)
def attention_query_by_query(q, k, v):
    rows = [((k @ q[..., i, :, None]).squeeze(-1) / math.sqrt(k.shape[-1])).softmax(-1) for i in range(q.shape[-2])]
    return torch.stack([(row[..., None] * v).sum(-2) for row in rows], -2)


@mutant(HEADS, "without a transpose")
def viewed_only(x, heads):
    batch, tokens, width = x.shape
    return x.view(batch, heads, tokens, width // heads)


@mutant(HEADS, "The transpose is missing")
def not_transposed(x, heads):
    return x.unflatten(-1, (heads, -1))


@mutant(HEADS, "every heads-th number")
def combed(x, heads):
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, width // heads, heads).permute(0, 3, 1, 2)


@mutant(HEADS, "merged into one axis")
def heads_in_the_batch(x, heads):
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, -1).transpose(1, 2).reshape(batch * heads, tokens, -1)


@variant(HEADS)
def heads_by_chunk(x, heads):
    return torch.stack(x.chunk(heads, dim=-1), dim=1)


@variant(HEADS)
def heads_by_permute(x, heads):
    return x.unflatten(2, (heads, -1)).permute(0, 2, 1, 3)


def waves(t, width, divisor, first=0):
    speeds = 10_000.0 ** (-(torch.arange(width // 2) + first) / divisor)
    angles = t[:, None] * speeds
    return angles.sin(), angles.cos()


@mutant(TIME, "Sines come first")
def cosines_first(t, width):
    sin, cos = waves(t, width, width // 2)
    return torch.cat([cos, sin], 1)


@mutant(TIME, "not by half - 1")
def slowest_wave_at_ten_thousand(t, width):
    return torch.cat(waves(t, width, width // 2 - 1), 1)


@mutant(TIME, "i starts at 0")
def speeds_from_one(t, width):
    return torch.cat(waves(t, width, width // 2, first=1), 1)


@mutant(TIME, "alternate")
def alternating(t, width):
    return torch.stack(waves(t, width, width // 2), 2).flatten(1)


@mutant(TIME, "divided by the width")
def divided_by_the_width(t, width):
    return torch.cat(waves(t, width, width), 1)


@mutant(TIME, "minus sign")
def rising_speeds(t, width):
    return torch.cat(waves(t, width, -width // 2), 1)


@variant(TIME)
def time_by_exponentials(t, width):
    half = width // 2
    speeds = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float64) / half)
    turned = torch.exp(1j * t[:, None] * speeds)
    return torch.cat([turned.imag, turned.real], -1)


@variant(TIME)
def time_in_loops(t, width):
    half = width // 2
    rows = [[f(float(time) / 10_000 ** (i / half)) for f in (math.sin, math.cos) for i in range(half)] for time in t]
    return torch.tensor(rows)


def grouped(x, groups):
    return x.reshape(len(x), groups, -1)


@mutant(NORM, "divided by n - 1")
def unbiased(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    return ((rows - rows.mean(2, keepdim=True)) / (rows.var(2, keepdim=True) + eps).sqrt()).reshape(x.shape)


@mutant(NORM, "eps stands outside the root. It")
def eps_outside(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    return ((rows - rows.mean(2, keepdim=True)) / (rows.std(2, keepdim=True, correction=0) + eps)).reshape(x.shape)


@mutant(NORM, "instance norm")
def each_channel_alone(x, groups, eps=1e-5):
    return F.instance_norm(x, eps=eps)


@mutant(NORM, "batch norm")
def over_the_batch(x, groups, eps=1e-5):
    return F.batch_norm(x, None, None, training=True, eps=eps)


@mutant(NORM, "every third channel")
def combed_groups(x, groups, eps=1e-5):
    batch, channels, h, w = x.shape
    rows = x.reshape(batch, channels // groups, groups, h, w)
    mean, variance = rows.mean((1, 3, 4), keepdim=True), rows.var((1, 3, 4), keepdim=True, correction=0)
    return ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)


@mutant(NORM, "at each pixel")
def over_channels_only(x, groups, eps=1e-5):
    rows = x.unflatten(1, (groups, -1))
    mean, variance = rows.mean(2, keepdim=True), rows.var(2, keepdim=True, correction=0)
    return ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)


@mutant(NORM, "divides by the variance")
def no_root(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    return ((rows - rows.mean(2, keepdim=True)) / (rows.var(2, keepdim=True, correction=0) + eps)).reshape(x.shape)


@variant(NORM)
def norm_group_by_group(x, groups, eps=1e-5):
    parts = []
    for part in x.double().chunk(groups, dim=1):
        mean = part.mean((1, 2, 3), keepdim=True)
        parts.append((part - mean) / ((part**2).mean((1, 2, 3), keepdim=True) - mean**2 + eps) ** 0.5)
    return torch.cat(parts, dim=1)


@variant(NORM)
def norm_by_the_library(x, groups, eps=1e-5):
    return nn.GroupNorm(groups, x.shape[1], eps=eps, affine=False)(x)


@mutant(RESIDUAL, "not added")
class NoShortcut(ResidualBlock):
    def forward(self, x, embedding):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(embedding))[:, :, None, None]
        return self.conv2(F.silu(self.norm2(h)))


@mutant(RESIDUAL, "The time is not used")
class Timeless(ResidualBlock):
    def forward(self, x, embedding):
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


@mutant(RESIDUAL, "without silu")
class RawTime(ResidualBlock):
    def forward(self, x, embedding):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(embedding)[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


@mutant(RESIDUAL, "behind the sum")
class SiluAtTheEnd(ResidualBlock):
    def forward(self, x, embedding):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(embedding))[:, :, None, None]
        return F.silu(self.shortcut(x) + self.conv2(F.silu(self.norm2(h))))


@mutant(RESIDUAL, "takes the normalised x")
class NormalisedShortcut(ResidualBlock):
    def forward(self, x, embedding):
        x = F.silu(self.norm1(x))
        h = self.conv1(x) + self.time(F.silu(embedding))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


@mutant(RESIDUAL, "it needs two more axes")
class TimeWithoutAxes(ResidualBlock):
    def forward(self, x, embedding):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(embedding))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


@mutant(RESIDUAL, "another number of channels")
class XItselfAdded(ResidualBlock):
    def forward(self, x, embedding):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(embedding))[:, :, None, None]
        return x + self.conv2(F.silu(self.norm2(h)))


@variant(RESIDUAL)
class BlockInOtherOrder(ResidualBlock):
    def forward(self, x, embedding):
        told = self.time(nn.SiLU()(embedding)).unsqueeze(-1).unsqueeze(-1)
        first = nn.Sequential(self.norm1, nn.SiLU(), self.conv1)
        second = nn.Sequential(self.norm2, nn.SiLU(), self.conv2)
        return second(told + first(x)) + self.shortcut(x)


@variant(RESIDUAL)
class BlockWithExpandedTime(ResidualBlock):
    def forward(self, x, embedding):
        h = self.conv1(self.norm1(x) * self.norm1(x).sigmoid())
        told = self.time(embedding * embedding.sigmoid())
        h = h + told.reshape(*told.shape, 1, 1).expand_as(h)
        return self.conv2(self.norm2(h) * self.norm2(h).sigmoid()) + self.shortcut(x)


@mutant(U, "taken by .pop(), not .pop(0)")
def oldest_first(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept.pop(0)], 1))
    return x


@mutant(U, "What is kept is the picture before `down`")
def kept_too_early(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        kept.append(x)
        x = smaller(block(x))
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept.pop()], 1))
    return x


@mutant(U, "Kept before `shrink`?")
def kept_too_late(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = smaller(block(x))
        kept.append(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept.pop()], 1))
    return x


@mutant(U, "The order is swapped")
def kept_first(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([kept.pop(), larger(x)], 1))
    return x


@mutant(U, "`middle` was not called")
def no_middle(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept.pop()], 1))
    return x


@mutant(U, "not added and not along the batch")
def skips_added(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(larger(x) + kept.pop())
    return x


@variant(U)
def u_by_recursion(x, down, shrink, middle, grow, up):
    if not down:
        return middle(x)
    x = down[0](x)
    below = u_by_recursion(shrink[0](x), down[1:], shrink[1:], middle, grow[:-1], up[:-1])
    return up[-1](torch.cat((grow[-1](below), x), dim=-3))


@variant(U)
def u_by_index(x, down, shrink, middle, grow, up):
    kept, levels = {}, len(down)
    for i in range(levels):
        kept[i] = x = down[i](x)
        x = shrink[i](x)
    x = middle(x)
    for i in range(levels):
        x = up[i](torch.cat([grow[i](x), kept[levels - 1 - i]], dim=1))
    return x
