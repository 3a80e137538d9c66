"""Invisible marks: a key in the start noise, found again by DDIM inversion (Tree-Ring), and one in a finished picture.

Both are found by comparing numbers with a key of as many plus and minus ones, and give a distance: 0 where they are the
key, up to a factor, 2 on average where they have nothing to do with it (`p_value` tells how sure that is).
Shapes: noise (n, channels, size, size); key (channels, size, size); pictures (n, 3, height, width) in [-1, 1].
"""

import torch

from course_utils.pipelines import editing

RINGS = (2, 3, 4, 5)  # radii in whole waves: slower ones decide what is light and dark, faster ones are lost first
BAND = (16, 48)  # of the DCT: row + column of the coefficients that carry a mark, of a page of 64 x 64
STRENGTH = 0.05  # what is added to each of them: some 38 dB


def make_key(seed: int, channels: int = 8, size: int = 16, rings: tuple[int, ...] = RINGS) -> torch.Tensor:
    """Return a key (channels, size, size): a random +1 or -1 for each ring of each channel, and 0 off the rings.

        ring = round( (u^2 + v^2)^(1/2) ),   u and v the waves down and across, in the order of `torch.fft.fftfreq`

    rings: radii from 1 to below size / 2. As both (u, v) and (-u, -v) lie on one ring, the key is the spectrum of real
    numbers, and a picture that is turned or mirrored has nearly the same one. Tree-Ring (arXiv:2305.20030) takes one
    normal number a ring; plus and minus ones have exactly the mean square that the spectrum of noise has.
    Raises ValueError for no rings, or for radii out of range.
    """
    if not rings or not all(1 <= ring < size / 2 for ring in rings):
        raise ValueError(f"Expected radii from 1 to below {size / 2:g}, half the size, but got {rings}.")
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (channels, len(rings)), generator=generator) * 2.0 - 1
    waves = torch.fft.fftfreq(size) * size
    radius = (waves[:, None].square() + waves.square()).sqrt().round()  # (size, size)
    return sum(signs[:, i, None, None] * (radius == ring) for i, ring in enumerate(rings))


def from_the_middle(size: int) -> torch.Tensor:
    """Return what a Fourier transform is multiplied by to be seen from the middle of a square, complex (size, size).

        exp(2 pi i (u + v) middle / size),   middle = (size - 1) / 2,   u and v as in `make_key`

    Its numbers have the length 1; its conjugate takes the view from the middle back.
    """
    waves = torch.fft.fftfreq(size) * size
    phase = torch.exp(2j * torch.pi * (size - 1) / 2 * waves / size)
    return phase[:, None] * phase


def spectrum(x: torch.Tensor) -> torch.Tensor:
    """Return the Fourier transform of the last two axes of x (..., size, size), complex, seen from their middle.

        F_uv = (1 / size) sum_rc x_rc exp(-2 pi i (u (r - middle) + v (c - middle)) / size),   middle = (size - 1) / 2

    With 1 / size (`norm="ortho"`) standard normal x has a spectrum with a mean square of 1. Seen from the middle, so
    that what is symmetric about the middle of a picture is real.
    """
    return torch.fft.fft2(x, norm="ortho") * from_the_middle(x.shape[-1]).to(x.device)


