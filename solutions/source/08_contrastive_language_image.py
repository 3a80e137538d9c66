# %% [markdown] id="title"
# # 08 · Contrastive language-image learning
#
# Chapter 07 could draw a digit, but not the digit you ask for. To ask, words must become numbers, and numbers that
# know about pictures. This chapter builds CLIP: two networks, one for sentences and one for pictures, that learn to
# agree. The one for sentences is what Stable Diffusion reads.
#
# ![Three sentences and the six pages, of 600 unseen ones, that the model finds for each: the first show what was asked
# for, the later ones share its colour or its place.](../chapters/figures/08_search.png)
#
# **After this chapter you can**
# 1. learn a byte-pair vocabulary by hand, and say what a prompt is as numbers, with all shapes;
# 2. write the contrastive loss, and show by measurement what temperature, both directions and the batch do to it;
# 3. classify and search without labels, and name three things that a CLIP score does *not* tell.
#
# **Time** two and a half hours, 70 minutes of them for eight exercises. All trainings together take two to three
# minutes on a CPU, all cells three to five. **You need** attention and its heads from chapter 04, and chapter 06's
# training loop.

# %% id="set-up"
import math

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from course_utils.data import picture_book as book
from course_utils.exercises import check, hint, progress, solution
from course_utils.machine.devices import budget, pick_device
from course_utils.plotting import LivePlot, plot_pictures, show, use_style

use_style()
device = pick_device()

# %% [markdown] id="symbols"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $N$ | `len(pictures)` | pairs of picture and caption in a batch | a number |
# | $L$, $d$ | `length`, `width` | tokens of a prompt, numbers of a vector | numbers |
# | | `pictures` | pictures in $[-1, 1]$ | (batch, 3, size, size) |
# | | `tokens` | a prompt as whole numbers | (batch, length) |
# | $H$ | `hidden` | hidden states: one vector for each token | (batch, length, width) |
# | $I_i$, $T_j$ | `image`, `text` | the unit vector of picture $i$, of caption $j$ | (batch, width) |
# | $\tau$, $s = 1/\tau$ | `scale` is $s$ | the temperature, and its inverse | a number |
# | $\ell_{ij} = s\,\langle I_i, T_j\rangle$ | `logits` | how well picture $i$ and caption $j$ fit | (batch, batch) |

# %% [markdown] id="toy"
# ## Agreement is not enough
#
# The smallest world: balls in eight colours, on any background. A caption here is just one of eight numbers, the
# colour. One network turns a picture into a point on a circle, a table turns a caption into a point on the same circle.
# We want a picture and its caption at the same place.
#
# So the first idea: **pull.** For each pair lower the loss $1 - \langle I_i, T_i \rangle$, one minus the cosine of
# their angle. **Predict first:** the loss will fall to nearly 0. Will a red ball then be nearest to "red"?
#
# The second idea is `contrastive_loss` (given now, built in section 3): pull the pairs together *and* push all the
# others apart.

# %% id="toy-data" tags=["static"]
from course_utils.models.clip import contrastive_loss

