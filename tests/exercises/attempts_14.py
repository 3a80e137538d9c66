"""Attempts at the exercises of chapter 14."""

import math

import numpy as np
import torch
from attempts import mutant, variant
from torch.nn import functional as F

from course_utils.diffusion import flow
from course_utils.shapes import expand_like

LOSS, MARGINAL, FLOW = "14.velocity_loss", "14.marginal_velocity", "14.as_flow"
SAMPLE, CURVED, TIMES = "14.sample_flow", "14.curvature", "14.flow_times"
PATCHES, HALF, JOINT, LANDING = "14.patchify", "14.half_block", "14.joint_attention", "14.landing_velocity"


def wrong(id, words, function, state="fail"):
    """Note a wrong answer that is one expression, by the words that its message must hold."""
    function.__name__ = "_".join(words.split()[:5])
    mutant(id, words, state)(function)


# The loss


def wrong_loss(words, point=None, target=None, time=None, told=True, loss=None, state="fail"):
    """Note a wrong loss; point and target are functions of (x0, eps, t with their axes), time one of t (batch,)."""

    def answer(model, x0, t, eps, cond=None):
        share = expand_like(t, x0)
        x_t = point(x0, eps, share) if point else (1 - share) * x0 + share * eps
        u = target(x0, eps, share) if target else eps - x0
        off = model(x_t, time(t) if time else t, cond if told else None) - u
        return loss(off) if loss else off.square().flatten(1).mean(1)

    wrong(LOSS, words, answer, state)


wrong_loss("The sign of the velocity is wrong", target=lambda x0, eps, t: x0 - eps)
wrong_loss("The prediction was compared with eps. It", target=lambda x0, eps, t: eps)
wrong_loss("The prediction was compared with x0", target=lambda x0, eps, t: x0)
wrong_loss("The prediction was compared with x_t", target=lambda x0, eps, t: (1 - t) * x0 + t * eps)
wrong_loss("compared with eps - x_t. The line", target=lambda x0, eps, t: eps - (1 - t) * x0 - t * eps)
wrong_loss("The velocity was multiplied by t", target=lambda x0, eps, t: t * (eps - x0))
wrong_loss("The two shares are swapped", lambda x0, eps, t: t * x0 + (1 - t) * eps)
wrong_loss("x_t was made with roots", lambda x0, eps, t: (1 - t).sqrt() * x0 + t.sqrt() * eps)
wrong_loss("In x_t the factor of x0 is missing", lambda x0, eps, t: x0 + t * eps)
wrong_loss("x_t lies on the other side of x0", lambda x0, eps, t: x0 + t * (x0 - eps))
wrong_loss("The model was shown the clean x0", lambda x0, eps, t: x0)
wrong_loss("The model was shown eps alone", lambda x0, eps, t: eps)
wrong_loss("The model was told 1 - t", time=lambda t: 1 - t)
wrong_loss("was not told the time", time=torch.zeros_like)
wrong_loss("told the time of the first sample", time=lambda t: t[0].expand(len(t)))
wrong_loss("t was multiplied by 1000", time=lambda t: 1000 * t)
wrong_loss("The model was told t as a whole number", time=lambda t: t.long())
wrong_loss("cond was not handed on", told=False)
wrong_loss("One number for the whole batch is left", loss=lambda off: off.square().mean())
wrong_loss("This is one sum over everything", loss=lambda off: off.square().sum())
wrong_loss("The squares of each sample were added up", loss=lambda off: off.square().flatten(1).sum(1))
wrong_loss("The squares are not averaged yet", loss=lambda off: off.square())
wrong_loss("The mean went over the batch", loss=lambda off: off.square().flatten(1).mean(0))
wrong_loss("The mean went over axis 1 alone", loss=lambda off: off.square().mean(1))
wrong_loss("The mean went over the last axis alone", loss=lambda off: off.square().mean(-1))
wrong_loss("The differences were not squared", loss=lambda off: off.flatten(1).mean(1))
wrong_loss("the mean absolute error", loss=lambda off: off.abs().flatten(1).mean(1))
wrong_loss("A root was taken", loss=lambda off: off.square().flatten(1).mean(1).sqrt())
wrong_loss("This is half of the loss", loss=lambda off: off.square().flatten(1).mean(1) / 2)
wrong_loss("The mean was taken before the square", loss=lambda off: off.flatten(1).mean(1).square())
wrong_loss("(batch, ...) means any number of axes", loss=lambda off: off.square().mean((1, 2, 3)), state="error")
wrong_loss("has no way back", loss=lambda off: off.detach().square().flatten(1).mean(1))
wrong_loss("the gradient with respect to model.weight is not", loss=lambda off: (off * off.detach()).flatten(1).mean(1))
wrong_loss("a tensor t of shape (3,), got the shape (3, 1, 1, 1)", time=lambda t: t[:, None, None, None], state="error")
wrong_loss("a tensor t of shape (3,), got float", time=lambda t: t[0].item(), state="error")


@mutant(LOSS, "Beside x0 it needs as many axes")
def without_axes(model, x0, t, eps, cond=None):
    return (model((1 - t) * x0 + t * eps, t, cond) - (eps - x0)).square().flatten(1).mean(1)


@mutant(LOSS, "t got four axes")
def with_four_axes(model, x0, t, eps, cond=None):
    x_t = torch.lerp(x0, eps, t[:, None, None, None])
    return (model(x_t, t, cond) - (eps - x0)).square().flatten(1).mean(1)


@mutant(LOSS, "The loss was weighted with t")
def weighted(model, x0, t, eps, cond=None):
    return t * flow.velocity_loss(model, x0, t, eps, cond)


@mutant(LOSS, "the model was never called")
def without_a_model(model, x0, t, eps, cond=None):
    return (eps - x0).square().flatten(1).mean(1)


@variant(LOSS)
def along_the_velocity(model, x0, t, eps, cond=None):
    u = eps - x0
    x_t = x0 + t.reshape(-1, *[1] * (x0.ndim - 1)) * u
    error = F.mse_loss(model(x_t, t, cond), u, reduction="none")
    return error.mean(dim=tuple(range(1, x0.ndim)))


@variant(LOSS)
def sample_by_sample(model, x0, t, eps, cond=None):
    x_t = torch.stack([torch.lerp(a, b, share) for a, b, share in zip(x0, eps, t, strict=True)])
    predicted = model(x_t, t, cond)
    return torch.stack([((p - (b - a)) ** 2).mean() for p, a, b in zip(predicted, x0, eps, strict=True)])


# The marginal velocity


def noise_of(x_t, t, data):
    return (x_t[:, None] - (1 - t)[:, None, None] * data) / t[:, None, None]


def near(eps):
    return (-eps.square().sum(2) / 2).softmax(1)


def wrong_mean(words, weights=near, eps=noise_of, mean=None):
    """Note a wrong marginal velocity; weights: a function of the noises, (batch, n, d), or of x_t, t and data too."""

    def answer(x_t, t, data):
        noise = eps(x_t, t, data)
        w = weights(noise)
        if mean:
            return mean(w, noise, data)
        return ((w[:, :, None] if w.ndim == 2 else w) * (noise - data)).sum(1)

    wrong(MARGINAL, words, answer)


def as_in(of):
    """An answer whose noises are right, and whose weights come from others, of (x_t, t, data)."""
    return lambda x_t, t, data: (near(of(x_t, t, data))[:, :, None] * (noise_of(x_t, t, data) - data)).sum(1)


