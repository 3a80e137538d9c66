"""What the exercises of chapter 08 share: letters for words, a comparison of tuples, wrong ways to embed patches."""

import torch

from course_utils.exercises.oracles import Wrong, require

NAMES = "abcdefghijklmnopqrstuvwxyz"


def letters(case, count):
    """Some letters, each another one."""
    order = case.uniform(0, 1, len(NAMES)).argsort().tolist()
    return [NAMES[i] for i in order[:count]]


def expect(got, expected, mistakes, kind: str, given: str):
    """Compare tuples of strings, and name the mistake that an answer shows; `given`: the inputs, in words."""
    if got == expected and isinstance(got, tuple):
        return
    found = f"{given}got {got!r}, expected {expected!r}."
    for value, advice in mistakes:
        if got == value and value != expected:
            raise Wrong(found, advice)
    if isinstance(got, list) and tuple(got) == expected:
        raise Wrong(
            found,
            "These are the right symbols, but as a list. Words are keys of a dict later, and keys must be tuples: "
            "end with `return tuple(...)`.",
        )
    require(isinstance(got, tuple), f"the result is of type {type(got).__name__}: {found}", f"Return {kind}.")
    raise Wrong(found, "Go through this example with pencil and paper.")


# What is wrong with the second and all later results of `embedded`.
EMBEDDED = (
    "The places were not added. Without them, a patch at the top and one at the bottom look the same.",
    "The places were added to the patches only. The first token has one as well: places[0].",
    "The first token stands behind the patches. It belongs in front.",
    "The patches were taken column by column. Take them row by row: .flatten(2), then .transpose(1, 2).",
    "This is a reshape where axes should be swapped: .flatten(2).transpose(1, 2).",
    "The first token is all zeros. It is `first`, the same vector for every image.",
)


def embedded(pictures, weight, first, places):
    """Patches as tokens, by loops: the right result, then one for each sentence of EMBEDDED."""
    size = weight.shape[-1]
    rows, columns = pictures.shape[2] // size, pictures.shape[3] // size
    grid = []
    for row in range(rows):
        for column in range(columns):
            part = pictures[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size]
            grid.append((part[:, None] * weight).sum((2, 3, 4)))
    patches = torch.stack(grid, 1)  # (batch, patches, d)
    start = first.repeat(len(pictures), 1, 1)
    turned = patches.unflatten(1, (rows, columns)).transpose(1, 2).flatten(1, 2)
    shuffled = patches.transpose(1, 2).reshape(patches.shape)
    tokens = torch.cat([start, patches], 1)
    return (
        tokens + places,
        tokens,
        torch.cat([start, patches + places[1:]], 1),
        torch.cat([patches, start], 1) + places,
        torch.cat([start, turned], 1) + places,
        torch.cat([start, shuffled], 1) + places,
        torch.cat([0 * start, patches], 1) + places,
    )
