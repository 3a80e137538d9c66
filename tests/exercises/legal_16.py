"""Legal inputs of chapter 16."""

import torch
from legal import legal

from course_utils.diffusion.editing import lerp, slerp
from course_utils.exercises.mistakes_16 import (
    dps_mistakes,
    errors_and_spreads,
    in_float16,
    of_one_norm,
    prompts,
    scene_of,
    slowly,
    some_pictures,
)


@legal("16.read_weights")
def read_weights(case):
    for text in prompts(case):
        yield (text,)


@legal("16.weighted_features")
def weighted_features(case):
    for chunks, tokens, width in ((1, 1, 1), (2, 5, 3), (1, 7, 2)):
        hidden, weights = case.normal(chunks, tokens, width) + 1.2, case.uniform(0.5, 2, chunks, tokens)
        for factor in (1.0, 3.0, -1.0):
            yield hidden, factor * weights
            yield hidden.double(), factor * weights


@legal("16.seam_ratio")
def seam_ratio(case):
    for pictures in some_pictures(case):
        yield (pictures,)
    yield (torch.full((2, 3, 4, 5), 0.5),)
    yield (case.uniform(-1, 1, 1, 3, 2, 2),)


@legal("16.average_windows")
def average_windows(case):
    for starts, window, width in (([0, 3, 6], 4, 10), ([2, 0], 2, 4), ([0], 3, 3), ([0, 1, 1], 5, 6)):
        for batch, channels, height in ((1, 1, 1), (2, 3, 2), (1, 2, window)):
            parts = case.normal(len(starts), batch, channels, height, window)
            for weights in (torch.ones(window), case.uniform(0.1, 2, window)):
                yield parts, starts, width, weights
                yield parts.double(), starts, width, weights


@legal("16.shift_layers")
def shift_layers(case):
    for depths in ((0,), (0, 1), (0.6, 0, 0.3), (1, 0.25, 0, 0.5)):
        layers = scene_of(case, depths, (3, 6))
        for camera in (0, 3, -2.2, 1.7, 20, -20):
            yield layers, camera


@legal("16.dps_step")
def dps_step(case):
    for shape, numbers, t, earlier, pull in (
        ((2, 3), (1,), 30, 12, 0.4),
        ((1, 2, 2), (2, 3), 12, -1, None),
        ((3, 1, 2, 2), (2,), 39, 38, 1.0),
        ((2, 2), (2,), 0, -1, 0.0),
    ):
        for curved in (False, True):
            for told in (False, True):
                yield tuple(dps_mistakes(case, shape, numbers, t, earlier, pull, curved, told).inputs)


@legal("16.calibrated_width")
def calibrated_width(case):
    for shape, plain in (((1,), True), ((8,), True), ((2, 3, 4), False), ((5, 12), False)):
        inputs = errors_and_spreads(case, shape, plain)
        for level in (0.04, 0.25, 0.5, 0.8):
            yield *inputs, level
    yield torch.ones(3), torch.ones(3), torch.zeros(3), 0.5


@legal("16.path_of_frames")
def path_of_frames(case):
    for number, between, shape in ((2, 1, (3,)), (2, 4, (2, 3)), (3, 1, (1, 2, 2)), (4, 3, (2, 2, 2))):
        stops = of_one_norm(case, number, shape)
        for mix in (lerp, slerp, slowly, in_float16):
            yield stops, between, mix
        yield stops, between


@legal("16.put_back")
def put_back(case):
    for n, height, width in ((1, 3, 3), (3, 4, 2)):
        drawn, product = case.normal(n, 3, height, width).tanh(), case.normal(1, 3, height, width).tanh()
        for share in (0.0, 0.5, 1.0):
            yield drawn, product, (case.uniform(0, 1, 1, 1, height, width) < share).float()
