"""The picture-book world: deterministic, truthful, and with a fixed tenth held out."""

import dataclasses
import hashlib
import itertools
import re

import pytest
import torch

from course_utils.data import picture_book as book
from course_utils.data.picture_book import places, subjects
from course_utils.data.picture_book.captions import NAMES, PLACE_WORDS, STYLE_WORDS, plural, with_article

COMBINATIONS = list(itertools.product(book.SUBJECTS, (None, *book.COLOURS), book.PLACES))


def test_the_world_is_as_large_as_promised():
    assert len(book.SUBJECTS) >= 12 and next(iter(book.SUBJECTS)) == "corgi"
    assert len(book.COLOURS) >= 8 and len(book.PLACES) >= 8
    for kind in book.SUBJECTS:
        assert hasattr(subjects, f"draw_{kind}") and kind in NAMES and kind in book.SIZES
    for place in book.PLACES:
        assert hasattr(places, f"draw_{place}") and place in PLACE_WORDS


def test_pages_and_captions_are_those_the_shipped_parts_were_trained_on():
    """Only the styles that compute in whole numbers: their pages are the same on every machine."""
    scenes = [book.sample_scene(n, split=split) for n in range(40) for split in ("train", "held out", "all")]
    told = [(scene, [book.caption(scene, k) for k in (None, 0, 1)]) for scene in scenes]
    assert _digest(repr(told).encode()) == "228b7c1d6bf7dac6"
    drawn = [scene for scene in scenes if scene.style in ("picture book", "pixel art")]
    assert _digest(b"".join(book.draw(scene).tobytes() for scene in drawn)) == "79bccdb8f97ac3f6"


def _digest(content):
    return hashlib.sha256(content).hexdigest()[:16]


def test_the_same_scene_is_the_same_picture_and_another_seed_is_another():
    scene = book.sample_scene(5)
    assert book.sample_scene(5) == scene
    first, second = book.pictures([scene, scene])
    assert torch.equal(first, second)
    other = book.Scene(scene.things, scene.place, scene.seed + 1)
    assert (book.pictures([other])[0] - first).abs().mean() > 0.01


@pytest.mark.parametrize("size", [32, 64])
def test_pictures_are_tensors_in_range(size):
    pictures = book.pictures([book.sample_scene(n) for n in range(4)], size)
    assert pictures.shape == (4, 3, size, size) and pictures.dtype == torch.float32
    assert -1 <= pictures.min() < -0.3 and 0.3 < pictures.max() <= 1


def test_every_subject_colour_and_pose_can_be_drawn_and_shows():
    for kind, colour in itertools.product(book.SUBJECTS, (None, *book.COLOURS)):
        for pose in book.POSES.get(kind, (None,)):
            thing = book.Thing(kind, colour, pose)
            with_it = book.pictures([book.Scene((thing,), "room", 3)])[0]
            without = book.pictures([book.Scene((), "room", 3)])[0]
            assert ((with_it - without).abs().amax(0) > 0.2).float().mean() > 0.04, thing


def test_the_colour_named_is_the_colour_seen():
    for kind, (name, rgb) in itertools.product(book.SUBJECTS, book.COLOURS.items()):
        pose = book.POSES.get(kind, (None,))[0]
        picture = book.pictures([book.Scene((book.Thing(kind, name, pose),), "snow", 11)])[0]
        wanted = torch.tensor(rgb).view(3, 1, 1) / 127.5 - 1
        assert ((picture - wanted).abs().amax(0) < 0.12).float().mean() > 0.012, (kind, name)


