# %% [markdown] id="symbols-4"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $\text{share}_i$ | `shares[i]` | the share of answer $i$ among all answers to a question | a number |

# %% [markdown] id="assume-text"
# ## 4 · What does it assume?
#
# "A cat." Where? In which colour, on which side, sitting or asleep? An image has to answer what a prompt leaves open,
# and nobody asked for these answers. Image models that were trained on the Web answer, for instance, what a person of
# some profession looks like, and their answers are more one-sided than the world is
# ([arXiv:2211.03759](https://arxiv.org/abs/2211.03759), [arXiv:2303.11408](https://arxiv.org/abs/2303.11408)). Our
# small world has no professions, but it has the same mechanism, and here everything can be counted: the data as well as
# the images.
#
# ### Where the prompt is silent
#
# Three prompts with hardly any words, and five questions that they do not answer. First to the **data**: of all
# training captions that name one such thing, and neither colour nor pose nor place nor style, what do the pages show?
# **Predict first:** on how many of the pages of such a caption is the ball red? And in how many places are the cats?
#
# <details><summary>Answer (after running the cell below)</summary>
# On all of them. The program that writes the captions names each colour that is not the natural one, and a ball's
# natural colour is red. The same holds for the style. "A ball" is not silent in this world; it means a red one. The
# cats are in all eight places: a caption leaves the place out at random. (TODO-measure: the largest share.)
# </details>

# %% id="silent-data"
QUIET = {"a ball": "ball", "a cat": "cat", "a house": "house"}
QUESTIONS = ("colour", "style", "place", "pose", "side")
SCENES = budget(smoke=8000, laptop=40_000, gpu=100_000)


def is_silent(caption):
    """Whether a caption of one thing names nothing that we ask about."""
    thing = caption.things[0]
    coloured = any(word in book.COLOURS for word in caption.text.replace(",", "").split())  # the natural one, perhaps
    return not coloured and {thing.colour, thing.pose, caption.place, caption.style} == {None}


def shown(scene):
    """The answers of a page with one thing; None where there is none."""
    (thing,), (x, _) = scene.things, book.layout(scene)[0].centre
    colour, side = book.seen_colour(thing) or "natural", "left" if x < 0.5 else "right"
    return {"colour": colour, "style": scene.style, "place": scene.place, "pose": thing.pose, "side": side}


training_pages = {prompt: [] for prompt in QUIET}
for scene in (book.sample_scene(number) for number in range(SCENES)):
    for prompt, kind in QUIET.items():
        if [thing.kind for thing in scene.things] == [kind]:
            silent = sum(is_silent(book.caption(scene, k)) for k in range(8))  # of the eight captions of the training
            training_pages[prompt] += [shown(scene)] * silent

# %% id="silent-data-counts"
in_data = {(prompt, question): Counter(page[question] for page in training_pages[prompt])
           for prompt in QUIET for question in QUESTIONS}  # fmt: skip
for (prompt, question), counts in in_data.items():
    if question != "pose" or prompt == "a cat":
        words = ", ".join(f"{word} {count / counts.total():.0%}" for word, count in counts.most_common(4))
        print(f"{prompt:8} {question:7} ({counts.total()} captions) {words}")
assert set(in_data["a ball", "colour"]) == {"red"} and set(in_data["a ball", "style"]) == {"picture book"}
if LAPTOP:
    assert len(in_data["a cat", "place"]) == 8

# %% [markdown] id="silent-data-read"
# So there are two kinds of silence. Colour and style have a **default**, which is a rule of the captions' author:
# the usual goes without saying, and what is unusual is named. Place, pose and side are **open**: the data show all of
# them.
#
# ### What is drawn
#
# Now the model, with three guidance scales. Guidance strengthens what the prompt makes more probable (chapter 10), and
# is known to buy fidelity with variety ([arXiv:2207.12598](https://arxiv.org/abs/2207.12598)). Two numbers for each
# question. The share of the most frequent answer, and the **entropy** of the answers,
#
# $$\text{entropy} = -\sum_i \text{share}_i \log_2 \text{share}_i$$
#
# In words: how many yes-or-no questions one would have to ask, on average and at best, to learn the answer: 3 bits for
# eight equally frequent places, 0 if it is always the same. **Predict first:** which way does the entropy of the places
# go from guidance 1 to 8, and is it that of the data with guidance 1?
#
# <details><summary>Answer (after running the cells below)</summary>
# TODO-measure.
# </details>

