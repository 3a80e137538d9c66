"""What can be seen in the picture book, and which combinations are held out of training.

A `Scene` says everything the picture shows; `sample_scene` draws one at random, as a pure function of a seed and
a number, so that any picture of the data set can be made again by itself.
"""

import random
from dataclasses import dataclass

COLOURS = {
    "red": (216, 58, 50), "orange": (238, 142, 44), "yellow": (248, 206, 62), "green": (78, 166, 86),
    "blue": (68, 122, 212), "purple": (138, 84, 186), "pink": (246, 148, 186), "white": (250, 247, 240),
}
# the subject's natural colours, as the nearest word of COLOURS where there is one (either word is then true)
SUBJECTS = {
    "corgi": "orange", "cat": None, "rabbit": None, "duck": "yellow",
    "ball": "red", "teapot": "white", "house": None,
    "tree": "green", "tulip": "pink", "mushroom": "red",
    "car": "blue", "boat": None,
}
POSES = {"corgi": ("sitting", "standing"), "cat": ("sitting", "standing")}
PLACES = ("grass", "beach", "snow", "desert", "forest", "room", "city", "night")
SPLITS = ("train", "held out", "all")


@dataclass(frozen=True)
class Thing:
    """One subject: its kind, colour (a word of COLOURS, or None for natural) and pose (or None)."""

    kind: str
    colour: str | None = None
    pose: str | None = None


@dataclass(frozen=True)
class Scene:
    """What a picture shows: its things (one, so far), its place, and the seed of everything else."""

    things: tuple[Thing, ...]
    place: str
    seed: int = 0

    def __post_init__(self):
        for thing in self.things:
            _require(thing.kind, SUBJECTS, "subject")
            _require(thing.colour, (None, *COLOURS), "colour")
            _require(thing.pose, (None, *POSES.get(thing.kind, ())), f"pose of a {thing.kind}")
        _require(self.place, PLACES, "place")


def _require(value, known, what):
    if value not in known:
        names = ", ".join(str(name) for name in known)
        raise ValueError(f"expected a {what} out of: {names}; got {value!r}; choose one of these")


def is_held_out(kind: str, colour: str | None, place: str) -> bool:
    """Whether this (subject, colour, place) is kept out of all training but the judge's.

    A tenth of the combinations, spread like a Latin square, so that every *pair* of attributes is trained on.
    A natural colour that has a word is held out under both names; the corgi on the grass in its natural colour is
    trained on.
    """
    s, p = list(SUBJECTS).index(kind), PLACES.index(place)
    c = (None, *COLOURS).index(colour or SUBJECTS[kind])
    return (7 * s + 3 * c + 9 * p + 5) % 10 == 0


def sample_scene(number: int, seed: int = 0, split: str = "train") -> Scene:
    """Scene `number` (0, 1, ...) of the endless data set `seed`; `split` is one of SPLITS.

    Half of the things have their natural colour with probability 1/3; combinations of the other split are drawn
    again. Raises ValueError for an unknown split.
    """
    _require(split, SPLITS, "split")
    rng = random.Random(f"{seed}/{number}")
    while True:
        kind = rng.choice(list(SUBJECTS))
        colour = rng.choice([None, None, None, *COLOURS])
        pose = rng.choice(POSES[kind]) if kind in POSES else None
        place = rng.choice(PLACES)
        if split == "all" or is_held_out(kind, colour, place) == (split == "held out"):
            return Scene((Thing(kind, colour, pose),), place, rng.getrandbits(32))
