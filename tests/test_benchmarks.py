"""The frozen prompts stay what they are, and say what they are for."""

from collections import Counter

from benchmarks import prompts


def test_the_frozen_prompts_are_those_that_the_program_makes():
    assert prompts.load() == prompts.make()


def test_every_task_is_asked_for_as_often_and_two_of_five_name_what_was_never_trained_on():
    frozen = prompts.load()
    counts = Counter(prompt.task for prompt in frozen)
    assert set(counts) == set(prompts.TASKS) and max(counts.values()) - min(counts.values()) <= 1
    assert sum(prompt.held_out for prompt in frozen) == 400
    assert all(prompt.caption.place for prompt in frozen)
