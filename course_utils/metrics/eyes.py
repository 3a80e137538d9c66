"""Pictures that were labelled by eye, with what the judge found in them: how far the judge can be believed.

`eyes.json` is written by `python3 course.py benchmark eyes --manifest`, from the labels in `benchmarks/eyes.json`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

MEASURED = Path(__file__).with_name("eyes.json")


@dataclass(frozen=True)
class Labelled:
    """One picture: the first frozen prompts, drawn by the shipped model in 20 steps, picture i from seed i.

    prompt: its text. right: whether everything that it names is there and nothing else, by eye. faults: for each
    threshold of the judge, as text ("0.25"), what it found wrong, None for nothing (see `metrics.pictures.fault`).
    """

    prompt: str
    task: str
    right: bool
    faults: dict[str, str | None]


def labelled() -> list[Labelled]:
    """The 200 pictures, in the order of their seeds."""
    return [Labelled(**row) for row in json.loads(MEASURED.read_text(encoding="utf-8"))["pictures"]]


def keep(pictures: list[Labelled], facts: dict) -> None:
    """Write labelled pictures, and `facts` on the model that drew them, into `eyes.json`, a line for each picture."""
    rows = ",\n".join(json.dumps(asdict(one)) for one in pictures)
    head = json.dumps(facts)[1:-1]
    MEASURED.write_text("{" + head + ', "pictures": [\n' + rows + "\n]}\n", encoding="utf-8")
