"""The families of generative models, compared on the same data: one table that grows from chapter to chapter.

`compare(row)` prints what the course measured (`families.json`, written by `benchmarks/families.py`) and below it the
learner's own row.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from course_utils.language import label, text_width, translated

MEASURED = Path(__file__).with_name("families.json")
HEAD = ("family", "data", "parameters", "training", "a picture", "FID", "one thing", "bits/dim")
WIDTHS = (10, 18, 11, 8, 9, 7, 9, 9)


@dataclass(frozen=True)
class Row:
    """What one model costs and what it draws; None where there is no such number.

    data: "digits 16x16", "picture book 32x32" or "digits 8x8". parameters: how many. training_seconds: of processor
    time. seconds_per_picture: of sampling, in a batch. fid: `metrics.digit_fid` or `picture_book_fid` of 357 pictures.
    judge: `metrics.one_thing`, 0-1. bits_per_dim: of unseen data, or a bound that they lie below (`bound`).
    """

    family: str
    data: str
    parameters: int
    training_seconds: float
    seconds_per_picture: float
    fid: float
    judge: float | None = None
    bits_per_dim: float | None = None
    bound: bool = False


def measured() -> list[Row]:
    """The rows that the course measured, in the order of the chapters."""
    return [Row(**row) for row in json.loads(MEASURED.read_text(encoding="utf-8"))["rows"]]


def keep(rows: list[Row], facts: dict) -> None:
    """Write measured rows, and `facts` on how they were measured, into `families.json`."""
    text = json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=2)
    MEASURED.write_text(text + "\n", encoding="utf-8")


def compare(*own: Row, upto: str | None = None) -> None:
    """Print the measured rows of the families up to and with `upto` (None: all), then the learner's own ones.

    Raises ValueError for a family that was not measured.
    """
    rows = measured()
    if upto is not None:
        known = list(dict.fromkeys(row.family for row in rows))
        if upto not in known:
            raise ValueError(f"expected a family out of: {', '.join(known)}; got {upto!r}")
        rows = [row for row in rows if known.index(row.family) <= known.index(upto)]
    show(rows)
    if own:
        print(translated("your run:"))
        show(own, head=False)


def show(rows: Iterable[Row], head: bool = True) -> None:
    """Print rows as a table, with or without its head."""
    for cells in ([tuple(map(label, HEAD))] if head else []) + [_cells(row) for row in rows]:
        padded = ((cell, " " * max(0, w - text_width(cell))) for cell, w in zip(cells, WIDTHS, strict=True))
        print("  ".join(cell + blank if i < 2 else blank + cell for i, (cell, blank) in enumerate(padded)).rstrip())


def _cells(row: Row) -> tuple[str, ...]:
    bits = "–" if row.bits_per_dim is None else f"{'≤ ' if row.bound else ''}{row.bits_per_dim:.2f}"
    trained = f"{row.training_seconds:.0f} s" if row.training_seconds else "–"
    judge = "–" if row.judge is None else f"{row.judge:.0%}"
    return (
        label(row.family),
        label(row.data),
        f"{row.parameters:,}" if row.parameters else "–",
        trained,
        _time(row.seconds_per_picture),
        f"{row.fid:.3g}",
        judge,
        bits,
    )


def _time(seconds: float) -> str:
    if seconds == 0:
        return "–"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.2g} ms"
