# %% [markdown] id="marks-text"
# ## 5 · Where does it come from?
#
# An image that a model drew can be taken for a photograph, or for a person's work. Three things can tell where it
# comes from: a note in the file, a mark in the pixels, and a mark that the whole image grew from. We build each, and
# then do to the images what happens to images.
#
# ### A note in the file
#
# The course writes into each PNG how it was made (chapter 11). **Predict first:** you open such a file in another
# program and save it again as PNG, which loses not a single pixel. Is the note still there?
#
# <details><summary>Answer (after running the cell below)</summary>
# No. Saving writes the pixels and what the program thinks of writing. Nobody removed the note; nobody kept it.
# </details>

# %% id="note"
import tempfile
from pathlib import Path

from PIL import Image

from course_utils.pipelines.picture_book import draw, load_picture_book
from course_utils.pipelines.png_info import Settings, read_png, write_png

pipe = load_picture_book(device=device)
((page, settings),) = draw(pipe, Settings("a cat in the forest", seed=7, steps=budget(smoke=2, laptop=10, gpu=20)))
with tempfile.TemporaryDirectory() as folder:
    first, second = Path(folder) / "first.png", Path(folder) / "second.png"
    write_png(first, page, settings)
    Image.open(first).save(second)
    print("written by the course:", read_png(first))
    print("the same pixels:", Image.open(second).tobytes() == page.tobytes())
    print("saved once more:", Image.open(second).info)
    assert read_png(first) == settings and "parameters" not in Image.open(second).info

# %% [markdown] id="pixels-text"
# ### A mark in the pixels
#
# Chapter 11 added a faint pattern to an image and found it by correlation. The classic form of this, *spread spectrum*
# (Cox et al. 1997), adds it to the discrete cosine transform (DCT) instead: to 1,040 coefficients of middle frequency
# the same small number, with a sign that only a key knows. Slow waves would be visible, and fast ones are what JPEG
# throws away first.
#
# Packages that do this exist, but `invisible-watermark`, which diffusers uses for SDXL, was last released in July 2023,
# needs OpenCV, and refuses images below 256 × 256; `blind-watermark` was last released in April 2023. So
# `write_dct` is our own; the transform is scipy's.
#
# To find the mark we compare the coefficients with the signs, and give the distance: 2 minus twice the cosine of the
# angle between them. It is 0 for the key itself, and 2 on average for what has nothing to do with it.

# %% id="pixels"
from course_utils.data.distortions import saved
from course_utils.pipelines.watermark import find_dct, write_dct

KEY = 2026
few = book.pictures([book.sample_scene(number, seed=15) for number in range(6)])
marked = saved(write_dct(few, KEY))
print(f"PSNR {psnr(marked, few).mean():.1f} dB")
for name, pages in (("not marked", few), ("marked", marked)):
    right, wrong = find_dct(pages, KEY), find_dct(pages, KEY + 1)
    print(f"{name:10}: distance to the key {right.mean():.2f}, to another key {wrong.mean():.2f}")
assert (find_dct(marked, KEY) < find_dct(few, KEY)).all() and find_dct(marked, KEY).max() < 1.95

# %% id="pixels-look" tags=["static"]
show(
    plot_pictures(torch.cat([few, marked, 10 * (marked - few)]), columns=6, rows=["page", "marked", "difference × 10"]),
    "Pages; the same pages marked, with a faint grain in flat areas; and ten times the difference, grain without any form.",
)

# %% [markdown] id="ring-text"
# ### A mark that the image grows from
#
# The pixels' mark is put on afterwards. Tree-Ring ([arXiv:2305.20030](https://arxiv.org/abs/2305.20030)) begins at the
# other end: it writes the key into the start noise $x_T$, and the image grows from it. To find it again, DDIM is run
# backwards from the image to the noise (chapter 12), and the noise is compared with the key.
#
# The key stands in the noise's spectrum, its Fourier transform $\mathcal F(x_T)$, on rings of equal frequency around
# zero: each ring of each channel gets one value, +1 or −1. Here is why:
#
# - the spectrum of real numbers has $\mathcal F_{-u,-v} = \overline{\mathcal F_{u,v}}$. Both lie on one ring, and there
#   they have one real value, so **the noise stays real**;
# - with a transform that keeps lengths (`norm="ortho"`), the spectrum of standard normal noise has a mean square of 1.
#   So does a key of ±1, and **the noise keeps its variance**;
# - turn or mirror an image, and its spectrum is turned or mirrored: on a ring nothing changes.
#
# The transform has to be seen from the middle of the image for that; usually it is seen from the first pixel. Moving
# the view multiplies each frequency by a complex number of length 1: `spectrum(x)` is `torch.fft.fft2(x,
# norm="ortho")` times `from_the_middle(16)`. `make_key` returns the key, (8, 16, 16), with 0 off the rings. Rings 2 to
# 5 have 704 of the 2,048 places, a third. (The paper takes one of four channels, and 2% of all places; its model and
# images are larger.)

