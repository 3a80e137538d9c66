"""How much pictures of one prompt differ from seed to seed, and how near they come to the training pictures.

    python -m benchmarks.variety [--model FOLDER --judge FOLDER] [--seeds 16] [--steps 20 --guidance 4] [--manifest]

One prompt for each subject. Each number stands beside the same one of fresh renders: what the program draws for the
same captions with other seeds.
"""

import argparse
import json
from pathlib import Path

import torch

from benchmarks.adherence import draw_prompts, keep
from course_utils.data import picture_book as book
from course_utils.machine.devices import describe_machine, pick_device
from course_utils.models.judge import read
from course_utils.pipelines.picture_book import CHECKPOINTS, PICTURE_BOOK, load_picture_book
from course_utils.recipes import load_judge, picture_set

TRAINING_PICTURES = 20_000  # of data set 0, the ones that training begins with


def scenes_to_draw() -> list[book.Scene]:
    """One scene for each subject, in its natural colour, the places in turn; none is held out."""
    scenes = []
    for number, kind in enumerate(book.SUBJECTS):
        place = next(p for p in book.PLACES[number % 8 :] + book.PLACES if not book.is_held_out(kind, None, p))
        scenes.append(book.Scene((book.Thing(kind, None, "sitting" if kind in book.POSES else None),), place))
    return scenes


def spread(judge, pictures: torch.Tensor, seeds: int) -> dict:
    """How pictures (prompts * seeds, 3, 64, 64) of the same prompt differ: position in pixels, and pixel by pixel.

    Of each prompt, only the pictures in which the judge finds just one thing have a position.
    """
    verdicts = [verdict for part in pictures.split(64) for verdict in read(judge, part)]
    places, pixels = [], []
    for start in range(0, len(pictures), seeds):
        found = [v.findings[0] for v in verdicts[start : start + seeds] if len(v.findings) == 1]
        if len(found) > 2:
            places.append(torch.tensor([[f.x, f.y] for f in found]).std(0).square().sum().sqrt())
        pixels.append(pictures[start : start + seeds].std(0).square().mean().sqrt())
    return {
        "position, pixels": round(torch.stack(places).mean().item(), 2) if places else None,
        "standard deviation of a pixel": round(torch.stack(pixels).mean().item(), 3),
    }


def nearest(pictures: torch.Tensor, training: torch.Tensor) -> torch.Tensor:
    """Each picture's distance to the nearest training picture, as the root of the mean squared difference, (n,)."""
    flat, best = pictures.flatten(1), torch.full((len(pictures),), torch.inf)
    for part in training.split(1000):
        best = torch.minimum(best, torch.cdist(flat, part.float().flatten(1) / 127.5 - 1).amin(1))
    return best / flat.shape[1] ** 0.5


def measure(pipe, judge, seeds: int, steps: int, guidance: float) -> dict:
    """Spread and distance to the training pictures of drawn pictures, and of fresh renders."""
    scenes = scenes_to_draw()
    prompts = [book.caption(scene).text for scene in scenes for _ in range(seeds)]
    fresh = [book.Scene(scene.things, scene.place, 10**9 + number) for scene in scenes for number in range(seeds)]
    training = picture_set(TRAINING_PICTURES).pixels
    table = {}
    for name, pictures in (
        ("drawn by the model", draw_prompts(pipe, prompts, steps, guidance, "unipc")),
        ("fresh renders", book.pictures(fresh)),
    ):
        quartiles = nearest(pictures, training).quantile(torch.tensor([0.0, 0.25, 0.5, 0.75]))
        table[name] = {
            **spread(judge, pictures, seeds),
            "distance to the nearest of 20,000 training pictures": dict(
                zip(
                    ("least", "lower quartile", "median", "upper quartile"),
                    [round(value, 3) for value in quartiles.tolist()],
                    strict=True,
                )
            ),
        }
    return {"prompts": len(scenes), "seeds": seeds, "steps": steps, "guidance": guidance, **table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=PICTURE_BOOK)
    parser.add_argument("--judge", type=Path, default=CHECKPOINTS / "judge")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--manifest", action="store_true", help="keep the table in the shipped model's manifest")
    options = parser.parse_args()
    pipe, judge = load_picture_book(options.model, pick_device()), load_judge(options.judge)
    table = {"machine": describe_machine(), **measure(pipe, judge, options.seeds, options.steps, options.guidance)}
    print(json.dumps(table, indent=2))
    if options.manifest:
        keep("variety", table)


if __name__ == "__main__":
    main()
