"""A learner's own folder of pictures, in place of the built-in data.

Captions, where they are needed, stand in a file `metadata.jsonl` beside the pictures, one JSON object a
line, as in the image folders of Hugging Face `datasets`:

    {"file_name": "rex.jpg", "text": "a brown dog on the sofa"}
"""

import json
import os
import posixpath
import re
import unicodedata
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from course_utils.data.images import as_rgb, crop_and_resize, require_size, to_tensor
from course_utils.language import translated

# Only these decoders are tried, whatever a file calls itself: some others would start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"),
    *(".heic", ".heif"),  # a telephone's format, which PIL cannot read: named as skipped, not passed over
)
METADATA = "metadata.jsonl"
CAPTION_SUFFIXES = (".txt", ".caption", ".json")  # other programs put a picture's caption beside it, in rex.txt
LIKE_METADATA = re.compile(r"(metadata|captions?)(\.\w+)*", re.IGNORECASE)
NO_TEXT = "\ud800-\udfff"  # half a surrogate pair: what stands for a byte of a name that is not text
UNPRINTABLE = re.compile(f"[\x00-\x1f\x7f{NO_TEXT}]")


@dataclass(frozen=True)
class FolderPictures:
    """The pictures of a folder, in the alphabetical order of their paths inside it.

    pictures: (n, 3, size, size), float32 in [-1, 1].
    captions: n strings, or None where the folder has no `metadata.jsonl`.
    names: n paths inside the folder, as "cats/tom.png" on every system; what cannot be printed is escaped.
    skipped: (name, reason) of each picture and sub-folder that was left out.
    """

    pictures: torch.Tensor
    captions: list[str] | None
    names: list[str]
    skipped: list[tuple[str, str]]


def load(folder: str | Path, size: int = 64) -> FolderPictures:
    """Read every picture in a folder and its sub-folders; print one line that says how many.

    Each picture is turned as its EXIF note says, put on white where transparent, cut to the square at its
    centre and resized. Of an animation the first frame is taken. Hidden files and what is not a picture
    are passed over. Skipped, with a reason, are damaged files, pictures of more pixels than PIL thinks
    safe, sub-folders that cannot be opened or are links, and, where there is a `metadata.jsonl`, pictures
    without a caption and captions without a picture. Named in the line are also files that look like
    captions, such as `metadata.csv`, and are not used.

    Raises ValueError if the size is below 1, if the folder is missing, is a file or has no readable
    picture, if `metadata.jsonl` cannot be read, and, with the line's number, if a line of it is not as shown
    above in this module.
    """
    require_size(size)
    root = Path(os.path.expanduser(folder))
    problem = _problem(root)
    if problem:
        raise ValueError(f"Expected a folder of pictures, got {_shown(root)}: {problem}. Looked in {Path.cwd()}.")
    found, skipped = _visible_files(root)
    captions = _read_captions(root, found)
    pictures, names = [], []
    for name in found:
        if not name.lower().endswith(SUFFIXES):
            continue
        if captions is not None and name not in captions:
            skipped.append((name, f"no caption in {METADATA}"))
            continue
        try:
            pictures.append(_read_picture(root / name, size))
            names.append(name)
        except Exception as error:  # decoders of damaged files raise almost anything
            skipped.append((name, translated(_reason(name, error))))
    missing = set(captions or ()) - set(names) - {name for name, _ in skipped}
    skipped += [(name, translated(f"named in {METADATA}, but not found")) for name in sorted(missing)]
    skipped = [(_shown(name), reason) for name, reason in skipped]
    summary = _summary(len(pictures), root, skipped, _unused_captions(found))
    if not pictures:
        raise ValueError(
            f"Expected pictures ({' '.join(SUFFIXES)}) in {_shown(root)} or its sub-folders, found none that can be "
            f"used. {summary}"
        )
    print(summary)
    chosen_captions = None if captions is None else [captions[name] for name in names]
    return FolderPictures(to_tensor(pictures), chosen_captions, [_shown(name) for name in names], skipped)


def _problem(root: Path) -> str | None:
    """Return why `root` is no folder that can be looked into, or None."""
    try:
        os.stat(root)
    except (FileNotFoundError, NotADirectoryError):
        return "there is nothing of that name"
    except (OSError, ValueError) as error:  # a closed folder above it; a name that no file can have
        return getattr(error, "strerror", None) or str(error)
    return None if root.is_dir() else "it is a file"


