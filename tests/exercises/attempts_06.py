"""Attempts at the exercises of chapter 06."""

import torch
import torch.nn.functional as F
from attempts import mutant, variant

from course_utils.shapes import expand_like

LOSS, TIMES, STEP = "06.noise_prediction_loss", "06.sample_times", "06.training_step"
EMA, X0, BY_TIME = "06.ema_update", "06.x0_from_eps", "06.loss_by_time"


@mutant(LOSS, "sum over the pixels")
def summed_loss(eps_hat, eps):
    return (eps_hat - eps).square().sum((1, 2, 3))


@mutant(LOSS, "one number for the whole batch")
def loss_of_the_batch(eps_hat, eps):
    return F.mse_loss(eps_hat, eps)


@mutant(LOSS, "mean over the channels only")
def mean_over_channels(eps_hat, eps):
    return (eps_hat - eps).square().mean(1)


@mutant(LOSS, "wanted are squares")
def absolute_error(eps_hat, eps):
    return (eps_hat - eps).abs().flatten(1).mean(1)


@mutant(LOSS, "without `return`")
def forgotten_return(eps_hat, eps):
    (eps_hat - eps).square().flatten(1).mean(1)


@mutant(LOSS, "Square first")
def mean_before_the_square(eps_hat, eps):
    return (eps_hat - eps).mean(dim=(1, 2, 3)).square()


@variant(LOSS)
def loss_by_the_library(eps_hat, eps):
    return F.mse_loss(eps_hat, eps, reduction="none").mean(dim=(1, 2, 3))


@variant(LOSS)
def loss_in_a_loop(eps_hat, eps):
    return torch.stack([((a.double() - b.double()) ** 2).mean() for a, b in zip(eps_hat, eps, strict=True)])


@mutant(TIMES, "leaves its upper bound out")
def last_time_missing(count, T, generator):
    return torch.randint(0, T - 1, (count,), generator=generator)


@mutant(TIMES, "the paper's times")
def times_of_the_paper(count, T, generator):
    return torch.randint(1, T + 1, (count,), generator=generator)


@mutant(TIMES, "the last one has the index T - 1")
def one_time_too_many(count, T, generator):
    return torch.randint(0, T + 1, (count,), generator=generator)


@mutant(TIMES, "global generator")
def generator_forgotten(count, T, generator):
    return torch.randint(0, T, (count,))


@mutant(TIMES, "Both ends come half as often")
def rounded_times(count, T, generator):
    return (torch.rand(count, generator=generator) * (T - 1)).round().long()


@mutant(TIMES, "All samples have the same time")
def one_time_repeated(count, T, generator):
    return torch.randint(0, T, (1,), generator=generator).expand(count)


@mutant(TIMES, "dtype torch.float32")
def times_with_fractions(count, T, generator):
    return torch.rand(count, generator=generator) * T


@mutant(TIMES, "do not seed it again")
def seeded_again(count, T, generator):
    return torch.randint(0, T, (count,), generator=generator.manual_seed(0))


@variant(TIMES)
def times_by_randint(count, T, generator):
    return torch.randint(T, (count,), generator=generator)


@variant(TIMES)
def times_one_by_one(count, T, generator):
    return torch.tensor([int(u * T) for u in torch.rand(count, generator=generator).tolist()])


# The training steps call the other exercises by name, as notebooks do. Here these names have no meaning; a check
# gives them that of the references.


def draw(x0, alpha_bar, generator):
    """t, eps and x_t, right."""
    t = torch.randint(0, len(alpha_bar), (len(x0),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    a = expand_like(alpha_bar[t], x0)
    return t, eps, a.sqrt() * x0 + (1 - a).sqrt() * eps


@mutant(STEP, "compared with x0")
def predicts_the_picture(model, x0, alpha_bar, generator):
    t, _, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t, t), x0)


@mutant(STEP, "given x0 itself")
def clean_input(model, x0, alpha_bar, generator):
    t, eps, _ = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x0, t), eps)


@mutant(STEP, "another time than the model was told")
def told_another_time(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar[:-1], generator)
    return F.mse_loss(model(x_t, t + 1), eps)


@mutant(STEP, "Each sample draws a time of its own")
def one_time_for_the_batch(model, x0, alpha_bar, generator):
    t = sample_times(1, len(alpha_bar), generator).expand(len(x0))  # noqa: F821
    eps = torch.randn(x0.shape, generator=generator)
    return F.mse_loss(model(add_noise(x0, eps, t, alpha_bar), t), eps)  # noqa: F821


@mutant(STEP, "torch.rand draws uniform")
def uniform_noise(model, x0, alpha_bar, generator):
    t = sample_times(len(x0), len(alpha_bar), generator)  # noqa: F821
    eps = torch.rand(x0.shape, generator=generator)
    return F.mse_loss(model(add_noise(x0, eps, t, alpha_bar), t), eps)  # noqa: F821


@mutant(STEP, "all samples have the same noise")
def shared_noise(model, x0, alpha_bar, generator):
    t = sample_times(len(x0), len(alpha_bar), generator)  # noqa: F821
    eps = torch.randn(x0[:1].shape, generator=generator).expand_as(x0)
    return F.mse_loss(model(add_noise(x0, eps, t, alpha_bar), t), eps)  # noqa: F821


@mutant(STEP, "Draw eps once")
def noise_drawn_twice(model, x0, alpha_bar, generator):
    t, _, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t, t), torch.randn(x0.shape, generator=generator))


