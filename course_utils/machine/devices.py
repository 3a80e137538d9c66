"""The machine at hand: which device, which number format, how much memory, how long to train.

Three environment variables settle by hand what is otherwise found out:
`COURSE_DEVICE` (cuda, cuda:1, mps, cpu), `COURSE_DTYPE` (float32, bfloat16, float16) and
`COURSE_PROFILE` (smoke, laptop, gpu).
"""

import functools
import operator
import os
import platform
import random
import statistics
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy
import psutil
import torch
from torch.nn import functional

from course_utils.language import translated

Network = TypeVar("Network", bound=torch.nn.Module)
Value = TypeVar("Value")

PROFILES = ("smoke", "laptop", "gpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GIBIBYTE = 1024**3


class Hardware(NamedTuple):
    """What was found: names of usable CUDA GPUs, why CUDA is not usable, whether there is an Apple GPU."""

    cuda_names: tuple[str, ...] = ()
    cuda_problem: str = "no CUDA GPU found"
    apple_gpu: bool = False


@functools.cache
def find_hardware() -> Hardware:
    """Look once for GPUs that this build of torch can really use."""
    apple_gpu = torch.backends.mps.is_available()
    if not torch.cuda.is_available():
        built_for_cpu = torch.version.cuda is None and torch.version.hip is None
        problem = "this build of torch has no CUDA" if built_for_cpu else "no CUDA GPU found"
        return Hardware(cuda_problem=problem, apple_gpu=apple_gpu)
    try:
        # A GPU can be present and yet too old or too new for the kernels in this build: only a sum tells.
        (torch.ones(2, device="cuda") + 1).sum().item()
    except RuntimeError as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        return Hardware(cuda_problem=f"a CUDA GPU does not work here ({first_line})", apple_gpu=apple_gpu)
    names = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Hardware(names, "", apple_gpu)


def choose_device(hardware: Hardware, wanted: str | None = None) -> tuple[str, str]:
    """Return (device name, reason): what was `wanted` if it is there; else CUDA, then MPS, then CPU.

    Raises ValueError if `wanted` is unknown or is not there.
    """
    here = ["cpu"]
    if hardware.apple_gpu:
        here.insert(0, "mps")
    if hardware.cuda_names:
        here = ["cuda", *(f"cuda:{index}" for index in range(len(hardware.cuda_names))), *here]

    if wanted:
        if wanted.lower() not in here:
            no_cuda = wanted.lower().startswith("cuda") and not hardware.cuda_names
            why = f" ({hardware.cuda_problem})" if no_cuda else ""
            raise ValueError(
                f"COURSE_DEVICE must be one of {', '.join(here)} on this machine, but is {wanted!r}{why}. "
                "Correct it, or unset it to let the course choose."
            )
        return wanted.lower(), "COURSE_DEVICE asks for it"
    if here[0] == "cuda":
        return "cuda", f"found {' and '.join(hardware.cuda_names)}"
    if here[0] == "mps":
        return "mps", f"found an Apple GPU; {hardware.cuda_problem}"
    return "cpu", f"{hardware.cuda_problem}; no Apple GPU found"


def pick_device(quiet: bool = False) -> torch.device:
    """Choose CUDA, else MPS, else CPU; print the choice and its reason in one line unless `quiet`.

    `COURSE_DEVICE` overrides the choice; ValueError if it names a device that is not there.
    For set-up cells and the command line: everywhere else the device follows the tensors.
    """
    name, reason = choose_device(find_hardware(), os.environ.get("COURSE_DEVICE"))
    if not quiet:
        print(translated(f"Device: {name} ({reason})."))
    return torch.device(name)


def autocast_dtype(device: torch.device | str) -> torch.dtype:
    """Return the number format in which mixed precision pays on `device`; float32 means: no autocast.

    CUDA: bfloat16 from compute capability 8.0 on, float16 from 7.0 on (training then needs a gradient
    scaler), else float32. CPU: bfloat16 if it wins a measured race, else float32. Elsewhere: float32.
    `COURSE_DTYPE` (float32, bfloat16, float16) overrides, which makes runs comparable between machines.

    Raises ValueError for an unknown `COURSE_DTYPE`.
    """
    wanted = os.environ.get("COURSE_DTYPE")
    if wanted:
        if wanted.lower() not in DTYPES:
            raise ValueError(
                f"COURSE_DTYPE must be one of {', '.join(DTYPES)}, but is {wanted!r}. "
                "Correct it, or unset it to let the course choose."
            )
        return DTYPES[wanted.lower()]
    device = torch.device(device)
    if device.type == "cuda":
        has_bfloat16 = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
        has_float16 = torch.cuda.get_device_capability(device) >= (7, 0)
        return torch.bfloat16 if has_bfloat16 else torch.float16 if has_float16 else torch.float32
    if device.type == "cpu" and bfloat16_wins(*_race_on_cpu()):
        return torch.bfloat16
    return torch.float32


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the order of a picture's numbers in memory in which networks train fastest on `device`.

    With channels last, as GPUs like it, torch's group norm takes a CPU many times as long.
    """
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


def placed(model: Network, device: torch.device) -> Network:
    """Return the model, moved to `device` and into the `memory_format` for it."""
    return model.to(device, memory_format=memory_format(device))  # type: ignore[call-overload]  # not in torch's hints


def bfloat16_wins(float32_seconds: list[float], bfloat16_seconds: list[float], margin: float = 1.15) -> bool:
    """Say whether bfloat16 is at least `margin` times faster, by the medians of both lists."""
    return statistics.median(float32_seconds) >= margin * statistics.median(bfloat16_seconds)


@functools.cache
@torch.inference_mode(False)  # the caller may sample without gradients; the race needs them
@torch.enable_grad()
def _race_on_cpu(most_rounds: int = 9, most_seconds: float = 0.3) -> tuple[list[float], list[float]]:
    """Time a small convolution forward and backward in float32 and under bfloat16 autocast, in turns.

    Processors without bfloat16 instructions emulate it 9 to 17 times more slowly, so the time is capped;
    having them is no promise of speed either, which is why this is measured and not looked up.
    """

    def seconds(use_bfloat16: bool) -> float:
        # Constants, not random numbers: the global seed stays as it was.
        pictures = torch.ones(16, 64, 16, 16, requires_grad=True)  # (batch, channels, height, width)
        weight = torch.full((64, 64, 3, 3), 0.01, requires_grad=True)
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16):
            loss = functional.conv2d(pictures, weight, padding=1).float().mean()
        torch.autograd.grad(loss, (pictures, weight))
        return time.perf_counter() - start

    start = time.perf_counter()
    for use_bfloat16 in (False, True):
        seconds(use_bfloat16)  # the first call also builds the kernel: not counted
    float32_seconds: list[float] = []
    bfloat16_seconds: list[float] = []
    while len(float32_seconds) < most_rounds:
        float32_seconds.append(seconds(False))
        bfloat16_seconds.append(seconds(True))
        if time.perf_counter() - start > most_seconds:
            break
    return float32_seconds, bfloat16_seconds


def _memory_limit() -> int:
    """Bytes of main memory this process may use: a container's limit if it is lower than the machine's."""
    limit = psutil.virtual_memory().total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = min(limit, int(Path(path).read_text()))
        except (OSError, ValueError):  # not a Linux container, or its limit is the word "max"
            continue
    return limit


def memory(device: torch.device | str) -> tuple[int, int]:
    """Return (free, total) bytes of the memory that tensors on `device` live in."""
    device = torch.device(device)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # torch keeps freed blocks for itself; to this process they are free.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept, total
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return max(0, total - torch.mps.current_allocated_memory()), total
    total = _memory_limit()
    return min(psutil.virtual_memory().available, total - psutil.Process().memory_info().rss), total


def memory_report(device: torch.device | str) -> str:
    """Return one line: free and total memory of `device` in GiB, and the peak use where torch counts it."""
    device = torch.device(device)
    free, total = memory(device)
    report = translated(f"Memory of {device}: {free / GIBIBYTE:.1f} GiB free of {total / GIBIBYTE:.1f} GiB.")
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / GIBIBYTE
        report += " " + translated(f"Tensors took {peak:.1f} GiB at most so far.")
    return report


def _processor_name() -> str:
    """The processor's name as its maker gives it, or what Python knows of it."""
    if platform.system() == "Linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        answer = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        if answer.stdout.strip():
            return answer.stdout.strip()
    return platform.processor() or platform.machine()


def describe_machine() -> str:
    """Return four lines: software, processor, memory, and the device that would be chosen and why."""
    name, reason = choose_device(find_hardware(), os.environ.get("COURSE_DEVICE"))
    gpu_memory = f", {memory(name)[1] / GIBIBYTE:.0f} GiB" if name != "cpu" else ""
    system = f"{platform.system()} {platform.machine()}"
    cores = psutil.cpu_count(logical=False) or os.cpu_count()
    lines = [
        f"Python {platform.python_version()}, torch {torch.__version__}, {system}.",
        f"Processor: {_processor_name()}, {cores} cores; torch uses {torch.get_num_threads()} threads.",
        memory_report("cpu"),
        f"Device: {name}{gpu_memory} ({reason}).",
    ]
    return "\n".join(map(translated, lines))


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, NumPy and torch, and return a CPU generator with the same seed.

    Raises ValueError unless `seed` is a whole number from 0 to 2**32 - 1 (NumPy takes no other).
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 2**32:
        raise ValueError(f"The seed must be a whole number from 0 to {2**32 - 1}, but is {seed!r}.")
    random.seed(number)
    numpy.random.seed(number)
    torch.manual_seed(number)
    return torch.Generator().manual_seed(number)


def profile() -> str:
    """Return how much work is reasonable here: "smoke", "laptop" or "gpu".

    `COURSE_PROFILE` decides; without it, "gpu" where one would be used, else "laptop".
    Raises ValueError if `COURSE_PROFILE` is none of the three.
    """
    wanted = os.environ.get("COURSE_PROFILE")
    if not wanted:
        return "laptop" if pick_device(quiet=True).type == "cpu" else "gpu"
    if wanted.lower() not in PROFILES:
        raise ValueError(
            f"COURSE_PROFILE must be smoke, laptop or gpu, but is {wanted!r}. "
            "Correct it, or unset it to let the course choose."
        )
    return wanted.lower()


def budget(*, smoke: Value, laptop: Value, gpu: Value) -> Value:
    """Return the one of three values that belongs to the present profile, e.g. a number of steps."""
    return {"smoke": smoke, "laptop": laptop, "gpu": gpu}[profile()]
