"""Attempts at the exercises of chapter 13."""

import math

import torch
from attempts import mutant, variant
from torch.nn import functional as F

from course_utils.models.vq import codebook_from, fsq_bound, straight_through

NEAREST, THROUGH, UPDATE, FSQ = "13.nearest_code", "13.straight_through", "13.update_codebook", "13.fsq"
LOSS, CACHED, FILTER = "13.dalle_loss", "13.cached_attention", "13.filter_logits"

# The nearest code


@mutant(NEAREST, "farthest away")
def farthest(z, codebook):
    return torch.cdist(z, codebook).argmax(1)


@mutant(NEAREST, "which prefers long codes")
def largest_product(z, codebook):
    return (z @ codebook.T).argmax(1)


@mutant(NEAREST, "a code on the other side")
def smallest_product(z, codebook):
    return (z @ codebook.T).argmin(1)


@mutant(NEAREST, "over the wrong axis")
def wrong_axis(z, codebook):
    return torch.cdist(z, codebook).argmin(0)


@mutant(NEAREST, "Only the directions were compared")
def by_cosine(z, codebook):
    return (F.normalize(z) @ F.normalize(codebook).T).argmax(1)


@mutant(NEAREST, "The sign of the product is wrong")
def sign_of_the_product(z, codebook):
    return (z.square().sum(1, keepdim=True) + 2 * z @ codebook.T + codebook.square().sum(1)).argmin(1)


@mutant(NEAREST, "The largest of the d differences")
def largest_difference(z, codebook):
    return torch.cdist(z, codebook, p=math.inf).argmin(1)


@mutant(NEAREST, "These are the rows of the codebook")
def the_rows(z, codebook):
    return codebook[torch.cdist(z, codebook).argmin(1)]


@mutant(NEAREST, "These are the smallest distances")
def the_distances(z, codebook):
    return torch.cdist(z, codebook).min(1).values


@mutant(NEAREST, "an axis is needed")
def without_an_axis(z, codebook):
    return (z - codebook).square().sum(1)


@variant(NEAREST)
def by_differences(z, codebook):
    return (z[:, None] - codebook).square().sum(2).argmin(1)


@variant(NEAREST)
def by_cdist(z, codebook):
    return torch.cdist(z, codebook).argmin(dim=1)


@variant(NEAREST)
def without_the_square_of_z(z, codebook):
    return (z @ codebook.T - codebook.square().sum(1) / 2).argmax(1)


# Straight through


@mutant(THROUGH, "nothing is quantised")
def z_itself(z, z_q):
    return z * 1


@mutant(THROUGH, "What is added to z is the difference")
def all_of_z_q(z, z_q):
    return z + z_q.detach()


@mutant(THROUGH, "This is the mean of both")
def mean_of_both(z, z_q):
    return (z + z_q.detach()) / 2


@mutant(THROUGH, "z + (z_q - z).")
def other_way_round(z, z_q):
    return z + (z - z_q).detach()


@mutant(THROUGH, "Only the difference z_q - z is.")
def all_detached(z, z_q):
    return z_q.detach()


@mutant(THROUGH, "which part of it must not have a gradient?")
def no_detach(z, z_q):
    return z + (z_q - z)


@mutant(THROUGH, "The wrong one was detached")
def front_detached(z, z_q):
    return z.detach() + (z_q - z)


@mutant(THROUGH, "detach it as well")
def both_learn(z, z_q):
    return z_q + (z - z.detach())


@mutant(THROUGH, "is 1 for every element")
def twice(z, z_q):
    return 2 * z + (z_q - 2 * z).detach()


@variant(THROUGH)
def from_the_code(z, z_q):
    return z_q.detach() + (z - z.detach())


class Through(torch.autograd.Function):
    @staticmethod
    def forward(context, z, z_q):
        return z_q.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient, None


@variant(THROUGH)
def own_function(z, z_q):
    return Through.apply(z, z_q)


# The codebook


def updated(n=None, added=None, keep=None, take=None, dead=None, one=True, row=True, divided=True):
    """An answer to the exercise: each part is a function of the inputs, None: the right one."""

    def answer(counts, sums, z, codes, fresh, decay=0.99, least=0.03):
        number = torch.bincount(codes, minlength=len(counts)).float()
        total = torch.zeros_like(sums).index_add(0, codes, z)
        number, total = n(number, len(z)) if n else number, added(sums, z, codes, number) if added else total
        a, b = keep(decay) if keep else decay, take(decay) if take else 1 - decay
        new, m = a * counts + b * number, a * sums + b * total
        gone = dead(counts, number, least) if dead else new < least
        new = torch.where(gone, torch.ones_like(new), new) if one else new
        m = torch.where(gone[:, None], fresh, m) if row else m
        return new, m, codebook_from(new, m) if divided else m

    return answer