# %% id="key" tags=["static"]
from course_utils.pipelines.watermark import from_the_middle, make_key, p_value, spectrum

key = make_key(KEY)
pattern = torch.fft.ifft2(key * from_the_middle(16).conj(), norm="ortho")
print(f"{int((key != 0).sum())} of {key.numel()} places")
assert pattern.imag.abs().max() < 1e-6  # real
figure, axes = plt.subplots(2, 4, figsize=(8, 4.2))
for channel, (above, below) in enumerate(axes.T):
    above.imshow(torch.fft.fftshift(key[channel]), cmap="coolwarm", vmin=-1, vmax=1)
    below.imshow(pattern.real[channel], cmap="coolwarm", vmin=-4, vmax=4)
    above.set(title=f"channel {channel}")
for ax, name in zip(axes[:, 0], ("key (spectrum)", "as noise")):
    ax.set_ylabel(name)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
show(
    figure,
    "The key of four channels: rings of +1 and −1 around the middle of the spectrum; and what they are in the noise, "
    "rings around the middle of the image.",
)

# %% [markdown] id="write-text"
# ### Exercise · Write the ring
#
# ●●○○○ · 12 minutes. `noise` is (n, 8, 16, 16), `key` (8, 16, 16). Return the noise whose spectrum is the key where the
# key is not 0, and as it was elsewhere: real, of the same shape. The way back from a
# spectrum takes the conjugate, `from_the_middle(16).conj()`, which undoes the move, and `torch.fft.ifft2` with the
# same `norm`.


# %% id="ex-write-ring"
def write_ring(noise, key):
    """Noise (n, channels, size, size) with key (channels, size, size) in its spectrum where key is not 0; real."""
    ### BEGIN SOLUTION
    #: the key where there is one, the noise's own spectrum elsewhere
    written = torch.where(key != 0, key.to(torch.complex64), spectrum(noise))
    #: seen from the first pixel again
    written = written * from_the_middle(noise.shape[-1]).conj()
    #: back to noise; its imaginary part is rounding only
    return torch.fft.ifft2(written, norm="ortho").real
    ### END SOLUTION


# %% id="check-write-ring"
write_ring = check("15.write_ring", write_ring)

# %% [markdown] id="write-read-text"
# Is it still standard normal? We look at 500 noises without and with the key: the standard deviation, and the share
# of numbers beyond two standard deviations, which is 4.6% for a normal distribution.

# %% id="write-normal"
noise = torch.randn(500, 8, 16, 16, generator=torch.Generator().manual_seed(0))
for name, x_T in (("noise", noise), ("with the key", write_ring(noise, key))):
    print(f"{name:12} std {x_T.std():.3f}, beyond ±2: {(x_T.abs() > 2).float().mean():.1%}, most {x_T.abs().max():.1f}")
    print(f"{'':12} one number over all 500: std from {x_T.std(0).min():.2f} to {x_T.std(0).max():.2f}")
assert abs(write_ring(noise, key).std() - 1) < 0.02

# %% [markdown] id="write-price"
# The variance is right, and nearly so is the share of large numbers. Two things are not. In the middle, where the
# waves of all rings meet, a number can be far larger than normal noise ever has: all frequencies have the right
# strength, but their phases are not random any more. And all noises share the key, so that a number at one place
# varies less from noise to noise. Anyone who has many marked noises can average them and find the key.
#
# ### Exercise · Read it again
#
# ●●○○○ · 12 minutes. An inversion finds a weaker noise than the one that was drawn from, so the distance must not
# depend on its length. With $\mathcal R$ the places of all channels where `key` is not 0:
#
# $$\Delta = \frac{1}{|\mathcal R|} \sum_{\mathcal R} \Bigl| \frac{\mathcal F(x_T)}{s} - \text{key} \Bigr|^2, \qquad
#   s^2 = \frac{1}{|\mathcal R|} \sum_{\mathcal R} |\mathcal F(x_T)|^2$$
#
# In words: scale the spectrum on the rings to a mean square of 1, separately for each noise, and take the mean squared
# distance to the key. It is $2 - 2 \cos$ of the angle between the two. (The paper takes the mean of the distances
# without squares, and no scale.) Return one number for each noise, (n,).


