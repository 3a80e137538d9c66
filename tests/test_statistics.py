"""Intervals against scipy and by how often they hold the truth; strengths against another library."""

import pytest
import torch
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from course_utils.metrics import statistics


@pytest.mark.parametrize("hits, number", ((0, 1), (1, 1), (3, 10), (192, 200), (0, 50), (200, 200)))
def test_wilsons_interval_is_scipys(hits, number):
    theirs = binomtest(hits, number).proportion_ci(0.95, method="wilson")
    assert statistics.wilson_interval(hits, number, 1.959964) == pytest.approx(tuple(theirs), abs=1e-6)
    low, high = statistics.wilson_interval(hits, number)
    assert 0 <= low <= hits / number <= high <= 1 and low < high


def test_wilsons_interval_ends_where_the_share_is_z_standard_errors_away():
    for end in statistics.wilson_interval(7, 40):
        assert abs(7 / 40 - end) == pytest.approx(1.96 * (end * (1 - end) / 40) ** 0.5)


def test_wilsons_interval_holds_the_truth_as_often_as_it_promises():
    for p in (0.05, 0.5, 0.94):
        hits = torch.distributions.Binomial(60, torch.tensor(p)).sample((4000,)).long().tolist()
        ends = [statistics.wilson_interval(count, 60) for count in hits]
        assert sum(low <= p <= high for low, high in ends) / 4000 == pytest.approx(0.95, abs=0.03)


def test_shares_that_cannot_be_are_refused():
    for hits, number, z in ((-1, 5, 1.96), (6, 5, 1.96), (0, 0, 1.96), (2, 5, 0)):
        with pytest.raises(ValueError, match="hits from 0 to number"):
            statistics.wilson_interval(hits, number, z)


def test_a_share_in_words_of_a_table():
    assert statistics.share([True] * 192 + [False] * 8) == {"percent": 96.0, "from": 92.3, "to": 98.0, "n": 200}


def test_the_bootstrap_is_as_wide_as_the_standard_error_says():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = statistics.bootstrap_interval(values)
    error = values.std().item() / 20
    assert low == pytest.approx(values.mean().item() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean().item() + 1.96 * error, abs=0.2 * error)
    assert statistics.bootstrap_interval(values) == (low, high)  # the same lot
    narrow = statistics.bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert statistics.bootstrap_interval([3.0] * 5) == (3.0, 3.0)


def test_the_bootstrap_holds_the_truth_about_as_often_as_it_promises():
    dice = torch.Generator().manual_seed(0)
    ends = [statistics.bootstrap_interval(-torch.rand(80, generator=dice).log(), 200) for _ in range(200)]
    assert 0.88 <= sum(low <= 1 <= high for low, high in ends) / 200 <= 0.99  # of exponential numbers with mean 1


def test_pairs_take_out_what_is_hard_for_both():
    dice = torch.Generator().manual_seed(0)
    hard = 5 * torch.randn(100, generator=dice)
    one, other = hard + 0.5 + 0.3 * torch.randn(100, generator=dice), hard
    low, high = statistics.paired_interval(one, other)
    assert 0.3 < low < high < 0.7
    alone = statistics.bootstrap_interval(one)
    assert alone[1] - alone[0] > 10 * (high - low)
    assert statistics.paired_interval([1, 1], [0, 0]) == (1.0, 1.0)


def test_what_cannot_be_drawn_from_is_refused():
    for values, rounds, level in (([], 9, 0.5), ([[1.0]], 9, 0.5), ([1.0], 0, 0.5), ([1.0], 9, 1.0)):
        with pytest.raises(ValueError, match="expected values"):
            statistics.bootstrap_interval(values, rounds, level)
    with pytest.raises(ValueError, match="the same things"):
        statistics.paired_interval([1.0, 2.0], [1.0])


def games(strength, each, seed=0):
    """Votes of every pair, `each` times, with the probabilities of the model."""
    dice, votes = torch.Generator().manual_seed(seed), []
    for i in range(len(strength)):
        for j in range(i):
            won = torch.rand(each, generator=dice) < strength[i] / (strength[i] + strength[j])
            votes += [(i, j, float(one)) for one in won]
    return votes


STRENGTH = torch.tensor([4.0, 1.0, 0.5, 0.5], dtype=torch.float64)  # their geometric mean is 1


