"""Conversions between eps, x0 and v; losses, sampling of t and weights, by closed forms and diffusers."""

import pytest
import torch
from diffusers import DDPMScheduler
from scipy.stats import binned_statistic

from course_utils.data.points import ring_centres
from course_utils.diffusion import objectives, steps
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta

ALPHA_BAR = alpha_bar_from_beta(scaled_linear_beta())


@pytest.fixture
def noisy():
    """Clean and noisy pictures whose x0, eps and v are all known."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 3, 8, 8, generator=generator)
    t = torch.tensor([0, 10, 500, 999])
    v = objectives.v_from_x0_eps(x0, eps, t, ALPHA_BAR)
    return {"x0": x0, "eps": eps, "v": v, "t": t, "x_t": add_noise(x0, eps, t, ALPHA_BAR)}


def test_v_equals_the_velocity_of_diffusers(noisy):
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    velocity = scheduler.get_velocity(noisy["x0"], noisy["eps"], noisy["t"])
    torch.testing.assert_close(noisy["v"], velocity, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("conversion", "given", "wanted"),
    [
        (objectives.x0_from_eps, "eps", "x0"),
        (objectives.eps_from_x0, "x0", "eps"),
        (objectives.x0_from_v, "v", "x0"),
        (objectives.eps_from_v, "v", "eps"),
    ],
)
def test_each_conversion_finds_the_true_value(noisy, conversion, given, wanted):
    found = conversion(noisy["x_t"], noisy[given], noisy["t"], ALPHA_BAR)
    torch.testing.assert_close(found, noisy[wanted], rtol=0, atol=1e-4)


def test_the_score_is_the_gradient_of_the_log_density():
    """Of the noisy mixture of eight Gaussians, whose density autograd differentiates."""
    centres, t = ring_centres(8, 0.1).double(), torch.tensor([0, 300, 999])
    table = ALPHA_BAR.double()
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    a = table[t][:, None]
    distance = (x[:, None] - a.sqrt()[:, None] * centres).square().sum(2)
    log_density = (-distance / (2 * (0.01 * a + 1 - a))).logsumexp(1)  # up to a constant
    (expected,) = torch.autograd.grad(log_density.sum(), x)
    found = objectives.score(objectives.mixture_eps(x.detach(), t, table, centres, 0.1), t, table)
    torch.testing.assert_close(found, expected)


def test_the_score_of_pictures_has_a_time_for_each(noisy):
    """Given x0, x_t is normal with mean sqrt(a) x0 and variance 1 - a."""
    a = ALPHA_BAR[noisy["t"]].reshape(4, 1, 1, 1)
    expected = -(noisy["x_t"] - a.sqrt() * noisy["x0"]) / (1 - a)
    torch.testing.assert_close(objectives.score(noisy["eps"], noisy["t"], ALPHA_BAR), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError):
        objectives.score(noisy["eps"], noisy["t"] + 1, ALPHA_BAR)


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
def test_as_eps_makes_any_prediction_one_of_eps(noisy, kind):
    def model(x_t, t, cond=None):
        assert cond == "a corgi"
        return noisy[kind]

    eps_hat = objectives.as_eps(model, kind, ALPHA_BAR)(noisy["x_t"], noisy["t"], "a corgi")
    torch.testing.assert_close(eps_hat, noisy["eps"], rtol=0, atol=1e-4)


def test_as_eps_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="eps, x0 or v, but got 'score'"):
        objectives.as_eps(lambda x_t, t, cond=None: x_t, "score", ALPHA_BAR)


def test_loss_is_one_mean_per_sample():
    eps = torch.zeros(3, 2, 4, 4)
    eps_hat = eps + torch.tensor([0.0, 1.0, 2.0]).reshape(3, 1, 1, 1)
    eps_hat[0, 0, 0, 0] = 4.0  # 16 spread over 2 * 4 * 4 elements
    assert objectives.noise_prediction_loss(eps_hat, eps).tolist() == [0.5, 1.0, 4.0]
    assert objectives.noise_prediction_loss(eps_hat.bfloat16(), eps.bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="eps_hat and eps of one shape"):
        objectives.noise_prediction_loss(eps_hat[:, :1], eps)


def test_uniform_times_are_equally_likely():
    times = objectives.uniform_times(torch.arange(1000) / 1000 + 0.0005, T=10)
    assert times.dtype == torch.int64
    assert torch.bincount(times).tolist() == [100] * 10
    almost_one = torch.nextafter(torch.tensor([1.0]), torch.tensor([0.0]))
    assert objectives.uniform_times(almost_one, T=1000).tolist() == [999]
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        objectives.uniform_times(torch.tensor([1.0]), T=10)


def test_sample_times_are_uniform_and_follow_the_generator():
    def times(seed):
        return objectives.sample_times(20_000, 10, torch.Generator().manual_seed(seed))

    assert times(0).dtype == torch.int64 and times(0).equal(times(0)) and not times(0).equal(times(1))
    assert (torch.bincount(times(0), minlength=10) - 2000).abs().max() < 250
    with pytest.raises(ValueError, match="T >= 1"):
        objectives.sample_times(3, 0, torch.Generator())


def test_training_step_is_the_loss_of_algorithm_1(noisy):
    """The scheduler of diffusers makes x_t from the same draws; an exact model has no loss."""
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    weight = torch.tensor(0.5, requires_grad=True)
    x0 = noisy["x0"]

    def step(model):
        return objectives.training_step(model, x0, ALPHA_BAR, torch.Generator().manual_seed(1))

    seen = []
    loss = step(lambda x_t, t: seen.append((x_t, t)) or weight * x_t)
    (x_t, t), generator = seen[0], torch.Generator().manual_seed(1)
    assert objectives.sample_times(4, 1000, generator).equal(t)
    eps = torch.randn(x0.shape, generator=generator)
    torch.testing.assert_close(x_t, scheduler.add_noise(x0, eps, t), rtol=0, atol=5e-6)
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(0.5 * x_t, eps))
    loss.backward()
    assert weight.grad is not None
    assert step(lambda x_t, t: objectives.eps_from_x0(x_t, x0, t, ALPHA_BAR)) < 1e-6
    with pytest.raises(ValueError, match="eps_hat and eps of one shape"):
        step(lambda x_t, t: x_t[:, :1])


def test_loss_by_time():
    losses, t = torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.tensor([0, 24, 25, 99])
    found = objectives.loss_by_time(losses, t, T=100, bins=4)
    torch.testing.assert_close(found, torch.tensor([2.0, 5.0, torch.nan, 7.0]), equal_nan=True)
    generator = torch.Generator().manual_seed(0)
    losses, t = torch.rand(500, generator=generator), torch.randint(0, 50, (500,), generator=generator)
    expected, _, _ = binned_statistic(t, losses, bins=7, range=(0, 50))
    torch.testing.assert_close(objectives.loss_by_time(losses, t, 50, 7), torch.tensor(expected).float())
    for bad in ({"bins": 0}, {"bins": 51}, {"t": t + 1}, {"t": t[:-1]}):
        with pytest.raises(ValueError, match="Expected"):
            objectives.loss_by_time(**{"losses": losses, "t": t, "T": 50, "bins": 5} | bad)


def test_bound_weights_turn_the_noise_loss_into_the_divergence_of_each_step():
    beta = torch.tensor([0.05, 0.1, 0.3, 0.6], dtype=torch.float64)
    alpha_bar = alpha_bar_from_beta(beta)
    generator = torch.Generator().manual_seed(0)
    x0, eps, eps_hat = torch.randn(3, 1, 5, generator=generator, dtype=torch.float64)
    weights = objectives.bound_weights(beta)
    assert weights.shape == (3,)
    for t in (1, 2, 3):
        x_t = alpha_bar[t].sqrt() * x0 + (1 - alpha_bar[t]).sqrt() * eps
        x0_hat = objectives.x0_from_eps(x_t, eps_hat, torch.tensor([t]), alpha_bar)
        mean, variance = steps.posterior(x0, x_t, t, t - 1, alpha_bar)
        mean_hat, _ = steps.posterior(x0_hat, x_t, t, t - 1, alpha_bar)
        q, p = (torch.distributions.Normal(m, variance**0.5) for m in (mean, mean_hat))
        divergence = torch.distributions.kl_divergence(q, p).sum()
        assert torch.isclose(weights[t - 1] * (eps - eps_hat).square().sum(), divergence)
    with pytest.raises(ValueError, match="at least two times, got \\(1,\\)"):
        objectives.bound_weights(beta[:1])


def test_logit_normal_times_have_the_density_of_the_paper():
    """P(time < k) = Phi((logit(k/T) - mean) / std), since the sigmoid is monotone."""
    normals = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    standard = torch.distributions.Normal(0.0, 1.0)
    for mean, std in [(0.0, 1.0), (0.5, 0.7)]:
        times = objectives.logit_normal_times(normals, T=1000, mean=mean, std=std)
        assert times.dtype == torch.int64
        for k in (100, 500, 800):
            expected = standard.cdf((torch.logit(torch.tensor(k / 1000)) - mean) / std).item()
            assert (times < k).float().mean().item() == pytest.approx(expected, abs=0.004)
    extremes = objectives.logit_normal_times(torch.tensor([-50.0, 0.0, 50.0]), T=1000)
    assert extremes.tolist() == [0, 500, 999]
    with pytest.raises(ValueError, match="std > 0"):
        objectives.logit_normal_times(normals, T=1000, std=0.0)


def test_v_weight_makes_the_noise_loss_the_loss_of_v():
    generator = torch.Generator().manual_seed(0)
    table = alpha_bar_from_beta(scaled_linear_beta())
    t = torch.tensor([0, 200, 600, 999])
    x0, eps, eps_hat = (torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    x_t = add_noise(x0, eps, t, table.double())
    x0_hat = objectives.x0_from_eps(x_t, eps_hat, t, table.double())
    v, v_hat = (objectives.v_from_x0_eps(*pair, t, table.double()) for pair in ((x0, eps), (x0_hat, eps_hat)))
    expected = (v - v_hat).square().flatten(1).mean(1)
    weighted = objectives.v_weight(table.double()[t]) * (eps - eps_hat).square().flatten(1).mean(1)
    torch.testing.assert_close(weighted, expected)


def test_min_snr_weight():
    snr = torch.tensor([100.0, 5.0, 1.0, 0.01])
    weights = objectives.min_snr_weight(snr / (1 + snr), gamma=5.0)
    torch.testing.assert_close(weights, torch.tensor([0.05, 1.0, 1.0, 1.0]), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="gamma > 0"):
        objectives.min_snr_weight(snr, gamma=0.0)


def test_the_best_guess_of_a_coin_is_a_hyperbolic_tangent():
    """For x0 = +1 or -1 the weights are a logistic function, and their mean is tanh(sqrt(a) x_t / (1 - a))."""
    coin, x_t = torch.tensor([[-1.0], [1.0]]), torch.linspace(-3, 3, 25)[:, None]
    for t in (0, 300, 700, 999):
        a = ALPHA_BAR[t]
        found = objectives.best_x0(x_t, torch.full((25,), t), ALPHA_BAR, coin)
        torch.testing.assert_close(found, torch.tanh(a.sqrt() * x_t / (1 - a)), rtol=1e-4, atol=1e-5)


def test_the_best_guess_is_near_the_mean_in_strong_noise_and_at_a_datum_in_weak(noisy):
    data = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    data[:4] = noisy["x0"]
    weights = objectives.posterior_weights(noisy["x_t"], noisy["t"], ALPHA_BAR, data)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert weights[[0, 1], [0, 1]].min() > 0.999 and weights[3].max() < 0.6
    best = objectives.best_x0(noisy["x_t"], noisy["t"], ALPHA_BAR, data)
    torch.testing.assert_close(best[:2], noisy["x0"][:2], rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="Expected data of shape"):
        objectives.best_x0(noisy["x_t"], noisy["t"], ALPHA_BAR, data[:, :1])


def test_no_other_guess_has_a_smaller_error_than_the_best_one():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(5, 2, generator=generator)
    x0 = data[torch.randint(5, (4000,), generator=generator)]
    t = torch.full((4000,), 600)
    x_t = add_noise(x0, torch.randn(x0.shape, generator=generator), t, ALPHA_BAR)
    best = objectives.best_x0(x_t, t, ALPHA_BAR, data)
    nearest = data[objectives.posterior_weights(x_t, t, ALPHA_BAR, data).argmax(1)]
    others = {"the likeliest": nearest, "the mean": data.mean(0).expand_as(x0), "more": 1.1 * best, "less": 0.9 * best}
    error = (best - x0).square().mean()
    assert all((other - x0).square().mean() > error for other in others.values())
