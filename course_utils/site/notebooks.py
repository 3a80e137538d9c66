"""A page of the book from the two notebooks of a chapter."""

import re
from pathlib import Path

import nbformat

from course_utils.language import translated
from course_utils.site.films import ELSEWHERE
from course_utils.site.links import Repository

PAGES = Path(__file__).parent / "pages"
# The picture of each diagram, by its cell, and the words for those who cannot see it.
DIAGRAMS = {
    "c00-inside": (
        "data_flow.svg",
        "Prompt, tokenizer and text encoder lead to the U-Net, which gets the encoded prompt at every step. Noise from "
        "the seed becomes the latents; from them the U-Net predicts the noise, then come guidance and the scheduler, "
        "which removes a little noise and hands the latents back. After the last step the decoder draws the picture.",
    )
}
# The text after which a chapter's page has the box to draw in, where that could be written, and its first prompt.
CORGI = {"en": "a cute corgi puppy sitting on the grass", "zh": "一只可爱的柯基犬坐在草地上"}
BALL = {"en": "a red ball left of a white cat in the snow", "zh": "雪地里，一个红色的球在一只白猫的左边"}
BOXES = {"00": ("explore-how", CORGI), "10": ("measure-read", BALL), "12": ("failure-text", BALL)}
BOX = """```{{raw}} html
<div class="draw-box" data-model="{0}/model/" data-prompt="{1}"></div>
<script type="module" src="{0}/draw.js"></script>
```"""
LINKS_IN = {
    "en": ("Notebook", "solved notebook", "open in", "outputs are those of the solved notebook"),
    "zh": ("笔记本", "带解答的笔记本", "打开于", "页面上的输出来自带解答的笔记本"),
}
FOLDED = re.compile(r"(<details><summary>.*?</summary>)(.*?)(</details>)", re.DOTALL)
FIGURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
DIAGRAM = re.compile(r"```mermaid\n(.*?)\n```", re.DOTALL)
TITLE = re.compile(r"# (\d\d) · (.+)")


def page_of(chapter, solution, links: str, cited: set[str], films: dict[str, str], box: str = "", language: str = "en"):
    """Return the notebook that MyST-NB makes a page of.

    chapter, solution: the chapter's notebooks, cell by cell the same. links: Markdown, put below the title. cited: ids
    of the cells that the book's indices point at. films: HTML to put below a cell, by its id. box: where the page finds
    the box to draw in, "" if there is none. The page has the chapter's text and stubs; after each stub, folded, the
    solution, and below it the outputs of its run.
    """
    page = nbformat.v4.new_notebook(metadata=chapter.metadata)
    boxed, prompt = BOXES.get(title_of(chapter)[0], ("", {}))
    for number, (cell, solved) in enumerate(zip(chapter.cells, solution.cells, strict=True)):
        if cell.cell_type == "markdown":
            text = with_drawn_diagrams(with_folded_markdown(cell.source), label(chapter, cell.id), language)
            if number == 0:
                title, _, rest = text.partition("\n")
                text = f"{title}\n\n{links}\n\n{rest}"
            anchor = f"({label(chapter, cell.id)})=\n" if cell.id in cited else ""
            page.cells.append(nbformat.v4.new_markdown_cell(anchor + text))
            if box and cell.id == boxed:
                page.cells.append(nbformat.v4.new_markdown_cell(BOX.format(box, prompt[language])))
            continue
        if cell.source == solved.source:
            page.cells += with_outputs(cell.source, solved.outputs)
            if cell.id in films:
                page.cells.append(nbformat.v4.new_markdown_cell(f"```{{raw}} html\n{films[cell.id]}\n```"))
            elif cell.source.startswith("explore("):
                page.cells.append(nbformat.v4.new_markdown_cell(f"*{translated(ELSEWHERE)}*"))
            continue
        page.cells.append(nbformat.v4.new_code_cell(cell.source))
        word = translated("Solution")
        folded = {"tags": ["hide-input"], "mystnb": {"code_prompt_show": word, "code_prompt_hide": word}}
        page.cells += with_outputs(solved.source, solved.outputs, folded)
    return page


