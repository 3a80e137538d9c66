"""The exercises of chapter 15: distances of two clouds of features, how sure a number is, copies, marks, checkers."""

import torch

from course_utils.exercises.mistakes_13 import close_in_each, reasons_given
from course_utils.exercises.mistakes_15 import (
    COMPLEX,
    COVERAGE_REASONS,
    DISTANCE_REASONS,
    EARLY,
    FLAG_REASONS,
    FRECHET_REASONS,
    IN_FLOAT32,
    KERNEL_REASONS,
    ORDER,
    PAIRS,
    RATIO_REASONS,
    ROOT_OF_KID,
    ROOT_REASONS,
    TABLES,
    WILSON_REASONS,
    WRITE_REASONS,
    as_flags,
    clouds,
    coverage_mistakes,
    crowd,
    distance_mistakes,
    flag_mistakes,
    frechet_mistakes,
    kernel_mistakes,
    likeliest,
    marked,
    of_one_direction,
    planted,
    played,
    ratio_mistakes,
    require_accurate,
    require_all_steps,
    require_copies_found,
    require_few_images,
    require_float64,
    require_from_0_to_1,
    require_its_own_kind,
    require_kernel_in_float64,
    require_not_negative,
    require_one_for_each,
    require_real,
    require_real_distance,
    require_real_noise,
    require_share,
    require_two_numbers,
    root_mistakes,
    stopped_early,
    strength_mistakes,
    wilson_mistakes,
    with_eigenvalues,
    written_mistakes,
)
from course_utils.exercises.oracles import close
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import broadcasting_explained, close_in_all
from course_utils.metrics import copies, distributions, safety, statistics
from course_utils.pipelines import watermark

TITLE = "Measuring images, and using them responsibly"


@exercise(
    "15.matrix_sqrt", distributions.matrix_sqrt, difficulty=2, minutes=12,
    hints=[
        "norm = torch.linalg.matrix_norm(matrix.double()) is |A|; torch.eye(len(matrix), dtype=torch.float64) is I.",
        "y, z = matrix.double() / norm, I at the start; t = (3 * I - z @ y) / 2 in each step, before y and z change.",
        "y, z = y @ t, t @ z changes both with the same t. At the end (y * norm.sqrt()).to(matrix.dtype).",
    ],
)  # fmt: skip
def matrix_sqrt(learner, case):
    """Take the root of a matrix by products alone."""
    settings = []
    for d, steps, symmetric, dtype in (
        (4, 3, True, torch.float32),
        (5, 4, False, torch.float64),
        (1, 2, True, torch.float64),
        (3, 1, False, torch.float32),
        (2, 4, True, torch.float64),
        (6, 3, False, torch.float32),
    ):
        matrix, *known = with_eigenvalues(case, d, symmetric)
        size = float(case.uniform(0.2, 0.5) if d % 2 else case.uniform(1, 2))
        matrix, known = (size * matrix).to(dtype), (size * known[0], *known[1:])
        with reasons_given(ROOT_REASONS):
            got = learner(matrix, steps)
        right, mistakes = root_mistakes(matrix, *known, steps, got)
        settings.append((got, right, mistakes, f"after {steps} steps the root", learner.called))
    close_in_all(settings)
    require_all_steps(learner)
    matrix, values, vectors, inverse = with_eigenvalues(case, 4, False)
    got, right = learner(matrix), vectors @ torch.diag(values.sqrt()) @ inverse
    close(got, right, [], 1e-4, "after 30 steps, as many as there are without `steps`, the root")
    require_its_own_kind(got, matrix, learner.called)
    require_accurate(got, right, 1e-9, "after 30 steps", IN_FLOAT32, learner.called)
    for dtype, advice in ((torch.float64, ORDER), (torch.float32, IN_FLOAT32)):
        for d in (5, 2, 7):
            matrix, right = of_one_direction(case, d)
            got = learner(matrix.to(dtype))
            require_accurate(got, right, 1e-5, "of a matrix with eigenvalues of 0", advice, learner.called)


