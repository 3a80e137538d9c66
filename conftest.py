"""Runs every notebook as a test: within its budgets, with the state that each of its exercises must report.

Chapters run as the learner finds them: every exercise must report `todo`, and nothing may raise. Solutions
run strictly: every exercise must report `pass`. nbval runs the cells, each as one test. With --all the source of each
chapter runs with right answers that were written in another way: what a check accepts must work in later cells.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# Before anything imports torch. Notebooks run in kernels, which inherit these.
os.environ.setdefault("COURSE_PROFILE", "smoke")
os.environ["COURSE_LANGUAGE"] = "en"  # whatever the system speaks; notebooks in another language say so below
os.environ.setdefault("OMP_NUM_THREADS", "1")  # with two test processes on two cores this is the fastest
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

import psutil  # noqa: E402
import pytest  # noqa: E402

from course_utils.authoring.grading import EXERCISE  # noqa: E402

SECONDS = 600  # a notebook, in the smoke profile; COURSE_NOTEBOOK_SECONDS sets another budget
GIGABYTES = 4  # of its kernel after each cell
EXPECTED_STATE = {"chapters": "todo", "solutions": "pass"}

collect_ignore = ["work", "runs", ".venv"]  # learners' copies are theirs, and hold attempts that may well raise


def pytest_addoption(parser):
    parser.addoption(
        "--all",
        action="store_true",
        help="run also what repeats other tests more slowly: every chapter in JupyterLab, the solved Chinese notebooks "
        "(the same code), each chapter's source with other right answers than the solutions",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: repeats other tests more slowly; runs with --all")


def pytest_ignore_collect(collection_path, config):
    return True if collection_path == ROOT / "solutions" / "zh" and not config.getoption("--all") else None


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--all"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow")])
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_collect_file(file_path, parent):
    if file_path.parent == ROOT / "solutions" / "source" and file_path.suffix == ".py":
        return Afterwards.from_parent(parent, path=file_path)
    return None


class Afterwards(pytest.File):
    """A chapter's source; each of its tests runs all cells with other right answers (tests/exercises/afterwards.py).

    A file of its own to pytest, so that chapters spread over its processes.
    """

    def collect(self):
        sys.path.insert(0, str(ROOT / "tests" / "exercises"))
        from afterwards import rounds

        for number in range(rounds(self.path.name[:2])):
            item = Round.from_parent(self, name=f"answers-{number}", number=number)
            item.add_marker("slow")
            yield item


class Round(pytest.Item):
    def __init__(self, number, **named):
        super().__init__(**named)
        self.number = number

    def runtest(self):
        command = [sys.executable, str(ROOT / "tests" / "exercises" / "afterwards.py")]
        command += [self.path.name[:2], str(self.number)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if result.returncode:
            pytest.fail(result.stderr, pytrace=False)

    def reportinfo(self):
        return self.path, None, f"{self.path.name} with {self.name}"


def kind_and_language(path):
    """Where a notebook lies: ("chapters", "en"), ("solutions", "zh"), ..."""
    folders = path.relative_to(ROOT).parts[:-1] if path.is_relative_to(ROOT) else ()
    return folders[0] if folders else path.parent.name, folders[1] if len(folders) > 1 else "en"


def is_cell(item):
    """True for a test that is a cell of a notebook."""
    return type(item).__name__ == "IPyNbCell"


def pytest_itemcollected(item):
    if is_cell(item):
        item.output_timeout = 60  # nbval waits 5 s for an output, which a busy machine exceeds


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Give a notebook's kernel, which starts here with its first cell, an environment of its own."""
    if not is_cell(item) or item.parent.kernel is not None:
        return (yield)
    folder = Path(tempfile.mkdtemp(prefix="course-report-"))
    item.parent.report, item.parent.seconds = folder / "report.jsonl", {}
    saved = dict(os.environ)
    for name in ("COURSE_STRICT", "NBGRADER_EXECUTION"):
        os.environ.pop(name, None)
    kind, language = kind_and_language(item.path)
    if kind == "solutions":
        os.environ["COURSE_STRICT"] = "1"
    os.environ["COURSE_LANGUAGE"] = language
    os.environ["COURSE_REPORT"] = str(item.parent.report)
    os.environ["COURSE_PROGRESS"] = str(folder / "progress.json")  # not that of whoever runs the tests
    try:
        return (yield)
    finally:
        os.environ.clear()
        os.environ.update(saved)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Hold a notebook to its budgets after each cell, and to its exercises' states after the last."""
    if not is_cell(item):
        return (yield)
    start = time.monotonic()
    try:
        result = yield
    finally:
        item.parent.seconds[item.name] = time.monotonic() - start
    problem = over_time(item.parent.seconds) or over_memory(item.parent.kernel)
    code_cells = [cell for cell in item.parent.nb.cells if cell.cell_type == "code"]
    if not problem and item.cell_num == len(code_cells) - 1:
        source = "\n".join(cell.source for cell in code_cells)
        problem = unexpected_states(source, item.parent.report, EXPECTED_STATE.get(kind_and_language(item.path)[0]))
    if problem:
        pytest.fail(f"{item.path.name}: {problem}", pytrace=False)
    return result


def over_time(seconds):
    """Say so if the cells so far took longer than the notebook's budget. seconds: of each cell, by name."""
    budget = float(os.environ.get("COURSE_NOTEBOOK_SECONDS", SECONDS))
    total = sum(seconds.values())
    if total <= budget:
        return None
    slowest = sorted(seconds, key=seconds.get, reverse=True)[:3]
    named = ", ".join(f"{name} {seconds[name]:.1f} s" for name in slowest)
    return f"expected at most {budget:g} s for the notebook, got {total:.1f} s so far. Slowest: {named}"


def over_memory(kernel):
    """Say so if the notebook's kernel holds more memory than its budget."""
    used = psutil.Process(kernel.km.provisioner.pid).memory_info().rss / 1e9
    if used <= GIGABYTES:
        return None
    return f"expected at most {GIGABYTES} GB for the notebook's kernel, got {used:.1f} GB"


def unexpected_states(source, report, expected):
    """Say so if an exercise that the source checks did not report the expected state, and that state only."""
    if expected is None:
        return None
    lines = report.read_text(encoding="utf-8", errors="replace").splitlines() if report.exists() else []
    reported = {}
    for line in lines:
        try:
            entry = json.loads(line)
            reported.setdefault(entry["id"], set()).add(entry["state"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return f"expected a state of an exercise in each line of the report, got {line[:100]!r}"
    wrong = [
        f"{name} reported {' and '.join(sorted(reported.get(name, {'nothing'})))}"
        for name in sorted(set(EXERCISE.findall(source)) | set(reported))
        if reported.get(name) != {expected}
    ]
    return f"expected every exercise to report '{expected}', but {'; '.join(wrong)}" if wrong else None


# What tests of the command line share


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a small pipeline with random weights."""
    import tiny  # of tests/

    from course_utils.pipelines.picture_book import save_pipeline

    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_pipeline(tiny.tiny_pipeline(), folder)
    return str(folder)


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The folder of the web book, built by its command, once for all processes of the tests."""
    from filelock import FileLock

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the processes share
    command = [sys.executable, "-m", "course_utils.cli", "site", "--output", str(folder / "book")]
    with FileLock(folder / "book.lock"):
        if not (folder / "book").exists():
            result = subprocess.run([*command, "--repository", "https://github.com/someone/course"],
                                    cwd=ROOT, capture_output=True, text=True)  # fmt: skip
            assert result.returncode == 0, result.stderr
    return folder / "book"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, on the CPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    return tmp_path