@pytest.mark.parametrize("style", book.STYLES)
def test_where_a_thing_stands_is_where_layout_says(style):
    """Each thing covers the cells around the centre that layout gives it, and stays inside the picture."""
    for n in range(60):
        sampled = book.sample_scene(n)
        scene = book.Scene(sampled.things, sampled.place, sampled.seed, style, sampled.relation)
        changed = _changed_by_things(scene)
        assert changed[:, :2].mean() < 0.35 and changed[:, -2:].mean() < 0.35, scene
        for spot in book.layout(scene):
            x, y = (at * 64 for at in spot.centre)
            near = changed[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
            assert near.mean() > 0.5, scene


def _changed_by_things(scene):
    """Where the picture with its things differs from the empty place, (64, 64)."""
    empty = book.Scene((), scene.place, scene.seed, scene.style)
    return ((book.pictures([scene]) - book.pictures([empty]))[0].abs().amax(0) > 0.12).float()


def _grown(picture, by=1):
    """The largest value among a pixel and those up to `by` pixels away."""
    return torch.nn.functional.max_pool2d(picture[None].float(), 2 * by + 1, stride=1, padding=by)[0]


def _flat(scene, **changes):
    """The scene in the style that leaves the drawing as it is."""
    return dataclasses.replace(scene, style="picture book", **changes)


@pytest.mark.parametrize("size", [32, 64])
def test_a_page_differs_from_its_place_only_where_things_shadows_and_clouds_are(size):
    rows, columns = ((torch.arange(size) + 0.5) / size).view(-1, 1), ((torch.arange(size) + 0.5) / size).view(1, -1)
    for n in range(60):
        scene = _flat(book.sample_scene(n))
        with_them, without = book.pictures([scene, _flat(scene, things=(), relation=None)], size)
        maps = book.maps(scene, size)
        allowed = (_grown(maps.things > 0) > 0) | (maps.lines[0] > 0)  # a whisker covers less than half of a pixel
        for spot in book.layout(scene):
            x, below = (columns - spot.x) / spot.unit, (rows - spot.y) / spot.unit
            edge = 1 / size / spot.unit
            allowed |= (x.abs() < 0.42 + edge) & (below.abs() < 0.075 + edge)
            if spot.cloud:
                allowed |= (x.abs() < 0.66 + edge) & (below > -0.1 - edge) & (below < 0.36 + edge)
        assert torch.equal(with_them[:, ~allowed], without[:, ~allowed]), scene


def test_where_the_map_has_a_thing_the_page_has_its_colour():
    """Two pages that differ only in a thing's colour differ only where its map is, and over most of it."""
    for n in range(60):
        scene = _flat(book.sample_scene(n))
        if len(scene.things) == 1 or scene.relation:
            for number, thing in enumerate(scene.things, 1):
                others = scene.things[: number - 1], scene.things[number:]
                red, blue = (
                    _flat(scene, things=(*others[0], book.Thing(thing.kind, colour, thing.pose), *others[1]))
                    for colour in ("red", "blue")
                )
                maps, other = book.maps(red), book.maps(blue)
                assert torch.equal(maps.things, other.things) and torch.equal(maps.lines, other.lines)
                first, second = book.pictures([red, blue])
                changed = (first != second).any(0)
                covered = maps.things == number
                assert not changed[_grown(covered) == 0].any(), scene
                assert changed[covered].float().mean() > (0.25 if thing.kind in ("house", "tulip") else 0.4), scene


def test_each_thing_has_its_number_where_layout_puts_it_and_the_depth_of_its_foot():
    for n in range(150):
        scene = book.sample_scene(n)
        maps, spots = book.maps(scene), book.layout(scene)
        assert maps.things.dtype == torch.int64 and maps.things.max() == len(scene.things)
        for number, spot in enumerate(spots, 1):
            covered = maps.things == number
            assert covered.sum() > 40, scene
            assert torch.allclose(maps.depth[covered], torch.tensor(spot.y)), scene
            y, x = (covered.nonzero() + 0.5).T / 64
            assert x.mean() == pytest.approx(spot.x, abs=0.08) and spot.y - 1.2 * spot.unit < y.min(), scene
            assert y.max() == pytest.approx(spot.y, abs=0.04), scene
        assert not maps.depth[maps.things == 0].any() and maps.depth.min() >= 0 and maps.depth.max() <= 1
        for near, far in itertools.permutations(range(len(spots)), 2):
            if spots[near].y > spots[far].y:
                assert maps.depth[maps.things == near + 1].min() > maps.depth[maps.things == far + 1].max()


def test_the_nearer_of_two_things_covers_the_other(monkeypatch):
    for feet in ((0.7, 0.9), (0.9, 0.7)):
        near = 1 + (feet[1] > feet[0])
        monkeypatch.setattr(book, "layout", lambda scene, feet=feet: [book.Spot(0.5, y, 0.5, False) for y in feet])
        things = book.maps(book.Scene((book.Thing("ball"),) * 2, "grass")).things
        areas = [(things == number).sum() for number in (near, 3 - near)]
        assert things[int(0.6 * 64), 32] == near and areas[0] > 1.2 * areas[1] > 0


@pytest.mark.parametrize("size", [32, 64])
def test_lines_are_a_drawing_of_the_things_alone(size):
    for n in range(60):
        scene = book.sample_scene(n)
        maps = book.maps(scene, size)
        assert maps.lines.shape == (1, size, size) and maps.lines.dtype == torch.float32
        assert maps.lines.min() == 0 and 0.9 < maps.lines.max() <= 1
        covered = (maps.things > 0).float()
        assert not maps.lines[0][_grown(covered, by=3) == 0].any(), scene  # a cat's whiskers reach so far
        edge = covered - (1 - _grown(1 - covered))  # the outermost pixels of things
        assert (_grown(maps.lines[0])[edge > 0] > 0.5).float().mean() > 0.8, scene
        assert maps.lines[0][covered > 0].mean() < 0.8, scene
    nothing = book.maps(book.Scene((), "beach"), size)
    assert not any(picture.any() for picture in (nothing.lines, nothing.things, nothing.depth))


def test_lines_are_the_same_in_every_place_colour_and_style():
    """What a drawing does not show is left to the words."""
    for kind in book.SUBJECTS:
        pose = book.POSES.get(kind, (None,))[-1]
        drawings = [
            book.maps(book.Scene((book.Thing(kind, colour, pose),), "room", 4, style)).lines
            for style in book.STYLES
            for colour in (None, *book.COLOURS)
            if colour != "white"  # on which lights are not seen
        ]
        assert all(torch.equal(drawings[0], drawing) for drawing in drawings), kind


def test_things_stand_in_their_relation_and_do_not_hide_each_other():
    for n in range(300):
        scene = book.sample_scene(n)
        spots = book.layout(scene)
        if scene.relation == "left of":
            assert spots[1].x - spots[0].x > 0.3
        elif scene.relation == "above":
            assert spots[1].y - spots[0].y > 0.35 and spots[0].cloud and not spots[1].cloud
        else:
            assert all(right.x - left.x > 0.2 for left, right in itertools.pairwise(spots))


def test_each_style_looks_different_and_the_page_of_one_style_looks_alike():
    scene = book.sample_scene(3)
    pages = [
        book.pictures([book.Scene(scene.things, scene.place, 1, style, scene.relation)])[0] for style in book.STYLES
    ]
    for first, second in itertools.combinations(pages, 2):
        assert (first - second).abs().mean() > 0.03
    blocks = pages[list(book.STYLES).index("pixel art")]
    assert torch.equal(blocks[:, ::2, ::2], blocks[:, 1::2, 1::2])


def test_a_tenth_is_held_out_and_every_pair_is_trained_on():
    held_out = [c for c in COMBINATIONS if book.is_held_out(*c)]
    assert 0.09 < len(held_out) / len(COMBINATIONS) < 0.11
    assert not book.is_held_out("corgi", None, "grass")
    seen = [c for c in COMBINATIONS if not book.is_held_out(*c)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        pairs = {(c[first], c[second]) for c in COMBINATIONS}
        assert {(c[first], c[second]) for c in seen} == pairs


def test_a_natural_colour_that_has_a_name_is_held_out_under_both_names():
    for kind, colour in book.SUBJECTS.items():
        if colour:
            for place in book.PLACES:
                assert book.is_held_out(kind, None, place) == book.is_held_out(kind, colour, place), (kind, place)


def test_the_splits_keep_to_their_combinations():
    for n in range(300):
        for split, wanted in (("train", False), ("held out", True)):
            scene = book.sample_scene(n, split=split)
            assert any(book.is_held_out(thing.kind, thing.colour, scene.place) for thing in scene.things) == wanted


def test_data_holds_every_kind_of_scene():
    scenes = [book.sample_scene(n) for n in range(600)]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
    assert {scene.relation for scene in scenes} == {None, *book.RELATIONS}
    assert {scene.style for scene in scenes} == set(book.STYLES)
    assert sum(scene.relation is not None for scene in scenes) > 100


def test_captions_are_true_and_name_what_is_not_as_usual():
    for scene, k in itertools.product([book.sample_scene(n) for n in range(400)], range(6)):
        caption = book.caption(scene, k)
        assert caption.is_true_of(scene), caption
        words = re.findall("[a-z]+", caption.text)
        for thing in scene.things:
            assert any(name in caption.text.replace("ies", "y") for name in NAMES[thing.kind]), caption
            if thing.colour and thing.colour != book.SUBJECTS[thing.kind]:
                assert thing.colour in words
        meadow = {"green"} if "green meadow" in caption.text else set()
        assert set(words) & set(book.COLOURS) <= {book.seen_colour(thing) for thing in scene.things} | meadow
        for number, word in ((2, "two"), (3, "three")):
            assert (word in words) == (len(scene.things) == number and scene.relation is None)
        assert (caption.style is None) == (
            not any(pattern.replace("{}", "").strip(", ") in caption.text for pattern in STYLE_WORDS[scene.style])
        )
        assert scene.style == "picture book" or caption.style
        assert all(thing.pose in (None, *words) for thing in caption.things)


def test_a_caption_says_who_is_where():
    corgi, cat = book.Thing("corgi", "red", "sitting"), book.Thing("cat", None, "sleeping")
    scene = book.Scene((corgi, cat), "snow", 3, "watercolour", "left of")
    assert book.caption(scene).text == ("a red corgi puppy sitting left of a cat sleeping in the snow, watercolour")
    told = {book.caption(scene, k).relation for k in range(40)}
    assert told == {"left of", "right of", None}
    other = book.Scene((cat, corgi), "snow", 3, "watercolour", "left of")
    for k in range(40):
        caption = book.caption(scene, k)
        assert caption.is_true_of(other) == (caption.relation is None), caption
    three = book.Scene((corgi,) * 3, "beach")
    assert book.caption(three).text == "three red corgi puppies sitting on the beach"
    assert not book.caption(three).is_true_of(book.Scene((corgi,) * 2, "beach"))


def test_a_caption_is_not_true_of_another_scene():
    scene = book.Scene((book.Thing("cat", "red", "sitting"),), "snow")
    caption = book.caption(scene)
    assert caption.text == "a red cat sitting in the snow"
    for other in (
        book.Scene((book.Thing("cat", "blue", "sitting"),), "snow"),
        book.Scene((book.Thing("corgi", "red", "sitting"),), "snow"),
        book.Scene((book.Thing("cat", "red", "standing"),), "snow"),
        book.Scene((book.Thing("cat", "red", "sitting"),) * 2, "snow"),
        book.Scene((book.Thing("cat", "red", "sitting"),), "beach"),
    ):
        assert not caption.is_true_of(other)


def test_natural_and_named_colour_are_one_where_they_look_alike():
    assert book.caption(book.Scene((book.Thing("ball", "red"),), "beach")).is_true_of(
        book.Scene((book.Thing("ball"),), "beach")
    )


def test_articles_and_plurals():
    assert with_article("orange corgi") == "an orange corgi" and with_article("red cat") == "a red cat"
    assert [plural(name) for name in ("corgi puppy", "bunny", "tree")] == ["corgi puppies", "bunnies", "trees"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: book.Scene((book.Thing("dragon"),), "grass"),
        lambda: book.Scene((book.Thing("cat", "beige"),), "grass"),
        lambda: book.Scene((book.Thing("ball", None, "sitting"),), "grass"),
        lambda: book.Scene((), "moon"),
        lambda: book.sample_scene(0, split="test"),
        lambda: book.Scene((book.Thing("ball"), book.Thing("car")), "grass"),
        lambda: book.Scene((book.Thing("ball"), book.Thing("ball", "blue")), "grass", 0, "watercolour", "above"),
        lambda: book.Scene((book.Thing("ball"),), "grass", 0, "oil"),
        lambda: book.Scene((book.Thing("ball"),) * 4, "grass"),
        lambda: book.draw(book.sample_scene(0), 48),
        lambda: book.maps(book.sample_scene(0), 16),
    ],
)
def test_what_the_world_does_not_know_is_a_clear_error(wrong):
    with pytest.raises(ValueError, match="expected (a|up to three)"):
        wrong()
