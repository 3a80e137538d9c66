"""How cost grows: with processes, and with the size of the picture, the batch and the network.

    python3 course.py benchmark scale [--rounds 5] [--figure FILE.png] [--json FILE]

First the U-Net's training in one and in two processes, with the same batch in all: the losses must be the same, and the
seconds of an update compare. Then one forward and backward of a U-Net without attention on one thread, for each size,
batch and width, all in turns; the exponent is the slope of a line through the logarithms, from the second point on.
Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.throughput import in_turns
from course_utils.machine.devices import describe_machine

STEPS, WARM = 14, 4
AXES = {"size": (16, 32, 64, 128), "batch": (1, 4, 16, 64), "width": (16, 32, 64, 128)}
USUAL = {"size": 32, "batch": 8, "width": 32}


def train_here(folder: Path) -> None:
    """What each process does: some updates of the U-Net; the first one writes losses and seconds into the folder."""
    from course_utils.recipes import train_part

    losses, times = [], []
    for record in train_part("unet", folder, steps=STEPS, from_shipped=True):
        losses.append(record.loss)
        times.append(time.perf_counter())
    if os.environ.get("RANK", "0") == "0":
        seconds = statistics.median(np.diff(times[WARM:]).tolist())
        (folder / "row.json").write_text(json.dumps({"losses": losses, "seconds": seconds}))


def processes(count: int) -> dict:
    """Losses and the median seconds of an update, with `count` processes of one thread each."""
    with tempfile.TemporaryDirectory() as home:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            str(count),
            "--master_port",
            "29533",
            "-m",
            "benchmarks.scale",
            "--worker",
            home,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COURSE_PROFILE": "smoke"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return json.loads((Path(home) / "row.json").read_text())


def update(size: int, batch: int, width: int):
    """A function: one forward and backward of a U-Net of three levels on pictures of that size."""
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        norm_num_groups=8,
        add_attention=False,
        block_out_channels=(width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
    )
    x, t = torch.randn(batch, 3, size, size), torch.zeros(batch, dtype=torch.long)
    return lambda: network(x, t).sample.square().mean().backward()


def exponent(xs, seconds) -> float:
    """k of seconds = c x^k, by least squares in the logarithms."""
    return float(np.polyfit(np.log(xs), np.log(seconds), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--figure", type=Path, help="a PNG for the curves")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train_here(options.worker)
        return
    torch.set_num_threads(1)
    alone, two = processes(1), processes(2)
    gap = max(abs(a - b) / a for a, b in zip(alone["losses"], two["losses"], strict=True))
    print(f"{describe_machine()}\n\n| processes | seconds an update | first and last loss |\n|--:|--:|:--|")
    for count, row in ((1, alone), (2, two)):
        print(f"| {count} | {row['seconds']:.3f} | {row['losses'][0]:.5f}, {row['losses'][-1]:.5f} |")
    print(
        f"\nlargest relative difference of a loss {gap:.1e}; "
        f"two processes are {alone['seconds'] / two['seconds']:.2f} times as fast\n\n"
        f"| {' | '.join(['', *['seconds'] * 4, 'exponent'])} |\n|:--|--:|--:|--:|--:|--:|",
        flush=True,
    )
    curves = {}
    for axis, xs in AXES.items():
        seconds = in_turns({x: update(**{**USUAL, axis: x}) for x in xs}, options.rounds)
        curves[axis] = [statistics.median(seconds[x]) for x in xs]
        cells = " | ".join(f"{x}: {value:.4g}" for x, value in zip(xs, curves[axis], strict=True))
        print(f"| {axis} | {cells} | {exponent(xs[1:], curves[axis][1:]):.2f} |", flush=True)
    if options.figure:
        draw(curves, options.figure)
    if options.json:
        numbers = {"machine": describe_machine(), "processes": {"1": alone, "2": two}, "axes": AXES, "seconds": curves}
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")


def draw(curves: dict[str, list[float]], path: Path) -> None:
    """The three curves on logarithmic axes."""
    import matplotlib.pyplot as plt

    from course_utils.plotting import use_style

    use_style()
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3), sharey=True)
    for ax, (axis, seconds) in zip(axes, curves.items(), strict=True):
        ax.loglog(AXES[axis], seconds, "o-")
        ax.set_xticks(AXES[axis], [str(x) for x in AXES[axis]])
        ax.minorticks_off()
        ax.set(xlabel=axis, title=f"exponent {exponent(AXES[axis][1:], seconds[1:]):.2f}")
    axes[0].set_ylabel("seconds, forward and backward")
    figure.savefig(path)


if __name__ == "__main__":
    main()
