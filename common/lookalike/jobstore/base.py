"""What a job store promises, and the records it hands to workers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol, Self

from lookalike.records import (
    Failure,
    FailurePage,
    IngestRequest,
    JobError,
    JobKind,
    JobPage,
    JobRecord,
    JobState,
    Metadata,
    Request,
    SearchRequest,
    Stage,
    StepRequest,
    WaitingFor,
    WorkerInfo,
)
from lookalike.settings import Settings


class Lane(StrEnum):
    """A queue with worker processes of its own, so that searches never wait behind ingests."""

    INGEST = "ingest"
    SEARCH = "search"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The times and bounds a store works with, as in the settings of the same names."""

    lease_s: float
    search_lease_s: float
    max_attempts: int
    lookahead_chunks: int
    max_waiting_jobs: int
    max_waiting_bytes: int
    max_failures: int
    max_failures_bytes: int
    result_ttl_s: float
    tombstone_ttl_s: float
    heartbeat_ttl_s: float

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Take the store's part of the settings."""
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """A client's key for a request, and a digest of that request: the same key with another digest is a conflict."""

    key: str
    digest: str


class Change(StrEnum):
    """What the planner found about a file, compared with the collection."""

    ADDED = "added"  #: Not stored before.
    CHANGED = "changed"  #: Stored, as it was before.
    REMOVED = "removed"  #: Stored, and gone from the source: to be deleted.


@dataclass(frozen=True, kw_only=True)
class IngestItem:
    """One file of an ingest job, as the planner found it: its canonical URI, and a label for people."""

    uri: str
    name: str = ""
    change: Change = Change.ADDED
    metadata: Metadata = field(default_factory=dict)  #: Of this file alone; it wins over the request's.


class Phase(StrEnum):
    """What a planner is to do. A job that does not `sync` has only the first phase."""

    LIST = "list"  #: List the source and add what is new or changed.
    PRUNE = "prune"  #: All of that being done: find what is gone from the source, and add its removal.


@dataclass(frozen=True, kw_only=True)
class PlanClaim:
    """The right to list more of a job's source. Valid while its lease lasts."""

    job_id: str
    token: str
    attempts: int  #: This one included.
    request: IngestRequest
    phase: Phase = Phase.LIST
    cursor: str | None  #: Where the last plan of this phase stopped; None at its start.
    room: int  #: Chunks that may be added before the look-ahead is full.


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a planner dealt with itself. `added` to `removed` are for dry runs, which add no chunks."""

    unchanged: int = 0
    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    failures: tuple[Failure, ...] = ()  #: Files that the listing itself found unusable.
    foreseen: int = 0  #: Files that the source seems to hold, told once: what goes by until the listing ends.


PLANNED_NOTHING: Final = Planned()


@dataclass(frozen=True, kw_only=True)
class ChunkClaim:
    """The right to process one chunk. Valid while its lease lasts; accounting with a lapsed one is refused."""

    job_id: str
    token: str
    attempts: int  #: This one included; counted before the work.
    number: int
    request: IngestRequest
    items: tuple[IngestItem, ...]
    fresh: bool = True  #: Nobody has held it before, so none of its rows can be stored by this job yet.


@dataclass(frozen=True, kw_only=True)
class SearchClaim:
    """The right to answer one search job."""

    job_id: str
    token: str
    attempts: int
    request: SearchRequest


@dataclass(frozen=True, kw_only=True)
class StepClaim:
    """The right to do the next step of a job that is neither an ingest nor a search. Valid while its lease lasts."""

    job_id: str
    token: str
    attempts: int  #: At this step, this one included; counted before the work.
    kind: JobKind
    request: StepRequest
    checkpoint: Mapping[str, Any] | None  #: What the step before left for this one; None for the first.


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step came to. One that is done twice, because its worker died before it was handed in, counts once."""

    checkpoint: Mapping[str, Any] = field(default_factory=dict)  #: All that the next step has to know.
    total: int | None = None  #: What the job's progress counts, once that is known.
    processed: int = 0
    failures: tuple[Failure, ...] = ()  #: They count as done, too.
    result: Mapping[str, Any] | None = None  #: The job's; with it the job has succeeded, and there is no next step.


