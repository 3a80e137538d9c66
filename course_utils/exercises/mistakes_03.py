"""The networks and samples of the checks of chapter 03, and what common mistakes give on them."""

import math

import torch
from torch import nn

from course_utils.exercises.oracles import close, require

RATES = 0.1, 0.03  # of the plain gradient descent in the steps' checks


class Maker(nn.Module):
    """G(z) = A z + b, (batch, 2) -> (batch, 3)."""

    def __init__(self, case):
        super().__init__()
        self.latent = 2
        self.layer = nn.Linear(2, 3)
        self.layer.load_state_dict({"weight": case.normal(3, 2), "bias": case.normal(3)})

    def forward(self, z):
        return self.layer(z)


class Critic(nn.Module):
    """D(x) = w x + c, for `size` samples at a time: (batch, 3) -> (batch / size,)."""

    def __init__(self, case, size):
        super().__init__()
        self.size = size
        self.layer = nn.Linear(3 * size, 1)
        self.layer.load_state_dict({"weight": case.normal(1, 3 * size), "bias": case.normal(1)})

    def together(self, x):
        return x.reshape(len(x) // self.size, -1)

    def forward(self, x):
        return self.layer(self.together(x)).squeeze(1)


def flat(model):
    return torch.cat([parameter.detach().clone().flatten() for parameter in model.parameters()])


def leave_gradients(model, case):
    """Put old gradients into a model, as another step would have left them; return them, flat."""
    for parameter in model.parameters():
        parameter.grad = case.normal(*parameter.shape)
    return torch.cat([parameter.grad.flatten().clone() for parameter in model.parameters()])


def step_mistakes(before, slope, old, rate):
    """What goes wrong in any step: the value, and its name."""
    return [
        (before, "The parameters did not change. In this order: optimizer.zero_grad(), loss.backward(), "
         "optimizer.step(); and nothing between the loss and this network may be detached."),
        (before - rate * (slope + old), "Old gradients were added: backward() adds to what is there. Call "
         "optimizer.zero_grad() before it."),
        (before - rate * old, "The step followed old gradients only: none of its own came through. Is something "
         "detached, or is backward() missing?"),
        (before + rate * slope, "The step went uphill: the sign of the loss is wrong. An optimizer minimises the "
         "loss."),
        (before - 2 * rate * slope, "The step is twice as long as it should be: was backward() or optimizer.step() "
         "called twice?"),
        (before - RATES[0] * slope if rate != RATES[0] else before, "The step always has the same rate. Use "
         "the optimizer that was passed: optimizer.step()."),
    ]  # fmt: skip


def require_loss(got, expected, after):
    """Raise Wrong unless the loss that a step returns is right, and a tensor that later cells can use.

    after: the loss after the update.
    """
    require(
        not isinstance(got, float),
        "the loss that is returned is a Python number, expected a tensor of shape ().",
        "Later cells call .item() on it themselves: return loss.detach(), the tensor without the graph behind it.",
    )
    late = "This is the loss after the update. Return the one that the update was made with."
    close(got, expected, [(after, late)], what="the loss that is returned")


class Bowl(nn.Module):
    """D(x) = sum of w x^2: its gradient is 2 w x."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, x):
        return (self.weight * x.square()).flatten(1).sum(1)


def plane(case):
    """Eleven centres, two of them near the first: 2 are covered."""
    angle = case.uniform(0, 6.28).item()
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    grid = torch.tensor([[4.0 * i, 4.0 * j] for i in range(3) for j in range(3)])
    centres = torch.cat([grid, grid[:1] + torch.tensor([[0.5, 0.0], [-0.5, 0.0]])])
    # (centre, number of samples, least and largest distance)
    groups = [(0, 25, 0, 0.2), (1, 20, 0, 0.5), (2, 19, 0, 0.5), (2, 3, 0.9, 1.2), (3, 30, 0.65, 0.75),
              (4, 25, 0.9, 1.2), (5, 3, 0, 0.5), (6, 1, 0, 0.5), (7, 2, 0, 0.5)]  # fmt: skip
    samples = torch.cat([_around(case, centres[i], n, low, high) for i, n, low, high in groups])
    samples = samples[torch.randperm(len(samples), generator=case.generator())]
    return samples @ turn, (centres @ turn).flip(0), 0.6, 20, 2  # the two that are covered come last


def space(case):
    """Six centres in three dimensions, with samples on the diagonal and on an axis: 3 are covered."""
    centres = 5 * torch.tensor([[i, j, 0.0] for i in range(3) for j in range(2)]) + case.normal(3)
    diagonal, axis = torch.ones(3) / math.sqrt(3), torch.tensor([0.0, 1.0, 0.0])
    steps = [
        (0, 7, 0.9 * diagonal),
        (1, 7, -1.3 * diagonal),
        (2, 5, 0.1 * axis),
        (3, 4, 0.2 * axis),
        (4, 8, 0.95 * axis),
    ]
    samples = torch.cat([(centres[i] + step).expand(n, 3) for i, n, step in steps])
    return samples + 0.01 * case.normal(*samples.shape), centres, 1.0, 5, 3


def boundary():
    """Two centres, one with 24 samples exactly at the radius, the other with 11 at 0: 1 is covered."""
    centres = torch.tensor([[0.0, 0.0], [40.0, 0.0]])
    return torch.cat([torch.tensor([[3.0, 4.0]]).expand(24, 2), centres[1:].expand(11, 2)]), centres, 5.0, 12, 1


def crowded():
    """Centres so close that most samples lie within the radius of two, the first of which is not the nearest."""
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 9.0]])
    samples = torch.cat([torch.tensor([[0.9, 0.0]]).expand(15, 2), torch.tensor([[0.2, 0.0]]).expand(12, 2)])
    return samples, centres, 2.0, 12, 2


def mode_mistakes(samples, centres, radius, least):
    def distances(p=2.0):
        return (samples[:, None] - centres).abs().pow(p).sum(2).pow(1 / p)

    distance = distances()
    near, nearest = distance.min(1)
    inside = near <= radius * (1 + 1e-6)

    def counts(keep, nearest=nearest):
        return torch.bincount(nearest[keep], minlength=len(centres))

    def at_least(keep, number=least):
        return int((counts(keep) >= number).sum())

    def at_first():
        within = distance <= radius * (1 + 1e-6)
        return int((counts(within.any(1), within.int().argmax(1)) >= least).sum())

    def by(distance):
        near, nearest = distance.min(1)
        return int((counts(near <= radius * (1 + 1e-6), nearest) >= least).sum())

    return [
        (at_least(inside, 1), "One sample was enough for a mode. A single stray sample does not count: `least` are "
         "needed."),
        (int((counts(inside)[:8] >= least).sum()), "Only the first eight centres were looked at. len(centres) says how "
         "many there are."),
        (at_least(near >= 0), "The radius was not used: samples far from all centres were counted for the nearest "
         "one."),
        (at_least(near**2 <= radius), "The squared distance was compared with the radius."),
        (at_least(inside, least + 1), "A centre with exactly `least` samples counts too: >=."),
        (at_least(inside, 20), "least is not used: it is always taken to be 20."),
        (at_least(near < radius * (1 - 1e-6)), "A sample exactly at the radius counts too: <=."),
        (at_least(~inside), "The comparison with the radius is reversed: near samples count, not far ones."),
        (int((counts(inside) < least).sum()), "These are the centres that have too few samples. Count the others."),
        (int((counts(inside) <= least).sum()), "The comparison with `least` is reversed: at least that many are "
         "needed."),
        (by(distances(1.0)), "This is the sum of the absolute differences. A distance is the root of the sum of "
         "squares: torch.cdist."),
        (by((samples[:, None] - centres).abs().amax(2)), "This is the largest difference of a coordinate. A distance "
         "is the root of the sum of squares: torch.cdist."),
        (at_first(), "Samples were counted for the first centre within the radius. Each belongs to its *nearest* one."),
        (int(((distance <= radius * (1 + 1e-6)).sum(0) >= least).sum()), "Samples were counted for several centres at "
         "once. Each belongs to its nearest one."),
        (int((distance.min(0).values <= radius).sum()), ".min(0) finds for each centre its nearest sample. What is "
         "needed "
         "is the nearest centre of each sample: .min(1)."),
        (int(inside.sum()), "This counts samples. Count the centres that have enough of them."),
    ]  # fmt: skip


def _around(case, centre, number, low, high):
    """Points at distances between low and high from the centre: (number, 2)."""
    angle, distance = case.uniform(0, 6.28, number), case.uniform(low, high, number)
    return centre + distance[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
