"""The record of a finished training, which the manifest of the shipped model repeats: `folder/NAME/record.json`."""

import json
import os
import platform
import sys
from pathlib import Path

import torch

from course_utils.checkpoint import Run
from course_utils.files import new_file
from course_utils.machine.devices import profile


def read_record(home: Path, name: str = "record.json") -> dict | None:
    """What `write_record` wrote into the folder of a part; None if there is nothing that can be read."""
    try:
        facts = json.loads((home / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and {"command", "steps", "seconds"} <= set(facts) else None


def write_record(home: Path, facts: dict, name: str = "record.json") -> None:
    with new_file(home / name) as part:
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def facts_of(run: Run | None, home: Path, from_shipped: bool) -> dict:
    """What the record says of a finished run: command, seed, steps, wall time, machine, versions."""
    if run is None:
        raise ValueError(f"expected the checkpoint of the training that has ended in {home}, found none; train again")
    steps, seed = run.step, run.settings["seed"]
    command = f"COURSE_PROFILE={profile()} python3 course.py train {home.name} --steps {steps} --seed {seed}"
    before, shipped = read_record(home) or {}, read_record(home, "shipped.json") or {}
    seconds = run.seconds
    same_run = before.get("began") == run.began
    if same_run and before["own_steps"] == steps:  # nothing was added to it
        return before
    if from_shipped or (same_run and before["steps"] > before["own_steps"]):
        command = f"{shipped['command']} && {command} --from-shipped"
        steps, seconds = steps + shipped["steps"], seconds + shipped["seconds"]
    elif same_run:  # it was made longer
        command = f"{before['command']} && {command}"
    return {
        "command": command,
        "seed": seed,
        "steps": steps,
        "own_steps": run.step,
        "seconds": round(seconds),
        "final_loss": run.loss,
        "began": run.began,
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
    }
