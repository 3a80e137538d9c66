"""Attempts at the exercises of chapter 08."""

from collections import Counter

import torch
from attempts import mutant, variant
from torch.nn import functional as F

PAIR, MERGE, POOL, LOGITS = "08.most_frequent_pair", "08.merge", "08.pool", "08.cosine_logits"
PATCHES = "08.embed_patches"
LOSS, FALSE, ZERO, RECALL = "08.info_nce", "08.without_false_negatives", "08.zero_shot", "08.recall_at_k"


# The most frequent pair


def counted(words, by_times=True):
    counts = Counter()
    for symbols, times in words.items():
        for i in range(len(symbols) - 1):
            counts[symbols[i], symbols[i + 1]] += times if by_times else 1
    return counts


def first_of(counts):
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[0]


@mutant(PAIR, "counts each word of the list once")
def words_not_weighted(words):
    return first_of(counted(words, by_times=False))


@mutant(PAIR, "twice in one word counts twice")
def once_a_word(words):
    counts = Counter()
    for symbols, times in words.items():
        for pair in set(zip(symbols, symbols[1:], strict=False)):
            counts[pair] += times
    return first_of(counts)


@mutant(PAIR, "the merged symbol")
def joined(words):
    return "".join(first_of(counted(words)))


@mutant(PAIR, "with its count")
def pair_and_count(words):
    return counted(words).most_common(1)[0]


@mutant(PAIR, "The order is lost")
def pairs_sorted_by_letter_or_turned(words):
    return first_of(counted(words))[::-1]


@mutant(PAIR, "the most frequent symbol")
def a_symbol(words):
    counts = Counter()
    for symbols, times in words.items():
        for symbol in symbols:
            counts[symbol] += times
    return sorted(counts, key=lambda one: -counts[one])[0]


@mutant(PAIR, "equally frequent")
def whichever_comes_first(words):
    return max(counted(words), key=counted(words).get)


@mutant(PAIR, "they read the same when joined")
def counts_joined_strings(words):
    counts, pairs = Counter(), {}
    for symbols, times in words.items():
        for pair in zip(symbols, symbols[1:], strict=False):
            counts["".join(pair)] += times
            pairs.setdefault("".join(pair), pair)
    most = max(counts.values())
    return min(pairs[joined] for joined, count in counts.items() if count == most)


@mutant(PAIR, "the input words was changed in place")
def empties_the_words(words):
    counts = Counter()
    while words:
        symbols, times = words.popitem()
        for pair in zip(symbols, symbols[1:], strict=False):
            counts[pair] += times
    return first_of(counts)


@mutant(PAIR, "a symbol and a number")
def first_symbol_and_count(words):
    counts = counted(words)
    pair = first_of(counts)
    return pair[0], counts[pair]


@variant(PAIR)
def by_slices(words):
    counts = Counter(
        symbols[i : i + 2] for symbols, times in words.items() for _ in range(times) for i in range(len(symbols) - 1)
    )
    most = max(counts.values())
    return min(pair for pair, count in counts.items() if count == most)


@variant(PAIR)
def sorted_twice(words):
    return first_of(counted(words))


# The merge


@mutant(MERGE, "Only the first occurrence")
def first_one_only(symbols, pair):
    for i in range(len(symbols) - 1):
        if symbols[i : i + 2] == pair:
            return (*symbols[:i], "".join(pair), *symbols[i + 2 :])
    return symbols


@mutant(MERGE, "The last symbol is lost")
def loses_the_last(symbols, pair):
    merged, at = [], 0
    while at < len(symbols) - 1:
        hit = symbols[at : at + 2] == pair
        merged.append("".join(pair) if hit else symbols[at])
        at += 2 if hit else 1
    return tuple(merged)


@mutant(MERGE, "Text was replaced")
def text_replaced(symbols, pair):
    return tuple(" ".join(symbols).replace(" ".join(pair), "".join(pair)).split())


@mutant(MERGE, "The second symbol of the pair is still there")
def does_not_jump(symbols, pair):
    return tuple("".join(pair) if symbols[i : i + 2] == pair else symbols[i] for i in range(len(symbols)))


@mutant(MERGE, "used for two merges")
def overlapping(symbols, pair):
    merged, before = [], False
    for i in range(len(symbols)):
        hit = symbols[i : i + 2] == pair
        if hit:
            merged.append("".join(pair))
        elif not before:
            merged.append(symbols[i])
        before = hit
    return tuple(merged)


