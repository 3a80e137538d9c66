"""The exercises of chapter 05: from a picture to noise, in steps and in one jump."""

import math

import torch

from course_utils.diffusion import schedules
from course_utils.exercises.oracles import close
from course_utils.exercises.registry import exercise

TITLE = "Forward diffusion"


@exercise(
    "05.forward_step", schedules.forward_step, difficulty=1, minutes=5,
    hints=[
        "A step keeps most of x_{t-1} and adds a little noise. beta_t is the *variance* of what is added.",
        "A variance v is reached by multiplying standard normal noise with its root, sqrt(v). What is left for "
        "x_{t-1}, if variance 1 shall stay 1, is the variance 1 - beta_t.",
        "Return (1 - beta_t) ** 0.5 * x_before + (...) ** 0.5 * eps.",
    ],
)  # fmt: skip
def forward_step(learner, case):
    """Take one small step from a picture towards noise."""
    x, eps, beta = case.normal(4, 3, 8, 8), case.normal(4, 3, 8, 8), case.uniform(0.05, 0.4)
    signal, noise = math.sqrt(1 - beta), math.sqrt(beta)
    variance = "beta_t is a variance. What multiplies the noise is a standard deviation, sqrt(beta_t)."
    mistakes = [
        (signal * x + beta * eps, variance),
        ((1 - beta) * x + noise * eps, "x_{t-1} is multiplied by sqrt(1 - beta_t), not by 1 - beta_t."),
        ((1 - beta) * x + beta * eps, f"Both roots are missing. {variance}"),
        (noise * x + signal * eps, "The two factors are swapped: a step keeps nearly all of x_{t-1}."),
        (x + noise * eps, "x_{t-1} is not made smaller. So the variance would grow with every step, without end."),
        (signal * x - noise * eps, "The noise has a minus sign; the equation adds it."),
    ]
    close(learner(x, eps, beta), signal * x + noise * eps, mistakes)


@exercise(
    "05.alpha_bar", schedules.alpha_bar_from_beta, difficulty=1, minutes=5,
    hints=[
        "Each step leaves the share alpha_t = 1 - beta_t of the variance. What do two steps leave?",
        "Shares multiply. You need the product of all alphas up to t, for every t at once.",
        "torch has cumprod for this: (1 - beta).cumprod(...)",
    ],
)  # fmt: skip
def alpha_bar(learner, case):
    """Find the share of the picture's variance that is left after t steps."""
    beta = case.uniform(0.02, 0.3, 12)
    alpha = 1 - beta
    expected = torch.tensor([math.prod(alpha[: t + 1].tolist()) for t in range(12)])
    before = torch.cat([torch.ones(1), expected[:-1]])
    mistakes = [
        (beta.cumprod(0), "This multiplies the betas. What a step leaves is alpha_t = 1 - beta_t."),
        (1 - beta.cumsum(0), "Shares multiply. 1 minus the sum of the betas is right for tiny betas only, and falls "
                             "below 0 later."),
        (alpha, "This is alpha_t, what one step leaves. alpha_bar_t is what all steps up to t leave: a product."),
        (expected.sqrt(), "This is the root, sqrt(alpha_bar_t). The root comes later, in add_noise."),
        (before, "This starts with 1, so it is one step late: alpha_bar[0] has one step behind it, 1 - beta[0]."),
        (torch.cat([torch.ones(1), expected]), "This starts with 1, for t = 0 steps. In code, alpha_bar[0] has one "
                                               "step behind it, and there are as many as betas."),
        (expected[-1], "This is the product of all. It is wanted for every t: a running product, cumprod."),
        (1 - expected, "This is 1 - alpha_bar_t, the variance of the noise, not that of the picture."),
    ]  # fmt: skip
    close(learner(beta), expected, mistakes)
    long = torch.linspace(1e-4, 0.02, 1000)
    running = torch.tensor([math.fsum(math.log1p(-b) for b in long[: t + 1].tolist()) for t in range(0, 1000, 111)])
    close(learner(long)[::111], running.exp(), tolerance=1e-3, what="every 111th of the result")


@exercise(
    "05.add_noise", schedules.add_noise, difficulty=2, minutes=10, uses=("05.alpha_bar",),
    hints=[
        "Look up alpha_bar at each sample's own t: alpha_bar[t] has shape (batch,).",
        "alpha_bar_t is a variance; pictures are multiplied by its root. The noise gets the root of the rest.",
        "One number for each sample becomes (batch, 1, 1, 1) with expand_like(alpha_bar[t], x0).",
        "With a = expand_like(alpha_bar[t], x0), return a.sqrt() * x0 + (...).sqrt() * eps.",
    ],
)  # fmt: skip
def add_noise(learner, case):
    """Jump from a clean picture to time t at once."""
    table = (1 - case.uniform(0.01, 0.1, 50)).cumprod(0)  # (T,), falling
    t = torch.cat([torch.tensor([0, 49]), case.whole(1, 48, 4)])
    for shape in ((6, 3, 8, 8), (6, 2)):  # pictures, and points in the plane
        x0, eps = case.normal(*shape), case.normal(*shape)
        column = (-1, *[1] * (len(shape) - 1))
        share = table[t].reshape(column)
        expected = share.sqrt() * x0 + (1 - share).sqrt() * eps
        close(learner(x0, eps, t, table), expected, _add_noise_mistakes(x0, eps, t, table, share, column))


