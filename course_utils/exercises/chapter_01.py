"""The exercises of chapter 01: the probability of a picture, pixel by pixel."""

import math

import torch
from torch import nn
from torch.nn.functional import conv2d

from course_utils.exercises.oracles import Wrong, close, require
from course_utils.exercises.registry import exercise
from course_utils.models import pixelcnn

TITLE = "Autoregressive pixels"
NOT_ONE = "The probabilities of one pixel do not add up to 1: the softmax runs over the wrong axis. "


@exercise(
    "01.bits_per_dim", pixelcnn.bits_per_dim, difficulty=2, minutes=10,
    hints=[
        "First the logarithm of all probabilities: logits.log_softmax(1). Axis 1 holds the symbols.",
        "Of these, pick at each pixel the one of the symbol that x really has there: .gather(1, x[:, None]).",
        "Minus, then the mean over the pixels: .flatten(1).mean(1). Last, nats to bits: divide by math.log(2).",
        "log_p = logits.log_softmax(1).gather(1, x[:, None]), and return -log_p.flatten(1).mean(1) / math.log(2).",
    ],
)  # fmt: skip
def bits_per_dim(learner, case):
    """Count the bits that each picture costs, per pixel."""
    logits, x = 2 * case.normal(4, 7, 5, 3), case.whole(0, 6, 4, 5, 3)
    p = torch.tensor(
        [[[[math.exp(a) for a in logits[b, :, r, c].tolist()] for c in range(3)] for r in range(5)] for b in range(4)]
    ).double()  # (batch, height, width, symbols)
    p = p / p.sum(-1, keepdim=True)
    chosen = torch.tensor([[[p[b, r, c, x[b, r, c]].item() for c in range(3)] for r in range(5)] for b in range(4)])
    bits = -chosen.double().log2().flatten(1)  # (batch, 15)

    def pick(axis):
        return -logits.double().log_softmax(axis).gather(1, x[:, None]).flatten(1).mean(1) / math.log(2)

    nats = bits * math.log(2)
    mistakes = [
        (nats.mean(1), "This is in nats. One bit is ln 2 nats: divide by math.log(2)."),
        (nats.mean(1) * math.log(2), "Nats become bits by dividing by ln 2, not by multiplying."),
        (bits.sum(1), "This is the sum, the bits of the whole picture. Per dimension: divide by the number of pixels."),
        (nats.sum(1), "This is the whole picture, in nats: divide by the number of pixels and by ln 2."),
        (bits.sum(1) / 5, "This divides by the height alone. The dimensions are all pixels, height times width."),
        (bits.sum(1) / 7, "This divides by the number of symbols. The dimensions are the pixels."),
        (bits.mean(), "This is one number for the whole batch. Keep one for each picture: .flatten(1).mean(1)."),
        (-bits.mean(1), "The sign is wrong: log2 of a probability is negative, and bits are minus that."),
        (bits.mean(1) * math.log(2) / math.log(10), "This logarithm has the base 10. Bits have the base 2."),
        (
            -chosen.double().flatten(1).mean(1).log2(),
            "This averages the probabilities first and takes the logarithm "
            "then. Probabilities multiply, so logarithms are what adds up.",
        ),
        *((pick(axis), NOT_ONE + "The symbols are axis 1 of the logits.") for axis in (0, 2, 3)),
        (
            -logits.double().gather(1, x[:, None]).flatten(1).mean(1) / math.log(2),
            "Logits are not log-probabilities yet: log_softmax makes them so.",
        ),
    ]
    close(learner(logits, x), bits.mean(1), mistakes)
    close(learner(torch.zeros(2, 17, 8, 8), case.whole(0, 16, 2, 8, 8)), torch.full((2,), math.log2(17)),
          what="for a model that thinks all 17 symbols equally likely, the result")  # fmt: skip


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

    def mask(size, own, before=lambda r, c, m: r < m or (r == m and c < m)):
        m = size // 2
        return torch.tensor([[float(before(r, c, m) or (own and (r, c) == (m, m))) for c in range(size)]
                             for r in range(size)])  # fmt: skip

    for size in (3, 5, 7):
        for kind in ("A", "B"):
            own = kind == "B"
            expected = mask(size, own)
            column = (
                "This runs down the columns. Raster order goes along the rows: the first index is the row, "
                "and all of the rows above are seen."
            )
            mistakes = [
                (mask(size, not own), 'A and B are swapped: "A" hides the pixel itself, "B" shows it.'),
                (expected.T, column),
                (mask(size, not own).T, column),
                (
                    mask(size, own, lambda r, c, m: r < m or (r == m and c > m)),
                    "In the middle row this sees what is right of the middle, which comes later.",
                ),
                (mask(size, own, lambda r, c, m: r < m), "In its own row the pixel may see what is left of it, too."),
                (
                    mask(size, own, lambda r, c, m: r <= m and c <= m and (r, c) != (m, m)),
                    "Above, this sees nothing to the right. But the rows above are finished: all of them is seen.",
                ),
                (
                    mask(size, own, lambda r, c, m: r <= m and (r, c) != (m, m)),
                    "This sees the whole middle row. What is right of the middle comes later.",
                ),
                (
                    mask(size, own, lambda r, c, m: r > m or (r == m and c > m)),
                    "This sees what comes later, below and to the right: it is the wrong half.",
                ),
                (1 - expected, "This is upside down: 1 is for what is seen, 0 for what is hidden."),
                (
                    torch.ones(size, size).tril(-1 if kind == "A" else 0),
                    "torch.tril cuts along the diagonal. In raster order whole rows above are seen.",
                ),
            ]
            close(learner(size, kind), expected, mistakes,
                  what=f'the mask of size {size}, kind "{kind}",')  # fmt: skip


