"""What the exercises of chapter 13 give with common mistakes, and what their oracles measure with.

Each `..._mistakes` returns pairs (value that a mistake gives, sentence that names it) for `close`, or for
`close_in_each`, where the value is a tuple of all results.
"""

import math

import torch
from torch.nn import functional as F

from course_utils.exercises.oracles import Wrong, close, largest_error, require, require_tensor
from course_utils.exercises.settings import NO_RESULT, called_as

TOLERANCE = 1e-3  # of numbers that went through several sums


def close_in_each(settings, names) -> None:
    """Raise what `close` says of the first wrong one of several results; a mistake is named if it explains all.

    settings: (got, right, mistakes, called) for each call; got, right and the values of the mistakes: as many tensors
    as there are names.
    """
    settings = list(settings)
    for got, right, _, called in settings:
        with called_as(called):
            require(isinstance(got, tuple | list) and len(got) == len(names),
                    f"got {_in_words(got)}, expected {len(names)} tensors: {', '.join(names)}.",
                    f"Return all of them, separated by commas: return {', '.join(names)}.")  # fmt: skip
            for one, other, name in zip(got, right, names, strict=True):
                require_tensor(one, other, name)
    explains = [
        all(_agree(got, mistakes[number][0]) for got, _, mistakes, _ in settings)
        for number in range(len(settings[0][2]))
    ]
    for got, right, mistakes, called in settings:
        for place, name in enumerate(names):
            named = [
                (v[place] if it else NO_RESULT, advice) for (v, advice), it in zip(mistakes, explains, strict=True)
            ]
            with called_as(called):
                close(got[place], right[place], named, TOLERANCE, name)


def _in_words(got) -> str:
    return f"{len(got)} results" if isinstance(got, tuple | list) else type(got).__name__


def _agree(got, values) -> bool:
    pairs = [(one.detach(), value.detach()) for one, value in zip(got, values, strict=True)]
    return all(one.shape == value.shape and largest_error(one, value) <= TOLERANCE for one, value in pairs)


# Codes


def code_mistakes(z, codebook):
    product = z @ codebook.T
    squares = codebook.square().sum(1)
    distance = torch.cdist(z, codebook)
    cosine = F.cosine_similarity(z[:, None], codebook[None], dim=2)
    return [
        (distance.argmax(1), "These are the codes that are farthest away: argmin finds the nearest."),
        (product.argmax(1), "The largest product with z wins here, which prefers long codes. The term |e_k|² is "
                            "missing."),
        (product.argmin(1), "The smallest product with z was taken: that is a code on the other side. A distance is "
                            "small where the product is large."),
        (distance.argmin(0), "For each code the nearest z was taken, over the wrong axis. For each row of z, the "
                             "nearest code is wanted: argmin over the codes."),
        (cosine.argmax(1), "Only the directions were compared (cosines). The lengths of z and of the codes count."),
        ((squares + 2 * product).argmin(1), "The sign of the product is wrong: |z - e|² = |z|² - 2 z·e + |e|²."),
        ((z[:, None] - codebook).abs().amax(2).argmin(1), "The largest of the d differences was compared; their "
                                                          "squares are added up."),
        (codebook[distance.argmin(1)], "These are the rows of the codebook. Return their numbers: argmin itself."),
        (distance.min(1).values, "These are the smallest distances. Return where they are: argmin."),
    ]  # fmt: skip


# Straight through


def pass_mistakes(z, z_q):
    return [
        (z, "This is z itself: nothing is quantised. The value must be that of z_q."),
        (z + z_q, "z is added to z_q. What is added to z is the difference z_q - z."),
        ((z + z_q) / 2, "This is the mean of both. The value must be that of z_q."),
        (2 * z - z_q, "The difference has the wrong sign: z + (z_q - z)."),
    ]  # fmt: skip


