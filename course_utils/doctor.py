"""What may be wrong with an installation, and what to do about each fault: `python3 course.py doctor`."""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHECKPOINTS = Path(__file__).parent / "checkpoints"
PACKAGES = [
    "torch", "diffusers", "transformers", "accelerate", "tokenizers", "safetensors", "numpy", "onnxruntime", "pillow",
    "scikit-image", "scikit-learn", "matplotlib", "jupyterlab", "nbclient", "ipywidgets", "typer",
]  # fmt: skip
LEAST_DISK = 2  # GiB: room for training checkpoints and executed notebooks


if Path(sys.prefix).resolve() == (ROOT / ".venv").resolve():
    REINSTALL = f"run `{'py' if os.name == 'nt' else 'python3'} course.py repair` in the course folder"
else:  # conda's, a hub's, or one made by hand
    REINSTALL = (
        f'run `"{sys.executable}" -m pip install --force-reinstall -c constraints.txt -e .` in the course folder'
    )


def examine(say: Callable[[str], None]) -> list[str]:
    """Say what is there, a line each; return the faults found, each a sentence with its remedy."""
    faults = []
    try:
        from course_utils.machine.devices import describe_machine

        say(describe_machine())
    except ValueError as error:  # a COURSE_DEVICE that is not there
        faults.append(str(error))
    except (ImportError, OSError) as error:  # torch raises OSError for a library that it cannot load
        faults.append(f"torch or a package that it needs does not work ({error}): {REINSTALL}.")
    versions, found = check_packages()
    faults += found
    say("Packages: " + ", ".join(versions))
    free = shutil.disk_usage(Path.cwd()).free / 1024**3
    say(f"Disk: {free:.1f} GiB free in {Path.cwd()}")
    if free < LEAST_DISK:
        faults.append(f"Less than {LEAST_DISK} GiB of disk are free: delete what is not needed.")
    found, extra = check_checkpoints(CHECKPOINTS)
    for name in extra:
        say(f"Note: {name} is not in the manifest; it does no harm.")
    return faults + found


def check_packages() -> tuple[list[str], list[str]]:
    """Return ("name version" of what is installed, faults): missing, or not as pinned in constraints.txt."""
    pinned_file = ROOT / "constraints.txt"
    lines = pinned_file.read_text(encoding="utf-8").splitlines() if pinned_file.is_file() else []
    pinned = dict(line.split("==") for line in lines if re.fullmatch(r"[\w.-]+==[\w.]+", line))
    versions, faults = [], []
    for name in PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            faults.append(f"{name} is not installed: {REINSTALL}.")
            continue
        versions.append(f"{name} {version}")
        wanted = pinned.get(name, version)
        if version.partition("+")[0] != wanted.partition("+")[0]:  # "+cpu" says how torch was built
            faults.append(f"{name} is {version}, tested is {wanted}: {REINSTALL}.")
    return versions, faults


def check_checkpoints(folder: Path) -> tuple[list[str], list[str]]:
    """Compare files with `folder/manifest.json`; return (faults: what is missing or changed, extra files)."""
    again = (
        f'run `git -C "{folder.parent.parent}" checkout HEAD -- course_utils/checkpoints`, or download the course again'
    )
    manifest = folder / "manifest.json"
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()}
        content["training"].items()
    except FileNotFoundError:
        return [f"{manifest} is missing: {again}."], []
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Deleted first, since git leaves a file alone that has the size and the time that it remembers.
        return [f"{manifest} is damaged: delete it, then {again}."], []
    faults = []
    for name, (size, sha256) in expected.items():
        path = folder / name
        if not path.exists():
            faults.append(f"{path} is missing: {again}.")
        elif not path.is_file() or path.stat().st_size != size or digest(path) != sha256:
            faults.append(f"{path} has changed since it was shipped: delete it, then {again}.")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return faults, sorted(there - set(expected) - {"manifest.json"})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
