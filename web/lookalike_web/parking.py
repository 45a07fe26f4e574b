"""Requests that wait for a job without a thread: the worker's side of `waiting.Parked`.

The app raises `Parked` where a request is to wait and no thread can be spared for it. The worker then keeps the parsed
request and its connection, gives the thread back, and goes on with the request in a thread once its job may be final,
its time is over, or the process ends. A client that hangs up meanwhile is let go.
"""

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from selectors import EVENT_READ
from typing import Any

from lookalike_web.slow_readers import SlowReaderWorker
from lookalike_web.waiting import LOOK_AGAIN_S, Parked, resumed


@dataclass(eq=False)
class _Stay:
    """A parked request, and when it is looked at although nobody woke it."""

    parked: Parked
    request: Any  #: gunicorn's, parsed, its body read.
    look_s: float
    listens: bool = True  #: Whether the loop would notice that its client is gone.


class ParkingWorker(SlowReaderWorker):
    """A `SlowReaderWorker` that goes on with requests which were parked. But for `handle`, it runs in its one loop."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._parked: dict[Any, _Stay] = {}  #: By connection.

    # --- What gunicorn calls ---

    def handle(self, conn: Any) -> Any:
        """Handle a request in a thread; the outcome of one that is to wait is where it stands."""
        try:
            return super().handle(conn)
        except Parked as parked:
            return conn.parked_request, parked.alone()

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Pass a request to the app, which may park it."""
        try:
            return super().handle_request(req, conn)
        except Parked:
            conn.parked_request = req  # `handle` does not know it.
            raise

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Park what is to wait; anything else is done with."""
        outcome = None if fs.cancelled() or fs.exception() else fs.result()
        if isinstance(outcome, tuple):
            self.free_upload(conn)
            self._park(conn, *outcome)
        else:
            super().finish_request(conn, fs)

    def murder_pending(self) -> None:
        """Look at parked requests whose time has come; called about once a second."""
        super().murder_pending()
        now_s = time.monotonic()
        for conn, stay in list(self._parked.items()):
            if not self.alive or now_s >= stay.look_s:
                self._resume(conn, stay)

    # --- Parking ---

    def _park(self, conn: Any, request: Any, parked: Parked) -> None:
        now_s = time.monotonic()
        stay = _Stay(parked, request, look_s=min(parked.until_s, now_s + LOOK_AGAIN_S))
        self._parked[conn] = stay
        conn.sock.setblocking(False)
        self.poller.register(conn.sock, EVENT_READ, partial(self._heard, conn, stay))
        parked.on_wake(lambda: self.method_queue.defer(self._resume, conn, stay))

    def _heard(self, conn: Any, stay: _Stay, _: object) -> None:
        """A client said something while it was to wait: either its next request, for later, or goodbye."""
        try:
            gone = conn.sock.recv(1, socket.MSG_PEEK) == b""
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            gone = True
        self._deafen(conn, stay)
        if gone:
            stay.parked.leave()
            del self._parked[conn]
            self.nr_conns -= 1
            conn.close()

    def _deafen(self, conn: Any, stay: _Stay) -> None:
        if stay.listens:
            stay.listens = False
            self.poller.unregister(conn.sock)

    def _resume(self, conn: Any, stay: _Stay) -> None:
        if self._parked.get(conn) is not stay:
            return  # It was looked at for another reason, or its client is gone.
        del self._parked[conn]
        self._deafen(conn, stay)
        with suppress(OSError):  # A thread that writes to a closed socket sees that for itself.
            conn.sock.setblocking(True)
        future = self.tpool.submit(self._go_on, conn, stay)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def _go_on(self, conn: Any, stay: _Stay) -> Any:
        """Answer a parked request, or park it anew. Runs in a thread."""
        token = resumed.set(stay.parked)
        stay.request.headers = [header for header in stay.request.headers if header[0] != "EXPECT"]  # It was told.
        try:
            return self._keepalive_after(conn, self.handle_request(stay.request, conn))
        except Parked as parked:
            return stay.request, parked.alone()
        except OSError as error:
            self.log.debug("a client was gone before its answer: %s", error)
        except Exception as error:  # noqa: BLE001 - as gunicorn does: whatever it is, its client is told
            self.handle_error(stay.request, conn.sock, conn.client, error)
        finally:
            resumed.reset(token)
        return False
