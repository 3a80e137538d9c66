"""Rectified flow: line, marginal velocity, diffusion as a flow, times, samplers; by closed forms and diffusers."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

from course_utils.data.points import ring_centres
from course_utils.diffusion import flow, objectives, samplers
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta

ALPHA_BAR = alpha_bar_from_beta(scaled_linear_beta())
CENTRES = torch.tensor([[0.0, 1.2], [-1.0, -0.8], [1.1, -0.6]])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clouds(count, spread, centres=CENTRES):
    """Points of equally likely round Gaussians, `count` of each."""
    return centres.repeat(count, 1) + spread * noise(count * len(centres), 2, seed=7)


def exact(spread=0.2, centres=CENTRES, count=60):
    data = clouds(count, spread, centres)
    return lambda x_t, t, cond=None: flow.marginal_velocity(x_t, t.to(x_t), data.to(x_t))


def test_the_line_and_its_ends():
    x0, eps, t = noise(4, 3, 8, 8), noise(4, 3, 8, 8, seed=1), torch.tensor([0.0, 0.25, 0.6, 1.0])
    x_t, u = flow.interpolate(x0, eps, t), eps - x0
    assert torch.equal(x_t[0], x0[0]) and torch.equal(x_t[3], eps[3])
    torch.testing.assert_close(x_t[1], 0.75 * x0[1] + 0.25 * eps[1])
    torch.testing.assert_close(flow.x0_from_velocity(x_t, u, t), x0)
    torch.testing.assert_close(flow.eps_from_velocity(x_t, u, t), eps)


def test_the_line_is_that_of_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler()
    x0, eps = noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=1)
    number = scheduler.timesteps[300:301]
    theirs = scheduler.scale_noise(x0, number.expand(2), eps)
    torch.testing.assert_close(flow.interpolate(x0, eps, number.expand(2) / 1000), theirs)


@pytest.mark.parametrize("level", [0.02, 0.3, 0.8, 1.0])
def test_the_marginal_velocity_follows_from_the_score(level):
    """E[eps | x_t] is minus the score times t; and x_t = (1 - t) E[x0 | x_t] + t E[eps | x_t]."""
    data, t = noise(20, 3).double(), torch.full((9,), level, dtype=torch.float64)
    x_t = (1 - level) * data[:9] + level * noise(9, 3, seed=1)
    spread = level * torch.ones(20, 3, dtype=torch.float64)
    parts = torch.distributions.Independent(torch.distributions.Normal((1 - level) * data, spread), 1)
    density = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(20)), parts)
    x_t.requires_grad_()
    (score,) = torch.autograd.grad(density.log_prob(x_t).sum(), x_t)
    eps = -level * score
    x0 = (x_t - level * eps) / (1 - level) if level < 1 else data.mean(0)
    torch.testing.assert_close(flow.marginal_velocity(x_t, t, data), eps - x0)


@pytest.mark.parametrize("level", [0.2, 0.5, 0.9])
def test_many_points_are_as_good_as_a_gaussian(level):
    """Of a Gaussian with mean m and deviation r the velocity is linear: (t - (1 - t) r^2) / v (x - (1 - t) m) - m."""
    data = clouds(100_000, 0.5, CENTRES[1:2])
    x_t, t, m = (1 - level) * CENTRES[1] + 0.3 * noise(6, 2), torch.full((6,), level), CENTRES[1]
    variance = (1 - level) ** 2 * 0.5**2 + level**2
    expected = (level - (1 - level) * 0.5**2) / variance * (x_t - (1 - level) * m) - m
    torch.testing.assert_close(flow.marginal_velocity(x_t, t, data), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.8])
def test_the_marginal_velocity_is_the_mean_of_the_lines_through_a_point(t):
    """By simulation: lines that pass near a point, weighted by how near, with a narrow kernel."""
    generator = torch.Generator().manual_seed(0)
    x0 = CENTRES[torch.randint(3, (400_000,), generator=generator)]
    eps = torch.randn(400_000, 2, generator=generator)
    time = torch.full((400_000,), t)
    x_t = flow.interpolate(x0, eps, time)
    point = (1 - t) * CENTRES[:1] + t / 2
    weights = (-(x_t - point).square().sum(1) / (2 * (t / 20) ** 2)).exp()
    simulated = (weights[:, None] * (eps - x0)).sum(0) / weights.sum()
    found = flow.marginal_velocity(point, torch.tensor([t]), CENTRES)[0]
    error = 4 * 2 / math.sqrt(weights.sum() ** 2 / weights.square().sum())
    assert (found - simulated).abs().max() < max(error, 0.03)


def test_the_marginal_velocity_has_the_least_loss():
    """The loss of the exact velocity moved a little in any direction is larger."""
    x0, eps = clouds(60, 0.2).repeat(120, 1), noise(21_600, 2)
    t = torch.rand(21_600, generator=torch.Generator().manual_seed(1)).clamp(min=0.01)
    model = exact()
    least = flow.velocity_loss(model, x0, t, eps).mean()
    for change in (lambda u: u + 0.1, lambda u: 1.1 * u, lambda u: 0.9 * u):
        moved = flow.velocity_loss(lambda x, t, cond, change=change: change(model(x, t)), x0, t, eps).mean()
        assert moved > least


def test_velocity_loss_is_a_mean_square_for_each_sample():
    x0, eps, t = noise(3, 2, 4, 4), noise(3, 2, 4, 4, seed=1), torch.tensor([0.1, 0.5, 0.9])
    loss = flow.velocity_loss(lambda x, t, cond: torch.zeros_like(x), x0, t, eps)
    torch.testing.assert_close(loss, (eps - x0).square().flatten(1).mean(1))
    with pytest.raises(ValueError, match="velocity and x0"):
        flow.velocity_loss(lambda x, t, cond: x[:, :1], x0, t, eps)


def test_a_noisy_sample_of_diffusion_lies_on_the_line_when_scaled():
    x0, eps, s = noise(4, 2), noise(4, 2, seed=1), torch.tensor([0, 100, 600, 999])
    t = flow.flow_time(ALPHA_BAR[s])
    a = ALPHA_BAR[s][:, None]
    scaled = add_noise(x0, eps, s, ALPHA_BAR) / (a.sqrt() + (1 - a).sqrt())
    torch.testing.assert_close(scaled, flow.interpolate(x0, eps, t))


def test_a_diffusion_model_as_a_flow():
    """The triple is the time, the point on the line and the velocity along it, for a number and for one of each."""
    x0, eps, s = noise(4, 2, 3), noise(4, 2, 3, seed=1), torch.tensor([0, 100, 600, 999])
    x, a = add_noise(x0, eps, s, ALPHA_BAR), ALPHA_BAR[s][:, None, None]
    t, y, u = flow.as_flow(x, eps, a)
    torch.testing.assert_close(t[:, 0, 0], flow.flow_time(ALPHA_BAR[s]))
    torch.testing.assert_close(y, flow.interpolate(x0, eps, t[:, 0, 0]))
    torch.testing.assert_close(u, eps - x0, rtol=1e-3, atol=1e-4)
    level, point, velocity = flow.as_flow(x[2:3], eps[2:3], ALPHA_BAR[600].item())
    assert isinstance(level, float) and abs(level - t[2].item()) < 1e-6
    torch.testing.assert_close((point, velocity), (y[2:3], u[2:3]))


def test_euler_on_a_diffusion_model_is_ddim():
    """Of the exact model of a ring: the same samples, along the way too."""
    centres, T = ring_centres(8, 0.1).double(), len(ALPHA_BAR)
    table = ALPHA_BAR.double()

    def eps_model(x, s, cond=None):
        return objectives.mixture_eps(x, s, table, centres, 0.1)

    times = samplers.trailing_times(T, 8)
    x_T = noise(64, 2).double()
    signal, spread = table[-1].sqrt(), (1 - table[-1]).sqrt()
    steps = list(samplers.ddim(eps_model, x_T, table, times))
    moments = torch.cat([flow.flow_time(table[times]), torch.zeros(1)])
    ours = list(flow.euler(flow.as_velocity(eps_model, table), x_T / (signal + spread), moments))
    for step, mine in zip(steps, ours, strict=True):
        a = table[step.t] if step.t >= 0 else torch.ones(())
        torch.testing.assert_close(mine.x_t * (a.sqrt() + (1 - a).sqrt()), step.x_t, rtol=0, atol=1e-5)
        torch.testing.assert_close(mine.x0_hat, step.x0_hat, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("steps", [1, 4, 28])
def test_times_are_those_of_diffusers(steps, shift):
    """Given the times of Flux; and left to itself, as Stable Diffusion 3's pipeline leaves it."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).numpy())
    torch.testing.assert_close(flow.flow_times(steps, shift).float(), scheduler.sigmas, rtol=0, atol=1e-6)
    scheduler.set_timesteps(steps)
    last = flow.shift_times(torch.tensor(0.001, dtype=torch.float64), shift).item()
    torch.testing.assert_close(flow.flow_times(steps, shift, last).float(), scheduler.sigmas, rtol=0, atol=1e-6)