@exercise(
    "01.masked_conv", pixelcnn.MaskedConv2d, difficulty=3, minutes=15, uses=("01.causal_mask",),
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
        start, x = layer.weight.detach().clone(), case.normal(2, 2, 6, 7)
        mask = torch.tensor([float(i < size * size // 2 + (kind == "B")) for i in range(size * size)])
        mask = mask.reshape(size, size)
        other = torch.tensor([float(i < size * size // 2 + (kind == "A")) for i in range(size * size)])
        other = other.reshape(size, size)
        for trained in (False, True):
            weight, bias = case.normal(3, 2, size, size), case.normal(3)
            with torch.no_grad():
                if trained:  # what an update does: every weight changes, the hidden ones too
                    layer.weight.copy_(weight)
                else:
                    weight = start
                layer.bias.copy_(bias)
            _close_conv(learner, layer, x, weight, bias, mask, other, trained)
        buffers = [name for name, parameter in layer.named_parameters() if parameter.shape[-2:] == mask.shape]
        require(
            buffers == ["weight"],
            f"the trainable parameters {buffers} are as large as the kernel, expected 'weight' alone.",
            "The mask must not be trained: register_buffer keeps it out of the parameters.",
        )


def _close_conv(learner, layer, x, weight, bias, mask, other, trained):
    pad = mask.shape[0] // 2

    def conv(kernel, b=bias, padding=pad):
        return conv2d(x, kernel, b, padding=padding)

    once = (
        "The mask is not applied when the layer is called. Applied once, at construction, it is gone after the "
        "first update: multiply weight and mask in forward."
    )
    mistakes = [
        (conv(weight), once if trained else "This is the plain convolution: the mask is not used."),
        (conv(weight * other), "A and B are swapped."),
        (conv(weight * mask.T), "Rows and columns of the mask are swapped."),
        (conv(weight * mask, None), "The bias is missing."),
        (conv(weight * mask, padding=0), "The padding is missing, so the picture shrinks: padding=self.padding."),
        (conv(weight * (1 - mask)), "Seen and hidden are swapped."),
    ]
    when = "after an update of the weights, the result" if trained else "the result"
    try:
        got = learner.method(layer, "forward", x)
    except Exception as raised:
        text = str(raised.__cause__)
        if "must match the size of tensor" in text or "size mismatch" in text:
            raise Wrong(f"multiplying failed: {text}", "The mask (size, size) belongs to self.weight, (out, in, size, "
                        "size), not to the picture.") from None  # fmt: skip
        raise
    close(got, conv(weight * mask), mistakes, tolerance=1e-3, what=when)


@exercise(
    "01.receptive_field", pixelcnn.receptive_field, difficulty=3, minutes=12,
    hints=[
        "Ask torch to record what happens to the input: x = x.clone().requires_grad_(True), then y = network(x).",
        "y[0, :, row, column].sum() is one number. Its gradient by x has the shape of x: (1, channels, h, w).",
        "torch.autograd.grad(number, x) gives a tuple with one tensor.",
        "A pixel counts if the gradient of any of its channels is not 0: (gradient[0] != 0).any(0).",
    ],
)  # fmt: skip
def receptive_field(learner, case):
    """Find out by gradients which input pixels one output pixel depends on."""
    x = case.normal(1, 2, 6, 9)
    weight = case.uniform(0.5, 1.0, 3, 2, 3, 3)
    ahead = weight * torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0]])  # looks at the pixel below, to the left
    networks = {
        "a 3x3 convolution": lambda z: conv2d(z, weight, padding=1),
        "a kernel that sees one pixel only": lambda z: conv2d(z, ahead, padding=1),
        "a difference of channels": lambda z: (z[:, :1] - z[:, 1:]).roll(1, 3),
    }
    for row, column in ((2, 5), (4, 1)):
        box = torch.zeros(6, 9, dtype=torch.bool)
        one, left = box.clone(), box.clone()
        box[row - 1 : row + 2, column - 1 : column + 2] = True
        one[row + 1, column - 1] = True
        left[row, column - 1] = True
        for (name, network), expected in zip(networks.items(), (box, one, left), strict=True):
            got = learner(network, x, row, column)
            _same_field(got, expected, network, x, row, column, f"the field of {name} at ({row}, {column})")


def _same_field(got, expected, network, x, row, column, what):
    require(isinstance(got, torch.Tensor), f"{what} is of type {type(got).__name__}, expected a tensor.")
    require(
        got.shape == expected.shape,
        f"{what} has the shape {tuple(got.shape)}, expected {tuple(expected.shape)}.",
        "One truth value a pixel: (height, width). Use index 0 of the batch, and .any(0) over the channels.",
    )
    require(
        got.dtype == torch.bool,
        f"{what} has the dtype {got.dtype}, expected torch.bool.",
        "Where does it depend? Compare with zero: gradient != 0.",
    )
    if torch.equal(got, expected):
        return
    gradient = _gradient(network, x, lambda y: y[0, :, row, column])
    mistakes = [
        (
            gradient.sum(0) != 0,
            "The gradients of the channels cancel when they are added with their signs. Ask for "
            "each whether it is not 0, then .any(0).",
        ),
        (
            (gradient > 0).any(0),
            "Only positive gradients count here. A pixel that lowers the output is seen as well: compare with != 0.",
        ),
        (
            (_gradient(network, x, lambda y: y) != 0).any(0),
            "This is the gradient of the whole output. Take one output pixel: [0, :, row, column].",
        ),
        (
            _influence(network, x, row, column),
            "This is the other way round: which outputs the input at (row, column) "
            "reaches. Asked is which inputs the output sees.",
        ),
        (_transposed(network, x, row, column), "Row and column are swapped: heights come first, [.., row, column]."),
        (~expected, "This is the opposite: True where the output does *not* depend on the pixel."),
    ]
    at = tuple((got != expected).nonzero()[0].tolist())
    found = (
        f"{what} has {int(got.sum())} pixels, expected {int(expected.sum())}; pixel {at} is {bool(got[at])}, "
        f"expected {bool(expected[at])}."
    )
    for value, advice in mistakes:
        if torch.equal(got, value):
            raise Wrong(found, advice)
    raise Wrong(found, "Print the gradient itself: which pixels have one that is not 0?")


def _gradient(network, x, choose):
    z = x.clone().requires_grad_(True)
    return torch.autograd.grad(choose(network(z)).sum(), z)[0][0]


def _influence(network, x, row, column):
    moved = x.clone()
    moved[0, 0, row, column] += 1
    return (network(moved) - network(x))[0].abs().sum(0) > 1e-6


def _transposed(network, x, row, column):
    row, column = min(column, x.shape[2] - 1), min(row, x.shape[3] - 1)
    return (_gradient(network, x, lambda y: y[0, :, row, column]) != 0).any(0)


@exercise(
    "01.pixel_probabilities", pixelcnn.pixel_probabilities, difficulty=1, minutes=5,
    hints=[
        "The temperature divides the logits. What does dividing by a large number do to their differences?",
        "Then the softmax, over the symbols: axis 1.",
    ],
)  # fmt: skip
def pixel_probabilities(learner, case):
    """Turn logits into probabilities, sharpened or softened by a temperature."""
    for temperature in (1.0, case.uniform(0.3, 0.6).item(), case.uniform(1.6, 2.5).item()):
        logits = 2 * case.normal(3, 5, 4, 2)
        scaled = logits.double() / temperature
        expected = scaled.exp() / scaled.exp().sum(1, keepdim=True)
        p = logits.double().softmax(1)
        mistakes = [
            (
                (logits.double() * temperature).softmax(1),
                "The temperature multiplies here. It divides: hot is more random, cold less.",
            ),
            (p, "The temperature is not used, or it cancels out: it divides the logits, before the softmax."),
            (
                p / temperature,
                "The temperature divides the probabilities here, so that they do not add up to 1. It "
                "divides the logits.",
            ),
            *((scaled.softmax(axis), NOT_ONE + "The symbols are axis 1.") for axis in (0, 2, 3)),
            (scaled.log_softmax(1), "These are the logarithms of the probabilities: softmax, not log_softmax."),
            (p ** (1 / temperature), "These do not add up to 1 for each pixel. Divide the logits, then the softmax."),
            ((logits.double() - temperature).softmax(1), "The temperature divides the logits."),
            (scaled.exp(), "The division by the sum is missing: softmax does both."),
        ]
        close(learner(logits, temperature), expected, mistakes)
    large = torch.tensor([[300.0, 299.0, 0.0]])[:, :, None]
    expected = torch.tensor([[1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2)), 0.0]])[:, :, None]
    close(learner(large, 0.5), expected, what="for logits of 300, the result")


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
    _draws_right(learner, case)


def _counter(symbols=11):
    """A model whose pictures are certain: each pixel is the one before in raster order, plus 3."""

    def model(x):
        n = len(x)
        before = torch.cat([torch.zeros(n, 1, dtype=torch.int64), x.flatten(1)[:, :-1]], 1).reshape(x.shape)
        after = (before + 3) % symbols
        return 60.0 * torch.nn.functional.one_hot(after, symbols).permute(0, 3, 1, 2).float()

    return model


def _counts_on(learner, case):
    height, width, model = 3, 5, _counter()
    start = case.whole(0, 10, 1, height, width)
    start = torch.cat([start, (start + 1) % 11])  # two pictures that differ everywhere
    for keep in (0, 7):
        expected = start.clone().flatten(1)
        for i in range(keep, height * width):
            before = expected[:, i - 1] if i else torch.zeros(2, dtype=torch.int64)
            expected[:, i] = (before + 3) % 11
        for_all = torch.cat([start.flatten(1)[:, :keep], expected[:1, keep:].expand(2, -1)], 1).reshape(start.shape)
        expected = expected.reshape(start.shape)
        got = learner(model, start, keep, case.generator(), 1.0)
        mistakes = [
            (_filled(model, start, keep, one_pass=True), "All pixels are drawn from one single pass, so none has seen "
             "those just drawn. A pass of the model belongs into the loop."),
            (_filled(model, start, keep + 1), "This is one late: the first pixel to draw has the index i = keep, "
             "since they count from 0."),
            (_filled(model, start, max(keep - 1, 0)), "This draws the last of the pixels that "
             "should be kept, or nothing at all: keep pixels have the indices 0 ... keep - 1."),
            (_filled(model, start, keep, by_columns=True), "This goes down the columns. Raster order goes along the "
             "rows: row, column = divmod(i, width)."),
            (_filled(model, start, keep, shift=1), "The probabilities are read at the pixel before. In a model with "
             "masks the logits at a pixel's own place are those of that pixel."),
            (_filled(model, start, 0), "keep is not used: the first keep pixels stay as they are in x."),
            (for_all, "All pictures of the batch got the same draw. Each needs its own."),
        ]  # fmt: skip
        close(got, expected, mistakes, tolerance=0.0, what=f"with keep = {keep} and a model that leaves no choice, "
              "the result")  # fmt: skip


def _filled(model, x, keep, one_pass=False, by_columns=False, shift=0):
    x = x.clone()
    height, width = x.shape[1:]
    first = model(x)
    for i in range(keep, height * width):
        row, column = divmod(i, height)[::-1] if by_columns else divmod(i, width)
        logits = first if one_pass else model(x)
        at = divmod(max(i - shift, 0), width) if shift else (row, column)
        x[:, row, column] = logits[:, :, at[0], at[1]].argmax(1)
    return x


def _draws_right(learner, case, number=3000):
    """Pictures of two pixels: how often each of the nine comes must be what the chain rule says."""
    first, second = 1.5 * case.normal(3), 1.5 * case.normal(3, 3)
    second = second.clamp(-1.5, 1.5)
    first = first.clamp(-1.5, 1.5)

    def model(x):
        return torch.stack([first.expand(len(x), 3), second[x[:, 0, 0]]], dim=2)[:, :, None]  # (n, 3, 1, 2)

    temperature = 0.6

    def joint(t):
        return (first / t).softmax(0)[:, None] * (second / t).softmax(1)

    blank = torch.zeros(number, 1, 2, dtype=torch.int64)
    got = learner(model, blank, 0, case.generator(), temperature)
    share = torch.bincount((3 * got[:, 0, 0] + got[:, 0, 1]).long(), minlength=9).reshape(3, 3) / number

    def far(other):
        return ((share - other).abs() / (other * (1 - other) / number).sqrt().clamp(min=1e-3)).max().item()

    if far(joint(temperature)) < 5:
        again = learner(model, blank, 0, case.generator(), temperature)
        require(
            torch.equal(got, again),
            "two calls with generators in the same state gave different pictures.",
            "All random numbers come from the generator that is passed: torch.multinomial(p, 1, generator=generator).",
        )
        return
    found = (
        f"{number} pictures of two pixels: symbols ({share.argmax() // 3}, {share.argmax() % 3}) came in "
        f"{share.max():.1%}, expected {joint(temperature).flatten()[share.argmax()]:.1%}."
    )
    if share.max() > 0.999:
        raise Wrong(
            found,
            "All pictures are the same: the likeliest symbol is taken (argmax) instead of a draw. "
            "Draw with torch.multinomial.",
        )
    for t, advice in ((1.0, "The temperature is not used: hand it on to pixel_probabilities."),
                      (1 / temperature, "The temperature multiplies here. It divides.")):  # fmt: skip
        if far(joint(t)) < 5:
            raise Wrong(found, advice)
    if (got == got[:1]).all():
        raise Wrong(found, "All pictures of the batch got the same draw. Each needs its own.")
    raise Wrong(found, "Draw each pixel with the probabilities at its own place, given the ones drawn before.")