wrong_mean("The sign is wrong: the velocity", mean=lambda w, eps, data: (w[:, :, None] * (data - eps)).sum(1))
wrong_mean("The half is missing in the weights", lambda eps: (-eps.square().sum(2)).softmax(1))
wrong_mean("The sign in the softmax is wrong", lambda eps: (eps.square().sum(2) / 2).softmax(1))
wrong_mean("The length of the noise was not squared", lambda eps: (-eps.norm(dim=2) / 2).softmax(1))
wrong_mean("In the weights stands the mean over d", lambda eps: (-eps.square().mean(2) / 2).softmax(1))
wrong_mean("Each coordinate got weights of its own", lambda eps: (-eps.square() / 2).softmax(1))
wrong_mean("The softmax went over the batch", lambda eps: (-eps.square().sum(2) / 2).softmax(0))
wrong_mean("All points counted alike", lambda eps: torch.ones(eps.shape[:2]) / eps.shape[1])
wrong_mean("Only the most probable point counted", lambda eps: F.one_hot(near(eps).argmax(1), eps.shape[1]).float())
wrong_mean("The weights do not add up to 1", lambda eps: (-eps.square().sum(2) / 2).exp())
wrong_mean("softmax subtracts the largest exponent first",
           lambda eps: F.normalize((-eps.square().sum(2) / 2).exp(), p=1, dim=1, eps=0))  # fmt: skip
wrong_mean("the mean of the noises alone", mean=lambda w, eps, data: (w[:, :, None] * eps).sum(1))
wrong_mean("the mean of the points", mean=lambda w, eps, data: w @ data)
wrong_mean("were averaged over the points", mean=lambda w, eps, data: (w[:, :, None] * (eps - data)).mean(1))
wrong_mean("The plain mean of the data was subtracted", mean=lambda w, eps, data: (
    (w[:, :, None] * eps).sum(1) - data.mean(0)))  # fmt: skip
wrong_mean("The noise was not divided by t", eps=lambda x_t, t, data: noise_of(x_t, t, data) * t[:, None, None])
wrong_mean("the factor 1 - t is missing", eps=lambda x_t, t, data: (x_t[:, None] - data) / t[:, None, None])
wrong_mean("t and 1 - t are swapped", eps=lambda x_t, t, data: noise_of(x_t, 1 - t, data))
wrong_mean("All x_t were treated with the time of the first", eps=lambda x_t, t, data: noise_of(x_t, t[:1], data))
wrong(MARGINAL, "stands the distance |x_t", as_in(lambda x_t, t, data: x_t[:, None] - (1 - t)[:, None, None] * data))
wrong(
    MARGINAL, "The weights come from the distance of x_t to the data", as_in(lambda x_t, t, data: x_t[:, None] - data)
)
wrong(MARGINAL, "but in the velocity it was not", lambda x_t, t, data: (
    near(noise_of(x_t, t, data))[:, :, None] * (t[:, None, None] * noise_of(x_t, t, data) - data)).sum(1))  # fmt: skip
wrong(MARGINAL, "of inputs in float64 the velocity has the dtype", lambda x_t, t, data: (
    flow.marginal_velocity(x_t.float(), t.float(), data.float())))  # fmt: skip
wrong(MARGINAL, "of inputs in float64 the velocity has the dtype torch.float32", lambda x_t, t, data: (
    flow.marginal_velocity(x_t, t, data).float()))  # fmt: skip
wrong(MARGINAL, "which is right at t = 1 only", lambda x_t, t, data: x_t - data.mean(0))
wrong(MARGINAL, "Each x_t meets each point", lambda x_t, t, data: noise_of(x_t, t, data) - t * data)


@variant(MARGINAL)
def by_the_mean_of_the_points(x_t, t, data):
    t = t[:, None]
    distance = torch.cdist(x_t[:, None], (1 - t)[:, :, None] * data)[:, 0]  # (batch, n)
    x0 = torch.softmax(-0.5 * (distance / t) ** 2, dim=-1) @ data
    return (x_t - x0) / t


@variant(MARGINAL)
def in_float64(x_t, t, data):
    return flow.marginal_velocity(x_t.double(), t.double(), data.double()).to(x_t.dtype)


@variant(MARGINAL)
def point_by_point(x_t, t, data):
    velocities = []
    for x, time in zip(x_t, t, strict=True):
        eps = torch.stack([(x - (1 - time) * c) / time for c in data])
        exponents = -(eps**2).sum(1) / 2
        weights = (exponents - exponents.max()).exp()
        velocities.append(torch.einsum("n,nd->d", weights / weights.sum(), eps - data))
    return torch.stack(velocities)


# Diffusion as a flow


def wrong_flow(words, t=None, y=None, u=None):
    """Note a wrong triple; each part is a function of (x, eps, signal, noise, x0), None: the right one."""

    def answer(x, eps, alpha_bar):
        signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        facts = (x, eps, signal, noise, (x - noise * eps) / signal)
        return (
            t(*facts) if t else noise / (signal + noise),
            y(*facts) if y else x / (signal + noise),
            u(*facts) if u else eps - facts[-1],
        )

    wrong(FLOW, words, answer)


wrong_flow("The sign of the velocity is wrong", u=lambda x, eps, a, b, x0: x0 - eps)
wrong_flow("This t is the share of the signal", t=lambda x, eps, a, b, x0: a / (a + b))
wrong_flow("t is not divided by the sum of both shares", t=lambda x, eps, a, b, x0: b)
wrong_flow("t is not 1 - ᾱ", t=lambda x, eps, a, b, x0: b**2)
wrong_flow("t was divided by the share of the signal alone", t=lambda x, eps, a, b, x0: b / a)
wrong_flow("y is x itself", y=lambda x, eps, a, b, x0: x * 1)
wrong_flow("y was divided by √ᾱ alone", y=lambda x, eps, a, b, x0: x / a)
wrong_flow("y was multiplied by", y=lambda x, eps, a, b, x0: x * (a + b))
wrong_flow("The velocity here is eps - x.", u=lambda x, eps, a, b, x0: eps - x)
wrong_flow("The velocity here is eps - y", u=lambda x, eps, a, b, x0: eps - x / (a + b))
wrong_flow("x0 was not divided by √ᾱ", u=lambda x, eps, a, b, x0: eps - a * x0)
wrong_flow("In x0 the factor of eps is missing", u=lambda x, eps, a, b, x0: eps - (x - eps) / a)
wrong_flow("x0 was found from y", u=lambda x, eps, a, b, x0: eps - (x / (a + b) - b * eps) / a)
wrong_flow("The velocity was rescaled as well", u=lambda x, eps, a, b, x0: (eps - x0) / (a + b))
wrong_flow("The velocity is not weighted", u=lambda x, eps, a, b, x0: b * eps - a * x0)
wrong_flow("This is v of chapter 06", u=lambda x, eps, a, b, x0: a * eps - b * x0)
wrong_flow("The velocity here is eps itself", u=lambda x, eps, a, b, x0: eps * 1)
wrong_flow("x0 was clipped", u=lambda x, eps, a, b, x0: eps - x0.clamp(-1, 1))
wrong_flow("In x0 the two roots are swapped", u=lambda x, eps, a, b, x0: eps - (x - a * eps) / b)
wrong_flow("t is a tensor with one number, expected a Python", t=lambda x, eps, a, b, x0: torch.tensor(b / (a + b)))
wrong_flow("t is an array with one number", t=lambda x, eps, a, b, x0: np.array(b / (a + b)))
wrong_flow("t has the shape", t=lambda x, eps, a, b, x0: torch.full((len(x),), b / (a + b)))
wrong_flow("y has the dtype torch.float32, expected torch.float64", y=lambda x, eps, a, b, x0: (x / (a + b)).float())
wrong_flow(
    "velocity has the dtype torch.float32, expected torch.float64", u=lambda x, eps, a, b, x0: (eps - x0).float()
)


