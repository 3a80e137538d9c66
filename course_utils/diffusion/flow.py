"""Rectified flow: straight lines from data to noise, the velocity along them, and the samplers that follow it.

    x_t = (1 - t) x0 + t eps,   0 <= t <= 1,   velocity u = eps - x0

t = 0 is the data, t = 1 pure noise, and sampling goes from 1 down to 0. Shapes: x_t, x0, eps, u (batch, ...);
t (batch,), real numbers. A model is called as model(x_t, t, cond) and returns a velocity. Times outside [0, 1] and
shapes that differ raise ValueError. Flow matching (arXiv:2210.02747), rectified flow (arXiv:2209.03003); with noise at
t = 1 as in Stable Diffusion 3 (arXiv:2403.03206).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from course_utils.diffusion.samplers import Step, finish
from course_utils.shapes import expand_like, require_same_shape


def interpolate(x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return the point at t on the straight line from x0 to eps: x_t = (1 - t) x0 + t eps. arXiv:2209.03003, eq. 1."""
    require_same_shape(x0, eps, "x0 and eps")
    t = _time_like(t, x0)
    return (1 - t) * x0 + t * eps


def x0_from_velocity(x_t: torch.Tensor, u: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return x0 = x_t - t u: from x_t against the velocity, all the way to t = 0."""
    return x_t - _time_like(t, x_t) * u


def eps_from_velocity(x_t: torch.Tensor, u: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return eps = x_t + (1 - t) u: from x_t along the velocity, all the way to t = 1."""
    return x_t + (1 - _time_like(t, x_t)) * u


def velocity_loss(
    model: Callable, x0: torch.Tensor, t: torch.Tensor, eps: torch.Tensor, cond: torch.Tensor | None = None
) -> torch.Tensor:
    """Return each sample's mean squared error of the velocity; shape (batch,), float32.

        L = || eps - x0 - model(x_t, t, cond) ||^2 / d,   x_t = (1 - t) x0 + t eps

    Its minimum is the marginal velocity E[eps - x0 | x_t]. Flow matching (arXiv:2210.02747), equation 9.
    """
    u_hat = model(interpolate(x0, eps, t), t, cond)
    require_same_shape(u_hat, x0, "the model's velocity and x0")
    return (u_hat.float() - (eps - x0).float()).square().flatten(1).mean(1)  # (batch,)


def marginal_velocity(x_t: torch.Tensor, t: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """Return the exact marginal velocity E[eps - x0 | x_t], where x0 is one of the n points of data, equally likely.

        eps_k = (x_t - (1 - t) c_k) / t,   w_k = softmax over k of -|eps_k|^2 / 2,   u = sum over k of w_k (eps_k - c_k)

    x_t: (batch, d). t: (batch,), above 0. data: the points c_k, (n, d). eps_k is the noise that leads from c_k to x_t.
    """
    t = _time_like(t, x_t)[:, None]  # (batch, 1, 1)
    if not (t > 0).all():
        raise ValueError("Expected times above 0, but got a 0. There is no noise left in x_t there, and no average.")
    eps = (x_t[:, None] - (1 - t) * data) / t  # (batch, n, d)
    weights = (-eps.square().sum(2) / 2).softmax(dim=1)  # (batch, n)
    return (weights[:, :, None] * (eps - data)).sum(1)


def flow_time(alpha_bar: torch.Tensor) -> torch.Tensor:
    """Return the time of rectified flow at which there is as much noise for the signal as at alpha_bar.

        t = sqrt(1 - alpha_bar) / ( sqrt(alpha_bar) + sqrt(1 - alpha_bar) )

    alpha_bar: any shape, in [0, 1]. Divided by sqrt(alpha_bar) + sqrt(1 - alpha_bar), the noisy sample of a diffusion
    model lies on the straight line, at this t.
    """
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return noise / (signal + noise)


def as_flow(x: torch.Tensor, eps: torch.Tensor, alpha_bar: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Return (t, y, velocity) of rectified flow, from a noisy sample of diffusion and the noise predicted there.

        t = sqrt(1 - alpha_bar) / s,   y = x / s,   velocity = eps - x0,   s = sqrt(alpha_bar) + sqrt(1 - alpha_bar)
        x0 = (x - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar)

    x, eps: (batch, ...). alpha_bar: a number in (0, 1], or one for each sample, (batch, 1, ..., 1); t is of its kind.
    y lies on the straight line from x0 to eps. Raises ValueError if the shapes of x and eps differ.
    """
    require_same_shape(x, eps, "x and eps")
    signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    x0 = (x - noise * eps) / signal
    return noise / (signal + noise), x / (signal + noise), eps - x0


def as_velocity(eps_model: Callable, alpha_bar: torch.Tensor) -> Callable:
    """Turn a diffusion model that predicts eps at the whole times of alpha_bar (T,) into a model of velocities.

        u(y, t) = eps - x0,   both from the prediction at  x = (sqrt(alpha_bar_s) + sqrt(1 - alpha_bar_s)) y

    s is the whole time whose `flow_time` is nearest to t. Euler's method on it is DDIM (`samplers.ddim`) where all
    times are those of whole s, and only there: in between, the model is asked for a noise level that y does not have.
    """
    table = flow_time(alpha_bar.double())

    def velocity(y, t, cond=None):
        s = (t.double()[:, None].cpu() - table).abs().argmin(1).to(y.device)  # (batch,)
        alpha_bar_s = expand_like(alpha_bar.to(s.device)[s], y)
        x = (alpha_bar_s.sqrt() + (1 - alpha_bar_s).sqrt()) * y
        return as_flow(x, eps_model(x, s, cond), alpha_bar_s)[2]

    return velocity


def shift_times(t: torch.Tensor, shift: float) -> torch.Tensor:
    """Move times towards noise, as larger pictures need: t' = shift t / (1 + (shift - 1) t).

    A picture with m times as many pixels shows m times as many noisy copies of what it looks like from afar, so that
    the same t hides less of it; shift = sqrt(m) makes up for that. 0 and 1 stay. Raises ValueError unless shift > 0.
    Stable Diffusion 3 (arXiv:2403.03206), equation 23.
    """
    if shift <= 0:
        raise ValueError(f"Expected shift > 0, but got {shift}. 1 leaves the times as they are.")
    return shift * t / (1 + (shift - 1) * t)


def flow_times(steps: int, shift: float = 1.0, last: float | None = None) -> torch.Tensor:
    """Return the times that sampling visits: `steps` even ones from 1 to `last`, shifted, then 0; (steps + 1,).

    last: 1 / steps unless given, which makes the steps equal before the shift, as in Flux.
    `FlowMatchEulerDiscreteScheduler`, left to itself, takes last = shift_times(1/1000, shift), and shifts that again.
    float64. Raises ValueError unless steps >= 1 and 0 < last <= 1.
    """
    last = 1 / steps if last is None and steps >= 1 else last
    if steps < 1 or not last or not 0 < last <= 1:
        raise ValueError(f"Expected steps >= 1 and 0 < last <= 1, but got steps={steps} and last={last}.")
    t = torch.linspace(1, last, steps, dtype=torch.float64)
    return torch.cat([shift_times(t, shift), torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def euler(
    model: Callable, x_1: torch.Tensor, times: Sequence[float] | torch.Tensor, cond: torch.Tensor | None = None
) -> Iterator[Step]:
    """Sample by straight steps along the velocity: x_s = x_t + (s - t) model(x_t, t, cond).

    x_1: noise (batch, ...). times: falling, from at most 1 down to 0, such as `flow_times(steps)`. Yields a `Step`
    after each; one evaluation a step. Raises ValueError, at the first step, for times that do not fall within [0, 1].
    """
    x_t = x_1
    for t, s in _pairs(times):
        u = _ask(model, x_t, t, cond)
        x0_hat = x_t - t * u
        x_t = x_t + (s - t) * u
        yield Step(s, x_t, x0_hat)


@torch.no_grad()
def heun(
    model: Callable, x_1: torch.Tensor, times: Sequence[float] | torch.Tensor, cond: torch.Tensor | None = None
) -> Iterator[Step]:
    """Sample with the mean of the velocities at both ends of each step (Heun's method).

        ahead = x_t + (s - t) u_t,   x_s = x_t + (s - t) (u_t + model(ahead, s, cond)) / 2

    As `euler`, with two evaluations a step, but one in the step to 0: there all that a model of pictures could tell
    is the x0 that the step goes to. EDM (arXiv:2206.00364), algorithm 1.
    """
    x_t = x_1
    for t, s in _pairs(times):
        u = _ask(model, x_t, t, cond)
        x0_hat = x_t - t * u
        if s > 0:
            u = (u + _ask(model, x_t + (s - t) * u, s, cond)) / 2
        x_t = x_t + (s - t) * u
        yield Step(s, x_t, x0_hat)


def sample_flow(
    model: Callable,
    x_1: torch.Tensor,
    times: Sequence[float] | torch.Tensor,
    cond: torch.Tensor | None = None,
    second: bool = False,
) -> torch.Tensor:
    """Return where `euler`, or `heun` if `second`, arrives from noise x_1 along the velocity: (batch, ...)."""
    return finish((heun if second else euler)(model, x_1, times, cond))


def curvature(path: Sequence[torch.Tensor], times: Sequence[float] | torch.Tensor) -> torch.Tensor:
    """Return how far each path is from a straight line at constant speed; shape (batch,), 0 if it is one.

        S = sum over steps of (t - s) || u - (x_1 - x_0) ||^2 / || x_1 - x_0 ||^2,   u = (x_t - x_s) / (t - s)

    path: the points (batch, ...) that `euler` visits, from x_1 to x_0. times: when it is there, falling from 1 to 0.
    Raises ValueError for other times, or another number of them. Rectified flow (arXiv:2209.03003), equation 7, here
    relative to the length of the path.
    """
    if len(path) != len(times) or times[0] != 1 or times[-1] != 0:
        raise ValueError(
            f"Expected a time for each of {len(path)} points, from 1 to 0, but got {len(times)}: {list(times)}."
        )
    path = [x.flatten(1) for x in path]
    straight = path[0] - path[-1]  # (batch, d)
    steps = zip(path[:-1], path[1:], _pairs(times), strict=True)
    off = sum((t - s) * ((x_t - x_s) / (t - s) - straight).square().sum(1) for x_t, x_s, (t, s) in steps)
    return off / straight.square().sum(1)


def reflow_pairs(
    model: Callable, eps: torch.Tensor, times: torch.Tensor, cond: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x0, eps): noises and where `heun` leads them, the pairs that the next model is trained on.

    In training, x0 and eps are paired at random, so lines cross, and at a crossing the average velocity points along
    neither. Paths of one model do not cross; lines between their ends cross less. Rectified flow (arXiv:2209.03003),
    section 2.
    """
    return finish(heun(model, eps, times, cond)), eps


def _ask(model: Callable, x_t: torch.Tensor, t: float, cond: torch.Tensor | None) -> torch.Tensor:
    u = model(x_t, torch.full((len(x_t),), t, device=x_t.device), cond)
    require_same_shape(u, x_t, "the model's velocity and x_t")
    return u


def _time_like(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """t (batch,) as (batch, 1, ..., 1), to be multiplied with x."""
    if t.shape != x.shape[:1] or (t.numel() and not 0 <= t.min() <= t.max() <= 1):
        shown = f"from {t.min():.3g} to {t.max():.3g}" if t.numel() else ""
        raise ValueError(
            f"Expected one time in [0, 1] for each of {len(x)} samples, but got shape {tuple(t.shape)} {shown}. "
            "Here t is a share of noise, not the number of a step."
        )
    return expand_like(t.to(x), x)


def _pairs(times: Sequence[float] | torch.Tensor) -> list[tuple[float, float]]:
    """Each time with the next one."""
    values = [float(t) for t in times]
    falling = all(t > s for t, s in zip(values, values[1:], strict=False))
    if len(values) < 2 or not falling or values[0] > 1 or values[-1] < 0:
        raise ValueError(f"Expected at least two falling times in [0, 1], but got {values}. Make them with flow_times.")
    return list(zip(values, values[1:], strict=False))
