"""The command line: what it draws, says and refuses; always one sentence, exit code 2 and no traceback."""

import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tqdm import tqdm
from typer.testing import CliRunner

from course_utils import authoring, cli, recipes
from course_utils.pipelines.png_info import Settings, read_png

PROMPT = "a cute corgi puppy"


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(result, *words):
    """Assert that the outcome is one sentence with these words on stderr, and exit code 2."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr
    assert isinstance(result.exception, SystemExit)


# --- generate ----------------------------------------------------------------------------------------------


def test_a_prompt_in_several_words_becomes_a_png_that_remembers(here, model):
    result = run("generate", *PROMPT.split(), "--seed", 7, "--steps", 3, "--guidance", 2.5,
                 "--scheduler", "ddim", "--negative", "a red ball", "--model", model)  # fmt: skip
    assert result.exit_code == 0, result.output
    expected = Settings(PROMPT, "a red ball", 3, "ddim", 2.5, 7, 64, 64, "tiny")
    assert read_png(here / "a-cute-corgi-puppy.png") == expected
    assert "Wrote a-cute-corgi-puppy.png: Steps: 3, Sampler: DDIM, CFG scale: 2.5, Seed: 7" in result.stdout
    assert "drawing: 100%" in result.stderr and "3/3" in result.stderr
    assert "Note" not in result.stderr


def test_nothing_is_lost_unless_forced(here, model):
    draw = ("generate", PROMPT, "--steps", 1, "--model", model, "--output", "corgi.png")
    for _ in range(2):
        assert run(*draw).exit_code == 0
    assert names(here) == ["corgi-2.png", "corgi.png"]
    assert run(*draw, "--force", "--seed", 5).exit_code == 0
    assert names(here) == ["corgi-2.png", "corgi.png"]
    assert read_png("corgi.png").seed == 5


def test_several_pictures_are_numbered_and_use_the_next_seeds(here, model):
    result = run("generate", "a", "--steps", 1, "--count", 3, "--seed", 4, "--model", model)
    assert result.exit_code == 0, result.output
    assert {name: read_png(name).seed for name in names(here)} == {"a-1.png": 4, "a-2.png": 5, "a-3.png": 6}


def test_what_the_model_cannot_read_is_said_and_it_draws_all_the_same(here, model):
    long = " ".join(["puppy"] * 40)
    result = run("generate", f"a corgy {long}", "--size", 32, "--steps", 1, "--guidance", 1,
                 "--negative", "snow", "--model", model, "--output", "a.png")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "'corgy'" in result.stderr and "did you mean 'corgi'?" in result.stderr
    assert "does not read 'puppy puppy" in result.stderr
    assert "made for 64 pixels; 32" in result.stderr
    assert "the negative prompt has no effect" in result.stderr
    assert read_png("a.png").width == 32


@pytest.mark.parametrize(
    "options, words",
    [
        ([""], ["The prompt is empty"]),
        ([" ", "\n"], ["The prompt is empty"]),
        ([], ["Missing argument", "prompt"]),
        (["a", "--steps", "0"], ["steps", "from 1 to 1000", "0"]),
        (["a", "--steps", "100000"], ["steps", "100000"]),
        (["a", "--steps", "ten"], ["--steps", "integer"]),
        (["a", "--steps", "2.5"], ["--steps", "integer"]),
        (["a", "--guidance", "nan"], ["guidance", "nan"]),
        (["a", "--guidance", "-1"], ["guidance", "-1"]),
        (["a", "--guidance", "much"], ["--guidance", "number"]),
        (["a", "--seed", "-1"], ["seed", "-1"]),
        (["a", "--seed", "4294967296"], ["seed", "4294967296"]),
        (["a", "--seed", "nan"], ["--seed", "integer"]),
        (["a", "--count", "0"], ["pictures", "from 1 to 64", "0"]),
        (["a", "--size", "30"], ["width", "multiple of 8", "30"]),
        (["a", "--size", "512"], ["width", "from 16 to 256", "512"]),
        (["a", "--scheduler", "magic"], ["'magic'", "unipc", "ddim"]),
        (["a", "--output", "nowhere/a.png"], ["nowhere does not exist"]),
        (["a", "--output", "."], [". is a folder"]),
        (["a", "--output", "a.jpg"], ["PNG", "a.png"]),
        (["a", "--output", "x" * 300], ["name too long"]),
        (["a", "--model", "nowhere"], ["no model folder nowhere", "course.py train all"]),
        (["a", "--colour", "red"], ["No such option"]),
        (["a", "--system", "magic"], ["no system 'magic'", "stable-diffusion, dalle, unclip"]),
        (
            ["a", "--system", "dalle", "--steps", "20"],
            ["dalle has no --steps", "stable-diffusion or unclip or few-steps"],
        ),
        (["a", "--system", "dalle", "--candidates", "0"], ["candidates", "from 1 to 512", "0"]),
        (["a", "--system", "dalle", "--candidates", "few"], ["--candidates", "integer", "'few'"]),
        (["a", "--system", "dalle"], ["no model of dalle", "config.json is missing", "course.py train all"]),
        (["a", "--candidates", "4"], ["stable-diffusion has no --candidates", "--system dalle"]),
    ],
)
def test_a_wrong_option_gets_one_sentence(here, model, options, words):
    model_options = [] if "--model" in options else ["--model", model]
    refused(run("generate", *options, *model_options), *words)
    assert names(here) == []


def test_a_folder_without_permission_gets_one_sentence(here, model):
    (here / "locked").mkdir(mode=0o500)
    # the superuser may write anywhere but into the kernel's own folders
    folder = "/proc" if hasattr(os, "geteuid") and os.geteuid() == 0 else "locked"
    refused(run("generate", "a", "--model", model, "--output", f"{folder}/a.png"), "a.png cannot be written")


def test_wrong_options_are_found_before_the_slow_imports():
    script = "import sys; from course_utils.cli import app\ntry: app(['generate', 'a', '--steps', '0'])\n" \
             "finally: print('torch' in sys.modules, 'diffusers' in sys.modules)"  # fmt: skip
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "False False\n")
    assert result.stderr.startswith("Error: The number of steps") and "Traceback" not in result.stderr


def test_help_and_wrong_verbs():
    result = run("--help")
    assert result.exit_code == 0
    assert all(verb in result.stdout for verb in ("generate", "card", "doctor", "train", "build"))
    assert run().exit_code == 0
    refused(run("paint"), "No such command 'paint'")


# --- card --------------------------------------------------------------------------------------------------


def test_the_model_card_is_printed_or_written_and_no_file_is_lost(here):
    printed = run("card")
    assert printed.exit_code == 0 and printed.stdout.startswith("# Model card: picture_book")
    assert run("card", "--output", "card.md").exit_code == 0
    assert (here / "card.md").read_text(encoding="utf-8") == printed.stdout
    (here / "card.md").write_text("mine")
    refused(run("card", "--output", "card.md"), "card.md is there already", "--force")
    assert (here / "card.md").read_text() == "mine"
    assert run("card", "--output", "card.md", "--force").exit_code == 0
    assert (here / "card.md").read_text(encoding="utf-8") == printed.stdout
    refused(run("card", "--output", "nowhere/card.md"), "nowhere does not exist")
    refused(run("card", "--output", ".", "--force"), ". is a folder")


def test_a_damaged_manifest_gets_one_sentence(here, monkeypatch):
    monkeypatch.setattr(cli, "CHECKPOINTS", here)
    refused(run("card"), "manifest.json cannot be read")


# --- train -------------------------------------------------------------------------------------------------


class Training:
    """Stands for the recipes: yields records, remembers how it was called and whether it could save."""

    def __init__(self, monkeypatch, begin=0, interrupt_at=None, signals=(signal.SIGINT,)):
        self.calls, self.events = [], []
        self.begin, self.interrupt_at, self.signals = begin, interrupt_at, signals
        monkeypatch.setattr(recipes, "train_part", self.train_part)

    def train_part(self, name, folder, steps=None, seed=0, restart=False, from_shipped=False):
        self.calls.append((name, str(folder), steps, seed, restart))
        steps = steps or 3
        try:
            for step in range(self.begin + 1, steps + 1):
                for number in self.signals if step == self.interrupt_at else ():
                    os.kill(os.getpid(), number)
                yield SimpleNamespace(step=step, steps=steps, loss=1 / step, seconds=float(step))
            self.events.append("exported")
        except GeneratorExit:
            self.events.append(f"saved at {step}")
            raise


def test_train_hands_over_its_options_and_shows_loss_and_progress(here, monkeypatch):
    training = Training(monkeypatch)
    result = run("train", "vae", "--steps", 4, "--seed", 3, "--folder", "here", "--restart")
    assert result.exit_code == 0, result.output
    assert training.calls == [("vae", "here", 4, 3, True)]
    assert "4/4" in result.stderr and "loss=0.2500" in result.stderr
    assert "vae: trained, in here" in result.stdout


def test_train_all_goes_through_every_part_in_order(here, monkeypatch):
    training = Training(monkeypatch)
    result = run("train", "all")
    assert result.exit_code == 0 and re.search(
        r" \+ ".join(rf"{part} \d+" for part in recipes.PARTS) + ".*minutes", result.stdout
    )
    assert [call[0] for call in training.calls] == list(recipes.PARTS)
    assert training.calls[0][1:] == ("runs", None, 0, False)


def test_a_resumed_run_starts_its_bar_where_it_goes_on(here, monkeypatch):
    Training(monkeypatch, begin=2)
    bars = []
    monkeypatch.setattr("tqdm.tqdm", lambda *given, **options: bars.append(options) or tqdm(**options))
    assert "3/3" in run("train", "vae").stderr
    assert bars[0]["initial"] == 2
    Training(monkeypatch, begin=3)  # nothing left to do
    assert run("train", "vae").exit_code == 0


def test_ctrl_c_stops_after_the_step_saves_and_says_how_to_go_on(here, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    training = Training(monkeypatch, interrupt_at=2)
    result = run("train", "all", "--steps", 5)
    assert result.exit_code == 130
    assert training.events == ["saved at 2"]
    assert "kept in runs" in result.stdout and "go on" in result.stdout
    assert len(training.calls) == 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGHUP", 129)])
def test_other_signals_are_like_ctrl_c(here, monkeypatch, name, code):
    if not hasattr(signal, name) or os.name == "nt":
        pytest.skip("Windows has no such signals")
    before = signal.getsignal(getattr(signal, name))
    training = Training(monkeypatch, interrupt_at=2, signals=[getattr(signal, name)])
    result = run("train", "vae", "--steps", 5)
    assert (result.exit_code, training.events) == (code, ["saved at 2"])
    assert signal.getsignal(getattr(signal, name)) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_under_nohup_a_training_outlives_its_terminal(here, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        training = Training(monkeypatch, interrupt_at=2, signals=[signal.SIGHUP])
        assert run("train", "vae").exit_code == 0
        assert training.events == ["exported"]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_five_times_is_as_once(here, monkeypatch):
    training = Training(monkeypatch, interrupt_at=2, signals=[signal.SIGINT] * 5)
    result = run("train", "vae", "--steps", 5)
    assert (result.exit_code, training.events) == (130, ["saved at 2"])
    assert result.stdout.count("\n") == 1 and "go on" in result.stdout


def test_ctrl_c_in_the_last_step_lets_the_training_finish(here, monkeypatch):
    training = Training(monkeypatch, interrupt_at=3)
    assert run("train", "vae").exit_code == 0
    assert training.events == ["exported"]
    training = Training(monkeypatch, interrupt_at=3)
    result = run("train", "all", "--steps", 3)
    assert (result.exit_code, training.events, len(training.calls)) == (130, ["exported"], 1)
    assert "vae: trained" in result.stdout and "go on" in result.stdout
    monkeypatch.setattr(recipes, "require_shippable", lambda *_: None)
    monkeypatch.setattr(recipes, "ship", lambda folder: pytest.fail("shipped after Ctrl-C"))
    Training(monkeypatch, interrupt_at=3)
    assert run("train", "vae", "--ship").exit_code == 130


# Light stand-ins, so that it is known what the program does when the signal comes.
STAND_IN = """
import os, signal, sys, types
recipes, training = (types.ModuleType(f"course_utils.{name}") for name in ("recipes", "training"))
sys.modules |= {module.__name__: module for module in (recipes, training)}

