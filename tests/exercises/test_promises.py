"""What every exercise promises beside its values: each promise can be broken, and whoever breaks it is told which."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.exercises.oracles import close
from course_utils.exercises.registry import Exercise
from course_utils.exercises.running import run


def exercise(reference, oracle, gradients=False):
    return Exercise("99.promise", reference, oracle, "Do it.", 1, 1, ("a", "b"), gradients=gradients)


def outcome_of(reference, oracle, candidate, gradients=False):
    assert run(exercise(reference, oracle, gradients), reference).state == "pass"
    return run(exercise(reference, oracle, gradients), candidate)


def require_broken(words, *arguments, **options):
    outcome = outcome_of(*arguments, **options)
    assert outcome.state == "fail" and words in outcome.found, outcome
    assert outcome.advice


# Parameters, kinds and dtypes


def double(x, times=2.0):
    return x * times


def doubles(learner, case):
    x = case.normal(3)
    close(learner(x), x * 2)


@pytest.mark.parametrize(
    "candidate, words",
    [
        (lambda x, times: x * 2, "cannot be called as double(x)"),
        (lambda x: x * 2, "the parameter times is called nothing at all here"),
        (lambda y, times=2.0: y * 2, "the parameter x is called y here"),
        (lambda x, times=3.0: x * 2, "the parameter times has the default 3.0, expected times=2.0"),
        (lambda x, times=2.0: x.double() * 2, "has the dtype torch.float64, expected torch.float32"),
        (lambda x, times=2.0: (x * 2).requires_grad_(), "still records gradients"),
    ],
)
def test_the_def_line_and_the_dtype_are_kept(candidate, words):
    require_broken(words, double, doubles, candidate)


@pytest.mark.parametrize(
    "candidate", [lambda x, times=2: x * times, lambda *a, **k: a[0] * 2, lambda x, times=2.0, more=1: x * 2]
)
def test_what_takes_the_same_calls_is_as_good(candidate):
    assert outcome_of(double, doubles, candidate).state == "pass"


def test_a_known_mistake_is_named_before_a_promise():
    def oracle(learner, case):
        x = case.normal(3)
        close(learner(x), x * 2, [(x, "This is x.")])

    assert outcome_of(double, oracle, lambda y: y).advice == "This is x."
    assert "expected its own name" in outcome_of(double, oracle, lambda y, times=2.0: y * 5).found


def total(x):
    return x.sum()


def length(x):
    return len(x)


def totals(learner, case):
    x = case.normal(3)
    close(learner(x), x.sum())


def lengths(learner, case):
    close(learner(case.normal(3)), 3)


def test_numbers_and_tensors_with_one_number_are_told_apart():
    require_broken("is the Python number", total, totals, lambda x: x.sum().item())
    require_broken("is a tensor with one number", length, lengths, lambda x: torch.tensor(len(x)))
    assert outcome_of(length, lengths, lambda x: np.int64(len(x))).state == "pass"


# Inputs


def first_pair(pairs, counts):
    return pairs[0] + counts["a"]


def pairs_oracle(learner, case):
    close(learner([3, 4], {"a": 1, "b": [1]}), 4)


@pytest.mark.parametrize(
    "candidate, words",
    [
        (lambda pairs, counts: pairs.pop(0) + counts["a"], "the input pairs was changed in place"),
        (lambda pairs, counts: pairs[0] + counts.pop("a"), "the input counts was changed in place"),
        (lambda pairs, counts: pairs[0] + counts["a"] + 0 * counts["b"].pop(), "the input counts was changed in place"),
    ],
)
def test_lists_and_dicts_are_protected(candidate, words):
    require_broken(words, first_pair, pairs_oracle, candidate)


def test_marking_the_callers_tensor_is_noticed():
    require_broken(
        "the input x was left with requires_grad=True", double, doubles,
        lambda x, times=2.0: (x.requires_grad_() * 2).detach(),
    )  # fmt: skip


# Randomness


def noisy(x, generator, noise=True):
    return x + torch.randn(x.shape, generator=generator) if noise else x


def noise_oracle(learner, case):
    x = case.normal(3)
    close(learner(x, case.generator(), False), x)
    got = learner(x, case.generator())
    assert got.shape == x.shape


def own_generator(x, generator, noise=True):
    return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) if noise else x


def seeded_anew(x, generator, noise=True):
    return x + torch.randn(x.shape, generator=generator.manual_seed(0)) if noise else x


def put_back(x, generator, noise=True):
    state = generator.get_state()
    result = noisy(x, generator, noise)
    generator.set_state(state)
    return result


def always_drawn(x, generator, noise=True):
    eps = torch.randn(x.shape, generator=generator)
    return x + eps if noise else x


@pytest.mark.parametrize(
    "candidate, words",
    [
        (own_generator, "no number was drawn from the generator that was passed"),
        (seeded_anew, "the generator was seeded again inside the function"),
        (put_back, "no number was drawn from the generator"),
        (always_drawn, "numbers were drawn from the generator, expected none in this case"),
        (lambda x, generator, noise=True: x + torch.randn(x.shape) if noise else x, "torch's own, global generator"),
    ],
)
def test_the_generator_is_used_as_it_is_passed(candidate, words):
    require_broken(words, noisy, noise_oracle, candidate)


def test_chance_where_none_belongs_is_noticed():
    require_broken("random numbers were drawn, expected none", double, doubles, with_noise)
    assert outcome_of(double, doubles, by_a_layer).state == "pass"  # its weights are drawn, and then written over


def with_noise(x, times=2.0):
    return x * times + torch.randn_like(x)


def by_a_layer(x, times=2.0):
    layer = nn.Linear(1, 1, bias=False).requires_grad_(False)
    layer.weight.fill_(times)
    return layer(x[:, None])[:, 0]


# Networks


def apply(model, x):
    return model(x).detach()


def apply_oracle(learner, case):
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.0))
    x = case.normal(4, 3)
    close(learner(model, x), model(x))


def evaluated(model, x):
    return model.eval()(x).detach()


def frozen(model, x):
    return model.requires_grad_(False)(x)


def learned_from(model, x):
    result = model(x)
    result.sum().backward()
    return result.detach()


def nudged(model, x):
    result = model(x).detach()
    model[0].weight.data += 1
    return result


def converted(model, x):
    return model.double()(x.double()).float().detach()


@pytest.mark.parametrize(
    "candidate, words",
    [
        (evaluated, "was left in evaluation mode, expected training mode"),
        (frozen, "parameter 0.weight set to be frozen"),
        (learned_from, "was left with a gradient in 0.weight"),
        (nudged, "the values of 0.weight in the network model changed"),
        (converted, "was left with its parameter 0.weight as torch.float64"),
    ],
)
def test_networks_are_left_as_they_came(candidate, words):
    require_broken(words, apply, apply_oracle, candidate)


# Gradients


def mean_square(x, target):
    return (x - target).square().mean()


def mean_square_oracle(learner, case):
    x, target = case.normal(5), case.normal(5)
    close(learner(x, target), (x - target).square().mean())


@pytest.mark.parametrize(
    "candidate, words",
    [
        (lambda x, target: torch.tensor(mean_square(x, target).item()), "has no way back to what it was made from"),
        (torch.no_grad()(mean_square), "has no way back"),
        (lambda x, target: mean_square(x.detach(), target), "no gradient comes back to x"),
        (lambda x, target: ((x - target) * (x - target).detach()).mean(), "the gradient with respect to x is not"),
        (lambda x, target: mean_square(x, target).item(), "is the Python number"),
    ],
)
def test_gradients_are_those_of_the_reference(candidate, words):
    candidate.__name__ = "mean_square"
    require_broken(words, mean_square, mean_square_oracle, candidate, gradients=True)


def test_any_way_with_the_same_gradient_is_right():
    def by_hand(x, target):
        return sum((a - b) ** 2 for a, b in zip(x, target, strict=True)) / len(x)

    assert outcome_of(mean_square, mean_square_oracle, by_hand, gradients=True).state == "pass"


class Scale(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))

    def forward(self, x):
        return self.weight * x


class Cut(Scale):
    def forward(self, x):
        return self.weight.data * x


class FromNothing(Scale):
    def forward(self, x):
        return nn.Parameter(self.weight.detach().clone()) * x


def scale_oracle(learner, case):
    made, x = learner(2.0), case.normal(3)
    close(learner.method(made, "forward", x), 2 * x)


def test_parameters_of_a_class_must_be_reached():
    require_broken("has no way back", Scale, scale_oracle, Cut, gradients=True)
    require_broken("no gradient comes back to self.weight", Scale, scale_oracle, FromNothing, gradients=True)


def test_logarithms_by_pythons_math_cut_the_way():
    def log(x):
        return x.log()

    def oracle(learner, case):
        x = case.uniform(0.5, 1)
        close(learner(x), x.log())

    require_broken("has no way back", log, oracle, lambda x: torch.tensor(math.log(x)), gradients=True)
