"""Legal inputs of chapter 03."""

import torch
from legal import drive, legal
from torch import nn

from course_utils.models.gan import PointDiscriminator, PointGenerator


@legal("03.optimal_discriminator")
def optimal_discriminator(case):
    for shape in ((), (1,), (7,), (3, 4), (2, 1, 3)):
        for scale in (1e-20, 1e-3, 1.0, 1e6):
            yield scale * case.uniform(0.01, 3, *shape), scale * case.uniform(0.01, 3, *shape)
        yield torch.zeros(shape), case.uniform(0.1, 1, *shape)
        yield case.uniform(0.1, 1, *shape), torch.zeros(shape)
    yield case.uniform(0.1, 1, 4).double(), case.uniform(0.1, 1, 4).double()


def logits(case):
    for number in (1, 2, 9):
        yield from (scale * case.normal(number) for scale in (0.0, 1.0, 10.0, 1000.0))


@legal("03.discriminator_loss")
def discriminator_loss(case):
    for real in logits(case):
        yield from ((real, fake) for fake in logits(case))


@legal("03.generator_loss")
def generator_loss(case):
    yield from ((fake,) for fake in logits(case))


def game(case, optimizer, leave_gradients):
    """G, D, and an optimizer for each."""
    torch.manual_seed(case.seed)
    G, D = PointGenerator(latent=2), PointDiscriminator()
    if leave_gradients:
        for parameter in [*G.parameters(), *D.parameters()]:
            parameter.grad = case.normal(*parameter.shape)
    return G, D, *(optimizer(network.parameters()) for network in (G, D))


def state_of(network):
    parts = [(p.detach().clone(), p.requires_grad) for p in network.parameters()]
    return [*parts, *(module.training for module in network.modules())]


def optimizers():
    yield lambda parameters: torch.optim.SGD(parameters, 0.05)
    yield lambda parameters: torch.optim.SGD(parameters, 0.2, momentum=0.9)
    yield lambda parameters: torch.optim.Adam(parameters, 1e-2)


@drive("03.discriminator_step")
def discriminator_step(answer, case):
    found = []
    for optimizer in optimizers():
        for batch, fakes in ((8, 8), (5, 3), (1, 1)):
            G, D, _, of_D = game(case, optimizer, leave_gradients=batch == 5)
            before = [None if p.grad is None else p.grad.clone() for p in G.parameters()]
            for _ in range(2):
                loss = answer(G, D, of_D, case.normal(batch, 2), case.normal(fakes, 2))
                found.append((loss, loss.requires_grad, state_of(G), state_of(D)))
            pairs = zip(before, (p.grad for p in G.parameters()), strict=True)
            found.append([(a is None) == (b is None) and (a is None or a.equal(b)) for a, b in pairs])
    return found


@drive("03.generator_step")
def generator_step(answer, case):
    found = []
    for optimizer in optimizers():
        for batch in (8, 3, 1):
            G, D, of_G, _ = game(case, optimizer, leave_gradients=batch == 3)
            for _ in range(2):
                loss = answer(G, D, of_G, case.normal(batch, 2))
                found.append((loss, loss.requires_grad, state_of(G), state_of(D)))
    return found


@legal("03.r1_penalty")
def r1_penalty(case):
    torch.manual_seed(case.seed)
    pictures = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(12, 1), nn.Flatten(0))
    for D, shape in ((PointDiscriminator(), (2,)), (pictures, (2, 4, 4))):
        for batch in (1, 2, 7):
            for scale in (0.0, 1.0, 3.0):
                yield D, scale * case.normal(batch, *shape)


@legal("03.modes_covered")
def modes_covered(case):
    for d in (1, 2, 3, 5):
        for modes in (1, 2, 6):
            centres = 3 * case.normal(modes, d)
            samples = centres[case.whole(0, modes - 1, 90)] + case.uniform(0.1, 1.5) * case.normal(90, d)
            for radius in (0.2, 0.8, 2.0, 100.0):
                yield samples, centres, radius
                yield from ((samples, centres, radius, least) for least in (1, 2, 5, 15, 90))
    on_a_grid = torch.tensor([[0.0, 0.0], [100.0, 0.0]])
    for least in (3, 4):
        yield torch.tensor([[6.0, 8.0], [0.0, -10.0], [10.0, 0.0], [100.0, 10.5]]), on_a_grid, 10.0, least
