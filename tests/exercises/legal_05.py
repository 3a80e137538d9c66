"""Legal inputs of chapter 05."""

import torch
from legal import legal, noisy

from course_utils.diffusion.schedules import linear_beta, scaled_linear_beta

SHAPES = ((1, 3, 4, 2), (5, 2), (4,), (2, 1, 3, 3, 2), (3, 6))


@legal("05.forward_step")
def forward_step(case):
    for shape in SHAPES:
        for beta in (0.0, 1e-4, 0.3, 0.9, 1.0, torch.tensor(0.02), case.uniform(0.1, 0.8)):
            yield case.normal(*shape), case.normal(*shape), beta


@legal("05.alpha_bar")
def alpha_bar(case):
    yield (linear_beta(1000),)
    yield (scaled_linear_beta(250),)
    for T in (1, 2, 3, 17, 60):
        yield (case.uniform(1e-4, 0.6, T),)


@legal("05.add_noise")
def add_noise(case):
    yield from noisy(case, SHAPES)


@legal("05.cosine_beta")
def cosine_beta(case):
    for T in (1, 2, 3, 10, 100, 1000, int(case.whole(5, 200))):
        yield (T,)


@legal("05.snr")
def snr(case):
    yield (torch.tensor([0.999, 0.5, 1e-3]),)
    for shape in ((), (1,), (12,), (2, 5)):
        yield (case.uniform(0.01, 0.99, *shape),)


@legal("05.variance_at")
def variance_at(case):
    for shape in ((), (1,), (12,)):
        for variance in (0.0, 0.25, 1.0, 3.0, torch.tensor(0.0), case.uniform(0.1, 2)):
            yield case.uniform(0.001, 0.999, *shape), variance


@legal("05.kl_to_normal")
def kl_to_normal(case):
    for shape in SHAPES:
        if len(shape) > 1:
            for share in (torch.tensor(1e-3), torch.tensor(0.5), torch.tensor(0.98), case.uniform(0.05, 0.9)):
                yield 2 * case.normal(*shape), share
                yield case.uniform(-1, 1, *shape), share
