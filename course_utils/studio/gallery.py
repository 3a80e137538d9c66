"""The folder in which the studio keeps all that it draws, and what was given for it; nothing is ever overwritten."""

import contextlib
import hashlib
import io
import os
import re
from pathlib import Path

from PIL import Image

from course_utils.files import new_file, require_room
from course_utils.pipelines.png_info import Settings, default_name, read_png, write_png

GIVEN = "given"  # the folder inside for pictures, masks and drawings that were given
NUMBER = re.compile(r"(\d+)-.*\.png")


class Gallery:
    """Pictures in a folder, newest last: 00001-a-red-ball.png, ... Several studios may share one.

    Raises ValueError if the folder cannot be written into.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder).resolve()
        require_room(self.folder, "choose another folder for the gallery (--folder)")

    def keep(self, picture: Image.Image, settings: Settings, words: str | None = None) -> Path:
        """Write a picture with its settings under a name that nobody has; return its path.

        words: what the name is made of; None: the prompt.
        """
        path = self._reserve(words if words is not None else settings.prompt)
        try:
            write_png(path, picture, settings)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()  # an empty file is no picture
            raise
        return path

    def _reserve(self, words: str) -> Path:
        """Make an empty file with the next free number: making it is what two studios cannot do both."""
        taken = [int(match[1]) for path in self.folder.glob("*.png") if (match := NUMBER.fullmatch(path.name))]
        number = max(taken, default=0) + 1
        while True:
            path = self.folder / f"{number:05d}-{default_name(words)}"
            lock = self.folder / f".{number:05d}"  # of the number: names differ where prompts do
            try:
                os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                number += 1
                continue
            try:
                if not any(self.folder.glob(f"{number:05d}-*.png")):
                    path.touch(exist_ok=False)
                    return path
            finally:
                lock.unlink()
            number += 1

    def keep_given(self, picture: Image.Image | None, kind: str) -> str:
        """Keep what a drawing starts from, so that its settings can name the file; return its path, "" for nothing.

        The same pixels are kept once: the name is made of them.
        """
        if picture is None:
            return ""
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        path = self.folder / GIVEN / f"{kind}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.png"
        if not path.exists():
            with new_file(path) as part:
                part.write_bytes(buffer.getvalue())
        return str(path)

    def paths(self, most: int | None = None) -> list[Path]:
        """The pictures, newest first; those that are just being written are left out."""
        found = [path for path in self.folder.glob("*.png") if NUMBER.fullmatch(path.name) and path.stat().st_size]
        return sorted(found, reverse=True)[:most]

    def settings(self, path: Path) -> Settings:
        """The settings of one of its pictures; ValueError if it carries none."""
        return read_png(path)
