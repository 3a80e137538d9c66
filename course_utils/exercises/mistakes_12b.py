"""What the second half of chapter 12's exercises give with common mistakes: a new word, LoRA, control."""

import torch
from torch import nn

from course_utils.exercises.mistakes_10 import other_than
from course_utils.exercises.oracles import Wrong, close, require


def row_mistakes(gradient, row):
    """gradient: (tokens, width), with tokens <= width, so that a column `row` is there, too."""
    rows, columns = (torch.zeros_like(gradient) for _ in range(2))
    rows[row] = gradient[row]
    columns[:, row] = gradient[:, row]
    return [
        (gradient[row], "This is the row alone. An optimizer wants a gradient of the shape of its parameter, (tokens, "
                        "width): zeros everywhere else."),
        (gradient[row : row + 1], "The row was cut out. Keep the shape (tokens, width): zeros in all other rows."),
        (columns, "A *column* was kept: one number of each word. A word is a row: kept[row], not kept[:, row]."),
        (gradient - rows, "The wrong way round: this row became zeros, and all other words would learn."),
        (torch.zeros_like(gradient), "All of it is zeros: nothing would learn."),
        (torch.ones_like(gradient) * rows.any(1, keepdim=True), "These are ones where the gradient belongs: multiply "
                                                                "the gradient by this mask."),
        (gradient, "All rows are as they were: every word of the prompts would be changed."),
    ]  # fmt: skip


# LoRA


def require_parts(layer, base, rank) -> None:
    """Raise `Wrong` unless a LoRA layer has its parts, as they should be at the start."""
    require(isinstance(layer, nn.Module), f"got {type(layer).__name__}, expected an nn.Module.",
            "Keep the class line, and call super().__init__() first.")  # fmt: skip
    missing = [name for name in ("base", "A", "B") if not hasattr(layer, name)]
    require(not missing, f"the layer has no {', '.join(missing)}, expected base, A and B.",
            "Keep the layer as self.base, and the two matrices as self.A and self.B.")  # fmt: skip
    for name, shape in (("A", (rank, base.in_features)), ("B", (base.out_features, rank))):
        matrix = getattr(layer, name)
        require(isinstance(matrix, nn.Parameter), f"{name} is of type {type(matrix).__name__}, expected nn.Parameter.",
                "An optimizer finds only nn.Parameter among the attributes of a module.")  # fmt: skip
        require(
            matrix.shape == shape, f"{name} has the shape {tuple(matrix.shape)}, expected {shape}.",
            "A goes first, from `in` numbers to `rank`; B from `rank` to `out`. As with nn.Linear, a matrix is (to, "
            "from)."
        )  # fmt: skip
        require(matrix.requires_grad, f"{name} is frozen, expected it to be trained.",
                "Only the layer that was passed is frozen.")  # fmt: skip
    require(not any(p.requires_grad for p in base.parameters()), "the layer that was passed is still trained, expected "
            "it frozen.", "base.requires_grad_(False) freezes its weight and its bias: only A and B are "
            "trained.")  # fmt: skip
    require(layer.base is base, "`base` is another layer, expected the one that was passed.",
            "No copy is needed: self.base = base.")  # fmt: skip
    require(not layer.B.any(), "B starts with other numbers than 0, expected zeros.",
            "The network must draw at first what it drew before: B A must be 0.")  # fmt: skip
    require(bool(layer.A.any()), "A starts with zeros, like B, expected random numbers.",
            "The gradient of A has the factor B, and that of B the factor A: if both are 0, nothing is ever "
            "learned.")  # fmt: skip
    require(
        rank == 1 or bool((layer.A - layer.A[:1]).any()), "all rows of A are alike, expected random numbers.",
        "Rows that start alike have the same gradient and stay alike: the rank would stay 1."
    )  # fmt: skip


def fill(layer, case) -> None:
    """Give A and B numbers, as if they had been trained."""
    with torch.no_grad():
        for matrix in (layer.A, layer.B):
            matrix.copy_(case.normal(*matrix.shape))


