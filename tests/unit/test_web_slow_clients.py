"""How requests are collected before a thread takes them: what is whole, what is an upload, and how much is held."""

import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from gunicorn.http.wsgi import FileWrapper, Response
from gunicorn.workers.gthread import TConn

from lookalike_web import gunicorn_conf, slow_clients
from lookalike_web.slow_clients import ARRIVAL_S, MIN_BYTES_PER_S, UNSAID_BYTES, Arrival, PatientWorker

HEAD = b"POST /v1/ingests HTTP/1.1\r\nHost: localhost\r\n"


def arrived(text: bytes) -> Arrival:
    arrival = Arrival(None, bytearray(text))
    arrival.look()
    return arrival


@pytest.mark.parametrize("length", [b"900", b" 900 ", b"\t900", b"0" * 30 + b"900"])
def test_a_length_that_gunicorn_takes_is_waited_for_however_it_is_written(length: bytes) -> None:
    head = HEAD + b"Content-Length:" + length + b"\r\n\r\n"
    assert not arrived(head + b"{").is_whole
    assert arrived(head + bytes(900)).is_whole


@pytest.mark.parametrize("length", [b"9" * 30, b"9" * 5000, b"+5", b"5 5"])
def test_what_has_a_length_that_cannot_be_read_never_counts_as_whole(length: bytes) -> None:
    arrival = arrived(HEAD + b"Content-Length:" + length + b"\r\n\r\n")
    assert arrival.is_upload
    assert not arrival.is_whole


@pytest.mark.parametrize(
    ("said", "body_bytes"),
    [
        (b"Content-Length: 40000000\r\n", 40_000_000),
        (b"Expect: 100-continue\r\nContent-Length: 40000000\r\n", 40_000_000),
        (b"Transfer-Encoding: chunked\r\n", UNSAID_BYTES),
    ],
)
def test_an_upload_has_the_time_its_size_needs_however_it_is_announced(said: bytes, body_bytes: int) -> None:
    arrival = arrived(HEAD + said + b"\r\n")
    assert arrival.is_upload
    assert arrival.deadline == arrival.begun + ARRIVAL_S + body_bytes / MIN_BYTES_PER_S


class CollectingWorker(PatientWorker):
    """A worker that notes what it would give to a thread."""

    def __init__(self) -> None:
        super().__init__(1, 1, [], None, 30, Config(), None)
        self.poller = selectors.DefaultSelector()
        self.submitted: list[bytes] = []

    def _submit(self, arrival: Arrival) -> None:
        self.submitted.append(bytes(arrival.received))

    def connect(self, stack: ExitStack) -> socket.socket:
        """Accept a client."""
        ours, client = (stack.enter_context(end) for end in socket.socketpair())
        client.setblocking(False)
        self.nr_conns += 1
        self.enqueue_req(TConn(self.cfg, ours, None, None))
        return client

    def turn(self) -> None:
        """Do what there is to do."""
        while events := self.poller.select(0):
            for key, _ in events:
                key.data(key.fileobj)

    @property
    def held_bytes(self) -> int:
        """Of all clients that have no thread yet."""
        return sum(len(arrival.received) for arrival in (*self._arrivals.values(), *self._waiting))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[CollectingWorker]:
    monkeypatch.setattr(slow_clients, "ALL_COLLECTED_BYTES", 1 << 20)
    made = CollectingWorker()
    made._upload_slots = 0  # All threads for uploads are busy.
    yield made
    made.poller.close()
    made.tmp.close()


def send(worker: CollectingWorker, client: socket.socket, data: bytes) -> None:
    """Send what the other end takes."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[client.send(rest) :]
        except BlockingIOError:
            before = worker.held_bytes
            worker.turn()
            if worker.held_bytes == before:
                return
        except BrokenPipeError:
            return


@pytest.mark.parametrize(
    "beginning", [HEAD + b"Content-Length: 900000\r\n\r\n", HEAD + b"X-Long: "], ids=["bodies", "heads"]
)
def test_many_large_requests_together_take_little_memory(worker: CollectingWorker, beginning: bytes) -> None:
    clients = 12
    with ExitStack() as stack:
        for _ in range(clients):
            send(worker, worker.connect(stack), beginning + b"a" * 800_000)
            worker.turn()
        assert worker.held_bytes <= slow_clients.ALL_COLLECTED_BYTES + clients * 2 * (1 << 16)


def test_an_upload_that_gets_no_turn_is_told_to_come_again(
    worker: CollectingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        client = worker.connect(stack)
        send(worker, client, HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        worker.turn()
        worker.murder_pending()
        with pytest.raises(BlockingIOError):
            client.recv(1)
        monkeypatch.setattr(slow_clients, "TURN_S", -1.0)
        worker.murder_pending()
        answer = client.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After" in answer
        assert b'"busy"' in answer
        assert client.recv(1) == b""
        assert (worker.nr_conns, worker.submitted, worker.held_bytes) == (0, [], 0)


def test_of_requests_that_were_sent_ahead_no_more_is_read_than_the_next_one_needs(worker: CollectingWorker) -> None:
    ask = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ours, client = socket.socketpair()
    with ours, client:
        client.sendall(ask)
        connection = TConn(worker.cfg, ours, ("127.0.0.1", 1), None)
        connection.parser = get_parser(worker.cfg, ours, connection.client)
        connection.parser.unreader.unread(2 * ask)
        worker.enqueue_req(connection)
        assert worker.submitted == [2 * ask]
        assert ours.recv(1 << 10) == ask


def test_a_client_that_takes_nothing_of_a_file_is_given_up(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as made:
        made.truncate(64 << 20)
    config = Config()
    config.set("sendfile", gunicorn_conf.sendfile)
    ended: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with client, file.open("rb") as opened, ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 50_000))
        request = SimpleNamespace(version=(1, 1), method="GET", headers=[], should_close=lambda: True)
        response = Response(request, ours, config)
        response.start_response("200 OK", [("Content-Length", str(64 << 20))])

        def answer() -> None:
            try:
                response.write_file(FileWrapper(opened))
            except OSError as error:
                ended.append(error)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        thread.join(10)
        client.close()  # Lets go whoever still waits.
        thread.join()
    assert [type(error) for error in ended] == [BlockingIOError]


def test_a_master_that_makes_worker_after_worker_keeps_no_file_of_theirs_open() -> None:
    process = psutil.Process()
    before = process.num_fds()
    for _ in range(3):
        PatientWorker(1, 1, [], None, 30, Config(), None).tmp.close()  # As it does with a worker that has ended.
    assert process.num_fds() == before
