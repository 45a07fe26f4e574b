"""Artifacts: files that jobs leave behind beside their records, in a folder that web and workers share.

A file is made of numbered parts, one or more, and reads as all of them one after another. A part appears whole or not
at all, and one that is written again replaces the one before: a step that is done twice leaves one. They live as long
as their job's record; the clean-up removes them after that.
"""

import io
import os
import re
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from lookalike.errors import ArtifactNotFound
from lookalike.settings import Settings
from lookalike.uploads.space import Space, full_disk_refused

_JOB_ID: Final = re.compile("[0-9A-Za-z]{1,64}")
_NAME: Final = re.compile("[a-z0-9][a-z0-9_-]{0,63}(\\.[a-z0-9]{1,8}){1,2}")
_PART: Final = re.compile("[0-9]{8}")
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One file of a job."""

    name: str
    size: int  #: Bytes.


class Artifacts:
    """The files of all jobs. Raises `InsufficientStorage` where the disk is full, and `ValueError` for a bad name."""

    def __init__(self, folder: Path, *, min_free_bytes: int) -> None:
        self._folder = folder
        self._space = Space(folder, min_free_bytes=min_free_bytes, quota_bytes=0)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Keep them in the data folder."""
        return cls(settings.artifacts_dir, min_free_bytes=settings.min_free_bytes)

    @contextmanager
    def writing(self, job_id: str, name: str, *, part: int = 0) -> Iterator[BinaryIO]:
        """Write one part of a file; it takes the place of an earlier one when the block ends without an error."""
        folder = self._path(job_id, name)
        with full_disk_refused():
            folder.mkdir(parents=True, exist_ok=True)
            self._space.check(0, used_bytes=0)
            fd, unfinished = tempfile.mkstemp(dir=folder, suffix=".unfinished")
            try:
                with os.fdopen(fd, "wb") as file:
                    yield file
                Path(unfinished).replace(folder / f"{part:08d}")
            finally:
                Path(unfinished).unlink(missing_ok=True)

    def write(self, job_id: str, name: str, data: bytes, *, part: int = 0) -> None:
        """Write one part of a file from memory."""
        with self.writing(job_id, name, part=part) as file:
            file.write(data)

    def discard(self, job_id: str, name: str, *, part: int = 0) -> None:
        """Remove one part of a file, where it is there: one of an earlier try that a later one has no use for."""
        (self._path(job_id, name) / f"{part:08d}").unlink(missing_ok=True)

    def of(self, job_id: str) -> list[Artifact]:
        """Return the files of a job by name."""
        if not _JOB_ID.fullmatch(job_id) or not (self._folder / job_id).is_dir():
            return []
        names = sorted(path.name for path in (self._folder / job_id).iterdir() if _NAME.fullmatch(path.name))
        return [
            Artifact(name=name, size=sum(part.stat().st_size for part in parts))
            for name in names
            if (parts := _parts_in(self._folder / job_id / name))
        ]

    def size(self, job_id: str, name: str) -> int:
        """Return the bytes of a file; raises `ArtifactNotFound`."""
        return sum(part.stat().st_size for part in self._parts(job_id, name))

    def read(self, job_id: str, name: str) -> Iterator[bytes]:
        """Yield a file block by block; raises `ArtifactNotFound` before the first."""
        return _blocks(self._parts(job_id, name))

    def open(self, job_id: str, name: str) -> BinaryIO:
        """Open a file for reading, as one that can seek, whatever parts it has; raises `ArtifactNotFound`."""
        return io.BufferedReader(_Joined(self._parts(job_id, name)), _BLOCK)

    def written_at(self, job_id: str) -> float:
        """Return when anything of a job was written last, in seconds since the epoch; 0 where nothing is there."""
        folder = self._folder / job_id
        if not _JOB_ID.fullmatch(job_id) or not folder.is_dir():
            return 0.0
        times = [folder.stat().st_mtime]
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):  # It was finished, or replaced.
                times.append(path.stat().st_mtime)
        return max(times)

    def remove(self, job_id: str) -> int:
        """Remove all files of a job; returns how many bytes they had."""
        freed = sum(artifact.size for artifact in self.of(job_id))
        if _JOB_ID.fullmatch(job_id):
            shutil.rmtree(self._folder / job_id, ignore_errors=True)
        return freed

    def jobs(self) -> list[str]:
        """Return the ids of the jobs that have files."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if _JOB_ID.fullmatch(path.name))

    def _parts(self, job_id: str, name: str) -> list[Path]:
        try:
            folder = self._path(job_id, name)
        except ValueError as error:
            raise ArtifactNotFound from error
        parts = _parts_in(folder)
        if not parts:
            raise ArtifactNotFound
        return parts

    def _path(self, job_id: str, name: str) -> Path:
        if not _JOB_ID.fullmatch(job_id) or not _NAME.fullmatch(name):
            raise ValueError(f"no artifact can have the name {name!r}")
        return self._folder / job_id / name


class _Joined(io.RawIOBase):
    """Files read as one, one after another; one of them is open at a time."""

    def __init__(self, parts: Sequence[Path]) -> None:
        super().__init__()
        self._parts = parts
        self._ends = list(accumulate(part.stat().st_size for part in parts))
        self._at = 0
        self._opened: tuple[int, BinaryIO] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        number = bisect_right(self._ends, self._at)
        if number == len(self._ends):
            return 0
        begin = self._ends[number - 1] if number else 0
        file = self._file(number)
        file.seek(self._at - begin)
        read = int(file.readinto(memoryview(buffer)[: self._ends[number] - self._at]))
        self._at += read
        return read

    def close(self) -> None:
        if self._opened:
            self._opened[1].close()
            self._opened = None
        super().close()

    def _file(self, number: int) -> Any:
        if self._opened is None or self._opened[0] != number:
            if self._opened:
                self._opened[1].close()
            self._opened = (number, self._parts[number].open("rb"))
        return self._opened[1]


def _parts_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _PART.fullmatch(path.name))


def _blocks(parts: Iterable[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
