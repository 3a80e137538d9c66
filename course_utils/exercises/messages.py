"""What the learner reads: each message once as plain text and once as HTML, the same words in both."""

import html
import re
import sys
from dataclasses import dataclass

from course_utils.exercises.registry import Exercise
from course_utils.exercises.running import Outcome
from course_utils.language import text_width, translated

MARKS = {"pass": "✓", "fail": "✗", "error": "!", "todo": "○"}
HEADLINES = {"fail": "not right yet", "error": "it did not run to the end", "todo": "still to do"}
COLOURS = {"pass": "#009E73", "fail": "#D55E00", "error": "#D55E00", "todo": "#0072B2"}


@dataclass(frozen=True)
class Message:
    """A headline and labelled paragraphs, shown by notebooks as HTML and elsewhere as text."""

    headline: str
    parts: tuple[tuple[str, str], ...] = ()  # (label, text)
    colour: str = COLOURS["todo"]

    def __str__(self) -> str:
        lines = [translated(self.headline)]
        for label, text in self._translated():
            first, *rest = text.splitlines() or [""]
            label += " " * (10 - text_width(label))
            lines += [f"  {label}{first}".rstrip(), *(f"  {'':10}{line}".rstrip() for line in rest)]
        return "\n".join(lines)

    __repr__ = __str__

    def _translated(self) -> list[tuple[str, str]]:
        """The parts in the language in use; code, which stands under no label, as it is."""
        return [(translated(label), translated(text) if label else text) for label, text in self.parts]

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<div style="margin-top:.4em"><b>{html.escape(label)}</b> {_html_text(text)}</div>'
            for label, text in self._translated()
        )
        headline = f"<div><b>{html.escape(translated(self.headline))}</b></div>"
        return f'<div style="border-left:.3em solid {self.colour};padding-left:.8em">{headline}{rows}</div>'


def _html_text(text: str) -> str:
    if "\n" not in text:
        return "<span>" + re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text)) + "</span>"
    # Code and tables keep their columns
    return f'<pre style="white-space:pre-wrap;margin:.2em 0">{html.escape(text)}</pre>'


def show(message: Message) -> None:
    """Display a message: HTML in a notebook, text in a terminal."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import display

    if InteractiveShell.initialized():
        display(message)
    else:
        say(str(message))


def say(text: str) -> None:
    """Print a text in the language in use, with a question mark for each character that the stream cannot show."""
    text = translated(text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def not_passed(exercise: Exercise, outcome: Outcome, seed: int, strict: bool, solved_before: bool) -> Message:
    """Say what was called, what was found, why it may be so, and what to do next, in this order."""
    state = outcome.state
    parts = [
        ("Called", f"{outcome.called}, inputs made with seed {seed}" if outcome.called else ""),
        ("Task", exercise.task if state == "todo" else ""),
        ("Found", outcome.found),
        ("Likely", outcome.advice),
        ("Next", _next_step(exercise, state)),
        ("Before", "You have solved this one already; your progress keeps that." if solved_before else ""),
        ("Meanwhile", "" if strict else f"{exercise.name} is now the course's own version, so that you can go on."),
    ]
    headline = f"{MARKS[state]} {exercise.id}: {HEADLINES[state]}"
    return Message(headline, tuple((label, text) for label, text in parts if text), COLOURS[state])


def _next_step(exercise: Exercise, state: str) -> str:
    start = "Change your code and run the cell again."
    if state == "todo":
        start = (
            f"Replace `raise NotImplementedError` with your code and run the cell (about {exercise.minutes} minutes)."
        )
    return f'{start} hint("{exercise.id}") gives a hint, solution("{exercise.id}") shows one way to write it.'


def not_yours(exercise: Exercise) -> Outcome:
    """The outcome for one who hands in the course's own function: it stands there since the last check."""
    return Outcome("todo", found=f"{exercise.name} is the course's own version here, not yours.",
                   advice=f"A check that did not pass put it there. Run the cell that defines your {exercise.name} "
                          "first, then this check.")  # fmt: skip


def not_callable(exercise: Exercise, candidate) -> Outcome:
    return Outcome("error", found=f"expected the function {exercise.name} itself, got {type(candidate).__name__}.",
                   advice=f'Pass it without calling it: check("{exercise.id}", {exercise.name}).')  # fmt: skip


def hints(exercise: Exercise, revealed: int) -> Message:
    """The first `revealed` hints, and what to do for more."""
    total = len(exercise.hints)
    parts = [(f"Hint {number}", text) for number, text in enumerate(exercise.hints[:revealed], start=1)]
    more = f'hint("{exercise.id}") again gives the next of {total}.'
    if revealed == total:
        more = f'That was the last of {total}. solution("{exercise.id}") shows one way to write it.'
    return Message(f"{exercise.id}: {exercise.task}", (*parts, ("Next", more)))


def solution(exercise: Exercise, source: str) -> Message:
    """The course's own version. source: its Python text."""
    where = f"One way among several. The course keeps it in {exercise.reference.__module__}."
    return Message(f"{exercise.id}: {exercise.task}", (("Solution", where), ("", source.rstrip())))


def overview(rows: list[tuple[Exercise, str, bool]], titles: dict[str, str]) -> Message:
    """The whole course: rows (exercise, last state or "", passed once), and the titles of the chapters."""
    parts = []
    for chapter, title in titles.items():
        own = [row for row in rows if row[0].chapter == chapter]
        done = [exercise for exercise, _, once in own if once]
        minutes = f"{sum(e.minutes for e in done)} of {sum(e.minutes for e, _, _ in own)} minutes"
        lines = [f"{title}: {len(done)} of {len(own)} solved, {minutes}", *map(_overview_line, own)]
        parts.append((chapter, "\n".join(lines)))
    solved = sum(once for _, _, once in rows)
    return Message(f"{solved} of {len(rows)} exercises solved", tuple(parts))


def _overview_line(row: tuple[Exercise, str, bool]) -> str:
    exercise, state, once = row
    words = "solved" if once else {"": "not tried", "todo": "to do"}.get(state, "not right yet")
    if once and state != "pass":
        words = (
            "solved earlier, empty when last checked"
            if state == "todo"
            else "solved earlier, not right when last checked"
        )
    mark = MARKS["pass" if once else state or "todo"]
    stars = "●" * exercise.difficulty + "○" * (5 - exercise.difficulty)
    return f"{mark} {exercise.id:28} {stars} {exercise.minutes:3} min  {words}"