@dataclass(frozen=True, kw_only=True)
class ChunkOutcome:
    """What became of a chunk's files. Files of a cancelled chunk that were not reached are in none of these."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    duplicates: int = 0  #: Those of the stored whose vector was taken from an image of the same content.
    unchanged: int = 0
    removed: int = 0
    failures: tuple[Failure, ...] = ()
    stage_ms: Mapping[Stage, int] = field(default_factory=dict)  #: Milliseconds of work; `LIST` is not kept.


Claim = PlanClaim | ChunkClaim | StepClaim | SearchClaim


class Renewal(StrEnum):
    """The answer to a worker that asks to keep its claim."""

    HELD = "held"  #: Go on; the lease runs anew.
    PAUSED = "paused"  #: Stop, store what was embedded, and give the claim back without burning an attempt.
    CANCELLED = "cancelled"  #: Stop, and account for what was done: the claim is still valid for that.
    LOST = "lost"  #: Stop and drop the work: somebody else has it, or the job is over.


class Receipt(StrEnum):
    """The store's answer to a worker that hands in ingest work."""

    REFUSED = "refused"  #: The claim had lapsed; what it brought is dropped.
    ACCEPTED = "accepted"
    FINISHED = "finished"  #: Accepted, and the job is final with it.
    PLAN_DUE = "plan_due"  #: Accepted, and there is more to plan, a next phase or a next step: ring the ingest lane.


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What one sweep found, and how often each lane's doorbell should ring now."""

    lapsed: int
    waiting: dict[Lane, int]  #: Pieces of work nobody holds, by lane.


@dataclass(frozen=True, kw_only=True)
class WebhookClaim:
    """The right to deliver one job's webhook. Valid while its lease lasts."""

    token: str
    url: str
    attempts: int  #: This one included; counted before the delivery.
    record: JobRecord  #: Final.


