"""Legal inputs of chapter 08."""

import torch
from legal import legal

LETTERS = "abcdef"


def word(case, length):
    return tuple(LETTERS[i] for i in case.whole(0, 2, length).tolist()[:-1]) + ("a</w>",)


@legal("08.most_frequent_pair")
def most_frequent_pair(case):
    for count in (1, 3, 8, 20):
        words = {word(case, int(case.whole(2, 6))): int(case.whole(1, 4)) for _ in range(count)}
        yield (words,)
        yield ({("a", "b"): 1, ("ab", "c"): 2, ("a", "bc"): 2, ("b</w>",): 9, **words},)


@legal("08.merge")
def merge(case):
    for length in range(1, 12):
        symbols = word(case, length)
        for pair in (symbols[:2], symbols[-2:], ("a", "a"), ("a", "b"), ("a", "a</w>"), ("ab", "c")):
            if len(pair) == 2:
                yield symbols, pair
                yield ("ab", *symbols, "a", "bc"), pair


@legal("08.pool")
def pool(case):
    for batch, length in ((1, 3), (4, 6), (3, 32)):
        tokens = case.whole(1, 20, batch, length)
        for row in range(batch):
            tokens[row, int(case.whole(1, length - 1)) :] = 9
            tokens[row, :1] = 25
            before = tokens[row] == 9
            first = int(before.int().argmax())
            tokens[row, 1:first][tokens[row, 1:first] == 9] = 3
        yield case.normal(batch, length, 5), tokens, 9


@legal("08.embed_patches")
def embed_patches(case):
    for batch, colours, patch, d, rows, columns in ((1, 3, 4, 6, 1, 1), (2, 1, 2, 3, 4, 1), (3, 3, 2, 4, 2, 5)):
        pictures = case.normal(batch, colours, patch * rows, patch * columns)
        yield pictures, case.normal(d, colours, patch, patch), case.normal(d), case.normal(1 + rows * columns, d)


@legal("08.cosine_logits")
def cosine_logits(case):
    for n, m in ((1, 1), (3, 5), (6, 2)):
        yield case.normal(n, 4), 5 * case.normal(m, 4), 7.5
        yield case.normal(n, 4), 5 * case.normal(m, 4), torch.tensor(20.0)


@legal("08.info_nce")
def info_nce(case):
    for n in (1, 2, 7):
        logits = 4 * case.normal(n, n)
        yield (logits,)
        if n > 2:
            logits = logits.clone()
            logits[0, 1] = logits[2, 0] = -torch.inf
            yield (logits,)


@legal("08.without_false_negatives")
def without_false_negatives(case):
    for n in (1, 2, 5):
        for share in (0.0, 0.3, 1.0):
            yield case.normal(n, n), case.uniform(0, 1, n, n) < share


@legal("08.zero_shot")
def zero_shot(case):
    for pictures, classes, templates in ((1, 2, 1), (30, 5, 4), (50, 3, 2)):
        yield case.normal(pictures, 6), case.normal(classes, templates, 6) * case.uniform(0.1, 5, classes, templates, 1)


@legal("08.recall_at_k")
def recall_at_k(case):
    for n in (1, 2, 30):
        for k in {1, min(3, n), n}:
            yield case.normal(n, n) + torch.eye(n), k
