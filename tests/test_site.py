"""The web book: folded solutions, described pictures, links that lead somewhere, nothing loaded from outside."""

import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from needs import needs

from course_utils.language import LANGUAGES
from course_utils.site import build, films, write_drawing_box
from course_utils.site.concepts import read_concepts
from course_utils.site.docstrings import as_rest
from course_utils.site.links import Repository, find_repository, relinked
from course_utils.site.notebooks import BOXES, page_of, with_drawn_diagrams, with_folded_markdown
from course_utils.site.sources import front_page, require_cells

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "chapters").glob("*.ipynb"))
INSTALLED = all(find_spec(name) for name in ("sphinx", "myst_nb", "furo"))
needs_sphinx = needs(INSTALLED, "no Sphinx is installed: pip install -c constraints.txt sphinx myst-nb furo")

# What the article that the course follows names, each to be found in the index of concepts.
ARTICLE = """PixelCNN; GAN; transformer; DALL·E; DALL·E 2; Stable Diffusion; VAE; latent space; upsampling; attention;
cross-attention; contrastive learning; text encoder; forward diffusion; reverse diffusion; U-Net; noise prediction;
loss of noise prediction; StableDiffusionPipeline; prompt; steps; resolution; Stable Diffusion Web UI"""


@cache
def html(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(path):
    """The names of all places of a page that a link can lead to."""
    return {tag["id"] for tag in html(path).find_all(id=True)} | {
        tag["name"] for tag in html(path).find_all("a", {"name": True})
    }


def pages(book):
    found = sorted(path for path in book.rglob("*.html") if "draw" not in path.relative_to(book).parts)
    assert len(found) > 80
    return found


def notebook(folder, name, language="en"):
    return nbformat.read(ROOT / folder / ("" if language == "en" else language) / f"{name}.ipynb", 4)


def chapter_page(book, name, language):
    return html(book / ("" if language == "en" else language) / "book" / f"{name}.html")


def without_space(text):
    return re.sub(r"\s+", "", text)


@needs_sphinx
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_chapter_has_a_page_and_leads_to_the_next(book, language):
    for name, following in zip(NAMES, [*NAMES[1:], None], strict=True):
        page = chapter_page(book, name, language)
        assert page.h1.get_text().startswith(f"{name[:2]} · ")
        onward = page.select_one(".related-pages .next-page")["href"]
        assert following is None or onward == f"{following}.html"


@needs_sphinx
def test_every_page_has_a_switch_to_the_other_language(book):
    for page in pages(book):
        english = page.relative_to(book).parts[0] != "zh"
        switch = html(page).select_one("p.language a")
        other = "简体中文" if english else "English"
        assert switch.get_text() == other and (html(page).html["lang"] == "zh-CN") != english
        place = page.relative_to(book if english else book / "zh")
        assert (page.parent / switch["href"]).resolve() == (book / "zh" if english else book).resolve() / place


@needs_sphinx
@pytest.mark.parametrize("language, word", [("en", "Solution"), ("zh", "解答")])
@pytest.mark.parametrize("name", NAMES)
def test_each_solution_is_folded_below_its_stub(book, name, language, word):
    page = chapter_page(book, name, language)
    cells = zip(notebook("chapters", name, language).cells, notebook("solutions", name, language).cells, strict=True)
    pairs = [(stub.source, solved.source) for stub, solved in cells if stub.source != solved.source]
    folded = page.select("details.hide")
    assert len(folded) == len(pairs)
    for details, (stub, solution) in zip(folded, pairs, strict=True):
        assert details.summary.get_text(strip=True).startswith(word)
        assert not details.has_attr("open")
        assert without_space(details.select_one("pre").get_text()) == without_space(solution)
        before = details.find_parent(class_="cell").find_previous_sibling(class_="cell")
        assert without_space(before.select_one("pre").get_text()) == without_space(stub)
        assert "raise NotImplementedError" in stub


@needs_sphinx
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NAMES)
def test_each_picture_of_a_run_is_there_with_its_description(book, name, language):
    described = [output.metadata[kind]["alt"] for cell in notebook("solutions", name, language).cells
                 for output in cell.get("outputs", []) for kind in output.get("data", {})
                 if kind.startswith("image/")]  # fmt: skip
    shown = chapter_page(book, name, language).select(".cell_output img")
    assert [" ".join(picture["alt"].split()) for picture in shown] == [" ".join(text.split()) for text in described]