@mutant(FLOW, "The roots are missing")
def without_roots(x, eps, alpha_bar):
    signal, noise = alpha_bar, 1 - alpha_bar
    return noise / (signal + noise), x / (signal + noise), eps - (x - noise * eps) / signal


@mutant(FLOW, "The two roots are swapped: √ᾱ is the share of the signal")
def roots_swapped(x, eps, alpha_bar):
    noise, signal = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    return noise / (signal + noise), x / (signal + noise), eps - (x - noise * eps) / signal


@mutant(FLOW, "the third of the three is a single number")
def time_last(x, eps, alpha_bar):
    t, y, u = flow.as_flow(x, eps, alpha_bar)
    return y, u, torch.tensor(t)


@mutant(FLOW, "the second of the three is a single number")
def point_first(x, eps, alpha_bar):
    t, y, u = flow.as_flow(x, eps, alpha_bar)
    return y, t, u


@mutant(FLOW, "y and velocity are swapped")
def velocity_second(x, eps, alpha_bar):
    t, y, u = flow.as_flow(x, eps, alpha_bar)
    return t, u, y


@mutant(FLOW, "Return all of them, separated by commas")
def velocity_alone(x, eps, alpha_bar):
    return flow.as_flow(x, eps, alpha_bar)[2]


@mutant(FLOW, "for Python's numbers write math.sqrt(x)", state="error")
def root_of_a_number(x, eps, alpha_bar):
    return alpha_bar.sqrt(), x, eps


@variant(FLOW)
def by_powers(x, eps, alpha_bar):
    a, b = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    y = x / (a + b)
    t = 1 - a / (a + b)
    return t, y, (eps - y) / (1 - t)


@variant(FLOW)
def by_numpy(x, eps, alpha_bar):
    a, b = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    return b / (a + b), x / float(a + b), eps - (x - float(b) * eps) / float(a)


@variant(FLOW)
def by_tensors(x, eps, alpha_bar):
    a = torch.tensor(alpha_bar, dtype=torch.float64)
    signal, noise = a.sqrt(), torch.sqrt(1 - a)
    total = signal + noise
    return (noise / total).item(), (x / total).to(x.dtype), (eps + noise / signal * eps - x / signal).to(x.dtype)


# Sampling


def full(x, t):
    return torch.full((len(x),), float(t))


def wrong_sampling(words, step=None, between=None, pairs=None, state="fail"):
    """Note a wrong sampler.

    step: a function of (u, x, t, s, second) that makes a step, where u(x, t) is the velocity; between: one of the same
    that returns Heun's velocity, the rest being right; pairs: one of the times that returns the steps.
    """

    def answer(model, x_1, times, cond=None, second=False):
        def u(x, t, cond=cond):
            return model(x, full(x, t), cond)

        x = x_1
        for t, s in pairs(times) if pairs else zip(times[:-1], times[1:], strict=True):
            if step:
                x = step(u, x, t, s, second)
            elif second and s > 0:
                x = x + (s - t) * (between(u, x, t, s) if between else (u(x, t) + u(x + (s - t) * u(x, t), s)) / 2)
            else:
                x = x + (s - t) * u(x, t)
        return x

    wrong(SAMPLE, words, torch.no_grad()(answer), state)


def heun(u, x, t, s, last=False, second=True):
    first = u(x, t)
    if second and (s > 0 or last):
        first = (first + u(x + (s - t) * first, s)) / 2
    return x + (s - t) * first


def told(change):
    """A step whose velocities are those of other times, change(time, s)."""
    return lambda u, x, t, s, second: heun(lambda x, time: u(x, change(time, s)), x, t, s, False, second)


wrong_sampling("The steps go the wrong way", lambda u, x, t, s, second: (
    heun(lambda x, time: -u(x, time), x, t, s, False, second)))  # fmt: skip
wrong_sampling("`second` has no effect", lambda u, x, t, s, second: x + (s - t) * u(x, t))
wrong_sampling("Heun's steps were taken without being asked for", lambda u, x, t, s, second: heun(u, x, t, s))
wrong_sampling("went on to the step to 0", lambda u, x, t, s, second: heun(u, x, t, s, True, second))
wrong_sampling("was taken at the old x", between=lambda u, x, t, s: (u(x, t) + u(x, s)) / 2)
wrong_sampling("at the old time t", between=lambda u, x, t, s: (u(x, t) + u(x + (s - t) * u(x, t), t)) / 2)
wrong_sampling("got no cond", between=lambda u, x, t, s: (u(x, t) + u(x + (s - t) * u(x, t), s, None)) / 2)
wrong_sampling("on the wrong side", between=lambda u, x, t, s: (u(x, t) + u(x - (s - t) * u(x, t), s)) / 2)
wrong_sampling("The two velocities were added", between=lambda u, x, t, s: u(x, t) + u(x + (s - t) * u(x, t), s))
wrong_sampling("Only the second velocity was used", between=lambda u, x, t, s: u(x + (s - t) * u(x, t), s))
wrong_sampling("the midpoint method", between=lambda u, x, t, s: u(x + (s - t) / 2 * u(x, t), (s + t) / 2))
wrong_sampling("begins at the old x", between=lambda u, x, t, s: (
    u(x, t) + (u(x, t) + u(x + (s - t) * u(x, t), s)) / 2))  # fmt: skip
wrong_sampling("the time at which the step ends", told(lambda t, s: s))
wrong_sampling("The times are swapped", lambda u, x, t, s, second: x + (s - t) * (
    (u(x, s) + u(x + (s - t) * u(x, s), t)) / 2 if second and s > 0 else u(x, s)))  # fmt: skip
wrong_sampling("nothing is multiplied by 1000 or rounded", told(lambda t, s: 1000 * t))
wrong_sampling("inside the loop", pairs=lambda times: [tuple(times[:2])])
wrong_sampling("The model was told 1 - t", told(lambda t, s: 1 - t))
wrong_sampling("told the time 1 in every step", told(lambda t, s: 1.0))
wrong_sampling("all the way to t = 0", lambda u, x, t, s, second: x - t * u(x, t))
wrong_sampling("The last step is missing", pairs=lambda times: zip(times[:-2], times[1:-1], strict=True))
wrong_sampling("The first step is missing", pairs=lambda times: zip(times[1:-1], times[2:], strict=True))
wrong_sampling("were run through from 0 to 1", pairs=lambda times: zip(times[:0:-1], times[-2::-1], strict=True))
wrong_sampling("evaluated at even times", pairs=lambda times: (
    (1 - i / (len(times) - 1), 1 - (i + 1) / (len(times) - 1)) for i in range(len(times) - 1)))  # fmt: skip
wrong_sampling("came back as it was", lambda u, x, t, s, second: x)
wrong_sampling("A velocity was computed and not used", lambda u, x, t, s, second: heun(u, x, t, s, False, second)
               + 0 * u(x, s))  # fmt: skip


