"""What the exercises of chapter 16 give with common mistakes, and what their oracles measure with.

Each `..._mistakes` returns the right value, by another way than the course's functions, and pairs (value that a mistake
gives, sentence that names it), for `close`.
"""

import math
import re
from types import SimpleNamespace

import numpy as np
import torch
from scipy.spatial import geometric_slerp

from course_utils.diffusion.editing import lerp, slerp
from course_utils.exercises.oracles import require
from course_utils.exercises.settings import called_as
from course_utils.pipelines.parallax import Layer


def require_bits(settings, advice) -> None:
    """Raise `Wrong` if all numbers are nearly right, and some not to the last bit."""
    off = [_off(got, right) for got, right, *_ in settings]
    for (*_, called), error in zip(settings, off, strict=True):
        with called_as(called):
            found = f"the result is off by up to {error:.2g}, expected all numbers equal to the last bit."
            require(error == 0 or max(off) > 0.02, found, advice)


def _off(got, right) -> float:
    if not isinstance(got, torch.Tensor) or got.shape != right.shape:
        return math.inf
    return (got.double() - right.double()).abs().nan_to_num(math.inf).max().item()


# The syntax of prompts

NAMES = "abcdefghijklmnopqrstuvwxyz"
PART = re.compile(r"\\.?|:\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*\)|[()\[\]]|[^\\()\[\]:]+|:", re.DOTALL)


def read_in_one_way(text, round_=1.1, square=1 / 1.1, twice=False, inner=False, adds=False, to_the_end=True,
                    escapes="text", one_stack=False, stray="text", join=True, keep_empty=False, outermost=False,
                    strips=False):  # fmt: skip
    """Pairs of a prompt, as the course reads it, or with one of the mistakes that the parameters stand for."""
    pieces, opened = [], []  # opened: [bracket, where it begins]

    def multiply(start, weight):
        for piece in pieces[start:]:
            if inner and piece[2]:
                continue
            piece[1] = piece[1] + weight - 1 if adds else piece[1] * weight
            piece[2] = True

    def close(bracket, weight):
        fitting = [i for i, (kind, _) in enumerate(opened) if one_stack or kind == bracket]
        multiply(opened.pop(fitting[0 if outermost else -1])[1], weight)

    for part in PART.findall(text.replace("\\", "") if escapes == "ignored" else text):
        some = {kind: any(one_stack or other == kind for other, _ in opened) for kind in "(["}
        if part[0] == "\\":
            pieces.append([part if escapes == "kept" else part[1:], 1.0, False])
        elif part in ("(", "["):
            opened.append([part, len(pieces)])
        elif part[0] == ":" and part[-1] == ")" and (some["("] or stray in ("dropped", "weights dropped")):
            if some["("]:
                close("(", float(part[1:-1]) * (round_ if twice else 1))
        elif part in (")", "]") and (some["(" if part == ")" else "["] or stray in ("dropped", "brackets dropped")):
            if some["(" if part == ")" else "["]:
                close("(" if part == ")" else "[", round_ if part == ")" else square)
        else:
            pieces.append([part, 1.0, False])
    for kind, start in [*(o for o in opened if o[0] == "("), *(o for o in opened if o[0] == "[")] if to_the_end else []:
        multiply(start, round_ if kind == "(" else square)
    pairs = []
    for piece, weight, _ in pieces:
        piece = piece.strip() if strips else piece
        if join and pairs and abs(pairs[-1][1] - weight) < 1e-12:
            pairs[-1] = (pairs[-1][0] + piece, pairs[-1][1])
        elif piece or keep_empty:
            pairs.append((piece, weight))
    return pairs


READ_MISTAKES = (
    ({"square": 1.1}, "Square brackets were taken for round ones. They weaken: [word] has the weight 1 / 1.1."),
    ({"square": 0.9}, "Square brackets divide by 1.1: a weight of 0.909, and not 0.9."),
    ({"twice": True}, "A weight that is written out was multiplied by 1.1 as well. It stands in place of the 1.1."),
    ({"inner": True}, "Only the innermost bracket counted. Brackets in brackets multiply: one that closes multiplies "
     "all pieces since it was opened, those of inner brackets too."),
    ({"adds": True}, "The weights of brackets in brackets were added up. They multiply: ((word)) has 1.21."),
    ({"to_the_end": False}, "A bracket that is never closed was forgotten. It holds to the end of the prompt: "
     "after the loop, look at what is still open."),
    ({"escapes": "kept"}, "The backslash was kept. It only says that the next character is text: part[1:]."),
    ({"escapes": "ignored"}, "An escaped bracket was taken for a bracket. A piece that begins with a backslash is "
     "text: look for it first."),
    ({"one_stack": True}, "Round and square brackets share one list of what is open. A round one closes the last round "
     "one, even if a square one was opened since: one list for each kind."),
    ({"stray": "dropped"}, "What closes no bracket was dropped. It is text: a ')' or a ':1.3)' without "
     "an open '(' stays."),
    ({"stray": "brackets dropped"}, "A bracket that closes nothing was dropped. It is text."),
    ({"stray": "weights dropped"}, "A ':1.3)' without an open '(' was dropped. It is text."),
    ({"outermost": True}, "A bracket closed the one that was opened first. It closes the last one that is still open: "
     "pop(), and not pop(0)."),
    ({"strips": True}, "Blanks were cut off. They belong to the text."),
    ({"join": False}, "Neighbours of one weight were not joined. At the end, return joined(pieces)."),
    ({"keep_empty": True}, "There are pairs with an empty text. Leave them out, as joined(pieces) does."),
)  # fmt: skip


def prompts(case):
    """Prompts with each piece of the syntax, of other words and weights each time."""
    order = case.uniform(0, 1, len(NAMES)).argsort().tolist()
    a, b, c, d = (NAMES[i] * 3 for i in order[:4])
    u, v = (round(number, 2) for number in case.uniform(0.3, 0.9, 2).tolist())
    return [
        f"{a} {b}", "", f"{a} ({b}) {c}", f"{a} ({b}:{u}) {c}", f"{a} [{b}] {c}", f"(({a}:{u}) {b}:{v}) {c}",
        f"(({a})) [[{b}]]", f"{a} ({b} [{c}] {d})", rf"\({a}\) \[{b}\] \\",
        f"{a} ({b}", f"{a} [{b}", f"{a} ({b} ({c}",
        f"{a}) {b}] {c}", f"{a}:{u}) {b}", f"10:30 ({a}:{b})", f"[{a}:{u}]", f"({a})({b})", "()", f"{a} () {b}",
        f"({a} [{b}) {c}]", f"({a}:-1)", f"({a}: {u} )", f"({a}:.5)", f"({a}:+2.) {b}",
        f"({a} \\({b}\\):{v})", f"({a})\\", f"({a} ({b}:{u}) {c}:{v}) {d}", f"[{a} [{b}]] {c}",
    ]  # fmt: skip


def as_pairs(got):
    """A list of (text, number), or None if it is no such thing."""
    if not isinstance(got, list) or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in got):
        return None
    fits = all(isinstance(t, str) and isinstance(w, int | float) and not isinstance(w, bool) for t, w in got)
    return [(t, float(w)) for t, w in got] if fits else None


def same_pairs(got, wanted):
    return got is not None and [t for t, _ in got] == [t for t, _ in wanted] and all(
        abs(w - other) < 1e-6 for (_, w), (_, other) in zip(got, wanted, strict=True)
    )  # fmt: skip


FEATURE_REASONS = (
    ("must match the size of tensor", "Two shapes do not fit: weights is (chunks, tokens), hidden (chunks, tokens, "
     "width). weights[:, :, None] has one number for each vector, and factor[:, None, None] one for each chunk."),
)  # fmt: skip


