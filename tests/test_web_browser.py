"""The box to draw with as its reader sees it, in a browser: type, draw, stop, follow a link, download.

COURSE_SCREENSHOT=1 writes chapters/figures/draw_box.png, a picture of it.
"""

import functools
import http.server
import os
import re
import shutil
import sys
import threading
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlsplit

import pytest
from needs import needs
from PIL import Image, ImageChops, ImageStat
from test_browser import BROWSER, ROOT, pictured

from course_utils.pipelines.picture_book import draw, load_picture_book
from course_utils.pipelines.png_info import Settings, read_png
from course_utils.web import write_box

PACKAGES = [find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime")]
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the test knows the names of Linux's browsers only"),
    needs(find_spec("playwright") is not None, "no playwright is installed: pip install -c constraints.txt playwright"),
    needs(BROWSER is not None, "no Chromium or Chrome is installed: on Debian and Ubuntu, sudo apt install chromium"),
    needs(all(PACKAGES), "no onnx is installed: pip install -c constraints.txt onnx onnxscript onnxruntime"),
    needs(shutil.which("npm") is not None, "no npm is installed: install Node.js 20 or newer"),
]
PATIENCE = 120_000  # milliseconds, for one answer of the page
BELOW = "a site/below/"  # where the folder lies on the server
PIXELS = """canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The root folder of a server that has the box below it."""
    root = tmp_path_factory.mktemp("site")
    (root / BELOW).mkdir(parents=True)
    write_box(root / BELOW / "draw")
    return root


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class Isolated(Quiet):
    """Allows threads."""

    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


@contextmanager
def served(site, handler=Quiet):
    """The address of the box on a server of static files."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{BELOW.replace(' ', '%20')}draw/index.html"
        server.shutdown()


@pytest.fixture(scope="module")
def address(site):
    with served(site) as address:
        yield address


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
def opened(browser, address, before=""):
    """A page with the box; `before`: a script that runs first."""
    page = browser.new_page(viewport={"width": 1100, "height": 760})
    page.set_default_timeout(PATIENCE)
    if before:
        page.add_init_script(before)
    page.goto(address)
    yield page
    page.close()


@pytest.fixture(scope="module")
def requests():
    return []


@pytest.fixture(scope="module")
def page(browser, address, requests):
    with opened(browser, "about:blank") as page:
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        yield page


@pytest.fixture(scope="module")
def generated():
    """The picture that `generate` draws with settings."""
    pipe = load_picture_book()
    return lambda settings: draw(pipe, settings)[0][0]


def fill(page, settings):
    for name in ("prompt", "seed", "steps", "guidance"):
        page.get_by_label(name.capitalize(), exact=True).fill(str(getattr(settings, name)))


def wait(page, said="Drawn in"):
    """Wait until the page says so, and return what it says."""
    message = page.locator(".message", has_text=re.compile(said))
    message.wait_for()
    page.locator("[aria-busy=false]").wait_for()
    return message.text_content()


def press_draw(page):
    page.get_by_role("button", name="Draw", exact=True).click()


def shown(page):
    """The picture on the page."""
    pixels = page.locator("canvas").evaluate(PIXELS)
    side = round((len(pixels) / 4) ** 0.5)
    return Image.frombytes("RGBA", (side, side), bytes(pixels)).convert("RGB")


def difference(one, other):
    """The mean difference of two pictures, in grey levels of 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


BALL = Settings("a red ball on the beach", seed=7, steps=8, guidance=4)


@pytest.mark.parametrize(
    "settings",
    [
        BALL,
        Settings("two white kittens in the snow, watercolour", seed=2**32 - 1, steps=5, guidance=2.5),
        Settings("a blue teapot", seed=1, steps=3, guidance=1),
    ],
    ids=["guided", "few steps", "without guidance"],
)
def test_the_picture_is_that_of_generate(settings, page, generated, tmp_path):
    with pictured(page, tmp_path, "the picture that generate draws"):
        fill(page, settings)
        press_draw(page)
        wait(page)
        assert page.locator("canvas").get_attribute("aria-label") == settings.prompt
        picture = shown(page)
        assert picture.size == (64, 64)
        assert difference(picture, generated(settings)) <= 2


