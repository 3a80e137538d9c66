"""One step of each sampler: from x_t at time t to the next time, for a whole batch at once.

Shapes throughout: x_t, x0, eps, noise (batch, ...); alpha_bar (T,). t and `earlier` are whole numbers, t > earlier;
earlier = -1 is the clean picture, where alpha_bar is 1. `earlier` need not be t - 1: skipping steps uses the same
formulas, with alpha_t = alpha_bar_t / alpha_bar_earlier and beta_t = 1 - alpha_t. `clip`, if given, holds the guess of
x0 within [-clip, clip]. model: any callable eps(x_t, t, cond). Times out of range raise ValueError.
"""

import math
from collections.abc import Callable

import torch

from course_utils.shapes import require_same_shape


def alpha_bar_at(alpha_bar: torch.Tensor, t: int) -> float:
    """Return alpha_bar at time t as a number; 1 for t = -1, the clean picture.

    (The table itself would give its *last* entry for index -1.) Raises ValueError unless -1 <= t < T.
    """
    if not -1 <= t < len(alpha_bar):
        raise ValueError(f"Expected a time from -1 (clean) to {len(alpha_bar) - 1}, but got {t}.")
    return 1.0 if t == -1 else alpha_bar[t].item()


def _levels(t: int, earlier: int, alpha_bar: torch.Tensor) -> tuple[float, float]:
    if earlier >= t:
        raise ValueError(f"Expected a step back in time, but got one from t = {t} to {earlier}.")
    return alpha_bar_at(alpha_bar, t), alpha_bar_at(alpha_bar, earlier)


def posterior(
    x0: torch.Tensor, x_t: torch.Tensor, t: int, earlier: int, alpha_bar: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Return mean (batch, ...) and variance (a number) of q(x_{t-1} | x_t, x0), where t-1 stands for `earlier`.

        mean     = sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t) x0
                   + sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) x_t
        variance = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t

    At the last step, to the clean picture, the mean is x0 and the variance 0. DDPM (arXiv:2006.11239), equation 7.
    """
    a, a_earlier = _levels(t, earlier, alpha_bar)
    alpha = a / a_earlier
    beta = 1 - alpha
    weight_x0 = math.sqrt(a_earlier) * beta / (1 - a)
    weight_x_t = math.sqrt(alpha) * (1 - a_earlier) / (1 - a)
    return weight_x0 * x0 + weight_x_t * x_t, (1 - a_earlier) / (1 - a) * beta


def guess(
    x_t: torch.Tensor, eps: torch.Tensor, t: int, alpha_bar: torch.Tensor, clip: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x0_hat, eps): the clean picture that eps implies, clipped, and the eps that belongs to the clipped one.

        x0_hat = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t),  clipped to [-clip, clip]
        eps    = (x_t - sqrt(alpha_bar_t) x0_hat) / sqrt(1 - alpha_bar_t)

    So x_t is made of the two that are returned. DDPM (arXiv:2006.11239), equation 15; clipping as in its code.
    """
    a = alpha_bar_at(alpha_bar, t)
    signal, noise = math.sqrt(a), math.sqrt(1 - a)
    x0_hat = (x_t - noise * eps) / signal
    if clip is not None:
        x0_hat = x0_hat.clamp(-clip, clip)
        eps = (x_t - signal * x0_hat) / noise
    return x0_hat, eps


def ddpm_step(
    x_t: torch.Tensor,
    eps: torch.Tensor,
    t: int,
    earlier: int,
    alpha_bar: torch.Tensor,
    noise: torch.Tensor,
    clip: float | None = None,
) -> torch.Tensor:
    """Return x_{t-1} drawn from q(x_{t-1} | x_t, x0_hat), where x0_hat is what eps implies; standard normal `noise`.

        x_{t-1} = mean + sqrt(variance) noise,   both from `posterior` with x0_hat in the place of x0

    The step to the clean picture adds no noise. DDPM (arXiv:2006.11239), algorithm 2; of the paper's two variances the
    smaller one.
    """
    x0_hat, _ = guess(x_t, eps, t, alpha_bar, clip)
    mean, variance = posterior(x0_hat, x_t, t, earlier, alpha_bar)
    return mean + math.sqrt(variance) * noise


def ddim_step(
    x_t: torch.Tensor,
    eps: torch.Tensor,
    t: int,
    earlier: int,
    alpha_bar: torch.Tensor,
    eta: float = 0.0,
    noise: torch.Tensor | None = None,
    clip: float | None = None,
) -> torch.Tensor:
    """Return x_{t-1} by aiming at x0_hat and putting back as much noise as belongs there.

        sigma   = eta sqrt( (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_{t-1}) )
        x_{t-1} = sqrt(alpha_bar_{t-1}) x0_hat + sqrt(1 - alpha_bar_{t-1} - sigma^2) eps + sigma noise

    eta: 0 for no randomness, 1 for that of DDPM. noise: standard normal, not needed if eta is 0.
    DDIM (arXiv:2010.02502), equations 12 and 16. Raises ValueError if eta > 0 comes without noise.
    """
    a, a_earlier = _levels(t, earlier, alpha_bar)
    x0_hat, eps = guess(x_t, eps, t, alpha_bar, clip)
    sigma = eta * math.sqrt((1 - a_earlier) / (1 - a) * (1 - a / a_earlier))
    x_t = math.sqrt(a_earlier) * x0_hat + math.sqrt(1 - a_earlier - sigma**2) * eps
    if sigma == 0:
        return x_t
    if noise is None:
        raise ValueError(f"With eta = {eta} a step adds noise: pass it, or set eta to 0.")
    return x_t + sigma * noise


