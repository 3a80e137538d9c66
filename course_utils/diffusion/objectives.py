"""What the network predicts (eps, x0 or v), how one follows from another, and the loss.

All three say the same about x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps: given x_t and t, each
yields the other two. Shapes throughout: x_t, x0, eps, v (batch, ...); t (batch,) whole numbers in 0 ... T-1;
alpha_bar (T,). Times t out of range raise ValueError.
"""

from collections.abc import Callable

import torch

from course_utils.diffusion.schedules import add_noise, signal_and_noise, snr
from course_utils.shapes import require_same_shape, require_times


def x0_from_eps(x_t: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """x0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t). DDPM (arXiv:2006.11239), equation 15."""
    signal, noise = signal_and_noise(t, alpha_bar, like=x_t)
    return (x_t - noise * eps) / signal


def eps_from_x0(x_t: torch.Tensor, x0: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """eps = (x_t - sqrt(alpha_bar_t) x0) / sqrt(1 - alpha_bar_t). DDPM (arXiv:2006.11239), equation 4."""
    signal, noise = signal_and_noise(t, alpha_bar, like=x_t)
    return (x_t - signal * x0) / noise


def v_from_x0_eps(x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x0. Progressive distillation (arXiv:2202.00512)."""
    signal, noise = signal_and_noise(t, alpha_bar, like=x0)
    return signal * eps - noise * x0


def x0_from_v(x_t: torch.Tensor, v: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """x0 = sqrt(alpha_bar_t) x_t - sqrt(1 - alpha_bar_t) v. Progressive distillation (arXiv:2202.00512)."""
    signal, noise = signal_and_noise(t, alpha_bar, like=x_t)
    return signal * x_t - noise * v


def eps_from_v(x_t: torch.Tensor, v: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """eps = sqrt(1 - alpha_bar_t) x_t + sqrt(alpha_bar_t) v. Progressive distillation (arXiv:2202.00512)."""
    signal, noise = signal_and_noise(t, alpha_bar, like=x_t)
    return noise * x_t + signal * v


def score(eps: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """Return the score at x_t, the gradient of ln p_t(x_t) with respect to x_t, from the noise predicted there.

        grad ln p_t(x_t) = -E[eps | x_t] / sqrt(1 - alpha_bar_t)

    eps: the prediction at x_t, of its shape (batch, ...). Tweedie's formula; denoising score matching (Vincent 2011).
    Score SDE (arXiv:2011.13456), equation 7.
    """
    _, noise = signal_and_noise(t, alpha_bar, like=eps)
    return -eps / noise


def as_eps(model: Callable, kind: str, alpha_bar: torch.Tensor) -> Callable:
    """Turn a model that predicts `kind` ("eps", "x0" or "v") into one that predicts eps, as samplers need it.

    Returns a callable eps(x_t, t, cond=None), for t of shape (batch,). Raises ValueError for another kind.
    """
    if kind == "eps":
        return model
    conversions = {"x0": eps_from_x0, "v": eps_from_v}
    if kind not in conversions:
        raise ValueError(f"Expected a prediction of kind eps, x0 or v, but got {kind!r}.")

    def eps_model(x_t, t, cond=None):
        return conversions[kind](x_t, model(x_t, t, cond), t, alpha_bar)

    return eps_model


def noise_prediction_loss(eps_hat: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """Return each sample's mean squared error; shape (batch,), float32.

        L_simple = || eps - eps_hat(x_t, t) ||^2, divided by the number of elements of one sample

    It stays one number per sample, so that it can be weighted, or sorted by t, before it is averaged.
    The same error serves for x0 and v. Raises ValueError if shapes differ.
    DDPM (arXiv:2006.11239), equation 14.
    """
    require_same_shape(eps_hat, eps, "eps_hat and eps")
    return (eps_hat.float() - eps.float()).square().flatten(1).mean(1)  # (batch,)


def uniform_times(uniforms: torch.Tensor, T: int) -> torch.Tensor:
    """Turn uniform numbers in [0, 1) into times that are equally likely: floor(u T), in 0 ... T-1, int64.

    The numbers come from outside, so that each sample's t can follow from its own seed.
    Raises ValueError for numbers outside [0, 1).
    """
    if uniforms.numel() and not 0 <= uniforms.min() <= uniforms.max() < 1:
        raise ValueError(
            f"Expected numbers in [0, 1), but got {uniforms.min():.3g} to {uniforms.max():.3g}. "
            "Draw them with torch.rand."
        )
    return (uniforms * T).long().clamp(max=T - 1)


def sample_times(count: int, T: int, generator: torch.Generator) -> torch.Tensor:
    """Draw `count` times, each of 0 ... T-1 equally likely; int64 (count,), on the generator's device.

    DDPM (arXiv:2006.11239), algorithm 1, line 3, with the paper's t minus 1. Raises ValueError if T < 1.
    """
    if T < 1:
        raise ValueError(f"Expected T >= 1, but got {T}.")
    return uniform_times(torch.rand(count, generator=generator, device=generator.device), T)


def logit_normal(normals: torch.Tensor, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    """Turn standard normal numbers n into times in (0, 1) that favour the middle: sigmoid(mean + std n), any shape.

    Stable Diffusion 3 (arXiv:2403.03206), section 3.1, for rectified flow; mean 0 and std 1 are its choice. Raises
    ValueError unless std > 0.
    """
    if std <= 0:
        raise ValueError(f"Expected std > 0, but got {std}.")
    return torch.sigmoid(mean + std * normals)


def logit_normal_times(normals: torch.Tensor, T: int, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    """Turn standard normal numbers n into whole times that favour the middle: floor(T sigmoid(mean + std n)).

    Both ends teach little: near t = 0 there is hardly any noise to see, near T-1 hardly any picture. A higher
    mean moves the weight to noisier times. Returns int64 times in 0 ... T-1, of the same shape.
    Raises ValueError unless std > 0. After Esser et al. (arXiv:2403.03206, section 3.1), who use it for
    rectified flow; here it picks the step of a discrete schedule.
    """
    return (logit_normal(normals, mean, std) * T).long().clamp(max=T - 1)


def v_weight(alpha_bar_t: torch.Tensor) -> torch.Tensor:
    """Return the weight that makes an eps-prediction loss the loss of v, of the same shape, at least 1.

        |v - v_hat|^2 = w_t |eps - eps_hat|^2,  w_t = 1 / alpha_bar_t

    Almost all of a very noisy x_t is noise, so that eps is easy to predict there, whatever the picture. This weight
    measures the error of the picture instead: at those times it is |x0 - x0_hat|^2, nearly.
    Follows from v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x0. Progressive distillation (arXiv:2202.00512).
    """
    return 1 / alpha_bar_t


def min_snr_weight(alpha_bar_t: torch.Tensor, gamma: float = 5.0) -> torch.Tensor:
    """Return the Min-SNR weight of an eps-prediction loss, in [0, 1], of the same shape.

        w_t = min(SNR_t, gamma) / SNR_t

    Nearly clean pictures weigh less: without it their easy steps outvote the rest.
    Min-SNR (arXiv:2303.09556, section 3.4). Raises ValueError unless gamma > 0.
    """
    if gamma <= 0:
        raise ValueError(f"Expected gamma > 0, but got {gamma}.")
    return (gamma / snr(alpha_bar_t)).clamp(max=1)


def training_step(
    model: Callable, x0: torch.Tensor, alpha_bar: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Return the loss of one training step of a model that predicts eps: a number with gradients, shape ().

        L = mean over the batch of || eps - model(x_t, t) ||^2 / d,   t uniform on 0 ... T-1,  eps ~ N(0, I)

    x0: clean pictures of d numbers each, (batch, ...). alpha_bar: (T,). Times are drawn first, then the noise,
    both on the generator's device. Raises ValueError if the model returns another shape than that of x0.
    DDPM (arXiv:2006.11239), algorithm 1, lines 2 to 5.
    """
    t = sample_times(len(x0), len(alpha_bar), generator).to(x0.device)  # (batch,)
    eps = torch.randn(x0.shape, generator=generator, device=generator.device, dtype=x0.dtype).to(x0.device)
    x_t = add_noise(x0, eps, t, alpha_bar)
    return noise_prediction_loss(model(x_t, t), eps).mean()


def bound_weights(beta: torch.Tensor) -> torch.Tensor:
    """Return the weight of each time t = 1 ... T-1 in the variational bound on -log p(x0); (T-1,), dtype of beta.

        zeta_t = beta_t^2 / (2 beta_tilde_t alpha_t (1 - alpha_bar_t))
        beta_tilde_t = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t, the variance of q(x_{t-1} | x_t, x0)

    so that zeta_t || eps - eps_hat ||^2 is the KL divergence of a step whose variance is beta_tilde_t. At t = 0 that
    variance is 0. beta: (T,), between 0 and 1. DDPM (arXiv:2006.11239), equation 12, t counted from 0.
    Raises ValueError for fewer than two betas.
    """
    if beta.ndim != 1 or len(beta) < 2:
        raise ValueError(f"Expected betas of shape (T,) for at least two times, got {tuple(beta.shape)}.")
    alpha_bar = (1 - beta).cumprod(0)
    now, before = alpha_bar[1:], alpha_bar[:-1]
    beta_tilde = (1 - before) / (1 - now) * beta[1:]
    return beta[1:] ** 2 / (2 * beta_tilde * (1 - beta[1:]) * (1 - now))


def loss_by_time(losses: torch.Tensor, t: torch.Tensor, T: int, bins: int) -> torch.Tensor:
    """Return the mean loss in each of `bins` equal stretches of the times 0 ... T-1; shape (bins,).

        bin of t = floor(t bins / T)

    losses: one for each sample, (n,). t: its whole-number time, (n,). A stretch without samples has no mean: NaN,
    which a plot leaves out. Raises ValueError unless 1 <= bins <= T, for other shapes, and for t out of range.
    """
    require_times(t, T)
    require_same_shape(losses, t, "losses and t")
    if not 1 <= bins <= T:
        raise ValueError(f"Expected between 1 and T={T} bins, but got {bins}.")
    index = t * bins // T  # (n,)
    total = torch.zeros(bins, dtype=losses.dtype, device=losses.device).index_add(0, index, losses)
    return total / torch.bincount(index, minlength=bins)  # 0 / 0 is NaN


def posterior_weights(x_t: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """Return how probable it is that x_t was made from each x_i of a finite data set; (batch, n), rows sum to 1.

        w_i = N(x_t; sqrt(alpha_bar_t) x_i, (1 - alpha_bar_t) I) / sum over j of the same for x_j

    x_t: (batch, ...). data: (n, ...), all equally likely beforehand. Bayes' rule. Raises ValueError for other shapes.
    """
    if data.shape[1:] != x_t.shape[1:]:
        raise ValueError(f"Expected data of shape (n, {', '.join(map(str, x_t.shape[1:]))}) for x_t of shape "
                         f"{tuple(x_t.shape)}, but got {tuple(data.shape)}.")  # fmt: skip
    signal, noise = signal_and_noise(t, alpha_bar, like=x_t.flatten(1))  # (batch, 1)
    distance = torch.cdist(x_t.flatten(1) / signal, data.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    return (-(distance * signal / noise).square() / 2).softmax(dim=1)


def best_x0(x_t: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """Return the prediction of x0 with the least mean squared error where x0 is one of `data`: the conditional mean.

        E[x0 | x_t] = sum over i of w_i x_i,   w_i from `posterior_weights`

    Shapes as there; the result has that of x_t. No network can do better on these data, and one that did as well
    could only repeat them.
    """
    return (posterior_weights(x_t, t, alpha_bar, data) @ data.flatten(1)).reshape(x_t.shape)


def mixture_eps(
    x_t: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor, centres: torch.Tensor, spread: float
) -> torch.Tensor:
    """Return the exact eps, E[eps | x_t], where x0 comes from a mixture of equally likely round Gaussians.

        w_k = softmax over k of -|x_t - sqrt(alpha_bar_t) c_k|^2 / (2 v),   v = alpha_bar_t spread^2 + 1 - alpha_bar_t
        eps = sqrt(1 - alpha_bar_t) / v (x_t - sqrt(alpha_bar_t) sum over k of w_k c_k)

    x_t: (batch, d). centres c_k: (n, d). spread: the standard deviation of each Gaussian. It is minus the score of
    q(x_t) times sqrt(1 - alpha_bar_t), so any error of a sampler that uses it is the sampler's own.
    """
    signal, noise = signal_and_noise(t, alpha_bar, like=x_t)  # (batch, 1)
    variance = signal.square() * spread**2 + noise.square()
    distance = (x_t[:, None] - signal[:, None] * centres).square().sum(2)  # (batch, n)
    weights = (-distance / (2 * variance)).softmax(dim=1)
    return noise / variance * (x_t - signal * (weights @ centres))
