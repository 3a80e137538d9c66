"""The text encoder, trained with a picture encoder to find the caption of each picture."""

from pathlib import Path

import torch

from course_utils.data import picture_book as book
from course_utils.models.clip import Embed, contrastive_loss, small_clip
from course_utils.recipes.pictures import training_set, which_caption
from course_utils.recipes.task import Task
from course_utils.text import tokenize, train_tokenizer
from course_utils.training import gather

# every word that `picture_book.facts` may hold
WORDS = {word: number for number, word in enumerate((
    "nothing", "natural", "one", "two", "three", *book.SUBJECTS, *book.COLOURS, *book.ALL_POSES, *book.OPPOSITE,
    *book.PLACES, *book.STYLES))}


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
        claims = gather(_numbers([(c.things, c.place, c.style, c.relation) for c in captions]).to(device))
        facts = gather(_numbers([(c.things, c.place, c.style, c.relation) for c in scenes]).to(device))
        same = ((claims[None] == facts[:, None]) | (claims[None] < 0)).all(-1)  # [picture, caption]
        return contrastive_loss(gather(image).float(), gather(text).float(), scale, same)

    def export(model):
        model.clip.save_pretrained(folder / "clip")
        tokenizer.save_pretrained(folder / "clip")
        # in float32: loaded by itself, a text encoder keeps its dtype, while U-Net and VAE become float32
        model.clip.text_model.save_pretrained(folder / "picture_book" / "text_encoder")
        tokenizer.save_pretrained(folder / "picture_book" / "tokenizer")

    return Task(model, loss, export)


def _numbers(descriptions) -> torch.Tensor:
    """`picture_book.facts` of each description as whole numbers, (batch, facts); -1 where nothing is said."""
    return torch.tensor([[-1 if word is None else WORDS[word] for word in book.facts(*description)]
                         for description in descriptions])
