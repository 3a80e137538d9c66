"""A kernel that runs a learner's cells within limits of time, and answers for the exercises."""

import contextlib
import os
import time
from queue import Empty

from course_utils.authoring.execution import QUIET, environment_for

STARTING = 180  # seconds for the kernel, and again for the libraries
ANSWERING = 300  # seconds for one exercise with all its seeds, which has limits of its own
INTERRUPTED = 5  # seconds until a cell has to listen to an interrupt


class KernelEnded(Exception):
    """The kernel ended, or had to be ended, with what it ran."""


class Kernel:
    """A kernel for learners' code; `with Kernel(...)` starts it, and ends it in any case."""

    def __init__(self, root, folder):
        self.root, self.folder = root, folder

    def __enter__(self):
        from jupyter_client import KernelManager

        # The learner's kernel may have a name that this machine does not know; the course has one kernel only
        self.manager = KernelManager(kernel_name="python3")
        environment = environment_for(self.root)
        environment.pop("COURSE_REPORT", None)
        try:
            self.manager.start_kernel(cwd=str(self.folder), extra_arguments=QUIET,
                                      env={"COURSE_PROFILE": "smoke", **environment})  # fmt: skip
            self.client = self.manager.blocking_client()
            self.client.start_channels()
            self.client.wait_for_ready(timeout=STARTING)
            if self.run("__import__('course_utils.exercises.graded', fromlist=['listen']).listen()", STARTING):
                raise KernelEnded
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if hasattr(self, "client"):
            self.client.stop_channels()
        with contextlib.suppress(Exception):
            self.manager.shutdown_kernel(now=True)

    def run(self, source: str, seconds: float) -> str:
        """Run a cell; return what it raised, in words, or "". Raises KernelEnded."""
        _, problem = self._wait(self.client.execute(source, allow_stdin=False, stop_on_error=False), seconds)
        return problem

    def state_of(self, id: str, seeds: list[int]) -> str | None:
        """Return the state of an exercise, or None if there is no answer. Raises KernelEnded."""
        from course_utils.exercises.account import STATES
        from course_utils.exercises.graded import COMM

        content = {"comm_id": os.urandom(16).hex(), "target_name": COMM, "data": {"id": id, "seeds": seeds}}
        message = self.client.session.msg("comm_open", content)
        self.client.shell_channel.send(message)
        data, _ = self._wait(message["header"]["msg_id"], ANSWERING)
        state = data.get("state") if isinstance(data, dict) else None
        return state if state in STATES else None

    def _wait(self, request: str, seconds: float) -> tuple[object, str]:
        """Wait until the kernel has done what was asked; return the data it sent, and what the code raised."""
        data, problem, deadline, interrupted = None, "", time.monotonic() + seconds, False
        while True:
            with contextlib.suppress(Empty):
                message = self.client.get_iopub_msg(timeout=0.2)
                kind, content = message["header"]["msg_type"], message["content"]
                if message["parent_header"].get("msg_id") == request:
                    if kind == "comm_msg":
                        data = content["data"]
                    elif kind == "error" and not interrupted:
                        problem = f"raised {content['ename']}: {content['evalue']}"[:200].splitlines()[0]
                    elif kind == "status" and content["execution_state"] == "idle":
                        return data, problem
            if not self.manager.is_alive():
                raise KernelEnded("ended Python")
            if time.monotonic() > deadline:
                problem = f"was still running after {seconds:g} seconds, and was stopped"
                if interrupted:
                    raise KernelEnded(problem)
                self.manager.interrupt_kernel()
                interrupted, deadline = True, time.monotonic() + INTERRUPTED
