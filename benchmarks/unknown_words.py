"""How much prompt adherence falls with unknown words in a prompt, and where pictures go that name no place.

    python3 course.py benchmark unknown_words [--model FOLDER --judge FOLDER] [--count 200] [--steps 20 --guidance 4]

The frozen prompts, in the order of the file, each with 0, 1 and 3 words inserted that the model never saw. Picture i
has seed i in every row, so that the rows differ by the words alone; the interval is the 95% bootstrap interval of the
mean difference over prompts. `--places` counts instead the places that the judge sees in pictures for prompts without
one, for seeds 0 ... count-1.
"""

import argparse
import json
import random
from collections import Counter
from pathlib import Path

import torch

from benchmarks.adherence import draw_prompts
from benchmarks.prompts import load
from course_utils.data.images import to_tensor
from course_utils.machine.devices import describe_machine, pick_device
from course_utils.metrics.pictures import faults
from course_utils.metrics.statistics import paired_interval
from course_utils.models.judge import read
from course_utils.pipelines.picture_book import CHECKPOINTS, PICTURE_BOOK, draw, load_picture_book
from course_utils.pipelines.png_info import Settings
from course_utils.recipes import load_judge
from course_utils.text.tokens import known_words

NUMBERS = (0, 1, 3)
# What people add to prompts, and things that the world does not have.
WORDS = (
    "photorealistic", "beautiful", "detailed", "cinematic", "majestic", "vintage", "glowing", "tiny", "elegant",
    "mysterious", "dramatic", "fluffy", "shiny", "ancient", "wooden", "resolution", "masterpiece",
    "trending", "render", "portrait", "sunset", "dragon", "astronaut", "castle", "robot", "umbrella", "violin",
    "volcano",
)  # fmt: skip
PLACELESS = (
    "a corgi puppy", "a white cat", "a blue car", "a red ball", "a yellow duck", "a house", "a purple teapot", "a boat",
)  # fmt: skip


def with_unknown(text: str, number: int, seed: int, words: tuple[str, ...] = WORDS) -> str:
    """Insert `number` different words at random places between those of the prompt."""
    rng = random.Random(f"unknown/{seed}/{number}")
    parts = text.split()
    for word in rng.sample(words, number):
        parts.insert(rng.randrange(len(parts) + 1), word)
    return " ".join(parts)


def measure(pipe, judge, count: int, steps: int, guidance: float) -> list[dict]:
    """For each number of unknown words: adherence, its difference from none, the faults."""
    prompts, rows, plain = load()[:count], [], None
    for number in NUMBERS:
        texts = [with_unknown(prompt.caption.text, number, i) for i, prompt in enumerate(prompts)]
        pictures = draw_prompts(pipe, texts, steps, guidance, "unipc")
        wrong = faults(judge, pictures, [prompt.caption for prompt in prompts])
        right = torch.tensor([one is None for one in wrong]).float()
        plain = right if plain is None else plain
        rows.append(
            {
                "unknown words": number,
                "prompts": count,
                "adherence": round(right.mean().item(), 3),
                "difference": round((right - plain).mean().item(), 3),
                "its 95% interval": [round(end, 3) for end in paired_interval(right, plain)],
                "faults": dict(Counter(one for one in wrong if one).most_common()),
            }
        )
    return rows


def places(pipe, judge, seeds: int, steps: int, guidance: float) -> list[dict]:
    """For each seed: the places that the judge sees in the pictures for prompts that name none."""
    rows = []
    for seed in range(seeds):
        made = [draw(pipe, Settings(prompt, seed=seed, steps=steps, guidance=guidance))[0][0] for prompt in PLACELESS]
        seen = Counter(verdict.place for verdict in read(judge, to_tensor(made)))
        rows.append({"seed": seed, "pictures": len(made), "places": dict(seen.most_common())})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=PICTURE_BOOK)
    parser.add_argument("--judge", type=Path, default=CHECKPOINTS / "judge")
    parser.add_argument("--count", type=int, default=200, help="how many of the frozen prompts, or seeds of places")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--places", action="store_true", help="look at prompts without a place")
    options = parser.parse_args()
    pipe, judge = load_picture_book(options.model, pick_device(quiet=True)), load_judge(options.judge)
    known = known_words(pipe.tokenizer) & set(WORDS)
    if known:
        raise SystemExit(f"This model knows {sorted(known)}: they cannot stand for unknown words.")
    print(describe_machine())
    work = places if options.places else measure
    for row in work(pipe, judge, options.count, options.steps, options.guidance):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