@mutant(MERGE, "but as a list")
def returns_a_list(symbols, pair):
    return list(with_a_stack(symbols, pair))


@mutant(MERGE, "This is one string")
def returns_a_string(symbols, pair):
    return "".join(with_a_stack(symbols, pair))


@mutant(MERGE, "they read like it when joined")
def compares_joined_strings(symbols, pair):
    merged, at = [], 0
    while at < len(symbols):
        if "".join(symbols[at : at + 2]) == "".join(pair) and at + 1 < len(symbols):
            merged.append("".join(pair))
            at += 2
        else:
            merged.append(symbols[at])
            at += 1
    return tuple(merged)


@mutant(MERGE, "Nothing was merged")
def compares_with_a_list(symbols, pair):
    return tuple(symbols) if list(symbols[:2]) != pair else ("".join(pair), *symbols[2:])


@variant(MERGE)
def with_a_stack(symbols, pair):
    merged, fresh = [], False
    for symbol in symbols:
        if merged and not fresh and (merged[-1], symbol) == pair:
            merged[-1] += symbol
            fresh = True
        else:
            merged.append(symbol)
            fresh = False
    return tuple(merged)


@variant(MERGE)
def from_the_left_by_recursion(symbols, pair):
    if len(symbols) < 2:
        return symbols
    if symbols[:2] == pair:
        return ("".join(pair), *from_the_left_by_recursion(symbols[2:], pair))
    return (symbols[0], *from_the_left_by_recursion(symbols[1:], pair))


# Pooling


def places(tokens, end):
    return [row.tolist().index(end) for row in tokens]


@mutant(POOL, "padding for short prompts")
def last_place(hidden, tokens, end):
    return hidden[:, -1]


@mutant(POOL, "before all words")
def start_token(hidden, tokens, end):
    return hidden[:, 0]


@mutant(POOL, "one place too early")
def last_word(hidden, tokens, end):
    return hidden[torch.arange(len(hidden)), torch.tensor(places(tokens, end)) - 1]


@mutant(POOL, "the mean over all places")
def mean_of_all(hidden, tokens, end):
    return hidden.mean(1)


@mutant(POOL, "the mean over the words")
def mean_of_the_words(hidden, tokens, end):
    return torch.stack([hidden[row, : place + 1].mean(0) for row, place in enumerate(places(tokens, end))])


@mutant(POOL, "as long as no token is added later")
def largest_number(hidden, tokens, end):
    return hidden[torch.arange(len(hidden)), tokens.argmax(1)]


@mutant(POOL, "at *all* end tokens")
def every_end_token(hidden, tokens, end):
    return hidden[tokens == end]


@mutant(POOL, "index rows and places together")
def places_of_all(hidden, tokens, end):
    return hidden[:, (tokens == end).int().argmax(1)]


@mutant(POOL, "has no way back")
def pooled_without_gradient(hidden, tokens, end):
    return torch.tensor([hidden[row, place].tolist() for row, place in enumerate(places(tokens, end))])


@variant(POOL)
def one_by_one(hidden, tokens, end):
    return torch.stack([hidden[row, place] for row, place in enumerate(places(tokens, end))])


@variant(POOL)
def by_a_running_sum(hidden, tokens, end):
    first = (tokens == end) & ((tokens == end).cumsum(1) == 1)
    return (hidden * first[..., None]).sum(1)


# Patches


def cut(pictures, weight):
    return F.conv2d(pictures, weight, stride=weight.shape[-1])  # (batch, d, rows, columns)


def in_rows(pictures, weight):
    return cut(pictures, weight).flatten(2).transpose(1, 2)


def start(pictures, first):
    return first.repeat(len(pictures), 1, 1)


@mutant(PATCHES, "The places were not added")
def without_places(pictures, weight, first, places):
    return torch.cat([start(pictures, first), in_rows(pictures, weight)], 1)


@mutant(PATCHES, "to the patches only")
def places_of_patches_only(pictures, weight, first, places):
    return torch.cat([start(pictures, first), in_rows(pictures, weight) + places[1:]], 1)


@mutant(PATCHES, "stands behind the patches")
def first_comes_last(pictures, weight, first, places):
    return torch.cat([in_rows(pictures, weight), start(pictures, first)], 1) + places


