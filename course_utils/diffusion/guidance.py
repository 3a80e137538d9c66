"""How a prompt steers the drawing: prompts dropped in training, and the difference that a prompt makes in drawing.

Shapes throughout: x0, x_t, eps (batch, ...); t (batch,) whole numbers in 0 ... T-1; alpha_bar (T,); cond (batch, words,
width), the hidden states of the prompts; null (1, words, width), those of the empty prompt "".
"""

from collections.abc import Callable, Sequence

import torch

from course_utils.diffusion.objectives import noise_prediction_loss
from course_utils.diffusion.schedules import add_noise, signal_and_noise
from course_utils.shapes import expand_like, require_same_shape


def drop_prompts(cond: torch.Tensor, null: torch.Tensor, uniforms: torch.Tensor, share: float = 0.1) -> torch.Tensor:
    """Return cond with about a `share` of its prompts, each as a whole, replaced by the null prompt.

        cond_i <- null  where u_i < share

    cond: (batch, words, width). null: (1, words, width). uniforms: (batch,), drawn from [0, 1), one for each prompt.
    So one network learns both eps(x_t, t, c) and eps(x_t, t, null). Ho & Salimans (arXiv:2207.12598), algorithm 1.
    Raises ValueError unless 0 <= share <= 1 and there is one number for each prompt.
    """
    if not 0 <= share <= 1 or uniforms.shape != cond.shape[:1]:
        raise ValueError(
            f"Expected a share from 0 to 1 and one number for each of {len(cond)} prompts, got {share} "
            f"and numbers of shape {tuple(uniforms.shape)}."
        )
    return torch.where(expand_like(uniforms < share, cond).bool(), null, cond)


def text_loss(
    model: Callable,
    x0: torch.Tensor,
    cond: torch.Tensor,
    null: torch.Tensor,
    t: torch.Tensor,
    eps: torch.Tensor,
    uniforms: torch.Tensor,
    alpha_bar: torch.Tensor,
    share: float = 0.1,
) -> torch.Tensor:
    """Return the loss of a network that predicts the noise, given time and prompt: a number with gradients, shape ().

        L = mean over the batch of || eps - model(x_t, t, c') ||^2 / d,   c' = c, or null with the probability `share`

    x0: clean latents of d numbers each. t, eps, uniforms: the chance in it, drawn by the caller; see `drop_prompts`.
    Latent diffusion (arXiv:2112.10752), equation 3, with the dropped prompts of arXiv:2207.12598.
    """
    x_t = add_noise(x0, eps, t, alpha_bar)
    return noise_prediction_loss(model(x_t, t, drop_prompts(cond, null, uniforms, share)), eps).mean()


def classifier_score(
    eps_cond: torch.Tensor, eps_null: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor
) -> torch.Tensor:
    """Return the direction in which x_t looks more like the prompt, by Bayes' rule from two predictions of the noise.

        grad log p(c | x_t) = grad log p(x_t | c) - grad log p(x_t) = -(eps_cond - eps_null) / sqrt(1 - alpha_bar_t)

    The gradient is with respect to x_t and has its shape. No classifier is ever trained.
    Ho & Salimans (arXiv:2207.12598), section 3.2. Raises ValueError if the shapes differ.
    """
    require_same_shape(eps_cond, eps_null, "eps_cond and eps_null")
    _, noise = signal_and_noise(t, alpha_bar, like=eps_cond)
    return -(eps_cond - eps_null) / noise


def guide(eps_null: torch.Tensor, eps_cond: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the guided prediction: from the one without the prompt, `scale` times the way to the one with it.

        eps = eps_null + w (eps_cond - eps_null)

    w = 0 ignores the prompt, w = 1 is the conditional prediction, w > 1 amplifies what the prompt changes. With the
    prediction for a *negative* prompt in place of eps_null it leads away from that prompt. Ho & Salimans
    (arXiv:2207.12598), equation 6, whose w is ours minus 1. Raises ValueError if the shapes differ.
    """
    require_same_shape(eps_null, eps_cond, "eps_null and eps_cond")
    return eps_null + scale * (eps_cond - eps_null)


def compose(eps_null: torch.Tensor, eps_each: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return the prediction for several prompts at once, each with a weight of its own; negative ones mean "not this".

        eps = eps_null + sum over i of w_i (eps_i - eps_null)

    eps_each: (prompts, batch, ...), the guess with each prompt. With one prompt it is `guide`; a negative prompt n is
    compose(eps_null, [eps_cond, eps_n], [w, 1 - w]). Liu et al. (arXiv:2206.01714).
    Raises ValueError unless there is one weight for each prompt.
    """
    if len(weights) != len(eps_each) or eps_each.shape[1:] != eps_null.shape:
        raise ValueError(
            f"Expected one weight for each prompt and guesses of shape {tuple(eps_null.shape)}, got "
            f"{len(weights)} weights and guesses of shape {tuple(eps_each.shape)}."
        )
    eps = eps_null
    for weight, eps_i in zip(weights, eps_each, strict=True):
        eps = eps + weight * (eps_i - eps_null)
    return eps


def rescale(guided: torch.Tensor, plain: torch.Tensor, share: float = 0.7) -> torch.Tensor:
    """Return a guided guess with the spread that the plain conditional one has, mixed with the unchanged one.

        x <- share * x * std(plain) / std(x) + (1 - share) * x

    The standard deviation is that of all numbers of one sample. A large guidance scale makes that of the guessed x0 (or
    of v) grow, and with it the contrast of the picture; that of eps hardly changes, so there this does little.
    Lin et al. (arXiv:2305.08891), section 3.4. Raises ValueError if the shapes differ.
    """
    require_same_shape(guided, plain, "the guided guess and the plain one")
    ratio = plain.flatten(1).std(1) / guided.flatten(1).std(1)  # (batch,)
    return share * expand_like(ratio, guided) * guided + (1 - share) * guided
