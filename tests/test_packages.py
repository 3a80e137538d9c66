"""The files that say which packages the course needs agree with each other, and with course.py."""

import importlib.util
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def launcher():
    specification = importlib.util.spec_from_file_location("course_launcher", ROOT / "course.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def direct_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    return {requirement.name: requirement for requirement in map(Requirement, project["dependencies"] + extras)}


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", pin.name).lower(): pin for pin in found}


def test_every_direct_requirement_is_pinned_within_its_bounds():
    for name, requirement in direct_requirements().items():
        pin = pins()[name]
        version = str(pin.specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{pin} is outside {requirement}"
        assert pin.marker is None, f"{name} is not pinned everywhere"
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins().values())


def test_pip_refuses_on_intel_macs():
    torch = direct_requirements()["torch"]
    assert torch.marker is None  # else pip would go on, and install what cannot work
    assert not torch.specifier.contains("2.2.2")  # the last for Intel Macs
    assert pins()["torch"].marker is None


def test_conda_and_public_ci_use_the_same_packages_and_pythons():
    course = launcher()
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, packages = environment["dependencies"]
    assert packages["pip"] == [f"--extra-index-url {course.CPU_INDEX}", "-c constraints.txt", "-e ."]
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    matrix = workflow["jobs"]["pinned"]["strategy"]["matrix"]
    for version in [python.removeprefix("python="), *matrix["python"]]:
        assert course.OLDEST <= tuple(map(int, version.split("."))) <= course.NEWEST
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">={}.{}".format(*course.OLDEST)


def test_every_file_of_the_package_is_installed_with_it():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    package = ROOT / "course_utils"
    covered = {path for pattern in setuptools["package-data"]["course_utils"] for path in package.glob(pattern)}
    files = {path for path in package.rglob("*.*") if path.is_file() and "__pycache__" not in path.parts}
    left_out = {path for path in files - covered if path.suffix != ".py"}
    assert not left_out
    folders = {path.parent for path in files if path.suffix == ".py"}
    assert all((path / "__init__.py").exists() for path in folders)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
def test_ci_starts_the_tests():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "course.py test" in (ROOT / ".ci" / "run").read_text()
