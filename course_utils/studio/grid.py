"""X/Y/Z plots: settings that vary along axes, and one labelled sheet of what they give."""

import dataclasses
import re
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFont

from course_utils.pipelines.png_info import WEB_UI_SAMPLERS
from course_utils.studio.session import Request

MOST = 100  # pictures in a plot
NUMBER = r"-?\d+(?:\.\d+)?"
# 1-5, 1-9 (+2), 5-1 (-1), 0-1 [5]: from, to, perhaps a step or how many
RANGE = re.compile(rf"({NUMBER})\s*-\s*({NUMBER})\s*(?:\(([+-]\d+(?:\.\d+)?)\)|\[(\d+)\])?")
INK, PAPER, GREY = "#1b1b1b", "#ffffff", "#5c5c5c"


@dataclasses.dataclass(frozen=True)
class Kind:
    """What can stand along an axis: how a value is read (None: as text), and how a request is changed to it."""

    read: type | None
    change: Callable[[Request, object], Request]


def _setting(field: str) -> Callable[[Request, object], Request]:
    def change(request, value):
        return dataclasses.replace(request, settings=dataclasses.replace(request.settings, **{field: value}))

    return change


def _lora_weight(request: Request, value) -> Request:
    if not request.given.loras:
        raise ValueError("The axis LoRA weight needs a LoRA: choose one in the list first.")
    loras = tuple((file, value) for file, _ in request.given.loras)
    return dataclasses.replace(request, given=dataclasses.replace(request.given, loras=loras))


KINDS: dict[str, Kind] = {
    "seed": Kind(int, _setting("seed")),
    "steps": Kind(int, _setting("steps")),
    "guidance": Kind(float, _setting("guidance")),
    "sampler": Kind(None, _setting("sampler")),
    "words": Kind(None, lambda request, value: request),  # see `Axis.change`
    "negative prompt": Kind(None, _setting("negative_prompt")),
    "strength": Kind(float, _setting("strength")),
    "variation": Kind(float, _setting("variation")),
    "LoRA weight": Kind(float, _lora_weight),
}


@dataclasses.dataclass(frozen=True)
class Axis:
    """A name of KINDS, and its values. On the axis "words" the first value is replaced, in the prompt, by each."""

    name: str
    values: tuple

    def change(self, request: Request, value) -> Request:
        """The request with this value."""
        if self.name != "words":
            return KINDS[self.name].change(request, value)
        if self.values[0] not in request.settings.prompt:
            raise ValueError(
                f"The axis words replaces its first value, {self.values[0]!r}, but the prompt has no such words: "
                "begin with words of the prompt."
            )
        prompt = request.settings.prompt.replace(self.values[0], value)
        return dataclasses.replace(request, settings=dataclasses.replace(request.settings, prompt=prompt))

    def label(self, value) -> str:
        """What stands beside a row or above a column."""
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        return shown if self.name in ("words", "sampler") else f"{self.name} {shown}"


def parse_axis(name: str, text: str) -> Axis:
    """Read the values of an axis, as the Web UI writes them: "7, 8, 9"; of numbers also ranges.

    "1-5" is 1, 2, 3, 4, 5; "1-9 (+2)" is 1, 3, 5, 7, 9; "0-1 [5]" is five values from 0 to 1. A value with commas is
    put in double quotes. Raises ValueError, in one sentence, for an unknown axis, for no values, and for a wrong one.
    """
    if name not in KINDS:
        raise ValueError(f"There is no axis {name!r}: choose one of {', '.join(KINDS)}.")
    parts = [(part[1:-1] if part.startswith('"') else part).strip()
             for part in re.findall(r'\s*("[^"]*"|[^,]+)', text)]  # fmt: skip
    parts = [part for part in parts if part]
    if not parts:
        raise ValueError(f"The axis {name} has no values: write some, such as {_example(name)}.")
    read = KINDS[name].read
    values = parts if read is None else [value for part in parts for value in _numbers(name, part, read)]
    if name == "sampler":
        wrong = [value for value in values if value not in WEB_UI_SAMPLERS]
        if wrong:
            raise ValueError(f"There is no sampler {wrong[0]!r}: choose of {', '.join(WEB_UI_SAMPLERS)}.")
    if len(values) > MOST:
        raise ValueError(f"The axis {name} has {len(values)} values, but a plot has {MOST} pictures at most.")
    return Axis(name, tuple(values))


def _example(name: str) -> str:
    return {"sampler": "unipc, euler", "words": "red, blue", "negative prompt": "night, snow", "seed": "1-4"}.get(
        name, "0-1 [3]" if name in ("strength", "variation") else "2, 4, 8"
    )


