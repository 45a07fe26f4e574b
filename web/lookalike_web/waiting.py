"""Long-polls and streams of events: how many may wait, for how long, and when they are let go.

A request that waits holds a thread while there are threads to spare, which answers soonest. The others are parked:
their thread is given back, and their connection waits for the job without one (`parking.py`). So however many wait,
each is answered once its job is final, and nobody asks again in vain.
"""

import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from threading import BoundedSemaphore
from typing import Final, Self, cast

from flask import Response, current_app, g, request

from lookalike.jobstore import JobStore
from lookalike.records import JobRecord

EXTENSION = "lookalike_waits"

#: A stopping process notices within this time that it should send its waiting clients away.
SLICE_S: Final = 1.0

#: A parked request looks at its job this often although it heard nothing. Each look takes a thread for a moment.
LOOK_AGAIN_S: Final = 10.0

_WAIT_PREFERENCE = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.IGNORECASE)


class Parked(BaseException):
    """A request gives its thread back until its job is final. Not an error: it passes everything that handles those."""

    def __init__(self, job_id: str, answer: Callable[[JobRecord], Response], *, until_s: float) -> None:
        """Park the current request; `until_s` is by the monotonic clock."""
        super().__init__(job_id)
        self.job_id = job_id
        self.answer = answer  #: Makes the response of the job.
        self.until_s = until_s
        self.leave: Callable[[], None] = lambda: None  #: Ends the subscription.
        self.request_id: str = g.request_id
        self.started: float = g.started
        self._lock = threading.Lock()
        self._woken = False
        self._on_wake: Callable[[], None] | None = None

    def alone(self) -> Self:
        """Return it without the stack it came up, whose frames hold the request's body and all that was made of it."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)

    def wake(self) -> None:
        """Have the request looked at, now or as soon as somebody asks for it. Of any number of calls, one counts."""
        with self._lock:
            if self._woken:
                return
            self._woken, on_wake = True, self._on_wake
        if on_wake:
            on_wake()

    def on_wake(self, call: Callable[[], None]) -> None:
        """Have `call` called by the first `wake`, at once if that has been."""
        with self._lock:
            self._on_wake, woken = call, self._woken
        if woken:
            call()


#: The parked request that the current thread goes on with.
resumed: ContextVar[Parked | None] = ContextVar("resumed", default=None)


def preferred_wait_s() -> int | None:
    """Return the seconds of the request's `Prefer: wait=` (RFC 7240), None where it states none."""
    found = _WAIT_PREFERENCE.search(",".join(request.headers.getlist("Prefer")))
    return int(found[1]) if found else None


class WaitGate:
    """Lets a bounded number of requests of this process hold a thread for a job, so that the others always find one."""

    def __init__(self, jobs: JobStore, *, slots: int, max_wait_s: float) -> None:
        self._jobs = jobs
        self._slots = BoundedSemaphore(slots)
        self._max_wait_s = max_wait_s
        self.stopping: Callable[[], bool] = lambda: False  #: Set by the server: true once the process is to end.
        self.parks = False  #: Set by a server that goes on with requests which raise `Parked`.

    def hold(self, record: JobRecord, answer: Callable[[JobRecord], Response], *, timeout_s: float) -> Response:
        """Answer with the job once it is final, or as it stands when the time is over or it cannot be waited for.

        Waiting is a preference, not a promise: the client sees from the state whether to ask again.
        """
        if timeout_s <= 0 or record.state.final:
            return answer(record)
        timeout_s = min(timeout_s, self._max_wait_s)
        if not self._slots.acquire(blocking=False):
            if not self.parks:
                return answer(record)
            return self._park(Parked(record.id, answer, until_s=time.monotonic() + timeout_s))
        try:
            record = self._jobs.wait(record.id, timeout_s=timeout_s, stopped=self.stopping)
        finally:
            self._slots.release()
        return answer(record)

    def resume(self, parked: Parked) -> Response:
        """Go on with a parked request in a thread: answer it, or park it anew."""
        parked.leave()
        again = Parked(parked.job_id, parked.answer, until_s=parked.until_s)
        return self._park(again)

    def _park(self, parked: Parked) -> Response:
        """Raise `Parked`, unless there is an answer already."""
        parked.leave = self._jobs.heed(parked.job_id, parked.wake)
        try:
            record = self._jobs.get(parked.job_id)  # What changes after this is heard.
        except BaseException:
            parked.leave()
            raise
        if record.state.final or self.stopping() or time.monotonic() >= parked.until_s:
            parked.leave()
            return parked.answer(record)
        raise parked

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
