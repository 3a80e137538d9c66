"""Three photographs that come inside scikit-image, so that no network is needed.

`chelsea`, a cat, by Stefan van der Walt (CC0); `astronaut`, Eileen Collins, by NASA (public domain);
`coffee`, a cup, by Rachel Michetti (CC0).
"""

import torch

from course_utils.data.images import to_tensor

# The squares cut from their centres have sides of 300, 512 and 400 pixels: larger sizes add no detail.
NAMES = ("chelsea", "astronaut", "coffee")


def load(name: str = "chelsea", size: int = 256) -> torch.Tensor:
    """Return the square at the photograph's centre: (1, 3, size, size), float32 in [-1, 1].

    Raises ValueError for a name that is not in `NAMES` and for a size below 1.
    """
    from skimage import data

    if name not in NAMES:
        raise ValueError(f"Expected one of the photographs {', '.join(NAMES)}, got {name!r}.")
    return to_tensor(getattr(data, name)(), size=size)
