"""Attempts at the exercises of chapter 13."""

import math

import torch
from attempts import mutant, variant
from torch.nn import functional as F

from course_utils.diffusion.editing import slerp
from course_utils.diffusion.guidance import drop_prompts
from course_utils.diffusion.schedules import add_noise
from course_utils.models.vq import codebook_from, fsq_bound, straight_through
from course_utils.pipelines.unclip import prior_alpha_bar

NEAREST, THROUGH, UPDATE, FSQ = "13.nearest_code", "13.straight_through", "13.update_codebook", "13.fsq"
LOSS, CACHED, FILTER = "13.dalle_loss", "13.cached_attention", "13.filter_logits"
PRIOR, BETTER, DIFF = "13.prior_loss", "13.better_of_two", "13.text_diff"

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


@mutant(NEAREST, "take .values or .indices")
def distances_and_codes(z, codebook):
    return torch.cdist(z, codebook).min(1)


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
wrong_update("m_j is an average of sums", added=averages)
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


@mutant(UPDATE, "and the rows are (J, d): dead[:, None]")
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


# The loss of the prior


def noised(x0, eps, a):
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def replaced(cond, null, dropped):
    return torch.where(dropped[:, None, None], null, cond)


def wrong_prior(words, state="fail"):
    """Note a wrong loss: a function of (model, x_t, x0, told, t, eps, a)."""

    def note(function):
        def attempt(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
            a = alpha_bar[t][:, None]
            told = replaced(cond, null, uniforms < share)
            return function(model, noised(x0, eps, a), x0, told, t, eps, a)

        attempt.__name__ = function.__name__
        mutant(PRIOR, words, state)(attempt)
        return function

    return note


def wrong_drop(words, state="fail"):
    """Note a wrong way to drop captions: a function of (cond, null, uniforms, share) that returns what is told."""

    def note(function):
        def attempt(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
            told = function(cond, null, uniforms, share)
            return F.mse_loss(model(noised(x0, eps, alpha_bar[t][:, None]), t, told), x0)

        attempt.__name__ = function.__name__
        mutant(PRIOR, words, state)(attempt)
        return function

    return note


@wrong_prior("The target here is eps")
def prior_of_noise(model, x_t, x0, told, t, eps, a):
    return (eps - model(x_t, t, told)).square().mean()


@wrong_prior("The target here is v")
def prior_of_v(model, x_t, x0, told, t, eps, a):
    return (a.sqrt() * eps - (1 - a).sqrt() * x0 - model(x_t, t, told)).square().mean()


@wrong_prior("The target here is x_t")
def prior_of_x_t(model, x_t, x0, told, t, eps, a):
    return (x_t - model(x_t, t, told)).square().mean()


@wrong_prior("was shown the clean x0")
def prior_sees_x0(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x0, t, told)).square().mean()


@wrong_prior("was shown eps alone")
def prior_sees_eps(model, x_t, x0, told, t, eps, a):
    return (x0 - model(eps, t, told)).square().mean()


@wrong_prior("The roots are missing in x_t")
def prior_without_roots(model, x_t, x0, told, t, eps, a):
    return (x0 - model(a * x0 + (1 - a) * eps, t, told)).square().mean()


@wrong_prior("The factors of x_t are swapped")
def prior_with_swapped_factors(model, x_t, x0, told, t, eps, a):
    return (x0 - model(noised(eps, x0, a), t, told)).square().mean()


@wrong_prior("The factor of x0 in x_t is missing")
def prior_of_exploding_x_t(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x0 + (1 - a).sqrt() * eps, t, told)).square().mean()


@wrong_prior("The noise was subtracted in x_t")
def prior_with_noise_subtracted(model, x_t, x0, told, t, eps, a):
    return (x0 - model(noised(x0, -eps, a), t, told)).square().mean()


@wrong_prior("x0 was standardised once more")
def prior_standardised_again(model, x_t, x0, told, t, eps, a):
    z = x0 - x0.mean(0)
    z = z / (z.square().sum(0) / (len(z) - 1)).sqrt()
    return (z - model(noised(z, eps, a), t, told)).square().mean()


@wrong_prior("x0 was standardised once more. It comes standardised")
def prior_standardised_for_each(model, x_t, x0, told, t, eps, a):
    z = (x0 - x0.mean(1, keepdim=True)) / x0.std(1, keepdim=True)
    return (z - model(x_t, t, told)).square().mean()


@wrong_prior("The length of a difference is a root")
def prior_of_lengths(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t, told)).norm(dim=1).mean() / x0.shape[1]


@wrong_prior("The length of a difference is a root. What is averaged")
def prior_of_one_length(model, x_t, x0, told, t, eps, a):
    return torch.linalg.norm(x0 - model(x_t, t, told))


@wrong_prior("was not told the time")
def prior_without_time(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, 0 * t, told)).square().mean()


