"""Fetching: one remote image into the cache, by whatever kind of address it has."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import BinaryIO, Final

from lookalike.errors import FileTooLarge, URLHTTPError
from lookalike.fetched import fetched_uri
from lookalike.remote.cache import Cache
from lookalike.remote.http import Answer, Deadline, HTTPFetcher, check_status
from lookalike.remote.objects import ObjectStores
from lookalike.remote.passing import retrying

_NS: Final = 1_000_000_000
IMPATIENT_S: Final = 10.0  #: For a file that a person waits for.
_CHECK_EVERY: Final = 16 << 20  #: Bytes between two looks at the free space.


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A remote file, and the copy of it that was made."""

    uri: str  #: Of the copy, `fetched:<image id>`; there may be none where it was not modified.
    size: int  #: Bytes; 0 where it was not modified and its server does not say.
    mtime_ns: int  #: As its server says; 0 where it does not.
    etag: str  #: As its server says; empty where it does not.
    not_modified: bool = False  #: It is still what the caller knows; nothing was copied.


class Fetcher:
    """Copies files into the cache, trying again what may pass."""

    def __init__(
        self,
        cache: Cache,
        http: HTTPFetcher,
        *,
        timeout_s: float,
        retries: int,
        max_file_bytes: int,
        wait: Callable[[float], None],
    ) -> None:
        self._cache = cache
        self._http = http
        self._timeout_s = timeout_s
        self._retries = retries
        self._max_file_bytes = max_file_bytes
        self._wait = wait

    def fetch_url(self, url: str, *, etag: str, mtime_ns: int, patient: bool) -> Fetched:
        """Copy a web address unless it still is the version that `etag` or `mtime_ns` names.

        Who is not patient, because a person waits, gets one short try, and waits for no host that asked for a pause.
        """
        headers = _conditions(etag, mtime_ns)
        retries = self._retries if patient else 0

        def attempt() -> Fetched:
            seconds = self._timeout_s if patient else min(self._timeout_s, IMPATIENT_S)
            return self._try_url(url, headers, Deadline(seconds, patient=patient))

        return retrying(attempt, retries=retries, wait=self._wait)

    def fetch_object(self, uri: str, place: str, stores: ObjectStores, *, etag: str) -> Fetched:
        """Copy the object at `place`, which the image `uri` is kept in, unless its etag still is this one."""
        if etag:
            found = stores.info(place)
            if found.etag == etag:
                return _fetched(uri, found.size, found.mtime_ns, found.etag, not_modified=True)
        with self._cache.writing(uri) as (_, part):
            found = stores.copy(place, part, max_bytes=self._max_file_bytes)
            size = part.stat().st_size
        return _fetched(uri, size, found.mtime_ns, found.etag)

    def _try_url(self, url: str, headers: dict[str, str], deadline: Deadline) -> Fetched:
        with self._http.get(url, deadline, headers) as answer:
            mtime_ns, etag = _mtime_ns(answer), answer.etag
            if answer.status == 304 and headers:
                known = headers.get("If-None-Match", "")
                return _fetched(url, 0, mtime_ns, etag or known, not_modified=True)
            check_status(answer)
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise URLHTTPError("The address answered in an encoding that it was asked not to use.")
            if (answer.length or 0) > self._max_file_bytes:
                raise FileTooLarge
            with self._cache.writing(url) as (file, _):
                size = self._receive(answer, file)
        return _fetched(url, size, mtime_ns, etag)

    def _receive(self, answer: Answer, file: BinaryIO) -> int:
        size = checked_at = 0
        for block in answer.body:
            size += len(block)
            if size > self._max_file_bytes:
                raise FileTooLarge
            if size - checked_at >= _CHECK_EVERY:
                self._cache.check_room()
                checked_at = size
            file.write(block)
        return size


def _fetched(uri: str, size: int, mtime_ns: int, etag: str, *, not_modified: bool = False) -> Fetched:
    return Fetched(uri=fetched_uri(uri), size=size, mtime_ns=mtime_ns, etag=etag, not_modified=not_modified)


def _conditions(etag: str, mtime_ns: int) -> dict[str, str]:
    if etag:
        return {"If-None-Match": etag}
    if mtime_ns > 0:
        return {"If-Modified-Since": format_datetime(datetime.fromtimestamp(mtime_ns // _NS, UTC), usegmt=True)}
    return {}


def _mtime_ns(answer: Answer) -> int:
    then = answer.modified_at
    return max(0, int(then.timestamp())) * _NS if then else 0
