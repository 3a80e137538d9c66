"""The README's first command, in this very folder: JupyterLab starts on the first chapter, in the learner's copy."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import course  # noqa: E402


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(address: str, server) -> dict:
    """The server's JSON answer; it prints its address a moment before it listens."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(60):
        assert server.poll() is None, "the server has ended"
        try:
            with direct.open(address, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            time.sleep(0.5)
    pytest.fail(f"nobody answers at {address}")


@pytest.mark.skipif(os.name == "nt", reason="a console signal would reach the test runner too")
def test_lab_opens_the_first_chapter():
    if course.stale_reason(ROOT, course.wanted_stamp(ROOT, os.environ.get("COURSE_UNPINNED") == "1")):
        assert not os.environ.get("CI"), "CI runs `course.py test`, which sets the environment up"
        pytest.skip("the environment is not set up: run python3 course.py test")
    port = free_port()
    server = subprocess.Popen([sys.executable, "course.py", "lab", "--no-browser", "--port", str(port)], cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        said = []
        for line in server.stdout:
            said.append(line)
            address = re.search(rf"http://(?:localhost|127\.0\.0\.1):{port}/\S*token=(\w+)", line)
            if address:
                break
        else:
            pytest.fail("no address was printed:\n" + "".join(said))
        assert not any("Installing" in line for line in said), "a second start takes no install step"
        assert "00_text_in_picture_out.ipynb" in address[0]
        contents = ask(f"http://localhost:{port}/api/contents/work?token={address[1]}", server)
        assert "00_text_in_picture_out.ipynb" in [entry["name"] for entry in contents["content"]]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
