"""What tests of the command line share."""

import pytest
import tiny

from course_utils.pipelines.picture_book import save_pipeline


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a small pipeline with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_pipeline(tiny.tiny_pipeline(), folder)
    return str(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, on the CPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    return tmp_path
