"""LoRA by hand: a few numbers, trained beside the linear layers of a frozen network, and kept in a file of their own.

    h = W x + b + weight alpha / rank B A x

A file has diffusers' keys or those of the Stable Diffusion Web UI (kohya's). Source: Hu et al., arXiv:2106.09685.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from course_utils.files import new_file

if TYPE_CHECKING:  # named in hints only: importing it takes seconds
    from diffusers import UNet2DConditionModel

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # queries, keys, values, and the layer after the heads
# all linear layers of a U-Net's blocks: what is made of what attention finds, and where the time embedding enters, too
EVERYWHERE = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "time_emb_proj")
# How the key of a tensor ends: in diffusers, in the files of its own training scripts, and in the Web UI.
ROLES = {
    "lora_A.weight": "A", "lora_B.weight": "B",
    "lora.down.weight": "A", "lora.up.weight": "B",
    "lora_down.weight": "A", "lora_up.weight": "B", "alpha": "alpha",
}  # fmt: skip
KEY = re.compile(rf"(?:unet\.|lora_unet_)(.+)\.({'|'.join(map(re.escape, ROLES))})")
METADATA = "lora_adapter_metadata"  # JSON in the file's header, where diffusers looks for alpha


class LoRALinear(nn.Module):
    """A frozen linear layer and, beside it, a trained difference of low rank.

        h = W x + b + weight alpha / rank B A x

    A (rank, in) starts as torch starts linear layers, B (out, rank) at zero, so that nothing changes at first.
    base: an nn.Linear, which is frozen, or a LoRALinear, so that the differences of both add up. alpha (None: rank):
    how strongly A and B count. weight: how much of the difference is used, 0 for none of it.

    Raises ValueError if `base` is another kind of layer, for a rank that is not from 1 to the smaller side of W, for an
    alpha that is not above 0, and for a weight that is not finite. Source: Hu et al., arXiv:2106.09685, section 4.1.
    """

    def __init__(
        self,
        base: "nn.Linear | LoRALinear",
        rank: int,
        alpha: float | None = None,
        weight: float = 1.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        alpha = rank if alpha is None else alpha
        _require(base, rank, alpha, weight)
        self.in_features: int = base.in_features
        self.out_features: int = base.out_features
        self.rank, self.alpha, self.weight = rank, alpha, weight
        self.base = base.requires_grad_(False)
        A = torch.empty(rank, self.in_features, device=None if generator is None else generator.device)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=generator)
        like = _matrix(base)
        self.A = nn.Parameter(A.to(like))
        self.B = nn.Parameter(like.new_zeros(self.out_features, rank))
        self.merged: torch.Tensor | None
        self.register_buffer("merged", None, persistent=False)

    @property
    def bias(self) -> torch.Tensor | None:
        """b, which has no difference of its own."""
        return self.base.bias

    @property
    def scale(self) -> float:
        """What B A is multiplied by, weight alpha / rank."""
        return self.weight * self.alpha / self.rank

    def difference(self) -> torch.Tensor:
        """What is added to W, weight alpha / rank B A: (out, in)."""
        return (self.B @ self.A) * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., in). Returns (..., out)."""
        if self.merged is not None:
            return F.linear(x, self.merged, self.bias)
        return self.base(x) + F.linear(F.linear(x, self.A), self.B) * self.scale

    @torch.no_grad()
    def merge(self) -> None:
        """Make one matrix of W, this difference and those of the LoRAs below: as quick as without, but not trained.

        It has A, B and weight as they are now: merge again when they have changed. W itself is kept.
        """
        self.merged = _matrix(self.base) + self.difference()

    def unmerge(self) -> None:
        """Forget the merged matrix: W is what it was, bit for bit."""
        self.merged = None


