"""The README's first command, in this very folder: JupyterLab starts on the first chapter, in the learner's copy."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import course  # noqa: E402


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(address: str, server=None, data=None) -> dict:
    """The JSON answer at an address; with `server`, its process, once it listens: it prints its address before.

    data: bytes to post there.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(60):
        assert server is None or server.poll() is None, "the server has ended"
        try:
            with direct.open(address, data, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            time.sleep(0.5)
    pytest.fail(f"nobody answers at {address}")


@contextmanager
def lab(*options, environment=None):
    """Let `course.py lab` start a server; yields its port, its token and the lines that it prints."""
    if course.stale_reason(ROOT, course.wanted_stamp(ROOT, os.environ.get("COURSE_UNPINNED") == "1")):
        assert not os.environ.get("CI"), "CI runs `course.py test`, which sets the environment up"
        pytest.skip("the environment is not set up: run python3 course.py test")
    port = free_port()
    command = [sys.executable, "course.py", "lab", "--no-browser", "--port", str(port), *options]
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, start_new_session=True)  # fmt: skip
    try:
        said = []
        for line in server.stdout:
            said.append(line)
            address = re.search(rf"http://(?:localhost|127\.0\.0\.1):{port}/\S*token=(\w+)", line)
            if address:
                break
        else:
            pytest.fail("no address was printed:\n" + "".join(said))
        # Read on: else a full pipe would stop the server
        threading.Thread(target=lambda: said.extend(server.stdout), daemon=True).start()
        ask(f"http://localhost:{port}/api/status?token={address[1]}", server)
        yield port, address[1], said
    finally:
        server.terminate()  # it ends its kernels too
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.mark.skipif(os.name == "nt", reason="a console signal would reach the test runner too")
def test_lab_opens_the_first_chapter():
    with lab() as (port, token, said):
        assert not any("Installing" in line for line in said), "a second start takes no install step"
        assert "00_text_in_picture_out.ipynb" in "".join(said)
        contents = ask(f"http://localhost:{port}/api/contents/work?token={token}")
        assert "00_text_in_picture_out.ipynb" in [entry["name"] for entry in contents["content"]]


def run_in_kernel(port, token, code):
    """Start a kernel as the browser does, run the code in it, and return what it prints."""
    from tornado.ioloop import IOLoop
    from tornado.websocket import websocket_connect

    kernel = ask(f"http://localhost:{port}/api/kernels?token={token}", data=b"{}")["id"]
    message = {
        "header": {"msg_id": "1", "msg_type": "execute_request", "username": "", "session": "1", "version": "5.3"},
        "parent_header": {}, "metadata": {}, "content": {"code": code, "silent": False}, "channel": "shell",
    }  # fmt: skip

    async def talk():
        socket = await websocket_connect(f"ws://localhost:{port}/api/kernels/{kernel}/channels?token={token}")
        await socket.write_message(json.dumps(message))
        while True:
            answer = json.loads(await socket.read_message())
            if answer["msg_type"] == "stream":
                return answer["content"]["text"]

    return IOLoop(make_current=False).run_sync(talk, timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="a console signal would reach the test runner too")
def test_a_kernel_works_and_does_not_warn_of_its_connection():
    with lab() as (port, token, said):
        assert run_in_kernel(port, token, "print(6 * 7)") == "42\n"
        assert not any("TCP" in line or "Traceback" in line for line in said), "".join(said)
