"""What keeps a plan of a page (`data.picture_book.plans`) from following its caption."""

import torch

from course_utils.data import picture_book as book
from course_utils.data.picture_book.plans import read_page, read_plan
from course_utils.metrics.pictures import fault
from course_utils.models.judge import Finding, Verdict


def plan_fault(plan: torch.Tensor, caption: book.Caption) -> str | None:
    """What keeps a plan from following its caption, as `metrics.pictures.fault`."""
    found = tuple(
        Finding(thing.kind, thing.colour, thing.pose or "", 1.0, 64 * thing.x, 64 * thing.y)
        for thing in read_plan(plan)
    )
    return fault(Verdict(found, *read_page(plan)), caption)