@wrong_prior("told the time of the first")
def prior_of_one_time(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t[0].repeat(len(t)), told)).square().mean()


@wrong_prior("t was divided by the number of times")
def prior_of_shares_of_time(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t / 40, told)).square().mean()


@wrong_prior("was given ᾱ in place of the time")
def prior_of_alpha_bar(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, a.squeeze(1), told)).square().mean()


@wrong_prior("was told t + 1")
def prior_of_the_next_time(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t + 1, told)).square().mean()


@wrong_prior("This is the sum over everything")
def prior_summed(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t, told)).square().sum()


@wrong_prior("take the mean over the width as well")
def prior_norms(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t, told)).norm(dim=1).square().mean()


@wrong_prior("One number for each sample is left")
def prior_for_each(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t, told)).square().mean(1)


@wrong_prior("Every element is left")
def prior_of_elements(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t, told)).square()


@wrong_prior("A mean was divided once more")
def prior_divided_twice(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t, told)).square().mean() / x0.shape[1]


@wrong_prior("This is half of the loss")
def half_of_the_prior(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t, told)).square().mean() / 2


@wrong_prior("the mean absolute error")
def prior_absolute(model, x_t, x0, told, t, eps, a):
    return F.l1_loss(model(x_t, t, told), x0)


@wrong_prior("A root was taken")
def root_of_the_prior(model, x_t, x0, told, t, eps, a):
    return F.mse_loss(model(x_t, t, told), x0).sqrt()


@wrong_prior("The mean was taken before the square")
def square_of_the_prior(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t, told)).mean() ** 2


@wrong_prior("This is the Huber loss")
def huber_of_the_prior(model, x_t, x0, told, t, eps, a):
    return F.smooth_l1_loss(model(x_t, t, told), x0)


@wrong_prior("was weighted by 1 - ᾱ")
def weighted_by_noise(model, x_t, x0, told, t, eps, a):
    return ((1 - a) * (x0 - model(x_t, t, told)).square()).mean()


@wrong_prior("was weighted by ᾱ.")
def weighted_by_signal(model, x_t, x0, told, t, eps, a):
    return (a * (x0 - model(x_t, t, told)).square()).mean()


@wrong_prior("was multiplied by ᾱ / (1 - ᾱ)")
def prior_as_noise(model, x_t, x0, told, t, eps, a):
    return ((x_t - a.sqrt() * model(x_t, t, told)) / (1 - a).sqrt() - eps).square().mean()


@wrong_prior("was multiplied by ᾱ / (1 - ᾱ): by a weight, or because")
def weighted_by_both(model, x_t, x0, told, t, eps, a):
    return (a / (1 - a) * F.mse_loss(model(x_t, t, told), x0, reduction="none")).mean()


@wrong_prior("as if v were compared")
def prior_as_v(model, x_t, x0, told, t, eps, a):
    v_hat = (a.sqrt() * x_t - model(x_t, t, told)) / (1 - a).sqrt()
    return (v_hat - a.sqrt() * eps + (1 - a).sqrt() * x0).square().mean()


@wrong_prior("x0 is standardised here")
def prior_of_unit_vectors(model, x_t, x0, told, t, eps, a):
    return (x0 - F.normalize(model(x_t, t, told), dim=1)).square().mean()


@wrong_prior("1 minus the cosine")
def prior_by_cosine(model, x_t, x0, told, t, eps, a):
    return 1 - F.cosine_similarity(model(x_t, t, told), x0).mean()


@wrong_prior("the model was never called")
def prior_not_called(model, x_t, x0, told, t, eps, a):
    return (x0 - x_t).square().mean() * model.weight


@wrong_prior("has no way back")
def prior_cut(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t, told).detach()).square().mean()


@wrong_prior("the gradient with respect to model.weight is not")
def half_of_the_prior_cut(model, x_t, x0, told, t, eps, a):
    x0_hat = model(x_t, t, told)
    return (x0 - (x0_hat + x0_hat.detach()) / 2).square().mean()


@wrong_prior("its time and the caption: model(x_t, t, cond)", state="error")
def prior_without_caption(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t)).square().mean()


@wrong_prior("one time for each sample", state="error")
def caption_before_time(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, told, t)).square().mean()


@wrong_prior("not an object that holds it")
def prior_of_diffusers(model, x_t, x0, told, t, eps, a):
    return (x0 - model(x_t, t, told).predicted_image_embedding).square().mean()


@wrong_drop("No caption was dropped")
def none_dropped(cond, null, uniforms, share):
    return cond


@wrong_drop("was always told `null`")
def all_dropped(cond, null, uniforms, share):
    return null.expand_as(cond)


@wrong_drop("The wrong captions were dropped")
def wrong_way_dropped(cond, null, uniforms, share):
    return torch.where((uniforms > share)[:, None, None], null, cond)


@wrong_drop("A caption with u = share was dropped")
def dropped_at_the_share(cond, null, uniforms, share):
    return replaced(cond, null, uniforms <= share)


