"""Attempts at the exercises of chapter 16."""

import math
import re

import numpy as np
import torch
from attempts import mutant, variant
from torch.nn import functional as F

from course_utils.diffusion import steps
from course_utils.diffusion.editing import lerp, slerp
from course_utils.exercises.mistakes_16 import READ_MISTAKES, read_in_one_way
from course_utils.pipelines import parallax
from course_utils.shapes import expand_like

READ, FEATURES = "16.read_weights", "16.weighted_features"
SEAM, WINDOWS, LAYERS = "16.seam_ratio", "16.average_windows", "16.shift_layers"
DPS, WIDTH, PATH, BACK = "16.dps_step", "16.calibrated_width", "16.path_of_frames", "16.put_back"
# Names of the notebook, which learners use where a parameter belongs
starts, BETWEEN, STRIDE, LEVEL = [0, 6, 12], 8, 6, 0.95


def wrong(id, words, function, state="fail"):
    """Note a wrong answer that is one expression, by the words that its message must hold."""
    function.__name__ = "_".join(words.split()[:5])
    mutant(id, words, state)(function)


# The syntax of prompts

NUMBER = re.compile(r":\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*\)")


def read_wrongly(change):
    return lambda text: read_in_one_way(text, **change)


for change, advice in READ_MISTAKES:
    wrong(READ, advice[:40], read_wrongly(change))
wrong(READ, "Return a list of pairs", lambda text: read_in_one_way(text) or None)
wrong(READ, "with pencil and paper", lambda text: read_in_one_way(text)[::-1])


@variant(READ)
def character_by_character(text):
    """No list of pieces: a weight for each character, and runs of equal ones at the end."""
    letters, weights, opened, at = [], [], {"(": [], "[": []}, 0

    def close(kind, factor):
        start = opened[kind].pop()
        weights[start:] = [weight * factor for weight in weights[start:]]

    while at < len(text):
        one, number = text[at], NUMBER.match(text, at)
        at += 1
        if one == "\\":
            letters += text[at : at + 1]
            at += 1
        elif one in "([":
            opened[one].append(len(letters))
        elif number and opened["("]:
            at = number.end()
            close("(", float(number[1]))
        elif (one == ")" and opened["("]) or (one == "]" and opened["["]):
            close(*(("(", 1.1) if one == ")" else ("[", 1 / 1.1)))
        elif number:  # text as a whole, or its bracket would count
            letters += text[at - 1 : number.end()]
            at = number.end()
        else:
            letters.append(one)
        weights += [1.0] * (len(letters) - len(weights))
    for kind, factor in (("[", 1 / 1.1), ("(", 1.1)):
        while opened[kind]:
            close(kind, factor)
    pairs = []
    for letter, weight in zip(letters, weights, strict=True):
        if pairs and abs(pairs[-1][1] - weight) < 1e-9:
            pairs[-1] = (pairs[-1][0] + letter, weight)
        else:
            pairs.append((letter, weight))
    return pairs


def mean(x):
    return x.mean((1, 2), keepdim=True)


def weigh(hidden, weights, low=0.5, high=2.0, of=mean, inside=None):
    scaled = hidden * weights.unsqueeze(2).to(hidden)
    factor = of(hidden) / of(scaled)
    where = inside(factor) if inside else (factor > low) & (factor < high)
    return scaled * torch.where(where, factor, torch.ones_like(factor))


def weigh_cut(hidden, weights):
    scaled = hidden * weights.unsqueeze(2).to(hidden)
    return scaled * (mean(hidden) / mean(scaled)).clamp(0.5, 2)


def or_else_plain(hidden, weights):
    scaled = hidden * weights.unsqueeze(2).to(hidden)
    factor = mean(hidden) / mean(scaled)
    return torch.where((factor > 0.5) & (factor < 2), scaled * factor, hidden)


def by_weights(hidden, weights):
    return hidden * (weights / weights.mean(1, keepdim=True)).unsqueeze(2).to(hidden)


def wrong_features(words, **change):
    wrong(FEATURES, words, lambda hidden, weights: weigh(hidden, weights, **change))


wrong(FEATURES, "The mean was not kept", lambda hidden, weights: hidden * weights[:, :, None].to(hidden))
wrong_features("One factor for all chunks", of=torch.mean)
wrong_features("The mean is over tokens only", of=lambda x: x.mean(1, True))
wrong_features("Each token got a factor", of=lambda x: x.mean(2, True))
wrong_features("The bounds are missing", low=-1e9, high=1e9)
wrong_features("The factor is upside down", of=lambda x: 1 / mean(x))
wrong(FEATURES, "cut to the bound", weigh_cut)
wrong(FEATURES, "The bounds themselves are out", lambda hidden, weights: weigh(hidden, weights, 0.5 - 1e-6, 2 + 1e-6))
wrong(FEATURES, "Divided by the mean of the weights", by_weights)
wrong_features("A negative factor was let through", inside=lambda f: (f.abs() > 0.5) & (f.abs() < 2))
wrong_features("One chunk without a factor", inside=lambda f: ((f > 0.5) & (f < 2)).all(0, keepdim=True))
wrong(FEATURES, "the weights were left out, too", or_else_plain)
wrong_features("root of the mean square", of=lambda x: mean(x.square()).sqrt())
wrong(FEATURES, "Two shapes do not fit", lambda hidden, weights: hidden * weights)


@variant(FEATURES)
def by_einsum_and_a_loop(hidden, weights):
    done = []
    for one, w in zip(hidden, weights, strict=True):
        scaled = torch.einsum("tw,t->tw", one, w.to(one))
        factor = (one.sum() / scaled.sum()).item()
        done.append(scaled * factor if 0.5 < factor < 2 else scaled)
    return torch.stack(done)


# The seam


def all_steps(pictures, dim=3):
    return (pictures.roll(-1, dim) - pictures).abs()


def of(seam, inner):
    return torch.where(seam == 0, 0.0, seam / inner)


def wrong_seam(words, seam=None, inner=None, away=None, end=None):
    """Note a wrong ratio. away: of pictures, the steps (batch, width); seam, inner: of the steps; end: of both."""

    def answer(pictures):
        found = away(pictures) if away else all_steps(pictures).mean((1, 2))
        last = seam(found) if seam else found[:, -1]
        others = inner(found) if inner else found[:, :-1].mean(1)
        return end(last, others) if end else of(last, others)

    wrong(SEAM, words, answer)


wrong_seam("These are steps from row to row", away=lambda x: all_steps(x, 2).mean((1, 3)))
wrong_seam("Nothing compares the last column", away=lambda x: x.diff(dim=3).abs().mean((1, 2)))
wrong_seam("Nothing compares the last column with the first", away=lambda x: x.diff(dim=3).abs().mean((1, 2)),
           inner=lambda s: s.mean(1), end=torch.div)  # fmt: skip
wrong_seam("The seam is in the mean, too", inner=lambda s: s.mean(1))
wrong_seam("The steps inside were added up", inner=lambda s: s[:, :-1].sum(1))
wrong_seam("This is the median of the steps", inner=lambda s: s[:, :-1].median(1).values)
wrong_seam("divided by the largest step inside", inner=lambda s: s[:, :-1].amax(1))
wrong_seam("The ratio is upside down", end=lambda seam, inner: of(inner, seam))
wrong_seam("The differences were squared", away=lambda x: (x.roll(-1, 3) - x).square().mean((1, 2)))
wrong_seam("This is the root of the mean square", away=lambda x: (x.roll(-1, 3) - x).square().mean((1, 2)).sqrt())
wrong_seam("have cancelled out", away=lambda x: (x.roll(-1, 3) - x).mean((1, 2)).abs())
wrong_seam("The differences have kept their signs", away=lambda x: (x.roll(-1, 3) - x).mean((1, 2)))
wrong_seam("With roll(1, 3) columns move to the right", away=lambda x: (x.roll(1, 3) - x).abs().mean((1, 2)))
wrong_seam("Step 0 is that from column 0", seam=lambda s: s[:, 0], inner=lambda s: s[:, 1:].mean(1))
wrong_seam("The mean leaves out step 0", inner=lambda s: s[:, 1:].mean(1))
wrong_seam("One step inside is missing", inner=lambda s: s[:, :-2].mean(1))
wrong_seam("One step inside is missing: steps", inner=lambda s: s[:, 1:-1].mean(1))
wrong_seam("One ratio came back for all pictures", end=lambda seam, inner: seam.mean() / inner.mean())
wrong_seam("One ratio came back for all pictures. Each", away=lambda x: all_steps(x).mean((0, 1, 2))[None],
           end=lambda seam, inner: seam[0] / inner[0])  # fmt: skip