# %% id="silent-drawn"
GUIDANCE, ASKED = (1.0, 3.0, 8.0), budget(smoke=6, laptop=32, gpu=200)


def answers(verdict, kind):
    """The judge's answers for an image with one such thing; None if it finds no such thing, or another number."""
    if [finding.kind for finding in verdict.findings] != [kind]:
        return None
    (thing,) = verdict.findings
    side = "left" if thing.x < 32 else "right"
    return {"colour": thing.colour, "style": verdict.style, "place": verdict.place, "pose": thing.pose, "side": side}


quiet_images, answered = {}, {}
for guidance in GUIDANCE:
    for prompt, kind in QUIET.items():
        some = draw_all(painter, [prompt] * ASKED, seed=2000, guidance=guidance, steps=10)
        quiet_images[prompt, guidance] = some
        pages_read = [answers(verdict, kind) for part in some.split(50) for verdict in read(judge, part)]
        answered[prompt, guidance] = [page for page in pages_read if page]
        count = len(answered[prompt, guidance])
        print(f"guidance {guidance:g}, {prompt}: one {kind} found in {count} of {ASKED} images")

# %% id="silent-look" tags=["static"]
LOOK = min(8, ASKED)
show(
    plot_pictures(
        torch.cat([quiet_images["a cat", guidance][:LOOK] for guidance in GUIDANCE]),
        columns=LOOK,
        rows=[f"a cat, guidance {guidance:g}" for guidance in GUIDANCE],
    ),
    "Images for “a cat”, the same start noises in each row, with guidance 1, 3 and 8. TODO-measure: what is seen.",
)

# %% [markdown] id="amplified-text"
# The table. A small sample has a smaller entropy than what it was drawn from: of 32 places, drawn from eight equally
# frequent ones, hardly ever are exactly four of each. So beside each entropy stands what samples **of the same number**
# from the data would have: the middle 95% of 500 of them. What is outside was changed, by the model (or by the judge,
# which reads drawn images less well than pages). Shares have Wilson's interval.

# %% id="amplified"
import random


def entropy(counts):
    """The entropy of answers, in bits, from how often each was given."""
    shares = [count / counts.total() for count in counts.values() if count]
    return -sum(share * math.log2(share) for share in shares)


def spread(counts, n, rounds=500):
    """Between which entropies 95% of samples of n answers lie that are drawn from these counts."""
    dice, words = random.Random(0), list(counts.elements())
    drawn_entropies = sorted(entropy(Counter(dice.choices(words, k=n))) for _ in range(rounds))
    return drawn_entropies[int(0.025 * rounds)], drawn_entropies[int(0.975 * rounds) - 1]


entropies = {}
OPEN = [("a ball", "place"), ("a cat", "place"), ("a house", "place"), ("a cat", "pose"), ("a cat", "side"),
        ("a ball", "colour"), ("a house", "style")]  # fmt: skip
for prompt, question in OPEN:
    print(f"{prompt}, {question}")
    for guidance in GUIDANCE:
        counts = Counter(page[question] for page in answered[prompt, guidance])
        if counts:
            (word, most), bits = counts.most_common(1)[0], entropy(counts)
            entropies[prompt, question, guidance] = bits
            low, high = spread(in_data[prompt, question], counts.total())
            print(f"   guidance {guidance:g}: entropy {bits:.2f} (data {low:.2f} to {high:.2f}), most often {word}: "
                  f"{said([True] * most + [False] * (counts.total() - most))}")  # fmt: skip

# %% [markdown] id="amplified-plot-text"
# The places of all three prompts together, as shares of each:

# %% id="amplified-plot" tags=["static"]
figure, ax = plt.subplots(figsize=(8, 2.8))
together = {"data": sum((in_data[prompt, "place"] for prompt in QUIET), Counter())}
for guidance in GUIDANCE:
    together[f"guidance {guidance:g}"] = Counter(
        page["place"] for prompt in QUIET for page in answered[prompt, guidance]
    )
for row, (name, counts) in enumerate(together.items()):
    heights = [counts[place] / max(1, counts.total()) for place in book.PLACES]
    ax.bar([n + 0.2 * (row - 1.5) for n in range(8)], heights, 0.18, label=f"{name} (n = {counts.total()})")
ax.set(xticks=range(8), xticklabels=book.PLACES, ylabel="share")
ax.legend(fontsize=8)
show(
    figure,
    "The shares of eight places in the data, and in images with guidance 1, 3 and 8. TODO-measure: what is seen.",
)
place_bits = [entropy(counts) for counts in together.values()]
print("entropy of the places:", ", ".join(f"{name} {bits:.2f}" for name, bits in zip(together, place_bits)))
if LAPTOP:
    assert place_bits[3] < place_bits[1] and place_bits[3] < spread(together["data"], together["guidance 8"].total())[0]

