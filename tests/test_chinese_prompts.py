"""Chinese prompts: every combination of the picture book's words gives the caption that says the same."""

import itertools

import pytest
from test_cli import refused, run

from course_utils.data import picture_book as book
from course_utils.data.picture_book.captions import OPPOSITE, PLACE_WORDS
from course_utils.data.picture_book.chinese import (
    COLOURS,
    COUNTS,
    PLACES,
    POSES,
    PRAISE,
    SIDES,
    STYLES,
    SUBJECTS,
    WORDS,
    English,
    to_english,
)
from course_utils.text.prompts import inspect_prompt


def first(table, meaning):
    return table[meaning].split()[0]


def in_chinese(thing, count):
    colour = f"{first(COLOURS, thing.colour)}色的" if thing.colour else ""
    return f"{first(COUNTS, count)}只{colour}{first(SUBJECTS, thing.kind)}"


@pytest.mark.parametrize("kind", SUBJECTS)
def test_every_combination_of_one_subject(kind):
    poses = (None, *book.POSES.get(kind, ()))
    ways = itertools.product((None, *COLOURS), poses, PLACES, STYLES, COUNTS)
    for colour, pose, place, style, count in ways:
        scene = book.Scene((book.Thing(kind, colour, pose),) * count, place, 0, style=style)
        manner = f"{first(POSES, pose)}着，" if pose else ""
        said = f"{in_chinese(scene.things[0], count)}{manner}在{first(PLACES, place)}，{first(STYLES, style)}"
        english = to_english(said)
        wanted = book.caption(scene).text
        if style == "picture book":
            wanted += ", picture book"
        assert english.text == wanted and not english.unknown, said


@pytest.mark.parametrize("side", SIDES)
def test_every_pair_and_each_way_to_say_where(side):
    for one, other in itertools.permutations(SUBJECTS, 2):
        colours = iter(COLOURS)
        things = book.Thing(one, next(colours)), book.Thing(other, next(colours))
        a, b = (in_chinese(thing, 1) for thing in things)
        for word in SIDES[side].split():
            wanted = to_english(f"{a}在{b}的{word}，雪地里").text
            assert f" {side} " in wanted and wanted.endswith(PLACE_WORDS["snow"][0])
            assert to_english(f"{a}在{word}，{b}在{first(SIDES, OPPOSITE[side])}，雪地里").text == wanted
            turned = to_english(f"{b}的{word}是{a}，雪地里").text
            assert f" {OPPOSITE[side]} " in turned and turned.index(f" {OPPOSITE[side]} ") > turned.index(
                things[1].colour
            )


def test_every_word_of_the_dictionary_is_found_and_gives_words_that_the_model_knows():
    from course_utils.pipelines.picture_book import load_picture_book

    tokenizer = load_picture_book().tokenizer
    for table in (SUBJECTS, COLOURS, PLACES, STYLES, POSES, PRAISE):
        for meaning, words in table.items():
            for word in words.split():
                assert WORDS[word][1] == meaning, word  # no word stands in two tables
                before, after = ("一只", "猫") if table in (COLOURS, PRAISE) else ("一只猫，", "")
                english = to_english(word if table is SUBJECTS else before + word + after)
                assert not english.unknown and not inspect_prompt(tokenizer, english.text).advice(), word


@pytest.mark.parametrize(
    ("said", "english", "unknown"),
    [
        ("一只可爱的柯基犬坐在草地上", "a cute corgi puppy sitting on the grass", []),
        ("请帮我画一幅画：雪地里有两只白色的兔子。", "two white rabbits in the snow", []),
        ("夜晚，一辆红色的小汽车停在蓝色房子的左边", "a red car left of a blue house at night", []),
        ("一只恐龙和一只猫在城市里", "a cat in the city", ["恐龙"]),
        ("一只红色的恐龙和一只猫", "a cat", ["恐龙"]),
        ("两只胖胖的白猫，三只胖鸭子", "two white cats and three ducks", ["胖胖", "胖"]),
        ("草地上有一只熊猫", "on the grass", ["熊猫"]),
        ("一只猫 a dog", "a cat", ["a dog"]),
        ("水彩画：森林里的一座房子", "a house in the forest, watercolour", []),
    ],
)
def test_sentences_as_people_write_them(said, english, unknown):
    assert to_english(said) == English(english, unknown)


def test_generate_reads_chinese_and_says_what_it_drew(tmp_path):
    said = run("generate", "两只白色的兔子和恐龙在雪地里", "--output", str(tmp_path / "a.png"))
    plain = run("generate", "two white rabbits in the snow", "--output", str(tmp_path / "b.png"))
    assert said.exit_code == plain.exit_code == 0
    assert "'two white rabbits in the snow'" in said.stderr and "恐龙" in said.stderr
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_negative_prompt_is_read_too_and_needs_no_subject(tmp_path):
    said = run("generate", "一只猫", "--negative", "红色的球，彩虹", "--output", str(tmp_path / "a.png"))
    plain = run("generate", "a cat", "--negative", "a red ball", "--output", str(tmp_path / "b.png"))
    assert said.exit_code == plain.exit_code == 0
    assert "'a red ball'" in said.stderr and "彩虹" in said.stderr
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_generate_refuses_what_it_cannot_draw(tmp_path):
    refused(run("generate", "一只恐龙", "--output", str(tmp_path / "a.png")), "一只恐龙", "柯基")


def test_help_speaks_the_language_in_use(monkeypatch):
    assert "Run NOTEBOOKS" in run("check", "--help").stdout
    monkeypatch.setenv("COURSE_LANGUAGE", "zh")
    said = run("check", "--help").stdout
    assert "报告每道练习的状态" in said and "写有你的答案的笔记本" in said
