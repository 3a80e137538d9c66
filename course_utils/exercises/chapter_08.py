"""The exercises of chapter 08: words to tokens, two vectors to a loss, and what the vectors are good for."""

import re

import torch
from torch.nn import functional as F

from course_utils.exercises.mistakes_08 import EMBEDDED, embedded, expect, letters
from course_utils.exercises.oracles import Wrong, close, require
from course_utils.exercises.registry import exercise
from course_utils.metrics import pictures as metrics
from course_utils.models import clip, clip_by_hand
from course_utils.text import tokens as text

TITLE = "Contrastive language-image learning"


@exercise(
    "08.most_frequent_pair", text.most_frequent_pair, difficulty=2, minutes=10,
    hints=[
        "zip(symbols, symbols[1:]) walks over the pairs of neighbours of one word.",
        "collections.Counter counts: counts[pair] += times, since the word occurs that many times in the text.",
        "min(counts, key=lambda pair: (-counts[pair], pair)) is the most frequent one, and settles ties.",
    ],
)  # fmt: skip
def most_frequent_pair(learner, case):
    """Find the pair of neighbouring symbols that is most frequent in a text."""
    s, t, u, v, w, x, y, *ends = letters(case, 11)
    # (s, t) is seen 8 times, in two words only; (x, y) in 6 words of the text; (v, w) in most words of the list
    words = {(s, t, s, t): 3, (u, s, t): 2, (x, y): 6, **{(v, w, end): 1 for end in ends}}
    mistakes = [
        ((v, w), "This counts each word of the list once. It occurs `times` times in the text, and so do its pairs."),
        ((x, y), "A pair that occurs twice in one word counts twice."),
        (s + t, "This is the merged symbol. Return the pair, a tuple of two symbols."),
        ((s, 8), "This is a symbol and a number; return two symbols."),
        (((s, t), 8), "This is the pair with its count, as most_common gives it. Return the pair alone."),
        ((t, s), "The order is lost: the first symbol of the pair is to the left of the second."),
        (s, "This is the most frequent symbol. Return the most frequent pair of neighbours."),
        (t, "This is the most frequent symbol. Return the most frequent pair of neighbours."),
    ]
    expect(learner(words), (s, t), mistakes, "a tuple of two symbols", f"for {words}: ")
    a, b, c, d = sorted(letters(case, 4))
    tie = {(c, d + "</w>"): 4, (b, c + "</w>"): 4, (a, b, d + "</w>"): 4, (d, d + "</w>"): 3}
    rule = "Several pairs are equally frequent; the rule is: the first in the order of tuples, min(..., key=...)."
    mistakes = [(pair, rule) for pair in ((c, d + "</w>"), (b, c + "</w>"), (b, d + "</w>"))]
    expect(learner(tie), (a, b), mistakes, "a tuple of two symbols", f"for {tie}: ")
    # Two pairs that read the same when they are joined, and one that is seen more often than either
    alike = {(b, c + d): 3, (b + c, d): 3, (c, b): 4}
    joins = "Two pairs were counted as one because they read the same when joined. Count tuples, not joined strings."
    mistakes = [((b, c + d), joins), ((b + c, d), joins)]
    expect(learner(alike), (c, b), mistakes, "a tuple of two symbols", f"for {alike}: ")
    expect(learner({(a, b): 1, (c,): 9}), (a, b), [], "a tuple of two symbols", f"for a text with a word {(c,)}: ")


