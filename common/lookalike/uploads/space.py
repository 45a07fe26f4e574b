"""Space: how much the uploads may take, and how much they do.

What is used is one number in a file that every change adds to, so that no request walks through the files. A process
that dies between a change and its booking makes it wrong by one file; the clean-up counts anew.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lookalike.errors import InsufficientStorage
from lookalike.uploads.locking import flocked, opened

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DIGITS: Final = 20  #: The number is written in one call over the last one, and so is whole at any time.


@contextmanager
def full_disk_refused() -> Iterator[None]:
    """Translate what the system says of a full disk into `InsufficientStorage`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InsufficientStorage from error
        raise


class Space:
    """The free-disk floor and the quota of a folder, and the count of what is used, shared by all processes."""

    def __init__(self, folder: Path, *, min_free_bytes: int, quota_bytes: int) -> None:
        self._folder = folder
        self._path = folder / "used"
        self._min_free_bytes = min_free_bytes
        self.quota_bytes = quota_bytes  #: 0 sets none.

    def check(self, wanted_bytes: int, *, used_bytes: int) -> None:
        """Raise `InsufficientStorage` where so many more bytes would pass the floor or the quota."""
        if shutil.disk_usage(self._folder).free - wanted_bytes < self._min_free_bytes:
            raise InsufficientStorage
        if self.quota_bytes and used_bytes + wanted_bytes > self.quota_bytes:
            raise InsufficientStorage(
                f"All uploads together may take {self.quota_bytes} bytes, and this one would take more than is left."
                " Delete collections that nobody needs, or raise LOOKALIKE_UPLOAD_QUOTA_BYTES."
            )

    def used(self) -> int | None:
        """Return the count, or None where nobody has counted yet."""
        try:
            with opened(self._path, os.O_RDONLY) as fd:
                used = _read(fd)
        except FileNotFoundError:
            return None
        # Below nothing where an upload is given up whose sender has not booked its last bytes yet.
        return used if used is None else max(0, used)

    def add(self, change_bytes: int) -> None:
        """Book a change. Nothing happens before the first count, which will find it."""
        try:
            with opened(self._path, os.O_RDWR) as fd, flocked(fd):
                used = _read(fd)
                if used is not None:
                    _write(fd, used + change_bytes)
        except FileNotFoundError:
            return

    def recounted(self, counted_bytes: int, *, used_before: int | None) -> int:
        """Put a fresh count in the place of the old; returns what is used now.

        `used_before` is what `used` said when the counting began: what was booked since then is added, since the walk
        may have passed its folder already.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with opened(self._path, os.O_RDWR | os.O_CREAT) as fd, flocked(fd):
            now = _read(fd)
            used = counted_bytes if now is None or used_before is None else counted_bytes + now - used_before
            _write(fd, used)
        return max(0, used)

    def replace(self, used_bytes: int) -> None:
        """Put a count in the place of the old."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with opened(self._path, os.O_RDWR | os.O_CREAT) as fd, flocked(fd):
            _write(fd, used_bytes)


def _read(fd: int) -> int | None:
    text = os.pread(fd, _DIGITS, 0)
    return int(text) if len(text) == _DIGITS else None


def _write(fd: int, used: int) -> None:
    os.pwrite(fd, b"%0*d" % (_DIGITS, used), 0)
