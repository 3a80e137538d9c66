"""Fréchet distances in the features of networks that are at home in the course's data."""

import numpy
import pytest
import scipy.linalg
import torch

from course_utils.data import digits
from course_utils.data import picture_book as book
from course_utils.metrics import pictures as metrics


def cloud(count, d, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, d, generator=generator) @ torch.randn(d, d, generator=generator) + shift


def test_the_distance_of_two_normal_distributions_in_one_dimension():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [11.0]])  # means 1 and 8, variances 2 and 18
    assert metrics.frechet_distance(a, b) == pytest.approx(7**2 + (2**0.5 - 18**0.5) ** 2)


def test_the_distance_is_that_of_scipys_matrix_root():
    a, b = cloud(40, 6), cloud(60, 6, 1.5, seed=1)
    root = scipy.linalg.sqrtm(numpy.cov(a.numpy().T) @ numpy.cov(b.numpy().T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + numpy.trace(
        numpy.cov(a.numpy().T) + numpy.cov(b.numpy().T) - 2 * root
    )
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert metrics.frechet_distance(b, a) == pytest.approx(expected, rel=1e-4)


def test_fewer_points_than_features_are_no_obstacle():
    a = cloud(5, 8)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-4)
    assert metrics.frechet_distance(a, a + 1) == pytest.approx(8, rel=1e-4)


def test_clouds_that_cannot_be_compared_are_refused():
    for a, b in (
        (torch.zeros(4, 3), torch.zeros(4, 2)),
        (torch.zeros(1, 3), torch.zeros(4, 3)),
        (torch.zeros(4), torch.zeros(4)),
    ):
        with pytest.raises(ValueError, match="two clouds"):
            metrics.frechet_distance(a, b)


def test_digits_are_nearer_to_digits_than_anything_else():
    real = digits.load(16, "test")[0]
    blurred = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
    noise = torch.randn(len(real), 1, 16, 16, generator=torch.Generator().manual_seed(0))
    floor, blur, rubbish = map(metrics.digit_fid, (real, blurred, noise))
    assert 3 * floor < blur < rubbish / 3


def test_pages_are_nearer_to_pages_than_anything_else():
    scenes = metrics.one_thing_pages(120, seed=1)
    assert all(len(scene.things) == 1 and scene.style == "picture book" for scene in scenes)
    real = book.pictures(scenes, 32)
    blurred = torch.nn.functional.avg_pool2d(real, 5, 1, 2)
    assert 2 * metrics.picture_book_fid(real) < metrics.picture_book_fid(blurred)
    assert metrics.one_thing(real) > 0.9 > metrics.one_thing(blurred)


def test_iou_of_masks():
    half, quarter, none = torch.zeros(3, 4, 4, dtype=torch.bool)
    half[:2], quarter[:2, :2] = True, True
    pairs = [(half, half, 1), (half, ~half, 0), (half, quarter, 0.5), (half, none, 0), (none, none, 1)]
    first, second, shares = zip(*pairs, strict=True)
    assert metrics.iou(torch.stack(first), torch.stack(second)).tolist() == list(shares)
    for other in (half[None, :3], half[None].float()):
        with pytest.raises(ValueError, match="two bool batches"):
            metrics.iou(half[None], other)