def _require(base: Any, rank: Any, alpha: Any, weight: Any) -> None:
    """Raise ValueError unless a LoRALinear can be made of these."""
    if not isinstance(base, nn.Linear | LoRALinear):
        raise ValueError(f"Expected a linear layer, got {type(base).__name__}: choose an nn.Linear.")
    most = min(base.in_features, base.out_features)
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= most:
        raise ValueError(
            f"Expected a rank from 1 to {most}, the smaller side of the layer, got {rank!r}: choose another rank."
        )
    if not _is_finite(alpha) or alpha <= 0:
        raise ValueError(f"Expected a finite alpha above 0, got {alpha!r}: take the rank, for instance.")
    if not _is_finite(weight):
        raise ValueError(f"Expected a finite weight, got {weight!r}: take 1 for all of the difference, 0 for none.")


def _is_finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def _matrix(layer: nn.Linear | LoRALinear) -> torch.Tensor:
    """W of a linear layer, the differences of its LoRAs included: (out, in)."""
    if isinstance(layer, nn.Linear):
        return layer.weight
    return _matrix(layer.base) + layer.difference() if layer.merged is None else layer.merged


def add_lora(
    unet: "UNet2DConditionModel",
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] = ATTENTION,
    generator: torch.Generator | None = None,
) -> list[LoRALinear]:
    """Put a new LoRALinear around each layer of the U-Net whose name ends in one of `targets`; return all of them.

    The U-Net is changed in place, and draws what it drew before until they are trained. Their A and B are all that is
    trained: the rest is frozen, LoRAs that were there already included, whose differences still count.

    Raises ValueError, with the U-Net as it was, for a target that no linear layer's name ends in, and for a rank or an
    alpha that LoRALinear does not take.
    """
    if isinstance(targets, str) or not targets:
        raise ValueError(f"Expected a list of names of layers, got {targets!r}: take {list(ATTENTION)}, for instance.")
    layers = _linear_layers(unet)
    for target in targets:
        if not any(_ends_in(name, target) for name in layers):
            raise ValueError(
                f"Expected names that linear layers of this U-Net end in, got {target!r}: choose others, "
                f"{', '.join(ATTENTION)} for instance."
            )
    chosen = {name: layer for name, layer in layers.items() if any(_ends_in(name, target) for target in targets)}
    alpha = rank if alpha is None else alpha
    for layer in chosen.values():
        _require(layer, rank, alpha, 1.0)
    return _insert(unet, {name: LoRALinear(layer, rank, alpha, 1.0, generator) for name, layer in chosen.items()})


def _ends_in(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def remove_lora(unet: "UNet2DConditionModel") -> None:
    """Take every LoRA out of the U-Net, in place: its own layers come back bit for bit, still frozen."""
    for name, layer in _lora_layers(unet).items():
        inside: nn.Linear | LoRALinear = layer
        while isinstance(inside, LoRALinear):
            inside = inside.base
        _replace(unet, name, inside)


def lora_parameters(unet: "UNet2DConditionModel") -> list[nn.Parameter]:
    """A and B of every LoRA in the U-Net, for an optimizer, or to count: rank (in + out) numbers for each layer."""
    return [matrix for layer in unet.modules() if isinstance(layer, LoRALinear) for matrix in (layer.A, layer.B)]


def _linear_layers(unet) -> dict[str, nn.Linear | LoRALinear]:
    """The linear layers by name, each with the LoRAs around it."""
    return {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear | LoRALinear) and not isinstance(_parent(unet, name)[0], LoRALinear)
    }


def _lora_layers(unet) -> dict[str, LoRALinear]:
    return {name: layer for name, layer in _linear_layers(unet).items() if isinstance(layer, LoRALinear)}


def _insert(unet, layers: dict[str, LoRALinear]) -> list[LoRALinear]:
    """Freeze the U-Net, then put the layers in their places."""
    unet.requires_grad_(False)
    for name, layer in layers.items():
        _replace(unet, name, layer)
    return list(layers.values())


def _replace(unet, name: str, layer: nn.Module) -> None:
    parent, own_name = _parent(unet, name)
    setattr(parent, own_name, layer)


