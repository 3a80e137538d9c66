"""Imports within the package point up the list of floors only."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "course_utils"

# Lowest floor first. A module may import those before it, never those after it. A folder is one floor.
FLOORS = [
    "language",  # what is said to the learner, in every room
    "files",  # how anything is kept: used by trainings, recipes and pipelines
    "machine",
    "shapes",
    "text",
    "checkpoint",  # what `training` keeps, and what the recipes read of it; by itself, so that each file stays short
    "optimizers",
    "training",
    "timed_training",
    "data",
    "models",
    "diffusion",
    "plotting",
    "pipelines",
    "recipes",
    "systems",  # whole ones, of pipelines and what the recipes load; by itself, so that it is quick to import
    "metrics",
    "widgets",
    "studio",
    "web",
    "exercises",
    "authoring",
    "site",  # the book, of what `authoring` has built
    "doctor",  # says what is wrong with an installation, so that it must work where nothing above can be imported
    "cli",
]
APART = {("diffusion", "models"), ("training", "models")}  # they are handed a model
# The modules of these folders are peers: none imports another, but for the shared helpers named here.
MATHEMATICS = {("models", "variational")}  # stands in that room, and is no network
PEERS = {"data", "models"}
SHARED = {("data", "images"), ("models", "attention"), ("models", "blocks"), ("models", "dit")} | MATHEMATICS
UNKNOWN = "'{}' is not in FLOORS (tests/test_layers.py); add it there, on the floor where it belongs"
SLOW = {"diffusers", "transformers", "accelerate", "matplotlib", "sklearn", "skimage"}


def is_module(package, parts):
    """True if the dotted name (as a tuple of its parts) is a module or a folder of modules of the package."""
    path = package.joinpath(*parts)
    return path.with_suffix(".py").exists() or any(path.glob("*.py"))


def imported(package, path):
    """Yield (line, parts) for each import of the package's own modules, wherever it stands in the file."""
    here = path.relative_to(package.parent).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            names = [base + (alias.name,) for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == package.name:
                parts = name[1:]
                # The last name may be a function of the module rather than a module
                yield node.lineno, parts if is_module(package, parts) else parts[:-1]


def problem(own, target):
    """Say what is wrong with the module `own` importing `target` (parts below the package), or None."""
    if own == ("__init__",):
        return "the package itself imports none of its modules, so that it stays quick to import"
    if not target:
        return "import from the module, not from the package"
    if target[0] not in FLOORS:
        return UNKNOWN.format(target[0])
    if own[0] == target[0]:
        entrance = own[1:2] == ("__init__",)
        peers = own[0] in PEERS and not entrance and own[1:2] != target[1:2] and target[:2] not in SHARED
        return f"modules of '{own[0]}' are peers: none imports another" if peers else None
    if (own[0], target[0]) in APART and target[:2] not in MATHEMATICS:
        return f"'{own[0]}' is handed a model; it never imports '{target[0]}'"
    if FLOORS.index(target[0]) > FLOORS.index(own[0]):
        return f"'{target[0]}' stands on a later floor than '{own[0]}'"
    return None


def violations(package):
    """Return "FILE:LINE: what is wrong" for each import and each module that breaks the rules."""
    found = []
    for path in sorted(package.rglob("*.py")):
        own = path.relative_to(package).with_suffix("").parts
        where = f"{package.name}/{path.relative_to(package).as_posix()}"
        if own[0] not in (*FLOORS, "__init__"):
            found.append(f"{where}: {UNKNOWN.format(own[0])}")
            continue
        for line, target in imported(package, path):
            wrong = problem(own, target)
            if wrong:
                found.append(f"{where}:{line}: {wrong}")
    return list(dict.fromkeys(found))  # `from x import a, b` is one import


def test_imports_point_up_the_list_of_floors():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    "files, words",
    [
        ({"shapes.py": "from course_utils.cli import main"}, "'cli' stands on a later floor than 'shapes'"),
        ({"shapes.py": "from course_utils import cli"}, "'cli' stands on a later floor"),
        ({"shapes.py": "import course_utils.cli"}, "'cli' stands on a later floor"),
        ({"shapes.py": "from . import cli"}, "'cli' stands on a later floor"),
        ({"shapes.py": "def f():\n    from .cli import main"}, "shapes.py:2: 'cli' stands on a later floor"),
        ({"models/unet.py": "from ..cli import main"}, "models/unet.py:1: 'cli' stands on a later floor"),
        ({"data/digits.py": "from course_utils.data import photos"}, "modules of 'data' are peers"),
        ({"data/digits.py": "from .photos import cat"}, "modules of 'data' are peers"),
        ({"data/digits.py": "from course_utils.data import cat"}, "modules of 'data' are peers"),
        ({"diffusion/samplers.py": "from course_utils.models import unet"}, "'diffusion' is handed a model"),
        ({"training.py": "from course_utils.models.unet import UNet"}, "'training' is handed a model"),
        ({"pipelines/picture_book.py": "from course_utils import exercises"}, "'exercises' stands on a later floor"),
        ({"shapes.py": "from course_utils import pick_device"}, "import from the module"),
        ({"__init__.py": "from .cli import main"}, "the package itself imports none"),
        ({"novel.py": ""}, "course_utils/novel.py: 'novel' is not in FLOORS"),
        ({"novel/__init__.py": ""}, "course_utils/novel/__init__.py: 'novel' is not in FLOORS"),
    ],
)
def test_each_rule_can_be_broken(tmp_path, files, words):
    package = small_package(tmp_path, files)
    (found,) = violations(package)
    assert words in found


