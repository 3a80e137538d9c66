"""The studio without a browser: drawing, stopping, keeping, plots; and its page, driven by its widgets."""

import dataclasses
import shutil
import threading

import pytest
import torch
from PIL import Image, ImageDraw
from test_steering import home  # noqa: F401  (a folder with the shipped model, LoRAs, a picture and a mask)
from thin_stable_diffusion import thin_pipeline
from tiny import tiny_pipeline

from course_utils.pipelines import picture_book, steering
from course_utils.pipelines.png_info import Settings, format_parameters, parse_parameters, read_png
from course_utils.studio import drawing, grid
from course_utils.studio.gallery import Gallery
from course_utils.studio.session import RANDOM, Drawn, Ended, Given, Progress, Request, Session
from course_utils.studio.shelf import SHIPPED, Shelf

PROMPT = "a red ball left of a white cat"
SETTINGS = Settings(PROMPT, steps=3, seed=4)


class TinyShelf(Shelf):
    """A shelf with one tiny model, which is there at once."""

    def _load(self, folder):
        return tiny_pipeline()


@pytest.fixture
def shelf(tmp_path):
    return TinyShelf(tmp_path / "runs")


@pytest.fixture
def session(shelf, tmp_path):
    return Session(shelf, Gallery(tmp_path / "gallery"))


def run(session, requests):
    """All events of requests, drawn here and now."""
    events = []
    session.run(requests, events.append)
    return events


def pixels(picture):
    return torch.tensor(list(picture.convert("RGB").tobytes()), dtype=torch.float32)


def difference(one, other):
    """The largest difference of two pictures, in grey levels."""
    return (pixels(one) - pixels(other)).abs().max().item()


# Drawing one picture.


@pytest.mark.parametrize("sampler", picture_book.SCHEDULERS)
@pytest.mark.parametrize("guidance", [0, 1, 4.0])
def test_plain_prompts_draw_what_generate_draws(sampler, guidance):
    settings = dataclasses.replace(SETTINGS, sampler=sampler, guidance=guidance, negative_prompt="the snow")
    ((expected, complete),) = picture_book.draw(tiny_pipeline(), settings)
    picture, made = drawing.draw_one(tiny_pipeline(), settings)
    assert difference(picture, expected) <= 1 and made == complete


def test_given_pictures_are_drawn_as_steering_draws_them(home):  # noqa: F811
    pipe = picture_book.load_picture_book(home / "picture_book")
    page, mask = Image.open(home / "page.png"), Image.open(home / "mask.png")
    lines = Image.new("L", (64, 64))
    ImageDraw.Draw(lines).ellipse((15, 15, 50, 50), outline=255, width=2)
    for given in (
        Given(page), Given(page, mask), Given(drawing=lines), Given(loras=[(str(home / "fox.safetensors"), 0.7)]),
    ):  # fmt: skip
        ((expected, complete),) = steering.draw_given(pipe, SETTINGS, given)
        picture, made = drawing.draw_one(pipe, SETTINGS, given)
        assert difference(picture, expected) <= 1, given
        assert made == complete, given


def test_the_end_of_a_variation_is_the_other_seed():
    own = drawing.draw_one(tiny_pipeline(), SETTINGS)[0]
    other = drawing.draw_one(tiny_pipeline(), dataclasses.replace(SETTINGS, seed=9))[0]
    turned = [drawing.draw_one(tiny_pipeline(), dataclasses.replace(SETTINGS, variation_seed=9, variation=share))[0]
              for share in (0.0, 0.5, 1.0)]  # fmt: skip
    assert difference(turned[0], own) == 0 and difference(turned[2], other) <= 1
    assert difference(turned[1], own) > 5 and difference(turned[1], other) > 5


def test_a_variation_is_kept_in_the_png_and_refused_elsewhere():
    settings = dataclasses.replace(SETTINGS, width=64, height=64, variation_seed=9, variation=0.3)
    assert "Variation seed: 9, Variation seed strength: 0.3" in format_parameters(settings)
    assert parse_parameters(format_parameters(settings)) == settings
    with pytest.raises(ValueError, match="variation seed"):
        picture_book.draw(tiny_pipeline(), settings)
    with pytest.raises(ValueError, match="with a picture to start from, set its strength to 0"):
        drawing.draw_one(
            tiny_pipeline(), dataclasses.replace(SETTINGS, variation=0.3), Given(Image.new("RGB", (64, 64)))
        )


