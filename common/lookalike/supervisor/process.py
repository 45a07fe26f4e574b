"""One supervised process: how it is started, known to be alive, and ended.

What to do when it dies, the supervisor decides.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Final

from lookalike.supervisor.lifeline import Lifeline
from lookalike.supervisor.logs import LogFile
from lookalike.supervisor.state import ProcessState, ProcessStatus
from lookalike.supervisor.watchman import group_exists, kill_group

#: The child waits for a word from us before it becomes its program, so that the watchman knows it before it can do
#: anything; where we die first, its input ends and so does it. The shell is replaced, and the pid stays.
_GATE: Final = ("/bin/sh", "-c", 'read -r word && exec "$@" </dev/null', "lookalike")

STARTING_CHECK_S: Final = 0.1
RUNNING_CHECK_S: Final = 5.0
_SETTLED_S: Final = 60.0  #: A process that ran this long starts its backoff anew when it dies.
_MAX_BACKOFF_S: Final = 30.0
_GROUP_END_S: Final = 0.2  #: The killed are gone at once; only an init that is slow to reap them keeps their group.


class Health(Enum):
    """What a probe found."""

    READY = auto()  #: It answers.
    UNKNOWN = auto()  #: It cannot be told now, through no fault of the process.
    SILENT = auto()  #: No answer.


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """What to run, and how to tell that it does."""

    name: str
    command: tuple[str, ...]
    probe: Callable[[int], Health]  #: Asked from another thread, with the process's pid.
    environment: Mapping[str, str] = field(repr=False)  #: The whole of it; it may hold secrets.
    folder: Path  #: The working folder.
    tier: int  #: Higher tiers are stopped first.
    needs: tuple[str, ...] = ()  #: Names of processes that answer before this one is started for the first time.
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 15.0  #: Then it is killed.
    start_timeout_s: float = 60.0  #: Silent for longer after its start, it is killed.
    silence_s: float = 60.0  #: Silent for longer after it was ready, it is killed.
    niceness: int = 0


class ManagedProcess:
    """A process of the stack with its state and its count of restarts."""

    def __init__(
        self, spec: ProcessSpec, *, log: LogFile, lifeline: Lifeline, executor: Executor, wake: Callable[[], None]
    ) -> None:
        self.spec = spec
        self.log = log
        self.state = ProcessState.WAITING
        self.restarts = 0
        self.started_at = 0.0
        self.next_start_at = 0.0
        self._lifeline = lifeline
        self._executor = executor
        self._wake = wake
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths_in_a_row = 0
        self._silent_since: float | None = None
        self._next_check_at = 0.0
        self._probe: Future[Health] | None = None

    @property
    def pid(self) -> int | None:
        """Its pid, which is also its process group; None while there is none."""
        return self._process.pid if self._process else None

    def status(self) -> ProcessStatus:
        """Return what `lookalike status` shows."""
        return ProcessStatus(name=self.spec.name, pid=self.pid, state=self.state, restarts=self.restarts)

    def start(self) -> None:
        """Start it in a process group of its own."""
        log = self.log.open()
        try:
            process = subprocess.Popen(  # noqa: S603 - the command comes from our own table
                [*_GATE, *self.spec.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
                cwd=self.spec.folder,
                env=dict(self.spec.environment),
                start_new_session=True,
            )
        finally:
            os.close(log)
        self._process = process
        self._lifeline.watch(process.pid, self.spec.stop_signal)
        if self.spec.niceness:
            _yield_to_others(process.pid, self.spec.niceness)
        self._open_gate(process)
        self.state = ProcessState.STARTING
        self.started_at = self._silent_since = self._next_check_at = time.monotonic()
        self._probe = None

    @staticmethod
    def _open_gate(process: "subprocess.Popen[bytes]") -> None:
        if process.stdin:
            with suppress(BrokenPipeError):  # Killed meanwhile; `reap` finds it.
                process.stdin.write(b"go\n")
                process.stdin.close()

    def reap(self) -> int | None:
        """Return the exit status if it has ended (minus the signal that killed it), and end the rest of its group."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is None:
            return None
        pgid = self._process.pid
        # What it leaves (gunicorn's workers, decoders) would hold its port or its files. The number of a group that has
        # members is not given to a new process, so this can only hit them.
        kill_group(pgid)
        deadline = time.monotonic() + _GROUP_END_S
        while group_exists(pgid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._lifeline.forget(pgid)
        self._process = None
        self._probe = None
        self.state = ProcessState.STOPPED
        return code

    def check(self, now: float) -> None:
        """Take in the answer of the last probe, and ask again when it is time."""
        if self._probe and self._probe.done():
            health = self._probe.result()
            self._probe = None
            if health is not Health.SILENT:
                self._silent_since = None
            elif self._silent_since is None:
                self._silent_since = now
            if health is Health.READY:
                self.state = ProcessState.RUNNING
            running = self.state is ProcessState.RUNNING
            self._next_check_at = now + (min(RUNNING_CHECK_S, self.spec.silence_s / 4) if running else STARTING_CHECK_S)
        elif self._probe is None and self._process and now >= self._next_check_at:
            self._probe = self._executor.submit(self.spec.probe, self._process.pid)
            self._probe.add_done_callback(lambda _: self._wake())

    def silent_for_too_long(self, now: float) -> bool:
        """Tell whether it has hung: it lives and does not answer."""
        if self._silent_since is None:
            return False
        running = self.state is ProcessState.RUNNING
        return now - self._silent_since > (self.spec.silence_s if running else self.spec.start_timeout_s)

    def plan_restart(self, now: float) -> float:
        """Set the time of its next start; returns the pause: none at first, then 1, 2, 4 ... 30 seconds."""
        if now - self.started_at > _SETTLED_S:
            self._deaths_in_a_row = 0
        pause = min(2.0 ** (self._deaths_in_a_row - 1), _MAX_BACKOFF_S) if self._deaths_in_a_row else 0.0
        self._deaths_in_a_row += 1
        self.state = ProcessState.RESTARTING
        self.next_start_at = now + pause
        return pause

    def ask_to_stop(self) -> None:
        """Send its polite signal, to the leader alone: it knows best how to end its children."""
        if self._process:
            self.state = ProcessState.STOPPING
            self._process.send_signal(self.spec.stop_signal)

    def kill(self) -> None:
        """Kill its whole group, at once."""
        if self._process:
            self._silent_since = time.monotonic()  # It is given as long again to be gone.
            kill_group(self._process.pid)


def _yield_to_others(pid: int, niceness: int) -> None:
    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + niceness, 19)
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    # Where Linux shares the processors out by session (CONFIG_SCHED_AUTOGROUP), niceness counts
    # within one only, and each process of ours has one of its own.
    with suppress(OSError):  # Another kernel.
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))
