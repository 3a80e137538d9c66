"""Handwritten digits: 1,797 pictures of 8x8 pixels and 17 grey levels, which come with scikit-learn.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998); scikit-learn holds its test part. Level 0 is paper, level 16 is ink.
"""

import torch
from torch.nn.functional import interpolate

HIGHEST_LEVEL = 16  # the levels are 0, 1, ..., 16: seventeen of them


def load(size: int = 16, split: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    """Return the digits of one split and which digit each is.

    At size 8 a pixel of level k is x = k / 8 - 1, exactly. Larger sizes are blown up bilinearly, which
    makes prettier pictures but adds no information: a likelihood needs `levels`.

    Returns (pictures (n, 1, size, size) float32 in [-1, 1], labels (n,) int64 in 0..9).
    Raises ValueError for a size below 8 and for an unknown split.
    """
    if not isinstance(size, int) or size < 8:
        raise ValueError(f"Expected a whole size of at least 8, which the digits have, got {size!r}.")
    level, labels = _read(split)
    pictures = level.float()[:, None] / (HIGHEST_LEVEL / 2) - 1  # (n, 1, 8, 8)
    if size > 8:
        pictures = interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False)
    return pictures, labels


def levels(split: str = "train") -> torch.Tensor:
    """Return the levels as they were recorded: (n, 8, 8) int64 in 0..16. Raises ValueError as `load`."""
    return _read(split)[0]


def _read(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (levels, labels) of the split: every fifth group of ten pictures is a test group.

    Groups, because the file often runs 0, 1, ..., 9 over and over: every fifth picture would hardly
    ever be a 3. So the split is fixed, needs no random numbers and has all digits in equal shares.
    """
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
        raise ValueError(f'Expected split "train" or "test", got {split!r}.')
    digits = load_digits()
    level = torch.tensor(digits.images, dtype=torch.int64)  # (1797, 8, 8)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    in_test = torch.arange(len(labels)) // 10 % 5 == 4
    chosen = in_test if split == "test" else ~in_test
    return level[chosen], labels[chosen]
