"""The index of concepts and the glossary, of one table: `pages/concepts.md`."""

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).parent / "pages" / "concepts.md"


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


def index_page(concepts: list[Concept], headings: dict[tuple[str, str], str]) -> str:
    """Return the index as Markdown. headings: of the section in which a cell is, by chapter and id of the cell."""
    lines = ["# Concepts", "", "Where each term is explained, by chapter and section; the main place comes first.", ""]
    letter = ""
    for concept in concepts:
        first = concept.term.strip("`")[0].upper()
        if first != letter and first.isalpha():
            letter = first
            lines += ["", f"## {letter}", ""]
        places = [f"{place[0]} [{headings[place]}](#c{place[0]}-{place[1]})" for place in concept.cells]
        lines.append(f"- **{concept.term}** &ensp; {' · '.join(places)}")
    return "\n".join(lines) + "\n"


def glossary_page(concepts: list[Concept]) -> str:
    """Return the glossary as Markdown."""
    lines = ["# Glossary", "", "Each term in a sentence, and the chapter that explains it.", "", ":::{glossary}", ""]
    for concept in concepts:
        if concept.meaning:
            number, cell = concept.cells[0]
            lines += [concept.term, f"  {concept.meaning} [Chapter {number}](#c{number}-{cell})", ""]
    return "\n".join([*lines, ":::"]) + "\n"
