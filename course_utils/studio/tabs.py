"""The tabs of the studio: what each way of drawing asks for beside prompt and settings."""

import html
import tempfile
from collections.abc import Callable
from pathlib import Path

import ipywidgets
from PIL import Image

from course_utils.data.images import as_rgb, crop_and_resize, to_pil
from course_utils.pipelines.control import as_drawing
from course_utils.pipelines.png_info import WEB_UI_SAMPLERS, Settings, format_parameters, read_png
from course_utils.pipelines.steering import Given
from course_utils.studio import grid as plots
from course_utils.studio.controls import button, column, grid, note, number, picture_tag, row, stacked, whole
from course_utils.studio.gallery import Gallery
from course_utils.studio.painting import LINES, DropBox, Sheet
from course_utils.studio.session import Request

NOTHING = Given()
NO_AXIS = "none"
SHOWN = 48  # pictures of the gallery


class Tab:
    """A tab: `title`, `box` (its widgets), and what it gives to a drawing. say: shows a fault. Others override."""

    title = "Text to image"

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.box: ipywidgets.Widget = note(
            "Draws from noise what the prompt says. Syntax: (word:1.3) and [word] weigh, [cat:dog:0.5] changes, BREAK."
        )

    def given(self, size: tuple[int, int]) -> Given:
        """What is given beside the prompt, for a page of this size. Raises ValueError if something is missing."""
        return NOTHING

    def strength(self) -> float | None:
        """How much of a given picture is drawn again; None where there is none."""
        return None

    def guarded(self, act: Callable) -> Callable:
        """The function, whose ValueErrors are said in the page."""

        def guarded(*args):
            try:
                act()
            except ValueError as error:
                self.say(str(error))

        return guarded


class ImageTab(Tab):
    """Image to image: a picture to start from."""

    title = "Image to image"

    def __init__(self, say):
        super().__init__(say)
        self.picture: Image.Image | None = None
        self.drop = DropBox(label="Drop a picture here, or click to choose a file")
        self.drop.observe(self.guarded(lambda: self.take(self.drop.picture())), "count")
        self.chosen = ipywidgets.HTML()
        self.chosen.add_class("strip")
        self.how_much = number(0.6, 0, 1, 0.05, "Strength: 0 keeps the picture, 1 draws all of it again")
        self.box = column(self.drop, self.chosen, self.how_much)

    def take(self, picture: Image.Image) -> None:
        """Start from this picture."""
        self.picture = as_rgb(picture)
        self.chosen.value = picture_tag(self.picture, "The picture to start from")

    def fitted(self, size: tuple[int, int]) -> Image.Image:
        """The picture, cropped and resized to the page. Raises ValueError if there is none."""
        if self.picture is None:
            raise ValueError(f"{self.title} needs a picture to start from: drop one into the box first.")
        if self.picture.size == size:
            return self.picture
        if size[0] == size[1]:
            return crop_and_resize(self.picture, size[0])
        return self.picture.resize(size, Image.Resampling.LANCZOS)

    def given(self, size):
        return Given(image=self.fitted(size))

    def strength(self):
        return self.how_much.value


class SheetControls:
    """A sheet to paint on, with its brush, a rectangle for those who use no mouse, and a button to begin again."""

    def __init__(self, sheet: Sheet, brush: int):
        self.sheet = sheet
        sheet.brush = brush
        self.brush = whole(brush, 1, 256, "Brush (pixels)")
        self.brush.observe(lambda change: setattr(sheet, "brush", change["new"]), "value")
        self.erase = ipywidgets.Checkbox(description="Erase", indent=False, layout=ipywidgets.Layout(width="auto"))
        self.erase.observe(lambda change: setattr(sheet, "erases", change["new"]), "value")
        self.clear = button("Clear", sheet.clear)
        self.sides = [whole(value, 0, 2048, name)
                      for value, name in ((16, "Left"), (16, "Top"), (32, "Wide"), (32, "High"))]  # fmt: skip
        add = button("Add rectangle", lambda: sheet.rectangle(*(side.value for side in self.sides)), width="100%")
        add.layout.align_self = "flex-end"
        self.box = column(sheet.canvas, row(self.brush, self.erase, self.clear), grid(*self.sides, add, columns=5))
        self.brush.layout.width = "120px"


