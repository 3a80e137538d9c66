"""What the exercises of chapter 07 give with common mistakes, and a model that records its calls.

Each `..._mistakes` returns pairs (value that a mistake gives, sentence that names it) for `close`.
"""

import math

import torch

from course_utils.exercises.oracles import Wrong, close, require

LAST = ("At the step to the clean picture, earlier = -1, alpha_bar is 1. alpha_bar[-1] is the table's last entry; "
        "alpha_bar_at(alpha_bar, earlier) knows better.")  # fmt: skip


def schedule_mistakes(formula, table, t, earlier, right):
    """Values of `formula(a, a_earlier)` when one of the two is looked up wrongly."""

    def at(level):
        return table[level].item()

    if earlier == -1:
        found = [(formula(at(t), at(-1)), LAST), (formula(at(t), at(0)), LAST)]
    else:
        found = [(formula(at(t), at(t - 1)), "This goes to t - 1, but the step goes to `earlier`, which may be "
                  "further away: look alpha_bar up there."),
                 (formula(at(t), at(earlier + 1)), "This goes to `earlier` + 1. In code t starts at 0, and so does the "
                  "table alpha_bar.")]  # fmt: skip
    if earlier == 0:
        found += [(formula(at(t), 1.0), "earlier = 0 is still a noisy time, with alpha_bar[0]. Only earlier = -1 is "
                   "the clean picture, where alpha_bar is 1.")]  # fmt: skip
    elif earlier > 0:
        found += [(formula(at(t), at(earlier - 1)), "This goes to `earlier` - 1: look alpha_bar up at `earlier` "
                   "itself.")]  # fmt: skip
    return [(value, advice) for value, advice in found if not same(value, right)]


def same(a, b):
    return a.shape == b.shape and torch.allclose(a.nan_to_num(1e9), b, rtol=1e-3, atol=1e-5)


def ddpm_at(x_t, x0_hat, z, a, e):
    """The DDPM step from the level a to the level e of alpha_bar."""
    alpha = a / e
    mean = (math.sqrt(e) * (1 - alpha) * x0_hat + root(alpha) * (1 - e) * x_t) / (1 - a)
    return mean + root((1 - e) / (1 - a) * (1 - alpha)) * z


def root(x):
    return math.sqrt(x) if x >= 0 else math.nan


def mean_mistakes(x0, x_t, table, t, earlier, a, a_earlier, right):
    def mean(a, a_earlier, x0=x0, x_t=x_t, beta=None, roots=1):
        alpha = a / a_earlier
        beta = 1 - alpha if beta is None else beta
        power = 0.5 if roots else 1
        return (a_earlier**power * beta * x0 + alpha**power * (1 - a_earlier) * x_t) / (1 - a)

    alpha = a / a_earlier
    mistakes = schedule_mistakes(lambda a, e: mean(a, e), table, t, earlier, right)
    mistakes += [
        (mean(a, a_earlier, x_t, x0), "The two weights are swapped: that with beta belongs to x0."),
        (mean(a, a_earlier, roots=0), "The roots are missing: sqrt(alpha_bar_{t-1}) and sqrt(alpha_t)."),
        ((math.sqrt(a_earlier) * (1 - alpha) * x0 + math.sqrt(a) * (1 - a_earlier) * x_t) / (1 - a),
         "This is ᾱ where α belongs: the weight of x_t has sqrt(alpha_t), what this *step* keeps, "
         "alpha_bar_t / alpha_bar_{t-1}."),
        ((math.sqrt(a) * (1 - alpha) * x0 + math.sqrt(alpha) * (1 - a_earlier) * x_t) / (1 - a),
         "The weight of x0 has sqrt(alpha_bar_{t-1}), of the earlier time; this has sqrt(alpha_bar_t)."),
        (math.sqrt(a_earlier) * (1 - alpha) * x0 + math.sqrt(alpha) * (1 - a_earlier) * x_t,
         "Both weights are still to be divided by 1 - alpha_bar_t."),
        (mean(a, a_earlier, beta=1 - a), "This is 1 - ᾱ where β belongs: beta is what this step adds, 1 - alpha_t."),
        (math.sqrt(a_earlier) * x0, "This is the mean of q(x_{t-1} | x0), which does not know x_t."),
    ]  # fmt: skip
    return [(value, advice) for value, advice in mistakes if not same(value, right)]


