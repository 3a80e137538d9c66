"""The exercises of chapter 06: the network learns to predict the noise."""

import math

import torch
from torch import nn

from course_utils import training
from course_utils.diffusion import objectives
from course_utils.exercises.mistakes_06 import (
    Recorder,
    noise_at,
    require_loss,
    require_noise,
    require_one_call,
    require_range,
    require_times,
    stepped,
    weights_and_mistakes,
)
from course_utils.exercises.oracles import Wrong, close, require
from course_utils.exercises.registry import exercise

TITLE = "Predicting the noise"


@exercise(
    "06.noise_prediction_loss", objectives.noise_prediction_loss, difficulty=2, minutes=10, gradients=True,
    hints=[
        "Subtract, square, and average. The question is over which axes.",
        "Keep one number for each sample: average over every axis but the first.",
        "(eps_hat - eps).square().flatten(1) has shape (batch, d). Average over d.",
    ],
)  # fmt: skip
def noise_prediction_loss(learner, case):
    """Measure for each sample how wrong the predicted noise is."""
    eps_hat, eps = case.normal(4, 3, 8, 8), case.normal(4, 3, 8, 8)
    error = (eps_hat - eps).square()
    expected = torch.stack([each.sum() / each.numel() for each in error])
    mistakes = [
        (error.flatten(1).sum(1), "This is the sum over the pixels. Divided by their number it does not depend on the "
                                  "picture's size: take the mean."),
        (expected.mean(), "This is one number for the whole batch. Keep one for each sample: later they are sorted "
                          "by t, and weighted."),
        (error.sum(), "This is the sum over everything. Return one mean for each sample."),
        (error.flatten(1).mean(0), "The mean went over the batch. Average over the pixels of each sample: .mean(1)."),
        (error.flatten(1).sum(1).sqrt(), "This is the length of the error, the root of a sum. Return the mean of the "
                                         "squares."),
        (expected / 2, "This is half of it; there is no factor 1/2."),
        (expected[:, None], "The averaged axis is still there: leave keepdim away."),
        (error, "The squares are not averaged yet: the mean over pixels is missing."),
        (error.mean(1), "This is the mean over the channels only. Average over height and width too."),
        (error.mean((0, 2, 3)), "The batch was averaged away, and the channels stayed. Average over all but axis 0."),
        ((eps_hat - eps).abs().flatten(1).mean(1), "This is the mean absolute error; wanted are squares."),
        (expected.sqrt(), "This is the root of the mean. The loss is the mean square itself."),
        ((eps_hat - eps).flatten(1).mean(1), "The square is missing: errors of both signs would cancel."),
        ((eps_hat - eps).flatten(1).mean(1).square(), "The mean came before the square, so errors of both signs cancel "
                                                      "each other. Square first."),
    ]  # fmt: skip
    close(learner(eps_hat, eps), expected, mistakes)
    for shape in ((1, 3, 5, 2), (6, 2), (2, 1, 3, 4, 2)):  # a batch of one, points of the plane, films
        eps_hat, other = case.normal(*shape), case.normal(*shape)
        close(_compared(learner, eps_hat, other), (eps_hat - other).square().reshape(shape[0], -1).mean(1))
    # A data set of one point x0: then the noise in x_t is known exactly, and predicting it leaves nothing.
    x0, share = case.normal(3, 8, 8), case.uniform(0.1, 0.9)
    x_t = share.sqrt() * x0 + (1 - share).sqrt() * eps
    worst = learner((x_t - share.sqrt() * x0) / (1 - share).sqrt(), eps).abs().max().item()
    require(worst < 1e-8, f"for the exact prediction got a loss of {worst:.3g}, expected 0.",
            "If eps_hat and eps agree, the loss is 0.")  # fmt: skip


def _compared(learner, eps_hat, eps):
    try:
        return learner(eps_hat, eps)
    except Exception as raised:
        text = str(raised.__cause__)
        if "Dimension out of range" in text:
            raise Wrong(f"averaging failed: {text}", "Not all data are images; points of the plane are (batch, 2). "
                        "Average over every axis but the first, whatever their number.") from None  # fmt: skip
        raise