def wrong_update(words, **parts):
    function = updated(**parts)
    function.__name__ = words.replace(" ", "_")[:30]
    return mutant(UPDATE, words)(function)


def lossy(sums, z, codes, number):
    total = torch.zeros_like(sums)
    total[codes] += z
    return total


def averages(sums, z, codes, number):
    return torch.zeros_like(sums).index_add(0, codes, z) / number.clamp(min=1)[:, None]


wrong_update("The two factors are swapped", keep=lambda decay: 1 - decay, take=lambda decay: decay)
wrong_update("entered with the factor 1", take=lambda decay: 1.0)
wrong_update("m_k is an average of sums", added=averages)
wrong_update("not a share of the batch", n=lambda number, rows: number / rows)
wrong_update("adds only one z for each code", added=lossy)
wrong_update("Each code was counted once at most", n=lambda number, rows: (number > 0).float())
wrong_update("decide by the new ones", dead=lambda counts, number, least: counts < least)
wrong_update("that this batch did not choose", dead=lambda counts, number, least: number == 0)
wrong_update("Dead codes were left as they are", dead=lambda counts, number, least: counts < -1)
wrong_update("kept their small counts", one=False)
wrong_update("but not their new rows", row=False)
wrong_update("The codebook here is the sums", divided=False)


@mutant(UPDATE, "Return all of them, separated by commas")
def codebook_alone(counts, sums, z, codes, fresh, decay=0.99, least=0.03):
    return updated()(counts, sums, z, codes, fresh, decay, least)[2]


@mutant(UPDATE, "was changed in place")
def into_the_counts(counts, sums, z, codes, fresh, decay=0.99, least=0.03):
    counts *= decay
    return updated()(counts, sums, z, codes, fresh, decay, least)


@mutant(UPDATE, "and the rows are (K, d): dead[:, None]")
def without_an_axis_for_d(counts, sums, z, codes, fresh, decay=0.99, least=0.03):
    new, m, _ = updated()(counts, sums, z, codes, fresh, decay, 0.0)
    return torch.where(new < least, 1.0, new), torch.where(new < least, fresh, m), m


@variant(UPDATE)
def code_by_code(counts, sums, z, codes, fresh, decay=0.99, least=0.03):
    counts, sums = counts.clone(), sums.clone()
    for k in range(len(counts)):
        mine = z[codes == k]
        counts[k] = decay * counts[k] + (1 - decay) * len(mine)
        sums[k] = decay * sums[k] + (1 - decay) * mine.sum(0)
        if counts[k] < least:
            counts[k], sums[k] = 1.0, fresh[k]
    return counts, sums, codebook_from(counts, sums)


@variant(UPDATE)
def by_one_hot(counts, sums, z, codes, fresh, decay=0.99, least=0.03):
    chosen = F.one_hot(codes, len(counts)).to(z.dtype)  # (n, K)
    counts = torch.lerp(chosen.sum(0), counts, decay)
    sums = torch.lerp(chosen.T @ z, sums, decay)
    dead = counts < least
    counts, sums = counts.masked_fill(dead, 1.0), fresh * dead[:, None] + sums * ~dead[:, None]
    return counts, sums, codebook_from(counts, sums)


# FSQ