def require_passed(got, z, z_q, slope) -> None:
    """Raise `Wrong` unless the gradient of the result with respect to z is that of the identity, and z_q has none."""
    require(got.requires_grad, "the result has no way back to z, expected the gradient of the identity.",
            "All of it was detached. Only the difference z_q - z is.")  # fmt: skip
    of_z, of_code = torch.autograd.grad((got * slope).sum(), (z, z_q), allow_unused=True)
    of_z = torch.zeros_like(z) if of_z is None else of_z
    of_code = torch.zeros_like(z_q) if of_code is None else of_code
    found = "the value is right, but the gradient with respect to "
    if torch.allclose(of_z, slope) and torch.allclose(of_code, torch.zeros_like(slope)):
        return
    if torch.allclose(of_z, slope):
        raise Wrong(f"{found}z_q is not 0.", "z_q is left with a gradient of its own: detach it as well.")
    if torch.allclose(of_z, -slope):
        raise Wrong(f"{found}z has the wrong sign.", "The wrong one was detached: z stands in front without "
                    "detach(), and the difference is detached.")  # fmt: skip
    if torch.allclose(of_code, slope):
        advice = (
            "The gradient went on to z_q and stopped there: the encoder would learn nothing. z + (z_q - z) has the "
        )
        raise Wrong(f"{found}z is 0.", f"{advice}value of z_q; which part of it must not have a gradient?")
    raise Wrong(f"{found}z is not that of the identity.", "d(result) / dz is 1 for every element.")


# Codebook


def codebook_mistakes(counts, sums, z, codes, fresh, decay, least, codebook_from):
    """Right counts, sums and codebook, counted code by code, and what mistakes give."""
    K = len(counts)
    n = torch.tensor([sum(1 for code in codes.tolist() if code == k) for k in range(K)]).float()
    added = torch.stack([z[codes == k].sum(0) for k in range(K)])
    lost = torch.zeros_like(sums)
    lost[codes] += z

    def result(n=n, added=added, keep=decay, take=1 - decay, dead=None, one=True, row=True, divided=True):
        new, m = keep * counts + take * n, keep * sums + take * added
        dead = new < least if dead is None else dead
        new = torch.where(dead, 1.0, new) if one else new
        m = torch.where(dead[:, None], fresh, m) if row else m
        return new, m, codebook_from(new, m) if divided else m

    right = result()
    return right, [
        (result(keep=1 - decay, take=decay), "The two factors are swapped: decay belongs to what was there before."),
        (result(take=1.0), "The new counts and sums entered with the factor 1: it is 1 - decay."),
        (result(added=added / n.clamp(min=1)[:, None]), "The *mean* of the z that chose a code was averaged. m_k is an "
         "average of sums; dividing by N_k comes last."),
        (result(n=n / len(z)), "n_k is a count, and not a share of the batch: the sums are not divided by n either."),
        (result(added=lost), "`sums[codes] += z` adds only one z for each code, though several chose it: "
                             "index_add(0, codes, z) adds all."),
        (result(n=(n > 0).float()), "Each code was counted once at most: torch.bincount(codes, minlength=K) counts "
                                    "all."),
        (result(dead=counts < least), "Which codes are dead was decided by the old counts: decide by the new ones."),
        (result(dead=n < 1), "Every code that this batch did not choose began again. Only those with an average count "
                             "below `least` are dead."),
        (result(dead=torch.zeros(K, dtype=torch.bool)), "Dead codes were left as they are: where N_k < least, they "
         "begin again."),
        (result(one=False), "The restarted codes kept their small counts, so that sums / counts is far off. Their "
                            "count becomes 1."),
        (result(row=False), "The restarted codes got a count of 1, but not their new rows: m_k becomes fresh_k."),
        (result(divided=False), "The codebook here is the sums. Each row is the mean: codebook_from(counts, sums)."),
    ]  # fmt: skip


# FSQ


