"""The studio as its user sees it, served by Voilà: draw, stop, paint a mask, plot, restore a picture's settings.

COURSE_SCREENSHOT=1 writes chapters/figures/studio.png, the README's picture of it.
"""

import base64
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from needs import needs
from PIL import Image, ImageChops, ImageStat
from test_browser import BROWSER, ROOT, pictured
from test_lab import free_port
from test_worlds import three

from course_utils.pipelines import parallax
from course_utils.pipelines.png_info import read_png

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the test knows the names of Linux's browsers only"),
    needs(find_spec("playwright") is not None, "no playwright is installed: pip install -c constraints.txt playwright"),
    needs(BROWSER is not None, "no Chromium or Chrome is installed: on Debian and Ubuntu, sudo apt install chromium"),
]
PATIENCE = 120_000  # milliseconds, for one answer of the page
SHOWN = ".course-studio .picture img"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture(scope="module")
def address(gallery):
    """Where `course.py studio` serves, until the last test."""
    port = free_port()
    command = [sys.executable, "-m", "course_utils.cli", "studio", "--no-browser", "--port", str(port),
               "--folder", str(gallery)]  # fmt: skip
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, start_new_session=True)  # fmt: skip
    try:
        said = []
        for line in server.stdout:
            said.append(line)
            if "is running at" in line:
                break
        else:
            pytest.fail(f"expected the studio to start, got:\n{''.join(said)}")
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
        server.stdout.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    assert BROWSER, "expected a browser where CI=true, got none: let CI install chromium"
    with sync_playwright() as playwright:
        no_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=BROWSER, args=no_sandbox, timeout=PATIENCE)
        yield browser
        browser.close()


@contextmanager
def opened(browser, address):
    """A page with the studio, ready."""
    page = browser.new_page(viewport={"width": 1240, "height": 1020})
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("button", name="Draw", exact=True).wait_for()
    yield page
    page.close()


@pytest.fixture(scope="module")
def page(browser, address):
    with opened(browser, address) as page:
        yield page


def choose(page, title):
    """Open a tab."""
    page.get_by_role("tab", name=title, exact=True).click()


def set_to(page, **values):
    """Type values into the controls with these labels."""
    for label, value in values.items():
        box = page.get_by_label(label.replace("_", " "), exact=True)
        box.fill(str(value))
        box.press("Tab")


def draw(page, said=r"Drew \d+ picture", press=lambda button: button.click()):
    """Press Draw, and wait until the page says so; return what it says."""
    page.evaluate("() => document.querySelectorAll('.message').forEach(one => one.textContent = '')")  # the last one
    press(page.get_by_role("button", name="Draw", exact=True))
    message = page.locator(".message", has_text=re.compile(said))
    message.wait_for()
    page.wait_for_function("() => ![...document.querySelectorAll('button.go')].some(one => one.disabled)")
    return message.text_content()


def newest(gallery):
    return max(gallery.glob("*.png"))


def test_draw(page, gallery, tmp_path):
    with pictured(page, tmp_path, "a picture to be drawn, shown and kept"):
        set_to(page, Prompt="a white cat on the grass", Steps=8)
        page.get_by_label("Seed (-1: any)").fill("7")
        page.get_by_label("Seed (-1: any)").press("Tab")
        draw(page)
        assert page.locator(SHOWN).get_attribute("alt") == "a white cat on the grass"
        made = read_png(newest(gallery))
        assert (made.prompt, made.steps, made.seed) == ("a white cat on the grass", 8, 7)


def test_a_fault_is_a_sentence_and_the_studio_lives_on(page, tmp_path):
    with pictured(page, tmp_path, "a sentence about the empty prompt, and a picture afterwards"):
        set_to(page, Prompt="")
        assert draw(page, "The prompt is empty").startswith("The prompt is empty: say what to draw")
        set_to(page, Prompt="a red ball on the beach")
        draw(page)


def test_stop(page, gallery, tmp_path):
    with pictured(page, tmp_path, "previews and the time left, and a stop within seconds"):
        before = len(list(gallery.glob("*.png")))
        set_to(page, Steps=900)
        page.get_by_role("button", name="Draw", exact=True).click()
        page.locator(".message", has_text=re.compile(r"% *, about \d+ (s|min) left")).wait_for()
        page.locator(f"{SHOWN}[alt^=Preview]").wait_for()
        page.get_by_role("button", name="Stop", exact=True).click()
        page.locator(".message", has_text="Stopped; 0 of 1 picture finished.").wait_for(timeout=20_000)
        assert len(list(gallery.glob("*.png"))) == before
        set_to(page, Steps=8)


