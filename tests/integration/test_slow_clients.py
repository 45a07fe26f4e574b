"""Clients that are slow on purpose, before the front end as it is deployed: everybody else is served meanwhile."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx2
import pytest

from bad_files import jpeg
from front_end import FOLDER, FrontEnd, running
from lookalike.records import JobState

THREADS = 8  #: As `front_end` runs it.

HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\nHost: loc"
POST = b"POST /v1/ingests HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
ALL_BUT_THE_END = POST + b"application/json\r\nContent-Length: 900\r\n\r\n{"
UPLOAD = POST + b"multipart/form-data; boundary=x\r\nContent-Length: 20000000\r\n\r\n--x\r\n"
NO_REQUEST = b"NONSENSE\r\n\r\n"  # It is refused at once, and its client stays.
WITHOUT_A_LENGTH = UPLOAD.replace(b"Content-Length: 20000000", b"Transfer-Encoding: chunked").replace(
    b"--x", b"3\r\n--x"
)


@pytest.fixture(scope="module")
def front_end(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    with running(tmp_path_factory.mktemp("slow") / "web", redis_server) as front_end:
        yield front_end


def slow(front_end: FrontEnd, beginning: bytes) -> socket.socket:
    """A client that begins a request and does not go on."""
    connection = socket.create_connection(("127.0.0.1", front_end.port), timeout=120)
    connection.sendall(beginning)
    return connection


def assert_served(front_end: FrontEnd) -> None:
    assert front_end.http.get("/healthz").status_code == 200
    submitted = front_end.http.post("/v1/ingests", json=FOLDER)
    assert submitted.status_code == 202, submitted.text
    uploaded = front_end.http.post("/v1/ingests", files=[("image", ("a.jpg", jpeg()))])
    assert uploaded.status_code == 202, uploaded.text
    job = front_end.http.get(f"/v1/jobs/{submitted.json()['id']}").json()
    assert job["state"] == JobState.QUEUED


@pytest.mark.parametrize(
    "beginning",
    [b"", HALF_A_HEAD, ALL_BUT_THE_END, UPLOAD, WITHOUT_A_LENGTH, NO_REQUEST],
    ids=["nothing", "half a head", "a body but its end", "uploads", "uploads without a length", "answered, not left"],
)
def test_clients_that_send_slowly_hold_no_thread_that_others_need(front_end: FrontEnd, beginning: bytes) -> None:
    with ExitStack() as open_ones:
        for _ in range(4 * THREADS):
            open_ones.enter_context(closing(slow(front_end, beginning)))
        assert_served(front_end)
        with httpx2.Client(base_url=str(front_end.http.base_url), timeout=60) as newcomer:
            assert newcomer.get("/healthz").status_code == 200


def test_what_does_not_arrive_in_time_is_hung_up_on(front_end: FrontEnd) -> None:
    with ExitStack() as open_ones:
        late = [open_ones.enter_context(closing(slow(front_end, said))) for said in (b"", HALF_A_HEAD, ALL_BUT_THE_END)]
        assert [connection.recv(1) for connection in late] == [b"", b"", b""]
    assert_served(front_end)


def test_a_request_that_comes_byte_by_byte_is_answered(front_end: FrontEnd) -> None:
    body = json.dumps(FOLDER).encode()
    head = (
        f"POST /v1/ingests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    with closing(slow(front_end, b"")) as connection:
        for byte in head.encode() + b"\r\nConnection: close\r\n\r\n" + body:
            connection.sendall(bytes([byte]))
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 202"), answer


def test_requests_sent_together_on_one_connection_are_all_answered(front_end: FrontEnd) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with closing(slow(front_end, 3 * ask + ask.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))) as connection:
        answers = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answers.count(b"HTTP/1.1 200") == 4


def test_an_upload_waits_for_its_turn_and_is_then_taken(front_end: FrontEnd) -> None:
    answers: list[httpx2.Response] = []
    files = [("image", (f"{number}.jpg", jpeg() + bytes(1 << 20))) for number in range(6)]

    def send() -> None:
        answers.append(front_end.http.post("/v1/ingests", files=files))

    with closing(slow(front_end, UPLOAD)):
        sender = threading.Thread(target=send)
        sender.start()
        assert_served(front_end)
    sender.join(120)
    assert [answer.status_code for answer in answers] == [202], [answer.text for answer in answers]


def test_a_stop_does_not_wait_for_clients_that_have_asked_nothing(tmp_path: Path, redis_server: str) -> None:
    with ExitStack() as open_ones:
        with running(tmp_path / "web", redis_server) as front_end:
            for _ in range(THREADS):
                open_ones.enter_context(closing(slow(front_end, b"")))
            assert_served(front_end)
        assert front_end.process.returncode == 0
