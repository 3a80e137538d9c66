# %% [markdown] id="title"
# # 08 · Contrastive language-image learning
#
# Chapter 07 can draw a digit, but not the digit that you want. To request one in words, a network needs sentences as
# numbers, and these numbers must be related to what images show. This chapter builds CLIP (*contrastive language-image
# pre-training*): one network encodes sentences, another encodes images, and both are trained so that a caption and its
# image get similar vectors. Stable Diffusion uses the network for sentences.
#
# ![Three sentences and the six pages, of 600 unseen ones, that the model ranks first for each: some show what the
# sentence describes, others only a part of it: the thing, the colour or the place.](../chapters/figures/08_search.png)
#
# **After this chapter you can**
# 1. learn a byte-pair vocabulary by hand, and follow a prompt from text to vectors, with all shapes;
# 2. write the contrastive loss, and measure the effect of temperature, of both directions and of the batch size;
# 3. classify and search without labels, and name three things that a CLIP score does *not* measure;
# 4. train image against image, and show that the augmentations decide what is learned.
#
# **Time** two and three quarter hours, 85 minutes of them for nine exercises. All trainings together take about seven
# minutes on a CPU, all cells about ten. **You need** attention and heads from chapter 04, and the training loop of
# chapter 06.

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
# A *page* is one image of the picture book, the course's small world of drawn scenes with captions.
#
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $N$ | `len(pictures)` | pairs of an image and a caption in a batch | a number |
# | $S$, $d$ | `length`, `width` | tokens in a prompt, width of a vector | numbers |
# | | `pictures` | images with values in $[-1, 1]$ | (batch, 3, size, size) |
# | | `tokens` | prompts as whole numbers | (batch, length) |
# | $H$ | `hidden` | hidden states: one vector for each token | (batch, length, width) |
# | $I_i$, $C_j$ | `image`, `text` | the vector of image $i$, of caption $j$ | (batch, width) |
# | $\tau$ | `tau`; `scale` is $1/\tau$ | the temperature | a number |
# | $\ell_{ij}$ | `logits` | $\langle I_i, C_j\rangle / \tau$ of unit vectors: how well they match | (batch, batch) |
# | $L$ | `loss` | the contrastive loss | a number |

# %% [markdown] id="toy"
# ## Agreement is not enough
#
# Begin with a very small world: balls in eight colours, on any background. A caption is just one of eight numbers, the
# colour. A network maps each image to a point on a circle, and a table maps each caption to a point on the same circle.
# An image and its caption should land in the same place.
#
# The first idea is to **pull**: for each pair, lower the loss $1 - \langle I_i, C_i \rangle$, one minus the cosine of
# the angle between them.
#
# The second idea is `contrastive_loss` (given here, built in section 3): pull pairs together *and* push images away
# from the captions of other colours.
#
# **Predict first:** with pulling alone, the loss will fall to nearly 0. Will each ball then be nearest to the caption
# of its own colour?
#
# <details><summary>Answer (after running the cells below)</summary>
# Not each: 79% of the 512 balls are, against 100% with pushing (the titles of the figure). Images and captions do meet,
# but several colours share nearly the same place: nothing in the loss keeps them apart.
# </details>

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
# Both losses train the same networks from the same start. `same` marks the captions of the batch that name the same
# colour. In the figure below only directions count: the dots of the balls are drawn inside the circle, at several
# distances from its centre, so that they do not cover each other.


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
others = {}
figure, axes = plt.subplots(1, 2, figsize=(8, 4))
for ax, name in zip(axes, circles):
    image, text, last = circles[name]
    for number, word in enumerate(COLOURS):
        paint = [value / 255 for value in book.COLOURS[word]]
        dots = image[colour == number] * torch.linspace(0.75, 0.95, 64)[:, None]
        ax.plot(dots[:, 0], dots[:, 1], ".", color=paint, markersize=4)
        ax.plot(*text[number], "o", color=paint, markeredgecolor="black", markersize=11)
    found = ((image @ text.T).argmax(1) == colour).float().mean().item()
    others[name] = ((text @ text.T).sum().item() - 8) / 56
    ax.set(title=f"{name}\nloss {last:.4f}, colour right {found:.0%}", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))
    ax.set_aspect("equal")
    ax.axis("off")
    print(f"{name}: loss {last:.4f}, mean cosine of two different captions {others[name]:+.3f}")
figure.set_facecolor("#D9D9D9")
show(
    figure,
    "Balls as dots in their colours, captions as larger circles. Pull only: all captions but white crowd together on a "
    "part of the circle. Pull and push: eight groups, spread over the whole circle.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert others["pull only"] > 0.2 and others["pull and push"] < -0.1
    near = circles["pull only"][1] @ circles["pull only"][1].T > 0.5  # within 60 degrees
    assert sorted(near.sum(1).tolist()) == [1] + [7] * 7 and near[COLOURS.index("white")].sum() == 1

# %% [markdown] id="toy-read"
# Pulling alone makes the loss small, yet seven of the eight colours crowd together in this run, because nothing keeps
# them apart. A network that outputs *one* vector for every input would even have the loss 0; this is called *collapse*.
# With pushing, the eight colours spread over the whole circle. Their mean cosine comes near $-1/7$, the lowest value
# that is possible for eight points (section 9 shows why).
#
# Real captions are sentences, not eight numbers. So how does a sentence become numbers?

# %% [markdown] id="tokens-text"
# ## 1 · Words to tokens
#
# A network needs whole numbers below a fixed limit, the size of the *vocabulary*. With one number for each word, a word
# that never occurred in training is unknown. With one number for each letter, every sentence becomes long. *Byte-pair
# encoding* lies between the two:
#
# 1. start with single characters;
# 2. find the pair of neighbouring symbols that is most frequent in the text, and make it a new symbol;
# 3. repeat until the vocabulary is as large as you want.
#
# Frequent words become one symbol, rare words remain several pieces, and a new word is no problem as long as its
# characters are known. Pairs never cross the boundary between words: the last character of each word carries the mark
# `</w>`. Each symbol of the final vocabulary is a *token*. The next cell takes ten captions and prints three of their
# words, *ball*, *blue* and *boat*, as symbols.

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


def pair_counts(words):
    """How often each pair occurs in the text: look up one pair after the other."""
    counts = {}
    for symbols in words:
        for pair in neighbours(symbols):
            counts[pair] = 0
    for pair in counts:
        for symbols, times in words.items():
            counts[pair] += times * neighbours(symbols).count(pair)
    return counts


ranked = sorted(pair_counts(start).items(), key=lambda item: (-item[1], item[0]))
print("most frequent pairs:", ranked[:4])

# %% [markdown] id="ex-pair-text"
# ### Exercise 1 · The most frequent pair
#
# ●●○○○ · 10 minutes. `words` maps each word, a tuple of symbols, to how often it occurs in the text. (The counting
# above goes through all words again for each pair. Once is enough.) If several pairs are equally frequent, take the
# first in the order of Python's tuples, so that everyone learns the same vocabulary.


# %% id="ex-pair"
def most_frequent_pair(words):
    """The pair of neighbouring symbols that is most frequent in the text; words: {tuple of symbols: times}."""
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
# ●●○○○ · 10 minutes. `merge(("b", "a", "l", "l</w>"), ("a", "l"))` is `("b", "al", "l</w>")`. Work from left to
# right; a symbol that has been merged cannot be merged again in the same pass.


# %% id="ex-merge"
def merge(symbols, pair):
    """The symbols of a word (a tuple) with every occurrence of the pair joined into one symbol."""
    ### BEGIN SOLUTION
    merged, at = [], 0
    #: walk through the word; `at` is where you are
    while at < len(symbols):
        #: the pair: join it and skip both; otherwise keep one symbol
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
# Now put both in a loop over the ten captions. Does the library `tokenizers` learn the same merges? It breaks ties in
# another way (older symbols first), so its list may differ from ours where several pairs are equally frequent. What
# must hold: *each merge of the library is one of the most frequent pairs at that moment.*

# %% id="learn"
import json

from course_utils.text.tokens import train_tokenizer

learned, now = [], dict(start)
while max(map(len, now)) > 1:  # until each word is one symbol
    learned.append(most_frequent_pair(now))
    now = {merge(symbols, learned[-1]): times for symbols, times in now.items()}
print(f"{len(learned)} merges; the first:", *("+".join(pair) for pair in learned[:8]))

library = json.loads(train_tokenizer(TEN, 700).backend_tokenizer.to_str())["model"]["merges"]
now = dict(start)
for pair in map(tuple, library):
    counts = pair_counts(now)
    assert counts[pair] == counts[most_frequent_pair(now)]
    now = {merge(symbols, pair): times for symbols, times in now.items()}
agree = next(i for i, (a, b) in enumerate(zip(learned, library)) if a != tuple(b))
print(f"the library: {len(library)} merges, each of them a most frequent pair; the first {agree} are ours")
assert len(library) == len(learned) and set(map(len, now)) == {1}

# %% [markdown] id="apply-text"
# To encode a *new* word, start with its characters and apply the merges in the order in which they were learned. How
# many symbols per word do the ten captions and four new words need, after 0, 4, 8, … merges?


# %% id="apply" tags=["static"]
def read_word(word, merges):
    """A word as symbols, by the merges in their order."""
    symbols = (*word[:-1], f"{word[-1]}</w>")
    for pair in merges:
        symbols = merge(symbols, pair)
    return symbols


def mean_length(chosen, merges):
    return sum(len(read_word(word, merges)) for word in chosen) / len(chosen)


counts = range(0, len(learned) + 1, 4)
figure, ax = plt.subplots(figsize=(6, 3))
for name, chosen in (("the ten captions", sorted(words)), ("new words", ["beaches", "boats", "nights", "goat"])):
    ax.plot(counts, [mean_length(chosen, learned[:n]) for n in counts], "o-", label=name)
ax.set(xlabel="merges", ylabel="symbols in a word", ylim=(0, 8))
ax.legend()
show(
    figure,
    "Mean number of symbols in a word against the number of merges. It falls nearly to one for the words of the ten "
    "captions, and much less for the new words.",
)
print({word: read_word(word, learned) for word in ("ball", "boats", "goat")})

# %% [markdown] id="real-tokens-text"
# The word *boats* still has four pieces although *boat* is one symbol by now: the `t</w>` in that symbol ends a word,
# and the t of *boats* does not.
#
# The course's own tokenizer is a `transformers.CLIPTokenizer`, trained on two captions of each of 40,000 scenes. It
# starts not from the characters of the captions but from the 256 bytes that any text consists of, each once inside a
# word and once at its end: so no word is unknown. Its 848 tokens are these 512, the learned merges, and two special
# ones, start and end. Every prompt gets a start token and an end token, and is padded to $S = 32$ tokens with *more end
# tokens* (Stable Diffusion v1.5: 77 tokens, from a vocabulary of 49,408). A word that did not occur in training is
# split into pieces. (`load_clip` also returns a trained CLIP, the *reference*, which section 2 describes.)

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
# **The text encoder.** A token's number has no meaning as a quantity: 17 is not "a little more" than 16. So each
# token is replaced by a learned vector from a table, its *embedding*, and a learned vector for its position is added.
# Then follow several *transformer blocks*, each with two steps:
#
# $$H \leftarrow H + \text{attention}(\text{norm}(H)), \qquad H \leftarrow H + \text{MLP}(\text{norm}(H))$$
#
# In words: attention lets tokens exchange information; then the MLP (*multi-layer perceptron*: two layers, four times
# as wide inside) processes each token separately. Before each of them, layer norm (chapter 04) normalises each token's
# vector. Attention and heads are those of chapter 04, with one change: a token attends only to itself and to tokens
# *before* it. This is **causal** attention. The scores of later tokens become $-\infty$, so that the softmax gives them
# weight 0.

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
torch.testing.assert_close(ours[..., -1, :], attention(q, k, v)[..., -1, :])  # the last token attends to all, as in 04
torch.testing.assert_close(ours[..., 0, :], v[..., 0, :])  # the first only to itself
print("causal attention agrees with torch's; last token as in chapter 04, first token its own value")

# %% [markdown] id="pool-text"
# The output is the **hidden states** $H$, one vector for each of the 32 positions. To compare a whole caption with an
# image we need *one* vector. The first position cannot serve: it attends only to itself. The earliest position that
# attends to the whole caption is the one of the **end token**. (The padding repeats this token, so the *first* end
# token is meant.) A final matrix, the *projection*, maps its state to the caption vector $C_j$.
#
# ### Exercise 3 · Pooling
#
# ●●○○○ · 10 minutes. Older code uses `tokens.argmax(1)`, which works as long as the end token has the largest number.
# If you add a token later, to teach the model a name, that code finds the new token instead. Look for `end` itself,
# which every prompt contains.


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
# **The image encoder** is the same kind of network, called a *vision transformer*. An image has no words, so it is
# cut into square *patches*. Each patch, its pixels written in one row and multiplied by a matrix $W$, becomes a
# token:

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
    "A corgi on the grass, cut into eight rows of eight patches with thin gaps: most patches show sky or grass, "
    "some a part of the corgi.",
)