def lora_outputs(x, layer, alpha):
    """The right output of a LoRA layer, and those of mistakes."""
    W, b, A, B = layer.base.weight, layer.base.bias, layer.A.detach(), layer.B.detach()
    rank = len(A)
    bias = 0 if b is None else b
    plain, low = x @ W.mT + bias, x @ A.mT @ B.mT
    right = plain + alpha / rank * low
    return right, other_than(right, [
        (plain + low, "The factor alpha / rank is missing."),
        (plain + alpha * low, "alpha is divided by the rank, so that another rank needs no other learning rate."),
        (plain + low / rank, "alpha was not used: the factor is alpha / rank."),
        (plain + rank / alpha * low, "The factor is the wrong way round: alpha / rank."),
        (plain + alpha / rank**0.5 * low, "This divides by the root of the rank. That is rsLoRA; LoRA divides by the "
                                          "rank itself."),
        (plain, "A and B are not used in forward."),
        (alpha / rank * low, "The frozen layer is missing: the difference is added to what it gives."),
        (right - bias, "The bias is missing: self.base(x) has it."),
        (right + bias, "The bias was added twice: self.base(x) has it already."),
    ])  # fmt: skip


def require_merged(learner, layer, x, alpha, case) -> None:
    """Raise `Wrong` unless merging gives one matrix, and unmerging gives back the old one."""
    W = layer.base.weight.detach().clone()
    right, _ = lora_outputs(x, layer, alpha)
    low = right - layer.base(x).detach()
    twice = other_than(right, [
        (right + low, "The difference counts twice: it is in the merged matrix, and forward adds it once more."),
        (right - low, "Nothing but W is left: the merged matrix is W + difference()."),
    ])  # fmt: skip
    call(learner, layer, "merge")
    close(learner.method(layer, "forward", x), right, twice, tolerance=1e-3, what="merged, the output")
    fill(layer, case)
    close(learner.method(layer, "forward", x), right, tolerance=1e-3, what="merged, and with another A and B, the "
          "output")  # fmt: skip
    call(learner, layer, "unmerge")
    again, _ = lora_outputs(x, layer, alpha) if torch.equal(layer.base.weight, W) else (None, None)
    if again is None:
        close_enough = torch.allclose(layer.base.weight, W, rtol=1e-3, atol=1e-4)
        raise Wrong(
            f"after merge() and unmerge() W differs by up to {(layer.base.weight - W).abs().max():.2g}, expected the "
            "same bits.",
            "Adding and subtracting rounds. Keep W as it is, and the merged matrix beside it."
            if close_enough
            else "unmerge() gives back the W from before merge(): keep it, and the merged matrix beside it.",
        )
    close(learner.method(layer, "forward", x), again, [(right, "It is still merged: unmerge() lets forward use A and "
          "B again.")], tolerance=1e-3, what="unmerged again, the output")  # fmt: skip
    for _ in range(2):
        call(learner, layer, "merge")
    close(learner.method(layer, "forward", x), again, [
        (again + again - layer.base(x).detach() if torch.equal(layer.base.weight, W) else again + low,
         "Merging again added the difference again: it starts from W."),
    ], tolerance=1e-3, what="merged twice, the output")  # fmt: skip


def call(learner, layer, name):
    """Call a method without inputs, which may change the layer's parameters."""
    require(hasattr(layer, name), f"the class has no method '{name}'.", "Keep the names of the methods as they were "
            "given.")  # fmt: skip
    return learner.call(lambda: getattr(layer, name)(), getattr(learner.reference, name))


# Control


def residual_mistakes(skips, residuals, weight):
    """Right sums as one long vector, and what mistakes give, as long."""

    def flat(parts):
        return torch.cat([part.flatten() for part in parts])

    pairs = list(zip(skips, residuals, strict=True))
    right = flat([torch.add(s, r, alpha=weight) for s, r in pairs])
    return right, [
        (flat([s + r for s, r in pairs]), "The weight was not used."),
        (flat([weight * s + r for s, r in pairs]), "The weight belongs to the residuals: with 0, the U-Net is left as "
                                                   "it was."),
        (flat([weight * (s + r) for s, r in pairs]), "The weight is for the residuals alone, and not for the skip "
                                                     "connections."),
        (flat([(1 - weight) * s + weight * r for s, r in pairs]), "This goes over from one to the other. The skip "
                                                                  "connection stays as a whole; something is added."),
        (flat([weight * r for _, r in pairs]), "These are the residuals alone: add them to the skip connections."),
        (flat(skips), "The residuals were not added."),
        (flat([s - weight * r for s, r in pairs]), "They were subtracted; they are added."),
        (flat([s + weight * r if n == 0 else s for n, (s, r) in enumerate(pairs)]), "Only the first skip connection "
         "got its residual."),
    ]  # fmt: skip


