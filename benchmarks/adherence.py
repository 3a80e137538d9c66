"""How often the model draws what the prompt says, by the judge; and two contact sheets to look at.

    python benchmarks/adherence.py [--model FOLDER --judge FOLDER] [--count 200] [--steps 6 20] [--sheets FOLDER]

Prompts are captions of scenes that were not drawn for training (data set 1), in seen and in held-out combinations of
subject, colour and place; picture i has seed i. The judge's own accuracy on renders of the same scenes comes first.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import torch

from course_utils.data import picture_book as book
from course_utils.data.images import to_tensor
from course_utils.devices import describe_machine, pick_device
from course_utils.metrics import adherence, follows, psnr
from course_utils.models.judge import read
from course_utils.pipelines import CHECKPOINTS, PICTURE_BOOK, draw, load_picture_book
from course_utils.plotting import picture_grid
from course_utils.png_info import Settings
from course_utils.recipes import load_judge

DATA_SET = 1  # training uses data set 0


def scenes_and_captions(count: int, split: str):
    scenes = [book.sample_scene(n, DATA_SET, split) for n in range(count)]
    return scenes, [book.caption(scene, 0) for scene in scenes]


def measure(pipe, judge, count: int, split: str, steps: int, guidance: float, sampler: str) -> dict:
    """Adherence on `count` captions of a split, the share with just one subject, and what went wrong first."""
    _, captions = scenes_and_captions(count, split)
    start = time.perf_counter()
    pictures = torch.cat([to_tensor(draw(pipe, Settings(caption.text, seed=i, steps=steps, guidance=guidance,
                                                        sampler=sampler))[0][0])
                          for i, caption in enumerate(captions)])
    seconds = (time.perf_counter() - start) / count
    verdicts = read(judge, pictures)
    wrong = [i for i, (v, c) in enumerate(zip(verdicts, captions, strict=True)) if not follows(v, c)]
    return {"split": split, "steps": steps, "guidance": guidance, "sampler": sampler, "prompts": count,
            "adherence": 1 - len(wrong) / count, "seconds a picture": round(seconds, 2),
            "one subject found": sum(len(v.findings) == 1 for v in verdicts) / count,
            "first wrong": [captions[i].text for i in wrong[:5]]}


@torch.no_grad()
def reconstruction(pipe, judge, count: int) -> dict:
    """The judge's accuracy on fresh renders and on their reconstructions, and the reconstructions' PSNR."""
    scenes, captions = scenes_and_captions(count, "all")
    pictures = book.pictures(scenes)
    parts = [pipe.vae(part.to(pipe.device)).sample.cpu().clamp(-1, 1) for part in pictures.split(32)]
    rebuilt = torch.cat(parts)
    return {"judge on renders": adherence(judge, pictures, captions),
            "judge on reconstructions": adherence(judge, rebuilt, captions),
            "PSNR of reconstructions in dB": round(psnr(pictures, rebuilt).mean().item(), 2)}


def write_sheets(pipe, folder: Path) -> None:
    """A sheet of the world (every subject in every place) and one of generated pictures (other prompts)."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = (None, *book.COLOURS)
    scenes = [book.Scene((book.Thing(kind, colours[(3 * row + column) % len(colours)] if row % 2 else None,
                                     book.POSES[kind][row % 2] if kind in book.POSES else None),), place, 100 + row)
              for row, place in enumerate(book.PLACES) for column, kind in enumerate(book.SUBJECTS)]
    picture_grid(book.pictures(scenes), columns=len(book.SUBJECTS)).save(folder / "world.png", optimize=True)
    drawn = []
    for i, scene in enumerate(scenes):
        drawn.append(to_tensor(draw(pipe, Settings(book.caption(scene).text, seed=i))[0][0]))
    picture_grid(torch.cat(drawn), columns=len(book.SUBJECTS)).save(folder / "generated.png", optimize=True)
    corgis = draw(pipe, Settings("a cute corgi puppy sitting on the grass", seed=0), count=8)
    picture_grid(to_tensor([p for p, _ in corgis]), columns=8, scale=2).save(folder / "corgis.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=PICTURE_BOOK)
    parser.add_argument("--judge", type=Path, default=CHECKPOINTS / "judge")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, nargs="+", default=[20])
    parser.add_argument("--guidance", type=float, nargs="+", default=[4.0])
    parser.add_argument("--sampler", default="unipc")
    parser.add_argument("--sheets", type=Path, help="a folder for contact sheets")
    parser.add_argument("--manifest", action="store_true", help="keep the table in the shipped model's manifest")
    options = parser.parse_args()
    pipe, judge = load_picture_book(options.model, pick_device()), load_judge(options.judge)
    results = {"machine": describe_machine(), "reconstruction": reconstruction(pipe, judge, options.count)}
    print(json.dumps(results["reconstruction"], indent=2))
    results["drawing"] = []
    for steps, guidance in itertools.product(options.steps, options.guidance):
        for split in ("train", "held out"):
            row = measure(pipe, judge, options.count, split, steps, guidance, options.sampler)
            results["drawing"].append(row)
            print(json.dumps(row, indent=2), flush=True)
    if options.manifest:
        path = CHECKPOINTS / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": results}, indent=2) + "\n")
    if options.sheets:
        write_sheets(pipe, options.sheets)


if __name__ == "__main__":
    main()