@needs_sphinx
def test_every_picture_has_a_description(book):
    for page in pages(book):
        for picture in html(page).find_all("img"):
            assert picture.get("alt", "").strip(), f"{page.relative_to(book)}: {picture.get('src', '')[:80]}"


@needs_sphinx
def test_every_link_within_the_book_leads_somewhere(book):
    missing = []
    for page in pages(book):
        for tag in html(page).find_all(["a", "img", "script", "link"]):
            address = urlsplit(tag.get("href") or tag.get("src") or "")
            if address.scheme in ("http", "https", "mailto", "data") or not (address.path or address.fragment):
                continue
            target = (page.parent / unquote(address.path)).resolve() if address.path else page
            target = target / "index.html" if target.is_dir() else target
            there = target.is_file() and (
                not address.fragment or target.suffix != ".html" or unquote(address.fragment) in anchors(target)
            )
            if not there and "draw" not in target.relative_to(book).parts:
                missing.append(f"{page.relative_to(book)}: {tag.get('href') or tag.get('src')}")
    assert not missing, "\n".join(missing[:20])


@needs_sphinx
def test_nothing_is_loaded_from_outside(book):
    outside = re.compile(r"\s*(https?:)?//")
    for page in pages(book):
        for tag in html(page).find_all(["script", "link", "img", "iframe", "source", "video", "object", "embed"]):
            addresses = [tag.get(name, "") for name in ("src", "href", "srcset", "data")]
            if tag.name == "link" and tag.get("rel") not in (["stylesheet"], ["icon"], ["preload"]):
                continue
            assert not any(map(outside.match, addresses)), f"{page.relative_to(book)}: {tag}"
    for sheet in book.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet.name


@needs_sphinx
def test_notebooks_can_be_downloaded_and_opened_elsewhere(book):
    links = html(book / "book" / f"{NAMES[5]}.html").select("p.links a")
    assert [link.get_text() for link in links] == ["Notebook", "solved notebook", "open in Colab", "open in Binder"]
    for folder, link in zip(("chapters", "solutions"), links[:2], strict=True):
        assert nbformat.read(book / "book" / link["href"], 4) == notebook(folder, NAMES[5])
    assert links[2]["href"].startswith("https://colab.research.google.com/github/someone/course/blob/")
    assert f"labpath=chapters%2F{NAMES[5]}.ipynb" in links[3]["href"]


@needs_sphinx
def test_the_reference_has_signatures_and_docstrings(book):
    text = html(book / "reference" / "diffusion.html").get_text()
    assert "add_noise" in text
    assert "sqrt(alpha_bar_t)" in text
    assert not list(book.glob("reference/site*.html"))


def test_the_front_page_has_a_box_to_draw_in_where_the_course_has_one():
    readme, chapters = (ROOT / "README.md").read_text(encoding="utf-8"), {NAMES[0]: notebook("chapters", NAMES[0])}
    live, still = (front_page(readme, chapters, live, Repository("someone/course")) for live in (True, False))
    assert '<div class="draw-box" data-model="draw/model/"></div>' in live
    assert "draw-box" not in still and "corgis.png" in still
    assert "git clone --depth 1 https://github.com/someone/course" in still
    assert "{{" not in live + still


@pytest.mark.parametrize("name", NAMES)
def test_three_chapters_have_a_box_where_there_is_one(name):
    chapter, solution = notebook("chapters", name), notebook("solutions", name)
    live, still = (page_of(chapter, solution, "", set(), {}, box).cells for box in ("../draw", ""))
    boxes = [cell.source for cell in live if "draw-box" in cell.source]
    assert len(boxes) == (name[:2] in BOXES) == len(live) - len(still)
    assert all("../draw/" in box for box in boxes) and not any("draw-box" in cell.source for cell in still)


