"""Pictures made small: what stays of charts, photographs, colour maps and pixel grids, measured."""

import base64
import io

import nbformat
import numpy
import pytest
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from course_utils.authoring.shrink import difference, shrink, shrink_outputs
from course_utils.data import photos
from course_utils.data.images import to_pil


def png(picture, **options):
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def errors(data, other):
    """Return (largest error, PSNR) between two pictures."""
    return difference(*(numpy.asarray(opened(each).convert("RGB")) for each in (data, other)))


def chart():
    """Return a figure as a notebook keeps it."""
    figure = Figure(figsize=(4, 3), dpi=110)
    axes = figure.add_subplot()
    for order in range(1, 6):
        axes.plot(numpy.linspace(0, 1, 50) ** order, label=f"order {order}")
    axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def test_a_chart_takes_256_colours_and_looks_the_same():
    data = chart()
    small = shrink(data)
    assert opened(small).mode == "P" and opened(small).size == opened(data).size
    assert len(small) < 0.5 * len(data)
    largest, psnr = errors(data, small)
    assert largest <= 16 and psnr > 50
    assert opened(small).convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    assert opened(small).info["dpi"] == pytest.approx(opened(data).info["dpi"])


def test_a_photograph_keeps_its_colours():
    data = png(to_pil(photos.load("chelsea", size=192))[0])
    small = shrink(data)
    assert opened(small).mode == "RGB" and len(small) < 0.85 * len(data)
    largest, psnr = errors(data, small)
    assert largest <= 2 and psnr > 46


def test_a_colour_map_does_not_show_bands():
    x, y = numpy.meshgrid(numpy.linspace(0, 1, 300), numpy.linspace(0, 1, 200))
    ramps = numpy.stack([x, y, (x + y) / 2], axis=2)
    data = png(Image.fromarray((255 * ramps).round().astype(numpy.uint8)))
    small = shrink(data)
    assert len(small) <= len(data) and errors(data, small)[0] <= 1, "two levels apart at most where they were one"


@pytest.mark.parametrize("side", [9, 30])
def test_a_grid_of_pixels_stays_a_grid(side):
    """With 9 x 9 pixels there are few colours, with 30 x 30 too many for a palette."""
    levels = numpy.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=numpy.uint8)
    data = png(Image.fromarray(levels.repeat(8, 0).repeat(8, 1)))
    small = shrink(data)
    assert errors(data, small)[0] <= 2
    pixels = numpy.asarray(opened(small).convert("RGB"))
    assert numpy.array_equal(pixels, pixels[::8, ::8].repeat(8, 0).repeat(8, 1))


def test_grey_pictures_take_one_channel():
    grey = to_pil(photos.load("astronaut", size=128))[0].convert("L")
    data = png(grey.convert("RGBA"), dpi=(110, 110))
    small = shrink(data)
    assert opened(small).mode == "L" and len(small) < 0.6 * len(data)
    assert errors(data, small)[0] <= 2
    assert opened(small).info["dpi"] == pytest.approx((110, 110), abs=0.1)


@pytest.mark.parametrize("make", [chart, lambda: png(to_pil(photos.load("coffee", size=64))[0])])
def test_a_second_time_changes_nothing(make):
    once = shrink(make())
    assert shrink(once) == once


def test_transparent_deep_and_moving_pictures_lose_nothing():
    noise = numpy.random.default_rng(0).integers(0, 256, (20, 20, 4), dtype=numpy.uint8)
    clear = png(Image.fromarray(noise))
    assert numpy.array_equal(numpy.asarray(opened(shrink(clear)).convert("RGBA")), noise)
    deep = png(Image.fromarray(numpy.arange(400, dtype=numpy.uint16).reshape(20, 20) * 100))
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    moving = png(frames[0], save_all=True, append_images=frames[1:])
    assert shrink(deep) == deep and shrink(moving) == moving


def test_what_cannot_become_smaller_stays():
    tiny = png(Image.new("1", (1, 1)), pnginfo=PngInfo())
    assert shrink(tiny) == tiny


def test_pictures_get_fewer_colours_only_where_a_notebook_would_be_too_large():
    noise = numpy.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=numpy.uint8)
    small, large = png(Image.fromarray(noise[:8, :8])), png(Image.fromarray(noise).resize((80, 80)))
    modes = {}
    for limit in (10**6, 12_000):
        outputs = [
            nbformat.v4.new_output("display_data", data={"image/png": base64.b64encode(data).decode()})
            for data in (small, large)
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])
        shrink_outputs(notebook, limit)
        kept = [base64.b64decode(output.data["image/png"]) for output in notebook.cells[0].outputs]
        modes[limit] = [opened(data).mode for data in kept]
        again = [output.data["image/png"] for output in notebook.cells[0].outputs]
        shrink_outputs(notebook, limit)
        assert [output.data["image/png"] for output in notebook.cells[0].outputs] == again
    assert modes == {10**6: ["RGB", "RGB"], 12_000: ["RGB", "P"]}
