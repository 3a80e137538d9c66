"""The course as a web book: static pages that need no network, no kernel and no server.

`sources` writes the pages that Sphinx reads: `notebooks` makes a page of each chapter, `concepts` the index and the
glossary, `docstrings` the reference, `links` the addresses. `conf.py` sets Sphinx up, `static/` holds what the browser
loads. Nothing is run: text and stubs come from `chapters/`, outputs and solutions from `solutions/`.
"""

import importlib
import importlib.util
import shutil
import tempfile
from pathlib import Path

from course_utils.site.sources import write_sources

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
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as temporary:
        source, pages, trees = (Path(temporary) / name for name in ("source", "pages", "trees"))
        write_box = find_box()
        write_sources(root, source, repository, live=write_box is not None)
        here = Path(__file__).parent
        arguments = ["-b", "html", "-W", "--keep-going", "-q", "-c", here, "-d", trees, source, pages]
        if build_main([str(argument) for argument in arguments]):
            raise ValueError("The book has the faults that are listed above: fix each where its text is written.")
        if output.exists():
            shutil.rmtree(output)
        shutil.copytree(pages, output, ignore=shutil.ignore_patterns("*.map", "objects.inv"))
        if write_box is not None:
            write_box(output / "draw")
    return output / "index.html"


def find_box():
    """Return the function that writes the files of the live drawing box, or None where the course has none."""
    if importlib.util.find_spec("course_utils.web") is None:
        return None
    return getattr(importlib.import_module("course_utils.web"), "write_box", None)
