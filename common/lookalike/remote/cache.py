"""The cache: copies of remote files in the upload folder, within a bound, the longest unused going first.

Every copy is disposable at any time. A copy appears complete or not at all. Web and workers share the folder.
"""

import logging
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from lookalike.errors import FileMissing, InsufficientStorage
from lookalike.fetched import FETCHED_AREA, fetched_path, fetched_uri, open_fetched
from lookalike.roots import OpenedFile
from lookalike.settings import Settings
from lookalike.uploads.space import full_disk_refused

log = logging.getLogger(__name__)

PART: Final = ".part"  #: What the name of an unfinished copy ends in.
LOCK: Final = ".lock"
DOWNLOADS: Final = "downloads"  #: The folder of large files, which are read over a long time.

_FILE_GRACE_S: Final = 120.0  #: A copy this young is about to be read.
_DOWNLOAD_GRACE_S: Final = 3600.0  #: A large file used this recently is probably not done with.
_PART_KEPT_S: Final = 86_400.0  #: An unfinished download may be gone on with for this long.
_AGE_STEP_S: Final = 60.0  #: Copies are not told apart by less: it bounds the memory of a clean-up.
_LEAST_BETWEEN_PRUNES: Final = 64 << 20  #: Bytes.


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What a clean-up of the cache removed, or would remove."""

    files: int = 0
    freed_bytes: int = 0


class Cache:
    """The folder of copies."""

    def __init__(self, folder: Path, *, max_bytes: int, min_free_bytes: int) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._written = 0  # Since this process last cleaned up.
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the cache that the settings name."""
        folder = settings.uploads_dir / FETCHED_AREA
        return cls(folder, max_bytes=settings.fetch_cache_bytes, min_free_bytes=settings.min_free_bytes)

    @contextmanager
    def writing(self, uri: str) -> Iterator[tuple[BinaryIO, Path]]:
        """Write the copy of a remote file, and its name while it is written; it is in place afterwards.

        Raises `InsufficientStorage`, and leaves nothing behind where anything is raised.
        """
        with full_disk_refused():
            self.check_room()
            target = fetched_path(self.folder, fetched_uri(uri))
            target.parent.mkdir(parents=True, exist_ok=True)
            fd, name = tempfile.mkstemp(dir=self.folder, suffix=PART)
            part = Path(name)
            try:
                with os.fdopen(fd, "wb") as file:
                    yield file, part
                size = part.stat().st_size
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        self.count(size)

    def open(self, uri: str) -> OpenedFile:
        """Open the copy of a remote file by the file's own URI, which makes it young; raises `FileMissing`."""
        copy = fetched_uri(uri)
        with suppress(FileNotFoundError):
            os.utime(fetched_path(self.folder, copy), follow_symlinks=False)
        return open_fetched(self.folder, copy)

    def has(self, uri: str) -> bool:
        """Tell whether there is a copy, and make it young."""
        try:
            with self.open(uri):
                return True
        except FileMissing:
            return False

    def check_room(self, wanted_bytes: int = 0) -> None:
        """Raise `InsufficientStorage` where the disk has too little space left, even without older copies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._has_room(wanted_bytes):
            self.prune(to_bytes=0)
            if not self._has_room(wanted_bytes):
                raise InsufficientStorage

    def count(self, size: int) -> None:
        """Take note of so many new bytes, and clean up after a tenth of what the cache may hold."""
        with self._lock:
            self._written += size
            due = self._written >= max(self._max_bytes // 10, _LEAST_BETWEEN_PRUNES)
            if due:
                self._written = 0
        if due:
            self.prune()

    def prune(self, *, to_bytes: int | None = None, dry_run: bool = False) -> Pruned:
        """Remove what has been unused the longest until `to_bytes` are left, the cache's bound where None.

        Young copies stay, even beyond the bound: somebody is about to read them.
        """
        allowed = self._max_bytes if to_bytes is None else to_bytes
        now = time.time()
        by_age: Counter[int] = Counter()
        for copy in self._walk(now):
            by_age[copy.step] += copy.size
        excess = by_age.total() - allowed
        last = None  # Everything up to this age goes.
        for step in sorted(by_age):
            if excess <= 0:
                break
            last = step
            excess -= by_age[step]
        files = freed = 0
        for copy in self._walk(now):
            if copy.removable and (copy.abandoned or (last is not None and copy.step <= last)):
                with suppress(FileNotFoundError):
                    if not dry_run:
                        copy.path.unlink()
                    files += 1
                    freed += copy.size
        if files and not dry_run:
            log.info("removed %d copies of remote files, %d bytes", files, freed)
        return Pruned(files=files, freed_bytes=freed)

    def _has_room(self, wanted_bytes: int) -> bool:
        return shutil.disk_usage(self.folder).free - wanted_bytes >= self._min_free_bytes

    def _walk(self, now: float) -> "Iterator[_Copy]":
        for folder, _, names in os.walk(self.folder):
            is_download = Path(folder).name == DOWNLOADS
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    status = path.stat(follow_symlinks=False)
                    age_s = now - status.st_mtime
                    # Whoever downloads holds a lock by its file, which must not be replaced under him.
                    is_part = name.endswith((PART, LOCK))
                    grace_s = _PART_KEPT_S if is_part else _DOWNLOAD_GRACE_S if is_download else _FILE_GRACE_S
                    yield _Copy(
                        path=path,
                        size=status.st_size,
                        step=int(status.st_mtime // _AGE_STEP_S),
                        removable=age_s > grace_s,
                        abandoned=is_part and age_s > grace_s,
                    )


@dataclass(frozen=True, kw_only=True)
class _Copy:
    path: Path
    size: int
    step: int  #: Of its age: smaller is older.
    removable: bool
    abandoned: bool


def prune_fetched(settings: Settings, *, dry_run: bool = False) -> Pruned:
    """Bring the cache that the settings name within its bound; for the clean-up of a service."""
    return Cache.from_settings(settings).prune(dry_run=dry_run)