@exercise(
    "15.frechet_distance", distributions.frechet_distance, difficulty=3, minutes=15, uses=("15.matrix_sqrt",),
    hints=[
        "Begin with features, others = features.double(), others.double(). features.T.cov() is the covariance, (d, d): "
        "cov wants a row for each variable.",
        "torch.linalg.eigvals(covariance @ other) are the eigenvalues. .real removes imaginary parts, .clamp(min=0) "
        "the wrong signs; then .sqrt().sum().",
        "(features.mean(0) - others.mean(0)).square().sum() + covariance.trace() + other.trace() - 2 * root, then "
        ".clamp(min=0).item().",
    ],
)  # fmt: skip
def frechet_distance(learner, case):
    """Measure how far two clouds of features are apart, by their means and covariances."""
    settings = []
    for count, number, d, dtype in ((9, 14, 4, torch.float32), (16, 7, 2, torch.float64), (12, 12, 6, torch.float32),
                                    (5, 30, 3, torch.float32)):  # fmt: skip
        x, y = clouds(case, count, number, d, dtype)
        with reasons_given(FRECHET_REASONS):
            got = learner(x, y)
        require_real(got, "the distance", COMPLEX, learner.called)
        settings.append((got, *frechet_mistakes(x, y), "the distance", learner.called))
    close_in_all(settings, tolerance=1e-3)
    few, same = [], []
    for count, number, d in ((4, 7, 12), (5, 3, 20), (2, 6, 9)):
        x, y = clouds(case, count, number, d)
        with reasons_given(FRECHET_REASONS):
            few.append((learner(x, y), x, y, learner.called))
            few.append((learner(x, x), x, x, learner.called))
            same.append((few[-1][0], learner.called))
            few.append((learner(x, x.flip(0)), x, x.flip(0), learner.called))
            same.append((few[-1][0], learner.called))
    for _ in range(6):
        x, _ = clouds(case, 20, 2, 5)
        same.append((learner(x, x), learner.called))
    require_few_images(few)
    require_not_negative(same)


@exercise(
    "15.kernel_distance", distributions.kernel_distance, difficulty=3, minutes=15,
    hints=[
        "x @ y.T holds the products of all pairs, (count, number). Divided by x.shape[1], plus 1, to the power of 3, "
        "it is the table of the kernel.",
        "Within one cloud the diagonal of the table holds the pairs of an image with itself. What remains if you "
        "subtract table.trace() from table.sum(), and how many pairs is that?",
        "(table.sum() - table.trace()) / (n * (n - 1)) for both clouds, added up, minus 2 * kernel(x, y).mean().",
    ],
)  # fmt: skip
def kernel_distance(learner, case):
    """Measure how far two clouds of features are apart, pair by pair and without bias."""
    settings = []
    for count, number, d, shift in ((9, 14, 4, 0.7), (8, 5, 3, 0), (6, 6, 5, 0), (2, 3, 2, 0.3), (7, 7, 1, 0),
                                    (12, 2, 6, 0)):  # fmt: skip
        x, y = case.normal(count, d) + 0.5, case.normal(number, d) + shift + 0.5
        if count == 6:
            x = case.normal(count, d)
            y = x.flip(0)  # a cloud and itself, in another order: less than 0
        with reasons_given(KERNEL_REASONS), broadcasting_explained(PAIRS):
            got = learner(x, y)
        require_real(got, "the distance", ROOT_OF_KID, learner.called)
        settings.append((got, *kernel_mistakes(x, y), "the distance", learner.called))
    close_in_all(settings)
    for count, number in ((9, 7), (5, 12), (20, 6)):
        x, y = case.normal(count, 5) + 50, case.normal(number, 5) + 50
        got = learner(x, y)
        require_kernel_in_float64(got, kernel_mistakes(x, y)[0], learner.called)


