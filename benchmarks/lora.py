"""A new subject taught by a LoRA: how often it is drawn where it was never shown, and what other prompts lose by it.

    python -m benchmarks.lora [--ranks 2 8] [--old 0 0.25] [--steps 300] [--pages 48] [--count 200] [--seed 0]
                              [--sheets FOLDER]

A fox is taught on pages in four places and four colours, and asked for in the other four of each: 50 prompts. A picture
counts if a probe trained on renders takes it for a page with a fox, not for another page of the world, and the judge
reads the place of the prompt in it and finds no second thing. (The judge does not know foxes, and finds one in three
renders of them.) "of that colour": the same, and the judge reads the prompt's colour where it sees most of a thing.
"rather than a corgi" is another probe's, which knows these two alone: it takes much of what is no corgi for a fox, so
that the model without a LoRA has many.
What is lost: adherence on the frozen prompts at weight 1. 10 steps of UniPC, guidance 4; picture i has seed i.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import torch

from benchmarks.adherence import draw_prompts
from benchmarks.prompts import Prompt, load
from course_utils.data import picture_book as book
from course_utils.machine.devices import describe_machine, pick_device
from course_utils.metrics.pictures import faults
from course_utils.models.judge import THRESHOLD, read
from course_utils.models.lora import lora_parameters, remove_lora
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.plotting import picture_grid
from course_utils.recipes import load_judge
from course_utils.recipes.lora import SHOWN_COLOURS, SHOWN_PLACES, pages_of, teach
from course_utils.recipes.probes import fox_or_corgi, fox_or_other

ASKED = 50
STEPS, GUIDANCE, SAMPLER = 10, 4.0, "unipc"


def asked(count: int = ASKED) -> list[book.Caption]:
    """Captions of a fox in the places and colours that it was not shown in."""
    places = [place for place in book.PLACES if place not in SHOWN_PLACES]
    colours = [colour for colour in book.COLOURS if colour not in (*SHOWN_COLOURS, book.NEW_SUBJECTS["fox"])]
    scenes = pages_of("fox", count, places, colours, seed=1)
    captions = ((book.caption(scene, k) for k in itertools.count()) for scene in scenes)
    return [next(caption for caption in said if caption.place) for said in captions]


def recognised(judge, pictures: torch.Tensor, captions: list[book.Caption]) -> dict[str, int]:
    """How many pictures show a fox, as two probes see it; alone and in the place asked for; and of that colour."""
    is_fox = fox_or_other().read(pictures)
    surely = [verdict for part in pictures.split(64) for verdict in read(judge, part, THRESHOLD)]
    at_all = [verdict for part in pictures.split(64) for verdict in read(judge, part, 0.01)]
    alone = [
        bool(fox) and len(verdict.findings) < 2 and caption.place == verdict.place
        for fox, verdict, caption in zip(is_fox, surely, captions, strict=True)
    ]
    coloured = [
        right and bool(v.findings) and _strongest(v).colour == book.seen_colour(caption.things[0])
        for right, v, caption in zip(alone, at_all, captions, strict=True)
    ]
    rather = fox_or_corgi().read(pictures)
    return {
        "rather than a corgi": int(rather.sum()),
        "fox": int(is_fox.sum()),
        "alone and in place": sum(alone),
        "and of that colour": sum(coloured),
    }


def _strongest(verdict):
    return max(verdict.findings, key=lambda finding: finding.score)


def measure(pipe, judge, prompts: list[Prompt], sheet: Path | None = None) -> dict:
    """Foxes recognised, of 50, and adherence on the frozen prompts, of the pipeline as it is."""
    captions = asked()
    pictures = draw_prompts(pipe, [caption.text for caption in captions], STEPS, GUIDANCE, SAMPLER)
    others = draw_prompts(pipe, [prompt.caption.text for prompt in prompts], STEPS, GUIDANCE, SAMPLER)
    wrong = faults(judge, others, [prompt.caption for prompt in prompts])
    if sheet:
        picture_grid(torch.cat([pictures, others[:30]]), columns=10).save(sheet, optimize=True)
    return {
        **recognised(judge, pictures, captions),
        "of": len(captions),
        "frozen prompts followed": sum(one is None for one in wrong),
        "of frozen": len(prompts),
        "foxes instead": int(fox_or_other().read(others).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--old", type=float, nargs="+", default=[0.0, 0.25], help="share of old pages in each batch")
    parser.add_argument("--steps", type=int, default=300, help="updates of the training")
    parser.add_argument("--pages", type=int, default=48, help="pages of the new subject")
    parser.add_argument("--count", type=int, default=200, help="how many of the frozen prompts, from the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheets", type=Path, help="a folder for contact sheets")
    options = parser.parse_args()
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
    pipe, judge, prompts = load_picture_book(device=pick_device()), load_judge(), load()[: options.count]
    print(json.dumps({"machine": describe_machine(), "probe on renders": fox_or_other().on_renders}), flush=True)

    def row(name: str, **facts) -> None:
        sheet = options.sheets / f"{name}.png" if options.sheets else None
        print(json.dumps({"LoRA": name, **facts, **measure(pipe, judge, prompts, sheet)}), flush=True)

    row("none")
    for rank in options.ranks:
        for old in options.old:
            start = time.process_time()
            for record in teach(
                pipe, pages_of("fox", options.pages), rank=rank, old=old, steps=options.steps, seed=options.seed
            ):
                loss = record.loss
            row(
                f"rank {rank}, old {old}",
                seconds=round(time.process_time() - start),
                numbers=sum(matrix.numel() for matrix in lora_parameters(pipe.unet)),
                loss=round(loss, 4),
            )
            remove_lora(pipe.unet)


if __name__ == "__main__":
    main()
