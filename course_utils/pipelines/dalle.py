"""DALL·E in miniature as a whole: a prompt to the codes of a picture, these to the picture; the best of several.

    prompt -> text -> Dalle -> codes -> PictureTokens -> picture,   and then the order of the pictures by CLIP

CLIP comes from `recipes.load_clip`, and is handed in.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from course_utils.models.clip import cosine_logits
from course_utils.models.tokens_to_pixels import Dalle, DalleConfig, sample
from course_utils.pipelines.model_folder import REMEDY, damaged, load_network, quiet
from course_utils.pipelines.picture_book import CHECKPOINTS, PICTURE_BOOK
from course_utils.pipelines.picture_tokens import WEIGHTS, PictureTokens, load_picture_tokens
from course_utils.text.tokens import tokenize

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from transformers import CLIPModel, CLIPTokenizer

DALLE = CHECKPOINTS / "dalle"
GUIDANCE = 3.0
BATCH = 16  # pictures at once; with guidance twice as many rows


class DallePipeline:
    """The parts of a text-to-image system: `model`, `tokenizer` of its prompts, `pictures`, the tokeniser of pictures.

    Raises ValueError, naming both parts, if they do not fit.
    """

    def __init__(self, model: Dalle, tokenizer: "CLIPTokenizer", pictures: PictureTokens):
        for name, mine, theirs, other in (
            ("codes", model.config.codes, pictures.count, "the tokeniser of pictures"),
            ("side", model.config.side, pictures.side, "the tokeniser of pictures"),
            ("words", model.config.words, len(tokenizer), "the tokenizer of prompts"),
        ):
            if mine != theirs:
                raise ValueError(
                    f"The parts do not fit: {name} of the transformer is {mine}, but of {other} {theirs}; take one "
                    "that was trained with the other."
                )
        self.model, self.tokenizer, self.pictures = model.eval().requires_grad_(False), tokenizer, pictures

    def text(self, prompts: Sequence[str]) -> torch.Tensor:
        """The tokens of prompts as the model reads them, int64 (batch, length)."""
        device = self.model.words.weight.device
        return tokenize(self.tokenizer, list(prompts), self.model.config.length).to(device)

    def tokens(self, prompts: Sequence[str], seed: int = 0, guidance: float = GUIDANCE, **how) -> torch.Tensor:
        """Draw the codes of a picture for each prompt, int64 (batch, places); picture i has the seed `seed + i`.

        how: temperature, top_k, top_p and cache of `models.tokens_to_pixels.sample`, which raises what it does.
        """
        null, drawn = self.text([""]), []
        for first in range(0, len(prompts), BATCH):
            part = prompts[first : first + BATCH]
            generators = [torch.Generator().manual_seed(seed + first + i) for i in range(len(part))]
            drawn.append(sample(self.model, self.text(part), generators, guidance=guidance, null=null, **how))
        return torch.cat(drawn).cpu()

    def __call__(self, prompts: Sequence[str], seed: int = 0, guidance: float = GUIDANCE, **how) -> torch.Tensor:
        """Draw a picture for each prompt: (batch, 3, 64, 64) in [-1, 1]. See `tokens`.

        Raises ValueError for no prompts, or one string instead of several.
        """
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"Expected a list of one prompt or more, got {prompts!r}; write [prompt], [prompt] * 4.")
        return self.pictures.to_pictures(self.tokens(prompts, seed, guidance, **how))


def load_dalle(folder: Path | str = DALLE, device=None) -> DallePipeline:
    """Return the model in `folder` with the parts beside it, in float32 on the device (None: the CPU).

    Beside it: `vq`, `clip` (the tokenizer) and the autoencoder of `picture_book`; the shipped ones where there are
    none. Raises ValueError, in one sentence, if there is no model that can be read, or the parts do not fit.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"There is no DALL·E in {folder}: {REMEDY}.")
    model = _load_transformer(folder)
    home = folder.resolve().parent
    return DallePipeline(
        model.to(device or "cpu"), load_tokenizer(home / "clip"), load_tokens_beside(home, device=device)
    )


def load_tokenizer(folder: Path) -> "CLIPTokenizer":
    """The tokenizer of prompts in `folder`, or the shipped one."""
    with quiet():
        from transformers import CLIPTokenizer

        folder = folder if (folder / "tokenizer.json").exists() else CHECKPOINTS / "clip"
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def load_tokens_beside(home: Path, device=None) -> PictureTokens:
    """The tokeniser of pictures that was trained in the folder `home`, with its autoencoder, or the shipped ones."""
    own, vae = home / "picture_book", None
    if (own / "unet").exists() and own.resolve() != PICTURE_BOOK:
        vae = load_network(own, "diffusers", "AutoencoderKL", f"vae/{WEIGHTS}")
    elif not (home / "vq" / "config.json").exists():
        home = CHECKPOINTS
    return load_picture_tokens(home / "vq", vae, device)


def _load_transformer(folder: Path) -> Dalle:
    from safetensors.torch import load_file

    try:
        model = Dalle(DalleConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError) as error:
        raise damaged(folder, "config.json", error) from error
    try:
        saved = load_file(folder / "model.safetensors")
        model.load_state_dict({name: value.float() for name, value in saved.items()})
    except Exception as error:  # a damaged file shows as any class
        raise damaged(folder, "model.safetensors", error) from error
    return model


@torch.no_grad()
def similarity(clip: "CLIPModel", tokenizer: "CLIPTokenizer", prompt: str, pictures: torch.Tensor) -> torch.Tensor:
    """Return how near each picture (n, 3, 64, 64) in [-1, 1] is to the prompt: the cosine in CLIP's space, (n,)."""
    out = clip(pixel_values=pictures.to(clip.device), input_ids=tokenize(tokenizer, [prompt]).to(clip.device))
    return cosine_logits(out.image_embeds, out.text_embeds, 1.0)[:, 0].cpu()


def rank(clip: "CLIPModel", tokenizer: "CLIPTokenizer", prompt: str, pictures: torch.Tensor) -> torch.Tensor:
    """Return the order of pictures (n, 3, 64, 64) by `similarity` with the prompt, the nearest first: int64 (n,).

    DALL·E shows the best of 512 (arXiv:2102.12092, section 2.6).
    """
    return similarity(clip, tokenizer, prompt, pictures).argsort(descending=True, stable=True)


def draw_best(
    pipe: DallePipeline, clip: "CLIPModel", prompt: str, candidates: int, seed: int = 0, keep: int = 1, **how
) -> torch.Tensor:
    """Draw `candidates` pictures of a prompt and keep those that CLIP finds nearest, best first: (keep, 3, 64, 64).

    The seeds are seed ... seed + candidates - 1. how: as in `DallePipeline.tokens`. The prompt's tokens are the same
    for CLIP as for the model. Raises ValueError unless 1 <= keep <= candidates.
    """
    if not 1 <= keep <= candidates:
        raise ValueError(f"Expected to keep 1 to {candidates} of {candidates} candidates, got keep={keep}.")
    pictures = pipe([prompt] * candidates, seed, **how)
    return pictures[rank(clip, pipe.tokenizer, prompt, pictures)[:keep]]
