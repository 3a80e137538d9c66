"""Where the seconds go: drawing pages, a training update, a prompt from start to file, and work beside other work.

    python3 course.py benchmark throughput [--rounds 9] [--json FILE]

What is compared is timed in turns (A B A B ...) in one run; a number is the median, with the least and the greatest.
Leave the machine alone meanwhile.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.families import one_of
from course_utils.machine.devices import describe_machine

BATCH = 32  # pictures an update, as in the training of the shipped U-Net
# Work that is done over and over, in a process of its own, which prints seconds a round: in one large piece, and in
# many small ones, between which threads wait for each other.
WORK = {
    "a large convolution": """
x, w = torch.randn(32, 64, 32, 32), torch.randn(64, 64, 3, 3, requires_grad=True)
def work(): torch.nn.functional.conv2d(x, w, padding=1).square().mean().backward()
""",
    "a U-Net": """
from course_utils.models.unet_by_hand import UNet, UNetConfig
model = UNet(UNetConfig(channels=8, widths=(32, 64, 96), attention=(False, True, True), cond_width=128))
x, t, words = torch.randn(16, 8, 16, 16), torch.arange(16), torch.randn(16, 32, 128)
def work(): model(x, t, words).square().mean().backward()
""",
}
TIMED = """
import time, torch
{work}
for count in range(45):
    if count == 5:
        start = time.perf_counter()
    work()
print((time.perf_counter() - start) / 40)
"""
# How threads wait for work: OMP_WAIT_POLICY, GOMP_SPINCOUNT, the number of threads (None: one for each core).
WAITING = {
    "one thread": (None, None, "1"),
    "spinning (torch's own)": (None, None, None),
    "asleep": ("passive", None, None),
    "asleep after 1,000 looks (the course's)": ("passive", "1000", None),
}
# `generate` as it draws without ONNX Runtime: by torch, diffusers and transformers.
BY_THE_LIBRARIES = """
import sys
from course_utils import cli
from course_utils.pipelines import quick
quick.can_draw = lambda *given: False
cli.app(sys.argv[1:])
"""
# The parts of each, timed where it happens.
QUICKLY = """
import time
marks = [("start", time.perf_counter())]
from course_utils import cli, systems
from course_utils.pipelines import quick, steering; marks.append(("quick: import", time.perf_counter()))
import onnxruntime; marks.append(("quick: import onnxruntime", time.perf_counter()))
model = quick.load_quick(systems.PICTURE_BOOK); marks.append(("quick: load", time.perf_counter()))
settings = systems.Settings("a cute corgi puppy sitting on the grass", width=64, height=64)
assert quick.can_draw(settings, 1, systems.PICTURE_BOOK); marks.append(("quick: checksums", time.perf_counter()))
list(quick.draw_in_turn(model, settings)); marks.append(("quick: 20 guided steps, decode", time.perf_counter()))
import json; print(json.dumps({name: after - before for (_, before), (name, after) in zip(marks, marks[1:])}))
"""
DRAW = """
import time
marks = [("start", time.perf_counter())]
import torch; marks.append(("import torch", time.perf_counter()))
import diffusers, transformers
from diffusers import StableDiffusionPipeline; marks.append(("import diffusers", time.perf_counter()))
from course_utils.pipelines.picture_book import load_picture_book, make_scheduler
pipe = load_picture_book(); marks.append(("load", time.perf_counter()))
pipe.scheduler = make_scheduler("unipc", pipe.scheduler.config)
with torch.no_grad():
    both = pipe.encode_prompt("a cute corgi puppy sitting on the grass", "cpu", 1, True)
    marks.append(("text", time.perf_counter()))
    latents = pipe(prompt_embeds=both[0], negative_prompt_embeds=both[1], num_inference_steps=20, guidance_scale=4.0,
                   output_type="latent").images
    marks.append(("20 guided steps", time.perf_counter()))
    pipe.vae.decode(latents / pipe.vae.config.scaling_factor); marks.append(("decode", time.perf_counter()))
import json; print(json.dumps({name: after - before for (_, before), (name, after) in zip(marks, marks[1:])}))
"""


def in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, called in turns; the first round, which warms up, is not counted."""
    seconds = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def pages(rounds: int) -> dict[str, list[float]]:
    """Seconds for a hundred pages, of each size, and for a hundred captions."""
    from course_utils.data import picture_book as book

    scenes = [book.sample_scene(number, 5) for number in range(100)]
    return in_turns(
        {
            "100 pages of 64 x 64": lambda: [book.draw(scene) for scene in scenes],
            "100 pages of 32 x 32": lambda: [book.draw(scene, 32) for scene in scenes],
            "100 captions": lambda: [book.caption(scene, 1) for scene in scenes],
        },
        rounds,
    )


