"""Legal inputs of chapter 07."""

import torch
from legal import drive, legal

from course_utils.diffusion.schedules import alpha_bar_from_beta, cosine_beta, linear_beta


def schedules(case):
    """Tables of several lengths, and times that each allows: (alpha_bar, t, earlier)."""
    for table in (
        (1 - case.uniform(0.01, 0.2, 12)).cumprod(0),
        alpha_bar_from_beta(linear_beta(1000)),
        alpha_bar_from_beta(cosine_beta(50)),
    ):
        T = len(table)
        middle = int(case.whole(4, T - 2))
        pairs = [(T - 1, middle), (middle, middle - 1), (middle, int(case.whole(0, middle - 2))), (middle, 0), (1, 0)]
        for t, earlier in [*pairs, (0, -1), (middle, -1), (T - 1, -1)]:
            yield table, t, earlier


def shapes(case):
    for shape in ((1, 3, 2, 4), (4, 2), (2, 1, 3, 3)):
        yield [case.normal(*shape) for _ in range(3)]


@legal("07.posterior")
def posterior(case):
    for table, t, earlier in schedules(case):
        for x0, x_t, _ in shapes(case):
            yield x0, x_t, t, earlier, table


@legal("07.guess")
def guess(case):
    for table, t, _ in schedules(case):
        for x_t, eps, _ in shapes(case):
            for clip in (None, 0.3, 1.0, 2.5):
                yield x_t, eps, t, table, clip


@legal("07.ddpm_step")
def ddpm_step(case):
    for table, t, earlier in schedules(case):
        for x_t, eps, noise in shapes(case):
            for clip in (None, 0.7):
                yield x_t, eps, t, earlier, table, noise, clip


@legal("07.ddim_step")
def ddim_step(case):
    for table, t, earlier in schedules(case):
        for x_t, eps, noise in shapes(case):
            for eta, clip in ((0.0, None), (0.3, None), (1.0, 0.7)):
                yield x_t, eps, t, earlier, table, eta, noise if eta else None, clip


@legal("07.eps_from_v")
def eps_from_v(case):
    for shape in ((1, 3, 2, 4), (5, 2), (3, 1, 3, 3)):
        table = (1 - case.uniform(0.01, 0.2, 20)).cumprod(0)
        for t in (case.whole(0, 19, shape[0]), torch.zeros(shape[0]).long(), torch.full((shape[0],), 19)):
            yield case.normal(*shape), case.normal(*shape), t, table


@legal("07.score")
def score(case):
    for shape in ((1, 3, 2, 4), (5, 2), (3, 1, 3, 3), (4,)):
        table = (1 - case.uniform(0.01, 0.2, 20)).cumprod(0)
        for t in (case.whole(0, 19, shape[0]), torch.zeros(shape[0]).long(), torch.full((shape[0],), 19)):
            yield case.normal(*shape), t, table


@legal("07.dpm_solver_step")
def dpm_solver_step(case):
    for table, t, earlier in schedules(case):
        for x_t, now, then in shapes(case):
            yield x_t, now, None, None, t, earlier, table
            if t < len(table) - 1:
                yield x_t, now, then, len(table) - 1, t, earlier, table
                yield x_t, now, then, t + 1, t, earlier, table


def bent(x, t, cond=None):
    """A model: eps depends on place and time."""
    return torch.sin(x) * (1 + 0.01 * t.reshape(-1, *[1] * (x.ndim - 1)))


def asked(answer, *inputs):
    """The result, and what the model was asked on the way."""
    calls = []

    def model(x, t, cond=None):
        calls.append((x.clone(), t.clone()))
        return bent(x, t)

    return answer(model, *inputs), calls


@drive("07.heun_step")
def heun_step(answer, case):
    return [asked(answer, x, t, e, table) for table, t, e in schedules(case) for x, _, _ in shapes(case)]


@drive("07.inversion_step")
def inversion_step(answer, case):
    return [asked(answer, x, e, t, table) for table, t, e in schedules(case) for x, _, _ in shapes(case)]