@exercise(
    "15.coverage", distributions.coverage, difficulty=2, minutes=12,
    hints=[
        "torch.cdist(others, others) has 0 on its diagonal, each point's distance to itself: "
        ".fill_diagonal_(math.inf) puts it last.",
        ".kthvalue(k, dim=1).values is the k-th smallest of each row: the radius of each real image, (number,).",
        "torch.cdist(others, features).amin(1) is the distance of each real image to its nearest drawn one. "
        "(... <= radius).double().mean().item() is the share.",
    ],
)  # fmt: skip
def coverage(learner, case):
    """Measure how much of what is real is drawn."""
    corner = case.whole(-3, 3, 2).float()
    line = torch.tensor([[0.0, 0], [4, 0], [4, 3], [0, 8], [12, 5], [12, 12]]) + corner
    edge = torch.tensor([[-4.0, 0], [7, 7], [12, 20], [20, 20]]) + corner  # at distances that are whole numbers
    twice = torch.cat([line, line[:4]])
    cases = [
        (case.normal(11, 2) * 0.7 + 0.5, case.normal(18, 2), 2),
        (case.normal(23, 3) + 0.4, case.normal(14, 3), 3),
        (case.normal(20, 4) * 0.8, case.normal(20, 4), 1),
        (case.normal(12, 1) * 0.2 + 0.8, case.normal(24, 1), 4),
        (case.normal(2, 2), case.normal(7, 2), 6),
        (edge, line, 1),
        (line[1:3] + torch.tensor([0.0, 1.0]), twice, 1),
        (line, line, 2),
        (line + 100, line, 2),
        (3 * case.normal(3, 5), 3 * case.normal(21, 5), 2),
    ]
    settings = []
    for features, others, k in cases:
        with reasons_given(COVERAGE_REASONS), broadcasting_explained(TABLES):
            got = learner(features, others, k)
        require_share(got, learner.called)
        settings.append((got, *coverage_mistakes(features, others, k), "the coverage", learner.called))
    features, others = case.normal(16, 2) * 0.8, case.normal(22, 2)
    got = learner(features, others)
    settings.append((got, *coverage_mistakes(features, others, 5), "with k = 5 the coverage", learner.called))
    close_in_all(settings)


@exercise(
    "15.wilson_interval", statistics.wilson_interval, difficulty=1, minutes=8, given="hits, number, z=1.96",
    hints=[
        "p = hits / number is the share. What stands to the left of ± in the formula, and what to the right of it?",
        "middle = p + z**2 / (2 * number), and half = z * math.sqrt(p * (1 - p) / number + z**2 / (4 * number**2)).",
        "(middle - half) / (1 + z**2 / number) is the lower end, (middle + half) / (1 + z**2 / number) the upper one.",
    ],
)  # fmt: skip
def wilson_interval(learner, case):
    """Say how sure a share is."""
    settings = []
    for hits, number, z in (
        (3, 10, 1.96),
        (0, 7, 1.96),
        (5, 5, 1.96),
        (0, 1, 1.2),
        (1, 1, 2.576),
        (1, 9, 1.96),
        (192, 200, 1.645),
        (int(case.whole(20, 60)), 80, float(case.uniform(0.5, 3))),
        (29, 41, None),
        (0, 5, 1.96),
        (0, 10, 1.96),
        (19, 19, 1.96),
        (8, 8, 1.2),
        (1, 1, 1.645),
    ):
        with reasons_given(WILSON_REASONS):
            got = learner(hits, number) if z is None else learner(hits, number, z)
        right, mistakes = wilson_mistakes(hits, number, 1.96 if z is None else z)
        settings.append((require_two_numbers(got, learner.called), right, mistakes, learner.called))
    close_in_each(settings, ("low", "high"))
    for got, _, _, called in settings:
        require_from_0_to_1(got, called)


