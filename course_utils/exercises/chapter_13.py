"""The exercises of chapter 13: images as whole numbers, a transformer that writes them, and the prior of unCLIP."""

import torch

from course_utils.exercises.mistakes_12 import explained
from course_utils.exercises.mistakes_13 import (
    BETTER_REASONS,
    Guesser,
    better_mistakes,
    cache_mistakes,
    close_in_each,
    code_mistakes,
    codebook_mistakes,
    diff_inputs,
    diff_mistakes,
    diff_reasons,
    filter_mistakes,
    fsq_mistakes,
    loss_mistakes,
    pass_mistakes,
    prior_mistakes,
    reasons_given,
    require_bound_gradient,
    require_passed,
    two_samples,
)
from course_utils.exercises.oracles import require
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import asked, broadcasting_explained, called_as, close_in_all
from course_utils.models import prior, tokens_to_pixels, vq
from course_utils.pipelines import unclip
from course_utils.recipes import prior as prior_recipe

TITLE = "DALL·E and DALL·E 2 in miniature"


@exercise(
    "13.nearest_code", vq.nearest_code, difficulty=1, minutes=8,
    hints=[
        "For each row of z and each code one number is needed: a table of squared distances, (n, J).",
        "z[:, None] - codebook is (n, J, d): square it and sum over the last axis. Or expand the square: "
        "|z|² - 2 z·e + |e|², where z @ codebook.T has all the products.",
        "argmin over the axis of the codes gives their numbers.",
    ],
)  # fmt: skip
def nearest_code(learner, case):
    """Find the code that is nearest to each vector."""
    settings = []
    for n, d, K in ((60, 3, 7), (1, 2, 4), (9, 4, 9), (30, 1, 5), (5, 6, 1), (40, 3, 12)):
        z, codebook = case.normal(n, d), case.normal(K, d) * case.uniform(0.3, 2.5, K, 1)
        z = z + 1.5 if n == 40 else z
        right = torch.tensor([min(range(K), key=lambda k, i=i: (z[i] - codebook[k]).square().sum()) for i in range(n)])
        with broadcasting_explained("To pair each row with each code an axis is needed: z[:, None] - codebook."):
            got = learner(z, codebook)
        what = f"of {n} vectors and {K} codes, the code"
        settings.append((got, right, code_mistakes(z, codebook), what, learner.called))
    close_in_all(settings)


@exercise(
    "13.straight_through", vq.straight_through, difficulty=2, minutes=8,
    hints=[
        "z + (z_q - z) has the value of z_q.",
        "Its derivative with respect to z is 1, if the bracket counts as a constant.",
        "x.detach() is x as a constant.",
    ],
)  # fmt: skip
def straight_through(learner, case):
    """Return the quantised vectors with the gradient of the vectors themselves."""
    settings, passed = [], []
    for shape in ((4, 3), (2, 3, 4, 5), (1,), (6, 6)):
        z, z_q, slope = case.normal(*shape), case.normal(*shape), case.normal(*shape)
        z.requires_grad_()
        z_q.requires_grad_()
        got = learner(z, z_q)
        settings.append((got, z_q, pass_mistakes(z, z_q), "the value", learner.called))
        passed.append((got, z, z_q, slope))
    close_in_all(settings)
    for (*_, called), facts in zip(settings, passed, strict=True):
        with called_as(called):
            require_passed(*facts)


