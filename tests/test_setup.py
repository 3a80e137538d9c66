"""course.py: when it installs, what it says if it cannot, what its verbs do. Nothing is installed here."""

import ast
import errno
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
from launching import ROOT, course_folder, is_one_sentence, load_course, make_fresh, replace_installation, site_packages

from course_utils import cli

INTEL_MAC = ("Darwin", "x86_64", "14.5", sys.maxsize)
LINUX = ("Linux", "x86_64", "", sys.maxsize)


@pytest.fixture
def course():
    return load_course()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_UNPINNED", raising=False)
    return course_folder(tmp_path)


def add_pin(folder):
    with open(folder / "constraints.txt", "a") as file:
        file.write("another==1.0\n")


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
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: [WinError 112] Es steht nicht genug Speicherplatz zur Verfügung", "disk is full"),
        ("ERROR: Could not install packages due to an OSError: [Errno 122] Disk quota exceeded: 'a'", "quota"),
        ("ERROR: [Errno 69] Disc quota exceeded", "quota"),
        ("ERROR: [WinError 1295] Not enough quota", "quota"),
        ("ERROR: Could not install packages due to an OSError: [Errno 30] Read-only file system: 'a'", "read-only"),
        ("ERROR: [WinError 19] The media is write protected", "read-only"),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: 'a'",
            "close the programs",
        ),
        ("ERROR: [WinError 32] The process cannot access the file", "close the programs"),
        ("... NewConnectionError: Failed to establish a new connection: [Errno 13] Permission denied", "network"),
        ("zipfile.BadZipFile: File is not a zip file", "damaged"),
        ("ERROR: HTTP error 403 while getting https://x", "refuses"),
        ("Collecting a\nERROR: Cannot install b\nnote: c", "ERROR: Cannot install b"),
        ("ERROR: Exception:\nTraceback (most recent call last):\nValueError: no", "(ValueError: no)"),
        ("", ".venv.log"),
    ],
)
def test_pip_failure_becomes_one_sentence(course, output, word):
    assert word in course.pip_problem(output)
    assert is_one_sentence(course.pip_problem(output))


