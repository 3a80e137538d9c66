# %% [markdown] id="symbols-3"
# | symbol | in code | what it is | shape |
# |:--|:--|:--|:--|
# | $\text{train}_i$ | `training[i]` | training image $i$, as a row of pixels or of features | (d,) |
# | $\text{near}_j$ | `nearest[j]` | the distance of drawn image $j$ to its nearest training image | a number |
# | $\text{next}_j$ | `second[j]` | its distance to the second nearest | a number |
# | $\text{ratio}_j$ | `ratio[j]` | $\text{near}_j / \text{next}_j$ | a number |
# | $\text{member}_a$ | `members[a]` | the loss of image $a$, on which the network was trained | a number |
# | $\text{other}_b$ | `others[b]` | the loss of image $b$, on which it was not | a number |
# | $\text{AUC}$ | `auc` | the probability that the first is below the second | a number |

# %% [markdown] id="copy-text"
# ## 3 · Does it copy?
#
# The copier of section 1 beat a perfect model in every number. So whether images look right and whether they are *new*
# are two questions. The second matters to those who made the training images and to those who are shown on them: from
# Stable Diffusion and Imagen single training images have been drawn again, nearly pixel by pixel
# ([arXiv:2301.13188](https://arxiv.org/abs/2301.13188)).
#
# ### The nearest neighbour
#
# A copy is near to its original. But near in which sense? We disguise training pages a little, and look for the
# original among all of them: in pixels, and in the judge's features. **Predict first:** which disguise deceives the
# pixels, and which the features?
#
# <details><summary>Answer (after running the cell below)</summary>
# A JPEG and a small move do not deceive the pixels at all, but the features in 15% and 33% of the pages. Mirrored pages
# are the other way round: by pixels 37% of the originals are found, by features, which are averages over all places,
# 87%. Darker pages deceive both.
# </details>

# %% id="disguises"
from course_utils.metrics.copies import nearest_two

CROWD, HIDDEN = budget(smoke=60, laptop=300, gpu=1000), budget(smoke=10, laptop=60, gpu=200)
crowd = pages_of(0, CROWD)
DISGUISES = {
    "JPEG, quality 30": lambda some: jpeg(some, 30),
    "moved by 3 pixels": lambda some: F.pad(some, (3, 0, 0, 0), mode="replicate")[..., :64],
    "mirrored": lambda some: some.flip(3),
    "darker": lambda some: 0.7 * (some + 1) - 1,
}
found = {}
for name, disguise in DISGUISES.items():
    some = disguise(crowd[:HIDDEN])
    by_pixels = nearest_two(some.flatten(1), crowd.flatten(1))[2]
    by_features = nearest_two(judge_sees(some), real[:CROWD])[2]
    found[name] = [(which == torch.arange(HIDDEN)).tolist() for which in (by_pixels, by_features)]
    print(f"{name:18} original found by pixels {said(found[name][0])}, by features {said(found[name][1])}")
if LAPTOP:
    for name in ("JPEG, quality 30", "moved by 3 pixels"):
        assert sum(found[name][0]) > 0.9 * HIDDEN and sum(found[name][0]) > sum(found[name][1])
    assert sum(found["mirrored"][1]) > 1.5 * sum(found["mirrored"][0])
    assert max(map(sum, found["darker"])) < 0.5 * HIDDEN

# %% id="disguises-look" tags=["static"]
show(
    plot_pictures(
        torch.cat([crowd[:6], *(disguise(crowd[:6]) for disguise in DISGUISES.values())]),
        columns=6,
        rows=["page", *DISGUISES],
    ),
    "Six pages, and each of them saved as a JPEG, moved to the right, mirrored, and darker.",
)

# %% [markdown] id="disguises-read"
# Neither of the two finds everything: pixels do not survive mirroring, features do not survive a new brightness. Each
# distance has its blind side, as each FID had, so copies are searched for with several. What neither finds is not
# proved to be new.
#
# ### How near is too near?
#
# A distance alone says little. A page with much empty snow is near to all snowy pages, and a copy of a colourful page
# may be farther from its original than that. So the distance to the nearest is compared with the distance to the
# *next*:
#
# $$\text{ratio}_j = \frac{\text{near}_j}{\text{next}_j}, \qquad
#   \text{near}_j = \min_i \lVert \text{gen}_j - \text{train}_i \rVert$$
#
# In words: is this image much nearer to one training image than to any other? An original is about as far from one as
# from the next, ratio near 1. A copy is near to one alone, ratio near 0. (Carlini et al. divide by half of the mean
# distance to the 50 nearest, which needs more training images and suffers less from near duplicates.)
#
# ### Exercise · The ratio to the second neighbour
#
# ●●○○○ · 8 minutes. `features` is (count, d), `training` (number, d) with two rows or more. Return the ratios,
# (count,). Where the nearest distance is 0 the ratio is 0, also if the second one is 0, too. Compute in float64, and
# compute the two distances that count as `(a - b).norm()`: `torch.cdist` uses products to find them, whose rounding
# turns a 0 into a small number.


