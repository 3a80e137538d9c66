"""The text encoder, trained with a picture encoder to find the caption of each picture."""

from pathlib import Path

import torch

from course_utils.data import picture_book as book
from course_utils.files import new_files
from course_utils.models.clip import Embed, contrastive_loss, small_clip
from course_utils.pipelines.picture_book import CHECKPOINTS, quiet
from course_utils.recipes.pictures import training_set, which_caption
from course_utils.recipes.task import Task, load_half
from course_utils.text.tokens import tokenize, train_tokenizer
from course_utils.training import gather

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
        index = samples.integers(len(data.scenes))
        scenes = [data.scenes[i] for i in index]
        captions = [book.caption(scene, k) for scene, k in zip(scenes, which_caption(samples), strict=True)]
        tokens = tokenize(tokenizer, [caption.text for caption in captions])
        image, text, scale = model(data.pictures(index).to(device), tokens.to(device))
        claims, facts = (gather(fact_numbers(said).to(device)) for said in (captions, scenes))
        same = true_pairs(facts, claims)
        return contrastive_loss(gather(image).float(), gather(text).float(), scale, same)

    def export(model):
        with new_files(folder / "clip") as part:
            model.clip.save_pretrained(part)
            tokenizer.save_pretrained(part)

    return Task(model, loss, export)


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
