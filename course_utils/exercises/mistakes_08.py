"""What the exercises of chapter 08 on tokens share: letters for words, and a comparison of tuples."""

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
    require(isinstance(got, tuple), f"the result is of type {type(got).__name__}: {found}", f"Wanted is {kind}.")
    raise Wrong(found, "Go through this example with pencil and paper.")
