"""Object stores: listing prefixes and copying objects, through fsspec, for any store it has a driver for.

Credentials, regions and endpoints are the drivers' business, which take them from their usual environment variables
and files. Drivers are extras, and imported when the first address of their kind comes along.
"""

import errno
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from lookalike.errors import (
    FileMissing,
    FileTooLarge,
    FolderNotFound,
    LookalikeError,
    MissingExtra,
    PermissionDenied,
    SourceUnavailable,
)
from lookalike.remote.urls import split_object

log = logging.getLogger(__name__)

PAGE: Final = 1000  #: Objects of one listing request; no store gives more.

_EXTRAS: Final = {"s3": "s3", "gs": "gcs"}
_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Two small files in one part of a page are worth no second connection, and a memory of listings shows old ones.
    "s3": {"use_listings_cache": False, "max_concurrency": 1},
    "gs": {"use_listings_cache": False},
}
_NO_CREDENTIALS: Final = frozenset({"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"})
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """An object, as its store describes it."""

    uri: str
    size: int  #: Bytes.
    mtime_ns: int  #: To the second; 0 where the store does not say.
    etag: str  #: Changes with the content; empty where the store has none.


def load_filesystem(scheme: str) -> Any:
    """Return fsspec's driver for `s3` or `gs`; raises `MissingExtra`."""
    extra = _EXTRAS[scheme]
    try:
        import fsspec

        return fsspec.filesystem(scheme, skip_instance_cache=True, **_OPTIONS[scheme])
    except ImportError as error:
        raise MissingExtra(
            f"Reading {scheme}:// addresses needs a package that is not installed. "
            f"Install it with: pip install 'lookalike[{extra}]'."
        ) from error


