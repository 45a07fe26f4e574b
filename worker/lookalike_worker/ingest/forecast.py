"""The forecast: counts the files of a job's source beside its listing, so that people are told how long it will take.

A listing that waits for a look-ahead to empty ends when its job does; until then nobody would know how much is left.
"""

import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from lookalike.errors import LookalikeError
from lookalike.jobstore import PlanClaim
from lookalike.listing import Lister
from lookalike.records import IngestRequest

log = logging.getLogger(__name__)

_MOST_JOBS: Final = 16  #: That are remembered; a worker takes few in turn.


class Stopped(Exception):
    """The worker ends."""


class Forecast:
    """Counts sources in a thread, one at a time. Each job's count is told once."""

    def __init__(self, lister: Lister) -> None:
        self._lister = lister
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="forecast")
        self._stopped = threading.Event()
        self._counts: OrderedDict[str, Future[int] | None] = OrderedDict()  # None: told.

    def begin(self, claim: PlanClaim) -> None:
        """Have a job's source counted, where this is the beginning of its listing and nobody does so yet."""
        if claim.cursor is not None or claim.job_id in self._counts:
            return
        self._counts[claim.job_id] = self._executor.submit(self._count, claim.request)
        while len(self._counts) > _MOST_JOBS:
            _, oldest = self._counts.popitem(last=False)
            if oldest:
                oldest.cancel()

    def tell(self, job_id: str) -> int:
        """Return how many files a job will have, once; 0 where that is not known, not yet, or has been told."""
        count = self._counts.get(job_id)
        if count is None or not count.done():
            return 0
        self._counts[job_id] = None
        return count.result()

    def close(self) -> None:
        """Give up counting, and end the thread."""
        self._stopped.set()
        self._executor.shutdown(cancel_futures=True)

    def _count(self, request: IngestRequest) -> int:
        try:
            return self._lister.count(request, keep=self._keep) or 0
        except Stopped:
            return 0
        except (LookalikeError, OSError) as error:  # The listing meets it as well, and tells.
            log.debug("no forecast: %s", error)
            return 0

    def _keep(self) -> None:
        if self._stopped.is_set():
            raise Stopped
