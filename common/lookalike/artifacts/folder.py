"""Parts of files in a folder that web and workers share: `job/name/number`."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from lookalike.artifacts.reading import Part
from lookalike.errors import SourceUnavailable

_NUMBER: Final = re.compile("[0-9]{8}")


class FolderParts:
    """As `Parts` says. A part is replaced by one move on one disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def spool(self, job_id: str, name: str) -> Path:
        """Return the folder of the file itself: what a killed writer leaves there goes with its job."""
        return self._folder / job_id / name

    def put(self, job_id: str, name: str, number: int, file: Path) -> None:
        """Move a complete file to its place."""
        file.replace(self._path(job_id, name, number))

    def discard(self, job_id: str, name: str, number: int) -> None:
        """Remove a part, where it is there."""
        self._path(job_id, name, number).unlink(missing_ok=True)

    def of(self, job_id: str, name: str) -> list[Part]:
        """Return the parts of a file in their order."""
        found = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._folder / job_id / name) as entries:
            for entry in entries:
                if _NUMBER.fullmatch(entry.name):
                    with suppress(FileNotFoundError):  # It was discarded in this moment.
                        found.append(_described(int(entry.name), entry.stat()))
        return sorted(found, key=lambda part: part.number)

    def names(self, job_id: str) -> dict[str, int]:
        """Return the names of a job's files, and the bytes of each."""
        folder = self._folder / job_id
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return {name: sum(part.size for part in parts) for name in names if (parts := self.of(job_id, name))}

    def open(self, job_id: str, name: str, part: Part) -> "_FolderPart":
        """Open a part as it was described."""
        return _FolderPart(self._path(job_id, name, part.number), part)

    def written_at(self, job_id: str) -> float:
        """Return when anything of a job was written last, unfinished parts included."""
        folder = self._folder / job_id
        if not folder.is_dir():
            return 0.0
        times = [folder.stat().st_mtime]
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):  # It was finished, or replaced.
                times.append(path.stat().st_mtime)
        return max(times)

    def remove(self, job_id: str) -> None:
        """Remove a job's folder."""
        shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def jobs(self) -> list[str]:
        """Return the names of the folders."""
        return sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []

    def _path(self, job_id: str, name: str, number: int) -> Path:
        return self._folder / job_id / name / f"{number:08d}"


class _FolderPart:
    """A part's file: once it is open, nothing that takes its place is seen."""

    def __init__(self, path: Path, part: Part) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise SourceUnavailable("A part of the file is gone. Ask which files the job has.") from error
        if _described(part.number, os.fstat(self._fd)) != part:
            self.close()
            raise SourceUnavailable("The file was written again while it was read. Ask for it once more.")

    def read_at(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on."""
        return os.pread(self._fd, size, offset)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _described(number: int, status: os.stat_result) -> Part:
    return Part(number=number, size=status.st_size, version=f"{status.st_ino:x}-{status.st_mtime_ns:x}")
