"""Attempts at the exercises of chapter 04."""

import math

import numpy as np
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


@mutant(SIZE, "One position is missing")
def fence_without_last_post(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride


@variant(SIZE)
def places_counted(size, kernel, stride=1, padding=0, dilation=1):
    reach = dilation * (kernel - 1)
    return len([start for start in range(0, size + 2 * padding, stride) if start + reach < size + 2 * padding])


@variant(SIZE)
def size_by_a_loop(size, kernel, stride=1, padding=0, dilation=1):
    left, places = size + 2 * padding - dilation * (kernel - 1) - 1, 0
    while left >= 0:
        left, places = left - stride, places + 1
    return np.int64(places)


@variant(SIZE)
def size_asked_from_torch(size, kernel, stride=1, padding=0, dilation=1):
    layer = nn.Conv2d(1, 1, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1), device="meta")
    return layer(torch.empty(1, 1, size, 1, device="meta")).size(2)


@mutant(SIZE, "a float, expected the int")
def floor_of_numpy(size, kernel, stride=1, padding=0, dilation=1):
    return np.floor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1


@mutant(SIZE, "after the division")
def one_inside_the_division(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel - 1)) // stride


@mutant(SIZE, "The stride is ignored")
def no_stride(size, kernel, stride=1, padding=0, dilation=1):
    return size + 2 * padding - dilation * (kernel - 1)


@mutant(SIZE, "The padding is ignored")
def no_padding(size, kernel, stride=1, padding=0, dilation=1):
    return (size - dilation * (kernel - 1) - 1) // stride + 1


@mutant(SIZE, "covers one pixel more")
def reach_one_too_short(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel - 1)) // stride + 1


