"""The mathematics of variational autoencoders, against closed forms, integrals, torch and diffusers."""

import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from course_utils.models import variational as v
from course_utils.models.vae import VAE, bits_per_dim, fit, gaussian_bound, level_bound


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def codes(*shape, seed=0):
    g = generator(seed)
    return torch.randn(shape, generator=g), torch.randn(shape, generator=g)


def test_kl_is_that_of_torch_and_of_diffusers_and_of_monte_carlo():
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    mean, logvar = codes(3, 4, 2, 2)
    q = Independent(Normal(mean, (logvar / 2).exp()), 3)
    p = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 3)
    kl = v.gaussian_kl(mean, logvar)
    torch.testing.assert_close(kl, kl_divergence(q, p))
    torch.testing.assert_close(kl, DiagonalGaussianDistribution(torch.cat([mean, logvar], 1)).kl())
    z = q.sample((20_000,))
    assert ((q.log_prob(z) - p.log_prob(z)).mean(0) / kl - 1).abs().max() < 0.03
    assert v.gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


def test_the_sum_of_kl_by_dimension_is_the_mean_kl():
    mean, logvar = codes(7, 5)
    torch.testing.assert_close(v.kl_by_dimension(mean, logvar).sum(), v.gaussian_kl(mean, logvar).mean())


def test_reparametrised_samples_are_those_of_diffusers():
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    mean, logvar = codes(3, 4, 2, 2)
    library = DiagonalGaussianDistribution(torch.cat([mean, logvar], 1)).sample(generator(5))
    torch.testing.assert_close(v.reparametrise(mean, logvar, generator(5)), library)


def test_two_gradients_one_expectation():
    mean, logvar, g = torch.tensor([0.7]), torch.tensor([math.log(0.3)]), generator()
    z = v.reparametrise(mean.expand(200_000, 1), logvar.expand(200_000, 1), g)
    score = v.score_gradient(z[:, 0] ** 2, z, mean, logvar)
    s2, m = 0.3, 0.7
    assert score.mean().item() == pytest.approx(2 * m, abs=0.03)
    assert score.var().item() == pytest.approx(m**4 / s2 + 14 * m**2 + 15 * s2, rel=0.05)
    assert (2 * z).var().item() == pytest.approx(4 * s2, rel=0.02)


def test_the_bound_of_a_linear_model_is_exact_with_its_posterior_and_lower_with_any_other():
    """x = W z + sigma eps: p(x) and p(z|x) are normal distributions that are known."""
    W, x = torch.randn(5, 2, generator=generator(1)).double(), torch.randn(5, generator=generator(2)).double()
    sigma = 0.5
    exact = MultivariateNormal(torch.zeros(5).double(), W @ W.T + sigma**2 * torch.eye(5)).log_prob(x)
    covariance = torch.linalg.inv(torch.eye(2) + W.T @ W / sigma**2)
    posterior = MultivariateNormal(covariance @ W.T @ x / sigma**2, covariance)
    z = posterior.sample((50,))
    prior, decoder = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double()), Normal(z @ W.T, sigma)
    log_w = prior.log_prob(z) + decoder.log_prob(x).sum(1) - posterior.log_prob(z)
    torch.testing.assert_close(log_w, exact.expand(50))  # every weight is p(x) itself
    torch.testing.assert_close(v.importance_bound(log_w[:, None])[0], exact)

    mean, logvar = posterior.mean + 0.3, posterior.covariance_matrix.diagonal().log()
    z = v.reparametrise(mean.expand(20_000, 2), logvar.expand(20_000, 2), generator())
    bounds = -v.negative_elbo(x.expand(20_000, 5), z @ W.T, sigma, mean.expand(20_000, 2), logvar.expand(20_000, 2))
    gap = kl_divergence(MultivariateNormal(mean, logvar.exp().diag()), posterior)
    assert (exact - bounds.mean() - gap).abs() < 0.05
    q = Normal(mean, (logvar / 2).exp())
    log_w = prior.log_prob(z) + Normal(z @ W.T, sigma).log_prob(x).sum(1) - q.log_prob(z).sum(1)
    by_k = [v.importance_bound(log_w.reshape(K, -1)).mean() for K in (1, 4, 16)]
    assert bounds.mean() - 0.05 < by_k[0] < by_k[1] < by_k[2] < exact + 0.01


def test_importance_bound_does_not_overflow():
    log_w = torch.tensor([[-3000.0], [-3000.0]])
    assert v.importance_bound(log_w).item() == -3000


def test_a_spherical_path_keeps_length_and_ends():
    start, end = codes(6)
    end = end * start.norm() / end.norm()
    path = v.spherical_path(start, end, 7)
    torch.testing.assert_close(path.norm(dim=1), start.norm().expand(7))
    torch.testing.assert_close(path[[0, 6]], torch.stack([start, end]))
    with pytest.raises(ValueError, match="in line"):
        v.spherical_path(start, 2 * start, 5)
    with pytest.raises(ValueError, match="two latents"):
        v.spherical_path(start, end, 1)


def test_shapes_that_differ_are_refused():
    for call in (
        lambda a, b: v.reparametrise(a, b, generator()),
        v.gaussian_kl,
        lambda a, b: v.negative_elbo(a, b, 1.0, a, a),
    ):
        with pytest.raises(ValueError, match="one shape"):
            call(torch.zeros(4, 1), torch.zeros(4, 3))


@pytest.mark.parametrize("channels, size, outputs", [(1, 8, 17), (1, 16, None), (3, 32, None)])
def test_the_network_has_the_shapes_it_promises(channels, size, outputs):
    model = VAE(channels, size, latent=5, width=4, outputs=outputs)
    x = torch.zeros(2, channels, size, size)
    assert [part.shape for part in model.encode(x)] == [(2, 5), (2, 5)]
    assert model.sample(3, generator()).shape == (3, outputs or channels, size, size)


def test_sizes_that_cannot_be_halved_down_are_refused():
    for size in (4, 12, 28):
        with pytest.raises(ValueError, match="size of 8, 16, 32"):
            VAE(size=size)


def test_the_bounds_are_nll_plus_kl():
    model, g = VAE(size=8, latent=3, width=4, outputs=17), generator(4)
    levels = torch.randint(17, (2, 8, 8), generator=g)
    with torch.no_grad():
        mean, logvar = model.encode(levels[:, None] / 8 - 1)
        logits = model.decode(v.reparametrise(mean, logvar, generator(1)))
        nll = -logits.log_softmax(1).gather(1, levels[:, None]).sum((1, 2, 3))
        for beta in (1.0, 3.0):
            expected = nll + beta * v.gaussian_kl(mean, logvar)
            torch.testing.assert_close(level_bound(model, levels, generator(1), beta), expected)
    assert bits_per_dim(torch.tensor(64 * math.log(17)), 64).item() == pytest.approx(math.log2(17))


def test_training_lowers_both_bounds_and_is_a_function_of_its_seed():
    g = generator()
    for bound, data, outputs in (
        (gaussian_bound, torch.rand(20, 1, 8, 8, generator=g) - 0.5, None),
        (level_bound, torch.randint(17, (20, 8, 8), generator=g), 17),
    ):
        losses = []
        for _ in range(2):
            torch.manual_seed(0)
            model = VAE(size=8, latent=2, width=4, outputs=outputs)
            losses.append([loss for _, loss in fit(model, data, 25, bound, batch=8)])
        assert losses[0] == losses[1] and losses[0][-1] < losses[0][0]
