"""Few-step sampling: a student that jumps from one noise level to another where its teacher takes many small steps."""

import torch

from course_utils.shapes import expand_like, require_same_shape


def landing_velocity(
    x_t: torch.Tensor, x_s: torch.Tensor, alpha_bar_t: torch.Tensor, alpha_bar_s: torch.Tensor
) -> torch.Tensor:
    """Return the v with which one DDIM step from x_t, at alpha_bar_t, lands on x_s, at alpha_bar_s; like x_t.

        x_t = a x0 + b eps,   x_s = c x0 + d eps   (a, c = sqrt(alpha_bar);  b, d = sqrt(1 - alpha_bar))
        solved for x0 and eps;   v = a eps - b x0

    x_t, x_s: (batch, ...). alpha_bar_t, alpha_bar_s: (batch,), in [0, 1], where alpha_bar_s > alpha_bar_t; 1 is the
    clean picture. Raises ValueError for other shapes and levels. Progressive distillation (arXiv:2202.00512),
    appendix G, here with v.
    """
    require_same_shape(x_t, x_s, "x_t and x_s")
    if not ((alpha_bar_t >= 0) & (alpha_bar_t < alpha_bar_s) & (alpha_bar_s <= 1)).all():
        raise ValueError(
            f"Expected less noise at x_s than at x_t, 0 <= alpha_bar_t < alpha_bar_s <= 1, but got "
            f"alpha_bar_t = {alpha_bar_t.tolist()} and alpha_bar_s = {alpha_bar_s.tolist()}."
        )
    a, b = expand_like(alpha_bar_t.sqrt(), x_t), expand_like((1 - alpha_bar_t).sqrt(), x_t)
    c, d = expand_like(alpha_bar_s.sqrt(), x_t), expand_like((1 - alpha_bar_s).sqrt(), x_t)
    area = c * b - a * d  # the determinant: above 0
    x0 = (b * x_s - d * x_t) / area
    eps = (c * x_t - a * x_s) / area
    return a * eps - b * x0