@exercise(
    "06.sample_times", objectives.sample_times, difficulty=1, minutes=5,
    hints=[
        "torch.randint draws whole numbers. Look up which of its two bounds can come out.",
        "Times are 0 ... T-1, and the upper bound of torch.randint never comes out. Pass on the generator.",
    ],
)  # fmt: skip
def sample_times(learner, case):
    """Draw a time for each sample, each time equally likely."""
    T, count = int(case.whole(8, 12)), 20_000
    generator, before = case.generator(), case.generator().get_state()
    t = learner(count, T, generator)
    require_times(t, count)
    drawn = not generator.get_state().equal(before)
    require_range(t, T)
    share = torch.bincount(t, minlength=T) / count * T
    rarest, most = share.min().item(), share.max().item()
    advice = "Draw all with the same chance."
    if share[0] < 0.7 and share[-1] < 0.7 and share[1:-1].min() > 0.87:
        advice = "Both ends come half as often: rounding gives them half a stretch. Cut off with .long() instead."
    require(rarest > 0.87 and most < 1.13, f"the rarest time came {rarest:.2f} and the most frequent {most:.2f} times "
            f"as often as expected, in {count} draws.", advice)  # fmt: skip
    again = learner(count, T, generator)
    require(not drawn or not t.equal(again), "a second call with the same generator gave the same times.",
            "The generator goes on by itself from call to call: do not seed it again in here.")  # fmt: skip
    for count, T in ((1, 1), (5, 1000), (1, 40)):
        t = learner(count, T, case.generator())
        require_times(t, count)
        low, high = t.min().item(), t.max().item()
        require(0 <= low <= high < T, f"the times go from {low} to {high}, expected 0 to {T - 1}.",
                "The range is that of the T which was passed.")  # fmt: skip


@exercise(
    "06.bound_weights", objectives.bound_weights, difficulty=3, minutes=15,
    hints=[
        "You need alpha_bar at t and at t - 1, for t = 1 ... T-1: two slices of one running product.",
        "alpha_bar = (1 - beta).cumprod(0). Then alpha_bar[1:] belongs to t, and alpha_bar[:-1] to t - 1.",
        "beta_tilde = (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * beta[1:]. Put it into the formula for zeta_t.",
    ],
)  # fmt: skip
def bound_weights(learner, case):
    """Weigh each time as the variational bound does."""
    beta = case.uniform(0.05, 0.4, 9).double()
    right, mistakes = weights_and_mistakes(beta)
    close(learner(beta), right, mistakes)
    for beta in (torch.tensor([0.1, 0.2]), case.uniform(0.1, 0.9, 4), torch.linspace(1e-4, 0.02, 1000).double()):
        alpha_bar = torch.tensor([math.prod(1 - b for b in beta[: t + 1].tolist()) for t in range(len(beta) - 1)])
        close(learner(beta), beta[1:] / (2 * (1 - beta[1:]) * (1 - alpha_bar).to(beta)), tolerance=1e-3)


@exercise(
    "06.training_step", objectives.training_step, difficulty=3, minutes=15,
    uses=("05.add_noise", "06.sample_times", "06.noise_prediction_loss"),
    hints=[
        "Four lines: draw t, draw eps, make x_t, compare the prediction with eps. You have written three of them.",
        "t = sample_times(len(x0), len(alpha_bar), generator), and the noise has the shape of x0.",
        "The model sees x_t and t, never eps and never x0: model(x_t, t).",
        "noise_prediction_loss(model(x_t, t), eps) has shape (batch,). Return its mean, as a tensor.",
    ],
)  # fmt: skip
def training_step(learner, case):
    """Put the training step together: from clean pictures to a loss."""
    x0, table = 5 * case.normal(64, 3, 4, 4), (1 - torch.linspace(0.02, 0.2, 50)).cumprod(0)
    generator, model = case.generator(), Recorder()
    loss = stepped(learner, model, x0, table, generator)
    x_t, t = require_one_call(model, x0, len(table))
    require(len(t.unique()) > 5, f"the batch of {len(x0)} has {len(t.unique())} different times, expected many.",
            "Each sample draws a time of its own: sample_times(len(x0), ...).")  # fmt: skip
    eps = require_noise(x0, x_t, t, table)
    require_loss(model, loss, x0, x_t, eps)
    again = Recorder()
    learner(again, x0, table, generator)
    require(not again.calls[0][0].equal(x_t), "a second step with the same generator gave the same noise and times.",
            "The generator goes on by itself from step to step: do not seed it again in here.")  # fmt: skip
    x0, table = case.normal(64, 2), torch.tensor([0.9, 0.6, 0.3, 0.1])  # points, and few times, so that each comes up
    model = Recorder()
    loss = stepped(learner, model, x0, table, case.generator())
    x_t, t = require_one_call(model, x0, len(table))
    require(t.min() == 0 and t.max() == 3, f"with 4 times, those from {t.min()} to {t.max()} came up, expected 0 to 3.",
            "Each time is drawn, the first and the last as well: 0 ... len(alpha_bar) - 1.")  # fmt: skip
    require_loss(model, loss, x0, x_t, noise_at(t, x0, x_t, table))
    table = torch.linspace(0.999, 0.01, 3000)
    model, x0 = Recorder(), case.normal(100, 1)
    stepped(learner, model, x0, table, case.generator())
    latest = model.calls[0][1].max().item()
    require(latest > 2500, f"with 3000 times, the latest of 100 was {latest}, expected about 2970.",
            "The times stop before the table ends: there are len(alpha_bar) of them.")  # fmt: skip
    learner(Recorder(), case.normal(1, 3, 2, 2), table, case.generator())  # a batch of one


