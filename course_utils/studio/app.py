"""The studio in a browser, served by Voilà: each page that is opened has a kernel, and so a studio, of its own."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import nbformat

FOLDER, MODEL, RUNS = "COURSE_STUDIO_FOLDER", "COURSE_STUDIO_MODEL", "COURSE_STUDIO_RUNS"  # for the kernels
CELL = "from course_utils.studio.app import page\n\npage()"
OPTIONS = {
    "Voila.ip": "127.0.0.1",  # this computer only
    "VoilaConfiguration.theme": "light",
    "VoilaConfiguration.show_tracebacks": False,
    "Voila.tornado_settings": {"websocket_max_message_size": 64 * 2**20},  # pictures from cameras
    "KernelManager.transport_encryption": "auto",  # else each kernel warns of its plain connection
}


def page():
    """What the notebook behind the page shows: a studio with the folders that `serve` was given, or one sentence."""
    import html

    import ipywidgets

    from course_utils.studio.panel import studio

    try:
        return studio(os.environ.get(FOLDER, "gallery"), os.environ.get(MODEL) or None, os.environ.get(RUNS, "runs"))
    except (ValueError, OSError) as error:
        return ipywidgets.HTML(f'<p role="alert">The studio cannot start: {html.escape(str(error))}</p>')


@contextlib.contextmanager
def notebook():
    """Give the path of the notebook that Voilà serves, in a folder of its own; afterwards it is gone."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL, id="studio")])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.metadata["title"] = "Studio"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "studio.ipynb"
        nbformat.write(made, path)
        yield path


def serve(folder: Path, model: Path | None = None, runs: Path = Path("runs"), port: int = 8866, browser: bool = True):
    """Serve the studio until Ctrl-C, and open it in the browser unless told not to.

    folder: of the gallery; model: a folder to draw with first; runs: the learner's own models and LoRAs.
    """
    from traitlets.config import Config
    from voila.app import Voila

    os.environ[FOLDER], os.environ[RUNS] = str(folder.resolve()), str(runs.resolve())
    os.environ[MODEL] = "" if model is None else str(model.resolve())
    config = Config()
    for name, value in OPTIONS.items():
        owner, _, option = name.partition(".")
        config[owner][option] = value
    with notebook() as path:
        options = [str(path), f"--port={port}", *([] if browser else ["--no-browser"])]
        Voila.launch_instance(argv=options, config=config)


def check(folder: Path, model: Path | None, port: int) -> None:
    """Raise ValueError, in one sentence, for what the studio cannot be started with; quick, before slow imports."""
    import socket
    from importlib.util import find_spec

    from course_utils.pipelines.model_folder import read_configurations
    from course_utils.pipelines.png_info import whole_number
    from course_utils.studio.gallery import Gallery

    for package in ("voila", "ipycanvas", "anywidget"):
        if find_spec(package) is None:
            raise ValueError(f"The package {package} is missing: run `python3 course.py repair`.")
    whole_number("The port", port, 1, 65535)
    if model is not None:
        read_configurations(model)
    Gallery(folder)
    with socket.socket() as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(
                f"The port {port} cannot be used ({error.strerror}): choose another, such as --port {port % 65535 + 1}."
            ) from None
