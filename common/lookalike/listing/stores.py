"""What a listing needs of its neighbours: the upload store, the remote stores, and the ledger of earlier jobs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from lookalike.records import FailurePage
from lookalike.roots import OpenedFile
from lookalike.uploads import Stream

Keep = Callable[[], None]  #: Called about once a second while a listing works.


class ObjectFound(Protocol):
    """One object of a store."""

    @property
    def uri(self) -> str: ...  # noqa: D102 - `s3://bucket/key`, canonical
    @property
    def size(self) -> int: ...  # noqa: D102 - bytes
    @property
    def mtime_ns(self) -> int: ...  # noqa: D102
    @property
    def etag(self) -> str: ...  # noqa: D102


class RemoteFiles(Protocol):
    """What is read over a network."""

    def is_remote(self, uri: str) -> bool:
        """Tell whether an image or upload does not lie on this machine."""

    def check_url(self, url: str) -> str:
        """Return the canonical form of a web or object address.

        Raises `InvalidURL` and `URLIngestDisabled`, and `InvalidPath` for an object that may not be read.
        """

    def check_prefix(self, prefix: str) -> str:
        """Return the canonical form of an object prefix, which ends in `/`; raises `InvalidPath`."""

    def download(self, url: str, *, keep: Keep) -> Path:
        """Fetch a large file, going on where an earlier try stopped, and return where it lies."""

    def objects(self, prefix: str, *, after: str | None) -> Iterator[ObjectFound]:
        """List the objects under a prefix behind the URI `after`, in the order of their keys."""

    def exists(self, uri: str) -> bool:
        """Tell whether an object is still there; raises `PermissionDenied` and `SourceUnavailable`."""


class UploadFiles(Protocol):
    """Content-addressed files."""

    def put(self, stream: Stream) -> str:
        """Keep what a stream holds, and return its SHA-256."""

    def size(self, sha256: str) -> int | None:
        """Return an upload's size in bytes; None where there is none."""

    def open(self, uri: str) -> OpenedFile:
        """Open an upload that lies on this machine, by its URI; raises `FileMissing`."""


class Ledger(Protocol):
    """What failed in earlier jobs."""

    def failures(self, job_id: str, *, cursor: str | None = None, limit: int = 1000) -> FailurePage:
        """Return a page of a job's failures; raises `JobNotFound` and `JobExpired`."""
