"""DALL·E in miniature: the transformer from a prompt to the codes of a picture."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from course_utils.files import new_files
from course_utils.models.tokens_to_pixels import Dalle, DalleConfig, dalle_loss
from course_utils.pipelines.dalle import load_dalle, load_tokenizer, load_tokens_beside
from course_utils.pipelines.picture_tokens import PictureTokens
from course_utils.recipes.pictures import scene_count
from course_utils.recipes.task import Task, plain_attention, save_half
from course_utils.recipes.unet import Prompted, training_latents


def build_dalle(folder: Path, device: torch.device) -> Task:
    """L = 1/8 mean -log p(word) + 7/8 mean -log p(code), on the codes of the pages that the U-Net is trained on.

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
    scenes, latents = training_latents(folder, pictures.vae, scene_count())
    codes = torch.cat([pictures.latents_to_tokens(part) for part in latents.split(256)])
    return Prompted(scenes, codes, tokenizer, length=length)
