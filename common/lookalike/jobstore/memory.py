"""The job store in memory: the twin of the one on Redis, for tests of what stands before and behind it.

It keeps the same promises, in one process and without expiry of records by themselves: `expire` does that on demand.
"""

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ulid import ULID

from lookalike.errors import IdempotencyConflict, JobExpired, JobNotFound, QueueFull
from lookalike.jobstore.base import (
    ChunkClaim,
    ChunkOutcome,
    Idempotency,
    IngestItem,
    Lane,
    Limits,
    PlanClaim,
    Receipt,
    Renewal,
    SearchClaim,
    Swept,
)
from lookalike.jobstore.codec import cursor_position, job_cursor, record_of, request_json, shortened
from lookalike.records import (
    Failure,
    FailurePage,
    IngestRequest,
    JobError,
    JobKind,
    JobPage,
    JobRecord,
    JobState,
    SearchRequest,
    WorkerInfo,
)


@dataclass
class _Work:
    """A plan, a chunk or a search: who holds it, until when, and how often it was tried."""

    attempts: int = 0
    token: str | None = None
    until: float = 0.0
    not_before: float = 0.0
    items: tuple[IngestItem, ...] = ()

    def claim(self, duration_s: float) -> str:
        self.attempts += 1
        self.token = secrets.token_hex(8)
        self.until = time.time() + duration_s
        return self.token

    @property
    def free(self) -> bool:
        return self.token is None and self.not_before <= time.time()


@dataclass
class _Job:
    id: str
    kind: JobKind
    request: IngestRequest | SearchRequest
    created_ms: int
    state: JobState = JobState.QUEUED
    started_ms: int | None = None
    finished_ms: int | None = None
    cancel: bool = False
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("stored", "unchanged", "failed", "answered"), 0)
    )
    listed: int = 0
    total: int | None = None
    work: _Work = field(default_factory=_Work)  #: The plan of an ingest, or the search itself.
    plan_open: bool = True
    plan_idle: bool = False
    cursor: str | None = None
    chunks: dict[int, _Work] = field(default_factory=dict)
    next_chunk: int = 0
    samples: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    dropped: int = 0
    result: Mapping[str, Any] | None = None
    error: JobError | None = None


def _now_ms() -> int:
    return int(time.time() * 1000)


