"""Pictures that remember how they were made: settings in a PNG, in the form of Stable Diffusion Web UI.

The text chunk `parameters` holds the prompt, a line `Negative prompt: ...` if there is one, and a last line
`Steps: 20, Sampler: UniPC, CFG scale: 4, Seed: 7, Size: 64x64, Model: picture_book`.

What else was given is written in Web UI's words too: `Denoising strength: 0.6`; with a mask `Mask blur: 0` (for the
rest it then takes what holds here: what is masked is painted, from what is there, in the whole picture);
`ControlNet 0: "Module: none, Model: control, ..."`; and after the prompt a tag `<lora:NAME:WEIGHT>` for each LoRA. Web
UI does not say which files they were; the course does, as `Init image`, `Mask image`, `Control image`, `LoRA 0`, ...
Another system than Stable Diffusion (see `systems`) is named, `System: dalle`; what it does not have is not written.
"""

import contextlib
import dataclasses
import json
import math
import numbers
import operator
import os
import re
import warnings
from pathlib import Path

# The course's names of samplers (diffusers' classes, shortened), and the names that Web UI gives them.
WEB_UI_SAMPLERS = {
    "unipc": "UniPC",
    "dpm++": "DPM++ 2M",
    "ddim": "DDIM",
    "euler": "Euler",
    "heun": "Heun",
    "ddpm": "DDPM",
    "pndm": "PLMS",
}
NEGATIVE = "Negative prompt:"
# One `key: value` of the last line: the value is a JSON string in quotes, or runs up to the next comma. Possessive
# repetitions (++, *+) never give back what they took, so that no text can make matching slow.
PARAMETER = re.compile(r'\s*+(\w[\w \-/]*+):\s*+("(?:\\.|[^"\\])*+"(?=,|$)|[^,]*+)')
NUMBER = r"(\d+(?:\.\d*)?(?:e-?\d+)?)"
WEIGHT = r"-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?"  # in prompts people write .8 too
# The tag of a LoRA in a prompt, with the blank before it. No text can make the search slow: a tag holds no other "<".
LORA_TAG = re.compile(r" ?<lora:([^<>]*+)>")
# What Web UI is told of a drawing: taken as it is, and heeded in full in every step.
CONTROLNET = (
    "Module: none, Model: control, Weight: 1.0, Resize Mode: Just Resize, Guidance Start: 0.0, Guidance End: 1.0, "
    "Control Mode: Balanced"
)
MOST_TEXT = 100_000  # characters of settings that are read; long prompts have a few thousand
MOST_PICTURES = 64  # in one run
MOST_CANDIDATES = 512  # for one picture, as DALL·E had
WITHOUT = {"dalle": {"Steps", "Sampler"}, "few-steps": {"Sampler"}}  # what systems do not have
MOST_SEED = 2**32 - 1
LONGEST_NAME = 60  # characters of a file named after its prompt
SHOWN = 60  # characters of a wrong value that a message shows
OTHER_FORMATS = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
FEWEST_PARAMETERS = 3  # Web UI takes a last line with fewer for a part of the prompt


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that is needed to draw a picture again.

    Blanks at the ends of the prompts' lines are dropped, because the PNG's text cannot hold them.
    `width` and `height` in pixels: None is the size the model is made for.
    `model` is the name of the model's folder.
    What was given beside the prompt (see `steering`): the names of the files `image`, `mask` and `control` ("": none),
    `strength`, how much of the image is drawn again (None: no image, or as usual), and `loras`, (file, weight) of each.
    `system` is a name of `systems.SYSTEMS`; `candidates`: the picture is the best of so many, by CLIP (dalle).
    `variation`, 0 to 1: how far the noise of `seed` is turned towards that of `variation_seed` (the studio does it).

    Raises ValueError if a prompt is not text, or has a line that begins with "Negative prompt:" or a LoRA's tag.
    """

    prompt: str
    negative_prompt: str = ""
    steps: int = 20
    sampler: str = "unipc"
    guidance: float = 4.0
    seed: int = 0
    width: int | None = None
    height: int | None = None
    model: str = ""
    strength: float | None = None
    image: str = ""
    mask: str = ""
    control: str = ""
    loras: tuple[tuple[str, float], ...] = ()
    system: str = "stable-diffusion"
    candidates: int = 1
    variation_seed: int = 0
    variation: float = 0.0

    def __post_init__(self):
        for field in ("prompt", "negative_prompt"):
            # A frozen dataclass lets its own constructor set a field only this way.
            object.__setattr__(self, field, _tidy(field.replace("_", " "), getattr(self, field)))
        tag = LORA_TAG.search(self.prompt)
        if tag is not None:
            raise ValueError(
                f"The prompt has {tag[0].strip()!r}, and PNG info keeps such tags for itself: give the LoRA's file "
                "separately (--lora)."
            )
        for field in ("model", "image", "mask", "control", "system"):
            object.__setattr__(self, field, _storable(getattr(self, field)))
        object.__setattr__(self, "loras", tuple((_storable(file), weight) for file, weight in self.loras))


def _storable(name) -> str:
    """The name of a file or folder, which need not be text that a PNG can hold, as such text."""
    return str(name).encode(errors="backslashreplace").decode()


def _tidy(name: str, text: str) -> str:
    """Return `text` without blanks at the ends of its lines; ValueError if a PNG could not give it back."""
    if not isinstance(text, str):
        raise ValueError(f"The {name} must be text, but is {text!r}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"The {name} is not valid Unicode text: {text!r}. Type it again.") from None
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    if any(line.startswith(NEGATIVE) for line in lines):
        raise ValueError(
            f"The {name} has a line that begins with {NEGATIVE!r}, which PNG info keeps for itself. "
            "Give the negative prompt separately."
        )
    return "\n".join(lines).strip()


def check_sampler(sampler: str) -> None:
    """Raise ValueError, with the names there are, if `sampler` is none of them."""
    if sampler not in WEB_UI_SAMPLERS:
        raise ValueError(f"There is no scheduler {sampler!r}: choose one of {', '.join(WEB_UI_SAMPLERS)}.")


def whole_number(name: str, value, lowest: int, highest: int) -> int:
    """Return `value` as an int; ValueError unless it is a whole number from `lowest` to `highest`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not lowest <= number <= highest:
        raise ValueError(f"{name} must be a whole number from {lowest} to {highest}, but is {value!r}.")
    return number


