"""What the exercises of chapter 14 give with common mistakes, and what their oracles measure with.

Each `..._mistakes` returns the right value and pairs (value that a mistake gives, sentence that names it), for `close`
or for `close_in_each`, where values are tuples of all results.
"""

import itertools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from course_utils.exercises.oracles import NUMBERS, Wrong, largest_error, require
from course_utils.exercises.settings import called_as


def beside(values, x):
    """One number for each sample, with the axes of x."""
    return values.to(x).reshape(-1, *[1] * (x.ndim - 1))


class Velocity(nn.Module):
    """A small network of velocities that counts its calls; its output bends with x_t, and depends on t and cond."""

    def __init__(self, case):
        super().__init__()
        self.weight = nn.Parameter(case.uniform(1.2, 1.8))
        self.calls, self.latest = 0, 0.0

    def answer(self, x_t, t, cond=None):
        t = beside(t, x_t)
        told = 0 if cond is None else beside(cond.to(x_t) @ torch.tensor([0.5, -1.0, 0.8]).to(x_t), x_t)
        return self.weight * torch.sin(1.5 * x_t + t) + (0.5 + t).square() * x_t + (1 + t) * told

    def forward(self, x_t, t=None, cond=None):
        if not isinstance(t, torch.Tensor) or t.shape != x_t.shape[:1]:
            wanted = tuple(x_t.shape[:1])
            if isinstance(t, torch.Tensor):
                raise ValueError(f"the model expects one time for each sample, a tensor t of shape {wanted}, got the "
                                 f"shape {tuple(t.shape)}: model(x_t, t, cond).")  # fmt: skip
            raise ValueError(f"the model expects one time for each sample, a tensor t of shape {wanted}, got "
                             f"{type(t).__name__}: model(x_t, t, cond).")  # fmt: skip
        if cond is not None and len(cond) != len(x_t):
            raise ValueError("the model expects cond as it was passed: model(x_t, t, cond).")
        self.calls += 1
        self.latest = max(self.latest, t.max().item())
        return self.answer(x_t, t, cond)


# The loss


def loss_mistakes(model, x0, t, eps, cond):
    """The right loss of each sample, computed by hand in float64, and those of mistakes."""
    x0, eps, share = x0.double(), eps.double(), beside(t, x0.double())
    x_t, u = x0 + share * (eps - x0), eps - x0

    def squares(x=x_t, t=t, cond=cond, target=u):
        return (model.answer(x, t, cond).detach() - target).square()

    def loss(**changed):
        return squares(**changed).flatten(1).mean(1).float()

    def with_four_axes():
        four = t.double()[:, None, None, None]
        return loss(x=x0 + four * u)

    right, off = loss(), squares()
    plain = (model.answer(x_t, t, cond).detach() - u).flatten(1).mean(1).float()
    whole = "One number for the whole batch is left. The mean goes over all axes but the first: flatten(1).mean(1)."
    return right, [
        (loss(target=-u), "The sign of the velocity is wrong. It is eps - x0, from the data to the noise; and the loss "
                          "squares the *difference* of prediction and velocity."),
        (loss(target=eps), "The prediction was compared with eps. It is a velocity: eps - x0."),
        (loss(target=x0), "The prediction was compared with x0. It is a velocity: eps - x0."),
        (loss(target=x_t), "The prediction was compared with x_t, which the model sees. It is a velocity: eps - x0."),
        (loss(target=eps - x_t), "The prediction was compared with eps - x_t. The line begins at x0: eps - x0."),
        (loss(target=share * u), "The velocity was multiplied by t. It is eps - x0 everywhere on the line."),
        (loss(x=share * x0 + (1 - share) * eps), "The two shares are swapped: 1 - t belongs to x0, t to eps."),
        (loss(x=(1 - share).sqrt() * x0 + share.sqrt() * eps), "x_t was made with roots, as in diffusion. On the "
                                                               "straight line the shares are 1 - t and t themselves."),
        (loss(x=x0 + share * eps), "In x_t the factor of x0 is missing: 1 - t."),
        (loss(x=x0 - share * u), "x_t lies on the other side of x0. The way from x0 is t (eps - x0), with a plus."),
        (loss(x=x0), "The model was shown the clean x0. It sees x_t."),
        (loss(x=eps), "The model was shown eps alone. It sees x_t."),
        (loss(t=1 - t), "The model was told 1 - t. It wants t, the share of noise."),
        (loss(t=torch.zeros_like(t)), "The model was not told the time (t = 0 for all)."),
        (loss(t=t[:1].expand_as(t)), "The model was told the time of the first sample for all of them."),
        (loss(t=1000 * t), "t was multiplied by 1000. Here the model takes t itself, from 0 to 1."),
        (loss(t=t.long()), "The model was told t as a whole number: .long() makes 0 of all times below 1. It wants t "
                           "itself."),
        (loss(cond=None), "cond was not handed on: model(x_t, t, cond)."),
        (with_four_axes(), "t got four axes, [:, None, None, None], and x0 may have another number of them: "
                           "expand_like(t, x0) gives t as many as x0 has."),
        ((t * right).float(), "The loss was weighted with t. Each sample counts alike."),
        (right.mean(), whole),
        (off.sum().float(), "This is one sum over everything. Take the mean over all axes but the first."),
        (off.flatten(1).sum(1).float(), "The squares of each sample were added up. Take their mean."),
        (off.float(), "The squares are not averaged yet: flatten(1).mean(1) leaves one number for each sample."),
        (off.flatten(1).mean(0).float(), "The mean went over the batch. It goes over all other axes, and leaves one "
                                         "number for each sample."),
        (off.mean(1).float(), "The mean went over axis 1 alone. .flatten(1) makes one axis of all but the first."),
        (off.mean(-1).float(), "The mean went over the last axis alone. .flatten(1) makes one axis of all but the "
                               "first."),
        (off.sqrt().flatten(1).mean(1).float(), "This is the mean absolute error. The loss is the mean of the "
                                                "squares."),
        (right.sqrt(), "A root was taken. The loss is the mean square itself."),
        (right / 2, "This is half of the loss: the mean has no factor."),
        (plain.square(), "The mean was taken before the square: squares first, then their mean."),
        (plain, "The differences were not squared: those above 0 and below cancel in the mean."),
    ]  # fmt: skip


# The marginal velocity