@pytest.mark.parametrize("place", films.FILMS, ids="-".join)
def test_a_film_belongs_to_an_explorer_and_keeps_to_its_control(place):
    number, cell_id = place
    name = next(name for name in NAMES if name[:2] == number)
    cell = next(cell for cell in notebook("chapters", name).cells if cell.id == cell_id)
    film, explorer = films.FILMS[place], films.FILMS[place].explorer()
    control = explorer.controls[film.control]
    assert cell.source.startswith("explore(")
    assert control.low <= min(film.values) < max(film.values) <= control.high and 5 < len(film.values) <= 30
    page = page_of(notebook("chapters", name), notebook("solutions", name), "", set(), {cell_id: "<b>film</b>"})
    at = next(n for n, cell in enumerate(page.cells) if "<b>film</b>" in cell.source)
    assert page.cells[at - 1].source == cell.source


def test_a_film_is_as_its_explorer_draws(monkeypatch, tmp_path):
    place = ("03", "explore-best")
    monkeypatch.setattr(films, "FILMS", {place: films.FILMS[place]._replace(values=[-1.0, 1.5, 2.0])})
    frames = films.shoot(tmp_path)[place]
    explorer = films.FILMS[place].explorer()
    _, said = explorer.picture({**explorer.start, "mean": -1.0})
    assert frames[0] == ("-1", said) and len({text for _, text in frames}) == 3
    assert len({(tmp_path / "03-explore-best" / f"{n}.png").read_bytes() for n in range(3)}) == 3
    shown = BeautifulSoup(films.show(place, frames), "html.parser")
    assert shown.input["value"] == "2" and shown.output.text == "2" and shown.img["alt"] == frames[2][1]


@pytest.mark.parametrize("fault", [None, ValueError("npm is missing.")])
def test_a_box_that_cannot_be_written_leaves_a_note(monkeypatch, tmp_path, capsys, fault):
    def write_box(folder):
        if fault:
            raise fault
        folder.mkdir()

    monkeypatch.setattr("course_utils.site.write_box", write_box)
    assert write_drawing_box(tmp_path / "draw") == (fault is None)
    assert ("npm is missing" in capsys.readouterr().err) == (fault is not None)


def test_the_index_names_what_the_article_names():
    terms = " | ".join(concept.term for concept in read_concepts())
    assert [name for name in map(str.strip, ARTICLE.replace("\n", " ").split(";")) if name not in terms] == []
    assert sum(bool(concept.meaning) for concept in read_concepts()) > 100


def test_concepts_point_at_cells_that_are_there(tmp_path):
    chapters = {name: notebook("chapters", name) for name in NAMES}
    require_cells(read_concepts(), chapters)
    table = tmp_path / "concepts.md"
    table.write_text("| term | where | meaning |\n|:--|:--|:--|\n| noise | 05.nowhere | what one hears |\n")
    with pytest.raises(ValueError, match="'noise' points at 05.nowhere"):
        require_cells(read_concepts(table), chapters)
    table.write_text("| noise | chapter five |\n")
    with pytest.raises(ValueError, match="Expected '| term"):
        read_concepts(table)


@needs_sphinx
@pytest.mark.parametrize(
    "text, fault",
    [
        ("[there](nowhere.md)", "nowhere"),
        ("![a cat](cat.png)", "cat.png"),
        ("(here)=\n## One\n\n(here)=\n## Two", "here"),
        ("[there](#nowhere)", "nowhere"),
    ],
    ids=["link", "picture", "label", "place"],
)
def test_a_fault_stops_the_build(tmp_path, text, fault):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "index.md").write_text(f"# A page\n\n{text}\n", encoding="utf-8")
    code = "import sys, pathlib; from course_utils.site import render; render(*map(pathlib.Path, sys.argv[1:]))"
    folders = [str(tmp_path / name) for name in ("source", "pages", "trees")]
    result = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True)
    assert result.returncode
    assert "WARNING" in result.stderr and fault in result.stderr
    assert "The book has the faults that are listed above" in result.stderr


@needs_sphinx
def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="something other than a book"):
        build(ROOT, tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "address, name",
    [
        ("https://github.com/some-one/a.course", "some-one/a.course"),
        ("https://github.com/someone/course.git", "someone/course"),
        ("git@github.com:someone/course.git", "someone/course"),
        ("ssh://git@github.com/someone/course", "someone/course"),
    ],
)
def test_repositories(address, name):
    assert find_repository(ROOT, address).name == name