COLOURS = list(book.COLOURS)
balls = [book.Scene((book.Thing("ball", COLOURS[n % 8]),), book.PLACES[n // 8 % 8], n) for n in range(512)]
ball_pictures = book.pictures(balls, 32)  # (512, 3, 32, 32)
thumbs = F.avg_pool2d(ball_pictures, 4).flatten(1)  # (512, 192): 8 x 8 pixels are enough to see a colour
colour = torch.arange(512) % 8
show(
    plot_pictures(ball_pictures[4:12], [COLOURS[c] for c in colour[4:12]], columns=8),
    "Eight pages with a ball each: blue, purple, pink, white on the grass; red, orange, yellow, green on the beach.",
)


def pull_only(image, text, same):
    return (1 - (image * text).sum(1)).mean()


def pull_and_push(image, text, same):
    return contrastive_loss(image, text, 10.0, same)


# %% [markdown] id="toy-train-text"
# Both losses train the same two networks from the same start. `same` tells which captions of the batch say the same
# colour.


# %% id="toy-train"
def learn_circle(loss, steps=800):
    """Points on the circle for the 512 balls (512, 2) and the eight captions (8, 2), and the loss of 64 balls."""
    torch.manual_seed(0)
    see, read = nn.Sequential(nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 2)), nn.Embedding(8, 2)
    optimizer = torch.optim.Adam([*see.parameters(), *read.parameters()], 3e-3)
    generator = torch.Generator().manual_seed(0)

    def loss_of(i):
        image, text = F.normalize(see(thumbs[i]), dim=1), F.normalize(read(colour[i]), dim=1)
        return loss(image, text, colour[i][:, None] == colour[i])

    before = loss_of(torch.arange(64)).item()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(torch.randint(512, (64,), generator=generator)).backward()
        optimizer.step()
    with torch.no_grad():
        after = loss_of(torch.arange(64)).item()  # of the same 64 balls
        assert after < before
        return F.normalize(see(thumbs), dim=1), F.normalize(read.weight, dim=1), after


steps = budget(smoke=200, laptop=800, gpu=800)
circles = {"pull only": learn_circle(pull_only, steps), "pull and push": learn_circle(pull_and_push, steps)}

# %% id="toy-plot" tags=["static"]
figure, axes = plt.subplots(1, 2, figsize=(8, 4))
for ax, (name, (image, text, last)) in zip(axes, circles.items()):
    for number, word in enumerate(COLOURS):
        paint = [value / 255 for value in book.COLOURS[word]]
        ax.plot(*(image[colour == number] * torch.linspace(0.75, 0.95, 64)[:, None]).T, ".", color=paint, markersize=4)
        ax.plot(*text[number], "o", color=paint, markeredgecolor="black", markersize=11)
    found = ((image @ text.T).argmax(1) == colour).float().mean().item()
    ax.set(title=f"{name}\nloss {last:.4f}, colour right {found:.0%}", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))
    ax.set_aspect("equal")
    ax.axis("off")
    others = ((text @ text.T).sum() - 8) / 56
    print(f"{name:13}: loss {last:.4f}, colour right {found:.0%}, mean cosine of two different captions {others:+.3f}")
figure.set_facecolor("#D9D9D9")
show(
    figure,
    "Balls as dots in their colours, captions as larger circles. Pull only: seven of the eight captions crowd "
    "on one side of the circle. Pull and push: eight groups, spread evenly over the circle.",
)

# %% [markdown] id="toy-read"
# Pulling alone solves its task nearly perfectly and learns little: pictures and captions meet, but different colours
# crowd together, since nothing keeps them apart. A network that gives *one* vector for everything would have the
# loss 0. With pushing, the eight colours take up the whole circle; their mean cosine comes near $-1/7$, which is as
# low as it can be for eight points (section 9 says why).
#
# Real captions are sentences, not eight numbers. So first: how does a sentence become numbers at all?

# %% [markdown] id="tokens-text"
# ## 1 · Words to tokens
#
# A network wants whole numbers below a fixed limit, the *vocabulary*. One number for each word? Then "kitten" is
# unknown if nobody ever wrote it in training. One for each letter? Then every sentence is long. *Byte-pair encoding*
# lies between:
#
# 1. begin with single characters;
# 2. find the pair of neighbours that the text has most often, and make it one new symbol;
# 3. repeat, until the vocabulary is as large as you like.
#
# Frequent words become one symbol, rare ones stay in pieces, and nothing is unknown. Pairs never cross from word to
# word: the last character of a word carries the mark `</w>`.

# %% id="ten"
from collections import Counter

TEN = [
    "a red ball on the grass",
    "a red car in the snow",
    "a blue ball in the snow",
    "a blue boat on the beach",
    "a green ball in the forest",
    "a green tree in the forest",
    "a white cat in the snow",
    "a pink cat on the beach",
    "a red boat on the beach",
    "a green boat at night",
]
words = Counter(word for caption in TEN for word in caption.split())
start = {(*word[:-1], f"{word[-1]}</w>"): times for word, times in words.items()}
print("ball as symbols:", *(symbols for symbols in start if symbols[0] == "b" and len(symbols) == 4))


# %% id="pair-counts"
def neighbours(symbols):
    """The pairs of neighbouring symbols of one word, from left to right."""
    return list(zip(symbols, symbols[1:]))


def times_of(pair, words):
    """How often the text has this pair."""
    return sum(times * neighbours(symbols).count(pair) for symbols, times in words.items())


def pair_counts(words):
    """How often the text has each of its pairs."""
    pairs = {pair for symbols in words for pair in neighbours(symbols)}
    return {pair: times_of(pair, words) for pair in pairs}


print("most frequent pairs:", sorted(pair_counts(start).items(), key=lambda item: (-item[1], item[0]))[:4])

# %% [markdown] id="ex-pair-text"
# ### Exercise 1 · The most frequent pair
#
# ●●○○○ · 10 minutes. `words` says of each word, as a tuple of symbols, how often the text has it. (The counting above
# goes through all words for each pair. Once is enough.) If several pairs are equally frequent, take the first in the
# order of Python's tuples, so that all of us learn the same vocabulary.


# %% id="ex-pair"
def most_frequent_pair(words):
    """The pair of neighbouring symbols that the text has most often; words: {tuple of symbols: times}."""
    ### BEGIN SOLUTION
    #: a counter of pairs
    counts = Counter()
    #: each pair of each word counts as often as the word
    for symbols, times in words.items():
        for pair in zip(symbols, symbols[1:]):
            counts[pair] += times
    #: the largest count; of equal ones, the first in the order of tuples
    return min(counts, key=lambda pair: (-counts[pair], pair))
    ### END SOLUTION


# %% id="check-pair"
most_frequent_pair = check("08.most_frequent_pair", most_frequent_pair)
# Stuck? hint("08.most_frequent_pair") gives a hint, and one more each time; solution(...) is the last resort.

# %% [markdown] id="ex-merge-text"
# ### Exercise 2 · The merge
#
# ●●○○○ · 10 minutes. `merge(("b", "a", "l", "l</w>"), ("a", "l"))` is `("b", "al", "l</w>")`. From left to right;
# what has been merged is used up.


# %% id="ex-merge"
def merge(symbols, pair):
    """The symbols of a word (a tuple) with each occurrence of the pair joined into one symbol."""
    ### BEGIN SOLUTION
    merged, at = [], 0
    #: walk through the word; `at` is where you are
    while at < len(symbols):
        #: the pair: join it and jump over both; otherwise keep one symbol
        if symbols[at : at + 2] == pair:
            merged.append(symbols[at] + symbols[at + 1])
            at += 2
        else:
            merged.append(symbols[at])
            at += 1
    return tuple(merged)
    ### END SOLUTION


# %% id="check-merge"
merge = check("08.merge", merge)

# %% [markdown] id="learn-text"
# Now both in a loop, on the ten captions. And is it what the library `tokenizers` learns? It breaks ties in another
# way (older symbols first), so its list may part from ours where several pairs are equally frequent. What must hold:
# *each merge of the library is one of the most frequent pairs at its moment.*

# %% id="learn"
import json

from course_utils.text.tokens import train_tokenizer

learnt, now = [], dict(start)
while max(map(len, now)) > 1:  # until each word is one symbol
    learnt.append(most_frequent_pair(now))
    now = {merge(symbols, learnt[-1]): times for symbols, times in now.items()}
print(f"{len(learnt)} merges; the first:", *("+".join(pair) for pair in learnt[:8]))

library = json.loads(train_tokenizer(TEN, 700).backend_tokenizer.to_str())["model"]["merges"]
now = dict(start)
for pair in map(tuple, library):
    counts = pair_counts(now)
    assert counts[pair] == counts[most_frequent_pair(now)]
    now = {merge(symbols, pair): times for symbols, times in now.items()}
agree = next(i for i, (a, b) in enumerate(zip(learnt, library)) if a != tuple(b))
print(f"the library: {len(library)} merges, each of them a most frequent pair; the first {agree} are ours")
assert len(library) == len(learnt) and set(map(len, now)) == {1}

# %% [markdown] id="apply-text"
# To read a *new* word, start with its characters and apply the learnt merges in the order in which they were learnt.
# How many symbols do the ten captions and some new words need, after 0, 4, 8, ... merges?


# %% id="apply" tags=["static"]
def read_word(word, merges):
    """A word as symbols, by the merges in their order."""
    symbols = (*word[:-1], f"{word[-1]}</w>")
    for pair in merges:
        symbols = merge(symbols, pair)
    return symbols


counts = range(0, len(learnt) + 1, 4)
lines = {"the ten captions": sorted(words), "beaches, boats, nights, goat": ["beaches", "boats", "nights", "goat"]}
figure, ax = plt.subplots(figsize=(6, 3))
for (name, chosen), marker in zip(lines.items(), "os"):
    ax.plot(
        counts,
        [sum(len(read_word(w, learnt[:n])) for w in chosen) / len(chosen) for n in counts],
        marker + "-",
        label=name,
    )
ax.set(xlabel="merges", ylabel="symbols in a word", ylim=(0, 8))
ax.legend()
show(
    figure,
    "Symbols in a word against merges: those of the ten captions fall from nearly four to one, new words "
    "from five and a half to a little over four.",
)
print({word: read_word(word, learnt) for word in ("ball", "boats", "goat")})

# %% [markdown] id="real-tokens-text"
# The real thing: a `transformers.CLIPTokenizer` learnt from two captions each of 40,000 scenes. Each prompt gets a
# start token, an end token, and is padded to 32 tokens with *more end tokens* (Stable Diffusion v1.5: 77, and 49,408
# different ones). A word it has never met falls into pieces:

# %% id="real-tokens"
from course_utils.recipes import load_clip
from course_utils.text.tokens import tokenize

reference, tokenizer = load_clip()
for prompt in ("a cute corgi puppy sitting on the grass", "Two corgis, a dinosaur!", ""):
    print(f"{prompt!r}: {tokenizer.tokenize(prompt)}")
tokens = tokenize(tokenizer, ["a cute corgi puppy sitting on the grass", ""])
print(f"as numbers {tuple(tokens.shape)}:\n{tokens[0].tolist()}\n{tokens[1].tolist()}")
print(
    f"{len(tokenizer)} tokens; start {tokenizer.bos_token_id}, end {tokenizer.eos_token_id}, padding "
    f"{tokenizer.pad_token_id}"
)

# %% [markdown] id="encoder-text"
# ## 2 · Two encoders
#
# **The text encoder.** A token's number says nothing by itself: 17 is not "a little more" than 16. So each looks up a
# learnt vector in a table, and a learnt vector for its place is added. Then a few *blocks*, each of two steps:
#
# $$x \leftarrow x + \text{attention}(\text{norm}(x)), \qquad x \leftarrow x + \text{MLP}(\text{norm}(x))$$
#
# In words: tokens look at each other; then each thinks for itself (two layers, four times as wide inside). Attention
# and heads are those of chapter 04, with one change: a token may look only at itself and at what stands *before* it.
# That is **causal** attention. The scores of later tokens become $-\infty$, so that the softmax gives them 0.

# %% id="causal"
from course_utils.models.attention import attention


def causal_attention(q, k, v):
    """softmax of the scores, those of later tokens set to -inf, times v; q, k, v: (..., length, d)."""
    length, d = q.shape[-2:]
    later = torch.ones(length, length, dtype=torch.bool).triu(1)  # above the diagonal: key after query
    scores = (q @ k.transpose(-2, -1) / math.sqrt(d)).masked_fill(later, -math.inf)
    return scores.softmax(-1) @ v


q, k, v = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0))  # each (batch 2, heads 4, 5, 8)
ours = causal_attention(q, k, v)
torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v, is_causal=True))
torch.testing.assert_close(ours[..., -1, :], attention(q, k, v)[..., -1, :])  # the last token sees all, as in 04
torch.testing.assert_close(ours[..., 0, :], v[..., 0, :])  # the first sees only itself
print("causal attention agrees with torch's; last token as in chapter 04, first token its own value")

# %% [markdown] id="pool-text"
# What comes out are **hidden states** $H$, one vector for each of the 32 places. To compare a whole caption with a
# picture we need *one* vector. Which place? Not the first: it has seen nothing but itself. The place that has read
# everything is the **end token**, the *first* of them, since the padding repeats it. Its state goes through a last
# matrix, the projection.
#
# ### Exercise 3 · Pooling
#
# ●●○○○ · 10 minutes. Old code takes `tokens.argmax(1)`, which works as long as the end token has the largest number.
# Add a token later, to teach the model a name, and it finds that one. Look for `end` itself.


# %% id="ex-pool"
def pool(hidden, tokens, end):
    """The hidden state at each prompt's first end token; (batch, length, width), (batch, length) -> (batch, width)."""
    ### BEGIN SOLUTION
    #: where the end tokens are, and the first of them: argmax takes the first of equal values
    first = (tokens == end).int().argmax(1)  # (batch,)
    #: one place for each row
    return hidden[torch.arange(len(hidden)), first]
    ### END SOLUTION


# %% id="check-pool"
pool = check("08.pool", pool)

# %% [markdown] id="patches-text"
# **The picture encoder** is the same kind of network. A picture has no words, so it is cut into square *patches*, and
# each patch, its pixels in a row times a matrix, is a token. That product is a convolution whose stride is its kernel's
# size. One learnt vector stands in front; it gathers what the patches show, and its state is the picture's vector. No
# mask here: a picture has no before and after.

# %% id="patches" tags=["static"]
page = book.pictures([book.Scene((book.Thing("corgi", None, "sitting"),), "grass", 5)])  # (1, 3, 64, 64)
cut = F.unfold(page, 8, stride=8)  # (1, 3 * 8 * 8, 64): 64 patches, each 192 numbers
weight = reference.vision_model.embeddings.patch_embedding.weight  # (128, 3, 8, 8)
as_rows = cut.transpose(1, 2) @ weight.flatten(1).T  # (1, 64, 128)
torch.testing.assert_close(as_rows, F.conv2d(page, weight, stride=8).flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)
tiles = cut.transpose(1, 2).reshape(64, 3, 8, 8)
figure, ax = plt.subplots(figsize=(3.6, 3.6))
show(
    plot_pictures(tiles, columns=8, ax=ax),
    "A corgi on the grass, cut into eight rows of eight patches with thin gaps: most patches show a bit of sky or "
    "grass, about a dozen a part of the corgi.",
)