class InpaintTab(ImageTab):
    """Inpaint: what is painted over is drawn again."""

    title = "Inpaint"

    def __init__(self, say):
        super().__init__(say)
        self.sheet = Sheet()
        self.controls = SheetControls(self.sheet, 12)
        self.how_much.value = 1.0
        help_text = note("Paint over what is to be drawn again; the rest stays as it is, pixel for pixel.")
        self.box = column(self.drop, help_text, self.controls.box, self.how_much)

    def take(self, picture):
        self.picture = as_rgb(picture)
        self.sheet.show(self.picture)

    def given(self, size):
        if self.picture is not None and self.sheet.painted.getbbox() is None:
            raise ValueError("Inpaint needs a mask: paint over what is to be drawn again first.")
        if self.picture is not None and self.picture.size != size:
            painted = self.sheet.painted
            self.sheet.show(self.fitted(size))
            self.sheet.paint(painted.resize(size, Image.Resampling.NEAREST))
            self.picture = self.sheet.picture
        return Given(image=self.fitted(size), mask=self.sheet.painted.copy())


class DrawingTab(Tab):
    """Control: the picture follows lines that are painted, or a drawing from a file."""

    title = "From a drawing"

    def __init__(self, say):
        super().__init__(say)
        self.sheet = Sheet(colour=LINES, brush=2)
        self.controls = SheetControls(self.sheet, 2)
        self.drop = DropBox(label="Draw below, or drop a drawing here")
        self.drop.observe(self.guarded(self._take), "count")
        self.box = column(self.drop, self.controls.box)

    def _take(self) -> None:
        self.take(self.drop.picture())

    def take(self, picture: Image.Image) -> None:
        """Put the lines of a drawing on the sheet: dark on light, or the other way round."""
        lines = to_pil(2 * as_drawing(picture, *self.sheet.size)[:, :1] - 1)[0]
        self.sheet.paint(lines)

    def given(self, size):
        if self.sheet.painted.getbbox() is None:
            raise ValueError("From a drawing needs lines to follow: draw some on the sheet first.")
        drawing = self.sheet.as_drawing()
        return Given(drawing=drawing if drawing.size == size else drawing.resize(size, Image.Resampling.LANCZOS))


class PlotTab(Tab):
    """X/Y/Z plot: the prompt with settings that vary along two or three axes."""

    title = "X/Y/Z plot"

    def __init__(self, say):
        super().__init__(say)
        self.axes = []
        start = {"X": ("guidance", "1, 4, 8"), "Y": ("seed", "1-3"), "Z": (NO_AXIS, "")}
        for letter, (name, values) in start.items():
            kinds = list(plots.KINDS) if letter == "X" else [NO_AXIS, *plots.KINDS]
            kind = stacked(ipywidgets.Dropdown(options=kinds, value=name, description=f"{letter} axis"))
            text = stacked(ipywidgets.Text(values, description=f"Values of {letter}"))
            self.axes.append((kind, text))
        samplers = ", ".join(WEB_UI_SAMPLERS)
        help_text = note(
            f"Values: 2, 4, 8 or 1-5 or 1-9 (+2) or 0-1 [5]. Samplers: {samplers}. "
            "The axis words replaces its first value in the prompt by each."
        )
        self.box = column(*(grid(*axis, columns=2) for axis in self.axes), help_text)

    def plot(self, request: Request) -> plots.Plot:
        """What is to be drawn. Raises ValueError, in one sentence, for axes that cannot be read."""
        first, *others = self.axes
        x = plots.parse_axis(first[0].value, first[1].value)
        y, z = (None if kind.value == NO_AXIS else plots.parse_axis(kind.value, text.value) for kind, text in others)
        return plots.plan(request, x, y, z)


