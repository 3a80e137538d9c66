"""Measurements of pictures: what they keep, their transposes, and their noise."""

import numpy
import pytest
import torch
from scipy.ndimage import gaussian_filter

from course_utils.data import measurements


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def three():
    mask = measurements.pixel_mask(0.1, 16, torch.Generator().manual_seed(0))
    kept = measurements.wedge(16)
    return {
        "pixels": lambda x: measurements.keep_pixels(x, mask),
        "blur": lambda x: measurements.blur(x, 1.5),
        "frequencies": lambda x: measurements.frequencies(x, kept),
    }


def test_a_mask_has_as_many_ones_as_asked_for_and_follows_the_seed():
    for share, count in ((0.1, 26), (1.0, 256), (0.01, 3)):
        mask = measurements.pixel_mask(share, 16, torch.Generator().manual_seed(3))
        assert mask.shape == (1, 1, 16, 16) and mask.sum() == count and set(mask.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(mask, measurements.pixel_mask(share, 16, torch.Generator().manual_seed(3)))


def test_the_blur_is_scipys_with_edges_that_follow_on_each_other():
    x = noise(2, 3, 32, 32)
    for width in (2.0, 3.0):
        expected = gaussian_filter(x.numpy(), (0, 0, width, width), mode="wrap", truncate=8)
        numpy.testing.assert_allclose(measurements.blur(x, width).numpy(), expected, atol=2e-4)


def test_the_wedge_keeps_waves_across_and_half_of_all():
    x = torch.linspace(0, 2 * torch.pi, 33)[:-1]
    across, down = (5 * x).sin().expand(1, 1, 32, 32), (5 * x).sin()[:, None].expand(1, 1, 32, 32)
    kept = measurements.wedge(32)
    assert abs(kept.mean() - 0.5) < 0.04
    assert torch.allclose(measurements.frequencies(across, kept).square().sum(), across.square().sum())
    assert measurements.frequencies(down, kept).abs().max() < 1e-4
    assert torch.equal(kept, kept.flip(0, 1).roll((1, 1), (0, 1)))  # with (u, v) also (-u, -v)


@pytest.mark.parametrize("name", ["pixels", "blur", "frequencies"])
def test_the_transpose_is_one_and_nothing_is_enlarged(name):
    measure, x = three()[name], noise(2, 3, 16, 16)
    y = noise(*measure(x).shape, seed=1)
    back = measurements.transposed(measure, y, x.shape)
    assert torch.allclose((measure(x) * y).sum(), (x * back).sum(), rtol=1e-4, atol=1e-4)
    assert measure(x).norm() <= x.norm() * (1 + 1e-6)


@pytest.mark.parametrize("name", ["pixels", "blur", "frequencies"])
def test_noise_has_its_size_where_something_is_measured_and_is_nowhere_else(name):
    measure, x = three()[name], noise(64, 3, 16, 16)
    y = measurements.observe(measure, x, 0.1, torch.Generator().manual_seed(5))
    added = y - measure(x)
    kept = measure(noise(64, 3, 16, 16, seed=2)) != 0
    assert abs(added[kept].std() - 0.1) < 0.005 and (added[~kept] == 0).all()
    assert torch.equal(measurements.observe(measure, x, 0.0, torch.Generator()), measure(x))


def test_what_cannot_be_measured_is_refused():
    x = noise(1, 3, 16, 16)
    for share in (0, 1e-4, 1.5):
        with pytest.raises(ValueError, match="share"):
            measurements.pixel_mask(share, 16, torch.Generator())
    with pytest.raises(ValueError, match="pixel_mask"):
        measurements.keep_pixels(x, torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match="width"):
        measurements.blur(x, 0)
    with pytest.raises(ValueError, match="square"):
        measurements.blur(noise(1, 3, 16, 8), 1.0)
    with pytest.raises(ValueError, match="mask"):
        measurements.frequencies(x, torch.ones(8, 8))
    with pytest.raises(ValueError, match="noise"):
        measurements.observe(lambda x: x, x, -1, torch.Generator())
    with pytest.raises(ValueError, match="A x"):
        measurements.transposed(lambda x: x, noise(1, 3, 8, 8), x.shape)
