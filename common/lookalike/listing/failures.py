"""Failures: what an earlier job could not use, once more."""

from collections.abc import Iterator
from typing import Final

from lookalike.errors import (
    ImageError,
    InvalidPath,
    InvalidURL,
    LookalikeError,
    URLIngestDisabled,
    error_classes,
)
from lookalike.listing.archive import MEMBER_MARK
from lookalike.listing.listed import Listed
from lookalike.listing.stores import Keep, Ledger, RemoteFiles
from lookalike.records import Failure
from lookalike.roots import FILE_SCHEME, file_path
from lookalike.uploads import UPLOAD_SCHEME

_REMOTE: Final = ("http://", "https://", "s3://", "gs://")


def list_failures(job_id: str, jobs: Ledger, remote: RemoteFiles, *, after: str | None, keep: Keep) -> Iterator[Listed]:
    """List the files in a job's ledger, with the metadata they were to have.

    What has no address that can be opened, as a member of an archive, is listed with the error it had; an address that
    is not fetched is refused anew, since it may be in the ledger just for that. Raises `JobNotFound` and `JobExpired`.
    """
    page_cursor, passed = after.rsplit(".", 1) if after else ("", "-1")
    skip = int(passed) + 1
    while True:
        keep()
        page = jobs.failures(job_id, cursor=page_cursor or None)
        for place, failure in enumerate(page.failures[skip:], skip):
            yield _listed(failure, remote, f"{page_cursor}.{place}")
        if page.next_cursor is None:
            return
        page_cursor, skip = page.next_cursor, 0


def _listed(failure: Failure, remote: RemoteFiles, cursor: str) -> Listed:
    uri = failure.uri
    error: LookalikeError | None = None
    if not _opens(uri):
        error = _error(failure)
    elif uri.lower().startswith(_REMOTE):
        try:
            uri = remote.check_url(uri)
        except (InvalidPath, InvalidURL, URLIngestDisabled) as refused:
            error = refused
    return Listed(uri, failure.name, cursor, error, metadata=failure.metadata)


def _opens(uri: str) -> bool:
    if uri.startswith(FILE_SCHEME):
        try:
            file_path(uri)
        except ImageError:
            return False
        return True
    if uri.lower().startswith(("s3://", "gs://")):  # A key may hold the mark; archives are no objects.
        return True
    return uri.lower().startswith((UPLOAD_SCHEME, *_REMOTE)) and MEMBER_MARK not in uri


def _error(failure: Failure) -> LookalikeError:
    return error_classes().get(failure.code, ImageError)(failure.message)