def test_a_change_of_the_prompt_lies_between_its_two_prompts():
    def draw(prompt):
        settings = dataclasses.replace(SETTINGS, prompt=prompt, steps=4, guidance=40.0)
        return drawing.draw_one(tiny_pipeline(), settings)[0]

    before, after = draw("a red ball"), draw("a blue birds")
    assert difference(draw("a [red ball:blue birds:0]"), after) == 0
    assert difference(draw("a [red ball:blue birds:1.0]"), before) == 0
    half = draw("a [red ball:blue birds:0.5]")
    assert difference(half, before) > 0 and difference(half, after) > 0


def test_the_last_preview_is_nearly_the_picture():
    seen = []
    picture, _ = drawing.draw_one(tiny_pipeline(), SETTINGS, on_step=lambda share, x0: seen.append((share, x0)))
    assert [share for share, _ in seen] == pytest.approx([1 / 3, 2 / 3, 1])
    show = drawing.Preview(tiny_pipeline())
    assert difference(show(seen[-1][1]), picture) <= 1  # UniPC ends on its last guess


def test_previews_of_large_pictures_are_a_linear_map():
    x0 = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    show = drawing.Preview(tiny_pipeline(), small=32)
    assert show(x0).size == (16, 16) and difference(show(x0), show(x0)) == 0
    assert drawing.Preview(tiny_pipeline())(x0).size == (64, 64)


# Sessions.


def test_every_picture_is_reported_and_kept_with_its_settings(session):
    events = run(session, Request(SETTINGS, count=2))
    drawn = [event for event in events if isinstance(event, Drawn)]
    assert [one.settings.seed for one in drawn] == [4, 5]
    assert [read_png(one.path) for one in drawn] == [one.settings for one in drawn]
    shares = [event.share for event in events if isinstance(event, Progress)]
    assert shares == sorted(shares) and shares[-1] == 1
    assert any(event.preview for event in events if isinstance(event, Progress))
    assert events[-1].message.startswith("Drew 2 pictures in") and not events[-1].failed


def test_restored_settings_draw_the_same_picture(session):
    settings = dataclasses.replace(SETTINGS, prompt="a ((red)) [ball:cat:0.5]", variation_seed=3, variation=0.2)
    first = next(event for event in run(session, Request(settings)) if isinstance(event, Drawn))
    again = next(event for event in run(session, Request(read_png(first.path))) if isinstance(event, Drawn))
    assert difference(first.picture, again.picture) == 0 and first.path != again.path


def test_what_is_given_is_kept_beside_and_named(session):
    page = Image.new("RGB", (64, 64), "#4080c0")
    for _ in range(2):
        drawn = next(e for e in run(session, Request(SETTINGS, given=Given(page))) if isinstance(e, Drawn))
    assert difference(Image.open(drawn.settings.image), page) == 0
    assert len(list((session.gallery.folder / "given").iterdir())) == 1


def test_the_dice_cast_another_seed_each_time(session):
    request = Request(dataclasses.replace(SETTINGS, steps=1, seed=RANDOM))
    seeds = [next(e.settings.seed for e in run(session, request) if isinstance(e, Drawn)) for _ in range(2)]
    assert seeds[0] != seeds[1] and session.last_seed == seeds[1]


def test_stop_ends_within_a_step(session):
    events, stepped, go_on = [], threading.Event(), threading.Event()

    def report(event):
        events.append(event)
        if isinstance(event, Progress) and event.share and not stepped.is_set():
            stepped.set()
            assert go_on.wait(20)

    session.start(Request(dataclasses.replace(SETTINGS, steps=500), count=3), report)
    assert stepped.wait(60)
    with pytest.raises(ValueError, match="A drawing is under way"):
        session.start(Request(SETTINGS), events.append)
    session.stop()
    go_on.set()
    assert session.wait(20)
    assert events[-1] == Ended("Stopped; 0 of 3 pictures finished.")
    assert sum(isinstance(event, Progress) and event.share > 0 for event in events) == 1
    assert session.gallery.paths() == []
    assert isinstance(run(session, Request(SETTINGS))[-2], Drawn)  # and it draws again


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prompt": ""}, "The prompt is empty"),
        ({"steps": 0}, "The number of steps must be"),
        ({"guidance": 99}, "The guidance must be"),
        ({"width": 65}, "The width must be a multiple of 8"),
        ({"sampler": "lms"}, "There is no scheduler 'lms'"),
        ({"variation": 2.0}, "The variation strength must be"),
    ],
)
def test_faults_are_one_sentence_and_the_session_lives_on(session, change, message):
    (*_, ended) = run(session, Request(dataclasses.replace(SETTINGS, **change)))
    assert ended.failed and message in ended.message
    assert not run(session, Request(SETTINGS))[-1].failed


