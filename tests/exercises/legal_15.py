"""Legal inputs of chapter 15."""

import torch
from legal import legal

from course_utils.exercises.mistakes_15 import clouds, crowd, marked, planted, played, with_eigenvalues
from course_utils.pipelines.watermark import RINGS, make_key


@legal("15.matrix_sqrt")
def matrix_sqrt(case):
    for d, symmetric in ((1, True), (2, False), (5, True), (6, False)):
        matrix = 3 * with_eigenvalues(case, d, symmetric)[0]
        for steps in (1, 2, 5, 30):
            yield matrix, steps
            yield matrix.float(), steps
        yield (matrix / 20,)
    along = case.whole(1, 9, 4)
    yield (torch.outer(along, along).float(),)


@legal("15.frechet_distance")
def frechet_distance(case):
    for count, number, d in ((8, 11, 3), (11, 8, 2), (6, 6, 5), (3, 5, 8), (2, 2, 2)):
        for dtype in (torch.float32, torch.float64):
            x, y = clouds(case, count, number, d, dtype)
            yield x, y
            yield x, x
            yield x, x + 1


@legal("15.kernel_distance")
def kernel_distance(case):
    for count, number, d in ((2, 3, 1), (5, 4, 3), (4, 4, 4), (9, 2, 2)):
        x, y = case.normal(count, d), case.normal(number, d) + 0.5
        yield x, y
        yield x, x
        yield 30 + x, 30 + y
        yield x.double(), y.double()


@legal("15.coverage")
def coverage(case):
    for count, number, d in ((12, 9, 2), (7, 15, 3), (2, 6, 1), (10, 10, 4)):
        x, y = 0.8 * case.normal(count, d), case.normal(number, d)
        for k in (1, 3, 5):
            yield x, y, k
            yield y, y, k
            yield torch.cat([x, y[:2]]), torch.cat([y, y[:3]]), k
        yield x, y
    grid = case.whole(0, 3, 9, 2).float()
    for k in (1, 2, 8):
        yield case.whole(-1, 4, 7, 2).float(), grid, k


@legal("15.wilson_interval")
def wilson_interval(case):
    for hits, number in ((0, 1), (1, 1), (0, 30), (30, 30), (13, 40), (192, 200)):
        for z in (1.0, 1.96, 3.0):
            yield hits, number, z
        yield hits, number


@legal("15.bradley_terry")
def bradley_terry(case):
    for games in ([(0, 1, 4)], [(0, 1, 5), (1, 2, 9)], [(0, 1, 4), (0, 2, 12), (0, 3, 7), (1, 2, 9), (2, 3, 20)]):
        for steps in (1, 2, 7, 30):
            yield played(case, games), steps
        yield (played(case, games),)


@legal("15.neighbour_ratio")
def neighbour_ratio(case):
    for count, number, d, away in ((1, 2, 1, 0.0), (4, 4, 3, 0.0), (6, 30, 5, 20.0), (30, 7, 2, 3.0)):
        yield crowd(case, count, number, d, away)
        yield tuple(x.double() for x in crowd(case, count, number, d, away))
    same = case.normal(1, 3)
    yield same, same.expand(2, 3)


@legal("15.write_ring")
def write_ring(case):
    for n, rings in ((1, RINGS), (3, (1,)), (2, (2, 7)), (8, (5, 3))):
        yield case.normal(n, 8, 16, 16), make_key(case.seed + n, rings=rings)


@legal("15.ring_distance")
def ring_distance(case):
    for n, channels, rings in ((1, 8, RINGS), (3, 2, (1,)), (4, 8, (2, 7))):
        key = make_key(case.seed + n, channels, rings=rings)
        noise = case.normal(n, channels, 16, 16) * case.uniform(0.2, 2, n, 1, 1, 1)
        yield noise, key
        yield noise + marked(noise, key), key
        yield marked(noise, key), key


@legal("15.flagged")
def flagged(case):
    for n, m, k in ((1, 1, 1), (30, 3, 2), (21, 1, 3), (5, 5, 5)):
        inputs, *_ = planted(case, n, m, k)
        yield inputs
        yield tuple(torch.cat([x, x]) if i == 0 else x for i, x in enumerate(inputs))
