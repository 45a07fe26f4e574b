"""Keeping claims while work on them goes on: a slow file, or many bad ones, must not look like a dead worker."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Final, TypeVar

from lookalike.errors import QueueUnavailable
from lookalike.jobstore import Claim, JobStore, Renewal
from lookalike_worker.heart import Heart

log = logging.getLogger(__name__)

T = TypeVar("T")

KEEP_EVERY_S: Final = 1.0
_SHORTEST_WAIT_S: Final = 0.05


def wait_s() -> float:
    """How long a thread that keeps claims may wait for another before it looks after them."""
    return max(KEEP_EVERY_S, _SHORTEST_WAIT_S)


class Keeper:
    """Beats and renews leases, about once a second however often it is asked to.

    A job store that cannot be reached is no reason to stop before the lease is out: until then nobody else may take
    the work, and what was embedded can still be accounted when the store is back.
    """

    def __init__(
        self,
        jobs: JobStore,
        heart: Heart,
        claims: Sequence[Claim],
        *,
        lease_s: float = 0.0,
    ) -> None:
        """Keep `claims`, all just made; `lease_s` is how long an unreachable store is put up with."""
        self._jobs = jobs
        self._heart = heart
        self._claims = claims
        self._lease_s = lease_s
        self._asked_s = self._kept_s = time.monotonic()  # The claims are fresh.
        self.cancelled: set[str] = set()  #: Ids of jobs that were asked to stop.
        self.paused: set[str] = set()  #: Ids of jobs that were asked to stand still.
        self.lost: set[str] = set()  #: Ids of jobs whose claims lapsed, or that are over.

    def keep(self) -> None:
        """Show progress, and keep the leases of what is still held. Raises `QueueUnavailable` past the lease."""
        self._heart.beat()
        now_s = time.monotonic()
        if now_s - self._asked_s < KEEP_EVERY_S:
            return
        self._asked_s = now_s
        try:
            for claim in self._claims:
                if claim.job_id not in self.lost:
                    self._note(claim, self._jobs.renew(claim))
        except QueueUnavailable:
            if now_s - self._kept_s >= self._lease_s:
                raise
            log.warning("the job store is not there; going on while the lease lasts")
        else:
            self._kept_s = now_s

    def persist(self, call: Callable[[], T]) -> T:
        """Make a last call about the claim, again and again while the job store is away and the lease may last."""
        while True:
            try:
                return call()
            except QueueUnavailable as error:
                if time.monotonic() - self._kept_s >= self._lease_s:
                    raise
                log.warning("the job store is not there; trying again while the lease lasts: %s", error)
            self._heart.beat()
            time.sleep(KEEP_EVERY_S)

    def _note(self, claim: Claim, renewal: Renewal) -> None:
        match renewal:
            case Renewal.CANCELLED:
                self.cancelled.add(claim.job_id)
            case Renewal.PAUSED:
                self.paused.add(claim.job_id)
            case Renewal.LOST:
                self.lost.add(claim.job_id)


def result_of(future: Future[T], keep: Callable[[], None]) -> T:
    """Wait for a future and return its result; calls `keep` before, and every second meanwhile."""
    keep()
    while not wait([future], timeout=KEEP_EVERY_S).done:
        keep()
    return future.result()
