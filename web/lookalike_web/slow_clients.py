"""Requests that arrive slowly hold a connection, and no thread.

gunicorn's threaded worker gives a connection to a thread as soon as its first byte is there, and the thread then waits
for the rest: as many clients that send half a request as there are threads, and nobody else is served. Here the
worker's one loop collects a request first, its body too where that is not large, and only then gives it to a thread.
What is too large to be collected is an upload: it is read by a thread as it comes, few of them at a time.

gunicorn's loop also waits, up to two seconds, for each client to take its leave, and serves nobody meanwhile. Here it
looks after them beside everything else.
"""

import os
import re
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from selectors import EVENT_READ
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker

from lookalike_web.refusing import OUT_OF_FILES, busy_bytes

ARRIVAL_S: Final = 10.0  #: By when a request has to be here; a larger one is given longer, at `MIN_BYTES_PER_S`.
MIN_BYTES_PER_S: Final = 16 << 10
COLLECTED_BYTES: Final = 4 << 20  #: The largest request that is collected.
ALL_COLLECTED_BYTES: Final = 32 << 20  #: Of all requests that wait for a thread; what comes then is an upload.
UNSAID_BYTES: Final = 64 << 20  #: What a body that does not say its length is given time for.
SILENCE_S: Final = 30  #: What an upload may pause, and a client may take no byte of its answer.
TURN_S: Final = 60.0  #: What an upload waits for a thread at most; then its client is to send it again later.
UPLOAD_SHARE: Final = 8  #: One thread in so many reads uploads; long-polls may hold three quarters of them.

LEAVE_S: Final = 2.0  #: What a client whose connection is at its end is given to close its side.
_LEAVE_BYTES: Final = (
    1 << 16
)  #: What it may have been sending still; to close before that is read would cut our answer.
_HEAD_BYTES: Final = 1 << 20  #: More than gunicorn accepts of any head.
_RECEIVE_BYTES: Final = 1 << 16
_LENGTH: Final = re.compile(rb"^content-length:([^\r]*)\r$", re.IGNORECASE | re.MULTILINE)
_LENGTH_DIGITS: Final = 18
_CHUNKED: Final = re.compile(rb"^transfer-encoding:", re.IGNORECASE | re.MULTILINE)
_NO_TURN: Final = busy_bytes("busy", "Too many uploads wait to be read at the moment. Send it again later.")
_NO_FILES: Final = busy_bytes(
    "overloaded", "This service has as many connections and files open as it may. Send the request again later."
)
_EXPECT: Final = re.compile(rb"^expect:", re.IGNORECASE | re.MULTILINE)


@dataclass(eq=False)
class Arrival:
    """A request on its way in."""

    conn: Any  #: gunicorn's connection.
    received: bytearray
    begun: float = field(default_factory=time.monotonic)
    waiting_since: float = 0.0  #: When it began to wait for a thread that reads uploads.
    head_bytes: int = 0  #: Of its head with the empty line, 0 until that has come.
    body_bytes: int = 0  #: Of its body, as the head says; `UNSAID_BYTES` where it does not.
    sets_pace: bool = False  #: Whether its body has to be read as it comes, since its end or its client waits for us.

    def look(self) -> None:
        """Take in what the head says, once it is there."""
        end = self.received.find(b"\r\n\r\n")
        if self.head_bytes or end < 0:
            return
        self.head_bytes = end + 4
        head = bytes(self.received[: end + 2])
        length = _length(head)
        self.body_bytes = UNSAID_BYTES if length is None else length
        self.sets_pace = length is None or _EXPECT.search(head) is not None

    @property
    def deadline(self) -> float:
        """When it is late, by the monotonic clock."""
        return self.begun + ARRIVAL_S + self.body_bytes / MIN_BYTES_PER_S

    @property
    def is_upload(self) -> bool:
        """Whether it is not to be collected, for its size or because its client waits for a word first."""
        return self.head_bytes > 0 and (self.sets_pace or self.head_bytes + self.body_bytes > COLLECTED_BYTES)

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here."""
        if not self.head_bytes or self.sets_pace:
            return False
        return len(self.received) >= self.head_bytes + self.body_bytes


def _length(head: bytes) -> int | None:
    """Return the bytes of a request's body; None where its head does not say, or not as we could read it."""
    if _CHUNKED.search(head):
        return None
    found = _LENGTH.search(head)
    if found is None:
        return 0
    digits = found[1].strip(b" \t").lstrip(b"0") or b"0"
    return int(digits) if digits.isdigit() and len(digits) <= _LENGTH_DIGITS else None


class PatientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn publishes no types.
    """A `ThreadWorker` whose threads see requests that are there, and few others. All of it runs in its one loop."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._arrivals: dict[Any, Arrival] = {}
        self._uploads: dict[Any, float] = {}  #: Those that a thread reads, and by when they have to be through.
        self._waiting: deque[Arrival] = deque()  #: Uploads that no thread reads yet.
        self._leaving: dict[Any, float] = {}  #: Connections that are at their end, and by when they are closed.
        self._upload_slots = max(1, self.cfg.threads // UPLOAD_SHARE)
        self._spare: int | None = None  #: A file that is given up to answer once none is to be had.

    # --- What gunicorn calls ---

    def init_process(self) -> None:
        """Begin to serve. Opened here and not before: gunicorn makes workers in its master, which never closes it."""
        self._keep_spare()
        super().init_process()

    def accept(self, listener: Any) -> None:
        """Accept a connection; where no more files can be opened, turn its client away instead of ending."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in OUT_OF_FILES:
                raise
            self.log.warning("a client was turned away: %s", error.strerror)
            self._turn_away(listener)

    def enqueue_req(self, conn: Any) -> None:
        """Collect a request from a connection that is new, or that has something to read again."""
        ahead = conn.parser.unreader.take_buffered() if conn.parser else b""
        arrival = Arrival(conn, bytearray(ahead))
        conn.sock.setblocking(False)
        conn.close = partial(self._close, conn)
        self._arrivals[conn] = arrival
        self.poller.register(conn.sock, EVENT_READ, partial(self._receive, arrival))
        arrival.look()
        if arrival.is_whole:  # Sent ahead. To read on for each would pile up what its client sends behind.
            self._leave(arrival)
            self._submit(arrival)
        else:
            self._receive(arrival)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Give an upload's slot to the next."""
        self.free_upload(conn)
        super().finish_request(conn, fs)

    def free_upload(self, conn: Any) -> None:
        """Take back the slot of an upload that is read, if this is one."""
        if self._uploads.pop(conn, None) is not None:
            self._start_uploads()

    def murder_pending(self) -> None:
        """Close what did not arrive in time; called about once a second."""
        super().murder_pending()
        now = time.monotonic()
        for arrival in list(self._arrivals.values()):
            unasked = not self.alive and not arrival.received
            if unasked or now > arrival.deadline:
                self._leave(arrival)
                self._drop(arrival.conn)
        for conn, deadline in self._uploads.items():
            if now > deadline:
                with suppress(OSError):  # Its thread finds the end of the stream, and comes back by itself.
                    conn.sock.shutdown(socket.SHUT_RD)

        for arrival in [arrival for arrival in self._waiting if now > arrival.waiting_since + TURN_S]:
            self._waiting.remove(arrival)
            self._refuse(arrival.conn, _NO_TURN)
        for conn in [conn for conn, deadline in self._leaving.items() if now > deadline]:
            self._end(conn)

    # --- Receiving ---

    def _receive(self, arrival: Arrival, _: object = None) -> None:
        try:
            data = arrival.conn.sock.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            data = None
        except OSError:
            data = b""
        if data:
            arrival.received += data
            arrival.look()
        ended = data == b""
        too_much = self._is_too_much(arrival)
        if arrival.is_whole or arrival.is_upload or (ended and arrival.received) or (too_much and arrival.head_bytes):
            self._leave(arrival)
            self._pass_on(arrival)
        elif ended or too_much or (not arrival.head_bytes and len(arrival.received) > _HEAD_BYTES):
            self._leave(arrival)
            self._drop(arrival.conn)

    def _is_too_much(self, arrival: Arrival) -> bool:
        if len(arrival.received) <= _RECEIVE_BYTES:
            return False
        held = (*self._arrivals.values(), *self._waiting)
        return sum(len(other.received) for other in held) > ALL_COLLECTED_BYTES

    def _leave(self, arrival: Arrival) -> None:
        del self._arrivals[arrival.conn]
        self.poller.unregister(arrival.conn.sock)

    def _drop(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()

    def _refuse(self, conn: Any, answer: bytes) -> None:
        with suppress(OSError):  # Its client is gone, or takes nothing.
            conn.sock.send(answer, socket.MSG_DONTWAIT)
        self.nr_conns -= 1
        conn.close(graceful=True)

    def _turn_away(self, listener: Any) -> None:
        """Answer a client with the file that is kept for that, and let go of connections that nobody uses."""
        self.murder_keepalived(force=True)
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        with suppress(OSError):  # Another thread was first to take the file; the client is accepted later.
            client, _ = listener.accept()
            with client:
                client.setblocking(False)
                client.send(_NO_FILES)
                client.shutdown(socket.SHUT_WR)
                client.recv(_RECEIVE_BYTES)  # To close before what it sent is read would cut the answer.
        with suppress(OSError):
            self._keep_spare()

    def _keep_spare(self) -> None:
        self._spare = os.open(os.devnull, os.O_RDONLY)

    # --- Closing ---

    def _close(self, conn: Any, graceful: bool = False) -> None:
        """Stand in for a connection's `close`, which waits for the client."""
        if not graceful or not self.alive:
            type(conn).close(conn, graceful=graceful)
            return
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            type(conn).close(conn)
            return
        self._leaving[conn] = time.monotonic() + LEAVE_S
        self.poller.register(conn.sock, EVENT_READ, partial(self._take_leave, conn, bytearray()))

    def _take_leave(self, conn: Any, ignored: bytearray, _: object) -> None:
        try:
            data = conn.sock.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        ignored += data
        if not data or len(ignored) > _LEAVE_BYTES:
            self._end(conn)

    def _end(self, conn: Any) -> None:
        del self._leaving[conn]
        self.poller.unregister(conn.sock)
        type(conn).close(conn)

    # --- Passing on ---

    def _pass_on(self, arrival: Arrival) -> None:
        if arrival.is_whole or not arrival.head_bytes:
            self._submit(arrival)
        else:
            arrival.waiting_since = time.monotonic()
            self._waiting.append(arrival)
            self._start_uploads()

    def _start_uploads(self) -> None:
        while self._waiting and len(self._uploads) < self._upload_slots:
            arrival = self._waiting.popleft()
            arrival.begun = time.monotonic()  # It was not its client that waited.
            self._uploads[arrival.conn] = arrival.deadline
            self._submit(arrival)

    def _submit(self, arrival: Arrival) -> None:
        conn = arrival.conn
        silence = struct.pack("ll", SILENCE_S, 0)
        try:
            conn.init()
            conn.sock.setblocking(True)
            # By the kernel, because gunicorn and the app set and unset the socket's own time limit.
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silence)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, silence)
        except OSError:
            self._uploads.pop(conn, None)
            self._drop(conn)
            return
        conn.data_ready = True
        conn.parser.unreader.unread(bytes(arrival.received))
        super().enqueue_req(conn)
