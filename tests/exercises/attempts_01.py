"""Attempts at the exercises of chapter 01."""

import math

import torch
from attempts import mutant, variant
from torch import nn
from torch.nn.functional import conv2d, cross_entropy, pad

from course_utils.models.pixelcnn import causal_mask, pixel_probabilities

BITS, MASK, CONV = "01.bits_per_dim", "01.causal_mask", "01.masked_conv"
STACKS = "01.two_stacks"
FIELD, HEAT, FILL = "01.receptive_field", "01.pixel_probabilities", "01.fill_in"


@mutant(BITS, "This is in nats")
def nats_for_bits(logits, x):
    return cross_entropy(logits, x, reduction="none").flatten(1).mean(1)


@mutant(BITS, "This is the sum")
def summed_over_pixels(logits, x):
    return cross_entropy(logits, x, reduction="none").flatten(1).sum(1) / math.log(2)


@mutant(BITS, "one number for the whole batch")
def mean_over_the_batch(logits, x):
    return cross_entropy(logits, x) / math.log(2)


@mutant(BITS, "runs over the wrong axis")
def softmax_over_columns(logits, x):
    return -logits.log_softmax(-1).gather(1, x[:, None]).flatten(1).mean(1) / math.log(2)


@mutant(BITS, "The sign is wrong")
def no_minus(logits, x):
    return logits.log_softmax(1).gather(1, x[:, None]).flatten(1).mean(1) / math.log(2)


@mutant(BITS, "averages the probabilities first")
def logarithm_of_the_mean(logits, x):
    return -logits.softmax(1).gather(1, x[:, None]).flatten(1).mean(1).log2()


@mutant(BITS, "one side of the picture only")
def divided_by_the_rows(logits, x):
    return cross_entropy(logits, x, reduction="none").flatten(1).sum(1) / len(x[0]) / math.log(2)


@mutant(BITS, "Logits are not log-probabilities")
def no_softmax(logits, x):
    return -logits.gather(1, x[:, None]).flatten(1).mean(1) / math.log(2)


@mutant(BITS, "not by multiplying")
def nats_times_ln_2(logits, x):
    return cross_entropy(logits, x, reduction="none").flatten(1).mean(1) * math.log(2)


@mutant(BITS, "the whole picture, in nats")
def nats_of_the_picture(logits, x):
    return cross_entropy(logits, x, reduction="none").sum((1, 2))


@mutant(BITS, "divides by the number of symbols")
def divided_by_the_symbols(logits, x):
    return cross_entropy(logits, x, reduction="none").flatten(1).sum(1) / logits.shape[1] / math.log(2)


@mutant(BITS, "Bits have the base 2")
def base_ten(logits, x):
    return -logits.softmax(1).gather(1, x[:, None]).log10().flatten(1).mean(1)


@mutant(BITS, "divides by 64")
def divided_by_64(logits, x):
    return cross_entropy(logits, x, reduction="none").flatten(1).sum(1) / (64 * math.log(2))


@mutant(BITS, "Only one axis was averaged")
def averaged_over_rows(logits, x):
    return cross_entropy(logits, x, reduction="none").mean(1) / math.log(2)


@mutant(BITS, "The sigmoid makes a probability")
def sigmoid_for_softmax(logits, x):
    return -logits.sigmoid().gather(1, x[:, None]).log2().flatten(1).mean(1)


@mutant(BITS, "Pick the one that x really has there")
def bits_of_the_likeliest(logits, x):
    return -logits.log_softmax(1).max(1).values.flatten(1).mean(1) / math.log(2)


@mutant(BITS, "lost its axis")
def squeezed(logits, x):
    return cross_entropy(logits, x, reduction="none").flatten(1).mean(1).squeeze() / math.log(2)


@mutant(BITS, "has no way back")
def bits_without_gradient(logits, x):
    with torch.no_grad():
        return cross_entropy(logits, x, reduction="none").flatten(1).mean(1) / math.log(2)


@mutant(BITS, "has no way back to what it was made from")
def bits_from_numbers(logits, x):
    each = cross_entropy(logits, x, reduction="none").flatten(1).mean(1)
    return torch.tensor([nats / math.log(2) for nats in each.tolist()])


