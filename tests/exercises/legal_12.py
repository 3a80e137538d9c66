"""Legal inputs of chapter 12."""

import torch
from legal import drive, legal
from torch import nn

from course_utils.exercises.mistakes_12 import Steered


@legal("12.remaining_times")
def remaining_times(case):
    for steps in (1, 2, 7, 50):
        times = [999 - 19 * number for number in range(steps)]
        for strength in (0.0, 0.05, 0.3, 0.58, 1.0):
            yield times, strength


def table_of(case):
    return (1 - case.uniform(0.02, 0.12, 30)).cumprod(0)


@legal("12.blend_known")
def blend_known(case):
    table = table_of(case)
    for shape, masks in (((1, 1, 2, 3), 1), ((3, 2, 4, 2), 1), ((3, 2, 4, 2), 3)):
        for t in (-1, 0, 14, 29):
            mask = (case.uniform(0, 1, masks, 1, *shape[2:]) < 0.5).float()
            yield case.normal(*shape), case.normal(*shape), case.normal(*shape), mask, t, table


@legal("12.renoise")
def renoise(case):
    table = table_of(case)
    for shape in ((1, 2), (3, 2, 2, 4)):
        for earlier, t in ((-1, 0), (-1, 29), (0, 1), (7, 20), (28, 29)):
            yield case.normal(*shape), earlier, t, table, case.normal(*shape)


@legal("12.between")
def between(case):
    for shape in ((1, 2048), (3, 8, 16, 16)):
        for count in (2, 3, 8):
            yield case.normal(*shape), case.normal(*shape), count


@legal("12.inject_maps")
def inject_maps(case):
    for tokens, before, partners in ((1, 1, None), (3, 3, None), (2, 4, [3, None]), (4, 2, [None, 1, 0, None])):
        yield case.normal(2, 2, 3, tokens).softmax(-1), case.normal(2, 2, 3, before).softmax(-1), partners


@legal("12.recolour")
def recolour(case):
    for batch in (1, 3):
        for masks in {1, batch}:
            pictures = case.uniform(-1, 1, batch, 3, 8, 8)
            yield pictures, (case.uniform(0, 1, masks, 1, 8, 8) < 0.5).float()


@legal("12.only_row")
def only_row(case):
    for tokens, width, row in ((1, 1, 0), (5, 3, 4), (5, 5, 0), (2, 9, 1)):
        yield case.normal(tokens, width), row


@drive("12.lora_linear")
def lora_linear(answer, case):
    found = []
    for inside, outside, rank, alpha in ((8, 5, 3, 6.0), (6, 6, 2, None), (2, 7, 1, 3.0)):
        base = nn.Linear(inside, outside)
        with torch.no_grad():
            base.weight.copy_(case.normal(outside, inside))
        base.bias.data.zero_()
        layer, x = answer(base, rank, alpha), case.normal(4, inside)
        found += [layer(x), [p.requires_grad for p in base.parameters()], bool(layer.A.any()), layer.A.shape]
        with torch.no_grad():
            layer.A.copy_(case.normal(rank, inside))
            layer.B.copy_(case.normal(outside, rank))
        found += [layer(x), layer.difference()]
        layer(x).square().sum().backward()
        found += [layer.A.grad, layer.B.grad]
        layer.merge()
        layer.merge()
        found.append(layer(x))
        layer.A.data.zero_()
        found.append(layer(x))
        layer.unmerge()
        found += [layer(x), base.weight, layer.base is base]
    return found


@drive("12.zero_convolution")
def zero_convolution(answer, case):
    found = []
    for channels in (1, 4, 7):
        layer = answer(channels)
        layer(case.normal(2, channels, 3, 5)).sum().backward()
        found += [layer.weight, layer.bias, layer.weight.grad, layer.kernel_size, layer.groups]
    return found


@legal("12.add_residuals")
def add_residuals(case):
    for count in (1, 3):
        for weight in (0.0, 1.0, 0.4):
            shapes = [(2, 3, 4, 4), (2, 6, 2, 2), (2, 6, 1, 1)][:count]
            yield [case.normal(*shape) for shape in shapes], [case.normal(*shape) for shape in shapes], weight


@drive("12.control_loss")
def control_loss(answer, case):
    found = []
    for batch, height, width in ((1, 2, 3), (4, 4, 2)):
        model, table = Steered(case), (1 - case.uniform(0.02, 0.12, 30)).cumprod(0)
        x0, eps, t = (
            case.normal(batch, 3, height, width),
            case.normal(batch, 3, height, width),
            case.whole(0, 29, batch),
        )
        drawing, t = case.uniform(0, 1, batch, 3, 4 * height, 4 * width), case.whole(0, 29, batch)
        loss = answer(model, x0, case.normal(batch, 4, 6), drawing, t, eps, table)
        loss.backward()
        found += [loss.detach(), model.weight.grad]
    return found