class MemoryJobStore:
    """`JobStore` inside one process. Safe to share between threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changed = threading.Condition(threading.RLock())
        self._jobs: dict[str, _Job] = {}
        self._expired: set[str] = set()
        self._turns: list[str] = []
        self._idempotency: dict[str, tuple[str, str]] = {}
        self._workers: dict[str, tuple[WorkerInfo, float]] = {}

    def expire(self, job_id: str) -> None:
        """Let a final job's record expire now, leaving its tombstone."""
        with self._changed:
            del self._jobs[job_id]
            self._expired.add(job_id)

    # --- The front end's side ---

    def create(
        self, kind: JobKind, request: IngestRequest | SearchRequest, *, idempotency: Idempotency | None = None
    ) -> tuple[JobRecord, bool]:
        with self._changed:
            if idempotency and (known := self._idempotency.get(idempotency.key)):
                if known[1] != idempotency.digest:
                    raise IdempotencyConflict
                return self.get(known[0]), False
            if sum(job.kind is kind and not job.state.final for job in self._jobs.values()) >= (
                self._limits.max_waiting_jobs
            ):
                raise QueueFull
            job = _Job(str(ULID()), kind, request, _now_ms())
            if isinstance(request, SearchRequest):
                job.total = len(request.queries)
            self._jobs[job.id] = job
            self._turns.append(job.id)
            if idempotency:
                self._idempotency[idempotency.key] = (job.id, idempotency.digest)
            return self._record(job), True

    def get(self, job_id: str) -> JobRecord:
        with self._changed:
            return self._record(self._job(job_id))

    def wait(self, job_id: str, *, timeout_s: float) -> JobRecord:
        with self._changed:
            self._changed.wait_for(lambda: self._job(job_id).state.final, timeout_s)
            return self.get(job_id)

    def list_jobs(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        kind: JobKind | None = None,
        state: JobState | None = None,
    ) -> JobPage:
        before = job_cursor(cursor)
        with self._changed:
            found = [
                shortened(self._record(job))
                for job_id, job in sorted(self._jobs.items(), reverse=True)
                if (before is None or job_id < before) and kind in {None, job.kind} and state in {None, job.state}
            ]
        page = tuple(found[:limit])
        return JobPage(jobs=page, next_cursor=page[-1].id if len(found) > limit else None)

    def failures(self, job_id: str, *, cursor: str | None = None, limit: int = 1000) -> FailurePage:
        first = cursor_position(cursor)
        with self._changed:
            job = self._job(job_id)
            lines = tuple(job.failures[first : first + limit])
            following = first + len(lines)
            return FailurePage(
                failures=lines,
                next_cursor=str(following) if following < len(job.failures) else None,
                dropped=job.dropped,
            )

    def cancel(self, job_id: str) -> JobRecord:
        with self._changed:
            job = self._job(job_id)
            if not job.state.final:
                job.cancel = True
                job.chunks = {number: chunk for number, chunk in job.chunks.items() if chunk.token}
                if not job.work.token:
                    job.plan_open = False
                    if job.kind is JobKind.SEARCH:
                        self._finish(job, JobState.CANCELLED)
                self._finish_if_complete(job)
            return self._record(job)

    # --- The workers' side ---

    def claim_searches(self, *, limit: int) -> Sequence[SearchClaim]:
        claims: list[SearchClaim] = []
        queries = 0
        with self._changed:
            for job in list(self._jobs.values()):
                if not isinstance(job.request, SearchRequest) or job.state.final or not job.work.free:
                    continue
                tried = job.work.attempts > 0
                if claims and (tried or queries + len(job.request.queries) > limit):
                    break
                self._start(job)
                token = job.work.claim(self._limits.search_lease_s)
                claims.append(SearchClaim(job_id=job.id, token=token, attempts=job.work.attempts, request=job.request))
                queries += len(job.request.queries)
                if tried or queries >= limit:
                    break
        return claims

    def finish_search(self, claim: SearchClaim, outcome: Mapping[str, Any] | JobError) -> bool:
        with self._changed:
            job = self._jobs.get(claim.job_id)
            if not job or job.work.token != claim.token:
                return False
            if job.cancel:
                self._finish(job, JobState.CANCELLED)
            elif isinstance(outcome, JobError):
                job.error, job.counts["failed"] = outcome, len(claim.request.queries)
                self._finish(job, JobState.FAILED)
            else:
                job.result, job.counts["answered"] = outcome, len(claim.request.queries)
                job.counts["failed"] = sum(query["error"] is not None for query in outcome["queries"])
                self._finish(job, JobState.SUCCEEDED)
            return True

    def claim_ingest(self) -> PlanClaim | ChunkClaim | None:
        with self._changed:
            for job_id in list(self._turns):
                job = self._jobs.get(job_id)
                if not job or not isinstance(job.request, IngestRequest) or job.state.final or job.cancel:
                    continue
                claim = self._claim_of(job, job.request)
                if claim:
                    self._start(job)
                    self._turns.remove(job_id)
                    self._turns.append(job_id)
                    return claim
            return None

    def _claim_of(self, job: _Job, request: IngestRequest) -> PlanClaim | ChunkClaim | None:
        if job.plan_open and not job.plan_idle and job.work.free:
            token = job.work.claim(self._limits.lease_s)
            return PlanClaim(
                job_id=job.id,
                token=token,
                attempts=job.work.attempts,
                request=request,
                cursor=job.cursor,
                room=self._room(job),
            )
        for number, chunk in job.chunks.items():
            if chunk.free:
                token = chunk.claim(self._limits.lease_s)
                return ChunkClaim(
                    job_id=job.id,
                    token=token,
                    attempts=chunk.attempts,
                    number=number,
                    request=request,
                    items=chunk.items,
                )
        return None

    def add_chunk(
        self, claim: PlanClaim, items: Sequence[IngestItem], *, cursor: str | None, failures: Sequence[Failure] = ()
    ) -> int | None:
        with self._changed:
            job = self._jobs.get(claim.job_id)
            if not job or job.work.token != claim.token or job.cancel:
                return None
            if cursor and cursor == job.cursor:  # A repeat whose first try was not heard of.
                return self._room(job)
            self._add_failures(job, failures)
            job.cursor = cursor or job.cursor
            job.work.attempts = 1
            job.listed += len(items) + len(failures)
            job.work.until = time.time() + self._limits.lease_s
            if items:
                self._open_chunk(job, _Work(items=tuple(items)))
            return self._room(job)

    def end_plan(self, claim: PlanClaim, *, finished: bool) -> Receipt:
        with self._changed:
            job = self._jobs.get(claim.job_id)
            if not job or job.work.token != claim.token:
                return Receipt.REFUSED
            job.work.token = None
            if finished:
                job.plan_open, job.total = False, job.listed
            elif job.cancel:
                job.plan_open = False
            else:
                job.plan_idle, job.work.attempts = True, 0
                return self._plan_if_due(job)
            return Receipt.FINISHED if self._finish_if_complete(job) else Receipt.ACCEPTED

    def renew(self, claim: PlanClaim | ChunkClaim | SearchClaim) -> Renewal:
        with self._changed:
            job, work = self._held(claim)
            if not job or not work:
                return Renewal.LOST
            lease_s = self._limits.search_lease_s if isinstance(claim, SearchClaim) else self._limits.lease_s
            work.until = time.time() + lease_s
            return Renewal.CANCELLED if job.cancel else Renewal.HELD

    def account(self, claim: ChunkClaim, outcome: ChunkOutcome, *, result: Mapping[str, Any] | None = None) -> Receipt:
        with self._changed:
            job, work = self._held(claim)
            if not job or not work:
                return Receipt.REFUSED
            self._add_failures(job, outcome.failures)
            job.counts["stored"] += outcome.stored
            job.counts["unchanged"] += outcome.unchanged
            done = sum(job.counts[name] for name in ("stored", "unchanged", "failed"))
            job.samples = [*job.samples, f"{_now_ms()}:{done}"][-20:]
            job.result = result or job.result
            del job.chunks[claim.number]
            return Receipt.FINISHED if self._finish_if_complete(job) else self._plan_if_due(job)

    def split(self, claim: ChunkClaim) -> bool:
        with self._changed:
            job, work = self._held(claim)
            if not job or not work:
                return False
            del job.chunks[claim.number]
            middle = len(claim.items) // 2
            for half in (claim.items[:middle], claim.items[middle:]):
                self._open_chunk(job, _Work(attempts=self._limits.max_attempts - 1, items=half))
            return True

    def give_back(
        self, claim: PlanClaim | ChunkClaim | SearchClaim, *, delay_s: float = 0.0, burn_attempt: bool = True
    ) -> None:
        with self._changed:
            job, work = self._held(claim)
            if job and work:
                work.attempts -= not burn_attempt
                work.not_before = time.time() + delay_s
                self._put_back(job, work)

    def fail(self, claim: PlanClaim | ChunkClaim | SearchClaim, error: JobError) -> bool:
        with self._changed:
            job, _ = self._held(claim)
            if not job:
                return False
            job.error = error
            self._finish(job, JobState.FAILED)
            return True

    # --- Everybody's side ---

    def sweep(self) -> Swept:
        with self._changed:
            lapsed = 0
            waiting = dict.fromkeys(Lane, 0)
            for job in [job for job in self._jobs.values() if not job.state.final]:
                for work in [job.work, *job.chunks.values()]:
                    if work.token and work.until <= time.time():
                        lapsed += 1
                        self._put_back(job, work)
                if job.kind is JobKind.SEARCH:
                    waiting[Lane.SEARCH] += job.work.free and not job.state.final
                else:
                    waiting[Lane.INGEST] += sum(chunk.free for chunk in job.chunks.values())
                    waiting[Lane.INGEST] += job.plan_open and not job.plan_idle and job.work.free
            return Swept(lapsed=lapsed, waiting=waiting)

    def announce(self, worker: WorkerInfo) -> None:
        with self._changed:
            self._workers[worker.name] = (worker, time.time() + self._limits.heartbeat_ttl_s)

    def depart(self, worker: WorkerInfo) -> None:
        with self._changed:
            self._workers.pop(worker.name, None)

    def workers(self) -> Sequence[WorkerInfo]:
        with self._changed:
            return [worker for worker, until in sorted(self._workers.values(), key=_by_name) if until > time.time()]

    def ping(self) -> None:
        """Memory answers always."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    # --- Moves that several methods share; the caller holds the lock ---

    def _job(self, job_id: str) -> _Job:
        if job_id not in self._jobs:
            raise JobExpired if job_id in self._expired else JobNotFound
        return self._jobs[job_id]

    def _record(self, job: _Job) -> JobRecord:
        fields = {
            "kind": job.kind.value,
            "state": job.state.value,
            "created_at": str(job.created_ms),
            "cancel": "1" if job.cancel else "0",
            "request": request_json(job.request),
            **{name: str(count) for name, count in job.counts.items()},
        }
        optional = {"started_at": job.started_ms, "finished_at": job.finished_ms, "total": job.total}
        fields |= {name: str(value) for name, value in optional.items() if value is not None}
        if job.error:
            fields["error"] = job.error.model_dump_json()
        result = None if job.result is None else dict(job.result)
        return record_of(job.id, fields, job.samples).model_copy(update={"result": result})

    def _held(self, claim: PlanClaim | ChunkClaim | SearchClaim) -> tuple[_Job | None, _Work | None]:
        job = self._jobs.get(claim.job_id)
        work = job and (job.chunks.get(claim.number) if isinstance(claim, ChunkClaim) else job.work)
        return (job, work) if work and work.token == claim.token else (None, None)

    def _start(self, job: _Job) -> None:
        if job.state is JobState.QUEUED:
            job.state, job.started_ms = JobState.RUNNING, _now_ms()

    def _finish(self, job: _Job, state: JobState) -> None:
        job.state, job.finished_ms = state, _now_ms()
        job.chunks.clear()
        job.work.token = None
        job.plan_open = False
        self._changed.notify_all()

    def _finish_if_complete(self, job: _Job) -> bool:
        if job.state.final or job.kind is JobKind.SEARCH:
            return job.state.final
        if job.chunks or job.plan_open or job.work.token:
            return False
        self._finish(job, JobState.CANCELLED if job.cancel else JobState.SUCCEEDED)
        return True

    def _plan_if_due(self, job: _Job) -> Receipt:
        if not job.plan_idle or len(job.chunks) > self._limits.lookahead_chunks / 2:
            return Receipt.ACCEPTED
        job.plan_idle = False
        return Receipt.PLAN_DUE

    def _put_back(self, job: _Job, work: _Work) -> None:
        work.token = None
        if not job.cancel:
            return
        if job.kind is JobKind.SEARCH:
            self._finish(job, JobState.CANCELLED)
            return
        job.plan_open = job.plan_open and work is not job.work
        job.chunks = {number: chunk for number, chunk in job.chunks.items() if chunk is not work}
        self._finish_if_complete(job)

    def _open_chunk(self, job: _Job, work: _Work) -> None:
        job.next_chunk += 1
        job.chunks[job.next_chunk] = work

    def _room(self, job: _Job) -> int:
        return max(0, self._limits.lookahead_chunks - len(job.chunks))

    def _add_failures(self, job: _Job, failures: Sequence[Failure]) -> None:
        room = max(0, self._limits.max_failures - len(job.failures))
        job.failures += failures[:room]
        job.counts["failed"] += len(failures)
        job.dropped += max(0, len(failures) - room)


def _by_name(entry: tuple[WorkerInfo, float]) -> str:
    return entry[0].name
