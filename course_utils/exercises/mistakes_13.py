"""What the exercises of chapter 13 give with common mistakes, and what their oracles measure with.

Each `..._mistakes` returns pairs (value that a mistake gives, sentence that names it) for `close`, or for
`close_in_each`, where the value is a tuple of all results.
"""

import contextlib
import math

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.exercises.calls import Raised
from course_utils.exercises.oracles import Wrong, close, largest_error, require, require_tensor
from course_utils.exercises.settings import NO_RESULT, called_as
from course_utils.pipelines.unclip import prior_alpha_bar

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


@contextlib.contextmanager
def reasons_given(reasons):
    """Let an exception of the learner's code be told the first advice whose words are in its text.

    reasons: pairs (words, advice).
    """
    try:
        yield
    except Raised as raised:
        text = f"{type(raised.__cause__).__name__}: {raised.__cause__}"
        advice = next((advice for words, advice in reasons if words in text), None)
        if advice is None:
            raise
        raise Wrong(text, advice) from None


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
        (product.argmax(1), "The largest product with z wins here, which prefers long codes. The term |e_j|² is "
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
        (result(added=added / n.clamp(min=1)[:, None]), "The *mean* of the z that chose a code was averaged. m_j is an "
         "average of sums; dividing by N_j comes last."),
        (result(n=n / len(z)), "n_j is a count, and not a share of the batch: the sums are not divided by n either."),
        (result(added=lost), "`sums[codes] += z` adds only one z for each code, though several chose it: "
                             "index_add(0, codes, z) adds all."),
        (result(n=(n > 0).float()), "Each code was counted once at most: torch.bincount(codes, minlength=J) counts "
                                    "all."),
        (result(dead=counts < least), "Which codes are dead was decided by the old counts: decide by the new ones."),
        (result(dead=n < 1), "Every code that this batch did not choose began again. Only those with an average count "
                             "below `least` are dead."),
        (result(dead=torch.zeros(K, dtype=torch.bool)), "Dead codes were left as they are: where N_j < least, they "
         "begin again."),
        (result(one=False), "The restarted codes kept their small counts, so that sums / counts is far off. Their "
                            "count becomes 1."),
        (result(row=False), "The restarted codes got a count of 1, but not their new rows: m_j becomes fresh_j."),
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


# The loss of the prior


class Guesser(nn.Module):
    """A small network that counts its calls; its output depends on x_t, t and each row of cond."""

    def __init__(self, case, length, width):
        super().__init__()
        self.weight = nn.Parameter(case.uniform(1.2, 1.8))
        self.kernel = case.normal(length + 1, width) / math.sqrt(length + 1)
        self.calls = 0

    def answer(self, x_t, t, cond):
        return self.weight * (x_t + (cond * self.kernel).sum(1)) - t.to(x_t)[:, None] / 10

    def forward(self, x_t, t=None, cond=None):
        if t is None or cond is None:
            raise ValueError("the model expects a noisy embedding, its time and the caption: model(x_t, t, cond).")
        if not isinstance(t, torch.Tensor) or t.shape != x_t.shape[:1]:
            raise ValueError(f"the model expects one time for each sample, t of shape {tuple(x_t.shape[:1])}.")
        expected = (len(x_t), *self.kernel.shape)
        if cond.shape != expected:
            raise ValueError(f"the model expects one caption for each sample, cond of shape {expected}, got "
                             f"{tuple(cond.shape)}.")  # fmt: skip
        self.calls += 1
        return self.answer(x_t, t, cond)


def prior_mistakes(model, x0, cond, null, t, eps, uniforms, table, share):
    """The right loss, computed by hand, and those of mistakes."""
    a = table[t][:, None]
    signal, noise = a.sqrt(), (1 - a).sqrt()
    x_t = signal * x0 + noise * eps

    def told(dropped, other=null):
        return torch.stack([other[0] if gone else own for gone, own in zip(dropped.tolist(), cond, strict=True)])

    below = uniforms < share
    kept = (~below).float()
    c = told(below)
    answer = model.answer(x_t, t, c).detach()
    squares = (answer - x0).square()
    each = squares.mean(1)

    def loss(x=x_t, t=t, c=c, target=x0):
        return (model.answer(x, t, c).detach() - target).square().mean()

    def with_table(a):
        return loss(a.sqrt()[:, None] * x0 + (1 - a).sqrt()[:, None] * eps)

    def standardised(dim):
        away = x0 - x0.mean(dim, keepdim=True)
        return away / (away.square().sum(dim, keepdim=True) / (x0.shape[dim] - 1)).sqrt()  # of one sample: NaN

    def of_other_embeddings(z):
        shown = signal * z + noise * eps
        return loss(x=shown, target=z), loss(x=shown), loss(target=z)

    unit, lengths = F.normalize(answer, dim=1), squares.sum(1).sqrt()
    places, dropped = torch.arange(len(x0)), share * len(x0)
    wrong_ones = "The wrong captions were dropped: `null` takes their place where uniforms < share."
    left_out = (
        "The samples without a caption were left out of the mean. They count like the others: from them the model "
        "learns what to do without one."
    )
    twice = "A mean was divided once more. mean() has divided by batch and width already."
    by_place = (
        "The first captions of the batch were dropped, as many as make the share. Chance decides: `uniforms` < share."
    )
    mixed = "Captions, or predictions, were mixed with `null`. A caption is dropped as a whole or not at all."
    root_left = "The length of a difference is a root. What is averaged are the squares: square it first."
    embedding_too = "x0 was dropped together with the caption. Only the caption is."
    again = "x0 was standardised once more. It comes standardised, by the mean and deviation of the whole data set."
    right = F.mse_loss(answer, x0)
    return right, [
        (loss(target=eps), "The target here is eps. This network predicts the clean embedding: x0."),
        (loss(target=signal * eps - noise * x0), "The target here is v. This network predicts x0 itself."),
        (loss(target=x_t), "The target here is x_t, which the model sees. It should predict the clean x0."),
        (loss(x=x0), "The model was shown the clean x0, which it should predict. It sees x_t."),
        (loss(x=eps), "The model was shown eps alone; it should see x_t."),
        (loss(x=a * x0 + (1 - a) * eps), "The roots are missing in x_t: add_noise has them."),
        (loss(x=noise * x0 + signal * eps), "The factors of x_t are swapped: √ᾱ belongs to x0."),
        (loss(x=x0 + noise * eps), "The factor of x0 in x_t is missing: √ᾱ."),
        (loss(x=signal * x0 - noise * eps), "The noise was subtracted in x_t: √ᾱ x0 *plus* √(1 - ᾱ) eps."),
        *((value, embedding_too) for value in of_other_embeddings(x0 * kept[:, None])),
        *((value, again) for dim in (0, 1) for value in of_other_embeddings(standardised(dim))),
        (loss(t=torch.zeros_like(t)), "The model was not told the time (t = 0 for all)."),
        (loss(t=t[:1].expand_as(t)), "All samples were told the time of the first."),
        (loss(t=t / len(table)), "t was divided by the number of times; the model wants t itself."),
        (loss(t=table[t]), "The model was given ᾱ in place of the time t."),
        (loss(t=t + 1), "The model was told t + 1. Times count from 0, for the model and for alpha_bar."),
        (loss(t=t.where(~below, torch.zeros_like(t))), "The time was dropped together with the caption. Only the "
                                                       "caption is."),
        (with_table(table[t - 1]), "ᾱ was read at t - 1: alpha_bar[t] is that of time t."),
        (with_table(table[t[:1]]), "All samples were noised to the time of the first."),
        (with_table(prior_alpha_bar()[t].to(a)), "This is the table of the package's prior; use the argument "
                                                 "alpha_bar."),
        (loss(c=cond), "No caption was dropped: the model never meets `null`, and guidance needs its answer to it."),
        (loss(c=null.expand_as(cond)), "The model was always told `null`: it cannot learn what captions mean."),
        (loss(c=told(uniforms > share)), wrong_ones),
        (loss(c=told(uniforms >= share)), wrong_ones),
        (loss(c=told(uniforms <= share)), "A caption with u = share was dropped: it is u < share, so that a share of 0 "
                                          "drops none."),
        (loss(c=told(below[:1].expand_as(below))), "One uniform number decided for the whole batch. Each caption has a "
                                                   "number of its own."),
        (loss(c=told(uniforms < 0.1)), "0.1 is written into the function: use the argument `share`."),
        (loss(c=told(below, torch.zeros_like(null))), "Dropped captions became zeros. What the empty caption gives is "
                                                      "in `null`."),
        (loss(c=torch.cat([cond[:, :-1], c[:, -1:]], 1)), "Only the text embedding was dropped, and the word states "
         "still tell the caption. All rows are replaced."),
        (loss(c=torch.cat([c[:, :-1], cond[:, -1:]], 1)), "Only the word states were dropped, and the text embedding "
         "still tells the caption. All rows are replaced."),
        *((loss(c=told(places < count)), by_place) for count in (round(dropped), int(dropped), math.ceil(dropped))),
        (loss(c=(1 - share) * cond + share * null), mixed),
        (loss(c=share * cond + (1 - share) * null), mixed),  # as guidance does with predictions
        ((each * kept).mean(), left_out),
        (each[~below].mean(), left_out),
        (squares.sum(), "This is the sum over everything; take the mean."),
        (squares.sum(1).mean(), "The squares of a sample were added up: take the mean over the width as well."),
        (each, "One number for each sample is left: take the mean of them too."),
        (squares, "Every element is left: take the mean over all of them."),
        (right / x0.shape[1], twice),
        (right / len(x0), twice),
        (right / 2, "This is half of the loss: take the mean without any factor."),
        ((answer - x0).abs().mean(), "This is the mean absolute error; the loss is the mean of the squares."),
        (right.sqrt(), "A root was taken: the loss is the mean square itself."),
        *((value / divisor, root_left) for value in (lengths.mean(), squares.sum().sqrt())
          for divisor in (1, math.sqrt(x0.shape[1]), x0.shape[1], len(x0), x0.numel())),
        ((answer - x0).mean().square(), "The mean was taken before the square: squares first, then their mean."),
        (F.huber_loss(answer, x0), "This is the Huber loss; the loss is the mean of the squares."),
        ((1 - a).mul(squares).mean(), "Each sample was weighted by 1 - ᾱ. The loss of x0 has no further weight."),
        (a.mul(squares).mean(), "Each sample was weighted by ᾱ. The loss of x0 has no further weight."),
        ((a / (1 - a)).mul(squares).mean(), "Each square was multiplied by ᾱ / (1 - ᾱ): by a weight, or because "
         "prediction and target were turned into noise first. The loss of x0 has no weight."),
        ((squares / (1 - a)).mean(), "Each square was divided by 1 - ᾱ, as if v were compared. Compare x0 with x0."),
        ((unit - x0).square().mean(), "The prediction was divided by its length. x0 is standardised here, and no unit "
                                      "vector."),
        (1 - (unit * F.normalize(x0, dim=1)).sum(1).mean(), "This is 1 minus the cosine, which ignores lengths. The "
                                                            "loss is the mean of the squared differences."),
    ]  # fmt: skip


# The better of two


def two_samples(case, batch, width, begins=True):
    """Unit vectors (first, second, text), in turn with the first and the second as the better one.

    begins: whether the first is the better one of row 0. The sum over all rows prefers the other, so that choices for
    the whole batch, by a sum, by row 0, .any() or .all(), are told apart by two settings.
    """
    one, other, text = (F.normalize(case.normal(batch, width), dim=1) for _ in range(3))
    is_first = (one * text).sum(1, keepdim=True) > (other * text).sum(1, keepdim=True)
    better, worse = one.where(is_first, other), other.where(is_first, one)
    wanted = (torch.arange(batch) % 2 == (0 if begins else 1))[:, None]
    first, second = better.where(wanted, worse), worse.where(wanted, better)
    if batch > 1 and ((first - second) * text).sum().gt(0) == begins:
        return two_samples(case, batch, width, begins)
    return first, second, text


ONE_FOR_EACH_ROW = (
    "There is one comparison for each row, and .item() and float() take one number only. No `if` over the "
    "batch: torch.where chooses row by row."
)
WITH_THE_ROW = (
    "The number of the row is missing beside the choice: both[best, torch.arange(n)] of a stack (2, n, width), "
    "both[torch.arange(n), best] of (n, 2, width)."
)
BETTER_REASONS = (
    ("must match the size of tensor", "There is one choice for each row, so it needs an axis more, (batch, 1): "
     "keepdim=True in the sum, or [:, None]. (first @ text.T would be every sample with every caption.)"),
    ("cannot be converted to Scalar", ONE_FOR_EACH_ROW),
    ("converted to Python scalars", ONE_FOR_EACH_ROW),
    ("Boolean value of Tensor", "`if`, `and` and max() ask one question of the whole batch. torch.where answers for "
                                "each row."),
    ("out of bounds for dimension", WITH_THE_ROW),
    ("shape of the mask", "True and False choose among rows, and not between the two of a stack: torch.where(it, "
                          "first, second), or .long() and the number of the row."),
)  # fmt: skip


def better_mistakes(first, second, text):
    """The right rows, chosen by distance and one by one, and what mistakes give."""
    choices = [
        int(torch.dist(one, y) > torch.dist(other, y)) for one, other, y in zip(first, second, text, strict=True)
    ]
    both = torch.stack([first, second], 1)  # (batch, 2, width)
    rows, index = torch.arange(len(first)), torch.tensor(choices)
    right, worse = both[rows, index], both[rows, 1 - index]
    products = both * text[:, None]
    similarity = products.sum(2)
    across = (first * second).sum(1)

    def chosen(is_first):
        return first.where(is_first, second)

    def by_rows(one, other):
        return chosen((one >= other)[:, None])

    among = "The samples were multiplied with each other. Each of them is multiplied with the text embedding."
    mean = "This is a mean of the two. One of them is chosen, and returned as it is."
    whole = "One choice was made for the whole batch. Each caption has its own: sum over the width only."
    any_or_all = ".any() and .all() make one choice of the choices of all rows. torch.where takes them row by row."
    together = (
        "The mean or sum of all captions decided, as in (first @ text.T).sum(1). Row i belongs to caption i alone."
    )
    order = "The rows lost their order: those of `first` come together here. torch.where leaves each in its place."
    by_columns = "The sum went over the batch, so that each column was chosen as a whole. Sum over the width: axis 1."
    cosines = [F.cosine_similarity(x, text, dim=0) for x in (first, second)]
    is_first = index == 0
    all_samples = torch.cat([first, second])
    mean_text = text.mean(0)
    return right, [
        (worse, "These are the less similar ones: the larger dot product wins."),
        (chosen(similarity[:, 0].sum() >= similarity[:, 1].sum()), whole),
        (chosen((similarity[:, 0] >= similarity[:, 1]).all()), any_or_all),
        (chosen((similarity[:, 0] >= similarity[:, 1]).any()), any_or_all),
        (chosen(is_first[0]), "The first row decided for the whole batch. Each row has a choice of its own."),
        (torch.cat([first[is_first], second[~is_first]]), order),
        (torch.cat([second[~is_first], first[is_first]]), order),
        (first[is_first], "Only the rows where the first is better are left. In the other rows stands the second."),
        ((first + second) * is_first[:, None], "Both were multiplied by one mask. The second counts where it is 0: "
                                               "m * first + (1 - m) * second."),
        (chosen(similarity[:, :1] > 0), "The dot product of the first was compared with 0. It is compared with that of "
                                        "the second."),
        (by_rows(first @ mean_text, second @ mean_text), together),
        (all_samples[(text @ all_samples.T).argmax(1)], "The best of all samples of the batch was taken. Row i chooses "
                                                        "between its own two."),
        (by_rows(products[:, 0].amax(1), products[:, 1].amax(1)), "The largest of the products decided. Their sum is "
                                                                  "the dot product."),
        (torch.stack([first, second])[index], WITH_THE_ROW),
        (both[:, index], WITH_THE_ROW),
        (by_rows(similarity[:, 0], across), among),
        (by_rows(across, similarity[:, 1]), among),
        (both.mean(1), mean),
        (F.normalize(both.mean(1), dim=1), mean),
        (index, "This is which of the two is better. Return the embedding itself: torch.where, or an index into both."),
        (1 - index, "This tells where the first is better. Return the embeddings: torch.where(it, first, second)."),
        (similarity.amax(1), "These are the dot products. They decide which embedding is returned."),
        (similarity, "These are the dot products of both. They decide which embedding is returned."),
        (chosen(products[:, 0].sum(0) >= products[:, 1].sum(0)), by_columns),
        (chosen(cosines[0] >= cosines[1]), by_columns),  # of one row they are all 1 or -1
        (chosen(cosines[0] > cosines[1]), by_columns),
        (chosen(products[:, 0] >= products[:, 1]), "Each number was chosen for itself, which mixes the two embeddings: "
                                                   "add up the products before comparing."),
        (both.amax(1), "This is the maximum of each number. The text decides, and an embedding is taken as a whole."),
        (first, "The first was always taken."),
        (second, "The second was always taken."),
        (by_rows((first @ text.T).amax(1), (second @ text.T).amax(1)), "Each sample was compared with all captions of "
         "the batch. Row i belongs to caption i alone."),
        (by_rows(similarity[:, 0].abs(), similarity[:, 1].abs()), "The sign of the dot product was dropped. A negative "
                                                                  "one means that they point away from each other."),
        (by_rows(-(first - text).abs().sum(1), -(second - text).abs().sum(1)), "The absolute differences were added "
         "up. The dot product, or the sum of the *squared* differences, orders unit vectors by angle."),
        (right * similarity.amax(1, keepdim=True), "The embedding was multiplied by its similarity. Return it as it "
                                                   "is."),
        ((both * similarity.softmax(1)[..., None]).sum(1), "This is a mixture of the two with the weights of a "
         "softmax. One of them is chosen, and returned as it is."),
    ]  # fmt: skip


# The text diff


def diff_inputs(case, n, width, rows):
    """Unit vectors: embeddings (n, width), and captions before and after, (rows, width).

    The angle between an embedding and the difference of its captions is neither near 0 nor near π.
    """

    def beside(d, count):  # unit vectors at right angles to d
        x = case.normal(count, width)
        return F.normalize(x - (x * d).sum(1, keepdim=True) * d, dim=1)

    d, length = F.normalize(case.normal(rows, width), dim=1), case.uniform(0.3, 1.2, rows, 1)
    before = (1 - length.square() / 4).sqrt() * beside(d, rows) - length / 2 * d
    w = case.uniform(0.5, 2.6, n, 1)
    return w.cos() * d + w.sin() * beside(d, n), before, before + length * d


def diff_reasons(rows, share):
    """What exceptions mean with so many rows of captions and this share, if settings with fewer rows came first."""
    plain = (
        "share may be a plain number. `slerp` takes share as it is. By hand, torch.as_tensor(share).reshape(-1, 1) "
        "serves for a number and for a tensor; in a loop, torch.as_tensor(share).expand(n)."
    )
    rows_of_all = (
        "The captions may be one row for all embeddings, and share one number. Before a loop: "
        "text_after.expand_as(embedding), torch.as_tensor(share).expand(n)."
    )
    repeated = "With a caption for each embedding, .repeat(n, 1) makes n x n rows. d.expand_as(embedding) fits both."
    if isinstance(share, torch.Tensor):
        axis = "One share for each embedding needs an axis more, (n, 1), beside vectors (n, width)."
        single = (
            "share may have a number for each embedding; float(), .item() and `if` take one. slerp takes it as it is."
        )
    else:
        axis = (
            "One number for each embedding, its length or its angle, needs an axis more beside vectors (n, width): "
            "norm(dim=1, keepdim=True), sum(1, keepdim=True)."
        )
        single = "Each embedding has an angle of its own; float(), .item(), math and `if` take one. Stay with tensors."
        if rows > 1:
            axis = (
                "With a caption for each embedding, the lengths of the differences need an axis more: norm(dim=1, "
                "keepdim=True). And an angle is that of row i with row i, (e * d).sum(1, keepdim=True), not e @ d.T."
            )
    of_captions = (
        "The arc starts at a caption here, which is one row for all. It starts at the embedding; and captions are "
        "expanded first: text_after.expand_as(embedding)."
    )
    expand = "The captions may be one row for all embeddings: slerp wants as many, d.expand_as(embedding)."
    return (
        *([("at non-singleton dimension 0", repeated)] if rows > 1 else []),
        ("must match the size of tensor", axis),
        ("Expected a and b of one shape", expand if rows == 1 else repeated),
        ("one for each of the 1 samples", of_captions),
        ("one for each of the", "`slerp` takes share as it is: a number, or shape (n,)."),
        *((words, single) for words in ("converted to Python scalars", "converted to Scalar", "Boolean value of")),
        *((words, plain) for words in ("'float' object is not", "'float' has no len", "of dimension 0", "0-d tensor",
                                       "0-dim tensor", "range of [-1, 0]")),
        *([("out of bounds for dimension 0 with size 1", rows_of_all)] if rows == 1 else []),
    )  # fmt: skip


def diff_mistakes(e, before, after, share):
    """The right embeddings, by a rotation in float64, and what mistakes give."""
    e, before, after = e.double(), before.double(), after.double()
    s = torch.as_tensor(share).double().reshape(-1, 1)
    difference = after - before

    def unit(x):
        return F.normalize(x, dim=1)

    def angle(a, b):
        return F.cosine_similarity(a, b, dim=1).clamp(-1, 1).acos()[:, None]

    def arc(a, b, s=s, w=None):
        w = angle(a, b.expand_as(a)) if w is None else w
        return (((1 - s) * w).sin() * a + (s * w).sin() * b) / w.sin()

    d = unit(difference).expand_as(e)
    w = angle(e, d)
    beside = unit(d - (d * e).sum(1, keepdim=True) * e)  # at right angles to e
    quarter = s * math.pi / 2
    right = (s * w).cos() * e + (s * w).sin() * beside
    advice = "The difference of the captions was not divided by its length: d_text is a unit vector."
    columns = "The difference was divided by the lengths of its columns. Each row is a vector: dim=1."
    one_length = "All differences were divided by one length. Each row has its own: dim=1, keepdim=True."
    added = "The difference was added to the embedding, which makes it longer or shorter. It is turned, along an arc."
    added_unit = (
        "The difference was added, and the sum brought back to length 1. That is another angle: `share` is a share of "
        "the angle between embedding and d_text."
    )
    right_angles = (
        "These weights fit vectors at right angles, as noises nearly are. The angle Ω between embedding and d_text is "
        "another one: sin((1 - ξ) Ω) / sin Ω and sin(ξ Ω) / sin Ω."
    )
    not_beside = (
        "cos and sin are the weights of two vectors at right angles: subtract from d_text its part along the "
        "embedding, and divide what is left by its length."
    )
    one_angle = "One angle Ω was taken for all embeddings. Each has its own: sum over the width only."
    limited = "The share was limited. It is taken as it is, from 0 to 1."
    positive = "Negative cosines were made positive, or 0. Angles go up to π: clamp(-1, 1)."
    of_captions = "This goes from one caption to the other. It starts at the image embedding."
    alone = "This is d_text alone, as with a share of 1."
    wide, cosine = difference.expand_as(e), w.cos()
    directions = [  # not of length 1
        (difference, advice),
        (difference / difference.square().sum(1, keepdim=True), "The difference was divided by its squared length: a "
                                                                "root is missing."),
        (difference / difference.abs().sum(1, keepdim=True), "The difference was divided by the sum of its absolute "
                                                             "numbers. The length is the root of the sum of squares."),
        (F.normalize(difference, dim=0), columns),
        (F.normalize(wide, dim=0), columns),
        (difference / difference.norm(), one_length),
        (wide / wide.norm(), one_length),
    ]  # fmt: skip
    mistakes = [(arc(e, x), sentence) for x, sentence in directions]
    mistakes += [
        (arc(e, x, w=(e * x).sum(1, keepdim=True).clamp(-1, 1).acos()), sentence) for x, sentence in directions
    ]
    mistakes += [
        (arc(e, -d), "The difference is the wrong way round: what is new is text_after - text_before."),
        (arc(d, e), "This goes from d_text to the embedding: a share of 0 leaves the embedding as it is."),
        (arc(e, after.expand_as(e)), "This turns towards the new caption as a whole. Only its difference from the old "
                                     "one counts."),
        (arc(e, unit(e + difference)), "This turns towards the sum of embedding and difference. It goes towards "
                                       "d_text itself."),
        (arc(before.expand_as(e), after.expand_as(e)), of_captions),
        (arc(before.expand_as(e), d), "This starts at the old caption. It starts at the image embedding."),
        (arc(e, unit(after + before)), "The captions were added. What is new is text_after *minus* text_before."),
        (arc(e, unit(after - e)), "The image embedding was subtracted from the new caption. The old caption is."),
        (arc(e, unit(difference[:1])), "All embeddings were turned by the first captions. Row i belongs to caption i."),
        (arc(e, unit(difference.mean(0, keepdim=True))), "All embeddings were turned by the mean of the differences. "
                                                         "Each has its own."),
        (s.cos() * e + s.sin() * beside, "It was turned by `share` radians: `share` is a share of the angle between "
                                         "embedding and d_text."),
        (arc(e, d, s=s[:1]), "All embeddings got the share of the first. Each has its own."),
        (arc(e, d, s=s.mean()), "All embeddings got the mean of the shares. Each has its own."),
        *((arc(e, d, s=s.clamp(*limits)), limited) for limits in ((0.25, 0.5), (0, 0.5), (0.25, 1))),
        *((arc(e, d, w=one), one_angle) for one in (w.mean(), w[:1], cosine.mean().acos())),
        (arc(e, d, w=angle(e, d[:1].expand_as(e))), "The angle Ω was taken with the first d_text. Each row has an "
                                                    "angle of its own, with its own d_text."),
        (arc(e, d, w=cosine), "The cosine was used as the angle: .acos() is missing."),
        (arc(e, d, w=cosine.asin()), "The angle was found by asin. It is the cosine that is known: .acos()."),
        *((arc(e, d, w=other.acos()), positive) for other in (cosine.abs(), cosine.clamp(min=0))),
        (arc(e, d, w=angle(before, after)), "The angle here is that between the two captions. Ω is the angle "
                                            "between embedding and d_text."),
    ]  # fmt: skip
    mistakes += [(unit(value), sentence) for value, sentence in mistakes]  # as well with a last division by the length
    mistakes += [
        ((1 - s) * e + s * d, "This is on the straight line to d_text, too short in the middle. It goes along "
                              "the arc."),
        (unit((1 - s) * e + s * d), "This is the straight line, brought back to length 1. Its steps are no equal "
         "angles: `share` is a share of the angle."),
        (e + s * difference, added),
        (e + s * d, added),
        (unit(e + s * difference), added_unit),
        (unit(e + s * d), added_unit),
        (quarter.cos() * e + quarter.sin() * beside, "It was turned by a share of a right angle. It is a share of the "
         "angle between embedding and d_text."),
        (quarter.cos() * e + quarter.sin() * d, right_angles),
        (unit(quarter.cos() * e + quarter.sin() * d), right_angles),
        ((1 - s).sqrt() * e + s.sqrt() * d, right_angles),
        (unit((1 - s).sqrt() * e + s.sqrt() * d), right_angles),
        ((s * w).cos() * e + (s * w).sin() * d, not_beside),
        (unit((s * w).cos() * e + (s * w).sin() * d), not_beside),
        (arc(e, d) * w.sin(), "The division by sin Ω is missing, so that the lengths are not 1."),
        (F.normalize(right, dim=0), "At the end the columns were brought to length 1. Each row is a vector: dim=1."),
        (right / right.norm(), "At the end all was divided by one length. Each row has length 1: dim=1."),
        (e, "The embedding came back as it was."),
        (d, alone),
    ]  # fmt: skip
    mistakes = [(value.expand_as(e), sentence) for value, sentence in mistakes]
    mistakes += [  # one row, where there is one row of captions
        (unit(difference), alone),
        (arc(before, after), of_captions),
        (right[: len(after)], "As many embeddings came back as there are captions: zip ends with the shortest. The "
                              "captions are expanded first: text_after.expand_as(embedding)."),
    ]  # fmt: skip
    return right.float(), [(value.float(), sentence) for value, sentence in mistakes]
