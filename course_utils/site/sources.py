"""The folder that Sphinx reads: the chapters, the front page, and the pages for reference."""

import re
import shutil
from pathlib import Path

import nbformat

from course_utils.site import concepts as terms
from course_utils.site import notebooks
from course_utils.site.links import Repository, find_repository, relinked
from course_utils.site.notebooks import PAGES, page_in

# Files of the course that are pages of the book as they are; Markdown of the same folder as here is in `pages/`.
TEXTS = {
    "TEACHING.md": "teaching.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "chapters/SYMBOLS.md": "symbols.md",
}
CHINESE = ("TEACHING.md", "chapters/SYMBOLS.md")  # with a Chinese one beside it, .zh-CN.md
TEXTS_IN = {"zh": {file.replace(".md", ".zh-CN.md") if file in CHINESE else file: page for file, page in TEXTS.items()}}
ENGLISH_ONLY = {"zh": "*本页只有英文。*"}
README_IN = {"en": "README.md", "zh": "README.zh-CN.md"}
SECTIONS_IN = {"en": ("Start", "For whom", "minutes"), "zh": ("开始", "适合谁", "分钟")}
NOT_DOCUMENTED = re.compile(r"exercises\.(chapter|mistakes)_\d\d|site\b|cli$|__init__$")  # no functions to call


def write_sources(
    root: Path,
    folder: Path,
    films: dict[tuple[str, str], str],
    address: str = "",
    live: bool = False,
    language: str = "en",
) -> None:
    """Write all that Sphinx reads into `folder`, in a language.

    root: the course's folder. films: HTML to put below a cell, by chapter and cell. address: of the repository, "" for
    that of `git remote`. live: whether the front page has a box to draw in, or else a picture. Raises ValueError for an
    index that points at a cell that is not there.
    """
    repository = find_repository(root, address)
    part, up = ("", "") if language == "en" else (f"{language}/", "../")
    chapters = {
        path.stem: nbformat.read(path, as_version=4) for path in sorted((root / "chapters" / part).glob("*.ipynb"))
    }
    texts = TEXTS_IN.get(language, TEXTS)
    pages = texts | {f"chapters/{part}{name}.ipynb": f"book/{name}.ipynb" for name in chapters}
    concepts = terms.read_concepts()
    require_cells(concepts, chapters)
    for new in ("book", "chapters/figures", "solutions", "reference", "benchmarks"):
        (folder / new).mkdir(parents=True)
    for picture in [*root.glob("chapters/figures/*"), *root.glob("benchmarks/*.png"), *(PAGES / part).glob("*.svg")]:
        place = picture.relative_to(PAGES / part if picture.is_relative_to(PAGES) else root)
        shutil.copyfile(picture, folder / place)

    cited = terms.cited_cells(concepts)
    for name, chapter in chapters.items():
        solution = nbformat.read(root / "solutions" / part / f"{name}.ipynb", as_version=4)
        nbformat.write(chapter, folder / "chapters" / f"{name}.ipynb")  # to download
        nbformat.write(solution, folder / "solutions" / f"{name}_solved.ipynb")
        links = notebooks.links_of(name, repository, language)
        moving = {cell: film for (number, cell), film in films.items() if number == name[:2]}
        page = notebooks.page_of(
            chapter, solution, links, cited[name[:2]] | {"symbols"}, moving, f"{up}../draw" if live else "", language
        )
        for cell in page.cells:
            if cell.cell_type == "markdown":
                cell.source = relinked(cell.source, f"chapters/{part}{name}.ipynb", root, pages, repository)
        nbformat.write(page, folder / "book" / f"{name}.ipynb")

    for file, page in texts.items():
        text = (root / file).read_text(encoding="utf-8")
        if page == "symbols.md":
            text = with_linked_chapters(text)
        if language != "en" and file in TEXTS:
            text = text.replace("\n", f"\n\n{ENGLISH_ONLY[language]}\n", 1)
        write(folder / page, relinked(text, file, root, pages, repository))
    headings = {(name[:2], cell): heading for name, chapter in chapters.items()
                for cell, heading in notebooks.headings_of(chapter).items()}  # fmt: skip
    write(folder / "concepts.md", terms.index_page(concepts, headings, language))
    write(folder / "glossary.md", terms.glossary_page(concepts, language))
    write(folder / "card.md", model_card(root))
    readme = (root / README_IN[language]).read_text(encoding="utf-8")
    readme = relinked(readme, README_IN[language], root, pages, repository)
    write(folder / "index.md", front_page(readme, chapters, live, repository, language))
    write_reference(root / "course_utils", folder / "reference", language)


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def require_cells(concepts: list[terms.Concept], chapters: dict) -> None:
    """Raise ValueError unless each concept points at a cell of text that is there."""
    there = {(name[:2], cell.id) for name, chapter in chapters.items() for cell in chapter.cells
             if cell.cell_type == "markdown"}  # fmt: skip
    for concept in concepts:
        for cell in set(concept.cells) - there:
            raise ValueError(
                f"pages/concepts.md: '{concept.term}' points at {'.'.join(cell)}, which is no cell of text."
            )


