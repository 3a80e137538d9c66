"""The exercises of chapter 12, second half: a new word, LoRA, control from a drawing."""

import torch
from torch import nn

from course_utils.exercises.mistakes_12b import (
    Steered,
    control_mistakes,
    fill,
    lora_outputs,
    require_merged,
    require_parts,
    residual_mistakes,
    row_mistakes,
)
from course_utils.exercises.oracles import close, require
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import close_in_all
from course_utils.models import control, lora
from course_utils.recipes import control as control_recipe
from course_utils.text import new_words

TITLE = "Steering the picture"


@exercise(
    "12.only_row", new_words.only_row, difficulty=1, minutes=5,
    hints=[
        "The result has the shape of the gradient, and is 0 nearly everywhere: torch.zeros_like(gradient).",
        "Then fill in one row: kept[row] = gradient[row]. Do not write into `gradient` itself.",
    ],
)  # fmt: skip
def only_row(learner, case):
    """Keep the gradient of a single word."""
    settings = []
    for tokens, width, row in ((7, 9, 3), (5, 5, 0), (4, 9, 3), (6, 6, 2), (1, 4, 0)):
        gradient = case.normal(tokens, width)
        right = torch.einsum("n,nd->nd", torch.eye(tokens)[row], gradient)
        mistakes = row_mistakes(gradient, row)
        settings.append((learner(gradient, row), right, mistakes, f"for row {row} the gradient", learner.called))
    close_in_all(settings)


@exercise(
    "12.lora_linear", lora.LoRALinear, difficulty=5, minutes=30, gradients=True, given="base, rank, alpha=None",
    hints=[
        "In __init__: freeze base, keep it, and make two nn.Parameter: A (rank, in) random, B (out, rank) zeros. "
        "base.in_features and base.out_features are the sizes.",
        "alpha is the rank if it is None, so that the factor alpha / rank is 1.",
        "forward: self.base(x) + alpha / rank * (x @ self.A.mT @ self.B.mT). Cheaper than making B A first.",
        "merge: self.merged = self.base.weight + self.difference(), without a gradient. As long as there is one, "
        "forward returns F.linear(x, self.merged, self.base.bias). unmerge: self.merged = None.",
    ],
)  # fmt: skip
def lora_linear(learner, case):
    """Train a difference of low rank beside a frozen linear layer."""
    for inside, outside, rank, alpha, shape, bias in (
        (8, 5, 3, 6.0, (4, 2, 8), True),
        (6, 6, 2, None, (3, 6), False),
        (4, 7, 4, 1.0, (5, 4), True),
        (5, 3, 1, 2.0, (1, 5), True),
    ):
        base, x = nn.Linear(inside, outside, bias=bias), case.normal(*shape)
        with torch.no_grad():
            for parameter in base.parameters():
                parameter.copy_(case.normal(*parameter.shape))
        layer = learner(base, rank, alpha)
        require_parts(layer, base, rank)
        alpha = alpha or rank
        # not as a method: the gradients of a random start are not the reference's
        start = learner.call(lambda x, layer=layer: layer(x), learner.reference.forward, x)
        close(start, base(x), what="at the start, the output")
        fill(layer, case)
        right, mistakes = lora_outputs(x, layer, alpha)
        close(learner.method(layer, "forward", x), right, mistakes, tolerance=1e-3, what="the output")
        low = torch.einsum("or,ri->oi", layer.B, layer.A).detach()
        both = alpha / rank * low
        close(learner.method(layer, "difference"), both, [
            (low.mT * alpha / rank, "It is transposed: like W it is (out, in), B @ A."),
            *([(low, "difference() has no factor alpha / rank: it is what is added to W.")] if alpha != rank else []),
            (both + base.weight, "W itself is in it. difference() is what is added to W."),
        ], tolerance=1e-3, what="the difference")  # fmt: skip
        require_merged(learner, layer, x, alpha, case)


