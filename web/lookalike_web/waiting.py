"""Long-polls and streams of events: how many may wait, for how long, and when they are let go."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from threading import BoundedSemaphore
from typing import Final, cast

from flask import current_app, request

from lookalike.jobstore import JobStore
from lookalike.records import JobRecord

EXTENSION = "lookalike_waits"

#: A stopping process notices within this time that it should send its waiting clients away.
SLICE_S: Final = 1.0

_WAIT_PREFERENCE = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.IGNORECASE)


def preferred_wait_s() -> int | None:
    """Return the seconds of the request's `Prefer: wait=` (RFC 7240), None where it states none."""
    found = _WAIT_PREFERENCE.search(",".join(request.headers.getlist("Prefer")))
    return int(found[1]) if found else None


class WaitGate:
    """Lets a bounded number of requests of this process wait for a job, so that the others always find a thread."""

    def __init__(self, jobs: JobStore, *, slots: int, max_wait_s: float) -> None:
        self._jobs = jobs
        self._slots = BoundedSemaphore(slots)
        self._max_wait_s = max_wait_s
        self.stopping: Callable[[], bool] = lambda: False  #: Set by the server: true once the process is to end.

    def wait(self, record: JobRecord, *, timeout_s: float) -> JobRecord:
        """Return the job once it is final, or as it stands when the time is over or no slot is free.

        Waiting is a preference, not a promise: the caller sees from the state whether to ask again.
        """
        if timeout_s <= 0 or record.state.final or not self._slots.acquire(blocking=False):
            return record
        try:
            return self._jobs.wait(record.id, timeout_s=min(timeout_s, self._max_wait_s), stopped=self.stopping)
        finally:
            self._slots.release()

    def enter(self) -> Callable[[], None] | None:
        """Take a slot for a stream of events; returns what gives it back, None where no slot is free."""
        if not self._slots.acquire(blocking=False):
            return None
        held = ExitStack()  # A slot that is given back twice would be two.
        held.callback(self._slots.release)
        return held.close


def wait_gate() -> WaitGate:
    """Return the gate of the app that handles the current request."""
    return cast(WaitGate, current_app.extensions[EXTENSION])
