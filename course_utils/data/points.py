"""Sets of points in the plane: distributions that can be seen whole, for theory and for oracles.

Each function draws `number` points, (number, 2) float32, from a *fixed* distribution with mean 0 whose
variance, averaged over both coordinates, is about 1: about as large as the noise that diffusion adds.
The scaling does not depend on the sample. Same generator seed, same points.
"""

import math

import torch


def swiss_roll(number: int, generator: torch.Generator, spread: float = 0.05) -> torch.Tensor:
    """Points along the spiral r = phi, 1.5 pi <= phi <= 4.5 pi, with Gaussian `spread` around it."""
    angle = 1.5 * math.pi * (1 + 2 * _uniform(number, generator))
    points = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)
    # The mean is (2, 2 / (3 pi)), by integrating by parts; 6.789 is the root of the mean variance.
    centre = torch.tensor([2.0, 2 / (3 * math.pi)], device=points.device)
    return _blur((points - centre) / 6.789, spread, generator)


def two_moons(number: int, generator: torch.Generator, spread: float = 0.1) -> torch.Tensor:
    """Points on two half circles that reach into each other, with Gaussian `spread` around them."""
    angle = math.pi * _uniform(number, generator)
    lower = _uniform(number, generator) < 0.5
    # The lower moon is the upper one turned by half a turn around the origin.
    upper_moon = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    points = torch.where(lower[:, None], -upper_moon, upper_moon)
    mean_square = (0.75 + 0.5625 - 1 / math.pi) / 2  # of x and of y, averaged
    return _blur(points / math.sqrt(mean_square), spread, generator)


def gaussian_ring(number: int, generator: torch.Generator, modes: int = 8, spread: float = 0.1) -> torch.Tensor:
    """Points of a mixture of equally likely round Gaussians, their centres evenly spaced on a circle.

    p(x) = (1 / modes) sum_k N(x; c_k, spread^2 I), with c_k from `ring_centres`.
    """
    centres = ring_centres(modes, spread).to(generator.device)
    which = torch.randint(modes, (number,), generator=generator, device=generator.device)
    return _blur(centres[which], spread, generator)


def ring_centres(modes: int = 8, spread: float = 0.1) -> torch.Tensor:
    """Return the centres c_k of `gaussian_ring`, (modes, 2); radius^2 = 2 (1 - spread^2) gives variance 1.

    Raises ValueError for fewer than two modes and for a spread outside [0, 1).
    """
    if modes < 2 or not 0 <= spread < 1:
        raise ValueError(f"Expected modes >= 2 and 0 <= spread < 1, got modes={modes} and spread={spread}.")
    angle = 2 * math.pi * torch.arange(modes) / modes
    return math.sqrt(2 * (1 - spread**2)) * torch.stack([angle.cos(), angle.sin()], dim=1)


def checkerboard(number: int, generator: torch.Generator, squares: int = 4) -> torch.Tensor:
    """Points spread evenly over the dark squares of a board, |x|, |y| <= sqrt(3), `squares` (even) a side."""
    if squares < 2 or squares % 2:
        raise ValueError(f"Expected an even number of squares a side, at least 2, got {squares}.")
    column = torch.randint(squares, (number,), generator=generator, device=generator.device)
    half_row = torch.randint(squares // 2, (number,), generator=generator, device=generator.device)
    row = 2 * half_row + column % 2  # dark: row and column are both even or both odd
    corner = torch.stack([column, row], dim=1)
    inside = torch.stack([_uniform(number, generator), _uniform(number, generator)], dim=1)
    return ((corner + inside) / squares * 2 - 1) * math.sqrt(3)  # uniform on [-a, a] has variance a^2 / 3


def _uniform(number: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(number, generator=generator, device=generator.device)


def _blur(points: torch.Tensor, spread: float, generator: torch.Generator) -> torch.Tensor:
    return points + spread * torch.randn(points.shape, generator=generator, device=generator.device)
