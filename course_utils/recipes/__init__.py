"""How each part of the picture-book model is configured and trained: `train_part("vae", folder)` and so on.

A part trains in `folder/NAME/`, where its checkpoint lies, and when it is finished it is exported beside the others:
`folder/picture_book/` (the diffusers folder), `folder/clip/`, `folder/judge/`, `folder/digit_reader/` and
`folder/digits_unet/`.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from course_utils.machine.devices import autocast_dtype, budget, pick_device, profile
from course_utils.pipelines.picture_book import CHECKPOINTS, convert
from course_utils.recipes.clip import build_clip, fact_numbers, load_clip, true_pairs
from course_utils.recipes.digits_unet import build_digits_unet, load_digits_unet
from course_utils.recipes.judge import build_judge, load_judge
from course_utils.recipes.pictures import picture_set
from course_utils.recipes.reader import build_reader, load_reader
from course_utils.recipes.unet import build_unet, load_trained
from course_utils.recipes.vae import build_decoder, build_vae, encode_pictures
from course_utils.training import MovingAverage, Record, meet, train

__all__ = [
    "PARTS",
    "Part",
    "adopt",
    "encode_pictures",
    "fact_numbers",
    "load_clip",
    "load_digits_unet",
    "load_judge",
    "load_reader",
    "load_trained",
    "picture_set",
    "ship",
    "train_part",
    "true_pairs",
]


@dataclass(frozen=True)
class Part:
    """One part of the model: what it is, how long it trains, and `build(folder, device)`, which makes the task.

    goes_on: whether it can begin with its finished weights.
    """

    what: str
    build: Callable
    steps: int
    batch: int
    learning_rate: float
    ema: float = 0.999
    goes_on: bool = False


def train_part(
    name: str,
    folder: Path | str,
    steps: int | None = None,
    seed: int = 0,
    restart: bool = False,
    from_shipped: bool = False,
) -> Iterator[Record]:
    """Train one part (a key of PARTS), yielding a record after each update, and export it at the end.

    It goes on from the checkpoint in `folder/NAME` if there is one. from_shipped: all shipped parts that `folder` lacks
    are copied there (`adopt`), and without a checkpoint the part begins with the weights of its finished self.
    Raises ValueError for an unknown part, if an earlier part is missing in `folder`, or if the part cannot begin with
    finished weights.
    """
    if name not in PARTS:
        raise ValueError(f"expected a part out of: {', '.join(PARTS)}; got {name!r}")
    part, folder, device = PARTS[name], Path(folder), pick_device(quiet=True)
    if from_shipped and not part.goes_on:
        able = ", ".join(other for other in PARTS if PARTS[other].goes_on)
        raise ValueError(
            f"expected a part that can go on from the shipped one, {able}, got {name!r}; train it from "
            "nothing, without --from-shipped"
        )
    if from_shipped:
        adopt(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        task = part.build(folder, device)
    if from_shipped and task.begin:
        task.begin()
    average = MovingAverage(task.model, part.ema)
    steps = steps or budget(smoke=12, laptop=part.steps, gpu=part.steps)
    record = None
    for record in train(
        task.model,
        task.loss,
        steps=steps,
        batch=part.batch,
        folder=folder / name,
        seed=seed,
        learning_rate=part.learning_rate,
        average=average,
        precision=autocast_dtype(device),
        restart=restart,
    ):
        yield record
    if os.environ.get("RANK", "0") == "0":
        task.export(average.model)
        _write_record(folder / name, name, steps, seed, restart, from_shipped, record)
    meet()  # the next part reads what was exported


PARTS = {
    "vae": Part("the autoencoder: pictures to latents and back", build_vae, 16000, 8, 1e-3),
    "decoder": Part(
        "the autoencoder's decoder, finished on latents that stay", build_decoder, 20000, 8, 5e-4, goes_on=True
    ),
    "clip": Part("the text encoder, with its picture encoder", build_clip, 1500, 64, 1e-3),
    "unet": Part("the U-Net that predicts v, and with it the noise", build_unet, 24000, 32, 1e-3, goes_on=True),
    "judge": Part("the judge that reads pictures", build_judge, 2400, 32, 2e-3),
    "reader": Part("the reader of digits", build_reader, 1500, 64, 2e-3),
    "digits_unet": Part("the U-Net that draws digits", build_digits_unet, 4000, 32, 2e-3),
}


def _write_record(
    home: Path, name: str, steps: int, seed: int, restart: bool, from_shipped: bool, record: Record | None
) -> None:
    """Keep what the manifest says of a training: command, seed, steps, wall time, machine, versions."""
    if record is None:  # the run had ended before: nothing new to say
        return
    command = f"COURSE_PROFILE={profile()} python3 course.py train {name} --steps {steps} --seed {seed}"
    path = home / "record.json"
    before, shipped = (json.loads(p.read_text()) if p.exists() else None for p in (path, home / "shipped.json"))
    seconds = record.seconds
    if from_shipped:
        command = f"{shipped['command']} && {command} --from-shipped"
        steps, seconds = steps + shipped["steps"], seconds + shipped["seconds"]
    elif before not in (None, shipped) and not restart:  # a run that was made longer
        command = f"{before['command']} && {command}"
    facts = {
        "command": command,
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds),
        "final_loss": record.loss,
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
    }
    path.write_text(json.dumps(facts, indent=2) + "\n")


def adopt(folder: Path | str, source: Path = CHECKPOINTS) -> None:
    """Copy the shipped parts that `folder` lacks into it, each with the record of its training (see `ship`)."""
    folder = Path(folder)
    manifest = json.loads((source / "manifest.json").read_text())
    for name in manifest["files"]:
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            part = folder / f"{name}.{os.getpid()}.part"  # another process may be about to read what is half copied
            shutil.copyfile(source / name, part)
            os.replace(part, folder / name)
    for name, facts in manifest["training"].items():
        for record in ("shipped.json", "record.json"):
            if not (folder / name / record).exists():
                (folder / name).mkdir(parents=True, exist_ok=True)
                (folder / name / record).write_text(json.dumps(facts, indent=2) + "\n")


def ship(folder: Path | str, destination: Path = CHECKPOINTS) -> None:
    """Put the trained model and judge in the place of the shipped ones, and write `manifest.json` beside them.

    The manifest gives size and SHA-256 of each file and how each part was trained; `benchmarks/adherence.py
    --manifest` adds what is measured.
    Raises ValueError if a part has not been trained to its end in `folder`.
    """
    folder, destination = Path(folder), Path(destination)
    missing = [name for name in PARTS if not (folder / name / "record.json").is_file()]
    if missing:
        raise ValueError(
            f"expected all parts trained in {folder}, but {', '.join(missing)} are not; "
            f"train them first: python3 course.py train all --folder {folder}"
        )
    wanted = [path for path in sorted((folder / "picture_book").rglob("*")) if path.is_file()]
    of_clip = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    wanted += [folder / "clip" / name for name in of_clip]  # not its checkpoint, which lies there too
    wanted += [folder / "judge" / "config.json", folder / "judge" / "model.safetensors"]
    wanted += [folder / home / "model.safetensors" for home in ("digit_reader", "digits_unet")]
    for home in ("picture_book", "clip", "judge", "digit_reader", "digits_unet"):
        shutil.rmtree(destination / home, ignore_errors=True)
    files = {}
    for path in wanted:
        name = path.relative_to(folder)
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination / name)
        if name.as_posix() == "clip/model.safetensors":
            convert(destination / name, "float16")
        copied = (destination / name).read_bytes()
        files[name.as_posix()] = {"bytes": len(copied), "sha256": hashlib.sha256(copied).hexdigest()}
    training = {name: json.loads((folder / name / "record.json").read_text()) for name in PARTS}
    manifest = {"files": files, "training": training}
    (destination / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
