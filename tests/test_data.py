"""Digits, photographs, points, and a learner's own folder."""

import json
import math
import socket

import numpy
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from course_utils.data import digits, folder, images, photos, points

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


# --- a learner's own folder ---


def only_colour(pictures, index):
    """The one colour, as bytes, of a picture that has only one."""
    levels = ((pictures[index] + 1) * 127.5).round().flatten(1)
    assert (levels.max(dim=1).values - levels.min(dim=1).values).max() <= 2
    return levels.mean(dim=1).round().int().tolist()


def test_every_kind_of_picture_is_read(tmp_path):
    Image.new("L", (9, 30), 100).save(tmp_path / "a_grey.png")
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "b_clear.png")
    Image.new("RGBA", (20, 20), (255, 0, 0, 128)).save(tmp_path / "c_half.png")
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "d_cmyk.jpg", quality=100)
    Image.fromarray(numpy.full((12, 14), 257 * 80, numpy.uint16)).save(tmp_path / "e_16bit.png")
    Image.new("P", (8, 8), 1).save(tmp_path / "f_palette.gif", transparency=1)
    Image.new("1", (8, 8), 1).save(tmp_path / "g_one_bit.tif")
    first, second = Image.new("RGB", (8, 8), (0, 0, 255)), Image.new("RGB", (8, 8), (0, 255, 0))
    first.save(tmp_path / "h_moving.gif", save_all=True, append_images=[second])
    Image.new("RGB", (600, 400), (10, 200, 30)).save(tmp_path / "i_LARGE.JPG", quality=100)
    Image.new("RGB", (5, 5), (1, 2, 3)).save(tmp_path / "j.webp", lossless=True)
    result = folder.load(tmp_path, size=16)
    assert result.pictures.shape == (10, 3, 16, 16)
    assert result.skipped == [] and result.captions is None
    colours = [only_colour(result.pictures, index) for index in range(10)]
    grey, clear, half, cmyk, deep, palette, one_bit, moving, large, webp = colours
    assert grey == [100] * 3 and deep == [80] * 3
    assert clear == [255] * 3 and palette == [255] * 3 and one_bit == [255] * 3
    assert half == [255, 127, 127]
    assert cmyk[0] > 200 and max(cmyk[1:]) < 60
    assert moving == [0, 0, 255]
    assert numpy.abs(numpy.subtract(large, [10, 200, 30])).max() <= 3
    assert webp == [1, 2, 3]


def test_exif_rotation_is_applied(tmp_path):
    picture = Image.new("RGB", (40, 40), "blue")
    picture.paste("red", (0, 0, 40, 20))  # red above, as the sensor saw it
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise, for viewing
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    shown = folder.load(tmp_path, size=8).pictures[0]
    assert shown[0, 4, 7] > 0.8 and shown[2, 4, 7] < -0.8  # red on the right
    assert shown[2, 4, 0] > 0.8 and shown[0, 4, 0] < -0.8


def test_sub_folders_order_and_what_is_passed_over(tmp_path, capsys):
    for name in ("b/2.png", "b/10.png", "a.png", ".hidden/x.png", "__MACOSX/._a.png", "._a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    result = folder.load(str(tmp_path), size=4)
    assert result.names == ["a.png", "b/10.png", "b/2.png"]
    assert result.skipped == []
    assert capsys.readouterr().out == f"Pictures read from {tmp_path}: 3. Skipped: 0.\n"


def test_damaged_files_are_skipped_by_name(tmp_path, capsys, monkeypatch):
    noise = numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=numpy.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:2000])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("this is no picture")
    (tmp_path / "phone.HEIC").write_bytes(b"....ftypheic")
    Image.new("F", (4, 4)).save(tmp_path / "float.tif")
    Image.new("RGB", (200, 100)).save(tmp_path / "huge.png")
    Image.new("RGB", (150, 50)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 + 1)
    result = folder.load(tmp_path, size=8)
    assert result.names == ["good.png", "whole.jpg"]
    reasons = dict(result.skipped)
    expected = {
        "cut.jpg": "truncated",
        "cut.png": "cannot be read",
        "empty.png": "not a picture",
        "text.jpg": "not a picture",
        "phone.HEIC": "save it as JPEG",
        "float.tif": "8 bits",
        "huge.png": "more than 4,097 pixels",
        "large.png": "more than 4,097 pixels",
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name]
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert ": 2. Skipped: 8: cut.jpg (" in line and line.endswith("and 5 more.\n")


def write_captioned(root, lines, names=("rex.png", "cats/tom.png"), encoding="utf-8"):
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)
    (root / "metadata.jsonl").write_text("\n".join(lines), encoding=encoding)


def caption(file_name, text):
    return json.dumps({"file_name": file_name, "text": text, "split": "train"}, ensure_ascii=False)


def test_captions_find_their_pictures(tmp_path):
    lines = [caption("rex.png", "ein Hund, süß\u2028und müde"), "", caption("./cats/tom.png", "a cat")]
    write_captioned(tmp_path, lines, encoding="utf-8-sig")
    (tmp_path / "more").mkdir()
    write_captioned(tmp_path / "more", [caption("a.png", "a ball")], names=("a.png",))
    result = folder.load(tmp_path, size=4)
    assert result.names == ["cats/tom.png", "more/a.png", "rex.png"]
    assert result.captions == ["a cat", "a ball", "ein Hund, süß\u2028und müde"]


def test_captions_and_pictures_without_each_other_are_skipped(tmp_path):
    write_captioned(tmp_path, [caption("rex.png", "a dog"), caption("lost.png", "a ghost")])
    result = folder.load(tmp_path, size=4)
    assert (result.names, result.captions, len(result.pictures)) == (["rex.png"], ["a dog"], 1)
    assert result.skipped == [
        ("cats/tom.png", "no caption in metadata.jsonl"),
        ("lost.png", "named in metadata.jsonl, but not found"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{file_name: rex.png}", "metadata.jsonl, line 2: expected an object like"),
        ('["rex.png", "a dog"]', "line 2: expected two texts"),
        ('{"file_name": "rex.png"}', "line 2: expected two texts"),
        ('{"file_name": "rex.png", "text": 3}', "line 2: expected two texts"),
        (caption("cats/tom.png", "again"), "line 2: a second caption for cats/tom.png"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, message):
    write_captioned(tmp_path, [caption("cats/tom.png", "a cat"), line])
    with pytest.raises(ValueError, match=message):
        folder.load(tmp_path)


def test_metadata_in_another_encoding_is_refused(tmp_path):
    write_captioned(tmp_path, [caption("rex.png", "süß")], encoding="utf-16")
    with pytest.raises(ValueError, match="save it again as UTF-8"):
        folder.load(tmp_path)


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "file.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for path, message in [
        (tmp_path / "missing", "there is nothing of that name. Looked in"),
        (tmp_path / "file.png", "it is a file"),
        (tmp_path / "empty", r"Expected pictures \(\.png .*found none"),
        (tmp_path, r"found none that can be used.*Skipped: 1: file.png \(not a picture"),
    ]:
        with pytest.raises(ValueError, match=message):
            folder.load(path)
    with pytest.raises(ValueError, match="at least 1"):
        folder.load(tmp_path, size=0)