@mutant(BITS, "torch.float64, expected torch.float32")
def bits_in_float64(logits, x):
    return cross_entropy(logits.double(), x, reduction="none").flatten(1).mean(1) / math.log(2)


@mutant(BITS, "the parameter x is called target here")
def renamed(logits, target):
    return cross_entropy(logits, target, reduction="none").flatten(1).mean(1) / math.log(2)


@mutant(BITS, "goes from the logits to the logarithm at once")
def bits_by_the_probability(logits, x):
    return -logits.softmax(1).gather(1, x[:, None]).log2().flatten(1).mean(1)


@mutant(BITS, "cuts off what an unlikely")
def bits_with_a_clamp(logits, x):
    return -logits.softmax(1).gather(1, x[:, None]).clamp(min=1e-8).log2().flatten(1).mean(1)


@variant(BITS)
def bits_by_one_hot(logits, x):
    chosen = torch.nn.functional.one_hot(x, logits.shape[1]).to(logits)
    each = logits.logsumexp(1) - torch.einsum("nkhw,nhwk->nhw", logits, chosen)
    return each.mean((-1, -2)) / math.log(2)


@variant(BITS)
def bits_by_categorical(logits, x):
    p = torch.distributions.Categorical(logits=logits.movedim(1, -1).double())
    return (-p.log_prob(x).mean((1, 2)) / math.log(2)).float()


@variant(BITS)
def bits_in_a_loop(logits, x):
    bits = []
    for one, picture in zip(logits, x, strict=True):
        p = one.double().softmax(0)
        rows, columns = torch.meshgrid(*(torch.arange(n) for n in picture.shape), indexing="ij")
        bits.append(-p[picture, rows, columns].log2().sum() / picture.numel())
    return torch.stack(bits).float()


@mutant(MASK, "A and B are swapped")
def a_for_b(size, kind):
    return causal_mask(size, {"A": "B", "B": "A"}[kind])


@mutant(MASK, "runs down the columns")
def down_the_columns(size, kind):
    return causal_mask(size, kind).T


@mutant(MASK, "which comes later")
def right_for_left(size, kind):
    middle = size // 2
    mask = causal_mask(size, kind).clone()
    mask[middle, :middle], mask[middle, middle + 1 :] = 0, 1
    return mask