@mutant(SIZE, "rounds to the nearest")
def rounded(size, kernel, stride=1, padding=0, dilation=1):
    return round((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1


@mutant(SIZE, "*transposed* convolution")
def size_of_the_transposed(size, kernel, stride=1, padding=0, dilation=1):
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1


@mutant(SIZE, "the parameter stride has no default")
def size_without_defaults(size, kernel, stride, padding, dilation):
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@mutant(SIZE, "Draw it")
def padding_left_by_chance(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 3 * padding - dilation * (kernel - 1) - 1) // stride + 1


@mutant(SIZE, "Return one number")
def size_of_both_sides(size, kernel, stride=1, padding=0, dilation=1):
    side = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return side, side


@mutant(SIZE, "expected a plain Python number")
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


@mutant(OVERLAP, "right inside the output")
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
    count = torch.zeros(size - 1 + kernel, dtype=torch.int64)
    for i in range(size):
        count[i : i + kernel] += 1
    return count


@mutant(OVERLAP, "copies lie side by side")
def stride_in_the_length_only(size, kernel, stride):
    count = torch.zeros((size - 1) * stride + kernel, dtype=torch.int64)
    for i in range(size):
        count[i : i + kernel] += 1
    return count


@mutant(OVERLAP, "begins one position late")
def counted_from_one(size, kernel, stride):
    count = torch.zeros((size - 1) * stride + kernel, dtype=torch.int64)
    for i in range(size):
        count[i * stride + 1 : i * stride + 1 + kernel] += 1
    return count


@mutant(OVERLAP, "one position too short")
def last_place_missing(size, kernel, stride):
    count = torch.zeros((size - 1) * stride + kernel - 1, dtype=torch.int64)
    for i in range(size):
        count[i * stride : i * stride + kernel] += 1
    return count


@mutant(OVERLAP, "end with .long()")
def counts_as_floats(size, kernel, stride):
    count = torch.zeros((size - 1) * stride + kernel)
    for i in range(size):
        count[i * stride : i * stride + kernel] += 1
    return count


@mutant(OVERLAP, "torch.tensor(list) one of a list of numbers")
def counts_in_a_list(size, kernel, stride):
    count = [0] * ((size - 1) * stride + kernel)
    for i in range(size):
        for j in range(kernel):
            count[i * stride + j] += 1
    return count


@mutant(OVERLAP, "has the dtype torch.int32, expected torch.int64")
def counts_in_int32(size, kernel, stride):
    return overlap_by_bincount(size, kernel, stride).int()


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


@mutant(ATTENTION, "subtracts the largest score first")
def exponentials_by_hand(q, k, v):
    e = (q @ k.mT / q.shape[-1] ** 0.5).exp()
    return e / e.sum(-1, keepdim=True) @ v


@variant(ATTENTION)
def attention_by_einsum(q, k, v):
    scores = torch.einsum("...qd,...kd->...qk", q.double(), k.double()) / math.sqrt(q.shape[-1])
    return torch.einsum("...qk,...kv->...qv", scores.softmax(-1), v.double()).float()


@mutant(ATTENTION, "dtype torch.float64")
def attention_in_float64(q, k, v):
    scores = torch.einsum("...qd,...kd->...qk", q.double(), k.double()) / math.sqrt(q.shape[-1])
    return torch.einsum("...qk,...kv->...qv", scores.softmax(-1), v.double())


@mutant(ATTENTION, "no way back")
def attention_without_gradients(q, k, v):
    with torch.no_grad():
        return F.scaled_dot_product_attention(q, k, v)


@mutant(ATTENTION, "no gradient comes back to q")
def weights_cut_off(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).detach() @ v


@mutant(ATTENTION, "they are divided by it")
def multiplied_by_the_root(q, k, v):
    return (q @ k.mT * q.shape[-1] ** 0.5).softmax(-1) @ v


@mutant(ATTENTION, "the width of a query")
def scaled_by_the_number_of_queries(q, k, v):
    return (q @ k.mT / q.shape[-2] ** 0.5).softmax(-1) @ v


@mutant(ATTENTION, "takes d from the values")
def scaled_by_the_width_of_values(q, k, v):
    return (q @ k.mT / v.shape[-1] ** 0.5).softmax(-1) @ v


@mutant(ATTENTION, "scale came too late")
def scaled_after_the_softmax(q, k, v):
    return (q @ k.mT).softmax(-1) / q.shape[-1] ** 0.5 @ v


@mutant(ATTENTION, "The keys are averaged here")
def keys_averaged(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ k


@mutant(ATTENTION, "without the division by its sum")
def exponentials_not_shared_out(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).exp() @ v


@mutant(ATTENTION, "over the heads")
def softmax_over_axis_one(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(1) @ v


@mutant(ATTENTION, "over the whole map")
def one_softmax_for_all(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.flatten(-2).softmax(-1).reshape(scores.shape) @ v


@mutant(ATTENTION, "swaps the last two axes")
def keys_not_transposed(q, k, v):
    return (q @ k / q.shape[-1] ** 0.5).softmax(-1) @ v


@mutant(ATTENTION, "not always the same number")
def seven_hard_coded(q, k, v):
    return (q @ k.mT / 7**0.5).softmax(-1) @ v


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


@mutant(HEADS, "last two axes are swapped")
def tokens_last(x, heads):
    return x.unflatten(-1, (heads, -1)).permute(0, 2, 3, 1)


@mutant(HEADS, "before the batch")
def heads_before_the_batch(x, heads):
    return x.unflatten(-1, (heads, -1)).permute(2, 0, 1, 3)


@mutant(HEADS, "no way back")
def heads_by_numpy(x, heads):
    return torch.from_numpy(np.stack(np.split(x.detach().numpy(), heads, axis=-1), axis=1))


@mutant(HEADS, "torch.stack(list) makes one tensor")
def heads_in_a_list(x, heads):
    return list(x.chunk(heads, dim=-1))


@mutant(HEADS, "the parameter heads is called number")
def heads_renamed(x, number):
    return torch.stack(x.chunk(number, dim=-1), dim=1)


@variant(HEADS)
def heads_by_slices(x, heads):
    d = x.shape[-1] // heads
    return torch.stack([x[:, :, d * h : d * (h + 1)] for h in range(heads)]).swapaxes(0, 1)


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
    return torch.cat([turned.imag, turned.real], -1).float()


@mutant(TIME, "dtype torch.float64")
def time_in_float64(t, width):
    sin, cos = waves(t.double(), width, width // 2)
    return torch.cat([sin, cos], 1).double()


@mutant(TIME, "The base is 10000")
def base_e(t, width):
    angles = t[:, None] * torch.exp(-torch.arange(width // 2) / (width // 2))
    return torch.cat([angles.sin(), angles.cos()], 1)


@mutant(TIME, "holds sines again")
def sines_twice(t, width):
    sin, _ = waves(t, width, width // 2)
    return torch.cat([sin, sin], 1)


@mutant(TIME, "twice too large")
def two_i_over_half(t, width):
    return torch.cat(waves(t, width, width / 4), 1)


@mutant(TIME, "concatenated along the batch")
def waves_below_each_other(t, width):
    return torch.cat(waves(t, width, width // 2))


@mutant(TIME, "make t a column")
def times_not_a_column(t, width):
    angles = t * 10_000.0 ** (-torch.arange(width // 2) / (width // 2))
    return torch.cat([angles.sin(), angles.cos()], 1)


@mutant(TIME, "fractions of the times were cut off")
def time_as_a_whole_number(t, width):
    return torch.cat(waves(t.long(), width, width // 2), 1)


@mutant(TIME, "The times were rounded")
def time_rounded(t, width):
    return torch.cat(waves(t.float().round(), width, width // 2), 1)


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


@mutant(NORM, "eps stands outside the square root. Add")
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
    return torch.cat(parts, dim=1).to(x.dtype)


@variant(NORM)
def norm_by_layer_norm(x, groups, eps=1e-5):
    rows = x.flatten(1).unflatten(1, (groups, -1))
    return F.layer_norm(rows, rows.shape[-1:], eps=eps).view_as(x)


@mutant(NORM, "dtype torch.float64")
def norm_in_float64(x, groups, eps=1e-5):
    return F.group_norm(x.double(), groups, eps=eps)


@mutant(NORM, "the gradient with respect to x")
def statistics_cut_off(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    variance, mean = torch.var_mean(rows.detach(), 2, keepdim=True, correction=0)
    return ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)


@mutant(NORM, "the parameter eps has no default")
def norm_without_default(x, groups, eps):
    return F.group_norm(x, groups, eps=eps)


@mutant(NORM, "and the variance is divided by n - 1")
def unbiased_and_eps_outside(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    return ((rows - rows.mean(2, keepdim=True)) / (rows.std(2, keepdim=True) + eps)).reshape(x.shape)


@mutant(NORM, "eps is missing")
def no_eps(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    return ((rows - rows.mean(2, keepdim=True)) / rows.std(2, keepdim=True, correction=0)).reshape(x.shape)


@mutant(NORM, "layer norm")
def all_channels_together(x, groups, eps=1e-5):
    return F.layer_norm(x, x.shape[1:], eps=eps)


@mutant(NORM, "over the whole batch. Each image has its own")
def groups_over_the_batch(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    variance, mean = torch.var_mean(rows, (0, 2), keepdim=True, correction=0)
    return ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)


@mutant(NORM, "Only the mean is subtracted")
def centred_only(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    return (rows - rows.mean(2, keepdim=True)).reshape(x.shape)


@mutant(NORM, "keeps the shape of the rows")
def left_in_rows(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    return (rows - rows.mean(2, keepdim=True)) / (rows.var(2, keepdim=True, correction=0) + eps).sqrt()


@mutant(NORM, "keepdim=True")
def axis_dropped(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    return ((rows - rows.mean(2)) / (rows.var(2, correction=0) + eps).sqrt()).reshape(x.shape)


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


@mutant(RESIDUAL, "after the sum")
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


def block_with(words, forward):
    """A wrong block, of (block, x, told, raw) to what it returns; told: the time after silu, raw: without."""

    class Block(ResidualBlock):
        def forward(self, x, embedding):
            told, raw = (self.time(e)[:, :, None, None] for e in (F.silu(embedding), embedding))
            return forward(self, x, told, raw)

    Block.__name__ = f"Block_{words.replace(' ', '_')}"
    mutant(RESIDUAL, words)(Block)


def first(b, x):
    return b.conv1(F.silu(b.norm1(x)))


def second(b, h):
    return b.conv2(F.silu(b.norm2(h)))


block_with("added after norm2", lambda b, x, t, _: b.shortcut(x) + b.conv2(F.silu(b.norm2(first(b, x)) + t)))
block_with("second silu is missing", lambda b, x, t, _: b.shortcut(x) + b.conv2(b.norm2(first(b, x) + t)))
block_with("first silu is missing", lambda b, x, t, _: b.shortcut(x) + second(b, b.conv1(b.norm1(x)) + t))
block_with("norm1 is not used", lambda b, x, t, _: b.shortcut(x) + second(b, b.conv1(F.silu(x)) + t))
block_with("norm2 is not used", lambda b, x, t, _: b.shortcut(x) + b.conv2(F.silu(first(b, x) + t)))
block_with("conv2 is not used", lambda b, x, t, _: b.shortcut(x) + F.silu(b.norm2(first(b, x) + t)))
block_with("The time is multiplied", lambda b, x, t, _: b.shortcut(x) + second(b, first(b, x) * t))
block_with("two paths are multiplied", lambda b, x, t, _: b.shortcut(x) * second(b, first(b, x) + t))
block_with("norm1 is used twice", lambda b, x, t, _: b.shortcut(x) + b.conv2(F.silu(b.norm1(first(b, x) + t))))
block_with("conv1 is used twice", lambda b, x, t, _: b.shortcut(x) + b.conv1(F.silu(b.norm2(first(b, x) + t))))
block_with("added to x, before conv1", lambda b, x, t, _: b.shortcut(x) + second(b, first(b, x + t)))
block_with("the gradient with respect to x", lambda b, x, t, _: b.shortcut(x.detach()) + second(b, first(b, x) + t))
block_with("to embedding", lambda b, x, t, _: b.shortcut(x) + second(b, first(b, x) + t.detach()))


@mutant(RESIDUAL, "expected an nn.Module")
class NoForward:
    def __init__(self, inside, outside, time_width, groups=8):
        self.norm1 = self.conv1 = self.time = self.norm2 = self.conv2 = self.shortcut = nn.Identity()


@mutant(RESIDUAL, "the block has no shortcut")
class BlockOfItsOwn(ResidualBlock):
    def __init__(self, inside, outside, time_width, groups=8):
        super().__init__(inside, outside, time_width, groups)
        del self.shortcut


@mutant(RESIDUAL, "evaluation mode")
class BlockThatSwitches(ResidualBlock):
    def forward(self, x, embedding):
        self.eval()
        return super().forward(x, embedding)


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


@mutant(U, ".pop(), not .pop(0)")
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


@mutant(U, "The input of `down` was kept")
def kept_too_early(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        kept.append(x)
        x = smaller(block(x))
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept.pop()], 1))
    return x


@mutant(U, "has already been shrunk")
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


@mutant(U, "called at each level")
def middle_at_each_level(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(middle(x)), kept.pop()], 1))
    return x


@mutant(U, "zeros were concatenated")
def zeros_joined(x, down, shrink, middle, grow, up):
    for block, smaller in zip(down, shrink, strict=True):
        x = smaller(block(x))
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = larger(x)
        x = block(torch.cat([x, torch.zeros_like(x)], 1))
    return x


@mutant(U, "concatenated with itself")
def joined_with_itself(x, down, shrink, middle, grow, up):
    for block, smaller in zip(down, shrink, strict=True):
        x = smaller(block(x))
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(larger(x).repeat(1, 2, 1, 1))
    return x


@mutant(U, "run backwards")
def up_reversed(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(reversed(grow), reversed(up), strict=True):
        x = block(torch.cat([larger(x), kept.pop()], 1))
    return x


@mutant(U, "What comes from below was not enlarged")
def not_grown(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = larger(block(torch.cat([x, kept.pop()], 1)))
    return x


@mutant(U, "dim=1), not added and not along the batch")
def joined_side_by_side(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept.pop()], 3))
    return x


@mutant(U, "the input down was changed in place")
def lists_emptied(x, down, shrink, middle, grow, up):
    kept = []
    while down:
        x = down.pop(0)(x)
        kept.append(x)
        x = shrink.pop(0)(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept.pop()], 1))
    return x


@mutant(U, "the gradient with respect to x")
def skips_detached(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x.detach())
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept.pop()], 1))
    return x


@mutant(U, "list index out of range", state="error")
def two_levels_hard_coded(x, down, shrink, middle, grow, up):
    a = down[0](x)
    b = down[1](shrink[0](a))
    x = middle(shrink[1](b))
    x = up[0](torch.cat([grow[0](x), b], 1))
    return up[1](torch.cat([grow[1](x), a], 1))


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


@mutant(SIZE, "padding='same'")
def size_of_same_padding(size, kernel, stride=1, padding=0, dilation=1):
    return math.ceil(size / stride)


@mutant(ATTENTION, "A causal mask")
def causal_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@mutant(HEADS, "There are `heads` pieces")
def pieces_as_long_as_heads(x, heads):
    return torch.stack(x.split(heads, dim=-1), dim=1)


@mutant(TIME, "there is no 2 pi")
def whole_turns(t, width):
    angles = 2 * math.pi * t[:, None] * 10_000.0 ** (-torch.arange(width // 2) / (width // 2))
    return torch.cat([angles.sin(), angles.cos()], 1)


@mutant(NORM, "not the number of channels in each")
def channels_in_each_group(x, groups, eps=1e-5):
    return F.group_norm(x, x.shape[1] // groups, eps=eps)


@mutant(NORM, "The statistics go over the groups. Each")
def over_the_groups(x, groups, eps=1e-5):
    rows = grouped(x, groups)
    variance, mean = torch.var_mean(rows, 1, keepdim=True, correction=0)
    return ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)


@mutant(RESIDUAL, "relu where silu belongs")
class ReluThroughout(ResidualBlock):
    def forward(self, x, embedding):
        h = self.conv1(F.relu(self.norm1(x))) + self.time(F.relu(embedding))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.relu(self.norm2(h)))


block_with("time of the first", lambda b, x, t, _: b.shortcut(x) + second(b, first(b, x) + t[:1]))
block_with("conv1 comes last, not first", lambda b, x, t, _: b.shortcut(x) + second(b, F.silu(b.norm1(b.conv1(x))) + t))


@mutant(U, "but not passed on")
def down_beside_the_way(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        kept.append(block(x))
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept.pop()], 1))
    return x


@mutant(U, "Concatenated before `grow`")
def joined_before_grown(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = smaller(block(x))
        kept.append(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = larger(block(torch.cat([x, kept.pop()], 1)))
    return x


@mutant(U, "same kept tensor was used twice")
def never_taken_out(x, down, shrink, middle, grow, up):
    kept = []
    for block, smaller in zip(down, shrink, strict=True):
        x = block(x)
        kept.append(x)
        x = smaller(x)
    x = middle(x)
    for larger, block in zip(grow, up, strict=True):
        x = block(torch.cat([larger(x), kept[-1]], 1))
    return x
