"""How often the model draws what the prompt says, by the judge, on the frozen prompts; and contact sheets to look at.

    python -m benchmarks.adherence [--model FOLDER --judge FOLDER] [--count 1000] [--steps 20 --guidance 4]
                                   [--sampler unipc] [--manifest] [--sheets FOLDER]

Picture i has seed i. The judge's own accuracy on fresh renders and on their reconstructions comes first, since no
model can be seen to do better than the judge.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import torch
from tqdm.auto import tqdm

from benchmarks.prompts import TASKS, Prompt, load
from course_utils.data import picture_book as book
from course_utils.data.images import to_tensor
from course_utils.machine.devices import describe_machine, pick_device
from course_utils.metrics.pictures import adherence, faults, psnr
from course_utils.pipelines.picture_book import CHECKPOINTS, PICTURE_BOOK, draw, load_picture_book, make_scheduler
from course_utils.pipelines.png_info import Settings
from course_utils.plotting import picture_grid
from course_utils.recipes import load_judge

DATA_SET = 1  # training uses data set 0
BATCH = 20


def draw_prompts(pipe, texts: list[str], steps: int, guidance: float, sampler: str) -> torch.Tensor:
    """One picture a prompt, picture i from seed i, in [-1, 1], (prompts, 3, 64, 64)."""
    pipe.scheduler = make_scheduler(sampler, pipe.scheduler.config)
    pictures = []
    for start in tqdm(range(0, len(texts), BATCH), f"{steps} steps of {sampler}"):
        part = texts[start : start + BATCH]
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        pictures += pipe(part, num_inference_steps=steps, guidance_scale=guidance, generator=seeds).images
    return to_tensor(pictures)


def measure(pipe, judge, prompts: list[Prompt], steps: int, guidance: float, sampler: str) -> dict:
    """Adherence on seen and held-out combinations, by task and by style; faults; the first prompts not followed."""
    start = time.perf_counter()
    pictures = draw_prompts(pipe, [prompt.caption.text for prompt in prompts], steps, guidance, sampler)
    seconds = (time.perf_counter() - start) / len(prompts)
    wrong = faults(judge, pictures, [prompt.caption for prompt in prompts])
    right = [one is None for one in wrong]

    def share(belongs) -> float | None:
        chosen = [ok for ok, prompt in zip(right, prompts, strict=True) if belongs(prompt)]
        return round(sum(chosen) / len(chosen), 3) if chosen else None

    styles = {style: share(lambda p, s=style: (p.caption.style or "picture book") == s) for style in book.STYLES}
    return {
        "steps": steps,
        "guidance": guidance,
        "sampler": sampler,
        "prompts": len(prompts),
        "seconds a picture": round(seconds, 2),
        "all": share(lambda p: True),
        "seen combinations": share(lambda p: not p.held_out),
        "held-out combinations": share(lambda p: p.held_out),
        "tasks": {task: share(lambda p, t=task: p.task == t) for task in TASKS},
        "styles": styles,
        "faults": dict(Counter(one for one in wrong if one).most_common()),
        "first not followed": [p.caption.text for ok, p in zip(right, prompts, strict=True) if not ok][:8],
    }


def keep(name: str, table: dict) -> None:
    """Put a table under its name into the shipped model's manifest, in the place of an older one."""
    path = CHECKPOINTS / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: table}, indent=2) + "\n")


@torch.no_grad()
def judge_on_renders(pipe, judge, count: int) -> dict:
    """The judge's accuracy on fresh renders of each style and on their reconstructions, and the latters' PSNR."""
    table, sampled = {}, [book.sample_scene(n, DATA_SET, "all") for n in range(10 * count)]
    for style in book.STYLES:
        scenes = [scene for scene in sampled if scene.style == style][:count]
        captions, pictures = [book.caption(scene) for scene in scenes], book.pictures(scenes)
        rebuilt = torch.cat([pipe.vae(part.to(pipe.device)).sample.cpu().clamp(-1, 1) for part in pictures.split(32)])
        table[style] = {
            "renders": round(adherence(judge, pictures, captions), 3),
            "reconstructions": round(adherence(judge, rebuilt, captions), 3),
            "PSNR in dB": round(psnr(pictures, rebuilt).mean().item(), 2),
        }
    return table


def write_sheets(pipe, folder: Path) -> None:
    """A sheet of the world (every subject in every place) and one of generated pictures (other prompts)."""
    folder.mkdir(parents=True, exist_ok=True)
    colours, styles = (None, *book.COLOURS), tuple(book.STYLES)
    scenes = [
        book.Scene(
            (
                book.Thing(
                    kind,
                    colours[(3 * row + column) % len(colours)] if row % 2 else None,
                    book.POSES[kind][row % 3] if kind in book.POSES else None,
                ),
            ),
            place,
            100 + row,
            styles[row % 4 if row > 3 else 0],
        )
        for row, place in enumerate(book.PLACES)
        for column, kind in enumerate(book.SUBJECTS)
    ]
    scenes += [scene for scene in (book.sample_scene(n, DATA_SET) for n in range(400)) if len(scene.things) > 1][:24]
    picture_grid(book.pictures(scenes), columns=12).save(folder / "world.png", optimize=True)
    drawn = draw_prompts(pipe, [book.caption(scene).text for scene in scenes], 20, 4.0, "unipc")
    picture_grid(drawn, columns=12).save(folder / "generated.png", optimize=True)
    corgis = draw(pipe, Settings("a cute corgi puppy sitting on the grass", seed=0), count=8)
    picture_grid(to_tensor([p for p, _ in corgis]), columns=8, scale=2).save(folder / "corgis.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=PICTURE_BOOK)
    parser.add_argument("--judge", type=Path, default=CHECKPOINTS / "judge")
    parser.add_argument("--count", type=int, default=1000, help="how many of the frozen prompts, from the first")
    parser.add_argument("--steps", type=int, nargs="+", default=[20])
    parser.add_argument("--guidance", type=float, nargs="+", default=[4.0])
    parser.add_argument("--sampler", default="unipc")
    parser.add_argument("--sheets", type=Path, help="a folder for contact sheets")
    parser.add_argument("--manifest", action="store_true", help="keep the tables in the shipped model's manifest")
    options = parser.parse_args()
    pipe, judge = load_picture_book(options.model, pick_device()), load_judge(options.judge)
    results = {"machine": describe_machine(), "judge": judge_on_renders(pipe, judge, 200), "drawing": []}
    print(json.dumps(results["judge"], indent=2))
    for steps in options.steps:
        for guidance in options.guidance:
            row = measure(pipe, judge, load()[: options.count], steps, guidance, options.sampler)
            results["drawing"].append(row)
            print(json.dumps(row, indent=2), flush=True)
    if options.manifest:
        keep("metrics", results)
    if options.sheets:
        write_sheets(pipe, options.sheets)


if __name__ == "__main__":
    main()