def feature_mistakes(hidden, weights):
    """(right, mistakes) of hidden states (chunks, tokens, width) and weights (chunks, tokens)."""
    scaled = weights.to(hidden)[:, :, None] * hidden

    def kept(dims=(1, 2), low=0.5, high=2.0, clamp=False, away=torch.mean, closed=False, inverse=False,
             either_sign=False, together=False, unweighted=False):  # fmt: skip
        factor = away(hidden, dims, keepdim=True) / away(scaled, dims, keepdim=True)
        factor = 1 / factor if inverse else factor
        if clamp:
            return scaled * factor.clamp(low, high)
        size = factor.abs() if either_sign else factor
        inside = (size >= low) & (size <= high) if closed else (size > low) & (size < high)
        inside = inside.all(0, keepdim=True) if together else inside
        if unweighted:
            return torch.where(inside, scaled * factor, hidden)
        return scaled * torch.where(inside, factor, torch.ones_like(factor))

    def size(x, dims, keepdim):
        return x.square().mean(dims, keepdim=keepdim).sqrt()

    infinite = float("inf")
    by_weights = scaled / weights.to(hidden).mean(1)[:, None, None]
    return kept(), [
        (scaled, "The mean was not kept: the result is weight times H. One factor for each chunk is missing."),
        (kept((0, 1, 2)), "One factor for all chunks: each chunk has a mean of its own, .mean((1, 2))."),
        (kept(1), "The mean is over tokens only. It is over all numbers of a chunk, tokens and width: .mean((1, 2))."),
        (
            kept(2),
            "Each token got a factor of its own, which undoes its weight. The mean is over all numbers of a chunk.",
        ),
        (
            kept(low=-infinite, high=infinite),
            "The bounds are missing: a factor that is not between 1/2 and 2 is left out.",
        ),
        (kept(clamp=True), "A factor beyond the bounds was cut to the bound. It is left out, as if it were 1."),
        (kept(closed=True), "The bounds themselves are out: leave a factor of exactly 1/2 or 2 out, too."),
        (
            kept(either_sign=True),
            "A negative factor was let through, and turns all signs. It is not between 1/2 and 2.",
        ),
        (kept(together=True), "One chunk without a factor has taken it from all. Each chunk is looked at by itself."),
        (
            kept(unweighted=True),
            "Where the factor is left out, the weights were left out, too. They stay: weight times H.",
        ),
        (kept(inverse=True), "The factor is upside down: it is the mean before over the mean after."),
        (kept(away=size), "This keeps the root of the mean square. Keep the mean."),
        (by_weights, "Divided by the mean of the weights. The factor compares the means of the features."),
    ]


# The seam

SEAM_REASONS = [
    ("Dimension out of range", "A picture has four axes, counted from 0: batch, channels, height, width. Columns lie "
                               "along axis 3."),
    ("Boolean value of Tensor", "`if` needs one True or False, and here each picture has its own. "
                                "torch.where(seam == 0, 0.0, ...) chooses for each."),
]  # fmt: skip
NO_NUMBER = "0 / 0 is NaN. A picture whose seam is 0 has the ratio 0, also if all its steps are 0: torch.where."


def some_pictures(case):
    """Tensors of pictures: two columns, more columns than rows and fewer, flat ones, ramps, in float64."""
    still = case.uniform(-1, 1, 4, 4, 7, 7)
    still[1] = 0.25  # of one colour
    still[2, ..., -1] = still[2, ..., 0]  # changes, but fits
    still[3] = still[3, :, :, :1].clone()  # changes from row to row only
    ramp = torch.linspace(-0.3, 0.4, 8).expand(1, 3, 4, 8)  # 7 equal steps and a seam of all of them: 7
    return [
        case.uniform(-1, 1, 3, 3, 6, 9),
        case.uniform(-1, 1, 1, 1, 5, 2),
        still,
        torch.cat([ramp, ramp.flip(3), case.uniform(-0.01, 0.01, 1, 3, 4, 8)]),
        case.uniform(-1, 1, 2, 2, 3, 5).double(),
        case.uniform(-1, 1, 1, 3, 9, 4),
    ]


def seam_mistakes(pictures):
    """The right ratios, by NumPy's differences of an image with its first column once more, and those of mistakes."""
    x = pictures.double().numpy()

    def differences(axis):
        return torch.from_numpy(np.diff(x, axis=axis, append=np.take(x, [0], axis)))  # the last one is the seam

    away, rows = differences(3), differences(2)
    steps, down = away.abs().mean((1, 2)), rows.abs().mean((1, 3))
    seam, inner = steps[:, -1], steps[:, :-1]
    squares = away.square().mean((1, 2))
    signed = away.mean((1, 2)).abs()
    each, per_channel, per_row = away.abs(), away.abs().mean(2), away.abs().mean(1)
    once = inner[:, -1], inner[:, :-1].mean(1)

    def ratio(seam, inner):
        return torch.where(seam == 0, 0.0, seam / inner)

    without_wrap = (
        "Nothing compares the last column with the first: this is the last step inside. roll(-1, 3) brings the first "
        "column to the last place."
    )
    first = "With roll(1, 3) columns move to the right: the seam is the first step. With roll(-1, 3) it is the last."
    pairs = [
        (down[:, -1], down[:, :-1].mean(1), "These are steps from row to row. Columns lie along axis 3."),
        (*once, without_wrap),
        (inner[:, -1], inner.mean(1), without_wrap),
        (seam, steps.mean(1), "The seam is in the mean, too. The mean is over the steps inside: steps[:, :-1]."),
        (seam, inner.sum(1), "The steps inside were added up. Divide by their mean."),
        (seam, inner.median(1).values, "This is the median of the steps inside, where their mean is wanted."),
        (seam, inner.amax(1), "The seam was divided by the largest step inside. Divide by their mean."),
        (inner.mean(1), seam, "The ratio is upside down: the seam is divided by the mean step inside."),
        (squares[:, -1], squares[:, :-1].mean(1), "The differences were squared. A step is the mean of absolute "
                                                  "differences, abs()."),
        (squares[:, -1].sqrt(), squares[:, :-1].sqrt().mean(1), "A step is the mean of absolute differences. This is "
         "the root of the mean square."),
        (signed[:, -1], signed[:, :-1].mean(1), "Differences of opposite signs have cancelled out: abs() comes before "
                                                "the mean over channels and rows."),
        (away.mean((1, 2))[:, -1], away.mean((1, 2))[:, :-1].mean(1), "The differences have kept their signs: a step "
                                                                     "is the mean of absolute differences, abs()."),
        (steps[:, -2], torch.cat([steps[:, :-2], steps[:, -1:]], 1).mean(1), first),
        (steps[:, 0], steps[:, 1:].mean(1), "Step 0 is that from column 0 to column 1. The seam is the last one: "
                                            "steps[:, -1]."),
        (seam, steps[:, 1:].mean(1), "The mean leaves out step 0, and takes in the seam. The steps inside are "
                                     "steps[:, :-1]."),
        (seam, inner[:, :-1].mean(1), "One step inside is missing: steps[:, :-1] are all of them, without the seam."),
        (seam, inner[:, 1:].mean(1), "One step inside is missing: steps[:, :-1] are all of them, without the seam."),
        (seam.mean(), inner.mean(), "One ratio came back for all pictures. Each has its own: mean((1, 2)) leaves the "
                                    "batch."),
        (per_channel[..., -1], per_channel[..., :-1].mean(2), "There is a ratio for each channel. The mean of a step "
                                                              "is over channels and rows: mean((1, 2))."),
        (per_row[..., -1], per_row[..., :-1].mean(2), "There is a ratio for each row. The mean of a step is over "
                                                      "channels and rows: mean((1, 2))."),
    ]  # fmt: skip
    bare = each[..., -1] / each[..., :-1].mean(3)
    values = [
        (seam / inner.mean(1), NO_NUMBER),
        (torch.where(steps.sum(1) == 0, 1.0, seam / inner.mean(1)), "A picture of one colour has got the ratio 1. Its "
                                                                    "seam is 0, so its ratio is 0."),
        *[(how(*parts), advice) for *parts, advice in pairs for how in (ratio, torch.div)],
        (seam, "This is the seam itself. Divide it by the mean step inside."),
        (inner.mean(1), "This is the mean step inside. The ratio is the seam divided by it."),
        (seam - inner.mean(1), "The mean step inside was subtracted. Divide by it."),
        *[(both.mean((1, 2)), "Each row and channel was divided by itself before the mean. A step is one mean over "
           "channels and rows; then divide.") for both in (bare, bare.nan_to_num(0, 0, 0))],
        (steps, "These are all steps. Divide the last one, the seam, by the mean of the others."),
        (ratio(seam, inner.mean(1))[:, None], "There is an axis too many: (batch, 1), expected (batch,). Without "
                                              "keepdim, and with steps[:, -1], it is gone."),
    ]  # fmt: skip
    return ratio(seam, inner.mean(1)).to(pictures), [(value.to(pictures), advice) for value, advice in values]


