"""Answers that are taken slowly: what is kept of them, how they go on, and when their clients are given up."""

import selectors
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response
from gunicorn.workers.gthread import PollableMethodQueue, TConn

from lookalike_web import slow_readers
from lookalike_web.slow_readers import SlowReaderWorker

PIECE = bytes(range(256)) * 512  #: 128 KiB
PIECES = 32


class Made:
    """What an app made: pieces, of which it is known how many were asked for, and whether they were let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(PIECES):
            self.asked += 1
            yield PIECE

    def close(self) -> None:
        self.closed = True


class AnsweringWorker(SlowReaderWorker):
    """A worker whose app answers every request alike, with threads of its own and a loop that is turned by hand."""

    def __init__(self) -> None:
        super().__init__(1, 1, [], None, 30, Config(), None)
        self.poller = selectors.DefaultSelector()
        self.method_queue = PollableMethodQueue()
        self.method_queue.init()
        self.poller.register(self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks)
        self.tpool = ThreadPoolExecutor(1)
        self.app = SimpleNamespace(wsgi=lambda: SimpleNamespace(wsgi_app=None))
        self.served: list[Any] = []

    def ask(self, stack: ExitStack) -> tuple[socket.socket, Made]:
        """Have a client ask for something; returns its end, and what the app made for it."""
        ours, client = (stack.enter_context(end) for end in socket.socketpair())
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        conn = TConn(self.cfg, ours, None, None)
        conn.parser = SimpleNamespace(finish_body=lambda **_: True, unreader=SimpleNamespace(buf=stack))
        self.nr_conns += 1
        made = Made()
        future = self.tpool.submit(self._answer, conn, made)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))
        return client, made

    def _answer(self, conn: TConn, made: Made) -> bool:
        outlet = slow_readers.Outlet(conn.sock)
        outlet.patience_s = 0.0
        request = SimpleNamespace(version=(1, 1), method="GET", headers=[], should_close=lambda: True)
        response = Response(request, outlet, self.cfg)
        app = slow_readers.made_as_taken(lambda _, start: start("200 OK", []) and made)
        for piece in app({"gunicorn.socket": outlet}, response.start_response):
            response.write(piece)
        raise AssertionError("a client that takes nothing took all")

    def turn(self) -> None:
        """Do what there is to do within a moment."""
        for key, _ in self.poller.select(0.05):
            key.data(key.fileobj)

    def turn_until_held(self, count: int) -> None:
        while len(self._unsent) != count:
            self.turn()


@pytest.fixture
def worker() -> Iterator[AnsweringWorker]:
    made = AnsweringWorker()
    yield made
    made.tpool.shutdown()
    made.method_queue.close()
    made.poller.close()
    made.tmp.close()


def body(answer: bytes) -> bytes:
    _, _, chunks = answer.partition(b"\r\n\r\n")
    whole = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        whole, chunks = whole + chunks[: int(size, 16)], chunks[int(size, 16) + 2 :]
    return whole


def test_no_more_of_an_answer_is_made_than_its_client_takes_and_in_the_end_it_has_all(worker: AnsweringWorker) -> None:
    with ExitStack() as stack:
        client, made = worker.ask(stack)
        worker.turn_until_held(1)
        for _ in range(5):
            worker.turn()
        assert made.asked <= 2, "nothing was taken"
        assert worker.tpool.submit(lambda: "free").result(60) == "free", "the only thread is not waiting for it"
        client.setblocking(False)
        received = b""
        while not made.closed or worker.nr_conns:
            worker.turn()
            try:
                received += client.recv(1 << 20)
            except BlockingIOError:
                continue
        client.setblocking(True)
        received += b"".join(iter(lambda: client.recv(1 << 20), b""))
        assert body(received) == PIECES * PIECE


def test_a_client_that_takes_too_little_is_hung_up_on_and_its_answer_let_go(
    worker: AnsweringWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        client, made = worker.ask(stack)
        worker.turn_until_held(1)
        worker.murder_pending()
        assert not made.closed
        monkeypatch.setattr(slow_readers, "SILENCE_S", -3600.0)
        worker.murder_pending()
        assert made.closed
        assert worker.nr_conns == 0
        assert len(b"".join(iter(lambda: client.recv(1 << 20), b""))) < PIECES * len(PIECE)


def test_a_client_that_hangs_up_is_let_go(worker: AnsweringWorker) -> None:
    with ExitStack() as stack:
        client, made = worker.ask(stack)
        worker.turn_until_held(1)
        client.close()
        worker.turn_until_held(0)
        assert made.closed
        assert worker.nr_conns == 0


def test_of_more_than_may_be_held_the_slowest_gives_way(
    worker: AnsweringWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_readers, "ALL_UNSENT_BYTES", 2 * len(PIECE) + len(PIECE) // 2)
    with ExitStack() as stack:
        asked = []
        for number in range(1, 3):
            asked.append(worker.ask(stack))
            worker.turn_until_held(number)
        asked.append(worker.ask(stack))
        while not asked[0][1].closed:
            worker.turn()
        assert [made.closed for _, made in asked] == [True, False, False]
        assert worker.nr_conns == 2