# %% id="ex-ring-distance"
def ring_distance(noise, key):
    """How far the spectrum of each noise (n, channels, size, size) is from the key on its rings: (n,), from 0 to 4."""
    ### BEGIN SOLUTION
    #: the spectrum on the rings, (n, places)
    found = spectrum(noise)[:, key != 0]
    #: scaled to a mean square of 1, each noise by itself
    found = found / found.abs().square().mean(1, keepdim=True).sqrt()
    #: the mean squared distance
    return (found - key[key != 0]).abs().square().mean(1)
    ### END SOLUTION


# %% id="check-ring-distance"
ring_distance = check("15.ring_distance", ring_distance)

# %% [markdown] id="chance-text"
# How small must the distance be to be no accident? For standard normal noise and any fixed key of $N$ numbers the
# cosine has a known law, that of a random direction: its standard deviation is $1/\sqrt{N}$, here 0.038. From it
# `p_value` gives the probability that noise without the key comes as near. We check that on the 500 noises: of all
# p-values, a share of 5% should be below 0.05.

# %% id="chance"
places = int((key != 0).sum())
distances = ring_distance(noise, key)
p = p_value(distances, places)
print(
    f"noise without the key: {distances.mean():.3f} ± {distances.std():.3f}; p below 0.05: {(p < 0.05).float().mean():.1%}"
)
print(f"noise with the key:    {ring_distance(write_ring(noise, key), key).max():.1e} at most")
assert abs(distances.std() - 2 * places**-0.5) < 0.02 and 0.02 < (p < 0.05).double().mean() < 0.08

# %% [markdown] id="grow-text"
# ### Draw, and look back
#
# Now images. The same captions are drawn from the same noises, without and with the key. `find_ring` inverts each image
# with the empty prompt, since who finds an image does not know what it was asked for. Five steps suffice.

# %% id="grow"
from course_utils.pipelines import editing
from course_utils.pipelines.watermark import find_ring

MARKED, STEPS = budget(smoke=3, laptop=24, gpu=100), budget(smoke=2, laptop=8, gpu=20)
captions = [book.caption(book.sample_scene(number, seed=16)) for number in range(MARKED)]
texts = [caption.text for caption in captions]
x_T = torch.stack([torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(MARKED)])
plain = saved(editing.draw_from(pipe, x_T, texts, steps=STEPS))
ringed = saved(editing.draw_from(pipe, write_ring(x_T, key), texts, steps=STEPS))

# %% id="grow-look" tags=["static"]
found = {name: find_ring(pipe, pages, key).cpu() for name, pages in (("plain", plain), ("with key", ringed))}
rows = [f"{name}: {values.mean():.2f}" for name, values in found.items()]
show(
    plot_pictures(torch.cat([plain[:6], ringed[:6]]), columns=min(6, MARKED), heads=texts[:6], rows=rows),
    "Two rows of pages of the same captions and noises, without and with the key in the noise: nearly the same pages, with other details.",
)
for name, pages in (("plain", plain), ("with key", ringed)):
    print(
        f"{name:9}: distance {found[name].min():.2f} to {found[name].max():.2f}, followed {rate(followed(judge, pages, captions))}"
    )

# %% [markdown] id="grow-read"
# A third of the noise has changed, and the pages are nearly the same: the slowest waves, which decide what is where,
# are left alone. They follow their captions as often, as far as 24 can tell. The distances are far from 0, because the
# inversion is rough, and yet all pages with the key are nearer to it than any without.
#
# ### Where to draw the line
#
# The p-value holds for normal noise. What an inversion finds in an image is not quite that: something of the image
# stays in it. So the rate of false alarms must be **measured**, on images without the mark. We invert pages of the
# program, which know nothing of any key, and compare each with 100 keys. **Predict first:** by the p-value one
# comparison in a thousand has p < 0.001. How many have?
#
# <details><summary>Answer (after running the cell below)</summary>
# Three in a thousand, 0.31%, and of one of the keys 2%. The inverted noise of pages scatters more than normal noise:
# 0.084 in place of 0.075. A p-value that is computed from a model of the noise is as good as that model.
# </details>

# %% id="line"
from course_utils.metrics.statistics import wilson_interval

