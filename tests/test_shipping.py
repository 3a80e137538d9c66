"""When a training is finished, and how the model takes the shipped one's place: killed anywhere, nothing is lost."""

import errno
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from course_utils import recipes
from course_utils.checkpoint import saved_run
from course_utils.doctor import check_checkpoints
from course_utils.recipes import Part
from course_utils.recipes.task import Task, save_half


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


def raising(error):
    def instead(*_, **__):
        raise error

    return instead


# --- When a training is finished ---------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    """The part "reader" is a network of one layer, and its training takes no time."""

    def build(folder, device):
        model = nn.Linear(3, 2)

        def loss(model, samples):
            return (model(samples.normals(3)) - 1).square().mean()

        return Task(model, loss, lambda model: save_half(model, folder / "digit_reader"))

    monkeypatch.setitem(recipes.PARTS, "reader", Part("", build, 12, 4, 1e-2))


def train(folder, steps=3, **options):
    return [record.step for record in recipes.train_part("reader", folder, steps, **options)]


def exported(folder):
    return load_file(folder / "digit_reader" / "model.safetensors")["weight"]


def record(folder):
    return json.loads((folder / "reader" / "record.json").read_text())


@pytest.mark.parametrize("killed", ["before the export", "in the export", "before the record", "in the record"])
def test_killed_after_the_last_update_the_same_command_finishes(tiny, tmp_path, monkeypatch, killed):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    train(whole)
    with monkeypatch.context() as patch:
        if killed == "before the export":
            patch.setattr(Task, "__getattribute__", no_export)
        elif killed == "in the export":
            patch.setattr("course_utils.recipes.task.save_file", raising(Killed))
        elif killed == "before the record":
            patch.setattr(recipes, "write_record", raising(Killed))
        else:
            patch.setattr(os, "replace", all_but_the_record)
        with pytest.raises(Killed):
            train(folder)
    assert not (folder / "reader" / "record.json").exists()
    assert train(folder) == []
    assert exported(folder).equal(exported(whole))
    ours, theirs = record(folder), record(whole)
    same = set(ours) - {"began", "seconds"}
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert ours["final_loss"] == saved_run(folder / "reader").loss


def all_but_the_record(one, other, really=os.replace):
    if other.name == "record.json":
        raise Killed
    really(one, other)


def no_export(self, name):
    if name == "export":
        raise Killed
    return object.__getattribute__(self, name)


