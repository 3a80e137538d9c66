"""The picture-book world: deterministic, truthful, and with a fixed tenth held out."""

import itertools

import pytest
import torch

from course_utils.data import picture_book as book
from course_utils.data.picture_book import places, subjects
from course_utils.data.picture_book.captions import NAMES, PLACE_WORDS, with_article

COMBINATIONS = list(itertools.product(book.SUBJECTS, (None, *book.COLOURS), book.PLACES))


def test_the_world_is_as_large_as_promised():
    assert len(book.SUBJECTS) >= 12 and next(iter(book.SUBJECTS)) == "corgi"
    assert len(book.COLOURS) >= 8 and len(book.PLACES) >= 8
    for kind in book.SUBJECTS:
        assert hasattr(subjects, f"draw_{kind}") and kind in NAMES and kind in book.SIZES
    for place in book.PLACES:
        assert hasattr(places, f"draw_{place}") and place in PLACE_WORDS


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


def test_where_a_thing_stands_is_where_layout_says():
    for n in range(40):
        scene = book.sample_scene(n)
        empty = book.Scene((), scene.place, scene.seed)
        changed = ((book.pictures([scene]) - book.pictures([empty]))[0].abs().amax(0) > 0.25).float()
        (spot,) = book.layout(scene)
        columns = torch.arange(64.0) + 0.5
        assert abs((changed.sum(0) * columns).sum() / changed.sum() / 64 - spot.x) < 0.1
        rows = changed.sum(1).nonzero()
        assert abs(rows.max().item() / 64 - spot.y) < 0.08


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
            assert book.is_held_out(scene.things[0].kind, scene.things[0].colour, scene.place) == wanted


def test_captions_are_true_and_say_a_colour_that_is_not_natural():
    scenes = [book.sample_scene(n) for n in range(200)]
    for scene, k in itertools.product(scenes, range(6)):
        caption = book.caption(scene, k)
        assert caption.is_true_of(scene)
        thing = scene.things[0]
        words = caption.text.split()
        assert any(name in caption.text for name in NAMES[thing.kind])
        if thing.colour and thing.colour != book.SUBJECTS[thing.kind]:
            assert thing.colour in words
        assert not any(colour in words for colour in book.COLOURS if colour != book.seen_colour(thing)
                       and f"in a {colour} meadow" not in caption.text)
        assert (caption.place is None) == (not any(w in caption.text for w in PLACE_WORDS[scene.place]))
        assert caption.thing.pose is None or caption.thing.pose in words


def test_a_caption_is_not_true_of_another_scene():
    scene = book.Scene((book.Thing("cat", "red", "sitting"),), "snow")
    caption = book.caption(scene)
    assert caption.text == "a red cat sitting in the snow"
    for other in (book.Scene((book.Thing("cat", "blue", "sitting"),), "snow"),
                  book.Scene((book.Thing("corgi", "red", "sitting"),), "snow"),
                  book.Scene((book.Thing("cat", "red", "standing"),), "snow"),
                  book.Scene((book.Thing("cat", "red", "sitting"),), "beach")):
        assert not caption.is_true_of(other)


def test_natural_and_named_colour_are_one_where_they_look_alike():
    assert book.caption(book.Scene((book.Thing("ball", "red"),), "beach")).is_true_of(
        book.Scene((book.Thing("ball"),), "beach"))


def test_articles():
    assert with_article("orange corgi") == "an orange corgi" and with_article("red cat") == "a red cat"


@pytest.mark.parametrize("wrong", [
    lambda: book.Scene((book.Thing("dragon"),), "grass"), lambda: book.Scene((book.Thing("cat", "beige"),), "grass"),
    lambda: book.Scene((book.Thing("ball", None, "sitting"),), "grass"), lambda: book.Scene((), "moon"),
    lambda: book.sample_scene(0, split="test"), lambda: book.draw(book.sample_scene(0), 48),
])
def test_what_the_world_does_not_know_is_a_clear_error(wrong):
    with pytest.raises(ValueError, match="expected a"):
        wrong()
