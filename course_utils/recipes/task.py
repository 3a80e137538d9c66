"""What a part hands to the training loop."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from course_utils.training import Samples


@dataclass(frozen=True)
class Task:
    """What `train` needs, and `export(model)`, which writes the trained (averaged) model for others to load."""

    model: nn.Module
    loss: Callable[[nn.Module, Samples], torch.Tensor]
    export: Callable[[nn.Module], None]
