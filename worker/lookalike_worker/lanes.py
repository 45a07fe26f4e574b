"""The lanes: what one ring of a doorbell makes a worker do, and the only place where an exception ends a job."""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from lookalike.errors import LookalikeError, Quarantined, QueueUnavailable, SetupError, VectorStoreUnavailable
from lookalike.jobstore import ChunkClaim, Lane, PlanClaim, Receipt
from lookalike.records import JobError
from lookalike_worker.context import Context
from lookalike_worker.ingest.chunks import ChunkRunner, ChunkStopped
from lookalike_worker.ingest.planner import Planner
from lookalike_worker.search import serve_searches

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S: Final = 60.0
_RETRY_PAUSE_S: Final = 2.0


class LaneRunner(Protocol):
    """A worker's side of a lane."""

    def ring(self) -> None:
        """Do one piece of waiting work, if there is one. Raises nothing that the job store can record."""


class SearchLane:
    """Answers searches, as many together as wait."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def ring(self) -> None:
        """Serve one batch. A defect leaves its searches to their leases: they are tried again, then set aside."""
        try:
            with self._context.heart.at_work():
                serve_searches(self._context)
        except QueueUnavailable as error:
            log.warning("searches wait for the job store: %s", error)
        except Exception:
            log.exception("a batch of searches failed; they will be tried again")


class IngestLane:
    """Plans jobs and processes their chunks, one piece at a time."""

    def __init__(self, context: Context, stopping: Callable[[], bool]) -> None:
        self._context = context
        self._stopping = stopping
        self._planner = Planner(
            context.jobs,
            context.doorbell,
            context.sources.roots,
            context.heart,
            chunk_images=context.settings.chunk_images,
        )
        self._chunks = ChunkRunner(context, stopping)
        self._refusals = 0  # Times in a row that the vector store could not be reached.

    def ring(self) -> None:
        """Do one plan step or one chunk."""
        try:
            claim = None if self._stopping() else self._context.jobs.claim_ingest()
            if claim:
                with self._context.heart.at_work():
                    self._do(claim)
        except QueueUnavailable as error:
            log.warning("ingest waits for the job store; work in hand lapses with its lease: %s", error)

    def _do(self, claim: PlanClaim | ChunkClaim) -> None:
        jobs = self._context.jobs
        try:
            receipt = self._plan(claim) if isinstance(claim, PlanClaim) else self._chunks.run(claim)
        except ChunkStopped as stopped:
            if stopped.give_back:
                jobs.give_back(claim, burn_attempt=False)
                self._context.doorbell.ring(Lane.INGEST)
        except VectorStoreUnavailable as error:
            self._refusals += 1
            pause_s = min(2.0**self._refusals, _LONGEST_PAUSE_S)
            log.warning("job %s waits %.0f s for the vector store: %s", claim.job_id, pause_s, error.__cause__ or error)
            jobs.give_back(claim, delay_s=pause_s, burn_attempt=False)
        except QueueUnavailable:
            raise
        except SetupError as error:  # Of this machine, as when no decoder can be started; not of the job.
            log.warning("job %s: an attempt failed: %s", claim.job_id, error)
            jobs.give_back(claim, delay_s=_RETRY_PAUSE_S)
        except LookalikeError as error:
            log.warning("job %s failed: %s", claim.job_id, error)
            jobs.fail(claim, JobError(code=error.code, message=error.message))
        except Exception:
            log.exception("job %s: an attempt failed", claim.job_id)
            jobs.give_back(claim, delay_s=_RETRY_PAUSE_S)
        else:
            self._refusals = 0
            self._follow(claim, receipt)

    def _plan(self, claim: PlanClaim) -> Receipt:
        if claim.attempts > self._context.settings.max_attempts:
            raise Quarantined
        return self._planner.plan(claim)

    def _follow(self, claim: PlanClaim | ChunkClaim, receipt: Receipt) -> None:
        if receipt is Receipt.PLAN_DUE:
            self._context.doorbell.ring(Lane.INGEST)
        elif receipt is Receipt.FINISHED:
            self._maintain(claim.request.collection)

    def _maintain(self, collection: str) -> None:
        try:
            changed = self._context.vectors.maintain(collection)
        except LookalikeError as error:
            log.warning("the index of collection %s is looked after next time: %s", collection, error)
        else:
            if changed:
                log.info("collection %s: %s", collection, changed)