@mutant(MASK, "In its own row")
def rows_above_alone(size, kind):
    mask = torch.zeros(size, size)
    mask[: size // 2] = 1
    mask[size // 2, size // 2] = kind == "B"
    return mask


@mutant(MASK, "nothing to the right")
def a_quarter(size, kind):
    middle = size // 2
    mask = torch.zeros(size, size)
    mask[: middle + 1, : middle + 1] = 1
    mask[middle, middle] = kind == "B"
    return mask


@mutant(MASK, "cuts along the diagonal")
def triangle(size, kind):
    return torch.ones(size, size).tril(0 if kind == "B" else -1)


@mutant(MASK, "1 and 0 are exchanged")
def hidden_is_one(size, kind):
    return 1 - causal_mask(size, kind)


def mask_of(size, own, seen, middle=None):
    middle = size // 2 if middle is None else middle
    return torch.tensor([[float(own if (r, c) == (middle, middle) else seen(r, c, middle)) for c in range(size)]
                         for r in range(size)])  # fmt: skip


@mutant(MASK, "This sees the whole middle row")
def whole_middle_row(size, kind):
    return mask_of(size, kind == "B", lambda r, c, m: r <= m)


@mutant(MASK, "Wanted is what comes before")
def what_comes_later(size, kind):
    return mask_of(size, kind == "B", lambda r, c, m: r > m or (r == m and c > m))


@mutant(MASK, "here it is always seen")
def middle_always_seen(size, kind):
    return causal_mask(size, "B")


@mutant(MASK, "here it is always hidden")
def middle_always_hidden(size, kind):
    return causal_mask(size, "A")


@mutant(MASK, "The rows above are missing")
def left_alone(size, kind):
    return mask_of(size, kind == "B", lambda r, c, m: r == m and c < m)


@mutant(MASK, "Only what is above and to the left")
def above_and_left(size, kind):
    return mask_of(size, kind == "B", lambda r, c, m: r < m and c < m)


@mutant(MASK, "another index for each size")
def middle_of_size_three(size, kind):
    return mask_of(size, kind == "B", lambda r, c, m: r < m or (r == m and c < m), 1)


@mutant(MASK, "one too far")
def middle_too_far(size, kind):
    return mask_of(size, kind == "B", lambda r, c, m: r < m or (r == m and c < m), size // 2 + 1)


@mutant(MASK, "one too early")
def middle_too_early(size, kind):
    return mask_of(size, kind == "B", lambda r, c, m: r < m or (r == m and c < m), size // 2 - 1)


@mutant(MASK, "torch.bool, expected torch.float32")
def truth_values(size, kind):
    return causal_mask(size, kind) == 1


@mutant(MASK, "torch.int64, expected torch.float32")
def whole_numbers(size, kind):
    return causal_mask(size, kind).long()


@mutant(MASK, "torch.float64, expected torch.float32")
def mask_in_float64(size, kind):
    return causal_mask(size, kind).double()


@variant(MASK)
def mask_by_slices(size, kind):
    middle = size // 2
    mask = torch.zeros(size, size)
    mask[:middle] = 1
    mask[middle, :middle] = 1
    if kind == "B":
        mask[middle, middle] = 1
    return mask


@variant(MASK)
def mask_by_comparing_pairs(size, kind):
    middle = size // 2
    rows = [[(r, c) < (middle, middle + (kind == "B")) for c in range(size)] for r in range(size)]
    return torch.tensor(rows).float()


@variant(MASK)
def mask_by_counting(size, kind):
    seen = size * (size // 2) + size // 2 + int(kind == "B")
    return torch.cat([torch.ones(seen), torch.zeros(size**2 - seen)]).view(size, size)


class Layer(nn.Conv2d):
    def __init__(self, in_channels, out_channels, size, kind):
        super().__init__(in_channels, out_channels, size, padding=size // 2)
        self.register_buffer("mask", causal_mask(size, kind))


@mutant(CONV, "Applied once, at construction")
class MaskedAtConstruction(nn.Conv2d):
    def __init__(self, in_channels, out_channels, size, kind):
        super().__init__(in_channels, out_channels, size, padding=size // 2)
        self.weight.data *= causal_mask(size, kind)


@mutant(CONV, "the mask is not used")
class NeverMasked(Layer):
    pass


@mutant(CONV, "the mask of the other kind")
class SwappedKinds(Layer):
    def __init__(self, in_channels, out_channels, size, kind):
        super().__init__(in_channels, out_channels, size, "A" if kind == "B" else "B")

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask, self.bias)


@mutant(CONV, "Rows and columns of the mask")
class Transposed(Layer):
    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask.T, self.bias)


@mutant(CONV, "The padding is missing")
class NoPadding(Layer):
    def forward(self, x):
        return conv2d(x, self.weight * self.mask, self.bias)


@mutant(CONV, "The bias is missing")
class NoBias(Layer):
    def forward(self, x):
        return conv2d(x, self.weight * self.mask, padding=self.padding)


@mutant(CONV, "The mask must not be trained")
class TrainedMask(Layer):
    def __init__(self, in_channels, out_channels, size, kind):
        super().__init__(in_channels, out_channels, size, kind)
        mask = self.mask
        del self.mask
        self.mask = nn.Parameter(mask)

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask, self.bias)


@mutant(CONV, "belongs to self.weight")
class MasksThePicture(Layer):
    def forward(self, x):
        return super().forward(x * self.mask)


@variant(CONV)
class WithConv2d(Layer):
    def forward(self, x):
        return conv2d(x, self.weight.masked_fill(self.mask == 0, 0), self.bias, self.stride, self.padding)


@mutant(CONV, "The padding is 1")
class PaddingOfOne(Layer):
    def forward(self, x):
        return conv2d(x, self.weight * self.mask, self.bias, padding=1)


@mutant(CONV, "Seen and hidden are exchanged")
class HiddenWeights(Layer):
    def forward(self, x):
        return self._conv_forward(x, self.weight * (1 - self.mask), self.bias)


@mutant(CONV, 'register_buffer("mask"')
class BufferOfAnotherName(nn.Conv2d):
    def __init__(self, in_channels, out_channels, size, kind):
        super().__init__(in_channels, out_channels, size, padding=size // 2)
        self.register_buffer("M", causal_mask(size, kind))

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.M, self.bias)


@mutant(CONV, "A plain attribute stays behind")
class PlainAttribute(nn.Conv2d):
    def __init__(self, in_channels, out_channels, size, kind):
        super().__init__(in_channels, out_channels, size, padding=size // 2)
        self.mask = causal_mask(size, kind)

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask, self.bias)


@mutant(CONV, "forward does not use self.mask")
class MaskMadeAtEachCall(Layer):
    def __init__(self, in_channels, out_channels, size, kind):
        super().__init__(in_channels, out_channels, size, kind)
        self.kind = kind

    def forward(self, x):
        mask = causal_mask(len(self.mask), self.kind).to(self.weight)
        return self._conv_forward(x, self.weight * mask, self.bias)


@mutant(CONV, "must have one dtype")
class MaskInFloat32(Layer):
    def forward(self, x):
        return conv2d(x, self.weight.float() * self.mask.float(), self.bias, padding=self.padding)


@mutant(CONV, "Keep the class line")
class NoConvolution(nn.Module):
    def __init__(self, in_channels, out_channels, size, kind):
        super().__init__()
        self.layer = Layer(in_channels, out_channels, size, kind)

    def forward(self, x):
        return self.layer(x)


@mutant(CONV, "the values of weight in the network changed")
class MaskedInPlaceAtEachCall(Layer):
    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)


@mutant(CONV, "no gradient comes back to self.weight")
class WeightCutOff(Layer):
    def forward(self, x):
        return self._conv_forward(x, self.weight.data * self.mask, self.bias)


@mutant(CONV, "no gradient comes back to self.bias")
class BiasCutOff(Layer):
    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask, self.bias.detach())


@variant(CONV)
class BiasAddedAfterwards(Layer):
    def forward(self, x):
        seen = torch.where(self.mask > 0, self.weight, torch.zeros_like(self.weight))
        return conv2d(x, seen, padding=len(self.mask) // 2) + self.bias[:, None, None]


@variant(CONV)
class ByUnfolding(Layer):
    def forward(self, x):
        size = len(self.mask)
        pieces = nn.functional.unfold(x, size, padding=size // 2)  # (batch, in size size, h w)
        y = (self.weight * self.mask).flatten(1) @ pieces + self.bias[:, None]
        return y.unflatten(2, x.shape[2:])


def gradient(network, x, choose):
    z = x.clone().requires_grad_(True)
    return torch.autograd.grad(choose(network(z)).sum(), z)[0][0]


@mutant(FIELD, "cancel when they are added")
def channels_cancel(network, x, row, column):
    return gradient(network, x, lambda y: y[0, :, row, column]).sum(0) != 0


@mutant(FIELD, "Row and column are swapped")
def row_for_column(network, x, row, column):
    return (gradient(network, x, lambda y: y[0, :, column, row]) != 0).any(0)


@mutant(FIELD, "gradient of the whole output")
def of_the_whole_output(network, x, row, column):
    return (gradient(network, x, lambda y: y) != 0).any(0)


@mutant(FIELD, "the other way round")
def which_outputs_it_reaches(network, x, row, column):
    moved = x.clone()
    moved[0, :, row, column] += torch.arange(1.0, x.shape[1] + 1)
    return (network(moved) != network(x))[0].any(0)


@mutant(FIELD, "One truth value a pixel")
def all_the_axes(network, x, row, column):
    return gradient(network, x, lambda y: y[0, :, row, column]) != 0


@mutant(FIELD, "Compare with zero")
def the_gradient_itself(network, x, row, column):
    return gradient(network, x, lambda y: y[0, :, row, column]).abs().sum(0)


@mutant(FIELD, "Only positive gradients count")
def positive_gradients(network, x, row, column):
    return (gradient(network, x, lambda y: y[0, :, row, column]) > 0).any(0)


@mutant(FIELD, "where the output does *not* depend")
def not_seen(network, x, row, column):
    return (gradient(network, x, lambda y: y[0, :, row, column]) == 0).all(0)


@mutant(FIELD, "One channel is enough")
def seen_in_all_channels(network, x, row, column):
    return (gradient(network, x, lambda y: y[0, :, row, column]) != 0).all(0)


@mutant(FIELD, "Only the first input channel")
def first_input_channel(network, x, row, column):
    return gradient(network, x, lambda y: y[0, :, row, column])[0] != 0


@mutant(FIELD, "Only the first output channel")
def first_output_channel(network, x, row, column):
    return (gradient(network, x, lambda y: y[0, 0, row, column]) != 0).any(0)


@mutant(FIELD, "not with a threshold")
def above_a_threshold(network, x, row, column):
    return (gradient(network, x, lambda y: y[0, :, row, column]).abs() > 1e-6).any(0)


@mutant(FIELD, "leaves the network as it was")
def field_with_backward(network, x, row, column):
    x = x.clone().requires_grad_()
    network(x)[:, :, row, column].sum().backward()
    return x.grad.abs().sum((0, 1)) > 0


@mutant(FIELD, "the input x was left with requires_grad=True")
def marks_the_callers_picture(network, x, row, column):
    (found,) = torch.autograd.grad(network(x.requires_grad_())[0, :, row, column].sum(), x)
    return (found[0] != 0).any(0)


@mutant(FIELD, "set to be frozen")
def freezes_the_network(network, x, row, column):
    if isinstance(network, nn.Module):
        network.requires_grad_(False)
    return (gradient(network, x, lambda y: y[0, :, row, column]) != 0).any(0)


@mutant(FIELD, "Return the tensor of truth values itself")
def field_as_a_list(network, x, row, column):
    return (gradient(network, x, lambda y: y[0, :, row, column]) != 0).any(0).tolist()


@variant(FIELD)
def field_by_functional_gradient(network, x, row, column):
    found = torch.func.grad(lambda z: network(z)[0, :, row, column].sum())(x)
    return found[0].count_nonzero(0) > 0


@variant(FIELD)
def field_by_the_jacobian(network, x, row, column):
    found = torch.func.jacrev(lambda z: network(z)[0, :, row, column])(x)  # (outputs, 1, channels, height, width)
    return (found != 0).flatten(0, 2).any(0)


@variant(FIELD)
def field_by_trying(network, x, row, column):
    seen = torch.zeros(x.shape[2:], dtype=torch.bool)
    before = network(x)[0, :, row, column]
    for r in range(x.shape[2]):
        for c in range(x.shape[3]):
            moved = x.clone()
            moved[0, :, r, c] -= torch.arange(1.0, x.shape[1] + 1)
            seen[r, c] = bool((network(moved)[0, :, row, column] != before).any())
    return seen


@mutant(HEAT, "The temperature multiplies here")
def hot_is_cold(logits, temperature=1.0):
    return (logits * temperature).softmax(1)


@mutant(HEAT, "it cancels out")
def probabilities_divided_and_normalised(logits, temperature=1.0):
    p = logits.softmax(1) / temperature
    return p / p.sum(1, keepdim=True)


@mutant(HEAT, "divides the probabilities")
def probabilities_divided(logits, temperature=1.0):
    return logits.softmax(1) / temperature


@mutant(HEAT, "wrong axis")
def softmax_over_the_width(logits, temperature=1.0):
    return (logits / temperature).softmax(-1)


@mutant(HEAT, "These are the logarithms")
def logs(logits, temperature=1.0):
    return (logits / temperature).log_softmax(1)


@mutant(HEAT, "The sigmoid looks at each logit by itself")
def each_by_itself(logits, temperature=1.0):
    return (logits / temperature).sigmoid()


@mutant(HEAT, "The softmax takes exp first")
def divided_by_the_sum(logits, temperature=1.0):
    p = logits / temperature
    return p / p.sum(1, keepdim=True)


@mutant(HEAT, "The temperature is squared")
def temperature_squared(logits, temperature=1.0):
    return (logits / temperature**2).softmax(1)


@mutant(HEAT, "These are still logits")
def no_softmax_at_all(logits, temperature=1.0):
    return logits / temperature


@mutant(HEAT, "The division by the sum is missing")
def powers_of_e(logits, temperature=1.0):
    return (logits / temperature).exp()


@mutant(HEAT, "The powers of the probabilities")
def powers_not_normalised(logits, temperature=1.0):
    return logits.softmax(1) ** (1 / temperature)


@mutant(HEAT, "expected temperature=1.0")
def without_default(logits, temperature=0.7):
    return (logits / temperature).softmax(1)


@mutant(HEAT, "torch.float64, expected torch.float32")
def heat_in_float64(logits, temperature=1.0):
    return (logits.double() / temperature).softmax(1)


@mutant(HEAT, "the input logits was changed in place")
def divides_in_place(logits, temperature=1.0):
    return logits.div_(temperature).softmax(1)


@mutant(HEAT, "Dimension out of range", state="error")
def counts_axes_from_the_end(logits, temperature=1.0):
    return (logits / temperature).softmax(-3)


@mutant(HEAT, "too large for a float")
def overflows(logits, temperature=1.0):
    p = (logits / temperature).exp()
    return p / p.sum(1, keepdim=True)


@variant(HEAT)
def powers_of_probabilities(logits, temperature=1.0):
    p = logits.double().softmax(1) ** (1 / temperature)
    return (p / p.sum(1, keepdim=True)).float()


@variant(HEAT)
def largest_first(logits, temperature=1.0):
    p = ((logits - logits.amax(1, keepdim=True)) / temperature).exp()
    return p / p.sum(1, keepdim=True)


def loop(
    model,
    x,
    keep,
    generator,
    temperature=1.0,
    start=0,
    end=0,
    by_columns=False,
    choose=None,
    heat=True,
    shift=0,
    width=None,
):
    x = x.clone()
    height, width = x.shape[1], width or x.shape[2]
    first = model(x) if choose == "one pass" else None
    for i in range(keep + start, height * width + end):
        row, column = divmod(i, height)[::-1] if by_columns else divmod(i, width)
        at = (row, column) if by_columns else divmod(max(i - shift, 0), width)
        logits = (first if choose == "one pass" else model(x))[:, :, at[0], at[1]]
        p = pixel_probabilities(logits, temperature if heat else 1.0)
        if choose == "argmax":
            x[:, row, column] = p.argmax(1)
        elif choose == "one number":
            u = torch.rand(1, generator=generator)
            x[:, row, column] = (p.cumsum(1) < u).sum(1).clamp(max=p.shape[1] - 1)
        elif choose == "one for all":
            x[:, row, column] = torch.multinomial(p[:1], 1, generator=generator)[0]
        else:
            x[:, row, column] = torch.multinomial(p, 1, generator=generator)[:, 0]
    return x


@mutant(FILL, "All pictures are the same")
def argmax_for_a_draw(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature, choose="argmax")


@mutant(FILL, "one single pass")
def one_pass_for_all(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature, choose="one pass")


@mutant(FILL, "This is one late")
def starts_too_late(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature, start=1)


@mutant(FILL, "goes down the columns")
def column_after_column(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature, by_columns=True)


@mutant(FILL, "read at the pixel before")
def logits_of_the_pixel_before(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature, shift=1)


@mutant(FILL, "keep is not used")
def keeps_nothing(model, x, keep, generator, temperature=1.0):
    return loop(model, x, 0, generator, temperature)


@mutant(FILL, "The temperature is not used")
def always_lukewarm(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature, heat=False)


@mutant(FILL, "The temperature multiplies here")
def temperature_turned_round(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, 1 / temperature)


@mutant(FILL, "draws the last of the pixels that should be kept")
def starts_too_early(model, x, keep, generator, temperature=1.0):
    return loop(model, x, max(keep - 1, 0), generator, temperature)


@mutant(FILL, "The last pixel was not drawn")
def stops_too_early(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature, end=-1)


@mutant(FILL, "keep counts pixels, not rows")
def keeps_rows(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep * x.shape[2], generator, temperature)


@mutant(FILL, "The pixels that should be kept are 0")
def starts_from_zeros(model, x, keep, generator, temperature=1.0):
    return loop(model, torch.zeros_like(x), keep, generator, temperature)


@mutant(FILL, "Only the first picture was drawn")
def first_picture_only(model, x, keep, generator, temperature=1.0):
    return torch.cat([loop(model, x, keep, generator, temperature)[:1], x[1:]])


@mutant(FILL, "Nothing was drawn")
def forgets_to_write(model, x, keep, generator, temperature=1.0):
    loop(model, x, keep, generator, temperature)
    return x


@mutant(FILL, "One draw serves the whole batch")
def one_number_for_all(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature, choose="one number")


@mutant(FILL, "The generator is put back")
def seeded_at_each_call(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator.manual_seed(generator.initial_seed()), temperature)


@mutant(FILL, "was seeded again inside")
def seeded_with_zero(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator.manual_seed(0), temperature)


@mutant(FILL, "no number was drawn from the generator")
def generator_of_its_own(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, torch.Generator().manual_seed(len(x)), temperature)


@mutant(FILL, "expected once for each pixel")
def asks_twice(model, x, keep, generator, temperature=1.0):
    model(x)
    return loop(model, x, keep, generator, temperature)


@mutant(FILL, "was left in evaluation mode")
def evaluated(model, x, keep, generator, temperature=1.0):
    return loop(model.eval(), x, keep, generator, temperature)


@mutant(FILL, "torch.multinomial refused")
def all_pixels_at_once(model, x, keep, generator, temperature=1.0):
    return torch.multinomial(pixel_probabilities(model(x), temperature), 1, generator=generator)


@mutant(FILL, "end with .long()")
def pictures_of_floats(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature).float()


@mutant(FILL, "the default 0.5, expected temperature=1.0")
def another_default(model, x, keep, generator, temperature=0.5):
    return loop(model, x, keep, generator, temperature)


@mutant(FILL, "at its own place, given the ones drawn before")
def probabilities_squared(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature / 3)


@mutant(FILL, "height and width may differ", state="error")
def eight_by_eight(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature, width=8)


@mutant(FILL, "one axis more than the place", state="error")
def column_of_draws(model, x, keep, generator, temperature=1.0):
    x = x.clone()
    p = pixel_probabilities(model(x)[:, :, 0, 0], temperature)
    x[:, 0, 0] = torch.multinomial(p, 1, generator=generator)
    return x


@mutant(FILL, "was written into all")
def the_same_for_all(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, generator, temperature, choose="one for all")


@mutant(FILL, "global generator")
def global_randomness(model, x, keep, generator, temperature=1.0):
    return loop(model, x, keep, None, temperature)


@mutant(FILL, "x was changed in place")
def writes_into_x(model, x, keep, generator, temperature=1.0):
    x[:] = loop(model, x, keep, generator, temperature)
    return x


@variant(FILL)
def two_loops(model, x, keep, generator, temperature=1.0):
    out, i = x.clone(), 0
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            if i >= keep:
                p = (model(out)[..., row, column] / temperature).softmax(-1)
                out[:, row, column] = torch.multinomial(p, 1, generator=generator).squeeze(1)
            i += 1
    return out


@variant(FILL)
def by_the_inverse_of_the_cumulative(model, x, keep, generator, temperature=1.0):
    flat, width = x.clone().flatten(1), x.shape[2]
    for i in range(keep, flat.shape[1]):
        p = pixel_probabilities(model(flat.reshape(x.shape)), temperature)[:, :, i // width, i % width]
        u = torch.rand(len(x), 1, generator=generator)
        flat[:, i] = (p.cumsum(1) < u).sum(1).clamp(max=p.shape[1] - 1)
    return flat.reshape(x.shape)


def wrong_stacks(words, layer):
    mutant(STACKS, words)(lambda v, h, above, left: layer(v, h, above, left))


def down_columns(v, above):
    return above(pad(v, (1, 1, 1, 0)))


def along(h, left):
    return left(pad(h, (1, 0, 0, 0)))


@mutant(STACKS, "The stack of the rows above looks down")
def sees_the_row_below(v, h, above, left):
    v = above(pad(v, (1, 1, 0, 1)))
    return v, along(h, left) + v


@mutant(STACKS, "The second stack looks right")
def sees_to_the_right(v, h, above, left):
    v = down_columns(v, above)
    return v, left(pad(h, (0, 1, 0, 0))) + v


@mutant(STACKS, "does not get what the first one found")
def nothing_from_above(v, h, above, left):
    return down_columns(v, above), along(h, left)


@mutant(STACKS, "h gets the v that came in")
def the_old_v(v, h, above, left):
    if v.shape[1] != above.out_channels:
        return down_columns(v, above), along(h, left)
    return down_columns(v, above), along(h, left) + v


@mutant(STACKS, "h flows into v")
def both_ways(v, h, above, left):
    new = along(h, left) + down_columns(v, above)
    return new, new


@mutant(STACKS, "Return v first")
def other_way_round(v, h, above, left):
    v = down_columns(v, above)
    return along(h, left) + v, v


@mutant(STACKS, "Return both stacks")
def h_alone(v, h, above, left):
    return along(h, left) + down_columns(v, above)


@mutant(STACKS, "too far to the left")
def columns_to_one_side(v, h, above, left):
    v = above(pad(v, (2, 0, 1, 0)))
    return v, along(h, left) + v


@mutant(STACKS, "too far to the right")
def columns_to_the_other_side(v, h, above, left):
    v = above(pad(v, (0, 2, 1, 0)))
    return v, along(h, left) + v


@mutant(STACKS, "the sizes do not fit")
def without_padding(v, h, above, left):
    v = above(v)
    return v, left(h) + v


@mutant(STACKS, "`above` was given h")
def above_reads_h(v, h, above, left):
    v = down_columns(h, above)
    return v, along(h, left) + v


@mutant(STACKS, "`left` was given v")
def left_reads_v(v, h, above, left):
    new = down_columns(v, above)
    return new, along(v, left) + new


@mutant(STACKS, "added before `left`")
def added_first(v, h, above, left):
    v = down_columns(v, above)
    if v.shape != h.shape:
        return v, along(h, left)
    return v, along(h + v, left)


wrong_stacks("v is subtracted", lambda v, h, a, b: (down_columns(v, a), along(h, b) - down_columns(v, a)))
wrong_stacks("The two are multiplied", lambda v, h, a, b: (down_columns(v, a), along(h, b) * down_columns(v, a)))


@mutant(STACKS, "h itself was added as well")
def skip_of_h(v, h, above, left):
    v = down_columns(v, above)
    h_new = along(h, left) + v
    return v, h + h_new if h.shape == h_new.shape else h_new


@mutant(STACKS, "v itself was added as well")
def skip_of_v(v, h, above, left):
    new = down_columns(v, above)
    new = v + new if v.shape == new.shape else new
    return new, along(h, left) + new


@variant(STACKS)
def stacks_by_zeros(v, h, above, left):
    batch, channels, height, width = v.shape
    wide = v.new_zeros(batch, channels, height + 1, width + 2)
    wide[:, :, 1:, 1:-1] = v
    v = above(wide)
    long = torch.cat([h.new_zeros(batch, channels, height, 1), h], 3)
    return v, v + left(long)


@mutant(STACKS, "the dtype and the device of v")
def zeros_of_one_dtype(v, h, above, left):
    batch, channels, height, width = v.shape
    wide = torch.zeros(batch, channels, height + 1, width + 2)
    wide[:, :, 1:, 1:-1] = v
    v = above(wide)
    return v, v + left(torch.cat([torch.zeros(batch, channels, height, 1), h], 3))


@variant(STACKS)
def stacks_with_longer_padding(v, h, above, left):
    v = above(torch.nn.ZeroPad2d((1, 1, 1, 0))(v))
    h = left(torch.nn.functional.pad(h, (1, 0)))
    return [v, h + v][0], h + v