# %% [markdown] id="ex-patches-text"
# So the product is a convolution whose stride equals its kernel size. One more learned vector stands in front of the
# patches. It collects information from them, and a projection of its own maps its final state to the image vector
# $I_i$. There is no causal mask: an image has no before and after. A learned vector for each position is added to all
# tokens:
#
# $$H_0 = \text{first} + \text{place}_0, \qquad H_j = W\,\text{patch}_j + \text{place}_j$$
#
# In words: "first" is the learned first vector, $\text{place}_j$ the vector of position $j$; patches are numbered from
# 1, row by row, from the top left.
#
# ### Exercise 4 · Images to tokens
#
# ●●●○○ · 15 minutes. Patches do not overlap, and `weight` has their size. It must work for any batch, any patch size
# and for images that are not square; both sides are multiples of the patch's. The result has the dtype of the inputs,
# and gradients reach all four of them.


# %% id="ex-patches"
def embed_patches(pictures, weight, first, places):
    """Tokens of images: first, then the patches, plus places; (batch, 3, height, width) -> (batch, 1 + patches, d).

    weight: (d, 3, patch, patch), first: (d,), places: (1 + patches, d)
    """
    ### BEGIN SOLUTION
    #: multiply each patch by the matrix: a convolution without overlap
    grid = F.conv2d(pictures, weight, stride=weight.shape[-1])  # (batch, d, rows, columns)
    #: patches row by row, as tokens
    patches = grid.flatten(2).transpose(1, 2)  # (batch, patches, d)
    #: the first token of each image in front, then the positions
    front = first.expand(len(pictures), 1, -1)  # (batch, 1, d)
    return torch.cat([front, patches], dim=1) + places
    ### END SOLUTION


# %% id="check-patches"
embed_patches = check("08.embed_patches", embed_patches)

# %% [markdown] id="by-hand-text"
# `ClipByHand` in `models/clip_by_hand.py` assembles all this in fewer than 200 lines. Is it really CLIP? We load the
# weights of a `transformers.CLIPModel` into it, name by name, and compare the outputs.
#
# > **The reference.** Some experiments need more training than five minutes. `load_clip()` loads a CLIP with 1.8
# > million parameters, trained on 1,500 batches of 64 pages, each with one of its captions, from the whole picture
# > book: one to three things, four styles, 64 x 64 pixels. `python3 course.py train clip` trains it from scratch. The
# > CLIP of Stable Diffusion v1.5 has 123 million parameters in its text encoder alone and was trained on 400 million
# > pairs.

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
    ("images", image, theirs.image_embeds),
    ("captions", text, theirs.text_embeds),
    ("logits", scale * image @ text.T, theirs.logits_per_image),
):
    print(f"{name:9} {str(tuple(a.shape)):9} largest difference {(a - b).abs().max():.1e}")
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

# %% [markdown] id="by-hand-yours-text"
# And are your `pool` and `embed_patches` the parts that it needs? Both must reproduce what the model computes:

# %% id="by-hand-yours"
hidden = ours.text_model(tokens)
lengths = torch.tensor([len(tokenizer(prompt).input_ids) for prompt in prompts])
assert torch.equal(pool(hidden, tokens, tokenizer.eos_token_id), hidden[torch.arange(3), lengths - 1])
parts = ours.vision_model.embeddings
yours = embed_patches(page, parts.patch_embedding.weight, parts.class_embedding, parts.position_embedding.weight)
torch.testing.assert_close(yours, reference.vision_model.embeddings(page), rtol=1e-4, atol=1e-4)
print(f"image tokens {tuple(yours.shape)}: the same as in transformers")
print(f"parameters: {sum(p.numel() for p in ours.parameters()):,}; the reference's 1 / tau is {scale:.1f}")

# %% [markdown] id="causal-seen-text"
# A check that the text encoder is causal: change the last word of a prompt. The bars below show the length of the
# difference between the two states at each position. **Predict first:** which of the hidden states change?
#
# <details><summary>Answer (after running the cell below)</summary>
# The states at the changed word and at all later positions: the end token and the padding. Earlier states stay
# exactly the same, since they do not attend to later tokens.
# </details>

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
# Nothing before the change is affected. The state at "ball" can therefore contain that the ball is red, but nothing
# about the words that follow. Section 8 measures what each state contains.

# %% [markdown] id="loss-text"
# ## 3 · The contrastive loss
#
# How similar are an image and a caption? Take the cosine of the angle between their vectors: 1 for the same
# direction, 0 for a right angle. Once $I_i$ and $C_j$ are scaled to length 1, the cosine is their scalar product.
# Divide it by a number $\tau$, the *temperature*:
#
# $$\ell_{ij} = \frac{\langle I_i, C_j \rangle}{\tau}$$
#
# In words: how well image $i$ and caption $j$ match, a number between $-1/\tau$ and $1/\tau$. The code multiplies by
# `scale`, which is $1/\tau$.
#
# ### Exercise 5 · All cosines at once
#
# ●●○○○ · 5 minutes. The vectors that come in need not be unit vectors, and the numbers of images and captions
# may differ.


# %% id="ex-logits"
def cosine_logits(image, text, scale):
    """scale times the cosine of each image with each caption; (N, width), (M, width) -> (N, M)."""
    ### BEGIN SOLUTION
    #: unit vectors
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    #: all scalar products
    return scale * image @ text.T
    ### END SOLUTION


# %% id="check-logits"
cosine_logits = check("08.cosine_logits", cosine_logits)

# %% [markdown] id="nce-text"
# Now the batch becomes a classification task. For image $i$: *which of these $N$ captions belongs to it?* A softmax
# over row $i$ turns its logits into probabilities, and the loss is the cross-entropy: minus the logarithm of the
# probability of the right caption. For caption $j$, the same happens in column $j$. The mean of both directions is
# the symmetric **InfoNCE** loss:
#
# $$L = \frac{1}{2N} \sum_i \Bigl[ -\log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ij}}}
#   -\log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ji}}} \Bigr]$$
#
# No class labels are needed. The pair itself is the right answer, the *positive*; the rest of the batch are wrong
# answers, the *negatives*. Three pairs by hand:

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
        f"image {i}: logits {[round(value, 1) for value in three[i].tolist()]}, right one "
        f"{e_row[i] / sum(e_row):.0%}; caption {i}: right one {e_column[i] / sum(e_column):.0%}"
    )
by_hand = (sum(rows) + sum(columns)) / 6
print(f"rows (images) {sum(rows) / 3:.4f}, columns (captions) {sum(columns) / 3:.4f}, loss {by_hand:.4f}")

# %% [markdown] id="ex-nce-text"
# ### Exercise 6 · InfoNCE
#
# ●●●○○ · 10 minutes. `F.cross_entropy(logits, target)` computes the softmax, the logarithm and the mean. The result is
# a tensor with a single number. Some logits off the diagonal may be $-\infty$.


# %% id="ex-nce"
def info_nce(logits):
    """The symmetric contrastive loss of logits (N, N), images in rows, captions in columns, pairs on the diagonal."""
    ### BEGIN SOLUTION
    #: the right answer of row i is i
    target = torch.arange(len(logits), device=logits.device)
    #: both directions, and their mean
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    ### END SOLUTION


# %% id="check-nce"
info_nce = check("08.info_nce", info_nce)

# %% [markdown] id="nce-equal-text"
# Your function agrees with the loss in transformers and with the three pairs above. If all logits are equal, the loss
# is $\ln N$, the value for guessing:

# %% id="nce-equal"
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

logits = torch.randn(7, 7, generator=torch.Generator().manual_seed(1))
torch.testing.assert_close(info_nce(logits), image_text_contrastive_loss(logits.T))
assert abs(info_nce(three).item() - by_hand) < 1e-5
for size in (2, 8, 64):
    assert abs(info_nce(torch.zeros(size, size)).item() - math.log(size)) < 1e-5
    print(f"{size:2} pairs, all logits equal: loss {math.log(size):.3f} = ln {size} (guessing)")

