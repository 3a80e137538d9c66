"""The command line: `python -m course_utils.cli VERB`, with the verbs generate, studio, card, doctor, ...

What a verb needs is imported when it runs, so that help and error messages are quick. Every error that the
user can cause is a ValueError (or typer's usage error): `OneSentence` makes it one sentence and exit code 2.
"""

import contextlib
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

from course_utils.doctor import REINSTALL
from course_utils.language import LANGUAGES, is_chinese, translated

if __name__ == "__main__" and sys.argv[1:2] == ["train"] and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `train` takes care of it: no traceback out of an import

try:
    import typer
    from typer.core import TyperGroup
except ImportError as damage:
    sys.exit(f"Error: The installed packages do not work ({damage}): {REINSTALL}.")

CHECKPOINTS = Path(__file__).parent / "checkpoints"
ROOT = Path(__file__).parent.parent

UsageError: Any = typer.BadParameter.__base__  # typer gives no public name to the class of all usage errors


class OneSentence(TyperGroup):
    """The one place where errors become messages: a sentence on stderr and exit code 2, no traceback."""

    def main(self, *args, **options):
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a console that lacks a letter stops nothing
        commands: list[Any] = [self, *self.commands.values()]
        for helped in [*commands, *(parameter for command in commands for parameter in command.params)]:
            helped.help = translated(helped.help or "")
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except UsageError as error:
            self.fail(error.format_message() + what_came(error))
        except ValueError as error:
            self.fail(str(error))
        except OSError as error:  # a full disk, for example
            self.fail(f"{error.filename or 'The system'}: {error.strerror or error}.")
        except ImportError as error:
            if (error.name or "").startswith("course_utils"):
                raise  # a fault of the course's own
            self.fail(f"The installed packages do not work ({error}): {REINSTALL}.")
        sys.exit(code if isinstance(code, int) else 0)

    def fail(self, message: str):
        say(f"Error: {message}", err=True)
        sys.exit(2)


def what_came(error) -> str:
    """What stood in the place of a number, which typer's message leaves out; "" if the error is of another kind."""
    faults: list[dict] = getattr(error.__cause__, "errors", list)()  # pydantic's, which typer converts with
    return "".join(f", but got {fault['input']!r}" for fault in faults[:1]) + "." * bool(faults)


def say(text: str, err: bool = False) -> None:
    """Print a line, in the language in use; of several processes that train together the first one does."""
    if is_main_process():
        typer.echo(translated(text), err=err)


OWN_BAR = "{desc} {percentage:3.0f}%|{bar}| {postfix}"

app = typer.Typer(cls=OneSentence, add_completion=False, help="Image generation: draw, train, build, check.")


