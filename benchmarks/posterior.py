"""Pages from few pixels, a blur or half of their frequencies: the model as a prior against classical methods.

For each measurement, with and without the caption: PSNR of the mean of 16 samples against the best classical method on
the same pages, whose settings are chosen on these very pages; how often normal intervals of 50, 80 and 95% hold the
truth; and the widths with which they would hold it as often as they say.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from course_utils.data import measurements
from course_utils.data import picture_book as book
from course_utils.metrics import calibration
from course_utils.metrics.pictures import psnr
from course_utils.metrics.statistics import paired_interval
from course_utils.pipelines import reconstruction
from course_utils.pipelines.editing import decode_latents, encode_pictures
from course_utils.pipelines.picture_book import load_picture_book

DATA_SET = 16  # the model was trained on data set 0
NOISE, SHARE, WIDTH, LEVELS = 0.05, 0.1, 3.0, (0.5, 0.8, 0.95)


def instruments(size: int = 64) -> dict:
    """The three measurements."""
    mask, kept = measurements.pixel_mask(SHARE, size, torch.Generator().manual_seed(3)), measurements.wedge(size)
    return {
        "pixels": lambda x: measurements.keep_pixels(x, mask),
        "blur": lambda x: measurements.blur(x, WIDTH),
        "frequencies": lambda x: measurements.frequencies(x, kept),
    }


def classical(name: str, measure, y: torch.Tensor, shape) -> dict:
    """What the classical methods make of a measurement: name -> pictures."""
    found, start = {}, torch.zeros(shape)
    if name == "pixels":
        mask = (measure(torch.ones(1, 3, *shape[2:])) != 0)[:, :1].float()
        for method in ("linear", "cubic"):
            found[method] = reconstruction.interpolate_pixels(y, mask, method)
        found["biharmonic"], start = reconstruction.biharmonic(y, mask), found["linear"]
    elif name == "blur":
        for weight in (0.003, 0.01, 0.03):
            found[f"Wiener, {weight}"] = reconstruction.wiener(y, WIDTH, weight)
        for rounds in (5, 10, 30):
            found[f"Richardson-Lucy, {rounds} rounds"] = reconstruction.richardson_lucy(y, WIDTH, rounds)
    else:
        found["zero-filled"] = measurements.transposed(measure, y, shape)
    for weight in (0.001, 0.003, 0.01, 0.03, 0.1):
        found[f"total variation, {weight}"] = reconstruction.total_variation(measure, y, start, weight)
    return {method: pictures.clamp(-1, 1) for method, pictures in found.items()}


def samples_of(pipe, measure, y, prompts, number: int, seed: int, **how) -> torch.Tensor:
    """`number` samples for each measurement: (number, pages, 3, height, width), in batches of 16."""
    pages = len(y)
    everything = y.repeat(number, *[1] * (y.ndim - 1)), prompts * number
    drawn = []
    for start in range(0, number * pages, 16):
        dice = [torch.Generator().manual_seed(seed + i) for i in range(start, min(start + 16, number * pages))]
        part = slice(start, start + 16)
        drawn.append(
            reconstruction.reconstruct(pipe, measure, everything[0][part], NOISE, dice, everything[1][part], **how)
        )
    return torch.cat(drawn).unflatten(0, (number, pages))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=4, help="how many pages are measured")
    parser.add_argument("--first", type=int, default=0, help="the number of the first page")
    parser.add_argument("--samples", type=int, default=16, help="samples for each page")
    parser.add_argument("--steps", type=int, default=reconstruction.STEPS)
    parser.add_argument("--pull", type=float, default=0.5)
    parser.add_argument("--only", default="pixels,blur,frequencies")
    parser.add_argument("--captions", default="without,with")
    parser.add_argument("--keep", type=Path, help="a folder for samples, truth and numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = load_picture_book()
    numbers = range(options.first, options.first + options.pages)
    scenes = [book.sample_scene(number, DATA_SET, "train") for number in numbers]
    pages = book.pictures(scenes)
    floor = (decode_latents(pipe, encode_pictures(pipe, pages)) - pages).square().mean().sqrt().item()
    print(f"{len(pages)} pages, {options.samples} samples, {options.steps} steps, pull {options.pull}; the decoder's "
          f"own error {floor:.3f}", flush=True)  # fmt: skip
    for name in options.only.split(","):
        measure = instruments()[name]
        y = measurements.observe(measure, pages, NOISE, torch.Generator().manual_seed(options.first))
        plain = {method: psnr(found, pages) for method, found in classical(name, measure, y, pages.shape).items()}
        best = max(plain, key=lambda method: plain[method].mean())
        print(f"{name}: " + "; ".join(f"{m} {v.mean():.2f}" for m, v in plain.items()), flush=True)
        for told in options.captions.split(","):
            prompts = [book.caption(scene).text if told == "with" else "" for scene in scenes]
            started = time.perf_counter()
            drawn = samples_of(pipe, measure, y, prompts, options.samples, 100, steps=options.steps, pull=options.pull)
            mean, spread = calibration.mean_and_spread(drawn, floor)
            score, one = psnr(mean, pages), psnr(drawn.flatten(0, 1), pages.repeat(len(drawn), 1, 1, 1)).mean()
            low, high = paired_interval(score, plain[best])
            held = calibration.reliability(pages, mean, spread, LEVELS)
            widths = [calibration.calibrated_width(pages, mean, spread, level) for level in LEVELS]
            print(
                f"  {told} caption: mean {score.mean():.2f}, one sample {one:.2f} dB; over {best} "
                f"{(score - plain[best]).mean():+.2f} [{low:+.2f}, {high:+.2f}]; "
                f"held {[round(h, 3) for h in held]}, widths {[round(w, 2) for w in widths]}; "
                f"{time.perf_counter() - started:.0f} s",
                flush=True,
            )
            if options.keep:
                options.keep.mkdir(exist_ok=True, parents=True)
                tensors = {"drawn": drawn.half().contiguous(), "pages": pages.contiguous(), "y": y.contiguous()}
                save_file(tensors, options.keep / f"{name}_{told}_{options.first}.safetensors")
                record = {"psnr": score.tolist(), "classical": {m: v.tolist() for m, v in plain.items()},
                          "held": held, "widths": widths, "floor": floor}  # fmt: skip
                (options.keep / f"{name}_{told}_{options.first}.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