# Windows

WIDTHS = (
    "Two widths do not fit. A window has parts.shape[4] columns and begins where `starts` says, the sum has `width` "
    "columns. Is one of these a fixed number here?"
)
WINDOW_REASONS = [
    ("must match the size of tensor", WIDTHS),
    ("expanded size of the tensor", WIDTHS),
    ("doesn't match the broadcast shape", WIDTHS),
]


def window_mistakes(parts, starts, width, weights):
    """The right mean, column by column by NumPy's weighted average, and those of mistakes."""
    x, w, window = parts.double(), weights.double(), parts.shape[4]

    def covering(starts):
        """For each column: the windows that cover it, and which of their columns it is."""
        return [[(i, k - s) for i, s in enumerate(starts) if 0 <= k - s < window] for k in range(width)]

    def stacked(column, starts=starts):
        return torch.stack([column(pairs, k) for k, pairs in enumerate(covering(starts))], -1)

    def mean(weigh=lambda i, j: w[j], by=None, starts=starts):
        """The sum of weighted columns, divided by their weights' sum, or by another number of (pairs)."""

        def column(pairs, k):
            total = sum((weigh(i, j) * x[i][..., j] for i, j in pairs), torch.zeros_like(x[0][..., 0]))
            return total / (by(pairs) if by else sum(weigh(i, j) for i, j in pairs))

        return stacked(column, starts)

    def in_turn(pairs, k):
        found = x[pairs[0][0]][..., pairs[0][1]]
        for i, j in pairs[1:]:
            found = (found + x[i][..., j]) / 2
        return found

    def heaviest(pairs, k):
        i, j = max(pairs, key=lambda pair: w[pair[1]])
        return x[i][..., j]

    def last_columns_missing(i, j):
        return w[j] * (j < window - 1)

    def without_the_last(i, j):
        return w[j] * (i < max(len(starts) - 1, 1))

    def of_the_whole(pairs):
        return sum(w[j] for i, j in pairs)

    def by_numpy(pairs, k):
        columns, counts = zip(*((x[i][..., j].numpy(), w[j].item()) for i, j in pairs), strict=True)
        return torch.from_numpy(np.average(np.stack(columns), axis=0, weights=counts))

    averaged = stacked(by_numpy)
    everywhere = [(i, j) for i in range(len(starts)) for j in range(window)]
    even = torch.ones_like(w)
    mistakes = [
        (mean(lambda i, j: even[j]), "The weights have no effect: this is the plain mean. Each column of a window "
                                     "counts with its weight."),
        (mean(by=lambda pairs: 1), "This is the sum of weights times predictions. Divide it by the sum of the weights "
                                   "in each column."),
        (mean(lambda i, j: even[j], lambda pairs: 1), "The predictions were added up without weights, and "
                                                      "not divided."),
        (mean(by=len), "It was divided by how many windows cover a column. Divide by the sum of their weights there: "
                       "count[start : start + window] += weights."),
        (mean(by=lambda pairs: len(starts)), "It was divided by the number of all windows. In each column only those "
                                             "count that cover it."),
        (mean(lambda i, j: even[j], lambda pairs: len(starts)), "Without weights, it was divided by the number of all "
         "windows. In each column only those count that cover it, with their weights."),
        (mean(by=lambda pairs: w.sum()), "It was divided by the sum of all weights of a window. In each column only "
                                         "those weights count that meet there."),
        (mean(lambda i, j: even[j], lambda pairs: sum(w[j] for _, j in pairs)), "The predictions were added up "
         "without weights, and then divided by weights. Both sums have them: weights * part."),
        (mean(lambda i, j: w[j], lambda pairs: w[pairs[-1][1]]), "The sum of the weights has only those of the last "
                                                                 "window: count[...] += weights, not =."),
        (stacked(lambda pairs, k: w[pairs[-1][1]] * x[pairs[-1][0]][..., pairs[-1][1]] / of_the_whole(pairs)),
         "The sum of the predictions has only that of the last window: total[...] += ..., not =."),
        (stacked(lambda pairs, k: x[pairs[-1][0]][..., pairs[-1][1]]), "Where windows overlap, the last one has "
         "overwritten the others: += instead of =, and divide by the sum of the weights."),
        (stacked(lambda pairs, k: x[pairs[0][0]][..., pairs[0][1]]), "Where windows overlap, only the first one "
                                                                     "counts. All of them do, by their weights."),
        (mean(lambda i, j: w[window - 1 - j]), "The weights were used from right to left."),
        (mean(lambda i, j: w[j] ** 2), "The weights were squared. Multiply by them once, and divide by their sum."),
        (mean(lambda i, j: w[j] ** 2, lambda pairs: sum(w[j] for _, j in pairs)), "The predictions were multiplied by "
         "the weights twice. Once is enough: total += weights * part."),
        (mean(lambda i, j: w[j].exp()), "softmax makes other weights of those that are given. Divide by their sum."),
        (stacked(in_turn), "Each window was averaged with what stood there before, half and half. So the later ones "
                           "count more, and the weights not at all. Add up first, and divide once at the end."),
        (stacked(heaviest), "Only the window with the largest weight counts in each column. All that cover it do."),
        (mean(starts=sorted(starts)), "The starts were sorted, and the parts were not. starts[i] belongs to parts[i], "
                                      "in any order."),
        (mean(last_columns_missing), "The last column of each window is missing: start : start + window has `window` "
                                     "columns, for the end is not part of it."),
        (mean(without_the_last, lambda pairs: max(1e-6, sum(without_the_last(i, j) for i, j in pairs))), "The last "
         "window is missing: does the loop end before it?"),
        (mean(by=lambda pairs: sum(w[j] for _, j in pairs) + 1), "The sum of the weights began with ones, or 1 was "
                                                                 "added to it. It begins with zeros."),
        (mean(by=lambda pairs: 1)[..., :] / sum(w[j] for i, j in everywhere), "It was divided by the sum of the "
         "weights in all columns. Each column has its own sum, (width,)."),
        (averaged.flip(3), "The columns are in reverse order."),
        (averaged.to(parts)[None], "There is an axis too many: (batch, channels, height, width) is wanted."),
    ]  # fmt: skip
    return averaged.to(parts), [(value.to(parts), advice) for value, advice in mistakes]


# Layers

LAYER_REASONS = [
    ("slice indices must be integers", "A tensor moves by whole pixels: round(camera * layer.depth)."),
    ("'<' not supported between instances of", "Layers themselves have no order. Sort by depth: sorted(layers, "
                                               "key=lambda layer: layer.depth)."),
    ("Boolean value of Tensor", "sorted(layers) compares whole layers, picture by picture. Sort by depth: "
                                "sorted(layers, key=lambda layer: layer.depth)."),
    ("roll(): argument 'shifts'", "A tensor moves by whole pixels: round(camera * layer.depth)."),
]  # fmt: skip
ROUNDED_LAYERS = (
    "scene + cover * (picture - scene) rounds. cover * picture + (1 - cover) * scene does not, for covers of 0 and 1; "
    "torch.where chooses."
)
HARD = "`layer.picture *= ...` and `scene += ...` write into the tensors of a layer. scene = ... makes a new one."


