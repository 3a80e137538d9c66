"""What takes minutes to compute and is needed again: one tensor in a file, named after what it was computed with."""

import hashlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from course_utils.files import new_file, require_room, saying


def fingerprint(parameters: Iterable[torch.Tensor]) -> str:
    """Return the first twelve digits of the SHA-256 of these numbers, in their order: other weights, another name."""
    return hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in parameters)).hexdigest()[:12]


def kept(path: Path, name: str, shape: tuple[int, ...], make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Return the float32 tensor `name` of this shape from the file, or make it, and keep it there for the next start.

    Raises OSError, before anything is made, if there is no room for it.
    """
    tensor = load_kept(path, name)
    if tensor is not None and tensor.shape == shape:
        return tensor
    remedy = "keep the training in another folder (--folder on the command line)"
    require_room(path.parent, remedy, 4 * math.prod(shape))
    tensor = make()
    keep(path, name, tensor)
    return tensor


def load_kept(path: Path, name: str) -> torch.Tensor | None:
    """Return the tensor `name` of the file; None if there is none, or a damaged one: it can be made again."""
    try:
        return load_file(path)[name]
    except (OSError, SafetensorError, KeyError):
        return None


def keep(path: Path, name: str, tensor: torch.Tensor) -> None:
    """Write the tensor, whole or not at all. Raises OSError, which says what to do, if it cannot be written."""
    with saying(path, "no training is lost: free some room, and give the same command again"), new_file(path) as part:
        save_file({name: tensor}, part)
