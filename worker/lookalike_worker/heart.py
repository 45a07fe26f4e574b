"""The heart: shows that a worker's work goes on, and ends the process when it does not.

Each beat comes from the loop itself, or from the work between two batches, so a worker that hangs falls silent; a
thread of its own would go on beating for the dead. Where several threads are at work, the one that has been silent for
longest counts: the beats of the others do not cover for it.
"""

import faulthandler
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lookalike.errors import QueueUnavailable
from lookalike.jobstore import JobStore
from lookalike.records import WorkerInfo

log = logging.getLogger(__name__)

_AT_ONCE_S: Final = 0.001  #: The C library's watchdog takes no time that is over.


class Heart:
    """Announces a worker to the job store, and guards its work with a time limit. Safe to share between threads."""

    def __init__(self, jobs: JobStore, info: WorkerInfo, *, every_s: float, limit_s: float) -> None:
        self._jobs = jobs
        self._info = info
        self._every_s = every_s
        self._limit_s = limit_s
        self._rearm_s = min(1.0, limit_s / 10)
        self._announced_s = float("-inf")
        self._armed_s = float("-inf")
        self._lock = threading.Lock()
        self._at_work: dict[int, float] = {}  # When each thread at work has beaten last.

    def beat(self) -> None:
        """Show that there is progress in this thread; cheap enough for every file."""
        now_s, thread = time.monotonic(), threading.get_ident()
        with self._lock:
            if thread in self._at_work:
                self._at_work[thread] = now_s
            if now_s - self._armed_s >= self._rearm_s:
                self._arm(now_s)
            if now_s - self._announced_s < self._every_s or self._silence_s(now_s) > self._every_s:
                return
            self._announced_s = now_s
        try:
            self._jobs.announce(self._info)
        except QueueUnavailable as error:
            log.warning("this worker's heartbeat is not heard: %s", error)

    def silence_s(self) -> float:
        """Tell for how long the quietest of the threads at work has not beaten."""
        with self._lock:
            return self._silence_s(time.monotonic())

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold the watchdog over this thread's work: without a beat of it for the time limit the process ends."""
        thread = threading.get_ident()
        with self._lock:
            now_s = self._at_work[thread] = time.monotonic()
            self._arm(now_s)
        try:
            self.beat()
            yield
        finally:
            with self._lock:
                del self._at_work[thread]
                self._arm(time.monotonic())

    def stop(self) -> None:
        """Say that this worker is gone."""
        try:
            self._jobs.depart(self._info)
        except QueueUnavailable as error:
            log.warning("this worker could not say that it ends: %s", error)

    def _silence_s(self, now_s: float) -> float:
        return now_s - min(self._at_work.values(), default=now_s)

    def _arm(self, now_s: float) -> None:
        # The watchdog is a thread of the C library: it fires although Python hangs in a driver's call. Each time it is
        # set, that thread is started anew, which is too dear for every file.
        self._armed_s = now_s
        if self._at_work:
            left_s = self._limit_s - self._silence_s(now_s)
            faulthandler.dump_traceback_later(max(left_s, _AT_ONCE_S), exit=True)
        else:
            faulthandler.cancel_dump_traceback_later()