def with_linked_chapters(symbols: str) -> str:
    """Return the table of symbols with a link from the number of each chapter to the symbols of this chapter."""
    lines = []
    for line in symbols.splitlines():
        row, space, numbers = line.rstrip(" |").rpartition("| ")
        if re.fullmatch(r"(\d\d ?)+", numbers):
            linked = " ".join(f"[{number}](#c{number}-symbols)" for number in numbers.split())
            line = f"{row}{space}{linked} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def model_card(root: Path) -> str:
    from course_utils.metrics.model_card import model_card, read_manifest

    return model_card(read_manifest(root / "course_utils" / "checkpoints" / "manifest.json"))


def front_page(readme: str, chapters: dict, live: bool, repository: Repository, language: str = "en") -> str:
    """Return the front page: `pages/front.md`, with sections of the README and a card for each chapter."""
    text, up = page_in(language, "front.md"), "" if language == "en" else "../"
    picture = page_in(language, "live.md" if live else "still.md").replace('"draw/', f'"{up}draw/')
    minutes = dict(re.findall(r"^\| (\d\d) \| .*\| (\d+) \|", readme, re.MULTILINE))
    start, readers, unit = SECTIONS_IN[language]
    parts = {
        "picture": picture,
        "address": repository.address,
        "start": section(readme, start).split("\n\n", 1)[1],  # without the first paragraph, on how to get it
        "readers": section(readme, readers),
        "chapters": "\n".join(card(name, chapter, minutes, unit) for name, chapter in chapters.items()),
        "toctree": "\n".join(f"book/{name}" for name in chapters),
    }
    if not repository.name:  # nothing to clone from
        text = re.sub(r"```\ngit clone.*?```\n\n", "", text, flags=re.DOTALL)
    for name, part in parts.items():
        text = text.replace(f"{{{{ {name} }}}}", part.strip())
    return text


def section(readme: str, title: str) -> str:
    """Return the text below a heading of the second level, up to the next one."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"README.md has no section '{title}', which the front page of the book takes over.")
    return found.group(1).strip()


def card(name: str, chapter, minutes: dict[str, str], unit: str = "minutes") -> str:
    """Return a chapter's line of the front page: its picture, its title and how long it takes."""
    number, title = notebooks.title_of(chapter)
    words, picture = notebooks.title_picture(chapter)
    takes = f" {minutes[number]} {unit}" if number in minutes else ""
    return f"- ![{words}](/chapters/figures/{picture}) [{number} · {title}](/book/{name}.ipynb){takes}"


def write_reference(package: Path, folder: Path, language: str = "en") -> None:
    """Write a page for each room of the package, from the docstrings of its modules."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        room = module.split(".")[0]
        if module.endswith(".__init__"):
            module = module.removesuffix(".__init__")
        if not NOT_DOCUMENTED.match(module):
            rooms.setdefault(room, []).append(f"course_utils.{module}")
    for room, modules in rooms.items():
        title = f"``{room}``"
        lines = [title, "=" * len(title), ""]
        for module in sorted(modules):
            name = module.removeprefix("course_utils.")
            if name != room:
                lines += [f"``{name}``", "-" * (len(name) + 4), ""]
            lines += [f".. automodule:: {module}", "   :members:", ""]
        write(folder / f"{room}.rst", "\n".join(lines))
    names = "\n".join(rooms)
    text = page_in(language, "reference.md")
    write(folder / "index.md", text.replace("{{ rooms }}", names))