# %% id="ex-neighbour-ratio"
def neighbour_ratio(features, training):
    """For each point the distance to its nearest training point, divided by that to the second nearest: (count,)."""
    ### BEGIN SOLUTION
    features, training = features.double(), training.double()
    #: which two are nearest, (count, 2)
    two = torch.cdist(features, training).topk(2, dim=1, largest=False).indices
    #: their exact distances, the smaller first
    nearest, second = (features[:, None] - training[two]).norm(dim=2).sort(dim=1).values.T
    #: a copy is a copy, however many there are of its original
    return torch.where(nearest > 0, nearest / second.clamp(min=1e-300), 0.0)
    ### END SOLUTION


# %% id="check-neighbour-ratio"
neighbour_ratio = check("15.neighbour_ratio", neighbour_ratio)

# %% [markdown] id="learn-text"
# ### A network that learns pages by heart
#
# Chapter 06 showed that the lowest possible loss on the training set belongs to a model that only copies. Does a
# network that is trained on few images become one? We take **20 pages** of 32 × 32 pixels with one thing each, and
# **1,000 pages**, the 20 among them. The first of the 20 is put in **ten times**, as images from the Web occur many
# times in a data set; so the small set has 29 entries, and the first page is a third of them.
#
# Both get the same small U-Net, from the same start, with the same number of updates. It predicts $v$. To make it
# quick on a laptop, each 2 × 2 pixels become one place with 12 numbers (`F.pixel_unshuffle`).

# %% id="learn-data"
from course_utils.metrics.pictures import one_thing_pages

FEW_PAGES, MANY_PAGES, FRESH = budget(smoke=(4, 40, 20), laptop=(20, 1000, 200), gpu=(20, 1000, 200))
small_pages = book.pictures(one_thing_pages(MANY_PAGES + FRESH, seed=3), 32)
many_pages, fresh_pages = small_pages[:MANY_PAGES], small_pages[MANY_PAGES:]
few_pages = many_pages[:FEW_PAGES]
entries = torch.cat([few_pages, few_pages[:1].expand(9, -1, -1, -1)])
print(f"{len(few_pages)} pages in {len(entries)} entries, {len(many_pages)} pages, {len(fresh_pages)} fresh ones")
assert len(small_pages.flatten(1).unique(dim=0)) == len(small_pages)

# %% id="learn-by-heart"
from tqdm.auto import tqdm

from course_utils.diffusion import objectives
from course_utils.diffusion.schedules import add_noise
from course_utils.models.unet import PictureUNet
from course_utils.training import MovingAverage, train

UPDATES = budget(smoke=3, laptop=200, gpu=3000)  # TODO-measure: 5 updates a second on one core; do 200 suffice?


def train_on(pages):
    """A U-Net trained on pages (n, 3, 32, 32), averaged: model(x_t, t) -> v_hat, of folded ones (n, 12, 16, 16)."""
    folded = F.pixel_unshuffle(pages, 2)
    torch.manual_seed(0)
    model = PictureUNet(channels=12, size=16, widths=(32, 48, 64))
    average = MovingAverage(model, decay=0.99)

    def loss(model, samples):
        x0, t = folded[samples.integers(len(pages))], samples.integers(len(alpha_bar), stream=1)
        eps = samples.normals(12, 16, 16, stream=2)
        v = objectives.v_from_x0_eps(x0, eps, t, alpha_bar)
        return objectives.noise_prediction_loss(model(add_noise(x0, eps, t, alpha_bar), t), v).mean()

    records = train(model, loss, steps=UPDATES, batch=16, learning_rate=2e-3, average=average)
    for _ in tqdm(records, f"{len(pages)} entries", total=UPDATES):
        pass
    return average.model


networks = {f"trained on {len(few_pages)}": train_on(entries), f"trained on {len(many_pages)}": train_on(many_pages)}