@mutant(SAMPLE, "cond was not handed on")
def without_words(model, x_1, times, cond=None, second=False):
    return flow.sample_flow(model, x_1, times, None, second)


@mutant(SAMPLE, "Every step began at x_1")
@torch.no_grad()
def always_from_the_start(model, x_1, times, cond=None, second=False):
    x = x_1
    for t, s in zip(times[:-1], times[1:], strict=True):
        x = x_1 + heun(lambda x, t: model(x, full(x, t), cond), x, t, s, False, second) - x
    return x


@mutant(SAMPLE, "Every step was 1 / steps long")
@torch.no_grad()
def steps_of_one_length(model, x_1, times, cond=None, second=False):
    x, length = x_1, 1 / (len(times) - 1)
    for t, s in zip(times[:-1], times[1:], strict=True):
        u = model(x, full(x, t), cond)
        if second and s > 0:
            u = (u + model(x - length * u, full(x, s), cond)) / 2
        x = x - length * u
    return x


@mutant(SAMPLE, "was changed in place")
@torch.no_grad()
def into_the_noise(model, x_1, times, cond=None, second=False):
    for t, s in zip(times[:-1], times[1:], strict=True):
        x_1 += (s - t) * model(x_1, full(x_1, t), cond)
    return x_1


def path_of(model, x_1, times, cond, second):
    path = [x_1]
    for t, s in zip(times[:-1], times[1:], strict=True):
        path.append(heun(lambda x, t: model(x, full(x, t), cond), path[-1], t, s, False, second))
    return path


@mutant(SAMPLE, "Return the last x only, as")
@torch.no_grad()
def all_points(model, x_1, times, cond=None, second=False):
    return path_of(model, x_1, times, cond, second)


@mutant(SAMPLE, "All points came back")
@torch.no_grad()
def all_points_in_one(model, x_1, times, cond=None, second=False):
    return torch.stack(path_of(model, x_1, times, cond, second))


@mutant(SAMPLE, "a tensor t of shape (3,), got float", state="error")
def time_as_a_number(model, x_1, times, cond=None, second=False):
    return x_1 - model(x_1, times[0], cond)


@mutant(SAMPLE, "still records gradients")
def with_gradients(model, x_1, times, cond=None, second=False):
    x = x_1
    for t, s in zip(times[:-1], times[1:], strict=True):
        x = heun(lambda x, t: model(x, full(x, t), cond), x, t, s, False, second)
    return x


@variant(SAMPLE)
@torch.no_grad()
def with_an_index(model, x_1, times, cond=None, second=False):
    x, ones = x_1.clone(), torch.ones(len(x_1))
    for i in range(len(times) - 1):
        length = times[i] - times[i + 1]
        slope = model(x, times[i] * ones, cond)
        ahead = x - length * slope
        if second and i + 2 < len(times):
            ahead = x - length / 2 * (slope + model(ahead, times[i + 1] * ones, cond))
        x = ahead
    return x


@variant(SAMPLE)
@torch.no_grad()
def two_samplers(model, x_1, times, cond=None, second=False):
    def at(x, t):
        return model(x, torch.tensor([t] * len(x)), cond)

    x, *rest = x_1, *times
    now = rest.pop(0)
    while rest:
        after = rest.pop(0)
        u = at(x, now)
        if second and after != 0:
            predicted = x + (after - now) * u
            x = (x + predicted + (after - now) * at(predicted, after)) / 2
        else:
            x = x + (after - now) * u
        now = after
    return x


# Curvature


def wrong_curve(words, off=None, weights=None, whole=None, end=None, steps=slice(None)):
    """Note a wrong curvature; off: of (u, straight, way, x_1), weights: of lengths, whole: of straight; end: S."""

    def answer(path, times):
        x, t = torch.stack(path), torch.tensor(times)
        way, length = (x[:-1] - x[1:])[steps], (t[:-1] - t[1:])[steps, None]
        straight, u = x[0] - x[-1], way / length[:, :, None]
        away = off(u, straight, way, x[0]) if off else (u - straight).square().sum(2)
        below = whole(straight) if whole else straight.square().sum(1)
        curved = ((weights(length) if weights else length) * away).sum(0) / below
        return end(curved) if end else curved

    wrong(CURVED, words, answer)


wrong_curve("The steps were added up without weights", weights=torch.ones_like)
wrong_curve("All steps counted alike", weights=lambda length: torch.ones_like(length) / len(length))
wrong_curve("was compared with the whole way", lambda u, straight, way, x_1: (way - straight).square().sum(2))
wrong_curve(
    "was compared with the whole way. The velocity", lambda u, straight, way, x_1: (-way - straight).square().sum(2)
)
wrong_curve("and not divided by t - t_next", weights=torch.square)
wrong_curve("Each coordinate was divided by its own", lambda u, straight, way, x_1: (
    ((u - straight) / straight).square().sum(2)), whole=lambda straight: 1.0)  # fmt: skip
wrong_curve("Every step was taken to be 1 / steps long", lambda u, straight, way, x_1: (
    (way * len(way) - straight).square().sum(2)),
    weights=lambda length: torch.ones_like(length) / len(length))  # fmt: skip
wrong_curve("point in opposite ways", lambda u, straight, way, x_1: (-u - straight).square().sum(2))
wrong_curve("The weights are negative", weights=lambda length: -length)
wrong_curve("The length of the difference was not squared", lambda u, straight, way, x_1: (u - straight).norm(dim=2))
wrong_curve("Lengths are compared here", lambda u, straight, way, x_1: (u - straight).norm(dim=2),
            whole=lambda straight: straight.norm(dim=1))  # fmt: skip
wrong_curve("It was not divided by |x_1 - x_0|²", whole=lambda straight: 1.0)
wrong_curve("The square is needed below as well", whole=lambda straight: straight.norm(dim=1))
wrong_curve("One length was taken for all paths", whole=lambda straight: straight.square().sum())
wrong_curve("Above stands a mean over d", lambda u, straight, way, x_1: (u - straight).square().mean(2))
wrong_curve("The velocity was compared with x_1", lambda u, straight, way, x_1: (u - x_1).square().sum(2))
wrong_curve("with that of the first step", lambda u, straight, way, x_1: (u - u[0]).square().sum(2))
wrong_curve("One number for all paths is left", end=lambda curved: curved.mean())
wrong_curve("A root was taken", end=lambda curved: curved.sqrt())
wrong_curve("The straight line was not subtracted", lambda u, straight, way, x_1: u.square().sum(2))
wrong_curve("The last step is missing", steps=slice(0, -1))
wrong_curve("The first step is missing", steps=slice(1, None))


@mutant(CURVED, "This is how much longer the path is")
def longer(path, times):
    length = sum((a - b).norm(dim=1) for a, b in zip(path[:-1], path[1:], strict=True))
    return length / (path[0] - path[-1]).norm(dim=1) - 1


@mutant(CURVED, "pop, append, sort, update")
def writes_into_the_times(path, times):
    straight, total = path[0] - path[-1], 0.0
    for before, after in zip(path[:-1], path[1:], strict=True):
        t = times.pop(0)
        total = total + (t - times[0]) * ((before - after) / (t - times[0]) - straight).square().sum(1)
    return total / straight.square().sum(1)


@mutant(CURVED, "`path[0] += ...` and `path[0][...] = ...` write into")
def writes_into_the_path(path, times):
    path[0] -= path[-1]
    return flow.curvature(path, times)


