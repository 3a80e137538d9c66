"""Each chapter in JupyterLab, as a learner sees it in the browser: it runs, explorers move, messages are readable."""

import os
import re
import shutil
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from needs import needs
from test_lab import course, lab

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.name for path in (ROOT / "chapters").glob("*.ipynb"))
ALWAYS = ("00", "05", "15")  # the first that a learner opens, and those with tests of their own; the others with --all
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE, RUN_PATIENCE = 300_000, 1_200_000  # milliseconds, for one answer of the page and for a whole chapter

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the test knows the names of Linux's browsers only"),
    needs(find_spec("playwright") is not None, "no playwright is installed: pip install -c constraints.txt playwright"),
    needs(BROWSER is not None, "no Chromium or Chrome is installed: on Debian and Ubuntu, sudo apt install chromium"),
]

COMPLAINTS = '[data-mime-type="application/vnd.jupyter.stderr"]'  # errors and warnings
# All has run where each code cell has its number, or one has raised.
AT_THE_END = f"""cells => {{
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];
    const numbered = prompts.filter(prompt => /\\[\\d+\\]/.test(prompt.textContent));
    return document.querySelector('{COMPLAINTS}') || numbered.length === cells;
}}"""
PIXELS = """picture => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    canvas.getContext('2d').drawImage(picture, 0, 0);
    return picture.complete && picture.naturalWidth > 0 && canvas.toDataURL();
}"""
OTHER_PIXELS = f"([picture, before]) => ![false, before].includes(({PIXELS})(picture))"


def code_cells(name):
    """The code of each cell of a chapter."""
    return [cell.source for cell in nbformat.read(ROOT / "chapters" / name, 4).cells if cell.cell_type == "code"]


@contextmanager
def pictured(page, folder, expected):
    """If what is done within does not go as expected, say so, with a picture of the page."""
    from playwright.sync_api import Error

    try:
        yield
    except (AssertionError, Error) as error:
        picture = folder / "page.png"
        page.screenshot(path=picture)
        pytest.fail(f"expected {expected}.\nGot: {error}\nLook at what the page showed: {picture}", pytrace=False)


@pytest.fixture(scope="module")
def open_chapter(tmp_path_factory):
    """`with open_chapter(name) as page`: the chapter in JupyterLab, in a learner's fresh copy of the course."""
    from playwright.sync_api import sync_playwright

    assert BROWSER, "expected a browser where CI=true, got none: let CI install chromium"
    folder = tmp_path_factory.mktemp("learner")
    shutil.copytree(ROOT / "chapters", folder / "chapters")
    course.copy_chapters(folder)
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("COURSE_STRICT", "COURSE_REPORT", "NBGRADER_EXECUTION")}  # fmt: skip
    environment |= {"COURSE_PROFILE": "smoke", "COURSE_PROGRESS": str(folder / "progress.json"),
                    "JUPYTER_CONFIG_DIR": str(folder / "settings")}  # fmt: skip
    with (
        lab(f"--ServerApp.root_dir={folder}", environment=environment) as (port, token, _),
        sync_playwright() as playwright,
    ):
        no_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=BROWSER, args=no_sandbox, timeout=PATIENCE)

        @contextmanager
        def open_chapter(name):
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(PATIENCE)
            home = f"http://localhost:{port}"
            # a workspace of its own: the usual one would open the chapters before as well
            page.goto(f"{home}/lab/workspaces/{name[:2]}/tree/work/{name}?token={token}")
            yield page
            for kernel in page.request.get(f"{home}/api/kernels?token={token}").json():  # free its memory
                page.request.delete(f"{home}/api/kernels/{kernel['id']}?token={token}")
            page.close()

        yield open_chapter
        browser.close()


CHAPTERS = [pytest.param(n, id=n[:2], marks=[] if n[:2] in ALWAYS else pytest.mark.slow) for n in NAMES]


