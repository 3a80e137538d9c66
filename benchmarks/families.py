"""The families of generative models on the same data: parameters, training and drawing time, FID, judge, likelihood.

    python3 course.py benchmark families [NAME ...] [--minutes 2] [--keep]

Each model is the one its chapter builds, trained from nothing on handwritten digits (16x16) and on pages of the picture
book with one thing (32x32) for the same processor time, on one thread. Then it draws as many pictures as there are
unseen digits, 357: FID is of these, and the line `real` is the floor, other real pictures in the same number.
Likelihoods are of the unseen digits as they were recorded, 8x8 pixels of 17 levels: the PixelCNN draws digits of this
size, which are then blown up; the VAE's is a bound, from a second one trained on them for as long.
`--keep` writes the rows into course_utils/families.json, which the chapters show; rows of other families stay.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from course_utils.data import digits
from course_utils.data import picture_book as book
from course_utils.machine.devices import describe_machine
from course_utils.metrics import families
from course_utils.metrics.families import Row
from course_utils.metrics.pictures import digit_fid, one_thing, one_thing_pages, picture_book_fid

DRAWN = 357
SHARE_AT_ONCE = 51  # drawn in batches of so many
DATA = ("digits 16x16", "picture book 32x32")


@dataclass(frozen=True)
class Model:
    """What a family brings: its parameters, one update a `next`, how it draws, and its likelihood if it has one.

    draw(count, generator) -> pictures (count, channels, size, size) in [-1, 1]. bits(): bits/dim of unseen digits.
    """

    network: nn.Module
    updates: Iterator
    draw: Callable[[int, torch.Generator], torch.Tensor]
    bits: Callable[[], float] | None = None


def autoregressive(data: torch.Tensor, steps: int) -> Model:
    """Chapter 01's PixelCNN: on digits as they were recorded, on pages with eight levels a channel."""
    from course_utils.models import pixelcnn

    colour = data.shape[1] == 3
    levels, side = (8, 32) if colour else (17, 8)
    symbols = pixelcnn.to_symbols(data, levels) if colour else digits.levels()
    hidden, dropout = (32, 0.0) if colour else (48, 0.2)
    network = pixelcnn.PixelCNN(levels, data.shape[1], hidden=hidden, dropout=dropout)

    def draw(count, generator):
        network.eval()
        empty = torch.zeros(count, side, side, dtype=torch.int64)
        drawn = pixelcnn.sample_by_rows(network, empty, 0, generator)
        pictures = pixelcnn.to_pictures(drawn, levels, data.shape[1])
        return pictures if colour else interpolate(pictures, size=(16, 16), mode="bilinear", align_corners=False)

    def bits():
        unseen = digits.levels("test")
        return pixelcnn.bits_per_dim(network.eval()(unseen), unseen).mean().item()

    updates = pixelcnn.fit(network, symbols, steps=steps, batch=16, learning_rate=3e-3)
    return Model(network, updates, draw, None if colour else bits)


def variational(data: torch.Tensor, steps: int) -> Model:
    """Chapter 02's variational autoencoder, with the price beta that draws best there."""
    from course_utils.models import vae

    channels, size = data.shape[1:3]
    network = vae.VAE(channels, size, latent=16 if channels == 1 else 64)

    def bits():
        levels, unseen, generator = digits.levels(), digits.levels("test"), torch.Generator().manual_seed(0)
        other = vae.VAE(size=8, latent=8, outputs=17)
        for _ in vae.fit(other, levels, steps, vae.level_bound, batch=32):
            pass
        return vae.bits_per_dim(vae.level_bound(other.eval(), unseen, generator).mean().item(), 64)

    return Model(
        network, vae.fit(network, data, steps, batch=32, beta=4.0), network.sample, bits if channels == 1 else None
    )


def diffusion(data: torch.Tensor, steps: int) -> Model:
    """Chapter 06's network and loss, drawn from by DDIM in 20 steps."""
    from course_utils.diffusion.objectives import noise_prediction_loss, uniform_times
    from course_utils.diffusion.samplers import ddim, finish, trailing_times
    from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
    from course_utils.models.unet import PictureUNet
    from course_utils.training import MovingAverage, train

    alpha_bar, shape = alpha_bar_from_beta(scaled_linear_beta()), data.shape[1:]
    network = PictureUNet(channels=shape[0], size=shape[1])
    average = MovingAverage(network, 0.995)

    def loss(model, samples):
        t = uniform_times(samples.uniforms(stream=1), len(alpha_bar))
        eps = samples.normals(*shape, stream=2)
        x_t = add_noise(data[samples.integers(len(data))], eps, t, alpha_bar)
        return noise_prediction_loss(model(x_t, t), eps).mean()

    def draw(count, generator):
        x_T = torch.randn(count, *shape, generator=generator)
        return finish(ddim(average.model, x_T, alpha_bar, trailing_times(1000, 20), clip=1))

    return Model(network, train(network, loss, steps=steps, batch=32, average=average), draw)


