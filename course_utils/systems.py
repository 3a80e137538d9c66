"""The course's text-to-image systems side by side: what each is made of, how it is loaded and how it draws.

    stable-diffusion    prompt -> U-Net on latents -> picture                    pipelines/picture_book.py
    dalle               prompt -> transformer -> codes -> picture                pipelines/dalle.py
    unclip              prompt -> prior -> CLIP's embedding -> U-Net -> picture  pipelines/unclip.py
    few-steps           the first, distilled: four, two or one evaluations       pipelines/few_steps.py
    mine                prompt -> planner -> plan -> painter -> picture          pipelines/mine.py

The last comes with no weights: `train mine` makes them.

torch and the libraries take seconds to import, so only what loads and draws imports them; `prepare` does not.
"""

import copy
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils.pipelines.model_folder import REMEDY, read_configurations
from course_utils.pipelines.picture_book import CHECKPOINTS, PICTURE_BOOK
from course_utils.pipelines.png_info import Settings, check_settings

if TYPE_CHECKING:  # named in hints only: importing torch takes seconds
    import torch

    from course_utils.pipelines.steering import Given

SIDE = 64  # pixels of a page
BATCH = 4  # pictures that `draw_in_turn` draws at once; less is lost when it is stopped than with more
# Options of `generate` that not every system has, and the settings that keep them; --size keeps two.
FIELDS = {
    "steps": "steps", "scheduler": "sampler", "negative": "negative_prompt", "image": "image", "strength": "strength",
    "mask": "mask", "lora": "loras", "control": "control", "candidates": "candidates",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class System:
    """A row of the table of systems.

    options: those of `FIELDS`, and "size", that it has. guidance: its own, where none is given. folder: that of the
    shipped one, or where it is looked for; files: what must be in it; remedy: what to do where they are not. trained:
    the parts that it needs to draw, as `recipes.PARTS` names them.
    steps: the only numbers of steps that it can draw in, the usual first, with its own guidance; (): as many as wanted.
    load(folder, device) -> (parts, tokenizer). draw(parts, prompts, seed, guidance, **how) -> pictures (n, 3, 64, 64)
    in [-1, 1], see `Loaded.draw`.
    """

    options: frozenset[str]
    guidance: float
    folder: Path
    files: tuple[str, ...]
    trained: tuple[str, ...]
    load: Callable[..., tuple[Any, Any]]
    draw: Callable[..., "torch.Tensor"]
    steps: tuple[int, ...] = ()
    remedy: str = REMEDY


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A system that is ready to draw: its name, the folder it came from, its parts, the tokenizer of its prompts."""

    name: str
    folder: Path
    parts: Any
    tokenizer: Any

    def draw(self, prompts: Sequence[str], seed: int = 0, guidance: float | None = None, **how: Any) -> "torch.Tensor":
        """Draw a picture for each prompt, all at once: (n, 3, 64, 64) in [-1, 1], on the CPU.

        Picture i has the seed `seed + i`, and does not depend on the others but for rounding. guidance: None is the
        system's own. how: `steps` (few-steps: 4, 2 or 1) and `sampler` (stable-diffusion, unclip); `candidates`
        (dalle): so many are drawn for each prompt, N for seed s with the seeds s N to s N + N - 1, and the one that
        CLIP finds nearest is kept.
        """
        system = SYSTEMS[self.name]
        guidance = system.guidance if guidance is None else float(guidance)
        return system.draw(self.parts, list(prompts), seed, guidance, **how).cpu()


def load(name: str, folder: Path | str | None = None, device=None) -> Loaded:
    """Load a system from its folder, such as `runs/dalle` (None: the shipped one), on the device (None: the CPU).

    The parts that it shares with others are those beside the folder; the shipped ones where there are none.
    Raises ValueError, in one sentence, for an unknown system, and if a part is missing or cannot be read.
    """
    system = find(name)
    home = system.folder if folder is None else Path(folder)
    return Loaded(name, home, *system.load(home, device))


def load_quick(folder: Path | str | None = None) -> Loaded:
    """Load the shipped stable-diffusion without torch, for `draw_in_turn` of what `quick.can_draw` says, and no more.

    Whatever it raises, `load` may do better.
    """
    from course_utils.pipelines.quick import load_quick

    name = Settings.system
    home = find(name).folder if folder is None else Path(folder)
    model = load_quick(home)
    return Loaded(name, home, model, model.tokenizer)


def find(name: str) -> System:
    """Return the system of that name; ValueError, with the names there are, if there is none."""
    if name not in SYSTEMS:
        raise ValueError(f"There is no system {name!r}: choose one of {', '.join(SYSTEMS)}.")
    return SYSTEMS[name]


def found_in(folder: Path | None) -> str:
    """Return the system that a model folder is of by its model_index.json: mine, or else the usual one."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8")) if folder else {}
        return "mine" if index.get("_class_name") == "PlannedPipeline" else Settings.system
    except (OSError, ValueError, AttributeError):  # what is wrong with it is said by who loads it
        return Settings.system