@exercise(
    "06.ema_update", training.ema_update, difficulty=2, minutes=10,
    hints=[
        "Go through the parameters of both models in pairs: zip(average.parameters(), model.parameters()).",
        "The average keeps the share `decay` of itself (0.999: nearly all) and takes the rest from the model.",
        "Write into the existing parameter, under torch.no_grad(): p_average.copy_(...), or .mul_(decay).add_(...).",
    ],
)  # fmt: skip
def ema_update(learner, case):
    """Update the moving average of a model's parameters."""
    model, average = _network(case), _network(case).requires_grad_(False)
    decay = round(case.uniform(0.8, 0.95).item(), 3)
    before, new = _flat(average), _flat(model)
    learner(average, model, decay)
    require(_flat(model).equal(new), "the model's own parameters were changed, expected only those of the average.",
            "The model goes on training untouched. Write into the parameters of `average`.")  # fmt: skip
    mistakes = [
        (before, "The average did not change. `p = ...` only gives the name p to a new tensor; write into the old "
                 "one: p.copy_(...)."),
        ((1 - decay) * before + decay * new, "The two weights are swapped: the average keeps the share `decay` of "
                                             "itself, and takes 1 - decay from the model."),
        (new, "The average became a copy of the model."),
        (decay * before + new, "The new value is added at full weight; its weight is 1 - decay."),
        (before + (1 - decay) * new, "The old value keeps its full weight, so the average grows without end; its "
                                     "weight is decay."),
        ((before + new) / 2, "Both got the weight 1/2, whatever `decay` says."),
        *((d * before + (1 - d) * new, "The decay is a number of its own here. Use `decay`, as it is passed.")
          for d in (0.9, 0.99, 0.995, 0.999, 0.9999) if d != decay),
    ]  # fmt: skip
    what = "the average's parameters, one after the other"
    expected = decay * before + (1 - decay) * new
    some = _flat(average).isclose(expected)
    require(
        some.all() or not some.any(),
        f"{some.sum()} of {len(some)} numbers in the average are right.",
        "Some parameters were left out. Weights and biases of all layers follow: average.parameters().",
    )
    close(_flat(average), expected, mistakes, what=what)
    require(not any(p.requires_grad for p in average.parameters()),
            "the average now remembers how it was computed, expected plain numbers.",
            "Gradients were recorded, and memory would grow with each step: update under torch.no_grad().")  # fmt: skip
    for decay in (0.0, 0.999, 1.0):
        model, average = _network(case), _network(case).requires_grad_(False)
        before, new = _flat(average), _flat(model)
        learner(average, model, decay)
        close(_flat(average), decay * before + (1 - decay) * new, what=what)
    with torch.no_grad():
        model[0].weight.add_(1)
    close(_flat(average), before, what="after the model alone has changed, the average")


def _network(case):
    layers = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2, bias=False))
    layers.load_state_dict({name: case.normal(*value.shape) for name, value in layers.state_dict().items()})
    return layers


