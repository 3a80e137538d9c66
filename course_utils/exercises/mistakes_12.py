"""What the exercises of chapter 12 give with common mistakes, and what their oracles measure with.

Each `..._mistakes` returns pairs (value that a mistake gives, sentence that names it) for `close`.
"""

import contextlib
import copy
import math

import torch
from torch import nn

from course_utils.data import picture_book as book
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.exercises.calls import Raised
from course_utils.exercises.mistakes_10 import other_than
from course_utils.exercises.oracles import Wrong, close, require


@contextlib.contextmanager
def explained(words: str, advice: str):
    """Let an exception of the learner's code whose text has these words be told this advice."""
    try:
        yield
    except Raised as raised:
        if words not in str(raised.__cause__):
            raise
        raise Wrong(f"{type(raised.__cause__).__name__}: {raised.__cause__}", advice) from None


@contextlib.contextmanager
def unset_memory_seen():
    """Let torch.empty and its like return NaN, and not what happens to lie in memory."""
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


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
        else "Which norm does the point half-way have? For your result, path, print path.flatten(2).norm(dim=2)."
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
    rows, columns, last, before, total = (torch.zeros_like(gradient) for _ in range(5))
    rows[row], last[-1], before[row - 1], total[row] = gradient[row], gradient[-1], gradient[row - 1], gradient.sum(0)
    columns[:, row] = gradient[:, row]
    numbers = torch.arange(len(gradient))[:, None]
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
        (gradient * (numbers >= row), "Only the rows before this one are zeros; those after it must be, too."),
        (gradient * (numbers <= row), "Only the rows after this one are zeros; those before it must be, too."),
        (before, "This is row number `row` - 1. Rows are counted from 0, and `row` is one of those numbers."),
        (last, "The last row was kept, whatever `row` says."),
        (total, "The gradients of all rows were added up in one; only that of the row itself belongs there."),
        (-rows, "The sign was turned. A gradient points uphill; it is the optimizer that goes down."),
        (torch.where(gradient == gradient[row], gradient, 0), "Rows were compared by their values, and another word "
         "may have the same ones: take the row by its number."),
        (rows.masked_fill(numbers != row, torch.nan), "torch.empty_like sets nothing: elsewhere is what happens to "
         "lie in memory. torch.zeros_like makes zeros."),
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
    require(layer.base is base, "`base` is another layer, expected the one that was passed.",
            "No copy is needed: self.base = base.")  # fmt: skip
    require(not any(p.requires_grad for p in base.parameters()), "the layer that was passed is still trained, expected "
            "it frozen.", "base.requires_grad_(False) freezes its weight and its bias: only A and B are "
            "trained.")  # fmt: skip
    require(not layer.B.any(), "B starts with other numbers than 0, expected zeros.",
            "The network must draw at first what it drew before: B A must be 0.")  # fmt: skip
    require(bool(layer.A.isfinite().all()), "A starts with what happens to lie in memory, expected random numbers.",
            "torch.empty only reserves memory. Fill it: .uniform_(-bound, bound), for example.")  # fmt: skip
    require(bool(layer.A.any()), "A starts with zeros, like B, expected random numbers.",
            "The gradient of A has the factor B, and that of B the factor A: if both are 0, nothing is ever "
            "learned.")  # fmt: skip
    require(
        rank == 1 or bool((layer.A - layer.A[:1]).any()), "all rows of A are alike, expected random numbers.",
        "Rows that start alike have the same gradient and stay alike: the rank would stay 1."
    )  # fmt: skip


def require_layers_apart(learner, layer, base, rank, alpha):
    """Raise `Wrong` unless a second layer starts with other numbers, and follows its base; return that layer."""
    other = learner.call(lambda: learner.candidate(copy.deepcopy(base), rank, alpha), making)
    require(not torch.equal(other.A, layer.A), "two layers start with the same A, expected other random numbers.",
            "torch.manual_seed in the class gives each layer the same numbers, and starts the random numbers of the "
            "whole session again.")  # fmt: skip
    for like in ({"dtype": torch.float64}, {"device": "meta"}):  # the latter stands for a GPU, and is nowhere
        strange = nn.Linear(base.in_features, base.out_features, **like)
        made = learner.call(lambda strange=strange: learner.candidate(strange, rank, alpha), making)
        for name in ("A", "B"):
            got, expected = ((part.dtype, part.device.type) for part in (getattr(made, name), strange.weight))
            require(got == expected, f"for a base of {expected[0]} on the device '{expected[1]}', {name} is of {got[0]}"
                    f" on '{got[1]}'.", "A and B follow `base`, as on a GPU they must: torch.zeros(..., "
                    "dtype=base.weight.dtype, device=base.weight.device), or .to(base.weight).")  # fmt: skip
    return other