@mutant(PATCHES, "column by column")
def patches_in_columns(pictures, weight, first, places):
    turned = cut(pictures, weight).transpose(2, 3).flatten(2).transpose(1, 2)
    return torch.cat([start(pictures, first), turned], 1) + places


@mutant(PATCHES, "a reshape where axes should be swapped")
def reshaped(pictures, weight, first, places):
    patches = cut(pictures, weight)
    patches = patches.reshape(len(patches), -1, patches.shape[1])
    return torch.cat([start(pictures, first), patches], 1) + places


@mutant(PATCHES, "The first token is all zeros")
def first_forgotten(pictures, weight, first, places):
    return F.pad(in_rows(pictures, weight), (0, 0, 1, 0)) + places


@mutant(PATCHES, "Patches do not overlap")
def overlapping_patches(pictures, weight, first, places):
    patches = F.conv2d(pictures, weight).flatten(2).transpose(1, 2)
    return torch.cat([start(pictures, first), patches], 1) + places


@mutant(PATCHES, "Join along the tokens")
def first_not_expanded(pictures, weight, first, places):
    return torch.cat([first[None, None], in_rows(pictures, weight)], 1) + places


@mutant(PATCHES, "the gradient with respect to weight is not")
def half_of_the_gradient(pictures, weight, first, places):
    patches = in_rows(pictures, (weight + weight.detach()) / 2)
    return torch.cat([start(pictures, first), patches], 1) + places


@variant(PATCHES)
def by_unfold(pictures, weight, first, places):
    size = weight.shape[-1]
    columns = F.unfold(pictures, size, stride=size)
    patches = torch.einsum("bkn,dk->bnd", columns, weight.flatten(1))
    return torch.cat([first.expand(len(pictures), 1, -1), patches], dim=1) + places


@variant(PATCHES)
def by_cutting_axes(pictures, weight, first, places):
    size = weight.shape[-1]
    rows, columns = pictures.shape[2] // size, pictures.shape[3] // size
    parts = pictures.reshape(len(pictures), -1, rows, size, columns, size)
    patches = torch.einsum("bcrhsw,dchw->brsd", parts, weight).flatten(1, 2) + places[1:]
    return torch.cat([(first + places[0]).repeat(len(pictures), 1, 1), patches], dim=1)


# Cosines


@mutant(LOGITS, "kept their lengths")
def plain_products(image, text, scale):
    return scale * image @ text.T


@mutant(LOGITS, "divides by the scale")
def divided_by_the_scale(image, text, scale):
    return F.normalize(image, dim=1) @ F.normalize(text, dim=1).T / scale


@mutant(LOGITS, "The scale is missing")
def scale_forgotten(image, text, scale):
    return F.normalize(image, dim=1) @ F.normalize(text, dim=1).T


@mutant(LOGITS, "not the other way round")
def captions_in_rows(image, text, scale):
    return scale * F.normalize(text, dim=1) @ F.normalize(image, dim=1).T


@mutant(LOGITS, "the length of the whole matrix")
def one_length_for_all(image, text, scale):
    return scale * (image / image.norm()) @ (text / text.norm()).T


@mutant(LOGITS, "lengths of the columns")
def wrong_axis(image, text, scale):
    return scale * F.normalize(image, dim=0) @ F.normalize(text, dim=0).T


@mutant(LOGITS, "Only the pictures were made unit vectors")
def half_done(image, text, scale):
    return scale * F.normalize(image, dim=1) @ text.T


@mutant(LOGITS, "Only the captions were made unit vectors")
def other_half_done(image, text, scale):
    return scale * image @ F.normalize(text, dim=1).T


@mutant(LOGITS, "has the dtype torch.float64")
def logits_in_float64(image, text, scale):
    return scale * F.normalize(image.double(), dim=1) @ F.normalize(text.double(), dim=1).T


@mutant(LOGITS, "no gradient comes back to scale")
def scale_as_a_number(image, text, scale):
    return float(scale) * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T


@variant(LOGITS)
def lengths_divided_out_at_the_end(image, text, scale):
    products = torch.einsum("id,jd->ij", image.double(), text.double())
    return (scale * products / (image.norm(dim=1)[:, None] * text.norm(dim=1))).float()


@variant(LOGITS)
def by_cosine_similarity(image, text, scale):
    return scale * F.cosine_similarity(image[:, None], text[None], dim=-1)


