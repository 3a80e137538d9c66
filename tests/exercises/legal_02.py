"""Legal inputs of chapter 02."""

import torch
from legal import drive, legal


@drive("02.reparametrise")
def reparametrise(answer, case):
    """Whether the samples have the mean and the spread that they should, noise of their own, and both gradients."""
    found, random = [], case.generator()
    for shape in ((20_000, 1), (5000, 3), (1000, 2, 3, 2)):
        mean, logvar = case.normal(*shape[1:]).expand(shape), case.uniform(-4, 2, *shape[1:]).expand(shape)
        m, v = mean.clone().requires_grad_(), logvar.clone().requires_grad_()
        z = answer(m, v, random)
        slopes = torch.autograd.grad(z.sum(), [m, v], allow_unused=True)
        noise = ((z - m) / (v / 2).exp()).detach()
        limit = 5 / shape[0] ** 0.5
        found += [z.shape, z.dtype, (noise.mean(0).abs() < limit).all(), ((noise.std(0) - 1).abs() < limit).all()]
        flat = noise.flatten(1)
        across = (flat.T @ flat / len(flat) - torch.eye(flat.shape[1])).abs() < 2 * limit
        found += [across.all(), slopes[0], slopes[1] is not None and torch.allclose(slopes[1], (z - m) / 2, atol=1e-4)]
        found.append(not torch.equal(answer(m, v, random), z))
    small = answer(case.normal(1, 2), torch.full((1, 2), -90.0), random)
    return found, small


@legal("02.gaussian_kl")
def gaussian_kl(case):
    for shape in ((1, 1), (5, 1), (1, 7), (3, 16), (2, 3, 4), (2, 1, 3, 5)):
        for scale in (0.0, 0.3, 2.0):
            yield scale * case.normal(*shape), scale * case.uniform(-4, 2, *shape)


@legal("02.score_gradient")
def score_gradient(case):
    for n, d in ((1, 1), (1, 4), (6, 1), (5, 5), (9, 3), (4, 16)):
        for f_z in (case.normal(n), case.uniform(0.1, 3, n), torch.zeros(n)):
            yield f_z, case.normal(n, d), case.normal(d), case.uniform(-3, 2, d)


@legal("02.negative_elbo")
def negative_elbo(case):
    for shape, d in (((1, 3), 2), ((3, 1, 4, 4), 5), ((2, 3, 2, 5), 1), ((4, 2, 3), 16)):
        x, x_hat = case.uniform(-1, 1, *shape), case.normal(*shape)
        mean, logvar = case.normal(shape[0], d), case.uniform(-3, 1, shape[0], d)
        for sigma in (0.1, 1, 1.0, 2.5, torch.tensor(0.5), torch.tensor(1.0), torch.tensor(0.05)):
            yield x, x_hat, sigma, mean, logvar
            yield from ((x, x_hat, sigma, mean, logvar, beta) for beta in (0, 0.0, 1.0, 4, 0.2))


@legal("02.importance_bound")
def importance_bound(case):
    for K, batch in ((1, 1), (1, 4), (5, 1), (7, 3), (100, 2)):
        for shift in (0, -3000.0, -100.0, 2000.0):
            yield (3 * case.normal(K, batch) + shift,)
        yield (case.normal(K, batch).double(),)


@legal("02.spherical_path")
def spherical_path(case):
    for d in (2, 3, 16, 64):
        for count in (2, 3, 10, 25):
            start, end = case.normal(d), case.normal(d)
            yield start, end, count
            yield 0.1 * start, 5 * end - 0.5 * start, count
