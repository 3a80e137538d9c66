"""Marks: closed forms for the ring and its distance, random directions for the p-value, scipy for the DCT."""

import pytest
import scipy.fft
import torch
from scipy.stats import ncx2
from tiny import tiny_pipeline

from course_utils.data import picture_book as book
from course_utils.data.distortions import as_jpeg, saved
from course_utils.diffusion import samplers
from course_utils.metrics.pictures import psnr
from course_utils.pipelines import editing
from course_utils.pipelines import watermark as marks


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


KEY = marks.make_key(1)
PLACES = int((KEY != 0).sum())


def test_a_key_is_the_spectrum_of_real_noise_and_has_its_mean_square():
    assert set(KEY.unique().tolist()) == {-1, 0, 1} and KEY.shape == (8, 16, 16)
    assert torch.equal(KEY, marks.make_key(1)) and not torch.equal(KEY, marks.make_key(2))
    assert torch.fft.ifft2(KEY * marks.from_the_middle(16).conj()).imag.abs().max() < 1e-6
    # on a ring all places of a channel have one value
    waves = (torch.fft.fftfreq(16) * 16).square()
    ring = (waves[:, None] + waves).sqrt().round()
    for channel in KEY:
        for radius in range(9):
            values = channel[ring == radius].unique()
            assert values.tolist() == [0] if radius not in marks.RINGS else len(values) == 1 and values.abs() == 1


def test_written_noise_is_real_has_the_key_and_keeps_the_rest_and_the_variance():
    x = noise(300, 8, 16, 16)
    written = marks.write_ring(x, KEY)
    assert written.shape == x.shape and written.dtype == x.dtype
    spectrum, before = marks.spectrum(written), marks.spectrum(x)
    on = KEY != 0
    torch.testing.assert_close(spectrum[:, on].real, KEY[on].expand(300, -1), atol=1e-4, rtol=0)
    assert spectrum[:, on].imag.abs().max() < 1e-4
    torch.testing.assert_close(spectrum[:, ~on], before[:, ~on], atol=1e-4, rtol=0)
    assert written.std().item() == pytest.approx(1, abs=0.01) and before.abs().square().mean().item() == pytest.approx(
        1, abs=0.01
    )
    assert torch.equal(x, noise(300, 8, 16, 16))  # what was handed in stays


def test_the_spectrum_is_seen_from_the_middle():
    x = torch.zeros(16, 16)
    x[7:9, 7:9] = noise(1).item()  # symmetric about the middle, which lies between the pixels
    found = marks.spectrum(x)
    real = found[:8, :8]  # where the highest wave, which is its own opposite, has no part
    assert real.imag.abs().max() < 1e-6 < real.real.abs().max()
    torch.testing.assert_close(found.abs(), torch.fft.fft2(x, norm="ortho").abs())
    # by the sum in the docstring
    u, v, place = 3, -2, torch.arange(16) - 7.5
    y = noise(16, 16)
    wave = torch.exp(-2j * torch.pi * (u * place[:, None] + v * place) / 16)
    torch.testing.assert_close(marks.spectrum(y)[u, v], (y * wave).sum() / 16)


