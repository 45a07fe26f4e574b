"""What the supervisor's tests share: a supervisor process under test, and the search for what it left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import supervisor_stand_in

from lookalike.errors import NotRunning
from lookalike.supervisor import Status, status
from lookalike.supervisor.watchman import GRACE_S

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


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Every living process that carries the data folder in its environment or command."""
    found = []
    for process in psutil.process_iter():
        try:
            known_by = [*process.cmdline(), *process.environ().values()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(data_dir) in word for word in known_by):
                found.append(process)
        except psutil.Error:
            continue
    return found


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
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def gone(self, timeout_s: float = GRACE_S + 5.0) -> None:
        """Wait until no process is left."""
        eventually(lambda: not processes_of(self.data_dir), timeout_s)

    def clean_up(self) -> None:
        """Kill whatever a failed test left."""
        for process in processes_of(self.data_dir):
            process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()
