"""What happens to pictures on their way: against Pillow's own words, and limits where nothing happens."""

import pytest
import torch

from course_utils.data import distortions
from course_utils.data import picture_book as book
from course_utils.data.images import to_pil, to_tensor
from course_utils.metrics.pictures import psnr

PAGES = book.pictures([book.sample_scene(number) for number in range(4)])


def dice():
    return torch.Generator().manual_seed(0)


def test_where_nothing_happens_nothing_changes():
    for same in (
        distortions.saved(PAGES),
        distortions.cropped(PAGES, 0),
        distortions.shrunk(PAGES, 1),
        distortions.brighter(PAGES, 1),
        distortions.noisy(PAGES, 0, dice()),
    ):
        torch.testing.assert_close(same, PAGES, atol=1e-6, rtol=0)


def test_saving_rounds_to_the_levels_of_a_png():
    x = torch.rand(2, 3, 8, 8, generator=dice()) * 2 - 1
    assert (distortions.saved(x) - x).abs().max() <= 1 / 255 + 1e-6
    torch.testing.assert_close(distortions.saved(distortions.saved(x)), distortions.saved(x))


def test_jpeg_loses_more_at_lower_quality():
    losses = [psnr(distortions.as_jpeg(PAGES, quality), PAGES).mean() for quality in (95, 75, 50, 10)]
    assert losses == sorted(losses, reverse=True) and losses[0] > 28


def test_cutting_keeps_the_middle_and_shrinking_blurs():
    checks = torch.zeros(1, 3, 16, 16)
    checks[..., 4:12, 4:12] = 1
    assert distortions.cropped(checks, 4).min() > 0.99
    stripes = torch.ones(1, 3, 16, 16)
    stripes[..., ::2] = -1
    assert distortions.shrunk(stripes, 0.25)[..., 4:12].abs().max() < 0.2


def test_brighter_multiplies_levels_and_noise_has_its_size():
    grey = torch.full((1, 3, 8, 8), -0.2)
    level = to_pil(grey)[0].getpixel((0, 0))[0]
    assert to_pil(distortions.brighter(grey, 1.5))[0].getpixel((0, 0))[0] == int(1.5 * level)
    assert distortions.brighter(PAGES, 9).max() == 1
    flat = torch.zeros(4, 3, 64, 64)
    assert distortions.noisy(flat, 0.1, dice()).std().item() == pytest.approx(0.1, rel=0.02)
    torch.testing.assert_close(distortions.noisy(PAGES, 0.1, dice()), distortions.noisy(PAGES, 0.1, dice()))
    torch.testing.assert_close(distortions.brighter(PAGES, 0.5), to_tensor(to_pil(distortions.brighter(PAGES, 0.5))))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: distortions.as_jpeg(PAGES, 0), "quality"),
        (lambda: distortions.as_jpeg(PAGES, 100), "quality"),
        (lambda: distortions.cropped(PAGES, 32), "margin"),
        (lambda: distortions.cropped(PAGES, -1), "margin"),
        (lambda: distortions.shrunk(PAGES, 0), "factor"),
        (lambda: distortions.shrunk(PAGES, 2), "factor"),
        (lambda: distortions.brighter(PAGES, -1), "factor"),
        (lambda: distortions.noisy(PAGES, -1, dice()), "standard deviation"),
        (lambda: distortions.saved(torch.zeros(3, 8, 8)), "shape|batch"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