wrong_seam("0 / 0 is NaN. A picture", end=torch.div)
wrong_seam("A picture of one colour has got", end=lambda seam, inner: (seam / inner).nan_to_num(1))
wrong_seam("This is the seam itself", end=lambda seam, inner: seam)
wrong_seam("This is the mean step inside", end=lambda seam, inner: inner)
wrong_seam("The mean step inside was subtracted", end=torch.sub)
wrong_seam("There is an axis too many: (batch, 1)", end=lambda seam, inner: of(seam, inner)[:, None])
wrong_seam("is of type list, expected", end=lambda seam, inner: of(seam, inner).tolist())
wrong_seam("the result has the dtype torch.float64", away=lambda x: all_steps(x.double()).mean((1, 2)))
wrong_seam("`if` needs one True or False", end=lambda seam, inner: 0.0 if seam == 0 else seam / inner)
wrong(SEAM, "These are all steps", lambda pictures: all_steps(pictures).mean((1, 2)))
wrong(SEAM, "A picture has four axes", lambda pictures: all_steps(pictures, 4).mean((1, 2))[:, -1])


@mutant(SEAM, "There is a ratio for each channel")
def for_each_channel(pictures):
    found = all_steps(pictures).mean(2)
    return of(found[..., -1], found[..., :-1].mean(2))


@mutant(SEAM, "There is a ratio for each row")
def for_each_row(pictures):
    found = all_steps(pictures).mean(1)
    return of(found[..., -1], found[..., :-1].mean(2))


@mutant(SEAM, "Each row and channel was divided by itself")
def divided_before_the_mean(pictures):
    found = all_steps(pictures)
    return of(found[..., -1], found[..., :-1].mean(3)).mean((1, 2))


@mutant(SEAM, "Is the last line `return ...`?")
def printed(pictures):
    found = all_steps(pictures).mean((1, 2))
    print(len(of(found[:, -1], found[:, :-1].mean(1))))


@mutant(SEAM, "`pictures += ...` and `pictures[...] = ...` write into")
def to_grey_levels_in_place(pictures):
    pictures *= 127.5
    found = all_steps(pictures).mean((1, 2))
    return of(found[:, -1], found[:, :-1].mean(1))


@variant(SEAM)
def by_a_loop(pictures):
    ratios = []
    for x in pictures:
        width = x.shape[2]
        found = [(x[:, :, (k + 1) % width] - x[:, :, k]).abs().mean().item() for k in range(width)]
        inside = sum(found[:-1]) / (width - 1)
        ratios.append(found[-1] / inside if found[-1] else 0.0)
    return torch.tensor(ratios, dtype=pictures.dtype)


@variant(SEAM)
def with_a_small_number(pictures):
    seam = (pictures[..., 0] - pictures[..., -1]).abs().mean(dim=(1, 2))
    inside = (pictures[..., 1:] - pictures[..., :-1]).abs().mean(dim=(1, 2, 3))
    return seam / (inside + 1e-8)


@variant(SEAM)
def by_padding_around(pictures):
    ring = torch.cat([pictures, pictures[..., :1]], dim=-1)
    found = torch.einsum("bchw->bw", ring.diff(dim=-1).abs())
    return (found[:, -1] * (found.shape[1] - 1) / found[:, :-1].sum(1)).nan_to_num(nan=0.0)


# Windows


def wrong_windows(words, weigh=None, count_by=None, end=None, at=None, state="fail"):
    """Note a wrong mean. weigh: of (weights), for the sum; count_by: of (weights), what is counted; at: of a start."""

    def answer(parts, starts, width, weights):
        window = parts.shape[4]
        total, count = parts.new_zeros(*parts.shape[1:4], width), parts.new_zeros(width)
        used = weigh(weights) if weigh else weights
        counted = count_by(weights) if count_by else used
        for part, start in zip(parts, starts, strict=True):
            first = at(start) if at else start
            total[..., first : first + window] += used.to(parts) * part
            count[first : first + window] += counted.to(parts)
        return end(total, count, starts, weights) if end else total / count

    wrong(WINDOWS, words, answer, state)


wrong_windows("The weights have no effect: this is the plain mean", torch.ones_like)
wrong_windows("This is the sum of weights times predictions", end=lambda total, *_: total)
wrong_windows("added up without weights, and not divided", torch.ones_like, end=lambda total, *_: total)
wrong_windows("divided by how many windows cover a column", count_by=torch.ones_like)
wrong_windows("It was divided by the number of all windows", end=lambda total, c, starts, _: total / len(starts))
wrong_windows("Without weights, it was divided", torch.ones_like, end=lambda total, c, starts, _: total / len(starts))
wrong_windows("divided by the sum of all weights of a window", end=lambda t, c, _, weights: t / weights.sum().to(t))
wrong_windows("without weights, and then divided by weights", torch.ones_like, count_by=lambda weights: weights)
wrong_windows("The weights were used from right to left", lambda weights: weights.flip(0))
wrong_windows("The weights were squared", torch.square)
wrong_windows("multiplied by the weights twice", torch.square, count_by=lambda weights: weights)
wrong_windows("softmax makes other weights", lambda weights: weights.softmax(0))
wrong_windows("The sum of the weights began with ones", end=lambda total, count, *_: total / (count + 1))
wrong_windows("divided by the sum of the weights in all columns", end=lambda total, count, *_: total / count.sum())
wrong_windows("The columns are in reverse order", end=lambda total, count, *_: (total / count).flip(3))
wrong_windows("There is an axis too many", end=lambda total, count, *_: (total / count)[None])
wrong_windows("2 values were returned, separated by commas", end=lambda total, count, *_: (total, count))
wrong_windows("has the dtype torch.float32, expected torch.float64", end=lambda t, c, *_: (t / c).float())
wrong_windows("has the dtype torch.float64, expected torch.float32", end=lambda t, c, *_: (t / c).double())
wrong_windows("Two widths do not fit. A window has parts", at=lambda start: start + 1)


@mutant(WINDOWS, "Where windows overlap, the last one has")
def written_over(parts, starts, width, weights):
    whole = parts.new_zeros(*parts.shape[1:4], width)
    for part, start in zip(parts, starts, strict=True):
        whole[..., start : start + parts.shape[4]] = part
    return whole


@mutant(WINDOWS, "Where windows overlap, only the first one")
def the_first_stays(parts, starts, width, weights):
    whole = parts.new_zeros(*parts.shape[1:4], width)
    for part, start in [*zip(parts, starts, strict=True)][::-1]:
        whole[..., start : start + parts.shape[4]] = part
    return whole


@mutant(WINDOWS, "has only those of the last window")
def weights_written_over(parts, starts, width, weights):
    weights = weights.to(parts)
    total, count = parts.new_zeros(*parts.shape[1:4], width), parts.new_zeros(width)
    for part, start in zip(parts, starts, strict=True):
        total[..., start : start + parts.shape[4]] += weights * part
        count[start : start + parts.shape[4]] = weights
    return total / count


@mutant(WINDOWS, "has only that of the last window")
def sum_written_over(parts, starts, width, weights):
    weights = weights.to(parts)
    total, count = parts.new_zeros(*parts.shape[1:4], width), parts.new_zeros(width)
    for part, start in zip(parts, starts, strict=True):
        total[..., start : start + parts.shape[4]] = weights * part
        count[start : start + parts.shape[4]] += weights
    return total / count


@mutant(WINDOWS, "The last window is missing")
def all_but_the_last(parts, starts, width, weights):
    weights = weights.to(parts)
    total, count = parts.new_zeros(*parts.shape[1:4], width), parts.new_zeros(width)
    for i in range(max(len(starts) - 1, 1)):
        total[..., starts[i] : starts[i] + parts.shape[4]] += weights * parts[i]
        count[starts[i] : starts[i] + parts.shape[4]] += weights
    return total / count.clamp(min=1e-6)


