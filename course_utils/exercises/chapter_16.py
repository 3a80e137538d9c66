"""The exercises of chapter 16: prompts with weights; seams, windows, layers; a film, a product; measurements."""

import math

import torch

from course_utils.diffusion import posterior
from course_utils.diffusion.editing import lerp, slerp
from course_utils.exercises.mistakes_13 import close_in_each, reasons_given
from course_utils.exercises.mistakes_16 import (
    BACK_REASONS,
    DPS_REASONS,
    FEATURE_REASONS,
    LAYER_REASONS,
    PATH_REASONS,
    READ_MISTAKES,
    ROUNDED_LAYERS,
    ROUNDED_PRODUCT,
    SEAM_REASONS,
    WIDTH_REASONS,
    WINDOW_REASONS,
    as_pairs,
    back_mistakes,
    dps_mistakes,
    errors_and_spreads,
    feature_mistakes,
    in_float16,
    layer_mistakes,
    of_one_norm,
    path_mistakes,
    prompts,
    read_in_one_way,
    require_bits,
    require_layers_left,
    require_product,
    require_stops,
    same_pairs,
    scene_of,
    seam_mistakes,
    slowly,
    some_pictures,
    width_mistakes,
    window_mistakes,
)
from course_utils.exercises.oracles import Wrong, require
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import called_as, close_in_all
from course_utils.metrics import calibration
from course_utils.pipelines import animation, catalogue, panorama, parallax, tiling
from course_utils.text import syntax

TITLE = "A studio, and six uses"


@exercise(
    "16.read_weights", syntax.read_weights, difficulty=3, minutes=20,
    hints=[
        "Keep a list of pieces, each with a weight, 1.0 at first, and for each kind of bracket a list of where the "
        "open ones begin: len(pieces) when the bracket is met.",
        "When a bracket closes, pop the last place of its kind, and multiply the weights of all pieces from there on.",
        "The order of the questions matters: first a backslash, then an opening bracket, then ':1.3)', then a closing "
        "bracket; all else is text, also what closes nothing.",
        "After the loop, brackets that are still open hold to the end: pop and multiply until both lists are empty. "
        "Then return joined(pieces).",
    ],
)  # fmt: skip
def read_weights(learner, case):
    """Read the weights of a prompt: pairs of text and weight, without brackets."""
    results = [(learner(text), text, learner.called) for text in prompts(case)]
    for got, text, called in results:
        pairs, wanted = as_pairs(got), read_in_one_way(text)
        if same_pairs(pairs, wanted):
            continue
        found = f"for the prompt {text!r}: got {got!r}, expected {wanted!r}."
        with called_as(called):
            require(pairs is not None, found, "Return a list of pairs (text, weight), also for the empty prompt: [].")
            for change, advice in READ_MISTAKES:
                if all(same_pairs(as_pairs(g), read_in_one_way(t, **change)) for g, t, _ in results):
                    raise Wrong(found, advice)
            raise Wrong(found, "Go through this prompt, piece by piece, with pencil and paper.")


@exercise(
    "16.weighted_features", syntax.weighted_features, difficulty=2, minutes=10,
    hints=[
        "weights[:, :, None] has the shape (chunks, tokens, 1), and multiplies each token's vector by its weight.",
        "factor = hidden.mean((1, 2)) / scaled.mean((1, 2)) is one number for each chunk, (chunks,).",
        "torch.where((factor > 0.5) & (factor < 2), factor, 1.0) leaves out what is too large a change; then "
        "scaled * factor[:, None, None].",
    ],
)  # fmt: skip
def weighted_features(learner, case):
    """Multiply hidden states by the weights of their tokens, and keep the mean of each chunk."""
    settings = []
    for (chunks, tokens, width), shift in (((2, 5, 3), 1.0), ((1, 4, 4), -0.8), ((3, 2, 5), 2.0), ((1, 1, 2), 1.5)):
        hidden, weights = case.normal(chunks, tokens, width) * 0.3 + shift, case.uniform(0.8, 1.7, chunks, tokens)
        settings.append((hidden, weights))
        settings.append((hidden, 2.5 * weights))  # the factor is below 1/2
        settings.append((hidden, torch.ones(chunks, tokens)))
    hidden = case.normal(2, 4, 3) + 1
    settings += [
        (hidden, torch.full((2, 4), 2.0)),
        (hidden, torch.full((2, 4), 0.5)),
        (hidden, torch.full((2, 4), -1.0)),
    ]
    settings.append((torch.cat([hidden, hidden - 1]), case.uniform(0.7, 1.6, 4, 4)))
    settings.append((hidden, torch.tensor([[1.2], [2.5]]) * case.uniform(0.9, 1.1, 2, 4)))  # one chunk has a factor
    settings.append((torch.tensor([[[1.0, -1.0], [2.0, -2.0]]]), torch.tensor([[1.0, 1.5]])))  # 0 / 0
    settings.append((hidden.double(), torch.tensor([[1, 1, 1, 1], [1, 0.4, 1, 1.8]])))
    results = []
    for hidden, weights in settings:
        with reasons_given(FEATURE_REASONS):
            got = learner(hidden, weights)
        results.append((got, *feature_mistakes(hidden, weights), "H'", learner.called))
    close_in_all(results)