@exercise(
    "13.update_codebook", vq.update_codebook, difficulty=3, minutes=20,
    hints=[
        "torch.bincount(codes, minlength=len(counts)) counts how often each code was chosen.",
        "torch.zeros_like(sums).index_add(0, codes, z) adds each row of z to the row of its code.",
        "decay * old + (1 - decay) * new, for counts and for sums. Then dead = counts < least, by the new counts.",
        "torch.where(dead, 1.0, counts), and torch.where(dead[:, None], fresh, sums).",
    ],
)  # fmt: skip
def update_codebook(learner, case):
    """Let the codebook follow the vectors, and restart the codes that nobody chooses."""
    settings = []
    for K, d, n, decay, least in (
        (6, 3, 14, 0.9, 0.03),
        (3, 2, 1, 0.99, 0.0),
        (4, 4, 8, 0.5, 0.6),
        (5, 2, 12, 0.0, 0.03),
        (6, 3, 14, 0.9, 0.03),
    ):
        counts, sums = case.uniform(1.5, 3, K), case.normal(K, d)
        z, fresh = case.normal(n, d), case.normal(K, d)
        codes = case.whole(0, K - 1, n)
        if n >= 8:
            counts[:2] = 0.001  # the first is not chosen and dead; the second is chosen, and lives
            codes[codes == 0] = 2
            codes[: n // 2] = 1
            codes[codes == K - 1] = 2  # not chosen, but alive
        inputs = (counts, sums, z, codes, fresh, decay, least)
        right, mistakes = codebook_mistakes(*inputs, vq.codebook_from)
        with broadcasting_explained(
            "dead has one entry for each code, (J,), and the rows are (J, d): dead[:, None]. "
            "torch.bincount counts up to the largest code that was chosen, all of them with minlength=len(counts)."
        ):
            settings.append((learner(*inputs), right, mistakes, learner.called))
    close_in_each(settings, ("counts", "sums", "codebook"))


@exercise(
    "13.fsq", vq.fsq, difficulty=3, minutes=15, uses=("13.straight_through",),
    hints=[
        "bounded = fsq_bound(z, levels); its .round() are the numbers, by value. Which function hands the gradient on?",
        "digits = bounded.round().long() + levels // 2 are 0 ... L - 1.",
        "The factor of a digit is the product of the levels before it: [1, L_0, L_0 L_1, ...]. levels.cumprod(0) has "
        "these products, one place too early.",
        "(digits * factors).sum(1), or a loop that adds digit * factor and multiplies the factor by L.",
    ],
)  # fmt: skip
def fsq(learner, case):
    """Round each dimension to a few levels, and number the combinations."""
    settings, learned = [], []
    for n, levels in ((50, (8, 5, 5)), (30, (4, 3)), (9, (3,)), (1, (7, 6, 5, 4)), (40, (5, 8, 3))):
        levels = torch.tensor(levels)
        z, slope = (2 * case.normal(n, len(levels))).requires_grad_(), case.normal(n, len(levels))
        right, mistakes = fsq_mistakes(z.detach(), levels)
        got = learner(z, levels)
        settings.append((got, right, mistakes, learner.called))
        learned.append((z, levels, slope))
    close_in_each(settings, ("numbers", "codes"))
    for (got, _, _, called), (z, levels, slope) in zip(settings, learned, strict=True):
        with called_as(called):
            require_bound_gradient(got[0], z, levels, vq.fsq_bound, slope)


@exercise(
    "13.dalle_loss", tokens_to_pixels.dalle_loss, difficulty=2, minutes=12, gradients=True,
    given="text_logits, code_logits, text, codes, share=1 / 8",
    hints=[
        "F.cross_entropy(logits, tokens) wants logits (n, choices) and tokens (n,): flatten(0, 1) and flatten().",
        "The logits of text belong to text[:, 1:]; those of the codes to all codes.",
        "share * mean over the text + (1 - share) * mean over the picture.",
    ],
)  # fmt: skip
def dalle_loss(learner, case):
    """Weight what the text and what the picture cost."""
    settings = []
    for batch, length, words, places, codes_count, share in (
        (3, 6, 11, 9, 5, 1 / 8),
        (1, 2, 4, 1, 3, 0.5),
        (2, 5, 7, 16, 9, 0.25),
        (2, 4, 6, 4, 8, 0.0),
        (2, 7, 6, 4, 8, 1 / 8),
    ):
        text, codes = case.whole(0, words - 1, batch, length), case.whole(0, codes_count - 1, batch, places)
        logits = 2 * case.normal(batch, length - 1, words), 3 * case.normal(batch, places, codes_count)
        right, mistakes = loss_mistakes(*logits, text, codes, share)
        got = learner(*logits, text, codes, share)
        settings.append((got, right, mistakes, f"with the share {share:g} the loss", learner.called))
    close_in_all(settings)


@exercise(
    "13.cached_attention", tokens_to_pixels.cached_attention, difficulty=4, minutes=25,
    hints=[
        "If there is a cache, put its keys before the new ones along the axis of the tokens, and the values likewise: "
        "torch.cat([cache[0], k], dim=2).",
        "New token i is number past + i of the sequence. It may see the keys 0 ... past + i.",
        "torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) is that mask. "
        "F.scaled_dot_product_attention(q, k, v, attn_mask=mask) does the rest.",
    ],
)  # fmt: skip
def cached_attention(learner, case):
    """Attend from new tokens to all tokens so far, and keep keys and values for the next call."""
    settings = []
    for batch, heads, past, new, d in ((2, 2, 0, 5, 4), (1, 2, 4, 1, 8), (2, 1, 3, 2, 4), (1, 3, 0, 1, 2),
                                       (2, 2, 5, 3, 6)):  # fmt: skip
        q, k, v = (2 * case.normal(batch, heads, new, d) for _ in range(3))
        cache = (2 * case.normal(batch, heads, past, d), case.normal(batch, heads, past, d)) if past else None
        right, mistakes = cache_mistakes(q, k, v, cache)
        out = learner(q, k, v, cache)
        if isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], tuple | list) and len(out[1]) == 2:
            out = (out[0], *out[1])
        settings.append((out, right, mistakes, learner.called))
    close_in_each(settings, ("out", "keys", "values"))


