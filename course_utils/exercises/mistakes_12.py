"""What the exercises of chapter 12 give with common mistakes, and what their oracles measure with.

Each `..._mistakes` returns pairs (value that a mistake gives, sentence that names it) for `close`.
"""

import math

import torch
from torch import nn

from course_utils.data import picture_book as book
from course_utils.exercises.mistakes_10 import other_than
from course_utils.exercises.oracles import Wrong, close, require


def as_times(got) -> torch.Tensor:
    """The times that were returned, as a tensor of whole numbers; raises `Wrong` for what is no list of them."""
    if not isinstance(got, (list, tuple, range, torch.Tensor)) or isinstance(got, torch.Tensor) and got.ndim != 1:
        raise Wrong(
            f"got {type(got).__name__}, expected a list of times.",
            "Return a part of `times` itself, such as times[start:].",
        )
    if not all(float(t).is_integer() for t in got):
        raise Wrong(
            f"got {list(got)}, expected whole numbers.", "Return times that are in `times`, not shares of them."
        )
    return torch.tensor([int(t) for t in got], dtype=torch.int64)


def times_mistakes(times, strength):
    steps = len(times)
    keep = int(steps * strength)

    def last(count):
        return torch.tensor(times[steps - count :], dtype=torch.int64)

    return [
        (torch.tensor(times[-keep:]), "Where no step is left, times[-0:] is the *whole* list. Start at "
                                      "len(times) - keep."),
        (torch.tensor(times[:keep], dtype=torch.int64), "These are the *first* times: drawing would start from pure "
         "noise and stop with noise left. The last ones remain."),
        (torch.tensor(times[keep:], dtype=torch.int64), "`strength` is the share of the steps that is run, not the "
         "share that is left out: strength 1 runs all."),
        (last(round(steps * strength)), "The number of steps was rounded to the nearest. It is cut: int(3.5) = 3."),
        (last(math.ceil(steps * strength)), "The number of steps was rounded up. It is cut: int(3.5) = 3. "
         "(Cutting the number that is *skipped* rounds up the number that is run.)"),
        (last(max(1, keep)), "At least one step was kept. With strength 0, none remains."),
    ]  # fmt: skip


def blend_mistakes(x_t, x0, noise, mask, t, table):
    a = 1.0 if t < 0 else table[t].item()
    known = math.sqrt(a) * x0 + math.sqrt(1 - a) * noise
    last = table[t].item()  # of -1: the last entry
    wrapped = math.sqrt(last) * x0 + math.sqrt(1 - last) * noise
    return [
        (mask * x_t + (1 - mask) * wrapped, "For t = -1, alpha_bar[-1] is the *last* entry of the table, nearly pure "
                                            "noise. Without noise alpha_bar is 1."),
        (mask * known + (1 - mask) * x_t, "The mask is the wrong way round: 1 means paint again, so x_t stays there."),
        (mask * x_t + (1 - mask) * x0, "The known latents are clean. At time t they need as much noise as x_t has."),
        (mask * x_t + (1 - mask) * (a * x0 + (1 - a) * noise), "The roots are missing: √ᾱ for the known latents, "
                                                               "√(1 - ᾱ) for the noise."),
        (mask * x_t + (1 - mask) * math.sqrt(a) * x0, "The known latents were made smaller, and got no noise."),
        (x_t + (1 - mask) * known, "Outside the mask x_t is still there, under the known latents: it is multiplied "
                                   "by the mask."),
        (math.sqrt(a) * (mask * x_t + (1 - mask) * x0) + math.sqrt(1 - a) * noise,
         "x_t got noise a second time. Only the known latents need it."),
        (known, "x_t was not used: nothing is drawn."),
        (mask * x_t + (1 - mask) * (math.sqrt(1 - a) * x0 + math.sqrt(a) * noise), "The two factors are swapped: √ᾱ "
         "belongs to the known latents."),
    ]  # fmt: skip


def renoise_mistakes(x, earlier, t, table, noise):
    a_t, a = table[t].item(), 1.0 if earlier < 0 else table[earlier].item()
    ratio, last = a_t / a, a_t / table[earlier].item()

    def mixed(share, noise_share):
        return math.sqrt(share) * x + math.sqrt(max(noise_share, 0)) * noise

    return [
        (mixed(last, 1 - last), "For earlier = -1, alpha_bar[-1] is the *last* entry of the table. Without noise "
                                "alpha_bar is 1."),
        (mixed(a_t, 1 - a_t), "This adds noise as if x were clean. It has some already: take the *ratio* of the two "
                              "alpha_bar."),
        (mixed(ratio, 1 - a_t), "The image is right, but the noise is that of a clean x: its factor is "
                                "√(1 - ratio)."),
        (mixed(ratio, a - a_t), "The noise is the difference of the two alpha_bar. That is what is missing *before* x "
                                "is made smaller: √(1 - ratio)."),
        (ratio * x + (1 - ratio) * noise, "The roots are missing: √ratio for x, √(1 - ratio) for the noise."),
        (mixed(1, 1 - ratio), "x kept its size, so that the variance grows beyond 1. Multiply it by √ratio."),
        (mixed(ratio, 0), "x was made smaller, and got no noise."),
        (mixed(1 - ratio, ratio), "The two factors are swapped: √ratio belongs to x."),
    ]  # fmt: skip


