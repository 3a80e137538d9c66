"""A blind vote between two samplers: their pictures of the same prompts side by side, left and right by lot.

A `Ballot` keeps the pairs and the votes and can be used without a screen; `voting_booth` puts buttons under it. It is
no `Explorer`: it has no settings to move, and what is clicked is kept.
"""

import html
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from course_utils.files import new_file
from course_utils.language import translated
from course_utils.metrics.statistics import wilson_interval
from course_utils.plotting import as_png, picture_grid

if TYPE_CHECKING:
    import ipywidgets

CHOICES = {"left": "Left is better", "tie": "No difference", "right": "Right is better"}
SCALE = 4  # pixels of the screen for one of the picture, so that small ones can be seen


class Ballot:
    """Pairs of pictures of the same prompts by two samplers, in an order and with sides by lot, and the votes so far.

    prompts: (n,) texts; pictures: {name: (n, 3, height, width) in [-1, 1]} of two samplers. The order and the sides
    depend on `seed` only. votes: a list of dicts with "prompt" (its number), "left" (whose picture stood there) and
    "choice", one of CHOICES. path: a JSON file that is read, if there is one, and written after each vote.
    Raises ValueError for anything but two samplers, for other numbers of pictures than prompts, and for a file that
    holds the votes of another ballot.
    """

    def __init__(
        self, prompts: Sequence[str], pictures: dict[str, torch.Tensor], seed: int = 0, path: Path | str | None = None
    ):
        counts = {name: len(drawn) for name, drawn in pictures.items()}
        if len(pictures) != 2 or set(counts.values()) != {len(prompts)} or not prompts:
            raise ValueError(
                f"expected the pictures of two samplers, one for each of the {len(prompts)} prompts, got {counts}"
            )
        rng, names = random.Random(seed), list(pictures)
        self.prompts, self.pictures, self.path = list(prompts), dict(pictures), None if path is None else Path(path)
        order = rng.sample(range(len(prompts)), len(prompts))
        self.pairs = [(number, rng.choice(names)) for number in order]  # (prompt, whose picture is on the left)
        self.votes: list[dict] = self._read(self.path) if self.path and self.path.exists() else []

    @property
    def finished(self) -> bool:
        """Whether every pair has its vote."""
        return len(self.votes) == len(self.pairs)

    def pair(self) -> tuple[str, torch.Tensor, torch.Tensor]:
        """The next prompt with its left and its right picture, (3, height, width) each; IndexError when finished."""
        number, left = self.pairs[len(self.votes)]
        return self.prompts[number], self.pictures[left][number], self.pictures[self._other(left)][number]

    def vote(self, choice: str) -> None:
        """Note the vote on the present pair and go to the next. Raises ValueError for another choice, or at the end."""
        if choice not in CHOICES or self.finished:
            raise ValueError(
                f"expected one of {', '.join(CHOICES)} while there are pairs left, got {choice!r} after "
                f"{len(self.votes)} of {len(self.pairs)} votes"
            )
        number, left = self.pairs[len(self.votes)]
        self.votes.append({"prompt": number, "left": left, "choice": choice})
        self._write()

    def take_back(self) -> None:
        """Forget the last vote, if there is one, so that its pair comes again."""
        if self.votes:
            self.votes.pop()
            self._write()

    def results(self) -> list[float]:
        """For each vote 1 if the first sampler's picture was chosen, 0 if the second's, 0.5 for a tie."""
        first, _ = self.pictures
        value = {"left": 1.0, "right": 0.0, "tie": 0.5}
        return [value[vote["choice"]] if vote["left"] == first else 1 - value[vote["choice"]] for vote in self.votes]

    def result(self) -> str:
        """What the votes so far say, in a sentence: wins, ties, the first's share of the wins with Wilson's interval.

        Ties say nothing about which is better; they are counted, and left out of the share.
        """
        (first, second), results = self.pictures, self.results()
        wins, losses, ties = (results.count(value) for value in (1.0, 0.0, 0.5))
        if not wins + losses:
            return translated(f"No pair was decided; ties: {ties}." if ties else "No votes yet.")
        low, high = wilson_interval(wins, wins + losses)
        better = first if low > 0.5 else second if high < 0.5 else None
        decision = f"{better} is preferred" if better else "the interval holds 50%, so these votes do not decide"
        return translated(
            f"{first} won {int(wins)} times, {second} {int(losses)} times; ties: {ties}. "
            f"{first} won {wins / (wins + losses):.0%} of the decided pairs (95% interval {low:.0%} to {high:.0%}, "
            f"n = {wins + losses}): {decision}."
        )

    def _other(self, name: str) -> str:
        return next(other for other in self.pictures if other != name)

    def _write(self) -> None:
        if self.path:
            with new_file(self.path) as part:
                part.write_text(json.dumps(self.votes, indent=1) + "\n", encoding="utf-8")

    def _read(self, path: Path) -> list[dict]:
        try:
            votes = json.loads(path.read_text(encoding="utf-8"))
            fits = len(votes) <= len(self.pairs) and all(
                (vote["prompt"], vote["left"]) == pair and vote["choice"] in CHOICES
                for vote, pair in zip(votes, self.pairs, strict=False)
            )
        except (OSError, ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise ValueError(
                f"expected the votes of this ballot in {path}, found others, or none that can be read; give "
                "another path, or take that file away"
            )
        return votes


def voting_booth(ballot: Ballot) -> "ipywidgets.Widget":
    """The ballot with its two pictures side by side and a button for each choice, a widget.

    Tab goes from button to button, Enter or Space presses; the side is written above each picture, the choice on each
    button. Who drew which is said only when all votes are in, or when the result is asked for, which ends the vote.
    """
    import ipywidgets

    said, result = ipywidgets.HTML(), ipywidgets.HTML()
    pictures = {side: ipywidgets.Image(format="png") for side in ("left", "right")}
    wide = ipywidgets.Layout(width="11em")
    buttons = {
        choice: ipywidgets.Button(description=text, tooltip=f"{text} (Tab to reach, Enter to press)", layout=wide)
        for choice, text in CHOICES.items()
    }
    back = ipywidgets.Button(description="Take back", tooltip="Forget the last vote", layout=wide)
    stop = ipywidgets.Button(description="Stop, show result", tooltip="End the vote and show the result", layout=wide)

    def redraw(ended: bool = False) -> None:
        ended = ended or ballot.finished
        for button in (*buttons.values(), back, stop):
            button.disabled = ended
        back.disabled = ended or not ballot.votes
        if ended:
            said.value = f"{len(ballot.votes)} of {len(ballot.pairs)} pairs voted on. Thank you."
            result.value = html.escape(ballot.result())
            return
        prompt, *both = ballot.pair()
        said.value = f"Pair {len(ballot.votes) + 1} of {len(ballot.pairs)}: <b>{html.escape(prompt)}</b>"
        for image, picture in zip(pictures.values(), both, strict=True):
            image.value = as_png(picture_grid(picture[None], scale=SCALE))

    def on_vote(choice: str):
        def pressed(button=None) -> None:
            ballot.vote(choice)
            redraw()

        return pressed

    def on_back(button=None) -> None:
        ballot.take_back()
        redraw()

    for choice, button in buttons.items():
        button.on_click(on_vote(choice))
    back.on_click(on_back)
    stop.on_click(lambda button: redraw(ended=True))
    redraw()
    sides = [ipywidgets.VBox([ipywidgets.Label(side), image]) for side, image in pictures.items()]
    rows = [ipywidgets.HBox(sides), ipywidgets.HBox([*buttons.values()]), ipywidgets.HBox([back, stop])]
    return ipywidgets.VBox([said, *rows, result]).add_class("voting-booth")