def ddim_answers(x_t, eps, z, table, t, earlier, a, a_earlier, eta, clip):
    old = eps
    plain = (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)
    x0_hat = plain.clamp(-clip, clip) if clip else plain
    eps = (x_t - math.sqrt(a) * x0_hat) / math.sqrt(1 - a)

    def step(e=a_earlier, eta=eta, eps=eps, x0=x0_hat, sigma=None, direction=None, z=z):
        if sigma is None:
            sigma = eta * root((1 - e) / (1 - a) * (1 - a / e)) if eta else 0.0
        direction = root(1 - e - sigma**2) if direction is None else direction
        return math.sqrt(e) * x0 + direction * eps + sigma * z

    variance = (1 - a_earlier) / (1 - a) * (1 - a / a_earlier)
    beta = 1 - a / a_earlier
    sigma = eta * math.sqrt(variance)
    mistakes = schedule_mistakes(lambda _, e: step(e), table, t, earlier, step())
    mistakes += [
        (step(sigma=math.sqrt(eta * variance)),
         "η stands under the root, so it multiplies the variance. It multiplies the standard deviation."),
        (step(sigma=eta * variance), "sigma is a standard deviation: the root of the product is missing."),
        (step(sigma=eta * root((1 - a_earlier) / (1 - a))), "Under the root of sigma the second factor is missing, "
         "1 - alpha_bar_t / alpha_bar_{t-1}."),
        (step(sigma=eta * root(beta)), "This is η √β. DDIM's sigma is η √β̃: under the root stands the factor "
                                       "(1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) too."),
        (step(direction=root(1 - a_earlier)), "The factor of eps forgets sigma: fresh and old noise together have the "
                                               "variance 1 - alpha_bar_{t-1}, so sigma² comes off."),
        (step(direction=root(1 - a_earlier) - sigma), "sigma was taken off after the root. Variances add up, standard "
                                                       "deviations do not: the root is over 1 - alpha_bar_{t-1} - "
                                                       "sigma²."),
        (step(direction=root(1 - a_earlier - sigma)), "Under the root stands sigma; it is sigma²."),
        (step(direction=1 - a_earlier - sigma**2), "The root over the factor of eps is missing."),
        (step(direction=root(1 - a - sigma**2)), "The factor of eps uses alpha_bar_t; at the earlier time there is "
                                                  "less noise, 1 - alpha_bar_{t-1}."),
        (step(eps=old), "x0_hat was clipped, but eps is the old one. (diffusers does so by default; here use the eps "
                        "that guess returns, which fits.)"),
        (step(eps=old, x0=plain), "`clip` was not passed to guess."),
        (step(z=torch.zeros_like(z)), "The fresh noise is missing: + sigma * noise."),
        (step(x0=math.sqrt(a_earlier) * x0_hat), "This is ᾱ where √ᾱ belongs, in front of x0_hat."),
        (x0_hat, "This goes straight to x0_hat. A step goes to the earlier time, where there is still noise."),
    ]  # fmt: skip
    return step(), mistakes


def score_mistakes(eps, t, table, share):
    """Wrong scores; share is alpha_bar at each sample's time, with the axes of eps."""

    def at(times):
        return -eps / (1 - table[times.clamp(0, len(table) - 1)].reshape(share.shape)).sqrt()

    return [
        (eps / (1 - share).sqrt(), "The minus sign is missing: the score points away from the noise."),
        (-eps / (1 - share), "This divides by the variance 1 - ᾱ. Divide by the standard deviation, its root."),
        (-eps / share.sqrt(), "This divides by √ᾱ, the factor of x_0. The factor of the noise is √(1 - ᾱ)."),
        (-eps * (1 - share).sqrt(), "This multiplies by √(1 - ᾱ). Divide by it: with less noise the score is longer."),
        (-eps, "This is only -ε̂. It still has to be divided by √(1 - ᾱ)."),
        (-eps / (1 - table[t[0]]).sqrt(), "All samples got the time of the first. Each has its own."),
        (at(t + 1), "This looks up t + 1. In code t starts at 0, and so does the table alpha_bar."),
        (at(t - 1), "This looks up t - 1. The score is wanted at t itself."),
    ]


def last_mistakes(x_t, now, then, table, t, earlier):
    def lam(level):
        return math.log(table[level].item() / (1 - table[level].item())) / 2

    e, end = table[earlier].item(), table[-1].item()
    h = lam(-1) - lam(earlier)
    aims = now, now + h / (2 * (lam(earlier) - lam(t))) * (now - then)
    ends = [math.sqrt((1 - end) / (1 - e)) * x_t - math.sqrt(end) * math.expm1(-h) * D for D in aims]
    foreseen = "At the step to the clean picture h has no limit, and nothing can be extrapolated: the result is x0_hat."
    return [(now + (now - then) / 2, foreseen), (now + (now - then), foreseen), *((value, LAST) for value in ends)]


