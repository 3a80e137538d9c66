"""Small readers of pictures, in quick versions: how they do on renders that they have not met."""

import torch

from course_utils.data import picture_book as book
from course_utils.recipes.probes import fox_or_corgi, fox_or_other, segmenter, things_masks


def alone(kind, colour, number):
    return book.Scene((book.Thing(kind, colour),), book.PLACES[number % 8], number)


def test_masks_are_of_the_things_alone():
    scenes = [alone("ball", "red", 0), book.Scene((), "beach", 1)]
    masks = things_masks(scenes)
    assert masks.shape == (2, 64, 64) and masks.dtype == torch.bool
    assert 0.1 < masks[0].float().mean() < 0.4 and not masks[1].any()


def test_the_segmenter_reads_which_pixels_are_things_from_few_pages():
    reader = segmenter(updates=40)
    assert reader.on_renders > 0.65  # taking nothing for a thing: 0; the whole picture: 0.2
    masks = reader.read(book.pictures([alone("teapot", "blue", n) for n in range(3)]))
    assert masks.shape == (3, 64, 64) and masks.dtype == torch.bool


def test_a_fox_is_told_from_a_corgi_in_colours_and_places_of_all_kinds():
    reader = fox_or_corgi(count=80)
    assert reader.on_renders > 0.97
    colours = (None, *book.COLOURS)
    foxes, corgis = (
        book.pictures([alone(kind, colours[n % 9], 1000 + n) for n in range(27)]) for kind in ("fox", "corgi")
    )
    assert reader.read(foxes).float().mean() > 0.95 and reader.read(corgis).float().mean() < 0.05
    assert reader.read(foxes).dtype == torch.bool


def test_what_is_neither_fox_nor_corgi_is_no_fox_for_the_stricter_probe():
    reader = fox_or_other(count=80)
    assert reader.on_renders > 0.95
    others = book.pictures([alone(kind, "red", n) for n, kind in enumerate(book.SUBJECTS)])
    assert reader.read(others).sum() <= 1
    assert reader.read(book.pictures([alone("fox", "red", n) for n in range(8)])).sum() >= 7
