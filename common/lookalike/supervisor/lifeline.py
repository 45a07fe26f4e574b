"""The supervisor's end of the pipe to its watchman; `watchman.py` is the other end."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from lookalike.errors import SetupError
from lookalike.supervisor import watchman
from lookalike.supervisor.logs import LogFile
from lookalike.supervisor.state import FileLock

_END_TIMEOUT_S = watchman.GRACE_S + 5.0


class Lifeline:
    """Keeps a watchman alive and told. A watchman that dies is replaced, and the new one hears everything again."""

    def __init__(self, lock: FileLock, log: LogFile) -> None:
        self._lock = lock
        self._log = log
        self._groups: dict[int, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The watchman's pid."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start a watchman. It inherits the held lock, so that a later start can wait until it has done its work."""
        held = self._lock.acquire()
        if held is None:
            raise SetupError("The processes of an earlier run have not ended yet. Try again in a few seconds.")
        log = self._log.open()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own file
                [sys.executable, "-I", "-S", str(Path(watchman.__file__).resolve())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
                pass_fds=(held,),
                start_new_session=True,
            )
        finally:
            os.close(log)
            os.close(held)
        for pgid, signum in self._groups.items():
            self._say(f"watch {pgid} {signum}")

    def revive(self) -> bool:
        """Replace the watchman if it is dead; returns whether it was."""
        if self._process is None or self._process.poll() is None:
            return False
        self._hang_up()
        self.start()
        return True

    def watch(self, pgid: int, stop_signal: int) -> None:
        """Have a process group ended, should this process end first."""
        self._groups[pgid] = int(stop_signal)
        self._say(f"watch {pgid} {int(stop_signal)}")

    def forget(self, pgid: int) -> None:
        """Say that a group has ended, before its number can be given to another."""
        if self._groups.pop(pgid, None) is not None:
            self._say(f"forget {pgid}")

    def close(self) -> None:
        """End the watchman, and with it every group that it still watches."""
        if self._process is None:
            return
        self._hang_up()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _hang_up(self) -> None:
        if self._process and self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _say(self, line: str) -> None:
        # A broken pipe means that it was killed: `revive` replaces it within a tick and repeats everything.
        if self._process and self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.write(line.encode() + b"\n")
