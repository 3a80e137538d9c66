"""Attempts at the exercises of chapter 01."""

import math

import torch
from attempts import mutant, variant
from torch import nn
from torch.nn.functional import conv2d, cross_entropy

from course_utils.models.pixelcnn import causal_mask, pixel_probabilities

BITS, MASK, CONV = "01.bits_per_dim", "01.causal_mask", "01.masked_conv"
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


@mutant(BITS, "divides by the height alone")
def divided_by_the_rows(logits, x):
    return cross_entropy(logits, x, reduction="none").flatten(1).sum(1) / len(x[0]) / math.log(2)


@mutant(BITS, "Logits are not log-probabilities")
def no_softmax(logits, x):
    return -logits.gather(1, x[:, None]).flatten(1).mean(1) / math.log(2)


@variant(BITS)
def bits_by_categorical(logits, x):
    p = torch.distributions.Categorical(logits=logits.movedim(1, -1).double())
    return -p.log_prob(x).mean((1, 2)) / math.log(2)


@variant(BITS)
def bits_in_a_loop(logits, x):
    bits = []
    for one, picture in zip(logits, x, strict=True):
        p = one.softmax(0)
        rows, columns = torch.meshgrid(*(torch.arange(n) for n in picture.shape), indexing="ij")
        bits.append(-p[picture, rows, columns].log2().sum() / picture.numel())
    return torch.stack(bits)


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


@mutant(MASK, "upside down")
def hidden_is_one(size, kind):
    return 1 - causal_mask(size, kind)


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
def mask_in_float64(size, kind):
    middle = size // 2
    rows = [[float((r, c) < (middle, middle + (kind == "B"))) for c in range(size)] for r in range(size)]
    return torch.tensor(rows, dtype=torch.float64)


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


@mutant(CONV, "A and B are swapped")
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


@variant(CONV)
class MaskedInPlaceAtEachCall(Layer):
    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)


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
    moved[0, :, row, column] += torch.tensor([1.0, 2.0])
    return (network(moved) != network(x))[0].any(0)


@mutant(FIELD, "One truth value a pixel")
def all_the_axes(network, x, row, column):
    return gradient(network, x, lambda y: y[0, :, row, column]) != 0


@mutant(FIELD, "Compare with zero")
def the_gradient_itself(network, x, row, column):
    return gradient(network, x, lambda y: y[0, :, row, column]).abs().sum(0)


@variant(FIELD)
def field_with_backward(network, x, row, column):
    x = x.clone().requires_grad_()
    network(x)[:, :, row, column].sum().backward()
    return x.grad.abs().sum((0, 1)) > 0


@variant(FIELD)
def field_by_trying(network, x, row, column):
    seen = torch.zeros(x.shape[2:], dtype=torch.bool)
    before = network(x)[0, :, row, column]
    for r in range(x.shape[2]):
        for c in range(x.shape[3]):
            moved = x.clone()
            moved[0, :, r, c] += torch.tensor([1.0, -2.0])
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


@mutant(HEAT, "NaN")
def overflows(logits, temperature=1.0):
    p = (logits / temperature).exp()
    return p / p.sum(1, keepdim=True)


@variant(HEAT)
def powers_of_probabilities(logits, temperature=1.0):
    p = logits.double().softmax(1) ** (1 / temperature)
    return p / p.sum(1, keepdim=True)


@variant(HEAT)
def largest_first(logits, temperature=1.0):
    p = ((logits - logits.amax(1, keepdim=True)) / temperature).exp()
    return p / p.sum(1, keepdim=True)


def loop(model, x, keep, generator, temperature=1.0, start=0, by_columns=False, choose=None, heat=True, shift=0):
    x = x.clone()
    height, width = x.shape[1:]
    first = model(x)
    for i in range(keep + start, height * width):
        row, column = divmod(i, height)[::-1] if by_columns else divmod(i, width)
        at = divmod(max(i - shift, 0), width)
        logits = (first if choose == "one pass" else model(x))[:, :, at[0], at[1]]
        logits = logits if not by_columns else model(x)[:, :, row, column]
        p = pixel_probabilities(logits, temperature if heat else 1.0)
        if choose == "argmax":
            x[:, row, column] = p.argmax(1)
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


@mutant(FILL, "Each needs its own")
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
