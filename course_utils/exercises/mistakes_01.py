"""What mistakes in the exercises of chapter 01 give, and the small models on which they show."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import conv2d, one_hot, pad

from course_utils.exercises.calls import Raised
from course_utils.exercises.oracles import Wrong, close, require
from course_utils.exercises.settings import broadcasting_explained, called_as

NOT_ONE = "The probabilities of one pixel do not add up to 1: the softmax runs over the wrong axis. "
COLUMN = (
    "This runs down the columns. Raster order goes along the rows: the first index is the row, and all rows above are "
    "seen."
)


def close_bits(got, logits, x):
    batch, symbols, height, width = logits.shape
    chosen = torch.zeros(x.shape, dtype=torch.float64)
    for b, r, c in itertools.product(range(batch), range(height), range(width)):
        powers = [math.exp(a) for a in logits[b, :, r, c].tolist()]
        chosen[b, r, c] = powers[x[b, r, c]] / math.fsum(powers)
    bits = -chosen.log2().flatten(1)  # (batch, height * width)
    nats = bits * math.log(2)

    def pick(axis):
        return -logits.double().log_softmax(axis).gather(1, x[:, None]).flatten(1).mean(1) / math.log(2)

    one_side = "This divides by one side of the picture only. The dimensions are all pixels, height times width."
    one_axis = "Only one axis was averaged. The mean is over all pixels, rows and columns: .flatten(1).mean(1)."
    mistakes = [
        (nats.mean(1), "This is in nats. One bit is ln 2 nats: divide by math.log(2)."),
        (nats.mean(1) * math.log(2), "Nats become bits by dividing by ln 2, not by multiplying."),
        (bits.sum(1), "This is the sum, the bits of the whole picture. Per dimension: divide by the number of pixels."),
        (nats.sum(1), "This is the whole picture, in nats: divide by the number of pixels and by ln 2."),
        (bits.sum(1) / height, one_side),
        (bits.sum(1) / width, one_side),
        (bits.reshape(x.shape).mean(1), one_axis),
        (bits.reshape(x.shape).mean(2), one_axis),
        (bits.sum(1) / symbols, "This divides by the number of symbols. The dimensions are the pixels."),
        (bits.sum(1) / 64, "This divides by 64, whatever the size of the picture: x says how many pixels it has."),
        (bits.mean(), "This is one number for the whole batch. Keep one for each picture: .flatten(1).mean(1)."
         if batch > 1 else "A batch of one picture lost its axis: squeeze() takes away every axis of length 1."),
        (-bits.mean(1), "The sign is wrong: log2 of a probability is negative, and bits are minus that."),
        (bits.mean(1) * math.log10(2), "This logarithm has the base 10. Bits have the base 2."),
        (-chosen.flatten(1).mean(1).log2(), "This averages the probabilities first and takes the logarithm then. "
         "Probabilities multiply, so their logarithms are what adds up."),
        *((pick(axis), NOT_ONE + "The symbols are axis 1 of the logits.") for axis in (0, 2, 3)),
        (-logits.double().sigmoid().gather(1, x[:, None]).log2().flatten(1).mean(1), "The sigmoid makes a probability "
         "of each logit by itself, and they do not add up to 1. The softmax takes all symbols together."),
        (-logits.double().log_softmax(1).amax(1).flatten(1).mean(1) / math.log(2), "This is the likeliest symbol of "
         "each pixel. Pick the one that x really has there."),
        (-logits.double().gather(1, x[:, None]).flatten(1).mean(1) / math.log(2),
         "Logits are not log-probabilities yet: log_softmax makes them so."),
    ]  # fmt: skip
    close(got, bits.mean(1), mistakes)


def masks(size, own):
    """Return the right mask, and those of common mistakes."""

    def mask(seen, own=own, m=size // 2):
        def value(r, c):
            return float(own) if (r, c) == (m, m) else float(seen(r, c, m))

        return torch.tensor([[value(r, c) for c in range(size)] for r in range(size)])

    def before(r, c, m):
        return r < m or (r == m and c < m)

    right, other = mask(before), mask(before, not own)
    fixed = "The middle has another index for each size: size // 2."
    mistakes = [
        (other, 'A and B are swapped: "A" hides the pixel itself, "B" shows it.'),
        (right.T, COLUMN),
        (other.T, COLUMN),
        (mask(before, True), 'kind is not used: "A" hides the pixel itself, and here it is always seen.'),
        (mask(before, False), 'kind is not used: "B" shows the pixel itself, and here it is always hidden.'),
        (mask(lambda r, c, m: r < m or (r == m and c > m)), "In the middle row this sees what is right of the middle, "
         "which comes later."),
        (mask(lambda r, c, m: r < m), "In its own row the pixel may see what is left of it, too."),
        (mask(lambda r, c, m: r == m and c < m), "The rows above are missing. They come before the middle row."),
        (mask(lambda r, c, m: r <= m and c <= m), "Above, this sees nothing to the right. But the rows above are "
         "finished, so all of them are seen."),
        (mask(lambda r, c, m: r < m and c < m), "Only what is above and to the left is seen. The rows above are seen "
         "as a whole, and so is what is left in the middle row."),
        (mask(lambda r, c, m: r <= m), "This sees the whole middle row. What is right of the middle comes later."),
        (mask(lambda r, c, m: not before(r, c, m)), "This sees what comes later, below and to the right. Wanted is "
         "what comes before."),
        (1 - right, "1 and 0 are exchanged: 1 is for what is seen, 0 for what is hidden."),
        (torch.ones(size, size).tril(0 if own else -1), "torch.tril cuts along the diagonal. In raster order whole "
         "rows above are seen."),
        (mask(before, own, 1), fixed),
        (mask(before, own, 2), fixed),
        (mask(before, own, size // 2 + 1), "The middle is taken one too far. Indices start at 0, so it is size // 2."),
        (mask(before, own, size // 2 - 1), "The middle is taken one too early: of 3 rows it is the one with index 1, "
         "size // 2."),
    ]  # fmt: skip
    return right, mistakes


def require_state(layer):
    """Raise Wrong unless the layer keeps its mask as later cells expect it."""
    parameters = [name for name, _ in layer.named_parameters()]
    require(
        sorted(parameters) == ["bias", "weight"],
        f"the parameters of the layer are {', '.join(parameters)}; expected weight and bias.",
        "The mask must not be trained: register_buffer keeps it out of the parameters.",
    )
    state = list(layer.state_dict())
    if "mask" in state:
        return
    found = f"what the layer keeps is {', '.join(state)}; expected weight, bias and mask."
    if len(state) > 2:
        raise Wrong(found, 'Later cells read the mask by its name: self.register_buffer("mask", ...).')
    raise Wrong(found, "No buffer holds the mask. A plain attribute stays behind when the layer is moved or saved.")


def close_conv(learner, layer, x, mask, other, what):
    weight, bias, pad = layer.weight.detach().clone(), layer.bias.detach().clone(), mask.shape[0] // 2

    def conv(kernel, b=bias, padding=pad):
        return conv2d(x, kernel, b, padding=padding)

    mistakes = [
        (conv(weight), "The mask has no effect. Applied once, at construction, it is gone after the first update: "
         "multiply weight and mask in forward."
         if "update" in what else "This is the plain convolution: the mask is not used."),
        (conv(weight * other), "This is the mask of the other kind. Is `kind` handed on to causal_mask as it came?"),
        (conv(weight * mask.T), "Rows and columns of the mask are swapped."),
        (conv(weight * mask, None), "The bias is missing."),
        (conv(weight * mask, padding=0), "The padding is missing, so the picture shrinks: padding=self.padding."),
        (conv(weight * mask, padding=1), "The padding is 1, which fits a kernel of size 3 only: padding=self.padding."),
        (conv(weight * (1 - mask)), "Seen and hidden are exchanged: this uses the weights that should be hidden."),
    ]  # fmt: skip
    try:
        with broadcasting_explained("The mask (size, size) belongs to self.weight, (out, in, size, size), not to the "
                                    "picture."):  # fmt: skip
            got = learner.method(layer, "forward", x)
    except Raised as raised:
        text = str(raised.__cause__)
        if "same dtype" in text or "same type" in text or "expected scalar type" in text:
            raise Wrong(f"the layer was converted by .double(), and then: {text}", "Weight and mask must have one "
                        "dtype: a buffer follows the layer, a new tensor or .float() does not.") from None  # fmt: skip
        raise
    close(got, conv(weight * mask), mistakes, tolerance=1e-3, what=what)


def networks(case, channels):
    """Networks whose fields are known: each output depends on the pixels that its name says."""
    weight = case.uniform(0.5, 1.0, 3, channels, 3, 3)
    below = weight * torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0]])  # the pixel below, to the left
    one_output = weight * torch.tensor([0.0, 1, 0]).reshape(3, 1, 1, 1)
    return {
        "a kernel of size 3": lambda z: conv2d(z, weight, padding=1),
        "a kernel that sees one pixel only": lambda z: conv2d(z, below, padding=1),
        "a difference of channels": lambda z: (z[:, :1] - z[:, 1:2]).roll(1, 3),
        "a network with one output channel that sees anything": lambda z: conv2d(z, one_output, padding=1),
        "a network that sees the first input channel only": lambda z: -2 * z[:, :1],
        "a network that sees the second input channel only": lambda z: 2 * z[:, 1:2],
        "a network with tiny weights": lambda z: 1e-12 * z,
    }


@dataclass(frozen=True)
class Field:
    """What `receptive_field` was asked, and what it must say."""

    name: str
    called: str
    network: object
    x: torch.Tensor
    row: int
    column: int
    expected: torch.Tensor


def same_fields(answers):
    """Raise Wrong unless each answer to a Field is right; a mistake is named if it explains all of the answers."""
    for field, got in answers:
        with called_as(field.called):
            _require_field(got, field)
    mistakes = [_field_mistakes(field) for field, _ in answers]
    explained = (
        advice
        for number, (_, advice) in enumerate(mistakes[0])
        if all(torch.equal(got, of[number][0]) for (_, got), of in zip(answers, mistakes, strict=True))
    )
    advice = next(explained, "Print the gradient itself: which pixels have one that is not 0?")
    for field, got in answers:
        if not torch.equal(got, field.expected):
            at = tuple((got != field.expected).nonzero()[0].tolist())
            found = f"{field.name} marks {int(got.sum())} of {got.numel()} pixels, expected {int(field.expected.sum())}"
            with called_as(field.called):
                raise Wrong(f"{found}; pixel {at} is {bool(got[at])}, expected {bool(field.expected[at])}.", advice)


def _require_field(got, field):
    require(isinstance(got, torch.Tensor), f"{field.name} is of type {type(got).__name__}, expected a tensor.",
            "Return the tensor of truth values itself, (height, width).")  # fmt: skip
    require(
        got.shape == field.expected.shape,
        f"{field.name} has the shape {tuple(got.shape)}, expected {tuple(field.expected.shape)}.",
        "One truth value a pixel: (height, width). Use index 0 of the batch, and .any(0) over the channels.",
    )
    require(
        got.dtype == torch.bool,
        f"{field.name} has the dtype {got.dtype}, expected torch.bool.",
        "Where does it depend? Compare with zero: gradient != 0.",
    )


def _field_mistakes(field):
    network, x, row, column = field.network, field.x, field.row, field.column
    gradient = _gradient(network, x, lambda y: y[0, :, row, column])
    first = _gradient(network, x, lambda y: y[0, 0, row, column])
    return [
        (gradient.sum(0) != 0, "The gradients of the channels cancel when they are added with their signs. Ask for "
         "each whether it is not 0, then .any(0)."),
        ((gradient > 0).any(0), "Only positive gradients count here. A pixel that lowers the output is seen as well: "
         "compare with != 0."),
        ((_gradient(network, x, lambda y: y) != 0).any(0), "This is the gradient of the whole output. Take one output "
         "pixel: [0, :, row, column]."),
        (_influence(network, x, row, column), "This is the other way round: which outputs the input at (row, column) "
         "reaches. Asked is which inputs the output sees."),
        (_transposed(network, x, row, column), "Row and column are swapped: heights come first, [.., row, column]."),
        (~field.expected, "This is the opposite: True where the output does *not* depend on the pixel."),
        ((gradient != 0).all(0), "Only pixels that are seen in *all* input channels count here. One channel is enough: "
         ".any(0)."),
        (gradient[0] != 0, "Only the first input channel was looked at. A pixel counts if any of its channels does."),
        ((first != 0).any(0), "Only the first output channel was looked at. Add up all of them: [0, :, row, column]."),
        ((gradient.abs() > 1e-10).any(0), "Small gradients are missing. However small it is, a gradient that is not "
         "exactly 0 counts: compare with 0, not with a threshold."),
    ]  # fmt: skip


def _gradient(network, x, choose):
    z = x.clone().requires_grad_(True)
    return torch.autograd.grad(choose(network(z)).sum(), z)[0][0]


def _influence(network, x, row, column):
    moved = x.clone()
    moved[0, :, row, column] += torch.arange(1.0, x.shape[1] + 1)
    return (network(moved) != network(x))[0].any(0)


def _transposed(network, x, row, column):
    row, column = min(column, x.shape[2] - 1), min(row, x.shape[3] - 1)
    return (_gradient(network, x, lambda y: y[0, :, row, column]) != 0).any(0)


class Counter(nn.Module):
    """A model whose pictures are certain: each pixel is the one before in raster order, plus 3."""

    def __init__(self, symbols=11):
        super().__init__()
        self.symbols, self.passes = symbols, 0

    def forward(self, x):
        self.passes += 1
        before = torch.cat([torch.zeros(len(x), 1, dtype=torch.int64), x.flatten(1)[:, :-1]], 1).reshape(x.shape)
        return 60.0 * one_hot((before + 3) % self.symbols, self.symbols).permute(0, 3, 1, 2).float()


class Pair(nn.Module):
    """The probabilities of pictures of two pixels: logits (symbols,) of the first, and of the second given it."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        symbols = len(self.first)
        return torch.stack([self.first.expand(len(x), symbols), self.second[x[:, 0, 0]]], dim=2)[:, :, None]


