"""Runs a chapter with right answers that were written in another way: what a check accepts must work in later cells.

    python tests/exercises/afterwards.py 05 0

runs the cells of chapter 05 in the smoke profile, in one process, with the first variant of each exercise in place of
the solution. Exit code 1, the cell's id and the traceback, if a cell raises.
"""

import contextlib
import functools
import io
import os
import re
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
CHECK = re.compile(r'^(\w+) = check\("([\w.]+)", \w+\)', re.MULTILINE)


@functools.cache
def variants() -> dict[str, list]:
    """The right answers of each exercise, by its id."""
    sys.path.insert(0, str(FOLDER))
    for file in sorted(FOLDER.glob("attempts_*.py")):
        import_module(file.stem)
    by_id = {}
    for attempt in sys.modules["attempts"].VARIANTS:
        by_id.setdefault(attempt.id, []).append(attempt.function)
    return by_id


def rounds(chapter: str) -> int:
    """How many runs it takes until each variant of the chapter was in one."""
    return max((len(functions) for id, functions in variants().items() if id.startswith(f"{chapter}.")), default=0)


def cells_with_variants(chapter: str, number: int):
    """Yield (id, source) of each code cell, with the variants of a round bound where the solutions are checked."""
    from course_utils.authoring.source import read_source, without_markers

    (path,) = (ROOT / "solutions" / "source").glob(f"{chapter}_*.py")
    for cell in read_source(path).cells:
        if cell.cell_type != "code" or "raises-exception" in cell.metadata.get("tags", ()):
            continue
        yield cell.id, CHECK.sub(rf'\1 = variant_of("\2", {number})', without_markers(cell.source))


def variant_of(id: str, number: int):
    """The variant of an exercise for a round, which sees the references of what the exercise uses."""
    from course_utils.exercises.limits import functions_of
    from course_utils.exercises.registry import find

    choice = variants()[id]
    function = choice[number % len(choice)]
    for used in find(id).uses:
        for each in functions_of(function):
            each.__globals__[find(used).name] = find(used).reference
    return function


def run(chapter: str, number: int) -> str | None:
    """Run the cells; return None, or the id of the cell that raised and its traceback."""
    import matplotlib as mpl

    mpl.use("Agg")
    os.chdir(ROOT / "solutions")
    space = {"__name__": "__main__", "variant_of": variant_of}
    for cell_id, source in cells_with_variants(chapter, number):
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                exec(compile(source, f"<{chapter}, cell {cell_id}>", "exec"), space)
        except Exception:
            used = {id: f[number % len(f)].__name__ for id, f in variants().items() if id.startswith(f"{chapter}.")}
            return f"cell {cell_id} raised with the answers {used}\n{traceback.format_exc()}"
        space["plt"].close("all") if "plt" in space else None
    return None


if __name__ == "__main__":
    os.environ["COURSE_PROFILE"] = "smoke"
    sys.path.insert(0, str(ROOT))
    warnings.simplefilter("ignore")
    problem = run(sys.argv[1], int(sys.argv[2]))
    if problem:
        sys.exit(problem)