def scene_of(case, depths, size):
    """Layers in the order of the depths; the one of depth 0 covers all, the others about half of the page."""
    layers = []
    for depth in depths:
        cover = (case.uniform(0, 1, 1, 1, *size) < 0.5).float() if depth else torch.ones(1, 1, *size)
        layers.append(Layer(case.normal(1, 3, *size).tanh(), cover, depth))
    return layers


def require_layers_left(layers, kept, called) -> None:
    """Raise `Wrong` if a tensor of a layer has changed."""
    same = all(torch.equal(a, b) for one, other in zip(layers, kept, strict=True) for a, b in zip(one[:2], other[:2],
               strict=True))  # fmt: skip
    with called_as(called):
        require(same, "a layer was changed in place, expected it to stay as it was.", HARD)


def layer_mistakes(layers, camera):
    """The right scene, seen pixel by pixel from near to far, and those of mistakes, painted from far to near."""
    far_to_near = sorted(layers, key=lambda layer: layer.depth)

    def pixels_of(depth):
        return math.floor(camera * depth + 0.5)

    def moved(x, pixels, filled=0.0):
        width = x.shape[3]
        columns = torch.arange(width) - pixels
        inside = (columns >= 0) & (columns < width)
        return torch.where(inside, x[..., columns.clamp(0, width - 1)], filled)

    def around(x, pixels):
        return x.roll(pixels, 3)

    def clamped(x, pixels):
        return x[..., (torch.arange(x.shape[3]) - pixels).clamp(0, x.shape[3] - 1)]

    def down(x, pixels):
        return moved(x.mT, pixels).mT

    def seen():
        out = torch.zeros_like(layers[0].picture)
        for row in range(out.shape[2]):
            for column in range(out.shape[3]):
                for layer in reversed(far_to_near):
                    at = column - pixels_of(layer.depth)
                    if 0 <= at < out.shape[3] and layer.cover[0, 0, row, at] == 1:
                        out[0, :, row, column] = layer.picture[0, :, row, at]
                        break
        return out

    def painted(order=far_to_near, pixels=pixels_of, picture=moved, cover=moved, start=None, lay=None):
        if start is None:
            start, order = order[0].picture, order[1:]
        out = start
        for layer in order:
            x, c = picture(layer.picture, pixels(layer.depth)), cover(layer.cover, pixels(layer.depth))
            out = lay(x, c, out) if lay else c * x + (1 - c) * out
        return out

    def still(x, pixels):
        return x

    nothing = torch.zeros_like(layers[0].picture)
    near_first = (
        "Only the farthest layer is seen, which covers all. Were the layers laid on from near to far, or is the scene "
        "never changed? Sort by depth, the farthest first."
    )
    as_given = "The layers were laid on in the order in which they came. They come in any order: sort by depth."
    backwards = "The layers move the wrong way. A camera that moves to the left sees them moved to the right: +camera."
    wraps = "What leaves at one side comes in at the other: this is roll. parallax.moved fills with 0."
    largest = max(layer.depth for layer in layers)
    ranks = {layer.depth: place / max(len(layers) - 1, 1) for place, layer in enumerate(far_to_near)}
    mistakes = [
        (far_to_near[0].picture, near_first),
        *[(painted(layers, start=start), as_given) for start in (None, nothing)],
        (painted(pixels=lambda d: pixels_of(-d)), backwards),
        (painted(pixels=lambda d: -pixels_of(d)), backwards),
        (painted(pixels=lambda d: 0), "Nothing has moved: each layer moves by round(camera * layer.depth)."),
        (painted(pixels=lambda d: round(camera)), "All layers moved by the whole way of the camera. Each "
                                                             "moves by its depth times that."),
        (painted(pixels=lambda d: round(camera * (1 - d))), "What is far moves more here. Depth 1 is near, "
         "and the near layers move more: camera * depth."),
        (painted(pixels=lambda d: round(camera * (1 - d)), order=far_to_near[::-1]), "Depth was taken for "
         "a distance. 0 is far and 1 near: the near ones move more, and are laid on last."),
        (painted(pixels=lambda d: int(camera * d)), "int() cuts off what follows the point. round() gives the nearest "
                                                    "whole number."),
        (painted(pixels=lambda d: math.floor(camera * d)), "The way was rounded down. round() gives the nearest whole "
                                                           "number."),
        (painted(pixels=lambda d: math.ceil(camera * d)), "The way was rounded up. round() gives the nearest whole "
                                                          "number."),
        (painted(pixels=lambda d: round(round(camera) * d)), "The camera's way was rounded before it was "
         "multiplied by the depth. Round the product."),
        (painted(pixels=lambda d: round(abs(camera) * d)), "A negative way of the camera was taken for a positive one. "
                                                           "It leads to the other side: no abs()."),
        (painted(sorted(layers, key=lambda layer: camera * layer.depth)), "The layers were sorted by how far they "
         "move, which is the other way round for a negative camera. Sort by depth."),
        (painted(pixels=lambda d: round(camera * ranks[d])), "The layers move by their place in the order. Each moves "
                                                             "by its own depth."),
        (painted(cover=still), "The pictures have moved, but their covers have not. Both move."),
        (painted(picture=still), "The covers have moved, but their pictures have not. Both move."),
        (painted(picture=around, cover=around), wraps),
        (painted(cover=around), "The cover wraps around, by roll, and its picture does not. Both are moved by "
                                "parallax.moved."),
        (painted(picture=clamped, cover=clamped), "The columns at the edge were repeated. What comes in is clear: "
                                                  "parallax.moved fills with 0."),
        (painted(picture=down, cover=down), "The layers have moved down. Columns move, along axis 3."),
        (painted(lay=lambda x, c, out: (1 - c) * x + c * out), "The cover is used the wrong way round: where it is 1, "
                                                               "the layer hides what is behind it."),
        (painted(lay=lambda x, c, out: c * x), "What is behind is missing: (1 - cover) * scene belongs to the sum."),
        (painted(lay=lambda x, c, out: c * x + out), "A layer did not hide what is behind it: the scene is multiplied "
                                                     "by 1 - cover."),
        (painted(lay=lambda x, c, out: x + (1 - c) * out), "The layer's picture was laid on whole. It is multiplied "
                                                           "by its cover."),
        (painted(lay=lambda x, c, out: x), "Only the nearest layer is seen. Where its cover is 0, what is behind it "
                                           "shows."),
        (painted(lay=lambda x, c, out: (x + out) / 2), "The layers were averaged. A cover of 1 hides all that is "
                                                       "behind it."),
        (painted(start=nothing, order=far_to_near[1:]), "The farthest layer is missing: the scene begins with its "
                                                        "picture."),
        (painted(order=far_to_near[:-1]) if len(layers) > 1 else far_to_near[0].picture, "The nearest layer is "
                                                                                         "missing."),
        (painted(order=[far_to_near[0], far_to_near[-1]][: len(layers)]), "Only the farthest and the nearest layer "
                                                                          "are seen. All of them are laid on."),
        (painted(pixels=lambda d: round(camera * d / largest) if largest else 0), "The depths were divided "
         "by the largest. They are used as they are."),
        (painted(lay=lambda x, c, out: torch.where(x != 0, x, out)), "The pictures were laid on wherever they are not "
         "0. What hides is said by the cover."),
    ]  # fmt: skip
    return seen(), mistakes


# A step towards a measurement

