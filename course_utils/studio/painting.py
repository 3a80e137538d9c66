"""A sheet to paint on with the mouse: a mask over a picture, or lines on paper; and a box to drop pictures into."""

import io

import anywidget
import ipywidgets
import numpy as np
import traitlets
from ipycanvas import MultiCanvas, hold_canvas
from PIL import Image, ImageDraw, ImageOps

from course_utils.data.images import as_rgb
from course_utils.pipelines.png_info import clear_faults

SIDE = 384  # pixels of the screen, about, for the longer side of a picture
MASK, LINES = (230, 159, 0), (27, 27, 27)  # orange over a picture; black on paper
SEEN = 0.65  # how opaque a mask is


class Sheet:
    """What is painted over a picture (or on white paper), and its canvas.

    size: (width, height) in pixels of the picture; painted: PIL "L", 255 where paint is. Paint is as wide as `brush`
    pixels of the picture, or is taken off while `erases`. Everything works without a mouse too: `stroke`, `rectangle`.
    """

    def __init__(self, size: tuple[int, int] = (64, 64), colour: tuple[int, int, int] = MASK, brush: int = 8):
        self.colour, self.brush, self.erases = colour, brush, False
        self.canvas = MultiCanvas(2, width=SIDE, height=SIDE, layout=ipywidgets.Layout(align_self="flex-start"))
        self._last: tuple[float, float] | None = None
        self.size = size
        top = self.canvas[1]
        top.on_mouse_down(self._down)
        top.on_mouse_move(self._move)
        top.on_mouse_up(self._up)
        top.on_mouse_out(self._up)
        self.show(None, size)

    def show(self, picture: Image.Image | None, size: tuple[int, int] | None = None) -> None:
        """Put another picture (None: paper of this size) under the paint, which is taken off."""
        self.picture = picture
        self.size = picture.size if picture is not None else (size or self.size)
        self.scale = max(SIDE / max(self.size), 1e-6)
        self.canvas.width, self.canvas.height = (max(1, round(self.scale * side)) for side in self.size)
        under = Image.new("RGB", self.size, "white") if picture is None else as_rgb(picture)
        self.canvas.layout.width = f"{self.canvas.width}px"
        self._put(0, under.convert("RGBA"))
        self.clear()

    def clear(self) -> None:
        """Take all paint off."""
        self.painted = Image.new("L", self.size)
        self._render()

    def paint(self, painted: Image.Image) -> None:
        """Put this on, of mode "L" and as large as the sheet, instead of what was painted."""
        self.painted = painted
        self._render()

    def stroke(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Paint a line with round ends, from and to pixels of the picture."""
        pen, level, radius = ImageDraw.Draw(self.painted), 0 if self.erases else 255, self.brush / 2
        pen.line([start, end], fill=level, width=max(1, round(self.brush)))
        for x, y in (start, end):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=level)

    def rectangle(self, left: int, top: int, width: int, height: int) -> None:
        """Paint a rectangle: for those who use no mouse."""
        level = 0 if self.erases else 255
        ImageDraw.Draw(self.painted).rectangle((left, top, left + width - 1, top + height - 1), fill=level)
        self._render()

    def as_drawing(self) -> Image.Image:
        """Black lines on white paper."""
        return ImageOps.invert(self.painted)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return x / self.scale, y / self.scale

    def _down(self, x: float, y: float) -> None:
        self._last = (x, y)
        self._move(x, y)

    def _move(self, x: float, y: float) -> None:
        if self._last is None:
            return
        self.stroke(self._place(*self._last), self._place(x, y))
        top = self.canvas[1]
        with hold_canvas():
            top.global_composite_operation = "destination-out" if self.erases else "source-over"
            top.stroke_style = f"rgb{self.colour}"
            top.line_width, top.line_cap = max(1, self.brush * self.scale), "round"
            top.stroke_line(*self._last, x, y + 0.01)  # a line of no length would not be drawn
        self._last = (x, y)

    def _up(self, x: float, y: float) -> None:
        if self._last is not None:
            self._last = None
            self._render()

    def _render(self) -> None:
        paint = Image.new("RGBA", self.size, (*self.colour, 255))
        opacity = 1.0 if self.picture is None else SEEN
        paint.putalpha(self.painted.point(lambda level: round(level * opacity)))
        self.canvas[1].global_composite_operation = "source-over"
        self._put(1, paint)

    def _put(self, layer: int, picture: Image.Image) -> None:
        large = picture.resize((self.canvas.width, self.canvas.height), Image.Resampling.NEAREST)
        with hold_canvas():
            self.canvas[layer].clear()
            self.canvas[layer].put_image_data(np.asarray(large), 0, 0)


class DropBox(anywidget.AnyWidget):
    """A box to drop a picture into, or to choose a file with by click or key; `data` has the file's bytes."""

    _esm = """
    function render({ model, el }) {
      const box = document.createElement("label");
      box.className = "drop";
      const words = document.createElement("span");
      words.textContent = model.get("label");
      const input = document.createElement("input");
      input.type = "file";
      input.accept = "image/*";
      box.append(words, input);
      el.append(box);
      async function take(file) {
        if (!file) return;
        model.set("name", file.name);
        model.set("data", new DataView(await file.arrayBuffer()));
        model.set("count", model.get("count") + 1);
        model.save_changes();
        input.value = "";
      }
      input.addEventListener("change", () => take(input.files[0]));
      for (const kind of ["dragenter", "dragover"])
        box.addEventListener(kind, event => { event.preventDefault(); box.classList.add("over"); });
      for (const kind of ["dragleave", "drop"]) box.addEventListener(kind, () => box.classList.remove("over"));
      box.addEventListener("drop", event => { event.preventDefault(); take(event.dataTransfer.files[0]); });
    }
    export default { render };
    """
    label = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True, from_json=lambda sent, box: bytes(sent))  # it arrives as a memoryview
    count = traitlets.Int().tag(sync=True)  # files so far: the same one may come again

    def picture(self) -> Image.Image:
        """The picture that was dropped; ValueError if it is none."""
        with clear_faults(self.name or "The file"), Image.open(io.BytesIO(self.data)) as picture:
            picture.load()
            return ImageOps.exif_transpose(picture)
