"""The reader of digits, trained on shifted and slightly noisy ones."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from course_utils.data import digits
from course_utils.models.digit_reader import DigitReader
from course_utils.pipelines import CHECKPOINTS
from course_utils.recipes.task import Task

FILE = "model.safetensors"


def build_reader(folder: Path, device: torch.device) -> Task:
    """Cross-entropy on the training digits, each moved by up to a pixel and with a little noise."""
    pictures, labels = digits.load(16)
    pictures, labels = pictures.to(device), labels.to(device)
    model = DigitReader().to(device)

    def loss(model, samples):
        index = samples.integers(len(pictures)).to(device)
        x = F.pad(pictures[index], (1, 1, 1, 1), value=-1.0)
        moves = samples.integers(9, stream=1).tolist()
        x = torch.stack([one[:, m // 3:m // 3 + 16, m % 3:m % 3 + 16] for one, m in zip(x, moves, strict=True)])
        x = x + 0.1 * samples.normals(1, 16, 16, stream=2).to(device)
        return F.cross_entropy(model(x).float(), labels[index])

    def export(model):
        home = folder / "digit_reader"
        home.mkdir(parents=True, exist_ok=True)
        save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, home / FILE)

    return Task(model, loss, export)


def load_reader(folder: Path = CHECKPOINTS / "digit_reader") -> DigitReader:
    """The trained reader of digits, in float32 on the CPU."""
    reader = DigitReader()
    reader.load_state_dict({name: value.float() for name, value in load_file(folder / FILE).items()})
    return reader.eval()