def refuse(name: str, options: Iterable[str]) -> None:
    """Raise ValueError, which says what to do, if one of these options of `generate` is not the system's."""
    for option in options:
        able = [other for other, system in SYSTEMS.items() if option in system.options]
        if able and option not in find(name).options:
            raise ValueError(
                f"The system {name} has no --{option}: leave it out, or draw with --system {' or '.join(able)}."
            )


def prepare(settings: Settings, folder: Path | None = None, count: int = 1) -> tuple[Settings, "Given | None"]:
    """Check what can be checked before anything is loaded; return the settings, with their size, and what is given.

    folder: as in `load`. Raises ValueError, in one sentence, for an unknown system, for settings that it does not have
    or cannot draw with, and if its folder lacks a file.
    """
    system = find(settings.system)
    folder = folder or system.folder
    settings = _own(settings, count)
    if settings.system != "stable-diffusion":
        for file in system.files:
            if not (folder / file).is_file():
                raise ValueError(
                    f"There is no model of {settings.system} in {folder}, {file} is missing: {system.remedy}."
                )
        return settings, None
    from course_utils.pipelines import steering

    configurations = read_configurations(folder)
    given = steering.read_given(settings)
    settings = steering.complete(settings, given, configurations["unet"], configurations["vae"])
    if given.drawing is not None:
        steering.control_folder(folder)
    return settings, given


def _own(settings: Settings, count: int) -> Settings:
    """The settings, with the size where a system has only one; ValueError for what it lacks or cannot draw."""
    other = [option for option, field in FIELDS.items() if getattr(settings, field) != getattr(Settings(""), field)]
    resized = {settings.width, settings.height} - {None, SIDE}
    refuse(settings.system, other + ["size"] * bool(resized))
    check_settings(settings, count)
    _require_distilled(settings)
    if "size" in find(settings.system).options:
        return settings
    return dataclasses.replace(settings, width=SIDE, height=SIDE)


def _require_distilled(settings: Settings) -> None:
    """Raise ValueError if a system with steps and guidance distilled into it is asked for others."""
    system = find(settings.system)
    if system.steps and settings.steps not in system.steps:
        *others, last = map(str, sorted(system.steps))
        raise ValueError(
            f"The system {settings.system} draws in {', '.join(others)} or {last} steps, not in {settings.steps}: "
            "choose one of these with --steps."
        )
    if system.steps and settings.guidance != system.guidance:
        raise ValueError(
            f"In the system {settings.system} guidance has been distilled into the network, so {settings.guidance:g} "
            "cannot be chosen: leave --guidance out."
        )


def draw_in_turn(
    loaded: Loaded, settings: Settings, given: "Given | None" = None, count: int = 1, on_step=None
) -> Iterator[tuple]:
    """Yield (PIL picture, Settings) for each of `count` pictures, the settings complete, once its batch is drawn.

    With the settings that `png_info.read_png` finds in a picture it draws that picture again, to one grey level.
    given: see `steering.draw_given_in_turn`, which draws for stable-diffusion. `on_step(done, total)` is called after
    each step there; here before the first picture, and after each batch has been taken. Raises ValueError, before
    anything is drawn, for settings of another system, or that this one cannot draw with.
    """
    if settings.system != loaded.name:
        raise ValueError(
            f"The settings are of the system {settings.system}, but {loaded.name} is loaded: load that (systems.load)."
        )
    settings = _own(settings, count)
    if settings.system == "stable-diffusion":
        from course_utils.pipelines import quick, steering

        if isinstance(loaded.parts, quick.QuickModel):
            settings = dataclasses.replace(settings, model=settings.model or loaded.folder.name)
            yield from quick.draw_in_turn(loaded.parts, settings, count, on_step)
        else:
            yield from steering.draw_given_in_turn(loaded.parts, settings, given, count, on_step)
        return
    from course_utils.data.images import to_pil

    settings = dataclasses.replace(settings, model=settings.model or loaded.folder.absolute().name)
    how = {FIELDS[option]: getattr(settings, FIELDS[option]) for option in find(settings.system).options}
    report = on_step or (lambda done, total: None)
    report(0, count)
    size = BATCH if settings.candidates == 1 else 1
    for start in range(0, count, size):
        batch = [dataclasses.replace(settings, seed=settings.seed + i) for i in range(start, min(start + size, count))]
        pictures = loaded.draw([settings.prompt] * len(batch), batch[0].seed, settings.guidance, **how)
        yield from zip(to_pil(pictures), batch, strict=True)
        report(start + len(batch), count)


# --- each system's own


def _load_stable_diffusion(folder: Path, device) -> tuple[Any, Any]:
    from course_utils.pipelines.picture_book import load_picture_book

    pipe = load_picture_book(folder, device)
    return pipe, pipe.tokenizer