@app.callback(invoke_without_command=True)
def choose_a_verb(context: typer.Context):
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def generate(
    context: typer.Context,
    prompt: Annotated[list[str], typer.Argument(help="What to draw; several words need no quotes.")],
    system: Annotated[
        str | None, typer.Option(help="stable-diffusion, dalle, unclip, few-steps or mine; none: by --model.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="In 4 steps or, with --steps, 2 or 1: the few-steps.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same picture; picture i uses seed + i.")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the sampler, 1 to 1000; none: 20, or with --fast 4.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How much the prompt counts, 1 (no guidance) to 50; none: the system's own.")
    ] = None,
    count: Annotated[int, typer.Option(help="Pictures to draw, 1 to 64.")] = 1,
    scheduler: Annotated[str, typer.Option(help="unipc, dpm++, ddim, euler, heun, ddpm or pndm.")] = "unipc",
    negative: Annotated[str, typer.Option(help="What should not be in the picture.")] = "",
    size: Annotated[int | None, typer.Option(help="Side in pixels; none: as the model was made for.")] = None,
    output: Annotated[Path | None, typer.Option(help="PNG to write; none: named after the prompt.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite, rather than find a free name.")] = False,
    model: Annotated[
        Path | None, typer.Option(help="Another model, such as runs/picture_book, runs/mine or runs/dalle.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A picture to start from, rather than from noise.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of it is drawn again, 0 to 1; none: 0.6, with a mask 1.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Where: white is painted again, black is kept.")] = None,
    lora: Annotated[list[str] | None, typer.Option(help="FILE or FILE:WEIGHT of a LoRA; may be repeated.")] = None,
    control: Annotated[Path | None, typer.Option(help="A line drawing that the picture is to follow.")] = None,
    candidates: Annotated[int, typer.Option(help="Draw so many, keep what CLIP finds nearest (dalle).")] = 1,
):
    """Draw PROMPT and write a PNG that remembers its settings (count > 1: NAME-1.png, NAME-2.png, ...)."""
    # Everything that can be wrong is looked at before the slow imports, as far as that is possible.
    from course_utils import systems
    from course_utils.pipelines import png_info, steering

    if fast and system not in (None, "few-steps"):
        raise ValueError(f"--fast is the system few-steps, but --system is {system}: leave one of them out.")
    system = "few-steps" if fast else system or systems.found_in(model)
    usual = systems.find(system)
    guidance = usual.guidance if guidance is None else guidance
    text, negative = in_english(" ".join(prompt)), in_english(negative, needed=False)
    if steps is None:
        steps = usual.steps[0] if usual.steps else png_info.Settings.steps
    systems.refuse(system, options_given(context))
    image_name, mask_name, control_name = ("" if path is None else str(path) for path in (image, mask, control))
    settings = png_info.Settings(
        text, negative, steps, scheduler, guidance, seed, size, size, "", strength, image_name, mask_name,
        control_name, tuple(steering.parse_lora(text) for text in lora or []), system, candidates,
    )  # fmt: skip
    if not settings.prompt:
        raise ValueError("The prompt is empty: say what to draw, such as 'a cute corgi puppy on the grass'.")
    settings, given = systems.prepare(settings, model, count)
    output = output or Path(png_info.default_name(settings.prompt))
    paths = png_info.output_paths(output, count, force)
    for path in paths:
        png_info.check_writable(path)

    loaded = load_quickly(settings, model, count)
    for note in notes_on(loaded, settings):
        say(f"Note: {note}", err=True)
    written = 0
    try:
        for path, (picture, made) in zip(paths, draw_with_bar(loaded, settings, given, count), strict=True):
            png_info.write_png(path, picture, made)
            written += 1
            say_written(f"Wrote {path}: {png_info.format_parameters(made).splitlines()[-1]}")
    except KeyboardInterrupt:
        say(f"Stopped; {written} of {count} pictures are drawn and written.", err=True)
        raise typer.Exit(130) from None


def in_english(prompt: str, needed: bool = True) -> str:
    """The prompt, in the words of the captions if it is Chinese; says so, and what it could not read.

    Raises ValueError if it has no subject that is known but needs one.
    """
    if not is_chinese(prompt):
        return prompt
    from course_utils.data.picture_book import chinese  # with torch

    english = chinese.require_english(prompt) if needed else chinese.to_english(prompt)
    if needed:
        say(f"Note: The model was trained on English captions, so it draws '{english.text}'.", err=True)
    elif english.text:
        say(f"Note: The negative prompt is read as '{english.text}'.", err=True)
    if english.unknown:
        say(f"Note: Not in the course's dictionary: {'、'.join(english.unknown)}.", err=True)
    return english.text


def options_given(context: typer.Context) -> list[str]:
    """The options that the user wrote, such as "steps", whatever their values."""
    return [name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]


def load_quickly(settings, model: Path | None, count: int):
    """Load what draws these settings from the system's folder (None: the shipped one), without torch where that can.

    Else it imports the libraries, and loads on the device at hand.
    """
    from course_utils import systems
    from course_utils.pipelines import quick

    if quick.can_draw(settings, count, model or systems.find(settings.system).folder):
        try:
            return systems.load_quick(model)
        except Exception as error:  # any class, from three libraries; those below draw the same
            reason = (str(error).splitlines() or [""])[0].rstrip(" .") or type(error).__name__
            say(f"Note: The quick start failed ({reason}), so this takes some seconds longer.", err=True)
    # Looking for garbage while thousands of modules are imported took 1 of 5.5 seconds; they all stay, so
    # they are taken out of the collector's sight before it goes on.
    gc.disable()
    try:
        from course_utils.machine.devices import pick_device

        return systems.load(settings.system, model, pick_device(quiet=True))
    finally:
        gc.freeze()
        gc.enable()


