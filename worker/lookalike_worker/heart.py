"""The heart: shows that a worker's loop turns, and ends the process when its work does not.

Each beat comes from the loop itself, or from the work between two batches, so a worker that hangs falls silent; a
thread of its own would go on beating for the dead.
"""

import faulthandler
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lookalike.errors import QueueUnavailable
from lookalike.jobstore import JobStore
from lookalike.records import WorkerInfo

log = logging.getLogger(__name__)


class Heart:
    """Announces a worker to the job store, and guards its work with a time limit."""

    def __init__(self, jobs: JobStore, info: WorkerInfo, *, every_s: float, limit_s: float) -> None:
        self._jobs = jobs
        self._info = info
        self._every_s = every_s
        self._limit_s = limit_s
        self._rearm_s = min(1.0, limit_s / 10)
        self._last_s = float("-inf")
        self._armed_s = float("-inf")
        self._at_work = False

    def beat(self) -> None:
        """Show that there is progress; cheap enough for every file."""
        # The watchdog is a thread of the C library: it fires although Python hangs in a driver's call. Each time it is
        # set, that thread is started anew, which is too dear for every file.
        if self._at_work and time.monotonic() - self._armed_s >= self._rearm_s:
            self._armed_s = time.monotonic()
            faulthandler.dump_traceback_later(self._limit_s, exit=True)
        if time.monotonic() - self._last_s < self._every_s:
            return
        self._last_s = time.monotonic()
        try:
            self._jobs.announce(self._info)
        except QueueUnavailable as error:
            log.warning("this worker's heartbeat is not heard: %s", error)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold the watchdog over a piece of work: without a beat for the time limit the process ends."""
        self._at_work = True
        self._armed_s = float("-inf")
        self.beat()
        try:
            yield
        finally:
            self._at_work = False
            faulthandler.cancel_dump_traceback_later()

    def stop(self) -> None:
        """Say that this worker is gone."""
        try:
            self._jobs.depart(self._info)
        except QueueUnavailable as error:
            log.warning("this worker could not say that it ends: %s", error)