# %% [markdown] id="by-hand-text"
# `ClipByHand` in `models/clip_by_hand.py` puts this together in some 150 lines, all of them from this section. Is it
# CLIP? We give it the weights of a `transformers.CLIPModel`, name by name, and compare.
#
# > **The reference.** Some of this chapter needs more training than five minutes. `load_clip()` loads a CLIP of 1.8
# > million parameters that has seen 1,500 batches of 64 pages, each with one of its captions, from the whole picture
# > book: one to three things, four styles, 64 x 64 pixels. `python3 course.py train clip` makes it from nothing. Stable
# > Diffusion's CLIP has 123 million in its text encoder alone and saw 400 million pairs.

# %% id="by-hand"
from course_utils.models.clip_by_hand import ClipByHand

ours = ClipByHand(
    len(tokenizer), tokenizer.model_max_length, tokenizer.eos_token_id, width=128, layers=4, heads=4, size=64, patch=8
).requires_grad_(False)
ours.load_state_dict(reference.state_dict())  # every name and every shape must fit
prompts = ["a red ball left of a white cat", "a corgi puppy on the grass", ""]
tokens = tokenize(tokenizer, prompts)
theirs = reference(pixel_values=page, input_ids=tokens)
image, text, scale = ours(page, tokens)
for name, a, b in (
    ("pictures", image, theirs.image_embeds),
    ("captions", text, theirs.text_embeds),
    ("logits", scale * image @ text.T, theirs.logits_per_image),
):
    print(f"{name:9} {str(tuple(a.shape)):9} largest difference {(a - b).abs().max():.1e}")
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
hidden = ours.text_model(tokens)
assert torch.equal(
    pool(hidden, tokens, tokenizer.eos_token_id),
    hidden[torch.arange(3), torch.tensor([len(tokenizer(p).input_ids) - 1 for p in prompts])],
)
print(f"parameters: {sum(p.numel() for p in ours.parameters()):,}; the reference's scale is {scale:.1f}")

# %% [markdown] id="causal-seen-text"
# And causal it is. Change the last word of a prompt: **predict first**, which of the hidden states change?

# %% id="causal-seen" tags=["static"]
one, other = ours.text_model(tokenize(tokenizer, ["a red ball in the snow", "a red ball in the forest"]))
changed = (one - other).norm(dim=1)[:10]
names = ["start", "a", "red", "ball", "in", "the", "snow/forest", "end", "pad", "pad"]
figure, ax = plt.subplots(figsize=(7, 2.6))
ax.bar(range(10), changed.tolist(), color="#0072B2")
ax.set_xticks(range(10), names, fontsize=9)
ax.set(ylabel="change of the state")
ax.plot([], [])
show(
    figure,
    "How much each hidden state changes: zero for start, a, red, ball, in, the; large for the changed word, "
    "for the end token and for the padding.",
)
assert changed[:6].max() < 1e-4 < changed[6:].min()

# %% [markdown] id="causal-read"
# Nothing before the change notices. So the state at "ball" may know that the ball is red, but never what comes later.
# Section 8 will measure what each state knows.

# %% [markdown] id="loss-text"
# ## 3 · The contrastive loss
#
# How alike are a picture and a caption? Take the cosine of the angle between their vectors: 1 for the same direction,
# 0 for a right angle. Vectors of length 1 make it a plain scalar product. Then multiply by a number $s = 1/\tau$:
#
# $$\ell_{ij} = s\,\Bigl\langle \frac{I_i}{|I_i|}, \frac{T_j}{|T_j|} \Bigr\rangle$$
#
# In words: how well picture $i$ and caption $j$ fit, a number between $-s$ and $s$.
#
# ### Exercise 4 · All cosines at once
#
# ●●○○○ · 5 minutes.


# %% id="ex-logits"
def cosine_logits(image, text, scale):
    """scale times the cosine of each picture with each caption; (N, width), (M, width) -> (N, M)."""
    ### BEGIN SOLUTION
    #: unit vectors
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    #: all scalar products
    return scale * image @ text.T
    ### END SOLUTION


# %% id="check-logits"
cosine_logits = check("08.cosine_logits", cosine_logits)

# %% [markdown] id="nce-text"
# Now the batch becomes an exam. Picture $i$ asks: *which of these $N$ captions is mine?* A softmax over row $i$ turns
# its logits into probabilities, and the loss is the cross-entropy: minus the logarithm of the right one's. Caption $j$
# asks the same in column $j$. The mean of both is **InfoNCE**, made symmetric:
#
# $$L = \frac{1}{2N} \sum_i \Bigl[ -\log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ij}}}
#   -\log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ji}}} \Bigr]$$
#
# There are no classes here. The pairs themselves are the answers, and the rest of the batch are the wrong ones. Three
# pairs by hand:

# %% id="nce-by-hand"
three = cosine_logits(
    torch.tensor([[1.0, 0.1], [0.8, 0.6], [-0.2, 1.0]]), torch.tensor([[1.0, -0.1], [0.5, 0.5], [0.0, 1.0]]), 5.0
)
rows, columns = [], []
for i in range(3):
    e_row = [math.exp(three[i, j]) for j in range(3)]
    e_column = [math.exp(three[j, i]) for j in range(3)]
    rows.append(-math.log(e_row[i] / sum(e_row)))
    columns.append(-math.log(e_column[i] / sum(e_column)))
    print(
        f"picture {i}: logits {[round(value, 1) for value in three[i].tolist()]}, right one "
        f"{e_row[i] / sum(e_row):.0%}; caption {i}: right one {e_column[i] / sum(e_column):.0%}"
    )
by_hand = (sum(rows) + sum(columns)) / 6
print(f"pictures ask {sum(rows) / 3:.4f}, captions ask {sum(columns) / 3:.4f}, loss {by_hand:.4f}")

# %% [markdown] id="ex-nce-text"
# ### Exercise 5 · InfoNCE
#
# ●●●○○ · 10 minutes. `F.cross_entropy(logits, target)` takes the softmax, the logarithm and the mean. Some logits
# may be $-\infty$.


# %% id="ex-nce"
def info_nce(logits):
    """The symmetric contrastive loss of logits (N, N), pictures in rows, captions in columns, pairs on the diagonal."""
    ### BEGIN SOLUTION
    #: the right answer of row i is i
    target = torch.arange(len(logits), device=logits.device)
    #: both directions, and their mean
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    ### END SOLUTION


# %% id="check-nce"
info_nce = check("08.info_nce", info_nce)

# %% [markdown] id="nce-equal-text"
# It is the loss of transformers, and of your three pairs. Where all logits are equal it is that of guessing, $\ln N$:

# %% id="nce-equal"
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

logits = torch.randn(7, 7, generator=torch.Generator().manual_seed(1))
torch.testing.assert_close(info_nce(logits), image_text_contrastive_loss(logits.T))
assert abs(info_nce(three).item() - by_hand) < 1e-5
for size in (2, 8, 64):
    assert abs(info_nce(torch.zeros(size, size)).item() - math.log(size)) < 1e-5
    print(f"{size:2} pairs, all logits equal: loss {math.log(size):.3f} = ln {size}, that of guessing")

# %% [markdown] id="temperature-text"
# ### The temperature
#
# What does the loss do to the wrong captions of picture $i$? Its gradient says it:
#
# $$\frac{\partial L_i}{\partial \ell_{ij}} = p_{ij} - [i = j]$$
#
# where $p_{ij}$ is the probability that picture $i$ gives to caption $j$. So each wrong caption is pushed away as hard
# as it is believed. A large $s$ (a *low temperature*) puts nearly all of the push on the few nearest wrong captions;
# a small $s$ pushes all alike. And with small $s$ the softmax cannot become sure: cosines never leave $[-1, 1]$.
#
# **Predict, then look:** at $\tau = 1$, which probability can the right one of 12 captions reach at most?

# %% id="temperature-film" tags=["static"]
from course_utils.widgets import explore, filmstrip, temperature_explorer

logits = (5 * torch.eye(4) + torch.ones(4, 4)).requires_grad_()
F.cross_entropy(logits, torch.arange(4)).backward()
torch.testing.assert_close(4 * logits.grad, logits.detach().softmax(1) - torch.eye(4))  # the mean divides by 4

dozen = [scene for scene in (book.sample_scene(n, 21) for n in range(60)) if len(scene.things) == 1][:12]
image, text, _ = ours(book.pictures(dozen), tokenize(tokenizer, [book.caption(scene).text for scene in dozen]))
explorer = temperature_explorer(image, text)
filmstrip(explorer, [{"log10_temperature": value} for value in (0.0, -1.0, -2.0)])

# %% [markdown] id="temperature-live"
# Live: the temperature as its logarithm to the base 10, and how many of the twelve pairs make the batch.

# %% id="temperature-explore"
explore(explorer)

# %% [markdown] id="floor-text"
# How low can the loss be at a given $s$? The best arrangement of $N$ pairs (in enough dimensions) has cosine 1 on the
# diagonal and $-\frac{1}{N-1}$ off it (section 9). Put that into the loss:
#
# $$L_\text{min} = \ln\bigl(1 + (N-1)\,e^{-sN/(N-1)}\bigr)$$
#
# For a batch of 64 with $\tau = 1$ that is 3.17: three quarters of guessing, however good the networks are. So CLIP
# *learns* $s$, beginning at $1/0.07$, and never above 100.