# %% [markdown] id="extract-text"
# Now the attack: draw with 64 seeds, and keep what is much nearer to one training page than to the next, with a ratio
# below 0.5. Each network is compared with the pages that *it* was trained on, one of each. The floor: fresh pages, of
# which no network could have made a copy. **Predict first:** what share of each network's images are copies? And what
# share of the small one's copies are copies of the page that was put in ten times?
#
# <details><summary>Answer (after running the cells below)</summary>
# TODO-measure: share of copies of the network of 20, of the network of 1,000, of fresh pages; share of the tenfold page
# (10 of 29 entries are 34%).
# </details>

# %% id="extract"
SEEDS, NEAR = budget(smoke=8, laptop=64, gpu=256), 0.5


@torch.no_grad()
def draw_small(model, count, seed=0):
    """`count` images (count, 3, 32, 32) from a network of ours, by DDIM in 25 steps."""
    x_T = torch.randn(count, 12, 16, 16, generator=torch.Generator().manual_seed(seed))
    predict = objectives.as_eps(lambda x_t, t, cond=None: model(x_t, t), "v", alpha_bar)
    times = solvers.trailing_times(len(alpha_bar), budget(smoke=3, laptop=25, gpu=25))
    walk = solvers.ddim(predict, x_T, alpha_bar, times)
    return F.pixel_shuffle(solvers.finish(walk).clamp(-1, 1), 2)


trained_on = dict(zip(networks, (few_pages, many_pages)))
extracted = {name: draw_small(model, SEEDS) for name, model in networks.items()}
ratios = {}
for name, training in trained_on.items():
    for kind, some in {"drawn": extracted[name], "fresh": fresh_pages[:SEEDS]}.items():
        ratios[name, kind] = ratio = neighbour_ratio(some.flatten(1), training.flatten(1))
        copied_ones = said((ratio < NEAR).tolist())
        print(f"{name:16} {kind}: ratio {ratio.median():.2f} in the median, below {NEAR}: {copied_ones}")
small, large = networks
if LAPTOP:
    assert wilson_interval(int((ratios[small, "drawn"] < NEAR).sum()), SEEDS)[0] > 0.3
    assert (ratios[large, "drawn"] < NEAR).sum() <= 0.1 * SEEDS and (ratios[small, "fresh"] < NEAR).sum() == 0

# %% id="extract-look" tags=["static"]
LOOK, rows = min(8, SEEDS), []
for name, training in trained_on.items():
    some = extracted[name][:LOOK]
    rows += [some, training[nearest_two(some.flatten(1), training.flatten(1))[2]]]
labels = [f"{ratio:.2f}" for name in networks for ratio in ratios[name, "drawn"][:LOOK]]
titles = [*labels[:LOOK], *[""] * LOOK, *labels[LOOK:], *[""] * LOOK]
show(
    plot_pictures(torch.cat(rows), titles, LOOK, rows=[small, "nearest page", large, "nearest page"]),
    "Images of the two networks for the first seeds, none selected, with their ratios, and below each its nearest "
    "training page. TODO-measure: what is seen.",
)

# %% [markdown] id="tenfold-text"
# Which pages come out? And what if nobody had removed the duplicates before searching? Then the second neighbour of a
# copy of the tenfold page is the same page once more, just as near.

# %% id="tenfold"
drawn_rows = extracted[small].flatten(1)
is_copy = ratios[small, "drawn"] < NEAR
which = nearest_two(drawn_rows, few_pages.flatten(1))[2][is_copy]
of_page = torch.bincount(which, minlength=FEW_PAGES)
print(f"of {len(which)} copies, of the tenfold page: {of_page[0]}, of each other page: {of_page[1:].tolist()}")
if len(which):
    print("   its share:", said((which == 0).tolist()), f"; of the entries {10 / len(entries):.0%}")
print(f"different pages extracted: {(of_page > 0).sum()} of {FEW_PAGES}")
hidden = neighbour_ratio(drawn_rows, entries.flatten(1)) < NEAR
print(f"with the duplicates left in the list: {hidden.sum()} copies found instead of {is_copy.sum()}")
assert (hidden <= is_copy).all()
if LAPTOP:
    assert of_page[0] > 3 * of_page[1:].double().mean() and hidden.sum() < is_copy.sum()

# %% [markdown] id="tenfold-read"
# TODO-measure: how often the tenfold page comes out, compared with its share of the entries.
#
# The network of 1,000 pages has as many parameters and as many updates, but it saw each page fifty times less often.
# TODO-measure: what it draws instead. It is no better a network; it had more pages, and each of them counted less. That
# is why the first remedy is to remove duplicates from the data. The attack on Stable Diffusion tried the captions of
# the images that its training set held most often, and succeeded mostly for those that were there a hundred times or
# more ([arXiv:2301.13188](https://arxiv.org/abs/2301.13188), section 4). Duplicated captions matter, too
# ([arXiv:2305.20086](https://arxiv.org/abs/2305.20086)).

