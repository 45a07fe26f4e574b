"""Parts of files in an object store, for front ends and workers that share no disk: `artifacts/job/name/number`.

An object appears whole or not at all, so a part does. It is written in a folder of its machine first.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from lookalike.artifacts.reading import Part
from lookalike.errors import FileMissing, FolderNotFound, SourceUnavailable
from lookalike.remote.objects import ObjectInfo, ObjectStores, load_filesystem
from lookalike.remote.urls import object_prefix

_NUMBER: Final = re.compile("[0-9]{8}")
_NS: Final = 1e9
_ABANDONED_S: Final = 86_400.0  #: No part takes that long to write.


class ObjectParts:
    """As `Parts` says; everything raises `SourceUnavailable` besides."""

    def __init__(self, prefix: str, folder: Path, *, load: Callable[[str], Any] = load_filesystem) -> None:
        self._prefix = f"{object_prefix(prefix)}artifacts/"
        self._spool = folder / "unfinished"
        self._stores = ObjectStores(load)

    def spool(self, job_id: str, name: str) -> Path:  # noqa: ARG002 - the same one for all
        """Return a folder of this machine; what a killed writer left there is removed with the next day's garbage."""
        return self._spool

    def put(self, job_id: str, name: str, number: int, file: Path) -> None:
        """Store a complete file as an object."""
        self._stores.put(file, self._uri(job_id, name, number))

    def discard(self, job_id: str, name: str, number: int) -> None:
        """Remove a part, where it is there."""
        with suppress(FileMissing):
            self._stores.remove(self._uri(job_id, name, number))

    def of(self, job_id: str, name: str) -> list[Part]:
        """Return the parts of a file in their order."""
        found = self._walk(f"{job_id}/{name}/")
        return [_described(int(key), info) for key, info in found if _NUMBER.fullmatch(key)]

    def names(self, job_id: str) -> dict[str, int]:
        """Return the names of a job's files, and the bytes of each."""
        sizes: dict[str, int] = {}
        for key, info in self._walk(f"{job_id}/"):
            name, _, number = key.partition("/")
            if _NUMBER.fullmatch(number):
                sizes[name] = sizes.get(name, 0) + info.size
        return sizes

    def open(self, job_id: str, name: str, part: Part) -> "_ObjectPart":
        """Open a part as it was described: one that was written again is another object."""
        uri = self._uri(job_id, name, part.number)
        try:
            found = self._stores.info(uri)
        except FileMissing as error:
            raise SourceUnavailable("A part of the file is gone. Ask which files the job has.") from error
        if _described(part.number, found) != part:
            raise SourceUnavailable("The file was written again while it was read. Ask for it once more.")
        return _ObjectPart(self._stores, uri)

    def written_at(self, job_id: str) -> float:
        """Return when a part of a job was written last, to the second; now where the store does not say."""
        found = self._walk(f"{job_id}/")
        return max((info.mtime_ns / _NS if info.mtime_ns else time.time() for _, info in found), default=0.0)

    def remove(self, job_id: str) -> None:
        """Remove all parts of a job."""
        for _, info in self._walk(f"{job_id}/"):
            self._stores.remove(info.uri)

    def jobs(self) -> list[str]:
        """Return the ids of the jobs that have parts. What killed writers of this machine left is removed meanwhile."""
        for path in self._spool.glob("*.unfinished"):
            with suppress(FileNotFoundError):  # Its writer has finished.
                if path.stat().st_mtime < time.time() - _ABANDONED_S:
                    path.unlink()
        return sorted({key.partition("/")[0] for key, _ in self._walk("")})

    def _uri(self, job_id: str, name: str, number: int) -> str:
        return f"{self._prefix}{job_id}/{name}/{number:08d}"

    def _walk(self, below: str) -> Iterator[tuple[str, ObjectInfo]]:
        """Yield what lies under a prefix, by what follows it."""
        prefix = self._prefix + below
        try:
            for info in self._stores.walk(prefix, after=None):
                yield info.uri.removeprefix(prefix), info
        except FolderNotFound:  # How some stores say that there is nothing yet.
            return


class _ObjectPart:
    """An object, read a range at a time."""

    def __init__(self, stores: ObjectStores, uri: str) -> None:
        self._stores = stores
        self._uri = uri

    def read_at(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on."""
        return self._stores.read(self._uri, offset, offset + size)

    def close(self) -> None:
        """Do nothing: nothing is held."""


def _described(number: int, info: ObjectInfo) -> Part:
    return Part(number=number, size=info.size, version=info.etag or str(info.mtime_ns))