def dpm_solver_step(
    x_t: torch.Tensor,
    x0_hat: torch.Tensor,
    x0_hat_before: torch.Tensor | None,
    before: int | None,
    t: int,
    earlier: int,
    alpha_bar: torch.Tensor,
) -> torch.Tensor:
    """Return x_{t-1} by DPM-Solver++ 2M: DDIM, but aiming where x0_hat is heading, judged by its last two values.

        lambda_t = ln(alpha_bar_t / (1 - alpha_bar_t)) / 2
        h = lambda_{t-1} - lambda_t,   h_before = lambda_t - lambda_before
        D = x0_hat + h / (2 h_before) (x0_hat - x0_hat_before)
        x_{t-1} = sqrt((1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)) x_t - sqrt(alpha_bar_{t-1}) (exp(-h) - 1) D

    x0_hat_before: the guess of the step before, made at time `before` > t; both None at the first step. Then, and at
    the step to the clean picture, where h has no limit, D = x0_hat. DPM-Solver++ (arXiv:2211.01095), algorithm 2.
    """
    a, a_earlier = _levels(t, earlier, alpha_bar)
    if earlier == -1:
        return x0_hat
    h, D = _half_logit(a_earlier) - _half_logit(a), x0_hat
    if x0_hat_before is not None and before is not None:
        h_before = _half_logit(a) - _half_logit(_levels(before, t, alpha_bar)[0])
        D = x0_hat + h / (2 * h_before) * (x0_hat - x0_hat_before)
    return math.sqrt((1 - a_earlier) / (1 - a)) * x_t - math.sqrt(a_earlier) * math.expm1(-h) * D


def heun_step(
    model: Callable,
    x_t: torch.Tensor,
    t: int,
    earlier: int,
    alpha_bar: torch.Tensor,
    cond: torch.Tensor | None = None,
    clip: float | None = None,
) -> torch.Tensor:
    """Return x_{t-1} by Heun's method: a DDIM step to look ahead, then the step with the mean of both eps.

        eps   = model(x_t, t),   ahead = ddim_step(x_t, eps),   eps' = model(ahead, t-1)
        x_{t-1} = ddim_step(x_t, (eps + eps') / 2)

    Two evaluations; one at the step to the clean picture, where no model can be asked. EDM (arXiv:2206.00364),
    algorithm 1; a DDIM step is a straight line in x / sqrt(alpha_bar) over sigma = sqrt((1 - alpha_bar) / alpha_bar).
    """
    _, eps = guess(x_t, ask(model, x_t, t, cond), t, alpha_bar, clip)
    ahead = ddim_step(x_t, eps, t, earlier, alpha_bar)
    if earlier == -1:
        return ahead
    _, eps_ahead = guess(ahead, ask(model, ahead, earlier, cond), earlier, alpha_bar, clip)
    return ddim_step(x_t, (eps + eps_ahead) / 2, t, earlier, alpha_bar)


def inversion_step(
    model: Callable, x_t: torch.Tensor, t: int, later: int, alpha_bar: torch.Tensor, cond: torch.Tensor | None = None
) -> torch.Tensor:
    """Return x at a *later*, noisier time: a DDIM step the other way round, with the eps that is seen at t.

        x_later = sqrt(alpha_bar_later) x0_hat + sqrt(1 - alpha_bar_later) eps,   eps = model(x_t, t)

    From the clean picture, t = -1, the model is told `later`, since it knows no time -1; there x0_hat is x_t itself.
    DDIM (arXiv:2010.02502), section 4.3. Raises ValueError unless later > t.
    """
    a_later, a = _levels(later, t, alpha_bar)
    eps = ask(model, x_t, later if t == -1 else t, cond)
    x0_hat = (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)
    return math.sqrt(a_later) * x0_hat + math.sqrt(1 - a_later) * eps


def ask(model: Callable, x_t: torch.Tensor, t: int, cond: torch.Tensor | None = None) -> torch.Tensor:
    """Return the model's eps for the whole batch at time t. Raises ValueError if it has not the shape of x_t."""
    eps = model(x_t, torch.full((len(x_t),), t, device=x_t.device), cond)
    require_same_shape(eps, x_t, "the predicted eps and x_t")
    return eps


def _half_logit(share: float) -> float:
    return math.log(share / (1 - share)) / 2
