"""Answers that are taken slowly hold a connection, and no thread.

A thread that sends waits for its client, and as many clients that read slowly as there are threads keep everybody else
out. Here a thread waits for a client for a moment only. What the client has not taken by then is kept, no more of the
answer is made, the thread is given back, and the worker's one loop sends on as the client takes it. Once it has taken
what was made, a thread makes the next piece. This is so for every answer: files, ledgers, pictures, streams of events.

A client has to get on, though: one that takes nothing for `SILENCE_S`, or over time less than `MIN_BYTES_PER_S`, is
hung up on. What it has of a file it may go on from, with a Range.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from selectors import EVENT_WRITE
from types import SimpleNamespace
from typing import Any, Final

from lookalike_web.slow_clients import MIN_BYTES_PER_S, SILENCE_S, PatientWorker

PATIENCE_S: Final = 0.5  #: What threads wait for a client during one answer, all in all.
ALL_UNSENT_BYTES: Final = 64 << 20  #: Of all answers that were made and not taken; what is more costs the slowest.

WSGIApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Outlet:
    """Stands in for a client's socket: what the client does not take at once is kept, in order."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unsent: deque[memoryview] = deque()
        self.unsent_bytes = 0
        self.taken_bytes = 0
        self.patience_s = PATIENCE_S

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: bytes) -> None:
        """Send what the client takes, and keep the rest."""
        if data:
            self._unsent.append(memoryview(data))
            self.unsent_bytes += len(data)
            self.flush()

    def flush(self) -> bool:
        """Send what the client takes without a wait; tells whether that was all."""
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent[0], socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return False
            self.taken_bytes += sent
            self.unsent_bytes -= sent
            self._unsent[0] = self._unsent[0][sent:]
            if not self._unsent[0]:
                self._unsent.popleft()
        return True

    def drain(self) -> bool:
        """Send what the client takes within what is left of the patience with it; tells whether that was all."""
        writable = select.poll()
        writable.register(self._sock, select.POLLOUT)
        while not self.flush():
            if self.patience_s <= 0:
                return False
            begun = time.monotonic()
            writable.poll(self.patience_s * 1000)
            self.patience_s -= time.monotonic() - begun
        return True


class Answer:
    """What an app made for one request, of which no more is asked for than its client takes."""

    def __init__(self, made: Iterable[bytes], response: Any, outlet: Outlet) -> None:
        self._made = made
        self._pieces: Iterator[bytes] = iter(made)
        self._response = response  #: gunicorn's, which frames the pieces.
        self._outlet = outlet
        self._held = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._outlet.drain():
            self._held = True
            raise Unsent(self._outlet, self)
        return next(self._pieces)

    def close(self) -> None:
        """Let go of what the app made, unless it is to be gone on with; gunicorn calls this in either case."""
        if not self._held:
            self.end()

    def end(self) -> None:
        """Let go of what the app made."""
        if close := getattr(self._made, "close", None):
            close()

    def go_on(self) -> bool:
        """Make and send what is left of it; tells whether the connection lasts. Raises `Unsent`."""
        try:
            self._held = False
            for piece in self:
                self._response.write(piece)
            self._response.close()
        finally:
            self.close()
        return not self._response.should_close()


