"""The exercises of chapter 06: the network learns to see the noise."""

import copy

import torch
from torch import nn

from course_utils import training
from course_utils.diffusion import objectives
from course_utils.exercises.oracles import Wrong, close, require, require_tensor
from course_utils.exercises.registry import exercise

TITLE = "Predicting the noise"


@exercise(
    "06.noise_prediction_loss", objectives.noise_prediction_loss, difficulty=2, minutes=10,
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
        (error.sum(), "This is the sum over everything. Wanted is one mean for each sample."),
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
    # A data set of one point x0: then the noise in x_t is known exactly, and predicting it leaves nothing.
    x0, share = case.normal(3, 8, 8), case.uniform(0.1, 0.9)
    x_t = share.sqrt() * x0 + (1 - share).sqrt() * eps
    worst = learner((x_t - share.sqrt() * x0) / (1 - share).sqrt(), eps).abs().max().item()
    require(worst < 1e-8, f"for the exact prediction got a loss of {worst:.3g}, expected 0.",
            "If eps_hat and eps agree, nothing may be left.")  # fmt: skip


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
    generator = case.generator()
    t = learner(count, T, generator)
    require_tensor(t, torch.zeros(count))
    require(t.shape == (count,), f"the result has the shape {tuple(t.shape)}, expected ({count},).",
            "One time for each sample: `count` numbers.")  # fmt: skip
    require(t.dtype == torch.int64, f"the times have the dtype {t.dtype}, expected torch.int64.",
            "Times index the table alpha_bar, so they are whole numbers: torch.randint, or .long().")  # fmt: skip
    _require_range(t, T)
    share = torch.bincount(t, minlength=T) / count * T
    rarest, most = share.min().item(), share.max().item()
    advice = "Draw all with the same chance."
    if share[0] < 0.7 and share[-1] < 0.7:
        advice = "Both ends come half as often: rounding gives them half a stretch. Cut off with .long() instead."
    require(rarest > 0.87 and most < 1.13, f"the rarest time came {rarest:.2f} and the most frequent {most:.2f} times "
            f"as often as expected, in {count} draws.", advice)  # fmt: skip
    again = learner(count, T, case.generator())
    require(t.equal(again), "two generators in the same state gave different times, expected the same ones.",
            "All randomness comes from the generator that is passed.")  # fmt: skip
    require(not t.equal(learner(count, T, generator)), "a second call with the same generator gave the same times.",
            "The generator goes on by itself from call to call: do not seed it again in here.")  # fmt: skip


def _require_range(t, T):
    low, high = t.min().item(), t.max().item()
    found = f"the times go from {low} to {high}, expected 0 to {T - 1}."
    if low == high:
        raise Wrong(found, "All samples have the same time. Each draws its own: torch.randint(0, T, (count,), ...).")
    if (low, high) == (1, T):
        raise Wrong(found, "These are the paper's times, 1 ... T. In code they start at 0: subtract 1.")
    require(high < T, found, f"alpha_bar has T = {T} entries, and the last one has the index T - 1.")
    require(high == T - 1, found, "The largest time never comes: torch.randint leaves its upper bound out, so that "
            "bound is T.")  # fmt: skip
    require(low == 0, found, "Time 0, the least noise, never comes. In code times start at 0.")


class _Recorder(nn.Module):
    """A model with one parameter that remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.calls = []

    def forward(self, x_t, t, cond=None):
        self.calls.append((x_t.detach(), t))
        return self.scale * x_t


@exercise(
    "06.training_step", objectives.training_step, difficulty=3, minutes=15,
    uses=("05.add_noise", "06.sample_times", "06.noise_prediction_loss"),
    hints=[
        "Four lines: draw t, draw eps, make x_t, compare the model's answer with eps. You have written three of them.",
        "t = sample_times(len(x0), len(alpha_bar), generator), and the noise has the shape of x0.",
        "The model sees x_t and t, never eps and never x0: model(x_t, t).",
        "noise_prediction_loss(model(x_t, t), eps) has shape (batch,). Return its mean, as a tensor.",
    ],
)  # fmt: skip
def training_step(learner, case):
    """Put the training step together: from clean pictures to a loss."""
    x0, table = 5 * case.normal(64, 3, 4, 4), (1 - torch.linspace(0.02, 0.2, 50)).cumprod(0)
    model = _Recorder()
    loss = learner(model, x0, table, case.generator())
    x_t, t = _require_one_call(model, x0, len(table))
    eps = _require_noise(x0, x_t, t, table)
    prediction = 0.5 * x_t
    per_sample = (prediction - eps).square().flatten(1).mean(1)
    mistakes = [
        ((prediction - x0).square().mean(), "The model's answer is compared with x0. It shall predict the noise, eps."),
        ((prediction - x_t).square().mean(), "The model's answer is compared with x_t. It shall predict eps."),
        (per_sample, "This is one loss for each sample. The optimizer needs one number: .mean()."),
        (per_sample.sum(), "This is the sum over the batch. The mean does not depend on the batch's size."),
        ((prediction - eps).square().sum(), "This is a sum; the mean does not depend on the sizes."),
    ]
    if isinstance(loss, torch.Tensor) and loss.ndim == 0:
        independent = prediction.square().mean() + 1  # what noise that has nothing to do with x_t would give
        unrelated = abs(loss - independent) < 0.1 * independent and loss > 1.2 * per_sample.mean()
        require(not unrelated, f"got a loss of {loss:.4g}, expected {per_sample.mean():.4g}.",
                "The model's answer is compared with noise that is not in x_t. Draw eps once.")  # fmt: skip
    close(loss, per_sample.mean(), mistakes)
    require(isinstance(loss, torch.Tensor) and loss.requires_grad, "the loss has no gradient, expected one that leads "
            "back to the model.", "No .item(), .detach() or torch.no_grad() between model and loss.")  # fmt: skip
    again = learner(_Recorder(), x0, table, case.generator())
    close(again, loss, what="with a second generator in the same state, the loss")


def _require_one_call(model, x0, T):
    """Return the (x_t, t) that the model was called with, or raise Wrong."""
    require(len(model.calls) == 1, f"the model was called {len(model.calls)} times, expected once.",
            "One call for the whole batch: model(x_t, t).")  # fmt: skip
    x_t, t = model.calls[0]
    require(x_t.shape == x0.shape, f"the model got an input of shape {tuple(x_t.shape)}, expected {tuple(x0.shape)}.")
    require(not x_t.equal(x0), "the model was given x0 itself, expected x_t.",
            "There is no noise to find in a clean picture: call add_noise first.")  # fmt: skip
    shape = tuple(t.shape) if isinstance(t, torch.Tensor) else type(t).__name__
    require(shape == (len(x0),), f"the model got times of shape {shape}, expected ({len(x0)},).",
            "Each sample has a time of its own: one for each of the batch.")  # fmt: skip
    require(not t.is_floating_point() and t.min() >= 0 and t.max() < T,
            f"the model got times from {t.min()} to {t.max()}, expected whole numbers from 0 to {T - 1}.",
            "The model is given the t with which x_t was made.")  # fmt: skip
    require(len(t.unique()) > 5, f"the batch of {len(x0)} has {len(t.unique())} different times, expected many.",
            "Each sample draws a time of its own: sample_times(len(x0), ...).")  # fmt: skip
    return x_t, t


def _require_noise(x0, x_t, t, table):
    """Return the noise that is in x_t at time t, or raise Wrong if it is not standard normal."""

    def noise_at(t):
        share = table[t.clamp(0, len(table) - 1)].reshape(-1, 1, 1, 1)
        return (x_t - share.sqrt() * x0) / (1 - share).sqrt()

    def left_of_x0(t):
        return torch.corrcoef(torch.stack([noise_at(t).flatten(), x0.flatten()]))[0, 1].abs().item()

    if left_of_x0(t) > 0.1:
        other = min(left_of_x0(t - 1), left_of_x0(t + 1))
        raise Wrong("x_t minus sqrt(alpha_bar_t) x0 still holds some x0, expected noise only.",
                    "x_t was made with another time than the model was told: use one t for both." if other < 0.08 else
                    "Is x_t = add_noise(x0, eps, t, alpha_bar), with the t that the model is given?")  # fmt: skip
    eps = noise_at(t)
    require((eps[0] - eps[1]).abs().max() > 1e-3, "all samples have the same noise, expected each its own.",
            "Draw noise of the shape of x0, with the batch axis.")  # fmt: skip
    mean, std = eps.mean().item(), eps.std().item()
    require(abs(mean) < 0.12 and abs(std - 1) < 0.12, f"the noise in x_t has mean {mean:.2f} and standard deviation "
            f"{std:.2f}, expected 0 and 1.", "torch.randn draws standard normal numbers; torch.rand draws uniform "
            "ones between 0 and 1.")  # fmt: skip
    return eps


@exercise(
    "06.ema_update", training.ema_update, difficulty=2, minutes=10,
    hints=[
        "Go through the parameters of both models in pairs: zip(average.parameters(), model.parameters()).",
        "The average keeps the share `decay` of itself (0.999: nearly all) and takes the rest from the model.",
        "Write into the existing parameter, under torch.no_grad(): p_average.copy_(...), or .mul_(decay).add_(...).",
    ],
)  # fmt: skip
def ema_update(learner, case):
    """Let an average follow the model's parameters slowly."""
    model, average = _linear(case), _linear(case).requires_grad_(False)
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
    ]  # fmt: skip
    what = "the average's parameters, one after the other"
    close(_flat(average), decay * before + (1 - decay) * new, mistakes, what=what)
    require(not any(p.requires_grad for p in average.parameters()),
            "the average now remembers how it was computed, expected plain numbers.",
            "Gradients were recorded, and memory would grow with each step: update under torch.no_grad().")  # fmt: skip


