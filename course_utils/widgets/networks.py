"""The explorers of chapter 04: which pixels a convolution reads and writes, and what a pixel attends to."""

import torch
from torch.nn import functional as F

from course_utils.models.attention import attention_weights
from course_utils.models.blocks import conv_output_size, overlap_count
from course_utils.plotting import plot_pictures
from course_utils.shapes import require_pictures
from course_utils.widgets.explorer import Choice, Explorer, Slider

LAYERS = ("convolution", "transposed convolution")
SIDE = 12  # of the square of equal pixels that the layer is given


def overlap_explorer() -> Explorer:
    """A layer on 12 x 12 equal pixels: the sizes, how often each pixel is used, and its profile along one row.

    A convolution reads some input pixels more often than others; a transposed convolution writes some output pixels
    more often than others.
    """

    def draw_overlap(axes, kernel: int, stride: int, layer: str) -> str:
        if layer == "convolution":
            size = conv_output_size(SIDE, kernel, stride)
            line = overlap_count(size, kernel, stride)  # what is read may end before the side does
            line = F.pad(line, (0, SIDE - len(line)))
            what, verb = "input pixel", "read"
        else:
            line = overlap_count(SIDE, kernel, stride)
            size = len(line)
            what, verb = "output pixel", "written"
        field = line[:, None] * line  # both sides multiply
        axes[0].imshow(field, cmap="viridis", vmin=0)
        axes[0].set(title=f"{SIDE} x {SIDE} to {size} x {size}", xlabel=f"column of the {what}", ylabel="row")
        axes[0].grid(False)
        axes[1].step(range(len(line)), line, where="mid", color="#0072B2")
        axes[1].set(
            xlabel=f"column of the {what}",
            ylabel=f"times {verb}",
            xlim=(-1, len(line)),
            ylim=(0, max(4, line.max() * 1.15)),
        )
        inside = sorted(set(line[kernel : max(kernel + stride, len(line) - kernel)].tolist()))
        even = "evenly" if len(inside) == 1 else "unevenly"
        times = " or ".join(str(number) for number in inside)
        return (
            f"A {layer} with kernel {kernel} and stride {stride} makes {size} x {size} of {SIDE} x {SIDE} pixels; "
            f"away from the border each {what} is {verb} {times} times along a row, {even}."
        )

    return Explorer(
        draw_overlap,
        {"kernel": Slider(1, 6), "stride": Slider(1, 4), "layer": Choice(LAYERS)},
        {"kernel": 3, "stride": 2, "layer": "transposed convolution"},
        panels=2,
    )


def attention_explorer(picture: torch.Tensor) -> Explorer:
    """Which pixels one pixel of a picture (1, channels, height, width) attends to, by colour and by place.

    The query and the keys are the pixels' colours, times `sharpness`, with their places beside them, times `nearness`.
    """
    require_pictures(picture)
    _, _, height, width = picture.shape
    colour = picture[0].flatten(1).T  # (pixels, channels)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    place = torch.stack([rows, columns], 2).reshape(-1, 2)  # (pixels, 2)

    def draw_attention(axes, row: int, column: int, sharpness: float, nearness: float) -> str:
        features = torch.cat([sharpness * colour, nearness * place], 1)
        # -|q - k|^2 / 2 = q.k - |k|^2 / 2 + what is the same for all keys: one more number in each vector
        keys = torch.cat([features, -(features**2).sum(1, keepdim=True) / 2], 1)
        query = torch.cat([features[row * width + column], torch.ones(1)])[None]
        weights = attention_weights(query * query.shape[1] ** 0.5, keys).reshape(height, width)
        plot_pictures(picture, ["the query"], ax=axes[0])
        side = height / width
        axes[0].plot(
            (column + 0.5) / width,
            axes[0].get_ylim()[0] - side + (row + 0.5) / width,
            "o",
            color="#0072B2",
            markersize=9,
            markeredgecolor="white",
        )
        axes[1].imshow(weights, cmap="magma", vmin=0)
        axes[1].plot(column, row, "o", color="#0072B2", markersize=7, markeredgecolor="white")
        axes[1].set(title="its attention map", xticks=[], yticks=[])
        axes[1].grid(False)
        spread = torch.exp(-(weights * weights.clamp(min=1e-30).log()).sum())
        return (
            f"The pixel in row {row}, column {column}, with sharpness {sharpness:g} and nearness {nearness:g}, "
            f"spreads its attention over about {spread:.0f} of {height * width} pixels."
        )

    return Explorer(
        draw_attention,
        {
            "row": Slider(0, height - 1),
            "column": Slider(0, width - 1),
            "sharpness": Slider(0, 20, 0.5),
            "nearness": Slider(0, 20, 0.5),
        },
        {"row": height // 2, "column": width // 2, "sharpness": 6.0, "nearness": 0.0},
        panels=2,
    )
