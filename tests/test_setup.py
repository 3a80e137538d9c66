"""course.py: when it installs, what it says if it cannot, what its verbs do. Nothing is installed here."""

import ast
import errno
import http.server
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from course_utils import cli

ROOT = Path(__file__).resolve().parent.parent
INTEL_MAC = ("Darwin", "x86_64", "14.5", sys.maxsize)
LINUX = ("Linux", "x86_64", "", sys.maxsize)


@pytest.fixture
def course():
    """A new course.py, whose functions a test may replace."""
    specification = importlib.util.spec_from_file_location("course_launcher", ROOT / "course.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A course folder, with a space in its name and no environment yet."""
    monkeypatch.delenv("COURSE_UNPINNED", raising=False)
    path = tmp_path / "my course"
    path.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, path)
    return path


def make_fresh(course, folder):
    """Leave what a finished set-up leaves: an environment's Python, and the stamp."""
    course.venv_python(folder).parent.mkdir(parents=True)
    course.venv_python(folder).touch()
    course.write_stamp(folder, course.wanted_stamp(folder, unpinned=False))


def replace_installation(course, monkeypatch):
    """Let set_up make its environment with nothing in it; returns the list of the steps it takes."""
    steps = []

    def make_venv(folder):
        steps.append("make")
        (folder / ".venv" / "course-stamp.json").unlink(missing_ok=True)
        course.venv_python(folder).parent.mkdir(parents=True, exist_ok=True)
        course.venv_python(folder).touch()

    monkeypatch.setattr(course, "make_venv", make_venv)
    monkeypatch.setattr(course, "install_packages", lambda folder, lock, unpinned: steps.append("install"))
    monkeypatch.setattr(course, "describe_machine", lambda folder: "a machine")
    return steps


def add_pin(folder):
    with open(folder / "constraints.txt", "a") as file:
        file.write("another==1.0\n")


def is_one_sentence(text):
    return text.endswith(".") and "\n" not in text and "Traceback" not in text


# What is said when the course cannot be set up


