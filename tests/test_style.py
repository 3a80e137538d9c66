"""One style: ruff's rules and its formatting for every file, chapters' sources included; types for the package."""

import ast
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from needs import needs

ROOT = Path(__file__).resolve().parent.parent
HINTED = ("machine", "shapes", "text", "data", "models", "diffusion", "plotting", "metrics", "widgets")
REMEDY = "pip install -c constraints.txt mypy ruff"


def run(*arguments):
    """Return what a tool of this environment says of the repository: "" if it finds nothing."""
    found = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    return "" if found.returncode == 0 else found.stdout + found.stderr


@needs(find_spec("ruff") is not None, f"ruff is not installed: {REMEDY}")
@pytest.mark.parametrize(
    "command, remedy", [("check", "ruff check --fix ."), ("format --check", "ruff format .")], ids=["check", "format"]
)
def test_ruff_finds_nothing(command, remedy):
    found = run("ruff", *command.split(), ".")
    assert not found, f"run `{remedy}` and look at what changes:\n{found}"


@needs(find_spec("ruff") is not None, f"ruff is not installed: {REMEDY}")
def test_ruff_reads_the_chapters_sources_and_no_notebook():
    files = subprocess.run([sys.executable, "-m", "ruff", "check", "--show-files", "."], cwd=ROOT, capture_output=True)
    read = {Path(line).resolve() for line in files.stdout.decode().splitlines()}
    assert read >= set((ROOT / "solutions" / "source").glob("*.py")) | set((ROOT / "course_utils").rglob("*.py"))
    assert not [path for path in read if path.suffix == ".ipynb"]


@needs(find_spec("mypy") is not None, f"mypy is not installed: {REMEDY}")
def test_the_types_fit():
    found = run("mypy")
    assert not found, f"run `mypy` and mend what it names:\n{found}"


def functions(tree, method=False):
    """Yield (function, whether it is a method) for all that a module defines for others."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
            yield node, method
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node, method=True)


def lacks_hints(function, method):
    """Return whether a parameter, other than `self`, or what a function other than __init__ returns has no hint."""
    parameters = (function.args.posonlyargs + function.args.args)[method:] + function.args.kwonlyargs
    silent = [parameter for parameter in parameters if parameter.annotation is None]
    return bool(silent) or (function.returns is None and function.name != "__init__")


def test_public_functions_say_what_they_take_and_give():
    package = ROOT / "course_utils"
    paths = [path for path in package.rglob("*.py") if path.relative_to(package).with_suffix("").parts[0] in HINTED]
    assert len(paths) > 40
    silent = [
        f"{path.relative_to(ROOT)}:{function.lineno}: {function.name}"
        for path in paths
        for function, method in functions(ast.parse(path.read_text(encoding="utf-8")))
        if lacks_hints(function, method)
    ]
    assert not silent, "give each parameter and the result a type:\n" + "\n".join(silent)


@pytest.mark.parametrize(
    "source, silent",
    [
        ("def f(x: int) -> int: ...", False),
        ("def f(x) -> int: ...", True),
        ("def f(*, x) -> int: ...", True),
        ("def f(x: int): ...", True),
        ("class C:\n    def __init__(self, x: int): ...", False),
        ("class C:\n    def __init__(self, x): ...", True),
        ("class C:\n    def f(self): ...", True),
        ("def _f(x): ...\nclass _C:\n    def f(self, x): ...", False),
    ],
)
def test_lacks_hints(source, silent):
    assert any(lacks_hints(*found) for found in functions(ast.parse(source))) == silent


def test_the_hooks_before_a_commit_are_the_tests():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format", "mypy"]
    assert {hook["language"] for hook in hooks} == {"system"}  # the versions are those of constraints.txt
    style = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {requirement.split(">")[0] for requirement in style["style"]} == {"mypy", "ruff"}
