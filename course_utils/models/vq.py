"""Pictures as whole numbers: vector quantisation and its relatives, on tensors; they know no network around them.

z: what an encoder gives for each place of a grid, (batch, width, height, width of the grid), or as rows, (n, d).
codebook: (K, d), rows e_0 ... e_{K-1}; code: the number of a row, int64 0 ... K-1. Three ways to choose one, each a
module with quantise(z) -> z_q, codes, loss: `VectorQuantiser` (van den Oord et al. 2017, arXiv:1711.00937),
`GumbelQuantiser` (DALL·E's dVAE, arXiv:2102.12092) and `FiniteScalarQuantiser` (FSQ, arXiv:2309.15505).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from course_utils.shapes import require_same_shape


def nearest_code(z: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Return the number of the codebook's row that is nearest to each row of z: (n, d), (K, d) -> int64 (n,).

        codes_i = argmin_k |z_i - e_k|^2 = argmin_k ( |z_i|^2 - 2 z_i . e_k + |e_k|^2 )

    The expanded form needs one product of matrices, and no (n, K, d) of differences. Raises ValueError unless both have
    rows of one length. arXiv:1711.00937, equation 1.
    """
    _require_rows(z, codebook)
    squared = z.square().sum(1, keepdim=True) - 2 * z @ codebook.T + codebook.square().sum(1)  # (n, K)
    return squared.argmin(1)


def straight_through(z: torch.Tensor, z_q: torch.Tensor) -> torch.Tensor:
    """Return z_q, whose gradient is handed to z as it is: z + sg(z_q - z), sg: no gradient.

    z, z_q: one shape, any. Choosing the nearest code has gradient zero almost everywhere; this takes it for the
    identity. Raises ValueError for two shapes. Bengio et al. 2013 (arXiv:1308.3432).
    """
    require_same_shape(z, z_q, "z and z_q")
    return z + (z_q - z).detach()


def commitment_loss(z: torch.Tensor, z_q: torch.Tensor) -> torch.Tensor:
    """Return the mean of (z - sg(z_q))^2, shape (): it draws the encoder's z to the code that was chosen.

    Raises ValueError for two shapes. arXiv:1711.00937, the third term of equation 3, without its weight beta.
    """
    require_same_shape(z, z_q, "z and z_q")
    return (z - z_q.detach()).square().mean()


def vq_loss(z: torch.Tensor, z_q: torch.Tensor, beta: float = 0.25) -> torch.Tensor:
    """Return what is added to the loss of reconstructing, shape (): codes are drawn to z, and z to its code.

        L = mean of (sg(z) - z_q)^2 + beta (z - sg(z_q))^2

    z_q: rows of the codebook *before* `straight_through`, so that gradients reach the codebook. beta: the weight of
    the commitment. Raises ValueError for two shapes. arXiv:1711.00937, the second and third term of equation 3.
    """
    return commitment_loss(z_q, z) + beta * commitment_loss(z, z_q)