def adversarial(data: torch.Tensor, steps: int) -> Model:
    """Chapter 03's DCGAN with the R1 penalty, drawn from by the moving average of its generator."""
    import copy

    from course_utils.models.adversarial import play
    from course_utils.models.gan import PictureDiscriminator, PictureGenerator

    channels, size = data.shape[1:3]
    G, D = PictureGenerator(channels, size, width=16), PictureDiscriminator(channels, size, width=16)
    average = copy.deepcopy(G).requires_grad_(False)
    rate, gamma = (2e-3, 0.1) if channels == 1 else (1e-3, 1.0)

    def draw(count, generator):
        return average(torch.randn(count, G.latent, generator=generator))

    return Model(nn.ModuleList([G, D]), play(G, D, data, steps, learning_rate=rate, gamma=gamma, average=average), draw)


FAMILIES = {"PixelCNN": autoregressive, "VAE": variational, "GAN": adversarial, "diffusion": diffusion}


def load(name: str) -> torch.Tensor:
    """The training pictures of one data set, in [-1, 1]."""
    return digits.load(16)[0] if name == DATA[0] else book.pictures(one_thing_pages(4000, seed=2), 32)


def real(name: str) -> torch.Tensor:
    """As many real pictures as each model draws, which none was trained on."""
    return digits.load(16, "test")[0] if name == DATA[0] else book.pictures(one_thing_pages(DRAWN, seed=1), 32)


@torch.no_grad()
def measure(family: str, name: str, model: Model, training_seconds: float) -> Row:
    """Draw with a trained model, and say what it cost and how good it is."""
    generator, start = torch.Generator().manual_seed(0), time.process_time()
    pictures = torch.cat([model.draw(SHARE_AT_ONCE, generator) for _ in range(DRAWN // SHARE_AT_ONCE)]).clamp(-1, 1)
    seconds = (time.process_time() - start) / DRAWN
    with torch.enable_grad():
        bits = model.bits() if model.bits else None
    return Row(
        family,
        name,
        sum(p.numel() for p in model.network.parameters()),
        training_seconds,
        seconds,
        *quality(name, pictures),
        bits,
        family == "VAE" and bits is not None,
    )


def quality(name: str, pictures: torch.Tensor) -> tuple[float, float | None]:
    """FID, and for pages the share with one thing in them."""
    if name == DATA[0]:
        return digit_fid(pictures), None
    return picture_book_fid(pictures), one_thing(pictures)


def train(build: Callable[[torch.Tensor, int], Model], data: torch.Tensor, seconds: float) -> tuple[Model, float]:
    """Train build(data, steps) from nothing for about so much processor time; returns the model and how much it was."""
    probe, start = build(data, 12), []
    for _ in probe.updates:
        start.append(time.process_time())
    steps = max(12, round(seconds / ((start[-1] - start[1]) / (len(start) - 2))))
    torch.manual_seed(0)
    model, begin = build(data, steps), time.process_time()
    for _ in tqdm(model.updates, build.__name__, total=steps):
        pass
    return model, time.process_time() - begin


def one_of(known) -> Callable[[str], str]:
    """A `type` for argparse: a name out of those that are known. (Its `choices` cannot be left out altogether.)"""

    def name(word: str) -> str:
        if word not in known:
            raise argparse.ArgumentTypeError(f"expected names out of: {', '.join(known)}; got {word!r}")
        return word

    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        type=one_of(FAMILIES),
        default=list(FAMILIES),
        help=f"out of: {', '.join(FAMILIES)}; none: all",
    )
    parser.add_argument("--minutes", type=float, default=2, help="of processor time, for each training")
    parser.add_argument("--keep", action="store_true", help="write the rows into course_utils/families.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in DATA:
        data = load(name)
        rows.append(Row("real", name, 0, 0, 0, *quality(name, real(name))))
        for family in options.names:
            rows.append(measure(family, name, *train(FAMILIES[family], data, 60 * options.minutes)))
            families.show(rows[-2:])
    print()
    families.show(rows)
    if options.keep:
        new = {(row.family, row.data): row for row in rows}
        old = {(row.family, row.data): row for row in families.measured()}
        order = [(family, name) for name in DATA for family in ("real", *FAMILIES)]
        rows = [(old | new)[key] for key in order if key in old | new]
        families.keep(
            rows,
            {
                "command": f"python3 course.py benchmark families --minutes {options.minutes:g} --keep",
                "machine": describe_machine(),
            },
        )


if __name__ == "__main__":
    main()
