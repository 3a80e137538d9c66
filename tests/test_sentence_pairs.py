"""Pairs of sentences: both languages say the same of a scene, and no more than it shows."""

import itertools
import re

import pytest

from course_utils.data import picture_book as book
from course_utils.data.picture_book import sentence_pairs
from course_utils.data.picture_book.chinese import to_english
from course_utils.data.picture_book.sentence_pairs import sentence_pair


def scenes(number, split="all"):
    return [book.sample_scene(n, 3, split) for n in range(number)]


@pytest.mark.parametrize("seed", range(4))
def test_the_dictionary_reads_each_chinese_sentence_as_its_english_one(seed):
    for scene in scenes(500):
        pair = sentence_pair(scene, seed)
        english = to_english(pair.chinese)
        assert english.text == pair.english.text and not english.unknown, pair.chinese


def test_every_subject_colour_place_pose_style_and_number_has_its_words():
    for kind, colour, place, style in itertools.product(book.SUBJECTS, (None, *book.COLOURS), book.PLACES, book.STYLES):
        for pose, count in itertools.product((None, *book.POSES.get(kind, ())), (1, 2, 3)):
            scene = book.Scene((book.Thing(kind, colour, pose),) * count, place, 0, style)
            pair = sentence_pair(scene, count)
            assert to_english(pair.chinese).text == pair.english.text == book.caption(scene).text


def test_the_english_sentence_is_true_and_names_everything_but_the_second_pose():
    for scene in scenes(500):
        said = sentence_pair(scene).english
        assert said.is_true_of(scene)
        assert said.place == scene.place and (said.style or "picture book") == scene.style
        assert said.things[0] in scene.things and len(said.things) == len(scene.things)
        assert bool(said.relation) == bool(scene.relation)


@pytest.mark.parametrize("relation", book.RELATIONS)
def test_two_things_come_in_both_orders_and_several_wordings(relation):
    scene = book.Scene((book.Thing("ball", "red"), book.Thing("house", "blue")), "snow", 0, relation=relation)
    pairs = [sentence_pair(scene, seed) for seed in range(60)]
    assert {pair.english.relation for pair in pairs} == {relation, book.OPPOSITE[relation]}
    assert {pair.english.things[0].kind for pair in pairs} == {"ball", "house"}
    assert len({pair.chinese for pair in pairs}) > 20
    assert any(re.search("的..是", pair.chinese) for pair in pairs)


def test_the_seed_chooses_the_wording_and_nothing_else():
    scene = book.sample_scene(0, 3)
    assert sentence_pair(scene, 5) == sentence_pair(scene, 5)
    alone = book.Scene((book.Thing("cat", "red", "sitting"),), "grass", 0)
    pairs = [sentence_pair(alone, seed) for seed in range(40)]
    assert {pair.english.text for pair in pairs} == {"a red cat sitting on the grass"}
    assert len({pair.chinese for pair in pairs}) > 8


def test_no_word_is_missing():
    assert list(sentence_pairs.CHINESE_NAMES) == list(book.SUBJECTS)
    assert list(sentence_pairs.CHINESE_COLOURS) == list(book.COLOURS)
    assert list(sentence_pairs.CHINESE_PLACES) == list(book.PLACES)
    assert list(sentence_pairs.CHINESE_POSES) == list(book.ALL_POSES)
    assert set(sentence_pairs.CHINESE_STYLES) == set(book.STYLES) - {"picture book"}
    assert set(sentence_pairs.CHINESE_SIDES) == set(book.OPPOSITE)
