"""The exercises of chapter 14: rectified flow, its times and paths, the diffusion transformer, a step that lands."""

import torch
from torch import nn

from course_utils.diffusion import few_steps, flow
from course_utils.exercises.mistakes_13 import close_in_each, reasons_given
from course_utils.exercises.mistakes_14 import (
    BLOCK_REASONS,
    Mixing,
    Velocity,
    as_number,
    curvature_mistakes,
    division_reasons,
    flow_mistakes,
    half_mistakes,
    joint_mistakes,
    joint_reasons,
    landed,
    landing_mistakes,
    large_streams,
    loss_mistakes,
    marginal_mistakes,
    patch_mistakes,
    require_clean_end,
    require_double,
    require_dtype,
    require_evaluations,
    require_finite_attention,
    require_finite_times,
    require_last_point,
    require_pair,
    require_times_told,
    require_triple_kinds,
    sampling_mistakes,
    time_mistakes,
    visited,
)
from course_utils.exercises.oracles import close, require, require_tensor
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import asked, broadcasting_explained, close_in_all
from course_utils.models import dit

TITLE = "Flows, transformers, few steps"


@exercise(
    "14.velocity_loss", flow.velocity_loss, difficulty=2, minutes=8, gradients=True,
    hints=[
        "share = expand_like(t, x0) is t with the axes of x0: (batch, 1, ..., 1).",
        "x_t = (1 - share) * x0 + share * eps is the point that the model sees, and eps - x0 what it should predict.",
        "The squared differences have the shape of x0. .flatten(1).mean(1) leaves one mean for each sample.",
    ],
)  # fmt: skip
def velocity_loss(learner, case):
    """Measure how well the velocity is predicted, for each sample."""
    settings = []
    for shape, words in (
        ((3, 2, 4, 5), True),
        ((2, 6), False),
        ((1, 3, 2, 2), True),
        ((4, 1), False),
        ((5, 3, 2), True),
    ):
        x0, eps, t = case.normal(*shape), case.normal(*shape), case.uniform(0.1, 0.9, shape[0])
        if shape[0] > 2:
            t[0], t[-1] = 0, 1
        model, cond = Velocity(case), case.normal(shape[0], 3) if words else None
        with broadcasting_explained("t has one number for each sample, (batch,). Beside x0 it needs as many axes: "
                                    "expand_like(t, x0)."):  # fmt: skip
            got = asked(learner, model, x0, t, eps, cond)
        require(model.calls > 0, "the model was never called.", "Call it: model(x_t, t, cond).")
        right, mistakes = loss_mistakes(model, x0, t, eps, cond)
        settings.append((got, right, mistakes, "the loss", learner.called))
    close_in_all(settings)


@exercise(
    "14.marginal_velocity", flow.marginal_velocity, difficulty=3, minutes=15,
    hints=[
        "t[:, None, None] and x_t[:, None] meet data (n, d) in (batch, n, d): a noise for each pair of x_t and x^(i).",
        "eps = (x_t[:, None] - (1 - t) * data) / t. Its squared length is a sum over d, (batch, n).",
        "(-eps.square().sum(2) / 2).softmax(1) are the weights: for each x_t they add up to 1 over the points.",
        "(weights[:, :, None] * (eps - data)).sum(1) is the weighted mean.",
    ],
)  # fmt: skip
def marginal_velocity(learner, case):
    """Average the velocities of all lines that may have led to a point."""
    settings = []
    for batch, n, d, low, high in ((5, 4, 2, 0.3, 0.9), (3, 7, 3, 0.4, 1), (2, 1, 2, 0.1, 0.9), (4, 4, 4, 0.5, 0.9),
                                   (1, 5, 1, 0.4, 0.8), (6, 5, 2, 0.08, 0.1)):  # fmt: skip
        x_t, data, t = case.normal(batch, d), case.normal(n, d), case.uniform(low, high, batch)
        if high == 1:
            t[0] = 1
        if low < 0.1:
            x_t = x_t + 3  # far from all the points, as on the way from noise with large steps
        with broadcasting_explained("Each x_t meets each point: t[:, None, None], x_t[:, None] and data (n, d) "
                                    "broadcast to (batch, n, d); weights (batch, n) need [:, :, None]."):  # fmt: skip
            got = learner(x_t, t, data)
        right, mistakes = marginal_mistakes(x_t, t, data)
        settings.append((got, right, mistakes, f"of {n} points the velocity", learner.called))
    close_in_all(settings, tolerance=1e-3)
    x_t, t, data = case.normal(3, 2).double(), case.uniform(0.3, 0.9, 3).double(), case.normal(5, 2).double()
    got = learner(x_t, t, data)
    require_dtype(got, x_t.dtype, "of inputs in float64 the velocity")
    close(got, marginal_mistakes(x_t, t, data)[0], what="of inputs in float64 the velocity")