def coded(numbers, levels, factors=None):
    factors = torch.cat([torch.ones(1).long(), levels[:-1].cumprod(0)]) if factors is None else factors
    return ((numbers.detach().round().long() + levels // 2) * factors).sum(1)


@mutant(FSQ, "z was rounded without being bounded")
def unbounded(z, levels):
    numbers = straight_through(z, z.round())
    return numbers, coded(numbers, levels)


@mutant(FSQ, "but not rounded")
def unrounded(z, levels):
    return fsq_bound(z, levels), coded(fsq_bound(z, levels), levels)


@mutant(FSQ, "The numbers were rounded down")
def rounded_down(z, levels):
    bounded = fsq_bound(z, levels)
    return straight_through(bounded, bounded.floor()), coded(bounded.floor(), levels)


@mutant(FSQ, "L // 2 was added to the numbers, too")
def from_zero(z, levels):
    bounded = fsq_bound(z, levels)
    return straight_through(bounded, bounded.round()) + levels // 2, coded(bounded, levels)


@mutant(FSQ, "The *last* dimension runs fastest")
def last_fastest(z, levels):
    bounded = fsq_bound(z, levels)
    code = torch.zeros(len(z)).long()
    for digit, base in zip(bounded.round().long().unbind(1), levels, strict=True):
        code = code * base + digit + base // 2
    return straight_through(bounded, bounded.round()), code


@mutant(FSQ, "add L // 2 to the numbers")
def negative_digits(z, levels):
    bounded = fsq_bound(z, levels)
    factors = torch.cat([torch.ones(1).long(), levels[:-1].cumprod(0)])
    return straight_through(bounded, bounded.round()), (bounded.round().long() * factors).sum(1)


@mutant(FSQ, "multiplied by its own L as well")
def own_level_too(z, levels):
    bounded = fsq_bound(z, levels)
    return straight_through(bounded, bounded.round()), coded(bounded, levels, levels.cumprod(0))


@mutant(FSQ, "multiplied by its own L alone")
def own_level_alone(z, levels):
    bounded = fsq_bound(z, levels)
    return straight_through(bounded, bounded.round()), coded(bounded, levels, levels)


@mutant(FSQ, "The digits were added up")
def added_up(z, levels):
    bounded = fsq_bound(z, levels)
    return straight_through(bounded, bounded.round()), coded(bounded, levels, torch.ones_like(levels))


@mutant(FSQ, "hands it on")
def detached_numbers(z, levels):
    bounded = fsq_bound(z, levels).detach()
    return bounded.round(), coded(bounded, levels)


@mutant(FSQ, "The gradient of round() is 0")
def only_rounded(z, levels):
    bounded = fsq_bound(z, levels)
    return bounded.round(), coded(bounded, levels)


@mutant(FSQ, "The gradient skips the bound as well")
def past_the_bound(z, levels):
    bounded = fsq_bound(z, levels)
    return straight_through(z, bounded.round()), coded(bounded, levels)


@mutant(FSQ, "Only the rounding is passed over")
def bound_counted_twice(z, levels):
    bounded = fsq_bound(z, levels)
    return straight_through(2 * bounded, bounded.round()), coded(bounded, levels)


@variant(FSQ)
def by_a_loop(z, levels):
    bounded = fsq_bound(z, levels)
    numbers, code, factor = bounded + (bounded.round() - bounded).detach(), 0, 1
    for j in range(len(levels)):
        size = int(levels[j])
        code = code + factor * (bounded[:, j].round().long() + size // 2)
        factor *= size
    return numbers, code


@variant(FSQ)
def by_horner(z, levels):
    bounded = fsq_bound(z, levels)
    code = torch.zeros(len(z), dtype=torch.int64)
    for j in reversed(range(len(levels))):
        code = code * levels[j] + torch.round(bounded[:, j].detach()).long() + levels[j] // 2
    return straight_through(bounded, torch.round(bounded)), code


# The loss of DALL·E


def nll(logits, tokens):
    return -logits.log_softmax(-1).gather(2, tokens[..., None]).squeeze(2)


def wrong_loss(words):
    """Note a wrong loss of (of_text, of_codes, share), the minus logarithms of all tokens."""

    def note(of):
        def answer(text_logits, code_logits, text, codes, share=1 / 8):
            return of(nll(text_logits, text[:, 1:]), nll(code_logits, codes), share)

        answer.__name__ = of.__name__
        return mutant(LOSS, words)(answer)

    return note


@wrong_loss("The weights are swapped")
def swapped(of_text, of_codes, share):
    return (1 - share) * of_text.mean() + share * of_codes.mean()


@wrong_loss("Both means have the weight 1")
def both_whole(of_text, of_codes, share):
    return of_text.mean() + of_codes.mean()


@wrong_loss("The picture has the weight 1")
def picture_whole(of_text, of_codes, share):
    return share * of_text.mean() + of_codes.mean()


@wrong_loss("the mean over all tokens together")
def all_together(of_text, of_codes, share):
    return torch.cat([of_text, of_codes], 1).mean()


@wrong_loss("The text was left out")
def picture_alone(of_text, of_codes, share):
    return of_codes.mean()


@wrong_loss("These are sums over the tokens")
def sums_of_all(of_text, of_codes, share):
    return share * of_text.sum() + (1 - share) * of_codes.sum()


@wrong_loss("The tokens of each sample are added up")
def sums_of_samples(of_text, of_codes, share):
    return share * of_text.sum(1).mean() + (1 - share) * of_codes.sum(1).mean()


@wrong_loss("1/8 is written into the function")
def fixed_share(of_text, of_codes, share):
    return of_text.mean() / 8 + 7 / 8 * of_codes.mean()


@wrong_loss("The sign is wrong")
def likelihood(of_text, of_codes, share):
    return -share * of_text.mean() - (1 - share) * of_codes.mean()


@mutant(LOSS, "They predict the *next* ones")
def not_shifted(text_logits, code_logits, text, codes, share=1 / 8):
    return share * nll(text_logits, text[:, :-1]).mean() + (1 - share) * nll(code_logits, codes).mean()


@variant(LOSS)
def by_gather(text_logits, code_logits, text, codes, share=1 / 8):
    return share * nll(text_logits, text[:, 1:]).mean() + (1 - share) * nll(code_logits, codes).mean()


@variant(LOSS)
def classes_second(text_logits, code_logits, text, codes, share=0.125):
    of_text = F.cross_entropy(text_logits.mT, text[:, 1:])
    return torch.lerp(F.cross_entropy(code_logits.mT, codes), of_text, share)


# Attention with a cache


def attended(q, k, v, offset, scale=None, masked=True):
    scores = q @ k.mT * (q.shape[3] ** -0.5 if scale is None else scale)
    seen = torch.ones(q.shape[2], k.shape[2]).tril(offset) > 0
    return (scores.masked_fill(~seen, -math.inf) if masked else scores).softmax(-1) @ v


def joined(k, v, cache):
    return (k, v) if cache is None else (torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2))


@mutant(CACHED, "Nothing hides later tokens")
def no_mask(q, k, v, cache=None):
    k, v = joined(k, v, cache)
    return F.scaled_dot_product_attention(q, k, v), (k, v)


@mutant(CACHED, "as if nothing were cached")
def mask_from_the_first(q, k, v, cache=None):
    k, v = joined(k, v, cache)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True), (k, v)


@mutant(CACHED, "The new tokens see only each other")
def cache_unused(q, k, v, cache=None):
    return attended(q, k, v, 0), joined(k, v, cache)


@mutant(CACHED, "The scores are not divided by √d")
def no_root(q, k, v, cache=None):
    k, v = joined(k, v, cache)
    return attended(q, k, v, k.shape[2] - q.shape[2], scale=1.0), (k, v)


@mutant(CACHED, "The scores were divided by d")
def by_d(q, k, v, cache=None):
    k, v = joined(k, v, cache)
    return attended(q, k, v, k.shape[2] - q.shape[2], scale=1 / q.shape[3]), (k, v)


@mutant(CACHED, "Only the new keys and values are handed back")
def new_ones_back(q, k, v, cache=None):
    keys, values = joined(k, v, cache)
    return attended(q, keys, values, keys.shape[2] - q.shape[2]), (k, v)


@mutant(CACHED, "The old cache is handed back")
def old_ones_back(q, k, v, cache=None):
    keys, values = joined(k, v, cache)
    return attended(q, keys, values, keys.shape[2] - q.shape[2]), cache or (k, v)


@mutant(CACHED, "come *before* the new ones")
def cache_behind(q, k, v, cache=None):
    if cache is not None:
        k, v = torch.cat([k, cache[0]], 2), torch.cat([v, cache[1]], 2)
    return attended(q, k, v, k.shape[2] - q.shape[2]), (k, v)


@mutant(CACHED, "keys first")
def values_first(q, k, v, cache=None):
    k, v = joined(k, v, cache)
    return attended(q, k, v, k.shape[2] - q.shape[2]), (v, k)


@mutant(CACHED, "Return all of them")
def out_alone(q, k, v, cache=None):
    k, v = joined(k, v, cache)
    return attended(q, k, v, k.shape[2] - q.shape[2])


@variant(CACHED)
def with_a_bias(q, k, v, cache=None):
    k, v = joined(k, v, cache)
    past = k.shape[2] - q.shape[2]
    late = torch.arange(k.shape[2]) > past + torch.arange(q.shape[2])[:, None]
    bias = torch.zeros(late.shape).masked_fill(late, -math.inf)
    return ((q @ k.mT) / math.sqrt(q.shape[-1]) + bias).softmax(-1) @ v, (k, v)


@variant(CACHED)
def token_by_token(q, k, v, cache=None):
    k, v = joined(k, v, cache)
    past, out = k.shape[2] - q.shape[2], []
    for i in range(q.shape[2]):
        seen = past + i + 1
        out.append(F.scaled_dot_product_attention(q[:, :, i : i + 1], k[:, :, :seen], v[:, :, :seen]))
    return torch.cat(out, 2), (k, v)


# Filters


def of_top_k(logits, top_k):
    if top_k is None or top_k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -math.inf)


