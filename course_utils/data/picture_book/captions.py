"""Captions for scenes, as a person would write them: many forms, long and short, every word of them true."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from course_utils.data.picture_book.scenes import NATURAL, Scene, Thing

NAMES = {
    "corgi": ("corgi puppy", "corgi puppy", "corgi", "corgi dog", "puppy"),
    "cat": ("cat", "cat", "kitten"),
    "rabbit": ("rabbit", "rabbit", "bunny"),
    "duck": ("duck", "duck", "duckling"),
    "ball": ("ball",),
    "teapot": ("teapot",),
    "house": ("house", "house", "cottage"),
    "tree": ("tree",),
    "tulip": ("tulip", "tulip", "flower"),
    "mushroom": ("mushroom", "mushroom", "toadstool"),
    "car": ("car",),
    "boat": ("sailing boat", "boat", "sailboat"),
    "fox": ("fox",),
}
PLACE_WORDS = {
    "grass": ("on the grass", "on the grass", "in a green meadow", "in the meadow"),
    "beach": ("on the beach", "on the beach", "by the sea", "at the seaside"),
    "snow": ("in the snow", "in the snow", "on a snowy day", "in winter"),
    "desert": ("in the desert", "in the desert", "among the cactuses", "on desert sand"),
    "forest": ("in the forest", "in the forest", "in the woods", "among the fir trees"),
    "room": ("in a room", "in a room", "indoors", "in the living room"),
    "city": ("in the city", "in the city", "in the street", "in town"),
    "night": ("at night", "at night", "under the stars", "in the moonlight"),
}
ANIMALS = ("corgi", "cat", "rabbit", "duck", "fox")
PRAISE = {True: ("cute", "little", "happy", "sweet", "small"), False: ("little", "pretty", "small", "lovely")}
# what a thing without a pose does where it is
BEING = {
    "rabbit": ("sitting", "resting"),
    "duck": ("standing", "waddling"),
    "ball": ("lying",),
    "teapot": ("standing",),
    "house": ("standing",),
    "tree": ("growing", "standing"),
    "tulip": ("growing",),
    "mushroom": ("growing",),
    "car": ("parked", "standing"),
    "boat": ("standing",),
    "fox": ("sitting", "resting"),
}
NUMBERS = {1: "one", 2: "two", 3: "three"}
# the ways to say a style, each around what is to be seen
STYLE_WORDS = {
    "picture book": ("a picture book page with {}", "an illustration of {}", "{}, picture book"),
    "coloured pencil": (
        "a coloured pencil drawing of {}",
        "{}, coloured pencil",
        "{}, drawn in coloured pencil",
        "a pencil drawing of {}",
        "a colored pencil drawing of {}",
    ),
    "pixel art": ("a pixel art picture of {}", "{}, pixel art", "{} in pixel art", "pixel art of {}"),
    "watercolour": ("a watercolour of {}", "{}, watercolour", "{}, painted in watercolour", "a watercolor of {}"),
}
# where the first is, seen from the second; and the same turned round
RELATION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "above", "over"),
    "below": ("below", "below", "under"),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
TOGETHER = ("and", "and", "next to", "with")


@dataclass(frozen=True)
class Caption:
    """A sentence and what it claims; a pose, place, style or relation that it does not name is None.

    `relation` is that of the first thing to the second, a key of OPPOSITE.
    """

    text: str
    things: tuple[Thing, ...]
    place: str | None = None
    style: str | None = None
    relation: str | None = None

    def is_true_of(self, scene: Scene) -> bool:
        """Whether the scene shows everything that the sentence names, and no further thing."""
        seen = facts(scene.things, scene.place, scene.style, scene.relation)
        claimed = facts(self.things, self.place, self.style, self.relation)
        return all(claim in (None, fact) for claim, fact in zip(claimed, seen, strict=True))


def facts(
    things: Sequence[Thing], place: str | None, style: str | None, relation: str | None
) -> tuple[str | None, ...]:
    """What is said of a scene, as words in a fixed order, so that two descriptions can be compared word by word.

    Number; kind, colour, pose of one thing and of the other (in alphabetical order; "nothing" where there is none);
    relation of the first of these to the second; place; style. None where nothing is said.
    """
    one, *others = things
    other = next((thing for thing in others if thing.kind != one.kind), None)
    if other and other.kind < one.kind:
        one, other, relation = other, one, OPPOSITE.get(relation) if relation else None
    said: list[str | None] = [NUMBERS[len(things)]]
    for thing in (one, other):
        said += [thing.kind, seen_colour(thing) or "natural", thing.pose] if thing else ["nothing"] * 3
    return (*said, relation if other else "nothing", place, style)


def seen_colour(thing: Thing) -> str | None:
    """The word for the colour a thing is seen in: a natural colour that has a word is that word."""
    return thing.colour or NATURAL[thing.kind]


def caption(scene: Scene, seed: int | None = None, turned: float = 0.2) -> Caption:
    """One caption of the scene; `seed` chooses among the paraphrases (None: the plain full form).

    turned: how often the second of two things is named first, with the opposite relation. If both orders were equally
    frequent, the order alone would say nothing of the places, nor would the relation's word alone, only the two
    together: a model trained on such captions did not begin to learn who is left of whom.

    What a caption leaves out: no colour means the subject's natural colour, no style the picture book's. Place, pose
    and relation may be left out; a colour that is not the natural one, a number and another style are always named.
    """
    if seed is None:
        said = [phrase(thing, scene.things.count(thing)) for thing in dict.fromkeys(scene.things)]
        text = f"{f' {scene.relation} '.join(said)} {PLACE_WORDS[scene.place][0]}"
        style = None if scene.style == "picture book" else scene.style
        return Caption(text if style is None else f"{text}, {style}", scene.things, scene.place, style, scene.relation)
    rng = random.Random(f"caption/{scene.seed}/{seed}")
    things, relation = scene.things, scene.relation
    if relation and rng.random() < turned:
        things, relation = things[::-1], OPPOSITE[relation]
    if relation and rng.random() < 0.3:
        relation = None
    place = scene.place if rng.random() < 0.9 else None
    style = scene.style if scene.style != "picture book" or rng.random() < 0.15 else None
    terse = rng.random() < 0.1
    said, claimed = [], []
    for thing in dict.fromkeys(things):
        words, claim = _describe(thing, things.count(thing), terse, scene.relation is None and place is not None, rng)
        said.append(words)
        claimed += [claim] * things.count(thing)
    text = f" {rng.choice(RELATION_WORDS[relation] if relation else TOGETHER)} ".join(said)
    front = not terse and rng.random() < 0.08
    if place:
        words = place if terse else rng.choice(PLACE_WORDS[place])
        text = f"{words}, {text}" if front else f"{text}{', ' if terse else ' '}{words}"
    if style:
        text = f"{text}, {style}" if terse or front else rng.choice(STYLE_WORDS[style]).format(text)
    elif not front and rng.random() < 0.1:
        text = f"a picture of {text}"
    return Caption(text, tuple(claimed), place, style, relation)


def phrase(thing: Thing, count: int) -> str:
    """The plain form: "a red cat sitting", "two red cats sitting"."""
    words = [thing.colour, plural(NAMES[thing.kind][0]) if count > 1 else NAMES[thing.kind][0], thing.pose]
    text = " ".join(word for word in words if word)
    return with_article(text) if count == 1 else f"{NUMBERS[count]} {text}"


def _describe(thing: Thing, count: int, terse: bool, alone: bool, rng) -> tuple[str, Thing]:
    """A few words for a thing, or for several alike, and what they claim of it."""
    words = []
    if not terse and rng.random() < (0.5 if alone else 0.25):
        words.append(rng.choice(PRAISE[thing.kind in ANIMALS]))
    colour = thing.colour or (NATURAL[thing.kind] if rng.random() < 0.15 else None)
    if colour:
        words.append(colour)
    name = rng.choice(NAMES[thing.kind])
    words.append(name if count == 1 else plural(name))
    pose = thing.pose if rng.random() < (0.6 if alone else 0.4) else None
    if pose:
        words.append(pose)
    elif alone and not terse and thing.pose is None and rng.random() < 0.4:
        words.append(rng.choice(BEING[thing.kind]))
    text = " ".join(words)
    if count > 1:
        text = f"{NUMBERS[count]} {text}"
    elif not terse:
        text = with_article(text)
    return text, Thing(thing.kind, thing.colour, pose)


def plural(name: str) -> str:
    """The plural of a subject's name."""
    if name.endswith("y"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith("x") else f"{name}s"


def with_article(text: str) -> str:
    """ "a ..." or "an ...", by the first letter."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