# The loss


def target(logits):
    return torch.arange(len(logits))


@mutant(LOSS, "each image is matched with its caption")
def pictures_only(logits):
    return F.cross_entropy(logits, target(logits))


@mutant(LOSS, "each caption is matched with its image")
def captions_only(logits):
    return F.cross_entropy(logits.T, target(logits))


@mutant(LOSS, "the sum of both directions")
def both_added(logits):
    return F.cross_entropy(logits, target(logits)) + F.cross_entropy(logits.T, target(logits))


@mutant(LOSS, "the sum over the batch")
def summed(logits):
    return sum(F.cross_entropy(side, target(logits), reduction="sum") for side in (logits, logits.T)) / 2


@mutant(LOSS, "The minus is missing")
def without_minus(logits):
    return (logits.log_softmax(1).diagonal().mean() + logits.log_softmax(0).diagonal().mean()) / 2


@mutant(LOSS, "the mean probability of the right pairs")
def probability(logits):
    return (logits.softmax(1).diagonal().mean() + logits.softmax(0).diagonal().mean()) / 2


@mutant(LOSS, "takes the softmax itself")
def softmax_twice(logits):
    return sum(F.cross_entropy(side.softmax(1), target(logits)) for side in (logits, logits.T)) / 2


@mutant(LOSS, "over the whole matrix")
def softmax_over_all(logits):
    return torch.logsumexp(logits.flatten(), 0) - logits.diagonal().mean()


@mutant(LOSS, "no rows of zeros and ones")
def one_hot_targets(logits):
    return sum(-(torch.eye(len(side)) * side.log_softmax(1)).sum(1).mean() for side in (logits, logits.T)) / 2


@mutant(LOSS, "pushes nothing apart")
def pull_only(logits):
    return -logits.diagonal().mean()


@mutant(LOSS, "one minus the mean probability")
def one_minus_probability(logits):
    return 1 - probability(logits)


@mutant(LOSS, "is the Python number")
def loss_as_a_number(logits):
    return by_exponentials(logits).item()


@mutant(LOSS, "the gradient with respect to logits is not")
def one_side_detached(logits):
    return (pictures_only(logits) + captions_only(logits.detach())) / 2


@mutant(LOSS, "take the largest logit out first")
def exponentials_that_overflow(logits):
    e = logits.exp()
    return -((e.diagonal() / e.sum(1)).log().mean() + (e.diagonal() / e.sum(0)).log().mean()) / 2


@variant(LOSS)
def by_log_softmax(logits):
    return -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()).mean() / 2


@variant(LOSS)
def by_exponentials(logits):
    e = (logits - logits.max()).exp().double()
    return (-((e.diagonal() / e.sum(1)).log().sum() + (e.diagonal() / e.sum(0)).log().sum()) / (2 * len(e))).float()


# False negatives


@mutant(FALSE, "right answer itself")
def diagonal_too(logits, same):
    return logits.masked_fill(same, -torch.inf)


@mutant(FALSE, "still counts")
def zero_for_infinity(logits, same):
    return logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), 0.0)


@mutant(FALSE, "The wrong ones were left out")
def wrong_ones(logits, same):
    return logits.masked_fill(~same & ~torch.eye(len(same), dtype=torch.bool), -torch.inf)


@mutant(FALSE, "Rows and columns are swapped")
def transposed(logits, same):
    return logits.masked_fill((same & ~torch.eye(len(same), dtype=torch.bool)).T, -torch.inf)


@mutant(FALSE, "was its result returned")
def result_dropped(logits, same):
    logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), -torch.inf)
    return logits


@mutant(FALSE, "changed in place")
def in_place(logits, same):
    logits[same & ~torch.eye(len(same), dtype=torch.bool)] = -torch.inf
    return logits


@mutant(FALSE, "same is not symmetric")
def made_symmetric(logits, same):
    return logits.masked_fill((same | same.T) & ~torch.eye(len(same), dtype=torch.bool), -torch.inf)


@mutant(FALSE, "right answer itself: it stays")
def diagonal_always(logits, same):
    return logits.masked_fill(same | torch.eye(len(same), dtype=torch.bool), -torch.inf)


@variant(FALSE)
def by_where(logits, same):
    own = torch.arange(len(same))[:, None] == torch.arange(len(same))
    return torch.where(same, torch.where(own, logits, -torch.inf), logits)