@mutant(CURVED, "the dtype torch.float64, expected torch.float32")
def paths_in_float64(path, times):
    return flow.curvature([x.double() for x in path], times)


@mutant(CURVED, "is straight itself")
def of_one_step_it_divides(path, times):
    return flow.curvature(path, times) if len(times) > 2 else torch.ones(3)


@variant(CURVED)
def by_the_mean_speed(path, times):
    x, t = torch.stack(path).double(), torch.tensor(times).double()
    way, length = x.diff(dim=0), t.diff()[:, None]
    speed = (way.square().sum(2) / -length).sum(0)
    return (speed / (x[0] - x[-1]).square().sum(1) - 1).float()


@variant(CURVED)
def relative_velocities(path, times):
    chord = path[0] - path[-1]
    parts = []
    for i in range(len(times) - 1):
        gap = times[i] - times[i + 1]
        off = (path[i] - path[i + 1]) / gap - chord
        parts.append(gap * torch.linalg.vector_norm(off, dim=1) ** 2 / torch.linalg.vector_norm(chord, dim=1) ** 2)
    return torch.stack(parts).sum(0)


# Times

DOUBLE = {"dtype": torch.float64}


def shifted(t, shift):
    return shift * t / (1 + (shift - 1) * t)


def wrong_times(
    words, move=shifted, first=1, last=lambda steps: 1 / steps, end=lambda t: [t, torch.zeros(1, **DOUBLE)]
):
    """Note wrong times; move: of (t, shift), last: of steps, end: what is put in one tensor."""
    wrong(TIMES, words, lambda steps, shift=1.0: torch.cat(
        end(move(torch.linspace(first, last(steps), steps, **DOUBLE), shift))))  # fmt: skip


wrong_times("The times are not shifted", lambda t, shift: t)
wrong_times("The 0 at the end is missing", end=lambda t: [t])
wrong_times("so that 0 comes twice", last=lambda steps: 0)
wrong_times("and so one step less", last=lambda steps: 0, end=lambda t: [t])
wrong_times("The first time is missing", lambda t, shift: shifted(t - 1 / len(t), shift))
wrong_times("The shift goes the wrong way", lambda t, shift: t / (t + shift * (1 - t)))
wrong_times("The root of shift was taken", lambda t, shift: shifted(t, math.sqrt(shift)))
wrong_times("shift was squared", lambda t, shift: shifted(t, shift**2))
wrong_times("exp(shift) was taken", lambda t, shift: math.exp(shift) / (math.exp(shift) + 1 / t - 1))
wrong_times("The denominator is missing", lambda t, shift: shift * t)
wrong_times("Times were cut off at 1", lambda t, shift: (shift * t).clamp(max=1))
wrong_times("In the denominator stands shift t", lambda t, shift: shift * t / (1 + shift * t))
wrong_times("t was raised to a power", lambda t, shift: t**shift)
wrong_times("The times rise", end=lambda t: [torch.zeros(1, **DOUBLE), t.flip(0)])
wrong_times("The 0 stands in front", end=lambda t: [torch.zeros(1, **DOUBLE), t])
wrong_times("the brackets are missing", lambda t, shift: shift * t / (1 + shift - 1 * t))
wrong_times("In the denominator stands 1 - shift", lambda t, shift: shift * t / (1 + (1 - shift) * t))
wrong_times("were divided by steps + 1", lambda t, shift: shifted(t * len(t) / (len(t) + 1), shift))
wrong_times("The times run up to 1000", lambda t, shift: 1000 * shifted(t, shift))
wrong_times("the times have the dtype torch.float32", end=lambda t: [t.float(), torch.zeros(1)])
wrong_times("right as far as float32 goes", end=lambda t: [t.float().double(), torch.zeros(1, **DOUBLE)])
wrong_times("right as far as float32 goes:", lambda t, shift: shift * t / (1 + (shift - 1) * t.float()).double())
wrong_times("With shift = 1 the number shift - 1 is 0",
            lambda t, shift: shift / (shift - 1) * (1 - 1 / (1 + (shift - 1) * t)))  # fmt: skip
wrong_times("expected the even times. With shift = 1 the number shift - 1 is 0", lambda t, shift: (
    shift * (1 - 1 / (1 + (shift - 1) * t)) / torch.tensor(shift - 1, **DOUBLE)))  # fmt: skip


@mutant(TIMES, "There is one time too many: `steps` even ones")
def one_more(steps, shift=1.0):
    return torch.cat([shifted(torch.linspace(1, 1 / steps, steps + 1, **DOUBLE), shift), torch.zeros(1, **DOUBLE)])


@mutant(TIMES, "With steps = 1 the number steps - 1 is 0")
def to_the_end_with_steps(steps, shift=1.0):
    return torch.tensor([shifted(1 - k / (steps - 1), shift) for k in range(steps)] + [0.0], **DOUBLE)


@mutant(TIMES, "arange with a step")
def by_fractions(steps, shift=1.0):
    return torch.cat([shifted(torch.arange(1, 0, -1 / steps, **DOUBLE), shift), torch.zeros(1, **DOUBLE)])


@mutant(TIMES, "arange with a step such as -1 / steps")
def by_fractions_to_the_end(steps, shift=1.0):
    return shifted(torch.arange(1, -1 / steps, -1 / steps, **DOUBLE), shift)


@mutant(TIMES, "as in the library's scheduler left to itself")
def times_of_the_library(steps, shift=1.0):
    return flow.flow_times(steps, shift, shifted(0.001, shift))


@variant(TIMES)
def all_even_times(steps, shift=1.0):
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return shift * t / (1 + (shift - 1) * t)


@variant(TIMES)
def by_odds(steps, shift=1.0):
    t = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    return torch.cat((shift / (shift + 1 / t - 1), t.new_zeros(1)))


@variant(TIMES)
def as_a_list(steps, shift=1.0):
    even = [1 - k / steps for k in range(steps)]
    return torch.tensor([shift * t / (1 + (shift - 1) * t) for t in even] + [0.0], dtype=torch.float64)


# Patches


def cut(x, size):
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // size, size, width // size, size)


def wrong_patches(words, *axes):
    wrong(PATCHES, words, lambda x, size: cut(x, size).permute(axes).reshape(len(x), -1, x.shape[1] * size**2))


wrong_patches("The patches go column by column", 0, 4, 2, 1, 3, 5)
wrong_patches("Within a patch the numbers go column by column", 0, 2, 4, 1, 5, 3)
wrong_patches("is the image transposed?", 0, 4, 2, 1, 5, 3)
wrong_patches("The channels are innermost", 0, 2, 4, 3, 5, 1)
wrong_patches("The channels come before the patches", 0, 1, 2, 4, 3, 5)
wrong_patches("Strips of the image were taken", 0, 2, 3, 1, 4, 5)
wrong_patches("a reshape alone cuts no patches", 0, 1, 2, 3, 4, 5)
wrong(PATCHES, "The vectors are columns", lambda x, size: F.unfold(x, size, stride=size))
wrong(PATCHES, "still two axes", lambda x, size: cut(x, size).permute(0, 2, 4, 1, 3, 5).flatten(3))
wrong(PATCHES, "The vectors are not flat yet", lambda x, size: cut(x, size).permute(0, 2, 4, 1, 3, 5).flatten(1, 2))


@mutant(PATCHES, "pixels from all over the image")
def every_other_pixel(x, size):
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, size, height // size, size, width // size)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, channels * size**2)


