"""The catalogue: rings around a mask, a product that stays to the bit, and a page that needs no other file."""

import base64
import io
from html.parser import HTMLParser

import numpy
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from course_utils.data import picture_book as book
from course_utils.data.images import to_pil
from course_utils.pipelines import catalogue
from course_utils.pipelines.picture_book import load_picture_book


@pytest.fixture(scope="module")
def pipe():
    return load_picture_book()


@pytest.fixture(scope="module")
def product():
    scene = book.Scene((book.Thing("teapot", "blue"),), "grass", seed=3)
    return book.pictures([scene]), (book.maps(scene).things == 1).float()[None, None]


def test_the_ring_is_scipys_dilation_without_the_product():
    mask = (torch.rand(2, 1, 20, 17, generator=torch.Generator().manual_seed(0)) > 0.97).float()
    for width in (1, 3):
        got = catalogue.ring(mask, width)
        square = numpy.ones((2 * width + 1, 2 * width + 1))
        for one, ring in zip(mask[:, 0].numpy() > 0, got[:, 0].numpy() > 0, strict=True):
            numpy.testing.assert_array_equal(ring, binary_dilation(one, square) & ~one)
        assert (got * mask).sum() == 0
    assert (
        catalogue.ring(torch.zeros(1, 1, 8, 8), 2).sum() == 0 and catalogue.ring(torch.ones(1, 1, 8, 8), 2).sum() == 0
    )


def test_the_product_stays_to_the_bit_and_the_shadow_touches_the_ring_only(pipe, product):
    picture, mask = product
    prompts = ["a blue teapot on the beach", "a blue teapot in the snow"]
    dice = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    placed = catalogue.place_product(pipe, picture, mask, prompts, dice, steps=2)
    assert catalogue.unchanged(placed, picture, mask)
    assert ((placed - picture).abs() > 0.1).float().mean() > 0.3  # and the rest is not the page from before
    shaded = catalogue.add_shadow(pipe, placed, mask, prompts, dice, strength=0.5, steps=4)
    around = catalogue.ring(mask, 6).bool().expand_as(placed)
    assert catalogue.unchanged(shaded, picture, mask)
    assert torch.equal(shaded[~around], placed[~around]) and not torch.equal(shaded[around], placed[around])
    one, other = (numpy.asarray(to_pil(x)[0])[mask[0, 0].bool().numpy()] for x in (shaded, picture))
    assert (one == other).all()  # in bytes, too


def test_a_single_changed_pixel_is_found(product):
    picture, mask = product
    row, column = mask[0, 0].nonzero()[0]
    wrong = picture.clone()
    wrong[0, 2, row, column] += 1 / 127.5
    assert catalogue.unchanged(picture, picture, mask) and not catalogue.unchanged(wrong, picture, mask)


class Reader(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.pictures, self.tags, self.text = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attributes))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_pictures_prices_and_words_and_nothing_from_elsewhere(product):
    picture, _ = product
    offers = [
        catalogue.Offer(picture, "Teapot <i>Luna</i> & co", 'a "blue" teapot', 1250),
        catalogue.Offer(picture.flip(3), "Teapot", "a teapot", 123456789),
    ]
    page = catalogue.catalogue_page("Tea & more", offers)
    read = Reader(page)
    assert [each["alt"] for each in read.pictures] == ['a "blue" teapot', "a teapot"] and "i" not in read.tags
    assert {"€12.50", "€1,234,567.89", "Teapot <i>Luna</i> & co", "Tea & more"} <= set(read.text)
    assert (
        "://" not in page
        and "script" not in read.tags
        and all(each["src"].startswith("data:image/png;base64,") for each in read.pictures)
    )
    bytes_ = base64.b64decode(read.pictures[0]["src"].split(",")[1])
    numpy.testing.assert_array_equal(Image.open(io.BytesIO(bytes_)), to_pil(picture)[0])


def test_what_cannot_be_offered_is_refused(product):
    picture, mask = product
    with pytest.raises(ValueError, match="at least one offer"):
        catalogue.catalogue_page("Empty", [])
    with pytest.raises(ValueError, match="cannot see"):
        catalogue.catalogue_page("No words", [catalogue.Offer(picture, "Teapot", " ", 1)])
    for cents in (-1, 12.5):
        with pytest.raises(ValueError, match="cents"):
            catalogue.price(cents)
    for width in (0, 1.5):
        with pytest.raises(ValueError, match="width"):
            catalogue.ring(mask, width)