def filled(model, x, keep, end=None, one_pass=False, by_columns=False, shift=0):
    x = x.clone()
    height, width = x.shape[1:]
    first = model(x)
    for i in range(keep, height * width if end is None else end):
        row, column = divmod(i, height)[::-1] if by_columns else divmod(i, width)
        logits = first if one_pass else model(x)
        at = divmod(max(i - shift, 0), width) if shift else (row, column)
        x[:, row, column] = logits[:, :, at[0], at[1]].argmax(1)
    return x


def stacks_and_mistakes(v, h, above, left):
    """Both stacks after a layer, by kernels of full size with zeros in them, and what mistakes make of `h` and `v`."""
    tall = pad(above.weight, (0, 0, 0, 1))  # (out, in, 3, 3): nothing below
    wide = pad(left.weight, (0, 1, 0, 0))  # (out, in, 1, 3): nothing to the right

    def up(x, kernel=tall):
        return conv2d(x, kernel, above.bias, padding=1)

    def aside(x, kernel=wide):
        return conv2d(x, kernel, left.bias, padding=(0, 1))

    new_v, new_h = up(v), aside(h)
    below, right = pad(above.weight, (0, 0, 1, 0)), pad(left.weight, (1, 0, 0, 0))  # kernels that look ahead
    cure = "One column of zeros on either side: pad(v, (1, 1, 1, 0))."
    of_v = [
        (
            up(v, below),
            "The stack of the rows above looks down: its kernel needs zeros at the top, pad(v, (1, 1, 1, 0)).",
        ),
        (new_v + new_h, "h flows into v. Then later rows would know what is hidden from them: only h gets the other."),
        (up(pad(v, (1, 0, 0, 0)))[..., :-1], f"The kernel of `above` stands too far to the left. {cure}"),
        (up(pad(v, (0, 1, 0, 0)))[..., 1:], f"The kernel of `above` stands too far to the right. {cure}"),
        (up(h), "`above` was given h. It reads v, which has seen the rows above."),
    ]
    of_h = [
        (new_h, "The second stack does not get what the first one found: add the new v."),
        (aside(h, right) + new_v, "The second stack looks right, at pixels that come later: zeros go to the left, "
                                  "pad(h, (1, 0, 0, 0))."),
        (aside(v) + new_v, "`left` was given v. It reads h, which has seen its own row."),
        (new_h * new_v, "The two are multiplied; add them."),
        (new_h - new_v, "v is subtracted; add it."),
    ]  # fmt: skip
    if v.shape == new_v.shape:  # of as many channels as the result
        of_h += [
            (new_h + v, "h gets the v that came in. Add the new one, after `above`."),
            (aside(h + new_v), "v was added before `left`. Add it to the result."),
            (h + new_h + new_v, "h itself was added as well. The skeleton has no skip connections."),
        ]
        of_v += [(v + new_v, "v itself was added as well. The skeleton has no skip connections.")]
    return (new_v, of_v), (new_h + new_v, of_h)