class Steered(nn.Module):
    """A small network that counts its calls; its output depends on x_t, t, cond and the drawing."""

    def __init__(self, case):
        super().__init__()
        self.weight = nn.Parameter(case.uniform(1.2, 1.8))
        self.calls = 0

    def answer(self, x_t, t, cond, drawing):
        told = 3 * cond.mean((1, 2)) - t.to(x_t) / 10
        seen = nn.functional.avg_pool2d(drawing.mean(1, keepdim=True), 4)
        return self.weight * (x_t + seen) + told.view(-1, 1, 1, 1)

    def forward(self, x_t, t=None, cond=None, drawing=None):
        if t is None or cond is None or drawing is None:
            raise ValueError("the model expects noisy latents, time, prompt and drawing: model(x_t, t, cond, drawing).")
        if not isinstance(t, torch.Tensor) or t.shape != x_t.shape[:1]:
            raise ValueError(f"the model expects one time for each sample, t of shape {tuple(x_t.shape[:1])}.")
        if drawing.ndim != 4 or drawing.shape[2] != 4 * x_t.shape[2]:
            raise ValueError("the model expects the drawing in pixels, four times as high and wide as the latents.")
        self.calls += 1
        return self.answer(x_t, t, cond, drawing)


def control_mistakes(model, x0, cond, drawing, t, eps, table):
    """The right loss, computed by hand, and those of mistakes."""
    a = table[t].view(-1, 1, 1, 1)
    signal, noise = a.sqrt(), (1 - a).sqrt()
    x_t, v = signal * x0 + noise * eps, signal * eps - noise * x0
    answer = model.answer(x_t, t, cond, drawing).detach()

    def loss(x=x_t, t=t, c=cond, d=drawing, target=v):
        return (model.answer(x, t, c, d).detach() - target).square().mean()

    right = nn.functional.mse_loss(answer, v)
    return right, other_than(right, [
        (loss(target=eps), "The target here is eps. This U-Net predicts v, and its ControlNet with it."),
        (loss(target=x0), "The target here is x0; it should be v."),
        (loss(target=-v), "The sign of v is wrong: √ᾱ eps - √(1 - ᾱ) x0."),
        (loss(target=signal * eps + noise * x0), "There is a minus in v: √ᾱ eps - √(1 - ᾱ) x0."),
        (loss(target=noise * eps - signal * x0), "The factors of v are swapped: √ᾱ belongs to eps."),
        (loss(target=a * eps - (1 - a) * x0), "The roots are missing in v."),
        (loss(x=a * x0 + (1 - a) * eps), "The roots are missing in x_t: add_noise has them."),
        (loss(x=x0), "The model was shown the clean x0; it should see x_t."),
        (loss(x=eps), "The model was shown eps itself; it should see x_t."),
        (loss(t=torch.zeros_like(t)), "The model was not told the time (t = 0 for all)."),
        (loss(t=t[:1].expand_as(t)), "All samples were told the time of the first."),
        (loss(d=torch.zeros_like(drawing)), "The drawing was left out: an empty one was passed."),
        (loss(d=drawing.flip(3)), "The drawing was mirrored."),
        (loss(d=2 * drawing - 1), "The drawing was moved to [-1, 1]. Pass it as it comes, in [0, 1]."),
        ((answer - v).square().sum(), "This is the sum over everything; take the mean."),
        ((answer - v).square().flatten(1).mean(1), "One number for each sample is left: take the mean of them too."),
        ((answer - v).square(), "Every element is left: take the mean over all of them."),
        ((answer - v).abs().mean(), "This is the mean absolute error; the loss is the mean of the squares."),
        ((answer - v).square().mean().sqrt(), "A root was taken: the loss is the mean square itself."),
        (((answer - v).square() / a).mean(), "Each sample was divided by ᾱ. The loss of v has no further weight."),
    ])  # fmt: skip