@mutant(PATCHES, "Height and width are swapped in the reshape")
def sides_swapped(x, size):
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, width // size, size, height // size, size)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * size**2)


@variant(PATCHES)
def by_unfold(x, size):
    return F.unfold(x, size, stride=size).mT


@variant(PATCHES)
def patch_by_patch(x, size):
    rows, columns = x.shape[2] // size, x.shape[3] // size
    patches = [
        x[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size].flatten(1)
        for i in range(rows)
        for j in range(columns)
    ]
    return torch.stack(patches, 1)


@variant(PATCHES)
def by_unshuffle(x, size):
    return F.pixel_unshuffle(x, size).flatten(2).transpose(1, 2)


# A half block


def norm(x, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def wrong_half(words, out=None, norm=norm, made=None, order=(0, 1, 2), parts=None, state="fail"):
    """Note a wrong half block.

    out: of (x, normed, shift, scale, gate, f); made: of (c, linear); order: of the three vectors; parts: cuts them.
    """

    def answer(x, c, linear, f):
        vectors = made(c, linear) if made else linear(F.silu(c))
        three = parts(vectors) if parts else vectors.chunk(3, dim=1)
        shift, scale, gate = (three[place][:, None] for place in order)
        if out:
            return out(x, norm(x), shift, scale, gate, f)
        return x + gate * f(norm(x) * (1 + scale) + shift)

    wrong(HALF, words, answer, state)


wrong_half("Scaled by scale alone", lambda x, n, shift, scale, gate, f: x + gate * f(n * scale + shift))
wrong_half("The gate is missing", lambda x, n, shift, scale, gate, f: x + f(n * (1 + scale) + shift))
wrong_half(
    "The gate has no 1 before it", lambda x, n, shift, scale, gate, f: x + (1 + gate) * f(n * (1 + scale) + shift)
)
wrong_half("The gate was applied to x", lambda x, n, shift, scale, gate, f: gate * x + f(n * (1 + scale) + shift))
wrong_half("x itself is missing", lambda x, n, shift, scale, gate, f: gate * f(n * (1 + scale) + shift))
wrong_half("added to the steered tokens", lambda x, n, shift, scale, gate, f: (
    n * (1 + scale) + shift + gate * f(n * (1 + scale) + shift)))  # fmt: skip
wrong_half("added to the normalised tokens", lambda x, n, shift, scale, gate, f: n + gate * f(n * (1 + scale) + shift))
wrong_half("The gate comes before f", lambda x, n, shift, scale, gate, f: x + f(gate * (n * (1 + scale) + shift)))
wrong_half("SiLU is missing", made=lambda c, linear: linear(c))
wrong_half("SiLU comes after linear", made=lambda c, linear: F.silu(linear(c)))
wrong_half("A sigmoid was taken", made=lambda c, linear: linear(c.sigmoid()))
wrong_half("ReLU was taken", made=lambda c, linear: linear(c.relu()))
wrong_half("The order of the three vectors", order=(1, 0, 2))
wrong_half("The order of the three vectors is another one", order=(2, 0, 1))
wrong_half("Every third number was taken", parts=lambda made: made.unflatten(1, (-1, 3)).unbind(2))
wrong_half("x was not normalised", norm=lambda x: x)
wrong_half("The norm comes after scale and shift", lambda x, n, shift, scale, gate, f: (
    x + gate * f(norm(x * (1 + scale) + shift))))  # fmt: skip
wrong_half("The shift was scaled, too", lambda x, n, shift, scale, gate, f: x + gate * f((n + shift) * (1 + scale)))
wrong_half("F.layer_norm's default", norm=lambda x: F.layer_norm(x, x.shape[-1:]))
wrong_half("The eps of the norm is missing", norm=lambda x: norm(x, 0))
wrong_half("The eps was added to the deviation", norm=lambda x: (
    (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True).sqrt() + 1e-6)))  # fmt: skip
wrong_half("The variance was divided by width - 1", norm=lambda x: (
    (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()))  # fmt: skip
wrong_half("The deviation was taken by std", norm=lambda x: (
    (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)))  # fmt: skip
wrong_half(
    "The norm goes over more than one token, or across tokens", norm=lambda x: F.layer_norm(x, x.shape, eps=1e-6)
)
wrong_half("Scale and shift come after f", lambda x, n, shift, scale, gate, f: x + gate * (f(n) * (1 + scale) + shift))
wrong_half("The bias of `linear` is missing", made=lambda c, linear: F.linear(F.silu(c), linear.weight))
wrong_half("GELU was taken", made=lambda c, linear: linear(F.gelu(c)))
wrong_half("The gate went through a sigmoid", lambda x, n, shift, scale, gate, f: (
    x + gate.sigmoid() * f(n * (1 + scale) + shift)))  # fmt: skip
wrong_half("f got each token alone", lambda x, n, shift, scale, gate, f: (
    x + gate * torch.cat([f(token) for token in (n * (1 + scale) + shift).split(1, dim=1)], 1)))  # fmt: skip
wrong_half("this is RMSNorm", norm=lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-6))
wrong_half("The norm goes over more than one token", norm=lambda x: F.layer_norm(x, x.shape[1:], eps=1e-6))
wrong_half("The norm goes over more than one token, or across", norm=lambda x: norm(x.mT).mT)
wrong_half("but not steered", lambda x, n, shift, scale, gate, f: x + gate * f(n))
wrong_half("f got x as it came in", lambda x, n, shift, scale, gate, f: x + gate * f(x))
wrong_half("f was not called", lambda x, n, shift, scale, gate, f: n * (1 + scale) + shift)
wrong_half("no gradient comes back to c", made=lambda c, linear: linear(F.silu(c.detach())))


@mutant(HALF, "chunk cuts along axis 0")
def chunk_of_the_batch(x, c, linear, f):
    shift, scale, gate = linear(F.silu(c)).chunk(3)
    return x + gate * f(norm(x) * (1 + scale) + shift)


@mutant(HALF, "gives them an axis for the tokens")
def without_an_axis_for_tokens(x, c, linear, f):
    shift, scale, gate = linear(F.silu(c)).chunk(3, dim=-1)
    return x + gate * f(norm(x) * (1 + scale) + shift)


@variant(HALF)
def token_by_token(x, c, linear, f):
    width = x.shape[2]
    made = linear(c * torch.sigmoid(c))
    shift, scale, gate = made[:, :width], made[:, width : 2 * width], made[:, 2 * width :]
    steered = torch.stack([norm(x[:, i]) * (1 + scale) + shift for i in range(x.shape[1])], 1)
    return x + torch.einsum("bw,btw->btw", gate, f(steered))


@variant(HALF)
def by_a_module(x, c, linear, f):
    layer = torch.nn.LayerNorm(x.shape[2], eps=1e-6, elementwise_affine=False)
    three = linear(F.silu(c)).unflatten(1, (3, 1, -1))  # (batch, 3, 1, width)
    n = layer(x)
    return torch.addcmul(x, three[:, 2], f(n + n * three[:, 1] + three[:, 0]))


# Joint attention


def attend(q, k, v, **options):
    return F.scaled_dot_product_attention(q, k, v, **options)


def together(image, words):
    return [torch.cat(pair, dim=2) for pair in zip(image, words, strict=True)]


def wrong_joint(words, of=None, out=None):
    """Note a wrong pair; of: of (image, words), the triples; out: of (q, k, v) of all tokens."""

    def answer(image, words):
        if of:
            return of(image, words)
        left = out(*together(image, words))
        return left[:, :, : image[0].shape[2]], left[:, :, image[0].shape[2] :]

    wrong(JOINT, words, answer)


