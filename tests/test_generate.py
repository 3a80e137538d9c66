"""What `generate` keeps: no fault of a console, a disk or a model, and no Ctrl-C, loses a picture that was drawn."""

import io
import os
import shutil
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from course_utils import cli
from course_utils.pipelines import picture_book, png_info
from course_utils.pipelines.png_info import read_png


def run(*arguments):
    return CliRunner().invoke(cli.app, ["generate", *map(str, arguments)])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def run_with(monkeypatch, stdout, *arguments):
    """Run `generate` with this stream as its standard output; return the exit code."""
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(sys, "stdout", stdout)
        cli.app(["generate", *map(str, arguments)])
    return caught.value.code


def test_a_console_without_the_letters_of_the_prompt_loses_nothing(here, model, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    code = run_with(monkeypatch, console, "柯基 puppy", "--steps", 1, "--count", 3, "--model", model)
    assert code == 0
    assert [read_png(name).seed for name in names(here)] == [0, 1, 2]
    console.seek(0)
    assert console.read().count("Wrote ") == 3


def test_a_reader_that_has_gone_loses_nothing(here, model, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    code = run_with(monkeypatch, Gone(), "a corgi", "--steps", 1, "--count", 3, "--model", model)
    assert code == 0 and len(names(here)) == 3


@pytest.fixture
def interrupt_at(monkeypatch):
    """Make the process send itself Ctrl-C when it has done that many steps of all batches."""

    def prepare(step):
        report = picture_book._report

        def reporting(on_step, *batches):
            def counted(done, total):
                if done == step:
                    os.kill(os.getpid(), signal.SIGINT)
                on_step(done, total)

            return report(counted, *batches)

        monkeypatch.setattr(picture_book, "_report", reporting)

    return prepare


def test_ctrl_c_keeps_every_picture_that_was_drawn(here, model, interrupt_at):
    interrupt_at(3)  # of 2 steps in each of 2 batches
    before = signal.getsignal(signal.SIGINT)
    result = run("a corgi", "--steps", 2, "--count", 8, "--model", model)
    assert result.exit_code == 130
    assert names(here) == [f"a-corgi-{i}.png" for i in (1, 2, 3, 4)]
    assert "Stopped; 4 of 8 pictures are drawn and written." in result.stderr
    assert result.stdout.count("Wrote ") == 4
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_a_picture_is_written_waits_for_all_of_its_batch(here, model, monkeypatch):
    write, seen = png_info.write_png, []

    def interrupted(path, *given):
        if not seen:
            os.kill(os.getpid(), signal.SIGINT)
        seen.append(path)
        write(path, *given)

    monkeypatch.setattr(png_info, "write_png", interrupted)
    result = run("a corgi", "--steps", 2, "--count", 8, "--model", model)
    assert result.exit_code == 130
    assert len(names(here)) == len(seen) == 4


def test_ctrl_c_in_the_last_step_lets_all_be_written(here, model, interrupt_at):
    interrupt_at(2)
    result = run("a corgi", "--steps", 2, "--count", 2, "--model", model)
    assert result.exit_code == 0 and len(names(here)) == 2


def test_a_wrong_size_or_a_damaged_configuration_is_said_before_the_slow_imports(here, model):
    script = "import sys; from course_utils.cli import app\ntry: app(sys.argv[1:])\n" \
             "finally: print('torch' in sys.modules, 'diffusers' in sys.modules)"  # fmt: skip
    damaged = shutil.copytree(model, here / "damaged")
    (damaged / "unet/config.json").write_text('{"sample_size": null}')
    for options, words in (
        (["--size", "30", "--model", model], "The width must be a multiple of 8, but is 30; the model is made for 64."),
        (["--model", str(damaged)], "unet/config.json is damaged (sample_size must be a whole number"),
    ):
        result = subprocess.run(
            [sys.executable, "-c", script, "generate", "a", *options], capture_output=True, text=True
        )
        assert (result.returncode, result.stdout) == (2, "False False\n")
        assert result.stderr.startswith("Error: ") and words in result.stderr


def test_a_damaged_weight_file_is_one_sentence(here, model):
    damaged = shutil.copytree(model, here / "damaged")
    (damaged / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"half")
    result = run("a corgi", "--model", damaged)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "vae/diffusion_pytorch_model.safetensors" in result.stderr and names(here) == ["damaged"]


@pytest.mark.parametrize("option", ["--seed", "--steps", "--count", "--size", "--guidance"])
def test_what_came_in_the_place_of_a_number_is_said(here, model, option):
    result = run("a corgi", option, "abc", "--model", model)
    assert result.exit_code == 2
    assert option in result.stderr and "'abc'" in result.stderr


def test_a_prompt_without_words_is_drawn_with_a_note(here, model):
    for prompt in ("-", "🐶"):
        result = run(prompt, "--steps", 1, "--model", model, "--output", "a.png", "--force")
        assert result.exit_code == 0
        assert "Note: The prompt has no word in letters" in result.stderr


def test_a_model_whose_name_is_no_text_is_named(here, model):
    try:
        folder = shutil.copytree(model, here / "bad\udcff")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes text only")
    result = run("a corgi", "--steps", 1, "--model", folder)
    assert result.exit_code == 2 and "is no valid text: rename it" in result.stderr
