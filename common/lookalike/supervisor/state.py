"""What lies under DATA/run: the locks that say who runs here, and the file that says what runs.

`lock` is held by the supervisor as long as it lives, `watch.lock` by its watchman. The kernel drops both with their
holders, so nothing has to be cleaned up after a crash: the state file is believed only while its writer holds the lock.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from lookalike.errors import DataFolderLocked, SetupError
from lookalike.records import Record

_RETRIES = 10  # `status` looks at the lock for a moment; a start that meets it there tries again.
_RETRY_PAUSE_S = 0.05


class ProcessState(StrEnum):
    """Where a process of the stack stands."""

    WAITING = "waiting"  #: For the servers it needs.
    STARTING = "starting"  #: It runs, and has not said that it is ready.
    RUNNING = "running"
    RESTARTING = "restarting"  #: It died, and is started again after a pause.
    STOPPING = "stopping"
    STOPPED = "stopped"


class ProcessStatus(Record):
    """One process of the stack."""

    name: str
    pid: int | None  #: Null while there is none.
    state: ProcessState
    restarts: int


class Status(Record):
    """What `lookalike status` tells."""

    pid: int  #: Of the supervisor.
    url: str
    data_dir: Path
    ready: bool  #: The stack has started, and each of its processes runs.
    started_at: datetime | None = None
    redis_url: str | None = None  #: Of the Redis that the stack started for itself.
    milvus_uri: str | None = None  #: Of the Milvus that the stack started for itself.
    watchman_pid: int | None = None  #: The process that cleans up, should the supervisor be killed.
    run_id: str = ""  #: Each process of the stack carries it in its environment as LOOKALIKE_RUN_ID.
    processes: tuple[ProcessStatus, ...] = ()


class FileLock:
    """A lock that one process holds until it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def acquire(self) -> int | None:
        """Take the lock; returns the open file that holds it, or None where somebody else does."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for attempt in range(_RETRIES):
            if attempt:
                time.sleep(_RETRY_PAUSE_S)
            if _try_lock(handle, fcntl.LOCK_EX):
                os.ftruncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0)
                return handle
        os.close(handle)
        return None

    def holder(self) -> int | None:
        """Return the pid written by the lock's holder; 0 where it has not written yet, None where nobody holds it."""
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if _try_lock(handle, fcntl.LOCK_SH):
                return None
            return int(os.pread(handle, 20, 0) or 0)
        finally:
            os.close(handle)

    def wait_free(self, timeout_s: float) -> bool:
        """Wait until nobody holds the lock; False where somebody still does at the end."""
        deadline = time.monotonic() + timeout_s
        while self.holder() is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_RETRY_PAUSE_S)
        return True


def _try_lock(handle: int, mode: int) -> bool:
    try:
        fcntl.flock(handle, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class RunFolder:
    """DATA/run of one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._folder = data_dir / "run"
        self._state = self._folder / "state.json"
        self.lock = FileLock(self._folder / "lock")
        self.watch_lock = FileLock(self._folder / "watch.lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the data folder; raises `DataFolderLocked`, and `SetupError` where it cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = self.lock.acquire()
        except OSError as error:
            raise SetupError(
                f"The data folder {self.data_dir} cannot be used: {error.strerror}. Choose another with --data-dir."
            ) from error
        if handle is None:
            raise DataFolderLocked(
                f"Another lookalike (pid {self.lock.holder()}) runs on the data folder {self.data_dir}. "
                "Stop it with `lookalike down`, or choose another folder with --data-dir."
            )
        try:
            yield
        finally:
            os.close(handle)

    def write(self, status: Status) -> None:
        """Replace the state file in one step."""
        draft = self._state.with_suffix(".new")
        draft.write_text(status.model_dump_json(indent=1))
        draft.replace(self._state)

    def clear(self) -> None:
        """Remove the state file: nothing of this run is left."""
        self._state.unlink(missing_ok=True)

    def read(self) -> Status | None:
        """Return what the last supervisor wrote, running or not; None where it left nothing readable."""
        try:
            return Status.model_validate(json.loads(self._state.read_bytes()))
        except (FileNotFoundError, ValueError, ValidationError):
            return None

    def current(self) -> Status | None:
        """Return the state of the supervisor that runs now, None where none does."""
        pid = self.lock.holder()
        if pid is None:
            return None
        status = self.read()
        if status is None or status.pid != pid:  # It holds the lock and has not written yet.
            return Status(pid=pid, url="", data_dir=self.data_dir, ready=False)
        return status