@exercise(
    "12.zero_convolution", control.zero_convolution, difficulty=1, minutes=5,
    hints=[
        "A convolution with a kernel of one pixel: nn.Conv2d(channels, channels, 1). Its weights start at random.",
        "nn.init.zeros_(layer.weight) sets them to zero, in place; the same for layer.bias.",
    ],
)  # fmt: skip
def zero_convolution(learner, case):
    """Make a layer that gives zeros until it is trained."""
    for channels, shape in ((6, (2, 6, 4, 5)), (1, (1, 1, 3, 2)), (3, (2, 3, 1, 1))):
        layer = learner(channels)
        require(isinstance(layer, nn.Conv2d), f"got {type(layer).__name__}, expected an nn.Conv2d.",
                "Return the layer: nn.Conv2d(channels, channels, 1).")  # fmt: skip
        require(layer.in_channels == layer.out_channels == channels, f"it goes from {layer.in_channels} channels to "
                f"{layer.out_channels}, expected {channels} and {channels}.",
                "A residual has the channels of the skip connection that it is added to.")  # fmt: skip
        require(layer.kernel_size == (1, 1), f"the kernel is {layer.kernel_size}, expected (1, 1).",
                "One pixel is enough: what lies before it has looked around already.")  # fmt: skip
        require(layer.groups == 1, f"it has {layer.groups} groups, expected one.",
                "Each output channel may use all input channels.")  # fmt: skip
        require(layer.bias is not None, "it has no bias, expected one.", "The bias is kept, and starts at zero, "
                "too.")  # fmt: skip
        require(not layer.weight.any(), f"the largest weight is {layer.weight.abs().max():.2g}, expected zeros.",
                "Weights start at random: set them to zero, exactly.")  # fmt: skip
        require(not layer.bias.any(), "the bias is not zero.", "The bias starts at random, too: nn.init.zeros_ for "
                "both.")  # fmt: skip
        require(layer.weight.requires_grad and layer.bias.requires_grad, "it is frozen, expected it to be trained.",
                "Zero is only where it starts: leave requires_grad as it is.")  # fmt: skip
        x = case.normal(*shape)
        output = layer(x)
        close(output, torch.zeros_like(x), what="for any input, the output")
        output.sum().backward()
        close(layer.weight.grad, x.sum((0, 2, 3)).expand(channels, -1)[..., None, None], tolerance=1e-3,
              what="the gradient of the weights")  # fmt: skip


@exercise(
    "12.add_residuals", control.add_residuals, difficulty=2, minutes=5, gradients=True,
    hints=[
        "The two lists have the same length: zip(skips, residuals, strict=True) goes through both.",
        "For each pair: skip + weight * residual, a new tensor, in a list.",
    ],
)  # fmt: skip
def add_residuals(learner, case):
    """Add what a ControlNet gives to the U-Net's skip connections."""
    settings = []
    for count, weight in ((3, 1.0), (3, 0.0), (2, round(case.uniform(0.3, 0.8).item(), 2)), (1, 2.0)):
        shapes = [(2, 3, 8, 4), (2, 5, 4, 2), (2, 5, 4, 2)][:count]
        skips, residuals = ([case.normal(*shape) for shape in shapes] for _ in range(2))
        got = learner(skips, residuals, weight)
        require(isinstance(got, list | tuple), f"got {type(got).__name__}, expected a list of {count} tensors.",
                "One sum for each skip connection, in a list.")  # fmt: skip
        require(len(got) == count, f"got {len(got)} tensors, expected {count}.",
                "One sum for each skip connection; + joins two lists end to end.")  # fmt: skip
        for one, skip in zip(got, skips, strict=True):
            stacked = getattr(one, "shape", (0, 0))[1:2] == (2 * skip.shape[1],)
            require(getattr(one, "shape", None) == skip.shape, f"got the shape {tuple(getattr(one, 'shape', ()))}, "
                    f"expected {tuple(skip.shape)}.", "They are added, and not put one after the other." if stacked
                    else "Each residual goes to the skip connection of the same place in the list.")  # fmt: skip
        right, mistakes = residual_mistakes(skips, residuals, weight)
        flat = torch.cat([one.detach().flatten() for one in got])
        settings.append((flat, right, mistakes, f"with weight {weight:g} the sums", learner.called))
    close_in_all(settings)


@exercise(
    "12.control_loss", control_recipe.control_loss, difficulty=4, minutes=15, gradients=True, uses=("05.add_noise",),
    hints=[
        "It is the loss of chapter 10 with one input more: model(x_t, t, cond, drawing).",
        "The U-Net of this course predicts v = √ᾱ eps - √(1 - ᾱ) x0 (chapter 07), so that is the target. "
        "objectives.v_from_x0_eps(x0, eps, t, alpha_bar) computes it.",
        "x_t = add_noise(x0, eps, t, alpha_bar); then the mean of the squares of model(...) - v, over everything.",
    ],
)  # fmt: skip
def control_loss(learner, case):
    """Measure how well v is predicted by a U-Net that sees a drawing."""
    table = (1 - case.uniform(0.02, 0.12, 40)).cumprod(0)
    for shape, ends in (((5, 3, 4, 4), [7, 0, 39]), ((4, 3, 4, 2), [20, 5]), ((1, 2, 2, 3), [])):
        batch = shape[0]
        x0, eps, cond = case.normal(*shape), case.normal(*shape), case.normal(batch, 4, 6)
        drawing = case.uniform(0, 1, batch, 3, *shape[2:]).round().repeat_interleave(4, 2).repeat_interleave(4, 3)
        t = torch.cat([torch.tensor(ends, dtype=torch.int64), case.whole(1, 38, batch - len(ends))])
        model = Steered(case)
        got = learner(model, x0, cond, drawing, t, eps, table)
        require(model.calls > 0, "the model was never called.", "Call it: model(x_t, t, cond, drawing).")
        right, mistakes = control_mistakes(model, x0, cond, drawing, t, eps, table)
        close(got, right, mistakes, tolerance=1e-4, what="the loss")
