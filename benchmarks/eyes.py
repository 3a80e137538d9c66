"""How far the judge agrees with eyes: generated pictures to label by hand, and both verdicts side by side.

    python3 course.py benchmark eyes --sheets FOLDER    draws the pictures on numbered sheets, with their prompts
    python3 course.py benchmark eyes [--manifest]       compares the labels in benchmarks/eyes.json with the judge

The judge was trained on renders, and generated pictures are not renders: what it says of them is worth as much as it
agrees with people. --manifest also keeps both verdicts of each picture in `course_utils/metrics/eyes.json`, for
chapter 15. The pictures are those of the first frozen prompts, picture i from seed i. *Right* by eye: all that
the prompt names is there and nothing else, in whatever quality. `eyes.json` names the model that it was labelled for.
"""

import argparse
import hashlib
import json
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.adherence import draw_prompts, keep
from benchmarks.prompts import TASKS, load
from course_utils.machine.devices import pick_device
from course_utils.metrics import eyes
from course_utils.metrics.pictures import faults
from course_utils.models.judge import THRESHOLD
from course_utils.pipelines.picture_book import CHECKPOINTS, load_picture_book
from course_utils.plotting import plot_pictures
from course_utils.recipes import load_judge

LABELS = Path(__file__).with_name("eyes.json")
COUNT, ON_A_SHEET = 200, 16
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)


def model_hash() -> str:
    """The SHA-256 of those of the shipped model's files, in the manifest's order."""
    files = json.loads((CHECKPOINTS / "manifest.json").read_text())["files"]
    hashes = "".join(facts["sha256"] for name, facts in files.items() if name.startswith("picture_book/"))
    return hashlib.sha256(hashes.encode()).hexdigest()


def write_sheets(folder: Path, pictures, prompts) -> None:
    """Sheets of sixteen pictures, each with its number and prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    titles = [f"{number}: {prompt.caption.text}" for number, prompt in enumerate(prompts)]
    for start in range(0, len(prompts), ON_A_SHEET):
        some = slice(start, start + ON_A_SHEET)
        figure = plot_pictures(pictures[some], titles[some], columns=4).figure
        figure.savefig(folder / f"{start:03}.png", dpi=80)
        plt.close(figure)


def compare(by_eye: list[bool], by_judge: list[bool]) -> dict:
    """How often both say the same, and how often one says right where the other says wrong."""
    pairs = list(zip(by_eye, by_judge, strict=True))
    return {
        "pictures": len(pairs),
        "right by eye": sum(by_eye),
        "right by the judge": sum(by_judge),
        "agreement": round(sum(a == b for a, b in pairs) / len(pairs), 3),
        "only the eye says right": sum(a and not b for a, b in pairs),
        "only the judge finds right": sum(b and not a for a, b in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheets", type=Path, help="a folder for sheets to label")
    parser.add_argument("--manifest", action="store_true", help="keep the table in the shipped model's manifest")
    options = parser.parse_args()
    labels = None if options.sheets else json.loads(LABELS.read_text())
    if labels and labels["model"] != model_hash():
        parser.error(
            "expected labels of pictures that the shipped model drew, got those of another one; write sheets "
            "with --sheets FOLDER, look at them, and put the numbers that are right, and this model's hash "
            f"{model_hash()}, into {LABELS.name}"
        )
    prompts = load()[:COUNT]
    pipe = load_picture_book(device=pick_device())
    pictures = draw_prompts(pipe, [prompt.caption.text for prompt in prompts], 20, 4.0, "unipc")
    if options.sheets:
        write_sheets(options.sheets, pictures, prompts)
        return
    judge, captions = load_judge(), [prompt.caption for prompt in prompts]
    by_eye = [number in set(labels["right"]) for number in range(COUNT)]
    found = {f"{threshold:g}": faults(judge, pictures, captions, threshold) for threshold in THRESHOLDS}
    by_judge = {threshold: [one is None for one in wrong] for threshold, wrong in found.items()}
    table = compare(by_eye, by_judge[f"{THRESHOLD:g}"])
    table["agreement, by the judge's threshold"] = {
        threshold: compare(by_eye, hits)["agreement"] for threshold, hits in by_judge.items()
    }
    table["right by eye, by task"] = {
        task: round(
            sum(ok for ok, p in zip(by_eye, prompts, strict=True) if p.task == task)
            / sum(p.task == task for p in prompts),
            3,
        )
        for task in TASKS
    }
    print(json.dumps(table, indent=2))
    if options.manifest:
        keep("eyes", table)
        rows = zip(prompts, by_eye, *found.values(), strict=True)
        labelled = [
            eyes.Labelled(prompt.caption.text, prompt.task, right, dict(zip(found, wrong, strict=True)))
            for prompt, right, *wrong in rows
        ]
        eyes.keep(labelled, {"model": labels["model"]})


if __name__ == "__main__":
    main()
