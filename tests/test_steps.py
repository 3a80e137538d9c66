"""Single steps of the samplers: against conditioning, against each other, against diffusers, and their errors."""

import math

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDPMScheduler, HeunDiscreteScheduler

from course_utils.data import points
from course_utils.diffusion import objectives, samplers, steps
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, linear_beta

ALPHA_BAR = alpha_bar_from_beta(linear_beta())
SAME = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "trailing"}
CENTRES = points.ring_centres(8, 0.1)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def wavy(x_t, t, cond=None):
    return torch.tanh(x_t) + 0.1 * torch.sin(t.reshape(-1, *[1] * (x_t.ndim - 1)) / 100)


def ring(alpha_bar):
    return lambda x_t, t, cond=None: objectives.mixture_eps(x_t, t, alpha_bar, CENTRES.to(x_t), 0.1)


@pytest.mark.parametrize("t, earlier", [(999, 998), (700, 100), (5, 0), (0, -1), (400, -1)])
def test_the_posterior_is_the_conditional_of_a_joint_gaussian(t, earlier):
    a, e = (1.0 if level < 0 else ALPHA_BAR[level].double().item() for level in (t, earlier))
    x0, x_t = normal(4, 3), normal(4, 3, seed=1)
    mean, variance = steps.posterior(x0, x_t, t, earlier, ALPHA_BAR)
    covariance = math.sqrt(a / e) * (1 - e)
    torch.testing.assert_close(mean, math.sqrt(e) * x0 + covariance / (1 - a) * (x_t - math.sqrt(a) * x0),
                               rtol=1e-4, atol=1e-5)  # fmt: skip
    assert variance == pytest.approx(1 - e - covariance**2 / (1 - a), rel=1e-4, abs=1e-9)


def test_the_posterior_of_samples_is_that_of_the_chain():
    """x_earlier drawn from q( . | x_t, x0) with x_t drawn from q(x_t | x0) has the distribution q(x_earlier | x0)."""
    x0 = torch.full((100_000, 1), 0.8)
    x_t = add_noise(x0, normal(100_000, 1), torch.full((100_000,), 600), ALPHA_BAR)
    mean, variance = steps.posterior(x0, x_t, 600, 300, ALPHA_BAR)
    drawn = mean + math.sqrt(variance) * normal(100_000, 1, seed=1)
    a = ALPHA_BAR[300].item()
    assert drawn.mean().item() == pytest.approx(0.8 * math.sqrt(a), abs=0.01)
    assert drawn.var().item() == pytest.approx(1 - a, abs=0.01)


def test_the_variance_is_diffusers():
    scheduler = DDPMScheduler(**SAME)
    scheduler.set_timesteps(1000)
    for t in (1, 10, 500, 999):
        _, variance = steps.posterior(normal(1, 1), normal(1, 1), t, t - 1, ALPHA_BAR)
        assert variance == pytest.approx(scheduler._get_variance(t).item(), rel=1e-3)


@pytest.mark.parametrize("clip", [None, 0.7])
def test_a_guess_and_its_eps_make_x_t(clip):
    x_t, eps = normal(4, 3, 8, 8), normal(4, 3, 8, 8, seed=1)
    x0_hat, mended = steps.guess(x_t, eps, 600, ALPHA_BAR, clip)
    times = torch.full((4,), 600)
    torch.testing.assert_close(add_noise(x0_hat, mended, times, ALPHA_BAR), x_t, rtol=1e-4, atol=1e-5)
    assert x0_hat.abs().max() <= (clip or math.inf) and mended.equal(eps) == (clip is None)


def test_ddim_with_eta_one_is_ddpm_and_the_last_steps_agree():
    x_t, eps, noise = normal(4, 5), normal(4, 5, seed=1), normal(4, 5, seed=2)
    for t, earlier in ((900, 400), (20, 19), (30, -1)):
        ddpm = steps.ddpm_step(x_t, eps, t, earlier, ALPHA_BAR, noise, clip=1)
        ddim = steps.ddim_step(x_t, eps, t, earlier, ALPHA_BAR, 1.0, noise, clip=1)
        torch.testing.assert_close(ddim, ddpm, rtol=1e-4, atol=1e-5)
    x0_hat, _ = steps.guess(x_t, eps, 30, ALPHA_BAR)
    for last in (steps.ddpm_step(x_t, eps, 30, -1, ALPHA_BAR, noise), steps.ddim_step(x_t, eps, 30, -1, ALPHA_BAR),
                 steps.dpm_solver_step(x_t, x0_hat, noise, 90, 30, -1, ALPHA_BAR),
                 steps.heun_step(lambda x, t, cond: eps, x_t, 30, -1, ALPHA_BAR)):  # fmt: skip
        torch.testing.assert_close(last, x0_hat, rtol=1e-4, atol=1e-5)


