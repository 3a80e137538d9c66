"""The course as a web book: static pages that need no network, no kernel and no server.

`sources` writes the pages that Sphinx reads: `notebooks` makes a page of each chapter, `concepts` the index and the
glossary, `docstrings` the reference, `links` the addresses, `films` what moves. `conf.py` sets Sphinx up, `static/`
holds what the browser loads. No notebook is run: text and stubs come from `chapters/`, outputs and solutions from
`solutions/`; only the films of some explorers are drawn.
"""

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

from course_utils.site import films
from course_utils.site.sources import write_sources
from course_utils.web import write_box

NEEDS = "The book needs Sphinx, MyST-NB and the theme Furo: pip install -c constraints.txt sphinx myst-nb furo"
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
        source, pages, trees, box = (Path(temporary) / name for name in ("source", "pages", "trees", "draw"))
        live = write_drawing_box(box)
        shown = {place: films.show(place, frames) for place, frames in films.shoot(Path(temporary) / "films").items()}
        write_sources(root, source, shown, repository, live)
        render(source, pages, trees)
        shutil.copytree(Path(temporary) / "films", pages / "films")
        if output.exists():
            shutil.rmtree(output)
        shutil.copytree(pages, output, ignore=shutil.ignore_patterns("*.map", "objects.inv"))
        if live:
            shutil.copytree(box, output / "draw")
    return output / "index.html"


def render(source: Path, pages: Path, trees: Path) -> None:
    """Let Sphinx make pages of a folder of sources. Raises ValueError if it warns of anything."""
    from sphinx.cmd.build import build_main

    here = Path(__file__).parent  # where conf.py is
    arguments = ["-b", "html", "-W", "--keep-going", "-q", "-c", here, "-d", trees, source, pages]
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
