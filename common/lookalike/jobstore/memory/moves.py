"""The moves that several methods of the store in memory share; what `prelude.lua` is to the one on Redis."""

import threading
from collections.abc import Callable, Mapping, Sequence

from lookalike.errors import JobExpired, JobNotFound
from lookalike.jobstore.base import Claim, Limits
from lookalike.jobstore.codec import SAMPLES, failure_lines, placed, without_workers
from lookalike.jobstore.memory.jobs import Job, Member, Work
from lookalike.records import Failure, JobKind, JobRecord, JobState, WorkerInfo


class MemoryMoves:
    """All jobs, the queues they wait in, and the moves between them. The caller holds the lock `_changed`."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._jobs: dict[str, Job] = {}
        self._expired: set[str] = set()
        self._ring: dict[str, float] = {}  # Ingests with work that may be claimed, by pass.
        self._virtual_times: dict[str | None, float] = {}  # By the model whose workers a ring is for.
        self._searches: list[str] = []
        self._leases: dict[Member, float] = {}
        self._delayed: dict[Member, float] = {}
        self._webhooks: dict[str, float] = {}
        self._workers: dict[str, tuple[WorkerInfo, float]] = {}

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _job(self, job_id: str) -> Job:
        if job_id not in self._jobs:
            raise JobExpired if job_id in self._expired else JobNotFound
        return self._jobs[job_id]

    def _record(self, job: Job) -> JobRecord:
        record = without_workers(job.record(), self._live_workers())
        if job.state is not JobState.QUEUED:
            return record
        line = self._searches if job.kind is JobKind.SEARCH else sorted(self._ring, key=self._turn)
        line = [other for other in line if self._jobs[other].model == job.model]
        return placed(record, line.index(job.id) if job.id in line else None)

    def _live_workers(self) -> list[WorkerInfo]:
        return [info for _, (info, until) in sorted(self._workers.items()) if until > self._clock()]

    def _turn(self, job_id: str) -> tuple[float, str]:
        return self._ring[job_id], job_id

    def _held(self, claim: Claim, member: Member) -> tuple[Job | None, Work | None]:
        job = self._jobs.get(claim.job_id)
        work = job and (job.chunks.get(member[2]) if member[0] == "chunk" else job.work)
        return (job, work) if work and work.token == claim.token else (None, None)

    def _touch(self, job: Job) -> None:
        job.version += 1
        self._changed.notify_all()

    def _release(self, member: Member) -> None:
        self._leases.pop(member, None)
        self._delayed.pop(member, None)

    def _take_turn(self, job: Job) -> bool:
        if job.paused:
            return False
        if job.id not in self._ring:
            passes = (passed for other, passed in self._ring.items() if self._jobs[other].model == job.model)
            now = self._virtual_times.get(job.model, min(passes, default=0.0))
            self._ring[job.id] = max(now, now + job.stride / 2 if job.passed is None else job.passed)
        return True

    def _had_turn(self, job: Job) -> None:
        self._virtual_times[job.model] = self._ring.pop(job.id)
        job.passed = self._virtual_times[job.model] + job.stride
        if job.waiting:
            self._ring[job.id] = job.passed

    def _start(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            job.state, job.started_ms = JobState.RUNNING, self._now_ms()
            self._touch(job)

    def _count(self, job: Job, counts: Mapping[str, int]) -> None:
        visible = job.waiting_for is not None or any(name != "listed" for name in counts)
        job.waiting_for = None
        for name, number in counts.items():
            if name == "total":
                job.total = (job.total or 0) + number
            else:
                job.counts[name] += number
        if visible:
            done = sum(job.counts[name] for name in ("added", "changed", "moved", "unchanged", "failed", "processed"))
            job.samples = [*job.samples, f"{self._now_ms()}:{done}"][-SAMPLES:]
            self._touch(job)

    def _add_failures(self, job: Job, failures: Sequence[Failure]) -> None:
        for failure, line in zip(failures, failure_lines(failures), strict=True):
            larger = job.ledger_bytes + len(line.encode())
            if len(job.failures) < self._limits.max_failures and larger <= self._limits.max_failures_bytes:
                job.failures.append(failure)
                job.ledger_bytes = larger
            else:
                job.counts["dropped"] += 1

    def _room(self, job: Job) -> int:
        return max(0, self._limits.lookahead_chunks - len(job.chunks))

    def _open_chunk(self, job: Job, work: Work) -> None:
        job.next_chunk += 1
        job.chunks[job.next_chunk] = work
        job.waiting.add(job.next_chunk)
        self._take_turn(job)

    def _drop_chunk(self, job: Job, number: int) -> None:
        del job.chunks[number]
        job.waiting.discard(number)
        self._release(("chunk", job.id, number))

    def _finish(self, job: Job, state: JobState) -> None:
        for number in list(job.chunks):
            self._drop_chunk(job, number)
        self._release(("plan", job.id, 0))
        self._release(("search", job.id, 0))
        self._ring.pop(job.id, None)
        job.work.token, job.paused, job.waiting_for = None, False, None
        job.state, job.finished_ms = state, self._now_ms()
        if job.request.webhook:
            self._webhooks[job.id] = self._clock()
        self._touch(job)

    def _finish_if_complete(self, job: Job) -> bool:
        if job.chunks or (job.cancel and job.plan == "leased") or not (job.cancel or job.plan == "done"):
            return False
        self._finish(job, JobState.CANCELLED if job.cancel else JobState.SUCCEEDED)
        return True

    def _plan_if_due(self, job: Job) -> bool:
        half_done = job.plan == "idle" and len(job.chunks) <= self._limits.lookahead_chunks / 2
        if not half_done and not (job.plan == "between" and not job.chunks):
            return False
        job.plan = "waiting"
        return self._take_turn(job)

    def _put_back(self, member: Member) -> None:
        what, job_id, number = member
        job = self._jobs.get(job_id)
        if not job or job.state.final:
            return
        if what == "chunk" and job.cancel:
            self._drop_chunk(job, number)
        elif what == "chunk":
            job.chunks[number].token = None
            job.waiting.add(number)
        else:
            job.work.token = None
            job.plan = "done" if job.cancel else "waiting"
        if what == "search" and job.cancel:
            self._finish(job, JobState.CANCELLED)
        elif what == "search":
            self._searches.insert(0, job.id)
        elif job.cancel:
            self._finish_if_complete(job)
        else:
            self._take_turn(job)
