#!/usr/bin/env python3
"""Set the course up and start it: `python3 course.py lab`. Needs nothing but Python itself.

Every verb first makes sure that `.venv`, beside this file, holds the packages that constraints.txt pins. A
stamp in it, written last, says for which packages, Python and folder it was made: while that is right there
is nothing to do. A step that fails ends with one sentence that says what to do.

COURSE_UNPINNED=1 installs the newest packages instead of the pinned ones: to try them, not to learn.
"""

import contextlib
import errno
import functools
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

# Written so that a Python as old as 3.8 can read this file, and say that it is too old.
ROOT = Path(__file__).resolve().parent
FIRST_NOTEBOOK = "work/00_text_in_picture_out.ipynb"
OLDEST, NEWEST = (3, 11), (3, 14)  # the Pythons for which the pinned packages are to be had
TORCH_PLATFORMS = [("Linux", "x86_64"), ("Linux", "aarch64"), ("Windows", "AMD64"), ("Darwin", "arm64")]
OLDEST_MACOS = 14
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CHANGED_PACKAGES = "the list of packages has changed"
DISK_FULL = "the disk is full: free some gigabytes, and start again."
NETWORK_ERRORS = "NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Connection aborted"

# Verbs other than lab, test and benchmark are those of the package's own command line, course_utils/cli.py.
VERBS = {
    "lab": "open the course in JupyterLab; further options are JupyterLab's (--no-browser, --port 8890)",
    "test": "run every test; further options are pytest's",
    "generate": 'draw a picture: generate "a cute corgi puppy sitting on the grass"',
    "train": "train one part of the model again",
    "check": "run your notebooks from nothing, and say which exercises pass: check work/05_*.ipynb",
    "benchmark": "measure; without a name: which benchmarks there are",
    "build": "write the notebooks of chapters/ and solutions/ from solutions/source/",
    "doctor": "say what this machine has, and what the course will use",
}

say = functools.partial(print, flush=True)


class SetupError(Exception):
    """One sentence for the learner: what went wrong in the set-up, and the remedy."""


