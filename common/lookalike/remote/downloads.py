"""Downloads: large files, archives and manifests, into the cache, going on where an earlier try broke off.

A part has a note beside it of the version it is of; the server is asked for the rest of that version, or for all of
another one. A whole file is asked for again only if it has changed.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC
from email.utils import format_datetime
from pathlib import Path
from typing import BinaryIO, Final

from lookalike.errors import ArchiveTooLarge, ImageError, SourceUnavailable, URLTimeout
from lookalike.remote.cache import DOWNLOADS, LOCK, PART, Cache
from lookalike.remote.http import Answer, Deadline, HTTPFetcher, check_status
from lookalike.remote.objects import ObjectStores
from lookalike.remote.passing import Passing, pause_s
from lookalike.roots import image_id
from lookalike.uploads.space import full_disk_refused

_BLOCK: Final = 8 << 20  #: Bytes of an object in one request.
_CHECK_EVERY: Final = 64 << 20  #: Bytes between two looks at the free space.
_LEAST_BYTES_PER_S: Final = 1024  #: What comes slower than this for a while is not waited for.
_TURN_S: Final = 0.5  #: Between two looks at whether another process has done with the same file.


@dataclass(frozen=True, kw_only=True)
class _Version:
    """Which version of a remote file a part is of."""

    etag: str = ""
    last_modified: str = ""

    @property
    def validator(self) -> str:
        """What If-Range takes: a strong etag, or a time."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


class Downloads:
    """Large files in the cache."""

    def __init__(  # noqa: PLR0913 - the parts it works with, and the limits
        self,
        cache: Cache,
        http: HTTPFetcher,
        stores: ObjectStores,
        *,
        timeout_s: float,
        retries: int,
        max_bytes: int,
        wait: Callable[[float], None],
    ) -> None:
        self._cache = cache
        self._http = http
        self._stores = stores
        self._timeout_s = timeout_s
        self._retries = retries
        self._max_bytes = max_bytes
        self._wait = wait

    def get(self, uri: str, *, is_object: bool, keep: Callable[[], None]) -> Path:
        """Return the file's place, whole and as it is now; `keep` is called all along, and may raise to give up.

        Raises what a fetch raises, `ArchiveTooLarge` and `InsufficientStorage`.
        """
        folder = self._cache.folder / DOWNLOADS
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / image_id(uri)
        with self._alone(target, keep), full_disk_refused():
            if is_object:
                self._get_object(uri, target, keep)
            else:
                self._get_http(uri, target, keep)
            os.utime(target)
        return target

    # --- Web addresses ---

    def _get_http(self, url: str, target: Path, keep: Callable[[], None]) -> None:
        part, failures, reached = target.with_suffix(PART), 0, 0
        while True:
            try:
                self._try_http(url, target, keep)
            except (Passing, URLTimeout) as failure:
                # What brought us further is no failure in a row: a long way may be gone in many steps.
                size = part.stat().st_size if part.exists() else 0
                failures = 1 if size > reached else failures + 1
                reached = max(reached, size)
                if failures > self._retries:
                    raise (failure.error if isinstance(failure, Passing) else failure) from failure
                keep()
                self._wait(pause_s(failures))
            else:
                return

    def _try_http(self, url: str, target: Path, keep: Callable[[], None]) -> None:
        part = target.with_suffix(PART)
        version = _read_version(target)
        headers, start = {}, 0
        if target.exists():
            if version.etag:
                headers["If-None-Match"] = version.etag
            elif version.last_modified:
                headers["If-Modified-Since"] = version.last_modified
        elif part.exists() and version.validator:
            start = part.stat().st_size
            headers = {"Range": f"bytes={start}-", "If-Range": version.validator} if start else {}
        deadline = Deadline(self._timeout_s)
        with self._http.get(url, deadline, headers) as answer:
            if answer.status == 304 and target.exists():
                return
            if answer.status == 416 and start:  # The part is no beginning of what is there now.
                part.unlink()
                raise Passing(ImageError("The address has another file now."))
            check_status(answer, wanted=(200, 206) if start else (200,))
            if answer.status == 200 or not _goes_on(answer, start):
                start = 0
                if answer.status == 206:
                    part.unlink()
                    raise Passing(ImageError("The address sends another part than the one asked for."))
            _write_version(target, _version_of(answer))
            self._check_size(start + (answer.length or 0))
            with part.open("ab" if start else "wb") as file:
                self._receive(answer, file, start, deadline, keep)
        part.replace(target)

    def _receive(
        self, answer: Answer, file: BinaryIO, start: int, deadline: Deadline, keep: Callable[[], None]
    ) -> None:
        size, window_from, checked_at = start, start, start - _CHECK_EVERY
        for block in answer.body:
            keep()
            size += len(block)
            self._check_size(size)
            if size - checked_at >= _CHECK_EVERY:
                self._cache.check_room()
                checked_at = size
            file.write(block)
            if size - window_from >= _LEAST_BYTES_PER_S * self._timeout_s:
                deadline.renew()
                window_from = size
        self._cache.count(size - start)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise ArchiveTooLarge(
                f"The file has more than the {self._max_bytes} bytes this service downloads. "
                "Split it, or raise LOOKALIKE_MAX_ARCHIVE_BYTES."
            )

    # --- Objects ---

    def _get_object(self, uri: str, target: Path, keep: Callable[[], None]) -> None:
        found = self._stores.info(uri)
        self._check_size(found.size)
        version = _Version(etag=found.etag, last_modified=str(found.mtime_ns))
        part = target.with_suffix(PART)
        if _read_version(target) != version:
            part.unlink(missing_ok=True)
        elif target.exists():
            return
        _write_version(target, version)
        with part.open("ab") as file:
            size = file.tell()
            self._cache.check_room(found.size - size)
            while size < found.size:
                keep()
                block = self._stores.read(uri, size, min(size + _BLOCK, found.size))
                if not block:
                    break
                file.write(block)
                size += len(block)
        if self._stores.info(uri) != found:
            part.unlink()
            raise SourceUnavailable("The object was replaced while it was read. It is read again.")
        self._cache.count(found.size)
        part.replace(target)

    @contextmanager
    def _alone(self, target: Path, keep: Callable[[], None]) -> Iterator[None]:
        """Let no other process write the same file, and wait while one does."""
        with target.with_suffix(LOCK).open("wb") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    keep()
                    self._wait(_TURN_S)
                else:
                    break
            yield


def _goes_on(answer: Answer, start: int) -> bool:
    return answer.headers.get("content-range", "").startswith(f"bytes {start}-")


def _version_of(answer: Answer) -> _Version:
    when = answer.modified_at
    return _Version(etag=answer.etag, last_modified=format_datetime(when.astimezone(UTC), usegmt=True) if when else "")


def _read_version(target: Path) -> _Version:
    try:
        return _Version(**json.loads(target.with_suffix(".json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # Never written, or written by half.
        return _Version()


def _write_version(target: Path, version: _Version) -> None:
    target.with_suffix(".json").write_text(json.dumps(asdict(version)))