DPS_REASONS = [
    ("each sample has its own time", "t goes to the model as a tensor with one whole number for each sample: "
                                     "steps.ask(model, x_t, t, cond), or torch.full((len(x_t),), t)."),
    ("does not require grad", "The gradient is taken with respect to x_t, so x_t must ask for it before the model "
                              "does its work: x_t = x_t.detach().requires_grad_(). And nothing up to the distance "
                              "stands under torch.no_grad()."),
    ("to not have been used in the graph", "The distance was not computed from the tensor that the gradient is taken "
                                           "with respect to. Make it first, x_t = x_t.detach().requires_grad_(), and "
                                           "use this one in the model and in x0_hat."),
    ("can be implicitly created only for scalar", "torch.autograd.grad takes one number: distance.sum(). As no sample "
                                                  "depends on another, it holds the gradient of each."),
    ("leaf Variable that requires grad", "x_t is changed in place while it asks for a gradient. Make a new tensor: "
                                         "x_earlier = ... - ..."),
    ("backward through the graph a second time", "The graph is gone after the first gradient. Take it once, of "
                                                 "distance.sum()."),
    ("must match the size of tensor", "One number for each sample, (batch,), needs the axes of x_t before it is "
                                      "multiplied: expand_like(length, x_t), or reshape(-1, *[1] * (x_t.ndim - 1))."),
    ("With eta", "A random step needs the noise: steps.ddim_step(..., 1.0, noise)."),
]  # fmt: skip


def dps_mistakes(case, shape, numbers, t, earlier, pull, curved, told):
    """A Gaussian prior and an instrument, for which all is known: its inputs, what is right, and what mistakes give.

    x0 is normal with the mean m and the covariance S. Then x0_hat = m + √ᾱ S (ᾱ S + (1 - ᾱ) I)⁻¹ (x_t - √ᾱ m), and its
    derivative is the matrix before the bracket. numbers: the shape of a measurement. curved: with a decoder that is no
    straight line. told: with a prompt, which shifts m. The last of several samples fits the measurement already.
    """
    n, d, many = shape[0], math.prod(shape[1:]), math.prod(numbers)
    table = (1 - case.uniform(0.01, 0.05, 40)).cumprod(0)
    half = case.normal(d, d) / math.sqrt(d)
    S, m = half @ half.T + 0.4 * torch.eye(d), case.normal(d)
    # of full rank, so that g is not nearly 0
    A = torch.linalg.qr(case.normal(max(many, d), max(many, d))).Q[:many, :d] * case.uniform(1, 2, d)
    x_t, noise = case.normal(*shape), case.normal(*shape)
    cond = case.normal(n, 3, d) if told else None

    def model(x_t, t, cond=None):
        if not isinstance(t, torch.Tensor) or t.shape != (len(x_t),):
            raise ValueError(f"each sample has its own time: expected a tensor of shape ({len(x_t)},), got {t}")
        a = table[t][:, None]
        off = x_t.flatten(1) - a.sqrt() * (m if cond is None else m + cond.mean(1))
        matrix = a[..., None] * S + (1 - a[..., None]) * torch.eye(d)
        return ((1 - a).sqrt() * torch.linalg.solve(matrix, off)).reshape(x_t.shape)

    def decode(x):
        return x + 0.3 * torch.sin(2 * x) if curved else x

    def measure(x0):
        return (decode(x0.flatten(1)) @ A.T).reshape(-1, *numbers)

    # all again in float64, without the model
    a, b = table[t].item(), table[earlier].item() if earlier >= 0 else 1.0
    x, z, S2, A2 = x_t.double().flatten(1), noise.double().flatten(1), S.double(), A.double()
    centre = m.double() + (cond.double().mean(1) if told else 0)
    J = math.sqrt(a) * S2 @ torch.linalg.inv(a * S2 + (1 - a) * torch.eye(d).double())

    def hat_at(centre):
        return centre + (x - math.sqrt(a) * centre) @ J

    def decode2(x):
        return (x + 0.3 * torch.sin(2 * x) if curved else x) @ A2.T

    def slope(x):
        return 1 + (0.6 * torch.cos(2 * x) if curved else torch.zeros_like(x))

    hat = hat_at(centre)
    eps = (x - math.sqrt(a) * hat) / math.sqrt(1 - a)
    away = case.normal(n, many).double()
    away = away / away.norm(dim=1, keepdim=True) * torch.linspace(2.5, 0.6, n)[:, None].double()
    measured, floor = (decode2(hat) + away).float().reshape(n, *numbers), 0.0 if t == 12 else 0.8
    given = 0.5 if pull is None else pull
    r = away.norm(dim=1, keepdim=True)  # (batch, 1)
    to_hat = -(away / r) @ A2 * slope(hat)  # the gradient with respect to x0_hat
    g = to_hat @ J
    variance = (1 - b) / (1 - a) * (1 - a / b)
    # the mean of DDPM's posterior, plus noise: what DDIM is for eta = 1
    mean = (math.sqrt(b) * (1 - a / b) * hat + math.sqrt(a / b) * (1 - b) * x) / (1 - a)
    plain = mean + math.sqrt(variance) * z
    over = (r - floor).clamp(min=0)

    def square(g):
        return g.square().sum(1, keepdim=True)

    def pulled(g=g, over=over, by=square, pull=given):
        return pull * over / by(g) * g

    def both(x_earlier, x0_hat=hat):
        return x_earlier.float().reshape(shape), x0_hat.float().reshape(shape)

    pull_of_all, right = pulled(), plain - pulled()
    close_by = table[t - 1].item() if t else 1.0  # at the time before, where `earlier` is meant
    early = (math.sqrt(close_by) * (1 - a / close_by) * hat + math.sqrt(a / close_by) * (1 - close_by) * x) / (1 - a)
    early = early + math.sqrt((1 - close_by) / (1 - a) * (1 - a / close_by)) * z
    first_g, first_r = -away.sign() @ A2 * slope(hat) @ J, away.abs().sum(1, keepdim=True)
    root = math.sqrt(many)
    whole = r.square().sum().sqrt()  # one distance for the whole batch
    whole_over, whole_g = (whole - floor).clamp(min=0) * torch.ones_like(r), g * r / whole
    straight = math.sqrt(b) * hat + math.sqrt(1 - b) * eps  # DDIM with eta = 0
    old_eps = math.sqrt(b) * (hat - pull_of_all / math.sqrt(a)) + math.sqrt(max(1 - b - variance, 0)) * eps
    values = [
        (plain, "The measurement has no effect: this is the step without it. Subtract pull * max(distance - floor, 0) "
                "/ |gradient|² * gradient."),
        (plain + pull_of_all, "The samples are pushed away from the measurement: the gradient points to where the "
                              "distance grows, so it is subtracted."),
        (plain - pulled(by=lambda g: square(g).sqrt()), "It was divided by |gradient|. Divide by |gradient|², the sum "
                                                        "of all squares of a sample."),
        (plain - pulled(by=lambda g: 1), "The division by |gradient|² is missing."),
        (plain - pulled(by=lambda g: g.square().mean(1, keepdim=True)), "The squares of the gradient were averaged. "
                                                                        "|gradient|² is their sum."),
        (plain - pulled(over=r), "`floor` has no effect. Only what the distance has beyond it is pulled."),
        (plain - pulled(over=r - floor), "Samples that fit already are pushed away: distance - floor is negative "
                                         "there. .clamp(min=0) is missing."),
        (plain - pulled(over=(r - floor).abs()), "Samples that fit already are pulled, too: abs() instead of "
                                                 ".clamp(min=0)."),
        (plain - pulled(over=r.clamp(min=floor)), "floor is the smallest distance here, and is not subtracted. "
                                                  "max(distance - floor, 0) is wanted."),
        (plain - pulled(over=r * (r > floor)), "Where the distance is above floor, all of it is taken. Only what it "
                                               "has beyond floor is: distance - floor."),
        (plain - pulled(over=torch.ones_like(r)), "The distance has no effect: the factor max(distance - floor, 0) is "
                                                  "missing."),
        (plain - pulled(2 * r * g), "The gradient is that of the squared distance here. Take that of the distance."),
        (plain - pulled(2 * r * g, over=(r**2 - floor).clamp(min=0)), "The root is missing in the distance: it is the "
                                                                      "norm, the root of the sum of all squares."),
        (plain - pulled(g / root, (r / root - floor).clamp(min=0)), "The squares in the distance were averaged. The "
                                                                    "norm is the root of their sum."),
        (plain - pulled(first_g, (first_r - floor).clamp(min=0)), "The distance is the sum of absolute differences "
                                                                  "here. The norm is the root of the sum of squares."),
        (early - pull_of_all, "The step goes to t - 1. It goes to `earlier`, which may be much earlier."),
        (plain - pulled(whole_g, whole_over), "One distance was taken over the whole batch. Each sample has its own: "
                                              ".flatten(1).norm(dim=1)."),
        (plain - pulled(whole_g, whole_over, lambda g: g.square().sum()), "One distance was taken over the whole "
         "batch, and one |gradient|² as well. Each sample has its own: .flatten(1), and dim=1."),
        (plain - pulled(by=lambda g: g.square().sum()), "|gradient|² was summed over the whole batch. Each sample has "
                                                        "its own: .flatten(1).square().sum(1)."),
        (plain - pulled(g / n), "The gradient is that of the mean over the batch. Of the sum it is the gradient of "
                                "each distance: distance.sum()."),
        (plain - pulled(to_hat), "The gradient was taken with respect to x0_hat. Take it with respect to x_t: through "
                                 "the model."),
        (plain - pulled(to_hat / math.sqrt(a)), "The gradient did not pass through the model: what it predicts was "
         "detached, or computed under torch.no_grad()."),
        (plain - pulled(pull=0.5), "`pull` has no effect: it is 0.5 here, whatever is passed."),
        (plain - pulled(pull=1.0), "`pull` has no effect: it is 1 here, whatever is passed."),
        (straight - pull_of_all, "The step has no noise: this is DDIM with eta = 0. It takes eta = 1.0 and noise."),
        (straight + math.sqrt(variance) * z - pull_of_all, "The noise was added to DDIM with eta = 0, so that there "
         "is too much of it. steps.ddim_step takes eta = 1.0 and the noise."),
        (old_eps + math.sqrt(variance) * z, "x_t was pulled before the step. The pull is subtracted from the result "
                                            "of the step."),
        (plain - math.sqrt(b) * pull_of_all, "x0_hat was pulled before the step. The pull is subtracted from the "
                                             "result of the step."),
        (x - pull_of_all, "This is x_t with the pull, without a step. It is subtracted from the result of "
                          "steps.ddim_step."),
        (hat - pull_of_all, "x0_hat was pulled, where the result of steps.ddim_step belongs."),
    ]  # fmt: skip
    gap = measured.double().flatten(1) - decode2(x)
    far = gap.norm(dim=1, keepdim=True)
    of_noisy = plain - pulled(-(gap / far) @ A2 * slope(x), (far - floor).clamp(min=0))
    other = hat_at(m.double())  # of a model that has no prompt
    gap = measured.double().flatten(1) - decode2(other)
    far = gap.norm(dim=1, keepdim=True)
    other_g = -(gap / far) @ A2 * slope(other) @ J
    unled = (math.sqrt(b) * (1 - a / b) * other + math.sqrt(a / b) * (1 - b) * x) / (1 - a) + math.sqrt(variance) * z
    unled = unled - pulled(other_g, (far - floor).clamp(min=0))
    mistakes = [
        *[(both(value), advice) for value, advice in values],
        (both(unled, other), "cond has no effect: the model is called without the prompt. steps.ask(model, x_t, t, "
                             "cond)."),
        (both(of_noisy), "The noisy x_t was measured. The instrument sees what is clean: measure(x0_hat)."),
        (both(right)[::-1], "The two results have changed places: first x_earlier, then x0_hat."),
        (both(right, right), "x_earlier came back twice. The second result is x0_hat."),
        (both(right, x), "x_t came back, where x0_hat is wanted: what steps.guess returns first."),
        (both(right, eps), "The second result is the predicted noise. steps.guess returns x0_hat first."),
        (both(right, hat - pull_of_all), "The second result was pulled, too. x0_hat comes back as the model predicts "
                                         "it."),
    ]  # fmt: skip
    inputs = [model, x_t, t, earlier, table, measure, measured, floor, noise]
    inputs += [given, cond] if told else [] if pull is None else [pull]
    return SimpleNamespace(inputs=inputs, right=both(right), mistakes=mistakes)