@variant(FALSE)
def by_loops(logits, same):
    result = logits.clone()
    for i in range(len(same)):
        for j in range(len(same)):
            if same[i, j] and i != j:
                result[i, j] = float("-inf")
    return result


# Zero-shot


@mutant(ZERO, "not made a unit vector again")
def mean_kept_short(image, text):
    return (image @ F.normalize(text, dim=-1).mean(1).T).argmax(1)


@mutant(ZERO, "long ones win")
def lengths_kept(image, text):
    return (image @ text.mean(1).T).argmax(1)


@mutant(ZERO, "before they were made unit vectors")
def averaged_too_early(image, text):
    return (image @ F.normalize(text.mean(1), dim=-1).T).argmax(1)


@mutant(ZERO, "Only the first template")
def first_template(image, text):
    return (image @ F.normalize(text[:, 0], dim=-1).T).argmax(1)


@mutant(ZERO, "takes the nearest prompt")
def nearest_prompt(image, text):
    return (image @ F.normalize(text, dim=-1).flatten(0, 1).T).argmax(1) // text.shape[1]


@mutant(ZERO, "For each class this is the best picture")
def best_picture(image, text):
    return cosines(image, text).argmax(0)


@mutant(ZERO, "Return which one it is")
def how_well(image, text):
    return cosines(image, text).amax(1)


@mutant(ZERO, "These are the cosines")
def all_cosines(image, text):
    return cosines(image, text)


def cosines(image, text):
    return F.normalize(image, dim=1) @ F.normalize(F.normalize(text, dim=-1).mean(1), dim=-1).T


@mutant(ZERO, "the class that fits least")
def worst_class(image, text):
    return cosines(image, text).argmin(1)


@mutant(ZERO, "the number of a prompt")
def number_of_a_prompt(image, text):
    return (image @ F.normalize(text, dim=-1).flatten(0, 1).T).argmax(1)


@variant(ZERO)
def by_topk(image, text):
    return cosines(image.double(), text.double()).topk(1).indices[:, 0]


@variant(ZERO)
def by_sums_and_loops(image, text):
    vectors = torch.stack([sum(prompt / prompt.norm() for prompt in prompts) for prompts in text])
    return torch.stack([F.cosine_similarity(one[None], vectors).argmax() for one in image])


# Recall


def ranks(similarity, side=1):
    return (similarity > similarity.diagonal().unsqueeze(side)).sum(side)


@mutant(RECALL, "the search in the other direction")
def columns_for_rows(similarity, k):
    return (ranks(similarity, 0) < k).float().mean().item()


@mutant(RECALL, "One too many")
def one_too_many(similarity, k):
    return (ranks(similarity) <= k).float().mean().item()


@mutant(RECALL, "only the very best")
def best_only(similarity, k):
    return (similarity.argmax(1) == torch.arange(len(similarity))).float().mean().item()


@mutant(RECALL, "divides by k")
def precision(similarity, k):
    own = torch.arange(len(similarity))[:, None]
    return (similarity.topk(k, 1).indices == own).float().mean().item()


@mutant(RECALL, "a number of queries")
def count_of_queries(similarity, k):
    return float((ranks(similarity) < k).sum())


@mutant(RECALL, "*least* similar")
def worst_first(similarity, k):
    own = torch.arange(len(similarity))[:, None]
    return (similarity.argsort(1)[:, :k] == own).any(1).float().mean()


@mutant(RECALL, "queries that failed")
def failures(similarity, k):
    return (ranks(similarity) >= k).float().mean()


@mutant(RECALL, "One too few")
def one_too_few(similarity, k):
    return (ranks(similarity) < k - 1).float().mean().item()


@mutant(RECALL, "is a tensor with one number")
def share_as_a_tensor(similarity, k):
    return (ranks(similarity) < k).float().mean()


@mutant(RECALL, "expected one number")
def hit_by_hit(similarity, k):
    return [int(rank < k) for rank in ranks(similarity)]


@variant(RECALL)
def by_ranks(similarity, k):
    return (ranks(similarity) < k).double().mean().item()


@variant(RECALL)
def by_sorting(similarity, k):
    hits = [row in similarity[row].argsort(descending=True)[:k].tolist() for row in range(len(similarity))]
    return sum(hits) / len(hits)
