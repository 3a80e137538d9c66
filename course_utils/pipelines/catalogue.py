"""A catalogue: one product in many places, unchanged to the last bit, and a page of HTML that needs no other file.

Shapes: pictures (n, 3, height, width) in [-1, 1]; masks (n or 1, 1, height, width), 1 = the product.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import max_pool2d

from course_utils.data.images import data_url, to_pil
from course_utils.diffusion.editing import paste, require_mask
from course_utils.pipelines import editing


def ring(mask: torch.Tensor, width: int) -> torch.Tensor:
    """Return the mask of the pixels that are not the product, but at most `width` pixels from it: across, down or both.

        dilated - mask,   dilated = largest value of mask in a square of 2 width + 1 pixels

    mask: (batch, 1, height, width) of zeros and ones. Raises ValueError for other masks, or a width below 1.
    """
    require_mask(mask)
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"Expected a width of a whole number of pixels, 1 or more, but got {width}.")
    return max_pool2d(mask, 2 * width + 1, stride=1, padding=width) - mask


def place_product(
    pipe, product: torch.Tensor, mask: torch.Tensor, prompts: list[str], generator: editing.Generators, **how
) -> torch.Tensor:
    """Return the product (1, 3, height, width) with everything around it drawn again, one picture for each prompt.

    The pixels where the mask (1, 1, height, width) is 1 are put back at the end, so that they are the product's to the
    bit. how: see `editing.redraw_inside`.
    """
    pages = product.expand(len(prompts), -1, -1, -1)
    return editing.inpaint(pipe, pages, 1 - mask, prompts, generator, **how)


def add_shadow(
    pipe,
    pictures: torch.Tensor,
    mask: torch.Tensor,
    prompts: list[str],
    generator: editing.Generators,
    strength: float = 0.4,
    width: int = 6,
    **how,
) -> torch.Tensor:
    """Return the pictures with a `ring` around the product drawn again from a little noise; all else is to the bit.

    At a low strength the model corrects what does not fit, such as a missing shadow, and keeps the rest.
    how: see `editing.redraw_inside`.
    """
    around = ring(mask, width).expand(len(pictures), -1, -1, -1)
    return editing.inpaint(pipe, pictures, around, prompts, generator, strength, **how)


def put_back(drawn: torch.Tensor, product: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the product's pixels, to the bit, where the mask is 1, and those of `drawn` elsewhere.

    drawn: (n, 3, height, width). product: (1, 3, height, width), the same for all n pictures.
    Raises ValueError for other sizes.
    """
    return paste(drawn, product.expand(len(drawn), -1, -1, -1), 1 - mask)


def unchanged(pictures: torch.Tensor, product: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether all pictures have the product's pixels, to the bit, wherever the mask is 1."""
    return torch.equal(put_back(pictures, product, mask), pictures)


@dataclass(frozen=True)
class Offer:
    """One entry of a catalogue: picture (1, 3, height, width), its name, what is to be seen, and a price in cents."""

    picture: torch.Tensor
    name: str
    description: str
    cents: int


STYLE = (
    "body{font-family:sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "ul{display:grid;grid-template-columns:repeat(auto-fill,minmax(12rem,1fr));gap:1.5rem;list-style:none;padding:0}"
    "img{width:100%;image-rendering:pixelated;border-radius:.5rem}h2{font-size:1rem;margin:.4rem 0}p{margin:.2rem 0}"
)


def price(cents: int, currency: str = "€") -> str:
    """Return a price in words: 1250 -> "€12.50". Raises ValueError unless it is a whole number of 0 or more."""
    if not isinstance(cents, int) or cents < 0:
        raise ValueError(f"Expected a price as a whole number of cents, 0 or more, but got {cents!r}.")
    return f"{currency}{cents // 100:,}.{cents % 100:02d}"


def catalogue_page(title: str, offers: Sequence[Offer], currency: str = "€") -> str:
    """Return a whole HTML document: each offer with its picture (in the file itself), alternative text and price.

    Nothing is loaded from elsewhere, and no text can become markup. Raises ValueError for no offers, for one without
    a name or a description, and for prices that are none.
    """
    if not offers:
        raise ValueError("Expected at least one offer for the catalogue, but got none.")
    entries = "\n".join(_entry(offer, currency) for offer in offers)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n<ul>\n{entries}\n</ul>\n</body>\n</html>\n"
    )


def _entry(offer: Offer, currency: str) -> str:
    if not offer.name.strip() or not offer.description.strip():
        raise ValueError(
            f"Expected a name and a description for each offer, but got {offer.name!r} and {offer.description!r}; "
            "the description is read to those who cannot see the picture."
        )
    return (
        f'<li><img alt="{html.escape(offer.description)}" src="{data_url(to_pil(offer.picture)[0])}">'
        f"<h2>{html.escape(offer.name)}</h2><p>{html.escape(price(offer.cents, currency))}</p></li>"
    )