@wrong_drop("One uniform number decided")
def dropped_together(cond, null, uniforms, share):
    return null.expand_as(cond) if uniforms[0] < share else cond


@wrong_drop("0.1 is written into the function")
def dropped_in_a_tenth(cond, null, uniforms, share):
    return replaced(cond, null, uniforms < 0.1)


@wrong_drop("The first captions of the batch were dropped")
def first_ones_dropped(cond, null, uniforms, share):
    told = cond.clone()
    told[: round(share * len(told))] = null
    return told


@wrong_drop("The first captions of the batch were dropped, as many as")
def first_ones_dropped_rounded_down(cond, null, uniforms, share):
    return replaced(cond, null, torch.arange(len(cond)) < int(share * len(cond)))


@wrong_drop("were mixed with `null`")
def mixed_with_null(cond, null, uniforms, share):
    return torch.lerp(cond, null.expand_as(cond), share)


@wrong_drop("drop_prompts(cond, null, uniforms, share)")
def null_and_cond_exchanged(cond, null, uniforms, share):
    return drop_prompts(null, cond, uniforms, share)


@wrong_drop("Dropped captions became zeros")
def dropped_to_zeros(cond, null, uniforms, share):
    return cond * (uniforms >= share)[:, None, None]


@wrong_drop("Only the text embedding was dropped")
def only_the_embedding_dropped(cond, null, uniforms, share):
    return torch.cat([cond[:, :-1], replaced(cond, null, uniforms < share)[:, -1:]], 1)


@wrong_drop("Only the word states were dropped")
def only_the_words_dropped(cond, null, uniforms, share):
    return torch.cat([replaced(cond, null, uniforms < share)[:, :-1], cond[:, -1:]], 1)


@wrong_drop("one caption for each sample", state="error")
def null_as_it_is(cond, null, uniforms, share):
    return null if (uniforms < share).any() else cond


@wrong_drop("(batch, 1, 1) beside cond")
def too_few_axes(cond, null, uniforms, share):
    return torch.where(uniforms < share, null, cond)


@wrong_drop("`if` asks one question")
def by_an_if(cond, null, uniforms, share):
    return null if uniforms < share else cond


@wrong_drop("the input cond was changed in place")
def dropped_in_place(cond, null, uniforms, share):
    cond.data[uniforms < share] = null.detach()
    return cond


