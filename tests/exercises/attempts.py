"""What learners may write: wrong answers with the words that their message must hold, and right ones."""

from collections import namedtuple

Attempt = namedtuple("Attempt", "id function state words")
MUTANTS, VARIANTS = [], []


def mutant(id, words, state="fail"):
    """Note a wrong answer to the exercise, and words that the message about it must hold."""
    return lambda function: MUTANTS.append(Attempt(id, function, state, words)) or function


def variant(id):
    """Note a right answer, written in another way than the reference."""
    return lambda function: VARIANTS.append(Attempt(id, function, "pass", "")) or function
