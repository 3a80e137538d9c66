"""Explorers: a function that draws, and controls over its parameters.

An explorer's `draw(ax, **values)` is an ordinary function that draws on the axes (on a list of them if it has
several panels) and returns one sentence about what is to be seen. So it can be tested at both ends of every
control, shown as static pictures (`filmstrip`, for GitHub, print and the first look), and put under live controls
(`explore`).
"""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from course_utils.language import in_turn, label, translated
from course_utils.plotting import as_png, show

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Slider:
    """A number from `low` to `high` in steps of `step`; whole numbers give a slider of whole numbers."""

    low: float
    high: float
    step: float = 1


@dataclass(frozen=True)
class Choice:
    """One of several words."""

    options: tuple[str, ...]


@dataclass(frozen=True)
class Explorer:
    """`draw(ax, **values) -> sentence`, its controls (name -> Slider, Choice, or None for text), starting values.

    With more than one panel, `draw` is given a list of that many axes, side by side.
    """

    draw: Callable[..., str]
    controls: Mapping[str, Slider | Choice | None]
    start: dict
    panels: int = 1

    def __post_init__(self):
        if set(self.controls) != set(self.start):
            raise ValueError(
                f"Expected a starting value for each of the controls {sorted(self.controls)}, "
                f"got them for {sorted(self.start)}."
            )

    def picture(self, values: Mapping) -> tuple["Figure", str]:
        """Return the drawing at these values as a figure of its own, to be closed, and the sentence about it."""
        import matplotlib.pyplot as plt

        size = (3.4, 3.7) if self.panels == 1 else (3.1 * self.panels, 3)
        figure, axes = plt.subplots(1, self.panels, figsize=size)
        try:
            return figure, translated(self.draw(axes, **values))
        except ValueError:
            plt.close(figure)
            raise


def filmstrip(explorer: Explorer, changes: list[dict]) -> None:
    """Show the explorer's drawing at its starting values with each of `changes` in turn.

    One row of pictures; or, where the explorer has several panels, one row for each change.
    """
    import matplotlib.pyplot as plt

    if explorer.panels == 1:
        figure, panels = plt.subplots(1, len(changes), figsize=(2.2 * len(changes), 2.6), squeeze=False)
        places, order = panels[0], "From left to right:"
    else:
        size = (2.9 * explorer.panels, 2.25 * len(changes))
        figure, places = plt.subplots(len(changes), explorer.panels, figsize=size, squeeze=False)
        order = "From top to bottom:"
    sentences = [
        explorer.draw(place, **{**explorer.start, **change}) for place, change in zip(places, changes, strict=True)
    ]
    show(figure, in_turn([order, *sentences]))


def explore(explorer: Explorer) -> "ipywidgets.Widget":
    """The explorer under live controls, a widget; it draws when a control is let go, and at once at the start.

    What cannot be drawn leaves the picture as it was and says why.
    """
    import ipywidgets

    controls = {name: _control(name, slider, explorer.start[name]) for name, slider in explorer.controls.items()}
    width = f"{22 * min(explorer.panels, 3)}em"
    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(width=width, max_width="100%"))
    sentence = ipywidgets.HTML()  # unlike a Label it breaks long lines

    def redraw(change=None) -> None:
        import matplotlib.pyplot as plt

        try:
            figure, said = explorer.picture({name: control.value for name, control in controls.items()})
        except ValueError as error:
            sentence.value = html.escape(str(error))
            return
        sentence.value = html.escape(said)
        picture.value = as_png(figure)
        plt.close(figure)

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*controls.values(), picture, sentence])


def _control(name: str, control: Slider | Choice | None, value):
    import ipywidgets

    shown = label(name)
    wide = {"layout": ipywidgets.Layout(width="34em"), "style": {"description_width": "6em"}}
    if control is None:
        return ipywidgets.Text(value, description=shown, continuous_update=False, **wide)
    if isinstance(control, Choice):
        return ipywidgets.Dropdown(
            options=[(label(option), option) for option in control.options], value=value, description=shown, **wide
        )
    kind = ipywidgets.IntSlider if isinstance(value, int) else ipywidgets.FloatSlider
    fine = {"readout_format": ".3f"} if control.step < 0.01 else {}
    return kind(
        value,
        min=control.low,
        max=control.high,
        step=control.step,
        description=shown,
        continuous_update=False,
        **fine,
        **wide,
    )