def _numbers(name: str, part: str, read: type) -> list:
    """The numbers of a value or of a range."""
    match = RANGE.fullmatch(part)
    if match is None:
        try:
            return [read(part)]
        except ValueError:
            whole = "whole numbers" if read is int else "numbers"
            raise ValueError(
                f"The axis {name} has {whole} and ranges such as {_example(name)}, but got {part!r}."
            ) from None
    start, end = float(match[1]), float(match[2])
    if match[4]:
        count = int(match[4])
        values = [start + (end - start) * i / max(count - 1, 1) for i in range(min(count, MOST + 1))]
    else:
        step = float(match[3] or (1 if end >= start else -1))
        if step == 0 or (end - start) * step < 0:
            raise ValueError(f"The range {part!r} never gets from {start:g} to {end:g}: give its step the other sign.")
        values = [start + step * i for i in range(min(int((end - start) / step + 1e-9), MOST) + 1)]
    return [round(value) if read is int else round(value, 6) for value in values]


@dataclasses.dataclass(frozen=True)
class Plot:
    """Requests of one picture each, in the order z, y, x; `shape` is (len(z), len(y), len(x))."""

    axes: tuple[Axis | None, Axis | None, Axis | None]  # x, y, z
    requests: tuple[Request, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = (1 if axis is None else len(axis.values) for axis in self.axes)
        return z, y, x


def plan(request: Request, x: Axis, y: Axis | None = None, z: Axis | None = None) -> Plot:
    """Return the requests of a plot: all of one seed, unless seeds vary. Raises ValueError for too many pictures.

    The seed must be chosen: with the dice each picture would have another one.
    """
    names = [axis.name for axis in (x, y, z) if axis is not None]
    if len(set(names)) < len(names):
        raise ValueError(f"Two axes of a plot are the same ({', '.join(names)}): choose different ones.")
    requests = [dataclasses.replace(request, count=1)]
    for axis in (z, y, x):
        if axis is not None:
            requests = [axis.change(one, value) for one in requests for value in axis.values]
    if len(requests) > MOST:
        raise ValueError(f"The plot has {len(requests)} pictures, but {MOST} at most are drawn: take fewer values.")
    return Plot((x, y, z), tuple(requests))


def sheet(plot: Plot, pictures: Sequence[Image.Image], scale: int = 2) -> Image.Image:
    """Put the pictures of a plot on one sheet: x stands above the columns, y beside the rows, z above each block.

    scale: pixels of the sheet for one of a picture. Raises ValueError for another number of pictures.
    """
    if len(pictures) != len(plot.requests):
        raise ValueError(f"Expected {len(plot.requests)} pictures for this plot, got {len(pictures)}.")
    blocks, rows, columns = plot.shape
    x, y, z = plot.axes
    width, height = (max(side) * scale for side in zip(*(picture.size for picture in pictures), strict=True))
    size = max(11, min(18, width // 9))
    font = ImageFont.load_default(size)
    line, gap = size + 8, 6

    def measure(text: str) -> int:
        return int(font.getlength(text))

    left = max([measure(y.label(value)) for value in y.values], default=0) + 2 * gap if y else gap
    left = min(left, 3 * width)
    step_x, step_y = width + gap, height + gap
    block_height = line * (1 + bool(z)) + rows * step_y + gap
    page = Image.new("RGB", (left + columns * step_x, blocks * block_height), PAPER)
    pen = ImageDraw.Draw(page)

    def write(text: str, place: tuple[float, float], most: int, ink: str, anchor: str) -> None:
        while text and measure(text) > most:
            text = text[:-2] + "…" if len(text) > 2 else ""
        pen.text(place, text, fill=ink, font=font, anchor=anchor)

    for number, picture in enumerate(pictures):
        block, row, column = number // (rows * columns), number // columns % rows, number % columns
        top = block * block_height + line * bool(z)
        if z and row == column == 0:
            write(z.label(z.values[block]), (gap, top - line / 2), page.width - 2 * gap, INK, "lm")
        if x and row == 0:
            middle = (left + column * step_x + width / 2, top + line / 2)
            write(x.label(x.values[column]), middle, width, INK, "mm")
        if y and column == 0:
            middle = (left - gap, top + line + row * step_y + height / 2)
            write(y.label(y.values[row]), middle, left - gap, INK, "rm")
        large = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
        page.paste(large, (left + column * step_x, top + line + row * step_y))
    return page
