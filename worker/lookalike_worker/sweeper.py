"""The sweeper: takes back what dead workers held, and rings for work whose doorbell was lost.

Every worker runs one, in a thread: the moves are the job store's and atomic, so any number may sweep at once.
"""

import logging
import threading
from typing import Final

from lookalike.broker import Doorbell
from lookalike.errors import QueueUnavailable
from lookalike.jobstore import JobStore

log = logging.getLogger(__name__)

#: Rings in one sweep: enough to wake every worker, few enough not to fill Redis after an outage.
MAX_RINGS: Final = 1000


def sweep_once(jobs: JobStore, doorbell: Doorbell, *, model: str | None = None) -> None:
    """Put lapsed work back, and see that each lane has at least as many messages as pieces of waiting work.

    What waits for the workers of another model is left to their sweepers.
    """
    swept = jobs.sweep(model=model)
    if swept.lapsed:
        log.warning("took back %d pieces of work whose workers fell silent", swept.lapsed)
    for lane, waiting in swept.waiting.items():
        unheard = waiting - doorbell.pending(lane) if waiting else 0
        if unheard > 0:
            doorbell.ring(lane, min(unheard, MAX_RINGS))


class Sweeper(threading.Thread):
    """Sweeps at its start and then at a steady pace, until stopped."""

    def __init__(self, jobs: JobStore, doorbell: Doorbell, *, every_s: float, model: str | None = None) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._jobs = jobs
        self._doorbell = doorbell
        self._every_s = every_s
        self._model = model
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sweep until `stop`; an unreachable Redis is waited for, anything unexpected is logged and tried again."""
        while True:
            try:
                sweep_once(self._jobs, self._doorbell, model=self._model)
            except QueueUnavailable as error:
                log.warning("no sweep: %s", error)
            except Exception:  # A sweeper that died would go unnoticed until work is lost.
                log.exception("a sweep failed")
            if self._stopped.wait(self._every_s):
                return

    def stop(self) -> None:
        """End the thread, at the latest after the sweep in hand."""
        self._stopped.set()
        self.join()
