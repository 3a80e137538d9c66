"""Legal inputs of chapter 09."""

import torch
from legal import drive, legal

from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.exercises.mistakes_09 import small_autoencoder


@drive("09.encode")
def encode(answer, case):
    found = []
    for batch, height, width in ((1, 8, 8), (3, 4, 6)):
        vae, x = small_autoencoder(case), case.uniform(-1, 1, batch, 3, height, width)
        generator = case.generator()
        found += [answer(vae, x), answer(vae, x, generator), answer(vae, x, generator)]
    return found


@drive("09.decode")
def decode(answer, case):
    shapes = ((1, 3, 4, 4), (3, 3, 2, 5))
    return [answer(small_autoencoder(case), scale * case.normal(*shape)) for shape in shapes for scale in (1, 4)]


@legal("09.autoencoder_loss")
def autoencoder_loss(case):
    for batch, weight in ((1, 1e-6), (4, 0.1), (2, 0.0)):
        pictures = case.uniform(-1, 1, batch, 3, 8, 6), case.uniform(-1, 1, batch, 3, 8, 6)
        yield *pictures, case.normal(batch, 5, 2, 3), case.uniform(-5, 2, batch, 5, 2, 3), weight


@legal("09.scaling_factor")
def scaling_factor(case):
    for spread in (0.1, 1.0, 7.0):
        yield (spread * case.normal(16, 4, 6, 5) + case.normal(4, 1, 1),)


@legal("09.time_of_equal_snr")
def time_of_equal_snr(case):
    for table in ((1 - case.uniform(0.02, 0.2, 30)).cumprod(0), alpha_bar_from_beta(scaled_linear_beta(1000))):
        T = len(table)
        for std in (0.05, 0.18215, 0.7, 1.0, 3.0, 40.0):
            yield torch.tensor([0, T - 1, *case.whole(0, T - 1, 6).tolist()]), std, table
            yield case.whole(0, T - 1, 1), std, table


@legal("09.fit_colours")
def fit_colours(case):
    for number, channels, factor in ((3, 4, 4), (2, 2, 8), (6, 8, 2)):
        yield case.normal(number, channels, 5, 6), case.uniform(-1, 1, number, 3, 5 * factor, 6 * factor)


@legal("09.level_flops")
def level_flops(case):
    for size, channels in ((1, 1), (2, 3), (7, 5), (16, 64)):
        for attention in (True, False):
            yield size, channels, attention
