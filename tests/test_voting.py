"""The blind vote: sides by lot, votes kept, the result with its interval; on the screen from first pair to last."""

import json

import pytest
import torch

from course_utils.widgets import Ballot, voting_booth
from course_utils.widgets.voting import CHOICES

PROMPTS = ["a cat", "a <dog>", "a car", "a boat", "a duck", "a tree"]
PICTURES = {"good": torch.full((6, 3, 8, 8), 0.9), "poor": torch.full((6, 3, 8, 8), -0.9)}


def ballot(seed=0, path=None):
    return Ballot(PROMPTS, PICTURES, seed, path)


def better(one):
    """The side on which the bright picture stands."""
    _, left, right = one.pair()
    return "left" if left.mean() > right.mean() else "right"


def test_sides_and_order_are_by_lot_and_depend_on_the_seed_only():
    orders = [[number for number, _ in ballot(seed).pairs] for seed in range(40)]
    sides = [left for seed in range(40) for _, left in ballot(seed).pairs]
    assert all(sorted(order) == list(range(6)) for order in orders) and len(set(map(tuple, orders))) > 30
    assert 90 < sides.count("good") < 150  # of 240
    assert ballot(3).pairs == ballot(3).pairs


def test_who_always_votes_for_one_finds_it_preferred_on_whatever_side():
    one = ballot()
    while not one.finished:
        one.vote(better(one))
    assert one.results() == [1.0] * 6 and {vote["choice"] for vote in one.votes} == {"left", "right"}
    assert one.result() == (
        "good won 6 times, poor 0 times; ties: 0. good won 100% of the decided pairs (95% interval 61% to 100%, "
        "n = 6): good is preferred."
    )


def test_ties_and_one_side_decide_nothing():
    one = ballot()
    for _ in PROMPTS:
        one.vote("tie")
    assert one.results() == [0.5] * 6 and one.result() == "No pair was decided; ties: 6."
    other = ballot()
    assert other.result() == "No votes yet."
    other.vote("left")
    assert "n = 1" in other.result() and "do not decide" in other.result()
    for _ in range(5):  # ties do not make the one that won uncertain
        other.vote("tie")
    assert "n = 1" in other.result() and "ties: 5" in other.result()


def test_votes_are_kept_in_a_file_and_gone_on_with(tmp_path):
    path = tmp_path / "votes.json"
    one = ballot(path=path)
    one.vote("left")
    one.vote("tie")
    one.take_back()
    assert [vote["choice"] for vote in json.loads(path.read_text())] == ["left"]
    again = ballot(path=path)
    assert again.votes == one.votes and again.pair()[0] == one.pair()[0]
    for text in ("[", "[3]", '[{"prompt": 0}]', json.dumps([one.votes[0] | {"choice": "both"}] * 2), "{}1"):
        path.write_text(text)
        with pytest.raises(ValueError, match="the votes of this ballot"):
            ballot(path=path)
    path.write_text(json.dumps(one.votes))
    if ballot(1).pairs[0] != ballot(0).pairs[0]:
        with pytest.raises(ValueError, match="the votes of this ballot"):
            ballot(1, path)


def test_what_cannot_be_voted_on_is_refused():
    for prompts, pictures in (
        (PROMPTS, {"good": PICTURES["good"]}),
        (PROMPTS[:5], PICTURES),
        (PROMPTS, PICTURES | {"third": PICTURES["good"]}),
        ([], {name: drawn[:0] for name, drawn in PICTURES.items()}),
    ):
        with pytest.raises(ValueError, match="two samplers"):
            Ballot(prompts, pictures)
    one = ballot()
    with pytest.raises(ValueError, match="left, tie, right"):
        one.vote("both")
    for _ in PROMPTS:
        one.vote("left")
    with pytest.raises(ValueError, match="6 of 6"):
        one.vote("left")


def parts(booth):
    """(prompt, the two pictures, the buttons of the choices, back, stop, the result) of a booth."""
    said, sides, choices, others, result = booth.children
    return said, [side.children[1] for side in sides.children], choices.children, *others.children, result


def test_the_booth_before_the_first_vote_and_after_the_last():
    one = ballot()
    said, pictures, choices, back, stop, result = parts(voting_booth(one))
    assert [button.description for button in choices] == list(CHOICES.values()) and all(b.tooltip for b in choices)
    assert back.disabled and not stop.disabled and result.value == ""
    assert all(bytes(picture.value).startswith(b"\x89PNG") for picture in pictures)
    seen = []
    for _ in PROMPTS:
        seen.append(said.value)
        assert "good" not in said.value and "poor" not in said.value  # blind
        choices[list(CHOICES).index(better(one))].click()
    assert "Pair 1 of 6" in seen[0] and any("&lt;dog&gt;" in value for value in seen)
    assert "good is preferred" in result.value and said.value.startswith("6 of 6")
    assert all(button.disabled for button in (*choices, back, stop))


def test_the_booth_can_be_left_early_and_a_vote_taken_back():
    one = ballot()
    said, _, choices, back, stop, result = parts(voting_booth(one))
    first = said.value
    choices[1].click()
    assert said.value != first and not back.disabled
    back.click()
    assert said.value == first and one.votes == []
    stop.click()
    assert result.value == "No votes yet." and choices[0].disabled