PAGES = budget(smoke=8, laptop=200, gpu=2000)
clean = book.pictures([book.sample_scene(number, seed=17) for number in range(PAGES)])
inverted = torch.cat([editing.invert(pipe, part, "", steps=5).cpu() for part in clean.split(50)])
others = torch.stack([ring_distance(inverted, make_key(number)) for number in range(100)])  # (keys, pages)
unlikely = p_value(others, places) < 0.001
print(f"distances: standard deviation {others.std():.3f}, of normal noise {2 * places**-0.5:.3f}")
print(f"p below 0.001: {unlikely.double().mean():.2%}; of the worst key {unlikely.double().mean(1).max():.1%}")
if budget(smoke=False, laptop=True, gpu=True):
    assert unlikely.double().mean() > 0.002

# %% [markdown] id="line-choose-text"
# So we put the line where it should be by the first half of the pages: 1% of their distances to the 100 other keys lie
# below it. Then we count how many of the second half lie below it for our key, and do the same for the mark in the
# pixels.

# %% id="line-choose"
half = PAGES // 2
clean_ring, clean_pixels = ring_distance(inverted, key), find_dct(clean, KEY)
pixel_others = torch.stack([find_dct(clean[:half], number) for number in range(100)])
lines = {"ring": others[:, :half].quantile(0.01).item(), "pixels": pixel_others.quantile(0.01).item()}
for name, values in (("ring", clean_ring[half:]), ("pixels", clean_pixels[half:])):
    false = int((values < lines[name]).sum())
    low, high = wilson_interval(false, PAGES - half)
    print(f"{name:6}: line {lines[name]:.3f}, false alarms {false} of {PAGES - half} ({low:.1%} to {high:.1%})")
if budget(smoke=False, laptop=True, gpu=True):
    assert (
        (found["with key"] < lines["ring"]).double().mean()
        > 0.9
        > 0.1
        > (found["plain"] < lines["ring"]).double().mean()
    )

# %% id="line-plot" tags=["static"]
figure, ax = plt.subplots(figsize=(7, 2.8))
bins = torch.linspace(1, 2.5, 61).numpy()
for name, values in (
    ("program's pages", clean_ring),
    ("drawn, no key", found["plain"]),
    ("drawn, key", found["with key"]),
):
    ax.hist(values.numpy(), bins, density=True, alpha=0.6, label=name)
ax.axvline(lines["ring"], color="black")
ax.set(xlabel=r"distance $\Delta$", ylabel="density", title="the line: 1% of unmarked pages are to its left")
ax.legend()
show(
    figure,
    "Histograms of distances: unmarked pages and drawings around 2, those with the key around 1.4, and a line between them.",
)

# %% [markdown] id="robust-text"
# ### What becomes of both marks
#
# Images are compressed, cut and made smaller, mostly without any ill will; `course_utils.data.distortions` does that.
# And an image can be drawn again: image to image (chapter 12), with the empty prompt and a low strength, changes little
# that one sees. **Predict first:** which mark survives a crop, which survives being drawn again?
#
# <details><summary>Answer (after running the cells below)</summary>
# Where pixels move, the mark in the pixels is lost altogether: its waves no longer fit. The ring is still found in half
# of the pages that were cut, and in nearly all that were mirrored. Drawn again at a strength of 0.3, the mark in the
# pixels is gone as well, since the autoencoder does not bring a faint grain back; the ring is found in 15 of 24. Where
# pixels only lose precision, it is the other way round: the mark in the pixels is found each time.
# </details>

# %% id="robust"
from course_utils.data.distortions import as_jpeg, brighter, cropped, noisy, shrunk


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def again(pages, strength):
    """Drawn again, image to image, with the empty prompt and without guidance."""
    return saved(editing.picture_to_picture(pipe, pages, "", strength, dice(), guidance=1.0, steps=10))


changes = {
    "saved as PNG": saved,
    "JPEG, quality 90": lambda pages: as_jpeg(pages, 90),
    "JPEG, quality 50": lambda pages: as_jpeg(pages, 50),
    "half the size": lambda pages: shrunk(pages, 0.5),
    "4 pixels cut off": lambda pages: cropped(pages, 4),
    "mirrored": lambda pages: pages.flip(3),
    "brighter by 30%": lambda pages: brighter(pages, 1.3),
    "noise of 0.1": lambda pages: noisy(pages, 0.1, dice()),
    "drawn again, 0.3": lambda pages: again(pages, 0.3),
    "drawn again, 0.6": lambda pages: again(pages, 0.6),
}

