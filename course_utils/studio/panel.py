"""The page of the studio: prompts and tabs on the left, the picture that is drawn on the right."""

import dataclasses
from pathlib import Path

import ipywidgets
from PIL import Image

from course_utils.pipelines.png_info import Settings
from course_utils.pipelines.steering import painted, read_given
from course_utils.studio import grid as plots
from course_utils.studio.controls import Controls, Result, button, column, picture_tag, row, without_files
from course_utils.studio.gallery import Gallery
from course_utils.studio.session import RANDOM, Drawn, Ended, Event, Request, Session
from course_utils.studio.shelf import Shelf
from course_utils.studio.tabs import DrawingTab, GalleryTab, ImageTab, InfoTab, InpaintTab, PlotTab, Tab

STYLE = (Path(__file__).parent / "studio.css").read_text(encoding="utf-8")


def studio(folder: Path | str = "gallery", model: Path | str | None = None, runs: Path | str = "runs", device=None):
    """Return the studio as a widget: the last line of a notebook's cell shows it.

    folder: of the gallery. model: a folder to draw with first. runs: where the learner's own models and, in `lora`,
    LoRAs are. device: None is the best there is. Raises ValueError if the gallery cannot be written.
    """
    return Studio(Session(Shelf(runs, model, device=device), Gallery(folder))).box


class Studio:
    """One page with its own session. box: the widget."""

    def __init__(self, session: Session):
        self.session, self.result = session, Result()
        self.controls = Controls(session.shelf)
        say = self._fault
        self.gallery = GalleryTab(say, self.send, session.gallery)
        self.info = InfoTab(say, self.send)
        self.plot, self.image, self.inpaint = PlotTab(say), ImageTab(say), InpaintTab(say)
        self.drawing = DrawingTab(say)
        self.tabs = [Tab(say), self.image, self.inpaint, self.drawing, self.plot, self.info, self.gallery]
        self.chooser = ipywidgets.Tab([tab.box for tab in self.tabs], titles=[tab.title for tab in self.tabs])
        self.chooser.observe(self._changed, "selected_index")
        self.go = button("Draw", self.draw, "go", "160px")
        self.halt = button("Stop", self.stop, "halt", "100px")
        self.halt.disabled = True
        self.controls.reuse.on_click(lambda _: self._reuse())
        controls = self.controls
        settings = ipywidgets.VBox([ipywidgets.HTML("<h2>Settings</h2>"), controls.box])
        left = column(
            controls.prompts, row(self.go, self.halt), self.chooser, settings, flex="3 1 480px", min_width="0"
        )
        right = column(controls.model, self.result.box, flex="2 1 320px", min_width="280px")
        body = ipywidgets.HBox([left, right], layout=ipywidgets.Layout(flex_flow="row wrap"))
        body.add_class("columns")
        head = ipywidgets.HTML("<h1>Studio</h1>")
        self.box = ipywidgets.VBox([ipywidgets.HTML(f"<style>{STYLE}</style>"), head, body])
        self.box.add_class("course-studio")

    @property
    def tab(self) -> Tab:
        """The tab that is open."""
        return self.tabs[self.chooser.selected_index or 0]

    def request(self) -> Request:
        """What is asked for now. Raises ValueError, in one sentence, if something is missing or wrong."""
        settings, tab = self.controls.settings(), self.tab
        given = tab.given((self.controls.width.value, self.controls.height.value))
        given = dataclasses.replace(given, loras=self.controls.chosen_loras())
        settings = dataclasses.replace(settings, strength=tab.strength())
        return Request(settings, self.controls.count.value, self.controls.model.value, given)

    def draw(self) -> None:
        """What the button Draw does: draw in the background, as the open tab says."""
        try:
            request = self.request()
            plot = None
            if isinstance(self.tab, PlotTab):
                plot = self.tab.plot(_with_seed(request))
            requests = [request] if plot is None else list(plot.requests)
            self.result.begin()
            self._busy(True)
            self.session.start(requests, lambda event: self._report(event, plot))
        except ValueError as error:
            if not self.session.busy:
                self._busy(False)
            self._fault(str(error))

    def stop(self) -> None:
        """What the button Stop does."""
        self.session.stop()

    def send(self, settings: Settings | None, picture: Image.Image, title: str) -> None:
        """Set the controls to the settings of a picture, and open the tab of that title with it."""
        self.result.say("")
        if settings is not None:
            left = self.controls.fill(settings)
            if settings.image or settings.mask or settings.control:
                left += self._restore(settings) if title == Tab.title else []
            if left:
                self.result.say("Sent, but for this:", notes=left)
        elif title != Tab.title:
            self.controls.width.value, self.controls.height.value = picture.size
        target = next(tab for tab in self.tabs if tab.title == title)
        if isinstance(target, ImageTab):
            target.take(picture)
            self.controls.seed.value = RANDOM  # the picture's own seed would draw its noise into it again
        elif settings is not None and title == Tab.title:
            target = self._home(settings)
        self.chooser.selected_index = self.tabs.index(target)

    def _home(self, settings: Settings) -> Tab:
        """The tab in which the picture of these settings was drawn."""
        if settings.mask:
            return self.inpaint
        return self.image if settings.image else self.drawing if settings.control else self.tabs[0]

    def _restore(self, settings: Settings) -> list[str]:
        """Put back what was given beside the prompt, where its files are still there."""
        try:
            given = read_given(dataclasses.replace(settings, loras=()))
        except ValueError as error:
            return [str(error)]
        tab = self._home(settings)
        if isinstance(tab, ImageTab) and given.image is not None:
            tab.take(given.image)
            if settings.strength is not None:
                tab.how_much.value = settings.strength
        if given.mask is not None:
            self.inpaint.sheet.paint(painted(given.mask))
        if given.drawing is not None:
            self.drawing.take(given.drawing)
        return []

    def _reuse(self) -> None:
        if self.session.last_seed is None:
            self._fault("Nothing was drawn yet, so there is no last seed: draw first.")
        else:
            self.controls.seed.value = self.session.last_seed

    def _changed(self, change) -> None:
        if self.tab is self.gallery:
            self.gallery.refresh()
        self.controls.fill_loras()

    def _busy(self, busy: bool) -> None:
        self.go.disabled, self.halt.disabled = busy, not busy

    def _fault(self, message: str) -> None:
        self.result.say(message, failed=True)

    def _report(self, event: Event, plot: plots.Plot | None) -> None:
        """Show what the session reports; it is called in the thread that draws."""
        self.result.report(event)
        if isinstance(event, Ended):
            if plot is not None and len(self.result.drawn) == len(plot.requests):
                self._show_plot(plot)
            self._busy(False)

    def _show_plot(self, plot: plots.Plot) -> None:
        drawn: list[Drawn] = self.result.drawn
        page = plots.sheet(plot, [one.picture for one in drawn])
        path = self.session.gallery.keep(page, without_files(drawn[0].settings), "plot")
        self.result.picture.value = f'<div class="sheet">{picture_tag(page, "The plot")}</div>'
        self.result.strip.value = ""
        self.result.details.value = f"<p>The plot is kept as {path.name}</p>"


def _with_seed(request: Request) -> Request:
    """All pictures of a plot have one seed: where it is the dice's, they are cast once."""
    import random

    if request.settings.seed != RANDOM:
        return request
    seed = random.SystemRandom().randrange(2**32 - 1)
    return dataclasses.replace(request, settings=dataclasses.replace(request.settings, seed=seed))
