"""Figures: the course's style, grids of pictures, loss curves, and a sentence in words under each figure.

`plot_*` functions draw on the axes they are given, or on new ones, and return the axes. `show` puts a
figure into the notebook together with its description, for those who cannot see it.
"""

import html
import io
import math
import re
import time
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy
import torch
from numpy.typing import ArrayLike
from PIL import Image

from course_utils.data.images import to_pil
from course_utils.language import label as label_in_use
from course_utils.language import language, text_width, translate_errors, translated, wrapped

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def use_style() -> None:
    """Draw all later figures in the course's style: large enough type, colours for all eyes, a light grid.

    In another language than English figures get its font, and errors are shown in it.
    """
    import matplotlib.pyplot as plt

    with resources.as_file(resources.files("course_utils") / "course.mplstyle") as path:
        plt.style.use(path)
    if language() == "zh":
        from matplotlib import font_manager

        with resources.as_file(resources.files("course_utils") / "fonts" / "CourseSansSC.otf") as path:
            font_manager.fontManager.addfont(path)
        plt.rcParams["font.family"] = ["Course Sans SC", "DejaVu Sans"]
        translate_errors()


def translate_figure(figure: "Figure") -> None:
    """Put the words on a figure into the language in use, as far as `course_utils.language` has them, in place."""
    from matplotlib.text import Text

    for text in figure.findobj(Text) if language() != "en" else ():
        if isinstance(text, Text) and re.search("[A-Za-z]{2}", text.get_text()):
            text.set_text(label_in_use(text.get_text()))


def picture_grid(pictures: torch.Tensor, columns: int | None = None, padding: int = 2, scale: int = 1) -> Image.Image:
    """Lay a batch of pictures out row by row on one white sheet, for instance to save it as a PNG.

    pictures: (batch, 1 or 3, height, width) in [-1, 1]. `columns`: about a square of them if not given.
    `padding`: pixels between pictures, after scaling. `scale`: whole factor by which each is enlarged.
    Raises ValueError for other shapes, and for numbers that cannot be.
    """
    if scale < 1 or padding < 0 or scale != int(scale):
        raise ValueError(f"Expected a whole scale >= 1 and a padding >= 0, got {scale} and {padding}.")
    tiles = to_pil(pictures)
    columns = _columns(len(tiles), columns)
    rows = math.ceil(len(tiles) / columns)
    width, height = tiles[0].width * scale, tiles[0].height * scale
    sheet_size = columns * (width + padding) - padding, rows * (height + padding) - padding
    sheet = Image.new("RGB", sheet_size, "white")
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        enlarged = tile.resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(enlarged.convert("RGB"), (column * (width + padding), row * (height + padding)))
    return sheet


def plot_pictures(
    pictures: torch.Tensor,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    ax: "Axes | None" = None,
    *,
    heads: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
) -> "Axes":
    """Show a batch of pictures row by row on one axes; return the axes.

    pictures: (batch, 1 or 3, height, width) in [-1, 1]; values outside are clipped.
    titles: one for each picture, above it. heads: one for each column, above the first row. rows: one for each row,
    at its left. Long ones are broken into lines. Raises ValueError for another number of them.
    """
    import matplotlib.pyplot as plt

    tiles = to_pil(pictures)
    columns = _columns(len(tiles), columns)
    number_of_rows = math.ceil(len(tiles) / columns)
    if titles is not None and heads is not None:
        raise ValueError("Expected titles (one for each picture) or heads (one for each column), got both.")
    if heads is not None:
        titles = [*_as_many(heads, columns, "head", "columns"), *[""] * (len(tiles) - columns)]
    titles = [""] * len(tiles) if titles is None else _as_many(titles, len(tiles), "title", "pictures")
    if ax is None:
        inches = max(0.75, min(2.4, 8 / columns))  # the width of one picture
    else:
        box = ax.get_window_extent()
        inches = box.width / ax.figure.dpi / columns
    # Lengths on the axes are in picture widths, so that titles (in points) need a conversion.
    font_size = 9
    line = 1.25 * font_size / 72 / inches
    letters = max(4, int(inches * 72 / (0.55 * font_size)))  # a letter is about 0.55 of its size wide
    titles = [wrapped(title, letters) for title in titles]
    labels = [""] * number_of_rows if rows is None else _as_many(rows, number_of_rows, "label", "rows")
    labels = [wrapped(label, 14) for label in labels]
    margin = max((text_width(part) for label in labels for part in label.split("\n")), default=0) * 0.5 * line
    tile_height = tiles[0].height / tiles[0].width
    bottoms, below = [], 0.0  # the lower edge of each row
    for first in range(0, len(tiles), columns):
        lines = max(title.count("\n") + 1 if title else 0 for title in titles[first : first + columns])
        below += lines * line + tile_height + 0.05
        bottoms.append(below)
    width = columns * 1.04 - 0.04 + margin
    if ax is None:
        _, ax = plt.subplots(figsize=(width * inches, below * inches))
    # Small pictures keep their pixels; larger ones would alias.
    interpolation = "nearest" if tiles[0].width <= 128 else "auto"
    for index, (tile, title) in enumerate(zip(tiles, titles, strict=True)):
        row, column = divmod(index, columns)
        left, bottom = column * 1.04, bottoms[row]
        extent = (left, left + 1, bottom, bottom - tile_height)
        ax.imshow(tile, extent=extent, cmap="gray", vmin=0, vmax=255, interpolation=interpolation)
        if title:
            ax.text(left + 0.5, bottom - tile_height - 0.03, title, ha="center", va="bottom", size=font_size)
    for label, bottom in zip(labels, bottoms, strict=True):
        if label:
            ax.text(-0.06, bottom - tile_height / 2, label, ha="right", va="center", size=font_size)
    ax.set(xlim=(-margin, columns * 1.04 - 0.04), ylim=(below, 0), aspect="equal")
    ax.axis("off")
    return ax