def _flat(model):
    return torch.cat([parameter.detach().clone().flatten() for parameter in model.parameters()])


@exercise(
    "06.x0_from_eps", objectives.x0_from_eps, difficulty=2, minutes=10,
    hints=[
        "Start from x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps, and solve it for x0.",
        "First take the noise away, then divide what is left by the factor of x0.",
        "With a = expand_like(alpha_bar[t], x_t), return (x_t - (...).sqrt() * eps) / (...).sqrt().",
    ],
)  # fmt: skip
def x0_from_eps(learner, case):
    """Predict the clean image in one step."""
    for T, shape in ((40, (5, 3, 8, 8)), (40, (5, 2)), (7, (2, 1, 2, 3)), (7, (3, 4))):
        table = (1 - case.uniform(0.01, 0.1, T)).cumprod(0)
        t = torch.cat([torch.tensor([0, T - 1]), case.whole(1, T - 2, shape[0] - 2)])
        _check_guess(learner, case.normal(*shape), case.normal(*shape), t, table, named=T == 40)
    for time, shape in ((0, (1, 3, 4, 4)), (6, (1, 2))):  # a batch of one
        _check_guess(learner, case.normal(*shape), case.normal(*shape), torch.tensor([time]), table, named=False)


def _check_guess(learner, x0, eps, t, table, named):
    share = table[t].reshape(-1, *[1] * (x0.ndim - 1))
    signal, noise = share.sqrt(), (1 - share).sqrt()
    x_t = signal * x0 + noise * eps
    first, for_pictures, early = table[t[0]], table[t].reshape(-1, 1, 1, 1), table[t - 1].reshape(share.shape)
    mistakes = [
        (x_t - noise * eps, "The noise is gone, but what is left is sqrt(alpha_bar_t) x0: divide by that root."),
        ((x_t - noise * eps) / share, "This divides by ᾱ where √ᾱ belongs."),
        ((x_t - (1 - share) * eps) / signal, "This takes 1 - ᾱ of eps away where √(1 - ᾱ) is in x_t."),
        ((x_t - (1 - share) * eps) / share, "Both roots are missing: the factors in x_t are √ᾱ and √(1 - ᾱ)."),
        ((x_t - eps) / signal, "In x_t the noise has the factor sqrt(1 - alpha_bar_t); take away as much."),
        ((x_t + noise * eps) / signal, "The noise is added once more; it must be taken away."),
        (x_t / signal - noise * eps, "Only x_t is divided: brackets around the difference are missing."),
        (x_t - noise * eps / signal, "Only the noise is divided: brackets around the difference are missing."),
        ((x_t - signal * eps) / noise, "The two factors are swapped: this would be right for eps from x0."),
        ((x_t - noise * eps) * signal, "This multiplies by √ᾱ where it must divide."),
        ((x_t - noise * eps) / noise, "This divides by the factor of the noise; the picture's is sqrt(alpha_bar_t)."),
        ((x_t - (1 - signal) * eps) / signal, "In x_t the noise has the factor √(1 - ᾱ), not 1 - √ᾱ."),
        (x0.clamp(-1, 1), "The guess was clipped. That is a step of its own: return it as it comes out."),
        (signal * x_t - noise * eps, "This would be right for a model that predicts v, not eps: divide by √ᾱ."),
        ((x_t - (1 - first).sqrt() * eps) / first.sqrt(), "All samples got the time of the first. Each has its own."),
        ((x_t - (1 - early).sqrt() * eps) / early.sqrt(), "This looks up t - 1. In code t starts at 0, and so does the "
                                                          "table; index -1 would be its end."),
        ((x_t - (1 - for_pictures).sqrt() * eps) / for_pictures.sqrt(),
         "The factors were given four axes whatever x_t has. Here x_t is points, (batch, 2): expand_like(values, x_t) "
         "gives as many axes as x_t has."),
    ]  # fmt: skip
    close(learner(x_t, eps, t, table), x0, mistakes if named else (), tolerance=1e-3)