@exercise(
    "08.merge", text.merge, difficulty=2, minutes=10,
    hints=[
        "Walk with an index `at` over the symbols; look at symbols[at:at + 2].",
        "If these two are the pair, append their sum and move on by two; otherwise append one "
        "symbol and move on by one.",
        "A while loop: a for loop cannot skip a symbol. The last symbol has no right "
        "neighbour, and there a slice is just shorter.",
    ],
)  # fmt: skip
def merge(learner, case):
    """Join a pair of symbols wherever it occurs in a word."""
    a, b, c, d = letters(case, 4)
    end = b + "</w>"
    for symbols, pair in [
        ((a, b, c, a, b), (a, b)),
        ((c, a, a, a, d), (a, a)),
        ((c, a, end), (a, end)),
        ((a, a, a, a), (a, a)),
        ((c + a, b, a, b), (a, b)),
        ((a, b + c), (a, b)),
        ((c, a, b + c), (a + b, c)),
        ((d,), (a, b)),
        ((c, d), (a, b)),
    ]:
        line = " ".join(symbols)
        wanted = tuple(re.sub(rf"(?<!\S){re.escape(' '.join(pair))}(?!\S)", "".join(pair), line).split())
        once = tuple(re.sub(rf"(?<!\S){re.escape(' '.join(pair))}(?!\S)", "".join(pair), line, count=1).split())
        blind = tuple(line.replace(" ".join(pair), "".join(pair)).split())
        both = tuple("".join(pair) if symbols[i : i + 2] == pair else symbols[i] for i in range(len(symbols)))
        lapped = tuple(
            "".join(pair) if symbols[i : i + 2] == pair else one
            for i, one in enumerate(symbols)
            if symbols[i : i + 2] == pair or symbols[i - 1 : i + 1] != pair or i == 0
        )
        glued = tuple(_glued(symbols, "".join(pair)))
        mistakes = [
            (symbols, "Nothing was merged, though the pair is there."),
            (
                glued,
                "Two symbols were taken for the pair because they read like it when joined. Compare them one by "
                "one: symbols[at:at + 2] == pair.",
            ),
            (once, "Only the first occurrence was merged; a word may have several."),
            (wanted[:-1], "The last symbol is lost. It has no neighbour to its right, and stays."),
            (blind, "Text was replaced, and not symbols: the end of one symbol was taken for a whole one."),
            (both, "The second symbol of the pair is still there: after a merge, move on by *two* symbols."),
            (
                lapped,
                "One symbol was used for two merges. A merged symbol cannot be merged again: move on by two symbols.",
            ),
            ("".join(wanted), "This is one string. Return a tuple of symbols."),
        ]
        expect(learner(symbols, pair), wanted, mistakes, "a tuple of symbols", f"for {symbols} and the pair {pair}: ")


def _glued(symbols, joined):
    """The symbols, with neighbours that read like the joined pair made one."""
    at = 0
    while at < len(symbols):
        hit = at + 1 < len(symbols) and symbols[at] + symbols[at + 1] == joined
        yield joined if hit else symbols[at]
        at += 2 if hit else 1


@exercise(
    "08.pool", clip_by_hand.pool, difficulty=2, minutes=10, gradients=True,
    hints=[
        "tokens == end marks the end tokens. There are several: the padding consists of them.",
        "(tokens == end).int().argmax(1) is the position of the *first* one, (batch,).",
        "One position for each row: hidden[torch.arange(len(hidden)), places].",
    ],
)  # fmt: skip
def pool(learner, case):
    """Take the one hidden state that has attended to the whole prompt."""
    end, length = int(case.whole(20, 40)), 7
    places = torch.cat([case.uniform(0, 1, 5).argsort()[:3] + 1, torch.tensor([length - 1])])
    hidden, tokens = case.normal(4, length, 5), case.whole(1, end - 1, 4, length)
    for row, place in enumerate(places.tolist()):
        tokens[row, place:] = end
    tokens[:, 1] = torch.where(places > 1, end + 3, end)  # a token that was added later may have a larger number
    before = (places - 1).clamp(min=0)
    rows = torch.arange(4)
    weights = (torch.arange(length) <= places[:, None]).float()[..., None]
    mistakes = [
        (
            hidden[:, -1],
            "This is the state at the last place, which is padding for short prompts. Return the first end token.",
        ),
        (
            hidden[:, 0],
            "This is the state at the start token. It comes before all words and, with the causal mask, "
            "attends to none of them.",
        ),
        (hidden[rows, before], "This is the state at the last word, one place too early."),
        (hidden.mean(1), "This is the mean over all places. CLIP takes one state, the one at the end token."),
        (
            (hidden * weights).sum(1) / weights.sum(1),
            "This is the mean over the words. CLIP takes one state, the one at the end token.",
        ),
        (
            hidden[rows, tokens.argmax(1)],
            "argmax(tokens) finds the largest number, which is the end token only as long "
            "as no token is added later. Compare with `end`.",
        ),
        (
            hidden[tokens == end],
            "These are the states at *all* end tokens, the padding too. Return the first one of each prompt.",
        ),
        (
            hidden[:, places],
            "Each prompt got the places of all: index rows and places together, hidden[torch.arange(batch), places].",
        ),
    ]
    close(learner(hidden, tokens, end), torch.stack([hidden[r, p] for r, p in enumerate(places.tolist())]), mistakes)
    one = torch.tensor([[1, 2, end]])
    close(learner(hidden[:1, :3], one, end), hidden[:1, 2], what="for a batch of one, the result")