# A width that holds

BEYOND = (
    "The k-th smallest of n ratios is .sort().values[k - 1], since places count from 0; k = ceil(level * n) is at "
    "most n."
)
WIDTH_REASONS = [
    ("out of bounds", BEYOND),
    ("selected number k out of range", BEYOND),
    ("must be integers", "A place in a list is a whole number: math.ceil(level * n) - 1."),
    ("only integers, slices", "A place in a list is a whole number: math.ceil(level * n) - 1."),
    ("indices must be", "A place in a list is a whole number: math.ceil(level * n) - 1."),
    ("only integer tensors", "A place in a list is a whole number: math.ceil(level * n) - 1."),
    ("same dtype", "torch.quantile wants the level in the dtype of the ratios; but it takes a mean of two "
                   "neighbours. Sort, and take the k-th."),
]  # fmt: skip


def errors_and_spreads(case, shape, plain):
    """Truth, mean and spread (...); unless plain with places where the error, the spread or both are 0."""
    mean, spread = case.normal(*shape), case.uniform(0.2, 1.5, *shape)
    truth = mean + spread * case.normal(*shape) * case.uniform(0.2, 2, *shape)
    if not plain:
        kind = torch.arange(mean.numel()).reshape(shape) % 12
        truth = torch.where(kind < 3, mean, truth)
        spread = torch.where((kind == 1) | (kind == 2) | (kind == 7), 0.0, spread)  # at 7 no width holds the truth
    return truth, mean, spread


