"""Pictures and tensors, digits, photographs, points."""

import math
import socket

import numpy
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from course_utils.data import digits, images, photos, points

# --- between tensors and pictures ---


def test_bytes_survive_the_round_trip_and_span_minus_one_to_one():
    levels = numpy.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=numpy.uint8)
    levels[0, 0], levels[0, 1] = 0, 255
    tensor = images.to_tensor([Image.fromarray(levels), levels])
    assert tensor.shape == (2, 3, 5, 7)
    assert tensor.dtype == torch.float32
    assert tensor.min() == -1 and tensor.max() == 1
    for picture in images.to_pil(tensor):
        assert numpy.array_equal(numpy.asarray(picture), levels)
    assert tensor[0, 2, 4, 1].item() == pytest.approx(2 * int(levels[4, 1, 2]) / 255 - 1)


def test_values_are_rounded_and_clipped():
    tensor = torch.tensor([-1.5, -1 + 0.9 / 127.5, 0.2, 3.0], requires_grad=True).reshape(1, 1, 1, 4)
    picture = images.to_pil(tensor.to(torch.float64))[0]
    assert picture.mode == "L"
    assert numpy.asarray(picture).tolist() == [[0, 1, 153, 255]]


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(3, 4, 4), "batch axis"),
        (torch.zeros(1, 2, 4, 4), "1 or 3"),
        (torch.zeros(0, 3, 4, 4), "none 0"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "uint8"),
        (torch.full((2, 3, 4, 4), math.nan), "2 of 2 pictures.*diverged"),
    ],
)
def test_to_pil_refuses(pictures, message):
    with pytest.raises(ValueError, match=message):
        images.to_pil(pictures)


def test_to_tensor_refuses():
    square, oblong = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 6))
    for bad, message in [
        ([], "empty list"),
        ([square, oblong], "one size.*Give size="),
        (["cat.png"], "got str"),
        (numpy.zeros((4, 4, 3), dtype=numpy.float32), "uint8.*got float32"),
    ]:
        with pytest.raises(ValueError, match=message):
            images.to_tensor(bad)
    with pytest.raises(ValueError, match="at least 1"):
        images.to_tensor(square, size=0)
    assert images.to_tensor([square, oblong], size=3).shape == (2, 3, 3, 3)


def test_the_square_is_cut_from_the_centre_and_nothing_is_aliased():
    wide = Image.new("RGB", (30, 10), "red")
    wide.paste("lime", (10, 0, 20, 10))
    assert images.crop_and_resize(wide, 5).getcolors() == [(25, (0, 255, 0))]
    stripes = Image.fromarray((numpy.arange(64) % 2 * 255).astype(numpy.uint8)[None].repeat(64, axis=0))
    small = numpy.asarray(images.crop_and_resize(stripes.convert("RGB"), 16))[4:12, 4:12]
    assert abs(small.astype(int) - 127).max() <= 4  # every other line picked would be 0 or 255


def test_recolour_exchanges_red_and_blue_inside_the_mask_only():
    pictures, mask = torch.rand(2, 3, 4, 5) * 2 - 1, torch.zeros(1, 1, 4, 5)
    mask[..., 1:3, 2:] = 1
    before, inside = pictures.clone(), mask.expand(2, 3, 4, 5) > 0.5
    got = images.recolour(pictures, mask)
    assert torch.equal(got[~inside], pictures[~inside]) and torch.equal(pictures, before)
    assert torch.equal(got[:, 0, 1:3, 2:], pictures[:, 2, 1:3, 2:])
    assert torch.equal(got[:, 1], pictures[:, 1])
    assert torch.equal(images.recolour(got, mask), pictures)
    for wrong in (mask[0], mask[..., :3], mask.expand(3, 1, 4, 5), mask.expand(1, 3, 4, 5)):
        with pytest.raises(ValueError, match="Expected pictures"):
            images.recolour(pictures, wrong)


# --- digits ---


def test_digits_of_size_8_hold_the_exact_levels():
    pictures, labels = digits.load(size=8, split="train")
    levels = digits.levels("train")
    assert torch.equal((pictures[:, 0] + 1) * 8, levels.float())
    assert levels.dtype == torch.int64 and levels.unique().tolist() == list(range(17))
    assert labels.dtype == torch.int64 and labels.shape == (len(levels),)


def test_the_two_splits_share_out_all_digits():
    train, train_labels = digits.load(size=8, split="train")
    test, test_labels = digits.load(size=8, split="test")
    together = torch.cat([digits.levels("train"), digits.levels("test")]).flatten(1)
    recorded = torch.tensor(load_digits().data, dtype=torch.int64)
    assert sorted(together.tolist()) == sorted(recorded.tolist())
    assert len(train) == 1440 and len(test) == 357
    assert train_labels.bincount().min() > 130 and test_labels.bincount().min() > 30


