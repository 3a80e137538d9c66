"""Adversarial training: closed forms of losses, steps and penalty; the networks' shapes."""

import copy
import math

import pytest
import torch
from torch import nn

from course_utils.data import points
from course_utils.models.adversarial import (
    discriminator_loss,
    discriminator_step,
    generator_loss,
    generator_step,
    modes_covered,
    optimal_discriminator,
    play,
    r1_penalty,
)
from course_utils.models.gan import PictureDiscriminator, PictureGenerator, PointDiscriminator, PointGenerator


def normals(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_value_at_the_optimal_discriminator_is_the_jensen_shannon_divergence():
    from scipy.spatial.distance import jensenshannon

    p = torch.softmax(normals(50).double(), 0)
    q = torch.softmax(normals(50, seed=1).double(), 0)
    best = optimal_discriminator(p, q)
    value = (p * best.log()).sum() + (q * (1 - best).log()).sum()
    assert value.item() == pytest.approx(2 * jensenshannon(p, q) ** 2 - math.log(4), abs=1e-9)
    worse = (p * (0.9 * best).log()).sum() + (q * (1 - 0.9 * best).log()).sum()
    assert worse < value
    with pytest.raises(ValueError, match="one shape"):
        optimal_discriminator(p, q[:1])


def test_the_losses_are_binary_cross_entropy():
    from torch.nn.functional import binary_cross_entropy_with_logits as bce

    real, fake = 3 * normals(7), 3 * normals(5, seed=1)
    expected = bce(real, torch.ones(7)) + bce(fake, torch.zeros(5))
    assert discriminator_loss(real, fake).item() == pytest.approx(expected.item(), rel=1e-6)
    assert generator_loss(fake).item() == pytest.approx(bce(fake, torch.ones(5)).item(), rel=1e-6)
    extreme = torch.tensor([-1000.0, 1000.0])
    assert discriminator_loss(extreme, extreme).item() == pytest.approx(1000)
    assert generator_loss(extreme).item() == pytest.approx(500)


def test_the_penalty_of_a_known_function():
    x, weights = normals(6, 3, 4, 4), normals(3, 4, 4, seed=1).requires_grad_()

    def quadratic(x):
        return (weights * x.square()).flatten(1).sum(1)  # gradient 2 w x

    penalty = r1_penalty(quadratic, x)
    assert penalty.item() == pytest.approx((2 * weights * x).square().sum().item() / 6, rel=1e-5)
    (slope,) = torch.autograd.grad(penalty, weights)
    torch.testing.assert_close(slope, 8 * weights.detach() * x.square().mean(0))
    assert not x.requires_grad


class Line(nn.Module):
    """a x + b, summed over the numbers of a sample or kept."""

    def __init__(self, a, b, summed):
        super().__init__()
        self.a, self.b, self.summed = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b)), summed

    def forward(self, x):
        return (self.a * x + self.b).sum(1) if self.summed else self.a * x + self.b


def test_each_step_updates_its_own_network_by_the_closed_form():
    G, D = Line(0.5, 0.2, False), Line(1.5, -0.3, True)
    x, z = normals(64, 1), normals(64, 1, seed=1)
    fake = (0.5 * z + 0.2).squeeze(1)
    answer = torch.sigmoid(1.5 * fake - 0.3)
    real = torch.sigmoid(-(1.5 * x.squeeze(1) - 0.3))
    slope_a = (-real * x.squeeze(1)).mean() + (answer * fake).mean() + 0.7 * 1.5  # of gamma / 2 a^2, gamma = 0.7
    before = copy.deepcopy(G.state_dict())
    loss = discriminator_step(G, D, torch.optim.SGD(D.parameters(), 0.1), x, z, gamma=0.7)
    assert D.a.item() == pytest.approx(1.5 - 0.1 * slope_a.item(), rel=1e-5)
    assert all(torch.equal(before[name], value) for name, value in G.state_dict().items())
    assert all(p.grad is None for p in G.parameters()) and not loss.requires_grad

    a, b = D.a.item(), D.b.item()
    answer = torch.sigmoid(a * fake + b)
    before = copy.deepcopy(D.state_dict())
    for _ in range(2):  # what lies in D's gradients does not add up into G's
        G.load_state_dict({"a": torch.tensor(0.5), "b": torch.tensor(0.2)})
        generator_step(G, D, torch.optim.SGD(G.parameters(), 0.1), z)
    assert G.b.item() == pytest.approx(0.2 + 0.1 * a * (1 - answer).mean().item(), rel=1e-5)
    assert all(torch.equal(before[name], value) for name, value in D.state_dict().items())


def test_modes_are_counted():
    centres = points.ring_centres(8, 0.05)
    ring = points.gaussian_ring(800, torch.Generator().manual_seed(0), 8, 0.05)
    assert modes_covered(ring, centres, 0.15) == 8
    few = centres.repeat_interleave(torch.tensor([19, 20, 0, 100, 0, 0, 0, 0]), 0)
    assert modes_covered(few, centres, 0.15) == 2 and modes_covered(few, centres, 0.15, least=1) == 3
    assert modes_covered(few + 0.2, centres, 0.15) == 0


@pytest.mark.parametrize("channels, size", [(1, 16), (3, 32), (1, 8)])
def test_the_picture_networks_fit_each_other(channels, size):
    G, D = PictureGenerator(channels, size, latent=6, width=8), PictureDiscriminator(channels, size, width=8)
    z = normals(5, 6)
    pictures = G(z)
    assert pictures.shape == (5, channels, size, size) and pictures.abs().max() <= 1
    assert D(pictures).shape == (5,) and PictureDiscriminator(channels, size, 8, outputs=4)(pictures).shape == (5, 4)
    torch.testing.assert_close(G(z[:1]), pictures[:1], rtol=1e-4, atol=1e-5)  # alone or in company
    for size in (4, 12, 24):
        with pytest.raises(ValueError, match="power of two"):
            PictureGenerator(channels, size)


def test_a_game_is_repeatable_and_learns_where_the_points_are():
    data = points.gaussian_ring(2000, torch.Generator().manual_seed(0), 2, 0.1)

    def played(seed):
        torch.manual_seed(0)
        G, D = PointGenerator(width=16), PointDiscriminator(width=16)
        average = copy.deepcopy(G)
        rounds = list(play(G, D, data, 300, gamma=0.1, average=average, seed=seed))
        return rounds, G(normals(500, 2)), average(normals(500, 2))

    (rounds, samples, slow), (again, *_), (other, *_) = played(0), played(0), played(1)
    assert rounds == again != other and [r.step for r in rounds] == list(range(1, 301))
    assert samples.std(0)[0] > 3 * samples.std(0)[1]  # two clusters side by side
    assert not torch.equal(samples, slow)
