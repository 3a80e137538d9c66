"""A model of one's own, from nothing: prompts followed after so many minutes on one core. See `speedrun.md`.

    python3 course.py benchmark speedrun [--minutes 60] [--count 200] [--folder FOLDER] [--curve 100] [--json FILE]

A planner and a painter (`course_utils/recipes/mine.py`) train one after the other on one thread, for so many minutes of
processor time in all; drawing the pages counts. The judge, which only measures, is the shipped one.
--curve: the painter as it was every ten minutes is tried too, on so many prompts.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from tqdm.auto import tqdm

from benchmarks.prompts import TASKS, Prompt, load
from course_utils.machine.devices import describe_machine
from course_utils.metrics.pictures import faults
from course_utils.metrics.plans import plan_fault
from course_utils.metrics.statistics import wilson_interval
from course_utils.pipelines.mine import PlannedPipeline, draw_sheet, load_mine
from course_utils.plotting import picture_grid
from course_utils.recipes import load_judge
from course_utils.recipes.mine import PAGES, SCENES, train_mine

BATCH = 20


def measure(mine: PlannedPipeline, prompts: list[Prompt]) -> tuple[dict, torch.Tensor]:
    """What share of the prompts the pages follow, by task and combination, how often the plan does; and the pages."""
    plans, pages, start = [], [], time.process_time()
    for first in tqdm(range(0, len(prompts), BATCH), "drawing"):
        texts = [prompt.caption.text for prompt in prompts[first : first + BATCH]]
        seeds = [first + n for n in range(len(texts))]
        plans.append(mine.plan(texts, seeds))
        pages.append(mine.paint(texts, plans[-1], seeds))
    seconds = (time.process_time() - start) / len(prompts)
    of_plans = [plan_fault(plan, prompt.caption) for plan, prompt in zip(torch.cat(plans), prompts, strict=True)]
    wrong = faults(load_judge(), torch.cat(pages), [prompt.caption for prompt in prompts])
    planned = [one for one, of_plan in zip(wrong, of_plans, strict=True) if of_plan is None]

    def share(belongs, faults_of=wrong) -> float | None:
        chosen = [one is None for one, prompt in zip(faults_of, prompts, strict=True) if belongs(prompt)]
        return round(sum(chosen) / len(chosen), 3) if chosen else None

    return {
        "prompts": len(prompts),
        "seconds a picture": round(seconds, 2),
        "all": share(lambda p: True),
        "interval": [round(end, 3) for end in wilson_interval(sum(one is None for one in wrong), len(wrong))],
        "seen combinations": share(lambda p: not p.held_out),
        "held-out combinations": share(lambda p: p.held_out),
        "tasks": {task: share(lambda p, t=task: p.task == t) for task in TASKS},
        "faults": dict(Counter(one for one in wrong if one).most_common()),
        "plans that follow": share(lambda p: True, of_plans),
        "plans by task": {task: share(lambda p, t=task: p.task == t, of_plans) for task in TASKS},
        "faults of plans": dict(Counter(one for one in of_plans if one).most_common()),
        "pages that follow where the plan does": round(sum(one is None for one in planned) / max(1, len(planned)), 3),
    }, torch.cat(pages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of processor time, for everything")
    parser.add_argument("--count", type=int, default=200, help="how many of the frozen prompts, from the first")
    parser.add_argument("--pages", type=int, default=PAGES, help="how many to draw and to train with")
    parser.add_argument("--folder", type=Path, help="where the model is kept; a run found there is gone on with")
    parser.add_argument("--curve", type=int, default=0, help="prompts for the painter of every ten minutes, none if 0")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        home, told, made = options.folder or Path(temporary) / "mine", 0.0, {}
        run = train_mine(
            home,
            options.minutes,
            scenes=max(SCENES, options.pages),
            pages=options.pages,
            clock=time.process_time,
            export_every=600,
        )
        for progress in run:
            made[progress.half] = {"updates": progress.record.step, "minutes": round(progress.record.seconds / 60, 2)}
            if time.perf_counter() - told > 30:
                told = time.perf_counter()
                print(f"{progress.minutes:.1f} minutes: {progress.half} {progress.record}", flush=True)
            if progress.exported and options.curve:
                earlier = Path(temporary) / f"{progress.minutes:.0f}"
                for half in ("planner", "painter"):
                    shutil.copytree(home / half, earlier / half)
        draw_sheet(home)
        drawing, pages = measure(load_mine(home), load()[: options.count])
        curve = {
            earlier.name: measure(load_mine(earlier), load()[: options.curve])[0]["all"]
            for earlier in sorted(Path(temporary).glob("[0-9]*"), key=lambda path: int(path.name))
        }
        picture_grid(pages[:24], columns=8, scale=2).save(home / "frozen.png")
    row = {"machine": describe_machine(), "minutes": options.minutes, "halves": made, "drawing": drawing}
    row |= {f"followed on the way, of {options.curve}, after minutes": curve} if options.curve else {}
    print(json.dumps(row, indent=2))
    if options.json:
        options.json.write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
