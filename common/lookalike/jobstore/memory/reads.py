"""What can be read of jobs in memory; what `redis/reads.py` is to the store on Redis."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from lookalike.jobstore.base import Lane, Limits
from lookalike.jobstore.codec import (
    cursor_position,
    failure_lines,
    items_json,
    job_cursor,
    request_json,
    shortened,
    uploads_in,
)
from lookalike.jobstore.memory.jobs import Job
from lookalike.jobstore.memory.moves import MemoryMoves
from lookalike.records import FailurePage, JobKind, JobPage, JobRecord, JobState, WorkerInfo

_HEED_S: Final = 60.0
_STOP_S: Final = 1.0  # How often one who waits asks whether it is to stop.


class MemoryReads(MemoryMoves):
    """The part of `JobStore` that changes nothing about jobs."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        super().__init__(limits, clock)
        self._idempotency: dict[str, tuple[str, str]] = {}

    def find_idempotent(self, key: str) -> tuple[str, str] | None:
        with self._changed:
            return self._idempotency.get(key)

    def get(self, job_id: str) -> JobRecord:
        with self._changed:
            return self._record(self._job(job_id))

    def wait(self, job_id: str, *, timeout_s: float, stopped: Callable[[], bool] = lambda: False) -> JobRecord:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._job(job_id).state.final and not stopped() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, _STOP_S))
            return self.get(job_id)

    def heed(self, job_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        left = threading.Event()

        def follow() -> None:
            self.wait(job_id, timeout_s=_HEED_S, stopped=left.is_set)
            wake()

        threading.Thread(target=follow, daemon=True).start()
        return left.set

    def watch(self, job_id: str, *, after: int, timeout_s: float) -> JobRecord:
        with self._changed:
            self._changed.wait_for(
                lambda: self._job(job_id).state.final or self._job(job_id).version != after, timeout_s
            )
            return self.get(job_id)

    def list_jobs(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        kind: JobKind | None = None,
        state: JobState | None = None,
        owner: str | None = None,
    ) -> JobPage:
        before = job_cursor(cursor)
        with self._changed:
            found = [
                shortened(job.record())
                for job_id, job in sorted(self._jobs.items(), reverse=True)
                if (before is None or job_id < before)
                and kind in {None, job.kind}
                and state in {None, job.state}
                and owner in {None, job.owner}
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
                dropped=job.counts["dropped"],
            )

    def uploads_in_use(self) -> frozenset[str]:
        with self._changed:
            return frozenset(
                sha256 for job in self._jobs.values() for text in _texts(job) for sha256 in uploads_in(text)
            )

    def workers(self) -> Sequence[WorkerInfo]:
        with self._changed:
            return self._live_workers()

    def others_waiting(self, lane: Lane, *, model: str) -> Sequence[str]:
        with self._changed:
            waiting = self._searches if lane is Lane.SEARCH else self._ring
            return sorted({other for job_id in waiting if (other := self._jobs[job_id].model)} - {model})

    def ping(self) -> None:
        """Memory answers always."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _texts(job: Job) -> Iterator[str]:
    """What may name an upload, written as the store on Redis keeps it."""
    yield request_json(job.request)
    yield from (items_json(chunk.items) for chunk in job.chunks.values())
    yield from failure_lines(job.failures)
