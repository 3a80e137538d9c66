"""From one source to two notebooks: the solved one, with its outputs, and the one with the exercises.

`solutions/source/NN_name.py` is the only thing edited (see `source.py` for its form). `build` writes
`solutions/NN_name.ipynb` and `chapters/NN_name.ipynb`; `check` names those that are not what it would write.
In another language the words come from `solutions/source/LANGUAGE/NN_name.md` (`translation.py`), and the notebooks lie
in `solutions/LANGUAGE/` and `chapters/LANGUAGE/`.
"""

import hashlib
import json
import re
from copy import deepcopy
from pathlib import Path

import nbformat

from course_utils.authoring.execution import PROFILE, run
from course_utils.authoring.shrink import shrink, shrink_outputs
from course_utils.authoring.source import read_source, stubbed, without_markers
from course_utils.authoring.translation import problems, read_translation, translate
from course_utils.language import LANGUAGES

SIZE_LIMIT = 2_000_000  # bytes a notebook: GitHub and the browser still show it at once
PICTURES_LIMIT = 1_000_000  # bytes that its pictures may take: the rest is text and code
MEAN_SIZE_LIMIT = 1_000_000  # bytes, on average: each rebuilt notebook stays in the history for good
COMMENT = re.compile(r"^[ \t]*#.*\n?", re.MULTILINE)
SMOKE = re.compile(r"\bsmoke=(?:\([^()]*\)|\"[^\"]*\"|[^,()\[\]]+(?:\[[^\]]*\])?), *")
SOURCE_NAME = re.compile(r"(\d\d)_\w+\.py")


def build(root, numbers=None, execute=True, language="en"):
    """Write both notebooks of each chapter, make the pictures small, and return the paths written.

    root: the course's folder. numbers: chapters such as ["00", "05"], None for all of them. language: of LANGUAGES.
    execute: run the solution (profile `laptop`, working folder `solutions/`). Without it outputs are kept
    where a cell has not changed: enough where only prose has; `check` calls the solution stale if code has.
    Raises ValueError for a malformed source, a cell that raises, and a notebook of more than 2 MB.
    """
    root = Path(root).resolve()
    # All sources are read before the first one runs: a run takes minutes, a typing error is found at once.
    sources = {path: read_in(language, path) for path in source_paths(root, numbers)}
    written = []
    for path, notebook in sources.items():
        solution_path, chapter_path = notebook_paths(root, path, language)
        solution = solution_from(notebook)
        if execute:
            solution = run(solution, root, path.name, language)
            solution.metadata["course"] = stamp(solution)
        else:
            keep_outputs(solution, load(solution_path))
        shrink_outputs(solution, PICTURES_LIMIT)
        chapter = chapter_from(notebook, solution)
        for notebook_path, content in ((solution_path, solution), (chapter_path, chapter)):
            write(content, notebook_path)
            written.append(notebook_path)
    return written + shrink_figures(root / "chapters" / "figures")


def check(root, numbers=None):
    """Return a line "FILE: what differs" for each built notebook that is not what its source would give.

    Compares the cells' ids, types, sources and metadata, the hash of the code and the profile of the solution's
    run, and the chapter's static pictures with those of the solution. Empty: all in sync.
    """
    root = Path(root).resolve()
    drifted, expected_files = [], set()
    for path, language in ((path, one) for one in languages_of(root) for path in source_paths(root, numbers)):
        if language != "en":
            rendering = translation_path(path, language)
            name = rendering.relative_to(root).as_posix()
            if not rendering.exists():
                drifted.append(f"{name}: it is missing")
                continue
            drifted += [f"{name}: {problem}" for problem in problems(read_source(path), read_translation(rendering))]
        notebook = read_in(language, path)
        solution_path, chapter_path = notebook_paths(root, path, language)
        expected_files |= {solution_path, chapter_path}
        solution, built = solution_from(notebook), load(solution_path)
        problem = difference(solution, built)
        if problem is None and built.metadata.get("course") != stamp(solution):
            problem = f"stale: this code was not run in the {PROFILE} profile"
        if problem:
            drifted.append(f"{solution_path.relative_to(root).as_posix()}: {problem}")
        chapter = chapter_from(notebook, built or solution)
        problem = difference(chapter, load(chapter_path), outputs=True)
        if problem:
            drifted.append(f"{chapter_path.relative_to(root).as_posix()}: {problem}")
    if numbers is None:
        folders = [root / kind / part for kind in ("solutions", "chapters") for part in ("", *LANGUAGES)]
        orphans = sorted({path for folder in folders for path in folder.glob("*.ipynb")} - expected_files)
        drifted += [f"{path.relative_to(root).as_posix()}: there is no source for it" for path in orphans]
    return drifted


def source_paths(root, numbers=None):
    """Return the chapters' sources in order. Raises ValueError for a bad name or an unknown number."""
    paths = sorted((Path(root) / "solutions" / "source").glob("*.py"))
    for path in paths:
        if not SOURCE_NAME.fullmatch(path.name):
            raise ValueError(f"expected a source named NN_name.py, got {path.name}; rename it")
    if numbers is None:
        return paths
    by_number = {path.name[:2]: path for path in paths}
    unknown = [number for number in numbers if number not in by_number]
    if unknown:
        raise ValueError(f"expected chapters among {sorted(by_number)}, got {unknown}; write 05, not 5")
    return [by_number[number] for number in sorted(set(numbers))]