def test_a_shift_undoes_its_inverse_and_keeps_the_ends():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    moved = flow.shift_times(t, 3.0)
    assert moved[0] == 0 and moved[-1] == 1 and (moved[1:-1] > t[1:-1]).all()
    torch.testing.assert_close(flow.shift_times(moved, 1 / 3), t)
    ratio = (moved / (1 - moved) / (t / (1 - t)))[1:-1]  # the ratio of noise to signal is three times as large
    torch.testing.assert_close(ratio, torch.full_like(ratio, 3.0))


def test_the_shift_keeps_what_is_known_of_a_flat_picture():
    """The mean of m noisy pixels of one grey level is as uncertain as one pixel at the unshifted time."""
    t, m = torch.tensor(0.4, dtype=torch.float64), 16
    moved = flow.shift_times(t, math.sqrt(m))
    torch.testing.assert_close(moved / (1 - moved) / math.sqrt(m), t / (1 - t))


def test_logit_normal_times():
    t = objectives.logit_normal(noise(100_000), 0.5, 0.8)
    assert t.min() > 0 and t.max() < 1
    torch.testing.assert_close(t.logit().mean(), torch.tensor(0.5), rtol=0, atol=0.02)
    torch.testing.assert_close(t.logit().std(), torch.tensor(0.8), rtol=0, atol=0.02)
    with pytest.raises(ValueError, match="std > 0"):
        objectives.logit_normal(noise(3), std=0.0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_is_that_of_diffusers(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 7, 7).numpy())
    x = x_1 = noise(16, 2)
    for number in scheduler.timesteps:
        u = exact()(x, (number / 1000).expand(16))
        x = scheduler.step(u, number, x).prev_sample
    torch.testing.assert_close(
        samplers.finish(flow.euler(exact(), x_1, flow.flow_times(7, shift))), x, rtol=0, atol=1e-5
    )


