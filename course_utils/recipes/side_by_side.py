"""The two halves of a model of one's own, trained side by side, each in a process of its own.

    python -m course_utils.recipes.side_by_side HALF FOLDER MINUTES     (what each process runs)

They share no gradient and wait for nothing, so two cores are used fully. Each says how it goes in lines of JSON.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from course_utils.recipes.mine import HALVES, PAGES, train_half

TELLS_EVERY = 2.0  # seconds


@dataclass(frozen=True)
class Progress:
    """How far a half is: updates made, seconds spent, the mean loss of late."""

    half: str
    step: int
    seconds: float
    loss: float


def train_mine(
    folder: Path,
    minutes: float,
    *,
    pages: int = PAGES,
    processor_time: bool = False,
    one_core: bool = False,
    sheet_every: float = 180.0,
) -> Iterator[Progress]:
    """Train both halves for so many minutes each, yielding how they go; `folder/sheet.png` is drawn again meanwhile.

    A run found in the folder is gone on with, also after Ctrl-C or kill -9. processor_time: count what each process
    computes, not the time that passes. one_core: one half after the other.
    Raises RuntimeError if a half fails; what it said stands on the terminal.
    """
    from course_utils.pipelines.mine import draw_sheet  # it imports `recipes.mine`

    drawn = time.perf_counter()
    for group in [[half] for half in HALVES] if one_core else [list(HALVES)]:
        with _running(group, folder, minutes, pages, processor_time) as told:
            for progress in told:
                yield progress
                exported = all((folder / half / "config.json").exists() for half in HALVES)
                if exported and time.perf_counter() - drawn > sheet_every:
                    draw_sheet(folder)
                    drawn = time.perf_counter()
    draw_sheet(folder)


@contextlib.contextmanager
def _running(halves: list[str], folder: Path, minutes: float, pages: int, processor_time: bool):
    """Start a process for each half; gives what they tell, until all have ended. Leaving early stops them in order."""
    command = [sys.executable, "-m", __name__]
    options = ["--pages", str(pages), *(["--processor-time"] if processor_time else [])]
    threads = str(max(1, (os.cpu_count() or 1) // len(halves) if not processor_time else 1))
    processes = {
        half: subprocess.Popen(
            [*command, half, str(folder), str(minutes), *options],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
        for half in halves
    }
    lines: queue.Queue[str | None] = queue.Queue()

    def listen(process):
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    for process in processes.values():
        threading.Thread(target=listen, args=(process,), daemon=True).start()

    def told():
        left = len(processes)
        while left:
            line = lines.get()
            if line is None:
                left -= 1
            elif line.startswith("{"):
                yield Progress(**json.loads(line))
        failed = [half for half, process in processes.items() if process.wait()]
        if failed:
            which = " and the ".join(failed)
            raise RuntimeError(f"the training of the {which} has failed, see above; the same command goes on with it")

    try:
        yield told()
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()  # it saves its run and ends
        for process in processes.values():
            process.wait()


def main() -> None:
    """Train one half and tell how it goes; at SIGTERM save the run and end. Ctrl-C is for the process above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=HALVES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--pages", type=int, default=PAGES)
    parser.add_argument("--processor-time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())  # an update that has begun is finished first
    clock = time.process_time if options.processor_time else time.perf_counter
    run, told = train_half(options.half, options.folder, options.minutes, clock, options.pages), 0.0
    losses: list[float] = []
    for record in run:
        losses = [*losses[-99:], record.loss]
        if record.seconds - told > TELLS_EVERY or record.seconds >= 60 * options.minutes:
            told = record.seconds
            progress = Progress(options.half, record.step, record.seconds, sum(losses) / len(losses))
            print(json.dumps(asdict(progress)), flush=True)
        if stopped.is_set():
            run.close()  # saves it


if __name__ == "__main__":
    main()
