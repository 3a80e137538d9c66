"""Reconstructions: classical methods where they are exact, and the model's samples where everything is measured."""

import numpy
import pytest
import torch
from skimage.restoration import denoise_tv_chambolle

from course_utils.data import measurements
from course_utils.data import picture_book as book
from course_utils.metrics.pictures import psnr
from course_utils.pipelines import reconstruction
from course_utils.pipelines.picture_book import load_picture_book


@pytest.fixture(scope="module")
def pages():
    return book.pictures([book.sample_scene(number, 16) for number in range(2)])


def ramp(size=16):
    across = torch.linspace(-1, 1, size)
    return torch.stack([across.expand(size, size), across[:, None].expand(size, size), torch.zeros(size, size)])[None]


def test_planes_are_interpolated_exactly_between_their_corners():
    mask = measurements.pixel_mask(0.2, 16, torch.Generator().manual_seed(0))
    mask[..., [0, 0, -1, -1], [0, -1, 0, -1]] = 1
    seen = measurements.keep_pixels(ramp(), mask)
    assert (reconstruction.interpolate_pixels(seen, mask) - ramp()).abs().max() < 1e-5
    for found in (reconstruction.interpolate_pixels(seen, mask, "cubic"), reconstruction.biharmonic(seen, mask)):
        known = mask.bool().expand_as(seen)
        assert torch.allclose(found[known], seen[known], atol=1e-5) and psnr(found, ramp()) > 25


def test_pages_and_colours_are_not_mixed_up(pages):
    mask = measurements.pixel_mask(0.3, 64, torch.Generator().manual_seed(0))
    both = reconstruction.interpolate_pixels(measurements.keep_pixels(pages, mask), mask)
    alone = reconstruction.interpolate_pixels(measurements.keep_pixels(pages[1:], mask), mask)
    assert torch.allclose(both[1:], alone, atol=1e-6) and (psnr(both, pages) > 20).all()


def test_wieners_filter_takes_a_blur_back_where_there_is_no_noise(pages):
    seen = measurements.blur(pages.double(), 0.7)
    assert (reconstruction.wiener(seen, 0.7, 1e-12) - pages).abs().max() < 1e-3
    flat = torch.full((1, 3, 16, 16), 0.4)
    assert torch.allclose(reconstruction.wiener(flat, 2.0, 0.25), flat / 1.25, atol=1e-6)


def test_richardson_lucy_sharpens_and_keeps_what_is_flat(pages):
    seen = measurements.blur(pages, 2.0)
    assert (psnr(reconstruction.richardson_lucy(seen, 2.0, 20), pages) > psnr(seen, pages) + 1).all()
    flat = torch.full((1, 3, 32, 32), 0.4)
    assert (reconstruction.richardson_lucy(flat, 1.0, 3) - flat).abs().max() < 0.01


def test_total_variation_is_scikit_images_where_everything_is_measured(pages):
    got = reconstruction.total_variation(lambda x: x, pages, torch.zeros_like(pages), 0.1, rounds=30)
    expected = denoise_tv_chambolle(pages[0].permute(1, 2, 0).numpy(), 0.1, max_num_iter=15, channel_axis=-1)
    numpy.testing.assert_allclose(got[0].permute(1, 2, 0), expected, atol=1e-5)


def test_total_variation_lowers_what_it_minimises(pages):
    measure = lambda x: measurements.blur(x, 2.0)  # noqa: E731
    seen = measurements.observe(measure, pages, 0.05, torch.Generator().manual_seed(0))

    def objective(x):
        down, across = x.diff(dim=2)[..., :-1], x.diff(dim=3)[:, :, :-1]
        lengths = (down.square() + across.square()).sum(1).sqrt()  # of all colours together, as scikit-image has it
        return ((measure(x) - seen).square().sum() / 2 + 0.01 * lengths.sum()).item()

    values = [objective(reconstruction.total_variation(measure, seen, seen, 0.01, rounds)) for rounds in (0, 3, 30)]
    assert values[0] > values[1] > values[2]


def test_a_whole_measurement_gives_the_page_and_each_sample_has_its_seed(pages):
    pipe = load_picture_book()
    dice = [[torch.Generator().manual_seed(seed) for seed in seeds] for seeds in ((0, 1), (1,))]
    steps = []
    both = reconstruction.reconstruct(
        pipe, lambda x: x, pages, 0.0, dice[0], steps=8, on_step=lambda done, total: steps.append((done, total))
    )
    assert both.shape == pages.shape and both.abs().max() <= 1 and steps == [(n, 8) for n in range(1, 9)]
    assert (psnr(both, pages) > 15).all()
    alone = reconstruction.reconstruct(pipe, lambda x: x, pages[1:], 0.0, dice[1], steps=8)
    assert (both[1:] - alone).abs().mean() < 0.02
    assert all(parameter.grad is None for parameter in pipe.unet.parameters())
