"""Copies: neighbours against scikit-learn's, the area under the curve against scikit-learn's and scipy's."""

import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from course_utils.metrics import copies


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("d", (1, 3, 40))
def test_the_two_nearest_are_scikit_learns(d):
    points, others = normal(30, d), normal(50, d, seed=1)
    distances, which = NearestNeighbors(n_neighbors=2).fit(others.numpy()).kneighbors(points.numpy())
    nearest, second, found = copies.nearest_two(points, others)
    torch.testing.assert_close(torch.stack([nearest, second], 1), torch.from_numpy(distances))
    assert found.tolist() == which[:, 0].tolist()
    torch.testing.assert_close(copies.neighbour_ratio(points, others), nearest / second)


def test_a_copy_has_ratio_zero_and_the_middle_of_two_one():
    training = torch.tensor([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    found = copies.neighbour_ratio(torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.5, 0.0]]), training)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 1 / 3], dtype=torch.float64))


def test_a_copy_far_from_the_origin_is_a_copy():
    training = 1e4 + normal(40, 3072).float()
    nearest, second, which = copies.nearest_two(training[7:9], training)
    assert nearest.tolist() == [0, 0] and which.tolist() == [7, 8] and (second > 1).all()


def test_a_picture_twice_in_the_training_set_hides_its_near_copies():
    training = normal(20, 8)
    almost = training[:1] + 1e-3
    assert copies.neighbour_ratio(almost, training) < 0.01
    assert copies.neighbour_ratio(almost, torch.cat([training, training[:1]])) == 1
    assert copies.neighbour_ratio(training[:1], torch.cat([training, training[:1]])) == 0


def test_neighbours_do_not_depend_on_scale_or_order():
    points, training = normal(12, 5), normal(30, 5, seed=1)
    ratio = copies.neighbour_ratio(points, training)
    torch.testing.assert_close(copies.neighbour_ratio(7 * points, 7 * training.flip(0)), ratio)
    assert ((ratio >= 0) & (ratio <= 1)).all()


@pytest.mark.parametrize("function", (copies.nearest_two, copies.neighbour_ratio))
def test_points_that_cannot_be_compared_are_refused(function):
    for points, others in (
        (torch.zeros(3, 2), torch.zeros(4, 3)),
        (torch.zeros(3, 2), torch.zeros(1, 2)),
        (torch.zeros(0, 2), torch.zeros(4, 2)),
        (torch.zeros(3, 3, 8, 8), torch.zeros(4, 3, 8, 8)),
    ):
        with pytest.raises(ValueError, match=r"flatten\(1\)"):
            function(points, others)


@pytest.mark.parametrize("round_to", (None, 0))  # rounded: with many ties
def test_the_auc_is_scikit_learns_and_that_of_mann_and_whitney(round_to):
    members, others = normal(40) - 0.5, normal(60, seed=1)
    if round_to is not None:
        members, others = members.round(decimals=round_to), others.round(decimals=round_to)
    found = copies.auc(members, others)
    truth = [1] * 40 + [0] * 60
    assert found == pytest.approx(roc_auc_score(truth, -torch.cat([members, others]).numpy()))
    assert found == pytest.approx(mannwhitneyu(others.numpy(), members.numpy()).statistic / (40 * 60))
    assert copies.auc(others, members) == pytest.approx(1 - found)


def test_the_auc_of_a_few_numbers():
    assert copies.auc([1, 2], [3, 4, 5]) == 1
    assert copies.auc([3, 4, 5], [1, 2]) == 0
    assert copies.auc([1], [1]) == 0.5
    assert copies.auc([1, 3], [2]) == 0.5


def test_the_interval_of_the_auc_holds_the_truth_as_often_as_it_promises():
    truth = torch.special.ndtr(torch.tensor(0.8 / 2**0.5, dtype=torch.float64)).item()  # two normals, 0.8 apart
    ends = [
        copies.auc_interval(normal(40, seed=2 * seed) - 0.8, normal(40, seed=2 * seed + 1), rounds=200)
        for seed in range(100)
    ]
    assert sum(low <= truth <= high for low, high in ends) >= 86


def test_the_interval_of_the_auc_can_be_drawn_again():
    members, others = normal(20), normal(30, seed=1)
    low, high = copies.auc_interval(members, others, 200)
    assert (low, high) == copies.auc_interval(members, others, 200)
    assert low < copies.auc(members, others) < high
    assert copies.auc_interval([1, 2], [3, 4]) == (1, 1)


@pytest.mark.parametrize("function", (copies.auc, copies.auc_interval))
def test_losses_that_cannot_be_compared_are_refused(function):
    for members, others in (([], [1.0]), ([1.0], []), (torch.zeros(2, 2), [1.0]), ([float("nan")], [1.0])):
        with pytest.raises(ValueError, match="one loss for each picture"):
            function(members, others)


def test_rounds_and_levels_that_make_no_interval_are_refused():
    for rounds, level in ((0, 0.95), (10, 0.0), (10, 1.0)):
        with pytest.raises(ValueError, match="rounds"):
            copies.auc_interval([1.0], [2.0], rounds, level)
