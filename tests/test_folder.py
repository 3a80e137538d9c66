"""A learner's own folder of pictures: what is read, what is skipped, and what is said of it."""

import json
import os
import unicodedata

import numpy
import pytest
from PIL import Image

from course_utils.data import folder


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


def draw(*paths):
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)


@pytest.mark.parametrize(
    "name",
    ["Metadata.jsonl", "METADATA.JSONL", "metadata.csv", "metadata.json", "metadata.jsonl.txt", "metadata",
     "captions.txt", "rex.txt", "rex.caption", "cats/metadata.parquet"],
)  # fmt: skip
def test_captions_that_are_not_used_are_named(tmp_path, capsys, name):
    draw(tmp_path / "rex.png", tmp_path / "cats" / "tom.png")
    (tmp_path / name).write_text(caption("rex.png", "a dog"))
    assert folder.load(tmp_path, size=4).captions is None
    said = f"2. Skipped: 0. Not used: {name}; captions are read only from files named exactly metadata.jsonl.\n"
    assert capsys.readouterr().out.endswith(said)


def test_other_files_and_pictures_are_not_taken_for_captions(tmp_path, capsys):
    draw(tmp_path / "rex.png", tmp_path / "captions.png")
    for name in ("notes.txt", "readme.json", "metadata_old.csv", ".metadata.csv"):
        (tmp_path / name).write_text("")
    folder.load(tmp_path, size=4)
    assert "Not used" not in capsys.readouterr().out


def test_many_unused_captions_are_counted(tmp_path, capsys):
    names = [f"{number}.png" for number in range(5)]
    write_captioned(tmp_path, [caption(name, "a ball") for name in names], names)
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("a ball")
    assert folder.load(tmp_path, size=4).captions == ["a ball"] * 5
    assert ". Not used: 0.txt; 1.txt; 2.txt; and 2 more; captions are read" in capsys.readouterr().out


def test_names_written_on_windows_and_on_a_mac_find_their_pictures(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "chaton né.png") for form in ("NFC", "NFD"))
    names = ("cats/" + decomposed, "cats/" + composed.replace("né", "gâté"), "rex.png")
    lines = [caption("cats\\" + composed, "a kitten"), caption("cats\\chaton gâté.png", "a cat"),
             caption(".\\rex.png", "a dog")]  # fmt: skip
    write_captioned(tmp_path, lines, names)
    result = folder.load(tmp_path, size=4)
    assert dict(zip(result.names, result.captions, strict=True)) == dict(
        zip(names, ["a kitten", "a cat", "a dog"], strict=True)
    )
    assert result.skipped == []


@pytest.mark.skipif(os.name == "nt", reason="in Windows a backslash cannot stand in a name")
def test_a_backslash_in_a_name_is_no_folder_where_the_file_is_there(tmp_path):
    write_captioned(tmp_path, [caption("a\\b.png", "one"), caption("a/b.png", "two")], ("a\\b.png", "a/b.png"))
    result = folder.load(tmp_path, size=4)
    assert dict(zip(result.names, result.captions, strict=True)) == {"a\\b.png": "one", "a/b.png": "two"}


def test_two_names_that_look_alike_are_named_rather_than_guessed(tmp_path):
    names = [unicodedata.normalize(form, "é/ü.png") for form in ("NFD", "NFC")]
    mixed = names[1][0] + names[0][2:]  # a third spelling
    write_captioned(tmp_path, [caption("rex.png", "a dog"), caption(mixed, "one")], ("rex.png", *names))
    if len(list(tmp_path.glob("*/*.png"))) < 2:
        pytest.skip("this file system keeps one spelling only")
    result = folder.load(tmp_path, size=4)
    assert result.names == ["rex.png"]
    assert (mixed, "named in metadata.jsonl, but not found") in result.skipped and len(result.skipped) == 3


def test_names_that_are_not_text_are_read_and_can_be_printed(tmp_path, capsys):
    bad = os.fsdecode(b"bad\xff.png")
    try:
        write_captioned(tmp_path, [json.dumps({"file_name": bad, "text": "a ball"})], (bad, "two\nlines.png"))
    except (OSError, UnicodeError):
        pytest.skip("this file system has only names that are text")
    result = folder.load(tmp_path, size=4)
    assert (result.names, result.captions) == (["bad\\udcff.png"], ["a ball"])
    assert result.skipped == [("two\\nlines.png", "no caption in metadata.jsonl")]
    assert capsys.readouterr().out.count("\n") == 1
    missing = tmp_path / os.fsdecode(b"no\xff")
    with pytest.raises(ValueError) as caught:
        folder.load(missing)
    str(caught.value).encode("utf-8")


def test_a_caption_of_half_a_character_is_refused(tmp_path):
    write_captioned(tmp_path, ['{"file_name": "rex.png", "text": "a \\ud83d ball"}'])
    with pytest.raises(ValueError, match=r"line 1: half a character, .* in the caption a \\ud83d ball\."):
        folder.load(tmp_path)


def refuse(monkeypatch, module, function, path):
    """Let a function of a module, called with this path, find the door closed; modes do not stop an administrator."""
    real = getattr(module, function)

    def closed(given, *arguments, **options):
        if str(given) == str(path):
            raise PermissionError(13, "Permission denied", str(given))
        return real(given, *arguments, **options)

    monkeypatch.setattr(module, function, closed)


def test_a_closed_sub_folder_is_named(tmp_path, monkeypatch):
    draw(tmp_path / "rex.png", tmp_path / "closed" / "tom.png")
    refuse(monkeypatch, os, "scandir", tmp_path / "closed")
    result = folder.load(tmp_path, size=4)
    assert (result.names, result.skipped) == (["rex.png"], [("closed", "cannot be opened: Permission denied")])


def test_closed_metadata_is_one_sentence(tmp_path, monkeypatch):
    write_captioned(tmp_path, [caption("rex.png", "a dog")])
    refuse(monkeypatch, folder.Path, "read_text", tmp_path / "metadata.jsonl")
    with pytest.raises(ValueError, match=r"metadata.jsonl, but it cannot be read \(Permission denied\): make it"):
        folder.load(tmp_path)


def test_a_closed_folder_is_one_sentence(tmp_path, monkeypatch):
    draw(tmp_path / "own" / "rex.png")
    refuse(monkeypatch, os, "scandir", tmp_path / "own")
    with pytest.raises(ValueError, match=r"found none .* Skipped: 1: \. \(cannot be opened: Permission denied\)"):
        folder.load(tmp_path / "own")
    refuse(monkeypatch, os, "stat", tmp_path / "own")
    with pytest.raises(ValueError, match="Expected a folder of pictures, got .*own: Permission denied"):
        folder.load(tmp_path / "own")
    with pytest.raises(ValueError, match="there is nothing of that name"):
        folder.load("~nobody-of-this-name/pictures")


def test_links_are_named_and_not_followed(tmp_path):
    draw(tmp_path / "own" / "rex.png", tmp_path / "others" / "tom.png")
    try:
        (tmp_path / "own" / "linked").symlink_to(tmp_path / "others", target_is_directory=True)
        (tmp_path / "own" / "lost.png").symlink_to(tmp_path / "gone.png")
    except OSError:
        pytest.skip("links cannot be made here")
    result = folder.load(tmp_path / "own", size=4)
    assert result.names == ["rex.png"]
    assert result.skipped == [
        ("linked", "a link to a folder, not followed"),
        ("lost.png", "no file: a link to nothing, or a pipe"),
    ]
