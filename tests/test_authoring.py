"""The notebooks that are built from a source: their cells, their outputs, and what `check` notices."""

import base64
import io
import shutil
import textwrap

import nbformat
import numpy
import pytest
from PIL import Image

from course_utils import authoring
from course_utils.authoring.shrink import shrink
from course_utils.authoring.source import read_source

SOURCE = '''\
# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown] id="title"
# # A scratch chapter

# %% id="set-up"
import os
import sys
import warnings
from pathlib import Path

import ipywidgets
from IPython.display import display
from PIL import Image
from tqdm import tqdm

print(os.environ["COURSE_PROFILE"], os.environ["COURSE_STRICT"], Path.cwd().name, Path.cwd())
print(Path(os.environ["COURSE_PROGRESS"]).read_text().count("true") > 50)
warnings.warn("mind the gap")
display(ipywidgets.IntSlider())
for _ in tqdm(range(3), desc="steps"):
    pass


# %% id="double"
def double(number):
    """Return 2 x."""
    before = "stays"

    ### BEGIN SOLUTION
    #: twice
    if before:
        #:   the number
        return 2 * number
    ### END SOLUTION

# %% [markdown] id="prose"
# Text, `#: not a comment here`.

# %% id="picture" tags=["static"]
print("drawing")
display(Image.new("RGB", (4, 4), "red"))
double(4)

# %% id="failure" tags=["raises-exception"]
raise ValueError(f"no such file in {sys.prefix}/lib")
'''

STALE = "solutions/07_scratch.ipynb: stale: this code was not run in the laptop profile"

STUB = '''\
def double(number):
    """Return 2 x."""
    before = "stays"

    # twice
        # the number
    raise NotImplementedError'''

SOLVED = '''\
def double(number):
    """Return 2 x."""
    before = "stays"

    # twice
    if before:
        # the number
        return 2 * number'''


def make_course(root, source=SOURCE, name="07_scratch.py"):
    """Write a course's folder with one source; return the source's path."""
    path = root / "solutions" / "source" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return path


def read(root, folder):
    """Return the built notebook and its cells by id."""
    notebook = nbformat.read(root / folder / "07_scratch.ipynb", as_version=4)
    return notebook, {cell.id: cell for cell in notebook.cells}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A course of one chapter, built and run once. Tests read it; those that change it copy it first."""
    root = tmp_path_factory.mktemp("course").resolve()
    make_course(root)
    written = authoring.build(root)
    assert written == [root / "solutions" / "07_scratch.ipynb", root / "chapters" / "07_scratch.ipynb"]
    return root


@pytest.fixture
def course(built, tmp_path):
    """A copy of the built course, to be changed."""
    for folder in ("solutions", "chapters"):
        (tmp_path / folder).mkdir()
        shutil.copy(built / folder / "07_scratch.ipynb", tmp_path / folder)
    make_course(tmp_path)
    return tmp_path


def test_cells_carry_the_ids_and_tags_of_the_source(built):
    for folder in ("solutions", "chapters"):
        notebook, cells = read(built, folder)
        assert list(cells) == ["title", "set-up", "double", "prose", "picture", "failure"]
        assert cells["picture"].metadata == {"tags": ["static"]}
        assert cells["double"].metadata == {}, "neither the id nor jupytext's spacing hints belong here"
        assert notebook.metadata.kernelspec.name == "python3"
        nbformat.validate(notebook)


def test_chapter_has_the_stub_and_solution_the_code(built):
    assert read(built, "chapters")[1]["double"].source == STUB
    assert read(built, "solutions")[1]["double"].source == SOLVED
    compile(STUB, "stub", "exec")


def test_only_static_pictures_are_kept_in_the_chapter(built):
    cells = read(built, "chapters")[1]
    picture = cells.pop("picture")
    assert [list(output.data) for output in picture.outputs] == [["image/png"]]
    assert picture.execution_count, "nbval refuses outputs of a cell without a count"
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells.values())


def test_solution_is_run_in_its_folder_and_profile(built):
    notebook, cells = read(built, "solutions")
    printed = cells["set-up"].outputs[0].text
    assert printed == "laptop 1 solutions solutions\nTrue\n", "profile, strictness, folder, path from the root; solved"
    assert cells["picture"].outputs[-1].data["text/plain"] == "8"
    assert notebook.metadata.course.profile == "laptop"
    assert "widgets" not in notebook.metadata


def test_outputs_read_well_without_kernel_and_elsewhere(built):
    cells = read(built, "solutions")[1]
    assert [output.output_type for output in cells["set-up"].outputs] == ["stream", "stream"], "no widget"
    noise = cells["set-up"].outputs[1].text
    assert "<cell>:13: UserWarning: mind the gap" in noise
    assert "100%" in noise
    assert " 0%" not in noise and "\r" not in noise, "only the last state of the bar"
    error = cells["failure"].outputs[0]
    assert error.evalue == "no such file in lib"
    assert "in lib" in error.traceback[-1]


def test_pictures_survive_tidying():
    """Letters of an encoded picture may look like a folder's name, as an image or within HTML."""
    encoded = "AAAA/usr/AAAA/home/x/AAAA"
    output = {"data": {"image/png": encoded, "text/html": f"<img src='data:image/png;base64,{encoded}'>"}}
    assert authoring.execution.tidied(output, "/home/x") == output


