"""The checkpoint of a training: model, average and optimizer in one safetensors file, and the one before it.

The file is replaced as a whole, never half-written, and carries a checksum of all that it says, so that damage of
whatever kind is seen before anything is taken from it.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from course_utils.files import new_file, require_room, saying

CHECKPOINT = "checkpoint.safetensors"
EARLIER = "checkpoint.earlier.safetensors"
SMALL_FILES = 1_000_000  # bytes, for records, configurations and headers
RESTART = "begin from nothing with restart=True (--restart on the command line)"


@dataclass(frozen=True)
class Run:
    """How far a training has come; `began`, the time of its first update, tells it from other runs."""

    step: int
    seconds: float
    loss: float
    began: str
    settings: dict


class Damaged(Exception):
    """Why a checkpoint cannot be used, in a few words."""


@contextlib.contextmanager
def alone(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold the operating system's lock on `folder/name`, which ends with the process; ValueError if another has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / name, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"expected no other training in {folder}, got one that is running; stop it or wait for its end, or keep "
            "this one in another folder (--folder on the command line)"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # network drives without locks: better unlocked than not
            raise
    try:
        yield
    finally:
        lock.release()


def saved_run(folder: Path) -> Run | None:
    """The run whose checkpoint lies in `folder`, which must be whole; None if there is none."""
    path = _newest(folder)
    return _read(path)[0] if path else None


class Checkpoint:
    """What a training keeps in `folder`; None: nothing."""

    def __init__(self, folder: Path | None, model, optimizer, average, settings: dict):
        self.folder, self.model, self.optimizer = folder, model, optimizer
        self.average, self.settings = average, settings
        self.kept = 0  # the step of this run's checkpoint, 0 if it has none

    def require_room(self) -> None:
        """Raise ValueError unless there is room for two checkpoints, a third being written, and the exported model."""
        if self.folder is None:
            return
        moments = [p for group in self.optimizer.param_groups for p in group["params"]] * 2
        size = sum(value.numel() * value.element_size() for value in [*self._weights().values(), *moments])
        files = [self.folder / name for name in (CHECKPOINT, EARLIER)]
        there = sum(path.stat().st_size for path in files if path.is_file())
        remedy = "keep the training in another folder (--folder on the command line)"
        require_room(self.folder, remedy, max(0, 4 * size - there) + SMALL_FILES)

    def save(self, run: Run) -> None:
        """Keep the run as it is now, and beside it, as EARLIER, what was kept before.

        Raises ValueError if a weight is not finite, and OSError if the disk is full or read-only; the checkpoint that
        was there stays.
        """
        if self.folder is None:
            return
        kept = f"the checkpoint of step {self.kept} is kept" if self.kept else "no checkpoint of this run is kept yet"
        tensors = self._weights()
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in slots.items()}
        _require_finite(tensors, run, kept)
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        text = json.dumps(asdict(run))
        metadata = {"run": text, "sha256": _digest(text, tensors)}
        path, earlier = self.folder / CHECKPOINT, self.folder / EARLIER
        remedy = f"{kept}; free some room, or make the folder writable, and give the same command again to go on"
        with saying(path, remedy), new_file(path) as part:
            save_file(tensors, part, metadata=metadata)
            _move_folder(path)
            _move_folder(earlier)
            if not self.kept:  # what lies here is of another run
                earlier.unlink(missing_ok=True)
            elif os.path.lexists(path):  # it does not after a start from EARLIER, which then stays
                os.replace(path, earlier)
        self.kept = run.step

    def load(self) -> Run | None:
        """Go back to the saved run and return it; None if there is none.

        Raises ValueError if its file is damaged, or if it is the run of another network or with other settings.
        """
        path = _newest(self.folder) if self.folder else None
        if path is None:
            return None
        try:
            run, tensors = _read(path)
        except Damaged as reason:
            raise ValueError(_advice(path, reason)) from reason
        self._require_same_settings(run)
        self._require_same_network(tensors)
        self.model.load_state_dict(_section(tensors, "model."))
        if self.average:
            self.average.model.load_state_dict(_section(tensors, "average."))
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in _section(tensors, "optimizer.").items():
            index, slot = name.split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({"state": slots, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.kept = run.step
        return run

    def _weights(self) -> dict[str, torch.Tensor]:
        weights = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.average:
            weights |= {f"average.{name}": value for name, value in self.average.model.state_dict().items()}
        return weights

    def _require_same_settings(self, run: Run) -> None:
        other = [
            f"{name} {run.settings.get(name)} (now {value})"
            for name, value in self.settings.items()
            if run.settings.get(name) != value and name != "steps"
        ]
        if other:
            raise ValueError(
                f"expected the settings of the run saved in {self.folder}, got other ones: it was made with "
                f"{', '.join(other)}; use these again, or {RESTART}"
            )
        if run.step > self.settings["steps"]:
            raise ValueError(
                f"expected a run of at least {run.step} steps, as many as the one saved in {self.folder} has made, "
                f"got {self.settings['steps']}; ask for more, or {RESTART}"
            )

    def _require_same_network(self, saved: dict[str, torch.Tensor]) -> None:
        here: dict[str, tuple[int, ...] | str] = {name: tuple(value.shape) for name, value in self._weights().items()}
        there = {name: tuple(value.shape) for name, value in saved.items() if not name.startswith("optimizer.")}
        trained = [tuple(p.shape) for group in self.optimizer.param_groups for p in group["params"]]
        for name, value in _section(saved, "optimizer.").items():
            index = int(name.split(".")[0])
            there[f"optimizer.{name}"] = shape = tuple(value.shape)
            fits = index < len(trained) and shape in ((), trained[index])
            here[f"optimizer.{name}"] = shape if fits else "not to be trained"
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                raise ValueError(
                    f"expected the network of the run saved in {self.folder}, got another one: there {name} is "
                    f"{there.get(name, 'missing')}, here {here.get(name, 'missing')}; build it as before, or {RESTART}"
                )


def _newest(folder: Path) -> Path | None:
    """The checkpoint to go on from. EARLIER is alone if `save` was killed between its two renames."""
    return next((folder / name for name in (CHECKPOINT, EARLIER) if os.path.lexists(folder / name)), None)


def _read(path: Path) -> tuple[Run, dict[str, torch.Tensor]]:
    """All that a checkpoint holds. Raises Damaged, or PermissionError."""
    if not path.is_file():
        raise Damaged("it is not a file")
    try:
        path.open("rb").close()
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        run, found = Run(**json.loads(metadata["run"])), metadata["sha256"]
    except PermissionError:  # not damage
        raise
    except (OSError, SafetensorError) as error:
        raise Damaged(str(error)) from error
    except Exception as error:  # metadata of another form show as any of half a dozen classes
        raise Damaged("it does not say of which run it is") from error
    if found != _digest(metadata["run"], tensors):
        raise Damaged("its data do not fit its checksum")
    return run, tensors


def _advice(path: Path, reason: Damaged) -> str:
    """The sentence for a damaged checkpoint: which, and how to go on."""
    said = f"expected a whole checkpoint in {path}, got a damaged one ({reason})"
    earlier = path.with_name(EARLIER)
    if path == earlier or not os.path.lexists(earlier):
        return f"{said}; no earlier one is kept beside it, so {RESTART}"
    try:
        run, _ = _read(earlier)
    except Damaged:
        return f"{said}; the earlier one beside it, {EARLIER}, is damaged too, so {RESTART}"
    return (
        f"{said}; the earlier one, of step {run.step}, is kept beside it: move the damaged one away and give the same "
        f"command again to go on from there, or {RESTART}"
    )


def _digest(run: str, tensors: dict[str, torch.Tensor]) -> str:
    """The SHA-256 of what a checkpoint says of its run, and of the name, form and bytes of all tensors."""
    digest = hashlib.sha256(run.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _require_finite(tensors: dict[str, torch.Tensor], run: Run, kept: str) -> None:
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(
                f"expected finite weights after step {run.step}, got nan or infinity in {name}; nothing is saved, and "
                f"{kept}. Look in the loss for a gradient that is not finite (a root of 0, a division by 0), or lower "
                f"the learning rate ({run.settings['learning_rate']}) and {RESTART}"
            )


def _move_folder(path: Path) -> None:
    """Make way for a file: a folder in its place, which may be anybody's, gets another name beside it."""
    if path.is_dir() and not path.is_symlink():
        path.rename(next(free for n in itertools.count(1) if not os.path.lexists(free := Path(f"{path}.{n}"))))


def _section(tensors: dict, prefix: str) -> dict:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
