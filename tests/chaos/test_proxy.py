"""The proxy that the chaos suite puts before servers: each of its faults is the one it is named after."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from proxy import Proxy, Way
from service import until

#: Short enough to wait for in vain.
SILENCE_S = 0.3
DELAY_S = 0.2


class Echo(socketserver.BaseRequestHandler):
    """Answers every message with itself, and writes down what it heard."""

    heard: list[bytes]

    def handle(self) -> None:
        with suppress(OSError):  # The proxy's faults are also this end's.
            while data := self.request.recv(1 << 16):
                self.heard.append(data)
                self.request.sendall(data)


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def proxy(heard: list[bytes]) -> Iterator[Proxy]:
    handler = type("Echo", (Echo,), {"heard": heard})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with Proxy(server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with closing(connect(proxy)) as client:
        assert ask(client, b"are you there") == b"are you there"
        yield client


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=60)


def ask(client: socket.socket, message: bytes) -> bytes:
    client.sendall(message)
    return client.recv(1 << 16)


def seconds_to_ask(client: socket.socket) -> float:
    began = time.monotonic()
    assert ask(client, b"how long") == b"how long"
    return time.monotonic() - began


def is_silent(client: socket.socket, message: bytes) -> bool:
    client.settimeout(SILENCE_S)
    try:
        ask(client, message)
    except TimeoutError:
        return True
    finally:
        client.settimeout(60)
    return False


def test_it_passes_on_until_told_otherwise(client: socket.socket) -> None:
    client.sendall(bytes(1 << 20))
    received = 0
    while received < 1 << 20:
        received += len(client.recv(1 << 16))
    assert received == 1 << 20


def test_the_end_of_a_stream_is_passed_on(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""


def test_it_delays_both_ways(proxy: Proxy, client: socket.socket) -> None:
    proxy.delay(DELAY_S)
    assert seconds_to_ask(client) >= 2 * DELAY_S
    proxy.heal()
    # However busy the machine is: of many answers one comes sooner than a delay lets it.
    assert min(seconds_to_ask(client) for _ in range(20)) < DELAY_S


def test_a_cut_resets_old_connections_and_new_ones_until_it_is_healed(proxy: Proxy, client: socket.socket) -> None:
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    # The reset may arrive while the kernel still connects, or at the first read.
    with pytest.raises(ConnectionResetError), closing(connect(proxy)) as second:
        second.recv(1)
    proxy.heal()
    with closing(connect(proxy)) as third:
        assert ask(third, b"again") == b"again"


def test_one_reset_costs_the_connections_there_are(proxy: Proxy, client: socket.socket) -> None:
    proxy.reset_once()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with closing(connect(proxy)) as second:
        assert ask(second, b"again") == b"again"


def test_what_is_swallowed_stays_lost_and_its_connection_dead_although_never_closed(
    proxy: Proxy, client: socket.socket, heard: list[bytes]
) -> None:
    proxy.swallow()
    assert is_silent(client, b"lost")
    with closing(connect(proxy)) as second:
        assert is_silent(second, b"lost as well")
        proxy.heal()
        assert is_silent(client, b"still dead")
        assert is_silent(second, b"still dead")
    with closing(connect(proxy)) as third:
        assert ask(third, b"alive") == b"alive"
    assert heard == [b"are you there", b"alive"]


def test_replies_alone_can_be_swallowed(proxy: Proxy, client: socket.socket, heard: list[bytes]) -> None:
    proxy.swallow(Way.REPLIES)
    assert is_silent(client, b"done and not said")
    until(lambda: heard[-1] == b"done and not said", 60)


def test_the_reply_to_one_marked_request_is_lost_after_it_was_done(
    proxy: Proxy, client: socket.socket, heard: list[bytes]
) -> None:
    dropped = proxy.drop_reply(b"upsert", hold_s=0.1)
    assert ask(client, b"query") == b"query"
    client.sendall(b"please ups")  # A mark may come in two pieces.
    assert client.recv(100) == b"please ups"
    client.sendall(b"ert")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert dropped.wait(60)
    assert heard[-1] == b"ert"
    with closing(connect(proxy)) as second:
        assert ask(second, b"upsert") == b"upsert", "only the next one is lost"
