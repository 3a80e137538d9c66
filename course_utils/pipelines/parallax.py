"""A picture as layers that move at different speeds: cut out by a map of its things, behind them what was painted in.

What is near moves more than what is far, when the eye moves: parallax. For a GIF of such views see `animation`; here
is a page of HTML that moves with the mouse and needs no other file.
"""

import html
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch.nn.functional import max_pool2d

from course_utils.data.images import data_url, to_pil
from course_utils.shapes import require_pictures


class Layer(NamedTuple):
    """One sheet of a scene: its picture (1, 3, height, width) in [-1, 1], its cover (1, 1, height, width), its depth.

    cover: 1 where the sheet hides what is behind it, 0 where it is clear. depth: how near, 0 (does not move) to 1.
    """

    picture: torch.Tensor
    cover: torch.Tensor
    depth: float


def grow(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return a mask (batch, 1, height, width) made larger by `pixels` on all sides: the maximum of a square.

    Raises ValueError for other shapes and for a negative number.
    """
    require_pictures(mask)
    if mask.shape[1] != 1 or pixels < 0:
        raise ValueError(f"Expected a mask of one channel and pixels >= 0, but got {tuple(mask.shape)} and {pixels}.")
    return max_pool2d(mask, 2 * pixels + 1, stride=1, padding=pixels)


def cut_layers(
    page: torch.Tensor, behind: torch.Tensor, things: torch.Tensor, foot: torch.Tensor, margin: int = 1
) -> list[Layer]:
    """Return the layers of a page from far to near: `behind`, which covers all, then each of its things.

    page: (1, 3, height, width). behind: the same page with its things painted over. things: (height, width) whole
    numbers, 0 for the place, 1, 2, ... for the things; foot: (height, width), how low on the page the thing of each
    pixel stands: the lower, the nearer. Both are maps of `picture_book.maps`. margin: pixels around a thing that are
    cut out with it, for drawings do not follow the map exactly. Of n things the depths are 1/n, 2/n, ..., 1.
    Raises ValueError for shapes that do not fit, and for a map without things.
    """
    height, width = page.shape[-2:]
    if page.shape != (1, 3, height, width) or behind.shape != page.shape:
        raise ValueError(f"Expected two pages (1, 3, height, width), got {tuple(page.shape)}, {tuple(behind.shape)}.")
    if things.shape != (height, width) or foot.shape != (height, width):
        raise ValueError(
            f"Expected maps of {height} x {width} pixels, as the page, but got {tuple(things.shape)} and "
            f"{tuple(foot.shape)}; draw them at the page's size."
        )
    numbers = sorted((n for n in things.unique().tolist() if n), key=lambda n: foot[things == n].mean().item())
    if not numbers:
        raise ValueError("Expected a map with things to cut out, but it is 0 everywhere; take a scene with things.")
    layers = [Layer(behind, torch.ones_like(behind[:, :1]), 0.0)]
    for rank, number in enumerate(numbers, start=1):
        cover = grow((things == number).to(page)[None, None], margin)
        cover = cover * torch.isin(things, things.new_tensor([0, number])).to(page)  # no pixel of another thing
        layers.append(Layer(page, cover, rank / len(numbers)))
    return layers


def moved(picture: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return a picture moved to the right by whole pixels (to the left, if negative); what comes in is 0.

        y[..., k] = x[..., k - pixels],   0 where there is no column k - pixels

    picture: (batch, channels, height, width). Raises ValueError for other shapes.
    """
    require_pictures(picture)
    width = picture.shape[3]
    result = torch.zeros_like(picture)
    if abs(pixels) < width:
        result[..., max(pixels, 0) : width + min(pixels, 0)] = picture[..., max(-pixels, 0) : width - max(pixels, 0)]
    return result


def shift_layers(layers: Sequence[Layer], camera: float) -> torch.Tensor:
    """Return the scene as it is seen by a camera that has moved `camera` pixels to the left: (1, 3, height, width).

        out <- m c * m x + (1 - m c) out,   m: moved by round(camera depth) pixels;   from far to near

    x, c: a layer's picture and cover. A nearer layer hides a farther one, and moves more. Layers may be in any order;
    those of equal depth are laid on in the order given. Raises ValueError for no layers, for a farthest one that does
    not cover all or is moved, and for sizes that differ.
    """
    ordered = sorted(layers, key=lambda layer: layer.depth)
    if not ordered or ordered[0].depth != 0 or not (ordered[0].cover == 1).all():
        raise ValueError("Expected a farthest layer of depth 0 that covers the whole page; put what is behind there.")
    if any(layer.picture.shape != ordered[0].picture.shape for layer in ordered):
        raise ValueError(f"Expected layers of one size, but got {[tuple(each.picture.shape) for each in ordered]}.")
    out = ordered[0].picture
    for layer in ordered[1:]:
        pixels = round(camera * layer.depth)
        cover = moved(layer.cover, pixels)
        out = cover * moved(layer.picture, pixels) + (1 - cover) * out
    return out


def enlarged(layers: Sequence[Layer], factor: int) -> list[Layer]:
    """Return layers with each pixel as factor x factor of them, so that they can move by parts of one."""
    if factor < 1:
        raise ValueError(f"Expected a whole factor of at least 1, but got {factor}.")
    grown = []
    for picture, cover, depth in layers:
        picture, cover = (x.repeat_interleave(factor, 2).repeat_interleave(factor, 3) for x in (picture, cover))
        grown.append(Layer(picture, cover, depth))
    return grown


def parallax_page(layers: Sequence[Layer], title: str, description: str, reach: float = 0.12, width: int = 640) -> str:
    """Return a page of HTML whose layers move with the mouse, or with the arrow keys: one text, no other file.

    reach: how far the nearest layer moves to either side, as a share of the page's width. width: of the scene on the
    screen at most, in CSS pixels. description: what is to be seen, for those who cannot see it. The layers stand in
    the file from far to near, so that a nearer one hides a farther one, as PNGs with transparency. Who has asked the
    system for less motion sees the scene at rest until they press a key. Raises ValueError as `shift_layers` does,
    and for an empty title or description.
    """
    if not title.strip() or not description.strip():
        raise ValueError("Expected a title and a description of what is to be seen, but one of them is empty.")
    shift_layers(layers, 0)  # the same demands on the layers
    sheets = "\n".join(
        f'<img alt="" data-depth="{layer.depth:g}" src="{data_url(_cut_out(layer), optimize=True)}">'
        for layer in sorted(layers, key=lambda layer: layer.depth)
    )
    return PAGE.format(
        title=html.escape(title), words=html.escape(description), sheets=sheets, reach=reach, width=width
    )


def _cut_out(layer: Layer) -> Image.Image:
    """A layer as a picture with transparency."""
    picture, alpha = to_pil(layer.picture)[0], to_pil(2 * layer.cover - 1)[0]
    picture.putalpha(alpha)
    clear = Image.new("RGBA", picture.size)  # what is clear has no colour: a smaller file, and nothing hidden in it
    clear.paste(picture, mask=alpha.point(lambda level: 255 * (level > 0)))
    return clear


PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ margin: 2rem auto; max-width: {width}px; font-family: sans-serif; background: #fff; color: #222 }}
#scene {{ position: relative; overflow: hidden; width: 100%; aspect-ratio: 1 }}
#scene:focus-visible {{ outline: 3px solid #0072b2 }}
#scene img {{ position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: pixelated }}
</style>
<h1>{title}</h1>
<div id="scene" role="img" tabindex="0" aria-label="{words}">
{sheets}
</div>
<p>{words} Move the mouse over the picture, or press the left and right arrow keys.</p>
<script>
const scene = document.getElementById("scene"), reach = {reach};
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
let eye = 0;
function look(to) {{
  eye = Math.max(-1, Math.min(1, to));
  for (const sheet of scene.children)
    sheet.style.transform = `translateX(${{-100 * eye * reach * sheet.dataset.depth}}%)`;
}}
scene.addEventListener("pointermove", event => {{
  const box = scene.getBoundingClientRect();
  if (!still) look(2 * (event.clientX - box.left) / box.width - 1);
}});
scene.addEventListener("keydown", event => {{
  const step = {{ArrowLeft: -0.1, ArrowRight: 0.1}}[event.key];
  if (step) {{ look(eye + step); event.preventDefault(); }}
}});
</script>
</html>
"""