# %% [markdown] id="temperature-text"
# ### The temperature
#
# How does the loss act on the wrong captions of image $i$? Its gradient shows it:
#
# $$\frac{\partial L_i}{\partial \ell_{ij}} = p_{ij} - [i = j]$$
#
# where $L_i$ is the cross-entropy of row $i$, $p_{ij}$ is the softmax probability of caption $j$ for image $i$, and
# $[i = j]$ is 1 for the right caption, else 0. Each wrong caption is pushed away in proportion to its probability. A
# *low temperature* (small $\tau$) concentrates the push on the few nearest wrong captions; a high one pushes all almost
# equally. With a high temperature the softmax cannot give any of many captions a probability near 1 either, because
# cosines stay within $[-1, 1]$. The figure below shows the probabilities for twelve pairs, and how the push on the
# first image is divided among its wrong captions.
#
# **Predict first:** take 12 pairs at $\tau = 1$, arranged so that every image gives its right caption the same
# probability. How high can this probability be?
#
# <details><summary>Answer (after running the cells below)</summary>
# About 21%: in the best arrangement the right logit is 1 and each wrong one $-1/11$. The code cell after the slider
# computes the bound. (One image alone could reach 40%, with all wrong captions in the direction opposite to its own,
# but then the other eleven captions coincide, and nothing distinguishes them.)
# </details>

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
# Now with a slider for the base-10 logarithm of the temperature, and another for how many of the twelve pairs are in
# the batch. Which of the two changes the right caption's probability, and when?
#
# <details><summary>Answer</summary>
# Both. Fewer pairs leave less competition, so the probability rises. A lower temperature raises it towards 1 where the
# right caption is the nearest; where another one is nearer, it finally falls to 0.
# </details>

# %% id="temperature-explore"
explore(explorer)

# %% [markdown] id="floor-text"
# How low can the loss, a mean over the batch, be at a given $\tau$? The best arrangement of $N$ pairs (in enough
# dimensions) has cosine 1 on the diagonal and $-\frac{1}{N-1}$ elsewhere (section 9). Put these values into the loss:
#
# $$L_\text{min} = \ln\Bigl(1 + (N-1)\,e^{-\frac{N}{(N-1)\tau}}\Bigr)$$
#
# For a batch of 64 with $\tau = 1$ that is 3.17, three quarters of the value for guessing, however good the networks
# are. CLIP does not fix $\tau$ but *learns* it, starting at 0.07 and never going below 0.01.


# %% id="floor"
def lowest_loss(pairs, scale):
    return math.log(1 + (pairs - 1) * math.exp(-scale * pairs / (pairs - 1)))


for tau in (1, 0.3, 0.1, 0.07, 0.01):
    print(f"tau {tau:4}: 64 pairs, guessing {math.log(64):.2f}, lowest possible loss {lowest_loss(64, 1 / tau):.3g}")
print(f"12 pairs at tau = 1: the right caption gets at most {math.exp(-lowest_loss(12, 1)):.0%}")
best = torch.eye(8) - 1 / 8  # eight points as far apart as possible
assert abs(info_nce(cosine_logits(best, best, 3.0)).item() - lowest_loss(8, 3.0)) < 1e-5

