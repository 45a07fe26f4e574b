"""What can be read of jobs: records, changes as they come, pages, ledgers, and the uploads that are in use."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, cast

import redis

from lookalike.errors import JobExpired, JobNotFound
from lookalike.jobstore.base import Lane, Limits
from lookalike.jobstore.codec import (
    cursor_position,
    job_cursor,
    placed,
    record_of,
    summary_of,
    uploads_in,
    without_workers,
)
from lookalike.jobstore.redis.connection import PREFIX, RedisConnection, reachable
from lookalike.jobstore.redis.listening import Listener
from lookalike.records import Failure, FailurePage, JobKind, JobPage, JobRecord, JobState, WorkerInfo

_LIST_STEP: Final = 100  # Jobs read at a time.
_LEDGER_STEP: Final = 1000  # Lines read at a time.
_POSITION_STEP: Final = 10_000  # Searches looked through for one's position.
_STOP_S: Final = 1.0  # How often one who waits asks whether it is to stop.
LOOK_AGAIN_S: Final = 5.0  #: How often one who waits looks at the job although no message has come.


class RedisReads(RedisConnection):
    """The part of `JobStore` that changes nothing about jobs."""

    def __init__(self, client: "redis.Redis", limits: Limits) -> None:
        super().__init__(client, limits)
        self._listener = Listener(client, f"{PREFIX}final:*", f"{PREFIX}changed:*")

    def find_idempotent(self, key: str) -> tuple[str, str] | None:
        with reachable():
            job_id, digest = cast("list[str | None]", self._redis.hmget(f"{PREFIX}idempotency:{key}", ["id", "digest"]))
        return (job_id, digest) if job_id and digest else None

    def get(self, job_id: str) -> JobRecord:
        with reachable():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(f"{PREFIX}job:{job_id}")
            pipe.lrange(f"{PREFIX}job:{job_id}:rate", 0, -1)
            pipe.exists(f"{PREFIX}tombstone:{job_id}")
            fields, samples, tombstone = pipe.execute()
        if not fields:
            raise JobExpired if tombstone else JobNotFound
        record = record_of(job_id, fields, samples)
        if record.model is not None and not record.state.final:
            record = without_workers(record, self.workers())
        return placed(record, self._position(record)) if record.state is JobState.QUEUED else record

    def _position(self, record: JobRecord) -> int | None:
        with reachable():
            if record.kind is JobKind.SEARCH:
                line = _line("search", record.model)
                return cast("int | None", self._redis.lpos(line, record.id, maxlen=_POSITION_STEP))
            return cast("int | None", self._redis.zrank(_line("ring", record.model), record.id))

    def wait(self, job_id: str, *, timeout_s: float, stopped: Callable[[], bool] = lambda: False) -> JobRecord:
        # A channel of its own: the many changes of a long job would wake its waiters in vain.
        return self._until(lambda state, _: state.final, job_id, "final", timeout_s, stopped)

    def heed(self, job_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        return self._listener.heed(f"{PREFIX}final:{job_id}", wake)

    def watch(self, job_id: str, *, after: int, timeout_s: float) -> JobRecord:
        return self._until(
            lambda state, version: state.final or version != after, job_id, "changed", timeout_s, lambda: False
        )

    def _until(
        self,
        reached: Callable[[JobState, int], bool],
        job_id: str,
        channel_name: str,
        timeout_s: float,
        stopped: Callable[[], bool],
    ) -> JobRecord:
        now_s = time.monotonic()
        deadline, looks_s = now_s + timeout_s, float("-inf")
        with self._listener.listen(f"{PREFIX}{channel_name}:{job_id}") as heard:
            while now_s < deadline and not stopped():
                if heard.is_set():
                    heard.clear()  # Before the look: what changes after that is heard.
                    record = self.get(job_id)
                    if reached(record.state, record.version):
                        return record
                    looks_s = now_s + LOOK_AGAIN_S
                elif now_s >= looks_s:
                    if reached(*self._glance(job_id)):
                        break
                    looks_s = now_s + LOOK_AGAIN_S
                heard.wait(min(deadline - now_s, _STOP_S))
                now_s = time.monotonic()
        return self.get(job_id)

    def _glance(self, job_id: str) -> tuple[JobState, int]:
        """Return a job's state and version; raises as `get` does."""
        with reachable():
            found = self._redis.hmget(f"{PREFIX}job:{job_id}", ["state", "version"])
        state, version = cast("list[str | None]", found)
        if state is None:
            record = self.get(job_id)  # Raises, unless the job has only just come to be.
            return record.state, record.version
        return JobState(state), int(version or 0)

    def list_jobs(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        kind: JobKind | None = None,
        state: JobState | None = None,
        owner: str | None = None,
    ) -> JobPage:
        found: list[JobRecord] = []
        before = f"({cursor}" if job_cursor(cursor) else "+"
        while True:
            with reachable():
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
                if owner not in {None, fields.get("owner")}:
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
        with reachable():
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

    def uploads_in_use(self) -> frozenset[str]:
        found: set[str] = set()
        for job_id in self._job_ids():
            for text in self._texts(job_id):
                found.update(uploads_in(text))
        return frozenset(found)

    def _job_ids(self) -> Iterator[str]:
        """All jobs, oldest first; those that come meanwhile included."""
        after = "-"
        while True:
            with reachable():
                ids = cast(
                    "list[str]", self._redis.zrange(f"{PREFIX}jobs", after, "+", bylex=True, offset=0, num=_LIST_STEP)
                )
            yield from ids
            if len(ids) < _LIST_STEP:
                return
            after = f"({ids[-1]}"

    def _texts(self, job_id: str) -> Iterator[str]:
        """What may name an upload: the request, the planned chunks, and the ledger, a page at a time."""
        key = f"{PREFIX}job:{job_id}"
        with reachable():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hget(key, "request")
            pipe.smembers(f"{key}:chunks")
            request, numbers = pipe.execute()
        yield request or ""
        for number in numbers:
            with reachable():
                yield cast("str | None", self._redis.hget(f"{key}:chunk:{number}", "items")) or ""
        first = 0
        while True:
            with reachable():
                lines = cast("list[str]", self._redis.lrange(f"{key}:failures", first, first + _LEDGER_STEP - 1))
            yield from lines
            if len(lines) < _LEDGER_STEP:
                return
            first += _LEDGER_STEP

    def others_waiting(self, lane: Lane, *, model: str) -> Sequence[str]:
        with reachable():
            return sorted(cast("set[str]", self._redis.smembers(f"{PREFIX}models:{lane}")) - {model})

    def workers(self) -> Sequence[WorkerInfo]:
        with reachable():
            names = sorted(cast("set[str]", self._redis.smembers(f"{PREFIX}workers")))
            signs = self._redis.mget([f"{PREFIX}worker:{name}" for name in names]) if names else []
        return [WorkerInfo.model_validate_json(sign) for sign in signs if sign]


def _line(name: str, model: str | None) -> str:
    """Where jobs wait for the workers of a model, or for all."""
    return f"{PREFIX}{name}:{model}" if model else f"{PREFIX}{name}"