def width_mistakes(truth, mean, spread, level):
    """The right width, the first of all ratios that holds enough, and those of mistakes."""
    y, m, s = (x.double().numpy() for x in (truth, mean, spread))
    error, n = np.abs(y - m), y.size

    def ratio_of(error, spread=s):
        with np.errstate(all="ignore"):
            return np.where(error == 0, 0.0, error / spread)

    ratio = ratio_of(error).ravel()
    right = next(w for w in np.unique(ratio) if np.mean(ratio <= w) >= level)

    def kth(k, values=ratio):
        return np.sort(values.ravel())[min(max(k, 1), values.size) - 1]

    k = math.ceil(level * n)
    with np.errstate(all="ignore"):
        signed = np.where(y == m, 0.0, (y - m) / s)
        to_mean = np.where(error == 0, 0.0, np.abs(y - s) / np.abs(m))
        no_number = np.sort(np.where((error == 0) & (s == 0), np.nan, ratio_of(error)).ravel())
    positive = s.ravel() > 0
    moved, inside = ratio[error.ravel() > 0], ratio[positive]
    finite = ratio[np.isfinite(ratio)]
    # in float64 with infinity as a large number: a mean of it would be no number
    large = np.where(np.isfinite(ratio), ratio, 1e9)
    pages = ratio_of(error).reshape(len(y), -1)
    of_pages = np.array([kth(math.ceil(level * pages.shape[1]), page) for page in pages])
    normal = torch.distributions.Normal(0.0, 1.0)

    def deviations(share):
        return normal.icdf(torch.tensor(share)).item()

    def at(method, level=level):
        return np.quantile(large, level, method=method)

    interpolated = "A quantile between two ratios came back. The k-th smallest is one of them: k = ceil(level n)."
    places = "torch.quantile counts places from 0 to n - 1, so that its k is another one. Take k = ceil(level n)."
    mistakes = [
        (no_number[min(max(k, 1), n) - 1], "0 / 0 is NaN, and NaN is sorted to the end. Where the error is 0 any width "
                                           "holds the truth: 0 there."),
        (kth(math.floor(level * n)), "level * n was rounded down, so that less than `level` of the truth may be held: "
                                     "k = math.ceil(level * n)."),
        (kth(round(level * n)), "round() may round down, so that less than `level` is held: k = math.ceil(level * n)."),
        (kth(k + 1), "This is the ratio after the k-th smallest. Places count from 0: .sort().values[k - 1]."),
        (kth(k - 1), "This is the ratio before the k-th smallest: one 1 too many was subtracted."),
        (kth(math.floor(level * n) + 1), "k is int(level * n) + 1 here, which is one too many where level * n is "
                                         "whole: math.ceil."),
        (kth(math.ceil(level * (n + 1))), "k is ceil(level (n + 1)) here. That is the rule for a new number: here it "
                                          "is ceil(level n)."),
        (at("linear"), interpolated),
        (at("midpoint"), interpolated),
        *[(at(method), places) for method in ("higher", "lower", "nearest")],
        (kth(k, error), "The errors were not divided by the spread."),
        (kth(k, ratio_of(error, s.mean())), "All errors were divided by the mean spread. Each has its own."),
        (kth(k, np.where(np.isfinite(ratio), ratio, 0.0)), "Where the spread is 0 and the error is not, no width holds "
         "the truth: the ratio is infinite there, not 0. Only 0 / 0 is 0."),
        (kth(math.ceil(level * len(y))), "n is the number of pages here. All their numbers count: len(ratio) "
                                         "after flatten()."),
        (kth(k, error * s), "The errors were multiplied by the spread. Divide by it."),
        (kth(k, ratio**2), "The ratios were squared. It is |truth - mean| / spread."),
        (kth(k, ratio_of(error, s**2)), "The errors were divided by the square of the spread. It is a standard "
                                        "deviation already."),
        (kth(k, ratio_of(error, np.sqrt(s))), "The errors were divided by the root of the spread. It is a standard "
                                              "deviation already."),
        (kth(k, signed), "The errors have kept their signs. An interval reaches to both sides: abs()."),
        (kth(k, to_mean), "mean and spread have changed places."),
        (kth(math.ceil((1 - level) * n)), "This holds the share 1 - level. The k-th *smallest* ratio is wanted."),
        (-kth(k, -ratio), "This is the k-th largest ratio. Sort upwards."),
        (kth(math.ceil((1 + level) / 2 * n)), "(1 + level) / 2 is for intervals with two ends of their own. The "
                                              "absolute error has counted both sides already: level."),
        (deviations((1 + level) / 2), "This is the width for normal errors, which does not look at the truth."),
        (deviations(level), "This is a width for normal errors, which does not look at the truth."),
        (np.max(ratio), "This is the largest ratio, which holds everything."),
        (np.mean(large), "This is the mean of the ratios. The k-th smallest is wanted."),
        (np.mean(finite), "This is the mean of the ratios. The k-th smallest is wanted."),
        (kth(math.ceil(0.8 * n)), "`level` has no effect: 0.8 stands in its place."),
        (kth(math.ceil(0.95 * n)), "`level` has no effect: 0.95 stands in its place."),
        (kth(math.ceil(0.5 * n)), "`level` has no effect: this is always the median."),
        *[(kth(math.ceil(level * len(some)), some) if len(some) else 0.0, "Numbers with an error of 0, or a spread of "
           "0, were left out. They are part of the truth, and count among the n.")
          for some in (moved, inside, finite, ratio[positive & (error.ravel() > 0)])],
        (float(k), "This is k. Return the k-th smallest ratio."),
        (float(np.argsort(ratio, kind="stable")[max(k, 1) - 1]), "This is the place of the ratio before sorting: "
                                                                "sort() returns values and places."),
        (float(np.mean(ratio <= level)), "This is a share of the ratios. The width is one of the ratios."),
        (np.mean(np.where(np.isfinite(of_pages), of_pages, 1e9)), "The width was chosen for each page, and then "
         "averaged. All n numbers count together: flatten()."),
        (np.max(of_pages), "The width was chosen for each page, and the largest taken. All n numbers count together: "
                           "flatten()."),
    ]  # fmt: skip
    mistakes = [(torch.tensor(float(value), dtype=torch.float64), advice) for value, advice in mistakes]
    mistakes.append((torch.from_numpy(of_pages), "There is a width for each page. All n numbers count together: "
                     "flatten()."))  # fmt: skip
    return float(right), mistakes


# A path through the stops

PATH_REASONS = [
    ("Dimension out of range", "mix takes batches of one: a[None] and b[None], and [0] of what it returns."),
    ("received an empty list", "No frame was made: are `stops` gone through by pairs, zip(stops[:-1], stops[1:])?"),
    ("expects a non-empty", "No frame was made: are `stops` gone through by pairs, zip(stops[:-1], stops[1:])?"),
    ("stack expects each tensor to be equal size", "mix returns a batch of one: take [0] of it, so that all frames "
                                                   "have one shape."),
    ("not iterable", "between is a number: range(1, between) counts the frames between two stops."),
    ("index out of range", "Between n stops there are n - 1 ways. Does the loop go beyond the last stop?"),
    ("is out of bounds", "Between n stops there are n - 1 ways. Does the loop go beyond the last stop?"),
    ("division by zero", "With between = 1 there is nothing between the stops; divide by between, not by between - 1."),
]  # fmt: skip


def slowly(a, b, share):
    """A mix that starts slowly: (1 - s²) a + s² b."""
    return lerp(a, b, share**2)


def in_float16(a, b, share):
    """The straight line in float16, so that its ends are a and b to three digits only."""
    return lerp(a.half(), b.half(), share).to(a)


def of_one_norm(case, number, shape):
    """Stops (number, ...), each of the norm 3."""
    x = case.normal(number, *shape)
    return 3 * x / x.flatten(1).norm(dim=1).reshape(-1, *[1] * len(shape))