def _load_dalle(folder: Path, device) -> tuple[Any, Any]:
    from course_utils.pipelines.dalle import load_dalle
    from course_utils.recipes.clip import clip_of

    pipe = load_dalle(folder, device)
    clip, _ = clip_of(folder.absolute().parent, "embedder")
    tokenizer = copy.copy(pipe.tokenizer)
    tokenizer.model_max_length = pipe.model.config.length  # as much of a prompt as the transformer reads
    return (pipe, clip.to(pipe.model.words.weight.device)), tokenizer


def _load_unclip(folder: Path, device) -> tuple[Any, Any]:
    from course_utils.recipes import load_unclip

    system = load_unclip(folder, device)
    return system, system.pipe.tokenizer


def _load_few_steps(folder: Path, device) -> tuple[Any, Any]:
    from course_utils.pipelines.few_steps import load_student
    from course_utils.recipes.unet import picture_book_of

    pipe = picture_book_of(folder.absolute().parent, device)
    return (pipe, load_student(pipe.unet, folder)), pipe.tokenizer


def _load_mine(folder: Path, device) -> tuple[Any, Any]:
    from course_utils.pipelines.mine import WordList, load_mine

    pipe = load_mine(folder)  # it draws on the processor: its networks are small
    return pipe, WordList(pipe.words)


def _generators(seed: int, count: int) -> list:
    import torch

    return [torch.Generator("cpu").manual_seed(seed + i) for i in range(count)]


def _latent_noise(unet, generators: list) -> "torch.Tensor":
    from course_utils.diffusion.samplers import draw_noise

    config = unet.config
    return draw_noise((len(generators), config.in_channels, config.sample_size, config.sample_size), generators)


def _draw_stable_diffusion(pipe, prompts, seed, guidance, steps=20, sampler="unipc"):
    from course_utils.pipelines.editing import draw_from
    from course_utils.pipelines.picture_book import make_scheduler

    generators = _generators(seed, len(prompts))
    x_T = _latent_noise(pipe.unet, generators)
    scheduler = make_scheduler(sampler, pipe.scheduler.config)
    return draw_from(
        pipe, x_T, prompts, guidance=guidance, steps=steps, scheduler=scheduler, generator=generators
    )  # (n, 3, 64, 64)


def _draw_dalle(parts, prompts, seed, guidance, candidates=1):
    import torch

    from course_utils.pipelines.dalle import draw_best

    pipe, clip = parts
    if candidates == 1:
        return pipe(prompts, seed, guidance)
    firsts = [(seed + i) * candidates for i in range(len(prompts))]  # so that no two pictures share a candidate
    best = [draw_best(pipe, clip, prompt, candidates, first, guidance=guidance)
            for prompt, first in zip(prompts, firsts, strict=True)]  # fmt: skip
    return torch.cat(best)


def _draw_unclip(system, prompts, seed, guidance, steps=20, sampler="unipc"):
    from course_utils.pipelines.unclip import draw

    return draw(
        system, prompts, _generators(seed, len(prompts)), guidance=guidance, steps=steps, sampler=sampler
    )  # (n, 3, 64, 64)


def _draw_few_steps(parts, prompts, seed, guidance, steps=4):
    from course_utils.pipelines.few_steps import draw_fast

    pipe, student = parts
    return draw_fast(pipe, student, prompts, _latent_noise(pipe.unet, _generators(seed, len(prompts))), steps)


def _draw_mine(pipe, prompts, seed, guidance):
    return pipe.draw(prompts, [seed + i for i in range(len(prompts))], guidance)


SYSTEMS: dict[str, System] = {
    "stable-diffusion": System(
        frozenset(FIELDS) - {"candidates"} | {"size"}, 4.0, PICTURE_BOOK, (),
        ("vae", "decoder", "clip", "unet"), _load_stable_diffusion, _draw_stable_diffusion,
    ),
    "dalle": System(
        frozenset({"candidates"}), 3.0, CHECKPOINTS / "dalle", ("config.json", "model.safetensors"),
        ("vae", "decoder", "vq", "dalle"), _load_dalle, _draw_dalle,
    ),
    "unclip": System(
        frozenset({"steps", "scheduler"}), 3.0, CHECKPOINTS / "unclip", ("model.safetensors",),
        ("vae", "decoder", "clip", "unet", "embedder", "prior", "unclip"), _load_unclip, _draw_unclip,
    ),
    "few-steps": System(
        frozenset({"steps"}), 1.0, CHECKPOINTS / "few_steps", ("model.safetensors",),
        ("vae", "decoder", "clip", "unet", "few_steps"), _load_few_steps, _draw_few_steps, (4, 2, 1),
    ),
    "mine": System(
        frozenset(), 2.0, Path("runs/mine"), ("model_index.json", "planner/config.json", "painter/config.json"), (),
        _load_mine, _draw_mine, remedy="train it with `python3 course.py train mine`",
    ),
}  # fmt: skip