def notebook_paths(root, source_path, language="en"):
    """Return (solution, chapter): where the two notebooks of a source lie."""
    name = source_path.with_suffix(".ipynb").name
    part = "" if language == "en" else language
    return root / "solutions" / part / name, root / "chapters" / part / name


def languages_of(root):
    """Return the languages that a course is written in: English, and those that have a folder among the sources."""
    return ["en", *(one for one in LANGUAGES if (root / "solutions" / "source" / one).is_dir())]


def translation_path(source_path, language):
    """Return where the words of a source lie in another language."""
    return source_path.parent / language / source_path.with_suffix(".md").name


def read_in(language, source_path):
    """Return `read_source`'s notebook with the words of a language; its links lead on from a folder deeper."""
    notebook = read_source(source_path)
    if language == "en":
        return notebook
    notebook = translate(notebook, read_translation(translation_path(source_path, language)))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../", "](../../")
    return notebook


def solution_from(notebook):
    """Return the notebook without marker lines, its `#:` lines as comments."""
    solution = deepcopy(notebook)
    for cell in solution.cells:
        cell.source = without_markers(cell.source)
    return solution


def chapter_from(notebook, solution):
    """Return the notebook with stubs and, in cells tagged `static`, the solution's pictures."""
    chapter = deepcopy(notebook)
    solved = {cell.id: cell for cell in solution.cells}
    for cell in chapter.cells:
        cell.source = stubbed(cell.source)
        if cell.cell_type == "code" and cell.id in solved and "static" in cell.metadata.get("tags", []):
            cell.outputs = pictures(solved[cell.id].get("outputs", []))
            # nbval refuses outputs of a cell that was never run
            cell.execution_count = solved[cell.id].get("execution_count") if cell.outputs else None
    return chapter


def pictures(outputs):
    """Return the outputs that hold an image, reduced to their images."""
    kept = []
    for output in outputs:
        images = {kind: data for kind, data in output.get("data", {}).items() if kind.startswith("image/")}
        if images:
            metadata = output.get("metadata", {})
            kept.append(nbformat.v4.new_output("display_data", data=images, metadata=metadata))
    return kept


def keep_outputs(solution, built):
    """Copy into `solution` the outputs of the unchanged cells of the notebook on disk, and its stamp if still true."""
    if built is None:
        return
    old = {cell.get("id"): cell for cell in built.cells if cell.cell_type == "code"}
    for cell in solution.cells:
        if cell.cell_type == "code" and cell.id in old and as_run(old[cell.id].source) == as_run(cell.source):
            cell.outputs, cell.execution_count = old[cell.id].outputs, old[cell.id].execution_count
    if built.metadata.get("course") == stamp(solution):
        solution.metadata["course"] = built.metadata["course"]


def stamp(solution):
    """Return what an executed solution remembers: the hash of the code that was run, and its profile.

    Of the code cells' ids and sources only, as they run: prose may be edited without another run.
    """
    code = [[cell.id, as_run(cell.source)] for cell in solution.cells if cell.cell_type == "code"]
    return {"code_sha256": hashlib.sha256(json.dumps(code).encode("ascii")).hexdigest(), "profile": PROFILE}


def as_run(source):
    """Return what of a cell's code its outputs depend on: not lines of comment, nor the budgets of other profiles."""
    return SMOKE.sub("", COMMENT.sub("", source))


def shrink_figures(folder):
    """Make the title pictures small, and return the paths of those that were not."""
    shrunk = []
    for path in sorted(folder.glob("*.png")):
        data = path.read_bytes()
        small = shrink(data)
        if len(small) < len(data):
            replace(path, small)
            shrunk.append(path)
    return shrunk


def difference(expected, found, outputs=False):
    """Return in words the first difference between two notebooks (outputs only if asked), or None."""
    if found is None:
        return "it is missing"
    for key in ("kernelspec", "widgets"):
        if expected.metadata.get(key) != found.metadata.get(key):
            return f"the notebook's metadata differ in '{key}'"
    ids, found_ids = [cell.id for cell in expected.cells], [cell.get("id") for cell in found.cells]
    if ids != found_ids:
        where = next(i for i in range(len(ids) + 1) if ids[i : i + 1] != found_ids[i : i + 1])
        return f"cell {where}: expected the id {ids[where : where + 1]}, got {found_ids[where : where + 1]}"
    for cell, other in zip(expected.cells, found.cells, strict=True):
        for key in ("cell_type", "source", "metadata") + (("outputs",) if outputs else ()):
            if cell.get(key) != other.get(key):
                return f"cell '{cell.id}' differs in its {key}"
    return None


def load(path):
    """Return the notebook at the path, or None where there is none."""
    return nbformat.read(path, as_version=4) if path.exists() else None


def write(notebook, path):
    """Write a notebook, whole or not at all. Raises ValueError if it is larger than 2 MB."""
    content = (nbformat.writes(notebook, indent=1).rstrip("\n") + "\n").encode("utf-8")
    if len(content) > SIZE_LIMIT:
        sizes = sorted(((len(json.dumps(cell)), cell.id) for cell in notebook.cells), reverse=True)
        largest = ", ".join(f"'{cell_id}' {size / 1e6:.1f} MB" for size, cell_id in sizes[:3])
        raise ValueError(
            f"{path.name}: expected at most {SIZE_LIMIT / 1e6:.0f} MB, got {len(content) / 1e6:.1f} MB; "
            f"draw smaller or fewer pictures. Largest cells: {largest}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, content)


def replace(path, content):
    """Write the bytes to the path, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