# %% id="floor"
def lowest_loss(pairs, scale):
    return math.log(1 + (pairs - 1) * math.exp(-scale * pairs / (pairs - 1)))


for tau in (1, 0.3, 0.1, 0.07, 0.01):
    print(f"tau {tau:4}: 64 pairs, guessing {math.log(64):.2f}, lowest possible loss {lowest_loss(64, 1 / tau):.3g}")
print(f"12 pairs at tau = 1: the right caption gets at most {math.exp(-lowest_loss(12, 1)):.0%}")
best = torch.eye(8) - 1 / 8  # eight points as far from each other as they can be
assert abs(info_nce(cosine_logits(best, best, 3.0)).item() - lowest_loss(8, 3.0)) < 1e-5

# %% [markdown] id="data-text"
# ### Does it matter? Three measurements
#
# The data: pages with one thing, in the picture book's own style, 32 x 32 pixels. Each page has two captions in other
# words. Captions here have at most 20 tokens; the padding behind is left off. (Attention is causal: nothing that
# counts looks at it.) `facts` and `claims` say as whole numbers what a page shows and a caption claims. For tests: 300
# fresh pages, each with another plain caption.

# %% id="data"
from course_utils.metrics import pictures as metrics
from course_utils.metrics.pictures import one_thing_pages
from course_utils.recipes import fact_numbers, true_pairs

pages = one_thing_pages(budget(smoke=300, laptop=8000, gpu=20_000), seed=3)
page_pictures = book.pictures(pages, 32)  # (8000, 3, 32, 32)
captions = [[book.caption(page, k) for k in range(2)] for page in pages]
page_tokens = torch.stack([tokenize(tokenizer, [c.text for c in two])[:, :20] for two in captions])  # (8000, 2, 20)
assert (page_tokens[:, :, -1] == tokenizer.eos_token_id).all()
facts, claims = fact_numbers(pages), torch.stack([fact_numbers(two) for two in captions])

fresh = {book.caption(page).text: page for page in one_thing_pages(budget(smoke=60, laptop=700, gpu=700), seed=4)}
test_pages = list(fresh.values())[:300]
test_texts = list(fresh)[:300]
test_pictures, test_tokens = book.pictures(test_pages, 32), tokenize(tokenizer, test_texts)[:, :20]
for two in captions[:3]:
    print(" / ".join(caption.text for caption in two))

# %% [markdown] id="towers-text"
# So many trainings must be quick. So the encoders are as small as they can be: the caption is the *mean of its tokens'
# vectors* (a bag of words, no order), the picture 16 x 16 pixels through two layers. The loss is your `info_nce`. We
# measure: how often a page's own caption is the nearest of the 300, the same from caption to page, and how often the
# subject (1 of 12) is named right. (`zero_shot` and `recall_at_k` are built in sections 5 and 6.)

# %% id="towers"
from course_utils.models import clip as package

SUBJECTS = list(book.SUBJECTS)
kinds = torch.tensor([SUBJECTS.index(page.things[0].kind) for page in test_pages])
subject_tokens = torch.stack([tokenize(tokenizer, [f"a {c} {kind}" for c in COLOURS])[:, :20] for kind in SUBJECTS])


def small(pictures):
    return F.avg_pool2d(pictures, 2).flatten(1)  # (batch, 3 * 16 * 16)


class SmallTowers(nn.Module):
    """A bag of words and a two-layer network: pictures and tokens to 64 numbers each."""

    def __init__(self):
        super().__init__()
        self.read = nn.EmbeddingBag(len(tokenizer), 64)
        self.see = nn.Sequential(nn.Linear(768, 128), nn.ReLU(), nn.Linear(128, 64))

    def measure(self):
        with torch.no_grad():
            image, text = self.see(small(test_pictures)), self.read(test_tokens)
            similarity = cosine_logits(image, text, 1.0)
            said = package.zero_shot(image, self.read(subject_tokens.flatten(0, 1)).reshape(12, 8, 64))
        both = [metrics.recall_at_k(one, 1) for one in (similarity, similarity.T)]
        return *both, (said == kinds).float().mean().item()


# %% id="towers-train"
page_small = small(page_pictures)
ASK = {
    "both": info_nce,
    "pages": lambda logits: F.cross_entropy(logits, torch.arange(len(logits))),
    "captions": lambda logits: F.cross_entropy(logits.T, torch.arange(len(logits))),
}


def train_small(updates, batch=64, tau=0.1, sides="both", seed=0):
    """Train small towers: (page finds caption, caption finds page, subject right, loss of the first `batch` pages)."""
    torch.manual_seed(seed)
    towers, generator = SmallTowers(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(towers.parameters(), 2e-3)

    def loss_of(i, k):
        return ASK[sides](cosine_logits(towers.see(page_small[i]), towers.read(page_tokens[i, k]), 1 / tau))

    with torch.no_grad():
        before = loss_of(torch.arange(batch), 0).item()
    for _ in range(updates):
        i, k = (torch.randint(below, (batch,), generator=generator) for below in (len(pages), 2))
        optimizer.zero_grad()
        loss_of(i, k).backward()
        optimizer.step()
    with torch.no_grad():
        after = loss_of(torch.arange(batch), 0).item()
    assert after < before
    return *towers.measure(), after


# %% [markdown] id="towers-line-text"
# Every training fills one line of a table:

# %% id="towers-line"
HEAD = "page finds caption   caption finds page   subject        loss"
updates = budget(smoke=30, laptop=500, gpu=1000)


def line(name, found):
    print(f"{name:24}{found[0]:12.0%} {found[1]:20.0%} {found[2]:14.0%} {found[3]:10.2f}")


# %% [markdown] id="predict-three"
# **Predict first.** (1) Of the temperatures 1, 0.3, 0.1, 0.03, 0.01, which is best, and is the lowest loss the best
# model? (2) If only the pages ask, or only the captions, what becomes of the other direction? (3) Batches of 4, 16, 64,
# 256, all with the same number of updates: what do small batches never learn?

# %% id="three-run"
print(f"{'temperature':24}{HEAD}")
by_tau = {tau: train_small(updates, tau=tau) for tau in (1, 0.3, 0.1, 0.03, 0.01)}
for tau, found in by_tau.items():
    line(f"tau = {tau}", found)
print(f"\n{'who asks':24}{HEAD}")
by_side = {sides: train_small(updates, sides=sides) for sides in ("pages", "captions", "both")}
for sides, found in by_side.items():
    line(sides, found)
print(f"\n{'pairs in a batch':24}{HEAD}")
by_batch = {batch: train_small(updates, batch=batch) for batch in (4, 16, 64, 256)}
for batch, found in by_batch.items():
    line(f"{batch}", found)
print(f"{'guessing':24}{1 / len(test_pages):12.1%} {1 / len(test_pages):20.1%} {1 / 12:14.0%}")

# %% id="three-assert"
if budget(smoke=False, laptop=True, gpu=True):
    assert by_tau[1][3] > lowest_loss(64, 1)
    best, lowest = (pick(by_tau, key=lambda tau: by_tau[tau][n]) for pick, n in ((max, 1), (min, 3)))
    assert best in (0.3, 0.1) and lowest != best and by_tau[best][1] > by_tau[0.01][1] + 0.04
    assert all(by_side["both"][n] > max(by_side[one][n] for one in ("pages", "captions")) - 0.08 for n in (0, 1))
    assert all(by_side["both"][n] > by_side["captions"][n] for n in (0, 1))
    assert by_batch[4][2] < by_batch[16][2] < by_batch[64][2] < by_batch[256][2]

# %% [markdown] id="three-read"
# (1) Losses at different temperatures cannot be compared, and the lowest is not that of the best model. Too cold, and
# the nearest wrong caption gets all the attention, even if it is near by mere chance.
#
# (2) Captions alone make a worse model, *in both directions*. Pages alone are about as good as both, here. Nobody tells
# you beforehand which one is the bad one. Asking both is never far from the better, and costs one transposition.
#
# (3) With few wrong answers around, colour and place settle the exam; the *subject* is hardly needed, and hardly
# learnt. A larger batch asks harder questions. It also costs more: all batches had the same number of updates, so the
# last row saw 64 times as many pages as the first.

# %% [markdown] id="false-text"
# ### Wrong answers that are right
#
# "A red ball" may be true of two pages of a batch. InfoNCE then punishes a right answer: a **false negative**. How
# often does it happen? `same[i, j]` says that caption $j$ is true of page $i$, by `true_pairs`.

# %% id="false-count"
generator = torch.Generator().manual_seed(5)
for batch in (16, 64, 256):
    rows = []
    for _ in range(20):
        i = torch.randint(len(pages), (batch,), generator=generator)
        same = true_pairs(facts[i], claims[i, 0])
        assert same.diagonal().all()
        rows.append(((same.sum(1) - 1) > 0).float().mean().item())
    print(f"{batch:3} pairs: {sum(rows) / len(rows):.0%} of the pages have a second true caption in the batch")

# %% [markdown] id="ex-false-text"
# ### Exercise 6 · Leave them out
#
# ●●○○○ · 5 minutes. A logit of $-\infty$ is a caption that was not there, since $e^{-\infty} = 0$. The diagonal stays:
# it is the answer.


# %% id="ex-false"
def without_false_negatives(logits, same):
    """logits (N, N) with -inf where same (N, N, bool) is True off the diagonal."""
    ### BEGIN SOLUTION
    #: True on the diagonal
    own = torch.eye(len(same), dtype=torch.bool, device=same.device)
    #: true, but not the own caption
    return logits.masked_fill(same & ~own, float("-inf"))
    ### END SOLUTION


# %% id="check-false"
without_false_negatives = check("08.without_false_negatives", without_false_negatives)

# %% [markdown] id="false-toy-text"
# The two together are the package's `contrastive_loss`. In the world of coloured balls, where each caption is true of
# every eighth ball, the effect is plain. Both start as before; one is not told:

# %% id="false-toy"
vectors = F.normalize(torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(2)), dim=2)
same = torch.arange(9)[:, None] // 2 == torch.arange(9) // 2
torch.testing.assert_close(
    info_nce(without_false_negatives(cosine_logits(*vectors, 7.0), same)), contrastive_loss(*vectors, 7.0, same)
)