@exercise(
    "06.loss_by_time", objectives.loss_by_time, difficulty=3, minutes=15,
    hints=[
        "First find the bin of each sample: with T = 100 and 5 bins, times 0 to 19 are in bin 0.",
        "The bin is t * bins // T. Then take the mean of the losses in each bin.",
        "losses[index == b].mean() is the mean of bin b, and NaN if it is empty. A loop over the bins is fine.",
    ],
)  # fmt: skip
def loss_by_time(learner, case):
    """Find the mean loss at each noise level."""
    T, bins, n = 100, 5, 300
    empty = int(case.whole(1, 3))
    t = case.whole(0, T - 1, n)
    t = torch.where(t * bins // T == empty, (t + T // bins) % T, t)  # one bin stays without samples
    losses = case.uniform(0.1, 2, n) * (1 + t / T)
    chosen = [[loss for loss, time in zip(losses.tolist(), t.tolist(), strict=True) if time * bins // T == b]
              for b in range(bins)]  # fmt: skip
    expected = torch.tensor([sum(each) / len(each) if each else torch.nan for each in chosen])
    total = torch.tensor([sum(each) for each in chosen])
    count = torch.tensor([float(len(each)) for each in chosen])

    def means(index):
        return torch.stack([losses[index == b].mean() for b in range(bins)])

    no_samples = "A bin without samples has no mean. As 0 it would look like a perfect model: leave it NaN, 0 / 0."
    to_the_last = "The stretches end at the last time that occurs. They divide all T times: t * bins // T."
    mistakes = [
        (total, "These are sums: a bin with more samples looks worse. Divide by the number of samples in it."),
        (total / n, "This divides by the number of all samples; divide by the number in the bin."),
        (count, "This counts the samples of each bin; wanted is the mean of their losses."),
        (expected.nan_to_num(0), no_samples),
        (total / count.clamp(min=1), no_samples),
        (losses.mean().expand(bins), "All bins have the mean of everything. Choose the losses of each bin first."),
        (losses[: n // bins * bins].reshape(bins, -1).mean(1), "The losses were cut into pieces in the order in which "
                                                               "they came. Sort them by their t."),
        (losses[t.argsort()].reshape(bins, -1).mean(1), "Each bin got equally many samples. Wanted are equal "
                                                        "stretches of time, whatever falls into them."),
        (means(t // bins), "t // bins gives bins of `bins` times each, far more than wanted: t * bins // T."),
        (means((t - 1).clamp(min=0) * bins // T), "The bins begin one time too late: time 0 is the first of bin 0, in "
                                                  "code t starts at 0."),
        (means((t * bins / T).round()), "t * bins / T is rounded to the nearest. Cut off what follows the point: //."),
        (means(((t - t.min()) * bins / (t.max() - t.min())).long().clamp(max=bins - 1)), to_the_last),
        (torch.stack([t[t * bins // T == b].float().mean() for b in range(bins)]), "These are mean times. Wanted are "
                                                                                   "the mean losses."),
        (torch.cat([expected[1:], torch.tensor([torch.nan])]), "The first bin is missing: bins are counted from 0 to "
                                                               "bins - 1."),
        (expected[~expected.isnan()], "The bin without samples was left out. It keeps its place, with NaN."),
    ]  # fmt: skip
    close(learner(losses, t, T, bins), expected, mistakes)
    for T, bins, t in ((10, 4, torch.arange(10)), (7, 7, torch.tensor([6, 0, 0, 3])), (1000, 1, case.whole(0, 999, 9)),
                       (12, 5, torch.tensor([0, 4, 1])), (1, 1, torch.tensor([0]))):  # fmt: skip
        losses = case.uniform(0.1, 2, len(t))
        where = t.double() * bins / T
        expected = torch.stack([losses[(where >= b) & (where < b + 1)].mean() for b in range(bins)])
        short = torch.stack([losses[t // (T // bins) == b].mean() for b in range(bins)])
        cut = "T // bins loses the remainder, so that the latest times fall behind the last bin: t * bins // T."
        ended = "The last bins are missing. There are always `bins` of them, also where no sample falls into the last."
        to_nine = torch.stack([losses[(t * 4 / 9).long().clamp(max=3) == b].mean() for b in range(bins)])
        mistakes = {10: [(short, cut), (to_nine, to_the_last)], 12: [(expected[:2], ended)]}.get(T, ())
        close(learner(losses, t, T, bins), expected, mistakes)