@exercise(
    "08.embed_patches", clip_by_hand.embed_patches, difficulty=3, minutes=15, gradients=True,
    hints=[
        "The product of each patch with the same matrix is a convolution: F.conv2d(pictures, weight, stride=?) gives "
        "(batch, d, rows, columns).",
        "A stride as large as the kernel, weight.shape[-1], means that patches do not overlap. .flatten(2) puts them "
        "in one row, .transpose(1, 2) makes them (batch, patches, d).",
        "first.expand(len(pictures), 1, -1) is the first token of each image; torch.cat([..., ...], dim=1) puts it in "
        "front. Add places last: it has a row for the first token, too.",
    ],
)  # fmt: skip
def embed_patches(learner, case):
    """Turn an image into tokens: a learned first one, then one for each patch."""
    settings = []
    for batch, colours, size, d, rows, columns in ((2, 3, 2, 5, 2, 3), (1, 1, 3, 4, 3, 2), (3, 2, 1, 2, 2, 2)):
        pictures, weight = case.normal(batch, colours, size * rows, size * columns), case.normal(d, colours, size, size)
        settings.append((pictures, weight, case.normal(d), case.normal(1 + rows * columns, d)))
    got, expected, wrong = [], [], []
    for inputs in settings:
        got.append(_embedded(learner, *inputs))
        right, *others = embedded(*inputs)
        expected.append(right)
        wrong.append(others)
    together = [torch.cat([one.flatten() for one in each]) for each in zip(*wrong, strict=True)]
    mistakes = list(zip(together, EMBEDDED, strict=True))
    for one, right in zip(got, expected, strict=True):
        close(one, right, _if_all(got, mistakes, right))


def _if_all(got, mistakes, right):
    """The mistakes that explain what came back for all settings, as those of the one that is compared."""
    if not all(isinstance(one, torch.Tensor) for one in got):
        return []
    found = torch.cat([one.detach().flatten() for one in got])
    return [
        (one, advice)
        for one in got
        if one.shape == right.shape
        for value, advice in mistakes
        if value.shape == found.shape and torch.allclose(value, found.to(value.dtype), atol=1e-4)
    ]


def _embedded(learner, pictures, weight, first, places):
    try:
        return learner(pictures, weight, first, places)
    except Exception as raised:
        text = str(raised.__cause__)
        if "Sizes of tensors must match" in text:
            raise Wrong(f"joining failed: {text}", "Join along the tokens, dim=1. There both parts are (batch, tokens, "
                        "d): first.expand(len(pictures), 1, -1) is one token an image.") from None  # fmt: skip
        if "must match the size of tensor" in text:
            raise Wrong(f"adding failed: {text}", "places has a row for the first token and one for each patch. "
                        "Patches do not overlap: stride=weight.shape[-1].") from None  # fmt: skip
        raise


@exercise(
    "08.cosine_logits", clip.cosine_logits, difficulty=2, minutes=5, gradients=True,
    hints=[
        "First make all vectors unit vectors: divide each row by its length, or F.normalize(image, dim=1).",
        "All scalar products of rows with rows are one matrix product: image @ text.T.",
    ],
)  # fmt: skip
def cosine_logits(learner, case):
    """Compare every image with every caption."""
    scale = round(case.uniform(5, 30).item(), 1)
    image, words = 3 * case.normal(3, 6), case.normal(4, 6) / 2
    angles = torch.stack([F.cosine_similarity(one, words) for one in image])
    i, w = image / image.norm(), words / words.norm()
    columns = (image / image.norm(dim=0)) @ (words / words.norm(dim=0)).T
    mistakes = [
        (scale * image @ words.T, "The vectors kept their lengths. A cosine is the product of *unit* vectors."),
        (angles / scale, "This divides by the scale; scale is 1 / tau, and multiplies."),
        (angles, "The scale is missing: this is the cosine itself, between -1 and 1."),
        (scale * angles.T, "Rows are pictures and columns captions: image @ text.T, not the other way round."),
        (scale * i @ w.T, "This divides by the length of the whole matrix. Each row has a length of its own: dim=1."),
        (scale * columns, "This divides by the lengths of the columns. A vector is a row: dim=1."),
        (scale * (image / image.norm(dim=1, keepdim=True)) @ words.T, "Only the pictures were made unit vectors."),
        (scale * image @ (words / words.norm(dim=1, keepdim=True)).T, "Only the captions were made unit vectors."),
    ]
    close(learner(image, words, scale), scale * angles, mistakes, tolerance=1e-3)
    learned = learner(image[:1], words[:2], torch.tensor(2.0))
    close(learned, 2 * angles[:1, :2], tolerance=1e-3, what="for a scale that is a tensor, the result")