def notes_on(loaded, settings) -> list[str]:
    """What the user should know before a picture is drawn all the same."""
    from course_utils.pipelines.model_folder import read_configurations
    from course_utils.pipelines.picture_book import made_for
    from course_utils.text.prompts import inspect_prompt

    notes = inspect_prompt(loaded.tokenizer, settings.prompt).advice()
    side = settings.width  # systems without --size draw at their own
    if loaded.name == "stable-diffusion":
        parts = read_configurations(loaded.folder)
        side = made_for(parts["unet"], parts["vae"])
    if settings.width not in (None, side):
        notes.append(f"The model is made for {side} pixels; {settings.width} may look odd.")
    if settings.negative_prompt and settings.guidance == 1:
        notes.append("Without guidance (1) the negative prompt has no effect.")
    return notes


@contextlib.contextmanager
def stop_on_interrupt():
    """Give a function that tells whether Ctrl-C was pressed; pressing it again ends the program at once."""
    pressed = []

    def on_interrupt(number, frame):
        pressed.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def draw_with_bar(loaded, settings, given, count: int):
    """Yield pictures as they are drawn, under a progress bar; Ctrl-C ends it between two steps, never in a write."""
    from tqdm import tqdm

    from course_utils.systems import draw_in_turn

    unit = "step" if loaded.name == "stable-diffusion" else "picture"
    with stop_on_interrupt() as asked_to_stop, contextlib.ExitStack() as at_the_end:
        bars: list[Any] = []  # none before the first step: what cannot be drawn with is said without it

        def on_step(done, total):
            if not bars:
                bars.append(at_the_end.enter_context(tqdm(desc="drawing", unit=unit, total=total)))
            bars[0].update(done - bars[0].n)
            if asked_to_stop() and done < total:
                raise KeyboardInterrupt

        yield from draw_in_turn(loaded, settings, given, count, on_step)


def say_written(message: str) -> None:
    """Print above the progress bar; a reader that has gone (`| head -1`) or a full disk stops no drawing."""
    from tqdm import tqdm

    try:
        tqdm.write(message)
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (open until the program ends)


@app.command()
def studio(
    folder: Annotated[Path, typer.Option(help="Gallery: all that is drawn is kept here.")] = Path("gallery"),
    model: Annotated[
        Path | None, typer.Option(help="Model to begin with, such as runs/picture_book; none: the shipped one.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of your own models, and of LoRAs in its lora/.")] = Path("runs"),
    port: Annotated[int, typer.Option(help="Port on this computer, 1 to 65535.")] = 8866,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
):
    """Open the studio in the browser: draw, edit, paint masks, plot; each page is a session of its own."""
    from course_utils.studio import app as page

    page.check(folder, model, port)
    say(f"The studio is at http://localhost:{port}, and keeps pictures in {folder.resolve()}. Ctrl-C ends it.")
    page.serve(folder, model, runs, port, not no_browser)


@app.command("export-onnx")
def export_onnx(
    output: Annotated[Path, typer.Option(help="Folder to write; one that this command made is replaced.")] = Path(
        "runs/onnx"
    ),
    model: Annotated[Path | None, typer.Option(help="Another model, such as runs/picture_book.")] = None,
    page: Annotated[
        bool, typer.Option("--page", help="With a page that draws in the browser: all that a static server needs.")
    ] = False,
):
    """Write the model's networks as ONNX, and in JSON all else that it takes to draw with them in a browser."""
    from course_utils.pipelines.model_folder import read_configurations
    from course_utils.pipelines.picture_book import PICTURE_BOOK, load_picture_book
    from course_utils.web import assets, export

    # Everything that can be wrong is looked at before the slow imports.
    model = model or PICTURE_BOOK
    read_configurations(model)
    if page:
        assets.require_ready(output)
    else:
        export.require_packages()
        export.require_free(output)
    say("Writing the networks, which takes about a minute.")
    if page:
        assets.write_box(output, model)
        say(f"Wrote {output}: to see it, run `python3 -m http.server --directory {output}`.")
        return
    export.export_onnx(load_picture_book(model), output)
    say(f"Wrote {output}: {sum(path.stat().st_size for path in output.iterdir()) / 1e6:.1f} MB")