def check_settings(settings: Settings, count: int = 1) -> None:
    """Raise ValueError, in one sentence, for a value that no model can draw with (sizes: see `draw`)."""
    whole_number("The number of steps", settings.steps, 1, 1000)
    whole_number("The number of pictures", count, 1, MOST_PICTURES)
    whole_number("The number of candidates", settings.candidates, 1, MOST_CANDIDATES)
    whole_number("The seed", settings.seed, 0, MOST_SEED)
    if settings.seed + count - 1 > MOST_SEED:
        raise ValueError(
            f"Picture i uses seed + i, which must not exceed {MOST_SEED}: "
            f"with {count} pictures the seed can be {MOST_SEED - count + 1} at most, but is {settings.seed}."
        )
    whole_number("The variation seed", settings.variation_seed, 0, MOST_SEED)
    if not (_is_number(settings.variation) and 0 <= settings.variation <= 1):
        raise ValueError(
            "The variation strength must be a number from 0 (the seed's own noise) to 1 (the variation seed's), but is "
            f"{settings.variation!r}."
        )
    check_sampler(settings.sampler)
    guidance = settings.guidance
    # diffusers draws every guidance below 1 as if it were 1: refused, rather than drawn as something else.
    if not _is_number(guidance) or not (guidance == 0 or 1 <= guidance <= 50):  # nan is in neither
        raise ValueError(
            "The guidance must be a number from 1 (no guidance) to 50, or 0 (the prompt is ignored), "
            f"but is {guidance!r}."
        )
    if settings.strength is not None and not (_is_number(settings.strength) and 0 <= settings.strength <= 1):
        raise ValueError(
            f"The strength must be a number from 0 (keep the picture) to 1 (draw it all again), but is "
            f"{settings.strength!r}."
        )
    for file, weight in settings.loras:
        if not _is_number(weight) or not math.isfinite(weight):
            raise ValueError(f"The weight of the LoRA {file} must be a finite number, such as 0.8, but is {weight!r}.")


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def format_parameters(settings: Settings) -> str:
    """Return the text of the chunk `parameters`: prompt, negative prompt, and the line of settings."""
    sampling = {"Steps": settings.steps, "Sampler": WEB_UI_SAMPLERS.get(settings.sampler, settings.sampler)}
    values = {key: value for key, value in sampling.items() if key not in WITHOUT.get(settings.system, ())} | {
        "CFG scale": _digits(settings.guidance),
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
    }
    if settings.model:
        values["Model"] = settings.model
    if settings.system != Settings.system:
        values["System"] = settings.system
    if settings.candidates != Settings.candidates:
        values["Candidates"] = settings.candidates
    if settings.variation:
        values |= {"Variation seed": settings.variation_seed, "Variation seed strength": _digits(settings.variation)}
    if settings.strength is not None:
        values["Denoising strength"] = _digits(settings.strength)
    if settings.mask:
        values["Mask blur"] = 0
    if settings.control:
        values["ControlNet 0"] = CONTROLNET
    names = {"Init image": settings.image, "Mask image": settings.mask, "Control image": settings.control}
    names |= {f"LoRA {number}": file for number, (file, _) in enumerate(settings.loras)}
    values |= {key: name for key, name in names.items() if name}
    # in a tag there is no way to quote
    tags = [f"<lora:{re.sub(r'[:<>]', '_', Path(file).stem)}:{_digits(weight)}>" for file, weight in settings.loras]
    prompt = " ".join([settings.prompt] * bool(settings.prompt) + tags)
    lines = [prompt] if prompt else []
    if settings.negative_prompt:
        lines.append(f"{NEGATIVE} {settings.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quote(str(value))}" for key, value in values.items()))
    return "\n".join(lines)