def test_where_the_picture_attended_to_a_word(page, tmp_path):
    with pictured(page, tmp_path, "a picture that is bright where it attended to a word, and the same without it"):
        fill(page, Settings("a red ball left of a white cat in the snow", seed=1, steps=8))
        press_draw(page)
        wait(page)
        words = page.locator(".words button")
        assert words.all_text_contents() == ["a", "red", "ball", "left", "of", "a", "white", "cat", "in", "the", "snow"]
        whole, halves = shown(page), {}
        for word in ("ball", "cat"):
            page.get_by_role("button", name=word, exact=True).click()
            assert page.locator(".words [aria-pressed=true]").all_text_contents() == [word]
            bright = ImageChops.difference(whole, shown(page)).convert("L")  # dark where nothing was taken away
            left, right = (ImageStat.Stat(bright.crop(box)).mean[0] for box in ((0, 0, 32, 64), (32, 0, 64, 64)))
            halves[word] = left - right
        assert halves["ball"] < halves["cat"]  # less is taken from the left half, where the ball is
        page.get_by_role("button", name="cat", exact=True).click()
        assert difference(shown(page), whole) == 0
        press_draw(page)
        assert words.count() == 0
        wait(page)


def test_previews_and_a_page_that_is_not_held_up(page, tmp_path):
    longest = """() => new Promise((done) => {
        let [last, longest, end] = [performance.now(), 0, performance.now() + 2000];
        const tick = () => {
            longest = Math.max(longest, performance.now() - last);
            last = performance.now();
            last < end ? setTimeout(tick) : done(longest);
        };
        setTimeout(tick);
    })"""
    with pictured(page, tmp_path, "rough previews, and a page that answers while it draws"):
        fill(page, Settings("a green house in the forest", seed=3, steps=500))
        press_draw(page)
        page.locator("canvas.rough[aria-label^='Preview after step']").wait_for()
        assert page.evaluate(longest) < 1000  # milliseconds, on a computer that may be busy with other tests
        page.get_by_role("button", name="Stop", exact=True).click()
        wait(page, "Stopped")


def test_stop(page, tmp_path):
    with pictured(page, tmp_path, "a drawing that is stopped, and another one afterwards"):
        fill(page, Settings("a green house in the forest", steps=500))
        press_draw(page)
        page.locator(".message", has_text=re.compile(r"Step \d+ of 500")).wait_for()
        page.get_by_role("button", name="Stop", exact=True).click()
        wait(page, "Stopped")
        assert page.get_by_role("button", name="Download PNG").is_disabled()
        fill(page, BALL)
        press_draw(page)
        wait(page)
        assert page.locator("canvas").get_attribute("aria-label") == BALL.prompt


