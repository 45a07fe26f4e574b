"""Crash points: places in a worker's work where a test can have it killed, as the kernel or a power cut would.

Nothing sets `LOOKALIKE_CRASH_AT` but tests. Its value is the name of a point, and after an `@` the path of a file: the
process dies only while that file is there and takes it along, so that its successor lives.
"""

import os
import signal
from pathlib import Path


class CrashPoints:
    """Kills this process with SIGKILL when it reaches the point it was told to die at."""

    def __init__(self, crash_at: str | None) -> None:
        self._point, _, fuse = (crash_at or "").partition("@")
        self._fuse = Path(fuse) if fuse else None

    def reach(self, point: str) -> None:
        """Say that the work has come to `point`."""
        if point == self._point and self._burns():
            os.kill(os.getpid(), signal.SIGKILL)

    def _burns(self) -> bool:
        if self._fuse is None:
            return True
        try:
            self._fuse.unlink()
        except FileNotFoundError:
            return False
        return True