def test_the_first_multistep_step_is_ddim():
    x_t, eps = normal(4, 5), normal(4, 5, seed=1)
    x0_hat, _ = steps.guess(x_t, eps, 700, ALPHA_BAR)
    multistep = steps.dpm_solver_step(x_t, x0_hat, None, None, 700, 300, ALPHA_BAR)
    torch.testing.assert_close(multistep, steps.ddim_step(x_t, eps, 700, 300, ALPHA_BAR), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_heun_equals_diffusers(count):
    scheduler = HeunDiscreteScheduler(**SAME)
    scheduler.set_timesteps(count)
    x_T = normal(2, 3, 4, 4)
    x = x_T / ALPHA_BAR[-1].sqrt()
    for t in scheduler.timesteps:
        x = scheduler.step(wavy(scheduler.scale_model_input(x, t), t.expand(2)), t, x).prev_sample
    ours = list(samplers.heun(wavy, x_T, ALPHA_BAR, samplers.trailing_times(1000, count)))
    torch.testing.assert_close(ours[-1].x_t, x, rtol=1e-3, atol=1e-3)
    assert [step.t for step in ours][-1] == -1 and len(ours) == count


def test_inversion_equals_diffusers():
    scheduler = DDIMInverseScheduler(clip_sample=False, **SAME)
    scheduler.set_timesteps(10)
    x, t = normal(2, 3, 4, 4), -1
    ours = samplers.ddim_inversion(wavy, x, ALPHA_BAR, samplers.trailing_times(1000, 10))
    for later, mine in zip(scheduler.timesteps.tolist(), ours, strict=True):
        x, t = scheduler.step(wavy(x, torch.tensor([later if t < 0 else t] * 2)), later, x).prev_sample, later
        torch.testing.assert_close(mine.x_t, x, rtol=1e-3, atol=2e-4)
        assert mine.t == later


def test_heun_is_of_second_order_and_a_round_trip_of_first():
    fine = ALPHA_BAR.double()
    x_T = normal(200, 2).double()

    def times(n):
        return [round(999 - i * 900 / n) for i in range(n + 1)]

    def heun(n):
        *_, there, _ = samplers.heun(ring(fine), x_T, fine, times(n))
        return there.x_t

    truth = heun(450)
    errors = [(heun(n) - truth).square().mean().sqrt().item() for n in (15, 30)]
    assert 3 < errors[0] / errors[1] < 6

    def round_trip(n):
        x, path = truth, times(n)[::-1]
        for t, later in zip(path, path[1:], strict=False):
            x = steps.inversion_step(ring(fine), x, t, later, fine)
        *_, back, _ = samplers.ddim(ring(fine), x, fine, times(n))
        return (back.x_t - truth).square().mean().sqrt().item()

    assert 1.6 < round_trip(30) / round_trip(60) < 2.5


def test_the_eps_of_a_mixture_is_that_of_its_density():
    """eps = -sqrt(1 - alpha_bar) d/dx log q(x_t), with the density summed up and the gradient by autograd."""
    t = torch.tensor([0, 300, 999])
    x = normal(3, 2).double().requires_grad_()
    a = ALPHA_BAR.double()[t][:, None]
    variance = a * 0.1**2 + 1 - a
    squares = (x[:, None] - a.sqrt()[:, None] * CENTRES.double()).square().sum(2)
    (-squares / (2 * variance)).logsumexp(1).sum().backward()
    eps = objectives.mixture_eps(x.detach(), t, ALPHA_BAR.double(), CENTRES.double(), 0.1)
    torch.testing.assert_close(eps, -(1 - a).sqrt() * x.grad)


def test_a_mixture_of_points_is_a_finite_data_set():
    x_t, t = normal(5, 2), torch.tensor([10, 100, 400, 700, 999])
    best = objectives.best_x0(x_t, t, ALPHA_BAR, CENTRES)
    eps = objectives.mixture_eps(x_t, t, ALPHA_BAR, CENTRES, 0.0)
    torch.testing.assert_close(eps, objectives.eps_from_x0(x_t, best, t, ALPHA_BAR), rtol=1e-3, atol=1e-4)


def test_what_does_not_fit_is_refused():
    x = normal(2, 5)
    assert steps.alpha_bar_at(ALPHA_BAR, -1) == 1
    for t in (-2, 1000):
        with pytest.raises(ValueError, match="from -1"):
            steps.alpha_bar_at(ALPHA_BAR, t)
    with pytest.raises(ValueError, match="a step back in time"):
        steps.posterior(x, x, 5, 5, ALPHA_BAR)
    with pytest.raises(ValueError, match="a step adds noise"):
        steps.ddim_step(x, x, 5, 2, ALPHA_BAR, eta=0.5)
    with pytest.raises(ValueError, match="of one shape"):
        steps.heun_step(lambda x, t, cond: x[:1], x, 5, 2, ALPHA_BAR)