def main(arguments, folder=ROOT):
    """Set up, then do what the verb says. Returns the exit code: 1 if set-up failed, 2 for a wrong verb."""
    verb = arguments[0] if arguments else "help"
    if verb not in VERBS:
        asked = verb in ("help", "-h", "--help")
        lines = [] if asked else [f"course.py has no verb '{verb}'.\n"]
        lines += ["Usage: python3 course.py VERB [options]\n"]
        lines += [f"  {name:9} {meaning}" for name, meaning in VERBS.items()]
        print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        newly_installed = set_up(folder)
        if verb == "lab":
            if not newly_installed:
                say(describe_machine(folder))
            copy_chapters(folder)
    except SetupError as error:
        print(f"course.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        other = f"{error}: check that you may write there, close programs that use it, and start again."
        print(f"course.py: {DISK_FULL if error.errno == errno.ENOSPC else other}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. If the set-up was not finished, the next start does it.", file=sys.stderr)
        return 130
    return hand_over(*command_of(verb, arguments[1:], folder))


def command_of(verb, options, folder):
    """Return the command that a verb stands for, and the folder to run it in."""
    python = [str(venv_python(folder)), "-m"]
    if verb in ("test", "benchmark"):
        return [*python, {"test": "pytest", "benchmark": "benchmarks"}[verb], *options], folder
    if verb != "lab":
        return [*python, "course_utils.cli", verb, *options], Path.cwd()
    # As the default address, not as a file to open: so it is also what --no-browser prints.
    start = f"--LabApp.default_url=/lab/tree/{FIRST_NOTEBOOK}"
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return [*python, "jupyterlab", start, *as_root, *options], folder


def hand_over(command, folder):
    """Run the command in the folder, to its end, and return its exit code."""
    if os.name == "posix":  # become that program: signals and exit code are its own
        os.chdir(folder)
        os.execv(command[0], command)
    process = subprocess.Popen(command, cwd=folder)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            pass  # the program got the same Ctrl-C, and decides what it means


def venv_python(folder):
    """Return the path of the environment's Python."""
    return folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


# Is the environment there, whole, and the right one?


def wanted_stamp(folder, unpinned):
    """Return what the stamp of a fresh environment says: Python's version, folder, hash of the packages."""
    import tomllib  # not in Pythons before 3.11, which machine_problem has turned away by now

    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = "newest" if unpinned else (folder / "constraints.txt").read_text(encoding="utf-8")
    packages = json.dumps([sorted(project["dependencies"]), pins])
    return {
        "python": "{}.{}".format(*sys.version_info[:2]),
        "folder": str(folder),
        "packages": hashlib.sha256(packages.encode()).hexdigest(),
    }


def stale_reason(folder, wanted):
    """Return why the environment must be made or mended, or None if it is fresh."""
    if not (folder / ".venv").exists():
        return "it is not there yet"
    try:
        stamp = json.loads((folder / ".venv" / "course-stamp.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "an earlier set-up was not finished"
    # samefile, since on macOS and Windows one folder can be spelt in upper and lower case.
    if not (os.path.exists(stamp["folder"]) and os.path.samefile(stamp["folder"], folder)):
        return "the course folder has moved"
    if not venv_python(folder).exists():
        return "the Python that it was made with is gone"
    if stamp["python"] != wanted["python"]:
        return f"it was made with Python {stamp['python']} and this is Python {wanted['python']}"
    return None if stamp["packages"] == wanted["packages"] else CHANGED_PACKAGES


def write_stamp(folder, stamp):
    temporary = folder / ".venv" / "course-stamp.tmp"
    temporary.write_text(json.dumps(stamp), encoding="utf-8")
    os.replace(temporary, folder / ".venv" / "course-stamp.json")


# Making it.


def set_up(folder):
    """Make or mend the environment if it is not fresh. Returns whether there was anything to do."""
    unpinned = os.environ.get("COURSE_UNPINNED") == "1"
    computer = platform.system(), platform.machine(), platform.mac_ver()[0]
    problem = machine_problem(sys.version_info[:2], *computer, sys.maxsize)
    if problem:
        raise SetupError(problem)
    wanted = wanted_stamp(folder, unpinned)
    if stale_reason(folder, wanted) is None:
        return False
    with setup_lock(folder) as lock:
        reason = stale_reason(folder, wanted)  # again: the start that we waited for may have done the work
        if reason is None:
            return False
        say(f"Setting up the course's own Python environment, .venv, because {reason}.")
        started = time.monotonic()
        if reason == CHANGED_PACKAGES:
            # Mended where it is, so that a learner without network keeps what there was.
            write_stamp(folder, {**wanted, "packages": "unfinished"})
        else:
            make_venv(folder)
        install_packages(folder, lock, unpinned)
        quieten_jupyterlab(folder)
        say(describe_machine(folder))  # also proves that torch loads
        write_stamp(folder, wanted)
        say(f"Set-up finished in {time.monotonic() - started:.0f} s; later starts skip it.")
    return True


def machine_problem(version, system, machine, macos, largest_int):
    """Return why the course cannot run here, and the remedy, or None. Facts as sys and platform give them."""
    if not OLDEST <= version <= NEWEST:
        span = "{}.{} to {}.{}".format(*OLDEST, *NEWEST)
        this = "{}.{}".format(*version)
        return f"the course needs Python {span}, this is {this}: get one from https://www.python.org and use it."
    if (system, machine) == ("Darwin", "x86_64"):
        return (
            "PyTorch no longer exists for Intel Macs: use another computer, or Google Colab "
            "(on a Mac with an M chip, install Python's arm64 build)."
        )
    if system == "Darwin" and int(macos.split(".")[0]) < OLDEST_MACOS:
        return f"PyTorch needs macOS {OLDEST_MACOS} or newer, this is {macos}: update macOS."
    if largest_int < 2**32:
        return "PyTorch needs a 64-bit Python, this one has 32 bits: install the 64-bit build of Python."
    if (system, machine) not in TORCH_PLATFORMS:
        return f"PyTorch is not built for {system} on {machine}: use another computer, or Google Colab."
    return None


def has_nvidia():
    """True if this machine shows an NVIDIA GPU."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


@contextlib.contextmanager
def setup_lock(folder):
    """Let one set-up at a time touch the environment; yields the lock's open file.

    The operating system drops the lock when the process ends, however it ends. On Linux and macOS pip is
    handed the file and so holds the lock too: one that outlives its killed parent is waited for.
    """
    with open(folder / ".venv.lock", "a") as file:
        if not take_lock(file):
            say("Another start is at the set-up; waiting for it to finish.")
            while not take_lock(file):
                time.sleep(0.5)
        yield file


def take_lock(file):
    """Take the lock and return True, or return False if another process has it."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def make_venv(folder):
    """Make an empty environment, in place of whatever half of one is there."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    problem = venv_problem(missing, shutil.disk_usage(folder).free / 1e9, 10 if has_nvidia() else 4)
    if problem:
        raise SetupError(problem)
    with contextlib.suppress(FileNotFoundError):
        (folder / ".venv" / "course-stamp.json").unlink()
    command = [sys.executable, "-m", "venv", "--clear", str(folder / ".venv")]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    if made.returncode:
        raise SetupError(
            f"the folder .venv could not be made ({last_line(made.stdout)}): close the programs that use it, "
            "delete it and start again."
        )


def venv_problem(missing_modules, free, needed):
    """Return why an environment cannot be made, and the remedy, or None. Disk space is in gigabytes."""
    if missing_modules:
        return (
            f"this Python lacks its module {' and '.join(missing_modules)}: on Debian and Ubuntu run "
            "'sudo apt install python3-venv', elsewhere reinstall Python from https://www.python.org."
        )
    if free < needed:
        return (
            f"the set-up needs {needed} GB of free disk space, there are {free:.1f} GB: free some, or move "
            "the course folder to a larger disk, and start again."
        )
    return None


def install_packages(folder, lock, unpinned):
    """Install the package course_utils, in place, with everything that it needs."""
    pip = [str(venv_python(folder)), "-m", "pip", "--disable-pip-version-check", "install", "--no-input"]
    constraints = folder / "constraints.txt"
    if unpinned:
        say("COURSE_UNPINNED=1: INSTALLING THE NEWEST PACKAGES, with which the course was not tested.")
    if platform.system() == "Linux" and not has_nvidia():
        pin = re.search(r"^torch==[^\s;]+", constraints.read_text(encoding="utf-8"), re.MULTILINE).group()
        install_cpu_torch([*pip, "torch" if unpinned else pin], folder, lock)
    say("Installing the packages. That takes some minutes, this once.")
    pinned = [] if unpinned else ["-c", str(constraints)]
    code, output = run_logged([*pip, *pinned, "-e", str(folder)], folder, lock)
    if code:
        raise SetupError(pip_problem(output))


def quieten_jupyterlab(folder):
    """JupyterLab's first question, whether it may fetch its makers' news, is no part of a lesson."""
    settings = folder / ".venv" / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    notification = {"fetchNews": "false", "checkForUpdates": False}
    settings.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": notification}), encoding="utf-8")


def install_cpu_torch(pip_install_torch, folder, lock):
    """Install torch's small build without CUDA, which only PyTorch's own index has, if that answers."""
    if answers(CPU_INDEX + "/torch/"):
        say("No NVIDIA GPU found: installing torch's CPU build, from PyTorch's own index.")
        if run_logged([*pip_install_torch, "--no-deps", "--index-url", CPU_INDEX], folder, lock)[0] == 0:
            return
    say(
        "PyTorch's own index, which has a small torch for computers without NVIDIA GPU, cannot be reached: "
        "taking pip's usual torch, which may bring some gigabytes that the course does not need."
    )


def answers(address, seconds=10):
    """True if a web address answers within so many seconds, however many servers its name may stand for."""
    probe = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)"
    command = [sys.executable, "-c", probe, address]
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=seconds).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def run_logged(command, folder, lock):
    """Run a command, its output kept in .venv/install.log; return its exit code and output.

    On a terminal its latest line is shown, over the one before.
    """
    width = shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else 0
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    holds_lock = (lock.fileno(),) if os.name == "posix" else ()
    process = subprocess.Popen(command, encoding="utf-8", errors="replace", pass_fds=holds_lock, **pipes)
    lines = []
    with open(folder / ".venv" / "install.log", "a", buffering=1, encoding="utf-8") as log, process:
        for line in process.stdout:
            lines.append(line)
            log.write(line)
            if width:
                say("\r" + line.strip()[:width].ljust(width), end="\r")
    if width:
        say("\r" + " " * width, end="\r")
    return process.returncode, "".join(lines)


def pip_problem(output):
    """Return the sentence for what pip said when it failed."""
    if "No space left on device" in output:
        return DISK_FULL
    if re.search(NETWORK_ERRORS, output):
        return "packages could not be downloaded: check the network connection (or proxy), and start again."
    return (
        f"pip could not install the packages ({last_line(output)}): read .venv/install.log, or try "
        "'git pull', and start again."
    )


def last_line(output):
    """Return the last error that a program reported, or else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.upper().startswith("ERROR")]
    return (errors or lines or ["it said nothing"])[-1]


# Once it is there.


def describe_machine(folder):
    """Return what the package says of this machine and the device that the course will use."""
    code = "from course_utils.machine.devices import describe_machine; print(describe_machine())"
    command = [str(venv_python(folder)), "-c", code]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if result.returncode:
        raise SetupError(
            f"the installed packages do not work ({last_line(result.stderr)}): if that does not say what to "
            "do, delete the folder .venv and start again."
        )
    return result.stdout.rstrip()


def copy_chapters(folder):
    """Copy each chapter and figure that is not yet in work/. What is there is the learner's."""
    for source in sorted([*folder.glob("chapters/*.ipynb"), *folder.glob("chapters/figures/*.*")]):
        target = folder / "work" / source.relative_to(folder / "chapters")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(target.name + ".part")  # a copy cut short must not pass for a whole one
            shutil.copyfile(source, temporary)
            os.replace(temporary, target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
