"""Muon, by hand: the optimizer that makes the update of each matrix orthogonal; AdamW for all that is no matrix."""

from collections.abc import Iterable

import torch
from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # they bring singular values near 1 fast, within about 0.7 and 1.2


def orthogonalized(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return nearly U V^T for a matrix U S V^T: the same directions, all singular values near 1.

        X <- X / |X|;   then, `steps` times:   A = X X^T,   X <- a X + (b A + c A A) X

    This Newton-Schulz iteration needs products of matrices only, for which bfloat16 suffices. matrix: (rows, columns).
    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Muon for the matrices inside a network, AdamW without decay for its other parameters, with one learning rate.

        m <- mu m + (1 - mu) g,   w <- w - 0.2 sqrt(max(rows, columns)) lr orthogonalized((1 - mu) g + mu m)

    The factor gives the update of a matrix the size that AdamW's usually has (arXiv:2502.16982, equation 4), so that
    one learning rate suits both. matrices: two-dimensional parameters; others: the rest. iterations: of
    `orthogonalized`; three suffice for all directions but the weakest, and cost less.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        iterations: int = 5,
    ):
        groups = [{"params": list(matrices), "matrices": True}, {"params": list(others), "matrices": False}]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas})
        self.iterations = iterations
        wrong = [tuple(p.shape) for p in self.param_groups[0]["params"] if p.ndim != 2]
        if wrong:
            raise ValueError(f"expected matrices, got parameters of shape {wrong}; pass them as others")

    @torch.no_grad()
    def step(self, closure=None):
        """Make one update from the gradients."""
        for group in self.param_groups:
            update = self._muon if group["matrices"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, parameter.grad, self.state[parameter], group)

    def _muon(self, parameter, grad, state, group) -> None:
        mean = state.setdefault("mean", torch.zeros_like(parameter))
        mean.lerp_(grad, 1 - group["momentum"])
        update = orthogonalized(grad.lerp(mean, group["momentum"]), self.iterations)
        parameter.add_(update, alpha=-0.2 * group["lr"] * max(parameter.shape) ** 0.5)

    def _adam(self, parameter, grad, state, group) -> None:
        mean = state.setdefault("mean", torch.zeros_like(parameter))
        square = state.setdefault("square", torch.zeros_like(parameter))
        count = state.setdefault("count", torch.zeros(()))
        count += 1
        for average, value, beta in zip((mean, square), (grad, grad.square()), group["betas"], strict=True):
            average.lerp_(value, 1 - beta)
        first, second = (1 - beta ** count.item() for beta in group["betas"])
        parameter.addcdiv_(mean / first, (square / second).sqrt().add_(1e-8), value=-group["lr"])