def making():
    """Stand for the making of a layer, where a call is noted."""


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
        (plain + alpha // rank * low, "alpha / rank was rounded down: // is for whole numbers."),
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
        (2 * plain - right, "The difference was subtracted; it is added."),
    ])  # fmt: skip


def require_merged(learner, layer, other, x, alpha, case) -> None:
    """Raise `Wrong` unless merging gives one matrix, and unmerging gives back the old one; `other` is left alone."""
    W, b = layer.base.weight.detach().clone(), layer.base.bias
    plain, apart = nn.functional.linear(x, W, b), other(x).detach()
    bias = 0 if b is None else b.detach()
    right, _ = lora_outputs(x, layer, alpha)
    low = right - plain
    twice = other_than(right, [
        (right + low, "The difference counts twice: it is in the merged matrix, and forward adds it once more."),
        (right - low, "Nothing but W is left: the merged matrix is W + difference(), with the A and B of that moment."),
        (right - bias, "The merged matrix has no bias of its own: F.linear(x, self.merged, self.base.bias)."),
    ])  # fmt: skip

    def merged(right, mistakes, what):  # not as a method: while it is merged, A and B may be frozen
        got = learner.call(lambda x: layer(x), learner.reference.forward, x)
        close(got, right, mistakes, tolerance=1e-3, what=what)

    call(learner, layer, "merge")
    merged(right, twice, "merged, the output")
    require(torch.equal(other(x), apart), "merging one layer changed what another one gives.",
            "Keep what is merged in `self`, not in the class or outside it.")  # fmt: skip
    fill(layer, case)
    later, _ = lora_outputs(x, layer, alpha) if torch.equal(layer.base.weight, W) else (right, None)
    merged(right, other_than(right, [
        (later, "A and B are looked up in each call. merge() keeps the matrix of that moment, so that nothing is left "
                "to compute."),
    ]), "merged, and with another A and B, the output")  # fmt: skip
    call(learner, layer, "unmerge")
    require_unmerged(layer, W)
    again, _ = lora_outputs(x, layer, alpha)
    close(learner.method(layer, "forward", x), again, [(right, "It is still merged: unmerge() lets forward use A and "
          "B again.")], tolerance=1e-3, what="unmerged again, the output")  # fmt: skip
    call(learner, layer, "merge")
    fill(layer, case)
    call(learner, layer, "merge")
    low = again - plain
    last = plain + alpha / len(layer.A) * (x @ layer.A.detach().mT @ layer.B.detach().mT)
    merged(last, [
        (last + low, "Merging again added the difference again: it starts from W."),
        (again, "Merging again did nothing: it takes the A and B of then."),
    ], "merged a second time, with another A and B, the output")  # fmt: skip
    call(learner, layer, "unmerge")
    require_unmerged(layer, W)
    close(learner.method(layer, "forward", x), last, tolerance=1e-3, what="unmerged a second time, the output")


def require_unmerged(layer, W) -> None:
    """Raise `Wrong` unless W is as it was, and A and B are trained again."""
    if not torch.equal(layer.base.weight, W):
        close_enough = torch.allclose(layer.base.weight, W, rtol=1e-3, atol=1e-4)
        raise Wrong(
            f"after merge() and unmerge() W differs by up to {(layer.base.weight - W).abs().max():.2g}, expected the "
            "same bits.",
            "Adding and subtracting rounds. Keep W as it is, and the merged matrix beside it."
            if close_enough
            else "unmerge() gives back the W from before merge(): keep it, and the merged matrix beside it.",
        )
    require(layer.A.requires_grad and layer.B.requires_grad, "after unmerge() A or B is frozen, expected both to be "
            "trained again.", "If merge() freezes A and B, unmerge() has to undo it.")  # fmt: skip
    require(not layer.base.weight.requires_grad, "after unmerge() the weights of base are trained, expected them "
            "frozen.", "A new nn.Parameter records gradients: write into the old one, or keep W as it is and the "
            "merged matrix beside it.")  # fmt: skip