@mutant(WINDOWS, "Each window was averaged with what stood")
def half_and_half(parts, starts, width, weights):
    whole = parts.new_full((*parts.shape[1:4], width), math.nan)
    for part, start in zip(parts, starts, strict=True):
        before = whole[..., start : start + parts.shape[4]]
        whole[..., start : start + parts.shape[4]] = torch.where(before.isnan(), part, (before + part) / 2)
    return whole


@mutant(WINDOWS, "Only the window with the largest weight counts")
def the_largest_weight(parts, starts, width, weights):
    whole, best = parts.new_zeros(*parts.shape[1:4], width), torch.zeros(width)
    for part, start in zip(parts, starts, strict=True):
        for j, weight in enumerate(weights):
            if weight > best[start + j]:
                whole[..., start + j], best[start + j] = part[..., j], weight
    return whole


@mutant(WINDOWS, "The starts were sorted, and the parts were not")
def sorted_starts(parts, starts, width, weights):
    weights = weights.to(parts)
    total, count = parts.new_zeros(*parts.shape[1:4], width), parts.new_zeros(width)
    for part, start in zip(parts, sorted(starts), strict=True):
        total[..., start : start + parts.shape[4]] += weights * part
        count[start : start + parts.shape[4]] += weights
    return total / count


@mutant(WINDOWS, "The last column of each window is missing")
def one_column_less(parts, starts, width, weights):
    weights = weights.to(parts)
    total, count = parts.new_zeros(*parts.shape[1:4], width), parts.new_zeros(width)
    for part, start in zip(parts, starts, strict=True):
        end = start + parts.shape[4] - 1
        total[..., start:end] += weights[:-1] * part[..., :-1]
        count[start:end] += weights[:-1]
    return total / count


@mutant(WINDOWS, "Two widths do not fit")
def windows_of_16_columns(parts, starts, width, weights):
    total, count = parts.new_zeros(*parts.shape[1:4], width), parts.new_zeros(width)
    for part, start in zip(parts, starts, strict=True):
        total[..., start : start + 16] += weights * part
        count[start : start + 16] += weights
    return total / count


@mutant(WINDOWS, "Two widths do not fit. A window has")
def starts_of_the_notebook(parts, starts, width, weights):
    total, count = parts.new_zeros(*parts.shape[1:4], width), parts.new_zeros(width)
    for i, part in enumerate(parts):
        total[..., STRIDE * i : STRIDE * i + parts.shape[4]] += weights * part
        count[STRIDE * i : STRIDE * i + parts.shape[4]] += weights
    return total / count


@mutant(WINDOWS, "`parts += ...` and `parts[...] = ...` write into")
def weighted_in_place(parts, starts, width, weights):
    weights = weights.to(parts)
    parts *= weights
    total, count = parts.new_zeros(*parts.shape[1:4], width), parts.new_zeros(width)
    for part, start in zip(parts, starts, strict=True):
        total[..., start : start + parts.shape[4]] += part
        count[start : start + parts.shape[4]] += weights
    return total / count


@mutant(WINDOWS, "Two widths do not fit. A window")
def a_sum_as_wide_as_a_window(parts, starts, width, weights):
    total = torch.zeros_like(parts[0])
    for part, start in zip(parts, starts, strict=True):
        total[..., start : start + parts.shape[4]] += weights * part
    return total


@variant(WINDOWS)
def column_by_column(parts, starts, width, weights):
    columns = []
    for k in range(width):
        here = [(part[..., k - s], weights[k - s].item()) for part, s in zip(parts, starts, strict=True)
                if s <= k < s + parts.shape[4]]  # fmt: skip
        columns.append(sum(w * x for x, w in here) / sum(w for _, w in here))
    return torch.stack(columns, dim=-1)


@variant(WINDOWS)
def by_a_matrix(parts, starts, width, weights):
    window = parts.shape[-1]
    where = torch.as_tensor(starts)[:, None] + torch.arange(window)
    place = F.one_hot(where, width).to(parts) * weights.to(parts)[:, None]  # (windows, window, width)
    return torch.einsum("nbchw,nwk->bchk", parts, place) / place.sum((0, 1))


@variant(WINDOWS)
def by_padding(parts, starts, width, weights):
    window, weights = parts.size(4), weights.to(parts)
    wide = [F.pad(part * weights, (s, width - window - s)) for part, s in zip(parts, starts, strict=True)]
    sums = [F.pad(weights, (s, width - window - s)) for s in starts]
    return torch.stack(wide).sum(0) / torch.stack(sums).sum(0)


# Layers


def wrong_layers(words, order=None, pixels=None, picture=None, cover=None, lay=None, start=None, end=None):
    """Note a wrong scene. order: of the layers; pixels: of camera and depth; picture, cover: move them."""

    def answer(layers, camera):
        ordered = order(layers) if order else sorted(layers, key=lambda layer: layer.depth)
        out = start(ordered) if start else ordered[0].picture
        for layer in ordered[0 if start else 1 :]:
            by = pixels(camera, layer.depth) if pixels else round(camera * layer.depth)
            c = (cover or parallax.moved)(layer.cover, by)
            x = (picture or parallax.moved)(layer.picture, by)
            out = lay(x, c, out) if lay else c * x + (1 - c) * out
        return end(out) if end else out

    wrong(LAYERS, words, answer)


def by_the_move(layers, camera):
    ordered = sorted(layers, key=lambda layer: camera * layer.depth)
    out = ordered[0].picture
    for layer in ordered[1:]:
        c = parallax.moved(layer.cover, round(camera * layer.depth))
        out = c * parallax.moved(layer.picture, round(camera * layer.depth)) + (1 - c) * out
    return out


def far_last(layers):
    return sorted(layers, key=lambda layer: -layer.depth)


def empty(ordered):
    return torch.zeros_like(ordered[0].picture)


def rolled(x, pixels):
    return x.roll(pixels, 3)


def stays(x, pixels):
    return x


def repeated(x, pixels):
    at = torch.arange(x.shape[3]) - pixels
    return x[..., at.clamp(0, x.shape[3] - 1)]


wrong_layers("Were the layers laid on from near to far", order=far_last)
wrong_layers("Were the layers laid on from near to far, or", order=far_last, start=empty)
wrong_layers("in the order in which they came", order=list)
wrong_layers("in the order in which they came. They", order=list, start=empty)
wrong_layers("The layers move the wrong way", pixels=lambda m, d: round(-m * d))
wrong_layers("The layers move the wrong way. A camera", pixels=lambda m, d: -round(m * d))
wrong(LAYERS, "The layers were sorted by how far they move", by_the_move)
wrong_layers("Nothing has moved", pixels=lambda m, d: 0)
wrong_layers("All layers moved by the whole way", pixels=lambda m, d: round(m))
wrong_layers("What is far moves more here", pixels=lambda m, d: round(m * (1 - d)))
wrong_layers("Depth was taken for a distance", order=far_last, pixels=lambda m, d: round(m * (1 - d)))
wrong_layers("A negative way of the camera", pixels=lambda m, d: round(abs(m) * d))
wrong_layers("int() cuts off", pixels=lambda m, d: int(m * d))
wrong_layers("The way was rounded down", pixels=lambda m, d: math.floor(m * d))
wrong_layers("The way was rounded up", pixels=lambda m, d: math.ceil(m * d))
wrong_layers("The camera's way was rounded before", pixels=lambda m, d: round(round(m) * d))
wrong_layers("A tensor moves by whole pixels", pixels=lambda m, d: m * d)
wrong_layers("A tensor moves by whole pixels: round", picture=rolled, cover=rolled, pixels=lambda m, d: m * d)
wrong_layers("The pictures have moved, but their covers", cover=stays)
wrong_layers("The covers have moved, but their pictures", picture=stays)
wrong_layers("What leaves at one side comes in", picture=rolled, cover=rolled)
wrong_layers("The cover wraps around, by roll", cover=rolled)
wrong_layers("The columns at the edge were repeated", picture=repeated, cover=repeated)
wrong_layers("The layers have moved down", picture=lambda x, p: parallax.moved(x.mT, p).mT,
             cover=lambda x, p: parallax.moved(x.mT, p).mT)  # fmt: skip