@pytest.mark.parametrize(
    ("raised", "code", "word"),
    [
        (OSError(errno.ENOSPC, "No space"), 1, "disk is full"),
        (OSError(errno.EDQUOT, "Quota"), 1, "quota"),
        (OSError(errno.EROFS, "Read-only"), 1, "read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "may not be written"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 1, "check that it is there"),
        (KeyboardInterrupt(), 130, "Stopped"),
    ],
)
def test_failures_end_without_a_traceback(course, folder, monkeypatch, capsys, raised, code, word):
    def fail(folder, again):
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
    course.write_stamp(folder, {**wanted, "packages": course.UNFINISHED})
    assert "not finished" in course.stale_reason(folder, wanted)


@pytest.mark.parametrize(
    "stamp",
    ["{}", "[]", "{", "", "5", '"a"', "null", "[" * 100_000, '{"python": 3, "folder": 1, "packages": []}', b"\xff"],
)
def test_a_stamp_that_is_none_is_no_traceback(course, folder, monkeypatch, stamp):
    make_fresh(course, folder)
    (folder / ".venv" / course.STAMP).write_bytes(stamp if isinstance(stamp, bytes) else stamp.encode())
    steps = replace_installation(course, monkeypatch)
    assert course.set_up(folder) is True
    assert steps == ["make", "install"]


@pytest.mark.parametrize("name", ["torch", "typer", "nbclient", "pytest_xdist", "course_utils"])
@pytest.mark.parametrize("lost", ["{}-1.0.dist-info/RECORD", "{}/__init__.py"])
def test_a_package_lost_under_a_valid_stamp_is_said_and_installed_again(
    course, folder, monkeypatch, capsys, name, lost
):
    make_fresh(course, folder)
    (site_packages(folder) / lost.format(name)).unlink()
    replace_installation(course, monkeypatch)
    monkeypatch.setattr(course, "hand_over", lambda command, folder: 0)
    assert course.main(["doctor"], folder) == 0
    assert f"because its package {name.replace('_', '-')} is missing." in capsys.readouterr().out
    assert course.set_up(folder) is False


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


def test_changed_packages_are_mended_in_a_copy(course, folder, monkeypatch):
    make_fresh(course, folder)
    (folder / ".venv" / "of the learner").touch()
    steps = replace_installation(course, monkeypatch)
    add_pin(folder)
    assert course.set_up(folder) is True
    assert steps == ["install"]
    assert (folder / ".venv" / "of the learner").exists()
    assert names_of(folder) == [".venv", ".venv.lock"]


def test_repair_makes_the_environment_again(course, folder, monkeypatch):
    make_fresh(course, folder)
    steps = replace_installation(course, monkeypatch)
    assert course.main(["repair"], folder) == 0
    assert steps == ["make", "install"]


# Nothing is lost: what was there stays until the new environment is whole


def names_of(folder):
    return sorted(path.name for path in folder.glob(".venv*"))


def contents(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def move_away(course, folder):
    shutil.move(folder, folder.parent / "renamed")
    return folder.parent / "renamed"


def other_python(course, folder):
    course.write_stamp(folder, {**course.read_stamp(folder), "python": "3.10"})


HARM = {
    "moved": move_away,
    "other python": other_python,
    "broken stamp": lambda course, folder: (folder / ".venv" / course.STAMP).write_text("{}"),
    "no interpreter": lambda course, folder: course.venv_python(folder).unlink(),
    "changed packages": lambda course, folder: add_pin(folder),
    "lost package": lambda course, folder: (site_packages(folder) / "torch" / "__init__.py").unlink(),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("end", ["no network", "disk full", "Ctrl-C"])
def test_a_set_up_that_fails_leaves_the_environment_as_it_was(course, folder, monkeypatch, capsys, harm, end):
    make_fresh(course, folder)
    here = folder
    folder = HARM[harm](course, folder)
    folder = folder if isinstance(folder, Path) else here
    before = contents(folder / ".venv")
    replace_installation(course, monkeypatch)
    raised = {"no network": course.SetupError("no network."), "disk full": OSError(errno.ENOSPC, "x")}

    def fail(folder, lock, unpinned):
        assert course.venv_python(folder).parent.exists()
        raise raised.get(end, KeyboardInterrupt())

    monkeypatch.setattr(course, "install_packages", fail)
    for _ in range(2):
        assert course.main(["doctor"], folder) == (130 if end == "Ctrl-C" else 1)
        assert contents(folder / ".venv") == before
        assert names_of(folder) == [".venv", ".venv.lock"]
    assert "as it was" in capsys.readouterr().out
    if harm == "moved":
        shutil.move(folder, here)
        assert course.set_up(here) is False


def test_after_a_kill_the_next_start_finds_the_environment_as_it_was(course, folder):
    make_fresh(course, folder)
    other_python(course, folder)
    before = contents(folder / ".venv")
    code = (
        "import sys, time, pathlib; sys.path.insert(0, sys.argv[1]); import course\n"
        "course.make_venv = lambda folder, lock: (print('made', flush=True), time.sleep(60))\n"
        "course.set_up(pathlib.Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        try:
            assert b"Python 3.10" in killed.stdout.readline()
            assert killed.stdout.readline().strip() == b"made"
        finally:
            killed.kill()
    assert names_of(folder) == [".venv", ".venv-before-set-up", ".venv.lock"]
    course.settle(folder)
    assert contents(folder / ".venv") == before
    assert names_of(folder) == [".venv", ".venv.lock"]


@pytest.mark.parametrize(
    "killed", ["after moving", "after mkdir", "half-made", "taking back", "before clearing up", "clearing up"]
)
def test_wherever_a_kill_hits_one_whole_environment_is_left(course, folder, killed):
    make_fresh(course, folder)
    before = contents(folder / ".venv")
    venv, previous, discarded = course.places(folder)
    if "clearing" in killed:
        shutil.copytree(venv, previous)
        (previous / course.STAMP).unlink()
    else:
        venv.rename(previous)
    if killed in ("after mkdir", "half-made"):
        venv.mkdir()
    if killed == "half-made":
        course.write_stamp(folder, {**course.wanted_stamp(folder, False), "packages": course.UNFINISHED})
        (venv / "bin").mkdir()
    if killed in ("taking back", "clearing up"):
        (discarded / "bin").mkdir(parents=True)
    assert course.set_up(folder) is False
    assert contents(folder / ".venv") == before
    assert names_of(folder) == [".venv", ".venv.lock"]


@pytest.mark.parametrize("kind", ["environment", "file", "dangling link"])
def test_a_venv_of_the_learners_is_never_touched(course, folder, monkeypatch, capsys, kind):
    venv = folder / ".venv"
    if kind == "environment":
        (venv / "bin").mkdir(parents=True)
        (venv / "pyvenv.cfg").write_text("home = mine")
    elif kind == "file":
        venv.write_text("mine")
    else:
        venv.symlink_to(folder / "nowhere" / "else")
    before = contents(folder)
    steps = replace_installation(course, monkeypatch)
    assert course.main(["repair"], folder) == 1
    assert "rename it" in capsys.readouterr().err or kind == "dangling link"
    assert steps == []
    (folder / ".venv.lock").unlink()
    assert contents(folder) == before
    venv.rename(folder / "mine")
    assert course.set_up(folder) is True


def test_an_environment_may_lie_on_another_disk(course, folder, monkeypatch, tmp_path):
    (tmp_path / "large").mkdir()
    (folder / ".venv").symlink_to(tmp_path / "large", target_is_directory=True)
    replace_installation(course, monkeypatch)
    for _ in range(2):
        assert course.main(["repair"], folder) == 0
        assert (folder / ".venv").is_symlink() and (tmp_path / "large" / course.STAMP).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "my course"]


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

    def run_shown(command, lock, **environment):
        shown = [word for word in command if word in ("-c", "-e", "--index-url") or word.startswith("torch")]
        ran.append(re.sub("==[0-9.]+", "==", " ".join(shown)))
        return 0, ""

    monkeypatch.setattr(course.platform, "system", lambda: "Linux")
    monkeypatch.setattr(course, "has_nvidia", lambda: nvidia)
    monkeypatch.setattr(course, "answers", lambda address: index_answers)
    monkeypatch.setattr(course, "run_shown", run_shown)
    course.install_packages(folder, None, unpinned)
    assert ran == commands
    assert ("NEWEST" in capsys.readouterr().out) == unpinned


def test_what_only_one_verb_needs_is_installed_once(course, folder, monkeypatch, capsys):
    commands = []
    monkeypatch.setattr(course, "run_shown", lambda command, lock: (commands.append(command), (0, ""))[1])
    monkeypatch.setattr(course.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], int(not commands)))
    for _ in range(2):
        course.add_packages(folder, "site")
    (command,) = commands
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"]["site"]
    assert command[-len(wanted) :] == wanted
    assert command[command.index("-c") + 1] == str(folder / "constraints.txt")
    assert capsys.readouterr().out.count("Installing") == 1


def test_what_cannot_be_installed_is_said(course, folder, monkeypatch):
    monkeypatch.setattr(course, "run_shown", lambda command, lock: (1, "Errno 28"))
    monkeypatch.setattr(course.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    with pytest.raises(course.SetupError, match="disk is full"):
        course.add_packages(folder, "site")


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


def test_a_programs_output_and_exit_code_are_returned_and_the_lock_is_handed_on(course, folder):
    with course.setup_lock(folder) as lock:
        held = f"os.fstat({lock.fileno()});" if os.name == "posix" else ""
        code = f"import os, sys; {held} sys.stdout.buffer.write(b'caf\\xe9'); sys.exit(3)"
        assert course.run_shown([sys.executable, "-c", code], lock) == (3, "caf\ufffd")


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
    assert set(course.VERBS) - {"lab", "test", "benchmark", "repair"} == commands


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
        encrypted = "--KernelManager.transport_encryption=auto"
        assert command == [python, "-m", "jupyterlab", start, encrypted, *flags, "--no-browser"]
        assert where == folder


@pytest.mark.parametrize(
    ("options", "environment", "language", "rest"),
    [
        ([], {}, "en", []),
        (["--no-browser"], {"LANG": "zh_CN.UTF-8"}, "zh", ["--no-browser"]),
        ([], {"LANG": "zh_CN.UTF-8", "COURSE_LANGUAGE": "en"}, "en", []),
        (["--language", "zh", "--port", "1"], {}, "zh", ["--port", "1"]),
        (["--port", "1", "--language=zh"], {"COURSE_LANGUAGE": "en"}, "zh", ["--port", "1"]),
    ],
)
def test_lab_in_a_language(course, folder, monkeypatch, options, environment, language, rest):
    for name in ("COURSE_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert course.language_of(options) == (language, rest)
    command, _ = course.command_of("lab", options, folder)
    assert any(part.endswith(course.FIRST_NOTEBOOK_IN.get(language, course.FIRST_NOTEBOOK)) for part in command)


def test_an_unknown_language_is_named(course):
    for options in (["--language", "fr"], ["--language=fr"]):
        with pytest.raises(course.SetupError, match="no language 'fr': write en or zh"):
            course.language_of(options)


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
    (folder / "chapters" / "zh").mkdir()
    for name in ("00_a.ipynb", "01_b.ipynb", "zh/02_c.ipynb", "figures/corgi.png"):
        (folder / "chapters" / name).write_text("new")
    (folder / "work" / "00_a.ipynb").write_text("mine")
    (folder / "work" / "01_b.ipynb.part").write_text("ne")  # an earlier copy was cut short
    course.copy_chapters(folder)
    copies = {path.name: path.read_text() for path in folder.glob("work/**/*.*")}
    assert copies == {"00_a.ipynb": "mine", "01_b.ipynb": "new", "02_c.ipynb": "new", "corgi.png": "new"}


@pytest.mark.parametrize("name", ["work", "work/figures"])
def test_a_file_where_the_notebooks_belong_is_named(course, folder, monkeypatch, capsys, name):
    (folder / "chapters" / "figures").mkdir(parents=True)
    (folder / "chapters" / "figures" / "corgi.png").touch()
    (folder / "chapters" / "00_a.ipynb").touch()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    replace_installation(course, monkeypatch)
    monkeypatch.setattr(course, "hand_over", lambda command, folder: 0)
    assert course.main(["lab"], folder) == 1
    message = capsys.readouterr().err.strip()
    assert is_one_sentence(message) and f"{folder / name} is a file" in message and "rename it" in message
    (folder / name).rename(folder / "mine")
    assert course.main(["lab"], folder) == 0


@pytest.mark.parametrize("step", ["venv", "ensurepip"])
def test_a_disk_that_fills_while_the_environment_is_made_is_named(course, folder, monkeypatch, step):
    def run_shown(command, lock, **environment):
        return (1, "Error: [Errno 28] No space left on device") if step in command else (0, "")

    monkeypatch.setattr(course, "run_shown", run_shown)
    with pytest.raises(course.SetupError, match="disk is full"):
        course.make_venv(folder, None)