# %% [markdown] id="data-text"
# ### Does it matter? Three measurements
#
# The data: pages with one thing, in the picture book's own style, 32 x 32 pixels. Each page has two captions, which may
# differ in their words and in what they leave out, such as the place. Captions have at most 20 tokens here, and the
# padding behind them is cut off (attention is causal, so nothing before it changes). `facts` and `claims` encode as
# whole numbers what a page shows and what a caption states. For tests: up to 300 new pages, no two with the same
# caption. (The pages are new; a caption may have occurred in training, with another page.)

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
# To train many models quickly, both encoders are as small as possible: the caption vector is the *mean of its tokens'
# vectors* (a *bag of words*, which ignores order), and the image, 16 x 16 pixels, passes through two layers. The loss
# is your `info_nce`. We measure how often a page's own caption is the nearest of all test captions, the same from
# caption to page, and how often the subject (1 of 12) is classified correctly. (`zero_shot` and `recall_at_k` are
# built in sections 5 and 6.)

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
LOSSES = {
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
        return LOSSES[sides](cosine_logits(towers.see(page_small[i]), towers.read(page_tokens[i, k]), 1 / tau))

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
# Every setting is trained with three seeds; a line of the table shows the mean, and in brackets the lowest
# and the highest.

# %% id="towers-line"
HEAD = "page finds caption   caption finds page    subject"
updates = budget(smoke=30, laptop=500, gpu=1000)
SEEDS = range(budget(smoke=1, laptop=3, gpu=3))


def trained(count=updates, **settings):
    """Results of one setting, (seeds, 4)."""
    return torch.tensor([train_small(count, seed=seed, **settings) for seed in SEEDS])


def line(name, found):
    cells = []
    for column in found.T[:3]:
        cells.append(f"{column.mean():4.0%} ({column.min():.0%} to {column.max():.0%})".rjust(20))
    print(f"{name:20}{' '.join(cells)}   loss {found[:, 3].mean():.2f}")


# %% [markdown] id="predict-three"
# **Predict first.** (1) Which of the temperatures 1, 0.3, 0.1, 0.03, 0.01 gives the best model, and is it the one
# with the lowest loss? (2) If only the rows (page to caption) are trained, or only the columns, what happens to the
# other direction? (3) Take batches of 16, 64 and 256 pairs, and train each on *the same number of pages*. Which is
# best?
#
# <details><summary>Answer (after running the cell below)</summary>
# (1) A middle one, 0.1 or 0.3, whose ranges overlap; the lowest mean loss belongs to 0.03, which retrieves worse. (2)
# It works, too, since both use the same vectors; trained on the columns alone, pages find their captions less often in
# the mean of the seeds. (3) The batch of 16 has the highest means here, the batch of 256 by far the lowest. With equal
# pages, smaller batches make more updates; that is not the only difference (see below).
# </details>

# %% id="three-run"
print(f"{'temperature':24}{HEAD}")
by_tau = {tau: trained(tau=tau) for tau in (1, 0.3, 0.1, 0.03, 0.01)}
for tau, found in by_tau.items():
    line(f"tau = {tau}", found)
print(f"\n{'trained direction':24}{HEAD}")
by_side = {"both": by_tau[0.1], "pages": trained(sides="pages"), "captions": trained(sides="captions")}
for sides, found in by_side.items():
    line(sides, found)
print(f"\n{'pairs in a batch':24}{HEAD}")
by_batch = {64: by_tau[0.1]}
for batch in (16, 256):
    by_batch[batch] = trained(updates * 64 // batch, batch=batch)
for batch in (16, 64, 256):
    line(f"{batch}, {updates * 64 // batch} updates", by_batch[batch])
print(f"{'guessing':24}{1 / len(test_pages):.1%} for both searches, {1 / 12:.0%} for the subject")

# %% id="three-assert"
if budget(smoke=False, laptop=True, gpu=True):
    retrieval = {tau: found[:, :2].mean() for tau, found in by_tau.items()}
    losses = {tau: found[:, 3].mean() for tau, found in by_tau.items()}
    best = max(retrieval, key=retrieval.get)
    assert losses[1] > lowest_loss(64, 1)
    assert by_side["captions"][:, 0].mean() < by_side["both"][:, 0].mean() - 0.02
    assert best != min(losses, key=losses.get) and retrieval[best] > max(retrieval[1], retrieval[0.01])
if budget(smoke=False, laptop=True, gpu=False):
    assert by_batch[256][:, :3].mean() < min(by_batch[batch][:, :3].mean() for batch in (16, 64))

# %% [markdown] id="three-read"
# (1) Losses at different temperatures cannot be compared. The lowest mean loss, at $\tau = 0.03$, does not belong to
# the best model: at 0.1 both searches succeed more often, with ranges that do not overlap. (Where ranges overlap, as
# for 0.1 and 0.3, three seeds do not separate the settings. The loss is computed on training pages, and at another
# temperature or batch size it is another measure.) A likely reason for the poor results at a very low temperature: the
# nearest wrong caption gets almost the whole push, even if it is near by chance.
#
# (2) Training one direction also serves the other, since both use the same vectors. The rows alone do about as well as
# both directions. The columns alone have lower means, above all when pages look for their captions (60% against 69%);
# but their three seeds differ widely, and the two ranges meet at 67%. CLIP trains both directions, which costs one
# transposition.
#
# (3) All three trainings used the same number of pages. The batch of 256 is clearly the worst *here*, but more than the
# size differs: it made only a quarter of the updates of the line above; the learning rate, the same for all, may suit
# one size better than another; and a larger batch has more captions that are treated as wrong although they are true
# (the next topic). This comparison does not separate these causes. "Larger batches are better" is a statement about
# long trainings: CLIP used 32,768 pairs in a batch.

# %% [markdown] id="false-text"
# ### Wrong answers that are right
#
# "A red ball" may be true of two pages in a batch. InfoNCE then pushes away a caption that is correct, a **false
# negative**. How often does this happen? The next cell counts in 20 random batches of each size. `same[i, j]`, computed
# by `true_pairs`, states whether caption $j$ is true of page $i$.

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
# ### Exercise 7 · Leave them out
#
# ●●○○○ · 5 minutes. A logit of $-\infty$ removes a caption from the softmax, since $e^{-\infty} = 0$. The diagonal, the
# right answer, stays.


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
# Together, the two functions are the package's `contrastive_loss`. Back to the coloured balls, where each caption is
# true of every eighth ball. Both trainings start from the same weights; one leaves false negatives out, one keeps
# them:

# %% id="false-toy"
vectors = F.normalize(torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(2)), dim=2)
same = torch.arange(9)[:, None] // 2 == torch.arange(9) // 2
yours = info_nce(without_false_negatives(cosine_logits(*vectors, 7.0), same))
torch.testing.assert_close(yours, contrastive_loss(*vectors, 7.0, same))


def false_negatives_kept(image, text, same):
    return info_nce(cosine_logits(image, text, 10.0))


kept = learn_circle(false_negatives_kept, steps)
for name, found in (("left out", circles["pull and push"]), ("kept", kept)):
    image, text, last = found
    near = (image * text[colour]).sum(1) > math.cos(math.radians(20))
    print(f"{name:9}: loss {last:.2f}, balls within 20 degrees of their caption {near.float().mean():.0%}")
print(f"64 pairs hold each colour about 8 times: ln 8 = {math.log(8):.2f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert kept[2] > math.log(8) - 0.3 > circles["pull and push"][2]

# %% [markdown] id="false-read"
# In this world both place the balls near their captions. But with false negatives the loss of these 64 balls cannot
# fall below $\ln 8$, since each caption occurs eight times. The final loss of 2.19 then looks like a failed training,
# and part of each update pushes apart what belongs together. From now on we leave false negatives out.

# %% [markdown] id="train-text"
# ## 4 · Train CLIP
#
# Now the real encoders, in a small version: two blocks, width 64, patches of 8 x 8 pixels. We call it the *live* model,
# to distinguish it from the reference. The loss combines `without_false_negatives` and `info_nce`, the temperature is
# learned, and the training loop is chapter 06's. Pages are mirrored at random: their captions stay true, since no
# caption of a single thing contains left or right.

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
# The training itself. The loss is measured on the same batch of training pages before and after it:

# %% id="train"
from tqdm.auto import tqdm

settings = {
    "steps": budget(smoke=20, laptop=800, gpu=3000),
    "batch": budget(smoke=16, laptop=128, gpu=256),
    "learning_rate": budget(smoke=1e-3, laptop=3e-3, gpu=1e-3),
}
live = LivePlot("The contrastive loss: a steep fall from the level of guessing, then a slower one.", seconds=5)
for record in tqdm(train(live_clip, clip_loss, average=average, **settings), total=settings["steps"]):
    live.update(record.step, record.loss)
live.finish()
clip = average.model
with torch.no_grad():
    after = clip_loss(clip, exam).item()
print(
    f"loss on a fixed batch: before {before:.3f} (guessing {math.log(len(exam)):.3f}), after {after:.3f}; "
    f"{record.seconds:.0f} seconds; 1 / tau is now {clip.logit_scale.exp():.1f}"
)
assert after < before

# %% [markdown] id="matrix-text"
# What has changed? Below are the cosines of twelve pages that were not used in training with their captions. Before the
# training all of them are much alike. After it, each page's own caption has the highest cosine in its row; the other
# cosines range from about −0.7 to 0.7.

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
    "Two matrices of 12 pages by 12 captions. Before: nearly one colour all over. After: bright on the diagonal, "
    "lower elsewhere, for most pairs near 0.",
)
show(plot_pictures(test_pictures[:12], test_texts[:12], columns=4), "The twelve pages with their captions.")
if budget(smoke=False, laptop=True, gpu=True):
    elsewhere = after_matrix - torch.diag(after_matrix.diagonal())
    assert after_matrix.diagonal().mean() > elsewhere.mean() + 0.3 and before_matrix.std() < 0.1

# %% [markdown] id="zero-text"
# ## 5 · Classes without class labels
#
# These networks were never trained to classify twelve subjects. Yet they can: write a sentence for each class, and
# choose the class whose vector is nearest to the image's. New classes need new sentences but no training:
# **zero-shot** classification.
#
# A single sentence can mislead. "A cat" does not mention a colour, and in this world that *means* a cat in its natural
# colour. So describe each class with several sentences (*templates*), and take the mean direction:
#
# $$\bar C_\text{class} = \text{unit}\Bigl(\underset{j \in \text{class}}{\text{mean}}\; \text{unit}(C_j)\Bigr)$$
#
# In words: the mean of the unit vectors of a class's prompts, scaled to length 1 again.
#
# ### Exercise 8 · Zero-shot classification
#
# ●●●○○ · 10 minutes. `text` contains several prompts for each class; the vectors need not be unit vectors. The result
# is one class number for each image, from 0, int64. From here on, the stubs contain no comments.


# %% id="ex-zero"
def zero_shot(image, text):
    """The class of each image, (pictures,); image (pictures, width), text (classes, templates, width)."""
    ### BEGIN SOLUTION
    classes = F.normalize(F.normalize(text, dim=-1).mean(1), dim=-1)
    return (image @ classes.T).argmax(1)
    ### END SOLUTION


# %% id="check-zero"
zero_shot = check("08.zero_shot", zero_shot)

# %% [markdown] id="zero-run-text"
# Three questions about the one thing on a page: what is it, which colour, where? Each with one prompt per class, and
# with many. The live model is tested on new pages like those of its training. The reference is tested on pages with one
# thing in *all four styles*, at 64 x 64 pixels: another test, so do not compare the two models line by line. Each test
# has 300 pages; the colour counts only where one was chosen, on somewhat more than 200 of them. In brackets: an
# approximate 95% interval, $\pm 1.96 \sqrt{\text{share}\,(1 - \text{share})/\text{pages}}$, from the share of correct
# pages and the number of pages.

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

# %% [markdown] id="zero-interval-text"
# How precise is a share of that many pages?


# %% id="zero-interval"
def interval(share, count):
    return f"{share:.0%} (±{1.96 * math.sqrt(share * (1 - share) / count):.0%})"


print("half of 300 pages:", interval(0.5, 300))

# %% [markdown] id="zero-line-text"
# All three questions, for both models:

# %% id="zero-run"
right = {}
print("                          one prompt    many prompts   guessing")
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
        count = int((truth >= 0).sum())
        shown = [interval(right[name, question, kind], count).rjust(15) for kind in ("one", "many")]
        print(f"{name:10} {question:10} {shown[0]} {shown[1]} {1 / len(prompts):10.0%}")
ours = ours.cpu()

# %% [markdown] id="zero-read"
# With many prompts, places are nearly always right and colours in about nine cases of ten; subjects much less often,
# though far above guessing. One likely reason: colour and place are simple features, and they alone rule out most of
# the wrong captions in a batch of random pages. Shapes help only with the few that remain. Batches with harder
# negatives (pages of the same colour and place) would test this explanation.
#
# Many prompts help with places: their mean stands for "anything, at this place". They are not always better: on these
# pages, the reference gets more subjects right with the single prompt, although the two intervals overlap. The choice
# of templates needs testing as well.

# %% id="zero-assert"
if budget(smoke=False, laptop=True, gpu=True):
    assert right["live", "place", "many"] > 0.8 and right["live", "colour", "many"] > 0.8
    assert right["reference", "place", "many"] > 0.9 and right["reference", "colour", "many"] > 0.8
    assert right["reference", "place", "many"] > right["reference", "place", "one"]
    assert right["reference", "subject", "one"] > right["reference", "subject", "many"]
    for name in ("live", "reference"):
        assert 2 / 12 < right[name, "subject", "many"] < right[name, "colour", "many"]

# %% [markdown] id="recall-text"
# ## 6 · Searching
#
# The same vectors can search: sort all pages by their cosine with a sentence, or all sentences by their cosine with a
# page. The usual measure is **recall@k**, the share of queries whose own answer is among the first $k$ results.
#
# ### Exercise 9 · Recall at k
#
# ●●○○○ · 10 minutes. Queries are in rows, and query $i$'s own answer is column $i$. Return a plain number
# between 0 and 1. If several values tie at the limit, take those that `topk` takes; the check contains no ties.


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
# Both directions, for the live model before and after training (one thing, up to 300 pages), and for the reference on
# pages of the whole picture book: one to three things, all styles, each page with its full caption. With 300 queries, a
# share of 88% has an interval of about ±4 points.

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
# After training, the right answer comes first in nearly nine of ten searches, for both models and in both directions.
# An example: three sentences, and the six pages nearest to each among 600 new ones, by the reference.

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
    "Three sentences, each above the six pages nearest to it, with their cosines. Some pages show what the sentence "
    "describes, others only a part of it: the thing, the colour or the place.",
)

# %% [markdown] id="arithmetic-text"
# **Adding meanings.** If differences between vectors carry meaning, they can be added: take the vector of "a red ball",
# subtract that of "red", and add that of "blue". **Predict first:** over all subjects and pairs of colours, how often
# is the nearest of the 96 sentences "a *colour* *subject*" the right one, with the subject kept and the colour changed?
#
# <details><summary>Answer (after running the cell below)</summary>
# In somewhat more than half of the 672 sums. The colour is almost always the new one, but in about four of ten cases
# the <em>subject</em> changes. The example above is one of them: look at the first printed line.
# </details>

# %% id="arithmetic"
things = [f"a {c} {k}" for k in SUBJECTS for c in COLOURS]
vectors, plain = encode(things), encode(COLOURS)


def nearest_to_sum(subject, colour, other):
    """The sentence nearest to "a colour subject" - "colour" + "other": its subject and its colour."""
    moved = vectors[8 * subject + colour] - plain[colour] + plain[other]
    return divmod((vectors @ moved).argmax().item(), 8)


sums = []
for subject in range(12):
    for colour_number in range(8):
        for other in range(8):
            if other != colour_number:
                kind, tint = nearest_to_sum(subject, colour_number, other)
                sums.append([kind == subject and tint == other, tint == other, kind == subject])
both, colour_right, subject_right = torch.tensor(sums).float().mean(0).tolist()
kind, tint = nearest_to_sum(SUBJECTS.index("ball"), COLOURS.index("red"), COLOURS.index("blue"))
print(f"a red ball - red + blue is nearest to: a {COLOURS[tint]} {SUBJECTS[kind]}")
print(f"{len(sums)} sums: colour right {colour_right:.0%}, subject kept {subject_right:.0%}, both {both:.0%}")
if budget(smoke=False, laptop=True, gpu=True):
    assert 0.45 < both < 0.75 and colour_right > 0.95
    assert (SUBJECTS[kind], COLOURS[tint]) == ("rabbit", "blue")

# %% [markdown] id="arithmetic-read"
# The colour changes as intended, almost always. The subject is lost in about four sums of ten. One likely reason: the
# vector of "blue" alone is not a pure direction of colour, since a text without a thing also lies closer to some
# subjects than to others. The example above is such a case: its result is a blue rabbit. A single example proves
# little, whether it works or not.

# %% [markdown] id="explore-text"
# Searches can be combined in the same way. **Predict first:** which four pages are nearest to "night"? To "a pink
# tulip"? To "a red ball in the snow" if the vector of "in the snow" is subtracted?
#
# <details><summary>Answer (after running the cell below)</summary>
# "night" finds four dark pages with different animals. "a pink tulip" finds four pages with one, at three places. With
# "in the snow" subtracted, none of the four pages shows snow, but more than the snow is lost: only one shows a red
# ball, the others show red animals or pink houses.
# </details>

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
# Now with controls: words to search for, words to subtract, and the number of pages. Try "a dinosaur" as well: no page
# shows one, and the word is split into pieces, but some pages are always the nearest and have their cosines.

# %% id="search-explore"
explore(searching)