class Unsent(BaseException):
    """A thread is given back before all of its answer is taken. Not an error: it passes all that handles those."""

    def __init__(self, outlet: Outlet, answer: Answer | None = None, *, lasts: bool = False) -> None:
        """Hold what is in `outlet`, before `answer` goes on. Without one all is made, and `lasts` is what is next."""
        super().__init__(outlet.unsent_bytes)
        self.outlet = outlet
        self.answer = answer
        self.lasts = lasts
        self._began_s = self._moved_s = time.monotonic()
        self._taken_bytes = outlet.taken_bytes

    def alone(self) -> "Unsent":
        """Return it without the stack it came up."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)

    def send(self) -> bool:
        """Send what the client takes now; tells whether that was all. Raises `OSError` for one that is gone."""
        before = self.outlet.taken_bytes
        is_all = self.outlet.flush()
        if self.outlet.taken_bytes > before:
            self._moved_s = time.monotonic()
        return is_all

    def is_overdue(self, now_s: float) -> bool:
        """Tell whether the client takes too little."""
        taken_bytes = self.outlet.taken_bytes - self._taken_bytes
        allowed_s = SILENCE_S + taken_bytes / MIN_BYTES_PER_S
        return now_s - self._moved_s > SILENCE_S or now_s - self._began_s > allowed_s

    @property
    def silent_since_s(self) -> float:
        """When its client last took something."""
        return self._moved_s

    def go_on(self) -> bool:
        """Go on once all is sent; tells whether the connection lasts. Raises `Unsent`. Runs in a thread."""
        if self.answer is None:
            return self.lasts
        lasts = self.answer.go_on()
        return _finished(self.outlet, lasts)

    def give_up(self) -> None:
        """Let go of what the app made."""
        if self.answer is not None:
            self.answer.end()


class SlowReaderWorker(PatientWorker):
    """A `PatientWorker` whose threads do not wait for who takes an answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unsent: dict[Any, Unsent] = {}  #: By connection.

    # --- What gunicorn calls ---

    def load_wsgi(self) -> None:
        """Load the app, and have its answers made piece by piece as they are taken."""
        super().load_wsgi()
        self.wsgi.wsgi_app = made_as_taken(self.wsgi.wsgi_app)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request in a thread; raises `Unsent` where its client is slow."""
        if self.cfg.is_ssl:  # Its sockets have no sending without a wait.
            return super().handle_request(req, conn)
        outlet = Outlet(conn.sock)
        lasts = super().handle_request(req, SimpleNamespace(sock=outlet, client=conn.client, server=conn.server))
        return _finished(outlet, lasts)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Hold an answer that is not taken yet; anything else is done with."""
        ended = None if fs.cancelled() else fs.exception()
        if isinstance(ended, Unsent):
            self.free_upload(conn)
            self._hold(conn, ended.alone())
        else:
            super().finish_request(conn, fs)

    def murder_pending(self) -> None:
        """Hang up on clients that take too little; called about once a second."""
        super().murder_pending()
        now_s = time.monotonic()
        for conn, unsent in list(self._unsent.items()):
            if unsent.is_overdue(now_s):
                self._give_up(conn, unsent)

    # --- Sending ---

    def _hold(self, conn: Any, unsent: Unsent) -> None:
        unsent.outlet.patience_s = 0.0  # It is known to be slow.
        self._unsent[conn] = unsent
        conn.sock.setblocking(False)
        self.poller.register(conn.sock, EVENT_WRITE, partial(self._send_on, conn, unsent))
        while sum(other.outlet.unsent_bytes for other in self._unsent.values()) > ALL_UNSENT_BYTES:
            self._give_up(*min(self._unsent.items(), key=lambda item: item[1].silent_since_s))

    def _send_on(self, conn: Any, unsent: Unsent, _: object) -> None:
        try:
            is_all = unsent.send()
        except OSError:
            self._give_up(conn, unsent)
            return
        if is_all:
            self._let_go(conn)
            with suppress(OSError):  # A thread that writes to a closed socket sees that for itself.
                conn.sock.setblocking(True)
            future = self.tpool.submit(self._make_on, conn, unsent)
            future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def _make_on(self, conn: Any, unsent: Unsent) -> Any:
        """Make the next piece of an answer. Runs in a thread."""
        try:
            return self._keepalive_after(conn, unsent.go_on())
        except OSError as error:
            self.log.debug("a client was gone before the end of its answer: %s", error)
        except Exception:
            # Its head is sent, so all that is left to say is that it ends here.
            self.log.exception("an answer broke off")
        return False

    def _let_go(self, conn: Any) -> None:
        del self._unsent[conn]
        self.poller.unregister(conn.sock)

    def _give_up(self, conn: Any, unsent: Unsent) -> None:
        self._let_go(conn)
        try:
            unsent.give_up()
        except Exception:  # It is the app's; this loop serves everybody else.
            self.log.exception("what was left of an answer could not be let go of")
        self._drop(conn)


def made_as_taken(app: WSGIApp) -> WSGIApp:
    """Wrap an app, so that the pieces of its answers are made as an `Outlet` is rid of those before."""

    def call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        made, outlet = app(environ, start_response), environ.get("gunicorn.socket")
        # gunicorn passes a method of what frames the answer.
        return Answer(made, start_response.__self__, outlet) if isinstance(outlet, Outlet) else made

    return call


def _finished(outlet: Outlet, lasts: bool) -> bool:
    """Return `lasts` once all of an answer is sent; raises `Unsent` where it is made, and not all of it taken."""
    if not outlet.drain():
        raise Unsent(outlet, lasts=lasts)
    return lasts
