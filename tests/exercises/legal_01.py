"""Legal inputs of chapter 01."""

import torch
from legal import drive, legal
from torch import nn

from course_utils.models.pixelcnn import StackedPixelCNN


@legal("01.bits_per_dim")
def bits_per_dim(case):
    for batch, symbols, height, width in ((1, 2, 1, 1), (3, 4, 2, 5), (2, 17, 8, 8), (5, 3, 4, 1)):
        x = case.whole(0, symbols - 1, batch, height, width)
        for scale in (0.0, 1.0, 30.0):
            yield scale * case.normal(batch, symbols, height, width), x


@legal("01.causal_mask")
def causal_mask(case):
    for size in (1, 3, 5, 7, 9, 11):
        yield from ((size, kind) for kind in ("A", "B"))


@drive("01.masked_conv")
def masked_conv(answer, case):
    found = []
    for size, kind, (i, o) in (
        (1, "B", (2, 3)),
        (3, "A", (1, 4)),
        (3, "B", (3, 2)),
        (5, "A", (2, 2)),
        (7, "B", (1, 1)),
    ):
        torch.manual_seed(case.seed)
        layer = answer(i, o, size, kind)
        x = case.normal(2, i, 4, 6).requires_grad_()
        for _ in range(2):
            y = layer(x)
            slopes = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()], allow_unused=True)
            found.append((y.detach(), *(torch.zeros(1) if slope is None else slope for slope in slopes)))
            with torch.no_grad():
                layer.weight += 0.1
        found.append([layer.state_dict(), [name for name, _ in layer.named_parameters()]])
        layer.mask = torch.ones(size, size)
        found.append(layer(x).detach())
    return found


@legal("01.two_stacks")
def two_stacks(case):
    torch.manual_seed(case.seed)
    for batch, channels, out, height, width in ((1, 1, 2, 1, 1), (2, 3, 3, 4, 5), (3, 2, 4, 2, 6), (1, 2, 1, 5, 1)):
        above, left = nn.Conv2d(channels, out, (2, 3)), nn.Conv2d(channels, out, (1, 2))
        yield case.normal(batch, channels, height, width), case.normal(batch, channels, height, width), above, left


@legal("01.receptive_field")
def receptive_field(case):
    torch.manual_seed(case.seed)
    kernels = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3, padding=1))
    first = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        first.weight[:, 1:] = 0
    networks = [kernels, first, StackedPixelCNN(levels=5, hidden=4, blocks=2).see, lambda x: -(x[:, 1:2] ** 2)]
    for network in networks:
        for height, width, row, column in ((4, 5, 0, 0), (4, 5, 3, 4), (6, 3, 2, 1), (1, 1, 0, 0)):
            yield network, case.normal(1, 3, height, width), row, column


@legal("01.pixel_probabilities")
def pixel_probabilities(case):
    for shape in ((1, 1), (1, 5), (3, 4), (2, 3, 4), (2, 17, 3, 5)):
        for temperature in (0.01, 0.5, 1.0, 1, 2, 3.7):
            yield 3 * case.normal(*shape), temperature
        yield (case.normal(*shape),)


class Chances(nn.Module):
    """Pictures of symbols 0 ... 3, each given the sum of those before it."""

    def __init__(self, table):
        super().__init__()
        self.table = table  # (4, 4): the logits by the sum of what came before, modulo 4

    def forward(self, x):
        before = x.flatten(1).cumsum(1) - x.flatten(1)
        return self.table[before % 4].movedim(2, 1).reshape(len(x), 4, *x.shape[1:])


@drive("01.fill_in")
def fill_in(answer, case):
    """Whether what is kept is kept, and whether each of the drawn pictures comes as often as its probability says."""
    found, table, number = [], 1.5 * case.normal(4, 4), 4000
    for height, width, keep, temperature in ((1, 2, 0, 1.0), (2, 1, 0, 0.5), (2, 2, 2, 2.0), (1, 3, 1, 0.7)):
        start = case.whole(0, 3, 1, height, width).expand(number, -1, -1).clone()
        random, given = torch.Generator().manual_seed(case.seed), start.clone()
        drawn = answer(Chances(table), start, keep, random, temperature)
        again = answer(Chances(table), start, keep, random, temperature)
        p, flat = (table / temperature).softmax(1), drawn.flatten(1)
        left = int(start[0].flatten()[:keep].sum())
        second = p[[(left + i) % 4 for i in range(4)]]
        expected = p[left % 4][:, None] * second  # of the first two drawn pixels
        share = torch.bincount(4 * flat[:, keep] + flat[:, keep + 1], minlength=16).reshape(4, 4) / number
        right = ((share - expected).abs() < 5 * (expected / number).sqrt() + 1e-3).all()
        kept = flat[:, :keep].equal(start.flatten(1)[:, :keep]) and start.equal(given)
        found.append((right, kept, drawn.equal(again), drawn.dtype == torch.int64, drawn.shape == start.shape))
    whole = answer(Chances(table), start, 3, random)
    return found, whole
