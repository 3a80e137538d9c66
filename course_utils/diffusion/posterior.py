"""A diffusion model as a prior: samples of what a picture may have been, given a noisy measurement of it.

    p(x0 | y)  is proportional to  p(x0) p(y | x0)

The model knows p(x0), pictures or latents; `measure` says what would be measured of an x0, differentiable, such as
lambda z: A(decode(z)). Shapes: x_t, x0 (batch, ...); measured (batch, ...) as `measure` gives it; alpha_bar (T,).
"""

from collections.abc import Callable, Iterator

import torch

from course_utils.diffusion import steps
from course_utils.diffusion.samplers import Step, draw_noise
from course_utils.shapes import expand_like, require_same_shape

PULL = 0.5  # the best of 0.25, 0.5, 1 and 2 for few pixels, on three held-out pages in 20 steps
TINY = 1e-12


def dps_step(
    model: Callable,
    x_t: torch.Tensor,
    t: int,
    earlier: int,
    alpha_bar: torch.Tensor,
    measure: Callable,
    measured: torch.Tensor,
    floor: float,
    noise: torch.Tensor,
    pull: float = PULL,
    cond: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x_earlier, x0_hat): a random step of DDIM, pulled towards what was measured.

        x0_hat    = (x_t - sqrt(1 - alpha_bar_t) eps(x_t, t)) / sqrt(alpha_bar_t)
        dist      = || measured - measure(x0_hat) ||,   g = grad_{x_t} dist
        x_earlier = ddim_step(x_t, eps, eta = 1, noise) - pull max(dist - floor, 0) / || g ||^2 g

    Norms are over all numbers of a sample, so that none depends on the others of its batch. The gradient passes through
    the model. floor: the norm that the measurement's noise alone has, sigma sqrt(numbers measured); what is nearer
    fits. pull: 1 is the step after which a linear dist would be the floor (Polyak's). noise: standard normal, as x_t.
    Both results are detached. Diffusion posterior sampling (arXiv:2209.14687), algorithm 1, with a step of DDIM for one
    of DDPM, so that steps can be left out, and Polyak's rule for its zeta, so that few are enough.
    Raises ValueError if shapes differ, and for a negative floor or pull.
    """
    if floor < 0 or pull < 0:
        raise ValueError(f"Expected a floor and a pull of at least 0, but got {floor} and {pull}.")
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        eps = steps.ask(model, x_t, t, cond)
        x0_hat, _ = steps.guess(x_t, eps, t, alpha_bar)
        expected = measure(x0_hat)
        require_same_shape(expected, measured, "measure(x0_hat) and what was measured")
        residual = (measured - expected).flatten(1).norm(dim=1)  # (batch,)
        gradient = torch.autograd.grad(residual.sum(), x_t)[0]
    plain = steps.ddim_step(x_t.detach(), eps.detach(), t, earlier, alpha_bar, 1.0, noise)
    square = gradient.flatten(1).square().sum(1).clamp(min=TINY)  # (batch,)
    length = pull * (residual.detach() - floor).clamp(min=0) / square
    return plain - expand_like(length, gradient) * gradient, x0_hat.detach()


def dps(
    model: Callable,
    x_T: torch.Tensor,
    alpha_bar: torch.Tensor,
    times: list[int],
    measure: Callable,
    measured: torch.Tensor,
    floor: float,
    generator: torch.Generator | list[torch.Generator],
    cond: torch.Tensor | None = None,
    pull: float = PULL,
) -> Iterator[Step]:
    """Sample with `dps_step` at each of the falling times, down to the clean picture; yield a `Step` after each.

    measured: (batch, ...), repeated by the caller where several samples of one measurement are wanted.
    """
    x_t = x_T
    for t, earlier in zip(times, [*times[1:], -1], strict=True):
        noise = draw_noise(x_t.shape, generator).to(x_t)
        x_t, x0_hat = dps_step(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull, cond)
        yield Step(earlier, x_t, x0_hat)
