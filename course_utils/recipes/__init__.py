"""How each part of the picture-book model is configured and trained: `train_part("vae", folder)` and so on.

A part trains in `folder/NAME/`, where its checkpoint lies, and when it is finished it is exported beside the others:
`folder/picture_book/` (the diffusers folder), `folder/control/`, `folder/vq/`, `folder/dalle/`,
`folder/embedder/`, `folder/prior/`, `folder/unclip/`, `folder/clip/`, `folder/judge/`, `folder/digit_reader/` and
`folder/digits_unet/`.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from course_utils.checkpoint import alone, saved_run
from course_utils.files import new_file, new_folder, require_room, saying
from course_utils.machine.devices import autocast_dtype, budget, pick_device
from course_utils.pipelines.picture_book import CHECKPOINTS, NEEDED_FILES, convert
from course_utils.recipes.clip import build_clip, build_embedder, fact_numbers, load_clip, true_pairs
from course_utils.recipes.control import build_control
from course_utils.recipes.dalle import build_dalle, load_dalle
from course_utils.recipes.digits_unet import build_digits_unet, load_digits_unet
from course_utils.recipes.few_steps import build_few_steps
from course_utils.recipes.judge import build_judge, load_judge
from course_utils.recipes.pictures import picture_set
from course_utils.recipes.prior import build_prior, load_prior
from course_utils.recipes.reader import build_reader, load_reader
from course_utils.recipes.record import facts_of, read_record, write_record
from course_utils.recipes.unclip import build_unclip, load_unclip
from course_utils.recipes.unet import build_unet, load_trained
from course_utils.recipes.vae import build_decoder, build_vae, encode_pictures
from course_utils.recipes.vq import build_vq, load_vq
from course_utils.training import MovingAverage, Record, meet, train

__all__ = [
    "PARTS",
    "Part",
    "adopt",
    "encode_pictures",
    "fact_numbers",
    "load_clip",
    "load_dalle",
    "load_digits_unet",
    "load_judge",
    "load_prior",
    "load_reader",
    "load_trained",
    "load_unclip",
    "load_vq",
    "picture_set",
    "require_shippable",
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
    A part is finished when `folder/NAME/record.json` tells of its last update: until then the same call goes on, if
    only to export the model.
    Raises ValueError for an unknown part, if an earlier part is missing in `folder`, if the part cannot begin with
    finished weights, or if it is being trained there already.
    """
    if name not in PARTS:
        raise ValueError(f"expected a part out of: {', '.join(PARTS)}; got {name!r}")
    part, folder, first = PARTS[name], Path(folder), os.environ.get("RANK", "0") == "0"
    if from_shipped and not part.goes_on:
        able = ", ".join(other for other in PARTS if PARTS[other].goes_on)
        raise ValueError(
            f"expected a part that can go on from the shipped one, {able}, got {name!r}; train it from "
            "nothing, without --from-shipped"
        )
    if first:
        require_room(folder / name, "keep the training in another folder (--folder on the command line)")
    with alone(folder / name, ".part.lock") if first else contextlib.nullcontext():
        yield from _train_part(name, part, folder, steps, seed, restart, from_shipped)
    meet()  # the next part reads what was exported