class JobStore(Protocol):
    """Jobs from acceptance to expiry. Every method raises `QueueUnavailable` where the store cannot be reached."""

    # --- The front end's side ---

    def create(
        self,
        kind: JobKind,
        request: Request,
        *,
        idempotency: Idempotency | None = None,
        owner: str | None = None,
    ) -> tuple[JobRecord, bool]:
        """Write a queued job; returns it, and False where `idempotency` found it created before.

        `owner` is the name of who submits it. Raises `QueueFull` above `max_waiting_jobs` or `max_waiting_bytes`, and
        `IdempotencyConflict` for a key used with another digest.
        """

    def find_idempotent(self, key: str) -> tuple[str, str] | None:
        """Return the id of the job that was created with an idempotency key, and the digest of its request."""

    def get(self, job_id: str) -> JobRecord:
        """Return a job; raises `JobNotFound` or `JobExpired`."""

    def wait(self, job_id: str, *, timeout_s: float, stopped: Callable[[], bool] = lambda: False) -> JobRecord:
        """Return a job as soon as it is final, or as it stands after `timeout_s`. Raises as `get` does.

        `stopped` is asked about once a second, and ends the wait once it is true.
        """

    def heed(self, job_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called, in another thread, once a job is final; returns what ends that.

        For who waits without a thread. It may be called too early, more than once, and where messages are lost not at
        all; so look at the job after this call, after `wake`, and after a while. It must neither wait nor raise.
        """

    def watch(self, job_id: str, *, after: int, timeout_s: float) -> JobRecord:
        """Return a job as soon as its `version` is not `after` or it is final, or as it stands after `timeout_s`."""

    def list_jobs(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        kind: JobKind | None = None,
        state: JobState | None = None,
        owner: str | None = None,
    ) -> JobPage:
        """Return jobs, newest first, without results and without the long parts of their requests.

        `cursor` is the last page's `next_cursor`. Each of `kind`, `state` and `owner` leaves all others out.
        """

    def failures(self, job_id: str, *, cursor: str | None = None, limit: int = 1000) -> FailurePage:
        """Return a page of the job's failures ledger. Raises as `get` does, and `InvalidParameter` for a bad cursor."""

    def cancel(self, job_id: str) -> JobRecord:
        """Ask a job to stop; a final job stays as it is. Raises as `get` does.

        Nothing more of it is handed out; it becomes `cancelled` once the work in hand is accounted, at once where
        there is none.
        """

    def pause(self, job_id: str) -> JobRecord:
        """Ask a job to stand still until it is resumed; raises as `get` does.

        What is final, being cancelled, or a search stays as it is.
        """

    def resume(self, job_id: str) -> JobRecord:
        """Let a paused job go on; raises as `get` does. The ingest lane has to be rung then."""

    # --- The workers' side ---

    def claim_searches(self, *, limit: int, model: str | None = None) -> Sequence[SearchClaim]:
        """Claim waiting searches, oldest first, until their queries number `limit`; at least one where one waits.

        One that was tried before comes alone. `model` is the fingerprint of the caller's: what waits for the workers
        of another is left to them, and so is what waits for those of any, where the caller has none.
        """

    def finish_search(self, claim: SearchClaim, outcome: Mapping[str, Any] | JobError) -> bool:
        """Make a search final with its result or error. False where the claim had lapsed: the outcome is dropped."""

    def claim_ingest(self, *, model: str | None = None) -> PlanClaim | ChunkClaim | StepClaim | None:
        """Claim the next piece of work of the ingest lane, taking the jobs in turn; None where none waits.

        `model` is the fingerprint of the caller's: of what waits, that is what its workers can do. Between what only
        they can do and what all can, a caller's claims alternate.
        """

    def others_waiting(self, lane: Lane, *, model: str) -> Sequence[str]:
        """Return the fingerprints of other models for whose workers work waits in a lane."""

    def add_chunk(
        self, claim: PlanClaim, items: Sequence[IngestItem], *, cursor: str | None, planned: Planned = PLANNED_NOTHING
    ) -> int | None:
        """Add a planned chunk and remember where the listing stands; renews the lease.

        `planned` is what the planner has dealt with itself on the way to `cursor`: it is counted at once. Without
        items only that is done. Returns how many more chunks there is room for, or None where the planner has to stop
        (its claim lapsed, or the job was cancelled or paused).
        """

    def end_plan(self, claim: PlanClaim, *, finished: bool) -> Receipt:
        """Give the plan back: its phase finished, or to be continued when chunks are done.

        When the first phase of a job that syncs is finished, the second is due once all chunks are accounted.
        """

    def advance(self, claim: StepClaim, step: Step) -> Receipt:
        """Hand a step in: add its counts, and keep its checkpoint for the next one, or its result for good."""

    def renew(self, claim: Claim) -> Renewal:
        """Keep a claim for another lease."""

    def account(self, claim: ChunkClaim, outcome: ChunkOutcome, *, result: Mapping[str, Any] | None = None) -> Receipt:
        """Add a chunk's counts to its job, once.

        `result` becomes the job's result. The job becomes final with its last chunk.
        """

    def split(self, claim: ChunkClaim) -> bool:
        """Replace a chunk by its two halves, each with one attempt left. False where the claim had lapsed.

        A chunk of a cancelled job is dropped instead.
        """

    def give_back(
        self,
        claim: Claim,
        *,
        delay_s: float = 0.0,
        burn_attempt: bool = True,
        waiting_for: WaitingFor | None = None,
        model: str | None = None,
    ) -> None:
        """Return work undone, to be claimed again after `delay_s`.

        `waiting_for` is shown in the job's record until work of it gets on again. With `model`, the whole job is from
        now on for the workers with that fingerprint.
        """

    def fail(self, claim: Claim, error: JobError) -> bool:
        """End a job as failed; its chunks are dropped and claims on them lapse. False where the claim had lapsed."""

    def claim_webhook(self) -> WebhookClaim | None:
        """Claim a delivery that is due, for `lease_s`."""

    def end_webhook(self, claim: WebhookClaim, *, error: str | None = None, retry_in_s: float | None = None) -> None:
        """Record a delivery: made where there is no `error`, else to be tried again, or given up without a time."""

    # --- Everybody's side ---

    def uploads_in_use(self) -> frozenset[str]:
        """Return the SHA-256 of every upload that a job refers to whose record has not expired.

        That is by its request, its failures ledger (from which a retry reads), or the chunks that it has planned.
        """

    def sweep(self, *, model: str | None = None) -> Swept:
        """Put work back whose lease ran out or whose delay is over, forget expired jobs, and count what waits.

        What waits for the workers of another model than the caller's is not counted: a ring would not help it.
        """

    def announce(self, worker: WorkerInfo) -> None:
        """Record that a worker is live, for `heartbeat_ttl_s`."""

    def depart(self, worker: WorkerInfo) -> None:
        """Forget a worker that ends."""

    def workers(self) -> Sequence[WorkerInfo]:
        """Return the live workers."""

    def ping(self) -> None:
        """Return if the store answers, raise `QueueUnavailable` if not."""

    def now(self) -> datetime:
        """Return the store's clock: the only one leases and timestamps go by."""
