"""The frozen 1,000 prompts that prompt adherence is measured on: `python -m benchmarks.prompts` writes the file again.

Six tasks in turn, named after GenEval's (arXiv:2310.11513), in all styles and places; two prompts of five name a
combination of subject, colour and place that was never trained on. The scenes behind the prompts belong to a data
set that nothing else uses.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from course_utils.data import picture_book as book

FILE = Path(__file__).with_name("prompts.jsonl")
DATA_SET, COUNT = 1000, 1000


@dataclass(frozen=True)
class Prompt:
    """A caption, the task that it belongs to, and whether it names a held-out combination."""

    caption: book.Caption
    task: str
    held_out: bool


def task_of(caption: book.Caption) -> str | None:
    """The task that a caption is for; None if for none of them alone."""
    coloured = [thing.colour is not None for thing in caption.things]
    if len(set(coloured)) > 1:
        return None
    if len(caption.things) == 1:
        return "colours" if coloured[0] else "one object"
    if caption.relation:
        return None if coloured[0] else "position"
    if caption.things[0].kind == caption.things[1].kind:
        return "counting"
    return "colour attribution" if coloured[0] else "two objects"


TASKS = ("one object", "two objects", "counting", "colours", "position", "colour attribution")


def make() -> list[Prompt]:
    """The prompts, from nothing: for each the next scene whose caption is for its task."""
    prompts, number = [], Counter()
    while len(prompts) < COUNT:
        task, held_out = TASKS[len(prompts) % len(TASKS)], len(prompts) % 5 in (1, 3)
        split = "held out" if held_out else "train"
        number[split] += 1
        caption = book.caption(book.sample_scene(number[split], DATA_SET, split), 0, turned=0.5)
        if caption.place and task_of(caption) == task:
            prompts.append(Prompt(caption, task, held_out))
    return prompts


def load() -> list[Prompt]:
    """The prompts of the file."""
    prompts = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        entry["caption"]["things"] = tuple(book.Thing(**thing) for thing in entry["caption"]["things"])
        prompts.append(Prompt(**{**entry, "caption": book.Caption(**entry["caption"])}))
    return prompts


if __name__ == "__main__":
    FILE.write_text("".join(json.dumps(asdict(prompt)) + "\n" for prompt in make()), encoding="utf-8")