def test_heun_is_that_of_diffusers():
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(6)
    x = x_1 = noise(16, 2)
    asked = 0
    for number in scheduler.timesteps:
        x, asked = scheduler.step(exact()(x, (number / 1000).expand(16)), number, x).prev_sample, asked + 1
    times = torch.cat([scheduler.timesteps[::2] / 1000, torch.zeros(1)])
    assert asked == 2 * 6 - 1
    torch.testing.assert_close(samplers.finish(flow.heun(exact(), x_1, times)), x, rtol=0, atol=1e-5)


def test_heun_is_of_second_order():
    """Half the step: half the error for Euler's method, a quarter for Heun's."""
    x_1, model = noise(64, 2).double(), exact(0.5, count=10)
    times = [0.9 - 0.7 * torch.linspace(0, 1, n + 1, dtype=torch.float64) for n in (20, 40, 2000)]
    for sampler, order in ((flow.euler, 1), (flow.heun, 2)):
        coarse, fine, true = (samplers.finish(sampler(model, x_1, part)) for part in times)
        ratio = (coarse - true).abs().mean() / (fine - true).abs().mean()
        assert abs(math.log2(ratio) - order) < 0.25


def test_samples_have_the_right_distribution():
    x = samplers.finish(flow.heun(exact(0.1, ring_centres(8, 0.1)), noise(2000, 2), flow.flow_times(40)))
    distance, nearest = torch.cdist(x, ring_centres(8, 0.1)).min(1)
    assert distance.mean() < 0.16  # of a Gaussian with deviation 0.1 in the plane: 0.125
    assert (torch.bincount(nearest, minlength=8) > 180).all()


