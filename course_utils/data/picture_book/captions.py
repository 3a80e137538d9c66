"""Captions for scenes, as a person would write them: many forms, long and short, every word of them true."""

import random
from dataclasses import dataclass

from course_utils.data.picture_book.scenes import SUBJECTS, Scene, Thing

NAMES = {
    "corgi": ("corgi puppy", "corgi puppy", "corgi", "corgi dog", "puppy"), "cat": ("cat", "cat", "kitten"),
    "rabbit": ("rabbit", "rabbit", "bunny"), "duck": ("duck", "duck", "duckling"), "ball": ("ball",),
    "teapot": ("teapot",), "house": ("house", "house", "cottage"), "tree": ("tree",),
    "tulip": ("tulip", "tulip", "flower"), "mushroom": ("mushroom", "mushroom", "toadstool"),
    "car": ("car",), "boat": ("sailing boat", "boat", "sailboat"),
}
PLACE_WORDS = {
    "grass": ("on the grass", "on the grass", "in a green meadow", "in the meadow"),
    "beach": ("on the beach", "on the beach", "by the sea", "at the seaside"),
    "snow": ("in the snow", "in the snow", "on a snowy day", "in winter"),
    "desert": ("in the desert", "in the desert", "among the cactuses", "on desert sand"),
    "forest": ("in the forest", "in the forest", "in the woods", "among the fir trees"),
    "room": ("in a room", "in a room", "indoors", "in the living room"),
    "city": ("in the city", "in the city", "in the street", "in front of the houses of the town"),
    "night": ("at night", "at night", "under the stars", "in the moonlight"),
}
ANIMALS = ("corgi", "cat", "rabbit", "duck")
PRAISE = {True: ("cute", "little", "happy", "sweet", "small"), False: ("little", "pretty", "small", "lovely")}
OPENINGS = ("a picture of", "a drawing of", "a picture book page with", "an illustration of")
# what a thing without a pose does where it is
BEING = {"rabbit": ("sitting", "resting"), "duck": ("standing", "waddling"), "ball": ("lying",),
         "teapot": ("standing",), "house": ("standing",), "tree": ("growing", "standing"), "tulip": ("growing",),
         "mushroom": ("growing",), "car": ("parked", "standing"), "boat": ("standing",)}


@dataclass(frozen=True)
class Caption:
    """A sentence and what it claims: `thing` (its pose None if not named) and `place` (None if not named)."""

    text: str
    thing: Thing
    place: str | None

    def is_true_of(self, scene: Scene) -> bool:
        """Whether everything that the sentence names can be seen in the scene."""
        return self.place in (None, scene.place) and any(
            thing.kind == self.thing.kind and seen_colour(thing) == seen_colour(self.thing)
            and self.thing.pose in (None, thing.pose) for thing in scene.things)


def seen_colour(thing: Thing) -> str | None:
    """The word for the colour a thing is seen in: a natural colour that has a word is that word."""
    return thing.colour or SUBJECTS[thing.kind]


def caption(scene: Scene, seed: int | None = None) -> Caption:
    """One caption of the scene; `seed` chooses among the paraphrases (None: the plain full form).

    What a caption leaves out: no colour means the subject's natural colour. Place and pose may be left out;
    a colour that is not the natural one is always named.
    """
    thing = scene.things[0]
    if seed is None:
        words = [thing.colour, NAMES[thing.kind][0], thing.pose, PLACE_WORDS[scene.place][0]]
        return Caption(with_article(" ".join(word for word in words if word)), thing, scene.place)
    rng = random.Random(f"caption/{scene.seed}/{seed}")
    words, pose, place = [], None, None
    if rng.random() < 0.5:
        words.append(rng.choice(PRAISE[thing.kind in ANIMALS]))
    colour = thing.colour or (SUBJECTS[thing.kind] if rng.random() < 0.15 else None)
    if colour:
        words.append(colour)
    words.append(rng.choice(NAMES[thing.kind]))
    if rng.random() < 0.9:
        place = scene.place
        if rng.random() < 0.5:
            pose = thing.pose
            words.append(pose or rng.choice(BEING[thing.kind]))
        words.append(rng.choice(PLACE_WORDS[place]))
    text = with_article(" ".join(words))
    if rng.random() < 0.2:
        text = f"{rng.choice(OPENINGS)} {text}"
    return Caption(text, Thing(thing.kind, thing.colour, pose), place)


def with_article(text: str) -> str:
    """"a ..." or "an ...", by the first letter."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