def call(learner, layer, name):
    """Call a method without inputs, which may change anything but A and B."""
    require(hasattr(layer, name), f"the class has no method '{name}'.", "Keep the names of the methods as they were "
            "given.")  # fmt: skip
    before = layer.A.detach().clone(), layer.B.detach().clone()
    result = learner.call(lambda: getattr(layer, name)(), getattr(learner.reference, name))
    require(torch.equal(layer.A, before[0]) and torch.equal(layer.B, before[1]), f"{name}() changed A or B, expected "
            "them to stay.", "merge() and unmerge() leave A and B as they are: only what forward uses "
            "changes.")  # fmt: skip
    return result


# Control


@contextlib.contextmanager
def new_tensors_advised():
    """Let what was changed in place be told that a list of tensors can be changed in two ways."""
    try:
        yield
    except Wrong as wrong:
        if "changed in place" not in wrong.found:
            raise
        raise Wrong(
            wrong.found,
            "skips[i] = ... writes into the caller's list, and skip += ... into a tensor in it, which no copy of the "
            "list prevents. Collect new tensors, skip + weight * residual, and return those.",
        ) from None


def require_sums(got, skips, residuals, before: int) -> None:
    """Raise `Wrong` unless there is one tensor for each skip connection. before: how many earlier calls returned."""
    count = len(skips)
    require(isinstance(got, list | tuple), f"got {type(got).__name__}, expected a list of {count} tensors.",
            "One sum for each skip connection, in a list.")  # fmt: skip
    require(len(got) <= count, f"got {len(got)} tensors, expected {count}.",
            "The tensors of earlier calls are still in it: make the list within the function, and not as a default "
            "argument." if before and len(got) == before + count
            else "One sum for each skip connection; + joins two lists end to end.")  # fmt: skip
    require(len(got) == count, f"got {len(got)} tensors, expected {count}.",
            "Some pairs were left out. Is the `return` inside the loop, or does the loop end early?")  # fmt: skip
    for one, skip in zip(got, skips, strict=True):
        stacked = getattr(one, "shape", (0, 0))[1:2] == (2 * skip.shape[1],)
        require(getattr(one, "shape", None) == skip.shape, f"got the shape {tuple(getattr(one, 'shape', ()))}, "
                f"expected {tuple(skip.shape)}.", "They are added, and not put one after the other." if stacked
                else "Each residual goes to the skip connection of the same place in the list.")  # fmt: skip


def require_ways_back(got, skips, residuals, weight) -> None:
    """Raise `Wrong` unless the gradients of the sums reach skip connections and residuals."""
    outputs = [one for one in got if one.requires_grad]
    if not outputs:
        return  # noted already
    found = torch.autograd.grad(sum(one.sum() for one in outputs), [*skips, *residuals], allow_unused=True)
    for kind, gradients, expected in (("residuals", found[len(skips) :], weight), ("skips", found[: len(skips)], 1.0)):
        holds = all(g is not None and torch.allclose(g, torch.full_like(g, expected)) for g in gradients)
        require(holds or not expected, f"no gradient, or a wrong one, comes back to the {kind}.",
                f"The {kind} were cut off, by .detach(), .data or torch.no_grad()"
                + (": the ControlNet learns through them alone." if kind == "residuals" else "."))  # fmt: skip


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
        (flat([s + weight * r if n == len(pairs) - 1 else s for n, (s, r) in enumerate(pairs)]), "Only the last skip "
         "connection got its residual."),
        (flat([s + (weight or 1.0) * r for s, r in pairs]), "0 is a weight, too: `weight or 1` takes it for a missing "
                                                            "one."),
    ]  # fmt: skip


