"""Between pictures and latents: against diffusers, closed forms and torch's own count of operations."""

import math

import pytest
import torch
from tiny import tiny_parts
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from course_utils.diffusion import latents
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta, snr

ALPHA_BAR = alpha_bar_from_beta(scaled_linear_beta())


@pytest.fixture(scope="module")
def vae():
    vae = tiny_parts()["vae"]
    vae.register_to_config(scaling_factor=0.31)
    return vae


@pytest.fixture
def pictures():
    return torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def test_both_directions_are_those_of_diffusers(vae, pictures):
    q = vae.encode(pictures).latent_dist
    torch.testing.assert_close(latents.encode(vae, pictures), q.mode() * 0.31)
    sampled = latents.encode(vae, pictures, torch.Generator().manual_seed(3))
    torch.testing.assert_close(sampled, q.sample(torch.Generator().manual_seed(3)) * 0.31)
    z = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(latents.decode(vae, z), vae.decode(z / 0.31).sample)
    with pytest.raises(ValueError, match="batch axis"):
        latents.encode(vae, pictures[0])


def test_the_loss_of_latents_that_say_nothing_is_the_error_of_the_picture():
    x = torch.zeros(2, 3, 4, 4)
    zero = torch.zeros(2, 5, 2, 2)
    assert latents.autoencoder_loss(x, x + 0.5, zero, zero, 1.0).item() == pytest.approx(0.5 + 4 * 0.25)
    one_nat = latents.autoencoder_loss(x, x, zero + 1, zero, 0.1)  # half a nat for each of 20 numbers
    assert one_nat.item() == pytest.approx(0.1 * 10)
    with pytest.raises(ValueError, match="one shape"):
        latents.autoencoder_loss(x, x[:1], zero, zero)


def test_scaled_latents_have_the_spread_1():
    z = 5.49 * torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0)) + 1
    assert latents.scaling_factor(z) == pytest.approx(0.18215, rel=0.01)
    assert (z * latents.scaling_factor(z)).std().item() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="that vary"):
        latents.scaling_factor(torch.ones(2, 4, 4, 4))


def test_equal_noise():
    t = torch.arange(1000)
    assert torch.equal(latents.time_of_equal_snr(t, 1.0, ALPHA_BAR), t)
    earlier = latents.time_of_equal_snr(t, 5.49, ALPHA_BAR)
    assert (earlier < t)[1:].all() and (snr(ALPHA_BAR)[earlier] <= 5.49**2 * snr(ALPHA_BAR) * (1 + 1e-4)).all()
    assert latents.time_of_equal_snr(torch.tensor([999]), 0.1, ALPHA_BAR).item() == 999
    for bad in ((torch.tensor([1000]), 1.0), (torch.tensor([0]), 0.0)):
        with pytest.raises(ValueError, match="expected|Expected"):
            latents.time_of_equal_snr(*bad, ALPHA_BAR)


def test_colours_that_are_in_the_latents_are_found():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 5, 4, 4, generator=generator)
    weights, bias = torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)
    small = latents.as_colours(z, weights, bias)
    found = latents.fit_colours(z, interpolate(small, scale_factor=4))
    torch.testing.assert_close(found, (weights, bias), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="one picture"):
        latents.fit_colours(z, small[:2])


@pytest.mark.parametrize("size, channels", [(4, 8), (8, 16), (5, 4)])
def test_operations_are_those_that_torch_counts(size, channels):
    x = torch.randn(1, channels, size, size)
    with FlopCounterMode(display=False) as counter:
        for _ in range(2):
            x = nn.Conv2d(channels, channels, 3, padding=1)(x)
    assert counter.get_total_flops() == latents.level_flops(size, channels, attention=False)
    with FlopCounterMode(display=False) as counter:
        words = x.flatten(2).mT  # (1, size * size, channels)
        query, key, value = (nn.Linear(channels, channels)(words) for _ in range(3))
        nn.Linear(channels, channels)((query @ key.mT / math.sqrt(channels)).softmax(-1) @ value)
    with_attention = latents.level_flops(size, channels)
    assert counter.get_total_flops() == with_attention - latents.level_flops(size, channels, attention=False)
    with pytest.raises(ValueError, match="at least 1"):
        latents.level_flops(0, 3)
