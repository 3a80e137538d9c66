"""The web book in a browser that reaches nothing but the book: every page, the search, folded solutions, a phone.

COURSE_SCREENSHOT=1 writes chapters/figures/book.png, the README's picture of it.
"""

import os
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from needs import needs

ROOT = Path(__file__).resolve().parent.parent
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
INSTALLED = all(find_spec(name) for name in ("sphinx", "myst_nb", "furo"))
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 800}

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the test knows the names of Linux's browsers only"),
    needs(find_spec("playwright") is not None, "no playwright is installed: pip install -c constraints.txt playwright"),
    needs(BROWSER is not None, "no Chromium or Chrome is installed: on Debian and Ubuntu, sudo apt install chromium"),
    needs(INSTALLED, "no Sphinx is installed: pip install -c constraints.txt sphinx myst-nb furo"),
]

# Formulas that are not drawn, or not as they should be
UNDRAWN = "all => all.filter(one => !one.querySelector('.katex')).map(one => one.textContent)"
TOO_WIDE = """() => {
    if (document.documentElement.scrollWidth <= innerWidth) return [];
    const wide = one => one.getBoundingClientRect().right > innerWidth + 1;
    const found = [...document.querySelectorAll('article *')].filter(wide);
    return ['too wide', ...found.slice(0, 3).map(one => one.outerHTML.slice(0, 100))];
}"""
BROKEN = "all => all.filter(one => one.complete && !one.naturalWidth).map(one => one.src)"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(book):
    """Where the book is served, with an end to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def page(address):
    """A page whose `asked` lists what it wanted from elsewhere, and `complaints` what it wrote to the console."""
    from playwright.sync_api import sync_playwright

    assert BROWSER, "expected a browser where CI=true, got none: let CI install chromium"
    with sync_playwright() as playwright:
        no_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=BROWSER, args=no_sandbox, timeout=300_000)
        page = browser.new_page(viewport=DESKTOP)
        page.set_default_timeout(120_000)
        page.asked, page.complaints = [], []

        def let_through(route):
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                page.asked.append(route.request.url)
                route.abort()

        page.route("**/*", let_through)
        page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        yield page
        browser.close()


def test_every_page_is_whole_without_a_network(page, address, book):
    names = [path.relative_to(book).as_posix() for path in sorted(book.rglob("*.html"))]
    names = [name for name in names if not name.startswith("draw/")]
    assert len(names) > 80
    formulas = 0
    for name in names:
        page.set_viewport_size(DESKTOP)
        page.goto(address + name, wait_until="load")
        maths = page.locator(".math")
        assert maths.evaluate_all(UNDRAWN) == [], name
        assert page.locator(".katex-error").all_text_contents() == [], name
        assert page.locator("img").evaluate_all(BROKEN) == [], name
        formulas += maths.count()
        page.set_viewport_size(PHONE)
        assert page.evaluate(TOO_WIDE) == [], name
        assert (name, page.asked, page.complaints) == (name, [], [])
    assert formulas > 1000


@pytest.mark.parametrize(
    "front, word, title",
    [
        ("", "reparametrisation", "Variational autoencoders"),
        ("zh/", "重参数化", "变分自编码器"),
        ("zh/", "U-Net", "会作画的网络"),
    ],
)
def test_search_finds_a_word(page, address, front, word, title):
    page.set_viewport_size(DESKTOP)
    page.goto(address + front)
    page.locator("input.sidebar-search").fill(word)
    page.locator("input.sidebar-search").press("Enter")
    page.locator("#search-results a", has_text=title).first.wait_for()
    assert (page.asked, page.complaints) == ([], [])


def test_a_solution_opens_where_it_is_folded(page, address):
    page.set_viewport_size(DESKTOP)
    page.goto(address + "book/05_forward_diffusion.html")
    solution = page.locator("details.hide").first
    code = solution.locator("pre")
    assert not code.is_visible()
    solution.locator("summary").click()
    code.wait_for(state="visible")
    assert "signal * x_before + noise * eps" in code.text_content()


def test_a_slider_shows_what_was_drawn_beforehand(page, address):
    page.set_viewport_size(DESKTOP)
    page.goto(address + "book/05_forward_diffusion.html")
    film = page.locator(".film").first
    slider, picture = film.locator("input"), film.locator("img")
    begun = (picture.get_attribute("src"), picture.get_attribute("alt"), film.locator("output").text_content())
    slider.focus()
    slider.press("End")
    assert film.locator("output").text_content() == slider.get_attribute("aria-valuetext") == "999" != begun[2]
    assert picture.get_attribute("src") != begun[0] and picture.get_attribute("alt") != begun[1]
    assert film.locator("small").text_content() == picture.get_attribute("alt")
    page.wait_for_function("image => image.complete && image.naturalWidth > 100", arg=picture.element_handle())
    assert (page.asked, page.complaints) == ([], [])


@pytest.mark.parametrize("front, term", [("", "forward diffusion"), ("zh/", "前向扩散")])
def test_a_concept_leads_to_its_cell(page, address, front, term):
    page.set_viewport_size(DESKTOP)
    page.goto(address + front + "concepts.html")
    page.locator("article li", has_text=term).locator("a").first.click()
    page.wait_for_url(f"**/{front}book/05_forward_diffusion.html#*")
    assert page.locator(":target").count() == 1


def test_the_switch_leads_to_the_same_page(page, address):
    page.set_viewport_size(DESKTOP)
    page.goto(address + "book/05_forward_diffusion.html")
    page.locator("p.language a").click()
    page.wait_for_url("**/zh/book/05_forward_diffusion.html")
    assert "前向扩散" in page.locator("h1").text_content()


@pytest.mark.skipif(os.environ.get("COURSE_SCREENSHOT") != "1", reason="COURSE_SCREENSHOT=1 writes the figure")
def test_screenshot(page, address):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(address)
    page.get_by_label("Prompt", exact=True).fill("a cute corgi puppy sitting on the grass")
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator(".message", has_text="Drawn in").wait_for()
    page.screenshot(path=ROOT / "chapters" / "figures" / "book.png")
