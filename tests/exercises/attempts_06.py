"""Attempts at the exercises of chapter 06."""

import numpy as np
import torch
import torch.nn.functional as F
from attempts import mutant, variant
from torch import nn

from course_utils.shapes import expand_like

LOSS, TIMES, STEP = "06.noise_prediction_loss", "06.sample_times", "06.training_step"
BOUND = "06.bound_weights"
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


@mutant(LOSS, "Average over every axis but the first")
def loss_of_pictures_only(eps_hat, eps):
    return F.mse_loss(eps_hat, eps, reduction="none").mean(dim=(1, 2, 3))


@mutant(LOSS, "sum over everything")
def loss_summed_over_all(eps_hat, eps):
    return F.mse_loss(eps_hat, eps, reduction="sum")


@mutant(LOSS, "not averaged yet")
def squares_only(eps_hat, eps):
    return (eps_hat - eps) ** 2


@mutant(LOSS, "The batch was averaged away")
def channels_left(eps_hat, eps):
    return (eps_hat - eps).square().transpose(0, 1).flatten(1).mean(1)


@mutant(LOSS, "the root of the mean")
def root_mean_square(eps_hat, eps):
    return (eps_hat - eps).square().flatten(1).mean(1).sqrt()


@mutant(LOSS, "The square is missing")
def differences_averaged(eps_hat, eps):
    return (eps_hat - eps).flatten(1).mean(1)


@mutant(LOSS, "no way back")
def loss_in_a_list(eps_hat, eps):
    return torch.tensor([F.mse_loss(a, b).item() for a, b in zip(eps_hat, eps, strict=True)])


@mutant(LOSS, "no gradient comes back to eps_hat")
def loss_of_a_detached_answer(eps_hat, eps):
    return (eps_hat.detach() - eps).square().flatten(1).mean(1)


@mutant(LOSS, "dtype torch.float64")
def loss_in_float64(eps_hat, eps):
    return (eps_hat.double() - eps.double()).square().flatten(1).mean(1)


@mutant(LOSS, "the input eps_hat was changed in place")
def difference_in_place(eps_hat, eps):
    return eps_hat.detach().sub_(eps).square().flatten(1).mean(1)


@variant(LOSS)
def loss_by_the_library(eps_hat, eps):
    return F.mse_loss(eps_hat, eps, reduction="none").mean(dim=list(range(1, eps.ndim)))


@variant(LOSS)
def loss_by_einsum(eps_hat, eps):
    off = (eps_hat - eps).reshape(len(eps), -1)
    return torch.einsum("bd,bd->b", off, off) / off.shape[1]


@variant(LOSS)
def loss_in_a_loop(eps_hat, eps):
    return torch.stack([((a.double() - b.double()) ** 2).mean() for a, b in zip(eps_hat, eps, strict=True)]).float()


@mutant(TIMES, "leaves its upper bound out")
def last_time_missing(count, T, generator):
    return torch.randint(0, T - 1, (count,), generator=generator)


@mutant(TIMES, "the paper's times")
def times_of_the_paper(count, T, generator):
    return torch.randint(1, T + 1, (count,), generator=generator)


@mutant(TIMES, "times run from 0 to T - 1")
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


@mutant(TIMES, "from call to call: do not seed it again")
def seeded_with_its_own_seed(count, T, generator):
    generator.manual_seed(generator.initial_seed())
    return torch.randint(0, T, (count,), generator=generator)


@mutant(TIMES, "Time 0, the least noise, never comes")
def first_time_missing(count, T, generator):
    return torch.randint(1, T, (count,), generator=generator)


@mutant(TIMES, "Draw all with the same chance")
def middle_more_often(count, T, generator):
    return (torch.rand(2, count, generator=generator).mean(0) * T).long()


@mutant(TIMES, "`count` numbers")
def times_as_a_column(count, T, generator):
    return torch.randint(0, T, (count, 1), generator=generator)


OF_NUMPY = np.random.default_rng(0)


@mutant(TIMES, "no number was drawn from the generator that")
def generator_of_its_own(count, T, generator):
    return torch.from_numpy(OF_NUMPY.integers(0, T, count))


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


@mutant(STEP, "another time than the model was given")
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


@mutant(STEP, "is the Python number")
def detached(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t, t), eps).item()


@mutant(STEP, "*and* their times")
def time_not_told(model, x0, alpha_bar, generator):
    _, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t), eps)


T = 1000  # as in the notebook


@mutant(STEP, "whatever T is in the notebook")
def times_of_the_notebook(model, x0, alpha_bar, generator):
    t = sample_times(len(x0), T, generator)  # noqa: F821
    eps = torch.randn(x0.shape, generator=generator)
    return F.mse_loss(model(add_noise(x0, eps, t, alpha_bar), t), eps)  # noqa: F821


