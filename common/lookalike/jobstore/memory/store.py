"""The store in memory: `JobStore` method by method, in the same moves as the scripts of the one on Redis."""

import itertools
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lookalike.jobstore.base import (
    PLANNED_NOTHING,
    ChunkClaim,
    ChunkOutcome,
    Claim,
    IngestItem,
    Lane,
    Limits,
    Phase,
    PlanClaim,
    Planned,
    Receipt,
    Renewal,
    SearchClaim,
    Step,
    StepClaim,
    Swept,
    WebhookClaim,
)
from lookalike.jobstore.codec import (
    outcome_counts,
    planned_counts,
    step_counts,
)
from lookalike.jobstore.memory.jobs import Job, Member, Work
from lookalike.jobstore.memory.submits import MemorySubmits
from lookalike.records import (
    IngestRequest,
    JobError,
    JobState,
    SearchRequest,
    StepRequest,
    WaitingFor,
    WorkerInfo,
)


class MemoryJobStore(MemorySubmits):
    """`JobStore` inside one process. Safe to share between threads."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(limits, clock)
        self._claims = itertools.count()

    # --- The workers' side ---

    def claim_searches(self, *, limit: int, model: str | None = None) -> Sequence[SearchClaim]:
        claims: list[SearchClaim] = []
        queries = 0
        with self._changed:
            waiting = [job_id for job_id in self._searches if self._jobs[job_id].model in {None, model}]
            # Stable: of those that were created at the same time, the one that was put back first.
            for job_id in sorted(waiting, key=lambda waits: self._jobs[waits].created_ms):
                if queries >= limit:
                    break
                job = self._jobs[job_id]
                assert isinstance(job.request, SearchRequest)  # noqa: S101
                tried = job.work.attempts > 0
                if claims and (tried or queries + len(job.request.queries) > limit):
                    break
                self._searches.remove(job_id)
                self._start(job)
                token = self._claim(("search", job.id, 0), job.work, self._limits.search_lease_s)
                claims.append(SearchClaim(job_id=job.id, token=token, attempts=job.work.attempts, request=job.request))
                queries += len(job.request.queries)
                if tried:
                    break
        return claims

    def _claim(self, member: Member, work: Work, lease_s: float) -> str:
        work.attempts += 1
        work.token = secrets.token_hex(8)
        self._leases[member] = self._clock() + lease_s
        return work.token

    def finish_search(self, claim: SearchClaim, outcome: Mapping[str, Any] | JobError) -> bool:
        with self._changed:
            job, _ = self._held(claim, _member(claim))
            if not job:
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

    def claim_ingest(self, *, model: str | None = None) -> PlanClaim | ChunkClaim | StepClaim | None:
        with self._changed:
            order = (model, None) if next(self._claims) % 2 else (None, model)
            rings = ([job_id for job_id in self._ring if self._jobs[job_id].model == of] for of in order)
            ring = next((ring for ring in rings if ring), None)
            if ring is None:
                return None
            job = self._jobs[min(ring, key=self._turn)]
            if isinstance(job.request, StepRequest):
                return self._claim_step(job, job.request)
            assert isinstance(job.request, IngestRequest)  # noqa: S101
            return self._claim_plan(job, job.request) if job.plan == "waiting" else self._claim_chunk(job, job.request)

    def _take_plan(self, job: Job) -> str:
        self._start(job)
        self._had_turn(job)
        job.plan = "leased"
        return self._claim(("plan", job.id, 0), job.work, self._limits.lease_s)

    def _claim_step(self, job: Job, request: StepRequest) -> StepClaim:
        return StepClaim(
            job_id=job.id,
            token=self._take_plan(job),
            attempts=job.work.attempts,
            kind=job.kind,
            request=request,
            checkpoint=job.checkpoint,
        )

    def _claim_plan(self, job: Job, request: IngestRequest) -> PlanClaim:
        token = self._take_plan(job)
        return PlanClaim(
            job_id=job.id,
            token=token,
            attempts=job.work.attempts,
            request=request,
            phase=job.phase,
            cursor=job.cursor,
            room=self._room(job),
        )

    def _claim_chunk(self, job: Job, request: IngestRequest) -> ChunkClaim:
        number = min(job.waiting)
        job.waiting.remove(number)
        self._had_turn(job)
        chunk = job.chunks[number]
        fresh, chunk.fresh = chunk.fresh, False
        return ChunkClaim(
            job_id=job.id,
            token=self._claim(("chunk", job.id, number), chunk, self._limits.lease_s),
            attempts=chunk.attempts,
            number=number,
            request=request,
            items=chunk.items,
            fresh=fresh,
        )

    def add_chunk(
        self, claim: PlanClaim, items: Sequence[IngestItem], *, cursor: str | None, planned: Planned = PLANNED_NOTHING
    ) -> int | None:
        with self._changed:
            job, work = self._held(claim, _member(claim))
            if not job or not work or job.cancel or job.paused:
                return None
            if cursor and cursor == job.cursor:  # A repeat whose first try was not heard of.
                return self._room(job)
            job.cursor = cursor or job.cursor
            work.attempts = 1
            self._leases[_member(claim)] = self._clock() + self._limits.lease_s
            self._add_failures(job, planned.failures)
            self._count(job, planned_counts(claim, items, planned))
            if items:
                self._open_chunk(job, Work(items=tuple(items)))
            return self._room(job)

    def end_plan(self, claim: PlanClaim, *, finished: bool) -> Receipt:
        with self._changed:
            job, work = self._held(claim, _member(claim))
            if not job or not work:
                return Receipt.REFUSED
            work.token = None
            self._release(_member(claim))
            if finished:
                job.total = job.counts["listed"]
                self._count(job, {})
                self._touch(job)
            if job.cancel:
                job.plan = "done"
            elif not finished:
                job.plan, work.attempts = "idle", 0
            elif job.syncs and job.phase is Phase.LIST:
                job.plan, job.phase, job.cursor, work.attempts = "between", Phase.PRUNE, None, 0
            else:
                job.plan = "done"
            return self._receipt(job)

    def _receipt(self, job: Job) -> Receipt:
        if self._finish_if_complete(job):
            return Receipt.FINISHED
        return Receipt.PLAN_DUE if self._plan_if_due(job) else Receipt.ACCEPTED

    def advance(self, claim: StepClaim, step: Step) -> Receipt:
        with self._changed:
            job, work = self._held(claim, _member(claim))
            if not job or not work:
                return Receipt.REFUSED
            work.token = None
            self._release(_member(claim))
            self._add_failures(job, step.failures)
            if step.total is not None:
                job.total = step.total
                self._touch(job)
            self._count(job, step_counts(step))
            if step.result is not None:
                job.result = step.result
                self._finish(job, JobState.SUCCEEDED)
                return Receipt.FINISHED
            if job.cancel:
                self._finish(job, JobState.CANCELLED)
                return Receipt.FINISHED
            job.plan, work.attempts, job.checkpoint = "waiting", 0, step.checkpoint
            return Receipt.PLAN_DUE if self._take_turn(job) else Receipt.ACCEPTED

    def renew(self, claim: Claim) -> Renewal:
        with self._changed:
            job, work = self._held(claim, _member(claim))
            if not job or not work:
                return Renewal.LOST
            lease_s = self._limits.search_lease_s if isinstance(claim, SearchClaim) else self._limits.lease_s
            self._leases[_member(claim)] = self._clock() + lease_s
            if job.cancel:
                return Renewal.CANCELLED
            return Renewal.PAUSED if job.paused else Renewal.HELD

    def account(self, claim: ChunkClaim, outcome: ChunkOutcome, *, result: Mapping[str, Any] | None = None) -> Receipt:
        with self._changed:
            job, work = self._held(claim, _member(claim))
            if not job or not work:
                return Receipt.REFUSED
            self._add_failures(job, outcome.failures)
            self._count(job, outcome_counts(claim, outcome))
            job.result = result or job.result
            self._drop_chunk(job, claim.number)
            return self._receipt(job)

    def split(self, claim: ChunkClaim) -> bool:
        with self._changed:
            job, work = self._held(claim, _member(claim))
            if not job or not work:
                return False
            self._drop_chunk(job, claim.number)
            if job.cancel:
                self._finish_if_complete(job)
                return True
            middle = len(claim.items) // 2
            for half in (claim.items[:middle], claim.items[middle:]):
                self._open_chunk(job, Work(attempts=self._limits.max_attempts - 1, items=half, fresh=False))
            return True

    def give_back(
        self,
        claim: Claim,
        *,
        delay_s: float = 0.0,
        burn_attempt: bool = True,
        waiting_for: WaitingFor | None = None,
        model: str | None = None,
    ) -> None:
        with self._changed:
            job, work = self._held(claim, _member(claim))
            if not job or not work:
                return
            work.attempts -= not burn_attempt
            work.token = None
            self._release(_member(claim))
            if model and job.model != model:
                self._hand_over(job, model)
            if waiting_for and job.waiting_for is not waiting_for:
                job.waiting_for = waiting_for
                self._touch(job)
            if delay_s > 0 and not job.cancel:
                if isinstance(claim, PlanClaim | StepClaim):
                    job.plan = "delayed"
                self._delayed[_member(claim)] = self._clock() + delay_s
            else:
                self._put_back(_member(claim))

    def _hand_over(self, job: Job, model: str) -> None:
        stood = self._ring.pop(job.id, None) is not None
        job.model, job.passed = model, None
        if stood:
            self._take_turn(job)
        self._touch(job)

    def fail(self, claim: Claim, error: JobError) -> bool:
        with self._changed:
            job, _ = self._held(claim, _member(claim))
            if not job:
                return False
            job.error = error
            self._finish(job, JobState.FAILED)
            return True

    def claim_webhook(self) -> WebhookClaim | None:
        with self._changed:
            job_id = min(self._webhooks, key=lambda other: (self._webhooks[other], other), default=None)
            if job_id is None or self._webhooks[job_id] > self._clock():
                return None
            job = self._jobs[job_id]
            assert job.request.webhook  # noqa: S101
            self._webhooks[job_id] = self._clock() + self._limits.lease_s
            job.delivery.attempts += 1
            job.delivery.token = secrets.token_hex(8)
            self._touch(job)
            return WebhookClaim(
                token=job.delivery.token,
                url=job.request.webhook.url,
                attempts=job.delivery.attempts,
                record=self._record(job),
            )

    def end_webhook(self, claim: WebhookClaim, *, error: str | None = None, retry_in_s: float | None = None) -> None:
        with self._changed:
            job = self._jobs.get(claim.record.id)
            if not job or job.delivery.token != claim.token:
                return
            job.delivery.token, job.delivery.error = None, error or None
            if error and retry_in_s is not None:
                self._webhooks[job.id] = self._clock() + retry_in_s
            else:
                job.delivery.state = "failed" if error else "delivered"
                del self._webhooks[job.id]
            self._touch(job)

    # --- Everybody's side ---

    def sweep(self, *, model: str | None = None) -> Swept:
        with self._changed:
            lapsed = self._return_due(self._leases)
            self._return_due(self._delayed)
            ring = [self._jobs[job_id] for job_id in self._ring if self._jobs[job_id].model in {None, model}]
            searches = sum(self._jobs[job_id].model in {None, model} for job_id in self._searches)
            waiting = sum(len(job.waiting) + (job.plan == "waiting") for job in ring)
            return Swept(lapsed=lapsed, waiting={Lane.INGEST: waiting, Lane.SEARCH: searches})

    def _return_due(self, times: dict[Member, float]) -> int:
        now = self._clock()
        due = sorted((until, member) for member, until in times.items() if until <= now)
        for _, member in due:
            times.pop(member, None)  # The return of another may have ended its job.
            self._put_back(member)
        return len(due)

    def announce(self, worker: WorkerInfo) -> None:
        with self._changed:
            self._workers[worker.name] = (worker, self._clock() + self._limits.heartbeat_ttl_s)

    def depart(self, worker: WorkerInfo) -> None:
        with self._changed:
            self._workers.pop(worker.name, None)


def _member(claim: Claim) -> Member:
    match claim:
        case PlanClaim() | StepClaim():
            return "plan", claim.job_id, 0
        case SearchClaim():
            return "search", claim.job_id, 0
        case ChunkClaim():
            return "chunk", claim.job_id, claim.number
