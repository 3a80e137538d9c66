"""A small classifier of handwritten digits, whose features measure how digit-like drawn pictures are."""

import torch
from torch import nn


class DigitReader(nn.Module):
    """Pictures (batch, 1, 16, 16) in [-1, 1] -> logits of the digits 0-9, (batch, 10).

    `features(pictures)` gives the 32 numbers, (batch, 32), that the logits are made of.
    """

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Linear(48 * 4 * 4, 32), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, 10)

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """What the reader sees in pictures, (batch, 32)."""
        if pictures.shape[1:] != (1, 16, 16):
            raise ValueError(
                f"expected pictures of shape (batch, 1, 16, 16), got {tuple(pictures.shape)}; "
                "digits.load(16) gives such"
            )
        return self.trunk(pictures)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(pictures))
