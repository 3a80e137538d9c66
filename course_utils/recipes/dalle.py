"""DALL·E in miniature: the transformer from a prompt to the codes of a picture."""

import contextlib
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from course_utils.data import picture_book as book
from course_utils.files import new_file, new_files, require_room, saying
from course_utils.machine.devices import budget
from course_utils.models.tokens_to_pixels import Dalle, DalleConfig, dalle_loss
from course_utils.pipelines.dalle import load_dalle, load_tokenizer, load_tokens_beside
from course_utils.pipelines.picture_tokens import PictureTokens
from course_utils.recipes.task import Task, save_half
from course_utils.recipes.unet import prompts_of, weight
from course_utils.text.tokens import tokenize
from course_utils.training import Samples

HEAVIEST = 6  # of the `weight` of a page
CHUNK = 5_000  # pages whose codes are in one file


def build_dalle(folder: Path, device: torch.device) -> Task:
    """L = 1/8 mean -log p(word) + 7/8 mean -log p(code), on the codes of pages that are computed once and kept.

    The prompt is dropped in a tenth of the samples, for guidance. The tokeniser of pictures is that in `folder`, or the
    shipped one where `folder` has none.
    """
    pictures, tokenizer = load_tokens_beside(folder, device), load_tokenizer(folder / "clip")
    data = PromptedCodes(folder, pictures, tokenizer, page_count())
    model = Dalle(DalleConfig(words=len(tokenizer), codes=pictures.count, side=pictures.side)).to(device)

    def loss(model, samples):
        text, codes = (part.to(device) for part in data(samples))
        text_logits, code_logits = model(text, codes)
        return dalle_loss(text_logits, code_logits, text, codes)

    def begin():
        model.load_state_dict(load_dalle(folder / "dalle").model.state_dict())

    def export(model):
        with new_files(folder / "dalle") as part:
            save_half(model, part)
            (part / "config.json").write_text(json.dumps(asdict(model.config), indent=2) + "\n")

    return Task(model, loss, export, begin)


def page_count() -> int:
    """How many pages it is trained on, by the profile: nothing else makes a page's codes vary, so more than others."""
    return budget(smoke=64, laptop=100_000, gpu=200_000)


class PromptedCodes:
    """data(samples) -> tokens of prompts (batch, length) and codes of their pages (batch, places), both int64.

    Each page as often as any other; the pages are chosen so that styles and numbers of things are as frequent as in
    `PromptedLatents`, which takes some more often than others.
    """

    def __init__(
        self, folder: Path, pictures: PictureTokens, tokenizer, count: int, length: int = DalleConfig.length,
        dropped: float = 0.1,
    ):  # fmt: skip
        self.tokenizer, self.length, self.dropped = tokenizer, length, dropped
        self.scenes = chosen_scenes(count)
        self.codes = page_codes(folder / "dalle", pictures, self.scenes)

    def __call__(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        index = samples.integers(len(self.scenes))
        prompts = prompts_of([self.scenes[i] for i in index], samples, self.dropped)
        return tokenize(self.tokenizer, prompts, self.length), self.codes[index].long()


def chosen_scenes(count: int, seed: int = 0) -> list[book.Scene]:
    """The first `count` scenes of the training set that are taken, each with the probability weight / HEAVIEST."""
    scenes: list[book.Scene] = []
    number = 0
    while len(scenes) < count:
        scene = book.sample_scene(number, seed)
        if number % HEAVIEST < weight(scene):
            scenes.append(scene)
        number += 1
    return scenes


def page_codes(home: Path, pictures: PictureTokens, scenes: list[book.Scene]) -> torch.Tensor:
    """The codes of scenes, int32 (count, places), kept in `home` for the next start, in files of CHUNK scenes each.

    What is there already is not computed again, for the same tokeniser.
    """
    parts = (*pictures.vae.encoder.parameters(), *pictures.vae.quant_conv.parameters(), *pictures.vq.parameters())
    weights = hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in parts)).hexdigest()[:12]
    require_room(home, "keep the training in another folder (--folder on the command line)", 256 * len(scenes))
    chunks = [scenes[first : first + CHUNK] for first in range(0, len(scenes), CHUNK)]
    codes = []
    for number, chunk in enumerate(tqdm(chunks, "turning pages into codes", disable=len(chunks) < 2)):
        path = home / f"codes-{weights}-{number:03d}-{len(chunk)}.safetensors"
        kept = _kept(path, (len(chunk), pictures.side**2))
        if kept is None:
            kept = torch.cat([_codes(pictures, chunk[first : first + 32]) for first in range(0, len(chunk), 32)])
            remedy = "what is done is kept: free some room, and give the same command again"
            with saying(path, remedy), new_file(path) as part:
                save_file({"codes": kept}, part)
        codes.append(kept)
    return torch.cat(codes)


def _kept(path: Path, shape: tuple[int, int]) -> torch.Tensor | None:
    with contextlib.suppress(OSError, SafetensorError, KeyError):  # none there, or a damaged one
        codes = load_file(path)["codes"]
        if tuple(codes.shape) == shape:
            return codes
    return None


def _codes(pictures: PictureTokens, scenes: list[book.Scene]) -> torch.Tensor:
    return pictures.to_tokens(book.pictures(scenes)).int()
