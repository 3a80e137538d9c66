"""The course's text-to-image systems side by side: prompts followed, FID, diversity, size, training and seconds.

    python3 course.py benchmark systems [--count 200] [--best-count 100 --candidates 16] [--seeds 16]
                                        [--rows stable-diffusion dalle best unclip] [--folder runs] [--manifest]

Rows: each system as `generate` draws with it, and the best of so many pictures of DALL·E by CLIP (`best`); `renders`
are what the program draws for the same prompts: the floor of the FID, and what the diversity is to be compared with.

- Followed: of the first frozen prompts, by the judge, with Wilson's 95% interval; picture i has seed i.
- FID: the Fréchet distance, in the features of the judge, to renders of what the prompts name, four for each. All rows
  have the same n, the smallest number of pictures that any has, since fewer pictures make it larger.
- Diversity: of twelve prompts with --seeds seeds each, as `variety` measures it: how far the place of a thing is from
  its mean, in pixels, and the standard deviation of a pixel.
- Numbers: the parameters of all networks that take part in drawing. Hours: seconds x processes x threads of the records
  of the parts' trainings. A record knows the processes and threads of its last run only.
- Seconds: for a picture that is kept, in batches of 16: of prompts, or of one prompt's candidates.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from benchmarks.adherence import keep
from benchmarks.prompts import TASKS, Prompt, load
from benchmarks.sampling import RENDERS, features, renders
from benchmarks.variety import scenes_to_draw, spread
from course_utils import systems
from course_utils.data import picture_book as book
from course_utils.machine.devices import describe_machine, pick_device
from course_utils.metrics.distributions import frechet_distance
from course_utils.metrics.pictures import followed
from course_utils.metrics.statistics import share
from course_utils.pipelines.picture_book import CHECKPOINTS
from course_utils.recipes import load_judge
from course_utils.recipes.record import read_record

BATCH = 16
ROWS = {"stable-diffusion": "stable-diffusion", "dalle": "dalle", "best": "dalle", "unclip": "unclip"}


def networks(name: str, parts: Any, candidates: int = 1) -> list[nn.Module]:
    """The networks of a system that take part in drawing, no two with the same parameters."""
    if name == "stable-diffusion":
        return [parts.text_encoder, parts.unet, parts.vae.post_quant_conv, parts.vae.decoder]
    if name == "dalle":
        (pipe, clip), vae, vq = parts, parts[0].pictures.vae, parts[0].pictures.vq
        drawn = [pipe.model, vq.quantize, vq.post_quant_conv, vq.decoder, vae.post_quant_conv, vae.decoder]
        return drawn + [clip] * (candidates > 1)
    pipe, clip = parts.pipe, parts.clip
    read = [clip.text_model, clip.text_projection, parts.prior, pipe.text_encoder]
    return [*read, parts.decoder, pipe.vae.post_quant_conv, pipe.vae.decoder]


def hours(trained: Sequence[str], folder: Path = CHECKPOINTS) -> float | None:
    """The processor hours that parts were trained for; None if a part has no record.

    The records are those in `folder`, where trainings leave them, or of the shipped parts, in the manifest.
    """
    shipped = json.loads((CHECKPOINTS / "manifest.json").read_text(encoding="utf-8"))["training"]
    records = [read_record(folder / part) or shipped.get(part) for part in trained]
    if None in records:
        return None
    seconds = sum(facts["seconds"] * facts.get("processes", 1) * facts.get("threads", 1) for facts in records)
    return round(seconds / 3600, 1)


def draw_all(loaded: systems.Loaded, texts: list[str], **how: Any) -> torch.Tensor:
    """One picture a prompt, picture i from seed i, (prompts, 3, 64, 64) in [-1, 1]."""
    starts = tqdm(range(0, len(texts), BATCH), f"{loaded.name} {how or ''}")
    return torch.cat([loaded.draw(texts[start : start + BATCH], start, **how) for start in starts])


def by_task(judge, pictures: torch.Tensor, prompts: list[Prompt]) -> dict:
    """The share of pictures that follow their prompts, of all and of each task that there is a prompt of."""
    hits = followed(judge, pictures, [prompt.caption for prompt in prompts])
    tasks = {task: [hit for hit, prompt in zip(hits, prompts, strict=True) if prompt.task == task] for task in TASKS}
    return {"followed": share(hits), "tasks": {task: share(some) for task, some in tasks.items() if some}}


def varied_prompts(seeds: int) -> list[str]:
    """The prompts of `variety`, each so many times in a row."""
    return [book.caption(scene).text for scene in scenes_to_draw() for _ in range(seeds)]


def measure(name: str, loaded: systems.Loaded, judge, prompts: list[Prompt], seeds: int, candidates: int) -> tuple:
    """Draw with a system; return (row, pictures of the prompts), the row without its FID."""
    how = {"candidates": candidates} if candidates > 1 else {}
    start = time.perf_counter()
    pictures = draw_all(loaded, [prompt.caption.text for prompt in prompts], **how)
    seconds = (time.perf_counter() - start) / len(prompts)
    system = systems.find(loaded.name)
    trained = system.trained + ("embedder",) * (candidates > 1)
    numbers = sum(p.numel() for one in networks(loaded.name, loaded.parts, candidates) for p in one.parameters())
    row = {
        "system": name,
        "guidance": system.guidance,
        **by_task(judge, pictures, prompts),
        "diversity": spread(judge, draw_all(loaded, varied_prompts(seeds), **how), seeds),
        "numbers": numbers,
        "trained parts": list(trained),
        "hours": hours(trained, loaded.folder.parent),
        "seconds a picture": round(seconds, 3),
        "batch": BATCH,
    }
    return row, pictures


def measure_renders(judge, prompts: list[Prompt], seeds: int) -> tuple:
    """The same of the program's own pictures: of the prompts, and of the scenes of `variety` with other seeds."""
    fresh = [book.Scene(scene.things, scene.place, 10**9 + n) for scene in scenes_to_draw() for n in range(seeds)]
    pictures = renders(prompts, RENDERS)
    diversity = spread(judge, book.pictures(fresh), seeds)
    return {"system": "renders", **by_task(judge, pictures, prompts), "diversity": diversity}, pictures


