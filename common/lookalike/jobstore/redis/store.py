"""What changes jobs: submits, claims and what comes of them, deliveries, sweeps, and the workers' signs of life."""

import itertools
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis
from ulid import ULID

from lookalike.errors import IdempotencyConflict, QueueFull
from lookalike.jobstore.base import (
    PLANNED_NOTHING,
    ChunkClaim,
    ChunkOutcome,
    Claim,
    Idempotency,
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
    failure_lines,
    first_fields,
    first_record,
    items_json,
    items_of,
    outcome_counts,
    planned_counts,
    request_json,
    step_counts,
)
from lookalike.jobstore.redis.connection import PREFIX, reachable
from lookalike.jobstore.redis.reads import RedisReads
from lookalike.records import (
    STEP_REQUESTS,
    IngestRequest,
    JobError,
    JobKind,
    JobRecord,
    Request,
    SearchRequest,
    WaitingFor,
    WorkerInfo,
)

_KNOWN_REQUESTS: Final = 16  # A worker takes few jobs in turn, and a request may list 10,000 addresses.


class RedisJobStore(RedisReads):
    """`JobStore` on a Redis or Valkey server. Safe to share between threads."""

    def __init__(self, client: "redis.Redis", limits: Limits) -> None:
        super().__init__(client, limits)
        # Requests never change, so that a worker need not be sent one again with each of its chunks.
        self._requests: OrderedDict[str, IngestRequest] = OrderedDict()
        self._requests_lock = threading.Lock()
        self._claims = itertools.count()
        self._name = secrets.token_hex(8)  # Tells the planner that has a listing open from the others.

    # --- The front end's side ---

    def create(
        self,
        kind: JobKind,
        request: Request,
        *,
        idempotency: Idempotency | None = None,
        owner: str | None = None,
    ) -> tuple[JobRecord, bool]:
        key, digest = (idempotency.key, idempotency.digest) if idempotency else ("", "")
        told, fields = request_json(request), first_fields(request, owner)
        code, job_id, *rest = self._run("create", str(ULID()), kind, told, json.dumps(fields), key, digest)
        if code == "full":
            raise QueueFull
        if code == "conflict":
            raise IdempotencyConflict
        if not rest or "model" in fields:  # Whether a model has workers, only a look tells.
            return self.get(job_id), code == "created"
        return first_record(job_id, kind, told, fields, created_ms=rest[0], position=rest[1]), True

    def cancel(self, job_id: str) -> JobRecord:
        self._run("cancel", job_id)
        return self.get(job_id)

    def pause(self, job_id: str) -> JobRecord:
        self._run("pause", job_id, 1)
        return self.get(job_id)

    def resume(self, job_id: str) -> JobRecord:
        self._run("pause", job_id, 0)
        return self.get(job_id)

    # --- The workers' side ---

    def claim_searches(self, *, limit: int, model: str | None = None) -> Sequence[SearchClaim]:
        token = secrets.token_hex(8)
        return [
            SearchClaim(
                job_id=job_id,
                token=token,
                attempts=attempts,
                request=SearchRequest.model_validate_json(request),
            )
            for job_id, attempts, request in self._run("claim_searches", limit, token, model or "")
        ]

    def finish_search(self, claim: SearchClaim, outcome: Mapping[str, Any] | JobError) -> bool:
        if isinstance(outcome, JobError):
            field, value, failed = "error", outcome.model_dump_json(), len(claim.request.queries)
        else:
            field, value = "result", json.dumps(outcome)
            failed = sum(query["error"] is not None for query in outcome["queries"])
        return bool(self._run("finish_search", claim.job_id, claim.token, field, value, failed))

    def claim_ingest(self, *, model: str | None = None) -> PlanClaim | ChunkClaim | StepClaim | None:
        token = secrets.token_hex(8)
        own_first = next(self._claims) % 2
        with self._requests_lock:
            known = dict(self._requests)
        answer = self._run("claim_ingest", token, self._name, model or "", own_first, *known)
        if answer is None:
            return None
        what, job_id, attempts, request, *rest = answer
        common: dict[str, Any] = {"job_id": job_id, "token": token, "attempts": attempts}
        if what == "step":
            kind, checkpoint = JobKind(rest[0]), json.loads(rest[1]) if rest[1] else None
            wanted = STEP_REQUESTS[kind].model_validate_json(request)
            return StepClaim(**common, kind=kind, request=wanted, checkpoint=checkpoint)
        common["request"] = known[job_id] if job_id in known else self._learn(job_id, request)
        if what == "plan":
            return PlanClaim(**common, phase=Phase(rest[0]), cursor=rest[1], room=rest[2])
        return ChunkClaim(**common, number=int(rest[0]), items=items_of(rest[1]), fresh=bool(rest[2]))

    def _learn(self, job_id: str, text: str) -> IngestRequest:
        request = IngestRequest.model_validate_json(text)
        with self._requests_lock:
            self._requests[job_id] = request
            while len(self._requests) > _KNOWN_REQUESTS:
                self._requests.popitem(last=False)
        return request

    def add_chunk(
        self, claim: PlanClaim, items: Sequence[IngestItem], *, cursor: str | None, planned: Planned = PLANNED_NOTHING
    ) -> int | None:
        counts = json.dumps(planned_counts(claim, items, planned))
        lines = failure_lines(planned.failures)
        room = self._run("add_chunk", claim.job_id, claim.token, items_json(items), cursor or "", counts, *lines)
        return None if room < 0 else int(room)

    def end_plan(self, claim: PlanClaim, *, finished: bool) -> Receipt:
        return Receipt(self._run("end_plan", claim.job_id, claim.token, int(finished)))

    def advance(self, claim: StepClaim, step: Step) -> Receipt:
        counts, lines = json.dumps(step_counts(step)), failure_lines(step.failures)
        total = "" if step.total is None else step.total
        result = "" if step.result is None else json.dumps(step.result)
        checkpoint = json.dumps(step.checkpoint)
        return Receipt(self._run("advance", claim.job_id, claim.token, counts, total, checkpoint, result, *lines))

    def renew(self, claim: Claim) -> Renewal:
        what, number = _what(claim)
        return Renewal(self._run("renew", what, claim.job_id, number, claim.token))

    def account(self, claim: ChunkClaim, outcome: ChunkOutcome, *, result: Mapping[str, Any] | None = None) -> Receipt:
        counts = json.dumps(outcome_counts(claim, outcome))
        told = json.dumps(result) if result else ""
        lines = failure_lines(outcome.failures)
        return Receipt(self._run("account", claim.job_id, claim.number, claim.token, counts, told, *lines))

    def split(self, claim: ChunkClaim) -> bool:
        middle = len(claim.items) // 2
        halves = items_json(claim.items[:middle]), items_json(claim.items[middle:])
        return bool(self._run("split", claim.job_id, claim.number, claim.token, *halves))

    def give_back(
        self,
        claim: Claim,
        *,
        delay_s: float = 0.0,
        burn_attempt: bool = True,
        waiting_for: WaitingFor | None = None,
        model: str | None = None,
    ) -> None:
        what, number = _what(claim)
        terms = int(delay_s * 1000), int(burn_attempt), waiting_for or "", model or ""
        self._run("give_back", what, claim.job_id, number, claim.token, *terms)

    def fail(self, claim: Claim, error: JobError) -> bool:
        what, number = _what(claim)
        return bool(self._run("fail", what, claim.job_id, number, claim.token, error.model_dump_json()))

    def claim_webhook(self) -> WebhookClaim | None:
        token = secrets.token_hex(8)
        answer = self._run("claim_webhook", token)
        if answer is None:
            return None
        job_id, attempts, url = answer
        return WebhookClaim(token=token, url=url, attempts=attempts, record=self.get(job_id))

    def end_webhook(self, claim: WebhookClaim, *, error: str | None = None, retry_in_s: float | None = None) -> None:
        retry_ms = "" if retry_in_s is None else int(retry_in_s * 1000)
        self._run("end_webhook", claim.record.id, claim.token, error or "", retry_ms)

    # --- Everybody's side ---

    def sweep(self, *, model: str | None = None) -> Swept:
        lapsed, ingests, searches = self._run("sweep", model or "")
        return Swept(lapsed=lapsed, waiting={Lane.INGEST: ingests, Lane.SEARCH: searches})

    def announce(self, worker: WorkerInfo) -> None:
        ttl_ms = int(self._limits.heartbeat_ttl_s * 1000)
        with reachable():
            pipe = self._redis.pipeline(transaction=True)
            pipe.set(f"{PREFIX}worker:{worker.name}", worker.model_dump_json(), px=ttl_ms)
            pipe.sadd(f"{PREFIX}workers", worker.name)
            pipe.pexpire(f"{PREFIX}workers", ttl_ms)
            pipe.execute()

    def depart(self, worker: WorkerInfo) -> None:
        with reachable():
            pipe = self._redis.pipeline(transaction=True)
            pipe.delete(f"{PREFIX}worker:{worker.name}")
            pipe.srem(f"{PREFIX}workers", worker.name)
            pipe.execute()


def _what(claim: Claim) -> tuple[str, str]:
    match claim:
        case PlanClaim() | StepClaim():
            return "plan", ""
        case SearchClaim():
            return "search", ""
        case ChunkClaim():
            return "chunk", str(claim.number)