def test_a_run_made_longer_is_finished_when_its_record_tells_so(tiny, tmp_path, monkeypatch):
    train(tmp_path, 3)
    first = record(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(recipes, "write_record", raising(Killed))
        with pytest.raises(Killed):
            train(tmp_path, 5)
    assert record(tmp_path) == first
    assert train(tmp_path, 5) == [] and train(tmp_path, 5) == []
    more = "COURSE_PROFILE=smoke python3 course.py train reader --steps 5 --seed 0"
    assert record(tmp_path)["command"] == f"{first['command']} && {more}" and record(tmp_path)["steps"] == 5


def test_the_record_of_a_run_begun_again_tells_of_that_only(tiny, tmp_path, monkeypatch):
    train(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(recipes, "write_record", raising(Killed))
        with pytest.raises(Killed):
            train(tmp_path, seed=1, restart=True)
    assert record(tmp_path)["seed"] == 0
    assert train(tmp_path, seed=1) == []
    assert record(tmp_path)["seed"] == 1 and "&&" not in record(tmp_path)["command"]


def test_a_record_that_cannot_be_read_is_written_again(tiny, tmp_path):
    train(tmp_path)
    whole = record(tmp_path)
    for text in ("", "[]", "{}"):
        (tmp_path / "reader" / "record.json").write_text(text)
        assert train(tmp_path) == [] and record(tmp_path) == whole


def test_a_full_disk_in_the_export_is_one_sentence(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("course_utils.recipes.task.save_file", raising(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError) as caught:
            train(tmp_path)
    assert caught.value.strerror.startswith("No space left on device; the training is finished and its checkpoint kept")
    assert train(tmp_path) == [] and record(tmp_path)["steps"] == 3


def test_a_part_is_trained_once_at_a_time(tiny, tmp_path, monkeypatch):
    first = recipes.train_part("reader", tmp_path, 3)
    next(first)
    built = []
    monkeypatch.setitem(recipes.PARTS, "reader", Part("", lambda *_: built.append(1), 12, 4, 1e-2))
    with pytest.raises(ValueError, match="no other training in .*reader"):
        train(tmp_path, seed=1, restart=True)
    assert not built  # refused before pictures are drawn
    first.close()


def test_a_list_of_shipped_files_that_cannot_be_read_is_said(tmp_path):
    for text in (None, "", "[]", "{}"):
        if text is not None:
            (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match="git restore"):
            recipes.adopt(tmp_path / "mine", tmp_path)


# --- Shipping ----------------------------------------------------------------------------------------------


def trained_and_shipped(home):
    """A folder with small files in place of trained parts, and one that was shipped from its like, with a file more."""
    for name, value in (("runs", 2.0), ("older", 1.0)):
        folder = home / name
        files = [folder / part / file for part, files in recipes.SHIPPED.items() for file in files]
        files += [folder / "picture_book" / "unet" / "config.json"]
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}")
        save_file({"weight": torch.full((4,), value)}, folder / "clip" / "model.safetensors")
        for part in recipes.PARTS:
            recipes.write_record(folder / part, {"command": name, "steps": 1, "seconds": 1})
    recipes.ship(home / "older", home / "shipped")
    (home / "shipped" / "notes").mkdir()
    (home / "shipped" / "notes" / "mine.txt").write_text("mine")
    return home / "runs", home / "shipped"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shipping_replaces_the_model_and_keeps_what_else_is_there(tmp_path):
    folder, shipped = trained_and_shipped(tmp_path)
    before = contents(shipped)
    recipes.ship(folder, shipped)
    assert check_checkpoints(shipped) == ([], ["notes/mine.txt"])
    after = contents(shipped)
    assert before.keys() == after.keys() and after["notes/mine.txt"] == b"mine"
    assert after["judge/config.json"] == b"2.0" and json.loads(after["manifest.json"])["training"]["vae"]["command"]
    assert load_file(shipped / "clip" / "model.safetensors")["weight"].dtype == torch.float16


def test_killed_at_any_copy_the_shipped_model_is_as_it_was(tmp_path, monkeypatch):
    folder, shipped = trained_and_shipped(tmp_path)
    before, really = contents(shipped), shutil.copyfile
    for number in range(1, 100):
        left = iter(range(number - 1, -1, -1))

        def copy(*names, left=left, **options):
            if next(left) == 0:
                raise Killed
            return really(*names, **options)

        monkeypatch.setattr(shutil, "copyfile", copy)
        try:
            recipes.ship(folder, shipped)
        except Killed:
            assert contents(shipped) == before
        else:
            break
    assert number > len(before) - 1  # all but the manifest are copies
    assert check_checkpoints(shipped) == ([], ["notes/mine.txt"]) and contents(shipped) != before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_shipping_that_is_really_killed_leaves_what_was_and_the_next_one_tidies_up(tmp_path):
    folder, shipped = trained_and_shipped(tmp_path)
    before = contents(shipped)
    if (child := os.fork()) == 0:
        really, copied = shutil.copyfile, []

        def copy(*names, **options):
            copied.append(names)
            if len(copied) == 6:
                os.kill(os.getpid(), 9)
            return really(*names, **options)

        shutil.copyfile = copy
        recipes.ship(folder, shipped)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert contents(shipped) == before
    recipes.ship(folder, shipped)
    assert check_checkpoints(shipped) == ([], ["notes/mine.txt"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["older", "runs", "shipped"]


def test_what_cannot_be_shipped_is_said_and_nothing_is_touched(tmp_path, monkeypatch):
    folder, shipped = trained_and_shipped(tmp_path)
    before = contents(shipped)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", raising(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError) as caught:
            recipes.ship(folder, shipped)
        assert caught.value.strerror.startswith("No space left on device; the shipped model is as it was")
    (folder / "judge" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="model.safetensors is missing; .*train all"):
        recipes.ship(folder, shipped)
    (folder / "judge" / "record.json").write_text("{")
    with pytest.raises(ValueError, match="but these are not: judge;"):
        recipes.ship(folder, shipped)
    assert contents(shipped) == before