def path_mistakes(stops, between, mix):
    """The right frames, by SciPy's great circles and NumPy's lines, and those of mistakes."""
    number, shape = len(stops), stops.shape[1:]
    flat = stops.double().flatten(1).numpy()
    places = np.arange((number - 1) * between + 1) / between
    if mix is slerp:
        unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        shares = np.arange(between) / between
        found = [geometric_slerp(a, b, shares) * 3 for a, b in zip(unit[:-1], unit[1:], strict=True)]
        right = np.concatenate([*found, flat[-1:]])
    else:
        where = places if mix is not slowly else np.floor(places) + (places - np.floor(places)) ** 2
        right = np.stack([np.interp(where, np.arange(number), column) for column in flat.T], 1)
        if mix is in_float16:  # in NumPy's float16, for a share of 1/2
            half, right = flat.astype(np.float16), right.copy()
            right[1::2] = half[:-1] * np.float16(0.5) + half[1:] * np.float16(0.5)
    right = torch.from_numpy(right).to(stops).reshape(-1, *shape)

    def frames(shares, ends=True, mix=mix, order=lambda a, b: (a, b), first=True, stops=stops, every=slice(None)):
        """shares: of the frames between two stops; ends, first: with the last stop, and with the first of each pair."""
        made = []
        for a, b in list(zip(stops[:-1], stops[1:], strict=True))[every]:
            made += [a] if first else []
            c, d = order(a, b)
            made += [mix(c[None], d[None], share)[0] for share in shares]
        return torch.stack([*made, *([stops[-1]] if ends else [])]) if made or ends else stops[:0]

    inner = [step / between for step in range(1, between)]
    line = [step / (between - 1) for step in range(between)] if between > 1 else [0.0]

    def chained(shares):
        made = [stops[0]]
        for b in stops[1:]:
            for share in shares:
                made.append(mix(made[-1][None], b[None], share)[0])
            made.append(b)
        return torch.stack(made)

    def by_channels():
        """slerp without an axis for the batch takes each channel for a sample of its own."""
        if mix is not slerp or stops.ndim < 3:
            return frames(inner)
        return frames(inner, mix=lambda a, b, share: slerp(a[0], b[0], share)[None])

    right_mix = frames(inner)
    twice = [0.0, *inner, 1.0]
    once = "A stop stands in the path twice, as the end of one way and the beginning of the next. Once is enough."
    mistakes = [
        (frames(inner, ends=False), "The last stop is missing: after the loop it is still to be added."),
        (frames(twice, first=False, ends=False), once),
        (frames([*inner, 1.0]), once),
        (frames([0.0, *inner], ends=False), "The last stop is missing: after the loop it is still to be added."),
        (frames([step / between for step in range(between)], first=True), once),
        (frames(inner, first=False), "The stops themselves are missing, all but the last: frames.append(a) comes "
                                     "before those between."),
        (frames(inner, first=False, ends=False), "The stops themselves are missing."),
        (frames([step / (between + 1) for step in range(1, between)]), "The shares are step / (between + 1). There "
         "are `between` steps from a stop to the next: step / between."),
        (frames([step / (between + 1) for step in range(1, between + 1)]), "There are `between` frames between two "
         "stops. It is `between` steps from one to the next, so between - 1 frames between them."),
        (frames([step / max(between - 1, 1) for step in range(1, between)]), "The shares are step / (between - 1). "
         "There are `between` steps from a stop to the next: step / between."),
        (frames(line, first=False, ends=False), "linspace(0, 1, between) has between - 1 steps, and holds both stops. "
                                                "Each stop stands in the path once."),
        (frames([step / between for step in range(between - 1)]), "The shares are one step behind: they begin with "
                                                                  "1 / between, range(1, between)."),
        (frames(inner, order=lambda a, b: (b, a)), "Between the stops the path runs backwards: mix(a, b, share) is a "
                                                   "at share 0."),
        (frames([1 - share for share in inner]), "Between the stops the path runs backwards: share 0 is the first of "
                                                 "the two."),
        (frames(inner, mix=lerp), "`mix` has no effect: the frames lie on a straight line."),
        (frames(inner, mix=slerp) if stops.ndim > 1 else right_mix, "`mix` has no effect: the frames lie on a great "
                                                                    "circle."),
        (by_channels(), "Each channel was mixed by itself: slerp took the first axis of a for the batch. Give it a "
                        "batch of one: a[None], b[None]."),
        (torch.cat([stops[:1], frames(inner, stops=stops[[0, -1]])[1:]]) if number > 1 else right_mix, "Only the "
         "first and the last stop are in the path. It passes through all of them."),
        (torch.stack([mix(stops[:1], stops[-1:], k / ((number - 1) * between))[0]
                      for k in range((number - 1) * between + 1)]), "The path runs from the first stop to the last "
         "without the others."),
        (frames(inner, stops=torch.cat([stops, stops[:1]])), "The path returns to the first stop. It ends at the "
                                                             "last."),
        (frames(inner, stops=torch.cat([stops, stops[:1]]), ends=False), "The path goes on from the last stop to the "
                                                                         "first. It ends at the last."),
        *[(chained(shares), "Each frame was mixed from the one before it, so that the steps are not even. Mix the two "
           "stops, with share step / between.") for shares in ([1 / between] * (between - 1), inner)],
        (torch.cat([stops[:1], *[torch.stack([*[mix(stops[:1], stops[i][None], share)[0] for share in inner], stops[i]])
                                 for i in range(1, number)]]), "Each way begins at the first stop. It begins at the "
         "stop before."),
        (right_mix[:, None], "There is an axis too many: mix returns a batch of one. Take [0] of it."),
        (frames([0.5] * (between - 1)), "Each frame is the middle of two stops. The share grows: step / between."),
        (frames([float(step) for step in range(1, between)]), "The share is a whole number of steps. It is step / "
                                                              "between."),
        (stops.repeat_interleave(between, 0)[: (number - 1) * between + 1], "Between the stops nothing changes: each "
                                                                            "is repeated."),
        (frames([k / 8 for k in range(1, 8)]), "`between` has no effect: there are always 8 steps from a stop to the "
                                               "next."),
        (stops, "The stops themselves came back, with nothing between them."),
    ]  # fmt: skip
    return right, mistakes


def require_stops(paths) -> None:
    """Raise `Wrong` if a stop did not come back to the bit. paths: (got, stops, between, called)."""
    for got, stops, between, called in paths:
        with called_as(called):
            require(
                torch.equal(got[::between], stops),
                "the stops come back with rounding errors, expected them exactly as they were given.",
                "mix need not give its ends exactly. Put the stops themselves into the path, and mix only what lies "
                "between: range(1, between).",
            )


# The product, put back

ROUNDED_PRODUCT = (
    "drawn + mask * (product - drawn), rounding to bytes and other dtypes change the last digits. torch.where chooses, "
    "and computes nothing."
)
BACK_REASONS = [
    ("with a bool tensor is not supported", "1 - mask needs numbers. For truth values the opposite is ~mask."),
    ("does not match the shape of the indexed tensor", "As an index the mask must have the shape of what it is used "
                                                       "on. torch.where(mask > 0.5, product, drawn) broadcasts."),
    ("shape mismatch", "As an index the mask picks pixels of drawn, and the product has fewer: it is the same for all. "
                       "torch.where(mask > 0.5, product, drawn) broadcasts."),
    ("condition to be a boolean", "The condition of torch.where is a comparison: mask > 0.5."),
    ("must match the size of tensor", "mask (1, 1, height, width) and product (1, 3, height, width) broadcast as they "
                                      "are: leave their axes in their places."),
]  # fmt: skip


def require_product(got, drawn, called) -> None:
    with called_as(called):
        require(not isinstance(got, torch.Tensor) or got.shape != (1, *drawn.shape[1:]) or len(drawn) == 1,
                f"one picture came back, expected {len(drawn)}.",
                "Each of the drawn pictures gets the product: take drawn whole, not drawn[:1].")  # fmt: skip


def back_mistakes(drawn, product, mask):
    """The right pictures, pixel by pixel, and those of mistakes."""
    right = drawn.clone()
    for row, column in mask[0, 0].nonzero().tolist():
        right[:, :, row, column] = product[0, :, row, column]
    grown = torch.nn.functional.max_pool2d(mask, 3, 1, 1)
    first, only_red = right.clone(), drawn.clone()
    first[1:] = drawn[1:]
    only_red[:, 0] = right[:, 0]
    whole = product.expand_as(drawn)
    mistakes = [
        (torch.where(mask > 0.5, drawn, product), "It is the wrong way round: where the mask is 1, the product's "
                                                  "pixels belong."),
        (drawn, "Nothing was put back: these are the drawn pictures."),
        (whole, "This is the product's picture, with its own surroundings. Outside the mask the drawn ones belong."),
        (mask * whole, "Around the product is 0. Outside the mask the drawn pictures belong."),
        ((1 - mask) * drawn, "Where the product belongs is 0."),
        (drawn + mask * product, "The product was added to what was drawn there. Its pixels take their place."),
        (mask * product + drawn * mask, "Both were multiplied by the mask. Outside it, drawn belongs: 1 - mask."),
        (torch.where(mask > 0.5, (drawn + product) / 2, drawn), "Product and drawn picture were averaged. Where the "
                                                                "mask is 1, the product alone is seen."),
        (only_red, "Only the first channel was put back. The mask holds for all three."),
        (first, "Only in the first picture the product was put back. All of them get it."),
        (torch.where(grown > 0.5, product, drawn), "The mask was made larger by a pixel. It is used as it is."),
        (torch.where(mask.flip(3) > 0.5, product, drawn), "The mask was turned over from left to right."),
        (right.clamp(0, 1), "Values were clamped to 0 ... 1. Pictures are in [-1, 1]: leave them as they are."),
        (((right + 1) / 2), "The values were brought to 0 ... 1. Leave them as they are."),
        (right[0], "There is an axis too few: (n, 3, height, width) is wanted."),
    ]  # fmt: skip
    return right, mistakes
