"""Stable Diffusion v1.5 at its full size, with random weights: seconds and peak memory of each way of running it.

    python3 course.py benchmark full_size [--steps 2] [--json FILE]

What a weight is changes neither time nor memory, so none is downloaded. Each way draws one picture of 512 x 512 with
guidance. *A step* is two evaluations of the U-Net; *at work* its share of what a large matrix product in the same
format reaches here; *peak* all memory taken on the device, with the weights. On a GPU, also with `torch.compile` and
with the parts offloaded.
"""

import argparse
import functools
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from course_utils.machine.devices import DTYPES, describe_machine, pick_device
from course_utils.machine.memory import gib, measure
from course_utils.machine.memory_plan import Plan
from course_utils.pipelines.picture_book import quiet
from course_utils.pipelines.stable_diffusion import FACTS, apply_plan, bare_parts

PARTS = ("text_encoder", "unet", "vae")


@dataclass(frozen=True)
class Way:
    """A way of running the pipeline: number format, what waits in main memory, whether the U-Net is compiled."""

    dtype: str
    offload: str = "none"
    compiled: bool = False


WAYS = {
    "cpu": (Way("float32"), Way("bfloat16")),
    "mps": (Way("float32"), Way("float16")),
    "cuda": (
        Way("float32"),
        Way("bfloat16"),
        Way("float16"),
        Way("float16", compiled=True),
        Way("float16", "model"),
        Way("float16", "sequential"),
    ),
}


def random_pipeline(dtype: torch.dtype, facts: dict = FACTS):
    """Stable Diffusion's parts with small random weights, in main memory, without tokenizer and safety checker."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    parts = bare_parts(PARTS, facts)
    for part in parts.values():
        with quiet():
            part.to(dtype).to_empty(device="cpu")
        for tensor in part.parameters():
            tensor.data.normal_(std=0.02)
    scheduler = DDIMScheduler.from_config(facts["scheduler"], clip_sample=False)
    pipe = StableDiffusionPipeline(
        **parts,
        tokenizer=None,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def flops_of_a_step(facts: dict = FACTS) -> int:
    """Multiplications and additions of two evaluations of the U-Net, counted on shapes alone."""
    unet = bare_parts(("unet",), facts)["unet"]
    empty, config = functools.partial(torch.empty, device="meta"), unet.config
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(
            empty(2, config.in_channels, config.sample_size, config.sample_size),
            empty(()),
            empty(2, 77, config.cross_attention_dim),
        )
    return counter.get_total_flops()


def matrix_flops(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Multiplications and additions a second of the product of two square matrices, the best of five."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(5):
        with measure(device) as took:
            a @ b
        seconds.append(took.seconds)
    return 2 * size**3 / min(seconds)


def run(way: Way, device: torch.device, steps: int, facts: dict = FACTS) -> dict:
    """Seconds of a guided step and of decoding, and the bytes at the peak."""
    words = torch.randn(1, 77, facts["text_encoder"]["hidden_size"], dtype=DTYPES[way.dtype], device=device)

    def draw(count, kind):
        with measure(device) as took:
            pipe(prompt_embeds=words, negative_prompt_embeds=words, num_inference_steps=count, output_type=kind)
        return took.seconds

    with measure(device) as took:
        pipe = random_pipeline(DTYPES[way.dtype], facts)
        apply_plan(pipe, Plan(device.type, way.dtype, way.offload, "whole", 0, True, ()), device)
        if way.compiled:
            pipe.unet = torch.compile(pipe.unet.to(memory_format=torch.channels_last))
        pipe(prompt_embeds=words, negative_prompt_embeds=words, num_inference_steps=1, output_type="pt")
    step = statistics.median(draw(steps, "latent") / steps for _ in range(3))
    whole = statistics.median(draw(1, "pt") for _ in range(3))
    return {**asdict(way), "step": step, "decode": max(0.0, whole - step), "peak": took.peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, help="guided steps timed at once")
    parser.add_argument("--json", type=Path, help="a file for the rows")
    options = parser.parse_args()
    device, flops, rows = pick_device(), flops_of_a_step(), []
    print(
        f"{describe_machine()}\na guided step: {flops / 1e9:.0f} GFLOP\n"
        "| format | offload | compiled | a step | decoding | at work | peak |\n|:--|:--|:--|--:|--:|--:|--:|"
    )
    for way in WAYS[device.type]:
        row = run(way, device, options.steps)
        best = matrix_flops(device, DTYPES[way.dtype], 2048 if device.type == "cpu" else 8192)
        rows.append(row := {**row, "at work": flops / row["step"] / best})
        print(
            f"| {way.dtype} | {way.offload} | {'yes' if way.compiled else 'no'} | {row['step']:.3g} s | "
            f"{row['decode']:.3g} s | {row['at work']:.0%} | {gib(row['peak'])} |",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