def _train_part(
    name: str, part: Part, folder: Path, steps: int | None, seed: int, restart: bool, from_shipped: bool
) -> Iterator[Record]:
    device = pick_device(quiet=True)
    if from_shipped:
        adopt(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        task = part.build(folder, device)
    if from_shipped and task.begin:
        task.begin()
    average = MovingAverage(task.model, part.ema)
    steps = steps or budget(smoke=12, laptop=part.steps, gpu=part.steps)
    yield from train(
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
    )
    if os.environ.get("RANK", "0") == "0":
        kept = "the training is finished and its checkpoint kept: free some room, and give the same command again"
        with saying(folder / name, kept):
            task.export(average.model)
            write_record(folder / name, facts_of(saved_run(folder / name), folder / name, from_shipped))


PARTS = {
    "vae": Part("the autoencoder: pictures to latents and back", build_vae, 16000, 8, 1e-3),
    "decoder": Part(
        "the autoencoder's decoder, finished on latents that stay", build_decoder, 20000, 8, 5e-4, goes_on=True
    ),
    "clip": Part("the text encoder, with its picture encoder", build_clip, 1500, 64, 1e-3),
    "unet": Part("the U-Net that predicts v, and with it the noise", build_unet, 24000, 32, 1e-3, goes_on=True),
    "control": Part("the ControlNet that follows a line drawing", build_control, 4000, 16, 5e-4, goes_on=True),
    "vq": Part("the tokeniser: pictures to 64 whole numbers and back", build_vq, 22000, 16, 2e-3, goes_on=True),
    "dalle": Part("the transformer from a prompt to these numbers", build_dalle, 20000, 32, 2e-3, goes_on=True),
    "embedder": Part("the CLIP whose embeddings unCLIP draws", build_embedder, 3000, 64, 1e-3, goes_on=True),
    "prior": Part("the prior of unCLIP: from captions to CLIP's embeddings", build_prior, 4000, 64, 1e-3, goes_on=True),
    "unclip": Part("the decoder of unCLIP, told an embedding", build_unclip, 5000, 16, 2e-3, goes_on=True),
    "few_steps": Part("the student that draws in 1, 2 or 4 steps", build_few_steps, 3000, 16, 2e-3, goes_on=True),
    "judge": Part("the judge that reads pictures", build_judge, 2400, 32, 2e-3),
    "reader": Part("the reader of digits", build_reader, 1500, 64, 2e-3),
    "digits_unet": Part("the U-Net that draws digits", build_digits_unet, 4000, 32, 2e-3),
}


def adopt(folder: Path | str, source: Path = CHECKPOINTS) -> None:
    """Copy the shipped parts that `folder` lacks into it, each with the record of its training (see `ship`).

    Raises ValueError if the manifest of the shipped parts cannot be read.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
        files, training = list(manifest["files"]), dict(manifest["training"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"expected the list of the shipped files in {source / 'manifest.json'}, found none that can be read; fetch "
            "it with `git restore course_utils/checkpoints`"
        ) from error
    for name in files:
        if not (folder / name).exists():
            kept = "what was copied is kept: free some room, and give the same command again"
            with saying(folder / name, kept), new_file(folder / name) as part:
                shutil.copyfile(source / name, part)
    for name, facts in training.items():
        for record in ("shipped.json", "record.json"):
            if read_record(folder / name, record) is None:
                write_record(folder / name, facts, record)


def require_shippable(folder: Path, trained_now: str, destination: Path = CHECKPOINTS) -> None:
    """Raise ValueError if `ship` would fail after a training of the part `trained_now`, or "all", in `folder`."""
    require_room(destination.parent, "make it writable, or train without --ship")
    if trained_now != "all":
        _require_records(folder, set(PARTS) - {trained_now})


def _require_records(folder: Path, names) -> None:
    missing = [name for name in PARTS if name in names and read_record(folder / name) is None]
    if missing:
        raise ValueError(
            f"expected all parts trained in {folder}, but these are not: {', '.join(missing)}; "
            f"train them first: python3 course.py train all --folder {folder}"
        )


SHIPPED = {  # what `ship` takes of each folder; of picture_book all there is, and at least these
    "picture_book": tuple(names[0] for names in NEEDED_FILES),
    "control": ("config.json", "diffusion_pytorch_model.safetensors"),
    "vq": ("config.json", "diffusion_pytorch_model.safetensors"),
    "dalle": ("config.json", "model.safetensors"),
    "embedder": ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    "prior": ("config.json", "diffusion_pytorch_model.safetensors"),
    "unclip": ("model.safetensors",),
    "few_steps": ("model.safetensors",),
    "clip": ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    "judge": ("config.json", "model.safetensors"),
    "digit_reader": ("model.safetensors",),
    "digits_unet": ("model.safetensors",),
}


def ship(folder: Path | str, destination: Path = CHECKPOINTS) -> None:
    """Put the trained model and judge in the place of the shipped ones, and write `manifest.json` beside them.

    All is copied beside `destination`, with whatever else lies in that, and then exchanged for it at once.
    The manifest gives size and SHA-256 of each file and how each part was trained; `benchmarks/adherence.py
    --manifest` adds what is measured.
    Raises ValueError if a part has not been trained to its end in `folder`, OSError if it cannot be written.
    """
    folder, destination = Path(folder), Path(destination)
    _require_records(folder, PARTS)
    wanted = {f"{home}/{name}" for home, names in SHIPPED.items() for name in names}
    wanted |= {name for name in _files_in(folder) if name.startswith("picture_book/") and not name.endswith(".part")}
    missing = sorted(name for name in wanted if not (folder / name).is_file())
    if missing:
        raise ValueError(
            f"expected the trained model in {folder}, but {missing[0]} is missing; write it from the checkpoints: "
            f"python3 course.py train all --folder {folder}"
        )
    others = {name for name in _files_in(destination) if name.split("/")[0] not in (*SHIPPED, "manifest.json")}
    kept = "the shipped model is as it was: free some room, or make its folder writable, and give the command again"
    with saying(destination, kept), new_folder(destination) as new:
        files = {}
        for name in sorted(wanted | others):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile((destination if name in others else folder) / name, new / name)
            if name == "clip/model.safetensors":
                convert(new / name, "float16")
            if name in wanted:
                copied = (new / name).read_bytes()
                files[name] = {"bytes": len(copied), "sha256": hashlib.sha256(copied).hexdigest()}
        training = {name: read_record(folder / name) for name in PARTS}
        manifest = {"files": files, "training": training}
        (new / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _files_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
