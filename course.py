#!/usr/bin/env python3
"""Set the course up and start it: `python3 course.py lab`. Needs nothing but Python itself.

Every verb first makes sure that `.venv`, beside this file, holds the packages that constraints.txt pins. A
stamp in it, marked as finished last, says for which packages, Python and folder it was made: while that is right
there is nothing to do. The environment before is moved aside while a new one is made, and comes back if that fails.
A step that fails ends with one sentence that says what to do.

COURSE_UNPINNED=1 installs the newest packages instead of the pinned ones: to try them, not to learn.
"""

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from importlib import metadata
from pathlib import Path

# Written so that a Python as old as 3.8 can read this file, and say that it is too old.
ROOT = Path(__file__).resolve().parent
FIRST_NOTEBOOK = "work/00_text_in_picture_out.ipynb"
FIRST_NOTEBOOK_IN = {"zh": "work/zh/00_text_in_picture_out.ipynb"}
OLDEST, NEWEST = (3, 11), (3, 14)  # the Pythons for which the pinned packages are to be had
TORCH_PLATFORMS = [("Linux", "x86_64"), ("Linux", "aarch64"), ("Windows", "AMD64"), ("Darwin", "arm64")]
OLDEST_MACOS = 14
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
STAMP = "course-stamp.json"
UNFINISHED = "unfinished"  # stands in a stamp for the hash of the packages, until they are all there
CHANGED_PACKAGES = "the list of packages has changed"
THIS_PYTHON = getattr(sys, "_base_executable", None) or sys.executable  # never that of .venv, which may be replaced
INSTALL_WHAT_IS_MISSING = (
    "install what it names (for 'DLL load failed' Microsoft's Visual C++ Redistributable), and start again."
)
COMMAND = "py course.py" if os.name == "nt" else "python3 course.py"

# Words with which the system or pip says why it failed: what the learner is told. The first that fits counts.
FAULTS = {
    r"Errno 28\b|WinError 112\b|No space left": "the disk is full: free some gigabytes",
    r"Errno (122|69)\b|WinError 1295\b|quota exceeded": "your disk quota is used up: delete some gigabytes of your own",
    r"Errno 30\b|WinError 19\b|Read-only file system": "the disk is read-only: copy the course to one that is not",
    r"407 (Proxy Auth|Client Error)": "the proxy asks for a name and a password: set HTTPS_PROXY and HTTP_PROXY to "
    "http://NAME:PASSWORD@HOST:PORT",
    r"CERTIFICATE_VERIFY_FAILED|SSLError": "the certificate of the package server was refused: set this computer's "
    "clock; behind a filter with a certificate of its own set REQUESTS_CA_BUNDLE to the path of that file",
    r"40[134] Client Error|HTTP error 40[134]|failed: 40[13]": "the package server refuses a package, or lacks it: use "
    "another network, or set PIP_INDEX_URL to another package server",
    r"DO NOT MATCH THE HASHES|is invalid\.|BadZipFile|IncompleteRead|not enough bytes": "a package arrived damaged: "
    "set PIP_NO_CACHE_DIR=1, which loads it again",
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Connection aborted|ConnectionReset|"
    r"Max retries exceeded": "packages could not be downloaded: check the network connection (or proxy)",
    r"Errno 13?\b|WinError (5|32)\b|Permission denied": "a file may not be written: close the programs that use the "
    "course; if that does not help, copy it into a folder of your own",
}

# Verbs other than lab, test and benchmark are those of the package's own command line, course_utils/cli.py.
VERBS = {
    "lab": "open the course in JupyterLab (--language zh: in Chinese); further options are JupyterLab's (--port 8890)",
    "test": "run every test; further options are pytest's",
    "generate": 'draw a picture: generate "a cute corgi puppy sitting on the grass"',
    "studio": "draw, edit, paint masks and plot in the browser; options: --port, --folder, --model",
    "export-onnx": "write the model as ONNX; with --page, a page too that draws in the browser",
    "card": "say what the picture-book model is for and where it fails: its model card, as Markdown",
    "train": "train one part of the model again",
    "check": "run your notebooks from nothing, and say which exercises pass: check work/05_*.ipynb",
    "benchmark": "measure; without a name: which benchmarks there are",
    "build": "write the notebooks of chapters/ and solutions/ from solutions/source/",
    "site": "build the whole course as a web book, into the folder site (--output)",
    "repair": "make the environment of the course again; the present one stays until the new one is whole",
    "doctor": "say what this machine has, and what the course will use",
}