def test_drop_a_picture_and_get_its_settings_back(page, gallery, tmp_path):
    with pictured(page, tmp_path, "the settings of a dropped PNG, sent to text to image, to draw it again"):
        first = min(gallery.glob("*.png"))
        choose(page, "PNG info")
        page.locator(".drop input").locator("visible=true").set_input_files(first)
        page.get_by_text("Seed: 7, Size: 64x64").wait_for()
        page.get_by_role("button", name="Send to text to image").locator("visible=true").click()
        page.wait_for_function("() => document.querySelector('.course-studio textarea').value.includes('white cat')")
        assert page.get_by_label("Seed (-1: any)").input_value() == "7"
        draw(page)
        again = newest(gallery)
        assert again != first
        assert ImageChops.difference(Image.open(first), Image.open(again)).getbbox() is None


def test_paint_a_mask_and_inpaint(page, gallery, tmp_path):
    with pictured(page, tmp_path, "what is painted over to be drawn again, and the rest to stay"):
        original = newest(gallery)
        choose(page, "Gallery")
        page.get_by_text("Folder: ").locator("visible=true").wait_for()
        page.get_by_role("button", name="Send to inpaint").locator("visible=true").click()
        canvas = page.locator("canvas").locator("visible=true").last
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.4 * box["height"])
        page.mouse.down()
        for share in (0.5, 0.6, 0.7):
            page.mouse.move(box["x"] + share * box["width"], box["y"] + 0.45 * box["height"], steps=4)
        page.mouse.up()
        page.wait_for_timeout(500)
        set_to(page, Prompt="a red ball on the grass")
        draw(page)
        made = read_png(newest(gallery))
        before, after, mask = (Image.open(file).convert("RGB") for file in (original, newest(gallery), made.mask))
        changed = ImageChops.difference(before, after)
        inside = mask.convert("L").point(lambda level: 255 * (level >= 128))
        assert changed.getbbox() is not None
        outside = Image.composite(Image.new("RGB", before.size), changed, inside)
        assert outside.getbbox() is None
        left, top, right, bottom = inside.getbbox()
        assert left < 28 and right > 42 and top < 26 and bottom > 27 and bottom < 50


def test_drop_a_file_with_the_mouse_and_draw_from_it(page, gallery, tmp_path):
    with pictured(page, tmp_path, "a file that is dropped on the box to be the picture that is drawn again"):
        first = min(gallery.glob("*.png"))
        choose(page, "Image to image")
        file = page.evaluate_handle(
            """data => {
                const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0)), moved = new DataTransfer();
                moved.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
                return moved;
            }""",
            base64.b64encode(first.read_bytes()).decode(),
        )
        page.locator(".drop").locator("visible=true").dispatch_event("drop", {"dataTransfer": file})
        page.locator("img[alt='The picture to start from']").wait_for()
        set_to(page, Prompt="a white cat on the grass")
        page.get_by_label("Strength: 0 keeps").locator("visible=true").fill("0.2")
        page.get_by_label("Strength: 0 keeps").locator("visible=true").press("Tab")
        draw(page)
        made = read_png(newest(gallery))
        assert made.strength == 0.2 and made.image
        before, after = (Image.open(file).convert("RGB") for file in (first, newest(gallery)))
        assert 0 < sum(ImageStat.Stat(ImageChops.difference(before, after)).mean) / 3 < 20  # of 255: nearly the same


def test_draw_lines_with_the_mouse_and_let_them_be_followed(page, gallery, tmp_path):
    with pictured(page, tmp_path, "lines on the sheet, and a picture that was drawn by them"):
        choose(page, "From a drawing")
        canvas = page.locator("canvas").locator("visible=true").last
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()

        def point(x, y):
            return box["x"] + x * box["width"], box["y"] + y * box["height"]

        page.mouse.move(*point(0.3, 0.8))
        page.mouse.down()
        for corner in ((0.3, 0.5), (0.5, 0.3), (0.7, 0.5), (0.7, 0.8), (0.3, 0.8)):  # a house
            page.mouse.move(*point(*corner), steps=4)
        page.mouse.up()
        page.wait_for_timeout(500)
        set_to(page, Prompt="a house on the grass")
        draw(page)
        lines = Image.open(read_png(newest(gallery)).control).convert("L").point(lambda level: 255 * (level < 128))
        left, top, right, bottom = lines.getbbox()
        assert 17 <= left <= 20 and 17 <= top <= 20 and 44 <= right <= 47 and 50 <= bottom <= 53