@exercise(
    "16.seam_ratio", tiling.seam_ratio, difficulty=2, minutes=10,
    hints=[
        "pictures.roll(-1, 3) moves every column one place to the left: at place k stands column k + 1, and at the "
        "last place the first column.",
        "(pictures.roll(-1, 3) - pictures).abs().mean((1, 2)) holds all steps, (batch, width). The last of them is "
        "the seam.",
        "0 / 0 is NaN, no number. torch.where(seam == 0, 0.0, seam / inner) takes the 0 there.",
    ],
)  # fmt: skip
def seam_ratio(learner, case):
    """Measure how much larger the step from the last column to the first is than the steps inside."""
    settings = []
    for pictures in some_pictures(case):
        with reasons_given(SEAM_REASONS):
            got = learner(pictures)
        settings.append((got, *seam_mistakes(pictures), "the ratio", learner.called))
    close_in_all(settings, tolerance=1e-3)


@exercise(
    "16.average_windows", panorama.average_windows, difficulty=3, minutes=15, given="parts, starts, width, weights",
    hints=[
        "Two tensors that begin with zeros: one for the sum of weights times predictions, (batch, channels, height, "
        "width), one for the sum of the weights, (width,).",
        "For each part and its start: the columns start : start + window of both get something added. window is "
        "parts.shape[4].",
        "total[..., start : start + window] += weights * part, and count[start : start + window] += weights. At the "
        "end total / count: a column has the same sum of weights in all channels and rows.",
    ],
)  # fmt: skip
def average_windows(learner, case):
    """Find the weighted mean of all windows that cover a column."""
    settings = []
    for starts, window, width, shape, dtype in (
        ([0, 3, 6, 8], 5, 13, (2, 3, 4), torch.float32),
        ([4, 0, 2], 4, 8, (1, 2, 4), torch.float32),
        ([0], 6, 6, (2, 1, 3), torch.float32),
        ([0, 5], 5, 10, (3, 2, 2), torch.float32),
        ([0, 2, 2, 3], 3, 6, (1, 4, 5), torch.float64),
        ([0, 1, 2, 3, 4, 5], 7, 12, (2, 2, 1), torch.float32),
    ):
        parts = case.normal(len(starts), *shape, window).to(dtype)
        weights = case.uniform(0.1, 2, window)
        with reasons_given(WINDOW_REASONS):
            got = learner(parts, starts, width, weights)
        right, mistakes = window_mistakes(parts, starts, width, weights)
        settings.append((got, right, mistakes, f"with windows that start at {starts}, the mean", learner.called))
    close_in_all(settings)