@exercise(
    "13.filter_logits", tokens_to_pixels.filter_logits, difficulty=3, minutes=20,
    hints=[
        "top_k: logits.topk(top_k).values[..., -1:] is the smallest logit that stays; masked_fill what is below it.",
        "top_p: sort descending, softmax, cumsum. A code falls out if the codes *before* it have top_p already: "
        "cumsum - p >= top_p.",
        "That mask is in sorted order. out.scatter(-1, places, out), with the places that sort returned, brings "
        "it back.",
    ],
)  # fmt: skip
def filter_logits(learner, case):
    """Keep the likeliest codes only."""
    settings = []
    for shape, top_k, top_p in (
        ((4, 9), 3, None),
        ((4, 9), None, 0.8),
        ((3, 12), 6, 0.7),
        ((2, 3, 7), None, 0.3),
        ((5,), 1, None),
        ((2, 6), 10, 1.0),
        ((2, 5), None, None),
        ((1, 20), 5, 0.9),
    ):
        logits = 1.5 * case.normal(*shape)
        right, mistakes = filter_mistakes(logits, top_k, top_p)
        got = learner(logits, top_k, top_p)
        settings.append((got, right, mistakes, f"with top_k={top_k} and top_p={top_p}, the logits", learner.called))
    close_in_all(settings)


# The second half: unCLIP


@exercise(
    "13.prior_loss", prior_recipe.prior_loss, difficulty=3, minutes=20, uses=("05.add_noise", "10.drop_prompts"),
    gradients=True,
    hints=[
        "It is the loss of chapter 10 with another target: this network predicts the clean embedding. What is its "
        "prediction compared with?",
        "x_t = add_noise(x0, eps, t, alpha_bar), and told = drop_prompts(cond, null, uniforms, share): the captions, "
        "some of them dropped.",
        "By hand: torch.where((uniforms < share)[:, None, None], null, cond) decides once for each caption, and takes "
        "the one null for as many as are dropped.",
        "(model(x_t, t, told) - x0).square().mean() averages over the batch and over the width.",
    ],
)  # fmt: skip
def prior_loss(learner, case):
    """Measure how well the clean embedding is predicted, given time and caption."""
    table = (1 - case.uniform(0.02, 0.12, 40)).cumprod(0)
    settings = []
    for batch, length, width, share in (
        (5, 3, 7, 0.4),
        (4, 2, 6, 0.5),
        (3, 4, 5, 0.0),
        (3, 2, 4, 1.0),
        (1, 1, 3, 0.5),
        (1, 2, 5, 0.0),
        (6, 5, 9, 0.1),
    ):
        x0, eps = case.normal(batch, width), case.normal(batch, width)
        cond, null = case.normal(batch, length + 1, width), case.normal(1, length + 1, width)
        t, uniforms = case.whole(1, 38, batch), case.uniform(0, 1, batch)
        if batch > 1:
            t[:2] = torch.tensor([39, 0])
            uniforms[:2] = torch.tensor([share / 2, (1 + share) / 2])
        if share == 0.5 or batch == 3 and share == 0:
            uniforms[-1] = share  # kept: only what is below the share is dropped
        model, inputs = Guesser(case, length, width), (x0, cond, null, t, eps, uniforms, table, share)
        with (
            broadcasting_explained("One number for each sample needs more axes: (batch, 1) beside embeddings, and "
                                   "(batch, 1, 1) beside cond."),
            explained("Boolean value of Tensor", "`if` asks one question of the whole batch. torch.where answers for "
                      "each caption."),
            explained("has no attribute 'predicted_image", "This model returns the embedding itself, not an object "
                      "that holds it."),
            explained("one number for each of 1 prompts", "drop_prompts was given one row for all captions. It takes "
                      "the captions first, and then what replaces them: drop_prompts(cond, null, uniforms, share)."),
        ):  # fmt: skip
            got = asked(learner, model, *inputs)
        require(model.calls > 0, "the model was never called.", "Call it: model(x_t, t, cond).")
        right, mistakes = prior_mistakes(model, *inputs)
        settings.append((got, right, mistakes, f"with the share {share:g} the loss", learner.called))
    close_in_all(settings)


