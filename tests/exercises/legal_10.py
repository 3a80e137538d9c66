"""Legal inputs of chapter 10."""

import torch
from legal import drive, legal

from course_utils.exercises.mistakes_10 import Eye, Watched


@legal("10.word_maps")
def word_maps(case):
    for batch, side, words, heads in ((1, 1, 1, 1), (2, 3, 4, 2), (3, 4, 16, 8)):
        yield case.normal(batch, side**2, 16), case.normal(batch, words, 16), heads


@legal("10.drop_prompts")
def drop_prompts(case):
    for batch, words in ((1, 3), (5, 5), (8, 4)):
        for share in (0.0, 0.1, 0.5, 1.0):
            uniforms = case.uniform(0, 1, batch)
            uniforms[0] = share if share < 1 else 0.5
            yield case.normal(batch, words, 6), case.normal(1, words, 6), uniforms, uniforms[0].item() if share else 0.0
            yield case.normal(batch, words, 6), case.normal(1, words, 6), uniforms, share


@drive("10.text_loss")
def text_loss(answer, case):
    found = []
    for batch, share in ((1, 0.0), (4, 0.5), (3, 1.0)):
        eye, table = Eye(case), (1 - case.uniform(0.02, 0.12, 30)).cumprod(0)
        x0, eps = case.normal(batch, 3, 2, 4), case.normal(batch, 3, 2, 4)
        cond, null, t = case.normal(batch, 4, 6), case.normal(1, 4, 6), case.whole(0, 29, batch)
        loss = answer(eye, x0, cond, null, t, eps, case.uniform(0, 1, batch), table, share)
        loss.backward()
        found += [loss.detach(), eye.weight.grad]
    return found


@legal("10.classifier_score")
def classifier_score(case):
    table = (1 - case.uniform(0.02, 0.12, 30)).cumprod(0)
    for shape in ((1, 2), (5, 3, 2, 2)):
        for t in (case.whole(0, 29, shape[0]), torch.zeros(shape[0]).long(), torch.full(shape[:1], 29)):
            yield case.normal(*shape), case.normal(*shape), t, table


@legal("10.guide")
def guide(case):
    for shape in ((1, 2), (3, 4, 2, 5)):
        for scale in (-1.0, 0.0, 1.0, 7.5):
            yield case.normal(*shape), case.normal(*shape), scale


@legal("10.compose")
def compose(case):
    for weights in ([2.0], [1.0, -3.0], [0.0, 0.5, 4.0]):
        for shape in ((1, 2), (3, 2, 2, 3)):
            yield case.normal(*shape), case.normal(len(weights), *shape), weights


@legal("10.rescale")
def rescale(case):
    for shape in ((1, 5), (3, 4, 2, 5)):
        for share in (0.0, 0.3, 0.7, 1.0):
            yield 4 * case.normal(*shape) + 1, case.normal(*shape), share
            yield case.normal(*shape), 2 * case.normal(*shape), share


@drive("10.text_to_image")
def text_to_image(answer, case):
    found = []
    table = (1 - case.uniform(0.02, 0.12, 30)).cumprod(0)
    for times in ([29, 14, 3], [12], [29, 28, 0]):
        for negative, scale in (("", 1.0), ("blue", 5.0)):
            world, prompts = Watched(case), ["a red ball", "blue", "a white cat"][: len(times)]
            x_T = case.normal(len(prompts), 3, 4, 2)
            found.append(answer(prompts, world.encode, world.model, world.decode, x_T, table, times, scale, negative))
    return found