# %% [markdown] id="member-text"
# ### Was this image in the training set?
#
# Someone who finds no copy can still ask whether a certain image was trained on: **membership inference**. What gives
# it away is the loss, which training makes smaller on the training set than elsewhere. How well does the loss separate
# members from others? Take one of each, at random: the **AUC** is the probability that the member's loss is the smaller
# one (ties count half).
#
# $$\text{AUC} = \operatorname*{mean}_{a, b} \Bigl( [\text{member}_a < \text{other}_b]
#   + \tfrac12 [\text{member}_a = \text{other}_b] \Bigr)$$
#
# 1 means that the loss separates them perfectly, 0.5 that it tells nothing. No threshold has to be chosen. (The name,
# area under the curve, comes from another way to compute the same number: plot the share of members found over the
# share of false alarms, for all thresholds.)
#
# ### Exercise · The area under the curve
#
# ●○○○○ · 6 minutes. `members` is (count,) and `others` (number,). Return the AUC as a float.


# %% id="ex-auc"
def auc(members, others):
    """The probability that a member's loss is below another's, ties half, as a float."""
    ### BEGIN SOLUTION
    #: all pairs, (count, number)
    below = members[:, None] < others[None, :]
    equal = members[:, None] == others[None, :]
    #: ties half
    return (below.double() + equal.double() / 2).mean().item()
    ### END SOLUTION


# %% id="check-auc"
auc = check("15.auc", auc)

# %% [markdown] id="membership-text"
# The loss at a middle time, $t = 500$, averaged over four noises, the same for all images. First our two networks: on
# their training pages (one of each), and on fresh pages from the same program. **Predict first:** the AUC of the
# network of 20 pages, and that of the network of 1,000?
#
# <details><summary>Answer (after running the cell below)</summary>
# TODO-measure: both AUCs with their intervals.
# </details>

# %% id="membership"
from sklearn.metrics import roc_auc_score

from course_utils.metrics.copies import auc_interval


@torch.no_grad()
def losses_at(predict, x0, t=500, noises=4):
    """The loss of each x0 (n, ...) at time t: the mean over some noises, the same for all, (n,)."""
    time, found = torch.full((len(x0),), t), []
    for seed in range(noises):
        eps = torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(seed)).expand_as(x0)
        v = objectives.v_from_x0_eps(x0, eps, time, alpha_bar)
        found.append(objectives.noise_prediction_loss(predict(add_noise(x0, eps, time, alpha_bar), time), v))
    return torch.stack(found).mean(0)


of_loss = {}
for name, training in trained_on.items():
    pair = [losses_at(networks[name], F.pixel_unshuffle(some, 2)) for some in (training[:FRESH], fresh_pages)]
    of_loss[name] = auc(*pair), auc_interval(*pair)
    truth = [1] * len(pair[0]) + [0] * len(pair[1])
    assert abs(of_loss[name][0] - roc_auc_score(truth, -torch.cat(pair))) < 1e-6
    value, (low, high) = of_loss[name]
    print(f"{name:16} loss {pair[0].mean():.4f} of {len(pair[0])} members, {pair[1].mean():.4f} of {len(pair[1])} others; "
          f"AUC {value:.2f} ({low:.2f} to {high:.2f})")  # fmt: skip
if LAPTOP:
    assert of_loss[small][1][0] > 0.9 and of_loss[large][0] < of_loss[small][1][0]

# %% [markdown] id="membership-read"
# TODO-measure: the network of 20 gives its pages away; how much the network of 1,000 does.
#
# ### The shipped model
#
# Now the same two questions about the model of chapter 10. Its training pages are the first of data set 0, 40,000 of
# them on a laptop and 100,000 with a GPU (`course_utils/recipes/pictures.py`). Its losses, on 200 of these pages with
# their captions and on 200 fresh pages with theirs:

# %% id="shipped-membership"
from course_utils.recipes.vae import encode_pictures
from course_utils.text.tokens import tokenize

pipe, TESTED = painter.parts, budget(smoke=8, laptop=200, gpu=1000)


