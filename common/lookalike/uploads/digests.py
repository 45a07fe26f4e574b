"""Running digests: the hashes of files that are still growing, so that their last piece need not wait for all of them.

Python's digests cannot be saved, so each process keeps its own in memory, and reads from the disk what other processes
appended meanwhile. A process that was started anew begins again: then the last piece waits for the whole, at 0.8 GB/s.
"""

import hashlib
import os
from collections import OrderedDict
from threading import Lock
from typing import Final

_MOST: Final = 256  #: Digests a process remembers; the ones used longest ago are forgotten first.
_BLOCK: Final = 1 << 20
_QUICK_BYTES: Final = 1 << 30  #: What the last request may have to hash: a second or two.


class RunningDigest:
    """The SHA-256 of a file's first `position` bytes."""

    def __init__(self) -> None:
        self.position = 0
        self._digest = hashlib.sha256()

    def update(self, block: bytes) -> None:
        """Go on with bytes that begin at `position`."""
        self._digest.update(block)
        self.position += len(block)

    def catch_up(self, fd: int, end: int, *, at_most: int | None = None) -> None:
        """Read on from the file until `end`, or until so many bytes are done."""
        stop = end if at_most is None else min(end, self.position + at_most)
        while self.position < stop:
            block = os.pread(fd, min(_BLOCK, stop - self.position), self.position)
            if not block:
                return
            self.update(block)

    def catch_up_early(self, fd: int, end: int, *, size: int) -> None:
        """Spare the last request most of a large file's hashing, by a part that this request can bear."""
        if size > _QUICK_BYTES:
            self.catch_up(fd, end, at_most=_QUICK_BYTES)

    def hexdigest(self) -> str:
        """Return it as text."""
        return self._digest.hexdigest()


class RunningDigests:
    """The digests of one process, by upload. Whoever has taken one is its only user."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._digests: OrderedDict[str, RunningDigest] = OrderedDict()

    def take(self, upload_id: str) -> RunningDigest:
        """Return an upload's digest, or a new one where this process has none or another thread has it."""
        with self._lock:
            return self._digests.pop(upload_id, None) or RunningDigest()

    def give_back(self, upload_id: str, digest: RunningDigest) -> None:
        """Remember a digest, where there is none that got further."""
        with self._lock:
            other = self._digests.get(upload_id)
            if other is None or other.position < digest.position:
                self._digests[upload_id] = digest
            while len(self._digests) > _MOST:
                self._digests.popitem(last=False)

    def forget(self, upload_id: str) -> None:
        """Drop an upload's digest."""
        with self._lock:
            self._digests.pop(upload_id, None)
