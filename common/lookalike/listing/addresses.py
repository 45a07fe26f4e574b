"""Addresses: what a manifest calls its images, turned into canonical URIs."""

import os
import re
import stat
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from lookalike.errors import (
    FileMissing,
    ImageError,
    InvalidFilename,
    InvalidPath,
    InvalidURL,
    LookalikeError,
    NotRegularFile,
    URLIngestDisabled,
)
from lookalike.listing.listed import Listed, label, utf8
from lookalike.listing.stores import RemoteFiles
from lookalike.listing.urls import url_name
from lookalike.records import Metadata
from lookalike.roots import FILE_SCHEME, Roots, file_path, file_uri

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_REMOTE: Final = ("http://", "https://", "s3://", "gs://")


class Addresses:
    """Finds what an address names: a path, a `file:` URI, a URL or an object."""

    def __init__(self, roots: Roots, remote: RemoteFiles, folder: Path | None) -> None:
        self._roots = roots
        self._remote = remote
        self._folder = folder  # Of the manifest; relative paths begin there, or at a root.
        self._last: tuple[str, str] | None = None  # The folder of the last address, as written, and its real path.

    def listed(self, address: str, *, cursor: str, metadata: Metadata) -> Listed:
        """List what an address names, or the address with the reason why it is not to be had."""
        try:
            if _SURROGATE.search(address):
                raise InvalidFilename("The address is not UTF-8. JSON can hold half a character, and no store can.")
            if address.lower().startswith(_REMOTE):
                uri = self._remote.check_url(address)
                return Listed(uri, url_name(uri), cursor, metadata=metadata)
            path = self._path(address)
            if known := self._beside_the_last(path):
                uri, status = known
            else:
                uri = self._file(path)
                status = file_path(uri).stat()
                self._remember(path, uri)
        except OSError:
            return self._failed(address, cursor, FileMissing(), metadata)
        except (ImageError, InvalidPath, InvalidURL, URLIngestDisabled) as error:
            return self._failed(address, cursor, error, metadata)
        return Listed(uri, path.rpartition("/")[2], cursor, None, status.st_size, status.st_mtime_ns, "", metadata)

    def _beside_the_last(self, path: str) -> tuple[str, os.stat_result] | None:
        """Find a file that lies in the folder of the last one, which most do; None where it has to be searched for."""
        folder, _, name = path.rpartition("/")
        if self._last is None or folder != self._last[0] or name in ("", ".", ".."):
            return None
        real = f"{self._last[1]}/{name}"
        if "\0" in path or not utf8(name):
            return None
        try:
            status = os.lstat(real)
        except OSError:
            return None
        # A link is to be followed, and checked, by the longer way.
        return (file_uri(Path(real)), status) if stat.S_ISREG(status.st_mode) else None

    def _remember(self, path: str, uri: str) -> None:
        """Keep a file's folder, as the address spells it and as it really is."""
        folder, _, name = path.rpartition("/")
        place = path if path.startswith("/") else self._beside(path)
        # What was found below a root may be found elsewhere next time; a link leads away from its folder.
        real = os.path.realpath(os.path.dirname(place)) if place else None  # noqa: PTH120 - a path as text, like its kin here
        found = file_path(uri)
        self._last = (folder, real) if real and found == Path(real) / name else None

    def _path(self, address: str) -> str:
        if not address.startswith(FILE_SCHEME):
            if _SCHEME.match(address):
                raise InvalidURL("The address is none of a path, file://, http://, https://, s3:// and gs://.")
            return address
        path = os.fsdecode(unquote_to_bytes(address.removeprefix(FILE_SCHEME)))
        if not path.startswith("/"):
            raise InvalidURL("A file:// address has three slashes, and then the path.")
        return path

    def _file(self, path: str) -> str:
        beside = self._beside(path)
        if beside and os.path.lexists(beside):
            return self._roots.resolve_file(beside)
        return self._roots.resolve_file(path)

    def _beside(self, path: str) -> str | None:
        """Return a relative path as seen from the manifest's folder; `..` may lead out of that, not of the roots."""
        if self._folder is None or path.startswith("/") or "\0" in path:
            return None
        return os.path.normpath(self._folder / path)

    def _failed(self, address: str, cursor: str, error: LookalikeError, metadata: Metadata) -> Listed:
        return Listed(self._likely(address), label(address), cursor, error, metadata=metadata)

    def _likely(self, address: str) -> str:
        """Return the URI that the file would have if it were there, for a retry; else the address itself."""
        try:
            path = self._path(address)
            likely = Path(self._beside(path) or os.path.normpath(path))
            return file_uri(likely) if likely.is_absolute() and self._roots.covers(likely) else label(address)
        except (InvalidFilename, InvalidURL, NotRegularFile, ValueError):
            return label(address)