@exercise(
    "08.info_nce", clip.info_nce, difficulty=3, minutes=10, gradients=True,
    hints=[
        "It is a classification with as many classes as the batch has captions; the right class of row i is i.",
        "F.cross_entropy(logits, target) does the softmax, the logarithm, the minus and the mean; target is "
        "torch.arange(len(logits)).",
        "The other direction is the same with logits.T. Take the mean of both numbers.",
    ],
)  # fmt: skip
def info_nce(learner, case):
    """Compute the loss of matching images with captions, in both directions."""
    n = int(case.whole(4, 7))
    logits = 2 * case.normal(n, n) + 2 * torch.arange(n)[:, None]  # columns are harder than rows
    logits[0, 2] = -torch.inf  # a pair that was left out
    diagonal = logits.diagonal()
    rows, columns = ((torch.logsumexp(logits, side) - diagonal).mean() for side in (1, 0))
    right = (rows + columns) / 2
    certain = (logits.softmax(1).diagonal().mean() + logits.softmax(0).diagonal().mean()) / 2
    twice = sum((torch.logsumexp(p, 1) - p.diagonal()).mean() for p in (logits.softmax(1), logits.T.softmax(1))) / 2
    mistakes = [
        (rows, "This is one direction: each image is matched with its caption. Add the other one, logits.T."),
        (columns, "This is one direction: each caption is matched with its image. Add the other one."),
        (rows + columns, "This is the sum of both directions; return their mean."),
        (n * right, "This is the sum over the batch; return the mean, so that the batch's size does not matter."),
        (-right, "The minus is missing: the loss falls as the right pair becomes more probable."),
        (certain, "This is the mean probability of the right pairs. The loss is its negative logarithm, pair by pair."),
        (1 - certain, "This is one minus the mean probability. The loss is the negative logarithm, pair by pair."),
        (twice, "cross_entropy takes the softmax itself. Give it the logits."),
        (torch.logsumexp(logits.flatten(), 0) - diagonal.mean(), "The softmax was taken over the whole matrix. Each "
         "row is a question of its own, and each column."),
        (-diagonal.mean(), "This pulls the pairs together and pushes nothing apart: the other logits are missing."),
        (torch.tensor(torch.nan), "A logit of -inf, times a target of 0, is NaN. Tell cross_entropy the number of each "
                                  "right answer, torch.arange(len(logits)), and no rows of zeros and ones."),
    ]  # fmt: skip
    close(learner(logits), right, mistakes)
    close(learner(torch.full((n, n), 1.7)), torch.tensor(float(n)).log(), what="for equal logits, the result")
    close(learner(case.normal(1, 1)), torch.tensor(0.0), what="for a single pair, the result")
    sharp = 100 * torch.tensor([[0.9, 0.2], [0.3, 0.95]])
    overflow = "exp(90) is infinite in float32. cross_entropy and log_softmax take the largest logit out first."
    close(learner(sharp), torch.tensor(0.0), [(torch.tensor(torch.nan), overflow)], what="for logits of 90, the result")


@exercise(
    "08.without_false_negatives", clip.without_false_negatives, difficulty=2, minutes=5, gradients=True,
    hints=[
        "Which logits must go? Those where same is True, off the diagonal: same & ~torch.eye(len(same)).bool()",
        "logits.masked_fill(mask, float('-inf')) gives a new matrix. The exponential of -inf is 0.",
    ],
)  # fmt: skip
def without_false_negatives(learner, case):
    """Leave out captions that are true of another image as well."""
    for n in (6, 5):
        logits, own = case.normal(n, n), torch.eye(n, dtype=torch.bool)
        same = [own.clone(), torch.zeros(n, n, dtype=torch.bool)][n % 2]
        i, j = case.uniform(0, 1, n).argsort()[:2].tolist()
        same[i, j] = True
        same[(i + 1) % n, (i + 3) % n] = True
        others = same & ~own
        diagonal = "The diagonal was masked too. It is the right answer itself: it stays."
        expected = torch.where(others, torch.tensor(-torch.inf), logits)
        mistakes = [
            (logits.masked_fill(same | own, -torch.inf), diagonal),
            (logits.masked_fill(same, -torch.inf), diagonal),
            (logits.masked_fill(others, 0), "A logit of 0 still counts, as e^0 = 1. What is left out is -inf."),
            (logits * ~others, "A logit of 0 still counts, as e^0 = 1. What is left out is -inf."),
            (logits.masked_fill(~same & ~own, -torch.inf), "The wrong ones were left out: those that are *true* go, "
                                                           "those that are false stay as negatives."),
            (logits.masked_fill(others.T, -torch.inf), "Rows and columns are swapped: same[i, j] belongs to picture i "
                                                       "and caption j."),
            (logits.masked_fill(others | others.T, -torch.inf), "A caption may be true of a picture whose own caption "
             "is not true of the other one: same is not symmetric."),
            (logits, "Nothing was left out. masked_fill gives a new matrix: was its result returned?"),
        ]  # fmt: skip
        close(learner(logits, same), expected, mistakes)


