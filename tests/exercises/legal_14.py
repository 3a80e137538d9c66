"""Legal inputs of chapter 14."""

import torch
from legal import drive, legal
from torch import nn

from course_utils.exercises.mistakes_14 import Mixing, Velocity, landed, visited


@drive("14.velocity_loss")
def velocity_loss(answer, case):
    found = []
    for shape, words in (((1, 1), False), ((3, 2), True), ((2, 2, 3), False), ((3, 1, 2, 2), True)):
        for t in (torch.zeros(shape[0]), torch.ones(shape[0]), case.uniform(0, 1, shape[0])):
            model, cond = Velocity(case), case.normal(shape[0], 3) if words else None
            loss = answer(model, case.normal(*shape), t, case.normal(*shape), cond)
            loss.sum().backward()
            found += [loss.detach(), model.weight.grad]
            found.append(answer(model, case.normal(*shape), t, case.normal(*shape)).detach())
    return found


@legal("14.marginal_velocity")
def marginal_velocity(case):
    for batch, n, d in ((1, 1, 1), (4, 3, 2), (2, 6, 4), (3, 3, 3)):
        for t in (torch.ones(batch), case.uniform(0.2, 1, batch), torch.full((batch,), 0.02)):
            yield 2 * case.normal(batch, d), t, case.normal(n, d)
            yield case.normal(batch, d).double(), t.double(), case.normal(n, d).double()


@legal("14.as_flow")
def as_flow(case):
    for shape in ((1, 1), (3, 4), (2, 3, 2, 5)):
        for alpha_bar in (1.0, 0.9, 0.3, 0.005):
            yield case.normal(*shape), case.normal(*shape), alpha_bar
            yield case.normal(*shape).double(), case.normal(*shape).double(), alpha_bar


@drive("14.sample_flow")
def sample_flow(answer, case):
    found = []
    for shape, times in (((1, 2), [1.0, 0.0]), ((3, 4), [1.0, 0.6, 0.5, 0.1, 0.0]), ((2, 2, 3, 3), [1.0, 0.3, 0.0])):
        model, x_1, cond = Velocity(case), case.normal(*shape), case.normal(shape[0], 3)
        before = x_1.clone()
        for more in ((), (cond,), (cond, False), (cond, True), (None, True)):
            model.calls = 0
            found += [answer(model, x_1, times, *more), model.calls]
        found.append(bool(x_1.equal(before)))
    return found


@legal("14.curvature")
def curvature(case):
    for batch, d, times in ((1, 1, [1.0, 0.5, 0.0]), (4, 3, [1.0, 0.9, 0.1, 0.0]), (3, 2, [1.0, 0.0])):
        yield visited(case, batch, d, times), times


@legal("14.flow_times")
def flow_times(case):
    for steps in (1, 2, 5, 30, 49):
        for shift in (1.0, 3.0, 0.4):
            yield steps, shift
        yield (steps,)


@legal("14.patchify")
def patchify(case):
    for shape, size in (((1, 1, 2, 2), 2), ((2, 3, 4, 2), 2), ((1, 2, 3, 6), 3), ((2, 1, 3, 2), 1)):
        yield case.normal(*shape), size


@drive("14.half_block")
def half_block(answer, case):
    found = []
    for batch, tokens, width, size in ((1, 1, 3, 1.0), (2, 4, 5, 3.0), (3, 3, 3, 1e-3)):
        x, c = (size * case.normal(batch, tokens, width)).requires_grad_(), case.normal(batch, width).requires_grad_()
        linear, f = nn.Linear(width, 3 * width), Mixing(case, width)
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.copy_(case.normal(*parameter.shape))
        out = answer(x, c, linear, f)
        (out * case.normal(*out.shape)).sum().backward()
        found += [out.detach(), x.grad, c.grad, linear.weight.grad, f.inner.weight.grad]
    return found


@drive("14.joint_attention")
def joint_attention(answer, case):
    found = []
    for batch, heads, patches, count, d in ((1, 1, 1, 2, 1), (2, 3, 4, 2, 5), (3, 2, 2, 5, 4)):
        image, words = (
            tuple(case.normal(batch, heads, n, d).requires_grad_() for _ in range(3)) for n in (patches, count)
        )
        seen, read = answer(image, words)
        ((seen * case.normal(*seen.shape)).sum() + (read * case.normal(*read.shape)).sum()).backward()
        found += [seen.detach(), read.detach(), *(x.grad for x in (*image, *words))]
    return found


@legal("14.landing_velocity")
def landing_velocity(case):
    table = (1 - case.uniform(0.03, 0.12, 40)).cumprod(0)
    for shape, steps in (((1, 1), [(39, 1)]), ((2, 3), [(39, 4), (9, 4)]), ((3, 2, 2, 2), [(30, 8), (5, 8), (20, 2)])):
        x_t = case.normal(*shape)
        yield x_t, *landed(table, x_t, case.normal(*shape), steps)