def _digits(number) -> int | float:
    """The number with every digit it has; 4.0 is written as Web UI does, 4."""
    return int(number) if float(number).is_integer() else float(number)


def _quote(value: str) -> str:
    """Write a value that would end too soon (or begins with a quote or a blank) as a JSON string."""
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]|^\s|\s$', value) else value


def _unquote(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except json.JSONDecodeError:
        return value


def parse_parameters(text: str) -> Settings:
    """Return the settings in the text of a chunk `parameters`; unknown keys are ignored.

    A sampler that the course does not have keeps its name (drawing with it then says which there are).
    Raises ValueError if the line of settings is missing, or lacks a value, or has one that is no number.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"they are {len(text):,} characters long, and at most {MOST_TEXT:,} are read")
    *lines, last_line = text.strip().split("\n")
    pairs = _pairs(last_line)
    if len(pairs) < FEWEST_PARAMETERS:
        raise ValueError("it has no last line of the form 'Steps: 20, Sampler: UniPC, CFG scale: 4, ...'")
    values = {key.strip(): _unquote(value.strip()) for key, value in pairs}
    defaults = {"Steps": f"{Settings.steps}", "Sampler": Settings.sampler}
    values = {key: defaults[key] for key in WITHOUT.get(values.get("System", ""), ())} | values

    prompt: list[str] = []
    negative_prompt: list[str] = []
    target = prompt
    for line in lines:
        if line.strip().startswith(NEGATIVE):
            target, line = negative_prompt, line.strip().removeprefix(NEGATIVE)
        target.append(line.strip())

    text, loras = _without_loras("\n".join(prompt), values)

    size = _value(values, "Size", r"(\d{1,10})x(\d{1,10})", "of the form 64x64")
    sampler = _value(values, "Sampler", r"(.+)", "a name")[1]
    course_names = {name.lower(): key for key, name in WEB_UI_SAMPLERS.items()}
    return Settings(
        prompt=text,
        negative_prompt="\n".join(negative_prompt),
        steps=int(_value(values, "Steps", r"(\d{1,10})", "a whole number")[1]),
        sampler=course_names.get(sampler.lower(), sampler),
        guidance=float(_value(values, "CFG scale", NUMBER, "a number")[1]),
        seed=int(_value(values, "Seed", r"(\d{1,10})", "a whole number")[1]),
        width=int(size[1]),
        height=int(size[2]),
        model=values.get("Model", ""),
        strength=_strength(values),
        image=values.get("Init image", ""),
        mask=values.get("Mask image", ""),
        control=values.get("Control image", ""),
        loras=loras,
        system=values.get("System", Settings.system),
        candidates=int(_value({"Candidates": "1", **values}, "Candidates", r"(\d{1,10})", "a whole number")[1]),
        variation_seed=int(
            _value({"Variation seed": "0", **values}, "Variation seed", r"(\d{1,10})", "a whole number")[1]
        ),
        variation=float(
            _value({"Variation seed strength": "0", **values}, "Variation seed strength", NUMBER, "a number")[1]
        ),
    )


def _strength(values: dict[str, str]) -> float | None:
    """The denoising strength; None where it belongs to Web UI's second, larger drawing, which the course lacks."""
    if "Denoising strength" not in values or any(key.startswith("Hires") for key in values):
        return None
    return float(_value(values, "Denoising strength", NUMBER, "a number")[1])


def _without_loras(prompt: str, values: dict[str, str]) -> tuple[str, tuple[tuple[str, float], ...]]:
    """Return the prompt without its tags of LoRAs, and (file, weight) of each; the file is its name if none is kept.

    Web UI lets the weight be missing, which is 1, or be followed by others, which are passed over.
    """
    loras = []
    for number, tag in enumerate(LORA_TAG.findall(prompt)):
        name, weight = [*tag.split(":"), "1"][:2]
        if not re.fullmatch(WEIGHT, weight.strip(), re.ASCII):
            raise ValueError(f"its LoRA tag must be of the form <lora:NAME:WEIGHT>, but is {_shown(f'<lora:{tag}>')!r}")
        loras.append((values.get(f"LoRA {number}", name), float(weight)))
    return LORA_TAG.sub("", prompt), tuple(loras)


def _pairs(line: str) -> list[tuple[str, str]]:
    """The pairs `key: value` of a line, in one go; what is none is passed over up to the next comma."""
    pairs, start = [], 0
    while start < len(line):
        match = PARAMETER.match(line, start)
        if match is not None:
            key, value = match.groups()
            pairs.append((key, value))
        comma = line.find(",", start if match is None else match.end())
        start = len(line) if comma < 0 else comma + 1
    return pairs


def _value(values: dict[str, str], key: str, pattern: str, expected: str) -> re.Match:
    """Match the value of `key` with `pattern`; ValueError if it is missing or does not match."""
    if key not in values:
        raise ValueError(f"its line of settings has no {key!r}")
    match = re.fullmatch(pattern, values[key], re.ASCII)
    if match is None:
        raise ValueError(f"its {key!r} must be {expected}, but is {_shown(values[key])!r}")
    return match


def _shown(value: str) -> str:
    return value if len(value) <= SHOWN else value[:SHOWN] + "…"


def _part_name(path: Path) -> Path:
    """The temporary name next to `path`: one name a process, so that two do not write into one file."""
    return path.with_name(f".{path.stem}.{os.getpid()}.part")


def default_name(prompt: str) -> str:
    """A file name made of the prompt's words: "A cute corgi!" -> "a-cute-corgi.png"."""
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")
    return f"{words[:LONGEST_NAME].strip('-') or 'picture'}.png"


def output_paths(path: Path, count: int, force: bool) -> list[Path]:
    """Return `count` paths for pictures: `path` for a single one, NAME-1.png, NAME-2.png, ... for several.

    Names that are taken are passed over (a single picture then becomes NAME-2.png), unless `force`.
    Raises ValueError for another ending than .png.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it, such as {path / 'picture.png'}.")
    if path.suffix.lower() != ".png":
        if path.suffix.lower() in OTHER_FORMATS:
            raise ValueError(f"Pictures are written as PNG, which keeps settings: name it {path.stem}.png.")
        path = path.with_name(path.name + ".png")
    paths = [path] if count == 1 and (force or not os.path.lexists(path)) else []
    number = 2 if count == 1 else 1
    while len(paths) < count:
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        if force or not os.path.lexists(candidate):
            paths.append(candidate)
        number += 1
    return paths


def check_writable(path: Path | str) -> None:
    """Raise ValueError if no file can be written at `path`: to be said before drawing, not after."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it, such as {path / 'picture.png'}.")
    if not path.parent.is_dir():
        raise ValueError(f"The folder {path.parent} does not exist: make it first, or choose another.")
    try:
        with _part_name(path).open("wb"):
            pass
        _part_name(path).unlink()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{path} cannot be written ({reason}): choose another place or name.") from error


