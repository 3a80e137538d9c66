"""One style: ruff's rules and its formatting, for every file and for what the notebooks are built from."""

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from needs import needs

ROOT = Path(__file__).resolve().parent.parent
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


def test_the_hooks_before_a_commit_are_the_tests():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format", "mypy"]
    assert {hook["language"] for hook in hooks} == {"system"}  # the versions are those of constraints.txt
    style = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {requirement.split(">")[0] for requirement in style["style"]} == {"mypy", "ruff"}
