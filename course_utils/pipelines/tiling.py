"""Pictures that continue at their own edges: convolutions on a ring, and how large the steps between neighbours are.

A picture tiles if its last column may stand beside its first, and its last row above its first. Zeros around the
edge, the usual padding, tell a network where the page ends; a ring has no end.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.functional import conv2d, pad

from course_utils.shapes import require_pictures


def column_steps(pictures: torch.Tensor) -> torch.Tensor:
    """Return how far each column is from the next one, the last from the first: (batch, width).

        step[k] = mean over channels and rows of | x[..., k + 1] - x[..., k] |,   k + 1 counted modulo the width

    step[-1] is the seam that is seen where the picture is laid beside itself; the others are its inner differences.
    For rows hand in `pictures.mT`. pictures: (batch, channels, height, width); steps are in the pictures' units, for
    [-1, 1] times 127.5 in grey levels. Raises ValueError for other shapes, and for a single column.
    """
    require_pictures(pictures)
    if pictures.shape[3] < 2:
        raise ValueError(f"Expected at least two columns, but got {tuple(pictures.shape)}; hand in whole pictures.")
    return (pictures.roll(-1, 3) - pictures).abs().mean((1, 2))


def seam_ratio(pictures: torch.Tensor) -> torch.Tensor:
    """Return the seam between last and first column, divided by the mean inner difference of columns: (batch,).

        ratio = step[-1] / mean(step[:-1])

    1: the seam is as large a step as any other; above 1 it can be seen. 0 / 0, of one colour only, is 0: no seam.
    For rows hand in `pictures.mT`. Raises ValueError as `column_steps` does.
    """
    steps = column_steps(pictures)
    seam, inner = steps[:, -1], steps[:, :-1].mean(1)
    return torch.where(seam == 0, torch.zeros_like(seam), seam / inner)


def tiled(pictures: torch.Tensor, down: int = 3, across: int = 3) -> torch.Tensor:
    """Return each picture laid beside and below itself: (batch, channels, down * height, across * width).

    Raises ValueError for tensors that are no pictures, and for numbers below 1.
    """
    require_pictures(pictures)
    if down < 1 or across < 1:
        raise ValueError(f"Expected at least one copy down and across, but got {down} and {across}.")
    return pictures.repeat(1, 1, down, across)


@contextlib.contextmanager
def circular(*networks: nn.Module, across: bool = True, down: bool = True) -> Iterator[None]:
    """Let every convolution of the networks pad with the other end of the picture, and undo it afterwards.

        y = conv( x[ rows and columns modulo height and width ] )

    across: what leaves at the right comes in at the left. down: the same from bottom to top; where it is False, that
    axis is padded as before. For the U-Net and the autoencoder's decoder: then both commute with shifts along the
    ring, of whole latents for the decoder and of 4 for a U-Net that halves twice. Attention needs no change: these
    networks give it no positions. Weights, other layers and the networks' modes stay. The encoders of diffusers'
    autoencoders pad by hand before they halve, which is not changed.
    Raises ValueError if there is no convolution with padding, or one that pads in another way than with zeros.
    """
    layers = [part for network in networks for part in network.modules() if isinstance(part, nn.Conv2d)]
    padded = [layer for layer in dict.fromkeys(layers) if layer.padding not in ((0, 0), "valid")]
    if not padded:
        raise ValueError(
            "Expected networks with convolutions that pad, but found none; pass the U-Net and the decoder."
        )
    others = {layer.padding_mode for layer in padded if layer.padding_mode != "zeros" or "_conv_forward" in vars(layer)}
    if others:
        raise ValueError(
            f"Expected convolutions that pad with zeros, but found padding {sorted(others)} or one that is changed "
            "already; leave the first `circular` before the second."
        )
    try:
        for layer in padded:
            layer._conv_forward = _on_a_ring(layer, across, down)  # type: ignore[method-assign]
        yield
    finally:
        for layer in padded:
            vars(layer).pop("_conv_forward", None)  # the class's own again


def _on_a_ring(layer: nn.Conv2d, across: bool, down: bool):
    left, right, top, bottom = layer._reversed_padding_repeated_twice  # counted also where the padding is "same"

    def forward(x, weight, bias):
        x = pad(x, (left, right, 0, 0), mode="circular" if across else "constant")
        x = pad(x, (0, 0, top, bottom), mode="circular" if down else "constant")
        return conv2d(x, weight, bias, layer.stride, 0, layer.dilation, layer.groups)

    return forward
