"""The front end as it is deployed: gunicorn with its configuration, a real Redis, and warnings as errors."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psutil
import pytest
import redis

from bad_files import jpeg
from front_end import FOLDER, FrontEnd, running
from lookalike.jobstore import PlanClaim
from lookalike.jobstore.redis import RedisJobStore
from lookalike.settings import Settings
from redis_server import start_redis, valkey_binary
from service import BUSY_S, SUBMIT_S, until


@pytest.fixture(scope="module")
def front_end(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[FrontEnd]:
    with running(tmp_path_factory.mktemp("web"), redis_server) as front_end:
        yield front_end


@pytest.fixture
def jobs(redis_url: str) -> Iterator[RedisJobStore]:
    """The store as a worker of the same service sees it, empty."""
    store = RedisJobStore.connect(Settings(redis_url=redis_url))
    yield store
    store.close()


def test_a_submit_reaches_the_workers_side_of_redis(front_end: FrontEnd, jobs: RedisJobStore, redis_url: str) -> None:
    answer = front_end.http.post("/v1/ingests", json=FOLDER, headers={"Idempotency-Key": "once"})
    assert answer.status_code == 202, answer.text
    again = front_end.http.post("/v1/ingests", json=FOLDER, headers={"Idempotency-Key": "once"})
    assert again.json()["id"] == answer.json()["id"]
    plan = jobs.claim_ingest()
    assert isinstance(plan, PlanClaim)
    assert plan.job_id == answer.json()["id"]
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("ingest") == 1, "the doorbell rang once"


def test_a_long_poll_ends_with_the_job(front_end: FrontEnd, jobs: RedisJobStore) -> None:
    job_id = front_end.http.post("/v1/ingests", json=FOLDER).json()["id"]
    timer = threading.Timer(0.5, jobs.cancel, [job_id])
    timer.start()
    began = time.monotonic()
    record = front_end.http.get(f"/v1/jobs/{job_id}", params={"wait": 20}).json()
    took = time.monotonic() - began
    timer.join()
    assert record["state"] == "cancelled"
    assert 0.4 < took < 15


def test_more_waiters_than_threads_leave_the_others_their_answers(front_end: FrontEnd, jobs: RedisJobStore) -> None:
    job_id = front_end.http.post("/v1/ingests", json=FOLDER).json()["id"]
    waiters = [
        threading.Thread(target=front_end.http.get, args=[f"/v1/jobs/{job_id}"], kwargs={"params": {"wait": 20}})
        for _ in range(24)
    ]
    for waiter in waiters:
        waiter.start()
    time.sleep(1)
    began = time.monotonic()
    assert front_end.http.get("/healthz").status_code == 200
    assert front_end.http.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"
    took = time.monotonic() - began
    jobs.cancel(job_id)
    for waiter in waiters:
        waiter.join()
    assert took < 15


def test_uploads_are_kept_and_probed(front_end: FrontEnd, jobs: RedisJobStore) -> None:
    jobs.ping()
    answer = front_end.http.post("/v1/ingests", files=[("image", ("a.jpg", jpeg())), ("image", ("b.jpg", jpeg()))])
    assert answer.status_code == 202, answer.text
    kept = [path for path in (front_end.folder / "data" / "uploads" / "images").rglob("*") if path.is_file()]
    assert {path.name for path in kept} == {file["sha256"] for file in answer.json()["request"]["source"]["files"]}


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (
            b"GET /healthz?" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            414,
            "uri_too_long",
        ),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri_too_long"),
        (b"NONSENSE\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 70000 + b"\r\n\r\n", 431, "invalid_request"),
        (b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 400, "bad_host"),
    ],
)
def test_even_what_gunicorn_refuses_is_a_problem_document(
    front_end: FrontEnd, request_bytes: bytes, status: int, code: str
) -> None:
    head, _, body = front_end.raw(request_bytes).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, head
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == code


def test_milvus_being_away_is_said_soon_and_stops_no_ingest(front_end: FrontEnd, jobs: RedisJobStore) -> None:
    jobs.ping()
    began = time.monotonic()
    answer = front_end.http.post("/v1/searches", json={"queries": [{"path": "a.jpg"}]})
    assert (answer.status_code, answer.json()["code"]) == (503, "vector_store_unavailable")
    assert time.monotonic() - began < 45
    assert front_end.http.post("/v1/ingests", json=FOLDER).status_code == 202
    checks = front_end.http.get("/readyz").json()["checks"]
    assert {name for name, check in checks.items() if check["ok"]} == {"redis"}


def test_the_log_has_one_line_per_request_and_nothing_was_made_before_the_fork(front_end: FrontEnd) -> None:
    front_end.http.get("/v1/info", headers={"X-Request-ID": "trace-of-a-test"})
    until(lambda: "trace-of-a-test" in front_end.log("stdout"), 60)
    lines = [json.loads(line) for line in front_end.log("stdout").splitlines()]
    assert len([line for line in lines if line["request_id"] == "trace-of-a-test"]) == 1
    assert "trace-of-a-test" not in front_end.log("stderr")
    master = psutil.Process(front_end.process.pid)
    assert master.num_threads() == 1
    assert {connection.status for connection in master.net_connections("tcp")} == {psutil.CONN_LISTEN}
    assert not list(front_end.folder.glob("**/gunicorn.ctl"))


def test_redis_being_down_or_hanging_is_a_503_within_five_seconds(tmp_path: Path) -> None:
    with ExitStack() as stack:
        redis_stack = stack.enter_context(ExitStack())
        url = redis_stack.enter_context(start_redis(valkey_binary(), tmp_path))
        front_end = stack.enter_context(running(tmp_path / "web", url))
        assert front_end.http.post("/v1/ingests", json=FOLDER).status_code == 202
        with redis.Redis.from_url(url) as client:
            pid = int(client.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            refused_in_time(front_end)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert front_end.http.post("/v1/ingests", json=FOLDER).status_code == 202, "it comes back by itself"
        redis_stack.close()
        refused_in_time(front_end)
        assert front_end.http.get("/healthz").status_code == 200


def refused_in_time(front_end: FrontEnd) -> None:
    for method, path, body in (("POST", "/v1/ingests", FOLDER), ("GET", "/v1/jobs", None)):
        began = time.monotonic()
        answer = front_end.http.request(method, path, json=body)
        took = time.monotonic() - began
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert took < SUBMIT_S + BUSY_S, f"{method} {path} took {took:.1f} s"


def test_a_stop_sends_waiting_clients_away_with_an_answer(tmp_path: Path, redis_url: str) -> None:
    answers: list[httpx2.Response] = []
    lines: list[str] = []
    with running(tmp_path / "web", redis_url) as front_end:
        job_id = front_end.http.post("/v1/ingests", json=FOLDER).json()["id"]
        url = f"/v1/jobs/{job_id}"

        def follow() -> None:
            with front_end.http.stream("GET", f"{url}/events") as answer:
                lines.extend(answer.iter_lines())

        waiter = threading.Thread(target=lambda: answers.append(front_end.http.get(url, params={"wait": 40})))
        follower = threading.Thread(target=follow)
        for thread in (waiter, follower):
            thread.start()
        time.sleep(1)
        began = time.monotonic()
        front_end.process.terminate()
        front_end.process.wait(120)
        took = time.monotonic() - began
        for thread in (waiter, follower):
            thread.join()
        assert "Traceback" not in front_end.log("stderr")
    assert took < 25
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(200, "queued")]
    assert "event: progress" in lines
    assert "event: done" not in lines
