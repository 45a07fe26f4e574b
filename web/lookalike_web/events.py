"""A job's progress as server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html.

A stream holds a thread, so it has an end: its client connects again, and says with Last-Event-ID what it knows.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final

from lookalike.errors import LookalikeError
from lookalike.jobstore import JobStore
from lookalike.records import JobRecord
from lookalike_web.presenting import job_url, present_job
from lookalike_web.waiting import SLICE_S

EVENT_STREAM: Final = "text/event-stream"

HEARTBEAT_S: Final = 15.0  #: Proxies take a connection that is silent for a minute for dead.
MIN_GAP_S: Final = 0.3  #: Between two events; what happens in between is one change.
_RECONNECT_MS: Final = 2000

#: What a list of jobs leaves out, too: it can be long, and does not change on the way or is there only at the end.
_LEFT_OUT: Final = {"request", "result"}


def known_version(last_event_id: str | None) -> int | None:
    """Read the header Last-Event-ID, None where it is none of ours."""
    if last_event_id and last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 18:
        return int(last_event_id)
    return None


class EventStream:
    """One client's stream about one job, as an iterator of bytes for the WSGI server."""

    def __init__(
        self, jobs: JobStore, record: JobRecord, *, known: int | None, life_s: float, gone: Callable[[], bool]
    ) -> None:
        """Begin with `record`, unless the client knows its version. `gone` tells that nobody listens any more."""
        self._jobs = jobs
        self._record = record
        self._known = known
        self._deadline = time.monotonic() + life_s
        self._gone = gone

    def __iter__(self) -> Iterator[bytes]:
        yield f"retry: {_RECONNECT_MS}\n\n".encode()
        sent_at = time.monotonic()
        place = self._record.progress.position
        while not self._gone() and time.monotonic() < self._deadline:
            # Its place in the queue changes with other jobs, and its version does not.
            if (self._record.version, self._record.progress.position) != (self._known, place):
                yield progress_event(self._record)
                self._known, place = self._record.version, self._record.progress.position
                sent_at = time.monotonic()
            if self._record.state.final:
                yield done_event(self._record)
                return
            if time.monotonic() - sent_at >= HEARTBEAT_S:
                yield b": still there\n\n"
                sent_at = time.monotonic()
            try:
                self._record = self._next(sent_at)
            except LookalikeError as error:
                # The client connects again, and is then answered with the error as such.
                yield f": {error.code}\n\n".encode()
                return

    def _next(self, sent_at: float) -> JobRecord:
        """Wait a moment for a change; one that comes right after the last event waits for its followers."""
        if (early := MIN_GAP_S - (time.monotonic() - sent_at)) > 0:
            time.sleep(early)
        left = max(0.0, self._deadline - time.monotonic())
        return self._jobs.watch(self._record.id, after=self._record.version, timeout_s=min(SLICE_S, left))


def progress_event(record: JobRecord) -> bytes:
    """Write how a job stands. The id of a final state comes with `done`, so that nobody misses that."""
    data = present_job(record).model_dump_json(exclude=_LEFT_OUT)
    number = "" if record.state.final else f"id: {record.version}\n"
    return f"event: progress\n{number}data: {data}\n\n".encode()


def done_event(record: JobRecord) -> bytes:
    """Write that a job is final, and where its record is."""
    data = json.dumps({"id": record.id, "state": record.state, "links": {"self": job_url(record.id)}})
    return f"event: done\nid: {record.version}\ndata: {data}\n\n".encode()


def hung_up(connection: socket.socket | None) -> bool:
    """Tell whether a client has closed its connection; without one to look at, it counts as there."""
    if connection is None:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
