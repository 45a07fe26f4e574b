"""A job and its pieces of work, as the twin in memory keeps them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lookalike.jobstore.base import IngestItem, Phase
from lookalike.jobstore.codec import STRIDES, first_fields, record_of, request_json
from lookalike.records import (
    Failure,
    IngestRequest,
    JobError,
    JobKind,
    JobRecord,
    JobState,
    Priority,
    Request,
    WaitingFor,
)

What = Literal["plan", "chunk", "search"]
Member = tuple[What, str, int]  #: A piece of work: its kind, its job, and a chunk's number or 0.


@dataclass
class Work:
    """A plan, a chunk or a search: who holds it, and how often it was tried."""

    attempts: int = 0
    token: str | None = None
    items: tuple[IngestItem, ...] = ()
    fresh: bool = True


@dataclass
class Delivery:
    """A job's webhook."""

    state: Literal["waiting", "delivered", "failed"] = "waiting"
    attempts: int = 0
    token: str | None = None
    error: str | None = None


@dataclass
class Job:
    """A job: its record's parts, and where its work stands."""

    id: str
    kind: JobKind
    request: Request
    created_ms: int
    owner: str | None = None
    model: str | None = None
    state: JobState = JobState.QUEUED
    started_ms: int | None = None
    finished_ms: int | None = None
    cancel: bool = False
    paused: bool = False
    waiting_for: WaitingFor | None = None
    version: int = 1
    counts: Counter[str] = field(default_factory=Counter)
    total: int | None = None
    samples: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    ledger_bytes: int = 0
    result: Mapping[str, Any] | None = None
    error: JobError | None = None
    delivery: Delivery = field(default_factory=Delivery)
    #: The plan of an ingest, the search itself, or the next step.
    work: Work = field(default_factory=Work)
    plan: Literal["waiting", "leased", "delayed", "idle", "between", "done"] = "waiting"
    phase: Phase = Phase.LIST
    cursor: str | None = None
    checkpoint: Mapping[str, Any] | None = None
    passed: float | None = None
    chunks: dict[int, Work] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    next_chunk: int = 0

    def waits_as(self, kind: JobKind) -> bool:
        """Tell whether the job is not final, and counted with those of this kind."""
        alike = self.kind is kind or (self.kind.in_steps and kind.in_steps)
        return alike and not self.state.final

    @property
    def stride(self) -> int:
        """How far a claim moves the job back in the ring."""
        return STRIDES[self.request.priority if isinstance(self.request, IngestRequest) else Priority.NORMAL]

    @property
    def syncs(self) -> bool:
        """True where a second phase follows the listing."""
        return isinstance(self.request, IngestRequest) and self.request.sync

    def record(self) -> JobRecord:
        """Make the job's record, by way of the same fields as the store on Redis."""
        fields: dict[str, object] = {
            **first_fields(self.request, self.owner),
            "kind": self.kind,
            "state": self.state,
            "created_at": self.created_ms,
            "cancel": "1" if self.cancel else "0",
            "paused": "1" if self.paused else "0",
            "version": self.version,
            "request": request_json(self.request),
            "webhook_state": self.delivery.state,
            "webhook_attempts": self.delivery.attempts,
            **self.counts,
        }
        optional = {
            "started_at": self.started_ms,
            "finished_at": self.finished_ms,
            "total": self.total,
            "model": self.model,
            "waiting_for": self.waiting_for,
            "webhook_error": self.delivery.error,
            "error": self.error and self.error.model_dump_json(),
        }
        fields |= {name: value for name, value in optional.items() if value is not None}
        record = record_of(self.id, {name: str(value) for name, value in fields.items()}, self.samples)
        return record.model_copy(update={"result": None if self.result is None else dict(self.result)})
