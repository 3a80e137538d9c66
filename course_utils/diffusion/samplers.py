"""Samplers: from pure noise back to a picture, with any callable eps(x_t, t, cond).

Each sampler is a generator that yields a `Step` after every evaluation of the model, so that the caller owns
progress bars and plots. It knows no network: an exact formula for eps serves as well. Shapes throughout:
x_T (batch, ...) standard normal noise; alpha_bar (T,); `times` a falling list of whole numbers in 0 ... T-1.

`clip`, if given, holds every guess of x0 within [-clip, clip]: 1 for pictures, None for latents and points.
Times, eta or model outputs that do not fit raise ValueError when the first step is taken.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch

from course_utils.diffusion import steps
from course_utils.diffusion.guidance import guide


class Step(NamedTuple):
    """Where sampling stands: x_t at noise time t (-1: no noise left), and the x0_hat that led there.

    In rectified flow (`flow`), t is the share of noise, from 1 to 0.
    """

    t: float
    x_t: torch.Tensor
    x0_hat: torch.Tensor


def finish(steps: Iterable[Step]) -> torch.Tensor:
    """Run a sampler to its end and return the last x_t: the sample, (batch, ...)."""
    for step in steps:
        last = step
    return last.x_t


def trailing_times(T: int, steps: int) -> list[int]:
    """Return `steps` evenly spaced times from T-1 down, counted from the noisy end: [999, 749, 499, 249].

    Sampling then starts where noise is strongest, as pure noise asks (arXiv:2305.08891, table 2, "trailing").
    Raises ValueError unless 1 <= steps <= T.
    """
    _require_steps(T, steps)
    return [round(T - index * (T / steps)) - 1 for index in range(steps)]


def leading_times(T: int, steps: int) -> list[int]:
    """Return `steps` evenly spaced times down to 0, counted from the clean end: [750, 500, 250, 0].

    With few steps they start well below T-1, though x_T is pure noise (arXiv:2305.08891, table 2, "leading").
    Raises ValueError unless 1 <= steps <= T.
    """
    _require_steps(T, steps)
    return [index * (T // steps) for index in reversed(range(steps))]


def _require_steps(T: int, steps: int) -> None:
    if not 1 <= steps <= T:
        raise ValueError(f"Expected between 1 and T={T} steps, but got {steps}.")


def draw_noise(shape: tuple[int, ...], generator: torch.Generator | list[torch.Generator]) -> torch.Tensor:
    """Return standard normal noise of `shape` = (batch, ...), float32, on the generator's device.

    With a list of generators, one for each sample, a picture does not depend on what else is in its batch.
    Raises ValueError if the list's length is not the batch size.
    """
    if isinstance(generator, torch.Generator):
        return torch.randn(shape, generator=generator, device=generator.device)
    if len(generator) != shape[0]:
        raise ValueError(f"Expected {shape[0]} generators, one for each sample, but got {len(generator)}.")
    return torch.stack([torch.randn(shape[1:], generator=each, device=each.device) for each in generator])


def guided(model: Callable, null_cond: torch.Tensor, scale: float) -> Callable:
    """Return eps(x_t, t, cond) with classifier-free guidance of strength w = `scale`.

        eps = eps(x_t, t, null) + w (eps(x_t, t, cond) - eps(x_t, t, null))

    w = 1 is the plain conditional model and costs one evaluation; otherwise both run as one batch of twice
    the size. null_cond: what "no condition" looks like, of the shape of cond or of one sample of it.
    Raises ValueError, when called, if cond is missing. Ho & Salimans (arXiv:2207.12598), equation 6, whose
    strength is w - 1.
    """

    def eps_model(x_t, t, cond=None):
        if cond is None:
            raise ValueError("Expected a condition to guide with, but got None. Pass cond to the sampler.")
        if scale == 1:
            return model(x_t, t, cond)
        null = null_cond.to(device=cond.device, dtype=cond.dtype).expand_as(cond)
        both = model(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([null, cond]))  # (2 batch, ...)
        eps_null, eps_cond = both.chunk(2)
        return guide(eps_null, eps_cond, scale)

    return eps_model


@torch.no_grad()
def ddpm(
    model: Callable,
    x_T: torch.Tensor,
    alpha_bar: torch.Tensor,
    times: list[int],
    generator: torch.Generator | list[torch.Generator],
    cond: torch.Tensor | None = None,
    clip: float | None = None,
) -> Iterator[Step]:
    """Sample by drawing from the posterior q(x_{t-1} | x_t, x0_hat) at each step.

        x0_hat  = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t)
        mean    = sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t) x0_hat
                  + sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) x_t
        x_{t-1} = mean + sqrt( (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t ) z

    where t-1 stands for the next of `times`, and alpha_t = 1 - beta_t = alpha_bar_t / alpha_bar_{t-1}.
    The last step adds no noise. DDPM (arXiv:2006.11239), equations 7 and 15; of the paper's two variances
    this is the smaller one.
    """
    x_t = x_T
    for t, earlier in _steps_of(times, alpha_bar):
        x0_hat, eps = steps.guess(x_t, steps.ask(model, x_t, t, cond), t, alpha_bar, clip)
        # The last step draws nothing: its variance is 0.
        noise = draw_noise(x_t.shape, generator).to(x_t) if earlier >= 0 else torch.zeros_like(x_t)
        x_t = steps.ddpm_step(x_t, eps, t, earlier, alpha_bar, noise, clip)
        yield Step(earlier, x_t, x0_hat)


@torch.no_grad()
def ddim(
    model: Callable,
    x_T: torch.Tensor,
    alpha_bar: torch.Tensor,
    times: list[int],
    cond: torch.Tensor | None = None,
    eta: float = 0.0,  # 0: no randomness after x_T; 1: as random as DDPM
    generator: torch.Generator | list[torch.Generator] | None = None,
    clip: float | None = None,
) -> Iterator[Step]:
    """Sample by a step towards x0_hat, to the noise level of the next time.

        x0_hat  = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t)
        sigma   = eta sqrt( (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_{t-1}) )
        x_{t-1} = sqrt(alpha_bar_{t-1}) x0_hat + sqrt(1 - alpha_bar_{t-1} - sigma^2) eps + sigma z

    where t-1 stands for the next of `times`. The last step adds no noise. DDIM (arXiv:2010.02502),
    equations 12 and 16. Raises ValueError unless 0 <= eta <= 1, and if eta > 0 comes without a generator.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"Expected eta from 0 to 1, but got {eta}.")
    if eta > 0 and generator is None:
        raise ValueError(f"With eta = {eta} each step draws noise: pass a generator, or set eta to 0.")
    x_t = x_T
    for t, earlier in _steps_of(times, alpha_bar):
        x0_hat, eps = steps.guess(x_t, steps.ask(model, x_t, t, cond), t, alpha_bar, clip)
        noise = None
        if generator is not None and eta > 0 and earlier >= 0:
            noise = draw_noise(x_t.shape, generator).to(x_t)
        x_t = steps.ddim_step(x_t, eps, t, earlier, alpha_bar, eta, noise)
        yield Step(earlier, x_t, x0_hat)