def write_ring(noise: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return noise whose spectrum is the key where the key is not 0, and as it was elsewhere: real, of the same shape.

        F'_uv = key_uv where key_uv != 0, else F_uv;   noise' = the inverse transform of F'

    noise: (n, channels, size, size), standard normal; so is, but for the key, what is returned: the squares of the key
    are 1, the mean square of F. key: (channels, size, size), see `make_key`; other values and a key that is not that of
    real numbers raise ValueError. Tree-Ring (arXiv:2305.20030), section 3.2.
    """
    _require_key(noise, key)
    if not set(key.unique().tolist()) <= {-1.0, 0.0, 1.0} or not torch.equal(key, _opposite(key)):
        raise ValueError(
            "Expected a key of -1, 0 and 1 with one value at (u, v) and (-u, -v), since the noise would not be real "
            "and standard normal with another: make it with make_key."
        )
    written = torch.where(key != 0, key.to(noise.dtype).to(torch.complex64), spectrum(noise))
    seen_from_the_corner = written * from_the_middle(noise.shape[-1]).conj().to(noise.device)
    return torch.fft.ifft2(seen_from_the_corner, norm="ortho").real.to(noise)


def ring_distance(noise: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return how far the spectrum of noise is from the key, (n,): 0 for the key itself, 2 for what knows nothing of it.

        distance = mean over the rings of |F / s - key|^2,   s^2 = mean over the rings of |F|^2
                 = 2 - 2 (cosine of the angle between F and key)

    noise: (n, channels, size, size), such as `editing.invert` finds, which is weaker than what was drawn from: hence s.
    Returns numbers from 0 to 4. The paper's distance is a mean of |F - key|. Raises ValueError for shapes that do not
    fit, or a key that is 0 everywhere.
    """
    _require_key(noise, key)
    found = spectrum(noise)[:, key != 0]  # (n, numbers on the rings)
    found = found / found.abs().square().mean(1, keepdim=True).sqrt()
    return (found - key[key != 0]).abs().square().mean(1)


def p_value(distance: torch.Tensor, numbers: int) -> torch.Tensor:
    """Return the probability, float64, that standard normal noise comes as near to a key of so many numbers, or nearer.

        c = 1 - distance / 2,   P((1 + c') / 2 >= (1 + c) / 2),   (1 + c') / 2 ~ Beta((numbers - 1) / 2, the same)

    The cosine c' of a normal vector with any fixed one has this law, whatever the vector's length. distance: from 0 to
    4. What an inversion finds in a picture is not quite standard normal: hold against it what you measure.
    Raises ValueError for fewer than two numbers, or distances out of range.
    """
    from scipy.stats import beta

    distance = torch.as_tensor(distance, dtype=torch.float64)
    if numbers < 2 or not ((distance >= -1e-6) & (distance <= 4 + 1e-6)).all():
        raise ValueError(f"Expected two numbers or more and distances from 0 to 4, but got {numbers} and {distance}.")
    half = (numbers - 1) / 2
    return torch.as_tensor(beta.sf((1 - distance / 4).clamp(0, 1).cpu().numpy(), half, half), dtype=torch.float64)


def find_ring(pipe, pictures: torch.Tensor, key: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return the `ring_distance` of the noise that pictures were drawn from, (n,), as DDIM inversion finds it.

    Nobody knows the prompt: the empty one is taken, without guidance. More steps find the key no better here.
    Tree-Ring (arXiv:2305.20030), section 3.3. Raises ValueError for pictures that do not fit the model.
    """
    return ring_distance(editing.invert(pipe, pictures, "", steps=steps), key.to(pipe.unet.device))


def write_dct(pictures: torch.Tensor, seed: int, strength: float = STRENGTH) -> torch.Tensor:
    """Return pictures (n, 3, height, width) with a faint mark in the middle frequencies, in [-1, 1].

        coefficient_uv + strength sign_uv   where 16 <= u + v < 48,   the coefficients those of a 2-D DCT (orthonormal)

    The same in each colour. signs: one random +1 or -1 for each coefficient, from the seed. This is spread spectrum,
    Cox et al. 1997 (IEEE Transactions on Image Processing 6, pages 1673-1687), with a constant strength.
    Raises ValueError for pictures too small to hold the band.
    """
    from scipy.fft import idctn

    mark = torch.from_numpy(idctn(_dct_key(pictures, seed).numpy(), norm="ortho")).to(pictures)
    return (pictures + strength * mark).clamp(-1, 1)


def find_dct(pictures: torch.Tensor, seed: int) -> torch.Tensor:
    """Return how far pictures are from having the mark of `write_dct` with this seed, (n,): see `ring_distance`.

        distance = 2 - 2 (cosine of the angle between the coefficients and the signs)

    Each coefficient is divided by its root mean square over the coefficients with the same u + v, since pictures have
    far more of the slow ones. Raises ValueError for pictures too small to hold the band.
    """
    from scipy.fft import dctn

    key = _dct_key(pictures, seed)
    grey = pictures.detach().cpu().double().mean(1).numpy()
    found = torch.from_numpy(dctn(grey, axes=(1, 2), norm="ortho"))[:, key != 0]
    wave = _waves(pictures)[key != 0]
    squares = torch.zeros(len(found), BAND[1], dtype=torch.float64).index_add(1, wave, found.square())
    found = found / (squares / wave.bincount(minlength=BAND[1]).clamp(min=1)).sqrt()[:, wave].clamp(min=1e-12)
    cosine = (found * key[key != 0]).sum(1) / (found.norm(dim=1) * key.norm()).clamp(min=1e-12)
    return (2 - 2 * cosine).float()


def _waves(pictures: torch.Tensor) -> torch.Tensor:
    height, width = pictures.shape[-2:]
    return torch.arange(height)[:, None] + torch.arange(width)


def _dct_key(pictures: torch.Tensor, seed: int) -> torch.Tensor:
    """Plus and minus ones in the band and 0 elsewhere, float64 (height, width)."""
    height, width = pictures.shape[-2:]
    if pictures.ndim != 4 or min(height, width) < BAND[1]:
        raise ValueError(
            f"Expected pictures (n, 3, height, width) of {BAND[1]} pixels a side or more, but got "
            f"{tuple(pictures.shape)}: a smaller one has no such frequencies."
        )
    wave = _waves(pictures)
    signs = torch.randint(0, 2, (height, width), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    return (signs * ((wave >= BAND[0]) & (wave < BAND[1]))).double()


def _opposite(key: torch.Tensor) -> torch.Tensor:
    """The key with its value at (-u, -v) at (u, v)."""
    return key.flip(-2, -1).roll((1, 1), (-2, -1))


def _require_key(noise: torch.Tensor, key: torch.Tensor) -> None:
    if noise.ndim != 4 or noise.shape[1:] != key.shape or not (key != 0).any():
        raise ValueError(
            f"Expected noise (n, channels, size, size) and a key (channels, size, size) that is not 0 everywhere, but "
            f"got {tuple(noise.shape)} and {tuple(key.shape)}."
        )