def write_png(path: Path | str, picture, settings: Settings) -> None:
    """Write a PIL picture as PNG that carries its settings; under a temporary name first, then renamed.

    The size written is the picture's own. Raises ValueError if `path` cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    path = Path(path)
    check_writable(path)
    info = PngInfo()
    settings = dataclasses.replace(settings, width=picture.width, height=picture.height)
    info.add_text("parameters", format_parameters(settings))
    part = _part_name(path)
    try:
        picture.save(part, format="PNG", pnginfo=info)
        os.replace(part, path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        with contextlib.suppress(OSError):  # after a success it is no longer there
            part.unlink()


def read_png(path: Path | str) -> Settings:
    """Return the settings that a PNG of this course, or of Stable Diffusion Web UI, carries.

    Raises ValueError, with the file's name, if it is not a PNG, or carries no settings or unclear ones.
    """
    from PIL import Image

    with clear_faults(path), Image.open(path) as picture:
        kind = picture.format
        if "parameters" not in picture.info and kind == "PNG":
            picture.load()  # text chunks may stand after the pixels
        text = picture.info.get("parameters")
    if kind != "PNG" or text is None:
        raise ValueError(
            f"{path} does not say how it was made: only PNGs written by this course or by Stable Diffusion "
            "Web UI have a text chunk 'parameters'; editing or sending a picture often removes it."
        )
    try:
        return parse_parameters(text)
    except ValueError as error:
        raise ValueError(f"The settings in {path} cannot be read: {error}.") from None


@contextlib.contextmanager
def clear_faults(path: Path | str):
    """Around the reading of a picture: each fault of the file becomes a ValueError that names it, in one sentence."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(
            f"{path} has too many pixels to be read safely: at most {Image.MAX_IMAGE_PIXELS:,} are."
        ) from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, SyntaxError, EOFError) as error:  # text that unpacks to megabytes, a broken chunk
        raise ValueError(f"{path} cannot be read ({error}).") from error
