"""The digit classifier, trained on shifted and slightly noisy digits."""

from pathlib import Path

import torch
from torch.nn import functional as F

from course_utils.data import digits
from course_utils.models.digit_reader import DigitReader
from course_utils.pipelines.picture_book import CHECKPOINTS
from course_utils.recipes.task import Task, load_half, save_half


def build_reader(folder: Path, device: torch.device) -> Task:
    """Cross-entropy on the training digits, each moved by up to a pixel and with a little noise."""
    pictures, labels = digits.load(16)
    pictures, labels = pictures.to(device), labels.to(device)
    model = DigitReader().to(device)

    def loss(model, samples):
        index = samples.integers(len(pictures)).to(device)
        x = F.pad(pictures[index], (1, 1, 1, 1), value=-1.0)
        moves = samples.integers(9, stream=1).tolist()
        x = torch.stack([one[:, m // 3 : m // 3 + 16, m % 3 : m % 3 + 16] for one, m in zip(x, moves, strict=True)])
        x = x + 0.1 * samples.normals(1, 16, 16, stream=2).to(device)
        return F.cross_entropy(model(x).float(), labels[index])

    def export(model):
        save_half(model, folder / "digit_reader")

    return Task(model, loss, export)


def load_reader(folder: Path = CHECKPOINTS / "digit_reader") -> DigitReader:
    """The trained digit classifier, in float32 on the CPU."""
    return load_half(DigitReader(), folder)