def _visible_files(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the paths inside `root`, sorted, without hidden ones and without what macOS adds to archives.

    Also returns (name, reason) of each sub-folder, and of each picture's name, that leads to no file.
    """
    names, skipped = [], []

    def cannot_open(error: OSError) -> None:
        skipped.append((Path(error.filename).relative_to(root).as_posix(), f"cannot be opened: {error.strerror}"))

    for folder, folders, files in os.walk(root, onerror=cannot_open):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        inside = Path(folder).relative_to(root)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        skipped += [((inside / name).as_posix(), "a link to a folder, not followed") for name in links]
        for name in files:
            path = (inside / name).as_posix()
            if _is_hidden(name):
                continue
            if os.path.isfile(os.path.join(folder, name)):
                names.append(path)
            elif name.lower().endswith(SUFFIXES):
                skipped.append((path, "no file: a link to nothing, or a pipe"))
    return sorted(names), sorted(skipped)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _read_picture(path: Path, size: int) -> Image.Image:
    """Return one picture, upright, square, in RGB."""
    Image.init()  # fills Image.OPEN: not every build of PIL knows every format
    formats = [name for name in FORMATS if name in Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd but readable files are not the learner's concern
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=formats) as picture:
            if picture.format == "JPEG":
                picture.draft(None, (2 * size, 2 * size))  # decodes a large photograph many times faster
            return crop_and_resize(as_rgb(ImageOps.exif_transpose(picture)), size)


def _reason(name: str, error: Exception) -> str:
    if name.lower().endswith((".heic", ".heif")):
        return "HEIC cannot be read here: save it as JPEG"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels: save it smaller"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture, or damaged at its beginning"
    return f"cannot be read: {error}"


def _read_captions(root: Path, found: list[str]) -> dict[str, str] | None:
    """Return the caption of each named picture, by its path inside `root`; None if there is no file of captions."""
    files = [name for name in found if Path(name).name == METADATA]
    if not files:
        return None
    known = set(found)
    by_spelling: dict[str, list[str]] = {}
    for name in found:
        by_spelling.setdefault(_spelling(name), []).append(name)
    captions = {}
    for file in files:
        path = root / file
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # Windows editors may add a signature
        except UnicodeDecodeError as error:
            raise ValueError(f"Expected {_shown(path)} in UTF-8, got other bytes: save it again as UTF-8.") from error
        except OSError as error:
            raise ValueError(
                f"Expected captions in {_shown(path)}, but it cannot be read ({error.strerror}): make it readable, or "
                "move it out of the folder."
            ) from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{_shown(path)}, line {number}"
                file_name, text = _parse_line(line, where)
                name = (Path(file).parent / file_name).as_posix()
                if name not in known:
                    alike = by_spelling.get(_spelling(name), [])
                    name = alike[0] if len(alike) == 1 else name
                if name in captions:
                    raise ValueError(f"{where}: a second caption for {_shown(file_name)}. Keep one.")
                captions[name] = text
    return captions


def _spelling(name: str) -> str:
    """Return what two spellings of one path have in common: Windows' backslashes, macOS' decomposed accents."""
    return unicodedata.normalize("NFC", posixpath.normpath(name.replace("\\", "/")))


def _unused_captions(found: list[str]) -> list[str]:
    """Return the files that look like captions in a form or under a name that is not read."""
    pictures = {str(Path(name).with_suffix("")) for name in found if name.lower().endswith(SUFFIXES)}
    beside = [
        name
        for name in found
        if name.lower().endswith(CAPTION_SUFFIXES) and str(Path(name).with_suffix("")) in pictures
    ]
    alike = [name for name in found if LIKE_METADATA.fullmatch(Path(name).name) and Path(name).name != METADATA]
    return sorted({*beside, *alike} - {name for name in found if name.lower().endswith(SUFFIXES)})


def _parse_line(line: str, where: str) -> tuple[str, str]:
    """Return (file_name, text) of one line of `metadata.jsonl`."""
    example = '{"file_name": "rex.jpg", "text": "a brown dog on the sofa"}'
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: expected an object like {example}, got {line!r} ({error}).") from error
    fields: list[Any] = [entry.get(key) for key in ("file_name", "text")] if isinstance(entry, dict) else [None]
    if not all(isinstance(field, str) and field.strip() for field in fields):
        raise ValueError(f"{where}: expected two texts, file_name and text, like {example}, got {line!r}.")
    if re.search(f"[{NO_TEXT}]", fields[1]):
        raise ValueError(f"{where}: half a character, which cannot be printed, in the caption {_shown(fields[1])}.")
    return fields[0], fields[1]


def _summary(number: int, root: Path, skipped: list[tuple[str, str]], unused: list[str]) -> str:
    """Return the one line that is printed: how many were read, and the first few that were not."""
    line = f"Pictures read from {_shown(root)}: {number}. Skipped: 0."
    if skipped:
        which = _first_few([f"{name} ({reason})" for name, reason in skipped])
        line = f"Pictures read from {_shown(root)}: {number}. Skipped: {len(skipped)}: {which}."
    lines = [line]
    if unused:
        names = _first_few(map(_shown, unused))
        lines.append(f"Not used: {names}; captions are read only from files named exactly {METADATA}.")
    return " ".join(map(translated, lines))


def _first_few(items) -> str:
    items = list(items)
    return "; ".join(items[:3] + ([f"and {len(items) - 3} more"] if len(items) > 3 else []))


def _shown(text: str | Path) -> str:
    """Return a name as it can be printed, on one line: bytes that are not text, and line ends, are escaped."""
    return UNPRINTABLE.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), str(text))
