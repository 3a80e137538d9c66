"""The Chinese edition: complete, up to date, in the course's terms, and set in a font that has its characters."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from course_utils import authoring
from course_utils.authoring import catalogue, font
from course_utils.authoring.source import read_source
from course_utils.authoring.translation import hash_of, problems, read_translation, stamp, translate
from course_utils.language import LANGUAGES, PLACE, label, language, text_width, translated, wrapped
from course_utils.language import catalogue as entries_of

ROOT = Path(__file__).resolve().parent.parent
SOURCES = authoring.source_paths(ROOT)
CHINESE = "\u4e00-\u9fff"
SOURCE = """# %% [markdown] id="title"
# # A title
#
# A sentence.

# %% id="code"
# A comment
print("a sentence of words")
"""
RENDERING = """<!-- title -->
# 标题

一句话。

<!-- code -->
- # A comment
+ # 注释
- "a sentence of words"
+ "一句话"
"""


def in_chinese(path):
    return read_translation(authoring.translation_path(path, "zh"))


def prose(text):
    """The text of a cell without code, formulas, addresses and HTML."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|<[^>]*>", " x ", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", text)


@pytest.fixture
def chapter(tmp_path):
    source, words = tmp_path / "05_a_name.py", tmp_path / "05_a_name.md"
    source.write_text(SOURCE, encoding="utf-8")
    words.write_text(RENDERING, encoding="utf-8")
    notebook = read_source(source)
    stamp(words, notebook)
    return notebook, words


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem[:2])
def test_every_cell_is_rendered_as_it_is_now(path):
    assert problems(read_source(path), in_chinese(path)) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem[:2])
def test_a_chapter_keeps_its_structure(path):
    notebook, renderings = read_source(path), in_chinese(path)
    assert list(renderings) == [cell.id for cell in notebook.cells if cell.id in renderings]
    for cell, chinese in zip(notebook.cells, translate(notebook, renderings).cells, strict=True):
        if cell.cell_type == "code":
            ours, theirs = (ast.dump(without_words(ast.parse(one.source))) for one in (cell, chinese))
            assert ours == theirs, cell.id
            continue
        for what in (r"^#+ ", r"\$\$", r"!\[", "<details>", "</details>", r"^\|", "```"):
            counts = [len(re.findall(what, one.source, re.MULTILINE)) for one in (cell, chinese)]
            assert counts[0] == counts[1], (cell.id, what)
        links = [sorted(re.findall(r"\]\(([^)\s]*)\)", one.source)) for one in (cell, chinese)]
        assert links[0] == links[1], cell.id


def without_words(tree):
    """A syntax tree in which all constant strings are the same, and no f-string makes an English plural."""
    plural = re.compile(r"'[^']*'( \* \(.*\))?")
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = [one for one in node.values if isinstance(one, ast.FormattedValue)]
            node.values = [value for value in values if not plural.fullmatch(ast.unparse(value.value))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            node.values.sort(key=ast.dump)
    return tree


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem[:2])
def test_punctuation_and_spaces_follow_one_rule(path):
    kinds = {cell.id: cell.cell_type for cell in read_source(path).cells}
    faults = {
        "a half-width sign": rf"[{CHINESE}][,;:?!](?=\s|[{CHINESE}]|$)|[{CHINESE}]\.(?=\s|$)",
        "a half-width bracket": rf"\([{CHINESE}]|[{CHINESE}]\)",
        "no space": rf"[{CHINESE}][A-Za-z0-9]|[A-Za-z0-9][{CHINESE}]",
        "a broken paragraph": rf"[{CHINESE}，。；]\n[{CHINESE}]",
    }
    for name, rendering in in_chinese(path).items():
        if kinds[name] == "markdown":
            for fault, pattern in faults.items():
                found = re.search(pattern, prose(rendering.text))
                assert found is None, (
                    name,
                    fault,
                    found and prose(rendering.text)[found.start() - 9 : found.end() + 9],
                )