class ObjectStores:
    """Reads objects by URI. Safe to use from many threads."""

    def __init__(self, load: Callable[[str], Any] = load_filesystem) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loaded: dict[str, Any] = {}

    def info(self, uri: str) -> ObjectInfo:
        """Describe an object; raises `FileMissing`, `PermissionDenied` and `SourceUnavailable`."""
        with _translated():
            found = self._filesystem(uri).info(_path(uri))
        if found["type"] != "file":
            raise FileMissing("There is no object with this address.")
        return _object_info(uri, found)

    def copy(self, uri: str, target: Path, *, max_bytes: int) -> ObjectInfo:
        """Copy an object into a file; raises `FileTooLarge`, and as `info` does."""
        found = self.info(uri)
        if found.size > max_bytes:
            raise FileTooLarge
        with _translated():
            self._filesystem(uri).get_file(_path(uri), str(target))
        if target.stat().st_size > max_bytes:  # It has been replaced since.
            raise FileTooLarge
        return found

    def read(self, uri: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` up to `end` of an object; raises as `info` does."""
        with _translated():
            data: bytes = self._filesystem(uri).cat_file(_path(uri), start=start, end=end)
        return data

    def put(self, source: Path, uri: str) -> None:
        """Store a file as an object, complete or not at all; raises `PermissionDenied` and `SourceUnavailable`."""
        with _translated():
            self._filesystem(uri).put_file(str(source), _path(uri))

    def touch(self, uri: str) -> None:
        """Make an object as young as if it had been written now; raises as `info` does."""
        # S3 copies an object onto itself only where something about it is replaced.
        changes = {"MetadataDirective": "REPLACE"} if uri.startswith("s3:") else {}
        with _translated():
            self._filesystem(uri).cp_file(_path(uri), _path(uri), **changes)

    def remove(self, uri: str) -> None:
        """Delete an object, where it is there; raises `PermissionDenied` and `SourceUnavailable`."""
        with _translated():
            self._filesystem(uri).rm_file(_path(uri))

    def walk(self, prefix: str, *, after: str | None) -> Iterator[ObjectInfo]:
        """Yield the objects under a prefix, in the order of their keys' bytes, those behind the URI `after`.

        Raises `FolderNotFound` where there is no such bucket, `PermissionDenied` and `SourceUnavailable`.
        """
        scheme, bucket, key = split_object(prefix)
        after_key = split_object(after)[2] if after else ""
        try:
            with _translated():
                filesystem = self._filesystem(prefix)
                if scheme == "s3":
                    pages = _s3_pages(filesystem, bucket, key, after_key)
                else:
                    pages = _walk(filesystem, bucket, key, after_key)
                for found in pages:
                    yield _object_info(f"{scheme}://{bucket}/{found['key']}", found)
        except FileMissing as error:
            raise FolderNotFound("There is no such bucket, or not for this service. Check its name.") from error

    def close(self) -> None:
        """Let go of the drivers."""
        with self._lock:
            self._loaded.clear()

    def _filesystem(self, uri: str) -> Any:
        scheme = uri.partition(":")[0]
        with self._lock:
            if scheme not in self._loaded:
                self._loaded[scheme] = self._load(scheme)
            return self._loaded[scheme]


def _s3_pages(filesystem: Any, bucket: str, prefix: str, after: str) -> Iterator[dict[str, Any]]:
    """List by pages. S3 itself goes on behind a key, so nothing is listed twice, or held."""
    where = {"StartAfter": after} if after else {}
    while True:
        page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **where)
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):  # What consoles make for a folder.
                yield {**entry, "key": entry["Key"], "size": entry["Size"]}
        if not page.get("IsTruncated"):
            return
        where = {"ContinuationToken": page["NextContinuationToken"]}


def _walk(filesystem: Any, bucket: str, prefix: str, after: str) -> Iterator[dict[str, Any]]:
    """List folder by folder, which any driver can. One folder's names are held at a time, of each level.

    A folder's name sorts with its slash, as the keys below it do: so this is the order of the keys.
    """
    folder = f"{bucket}/{prefix}".rstrip("/")
    try:
        listed = filesystem.ls(folder, detail=True)
    except FileNotFoundError:
        if filesystem.exists(bucket):  # Nothing lies under the prefix, as under one that never was.
            return
        raise
    entries = []
    for entry in listed:
        key = entry["name"].lstrip("/").removeprefix(f"{bucket}/").rstrip("/")
        entries.append((key + "/" if entry["type"] == "directory" else key, entry))
    for key, entry in sorted(entries, key=lambda pair: pair[0].encode()):
        if not key.startswith(prefix) or key == prefix:
            continue
        if key.endswith("/"):
            if not after or key.encode() > after.encode() or after.startswith(key):
                yield from _walk(filesystem, bucket, key, after)
        elif not after or key.encode() > after.encode():
            yield {**entry, "key": key}


def _path(uri: str) -> str:
    _, bucket, key = split_object(uri)
    return f"{bucket}/{key}"


def _object_info(uri: str, found: Mapping[str, Any]) -> ObjectInfo:
    when = next((found[name] for name in ("LastModified", "mtime", "updated", "created") if found.get(name)), None)
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    # Listings and single answers give fractions of a second or not; without them both agree.
    mtime_ns = int(when.timestamp()) * 1_000_000_000 if isinstance(when, datetime) else 0
    etag = str(found.get("ETag") or found.get("etag") or "").strip('"')
    return ObjectInfo(uri=uri, size=int(found["size"]), mtime_ns=mtime_ns, etag=etag)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what a driver raises into our errors. Their classes are many, and known to the drivers alone."""
    try:
        yield
    except (LookalikeError, GeneratorExit):
        raise
    except FileNotFoundError as error:
        raise FileMissing("There is no object with this address.") from error
    except PermissionError as error:
        raise PermissionDenied from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise  # Of the disk that is copied to.
        if type(error).__name__ in _NO_CREDENTIALS:
            raise PermissionDenied(
                "This service has no credentials for the object store. Set them where its workers run."
            ) from error
        log.warning("an object store could not be used: %s: %s", type(error).__name__, error)
        raise SourceUnavailable from error