def marginal_mistakes(x_t, t, data):
    """The right velocities, from densities in float64, and what mistakes give."""
    single, x, t, c = (x_t, t, data), x_t.double(), t.double(), data.double()

    def noises(t=t, shrunk=True, divided=True):
        far = x[:, None] - ((1 - t)[:, None, None] * c if shrunk else c)
        return far / t[:, None, None] if divided else far  # (batch, n, d)

    def velocity(weights, eps=None):
        return ((weights[:, :, None] if weights.ndim == 2 else weights) * ((noises() if eps is None else eps) - c)).sum(
            1
        )

    def near(eps):
        return (-eps.square().sum(2) / 2).softmax(1)

    eps = noises()
    length, weights = eps.norm(dim=2), near(eps)
    far = (x_t[:, None] - (1 - single[1])[:, None, None] * data) / single[1][:, None, None]
    plain = (-far.square().sum(2) / 2).exp()  # 0 for points that are far away
    place = torch.distributions.Normal((1 - t)[:, None, None] * c, t[:, None, None])
    density = place.log_prob(x[:, None]).sum(2)
    x0 = torch.stack([(d - d.logsumexp(0)).exp() @ c for d in density])
    right = (x - x0) / t[:, None]
    unshrunk, swapped = noises(shrunk=False), noises(t=1 - t)
    undivided, of_first = noises(divided=False), noises(t=t[:1].expand_as(t))
    mistakes = [
        (-right, "The sign is wrong: the velocity is eps - x0, and its mean that of eps^(i) - x^(i)."),
        (velocity((-length.square()).softmax(1)), "The half is missing in the weights: the exponent of a normal "
                                                  "density is -|eps|² / 2."),
        (velocity((length.square() / 2).softmax(1)), "The sign in the softmax is wrong: the points whose noise is "
                                                     "*small* are the probable ones."),
        (velocity((-length / 2).softmax(1)), "The length of the noise was not squared: -|eps|² / 2."),
        (velocity((-eps.square().mean(2) / 2).softmax(1)), "In the weights stands the mean over d. |eps|² is the "
                                                           "sum of the squares."),
        (velocity((-eps.square() / 2).softmax(1)), "Each coordinate got weights of its own. Sum the squares over d "
                                                   "before the softmax: one weight for each point."),
        (velocity(near(undivided)), "In the weights stands the distance |x_t - (1 - t) x^(i)|. Divided by t, it is the "
                                    "noise."),
        (velocity(near(noises(shrunk=False, divided=False))), "The weights come from the distance of x_t to the data. "
         "They come from the noise that would have led from there to x_t: (x_t - (1 - t) x^(i)) / t."),
        (velocity(near(unshrunk), unshrunk), "The noise is (x_t - (1 - t) x^(i)) / t: the factor 1 - t is missing."),
        (velocity(near(undivided), undivided), "The noise was not divided by t."),
        (velocity(weights, undivided), "In the weights the noise was divided by t, but in the velocity it was not."),
        (velocity(near(swapped), swapped), "t and 1 - t are swapped: on the line x_t = (1 - t) x^(i) + t eps^(i)."),
        (velocity(near(of_first), of_first), "All x_t were treated with the time of the first. Each has its own."),
        (velocity((-length.square() / 2).softmax(0)), "The softmax went over the batch. For each x_t, the weights "
                                                      "of all points add up to 1: softmax(1)."),
        (velocity(torch.full_like(weights, 1 / len(c))), "All points counted alike. Those that are more likely to have "
                                                         "led to x_t count more."),
        (velocity(F.one_hot(weights.argmax(1), len(c)).double()), "Only the most probable point counted. All of "
                                                                  "them do, by their weights."),
        (velocity(plain.double()), "The weights do not add up to 1: divide by their sum, or use softmax."),
        (velocity((plain / plain.sum(1, keepdim=True)).double()), "Far from all points every exp(...) is 0 in float32, "
         "and 0 / 0 is NaN. softmax subtracts the largest exponent first."),
        ((weights[:, :, None] * eps).sum(1), "This is the mean of the noises alone: subtract the points, eps^(i) - "
                                             "x^(i)."),
        ((weights[:, :, None] * eps).sum(1) - c.mean(0), "The plain mean of the data was subtracted. Both parts of "
                                                         "eps^(i) - x^(i) are weighted."),
        (weights @ c, "This is the mean of the points, E[x0 | x_t]. The velocity is the mean of eps^(i) - x^(i)."),
        (right / len(c), "The weighted velocities were averaged over the points. The weights add up to 1 already: "
                         "sum."),
        (x - c.mean(0), "This is x_t minus the mean of the data, which is right at t = 1 only."),
    ]  # fmt: skip
    return right.float(), [(value.float(), advice) for value, advice in mistakes]


# Diffusion as a flow


def as_number(got):
    """A triple whose first part is a number, Python's or a tensor with one, with that number as a tensor."""
    if not isinstance(got, tuple | list) or len(got) != 3:
        return got
    t, *others = got
    for place, other in zip(("second", "third"), others, strict=True):
        if isinstance(other, NUMBERS) or isinstance(other, torch.Tensor) and other.ndim == 0:
            found = f"the {place} of the three is a single number, expected it first."
            raise Wrong(found, "The order is t, y, velocity.")
    if isinstance(t, torch.Tensor | np.ndarray) and t.ndim:
        raise Wrong(f"t has the shape {tuple(t.shape)}, expected a Python float.", "alpha_bar is one number for the "
                    "whole batch, and so t is one, too.")  # fmt: skip
    if isinstance(t, (*NUMBERS, np.ndarray)) and not isinstance(t, bool):
        return (torch.tensor(float(t), dtype=torch.float64), *others)
    return got


def require_triple_kinds(results) -> None:
    """results: (got, x, called) for each call, whose values are right: t is a number, the others have x's dtype."""
    for (t, y, velocity), x, called in results:
        with called_as(called):
            kind = "a tensor" if isinstance(t, torch.Tensor) else "an array"
            require(isinstance(t, NUMBERS), f"t is {kind} with one number, expected a Python float.", "math.sqrt makes "
                    "plain numbers of plain numbers; of a tensor with one number .item() does.")  # fmt: skip
            require_dtype(y, x.dtype, "y")
            require_dtype(velocity, x.dtype, "velocity")


def require_dtype(got, dtype, what) -> None:
    require(got.dtype == dtype, f"{what} has the dtype {got.dtype}, expected {dtype}, that of x.", "It follows x by "
            "itself if nothing is converted: no .float(), and plain numbers from math.sqrt.")  # fmt: skip


