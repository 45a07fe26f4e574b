"""The lanes: what one ring of a doorbell makes a worker do, and the only place where an exception ends a job."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from lookalike.errors import (
    InsufficientStorage,
    LookalikeError,
    MissingExtra,
    ModelMismatch,
    Quarantined,
    QueueUnavailable,
    SetupError,
    SourceUnavailable,
    VectorStoreUnavailable,
)
from lookalike.jobstore import ChunkClaim, Lane, PlanClaim, Receipt, Renewal, StepClaim
from lookalike.records import JobError, JobKind, WaitingFor
from lookalike_worker.backgrounds import refresh_background
from lookalike_worker.context import Context
from lookalike_worker.ingest.pipeline import GivenBack, Pipeline
from lookalike_worker.ingest.planner import Planner
from lookalike_worker.keeping import Keeper
from lookalike_worker.routing import aim_ingest, hand_over, name_of, own_model, pass_on_rings
from lookalike_worker.search import serve_searches
from lookalike_worker.steps import WORK

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S: Final = 60.0
_MOST_DOUBLINGS: Final = 10
_RETRY_PAUSE_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.5


#: What is not the job's fault, and may pass without anybody touching the job.
_HELD_UP_BY: Final[dict[type[LookalikeError], WaitingFor]] = {
    VectorStoreUnavailable: WaitingFor.VECTOR_STORE,
    SourceUnavailable: WaitingFor.SOURCE,
    InsufficientStorage: WaitingFor.WORKER,  # Of the disk that remote files are fetched to.
}


class LaneRunner(Protocol):
    """A worker's side of a lane."""

    def ring(self) -> None:
        """Do one piece of waiting work, if there is one. Raises nothing that the job store can record."""

    def close(self) -> None:
        """Let go of what the lane holds."""