def say(text, **how):
    """Print a text at once, in the learner's language."""
    print(in_their_language(text), flush=True, **how)


def in_their_language(text):
    """Return a text in the learner's language, or as it is where Python is too old for the package."""
    try:
        from course_utils.language import translated

        return translated(text)
    except Exception:  # English is better than nothing
        return text


class SetupError(Exception):
    """One sentence for the learner: what went wrong in the set-up, and the remedy."""


def main(arguments, folder=ROOT):
    """Set up, then do what the verb says. Returns the exit code: 1 if set-up failed, 2 for a wrong verb."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a console that lacks a letter stops nothing
    verb = arguments[0] if arguments else "help"
    if verb not in VERBS:
        asked = verb in ("help", "-h", "--help")
        lines = [] if asked else [f"course.py has no verb '{verb}'.\n"]
        lines += [f"Usage: {COMMAND} VERB [options]\n"]
        lines += [f"  {name:11} {in_their_language(meaning)}" for name, meaning in VERBS.items()]
        say("\n".join(lines), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        if verb == "lab":
            os.environ["COURSE_LANGUAGE"] = language_of(arguments[1:])[0]  # what set-up, checks and widgets say
        newly_installed = set_up(folder, again=verb == "repair")
        if verb == "repair":
            return 0
        if verb in ("export-onnx", "site"):
            add_packages(folder, "site")
        if verb == "lab":
            if not newly_installed:
                say(describe_machine(folder, f"run '{COMMAND} repair'."))
            copy_chapters(folder)
        return hand_over(*command_of(verb, arguments[1:], folder))
    except SetupError as error:
        say(f"course.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        other = f"{error}: check that it is there and that you may write there, and start again."
        say(f"course.py: {known_fault(str(error)) or other}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("\nStopped. If the set-up was not finished, the next start does it.", file=sys.stderr)
        return 130


def known_fault(text):
    """Return the sentence for what the system or pip said, or None."""
    return next((f"{told}, and start again." for words, told in FAULTS.items() if re.search(words, text)), None)


def command_of(verb, options, folder):
    """Return the command that a verb stands for, and the folder to run it in."""
    python = [str(venv_python(folder)), "-m"]
    if verb in ("test", "benchmark"):
        return [*python, {"test": "pytest", "benchmark": "benchmarks"}[verb], *options], folder
    if verb != "lab":
        return [*python, "course_utils.cli", verb, *options], Path.cwd()
    language, options = language_of(options)
    # As the default address, not as a file to open: so it is also what --no-browser prints.
    start = f"--LabApp.default_url=/lab/tree/{FIRST_NOTEBOOK_IN.get(language, FIRST_NOTEBOOK)}"
    encrypted = "--KernelManager.transport_encryption=auto"  # else each kernel warns of its plain connection
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return [*python, "jupyterlab", start, encrypted, *as_root, *options], folder


def language_of(options):
    """Return the language that options of `lab`, COURSE_LANGUAGE or the system ask for, and the other options."""
    options, asked = list(options), os.environ.get("COURSE_LANGUAGE")
    for at, option in enumerate(options):
        if option == "--language" or option.startswith("--language="):
            end = at + 1 if "=" in option else at + 2
            asked = "".join(options[at:end]).replace("--language", "").lstrip("=")
            del options[at:end]
            break
    if asked and asked not in ("en", *FIRST_NOTEBOOK_IN):
        known = " or ".join(("en", *FIRST_NOTEBOOK_IN))
        raise SetupError(f"the course has no language {asked!r}: write {known}.")
    system = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return asked or ("zh" if system.lower().startswith("zh") else "en"), options


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


def read_requirements(folder):
    """Return the packages that the course asks for, the text that pins them and all below them, and torch's pin."""
    import tomllib  # not in Pythons before 3.11, which machine_problem has turned away by now

    name = "pyproject.toml"
    try:
        dependencies = sorted(tomllib.loads((folder / name).read_text(encoding="utf-8"))["project"]["dependencies"])
        name = "constraints.txt"
        pins = (folder / name).read_text(encoding="utf-8")
        if not all(re.match(r"[\w.-]+==\d|#|$", line) for line in pins.splitlines()):
            raise ValueError("a line is no pin")
        return dependencies, pins, re.search(r"^torch==[^\s;]+", pins, re.MULTILINE).group()
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        raise SetupError(
            f"{name} is missing or damaged: restore it with 'git -C \"{folder}\" checkout HEAD -- {name}', or download "
            "the course again, and start again."
        ) from None


