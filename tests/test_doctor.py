"""What `doctor` finds, and that its remedies remove what it finds."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from course_utils import cli, doctor

ROOT = Path(__file__).resolve().parent.parent
NAMED = ["-c", "user.name=a", "-c", "user.email=a@b.c"]


def run():
    return CliRunner().invoke(cli.app, ["doctor"])


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *NAMED, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """A course in a repository, with two shipped files and their manifest; packages as they should be."""
    course = tmp_path / "my course"
    folder = course / "course_utils" / "checkpoints"
    (folder / "book").mkdir(parents=True)
    files = {"judge.json": b'"judge"\n', "book/unet.bin": b"unet"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    entries = {n: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for n, c in files.items()}
    (folder / "manifest.json").write_text(json.dumps({"files": entries, "training": {}}))
    git(tmp_path, "init", "-q", str(course))
    git(course, "add", ".")
    git(course, "commit", "-qm", "all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    monkeypatch.setattr(doctor, "CHECKPOINTS", folder)
    monkeypatch.setattr(doctor, "ROOT", course)
    monkeypatch.setattr(doctor, "LEAST_DISK", 0)
    return folder


def carry_out(fault):
    """Do what a fault's sentence says: delete the file that it names first if it says so, and run its command."""
    path, command = re.fullmatch(r"Fault: (.+?) (?:is|has) .*`(git .+?)`.*\.", fault).groups()
    if "delete it" in fault:
        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
    subprocess.run(shlex.split(command), check=True, capture_output=True)


def test_doctor_finds_nothing_wrong(checkpoints):
    (checkpoints / "mine.bin").write_bytes(b"")
    result = run()
    assert result.exit_code == 0, result.output
    assert "torch 2" in result.stdout and "Device:" in result.stdout and "GiB free" in result.stdout
    assert "Note: mine.bin is not in the manifest" in result.stdout and result.stdout.count("Note:") == 1
    assert "All is well." in result.stdout


def without_training(folder):
    content = json.loads((folder / "manifest.json").read_text())
    del content["training"]
    (folder / "manifest.json").write_text(json.dumps(content))


def make_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "harm, words",
    [
        (lambda folder: (folder / "judge.json").unlink(), "judge.json is missing"),
        (lambda folder: git(folder, "rm", "-qf", "judge.json"), "judge.json is missing"),
        (lambda folder: (folder / "judge.json").write_bytes(b'"jUdge"\n'), "judge.json has changed"),
        (lambda folder: (folder / "judge.json").write_bytes(b'"judge"\r\n'), "judge.json has changed"),
        (lambda folder: (folder / "book/unet.bin").write_bytes(b"longer"), "unet.bin has changed"),
        (lambda folder: make_folder(folder / "book/unet.bin"), "unet.bin has changed"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[" * 100_000), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff"), "manifest.json is damaged"),
        (without_training, "manifest.json is damaged"),
    ],
)
def test_the_remedy_of_a_damaged_file_removes_the_fault(checkpoints, harm, words):
    harm(checkpoints)
    result = run()
    assert result.exit_code == 1
    assert words in result.stderr and result.stderr.count("Fault:") == result.stderr.count("\n") == 1
    assert "All is well" not in result.stdout
    (checkpoints / "mine.bin").write_bytes(b"mine")
    carry_out(result.stderr.strip())
    assert run().exit_code == 0
    assert (checkpoints / "mine.bin").read_bytes() == b"mine"


def test_doctor_names_packages_that_are_missing_or_of_another_version(checkpoints, monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ["torch", "typer", "no-such-package"])
    (doctor.ROOT / "constraints.txt").write_text("# exact\ntorch==9.9.9\ntyper==1 ; python == 'x'\n")
    result = run()
    assert result.exit_code == 1
    assert f"tested is 9.9.9: {doctor.REINSTALL}." in result.stderr
    assert f"no-such-package is not installed: {doctor.REINSTALL}." in result.stderr
    assert "typer is" not in result.stderr