class SearchLane:
    """Answers searches, as many together as wait."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def ring(self) -> None:
        """Serve one batch. A defect leaves its searches to their leases: they are tried again, then set aside."""
        try:
            with self._context.heart.at_work():
                serve_searches(self._context)
                pass_on_rings(self._context, Lane.SEARCH)
        except QueueUnavailable as error:
            log.warning("searches wait for the job store: %s", error)
        except Exception:
            log.exception("a batch of searches failed; they will be tried again")

    def close(self) -> None:
        """There is nothing to let go of."""


class _Interrupted(Exception):
    """The step in hand is to end at once: its job is cancelled or paused, its claim lost, or the worker ends."""


class IngestLane:
    """Plans ingests and processes their chunks, and does the steps of other jobs."""

    def __init__(self, context: Context, stopping: Callable[[], bool]) -> None:
        self._context = context
        self._stopping = stopping
        self._planner = Planner(context)
        self._pipeline = Pipeline(context, self, stopping)
        self._reporting = threading.Lock()  # The pipeline's reader plans while its writer reports.
        self._refusals = 0  # Times in a row that the vector store, or a source, could not be reached.
        self._look_again_s: float | None = None  # When the vector store, which was out of reach, is tried again.
        self._step: StepClaim | None = None  # Claimed by the pipeline, whose threads do not do steps.

    def close(self) -> None:
        """End the threads."""
        self._pipeline.close()
        self._planner.close()

    def ring(self) -> None:
        """Plan a piece of an ingest, do a step of another job, or process chunks until none waits."""
        self._context.crash.reach("after_pop")
        try:
            if self._stopping() or self._is_cut_off():
                return
            claim = self._claim()
            if isinstance(claim, PlanClaim):
                with self._context.heart.at_work():
                    self._plan(claim)
            elif isinstance(claim, StepClaim):
                self._take_step(claim)
            elif claim:
                self._pipeline.run(claim)
                if self._step:
                    claim, self._step = self._step, None
                    self._take_step(claim)
            pass_on_rings(self._context, Lane.INGEST)
        except QueueUnavailable as error:
            log.warning("ingest waits for the job store; work in hand lapses with its lease: %s", error)

    # --- What the pipeline asks for, from its threads ---

    def claim(self) -> ChunkClaim | None:
        """Claim the next chunk; makes the plans whose turn comes before; a step waits for all in hand."""
        if self._step:
            self._context.jobs.renew(self._step)  # What is in hand may take longer than a lease.
            return None
        while isinstance(claim := self._claim(), PlanClaim):
            self._plan(claim)
        if isinstance(claim, StepClaim):
            self._step = claim
            return None
        return claim

    def report(self, claim: PlanClaim | ChunkClaim | StepClaim, outcome: Receipt | Exception) -> None:
        """Settle a piece of work: follow up what was done, give back or fail what was not."""
        with self._reporting:
            if isinstance(outcome, Exception):
                self._give_up(claim, outcome)
            else:
                self._refusals = 0
                self._follow(claim, outcome)

    def _claim(self) -> PlanClaim | ChunkClaim | StepClaim | None:
        claim = self._context.jobs.claim_ingest(model=own_model(self._context))
        if claim:
            self._context.crash.reach("after_claim")
        return aim_ingest(claim) if isinstance(claim, PlanClaim | ChunkClaim) else claim

    def _plan(self, claim: PlanClaim) -> None:
        outcome: Receipt | Exception
        try:
            is_over = claim.attempts > self._context.settings.max_attempts
            outcome = Quarantined() if is_over else self._planner.plan(claim)
        except Exception as error:  # noqa: BLE001 - every one is reported
            outcome = error
        self.report(claim, outcome)
        self._context.crash.reach("after_accounting")

    def _take_step(self, claim: StepClaim) -> None:
        context = self._context
        if context.jobs.renew(claim) is Renewal.LOST:
            return  # It waited for what was in hand for too long, and somebody else has it.
        keeper = Keeper(context.jobs, context.heart, [claim], lease_s=context.settings.lease_s)

        def keep() -> None:
            keeper.keep()
            if self._stopping() or claim.job_id in keeper.cancelled | keeper.paused | keeper.lost:
                raise _Interrupted

        outcome: Receipt | Exception
        try:
            with context.heart.at_work():
                outcome = self._do_step(claim, keeper, keep)
        except _Interrupted:
            # Of a job that was cancelled this is the end.
            outcome = GivenBack()
        except Exception as error:  # noqa: BLE001 - every one is reported
            outcome = error
        self.report(claim, outcome)
        context.crash.reach("after_accounting")

    def _do_step(self, claim: StepClaim, keeper: Keeper, keep: Callable[[], None]) -> Receipt | Exception:
        context = self._context
        if claim.attempts > context.settings.max_attempts:
            return Quarantined()
        step = WORK[claim.kind](context, claim, keep)
        context.crash.reach("before_accounting")
        return keeper.persist(lambda: context.jobs.advance(claim, step))

    def _give_up(self, claim: PlanClaim | ChunkClaim | StepClaim, error: Exception) -> None:
        jobs = self._context.jobs
        match error:
            case GivenBack():
                jobs.give_back(claim, burn_attempt=False)
                self._context.doorbell.ring(Lane.INGEST)
            case VectorStoreUnavailable() | SourceUnavailable() | InsufficientStorage():
                self._wait(claim, error)
            case QueueUnavailable():
                self._return_when_possible(claim, error)
            case ModelMismatch() if self._is_handed_over(claim):
                pass
            case MissingExtra():  # No waiting installs it.
                self._fail(claim, error)
            case SetupError():  # Of this machine, as when no decoder can be started; not of the job.
                log.warning("job %s: an attempt failed: %s", claim.job_id, error)
                # Files are not set aside for it. But a source that no worker here can list is to end its job.
                is_plan, pause_s = not isinstance(claim, ChunkClaim), self._next_pause_s()
                jobs.give_back(claim, delay_s=pause_s, burn_attempt=is_plan, waiting_for=WaitingFor.WORKER)
            case LookalikeError():
                self._fail(claim, error)
            case _:
                log.error("job %s: an attempt failed", claim.job_id, exc_info=error)
                jobs.give_back(claim, delay_s=_RETRY_PAUSE_S)

    def _fail(self, claim: PlanClaim | ChunkClaim | StepClaim, error: LookalikeError) -> None:
        log.warning("job %s failed: %s", claim.job_id, error)
        self._context.jobs.fail(claim, JobError(code=error.code, message=error.message))

    def _is_handed_over(self, claim: PlanClaim | ChunkClaim | StepClaim) -> bool:
        if _is_import(claim):
            return False  # Its vectors are made: those of another model stay that, whoever's worker stores them.
        try:
            return hand_over(self._context, Lane.INGEST, claim, claim.request.collection)
        except LookalikeError as error:
            log.warning("job %s could not be given to the workers of its model: %s", claim.job_id, error)
            self._context.jobs.give_back(claim, delay_s=_RETRY_PAUSE_S, burn_attempt=False)
            return True

    def _return_when_possible(self, claim: PlanClaim | ChunkClaim | StepClaim, error: QueueUnavailable) -> None:
        """Give work back as soon as the job store answers again: waiting for the lease to lapse takes far longer."""
        log.warning("work of job %s is given back once the job store is there: %s", claim.job_id, error)
        gives_up_s = time.monotonic() + self._context.settings.lease_s
        while True:
            try:
                self._context.jobs.give_back(claim, burn_attempt=False)
            except QueueUnavailable:
                if self._stopping() or time.monotonic() > gives_up_s:
                    raise
                self._context.heart.beat()
                time.sleep(_LOOK_AGAIN_S)
            else:
                self._context.doorbell.ring(Lane.INGEST)
                return

    def _wait(self, claim: PlanClaim | ChunkClaim | StepClaim, error: LookalikeError) -> None:
        """Give work back that something else holds up, for longer each time."""
        what = next(what for kind, what in _HELD_UP_BY.items() if isinstance(error, kind))
        pause_s = self._next_pause_s()
        log.warning("job %s waits %.0f s for the %s: %s", claim.job_id, pause_s, what, error.__cause__ or error)
        if what is WaitingFor.VECTOR_STORE:
            # It may be only this worker that cannot reach it. Then it is this worker that stands back, not the work.
            self._look_again_s = time.monotonic() + pause_s
            pause_s = min(pause_s, _RETRY_PAUSE_S)
        self._context.jobs.give_back(claim, delay_s=pause_s, burn_attempt=False, waiting_for=what)

    def _next_pause_s(self) -> float:
        self._refusals += 1
        return min(2.0 ** min(self._refusals, _MOST_DOUBLINGS), _LONGEST_PAUSE_S)

    def _is_cut_off(self) -> bool:
        """Tell whether the vector store was out of reach and still is."""
        if self._look_again_s is None:
            return False
        if time.monotonic() < self._look_again_s:
            return True
        try:
            self._context.vectors.ping()
        except VectorStoreUnavailable:
            self._look_again_s = time.monotonic() + self._next_pause_s()
            return True
        self._look_again_s = None
        return False

    def _follow(self, claim: PlanClaim | ChunkClaim | StepClaim, receipt: Receipt) -> None:
        if receipt is Receipt.PLAN_DUE:
            self._context.doorbell.ring(Lane.INGEST)
        elif receipt is Receipt.FINISHED and _is_import(claim):
            self._warn_if_outgrown(claim.request.collection)
        elif receipt is Receipt.FINISHED and not isinstance(claim, StepClaim):
            self._warn_if_outgrown(name_of(claim))

    def _warn_if_outgrown(self, collection: str) -> None:
        try:
            advice = self._context.vectors.outgrown(collection)
        except LookalikeError as error:
            log.warning("the size of collection %s is looked at next time: %s", collection, error)
        else:
            if advice:
                log.warning("collection %s: %s", collection, advice)
        refresh_background(self._context, collection)


def _is_import(claim: PlanClaim | ChunkClaim | StepClaim) -> bool:
    return isinstance(claim, StepClaim) and claim.kind is JobKind.IMPORT
