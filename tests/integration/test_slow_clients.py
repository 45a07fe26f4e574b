"""Clients that are slow on purpose, before the front end as it is deployed: everybody else is served meanwhile."""

import hashlib
import json
import random
import resource
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx2
import psutil
import pytest

from bad_files import jpeg
from front_end import FOLDER, FrontEnd, running
from lookalike.artifacts import Artifacts
from lookalike.jobstore import PlanClaim, Planned
from lookalike.jobstore.redis import RedisJobStore
from lookalike.records import Failure, JobState, Stage
from lookalike.settings import Settings

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


def test_a_process_that_may_open_no_more_files_says_so_and_goes_on(front_end: FrontEnd) -> None:
    (worker,) = psutil.Process(front_end.process.pid).children()
    assert_served(front_end)  # What is opened for good with a first request is open.
    before = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    with ExitStack() as open_ones:
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (worker.num_fds(), before[1]))
        try:
            for _ in range(64):
                connection = open_ones.enter_context(closing(slow(front_end, HALF_A_HEAD)))
                connection.settimeout(0.5)
                try:
                    answer = connection.recv(1 << 16)
                except TimeoutError:
                    continue  # It was accepted: a file was free.
                break
            else:
                pytest.fail("all were accepted")
        finally:
            resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, before)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert b"Retry-After: 5" in head
    assert json.loads(body)["code"] == "overloaded"
    assert_served(front_end)
    assert worker.is_running(), "nobody else's connection was lost"


# --- Answers --------------------------------------------------------------------------------------------------------

LARGE = random.Random(5).randbytes(24 << 20)  #: More than any buffer on the way takes.
FEW_BYTES = 4096


def reading(front_end: FrontEnd, path: str) -> socket.socket:
    """A client that asks for something, and takes next to nothing of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FEW_BYTES)
    connection.settimeout(120)
    connection.connect(("127.0.0.1", front_end.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert connection.recv(1) == b"H"
    return connection


@pytest.fixture
def job_id(front_end: FrontEnd, redis_server: str) -> str:
    """A job that has left a large file and a long ledger, and goes on."""
    created = str(front_end.http.post("/v1/ingests", json=FOLDER).json()["id"])
    artifacts = Artifacts(front_end.folder / "data" / "artifacts", min_free_bytes=0)
    for part, begin in enumerate(range(0, len(LARGE), 5 << 20)):
        artifacts.write(created, "large.npy", LARGE[begin : begin + (5 << 20)], part=part)
    with closing(RedisJobStore.connect(Settings(redis_url=redis_server))) as jobs:
        while not (isinstance(plan := jobs.claim_ingest(), PlanClaim) and plan.job_id == created):
            assert plan is not None
        message = "It is broken. " * 500
        for page in range(20):
            failures = tuple(
                Failure(uri=f"file:///{page}-{line}", code="image_corrupt", message=message, stage=Stage.LIST)
                for line in range(50)
            )
            assert jobs.add_chunk(plan, (), cursor=str(page), planned=Planned(failures=failures)) is not None
    return created


@pytest.mark.parametrize("path", ["files/large.npy", "failures"])
def test_clients_that_take_nothing_of_large_answers_hold_no_thread_that_others_need(
    front_end: FrontEnd, job_id: str, path: str
) -> None:
    with ExitStack() as open_ones:
        readers = [
            open_ones.enter_context(closing(reading(front_end, f"/v1/jobs/{job_id}/{path}")))
            for _ in range(4 * THREADS)
        ]
        assert_served(front_end)
        # Whoever goes on reading gets the whole, in order.
        whole = b"H" + b"".join(iter(lambda: readers[-1].recv(1 << 16), b""))
        for reader in readers[:-1]:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # It hangs up.
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    if path == "failures":
        assert [json.loads(line)["uri"] for line in unchunked(body).splitlines()] == [
            f"file:///{page}-{line}" for page in range(20) for line in range(50)
        ]
    else:
        assert hashlib.sha256(body).digest() == hashlib.sha256(LARGE).digest()
    assert_served(front_end)


def unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    assert parts.pop() == b"", "the last chunk is empty"
    return b"".join(parts)