def test_the_course_repairs_its_own_environment_and_pip_another():
    code = "import sys; sys.prefix = sys.argv[1]; from course_utils import doctor; print(doctor.REINSTALL)"
    for prefix, words in ((ROOT / ".venv", "course.py repair` in the"), (ROOT / "conda", "-m pip install")):
        result = subprocess.run([sys.executable, "-c", code, str(prefix)], cwd=ROOT, capture_output=True, text=True)
        assert words in result.stdout, result.stderr


def test_a_device_that_is_not_there_is_one_fault_and_its_remedy_removes_it(checkpoints, monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "abacus")
    result = run()
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "unset it" in result.stderr and "Packages:" in result.stdout
    monkeypatch.delenv("COURSE_DEVICE")
    assert run().exit_code == 0


def test_a_full_disk_is_a_fault_until_something_is_deleted(checkpoints, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_DISK", 10**9)
    assert "delete what is not needed" in run().stderr
    monkeypatch.setattr(doctor, "LEAST_DISK", 0)
    assert run().exit_code == 0


VERBS = [
    ["doctor"],
    ["generate", "a", "--size", "48"],
    ["train", "vae"],
    ["check", "chapters/05_forward_diffusion.ipynb"],
    ["build"],
]


@pytest.mark.parametrize("missing, verbs", [("torch", VERBS[:3]), ("jupyter_client", VERBS[3:4]), ("typer", VERBS)])
def test_every_verb_says_in_one_sentence_that_a_package_is_missing(missing, verbs):
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "for arguments in eval(sys.argv[2]):\n"
        "    try: from course_utils.cli import app; app(arguments)\n"
        "    except SystemExit as end: print(end.code if isinstance(end.code, str) else '', file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, missing, repr(verbs)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if line]
    assert len(said) == len(verbs) and all(missing in line and doctor.REINSTALL in line for line in said), said


# A clone made by a Git that writes \r\n


def clone_with_carriage_returns(tmp_path, attributes):
    """Clone, as Git on Windows does by default, a repository of the shipped checkpoints."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    shutil.copytree(ROOT / "course_utils" / "checkpoints", origin / "course_utils" / "checkpoints")
    if attributes:
        shutil.copy(ROOT / ".gitattributes", origin)
    git(tmp_path, "init", "-q", str(origin))
    git(origin, "-c", "core.compression=0", "add", ".")
    git(origin, "commit", "-qm", "all")
    git(tmp_path, "clone", "-q", "-c", "core.autocrlf=true", "--local", str(origin), str(clone))
    return origin, clone / "course_utils" / "checkpoints"


def test_a_clone_on_windows_is_whole(tmp_path):
    _, checkpoints = clone_with_carriage_returns(tmp_path, attributes=True)
    assert doctor.check_checkpoints(checkpoints) == ([], [])
    assert b"\r" not in (checkpoints / "manifest.json").read_bytes()


def test_an_old_clone_on_windows_is_mended_by_what_doctor_says(tmp_path):
    origin, checkpoints = clone_with_carriage_returns(tmp_path, attributes=False)
    shutil.copy(ROOT / ".gitattributes", origin)
    git(origin, "add", ".gitattributes")
    git(origin, "commit", "-qm", "attributes")
    git(checkpoints, "pull", "-q")
    faults = doctor.check_checkpoints(checkpoints)[0]
    assert len(faults) > 5
    for fault in faults:
        carry_out(f"Fault: {fault}")
    assert doctor.check_checkpoints(checkpoints) == ([], [])


def test_every_kind_of_file_is_text_or_binary():
    attributes = (ROOT / ".gitattributes").read_text().split("\n")
    named = {line.split()[0].removeprefix("*") for line in attributes if line.startswith("*.")}
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], check=True, capture_output=True, text=True).stdout
    assert {Path(name).suffix for name in listed.splitlines()} - {""} <= named