class Steered(nn.Module):
    """A small network that counts its calls; its output depends on x_t, t, cond and the drawing."""

    def __init__(self, case):
        super().__init__()
        self.weight = nn.Parameter(case.uniform(1.2, 1.8))
        self.kernel = case.normal(1, 3, 4, 4) / 4
        self.calls = 0

    def answer(self, x_t, t, cond, drawing):
        told = 3 * cond.mean((1, 2)) - t.to(x_t) / 10
        seen = nn.functional.conv2d(drawing, self.kernel, stride=4)
        return self.weight * (x_t + seen) + told.view(-1, 1, 1, 1)

    def forward(self, x_t, t=None, cond=None, drawing=None):
        if t is None or cond is None or drawing is None:
            raise ValueError("the model expects noisy latents, time, prompt and drawing: model(x_t, t, cond, drawing).")
        if not isinstance(t, torch.Tensor) or t.shape != x_t.shape[:1]:
            raise ValueError(f"the model expects one time for each sample, t of shape {tuple(x_t.shape[:1])}.")
        if drawing.ndim != 4 or drawing.shape[2] != 4 * x_t.shape[2]:
            raise ValueError("the model expects the drawing in pixels, four times as high and wide as the latents.")
        if drawing.shape[1] != 3:
            raise ValueError(
                f"the model expects a drawing of three channels, got {drawing.shape[1]}: pass it as it is."
            )
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

    def with_table(a):
        a = a.view(-1, 1, 1, 1)
        return loss(a.sqrt() * x0 + (1 - a).sqrt() * eps, target=a.sqrt() * eps - (1 - a).sqrt() * x0)

    usual = alpha_bar_from_beta(scaled_linear_beta(1000)).to(a)
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
        (loss(target=signal * eps - noise * x_t), "v was made of eps and x_t; it is made of eps and the clean x0."),
        (loss(x=noise * x0 + signal * eps), "The factors of x_t are swapped: √ᾱ belongs to x0."),
        (loss(a * x0 + (1 - a) * eps, target=a * eps - (1 - a) * x0), "The roots are missing in both x_t and v."),
        (with_table(table[t - 1]), "ᾱ was read at t - 1: alpha_bar[t] is that of time t."),
        (with_table(table[t[:1]]), "All samples were noised to the time of the first."),
        (with_table(usual[t]), "This is the notebook's own table; use the argument alpha_bar."),
        (loss(t=t / len(table)), "t was divided by the number of times; the model wants t itself."),
        (loss(t=table[t]), "The model was given ᾱ in place of the time t."),
        (loss(c=torch.zeros_like(cond)), "The prompt was left out. If some are dropped, the caller has done so."),
        (loss(d=1 - drawing), "The drawing was turned to black on white. Pass it as it comes."),
        (loss(d=drawing.round()), "The drawing was made pure black and white. Pass it as it comes, with its greys."),
        (loss(d=drawing.mean(1, keepdim=True).expand_as(drawing)), "The drawing was made grey. Pass its three "
                                                                   "channels as they come."),
        (loss(d=drawing.roll(1, 0)), "Each sample was given the drawing of another one."),
        ((answer - v).square().sum() / len(t), "This is the sum over all pixels; take the mean over them, too."),
        ((answer - v).square().mean() / 2, "This is half of the loss: take the mean without any factor."),
        ((answer - v).mean().square(), "The mean was taken before the square: squares first, then their mean."),
        (nn.functional.huber_loss(answer, v), "This is the Huber loss; the loss is the mean of the squares."),
        ((a * (answer - v).square()).mean(), "The prediction was turned into noise first, which multiplies each "
                                             "square by ᾱ. Compare v with v."),
        (((1 - a) * (answer - v).square()).mean(), "The prediction was turned into x0 first, which multiplies each "
                                                   "square by 1 - ᾱ. Compare v with v."),
        (((answer - v).square() / a).mean(), "Each sample was divided by ᾱ. The loss of v has no further weight."),
    ])  # fmt: skip


def require_learning(got, model, x0, cond, drawing, t, eps, table) -> None:
    """Raise `Wrong` unless the gradient of the loss with respect to the model's weight is right; no other is needed."""
    if not got.requires_grad:
        return  # noted already
    a = table[t].view(-1, 1, 1, 1)
    error = model.answer(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, cond, drawing)
    error = error - a.sqrt() * eps + (1 - a).sqrt() * x0
    (expected,) = torch.autograd.grad(error.square().mean(), model.weight)
    (found,) = torch.autograd.grad(got, model.weight, allow_unused=True)
    require(found is not None and torch.allclose(found, expected, rtol=1e-2), "the value is right, but its gradient "
            "with respect to the model's weights is not.", "The model's prediction goes into the loss as it comes, "
            "without .detach().")  # fmt: skip
