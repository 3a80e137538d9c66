"""Files and folders that are replaced as a whole, never half-written, and whether there is room for them.

Whatever is killed at whatever moment, either the old or the new one is whole. What a killed process has left
half-written beside it is taken away by the next one that writes there.
"""

import contextlib
import ctypes
import glob
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give the name of a file to write; when the block ends well, that file takes the place of `path`."""
    with _part(path) as part:
        yield part
        with open(part, "r+b") as file:
            os.fsync(file.fileno())  # a name must not reach the disk before its data
        os.replace(part, path)


@contextlib.contextmanager
def new_files(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write files in; when the block ends well, they go to `folder`, one after the other.

    For a folder that holds other things too; where it does not, `new_folder` replaces all at once.
    """
    with _part(folder) as part:
        part.mkdir()
        yield part
        folder.mkdir(exist_ok=True)
        for path in sorted(part.iterdir()):
            os.replace(path, folder / path.name)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write in; when the block ends well, that folder takes the place of `folder`."""
    folder = Path(folder).resolve()
    old = folder.with_name(f".{folder.name}.old")
    _put_back(old, folder)  # in case an earlier process was killed between two renames
    with _part(folder) as part:
        part.mkdir()
        try:
            yield part
            if not folder.exists():
                part.rename(folder)
            elif not _exchange(part, folder):
                folder.rename(old)
                part.rename(folder)
        finally:
            _put_back(old, folder)


def _put_back(old: Path, folder: Path) -> None:
    """Give the old folder its name again, unless there is a new one: then the old one goes."""
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A free name beside `path` for what is not yet whole; whatever has that name in the end is taken away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        process = left.name.split(".")[-2]
        if not (process.isdigit() and psutil.pid_exists(int(process))) or process == str(os.getpid()):
            _remove(left)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
    finally:
        _remove(part)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # none there, or a disk that has become read-only
            path.unlink()


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders exchange their names in one step, of which there is no half; False where that is not to be had.

    Python has no function for it: renameat2(2) with RENAME_EXCHANGE on Linux, renamex_np(2) with RENAME_SWAP on macOS.
    """
    names, here = [os.fsencode(one), os.fsencode(other)], -100  # AT_FDCWD
    try:
        system = ctypes.CDLL(None)
        if sys.platform == "linux":
            return system.renameat2(here, names[0], here, names[1], 2) == 0
        return sys.platform == "darwin" and system.renamex_np(*names, 2) == 0
    except (AttributeError, OSError, TypeError):  # another system, or an older one
        return False


def require_room(folder: Path, remedy: str, size: int = 0) -> None:
    """Raise ValueError, with the remedy, unless `folder` (made if missing) can be written into and has `size` bytes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise ValueError(
            f"expected a folder that can be written into, got {folder} ({error.strerror}); {remedy}"
        ) from error
    if free < size:
        raise ValueError(
            f"expected {size / 1e6:.0f} MB of free disk for {folder}, got {free / 1e6:.0f} MB; free some, or {remedy}"
        )


@contextlib.contextmanager
def saying(path: Path, kept: str) -> Iterator[None]:
    """Add to the error of a full or read-only disk, while `path` is written, what is kept and how to go on."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        told = re.search(r"os error (\d+)", str(error))  # safetensors has no other way to tell
        number = getattr(error, "errno", None) or (int(told[1]) if told else None)
        reason = os.strerror(number) if number else str(error)
        raise OSError(number, f"{reason}; {kept}", str(path)) from error
