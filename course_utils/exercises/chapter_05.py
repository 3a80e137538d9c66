"""The exercises of chapter 05: from an image to noise, in steps and in one jump."""

import math
from functools import partial

import torch

from course_utils.diffusion import schedules
from course_utils.exercises.mistakes_05 import add_noise_mistakes, kl_and_mistakes
from course_utils.exercises.oracles import Wrong, close, require
from course_utils.exercises.registry import exercise

TITLE = "Forward diffusion"


@exercise(
    "05.forward_step", schedules.forward_step, difficulty=1, minutes=5,
    hints=[
        "A step keeps most of x_{t-1} and adds a little noise. beta_t is the *variance* of what is added.",
        "Standard normal noise gets a given variance if you multiply it by the root of that variance. If the total "
        "is to stay 1, the variance 1 - beta_t is left for x_{t-1}.",
        "Return (1 - beta_t) ** 0.5 * x_before + (...) ** 0.5 * eps.",
    ],
)  # fmt: skip
def forward_step(learner, case):
    """Take one small step from an image towards noise."""
    x, eps, beta = case.normal(4, 3, 8, 8), case.normal(4, 3, 8, 8), case.uniform(0.05, 0.4)
    signal, noise = math.sqrt(1 - beta), math.sqrt(beta)
    variance = "beta_t is a variance. What multiplies the noise is a standard deviation, sqrt(beta_t)."
    mistakes = [
        (signal * x + beta * eps, variance),
        ((1 - beta) * x + noise * eps, "x_{t-1} is multiplied by sqrt(1 - beta_t), not by 1 - beta_t."),
        ((1 - beta) * x + beta * eps, "Both roots are missing: beta_t and 1 - beta_t are variances."),
        (noise * x + signal * eps, "The two factors are swapped: a step keeps nearly all of x_{t-1}."),
        (x + noise * eps, "x_{t-1} is not made smaller. So the variance would grow with every step, without end."),
        (signal * x - noise * eps, "The noise has a minus sign; the equation adds it."),
        ((1 - noise) * x + noise * eps, "x_{t-1} is multiplied by 1 - sqrt(beta_t). Variances add up to 1, their roots "
                                        "do not: it is sqrt(1 - beta_t)."),
    ]  # fmt: skip
    _require_no_chance(learner, x, eps, beta)
    close(learner(x, eps, beta), signal * x + noise * eps, mistakes)
    for shape, beta in (((1, 3, 2, 5), 0.2), ((5, 2), 1e-4), ((2, 3), torch.tensor(0.9)), ((4,), 0.0), ((3, 2), 1.0)):
        x, eps = case.normal(*shape), case.normal(*shape)
        close(learner(x, eps, beta), math.sqrt(1 - beta) * x + math.sqrt(beta) * eps)


def _require_no_chance(learner, *inputs):
    first, second = learner(*inputs), learner(*inputs)
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        require(first.equal(second), "two calls with the same inputs gave different results.",
                "New noise is drawn inside. The noise is passed in as eps; use that.")  # fmt: skip


@exercise(
    "05.alpha_bar", schedules.alpha_bar_from_beta, difficulty=1, minutes=5,
    hints=[
        "Each step leaves the share alpha_t = 1 - beta_t of the variance. What do two steps leave?",
        "Shares multiply. You need the product of all alphas up to t, for every t at once.",
        "torch has cumprod for this: (1 - beta).cumprod(...)",
    ],
)  # fmt: skip
def alpha_bar(learner, case):
    """Find the share of the image's variance that is left after t steps."""
    beta = case.uniform(0.02, 0.3, 12)
    alpha = 1 - beta
    expected = torch.tensor([math.prod(alpha[: t + 1].tolist()) for t in range(12)])
    before = torch.cat([torch.ones(1), expected[:-1]])
    mistakes = [
        (beta.cumprod(0), "This multiplies the betas. What a step leaves is alpha_t = 1 - beta_t."),
        (1 - beta.cumsum(0), "Shares are multiplied. 1 minus the sum of the betas is right for tiny betas only, and "
                             "falls below 0 later."),
        (alpha.cumsum(0), "The alphas are added up. Shares multiply: cumprod."),
        (alpha.flip(0).cumprod(0).flip(0), "This multiplies from t to the end. alpha_bar_t is what the steps *up to* t "
                                           "leave."),
        (alpha, "This is alpha_t, what one step leaves. alpha_bar_t is what all steps up to t leave: a product."),
        (expected.sqrt(), "This is the root, sqrt(alpha_bar_t). The root comes later, in add_noise."),
        (before, "This starts with 1, so it is one step late: alpha_bar[0] has one step behind it, 1 - beta[0]."),
        (torch.cat([torch.ones(1), expected]), "This starts with 1, for t = 0 steps. In code, alpha_bar[0] has one "
                                               "step behind it, and there are as many as betas."),
        (expected[-1], "This is the product of all. It is wanted for every t: a running product, cumprod."),
        (1 - expected, "This is 1 - alpha_bar_t, the variance of the noise, not that of the image."),
    ]  # fmt: skip
    close(learner(beta), expected, mistakes)
    one = case.uniform(0.1, 0.9, 1)
    close(learner(one), 1 - one, what="for a single beta, the result")
    long = torch.linspace(1e-4, 0.02, 1000)
    running = torch.tensor([math.fsum(math.log1p(-b) for b in long[: t + 1].tolist()) for t in range(0, 1000, 111)])
    close(learner(long)[::111], running.exp(), tolerance=1e-3, what="every 111th of the result")


