"""Legal inputs of chapter 13."""

import torch
from legal import drive, legal

from course_utils.exercises.mistakes_13 import Guesser, diff_inputs, two_samples


@legal("13.nearest_code")
def nearest_code(case):
    for n, d, K in ((1, 1, 1), (7, 3, 2), (2, 3, 7), (5, 4, 5)):
        yield case.normal(n, d), 2 * case.normal(K, d)


@drive("13.straight_through")
def straight_through(answer, case):
    found = []
    for shape in ((3,), (2, 4), (2, 3, 2, 2)):
        z, slope = case.normal(*shape).requires_grad_(), case.normal(*shape)
        out = answer(z, z.detach().round())
        (out * slope).sum().backward()
        found += [out, z.grad]
    return found


@legal("13.update_codebook")
def update_codebook(case):
    for K, d, n, decay, least in ((1, 1, 1, 0.9, 0.03), (4, 3, 9, 0.99, 0.0), (3, 2, 5, 0.0, 0.5), (5, 5, 5, 0.7, 1.0)):
        counts, codes = case.uniform(0.1, 2, K), case.whole(0, K - 1, n)
        yield counts, case.normal(K, d), case.normal(n, d), codes, case.normal(K, d), decay, least


@drive("13.fsq")
def fsq(answer, case):
    found = []
    for levels in ((3,), (4, 7), (8, 5, 5, 5)):
        z = (2 * case.normal(20, len(levels))).requires_grad_()
        numbers, codes = answer(z, torch.tensor(levels))
        (numbers * case.normal(20, len(levels))).sum().backward()
        found += [numbers, codes, z.grad]
    return found


@drive("13.dalle_loss")
def dalle_loss(answer, case):
    found = []
    for batch, length, words, places, codes in ((1, 2, 3, 1, 2), (3, 5, 7, 4, 6)):
        text_logits, code_logits = case.normal(batch, length - 1, words), case.normal(batch, places, codes)
        text, drawn = case.whole(0, words - 1, batch, length), case.whole(0, codes - 1, batch, places)
        for share in (0.0, 1 / 8, 1.0):
            a, b = text_logits.clone().requires_grad_(), code_logits.clone().requires_grad_()
            loss = answer(a, b, text, drawn, share)
            loss.backward()
            found += [loss, a.grad, b.grad]
        found.append(answer(text_logits, code_logits, text, drawn))
    return found


@legal("13.cached_attention")
def cached_attention(case):
    for batch, heads, past, new, d in ((1, 1, 0, 1, 1), (2, 3, 0, 4, 2), (2, 1, 5, 1, 4), (1, 2, 2, 3, 2)):
        cache = (case.normal(batch, heads, past, d), case.normal(batch, heads, past, d)) if past else None
        yield *(case.normal(batch, heads, new, d) for _ in range(3)), cache


@legal("13.filter_logits")
def filter_logits(case):
    for shape in ((6,), (3, 8), (2, 2, 5)):
        for top_k, top_p in ((None, None), (1, None), (3, 0.5), (None, 0.9), (50, 1.0), (4, 0.01)):
            yield 2 * case.normal(*shape), top_k, top_p


@drive("13.prior_loss")
def prior_loss(answer, case):
    found = []
    for batch, length, width, share in ((1, 1, 2, 0.0), (5, 3, 4, 0.5), (3, 2, 3, 1.0), (1, 2, 5, 0.3)):
        model, table = Guesser(case, length, width), (1 - case.uniform(0.02, 0.12, 30)).cumprod(0)
        x0, eps, t = case.normal(batch, width), case.normal(batch, width), case.whole(0, 29, batch)
        cond, null = case.normal(batch, length + 1, width), case.normal(1, length + 1, width)
        uniforms = case.uniform(0, 1, batch)
        if share < 1:
            uniforms[0] = share
        loss = answer(model, x0, cond, null, t, eps, uniforms, table, share)
        loss.backward()
        found += [loss.detach(), model.weight.grad]
    return found


@legal("13.better_of_two")
def better_of_two(case):
    for batch, width in ((1, 2), (4, 4), (30, 5), (3, 64)):
        yield two_samples(case, batch, width)


@legal("13.text_diff")
def text_diff(case):
    for n, width, rows in ((1, 3, 1), (4, 4, 1), (4, 7, 4)):
        for share in (0.0, 0.3, 1.0, case.uniform(0, 1, n), torch.ones(n)):
            yield *diff_inputs(case, n, width, rows), share