def _parent(unet, name: str) -> tuple[nn.Module, str]:
    """The module that holds the module of this name, and how it calls it."""
    parent, _, own_name = name.rpartition(".")
    return unet.get_submodule(parent), own_name


def save_lora(unet: "UNet2DConditionModel", path: Path | str, kind: str = "diffusers") -> None:
    """Write the U-Net's LoRA to a .safetensors file; one that is there already is replaced as a whole.

    kind: "diffusers", with keys unet.NAME.lora_A.weight and lora_B.weight and with alpha in the header, or "webui",
    with keys lora_unet_NAME_WITH_UNDERSCORES.lora_down.weight, lora_up.weight and alpha. `pipe.load_lora_weights` of
    diffusers reads both. The file does not have `weight`, which is chosen where it is used.

    Raises ValueError for another kind, for a path that does not end in .safetensors, for a U-Net without LoRA or with
    several around one layer, and for numbers that are not finite.
    """
    if kind not in ("diffusers", "webui"):
        raise ValueError(f"Expected the kind 'diffusers' or 'webui', got {kind!r}: choose one of the two.")
    path, layers = _safetensors(path), _lora_layers(unet)
    if not layers:
        raise ValueError("Expected a U-Net with a LoRA to save, got one without: call add_lora or load_lora first.")
    tensors: dict[str, torch.Tensor] = {}
    metadata = {"format": "pt"}
    for name, layer in layers.items():
        if isinstance(layer.base, LoRALinear):
            raise ValueError(
                f"Expected one LoRA to save, got several around {name}: remove them, and load the one to save."
            )
        if not (layer.A.isfinite().all() and layer.B.isfinite().all()):
            raise ValueError(
                f"Expected finite numbers to save, got nan or infinity in {name}: train again, with smaller steps."
            )
        A, B = (matrix.detach().cpu().contiguous() for matrix in (layer.A, layer.B))
        if kind == "diffusers":
            tensors |= {f"unet.{name}.lora_A.weight": A, f"unet.{name}.lora_B.weight": B}
        else:
            key = f"lora_unet_{_with_underscores(name)}"
            tensors |= {f"{key}.lora_down.weight": A, f"{key}.lora_up.weight": B}
            tensors[f"{key}.alpha"] = torch.tensor(float(layer.alpha))
    if kind == "diffusers":
        metadata[METADATA] = json.dumps(_configuration(layers), indent=2, sort_keys=True)
    with new_file(path) as part:
        save_file(tensors, part, metadata=metadata)


def _with_underscores(name: str) -> str:
    return name.replace(".", "_")


def _configuration(layers: dict[str, LoRALinear]) -> dict[str, Any]:
    """What diffusers makes a `peft.LoraConfig` of: the most frequent rank and alpha, and the layers with others."""
    ranks = {name: layer.rank for name, layer in layers.items()}
    alphas = {name: layer.alpha for name, layer in layers.items()}
    rank, alpha = (Counter(of_all.values()).most_common(1)[0][0] for of_all in (ranks, alphas))
    return {
        "unet.r": rank,
        "unet.lora_alpha": alpha,
        "unet.rank_pattern": {name: own for name, own in ranks.items() if own != rank},
        "unet.alpha_pattern": {name: own for name, own in alphas.items() if own != alpha},
        "unet.target_modules": list(layers),
    }


