"""A model card of the picture-book model, written from what `checkpoints/manifest.json` says of it.

A card says what a model is for, what it was trained on and where it fails, so that who uses it need not find out.
Mitchell et al. 2019 (arXiv:1810.03993). Every number in it is the manifest's, or an interval of one.
"""

import json
from pathlib import Path
from typing import Any

from course_utils.metrics.statistics import wilson_interval

PART, TRAINED = "picture_book/", ("vae", "decoder", "clip", "unet")  # the files and the trainings of this model
FAULTS_SHOWN = 6
MEASURES = {"drawing": "adherence", "variety": "variety", "eyes": "eyes"}  # what is measured, and by which benchmark


def read_manifest(path: Path | str) -> dict:
    """Return what a manifest says. Raises ValueError, with the file's name, if there is none or it cannot be read."""
    try:
        manifest = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}): ship a model first.") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): get the shipped model again.") from error
    require_manifest(manifest)
    return manifest


def require_manifest(manifest: Any) -> None:
    """Raise ValueError unless this tells of the model's files and trainings, as `recipes.ship` writes it."""
    parts = manifest if isinstance(manifest, dict) else {}
    files, training = parts.get("files") or {}, parts.get("training") or {}
    if not any(name.startswith(PART) for name in files) or not set(TRAINED) <= set(training):
        raise ValueError(
            f"Expected a manifest with files of {PART} and the trainings {', '.join(TRAINED)}, but got one with "
            f"{', '.join(parts) or 'nothing'}: take checkpoints/manifest.json."
        )


def model_card(manifest: dict) -> str:
    """Return the model card of the picture-book model, as Markdown.

    manifest: what `checkpoints/manifest.json` holds. What was not measured is named, with the command that measures it.
    Raises ValueError unless the files and the trainings of the model are in it.
    """
    require_manifest(manifest)
    sections = {
        "The model": _model(manifest),
        "What it is for": INTENDED,
        "Training data": _training(manifest),
        "What was measured": _measured(manifest),
        "Known faults": _faults(manifest),
        "Marks and filters": MARKS,
        "Licence": LICENCE,
        "The files": _files(manifest),
    }
    return (
        "# Model card: picture_book\n\n" + "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items()) + "\n"
    )


INTENDED = """\
- **Intended:** learning and teaching how text-to-image models work: drawing small pages of the picture book from short
  English captions, taking the model apart, training its parts again.
- **Not intended:** anything outside the picture book. It knows the subjects, colours, places, poses and styles of its
  own captions and nothing else; a word that it never saw has an arbitrary effect. It cannot draw people, texts or
  photographs, and no decision about anybody should rest on what it draws.
- **Users:** readers of this course."""

MARKS = """\
- PNGs that the course writes say in a text chunk how they were made; saving them again with another program may remove
  it. No invisible mark is written unless a program asks for one (`course_utils.pipelines.watermark`).
- There is no safety checker: the training data hold nothing that one would look for."""

LICENCE = "Weights and code: MIT. Text and images of the course: CC BY 4.0. See the file LICENSE."


def _model(manifest: dict) -> str:
    size = sum(facts["bytes"] for name, facts in manifest["files"].items() if name.startswith(PART))
    return (
        "A latent diffusion model after Stable Diffusion v1.5, in small: a CLIP text encoder, a U-Net that removes "
        f"noise from latents, and an autoencoder. {size / 1e6:.1f} MB in diffusers' folder layout, as safetensors."
    )


def _training(manifest: dict) -> str:
    lines = [
        "Pages that the course's own program draws, with captions that it writes with them and that are true "
        "throughout (`course_utils.data.picture_book`). No photographs, no downloads, no people, nobody's personal "
        "data. Some combinations of subject, colour and place are held out of all training. The corgi is drawn more "
        "often than other subjects. What the program never draws, the model has never seen.",
        "",
        "| part | updates | processor hours | command |",
        "|:--|--:|--:|:--|",
    ]
    for name in TRAINED:
        run = manifest["training"][name]
        hours = run["seconds"] * run.get("processes", 1) / 3600
        lines.append(f"| {name} | {run['steps']:,} | {hours:.1f} | `{run['command']}` |")
        if "note" in run:
            lines.append(f"| | | | {run['note']} |")
    return "\n".join(lines)


