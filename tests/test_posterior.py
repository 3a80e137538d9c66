"""Posterior sampling: the step against closed forms and finite differences, whole walks against an exact posterior."""

import pytest
import torch

from course_utils.diffusion import objectives, posterior, samplers, steps
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta

T = 1000
ALPHA_BAR = alpha_bar_from_beta(scaled_linear_beta(T)).double()


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standard(x_t, t, cond=None):
    """The exact eps where the data are standard normal: x0_hat = sqrt(alpha_bar) x_t."""
    return (1 - ALPHA_BAR[t]).sqrt()[:, None] * x_t


def first(x):
    return x[:, :2]


def test_a_step_is_the_closed_form_for_normal_data():
    x_t, z, y = noise(5, 4), noise(5, 4, seed=1), noise(5, 2, seed=2)
    t, earlier, floor, pull = 600, 400, 0.1, 0.7
    a = ALPHA_BAR[t]
    got, x0_hat = posterior.dps_step(standard, x_t, t, earlier, ALPHA_BAR, first, y, floor, z, pull)
    plain = steps.ddim_step(x_t, (1 - a).sqrt() * x_t, t, earlier, ALPHA_BAR, 1.0, z)
    rest = y - a.sqrt() * x_t[:, :2]
    r = rest.norm(dim=1, keepdim=True)
    # g = -sqrt(a) rest / r, of length sqrt(a): the pull is along the rest itself
    moved = pull * (r - floor).clamp(min=0) / a.sqrt() * rest / r
    assert torch.allclose(x0_hat, a.sqrt() * x_t)
    assert torch.allclose(got[:, :2], plain[:, :2] + moved) and torch.allclose(got[:, 2:], plain[:, 2:])


def test_the_gradient_passes_through_model_and_measure():
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    x_t, z, y, t = noise(1, 4), noise(1, 4, seed=1), noise(1, 3, seed=2), 300

    def model(x, t, cond):
        return network(x)

    def measure(x):
        return x[:, :3].sin()

    def residual(x):
        return (y - measure(steps.guess(x, network(x), t, ALPHA_BAR)[0])).norm()

    with torch.no_grad():
        got, _ = posterior.dps_step(model, x_t, t, 100, ALPHA_BAR, measure, y, 0.0, z, 1.0)
        plain, _ = posterior.dps_step(model, x_t, t, 100, ALPHA_BAR, measure, y, 0.0, z, 0.0)
        h = 1e-6
        slopes = torch.stack([(residual(x_t + h * e) - residual(x_t - h * e)) / (2 * h) for e in torch.eye(4).double()])
        expected = residual(x_t) / slopes.square().sum() * slopes
    assert torch.allclose((plain - got)[0], expected, rtol=1e-5) and not got.requires_grad


def test_no_pull_where_it_is_zero_or_the_measurement_fits():
    x_t, z, y = noise(3, 4), noise(3, 4, seed=1), noise(3, 2, seed=2)
    plain = steps.ddim_step(x_t, standard(x_t, torch.full((3,), 600)), 600, 400, ALPHA_BAR, 1.0, z)
    for floor, pull in ((0.0, 0.0), (100.0, 1.0)):
        got, _ = posterior.dps_step(standard, x_t, 600, 400, ALPHA_BAR, first, y, floor, z, pull)
        assert torch.allclose(got, plain)
    fits = x_t[:, :2] * ALPHA_BAR[600].sqrt()
    got, _ = posterior.dps_step(standard, x_t, 600, 400, ALPHA_BAR, first, fits, 0.0, z, 1.0)
    assert torch.allclose(got, plain)


def test_a_sample_does_not_depend_on_its_batch_and_inputs_stay():
    x_t, z, y = noise(3, 4), noise(3, 4, seed=1), noise(3, 2, seed=2)
    before = x_t.clone()
    whole, _ = posterior.dps_step(standard, x_t, 600, 400, ALPHA_BAR, first, y, 0.0, z)
    alone, _ = posterior.dps_step(standard, x_t[1:2], 600, 400, ALPHA_BAR, first, y[1:2], 0.0, z[1:2])
    assert torch.allclose(whole[1:2], alone) and torch.equal(x_t, before) and not x_t.requires_grad


def test_samples_keep_to_the_measurement_and_to_the_prior():
    """Two clouds; measured is the first coordinate, which tells them apart: the second must follow."""
    centres = torch.tensor([[-1.0, 1.0], [1.0, -1.0]]).double()

    def model(x_t, t, cond=None):
        return objectives.mixture_eps(x_t, t, ALPHA_BAR, centres, 0.1)

    sides = torch.tensor([[-1.0], [1.0]]).double().repeat(50, 1)
    walk = posterior.dps(
        model, noise(100, 2), ALPHA_BAR, samplers.trailing_times(T, 50), lambda x: x[:, :1], sides, 0.05,
        torch.Generator().manual_seed(3),
    )  # fmt: skip
    found = samplers.finish(walk)
    assert ((found[:, :1] - sides).abs() < 0.3).double().mean() > 0.95
    assert ((found[:, 1:] + sides).abs() < 0.5).double().mean() > 0.95
    free = samplers.finish(
        samplers.ddim(model, noise(100, 2), ALPHA_BAR, samplers.trailing_times(T, 50), eta=1.0,
                      generator=torch.Generator().manual_seed(3))
    )  # fmt: skip
    assert ((free[:, 1:] + sides).abs() < 0.5).double().mean() < 0.7  # without measuring, chance decides


def test_what_does_not_fit_is_refused():
    x_t, z = noise(3, 4), noise(3, 4, seed=1)
    with pytest.raises(ValueError, match="what was measured"):
        posterior.dps_step(standard, x_t, 600, 400, ALPHA_BAR, first, noise(3, 4), 0.0, z)
    for floor, pull in ((-1.0, 1.0), (0.0, -1.0)):
        with pytest.raises(ValueError, match="floor and a pull"):
            posterior.dps_step(standard, x_t, 600, 400, ALPHA_BAR, first, noise(3, 2), floor, z, pull)