@exercise(
    "05.add_noise", schedules.add_noise, difficulty=2, minutes=10, uses=("05.alpha_bar",),
    hints=[
        "Look up alpha_bar at each sample's own t: alpha_bar[t] has shape (batch,).",
        "alpha_bar_t is a variance; images are multiplied by its root. The noise gets the root of the rest.",
        "One number for each sample becomes (batch, 1, 1, 1) with expand_like(alpha_bar[t], x0).",
        "With a = expand_like(alpha_bar[t], x0), return a.sqrt() * x0 + (...).sqrt() * eps.",
    ],
)  # fmt: skip
def add_noise(learner, case):
    """Jump from a clean image to time t at once."""
    for T, shape in ((50, (6, 3, 8, 8)), (50, (6, 2)), (12, (5, 3)), (12, (2,)), (7, (3, 2, 4, 2, 2))):
        table = (1 - case.uniform(0.01, 0.1, T)).cumprod(0)  # (T,), falling
        ends = torch.tensor([0, T - 1, T // 2])[: shape[0]]
        t = torch.cat([ends, case.whole(1, T - 2, max(0, shape[0] - 3))])
        x0, eps = case.normal(*shape), case.normal(*shape)
        column = (-1, *[1] * (len(shape) - 1))
        share = table[t].reshape(column)
        mistakes = add_noise_mistakes(x0, eps, t, table, share, column) if T == 50 else ()
        if mistakes:
            _require_no_chance(partial(_noised, learner), x0, eps, t, table)
        close(_noised(learner, x0, eps, t, table), share.sqrt() * x0 + (1 - share).sqrt() * eps, mistakes)
    for time, shape in ((0, (1, 3, 4, 4)), (6, (1, 2))):  # a batch of one
        x0, eps, share = case.normal(*shape), case.normal(*shape), table[time]
        close(learner(x0, eps, torch.tensor([time]), table), share.sqrt() * x0 + (1 - share).sqrt() * eps)


def _noised(learner, x0, eps, t, table):
    try:
        return learner(x0, eps, t, table)
    except Exception as raised:
        text = str(raised.__cause__)
        if "converted to Scalar" in text:
            raise Wrong(f"taking one number failed: {text}", "Each sample has a time of its own, so alpha_bar[t] "
                        "holds several numbers. Calculate with the tensor, without .item() or float()."
                        ) from None  # fmt: skip
        if "out of bounds" in text:
            raise Wrong(f"looking up failed: {text}", "In code t goes from 0 to T - 1, and so does the "
                        "table: what belongs to t is alpha_bar[t], not alpha_bar[t + 1].") from None  # fmt: skip
        raise


@exercise(
    "05.cosine_beta", schedules.cosine_beta, difficulty=3, minutes=15, given="T",
    hints=[
        "Compute f(t) for t = 0 ... T first: that is T + 1 numbers, one more than there are betas.",
        "alpha_bar_t / alpha_bar_{t-1} is f(t) / f(t-1), since f(0) cancels: f[1:] / f[:-1].",
        "At the very end f is 0, so beta would be 1 and nothing at all would be left: .clamp(max=0.999).",
        "f = torch.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2, and then (1 - f[1:] / f[:-1]).clamp(max=0.999).",
    ],
)  # fmt: skip
def cosine_beta(learner, case):
    """Make the betas of a schedule whose alpha_bar falls like a cosine."""
    s = 0.008

    def betas(T, offset=s, power=2, first=1, clip=0.999, steps=0, angle=None):
        steps, angle = steps or T, angle or (lambda u: (u + offset) / (1 + offset) * math.pi / 2)
        f = [math.cos(angle(t / steps)) ** power for t in range(-1, T + 1)]
        pairs = [(f[t + 1], f[t]) for t in range(first, T + first)]
        return torch.tensor([min(1 - later / earlier, clip) for later, earlier in pairs])

    T = int(case.whole(20, 60))
    share = torch.tensor([math.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2 for t in range(T + 1)]).double()
    mistakes = [
        (betas(T, clip=math.inf), "The last beta is 1: it would delete the image and make later formulas divide by "
                               "0. Clip the betas at 0.999."),
        (betas(T, offset=0.0), "The small offset 0.008 is missing; without it the first betas are too small."),
        (betas(T, power=1), "This is the cosine; alpha_bar is its square."),
        (betas(T, first=0), "This is one step early: beta[0] belongs to the paper's t = 1, so it is 1 - f(1) / f(0)."),
        (share[1:] / share[0], "This is alpha_bar. From it comes beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}."),
        ((share[1:] / share[:-1]).clamp(max=0.999), "This is alpha_t = 1 - beta_t."),
        ((1 - share[1:] / share[0]).clamp(max=0.999), "This is 1 - alpha_bar_t, what all steps take together. beta_t "
                                                      "is what step t takes of what was left: divide by "
                                                      "alpha_bar_{t-1}."),
    ]  # fmt: skip
    mistakes += [
        (betas(T)[1:], "There is one beta too few: T of them need f at T + 1 moments, t = 0 ... T."),
        (betas(T, steps=T - 1), "t is divided by T - 1. The paper's t goes from 0 to T, so t / T goes from 0 to 1."),
        (
            betas(T, angle=lambda u: (u + s) / (1 + s) * 90),
            "cos takes radians: a quarter of its period is pi / 2, not 90.",
        ),
        (
            betas(T, angle=lambda u: u + s / (1 + s) * math.pi / 2),
            "Brackets are missing: (t / T + 0.008) / 1.008, and all of it times pi / 2.",
        ),
        (
            betas(T, clip=math.inf).clamp(min=0.999),
            "clamp(min=0.999) raises all betas to 0.999. They are at most that: max=0.999.",
        ),
        (share.float(), "This is f(t), at T + 1 moments. From it comes beta_t = 1 - f(t) / f(t-1)."),
    ]
    try:
        got = learner(T)
    except Exception as raised:
        if "Boolean value of Tensor" not in str(raised.__cause__):
            raise
        raise Wrong(f"comparing failed: {raised.__cause__}", "Python's min compares two numbers. For each number of a "
                    "tensor: .clamp(max=0.999).") from None  # fmt: skip
    close(got, betas(T), mistakes, tolerance=1e-3)
    close(learner(1), torch.tensor([0.999]), what="for T = 1, the result")
    close(learner(1000), betas(1000), tolerance=2e-2)  # the first betas are tiny: float32 knows them to a hundredth


@exercise(
    "05.snr", schedules.snr, difficulty=1, minutes=3,
    hints=[
        "Signal to noise compares two variances: that of the image in x_t, and that of the noise in x_t.",
        "They are alpha_bar_t (for an image of variance 1) and what is left of 1.",
    ],
)  # fmt: skip
def snr(learner, case):
    """Compare the strength of image and noise at each t."""
    share = case.uniform(0.05, 0.95, 6)
    mistakes = [
        ((1 - share) / share, "This is upside down: signal to noise has the signal above."),
        ((share / (1 - share)).sqrt(), "This is the ratio of the factors √ᾱ and √(1 - ᾱ). The signal-to-noise ratio "
                                       "compares variances: no roots."),
        (10 * (share / (1 - share)).log10(), "These are decibels; the ratio itself is wanted."),
        ((share / (1 - share)).square(), "This is the square. alpha_bar and 1 - alpha_bar are variances already."),
        (share.sqrt() / (1 - share), "The signal has a root and the noise has none; both are variances."),
        ((share / (1 - share)).log(), "This is the logarithm of the signal-to-noise ratio: leave it out."),
        (share / (1 - share).sqrt(), "The noise has a root and the signal has none; both are variances."),
    ]  # fmt: skip
    close(learner(share), torch.tensor([a / (1 - a) for a in share.tolist()]), mistakes)
    for share in (case.uniform(0.05, 0.95), case.uniform(0.05, 0.95, 2, 3), torch.tensor([0.9990234375, 1e-6, 0.5])):
        close(learner(share), share.double() / (1 - share.double()), tolerance=1e-3)


@exercise(
    "05.variance_at", schedules.variance_at, difficulty=2, minutes=5,
    hints=[
        "x_t is a sum of two independent parts, so their variances add.",
        "Multiplying by a factor multiplies the variance by its square. The factor of x0 is sqrt(alpha_bar_t).",
        "So alpha_bar_t times the variance of x0, plus the variance of the noise part.",
    ],
)  # fmt: skip
def variance_at(learner, case):
    """Find the variance of x_t, for images of any variance."""
    share, variance = case.uniform(0.05, 0.95, 6), case.uniform(0.1, 0.6).item()
    expected = torch.tensor([a * variance + 1 - a for a in share.tolist()])
    mistakes = [
        (expected.sqrt(), "This is the standard deviation; the variance is its square."),
        (torch.ones(6), "It is 1 only if the images have variance 1. Here they do not: use x0_variance."),
        (torch.full((6,), variance), "The variance does not stay the same as x0's: the noise has variance 1, whatever "
                                     "the images have."),
        (share.sqrt() * variance + (1 - share).sqrt(), "A factor multiplies the variance by its square: the factors "
                                                       "are roots, so their squares are alpha_bar and 1 - alpha_bar."),
        (share.square() * variance + (1 - share).square(), "The factors of x_t are roots already, √ᾱ and √(1 - ᾱ): "
                                                           "squared they are ᾱ and 1 - ᾱ."),
        (share * variance + 1, "The noise's variance is 1 - alpha_bar_t here: eps is multiplied by the root of that."),
        (share * variance, "This is the image's part only; the noise adds its variance 1 - alpha_bar_t."),
        ((1 - share) * variance + share, "The two shares are swapped: alpha_bar_t belongs to the image."),
        (share * variance**2 + 1 - share, "x0_variance is a variance already, and not squared again."),
    ]  # fmt: skip
    close(learner(share, variance), expected, mistakes)
    close(learner(share, 1.0), torch.ones(6), what="with x0_variance = 1, the result")
    close(learner(share, 0.0), 1 - share, what="with x0_variance = 0, the result")
    for share in (case.uniform(0.05, 0.95), torch.tensor([0.9999, 1e-4])):
        variance = case.uniform(1.5, 3)
        close(learner(share, variance), share * variance + 1 - share)


@exercise(
    "05.kl_to_normal", schedules.kl_to_normal, difficulty=4, minutes=20,
    hints=[
        "q(x_t | x0) is normal in each dimension, with mean sqrt(alpha_bar_t) x0 and variance 1 - alpha_bar_t.",
        "In nats, KL( N(μ, σ²) || N(0, 1) ) = (σ² + μ² - 1 - ln σ²) / 2 for one dimension.",
        "Insert both: σ² + μ² - 1 = alpha_bar_t (x0² - 1).",
        "Average over all axes but the first, .flatten(1).mean(1), and divide by ln 2 for bits.",
    ],
)  # fmt: skip
def kl_to_normal(learner, case):
    """Measure how far x_t is from pure noise, in bits per dimension."""
    for share, shape in (
        (case.uniform(0.2, 0.8), (5, 3, 4, 4)),
        (case.uniform(0.001, 0.002), (2, 3, 4, 6)),
        (case.uniform(0.95, 0.99), (1, 2, 3)),
        (case.uniform(0.2, 0.8), (4, 2)),
    ):
        x0 = case.uniform(-1, 1, *shape)
        bits, mistakes = kl_and_mistakes(x0, share)
        close(_distance(learner, x0, share), bits, mistakes if len(x0) == 5 else (), tolerance=1e-3)


def _distance(learner, x0, share):
    try:
        return learner(x0, share)
    except Exception as raised:
        text = str(raised.__cause__)
        if "Dimension out of range" in text:
            raise Wrong(f"averaging failed: {text}", "Samples may have any number of axes, and points of the "
                        "plane have only one: .flatten(1).mean(1) averages over all but the first."
                        ) from None  # fmt: skip
        raise