@mutant(PRIOR, "or predictions, were mixed with `null`")
def prior_guided(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x_t = add_noise(x0, eps, t, alpha_bar)
    without, told = model(x_t, t, null.expand_as(cond)), model(x_t, t, cond)
    return F.mse_loss(without + share * (told - without), x0)


@mutant(PRIOR, "x0 was dropped together with the caption")
def embedding_dropped(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x0 = torch.where((uniforms < share)[:, None], 0, x0)
    return F.mse_loss(model(add_noise(x0, eps, t, alpha_bar), t, drop_prompts(cond, null, uniforms, share)), x0)


@mutant(PRIOR, "x0 was dropped together with the caption. Only")
def embedding_dropped_in_the_input(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x_t = add_noise(x0 * (uniforms >= share)[:, None], eps, t, alpha_bar)
    return F.mse_loss(model(x_t, t, drop_prompts(cond, null, uniforms, share)), x0)


@mutant(PRIOR, "The time was dropped together with the caption")
def time_dropped(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x_t, told = add_noise(x0, eps, t, alpha_bar), drop_prompts(cond, null, uniforms, share)
    return F.mse_loss(model(x_t, t * (uniforms >= share), told), x0)


@mutant(PRIOR, "were left out of the mean")
def samples_dropped(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    each = (model(add_noise(x0, eps, t, alpha_bar), t, cond) - x0).square().mean(1)
    return each[uniforms >= share].mean()


@mutant(PRIOR, "was read at t - 1")
def prior_of_the_time_before(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x_t = noised(x0, eps, alpha_bar[t - 1][:, None])
    return F.mse_loss(model(x_t, t, drop_prompts(cond, null, uniforms, share)), x0)


@mutant(PRIOR, "noised to the time of the first")
def noised_to_one_time(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x_t = noised(x0, eps, alpha_bar[t[0]])
    return F.mse_loss(model(x_t, t, drop_prompts(cond, null, uniforms, share)), x0)


@mutant(PRIOR, "the table of the package's prior")
def prior_of_its_own_table(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x_t = add_noise(x0, eps, t, prior_alpha_bar())
    return F.mse_loss(model(x_t, t, drop_prompts(cond, null, uniforms, share)), x0)


@variant(PRIOR)
def prior_by_hand(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x_t = noised(x0, eps, alpha_bar[t].unsqueeze(1))
    kept = (uniforms >= share).float().view(-1, 1, 1)
    return torch.mean((model(x_t, t, kept * cond + (1 - kept) * null) - x0) ** 2)


@variant(PRIOR)
def prior_without_gradients_of_inputs(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    with torch.no_grad():
        x_t, told = add_noise(x0, eps, t, alpha_bar), cond.clone()
        told[uniforms < share] = null[0]
    return F.mse_loss(model(x_t, t, told), x0)


@variant(PRIOR)
def prior_sample_by_sample(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    total = 0
    for n in range(len(x0)):
        a = alpha_bar[t[n]]
        x_t = math.sqrt(a) * x0[n : n + 1] + math.sqrt(1 - a) * eps[n : n + 1]
        x0_hat = model(x_t, t[n : n + 1], null if uniforms[n].item() < share else cond[n : n + 1])
        total = total + (x0_hat[0] - x0[n]).square().sum()
    return total / x0.numel()


@variant(PRIOR)
def prior_by_two_calls(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x_t = add_noise(x0, eps, t, alpha_bar)
    x0_hat = torch.where((uniforms < share)[:, None], model(x_t, t, null.expand_as(cond)), model(x_t, t, cond))
    return (x0 - x0_hat).pow(2).mean(1).mean()


# The better of two


@mutant(BETTER, "These are the less similar ones")
def the_worse(first, second, text):
    return torch.where((first * text).sum(1, keepdim=True) <= (second * text).sum(1, keepdim=True), first, second)


@mutant(BETTER, "sum over the width only")
def one_for_all(first, second, text):
    return first.clone() if (first * text).sum() >= (second * text).sum() else second.clone()


@mutant(BETTER, ".any() and .all() make one choice")
def if_any_is_closer(first, second, text):
    return (first if ((first * text).sum(1) > (second * text).sum(1)).any() else second) + 0


@mutant(BETTER, ".any() and .all() make one choice of the choices")
def if_all_are_closer(first, second, text):
    return (first if ((first * text).sum(1) > (second * text).sum(1)).all() else second) + 0


@mutant(BETTER, "The first row decided for the whole batch")
def by_the_first_row(first, second, text):
    return (first if first[0] @ text[0] > second[0] @ text[0] else second) + 0


@mutant(BETTER, "`if`, `and` and max() ask one question")
def by_an_if_of_rows(first, second, text):
    return first if (first * text).sum(1) > (second * text).sum(1) else second


@mutant(BETTER, "There is one comparison for each row")
def by_items(first, second, text):
    return first if (first @ text.T).item() > (second @ text.T).item() else second


@mutant(BETTER, "There is one comparison for each row, and")
def by_floats(first, second, text):
    return first if float((first * text).sum(1)) > float((second * text).sum(1)) else second


@mutant(BETTER, "The number of the row is missing")
def stack_without_rows(first, second, text):
    both = torch.stack([first, second])
    return both[(both * text).sum(2).argmax(0)]


@mutant(BETTER, "The number of the row is missing beside")
def second_axis_without_rows(first, second, text):
    both = torch.stack([first, second], 1)
    return both[:, (both * text[:, None]).sum(2).argmax(1)]


@mutant(BETTER, "The number of the row is missing beside the choice")
def rows_chosen_by_the_choice(first, second, text):
    both = torch.stack([first, second], 1)
    return both[(both * text[:, None]).sum(2).argmax(1)]


@mutant(BETTER, "True and False choose among rows")
def stack_with_a_mask(first, second, text):
    return torch.stack([first, second])[(first * text).sum(1) < (second * text).sum(1)]


@mutant(BETTER, "The rows lost their order")
def first_ones_first(first, second, text):
    m = (first * text).sum(1) > (second * text).sum(1)
    return torch.cat([first[m], second[~m]])


@mutant(BETTER, "Only the rows where the first is better are left")
def chosen_of_the_first(first, second, text):
    return first[(first * text).sum(1) > (second * text).sum(1)]


@mutant(BETTER, "Both were multiplied by one mask")
def one_mask_for_both(first, second, text):
    m = ((first * text).sum(1, keepdim=True) > (second * text).sum(1, keepdim=True)).float()
    return m * first + m * second


@mutant(BETTER, "was compared with 0")
def if_positive(first, second, text):
    return torch.where((first * text).sum(1, keepdim=True) > 0, first, second)


@mutant(BETTER, "The mean or sum of all captions decided")
def by_the_mean_caption(first, second, text):
    return torch.where((first @ text.mean(0) > second @ text.mean(0))[:, None], first, second)


@mutant(BETTER, "The mean or sum of all captions decided, as in")
def by_sums_of_the_matrix(first, second, text):
    return torch.where(((first @ text.T).sum(1) > (second @ text.T).sum(1))[:, None], first, second)


@mutant(BETTER, "The best of all samples of the batch")
def best_of_all_samples(first, second, text):
    samples = torch.cat([first, second])
    return samples[(text @ samples.T).argmax(1)]


@mutant(BETTER, "The largest of the products decided")
def by_the_largest_product(first, second, text):
    return torch.where(((first * text).amax(1) > (second * text).amax(1))[:, None], first, second)


@mutant(BETTER, "(first @ text.T would be every sample with every caption.)")
def matrix_as_a_condition(first, second, text):
    return torch.where(first @ text.T > second @ text.T, first, second)


@mutant(BETTER, "The samples were multiplied with each other")
def with_each_other(first, second, text):
    return torch.where((first * text).sum(1, keepdim=True) >= (first * second).sum(1, keepdim=True), first, second)


@mutant(BETTER, "This is a mean of the two")
def their_mean(first, second, text):
    return F.normalize(first + second, dim=1)


@mutant(BETTER, "This is which of the two is better")
def their_index(first, second, text):
    return torch.stack([(first * text).sum(1), (second * text).sum(1)]).argmax(0)


@mutant(BETTER, "This tells where the first is better")
def the_comparison(first, second, text):
    return (first * text).sum(1) > (second * text).sum(1)


@mutant(BETTER, "These are the dot products. They")
def their_similarities(first, second, text):
    return torch.maximum((first * text).sum(1), (second * text).sum(1))


@mutant(BETTER, "These are the dot products of both")
def both_similarities(first, second, text):
    return torch.stack([(first * text).sum(1), (second * text).sum(1)], 1)


@mutant(BETTER, "each column was chosen as a whole")
def column_by_column(first, second, text):
    return torch.where((first * text).sum(0) >= (second * text).sum(0), first, second)


@mutant(BETTER, "each column was chosen as a whole. Sum")
def cosines_of_columns(first, second, text):
    is_first = F.cosine_similarity(first, text, dim=0) > F.cosine_similarity(second, text, dim=0)
    return torch.where(is_first, first, second)


@mutant(BETTER, "Each number was chosen for itself")
def number_by_number(first, second, text):
    return torch.where(first * text >= second * text, first, second)


@mutant(BETTER, "This is the maximum of each number")
def maximum_of_both(first, second, text):
    return torch.maximum(first, second)


@mutant(BETTER, "The first was always taken")
def always_the_first(first, second, text):
    return first.clone()


@mutant(BETTER, "The second was always taken")
def always_the_second(first, second, text):
    return second.clone()


@mutant(BETTER, "compared with all captions")
def with_all_captions(first, second, text):
    is_first = (first @ text.T).max(1).values >= (second @ text.T).max(1).values
    return torch.where(is_first[:, None], first, second)


@mutant(BETTER, "The sign of the dot product was dropped")
def without_the_sign(first, second, text):
    is_first = (first * text).sum(1, keepdim=True).abs() >= (second * text).sum(1, keepdim=True).abs()
    return torch.where(is_first, first, second)


@mutant(BETTER, "The absolute differences were added up")
def by_absolute_differences(first, second, text):
    is_first = (first - text).abs().sum(1, keepdim=True) <= (second - text).abs().sum(1, keepdim=True)
    return torch.where(is_first, first, second)


@mutant(BETTER, "The embedding was multiplied by its similarity")
def times_similarity(first, second, text):
    return next_to(first, second, text) * (next_to(first, second, text) * text).sum(1, keepdim=True)


@mutant(BETTER, "with the weights of a softmax")
def by_softmax(first, second, text):
    weights = torch.stack([(first * text).sum(1), (second * text).sum(1)], 1).softmax(1)
    return weights[:, :1] * first + weights[:, 1:] * second


@mutant(BETTER, "keepdim=True in the sum, or [:, None]. (first @ text.T would be every sample with every caption.)")
def choice_without_an_axis(first, second, text):
    return torch.where((first * text).sum(1) >= (second * text).sum(1), first, second)


@mutant(BETTER, "the input first was changed in place")
def into_the_first(first, second, text):
    is_second = (first * text).sum(1) < (second * text).sum(1)
    first[is_second] = second[is_second]
    return first


@variant(BETTER)
def next_to(first, second, text):
    closer = torch.linalg.norm(first - text, dim=1) < torch.linalg.norm(second - text, dim=1)
    return torch.where(closer.unsqueeze(1), first, second)


@variant(BETTER)
def by_argmax(first, second, text):
    both = torch.stack([first, second])
    best = torch.einsum("sbw,bw->sb", both, text).argmax(0)
    return both[best, torch.arange(len(text))]


@variant(BETTER)
def caption_by_caption(first, second, text):
    return torch.stack(
        [max((a, b), key=lambda z, y=y: (z @ y).item()) for a, b, y in zip(first, second, text, strict=True)]
    )


@variant(BETTER)
def second_on_ties(first, second, text):
    takes_first = (F.cosine_similarity(first, text) > F.cosine_similarity(second, text)).float()[:, None]
    return takes_first * first + (1 - takes_first) * second


@variant(BETTER)
def into_a_copy(first, second, text):
    better = first.clone()
    is_second = ((second - first) * text).sum(1) > 0
    better[is_second] = second[is_second]
    return better


# The text diff


def unit(x):
    return F.normalize(x, dim=1)


def as_column(share):
    return torch.as_tensor(share).reshape(-1, 1)


def arc(e, d, s, w=None):
    w = (e * d).sum(1, keepdim=True).clamp(-1, 1).acos() if w is None else w
    return (((1 - s) * w).sin() * e + (s * w).sin() * d) / w.sin()


def wrong_diff(words, state="fail"):
    """Note a wrong text diff: a function of (e, d, s, before, after), s (1, 1) or (n, 1)."""

    def note(function):
        def attempt(embedding, text_before, text_after, share):
            before, after = text_before.expand_as(embedding), text_after.expand_as(embedding)
            return function(embedding, unit(after - before), as_column(share), before, after)

        attempt.__name__ = function.__name__
        mutant(DIFF, words, state)(attempt)
        return function

    return note


@mutant(DIFF, "was not divided by its length")
def not_a_unit_vector(embedding, text_before, text_after, share):
    return unit(slerp(embedding, (text_after - text_before).expand_as(embedding), share))


@wrong_diff("The difference is the wrong way round")
def before_minus_after(e, d, s, before, after):
    return slerp(e, unit(before - after), s.flatten())


@mutant(DIFF, "The difference was divided by the lengths of its columns")
def normalised_columns(embedding, text_before, text_after, share):
    return unit(slerp(embedding, F.normalize(text_after - text_before, dim=0).expand_as(embedding), share))


@wrong_diff("The difference was divided by the lengths of its columns. Each row")
def normalised_columns_of_all(e, d, s, before, after):
    return slerp(e, F.normalize(after - before, dim=0), s.flatten())


@wrong_diff("All differences were divided by one length. Each row")
def one_length_of_all(e, d, s, before, after):
    return unit(slerp(e, (after - before) / (after - before).norm(), s.flatten()))


@wrong_diff("was divided by its squared length")
def divided_by_the_square(e, d, s, before, after):
    return unit(slerp(e, (after - before) / (after - before).square().sum(1, keepdim=True), s.flatten()))


@wrong_diff("by the sum of its absolute numbers")
def divided_by_absolute_numbers(e, d, s, before, after):
    return slerp(e, F.normalize(after - before, p=1, dim=1), s.flatten())


@wrong_diff("The captions were added")
def sum_of_captions(e, d, s, before, after):
    return slerp(e, unit(after + before), s.flatten())


@wrong_diff("The image embedding was subtracted")
def away_from_the_embedding(e, d, s, before, after):
    return slerp(e, unit(after - e), s.flatten())


@wrong_diff("turned by the first captions")
def by_the_first_captions(e, d, s, before, after):
    return slerp(e, d[:1].expand_as(e), s.flatten())


@wrong_diff("turned by the mean of the differences")
def by_the_mean_difference(e, d, s, before, after):
    return slerp(e, unit((after - before).mean(0, keepdim=True)).expand_as(e), s.flatten())


@wrong_diff("This starts at the old caption")
def from_the_old_caption(e, d, s, before, after):
    return slerp(before, d, s.flatten())


@wrong_diff("got the mean of the shares")
def mean_share(e, d, s, before, after):
    return slerp(e, d, s.mean())


@wrong_diff("The share was limited")
def limited_share(e, d, s, before, after):
    return slerp(e, d, s.flatten().clamp(0.25, 0.5))


@wrong_diff("One angle Ω was taken for all")
def one_angle(e, d, s, before, after):
    return unit(arc(e, d, s, F.cosine_similarity(e.flatten(), d.flatten(), dim=0).acos()))


@wrong_diff("One angle Ω was taken for all embeddings")
def mean_angle(e, d, s, before, after):
    return arc(e, d, s, (e * d).sum(1).acos().mean())


@wrong_diff("The angle Ω was taken with the first d_text")
def angle_with_the_first(e, d, s, before, after):
    return arc(e, d, s, (e @ d.T).acos()[:, :1])


@wrong_diff("The cosine was used as the angle")
def cosine_as_the_angle(e, d, s, before, after):
    return unit(arc(e, d, s, (e * d).sum(1, keepdim=True)))


@wrong_diff("The angle was found by asin")
def angle_by_asin(e, d, s, before, after):
    return arc(e, d, s, (e * d).sum(1, keepdim=True).asin())


@wrong_diff("Negative cosines were made positive")
def cosine_without_its_sign(e, d, s, before, after):
    return unit(arc(e, d, s, (e * d).sum(1, keepdim=True).abs().acos()))


@wrong_diff("Negative cosines were made positive, or 0")
def cosine_from_zero(e, d, s, before, after):
    return arc(e, d, s, (e * d).sum(1, keepdim=True).clamp(0, 1).acos())


@wrong_diff("by a share of a right angle")
def share_of_a_right_angle(e, d, s, before, after):
    w = s * math.pi / 2
    return w.cos() * e + w.sin() * unit(d - (d * e).sum(1, keepdim=True) * e)


@wrong_diff("At the end the columns")
def columns_at_the_end(e, d, s, before, after):
    return F.normalize(slerp(e, d, s.flatten()), dim=0)


@wrong_diff("At the end all was divided by one length")
def one_length_at_the_end(e, d, s, before, after):
    turned = slerp(e, d, s.flatten())
    return turned / turned.norm()


@mutant(DIFF, "All differences were divided by one length")
def one_length(embedding, text_before, text_after, share):
    difference = text_after - text_before
    return slerp(embedding, (difference / difference.norm()).expand_as(embedding), share)


@wrong_diff("This goes from d_text to the embedding")
def from_d_to_e(e, d, s, before, after):
    return slerp(d, e, s.flatten())


@wrong_diff("towards the new caption as a whole")
def towards_the_caption(e, d, s, before, after):
    return slerp(e, after, s.flatten())


@wrong_diff("towards the sum of embedding and difference")
def towards_the_sum(e, d, s, before, after):
    return slerp(e, unit(e + after - before), s.flatten())


@wrong_diff("from one caption to the other")
def between_captions(e, d, s, before, after):
    return slerp(before, after, s.flatten())


@wrong_diff("It was turned by `share` radians")
def by_radians(e, d, s, before, after):
    return s.cos() * e + s.sin() * unit(d - (d * e).sum(1, keepdim=True) * e)


@wrong_diff("All embeddings got the share of the first")
def share_of_the_first(e, d, s, before, after):
    return slerp(e, d, s[0].item())


@wrong_diff("The angle here is that between the two captions")
def angle_of_the_captions(e, d, s, before, after):
    return arc(e, d, s, (before * after).sum(1, keepdim=True).acos())


@wrong_diff("This is on the straight line")
def straight_line(e, d, s, before, after):
    return torch.lerp(e, d, s)


@wrong_diff("Its steps are no equal angles")
def straight_line_of_length_1(e, d, s, before, after):
    return unit((1 - s) * e + s * d)


@wrong_diff("which makes it longer or shorter")
def added_to_it(e, d, s, before, after):
    return e + s * (after - before)


@wrong_diff("The difference was added, and the sum")
def added_and_normalised(e, d, s, before, after):
    return unit(e + s * d)


@wrong_diff("as noises nearly are")
def as_for_noises(e, d, s, before, after):
    return unit((1 - s).sqrt() * e + s.sqrt() * d)


@wrong_diff("subtract from d_text its part along the embedding")
def not_at_right_angles(e, d, s, before, after):
    w = (e * d).sum(1, keepdim=True).acos()
    return (s * w).cos() * e + (s * w).sin() * d


@wrong_diff("The division by sin Ω is missing")
def without_the_sine(e, d, s, before, after):
    w = (e * d).sum(1, keepdim=True).acos()
    return ((1 - s) * w).sin() * e + (s * w).sin() * d


@wrong_diff("The embedding came back as it was")
def as_it_was(e, d, s, before, after):
    return e.clone()


@wrong_diff("This is d_text alone")
def only_the_difference(e, d, s, before, after):
    return d


@mutant(DIFF, "slerp wants as many")
def caption_not_expanded(embedding, text_before, text_after, share):
    return slerp(embedding, F.normalize(text_after - text_before, dim=1), share)


@wrong_diff("One share for each embedding needs an axis more")
def share_without_an_axis(e, d, s, before, after):
    return arc(e, d, s.flatten())


@mutant(DIFF, "This goes from one caption to the other. It starts")
def between_single_captions(embedding, text_before, text_after, share):
    return arc(text_before, text_after, as_column(share))


@mutant(DIFF, "The arc starts at a caption here")
def between_captions_by_slerp(embedding, text_before, text_after, share):
    return slerp(text_before, text_after, share)


@mutant(DIFF, "The arc starts at a caption here, which is one row")
def movement_of_the_caption(embedding, text_before, text_after, share):
    return unit(embedding + slerp(text_before, text_after, share) - text_before)


@mutant(DIFF, "This is d_text alone, as with")
def only_one_difference(embedding, text_before, text_after, share):
    return unit(text_after - text_before)


@mutant(DIFF, "zip ends with the shortest")
def zipped(embedding, text_before, text_after, share):
    shares = torch.as_tensor(share).expand(len(embedding))
    rows = zip(embedding, text_before, text_after, shares, strict=False)
    return torch.stack([slerp(e[None], unit((y - x)[None]), s)[0] for e, x, y, s in rows])


@mutant(DIFF, "Before a loop: text_after.expand_as(embedding)")
def captions_by_number(embedding, text_before, text_after, share):
    d = [unit((text_after[n] - text_before[n])[None])[0] for n in range(len(embedding))]
    return slerp(embedding, torch.stack(d), share)


@mutant(DIFF, "the lengths of the differences need an axis more")
def lengths_without_an_axis(embedding, text_before, text_after, share):
    d = text_after - text_before
    return slerp(embedding, (d / d.norm(dim=1)).expand_as(embedding), share)


@mutant(DIFF, "the lengths of the differences need an axis more: norm(dim=1, keepdim=True). And an angle")
def all_angles(embedding, text_before, text_after, share):
    d = unit(text_after - text_before)
    return arc(embedding, d, as_column(share), (embedding @ d.T).acos())


@mutant(DIFF, "One number for each embedding, its length or its angle")
def angles_without_an_axis(embedding, text_before, text_after, share):
    d = unit(text_after - text_before)
    return arc(embedding, d, as_column(share), (embedding * d).sum(1).acos())


@mutant(DIFF, "makes n x n rows")
def repeated_for_each(embedding, text_before, text_after, share):
    return slerp(embedding, unit(text_after - text_before).repeat(len(embedding), 1), share)


@mutant(DIFF, ".repeat(n, 1) makes n x n rows")
def repeated_in_an_arc(embedding, text_before, text_after, share):
    d = unit(text_after - text_before).repeat(len(embedding), 1)
    return arc(embedding, d, as_column(share))


@mutant(DIFF, "share may have a number for each embedding")
def share_as_a_float(embedding, text_before, text_after, share):
    return slerp(embedding, unit(text_after - text_before).expand_as(embedding), float(share))


@mutant(DIFF, "share may have a number for each embedding; float()")
def share_compared(embedding, text_before, text_after, share):
    if share == 0:
        return embedding + 0
    return slerp(embedding, unit(text_after - text_before).expand_as(embedding), share)


@mutant(DIFF, "Each embedding has an angle of its own")
def angle_by_math(embedding, text_before, text_after, share):
    d = unit(text_after - text_before)
    return arc(embedding, d, as_column(share), math.acos((embedding * d).sum(1)))


@mutant(DIFF, "a number, or shape (n,).")
def share_with_an_axis(embedding, text_before, text_after, share):
    return slerp(embedding, unit(text_after - text_before).expand_as(embedding), torch.as_tensor(share)[..., None])


@mutant(DIFF, "share may be a plain number")
def share_by_number(embedding, text_before, text_after, share):
    d = unit(text_after - text_before).expand_as(embedding)
    return torch.cat([slerp(embedding[n : n + 1], d[n : n + 1], share[n]) for n in range(len(d))])


@mutant(DIFF, "share may be a plain number. `slerp` takes share as it is. By")
def share_unsqueezed(embedding, text_before, text_after, share):
    d = unit(text_after - text_before).expand_as(embedding)
    return arc(embedding, d, torch.as_tensor(share).unsqueeze(1))


@mutant(DIFF, "share may be a plain number. `slerp` takes share as it is")
def share_indexed(embedding, text_before, text_after, share):
    return arc(embedding, unit(text_after - text_before).expand_as(embedding), share[:, None])


@mutant(DIFF, "the input embedding was changed in place")
def turned_in_place(embedding, text_before, text_after, share):
    embedding += as_column(share) * (text_after - text_before)
    return unit(embedding)


@variant(DIFF)
def by_sines(embedding, text_before, text_after, share):
    d = text_after - text_before
    d = d / d.norm(dim=1, keepdim=True)
    return arc(embedding, d, as_column(share))


@variant(DIFF)
def by_rotation(embedding, text_before, text_after, share):
    d = unit(text_after - text_before)
    along = (embedding * d).sum(1, keepdim=True)
    across = d - along * embedding
    w = torch.atan2(across.norm(dim=1, keepdim=True), along)
    s = as_column(share)
    return (s * w).cos() * embedding + (s * w).sin() * unit(across)


@variant(DIFF)
def one_by_one(embedding, text_before, text_after, share):
    shares = torch.as_tensor(share).expand(len(embedding)).tolist()
    turned = []
    for n, (e, s) in enumerate(zip(embedding, shares, strict=True)):
        row = n if len(text_after) > 1 else 0
        d = text_after[row] - text_before[row]
        d = d / d.square().sum().sqrt()
        w = math.acos((e @ d).item())
        turned.append(math.sin((1 - s) * w) * e + math.sin(s * w) * d)
    return unit(torch.stack(turned))


@variant(DIFF)
def in_double_precision(embedding, text_before, text_after, share):
    e, d = embedding.double(), F.normalize(text_after.double() - text_before.double(), dim=-1)
    w = 2 * torch.asin((e - d).norm(dim=1, keepdim=True) / 2)
    return arc(e, d, torch.as_tensor(share, dtype=torch.float64).reshape(-1, 1), w).to(embedding.dtype)
