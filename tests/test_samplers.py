"""Samplers against diffusers' schedulers, step for step, and against a data distribution known exactly."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from course_utils.diffusion import samplers
from course_utils.diffusion.schedules import alpha_bar_from_beta, linear_beta

ALPHA_BAR = alpha_bar_from_beta(linear_beta())
SAME = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SPACINGS = {"trailing": samplers.trailing_times, "leading": samplers.leading_times}
MEAN, DEVIATION = 0.3, 0.5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian_eps(x_t, t, cond=None):
    """The exact eps where the data are N(MEAN, DEVIATION^2): E[eps | x_t], both being Gaussian."""
    alpha_bar_t = ALPHA_BAR[t].reshape(-1, *[1] * (x_t.ndim - 1))
    variance = alpha_bar_t * DEVIATION**2 + 1 - alpha_bar_t
    return (1 - alpha_bar_t).sqrt() * (x_t - alpha_bar_t.sqrt() * MEAN) / variance


def wavy_eps(x_t, t, cond=None):
    """Any smooth function: a stand-in on which two implementations must agree."""
    return torch.tanh(x_t) + 0.1 * torch.sin(t.reshape(-1, 1, 1, 1) / 100)


def assert_same_steps(ours, scheduler, times, x_t, **step_options):
    """Follow a diffusers scheduler beside our sampler and compare x_t and x0_hat after every step."""
    assert scheduler.timesteps.tolist() == times
    for t, mine in zip(scheduler.timesteps, ours, strict=True):
        output = scheduler.step(wavy_eps(x_t, t.expand(len(x_t))), t, x_t, **step_options)
        x_t = output.prev_sample
        torch.testing.assert_close(mine.x_t, x_t, rtol=1e-3, atol=2e-4)
        if "pred_original_sample" in output:
            torch.testing.assert_close(mine.x0_hat, output.pred_original_sample, rtol=1e-3, atol=2e-4)
    assert mine.t == -1


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_ddpm_equals_diffusers(spacing, clip):
    scheduler = DDPMScheduler(timestep_spacing=spacing, clip_sample=clip is not None, **SAME)
    scheduler.set_timesteps(20)
    times = SPACINGS[spacing](1000, 20)
    x_T = samplers.draw_noise((2, 3, 4, 4), generator())
    ours = samplers.ddpm(wavy_eps, x_T, ALPHA_BAR, times, generator=generator(1), clip=clip)
    assert_same_steps(ours, scheduler, times, x_T, generator=generator(1))


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_ddim_equals_diffusers(spacing, eta, clip):
    scheduler = DDIMScheduler(timestep_spacing=spacing, clip_sample=clip is not None, **SAME)
    scheduler.set_timesteps(20)
    times = SPACINGS[spacing](1000, 20)
    x_T = samplers.draw_noise((2, 3, 4, 4), generator())
    ours = samplers.ddim(wavy_eps, x_T, ALPHA_BAR, times, eta=eta, generator=generator(1), clip=clip)
    options = {"eta": eta, "generator": generator(1), "use_clipped_model_output": True}
    assert_same_steps(ours, scheduler, times, x_T, **options)


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_dpm_solver_equals_diffusers(steps):
    # final_sigmas_type="zero": the last step goes to no noise at all, and is of first order.
    scheduler = DPMSolverMultistepScheduler(timestep_spacing="trailing", final_sigmas_type="zero", **SAME)
    scheduler.set_timesteps(steps)
    times = samplers.trailing_times(1000, steps)
    x_T = samplers.draw_noise((2, 3, 4, 4), generator())
    ours = samplers.dpm_solver(wavy_eps, x_T, ALPHA_BAR, times)
    assert_same_steps(ours, scheduler, times, x_T)


def test_ddim_with_full_noise_is_ddpm():
    x_T, times = samplers.draw_noise((2, 3, 4, 4), generator()), samplers.trailing_times(1000, 10)
    ddpm = samplers.ddpm(wavy_eps, x_T, ALPHA_BAR, times, generator(1))
    ddim = samplers.ddim(wavy_eps, x_T, ALPHA_BAR, times, eta=1.0, generator=generator(1))
    torch.testing.assert_close(samplers.finish(ddim), samplers.finish(ddpm), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm_solver"])
def test_the_exact_eps_leads_to_the_exact_distribution(name):
    x_T = samplers.draw_noise((40_000, 1), generator())
    options = {"generator": generator(1)} if name == "ddpm" else {}
    times = samplers.trailing_times(1000, 100 if name == "dpm_solver" else 1000)
    x0 = samplers.finish(getattr(samplers, name)(gaussian_eps, x_T, ALPHA_BAR, times, **options))
    assert x0.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x0.std().item() == pytest.approx(DEVIATION, abs=0.01)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm_solver", 2)])
def test_error_falls_with_the_order_of_the_solver(name, order):
    """For Gaussian data the exact path is known: a point keeps its distance from the mean in deviations."""

    def exact_state(t):
        alpha_bar_t = ALPHA_BAR[t]
        deviation = (alpha_bar_t * DEVIATION**2 + 1 - alpha_bar_t).sqrt()
        return alpha_bar_t.sqrt() * MEAN + deviation * distance

    def error(stride):
        times = list(range(999, 98, -stride))
        *_, at_99, _ = getattr(samplers, name)(gaussian_eps, exact_state(999), ALPHA_BAR, times)
        assert at_99.t == 99
        return (at_99.x_t - exact_state(99)).abs().max().item()

    distance = torch.linspace(-2, 2, 9)[:, None]
    assert error(90) / error(45) > 0.9 * 2**order  # half the step: half the error, or a quarter


def test_steps_report_time_state_and_guess():
    x_T = samplers.draw_noise((2, 3, 4, 4), generator())
    before = x_T.clone()
    steps = list(samplers.ddim(wavy_eps, x_T, ALPHA_BAR, [999, 500, 100]))
    assert [step.t for step in steps] == [500, 100, -1]
    assert all(step.x_t.shape == step.x0_hat.shape == x_T.shape for step in steps)
    assert torch.equal(steps[-1].x_t, steps[-1].x0_hat)  # no noise left
    assert torch.equal(x_T, before)


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_the_last_step_draws_no_noise(name):
    used, expected = generator(1), generator(1)
    options = {"eta": 1.0} if name == "ddim" else {}
    times = [999, 500, 100]
    sampler = getattr(samplers, name)
    samplers.finish(sampler(gaussian_eps, torch.ones(2, 5), ALPHA_BAR, times, generator=used, **options))
    for _ in range(2):
        samplers.draw_noise((2, 5), expected)
    assert torch.equal(used.get_state(), expected.get_state())


def test_the_model_gets_whole_numbers_one_per_sample_and_the_condition():
    calls = []

    def model(x_t, t, cond=None):
        calls.append((t.tolist(), t.dtype, cond, torch.is_grad_enabled()))
        return x_t

    samplers.finish(samplers.ddim(model, torch.zeros(2, 5), ALPHA_BAR, [999, 0], cond="a corgi"))
    assert calls == [([999, 999], torch.int64, "a corgi", False), ([0, 0], torch.int64, "a corgi", False)]


def test_times():
    assert samplers.trailing_times(1000, 4) == [999, 749, 499, 249]
    assert samplers.leading_times(1000, 4) == [750, 500, 250, 0]
    for times in (samplers.trailing_times, samplers.leading_times):
        assert times(1000, 1000) == list(range(999, -1, -1))
        assert all(len(set(times(1000, steps))) == steps for steps in range(1, 1000, 7))
        for steps in (0, 1001):
            with pytest.raises(ValueError, match="between 1 and T=1000"):
                times(1000, steps)


def test_one_generator_per_sample_makes_pictures_independent_of_their_batch():
    def sample(seeds):
        generators = [generator(seed) for seed in seeds]
        x_T = samplers.draw_noise((len(seeds), 3, 4, 4), generators)
        return samplers.finish(samplers.ddpm(wavy_eps, x_T, ALPHA_BAR, [999, 500, 100], generators))

    together, alone = sample([7, 8, 9]), sample([8])
    torch.testing.assert_close(together[1], alone[0])
    assert not torch.allclose(together[0], together[1])
    with pytest.raises(ValueError, match="3 generators"):
        samplers.draw_noise((3, 2), [generator()])


def conditional_model(calls):
    def model(x_t, t, cond):
        assert len(x_t) == len(t) == len(cond)
        calls.append(len(x_t))
        return cond.mean(1)[:, None] * x_t + t[:, None]

    return model


@pytest.mark.parametrize("null_shape", [(1, 4), (4,), (3, 4)])
@pytest.mark.parametrize("scale", [0.0, 2.0, 7.5])
def test_guidance_goes_from_null_towards_the_condition_in_one_call(scale, null_shape):
    calls = []
    x_t, t = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([5, 6, 7])
    cond, null = torch.tensor([[1.0], [2.0], [3.0]]).expand(3, 4), torch.full(null_shape, 0.5)
    eps = samplers.guided(conditional_model(calls), null, scale)(x_t, t, cond)
    expected = (0.5 + scale * (cond[:, :1] - 0.5)) * x_t + t[:, None]
    torch.testing.assert_close(eps, expected)
    assert calls == [6]


def test_guidance_of_one_is_the_conditional_model_at_no_extra_cost():
    calls = []
    x_t, t, cond = torch.ones(3, 1), torch.tensor([5, 6, 7]), torch.full((3, 4), 2.0)
    eps = samplers.guided(conditional_model(calls), torch.zeros(1, 4), 1)(x_t, t, cond)
    torch.testing.assert_close(eps, 2 * x_t + t[:, None])
    assert calls == [3]
    with pytest.raises(ValueError, match="Pass cond to the sampler"):
        samplers.guided(conditional_model(calls), torch.zeros(1, 4), 2.0)(x_t, t)


def test_samplers_refuse_what_does_not_fit():
    x_T = torch.zeros(2, 5)
    for times in ([], [0, 999], [5, 5], [1000], [3, -1]):
        with pytest.raises(ValueError, match="Expected falling times"):
            samplers.finish(samplers.ddim(gaussian_eps, x_T, ALPHA_BAR, times))
    with pytest.raises(ValueError, match="eta from 0 to 1"):
        samplers.finish(samplers.ddim(gaussian_eps, x_T, ALPHA_BAR, [999], eta=1.5))
    with pytest.raises(ValueError, match="pass a generator"):
        samplers.finish(samplers.ddim(gaussian_eps, x_T, ALPHA_BAR, [999], eta=0.5))
    with pytest.raises(ValueError, match="the predicted eps and x_t of one shape"):
        samplers.finish(samplers.ddim(lambda x_t, t, cond: x_t[:, :1], x_T, ALPHA_BAR, [999]))