def _linear(case):
    layer = nn.Linear(3, 4)
    layer.load_state_dict({"weight": case.normal(4, 3), "bias": case.normal(4)})
    return copy.deepcopy(layer)


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
    """Guess the clean picture in one step: the ink blot."""
    table = (1 - case.uniform(0.01, 0.1, 40)).cumprod(0)
    t = torch.cat([torch.tensor([0, 39]), case.whole(1, 38, 3)])
    share = table[t].reshape(-1, 1, 1, 1)
    signal, noise = share.sqrt(), (1 - share).sqrt()
    x0, eps = case.normal(5, 3, 8, 8), case.normal(5, 3, 8, 8)
    x_t = signal * x0 + noise * eps
    first = table[t[0]]
    mistakes = [
        (x_t - noise * eps, "The noise is gone, but what is left is sqrt(alpha_bar_t) x0: divide by that root."),
        ((x_t - noise * eps) / share, "This divides by ᾱ where √ᾱ belongs."),
        ((x_t - (1 - share) * eps) / signal, "This takes 1 - ᾱ of eps away where √(1 - ᾱ) is in x_t."),
        ((x_t - eps) / signal, "In x_t the noise has the factor sqrt(1 - alpha_bar_t); take away as much."),
        ((x_t + noise * eps) / signal, "The noise is added once more; it must be taken away."),
        (x_t / signal - noise * eps, "Only x_t is divided: brackets around the difference are missing."),
        (x_t - noise * eps / signal, "Only the noise is divided: brackets around the difference are missing."),
        ((x_t - signal * eps) / noise, "The two factors are swapped: this would be right for eps from x0."),
        ((x_t - noise * eps) * signal, "This multiplies by √ᾱ where it must divide."),
        ((x_t - (1 - first).sqrt() * eps) / first.sqrt(), "All samples got the time of the first. Each has its own."),
    ]
    close(learner(x_t, eps, t, table), x0, mistakes, tolerance=1e-3)


@exercise(
    "06.loss_by_time", objectives.loss_by_time, difficulty=3, minutes=15,
    hints=[
        "First find the bin of each sample: with T = 100 and 5 bins, times 0 to 19 are in bin 0.",
        "The bin is t * bins // T. Then take the mean of the losses in each bin.",
        "losses[index == b].mean() is the mean of bin b, and NaN if it is empty. A loop over the bins is fine.",
    ],
)  # fmt: skip
def loss_by_time(learner, case):
    """Find at which times the model has most to learn."""
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
    late = torch.stack([losses[((t - 1).clamp(min=0) * bins // T) == b].mean() for b in range(bins)])
    no_samples = "A bin without samples has no mean. As 0 it would look like a perfect model: leave it NaN, 0 / 0."
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
        (torch.stack([losses[t // bins == b].mean() for b in range(bins)]),
         "t // bins gives bins of `bins` times each, far more than wanted: t * bins // T."),
        (late, "The bins begin one time too late: time 0 is the first of bin 0, in code t starts at 0."),
    ]  # fmt: skip
    close(learner(losses, t, T, bins), expected, mistakes)