@torch.no_grad()
def dpm_solver(
    model: Callable,
    x_T: torch.Tensor,
    alpha_bar: torch.Tensor,
    times: list[int],
    cond: torch.Tensor | None = None,
    clip: float | None = None,
) -> Iterator[Step]:
    """Sample with DPM-Solver++ 2M: DDIM with an x0_hat that is extrapolated from its last two values.

        h = lambda_{t-1} - lambda_t,   lambda_t = log( sqrt(alpha_bar_t) / sqrt(1 - alpha_bar_t) )
        D = x0_hat + h / (2 h_before) (x0_hat - x0_hat_before)
        x_{t-1} = sqrt((1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)) x_t - sqrt(alpha_bar_{t-1}) (exp(-h) - 1) D

    where t-1 stands for the next of `times`. The first step has no value before it, and the last one, to no
    noise at all, has an infinite h: both take D = x0_hat. One evaluation a step, nothing random.
    DPM-Solver++ (arXiv:2211.01095), algorithm 2.
    """
    x_t, x0_hat_before, before = x_T, None, None
    for t, earlier in _steps_of(times, alpha_bar):
        x0_hat, _ = steps.guess(x_t, steps.ask(model, x_t, t, cond), t, alpha_bar, clip)
        x_t = steps.dpm_solver_step(x_t, x0_hat, x0_hat_before, before, t, earlier, alpha_bar)
        x0_hat_before, before = x0_hat, t
        yield Step(earlier, x_t, x0_hat)