def updates(rounds: int) -> dict[str, list[float]]:
    """Seconds of an update of the U-Net: the course's loop; forward, backward and optimizer alone, in two formats."""
    from course_utils.recipes import PARTS, adopt
    from course_utils.training import MovingAverage, Samples, train

    rate, device = PARTS["unet"].learning_rate, torch.device("cpu")
    with tempfile.TemporaryDirectory() as home:
        os.environ["COURSE_PROFILE"] = "smoke"  # few pages: an update takes as long
        adopt(home)
        loop, bare, plain = (PARTS["unet"].build(Path(home), device) for _ in range(3))

    def alone(task, precision):
        optimizer = torch.optim.AdamW(task.model.parameters(), lr=rate, fused=True)
        samples = Samples(torch.arange(BATCH).numpy(), 0)

        def update():
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                task.loss(task.model, samples).backward()
            optimizer.step()
            optimizer.zero_grad()

        return update

    records = train(
        loop.model,
        loop.loss,
        steps=10**9,
        batch=BATCH,
        learning_rate=rate,
        precision=torch.bfloat16,
        average=MovingAverage(loop.model),
    )
    return in_turns(
        {
            "the course's loop, bfloat16": lambda: next(records),
            "forward, backward, AdamW, bfloat16": alone(bare, torch.bfloat16),
            "forward, backward, AdamW, float32": alone(plain, torch.float32),
        },
        rounds,
    )


def run(code: str, **changes: str | None) -> str:
    """What a program prints that runs in a process of its own; None takes a variable out of its environment."""
    environment = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def from_start_to_file(rounds: int) -> dict[str, list[float]]:
    """Seconds of `generate` from the command line, as it is and by the libraries, and of each part of both.

    Of the whole also the seconds of all processors, which other work beside it changes less.
    """
    seconds = {}
    ways = {"generate": ["-m", "course_utils.cli"], "generate, by the libraries": ["-c", BY_THE_LIBRARIES]}
    for number in range(rounds + 1):
        parts = {}
        for name, start_it in ways.items():
            with tempfile.TemporaryDirectory() as home:
                command = [*start_it, "generate", "a corgi", "--output", f"{home}/a.png"]
                start, before = time.perf_counter(), os.times()
                subprocess.run([sys.executable, *command], check=True, capture_output=True)
                after = os.times()
            parts[f"{name}, from start to file"] = time.perf_counter() - start
            parts[f"{name}, processor time"] = sum(after[2:4]) - sum(before[2:4])  # of children
        parts |= json.loads(run(QUICKLY)) | json.loads(run(DRAW))
        for name, value in parts.items() if number else ():
            seconds.setdefault(name, []).append(value)
    return seconds


def beside_others(rounds: int) -> dict[str, list[float]]:
    """Seconds forward and backward, by how threads wait, with and without a busy process beside them."""
    seconds = {}
    for _ in range(rounds):
        for busy in (False, True):
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
            try:
                for (what, work), (name, (policy, looks, threads)) in itertools.product(WORK.items(), WAITING.items()):
                    number = threads or str(os.cpu_count())
                    code = TIMED.format(work=work)
                    took = run(code, OMP_WAIT_POLICY=policy, GOMP_SPINCOUNT=looks, OMP_NUM_THREADS=number)
                    beside = "one busy process beside" if busy else "alone"
                    seconds.setdefault(f"{what}, {name}, {beside}", []).append(float(took))
            finally:
                if other:
                    other.kill()
                    other.wait()
    return seconds


TABLES = {"pages": pages, "updates": updates, "generate": from_start_to_file, "beside": beside_others}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", type=one_of(TABLES), help=f"only these of: {', '.join(TABLES)}"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="a file for all seconds")
    options = parser.parse_args()
    print(describe_machine())
    measured = {}
    for name in options.names or TABLES:
        measured[name] = TABLES[name](options.rounds)
        print(f"\n| {name} | median | least | greatest |\n|:--|--:|--:|--:|")
        for what, seconds in measured[name].items():
            middle = statistics.median(seconds)
            print(f"| {what} | {middle:.4g} s | {min(seconds):.4g} | {max(seconds):.4g} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": describe_machine(), "seconds": measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