@exercise(
    "14.as_flow", flow.as_flow, difficulty=3, minutes=12,
    hints=[
        "signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar): the shares of x0 and eps in x.",
        "Divided by signal + noise, they add up to 1. Which of the two is t?",
        "x0 = (x - noise * eps) / signal. The velocity is that of section 1: eps - x0.",
    ],
)  # fmt: skip
def as_flow(learner, case):
    """Turn what a diffusion model predicts into time, point and velocity of rectified flow."""
    settings, kinds = [], []
    for shape, alpha_bar, dtype in (
        ((3, 2, 4), 0.6, torch.float32),
        ((2, 5), 0.04, torch.float32),
        ((1, 2, 3, 3), 0.97, torch.float32),
        ((4, 1), 0.5, torch.float32),
        ((2, 3), 1.0, torch.float32),
        ((6,), 0.3, torch.float64),
    ):
        x, eps = case.normal(*shape).to(dtype), case.normal(*shape).to(dtype)
        right, mistakes = flow_mistakes(x, eps, alpha_bar)
        got = learner(x, eps, alpha_bar)
        settings.append((as_number(got), right, mistakes, learner.called))
        kinds.append((got, x, learner.called))
    close_in_each(settings, ("t", "y", "velocity"))
    require_triple_kinds(kinds)


@exercise(
    "14.sample_flow", flow.sample_flow, difficulty=3, minutes=15,
    hints=[
        "for t, s in zip(times[:-1], times[1:]) goes through the steps. s is t_next, less than t: s - t is negative.",
        "torch.full((len(x),), t) is the time as the model wants it: model(x, torch.full((len(x),), t), cond).",
        "Euler: x = x + (s - t) * u. Heun: first ahead = x + (s - t) * u, then the mean of u and the velocity at ahead "
        "and s, and with this mean the step from x.",
        "if second and s > 0: only then is the model evaluated a second time.",
    ],
)  # fmt: skip
def sample_flow(learner, case):
    """Sample along the velocity, by Euler's method or by Heun's."""
    settings, counts = [], []
    for shape, times, words, second in (
        ((3, 2, 4), [1.0, 0.7, 0.45, 0.0], True, False),
        ((3, 2, 4), [1.0, 0.7, 0.45, 0.0], True, True),
        ((2, 5), [1.0, 0.0], False, False),
        ((2, 5), [1.0, 0.0], False, True),
        ((1, 3, 2, 2), [1.0, 0.9, 0.3, 0.2, 0.0], True, True),
        ((4, 1), [1.0, 0.25, 0.0], False, True),
    ):
        model, x_1, cond = Velocity(case), case.normal(*shape), case.normal(shape[0], 3) if words else None
        got = learner(model, x_1, times, cond, second)
        require_last_point(got, x_1, learner.called)
        require_times_told(model, learner.called)
        counts.append((model.calls, len(times) - 1, second, learner.called))
        right, mistakes = sampling_mistakes(model, x_1, times, cond, second)
        settings.append(
            (got, right, mistakes, "by Heun's method x" if second else "by Euler's method x", learner.called)
        )
    close_in_all(settings, tolerance=1e-3)
    require_evaluations(counts)


