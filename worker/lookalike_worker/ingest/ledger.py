"""What becomes of single files: lines of the failures ledger, and the metadata a row is to have."""

from typing import Any, Final

from lookalike.errors import LookalikeError
from lookalike.jobstore import IngestItem
from lookalike.records import SYNCABLE, Failure, IngestRequest, Metadata, Stage

#: Errors of the file's place rather than of its content; their stage is reading.
_READ_CODES: Final = frozenset(
    {"file_missing", "file_empty", "file_too_large", "not_regular_file", "permission_denied", "invalid_filename"}
)
_ABSENT: Final = object()


def failure_of(item: IngestItem, error: LookalikeError, stage: Stage, *, attempts: int = 1) -> Failure:
    """Write what a file failed by down as a line of the ledger."""
    return Failure(
        uri=item.uri,
        code=error.code,
        message=error.message,
        stage=stage,
        attempts=attempts,
        name=item.name,
        metadata=item.metadata,
    )


def stage_of(error: LookalikeError) -> Stage:
    """Tell whether a decoder failed at reading a file or at decoding it."""
    return Stage.READ if error.code in _READ_CODES else Stage.DECODE


def wanted_metadata(request: IngestRequest, own: Metadata) -> Metadata:
    """Return what an ingest wants a file's metadata to hold: the request's, and over it the file's own.

    All that a place says of its files is the label of their folder, which gives way to the request's.
    """
    if not own:
        return request.metadata
    return {**own, **request.metadata} if isinstance(request.source, SYNCABLE) else {**request.metadata, **own}


def holds(stored: Metadata, wanted: Metadata) -> bool:
    """Tell whether stored metadata says all that is wanted, whatever else it says."""
    absent: Any = _ABSENT
    return all(stored.get(key, absent) == value for key, value in wanted.items())
