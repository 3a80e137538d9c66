"""Legal inputs of chapter 04."""

import torch
from legal import drive, legal

from course_utils.exercises.mistakes_04 import u_parts


@legal("04.conv_output_size")
def conv_output_size(case):
    for size, kernel, stride, padding, dilation in (
        (1, 1, 1, 0, 1), (3, 3, 2, 0, 1), (2, 3, 4, 2, 1), (9, 3, 2, 0, 4), (64, 7, 2, 3, 1), (15, 3, 2, 1, 1),
        (16, 4, 4, 0, 1), (10, 1, 3, 2, 5),
    ):  # fmt: skip
        yield size, kernel, stride, padding, dilation
    yield 28, 5
    for _ in range(40):
        kernel, dilation, padding = int(case.whole(1, 5)), int(case.whole(1, 3)), int(case.whole(0, 4))
        size = dilation * (kernel - 1) + 1 + int(case.whole(0, 30))
        yield size, kernel, int(case.whole(1, 6)), padding, dilation


@legal("04.overlap_count")
def overlap_count(case):
    yield from ((1, 1, 1), (1, 4, 3), (6, 1, 1), (4, 1, 3), (5, 2, 2), (7, 6, 1), (3, 2, 5), (20, 4, 2))
    for _ in range(30):
        yield tuple(case.whole(1, 8, 3).tolist())


@legal("04.attention")
def attention(case):
    for lead in ((), (1,), (3,), (2, 4), (1, 1), (2, 1, 3)):
        for queries, keys, d, d_v in ((1, 1, 1, 1), (3, 7, 2, 5), (6, 4, 9, 1), (4, 1, 8, 8), (1, 5, 3, 2)):
            q, k, v = case.normal(*lead, queries, d), case.normal(*lead, keys, d), case.normal(*lead, keys, d_v)
            yield q, k, v
            yield 3 * q, k, v - 1


@legal("04.split_heads")
def split_heads(case):
    for batch, tokens, heads, d in ((1, 1, 1, 1), (2, 7, 4, 3), (3, 2, 1, 5), (1, 4, 6, 1), (4, 4, 4, 4), (2, 1, 3, 2)):
        yield case.normal(batch, tokens, heads * d), heads


@legal("04.time_embedding")
def time_embedding(case):
    for width in (2, 4, 6, 16, 64):
        for t in (torch.tensor([0]), case.whole(0, 40, 5), case.uniform(0, 40, width // 2), torch.arange(width)):
            yield t, width


@legal("04.group_norm")
def group_norm(case):
    for shape, groups in (
        ((1, 4, 3, 5), 2),
        ((3, 6, 2, 2), 6),
        ((2, 6, 4, 1), 1),
        ((2, 9, 2, 3), 3),
        ((4, 8, 1, 2), 4),
    ):
        x = case.normal(*shape)
        yield x, groups
        for eps in (1e-5, 1e-2):
            yield 0.1 * x + case.uniform(-2, 2), groups, eps
    yield torch.ones(2, 4, 3, 3), 2


@drive("04.residual_block")
def residual_block(block_class, case):
    """A block's forward pass and its gradients, with weights of which none is zero."""
    found = []
    for inside, outside, groups, batch in ((8, 8, 4, 2), (6, 12, 3, 1), (16, 8, 8, 3)):
        torch.manual_seed(case.seed)
        block = block_class(inside, outside, 5, groups)
        x, embedding = case.normal(batch, inside, 3, 4).requires_grad_(), case.normal(batch, 5).requires_grad_()
        found.append(block(x, embedding).detach())
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.copy_(0.5 * case.normal(*parameter.shape))
        out = block(x, embedding)
        sources = [x, embedding, *block.parameters()]
        weights = torch.linspace(0.5, 1.5, out.numel()).reshape(out.shape)
        found += [out.detach(), *torch.autograd.grad((weights * out).sum(), sources)]
    torch.manual_seed(case.seed)
    standard = block_class(8, 24, 7)
    return *found, standard(case.normal(2, 8, 4, 4), case.normal(2, 7)).detach(), dict(standard.state_dict())


@legal("04.through_the_u")
def through_the_u(case):
    for levels, shape in ((1, (2, 3, 2, 4)), (2, (1, 4, 4, 8)), (3, (3, 1, 24, 8)), (4, (1, 2, 16, 16))):
        yield case.normal(*shape), *u_parts(case, levels, shape[1])
