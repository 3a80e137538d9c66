"""The course as a web book: static pages that need no network, no kernel and no server.

`sources` writes the pages that Sphinx reads: `notebooks` makes a page of each chapter, `concepts` the index and the
glossary, `docstrings` the reference, `links` the addresses, `films` what moves. `conf.py` sets Sphinx up, `static/`
holds what the browser loads. No notebook is run: text and stubs come from `chapters/`, outputs and solutions from
`solutions/`; only the films of some explorers are drawn.
"""

import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from course_utils.authoring import languages_of
from course_utils.site import films
from course_utils.site.sources import write_sources
from course_utils.web import write_box

NEEDS = "The book needs Sphinx, MyST-NB and the theme Furo: pip install -c constraints.txt sphinx myst-nb furo"
SPHINX_NAMES, TITLES = {"zh": "zh_CN"}, {"zh": "图像生成：原理与实践"}
BUILT = ".buildinfo"  # Sphinx writes it into each folder that it builds


def build(root: Path, output: Path, repository: str = "") -> Path:
    """Build the whole book into the folder `output`, and return its front page.

    root: the course's folder. repository: the address of the course on GitHub, for links; "": those of `git remote`,
    and none where that is on no known host. Any warning, such as a broken link, is an error. Raises ValueError if
    there is one, if Sphinx is not installed, and if `output` holds something other than a book.
    """
    if any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_nb", "furo")):
        raise ValueError(NEEDS)
    if output.exists() and not (output.is_dir() and (not any(output.iterdir()) or (output / BUILT).exists())):
        raise ValueError(f"{output} holds something other than a book: name another folder with --output.")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        live = write_drawing_box(work / "draw")
        for language in languages_of(root):
            with speaking(language):
                build_in(language, root, work / language, repository, live)
        if output.exists():
            shutil.rmtree(output)
        for language in languages_of(root):
            pages = output if language == "en" else output / language
            shutil.copytree(work / language / "pages", pages, ignore=shutil.ignore_patterns("*.map", "objects.inv"),
                            dirs_exist_ok=True)  # fmt: skip
        if live:
            shutil.copytree(work / "draw", output / "draw")
    return output / "index.html"


def build_in(language: str, root: Path, work: Path, repository: str, live: bool) -> None:
    """Build the book in one language, into `work/pages`."""
    shown = {place: films.show(place, frames) for place, frames in films.shoot(work / "films").items()}
    write_sources(root, work / "source", shown, repository, live, language)
    render(work / "source", work / "pages", work / "trees", language)
    shutil.copytree(work / "films", work / "pages" / "films")


@contextlib.contextmanager
def speaking(language: str):
    """Let the package speak a language within this context."""
    before = os.environ.get("COURSE_LANGUAGE")
    os.environ["COURSE_LANGUAGE"] = language
    try:
        yield
    finally:
        os.environ.pop("COURSE_LANGUAGE")
        if before is not None:
            os.environ["COURSE_LANGUAGE"] = before


def render(source: Path, pages: Path, trees: Path, language: str = "en") -> None:
    """Let Sphinx make pages of a folder of sources. Raises ValueError if it warns of anything."""
    from sphinx.cmd.build import build_main

    here = Path(__file__).parent  # where conf.py is
    arguments = ["-b", "html", "-W", "--keep-going", "-q", "-c", here, "-d", trees, source, pages]
    if language != "en":
        arguments += ["-D", f"language={SPHINX_NAMES[language]}", "-D", f"html_title={TITLES[language]}"]
    if build_main([str(argument) for argument in arguments]):
        raise ValueError("The book has the faults that are listed above: fix each where its text is written.")


def write_drawing_box(folder: Path) -> bool:
    """Write the live drawing box of some pages; False, with a note, where that cannot be done."""
    try:
        write_box(folder)
    except ValueError as problem:
        print(f"Note: the book shows pictures in place of the box to draw in. {problem}", file=sys.stderr)
        return False
    return True
