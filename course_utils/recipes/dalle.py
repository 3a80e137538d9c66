"""DALL·E in miniature: the transformer from a prompt to the codes of a picture."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm.auto import tqdm

from course_utils.data import picture_book as book
from course_utils.files import new_files
from course_utils.machine.devices import autocast_dtype
from course_utils.models.tokens_to_pixels import Dalle, DalleConfig, dalle_loss
from course_utils.pipelines.dalle import load_dalle, load_tokenizer, load_tokens_beside
from course_utils.pipelines.picture_tokens import PictureTokens
from course_utils.recipes.kept import fingerprint, keep, load_kept
from course_utils.recipes.pictures import scene_count
from course_utils.recipes.task import Task, plain_attention, save_half
from course_utils.recipes.unet import Prompted

# The U-Net meets a page with another noise each time, but nothing is new about a page's codes the second time, and they
# are learned by heart (chapter 13 measures it).
PAGES = 4  # times as many as the U-Net has
STRIDE, PART = 500, 10_000  # pages that are turned into codes at once, and before what there is is written down


def build_dalle(folder: Path, device: torch.device) -> Task:
    """L = 1/8 mean -log p(word) + 7/8 mean -log p(code), on the codes of four times the pages that the U-Net has.

    The prompt is dropped in a tenth of the samples, for guidance. The tokeniser of pictures is that in `folder`, or the
    shipped one where `folder` has none.
    """
    pictures, tokenizer = load_tokens_beside(folder, device), load_tokenizer(folder / "clip")
    config = DalleConfig(words=len(tokenizer), codes=pictures.count, side=pictures.side)
    data, model = prompted_codes(folder, pictures, tokenizer, config.length), Dalle(config).to(device)

    def loss(model, samples):
        codes, text = (part.to(device) for part in data(samples))
        with plain_attention(device):
            text_logits, code_logits = model(text, codes)
        return dalle_loss(text_logits, code_logits, text, codes)

    def begin():
        model.load_state_dict(load_dalle(folder / "dalle").model.state_dict())

    def export(model):
        with new_files(folder / "dalle") as part:
            save_half(model, part)
            (part / "config.json").write_text(json.dumps(asdict(model.config), indent=2) + "\n")

    return Task(model, loss, export, begin)


def prompted_codes(folder: Path, pictures: PictureTokens, tokenizer, length: int) -> Prompted:
    """data(samples) -> codes of pages (batch, places) and tokens of their prompts (batch, length), both int64."""
    scenes, codes = training_codes(folder, pictures, PAGES * scene_count())
    return Prompted(scenes, codes, tokenizer, length=length)


def training_codes(folder: Path, pictures: PictureTokens, count: int) -> tuple[list[book.Scene], torch.Tensor]:
    """The first `count` scenes of the training set and the codes of their pages, int64 (count, places).

    What has been encoded is kept in `folder/dalle`, and a later call, also after an interruption, goes on from there.
    """
    networks = (pictures.vae.encoder, pictures.vae.quant_conv, pictures.vq)
    weights = fingerprint(p for network in networks for p in network.parameters())
    path = folder / "dalle" / f"codes-{weights}.safetensors"
    scenes, codes = [book.sample_scene(number) for number in range(count)], load_kept(path, "codes")
    if codes is None:
        codes = torch.empty(0, pictures.side**2).int()
    number_format = autocast_dtype(pictures.vae.device)
    progress = tqdm(range(len(codes), count, STRIDE), "turning pages into codes", disable=count - len(codes) < 2000)
    for first in progress:
        with torch.autocast(pictures.vae.device.type, number_format, enabled=number_format != torch.float32):
            new = pictures.to_tokens(book.pictures(scenes[first : first + STRIDE]))
        codes = torch.cat([codes, new.int()])
        if len(codes) // PART > first // PART or len(codes) == count:
            keep(path, "codes", codes)
    return scenes, codes[:count].long()