def right_pair(image, words):
    out, patches = attend(*together(image, words)), image[0].shape[2]
    return out[:, :, :patches], out[:, :, patches:]


def words_in_front(image, words):
    out, patches = attend(*together(words, image)), image[0].shape[2]
    return out[:, :, :patches], out[:, :, patches:]


def cut_after_the_words(image, words):
    out, count = attend(*together(image, words)), words[0].shape[2]
    return out[:, :, :count], out[:, :, count:]


def over_the_queries(q, k, v):
    return (q @ k.mT / math.sqrt(q.shape[3])).softmax(2) @ v


def scores(q, k):
    return q @ k.mT / math.sqrt(q.shape[3])


def over_heads(q, k, v):
    return attend(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


wrong_joint("Each stream attended to itself alone", lambda a, b: (attend(*a), attend(*b)))
wrong_joint("to the other one alone", lambda a, b: (attend(a[0], *b[1:]), attend(b[0], *a[1:])))
wrong_joint("The words attended to words alone", lambda a, b: (right_pair(a, b)[0], attend(*b)))
wrong_joint("The patches attended to patches alone", lambda a, b: (attend(*a), right_pair(a, b)[1]))
wrong_joint("The words came back as they were", lambda a, b: (right_pair(a, b)[0], b[2]))
wrong_joint("This is cross-attention", lambda a, b: (attend(a[0], *b[1:]), attend(*b)))
wrong_joint("Two attentions were averaged", lambda a, b: (
    (attend(*a) + attend(a[0], *b[1:])) / 2, (attend(*b) + attend(b[0], *a[1:])) / 2))  # fmt: skip
wrong_joint("Two attentions were added up", lambda a, b: (
    attend(*a) + attend(a[0], *b[1:]), attend(*b) + attend(b[0], *a[1:])))  # fmt: skip
wrong_joint("patches first, then words", lambda a, b: right_pair(a, b)[::-1])
wrong_joint("The words came first in the sequence", words_in_front)
wrong_joint("after as many tokens as there are words", cut_after_the_words)
wrong_joint("The scores are not divided by √d", out=lambda q, k, v: attend(q, k, v, scale=1.0))
wrong_joint("The scores were divided by d", out=lambda q, k, v: attend(q, k, v, scale=1 / q.shape[3]))
wrong_joint("by the root of the whole width", out=lambda q, k, v: attend(
    q, k, v, scale=(q.shape[1] * q.shape[3]) ** -0.5))  # fmt: skip
wrong_joint("The softmax went over the queries", out=over_the_queries)
wrong_joint("The softmax went over the heads", out=lambda q, k, v: scores(q, k).softmax(1) @ v)
wrong_joint("The softmax went over the batch", out=lambda q, k, v: scores(q, k).softmax(0) @ v)
wrong_joint("by the root of the number of tokens", out=lambda q, k, v: attend(q, k, v, scale=q.shape[2] ** -0.5))
wrong_joint("exp(...) of a large score is infinite", out=lambda q, k, v: scores(q, k).exp() @ v
            / scores(q, k).exp().sum(-1, keepdim=True))  # fmt: skip
wrong_joint("The sequence was cut along the heads", lambda a, b: (
    attend(*together(a, b))[:, : a[0].shape[2]], attend(*together(a, b))[:, a[0].shape[2] :]))  # fmt: skip
wrong_joint("The sequence was cut into two halves", lambda a, b: attend(*together(a, b)).chunk(2, 2))
wrong_joint("whose last two axes change places", out=lambda q, k, v: (q @ k.permute(3, 2, 1, 0)).softmax(-1) @ v)
wrong_joint("whose last two axes change places:", out=lambda q, k, v: (q @ k.transpose(1, 2)).softmax(-1) @ v)
wrong_joint("whose last two axes change places: q @", out=lambda q, k, v: (q @ k).softmax(-1) @ v)
wrong_joint("`image[0] += ...` and `image[0][...] = ...`", lambda a, b: right_pair((a[0].div_(2), *a[1:]), b))
wrong_joint("Queries and keys are swapped", out=lambda q, k, v: attend(k, q, v))
wrong_joint("Keys and values are swapped", out=lambda q, k, v: attend(q, v, k))
wrong_joint("Nothing is hidden here", out=lambda q, k, v: attend(q, k, v, is_causal=True))
wrong_joint("The heads of each token attended to one another", out=over_heads)
wrong_joint("The heads were joined", lambda a, b: tuple(x.transpose(1, 2).flatten(2) for x in right_pair(a, b)))
wrong_joint("Heads and tokens have changed places", lambda a, b: tuple(x.transpose(1, 2) for x in right_pair(a, b)))
wrong_joint("The sequence was not split again", lambda a, b: attend(*together(a, b)))
wrong_joint("Return all of them, separated by commas", lambda a, b: right_pair(a, b)[0])
wrong_joint("in one sequence along the axis of the tokens", lambda a, b: attend(
    *(torch.cat(pair, dim=1) for pair in zip(a, b, strict=True))))  # fmt: skip
wrong_joint("in one sequence along the axis of the tokens:", lambda a, b: attend(
    *(torch.stack(pair, dim=2).flatten(2, 3) for pair in zip(a, b, strict=True))))  # fmt: skip
wrong_joint("cannot be added up. They", lambda a, b: scores(*a[:2]) + scores(a[0], b[1]))
wrong_joint("cannot be added up", lambda a, b: attend(*(x + y for x, y in zip(a, b, strict=True))))
wrong_joint("has no way back", lambda a, b: tuple(x.detach() for x in right_pair(a, b)))


@variant(JOINT)
def words_first(image, words):
    q, k, v = together(words, image)
    weights = torch.softmax(torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.shape[-1]), dim=-1)
    read, seen = (weights @ v).split([words[0].shape[2], image[0].shape[2]], dim=2)
    return seen, read


@variant(JOINT)
def each_query_alone(image, words):
    _, k, v = together(image, words)
    return attend(image[0], k, v), attend(words[0], k, v)


# The velocity that lands


def shares(alpha_bar, x):
    return expand_like(alpha_bar.sqrt(), x), expand_like((1 - alpha_bar).sqrt(), x)


def rootless(alpha_bar, x):
    return expand_like(alpha_bar, x), expand_like(1 - alpha_bar, x)


def solved(x_t, x_s, alpha_bar_t, alpha_bar_s, shares=shares):
    (a, b), (c, d) = shares(alpha_bar_t, x_t), shares(alpha_bar_s, x_t)
    area = c * b - a * d
    return (b * x_s - d * x_t) / area, (c * x_t - a * x_s) / area, a, b, c, d


def wrong_landing(words, of, change=lambda *inputs: inputs):
    """Note a wrong v; of: of (x0, eps, a, b, c, d), change: of the inputs from which these are found."""
    wrong(LANDING, words, lambda x_t, x_s, alpha_bar_t, alpha_bar_s: of(
        *solved(*change(x_t, x_s, alpha_bar_t, alpha_bar_s))))  # fmt: skip


def v_of(x0, eps, a, b, *rest):
    return a * eps - b * x0


def area_of(a, b, c, d):
    return c * b - a * d


