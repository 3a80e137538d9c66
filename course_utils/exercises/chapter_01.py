"""The exercises of chapter 01: the probability of a picture, pixel by pixel."""

import itertools
import math

import torch
from torch import nn
from torch.nn.functional import conv2d

from course_utils.exercises.calls import Raised
from course_utils.exercises.mistakes_01 import (
    NOT_ONE,
    Counter,
    Field,
    Pair,
    close_bits,
    close_conv,
    filled,
    masks,
    networks,
    require_state,
    same_fields,
    stacks_and_mistakes,
)
from course_utils.exercises.oracles import Wrong, close, require
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import close_in_all
from course_utils.models import pixelcnn

TITLE = "Autoregressive pixels"


@exercise(
    "01.bits_per_dim", pixelcnn.bits_per_dim, difficulty=2, minutes=10, gradients=True,
    hints=[
        "First the logarithm of all probabilities: logits.log_softmax(1). Axis 1 holds the symbols.",
        "Of these, pick at each pixel the one of the symbol that x really has there: .gather(1, x[:, None]).",
        "Minus, then the mean over the pixels: .flatten(1).mean(1). Last, nats to bits: divide by math.log(2).",
        "log_p = logits.log_softmax(1).gather(1, x[:, None]), and return -log_p.flatten(1).mean(1) / math.log(2).",
    ],
)  # fmt: skip
def bits_per_dim(learner, case):
    """Compute the bits that each picture costs, per pixel."""
    for batch, symbols, height, width in ((4, 7, 5, 3), (1, 3, 2, 6)):
        logits, x = 2 * case.normal(batch, symbols, height, width), case.whole(0, symbols - 1, batch, height, width)
        close_bits(learner(logits, x), logits, x)
    close(learner(torch.zeros(2, 17, 8, 8), case.whole(0, 16, 2, 8, 8)), torch.full((2,), math.log2(17)),
          what="for a model that gives all 17 symbols the same probability, the result")  # fmt: skip
    sure = torch.tensor([0.0, 120.0]).reshape(1, 2, 1, 1)
    close(
        learner(sure, torch.zeros(1, 1, 1, dtype=torch.int64)),
        torch.tensor([120 / math.log(2)]),
        [
            (torch.tensor([torch.inf]), "The probability is 0 in float32, and its logarithm minus infinity. "
             "log_softmax goes from the logits to the logarithm at once."),
            (torch.tensor([8 * math.log2(10)]), "A clamp or a small number in the logarithm cuts off what an unlikely "
             "level costs. log_softmax needs neither."),
        ],
        what="for a model that is certain and wrong, by a logit of 120, the result",
    )  # fmt: skip


@exercise(
    "01.causal_mask", pixelcnn.causal_mask, difficulty=2, minutes=8,
    hints=[
        "Start with torch.zeros(size, size). The middle has the index size // 2, in both directions.",
        "All rows above the middle one are seen: mask[:middle] = 1. Below it nothing is.",
        "In the middle row, what is left of the middle is seen: mask[middle, :middle] = 1.",
        'The middle itself is the pixel that is to be predicted. "A" hides it, "B" shows it.',
    ],
)  # fmt: skip
def causal_mask(learner, case):
    """Make the mask of a kernel that sees only pixels that come before."""
    settings = []
    for size, kind in itertools.product((3, 5, 7), ("A", "B")):
        got = learner(size, kind)
        require(
            not isinstance(got, torch.Tensor) or got.is_floating_point(),
            f"the mask has the dtype {getattr(got, 'dtype', None)}, expected torch.float32.",
            "It is multiplied with weights, and conv2d takes it as a kernel: end with .float().",
        )
        settings.append((got, *masks(size, kind == "B"), f'the mask of size {size} and kind "{kind}"', learner.called))
    close_in_all(settings)
    for kind in ("A", "B"):
        close(learner(1, kind), torch.full((1, 1), float(kind == "B")), what=f'the mask of size 1 and kind "{kind}"')


