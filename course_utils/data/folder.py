"""A learner's own folder of pictures, in place of the built-in data.

Captions, where they are needed, stand in a file `metadata.jsonl` beside the pictures, one JSON object a
line, as in the image folders of Hugging Face `datasets`:

    {"file_name": "rex.jpg", "text": "a brown dog on the sofa"}
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps

from course_utils.data.images import as_rgb, crop_and_resize, require_size, to_tensor

# Only these decoders are tried, whatever a file calls itself: some others would start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"),
    *(".heic", ".heif"),  # a telephone's format, which PIL cannot read: named as skipped, not passed over
)
METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class FolderPictures:
    """The pictures of a folder, in the alphabetical order of their paths inside it.

    pictures: (n, 3, size, size), float32 in [-1, 1].
    captions: n strings, or None where the folder has no `metadata.jsonl`.
    names: n paths inside the folder, as "cats/tom.png" on every system.
    skipped: (name, reason) of each picture that was left out.
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
    safe, and, where there is a `metadata.jsonl`, pictures without a caption and captions without a picture.

    Raises ValueError if the size is below 1, if the folder is missing, is a file or has no readable
    picture, and, with the line's number, if a line of `metadata.jsonl` is not as shown above in this module.
    """
    require_size(size)
    root = Path(folder).expanduser()
    if not root.is_dir():
        problem = "it is a file" if root.exists() else "there is nothing of that name"
        raise ValueError(f"Expected a folder of pictures, got {root}: {problem}. Looked in {Path.cwd()}.")
    found = _visible_files(root)
    captions = _read_captions(root, [name for name in found if Path(name).name == METADATA])
    pictures, names, skipped = [], [], []
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
            skipped.append((name, _reason(name, error)))
    missing = set(captions or ()) - set(names) - {name for name, _ in skipped}
    skipped += [(name, f"named in {METADATA}, but not found") for name in sorted(missing)]
    if not pictures:
        raise ValueError(
            f"Expected pictures ({' '.join(SUFFIXES)}) in {root} or its sub-folders, found none that can be "
            f"used. {_summary(0, root, skipped)}"
        )
    print(_summary(len(pictures), root, skipped))
    chosen_captions = None if captions is None else [captions[name] for name in names]
    return FolderPictures(to_tensor(pictures), chosen_captions, names, skipped)


def _visible_files(root: Path) -> list[str]:
    """Return the paths inside `root`, sorted, without hidden ones and without what macOS adds to archives."""
    names = []
    for path in root.rglob("*"):
        inside = path.relative_to(root)
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in inside.parts)
        if path.is_file() and not hidden:
            names.append(inside.as_posix())
    return sorted(names)


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


def _read_captions(root: Path, files: list[str]) -> dict[str, str] | None:
    """Return the caption of each named picture, by its path inside `root`; None if there is no file."""
    if not files:
        return None
    captions = {}
    for file in files:
        path = root / file
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # Windows editors may add a signature
        except UnicodeDecodeError as error:
            raise ValueError(f"Expected {path} in UTF-8, got other bytes: save it again as UTF-8.") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                file_name, text = _parse_line(line, f"{path}, line {number}")
                name = (Path(file).parent / file_name).as_posix()
                if name in captions:
                    raise ValueError(f"{path}, line {number}: a second caption for {file_name}. Keep one.")
                captions[name] = text
    return captions


def _parse_line(line: str, where: str) -> tuple[str, str]:
    """Return (file_name, text) of one line of `metadata.jsonl`."""
    example = '{"file_name": "rex.jpg", "text": "a brown dog on the sofa"}'
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: expected an object like {example}, got {line!r} ({error}).") from error
    fields = [entry.get(key) for key in ("file_name", "text")] if isinstance(entry, dict) else [None]
    if not all(isinstance(field, str) and field.strip() for field in fields):
        raise ValueError(f"{where}: expected two texts, file_name and text, like {example}, got {line!r}.")
    return str(fields[0]), str(fields[1])


def _summary(number: int, root: Path, skipped: list[tuple[str, str]]) -> str:
    """Return the one line that is printed: how many were read, and the first few that were not."""
    line = f"Pictures read from {root}: {number}. Skipped: {len(skipped)}"
    reasons = [f"{name} ({reason})" for name, reason in skipped[:3]]
    more = [f"and {len(skipped) - 3} more"] if len(skipped) > 3 else []
    return line + (": " + "; ".join(reasons + more) if skipped else "") + "."