def test_known_strengths_are_recovered():
    games_of = STRENGTH[:, None] / (STRENGTH[:, None] + STRENGTH)  # as often as is expected: exactly
    torch.testing.assert_close(statistics.bradley_terry(100 * games_of), STRENGTH, rtol=1e-6, atol=0)
    found = statistics.bradley_terry(statistics.wins_of(games(STRENGTH, 3000), 4))
    torch.testing.assert_close(found, STRENGTH, rtol=0.1, atol=0)
    assert found.log().mean().item() == pytest.approx(0, abs=1e-9)


def test_two_players_have_the_odds_of_their_wins():
    strength = statistics.bradley_terry(torch.tensor([[0.0, 30.0], [10.0, 0.0]]))
    assert (strength[0] / strength[1]).item() == pytest.approx(3)
    points = statistics.elo(strength)
    assert (points[0] - points[1]).item() == pytest.approx(400 * torch.log10(torch.tensor(3.0)).item())


def test_the_strengths_are_a_logistic_regression():
    votes = games(STRENGTH, 40)
    design = torch.zeros(len(votes), 4)
    for row, (i, j, _) in enumerate(votes):
        design[row, i], design[row, j] = 1, -1
    won = [int(result) for *_, result in votes]
    fit = LogisticRegression(C=1e8, fit_intercept=False, tol=1e-10, max_iter=1000).fit(design, won)
    logs = torch.tensor(fit.coef_[0])
    mine = statistics.bradley_terry(statistics.wins_of(votes, 4)).log()
    torch.testing.assert_close(mine, logs - logs.mean(), rtol=1e-3, atol=1e-3)


def test_each_step_raises_the_likelihood():
    wins = statistics.wins_of(games(STRENGTH, 10), 4)

    def likelihood(s):
        return (wins * (s[:, None] / (s[:, None] + s)).log()).sum()

    values = [likelihood(statistics.bradley_terry(wins, steps)) for steps in (1, 2, 3, 5, 10, 50)]
    assert all(later >= earlier - 1e-9 for earlier, later in zip(values, values[1:], strict=False))


def test_a_tie_counts_half_for_both():
    votes = [(0, 1, 1), (0, 1, 0.5), (1, 0, 1), (2, 1, 0.5)]
    assert statistics.wins_of(votes, 3).tolist() == [[0, 1.5, 0], [1.5, 0, 0.5], [0, 0.5, 0]]
    torch.testing.assert_close(
        statistics.bradley_terry(statistics.wins_of(votes, 3)), torch.ones(3, dtype=torch.float64)
    )


def test_who_never_lost_has_no_strength():
    for wins in ([[0, 3], [0, 0]], [[0, 2, 0], [2, 0, 0], [0, 0, 0]], [[0, 1, 9], [1, 0, 9], [0, 0, 0]]):
        with pytest.raises(ValueError, match="infinite"):
            statistics.bradley_terry(torch.tensor(wins, dtype=torch.float64))
    strength, ends = statistics.bradley_terry_intervals([(0, 1, 1)] * 5, 2)
    assert strength[0] > 3 and ends.isfinite().all()


def test_intervals_of_strengths_hold_them_and_shrink():
    few, many = (statistics.bradley_terry_intervals(games(STRENGTH, each), 4)[1].log() for each in (20, 320))
    assert (few[:, 0] < few[:, 1]).all()
    assert ((many[:, 0] - 0.1 < STRENGTH.log()) & (STRENGTH.log() < many[:, 1] + 0.1)).all()
    ratio = (few[:, 1] - few[:, 0]) / (many[:, 1] - many[:, 0])
    assert ((ratio > 2.5) & (ratio < 6)).all()  # sixteen times the votes, a quarter of the width


def test_votes_and_tables_that_cannot_be_are_refused():
    for vote in ((0, 0, 1), (0, 3, 1), (-1, 0, 1), (0, 1, 0.3)):
        with pytest.raises(ValueError, match="two different players"):
            statistics.wins_of([vote], 3)
    for wins in (torch.zeros(2, 3), torch.zeros(1, 1), -torch.ones(2, 2)):
        with pytest.raises(ValueError, match="two players or more"):
            statistics.bradley_terry(wins)
    with pytest.raises(ValueError, match="one vote or more"):
        statistics.bradley_terry_intervals([], 2)


def test_the_interval_holds_the_mean():
    differences = torch.tensor([-1.0] * 20 + [0.0] * 80)
    low, high = statistics.bootstrap_interval(differences)
    assert low < -0.2 < high and high - low == pytest.approx(4 * 0.04, abs=0.02)
