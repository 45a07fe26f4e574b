"""Artifacts: files that jobs leave behind beside their records.

They lie in a folder that web and workers share, or in the object store that uploads are kept in.

A file is made of numbered parts, one or more, and reads as all of them one after another. A part appears whole or not
at all, and one that is written again replaces the one before: a step that is done twice leaves one. They live as long
as their job's record; the clean-up removes them after that.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Protocol, Self

from lookalike.artifacts.folder import FolderParts
from lookalike.artifacts.reading import BLOCK_BYTES, ArtifactFile, Part, PartReader
from lookalike.errors import ArtifactNotFound
from lookalike.settings import Settings
from lookalike.uploads.space import Space, full_disk_refused

_JOB_ID: Final = re.compile("[0-9A-Za-z]{1,64}")
_NAME: Final = re.compile("[a-z0-9][a-z0-9_-]{0,63}(\\.[a-z0-9]{1,8}){1,2}")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One file of a job."""

    name: str
    size: int  #: Bytes.


class Parts(Protocol):
    """Where parts are kept, by job, name and number."""

    def spool(self, job_id: str, name: str) -> Path:
        """Return the folder in which a part is written before it is put away."""

    def put(self, job_id: str, name: str, number: int, file: Path) -> None:
        """Keep a complete file as a part; it takes the place of the one before."""

    def discard(self, job_id: str, name: str, number: int) -> None:
        """Remove a part, where it is there."""

    def of(self, job_id: str, name: str) -> list[Part]:
        """Return the parts of a file in their order, none where there is no such file."""

    def names(self, job_id: str) -> dict[str, int]:
        """Return what lies under a job: names, and the bytes of each."""

    def open(self, job_id: str, name: str, part: Part) -> PartReader:
        """Open a part as it was described; raises `SourceUnavailable` where it is not the same any more."""

    def written_at(self, job_id: str) -> float:
        """Return when anything of a job was written last, in seconds since the epoch; 0 where nothing is there."""

    def remove(self, job_id: str) -> None:
        """Remove all parts of a job."""

    def jobs(self) -> list[str]:
        """Return what has parts, in order."""


class Artifacts:
    """The files of all jobs. Raises `InsufficientStorage` where the disk is full, and `ValueError` for a bad name.

    In an object store, everything raises `SourceUnavailable` besides.
    """

    def __init__(self, folder: Path, *, min_free_bytes: int, parts: Parts | None = None) -> None:
        self._parts = parts or FolderParts(folder)
        self._space = Space(folder, min_free_bytes=min_free_bytes, quota_bytes=0)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Keep them in the data folder; or in an object store, where uploads are kept in one."""
        parts: Parts | None = None
        if settings.uploads_url is not None:
            from lookalike.artifacts.objects import ObjectParts  # It talks to a network.

            parts = ObjectParts(settings.uploads_url, settings.artifacts_dir)
        return cls(settings.artifacts_dir, min_free_bytes=settings.min_free_bytes, parts=parts)

    @contextmanager
    def writing(self, job_id: str, name: str, *, part: int = 0) -> Iterator[BinaryIO]:
        """Write one part of a file; it takes the place of an earlier one when the block ends without an error."""
        _check(job_id, name)
        folder = self._parts.spool(job_id, name)
        with full_disk_refused():
            folder.mkdir(parents=True, exist_ok=True)
            self._space.check(0, used_bytes=0)
            fd, unfinished = tempfile.mkstemp(dir=folder, suffix=".unfinished")
            try:
                with os.fdopen(fd, "wb") as file:
                    yield file
                self._parts.put(job_id, name, part, Path(unfinished))
            finally:
                Path(unfinished).unlink(missing_ok=True)

    def write(self, job_id: str, name: str, data: bytes, *, part: int = 0) -> None:
        """Write one part of a file from memory."""
        with self.writing(job_id, name, part=part) as file:
            file.write(data)

    def discard(self, job_id: str, name: str, *, part: int = 0) -> None:
        """Remove one part of a file, where it is there: one of an earlier try that a later one has no use for."""
        _check(job_id, name)
        self._parts.discard(job_id, name, part)

    def of(self, job_id: str) -> list[Artifact]:
        """Return the files of a job by name."""
        if not _JOB_ID.fullmatch(job_id):
            return []
        sizes = self._parts.names(job_id)
        return [Artifact(name=name, size=sizes[name]) for name in sorted(sizes) if _NAME.fullmatch(name)]

    def read(self, job_id: str, name: str) -> Iterator[bytes]:
        """Yield a file block by block; raises `ArtifactNotFound` before the first."""
        return _blocks(self.open(job_id, name))

    def open(self, job_id: str, name: str) -> ArtifactFile:
        """Open a file as it is now, whatever parts it has; raises `ArtifactNotFound`."""
        try:
            _check(job_id, name)
        except ValueError as error:
            raise ArtifactNotFound from error
        parts: Sequence[Part] = self._parts.of(job_id, name)
        if not parts:
            raise ArtifactNotFound
        return ArtifactFile(parts, partial(self._parts.open, job_id, name))

    def written_at(self, job_id: str) -> float:
        """Return when anything of a job was written last, in seconds since the epoch; 0 where nothing is there."""
        return self._parts.written_at(job_id) if _JOB_ID.fullmatch(job_id) else 0.0

    def remove(self, job_id: str) -> int:
        """Remove all files of a job; returns how many bytes they had."""
        freed = sum(artifact.size for artifact in self.of(job_id))
        if _JOB_ID.fullmatch(job_id):
            self._parts.remove(job_id)
        return freed

    def jobs(self) -> list[str]:
        """Return the ids of the jobs that have files."""
        return [job_id for job_id in self._parts.jobs() if _JOB_ID.fullmatch(job_id)]


def _check(job_id: str, name: str) -> None:
    if not _JOB_ID.fullmatch(job_id) or not _NAME.fullmatch(name):
        raise ValueError(f"no artifact can have the name {name!r}")


def _blocks(file: ArtifactFile) -> Iterator[bytes]:
    with file:
        while block := file.read(BLOCK_BYTES):
            yield block
