"""What the picture-book model's recipe is worth: prompts followed after the same processor time.

    python3 course.py benchmark recipe_book [NAME ...] [--minutes 30] [--count 200] [--seed 0] [--json FILE]

The U-Net is trained from nothing on one thread, on latents of the shipped autoencoder and on captions read by the
shipped text encoder of CLIP. `course` and `ours` are those of `recipe`, but that here all times are equally frequent in
both, ours has batches of 32 and, as in the model's own training, lets the text encoder learn on. Encoding the pages is
not counted. Prompts are the first of the frozen ones, drawn in 20 steps with guidance 4.
"""

import argparse
import copy
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks import adherence, prompts
from benchmarks.families import one_of
from benchmarks.recipe import COURSE, OURS, fit
from course_utils.machine.devices import describe_machine
from course_utils.pipelines.picture_book import CHECKPOINTS, load_picture_book
from course_utils.recipes import load_judge, load_trained
from course_utils.recipes.unet import PromptedLatents, ReadAndPredict, small_unet

CPU = torch.device("cpu")
RECIPES = {"course": COURSE, "ours": replace(OURS, times="uniform", batch=32)}


def measure(name: str, folder: Path, minutes: float, count: int, seed: int) -> dict:
    """Train, draw and judge; `folder` keeps the latents."""
    recipe = RECIPES[name]
    vae, text_encoder, tokenizer = load_trained(CHECKPOINTS, CPU)

    def build():
        return ReadAndPredict(small_unet(), copy.deepcopy(text_encoder).requires_grad_(recipe is not COURSE))

    model, updates, seconds = fit(recipe, build, PromptedLatents(folder, vae, tokenizer), 60 * minutes, seed)
    pipe = load_picture_book(device=CPU)
    pipe.unet.load_state_dict(model.unet.state_dict())
    pipe.text_encoder.load_state_dict(model.text_encoder.state_dict())
    pipe.scheduler.register_to_config(prediction_type={"v": "v_prediction", "noise": "epsilon"}[recipe.target])
    drawn = adherence.measure(pipe, load_judge(), prompts.load()[:count], 20, 4.0, "unipc")
    return {"recipe": name, "seed": seed, "updates": updates, "seconds": round(seconds), **asdict(recipe), **drawn}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", type=one_of(RECIPES), help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--minutes", type=float, default=30.0, help="of processor time")
    parser.add_argument("--count", type=int, default=200, help="how many of the frozen prompts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{describe_machine()}\n| recipe | updates | minutes | followed | by task |\n|:--|--:|--:|--:|:--|")
    rows = []
    with tempfile.TemporaryDirectory() as home:
        for name in options.names or RECIPES:
            row = measure(name, Path(home), options.minutes, options.count, options.seed)
            rows.append(row)
            print(
                f"| {name} | {row['updates']} | {row['seconds'] / 60:.1f} | {row['all']:.1%} | {row['tasks']} |",
                flush=True,
            )
            if options.json:
                options.json.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