def test_imports_that_are_allowed(tmp_path):
    files = {
        "cli.py": "import os\nfrom course_utils import exercises, shapes\nfrom .models.unet import UNet",
        "data/digits.py": "from course_utils.data.images import resized\nfrom course_utils.shapes import a",
        "data/__init__.py": "from course_utils.data.photos import cat",
        "diffusion/latents.py": "from course_utils.models.variational import gaussian_kl",
        "data/book/pen.py": "import numpy",
        "data/book/scenes.py": "from course_utils.data.book.pen import draw\nfrom . import pen",
    }
    assert violations(small_package(tmp_path, files)) == []


def small_package(folder, files):
    """Write a package with a few modules and the given ones; return its folder."""
    modules = [
        "__init__",
        "shapes",
        "cli",
        "exercises",
        "models/unet",
        "models/variational",
        "data/photos",
        "data/images",
    ]
    package = folder / "course_utils"
    for name, text in ({f"{module}.py": "" for module in modules} | files).items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


def after_import(code, **environment):
    """Return what `code` prints in a fresh Python that has imported course_utils."""
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", f"{SPY}\nimport course_utils\n{code}"]
    environment = clean | {"PYTHONPATH": str(PACKAGE.parent)} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


# Notes how threads are to wait at the moment when torch is first asked for, by whomever
SPY = """
import os, sys
policy_at_torch = []
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "torch" and not policy_at_torch:
            policy_at_torch.append(f"{os.environ.get('OMP_WAIT_POLICY')},{os.environ.get('GOMP_SPINCOUNT')}")
sys.meta_path.insert(0, Spy())
"""


def test_importing_the_package_is_light():
    loaded = after_import("print(*{name.split('.')[0] for name in sys.modules})")
    assert "course_utils" in loaded
    assert SLOW & set(loaded) == set()


def test_how_threads_wait_is_set_before_torch_is_imported():
    assert after_import("import torch; print(policy_at_torch[0])") == ["passive,1000"]
    looks = "print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))"
    assert after_import(looks, OMP_WAIT_POLICY="active") == ["active", "None"]
    assert after_import(looks, GOMP_SPINCOUNT="7") == ["passive", "7"]