@app.command()
def card(
    output: Annotated[Path | None, typer.Option(help="Markdown file to write; none: print it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
):
    """Print the model card of the picture-book model: what it is for, what it was trained on, where it fails."""
    if output is not None:
        from course_utils.pipelines.png_info import check_writable

        check_writable(output)
        if output.exists() and not force:
            raise ValueError(f"{output} is there already: name another file, or add --force.")
    from course_utils.files import new_file
    from course_utils.metrics.model_card import model_card, read_manifest

    text = model_card(read_manifest(CHECKPOINTS / "manifest.json"))
    if output is None:
        typer.echo(text, nl=False)
        return
    with new_file(output) as part:
        part.write_text(text, encoding="utf-8")
    say(f"Wrote {output}")


@app.command()
def doctor():
    """Look at versions, hardware, disk and the shipped models; say what to do about each fault."""
    from course_utils.doctor import examine

    faults = examine(say)
    for fault in faults:
        say(f"Fault: {fault}", err=True)
    if faults:
        raise typer.Exit(1)
    say("All is well.")


@app.command()
def train(
    part: Annotated[
        str,
        typer.Argument(
            help="vae, decoder, clip, unet, control, vq, dalle, embedder, prior, unclip, few_steps, judge, reader, "
            "digits_unet, or all; or mine: a whole model of your own."
        ),
    ],
    steps: Annotated[int | None, typer.Option(help="Updates; none: as many as the recipe says.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same weights.")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="Where checkpoints and results are kept; none: runs, for mine runs/mine.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="How long mine is trained; none: 30.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin from nothing, not from the checkpoint.")] = False,
    from_shipped: Annotated[
        bool,
        typer.Option(
            "--from-shipped",
            help="Copy the shipped parts to FOLDER; go on from them (all but vae, clip, judge, reader, digits_unet).",
        ),
    ] = False,
    ship: Annotated[
        bool, typer.Option("--ship", help="At the end, replace the shipped model by the one in FOLDER.")
    ] = False,
):
    """Train PART, going on from its last checkpoint; Ctrl-C stops after this step and loses nothing."""
    if minutes is not None and part != "mine":
        raise ValueError(f"Only mine is trained for so many minutes: give {part} a number of updates with --steps.")
    if part == "mine":
        if steps is not None or from_shipped or ship:
            raise ValueError("The part mine has no --steps, --from-shipped or --ship: say how long with --minutes.")
        raise typer.Exit(train_own(folder or Path("runs/mine"), 30.0 if minutes is None else minutes, seed, restart))
    folder = folder or Path("runs")
    with stop_on_signals(folder) as stop:
        look_ahead(part, steps, seed, folder, ship)
        from course_utils import recipes
        from course_utils.training import leave

        if part == "all" and steps is None:
            say(how_long(CHECKPOINTS / "manifest.json"))
        names = list(recipes.PARTS) if part == "all" else [part]
        for name in names:
            finished = train_one(recipes.train_part(name, folder, steps, seed, restart, from_shipped), name, stop)
            if finished:
                say(f"{name}: trained, in {folder}")
            if stop.number and (ship or not finished or name != names[-1]):
                say(stop.message)
                raise typer.Exit(128 + stop.number)
        if ship and is_main_process():
            recipes.ship(folder)
            say(f"The shipped model is now the one in {folder}.")
        leave()


def look_ahead(part: str, steps: int | None, seed: int, folder: Path, ship: bool) -> None:
    """Raise ValueError for all that can be known to fail before the first update, the quickest first."""
    from course_utils.files import require_room
    from course_utils.pipelines.png_info import MOST_SEED, whole_number

    whole_number("The seed", seed, 0, MOST_SEED)
    if steps is not None:
        whole_number("The number of steps", steps, 1, 10**9)
    require_folder(folder)
    from course_utils import recipes

    if part != "all" and part not in recipes.PARTS:
        raise ValueError(f"There is no part {part!r}: choose one of {', '.join(recipes.PARTS)}, all, mine.")
    require_room(folder, "keep the training in another folder (--folder)")
    if ship:
        recipes.require_shippable(folder, part)


def how_long(manifest: Path) -> str:
    """A sentence on what all trainings take, at the pace of those that made the shipped parts."""
    from course_utils.recipes import PARTS

    try:
        training = json.loads(manifest.read_text(encoding="utf-8"))["training"]
        takes = [f"{name} {training[name]['seconds'] / training[name]['steps'] * PARTS[name].steps / 60:.0f}"
                 for name in PARTS]  # fmt: skip
        processes = training["unet"]["processes"]
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError):  # it helps, and is not needed
        return "After the first steps the bar shows how long each part takes here."
    return (
        f"At the pace of the shipped parts this takes {' + '.join(takes)} minutes, in {processes} processes on a "
        "processor without GPU; after the first steps the bar shows how long it takes here."
    )


def train_one(records, name: str, stop) -> bool:
    """Run a training to its end with a progress bar; False if it was stopped (what it has is then saved)."""
    from tqdm import tqdm

    stop.updating = False
    bar = None
    try:
        with contextlib.closing(records):  # closing a training saves its checkpoint
            for record in records:
                stop.updating = True
                if bar is None:  # only the first record says where a resumed run goes on
                    bar = tqdm(desc=name, total=record.steps, initial=record.step - 1, unit="step",
                               disable=not is_main_process())  # fmt: skip
                bar.set_postfix(loss=f"{record.loss:.4f}", refresh=False)
                bar.update(record.step - bar.n if not bar.disable else 0)
                if stop.number and record.step < record.steps:
                    return False
    finally:  # also before an error is said
        if bar is not None:
            bar.close()
    return True


def require_folder(folder: Path) -> None:
    """Raise ValueError if there is a file where a training is to be kept."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder to keep the training in.")


def train_own(folder: Path, minutes: float, seed: int, restart: bool) -> int:
    """Train a model of one's own with a progress bar; the exit code, 0 unless it was stopped (it is then saved)."""
    from tqdm import tqdm

    from course_utils.files import require_room
    from course_utils.pipelines.png_info import MOST_SEED, whole_number

    whole_number("The seed", seed, 0, MOST_SEED)
    require_folder(folder)
    with stop_on_signals(folder) as stop:
        from course_utils.machine.devices import budget
        from course_utils.pipelines.mine import draw_sheet
        from course_utils.recipes.mine import PAGES, check, train_mine

        check(folder, minutes)
        require_room(folder, "keep the training in another folder (--folder)")
        pages = budget(smoke=60, laptop=PAGES, gpu=PAGES)
        say(f"Drawing {pages:,} pages to train with, for a minute or so.")
        run = train_mine(folder, minutes, scenes=3 * pages, pages=pages, seed=seed, restart=restart)
        with contextlib.closing(run), contextlib.ExitStack() as at_the_end:
            bar: Any = None
            for progress in run:
                stop.updating = True
                bar = bar or at_the_end.enter_context(tqdm(total=minutes, bar_format=OWN_BAR))
                gone, record = min(progress.minutes, minutes), progress.record
                bar.set_description_str(progress.half, refresh=False)
                left = f"{minutes - gone:.1f} of {minutes:g} minutes left"
                bar.set_postfix_str(f"{record.step:,} updates, loss {record.loss:.3f}, {left}", refresh=False)
                bar.update(gone - bar.n)
                if stop.number:
                    break
                if progress.exported and progress.minutes < minutes:
                    tqdm.write(f"After {progress.minutes:.0f} minutes it draws {draw_sheet(folder)}")
        if stop.number:
            say(stop.message)
            return 128 + stop.number
        say(f"mine: trained, in {folder}; see {draw_sheet(folder)}, or `generate 'a red car' --model {folder}`.")
    return 0


def is_main_process() -> bool:
    """True but for the second and further processes of `accelerate launch` or `torchrun`."""
    return os.environ.get("RANK", "0") == "0"


class Stop:
    """What Ctrl-C, SIGTERM and SIGHUP mean to a training; `number` is that of the signal that came first, or 0.

    While updates are made, the training ends after this one and saves; further signals change nothing. Before the
    first one, while libraries are imported or pictures are drawn, all that counts is on the disk already, and the
    program ends at once.
    """

    def __init__(self, folder: Path):
        self.number, self.updating = 0, False
        self.message = f"Stopped; all is kept in {folder}. To go on, give the command again, without --restart."

    def on_signal(self, number, frame):
        self.number = self.number or number
        if not self.updating:  # not by an exception, which an import may swallow or wrap
            if is_main_process():
                with contextlib.suppress(OSError):  # the terminal may be gone
                    os.write(1, f"\n{self.message}\n".encode(errors="backslashreplace"))
            os._exit(128 + number)


@contextlib.contextmanager
def stop_on_signals(folder: Path):
    """Give a `Stop` that listens. What is ignored stays ignored: a training under `nohup` outlives its terminal."""
    stop = Stop(folder)
    wanted = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in wanted}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, stop.on_signal)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command()