# %% [markdown] id="robust-table-text"
# A mark counts as found if its distance is below its line.

# %% id="robust-table"
pixel_marked = saved(write_dct(plain, KEY))
share = {}
print(f"found of {MARKED}, with 95% interval      ring                   pixels        PSNR")
for name, change in changes.items():
    of_ring, of_pixels = change(ringed), change(pixel_marked)
    hits = {
        "ring": find_ring(pipe, of_ring, key).cpu() < lines["ring"],
        "pixels": find_dct(of_pixels, KEY) < lines["pixels"],
    }
    cells = []
    for mark, hit in hits.items():
        share[name, mark] = int(hit.sum())
        low, high = wilson_interval(int(hit.sum()), MARKED)
        cells.append(f"{int(hit.sum()):3} ({low:4.0%} to {high:4.0%})")
    print(f"{name:20} {cells[0]:>24} {cells[1]:>24} {psnr(of_ring, ringed).clamp(max=99).mean():8.1f}")
if budget(smoke=False, laptop=True, gpu=True):
    assert all(
        share[name, "ring"] > share[name, "pixels"] for name in ("4 pixels cut off", "mirrored", "drawn again, 0.3")
    )
    assert all(share[name, "pixels"] > 0.9 * MARKED for name in ("JPEG, quality 50", "half the size", "noise of 0.1"))
    assert share["mirrored", "ring"] > MARKED / 2 > share["drawn again, 0.6", "ring"]

# %% id="robust-look" tags=["static"]
shown = [
    "JPEG, quality 50",
    "half the size",
    "4 pixels cut off",
    "mirrored",
    "noise of 0.1",
    "drawn again, 0.3",
    "drawn again, 0.6",
]
pages = torch.stack([ringed[:3], *(changes[name](ringed[:3]) for name in shown)], dim=1).flatten(0, 1)
show(
    plot_pictures(pages, columns=len(shown) + 1, heads=["with key", *shown]),
    "Three pages, and each as JPEG, shrunk, cut, mirrored, noisy, and drawn again at two strengths.",
)

# %% [markdown] id="robust-read"
# Neither mark is better. The mark in the pixels survives JPEG, noise and half the size every time, and no change of the
# geometry. The ring survives most things most of the time, and is the only one that is found after a mirror, a crop, or
# after the image was drawn again. At a strength of 0.6 it too is found in 6 of 24 only, and all that it took was image
# to image: **no mark here withstands somebody who wants to be rid of it**. Two further limits are worth knowing.
# Anyone who has the key can write it into images of other origin, so a mark that is found is no proof either. And to
# look for a ring one needs the model.
#
# Marks can also be trained: Stable Signature ([arXiv:2303.15435](https://arxiv.org/abs/2303.15435)) fine-tunes the
# decoder, so that all that it decodes carries a mark, which a trained network reads.

# %% [markdown] id="credentials"
# ### Content credentials, and what the law asks
#
# *Written in November 2026; both change.* **Content credentials** are the standard of the Coalition for Content
# Provenance and Authenticity, C2PA ([specification](https://spec.c2pa.org/)). A *manifest* in the file holds
# statements on how the content was made, with which program, from which other files, and is signed with a certificate.
# A hash binds it to the content (a *hard binding*), so that a change of either shows. It does not stay where a program
# does not write it, as our note in the PNG did not. The specification therefore also knows *soft bindings*: an
# invisible mark, or a fingerprint of the content, by which a manifest that was lost can be found again in a repository.
#
# The **AI Act** of the European Union, [Regulation (EU) 2024/1689](https://eur-lex.europa.eu/eli/reg/2024/1689/oj), has
# duties of transparency in article 50, which apply since 2 August 2026. By paragraph 2, providers of systems that
# generate synthetic audio, images, video or text have to mark the output in a machine-readable format, so that it can
# be detected as artificially generated or manipulated; the solutions have to be effective, interoperable, robust and
# reliable as far as this is technically feasible. By paragraph 4, deployers of a system that makes *deep fakes* have to
# disclose that the content was generated or manipulated; for evidently artistic, creative, satirical or fictional works
# a disclosure suffices that does not hamper the display or enjoyment of the work. An amendment that Parliament and
# Council adopted in June 2026, the Digital Omnibus on AI, gives systems that were on the market before 2 August 2026
# until 2 December 2026 for the marks of paragraph 2. A voluntary code of practice, published by the Commission in June
# 2026, asks for more than one layer of marks: signed metadata and an invisible mark. This is a summary and no legal
# advice; read the article itself.