def flow_mistakes(x, eps, alpha_bar):
    """The right (t, y, velocity), and what mistakes give."""
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    whole, wide = signal + noise, x.double()
    x0 = (wide - noise * eps) / signal

    def triple(t=noise / whole, y=wide / whole, u=eps - x0):
        return torch.tensor(float(t), dtype=torch.float64), y.float(), u.float()

    y = wide / whole
    right = triple()
    plain = (wide - (1 - alpha_bar) * eps) / alpha_bar
    turned = (wide - signal * eps) / noise
    return right, [
        (triple(u=x0 - eps), "The sign of the velocity is wrong: eps - x0."),
        (triple(t=signal / whole), "This t is the share of the signal. t = 0 is the data: it is the share of the "
                                   "noise."),
        (triple(t=noise), "t is not divided by the sum of both shares: √(1 - ᾱ) / (√ᾱ + √(1 - ᾱ))."),
        (triple(t=1 - alpha_bar), "t is not 1 - ᾱ, which is a variance: √(1 - ᾱ) / (√ᾱ + √(1 - ᾱ))."),
        (triple(t=noise / signal), "t was divided by the share of the signal alone: divide by the sum of both shares."),
        (triple(y=wide), "y is x itself. It is divided by √ᾱ + √(1 - ᾱ), so that the shares add up to 1."),
        (triple(y=wide / signal), "y was divided by √ᾱ alone: divide by √ᾱ + √(1 - ᾱ)."),
        (triple(y=wide * whole), "y was multiplied by √ᾱ + √(1 - ᾱ). x is divided by it."),
        (triple(u=eps - wide), "The velocity here is eps - x. Find the clean x0 first, from x and eps."),
        (triple(u=eps - y), "The velocity here is eps - y. Find the clean x0 first, from x and eps."),
        (triple(u=eps - (wide - noise * eps)), "x0 was not divided by √ᾱ."),
        (triple(u=eps - (wide - eps) / signal), "In x0 the factor of eps is missing: √(1 - ᾱ)."),
        (triple(u=eps - (y - noise * eps) / signal), "x0 was found from y. The shares √ᾱ and √(1 - ᾱ) are those of x."),
        (triple(u=(eps - x0) / whole), "The velocity was rescaled as well. At y it is eps - x0 itself."),
        (triple(u=noise * eps - signal * x0), "The velocity is not weighted: eps - x0, without √ᾱ and √(1 - ᾱ)."),
        (triple(u=signal * eps - noise * x0), "This is v of chapter 06. The velocity of the straight line is eps - "
                                              "x0."),
        (triple(u=eps), "The velocity here is eps itself: subtract x0."),
        (triple(signal / whole, y, eps - turned), "The two roots are swapped: √ᾱ is the share of the signal, √(1 - ᾱ) "
                                                  "that of the noise."),
        (triple(u=eps - turned), "In x0 the two roots are swapped: x0 = (x - √(1 - ᾱ) eps) / √ᾱ."),
        (triple(u=eps - x0.clamp(-1, 1)), "x0 was clipped to [-1, 1]. Only pixels end there: latents and points do "
                                          "not."),
        (triple(1 - alpha_bar, wide, eps - plain), "The roots are missing: √ᾱ and √(1 - ᾱ) are the shares in x."),
        ((right[0], right[2], right[1]), "The order is t, y, velocity: y and velocity are swapped."),
    ]  # fmt: skip


# Sampling


def sampling_mistakes(model, x_1, times, cond, second):
    """The right last x, in float64, and those of mistakes."""
    start = x_1.double()

    def u(x, t, cond=cond):
        return model.answer(x, torch.full((len(x),), t, dtype=torch.float64), cond).detach()

    def run(step, pairs=None):
        x = start
        for t, s in zip(times[:-1], times[1:], strict=True) if pairs is None else pairs:
            x = step(x, t, s)
        return x.float()

    def euler(x, t, s):
        return x + (s - t) * u(x, t)

    def heun(x, t, s, ask=lambda x, ahead, t, s: u(ahead, s), mean=lambda a, b: (a + b) / 2, begin=lambda x, ahead: x):
        if s == 0:
            return euler(x, t, s)
        ahead = euler(x, t, s)
        return begin(x, ahead) + (s - t) * mean(u(x, t), ask(x, ahead, t, s))

    def changed(**parts):
        return run(lambda x, t, s: heun(x, t, s, **parts)) if second else right

    def to_the_end(x, t, s):
        return x + (s - t) * (u(x, t) + u(euler(x, t, s), s)) / 2

    def of(u):
        """Both methods with other velocities u(x, t, s)."""

        def step(x, t, s):
            if not second or s == 0:
                return x + (s - t) * u(x, t, s)
            return x + (s - t) * (u(x, t, s) + u(x + (s - t) * u(x, t, s), s, s)) / 2

        return run(step)

    def backwards(x, t, s):
        if not second or s == 0:
            return x - (s - t) * u(x, t)
        return x - (s - t) * (u(x, t) + u(x - (s - t) * u(x, t), s)) / 2

    def from_the_start(x, t, s):
        mean = u(x, t) if not second or s == 0 else (u(x, t) + u(euler(x, t, s), s)) / 2
        return start + (s - t) * mean

    def times_swapped(x, t, s):
        first = u(x, s)
        return x + (s - t) * (first if not second or s == 0 else (first + u(x + (s - t) * first, t)) / 2)

    def all_points():
        path = [start]
        for t, s in pairs:
            path.append(method(path[-1], t, s))
        return torch.stack(path).float()

    steps = len(times) - 1

    def equally_long(x, t, s):
        first = u(x, t)
        return x - (first if not second or s == 0 else (first + u(x - first / steps, s)) / 2) / steps

    right = run(heun if second else euler)
    method = heun if second else euler
    pairs = list(zip(times[:-1], times[1:], strict=True))
    even = [(1 - i / steps, 1 - (i + 1) / steps) for i in range(steps)]

    def half(x, t, s):  # midpoint method
        return x + (s - t) * u(x + (s - t) / 2 * u(x, t), (t + s) / 2) if s else euler(x, t, s)

    return right, [
        (run(backwards), "The steps go the wrong way: t_next - t is negative, and so x moves against the "
                         "velocity, x + (t_next - t) u."),
        (run(euler), "`second` has no effect: every step is Euler's."),
        (run(heun), "Heun's steps were taken without being asked for. Only with second=True."),
        (run(to_the_end if second else euler), "Heun's method went on to the step to 0. That one is Euler's: if second "
                                               "and t_next > 0."),
        (changed(ask=lambda x, ahead, t, s: u(x, s)), "The second velocity was taken at the old x. Take it where "
                                                      "Euler's step leads: x + (t_next - t) u."),
        (changed(ask=lambda x, ahead, t, s: u(ahead, t)), "The second velocity was taken at the old time t. At Euler's "
                                                          "point it is t_next."),
        (changed(ask=lambda x, ahead, t, s: u(ahead, s, None)), "The second evaluation got no cond."),
        (changed(ask=lambda x, ahead, t, s: u(x - (s - t) * u(x, t), s)), "Euler's point lies on the wrong side: "
         "x + (t_next - t) u."),
        (changed(mean=lambda a, b: a + b), "The two velocities were added. Their mean is wanted: divide by 2."),
        (changed(mean=lambda a, b: b), "Only the second velocity was used. Take the mean of both."),
        (changed(begin=lambda x, ahead: ahead), "After Euler's step a whole one was added. The step with the mean "
                                                "begins at the old x."),
        (run(half) if second else right, "This is the midpoint method. Heun's takes the velocities at both ends of the "
                                         "step, and their mean."),
        (run(from_the_start), "Every step began at x_1. Each begins where the last one ended."),
        (of(lambda x, t, s: u(x, s)), "The model was told the time at which the step ends, t_next. At x it is t."),
        (run(times_swapped), "The times are swapped: the model was told t_next at x, where it is t, and with Heun t at "
                             "Euler's point."),
        (of(lambda x, t, s: u(x, 1 - t)), "The model was told 1 - t. It wants t, the share of noise."),
        (of(lambda x, t, s: u(x, 1.0)), "The model was told the time 1 in every step. At x it is t."),
        (of(lambda x, t, s: u(x, t, None)), "cond was not handed on: model(x, t, cond)."),
        (run(lambda x, t, s: x - t * u(x, t)), "Every step went all the way to t = 0. Its length is t_next - t."),
        (run(equally_long), "Every step was 1 / steps long. Times need not be even: t_next - t."),
        (run(method, even), "The model was evaluated at even times. Use those in `times`."),
        (run(method, pairs[:-1]), "The last step is missing, that to 0."),
        (run(method, pairs[1:]), "The first step is missing."),
        (run(method, [(t, s) for s, t in reversed(pairs)]), "The times were run through from 0 to 1. Sampling "
                                                            "starts with noise, at 1."),
        (run(method, pairs[:1]), "One step was made: the `return` stands inside the loop, and ends it."),
        (all_points(), "All points came back. Return the last x only."),
        (start.float(), "x_1 came back as it was."),
    ]  # fmt: skip


