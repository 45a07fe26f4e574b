"""The job store on Redis: every change of more than one key is one Lua script, every time is the server's.

The scripts lie in `lua/`; `prelude.lua` describes the keys.
"""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final, Self, cast

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from ulid import ULID

from lookalike.errors import IdempotencyConflict, JobExpired, JobNotFound, QueueFull, QueueUnavailable
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
from lookalike.jobstore.codec import (
    cursor_position,
    failure_lines,
    items_json,
    items_of,
    job_cursor,
    record_of,
    request_json,
    summary_of,
)
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
from lookalike.settings import Settings

PREFIX: Final = "lookalike:"
_SOCKET_TIMEOUT_S: Final = 2.0  # To connect and to answer: both together stay under the 5 s a submit may take.
_LIST_STEP: Final = 100
_MILLISECOND_FIELDS: Final = {"lease_s", "search_lease_s", "result_ttl_s", "tombstone_ttl_s"}
#: What a server that cannot take writes begins its answer with; anything else it refuses is a defect of ours.
_REFUSALS: Final = ("OOM", "MISCONF", "READONLY", "LOADING", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN")


@cache
def _source(name: str) -> str:
    folder = files("lookalike.jobstore") / "lua"
    return (folder / "prelude.lua").read_text() + (folder / f"{name}.lua").read_text()


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise QueueUnavailable from error
    except redis.ResponseError as error:
        if any(word in str(error) for word in _REFUSALS):
            raise QueueUnavailable from error
        raise


class RedisJobStore:
    """`JobStore` on a Redis or Valkey server. Safe to share between threads."""

    def __init__(self, client: "redis.Redis", limits: Limits) -> None:
        self._redis = client
        self._limits = limits
        milliseconds = {
            name.removesuffix("_s") if name in _MILLISECOND_FIELDS else name: (
                int(getattr(limits, name) * 1000) if name in _MILLISECOND_FIELDS else getattr(limits, name)
            )
            for name in limits.__dataclass_fields__
        }
        self._limits_json = json.dumps(milliseconds)
        self._scripts: dict[str, Any] = {}

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Make a store that fails within 5 seconds where the server does not answer."""
        client = redis.Redis.from_url(
            settings.redis_url.get_secret_value(),
            decode_responses=True,
            socket_timeout=_SOCKET_TIMEOUT_S,
            socket_connect_timeout=_SOCKET_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=10,
            # A connection that went stale is worth a second try; a server that hangs is not, and tries would add up.
            retry=Retry(ConstantBackoff(0.1), 1, supported_errors=(redis.ConnectionError,)),
        )
        return cls(client, Limits.from_settings(settings))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _run(self, name: str, *args: str | int) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._redis.register_script(_source(name))
        with _reachable():
            return script(keys=[PREFIX], args=[self._limits_json, *args])

    # --- The front end's side ---

    def create(
        self, kind: JobKind, request: IngestRequest | SearchRequest, *, idempotency: Idempotency | None = None
    ) -> tuple[JobRecord, bool]:
        queries = len(request.queries) if isinstance(request, SearchRequest) else 0
        key, digest = (idempotency.key, idempotency.digest) if idempotency else ("", "")
        code, job_id = self._run("create", str(ULID()), kind, request_json(request), queries, key, digest)
        if code == "full":
            raise QueueFull
        if code == "conflict":
            raise IdempotencyConflict
        return self.get(job_id), code == "created"

    def get(self, job_id: str) -> JobRecord:
        with _reachable():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(f"{PREFIX}job:{job_id}")
            pipe.lrange(f"{PREFIX}job:{job_id}:rate", 0, -1)
            pipe.exists(f"{PREFIX}tombstone:{job_id}")
            fields, samples, tombstone = pipe.execute()
        if not fields:
            raise JobExpired if tombstone else JobNotFound
        return record_of(job_id, fields, samples)

    def wait(self, job_id: str, *, timeout_s: float) -> JobRecord:
        deadline = time.monotonic() + timeout_s
        record = self.get(job_id)
        if record.state.final or timeout_s <= 0:
            return record
        with _reachable(), self._subscription() as channel:
            channel.subscribe(f"{PREFIX}final:{job_id}")
            # The job may have ended between the look above and the subscription.
            record = self.get(job_id)
            while not record.state.final and (remaining := deadline - time.monotonic()) > 0:
                if channel.get_message(timeout=remaining):
                    record = self.get(job_id)
        return record if record.state.final else self.get(job_id)

    def _subscription(self) -> Any:
        pubsub: Any = self._redis.pubsub  # redis-py publishes no type for it.
        return pubsub(ignore_subscribe_messages=True)

    def list_jobs(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        kind: JobKind | None = None,
        state: JobState | None = None,
    ) -> JobPage:
        found: list[JobRecord] = []
        before = f"({cursor}" if job_cursor(cursor) else "+"
        while True:
            with _reachable():
                ids = cast(
                    "list[str]",
                    self._redis.zrange(f"{PREFIX}jobs", before, "-", desc=True, bylex=True, offset=0, num=_LIST_STEP),
                )
                pipe = self._redis.pipeline(transaction=False)
                for job_id in ids:
                    pipe.hgetall(f"{PREFIX}job:{job_id}")
                rows = pipe.execute()
            for job_id, fields in zip(ids, rows, strict=True):
                if not fields or kind not in {None, fields["kind"]} or state not in {None, fields["state"]}:
                    continue
                if len(found) == limit:
                    return JobPage(jobs=tuple(found), next_cursor=found[-1].id)
                found.append(summary_of(job_id, fields))
            if len(ids) < _LIST_STEP:
                return JobPage(jobs=tuple(found))
            before = f"({ids[-1]}"

    def failures(self, job_id: str, *, cursor: str | None = None, limit: int = 1000) -> FailurePage:
        first = cursor_position(cursor)
        self.get(job_id)
        with _reachable():
            pipe = self._redis.pipeline(transaction=False)
            pipe.lrange(f"{PREFIX}job:{job_id}:failures", first, first + limit - 1)
            pipe.llen(f"{PREFIX}job:{job_id}:failures")
            pipe.hget(f"{PREFIX}job:{job_id}", "dropped")
            lines, total, dropped = pipe.execute()
        following = first + len(lines)
        return FailurePage(
            failures=tuple(Failure.model_validate_json(line) for line in lines),
            next_cursor=str(following) if following < total else None,
            dropped=int(dropped or 0),
        )

    def cancel(self, job_id: str) -> JobRecord:
        self._run("cancel", job_id)
        return self.get(job_id)

    # --- The workers' side ---

    def claim_searches(self, *, limit: int) -> Sequence[SearchClaim]:
        token = secrets.token_hex(8)
        return [
            SearchClaim(
                job_id=job_id,
                token=token,
                attempts=attempts,
                request=SearchRequest.model_validate_json(request),
            )
            for job_id, attempts, request in self._run("claim_searches", limit, token)
        ]

    def finish_search(self, claim: SearchClaim, outcome: Mapping[str, Any] | JobError) -> bool:
        if isinstance(outcome, JobError):
            field, value, failed = "error", outcome.model_dump_json(), len(claim.request.queries)
        else:
            field, value = "result", json.dumps(outcome)
            failed = sum(query["error"] is not None for query in outcome["queries"])
        return bool(self._run("finish_search", claim.job_id, claim.token, field, value, failed))

    def claim_ingest(self) -> PlanClaim | ChunkClaim | None:
        token = secrets.token_hex(8)
        answer = self._run("claim_ingest", token)
        if answer is None:
            return None
        what, job_id, attempts, request, *rest = answer
        common: dict[str, Any] = {
            "job_id": job_id,
            "token": token,
            "attempts": attempts,
            "request": IngestRequest.model_validate_json(request),
        }
        if what == "plan":
            return PlanClaim(**common, cursor=rest[0], room=rest[1])
        return ChunkClaim(**common, number=int(rest[0]), items=items_of(rest[1]))

    def add_chunk(
        self, claim: PlanClaim, items: Sequence[IngestItem], *, cursor: str | None, failures: Sequence[Failure] = ()
    ) -> int | None:
        lines = failure_lines(failures)
        room = self._run("add_chunk", claim.job_id, claim.token, items_json(items), len(items), cursor or "", *lines)
        return None if room < 0 else int(room)

    def end_plan(self, claim: PlanClaim, *, finished: bool) -> Receipt:
        return Receipt(self._run("end_plan", claim.job_id, claim.token, int(finished)))

    def renew(self, claim: PlanClaim | ChunkClaim | SearchClaim) -> Renewal:
        what, number = _what(claim)
        return Renewal(self._run("renew", what, claim.job_id, number, claim.token))

    def account(self, claim: ChunkClaim, outcome: ChunkOutcome, *, result: Mapping[str, Any] | None = None) -> Receipt:
        return Receipt(
            self._run(
                "account",
                claim.job_id,
                claim.number,
                claim.token,
                outcome.stored,
                outcome.unchanged,
                json.dumps(result) if result else "",
                *failure_lines(outcome.failures),
            )
        )

    def split(self, claim: ChunkClaim) -> bool:
        middle = len(claim.items) // 2
        halves = items_json(claim.items[:middle]), items_json(claim.items[middle:])
        return bool(self._run("split", claim.job_id, claim.number, claim.token, *halves))

    def give_back(
        self, claim: PlanClaim | ChunkClaim | SearchClaim, *, delay_s: float = 0.0, burn_attempt: bool = True
    ) -> None:
        what, number = _what(claim)
        self._run("give_back", what, claim.job_id, number, claim.token, int(delay_s * 1000), int(burn_attempt))

    def fail(self, claim: PlanClaim | ChunkClaim | SearchClaim, error: JobError) -> bool:
        what, number = _what(claim)
        return bool(self._run("fail", what, claim.job_id, number, claim.token, error.model_dump_json()))

    # --- Everybody's side ---

    def sweep(self) -> Swept:
        lapsed, ingests, searches = self._run("sweep")
        return Swept(lapsed=lapsed, waiting={Lane.INGEST: ingests, Lane.SEARCH: searches})

    def announce(self, worker: WorkerInfo) -> None:
        ttl_ms = int(self._limits.heartbeat_ttl_s * 1000)
        with _reachable():
            pipe = self._redis.pipeline(transaction=True)
            pipe.set(f"{PREFIX}worker:{worker.name}", worker.model_dump_json(), px=ttl_ms)
            pipe.sadd(f"{PREFIX}workers", worker.name)
            pipe.pexpire(f"{PREFIX}workers", ttl_ms)
            pipe.execute()

    def depart(self, worker: WorkerInfo) -> None:
        with _reachable():
            pipe = self._redis.pipeline(transaction=True)
            pipe.delete(f"{PREFIX}worker:{worker.name}")
            pipe.srem(f"{PREFIX}workers", worker.name)
            pipe.execute()

    def workers(self) -> Sequence[WorkerInfo]:
        with _reachable():
            names = sorted(cast("set[str]", self._redis.smembers(f"{PREFIX}workers")))
            signs = self._redis.mget([f"{PREFIX}worker:{name}" for name in names]) if names else []
        return [WorkerInfo.model_validate_json(sign) for sign in signs if sign]

    def ping(self) -> None:
        with _reachable():
            self._redis.ping()

    def now(self) -> datetime:
        with _reachable():
            seconds, microseconds = self._redis.time()
        return datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)


def _what(claim: PlanClaim | ChunkClaim | SearchClaim) -> tuple[str, str]:
    match claim:
        case PlanClaim():
            return "plan", ""
        case SearchClaim():
            return "search", ""
        case ChunkClaim():
            return "chunk", str(claim.number)