def test_a_changed_cell_is_said(chapter):
    notebook, words = chapter
    assert problems(notebook, read_translation(words)) == []
    notebook.cells[0].source += " Another one."
    assert problems(notebook, read_translation(words)) == ["'title': stale: the English cell has changed"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("<!-- title [0-9a-f]{8} -->\n[^<]*", "", "'title': it is missing"),
        ("<!-- title [0-9a-f]{8} -->", "<!-- title -->", "'title': not stamped"),
        ("<!-- title", "<!-- heading", "'heading': the chapter has no such cell"),
        ("- # A comment", "- # A remark", "'code': the cell does not contain '# A remark'"),
        ("- # A comment\n", "", "'code': expected lines"),
    ],
)
def test_what_does_not_fit_is_said(chapter, before, after, said):
    notebook, words = chapter
    words.write_text(re.sub(before, after, words.read_text(encoding="utf-8"), count=1), encoding="utf-8")
    assert any(problem.startswith(said) for problem in problems(notebook, read_translation(words)))


def test_a_rendering_takes_the_place_of_the_words(chapter):
    notebook, words = chapter
    title, code = translate(notebook, read_translation(words)).cells
    assert title.source == "# 标题\n\n一句话。" and code.source == '# 注释\nprint("一句话")'
    assert [cell.id for cell in notebook.cells] == [title.id, code.id] and "A title" in notebook.cells[0].source
    assert len(hash_of(title.source)) == 8


@pytest.mark.parametrize("text", ["text\n<!-- title -->\n", "<!-- title -->\na\n<!-- title -->\nb"])
def test_a_malformed_file_is_refused(tmp_path, text):
    (tmp_path / "05_a.md").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="05_a.md"):
        read_translation(tmp_path / "05_a.md")


def test_catalogues_have_all_that_the_code_says():
    from babel.messages.pofile import read_po

    for name, texts in catalogue.entries().items():
        with (catalogue.FOLDER / "zh" / f"{name}.po").open("rb") as file:
            found = {message.id: message for message in read_po(file) if message.id}
        assert set(found) == set(texts), f"python -m course_utils.authoring.catalogue brings {name}.po up to date"
        for text, message in found.items():
            assert message.string or "not shown to learners" in message.user_comments, (name, text)
            assert set(PLACE.findall(message.string)) <= set(PLACE.findall(text)), (name, text)


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("✓ 05.snr: right. Chapter 05: 3 of 8 solved.", ["05.snr", "第 05 章", "3", "8"]),
        ("the result: got the shape (4,), expected (4, 3).", ["(4,)", "(4, 3)"]),
        ("the result at [0, 1]: got 0.3, expected 0.5.", ["[0, 1]", "0.3", "0.5"]),
        ("Print the shape after each line to see where it changes.", []),
        ("The noise has a minus sign; the equation adds it.", []),
        ("Device: cpu (this build of torch has no CUDA; no Apple GPU found).", ["cpu"]),
        ("Expected a whole size of at least 8, which the digits have, got 7.", ["8", "7"]),
    ],
)
def test_a_finished_text_is_recognised(english, chinese):
    found = translated(english, "zh")
    assert all(part in found for part in chinese) and re.search(f"[{CHINESE}]", found)
    words = re.sub(r"05\.snr|torch|CUDA|Apple|GPU|cpu|size|True|False", "", found)
    assert not re.search("[A-Za-z]{3}", words), found
    assert translated(english, "en") == english and translated("no entry has this", "zh") == "no entry has this"