def check(
    notebooks: Annotated[list[Path], typer.Argument(help="Notebooks with your answers.")],
    report: Annotated[Path | None, typer.Option(help="File for the states, one JSON object a line.")] = None,
    cell_seconds: Annotated[int, typer.Option(help="For a cell, 1 to 3600; a notebook may take ten times that.")] = 60,
):
    """Run NOTEBOOKS from nothing and say the state of each exercise; exit code 0 only if all of them pass."""
    from course_utils.authoring import grading
    from course_utils.pipelines.png_info import whole_number

    whole_number("The number of seconds for a cell", cell_seconds, 1, 3600)
    if report is not None:
        report.write_text("", encoding="utf-8")
    states, refused = [], 0
    for path in notebooks:
        try:
            found, notes = grading.states_of(path, ROOT, cell_seconds)
        except ValueError as error:  # the notebooks after it are run all the same
            say(f"Error: {error}", err=True)
            refused += 1
            continue
        except KeyboardInterrupt:
            say(f"Stopped in {grading.shown(path)}; what is said above was found before.", err=True)
            raise typer.Exit(130) from None
        say(f"{grading.shown(path)}" + ("" if found else ": it has no exercises"))
        for id, state in found.items():
            say(f"  {id:28} {state}")
            if report is not None:
                with report.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"id": id, "state": state}) + "\n")
        for note in notes:
            say(grading.shown(f"  Note: {note}"))
        states += found.values()
    if refused < len(notebooks):
        say(f"{states.count('pass')} of {len(states)} exercises passed.")
    if refused or set(states) - {"pass"}:
        raise typer.Exit(2 if refused else 1)


