"""Plans: what covers each patch of a page of the picture book, coarser than the page and without its drawing.

A plan is float32 (64, NUMBERS), one row for each of the 8 x 8 patches of 8 x 8 pixels, row by row:
the share of the patch that each kind of thing covers, each colour, each pose; the way to the centre of the thing, x and
y, in patches; and the share covered in each quarter of the patch. Where nothing stands, all is 0.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from course_utils.data import picture_book as book
from course_utils.metrics.pictures import fault
from course_utils.models.judge import Finding, Verdict

PATCH, SIDE = 8, 8
KINDS, COLOURS, POSES = tuple(book.SUBJECTS), (*book.COLOURS, "natural"), tuple(book.ALL_POSES)
KIND = slice(0, len(KINDS))
COLOUR = slice(KIND.stop, KIND.stop + len(COLOURS))
POSE = slice(COLOUR.stop, COLOUR.stop + len(POSES))
WAY = slice(POSE.stop, POSE.stop + 2)
QUARTERS = slice(WAY.stop, WAY.stop + 4)
NUMBERS = QUARTERS.stop


def plan_of(scene: book.Scene, things: np.ndarray) -> torch.Tensor:
    """The plan of a page. things: which thing is seen where, as `picture_book.page_and_things` tells."""
    plan = np.zeros((SIDE, SIDE, NUMBERS), dtype=np.float32)
    middle = np.arange(SIDE) + 0.5
    for number, (thing, spot) in enumerate(zip(scene.things, book.layout(scene), strict=True), 1):
        share = (things == number).reshape(SIDE, PATCH, SIDE, PATCH).mean((1, 3))  # (8, 8)
        plan[..., KIND.start + KINDS.index(thing.kind)] += share
        plan[..., COLOUR.start + COLOURS.index(book.seen_colour(thing) or "natural")] += share
        if thing.pose:
            plan[..., POSE.start + POSES.index(thing.pose)] += share
        x, y = (SIDE * at for at in spot.centre)
        near = np.minimum(3 * share, 1)
        plan[..., WAY.start] += near * (x - middle[None, :]).clip(-3, 3)
        plan[..., WAY.start + 1] += near * (y - middle[:, None]).clip(-3, 3)
    quarters = (things > 0).reshape(SIDE, 2, PATCH // 2, SIDE, 2, PATCH // 2).mean((2, 5))  # (8, 2, 8, 2)
    plan[..., QUARTERS] = quarters.transpose(0, 2, 1, 3).reshape(SIDE, SIDE, 4)
    return torch.from_numpy(plan.reshape(SIDE * SIDE, NUMBERS))


@dataclass
class _Heap:
    """Patches that point to the same centre: the sums of their shares and of their rows times their shares."""

    share: float
    row: torch.Tensor
    x: float
    y: float


def read_plan(plan: torch.Tensor) -> list[Finding]:
    """The things in a plan (64, NUMBERS): patches that point to the same place are one thing. Centres in pixels."""
    heaps: list[_Heap] = []
    for number, row in enumerate(plan):
        share = row[KIND].max().item()
        if share < 0.35:
            continue
        x = number % SIDE + 0.5 + row[WAY][0].item()
        y = number // SIDE + 0.5 + row[WAY][1].item()
        heap = next((h for h in heaps if math.hypot(h.x / h.share - x, h.y / h.share - y) < 1.1), None)
        if heap is None:
            heaps.append(_Heap(share, share * row, share * x, share * y))
        else:
            heap.share, heap.row = heap.share + share, heap.row + share * row
            heap.x, heap.y = heap.x + share * x, heap.y + share * y
    return [
        Finding(
            KINDS[heap.row[KIND].argmax()],
            COLOURS[heap.row[COLOUR].argmax()],
            POSES[heap.row[POSE].argmax()],
            1.0,
            PATCH * heap.x / heap.share,
            PATCH * heap.y / heap.share,
        )
        for heap in heaps
        if heap.share > 0.8
    ]


def plan_fault(plan: torch.Tensor, caption: book.Caption) -> str | None:
    """What keeps a plan from following its caption, as `metrics.pictures.fault`; place and style are not in it."""
    verdict = Verdict(tuple(read_plan(plan)), caption.place or "", caption.style or "")
    return fault(verdict, caption)