@exercise(
    "16.shift_layers", parallax.shift_layers, difficulty=3, minutes=15,
    hints=[
        "What is nearer hides what is farther, so it is laid on later: sorted(layers, key=lambda layer: layer.depth).",
        "The first of them covers everything and stands still: scene = ordered[0].picture. Then come the others, one "
        "after the other.",
        "pixels = round(camera * layer.depth). Picture and cover are moved, both by parallax.moved(..., pixels).",
        "scene = cover * picture + (1 - cover) * scene makes a new tensor: no layer is changed.",
    ],
)  # fmt: skip
def shift_layers(learner, case):
    """Move the layers of a scene, the nearer the farther, and lay them on each other."""
    settings = []
    for depths, camera, size in (
        ((0.4, 0, 1), 5, (4, 9)),
        ((0.31, 1, 0.62, 0), -3.7, (5, 8)),
        ((0, 0.25, 0.6, 1), 0, (6, 6)),
        ((1, 0.32, 0), 4.6, (3, 11)),
        ((0.7, 0.2, 0, 0.45), 30, (4, 7)),
        ((0, 0.9), -12, (2, 6)),
        ((0,), 8, (3, 3)),
        ((0.55, 0.8, 0), -8, (5, 10)),
        ((0.3, 0), 4.1, (3, 6)),
        ((0, 0.5), 1.6, (4, 4)),
    ):
        layers = scene_of(case, depths, size)
        kept = [parallax.Layer(picture.clone(), cover.clone(), depth) for picture, cover, depth in layers]
        with reasons_given(LAYER_REASONS):
            got = learner(layers, camera)
        require_layers_left(layers, kept, learner.called)
        right, mistakes = layer_mistakes(kept, camera)
        of_layers = ", ".join(map(str, depths))
        what = f"with the depths {of_layers} and the camera at {camera}, the scene"
        settings.append((got, right, mistakes, what, learner.called))
    require_bits(settings, ROUNDED_LAYERS)
    close_in_all(settings)


@exercise(
    "16.dps_step", posterior.dps_step, difficulty=3, minutes=15,
    given="model, x_t, t, earlier, alpha_bar, measure, measured, floor, noise, pull=0.5, cond=None",
    hints=[
        "x_t = x_t.detach().requires_grad_() is a tensor of your own, with respect to which gradients can be taken. "
        "Everything up to the distance is computed from it: eps, x0_hat, measure(x0_hat).",
        "distance = (measured - measure(x0_hat)).flatten(1).norm(dim=1) is one for each sample. No sample depends on "
        "another, so torch.autograd.grad(distance.sum(), x_t)[0] holds the gradient of each.",
        "|gradient|² is gradient.flatten(1).square().sum(1), (batch,). (distance - floor).clamp(min=0) is 0 for what "
        "fits.",
        "length = pull * (distance - floor).clamp(min=0) / square needs the axes of x_t: expand_like(length, x_t), or "
        "length.reshape(-1, *[1] * (x_t.ndim - 1)). Then (step - length * gradient).detach(), x0_hat.detach().",
    ],
)  # fmt: skip
def dps_step(learner, case):
    """Pull a step of the sampler towards what was measured."""
    settings = []
    for shape, numbers, t, earlier, pull, curved, told in (
        ((3, 2), (1,), 25, 18, 1.0, False, False),
        ((4, 2, 3, 2), (2, 4), 12, 5, 0.3, False, True),
        ((2, 5), (5,), 39, 38, None, True, False),
        ((1, 1, 2, 2), (3,), 30, -1, 0.5, False, False),
        ((3, 4), (2,), 8, 0, 0.8, True, True),
        ((2, 3), (2,), 0, -1, 0.25, False, False),
        ((2, 2, 2), (2, 2), 20, 11, 0.0, False, False),
    ):
        problem = dps_mistakes(case, shape, numbers, t, earlier, pull, curved, told)
        with reasons_given(DPS_REASONS):
            got = learner(*problem.inputs)
        settings.append((got, problem.right, problem.mistakes, learner.called))
    close_in_each(settings, ("x_earlier", "x0_hat"))