@mutant(STEP, "The times stop before the table ends")
def times_below_a_thousand(model, x0, alpha_bar, generator):
    t = sample_times(len(x0), min(T, len(alpha_bar)), generator)  # noqa: F821
    eps = torch.randn(x0.shape, generator=generator)
    return F.mse_loss(model(add_noise(x0, eps, t, alpha_bar), t), eps)  # noqa: F821


@mutant(STEP, "the first and the last as well")
def last_time_never_drawn(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar[:-1], generator)
    return F.mse_loss(model(x_t, t), eps)


@mutant(STEP, "with x_t. It predicts")
def predicts_the_noisy_picture(model, x0, alpha_bar, generator):
    t, _, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t, t), x_t)


@mutant(STEP, "The noise is compared with x0")
def model_left_out_of_the_loss(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    model(x_t, t)
    return F.mse_loss(eps, x0)


@mutant(STEP, "sum over the batch")
def losses_added_up(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return noise_prediction_loss(model(x_t, t), eps).sum()  # noqa: F821


@mutant(STEP, "sum over everything")
def all_added_up(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t, t), eps, reduction="sum")


@mutant(STEP, "mean absolute error")
def absolute_step(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.l1_loss(model(x_t, t), eps)


@mutant(STEP, "the root of the mean square error")
def root_of_the_loss(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t, t), eps).sqrt()


@mutant(STEP, "has no way back")
def step_without_gradients(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    with torch.no_grad():
        return F.mse_loss(model(x_t, t), eps)


@mutant(STEP, "no gradient comes back to the model")
def step_with_a_new_leaf(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t, t).detach().requires_grad_(), eps)


@mutant(STEP, "was left with a gradient")
def backward_inside(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    loss = F.mse_loss(model(x_t, t), eps)
    loss.backward(retain_graph=True)
    return loss


@mutant(STEP, "was left in evaluation mode")
def model_left_in_eval(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model.eval()(x_t, t), eps)


@mutant(STEP, "The generator goes on by itself from step to step")
def step_seeded_again(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator.manual_seed(generator.initial_seed()))
    return F.mse_loss(model(x_t, t), eps)


@mutant(STEP, "global generator")
def noise_from_anywhere(model, x0, alpha_bar, generator):
    t = sample_times(len(x0), len(alpha_bar), generator)  # noqa: F821
    eps = torch.randn_like(x0)
    return F.mse_loss(model(add_noise(x0, eps, t, alpha_bar), t), eps)  # noqa: F821


@mutant(STEP, "One call for the whole batch")
def sample_by_sample(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return torch.stack([F.mse_loss(model(x_t[i : i + 1], t[i : i + 1]), eps[i : i + 1]) for i in range(len(x0))]).mean()


@mutant(STEP, "Each sample has a time of its own")
def one_number_as_time(model, x0, alpha_bar, generator):
    t = sample_times(1, len(alpha_bar), generator)  # noqa: F821
    eps = torch.randn(x0.shape, generator=generator)
    return F.mse_loss(model(add_noise(x0, eps, t.expand(len(x0)), alpha_bar), t), eps)  # noqa: F821


@mutant(STEP, "with which x_t was made")
def time_as_a_fraction(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t, t / len(alpha_bar)), eps)


@mutant(STEP, "with the t that the model is given")
def x_t_without_its_factor(model, x0, alpha_bar, generator):
    t, eps, _ = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x0 + eps, t), eps)


@mutant(STEP, "first the noisy samples, of the shape of x0, then their times")
def flat_input(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(x_t.flatten(1), t).reshape(x0.shape), eps)


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


@mutant(EMA, "became a copy of the model")
@torch.no_grad()
def copied(average, model, decay):
    average.load_state_dict(model.state_dict())


@mutant(EMA, "The old value keeps its full weight")
@torch.no_grad()
def old_at_full_weight(average, model, decay):
    for slow, new in zip(average.parameters(), model.parameters(), strict=True):
        slow.add_((1 - decay) * new)


@mutant(EMA, "Both got the weight 1/2")
@torch.no_grad()
def plain_mean(average, model, decay):
    for slow, new in zip(average.parameters(), model.parameters(), strict=True):
        slow.copy_((slow + new) / 2)


@mutant(EMA, "Some parameters were left out")
@torch.no_grad()
def weights_only(average, model, decay):
    for (name, slow), new in zip(average.named_parameters(), model.parameters(), strict=True):
        if "weight" in name:
            slow.lerp_(new, 1 - decay)