def of_top_p(logits, top_p, drops=lambda p, top_p: p.cumsum(-1) - p >= top_p, back=True, weights=None):
    if top_p is None or top_p == 1:
        return logits
    ordered, places = logits.sort(-1, descending=True)
    p = ordered.softmax(-1) if weights is None else weights.gather(-1, places)
    out = drops(p, top_p)
    return logits.masked_fill(out.scatter(-1, places, out) if back else out, -math.inf)


@mutant(FILTER, "What falls out was set to 0.")
def zeros(logits, top_k=None, top_p=None):
    return of_top_p(of_top_k(logits, top_k), top_p).masked_fill(of_top_p(of_top_k(logits, top_k), top_p).isinf(), 0.0)


@mutant(FILTER, "was set to -1e9")
def large_negative(logits, top_k=None, top_p=None):
    return of_top_p(of_top_k(logits, top_k), top_p).clamp(min=-1e9)


@mutant(FILTER, "These are probabilities")
def probabilities(logits, top_k=None, top_p=None):
    return of_top_p(of_top_k(logits, top_k), top_p).softmax(-1)


@mutant(FILTER, "top_p was not used")
def top_k_alone(logits, top_k=None, top_p=None):
    return of_top_k(logits, top_k)


@mutant(FILTER, "top_k was not used")
def top_p_alone(logits, top_k=None, top_p=None):
    return of_top_p(logits, top_p)