def load_lora(unet: "UNet2DConditionModel", path: Path | str, weight: float = 1.0) -> list[LoRALinear]:
    """Add the LoRA of a .safetensors file, of either kind, to the U-Net, in place; return its layers.

    Several may be loaded: their differences add up. As after `add_lora`, the A and B of the last are trained, and the
    rest is frozen. Where a file does not say alpha, it is the rank.

    Raises ValueError, with the U-Net as it was, if the file is missing, cannot be read or is incomplete, if its keys or
    shapes are not those of linear layers of this U-Net, and if the weight is not finite.
    """
    path = _safetensors(path)
    tensors, configuration = _read(path)
    layers = _linear_layers(unet)
    found = {}
    for name, parts in _by_layer(path, tensors, layers).items():
        A, B = _factors(path, name, parts, layers[name])
        alpha = parts["alpha"].item() if "alpha" in parts else _alpha(path, configuration, name, len(A))
        try:
            _require(layers[name], len(A), alpha, weight)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used for {name}: {error}") from None
        found[name] = (A, B, alpha)
    made = {}
    with torch.no_grad():
        for name, (A, B, alpha) in found.items():
            # What A starts from is replaced: a generator of its own leaves torch's as it was
            made[name] = LoRALinear(layers[name], len(A), alpha, weight, torch.Generator())
            made[name].A.copy_(A)
            made[name].B.copy_(B)
    return _insert(unet, made)


def _safetensors(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"Expected a LoRA file that ends in .safetensors, got {path}: choose such a file.")
    return path


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors of a file, and the LoRA's configuration in its header ({} if it has none)."""
    if not path.is_file():
        raise ValueError(f"Expected a LoRA file, got no file {path}: look for its name and folder.")
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
            configuration = json.loads((file.metadata() or {}).get(METADATA) or "{}")
    except Exception as error:  # a damaged file shows as any class
        raise ValueError(
            f"Expected a LoRA file in safetensors form, got {path}, which cannot be read ({error}): fetch it again."
        ) from error
    return tensors, configuration


def _by_layer(path: Path, tensors: dict[str, torch.Tensor], layers) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors by layer, in the U-Net's order, and there by role: A, B and, in the Web UI's files, alpha."""
    names = {spelling: name for name in layers for spelling in (name, _with_underscores(name))}
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if not match:
            raise ValueError(
                f"Expected keys such as unet.….to_q.lora_A.weight or lora_unet_…_to_q.lora_down.weight, got {key} in "
                f"{path}: choose a LoRA that was trained for the U-Net alone."
            )
        if match[1] not in names:
            raise ValueError(
                f"Expected linear layers that this U-Net has, got {match[1]} in {path}: choose a LoRA that was trained "
                "for this model."
            )
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(f"Expected finite numbers, got others in {key} of {path}: fetch the file again.")
        found.setdefault(names[match[1]], {})[ROLES[match[2]]] = tensor
    if not found:
        raise ValueError(f"Expected a LoRA, got {path}, in which there is nothing: fetch the file again.")
    return {name: found[name] for name in layers if name in found}


def _factors(path: Path, name: str, parts: dict[str, torch.Tensor], layer) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of a layer, after a look at whether they are there and fit it."""
    if not {"A", "B"} <= set(parts):
        raise ValueError(f"Expected both matrices for {name}, got one in {path}: fetch the file again.")
    A, B = parts["A"], parts["B"]
    inside, outside = layer.in_features, layer.out_features
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != inside or B.shape != (outside, len(A)):
        raise ValueError(
            f"Expected matrices of shapes (rank, {inside}) and ({outside}, rank) for {name}, got {tuple(A.shape)} and "
            f"{tuple(B.shape)} in {path}: choose a LoRA that was trained for this model."
        )
    if "alpha" in parts and parts["alpha"].numel() != 1:
        raise ValueError(f"Expected one number for alpha of {name}, got several in {path}: fetch the file again.")
    return A, B


def _alpha(path: Path, configuration: Any, name: str, rank: int) -> Any:
    """What the header of diffusers' files says of a layer's alpha; names in `alpha_pattern` are ends, as in peft."""
    try:
        if configuration.get("unet.use_rslora") or configuration.get("unet.use_dora"):
            raise ValueError("they are rsLoRA's or DoRA's")
        for pattern, alpha in configuration.get("unet.alpha_pattern", {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", name):
                return alpha
        return configuration.get("unet.lora_alpha", rank)
    except (AttributeError, ValueError, re.error) as error:  # the header may be any JSON
        raise ValueError(
            f"Expected LoRA settings in the header of {path}, got others ({error}): choose another file."
        ) from error