class InfoTab(Tab):
    """PNG info: drop a picture, read its settings, and send them on. send(settings, picture, title of a tab)."""

    title = "PNG info"

    def __init__(self, say, send: Callable[[Settings | None, Image.Image, str], None]):
        super().__init__(say)
        self.send = send
        self.settings: Settings | None = None
        self.picture: Image.Image | None = None
        self.drop = DropBox(label="Drop a picture of the studio here, or click to choose a file")
        self.drop.observe(self.guarded(lambda: self.read(self.drop.data, self.drop.name)), "count")
        self.shown, self.text = ipywidgets.HTML(), ipywidgets.HTML()
        self.shown.add_class("strip")
        self.box = column(self.drop, self.shown, self.text, send_buttons(self.send_to))

    def read(self, data: bytes, name: str) -> None:
        """Show the settings in a PNG's bytes. Raises ValueError if there are none."""
        self.settings, self.picture, self.text.value = None, self.drop.picture(), ""
        self.shown.value = picture_tag(self.picture, name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / (Path(name).name or "picture.png")
            path.write_bytes(data)
            try:
                self.settings = read_png(path)
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), path.name)) from None
        self.text.value = f"<p>{html.escape(format_parameters(self.settings))}</p>"

    def send_to(self, title: str) -> None:
        if self.picture is None:
            self.say("There is nothing to send: drop a picture into the box first.")
        else:
            self.send(self.settings, self.picture, title)


def send_buttons(send: Callable[[str], None]) -> ipywidgets.Widget:
    """Buttons that send a picture with its settings to another tab."""
    labels = {
        Tab.title: "Send to text to image",
        ImageTab.title: "Send to image to image",
        InpaintTab.title: "Send to inpaint",
    }
    return row(*(button(label, lambda title=title: send(title)) for title, label in labels.items()))


class GalleryTab(Tab):
    """All that was drawn: the newest pictures, and one that is chosen, with its settings."""

    title = "Gallery"

    def __init__(self, say, send: Callable[[Settings | None, Image.Image, str], None], gallery: Gallery):
        super().__init__(say)
        self.send, self.gallery = send, gallery
        self.names = stacked(ipywidgets.Dropdown(options=[], description="Picture"))
        self.names.observe(self.guarded(self.show), "value")
        self.pictures, self.text = ipywidgets.HTML(), ipywidgets.HTML()
        folder = note(f"Folder: {gallery.folder}")
        self.box = column(self.names, self.text, send_buttons(self.send_to), folder, self.pictures)

    def refresh(self) -> None:
        """Show what is in the folder now."""
        paths = self.gallery.paths(SHOWN)
        self.names.options = [path.name for path in paths]
        self.names.value = paths[0].name if paths else None
        tags = []
        for path in paths:
            with Image.open(path) as picture:
                small = picture.convert("RGB")
                small.thumbnail((128, 128))
            tags.append(picture_tag(small, path.name))
        empty = "<p>Nothing is drawn yet.</p>"
        self.pictures.value = f'<div class="strip">{"".join(tags)}</div>' if tags else empty
        if not paths:
            self.text.value = ""

    def chosen(self) -> tuple[Image.Image, Settings]:
        """The chosen picture and its settings. Raises ValueError if there is none."""
        if not self.names.value:
            raise ValueError("There is no picture in the gallery yet: draw one first.")
        path = self.gallery.folder / self.names.value
        settings = self.gallery.settings(path)
        with Image.open(path) as picture:
            return picture.convert("RGB"), settings

    def show(self) -> None:
        if self.names.value:
            picture, settings = self.chosen()
            tag = picture_tag(picture, settings.prompt)
            self.text.value = f'<div class="sheet">{tag}</div><p>{html.escape(format_parameters(settings))}</p>'

    def send_to(self, title: str) -> None:
        def act():
            picture, settings = self.chosen()
            self.send(settings, picture, title)

        self.guarded(act)()
