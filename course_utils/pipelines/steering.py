"""Drawing with more than a prompt: a picture to start from, a mask, a line drawing to follow, LoRAs.

torch and diffusers take seconds to import, so what is given can be read and checked without them.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageOps

from course_utils.pipelines.model_folder import REMEDY
from course_utils.pipelines.picture_book import CHECKPOINTS, check_size, draw_in_turn, name_of, prepare
from course_utils.pipelines.png_info import Settings, check_settings, clear_faults

STRENGTH = 0.6  # of a picture without a mask; with one, the inside is drawn from nothing: 1
COLOURLESS = 32  # levels by which red, green and blue of a grey pixel may differ: JPEG is not exact


@dataclasses.dataclass(frozen=True)
class Given:
    """What is given beside a prompt, as PIL pictures of any mode of 8 bits: nothing, or

    - `image`, to be drawn again, and perhaps `mask`, as large: white = paint again, black = keep;
    - or `drawing`, of lines, to follow;
    - and `loras`, (file, weight) of each.

    Raises ValueError if they do not go together, and for a mask with nothing to paint or that is not black and white.
    """

    image: Image.Image | None = None
    mask: Image.Image | None = None
    drawing: Image.Image | None = None
    loras: Sequence[tuple[str, float]] = ()

    def __post_init__(self):
        for name in ("image", "mask", "drawing"):
            picture = getattr(self, name)
            if picture is not None and picture.mode[0] in "IF":  # whole or floating point numbers of 16 or 32 bits
                raise ValueError(f"The {name} has pixels of mode {picture.mode!r}: save it with 8 bits a channel.")
        if self.image is not None and self.drawing is not None:
            raise ValueError(
                "A drawing to follow (--control) and a picture to start from (--image) are not supported together: "
                "give one of them."
            )
        if self.mask is None:
            return
        if self.image is None:
            raise ValueError("A mask (--mask) says where a picture is painted again: give that picture too (--image).")
        if self.mask.size != self.image.size:
            raise ValueError(
                f"The mask is of {_by(*self.mask.size)} pixels, the picture of {_by(*self.image.size)}: make them "
                "equally large."
            )
        if painted(self.mask).getbbox() is None:
            raise ValueError("The mask has nothing to paint: make white what is to be painted again.")


def _by(width: int, height: int) -> str:
    return f"{width} x {height}"


def painted(mask: Image.Image) -> Image.Image:
    """Return a mask as it is used, of mode "L": 255 where it is at least half white, and 0 elsewhere.

    Raises ValueError if it has colours or transparent pixels, of which nobody can know what they mean.
    """
    if min(mask.convert("RGBA").getchannel("A").tobytes()) < 255:
        raise ValueError("The mask has transparent pixels: fill them, with white to paint again or black to keep.")
    red, green, blue = mask.convert("RGB").split()
    for one, other in ((red, green), (green, blue), (red, blue)):
        if max(ImageChops.difference(one, other).tobytes()) > COLOURLESS:
            raise ValueError("The mask has colours: make it white to paint again and black to keep.")
    return mask.convert("L").point(lambda level: 255 * (level >= 128))


def read_given(settings: Settings) -> Given:
    """Read the files that the settings name: those of a command, or those that `read_png` found in a picture.

    Raises ValueError, in one sentence, if a file is missing or no picture, and as `Given` does.
    """
    for file, _ in settings.loras:
        if not file.endswith(".safetensors"):
            raise ValueError(f"A LoRA is a file that ends in .safetensors, but {file!r} does not: give its path.")
        if not Path(file).is_file():
            raise ValueError(f"There is no LoRA file {file}: look for its name and folder.")
    image, mask, drawing = (_read_picture(name) for name in (settings.image, settings.mask, settings.control))
    return Given(image, mask, drawing, settings.loras)


def _read_picture(name: str) -> Image.Image | None:
    """The picture in a file, turned as the camera was held; None if no file is named."""
    if not name:
        return None
    with clear_faults(name), Image.open(name) as picture:
        return ImageOps.exif_transpose(picture)


def parse_lora(text: str) -> tuple[str, float]:
    """Return (file, weight) of FILE or FILE:WEIGHT, weight 1 if there is none; ValueError for another form."""
    match = re.fullmatch(r"(.+?\.safetensors)(?::(.*))?", text, re.DOTALL)
    if match is None:
        raise ValueError(f"A LoRA is given as FILE.safetensors or FILE.safetensors:WEIGHT, but got {text!r}.")
    try:
        return match[1], 1.0 if match[2] is None else float(match[2])
    except ValueError:
        raise ValueError(
            f"The weight of the LoRA {match[1]} must be a number, such as 0.8, but is {match[2]!r}."
        ) from None


def complete(settings: Settings, given: Given, unet_config, vae_config) -> Settings:
    """Return the settings with the size and the strength that are drawn with, and the names of what is given only.

    The size is that of the picture to start from. Raises ValueError if it or the strength cannot be drawn with, or if
    the drawing to follow is of other proportions.
    """
    check_settings(settings)
    width, height, strength = settings.width, settings.height, settings.strength
    if given.image is None:
        width, height = check_size(unet_config, vae_config, width, height)
        if strength is not None:
            raise ValueError(
                "A strength (--strength) says how much of a picture is drawn again: give that picture too (--image)."
            )
    else:
        if width not in (None, given.image.width) or height not in (None, given.image.height):
            raise ValueError(
                f"The size is that of the picture to start from, {_by(*given.image.size)} pixels: leave it out "
                "(--size), or resize the picture."
            )
        width, height = _size_to_redraw(given.image, unet_config, vae_config)
        strength = (STRENGTH if given.mask is None else 1.0) if strength is None else strength
        if int(settings.steps * strength) < 1:
            raise ValueError(
                f"The strength {strength:g} leaves none of {settings.steps} steps: choose a higher one, or more steps."
            )
    if given.drawing is not None and round(given.drawing.width * height / given.drawing.height) != width:
        raise ValueError(
            f"The drawing is of {_by(*given.drawing.size)} pixels, the page of {_by(width, height)}: crop it to the "
            "same proportions."
        )
    return dataclasses.replace(
        settings,
        width=width,
        height=height,
        strength=strength,
        image=settings.image if given.image is not None else "",
        mask=settings.mask if given.mask is not None else "",
        control=settings.control if given.drawing is not None else "",
        loras=tuple(given.loras),
    )


def _size_to_redraw(picture: Image.Image, unet_config, vae_config) -> tuple[int, int]:
    try:
        return check_size(unet_config, vae_config, *picture.size)
    except ValueError as error:
        reason = str(error)
        raise ValueError(
            f"Resize the picture, which is of {_by(*picture.size)} pixels: {reason[0].lower()}{reason[1:]}"
        ) from None


def control_folder(model: Path) -> Path:
    """The folder of the ControlNet that was trained with the model in this folder: `control`, beside it.

    Raises ValueError, which says what to do, if there is none.
    """
    folder = model.parent / "control"
    if not (folder / "config.json").is_file():
        train = f"train it with `python3 course.py train control --folder {folder.parent}`"
        raise ValueError(
            f"There is no ControlNet in {folder}: {REMEDY if folder.parent.resolve() == CHECKPOINTS else train}."
        )
    return folder


def draw_given(pipe, settings: Settings, given: Given | None = None, count: int = 1, on_step=None) -> list:
    """Draw `count` pictures; return a list of (PIL picture, Settings), the settings complete for each.

    See `draw_given_in_turn`, which hands out each picture as soon as it is drawn.
    """
    return list(draw_given_in_turn(pipe, settings, given, count, on_step))


def draw_given_in_turn(
    pipe, settings: Settings, given: Given | None = None, count: int = 1, on_step=None
) -> Iterator[tuple]:
    """Yield (PIL picture, Settings) for each of `count` pictures, as `picture_book.draw_in_turn` does for a prompt.

    given: None for the files that the settings name. With a picture: picture to picture, or, with a mask, only what it
    has white is drawn again, and the rest stays as it was, bit for bit. With a drawing: by the ControlNet beside the
    model. LoRAs are in the U-Net until the last picture is drawn; then the pipeline is as it was.

    Raises ValueError, before anything is drawn, for what cannot be drawn with, and for a LoRA of another model.
    """
    given = read_given(settings) if given is None else given
    settings = complete(settings, given, pipe.unet.config, pipe.vae.config)
    plain = dataclasses.replace(settings, strength=None, image="", mask="", control="", loras=())
    with with_loras(pipe.unet, given.loras):
        if given.image is not None:
            drawn = _redraw_in_turn(pipe, plain, settings.strength, given.image, given.mask, count, on_step)
        elif given.drawing is not None:
            drawn = _follow_in_turn(pipe, plain, given.drawing, count, on_step)
        else:
            drawn = draw_in_turn(pipe, plain, count, on_step)
        for picture, made in drawn:
            yield picture, dataclasses.replace(settings, seed=made.seed, model=made.model)


@contextlib.contextmanager
def with_loras(unet, loras: Sequence[tuple[str, float]]):
    """Add LoRAs to the U-Net; afterwards its layers are those that it had, and as trainable as they were."""
    from course_utils.models.lora import load_lora

    trained = {name: parameter.requires_grad for name, parameter in unet.named_parameters()}
    added = []
    try:
        for file, weight in loras:
            added.append(load_lora(unet, file, weight))
        yield
    finally:
        for layers in added:
            names = {module: name for name, module in unet.named_modules()}
            for layer in layers:
                unet.set_submodule(names[layer], layer.base)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(trained[name])


def _redraw_in_turn(
    pipe, settings: Settings, strength, image: Image.Image, mask: Image.Image | None, count: int, on_step
) -> Iterator[tuple]:
    import torch

    from course_utils.data.images import to_pil, to_tensor
    from course_utils.pipelines.editing import inpaint, picture_to_picture

    scheduler, batches = prepare(pipe, settings, count)
    picture = to_tensor(image)
    inside = None if mask is None else (to_tensor(painted(mask))[:, :1] + 1) / 2  # (1, 1, height, width)
    for index, batch in enumerate(batches):
        generators = [torch.Generator("cpu").manual_seed(made.seed) for made in batch]
        pictures = picture.expand(len(batch), -1, -1, -1)
        how = {
            "negative_prompt": settings.negative_prompt,
            "guidance": float(settings.guidance),
            "steps": settings.steps,
            "scheduler": scheduler,
            "on_step": _count_on(on_step, index, len(batches)),
        }
        if inside is None:
            drawn = picture_to_picture(pipe, pictures, settings.prompt, strength, generators, **how)
        else:
            drawn = inpaint(pipe, pictures, inside, settings.prompt, generators, strength, **how)
        yield from zip(to_pil(drawn), batch, strict=True)


def _count_on(on_step, batch: int, batches: int):
    """Count the steps of all batches for `on_step(done, total)`."""
    return on_step and (lambda done, total: on_step(batch * total + done, batches * total))


def _follow_in_turn(pipe, settings: Settings, drawing: Image.Image, count: int, on_step) -> Iterator[tuple]:
    from course_utils.pipelines.control import CONTROL, as_drawing, load_control

    home = name_of(pipe)
    steered = load_control(pipe, control_folder(home) if home.name else CONTROL)
    settings = dataclasses.replace(settings, model=settings.model or home.name)
    width, height = check_size(pipe.unet.config, pipe.vae.config, settings.width, settings.height)
    lines = as_drawing(drawing, width, height).to(pipe.device)
    return draw_in_turn(steered, settings, count, on_step, image=lines)