@pytest.fixture(scope="module", params=CHAPTERS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def page(open_chapter, name, tmp_path_factory):
    """The page of a learner who has opened the chapter and run all its cells."""
    expected = f"{name} to open and to run to its end, without errors and warnings"
    with open_chapter(name) as page:
        with pictured(page, tmp_path_factory.mktemp("page"), expected):
            page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # before that, Run All does nothing
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            page.wait_for_function(AT_THE_END, arg=len(code_cells(name)), timeout=RUN_PATIENCE)
            assert page.locator(COMPLAINTS).all_text_contents() == []
        yield page


def test_nothing_is_asked_or_announced(page, tmp_path):
    with pictured(page, tmp_path, "no dialog and no notice: course.py's quieten_jupyterlab turns the news off"):
        assert page.locator(".Toastify__toast, .jp-Dialog").all_text_contents() == []


def test_unfilled_exercises_are_still_to_do(page, name, tmp_path):
    exercises = re.findall(r'^\w+ = check\("([\w.]+)"', "\n".join(code_cells(name)), re.MULTILINE)
    headlines = page.locator(".jp-RenderedHTMLCommon b", has_text="still to do")
    with pictured(page, tmp_path, "a message for each exercise that it is still to do"):
        if exercises:
            headlines.nth(len(exercises) - 1).wait_for()
        assert headlines.all_text_contents() == [f"○ {exercise}: still to do" for exercise in exercises]


def test_every_figure_is_shown(page, tmp_path):
    figures = page.locator(".jp-RenderedMarkdown img, .jp-RenderedImage img")
    with pictured(page, tmp_path, "every figure to be found and shown"):
        figures.first.wait_for(state="attached")  # JupyterLab hides cells that are scrolled away
        page.wait_for_function("() => [...document.images].every(one => one.complete)")
        assert figures.evaluate_all("all => all.filter(one => !one.naturalWidth).map(one => one.src)") == []


def test_every_slider_changes_the_picture(page, name, tmp_path):
    number = len(re.findall(r"^explore\(", "\n".join(code_cells(name)), re.MULTILINE))
    boxes = ".widget-vbox:not(.voting-booth, .voting-booth *)"
    explorers = page.locator(boxes, has=page.locator('img.widget-image[src^="blob:"]'))
    with pictured(page, tmp_path, f"{number} explorers, each with its controls and its picture"):
        if number:
            explorers.nth(number - 1).wait_for()
        assert explorers.count() == number
    for explorer in explorers.all():
        picture, sliders = explorer.locator("img.widget-image"), explorer.locator(".widget-slider")
        assert sliders.count(), "expected at least one slider in each explorer, got none"
        for slider in sliders.all():
            name, handle = slider.locator("label").text_content(), slider.locator(".noUi-handle")
            lowest = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemin")
            with pictured(page, tmp_path, f"another picture when the slider {name} is moved"):
                before = page.wait_for_function(PIXELS, arg=picture.element_handle()).json_value()
                handle.press("PageUp" if lowest else "PageDown")
                page.wait_for_function(OTHER_PIXELS, arg=[picture.element_handle(), before])


@pytest.mark.parametrize("name", ["05_forward_diffusion.ipynb"], scope="module")
def test_the_message_names_the_mistake(page, tmp_path):
    cell = page.locator(".jp-CodeCell", has_text="def snr(alpha_bar)")
    checked = page.locator(".jp-CodeCell", has_text='snr = check("05.snr", snr)')
    with pictured(page, tmp_path, "a wrong answer to 05.snr to be called upside down, as HTML"):
        cell.locator(".cm-line", has_text="raise NotImplementedError").click()
        page.keyboard.press("End")
        page.keyboard.press("Shift+Home")
        page.keyboard.insert_text("return (1 - alpha_bar) / alpha_bar")
        page.keyboard.press("Shift+Enter")
        page.keyboard.press("Shift+Enter")
        message = checked.locator(".jp-RenderedHTMLCommon", has_text="This is upside down")
        message.wait_for()
        assert "✗ 05.snr: not right yet" in message.locator("b").all_text_contents()


@pytest.mark.parametrize("name", ["15_measuring_pictures.ipynb"], scope="module")
def test_a_vote_by_the_keyboard_brings_the_next_pair(page, tmp_path):
    booth = page.locator(".voting-booth")
    with pictured(page, tmp_path, "Enter on a button to vote, and the next pair to be shown"):
        booth.get_by_text("Pair 1 of").wait_for()
        picture = booth.locator("img.widget-image").first
        before = page.wait_for_function(PIXELS, arg=picture.element_handle()).json_value()
        booth.get_by_role("button", name="Left is better").press("Enter")
        booth.get_by_text("Pair 2 of").wait_for()
        page.wait_for_function(OTHER_PIXELS, arg=[picture.element_handle(), before])