@mutant(EMA, "evaluation mode")
@torch.no_grad()
def average_switched(average, model, decay):
    for slow, new in zip(average.eval().parameters(), model.parameters(), strict=True):
        slow.lerp_(new, 1 - decay)


@mutant(EMA, "torch.float64")
@torch.no_grad()
def average_converted(average, model, decay):
    for slow, new in zip(average.double().parameters(), model.parameters(), strict=True):
        slow.copy_(decay * slow + (1 - decay) * new)


@mutant(EMA, "the parameter decay is called momentum")
@torch.no_grad()
def decay_renamed(average, model, momentum):
    for slow, new in zip(average.parameters(), model.parameters(), strict=True):
        slow.copy_(momentum * slow + (1 - momentum) * new)


@variant(EMA)
@torch.no_grad()
def by_vectors(average, model, decay):
    old, new = (nn.utils.parameters_to_vector(each.parameters()) for each in (average, model))
    nn.utils.vector_to_parameters(decay * old + (1 - decay) * new, average.parameters())


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


@variant(X0)
def by_the_ratio_of_noise_and_signal(x_t, eps, t, alpha_bar):
    a = alpha_bar[t].view(-1, *[1] * (x_t.ndim - 1))
    return x_t * a.rsqrt() - (1 / a - 1).sqrt() * eps


@variant(X0)
def guess_in_a_loop(x_t, eps, t, alpha_bar):
    x0 = torch.empty_like(x_t)
    for i, share in enumerate(alpha_bar[t].double()):
        x0[i] = (x_t[i] - (1 - share).sqrt() * eps[i]) / share.sqrt()
    return x0


@variant(X0)
def guess_by_numpy(x_t, eps, t, alpha_bar):
    share = np.expand_dims(alpha_bar.numpy()[t.numpy()], tuple(range(1, x_t.ndim)))
    return torch.from_numpy((x_t.numpy() - np.sqrt(1 - share) * eps.numpy()) / np.sqrt(share))


@mutant(X0, "dtype torch.float64")
def guess_in_float64(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t).double()
    return (x_t - (1 - a).sqrt() * eps) / a.sqrt()


@mutant(X0, "four axes whatever x_t has")
def guess_for_pictures(x_t, eps, t, alpha_bar):
    a = alpha_bar[t].view(-1, 1, 1, 1)
    return (x_t - (1 - a).sqrt() * eps) / a.sqrt()