wrong_landing("This is the noise eps", lambda x0, eps, a, b, c, d: eps)
wrong_landing("This is the clean x0", lambda x0, eps, a, b, c, d: x0)
wrong_landing("All signs are the other way round", lambda x0, eps, a, b, c, d: b * x0 - a * eps)
wrong_landing("The factors in v are swapped", lambda x0, eps, a, b, c, d: b * eps - a * x0)
wrong_landing("In v there is a plus", lambda x0, eps, a, b, c, d: a * eps + b * x0)
wrong_landing("This is v where the step lands", lambda x0, eps, a, b, c, d: c * eps - d * x0)
wrong_landing("This is the velocity of the straight line", lambda x0, eps, a, b, c, d: eps - x0)
wrong_landing("The roots are missing in v", lambda x0, eps, a, b, c, d: a**2 * eps - b**2 * x0)
wrong_landing(
    "were not divided by the determinant", lambda x0, eps, a, b, c, d: v_of(x0, eps, a, b) * area_of(a, b, c, d)
)
wrong_landing("The determinant has a minus", lambda x0, eps, a, b, c, d: (
    v_of(x0, eps, a, b) * area_of(a, b, c, d) / (c * b + a * d)))  # fmt: skip
wrong_landing("The determinant has a minus: √ᾱ_next", lambda x0, eps, a, b, c, d: (
    -v_of(x0, eps, a, b) * area_of(a, b, c, d) / (c * b + a * d)))  # fmt: skip
wrong_landing("All samples got the levels of the first", v_of, lambda x, y, a, c: (
    x, y, a[:1].expand_as(a), c[:1].expand_as(c)))  # fmt: skip


def with_right_shares(words, change):
    """Note a wrong v for which x0 and eps are found from changed inputs, and v is made with the right shares."""

    def answer(x_t, x_s, alpha_bar_t, alpha_bar_s):
        x0, eps, *_ = solved(*change(x_t, x_s, alpha_bar_t, alpha_bar_s))
        return v_of(x0, eps, *shares(alpha_bar_t, x_t))

    wrong(LANDING, words, answer)


with_right_shares("The roots are missing in the two equations", lambda *inputs: (*inputs, rootless))
with_right_shares("x_t and x_s, or their levels, are swapped", lambda x, y, a, c: (y, x, a, c))
with_right_shares("or their levels, are swapped", lambda x, y, a, c: (x, y, c, a))
with_right_shares("All samples were solved with the levels of the first", lambda x, y, a, c: (
    x, y, a[:1].expand_as(a), c[:1].expand_as(c)))  # fmt: skip
wrong_landing("The roots are missing everywhere", v_of, lambda *inputs: (*inputs, rootless))


def direct(x, y, a, b, c, d):
    """The equation of one step, solved for v."""
    return (y - (c * a + d * b) * x) / (d * a - c * b)


def by_shares(words, of):
    """Note a wrong v that is made of both points and their shares."""
    wrong(LANDING, words, lambda x_t, x_s, alpha_bar_t, alpha_bar_s: of(
        x_t, x_s, *shares(alpha_bar_t, x_t), *shares(alpha_bar_s, x_t)))  # fmt: skip


by_shares("x_s was taken for the clean x0", lambda x, y, a, b, c, d: v_of(y, (x - a * y) / b, a, b))
by_shares("x_s, divided by √ᾱ_next, was taken", lambda x, y, a, b, c, d: (a * x - y / c) / b)
by_shares("x_s, divided by √ᾱ_next, was taken for", lambda x, y, a, b, c, d: (
    a * (c * x - a * y) / area_of(a, b, c, d) - b * y / c))  # fmt: skip
by_shares("This is the way from x_t to x_s", lambda x, y, a, b, c, d: y - x)
by_shares("x_t has a wrong factor", lambda x, y, a, b, c, d: (y - (c * a - d * b) * x) / (d * a - c * b))
by_shares("All signs are the other way round. Are", lambda x, y, a, b, c, d: direct(x, y, a, b, c, d) * -1)
by_shares("All signs are the other way round. Are both levels", lambda x, y, a, b, c, d: direct(x, y, c, d, a, b))
by_shares("x_t was taken for the noise", lambda x, y, a, b, c, d: v_of((b * y - d * x) / area_of(a, b, c, d), x, a, b))
by_shares("divided by that of their shares of noise", lambda x, y, a, b, c, d: (x - y) / (b - d))
by_shares("This is the way from x_s to x_t", lambda x, y, a, b, c, d: x - y)
by_shares("x_t lacks a factor", lambda x, y, a, b, c, d: (x - y) / area_of(a, b, c, d))


@mutant(LANDING, "v is NaN or infinite where alpha_bar_s is 1")
def eps_from_the_end(x_t, x_s, alpha_bar_t, alpha_bar_s):
    x0, _, a, b, c, d = solved(x_t, x_s, alpha_bar_t, alpha_bar_s)
    return v_of(x0, (x_s - c * x0) / d, a, b)


@mutant(LANDING, "x_s was taken for the clean x0. It has noise of its own")
def end_for_x0(x_t, x_s, alpha_bar_t, alpha_bar_s):
    _, eps, a, b, *_ = solved(x_t, x_s, alpha_bar_t, alpha_bar_s)
    return v_of(x_s, eps, a, b)


@mutant(LANDING, "The roots are missing everywhere: √ᾱ")
def without_roots_at_once(x_t, x_s, alpha_bar_t, alpha_bar_s):
    return direct(x_t, x_s, *rootless(alpha_bar_t, x_t), *rootless(alpha_bar_s, x_t))


@mutant(LANDING, "The levels got four axes")
def with_four_axes_for_levels(x_t, x_s, alpha_bar_t, alpha_bar_s):
    A, C = alpha_bar_t[:, None, None, None], alpha_bar_s[:, None, None, None]
    return direct(x_t, x_s, A.sqrt(), (1 - A).sqrt(), C.sqrt(), (1 - C).sqrt())


@mutant(LANDING, "The levels have one number for each sample")
def levels_without_axes(x_t, x_s, alpha_bar_t, alpha_bar_s):
    a, b, c, d = alpha_bar_t.sqrt(), (1 - alpha_bar_t).sqrt(), alpha_bar_s.sqrt(), (1 - alpha_bar_s).sqrt()
    return ((a * c + b * d) * x_t - x_s) / area_of(a, b, c, d)


@variant(LANDING)
def by_angles(x_t, x_s, alpha_bar_t, alpha_bar_s):
    delta = expand_like(alpha_bar_t.sqrt().acos() - alpha_bar_s.sqrt().acos(), x_t)
    return (delta.cos() * x_t - x_s) / delta.sin()


@variant(LANDING)
def by_linear_algebra(x_t, x_s, alpha_bar_t, alpha_bar_s):
    results = []
    for x, y, level, other in zip(x_t, x_s, alpha_bar_t, alpha_bar_s, strict=True):
        matrix = torch.stack([torch.stack([n.sqrt(), (1 - n).sqrt()]) for n in (level, other)])
        x0, eps = torch.linalg.solve(matrix, torch.stack([x.flatten(), y.flatten()]))
        results.append((level.sqrt() * eps - (1 - level).sqrt() * x0).reshape(x.shape))
    return torch.stack(results)


@variant(LANDING)
def x0_first(x_t, x_s, alpha_bar_t, alpha_bar_s):
    (a, b), (c, d) = shares(alpha_bar_t, x_t), shares(alpha_bar_s, x_t)
    x0 = (x_s - d / b * x_t) / (c - d / b * a)
    eps = (x_t - a * x0) / b
    return a * eps - b * x0
