"""Work: what has become of a chunk's files so far, and what is to be written of it."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import ImageError
from lookalike.jobstore import ChunkClaim, ChunkOutcome, IngestItem
from lookalike.records import Failure, Stage
from lookalike.remote import Fetched
from lookalike.vectorstore import StoredImage
from lookalike_worker.ingest.ledger import failure_of, wanted_metadata


class Facts(Protocol):
    """What was found out about a file by reading it: a decoder's `Probe` or `Decoded`."""

    @property
    def sha256(self) -> str:
        """Of the bytes that were read, in hexadecimal."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def mtime_ns(self) -> int:
        """Of the file that was read, which of a remote one is its copy."""

    @property
    def width(self) -> int:
        """Pixels, after EXIF orientation."""

    @property
    def height(self) -> int:
        """Pixels, after EXIF orientation."""

    @property
    def picture_hash(self) -> str:
        """Of the whole picture; empty where it was not decoded."""


@dataclass(eq=False)
class File:
    """One file of a chunk on its way."""

    item: IngestItem
    id: str
    row: StoredImage | None = None  #: As the collection has it, where it has to be looked at.
    fetched: Fetched | None = None  #: A remote file's local copy.
    attempts: int = 1

    @property
    def readable_uri(self) -> str:
        """What a decoder is told to read."""
        return self.fetched.uri if self.fetched else self.item.uri


@dataclass
class Written:
    """One row to be written: anew with its vector, or over the one it has, which keeps its vector."""

    item: IngestItem
    image: StoredImage
    vector: NDArray[np.float32] | None  #: (dim,), or with tiles (1 + tiles, dim).
    kind: str  #: The count of `ChunkOutcome` it goes to.
    takes_over: str | None = None  #: The id of the row that it was moved from.
    shared: bool = False  #: Its vector is that of an image of the same content.


@dataclass
class Work:
    """What has become of a chunk's files."""

    claim: ChunkClaim
    rows: list[Written] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failures: list[Failure] = field(default_factory=list)
    stage_s: dict[Stage, float] = field(default_factory=lambda: defaultdict(float))

    def fail(self, file: File, error: ImageError, stage: Stage) -> None:
        """Put a file into the ledger."""
        attempts = self.claim.attempts + file.attempts - 1
        self.failures.append(failure_of(file.item, error, stage, attempts=attempts))

    def stored_before(self, file: File, row: StoredImage) -> None:
        """Count a file that an earlier attempt at this chunk stored, and did not come to account for."""
        self.counts[file.item.change.value] += 1
        self.counts["duplicates"] += row.duplicate_of is not None

    def write(
        self,
        file: File,
        image: StoredImage,
        vector: NDArray[np.float32] | None,
        *,
        kind: str = "",
        takes_over: str | None = None,
        shared: bool = False,
    ) -> Written:
        """Have a row written; it is counted once it is."""
        row = Written(file.item, image, vector, kind or file.item.change.value, takes_over, shared)
        self.rows.append(row)
        return row

    def add(self, other: "Work") -> None:
        """Take over what another stage found out about the same chunk."""
        self.rows += other.rows
        self.failures += other.failures
        for name, count in other.counts.items():
            self.counts[name] += count
        for stage, seconds in other.stage_s.items():
            self.stage_s[stage] += seconds

    def outcome(self) -> ChunkOutcome:
        """Sum up, once all rows are written."""
        counts = dict(self.counts)
        for row in self.rows:
            counts[row.kind] = counts.get(row.kind, 0) + 1
            counts["duplicates"] = counts.get("duplicates", 0) + row.shared
        stage_ms = {stage: round(1000 * seconds) for stage, seconds in self.stage_s.items()}
        return ChunkOutcome(**counts, failures=tuple(self.failures), stage_ms=stage_ms)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Add the time of a piece of work to a stage."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.stage_s[stage] += time.monotonic() - began_s


def image_of(
    claim: ChunkClaim,
    file: File,
    facts: Facts,
    *,
    inherited: StoredImage | None = None,
    duplicate_of: str | None = None,
    same: StoredImage | None = None,
) -> StoredImage:
    """Lay out a file's row. Its metadata is what `inherited` or its own row had, and over it what is wanted.

    `same` is a row of the same content, whose picture's hash it shares where the file was not decoded.
    """
    before = inherited or file.row
    fetched = file.fetched
    return StoredImage(
        id=file.id,
        uri=file.item.uri,
        name=file.item.name or (file.row.name if file.row else ""),
        sha256=facts.sha256,
        size=facts.size,
        mtime_ns=fetched.mtime_ns if fetched else facts.mtime_ns,
        width=facts.width,
        height=facts.height,
        job=claim.job_id,
        etag=fetched.etag if fetched else "",
        duplicate_of=duplicate_of,
        picture_hash=facts.picture_hash or (same.picture_hash if same else ""),
        metadata={**(before.metadata if before else {}), **wanted_metadata(claim.request, file.item.metadata)},
    )
