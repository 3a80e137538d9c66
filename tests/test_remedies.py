"""What course.py advises is carried out on the fault for which it says it, with the real pip and servers of our own."""

import hashlib
import http.server
import io
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from launching import ROOT, course_folder, is_one_sentence, load_course, make_fresh, replace_installation


@pytest.fixture
def course():
    return load_course()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_UNPINNED", raising=False)
    return course_folder(tmp_path)


# pip's faults

BUILDER = """
import pathlib, zipfile
METADATA = "Metadata-Version: 2.1\\nName: course-utils\\nVersion: 0.1.0\\nRequires-Dist: probe-package\\n"
INFORMATION = "course_utils-0.1.0.dist-info"
def prepare_metadata_for_build_editable(folder, settings=None):
    (pathlib.Path(folder) / INFORMATION).mkdir()
    (pathlib.Path(folder) / INFORMATION / "METADATA").write_text(METADATA)
    return INFORMATION
def build_editable(folder, settings=None, metadata=None):
    name = "course_utils-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.writestr("course_utils.pth", str(pathlib.Path.cwd()))
        wheel.writestr(INFORMATION + "/METADATA", METADATA)
        wheel.writestr(INFORMATION + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(INFORMATION + "/RECORD", "")
    return name
"""
PROJECT = """
[build-system]
requires = ["probe-builder"]
build-backend = "probe_builder"
[project]
name = "course-utils"
version = "0.1.0"
dependencies = ["probe-package"]
"""


def wheel_of(name, code):
    """The bytes of a package with one module."""
    information, buffer = f"{name}-1.0.dist-info", io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", code)
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")
    return buffer.getvalue()


WHEELS = {"probe_package": wheel_of("probe_package", ""), "probe_builder": wheel_of("probe_builder", BUILDER)}


class PackageServer(http.server.BaseHTTPRequestHandler):
    """A package server, or a proxy before one. server.fault: what is wrong with it; a number is its answer to all."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        fault = self.server.fault
        if isinstance(fault, int) and "Proxy-Authorization" not in self.headers:
            self.send_error(fault)
        elif fault == "silent":
            self.close_connection = True
        else:
            name = re.search(r"probe.(builder|package)", self.path).group().replace("-", "_")
            wheel, file = WHEELS[name], f"{name}-1.0-py3-none-any.whl"
            damaged = fault in ("damaged", "no hash") or fault == f"damaged {name}"
            if self.path.endswith(".whl"):
                self.answer(wheel[:-8] + bytes(8) if damaged else wheel)
            else:
                fragment = "" if fault == "no hash" else "#sha256=" + hashlib.sha256(wheel).hexdigest()
                self.answer(f'<a href="/{file}{fragment}">{file}</a>'.encode())

    do_CONNECT = do_GET

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(fault=None, certificate=None):
    """Run such a server; yields it and its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), PackageServer) as server:
        server.fault = fault
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server, f"http{'s' if certificate else ''}://localhost:{server.server_port}/simple/"
        server.shutdown()


