"""The loop that keeps a stack alive: start in order, restart what dies, stop in reverse order.

One thread decides everything. It sleeps until a signal, the end of a child or the answer of a probe wakes it; probes
run in a small pool, so that a server that hangs cannot hold up the loop.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from signal import SIGINT, Signals
from typing import Final

from lookalike.errors import StartFailed
from lookalike.supervisor.inbox import Inbox
from lookalike.supervisor.lifeline import Lifeline
from lookalike.supervisor.logs import LogFile
from lookalike.supervisor.options import Event, EventKind
from lookalike.supervisor.plan import Plan
from lookalike.supervisor.process import ManagedProcess
from lookalike.supervisor.state import ProcessState, RunFolder, Status

EX_CONFIG: Final = 78  #: A process that ends with this has said in one sentence, its last line, what is to be set.
INTERRUPTED: Final = 130

_TICK_S: Final = 0.25
_LOG_CHECK_S: Final = 10.0
_PROBE_THREADS: Final = 4


class Supervisor:
    """Runs one plan on one data folder, whose lock the caller holds."""

    def __init__(
        self, plan: Plan, folder: RunFolder, *, on_event: Callable[[Event], None], ignore_hangup: bool = False
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._on_event = on_event
        self._inbox = Inbox(ignore_hangup=ignore_hangup)
        self._executor = ThreadPoolExecutor(_PROBE_THREADS, thread_name_prefix="probe")
        logs = folder.data_dir / "logs"
        self._journal = LogFile(logs / "supervisor.log")
        self._lifeline = Lifeline(folder.watch_lock, LogFile(logs / "watchman.log"))
        self._processes = [
            ManagedProcess(
                spec,
                log=LogFile(logs / f"{spec.name}.log"),
                lifeline=self._lifeline,
                executor=self._executor,
                wake=self._inbox.wake,
            )
            for spec in plan.specs
        ]
        self._started_at = datetime.now(UTC)
        self._began = time.monotonic()
        self._written: Status | None = None
        self._next_log_check_at = 0.0
        self._ready = False
        self._lacking: Future[str | None] | None = None
        self._lacking_since: float | None = None
        self._stop_asked_by: Signals | None = None
        self._hastened = False

    def run(self) -> int:
        """Run until a stop signal; returns the exit status. Raises `StartFailed` after stopping everything."""
        with self._inbox:
            try:
                self._lifeline.start()
                while self._stop_asked_by is None:
                    self._tick()
                    self._wait(_TICK_S)
            finally:
                self._stop()
        return 0 if self._ready else INTERRUPTED

    # --- Running ---

    def _wait(self, timeout_s: float) -> None:
        for signum in self._inbox.wait(timeout_s):
            if self._stop_asked_by is None:
                self._stop_asked_by = signum
            elif signum is SIGINT:
                self._hastened = True

    def _tick(self) -> None:
        now = time.monotonic()
        self._keep_watchman()
        for process in self._processes:
            self._step(process, now)
        if not self._ready:
            self._look_whether_ready(now)
        self._bound_logs(now)
        self._publish()

    def _keep_watchman(self) -> None:
        if self._lifeline.revive():
            self._tell(EventKind.TROUBLE, "the watchman ended; started another")

    def _step(self, process: ManagedProcess, now: float) -> None:
        match process.state:
            case ProcessState.WAITING:
                if self._needs_are_met(process):
                    self._start(process, now)
            case ProcessState.RESTARTING:
                if now >= process.next_start_at:
                    process.restarts += 1
                    self._start(process, now)
            case ProcessState.STARTING | ProcessState.RUNNING:
                self._look_after(process, now)

    def _start(self, process: ManagedProcess, now: float) -> None:
        try:
            process.start()
        except OSError as error:  # No process, no file handle or no disk space to be had.
            if not self._ready:
                raise StartFailed(f"{process.spec.name} could not be started: {error}.") from error
            process.started_at = now
            pause = process.plan_restart(now)
            self._tell(
                EventKind.TROUBLE, f"{process.spec.name} could not be started: {error}; trying again in {pause:.0f} s"
            )

    def _needs_are_met(self, process: ManagedProcess) -> bool:
        running = {other.spec.name for other in self._processes if other.state is ProcessState.RUNNING}
        return running.issuperset(process.spec.needs)

    def _look_after(self, process: ManagedProcess, now: float) -> None:
        code = process.reap()
        if code is not None:
            self._restart(process, code, now)
            return
        before = process.state
        process.check(now)
        if before is not process.state and process.state is ProcessState.RUNNING:
            self._tell(EventKind.PROGRESS, f"{process.spec.name} is ready ({now - process.started_at:.1f} s)")
        if process.silent_for_too_long(now):
            self._end_silence(process)

    def _end_silence(self, process: ManagedProcess) -> None:
        if not self._ready:
            raise StartFailed(f"{process.spec.name} does not answer. Its log may say why: {process.log.path}")
        self._tell(EventKind.TROUBLE, f"{process.spec.name} (pid {process.pid}) does not answer; killing it")
        process.kill()

    def _restart(self, process: ManagedProcess, code: int, now: float) -> None:
        if not self._ready:
            raise self._start_failed(process, code)
        pause = process.plan_restart(now)
        when = f"in {pause:.0f} s" if pause else "now"
        self._tell(EventKind.TROUBLE, f"{process.spec.name} ended ({_ending(code)}); starting it again {when}")

    def _start_failed(self, process: ManagedProcess, code: int) -> StartFailed:
        lines = process.log.tail(10)
        if code == EX_CONFIG and lines:
            return StartFailed(lines[-1].removeprefix("error: "))
        for line in lines:
            self._tell(EventKind.TROUBLE, f"{process.spec.name}: {line}")
        return StartFailed(
            f"{process.spec.name} ended while it was starting ({_ending(code)}). Its log says why: {process.log.path}"
        )

    def _look_whether_ready(self, now: float) -> None:
        if any(process.state is not ProcessState.RUNNING for process in self._processes):
            return
        if self._lacking_since is None:
            self._lacking_since = now
        if self._lacking is None:
            self._lacking = self._executor.submit(self._plan.lacking)
        elif self._lacking.done():
            lacking = self._lacking.result()
            self._lacking = None
            if lacking is None:
                self._ready = True
                self._publish()  # Whoever hears that it is ready finds it so.
                self._tell(EventKind.READY, f"ready after {now - self._began:.1f} s: {self._plan.url}")
            elif now - self._lacking_since > self._plan.ready_timeout_s:
                raise StartFailed(f"Everything runs, but the service does not become ready: {lacking}")

    def _bound_logs(self, now: float) -> None:
        if now < self._next_log_check_at:
            return
        self._next_log_check_at = now + _LOG_CHECK_S
        for process in self._processes:
            process.log.bound()

    # --- Stopping ---

    def _stop(self) -> None:
        self._tell(EventKind.STOPPING, "stopping")
        for tier in sorted({process.spec.tier for process in self._processes}, reverse=True):
            self._stop_tier([process for process in self._processes if process.spec.tier == tier])
        self._lifeline.close()
        self._executor.shutdown(cancel_futures=True)
        self._folder.clear()
        self._tell(EventKind.STOPPED, "stopped")

    def _stop_tier(self, processes: list[ManagedProcess]) -> None:
        for process in processes:
            process.ask_to_stop()
        asked_at = time.monotonic()
        self._publish()
        while any(process.reap() is None and process.pid is not None for process in processes):
            now = time.monotonic()
            for process in processes:
                if self._hastened or now - asked_at > process.spec.stop_grace_s:
                    process.kill()
            self._keep_watchman()
            self._wait(_TICK_S)
        for process in processes:
            process.state = ProcessState.STOPPED
        self._publish()

    # --- Telling ---

    def _publish(self) -> None:
        status = self._status()
        if status == self._written:
            return
        self._written = status
        try:
            self._folder.write(status)
        except OSError as error:  # A full disk is no reason to stop serving.
            self._tell(EventKind.TROUBLE, f"the state file could not be written: {error}")

    def _status(self) -> Status:
        everything_runs = all(process.state is ProcessState.RUNNING for process in self._processes)
        return Status(
            pid=os.getpid(),
            url=self._plan.url,
            data_dir=self._folder.data_dir,
            ready=self._ready and everything_runs,
            started_at=self._started_at,
            redis_url=self._plan.redis_url,
            milvus_uri=self._plan.milvus_uri,
            watchman_pid=self._lifeline.pid,
            run_id=self._plan.run_id,
            processes=tuple(process.status() for process in self._processes),
        )

    def _tell(self, kind: EventKind, message: str) -> None:
        with suppress(OSError):  # A full disk is no reason to stop serving.
            self._journal.append(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {message}")
        try:
            self._on_event(Event(kind, message))
        except OSError:  # The terminal or the pipe is gone; what happens next is not to depend on it.
            self._on_event = lambda _: None


def _ending(code: int) -> str:
    return f"signal {Signals(-code).name}" if code < 0 else f"exit status {code}"