def _add_noise_mistakes(x0, eps, t, table, share, column):
    signal, noise = share.sqrt(), (1 - share).sqrt()
    late, early = table[(t + 1).clamp(max=len(table) - 1)].reshape(column), table[t - 1].reshape(column)
    first, for_pictures = table[t[0]], table[t].reshape(-1, 1, 1, 1)
    return [
        (share * x0 + noise * eps, "This is ᾱ where √ᾱ belongs: the picture is multiplied by sqrt(alpha_bar_t)."),
        (signal * x0 + (1 - share) * eps, "This is 1 - ᾱ where √(1 - ᾱ) belongs: 1 - alpha_bar_t is the variance of "
                                          "the noise, and its root multiplies eps."),
        (share * x0 + (1 - share) * eps, "Both roots are missing: alpha_bar_t and 1 - alpha_bar_t are variances."),
        (signal * x0 + (1 - signal) * eps, "The noise is multiplied by 1 - √ᾱ. Variances add up to 1, their roots do "
                                           "not: it is sqrt(1 - alpha_bar_t)."),
        (noise * x0 + signal * eps, "The two factors are swapped: at t = 0 nearly all is still picture."),
        (x0 + noise * eps, "The picture keeps its full strength; it must fade by sqrt(alpha_bar_t)."),
        (late.sqrt() * x0 + (1 - late).sqrt() * eps, "This looks up t + 1. In code t starts at 0, and so does the "
                                                     "table alpha_bar."),
        (early.sqrt() * x0 + (1 - early).sqrt() * eps, "This looks up t - 1. In code t starts at 0, and so does the "
                                                       "table; index -1 would be its end."),
        (first.sqrt() * x0 + (1 - first).sqrt() * eps, "All samples got the time of the first. Each has its own."),
        (for_pictures.sqrt() * x0 + (1 - for_pictures).sqrt() * eps,
         "The factors were given four axes whatever x0 has. Here x0 is points, (batch, 2): expand_like(values, x0) "
         "gives as many axes as x0 has."),
    ]  # fmt: skip


@exercise(
    "05.cosine_beta", schedules.cosine_beta, difficulty=3, minutes=15, given="T",
    hints=[
        "Compute f(t) for t = 0 ... T first: that is T + 1 numbers, one more than there are betas.",
        "alpha_bar_t / alpha_bar_{t-1} is f(t) / f(t-1), since f(0) cancels: f[1:] / f[:-1].",
        "At the very end f is 0, so beta would be 1 and nothing at all would be left: .clamp(max=0.999).",
        "f = torch.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2, and then (1 - f[1:] / f[:-1]).clamp(max=0.999).",
    ],
)  # fmt: skip
def cosine_beta(learner, case):
    """Make the betas of a schedule whose alpha_bar falls like a cosine."""
    T, s = int(case.whole(20, 60)), 0.008

    def betas(offset=s, power=2, first=1, clip=0.999):
        f = [math.cos((t / T + offset) / (1 + offset) * math.pi / 2) ** power for t in range(-1, T + 1)]
        pairs = [(f[t + 1], f[t]) for t in range(first, T + first)]
        return torch.tensor([min(1 - later / earlier, clip) for later, earlier in pairs])

    share = torch.tensor([math.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2 for t in range(T + 1)]).double()
    mistakes = [
        (betas(clip=math.inf), "The last beta is 1: it would delete the picture and make later formulas divide by "
                               "0. Clip the betas at 0.999."),
        (betas(offset=0.0), "The small offset s = 0.008 is missing; without it the first betas are too small."),
        (betas(power=1), "This is the cosine; alpha_bar is its square."),
        (betas(first=0), "This is one step early: beta[0] belongs to the paper's t = 1, so it is 1 - f(1) / f(0)."),
        (share[1:] / share[0], "This is alpha_bar. From it comes beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}."),
        ((share[1:] / share[:-1]).clamp(max=0.999), "This is alpha_t = 1 - beta_t."),
        ((1 - share[1:] / share[0]).clamp(max=0.999), "This is 1 - alpha_bar_t, what all steps take together. beta_t "
                                                      "is what step t takes of what was left: divide by "
                                                      "alpha_bar_{t-1}."),
    ]  # fmt: skip
    close(learner(T), betas(), mistakes)