def test_a_second_build_changes_nothing_in_the_chapters(course):
    before = (course / "chapters" / "07_scratch.ipynb").read_bytes()
    authoring.build(course, ["07"])
    assert (course / "chapters" / "07_scratch.ipynb").read_bytes() == before
    assert authoring.check(course) == []


def test_build_without_running_keeps_outputs_but_is_stale(course):
    make_course(course, SOURCE.replace("double(4)", "double(5)"))
    authoring.build(course, execute=False)
    cells = read(course, "solutions")[1]
    assert cells["set-up"].outputs and not cells["picture"].outputs
    assert authoring.check(course) == [STALE]
    make_course(course)
    authoring.build(course, execute=False)
    assert authoring.check(course) == [STALE], "the code is the old one again, but its outputs are gone"


def test_changed_prose_needs_no_other_run(course):
    before = read(course, "solutions")[1]
    prose = SOURCE.replace("A scratch", "Another scratch").replace("# Text", "# More text")
    make_course(course, prose.replace("format_name: percent", "format_name: 'percent'"))
    assert not any("stale" in line for line in authoring.check(course)), "only the two notebooks' prose is old"
    authoring.build(course, execute=False)
    assert authoring.check(course) == []
    for folder in ("solutions", "chapters"):
        cells = read(course, folder)[1]
        assert cells["title"].source == "# Another scratch chapter" and cells["prose"].source.startswith("More")
    after = read(course, "solutions")[1]
    assert all(after[id].get("outputs") == cell.get("outputs") for id, cell in before.items())


@pytest.mark.parametrize("old, new", [('id="double"', 'id="twice"'), ("2 * number", "number + number")])
def test_changed_code_is_stale_even_in_notebooks_that_were_written_without_a_run(course, old, new):
    make_course(course, SOURCE.replace(old, new))
    authoring.build(course, execute=False)
    assert authoring.check(course) == [STALE]


@pytest.mark.parametrize(
    "source, same",
    [
        ("n = budget(smoke=8, laptop=100, gpu=400)\nx = n", True),
        ("n = budget(smoke=(1, 2), laptop=100, gpu=400)\nx = n", True),
        ("# so many\nn = budget(smoke=2, laptop=100, gpu=400)\n    # as wanted\nx = n", True),
        ("n = budget(smoke=2, laptop=101, gpu=400)\nx = n", False),
        ("n = budget(smoke=2, laptop=100, gpu=400)\nx = n + 1", False),
    ],
)
def test_what_the_outputs_depend_on(source, same):
    code = "n = budget(smoke=2, laptop=100, gpu=400)\nx = n"
    assert (authoring.as_run(source) == authoring.as_run(code)) == same