@torch.no_grad()
def heun(
    model: Callable,
    x_T: torch.Tensor,
    alpha_bar: torch.Tensor,
    times: list[int],
    cond: torch.Tensor | None = None,
    clip: float | None = None,
) -> Iterator[Step]:
    """Sample with Heun's method: look ahead with a DDIM step, then step with the mean of both eps.

        x_{t-1} = ddim_step(x_t, (eps(x_t, t) + eps(ahead, t-1)) / 2),   ahead = ddim_step(x_t, eps(x_t, t))

    where t-1 stands for the next of `times`. Two evaluations a step, one at the last; nothing random. x0_hat is the
    one that the first evaluation implies. EDM (arXiv:2206.00364), algorithm 1; see `steps.heun_step`.
    """
    x_t = x_T
    for t, earlier in _steps_of(times, alpha_bar):
        calls: list[torch.Tensor] = []

        def noted(*inputs, calls=calls):
            calls.append(model(*inputs))
            return calls[-1]

        x_before, x_t = x_t, steps.heun_step(noted, x_t, t, earlier, alpha_bar, cond, clip)
        yield Step(earlier, x_t, steps.guess(x_before, calls[0], t, alpha_bar, clip)[0])


@torch.no_grad()
def ddim_inversion(
    model: Callable, x0: torch.Tensor, alpha_bar: torch.Tensor, times: list[int], cond: torch.Tensor | None = None
) -> Iterator[Step]:
    """Walk DDIM the other way, from the clean x0 (batch, ...) to the noise that DDIM would draw it from.

        x_later = sqrt(alpha_bar_later) x0_hat + sqrt(1 - alpha_bar_later) eps(x_t, t)

    times: falling, as for the samplers; they are walked backwards, so the last step ends at times[0]. The way back,
    `ddim` with the same times, does not end at x0 exactly, since each step uses the eps seen at its start: the error
    shrinks in proportion to the step. DDIM (arXiv:2010.02502), section 4.3.
    """
    x_t = x0
    for later, t in reversed(_steps_of(times, alpha_bar)):
        x_before, x_t = x_t, steps.inversion_step(model, x_t, t, later, alpha_bar, cond)
        yield Step(later, x_t, x_before)


def text_to_image(
    prompts: list[str],
    encode: Callable,
    model: Callable,
    decode: Callable,
    x_T: torch.Tensor,
    alpha_bar: torch.Tensor,
    times: list[int],
    scale: float = 4.0,
    negative: str = "",
) -> torch.Tensor:
    """Draw one picture for each prompt, from noise: the whole of text-to-image; returns what `decode` makes of x_0.

        c = encode(prompt), n = encode(negative);   at each t:   eps = guide(eps(x_t, t, n), eps(x_t, t, c), scale),
        then a step of DDIM with eta = 0;   at the end   picture = decode(x_0)

    encode: list of n texts -> (n, words, width). decode: scaled latents (n, ...) -> pictures. x_T: (n, ...).
    `negative`: what to lead away from, the same for all; "" for nothing. With diffusers' parts and the course's "ddim"
    (`pipelines.picture_book.make_scheduler`) it is `StableDiffusionPipeline`; with diffusers' `DDIMScheduler` only
    where the number of steps divides T. Raises ValueError unless there is one x_T for each prompt.
    """
    if len(prompts) != len(x_T):
        raise ValueError(f"Expected one x_T for each of {len(prompts)} prompts, but got {len(x_T)}.")
    with torch.no_grad():
        cond, null = encode(prompts), encode([negative] * len(prompts))
        return decode(finish(ddim(guided(model, null, scale), x_T, alpha_bar, times, cond=cond)))


def _steps_of(times: list[int], alpha_bar: torch.Tensor) -> list[tuple[int, int]]:
    """Pair each time with the next one, (t, earlier); the last is followed by -1, the clean picture."""
    times = [int(t) for t in times]
    falling = all(t > earlier for t, earlier in zip(times, times[1:], strict=False))
    if not times or not falling or times[0] >= len(alpha_bar) or times[-1] < 0:
        raise ValueError(
            f"Expected falling times from at most {len(alpha_bar) - 1} down to at least 0, but got {times}. "
            "Make them with trailing_times(T, steps)."
        )
    return list(zip(times, [*times[1:], -1], strict=True))
