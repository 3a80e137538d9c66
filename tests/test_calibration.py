"""Intervals: normal numbers are held as often as claimed, and a width chosen on some holds others."""

import numpy
import pytest
import scipy.stats
import torch

from course_utils.metrics import calibration

LEVELS = (0.5, 0.8, 0.95)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_mean_and_spread_are_numpys_and_the_floor_adds_in_squares():
    samples = normal(16, 3, 5)
    mean, spread = calibration.mean_and_spread(samples)
    numpy.testing.assert_allclose(mean, samples.numpy().mean(0))
    numpy.testing.assert_allclose(spread, samples.numpy().std(0, ddof=1))
    numpy.testing.assert_allclose(calibration.mean_and_spread(torch.ones(4, 2), 0.3)[1], 0.3, rtol=1e-6)


def test_widths_are_scipys():
    for level in LEVELS:
        assert abs(calibration.normal_width(level) - scipy.stats.norm.ppf((1 + level) / 2)) < 1e-9


def test_normal_numbers_are_held_as_often_as_claimed():
    spread = normal(100_000, seed=1).exp()
    shares = calibration.reliability(spread * normal(100_000), torch.zeros(100_000).double(), spread)
    numpy.testing.assert_allclose(shares, LEVELS, atol=0.005)
    narrow = calibration.reliability(2 * spread * normal(100_000), torch.zeros(100_000).double(), spread)
    assert all(got < level - 0.1 for got, level in zip(narrow, LEVELS, strict=True))


def test_a_calibrated_width_holds_what_it_was_chosen_on_and_no_more():
    truth, mean, spread = normal(100), torch.zeros(100).double(), torch.full((100,), 0.5).double()
    for level in LEVELS:
        width = calibration.calibrated_width(truth, mean, spread, level)
        assert calibration.held(truth, mean, spread, width) == pytest.approx(level)
        assert calibration.held(truth, mean, spread, width * (1 - 1e-9)) == pytest.approx(level - 0.01)


def test_it_holds_others_of_their_kind_whatever_their_distribution():
    students = torch.distributions.StudentT(3.0)
    torch.manual_seed(0)
    some, others = students.sample((50_000,)), students.sample((50_000,))
    zero, one = torch.zeros(50_000), torch.ones(50_000)
    for level in LEVELS:
        width = calibration.calibrated_width(some, zero, one, level)
        assert calibration.held(others, zero, one, width) == pytest.approx(level, abs=0.01)


def test_no_error_is_held_without_any_width():
    zero = torch.zeros(4)
    assert calibration.held(zero, zero, zero, 0.0) == 1 and calibration.calibrated_width(zero, zero, zero, 0.9) == 0


def test_what_does_not_fit_is_refused():
    x = normal(3)
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match="level"):
            calibration.normal_width(level)
    with pytest.raises(ValueError, match="two samples"):
        calibration.mean_and_spread(x[:1])
    with pytest.raises(ValueError, match="width"):
        calibration.held(x, x, x, -1)
    with pytest.raises(ValueError, match="truth and spread"):
        calibration.held(x, x, x[:1], 1)
