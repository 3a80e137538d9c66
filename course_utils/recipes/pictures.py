"""The pictures that the parts are trained on, drawn once and kept."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from tqdm.auto import tqdm

from course_utils.data import picture_book as book
from course_utils.machine.devices import budget
from course_utils.training import Samples

CAPTIONS_PER_SCENE = 8


@dataclass(frozen=True)
class PictureSet:
    """Scenes and their pictures, uint8 (count, 3, size, size)."""

    scenes: list
    pixels: torch.Tensor

    def pictures(self, index) -> torch.Tensor:
        """Pictures in [-1, 1], (batch, 3, size, size)."""
        return self.pixels[index].float() / 127.5 - 1


@lru_cache(maxsize=2)
def picture_set(count: int, split: str = "train", seed: int = 0) -> PictureSet:
    """Draw the first `count` scenes of a data set (see `picture_book.sample_scene`)."""
    scenes = [book.sample_scene(number, seed, split) for number in range(count)]
    pixels = torch.empty(count, 3, 64, 64, dtype=torch.uint8)
    for number, scene in enumerate(tqdm(scenes, "drawing the picture book", disable=count < 2000)):
        pixels[number] = torch.from_numpy(np.array(book.draw(scene))).permute(2, 0, 1)
    return PictureSet(scenes, pixels)


def scene_count() -> int:
    """How many scenes the parts are trained on, by the profile."""
    return budget(smoke=64, laptop=40_000, gpu=100_000)


def training_set(split: str = "train") -> PictureSet:
    """The scenes of the profile, drawn."""
    return picture_set(scene_count(), split)


def which_caption(samples: Samples) -> list[int]:
    """Which of its captions each sample takes, so that every scene is met in several words."""
    return samples.integers(CAPTIONS_PER_SCENE, stream=1).tolist()