@exercise(
    "05.snr", schedules.snr, difficulty=1, minutes=3,
    hints=[
        "Signal to noise compares two variances: that of the picture in x_t, and that of the noise in x_t.",
        "They are alpha_bar_t (for a picture of variance 1) and what is left of 1.",
    ],
)  # fmt: skip
def snr(learner, case):
    """Compare the strength of picture and noise at each t."""
    share = case.uniform(0.05, 0.95, 6)
    mistakes = [
        ((1 - share) / share, "This is upside down: signal to noise has the signal above."),
        ((share / (1 - share)).sqrt(), "This is the ratio of the factors √ᾱ and √(1 - ᾱ). The signal-to-noise ratio "
                                       "compares variances: no roots."),
        (share.sqrt() / (1 - share), "The signal has a root and the noise has none; both are variances."),
        ((share / (1 - share)).log(), "This is its logarithm."),
        (share / (1 - share).sqrt(), "The noise has a root and the signal has none; both are variances."),
    ]  # fmt: skip
    close(learner(share), torch.tensor([a / (1 - a) for a in share.tolist()]), mistakes)


@exercise(
    "05.variance_at", schedules.variance_at, difficulty=2, minutes=5,
    hints=[
        "x_t is a sum of two things that know nothing of each other. Then their variances add.",
        "A factor c makes the variance c² times as large. The factor of x0 is sqrt(alpha_bar_t).",
        "So alpha_bar_t times the variance of x0, plus the variance of the noise part.",
    ],
)  # fmt: skip
def variance_at(learner, case):
    """Find the variance of x_t, for pictures of any variance."""
    share, variance = case.uniform(0.05, 0.95, 6), case.uniform(0.1, 0.6).item()
    expected = torch.tensor([a * variance + 1 - a for a in share.tolist()])
    mistakes = [
        (expected.sqrt(), "This is the standard deviation; the variance is its square."),
        (torch.ones(6), "It is 1 only if the pictures have variance 1. Here they do not: x0_variance counts."),
        (torch.full((6,), variance), "The variance does not stay that of x0: it drifts towards 1 with the noise."),
        (share.sqrt() * variance + (1 - share).sqrt(), "A factor c makes the variance c² times as large: the factors "
                                                       "are roots, so their squares are alpha_bar and 1 - alpha_bar."),
        (share.square() * variance + (1 - share).square(), "The factors of x_t are roots already, √ᾱ and √(1 - ᾱ): "
                                                           "squared they are ᾱ and 1 - ᾱ."),
        (share * variance + (1 - share) * variance, "The noise has variance 1, whatever the pictures have."),
        (share * variance**2 + 1 - share, "x0_variance is a variance already, and not squared again."),
    ]  # fmt: skip
    close(learner(share, variance), expected, mistakes)
    close(learner(share, 1.0), torch.ones(6), what="with x0_variance = 1, the result")


@exercise(
    "05.kl_to_normal", schedules.kl_to_normal, difficulty=4, minutes=20,
    hints=[
        "q(x_t | x0) is normal in each dimension, with mean m = sqrt(alpha_bar_t) x0 and variance v = 1 - alpha_bar_t.",
        "In nats, KL( N(m, v) || N(0, 1) ) = (v + m² - 1 - ln v) / 2 for one dimension.",
        "Put m and v in: v + m² - 1 = alpha_bar_t (x0² - 1).",
        "Average over all axes but the first, .flatten(1).mean(1), and divide by ln 2 for bits.",
    ],
)  # fmt: skip
def kl_to_normal(learner, case):
    """Measure how far x_t is from pure noise, in bits per dimension."""
    for share in (case.uniform(0.2, 0.8), case.uniform(0.001, 0.002)):
        x0 = case.uniform(-1, 1, 5, 3, 4, 4)
        q = torch.distributions.Normal(share.sqrt().double() * x0, (1 - share.double()).sqrt())
        p = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
        nats = torch.distributions.kl_divergence(q, p).flatten(1)  # (batch, d)
        bits = nats / math.log(2)
        reverse = torch.distributions.kl_divergence(p, q).flatten(1).mean(1) / math.log(2)
        half_log = (share * (x0.square() - 1) - (1 - share).sqrt().log()).flatten(1).mean(1) / 2 / math.log(2)
        mistakes = [
            (nats.mean(1), "This is in nats. One bit is ln 2 nats: divide by math.log(2)."),
            (bits.sum(1), "This is the sum over all dimensions of a picture; per dimension is their mean."),
            (nats.sum(1), "This is the sum over the dimensions, in nats; wanted are their mean, and bits."),
            (bits.mean(), "This is one number for the whole batch. Keep one for each sample: .flatten(1).mean(1)."),
            (reverse, "This is the other direction, KL( N(0, I) || q ). The KL divergence is not symmetric: q first."),
            (-bits.mean(1), "The sign is wrong: a KL divergence is never negative."),
            (2 * bits.mean(1), "The factor 1/2 is missing."),
            (half_log, "The logarithm is of the variance 1 - alpha_bar_t, not of its root."),
            (nats.mean(1) * math.log(2), "Nats become bits by dividing by ln 2, not by multiplying."),
        ]
        close(learner(x0, share), bits.mean(1), mistakes, tolerance=1e-3)