def test_pictures_are_made_small_by_every_build(course):
    noise = numpy.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=numpy.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    path = course / "solutions" / "07_scratch.ipynb"
    notebook = nbformat.read(path, as_version=4)
    (picture,) = (output for output in notebook.cells[4].outputs if "image/png" in output.get("data", {}))
    picture.data["image/png"] = base64.b64encode(file.getvalue()).decode()
    nbformat.write(notebook, path)
    figures = course / "chapters" / "figures"
    figures.mkdir()
    (figures / "title.png").write_bytes(file.getvalue())
    written = authoring.build(course, execute=False)
    assert figures / "title.png" in written
    shown = {(figures / "title.png").read_bytes()}
    for folder in ("solutions", "chapters"):
        images = [output.data["image/png"] for output in read(course, folder)[1]["picture"].outputs if "data" in output
                  and "image/png" in output.data]  # fmt: skip
        shown.add(base64.b64decode(images[0]))
    assert shown == {shrink(file.getvalue())} and len(shrink(file.getvalue())) < 0.9 * len(file.getvalue())
    assert figures / "title.png" not in authoring.build(course, execute=False)
    assert not list(course.rglob("*.tmp")) and authoring.check(course) == []


def test_check_is_content_with_a_fresh_build(built):
    assert authoring.check(built) == []
    assert authoring.check(built, ["07"]) == []


@pytest.mark.parametrize(
    "old, new, drifted",
    [
        ("A scratch", "Another scratch", ["chapters", "solutions"]),
        ("2 * number", "number + number", ["solutions"]),  # the learner does not see it
        ("#: twice", "#: two times", ["chapters", "solutions"]),
        ('id="prose"', 'id="text"', ["chapters", "solutions"]),
        ('tags=["static"]', "", ["chapters", "solutions"]),
        ("format_name: percent", "format_name: 'percent'", []),  # no cell differs
        ('\n# %% [markdown] id="prose"\n# Text, `#: not a comment here`.\n', "", ["chapters", "solutions"]),
    ],
)
def test_check_names_what_a_changed_source_leaves_behind(course, old, new, drifted):
    assert old in SOURCE
    make_course(course, SOURCE.replace(old, new))
    assert sorted(line.split("/")[0] for line in authoring.check(course)) == drifted


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda notebook: notebook.cells[3].update(source="edited"), "cell 'prose' differs in its source"),
        (lambda notebook: notebook.cells[4].update(outputs=[]), "cell 'picture' differs in its outputs"),
        (lambda notebook: notebook.cells.pop(), "cell 5: expected the id"),
        (lambda notebook: notebook.cells.append(nbformat.v4.new_raw_cell()), "cell 6: expected the id []"),
        (lambda notebook: notebook.metadata.update(widgets={}), "'widgets'"),
    ],
)
def test_check_names_an_edited_notebook(course, change, words):
    path = course / "chapters" / "07_scratch.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)
    (problem,) = authoring.check(course)
    assert problem.startswith("chapters/07_scratch.ipynb: ") and words in problem


def test_check_names_a_run_in_another_profile_missing_and_orphaned_notebooks(course):
    path = course / "solutions" / "07_scratch.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.course.profile = "smoke"
    nbformat.write(notebook, path)
    (course / "chapters" / "07_scratch.ipynb").rename(course / "chapters" / "08_old.ipynb")
    assert authoring.check(course) == [
        STALE,
        "chapters/07_scratch.ipynb: it is missing",
        "chapters/08_old.ipynb: there is no source for it",
    ]


def test_an_empty_course_is_in_sync(tmp_path):
    assert authoring.check(tmp_path) == []
    assert authoring.build(tmp_path) == []


BLOCK = '# %% id="a"\ndef f():\n    ### BEGIN SOLUTION\n    #: one\n    return 1\n    ### END SOLUTION\n'


