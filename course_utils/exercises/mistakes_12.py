"""What the exercises of chapter 12 give with common mistakes, and what their oracles measure with.

Each `..._mistakes` returns pairs (value that a mistake gives, sentence that names it) for `close`.
"""

import math

import torch

from course_utils.data import picture_book as book
from course_utils.exercises.oracles import Wrong, require


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
