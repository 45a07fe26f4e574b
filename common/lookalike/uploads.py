"""Uploads: bytes that came with a request, kept by their hash until workers read them.

Web and workers share this folder. `images` are kept for as long as the service is; `queries` are the pictures people
searched with, and expire. Knows nothing of what the bytes are.
"""

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol

from lookalike.errors import FileMissing, FileTooLarge, InsufficientStorage
from lookalike.roots import OpenedFile, open_regular

Area = Literal["images", "queries"]

UPLOAD_SCHEME: Final = "upload:"
QUERY_SCHEME: Final = "query:"

_AREAS: Final[dict[str, Area]] = {UPLOAD_SCHEME: "images", QUERY_SCHEME: "queries"}
_SHA256: Final = re.compile("[0-9a-f]{64}")
_PART: Final = ".part"  #: What the name of an unfinished upload ends in.
_BLOCK: Final = 1 << 20
_CHECK_EVERY_BLOCKS: Final = 16  #: How often a long upload looks at the free space again.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Stream(Protocol):
    """What an upload is read from: a file, or a request's part."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


def upload_uri(sha256: str) -> str:
    """Return the URI of an uploaded image."""
    return UPLOAD_SCHEME + sha256


def query_uri(sha256: str) -> str:
    """Return the URI of an uploaded query."""
    return QUERY_SCHEME + sha256


class UploadStore:
    """Content-addressed files. A file appears complete or not at all, and the same content is kept once."""

    def __init__(self, folder: Path, *, min_free_bytes: int, max_file_bytes: int) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._max_file_bytes = max_file_bytes

    def put(self, stream: Stream, *, area: Area = "images") -> str:
        """Keep what `stream` holds; returns its SHA-256, whose URI `upload_uri` or `query_uri` makes.

        Raises `FileTooLarge` and `InsufficientStorage`, and leaves nothing behind then. An empty file is kept like any
        other: the worker that reads it puts it into its job's ledger, and the rest of the upload goes on.
        """
        try:
            return self._put(stream, self._folder / area)
        except OSError as error:
            if error.errno in _FULL:
                raise InsufficientStorage from error
            raise

    def open(self, uri: str) -> OpenedFile:
        """Open an upload by its URI; raises `FileMissing` for one that never was or has expired."""
        scheme, _, sha256 = uri.rpartition(":")
        area = _AREAS.get(scheme + ":")
        if area is None or not _SHA256.fullmatch(sha256):
            raise FileMissing("There is no upload with this URI.")
        return open_regular(self._path(self._folder / area, sha256))

    def expire_queries(self, older_than_s: float) -> int:
        """Remove queries last sent more than `older_than_s` ago, and parts of uploads that died; returns how many."""
        oldest = time.time() - older_than_s
        removed = 0
        for area in _AREAS.values():
            pattern = f"*{_PART}" if area == "images" else "**/*"
            for path in (self._folder / area).glob(pattern):
                # Another process may expire the same files.
                with suppress(FileNotFoundError):
                    if path.is_file() and path.stat().st_mtime < oldest:
                        path.unlink()
                        removed += 1
        return removed

    @staticmethod
    def _path(area: Path, sha256: str) -> Path:
        # Two levels of 256 folders keep each one small: a million uploads are 15 files in a folder.
        return area / sha256[:2] / sha256[2:4] / sha256

    def _put(self, stream: Stream, area: Path) -> str:
        area.mkdir(parents=True, exist_ok=True)
        fd, part = tempfile.mkstemp(dir=area, suffix=_PART)
        try:
            with os.fdopen(fd, "wb") as file:
                sha256 = self._copy(stream, file)
            target = self._path(area, sha256)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Replaced even where it is there already: that renews its age, so it cannot expire under a new search.
            Path(part).replace(target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        return sha256

    def _copy(self, stream: Stream, file: BinaryIO) -> str:
        digest = hashlib.sha256()
        size = blocks = 0
        while True:
            if blocks % _CHECK_EVERY_BLOCKS == 0 and shutil.disk_usage(self._folder).free < self._min_free_bytes:
                raise InsufficientStorage
            block = stream.read(_BLOCK)
            if not block:
                break
            blocks += 1
            size += len(block)
            if size > self._max_file_bytes:
                raise FileTooLarge
            digest.update(block)
            file.write(block)
        return digest.hexdigest()
