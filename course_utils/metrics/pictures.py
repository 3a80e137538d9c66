"""Numbers for pictures: how faithful a reconstruction is, how like real ones drawn ones are, and whether a picture
shows what its prompt says."""

import functools
import itertools
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cosine_similarity, interpolate

from course_utils.data import digits
from course_utils.data import picture_book as book
from course_utils.data.picture_book import Caption, seen_colour
from course_utils.metrics.distributions import frechet_distance
from course_utils.models.judge import THRESHOLD, Judge, Verdict, read
from course_utils.recipes import load_judge, load_reader
from course_utils.text.tokens import tokenize

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from transformers import CLIPModel, CLIPTokenizer


def psnr(pictures: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in decibels, (batch,), of pictures in [-1, 1]: 10 log10(2^2 / mean squared error)."""
    if pictures.shape != others.shape:
        raise ValueError(f"expected two batches of one shape, got {tuple(pictures.shape)} and {tuple(others.shape)}")
    return 10 * torch.log10(4 / (pictures - others).float().square().flatten(1).mean(1))


def iou(masks: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of two batches of masks, (batch,): 1 where they agree, 0 where they are apart.

        |A and B| / |A or B|,   1 where both are empty

    masks, others: (batch, height, width), bool. Raises ValueError for other shapes or kinds of numbers.
    """
    if masks.shape != others.shape or masks.ndim != 3 or masks.dtype != torch.bool or others.dtype != torch.bool:
        raise ValueError(
            f"Expected two bool batches (batch, height, width), got {tuple(masks.shape)} {masks.dtype} and "
            f"{tuple(others.shape)} {others.dtype}; compare with > 0 to get masks."
        )
    both, either = ((masks & others).flatten(1).sum(1), (masks | others).flatten(1).sum(1))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def follows(verdict: Verdict, caption: Caption) -> bool:
    """Whether the judge found what the caption names: each thing with its attributes, and no other thing.

    Like GenEval (arXiv:2310.11513), a picture is right or wrong as a whole.
    """
    return fault(verdict, caption) is None


def fault(verdict: Verdict, caption: Caption) -> str | None:
    """What keeps a picture from following its caption, None if nothing does.

    The first that applies of: style, place, one thing twice (instead of another one), a thing missing, a thing too
    many, another thing, colour, pose, side.
    """
    if caption.style not in (None, verdict.style):
        return "style"
    if caption.place not in (None, verdict.place):
        return "place"
    asked, found = (Counter(thing.kind for thing in things) for things in (caption.things, verdict.findings))
    missing, more = asked - found, found - asked
    if missing and more and more.keys() <= asked.keys():
        return "one thing twice"
    if len(verdict.findings) != len(caption.things):
        return "a thing missing" if missing else "a thing too many"
    orders = list(itertools.permutations(verdict.findings))
    for name, fits in (
        ("another thing", lambda found, thing: found.kind == thing.kind),
        ("colour", lambda found, thing: found.colour == (seen_colour(thing) or "natural")),
        ("pose", lambda found, thing: thing.pose in (None, found.pose)),
    ):
        orders = [order for order in orders if all(map(fits, order, caption.things))]
        if not orders:
            return name
    return None if any(_stands(order, caption.relation) for order in orders) else "side"


def _stands(order, relation: str | None) -> bool:
    """Whether the first finding's centre lies to this side of the second's, by at least four pixels."""
    if relation is None:
        return True
    right, down = order[0].x - order[1].x, order[0].y - order[1].y
    return {"left of": -right, "right of": right, "above": -down, "below": down}[relation] >= 4


def adherence(judge: Judge, pictures: torch.Tensor, captions: list[Caption]) -> float:
    """Prompt adherence, 0-1: the share of pictures (batch, 3, 64, 64) in [-1, 1] that follow their captions."""
    return sum(followed(judge, pictures, captions)) / len(captions)


def followed(judge: Judge, pictures: torch.Tensor, captions: list[Caption], threshold: float = THRESHOLD) -> list[bool]:
    """Which pictures follow their captions: those of which `faults` names none."""
    return [one is None for one in faults(judge, pictures, captions, threshold)]


def faults(
    judge: Judge, pictures: torch.Tensor, captions: list[Caption], threshold: float = THRESHOLD
) -> list[str | None]:
    """The `fault` of each of the pictures (batch, 3, 64, 64) in [-1, 1]; ValueError unless each has a caption.

    threshold: that of `models.judge.read`.
    """
    if len(pictures) != len(captions):
        raise ValueError(f"expected one caption a picture, got {len(pictures)} pictures and {len(captions)} captions")
    verdicts = (verdict for part in pictures.split(64) for verdict in read(judge, part, threshold))
    return [fault(v, c) for v, c in zip(verdicts, captions, strict=True)]


@torch.no_grad()
def clip_scores(
    clip: "CLIPModel", tokenizer: "CLIPTokenizer", pictures: torch.Tensor, texts: list[str]
) -> torch.Tensor:
    """Return the CLIP score of each picture with its own text, (batch,), from 0 to 100.

        100 max(0, cos(I, C)),   I and C: CLIP's embeddings of the picture and of the text

    pictures: (batch, 3, 64, 64) in [-1, 1]; texts: one for each. clip, tokenizer: of `recipes.load_clip`. A text of the
    wrong things scores low, a wrong arrangement of the right ones hardly lower: compare pictures, not texts.
    Source: Hessel et al., arXiv:2104.08718, section 3 (with 2.5 in place of 100). Raises ValueError unless there is one
    text for each picture.
    """
    if len(pictures) != len(texts) or not texts:
        raise ValueError(f"expected one text a picture, got {len(pictures)} pictures and {len(texts)} texts")
    scores = []
    for first in range(0, len(texts), 64):
        part = slice(first, first + 64)
        tokens = tokenize(tokenizer, texts[part], tokenizer.model_max_length)
        out = clip(pixel_values=pictures[part].to(clip.device), input_ids=tokens.to(clip.device))
        scores.append(100 * cosine_similarity(out.image_embeds, out.text_embeds).clamp(min=0).cpu())
    return torch.cat(scores)


def recall_at_k(similarity: torch.Tensor, k: int) -> float:
    """Return the share of queries, 0-1, whose own answer is among the k most similar ones.

    similarity: (n, n), queries in rows, answers in columns, query i's own answer in column i. Pictures in rows find
    captions; the transposed matrix says how well captions find pictures. Chance: k / n.
    Raises ValueError unless the matrix is square and 1 <= k <= n.
    """
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not 1 <= k <= len(similarity):
        raise ValueError(f"expected a square matrix (n, n) and k from 1 to n, got {tuple(similarity.shape)} and k={k}")
    own = torch.arange(len(similarity), device=similarity.device)[:, None]
    return (similarity.topk(k, dim=1).indices == own).any(1).float().mean().item()


@torch.no_grad()
def digit_fid(pictures: torch.Tensor) -> float:
    """Return the Fréchet distance of drawn digits (n, 1, 16, 16) in [-1, 1] to the 1,440 training digits.

    In the features of the course's own digit classifier; the network that is usual elsewhere was trained on
    photographs. The floor: `digit_fid(digits.load(16, "test")[0])`, 357 digits that are real.
    """
    reader = load_reader()
    return frechet_distance(reader.features(pictures.float().cpu()), reader.features(digits.load(16)[0]))


@torch.no_grad()
def picture_book_fid(pictures: torch.Tensor) -> float:
    """Return the Fréchet distance of drawn pictures (n, 3, 32, 32) in [-1, 1] to 1,000 pages with one thing.

    In the features of the judge, which sees each pixel doubled. The floor: that of `one_thing_pages(n, seed=1)`.
    """
    return frechet_distance(judge_features(pictures), _features_of_pages())


def one_thing_pages(count: int, seed: int = 0) -> list[book.Scene]:
    """Return the first scenes of the data set `seed` that show one thing in the picture book's own style."""
    scenes = (book.sample_scene(number, seed) for number in itertools.count())
    plain = (scene for scene in scenes if len(scene.things) == 1 and scene.style == "picture book")
    return list(itertools.islice(plain, count))


@torch.no_grad()
def judge_features(pictures: torch.Tensor) -> torch.Tensor:
    """Return what the judge sees in pictures (n, 3, 32, 32) in [-1, 1], each pixel doubled: (n, features)."""
    judge = load_judge()
    return torch.cat([judge.features(interpolate(part.float().cpu(), scale_factor=2)) for part in pictures.split(64)])


def one_thing(pictures: torch.Tensor) -> float:
    """Return the share of pictures (n, 3, 32, 32) in [-1, 1] in which the judge finds one thing, and just one."""
    judge = load_judge()
    verdicts = [
        verdict
        for part in pictures.split(64)
        for verdict in read(judge, interpolate(part.float().cpu(), scale_factor=2))
    ]
    return sum(len(verdict.findings) == 1 for verdict in verdicts) / len(pictures)


@functools.cache
def _features_of_pages() -> torch.Tensor:
    return judge_features(book.pictures(one_thing_pages(1000), 32))