wrong_layers("The cover is used the wrong way round", lay=lambda x, c, out: (1 - c) * x + c * out)
wrong_layers("What is behind is missing", lay=lambda x, c, out: c * x)
wrong_layers("A layer did not hide what is behind it", lay=lambda x, c, out: c * x + out)
wrong_layers("The layer's picture was laid on whole", lay=lambda x, c, out: x + (1 - c) * out)
wrong_layers("Only the nearest layer is seen. Where", lay=lambda x, c, out: x)
wrong_layers("scene + cover * (picture - scene) rounds", lay=lambda x, c, out: out + c * (x - out))
wrong_layers("The layers were averaged", lay=lambda x, c, out: (x + out) / 2)
wrong_layers("laid on wherever they are not 0", lay=lambda x, c, out: torch.where(x != 0, x, out))
wrong_layers("The nearest layer is missing", order=lambda layers: far_last(layers)[: -len(layers) : -1] or layers)
wrong_layers("Only the farthest and the nearest layer are", order=lambda layers: far_last(layers)[::-1][:1]
             + far_last(layers)[: len(layers) - 1][:1])  # fmt: skip
wrong_layers("the dtype torch.float64, expected", end=torch.Tensor.double)
wrong_layers("an axis too many, too few, or in another place", end=lambda out: out[0])
wrong_layers("Is the last line `return ...`?", end=lambda out: print(out.shape))
wrong(LAYERS, "Were the layers laid on from near to far, or is", lambda layers, camera: (
    min(layers, key=lambda layer: layer.depth).picture))  # fmt: skip
wrong(LAYERS, "sorted(layers) compares whole layers", lambda layers, camera: sorted(layers)[0].picture)


@mutant(LAYERS, "The layers move by their place in the order")
def by_their_place(layers, camera):
    ordered = sorted(layers, key=lambda layer: layer.depth)
    places = [layer._replace(depth=i / max(len(ordered) - 1, 1)) for i, layer in enumerate(ordered)]
    return parallax.shift_layers(places, camera)


@mutant(LAYERS, "The farthest layer is missing")
def without_a_background(layers, camera):
    out = torch.zeros_like(layers[0].picture)
    for layer in far_last(layers)[::-1][1:]:
        cover = parallax.moved(layer.cover, round(camera * layer.depth))
        out = cover * parallax.moved(layer.picture, round(camera * layer.depth)) + (1 - cover) * out
    return out


@mutant(LAYERS, "The depths were divided by the largest")
def as_a_share_of_the_nearest(layers, camera):
    largest = max(layer.depth for layer in layers) or 1
    ordered = sorted(layers, key=lambda layer: layer.depth)
    return parallax.shift_layers([layer._replace(depth=layer.depth / largest) for layer in ordered], camera)


@mutant(LAYERS, "a layer was changed in place")
def painted_into_the_background(layers, camera):
    ordered = sorted(layers, key=lambda layer: layer.depth)
    out = ordered[0].picture
    for layer in ordered[1:]:
        cover = parallax.moved(layer.cover, round(camera * layer.depth)).bool().expand_as(out)
        out[cover] = parallax.moved(layer.picture, round(camera * layer.depth))[cover]
    return out


@mutant(LAYERS, "layer was changed in place")
def added_in_place(layers, camera):
    ordered = sorted(layers, key=lambda layer: layer.depth)
    out = ordered[0].picture
    for layer in ordered[1:]:
        cover = parallax.moved(layer.cover, round(camera * layer.depth))
        out *= 1 - cover
        out += cover * parallax.moved(layer.picture, round(camera * layer.depth))
    return out


@mutant(LAYERS, "write into the caller's list")
def sorted_in_place(layers, camera):
    layers.sort(key=lambda layer: layer.depth)
    return parallax.shift_layers(layers, camera)


@variant(LAYERS)
def from_near_to_far(layers, camera):
    out, free = 0, 1
    for layer in sorted(layers, key=lambda each: each.depth, reverse=True):
        pixels = round(camera * layer.depth)
        cover = parallax.moved(layer.cover, pixels) * free
        out, free = out + cover * parallax.moved(layer.picture, pixels), free - cover
    return out


@variant(LAYERS)
def chosen_by_where(layers, camera):
    out = None
    for i in torch.tensor([layer.depth for layer in layers]).argsort():
        picture, cover, depth = layers[i]
        by = int(torch.tensor(float(camera) * depth).round())
        out = picture if out is None else torch.where(parallax.moved(cover, by) > 0.5, parallax.moved(picture, by), out)
    return out


@variant(LAYERS)
def with_pictures_that_wrap_around(layers, camera):
    ordered = sorted(layers, key=lambda layer: layer[2])
    out = ordered[0][0]
    for picture, cover, depth in ordered[1:]:
        by = round(camera * depth)
        seen = parallax.moved(cover, by)
        out = seen * rolled(picture, by) + (1 - seen) * out  # nothing is seen of what comes in at the other side
    return out


@variant(LAYERS)
def into_a_copy(layers, camera):
    ordered = sorted(layers, key=lambda layer: layer.depth)
    out = ordered[0].picture.clone()
    for layer in ordered[1:]:
        for column in range(out.shape[3]):
            at = column - round(camera * layer.depth)
            if 0 <= at < out.shape[3]:
                covered = layer.cover[0, 0, :, at] > 0
                out[0, :, covered, column] = layer.picture[0, :, covered, at]
    return out


# A step towards a measurement