not_told = learn_circle(lambda image, text, same: info_nce(cosine_logits(image, text, 10.0)), steps)
for name, (image, text, last) in (("told", circles["pull and push"]), ("not told", not_told)):
    print(
        f"{name:9}: loss {last:.2f}, balls within 20 degrees of their caption "
        f"{((image * text[colour]).sum(1) > math.cos(math.radians(20))).float().mean():.0%}"
    )
print(f"64 pairs hold each colour about 8 times: not told, the loss cannot fall much below ln 8 = {math.log(8):.2f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert not_told[2] > math.log(8) - 0.3 > circles["pull and push"][2]

# %% [markdown] id="false-read"
# Both sort the balls equally well here. But whoever is not told sees a loss that seems to be stuck, and part of each
# update pushes apart what belongs together. From now on we tell.

# %% [markdown] id="train-text"
# ## 4 · Train CLIP
#
# Now the real encoders, small: two blocks, 64 numbers wide, patches of 8 x 8 pixels. The loss is
# `without_false_negatives` and `info_nce`, the scale is learnt, the loop is chapter 06's. Pages are mirrored at random:
# no caption of a single thing says left or right.

# %% id="train-loss"
from course_utils.training import MovingAverage, Samples, train

on_device = [part.to(device) for part in (page_pictures, page_tokens, facts, claims)]


def clip_loss(model, samples):
    """Contrastive loss of random pages, each with one of its two captions, false negatives left out."""
    pictures, tokens, facts, claims = on_device
    i, k = samples.integers(len(pages)).to(device), samples.integers(2, stream=1).to(device)
    mirrored = (samples.uniforms(1, 1, 1, stream=2) < 0.5).to(device)
    x = torch.where(mirrored, pictures[i].flip(3), pictures[i])
    image, text, scale = model(x, tokens[i, k])
    same = true_pairs(facts[i], claims[i, k])
    return info_nce(without_false_negatives(cosine_logits(image.float(), text.float(), scale), same))


def similarity_of(model, pictures, tokens):
    """Cosines of pictures and captions, (pictures, captions), on the CPU."""
    with torch.no_grad():
        image = torch.cat([model.encode_pictures(part) for part in pictures.to(device).split(100)])
        return cosine_logits(image, model.encode_text(tokens.to(device)), 1.0).cpu()


# %% id="train-start"
import numpy

torch.manual_seed(0)
live_clip = ClipByHand(len(tokenizer), 20, tokenizer.eos_token_id, width=64, layers=2, heads=4, size=32, patch=8)
average = MovingAverage(live_clip.to(device), 0.99)
exam = Samples(numpy.arange(10**6, 10**6 + budget(smoke=16, laptop=64, gpu=64)), seed=5)
before_matrix = similarity_of(average.model, test_pictures, test_tokens)
with torch.no_grad():
    before = clip_loss(average.model, exam).item()

# %% [markdown] id="train-loop-text"
# The training itself, and the loss on the same pages after it:

# %% id="train"
from tqdm.auto import tqdm

settings = {
    "steps": budget(smoke=20, laptop=800, gpu=3000),
    "batch": budget(smoke=16, laptop=128, gpu=256),
    "learning_rate": budget(smoke=1e-3, laptop=3e-3, gpu=1e-3),
}
live = LivePlot("The contrastive loss: a steep fall from the level of guessing, then a long slow one.", seconds=5)
for record in tqdm(train(live_clip, clip_loss, average=average, **settings), total=settings["steps"]):
    live.update(record.step, record.loss)
live.finish()
clip = average.model
with torch.no_grad():
    after = clip_loss(clip, exam).item()
print(
    f"loss on a fixed batch: before {before:.3f} (guessing {math.log(len(exam)):.3f}), after {after:.3f}; "
    f"{record.seconds:.0f} seconds; the scale has become {clip.logit_scale.exp():.1f}"
)
assert after < before

# %% [markdown] id="matrix-text"
# What has changed? Twelve pages it has never seen, and their captions, before and after:

# %% id="matrix" tags=["static"]
after_matrix = similarity_of(clip, test_pictures, test_tokens)
figure, axes = plt.subplots(1, 2, figsize=(8.6, 4), layout="constrained")
for ax, matrix, name in zip(axes, (before_matrix, after_matrix), ("before", "after")):
    drawn = ax.imshow(matrix[:12, :12], cmap="viridis", vmin=-1, vmax=1)
    ax.set(title=f"cosines {name}", xlabel="caption", ylabel="page", xticks=range(0, 12, 2), yticks=range(0, 12, 2))
    ax.grid(False)
figure.colorbar(drawn, ax=axes, shrink=0.8)
show(
    figure,
    "Two matrices of 12 pages by 12 captions. Before: one colour all over. After: bright on the diagonal, "
    "dark elsewhere, with a few bright spots where another caption nearly fits.",
)
show(plot_pictures(test_pictures[:12], test_texts[:12], columns=4), "The twelve pages with their captions.")

# %% [markdown] id="zero-text"
# ## 5 · Classes that nobody trained
#
# Nobody told these networks that there are twelve subjects. Yet they classify: write a sentence for each class, and
# take the one whose vector is nearest. New classes need a new sentence and no training: **zero-shot**.
#
# One sentence is a whim. "A cat" says nothing of colour, and in this world that *means* a cat in its natural colour. So
# say each class in several ways (templates), and take the mean direction:
#
# $$C_c = \text{unit}\Bigl(\frac1M \sum_{m=1}^{M} \text{unit}\bigl(T_{cm}\bigr)\Bigr)$$
#
# In words: the mean of the unit vectors of the $M$ prompts of class $c$, made a unit vector again.
#
# ### Exercise 7 · Zero-shot classification
#
# ●●●○○ · 10 minutes. `text` has several prompts for each class, of any length; the result is one class number for each
# picture, int64. From here on the stubs leave the lines to you.


# %% id="ex-zero"
def zero_shot(image, text):
    """The class of each picture, (pictures,); image (pictures, width), text (classes, templates, width)."""
    ### BEGIN SOLUTION
    classes = F.normalize(F.normalize(text, dim=-1).mean(1), dim=-1)
    return (image @ classes.T).argmax(1)
    ### END SOLUTION


# %% id="check-zero"
zero_shot = check("08.zero_shot", zero_shot)

# %% [markdown] id="zero-run-text"
# Three questions about one thing on a page: what is it, which colour, where? With one prompt a class, and with many.
# The live model gets fresh pages of its own narrow world. The reference gets pages with one thing in *all four styles*,
# at 64 x 64 pixels, with the style left unsaid: a harder exam.

# %% id="zero-prompts"
PLACES = list(book.PLACES)
WHERE = {place: f"in the {place}" for place in PLACES}
WHERE |= {"grass": "on the grass", "beach": "on the beach", "room": "in a room", "night": "at night"}
QUESTIONS = {  # class prompts: one template, and many
    "subject": ([[f"a {k}"] for k in SUBJECTS], [[f"a {c} {k}" for c in COLOURS] for k in SUBJECTS]),
    "colour": ([[c] for c in COLOURS], [[f"a {c} {k}" for k in SUBJECTS] for c in COLOURS]),
    "place": (
        [[WHERE[p]] for p in PLACES],
        [[f"a {c} {k} {WHERE[p]}" for c in COLOURS[::3] for k in SUBJECTS] for p in PLACES],
    ),
}


def answers(scenes):
    """The right class of each scene for each question; -1 where a colour was not chosen."""
    things = [scene.things[0] for scene in scenes]
    return {
        "subject": torch.tensor([SUBJECTS.index(thing.kind) for thing in things]),
        "colour": torch.tensor([COLOURS.index(thing.colour) if thing.colour else -1 for thing in things]),
        "place": torch.tensor([PLACES.index(scene.place) for scene in scenes]),
    }


fresh = (book.sample_scene(n, 7) for n in range(budget(smoke=80, laptop=700, gpu=700)))
single = [scene for scene in fresh if len(scene.things) == 1][:300]
single_pictures = book.pictures(single)  # (300, 3, 64, 64)

# %% id="zero-run"
right = {}
print("                      one prompt   many prompts   guessing")
for name, model, scenes, pictures, cut in (
    ("live", clip, test_pages, test_pictures, 20),
    ("reference", ours, single, single_pictures, 32),
):
    model = model.to(device)
    with torch.no_grad():
        image = torch.cat([model.encode_pictures(part) for part in pictures.to(device).split(100)])
    for question, sets in QUESTIONS.items():
        truth = answers(scenes)[question]
        for kind, prompts in zip(("one", "many"), sets):
            tokens = tokenize(tokenizer, sum(prompts, []))[:, :cut].to(device)
            with torch.no_grad():
                text = model.encode_text(tokens).reshape(len(prompts), -1, image.shape[1])
            said = zero_shot(image, text).cpu()
            assert torch.equal(said, package.zero_shot(image, text).cpu())
            right[name, question, kind] = (said == truth)[truth >= 0].float().mean().item()
        print(
            f"{name:10} {question:10}{right[name, question, 'one']:10.0%} {right[name, question, 'many']:14.0%} "
            f"{1 / len(prompts):10.0%}"
        )
ours = ours.cpu()

# %% [markdown] id="zero-read"
# Places and colours nearly always, subjects much less often, though far above guessing. Section 3 measured why: in a
# small batch of random pages colour and place settle most of the exam, so shapes are learnt last. *A contrastive model
# learns what tells its batch apart, and no more.* CLIP proper used batches of 32,768.
#
# Many prompts help with places: their mean says "anything, at this place". They are no cure for what was not learnt.

# %% id="zero-assert"
if budget(smoke=False, laptop=True, gpu=True):
    assert right["live", "place", "many"] > 0.8 and right["live", "colour", "many"] > 0.6
    assert right["reference", "place", "many"] > 0.9 and right["reference", "colour", "many"] > 0.8
    assert right["reference", "place", "many"] > right["reference", "place", "one"]
    for name in ("live", "reference"):
        assert 2 / 12 < right[name, "subject", "many"] < right[name, "colour", "many"]

# %% [markdown] id="recall-text"
# ## 6 · Searching
#
# The same vectors search: sort all pages by their cosine with a sentence. And the other way: find the sentence for a
# page. The usual measure is **recall@k**, the share of queries whose own answer is among the first $k$.
#
# ### Exercise 8 · Recall at k
#
# ●●○○○ · 10 minutes. Queries stand in rows, and query $i$'s own answer is column $i$. Return a plain number, 0 to 1.


# %% id="ex-recall"
def recall_at_k(similarity, k):
    """The share of rows i of similarity (n, n) whose own column i is among the k largest of the row."""
    ### BEGIN SOLUTION
    best = similarity.topk(k, dim=1).indices  # (n, k)
    own = torch.arange(len(similarity))[:, None]
    return (best == own).any(1).float().mean().item()
    ### END SOLUTION


# %% id="check-recall"
recall_at_k = check("08.recall_at_k", recall_at_k)

# %% [markdown] id="recall-run-text"
# Both directions, for the live model before and after training (one thing, 300 pages), and for the reference on pages
# of the whole picture book, with one to three things, in all styles, each with its plain full caption.

# %% id="recall-run"
whole = {
    book.caption(scene).text: scene
    for scene in (book.sample_scene(n, 9) for n in range(budget(smoke=40, laptop=320, gpu=320)))
}
whole_pictures, whole_tokens = book.pictures(list(whole.values())[:300]), tokenize(tokenizer, list(whole)[:300])
whole_matrix = similarity_of(ours.to(device), whole_pictures, whole_tokens)
ours = ours.cpu()
found = {}
print("                          page finds caption      caption finds page")
print("                          @1    @5    @10         @1    @5    @10")
for name, matrix in (("live, before", before_matrix), ("live, after", after_matrix), ("reference", whole_matrix)):
    both = [[recall_at_k(one, k) for k in (1, 5, 10)] for one in (matrix, matrix.T)]
    found[name] = both
    assert all(abs(recall_at_k(one, 5) - metrics.recall_at_k(one, 5)) < 1e-6 for one in (matrix, matrix.T))
    print(f"{name:20}" + "      ".join("".join(f"{value:6.0%}" for value in side) for side in both))
if budget(smoke=False, laptop=True, gpu=True):
    assert found["live, after"][0][2] > 0.8 and found["live, before"][0][2] < 0.15
    assert found["reference"][0][1] > 0.9 and found["reference"][1][1] > 0.9

# %% [markdown] id="search-text"
# To see it: three sentences, and the six nearest of 600 unseen pages, by the reference.

# %% id="search" tags=["static"]
library_pages = [book.sample_scene(n, 10) for n in range(budget(smoke=40, laptop=600, gpu=600))]
library_pictures = book.pictures(library_pages)
with torch.no_grad():
    library_vectors = torch.cat([ours.encode_pictures(part) for part in library_pictures.split(100)])


def encode(sentences):
    """Unit vectors of sentences, by the reference."""
    with torch.no_grad():
        return ours.encode_text(tokenize(tokenizer, sentences))


wishes = ["a pink tulip on the grass", "a corgi puppy at night", "a red car in the city"]
figure, axes = plt.subplots(3, 1, figsize=(7.6, 5.4))
for ax, wish in zip(axes, wishes):
    nearest = (library_vectors @ encode([wish])[0]).topk(6)
    plot_pictures(library_pictures[nearest.indices], [f"{c:.2f}" for c in nearest.values], columns=6, ax=ax)
    ax.set_title(f'"{wish}"', fontsize=10)
show(
    figure,
    "Three sentences, each above the six pages nearest to it, with their cosines: the first show what was "
    "asked for, the later ones share its colour or its place, and often not the subject.",
)

# %% [markdown] id="arithmetic-text"
# **Sums of meanings.** Directions that mean something can be added: take "a red ball", subtract "red", add "blue".
# Which sentence is nearest to the result? **Predict first:** how often, over all subjects and pairs of colours, is it
# "a blue ball"?

# %% id="arithmetic"
things = [f"a {c} {k}" for k in SUBJECTS for c in COLOURS]
vectors, plain = encode(things), encode(COLOURS)
hits = colour_hits = total = 0
for k in range(12):
    for c in range(8):
        for other in range(8):
            if other != c:
                nearest = (vectors @ (vectors[8 * k + c] - plain[c] + plain[other])).argmax().item()
                hits += nearest == 8 * k + other
                colour_hits += nearest % 8 == other
                total += 1
nearest = (vectors @ (encode(["a red ball"])[0] - plain[0] + plain[COLOURS.index("blue")])).topk(3).indices
print("a red ball - red + blue is nearest to:", ", ".join(things[i] for i in nearest.tolist()))
print(
    f"of {total} such sums {hits / total:.0%} land on the right one of {len(things)} sentences, "
    f"{colour_hits / total:.0%} on the right colour; guessing {1 / len(things):.0%}"
)
if budget(smoke=False, laptop=True, gpu=True):
    assert 0.4 < hits / total < colour_hits / total

# %% [markdown] id="explore-text"
# Now with your own hands. **Predict, then search:** what comes for "night"? For "a dinosaur"? For "a red ball in the
# snow", without "snow"?

# %% id="search-film" tags=["static"]
from course_utils.widgets import search_explorer

searching = search_explorer(library_pictures, library_vectors, encode)
asked = [
    {"wanted": "night"},
    {"wanted": "a pink tulip"},
    {"wanted": "a red ball in the snow", "without": "in the snow"},
]
filmstrip(searching, [{**one, "shown": 4} for one in asked])

# %% [markdown] id="search-live-text"
# Live: words to look for, words to take away, and how many pages to show.

# %% id="search-explore"
explore(searching)

# %% [markdown] id="binding-text"
# ## 7 · What it does not see
#
# Pages with two things of two colours, which the reference has never seen, and for each page its true sentence against
# a false one that differs in one respect. **Predict first** how often the true one gets the higher cosine if the false
# one
#
# - names another place, or another colour, or another subject;
# - swaps the two colours: "a *red* ball left of a *blue* cat" against "a *blue* ball left of a *red* cat";
# - turns the relation: right of, for left of;
# - has the same words in alphabetical order.

# %% id="binding-data"
from dataclasses import replace

pairs = [
    scene
    for scene in (book.sample_scene(n, 8) for n in range(budget(smoke=300, laptop=3000, gpu=3000)))
    if scene.relation
    and all(thing.colour for thing in scene.things)
    and scene.style == "picture book"
    and scene.things[0].colour != scene.things[1].colour
][:200]


def sentence(scene):
    a, b = (f"a {thing.colour} {thing.kind}" for thing in scene.things)
    return f"{a} {scene.relation} {b} {WHERE[scene.place]}"


def recoloured(scene, first, second):
    a, b = scene.things
    return replace(scene, things=(replace(a, colour=first), replace(b, colour=second)))


def swapped(scene):
    return recoloured(scene, scene.things[1].colour, scene.things[0].colour)


def other(words, *taken):
    return next(word for word in words if word not in taken)


# %% id="false-sentences"
def another_subject(scene):
    a, b = scene.things
    return replace(scene, things=(replace(a, kind=other(SUBJECTS[2:], a.kind, b.kind), pose=None), b))


FALSE = {
    "another place": lambda s: sentence(replace(s, place=PLACES[(PLACES.index(s.place) + 3) % 8])),
    "another colour": lambda s: sentence(
        recoloured(s, other(COLOURS, *(t.colour for t in s.things)), s.things[1].colour)
    ),
    "another subject": lambda s: sentence(another_subject(s)),
    "colours swapped": lambda s: sentence(swapped(s)),
    "relation turned": lambda s: sentence(s).replace(s.relation, book.OPPOSITE[s.relation]),
    "words in order a-z": lambda s: " ".join(sorted(sentence(s).split())),
}
print(f'for instance: "{sentence(pairs[0])}" against "{FALSE["colours swapped"](pairs[0])}"')

# %% [markdown] id="binding-false-text"
# And how often the true sentence wins:

# %% id="binding-false"
with torch.no_grad():
    pair_vectors = torch.cat([ours.encode_pictures(part) for part in book.pictures(pairs).split(100)])
true_text = encode([sentence(scene) for scene in pairs])
true_score = (pair_vectors * true_text).sum(1)
wins, scores = {}, {}
for name, change in FALSE.items():
    false_text = encode([change(scene) for scene in pairs])
    scores[name] = (pair_vectors * false_text).sum(1)
    wins[name] = (true_score > scores[name]).float().mean().item()
    print(
        f"{name:20} true sentence wins {wins[name]:4.0%}; mean cosine true {true_score.mean():.3f}, false "
        f"{scores[name].mean():.3f}; the two sentences {(true_text * false_text).sum(1).mean():.3f}"
    )

# %% [markdown] id="binding-plot-text"
# The same as a picture:

# %% id="binding-plot" tags=["static"]
figure, ax = plt.subplots(figsize=(7, 2.8))
colours_of_bars = ["#0072B2"] * 3 + ["#D55E00"] * 3
ax.barh(list(wins)[::-1], [100 * value for value in wins.values()][::-1], color=colours_of_bars[::-1])
ax.axvline(50, color="black", linestyle="--", linewidth=1)
ax.plot([], [])
ax.set(xlabel="true sentence wins, % of pages (dashed: a coin)", xlim=(0, 100))
show(
    figure,
    "Bars: the true sentence nearly always wins against another place or another colour, but against another "
    "subject, swapped colours or a turned relation only somewhat more often than a coin.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert min(wins["another place"], wins["another colour"]) > 0.9
    assert max(wins["colours swapped"], wins["relation turned"]) < 0.8

# %% [markdown] id="binding-read"
# *Which* colours: almost always. *Whose* colour, and *which side*: not much better than a coin. The score works like a
# **bag of words**. (Even the order of the alphabet lowers it less than one wrong colour does.)
#
# Why? To tell a page's caption from 63 random ones nobody needs to know whose colour it is. Only a caption with the
# *same* words in other roles would ask for that. How often is there one?

# %% id="twins"
twins = batches = 0
for first in range(0, budget(smoke=256, laptop=12_800, gpu=12_800), 64):
    seen = {book.caption(book.sample_scene(n), 0).text for n in range(first, first + 64)}  # each text once
    bags = Counter(tuple(sorted(text.split())) for text in seen)
    twins += sum(times - 1 for times in bags.values())
    batches += 1
print(f"{batches} batches of 64 captions: {twins} pairs of captions with the same words in another order")

# %% [markdown] id="twins-read"
# So the exam never asks, and the answer is never learnt: section 3's lesson again. Large CLIP models fail in the same
# way on photographs (Winoground, ARO; links below). They have one more weakness, which a world without writing cannot
# show: they can *read*, and a note that says "iPod", stuck on an apple, makes it an iPod for them.
#
# ## 8 · What Stable Diffusion reads
#
# Is the text encoder a bag of words, then? Look inside. Stable Diffusion does not read the vector that is compared with
# pictures. It reads the **hidden states**: all 32 places, before pooling and projection.

# %% id="states"
from course_utils.pipelines.picture_book import load_picture_book

pipe = load_picture_book()
tokens = tokenize(tokenizer, ["a red ball left of a blue cat"])
hidden = ours.text_model(tokens)
learnt_on = pipe.text_encoder(tokens).last_hidden_state
print(
    f"hidden states: {tuple(hidden.shape)}, such as the picture-book model of chapter 00 reads (Stable Diffusion v1.5: "
    f"1, 77, 768)\ntext vector:   {tuple(ours.encode_text(tokens).shape)}, what is compared with pictures"
)
print(
    f"cosine with the states that chapter 00's model reads today: "
    f"{F.cosine_similarity(hidden, learnt_on, dim=-1)[0, :9].mean():.2f}"
)

# %% [markdown] id="probe-text"
# They are no longer the same ones: the picture-book model's text encoder began as this one and then learnt on, together
# with the U-Net, as in the first latent diffusion model. Stable Diffusion keeps its CLIP as it is.
#
# What does each state know? A **probe** finds out: fit a *linear* map from the state to the colour (one of eight) on
# 1,200 sentences "a red ball and a blue cat", and test it on 400 others. If that works, the colour stands there, plain
# to be read. **Predict first:** which states know the first thing's colour? Which the second's?

# %% id="probe-data"
import random

rng = random.Random(0)
said = [
    (*rng.sample(COLOURS, 2), *rng.sample([k for k in SUBJECTS if k != "boat"], 2))
    for _ in range(budget(smoke=400, laptop=1600, gpu=1600))
]
tokens = tokenize(tokenizer, [f"a {c1} {k1} and a {c2} {k2}" for c1, c2, k1, k2 in said])
# start a c1 k1 and a c2 k2 end: each of these words is one token
assert (tokens[:, 8] == tokenizer.eos_token_id).all() and (tokens[:, 7] != tokenizer.eos_token_id).all()
with torch.no_grad():
    hidden, text = ours.text_model(tokens), ours.encode_text(tokens)


def probe(states, colours):
    """Share of unseen sentences whose colour a ridge regression reads from the states (sentences, width)."""
    cut = len(states) * 3 // 4
    x = F.pad(states.double(), (0, 1), value=1)
    y = F.one_hot(torch.tensor([COLOURS.index(c) for c in colours]), 8).double()
    weights = torch.linalg.solve(x[:cut].T @ x[:cut] + 1e-2 * torch.eye(x.shape[1]), x[:cut].T @ y[:cut])
    return ((x[cut:] @ weights).argmax(1) == y[cut:].argmax(1)).float().mean().item()


# %% id="probe-run"
places_to_look = {
    "state at the first thing": hidden[:, 3],
    "state at the second thing": hidden[:, 7],
    "state at the end token": hidden[:, 8],
    "text vector": text,
}
known = {}
print("                             first colour   second colour   (guessing 12%)")
for name, states in places_to_look.items():
    known[name] = [probe(states, [one[n] for one in said]) for n in (0, 1)]
    print(f"{name:28}{known[name][0]:12.0%} {known[name][1]:15.0%}")
if budget(smoke=False, laptop=True, gpu=True):
    assert min(known["state at the first thing"][0], *known["state at the second thing"]) > 0.95
    assert known["state at the first thing"][1] < 0.3 and min(known["text vector"]) > 0.9

# %% [markdown] id="probe-read"
# The text encoder *does* know whose colour is which, even in the single vector. So the words are not a bag. It is the
# **comparison** with pictures that is: one cosine between two vectors, trained by an exam that never asks.
#
# And causality shows: at the first thing nothing is known of the second.
#
# That is why a generator can be better at binding than the CLIP that its text encoder comes from. It throws the cosine
# away, reads all states, and each pixel may look at the states that it needs (attention again, chapter 10). The same
# prompts, twice:


# %% id="states-vs-vector"
def states_and_vector(prompt):
    with torch.no_grad():
        tokens = tokenize(tokenizer, [prompt])
        return ours.text_model(tokens)[0], ours.encode_text(tokens)[0]


one, one_vector = states_and_vector("a red ball and a blue cat")
two, two_vector = states_and_vector("a blue ball and a red cat")
cosines = F.cosine_similarity(one[:9], two[:9])
print("cosine of the two sentences, state by state:")
print(
    "  "
    + ", ".join(
        f"{name} {value:.2f}"
        for name, value in zip(
            ("start", "a", "red/blue", "ball", "and", "a", "blue/red", "cat", "end"), cosines.tolist()
        )
    )
)
print(f"  and as text vectors {one_vector @ two_vector:.2f}")
assert cosines[0] > 0.999 and cosines[3] < one_vector @ two_vector

# %% [markdown] id="elsewhere"
# ## 9 · What you will read elsewhere
#
# **"Contrastive learning maximises the similarity of similar samples and minimises that of dissimilar ones."** The
# second half is not so. The loss only *compares*: the right caption must be nearer than the others. Nor could all the
# others be far. For $N$ unit vectors $0 \le |\sum_i v_i|^2 = N + \sum_{i \ne j} \langle v_i, v_j \rangle$, so the mean
# cosine of different ones is at least $-\frac{1}{N-1}$: for many, nearly 0. That is what training reaches *on
# average*. One by one, wrong captions that are nearly right stay near:


# %% id="elsewhere-minimise"
def shared(a, b):
    """How many of subject, colour and place two pages have in common."""
    return sum((a.things[0].kind == b.things[0].kind, a.things[0].colour == b.things[0].colour, a.place == b.place))


count = len(test_pages)
common = torch.tensor([[shared(a, b) for b in test_pages] for a in test_pages])
off = ~torch.eye(count, dtype=torch.bool)
print(f"live model: cosine of a page and its own caption {after_matrix.diagonal().mean():.2f}")
by_shared = [after_matrix[off & (common == n)].mean().item() for n in range(3)]
for n, value in enumerate(by_shared):
    print(f"  with captions that share {n} of subject, colour, place: {value:+.2f}")
print(
    f"  with all captions but its own {after_matrix[off].mean():+.3f} (lowest possible, if pairs coincide: "
    f"{-1 / (count - 1):+.3f})"
)
if budget(smoke=False, laptop=True, gpu=True):
    assert by_shared[0] < by_shared[1] < by_shared[2] < after_matrix.diagonal().mean() and by_shared[0] > -0.5

# %% [markdown] id="elsewhere-self"
# It is also called *self-supervised*. In CLIP the supervision was written by people: a caption is a label, in words.
#
# **"A higher CLIP score means that the prompt is followed."** The score of section 7's *false* sentence, with the
# colours swapped, against a sentence that is *true* but says less:

# %% id="elsewhere-score"
short = encode([" and ".join(f"a {thing.colour} {thing.kind}" for thing in scene.things) for scene in pairs])
short_score = (pair_vectors * short).sum(1)
beaten = (scores["colours swapped"] > short_score).float().mean().item()
print(
    f"mean cosine: true and long {true_score.mean():.3f}, false and long {scores['colours swapped'].mean():.3f}, "
    f"true and short {short_score.mean():.3f}\nthe false one beats the true short one on {beaten:.0%} of the pages"
)
if budget(smoke=False, laptop=True, gpu=True):
    assert beaten > 0.6

# %% [markdown] id="elsewhere-score-read"
# A cosine says how many words fit, and how long the sentence is. It can rank *pages for one sentence*; across sentences
# it means little. For "is everything there, and in its place?" this course has the judge (chapter 15).
#
# **"CLIP understands the sentence."** Its text encoder carries the roles; its score ignores them. Once more:

# %% id="elsewhere-understands"
for name in ("another colour", "words in order a-z", "relation turned"):
    print(f"{name:20} lowers the mean cosine by {(true_score - scores[name]).mean():.3f}")

# %% [markdown] id="elsewhere-temperature"
# **"The temperature is a detail."** The numbers of section 3, a line each: how many of 300 pages find their caption,
# with nothing changed but $\tau$.

# %% id="elsewhere-temperature-run"
for tau, (pages_right, captions_right, _, last) in by_tau.items():
    print(
        f"tau {tau:4}: page finds caption {pages_right:.0%}, caption finds page {captions_right:.0%}; loss {last:.2f}"
    )

# %% [markdown] id="next"
# ## The failure that comes next
#
# We have sentences as numbers. So put them into chapter 06's network, and draw pages instead of digits? Pages have
# 64 x 64 pixels of three colours. The same U-Net, one look at 32 pictures:

# %% id="next-run"
from time import perf_counter

from course_utils.models.unet import PictureUNet

times = {}
for size, channels in ((16, 1), (64, 3)):
    torch.manual_seed(0)
    network = PictureUNet(channels=channels, size=size, widths=(16, 32, 32))
    with torch.no_grad():
        for _ in range(budget(smoke=2, laptop=5, gpu=5)):
            started = perf_counter()
            network(torch.zeros(32, channels, size, size), torch.zeros(32, dtype=torch.long))
            times[size] = min(perf_counter() - started, times.get(size, math.inf))
    print(f"{channels} x {size} x {size}: {channels * size * size:6} numbers a picture, {1000 * times[size]:6.1f} ms")
ratio = times[64] / times[16]
print(
    f"{ratio:.0f} times the time: a training of two minutes becomes one of {2 * ratio:.0f}, with a network that is "
    "too small for pages"
)

# %% [markdown] id="next-read"
# Pages are also harder than digits, and want a larger network. Most of the work goes into pixels that an autoencoder
# could have predicted. Chapter 09 moves diffusion to where there are fewer numbers; chapter
# 10 brings the sentences in.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | the most frequent pair becomes a symbol | `most_frequent_pair(words)`, `merge(symbols, pair)` |
# | $x \leftarrow x + \text{attention}(\text{norm}(x))$, later tokens at $-\infty$ | `causal_attention(q, k, v)` |
# | $T = W\,H_\text{first end token}$ | `pool(hidden, tokens, end)` |
# | $\ell_{ij} = s\,\langle I_i, T_j \rangle$, $s = 1/\tau$ | `cosine_logits(image, text, scale)` |
# | $\frac12[\text{CE(rows)} + \text{CE(columns)}]$ | `info_nce(logits)` |
# | $\ell_{ij} = -\infty$ if $j$ is true of $i$ too | `without_false_negatives(logits, same)` |
# | $\arg\max_c \langle I, C_c \rangle$ | `zero_shot(image, text)` |
# | own answer among the first $k$ | `recall_at_k(similarity, k)` |
#
# Five sentences to keep: Pulling alone lets all crowd together; wrong answers are what teaches. The temperature says
# which of them push. A contrastive model learns what tells its batch apart, and no more. Its score is a bag of words;
# its text encoder is not. Stable Diffusion reads the hidden states, all of them.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. You train with batches in which all pages show corgis. What will the model know that ours does
# not, and what will it not know?</summary>
# Poses, and whatever else tells one corgi page from another. Not what a corgi is: it never helps to tell the captions
# of such a batch apart.
# </details>
# <details><summary>2. Someone reports a contrastive loss of 0.9 with batches of 256, you have 0.5 with batches of 32.
# Who is better?</summary>
# Nobody can say: guessing gives ln 256 = 5.5 for the one and ln 32 = 3.5 for the other, and the temperatures may
# differ. Compare recall on the same test set.
# </details>
# <details><summary>3. Why can the empty prompt "" be encoded at all, and what are its 32 hidden states?</summary>
# It is start, end, and padding with end tokens, each at its own place. The states are the same for every empty prompt,
# whatever is drawn: a fixed "nothing asked". Chapter 10 trains with it and steers against it.
# </details>

# %% [markdown] id="papers"
# **Papers** CLIP: Radford et al., [arXiv:2103.00020](https://arxiv.org/abs/2103.00020). Byte pairs: Sennrich et al.,
# [arXiv:1508.07909](https://arxiv.org/abs/1508.07909). InfoNCE: van den Oord et al.,
# [arXiv:1807.03748](https://arxiv.org/abs/1807.03748). Patches as words: Dosovitskiy et al.,
# [arXiv:2010.11929](https://arxiv.org/abs/2010.11929). What the temperature does: Wang and Liu,
# [arXiv:2012.09740](https://arxiv.org/abs/2012.09740). Alignment and uniformity on the sphere: Wang and Isola,
# [arXiv:2005.10242](https://arxiv.org/abs/2005.10242). Bags of words, and twins as a cure: Yuksekgonul et al. (ARO),
# [arXiv:2210.01936](https://arxiv.org/abs/2210.01936); Thrush et al. (Winoground),
# [arXiv:2204.03162](https://arxiv.org/abs/2204.03162); that only the comparison is one: Koishigarina et al.,
# [arXiv:2502.03566](https://arxiv.org/abs/2502.03566). A note on an apple: Goh et al.,
# [distill.pub](https://distill.pub/2021/multimodal-neurons/). CLIP as a score: Hessel et al.,
# [arXiv:2104.08718](https://arxiv.org/abs/2104.08718).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: where the picture encoder looks
#
# The learnt first token gathers from the patches by attention. Its weights in the last block, averaged over the four
# heads, show from where.

# %% id="bonus-run" tags=["static"]
from course_utils.models.attention import attention_weights, split_heads

shown = book.pictures([scene for scene in library_pages if len(scene.things) == 1][:5])
with torch.no_grad():
    vision = ours.vision_model
    x = vision.pre_layrnorm(vision.embeddings(shown))
    for layer in vision.encoder.layers[:-1]:
        x = layer(x, causal=False)
    last = vision.encoder.layers[-1]
    x = last.layer_norm1(x)
    q, k = (split_heads(part(x), 4) for part in (last.self_attn.q_proj, last.self_attn.k_proj))
    looks = attention_weights(q, k)[:, :, 0, 1:].mean(1).reshape(-1, 1, 8, 8)  # (pages, 1, rows, columns)
looks = F.interpolate(looks / looks.amax((2, 3), keepdim=True), scale_factor=8).expand(-1, 3, -1, -1)
show(
    plot_pictures(torch.cat([shown, 2 * looks - 1]), columns=5),
    "Above: five pages with one thing each. Below: where the first token looks, brighter where more.",
)

# %% [markdown] id="bonus-read"
# Does it look at the thing, or at the background that tells the place? Compare a page whose place is plain with one
# where it is not, and look at the other blocks.
