"""The log file of one process: bounded in size, and read back when a start fails."""

import os
import shutil
from pathlib import Path

MAX_LOG_BYTES = 16 << 20
_TAIL_BYTES = 16 << 10


class LogFile:
    """DATA/logs/NAME.log, with one older part beside it.

    The writer keeps the file open for appending, so it is copied and cut short in place instead of renamed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def open(self) -> int:
        """Open for appending, after bounding it; what is written from here on is this run's."""
        handle = self._open()
        self._start = os.fstat(handle).st_size
        return handle

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.bound()
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def bound(self) -> None:
        """Move the content aside where it has grown too large. Lines written meanwhile are lost."""
        if self.path.exists() and self.path.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(self.path, self.path.with_suffix(".log.1"))
            os.truncate(self.path, 0)
            self._start = 0

    def append(self, line: str) -> None:
        """Add one line of our own."""
        with os.fdopen(self._open(), "a") as file:
            file.write(line + "\n")

    def tail(self, lines: int) -> list[str]:
        """Return the last lines that were written since it was opened, without empty ones."""
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(self._start, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