@exercise(
    "01.masked_conv", pixelcnn.MaskedConv2d, difficulty=3, minutes=15, uses=("01.causal_mask",),
    gradients=True,
    hints=[
        "In __init__: self.register_buffer(\"mask\", causal_mask(size, kind)). A buffer moves to the GPU with the "
        "weights, but is not trained.",
        "In forward: an ordinary convolution with other weights, self.weight * self.mask. It broadcasts: (out, in, "
        "size, size) times (size, size).",
        "torch.nn.functional.conv2d(x, weight, bias, padding=self.padding) is the convolution with weights of your "
        "own.",
        "Masking once in __init__ is not enough: the first update of the training fills the zeros again.",
    ],
)  # fmt: skip
def masked_conv(learner, case):
    """Write a convolution that looks back only, as a layer that can be trained."""
    for size, kind in ((3, "A"), (5, "B")):
        layer = learner(2, 3, size, kind)
        require(isinstance(layer, nn.Conv2d), f"got {type(layer).__name__}, expected a torch.nn.Conv2d.",
                "Keep the class line and the super().__init__ line as they were given.")  # fmt: skip
        mask, other = ((torch.arange(size**2) < size**2 // 2 + own).float().reshape(size, size)
                       for own in (kind == "B", kind == "A"))  # fmt: skip
        close_conv(learner, layer, case.normal(2, 2, 6, 7), mask, other, "the result")
        with torch.no_grad():  # what an update does: every weight changes, the hidden ones too
            layer.weight.copy_(case.normal(3, 2, size, size))
            layer.bias.copy_(case.normal(3))
        close_conv(learner, layer, case.normal(1, 2, 7, 5), mask, other, "after an update of the weights, the result")
        require_state(layer)
        layer.double()
        close_conv(learner, layer, case.normal(2, 2, 5, 6).double(), mask.double(), other, "in float64, the result")
        layer.mask = torch.ones(size, size).double()
        x = case.normal(1, 2, 4, 6).double()
        close(
            learner.method(layer, "forward", x),
            conv2d(x, layer.weight, layer.bias, padding=size // 2),
            [(conv2d(x, layer.weight * mask, layer.bias, padding=size // 2), "forward does not use self.mask. A later "
              "cell puts ones there, to show the plain convolution that is left.")],
            what="with a mask of ones in self.mask, the result",
        )  # fmt: skip


@exercise(
    "01.receptive_field", pixelcnn.receptive_field, difficulty=3, minutes=12,
    hints=[
        "Let torch record what happens to the input: x = x.clone().requires_grad_(True), then y = network(x).",
        "y[0, :, row, column].sum() is one number. Its gradient with respect to x has the shape of x.",
        "torch.autograd.grad(number, x) gives a tuple with one tensor.",
        "A pixel counts if the gradient of any of its channels is not 0: (gradient[0] != 0).any(0).",
    ],
)  # fmt: skip
def receptive_field(learner, case):
    """Find by gradients which input pixels an output pixel depends on."""
    for channels, height, width, places in ((2, 6, 9, ((2, 5), (4, 1), (0, 0))), (3, 5, 4, ((4, 3), (1, 2)))):
        x, fields = case.normal(1, channels, height, width), []
        for row, column in places:
            box = torch.zeros(height, width, dtype=torch.bool)
            below, left, here = box.clone(), box.clone(), box.clone()
            box[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
            below[row + 1 :, :column][:1, -1:] = True
            left[row, column - 1] = here[row, column] = True
            for (name, network), expected in zip(
                networks(case, channels).items(), (box, below, left, box, here, here, here), strict=True
            ):
                got = learner(network, x, row, column)
                name = f"the field of {name} at ({row}, {column})"
                fields.append((Field(name, learner.called, network, x, row, column, expected), got))
        same_fields(fields)
    layer = nn.Conv2d(channels, 2, 1)
    with torch.no_grad():
        layer.weight.copy_(case.uniform(0.5, 1, 2, channels, 1, 1))
    got = learner(layer, x, row, column)
    require(
        layer.weight.grad is None,
        "the network was left with gradients in its parameters, expected none.",
        "backward() leaves gradients in every parameter that it meets. torch.autograd.grad(number, x) asks for one "
        "gradient and leaves the network as it was.",
    )
    one = Field(f"the field of a kernel of size 1 at ({row}, {column})", learner.called, layer, x, row, column, here)
    same_fields([(one, got)])
    got = learner(layer.double(), x.double(), row, column)
    same_fields([(Field(f"in float64, {one.name}", learner.called, layer, x.double(), row, column, here), got)])


@exercise(
    "01.two_stacks", pixelcnn.two_stack_layer, difficulty=3, minutes=15, gradients=True,
    hints=[
        "First v: which sides need zeros so that a kernel of 2 rows and 3 columns sees its own row and the one above?",
        "One column on either side and one row at the top: above(pad(v, (1, 1, 1, 0))).",
        "Then h: one column of zeros at the left, pad(h, (1, 0, 0, 0)), the convolution `left`, and plus the new v.",
    ],
)  # fmt: skip
def two_stacks(learner, case):
    """Write one layer of the network that sees all earlier pixels."""
    single, double = torch.float32, torch.float64
    for channels, out, (height, width), dtype in (
        (2, 2, (4, 6), single), (1, 3, (5, 3), single), (2, 2, (1, 1), single), (2, 2, (3, 4), double)
    ):  # fmt: skip
        above, left = nn.Conv2d(channels, out, (2, 3), dtype=dtype), nn.Conv2d(channels, out, (1, 2), dtype=dtype)
        with torch.no_grad():
            for parameter in (*above.parameters(), *left.parameters()):
                parameter.copy_(case.normal(*parameter.shape))
        v, h = (case.normal(2, channels, height, width).to(dtype) for _ in range(2))
        (new_v, of_v), (new_h, of_h) = stacks_and_mistakes(v, h, above, left)
        got = _layer(learner, v, h, above, left)
        named = height * width > 1
        require(not named or not _same(got[0], new_h) or not _same(got[1], new_v), "got h where v is expected, and v "
                "where h is.", "Return v first, then h.")  # fmt: skip
        close(got[0], new_v, of_v if named else (), what="the new v")
        close(got[1], new_h, of_h if named else (), what="the new h")


def _layer(learner, v, h, above, left):
    try:
        got = learner(v, h, above, left)
    except Exception as raised:
        text = str(raised.__cause__)
        if "must match the size" in text or "Kernel size can't be greater" in text:
            raise Wrong(f"the sizes do not fit: {text}", "The kernels have no padding of their own. With "
                        "pad(v, (1, 1, 1, 0)) and pad(h, (1, 0, 0, 0)) height and width stay as they are."
                        ) from None  # fmt: skip
        if "should be the same" in text:
            raise Wrong(f"the dtypes do not fit: {text}", "Zeros of your own need the dtype and the device of v: "
                        "v.new_zeros(...), or F.pad, which keeps them.") from None  # fmt: skip
        raise
    require(isinstance(got, (tuple, list)) and len(got) == 2, f"got {type(got).__name__}, expected two tensors.",
            "Return both stacks: v, h.")  # fmt: skip
    return got


def _same(got, expected):
    return isinstance(got, torch.Tensor) and got.shape == expected.shape and torch.allclose(got, expected, atol=1e-4)


@exercise(
    "01.pixel_probabilities", pixelcnn.pixel_probabilities, difficulty=1, minutes=5,
    hints=[
        "The temperature divides the logits. What does dividing by a large number do to their differences?",
        "Then the softmax, over the symbols: axis 1.",
    ],
)  # fmt: skip
def pixel_probabilities(learner, case):
    """Turn logits into probabilities, sharpened or softened by a temperature."""
    cold, hot = case.uniform(0.3, 0.6).item(), case.uniform(1.6, 2.5).item()
    for shape, temperature in (((3, 5, 4, 2), cold), ((3, 5, 4, 2), hot), ((4, 6), hot), ((1, 3, 2), 2), ((2, 4), 1.0)):
        logits = 2 * case.normal(*shape)
        scaled = logits.double() / temperature
        p = logits.double().softmax(1)
        mistakes = [
            ((logits.double() * temperature).softmax(1), "The temperature multiplies here. It divides: hot is more "
             "random, cold less."),
            (p, "The temperature is not used, or it cancels out: it divides the logits, before the softmax."),
            (p / temperature, "The temperature divides the probabilities here, so that they do not add up to 1. It "
             "divides the logits."),
            *((scaled.softmax(axis), NOT_ONE + "They are on axis 1.") for axis in range(len(shape)) if axis != 1),
            (scaled.log_softmax(1), "These are the logarithms of the probabilities: softmax, not log_softmax."),
            (p ** (1 / temperature), "The powers of the probabilities do not add up to 1 for each pixel. Divide the "
             "logits, then take the softmax."),
            (scaled.exp(), "The division by the sum is missing: softmax does both."),
            (scaled, "These are still logits: the softmax is missing."),
            (scaled.sigmoid(), "The sigmoid looks at each logit by itself. The softmax makes the probabilities of a "
             "pixel add up to 1."),
            ((logits / temperature) / (logits / temperature).sum(1, keepdim=True), "Logits may be negative, so "
             "dividing by their sum makes no probabilities. The softmax takes exp first."),
            ((logits.double() / temperature**2).softmax(1), "The temperature is squared. It divides as it is."),
        ]  # fmt: skip
        close(learner(logits, temperature), scaled.exp() / scaled.exp().sum(1, keepdim=True), mistakes)
    close(learner(logits), p, what="at the temperature that is used if none is passed, the result")
    large = torch.tensor([[300.0, 299.0, 0.0]])[:, :, None]
    expected = torch.tensor([[1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2)), 0.0]])[:, :, None]
    got = learner(large, 0.5)
    require(not isinstance(got, torch.Tensor) or bool(got.isfinite().all()), "for logits of 300 the result holds NaN, "
            "expected probabilities.", "exp(600) is too large for a float. torch.softmax first takes away the largest "
            "logit, which changes no probability.")  # fmt: skip
    close(got, expected, what="for logits of 300, the result")


@exercise(
    "01.fill_in", pixelcnn.fill_in, difficulty=4, minutes=20, uses=("01.pixel_probabilities",),
    hints=[
        "Work on a copy, x = x.clone(), and go through i = keep ... height * width - 1.",
        "Pixel i lies at row, column = divmod(i, width).",
        "In each round: a pass of the model over x as it is now, the probabilities at this one place, a draw, and the "
        "draw written into x.",
        "p = pixel_probabilities(model(x)[:, :, row, column], temperature), then torch.multinomial(p, 1, "
        "generator=generator)[:, 0].",
    ],
)  # fmt: skip
def fill_in(learner, case):
    """Keep the first pixels of a picture and draw the others one by one."""
    _counts_on(learner, case)
    for temperature in (0.6, 1.7):
        _draws_right(learner, case, temperature)


def _counts_on(learner, case):
    for batch, height, width, keeps in ((2, 3, 5, (0, 2, 7, 14, 15)), (1, 4, 2, (3,))):
        start = case.whole(4, 9, 1, height * width).cumsum(1).reshape(1, height, width)  # steps that are never 3
        start = torch.cat([start % 11, (start + 1) % 11])[:batch]  # two pictures that differ everywhere
        for keep in keeps:
            _close_count(learner, case, start, keep)


def _close_count(learner, case, start, keep):
    number, batch = start[0].numel(), len(start)
    expected = start.clone().flatten(1)
    for i in range(keep, number):
        before = expected[:, i - 1] if i else torch.zeros(batch, dtype=torch.int64)
        expected[:, i] = (before + 3) % 11
    for_all = torch.cat([start.flatten(1)[:, :keep], expected[:1, keep:].expand(batch, -1)], 1).reshape(start.shape)
    expected = expected.reshape(start.shape)
    model, plain = Counter(), Counter()
    try:
        got = learner(model, start, keep, case.generator(), 1.0)
    except Raised as raised:
        if "multinomial" in str(raised.__cause__) or "prob_dist" in str(raised.__cause__):
            raise Wrong(f"torch.multinomial refused: {raised.__cause__}", "It draws one index for each row of a table "
                        "(batch, symbols): take the probabilities of one pixel.") from None  # fmt: skip
        raise
    mistakes = [
        (filled(plain, start, keep, one_pass=True), "All pixels are drawn from one single pass, so none has seen "
         "those just drawn. The loop must evaluate the model again for each pixel."),
        (filled(plain, start, keep + 1), "This is one late: the first pixel to draw has the index i = keep, "
         "since they count from 0."),
        (filled(plain, start, max(keep - 1, 0)), "This draws the last of the pixels that should be kept: keep pixels "
         "have the indices 0 ... keep - 1."),
        (filled(plain, start, keep, end=number - 1), "The last pixel was not drawn: the indices go up to "
         "height * width - 1, and range leaves out its end."),
        (filled(plain, start, keep, by_columns=True), "This goes down the columns. Raster order goes along the "
         "rows: row, column = divmod(i, width)."),
        (filled(plain, start, keep, shift=1), "The probabilities are read at the pixel before. In a model with "
         "masks the logits at a pixel's own place are those of that pixel."),
        (filled(plain, start, 0), "keep is not used: the first keep pixels stay as they are in x."),
        (start if keep == 0 else expected, "Nothing was drawn: this is x as it was passed."),
        (filled(plain, start, keep * start.shape[2]), "keep counts pixels, not rows."),
        (filled(plain, torch.zeros_like(start), keep), "The pixels that should be kept are 0. Start from a copy of x: "
         "x.clone()."),
        (torch.cat([expected[:1], start[1:]]), "Only the first picture was drawn. The colon in x[:, row, column] means "
         "all of them."),
        (for_all, "What was drawn for the first picture was written into all. Each picture needs a draw of its own."),
    ]  # fmt: skip
    mistakes = [(value, advice) for value, advice in mistakes if not torch.equal(value, expected)]
    close(got, expected, mistakes, 0.0, f"with keep = {keep} and a model that leaves no choice, the result")
    require(
        model.passes == number - keep,
        f"the model was evaluated {model.passes} times for {number - keep} pixels, expected once for each pixel.",
        "A pass is what costs time. Evaluate the model once in each round of the loop, for the whole batch together.",
    )


def _draws_right(learner, case, temperature, number=3000):
    """Pictures of two pixels: how often each of the nine comes must be what the chain rule says."""
    first, second = (1.5 * case.normal(3)).clamp(-1.5, 1.5), (1.5 * case.normal(3, 3)).clamp(-1.5, 1.5)
    model, blank, random = Pair(first, second), torch.zeros(number, 1, 2, dtype=torch.int64), case.generator()

    def joint(t):
        return (first / t).softmax(0)[:, None] * (second / t).softmax(1)

    got = learner(model, blank, 0, random, temperature)
    share = torch.bincount(3 * got[:, 0, 0] + got[:, 0, 1], minlength=9).reshape(3, 3) / number

    def far(other):
        return ((share - other).abs() / (other * (1 - other) / number).sqrt().clamp(min=1e-3)).max().item()

    if far(joint(temperature)) < 5:
        _require_new_draws(got, learner, (model, blank, 0), random, temperature)
        return
    found = (
        f"{number} pictures of two pixels: symbols ({share.argmax() // 3}, {share.argmax() % 3}) came in "
        f"{share.max():.1%}, expected {joint(temperature).flatten()[share.argmax()]:.1%}."
    )
    if share.max() > 0.999:
        others = [learner(model, blank[:1], 0, random, temperature) for _ in range(30)]
        if any(not torch.equal(other, others[0]) for other in others):
            raise Wrong(found, "One draw serves the whole batch. Each picture needs random numbers of its own.")
        raise Wrong(found, "All pictures are the same: the most likely symbol is taken (argmax) instead of a draw. "
                    "Draw with torch.multinomial.")  # fmt: skip
    for t, advice in ((1.0, "The temperature is not used: pass it to pixel_probabilities."),
                      (1 / temperature, "The temperature multiplies here. It divides.")):  # fmt: skip
        if far(joint(t)) < 5:
            raise Wrong(found, advice)
    raise Wrong(found, "Draw each pixel with the probabilities at its own place, given the ones drawn before.")


def _require_new_draws(got, learner, inputs, random, temperature):
    """Raise Wrong unless a generator that goes on gives other pictures."""
    if learner.broken:  # what the generator was used for is known already
        return
    require(
        not torch.equal(got, learner(*inputs, random, temperature)),
        "two calls with one generator, one after the other, gave the same pictures.",
        "The generator is put back to its beginning somewhere. Use it as it is passed, so that it goes on.",
    )