# %% [markdown] id="binding-text"
# ## 7 · What the score misses
#
# Take new pages with two things of two colours. For each, compare its true sentence with a false one that differs in
# one respect. **Predict first** how often the true one gets the higher cosine if the false one
#
# - names another place, or another colour, or another subject;
# - swaps the two colours: "a *red* ball left of a *blue* cat" becomes "a *blue* ball left of a *red* cat";
# - reverses the relation: right of instead of left of;
# - has the same words in alphabetical order.
#
# <details><summary>Answer (after running the cell below)</summary>
# Another place or colour is noticed nearly always, alphabetical order in about four cases of five, another subject in
# about seven of ten, swapped colours in two thirds, and the reversed relation in about six of ten, not much more often
# than by guessing (50%). The figure below the table has the intervals.
# </details>

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
def another_place(scene):
    return sentence(replace(scene, place=PLACES[(PLACES.index(scene.place) + 3) % 8]))


def another_colour(scene):
    first, second = (thing.colour for thing in scene.things)
    return sentence(recoloured(scene, other(COLOURS, first, second), second))


def another_subject(scene):
    a, b = scene.things
    return sentence(replace(scene, things=(replace(a, kind=other(SUBJECTS[2:], a.kind, b.kind), pose=None), b)))


def colours_swapped(scene):
    return sentence(swapped(scene))


def relation_reversed(scene):
    return sentence(scene).replace(scene.relation, book.OPPOSITE[scene.relation])


def in_alphabetical_order(scene):
    return " ".join(sorted(sentence(scene).split()))


# %% [markdown] id="false-table-text"
# Another colour or subject is given to the first thing, and it is the first in the course's list that the page does not
# show: *red* unless the page shows that, and *rabbit* unless it shows one. So the two results are mostly about red and
# about rabbits. The names of the changes, and an example:

# %% id="false-table"
FALSE = {
    "another place": another_place,
    "another colour": another_colour,
    "another subject": another_subject,
    "colours swapped": colours_swapped,
    "relation reversed": relation_reversed,
    "words in order a-z": in_alphabetical_order,
}
print(f'for instance: "{sentence(pairs[0])}" against "{colours_swapped(pairs[0])}"')

# %% [markdown] id="binding-false-text"
# How often does the true sentence get the higher cosine?

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
# The same numbers as a bar chart, with approximate 95% intervals from the 199 pages. Blue: the false sentence names
# something that is not there; orange: it arranges the page, or the words, in another way.

# %% id="binding-plot" tags=["static"]
figure, ax = plt.subplots(figsize=(7, 2.8))
colours_of_bars = ["#0072B2"] * 3 + ["#D55E00"] * 3
names = list(wins)[::-1]
shares = torch.tensor([wins[name] for name in names])
errors = 196 * (shares * (1 - shares) / len(pairs)).sqrt()
ax.barh(names, (100 * shares).tolist(), xerr=errors.tolist(), color=colours_of_bars[::-1])
ax.axvline(50, color="black", linestyle="--", linewidth=1)
ax.set(xlabel="true sentence wins, % of pages (dashed: guessing)", xlim=(0, 100))
show(
    figure,
    "Bars: the true sentence nearly always wins against another place or another colour, but against "
    "swapped colours or a reversed relation only somewhat more often than by guessing.",
)
if budget(smoke=False, laptop=True, gpu=True):
    assert min(wins["another place"], wins["another colour"]) > 0.9
    assert len(pairs) == 199
    assert max(wins["colours swapped"], wins["relation reversed"]) < 0.75
    assert 0.6 < wins["another subject"] < 0.8 and 0.7 < wins["words in order a-z"] < 0.9

# %% [markdown] id="binding-read"
# *Which* colours occur: almost always noticed. *Which thing* has which colour, and on *which side* it is: in 66% and
# 59% of the 199 pages (each ±7 points), where guessing gives half. In this respect the score works much like a **bag of
# words**. It is not exactly one: sentences in alphabetical order lose in about four cases of five. The other *thing* is
# noticed less often than the other colour (70% against 98%), as in section 5.
#
# The training task offers an explanation. To tell a page's caption from 63 random ones, it is hardly ever necessary to
# know which thing has which colour. It would be most necessary against a caption with the *same* words in other roles.
# How often does a batch contain one?

# %% id="twins"
twins = batches = 0
for first in range(0, budget(smoke=256, laptop=12_800, gpu=12_800), 64):
    seen = {book.caption(book.sample_scene(n), 0).text for n in range(first, first + 64)}  # each text once
    bags = Counter(tuple(sorted(text.split())) for text in seen)
    twins += sum(times - 1 for times in bags.values())
    batches += 1
print(f"{batches} batches of 64 captions: {twins} pairs of captions with the same words in another order")

# %% [markdown] id="twins-read"
# Not one such *hard negative* occurs in 200 batches, so the training presumably does little to reward binding colours
# to things. Large CLIP models fail in the same way on photographs (Winoground and ARO; links below). Another weakness
# cannot appear in a world without writing: a large CLIP responds to written words, so that an apple with a note "iPod"
# on it is classified as an iPod.
#
# ## 8 · What Stable Diffusion reads
#
# Is the text encoder itself a bag of words, then? Stable Diffusion does not use the single vector that is compared with
# images. It uses the **hidden states**: all positions, before pooling and projection.

# %% id="states"
from course_utils.pipelines.picture_book import load_picture_book

pipe = load_picture_book()
tokens = tokenize(tokenizer, ["a red ball left of a blue cat"])
hidden = ours.text_model(tokens)
learned_on = pipe.text_encoder(tokens).last_hidden_state
print(
    f"hidden states: {tuple(hidden.shape)}, such as the picture-book model of chapter 00 reads (Stable Diffusion v1.5: "
    f"1, 77, 768)\ntext vector:   {tuple(ours.encode_text(tokens).shape)}, what is compared with pictures"
)
print(
    f"cosine with the states of the text encoder of chapter 00's model: "
    f"{F.cosine_similarity(hidden, learned_on, dim=-1)[0, :9].mean():.2f}"
)

# %% [markdown] id="probe-text"
# The two sets of states differ: the text encoder of the picture-book model started from this one and was trained
# further, together with the U-Net, as in the first latent diffusion model. Stable Diffusion keeps its CLIP fixed.
#
# What information does a vector contain? A **probe** measures it: fit a *linear* map from the vector to a property,
# and test it on other sentences. First the colours by *position*: in "a red ball and a blue cat", the first colour
# and the second, with 1,200 sentences to fit and 400 to test. **Predict first:** which states contain the first
# colour? Which the second?
#
# <details><summary>Answer (after running the cell below)</summary>
# The state at the first thing contains the first colour, but not the second, since attention is causal: the share stays
# near guessing. The later states and the text vector contain both.
# </details>

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
# Causal attention is visible: from the state at the first thing, the probe cannot predict the second colour. (The two
# colours of a sentence always differ. If the first is known, seven are left, and guessing is right in 14% of the
# cases.) The later vectors contain both colours. But this probe only reads a *position*: it does not show that a colour
# is bound to a *thing*.
#
# The right question names a thing: *which colour is the ball?*, where the ball comes first in half of the sentences
# and second in the others. A bag of words contains two colours and no hint which of them is the ball's, so no probe
# of it can exceed 50% in the long run. **Predict first:** what does the probe reach on the text vector?
#
# <details><summary>Answer (after running the cell below)</summary>
# Well above 50%: roughly 80% to 95%, depending on the thing. The end token's state is a little better than the text
# vector.
# </details>


# %% id="probe-named"
def about(thing, count):
    """Sentences with the thing first or second, by turns, and the colour of the thing."""
    rng = random.Random(1)
    sentences, colours = [], []
    for n in range(count):
        its, others = rng.sample(COLOURS, 2)
        other_kind = rng.choice([kind for kind in SUBJECTS if kind not in ("boat", thing)])
        phrases = [f"a {its} {thing}", f"a {others} {other_kind}"]
        if n % 2 == 1:
            phrases.reverse()
        sentences.append(" and ".join(phrases))
        colours.append(its)
    return sentences, colours


def bag_of(tokens):
    """How often each token of the vocabulary occurs in a sentence, (sentences, used tokens)."""
    bags = torch.stack([torch.bincount(row, minlength=len(tokenizer)) for row in tokens]).double()
    return bags[:, bags.sum(0) > 0]


# %% [markdown] id="probe-named-text"
# For three things, each with 1,200 sentences to fit and 400 to test; the interval comes from these 400:

