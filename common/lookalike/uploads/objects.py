"""Kept files in an object store, for front ends and workers that share no disk.

They lie under the same names as in a folder, and are read through the cache of remote files on each machine. An object
store has no locks: a file that is renewed in the moment between the last look at its age and its removal is lost. That
moment is one request long, and the file's job says `file_missing` then.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from lookalike.errors import FileMissing, FolderNotFound
from lookalike.remote.cache import Cache
from lookalike.remote.objects import ObjectInfo, ObjectStores, load_filesystem
from lookalike.remote.urls import object_prefix
from lookalike.roots import OpenedFile
from lookalike.settings import Settings
from lookalike.uploads.names import Area, Kept, is_sha256, make_uri, relative_path

_COUNT: Final = "used.json"  #: The last count of what is used, for machines that do not clean up themselves.
_MOST_COUNT_BYTES: Final = 1000
_NS: Final = 1e9


class ObjectFiles:
    """Content-addressed objects under a prefix; as `FolderFiles`. Raises `SourceUnavailable` besides."""

    is_local = False

    def __init__(
        self, prefix: str, cache: Cache, *, fresh_s: float, load: Callable[[str], Any] = load_filesystem
    ) -> None:
        self._prefix = object_prefix(prefix)
        self._cache = cache
        self._fresh_s = fresh_s
        self._stores = ObjectStores(load)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the one that `uploads_url` names."""
        # Renewing is a request and a copy in the store, so a file that was renewed a short while ago is let be.
        return cls(settings.uploads_url or "", Cache.from_settings(settings), fresh_s=settings.upload_ttl_s / 10)

    def add(self, area: Area, sha256: str, part: Path) -> bool:
        """Take over a complete file; returns whether its content is new here. It counts as renewed in any case."""
        found = self._info(area, sha256)
        if found is None or not self._is_fresh(found):
            self._stores.put(part, self._place(area, sha256))
        part.unlink()
        return found is None

    def renew(self, area: Area, sha256: str) -> bool:
        """Make a file about as young as if it had been sent now. False where there is none."""
        found = self._info(area, sha256)
        if found is None:
            return False
        if not self._is_fresh(found):
            try:
                self._stores.touch(found.uri)
            except FileMissing:
                return False
        return True

    def size(self, area: Area, sha256: str) -> int | None:
        """Return a file's bytes, or None where there is none."""
        found = self._info(area, sha256)
        return found.size if found else None

    def open(self, area: Area, sha256: str) -> OpenedFile:
        """Open this machine's copy of a file, which is made where there is none; raises `FileMissing`."""
        uri = make_uri(area, sha256)
        try:
            return self._cache.open(uri)
        except FileMissing:
            with self._cache.writing(uri) as (_, part):
                self._stores.copy(self._place(area, sha256), part, max_bytes=sys.maxsize)
            return self._cache.open(uri)

    def walk(self, area: Area) -> Iterator[Kept]:
        """Yield every file of an area, a page of the listing at a time."""
        try:
            for found in self._stores.walk(f"{self._prefix}{area}/", after=None):
                sha256 = found.uri.rpartition("/")[2]
                if is_sha256(sha256):
                    yield Kept(sha256=sha256, size=found.size, renewed_at=_renewed_at(found))
        except FolderNotFound:  # How some stores say that there is nothing yet.
            return

    def remove(self, area: Area, sha256: str, *, older_than: float) -> int | None:
        """Remove a file last renewed before a time; returns its bytes, or None where it is younger or gone."""
        found = self._info(area, sha256)
        if found is None or _renewed_at(found) >= older_than:
            return None
        self._stores.remove(found.uri)
        return found.size

    def publish_count(self, used_bytes: int, spool: Path) -> None:
        """Tell all machines how much is used; `spool` is the name of a file that may be written for it."""
        spool.write_text(json.dumps({"used_bytes": used_bytes, "counted_at": time.time()}))
        try:
            self._stores.put(spool, self._prefix + _COUNT)
        finally:
            spool.unlink()

    def published_count(self) -> tuple[int, float] | None:
        """Return how many bytes were used when that was last counted, and when that was; None before."""
        try:
            count = json.loads(self._stores.read(self._prefix + _COUNT, 0, _MOST_COUNT_BYTES))
        except FileMissing:
            return None
        return int(count["used_bytes"]), float(count["counted_at"])

    def _place(self, area: Area, sha256: str) -> str:
        return f"{self._prefix}{area}/{relative_path(sha256)}"

    def _info(self, area: Area, sha256: str) -> ObjectInfo | None:
        try:
            return self._stores.info(self._place(area, sha256))
        except FileMissing:
            return None

    def _is_fresh(self, found: ObjectInfo) -> bool:
        return time.time() - _renewed_at(found) < self._fresh_s


def _renewed_at(found: ObjectInfo) -> float:
    # A store that does not say how old its objects are has none that may be removed for their age.
    return found.mtime_ns / _NS if found.mtime_ns else time.time()