@pytest.mark.parametrize(
    "source, words",
    [
        ("# %%\n1\n", 'line 1: this cell has no id; write id="a-name"'),
        ('# %% id="a"\n1\n# %% [markdown]\n# x\n', "line 3: this cell has no id"),
        ('# %% id="a"\n1\n# %% id="a"\n2\n', 'line 3: line 1 has the id "a" already'),
        ('# %% id="a b"\n1\n', 'line 1: the id "a b" is not valid'),
        ('1\n# %% id="a"\n2\n', "the text above the first"),
        (BLOCK.replace("    ### END SOLUTION\n", ""), "line 3: this block is never closed"),
        (BLOCK.replace("    ### BEGIN SOLUTION\n    #: one\n", ""), "line 4: this closes no block"),
        (BLOCK.replace("    ### END SOLUTION\n", '# %% id="b"\n1\n'), "line 6: the block begun in line 3"),
        (BLOCK.replace("    #: one\n", "    ### BEGIN SOLUTION\n"), "line 4: the block begun in line 3"),
        (BLOCK.replace("### BEGIN", "## Begin"), "line 3: expected '### BEGIN SOLUTION'"),
        (BLOCK + "#: lost\n", "line 7: a '#:' line outside"),
        ("", "expected cells, each with a '# %%' line, got none"),
        (SOURCE[: SOURCE.index("# %%")], "expected cells, each with a '# %%' line, got none"),
        (textwrap.dedent(BLOCK.replace("def f():\n", "").replace("    ", "")), "line 2: a block outside"),
    ],
)
def test_malformed_sources_are_refused_by_name_and_line(tmp_path, source, words):
    path = make_course(tmp_path, source)
    with pytest.raises(ValueError) as caught:
        read_source(path)
    assert str(caught.value).startswith("07_scratch.py")
    assert words in str(caught.value)


def test_a_source_that_is_empty_or_not_text_leaves_both_notebooks_alone(course):
    before = [(course / folder / "07_scratch.ipynb").read_bytes() for folder in ("solutions", "chapters")]
    for content in (b"", '# %% id="a"\n"ü"\n'.encode("latin-1")):
        (course / "solutions" / "source" / "07_scratch.py").write_bytes(content)
        for execute in (True, False):
            with pytest.raises(ValueError, match="^07_scratch.py: expected (cells|UTF-8), .*; (restore|save) [^.]*$"):
                authoring.build(course, execute=execute)
    assert before == [(course / folder / "07_scratch.ipynb").read_bytes() for folder in ("solutions", "chapters")]


def test_a_cell_that_raises_stops_the_build(tmp_path):
    make_course(tmp_path, '# %% id="fails"\nraise RuntimeError("no luck")\n')
    with pytest.raises(ValueError, match="07_scratch.py: a cell raised in the laptop profile(.|\n)*no luck"):
        authoring.build(tmp_path)
    assert not list(tmp_path.rglob("*.ipynb"))


def test_a_large_notebook_is_refused_with_its_largest_cells(tmp_path):
    cell = nbformat.v4.new_code_cell("draw()", id="huge")
    cell.outputs = [nbformat.v4.new_output("stream", text="x" * 2_000_000)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Small", id="small"), cell])
    with pytest.raises(ValueError, match=r"at most 2 MB, got 2.0 MB; .* cells: 'huge' 2.0 MB, 'small'"):
        authoring.write(notebook, tmp_path / "07_scratch.ipynb")
    assert not list(tmp_path.iterdir())


def test_unknown_numbers_and_names_are_refused(tmp_path):
    make_course(tmp_path)
    with pytest.raises(ValueError, match=r"expected chapters among \['07'\], got \['7'\]; write 05, not 5"):
        authoring.build(tmp_path, ["7"])
    make_course(tmp_path, name="scratch.py")
    with pytest.raises(ValueError, match="expected a source named NN_name.py, got scratch.py"):
        authoring.check(tmp_path)