@exercise(
    "16.calibrated_width", calibration.calibrated_width, difficulty=2, minutes=10,
    hints=[
        "The ratio |truth - mean| / spread says of each number how wide the interval must be to hold it. All n of "
        "them count, of all pages: flatten().",
        "0 / 0 is NaN. torch.where(error == 0, 0.0, error / spread) says that an error of 0 needs no width.",
        "k = math.ceil(level * n). The k-th smallest is ratio.sort().values[k - 1], since places count from 0; "
        ".item() makes a number of it.",
    ],
)  # fmt: skip
def calibrated_width(learner, case):
    """Find the smallest width that holds the share of the truth that it claims."""
    settings = []
    for shape, level, plain in (
        ((7,), 0.5, True),
        ((2, 3, 8, 8), 0.8, False),
        ((4,), 0.75, True),
        ((10,), 0.05, True),
        ((9,), 0.99, True),
        ((6, 5), 0.5, False),
        ((1,), 0.3, True),
        ((3, 1, 4, 5), 0.63, False),
        ((40,), 0.25, True),
    ):
        truth, mean, spread = errors_and_spreads(case, shape, plain)
        with reasons_given(WIDTH_REASONS):
            got = learner(truth, mean, spread, level)
        right, mistakes = width_mistakes(truth, mean, spread, level)
        settings.append((got, right, mistakes, f"for the level {level:g} of {truth.numel()} numbers, the width",
                         learner.called))  # fmt: skip
    mean = case.normal(2, 3)
    got = learner(mean, mean, torch.zeros(2, 3), 0.9)
    right, mistakes = width_mistakes(mean, mean, torch.zeros(2, 3), 0.9)
    settings.append((got, right, mistakes, "without any error the width", learner.called))
    close_in_all(settings)
    got = learner(*errors_and_spreads(case, (12,), False), 0.99)  # the largest ratio is an error over a spread of 0
    require(
        got == math.inf,
        f"with a spread of 0 beside an error, and the level 0.99 of 12 numbers, got {got:.4g}, expected infinity.",
        "Where the spread is 0 and the error is not, no width holds the truth, however large: the ratio is infinite.",
    )


@exercise(
    "16.path_of_frames", animation.path_of_frames, difficulty=2, minutes=10,
    hints=[
        "zip(stops[:-1], stops[1:]) gives each stop with the next. Between them lie between - 1 frames, with the "
        "shares 1 / between, 2 / between, ...",
        "mix wants an axis for the batch, and gives one back: mix(a[None], b[None], share)[0].",
        "Each round appends a itself and what lies between: the next stop is the a of the next round. Only the last "
        "stop is left: torch.stack([*frames, stops[-1]]).",
    ],
)  # fmt: skip
def path_of_frames(learner, case):
    """Lay a path of frames through the scenes of a storyboard."""
    settings, paths = [], []
    for mix, number, between, shape in (
        (lerp, 3, 4, (2, 3)),
        (None, 4, 3, (3, 2, 2)),
        (slowly, 3, 3, (4,)),
        (lerp, 2, 1, (5, 2)),
        (slerp, 2, 5, (2, 4, 4)),
        (lerp, 4, 1, (2, 2)),
        (in_float16, 3, 2, (2, 3)),
        (lerp, 2, 10, (3,)),
        (lerp, 3, 6, (3,)),
    ):
        stops = of_one_norm(case, number, shape)
        if between == 6:  # a scene that stays, in float64
            stops = stops[[0, 0, 1]].double()
        with reasons_given(PATH_REASONS):
            got = learner(stops, between) if mix is None else learner(stops, between, mix)
        right, mistakes = path_mistakes(stops, between, mix or slerp)
        paths.append((got, stops, between, learner.called))
        what = f"of {number} stops with {between} steps between them, the path"
        settings.append((got, right, mistakes, what, learner.called))
    close_in_all(settings, tolerance=1e-3)
    require_stops(paths)


@exercise(
    "16.put_back", catalogue.put_back, difficulty=1, minutes=5,
    hints=[
        "For each pixel one of two is chosen, and nothing is added: torch.where.",
        "Mask and product have a batch axis of 1, and the mask one channel: they broadcast by themselves.",
        "torch.where(mask > 0.5, product, drawn): first the condition, then what is taken where it holds.",
    ],
)  # fmt: skip
def put_back(learner, case):
    """Put the product's own pixels back."""
    settings = []
    for n, height, width, share in ((4, 5, 7, 0.5), (1, 6, 6, 0.3), (3, 8, 8, 0.6), (2, 4, 5, 0.0), (2, 3, 4, 1.0)):
        drawn, product = case.normal(n, 3, height, width), case.normal(1, 3, height, width)
        mask = (case.uniform(0, 1, 1, 1, height, width) < share).float()
        if 0 < share < 1:
            mask[..., 0, 0], mask[..., 0, 1] = 1, 0
        with reasons_given(BACK_REASONS):
            got = learner(drawn, product, mask)
        right, mistakes = back_mistakes(drawn, product, mask)
        require_product(got, drawn, learner.called)
        settings.append((got, right, mistakes, "the result", learner.called))
    require_bits(settings, ROUNDED_PRODUCT)
    close_in_all(settings)