def require_times_told(model, called) -> None:
    """Raise `Wrong` if the model was told times above 1: its velocities grow so fast that no result can be compared."""
    with called_as(called):
        require(model.latest < 1.5, f"the model was told the time {model.latest:g}, expected times from 0 to 1.",
                "Here the model takes t itself: nothing is multiplied by 1000 or rounded.")  # fmt: skip


def require_last_point(got, x_1, called) -> None:
    """Raise `Wrong` if a list of points came back."""
    with called_as(called):
        require(not isinstance(got, tuple | list), f"got a {type(got).__name__} of {len(got)}, expected one tensor of "
                f"shape {tuple(x_1.shape)}." if isinstance(got, tuple | list) else "", "Return the last x only, as the "
                "points on the way to it are not needed.")  # fmt: skip


def require_evaluations(counts) -> None:
    """counts: (calls of the model, steps, second, called) for each sampling, whose result was right."""
    for calls, steps, second, called in counts:
        expected = 2 * steps - 1 if second else steps
        with called_as(called):
            require(calls == expected, f"the model was evaluated {calls} times in {steps} steps, expected {expected}.",
                    "A velocity was computed and not used, and the model is what is expensive: a second one is needed "
                    "only if `second`, and only if t_next > 0.")  # fmt: skip


# Curvature


def visited(case, batch, d, times):
    """Points of bent paths at these times, and the first path of several is straight at constant speed."""
    x_1, x_0 = case.normal(batch, d), case.normal(batch, d)
    path = [x_0 + t * (x_1 - x_0) + 4 * t * (1 - t) * case.normal(batch, d) for t in times]
    if batch > 2:
        for x, t in zip(path, times, strict=True):
            x[0] = x_0[0] + t * (x_1[0] - x_0[0])
    return path


def curvature_mistakes(path, times):
    """The right curvature, as the mean squared speed relative to the straight one, minus 1; and those of mistakes."""
    x = torch.stack(path).double()  # (points, batch, d)
    t = torch.tensor(times, dtype=torch.float64)
    way, length = x[:-1] - x[1:], (t[:-1] - t[1:])[:, None]  # (steps, batch, d), (steps, 1)
    straight = x[0] - x[-1]
    whole = straight.square().sum(1)
    u = way / length[:, :, None]
    off = (u - straight).square().sum(2)  # (steps, batch)
    right = (length * u.square().sum(2)).sum(0) / whole - 1
    right[right.abs() < 1e-12] = 0
    even = (len(way) * way - straight).square().sum(2).mean(0) / whole
    undivided = ("The way of a step was compared with the whole way. The velocity is the way divided by the time: "
                 "(x_t - x_next) / (t - t_next).")  # fmt: skip

    def curved(off=off, weights=length, whole=whole):
        return (weights * off).sum(0) / whole

    mistakes = [
        (curved(weights=1.0), "The steps were added up without weights. Each counts with its length in time, t - "
                              "t_next."),
        (curved(weights=1 / len(way)), "All steps counted alike. Each counts with its length in time, t - t_next."),
        (curved((way - straight).square().sum(2)), undivided),
        (curved((way + straight).square().sum(2)), undivided),
        (curved(weights=length.square()), "Each step counts with the square of its length in time: the way of the "
         "step, less (t - t_next) (x_1 - x_0), is squared, and not divided by t - t_next."),
        (even, "Every step was taken to be 1 / steps long. Times need not be even: t - t_next."),
        ((length * ((u - straight) / straight).square().sum(2)).sum(0), "Each coordinate was divided by its own. The "
         "squares are added up first, above and below."),
        (curved((u + straight).square().sum(2)), "Velocity and straight line point in opposite ways: x_1 - x_0 is "
                                                 "path[0] - path[-1], and u the step backwards, (x_t - "
                                                 "x_next) / (t - t_next)."),
        (curved(weights=-length), "The weights are negative: times fall, so that the length is t - t_next."),
        (curved(off.sqrt()), "The length of the difference was not squared."),
        (curved(off.sqrt(), whole=whole.sqrt()), "Lengths are compared here. Both are squared, above and below."),
        (curved(whole=1.0), "It was not divided by |x_1 - x_0|²: it is relative to the distance between the "
                              "ends."),
        (curved(whole=whole.sqrt()), "It was divided by |x_1 - x_0|. The square is needed below as well."),
        (curved(whole=whole.sum()), "One length was taken for all paths. Each is relative to its own: sum(1)."),
        (curved(off / x.shape[2]), "Above stands a mean over d, and below a sum. Take the sum twice."),
        (curved((u - x[0]).square().sum(2)), "The velocity was compared with x_1. The straight one is x_1 - x_0."),
        (curved((u - u[0]).square().sum(2)), "The velocity was compared with that of the first step. The straight one "
                                             "is x_1 - x_0."),
        (right.mean(), "One number for all paths is left. Each has its own: (batch,)."),
        (right.clamp(min=0).sqrt(), "A root was taken. The curvature is the mean of squares itself."),
        (right + 1, "The straight line was not subtracted: this is the mean of |u|², relative to |x_1 - x_0|²."),
        (way.norm(dim=2).sum(0) / whole.sqrt() - 1, "This is how much longer the path is. The curvature sees "
                                                    "changes of the speed as well: compare velocities."),
        (curved(off[:-1], length[:-1]), "The last step is missing."),
        (curved(off[1:], length[1:]), "The first step is missing."),
    ]  # fmt: skip
    return right.float(), [(torch.as_tensor(value).float(), advice) for value, advice in mistakes]


