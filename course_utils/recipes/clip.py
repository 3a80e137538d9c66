"""The text encoder, trained with a picture encoder to find the caption of each picture."""

from pathlib import Path

import torch

from course_utils.data import picture_book as book
from course_utils.files import new_files
from course_utils.models.clip import Embed, contrastive_loss, small_clip
from course_utils.pipelines.picture_book import CHECKPOINTS, quiet
from course_utils.recipes.pictures import training_set, which_caption
from course_utils.recipes.task import Task, load_half, plain_attention
from course_utils.text.tokens import tokenize, train_tokenizer
from course_utils.training import Samples, gather

BLOCK = 32  # samples of `build_embedder` that look alike

# every word that `picture_book.facts` may hold
WORDS = {
    word: number
    for number, word in enumerate(
        (
            "nothing",
            "natural",
            "one",
            "two",
            "three",
            *book.SUBJECTS,
            *book.COLOURS,
            *book.ALL_POSES,
            *book.OPPOSITE,
            *book.PLACES,
            *book.STYLES,
        )
    )
}


def build_clip(folder: Path, device: torch.device) -> Task:
    """Symmetric InfoNCE between pictures and captions; captions that are true of another picture are no negatives."""
    data = training_set()
    tokenizer = train_tokenizer(book.caption(scene, k).text for scene in data.scenes for k in range(2))
    model = Embed(small_clip(tokenizer)).to(device)

    def loss(model, samples):
        return _contrast(model, tokenizer, data, samples.integers(len(data.scenes)), samples)

    return Task(model, loss, lambda model: _export(model, tokenizer, folder / "clip"))


def build_embedder(folder: Path, device: torch.device) -> Task:
    """The same for unCLIP, from CLIP's weights on, with batches that are hard: in a block all pages look alike.

    Among 64 pages of all kinds, a setting, a style and a colour nearly suffice to find a page's caption, so that the
    vectors of CLIP hold little else. Here a block of `BLOCK` samples shows one setting in one style, and only things,
    their colours, their number and their places tell its pages apart. CLIP is that in `folder`, or the shipped one.
    """
    data, (clip, tokenizer) = training_set(), clip_of(folder)
    groups: dict[tuple[str, str], list[int]] = {}
    for number, scene in enumerate(data.scenes):
        groups.setdefault((scene.place, scene.style), []).append(number)
    model = Embed(clip.requires_grad_(True)).to(device)

    def loss(model, samples):
        alike = Samples(samples.numbers // BLOCK, samples.seed).integers(len(data.scenes))
        blocks = [groups[data.scenes[i].place, data.scenes[i].style] for i in alike]
        chosen = zip(blocks, samples.uniforms(stream=2).tolist(), strict=True)
        index = torch.tensor([block[int(u * len(block))] for block, u in chosen])
        with plain_attention(device):
            return _contrast(model, tokenizer, data, index, samples)

    def begin():
        model.clip.load_state_dict(load_clip(folder / "embedder")[0].state_dict())

    return Task(model, loss, lambda model: _export(model, tokenizer, folder / "embedder", half=True), begin)


def _contrast(model, tokenizer, data, index: torch.Tensor, samples: Samples) -> torch.Tensor:
    """The contrastive loss of the pages `index` (batch,) and one caption of each."""
    scenes, device = [data.scenes[i] for i in index], next(model.parameters()).device
    captions = [book.caption(scene, k) for scene, k in zip(scenes, which_caption(samples), strict=True)]
    tokens = tokenize(tokenizer, [caption.text for caption in captions])
    image, text, scale = model(data.pictures(index).to(device), tokens.to(device))
    claims, facts = (gather(fact_numbers(said).to(device)) for said in (captions, scenes))
    return contrastive_loss(gather(image).float(), gather(text).float(), scale, true_pairs(facts, claims))


def _export(model, tokenizer, home: Path, half: bool = False) -> None:
    with new_files(home) as part:
        (model.clip.half() if half else model.clip).save_pretrained(part)
        tokenizer.save_pretrained(part)


def clip_of(folder: Path, name: str = "clip"):
    """The CLIP `name` and its tokenizer from `folder`, or the shipped ones where `folder` has none."""
    home = folder / name
    return load_clip(home if (home / "config.json").exists() else CHECKPOINTS / name)


def load_clip(folder: Path = CHECKPOINTS / "clip"):
    """The trained `transformers.CLIPModel`, in float32 on the CPU and not to be trained, and its tokenizer."""
    with quiet():
        from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

        clip = CLIPModel(CLIPConfig.from_pretrained(folder, local_files_only=True, dtype="float32"))
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return load_half(clip, folder).requires_grad_(False), tokenizer


def fact_numbers(described) -> torch.Tensor:
    """What captions claim, or what scenes show, as whole numbers: int64 (batch, facts), -1 where nothing is said."""
    rows = [book.facts(one.things, one.place, one.style, one.relation) for one in described]
    return torch.tensor([[-1 if word is None else WORDS[word] for word in row] for row in rows])


def true_pairs(facts: torch.Tensor, claims: torch.Tensor) -> torch.Tensor:
    """Return which caption is true of which picture, bool (pictures, captions): all that it claims is so.

    facts and claims: `fact_numbers` of the scenes and of the captions.
    """
    return ((claims[None] == facts[:, None]) | (claims[None] < 0)).all(-1)
