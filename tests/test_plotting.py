"""Grids of pictures, loss curves, and figures that also say in words what they show."""

import base64
import io
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot, so that no window is needed

import matplotlib.pyplot as plt  # noqa: E402
import nbformat  # noqa: E402
import numpy  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from bs4 import BeautifulSoup  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from nbconvert import HTMLExporter  # noqa: E402
from PIL import Image  # noqa: E402

from course_utils import plotting  # noqa: E402
from course_utils.data import images  # noqa: E402


@pytest.fixture(autouse=True)
def no_figure_left():
    with matplotlib.rc_context():
        plotting.use_style()
        yield
        plt.close("all")


def random_pictures(number, channels=3, height=6, width=8):
    return torch.rand(number, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_style_tells_lines_apart_without_colour():
    cycle = list(matplotlib.rcParams["axes.prop_cycle"])
    assert len({entry["color"] for entry in cycle}) == len(cycle) == 7
    assert len({str(entry["linestyle"]) for entry in cycle}) == len(cycle)
    # Against white, WCAG asks for a contrast of 3 where a line alone carries the meaning; the first
    # three colours reach it, the others rely on their line styles.
    for entry in cycle[:3]:
        linear = numpy.array(matplotlib.colors.to_rgb(entry["color"])) ** 2.2
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3
    assert plt.figure().get_layout_engine() is not None


def test_the_grid_puts_each_picture_in_its_place():
    pictures = random_pictures(5)
    sheet = plotting.picture_grid(pictures, columns=2, padding=3, scale=2)
    assert sheet.size == (2 * 16 + 3, 3 * 12 + 2 * 3)
    second, fifth = (numpy.asarray(images.to_pil(pictures)[index]) for index in (1, 4))
    second, fifth = (tile.repeat(2, axis=0).repeat(2, axis=1) for tile in (second, fifth))
    assert numpy.array_equal(numpy.asarray(sheet)[:12, 19:35], second)
    assert numpy.array_equal(numpy.asarray(sheet)[30:42, :16], fifth)
    assert sheet.getpixel((17, 5)) == sheet.getpixel((25, 40)) == (255, 255, 255)


def test_grid_columns_and_grey():
    assert plotting.picture_grid(random_pictures(10, channels=1), padding=0).size == (4 * 8, 3 * 6)
    assert plotting.picture_grid(random_pictures(2), columns=9, padding=0).size == (2 * 8, 6)
    grey = plotting.picture_grid(torch.zeros(1, 1, 2, 2))
    assert grey.mode == "RGB" and grey.getpixel((0, 0)) == (128, 128, 128)
    for wrong in ({"columns": 0}, {"scale": 0}, {"padding": -1}, {"scale": 1.5}):
        with pytest.raises(ValueError, match="Expected"):
            plotting.picture_grid(random_pictures(2), **wrong)


def test_plotted_pictures_are_shown_whole_each_under_its_title():
    pictures = random_pictures(5)
    titles = ["one", 2, "", "four", "a title so long that it has to be broken into three lines, has it not"]
    ax = plotting.plot_pictures(pictures, titles=titles, columns=3)
    assert len(ax.images) == 5
    for shown, tile in zip(ax.images, images.to_pil(pictures), strict=True):
        assert numpy.array_equal(shown.get_array(), numpy.asarray(tile))
        assert shown.get_interpolation() == "nearest"
    assert [text.get_text().replace("\n", " ") for text in ax.texts] == [str(t) for t in titles if t]
    ax.figure.canvas.draw()
    boxes = [shown.get_window_extent() for shown in ax.images] + [t.get_window_extent() for t in ax.texts]
    page = ax.figure.bbox
    for index, box in enumerate(boxes):
        assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1 and box.y0 >= -1 and box.y1 <= page.y1 + 1
        assert not any(box.overlaps(other) for other in boxes[:index])
    assert boxes[0].width / boxes[0].height == pytest.approx(8 / 6, rel=0.02)
    assert boxes[0].x0 < boxes[1].x0 and boxes[3].y1 < boxes[0].y0


def test_rows_and_columns_are_named_once():
    heads, rows = ["left", "right"], ["above", "a label so long that it is broken into lines", "below"]
    ax = plotting.plot_pictures(random_pictures(5), columns=2, heads=heads, rows=rows)
    assert [text.get_text().replace("\n", " ") for text in ax.texts] == heads + rows
    ax.figure.canvas.draw()
    pictures, words = ([thing.get_window_extent() for thing in things] for things in (ax.images, ax.texts))
    for column, word in enumerate(words[:2]):
        assert word.y0 > pictures[0].y1 - 1 and pictures[column].x0 < word.x0 + word.width / 2 < pictures[column].x1
    for row, word in enumerate(words[2:]):
        assert ax.figure.bbox.x0 - 1 <= word.x0 and word.x1 < pictures[2 * row].x0
        assert pictures[2 * row].y0 < word.y0 and word.y1 < pictures[2 * row].y1
    first_gap, second_gap = pictures[0].y0 - pictures[2].y1, pictures[2].y0 - pictures[4].y1
    assert first_gap == pytest.approx(second_gap) and first_gap < 0.1 * pictures[0].height  # no room for absent titles


@pytest.mark.parametrize(
    "names, message",
    [
        ({"heads": ["a"]}, "one head for each of the 2 columns, got 1"),
        ({"rows": ["a"]}, "one label for each of the 2 rows, got 1"),
        ({"heads": ["a", "b"], "titles": "abcd"}, "got both"),
    ],
)
def test_wrong_names_of_rows_and_columns(names, message):
    with pytest.raises(ValueError, match=message):
        plotting.plot_pictures(random_pictures(4), columns=2, **names)


def test_pictures_on_given_axes_and_wrong_titles():
    figure, axes = plt.subplots(1, 2)
    assert plotting.plot_pictures(random_pictures(4, channels=1), ax=axes[1]) is axes[1]
    assert len(axes[1].images) == 4 and not axes[0].images
    assert axes[1].images[0].get_clim() == (0, 255)  # a grey picture is not stretched to its own range
    with pytest.raises(ValueError, match="each of the 4 pictures, got 2"):
        plotting.plot_pictures(random_pictures(4), titles=["a", "b"])
    with pytest.raises(ValueError, match="batch axis"):
        plotting.plot_pictures(random_pictures(4)[0])


def test_points_lie_where_they_are():
    points = torch.tensor([[0.5, -1.0], [2.0, 1.5]])
    ax = plotting.plot_points(points, values=[0, 1], title="two", reach=4)
    (dots,) = ax.collections
    assert numpy.allclose(dots.get_offsets(), points) and dots.get_array().tolist() == [0, 1]
    assert ax.get_xlim() == ax.get_ylim() == (-4, 4) and ax.get_title() == "two" and ax.get_aspect() == 1
    assert plotting.plot_points(points, ax=ax) is ax and len(ax.collections) == 2
    with pytest.raises(ValueError, match=r"\(number, 2\), got \(2,\)"):
        plotting.plot_points(points[0])


def test_the_running_mean():
    assert plotting.smooth([3, 1, 5], 1).tolist() == [3, 1, 5]
    assert plotting.smooth([3, 1, 5, 7], 3) == pytest.approx([2, 3, 13 / 3, 6])
    assert plotting.smooth([1, 3, 5], 50).tolist() == [3, 3, 3]
    line = numpy.linspace(5, 1, 101)
    assert plotting.smooth(line, 11)[5:-5] == pytest.approx(line[5:-5])  # no lag behind a falling loss
    with_gap = plotting.smooth([1.0] * 10 + [math.nan] + [1.0] * 10, 3)
    assert numpy.isnan(with_gap).sum() == 3
    for values, window in [([], 3), ([1.0], 0)]:
        with pytest.raises(ValueError, match="window >= 1"):
            plotting.smooth(values, window)


def test_the_loss_curve():
    losses = torch.linspace(2, 1, 40)
    ax = plotting.plot_loss(range(0, 400, 10), losses, window=5, log_scale=True)
    each, mean = ax.get_lines()
    assert each.get_xdata()[-1] == 390 and each.get_ydata()[0] == 2
    assert mean.get_ydata() == pytest.approx(plotting.smooth(losses, 5))
    assert each.get_linewidth() < mean.get_linewidth()
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("step", "loss", "log")
    given = plt.subplots()[1]
    assert plotting.plot_loss([1], [0.5], ax=given) is given and given.get_yscale() == "linear"
    for steps, wrong in [([1, 2], [0.5]), ([], [])]:
        with pytest.raises(ValueError, match="a loss for each step"):
            plotting.plot_loss(steps, wrong)


def test_without_a_notebook_the_description_is_printed(capsys):
    ax = plotting.plot_loss([1, 2], [3, 2])
    plotting.show(ax, "The loss falls.")
    assert capsys.readouterr().out == "The loss falls.\n"
    assert plt.get_fignums() == []
    for nothing in ("", "  ", None):
        with pytest.raises(ValueError, match="those who cannot see it"):
            plotting.show(plt.figure(), nothing)


def test_a_live_plot_is_drawn_at_most_once_a_second(monkeypatch):
    now, drawn = [0.0], []

    def draw(live):
        drawn.append(now[0])
        now[0] += 0.01 if len(drawn) < 4 else 0.2  # the fourth drawing is slow

    monkeypatch.setattr(plotting, "_in_notebook", lambda: True)
    monkeypatch.setattr(plotting.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(plotting.LivePlot, "_draw", draw)
    live = plotting.LivePlot("The loss.")
    for step in range(100):
        live.update(step, 1.0)
        now[0] += 0.1
    assert len(drawn) == 5
    assert all(1 <= later - earlier < 1.2 for earlier, later in zip(drawn[:4], drawn[1:4], strict=False))
    assert 4 <= drawn[4] - drawn[3] < 4.2  # twenty times as long as it took
    assert len(live.losses) == 100


CELLS = [
    """
import matplotlib.pyplot as plt
from course_utils import plotting
plotting.use_style()
figure, ax = plt.subplots()
ax.plot([1, 2])
plotting.show(ax, 'A line "rises" <from> 1 & 2.')
""",
    """
live = plotting.LivePlot("The loss falls.", seconds=0)
for step in range(3):
    live._next_time = 0  # as if the time had come
    live.update(step, 3 - step)
live.finish()
""",
    """
from PIL import Image
plotting.show(Image.new("RGB", (3, 2)), "A black sheet.")
""",
]


@pytest.fixture(scope="module")
def notebook():
    """A notebook with figures, really run."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    root = Path(__file__).parents[1]
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(root)}}).execute()
    nbformat.validate(book)
    return book


def test_a_figure_reaches_the_notebook_once_with_its_words(notebook):
    sentence = 'A line "rises" <from> 1 & 2.'
    picture, caption = notebook.cells[0].outputs  # and not a third, from pyplot at the end of the cell
    assert picture.data["text/plain"] == sentence
    assert picture.metadata["image/png"]["alt"] == sentence
    png = Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"])))
    assert png.size == (704, 396)
    assert "A line &quot;rises&quot; &lt;from&gt; 1 &amp; 2." in caption.data["text/html"]
    sheet = notebook.cells[2].outputs[0]
    assert Image.open(io.BytesIO(base64.b64decode(sheet.data["image/png"]))).size == (3, 2)


def test_a_live_plot_is_one_picture_that_was_renewed(notebook):
    picture, caption = notebook.cells[1].outputs
    last = "The loss falls. By step 2 the loss is 1 (mean of 1)."
    assert picture.data["text/plain"] == picture.metadata["image/png"]["alt"] == last
    assert last in caption.data["text/html"]


def test_html_pages_carry_the_words(notebook):
    classic, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    first_picture = BeautifulSoup(classic, "html.parser").find("img")
    assert first_picture["alt"] == 'A line "rises" <from> 1 & 2.'
    lab, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    assert "<p><small>A black sheet.</small></p>" in lab