@app.command()
def build(
    numbers: Annotated[list[str] | None, typer.Argument(help="Chapters, such as 05 06; none: all.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say which notebooks are out of date.")] = False,
    no_execute: Annotated[
        bool, typer.Option("--no-execute", help="Do not run the code: keep the outputs of cells that are unchanged.")
    ] = False,
    language: Annotated[str, typer.Option(help="en, or zh: the words of solutions/source/zh/.")] = "en",
    nbgrader: Annotated[
        Path | None, typer.Option(help="Write assignments for nbgrader into this folder instead.")
    ] = None,
):
    """Write the notebooks in chapters/ and solutions/ from solutions/source/."""
    from course_utils import authoring

    if check + no_execute + (nbgrader is not None) > 1:
        raise ValueError("--check, --no-execute and --nbgrader exclude each other: give one of them.")
    if nbgrader is not None:
        from course_utils.authoring import classroom

        sources = authoring.source_paths(ROOT, numbers or None)
        for path in classroom.write_assignments(ROOT, nbgrader, sources):
            say(f"Wrote {path}")
        return
    if not check:
        if language not in LANGUAGES:
            raise ValueError(f"expected --language {' or '.join(LANGUAGES)}, got {language!r}.")
        for path in authoring.build(ROOT, numbers or None, execute=not no_execute, language=language):
            say(f"Wrote {path}")
        return
    differences = authoring.check(ROOT, numbers or None)
    for difference in differences:
        say(difference, err=True)
    if differences:
        raise typer.Exit(1)
    say("All notebooks are as their sources say.")


@app.command()
def site(
    output: Annotated[Path, typer.Option(help="Folder for the pages: a new one, or one with an earlier book.")] = Path(
        "site"
    ),
    repository: Annotated[
        str, typer.Option(help="Address of the course on GitHub, for links; none: that of `git remote`.")
    ] = "",
):
    """Build the course as a web book: static pages that need no network, with the solutions folded."""
    from course_utils.site import build as build_book

    front = build_book(ROOT, output, repository)
    say(f"Wrote {front}: open it in a browser, or serve it: python3 -m http.server --directory {output}")


if __name__ == "__main__":
    app(prog_name="course.py")