# Times

BY_STEPS = (
    "arange with a step such as -1 / steps adds up fractions that are not exact, so that for some numbers of steps "
    "there is one time too many. Divide whole numbers, or use linspace."
)


def time_mistakes(steps, shift):
    """The right times, from whole numbers, and those of mistakes."""
    right = [shift * k / (steps - k + shift * k) for k in range(steps, -1, -1)]

    def shifted(t, shift=shift):
        return shift * t / (1 + (shift - 1) * t)

    def ended(t):
        return torch.cat([t, torch.zeros(1, dtype=torch.float64)])

    def even(first, last, count):
        return torch.linspace(first, last, count, dtype=torch.float64)

    t = even(1, 1 / steps, steps)
    zero = torch.zeros(1, dtype=torch.float64)
    floor = 0.001 * shift / (1 + (shift - 1) * 0.001)
    return torch.tensor(right, dtype=torch.float64), [
        (ended(t), "The times are not shifted."),
        (shifted(t), "The 0 at the end is missing: `steps` steps lead through steps + 1 times."),
        (ended(shifted(even(1, 0, steps))), "The even times reach 0 already, so that 0 comes twice. They end at "
                                            "1 / steps."),
        (shifted(even(1, 0, steps)), "These are `steps` times from 1 to 0, and so one step less. There are steps + 1."),
        (ended(shifted(t - 1 / steps)), "The first time is missing: sampling starts at 1."),
        (ended(shifted(t, 1 / shift)), "The shift goes the wrong way. A shift above 1 moves times towards noise, to "
                                       "1."),
        (ended(shifted(t, shift**0.5)), "The root of shift was taken. It belongs there as it is."),
        (ended(shifted(t, shift**2)), "shift was squared. It belongs there as it is."),
        (ended(shifted(t, math.exp(shift))), "exp(shift) was taken, as for the μ of Flux. Here `shift` is the factor "
                                             "itself."),
        (ended(shift * t), "The denominator is missing: 1 + (shift - 1) t keeps the times below 1."),
        (ended((shift * t).clamp(max=1)), "Times were cut off at 1. The denominator 1 + (shift - 1) t keeps them "
                                          "below."),
        (ended(shift * t / (1 + shift * t)), "In the denominator stands shift t. It is (shift - 1) t, so that 1 "
                                             "stays 1."),
        (ended(shift * t / (1 + shift - t)), "In the denominator the brackets are missing: 1 + (shift - 1) t."),
        (ended(shift * t / (1 + (1 - shift) * t)), "In the denominator stands 1 - shift. It is shift - 1."),
        (ended(shifted(t * steps / (steps + 1))), "The even times were divided by steps + 1. The first is 1, and they "
                                                  "are 1 / steps apart."),
        (ended(shifted(even(1, 1 / steps, steps + 1))), "There is one time too many: `steps` even ones, and then 0."),
        (1000 * torch.tensor(right, dtype=torch.float64), "The times run up to 1000. Here they are shares of noise, "
                                                          "from 1 to 0."),
        (ended(shifted(torch.arange(1, 0, -1 / steps, dtype=torch.float64))), BY_STEPS),
        (shifted(torch.arange(1, -1 / steps, -1 / steps, dtype=torch.float64)), BY_STEPS),
        (ended(t**shift), "t was raised to a power. It is multiplied by shift, and divided by 1 + (shift - 1) t."),
        (ended(shifted(even(1, floor, steps))), "The even times end near 0, as in the library's scheduler left to "
                                                "itself. Here they end at 1 / steps."),
        (torch.tensor(right[::-1], dtype=torch.float64), "The times rise. Sampling goes from 1 down to 0."),
        (torch.cat([zero, shifted(t)]), "The 0 stands in front. It is the last time."),
    ]  # fmt: skip


UNSHIFTED = (
    "With shift = 1 the number shift - 1 is 0: do not divide by it. shift t / (1 + (shift - 1) t) holds there, too."
)


def division_reasons(steps, shift):
    """What is behind a division by zero, by words of its text."""
    if shift == 1:
        return (("division by zero", UNSHIFTED),)
    if steps == 1:
        return (("division by zero", "With steps = 1 the number steps - 1 is 0. Even times are 1 / steps apart."),)
    return ()


def require_finite_times(got, shift, called) -> None:
    """Raise `Wrong` if a shift of 1 led to NaN."""
    if shift == 1 and isinstance(got, torch.Tensor):
        with called_as(called):
            require(bool(got.isfinite().all()), "with shift 1 there are times that are NaN or infinite, expected the "
                    "even times.", UNSHIFTED)  # fmt: skip


def require_double(results) -> None:
    """results: (got, right, called) for each call, and got is right as far as float32 goes."""
    advice = (
        "Say dtype=torch.float64 where the times are made: linspace, arange and tensor make float32 otherwise, and "
        ".double() at the end does not bring back the digits that are lost."
    )
    for got, right, called in results:
        with called_as(called):
            require(got.dtype == torch.float64, f"the times have the dtype {got.dtype}, expected float64.", advice)
            error = largest_error(got, right)
            require(error < 1e-10, f"the times are right as far as float32 goes: the largest relative error is "
                    f"{error:.2g}, expected less than 1e-10, as in float64.", advice)  # fmt: skip


# Patches


