"""Plans: what a page of the picture book shows and where, as a short list, and that list as a map of the page.

A plan is float32 (ROWS, NUMBERS), one row for each thing, all 0 where there is none, and a last one for the page. In
the row of a thing: kind, colour and pose, a 1 for the one it is; the middle, x and y, and the size, in heights of the
page; 1 or -1 for the side to which it looks; 1 if it stands on a cloud. In that of the page: place and style.

A map is float32 (64, TOLD), one row for each of the 8 x 8 patches of 8 x 8 pixels, row by row: what is told of the
thing in front there, and where in that thing the patch lies, all 0 where nothing stands; and place and style.
"""

from dataclasses import dataclass

import numpy as np
import torch

from course_utils.data import picture_book as book

PATCH, SIDE, THINGS = 8, 8, 3
ROWS = THINGS + 1
KINDS, COLOURS, POSES = tuple(book.SUBJECTS), (*book.COLOURS, "natural"), tuple(book.ALL_POSES)
PLACES, STYLES = tuple(book.PLACES), tuple(book.STYLES)
KIND = slice(0, len(KINDS))
COLOUR = slice(KIND.stop, KIND.stop + len(COLOURS))
POSE = slice(COLOUR.stop, COLOUR.stop + len(POSES))
SPOT = slice(POSE.stop, POSE.stop + 5)
PLACE = slice(SPOT.stop, SPOT.stop + len(PLACES))
STYLE = slice(PLACE.stop, PLACE.stop + len(STYLES))
NUMBERS = STYLE.stop
THING = POSE.stop + 6  # numbers that a map tells of a thing
TOLD = THING + len(PLACES) + len(STYLES)
SMALLEST = 0.1  # of a page's height
MARGIN = 0.6  # how far from its middle a thing may reach, in its own size


@dataclass(frozen=True)
class Placed:
    """A thing of a plan: names, its middle and size in heights of the page, 1 or -1 for its side, 1.0 on a cloud."""

    kind: str
    colour: str
    pose: str | None
    x: float
    y: float
    size: float
    side: float
    cloud: float


def plan_of(scene: book.Scene) -> torch.Tensor:
    """The plan of a scene, (ROWS, NUMBERS), its things in the order of KINDS, those of one kind from left to right.

    In any order, "a cat and a tree" would leave open which row is the cat, and a network that fills all rows at once
    often fills both with the same.
    """
    plan = torch.zeros(ROWS, NUMBERS)
    spots = zip(scene.things, book.layout(scene), strict=True)
    placed = sorted(spots, key=lambda one: (KINDS.index(one[0].kind), one[1].centre[0]))
    for row, (thing, spot) in zip(plan, placed, strict=False):
        row[KIND][KINDS.index(thing.kind)] = 1
        row[COLOUR][COLOURS.index(book.seen_colour(thing) or "natural")] = 1
        if thing.pose:
            row[POSE][POSES.index(thing.pose)] = 1
        row[SPOT] = torch.tensor([*spot.centre, spot.unit, 1 if spot.flip else -1, spot.cloud])
    plan[-1, PLACE][PLACES.index(scene.place)] = 1
    plan[-1, STYLE][STYLES.index(scene.style)] = 1
    return plan


def read_plan(plan: torch.Tensor) -> list[Placed]:
    """The things of a plan (ROWS, NUMBERS), each number that stands for a choice taken for the nearest choice."""
    things = []
    for row in plan[:THINGS]:
        if row[KIND].max() < 0.5:
            continue
        x, y, size, side, cloud = row[SPOT].tolist()
        pose = POSES[row[POSE].argmax()] if row[POSE].max() > 0.5 else None
        kind, colour = KINDS[row[KIND].argmax()], COLOURS[row[COLOUR].argmax()]
        size, side = max(size, SMALLEST), 1.0 if side > 0 else -1.0
        things.append(Placed(kind, colour, pose, x, y, size, side, float(cloud > 0.5)))
    return things


def read_page(plan: torch.Tensor) -> tuple[str, str]:
    """The place and the style of a plan (ROWS, NUMBERS): those with the largest numbers."""
    return PLACES[plan[-1, PLACE].argmax()], STYLES[plan[-1, STYLE].argmax()]


def map_of(plan: torch.Tensor) -> torch.Tensor:
    """The map of a plan, (64, TOLD): things as squares of their size, those whose feet are lower before the others.

    A row: kind, colour and pose, a 1 for the one it is; where in the thing the middle of the patch lies, u (to the
    side to which it looks) and v (down), in sizes from its middle; size, side, cloud; and 1: all of it weaker at the
    rim of a square. Then place and style, the same in all rows.
    """
    page = np.zeros((SIDE, SIDE, THING), dtype=np.float32)
    middle = (np.arange(SIDE) + 0.5) / SIDE
    for thing in sorted(read_plan(plan), key=lambda thing: thing.y + thing.size / 2):
        u = np.broadcast_to((middle[None, :] - thing.x) / thing.size, (SIDE, SIDE))
        v = np.broadcast_to((middle[:, None] - thing.y) / thing.size, (SIDE, SIDE))
        told = np.zeros_like(page)
        told[..., KIND.start + KINDS.index(thing.kind)] = 1
        told[..., COLOUR.start + COLOURS.index(thing.colour)] = 1
        if thing.pose:
            told[..., POSE.start + POSES.index(thing.pose)] = 1
        told[..., POSE.stop], told[..., POSE.stop + 1] = thing.side * u, v
        told[..., POSE.stop + 2 : THING] = thing.size, thing.side, thing.cloud, 1
        reach = (MARGIN - np.maximum(np.abs(u), np.abs(v))) * thing.size * SIDE  # in patches, to the rim
        cover = (reach + 0.5).clip(0, 1)[..., None].astype(np.float32)
        page = (1 - cover) * page + cover * told
    place, style = read_page(plan)
    everywhere = torch.tensor([*(float(place == one) for one in PLACES), *(float(style == one) for one in STYLES)])
    return torch.cat([torch.from_numpy(page.reshape(SIDE * SIDE, THING)), everywhere.expand(SIDE * SIDE, -1)], dim=1)