def _measured(manifest: dict) -> str:
    lines = []
    for row in _drawing(manifest):
        low, high = wilson_interval(round(row["all"] * row["prompts"]), row["prompts"])
        lines.append(
            f"- **Prompts followed** (all that the prompt names is there and nothing else, by the course's judge; "
            f"{row['prompts']:,} frozen prompts, {row['steps']} steps, guidance {row['guidance']:g}): "
            f"{row['all']:.1%}, 95% interval {low:.1%} to {high:.1%}."
        )
    if "eyes" in manifest:
        eyes = manifest["eyes"]
        low, high = wilson_interval(round(eyes["agreement"] * eyes["pictures"]), eyes["pictures"])
        lines.append(
            f"- **How far the judge can be believed:** on {eyes['pictures']} of these pages it agrees with a person's "
            f"eyes in {eyes['agreement']:.1%} ({low:.1%} to {high:.1%}); right by eye {eyes['right by eye']}, by the "
            f"judge {eyes['right by the judge']}."
        )
    if "variety" in manifest:
        drawn, fresh = manifest["variety"]["drawn by the model"], manifest["variety"]["fresh renders"]
        name = next(key for key in drawn if key.startswith("distance"))
        lines.append(
            f"- **Copying:** {name}: the least {drawn[name]['least']}, median {drawn[name]['median']}; of fresh "
            f"pages of the program {fresh[name]['least']} and {fresh[name]['median']}."
        )
    return "\n".join([*lines, *_not_measured(manifest)])


def _faults(manifest: dict) -> str:
    lines = []
    for row in _drawing(manifest):
        tasks = sorted(row["tasks"].items(), key=lambda task: task[1])
        lines.append("- Prompts followed, by task: " + ", ".join(f"{name} {share:.1%}" for name, share in tasks) + ".")
        lines.append(
            f"- Of combinations that it never saw it follows {row['held-out combinations']:.1%}, of others "
            f"{row['seen combinations']:.1%}."
        )
        style, share = min(row["styles"].items(), key=lambda style: style[1])
        lines.append(f"- Its worst style is {style}, {share:.1%}.")
        total = sum(row["faults"].values())
        kinds = ", ".join(f"{name} {count}" for name, count in row["faults"].items())
        lines.append(f"- What was wrong in the {total} pages that did not follow: {kinds}.")
        shown = row["first not followed"][:FAULTS_SHOWN]
        lines.append(
            "- The first prompts that it did not follow: " + "; ".join(f"“{prompt}”" for prompt in shown) + "."
        )
    if "variety" in manifest:
        drawn, fresh = manifest["variety"]["drawn by the model"], manifest["variety"]["fresh renders"]
        name = "standard deviation of a pixel"
        lines.append(
            f"- Pages of one prompt differ less than the program's own: {name} {drawn[name]} against {fresh[name]}."
        )
    return "\n".join(lines) or "Not measured: see above."


def _drawing(manifest: dict) -> list[dict]:
    return manifest.get("metrics", {}).get("drawing", [])[:1]


def _not_measured(manifest: dict) -> list[str]:
    there = {"drawing": bool(_drawing(manifest)), "variety": "variety" in manifest, "eyes": "eyes" in manifest}
    return [
        f"- Not measured: {name}. `python3 course.py benchmark {MEASURES[name]} --manifest` does it."
        for name, measured in there.items()
        if not measured
    ]


def _files(manifest: dict) -> str:
    lines = ["| file | bytes | SHA-256 |", "|:--|--:|:--|"]
    for name, facts in manifest["files"].items():
        if name.startswith(PART):
            lines.append(f"| {name.removeprefix(PART)} | {facts['bytes']:,} | `{facts['sha256']}` |")
    return "\n".join(lines)