FAULTY = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="nocolor")
shell.run_cell("from course_utils.plotting import use_style; use_style()")
done = shell.run_cell("from course_utils.data.digits import load; load(7)")
print(type(done.error_in_exec).__name__)
"""


@pytest.mark.parametrize("chosen, said", [("zh", "应是"), ("en", "Expected")])
def test_a_notebook_shows_errors_in_the_language_in_use(chosen, said):
    environment = {**os.environ, "COURSE_LANGUAGE": chosen}
    result = subprocess.run([sys.executable, "-c", FAULTY], env=environment, capture_output=True, text=True, cwd=ROOT)
    (message,) = re.findall(r"^ValueError: (.*)$", result.stdout, re.MULTILINE)
    assert said in message and result.stdout.endswith("ValueError\n"), result.stderr


@pytest.mark.parametrize("english, chinese", [("loss", "损失"), ("times root of 7", "times root of 7")])
def test_a_label_is_no_accident(monkeypatch, english, chinese):
    monkeypatch.setenv("COURSE_LANGUAGE", "zh")
    assert label(english) == chinese


def test_the_language_is_chosen(monkeypatch):
    for name in ("COURSE_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert language() == "zh"
    monkeypatch.setenv("LANG", "C.UTF-8")
    assert language() == "en"
    monkeypatch.setenv("COURSE_LANGUAGE", "zh")
    assert language() == "zh"
    monkeypatch.setenv("COURSE_LANGUAGE", "klingon")
    with pytest.raises(ValueError, match="COURSE_LANGUAGE"):
        language()


def test_lines_are_measured_and_broken_as_they_are_seen():
    assert text_width("图像 a") == 6
    lines = wrapped("一只可爱的柯基幼犬坐在草地上 red ball", 12).splitlines()
    assert len(lines) > 2 and max(map(text_width, lines)) <= 13 and any("red" in line for line in lines)
    assert wrapped("a red ball on the beach: 对", 10) == "a red ball\non the\nbeach: 对"
    assert wrapped("a red ball on the beach", 10) == "a red ball\non the\nbeach"


def test_the_font_has_every_character():
    from fontTools.ttLib import TTFont

    assert font.FONT.stat().st_size < 1.5e6
    has = set(TTFont(font.FONT).getBestCmap())
    missing = {chr(code) for code in font.characters() - has}
    lacking = {one for one in missing if re.match(f"[{CHINESE}，。；：？！（）“”、]", one)}
    assert not lacking, f"python -m course_utils.authoring.font adds them: {''.join(sorted(lacking))}"


def test_a_figure_shows_chinese_without_empty_boxes(monkeypatch, recwarn):
    import matplotlib.pyplot as plt

    from course_utils.plotting import as_png, use_style

    monkeypatch.setenv("COURSE_LANGUAGE", "zh")
    with plt.rc_context():
        use_style()
        figure, ax = plt.subplots()
        ax.set(title="潜空间里的一步：$x_t$", xlabel="时间", ylabel="方差 −1 × α")
        as_png(figure)
        plt.close(figure)
    assert not [one for one in recwarn if "Glyph" in str(one.message)]


def rows_of_symbols(name):
    """The cells of each row of a table of the whole course's symbols, without its head."""
    lines = (ROOT / "chapters" / name).read_text("utf-8").splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_table_of_symbols_is_rendered_row_for_row():
    english, chinese = rows_of_symbols("SYMBOLS.md"), rows_of_symbols("SYMBOLS.zh-CN.md")
    assert [[*row[:2], row[-1]] for row in english] == [[*row[:2], row[-1]] for row in chinese]
    for symbol, _, meaning, _ in chinese:
        assert re.search(f"[{CHINESE}]", meaning) or re.fullmatch(r"\$[^$]+\$", meaning), symbol


def test_the_table_of_terms_has_every_concept():
    from course_utils.site.concepts import read_concepts

    rows = re.findall(
        r"^\| (.+?) \| (.+?) \|", (ROOT / "solutions/source/zh/TERMS.md").read_text("utf-8"), re.MULTILINE
    )
    terms = dict(rows)
    assert {concept.term for concept in read_concepts()} <= set(terms)
    assert list(LANGUAGES) == ["en", "zh"] and entries_of("zh").texts