def update_codebook(
    counts: torch.Tensor,
    sums: torch.Tensor,
    z: torch.Tensor,
    codes: torch.Tensor,
    fresh: torch.Tensor,
    decay: float = 0.99,
    least: float = 0.03,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return counts (K,), sums (K, d) and the codebook (K, d) after one batch, with dead codes restarted.

        N_k <- decay N_k + (1 - decay) n_k,     m_k <- decay m_k + (1 - decay) (sum of the z_i with code k)

    Moving averages of how many rows of z (n, d) chose code k, and of their sum; n_k: how many of `codes`, int64 (n,),
    are k. A code whose N_k is then below `least` is dead: N_k <- 1, m_k <- fresh_k, fresh (K, d) being rows of z; 0: no
    restarts. The codebook is `codebook_from(counts, sums)`. Raises ValueError unless rows and codes fit.
    arXiv:1711.00937, appendix A.1; restarts: Dhariwal et al. 2020 (arXiv:2005.00341), section 3.1.
    """
    _require_rows(z, sums)
    _require_rows(fresh, sums)
    if len(codes) != len(z) or not len(counts) == len(sums) == len(fresh):
        raise ValueError(
            f"Expected one code for each row of z, and one count and one fresh row for each row of sums, got "
            f"{len(codes)} codes for {len(z)} rows, and {len(counts)} counts and {len(fresh)} fresh rows for "
            f"{len(sums)}; flatten z to (n, d) and codes to (n,)."
        )
    n = code_counts(codes, len(counts)).to(counts)  # (K,)
    counts = decay * counts + (1 - decay) * n
    sums = decay * sums + (1 - decay) * torch.zeros_like(sums).index_add(0, codes, z)  # (K, d)
    dead = counts < least
    counts, sums = torch.where(dead, 1.0, counts), torch.where(dead[:, None], fresh, sums)
    return counts, sums, codebook_from(counts, sums)


def codebook_from(counts: torch.Tensor, sums: torch.Tensor, epsilon: float = 1e-5) -> torch.Tensor:
    """Return the codebook (K, d) in which each code is the mean of the z that chose it lately.

        e_k = m_k / N'_k,     N'_k = N (N_k + epsilon) / (N + K epsilon),     N = sum of the N_k

    counts (K,), sums (K, d): see `update_codebook`. N' keeps codes that are hardly used from a division by 0 (Laplace
    smoothing). This is k-means, step by step, in the place of the second term of the loss (equation 3).
    arXiv:1711.00937, appendix A.1.
    """
    total = counts.sum()
    smoothed = total * (counts + epsilon) / (total + len(counts) * epsilon)  # (K,)
    return sums / smoothed[:, None]


def code_counts(codes: torch.Tensor, count: int) -> torch.Tensor:
    """Return how often each of the codes 0 ... count-1 occurs in `codes` (any shape, int64): int64 (count,)."""
    if codes.numel() and not 0 <= codes.min() <= codes.max() < count:
        raise ValueError(
            f"Expected codes from 0 to {count - 1}, got {int(codes.min())} to {int(codes.max())}; give the size of the "
            "codebook that they come from."
        )
    return torch.bincount(codes.flatten(), minlength=count)


def perplexity(codes: torch.Tensor, count: int) -> float:
    """Return how many codes are in use, counted by how often: exp( - sum_k p_k log p_k ), 1 ... count.

    p_k: the share of code k in `codes` (any shape, int64, 0 ... count-1). All equally often: count; one alone: 1.
    Raises ValueError for codes out of range.
    """
    p = code_counts(codes, count).double() / max(1, codes.numel())
    return torch.special.entr(p).sum().exp().item()


def gumbel_noise(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Return numbers from the standard Gumbel distribution, g = -log(-log u), u uniform on (0, 1), float32 `shape`.

    argmax_k (logits_k + g_k) is then a sample from softmax(logits). Drawn as -log of an exponential variable, which is
    never 0 or infinite. arXiv:1611.01144, equation 1.
    """
    return -torch.empty(shape, device=generator.device).exponential_(generator=generator).log()