def test_straight_paths_have_no_curvature():
    times = flow.flow_times(50, 3.0)
    x_1, x_0 = noise(256, 2, 3), noise(256, 2, 3, seed=1)
    straight = [x_0 + t * (x_1 - x_0) for t in times.tolist()]
    assert flow.curvature(straight, times).max() < 1e-6
    one = torch.tensor([[0.7, -0.3]])
    path = visited(lambda x, t, cond: (x - one) / t[:, None], noise(256, 2), times)  # all lines end in one point
    assert flow.curvature(path, times).max() < 1e-6
    assert flow.curvature(visited(exact(), noise(256, 2), times), times).mean() > 0.02


def test_the_curvature_of_an_arc_is_that_of_the_integral():
    """Of a half circle at constant speed: the speed is pi / 2 times that of the chord, so S = (pi / 2)^2 - 1."""
    times = flow.flow_times(400, 2.0)
    path = [torch.tensor([[math.cos(math.pi * t), math.sin(math.pi * t)]]) for t in times.tolist()]
    torch.testing.assert_close(flow.curvature(path, times), torch.tensor([math.pi**2 / 4 - 1]), rtol=0, atol=1e-4)
    there = [torch.tensor([[t**2, 0.0]]) for t in times.tolist()]  # straight, but not at constant speed
    torch.testing.assert_close(flow.curvature(there, times), torch.tensor([1 / 3]), rtol=0, atol=1e-4)


def visited(model, x_1, times):
    return [x_1, *(step.x_t for step in flow.euler(model, x_1, times))]


def test_reflow_pairs_noises_with_their_samples():
    x_1, times = noise(256, 2), flow.flow_times(50)
    x0, eps = flow.reflow_pairs(exact(), x_1, times)
    assert torch.equal(eps, x_1)
    torch.testing.assert_close(x0, samplers.finish(flow.heun(exact(), x_1, times)))


def test_sampling_ends_where_the_steps_end():
    x_1, times = noise(16, 2), flow.flow_times(5, 2.0).tolist()
    for second, sampler in ((False, flow.euler), (True, flow.heun)):
        expected = samplers.finish(sampler(exact(), x_1, times))
        assert torch.equal(flow.sample_flow(exact(), x_1, times, second=second), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flow.interpolate(noise(2, 3), noise(3, 3), torch.zeros(2)), "x0 and eps"),
        (lambda: flow.interpolate(noise(2, 3), noise(2, 3), torch.tensor([3.0, 500.0])), "share of noise"),
        (lambda: flow.interpolate(noise(2, 3), noise(2, 3), torch.zeros(3)), "one time in"),
        (lambda: flow.flow_times(0), "steps >= 1"),
        (lambda: flow.flow_times(4, last=0.0), "last"),
        (lambda: flow.shift_times(torch.ones(1), 0.0), "shift > 0"),
        (lambda: next(flow.euler(exact(), noise(2, 2), torch.tensor([0.0, 1.0]))), "falling times"),
        (lambda: flow.marginal_velocity(noise(2, 2), torch.tensor([0.0, 0.5]), CENTRES), "times above 0"),
        (lambda: flow.as_flow(noise(2, 2), noise(2, 1), 0.5), "x and eps"),
        (lambda: flow.curvature([noise(2, 2)] * 3, [1.0, 0.0]), "each of 3 points"),
        (lambda: flow.curvature([noise(2, 2)] * 2, [0.9, 0.0]), "from 1 to 0"),
        (lambda: next(flow.euler(lambda x, t, cond: x[:1], noise(2, 2), flow.flow_times(2))), "velocity and x_t"),
    ],
)
def test_bad_input_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