def test_download(page, tmp_path):
    with pictured(page, tmp_path, "a PNG that says how it was made"):
        fill(page, BALL)
        press_draw(page)
        wait(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download PNG").click()
        assert download.value.suggested_filename == "a-red-ball-on-the-beach.png"
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        made = read_png(path)
        assert made == Settings(BALL.prompt, seed=7, steps=8, guidance=4.0, width=64, height=64, model="picture_book")
        assert difference(Image.open(path).convert("RGB"), shown(page)) == 0


def test_a_link_draws_the_same_picture(page, browser, tmp_path):
    fill(page, BALL)
    press_draw(page)
    wait(page)
    assert page.url.endswith("#prompt=a+red+ball+on+the+beach&seed=7&steps=8&guidance=4")
    with opened(browser, page.url) as other, pictured(other, tmp_path, "the picture of the link"):
        wait(other)
        assert difference(shown(other), shown(page)) == 0


def test_words_that_the_model_does_not_know_are_said(page, tmp_path):
    with pictured(page, tmp_path, "a sentence about the unknown word, as generate has it"):
        page.get_by_label("Prompt").fill("a turquoise unicorn on the gras")
        notes = page.locator(".notes li").all_text_contents()
        assert notes[1].startswith("No training caption has the word 'unicorn', so its effect is arbitrary")
        assert notes[2] == "No training caption has the word 'gras', so its effect is arbitrary; did you mean 'grass'?"
        page.get_by_label("Prompt").fill("a red ball")
        assert page.locator(".notes li").count() == 0


def test_a_fault_is_a_sentence(page, tmp_path):
    with pictured(page, tmp_path, "a sentence about the steps"):
        page.get_by_label("Steps").fill("0")
        press_draw(page)
        assert wait(page, "number of steps") == "The number of steps must be a whole number from 1 to 1000, but is “0”."


def test_it_can_be_used_by_the_keyboard(page, tmp_path):
    with pictured(page, tmp_path, "a picture that is drawn without a mouse, and controls that have names"):
        page.get_by_label("Prompt").focus()
        page.keyboard.press("ControlOrMeta+A")
        page.keyboard.type("a yellow duck")
        visited = []
        for _ in range(3):
            page.keyboard.press("Tab")
            visited.append(page.evaluate("document.activeElement.labels?.[0]?.textContent"))
        assert visited == ["Seed", "", "Steps"] or visited == ["Seed", None, "Steps"]
        page.keyboard.press("ControlOrMeta+A")
        page.keyboard.type("2")
        page.keyboard.press("Enter")
        wait(page)
        assert page.locator("canvas").get_attribute("aria-label") == "a yellow duck"
        names = """() => [...document.querySelectorAll('.draw-box :is(input, button, progress, canvas)')]
            .filter((one) => !(one.ariaLabel || one.labels?.[0]?.textContent || one.textContent.trim()))
            .map((one) => one.outerHTML)"""
        assert page.evaluate(names) == []


def test_an_example_is_drawn_again(page, site, tmp_path):
    with pictured(page, tmp_path, "the picture of the example that was chosen"):
        page.get_by_role("button", name="Draw: a yellow duck in the meadow").click()
        wait(page)
        assert page.evaluate("document.activeElement.ariaLabel") == "Draw: a yellow duck in the meadow"
        ready = Image.open(site / BELOW / "draw" / "gallery" / "a-yellow-duck-in-the-meadow.png").convert("RGB")
        assert difference(shown(page), ready) <= 2


def test_another_page_of_the_site_has_the_box_too(page, site, address, browser, tmp_path):
    box = '<h2>Draw</h2><div class="draw-box" data-model="draw/model/"></div>'
    (site / BELOW / "chapter.html").write_text(f'{box}<script type="module" src="draw/draw.js"></script>')
    with (
        opened(browser, address.replace("draw/index.html", "chapter.html#section-2")) as other,
        pictured(other, tmp_path, "the same picture, and the box's own look"),
    ):
        fill(other, BALL)
        press_draw(other)
        wait(other)
        fill(page, BALL)
        press_draw(page)
        wait(page)
        assert difference(shown(other), shown(page)) == 0
        assert other.locator(".draw-box").evaluate("one => getComputedStyle(one).display") == "grid"


@pytest.fixture(scope="module")
def chinese_address(site, address):
    """A Chinese page of the site, which chooses its colours as the book does."""
    box = '<div class="draw-box" data-model="draw/model/"></div><script type="module" src="draw/draw.js"></script>'
    page = f'<!doctype html><html lang="zh-CN"><meta charset="utf-8"><body data-theme="auto">{box}</body></html>'
    (site / BELOW / "chinese.html").write_text(page, encoding="utf-8")
    return address.replace("draw/index.html", "chinese.html")


def test_a_chinese_prompt_on_a_chinese_page(browser, chinese_address, generated, tmp_path):
    expected = "all in Chinese, and the picture of the English prompt"
    with opened(browser, chinese_address) as page, pictured(page, tmp_path, expected):
        page.get_by_label("提示词").fill("一只可爱的柯基犬坐在草地上，恐龙")
        page.get_by_label("步数").fill("2")
        page.get_by_role("button", name="绘制", exact=True).click()
        wait(page, "画好了")
        english = "a cute corgi puppy sitting on the grass"
        assert page.locator(".notes li").all_text_contents() == [
            f"模型是用英文的图像描述训练的，所以画的是 '{english}'。", "课程的词典里没有：恐龙。",
        ]  # fmt: skip
        assert page.locator("canvas").get_attribute("aria-label") == english
        assert difference(shown(page), generated(Settings(english, steps=2))) <= 2
        assert page.url.endswith("#prompt=a+cute+corgi+puppy+sitting+on+the+grass&seed=0&steps=2&guidance=4")
        for text in page.locator("label, .title, .actions button, .settings button").all_text_contents():
            assert re.search("[\u3400-\u9fff]", text)
        with page.expect_download() as download:
            page.get_by_role("button", name="下载 PNG").click()
        download.value.save_as(tmp_path / "a.png")
        assert read_png(tmp_path / "a.png").prompt == english
        page.get_by_label("提示词").fill("一只恐龙")
        page.get_by_role("button", name="绘制", exact=True).click()
        assert wait(page, "一只恐龙").startswith("“一只恐龙”里没有图画书认识的主体；它认识的有：柯基幼犬、")


def test_a_chinese_prompt_on_an_english_page(page, tmp_path):
    with pictured(page, tmp_path, "a note in English"):
        page.get_by_label("Prompt").fill("两只白色的兔子")
        note = "The model was trained on English captions, so it draws 'two white rabbits'."
        assert page.locator(".notes li").all_text_contents() == [note]


def test_it_is_dark_where_the_book_is(browser, chinese_address, tmp_path):
    brightness = """box => ["color", "backgroundColor"].map((name) =>
        getComputedStyle(box)[name].match(/\\d+/g).reduce((sum, one) => sum + Number(one), 0) / 3)"""
    with opened(browser, chinese_address) as page, pictured(page, tmp_path, "light letters on a dark box"):
        box = page.locator(".draw-box:has(canvas)")
        page.wait_for_function("getComputedStyle(document.querySelector('.draw-box')).display === 'grid'")  # styled
        for system, theme, dark in (
            ("light", "auto", False), ("dark", "auto", True), ("dark", "light", False), ("light", "dark", True),
            ("dark", "", False),
        ):  # fmt: skip
            page.emulate_media(color_scheme=system)
            page.evaluate("theme => { document.body.dataset.theme = theme; }", theme)
            letters, ground = box.evaluate(brightness)
            assert (letters > 200 and ground < 50) if dark else (letters < 50 and ground == 255), (system, theme)


def test_no_request_leaves_the_server(page, address, requests):
    assert any(url.endswith("unet.onnx") for url in requests) and any(url.endswith(".wasm") for url in requests)
    folder = address.removesuffix("index.html")
    assert [url for url in requests if not url.startswith((folder, "data:", "blob:"))] == []
    assert urlsplit(address).hostname == "127.0.0.1"


def test_threads_draw_the_same_where_they_are_allowed(page, site, browser, tmp_path):
    fill(page, BALL)
    press_draw(page)
    wait(page)
    expected = "the same picture, drawn by threads"
    with served(site, Isolated) as address, opened(browser, address) as other, pictured(other, tmp_path, expected):
        assert other.evaluate("crossOriginIsolated")
        fill(other, BALL)
        press_draw(other)
        threads = min(4, other.evaluate("navigator.hardwareConcurrency"))
        assert wait(other).endswith(f"the processor, by {threads} threads." if threads > 1 else "the processor.")
        assert difference(shown(other), shown(page)) <= 1


def test_ready_pictures_where_webassembly_is_missing(browser, address, tmp_path):
    with (
        opened(browser, address, "delete globalThis.WebAssembly") as page,
        pictured(page, tmp_path, "one sentence and ready pictures"),
    ):
        page.locator(".ready img").first.wait_for()
        assert page.locator(".message").text_content() == (
            "This browser cannot run the model, which needs WebAssembly. Here are pictures that it drew elsewhere."
        )
        assert page.locator(".ready figcaption").count() == page.locator(".ready img").count() >= 6


def test_a_model_that_cannot_be_fetched_is_said(browser, address, tmp_path):
    with opened(browser, "about:blank") as page, pictured(page, tmp_path, "a sentence that names the file"):
        page.route("**/unet.onnx", lambda route: route.abort())
        page.goto(address)
        press_draw(page)
        assert re.search("cannot be drawn: .*unet.onnx cannot be fetched", wait(page, "cannot be drawn"))
        page.unroute("**/unet.onnx")
        page.get_by_label("Steps").fill("2")
        press_draw(page)
        wait(page)


@pytest.mark.skipif(os.environ.get("COURSE_SCREENSHOT") != "1", reason="COURSE_SCREENSHOT=1 writes the figure")
def test_screenshot(page):
    fill(page, Settings("a cute corgi puppy sitting on the grass"))
    press_draw(page)
    wait(page)
    page.locator(".draw-box").screenshot(path=ROOT / "chapters" / "figures" / "draw_box.png")