@exercise(
    "14.curvature", flow.curvature, difficulty=3, minutes=12,
    hints=[
        "straight = path[0] - path[-1] is the velocity of a straight path: it takes the time 1 from 0 to 1.",
        "The velocity of the step from x_t to x_next is (x_t - x_next) / (t - t_next): the way, divided by the time.",
        "Add up (t - t_next) * (u - straight).square().sum(1) over the steps, and divide by straight.square().sum(1).",
    ],
)  # fmt: skip
def curvature(learner, case):
    """Measure how far sampled paths are from straight lines at constant speed."""
    settings = []
    for batch, d, times in (
        (4, 2, [1.0, 0.7, 0.45, 0.0]),
        (3, 5, [1.0, 0.9, 0.2, 0.1, 0.0]),
        (1, 3, [1.0, 0.4, 0.0]),
        (2, 4, [1.0, 0.75, 0.5, 0.25, 0.0]),
        (3, 3, [1.0, 0.2, 0.0]),
    ):
        path = visited(case, batch, d, times)
        right, mistakes = curvature_mistakes(path, times)
        settings.append((learner(path, times), right, mistakes, "the curvature", learner.called))
    close_in_all(settings, tolerance=1e-3)
    got = learner([case.normal(3, 2), case.normal(3, 2)], [1.0, 0.0])
    require_tensor(got, torch.zeros(3), "the curvature")
    require(got.shape == (3,) and got.abs().max().item() < 1e-3, f"of one step, the curvature is "
            f"{got.detach().tolist()}, expected 0 for each path: one step is straight.", "From 1 to 0 in one step, u "
            "is straight itself.")  # fmt: skip


@exercise(
    "14.flow_times", flow.flow_times, difficulty=2, minutes=8, given="steps, shift=1.0",
    hints=[
        "torch.linspace(1, 1 / steps, steps, dtype=torch.float64) are the even times.",
        "shift * t / (1 + (shift - 1) * t), for all of them at once.",
        "torch.cat([t, torch.zeros(1, dtype=torch.float64)]) appends the 0.",
    ],
)  # fmt: skip
def flow_times(learner, case):
    """List the times that sampling visits, shifted towards noise."""
    settings = []
    for steps, shift in ((5, 3.0), (1, 2.0), (4, 1.0), (28, 1.5), (7, 0.5), (2, float(case.uniform(2, 4))),
                         (49, 3.0), (98, 1.0), (107, 2.0)):  # fmt: skip
        right, mistakes = time_mistakes(steps, shift)
        with reasons_given(division_reasons(steps, shift)):
            got = learner(steps, shift)
        require_finite_times(got, shift, learner.called)
        settings.append((got, right, mistakes, f"of {steps} steps with shift {shift:.3g} the times", learner.called))
    close_in_all(settings, tolerance=1e-6)
    require_double((got, right, called) for got, right, *_, called in settings)


@exercise(
    "14.patchify", dit.patchify, difficulty=2, minutes=10,
    hints=[
        "x.reshape(batch, channels, height // size, size, width // size, size) cuts both sides: axes 2 and 4 count "
        "patches, axes 3 and 5 are within a patch.",
        "permute brings row and column of the patch to the front, and behind them the channel, row and column within "
        "it: (0, 2, 4, 1, 3, 5).",
        "A last reshape makes one axis of the first pair, and one of the last three: (batch, -1, channels * size**2).",
    ],
)  # fmt: skip
def patchify(learner, case):
    """Cut images into patches, and each patch into one vector."""
    settings = []
    for shape, size in (((2, 3, 4, 6), 2), ((1, 1, 6, 4), 2), ((3, 2, 2, 3), 1), ((2, 1, 3, 9), 3), ((1, 4, 4, 4), 4),
                        ((2, 2, 8, 4), 2)):  # fmt: skip
        x = case.normal(*shape)
        right, mistakes = patch_mistakes(x, size)
        settings.append((learner(x, size), right, mistakes, f"with size {size} the patches", learner.called))
    close_in_all(settings)


@exercise(
    "14.half_block", dit.half_block, difficulty=3, minutes=12, gradients=True,
    hints=[
        "linear(F.silu(c)) is (batch, 3 * width). chunk(3, dim=-1) cuts it into shift, scale and gate.",
        "All tokens of a sample are steered alike: (batch, width) needs an axis for the tokens, [:, None].",
        "F.layer_norm(x, x.shape[-1:], eps=1e-6) normalises each token.",
        "x + gate * f(norm * (1 + scale) + shift).",
    ],
)  # fmt: skip
def half_block(learner, case):
    """Normalise the tokens, steer them by c, and add the layer's answer as far as the gate opens."""
    settings = []
    for batch, tokens, width, size in ((2, 5, 6, 1.0), (1, 3, 4, 2.0), (3, 1, 8, 1.0), (2, 4, 6, 2e-3), (4, 4, 4, 1.0)):
        x, c = size * case.normal(batch, tokens, width) + size, case.normal(batch, width)
        linear, f = nn.Linear(width, 3 * width), Mixing(case, width)
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.copy_(case.normal(*parameter.shape) / 2)
        with reasons_given(BLOCK_REASONS):
            got = learner(x, c, linear, f)
        right, mistakes = half_mistakes(x, c, linear, f)
        settings.append((got, right, mistakes, "x after the half block", learner.called))
    close_in_all(settings, tolerance=1e-3)


