"""Adversarial training: a generator G and a discriminator D that play against each other (Goodfellow et al. 2014).

Shapes throughout: x, real samples, (batch, ...); z, standard normal numbers, (batch, latent); G(z) like x; D(x) logits,
(batch,), where sigmoid(D(x)) is how sure D is that x is real. Networks are handed in; what they draw is not known here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import softplus

from course_utils.shapes import require_same_shape
from course_utils.training import ema_update


def optimal_discriminator(p_data: torch.Tensor, p_g: torch.Tensor) -> torch.Tensor:
    """Return the optimal discriminator's output where the densities are p_data and p_g; any one shape, in [0, 1].

        D*(x) = p_data(x) / (p_data(x) + p_g(x))

    Where both are 0 there are no samples, and the result is NaN. Raises ValueError if shapes differ.
    Goodfellow et al. 2014 (arXiv:1406.2661), proposition 1.
    """
    require_same_shape(p_data, p_g, "p_data and p_g")
    return p_data / (p_data + p_g)


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Return the loss that D lowers: mean of -log D(x) plus mean of -log(1 - D(G(z))), from logits; shape (), nats.

        L_D = mean softplus(-D_logit(x)) + mean softplus(D_logit(G(z)))

    since -log sigmoid(a) = softplus(-a) and -log(1 - sigmoid(a)) = softplus(a), without a logarithm of 0 at any logit.
    logits: (batch,) each; the batches may differ. A discriminator that cannot tell,
    D = 1/2, has the loss 2 log 2 = 1.386. (arXiv:1406.2661, eq. 1)
    """
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """Return the non-saturating loss of the generator, mean of -log D(G(z)), from logits (batch,); shape (), nats.

        L_G = mean softplus(-D_logit(G(z)))

    Where D is sure of a fake its slope is -1, that of the saturating log(1 - D(G(z))) is 0. (arXiv:1406.2661, sec. 3)
    """
    return softplus(-fake_logits).mean()


def r1_penalty(D: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the mean over the batch of the squared length of D's gradient at real samples; shape (), differentiable.

        R1 = mean over i of || dD_logit(x_i) / dx_i ||^2,   the sum of squares over all numbers of one sample

    D must treat the samples one by one (no batch normalisation). Added to L_D with the factor gamma / 2.
    Mescheder, Geiger, Nowozin 2018 (arXiv:1801.04406), equation 9.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)  # of each D(x_i) by its own x_i
    return gradient.square().flatten(1).sum(1).mean()


def discriminator_step(
    G: nn.Module, D: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, z: torch.Tensor, gamma: float = 0.0
) -> torch.Tensor:
    """Make one update of D, and of nothing else, on real samples x and on G(z); return L_D before it, shape ().

        D lowers  L_D(D(x), D(G(z)))  +  gamma / 2 R1

    `optimizer` holds the parameters of D. G gets no gradient: what it made is cut off by `detach`. The loss that is
    returned is a tensor without a graph.
    """
    fake = G(z).detach()
    loss = discriminator_loss(D(x), D(fake))
    whole = loss + gamma / 2 * r1_penalty(D, x) if gamma else loss
    optimizer.zero_grad()
    whole.backward()
    optimizer.step()
    return loss.detach()


def generator_step(G: nn.Module, D: nn.Module, optimizer: torch.optim.Optimizer, z: torch.Tensor) -> torch.Tensor:
    """Make one update of G, and of nothing else, with the non-saturating loss; return the loss before it, shape ().

    The loss that is returned is a tensor without a graph.
    `optimizer` holds the parameters of G. The gradient goes through D to reach G; what it leaves in D is cleared by
    D's own next step.
    """
    loss = generator_loss(D(G(z)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def modes_covered(samples: torch.Tensor, centres: torch.Tensor, radius: float, least: int = 20) -> int:
    """Return how many of the centres have at least `least` samples of their own within `radius`.

    samples: (number, d). centres: (modes, d). A sample belongs to its nearest centre, and counts if it is at most
    `radius` away. The usual radius is 3 standard deviations (Srivastava et al. 2017, arXiv:1705.07761).
    """
    distance, nearest = torch.cdist(samples, centres).min(1)
    return int((torch.bincount(nearest[distance <= radius], minlength=len(centres)) >= least).sum())


@dataclass(frozen=True)
class Round:
    """What one round of `play` reports: both losses, each before its update."""

    step: int  # rounds played, 1...steps
    discriminator_loss: float
    generator_loss: float


def play(
    G: nn.Module,
    D: nn.Module,
    data: torch.Tensor,
    steps: int,
    *,
    batch: int = 64,
    learning_rate: float = 1e-3,
    gamma: float = 0.0,
    average: nn.Module | None = None,
    decay: float = 0.99,
    betas: tuple[float, float] = (0.5, 0.99),
    seed: int = 0,
) -> Iterator[Round]:
    """Train G and D against each other on `data` (n, ...), one update each in a round; yields a `Round` after each.

    gamma: weight of the R1 penalty. average: a copy of G that follows it as a moving average with `decay`, from which
    to draw. betas: those of Adam. Random numbers come from a CPU generator of this seed.
    """
    random = torch.Generator().manual_seed(seed)
    device = data.device
    latent: int = G.latent  # type: ignore[assignment]  # torch takes what a module has for tensors or modules
    optimizers = [torch.optim.Adam(network.parameters(), lr=learning_rate, betas=betas) for network in (G, D)]
    for step in range(1, steps + 1):
        x = data[torch.randint(len(data), (batch,), generator=random).to(device)]
        z, z_again = (torch.randn(batch, latent, generator=random).to(device) for _ in range(2))
        d_loss = discriminator_step(G, D, optimizers[1], x, z, gamma)
        g_loss = generator_step(G, D, optimizers[0], z_again)
        if average is not None:
            ema_update(average, G, min(decay, step / (step + 9)))
        yield Round(step, d_loss.item(), g_loss.item())
