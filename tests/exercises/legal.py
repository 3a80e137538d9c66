"""Inputs that the contract of an exercise allows: they tell wrong answers from right ones, however written."""

import torch

from course_utils.diffusion.schedules import alpha_bar_from_beta, linear_beta

LEGAL, DRIVE = {}, {}


def legal(id):
    """Note a function of a case that yields tuples of inputs, the edges of what is allowed among them."""
    return lambda function: LEGAL.setdefault(id, function)


def drive(id):
    """Note a function of an answer and a case that returns what answers are compared by: nested tensors and numbers."""
    return lambda function: DRIVE.setdefault(id, function)


def noisy(case, shapes):
    """Yield (one, another, t, alpha_bar): two tensors of each shape, with the times at both ends and between."""
    tables = ((1 - case.uniform(0.02, 0.3, 9)).cumprod(0), alpha_bar_from_beta(linear_beta(1000)), torch.tensor([0.4]))
    for table in tables:
        T = len(table)
        for shape in shapes:
            for t in (case.whole(0, T - 1, shape[0]), torch.zeros(shape[0]).long(), torch.full((shape[0],), T - 1)):
                yield case.normal(*shape), case.normal(*shape), t, table