def wanted_stamp(folder, unpinned):
    """Return what the stamp of a fresh environment says: Python's version, folder, hash of the packages."""
    dependencies, pins, _ = read_requirements(folder)
    packages = json.dumps([dependencies, "newest" if unpinned else pins])
    return {
        "python": "{}.{}".format(*sys.version_info[:2]),
        "folder": str(folder),
        "packages": hashlib.sha256(packages.encode()).hexdigest(),
    }


def stale_reason(folder, wanted):
    """Return why the environment must be made or repaired, or None if it is fresh."""
    if not (folder / ".venv").exists():
        return "it is not there yet"
    if not is_finished(folder):
        return "an earlier set-up was not finished"
    stamp = {name: str(read_stamp(folder).get(name)) for name in wanted}
    # samefile, since on macOS and Windows one folder can be spelt in upper and lower case.
    if not (os.path.exists(stamp["folder"]) and os.path.samefile(stamp["folder"], folder)):
        return f"the course folder has moved here from {stamp['folder']}"
    if not venv_python(folder).exists():
        return "the Python that it was made with is gone"
    if stamp["python"] != wanted["python"]:
        return f"it was made with Python {stamp['python']} and this is Python {wanted['python']}"
    if stamp["packages"] != wanted["packages"]:
        return CHANGED_PACKAGES
    missing = missing_package(folder)
    return missing and f"its package {missing} is missing"


def missing_package(folder):
    """Return a package that was installed and is no longer there, or None. Looks at names of files only."""
    base = str(folder / ".venv")
    site = sysconfig.get_path("purelib", "venv", {"base": base, "platbase": base})
    names = [re.match(r"[\w.-]+", requirement).group() for requirement in read_requirements(folder)[0]]
    for name in [*names, "course-utils"]:
        found = next(metadata.Distribution.discover(name=name, path=[site]), None)
        record = found and found.read_text("RECORD")  # a line for each file, its path from `site` first
        modules = re.findall(r"^([^/,]+/__init__\.py),", record or "", re.MULTILINE)
        if not record or not all(os.path.exists(os.path.join(site, module)) for module in modules):
            return name
    return None