@pytest.fixture
def small_course(course, folder, monkeypatch):
    """A course that asks for one package, from a server that the test names in PIP_INDEX_URL."""
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "constraints.txt").write_text("probe-package==1.0\ntorch==2.0\n")
    for name in os.environ:
        if name.startswith("PIP_") or name.lower().endswith("proxy") or name.endswith("CA_BUNDLE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setattr(course, "install_cpu_torch", lambda command, lock: None)
    return course


@pytest.fixture
def install(small_course, folder, monkeypatch):
    """A function that lets the real pip do all but the last step, and returns the learner's sentence, or None."""
    pytest.importorskip("pip")
    run_shown = small_course.run_shown
    dry = lambda command, lock, **environment: run_shown([*command, "--dry-run"], lock, **environment)  # noqa: E731
    monkeypatch.setattr(small_course, "run_shown", dry)
    monkeypatch.setattr(small_course, "venv_python", lambda folder: sys.executable)

    def run():
        try:
            with small_course.setup_lock(folder) as lock:
                small_course.install_packages(folder, lock, unpinned=False)
        except small_course.SetupError as error:
            assert is_one_sentence(str(error))
            return str(error)
        return None

    return run


def test_a_proxy_that_wants_a_password(install, monkeypatch):
    with serving(407) as (server, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple/")
        assert "http://NAME:PASSWORD@HOST:PORT" in install()  # at CONNECT, as for the real index
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("PIP_INDEX_URL", "http://index.invalid/simple/")
        monkeypatch.setenv("PIP_TRUSTED_HOST", "index.invalid")
        assert "set HTTPS_PROXY and HTTP_PROXY to http://NAME:PASSWORD@HOST:PORT" in install()
        monkeypatch.setenv("HTTP_PROXY", f"http://name:password@127.0.0.1:{server.server_port}")
        assert install() is None


@pytest.mark.parametrize("fault", [403, 404])
def test_a_server_that_refuses(install, monkeypatch, fault):
    with serving(fault) as (_, address), serving() as (_, other):
        monkeypatch.setenv("PIP_INDEX_URL", address)
        assert "set PIP_INDEX_URL to another package server" in install()
        monkeypatch.setenv("PIP_INDEX_URL", other)
        assert install() is None


def test_a_certificate_that_is_not_known(install, monkeypatch, tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl, to make a certificate")
    file = tmp_path / "own.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", file, "-out", tmp_path / "certificate", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True,
    )  # fmt: skip
    file.write_text(file.read_text() + (tmp_path / "certificate").read_text())
    with serving(certificate=file) as (_, address):
        monkeypatch.setenv("PIP_INDEX_URL", address)
        assert "set REQUESTS_CA_BUNDLE to the path" in install()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate"))
        assert install() is None


@pytest.mark.parametrize(
    "fault, remedy",
    [
        ("damaged", "set PIP_NO_CACHE_DIR=1"),
        ("damaged probe_package", "set PIP_NO_CACHE_DIR=1"),
        ("no hash", "set PIP_NO_CACHE_DIR=1"),
        ("silent", "check the network connection"),
    ],
)
def test_a_download_that_fails_and_then_goes_well(install, monkeypatch, fault, remedy):
    with serving(fault) as (server, address):
        monkeypatch.setenv("PIP_INDEX_URL", address)
        assert remedy in install()
        server.fault = None
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        assert install() is None


def test_the_real_steps_keep_the_environment_when_the_folder_has_moved_without_network(
    small_course, folder, monkeypatch
):
    course = small_course
    (folder / "course_utils" / "machine").mkdir(parents=True)
    for name in ("__init__.py", "machine/__init__.py"):
        (folder / "course_utils" / name).touch()
    (folder / "course_utils" / "machine" / "devices.py").write_text(
        "import probe_package\ndef describe_machine(): return 'it works'"
    )
    monkeypatch.delenv("PYTHONPATH", raising=False)  # else the real course_utils would be found
    with serving() as (_, address):
        monkeypatch.setenv("PIP_INDEX_URL", address)
        assert course.main(["repair"], folder) == 0
    assert course.set_up(folder) is False
    moved = folder.rename(folder.parent / "moved")
    monkeypatch.setattr(course, "make_venv", lambda folder, lock: None)  # the second real one would prove no more
    monkeypatch.setattr(course, "venv_python", lambda folder: sys.executable)
    assert course.main(["doctor"], moved) == 1
    moved.rename(folder)
    monkeypatch.undo()
    fresh = load_course()
    assert fresh.set_up(folder) is False
    assert fresh.describe_machine(folder, "") == "it works"


# The launcher's own faults


def break_file(folder, name, content):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    "name, content",
    [
        ("pyproject.toml", None),
        ("pyproject.toml", b"[project"),
        ("pyproject.toml", b"[project]\n"),
        ("pyproject.toml", b"project = 3\n"),
        ("pyproject.toml", b"[project]\ndependencies = 3\n"),
        ("pyproject.toml", b"\xff"),
        ("constraints.txt", None),
        ("constraints.txt", b""),
        ("constraints.txt", b"tqdm==1.0\n"),
        ("constraints.txt", b"<<<<<<< HEAD\ntorch==2.13.0\n"),
        ("constraints.txt", b"\xff"),
    ],
)
def test_a_broken_list_of_packages_is_restored(course, folder, monkeypatch, capsys, name, content):
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", "-C", folder, *command], check=True)
    make_fresh(course, folder)
    break_file(folder, name, content)
    monkeypatch.setattr(course, "hand_over", lambda command, folder: 0)
    assert course.main(["doctor"], folder) == 1
    message = capsys.readouterr().err.strip()
    assert is_one_sentence(message) and message.startswith(f"course.py: {name} is missing or damaged")
    subprocess.run(shlex.split(re.search("'(git .*?)'", message)[1]), check=True, capture_output=True)
    assert course.main(["doctor"], folder) == 0


@pytest.mark.parametrize("verb", ["lab", "repair"])
def test_packages_that_do_not_work_are_repaired(course, folder, monkeypatch, capsys, verb):
    make_fresh(course, folder)
    python = course.venv_python(folder)
    python.write_text("#!/bin/sh\necho 'ImportError: no libtorch' >&2; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(course, "hand_over", lambda command, folder: 0)
    if verb == "lab":
        assert course.main(["lab"], folder) == 1
        message = capsys.readouterr().err.strip()
        assert is_one_sentence(message) and "(ImportError: no libtorch)" in message
        assert f"run '{course.COMMAND} repair'." in message
    replace_installation(course, monkeypatch)
    assert course.main(["repair"], folder) == 0
    assert course.main(["lab"], folder) == 0


def test_a_folder_that_is_gone_is_one_sentence(course, folder, monkeypatch, capsys, tmp_path):
    make_fresh(course, folder)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert course.main(["doctor"], folder) == 1
    assert is_one_sentence(capsys.readouterr().err.strip())


def test_advice_on_the_machine_is_true(course):
    """With what the advice names, the fault is gone."""
    fit = ((3, 12), "Linux", "x86_64", "", sys.maxsize)
    assert course.machine_problem(*fit) is None
    old = course.machine_problem((3, 10), *fit[1:])
    named = [tuple(map(int, version.split("."))) for version in re.search(r"Python (\S+) to (\S+),", old).groups()]
    assert all(course.machine_problem(version, *fit[1:]) is None for version in named)
    macos = course.machine_problem((3, 12), "Darwin", "arm64", "13.1", sys.maxsize)
    newer = re.search(r"macOS (\d+) or newer", macos)[1]
    assert course.machine_problem((3, 12), "Darwin", "arm64", newer, sys.maxsize) is None
    disk = course.venv_problem([], free=1, needed=4)
    assert course.venv_problem([], free=int(re.search(r"needs (\d+) GB", disk)[1]), needed=4) is None


# A console that lacks a letter


@pytest.mark.skipif(os.name == "nt", reason="the file name would have to be spelt in the console's letters")
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_the_launcher_prints_on_every_console(folder, encoding):
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import course\n"
        "course.set_up = lambda folder, again: course.say('\\u67ef\\udcff')\n"
        "sys.exit(course.main(['repair'], pathlib.Path('.')))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run([sys.executable, "-c", code, str(ROOT)], env=environment, capture_output=True)
    assert (result.returncode, result.stdout.strip()) == (0, rb"\u67ef\udcff"), result.stderr


def test_the_command_line_prints_on_every_console_and_loses_no_picture(tmp_path, monkeypatch):
    import tiny

    from course_utils import cli
    from course_utils.pipelines.picture_book import save_pipeline
    from course_utils.pipelines.png_info import read_png

    save_pipeline(tiny.tiny_pipeline(), tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    with open("said", "w", encoding="cp1252") as out, open("noted", "w", encoding="cp1252") as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as end:
            cli.app(["generate", "корги", "puppy", "--count", "3", "--steps", "1", "--model", "tiny"])
    monkeypatch.undo()
    pictures = sorted(tmp_path.glob("*.png"))
    assert end.value.code == 0 and len(pictures) == 3
    assert all(read_png(path).prompt == "корги puppy" for path in pictures)
    assert r"\u043a" in Path(tmp_path / "said").read_text() + Path(tmp_path / "noted").read_text()
