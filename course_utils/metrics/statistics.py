"""How sure a number is: intervals of shares, of means and of differences, and strengths from comparisons in pairs."""

import math
from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike

Z = 1.96  # a normal number lies between -Z and Z with a probability of 95%


def wilson_interval(hits: int, number: int, z: float = Z) -> tuple[float, float]:
    """Return Wilson's interval (low, high) of a probability of which `hits` of `number` trials were hits.

        (p + z^2 / 2n ± z (p (1 - p) / n + z^2 / 4n^2)^(1/2)) / (1 + z^2 / n),   p = hits / n

    It holds every probability from which p is at most z standard errors away; z = 1.96 makes 95% of it. Unlike p ± z
    standard errors it stays between 0 and 1, and has a length for p = 0 and p = 1. Source: Wilson 1927, Journal of the
    American Statistical Association 22, pages 209-212.
    Raises ValueError unless number >= 1, 0 <= hits <= number and z > 0.
    """
    if not (number >= 1 and 0 <= hits <= number and z > 0):
        raise ValueError(f"expected number >= 1, hits from 0 to number and z > 0, got {hits} of {number} and z={z}")
    p = hits / number
    middle, half = p + z * z / (2 * number), z * (p * (1 - p) / number + z * z / (4 * number * number)) ** 0.5
    low, high = ((middle + sign * half) / (1 + z * z / number) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def share(hits: Sequence[bool]) -> dict:
    """The share of hits in percent, Wilson's 95% interval and n."""
    n = len(hits)
    low, high = wilson_interval(sum(hits), n)
    return {"percent": round(100 * sum(hits) / n, 1), "from": round(100 * low, 1), "to": round(100 * high, 1), "n": n}


def middle(samples: torch.Tensor, level: float) -> torch.Tensor:
    """Return between which two numbers the middle `level` of samples lies: float64 (rounds, ...) -> (2, ...)."""
    return samples.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64), dim=0)


def bootstrap_interval(
    values: ArrayLike, rounds: int = 2000, level: float = 0.95, generator: torch.Generator | None = None
) -> tuple[float, float]:
    """Return a bootstrap interval (low, high) of a mean: the middle `level` of the means of samples of the sample.

    values: (number,); `rounds` times as many of them are drawn with replacement, from `generator` (seed 0 if not
    given), and averaged. Nothing is assumed about their distribution, but that they are independent; for fewer than
    some 20 of them the interval is too short. Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993),
    chapter 13 (the percentile method).
    Raises ValueError for no values, several axes, rounds < 1, and a level that is not between 0 and 1.
    """
    numbers = torch.as_tensor(values, dtype=torch.float64)
    if numbers.ndim != 1 or len(numbers) == 0 or rounds < 1 or not 0 < level < 1:
        raise ValueError(
            f"expected values (number,), rounds >= 1 and a level between 0 and 1, got {tuple(numbers.shape)}, "
            f"{rounds} and {level}"
        )
    generator = generator or torch.Generator().manual_seed(0)
    drawn = (torch.randint(len(numbers), numbers.shape, generator=generator) for _ in range(rounds))
    means = torch.stack([numbers[chosen].mean() for chosen in drawn])
    low, high = middle(means, level).tolist()
    return low, high