def with_fid(judge, measured: list[tuple], prompts: list[Prompt]) -> list[dict]:
    """The rows with their FID: of as many pictures in each as there are in the smallest."""
    n = min(len(pictures) for _, pictures in measured)
    reference = torch.cat([features(judge, renders(prompts[:n], number)) for number in range(RENDERS)])
    return [
        {**row, "FID": round(frechet_distance(features(judge, pictures[:n]), reference), 3), "pictures of the FID": n}
        for row, pictures in measured
    ]


def table(rows: list[dict]) -> str:
    """The rows as a table in Markdown."""
    names = ("system", "followed (95%, n)", *TASKS, f"FID (n = {rows[0]['pictures of the FID']})", "position, pixels",
             "s.d. of a pixel", "numbers", "hours", "trained parts", f"s a picture (batches of {BATCH})")  # fmt: skip
    lines = ["| " + " | ".join(names) + " |", "|:--|" + "--:|" * (len(names) - 1)]
    for row in rows:
        of_all = "{percent}% ({from}–{to}, {n})".format(**row["followed"])
        tasks = ["{percent}% ({from}–{to})".format(**row["tasks"][t]) if t in row["tasks"] else "–" for t in TASKS]
        facts = [*row["diversity"].values(), *map(row.get, ("numbers", "hours"))]
        facts += [", ".join(row.get("trained parts", [])) or None, row.get("seconds a picture")]
        cells = [row["system"], of_all, *tasks, row["FID"], *("–" if fact is None else fact for fact in facts)]
        lines.append("| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many of the frozen prompts, from the first")
    parser.add_argument("--best-count", type=int, default=100, help="the same of the row best, which costs more")
    parser.add_argument("--candidates", type=int, default=16, help="of how many pictures the best is kept there")
    parser.add_argument("--seeds", type=int, default=16, help="pictures of each prompt for the diversity")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--folder", type=Path, help="where the parts are, such as runs; none: the shipped ones")
    parser.add_argument("--manifest", action="store_true", help="keep the table in the shipped model's manifest")
    options = parser.parse_args()
    device, judge, prompts = pick_device(), load_judge(), load()[: options.count]
    measured = [measure_renders(judge, prompts, options.seeds)]
    for name in options.rows:
        system = systems.find(ROWS[name])
        loaded = systems.load(ROWS[name], options.folder and options.folder / system.folder.name, device)
        some, candidates = (options.best_count, options.candidates) if name == "best" else (options.count, 1)
        title = f"dalle (best of {candidates} by CLIP)" if name == "best" else name
        measured.append(measure(title, loaded, judge, prompts[:some], options.seeds, candidates))
        print(json.dumps(measured[-1][0]), flush=True)
    rows = with_fid(judge, measured, prompts)
    print(f"{describe_machine()}\n{table(rows)}")
    if options.manifest:
        keep("systems", {"machine": describe_machine(), "seeds": options.seeds, "rows": rows})


if __name__ == "__main__":
    main()