def test_a_course_on_no_host_has_no_launchers(tmp_path):
    assert find_repository(tmp_path) == Repository()
    assert Repository().launchers("chapters/x.ipynb") == {}
    with pytest.raises(ValueError, match="got ftp://somewhere"):
        find_repository(ROOT, "ftp://somewhere")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[text](https://arxiv.org/abs/1)", "[text](https://arxiv.org/abs/1)"),
        (f"[the chapter]({NAMES[0]}.ipynb)", f"[the chapter](/book/{NAMES[0]}.ipynb)"),
        (f"[solved](../solutions/{NAMES[0]}.ipynb)", f"[solved](path:/solutions/{NAMES[0]}_solved.ipynb)"),
        ("![two\nlines](figures/corgis.png)", "![two lines](/chapters/figures/corgis.png)"),
        ("[all](../TEACHING.md#answers)", "[all](/teaching.md#answers)"),
        ("see [the launcher](../course.py)", "see the launcher"),
        ("`kept[0](x)` and [a](nowhere.md)", "`kept[0](x)` and [a](nowhere.md)"),
    ],
)
def test_links_lead_to_pages(text, expected):
    known = {"TEACHING.md": "teaching.md", f"chapters/{NAMES[0]}.ipynb": f"book/{NAMES[0]}.ipynb"}
    assert relinked(text, "chapters/SYMBOLS.md", ROOT, known, Repository()) == expected


def test_links_to_files_lead_to_the_host():
    found = relinked("[it](course.py)", "README.md", ROOT, {}, Repository("someone/course", "main"))
    assert found == "[it](https://github.com/someone/course/blob/main/course.py)"


def test_two_pictures_of_a_cell_keep_their_own_descriptions():
    def picture(text):
        return nbformat.v4.new_output("display_data", {"image/png": "AAAA"}, metadata={"image/png": {"alt": text}})

    printed = nbformat.v4.new_output("stream", text="12")
    title = nbformat.v4.new_markdown_cell("# 05 · Noise\n\nText.")
    chapter = nbformat.v4.new_notebook(cells=[title, nbformat.v4.new_code_cell("draw()", id="draw")])
    solution = nbformat.v4.new_notebook(cells=[title, nbformat.v4.new_code_cell("draw()", id="draw")])
    solution.cells[1].outputs = [printed, picture("A cat."), picture("A dog.")]
    first, *cells = page_of(chapter, solution, "LINKS", {title.id}, {}).cells
    assert first.source == f"(c05-{title.id})=\n# 05 · Noise\n\nLINKS\n\n\nText."
    assert [cell.metadata["mystnb"]["image"]["alt"] for cell in cells] == ["A cat.", "A dog."]
    assert [cell.source for cell in cells] == ["draw()", "# as above"]
    assert cells[1].metadata["tags"] == ["remove-input"]
    solution.cells[1].outputs = [nbformat.v4.new_output("display_data", {"image/png": "AAAA"})]
    with pytest.raises(ValueError, match="no description"):
        page_of(chapter, solution, "", set(), {})


def test_formulas_in_folded_answers_are_markdown():
    plain = "<details><summary>Why?</summary>\nBecause 2 * 3 * 4.\n</details>"
    assert with_folded_markdown(plain) == plain
    formula = "<details><summary>Why?</summary>\nBecause $x$.\n</details>"
    assert with_folded_markdown(formula) == "<details><summary>Why?</summary>\n\nBecause $x$.\n\n</details>"


def test_a_diagram_without_a_picture_of_its_words_is_refused():
    with pytest.raises(ValueError, match="lacks \\['sampler'\\]"):
        with_drawn_diagrams('```mermaid\ngraph TB\n  A["prompt"] --> B["sampler"]\n```', "c00-inside")
    with pytest.raises(ValueError, match="diagram of c01-toy"):
        with_drawn_diagrams('```mermaid\ngraph TB\n  A["prompt"]\n```', "c01-toy")


@pytest.mark.parametrize(
    "lines, expected",
    [
        (["Return `x_t`, of x_0."], ["Return ``x_t``\\ , of x\\_0."]),
        (
            ["Sum:", "", "    a * b", "", "for all *a*."],
            ["Sum\\:", "", "::", "", "        a * b", "", "for all \\*a\\*."],
        ),
        (["Two:", "- one", "  more", "- two"], ["Two\\:", "", "- one", "  more", "- two"]),
    ],
)
def test_docstrings_become_restructured_text(lines, expected):
    assert as_rest(lines) == expected