@mutant(STEP, "The optimizer needs one number")
def loss_for_each_sample(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return noise_prediction_loss(model(x_t, t), eps)  # noqa: F821


@mutant(STEP, "has no gradient")
def detached(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t, t), eps).item()


@mutant(STEP, "missing 1 required positional argument: 't'", state="error")
def time_not_told(model, x0, alpha_bar, generator):
    _, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t), eps)


@variant(STEP)
def step_by_hand(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t, t), eps)


@variant(STEP)
def step_with_the_other_exercises(model, x0, alpha_bar, generator):
    eps = torch.randn(x0.shape, generator=generator)
    t = sample_times(len(x0), len(alpha_bar), generator)  # noqa: F821
    losses = noise_prediction_loss(model(add_noise(x0, eps, t, alpha_bar), t, cond=None), eps)  # noqa: F821
    return losses.sum() / len(losses)


@mutant(EMA, "weights are swapped")
@torch.no_grad()
def swapped_weights(average, model, decay):
    for slow, new in zip(average.parameters(), model.parameters(), strict=True):
        slow.mul_(1 - decay).add_(decay * new)


@mutant(EMA, "did not change")
@torch.no_grad()
def only_renamed(average, model, decay):
    for slow, new in zip(average.parameters(), model.parameters(), strict=True):
        slow = decay * slow + (1 - decay) * new  # noqa: PLW2901


@mutant(EMA, "model's own parameters were changed")
@torch.no_grad()
def model_changed(average, model, decay):
    for slow, new in zip(average.parameters(), model.parameters(), strict=True):
        new.copy_(decay * slow + (1 - decay) * new)


@mutant(EMA, "memory would grow")
def gradients_recorded(average, model, decay):
    for slow, new in zip(average.parameters(), model.parameters(), strict=True):
        slow.mul_(decay).add_((1 - decay) * new)


@mutant(EMA, "added at full weight")
@torch.no_grad()
def full_weight(average, model, decay):
    for slow, new in zip(average.parameters(), model.parameters(), strict=True):
        slow.mul_(decay).add_(new)


@variant(EMA)
def by_state_dict(average, model, decay):
    old, new = average.state_dict(), model.state_dict()
    average.load_state_dict({name: decay * old[name] + (1 - decay) * new[name] for name in old})


@variant(EMA)
def by_data_and_lerp(average, model, decay):
    for slow, new in zip(average.parameters(), model.parameters(), strict=True):
        slow.data = new.data.lerp(slow.data, decay)


@mutant(X0, "divide by that root")
def not_divided(x_t, eps, t, alpha_bar):
    return x_t - (1 - expand_like(alpha_bar[t], x_t)).sqrt() * eps


@mutant(X0, "divides by ᾱ where √ᾱ belongs")
def divided_by_alpha_bar(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return (x_t - (1 - a).sqrt() * eps) / a


@mutant(X0, "added once more")
def noise_added(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return (x_t + (1 - a).sqrt() * eps) / a.sqrt()


@mutant(X0, "take away as much")
def whole_noise_taken(x_t, eps, t, alpha_bar):
    return (x_t - eps) / expand_like(alpha_bar[t], x_t).sqrt()


@mutant(X0, "brackets around the difference")
def brackets_missing(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return x_t / a.sqrt() - (1 - a).sqrt() * eps


@variant(X0)
def by_the_ratio_of_noise_and_signal(x_t, eps, t, alpha_bar):
    a = alpha_bar[t].view(-1, 1, 1, 1)
    return x_t * a.rsqrt() - (1 / a - 1).sqrt() * eps


@variant(X0)
def guess_in_a_loop(x_t, eps, t, alpha_bar):
    x0 = torch.empty_like(x_t, dtype=torch.float64)
    for i, share in enumerate(alpha_bar[t].double()):
        x0[i] = (x_t[i] - (1 - share).sqrt() * eps[i]) / share.sqrt()
    return x0


def means(losses, index, bins):
    return torch.stack([losses[index == b].mean() for b in range(bins)])


@mutant(BY_TIME, "These are sums")
def sums(losses, t, T, bins):
    return torch.stack([losses[t * bins // T == b].sum() for b in range(bins)])


@mutant(BY_TIME, "leave it NaN")
def zero_for_empty(losses, t, T, bins):
    return means(losses, t * bins // T, bins).nan_to_num(0)


@mutant(BY_TIME, "equally many samples")
def equal_counts(losses, t, T, bins):
    return losses[t.argsort()].reshape(bins, -1).mean(1)


@mutant(BY_TIME, "begin one time too late")
def one_time_late(losses, t, T, bins):
    return means(losses, (t - 1).clamp(min=0) * bins // T, bins)


@mutant(BY_TIME, "order in which they came")
def unsorted(losses, t, T, bins):
    return losses.reshape(bins, -1).mean(1)


@variant(BY_TIME)
def by_mask(losses, t, T, bins):
    return means(losses, t * bins // T, bins)


@variant(BY_TIME)
def by_edges_in_a_loop(losses, t, T, bins):
    edges = [T * b / bins for b in range(bins + 1)]
    found = [losses.double()[(t >= low) & (t < high)].mean() for low, high in zip(edges, edges[1:], strict=False)]
    return torch.stack(found)


@mutant(X0, "Only the noise is divided")
def noise_alone_divided(x_t, eps, t, alpha_bar):
    share = expand_like(alpha_bar[t], x_t)
    return x_t - (1 - share).sqrt() * eps / share.sqrt()


@mutant(BY_TIME, "far more than wanted")
def bins_of_bins(losses, t, T, bins):
    return torch.stack([losses[t // bins == b].mean() for b in range(bins)])