def wrong_step(words, r_of=None, total=None, square=None, over=None, amount=None, end=None, eta=1.0, leaf=None,
               ask=None, state="fail"):  # fmt: skip
    """Note a wrong step. r_of: of the residual (batch, ...); square: of g; over: of r and floor; amount: of the pull;
    end: of (step, pull times g, x0_hat, x_t, eps)."""

    def answer(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
        x_t = leaf(x_t) if leaf else x_t.detach().requires_grad_()
        eps = ask(model, x_t, t, cond) if ask else steps.ask(model, x_t, t, cond)
        x0_hat, _ = steps.guess(x_t, eps, t, alpha_bar)
        residual = measured - measure(x0_hat)
        r = r_of(residual) if r_of else residual.flatten(1).norm(dim=1)
        g = torch.autograd.grad(total(r) if total else r.sum(), x_t)[0]
        beyond = over(r, floor) if over else (r - floor).clamp(min=0)
        length = (amount(pull) if amount else pull) * beyond / (square(g) if square else g.flatten(1).square().sum(1))
        step = steps.ddim_step(x_t, eps, t, earlier, alpha_bar, eta, noise)
        moved = length.reshape(-1, *[1] * (x_t.ndim - 1)) * g if length.ndim < 2 else length.reshape(g.shape) * g
        if end:
            return end(*(x.detach() for x in (step, moved, x0_hat, x_t, eps)))
        return (step - moved).detach(), x0_hat.detach()

    wrong(DPS, words, answer, state)


def sizes(x):
    return x.flatten(1).norm(dim=1)


@mutant(DPS, "The noisy x_t was measured")
def measures_what_is_noisy(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    x_t = x_t.detach().requires_grad_()
    eps = steps.ask(model, x_t, t, cond).detach()
    r = (measured - measure(x_t)).flatten(1).norm(dim=1)
    g = torch.autograd.grad(r.sum(), x_t)[0]
    length = pull * (r.detach() - floor).clamp(min=0) / g.flatten(1).square().sum(1)
    step = steps.ddim_step(x_t.detach(), eps, t, earlier, alpha_bar, 1.0, noise)
    x0_hat, _ = steps.guess(x_t.detach(), eps, t, alpha_bar)
    return step - expand_like(length, x_t) * g, x0_hat


wrong_step("The measurement has no effect", end=lambda step, moved, hat, *_: (step, hat))
wrong_step("The samples are pushed away from the measurement", end=lambda step, moved, hat, *_: (step + moved, hat))
wrong_step("It was divided by |gradient|. Divide", square=sizes)
wrong_step("The division by |gradient|² is missing", square=lambda g: 1)
wrong_step("The squares of the gradient were averaged", square=lambda g: g.flatten(1).square().mean(1))
wrong_step("`floor` has no effect", over=lambda r, floor: r)
wrong_step("Samples that fit already are pushed away", over=lambda r, floor: r - floor)
wrong_step("Samples that fit already are pulled, too", over=lambda r, floor: (r - floor).abs())
wrong_step("floor is the smallest distance here", over=lambda r, floor: r.clamp(min=floor))
wrong_step("Where the distance is above floor, all of it", over=lambda r, floor: r * (r > floor))
wrong_step("The distance has no effect", over=lambda r, floor: torch.ones_like(r))
wrong_step("The gradient is that of the squared distance", total=lambda r: r.square().sum())
wrong_step("The root is missing in the distance", lambda residual: residual.flatten(1).square().sum(1))
wrong_step("One distance was taken over the whole batch. Each", lambda residual: residual.norm())
wrong_step("and one |gradient|² as well", lambda residual: residual.norm(), square=lambda g: g.square().sum())
wrong_step("|gradient|² was summed over the whole batch", square=lambda g: g.square().sum())
wrong_step("The squares in the distance were averaged", lambda residual: residual.flatten(1).square().mean(1).sqrt())
wrong_step("The distance is the sum of absolute differences", lambda residual: residual.flatten(1).abs().sum(1))
wrong_step("The gradient is that of the mean", total=torch.mean)
wrong_step("`pull` has no effect: it is 0.5", amount=lambda pull: 0.5)
wrong_step("`pull` has no effect: it is 1 here", amount=lambda pull: 1.0)
wrong_step("The step has no noise", eta=0.0)
wrong_step("This is x_t with the pull", end=lambda step, moved, hat, x_t, eps: (x_t - moved, hat))
wrong_step("x0_hat was pulled, where the result", end=lambda step, moved, hat, *_: (hat - moved, hat))
wrong_step("The two results have changed places", end=lambda step, moved, hat, *_: (hat, step - moved))
wrong_step("x_earlier came back twice", end=lambda step, moved, hat, *_: (step - moved, step - moved))
wrong_step("x_t came back, where x0_hat", end=lambda step, moved, hat, x_t, eps: (step - moved, x_t))
wrong_step("The second result is the predicted noise", end=lambda step, moved, hat, x_t, eps: (step - moved, eps))
wrong_step("The second result was pulled, too", end=lambda step, moved, hat, *_: (step - moved, hat - moved))
wrong_step("got Tensor, expected 2 tensors", end=lambda step, moved, hat, *_: step - moved)
wrong_step("cond has no effect", ask=lambda model, x_t, t, cond: steps.ask(model, x_t, t))
wrong_step("t goes to the model as a tensor", ask=lambda model, x_t, t, cond: model(x_t, t, cond))
wrong_step("torch.autograd.grad takes one number", total=lambda r: r)
wrong_step("before the model does its work", leaf=lambda x_t: x_t)
wrong_step("was left with requires_grad=True", leaf=lambda x_t: x_t.requires_grad_())
wrong_step("The gradient did not pass through the model", ask=lambda *a: torch.no_grad()(steps.ask)(*a))
wrong_step("The gradient did not pass through the model: what", ask=lambda *a: steps.ask(*a).detach())


@mutant(DPS, "The gradient was taken with respect to x0_hat")
def through_the_instrument(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    eps = steps.ask(model, x_t, t, cond)
    x0_hat = steps.guess(x_t, eps, t, alpha_bar)[0].detach().requires_grad_()
    r = sizes(measured - measure(x0_hat))
    g = torch.autograd.grad(r.sum(), x0_hat)[0]
    step = steps.ddim_step(x_t, eps, t, earlier, alpha_bar, 1.0, noise)
    length = pull * (r - floor).clamp(min=0) / sizes(g).square()
    return (step - expand_like(length, g) * g).detach(), x0_hat.detach()


@mutant(DPS, "x_t was pulled before the step")
def pulled_too_early(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    x_t = x_t.detach().requires_grad_()
    eps = steps.ask(model, x_t, t, cond)
    x0_hat, _ = steps.guess(x_t, eps, t, alpha_bar)
    r = sizes(measured - measure(x0_hat))
    g = torch.autograd.grad(r.sum(), x_t)[0]
    x_t = x_t - expand_like(pull * (r - floor).clamp(min=0) / sizes(g).square(), g) * g
    return steps.ddim_step(x_t, eps, t, earlier, alpha_bar, 1.0, noise).detach(), x0_hat.detach()


@mutant(DPS, "x0_hat was pulled before the step")
def a_pulled_guess(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    x_t = x_t.detach().requires_grad_()
    eps = steps.ask(model, x_t, t, cond)
    x0_hat, _ = steps.guess(x_t, eps, t, alpha_bar)
    r = sizes(measured - measure(x0_hat))
    g = torch.autograd.grad(r.sum(), x_t)[0]
    pulled = x0_hat - expand_like(pull * (r - floor).clamp(min=0) / sizes(g).square(), g) * g
    a, b = (steps.alpha_bar_at(alpha_bar, time) for time in (t, earlier))
    sigma = math.sqrt((1 - b) / (1 - a) * (1 - a / b))
    step = math.sqrt(b) * pulled + math.sqrt(max(1 - b - sigma**2, 0)) * eps + sigma * noise
    return step.detach(), x0_hat.detach()


@mutant(DPS, "The noise was added to DDIM with eta = 0")
def noise_on_top(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    x_t = x_t.detach().requires_grad_()
    eps = steps.ask(model, x_t, t, cond)
    x0_hat, _ = steps.guess(x_t, eps, t, alpha_bar)
    r = sizes(measured - measure(x0_hat))
    g = torch.autograd.grad(r.sum(), x_t)[0]
    a, b = (steps.alpha_bar_at(alpha_bar, time) for time in (t, earlier))
    step = steps.ddim_step(x_t, eps, t, earlier, alpha_bar) + math.sqrt((1 - b) / (1 - a) * (1 - a / b)) * noise
    return (step - expand_like(pull * (r - floor).clamp(min=0) / sizes(g).square(), g) * g).detach(), x0_hat.detach()


@mutant(DPS, "The step goes to t - 1")
def to_the_time_before(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    return by_backward(model, x_t, t, t - 1, alpha_bar, measure, measured, floor, noise, pull, cond)


@mutant(DPS, "still records gradients, expected one without")
def with_its_graph(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    x_t = x_t.detach().requires_grad_()
    eps = steps.ask(model, x_t, t, cond)
    x0_hat, _ = steps.guess(x_t, eps, t, alpha_bar)
    r = sizes(measured - measure(x0_hat))
    g = torch.autograd.grad(r.sum(), x_t, retain_graph=True)[0]
    step = steps.ddim_step(x_t, eps, t, earlier, alpha_bar, 1.0, noise)
    return step - expand_like(pull * (r - floor).clamp(min=0) / sizes(g).square(), g) * g, x0_hat


@mutant(DPS, "before the model does its work: x_t = x_t.detach()")
def without_a_graph(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    with torch.no_grad():
        x_t = x_t.detach().requires_grad_()
        x0_hat, _ = steps.guess(x_t, steps.ask(model, x_t, t, cond), t, alpha_bar)
        r = sizes(measured - measure(x0_hat))
    return torch.autograd.grad(r.sum(), x_t)


@mutant(DPS, "The distance was not computed from the tensor")
def of_a_copy(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    x_t = x_t.detach().requires_grad_()
    x0_hat, _ = steps.guess(x_t, steps.ask(model, x_t, t, cond), t, alpha_bar)
    return torch.autograd.grad(sizes(measured - measure(x0_hat)).sum(), x_t.detach().requires_grad_())


@mutant(DPS, "needs the axes of x_t before it is multiplied")
def without_more_axes(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    x_t = x_t.detach().requires_grad_()
    eps = steps.ask(model, x_t, t, cond)
    x0_hat, _ = steps.guess(x_t, eps, t, alpha_bar)
    r = sizes(measured - measure(x0_hat))
    g = torch.autograd.grad(r.sum(), x_t)[0]
    step = steps.ddim_step(x_t, eps, t, earlier, alpha_bar, 1.0, noise)
    return (step - pull * (r - floor).clamp(min=0) / sizes(g).square() * g).detach(), x0_hat.detach()


@mutant(DPS, "the parameter pull has the default 1.0")
def another_default(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=1.0, cond=None):
    return by_backward(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull, cond)


@mutant(DPS, "A random step needs the noise")
def no_noise_passed(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    eps = steps.ask(model, x_t, t, cond)
    return steps.ddim_step(x_t, eps, t, earlier, alpha_bar, 1.0), eps


@variant(DPS)
def by_backward(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    x = x_t.clone().detach()
    x.requires_grad = True
    eps = model(x, torch.full((x.shape[0],), t, device=x.device), cond)
    x0_hat = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
    r = ((measured - measure(x0_hat)) ** 2).flatten(1).sum(1).sqrt()
    r.sum().backward()
    shape = [-1] + [1] * (x.ndim - 1)
    norm = x.grad.flatten(1).pow(2).sum(1).view(shape)
    factor = pull * torch.relu(r - floor).view(shape) / norm
    x_earlier = steps.ddim_step(x, eps, t, earlier, alpha_bar, 1.0, noise) - factor * x.grad
    return x_earlier.detach(), x0_hat.detach()


@variant(DPS)
def some_at_a_time(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    steps_made, hats = [], []
    for first in range(0, len(x_t), 100):
        part = slice(first, first + 100)
        x = x_t[part].detach().requires_grad_()
        eps = steps.ask(model, x, t, None if cond is None else cond[part])
        hat = steps.guess(x, eps, t, alpha_bar)[0]
        r = (measured[part] - measure(hat)).flatten(1).norm(dim=1)
        (g,) = torch.autograd.grad(r, x, torch.ones_like(r))
        step = steps.ddpm_step(x, eps, t, earlier, alpha_bar, noise[part])
        for i in range(len(x)):
            steps_made.append(step[i] - pull * max(r[i].item() - floor, 0.0) * g[i] / g[i].square().sum())
        hats.append(hat)
    return torch.stack(steps_made).detach(), torch.cat(hats).detach()


@variant(DPS)
def as_in_the_paper(model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None):
    def distance(x):
        hat, _ = steps.guess(x, steps.ask(model, x, t, cond), t, alpha_bar)
        r = torch.linalg.vector_norm(measured - measure(hat), dim=tuple(range(1, measured.ndim)))
        return r.sum(), (r, hat)

    g, (r, hat) = torch.func.grad(distance, has_aux=True)(x_t)
    eps = (x_t - alpha_bar[t].sqrt() * hat) / (1 - alpha_bar[t]).sqrt()
    along = tuple(range(1, x_t.ndim))
    length = pull * torch.maximum(r - floor, torch.zeros_like(r)).reshape(len(r), *[1] * (x_t.ndim - 1))
    step = steps.ddim_step(x_t, eps, t, earlier, alpha_bar, eta=1.0, noise=noise)
    return (step - length * g / g.square().sum(along, keepdim=True)).detach(), hat.detach()


# A width that holds


def wrong_width(words, ratio=None, k=None, pick=None, state="fail"):
    """Note a wrong width. ratio: of error and spread; k: of level and n; pick: of the sorted ratios, k and level."""

    def answer(truth, mean, spread, level):
        error, spread = (truth - mean).abs().double().flatten(), spread.double().flatten()
        found = ratio(error, spread) if ratio else torch.where(error == 0, 0.0, error / spread)
        place = max(k(level, len(found)) if k else math.ceil(level * len(found)), 1)
        values = found.sort().values
        return pick(values, place, level) if pick else values[place - 1].item()

    wrong(WIDTH, words, answer, state)


def at_most(values, place):
    return values[min(place, len(values)) - 1].item()


wrong_width("0 / 0 is NaN, and NaN is sorted", lambda error, spread: error / spread)
wrong_width("no width holds the truth, however large", lambda error, spread: (error / spread).nan_to_num(0.0))
wrong_width("no width holds the truth, however large:", lambda error, spread: error / spread.clamp(min=1e-6))
wrong_width("level * n was rounded down", k=lambda level, n: int(level * n))
wrong_width("round() may round down", k=lambda level, n: round(level * n))
wrong_width("This is the ratio after the k-th", pick=lambda values, k, level: at_most(values, k + 1))
wrong_width("since places count from 0; k", pick=lambda values, k, level: values[k].item())
wrong_width("since places count from 0; k =", pick=lambda values, k, level: values.kthvalue(k + 1).values.item())
wrong_width("This is the ratio before the k-th", pick=lambda values, k, level: values[max(k - 2, 0)].item())
wrong_width("k is int(level * n) + 1 here", k=lambda level, n: int(level * n) + 1)
wrong_width("That is the rule for a new number", k=lambda level, n: min(math.ceil(level * (n + 1)), n))
wrong_width("A quantile between two ratios", pick=lambda values, k, level: (
    values.clamp(max=1e9).quantile(level).item()))  # fmt: skip
wrong_width("A quantile between two ratios came", pick=lambda values, k, level: (
    values.clamp(max=1e9).quantile(level, interpolation="midpoint").item()))  # fmt: skip
wrong_width("counts places from 0 to n - 1", pick=lambda values, k, level: (
    values.quantile(level, interpolation="higher").item()))  # fmt: skip
wrong_width("counts places from 0 to n - 1, so", pick=lambda values, k, level: (
    values.quantile(level, interpolation="lower").item()))  # fmt: skip
wrong_width("counts places from 0 to n - 1, so that", pick=lambda values, k, level: (
    values.quantile(level, interpolation="nearest").item()))  # fmt: skip
wrong_width("The errors were not divided", lambda error, spread: error)
wrong_width("divided by the mean spread", lambda error, spread: (
    torch.where(error == 0, 0.0, error / spread.mean())))  # fmt: skip
wrong_width("no width holds the truth: the ratio is", lambda error, spread: (error / spread).nan_to_num(0, 0, 0))
wrong_width("The errors were multiplied by the spread", lambda error, spread: error * spread)
wrong_width("The ratios were squared", lambda error, spread: torch.where(error == 0, 0.0, error / spread).square())
wrong_width("divided by the square of the spread", lambda error, s: torch.where(error == 0, 0.0, error / s**2))
wrong_width("divided by the root of the spread", lambda error, s: torch.where(error == 0, 0.0, error / s.sqrt()))
wrong_width("This holds the share 1 - level", k=lambda level, n: math.ceil((1 - level) * n))
wrong_width("This is the k-th largest ratio", pick=lambda values, k, level: values.flip(0)[k - 1].item())
wrong_width("is for intervals with two ends", k=lambda level, n: math.ceil((1 + level) / 2 * n))
wrong_width("the width for normal errors, which", pick=lambda values, k, level: (
    torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor((1 + level) / 2)).item()))  # fmt: skip
wrong_width("a width for normal errors, which", pick=lambda values, k, level: (
    torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(level)).item()))  # fmt: skip
wrong_width("`level` has no effect: 0.8", k=lambda level, n: math.ceil(0.8 * n))
wrong_width("`level` has no effect: 0.95", k=lambda level, n: math.ceil(LEVEL * n))
wrong_width("this is always the median", k=lambda level, n: math.ceil(0.5 * n))
wrong_width("This is the mean of the ratios", pick=lambda values, k, level: values[values.isfinite()].mean().item())
wrong_width("This is the mean of the ratios. The", pick=lambda values, k, level: values.clamp(max=1e9).mean().item())
wrong_width("This is k. Return", pick=lambda values, k, level: float(k))
wrong_width("This is a share of the ratios", pick=lambda values, k, level: (values <= level).double().mean().item())
wrong_width("is a tensor with one number, expected", pick=lambda values, k, level: values[k - 1])
wrong_width("A place in a list is a whole number", pick=lambda values, k, level: values[level * len(values) - 1].item())
wrong_width("Is the last line `return ...`?", pick=lambda values, k, level: print(values[k - 1].item()))


def chosen(ratio, level):
    return ratio.sort().values[math.ceil(level * len(ratio)) - 1].item() if len(ratio) else 0.0


@mutant(WIDTH, "were left out")
def only_where_there_is_an_error(truth, mean, spread, level):
    error = (truth - mean).abs()
    return chosen((error / spread)[error > 0], level)


@mutant(WIDTH, "0, were left out")
def only_where_there_is_a_spread(truth, mean, spread, level):
    some = spread > 0
    return chosen((truth - mean).abs()[some] / spread[some], level)


@mutant(WIDTH, "0, were left out. They")
def only_finite_ratios(truth, mean, spread, level):
    error = (truth - mean).abs()
    ratio = torch.where(error == 0, 0.0, error / spread)
    return chosen(ratio[ratio.isfinite()], level)


@mutant(WIDTH, "a spread of 0, were left out. They")
def only_ordinary_numbers(truth, mean, spread, level):
    some = (spread > 0) & (truth != mean)
    return chosen((truth - mean).abs()[some] / spread[some], level)


@mutant(WIDTH, "The errors have kept their signs")
def signed(truth, mean, spread, level):
    error = (truth - mean).flatten()
    return chosen(torch.where(error == 0, 0.0, error / spread.flatten()), level)


@mutant(WIDTH, "mean and spread have changed places")
def swapped(truth, mean, spread, level):
    error = (truth - spread).abs().flatten()
    return chosen(torch.where((truth == mean).flatten(), 0.0, error / mean.abs().flatten()), level)


def page_by_page(truth, mean, spread, level):
    error = (truth - mean).abs()
    ratio = torch.where(error == 0, 0.0, error / spread).reshape(len(truth), -1)
    return ratio.sort(1).values[:, max(math.ceil(level * ratio.shape[1]), 1) - 1]


@mutant(WIDTH, "n is the number of pages here")
def counted_by_pages(truth, mean, spread, level):
    ratio = ((truth - mean).abs() / spread).nan_to_num(0.0).flatten()
    return ratio.sort().values[math.ceil(level * len(truth)) - 1].item()


@mutant(WIDTH, "There is a width for each page")
def one_for_each_page(truth, mean, spread, level):
    return page_by_page(truth, mean, spread, level)


@mutant(WIDTH, "The width was chosen for each page, and then averaged")
def averaged_over_pages(truth, mean, spread, level):
    return page_by_page(truth, mean, spread, level).mean().item()


@mutant(WIDTH, "and the largest taken")
def largest_of_the_pages(truth, mean, spread, level):
    return page_by_page(truth, mean, spread, level).max().item()


@mutant(WIDTH, "This is the largest ratio, which holds everything")
def the_largest(truth, mean, spread, level):
    error = (truth - mean).abs()
    return torch.where(error == 0, 0.0, error / spread).max().item()


@mutant(WIDTH, "This is the place of the ratio before sorting")
def the_place(truth, mean, spread, level):
    error = (truth - mean).abs().double().flatten()
    ratio = torch.where(error == 0, 0.0, error / spread.double().flatten())
    return float(ratio.sort(stable=True).indices[max(math.ceil(level * len(ratio)), 1) - 1])


@mutant(WIDTH, "`truth += ...` and `truth[...] = ...` write into")
def subtracted_in_place(truth, mean, spread, level):
    truth -= mean
    error = truth.abs().flatten()
    return chosen(torch.where(error == 0, 0.0, error / spread.flatten()), level)


@variant(WIDTH)
def by_kthvalue(truth, mean, spread, level):
    ratio = ((truth - mean).abs() / spread).nan_to_num(nan=0.0, posinf=math.inf).reshape(-1)
    return ratio.kthvalue(math.ceil(level * ratio.numel())).values.item()


@variant(WIDTH)
def by_python(truth, mean, spread, level):
    pairs = zip((truth - mean).flatten().tolist(), spread.flatten().tolist(), strict=True)
    ratios = sorted(0.0 if e == 0 else abs(e) / s if s else math.inf for e, s in pairs)
    return next(w for i, w in enumerate(ratios, 1) if i >= level * len(ratios))


@variant(WIDTH)
def in_numpy(truth, mean, spread, level):
    error = np.abs(truth.numpy() - mean.numpy())
    with np.errstate(all="ignore"):
        ratio = np.nan_to_num(error / spread.numpy(), nan=0.0, posinf=math.inf)
    return float(np.partition(ratio.ravel(), math.ceil(level * ratio.size) - 1)[math.ceil(level * ratio.size) - 1])


# A path through the stops


def wrong_path(words, shares=None, first=True, last=True, end=None, state="fail", call=None, pairs=None):
    """Note a wrong path. shares: of `between`, of the frames between two stops; first, last: are the first of each two
    stops and the very last stop there; call: of mix, a, b and share."""

    def answer(stops, between, mix=slerp):
        frames = []
        for a, b in pairs(stops) if pairs else zip(stops[:-1], stops[1:], strict=True):
            frames += [a] if first else []
            for share in shares(between) if shares else [step / between for step in range(1, between)]:
                frames.append(call(mix, a, b, share) if call else mix(a[None], b[None], share)[0])
        frames += [stops[-1]] if last else []
        return end(frames) if end else torch.stack(frames)

    wrong(PATH, words, answer, state)


def rising(between):
    return [step / between for step in range(1, between)]


wrong_path("The last stop is missing: after", last=False)
wrong_path("The last stop is missing: after the", lambda n: [0.0, *rising(n)], first=False, last=False)
wrong_path("A stop stands in the path twice", lambda n: torch.linspace(0, 1, n + 1).tolist(), first=False, last=False)
wrong_path("A stop stands in the path twice, as", lambda n: [*rising(n), 1.0])
wrong_path("A stop stands in the path twice, as the", lambda n: [0.0, *rising(n)])
wrong_path("The stops themselves are missing, all", first=False)
wrong_path("The shares are step / (between + 1)", lambda n: [step / (n + 1) for step in range(1, n)])
wrong_path("There are `between` frames between two", lambda n: torch.linspace(0, 1, n + 2)[1:-1].tolist())
wrong_path("The shares are step / (between - 1)", lambda n: [step / (n - 1) for step in range(1, n)])
wrong_path("The shares are step / (between - 1). There", lambda n: torch.linspace(0, 1, n).tolist(), first=False)
wrong_path("Each stop stands in the path once", lambda n: torch.linspace(0, 1, n).tolist(), first=False, last=False)
wrong_path("The shares are one step behind", lambda n: [step / n for step in range(n - 1)])
wrong_path("mix(a, b, share) is a at share 0", call=lambda mix, a, b, share: mix(b[None], a[None], share)[0])
wrong_path("share 0 is the first of the two", lambda n: [1 - share for share in rising(n)])
wrong_path("the frames lie on a straight line", call=lambda mix, a, b, share: lerp(a[None], b[None], share)[0])
wrong_path("the frames lie on a great circle", call=lambda mix, a, b, share: slerp(a[None], b[None], share)[0])
wrong_path("Each channel was mixed by itself", call=lambda mix, a, b, share: (
    mix(a, b, share) if a.ndim > 1 else mix(a[None], b[None], share)[0]))  # fmt: skip
wrong_path("mix takes batches of one: a[None]", call=lambda mix, a, b, share: slerp(a[0], b[0], share))
wrong_path("mix returns a batch of one: take", call=lambda mix, a, b, share: mix(a[None], b[None], share))
wrong_path("Each frame is the middle of two", lambda n: [0.5] * (n - 1))
wrong_path("The share is a whole number of steps", lambda n: range(1, n))
wrong_path("`between` has no effect: there are", lambda n: rising(BETWEEN))
wrong_path("Only the first and the last stop", pairs=lambda stops: [(stops[0], stops[-1])])
wrong_path("The path returns to the first stop", pairs=lambda stops: zip(stops, stops.roll(-1, 0), strict=True),
           end=lambda frames: torch.stack([*frames[:-1], frames[0]]))  # fmt: skip
wrong_path("The path goes on from the last stop", pairs=lambda stops: zip(stops, stops.roll(-1, 0), strict=True),
           last=False)  # fmt: skip
wrong_path("There is an axis too many: mix", end=lambda frames: torch.stack([frame[None] for frame in frames]))
wrong_path("makes one tensor of a list of tensors", end=lambda frames: frames)
wrong_path("the result has the dtype torch.float64", end=lambda frames: torch.stack(frames).double())
wrong_path("Between n stops there are n - 1 ways", pairs=lambda stops: (
    [(stops[i], stops[i + 1]) for i in range(len(stops))]))  # fmt: skip
wrong_path("Is the last line `return ...`?", end=lambda frames: print(len(frames)))
wrong_path("Put the stops themselves into the path", lambda n: [0.0, *rising(n)], first=False)
wrong(PATH, "The stops themselves came back", lambda stops, between, mix=slerp: stops.clone())
wrong(PATH, "Between the stops nothing changes", lambda stops, between, mix=slerp: (
    stops.repeat_interleave(between, 0)[: (len(stops) - 1) * between + 1]))  # fmt: skip


@mutant(PATH, "The stops themselves are missing.")
def only_what_lies_between(stops, between, mix=slerp):
    pairs = zip(stops[:-1], stops[1:], strict=True)
    frames = [mix(a[None], b[None], share)[0] for a, b in pairs for share in rising(between)]
    return torch.stack(frames) if frames else stops[:0]


@mutant(PATH, "from the first stop to the last without the others")
def all_at_once(stops, between, mix=slerp):
    number = (len(stops) - 1) * between
    return torch.stack([mix(stops[:1], stops[-1:], k / number)[0] for k in range(number + 1)])


@mutant(PATH, "Each way begins at the first stop")
def always_from_the_first(stops, between, mix=slerp):
    frames = [stops[0]]
    for b in stops[1:]:
        frames += [*[mix(stops[:1], b[None], share)[0] for share in rising(between)], b]
    return torch.stack(frames)


@mutant(PATH, "Each frame was mixed from the one before it")
def step_by_step(stops, between, mix=slerp):
    frames = [stops[0]]
    for b in stops[1:]:
        for _ in range(between - 1):
            frames.append(mix(frames[-1][None], b[None], 1 / between)[0])
        frames.append(b)
    return torch.stack(frames)


@mutant(PATH, "`stops += ...` and `stops[...] = ...` write into")
def normalised_in_place(stops, between, mix=slerp):
    stops /= stops.flatten(1).norm(dim=1).reshape(-1, *[1] * (stops.ndim - 1))
    return by_the_number_of_the_frame(stops, between, mix)


@mutant(PATH, "the parameter mix has the default")
def straight_by_default(stops, between, mix=lerp):
    return by_the_number_of_the_frame(stops, between, mix)


@variant(PATH)
def by_the_number_of_the_frame(stops, between, mix=slerp):
    frames = []
    for i in range((len(stops) - 1) * between + 1):
        k, step = divmod(i, between)
        frames.append(stops[k] if step == 0 else mix(stops[k : k + 1], stops[k + 1 : k + 2], step / between)[0])
    return torch.stack(frames)


@variant(PATH)
def filled_in(stops, between, mix=slerp):
    path = stops.new_empty((len(stops) - 1) * between + 1, *stops.shape[1:])
    path[::between] = stops
    for k in range(len(stops) - 1):
        for step, share in enumerate(torch.linspace(0, 1, between + 1)[1:-1], 1):
            path[k * between + step] = mix(stops[k].unsqueeze(0), stops[k + 1].unsqueeze(0), share).squeeze(0)
    return path


@variant(PATH)
def all_ways_as_a_batch(stops, between, mix=slerp):
    columns = [stops[:-1]] + [mix(stops[:-1], stops[1:], step / between) for step in range(1, between)]
    return torch.cat([torch.stack(columns, 1).flatten(0, 1), stops[-1:]])


# The product, put back

wrong(BACK, "It is the wrong way round: where", lambda drawn, product, mask: torch.where(mask > 0.5, drawn, product))
wrong(BACK, "It is the wrong way round: where the", lambda drawn, product, mask: mask * drawn + (1 - mask) * product)
wrong(BACK, "Nothing was put back", lambda drawn, product, mask: drawn.clone())
wrong(BACK, "with its own surroundings", lambda drawn, product, mask: product.repeat(len(drawn), 1, 1, 1))
wrong(BACK, "Around the product is 0", lambda drawn, product, mask: mask * product.expand_as(drawn))
wrong(BACK, "Where the product belongs is 0", lambda drawn, product, mask: (1 - mask) * drawn)
wrong(BACK, "The product was added to what", lambda drawn, product, mask: drawn + mask * product)
wrong(BACK, "Both were multiplied by the mask", lambda drawn, product, mask: mask * product + mask * drawn)
wrong(BACK, "Product and drawn picture were averaged", lambda drawn, product, mask: torch.where(
    mask > 0.5, (drawn + product) / 2, drawn))  # fmt: skip
wrong(BACK, "The mask was made larger", lambda drawn, product, mask: torch.where(
    parallax.grow(mask, 1) > 0, product, drawn))  # fmt: skip
wrong(BACK, "The mask was turned over", lambda drawn, product, mask: torch.where(mask.flip(3) > 0, product, drawn))
wrong(BACK, "Values were clamped to 0 ... 1", lambda drawn, product, mask: torch.where(
    mask > 0, product, drawn).clamp(0, 1))  # fmt: skip
wrong(BACK, "The values were brought to 0 ... 1", lambda drawn, product, mask: torch.where(
    mask > 0, product, drawn) / 2 + 0.5)  # fmt: skip
wrong(BACK, "There is an axis too few", lambda drawn, product, mask: torch.where(mask[0] > 0, product[0], drawn[0]))
wrong(BACK, "one picture came back, expected", lambda drawn, product, mask: torch.where(mask > 0, product, drawn[:1]))
wrong(BACK, "numbers equal to the last bit", lambda drawn, product, mask: drawn + mask * (product - drawn))
wrong(BACK, "all numbers equal to the last bit", lambda drawn, product, mask: (
    (127.5 * torch.where(mask > 0, product, drawn)).round() / 127.5))  # fmt: skip
wrong(BACK, "expected all numbers equal to the last bit.", lambda drawn, product, mask: torch.where(
    mask > 0, product.half().float(), drawn))  # fmt: skip
wrong(BACK, "the result has the dtype torch.float64", lambda drawn, product, mask: torch.where(
    mask > 0, product.double(), drawn))  # fmt: skip
wrong(BACK, "1 - mask needs numbers", lambda drawn, product, mask: mask * product + (1 - mask.bool()) * drawn)
wrong(BACK, "The condition of torch.where is a comparison", lambda drawn, product, mask: torch.where(
    mask, product, drawn))  # fmt: skip
wrong(BACK, "broadcast as they are: leave their axes", lambda drawn, product, mask: torch.where(
    mask.mT > 0, product, drawn))  # fmt: skip
wrong(BACK, "Is the last line `return ...`?", lambda drawn, product, mask: print(drawn.shape))


@mutant(BACK, "Only the first channel was put back")
def one_channel(drawn, product, mask):
    result = drawn.clone()
    result[:, :1] = torch.where(mask > 0, product[:, :1], drawn[:, :1])
    return result


@mutant(BACK, "Only in the first picture the product")
def one_picture(drawn, product, mask):
    result = drawn.clone()
    result[0] = torch.where(mask[0] > 0, product[0], drawn[0])
    return result


@mutant(BACK, "`drawn += ...` and `drawn[...] = ...` write into")
def into_what_was_drawn(drawn, product, mask):
    drawn[:] = torch.where(mask > 0, product, drawn)
    return drawn


@mutant(BACK, "As an index the mask must have the shape")
def by_an_index(drawn, product, mask):
    result = drawn.clone()
    result[mask.bool()] = product[mask.bool()]
    return result


@mutant(BACK, "As an index the mask picks pixels of drawn")
def by_an_index_of_one_product(drawn, product, mask):
    result, where = drawn.clone(), mask.bool()
    result[where.expand_as(drawn)] = product[where.expand_as(product)]
    return result


@variant(BACK)
def by_the_complement(drawn, product, mask):
    return torch.where(mask == 0, drawn, product.expand_as(drawn))


@variant(BACK)
def as_a_sum(drawn, product, mask):
    return mask * product + (1 - mask) * drawn


@variant(BACK)
def by_indices(drawn, product, mask):
    result, where = drawn.clone(), mask[0, 0].bool()
    result[:, :, where] = product[:, :, where]
    return result
