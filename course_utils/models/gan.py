"""Generators and discriminators of adversarial networks: for points in the plane, and for pictures (DCGAN).

A generator turns random numbers z, standard normal, into samples; `latent` says how many it takes. A discriminator
answers each sample with one logit, and sigmoid(logit) is how sure it is that the sample is real.
"""

import torch
from torch import nn


class PointGenerator(nn.Module):
    """z (batch, latent) -> points (batch, 2): a network of two hidden layers."""

    def __init__(self, latent: int = 2, width: int = 64):
        super().__init__()
        self.latent = latent
        self.layers = _layers(latent, width, 2)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(z)


class PointDiscriminator(nn.Module):
    """Points (batch, 2) -> logits (batch,): a network of two hidden layers."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.layers = _layers(2, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).squeeze(1)


class PictureGenerator(nn.Module):
    """z (batch, latent) -> pictures (batch, channels, size, size) in [-1, 1]; after DCGAN (arXiv:1511.06434).

    A linear layer makes 4 x 4 cells; each transposed convolution doubles the side and halves the channels, which end
    at `width`; tanh keeps the pixels in range. It differs from the paper in one thing: the normalisation is within
    each picture (GroupNorm), not over the batch, so that no picture depends on those drawn beside it.
    Raises ValueError for a size that is not 8, 16, 32, ...
    """

    def __init__(self, channels: int = 1, size: int = 16, latent: int = 32, width: int = 32):
        super().__init__()
        self.latent, doublings = latent, _doublings(size)
        wide = width * 2 ** (doublings - 1)
        layers = [nn.Linear(latent, wide * 16), nn.Unflatten(1, (wide, 4, 4)), nn.GroupNorm(4, wide), nn.ReLU()]
        for _ in range(doublings - 1):
            layers += [nn.ConvTranspose2d(wide, wide // 2, 4, 2, 1), nn.GroupNorm(4, wide // 2), nn.ReLU()]
            wide //= 2
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(wide, channels, 4, 2, 1), nn.Tanh())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(z)


class PictureDiscriminator(nn.Module):
    """Pictures (batch, channels, size, size) in [-1, 1] -> logits (batch,), or (batch, outputs) for more than one.

    The generator turned round: each convolution of stride 2 halves the side and doubles the channels, from `width` on,
    down to 4 x 4. There is no normalisation: the gradient penalty looks at single pictures.
    Raises ValueError for a size that is not 8, 16, 32, ...
    """

    def __init__(self, channels: int = 1, size: int = 16, width: int = 32, outputs: int = 1):
        super().__init__()
        layers, inside = [], channels
        for number in range(_doublings(size)):
            layers += [nn.Conv2d(inside, width * 2**number, 4, 2, 1), nn.LeakyReLU(0.2)]
            inside = width * 2**number
        self.outputs = outputs
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inside * 16, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer = self.layers(x)  # (batch, outputs)
        return answer.squeeze(1) if self.outputs == 1 else answer


def _layers(inside: int, width: int, outside: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inside, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, outside),
    )


def _doublings(size: int) -> int:
    """How often 4 must be doubled to give `size`."""
    doublings = size.bit_length() - 3
    if doublings < 1 or size != 4 * 2**doublings:
        raise ValueError(f"Expected a size of 8, 16, 32 or another power of two, but got {size}. Resize the pictures.")
    return doublings