@torch.no_grad()
def shipped_losses(some):
    """The shipped U-Net's losses on pages, each with its caption: (n,)."""
    losses = []
    for first in range(0, len(some), 40):
        part = some[first : first + 40]
        x0 = pipe.vae.config.scaling_factor * encode_pictures(pipe.vae, book.pictures(part))
        tokens = tokenize(pipe.tokenizer, [book.caption(scene).text for scene in part])
        cond = pipe.text_encoder(tokens).last_hidden_state
        losses.append(losses_at(lambda x_t, t, cond=cond: pipe.unet(x_t, t, cond).sample, x0, noises=2))
    return torch.cat(losses)


pair = [shipped_losses([book.sample_scene(n, seed) for n in range(TESTED)]) for seed in (0, 16)]
value, (low, high) = auc(*pair), auc_interval(*pair)
print(f"shipped: loss {pair[0].mean():.4f} on {TESTED} members, {pair[1].mean():.4f} on {TESTED} others; "
      f"AUC {value:.2f} ({low:.2f} to {high:.2f})")  # fmt: skip
if LAPTOP:
    assert low < 0.6 and value < of_loss[small][0]

# %% [markdown] id="shipped-membership-read"
# TODO-measure: whether the interval holds 0.5. This is the simplest of such attacks. That it finds nothing would not
# prove that there is nothing to find.
#
# And does it draw copies? If so, then for a prompt that is the caption of training pages. Of the scenes with one thing
# we take those words that most of the training pages share, and draw each with four seeds. **All** training pages of
# these words are then compared with each image. How near would a page be that is surely no copy? As a floor we render
# fresh pages of the same words.

# %% id="shipped-copies-data"
SCENES = budget(smoke=2000, laptop=40_000, gpu=100_000)
TARGETS, TIMES = budget(smoke=2, laptop=16, gpu=40), 4
alike = {}  # what a page shows -> all training pages that show it
for number in range(SCENES):
    scene = book.sample_scene(number)
    if len(scene.things) == 1:
        alike.setdefault((scene.things, scene.place, scene.style), []).append(scene)
targets = sorted(alike.values(), key=len, reverse=True)[:TARGETS]
groups = [book.pictures(group) for group in targets]
wanted = [book.caption(group[0]).text for group in targets for _ in range(TIMES)]
rendered = book.pictures(replace(group[0], seed=10**10 + n) for group in targets for n in range(TIMES))
attempts = draw_all(painter, wanted, seed=1000, steps=10)
print(f"{TARGETS} captions, such as {wanted[0]!r}, with {len(groups[-1])} to {len(groups[0])} training pages each")

# %% id="shipped-copies"
by_ratio = {}
for sees, see in {"pixels": lambda some: some.flatten(1), "features": judge_sees}.items():
    known = [see(group) for group in groups]
    for kind, some in {"drawn": attempts, "fresh": rendered}.items():
        parts = see(some).split(TIMES)
        nearest = torch.cat([nearest_two(part, group)[0] for part, group in zip(parts, known)])
        by_ratio[sees, kind] = ratio = torch.cat([neighbour_ratio(part, group) for part, group in zip(parts, known)])
        print(f"{sees:9} {kind}: nearest {nearest.median():6.2f} in the median, {nearest.min():.2f} at least; "
              f"ratio {ratio.min():.2f} at least, below {NEAR}: {said((ratio < NEAR).tolist())}")  # fmt: skip
if LAPTOP:
    for sees in ("pixels", "features"):
        assert (by_ratio[sees, "drawn"] < NEAR).sum() <= (by_ratio[sees, "fresh"] < NEAR).sum() + 3

# %% [markdown] id="shipped-copies-look-text"
# The six images with the smallest ratios in pixels, the most suspicious ones, above their nearest training pages:

# %% id="shipped-copies-look" tags=["static"]
worst = by_ratio["pixels", "drawn"].argsort()[:6].tolist()
originals = [
    groups[i // TIMES][nearest_two(attempts[i : i + 1].flatten(1), groups[i // TIMES].flatten(1))[2]] for i in worst
]
show(
    plot_pictures(
        torch.cat([attempts[worst], *originals]),
        [*(f"{wanted[i]}: {by_ratio['pixels', 'drawn'][i]:.2f}" for i in worst), *[""] * len(worst)],
        columns=len(worst),
        rows=["drawn", "nearest page"],
    ),
    "The six most suspicious images and their nearest training pages. TODO-measure: what they share and what not.",
)

# %% [markdown] id="shipped-copies-read"
# TODO-measure: whether the drawn images are nearer to training pages than fresh pages are. What can be concluded has
# limits: 64 images, one threshold, two distances, and captions that many pages share. The experiment above says where a
# search should begin: with images that the data hold many times. Here no page is put in twice.