@exercise(
    "15.bradley_terry", statistics.bradley_terry, difficulty=3, minutes=15,
    hints=[
        "wins + wins.T is how often each pair met, no matter who won. Which sum of `wins` is how often i won?",
        "strength[:, None] + strength is the sum for each pair, (players, players). Its diagonal does no harm: a "
        "player meets itself in no game.",
        "One step: wins.sum(1) / (games / (strength[:, None] + strength)).sum(1).",
        "The geometric mean is strength.log().mean().exp(): divide by it, in each step or at the end.",
    ],
)  # fmt: skip
def bradley_terry(learner, case):
    """Find the strengths that explain who won against whom."""
    settings = []
    for games, steps in (
        ([(0, 1, 6)], 4),
        ([(0, 1, 5), (0, 2, 8), (1, 2, 3)], 1),
        ([(0, 1, 9), (1, 2, 4), (2, 3, 12)], 2),
        ([(0, 1, 4), (0, 2, 12), (0, 3, 7), (1, 2, 9), (1, 3, 3), (2, 3, 20)], 5),
        ([(0, 1, 11), (0, 2, 3), (0, 4, 6), (1, 3, 5), (2, 4, 30), (3, 4, 8)], 20),
    ):
        wins = played(case, games)
        got = learner(wins, steps)
        right, mistakes = strength_mistakes(wins, steps, got)
        settings.append((got, right, mistakes, "the strength", learner.called))
    close_in_all(settings)
    require_float64([(got, called) for got, *_, called in settings], "the strengths")
    wins = played(case, [(0, 1, 7), (0, 2, 15), (1, 2, 9), (2, 3, 8)])
    got = learner(wins)
    close(got, likeliest(wins), [(stopped_early(wins, 400, got), EARLY)], what="after many steps the strength")


@exercise(
    "15.neighbour_ratio", copies.neighbour_ratio, difficulty=2, minutes=8,
    hints=[
        "torch.cdist(features, training) has all distances, (count, number). .topk(2, dim=1, largest=False).indices "
        "are the two nearest of each row.",
        "training[two] is (count, 2, d): (features[:, None] - training[two]).norm(dim=2) are their exact distances.",
        "sort(dim=1) once more, since the two may have changed places: near, second = ... .sort(dim=1).values.T.",
        "torch.where(near > 0, near / second, 0.0) takes the 0 also where near / second is NaN.",
    ],
)  # fmt: skip
def neighbour_ratio(learner, case):
    """Compare the distance to the nearest training image with that to the second nearest."""
    settings = []
    for count, number, d, away, spread in ((6, 9, 4, 0, 1), (1, 2, 3, 0, 1), (30, 40, 8, 50, 1), (5, 5, 5, 1, 1),
                                           (24, 60, 2, 0, 1), (3, 60, 64, 1000, 0.01)):  # fmt: skip
        features, training = crowd(case, count, number, d, away, spread)
        if d == 2:  # pairs of neighbours that only float64 tells apart, the nearer of them before or after the other
            features, training = features.double(), training.double()
            features[4:] += 30
            for i in range(20):
                training[6 + 2 * i : 8 + 2 * i] = features[4 + i]
                training[6 + 2 * i, 0] += (2e-8, 4e-8)[i % 2]
                training[7 + 2 * i, 1] += (4e-8, 2e-8)[i % 2]
        with reasons_given(RATIO_REASONS):
            got = learner(features, training)
        right, mistakes = ratio_mistakes(features, training, got)
        require_one_for_each(got, right, "Each point has a ratio of its own: dim=1, or dim=2 in .norm().",
                             learner.called)  # fmt: skip
        settings.append((got, right, mistakes, "the ratio", learner.called))
    close_in_all(settings, tolerance=1e-3)
    require_copies_found((got, right, called) for got, right, *_, called in settings)
    require_float64([(got, called) for got, *_, called in settings], "the ratios")


