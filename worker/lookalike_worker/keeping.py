"""Keeping claims while work on them goes on: a slow file, or many bad ones, must not look like a dead worker."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Final, TypeVar

from lookalike.jobstore import ChunkClaim, JobStore, PlanClaim, Renewal, SearchClaim
from lookalike_worker.heart import Heart

T = TypeVar("T")

KEEP_EVERY_S: Final = 1.0


class Keeper:
    """Beats and renews leases, about once a second however often it is asked to."""

    def __init__(self, jobs: JobStore, heart: Heart, claims: Sequence[PlanClaim | ChunkClaim | SearchClaim]) -> None:
        self._jobs = jobs
        self._heart = heart
        self._claims = claims
        self._kept_s = time.monotonic()  # The claims are fresh.
        self.cancelled: set[str] = set()  #: Ids of jobs that were asked to stop.
        self.lost: set[str] = set()  #: Ids of jobs whose claims lapsed, or that are over.

    def keep(self) -> None:
        """Show progress, and keep the leases of what is still held."""
        self._heart.beat()
        if time.monotonic() - self._kept_s < KEEP_EVERY_S:
            return
        self._kept_s = time.monotonic()
        for claim in self._claims:
            if claim.job_id in self.lost:
                continue
            match self._jobs.renew(claim):
                case Renewal.CANCELLED:
                    self.cancelled.add(claim.job_id)
                case Renewal.LOST:
                    self.lost.add(claim.job_id)


def result_of(future: Future[T], keep: Callable[[], None]) -> T:
    """Wait for a future and return its result; calls `keep` before, and every second meanwhile."""
    keep()
    while not wait([future], timeout=KEEP_EVERY_S).done:
        keep()
    return future.result()
