"""The index of concepts and the glossary, of one table: `pages/concepts.md`."""

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).parent / "pages" / "concepts.md"
SOURCES = Path(__file__).parents[2] / "solutions" / "source"
HEADS_IN = {
    "en": {
        "index": [
            "# Concepts",
            "",
            "Where each term is explained, by chapter and section; the main place comes first.",
        ],
        "glossary": ["# Glossary", "", "Each term in a sentence, and the chapter that explains it."],
        "chapter": ["Chapter {}"],
    },
    "zh": {
        "index": ["# 概念索引", "", "每个术语在哪一章、哪一节讲解，主要出处排在最前，按英文字母排序。"],
        "glossary": ["# 术语表", "", "每个术语一句话，并指出讲解它的章节。"],
        "chapter": ["第 {} 章"],
    },
}


class Concept(NamedTuple):
    """A term, where it is explained (the first is the main place), and, for the glossary, what it means, or ""."""

    term: str
    cells: list[tuple[str, str]]  # (chapter, id of the cell), such as ("05", "step-text")
    meaning: str


def read_concepts(path: Path = TABLE) -> list[Concept]:
    """Return the concepts of the table, in alphabetical order. Raises ValueError for a row that is not of its form."""
    concepts = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|") or re.match(r"\|(:?-|\s*term\s*\|)", line):
            continue
        row = [part.strip() for part in line.strip().strip("|").split("|")]
        cells = re.findall(r"(\d\d)\.([\w-]+)", row[1]) if len(row) == 3 else []
        if not cells:
            raise ValueError(f"Expected '| term | 05.cell-id | meaning |' in {path.name}, got {line}")
        concepts.append(Concept(row[0], cells, row[2]))
    return sorted(concepts, key=lambda concept: concept.term.strip("`").lower())


def cited_cells(concepts: list[Concept]) -> dict[str, set[str]]:
    """Return the ids of the cells that the concepts point at, by chapter."""
    cited = defaultdict(set)
    for concept in concepts:
        for number, cell in concept.cells:
            cited[number].add(cell)
    return cited


def read_table(path: Path) -> dict[str, str]:
    """Return the first two columns of the tables of a file."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \|", path.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


def names_in(language: str) -> dict[str, str]:
    """Return the terms in another language; {} for English."""
    return {} if language == "en" else read_table(SOURCES / language / "TERMS.md")


def index_page(concepts: list[Concept], headings: dict[tuple[str, str], str], language: str = "en") -> str:
    """Return the index as Markdown. headings: of the section in which a cell is, by chapter and id of the cell."""
    names = names_in(language)
    lines = [*HEADS_IN[language]["index"], ""]
    letter = ""
    for concept in concepts:
        first = concept.term.strip("`")[0].upper()
        if first != letter and first.isalpha():
            letter = first
            lines += ["", f"## {letter}", ""]
        places = [f"{place[0]} [{headings[place]}](#c{place[0]}-{place[1]})" for place in concept.cells]
        own = f"**{names[concept.term]}** {concept.term}" if names else f"**{concept.term}**"
        lines.append(f"- {own} &ensp; {' · '.join(places)}")
    return "\n".join(lines) + "\n"


def glossary_page(concepts: list[Concept], language: str = "en") -> str:
    """Return the glossary as Markdown."""
    names = names_in(language)
    meanings = read_table(TABLE.parent / language / "meanings.md") if names else {}
    head, chapter = HEADS_IN[language]["glossary"], HEADS_IN[language]["chapter"][0]
    lines = [*head, "", ":::{glossary}", ""]
    for concept in concepts:
        if concept.meaning:
            number, cell = concept.cells[0]
            term = f"{names[concept.term]} · {concept.term}" if names else concept.term
            meaning = meanings[concept.term] if names else concept.meaning
            lines += [term, f"  {meaning} [{chapter.format(number)}](#c{number}-{cell})", ""]
    return "\n".join([*lines, ":::"]) + "\n"
