"""Few-step sampling: the velocity that lands where it should, by the course's DDIM step and by diffusers'."""

import pytest
import torch
from diffusers import DDIMScheduler

from course_utils.diffusion import few_steps, objectives, steps
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta

ALPHA_BAR = alpha_bar_from_beta(scaled_linear_beta())
PAIRS = [(999, 749), (999, -1), (500, 499), (249, -1), (30, 3)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def levels(*times):
    return torch.tensor([ALPHA_BAR[t].item() if t >= 0 else 1.0 for t in times], dtype=torch.float64)


@pytest.mark.parametrize(("t", "s"), PAIRS)
def test_one_ddim_step_along_it_lands_there(t, s):
    x_t, x_s, table = noise(3, 2, 4, 5), noise(3, 2, 4, 5, seed=1), ALPHA_BAR.double()
    v = few_steps.landing_velocity(x_t, x_s, levels(t, t, t), levels(s, s, s))
    assert v.shape == x_t.shape
    eps = objectives.eps_from_v(x_t, v, torch.full((3,), t), table)
    torch.testing.assert_close(steps.ddim_step(x_t, eps, t, s, table), x_s)


def test_it_undoes_the_step_of_diffusers_for_each_sample_of_a_batch():
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False,
    )  # fmt: skip
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    x_t, v = noise(4, 3, 2), noise(4, 3, 2, seed=1)
    x_s, stops = [], []
    for i, (t, count) in enumerate([(999, 4), (999, 1), (700, 50), (249, 4)]):
        scheduler.set_timesteps(count)
        x_s.append(scheduler.step(v[i], t, x_t[i]).prev_sample)
        stops.append(t - 1000 // count)
    assert stops == [749, -1, 680, -1]
    found = few_steps.landing_velocity(x_t, torch.stack(x_s), levels(999, 999, 700, 249), levels(*stops))
    torch.testing.assert_close(found, v, rtol=0, atol=1e-5)


def test_it_is_the_velocity_itself_where_the_end_is_on_the_path():
    x0, eps = noise(2, 5), noise(2, 5, seed=1)

    def at(level):
        return level.sqrt()[:, None] * x0 + (1 - level).sqrt()[:, None] * eps

    a, a_s = levels(800, 300), levels(100, -1)
    expected = a.sqrt()[:, None] * eps - (1 - a).sqrt()[:, None] * x0
    torch.testing.assert_close(few_steps.landing_velocity(at(a), at(a_s), a, a_s), expected)


def test_from_pure_noise():
    """Where nothing of x0 is left, v is -x0, wherever the step ends."""
    x_t, x0, a_s = noise(2, 5), noise(2, 5, seed=1), levels(500, 500)
    x_s = a_s.sqrt()[:, None] * x0 + (1 - a_s).sqrt()[:, None] * x_t
    torch.testing.assert_close(few_steps.landing_velocity(x_t, x_s, torch.zeros(2).double(), a_s), -x0)


@pytest.mark.parametrize(
    ("shape", "alpha_bar_t", "alpha_bar_s", "message"),
    [
        ((2, 4), [0.5, 0.5], [0.8, 0.8], "x_t and x_s"),
        ((2, 3), [0.5, 0.8], [0.8, 0.8], "less noise"),
        ((2, 3), [0.5, 0.5], [0.8, 1.1], "less noise"),
        ((2, 3), [0.5, -0.1], [0.8, 0.9], "less noise"),
        ((2, 3), [0.5, 0.5, 0.5], [0.8, 0.8, 0.8], "2 samples"),
    ],
)
def test_bad_input_is_told(shape, alpha_bar_t, alpha_bar_s, message):
    with pytest.raises(ValueError, match=message):
        few_steps.landing_velocity(noise(2, 3), noise(*shape), torch.tensor(alpha_bar_t), torch.tensor(alpha_bar_s))
