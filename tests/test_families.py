"""The table that compares the families of generative models."""

import pytest

from course_utils.metrics import families
from course_utils.metrics.families import Row

ROWS = [
    Row("PixelCNN", "digits 16x16", 12345, 60, 0.5, 20.04, bits_per_dim=1.5),
    Row("VAE", "digits 16x16", 999, 61.4, 0.0004, 30, bits_per_dim=2, bound=True),
    Row("VAE", "picture book 32x32", 1000, 62, 2, 3, judge=0.5),
]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(families, "MEASURED", tmp_path / "families.json")
    families.keep(ROWS, {"machine": "a small one"})


def test_rows_come_back_as_they_were_kept(kept):
    assert families.measured() == ROWS


def test_the_table_shows_what_is_known_and_the_learners_row(kept, capsys):
    families.compare(Row("VAE", "digits 16x16", 5, 1, 0.02, 31, bits_per_dim=3, bound=True), upto="PixelCNN")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "your run" in lines[2]
    assert lines[1].split("  ")[0] == "PixelCNN" and lines[1].endswith("1.50") and "12,345" in lines[1]
    assert "20 ms" in lines[3] and lines[3].endswith("≤ 3.00")
    families.compare()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "0.4 ms" in lines[2] and "50%" in lines[3] and lines[3].endswith("–")


def test_an_unknown_family_is_an_error(kept):
    with pytest.raises(ValueError, match="out of: PixelCNN, VAE"):
        families.compare(upto="GAN")
