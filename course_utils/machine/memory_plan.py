"""What a text-to-image pipeline needs, and how to make it fit: number format, decoder, offload, with reasons in words.

`plan_memory` is a function of given facts alone. It looks at nothing, so that it can be tested, and asked about
machines that one has not got.
"""

import math
import os
from dataclasses import dataclass, field

import torch

from course_utils.language import translated
from course_utils.machine.devices import DTYPES, GIBIBYTE, autocast_dtype, memory
from course_utils.machine.memory import gib

OFFLOADS = ("none", "model", "sequential")  # the fastest first
DECODERS = ("whole", "sliced", "tiled")
RESERVE = GIBIBYTE // 2  # libraries, kernels and their scratch memory, which no count of tensors shows
GAPS = 1.1  # memory is given out in blocks, with gaps between them
# Convolutions need scratch memory beside the tensors that are counted. On a CPU the whole was measured as 1.5 to 2.6
# times the count (chapter 11 measures it again); the others are careful guesses.
SCRATCH = {"cpu": 3.0, "mps": 3.0, "cuda": 1.5}


@dataclass(frozen=True)
class Part:
    """A part of a pipeline. parameters: how many; work: bytes of activations in float32, for one picture of the
    trained size; layer: parameters of its largest single layer; buffers: fixed numbers beside the parameters, such as
    a table of positions; wide: parameters that stay in float32 where float16 is chosen, since they would overflow."""

    parameters: int
    work: int
    layer: int
    buffers: int = 0
    wide: int = 0

    def weights(self, dtype: str) -> int:
        """Return the bytes of all that is kept while nothing runs, in a number format."""
        width = DTYPES[dtype].itemsize
        wide = self.wide if dtype == "float16" else 0
        return (self.parameters + self.buffers) * width + wide * (4 - width)


@dataclass(frozen=True)
class Machine:
    """Facts that a plan depends on. half: the short number format that is quick there, float32 if none is."""

    device: str  # cuda, mps, cpu
    free: int  # bytes free where tensors live
    half: str = "float32"
    main_memory: int = 0  # bytes free in main memory: what is offloaded waits there


@dataclass(frozen=True)
class Plan:
    """A decision. need: bytes on the device; tried: (words, need, whether it fits) for what was looked at, in order."""

    device: str
    dtype: str
    offload: str
    decoder: str
    need: int
    fits: bool
    reasons: tuple[str, ...]
    tried: tuple[tuple[str, int, bool], ...] = field(default=(), repr=False)
    attention_slicing: bool = False  # never: torch's fused attention saves more, and slicing it is slower

    def __str__(self) -> str:
        return "\n".join(f"- {translated(reason)}" for reason in self.reasons)


def look_at_machine(device: torch.device | str, wide: bool = False) -> Machine:
    """Return the facts about the device at hand. For drawing, float16 is preferred to bfloat16 on CUDA.

    (bfloat16 has 8 bits of precision, float16 has 11, and the U-Net of v1.5 does not need bfloat16's wide range.
    `COURSE_DTYPE` overrides, as everywhere.) wide: for networks that do need it, such as T5, keep bfloat16 where it is.
    """
    device = torch.device(device)
    half = next(name for name, dtype in DTYPES.items() if dtype == autocast_dtype(device))
    if device.type == "cuda" and half == "bfloat16" and not wide and not os.environ.get("COURSE_DTYPE"):
        half = "float16"
    return Machine(device.type, memory(device)[0], half, memory("cpu")[0])


def memory_need(weights: dict[str, int], work: dict[str, int], layers: dict[str, int], offload: str) -> int:
    """Return the bytes that a pipeline needs on the device; all values are bytes, for each part by name.

    offload "none": all weights stay there, and one part at a time works: sum of weights + largest work.
    "model": only the part that works is there: the largest (weights + work) of a part.
    "sequential": only the layer that works is there: the largest (largest layer + work) of a part.
    Raises ValueError for another word.
    """
    if offload == "none":
        return sum(weights.values()) + max(work.values())
    if offload == "model":
        return max(weights[name] + work[name] for name in weights)
    if offload == "sequential":
        return max(layers[name] + work[name] for name in weights)
    raise ValueError(f"Expected offload to be one of {', '.join(OFFLOADS)}, got {offload!r}.")


