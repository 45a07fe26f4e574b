"""Kept files in a folder that web and workers share. A file appears complete or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path

from lookalike.roots import OpenedFile, open_regular
from lookalike.uploads.locking import lock_file
from lookalike.uploads.names import Area, Kept, is_sha256, relative_path


class FolderFiles:
    """Content-addressed files below a folder.

    `add` and `renew` hold the folder's lock together with others, `remove` alone: a file cannot be renewed between the
    last look at its age and its removal.
    """

    is_local = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = folder / ".lock"

    def add(self, area: Area, sha256: str, part: Path) -> bool:
        """Take over a complete file; returns whether its content is new here. It counts as renewed in any case."""
        target = self._path(area, sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.utime(part)
        with lock_file(self._lock, shared=True):
            is_new = not target.exists()
            part.replace(target)
        return is_new

    def renew(self, area: Area, sha256: str) -> bool:
        """Make a file as young as if it had been sent now. False where there is none."""
        try:
            with lock_file(self._lock, shared=True):
                os.utime(self._path(area, sha256), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def size(self, area: Area, sha256: str) -> int | None:
        """Return a file's bytes, or None where there is none."""
        try:
            return self._path(area, sha256).stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def open(self, area: Area, sha256: str) -> OpenedFile:
        """Open a file; raises `FileMissing`."""
        return open_regular(self._path(area, sha256))

    def walk(self, area: Area) -> Iterator[Kept]:
        """Yield every file of an area, folder by folder."""
        for outer in _folders(self._folder / area):
            for inner in _folders(outer):
                yield from _files(inner)

    def remove(self, area: Area, sha256: str, *, older_than: float) -> int | None:
        """Remove a file last renewed before a time; returns its bytes, or None where it is younger or gone."""
        path = self._path(area, sha256)
        with lock_file(self._lock):
            try:
                status = path.stat(follow_symlinks=False)
            except FileNotFoundError:
                return None
            if status.st_mtime >= older_than:
                return None
            path.unlink()
        return status.st_size

    def publish_count(self, used_bytes: int, spool: Path) -> None:
        """Do nothing: who shares the folder shares the count in it."""

    def published_count(self) -> tuple[int, float] | None:
        """Return None: there is no other count."""
        return None

    def _path(self, area: Area, sha256: str) -> Path:
        return self._folder / area / relative_path(sha256)


def _folders(parent: Path) -> Iterator[Path]:
    try:
        with os.scandir(parent) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return
    for name in names:
        yield parent / name


def _files(folder: Path) -> list[Kept]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_sha256(entry.name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # Another process cleans up, too.
                continue
            found.append(Kept(sha256=entry.name, size=status.st_size, renewed_at=status.st_mtime))
    return found
