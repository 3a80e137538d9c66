"""A small convolutional variational autoencoder, and its two bounds: for real-valued pictures and for grey levels.

Kingma and Welling 2013 (arXiv:1312.6114).
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from course_utils.models.variational import gaussian_kl, negative_elbo, reparametrise
from course_utils.shapes import require_pictures

SMALLEST = 4  # pixels a side in the middle of the network


class VAE(nn.Module):
    """Picture -> mean and logvar of q(z|x); latent z -> what p(x|z) needs.

    channels, size: of the pictures, (batch, channels, size, size); size is 4 times a power of two, 8 at least.
    latent: the dimensions of z. width: channels at full size; they double with each halving.
    outputs: how many numbers the decoder gives for each pixel. None: `channels`, the mean of a normal distribution
    whose spread `sigma()` is one number that is learned, for `gaussian_bound`. 17: a logit for each level of the
    digits, for `level_bound`.
    """

    def __init__(
        self, channels: int = 1, size: int = 16, latent: int = 16, width: int = 16, outputs: int | None = None
    ):
        super().__init__()
        halvings = (size // SMALLEST).bit_length() - 1
        if halvings < 1 or size != SMALLEST * 2**halvings:
            raise ValueError(f"expected a size of 8, 16, 32, ..., got {size}; resize the pictures")
        self.channels, self.size, self.latent = channels, size, latent
        self.log_sigma = nn.Parameter(torch.tensor(-1.5))  # sigma begins near 0.2, not far from where it ends
        widths = [width * 2**i for i in range(halvings + 1)]
        deepest = widths[-1] * SMALLEST**2
        down = [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
        for i in range(halvings):
            down += [nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1), nn.SiLU()]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(deepest, 2 * latent))
        up = [nn.Linear(latent, deepest), nn.SiLU(), nn.Unflatten(1, (widths[-1], SMALLEST, SMALLEST))]
        for i in reversed(range(halvings)):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(widths[i + 1], widths[i], 3, padding=1), nn.SiLU()]
        self.decoder = nn.Sequential(*up, nn.Conv2d(width, outputs or channels, 3, padding=1))

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and logvar of q(z|x), each (batch, latent), for pictures in [-1, 1]."""
        require_pictures(x)
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        return mean, logvar.clamp(-12, 8)  # so that no single batch can blow the loss up

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Return what p(x|z) needs, (batch, outputs, size, size), for latents (batch, latent)."""
        return self.decoder(z)

    def sigma(self) -> torch.Tensor:
        """Return the spread of p(x|z) = N(decode(z), sigma^2 I), a tensor of shape ()."""
        return self.log_sigma.exp()

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return decode(z) for `count` latents from the prior N(0, I), drawn with the generator."""
        z = torch.randn(count, self.latent, generator=generator, device=generator.device)
        return self.decode(z.to(self.log_sigma.device))


def gaussian_bound(model: VAE, x: torch.Tensor, generator: torch.Generator, beta: float = 1.0) -> torch.Tensor:
    """Return each picture's bound of -log p(x), nats, (batch,), where p(x|z) = N(decode(z), sigma^2 I).

    x: (batch, channels, size, size) in [-1, 1]. This is a *density*: it may be negative, and bits/dim of it would
    compare with no likelihood of grey levels. See `variational.negative_elbo`, also for beta.
    """
    mean, logvar = model.encode(x)
    x_hat = model.decode(reparametrise(mean, logvar, generator))
    return negative_elbo(x, x_hat, model.sigma(), mean, logvar, beta)


def level_bound(model: VAE, levels: torch.Tensor, generator: torch.Generator, beta: float = 1.0) -> torch.Tensor:
    """Return each picture's bound of -log p(x), nats, (batch,), where each pixel has one of so many grey levels.

        -log p(x|z) = -sum over the pixels of log softmax(decode(z))[level of the pixel]

    levels: (batch, size, size) int64 in 0 ... outputs - 1. With beta = 1 its mean bounds an exact negative
    log-likelihood such as a PixelCNN's from above; see `bits_per_dim`.
    """
    logits, mean, logvar = _from_levels(model, levels, generator)
    return cross_entropy(logits, levels, reduction="none").flatten(1).sum(1) + beta * gaussian_kl(mean, logvar)


def _from_levels(model, levels, generator):
    last = model.decoder[-1].out_channels - 1
    mean, logvar = model.encode(2 * levels[:, None].float() / last - 1)
    return model.decode(reparametrise(mean, logvar, generator)), mean, logvar


def bits_per_dim(nats: torch.Tensor, dimensions: int) -> torch.Tensor:
    """Return nats for a whole picture as bits for each of its dimensions: nats / (dimensions ln 2)."""
    return nats / (dimensions * math.log(2))


def fit(
    model: nn.Module,
    data: torch.Tensor,
    steps: int,
    bound: Callable = gaussian_bound,
    batch: int = 64,
    beta: float = 1.0,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> Iterator[tuple[int, float]]:
    """Train the model to make the mean bound of `data` small; yield (step, loss) after each update.

    bound(model, x, generator, beta) -> (batch,). The learning rate falls to 0 along half a cosine; gradients longer
    than `1000` are cut there, since the loss is a sum over pixels. Batches and noise follow from the seed.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        x = data[torch.randint(len(data), (batch,), generator=generator).to(data.device)]
        loss = bound(model, x, generator, beta).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1000.0)
        optimizer.step()
        yield step, loss.item()
