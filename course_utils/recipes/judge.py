"""The judge: a detector trained on renders, which says what a picture shows."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from course_utils.data import picture_book as book
from course_utils.files import new_files
from course_utils.machine.devices import placed
from course_utils.models.judge import Judge, JudgeConfig, detection_loss
from course_utils.pipelines.picture_book import CHECKPOINTS
from course_utils.recipes.pictures import training_set
from course_utils.recipes.task import Task, load_half, save_half


def build_judge(folder: Path, device: torch.device) -> Task:
    """A detector, trained on renders of *all* combinations: it must know what the other parts have never seen."""
    data = training_set("all")
    config = JudgeConfig(
        tuple(book.SUBJECTS), (*book.COLOURS, "natural"), book.ALL_POSES, book.PLACES, tuple(book.STYLES)
    )
    model = placed(Judge(config), device)
    size = data.pixels.shape[-1]
    answers = [answer(config, scene, size) for scene in data.scenes]
    things = torch.stack([things for things, _ in answers])
    wholes = torch.stack([whole for _, whole in answers])

    def loss(model, samples):
        index = samples.integers(len(data.scenes))
        noise = samples.normals(3, size, size, stream=1) * 0.06 * samples.uniforms(1, 1, 1, stream=2)
        maps = model((data.pictures(index) + noise).to(device))
        return detection_loss(maps, things[index].to(device), wholes[index].to(device))

    def export(model):
        with new_files(folder / "judge") as part:
            save_half(model, part)
            (part / "config.json").write_text(json.dumps(asdict(model.config), indent=2) + "\n")

    return Task(model, loss, export)


def answer(config: JudgeConfig, scene, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the judge should find in a scene, as `detection_loss` wants it."""
    last = size // config.stride - 1
    things = torch.full((3, 5), -1)
    for number, (thing, spot) in enumerate(zip(scene.things, book.layout(scene), strict=True)):
        column, row = (min(max(int(at * size / config.stride), 0), last) for at in spot.centre)
        colour = book.seen_colour(thing) or "natural"
        things[number] = torch.tensor(
            [
                config.kinds.index(thing.kind),
                config.colours.index(colour),
                config.poses.index(thing.pose) if thing.pose else -1,
                row,
                column,
            ]
        )
    return things, torch.tensor([config.places.index(scene.place), config.styles.index(scene.style)])


def load_judge(folder: Path = CHECKPOINTS / "judge") -> Judge:
    """The trained judge, in float32 on the CPU."""
    config: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads((folder / "config.json").read_text()).items()
    }
    return load_half(Judge(JudgeConfig(**config)), folder)
