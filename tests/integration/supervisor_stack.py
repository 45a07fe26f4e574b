"""What the supervisor's tests share: a supervisor process under test, and the search for what it left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import supervisor_stand_in

from leftovers import processes_of
from lookalike.errors import NotRunning
from lookalike.supervisor import Status, status

T = TypeVar("T")

START_S = 150.0  # A busy machine takes long to compile the network; none of these waits is expected to last.


def eventually(look: Callable[[], T | None], timeout_s: float = START_S) -> T:
    """Return what `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {look}"
        time.sleep(0.05)


def pids(now: Status) -> dict[str, int]:
    """The pids of a stack's processes by their names."""
    return {process.name: process.pid for process in now.processes if process.pid}


class Stack:
    """A stack under a supervisor process of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start stand-ins, by default all well behaved."""
        return self.run(supervisor_stand_in.__file__, str(self.data_dir), *arguments)

    def start_servers(self) -> "subprocess.Popen[str]":
        """Start the real Redis and Milvus."""
        return self.run(supervisor_stand_in.__file__, "--servers", str(self.data_dir))

    def start_all(self, **settings: str) -> "subprocess.Popen[str]":
        """Start the real stack, with an untrained network unless the settings say otherwise."""
        environment = {"LOOKALIKE_WEIGHTS": "untrained", **settings}
        return self.run(supervisor_stand_in.__file__, "--up", **environment)

    def run(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a supervisor in another process."""
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LOOKALIKE_DATA_DIR": str(self.data_dir), **environment},
        )
        return self.process

    def start_ready(self, *arguments: str) -> Status:
        """Start stand-ins and wait until they run."""
        self.start(*arguments)
        return self.ready()

    def ready(self) -> Status:
        """Wait until everything runs."""

        def look() -> Status | None:
            try:
                now = status(self.data_dir)
            except NotRunning:
                return None
            return now if now.ready else None

        return eventually(look)

    def replaced(self, name: str, former: int) -> Status:
        """Wait until a process runs anew, and everything else runs."""

        def look() -> Status | None:
            now = self.ready()
            return now if pids(now).get(name) not in {None, former} else None

        return eventually(look)

    def end(self, signum: int) -> tuple[int, str]:
        """Signal the supervisor; returns its exit status and what it said."""
        assert self.process
        self.process.send_signal(signum)
        said, _ = self.process.communicate(timeout=START_S)
        return self.process.returncode, said

    def kill_with_watchman(self, now: Status) -> None:
        """Kill the supervisor and who would end the rest for it."""
        assert now.watchman_pid
        os.kill(now.pid, signal.SIGSTOP)  # Else it would replace the watchman.
        os.kill(now.watchman_pid, signal.SIGKILL)
        self.end(signal.SIGKILL)

    def gone(self, timeout_s: float = START_S) -> None:
        """Wait until no process is left."""
        eventually(lambda: not processes_of(self.data_dir), timeout_s)

    def clean_up(self) -> None:
        """Kill whatever runs: the supervisor first, for it would start again what dies before it."""
        if self.process:
            self.process.kill()
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()
        while left := processes_of(self.data_dir):
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=1)
