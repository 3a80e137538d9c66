"""Noise schedules against their definitions, against the step-by-step chain, and against diffusers."""

import math

import pytest
import torch
from diffusers import DDPMScheduler

from course_utils.diffusion.schedules import (
    add_noise,
    alpha_bar_from_beta,
    cosine_beta,
    forward_step,
    kl_to_normal,
    linear_beta,
    scaled_linear_beta,
    signal_and_noise,
    snr,
    variance_at,
)

SCHEDULES = {
    "linear": (linear_beta, {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
    "scaled": (scaled_linear_beta, {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
    "cosine": (cosine_beta, {"beta_schedule": "squaredcos_cap_v2"}),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [1000, 50])
def test_schedules_equal_those_of_diffusers(name, T):
    schedule, configuration = SCHEDULES[name]
    scheduler = DDPMScheduler(num_train_timesteps=T, **configuration)
    beta = schedule(T)
    assert beta.shape == (T,)
    assert beta.dtype == torch.float32
    torch.testing.assert_close(beta, scheduler.betas, rtol=2e-5, atol=1e-8)
    torch.testing.assert_close(alpha_bar_from_beta(beta), scheduler.alphas_cumprod, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_signal_falls_from_nearly_all_to_nearly_nothing(name):
    alpha_bar = alpha_bar_from_beta(SCHEDULES[name][0](1000))
    assert (alpha_bar.diff() < 0).all()
    assert alpha_bar[0] > 0.999
    assert 0 < alpha_bar[-1] < 0.005
    assert (snr(alpha_bar).diff() < 0).all()


def test_schedules_at_their_ends():
    assert linear_beta()[[0, -1]].tolist() == pytest.approx([1e-4, 0.02])
    assert scaled_linear_beta()[[0, -1]].tolist() == pytest.approx([0.00085, 0.012])
    middle = (math.sqrt(0.00085) + math.sqrt(0.012)) / 2
    assert scaled_linear_beta(3)[1].item() == pytest.approx(middle**2)
    assert cosine_beta()[-1].item() == pytest.approx(0.999)
    assert snr(torch.tensor([0.5, 0.8])).tolist() == pytest.approx([1, 4])


def test_add_noise_equals_diffusers():
    scheduler = DDPMScheduler(**SCHEDULES["scaled"][1])
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 3, 8, 8, generator=generator)
    t = torch.tensor([0, 10, 500, 999])
    ours = add_noise(x0, eps, t, alpha_bar_from_beta(scaled_linear_beta()))
    torch.testing.assert_close(ours, scheduler.add_noise(x0, eps, t), rtol=0, atol=5e-6)


def test_one_jump_has_the_distribution_of_the_chain():
    """x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps, its mean and variance followed (DDPM, eq. 2)."""
    beta = linear_beta(100)
    alpha_bar = alpha_bar_from_beta(beta)
    mean, variance = 1.0, 0.0
    for t in range(100):
        mean = math.sqrt(1 - beta[t]) * mean
        variance = (1 - beta[t].item()) * variance + beta[t].item()
        signal, noise = signal_and_noise(torch.tensor([t]), alpha_bar, like=torch.ones(1, 2))
        assert signal.shape == noise.shape == (1, 1)
        assert signal.item() == pytest.approx(mean, rel=1e-5)
        assert noise.item() ** 2 == pytest.approx(variance, rel=2e-3)  # float32 of 1 - alpha_bar near 1
        assert signal.item() ** 2 + noise.item() ** 2 == pytest.approx(1, rel=1e-6)


def test_forward_steps_equal_those_of_diffusers():
    """One step on diffusers' DDPMScheduler with a single beta is its jump to t = 0."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 3, 8, 8, generator=generator)
    for beta in (0.0001, 0.3):
        scheduler = DDPMScheduler(num_train_timesteps=1, trained_betas=[beta])
        expected = scheduler.add_noise(x0, eps, torch.zeros(4, dtype=torch.int64))
        torch.testing.assert_close(forward_step(x0, eps, beta), expected, rtol=0, atol=5e-6)
        torch.testing.assert_close(forward_step(x0, eps, torch.full((4,), beta)), expected, rtol=0, atol=5e-6)
    with pytest.raises(ValueError, match="x_before and eps of one shape"):
        forward_step(x0, eps[:1], 0.1)


def test_a_chain_of_steps_has_the_variance_that_is_foretold():
    beta = linear_beta(50, end=0.1)
    alpha_bar = alpha_bar_from_beta(beta)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40_000, 2, generator=generator) - 0.5  # variance 1/12
    for t in range(50):
        x = forward_step(x, torch.randn(x.shape, generator=generator), beta[t])
        foretold = variance_at(alpha_bar, 1 / 12)[t].item()
        assert x.var().item() == pytest.approx(foretold, rel=0.03)
    assert variance_at(alpha_bar, 1.0).tolist() == pytest.approx([1.0] * 50)
    with pytest.raises(ValueError, match="at least 0"):
        variance_at(alpha_bar, -1.0)


def test_kl_to_normal_equals_that_of_torch():
    x0 = 2 * torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 1
    for share in (0.9, 0.5, 4e-5):
        q = torch.distributions.Normal(math.sqrt(share) * x0.double(), math.sqrt(1 - share))
        p = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
        expected = torch.distributions.kl_divergence(q, p).flatten(1).mean(1) / math.log(2)
        found = kl_to_normal(x0, share)
        assert (found.shape, found.dtype) == ((4,), torch.float32)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(kl_to_normal(x0, torch.tensor([0.9, 0.5, 0.1, 4e-5]))[-1], found[-1])
    end = alpha_bar_from_beta(linear_beta())[-1]
    assert 1e-6 < kl_to_normal(x0, end).mean() < 2e-5  # DDPM, section 4: about 1e-5 bits per dimension
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            kl_to_normal(x0, share)


def test_add_noise_refuses_what_does_not_fit():
    x0, alpha_bar = torch.zeros(2, 3, 4, 4), alpha_bar_from_beta(linear_beta())
    with pytest.raises(ValueError, match="x0 and eps of one shape"):
        add_noise(x0, x0[:1], torch.tensor([1, 2]), alpha_bar)
    with pytest.raises(ValueError, match="from 0 to 999"):
        add_noise(x0, x0, torch.tensor([-1, 2]), alpha_bar)
    with pytest.raises(ValueError, match="one for each of the 2 samples"):
        add_noise(x0, x0, torch.tensor([1, 2, 3]), alpha_bar)


def test_schedules_refuse_impossible_numbers():
    for schedule in (linear_beta, scaled_linear_beta):
        with pytest.raises(ValueError, match="start=0"):
            schedule(1000, start=0.0)
        with pytest.raises(ValueError, match="T=0"):
            schedule(0)
    with pytest.raises(ValueError, match="T >= 1"):
        cosine_beta(0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        alpha_bar_from_beta(torch.tensor([0.1, 1.0]))
