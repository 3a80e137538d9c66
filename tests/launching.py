"""For tests of course.py: its module, and mock-ups of a course folder and of an environment. Nothing is installed."""

import importlib.util
import re
import shutil
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def load_course():
    """A new course.py, whose functions a test may replace."""
    specification = importlib.util.spec_from_file_location("course_launcher", ROOT / "course.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def course_folder(parent):
    """A course folder, with a space in its name and no environment yet."""
    folder = parent / "my course"
    folder.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def site_packages(folder):
    base = str(folder / ".venv")
    return Path(sysconfig.get_path("purelib", "venv", {"base": base, "platbase": base}))


def add_packages(course, folder):
    """Put into `.venv` a Python, and of each package what tells that it is installed."""
    course.venv_python(folder).parent.mkdir(parents=True, exist_ok=True)
    course.venv_python(folder).touch()
    for requirement in [*course.read_requirements(folder)[0], "course-utils"]:
        name = re.match(r"[\w-]+", requirement).group().replace("-", "_")
        information = site_packages(folder) / f"{name}-1.0.dist-info"
        information.mkdir(parents=True, exist_ok=True)
        (information / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
        (information / "RECORD").write_text(f"{name}/__init__.py,,\n{name}/a/__init__.py,,\n")
        (site_packages(folder) / name).mkdir(exist_ok=True)
        (site_packages(folder) / name / "__init__.py").touch()


def make_fresh(course, folder):
    """Leave what a finished set-up leaves."""
    add_packages(course, folder)
    course.write_stamp(folder, course.wanted_stamp(folder, unpinned=False))


def replace_installation(course, monkeypatch):
    """Let set_up make its environment as `add_packages` does; returns the list of the steps it takes."""
    steps = []

    def make_venv(folder, lock):
        steps.append("make")
        add_packages(course, folder)

    monkeypatch.setattr(course, "make_venv", make_venv)
    monkeypatch.setattr(course, "install_packages", lambda folder, lock, unpinned: steps.append("install"))
    monkeypatch.setattr(course, "describe_machine", lambda folder, remedy: "a machine")
    return steps


def is_one_sentence(text):
    return text.endswith(".") and "\n" not in text and "Traceback" not in text
