"""The whole picture-book model from nothing: prompts followed after so many minutes on all cores.

    python3 course.py benchmark whole [--minutes 30] [--count 200] [--json FILE]

Autoencoder, text encoder and U-Net are trained one after the other, as `train` does, with one process for each core.
Each gets its share of the time: how many updates that are is found by trying some. Drawing the pages and encoding them
counts as well; the judge, which only measures, is the shipped one. Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.adherence import measure
from benchmarks.prompts import load
from course_utils.machine.devices import describe_machine, pick_device
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.recipes import load_judge, train_part
from course_utils.training import leave, meet

SHARES = {"vae": 0.3, "clip": 0.1, "unet": 0.6}
TRIED = 12  # updates, of which the last eight are timed


def train_here(folder: Path, minutes: float) -> None:
    """What each process does: train all parts, and keep what they took in `folder/rows.json`."""
    rows, first = {}, os.environ.get("RANK", "0") == "0"
    for name, share in SHARES.items():
        start, plan = time.perf_counter(), folder / f"{name}.json"
        times = [time.perf_counter() for _ in train_part(name, folder, TRIED)]
        if first:
            pace = (times[-1] - times[TRIED - 9]) / 8
            left = 60 * minutes * share - (time.perf_counter() - start)
            plan.write_text(json.dumps(max(TRIED + 1, round(left / pace))))
        meet()
        *_, record = train_part(name, folder, steps := json.loads(plan.read_text()), restart=True)
        rows[name] = {"updates": steps, "seconds": time.perf_counter() - start, "loss": record.loss}
    if first:
        (folder / "rows.json").write_text(json.dumps(rows))
    leave()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="for all parts together")
    parser.add_argument("--count", type=int, default=200, help="how many of the frozen prompts, from the first")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train_here(options.worker, options.minutes)
        return
    processes = 1 if torch.cuda.is_available() else os.cpu_count()
    with tempfile.TemporaryDirectory() as home:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc_per_node",
                str(processes),
                "-m",
                "benchmarks.whole",
                "--worker",
                home,
                "--minutes",
                str(options.minutes),
            ],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count() // processes)},
        )
        rows = json.loads((Path(home) / "rows.json").read_text())
        pipe = load_picture_book(Path(home) / "picture_book", pick_device())
        drawn = measure(pipe, load_judge(), load()[: options.count], 20, 4.0, "unipc")
    print(f"{describe_machine()}\n{processes} processes\n| part | updates | minutes |\n|:--|--:|--:|")
    for name, row in rows.items():
        print(f"| {name} | {row['updates']} | {row['seconds'] / 60:.1f} |")
    print(f"followed, of {options.count} prompts: {drawn['all']:.1%}; by task {drawn['tasks']}")
    if options.json:
        facts = {"machine": describe_machine(), "minutes": options.minutes, "parts": rows, "drawing": drawn}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