@exercise(
    "14.joint_attention", dit.joint_attention, difficulty=4, minutes=20, gradients=True,
    hints=[
        "Both streams have queries, keys and values of one width d. What becomes of attention if all tokens stand in "
        "one sequence?",
        "torch.cat([image[0], words[0]], dim=2) has the queries of all tokens; the same for keys and values.",
        "F.scaled_dot_product_attention(q, k, v) is (batch, heads, patches + words, d). The patches came first: how "
        "many are they?",
        "patches = image[0].shape[2]; out[:, :, :patches] and out[:, :, patches:].",
    ],
)  # fmt: skip
def joint_attention(learner, case):
    """Let patches and words attend to each other and among themselves, at once."""
    settings = []
    for batch, heads, patches, count, d in ((2, 2, 5, 3, 4), (1, 3, 4, 6, 2), (2, 1, 1, 4, 8), (3, 2, 6, 1, 3),
                                            (2, 4, 3, 4, 5)):  # fmt: skip
        image, words = (tuple(1.5 * case.normal(batch, heads, n, d) for _ in range(3)) for n in (patches, count))
        with reasons_given(joint_reasons(patches, count)):
            got = learner(image, words)
        require_pair(got, patches + count, learner.called)
        right, mistakes = joint_mistakes(image, words)
        settings.append((got, right, mistakes, learner.called))
    names = ("the output at the patches", "the output at the words")
    close_in_each(settings, names)
    if not learner.gradients:  # those of a saturated softmax are rounding errors
        image, words = large_streams(case)
        got = learner(image, words)
        require_finite_attention(got, learner.called)
        close_in_each([(got, joint_mistakes(image, words)[0], [], learner.called)], names)


@exercise(
    "14.landing_velocity", few_steps.landing_velocity, difficulty=4, minutes=15,
    hints=[
        "Write the step with unknown x0 and eps. Where it starts: x_t = √ᾱ_t x0 + √(1 - ᾱ_t) eps. Where it lands: "
        "x_s = √ᾱ_next x0 + √(1 - ᾱ_next) eps. How many equations, and how many unknowns?",
        "Solve the two for x0 and eps. Multiply the first by √(1 - ᾱ_next) and the second by √(1 - ᾱ_t), and subtract: "
        "eps drops out.",
        "With a, b = √ᾱ_t, √(1 - ᾱ_t) and c, d = √ᾱ_next, √(1 - ᾱ_next): x0 = (b x_s - d x_t) / (c b - a d), "
        "eps = (c x_t - a x_s) / (c b - a d).",
        "v = √ᾱ_t eps - √(1 - ᾱ_t) x0, at the time where the step starts. expand_like gives the levels their axes.",
    ],
)  # fmt: skip
def landing_velocity(learner, case):
    """Find the v with which one step of DDIM lands on a given point."""
    table = (1 - case.uniform(0.03, 0.12, 40)).cumprod(0)
    settings = []
    for shape, steps in (
        ((3, 2, 3, 4), [(39, 4), (25, 2), (12, 5)]),
        ((2, 5), [(39, 1), (30, 4)]),
        ((1, 3, 2), [(20, 4)]),
        ((1, 4), [(9, 4)]),
        ((4, 4), [(35, 8), (39, 2), (28, 2), (9, 4)]),
    ):
        x_t, v = case.normal(*shape), case.normal(*shape)  # whatever v is: it lands where diffusers' step leads with it
        x_s, alpha_bar_t, alpha_bar_s = landed(table, x_t, v, steps)
        inputs = (x_t, x_s, alpha_bar_t, alpha_bar_s)
        with broadcasting_explained("The levels have one number for each sample, (batch,). Beside x_t they need as "
                                    "many axes: expand_like(values, x_t)."):  # fmt: skip
            got = learner(*inputs)
        require_clean_end(got, alpha_bar_s, learner.called)
        settings.append((got, v, landing_mistakes(*inputs), "v", learner.called))
    close_in_all(settings, tolerance=1e-3)
