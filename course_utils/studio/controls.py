"""The controls that all ways of drawing share: prompts, seed, sampler, size, LoRAs; and how a run is shown."""

import dataclasses
import html
from collections.abc import Sequence

import ipywidgets
from PIL import Image

from course_utils.data.images import data_url
from course_utils.pipelines.picture_book import SCHEDULERS
from course_utils.pipelines.png_info import MOST_SEED, Settings
from course_utils.studio.session import RANDOM, Drawn, Event, Progress
from course_utils.studio.shelf import Shelf


def stacked(widget: ipywidgets.Widget, width: str = "100%") -> ipywidgets.Widget:
    """A control with its label above it."""
    widget.layout.width = width
    widget.add_class("stacked")
    return widget


def button(text: str, act, kind: str = "", width: str = "auto") -> ipywidgets.Button:
    """A flat button; act(): what a click does."""
    made = ipywidgets.Button(description=text, layout=ipywidgets.Layout(width=width, flex="0 0 auto"))
    if kind:
        made.add_class(kind)
    made.on_click(lambda _: act())
    return made


def row(*children: ipywidgets.Widget) -> ipywidgets.Box:
    """Controls side by side, which wrap where there is no room."""
    made = ipywidgets.HBox(children, layout=ipywidgets.Layout(align_items="flex-end", flex_flow="row wrap"))
    made.add_class("side-by-side")
    return made


def column(*children: ipywidgets.Widget, **layout) -> ipywidgets.Box:
    """Widgets one below the other, with room between them; layout: as `ipywidgets.Layout` takes it."""
    made = ipywidgets.VBox(children, layout=ipywidgets.Layout(**layout))
    made.add_class("column")
    return made


def grid(*children: ipywidgets.Widget, columns: int = 4) -> ipywidgets.GridBox:
    """Controls in columns of one width."""
    layout = ipywidgets.Layout(grid_template_columns=f"repeat({columns}, minmax(0, 1fr))", grid_gap="8px", width="100%")
    return ipywidgets.GridBox(children, layout=layout)


def note(text: str) -> ipywidgets.HTML:
    """A line of explanation."""
    return ipywidgets.HTML(f"<p>{html.escape(text)}</p>")


def whole(value: int, low: int, high: int, text: str, **more) -> ipywidgets.Widget:
    """A whole number with its label."""
    return stacked(ipywidgets.BoundedIntText(value, min=low, max=high, description=text, **more))


def number(value: float, low: float, high: float, step: float, text: str) -> ipywidgets.Widget:
    """A number with its label."""
    return stacked(ipywidgets.BoundedFloatText(value, min=low, max=high, step=step, description=text))


class Controls:
    """Prompt, negative prompt and settings; `settings()` reads them, `fill(settings)` sets them."""

    def __init__(self, shelf: Shelf):
        self.shelf = shelf
        models = list(shelf.models())
        self.model = stacked(ipywidgets.Dropdown(options=models, value=models[0], description="Model"))
        self.prompt = stacked(ipywidgets.Textarea(
            "a cute corgi puppy on the grass", description="Prompt", rows=2, placeholder="What to draw"))  # fmt: skip
        self.negative = stacked(ipywidgets.Textarea(
            description="Negative prompt", rows=1, placeholder="What should not be in it"))  # fmt: skip
        self.steps = whole(20, 1, 1000, "Steps")
        self.sampler = stacked(ipywidgets.Dropdown(options=list(SCHEDULERS), description="Sampler"))
        self.guidance = number(Settings.guidance, 0, 50, 0.5, "Guidance")
        self.width, self.height = (whole(64, 8, 2048, name, step=8) for name in ("Width", "Height"))
        self.count = whole(1, 1, 64, "Pictures")
        self.seed = whole(RANDOM, RANDOM, MOST_SEED, "Seed (-1: any)")
        self.dice = button("Any seed", self._roll, width="100%")
        self.reuse = button("Last seed", lambda: None, width="100%")
        self.variation_seed = whole(0, 0, MOST_SEED, "Variation seed")
        self.variation = number(0.0, 0, 1, 0.05, "Variation strength")
        self.loras = stacked(ipywidgets.SelectMultiple(options=[], rows=2, description="LoRAs (Ctrl: several)"))
        self.lora_weight = number(1.0, -4, 4, 0.1, "LoRA weight")
        self.fill_loras()
        self.prompts = ipywidgets.VBox([self.prompt, self.negative])
        self.dice.layout.align_self = self.reuse.layout.align_self = "flex-end"
        self.box = column(
            grid(self.steps, self.sampler, self.guidance, self.count),
            grid(self.seed, self.dice, self.reuse, ipywidgets.Box()),
            grid(self.width, self.height, self.variation_seed, self.variation),
            grid(self.lora_weight, self.loras, columns=2),
        )

    def fill_loras(self) -> None:
        """List the LoRAs that are in the folder now."""
        self.loras.options = [(path.stem, str(path)) for path in self.shelf.loras()]

    def _roll(self) -> None:
        self.seed.value = RANDOM

    def settings(self) -> Settings:
        """The settings as they are chosen, their seed perhaps RANDOM. Raises ValueError as `Settings` does."""
        return Settings(
            self.prompt.value, self.negative.value, self.steps.value, self.sampler.value, self.guidance.value,
            self.seed.value, self.width.value, self.height.value,
            variation_seed=self.variation_seed.value if self.variation.value else 0, variation=self.variation.value,
        )  # fmt: skip

    def chosen_loras(self) -> tuple[tuple[str, float], ...]:
        """(file, weight) of each LoRA that is chosen."""
        return tuple((file, self.lora_weight.value) for file in self.loras.value)

    def fill(self, settings: Settings) -> list[str]:
        """Set all controls to these settings; return a sentence for each that could not be taken over."""
        left = []
        self.prompt.value, self.negative.value = settings.prompt, settings.negative_prompt
        self.steps.value, self.guidance.value = settings.steps, settings.guidance
        self.seed.value, self.count.value = settings.seed, 1
        self.variation_seed.value, self.variation.value = settings.variation_seed, settings.variation
        self.width.value, self.height.value = settings.width or self.width.value, settings.height or self.height.value
        if settings.sampler in self.sampler.options:
            self.sampler.value = settings.sampler
        else:
            left.append(f"The sampler {settings.sampler!r} is not one of the course's.")
        self.fill_loras()
        there = {file for _, file in self.loras.options}
        self.loras.value = tuple(file for file, _ in settings.loras if file in there)
        left += [f"The LoRA {file} is not in the folder." for file, _ in settings.loras if file not in there]
        if settings.loras:
            self.lora_weight.value = settings.loras[0][1]
            if len({weight for _, weight in settings.loras}) > 1:
                left.append("Its LoRAs have several weights; here all have that of the first.")
        return left