def plan_memory(parts: dict[str, Part], machine: Machine, pictures: int = 1, size: float = 1.0) -> Plan:
    """Choose the fastest way of drawing that fits.

    parts: at least "vae". pictures: drawn at once. size: the side, in units of the trained side (512 pixels of Stable
    Diffusion v1.5, 1024 of Stable Diffusion 3 and Flux), so that activations grow with its square.
    Raises ValueError for no pictures or a size of 0.
    """
    if pictures < 1 or not size > 0:
        raise ValueError(f"Expected at least one picture of a size above 0, got {pictures} and {size}.")
    room = machine.free - RESERVE
    tried = []
    for dtype, offload, decoder in _ways(machine, pictures, size):
        need = math.ceil(GAPS * _need(parts, machine, dtype, offload, decoder, pictures, size))
        waiting = 0 if offload == "none" else sum(part.weights(dtype) for part in parts.values())
        fits = need <= room and waiting <= machine.main_memory
        tried.append((_words(dtype, offload, decoder), need, fits))
        if fits:
            break
    reasons = _reasons(machine, dtype, offload, decoder, need, fits, pictures, tried)
    return Plan(machine.device, dtype, offload, decoder, need, fits, reasons, tuple(tried))


def _ways(machine: Machine, pictures: int, size: float):
    """Ways of drawing, the fastest first: shorter numbers cost nothing on a GPU, then the decoder, then offload."""
    dtypes = {"mps": ["float32", "float16"], "cuda": [machine.half]}.get(
        machine.device, [machine.half, *(["bfloat16"] if machine.half == "float32" else [])]
    )
    decoders = [word for word in DECODERS if word == "whole" or (word == "sliced" and pictures > 1) or size > 1]
    if pictures == 1 and size > 1:
        decoders = ["whole", "tiled"]
    # Offload moves weights between two memories. A CPU has only one, and an Apple GPU shares it.
    offloads = OFFLOADS if machine.device == "cuda" else ("none",)
    return [(dtype, offload, decoder) for dtype in dtypes for offload in offloads for decoder in decoders]


def _need(parts, machine: Machine, dtype: str, offload: str, decoder: str, pictures: int, size: float) -> float:
    width = DTYPES[dtype].itemsize
    area = pictures * size**2
    decoding = {"whole": area, "sliced": size**2, "tiled": min(size, 1) ** 2}[decoder]
    scale = {name: decoding if name == "vae" else area for name in parts}
    weights = {name: part.weights(dtype) for name, part in parts.items()}
    work = {name: part.work * scale[name] * width / 4 * SCRATCH[machine.device] for name, part in parts.items()}
    layers = {name: part.layer * width for name, part in parts.items()}
    return memory_need(weights, work, layers, offload)


def _words(dtype: str, offload: str, decoder: str) -> str:
    placed = {"none": "all on the device", "model": "model offload", "sequential": "sequential offload"}[offload]
    return f"{dtype}, {placed}" + ("" if decoder == "whole" else f", VAE {decoder}")


DTYPE_REASONS = {
    ("cuda", "float16"): "float16: half the bytes of float32, and faster on this GPU.",
    ("cuda", "bfloat16"): "bfloat16: half the bytes of float32, and faster on this GPU.",
    ("cuda", "float32"): "float32: this GPU has no fast half precision.",
    ("mps", "float32"): "float32: there is room for it, and it cannot overflow.",
    ("mps", "float16"): "float16: float32 does not fit. If pictures turn black, draw smaller ones in float32.",
    ("cpu", "bfloat16"): "bfloat16: half the bytes of float32; it won a race on this processor, or must save memory.",
    ("cpu", "float32"): "float32: this processor is no faster with shorter numbers.",
}
OFFLOAD_REASONS = {
    "none": "All weights stay on the device: nothing has to travel.",
    "model": "Model offload: each part visits the GPU while it works. Costs about a copy of the weights a picture.",
    "sequential": "Sequential offload: single layers visit the GPU. Very slow, every step copies the whole network.",
}
DECODER_REASONS = {
    "whole": "The VAE decodes all pictures at once.",
    "sliced": "VAE slicing: pictures are decoded one after another, with the same result.",
    "tiled": "VAE tiling: each picture is decoded in overlapping tiles; colours may shift a little at the seams.",
}


def _reasons(machine, dtype, offload, decoder, need, fits, pictures, tried) -> tuple[str, ...]:
    room = machine.free - RESERVE
    if not fits:
        least = min(size for _, size, _ in tried)
        short = (
            f"Nothing fits: {gib(max(room, 0))} can be used on {machine.device}, and the most frugal way needs "
            f"{gib(least)}."
        )
        if least <= room:
            short = f"Nothing fits: there is too little main memory for the weights ({gib(machine.main_memory)})."
        return (short,)
    said = [DTYPE_REASONS.get((machine.device, dtype), f"{dtype}: asked for.")]
    said.append(OFFLOAD_REASONS[offload])
    if pictures > 1 or decoder != "whole":
        said.append(DECODER_REASONS[decoder])
    said.append(f"This takes about {gib(need)} of {gib(room)} that can be used ({gib(RESERVE)} are kept for kernels).")
    too_large = [f"{words} would need {gib(size)}" for words, size, ok in tried if not ok]
    if too_large:
        said.append(f"Faster, but too large: {'; '.join(too_large)}.")
    said.append("No attention slicing: fused attention never holds the large matrix, and slicing slows it down.")
    return tuple(said)