def test_digits_keep_their_labels():
    everything = {tuple(row): label for row, label in zip(*load_digits(return_X_y=True), strict=True)}
    for split in ("train", "test"):
        _, labels = digits.load(split=split)
        rows = digits.levels(split).flatten(1).double().tolist()
        assert [everything[tuple(row)] for row in rows] == labels.tolist()


def test_larger_digits_are_the_same_digits():
    small, large = digits.load(size=8)[0], digits.load()[0]
    assert large.shape == (1440, 1, 16, 16)
    assert large.min() >= -1 and large.max() <= 1
    # The middle of fine pixel 4 lies a quarter of a coarse pixel above that of coarse pixel 2; 7 below 3.
    rows = 0.75 * small[:, 0, 2] + 0.25 * small[:, 0, 1]
    assert torch.allclose(large[:, 0, 4, 7], 0.75 * rows[:, 3] + 0.25 * rows[:, 4], atol=1e-6)


def test_digits_refuse():
    for arguments, message in [({"size": 7}, "at least 8"), ({"split": "valid"}, '"train" or "test"')]:
        with pytest.raises(ValueError, match=message):
            digits.load(**arguments)


# --- photographs ---


@pytest.mark.parametrize("name", photos.NAMES)
def test_photographs_need_no_network(name, monkeypatch):
    def no_network(*arguments):
        raise AssertionError("a photograph asked for the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    picture = photos.load(name, size=64)
    assert picture.shape == (1, 3, 64, 64)
    assert picture.min() < -0.8 and picture.max() > 0.6
    assert torch.equal(picture, photos.load(name, size=64))


def test_the_photographs_are_three_and_others_are_refused():
    three = [photos.load(name, size=16) for name in photos.NAMES]
    assert not torch.equal(three[0], three[1]) and not torch.equal(three[1], three[2])
    with pytest.raises(ValueError, match="chelsea, astronaut, coffee, got 'lena'"):
        photos.load("lena")


# --- points ---

SETS = [points.swiss_roll, points.two_moons, points.gaussian_ring, points.checkerboard]


@pytest.mark.parametrize("draw", SETS)
def test_points_are_centred_of_unit_variance_and_repeatable(draw):
    sample = draw(40_000, torch.Generator().manual_seed(3))
    assert sample.shape == (40_000, 2) and sample.dtype == torch.float32
    assert sample.mean(dim=0).abs().max() < 0.03
    assert sample.var(dim=0).mean().item() == pytest.approx(1, abs=0.02)
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(draw(50, generator), draw(50, torch.Generator().manual_seed(3)))
    assert not torch.equal(draw(50, generator), draw(50, torch.Generator().manual_seed(3)))


def test_every_mode_of_the_ring_has_its_share_and_its_spread():
    sample = points.gaussian_ring(20_000, torch.Generator().manual_seed(0), modes=5, spread=0.2)
    distance, nearest = torch.cdist(sample, points.ring_centres(5, 0.2)).min(dim=1)
    assert nearest.bincount(minlength=5).float().div(20_000).sub(0.2).abs().max() < 0.02
    assert (distance**2).mean().item() == pytest.approx(2 * 0.2**2, rel=0.05)


def test_the_checkerboard_leaves_the_light_squares_empty():
    sample = points.checkerboard(5_000, torch.Generator().manual_seed(0))
    square = ((sample / math.sqrt(3) + 1) / 2 * 4).floor().long()
    assert (square.sum(dim=1) % 2 == 0).all()
    assert square.min() == 0 and square.max() == 3
    assert len(square.unique(dim=0)) == 8


def test_curves_lie_where_the_formula_says():
    roll = points.swiss_roll(500, torch.Generator().manual_seed(0), spread=0.0) * 6.789
    x, y = roll[:, 0] + 2, roll[:, 1] + 2 / (3 * math.pi)
    radius = (x**2 + y**2).sqrt()
    assert torch.allclose(x, radius * radius.cos(), atol=1e-3)
    moons = points.two_moons(500, torch.Generator().manual_seed(0), spread=0.0)
    scale = moons.abs().max(dim=0).values[0] / 1.5
    upper = ((moons / scale - torch.tensor([-0.5, -0.25])).norm(dim=1) - 1).abs()
    lower = ((moons / scale - torch.tensor([0.5, 0.25])).norm(dim=1) - 1).abs()
    assert torch.minimum(upper, lower).max() < 0.01


def test_points_refuse():
    generator = torch.Generator()
    for bad in (lambda: points.gaussian_ring(9, generator, modes=1), lambda: points.ring_centres(8, 1.0)):
        with pytest.raises(ValueError, match="modes >= 2"):
            bad()
    with pytest.raises(ValueError, match="even number"):
        points.checkerboard(9, generator, squares=3)