def picture_tag(picture: Image.Image, words: str) -> str:
    """A picture as HTML, its words for those who cannot see it."""
    return f'<img alt="{html.escape(words, quote=True)}" src="{data_url(picture)}">'


class Result:
    """The right side of the page: what a run shows while it draws and at its end."""

    def __init__(self):
        self.picture = ipywidgets.HTML('<div class="empty">Your picture appears here</div>')
        self.picture.add_class("picture")
        self.bar, self.message, self.strip = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        self.details = ipywidgets.HTML()
        self.box = ipywidgets.VBox([self.picture, self.bar, self.message, self.strip, self.details])
        self.drawn: list[Drawn] = []
        self.progress(0)
        self.say("")

    def begin(self) -> None:
        """Forget the run before."""
        self.drawn, self.strip.value, self.details.value = [], "", ""
        self.progress(0)
        self.say("Loading the model …")

    def progress(self, share: float) -> None:
        percent = round(100 * share)
        self.bar.value = (
            f'<div class="bar" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" '
            f'aria-valuenow="{percent}"><div style="width: {percent}%"></div></div>'
        )

    def say(self, message: str, failed: bool = False, notes: Sequence[str] = ()) -> None:
        """Show a sentence; a fault is marked, and read out by screen readers at once."""
        kind, role = ("message fault", "alert") if failed else ("message", "status")
        lines = "".join(f"<p>{html.escape(text)}</p>" for text in notes)
        self.message.value = f'<div class="{kind}" role="{role}">{html.escape(message)}</div>{lines}'

    def report(self, event: Event) -> None:
        """Show an event of a session."""
        if isinstance(event, Progress):
            self.progress(event.share)
            if event.seconds_left is not None:
                self.say(f"{event.share:.0%}, about {_duration(event.seconds_left)} left")
            if event.preview is not None:
                self.picture.value = picture_tag(event.preview, "Preview of the picture that is being drawn")
        elif isinstance(event, Drawn):
            self.drawn.append(event)
            self.show(event.picture, event.settings)
            if len(self.drawn) > 1:
                shown = "".join(picture_tag(one.picture, f"Seed {one.settings.seed}") for one in self.drawn)
                self.strip.value = f'<div class="strip">{shown}</div>'
            self.details.value = f"<p>Seed {event.settings.seed}, kept as {html.escape(event.path.name)}</p>"
        else:
            self.say(event.message, event.failed, event.notes)

    def show(self, picture: Image.Image, settings: Settings) -> None:
        """Show a finished picture."""
        self.picture.value = picture_tag(picture, settings.prompt)


def _duration(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 100 else f"{round(whole / 60)} min"


def without_files(settings: Settings) -> Settings:
    """The settings without what was given beside the prompt: as text to image draws."""
    return dataclasses.replace(settings, image="", mask="", control="", strength=None)