# %% id="probe-named-run"
named = {}
print("colour of       bag of words       end token     text vector")
for thing in ("ball", "cat", "car"):
    sentences, colours = about(thing, budget(smoke=160, laptop=1600, gpu=1600))
    words_in = tokenize(tokenizer, sentences)[:, :9]  # start, seven words, end; the padding left off
    with torch.no_grad():
        at_end, as_vector = ours.text_model(words_in)[:, 8], ours.encode_text(words_in)
    named[thing] = [probe(states, colours) for states in (bag_of(words_in), at_end, as_vector)]
    shown = [interval(share, len(sentences) // 4).rjust(15) for share in named[thing]]
    print(f"the {thing:8}", *shown)
if budget(smoke=False, laptop=True, gpu=True):
    for bag, end_state, vector in named.values():
        assert bag < 0.6 and end_state > 0.75 and vector > 0.7

# %% [markdown] id="probe-named-read"
# So the text encoder does represent which thing has which colour, even in the single vector: for these three things,
# far more than a bag of words could. It is hardly used in the **comparison** with images: one cosine between two
# vectors, trained on a task that hardly ever depends on it. (We have not probed the image encoder. Koishigarina et al.,
# linked below, find that large CLIP models represent binding in both encoders.)
#
# A generator can therefore be better at binding than the CLIP whose text encoder it uses. It does not use the cosine;
# it reads all hidden states, and each position of the image can attend to the states that it needs (chapter 10).
# Compare the two prompts with swapped colours, state by state:


# %% id="states-vs-vector"
def states_and_vector(prompt):
    with torch.no_grad():
        tokens = tokenize(tokenizer, [prompt])
        return ours.text_model(tokens)[0], ours.encode_text(tokens)[0]


one, one_vector = states_and_vector("a red ball and a blue cat")
two, two_vector = states_and_vector("a blue ball and a red cat")
cosines = F.cosine_similarity(one[:9], two[:9])
print("cosine of the two prompts, state by state:")
names = ("start", "a", "red/blue", "ball", "and", "a", "blue/red", "cat", "end")
for name, value in zip(names, cosines.tolist()):
    print(f"  {name:12}{value:5.2f}")
print(f"  text vectors{one_vector @ two_vector:5.2f}")
assert cosines[0] > 0.999 and cosines[3] < one_vector @ two_vector - 0.3 and cosines[8] > 0.8

# %% [markdown] id="states-read"
# The start token's states are equal (cosine 1), since no word precedes them. At "ball", the states of the two prompts
# are very different: one prompt has "red" before it, the other "blue". At the end token and in the text vector they are
# almost the same. In this example, the colour of the first thing thus makes by far the largest difference near the
# thing itself, in states that the comparison with images does not use directly, and that a generator receives.

# %% [markdown] id="simclr-text"
# ## Without captions: image against image
#
# Contrastive learning needs pairs, not captions. In *self-supervised* learning (SimCLR), a pair is made of one image:
# two random **augmentations** of it, such as two different crops, are the positive pair, and the augmentations of all
# other images are the negatives. The loss is InfoNCE over all $2N$ views, called *NT-Xent* (normalised,
# temperature-scaled cross-entropy):
#
# $$L = \frac{1}{2N} \sum_{i=1}^{2N} -\log \frac{e^{\ell_{ii'}}}{\sum_{j \ne i} e^{\ell_{ij}}}$$
#
# In words: $\ell_{ij}$ is the cosine of views $i$ and $j$ divided by $\tau$, and $i'$ is the other view of the image
# that $i$ was made from. A view is never compared with itself.
#
# The augmentations decide what the vectors ignore: whatever differs between two views cannot be used to match them.
# **Predict first:** we train with crops and mirroring, and then again with *colour jitter* as well (the colour channels
# are permuted and scaled at random). Which of the two keeps the colour of the thing, and which the subject?
#
# <details><summary>Answer (after running the cells below)</summary>
# Without jitter, the colour of the thing can be read off well. With jitter, much less, even less than from the
# network before training: colour no longer helps to find the other view. The subject is read off better
# with jitter.
# </details>


# %% id="simclr-views"
def augment(images, jitter, generator):
    """Random crops, mirrored half of the time, 16 x 16 pixels; with jitter, in random colours."""
    count = len(images)
    zoom = 0.5 + 0.5 * torch.rand(count, generator=generator)
    side = torch.randint(2, (count,), generator=generator) * 2 - 1
    window = torch.zeros(count, 2, 3)
    window[:, 0, 0] = zoom * side
    window[:, 1, 1] = zoom
    window[:, :, 2] = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - zoom)[:, None]
    grid = F.affine_grid(window, (count, 3, 16, 16), align_corners=False)
    views = F.grid_sample(images, grid, align_corners=False)
    if jitter:
        order = torch.rand(count, 3, generator=generator).argsort(1)
        views = views.gather(1, order[:, :, None, None].expand_as(views))
        gain = 0.6 + 0.8 * torch.rand(count, 3, 1, 1, generator=generator)
        views = ((views + 1) * gain - 1).clamp(-1, 1)
    return views


# %% [markdown] id="simclr-loss-text"
# Views 0 to $N - 1$ and views $N$ to $2N - 1$ are made from the same images, in the same order:


# %% id="simclr-loss" tags=["static"]
def nt_xent(one, other, tau=0.2):
    """InfoNCE over 2N views; one, other: (N, width), two views of the same images."""
    count = len(one)
    views = torch.cat([one, other])
    itself = torch.eye(2 * count, dtype=torch.bool)
    logits = cosine_logits(views, views, 1 / tau).masked_fill(itself, -math.inf)
    partner = torch.cat([torch.arange(count) + count, torch.arange(count)])
    return F.cross_entropy(logits, partner)


generator = torch.Generator().manual_seed(0)
first_views, second_views = (augment(page_pictures[:6], jitter, generator) for jitter in (False, True))
show(
    plot_pictures(torch.cat([first_views, second_views]), columns=6),
    "Views of six pages. Above: crops, some mirrored, in the page's colours. Below: crops in random colours.",
)

# %% [markdown] id="simclr-train-text"
# A small convolutional network makes 256 *features* of a view; a second, smaller one, the *projection head*, maps
# them to the vector for the loss and is thrown away after training. Both settings start from the same weights.


# %% id="simclr-train"
def small_encoder():
    """The network whose features we keep, and the projection head."""
    body = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),  # (batch, 32, 8, 8)
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),  # (batch, 64, 4, 4)
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),  # (batch, 64, 2, 2)
        nn.Flatten(),
    )
    head = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 64))
    return body, head


# %% [markdown] id="simclr-loop-text"
# Each update makes two views of each page in the batch:


