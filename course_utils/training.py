"""One training loop for every model of the course.

`train` is a generator: it makes one update, yields a small `Record` and leaves progress bars and plots to the
caller. All randomness of a run is a function of (seed, step, sample), so that a run that was stopped and resumed,
or that is spread over several processes, is the same run.
"""

import contextlib
import copy
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from course_utils.checkpoint import Checkpoint, Run, alone

_MASK = 2**64 - 1


@dataclass(frozen=True)
class Record:
    """What one update reports: `loss` is the mean over the global batch, `seconds` the time spent so far."""

    step: int  # updates made, 1...steps
    steps: int
    loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Samples:
    """The samples of one update that this process works on, each with randomness of its own.

    `numbers` counts samples over the whole run (step * batch + position): int64 array (batch,).
    """

    numbers: np.ndarray
    seed: int

    def __len__(self) -> int:
        return len(self.numbers)

    def normals(self, *shape: int, stream: int = 0) -> torch.Tensor:
        """Standard normal numbers, float32 (batch, *shape); another `stream` is independent."""
        return torch.stack([torch.randn(shape, generator=self._generator(n, stream)) for n in self.numbers])

    def uniforms(self, *shape: int, stream: int = 0) -> torch.Tensor:
        """Numbers uniform on [0, 1), float32 (batch, *shape)."""
        return torch.stack([torch.rand(shape, generator=self._generator(n, stream)) for n in self.numbers])

    def integers(self, below: int, stream: int = 0) -> torch.Tensor:
        """Whole numbers 0...below-1, int64 (batch,): which element of a data set each sample takes."""
        return (self.uniforms(stream=stream).double() * below).long()

    def _generator(self, number: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(_hash(self.seed, int(number), stream))


def _hash(*parts: int) -> int:
    """Mix whole numbers into 63 bits (splitmix64, Steele et al. 2014): near inputs give unrelated seeds."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


@torch.no_grad()
def ema_update(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Move the parameters of `average` a little towards those of `model`, in place.

        average <- decay average + (1 - decay) parameter

    Both have the same parameters in the same order. decay: in [0, 1), usually 0.999.
    """
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


class MovingAverage:
    """The exponential moving average (EMA) of a model's parameters, as a model of its own, `self.model`.

    average <- d * average + (1 - d) * parameter, with d = min(decay, (1 + n) / (10 + n)) after n updates, so that
    the random start is soon forgotten.
    """

    def __init__(self, model: torch.nn.Module, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"expected a decay in [0, 1), got {decay}; 0.999 is usual")
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def update(self, model: torch.nn.Module, updates: int) -> None:
        """Take in the parameters of `model` after its update number `updates` (0, 1, ...)."""
        ema_update(self.model, model, min(self.decay, (1 + updates) / (10 + updates)))


def learning_rate_at(step: int, steps: int, peak: float, warmup: int) -> float:
    """The learning rate of update `step` (0...steps-1): linear warm-up to `peak`, then linear decay towards 0."""
    return peak * min((step + 1) / max(1, warmup), (steps - step) / max(1, steps - warmup))


def require_finite(loss: float, step: int, learning_rate: float) -> None:
    """Raise ValueError if the loss of update `step` (0, 1, ...) is no finite number."""
    if not np.isfinite(loss):
        raise ValueError(
            f"expected a finite loss, got {loss} at step {step + 1}; lower the learning rate "
            f"({learning_rate}) or look for a division by zero in the loss"
        )


def train(
    model: torch.nn.Module,
    loss: Callable[[torch.nn.Module, Samples], torch.Tensor],
    *,
    steps: int,
    batch: int,
    folder: Path | str | None = None,
    seed: int = 0,
    learning_rate: float = 1e-3,
    warmup: int = 100,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    average: MovingAverage | None = None,
    save_every: int = 250,
    accumulate: int = 1,
    precision: torch.dtype = torch.float32,
    restart: bool = False,
) -> Iterator[Record]:
    """Train `model` with AdamW, yielding a `Record` after each update.

    loss(model, samples) returns the mean loss over `samples`, a scalar; it draws data, noise and times from
    `samples`, whose numbers run on over the whole run. It must call `model(...)` and not its parts, so that several
    processes can share the gradient.

    batch: the *global* batch, over all processes and over `accumulate` pieces; both must divide it.
    folder: where the checkpoint is kept (every `save_every` updates, at the end, and when the generator is closed),
        and the one before it; a run found there is gone on with, unless `restart`, towards the end that `steps` now
        sets. One training at a time. None: nothing is kept.
    clip: the largest norm of the gradient. precision: the autocast dtype. average: an EMA to keep up to date.

    Raises ValueError if `batch` cannot be divided, if the folder holds a damaged checkpoint or a run with other
    settings, if another training uses it or it has no room, or if the loss or a weight is not finite; OSError, with
    what is kept, if the checkpoint cannot be written.
    """
    accelerator = _accelerator(model, precision)
    pieces = accelerator.num_processes * accumulate
    if steps < 1 or batch < 1 or batch % pieces:
        raise ValueError(
            f"expected steps >= 1 and a batch that {accelerator.num_processes} processes x {accumulate} "
            f"pieces divide, got steps={steps}, batch={batch}; choose a multiple of {pieces}"
        )
    settings = dict(
        steps=steps,
        batch=batch,
        seed=seed,
        learning_rate=learning_rate,
        warmup=warmup,
        weight_decay=weight_decay,
        clip=clip,
        ema=average.decay if average else None,
    )
    plain, home = model, Path(folder) if folder else None
    parameters = [p for p in plain.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99), fused=True
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    plain.train()
    state = Checkpoint(home, plain, optimizer, average, settings)
    writes = home is not None and accelerator.is_main_process
    with alone(home) if home and writes else contextlib.nullcontext():
        if writes:
            state.require_room()
        run = (None if restart else state.load()) or Run(0, 0.0, float("nan"), datetime.now(UTC).isoformat(), settings)
        start = time.perf_counter() - run.seconds
        try:
            while run.step < steps:
                rate = learning_rate_at(run.step, steps, learning_rate, warmup)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                value = _update(accelerator, model, optimizer, loss, run.step, batch, accumulate, seed, clip)
                require_finite(value, run.step, learning_rate)
                if average is not None:
                    average.update(plain, run.step)
                run = Run(run.step + 1, time.perf_counter() - start, value, run.began, settings)
                if writes and (run.step % save_every == 0 or run.step == steps):
                    state.save(run)
                yield Record(run.step, steps, value, rate, time.perf_counter() - start)
        except GeneratorExit:
            if writes and state.kept != run.step:
                state.save(run)
            raise


def _accelerator(model: torch.nn.Module, precision: torch.dtype):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # It would insist on the precision of an earlier run in this process, and there is no public way to make it forget.
    AcceleratorState._reset_state()
    precisions = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return Accelerator(mixed_precision=precisions[precision], cpu=next(model.parameters()).device.type == "cpu")


def _update(accelerator, model, optimizer, loss, step, batch, accumulate, seed, clip) -> float:
    """Forward, backward and one step of the optimizer; returns the mean loss over the global batch."""
    pieces = accelerator.num_processes * accumulate
    numbers = step * batch + np.arange(batch).reshape(pieces, -1)
    total = 0.0
    for piece in range(accumulate):
        mine = Samples(numbers[accelerator.process_index * accumulate + piece], seed)
        last = piece == accumulate - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(model), accelerator.autocast():
            value = loss(model, mine) / accumulate
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            accelerator.backward(value)
        total += value.detach()
    accelerator.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    return accelerator.reduce(total, "mean").item()


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, (processes * batch, ...), with gradients; with one process the tensor itself.

    For losses that compare the samples of a batch with each other (InfoNCE).
    """
    if not _one_of_several():
        return tensor
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(tensor))


def meet() -> None:
    """Wait until all processes of this run are here; with one process, go on at once."""
    if _one_of_several():
        torch.distributed.barrier()


def leave() -> None:
    """End this process when all processes of its run are here; with one process, go on.

    At once, without Python's own tidying up: threads of gloo may ask for the interpreter while it ends, which aborts
    the process and with it the run (pytorch/pytorch#179291).
    """
    if _one_of_several():
        torch.distributed.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _one_of_several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