def path_of(got, a: torch.Tensor, b: torch.Tensor, count: int) -> None:
    """Raise `Wrong` unless `got` (count, batch, ...) is a path that the contract of `between` allows."""
    first, last = got[0], got[-1]
    if torch.allclose(first, b, atol=1e-3) and torch.allclose(last, a, atol=1e-3):
        raise Wrong("the path starts at b and ends at a, expected from a to b.", "Exchange the two, or the shares.")
    for name, point, end in (("first", first, a), ("last", last, b)):
        off = (point - end).abs().max().item()
        require(off < 1e-3, f"the {name} noise is off by up to {off:.2g}, expected the given one.",
                "The ends belong to the path, as they came: the first is a and the last is b. "
                "torch.linspace(0, 1, count) holds 0 and 1.")  # fmt: skip
    norms = got.flatten(2).norm(dim=2)  # (count, batch)
    low, high = norms[[0, -1]].amin(0) * 0.95, norms[[0, -1]].amax(0) * 1.05
    place = int((norms / norms[:1] - 1).abs().amax(1).argmax())
    ratio = (norms[place] / norms[0]).mean().item()
    named = (
        "On the straight line between two noises the middle is too short: its variance is 1/2. Go round, or bring each "
        "point back to the right norm."
        if ratio < 0.95
        else "Which norm does the point half-way have? Print got.flatten(2).norm(dim=2)."
    )
    require(
        bool(((norms >= low) & (norms <= high)).all()),
        f"noise {place} of {count} has {ratio:.2f} times the norm of a, expected from 0.95 times the smaller to "
        "1.05 times the larger norm of its two ends.",
        named,
    )
    steps = (got[1:] - got[:-1]).flatten(2).norm(dim=2)  # (count - 1, batch)
    longest, shortest = steps.amax(0), steps.amin(0)
    require(
        bool((longest <= 3 * shortest).all()),
        f"the longest step is {longest.max():.3g}, the shortest {shortest.min():.3g}, expected a third of it or more.",
        "The path waits somewhere and jumps elsewhere. Let the share of the way grow evenly from 0 to 1.",
    )


def maps_mistakes(own, kept, partners):
    """Wrong maps of the tokens of `own`, whose number may differ from that of `kept`."""
    tokens = kept.shape[-1]
    pairs = list(enumerate(partners if partners is not None else range(tokens)))

    def filled(start, pairs, source=kept):
        maps = start.clone()
        for there, here in pairs:
            if here is not None and 0 <= there < maps.shape[-1] and -tokens <= here < source.shape[-1]:
                maps[..., there] = source[..., here]
        return maps

    right = filled(own, pairs)
    return [
        (own, "These are the new prompt's own maps: nothing was put in. With partners=None, *all* maps are the kept "
              "ones."),
        (filled(own, [(here, there) for there, here in pairs if here is not None]),
         "The direction is wrong: partners[j] is the place in the *old* prompt of the new prompt's token j."),
        (filled(own, [(there, 0 if here is None else here) for there, here in pairs]),
         "A token without a partner got the map of token 0. It keeps its own."),
        (filled(own, [(there, -1 if here is None else here) for there, here in pairs]),
         "A token without a partner got the map of the last token. It keeps its own."),
        (filled(torch.zeros_like(own), pairs), "A token without a partner has an empty map. It keeps its own."),
        (filled(own, [(there, there) for there, here in pairs if here is not None]),
         "Each token got the map at its own place. Its partner may stand at another place: partners[j]."),
        (right / right.sum(-1, keepdim=True), "The rows were divided by their sums. Put the kept maps in as they are."),
        (right.softmax(-1), "These are weights already, after the softmax: no second one."),
        ((own + right) / 2, "The maps were averaged. The kept ones *replace* the own ones."),
    ]  # fmt: skip


def pages_with_balls(case, count: int = 6) -> tuple[torch.Tensor, torch.Tensor, list[book.Scene]]:
    """Pages with a red ball, (count, 3, 64, 64); the masks of the balls, (count, 1, 64, 64); and the scenes."""
    places = [book.PLACES[int(number)] for number in torch.randperm(len(book.PLACES), generator=case.generator())]
    seeds = case.whole(0, 10**6, count).tolist()
    scenes = [book.Scene((book.Thing("ball", "red"),), places[i], seed) for i, seed in enumerate(seeds)]
    masks = torch.stack([(book.maps(scene).things == 1).float()[None] for scene in scenes])
    return book.pictures(scenes), masks, scenes


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