def multistep_mistakes(step, x_t, now, then, h, h_before, a, e):
    ratio, moved = h / h_before, now - then
    mistakes = [
        (step(now), "The previous prediction was not used: add to x0_hat a part of its change."),
        (step(now + moved / 2), "The two steps are taken for equally long, h / h_before = 1. They are not, in lambda."),
        (step(now + moved / (2 * ratio)), "The ratio is upside down: it is h / (2 h_before), with this step above."),
        (step(now + ratio * moved), "This looks to the *end* of the step. The value in its middle is wanted: h / (2 "
                                    "h_before)."),
        (step(now - ratio / 2 * moved), "The sign is wrong: x0_hat goes on as it moved, now minus before."),
        (step(then + ratio / 2 * moved), "This starts from the previous prediction; start from x0_hat."),
        (step(now + ratio / 2 * moved, 2 * h), "lambda is *half* the logarithm of alpha_bar / (1 - alpha_bar)."),
        (step(now + ratio / 2 * moved, -h), "h has the wrong sign: lambda grows on the way back, h = lambda_{t-1} - "
                                            "lambda_t."),
        (math.sqrt(e / a) * x_t - math.sqrt(1 - e) * math.expm1(h) * (now + ratio / 2 * moved),
         "These are the factors of the solver for eps (DPM-Solver). With x0_hat it is sqrt((1 - a_earlier) / (1 - a)) "
         "and sqrt(a_earlier)."),
        (math.sqrt((1 - e) / (1 - a)) * x_t + math.sqrt(e) * math.expm1(-h) * (now + ratio / 2 * moved),
         "The second term has the wrong sign: exp(-h) - 1 is negative, and a minus stands before it."),
        ((1 - e) / (1 - a) * x_t - e * math.expm1(-h) * (now + ratio / 2 * moved), "The roots are missing."),
    ]  # fmt: skip
    right = step(now + ratio / 2 * moved)
    mistakes.append((now, "earlier = 0 is still a noisy time, with alpha_bar[0]. Only at earlier = -1, the clean "
                          "picture, the result is x0_hat."))  # fmt: skip
    return [m for m in mistakes if not same(m[0], right)]


def spring(x, t, cond=None):
    """A smooth model for tests: eps depends on place and time."""
    shape = (-1, *[1] * (x.ndim - 1))
    return torch.tanh(x) * (1 + t.reshape(shape) / 40) - 0.3


class Noted:
    """`spring`, remembering what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, cond=None):
        one_each = isinstance(t, torch.Tensor) and t.shape == (len(x),)
        require(one_each, f"the model got the time {t!r}, expected a tensor of shape ({len(x)},).",
                "It wants one time for each sample: torch.full((len(x_t),), t).")  # fmt: skip
        require(
            not t.is_floating_point() and t.min() >= 0,
            f"the model got the time {t[0].item():g}, expected a whole number from 0 on.",
            "The model knows no time -1: there is no noise to predict in the clean image.",
        )
        self.calls.append((x.detach().clone(), int(t[0])))
        return spring(x, t)


def line(x, eps, a, e):
    """DDIM as a straight line: x / sqrt(alpha_bar) moves along eps by the change of sqrt((1 - a) / a)."""
    return math.sqrt(e) * (x / math.sqrt(a) + (math.sqrt((1 - e) / e) - math.sqrt((1 - a) / a)) * eps)


def check_variance(got, variance, a, a_earlier):
    beta = 1 - a / a_earlier
    mistakes = [
        (
            beta,
            "This is beta_t, the variance of the *forward* step. Knowing x0 makes it smaller: times "
            "(1 - alpha_bar_{t-1}) / (1 - alpha_bar_t).",
        ),
        (math.sqrt(variance), "This is the standard deviation. Return the variance; the step takes the root."),
        (1 - a_earlier, "This is the variance of q(x_{t-1} | x0), which does not know x_t."),
        ((1 - a_earlier) / (1 - a), "The factor beta_t is missing."),
        (
            (1 - a) / max(1 - a_earlier, 1e-12) * beta,
            "The fraction is upside down: it is below 1, since alpha_bar_{t-1} is larger than alpha_bar_t.",
        ),
    ]
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.item()
    require(isinstance(got, int | float), f"the variance is of type {type(got).__name__}, expected one number.",
            "The variance does not depend on x_t: one number for the whole batch.")  # fmt: skip
    if abs(got - variance) <= 1e-5 + 1e-3 * variance:
        return
    found = f"the variance: got {got:.6g}, expected {variance:.6g}."
    advice = next((advice for value, advice in mistakes if abs(got - value) <= 1e-3 * abs(value)), "")
    raise Wrong(found, advice)


def require_one_evaluation(got, ahead, model):
    require(len(model.calls) == 1, f"at the step to the clean picture the model was evaluated "
            f"{len(model.calls)} times, expected once.", "There is no noise in a clean image, and no "
            "time -1: return the trial step.")  # fmt: skip
    close(got, ahead, tolerance=2e-3, what="at the step to the clean picture, the result")


def require_two(got, names, advice):
    """Raise `Wrong` unless the learner returned two things."""
    two = isinstance(got, tuple | list) and len(got) == 2
    require(two, f"the result is of type {type(got).__name__}, expected two things, {names}.", advice)
