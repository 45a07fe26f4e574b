"""Streams of events and uploads in pieces through a real gunicorn: clients that leave, connections that are cut."""

import hashlib
import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest

from front_end import FOLDER, FrontEnd, running
from lookalike.jobstore import PlanClaim
from lookalike.jobstore.redis import RedisJobStore
from lookalike.settings import Settings

CONTENT = random.Random(7).randbytes(3 << 20)
#: Of eight threads six may wait.
SLOTS = 6


@pytest.fixture(scope="module")
def front_end(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[FrontEnd]:
    with running(tmp_path_factory.mktemp("web"), redis_server) as front_end:
        yield front_end


@pytest.fixture
def jobs(redis_url: str) -> Iterator[RedisJobStore]:
    store = RedisJobStore.connect(Settings(redis_url=redis_url))
    yield store
    store.close()


def new_job(front_end: FrontEnd) -> str:
    return str(front_end.http.post("/v1/ingests", json=FOLDER).json()["id"])


def test_events_arrive_as_they_happen(front_end: FrontEnd, jobs: RedisJobStore) -> None:
    job_id = new_job(front_end)
    seen: list[tuple[str, str]] = []
    with front_end.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        event = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            if not line.startswith("data: "):
                continue
            seen.append((event, json.loads(line.removeprefix("data: "))["state"]))
            if seen == [("progress", "queued")]:
                plan = jobs.claim_ingest()
                assert isinstance(plan, PlanClaim)
            if seen[-1] == ("progress", "running"):
                jobs.cancel(job_id)
                jobs.end_plan(plan, finished=False)
    assert seen[:2] == [("progress", "queued"), ("progress", "running")]
    assert seen[-2:] == [("progress", "cancelled"), ("done", "cancelled")]


def listen(front_end: FrontEnd, job_id: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", front_end.port), timeout=60)
    connection.sendall(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def test_listeners_who_leave_free_their_threads_at_once(front_end: FrontEnd, jobs: RedisJobStore) -> None:
    job_id = new_job(front_end)
    with ExitStack() as stack:
        for _ in range(SLOTS):
            connection = stack.enter_context(listen(front_end, job_id))
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        refused = front_end.http.get(f"/v1/jobs/{job_id}/events")
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert front_end.http.get("/healthz").status_code == 200
    deadline = time.monotonic() + 12
    free = False
    while not free:
        with front_end.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            free = answer.status_code == 200
        assert time.monotonic() < deadline, "long before the next heartbeat, and the end of a stream"
    jobs.cancel(job_id)


def test_an_upload_survives_a_cut_connection_and_an_unknown_length(front_end: FrontEnd) -> None:
    begun = front_end.http.post("/v1/uploads", json={"size": len(CONTENT)}).json()
    url = f"/v1/uploads/{begun['id']}"
    head = f"PATCH {url} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nUpload-Offset: 0\r\n"
    with socket.create_connection(("127.0.0.1", front_end.port), timeout=60) as cut:
        cut.sendall(f"{head}Content-Length: {len(CONTENT)}\r\n\r\n".encode() + CONTENT[: 2 << 20])
    deadline = time.monotonic() + 60
    while not (offset := int(front_end.http.head(url).headers["Upload-Offset"])):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    headers = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
    pieces = (CONTENT[at : at + 10_000] for at in range(offset, len(CONTENT), 10_000))
    answer = front_end.http.patch(url, content=pieces, headers=headers)
    while answer.status_code == httpx2.codes.CONFLICT:  # The cut request was still writing what it had.
        offset = answer.json()["offset"]
        headers["Upload-Offset"] = str(offset)
        answer = front_end.http.patch(url, content=CONTENT[offset:], headers=headers)
    assert answer.json()["sha256"] == hashlib.sha256(CONTENT).hexdigest(), answer.text
