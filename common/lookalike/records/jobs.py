"""Jobs: how far they are, what of them failed, and what became of them."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from lookalike.records.base import Metadata, Record


class JobKind(StrEnum):
    """What a job does."""

    INGEST = "ingest"
    SEARCH = "search"
    DELETION = "deletion"
    DUPLICATES = "duplicates"
    EXPORT = "export"
    IMPORT = "import"
    EVALUATION = "evaluation"
    MAP = "map"
    REINDEX = "reindex"
    BULK_SEARCH = "bulk_search"

    @property
    def in_steps(self) -> bool:
        """True of what is neither an ingest nor a search: one worker at a time does a step of it."""
        return self not in {JobKind.INGEST, JobKind.SEARCH}


class JobState(StrEnum):
    """Where a job stands. A job only ever moves down this list, and ends in one of the last three."""

    QUEUED = "queued"  #: Accepted, not yet picked up by a worker.
    RUNNING = "running"  #: A worker has begun.
    SUCCEEDED = "succeeded"  #: Done; single files may have failed, see `progress.failed`.
    FAILED = "failed"  #: Could not be done; `error` says why.
    CANCELLED = "cancelled"  #: Stopped by request; what was stored stays stored.

    @property
    def final(self) -> bool:
        """True once nothing about the job will change."""
        return self not in {JobState.QUEUED, JobState.RUNNING}


class StageTimes(Record):
    """Seconds of work, added up over all workers and their decoders: where the time of an ingest goes."""

    read_s: float = 0.0  #: Fetching and reading files.
    decode_s: float = 0.0
    embed_s: float = 0.0
    store_s: float = 0.0  #: Looking rows up, writing and deleting them.


class Progress(Record):
    """How far a job is. For ingests, `done = stored + unchanged + failed`; a search counts its queries.

    Jobs of other kinds count what their results say: images as a rule.

    `stored = added + changed + moved`. Of a dry run all these say what would be.
    """

    total: int | None = None  #: Null until the listing ends.
    done: int = 0
    stored: int = 0
    added: int = 0  #: Stored, and not in the collection before.
    changed: int = 0  #: Stored in the place of an older version.
    moved: int = 0  #: Stored under a new address, with the vector and metadata it had under one that is gone.
    duplicates: int = 0  #: Those of the stored that have the content of another image, whose vector they share.
    unchanged: int = 0
    failed: int = 0
    removed: int = 0  #: Gone from the source and from the collection; not part of `done`.
    images_per_s: float | None = None  #: Over the last accounted chunks; over the whole job once it is final.
    eta_s: float | None = None
    position: int | None = None  #: Of a queued job: how many jobs of its lane come before it.
    stages: StageTimes | None = None  #: Of an ingest.


class JobError(Record):
    """Why a job, a query or a request failed."""

    code: str
    message: str


class WaitingFor(StrEnum):
    """What holds a job up."""

    VECTOR_STORE = "vector_store"  #: Milvus cannot be reached; the work is tried again until it can.
    SOURCE = "source"  #: The place the images are read from cannot be reached.
    WORKER = "worker"  #: Something on the worker's machine is missing; see its log.
    MODEL = "model"  #: No live worker has the model that it needs; `model` in the record says which.


class WebhookState(Record):
    """What became of a job's webhook."""

    state: Literal["waiting", "delivered", "failed"]
    attempts: int = 0
    error: str | None = None  #: Of the last attempt.


class JobRecord(Record):
    """A job, as every endpoint about jobs returns it."""

    id: str
    kind: JobKind
    state: JobState
    owner: str | None = None  #: The name of the API key that submitted it, where that has one.
    model: str | None = None  #: Fingerprint of the model that its workers must have; null where any may do it.
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_requested: bool = False  #: Set by cancel; the state follows when the work in hand is accounted.
    paused: bool = False  #: Set by pause, taken back by resume; work in hand is given back after its batch.
    waiting_for: WaitingFor | None = None  #: Null while work goes on.
    version: int = 0  #: Grows with every change; the id of the job's server-sent events.
    progress: Progress = Field(default_factory=Progress)
    request: dict[str, Any]
    result: dict[str, Any] | None = None
    error: JobError | None = None
    failure_counts: dict[str, int] = Field(default_factory=dict)  #: Failed files by their code.
    failures_dropped: int = 0  #: Failures counted but not kept in the ledger, which had reached its cap.
    webhook: WebhookState | None = None
    links: dict[str, str] = Field(default_factory=dict)


class JobPage(Record):
    """One page of jobs, newest first."""

    jobs: tuple[JobRecord, ...]
    next_cursor: str | None = None  #: Pass it as `cursor` for the page after this one; null on the last page.


class Stage(StrEnum):
    """Where a file failed."""

    LIST = "list"
    READ = "read"
    DECODE = "decode"
    EMBED = "embed"
    STORE = "store"


class Failure(Record):
    """One line of a job's failures ledger."""

    uri: str
    code: str
    message: str
    stage: Stage
    attempts: int = 1
    name: str = ""  #: The last part of its path, or the name it was uploaded with.
    metadata: Metadata = Field(default_factory=dict)  #: Of this file alone, from a manifest or archive; for a retry.


class FailurePage(Record):
    """One page of a failures ledger, in the order the failures were found."""

    failures: tuple[Failure, ...]
    next_cursor: str | None = None
    dropped: int = 0  #: Failures counted but not kept, because the ledger had reached its cap.