def with_outputs(source: str, outputs, metadata=None):
    """Return cells for a code cell with its outputs: one for each picture, so that each has its own description."""
    groups: list[list] = [[]]
    for output in outputs:
        if picture_text(output) and any(map(picture_text, groups[-1])):
            groups.append([])
        groups[-1].append(output)
    cells = []
    for group in groups:
        cell = nbformat.v4.new_code_cell(source, outputs=group, metadata=metadata or {})
        text = "".join(map(picture_text, group))
        if text:
            cell.metadata["mystnb"] = {**cell.metadata.get("mystnb", {}), "image": {"alt": text}}
        cells.append(cell)
        source, metadata = "# as above", {"tags": ["remove-input"]}  # not shown; without code MyST-NB drops a cell
    return cells


def picture_text(output) -> str:
    """Return the description of the picture in an output, "" if there is no picture. Raises ValueError without one."""
    kind = next((kind for kind in output.get("data", {}) if kind.startswith("image/")), None)
    if kind is None:
        return ""
    text = output.metadata.get(kind, {}).get("alt", "")
    if not text:
        raise ValueError("A picture of a notebook has no description: draw it with show(figure, description).")
    return text


def with_folded_markdown(text: str) -> str:
    """Return Markdown in which folded answers with formulas are read as Markdown too: Jupyter draws these formulas."""

    def spread(block: re.Match) -> str:
        opened, inside, closed = block.groups()
        return f"{opened}\n\n{inside.strip()}\n\n{closed}" if "$" in inside else block.group()

    return FOLDED.sub(spread, text)


def with_drawn_diagrams(text: str, name: str, language: str = "en") -> str:
    """Return Markdown with the picture of each diagram in place of its Mermaid code; name: that of its cell.

    Mermaid itself is larger than all other scripts of the book, which has one diagram. Raises ValueError where a
    diagram has no picture, or one with other words.
    """

    def draw(code: re.Match) -> str:
        file, description = DIAGRAMS.get(name, ("", ""))
        words = re.findall(r'"(.*?)"', code.group(1))
        drawn = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page_in(language, file))) if file else ""
        missing = [word for word in words if word.replace("<br/>", " ") not in drawn]
        if missing:
            raise ValueError(f"pages/{file or '*.svg'}: the diagram of {name} lacks {missing}: draw it, in DIAGRAMS.")
        return f"![{translated(description)}](/{file})"

    return DIAGRAM.sub(draw, text)


def page_in(language: str, name: str) -> str:
    """Return a text of `pages/`, in a language."""
    return (PAGES / ("" if language == "en" else language) / name).read_text(encoding="utf-8")


def label(chapter, cell_id: str) -> str:
    """Return the name, one of its kind in the book, under which links find a cell of a chapter."""
    return f"c{number_of(chapter)}-{cell_id}"


def title_of(chapter) -> tuple[str, str]:
    """Return the number and the title of a chapter, such as ("05", "Forward diffusion")."""
    found = TITLE.match(chapter.cells[0].source)
    if found is None:
        raise ValueError(f"Expected a title such as '# 05 · Forward diffusion', got {chapter.cells[0].source[:60]!r}")
    return found.group(1), found.group(2).strip()


def headings_of(chapter) -> dict[str, str]:
    """Return the heading of the section in which each cell of a chapter is, without "3 ·" or "Exercise 2 ·"."""
    headings, heading = {}, ""
    for cell in chapter.cells:
        found = re.search(r"^#+ (?:Exercise |练习 )?(?:\d+ · )?(.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and found:
            heading = found.group(1)
        headings[cell.id] = heading
    return headings


def number_of(chapter) -> str:
    return title_of(chapter)[0]


def title_picture(chapter) -> tuple[str, str]:
    """Return the description and the file's name of the picture that a chapter begins with."""
    found = FIGURE.search(chapter.cells[0].source)
    if found is None:
        raise ValueError(
            f"Chapter {number_of(chapter)} begins without a picture, which its card on the front page shows."
        )
    text, path = found.groups()
    return " ".join(text.split()), Path(path).name


def links_of(name: str, repository: Repository, language: str = "en") -> str:
    """Return the line below a chapter's title: its notebooks, and where they run."""
    stub, solved, opens, outputs = LINKS_IN[language]
    path = f"chapters/{'' if language == 'en' else language + '/'}{name}.ipynb"
    links = [f"[{stub}](path:/chapters/{name}.ipynb)", f"[{solved}](path:/solutions/{name}_solved.ipynb)"]
    links += [f"[{opens} {place}]({address})" for place, address in repository.launchers(path).items()]
    links.append(outputs)
    return "{.links}\n" + " · ".join(links)
