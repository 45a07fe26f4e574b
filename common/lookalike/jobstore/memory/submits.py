"""The front end's side of the store in memory: submits, cancels, pauses."""

from ulid import ULID

from lookalike.errors import IdempotencyConflict, QueueFull
from lookalike.jobstore.base import Idempotency
from lookalike.jobstore.codec import first_fields, request_json
from lookalike.jobstore.memory.jobs import Job
from lookalike.jobstore.memory.reads import MemoryReads
from lookalike.records import JobKind, JobRecord, JobState, Request, SearchRequest


class MemorySubmits(MemoryReads):
    """The part of `JobStore` that starts, holds up and ends jobs from outside."""

    def expire(self, job_id: str) -> None:
        """Let a final job's record expire now, leaving its tombstone."""
        with self._changed:
            del self._jobs[job_id]
            self._webhooks.pop(job_id, None)
            self._idempotency = {key: value for key, value in self._idempotency.items() if value[0] != job_id}
            self._expired.add(job_id)

    def create(
        self,
        kind: JobKind,
        request: Request,
        *,
        idempotency: Idempotency | None = None,
        owner: str | None = None,
    ) -> tuple[JobRecord, bool]:
        with self._changed:
            if idempotency and (known := self._idempotency.get(idempotency.key)):
                if known[1] != idempotency.digest:
                    raise IdempotencyConflict
                return self.get(known[0]), False
            live = [len(request_json(job.request).encode()) for job in self._jobs.values() if job.waits_as(kind)]
            size = len(request_json(request).encode())
            if len(live) >= self._limits.max_waiting_jobs or sum(live) + size > self._limits.max_waiting_bytes:
                raise QueueFull
            model = str(told) if (told := first_fields(request).get("model")) else None
            job = Job(str(ULID()), kind, request, self._now_ms(), owner=owner, model=model)
            self._jobs[job.id] = job
            if isinstance(request, SearchRequest):
                job.total = len(request.queries)
                self._searches.append(job.id)
            else:
                self._take_turn(job)
            if idempotency:
                self._idempotency[idempotency.key] = (job.id, idempotency.digest)
            return self._record(job), True

    def cancel(self, job_id: str) -> JobRecord:
        with self._changed:
            job = self._job(job_id)
            if not job.state.final and not job.cancel:
                job.cancel, job.paused = True, False
                self._touch(job)
                if job.kind is not JobKind.SEARCH:
                    self._drop_waiting(job)
                    self._finish_if_complete(job)
                elif not job.work.token:
                    self._searches = [other for other in self._searches if other != job_id]
                    self._finish(job, JobState.CANCELLED)
            return self._record(job)

    def _drop_waiting(self, job: Job) -> None:
        self._ring.pop(job.id, None)
        for number in [number for number, chunk in job.chunks.items() if not chunk.token]:
            self._drop_chunk(job, number)
        if job.plan != "leased":
            job.plan = "done"
            self._release(("plan", job.id, 0))

    def pause(self, job_id: str) -> JobRecord:
        return self._set_paused(job_id, True)

    def resume(self, job_id: str) -> JobRecord:
        return self._set_paused(job_id, False)

    def _set_paused(self, job_id: str, paused: bool) -> JobRecord:
        with self._changed:
            job = self._job(job_id)
            fits = job.kind is not JobKind.SEARCH and not job.state.final and not job.cancel
            if fits and job.paused is not paused:
                job.paused = paused
                if paused:
                    self._ring.pop(job_id, None)
                elif job.plan == "waiting" or job.waiting:
                    self._take_turn(job)
                self._touch(job)
            return self._record(job)