def _as_many(texts: Sequence[str], number: int, name: str, things: str) -> list[str]:
    """Return the texts as strings, if there are as many as things to be named."""
    if len(texts) != number:
        raise ValueError(f"Expected one {name} for each of the {number} {things}, got {len(texts)}.")
    return [str(text) for text in texts]


def plot_points(
    points: torch.Tensor,
    values: torch.Tensor | None = None,
    title: str = "",
    reach: float = 3.0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Show points of the plane, each as a dot, on axes from -reach to reach; return the axes.

    points: (number, 2). values: (number,), shown as colours from dark to light, to follow a point from one figure
    to the next. Raises ValueError for another shape.
    """
    import matplotlib.pyplot as plt

    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"Expected points of shape (number, 2), got {tuple(points.shape)}.")
    ax = plt.subplots(figsize=(3, 3))[1] if ax is None else ax
    x, y = points.detach().float().cpu().T
    colours = {"color": "#0072B2"} if values is None else {"c": values, "cmap": "viridis"}
    ax.scatter(x, y, s=5, linewidths=0, alpha=0.8, **colours)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title)
    ax.set(xlabel="first coordinate", ylabel="second coordinate")
    return ax


def smooth(values: ArrayLike, window: int) -> numpy.ndarray:
    """Return the mean of the `window` values around each value, of fewer at the two ends; (n,) float64.

    Around, not before: a mean over the past alone would lie above every falling loss.
    Raises ValueError for a window below 1 and for no values.
    """
    numbers = numpy.asarray(values, dtype=numpy.float64)
    if numbers.ndim != 1 or len(numbers) == 0 or window < 1:
        raise ValueError(f"Expected a list of numbers and a window >= 1, got {numbers.shape} and {window}.")
    weights = numpy.ones(min(window, 2 * len(numbers) - 1))
    first = len(weights) // 2  # where the full convolution's window is centred on the first value
    sums = numpy.convolve(numbers, weights)[first : first + len(numbers)]
    return sums / numpy.convolve(numpy.ones_like(numbers), weights)[first : first + len(numbers)]


def plot_loss(
    steps: Sequence[int],
    losses: Sequence[float],
    ax: "Axes | None" = None,
    window: int | None = None,
    log_scale: bool = False,
) -> "Axes":
    """Plot a loss at each step, pale and thin, and its running mean, dark and thick; return the axes.

    `window`: how many losses the mean takes together, see `smooth`; a twentieth of all if not given.
    Raises ValueError if there are not as many losses as steps, or if there are none.
    """
    import matplotlib.pyplot as plt

    steps, losses = list(steps), [float(loss) for loss in losses]
    if not losses or len(steps) != len(losses):
        raise ValueError(f"Expected a loss for each step, got {len(steps)} steps and {len(losses)} losses.")
    ax = plt.subplots()[1] if ax is None else ax
    ax.plot(steps, losses, color="#9A9A9A", linewidth=0.8, linestyle="-", label="each step")
    window = max(1, len(losses) // 20) if window is None else window
    ax.plot(steps, smooth(losses, window), color="#0072B2", linestyle="-", label="running mean")
    ax.set(xlabel="step", ylabel="loss", yscale="log" if log_scale else "linear")
    ax.legend()
    return ax


def show(figure: "Figure | Axes | Image.Image", description: str) -> None:
    """Put a figure into the notebook with a sentence that says in words what is to be seen in it.

    `figure`: a matplotlib figure, axes, or `PIL.Image`. The sentence is kept as the picture's alternative
    text and stands below it too, because JupyterLab (4.6) drops the alternative text of outputs.
    Outside a notebook only the sentence is printed. Raises ValueError for an empty description.
    """
    _display(figure, description)
    _caption(description)
    _close(figure)


class LivePlot:
    """A loss curve in the notebook that grows while the training runs.

        live = LivePlot("The loss of the autoencoder falls as it learns.")
        for record in train(...):
            live.update(record.step, record.loss)
        live.finish()

    It is redrawn at most once in `seconds`, and takes at most about a twentieth of the time.
    """

    def __init__(self, description: str, seconds: float = 1.0, log_scale: bool = False):
        self.description = _require_description(description)
        self.seconds = seconds
        self.log_scale = log_scale
        self.steps: list[int] = []
        self.losses: list[float] = []
        self._handle = None
        self._next_time = -math.inf

    def update(self, step: int, loss: float) -> None:
        """Note the loss of a step, and draw if it is time to."""
        self.steps.append(step)
        self.losses.append(float(loss))
        started = time.monotonic()
        if started >= self._next_time and _in_notebook():
            self._draw()
            took = time.monotonic() - started
            self._next_time = started + max(self.seconds, 20 * took)

    def finish(self) -> None:
        """Draw the whole curve a last time and put the description below it."""
        if self.losses:
            self._draw()
            _caption(self._sentence())

    def _draw(self) -> None:
        from matplotlib.figure import Figure

        figure = Figure()  # not pyplot's: the notebook would show that a second time
        plot_loss(self.steps, self.losses, ax=figure.subplots(), log_scale=self.log_scale)
        self._handle = _display(figure, self._sentence(), self._handle)

    def _sentence(self) -> str:
        recent = self.losses[-max(1, len(self.losses) // 20) :]
        mean = sum(recent) / len(recent)
        return f"{self.description} By step {self.steps[-1]} the loss is {mean:.4g} (mean of {len(recent)})."


def _columns(number: int, columns: int | None) -> int:
    """Return the number of columns, never more than there are pictures."""
    if columns is None:
        return math.ceil(math.sqrt(number))
    if columns < 1:
        raise ValueError(f"Expected at least one column, got {columns}.")
    return min(columns, number)


def _require_description(description: str) -> str:
    if not isinstance(description, str) or not description.strip():
        raise ValueError(
            f"Expected a sentence that says what the figure shows, for those who cannot see it, got {description!r}."
        )
    return description.strip()


def _in_notebook() -> bool:
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


def as_png(figure: "Figure | Axes | Image.Image") -> bytes:
    """Return a figure, axes or `PIL.Image` as the bytes of a PNG file."""
    file = io.BytesIO()
    if isinstance(figure, Image.Image):
        figure.save(file, format="png")
    else:
        whole: Any = getattr(figure, "figure", figure)  # of axes, the figure they are in
        translate_figure(whole)
        whole.savefig(file, format="png")
        opaque = Image.open(io.BytesIO(file.getvalue())).convert("RGB")  # a tenth smaller than with transparency
        file = io.BytesIO()
        opaque.save(file, format="png")
    return file.getvalue()


def _display(figure, description: str, handle=None):
    """Show the figure, or put it in the place of what `handle` showed; return the handle."""
    from IPython.display import display

    description = translated(_require_description(description))
    if not _in_notebook():
        return None
    data = {"image/png": as_png(figure), "text/plain": description}
    # Read by nbconvert's classic template, for one; dropped by JupyterLab 4.6, hence the caption.
    metadata = {"image/png": {"alt": description}}
    if handle is None:
        return display(data, raw=True, metadata=metadata, display_id=True)
    handle.update(data, raw=True, metadata=metadata)
    return handle


def _caption(description: str) -> None:
    from IPython.display import display

    description = translated(description)
    if not _in_notebook():
        print(description)
        return
    caption = f"<p><small>{html.escape(description)}</small></p>"
    display({"text/html": caption, "text/plain": description}, raw=True)


def _close(figure) -> None:
    """Tell pyplot to forget the figure, or the notebook would show it again at the end of the cell."""
    if not isinstance(figure, Image.Image):
        import matplotlib.pyplot as plt

        plt.close(getattr(figure, "figure", figure))