def test_plot(page, gallery, tmp_path):
    with pictured(page, tmp_path, "a sheet of four pictures with labels"):
        choose(page, "X/Y/Z plot")
        set_to(page, Values_of_X="1, 6", Values_of_Y="3, 4", Steps=4)
        assert draw(page).startswith("Drew 4 pictures")
        page.locator(f"{SHOWN}[alt='The plot']").wait_for()
        assert newest(gallery).name.endswith("-plot.png")
        width, height = Image.open(newest(gallery)).size
        assert width > 2 * 128 and height > 2 * 128


def test_every_control_has_a_name(page, tmp_path):
    names = """() => [...document.querySelectorAll('.course-studio :is(input, select, textarea)')]
        .filter(one => !(one.labels && one.labels.length && one.labels[0].textContent.trim()))
        .map(one => one.outerHTML)"""
    with pictured(page, tmp_path, "a label for each control"):
        assert page.evaluate(names) == []


def test_it_can_be_used_by_the_keyboard(page, gallery, tmp_path):
    with pictured(page, tmp_path, "tabs by arrow keys, and a picture drawn by Enter on the button"):
        choose(page, "Image to image")
        page.get_by_role("tab", name="Image to image", exact=True).focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        page.locator("[role=tab][aria-selected=true]", has_text="Text to image").wait_for()
        before = len(list(gallery.glob("*.png")))
        set_to(page, Prompt="a red ball", Steps=20)
        draw(page, press=lambda button: button.press("Enter"))
        assert len(list(gallery.glob("*.png"))) == before + 1


def test_three_sessions_at_once(browser, address, gallery, tmp_path):
    """Each draws with its own prompt, at the same time: none gets another's picture, and all are kept."""
    with opened(browser, address) as one, opened(browser, address) as two, opened(browser, address) as three:
        pages = {"a red ball": one, "a white cat": two, "a green car": three}
        before = set(gallery.glob("*.png"))
        for prompt, page in pages.items():
            set_to(page, Prompt=prompt, Steps=6, Pictures=2)
        for page in pages.values():
            page.get_by_role("button", name="Draw", exact=True).click()
        for prompt, page in pages.items():
            with pictured(page, tmp_path, f"two pictures of {prompt}"):
                page.locator(".message", has_text="Drew 2 pictures").wait_for()
                assert page.locator(SHOWN).get_attribute("alt") == prompt
        made = [read_png(path).prompt for path in set(gallery.glob("*.png")) - before]
        assert sorted(made) == sorted(2 * list(pages))


def test_a_scene_with_depth_moves_with_the_mouse_and_by_keys(browser):
    page = browser.new_page()
    page.set_content(parallax.parallax_page(three(), "A scene", "Two bars."))
    shifts = "() => [...scene.children].map(sheet => new DOMMatrix(getComputedStyle(sheet).transform).m41)"
    page.locator("#scene").focus()
    page.keyboard.press("ArrowRight")
    far, middle, near = page.evaluate(shifts)
    assert far == 0 > middle > near and near == pytest.approx(2 * middle)
    box = page.locator("#scene").bounding_box()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.5 * box["height"])
    far, middle, near = page.evaluate(shifts)
    assert far == 0 < middle < near  # the eye has moved to the left
    page.close()


@pytest.mark.skipif(os.environ.get("COURSE_SCREENSHOT") != "1", reason="COURSE_SCREENSHOT=1 writes the figure")
def test_screenshot(browser, address):
    with opened(browser, address) as page:
        set_to(
            page, Prompt="a (white:1.2) cat on the grass, watercolour", Negative_prompt="night", Steps=20, Pictures=4
        )
        page.get_by_label("Seed (-1: any)").fill("1")
        draw(page)
        page.locator(".course-studio").screenshot(path=ROOT / "chapters" / "figures" / "studio.png")
