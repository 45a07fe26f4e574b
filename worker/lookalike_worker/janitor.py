"""The janitor: removes uploads that nothing needs any more, now and then, in the background of a worker."""

import logging
import os
import random
import threading
import time
from typing import Final

from lookalike.errors import LookalikeError
from lookalike.garbage import Jobs, Vectors, collect
from lookalike.records import Garbage
from lookalike.settings import Settings
from lookalike.uploads import UploadStore
from lookalike.uploads.locking import flocked, opened

log = logging.getLogger(__name__)

_EVERY_S: Final = 3600.0
_JITTER: Final = 0.1
_STOP_S: Final = 5.0  #: A clean-up may be cut short anywhere.


class Janitor(threading.Thread):
    """Cleans up at its start and then every hour, until stopped. Of the workers that share a disk, one does."""

    def __init__(
        self, settings: Settings, jobs: Jobs, vectors: Vectors, uploads: UploadStore, *, every_s: float = _EVERY_S
    ) -> None:
        super().__init__(name="janitor", daemon=True)
        self._settings = settings
        self._jobs = jobs
        self._vectors = vectors
        self._uploads = uploads
        self._every_s = every_s
        self._stopped = threading.Event()

    def run(self) -> None:
        """Clean up until `stop`."""
        while True:
            try:
                self.clean()
            except (LookalikeError, OSError) as error:
                log.warning("nothing was cleaned up, the next try is in an hour: %s", error)
            except Exception:  # A janitor that died would go unnoticed until the disk is full.
                log.exception("a clean-up failed, the next try is in an hour")
            if self._stopped.wait(self._every_s * random.uniform(1.0, 1.0 + _JITTER)):  # noqa: S311 - no secret
                return

    def clean(self) -> Garbage | None:
        """Clean up, unless another worker is at it or has done it; returns what was removed."""
        self._uploads.folder.mkdir(parents=True, exist_ok=True)
        # The file is the lock, and its age tells when somebody was through last.
        stamp = self._uploads.folder / ".cleaned"
        with opened(stamp, os.O_RDWR | os.O_CREAT) as fd, flocked(fd, wait=False) as held:
            if not held or (os.fstat(fd).st_size and time.time() - os.fstat(fd).st_mtime < self._every_s):
                return None
            garbage = collect(self._settings, self._jobs, self._vectors, self._uploads, dry_run=False)
            os.pwrite(fd, b"cleaned up\n", 0)
        log.info(
            "cleaned up: %d uploads, %d unfinished ones, %d copies of remote files and what %d jobs had left, %d bytes",
            garbage.uploads,
            garbage.parts,
            garbage.fetched,
            garbage.artifacts,
            garbage.freed_bytes,
        )
        return garbage

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join(_STOP_S)
