"""Legal inputs of chapter 06."""

import copy

import torch
from legal import drive, legal, noisy
from torch import nn

from course_utils.diffusion.schedules import alpha_bar_from_beta, linear_beta

SHAPES = ((1, 3, 4, 2), (5, 2), (2, 1, 3, 3, 2), (3, 6))


@legal("06.noise_prediction_loss")
def noise_prediction_loss(case):
    for shape in SHAPES:
        eps = case.normal(*shape)
        yield case.normal(*shape), eps
        yield eps + 0.01 * case.normal(*shape), eps


@legal("06.bound_weights")
def bound_weights(case):
    for count in (2, 3, 12):
        yield (case.uniform(0.01, 0.5, count),)
        yield (case.uniform(0.01, 0.99, count).double(),)
    yield (linear_beta(1000).double(),)


@legal("06.sample_times")
def sample_times(case):
    for count, T in ((1, 1), (1, 1000), (7, 2), (500, 5), (3000, 1000)):
        yield count, T, case.generator()


class _Model(nn.Module):
    """A small network for samples of any shape, told the time, which notes what it was asked."""

    def __init__(self, size):
        super().__init__()
        self.layer, self.speed, self.asked = nn.Linear(size, size), nn.Parameter(torch.tensor(0.1)), []

    def forward(self, x_t, t, cond=None):
        self.asked.append((x_t.detach(), t))
        out = self.layer(x_t.flatten(1)) + torch.sin(self.speed * t)[:, None]
        return out.reshape(x_t.shape)


@drive("06.training_step")
def training_step(step, case):
    """Of several steps with one generator: the losses, the gradients, and what the model was asked."""
    generator, found = case.generator(), []
    for T in (1000, 3):
        table = alpha_bar_from_beta(linear_beta(T))
        for shape in ((1, 3, 2, 2), (40, 2), (6, 5)):
            torch.manual_seed(case.seed)
            x0 = case.normal(*shape)
            model, kept = _Model(x0[0].numel()), x0.clone()
            loss = step(model, x0, table, generator)
            found += [loss.detach(), *torch.autograd.grad(loss, list(model.parameters())), model.asked, x0 - kept]
            found.append(float(model.training))
    return found


@drive("06.ema_update")
def ema_update(update, case):
    """The average and the model after several updates."""
    torch.manual_seed(case.seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Linear(3, 4, bias=False))
    average = copy.deepcopy(model).requires_grad_(False)
    found = []
    for decay in (0.0, 0.5, 0.9, 0.999, 1.0):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(case.normal(*parameter.shape))
        update(average, model, decay)
        found += [value.detach().clone() for each in (average, model) for value in each.parameters()]
        found += [float(value.requires_grad) for each in (average, model) for value in each.parameters()]
    return found


@legal("06.x0_from_eps")
def x0_from_eps(case):
    yield from noisy(case, SHAPES)


@legal("06.loss_by_time")
def loss_by_time(case):
    for T, bins, n in ((1, 1, 3), (10, 4, 25), (7, 7, 4), (1000, 20, 200), (1000, 1, 5), (13, 6, 1), (100, 9, 12)):
        t = case.whole(0, T - 1, n)
        yield case.uniform(0, 2, n), t, T, bins
        yield case.uniform(0, 2, n), t.sort().values, T, bins
    yield torch.tensor([1.0, 2, 4, 8]), torch.tensor([0, 9, 0, 9]), 10, 5
    yield torch.arange(20) * 0.1, torch.arange(20), 20, 3