def patch_mistakes(x, size):
    """The right patches, by torch's unfold, and those of mistakes."""
    batch, channels, height, width = x.shape
    columns = F.unfold(x, size, stride=size)  # (batch, channels * size * size, patches)
    right = columns.transpose(1, 2)
    cut = x.reshape(batch, channels, height // size, size, width // size, size)
    wide = channels * size**2

    def ordered(*axes, cut=cut):
        return cut.permute(axes).reshape(batch, -1, wide)

    return right, [
        (ordered(0, 4, 2, 1, 3, 5), "The patches go column by column. They go row by row: axis 2 before axis 4."),
        (ordered(0, 2, 4, 1, 5, 3), "Within a patch the numbers go column by column. They go row by row: axis 3 before "
                                    "axis 5."),
        (ordered(0, 4, 2, 1, 5, 3), "Rows and columns are swapped, of the patches and within them: is the image "
                                    "transposed?"),
        (ordered(0, 2, 4, 3, 5, 1), "The channels are innermost. In each vector all numbers of the first channel come "
                                    "first: axis 1 before axes 3 and 5."),
        (ordered(0, 1, 2, 4, 3, 5), "The channels come before the patches, so that a vector has numbers of one "
                                    "channel. Each vector has all channels of its patch."),
        (x.reshape(batch, -1, wide), "The numbers are in the order of the image: a reshape alone cuts no patches. "
                                     "permute comes before the last reshape."),
        (ordered(0, 2, 3, 1, 4, 5), "Strips of the image were taken. Rows of patches, then columns of patches come "
                                    "first: axes 2 and 4."),
        (columns, "The vectors are columns. Patches are axis 1: .transpose(1, 2)."),
        (ordered(0, 3, 5, 1, 2, 4, cut=x.reshape(batch, channels, size, height // size, size, width // size)), "Each "
         "vector has pixels from all over the image. Each side is cut as (side // size, size): the patch first."),
        (ordered(0, 2, 4, 1, 3, 5, cut=x.reshape(batch, channels, width // size, size, height // size, size)), "Height "
         "and width are swapped in the reshape."),
        (cut.permute(0, 2, 4, 1, 3, 5).flatten(3), "Rows and columns of patches are still two axes: make one of them."),
        (cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2), "The vectors are not flat yet: channels, rows and columns become "
                                                      "one axis."),
    ]  # fmt: skip


# A half block


class Mixing(nn.Module):
    """A layer from tokens to tokens, in which each token sees the others, too."""

    def __init__(self, case, width):
        super().__init__()
        self.inner = nn.Linear(width, width)
        with torch.no_grad():
            for parameter in self.inner.parameters():
                parameter.copy_(case.normal(*parameter.shape))

    def forward(self, x):
        return self.inner(x).tanh() + x.mean(1, keepdim=True)


BLOCK_REASONS = (
    ("must match the size of tensor", "shift, scale and gate are (batch, width), the tokens (batch, tokens, width): "
     "[:, None] gives them an axis for the tokens."),
    ("not enough values to unpack", "chunk cuts along axis 0, the batch, unless told otherwise: chunk(3, dim=-1)."),
)  # fmt: skip


@torch.no_grad()
def half_mistakes(x, c, linear, f):
    """The right tokens, written out, and what mistakes give."""
    width = x.shape[-1]
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    made = linear(c / (1 + (-c).exp()))
    parts = made.split(width, dim=1)

    def norm(x, eps=1e-6, axes=(-1,)):
        away = x - x.mean(axes, keepdim=True)
        return away / (away.square().mean(axes, keepdim=True) + eps).sqrt()

    normed = (x - mean) / (variance + 1e-6).sqrt()
    root_mean_square = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def half(shift=parts[0], scale=parts[1], gate=parts[2], normed=normed):
        return x + gate[:, None] * f(normed * (1 + scale[:, None]) + shift[:, None])

    shift, scale, gate = (part[:, None] for part in parts)
    steered = normed * (1 + scale) + shift
    axes = "The norm goes over more than one token, or across tokens. Each token is normalised by itself: x.shape[-1:]."
    order = "The order of the three vectors is another one: shift, scale, gate."
    return half(), [
        (x + gate * f(normed * scale + shift), "Scaled by scale alone, without the 1: norm(x) (1 + scale). With a "
                                               "linear layer that starts at zero, nothing would be left of x."),
        (x + f(steered), "The gate is missing: x + gate f(...)."),
        (x + (1 + gate) * f(steered), "The gate has no 1 before it. Closed, it is 0, and the block the identity."),
        (gate * x + f(steered), "The gate was applied to x. It is applied to what f answers."),
        (gate * f(steered), "x itself is missing: what f answers is *added* to x."),
        (steered + gate * f(steered), "The answer was added to the steered tokens. It is added to x as it came in."),
        (normed + gate * f(steered), "The answer was added to the normalised tokens. It is added to x as it came in."),
        (x + f(gate * steered), "The gate comes before f. It comes after it."),
        (half(*linear(c).split(width, dim=1)), "SiLU is missing: linear(F.silu(c))."),
        (half(*F.silu(linear(c)).split(width, dim=1)), "SiLU comes after linear. c passes through it *before*."),
        (half(*linear(c.sigmoid()).split(width, dim=1)), "A sigmoid was taken. SiLU is c times its sigmoid: "
                                                         "F.silu(c)."),
        (half(*linear(c.relu()).split(width, dim=1)), "ReLU was taken in place of SiLU: F.silu(c)."),
        *((half(*(parts[place] for place in places)), order) for places in itertools.permutations(range(3))
          if places != (0, 1, 2)),
        (half(*made.reshape(len(c), width, 3).unbind(2)), "Every third number was taken. The first `width` numbers are "
                                                          "the shift, the next the scale, the last the gate: chunk."),
        (half(normed=x), "x was not normalised."),
        (x + gate * f(norm(x * (1 + scale) + shift)), "The norm comes after scale and shift, and takes them back. It "
                                                      "comes first."),
        (x + gate * f((normed + shift) * (1 + scale)), "The shift was scaled, too: norm(x) (1 + scale), then + shift."),
        (half(normed=norm(x, 1e-5)), "The eps of the norm is F.layer_norm's default, 1e-5: eps=1e-6."),
        (half(normed=norm(x, 0)), "The eps of the norm is missing: eps=1e-6 stands under the root, beside the "
                                  "variance."),
        (half(normed=(x - mean) / (variance.sqrt() + 1e-6)), "The eps was added to the deviation. In a layer norm "
                                                             "it is added to the variance, under the root."),
        (half(normed=(x - mean) / (x.var(-1, keepdim=True) + 1e-6).sqrt()), "The variance was divided by width - 1. "
         "A layer norm divides by the width."),
        (half(normed=(x - mean) / (x.std(-1, keepdim=True) + 1e-6)), "The deviation was taken by std, which divides by "
         "width - 1. A layer norm divides by the width, and adds eps under the root."),
        (half(normed=root_mean_square), "The mean was not subtracted: this is RMSNorm."),
        (half(normed=norm(x, axes=(1, 2))), axes),
        (half(normed=norm(x, axes=(1,))), axes),
        (half(normed=norm(x, axes=(0, 1, 2))), axes),
        (x + gate * (f(normed) * (1 + scale) + shift), "Scale and shift come after f. They steer what f gets."),
        (half(*F.linear(F.silu(c), linear.weight).split(width, dim=1)), "The bias of `linear` is missing: call it, "
                                                                        "linear(F.silu(c))."),
        (half(*linear(F.gelu(c)).split(width, dim=1)), "GELU was taken in place of SiLU: F.silu(c)."),
        (x + gate.sigmoid() * f(steered), "The gate went through a sigmoid. It is taken as `linear` makes it."),
        (x + gate * torch.cat([f(token) for token in steered.split(1, dim=1)], 1), "f got each token alone. It gets "
         "all tokens of a sample at once: attention runs between them."),
        (x + gate * f(normed), "The tokens are normalised, but not steered: (1 + scale) and shift are missing."),
        (x + gate * f(x), "f got x as it came in. It gets norm(x) (1 + scale) + shift."),
        (steered, "f was not called."),
    ]  # fmt: skip


# Joint attention


def joint_reasons(patches, count):
    """What is behind an exception, by words of its text, where there are so many patches and words."""
    sequence = ("Patches and words differ in number. They are put in one sequence along the axis of the tokens: "
                "torch.cat(..., dim=2).")  # fmt: skip
    added = ("Patches and words differ in number, and cannot be added up. They stand one behind the other: "
             "torch.cat(..., dim=2).")  # fmt: skip
    keys = ("The scores are queries times keys, whose last two axes change places: q @ k.transpose(-2, -1). .T turns "
            "round all four axes, and transpose(1, 2) swaps heads and tokens.")  # fmt: skip
    pairs = ((patches, count), (count, patches))
    return (
        ("Sizes of tensors must match", sequence),
        ("stack expects each tensor to be equal size", sequence),
        *((f"tensor a ({a}) must match the size of tensor b ({b}) at non-singleton dimension {axis}", added)
          for a, b in pairs for axis in (2, 3)),
        ("at non-singleton dimension 1", keys),
        ("at non-singleton dimension 0", keys),
        ("Expected size for first two dimensions of batch2", keys),
    )  # fmt: skip


def require_pair(got, tokens, called) -> None:
    """Raise `Wrong` if the sequence came back in one piece; tokens: how many patches and words there are."""
    if isinstance(got, torch.Tensor) and got.ndim == 4 and got.shape[2] == tokens:
        with called_as(called):
            raise Wrong(f"got one tensor of shape {tuple(got.shape)}, expected two: for the patches, for the words.",
                        "The sequence was not split again: return out[:, :, :patches], out[:, :, patches:].",
                        )  # fmt: skip


def large_streams(case):
    """Two streams whose scores are in the hundreds, and exact in float32: whole numbers, and √d is 4."""
    return (
        tuple([*((20 * case.normal(2, 2, n, 16)).round() for _ in range(2)), case.normal(2, 2, n, 16)]) for n in (4, 3)
    )


def require_finite_attention(got, called) -> None:
    tensors = [x for x in got if isinstance(x, torch.Tensor)] if isinstance(got, tuple | list) else []
    with called_as(called):
        require(all(x.isfinite().all() for x in tensors), "with large queries and keys the output is NaN or infinite, "
                "expected finite numbers.", "exp(...) of a large score is infinite in float32, and infinity divided by "
                "infinity is NaN. softmax subtracts the largest score first.")  # fmt: skip


def joint_mistakes(image, words):
    """The right pair, from a softmax written out in float64, and what mistakes give."""
    image, words = [x.detach().double() for x in image], [x.detach().double() for x in words]
    q, k, v = (torch.cat(pair, 2) for pair in zip(image, words, strict=True))
    patches, count, d = image[0].shape[2], words[0].shape[2], q.shape[3]

    def attend(q, k, v, scale=d**-0.5, over=-1, causal=False):
        scores = q @ k.mT * scale
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
        near = (scores - scores.amax(over, keepdim=True)).exp()
        return near / near.sum(over, keepdim=True) @ v

    def parted(out, at=patches):
        return out[:, :, :at].float(), out[:, :, at:].float()

    out = attend(q, k, v)
    seen, read = parted(out)
    alone, own = attend(*image), attend(*words)
    across, back = attend(image[0], *words[1:]), attend(words[0], *image[1:])
    turned = attend(torch.cat([words[0], image[0]], 2), k, v)
    tokens = attend(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    joined = "The heads were joined. Here they stay apart: (batch, heads, tokens, d)."

    def pair(one, other):
        return one.float(), other.float()

    def merged(x):
        return x.transpose(1, 2).flatten(2)

    return (seen, read), [
        (pair(alone, own), "Each stream attended to itself alone. One attention runs over all tokens."),
        (pair(across, back), "Each stream attended to the other one alone. One attention runs over all tokens, "
                             "those of its own stream as well."),
        (pair(seen, own), "The words attended to words alone. They look at the patches, too."),
        (pair(alone, read), "The patches attended to patches alone. They look at the words, too."),
        (pair(seen, words[2]), "The words came back as they were: their values. They attend as the patches do."),
        (pair(across, own), "This is cross-attention: patches that look at words. One attention runs over all tokens."),
        (pair((alone + across) / 2, (own + back) / 2), "Two attentions were averaged. It is one softmax, over all "
                                                       "tokens."),
        (pair(alone + across, own + back), "Two attentions were added up. It is one softmax, over all tokens."),
        (pair(read, seen), "The order is the wrong way round: patches first, then words."),
        (parted(turned), "The words came first in the sequence, but the first tokens that leave were taken for the "
                         "patches."),
        (parted(out, count), "The sequence was cut after as many tokens as there are words. The patches came first: "
                             "cut after image[0].shape[2]."),
        (pair(out[:, :patches], out[:, patches:]), "The sequence was cut along the heads, axis 1. The tokens are axis "
                                                   "2: out[:, :, :patches]."),
        (pair(*out.chunk(2, 2)), "The sequence was cut into two halves. Patches and words differ in number: cut after "
                                 "image[0].shape[2]."),
        (parted(attend(q, k, v, scale=1.0)), "The scores are not divided by √d."),
        (parted(attend(q, k, v, scale=1 / d)), "The scores were divided by d; it is √d."),
        (parted(attend(q, k, v, scale=(d * q.shape[1]) ** -0.5)), "The scores were divided by the root of the whole "
                                                                  "width. d is that of one head."),
        (parted(attend(q, k, v, scale=(patches + count) ** -0.5)), "The scores were divided by the root of the number "
         "of tokens. It is √d, the width of a head."),
        (parted(attend(q, k, v, over=1)), "The softmax went over the heads. The weights of one query add up to 1: over "
                                          "the keys, the last axis."),
        (parted(attend(q, k, v, over=0)), "The softmax went over the batch. The weights of one query add up to 1: over "
                                          "the keys, the last axis."),
        (parted(attend(q, k, v, over=-2)), "The softmax went over the queries. The weights of one query add up to "
                                           "1: over the keys, the last axis."),
        (parted(attend(k, q, v)), "Queries and keys are swapped."),
        (parted(attend(q, v, k)), "Keys and values are swapped: the order in the triples is q, k, v."),
        (parted(attend(q, k, v, causal=True)), "Each token saw only those before it. Nothing is hidden here: no mask."),
        (parted(tokens), "The heads of each token attended to one another. Attention runs over tokens: they are "
                         "axis 2 of (batch, heads, tokens, d)."),
        (pair(merged(seen), merged(read)), joined),
        (pair(seen.transpose(1, 2), read.transpose(1, 2)), "Heads and tokens have changed places: (batch, heads, "
                                                           "tokens, d)."),
    ]  # fmt: skip


# The velocity that lands


def landed(table, x_t, v, steps):
    """Where diffusers' DDIM leads from x_t with v: (x_s, alpha_bar_t, alpha_bar_s), the last two (batch,).

    steps: (t, count) for each sample: one of `count` equal steps over the whole table, from time t.
    """
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(len(table), clip_sample=False, prediction_type="v_prediction")
    scheduler.alphas_cumprod = table
    x_s, levels = [], []
    for x, velocity, (t, count) in zip(x_t, v, steps, strict=True):
        scheduler.num_inference_steps = count
        x_s.append(scheduler.step(velocity, t, x).prev_sample)
        s = t - len(table) // count
        levels.append((table[t].item(), table[s].item() if s >= 0 else 1.0))
    return torch.stack(x_s), *torch.tensor(levels).unbind(1)


def landing_mistakes(x_t, x_s, alpha_bar_t, alpha_bar_s):
    """What mistakes give in place of v."""
    start, end, shape = x_t.double(), x_s.double(), x_t.double()
    A, C = beside(alpha_bar_t, shape), beside(alpha_bar_s, shape)

    def solved(A=A, C=C):
        """(x0, eps) of both points, and the shares of the first."""
        a, b, c, d = A.sqrt(), (1 - A).sqrt(), C.sqrt(), (1 - C).sqrt()
        area = c * b - a * d
        return (b * end - d * start) / area, (c * start - a * end) / area, a, b

    def v(x0, eps, a, b):
        return a * eps - b * x0

    x0, eps, a, b = solved()
    c, d = C.sqrt(), (1 - C).sqrt()
    area, right = c * b - a * d, v(x0, eps, a, b)
    plain = (A * (1 - C)) - C * (1 - A)
    rootless = ((1 - C) * start - (1 - A) * end) / plain, (A * end - C * start) / plain
    near = (start - a * end) / b
    of_first = solved(beside(alpha_bar_t[:1].expand_as(alpha_bar_t), shape),
                      beside(alpha_bar_s[:1].expand_as(alpha_bar_s), shape))  # fmt: skip
    taken = (
        "x_s was taken for the clean x0. It has noise of its own, unless alpha_bar_s is 1: two equations, two unknowns."
    )
    shrunk = (
        "x_s, divided by √ᾱ_next, was taken for the clean x0. There is noise in it, unless alpha_bar_s is 1: two "
        "equations, two unknowns."
    )
    minus = "The determinant has a minus: √ᾱ_next √(1 - ᾱ_t) - √ᾱ_t √(1 - ᾱ_next)."
    everywhere = "The roots are missing everywhere: √ᾱ and √(1 - ᾱ) are the shares."
    mistakes = [
        (eps, "This is the noise eps. The student predicts v = √ᾱ_t eps - √(1 - ᾱ_t) x0."),
        (x0, "This is the clean x0. The student predicts v = √ᾱ_t eps - √(1 - ᾱ_t) x0."),
        (-right, "All signs are the other way round. Are both levels in the right place in the denominator, √ᾱ_next "
                 "√(1 - ᾱ_t) - √ᾱ_t √(1 - ᾱ_next), and the two terms above it in this order? And is v = √ᾱ_t eps "
                 "*minus* √(1 - ᾱ_t) x0?"),
        (b * eps - a * x0, "The factors in v are swapped: √ᾱ_t belongs to eps, √(1 - ᾱ_t) to x0."),
        (a * eps + b * x0, "In v there is a plus: √ᾱ_t eps *minus* √(1 - ᾱ_t) x0."),
        (c * eps - d * x0, "This is v where the step lands, or both points are swapped, and their levels. The student "
                              "predicts it where the step starts, at ᾱ_t."),
        (eps - x0, "This is the velocity of the straight line, eps - x0. The student predicts v, with the shares of "
                   "its noise level."),
        (A * eps - (1 - A) * x0, "The roots are missing in v: √ᾱ_t eps - √(1 - ᾱ_t) x0."),
        (v(*rootless, a, b), "The roots are missing in the two equations: √ᾱ and √(1 - ᾱ) are the shares of x0 and "
                             "eps."),
        (v(*rootless, A, 1 - A), everywhere),
        ((end - (A * C + (1 - A) * (1 - C)) * start) / plain, everywhere),
        (v(end, near, a, b), taken),
        (v(end / c, (start - a * end / c) / b, a, b), shrunk),
        (v(end / c, eps, a, b), shrunk),
        (v(end, eps, a, b), taken),
        (v(x0, start, a, b), "x_t was taken for the noise. It still has a share of x0: two equations, two unknowns."),
        (v(*solved(A=C, C=A)[:2], a, b), "x_t and x_s, or their levels, are swapped: x_t is the noisier one, at ᾱ_t."),
        (((c * a - d * b) * start - end) / area, "x_t has a wrong factor: the two products have the same sign, √ᾱ_t "
                                                 "√ᾱ_next *plus* √(1 - ᾱ_t) √(1 - ᾱ_next)."),
        (area * right, "x0 and eps were not divided by the determinant, √ᾱ_next √(1 - ᾱ_t) - √ᾱ_t √(1 - ᾱ_next)."),
        (area * right / (c * b + a * d), minus),
        (-area * right / (c * b + a * d), minus),
        ((start - end) / (b - d), "This is the difference of the points, divided by that of their shares of noise. In "
                                  "DDIM both shares change: solve for x0 and eps."),
        (start - end, "This is the way from x_s to x_t. v follows from x0 and eps of both points."),
        (end - start, "This is the way from x_t to x_s. v follows from x0 and eps of both points."),
        (v(*solved(alpha_bar_t.double()[:, None, None, None], alpha_bar_s.double()[:, None, None, None])), "The levels "
         "got four axes, [:, None, None, None], and x_t may have another number of them: expand_like(values, x_t)."),
        ((start - end) / area, "x_t lacks a factor. In terms of angles, x_s = cos(δ) x_t - sin(δ) v."),
        (v(*of_first[:2], a, b), "All samples were solved with the levels of the first. Each has its own."),
        (v(*of_first), "All samples got the levels of the first. Each has its own."),
    ]  # fmt: skip
    return [(value.float(), advice) for value, advice in mistakes]


def require_clean_end(got, alpha_bar_s, called) -> None:
    """Raise `Wrong` if there is a NaN where the step lands on the clean image."""
    clean = alpha_bar_s == 1
    if isinstance(got, torch.Tensor) and len(got) == len(clean) and not got[clean].isfinite().all():
        with called_as(called):
            raise Wrong("v is NaN or infinite where alpha_bar_s is 1, the clean image.", "√(1 - ᾱ_next) is 0 there: do "
                        "not divide by it. eps follows from x_t as well: (x_t - √ᾱ_t x0) / √(1 - ᾱ_t).")  # fmt: skip