def test_the_distance_is_two_minus_twice_the_cosine_and_knows_no_length():
    x = noise(20, 8, 16, 16, seed=3)
    # the key, as noise, and the part of x on the rings: real numbers, in which the cosine can be computed too
    pattern = torch.fft.ifft2(KEY * marks.from_the_middle(16).conj(), norm="ortho").real
    on_rings = torch.fft.ifft2(torch.where(KEY != 0, torch.fft.fft2(x), 0)).real
    cosine = (x * pattern).flatten(1).sum(1) / (on_rings.flatten(1).norm(dim=1) * pattern.norm())
    torch.testing.assert_close(marks.ring_distance(x, KEY), 2 - 2 * cosine, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(marks.ring_distance(0.3 * x, KEY), marks.ring_distance(x, KEY))
    assert marks.ring_distance(marks.write_ring(x, KEY), KEY).max() < 1e-6
    assert marks.ring_distance(-marks.write_ring(x, KEY), KEY).sub(4).abs().max() < 1e-5


def test_mirroring_and_turning_about_the_middle_leave_the_rings():
    written = marks.write_ring(noise(4, 8, 16, 16), KEY)
    for moved in (written.flip(-1), written.flip(-2), written.transpose(-1, -2), written.rot90(1, (-2, -1))):
        assert marks.ring_distance(moved, KEY).max() < 1e-6


def test_p_values_of_normal_noise_are_uniform():
    x = noise(3000, 8, 16, 16)
    p = marks.p_value(marks.ring_distance(x, KEY), PLACES)
    for level in (0.01, 0.1, 0.5, 0.9):
        assert (p < level).double().mean().item() == pytest.approx(level, abs=4 * (level * (1 - level) / 3000) ** 0.5)
    assert marks.p_value(torch.tensor(0.0), 2) == 0 and marks.p_value(torch.tensor(4.0), 2) == 1
    assert marks.p_value(torch.tensor(2.0), 9).item() == pytest.approx(0.5)


def test_the_papers_p_value_says_nearly_the_same_of_normal_noise():
    """Tree-Ring's: the sum of |F - key|^2 / s^2 is noncentral chi-squared if s^2 is the variance."""
    x = noise(400, 8, 16, 16, seed=5)
    found = marks.spectrum(x)[:, KEY != 0]
    scale = found.abs().square().mean(1)
    total = (found - KEY[KEY != 0]).abs().square().sum(1) / scale
    theirs = torch.from_numpy(ncx2.cdf(total.numpy(), PLACES, (PLACES / scale).numpy()))
    ours = marks.p_value(marks.ring_distance(x, KEY), PLACES)
    assert torch.corrcoef(torch.stack([theirs, ours]))[0, 1] > 0.99


def test_the_ring_is_found_in_latents_that_ddim_made():
    """With the exact noise prediction of a normal distribution, DDIM there and back leads to the noise."""
    alpha_bar = torch.linspace(0.999, 0.002, 100)

    def model(x_t, t, cond):  # x0 is normal with variance 1/4
        share = alpha_bar[t].view(-1, 1, 1, 1)
        return (1 - share).sqrt() * x_t / (share / 4 + 1 - share)

    x_T = marks.write_ring(noise(3, 8, 16, 16), KEY)
    times = samplers.trailing_times(100, 50)
    x0 = samplers.finish(samplers.ddim(model, x_T, alpha_bar, times))
    back = samplers.finish(samplers.ddim_inversion(model, x0, alpha_bar, times))
    assert marks.ring_distance(back, KEY).max() < 1e-3


def test_finding_inverts_with_the_empty_prompt_and_no_guidance():
    pipe = tiny_pipeline()
    key = marks.make_key(4, channels=4)
    pictures = book.pictures([book.sample_scene(number) for number in range(2)])
    expected = marks.ring_distance(editing.invert(pipe, pictures, "", guidance=1.0, steps=3), key)
    torch.testing.assert_close(marks.find_ring(pipe, pictures, key, steps=3), expected)


def test_the_dct_mark_is_where_it_should_be_and_can_be_found():
    pages = book.pictures([book.sample_scene(number) for number in range(24)])
    marked = marks.write_dct(pages, 7)
    inner = pages.clamp(-0.7, 0.7)  # nothing is clipped
    added = torch.from_numpy(scipy.fft.dctn((marks.write_dct(inner, 7) - inner).numpy(), axes=(2, 3), norm="ortho"))
    wave = torch.arange(64)[:, None] + torch.arange(64)
    band = (wave >= marks.BAND[0]) & (wave < marks.BAND[1])
    torch.testing.assert_close(
        added[:, :, band].abs(), torch.full((24, 3, int(band.sum())), marks.STRENGTH), atol=1e-4, rtol=0
    )
    assert added[:, :, ~band].abs().max() < 1e-4 and (added[:, :1] - added).abs().max() < 1e-4
    assert psnr(marked, pages).min() > 36
    for found in (marked, saved(marked), as_jpeg(marked, 75)):
        assert (marks.find_dct(found, 7) < marks.find_dct(pages, 7)).all()
        assert marks.find_dct(found, 8).mean().item() == pytest.approx(2, abs=0.03)
    # whose distance to a strange key has the law of the p-value, roughly
    p = marks.p_value(marks.find_dct(pages, 7), int(band.sum()))
    assert 0.2 < p.mean() < 0.8


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: marks.make_key(0, rings=()), "radii from 1 to below 8"),
        (lambda: marks.make_key(0, rings=(0,)), "radii"),
        (lambda: marks.make_key(0, rings=(8,)), "radii"),
        (lambda: marks.write_ring(noise(2, 4, 16, 16), KEY), "a key"),
        (lambda: marks.write_ring(noise(8, 16, 16), KEY), "noise"),
        (lambda: marks.write_ring(noise(2, 8, 16, 16), 2 * KEY), "-1, 0 and 1"),
        (lambda: marks.write_ring(noise(2, 8, 16, 16), KEY.roll(1, -1)), "real"),
        (lambda: marks.ring_distance(noise(2, 8, 16, 16), 0 * KEY), "not 0 everywhere"),
        (lambda: marks.p_value(torch.tensor(5.0), 10), "0 to 4"),
        (lambda: marks.p_value(torch.tensor(1.0), 1), "Two|two numbers"),
        (lambda: marks.write_dct(torch.zeros(1, 3, 32, 32), 0), "smaller"),
        (lambda: marks.find_dct(torch.zeros(3, 64, 64), 0), "pictures"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