def test_other_faults_are_said_too(session, monkeypatch):
    monkeypatch.setattr(session.shelf, "load", lambda name: 1 / 0)
    (*_, ended) = run(session, Request(SETTINGS))
    assert ended == Ended("This could not be drawn (division by zero): try smaller or fewer pictures.", failed=True)


def test_sessions_side_by_side_do_not_disturb_each_other(shelf, tmp_path):
    sessions = [Session(shelf, Gallery(tmp_path / "gallery")) for _ in range(3)]
    requests = [Request(dataclasses.replace(SETTINGS, seed=10 * n, prompt=f"a [red:blue:0.{n}] ball"), count=2)
                for n in range(1, 4)]  # fmt: skip
    heard = [[] for _ in sessions]
    for one, request, events in zip(sessions, requests, heard, strict=True):
        one.start(request, events.append)
    assert all(one.wait(120) for one in sessions)
    paths = [event.path for events in heard for event in events if isinstance(event, Drawn)]
    assert len(set(paths)) == 6
    for request, events in zip(requests, heard, strict=True):
        for event in events:
            if isinstance(event, Drawn):
                alone, _ = drawing.draw_one(
                    tiny_pipeline(), dataclasses.replace(request.settings, seed=event.settings.seed)
                )
                assert difference(alone, event.picture) == 0 and difference(Image.open(event.path), alone) == 0


def test_galleries_never_give_a_name_twice(tmp_path):
    page, made = Image.new("RGB", (8, 8)), dataclasses.replace(SETTINGS, width=8, height=8)
    kept = []

    def keep(words):
        for _ in range(10):
            kept.append(Gallery(tmp_path).keep(page, made, words))

    threads = [threading.Thread(target=keep, args=(words,)) for words in ("red", "red", "blue", "blue")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name[:5] for path in kept) == [f"{number:05d}" for number in range(1, 41)]
    assert [path.name for path in Gallery(tmp_path).paths(1)] == [max(kept).name]


def test_the_shelf_finds_models_and_loras(tmp_path):
    shelf = Shelf(tmp_path)
    assert SHIPPED in shelf.models() and shelf.loras() == []
    shutil.copytree(picture_book.PICTURE_BOOK, tmp_path / "mine")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "fox.safetensors").touch()
    assert str(tmp_path / "mine") in shelf.models() and [path.name for path in shelf.loras()] == ["fox.safetensors"]
    with pytest.raises(ValueError, match="There is no model 'x': choose one of"):
        shelf.load("x")
    assert shelf.load(str(tmp_path / "mine")) is shelf.load(str(tmp_path / "mine"))


# Plots.


