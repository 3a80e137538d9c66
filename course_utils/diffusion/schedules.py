"""Noise schedules: how much of a picture is left at time t, the step and the jump to that time, and what they leave.

Time in code runs over t = 0 ... T-1, time in the papers over t = 1 ... T: `beta[0]` is the paper's beta_1.
The papers' t = 0 is the clean picture; where code has to name it, it is t = -1, with alpha_bar = 1.
Schedules are computed in float64 and returned as float32 tensors of shape (T,), on the CPU.
"""

import math

import torch

from course_utils.shapes import expand_like, require_same_shape, require_times


def _require_schedule(T: int, start: float, end: float) -> None:
    if T < 1 or not 0 < start <= end < 1:
        raise ValueError(f"Expected T >= 1 and 0 < start <= end < 1, but got {T=}, {start=}, {end=}.")


def linear_beta(T: int = 1000, start: float = 1e-4, end: float = 0.02) -> torch.Tensor:
    """Return beta_t rising in a straight line from `start` to `end`; shape (T,).

    The defaults are those of DDPM (arXiv:2006.11239, section 4).
    Raises ValueError unless T >= 1 and 0 < start <= end < 1.
    """
    _require_schedule(T, start, end)
    return torch.linspace(start, end, T, dtype=torch.float64).float()


def scaled_linear_beta(T: int = 1000, start: float = 0.00085, end: float = 0.012) -> torch.Tensor:
    """Return beta_t whose square root rises in a straight line; shape (T,).

        sqrt(beta_t) = sqrt(start) + (sqrt(end) - sqrt(start)) (t-1)/(T-1)

    The schedule, and by default the values, of Stable Diffusion (latent diffusion, arXiv:2112.10752).
    Raises ValueError unless T >= 1 and 0 < start <= end < 1.
    """
    _require_schedule(T, start, end)
    return torch.linspace(math.sqrt(start), math.sqrt(end), T, dtype=torch.float64).square().float()


def cosine_beta(T: int = 1000) -> torch.Tensor:
    """Return the beta_t of a cosine-shaped alpha_bar; shape (T,).

        alpha_bar_t = f(t) / f(0),   f(t) = cos^2( (t/T + s)/(1 + s) * pi/2 ),   s = 0.008
        beta_t = min(1 - alpha_bar_t / alpha_bar_{t-1}, 0.999)

    Improved DDPM (arXiv:2102.09672, equation 17). Raises ValueError if T < 1.
    """
    if T < 1:
        raise ValueError(f"Expected T >= 1, but got {T}.")
    s = 0.008
    t = torch.arange(T + 1, dtype=torch.float64)  # the paper's t: 0 ... T
    f = torch.cos((t / T + s) / (1 + s) * math.pi / 2).square()
    return (1 - f[1:] / f[:-1]).clamp(max=0.999).float()  # f(0) cancels


def alpha_bar_from_beta(beta: torch.Tensor) -> torch.Tensor:
    """Return the share of the picture's variance that is left at each t; shape (T,), in (0, 1), falling.

        alpha_bar_t = product over s = 1 ... t of (1 - beta_s)

    DDPM (arXiv:2006.11239), above equation 4.
    Raises ValueError unless beta has shape (T,) with values in (0, 1).
    """
    if beta.ndim != 1 or len(beta) == 0 or beta.min() <= 0 or beta.max() >= 1:
        raise ValueError(f"Expected beta of shape (T,) with values between 0 and 1, but got {beta}.")
    return (1 - beta.double()).cumprod(0).float()


def snr(alpha_bar: torch.Tensor) -> torch.Tensor:
    """Return the signal-to-noise ratio alpha_bar / (1 - alpha_bar), of the same shape."""
    return alpha_bar / (1 - alpha_bar)


def variance_at(alpha_bar: torch.Tensor, x0_variance: torch.Tensor | float) -> torch.Tensor:
    """Return the variance of x_t where the clean pictures have variance `x0_variance`; shape of alpha_bar.

        Var(x_t) = alpha_bar_t Var(x0) + 1 - alpha_bar_t

    It stays what it was only if Var(x0) = 1; any other variance drifts towards 1.
    From DDPM (arXiv:2006.11239), equation 4. Raises ValueError for a negative variance.
    """
    x0_variance = torch.as_tensor(x0_variance, dtype=alpha_bar.dtype, device=alpha_bar.device)
    if x0_variance.numel() and x0_variance.min() < 0:
        raise ValueError(f"Expected a variance of at least 0, but got {x0_variance.min():.3g}.")
    return alpha_bar * x0_variance + 1 - alpha_bar


def kl_to_normal(x0: torch.Tensor, alpha_bar_t: torch.Tensor | float) -> torch.Tensor:
    """Return how far q(x_t | x0) is from standard normal noise, in bits per dimension; shape (batch,).

        KL( N(sqrt(alpha_bar_t) x0, (1 - alpha_bar_t) I) || N(0, I) ) / (d ln 2)
            = mean over the d dimensions of [alpha_bar_t (x0^2 - 1) - ln(1 - alpha_bar_t)] / (2 ln 2)

    x0: (batch, ...). alpha_bar_t: a number between 0 and 1, or one for each sample, (batch,). At the last t it is
    what sampling from pure noise gets wrong: the L_T of DDPM (arXiv:2006.11239), equation 5 and section 4.
    Raises ValueError for alpha_bar_t outside (0, 1).
    """
    a = expand_like(alpha_bar_t, x0)  # (batch, 1, ..., 1)
    if a.min() <= 0 or a.max() >= 1:
        raise ValueError(f"Expected alpha_bar_t between 0 and 1, but got {a.min():.3g} to {a.max():.3g}.")
    nats = (a * (x0.square() - 1) - torch.log1p(-a)) / 2  # log1p: exact where alpha_bar_t is tiny
    return nats.flatten(1).mean(1) / math.log(2)  # (batch,)


def signal_and_noise(t: torch.Tensor, alpha_bar: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), shaped to multiply `like`: (batch, 1, ..., 1) each.

    t: whole numbers in 0 ... T-1, shape (batch,). alpha_bar: (T,). Raises ValueError for any other t.
    """
    require_times(t, len(alpha_bar))
    alpha_bar_t = alpha_bar.to(t.device)[t]
    return expand_like(alpha_bar_t.sqrt(), like), expand_like((1 - alpha_bar_t).sqrt(), like)


def forward_step(x_before: torch.Tensor, eps: torch.Tensor, beta_t: torch.Tensor | float) -> torch.Tensor:
    """Take one step of the forward process: a sample of q(x_t | x_{t-1}) if eps is standard normal.

        x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps

    x_before, eps: (batch, ...). beta_t: a number between 0 and 1, or one for each sample, (batch,).
    Raises ValueError if shapes differ. DDPM (arXiv:2006.11239), equation 2.
    """
    require_same_shape(x_before, eps, "x_before and eps")
    beta_t = expand_like(beta_t, x_before)
    return (1 - beta_t).sqrt() * x_before + beta_t.sqrt() * eps


def add_noise(x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """Jump from the clean x0 to time t in one step: a sample of q(x_t | x0) if eps is standard normal.

        x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps

    x0, eps: (batch, ...). t: whole numbers in 0 ... T-1, shape (batch,). alpha_bar: (T,).
    Raises ValueError if shapes differ or t is out of range. DDPM (arXiv:2006.11239), equation 4.
    """
    require_same_shape(x0, eps, "x0 and eps")
    signal, noise = signal_and_noise(t, alpha_bar, like=x0)
    return signal * x0 + noise * eps
