"""A chapter in another language: its prose by cell, and the words in its code.

`solutions/source/zh/NN_name.md` holds, in the order of the source, a line for each cell that has words, with its id and
the hash of the English cell that it renders. Below it stands, for a cell of text, the text; for a cell of code, pairs
of lines: a piece of the English cell (a comment, a string with its quotes, a line of a docstring), and what stands in
its place:

    <!-- jump-text 1f0c62b8 -->
    ### 练习 3 · 一步到位

    <!-- add-noise 9a41d7e0 -->
    - #: the image times one root, the noise times the other
    + #: 图像乘以一个根，噪声乘以另一个根

Code, ids and tags are always those of the English source, so that the two editions cannot drift apart.
"""

import hashlib
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

CELL = re.compile(r"^<!-- (?P<id>[A-Za-z0-9_-]{1,64})(?: (?P<hash>[0-9a-f]{8}))? -->$", re.MULTILINE)


@dataclass(frozen=True)
class Rendering:
    """What stands below the line of a cell, and the hash of the English cell, "" before it was stamped."""

    hash: str
    text: str

    def pairs(self) -> dict[str, str]:
        """The pieces of a cell of code and what stands in their place. Raises ValueError unless lines alternate."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        if len(lines) % 2 or any(line[:2] != "-+"[n % 2] + " " for n, line in enumerate(lines)):
            raise ValueError("expected lines '- English' and '+ translation' by turns")
        return {old[2:]: new[2:] for old, new in zip(lines[::2], lines[1::2], strict=True)}


def read_translation(path: Path) -> dict[str, Rendering]:
    """Return what a file holds, by cell id. Raises ValueError for an id that comes twice, or text before the first."""
    before, *parts = CELL.split(path.read_text(encoding="utf-8"))
    if before.strip():
        raise ValueError(f"{path.name}: expected a line such as '<!-- title -->' first, got {before.strip()[:40]!r}")
    found: dict[str, Rendering] = {}
    for cell_id, stamp, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if cell_id in found:
            raise ValueError(f"{path.name}: the cell '{cell_id}' comes twice; remove one")
        found[cell_id] = Rendering(stamp or "", text.strip("\n"))
    return found


def hash_of(source: str) -> str:
    """Return the first eight digits of the SHA-256 of a cell's English source."""
    return hashlib.sha256(source.encode("utf-8")).hexdigest()[:8]


def problems(notebook, translation: dict[str, Rendering]) -> list[str]:
    """Return a line "'cell': what is wrong" for each cell that is missing, stale, unknown, or does not fit its source.

    notebook: as `source.read_source` gives it. Cells of code need no rendering unless they have comments of words.
    """
    cells = {cell.id: cell for cell in notebook.cells}
    found = [f"'{name}': the chapter has no such cell" for name in translation if name not in cells]
    for name, cell in cells.items():
        rendering = translation.get(name)
        if rendering is None:
            if cell.cell_type == "markdown":
                found.append(f"'{name}': it is missing")
        elif rendering.hash != hash_of(cell.source):
            found.append(f"'{name}': " + ("stale: the English cell has changed" if rendering.hash else "not stamped"))
        if rendering is not None and cell.cell_type == "code":
            try:
                pairs = rendering.pairs()
            except ValueError as error:
                found.append(f"'{name}': {error}")
                continue
            found += [f"'{name}': the cell does not contain {old!r}" for old in pairs if old not in cell.source]
    return found


def translate(notebook, translation: dict[str, Rendering]):
    """Return the notebook with the words of the translation; a cell that has none keeps its English."""
    result = deepcopy(notebook)
    for cell in result.cells:
        rendering = translation.get(cell.id)
        if rendering is None:
            continue
        if cell.cell_type == "markdown":
            cell.source = rendering.text
        else:
            cell.source = _replaced(cell.source, rendering.pairs())
    return result


def _replaced(source: str, pairs: dict[str, str]) -> str:
    pieces = sorted(pairs, key=len, reverse=True)  # a longer piece goes before one that is inside it
    return re.sub("|".join(map(re.escape, pieces)), lambda match: pairs[match.group()], source)


def stamp(path: Path, notebook) -> None:
    """Write into the file the hash of each English cell as it is now: said by one who has compared the two."""
    sources = {cell.id: cell.source for cell in notebook.cells}

    def stamped(match: re.Match) -> str:
        name = match["id"]
        return f"<!-- {name} {hash_of(sources[name])} -->" if name in sources else match.group()

    path.write_text(CELL.sub(stamped, path.read_text(encoding="utf-8")), encoding="utf-8")