def test_a_folder_of_the_layout_of_stable_diffusion_draws(tmp_path):
    thin_pipeline().save_pretrained(tmp_path / "thin")
    session = Session(Shelf(tmp_path / "runs", own=tmp_path / "thin", device="cpu"), Gallery(tmp_path / "gallery"))
    settings = Settings("a (red:1.3) ball BREAK on [the grass:sand:0.5]", steps=2, seed=4, width=64, height=64)
    drawn, ended = run(session, [Request(settings, model=str(tmp_path / "thin"))])[-2:]
    assert isinstance(ended, Ended) and not ended.failed, ended
    assert drawn.picture.size == (64, 64) and read_png(drawn.path).prompt == settings.prompt


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("steps", "1, 2,8", (1, 2, 8)),
        ("seed", "3-6", (3, 4, 5, 6)),
        ("steps", "1-9 (+4)", (1, 5, 9)),
        ("guidance", "5-1 (-2)", (5.0, 3.0, 1.0)),
        ("strength", "0-1 [5]", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("words", 'red, "blue, dark", green', ("red", "blue, dark", "green")),
        ("sampler", "unipc, euler", ("unipc", "euler")),
    ],
)
def test_axes_are_read_as_the_web_ui_writes_them(name, text, expected):
    assert grid.parse_axis(name, text).values == expected


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("hue", "1", "There is no axis 'hue'"),
        ("steps", " ,", "has no values"),
        ("steps", "1.5", "whole numbers and ranges such as"),
        ("sampler", "lms", "There is no sampler 'lms'"),
        ("seed", "1-9 (-1)", "never gets from 1 to 9"),
        ("seed", "1-999", "100 pictures at most"),
    ],
)
def test_wrong_axes_are_refused(name, text, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        grid.parse_axis(name, text)


def test_a_plot_varies_what_its_axes_say(session):
    x, y = grid.parse_axis("words", "red, blue"), grid.parse_axis("steps", "1-3")
    plot = grid.plan(Request(SETTINGS), x, y)
    assert plot.shape == (1, 3, 2)
    assert [(one.settings.steps, one.settings.prompt[:6]) for one in plot.requests] == [
        (steps, words) for steps in (1, 2, 3) for words in ("a red ", "a blue")
    ]
    drawn = [event.picture for event in run(session, plot.requests) if isinstance(event, Drawn)]
    page = grid.sheet(plot, drawn, scale=1)
    places = [(c, r) for r in range(page.height - 63) for c in range(page.width - 63)
              if page.getpixel((c, r)) == drawn[-1].getpixel((0, 0))]  # fmt: skip
    assert any(difference(page.crop((c, r, c + 64, r + 64)), drawn[-1]) == 0 for c, r in places)
    with pytest.raises(ValueError, match="Expected 6 pictures"):
        grid.sheet(plot, drawn[1:])


def test_plots_that_cannot_be_are_refused():
    steps, words = grid.parse_axis("steps", "1-20"), grid.parse_axis("words", "dog, cat")
    with pytest.raises(ValueError, match="Two axes of a plot are the same"):
        grid.plan(Request(SETTINGS), steps, steps)
    with pytest.raises(ValueError, match="the prompt has no such words"):
        grid.plan(Request(SETTINGS), words)
    with pytest.raises(ValueError, match="needs a LoRA"):
        grid.plan(Request(SETTINGS), grid.parse_axis("LoRA weight", "0, 1"))
    with pytest.raises(ValueError, match="The plot has 400 pictures"):
        grid.plan(Request(SETTINGS), steps, grid.parse_axis("guidance", "1-20"))


# The page, by its widgets.


@pytest.fixture
def page(session):
    pytest.importorskip("ipycanvas")
    from course_utils.studio.panel import Studio

    page = Studio(session)
    page.controls.prompt.value, page.controls.steps.value, page.controls.seed.value = PROMPT, 3, 4
    return page


def drawn(page, title="Text to image"):
    """Open a tab, draw, and return what the page says."""
    page.chooser.selected_index = [tab.title for tab in page.tabs].index(title)
    page.draw()
    assert page.session.wait(60)
    assert not page.go.disabled and page.halt.disabled
    return page.result.message.value


def test_the_page_draws_what_its_controls_say(page):
    assert "Drew 1 picture" in drawn(page)
    ((one,), kept) = page.result.drawn, page.session.gallery.paths()
    assert kept == [one.path] and (one.settings.prompt, one.settings.seed, one.settings.steps) == (PROMPT, 4, 3)
    assert f'alt="{PROMPT}"' in page.result.picture.value and 'aria-valuenow="100"' in page.result.bar.value


@pytest.mark.parametrize(
    "title, message",
    [
        ("Image to image", "Image to image needs a picture to start from"),
        ("Inpaint", "Inpaint needs a picture to start from"),
        ("From a drawing", "From a drawing needs lines to follow"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(page, title, message):
    assert message in drawn(page, title) and 'role="alert"' in page.result.message.value
    assert "Drew 1 picture" in drawn(page)


def test_a_mask_keeps_what_is_outside_of_it(page):
    picture = Image.new("RGB", (64, 64), "#4080c0")
    page.send(None, picture, "Inpaint")
    assert "Inpaint needs a mask" in drawn(page, "Inpaint")
    page.inpaint.sheet.rectangle(16, 8, 24, 32)
    assert "Drew 1 picture" in drawn(page, "Inpaint")
    made = page.result.drawn[0]
    mask = Image.open(made.settings.mask)
    assert mask.getbbox() == (16, 8, 40, 40)
    outside = made.picture.copy()
    outside.paste("#4080c0", (16, 8, 40, 40))
    assert difference(outside, picture) == 0 and difference(made.picture, picture) > 0


def test_strokes_are_painted_and_taken_off_in_pixels_of_the_picture():
    painting = pytest.importorskip("course_utils.studio.painting")
    sheet = painting.Sheet((64, 64), brush=6)
    for x, y in ((60, 60), (120, 60), (180, 60)):  # six pixels of the screen for one of the picture
        (sheet._down if x == 60 else sheet._move)(x, y)
    sheet._up(180, 60)
    sheet._move(380, 380)  # the button is up
    assert sheet.painted.getpixel((20, 10)) == 255 and sheet.painted.getpixel((50, 10)) == 0
    left, top, right, bottom = sheet.painted.getbbox()
    assert (left, right) == (7, 34) and 6 <= bottom - top <= 8
    sheet.erases = True
    sheet.rectangle(0, 0, 64, 64)
    assert sheet.painted.getbbox() is None


def test_a_dropped_png_gives_its_settings_back(page):
    page.controls.prompt.value, page.controls.variation.value = "a (red:1.3) ball", 0.25
    page.controls.variation_seed.value = 8
    assert "Drew 1 picture" in drawn(page)
    path, made = page.result.drawn[0].path, page.result.drawn[0].settings
    page.controls.fill(Settings("other", seed=1, sampler="euler"))
    page.info.drop.name, page.info.drop.data = "picture.png", path.read_bytes()
    page.info.drop.count += 1
    page.info.send_to("Text to image")
    assert dataclasses.replace(page.controls.settings(), model=made.model) == made
    assert page.tab.title == "Text to image"


@pytest.mark.parametrize("data, message", [(b"no picture", "x.png is not a picture"), (None, "x.png does not say how")])
def test_a_dropped_file_without_settings_is_said(page, tmp_path, data, message):
    if data is None:
        Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
        data = (tmp_path / "x.png").read_bytes()
    page.info.drop.name, page.info.drop.data = "x.png", data
    page.info.drop.count += 1
    assert message in page.result.message.value


def test_the_settings_of_an_inpainted_picture_bring_picture_and_mask_back(page):
    page.send(None, Image.new("RGB", (64, 64), "#4080c0"), "Inpaint")
    page.inpaint.sheet.rectangle(16, 8, 24, 32)
    drawn(page, "Inpaint")
    first = page.result.drawn[0]
    page.inpaint.sheet.show(Image.new("RGB", (64, 64)))
    page.send(first.settings, first.picture, "Text to image")
    assert page.tab is page.inpaint
    drawn(page, "Inpaint")
    assert difference(page.result.drawn[0].picture, first.picture) == 0


def test_a_plot_is_one_labelled_sheet_in_the_gallery(page):
    for (kind, values), (name, text) in zip(page.plot.axes, [("steps", "1, 2"), ("seed", "3-4")], strict=False):
        kind.value, values.value = name, text
    assert "Drew 4 pictures" in drawn(page, "X/Y/Z plot")
    assert page.session.gallery.paths(1)[0].name.endswith("-plot.png") and 'alt="The plot"' in page.result.picture.value
    page.plot.axes[0][1].value = "one"
    assert "The axis steps has whole numbers" in drawn(page, "X/Y/Z plot")


def test_loras_are_listed_and_drawn_with(page, home):  # noqa: F811
    page.session.shelf.lora_folder = home
    page.session.shelf._load = lambda folder: picture_book.load_picture_book(home / "picture_book")
    page.controls.fill_loras()
    assert [name for name, _ in page.controls.loras.options] == ["fox", "snail"]
    page.controls.loras.value, page.controls.lora_weight.value = (str(home / "fox.safetensors"),), 0.5
    assert "Drew 1 picture" in drawn(page)
    assert read_png(page.result.drawn[0].path).loras == ((str(home / "fox.safetensors"), 0.5),)


def test_dice_and_reuse(page):
    page._reuse()
    assert "Nothing was drawn yet" in page.result.message.value
    page.controls.dice.click()
    assert page.controls.seed.value == RANDOM and "Drew 1 picture" in drawn(page)
    page.controls.reuse.click()
    assert page.controls.seed.value == page.result.drawn[0].settings.seed


def test_every_control_has_a_label(page):
    import ipywidgets

    def all_below(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from all_below(child)

    controls = [one for one in all_below(page.box) if isinstance(one, ipywidgets.ValueWidget | ipywidgets.Button)]
    named = [one for one in controls if not isinstance(one, ipywidgets.HTML | ipywidgets.Tab)]
    assert len(named) > 40 and all(one.description for one in named)
