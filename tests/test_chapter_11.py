"""Chapter 11 runs, unchanged, on a pipeline with the layout of Stable Diffusion v1.5: one visible choice is enough."""

import os
from pathlib import Path

import nbformat
from thin_stable_diffusion import thin_pipeline

from course_utils.authoring.execution import client_for

ROOT = Path(__file__).resolve().parent.parent


def test_the_chapter_runs_on_the_layout_of_stable_diffusion(tmp_path):
    thin_pipeline().save_pretrained(tmp_path / "thin")
    notebook = nbformat.read(ROOT / "solutions/11_stable_diffusion.ipynb", as_version=4)
    client, environment = client_for(notebook, ROOT, ROOT / "solutions", kernel_name="python3", timeout=600)
    report, progress = str(tmp_path / "report.jsonl"), str(tmp_path / "progress.json")
    settings = {"COURSE_MODEL": str(tmp_path / "thin"), "COURSE_PROFILE": "smoke", "COURSE_DTYPE": "float32",
                "COURSE_REPORT": report, "COURSE_PROGRESS": progress}  # fmt: skip
    before = dict(os.environ)
    executed = client.execute(env={**environment, **settings})
    assert dict(os.environ) == before
    said = "".join(output.get("text", "") for cell in executed.cells for output in cell.get("outputs", []))
    assert "a model of your own: latents 4 x 16 x 16, images 3 x 128 x 128" in said
    assert "the safety checker of this pipeline: StableDiffusionSafetyChecker" in said
    assert Path(report).read_text(encoding="utf-8").count('"pass"') == 8
