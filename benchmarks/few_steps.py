"""The few-step student beside its teacher: prompts followed by task, and seconds for one picture.

    python3 course.py benchmark few_steps [--count 200] [--folder runs/few_steps] [--manifest]

- Followed: of the first frozen prompts, by the judge, with Wilson's 95% interval; picture i has seed i.
- Seconds: of one picture drawn by itself, the median of 16 after 2 to warm up.
"""

import argparse
import statistics
import time
from pathlib import Path

from benchmarks.adherence import keep
from benchmarks.prompts import TASKS, load
from benchmarks.systems import by_task, draw_all
from course_utils import systems
from course_utils.machine.devices import describe_machine, pick_device
from course_utils.recipes import load_judge

ROWS = [
    ("stable-diffusion", {"steps": 50}),
    ("stable-diffusion", {"steps": 20}),
    ("few-steps", {"steps": 4}),
    ("few-steps", {"steps": 2}),
    ("few-steps", {"steps": 1}),
]


def seconds_of_one(loaded: systems.Loaded, prompts: list[str], how: dict, warm: int = 2) -> float:
    """The median time of one picture drawn by itself, of these prompts after the first `warm`."""
    times = []
    for number, prompt in enumerate(prompts):
        start = time.perf_counter()
        loaded.draw([prompt], number, **how)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times[warm:]), 3)


def measure(loaded: systems.Loaded, how: dict, judge, prompts: list) -> dict:
    """A row: the system, its guidance, its steps, the prompts followed, and the time of one picture."""
    texts = [prompt.caption.text for prompt in prompts]
    return {
        "system": loaded.name,
        "guidance": systems.find(loaded.name).guidance,
        **how,
        **by_task(judge, draw_all(loaded, texts, **how), prompts),
        "seconds a picture": seconds_of_one(loaded, texts[:18], how),
    }


def table(rows: list[dict]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| system | steps | followed (95%, n) | " + " | ".join(TASKS) + " | s a picture |"]
    lines.append("|:--|" + "--:|" * (len(TASKS) + 3))
    for row in rows:
        of_all = "{percent}% ({from}–{to}, {n})".format(**row["followed"])
        tasks = ["{percent}%".format(**row["tasks"][task]) if task in row["tasks"] else "–" for task in TASKS]
        cells = [row["system"], row["steps"], of_all, *tasks, row["seconds a picture"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many of the frozen prompts, from the first")
    parser.add_argument("--folder", type=Path, help="the student's folder, such as runs/few_steps; none: the shipped")
    parser.add_argument("--manifest", action="store_true", help="keep the table in the shipped model's manifest")
    options = parser.parse_args()
    device, judge, prompts = pick_device(), load_judge(), load()[: options.count]
    rows = []
    for name, how in ROWS:
        loaded = systems.load(name, options.folder if name == "few-steps" else None, device)
        rows.append(measure(loaded, how, judge, prompts))
        print(rows[-1], flush=True)
    print(f"{describe_machine()}\n{table(rows)}")
    if options.manifest:
        keep("few_steps", {"machine": describe_machine(), "rows": rows})


if __name__ == "__main__":
    main()
