'''The form of a chapter's source, and what becomes of its solution blocks.

A source is a jupytext percent script in which every cell has an id, and may have tags:

    # %% [markdown] id="why"
    # %% id="mix" tags=["static"]

A solution block stands inside a function, between two marker lines; its `#:` lines are for the learner:

    def add_noise(x0, eps, t, alpha_bar):
        """Docstring: it stays."""
        ### BEGIN SOLUTION
        #: broadcast alpha_bar over the picture
        a = expand_like(alpha_bar[t], x0)
        #: mix signal and noise
        return a.sqrt() * x0 + (1 - a).sqrt() * eps
        ### END SOLUTION

In the chapter the `#:` lines become comments, followed by `raise NotImplementedError`, and the rest of the
block goes. In the solution they become comments too, and the marker lines go. Cells tagged `static` keep
their pictures in the chapter; a tag such as `raises-exception` is passed on.
'''

import re

import nbformat

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}

CELL_LINE = re.compile(r"# %%(\s|$)")
CELL_ID = re.compile(r'\bid="([^"]*)"')
VALID_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what the notebook format allows
LIKE_A_MARKER = re.compile(r"\s*#+\s*(BEGIN|END)\s*SOLUTION", re.IGNORECASE)
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def read_source(path):
    """Parse a source into a notebook that still has its marker lines, each cell with its own id.

    Raises ValueError naming file, line and remedy where there is no cell, where an id is missing, invalid or
    used twice, and where the marker lines do not pair up.
    """
    import jupytext  # half a second

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: expected UTF-8, got other bytes; save it again as UTF-8") from error
    ids = cell_ids(path.name, text)
    if not ids:
        raise ValueError(f"{path.name}: expected cells, each with a '# %%' line, got none; restore the file")
    check_markers(path.name, text)
    parsed = jupytext.reads(text, fmt="py:percent")
    if len(parsed.cells) != len(ids):
        raise ValueError(
            f"{path.name}: expected a cell for each of the {len(ids)} '# %%' lines, got {len(parsed.cells)}; "
            "move the text above the first '# %%' line into a cell"
        )
    for cell, cell_id in zip(parsed.cells, ids, strict=True):
        cell.id = cell_id
        cell.source = cell.source.strip("\n")
        # jupytext adds its own spacing hints, which change with the lines around a cell
        kept = [key for key in cell.metadata if key != "id" and not key.startswith("lines_to_")]
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in kept})
    metadata = {"kernelspec": dict(KERNEL), "language_info": dict(LANGUAGE)}
    return nbformat.v4.new_notebook(cells=parsed.cells, metadata=metadata)


def cell_ids(name, text):
    """Return the id of each cell of a source's text, in order, or raise ValueError naming file and line."""
    line_of: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not CELL_LINE.match(line):
            continue
        where, found = f"{name}, line {number}", CELL_ID.search(line)
        if found is None:
            raise ValueError(f'{where}: this cell has no id; write id="a-name" on its # %% line')
        cell_id = found.group(1)
        if not VALID_ID.fullmatch(cell_id):
            allowed = "1 to 64 letters, digits, hyphens and underscores"
            raise ValueError(f'{where}: the id "{cell_id}" is not valid; use {allowed}')
        if cell_id in line_of:
            first = line_of[cell_id]
            raise ValueError(f'{where}: line {first} has the id "{cell_id}" already; give each cell its own')
        line_of[cell_id] = number
    return list(line_of)


def check_markers(name, text):
    """Raise ValueError, naming file and line, unless the solution blocks of a source are well formed."""
    begun = None  # the line of the open BEGIN marker
    for number, line in enumerate(text.splitlines(), start=1):
        where, words = f"{name}, line {number}", line.strip()
        if LIKE_A_MARKER.match(line) and words not in (BEGIN, END):
            raise ValueError(f"{where}: expected '{BEGIN}' or '{END}', got '{words}'; write it exactly so")
        if begun and (words == BEGIN or CELL_LINE.match(line)):
            raise ValueError(f"{where}: the block begun in line {begun} is still open; add '{END}' above")
        if words == BEGIN:
            if line == words:
                raise ValueError(f"{where}: a block outside a function; its stub would stop the chapter")
            begun = number
        elif words == END:
            if not begun:
                raise ValueError(f"{where}: this closes no block; add '{BEGIN}' above it or remove it")
            begun = None
        elif words.startswith("#:") and not begun:
            raise ValueError(f"{where}: a '#:' line outside a solution block; write '# ' there")
    if begun:
        raise ValueError(f"{name}, line {begun}: this block is never closed; add '{END}'")


def without_markers(source):
    """Return a cell's source with its solution blocks, but without their marker lines."""
    lines = [line for line in source.splitlines() if line.strip() not in (BEGIN, END)]
    return "\n".join(plain_comment(line) for line in lines)


def stubbed(source):
    """Return a cell's source with, for each solution block, its comments and `raise NotImplementedError`."""
    lines, indent = [], None  # indent: that of the block we are in
    for line in source.splitlines():
        words = line.strip()
        if words == BEGIN:
            indent = line[: line.index("#")]
        elif words == END:
            lines.append(f"{indent}raise NotImplementedError")
            indent = None
        elif indent is None:
            lines.append(line)
        elif words.startswith("#:"):
            lines.append(plain_comment(line))
    return "\n".join(lines)


def plain_comment(line):
    """Return the line with a leading `#:` made an ordinary comment."""
    return re.sub(r"^(\s*)#:\s*", r"\1# ", line)
