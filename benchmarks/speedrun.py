"""A model of one's own from nothing on two cores: prompts followed after so many minutes. See `speedrun.md`.

    python3 course.py benchmark speedrun [--minutes 30] [--count 200] [--folder FOLDER] [--one-core] [--json FILE]

A planner and a painter (`course_utils/recipes/mine.py`) train side by side, each in one process on one core, for so
many minutes of processor time; drawing the pages counts. The judge, which only measures, is the shipped one.
--one-core: one after the other, where only one core is to be had; the processor time is the same.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm.auto import tqdm

from benchmarks.prompts import TASKS, Prompt, load
from course_utils.data.plans import plan_fault
from course_utils.machine.devices import describe_machine
from course_utils.metrics.pictures import faults
from course_utils.pipelines.mine import Mine, load_mine
from course_utils.recipes import load_judge
from course_utils.recipes.mine import PAGES
from course_utils.recipes.side_by_side import Progress, train_mine

BATCH = 20


def measure(mine: Mine, prompts: list[Prompt]) -> dict:
    """What share of the prompts the pages follow, by task and combination; how often the plan already fails."""
    plans, pages, start = [], [], time.process_time()
    for first in tqdm(range(0, len(prompts), BATCH), "drawing"):
        texts = [prompt.caption.text for prompt in prompts[first : first + BATCH]]
        seeds = [first + n for n in range(len(texts))]
        plans.append(mine.plan(texts, seeds))
        pages.append(mine.paint(texts, plans[-1], seeds))
    seconds = (time.process_time() - start) / len(prompts)
    of_plans = [plan_fault(plan, prompt.caption) for plan, prompt in zip(torch.cat(plans), prompts, strict=True)]
    wrong = faults(load_judge(), torch.cat(pages), [prompt.caption for prompt in prompts])

    def share(belongs, faults_of=wrong) -> float | None:
        chosen = [one is None for one, prompt in zip(faults_of, prompts, strict=True) if belongs(prompt)]
        return round(sum(chosen) / len(chosen), 3) if chosen else None

    return {
        "prompts": len(prompts),
        "seconds a picture": round(seconds, 2),
        "all": share(lambda p: True),
        "seen combinations": share(lambda p: not p.held_out),
        "held-out combinations": share(lambda p: p.held_out),
        "tasks": {task: share(lambda p, t=task: p.task == t) for task in TASKS},
        "faults": dict(Counter(one for one in wrong if one).most_common()),
        "plans that follow": share(lambda p: True, of_plans),
        "plans by task": {task: share(lambda p, t=task: p.task == t, of_plans) for task in TASKS},
        "faults of plans": dict(Counter(one for one in of_plans if one).most_common()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of processor time for each half")
    parser.add_argument("--count", type=int, default=200, help="how many of the frozen prompts, from the first")
    parser.add_argument("--pages", type=int, default=PAGES, help="drawn by each half")
    parser.add_argument("--folder", type=Path, help="where the model is kept; a run found there is gone on with")
    parser.add_argument("--one-core", action="store_true", help="train one half after the other")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    options = parser.parse_args()
    halves: dict[str, Progress] = {}
    with tempfile.TemporaryDirectory() as temporary:
        home, told = options.folder or Path(temporary), 0.0
        run = train_mine(
            home, options.minutes, pages=options.pages, processor_time=True, one_core=options.one_core, sheet_every=600
        )
        for progress in run:
            halves[progress.half] = progress
            if time.perf_counter() - told > 30:
                told = time.perf_counter()
                print(progress, flush=True)
        row = {
            "machine": describe_machine(),
            "halves": {half: asdict(progress) for half, progress in halves.items()},
            "drawing": measure(load_mine(home), load()[: options.count]),
        }
    print(json.dumps(row, indent=2))
    if options.json:
        options.json.write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
