"""Time and memory: measure what a piece of work takes, count what a model would take, and plan for the device at hand.

Bytes everywhere; GiB only in sentences. Counting needs neither weights nor memory: the model is built on torch's
`meta` device, where tensors have shapes and no numbers.
"""

import contextlib
import ctypes
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from course_utils.language import translated
from course_utils.machine.devices import GIBIBYTE

SAMPLING = 0.001  # seconds between two looks at a memory that nobody counts for us


@dataclass
class Measurement:
    """What a block took: wall time in seconds, and bytes at the peak beyond those at its start."""

    device: str
    seconds: float = 0.0
    peak: int = 0

    def __str__(self) -> str:
        return translated(f"{self.seconds:.2f} s, {self.peak / 2**20:.0f} MiB more at the peak")


@contextlib.contextmanager
def measure(device: torch.device | str = "cpu") -> Iterator[Measurement]:
    """Measure wall time and peak memory of a `with` block; the `Measurement` is complete after the block.

        with measure(device) as took:
            picture = pipe(prompt).images[0]
        print(took)

    CUDA: torch's own counter of bytes in tensors, exact (what libraries take beside it is not in it). CPU: the
    memory that the system has given this process, looked at every millisecond by a thread; MPS: torch's counter, in
    the same way. So on those a peak of less than a millisecond can be missed, and on a CPU memory that torch frees
    and takes again costs nothing twice: measure large work, and the largest first.
    """
    device = torch.device(device)
    took = Measurement(str(device))
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before, start = torch.cuda.memory_allocated(device), time.perf_counter()
        try:
            yield took
        finally:
            torch.cuda.synchronize(device)  # work that is only queued is not done
            took.seconds = time.perf_counter() - start
            took.peak = torch.cuda.max_memory_allocated(device) - before
        return
    used = torch.mps.current_allocated_memory if device.type == "mps" else _resident
    with contextlib.suppress(OSError, AttributeError):  # glibc only: give freed pages back, so that they count again
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with _highest(used) as highest:
        before, start = used(), time.perf_counter()
        try:
            yield took
        finally:
            if device.type == "mps":
                torch.mps.synchronize()
            took.seconds = time.perf_counter() - start
    took.peak = max(0, highest() - before)


def _resident() -> int:
    return psutil.Process().memory_info().rss


@contextlib.contextmanager
def _highest(used: Callable[[], int]):
    """Yield a function that gives the highest value of `used()` seen so far by a thread."""
    seen, stop = [used()], threading.Event()

    def watch() -> None:
        while not stop.wait(SAMPLING):
            seen[0] = max(seen[0], used())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: max(seen[0], used())
    finally:
        stop.set()
        thread.join()


def in_batches_that_fit(draw: Callable, items: list, batch_size: int) -> list:
    """Call `draw(items)` on batches of at most `batch_size`, smaller ones after running out of memory; join the lists.

    What has been drawn is kept. The size is halved each time, and stays small. Raises MemoryError if not even one
    item fits; any other error is passed on. accelerate's `find_executable_batch_size` knows what running out of memory
    looks like on each device, and empties torch's cache before it tries again.
    """
    from accelerate.utils import find_executable_batch_size

    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"Expected a whole batch size of at least 1, got {batch_size!r}.")
    size = [batch_size]
    done: list = []

    def smaller() -> int:
        size[0] //= 2
        return size[0]

    @find_executable_batch_size(starting_batch_size=batch_size, reduce_batch_size_fn=smaller)
    def go_on(size: int) -> None:
        while len(done) < len(items):
            done.extend(draw(items[len(done) : len(done) + size]))

    try:
        go_on()
    except RuntimeError as error:
        if size[0] > 0:
            raise
        raise MemoryError("Not even one fits into memory: choose a smaller picture, float16, or a plan of "
                          "`plan_memory` that needs less.") from error  # fmt: skip
    return done


def weight_bytes(model: torch.nn.Module, dtype: torch.dtype) -> int:
    """Return the bytes of all parameters and buffers if those with a fraction are kept in `dtype`.

    Whole numbers (counters, position ids) keep their own format. Works on the `meta` device.
    """
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * (dtype.itemsize if t.is_floating_point() else t.element_size()) for t in tensors)


def peak_activations(function: Callable, *inputs, fused_attention: bool = True) -> int:
    """Return the bytes of the tensors that `function(*inputs)` makes and holds at the same time, at most.

    Everything on the `meta` device, so that no number is computed. `fused_attention`: attention as torch's fused
    kernels do it, without ever holding the matrix of all queries by all keys; False: with the matrix. Weights and
    inputs do not count, nor do the scratch memory of convolutions and the gaps between blocks of memory: the true
    peak is somewhat higher.
    """
    with torch.no_grad(), _LiveBytes() as live:
        if not fused_attention:
            function(*inputs)
        else:
            with _Fused():
                function(*inputs)
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations make, and takes each away when it dies."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = WeakIdKeyDictionary()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        for tensor in tree_leaves((args, kwargs)):  # what came in from outside is not counted
            if isinstance(tensor, torch.Tensor):
                self.seen.setdefault(tensor.untyped_storage(), True)
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.seen:
                storage = tensor.untyped_storage()
                self.seen[storage] = True
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return result

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


class _Fused(TorchFunctionMode):
    """On the meta device attention would be taken apart into its matrix; here only its result is made."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.scaled_dot_product_attention:
            query, _, value = args[:3] if len(args) >= 3 else [kwargs[name] for name in ("query", "key", "value")]
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return function(*args, **(kwargs or {}))


def gib(size: float) -> str:
    """Bytes as words: "2.1 GiB"."""
    return f"{size / GIBIBYTE:.1f} GiB"