def gumbel_softmax(logits: torch.Tensor, noise: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return weights y = softmax((logits + noise) / temperature) over dimension 1: a choice that has gradients.

    logits, noise: (batch, K, ...), one shape. temperature > 0: near 0 y is one-hot, a sample of softmax(logits), and
    its gradients vary wildly; at 1 it is soft. Returns (batch, K, ...). Raises ValueError for two shapes and a
    temperature that is not positive. arXiv:1611.01144, equation 2.
    """
    require_same_shape(logits, noise, "logits and noise")
    if not temperature > 0:
        raise ValueError(f"Expected a temperature above 0, got {temperature}; take the argmax for a hard choice.")
    return ((logits + noise) / temperature).softmax(1)


def temperature_at(step: int, steps: int, start: float = 1.0, end: float = 1 / 16) -> float:
    """Return the temperature at update `step` (0 ... steps): from start to end along half a cosine.

    DALL·E's dVAE goes from 1 to 1/16 (arXiv:2102.12092, section 2.1 and appendix A.2). ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"Expected at least one step, got {steps}; give the updates of the whole training.")
    return end + (start - end) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


def kl_to_uniform(logits: torch.Tensor) -> torch.Tensor:
    """Return KL( softmax(logits) || uniform ) = log K - H in nats, the mean over places, shape ().

    logits: (batch, K, ...). The prior of DALL·E's dVAE over codes is uniform (arXiv:2102.12092, section 2.1).
    """
    log_p = logits.log_softmax(1)
    return math.log(logits.shape[1]) + (log_p.exp() * log_p).sum(1).mean()


def fsq_bound(z: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return z squeezed so that rounding gives L whole numbers in each dimension, -(L // 2) ... (L - 1) // 2.

        f(z) = h tanh(z + atanh(s / h)) - s,   h = (L - 1) / 2 (1 - 1/1000),   s = 1/2 if L is even, else 0

    z: (n, d). levels: L of each dimension, (d,), 3 or more. Zero goes to zero; the 1/1000 keeps rounding from
    going beyond the outer numbers. Raises ValueError for other levels. arXiv:2309.15505, section 3 (its code has tan
    for atanh).
    """
    if levels.shape != z.shape[-1:] or (levels < 3).any():
        raise ValueError(
            f"Expected 3 levels or more for each of {z.shape[-1]} dimensions, got {levels.tolist()}; give one each."
        )
    half = (levels - 1) / 2 * (1 - 1e-3)
    shift = (levels % 2 == 0) / 2
    return half * torch.tanh(z + torch.atanh(shift / half)) - shift


def fsq(z: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return z rounded to a few whole numbers in each dimension, (n, d), and one code for each row, int64 (n,).

        numbers = round(f(z)),     code = sum_j (number_j + L_j // 2) L_0 ... L_{j-1},   0 ... (product of the L) - 1

    z: (n, d); f: `fsq_bound`; levels: L of each dimension, int64 (d,). The gradient of the numbers is that of f alone
    (`straight_through`). The code has the numbers as its digits, to mixed bases. Raises ValueError as fsq_bound does.
    arXiv:2309.15505, section 3 and appendix A.
    """
    bounded = fsq_bound(z, levels)
    numbers = straight_through(bounded, bounded.round())
    digits = bounded.round().long() + levels // 2  # 0 ... L - 1
    return numbers, (digits * _bases(levels)).sum(-1)


def codes_to_levels(codes: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return the whole numbers of each code, the inverse of `fsq`: int64 (n,) -> float32 (n, d)."""
    return ((codes[..., None] // _bases(levels)) % levels - levels // 2).float()


def _bases(levels: torch.Tensor) -> torch.Tensor:
    return torch.cat([levels.new_ones(1), levels[:-1]]).cumprod(0)


def in_patches(latents: torch.Tensor, size: int) -> torch.Tensor:
    """(batch, c, size h, size w) -> (batch, c size^2, h, w): each patch of size x size places becomes one place."""
    return pixel_unshuffle(latents, size)


def from_patches(patches: torch.Tensor, size: int) -> torch.Tensor:
    """The inverse of `in_patches`: (batch, c size^2, h, w) -> (batch, c, size h, size w)."""
    return pixel_shuffle(patches, size)


def as_rows(z: torch.Tensor) -> torch.Tensor:
    """(batch, d, height, width) -> (batch height width, d), row after row of each grid."""
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])  # (n, d)


def as_grid(rows: torch.Tensor, batch: int, height: int, width: int) -> torch.Tensor:
    """The inverse of `as_rows`: (batch height width, d) -> (batch, d, height, width)."""
    return rows.reshape(batch, height, width, -1).permute(0, 3, 1, 2)  # (batch, d, height, width)


class VectorQuantiser(nn.Module):
    """z -> the nearest row of a codebook, which follows z by moving averages: quantise(z) -> z_q, codes, loss.

    z: (batch, width, height, width of the grid), any float type; z_q: the same shape, float32, with straight-through
    gradients; codes: int64 (batch, height, width of the grid); loss: beta times `commitment_loss`.
    In training mode each call moves the codebook (`update_codebook`). least: codes whose count falls below it begin
    again at a row of z; at the first call each code does so, or takes the mean of the rows that chose it. 0: no
    restarts. gather: joins the rows of several processes. The codebook is in `parameters()`, but not to be trained by
    gradients.
    """

    counts: torch.Tensor
    sums: torch.Tensor
    updates: torch.Tensor

    def __init__(
        self,
        count: int,
        width: int,
        beta: float = 0.25,
        decay: float = 0.99,
        least: float = 0.03,
        gather: Callable[[torch.Tensor], torch.Tensor] = lambda rows: rows,
    ):
        super().__init__()
        self.count, self.width, self.inputs = count, width, width
        self.beta, self.decay, self.least, self.gather = beta, decay, least, gather
        self.codebook = nn.Parameter(torch.randn(count, width), requires_grad=False)
        self.register_buffer("counts", torch.full((count,), 0.0 if least else 1.0))
        self.register_buffer("sums", self.codebook.detach() * self.counts[:, None])
        self.register_buffer("updates", torch.tensor(0))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with torch.autocast(z.device.type, enabled=False):  # distances in bfloat16 would take neighbours for equal
            z = z.float()
            rows = as_rows(z)
            codes = nearest_code(rows, self.codebook)
            if self.training:
                self.learn(rows, codes)
            grid = (len(z), *z.shape[2:])
            z_q = as_grid(self.codebook[codes], *grid)
            return straight_through(z, z_q), codes.view(grid), self.beta * commitment_loss(z, z_q)

    @torch.no_grad()
    def learn(self, rows: torch.Tensor, codes: torch.Tensor) -> None:
        """Move the codebook towards the rows (n, d) that chose the codes (n,); restart the dead ones."""
        rows, codes = self.gather(rows.contiguous()), self.gather(codes)
        # the same rows on every process, and after a resumption
        generator = torch.Generator().manual_seed(int(self.updates))
        fresh = rows[torch.randint(len(rows), (self.count,), generator=generator).to(rows.device)]
        moved = update_codebook(self.counts, self.sums, rows, codes, fresh, self.decay, self.least)
        for kept, new in zip((self.counts, self.sums, self.codebook), moved, strict=True):
            kept.copy_(new)
        self.updates += 1

    @torch.no_grad()
    def start_from(self, codebook: torch.Tensor) -> None:
        """Take the rows (K, d) of a finished codebook, each as if chosen once."""
        self.codebook.copy_(codebook)
        self.sums.copy_(codebook)
        self.counts.fill_(1.0)

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (batch, height, width) -> their rows of the codebook, (batch, d, height, width)."""
        return self.codebook[codes].permute(0, 3, 1, 2)


class GumbelQuantiser(nn.Module):
    """Logits -> a mixture of the codebook's rows that is soft in training: quantise(logits) -> z_q, codes, loss.

    logits: (batch, count, height, width of the grid). In training mode z_q is the mean of the rows weighted by
    `gumbel_softmax` at `self.temperature`, with noise from the generator; else the row of the largest logit. codes are
    those of the largest logit. loss: kl_weight times `kl_to_uniform`. All is trained by gradients.
    """

    def __init__(self, count: int, width: int, generator: torch.Generator, kl_weight: float = 1e-3):
        super().__init__()
        self.count, self.width, self.inputs = count, width, count
        self.generator, self.kl_weight, self.temperature = generator, kl_weight, 1.0
        self.codebook = nn.Parameter(torch.randn(count, width))

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = logits.float()
        codes = logits.argmax(1)
        loss = self.kl_weight * kl_to_uniform(logits)
        if not self.training:
            return self.lookup(codes), codes, loss
        noise = gumbel_noise(logits.shape, self.generator).to(logits.device)
        y = gumbel_softmax(logits, noise, self.temperature)
        return torch.einsum("bkhw,kd->bdhw", y, self.codebook), codes, loss

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (batch, height, width) -> their rows of the codebook, (batch, d, height, width)."""
        return self.codebook[codes].permute(0, 3, 1, 2)


class FiniteScalarQuantiser(nn.Module):
    """z -> each channel rounded to a few levels: quantise(z) -> z_q, codes, loss. There is no codebook to learn.

    levels: how many for each channel, 3 or more; the codes are as many as their product. z: (batch, channels, height,
    width of the grid); z_q: that shape, in [-1, 1], with straight-through gradients; loss: 0. arXiv:2309.15505.
    """

    levels: torch.Tensor

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        self.count, self.width, self.inputs = math.prod(levels), len(levels), len(levels)
        self.register_buffer("levels", torch.tensor(levels))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = as_rows(z.float())
        numbers, codes = fsq(rows, self.levels)
        grid = (len(z), *z.shape[2:])
        return as_grid(numbers / (self.levels // 2), *grid), codes.view(grid), rows.new_zeros(())

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (batch, height, width) -> their levels / (L // 2), (batch, channels, height, width)."""
        return (codes_to_levels(codes, self.levels) / (self.levels // 2)).permute(0, 3, 1, 2)


Quantiser = VectorQuantiser | GumbelQuantiser | FiniteScalarQuantiser


def _require_rows(z: torch.Tensor, codebook: torch.Tensor) -> None:
    if z.ndim != 2 or codebook.ndim != 2 or z.shape[1] != codebook.shape[1]:
        raise ValueError(
            f"Expected rows of one length, (n, d) and (K, d), got {tuple(z.shape)} and {tuple(codebook.shape)}; turn "
            "grids into rows with as_rows."
        )
