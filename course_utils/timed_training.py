"""Training that ends on time: the learning rate reaches zero when the minutes are over, however many updates fit in."""

import contextlib
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import nn

from course_utils.checkpoint import Checkpoint, Run, alone
from course_utils.training import MovingAverage, Record, Samples, require_finite

FOREVER = 10**12  # updates: the time ends the run


def rate_at(step: int, used: float, peak: float, warmup: int = 100, decays: float = 0.75) -> float:
    """The learning rate after `step` updates, in which the share `used` of the time has passed.

    It rises to `peak` in `warmup` updates, and falls linearly to 0 in the last `decays` of the time.
    """
    return peak * min((step + 1) / warmup, (1 - used) / decays, 1.0)


def train_for(
    seconds: float,
    model: nn.Module,
    loss: Callable[[nn.Module, Samples], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    batch: int,
    learning_rate: float,
    average: MovingAverage | None = None,
    folder: Path | None = None,
    spent: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    save_every: float = 120.0,
    precision: torch.dtype = torch.float32,
    seed: int = 0,
    clip: float = 1.0,
) -> Generator[Record, None, None]:
    """Train for `seconds` of `clock`, of which `spent` are over before a new run begins; a `Record` after each update.

    A run found in `folder` is gone on with: the time between counts nothing, and other `seconds` may be asked for.
    clock: time.perf_counter, or time.process_time to count only what this process computes. Every `save_every` seconds,
    at the end, and when the generator is closed, the run is saved. loss(model, samples): as for `training.train`.
    Raises ValueError as `training.train` does.
    """
    settings = dict(steps=FOREVER, batch=batch, seed=seed, learning_rate=learning_rate, clip=clip)
    state = Checkpoint(folder, model, optimizer, average, settings)
    device = next(model.parameters()).device
    with alone(folder) if folder else contextlib.nullcontext():
        state.require_room()
        run = state.load() or Run(0, spent, float("nan"), datetime.now(UTC).isoformat(), settings)
        start, saved = clock() - run.seconds, run.seconds
        try:
            while run.seconds < seconds:
                rate = rate_at(run.step, run.seconds / seconds, learning_rate)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                samples = Samples(run.step * batch + np.arange(batch), seed)
                with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                    value = loss(model, samples)
                value.backward()
                nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
                require_finite(value.item(), run.step, learning_rate)
                if average is not None:
                    average.update(model, run.step)
                run = Run(run.step + 1, clock() - start, value.item(), run.began, settings)
                if run.seconds - saved > save_every or run.seconds >= seconds:
                    state.save(run)
                    saved = run.seconds
                yield Record(run.step, FOREVER, run.loss, rate, run.seconds)
        except GeneratorExit:
            if state.kept != run.step:
                state.save(run)
            raise
