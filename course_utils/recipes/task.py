"""What a part hands to the training loop, and how small networks are kept."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from course_utils.files import new_file
from course_utils.models.blocks import PartlyTrained
from course_utils.training import Samples

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Task:
    """What `train` needs, and `export(model)`, which writes the trained (averaged) model for others to load.

    begin() takes the weights of the finished part in the folder instead of random ones; None: it has them, or cannot.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Samples], torch.Tensor]
    export: Callable[[nn.Module], None]
    begin: Callable[[], None] | None = None


def require_trained(folder: Path, part: str, needed: str) -> None:
    """Raise ValueError unless the training of `part` has left `needed`, a model's folder, in `folder`."""
    if not (folder / needed / "config.json").exists():
        raise ValueError(
            f"expected a trained {part} in {folder / needed}, found none; train it first: "
            f"python3 course.py train {part} --folder {folder}"
        )


def save_half(model: nn.Module, home: Path, name: str = "model.safetensors") -> None:
    """Write the model's tensors as float16 into the file `name` of the folder `home`, which is replaced as a whole.

    Of a `PartlyTrained`, only what is to be kept.
    """
    state = model.kept() if isinstance(model, PartlyTrained) else model.state_dict()
    tensors = {key: value.half().contiguous() for key, value in state.items()}
    with new_file(home / name) as part:
        save_file(tensors, part)


def load_half(model: Network, home: Path) -> Network:
    """Give the model what `save_half` wrote into `home`, as float32, and put it in evaluation mode."""
    saved = load_file(home / "model.safetensors")
    model.load_state_dict({name: value.float() for name, value in saved.items()})
    return model.eval()


def plain_attention(device: torch.device):
    """On a CPU the plain formula: torch's fused attention takes twice as long backward for 64 places."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()
