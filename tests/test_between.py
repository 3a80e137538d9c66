"""Paths between two noises: the ends, the norms, the speed."""

import pytest
import torch

from course_utils.diffusion.editing import between, slerp


def test_a_path_begins_and_ends_where_it_is_told_to():
    a, b = torch.randn(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    path = between(a, b, 7)
    assert path.shape == (7, 3, 8, 16, 16)
    assert torch.allclose(path[0], a, atol=1e-5) and torch.allclose(path[-1], b, atol=1e-5)
    assert torch.allclose(path[3], slerp(a, b, 0.5))


def test_every_point_of_a_path_is_as_probable_as_noise_and_the_steps_are_equal():
    a, b = torch.randn(2, 3, 2048, generator=torch.Generator().manual_seed(1))
    path = between(a, b, 9)
    ends = path[[0, -1]].norm(dim=2)
    norms = path.norm(dim=2)
    assert (norms > 0.98 * ends.amin(0)).all() and (norms < 1.02 * ends.amax(0)).all()
    steps = (path[1:] - path[:-1]).norm(dim=2)
    assert (steps.amax(0) < 1.1 * steps.amin(0)).all()


def test_a_path_needs_both_ends():
    with pytest.raises(ValueError, match="at least the two ends"):
        between(torch.zeros(1, 2), torch.zeros(1, 2), 1)
