"""How well the checks of the exercises tell wrong answers from right ones.

    python3 course.py benchmark checks [ID ...] [--seeds 3] [--survivors]

For each exercise: wrong versions of its reference, made by rewriting its code (tests/exercises/generated.py); how many
of them do the same as the reference on all legal inputs after all; how many of the others are refused with every seed,
with a sentence that names a mistake or with numbers only, or because they raise. And the wrong answers written by hand
(tests/exercises/attempts_*.py): how many are refused by the very sentence that is meant for them.
"""

import argparse
import collections
import sys
from importlib import import_module
from pathlib import Path

from course_utils.exercises import limits
from course_utils.exercises.registry import all_exercises, find
from course_utils.exercises.running import run

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "exercises"
SEEDS = (0, 11, 202)
COLUMNS = ("made", "equivalent", "refused", "with a sentence", "with numbers", "raises", "passed", "by hand", "named")


def examined(exercise, made, seeds) -> str:
    """How a version is received: what it is told with the first seed, or that it passed with one of them."""
    outcomes = []
    for seed in seeds:
        outcomes.append(run(exercise, made, seed))
        if outcomes[-1].state == "pass" or "still running" in outcomes[-1].found:
            break
    if any(outcome.state == "pass" for outcome in outcomes):
        return "passed"
    if outcomes[0].state != "fail":
        return "raises"
    return "with a sentence" if outcomes[0].advice else "with numbers"


def row(exercise, seeds, attempts) -> tuple[collections.Counter, list[str]]:
    """The numbers of an exercise, and what its check let through."""
    generated = sys.modules["generated"]
    counts, survivors = collections.Counter(), []
    for change, made in generated.versions(exercise):
        counts["made"] += 1
        received = examined(exercise, made, seeds)
        if received == "passed" and generated.is_equivalent(exercise, made):
            received = "equivalent"
        elif received == "passed":
            survivors.append(f"{exercise.id}: {change}")
        counts[received] += 1
    counts["refused"] = sum(counts[name] for name in ("with a sentence", "with numbers", "raises"))
    for attempt in attempts:
        outcome = run(exercise, attempt.function, seeds[0])
        counts["by hand"] += 1
        counts["named"] += attempt.words in f"{outcome.found} {outcome.advice}"
    return counts, survivors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help="such as 05.snr, or 05 for a chapter; none: all exercises")
    parser.add_argument("--seeds", type=int, default=3, choices=(1, 2, 3))
    options = parser.parse_args()
    sys.path.insert(0, str(FOLDER))
    limits.SECONDS = 3  # a right answer takes a part of one
    for file in sorted([*FOLDER.glob("attempts_*.py"), *FOLDER.glob("legal_*.py"), FOLDER / "generated.py"]):
        import_module(file.stem)
    mutants = sys.modules["attempts"].MUTANTS
    chosen = [e for e in all_exercises() if not options.ids or e.id in options.ids or e.chapter in options.ids]
    chosen = chosen or [find(options.ids[0])]
    print("| exercise | " + " | ".join(COLUMNS) + " |\n|:--|" + "--:|" * len(COLUMNS))
    total, passed = collections.Counter(), []
    for exercise in chosen:
        own = [attempt for attempt in mutants if attempt.id == exercise.id]
        counts, survivors = row(exercise, SEEDS[: options.seeds], own)
        total, passed = total + counts, passed + survivors
        print(f"| {exercise.id} | " + " | ".join(str(counts[name]) for name in COLUMNS) + " |", flush=True)
    print("| all | " + " | ".join(str(total[name]) for name in COLUMNS) + " |")
    print("\nWhat passed without being equivalent:" if passed else "\nNothing passed that is not equivalent.")
    print("\n".join(passed))


if __name__ == "__main__":
    main()