@mutant(FILTER, "The code that reaches top_p fell out")
def one_too_few(logits, top_k=None, top_p=None):
    return of_top_p(of_top_k(logits, top_k), top_p, lambda p, top_p: p.cumsum(-1) > top_p)


@mutant(FILTER, "were those of all codes")
def not_again_divided(logits, top_k=None, top_p=None):
    return of_top_p(of_top_k(logits, top_k), top_p, weights=logits.softmax(-1))


@mutant(FILTER, "The wrong ones stay")
def the_rest(logits, top_k=None, top_p=None):
    out = of_top_p(of_top_k(logits, top_k), top_p).isinf()
    return logits.masked_fill(~out, -math.inf) if out.any() else logits


@mutant(FILTER, "in the order of the sorted logits")
def in_sorted_order(logits, top_k=None, top_p=None):
    number = of_top_p(of_top_k(logits, top_k), top_p).isfinite().sum(-1, keepdim=True)
    return logits.masked_fill(torch.arange(logits.shape[-1]) >= number, -math.inf)


@mutant(FILTER, "The codes outside the nucleus have")
def other_share(logits, top_k=None, top_p=None):
    return of_top_p(of_top_k(logits, top_k), None if top_p in (None, 1) else 1 - top_p)


@variant(FILTER)
def row_by_row(logits, top_k=None, top_p=None):
    rows = logits.reshape(-1, logits.shape[-1])
    new = torch.full_like(rows, -math.inf)
    for number, row in enumerate(rows):
        order = row.argsort(descending=True)[:top_k]
        before, p = 0.0, row[order].softmax(0)
        for place, share in zip(order, p, strict=True):
            if top_p is None or top_p == 1 or before < top_p:
                new[number, place] = row[place]
            before += share.item()
    return new.view_as(logits)


@variant(FILTER)
def by_ranks(logits, top_k=None, top_p=None):
    ranks = logits.argsort(-1, descending=True).argsort(-1)
    kept = ranks < (top_k or logits.shape[-1])
    p = logits.masked_fill(~kept, -math.inf).softmax(-1)
    ahead = ((logits[..., None, :] > logits[..., :, None]) * p[..., None, :]).sum(-1)
    if top_p is not None and top_p < 1:
        kept &= ahead < top_p
    return torch.where(kept, logits, torch.full_like(logits, -math.inf))
