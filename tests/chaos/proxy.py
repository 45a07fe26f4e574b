"""A TCP proxy that stands before a server and misbehaves when a test tells it to.

It knows nothing of what it carries. It runs in a thread of its own, one event loop for all connections; the methods
may be called from any other thread, and have taken effect when they return.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Final, Self

_CHUNK_BYTES: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST instead of FIN.


class Way(Enum):
    """A direction of travel."""

    REQUESTS = auto()  #: From the client to the server.
    REPLIES = auto()


@dataclass
class Trap:
    """Waits for a request that contains `mark`, and loses the reply to it."""

    mark: bytes
    hold_s: float  #: How long replies are swallowed from the first one on, should that not be the one, before the cut.
    sprung: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    deaf: frozenset[Way] = frozenset()  #: Ways on which nothing arrives any more.
    tail: bytes = b""  #: The end of the last request, in which a mark may have begun.
    trap: Trap | None = None  #: Its mark has passed here; the reply has not come yet.

    def reset(self) -> None:
        """Cut it, so that both ends hear of it at once."""
        for end in (self.client, self.server):
            _reset(end)


def _reset(end: asyncio.StreamWriter) -> None:
    opened: socket.socket | None = end.get_extra_info("socket")
    if opened and not end.transport.is_closing():
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.transport.abort()


class Proxy:
    """Listens on `port` of the loopback and passes on to `target_port`, until it is told otherwise."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay_s = 0.0
        self._refusing = False
        self._deaf: frozenset[Way] = frozenset()
        self._trap: Trap | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result(60)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    # --- What tests tell it ---

    def heal(self) -> None:
        """Pass everything on again. What was swallowed stays lost, and a connection that went deaf stays so."""
        self._now(self._heal)

    def delay(self, seconds: float) -> None:
        """Hold everything back for a while, in both directions."""
        self._now(lambda: setattr(self, "_delay_s", seconds))

    def cut(self) -> None:
        """Reset all connections, and every new one, until healed."""

        def cut() -> None:
            self._refusing = True
            self._reset_all()

        self._now(cut)

    def reset_once(self) -> None:
        """Reset the connections there are; new ones are passed on."""
        self._now(self._reset_all)

    def swallow(self, *ways: Way) -> None:
        """Accept and deliver nothing in these directions, by default both: half-open connections, old ones and new."""

        def swallow() -> None:
            self._deaf = frozenset(ways or Way)
            for connection in self._connections:
                connection.deaf |= self._deaf

        self._now(swallow)

    def drop_reply(self, mark: bytes, *, hold_s: float = 0.5) -> threading.Event:
        """Lose the reply to the next request that contains `mark`, then reset its connection.

        The event is set once that has happened; then everything passes again.
        """
        trap = Trap(mark, hold_s)
        self._now(lambda: setattr(self, "_trap", trap))
        return trap.sprung

    # --- In its thread ---

    def _now(self, change: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(run)
        if not done.wait(60):
            raise TimeoutError("the proxy does not answer")

    def _heal(self) -> None:
        self._delay_s, self._refusing, self._deaf, self._trap = 0.0, False, frozenset(), None

    def _reset_all(self) -> None:
        for connection in self._connections:
            connection.reset()

    async def _close(self) -> None:
        self._server.close()
        self._reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            _reset(writer)
        finally:
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        answers, server = await asyncio.open_connection("127.0.0.1", self._target_port)
        connection = _Connection(writer, server, self._deaf)
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._pump(connection, Way.REQUESTS, reader, server),
                self._pump(connection, Way.REPLIES, answers, writer),
            )
        finally:
            self._connections.discard(connection)
            for end in (writer, server):
                end.transport.abort()

    async def _pump(
        self, connection: _Connection, way: Way, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if way is Way.REPLIES and connection.trap:
                    self._spring(connection, connection.trap)
                if way in connection.deaf:
                    continue
                if way is Way.REQUESTS and self._trap:
                    self._look(connection, self._trap, data)
                target.write(data)
                await target.drain()
            if way not in connection.deaf and target.can_write_eof():
                target.write_eof()

    def _look(self, connection: _Connection, trap: Trap, data: bytes) -> None:
        seen = connection.tail + data
        connection.tail = seen[-len(trap.mark) :]
        if trap.mark in seen:
            self._trap = None
            connection.deaf |= {Way.REPLIES}
            connection.trap = trap

    def _spring(self, connection: _Connection, trap: Trap) -> None:
        connection.trap = None

        def cut() -> None:
            connection.reset()
            trap.sprung.set()

        self._loop.call_later(trap.hold_s, cut)