def fsq_mistakes(z, levels):
    """Right numbers and codes, by other ways than the reference's, and what mistakes give."""
    L = levels.double()
    half, shift = (L - 1) / 2 * (1 - 1e-3), (levels % 2 == 0).double() / 2
    bounded = half * torch.tanh(z.double() + torch.atanh(shift / half)) - shift
    numbers = bounded.round()
    digits = numbers.long() + levels // 2

    def code(digits, levels=levels):
        total = torch.zeros(len(digits), dtype=torch.int64)
        for digit, base in zip(reversed(digits.unbind(1)), reversed(levels.tolist()), strict=True):
            total = total * base + digit  # Horner's scheme
        return total

    def rounded(x):
        return x.float(), code(x.long() + levels // 2)

    bases = levels.cumprod(0)
    right = numbers.float(), code(digits)
    return right, [
        (rounded(z.double().round()), "z was rounded without being bounded, so that there are more numbers than L: "
                                      "round fsq_bound(z, levels)."),
        ((bounded.float(), right[1]), "The numbers are bounded, but not rounded."),
        (rounded(bounded.floor()), "The numbers were rounded down. .round() takes the nearest whole number."),
        ((digits.float(), right[1]), "L // 2 was added to the numbers, too. They lie around 0; only the digits of the "
                                     "code begin at 0."),
        ((right[0], code(digits.flip(1), levels.flip(0))), "The *last* dimension runs fastest here. The factor of the "
         "first one is 1, of the second L_0, of the third L_0 L_1."),
        ((right[0], code(numbers.long())), "The digits of a code are 0 ... L - 1: add L // 2 to the numbers."),
        ((right[0], (digits * bases).sum(1)), "Each digit was multiplied by its own L as well: the factor is the "
                                              "product of the levels *before* it."),
        ((right[0], (digits * levels).sum(1)), "Each digit was multiplied by its own L alone, so that different rows "
                                               "share a code: the factor is the product of all levels before it."),
        ((right[0], digits.sum(1)), "The digits were added up, so that different rows share a code: each has a factor "
                                    "of its own."),
    ]  # fmt: skip


def require_bound_gradient(numbers, z, levels, bound, slope) -> None:
    """Raise `Wrong` unless the numbers have the gradient of the bound."""
    require(numbers.requires_grad, "the numbers have no way back to z.", "round() has gradient 0, and detach() has "
            "none: straight_through(bounded, rounded) hands it on.")  # fmt: skip
    (got,) = torch.autograd.grad((numbers * slope).sum(), z)
    (right,) = torch.autograd.grad((bound(z, levels) * slope).sum(), z)
    if torch.allclose(got, right, rtol=1e-3, atol=1e-5):
        return
    if torch.allclose(got, slope):
        raise Wrong("the gradient with respect to z is that of the identity, expected that of fsq_bound.",
                    "The gradient skips the bound as well: straight_through takes the *bounded* z.")  # fmt: skip
    if not got.any():
        raise Wrong("the gradient with respect to z is 0 everywhere, expected that of fsq_bound.",
                    "The gradient of round() is 0, so the encoder would learn nothing: use "
                    "straight_through.")  # fmt: skip
    raise Wrong("the gradient with respect to z is not that of fsq_bound.", "Only the rounding is passed over: "
                "straight_through(bounded, bounded.round()).")  # fmt: skip


# The loss of DALL·E


def loss_mistakes(text_logits, code_logits, text, codes, share):
    def each(logits, tokens):  # -log p of each token
        return -logits.double().log_softmax(-1).gather(2, tokens[..., None])[..., 0].float()

    words, places = each(text_logits, text[:, 1:]), each(code_logits, codes)
    right = share * words.mean() + (1 - share) * places.mean()
    everything = torch.cat([words, places], 1)
    return right, [
        ((1 - share) * words.mean() + share * places.mean(), "The weights are swapped: `share` is that of the text."),
        (words.mean() + places.mean(), "Both means have the weight 1: the text has `share`, the picture 1 - share."),
        (share * words.mean() + places.mean(), "The picture has the weight 1; it is 1 - share."),
        (everything.mean(), "This is the mean over all tokens together. Take one mean over the text and one over the "
                            "picture, and weight the two."),
        (share * each(text_logits, text[:, :-1]).mean() + (1 - share) * places.mean(), "The logits of text are "
         "compared with the tokens that were read. They predict the *next* ones: text[:, 1:]."),
        (places.mean(), "The text was left out."),
        (share * words.sum() + (1 - share) * places.sum(), "These are sums over the tokens; take means."),
        (share * words.sum(1).mean() + (1 - share) * places.sum(1).mean(), "The tokens of each sample are added up; "
         "take the mean over them as well."),
        (words.mean() / 8 + 7 * places.mean() / 8, "1/8 is written into the function: use the argument `share`."),
        (-right, "The sign is wrong: the loss is *minus* the mean logarithm."),
    ]  # fmt: skip


# Attention with a cache


def cache_mistakes(q, k, v, cache):
    """Right (out, keys, values), from the whole sequence in float64, and what mistakes give."""
    keys = k if cache is None else torch.cat([cache[0], k], 2)
    values = v if cache is None else torch.cat([cache[1], v], 2)
    new, total = q.shape[2], keys.shape[2]
    before = total - new

    def attend(keys, values, offset, scale=q.shape[3] ** -0.5, masked=True):
        scores = q.double() @ keys.double().mT * scale
        late = torch.arange(keys.shape[2]) > torch.arange(new)[:, None] + offset
        scores = scores.masked_fill(late, -math.inf) if masked else scores
        return (scores.softmax(-1) @ values.double()).float()

    behind = (k, v) if cache is None else (torch.cat([k, cache[0]], 2), torch.cat([v, cache[1]], 2))
    out = attend(keys, values, before)
    return (out, keys, values), [
        ((attend(keys, values, before, masked=False), keys, values), "Nothing hides later tokens: of several new "
         "tokens, the first must not see the others."),
        ((attend(keys, values, 0), keys, values), "The mask begins at the first key, as if nothing were cached. New "
         "token i comes after all past ones, and may see all of these: tril(keys - queries)."),
        ((attend(k, v, 0), keys, values), "The new tokens see only each other: the cached keys and values were not "
                                          "used."),
        ((attend(keys, values, before, scale=1.0), keys, values), "The scores are not divided by √d."),
        ((attend(keys, values, before, scale=1 / q.shape[3]), keys, values), "The scores were divided by d; it is √d."),
        ((out, k, v), "Only the new keys and values are handed back: the next call would not know of the old ones."),
        ((out, *(cache or (k, v))), "The old cache is handed back: the next call would not know of the new tokens."),
        ((attend(*behind, before), *behind), "The cached keys and values come *before* the new ones: "
                                             "cat([cache, new])."),
        ((out, values, keys), "Keys and values are swapped in what is returned: keys first."),
    ]  # fmt: skip


# Filters


def filter_mistakes(logits, top_k, top_p):
    """The right logits, row by row, and what mistakes give."""
    rows = logits.reshape(-1, logits.shape[-1]).double()

    def kept(row, k=top_k, p=top_p, fewer=False, of_all=False):
        order = row.argsort(descending=True).tolist()
        left = order[:k] if k is not None else order
        if p is None or p == 1:
            return left
        probabilities = row.softmax(0) if of_all else (row[left].softmax(0).new_zeros(len(row)).index_add(
            0, torch.tensor(left), row[left].softmax(0)))  # fmt: skip
        stay, total = [], 0.0
        for place in left:
            if total >= p or fewer and total + probabilities[place].item() > p:
                break
            stay.append(place)
            total += probabilities[place].item()
        return stay

    def filtered(places_of, value=-math.inf):
        new = torch.full_like(rows, value)
        for number, row in enumerate(rows):
            places = places_of(row)
            new[number, places] = row[places]
        return new.float().view_as(logits)

    right = filtered(kept)
    limited = top_p is not None and top_p < 1
    return right, [
        (filtered(kept, 0.0), "What falls out was set to 0. As a logit 0 is nothing special: its probability is 0 "
                              "only at -inf."),
        (filtered(kept, -1e9), "What falls out was set to -1e9; the contract says -inf."),
        (right.softmax(-1), "These are probabilities. Return logits: the caller applies the softmax."),
        (filtered(lambda row: kept(row, p=None)), "top_p was not used."),
        (filtered(lambda row: kept(row, k=None)), "top_k was not used."),
        (filtered(lambda row: kept(row, fewer=True)), "The code that reaches top_p fell out, so that less than top_p "
         "is left. It stays: drop a code if those *before* it have top_p already."),
        (filtered(lambda row: kept(row, of_all=True)), "The probabilities for top_p were those of all codes. They are "
         "those of what top_k has left, and add up to 1."),
        (filtered(lambda row: [p for p in range(len(row)) if p not in kept(row)] if len(kept(row)) < len(row) else
                  kept(row)), "The wrong ones stay: the likeliest are kept."),
        (filtered(lambda row: list(range(len(kept(row))))), "The mask is in the order of the sorted logits. Bring it "
         "back to the codes' own places: scatter."),
        (filtered(lambda row: kept(row, p=None if not limited else 1 - top_p)), "The codes outside the nucleus have "
         "top_p here, and those inside 1 - top_p."),
    ]  # fmt: skip
