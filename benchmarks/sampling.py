"""How many evaluations a good picture needs: prompts followed and FID, for each sampler and number of evaluations.

    python3 course.py benchmark sampling [--count 200] [--samplers unipc dpm++ ddim heun] [--evaluations 4 6 10 20 50]
                                         [--guidance 4] [--model FOLDER] [--manifest]

The shipped model draws the first of the frozen prompts, picture i from seed i. FID is the Fréchet distance, in the
features of the judge, to renders of what the prompts name, four for each; the row `renders` is the floor, other renders
in the same number. Heun's method evaluates twice a step: with n evaluations it makes (n + 1) / 2 steps.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.adherence import draw_prompts, keep
from benchmarks.prompts import Prompt, load
from course_utils.data import picture_book as book
from course_utils.machine.devices import describe_machine, pick_device
from course_utils.metrics.distributions import frechet_distance
from course_utils.metrics.pictures import adherence
from course_utils.models.judge import Judge
from course_utils.pipelines.picture_book import PICTURE_BOOK, load_picture_book
from course_utils.recipes import load_judge

RENDERS = 4  # of each prompt, to compare with


def renders(prompts: list[Prompt], number: int) -> torch.Tensor:
    """One render of what each prompt names, (prompts, 3, 64, 64); another number, another picture of the same."""
    return book.pictures([_scene(prompt.caption, random.Random(f"{i}/{number}")) for i, prompt in enumerate(prompts)])


def _scene(said: book.Caption, rng: random.Random) -> book.Scene:
    """A scene of which the caption is true, with what it leaves open drawn by lot."""
    kinds = [
        replace(thing, pose=thing.pose or rng.choice(book.POSES.get(thing.kind, (None,))))
        for thing in dict.fromkeys(said.things)
    ]
    relation = said.relation
    if len(kinds) == 1:
        kinds *= len(said.things)
    elif relation is None:
        rng.shuffle(kinds)
        relation = "left of"
    elif relation not in book.RELATIONS:
        kinds, relation = kinds[::-1], book.OPPOSITE[relation]
    return book.Scene(tuple(kinds), said.place, rng.getrandbits(32), said.style or "picture book", relation)


@torch.no_grad()
def score(judge: Judge, pictures: torch.Tensor, prompts: list[Prompt], reference: torch.Tensor) -> dict:
    """The share of pictures in which all that the prompt names is found, and the Fréchet distance."""
    return {
        "followed": round(adherence(judge, pictures, [prompt.caption for prompt in prompts]), 3),
        "FID": round(frechet_distance(features(judge, pictures), reference), 3),
    }


@torch.no_grad()
def features(judge: Judge, pictures: torch.Tensor) -> torch.Tensor:
    """What the judge sees in pictures, (pictures, features)."""
    return torch.cat([judge.features(part) for part in pictures.split(64)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=PICTURE_BOOK)
    parser.add_argument("--count", type=int, default=200, help="how many of the frozen prompts, from the first")
    parser.add_argument("--samplers", nargs="+", default=["unipc", "dpm++", "ddim", "heun"])
    parser.add_argument("--evaluations", type=int, nargs="+", default=[4, 6, 10, 20, 50])
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--manifest", action="store_true", help="keep the table in the shipped model's manifest")
    options = parser.parse_args()
    pipe, judge = load_picture_book(options.model, pick_device()), load_judge()
    prompts = load()[: options.count]
    reference = torch.cat([features(judge, renders(prompts, number)) for number in range(RENDERS)])
    rows = []

    def add(sampler: str, evaluations: int, pictures: torch.Tensor) -> None:
        row = {"sampler": sampler, "evaluations": evaluations, **score(judge, pictures, prompts, reference)}
        print(f"| {sampler} | {evaluations} | {row['followed']:.1%} | {row['FID']:.2f} |", flush=True)
        rows.append(row)

    print(f"{describe_machine()}\n| sampler | evaluations | followed | FID |\n|:--|--:|--:|--:|")
    add("renders", 0, renders(prompts, RENDERS))
    texts = [prompt.caption.text for prompt in prompts]
    for sampler in options.samplers:
        for evaluations in options.evaluations:
            steps = (evaluations + 1) // 2 if sampler == "heun" else evaluations
            add(sampler, evaluations, draw_prompts(pipe, texts, steps, options.guidance, sampler))
    if options.manifest:
        keep(
            "sampling",
            {"machine": describe_machine(), "prompts": len(prompts), "guidance": options.guidance, "rows": rows},
        )


if __name__ == "__main__":
    main()