@exercise(
    "08.zero_shot", clip.zero_shot, difficulty=3, minutes=10,
    hints=[
        "F.normalize(text, dim=-1) makes each prompt's vector a unit vector; .mean(1) averages over the templates.",
        "The mean of unit vectors is shorter than 1, and shorter if they disagree: normalise it again.",
        "image @ classes.T is (pictures, classes), and argmax(1) the best class of each picture.",
    ],
)  # fmt: skip
def zero_shot(learner, case):
    """Classify images with nothing but sentences about the classes."""
    pictures, classes, templates = 200, 5, 3
    image = case.normal(pictures, 4)
    words = case.normal(classes, templates, 4) * case.uniform(0.1, 6, classes, templates, 1)
    unit = words / words.norm(dim=-1, keepdim=True)
    sums = [sum(prompts) for prompts in unit]  # the direction of a sum is that of the mean
    angles = torch.stack([F.cosine_similarity(image, one, dim=1) for one in sums], 1)

    def best(vectors):
        return (image @ vectors.T).argmax(1)

    raw = words.mean(1)
    mistakes = [
        (best(unit.mean(1)), "The mean was not made a unit vector again: classes whose prompts agree win too often."),
        (best(raw), "No vector was made a unit vector: long ones win."),
        (
            best(raw / raw.norm(dim=1, keepdim=True)),
            "The prompts were averaged before they were made unit vectors: the longest one decides.",
        ),
        (best(unit[:, 0]), "Only the first template was used."),
        (
            (image @ unit.flatten(0, 1).T).reshape(pictures, classes, templates).amax(2).argmax(1),
            "This takes the nearest prompt. Return the nearest class vector, the mean of the prompts.",
        ),
        ((image @ unit.flatten(0, 1).T).argmax(1), "This is the number of a prompt, not of a class."),
        (angles.argmin(1), "This is the class that fits least."),
        (
            angles.argmax(0),
            "For each class this is the best picture. Return the best class of each picture: argmax(1).",
        ),
        (angles.amax(1), "This is how well the best class fits. Return which one it is: argmax."),
        (angles, "These are the cosines. Return the number of the best class: argmax(1)."),
    ]
    expected = angles.argmax(1)
    close(learner(image, words), expected, [m for m in mistakes if not torch.equal(m[0], expected)])
    one = torch.stack([F.cosine_similarity(image[0], word, dim=0) for word in words[:, 0]]).argmax()[None]
    close(learner(image[:1], words[:, :1]), one, what="for one picture and one template, the result")


@exercise(
    "08.recall_at_k", metrics.recall_at_k, difficulty=2, minutes=10,
    hints=[
        "similarity.topk(k, dim=1).indices are the k best columns of each row, (n, k).",
        "The own answer of row i is column i: compare with torch.arange(n)[:, None] and use .any(1).",
        "The share of rows is .float().mean().",
    ],
)  # fmt: skip
def recall_at_k(learner, case):
    """Measure a search by whether the right answer is among the first k."""
    for n, k in ((211, 3), (97, 1), (150, 8), (1, 1), (40, 40)):
        similarity = case.normal(n, n) + 1.5 * torch.eye(n) + 1.2 * case.normal(1, n)
        own = similarity.diagonal()
        before = (similarity > own[:, None]).sum(1)  # how many answers are ranked before its own
        expected = (before < k).float().mean()
        mistakes = [
            ((before <= k).float().mean(), "One too many: this counts the first k + 1."),
            ((before < k - 1).float().mean(), "One too few: this counts the first k - 1."),
            ((before < 1).float().mean(), "This counts only the very best answer, whatever k is."),
            (expected / k, "This divides by k. Each query has one right answer: the result is the share of queries."),
            (expected * n, "This is a number of queries. Return a share, from 0 to 1."),
            (((similarity < own[:, None]).sum(1) < k).float().mean(), "This looks among the k *least* similar ones."),
            (1 - expected, "This is the share of queries that failed."),
            (
                ((similarity > own).sum(0) < k).float().mean(),
                "The queries stand in rows: this ranks within columns "
                "(dim=0), which is the search in the other direction.",
            ),
        ]
        mistakes = [m for m in mistakes if abs(m[0] - expected) > 1e-6]
        got = learner(similarity, k)
        require(not isinstance(got, list | tuple), "the result is a list, expected one number.",
                "Take the mean over all queries.")  # fmt: skip
        close(got, expected, mistakes)