def train_part(*_):
    for _ in range(int(sys.argv[2])):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    print("still here")
    yield

def __getattr__(name):  # while a library is imported
    if sys.argv[3] == "importing" and name == "PARTS":
        try:
            next(train_part())
        except BaseException:
            raise ImportError("an import that swallows what interrupts it")
    return {"vae": None} if name == "PARTS" else train_part

recipes.__getattr__, training.leave = __getattr__, print
from course_utils.cli import app
app(["train", "vae", "--folder", "here"])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("when", ["importing", "drawing"])
@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_before_the_first_update_a_signal_ends_at_once_and_tidily(here, name, code, when):
    command = [sys.executable, "-c", STAND_IN, name, "2", when]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = "Stopped; all is kept in here. To go on, give the command again, without --restart."
    assert (result.returncode, result.stdout.strip(), result.stderr) == (code, said, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_no_traceback_out_of_the_first_imports(here):
    (here / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    command = [sys.executable, "-m", "course_utils.cli", "train", "vae"]
    path = os.pathsep.join([str(here), str(cli.ROOT)])
    result = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": path}, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_what_cannot_be_written_is_said_before_the_first_update(here, monkeypatch):
    training = Training(monkeypatch)
    refused(run("train", "vae", "--folder", "/proc/x"), "/proc/x", "--folder")
    for name in recipes.PARTS:
        recipes.write_record(here / "runs" / name, {"command": "", "steps": 1, "seconds": 1})
    monkeypatch.setattr(recipes.require_shippable, "__defaults__", (cli.Path("/proc/checkpoints"),))
    refused(run("train", "vae", "--ship"), "/proc", "without --ship")
    (here / "runs" / "judge" / "record.json").unlink()
    monkeypatch.setattr(recipes.require_shippable, "__defaults__", (here / "checkpoints",))
    refused(run("train", "vae", "--ship"), "these are not: judge", "train all --folder runs")
    assert training.calls == []


def test_further_processes_keep_quiet(here, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    Training(monkeypatch)
    result = run("train", "vae")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    "options, words",
    [
        (["brain"], ["'brain'", "vae, decoder, clip, unet, control, vq, dalle, embedder, prior, unclip, few_steps"]),
        (["vae", "--steps", "0"], ["steps", "0"]),
        (["vae", "--seed", "-1"], ["seed", "-1"]),
        (["vae", "--folder", "file"], ["file is a file"]),
        ([], ["Missing argument"]),
    ],
)
def test_train_refuses_in_one_sentence(here, options, words):
    (here / "file").touch()
    refused(run("train", *options), *words)


def test_what_a_recipe_refuses_is_one_sentence_too(here, monkeypatch):
    def refuse(*arguments):
        raise ValueError("expected a trained vae in runs, found none; train it first")
        yield

    monkeypatch.setattr(recipes, "train_part", refuse)
    refused(run("train", "unet"), "expected a trained vae")

    def full(*arguments):
        raise OSError(28, "No space left on device", "runs/checkpoint")
        yield

    monkeypatch.setattr(recipes, "train_part", full)
    refused(run("train", "unet"), "runs/checkpoint: No space left on device")


# --- build -------------------------------------------------------------------------------------------------


def test_build_and_its_check(monkeypatch):
    refused(run("build", "99"), "99")
    calls = []

    def build(root, numbers, execute, language):
        calls.append((root, numbers, execute, language))
        return ["chapters/05.ipynb"]

    monkeypatch.setattr(authoring, "build", build)
    result = run("build", "05", "06")
    assert (result.exit_code, result.stdout) == (0, "Wrote chapters/05.ipynb\n")
    monkeypatch.setattr(authoring, "check", lambda *given: calls.append(given) or [])
    assert run("build", "--check").exit_code == 0
    assert calls == [(cli.ROOT, ["05", "06"], True, "en"), (cli.ROOT, None)]
    monkeypatch.setattr(authoring, "check", lambda *arguments: ["chapters/05.ipynb: cell 3 differs"])
    result = run("build", "--check", "05")
    assert (result.exit_code, result.stderr) == (1, "chapters/05.ipynb: cell 3 differs\n")
    assert run("build", "--no-execute").exit_code == 0
    assert calls[-1] == (cli.ROOT, None, False, "en")
    refused(run("build", "--check", "--no-execute"), "exclude each other")


def test_all_trainings_say_beforehand_how_long_they_take(tmp_path):
    slow = {"seconds": 6000, "steps": 10, "processes": 2}
    training = {name: slow | {"steps": part.steps // 2} for name, part in recipes.PARTS.items()}
    (tmp_path / "manifest.json").write_text(json.dumps({"training": training}))
    said = cli.how_long(tmp_path / "manifest.json")
    assert "vae 200 + decoder 200 + clip 200" in said and "in 2 processes" in said
    for text in ("[]", "{", '{"training": {"vae": {"seconds": 1, "steps": 0}}}'):
        (tmp_path / "manifest.json").write_text(text)
        assert cli.how_long(tmp_path / "manifest.json").startswith("After the first steps")