def test_old_python_can_read_the_launcher():
    ast.parse((ROOT / "course.py").read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize(
    ("version", "facts", "word"),
    [
        ((3, 8), LINUX, "3.11"),
        ((3, 10), LINUX, "3.11"),
        ((3, 15), LINUX, "3.14"),
        ((3, 12), INTEL_MAC, "Intel"),
        ((3, 12), ("Darwin", "arm64", "13.6.1", sys.maxsize), "macOS 14"),
        ((3, 12), ("Windows", "AMD64", "", 2**31 - 1), "64-bit"),
        ((3, 12), ("Linux", "riscv64", "", sys.maxsize), "riscv64"),
    ],
)
def test_unfit_machine_gets_one_sentence(course, version, facts, word):
    problem = course.machine_problem(version, *facts)
    assert word in problem
    assert is_one_sentence(problem)


@pytest.mark.parametrize("version", [(3, 11), (3, 14)])
@pytest.mark.parametrize(
    "facts", [LINUX, ("Darwin", "arm64", "14.0", sys.maxsize), ("Windows", "AMD64", "", sys.maxsize)]
)
def test_fit_machine_has_no_problem(course, version, facts):
    assert course.machine_problem(version, *facts) is None


def test_missing_module_and_full_disk_are_named(course):
    assert "apt install python3-venv" in course.venv_problem(["ensurepip"], free=100, needed=4)
    assert "4 GB" in course.venv_problem([], free=3.9, needed=4)
    assert course.venv_problem([], free=4.1, needed=4) is None


@pytest.mark.parametrize(
    ("output", "word"),
    [
        ("WARNING: Retrying after connection broken by 'NameResolutionError'\nERROR: No match", "network"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "disk"),
        ("Collecting a\nERROR: Cannot install b\nnote: c", "ERROR: Cannot install b"),
        ("", "install.log"),
    ],
)
def test_pip_failure_becomes_one_sentence(course, output, word):
    assert word in course.pip_problem(output)
    assert is_one_sentence(course.pip_problem(output))


@pytest.mark.parametrize(
    ("raised", "code", "word"),
    [
        (OSError(errno.ENOSPC, "No space"), 1, "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "may write"),
        (KeyboardInterrupt(), 130, "Stopped"),
    ],
)
def test_failures_end_without_a_traceback(course, folder, monkeypatch, capsys, raised, code, word):
    def fail(folder):
        raise raised

    monkeypatch.setattr(course, "set_up", fail)
    assert course.main(["doctor"], folder) == code
    assert word in capsys.readouterr().err


# When the environment is made, mended or left alone


def test_second_start_runs_no_program(course, folder, monkeypatch):
    make_fresh(course, folder)
    monkeypatch.setattr(course.subprocess, "run", None)
    monkeypatch.setattr(course.subprocess, "Popen", None)
    assert course.set_up(folder) is False


def test_missing_half_made_and_orphaned_environments_are_made_anew(course, folder):
    wanted = course.wanted_stamp(folder, unpinned=False)
    assert "not there" in course.stale_reason(folder, wanted)
    make_fresh(course, folder)
    assert course.stale_reason(folder, wanted) is None
    assert "Python 3.10" in course.stale_reason(folder, {**wanted, "python": "3.10"})
    course.venv_python(folder).unlink()
    assert "gone" in course.stale_reason(folder, wanted)
    (folder / ".venv" / "course-stamp.json").unlink()
    assert "not finished" in course.stale_reason(folder, wanted)


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_moved_or_copied_environment_is_made_anew(course, folder, move):
    make_fresh(course, folder)
    other = folder.parent / "other"
    move(folder, other)
    assert "moved" in course.stale_reason(other, course.wanted_stamp(other, unpinned=False))


def test_stamp_follows_the_packages_only(course, folder):
    before = course.wanted_stamp(folder, unpinned=False)
    assert course.wanted_stamp(folder, unpinned=True) != before
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(text.replace("line-length = 110", "line-length = 99"))
    assert course.wanted_stamp(folder, unpinned=False) == before
    (folder / "pyproject.toml").write_text(text.replace('"tqdm>', '"tqdm-new>'))
    changed = course.wanted_stamp(folder, unpinned=False)
    add_pin(folder)
    assert len({before["packages"], changed["packages"], course.wanted_stamp(folder, False)["packages"]}) == 3


def test_interrupted_set_up_is_begun_again(course, folder, monkeypatch):
    steps = replace_installation(course, monkeypatch)

    def interrupt(folder, lock, unpinned):
        raise KeyboardInterrupt

    with monkeypatch.context() as while_interrupted:
        while_interrupted.setattr(course, "install_packages", interrupt)
        assert course.main(["doctor"], folder) == 130
    assert course.set_up(folder) is True
    assert steps == ["make", "make", "install"]
    assert course.set_up(folder) is False


def test_changed_packages_are_mended_in_place(course, folder, monkeypatch):
    make_fresh(course, folder)
    steps = replace_installation(course, monkeypatch)
    pins = (folder / "constraints.txt").read_bytes()
    add_pin(folder)
    assert course.set_up(folder) is True
    assert steps == ["install"]

    def fail(folder, lock, unpinned):
        raise course.SetupError("no network.")

    monkeypatch.setattr(course, "install_packages", fail)
    with_pin = (folder / "constraints.txt").read_bytes()
    (folder / "constraints.txt").write_bytes(pins)
    assert course.main(["doctor"], folder) == 1
    (folder / "constraints.txt").write_bytes(with_pin)  # what was there before; but half of it is replaced
    wanted = course.wanted_stamp(folder, unpinned=False)
    assert course.stale_reason(folder, wanted) == course.CHANGED_PACKAGES


def test_lock_keeps_a_second_start_waiting_until_the_first_has_ended(course, folder):
    code = (
        "import sys, time, pathlib; sys.path.insert(0, sys.argv[1]); import course\n"
        "with course.setup_lock(pathlib.Path(sys.argv[2])): print('locked', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline().strip() == b"locked"
            with open(folder / ".venv.lock", "a") as file:
                assert course.take_lock(file) is False
                holder.kill()
                holder.wait()
                assert course.take_lock(file) is True
        finally:
            holder.kill()


# What is installed, and how


@pytest.mark.parametrize(
    ("nvidia", "index_answers", "unpinned", "commands"),
    [
        (False, True, False, ["torch== --index-url", "-c -e"]),
        (False, False, False, ["-c -e"]),
        (True, True, False, ["-c -e"]),
        (False, True, True, ["torch --index-url", "-e"]),
    ],
)
def test_installation(course, folder, monkeypatch, capsys, nvidia, index_answers, unpinned, commands):
    ran = []

    def run_logged(command, folder, lock):
        shown = [word for word in command if word in ("-c", "-e", "--index-url") or word.startswith("torch")]
        ran.append(re.sub("==[0-9.]+", "==", " ".join(shown)))
        return 0, ""

    monkeypatch.setattr(course.platform, "system", lambda: "Linux")
    monkeypatch.setattr(course, "has_nvidia", lambda: nvidia)
    monkeypatch.setattr(course, "answers", lambda address: index_answers)
    monkeypatch.setattr(course, "run_logged", run_logged)
    course.install_packages(folder, None, unpinned)
    assert ran == commands
    assert ("NEWEST" in capsys.readouterr().out) == unpinned


def test_answers_is_quick_about_silent_and_absent_servers(course):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        started = time.monotonic()
        assert course.answers(address, seconds=1) is False
        assert time.monotonic() - started < 4
    assert course.answers(address) is False
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request).start()
        assert course.answers(f"http://127.0.0.1:{server.server_port}/") is True


def test_programs_output_and_exit_code_are_kept_and_the_lock_is_handed_on(course, folder):
    (folder / ".venv").mkdir()
    with course.setup_lock(folder) as lock:
        held = f"os.fstat({lock.fileno()});" if os.name == "posix" else ""
        code = f"import os, sys; {held} sys.stdout.buffer.write(b'caf\\xe9'); sys.exit(3)"
        exit_code, output = course.run_logged([sys.executable, "-c", code], folder, lock)
    assert (exit_code, output) == (3, "caf\ufffd")
    assert (folder / ".venv" / "install.log").read_text(encoding="utf-8") == output


# What the verbs do


def test_help_and_unknown_verbs_name_every_verb(course, folder, capsys):
    assert course.main(["--help"], folder) == 0
    usage = capsys.readouterr().out
    assert all(f"  {verb} " in usage for verb in course.VERBS)
    assert course.main(["sing"], folder) == 2
    message = capsys.readouterr().err
    assert "'sing'" in message
    assert usage in message


def test_verbs_are_those_of_the_command_line(course):
    commands = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert set(course.VERBS) - {"lab", "test", "benchmark"} == commands


def test_commands(course, folder, monkeypatch):
    python = str(course.venv_python(folder))
    here = Path.cwd()
    assert course.command_of("test", ["-x"], folder) == ([python, "-m", "pytest", "-x"], folder)
    assert course.command_of("benchmark", ["x"], folder) == ([python, "-m", "benchmarks", "x"], folder)
    assert course.command_of("train", ["vae"], folder) == ([python, "-m", "course_utils.cli", "train", "vae"], here)
    for user, flags in ((0, ["--allow-root"]), (1000, [])):
        monkeypatch.setattr(course.os, "geteuid", lambda user=user: user, raising=False)
        command, where = course.command_of("lab", ["--no-browser"], folder)
        start = f"--LabApp.default_url=/lab/tree/{course.FIRST_NOTEBOOK}"
        assert command == [python, "-m", "jupyterlab", start, *flags, "--no-browser"]
        assert where == folder


def test_exit_code_is_passed_through(folder):
    child = "import os, sys; sys.exit(7 if os.path.basename(os.getcwd()) == 'my course' else 1)"
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import course\n"
        "sys.exit(course.hand_over([sys.executable, '-c', sys.argv[3]], pathlib.Path(sys.argv[2])))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(ROOT), str(folder), child]).returncode == 7


def test_copies_never_overwrite_what_the_learner_has(course, folder):
    (folder / "chapters" / "figures").mkdir(parents=True)
    (folder / "work").mkdir()
    for name in ("00_a.ipynb", "01_b.ipynb", "figures/corgi.png"):
        (folder / "chapters" / name).write_text("new")
    (folder / "work" / "00_a.ipynb").write_text("mine")
    (folder / "work" / "01_b.ipynb.part").write_text("ne")  # an earlier copy was cut short
    course.copy_chapters(folder)
    copies = {path.name: path.read_text() for path in folder.glob("work/**/*.*")}
    assert copies == {"00_a.ipynb": "mine", "01_b.ipynb": "new", "corgi.png": "new"}