# %% id="simclr-loop"
def train_on_views(updates, jitter, seed, batch=128):
    """The encoder after some updates, and its last loss."""
    torch.manual_seed(seed)
    body, head = small_encoder()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 2e-3)
    for _ in range(updates):
        chosen = page_pictures[torch.randint(len(pages) * 3 // 4, (batch,), generator=generator)]
        one, other = (augment(chosen, jitter, generator) for _ in range(2))
        loss = nt_xent(head(body(one)), head(body(other)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return body, loss.item()


# %% [markdown] id="simclr-probe-text"
# Then a linear probe of the features, on pages that were not used in training: half of them to fit, half to test.
# Colours are tested on pages where one is stated. The untrained network shows what random features already give.

# %% id="simclr-probe"
held_out = slice(len(pages) * 3 // 4, None)
held_pages, held_pictures = pages[held_out], F.avg_pool2d(page_pictures[held_out], 2)
held_answers = {
    "colour": torch.tensor([COLOURS.index(p.things[0].colour) if p.things[0].colour else -1 for p in held_pages]),
    "subject": torch.tensor([SUBJECTS.index(p.things[0].kind) for p in held_pages]),
}


def linear_probe(body, question):
    """Share of the tested pages, and how many they are."""
    known, truth = held_answers[question] >= 0, held_answers[question]
    with torch.no_grad():
        features = body(held_pictures)[known].double()
    x = F.pad((features - features.mean(0)) / (features.std(0) + 1e-6), (0, 1), value=1)
    y = F.one_hot(truth[known]).double()
    half = len(x) // 2
    weights = torch.linalg.solve(x[:half].T @ x[:half] + 10 * torch.eye(x.shape[1]), x[:half].T @ y[:half])
    hits = (x[half:] @ weights).argmax(1) == y[half:].argmax(1)
    return hits.float().mean().item(), len(hits)


# %% [markdown] id="simclr-run-text"
# Two seeds each, with approximate 95% intervals from the number of tested pages (730 for the colour, 1,000 for the
# subject):

# %% id="simclr-run"
by_jitter = {}
print("                      colour          subject")
for seed in range(budget(smoke=1, laptop=2, gpu=2)):
    for name, count, jitter in (("untrained", 0, False), ("no jitter", 1, False), ("jitter", 1, True)):
        torch.manual_seed(seed)
        body = small_encoder()[0]
        if count:
            body, last = train_on_views(budget(smoke=3, laptop=150, gpu=150), jitter, seed)
        found = {question: linear_probe(body, question) for question in held_answers}
        by_jitter[name, seed] = {question: share for question, (share, _) in found.items()}
        print(f"{name:10} seed {seed}", *(interval(*each).rjust(14) for each in found.values()))
if budget(smoke=False, laptop=True, gpu=True):
    for seed in (0, 1):
        jittered = by_jitter["jitter", seed]["colour"]
        assert by_jitter["no jitter", seed]["colour"] > jittered + 0.2
        assert by_jitter["untrained", seed]["colour"] > jittered + 0.1
        assert by_jitter["jitter", seed]["subject"] > by_jitter["no jitter", seed]["subject"] + 0.03
        assert by_jitter["no jitter", seed]["subject"] < by_jitter["untrained", seed]["subject"] + 0.03

# %% [markdown] id="simclr-read"
# With the same network, loss and pages, the augmentation decides how much of the colour is kept. Jitter makes colour
# useless for matching views, and the features lose much of it, on both seeds clearly outside the intervals: the probe
# reads fewer colours than from the untrained network, though still more than by guessing (12%). The subject, in
# contrast, can be read off better with jitter, on both seeds by more than the intervals: once colour is useless, shapes
# presumably have to serve for the matching. (Without jitter, the subject is read off no better than from the untrained
# network.) SimCLR's authors found jitter essential for photographs: two crops of one photograph have similar colours,
# which alone would suffice to match them. In CLIP the captions play this role: only what they mention helps to match.
#
# *SigLIP* replaces the softmax by a separate yes/no question for each pair: it applies a sigmoid to each logit, so
# the loss needs no sum over the whole batch.

# %% [markdown] id="elsewhere"
# ## 9 · What you will read elsewhere
#
# **"Contrastive learning maximises the similarity of similar samples and minimises that of dissimilar ones."** The
# second half is misleading. Wrong captions are pushed away, but the loss only *compares*: it is low as soon as the
# right caption is clearly nearer than the others. Nor could all the others be far away at once: for $N$ unit vectors,
# $0 \le |\sum_i C_i|^2 = N + \sum_{i \ne j} \langle C_i, C_j \rangle$, so the mean cosine of different ones is at least
# $-\frac{1}{N-1}$: for many vectors, nearly 0. The mean over all wrong captions does come down to that, but those that
# are nearly right stay near:


# %% id="elsewhere-minimise"
def shared(a, b):
    """How many of subject, colour and place two pages have in common."""
    one, other = a.things[0], b.things[0]
    return (one.kind == other.kind) + (one.colour == other.colour) + (a.place == b.place)


count = len(test_pages)
common = torch.zeros(count, count)
for i, page_i in enumerate(test_pages):
    common[i] = torch.tensor([shared(page_i, page_j) for page_j in test_pages])
off = ~torch.eye(count, dtype=torch.bool)
print(f"live model: cosine of a page and its own caption {after_matrix.diagonal().mean():.2f}")
by_shared = [after_matrix[off & (common == n)].mean().item() for n in range(3)]
for n, value in enumerate(by_shared):
    print(f"  with captions that share {n} of subject, colour, place: {value:+.2f}")
lowest = -1 / (count - 1)
print(f"  with all but its own {after_matrix[off].mean():+.3f} (lowest possible, if pairs coincide: {lowest:+.3f})")
if budget(smoke=False, laptop=True, gpu=True):
    assert by_shared[0] < by_shared[1] < by_shared[2] < after_matrix.diagonal().mean() and by_shared[0] > -0.5

# %% [markdown] id="elsewhere-self"
# CLIP is also called *self-supervised*. But its supervision was written by people: a caption is a label in words. The
# previous section was self-supervised.
#
# **"A higher CLIP score means that the prompt is followed."** Compare the score of section 7's *false* sentence, with
# the colours swapped, with that of a sentence that is *true* but shorter:

# %% id="elsewhere-score"
short = encode([" and ".join(f"a {thing.colour} {thing.kind}" for thing in scene.things) for scene in pairs])
short_score = (pair_vectors * short).sum(1)
beaten = (scores["colours swapped"] > short_score).float().mean().item()
print(
    f"mean cosine: true and long {true_score.mean():.3f}, false and long {scores['colours swapped'].mean():.3f}, "
    f"true and short {short_score.mean():.3f}\nthe false one beats the true short one on "
    f"{interval(beaten, len(pairs))} of the {len(pairs)} pages"
)
if budget(smoke=False, laptop=True, gpu=True):
    assert beaten > 0.6

# %% [markdown] id="elsewhere-score-read"
# A cosine depends on how many words match and on how much of the page the sentence describes. It can rank *pages for
# one sentence*; comparing the scores of different sentences means little. To check whether everything is there, and
# in its place, this course uses the *judge*, a detector of things and their colours (chapter 09).
#
# **"CLIP understands the sentence."** Its text encoder represents which thing has which colour (section 8). But the
# score falls by only 0.016 in the mean when the colours are swapped (0.894 to 0.878 in section 7). Three other changes:

# %% id="elsewhere-understands"
for name in ("another colour", "words in order a-z", "relation reversed"):
    print(f"{name:20} lowers the mean cosine by {(true_score - scores[name]).mean():.3f}")

# %% [markdown] id="elsewhere-temperature"
# **"The temperature is a detail."** With nothing changed but $\tau$, the share of pages that find their caption falls
# from 69% at 0.1 to 53% at 0.01, without overlap of the three seeds (section 3). The means once more:

# %% id="elsewhere-temperature-run"
for tau, found in by_tau.items():
    pages_right, captions_right, _, last = found.mean(0).tolist()
    print(
        f"tau {tau:4}: page finds caption {pages_right:.0%}, caption finds page {captions_right:.0%}; loss {last:.2f}"
    )

# %% [markdown] id="next"
# ## The failure that comes next
#
# Sentences are now vectors. Can we feed them into chapter 06's network and draw pages instead of digits? Pages have
# 64 x 64 pixels in three colours. The same U-Net, one evaluation of 32 images:

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
    print(f"{channels} x {size} x {size}: {channels * size * size:6} numbers an image, {1000 * times[size]:6.1f} ms")
ratio = times[64] / times[16]
print(
    f"{ratio:.0f} times the time: a training of two minutes becomes one of {2 * ratio:.0f}, with a network that is "
    "too small for pages"
)

# %% [markdown] id="next-read"
# Pages are also harder than digits and need a larger network. Much of the work would go into pixels that are easy to
# predict from their neighbours. Chapter 09 moves diffusion to a space with fewer numbers; chapter 10 adds the
# sentences.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | the most frequent pair becomes a symbol | `most_frequent_pair(words)`, `merge(symbols, pair)` |
# | $H \leftarrow H + \text{attention}(\text{norm}(H))$, later tokens at $-\infty$ | `causal_attention(q, k, v)` |
# | $C = \text{projection}(H_\text{first end token})$ | `pool(hidden, tokens, end)` |
# | $H_j = W\,\text{patch}_j + \text{place}_j$ | `embed_patches(pictures, weight, first, places)` |
# | $\ell_{ij} = \langle I_i, C_j \rangle / \tau$ | `cosine_logits(image, text, scale)` |
# | $\frac12[\text{CE(rows)} + \text{CE(columns)}]$ | `info_nce(logits)` |
# | $\ell_{ij} = -\infty$ if $j$ is true of $i$ too | `without_false_negatives(logits, same)` |
# | the class with the largest $\langle I_i, \bar C_\text{class} \rangle$ | `zero_shot(image, text)` |
# | own answer is among the first $k$ | `recall_at_k(similarity, k)` |
#
# To remember: pulling alone lets everything crowd together; negatives prevent it. The temperature controls which
# negatives are pushed. Comparisons of batch sizes must say what is kept equal. The CLIP score is close to a bag of
# words; the text encoder is not. Augmentations decide what image-against-image training ignores. Stable Diffusion
# reads all hidden states.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. You train with batches in which all pages show corgis. What will this model learn better than
# ours, and what will it not learn?</summary>
# Poses, and whatever else distinguishes one corgi page from another. Not what a corgi is: that never helps to tell the
# captions of such a batch apart.
# </details>
# <details><summary>2. Someone reports a contrastive loss of 0.9 with batches of 256; you have 0.5 with batches of 32.
# Whose model is better?</summary>
# The losses cannot tell: guessing gives ln 256 = 5.5 for one and ln 32 = 3.5 for the other, and the temperatures may
# differ. Compare recall on the same test set.
# </details>
# <details><summary>3. Why can the empty prompt "" be encoded at all, and what are its 32 hidden states?</summary>
# It consists of the start token, the end token, and padding with end tokens, each at its own position. Its states are
# always the same: a fixed vector sequence for "no request". Chapter 10 trains with it and uses it for guidance.
# </details>

# %% [markdown] id="papers"
# **Papers** CLIP: Radford et al., [arXiv:2103.00020](https://arxiv.org/abs/2103.00020). Byte pairs: Sennrich et al.,
# [arXiv:1508.07909](https://arxiv.org/abs/1508.07909). InfoNCE: van den Oord et al.,
# [arXiv:1807.03748](https://arxiv.org/abs/1807.03748). Patches as words: Dosovitskiy et al.,
# [arXiv:2010.11929](https://arxiv.org/abs/2010.11929). The temperature: Wang and Liu,
# [arXiv:2012.09740](https://arxiv.org/abs/2012.09740). Alignment and uniformity on the sphere: Wang and Isola,
# [arXiv:2005.10242](https://arxiv.org/abs/2005.10242). Bags of words, and hard negatives as a remedy: Yuksekgonul et
# al. (ARO), [arXiv:2210.01936](https://arxiv.org/abs/2210.01936); Thrush et al. (Winoground),
# [arXiv:2204.03162](https://arxiv.org/abs/2204.03162); binding is present in each encoder, lost in the comparison:
# Koishigarina et al., [arXiv:2502.03566](https://arxiv.org/abs/2502.03566). Written words in images: Goh et al.,
# [distill.pub](https://distill.pub/2021/multimodal-neurons/). CLIP as a score: Hessel et al.,
# [arXiv:2104.08718](https://arxiv.org/abs/2104.08718). SimCLR: Chen et al.,
# [arXiv:2002.05709](https://arxiv.org/abs/2002.05709). SigLIP: Zhai et al.,
# [arXiv:2303.15343](https://arxiv.org/abs/2303.15343).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: where the image encoder attends
#
# The learned first token collects information from the patches by attention. Its weights in the last block, averaged
# over the four heads, show where from.

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
    "Above: five pages with one thing each. Below: the attention of the first token, scaled to each map's maximum.",
)

# %% [markdown] id="bonus-read"
# Does it attend to the thing, or to the background, which shows the place? Compare several pages, and look at the other
# blocks.
#
# <details><summary>Answer for these five pages, last block</summary>
# Clearly to the thing on the fourth page. On the first much of the weight is on the cat, but the largest on the road
# below it. On the others one or two patches have the most. Five pages and one block are too few for a rule.
# </details>

# %% [markdown] id="chinese-text"
# ## Bonus: a text encoder that reads Chinese
#
# The picture-book model was trained on English captions. What would it need to read Chinese? Its U-Net receives a
# prompt only as 32 feature vectors, the hidden states of section 8. It is therefore enough that *another* network
# computes nearly the same vectors from a Chinese sentence; no image is needed for that, only pairs of sentences that
# say the same in both languages. The English text encoder is the **teacher** and stays as it is. A new network, the
# **student**, reads the Chinese sentence and learns to reproduce the teacher's features of the English one. This is
# *distillation*. Embeddings of sentences have been carried over to more than fifty languages in this way (Reimers and Gurevych,
# [arXiv:2004.09813](https://arxiv.org/abs/2004.09813)), and it is the first stage of AltCLIP, which replaces CLIP's
# text encoder by one that reads Chinese too (Chen et al., [arXiv:2211.06679](https://arxiv.org/abs/2211.06679)).
#
# `sentence_pair` writes such pairs for a scene: the English sentence is the plain caption, the Chinese one has several
# wordings, with the words in different orders. The tokens are single characters; characters that occur in none of
# the first 2,000 sentences share one number.

# %% id="chinese-pairs"
from course_utils.data.picture_book.sentence_pairs import sentence_pair


def pair_of(number, split="train", seed=8):
    return sentence_pair(book.sample_scene(number, seed, split))


some = [pair_of(n) for n in range(budget(smoke=300, laptop=2000, gpu=2000))]
for pair in some[:6]:
    print(f"{pair.chinese}  =  {pair.english.text}")
alphabet = sorted(set("".join(pair.chinese for pair in some)))
number_of = {character: n for n, character in enumerate(alphabet, 2)}
PADDING, UNKNOWN, LONGEST = 0, 1, 40


def characters(sentences):
    """Chinese sentences as numbers of their characters, padded to the longest: (sentences, length)."""
    rows = [[number_of.get(character, UNKNOWN) for character in sentence[:LONGEST]] for sentence in sentences]
    length = max(map(len, rows))
    return torch.tensor([row + [PADDING] * (length - len(row)) for row in rows], device=device)


print(f"{len(alphabet)} characters: {''.join(alphabet)}")

# %% [markdown] id="chinese-student-text"
# The two sentences do not correspond token by token: the place may come first in Chinese and comes last in English, and
# *A 的右边是 B*, "to the right of A is B", is *A left of B*. Feature $i$ can therefore not be computed from character $i$ alone. The
# student puts 32 learned vectors in front of the characters, the *query tokens* (not attention's queries). In three transformer blocks without a
# causal mask all of them attend to each other and to the characters, and the 32 outputs at the queries are the
# student's features.


# %% id="chinese-student"
from course_utils.models.worded import Layer  # a block: attention, then an MLP, each with its norm and added


class Student(nn.Module):
    """Numbers of characters (batch, length) -> 32 feature vectors (batch, 32, width)."""

    def __init__(self, size, width=128, layers=3, heads=4):
        super().__init__()
        self.character = nn.Embedding(size, width)
        nn.init.normal_(self.character.weight, std=0.5)
        self.place = nn.Parameter(0.5 * torch.randn(LONGEST, width))
        self.queries = nn.Parameter(0.5 * torch.randn(32, width))
        self.layers = nn.ModuleList(Layer(width, heads, steered=False) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def forward(self, numbers):
        queries = self.queries.expand(len(numbers), -1, -1)  # (batch, 32, width)
        x = torch.cat([queries, self.character(numbers) + self.place[: numbers.shape[1]]], dim=1)
        mask = F.pad(-1e4 * (numbers == PADDING), (32, 0))[:, None, None]  # nothing attends to the padding
        for layer in self.layers:
            x = layer(x, mask)
        return self.out(x[:, :32])


# %% [markdown] id="chinese-teacher-text"
# The loss is the mean squared difference between the features of the two. The teacher's features are normalised first:
# the mean at each position is subtracted, and the rest divided by the standard deviation of each of the 128 numbers.
# A student that ignored the sentence and always returned the mean would have a loss of 1 on the sentences from which
# mean and deviation are taken. Two thirds of the 32 positions are padding, after the end token. They count a tenth
# in the training, so that the words count most.


# %% id="chinese-teacher"
english_reader = pipe.to(device).text_encoder


@torch.no_grad()
def teach(sentences):
    """The features that the U-Net reads, of English sentences: (sentences, 32, 128)."""
    return english_reader(tokenize(pipe.tokenizer, sentences).to(device)).last_hidden_state


known_features = teach([pair.english.text for pair in some])
feature_mean = known_features.mean(0)  # (32, 128)
feature_scale = (known_features - feature_mean).std((0, 1))  # (128,)


def up_to_end(sentences):
    """1 at the tokens of English sentences, the end token included, 0 at the padding: (sentences, 32)."""
    ends = tokenize(pipe.tokenizer, sentences).to(device) == pipe.tokenizer.eos_token_id
    return (ends.cumsum(1) <= 1).float()


def distillation_loss(model, pairs, padding=1.0):
    """Mean squared difference of the normalised features; `padding`: how much a position after the end counts."""
    english = [pair.english.text for pair in pairs]
    target = (teach(english) - feature_mean) / feature_scale
    error = (model(characters([pair.chinese for pair in pairs])) - target).square().mean(2)  # (pairs, 32)
    weight = padding + (1 - padding) * up_to_end(english)
    return (weight * error).sum() / weight.sum()


words_share = up_to_end([pair.english.text for pair in some]).mean().item()
print(f"{words_share:.0%} of the positions are words, start and end, the others are padding")
assert words_share < 0.5


# %% [markdown] id="chinese-train-text"
# Each step takes new scenes. No scene of the training contains a held-out combination of subject, colour and place; each
# test scene does (where its sentence names no colour, the natural one is meant). (The U-Net has not seen those combinations either.)
# The printed loss of the held-out sentences counts all 32 positions alike and uses the averaged weights, where the curve
# counts padding a tenth: the two must not be compared.

# %% id="chinese-train"
held_out_pairs = [pair_of(n, "held out", 9) for n in range(budget(smoke=4, laptop=48, gpu=256))]
torch.manual_seed(0)
student = Student(len(alphabet) + 2).to(device)
average = MovingAverage(student, 0.99)
settings = {"steps": budget(smoke=8, laptop=2400, gpu=6000), "batch": budget(smoke=4, laptop=16, gpu=64)}
live = LivePlot(
    "The student's loss on the training pairs: it stays near 1.3 at first, then falls steeply, then slowly.", seconds=5
)


def student_loss(model, samples):
    return distillation_loss(model, [pair_of(int(n)) for n in samples.numbers], padding=0.1)


with torch.no_grad():
    before = distillation_loss(average.model, held_out_pairs).item()
steps = train(student, student_loss, average=average, learning_rate=3e-3, **settings)
for record in tqdm(steps, total=settings["steps"]):
    live.update(record.step, record.loss)
live.finish()
student = average.model
with torch.no_grad():
    after = distillation_loss(student, held_out_pairs).item()
print(f"held-out sentences: loss {before:.2f} before, {after:.2f} after; {record.seconds:.0f} seconds")
assert after < before

# %% [markdown] id="chinese-draw-text"
# Now the student takes the teacher's place in the pipeline, which accepts features in place of a prompt
# (`prompt_embeds`). Each test sentence is drawn twice with the same seed: from the teacher's features of the English
# sentence, and from the student's of the Chinese one. The judge, the detector of chapter 09, checks whether the image
# shows everything that the sentence names and no other thing.
#
# The course also has a dictionary with a few rules, `to_english` (chapter 00). It turns each of these Chinese sentences
# into exactly its English one, so that its images are those of the teacher.
#
# **Predict first:** the student has never received a signal from an image. For what share of the 48 sentences does the
# model draw what they say, in English and in Chinese?
#
# <details><summary>Answer (after running the cells below)</summary>
# 44 and 43 of 48, about nine in ten. A difference of one sentence in 48 is no evidence of a difference.
# </details>


# %% id="chinese-draw"
from course_utils.data.picture_book.chinese import to_english
from course_utils.metrics.pictures import faults, followed
from course_utils.metrics.statistics import wilson_interval
from course_utils.pipelines.picture_book import make_scheduler
from course_utils.recipes import load_judge

judge = load_judge()
pipe.scheduler = make_scheduler("unipc", pipe.scheduler.config)


@torch.no_grad()
def read_chinese(sentences):
    """The student's features in the teacher's units, (sentences, 32, 128)."""
    return student(characters(sentences)) * feature_scale + feature_mean


def draw(features):
    """Image i from features i and seed i, (batch, 3, 64, 64)."""
    images, none, steps = [], teach([""]), budget(smoke=2, laptop=10, gpu=20)
    for first in range(0, len(features), 8):
        part = features[first : first + 8]
        noises = [torch.Generator().manual_seed(first + n) for n in range(len(part))]
        inputs = {"prompt_embeds": part, "negative_prompt_embeds": none.expand(len(part), -1, -1)}
        made = pipe(**inputs, num_inference_steps=steps, guidance_scale=3.0, generator=noises, output_type="pt")
        images.append(2 * made.images.cpu() - 1)
    return torch.cat(images)


# %% id="chinese-follow"
english, chinese = [pair.english for pair in held_out_pairs], [pair.chinese for pair in held_out_pairs]
assert [to_english(sentence).text for sentence in chinese] == [caption.text for caption in english]
drawn = {
    "English, teacher": draw(teach([caption.text for caption in english])),
    "Chinese, student": draw(read_chinese(chinese)),
}
right = {}
for name, images in drawn.items():
    found = faults(judge, images, english)
    right[name] = found.count(None)
    low, high = wilson_interval(right[name], len(found))
    common = Counter(one for one in found if one).most_common(3)
    print(f"{name}: {right[name]} of {len(found)} followed (95% interval {low:.0%} to {high:.0%}); faults {common}")
if budget(smoke=False, laptop=True, gpu=True):
    assert min(right.values()) > 0.75 * len(english)

# %% [markdown] id="chinese-figure-text"
# The first six sentences of the test, not selected:

# %% id="chinese-figure" tags=["static"]
for sentence, caption in zip(chinese[:6], english[:6]):
    print(f"{sentence}  =  {caption.text}")
show(
    plot_pictures(
        torch.cat([images[:6] for images in drawn.values()]),
        heads=[caption.text for caption in english[:6]],
        rows=list(drawn),
        columns=len(english[:6]),
    ),
    "Six test sentences: above, drawn from the teacher's features of the English sentence; below, with the same seeds, "
    "from the student's features of the Chinese one.",
)

# %% [markdown] id="chinese-unknown-text"
# What happens to a word with characters that the student has never seen? *恐龙* is a dinosaur. The dictionary reports
# the word and leaves it out. The student maps both characters to the same number, whose vector is still as random as at
# the start, and returns 32 vectors as for any other sentence. A second question is a phrase that no training sentence
# has, *请帮我画：* (please draw for me:), in front of the 48 sentences. **Predict first:** what will the images of the
# dinosaurs show, and how many of the 48 sentences are still followed?
#
# <details><summary>Answer (after running the cell below)</summary>
# The place is right on all 32 images. The judge finds 31 things, 30 of them a corgi, a cat, a rabbit or a duck: the four
# kinds that the training sentences count with 只, the measure word that also stands before the dinosaur. That may be the
# reason; only one random vector was tried. With the phrase in front 36 of 48 sentences are followed, where it was 43. Two
# things have changed: every character stands five places further back, and three characters of the phrase are unknown.
# Which of the two does the harm, this experiment does not show; sentences merely shifted by five places would.
# </details>

# %% id="chinese-unknown"
from course_utils.models.judge import read

where = {"grass": "草地上", "beach": "沙滩上", "snow": "雪地里", "forest": "森林里"}
asked = [(word, place) for word in zip(COLOURS, "红橙黄绿蓝紫粉白") for place in where]
asked = asked[: budget(smoke=2, laptop=32, gpu=32)]
strange = [f"{where[place]}有一只{character}色的恐龙" for (_, character), place in asked]
print(f"{strange[0]}: the dictionary gives {to_english(strange[0])}")
strange_images = draw(read_chinese(strange))
verdicts = read(judge, strange_images)
places_right = sum(verdict.place == place for verdict, (_, place) in zip(verdicts, asked))
kinds = Counter(finding.kind for verdict in verdicts for finding in verdict.findings)
print(f"dinosaurs: place right in {places_right} of {len(asked)}; the judge finds {kinds.most_common(6)}")

polite = [f"请帮我画：{sentence}" for sentence in chinese]
assert [to_english(sentence).text for sentence in polite] == [caption.text for caption in english]
kept = followed(judge, draw(read_chinese(polite)), english)
low, high = wilson_interval(sum(kept), len(kept))
print(f"with the phrase in front: {sum(kept)} of {len(kept)} followed (95% interval {low:.0%} to {high:.0%})")
if budget(smoke=False, laptop=True, gpu=True):
    assert places_right > 0.8 * len(asked) and sum(kept) <= right["Chinese, student"]

# %% [markdown] id="chinese-read"
# The Chinese sentences are drawn as asked about nine times in ten. In so small a world a dictionary of some two hundred
# words does the same work, says which words it does not know, and needs no training. The student was trained on one
# generator's sentences only: its characters and the wordings of `sentence_pair`. What the experiment shows is something
# else: to connect a second language to the images, no image was used and the U-Net was not changed. The training took
# pairs of sentences only, 2,400 batches of 16.