def read_stamp(folder):
    """Return what the environment's stamp says; {} if it is not there or not readable."""
    try:
        stamp = json.loads((folder / ".venv" / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def is_finished(folder):
    return read_stamp(folder).get("packages", UNFINISHED) != UNFINISHED


def write_stamp(folder, stamp):
    temporary = folder / ".venv" / (STAMP + ".part")
    temporary.write_text(json.dumps(stamp), encoding="utf-8")
    os.replace(temporary, folder / ".venv" / STAMP)


# Making it.


def set_up(folder, again=False):
    """Make or repair the environment if it is not fresh, or if asked. Returns whether there was anything to do."""
    unpinned = os.environ.get("COURSE_UNPINNED") == "1"
    computer = platform.system(), platform.machine(), platform.mac_ver()[0]
    problem = machine_problem(sys.version_info[:2], *computer, sys.maxsize)
    if problem:
        raise SetupError(problem)
    wanted = wanted_stamp(folder, unpinned)
    venv, previous, discarded = places(folder)
    if not (again or previous.exists() or discarded.exists()) and stale_reason(folder, wanted) is None:
        return False
    with setup_lock(folder) as lock:
        refuse_foreign(venv)
        settle(folder)
        # Asked again: the start that we waited for may have done the work.
        reason = "it is to be made again" if again else stale_reason(folder, wanted)
        if reason is None:
            return False
        say(f"Setting up the course's own Python environment, .venv, because {reason}.")
        started = time.monotonic()
        try:
            begin(folder, wanted)
            if reason == CHANGED_PACKAGES:  # repaired in a copy: most of it stays as it is, and need not be loaded
                shutil.copytree(previous, venv, True, shutil.ignore_patterns(STAMP), dirs_exist_ok=True)
            else:
                make_venv(folder, lock)
            install_packages(folder, lock, unpinned)
            quieten_jupyterlab(folder)
            say(describe_machine(folder, INSTALL_WHAT_IS_MISSING))  # also proves that torch loads
            write_stamp(folder, wanted)
        finally:
            settle(folder)
        say(f"Set-up finished in {time.monotonic() - started:.0f} s; later starts skip it.")
    return True


def places(folder):
    """Return where the environment lies, where it waits while a new one is made, and where it goes to be deleted."""
    venv = Path(os.path.realpath(folder / ".venv"))  # it may be a link, to another disk
    return venv, venv.with_name(venv.name + "-before-set-up"), venv.with_name(venv.name + "-discarded")


def refuse_foreign(venv):
    """Raise if the learner has something at this place: what our set-up began has a stamp, or is still empty."""
    if (venv / STAMP).exists() or not os.path.lexists(venv):
        return
    if not venv.is_dir() or any(path.name != STAMP + ".part" for path in venv.iterdir()):
        raise SetupError(f"{venv} is not an environment that the course made: rename it, and start again.")


def begin(folder, wanted):
    """Move the environment aside if it was ever finished, and put an empty one, marked as unfinished, in its place."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    venv, previous, discarded = places(folder)
    problem = venv_problem(missing, shutil.disk_usage(venv.parent).free / 1e9, 10 if has_nvidia() else 4)
    if problem:
        raise SetupError(problem)
    if (venv / STAMP).exists():
        os.rename(venv, discarded if read_stamp(folder).get("packages") == UNFINISHED else previous)
    venv.mkdir(exist_ok=True)
    write_stamp(folder, {**wanted, "packages": UNFINISHED})


def settle(folder):
    """However a set-up ended, leave one environment: the new one if it is whole, else the one before."""
    venv, previous, discarded = places(folder)
    shutil.rmtree(discarded, ignore_errors=True)
    if previous.exists() and is_finished(folder):
        os.rename(previous, discarded)
    elif previous.exists():
        if venv.exists():
            os.rename(venv, discarded)  # in one go, so that no half of it passes for something of the learner's
        os.rename(previous, venv)
        say("The environment is as it was before.")
    shutil.rmtree(discarded, ignore_errors=True)


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


def make_venv(folder, lock):
    """Make an environment with nothing but pip."""
    make = [THIS_PYTHON, "-m", "venv", "--without-pip", str(places(folder)[0])]
    add_pip = [str(venv_python(folder)), "-Im", "ensurepip", "--upgrade", "--default-pip"]
    for command in (make, add_pip):  # in two steps, since venv hides what ensurepip says
        code, output = run_shown(command, lock)
        if code:
            raise SetupError(
                known_fault(output)
                or f"the environment could not be made ({last_line(output)}): install Python again, from "
                "https://www.python.org, and start again."
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
    log = folder / ".venv.log"  # only here pip tells why a server did not answer, or a build failed
    pip, pinned = pip_install(folder, unpinned)
    if unpinned:
        say("COURSE_UNPINNED=1: INSTALLING THE NEWEST PACKAGES, with which the course was not tested.")
    if platform.system() == "Linux" and not has_nvidia():
        install_cpu_torch([*pip, "torch" if unpinned else read_requirements(folder)[2]], lock)
    say("Installing the packages. That takes some minutes, this once.")
    log.unlink(missing_ok=True)
    # Named in the environment, so that the pips that pip itself starts write there too.
    code, output = run_shown([*pip, *pinned, "-e", str(folder)], lock, PIP_LOG=str(log))
    if code:
        raise SetupError(pip_problem(output, log.read_text("utf-8", "replace") if log.exists() else ""))


def pip_install(folder, unpinned):
    """Return the command that installs into the environment, and the options for the pinned versions."""
    pip = [str(venv_python(folder)), "-m", "pip", "--disable-pip-version-check", "install", "--no-input"]
    return pip, [] if unpinned else ["-c", str(folder / "constraints.txt")]


def add_packages(folder, extra):
    """Install what only one verb needs, an extra of pyproject.toml, unless it is there."""
    import tomllib

    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"][extra]
    look = "import importlib.metadata, sys; [importlib.metadata.version(name) for name in sys.argv[1:]]"
    names = [re.match(r"[\w.-]+", requirement).group() for requirement in wanted]
    if subprocess.run([str(venv_python(folder)), "-c", look, *names], stderr=subprocess.DEVNULL).returncode == 0:
        return
    say(f"Installing what '{extra}' needs, this once.")
    pip, pinned = pip_install(folder, os.environ.get("COURSE_UNPINNED") == "1")
    with setup_lock(folder) as lock:
        code, output = run_shown([*pip, *pinned, *wanted], lock)
    if code:
        raise SetupError(pip_problem(output))


def quieten_jupyterlab(folder):
    """JupyterLab's first question, whether it may fetch its makers' news, is no part of a lesson."""
    settings = folder / ".venv" / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    notification = {"fetchNews": "false", "checkForUpdates": False}
    settings.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": notification}), encoding="utf-8")


def install_cpu_torch(pip_install_torch, lock):
    """Install torch's small build without CUDA, which only PyTorch's own index has, if that answers."""
    if answers(CPU_INDEX + "/torch/"):
        say("No NVIDIA GPU found: installing torch's CPU build, from PyTorch's own index.")
        if run_shown([*pip_install_torch, "--no-deps", "--index-url", CPU_INDEX], lock)[0] == 0:
            return
    say(
        "PyTorch's own index, which has a small torch for computers without NVIDIA GPU, could not be used: "
        "taking pip's usual torch, which may bring some gigabytes that the course does not need."
    )


def answers(address, seconds=10):
    """True if a web address answers within so many seconds, however many servers its name may stand for."""
    probe = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)"
    command = [THIS_PYTHON, "-c", probe, address]
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=seconds).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def run_shown(command, lock, **environment):
    """Run a command and return its exit code and output, of which a terminal shows the latest line, in one place."""
    width = shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else 0
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    pipes["pass_fds"] = (lock.fileno(),) if os.name == "posix" else ()
    environment = {**os.environ, **environment}
    lines = []
    with subprocess.Popen(command, env=environment, encoding="utf-8", errors="replace", **pipes) as process:
        try:
            for line in process.stdout:
                lines.append(line)
                if width:
                    say("\r" + line.strip()[:width].ljust(width), end="\r")
        except BaseException:
            process.kill()  # else it would go on writing to what is now taken back
            process.wait()
            raise
    if width:
        say("\r" + " " * width, end="\r")
    return process.returncode, "".join(lines)


def pip_problem(output, log=""):
    """Return the sentence for what pip said when it failed, and wrote into its log."""
    if re.search("No matching distribution|ResolutionImpossible|subprocess-exited-with-error", output):
        output = "\n".join([output, *re.findall(r"Could not fetch URL.*|ERROR: .*", log)])
    return known_fault(output) or (
        f"pip could not install the packages ({last_line(output)}): read .venv.log, from its end, or get the newest "
        "version of the course, and start again."
    )


def last_line(output):
    """Return the last error that a program reported, or else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match("ERROR|Error", line) and line != "ERROR: Exception:"]
    return (errors or lines or ["it said nothing"])[-1]


# Once it is there.


def describe_machine(folder, remedy):
    """Return what the package says of this machine and the device that the course will use."""
    code = (
        "from course_utils.machine import devices\n"
        "try: print(devices.describe_machine())\n"
        "except ValueError as error: print(error)"  # a COURSE_DEVICE that is not there
    )
    command = [str(venv_python(folder)), "-c", code]
    result = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace")
    if result.returncode:
        raise SetupError(f"the installed packages do not work ({last_line(result.stderr)}): {remedy}")
    return result.stdout.rstrip()


def copy_chapters(folder):
    """Copy each chapter and figure that is not yet in work/. What is there is the learner's."""
    patterns = ("chapters/*.ipynb", "chapters/zh/*.ipynb", "chapters/figures/*.*")
    for source in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        target = folder / "work" / source.relative_to(folder / "chapters")
        for place in (folder / "work", target.parent):
            if place.exists() and not place.is_dir():
                raise SetupError(
                    f"{place} is a file, and your notebooks need a folder of that name: rename it, and start again."
                )
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(target.name + ".part")  # a copy cut short must not pass for a whole one
            shutil.copyfile(source, temporary)
            os.replace(temporary, target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