def paired_interval(
    values: ArrayLike,
    others: ArrayLike,
    rounds: int = 2000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Return a bootstrap interval (low, high) of how much larger the mean of `values` is than that of `others`.

    Both (number,), measured on the same things in the same order, such as two models on the same prompts: what is hard
    for both cancels in the difference. See `bootstrap_interval`. Raises ValueError also for two different lengths.
    """
    one, other = (torch.as_tensor(both, dtype=torch.float64) for both in (values, others))
    if one.shape != other.shape:
        raise ValueError(
            f"expected two values for each of the same things, got {tuple(one.shape)} and {tuple(other.shape)}"
        )
    return bootstrap_interval(one - other, rounds, level, generator)


def wins_of(votes: Sequence[tuple[int, int, float]], players: int) -> torch.Tensor:
    """Return how often each player won against each other one, float64 (players, players), from votes.

    votes: (i, j, result) each: two different players from 0 on, and 1 if i won, 0 if j did, 0.5 for a tie, which counts
    half for both. Raises ValueError for other players or results.
    """
    for i, j, result in votes:
        if i == j or not (0 <= i < players and 0 <= j < players) or result not in (0, 0.5, 1):
            raise ValueError(
                f"expected two different players from 0 to {players - 1} and a result of 0, 0.5 or 1, got "
                f"{(i, j, result)}"
            )
    return _table(torch.tensor(votes, dtype=torch.float64).reshape(-1, 3), players)


def bradley_terry(wins: torch.Tensor, steps: int = 1000) -> torch.Tensor:
    """Return the strength of each player, float64 (players,) with a geometric mean of 1, from who won how often.

        P(i beats j) = s_i / (s_i + s_j);    s_i <- sum_j wins_ij / sum_j (wins_ij + wins_ji) / (s_i + s_j)

    wins: (players, players), wins[i, j] how often i beat j, a tie counted half in [i, j] and half in [j, i]; the
    diagonal does not matter. Each of `steps` minorise-maximise steps, from s = 1, raises the likelihood; only ratios of
    strengths matter, so they are scaled after each.
    Source: Bradley and Terry 1952, Biometrika 39, pages 324-345; the steps: Hunter 2004, Annals of Statistics 32,
    pages 384-406, equation 3. Raises ValueError for other shapes, negative numbers, and if some players never lost
    (nor tied) against the rest, so that their strength would be infinite.
    """
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or len(wins) < 2 or (wins < 0).any():
        raise ValueError(f"expected wins (players, players) >= 0 of two players or more, got {tuple(wins.shape)}")
    wins = wins.double().clone().fill_diagonal_(0)
    _require_finite(wins)
    return _iterate(wins, steps)


def bradley_terry_intervals(
    votes: Sequence[tuple[int, int, float]],
    players: int,
    rounds: int = 300,
    level: float = 0.95,
    steps: int = 200,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the strengths (players,) and their bootstrap intervals (players, 2), lower and upper end, from votes.

    votes: as in `wins_of`; `rounds` times as many are drawn from them with replacement, from `generator` (seed 0 if not
    given). One tie of each pair of players is added everywhere, so that nobody who won all of a few games gets an
    infinite strength; that draws the strengths a little together.
    Raises ValueError for no votes, for rounds < 1, for a level that is not between 0 and 1, and as `wins_of` does.
    """
    if not votes or rounds < 1 or not 0 < level < 1:
        raise ValueError(
            f"expected one vote or more, rounds >= 1 and a level between 0 and 1, got {len(votes)} votes, {rounds} "
            f"and {level}"
        )
    generator = generator or torch.Generator().manual_seed(0)
    ties = torch.full((players, players), 0.5, dtype=torch.float64).fill_diagonal_(0)
    strength = bradley_terry(wins_of(votes, players) + ties, steps)
    rows = torch.tensor(votes, dtype=torch.float64)
    lots = (torch.randint(len(rows), (len(rows),), generator=generator) for _ in range(rounds))
    drawn = _iterate(torch.stack([_table(rows[lot], players) for lot in lots]) + ties, steps)
    return strength, middle(drawn, level).T


def elo(strength: torch.Tensor) -> torch.Tensor:
    """Return strengths as Elo's points, 1000 for a strength of 1: 400 points more are ten times the strength."""
    return 1000 + 400 * strength.log() / math.log(10)


def _table(votes: torch.Tensor, players: int) -> torch.Tensor:
    """Votes as rows i, j, result, float64 (number, 3), -> wins (players, players)."""
    (i, j), result = votes[:, :2].long().T, votes[:, 2]
    cells, won = torch.cat([i * players + j, j * players + i]), torch.cat([result, 1 - result])
    return torch.bincount(cells, won, players**2).reshape(players, players)


def _iterate(wins: torch.Tensor, steps: int) -> torch.Tensor:
    """The steps of `bradley_terry`: wins (..., players, players) with an empty diagonal -> strengths (..., players)."""
    games, strength = wins + wins.mT, torch.ones_like(wins[..., 0])
    for _ in range(steps):
        expected = games / (strength[..., :, None] + strength[..., None, :])
        strength = wins.sum(-1) / expected.sum(-1)
        strength = strength / strength.log().mean(-1, keepdim=True).exp()
    return strength


def _require_finite(wins: torch.Tensor) -> None:
    """Raise ValueError unless everyone has, along a chain of wins, beaten everyone (Ford 1957)."""
    from scipy.sparse.csgraph import connected_components

    groups, _ = connected_components((wins > 0).numpy(), directed=True, connection="strong")
    if groups > 1:
        raise ValueError(
            "expected that no group of players has won all games against the rest, or played none: their strength "
            "would be infinite; collect more votes, or add half a win to each pair, both ways"
        )
