"""How long each notebook takes, by profile, and its slowest cells.

    python3 course.py benchmark minutes [NUMBER ...] [--profiles smoke laptop] [--cells 3]

Runs the solutions from top to bottom, each in a kernel of its own, as `build` does, and leaves the notebooks as they
are. Leave the machine alone meanwhile.
"""

import argparse
import time
from pathlib import Path

import nbformat

from course_utils import authoring
from course_utils.authoring import execution
from course_utils.machine.devices import describe_machine

ROOT = Path(__file__).resolve().parent.parent


def minutes(path: Path, profile: str) -> tuple[float, list[tuple[float, str]]]:
    """Seconds for the whole notebook, and (seconds, cell id) of its cells, the slowest first."""
    notebook, began, taken = nbformat.read(path, as_version=4), {}, []
    client, environment = execution.client_for(
        notebook,
        ROOT,
        path.parent,
        on_cell_execute=lambda cell, cell_index: began.update({cell.id: time.perf_counter()}),
        on_cell_executed=lambda cell, cell_index, execute_reply: taken.append(
            (time.perf_counter() - began[cell.id], cell.id)
        ),
    )
    start = time.perf_counter()
    client.execute(env={**environment, "COURSE_PROFILE": profile})
    return time.perf_counter() - start, sorted(taken, reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="such as 05; none: all chapters")
    parser.add_argument("--profiles", nargs="+", default=["smoke", "laptop"])
    parser.add_argument("--cells", type=int, default=3, help="how many of the slowest to name")
    options = parser.parse_args()
    print(f"{describe_machine()}\n| notebook | profile | minutes | slowest cells |\n|:--|:--|--:|:--|")
    for source in authoring.source_paths(ROOT, options.numbers or None):
        for profile in options.profiles:
            seconds, cells = minutes(ROOT / "solutions" / f"{source.stem}.ipynb", profile)
            slow = ", ".join(f"{name} {took:.0f} s" for took, name in cells[: options.cells])
            print(f"| {source.stem} | {profile} | {seconds / 60:.1f} | {slow} |", flush=True)


if __name__ == "__main__":
    main()