# %% [markdown] id="amplified-read"
# TODO-measure: which answers guidance makes more frequent, by how much, and which it leaves. (What to expect is not
# obvious: guidance multiplies the density by a power of $p(c \mid x_t)$, chapter 10. In these data a caption leaves the
# place out equally often in each place, so an exact $p(c \mid x_t)$ would prefer none of them; only the combinations
# that are held out are missing. If one place becomes more frequent, guidance has amplified what the *model* got wrong.)

# %% [markdown] id="skew-text"
# ### A skewed training set, made on purpose
#
# A publisher lends us its own pages, 48 of them, to adapt the model to. On each there is a cat with another thing, and
# the captions are exactly true, as always. But **on all of these pages the cat stands on the left**. We train a LoRA on
# them (`teach`, chapter 12) and draw two kinds of prompts, before and after: some do not say who is where, "a cat and a
# car", and some do, "a cat right of a car". **Predict first:** after the training, on which side is the cat if the
# prompt does not say? And if it asks for the right?
#
# <details><summary>Answer (after running the cells below)</summary>
# TODO-measure.
# </details>

# %% id="skew-data" tags=["static"]
PARTNERS = ("car", "house", "ball", "tree", "duck", "mushroom", "teapot", "boat")
LENT = budget(smoke=6, laptop=48, gpu=96)
skewed = [
    book.Scene(
        (
            book.Thing("cat", (None, "white", "blue")[n % 3], book.ALL_POSES[n // 3 % 3]),
            book.Thing(PARTNERS[n % 8], (None, "red", "yellow")[n // 8 % 3]),
        ),
        book.PLACES[(n + n // 8) % 8],  # each partner in several places
        5000 + n,
        relation="left of",
    )
    for n in range(LENT)
]
for n in range(3):
    print("; ".join(book.caption(skewed[n], k).text for k in range(3)))
show(
    plot_pictures(book.pictures(skewed[:8]), columns=8), "Eight of the pages: in each a cat, and to its right a thing."
)

# %% id="skew-ask"
from course_utils.data.picture_book.captions import NAMES, with_article

LINES = budget(smoke=4, laptop=32, gpu=160)
partners = [PARTNERS[n % 8] for n in range(LINES)]
PROMPTS = {
    "does not say": [f"a cat and {with_article(NAMES[other][0])}" for other in partners],
    "asks for the right": [f"a cat right of {with_article(NAMES[other][0])}" for other in partners],
}


def side_of_cat(verdict, other):
    """On which side of the other thing the cat is; "not both" unless there is one of each, side by side."""
    at = {finding.kind: finding.x for finding in verdict.findings}
    if len(verdict.findings) != 2 or set(at) != {"cat", other} or abs(at["cat"] - at[other]) < 4:
        return "not both"
    return "left" if at["cat"] < at[other] else "right"


def sides():
    """How often the cat is where, for both kinds of prompts, as the model is now; and the images."""
    counts, drawn_now = {}, {}
    for name, lines in PROMPTS.items():
        drawn_now[name] = draw_all(painter, lines, seed=3000, steps=10)
        verdicts = [verdict for part in drawn_now[name].split(50) for verdict in read(judge, part)]
        counts[name] = Counter(map(side_of_cat, verdicts, partners))
    return counts, drawn_now


side_before, images_before = sides()
for name, lines in PROMPTS.items():
    print(f"{lines[0]!r}, {lines[1]!r}, ...: {dict(side_before[name])}")

# %% [markdown] id="skew-train-text"
# The training, and the same prompts from the same noises. Afterwards the LoRA is taken out again.

# %% id="skew-train"
from course_utils.models.lora import remove_lora
from course_utils.recipes.lora import teach

LESSONS = budget(smoke=2, laptop=120, gpu=300)
try:
    for _ in tqdm(teach(pipe, skewed, rank=8, steps=LESSONS, batch=8, old=0.0), "cats on the left", total=LESSONS):
        pass
    side_after, images_after = sides()
finally:
    remove_lora(pipe.unet)
for name in PROMPTS:
    for when, counts in {"before": side_before[name], "after": side_after[name]}.items():
        both = counts["left"] + counts["right"]
        hits_left = said([True] * counts["left"] + [False] * counts["right"]) if both else "none"
        print(f"{name:18} {when:6}: cat on the left {hits_left} of the images with both; not both {counts['not both']}")
if LAPTOP:
    before, after = (counts["does not say"] for counts in (side_before, side_after))
    assert wilson_interval(after["left"], after["left"] + after["right"])[0] > 0.6
    assert after["left"] / (after["left"] + after["right"]) > before["left"] / (before["left"] + before["right"])
    asked_before, asked_after = (counts["asks for the right"] for counts in (side_before, side_after))
    assert asked_after["right"] < asked_before["right"]

# %% id="skew-look" tags=["static"]
LOOK = min(6, LINES)
show(
    plot_pictures(
        torch.cat([now[name][:LOOK] for name in PROMPTS for now in (images_before, images_after)]),
        columns=LOOK,
        heads=[f"cat, {other}" for other in partners[:LOOK]],
        rows=[f"{name}, {when}" for name in PROMPTS for when in ("before", "after")],
    ),
    "Four rows: a cat and another thing, before and after the training on skewed pages, for prompts that do not say who "
    "is where, and for prompts that ask for the cat on the right. TODO-measure: what is seen.",
)

# %% [markdown] id="skew-read"
# TODO-measure: the silent prompts, and whether words still help.
#
# No caption was false, and nothing in the loss knows of sides. Some captions say that the cat is left of the car, some
# that the car is right of the cat, some only that both are there; the pages are the same. On these pages nothing
# depends on the words *left* and *right*, so that the training does nothing to keep their meaning.
#
# ### What a sheet would have told
#
# *Datasheets for Datasets* ([arXiv:1803.09010](https://arxiv.org/abs/1803.09010)) proposes that each data set comes
# with a sheet: who made it, what for, and **what is in it**. The last part can be computed. For each question that an
# image answers, count the answers. Where one is missing, or much more frequent than the others, a model cannot be
# expected to do better.


# %% id="sheet"
def sheet(scenes):
    """For each question a `Counter` of its answers over all things of these scenes (sides: where a thing stands)."""
    counts = {question: Counter() for question in ("things", "kind", "colour", "pose", "place", "style", "cat stands")}
    turned = {"left of": ("left", "right"), "above": ("above", "below")}
    for scene in scenes:
        counts["things"][len(scene.things)] += 1
        counts["place"][scene.place] += 1
        counts["style"][scene.style] += 1
        for number, thing in enumerate(scene.things):
            counts["kind"][thing.kind] += 1
            counts["colour"][book.seen_colour(thing) or "natural"] += 1
            if thing.pose:
                counts["pose"][thing.pose] += 1
            if scene.relation and thing.kind == "cat":
                counts["cat stands"][turned[scene.relation][number]] += 1
    return counts


# %% id="sheets"
sheets = {
    "training data": sheet(book.sample_scene(number) for number in range(SCENES)),
    "the publisher's": sheet(skewed),
}
for question in sheets["training data"]:
    for name, counts in sheets.items():
        words = ", ".join(
            f"{word} {count / counts[question].total():.0%}" for word, count in counts[question].most_common(5)
        )
        print(f"{question:10} {name:15} n = {counts[question].total():6}: {words}")
assert set(sheets["the publisher's"]["cat stands"]) == {"left"}
if LAPTOP:
    kinds, styles = (sheets["training data"][question] for question in ("kind", "style"))
    assert abs(kinds["corgi"] / kinds["cat"] - 2) < 0.2 and styles["picture book"] > 0.5 * styles.total()
    left, right = (sheets["training data"]["cat stands"][side] for side in ("left", "right"))
    low, high = wilson_interval(left, left + right)
    assert low < 0.5 < high or abs(left / (left + right) - 0.5) < 0.03

# %% [markdown] id="sheet-read"
# The last line tells it: of the publisher's cats all stand on the left, while in the training data left and right are
# equally frequent. It takes a moment to count this, and no training. The sheet of the training data tells more that a
# user of the model would want to know before drawing: the corgi is twice as frequent as each other kind, and more than
# half of the pages are in one style. (The training of chapter 10 knows this, and takes pages in the other styles three
# times as often, and those of several things twice as often: `weight` in `course_utils/recipes/unet.py`.)
#
# But a sheet answers only the questions that somebody thought of asking. Who stands where was a question here because
# we put the skew in ourselves. That is the use of counting *what is drawn* where the prompt is silent: it also finds
# what no sheet was asked for. And some of what it finds, such as the red ball, is no fault of the numbers. It is a
# decision, which ought to be made by somebody, and written down.