@exercise(
    "13.better_of_two", prior.better_of_two, difficulty=2, minutes=8,
    hints=[
        "How similar are two unit vectors? Their dot product is the cosine of the angle between them.",
        "(first * text).sum(1, keepdim=True) is the dot product for each caption, (batch, 1). The same for second.",
        "torch.where(is_first, first, second) takes the rows of first where is_first is true; (batch, 1) fits "
        "(batch, width).",
    ],
)  # fmt: skip
def better_of_two(learner, case):
    """Choose for each caption the one of two embeddings that fits it better."""
    settings = []
    for batch, width, begins in (
        (6, 5, True),
        (1, 4, False),
        (1, 3, True),
        (3, 3, False),
        (90, 8, True),
        (5, 2, False),
    ):
        first, second, text = two_samples(case, batch, width, begins)
        right, mistakes = better_mistakes(first, second, text)
        with reasons_given(BETTER_REASONS):
            got = learner(first, second, text)
        settings.append((got, right, mistakes, f"of {batch} captions the better embedding", learner.called))
    close_in_all(settings)


@exercise(
    "13.text_diff", unclip.text_diff, difficulty=3, minutes=15,
    hints=[
        "What is new in the caption is its embedding minus that of the old one. Is the difference of two unit vectors "
        "one, too?",
        "F.normalize(x, dim=1) divides each row by its length. One row for all embeddings becomes as many as are "
        "needed by .expand_as(embedding).",
        "slerp(a, b, share) is on the arc from a, at 0, to b, at 1. From which vector to which does it go here?",
        "slerp(embedding, d_text, share). By hand: (sin((1 - ξ) Ω) I + sin(ξ Ω) d_text) / sin Ω, where Ω, (n, 1), is "
        "the angle between I and d_text. A tensor ξ is (n, 1) here, too.",
    ],
)  # fmt: skip
def text_diff(learner, case):
    """Turn an image embedding towards what is new in a caption."""
    settings = []
    for n, width, rows, share in (
        (5, 7, 1, 0.3),  # what fails with it is not the share of each; nor with the next, but a caption for each
        (2, 8, 2, 0.45),
        (6, 9, 1, torch.cat([torch.tensor([0.25, 0.0, 1.0]), case.uniform(0.1, 0.9, 3)])),
        (4, 6, 4, case.uniform(0.1, 0.9, 4)),
        (1, 3, 1, 0.7),
        (3, 5, 1, 0.0),
        (3, 4, 3, 1.0),
        (1, 5, 1, case.uniform(0.2, 0.4, 1)),
    ):
        embedding, before, after = diff_inputs(case, n, width, rows)
        right, mistakes = diff_mistakes(embedding, before, after, share)
        with reasons_given(diff_reasons(rows, share)):
            got = learner(embedding, before, after, share)
        what = f"with the share {share:g}" if isinstance(share, float) else "with a share for each"
        settings.append((got, right, mistakes, f"{what}, the embedding", learner.called))
    close_in_all(settings, tolerance=1e-3)
