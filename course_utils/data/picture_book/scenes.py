"""What can be seen in the picture book, and which combinations are held out of training.

A `Scene` says everything the picture shows; `sample_scene` draws one at random, as a pure function of a seed and
a number, so that any picture of the data set can be made again by itself.
"""

import random
from dataclasses import dataclass

from course_utils.data.picture_book.styles import STYLES

COLOURS = {
    "red": (216, 58, 50),
    "orange": (238, 142, 44),
    "yellow": (248, 206, 62),
    "green": (78, 166, 86),
    "blue": (68, 122, 212),
    "purple": (138, 84, 186),
    "pink": (246, 148, 186),
    "white": (250, 247, 240),
}
# the subject's natural colours, as the nearest word of COLOURS where there is one (either word is then true)
SUBJECTS = {
    "corgi": "orange",
    "cat": None,
    "rabbit": None,
    "duck": "yellow",
    "ball": "red",
    "teapot": "white",
    "house": None,
    "tree": "green",
    "tulip": "pink",
    "mushroom": "red",
    "car": "blue",
    "boat": None,
}
# drawn on demand, and never sampled: what no part of the course's model has met
NEW_SUBJECTS = {"fox": "orange"}
NATURAL = {**SUBJECTS, **NEW_SUBJECTS}
ALL_POSES = ("sitting", "standing", "sleeping")
POSES = {"corgi": ALL_POSES, "cat": ALL_POSES}
PLACES = ("grass", "beach", "snow", "desert", "forest", "room", "city", "night")
RELATIONS = ("left of", "above")  # of the first thing to the second
SPLITS = ("train", "held out", "all")


@dataclass(frozen=True)
class Thing:
    """One subject: its kind, colour (a word of COLOURS, or None for natural) and pose (or None)."""

    kind: str
    colour: str | None = None
    pose: str | None = None


@dataclass(frozen=True)
class Scene:
    """What a picture shows: its things, their place, the style, and the seed of everything else.

    `things` are one, two or three alike, or two of different kinds; only the latter stand in a `relation`, of the
    first to the second. Raises ValueError for anything else.
    """

    things: tuple[Thing, ...]
    place: str
    seed: int = 0
    style: str = "picture book"
    relation: str | None = None

    def __post_init__(self):
        for thing in self.things:
            _require(thing.kind, NATURAL, "subject")
            _require(thing.colour, (None, *COLOURS), "colour")
            _require(thing.pose, (None, *POSES.get(thing.kind, ())), f"pose of a {thing.kind}")
        _require(self.place, PLACES, "place")
        _require(self.style, STYLES, "style")
        alike = len(set(self.things)) < 2
        if len(self.things) > (3 if alike else 2) or not alike and self.things[0].kind == self.things[1].kind:
            raise ValueError(
                f"expected up to three things alike or two of different kinds, got {self.things}; "
                "draw the others in a scene of their own"
            )
        _require(self.relation, (None,) if alike else RELATIONS, "relation")


def _require(value, known, what):
    if value not in known:
        names = ", ".join(str(name) for name in known)
        raise ValueError(f"expected a {what} out of: {names}; got {value!r}; choose one of these")


def is_held_out(kind: str, colour: str | None, place: str) -> bool:
    """Whether this (subject, colour, place) is kept out of all training but the judge's.

    A tenth of the combinations, spread like a Latin square, so that every *pair* of attributes is trained on.
    A natural colour that has a word is held out under both names; the corgi on the grass in its natural colour is
    trained on. Raises ValueError for NEW_SUBJECTS, which are in no data set.
    """
    _require(kind, SUBJECTS, "subject that is sampled")
    s, p = list(SUBJECTS).index(kind), PLACES.index(place)
    c = (None, *COLOURS).index(colour or SUBJECTS[kind])
    return (7 * s + 3 * c + 9 * p + 5) % 10 == 0


def sample_scene(number: int, seed: int = 0, split: str = "train") -> Scene:
    """Scene `number` (0, 1, ...) of the endless data set `seed`; `split` is one of SPLITS.

    Half of the scenes show one thing, two tenths two or three alike, three tenths two different ones; four of seven
    are in the picture book's own style. In "train" no thing of the scene is held out (`is_held_out`), in
    "held out" at least one is. Raises ValueError for an unknown split.
    """
    _require(split, SPLITS, "split")
    rng = random.Random(f"{seed}/{number}")
    while True:
        place = rng.choice(PLACES)
        style = rng.choice(["picture book"] * 3 + list(STYLES))
        first, relation, draw = _sample_thing(rng), None, rng.random()
        if draw < 0.5:
            things: tuple[Thing, ...] = (first,)
        elif draw < 0.7:
            things = (first,) * rng.choice((2, 3))
        else:
            second = _sample_thing(rng)
            if second.kind == first.kind:
                continue
            things, relation = (first, second), rng.choice(("left of", "left of", "above"))
        held_out = any(is_held_out(thing.kind, thing.colour, place) for thing in things)
        if split == "all" or held_out == (split == "held out"):
            return Scene(things, place, rng.getrandbits(32), style, relation)


def _sample_thing(rng) -> Thing:
    """The corgi twice as often as others; the natural colour in three of eleven."""
    kind = rng.choice(("corgi", *SUBJECTS))
    colour = rng.choice((None, None, None, *COLOURS))
    return Thing(kind, colour, rng.choice(POSES[kind]) if kind in POSES else None)