@mutant(X0, "where √(1 - ᾱ) is in x_t")
def root_of_the_noise_missing(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return (x_t - (1 - a) * eps) / a.sqrt()


@mutant(X0, "Both roots are missing")
def guess_without_roots(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return (x_t - (1 - a) * eps) / a


@mutant(X0, "Only x_t is divided: brackets")
def x_t_alone_divided(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return x_t / a.sqrt() - (1 - a).sqrt() * eps


@mutant(X0, "for eps from x0")
def noise_from_the_picture(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return (x_t - a.sqrt() * eps) / (1 - a).sqrt()


@mutant(X0, "where it must divide")
def multiplied_by_the_root(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return (x_t - (1 - a).sqrt() * eps) * a.sqrt()


@mutant(X0, "predicts v")
def guess_from_v(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return a.sqrt() * x_t - (1 - a).sqrt() * eps


@mutant(X0, "All samples got the time of the first")
def guess_at_one_time(x_t, eps, t, alpha_bar):
    a = alpha_bar[t[0]]
    return (x_t - (1 - a).sqrt() * eps) / a.sqrt()


@mutant(X0, "This looks up t - 1")
def guess_one_too_early(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t - 1], x_t)
    return (x_t - (1 - a).sqrt() * eps) / a.sqrt()


@mutant(X0, "the input x_t was changed in place")
def guess_in_place(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return x_t.sub_((1 - a).sqrt() * eps).div_(a.sqrt())


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
    found = [losses[(t >= low) & (t < high)].mean() for low, high in zip(edges, edges[1:], strict=False)]
    return torch.stack(found)


@variant(BY_TIME)
def by_numpy_histograms(losses, t, T, bins):
    index = (t.numpy() * bins) // T
    with np.errstate(invalid="ignore"):
        found = np.bincount(index, losses.numpy(), bins) / np.bincount(index, minlength=bins)
    return torch.from_numpy(found).float()


@variant(BY_TIME)
def by_scatter(losses, t, T, bins):
    start = torch.full((bins,), torch.nan)
    return start.scatter_reduce(0, t * bins // T, losses, "mean", include_self=False)


@mutant(BY_TIME, "dtype torch.float64")
def bins_in_float64(losses, t, T, bins):
    return means(losses.double(), t * bins // T, bins)


@mutant(BY_TIME, "divides by the number of all samples")
def shares_of_the_sum(losses, t, T, bins):
    return torch.stack([losses[t * bins // T == b].sum() for b in range(bins)]) / len(losses)


@mutant(BY_TIME, "This counts the samples")
def counts(losses, t, T, bins):
    return torch.bincount(t * bins // T, minlength=bins).float()


@mutant(BY_TIME, "mean of everything")
def one_mean_for_all(losses, t, T, bins):
    return losses.mean().repeat(bins)


@mutant(BY_TIME, "rounded to the nearest")
def bins_by_rounding(losses, t, T, bins):
    return means(losses, (t * bins / T).round(), bins)


@mutant(BY_TIME, "It keeps its place")
def empty_bins_left_out(losses, t, T, bins):
    index = t * bins // T
    return torch.stack([losses[index == b].mean() for b in index.unique()])


@mutant(BY_TIME, "loses the remainder")
def stretches_too_short(losses, t, T, bins):
    return means(losses, t // (T // bins), bins)


@mutant(BY_TIME, "The last bins are missing")
def as_many_bins_as_are_hit(losses, t, T, bins):
    index = t * bins // T
    return torch.bincount(index, losses).float() / torch.bincount(index)


@mutant(BY_TIME, "leave it NaN, 0 / 0")
def at_least_one_sample(losses, t, T, bins):
    index = t * bins // T
    total = torch.bincount(index, losses, minlength=bins).float()
    return total / torch.bincount(index, minlength=bins).clamp(min=1)


@mutant(X0, "Only the noise is divided")
def noise_alone_divided(x_t, eps, t, alpha_bar):
    share = expand_like(alpha_bar[t], x_t)
    return x_t - (1 - share).sqrt() * eps / share.sqrt()


@mutant(BY_TIME, "far more than wanted")
def bins_of_bins(losses, t, T, bins):
    return torch.stack([losses[t // bins == b].mean() for b in range(bins)])


@mutant(LOSS, "The mean went over the batch")
def mean_over_the_batch(eps_hat, eps):
    return (eps_hat - eps).square().flatten(1).mean(0)


@mutant(LOSS, "the length of the error")
def length_of_the_error(eps_hat, eps):
    return (eps_hat - eps).flatten(1).norm(dim=1)


@mutant(LOSS, "there is no factor 1/2")
def half_of_the_loss(eps_hat, eps):
    return (eps_hat - eps).square().flatten(1).mean(1) / 2


@mutant(LOSS, "leave keepdim away")
def axis_kept(eps_hat, eps):
    return (eps_hat - eps).square().flatten(1).mean(1, keepdim=True)


@mutant(TIMES, "no number was drawn from the generator that was passed")
def times_in_a_row(count, T, generator):
    return torch.arange(count) % T


@mutant(TIMES, "that of the T which was passed")
def at_least_a_hundred_times(count, T, generator):
    return torch.randint(0, T if count > 1 else 2 * T + 100, (count,), generator=generator)


@mutant(STEP, "of the shape of x0, then their times")
def arguments_swapped(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return F.mse_loss(model(t, x_t), eps)


@variant(STEP)
def step_with_float_times(model, x0, alpha_bar, generator):
    t, eps, x_t = draw(x0, alpha_bar, generator)
    return torch.stack([(a - b).square().mean() for a, b in zip(model(x_t, t.float()), eps, strict=True)]).mean()


@mutant(EMA, "The decay is a number of its own here")
@torch.no_grad()
def decay_hard_coded(average, model, decay):
    for slow, new in zip(average.parameters(), model.parameters(), strict=True):
        slow.mul_(0.999).add_(0.001 * new)


@mutant(X0, "divides by the factor of the noise")
def divided_by_the_noise(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return (x_t - (1 - a).sqrt() * eps) / (1 - a).sqrt()


@mutant(X0, "not 1 - √ᾱ")
def one_minus_the_root_of_noise(x_t, eps, t, alpha_bar):
    signal = expand_like(alpha_bar[t], x_t).sqrt()
    return (x_t - (1 - signal) * eps) / signal


@mutant(X0, "The guess was clipped")
def guess_clipped(x_t, eps, t, alpha_bar):
    a = expand_like(alpha_bar[t], x_t)
    return ((x_t - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)


@mutant(BY_TIME, "The stretches end at the last time that occurs")
def histogram_of_what_occurs(losses, t, T, bins):
    total, _ = np.histogram(t.numpy(), bins, weights=losses.numpy())
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(total / np.histogram(t.numpy(), bins)[0]).float()


@mutant(BY_TIME, "These are mean times")
def mean_times(losses, t, T, bins):
    return means(t.float(), t * bins // T, bins)


@mutant(BY_TIME, "The first bin is missing")
def bins_from_one(losses, t, T, bins):
    return torch.stack([losses[t * bins // T == b].mean() for b in range(1, bins + 1)])


@mutant(LOSS, "the loss is 0")
def never_quite_zero(eps_hat, eps):
    return (eps_hat - eps).square().flatten(1).mean(1) + 1e-6


def parts_of_bound(beta):
    """beta_t, alpha_t, alpha_bar at t and at t - 1, and the variance of the step back, for t = 1 ... T-1."""
    alpha_bar = (1 - beta).cumprod(0)
    now, before = alpha_bar[1:], alpha_bar[:-1]
    return beta[1:], 1 - beta[1:], now, before, (1 - before) / (1 - now) * beta[1:]


def wrong_bound(words, formula):
    mutant(BOUND, words)(lambda beta: formula(*parts_of_bound(beta)))


wrong_bound("factor 1/2 is missing", lambda b, a, now, before, tilde: b**2 / (tilde * a * (1 - now)))
wrong_bound("takes beta_t for the variance", lambda b, a, now, before, tilde: b / (2 * a * (1 - now)))
wrong_bound("do not square it", lambda b, a, now, before, tilde: b**2 / (2 * tilde**2 * a * (1 - now)))
wrong_bound("beta_t is not squared", lambda b, a, now, before, tilde: b / (2 * tilde * a * (1 - now)))
wrong_bound(
    "divides by alpha_bar_t where alpha_t", lambda b, a, now, before, tilde: b**2 / (2 * tilde * now * (1 - now))
)
wrong_bound("is 1 / α: no root", lambda b, a, now, before, tilde: b**2 / (2 * tilde * a.sqrt() * (1 - now)))
wrong_bound("is 1 - ᾱ: no root", lambda b, a, now, before, tilde: b**2 / (2 * tilde * a * (1 - now).sqrt()))
wrong_bound("factor alpha_t = 1 - beta_t below", lambda b, a, now, before, tilde: b**2 / (2 * tilde * (1 - now)))
wrong_bound("factor 1 - alpha_bar_t below", lambda b, a, now, before, tilde: b**2 / (2 * tilde * a))
wrong_bound("where 1 - alpha_bar_t belongs", lambda b, a, now, before, tilde: b**2 / (2 * tilde * a * now))
wrong_bound("the last factor belongs to t", lambda b, a, now, before, tilde: b**2 / (2 * tilde * a * (1 - before)))
wrong_bound("upside down", lambda b, a, now, before, tilde: b * (1 - before) / (2 * a * (1 - now) ** 2))
wrong_bound("this divides alpha_bars", lambda b, a, now, before, tilde: b * now / (2 * before * a * (1 - now)))
wrong_bound(
    "divided by their sum", lambda b, a, now, before, tilde: (b / a / (1 - before)) / (b / a / (1 - before)).sum()
)
wrong_bound("in the opposite order", lambda b, a, now, before, tilde: (b / (2 * a * (1 - before))).flip(0))
wrong_bound("the sum of all weights", lambda b, a, now, before, tilde: (b / (2 * a * (1 - before))).sum())
wrong_bound("the mean of all weights", lambda b, a, now, before, tilde: (b / (2 * a * (1 - before))).mean())
wrong_bound("Leave out t = 0 and keep T - 1", lambda b, a, now, before, tilde: (b / (2 * a * (1 - before)))[:-1])


@mutant(BOUND, "has an entry for t = 0")
def bound_with_the_first_time(beta):
    alpha_bar = (1 - beta).cumprod(0)
    before = torch.cat([torch.ones_like(beta[:1]), alpha_bar[:-1]])
    return beta / (2 * (1 - beta) * (1 - before))


@mutant(BOUND, "without `return`")
def bound_without_return(beta):
    beta[1:] / (2 * (1 - beta[1:]) * (1 - (1 - beta).cumprod(0)[:-1]))


@variant(BOUND)
def bound_in_its_shortest_form(beta):
    return beta[1:] / (1 - beta[1:]) / (1 - (1 - beta).cumprod(0)[:-1]) / 2


@variant(BOUND)
def bound_in_a_loop(beta):
    left, weights = 1 - beta[0], []
    for b in beta[1:]:
        now = left * (1 - b)
        tilde = (1 - left) / (1 - now) * b
        weights.append(b**2 / (2 * tilde * (1 - b) * (1 - now)))
        left = now
    return torch.stack(weights)
