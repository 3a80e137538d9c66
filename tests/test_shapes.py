"""Broadcasting one number per sample, and errors that say what to do."""

import pytest
import torch

from course_utils.shapes import expand_like, require_pictures, require_same_shape, require_times


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 4, 8, 8)])
def test_each_sample_gets_its_own_number(shape):
    scaled = expand_like(torch.tensor([1.0, 2.0, 3.0]), torch.ones(shape)) * torch.ones(shape)
    assert scaled.shape == shape
    for index in range(3):
        assert (scaled[index] == index + 1).all()


def test_a_single_number_and_the_dtype_of_the_target():
    target = torch.ones(2, 3, 4, 4, dtype=torch.bfloat16)
    for number in (0.5, torch.tensor(0.5, dtype=torch.float64)):
        expanded = expand_like(number, target)
        assert expanded.shape == (1, 1, 1, 1)
        assert expanded.dtype == torch.bfloat16
        assert expanded.item() == 0.5


@pytest.mark.parametrize("values", [torch.ones(3), torch.ones(2, 1)])
def test_numbers_that_do_not_fit_the_batch_are_refused(values):
    with pytest.raises(ValueError, match=r"one for each of the 2 samples.*Pass shape \(2,\)"):
        expand_like(values, torch.ones(2, 3, 2, 2))


def test_pictures():
    require_pictures(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="needs a batch axis"):
        require_pictures(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"got \(8, 8\)"):
        require_pictures(torch.zeros(8, 8))
    with pytest.raises(ValueError, match="torch.uint8.*127.5"):
        require_pictures(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="got list"):
        require_pictures([[0.0]])


def test_same_shape():
    require_same_shape(torch.zeros(2, 3), torch.ones(2, 3), "x0 and eps")
    with pytest.raises(ValueError, match=r"x0 and eps of one shape, but got \(2, 1\) and \(2, 3\)"):
        require_same_shape(torch.zeros(2, 1), torch.zeros(2, 3), "x0 and eps")


def test_times():
    require_times(torch.tensor([0, 999]), 1000)
    require_times(torch.tensor(5), 1000)
    for outside in ([-1, 3], [3, 1000]):
        with pytest.raises(ValueError, match="from 0 to 999"):
            require_times(torch.tensor(outside), 1000)
    for wrong in (torch.tensor([0.5]), torch.tensor([[1]]), torch.tensor([True]), 3):
        with pytest.raises(ValueError, match=r"whole-number times t of shape \(batch,\)"):
            require_times(wrong, 1000)
