"""Checkpoints that are damaged, disks that are full, weights that are not finite: one sentence, and nothing is lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from course_utils import checkpoint
from course_utils.checkpoint import CHECKPOINT, EARLIER, saved_run
from course_utils.training import MovingAverage, train


def records(folder, steps=12, break_at=None, width=8, seed=7, **options):
    """A training of a small network, saved every four updates; its loss has a gradient of nan at `break_at`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))

    def loss(model, samples):
        x = samples.normals(3)
        y = model(x)
        root = (0 * y).sqrt().sum() if break_at == samples.numbers[0] // len(samples) + 1 else 0
        return (y - x[:, :2].sin()).square().mean() + root

    average = MovingAverage(model, 0.9)
    options = dict(batch=8, folder=folder, seed=seed, warmup=5, average=average, save_every=4) | options
    return train(model, loss, steps=steps, **options)


def run(folder, **options):
    return [record.step for record in records(folder, **options)]


def tensors(folder, name=CHECKPOINT):
    return checkpoint._read(folder / name)[1]


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(value.equal(second[name]) for name, value in first.items())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with the checkpoints of steps 8 and 4 of a run of 12, and the tensors at its end."""
    home, done = tmp_path_factory.mktemp("stopped"), tmp_path_factory.mktemp("done")
    run(done)
    training = records(home)
    for _ in range(8):
        next(training)
    training.close()
    return home, tensors(done)


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    return tmp_path / "run"


# --- Damage ------------------------------------------------------------------------------------------------


def rewritten(change):
    """Damage that another program could do: it changes what the file holds and writes it again, in the right format."""

    def damage(path):
        with safe_open(path, "pt") as file:
            metadata, data = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(metadata["run"])
        change(data, facts)
        save_file(data, path, metadata | {"run": json.dumps(facts)})

    return damage


def with_metadata(metadata):
    return lambda path: save_file({"model.0.weight": torch.zeros(8, 3)}, path, metadata)


def flipped(place):
    def damage(path):
        data = bytearray(path.read_bytes())
        data[place] ^= 0x40
        path.write_bytes(data)

    return damage


def replaced_by(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


def link_to_another(path):
    other = path.with_name("other.safetensors")
    save_file({"weight": torch.zeros(3)}, other)
    path.symlink_to(other)


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "last byte missing": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: path.write_bytes(b""),
    "header flipped": flipped(20),
    "header too large": lambda path: path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:]),
    "number flipped": flipped(-1),
    "random bytes": lambda path: path.write_bytes(bytes(torch.randint(256, (5000,)).tolist())),
    "text": lambda path: path.write_text("hello"),
    "link to another file": replaced_by(link_to_another),
    "link to nowhere": replaced_by(lambda path: path.symlink_to("nowhere")),
    "folder": replaced_by(lambda path: (path / "inside").mkdir(parents=True)),
    "pipe": replaced_by(os.mkfifo if hasattr(os, "mkfifo") else Path.mkdir),
    "no metadata": with_metadata(None),
    "metadata without a run": with_metadata({"format": "pt"}),
    "run that is no JSON": with_metadata({"run": "hello", "sha256": ""}),
    "run that is a list": with_metadata({"run": "[]", "sha256": ""}),
    "run that is empty": with_metadata({"run": "{}", "sha256": ""}),
    "run that is deep": with_metadata({"run": "[" * 100_000, "sha256": ""}),
    "another step": rewritten(lambda data, facts: facts.update(step=9)),
    "negative step": rewritten(lambda data, facts: facts.update(step=-3)),
    "textual step": rewritten(lambda data, facts: facts.update(step="eight")),
    "no step": rewritten(lambda data, facts: facts.pop("step")),
    "setting missing": rewritten(lambda data, facts: facts["settings"].pop("seed")),
    "settings that are a number": rewritten(lambda data, facts: facts.update(settings=1)),
    "tensor missing": rewritten(lambda data, facts: data.pop("model.0.weight")),
    "tensor of another shape": rewritten(lambda data, facts: data.update({"model.0.weight": torch.zeros(2, 2)})),
    "tensor of another dtype": rewritten(
        lambda data, facts: data.update({"model.0.bias": data["model.0.bias"].half()})
    ),
    "tensor too many": rewritten(lambda data, facts: data.update(extra=torch.zeros(1))),
    "optimizer missing": rewritten(lambda data, facts: [data.pop(n) for n in list(data) if n.startswith("optimizer")]),
    "slot that is no number": rewritten(
        lambda data, facts: data.update({"optimizer.x.exp_avg": data.pop("optimizer.0.exp_avg")})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_one_sentence_and_the_earlier_one_goes_on(whole, folder, damage):
    path = folder / CHECKPOINT
    DAMAGES[damage](path)
    before = contents(folder) if damage != "pipe" else None
    with pytest.raises(ValueError) as caught:
        run(folder)
    said = str(caught.value)
    assert "\n" not in said and f"checkpoint in {path}, got a damaged one" in said
    assert "the earlier one, of step 4, is kept beside it: move the damaged one away" in said
    assert "begin from nothing with restart=True (--restart on the command line)" in said
    assert before is None or contents(folder) == before
    other = folder.with_name("other")
    shutil.copytree(folder, other, symlinks=True) if damage != "pipe" else other.mkdir()

    path.rename(path.with_name("away"))  # as the sentence says
    assert run(folder) == list(range(5, 13))
    assert same(tensors(folder), whole[1])

    assert run(other, restart=True) == list(range(1, 13))
    assert same(tensors(other), whole[1]) and saved_run(other).step == 12
    assert damage != "folder" or (other / f"{CHECKPOINT}.1" / "inside").is_dir()


def test_no_flipped_byte_is_taken_silently(folder):
    path = folder / CHECKPOINT
    whole_run, whole_tensors = checkpoint._read(path)
    data = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(data), (300,), generator=generator).tolist():
        flipped(place)(path)
        try:
            found = checkpoint._read(path)
        except checkpoint.Damaged:
            found = None
        # what is not noticed, such as another blank in the header, changes nothing
        assert found is None or found[0] == whole_run and same(found[1], whole_tensors)
        path.write_bytes(data)


def test_without_an_earlier_one_the_sentence_says_so(folder):
    (folder / CHECKPOINT).write_bytes(b"")
    (folder / EARLIER).write_bytes(b"")
    with pytest.raises(
        ValueError, match=f"the earlier one beside it, {EARLIER}, is damaged too, so begin from nothing"
    ):
        run(folder)
    (folder / EARLIER).unlink()
    with pytest.raises(ValueError, match="no earlier one is kept beside it, so begin from nothing"):
        run(folder)
    (folder / CHECKPOINT).rename(folder / EARLIER)
    with pytest.raises(ValueError, match=f"{EARLIER}, got a damaged one .* no earlier one"):
        run(folder)


def test_a_file_that_may_not_be_read_is_not_called_damaged(folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / CHECKPOINT))

    monkeypatch.setattr(checkpoint, "safe_open", refuse)
    with pytest.raises(PermissionError):
        run(folder)


def test_another_network_is_not_called_damaged(folder):
    with pytest.raises(ValueError, match=r"the network of the run .*there .* is \(8,\), here \(9,\).*restart"):
        run(folder, width=9)
    with pytest.raises(ValueError, match=r"settings of the run .*seed 7 \(now 8\)"):
        run(folder, seed=8)


# --- Two checkpoints ---------------------------------------------------------------------------------------


def test_the_last_two_checkpoints_are_kept(whole, tmp_path):
    run(tmp_path)
    assert saved_run(tmp_path).step == 12
    (tmp_path / CHECKPOINT).unlink()
    assert saved_run(tmp_path).step == 8
    assert run(tmp_path) == [9, 10, 11, 12] and same(tensors(tmp_path), whole[1])
    assert checkpoint._read(tmp_path / EARLIER)[0].step == 8  # not lost while the other was written again


def test_a_run_begun_again_keeps_nothing_of_the_other(folder):
    training = records(folder, restart=True)
    for _ in range(4):
        next(training)
    assert saved_run(folder).step == 4 and not (folder / EARLIER).exists()
    training.close()


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_between_the_renames_of_a_save_the_run_goes_on(whole, folder, monkeypatch, number):
    calls = []

    def replace(*names, really=os.replace):
        calls.append(names)
        if len(calls) == number:
            raise Killed
        really(*names)

    training = records(folder, save_every=2)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Killed):
        list(training)
    monkeypatch.undo()
    assert run(folder)[-1] == 12
    assert same(tensors(folder), whole[1])


# --- Disks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_takes_no_more_is_one_sentence(whole, folder, monkeypatch, reason):
    def fail(_):
        raise OSError(reason, os.strerror(reason))

    training = records(folder)
    next(training)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError) as caught:
        list(training)
    monkeypatch.undo()
    assert caught.value.filename == str(folder / CHECKPOINT)
    assert caught.value.strerror == (
        f"{os.strerror(reason)}; the checkpoint of step 8 is kept; free some room, or make the folder writable, "
        "and give the same command again to go on"
    )
    assert not list(folder.glob(".*.part"))
    assert run(folder) == [9, 10, 11, 12] and same(tensors(folder), whole[1])


@pytest.mark.skipif(sys.platform != "linux", reason="a limit that the running system sets")
def test_a_disk_that_is_really_full(tmp_path):
    """The limit on the size of a file stands for the disk's end: the library's own writing fails."""
    import resource

    training = records(tmp_path)
    next(training)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large.*no checkpoint of this run is kept yet; free some room"):
            list(training)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob(".*.part"))


def test_room_for_the_checkpoints_is_asked_for_before_the_first_update(folder, monkeypatch):
    free = 999_999
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))
    with pytest.raises(ValueError, match="MB of free disk .*--folder"):
        next(records(folder))
    free = 1_100_000
    training = records(folder)
    assert next(training).step == 9
    training.close()


# --- Weights that are not finite ---------------------------------------------------------------------------


def test_weights_that_are_not_finite_are_never_saved(folder):
    with pytest.raises(ValueError) as caught:
        run(folder, break_at=12)
    said = str(caught.value)
    assert said.startswith("expected finite weights after step 12, got nan or infinity in model.")
    assert "the checkpoint of step 8 is kept" in said and "learning rate (0.001)" in said and "--restart" in said
    assert saved_run(folder).step == 8
    assert run(folder) == [9, 10, 11, 12]  # once the loss is mended


def test_they_are_not_saved_by_a_stop_either(folder):
    training = records(folder, break_at=10)
    assert [next(training).step, next(training).step] == [9, 10]
    with pytest.raises(ValueError, match="expected finite weights after step 10"):
        training.close()
    assert saved_run(folder).step == 8
    with pytest.raises(ValueError, match="expected a finite loss, got nan at step 11"):
        run(folder, break_at=10)


# --- Two trainings in one folder ---------------------------------------------------------------------------


def test_a_second_training_in_the_folder_is_refused(folder):
    first = records(folder)
    next(first)
    with pytest.raises(ValueError, match="no other training in .*run, got one that is running.*--folder"):
        next(records(folder, restart=True))
    first.close()
    assert run(folder) == [10, 11, 12]


def test_a_killed_training_leaves_no_lock(folder):
    script = (
        "import sys, time, filelock as f; x = f.FileLock(sys.argv[1]); x.acquire(); print(flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, folder / ".lock"], stdout=subprocess.PIPE)
    other.stdout.readline()
    with pytest.raises(ValueError, match="no other training"):
        next(records(folder))
    other.kill()
    other.communicate()
    assert run(folder) == [9, 10, 11, 12]


def test_a_drive_without_locks_can_be_trained_on(folder, monkeypatch):
    def refuse(self):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(checkpoint.FileLock, "acquire", refuse)
    assert run(folder) == [9, 10, 11, 12]