@exercise(
    "15.write_ring", watermark.write_ring, difficulty=2, minutes=12,
    hints=[
        "spectrum(noise) is complex, (n, 8, 16, 16). torch.where chooses for each place between the key and it.",
        "torch.where(key != 0, key.to(torch.complex64), spectrum(noise)): the key has no axis for n, and broadcasts.",
        "The way back: multiply by from_the_middle(16).conj(), then torch.fft.ifft2(..., norm=\"ortho\").real.",
    ],
)  # fmt: skip
def write_ring(learner, case):
    """Write a key into the spectrum of noise."""
    settings = []
    for n, rings in ((3, watermark.RINGS), (1, (3,)), (2, (1, 7)), (8, (2, 4))):
        noise, key = case.normal(n, 8, 16, 16), watermark.make_key(case.seed + n, rings=rings)
        with reasons_given(WRITE_REASONS):
            got = learner(noise, key)
        require_real_noise(got, noise, key, learner.called)
        right, mistakes = written_mistakes(noise, key)
        settings.append((got, right, mistakes, "the noise with the key", learner.called))
    close_in_all(settings, tolerance=1e-3)


@exercise(
    "15.ring_distance", watermark.ring_distance, difficulty=2, minutes=12,
    hints=[
        "spectrum(noise)[:, key != 0] is the spectrum on the rings of all channels, (n, places), and key[key != 0] the "
        "key there.",
        "|F|² of complex numbers is F.abs().square(). rms is the root of its mean: mean(1, keepdim=True).sqrt().",
        "(found / rms - key[key != 0]).abs().square().mean(1).",
    ],
)  # fmt: skip
def ring_distance(learner, case):
    """Measure how far the spectrum of noise is from a key."""
    settings = []
    for n, channels, rings in ((5, 8, watermark.RINGS), (1, 8, (3,)), (3, 4, (1, 7)), (2, 8, (2, 4, 5))):
        key = watermark.make_key(case.seed + n, channels, rings=rings)
        noise = case.normal(n, channels, 16, 16) * torch.linspace(0.4, 1.5, n)[:, None, None, None]
        if n > 2:
            noise[0] = 0.7 * marked(noise, key)[0] + 0.1 * noise[0]  # nearly the key itself
            noise[1] = -marked(noise, key)[1] - 0.1 * noise[1]  # nearly as far as can be
            noise[2] = noise[2] + 0.5 * marked(noise, key)[2]
        with reasons_given(DISTANCE_REASONS):
            got = learner(noise, key)
        require_real_distance(got, learner.called)
        right, mistakes = distance_mistakes(noise, key)
        require_one_for_each(got, right, "One number for all noises is left. Each has its own distance: mean(1).",
                             learner.called)  # fmt: skip
        settings.append((got, right, mistakes, "the distance", learner.called))
    close_in_all(settings, tolerance=3e-4)


@exercise(
    "15.flagged", safety.flagged, difficulty=3, minutes=15,
    given="images, concepts, thresholds, special, special_thresholds",
    hints=[
        "The cosines of all pairs at once: F.normalize(images, dim=1) @ F.normalize(concepts, dim=1).T, (n, m). The "
        "thresholds (m,) broadcast.",
        "Begin with the special concepts. Which images have any rounded score above 0? any(1, keepdim=True) keeps the "
        "shape (n, 1), which fits beside (n, m).",
        "0.01 * careful is 0.01 where careful is True, and 0 elsewhere.",
        "(scores.round(decimals=3) > 0).any(1).",
    ],
)  # fmt: skip
def flagged(learner, case):
    """Decide which images a safety checker blocks."""
    settings = []
    for n, m, k, careful in ((62, 4, 3, True), (31, 1, 1, True), (93, 3, 2, True), (1, 2, 1, True), (4, 4, 4, True),
                             (31, 6, 3, True), (12, 3, 2, False)):  # fmt: skip
        inputs, scores, special = planted(case, n, m, k, careful)
        with reasons_given(FLAG_REASONS):
            got = learner(*inputs)
        right, mistakes = flag_mistakes(inputs, scores, special)
        require_one_for_each(got, right, "One answer for all images came back. Each has its own: any(1).",
                             learner.called)  # fmt: skip
        got = as_flags(got, learner.called)
        settings.append((got, right, mistakes, "with 1 for True, the flag", learner.called))
    close_in_all(settings)
