"""Requests that wait for jobs without a thread, before the front end as it is deployed."""

import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx2
import psutil
import pytest

from front_end import FOLDER, FrontEnd, running
from lookalike.jobstore.redis import RedisJobStore
from lookalike.settings import Settings
from service import until

CLIENTS = 128
THREADS = 8  #: As `front_end` runs it; six of them may wait.
WAIT = {"Prefer": "wait=60"}


@pytest.fixture
def jobs(redis_url: str) -> Iterator[RedisJobStore]:
    """The store as a worker of the same service sees it, empty."""
    store = RedisJobStore.connect(Settings(redis_url=redis_url))
    yield store
    store.close()


@pytest.fixture
def front_end(jobs: RedisJobStore, redis_server: str, tmp_path: Path) -> Iterator[FrontEnd]:
    jobs.ping()
    with running(tmp_path / "web", redis_server) as front_end:
        yield front_end


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield pool


def submitting(front_end: FrontEnd, pool: ThreadPoolExecutor, clients: int) -> list[Future[httpx2.Response]]:
    """Clients, each with a connection of its own, that submit a job and wait for its end."""

    def submit() -> httpx2.Response:
        return httpx2.post(f"{front_end.http.base_url}/v1/ingests", json=FOLDER, headers=WAIT, timeout=120)

    return [pool.submit(submit) for _ in range(clients)]


def await_jobs(jobs: RedisJobStore, count: int) -> list[str]:
    until(lambda: len(jobs.list_jobs(limit=2 * CLIENTS).jobs) == count, 60)
    return [job.id for job in jobs.list_jobs(limit=2 * CLIENTS).jobs]


def waiting_connections(front_end: FrontEnd) -> int:
    (worker,) = psutil.Process(front_end.process.pid).children()
    connections = worker.net_connections("tcp")
    return sum(
        one.status in {psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT} and one.laddr.port == front_end.port
        for one in connections
    )


def test_many_more_waiters_than_threads_need_one_request_each(
    front_end: FrontEnd, jobs: RedisJobStore, pool: ThreadPoolExecutor
) -> None:
    asked = submitting(front_end, pool, CLIENTS)
    ids = await_jobs(jobs, CLIENTS)
    assert front_end.http.get("/healthz").status_code == 200, "there is a thread for the others"
    assert not any(one.done() for one in asked), "nobody is sent away to ask again"
    for job_id in ids:
        jobs.cancel(job_id)
    answers = [one.result() for one in asked]
    assert {(answer.status_code, answer.json()["state"]) for answer in answers} == {(200, "cancelled")}
    assert sorted(answer.json()["id"] for answer in answers) == sorted(ids)
    assert {answer.headers["Preference-Applied"] for answer in answers} == {"wait=60"}
    lines = [json.loads(line) for line in front_end.log("stdout").splitlines()]
    served = Counter(line["request_id"] for line in lines if line["path"] == "/v1/ingests")
    assert served == {answer.headers["X-Request-ID"]: 1 for answer in answers}
    (worker,) = psutil.Process(front_end.process.pid).children()
    assert worker.num_threads() < CLIENTS


def test_a_connection_that_waited_serves_its_next_requests(
    front_end: FrontEnd, jobs: RedisJobStore, pool: ThreadPoolExecutor
) -> None:
    others = submitting(front_end, pool, THREADS)
    await_jobs(jobs, THREADS)
    job_id = front_end.http.post("/v1/ingests", json=FOLDER).json()["id"]
    there = waiting_connections(front_end)
    first = f"GET /v1/jobs/{job_id}?wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    second = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = pool.submit(front_end.raw, (first + second).encode())
    until(lambda: waiting_connections(front_end) == there + 1, 60)
    for job in jobs.list_jobs(limit=CLIENTS).jobs:
        jobs.cancel(job.id)
    heads = answer.result().split(b"HTTP/1.1 ")
    assert [head[:3] for head in heads[1:]] == [b"200", b"200"]
    assert b'"cancelled"' in heads[1]
    assert all(one.result().json()["state"] == "cancelled" for one in others)


def test_a_client_that_leaves_while_it_waits_is_let_go(
    front_end: FrontEnd, jobs: RedisJobStore, pool: ThreadPoolExecutor
) -> None:
    others = submitting(front_end, pool, THREADS)
    await_jobs(jobs, THREADS)
    there = waiting_connections(front_end)
    job_id = jobs.list_jobs().jobs[0].id
    with ExitStack() as leaving:
        for _ in range(THREADS):
            connection = leaving.enter_context(closing(socket.create_connection(("127.0.0.1", front_end.port))))
            connection.sendall(f"GET /v1/jobs/{job_id}?wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: waiting_connections(front_end) == there + THREADS, 60)
    until(lambda: waiting_connections(front_end) == there, 60)
    for job in jobs.list_jobs().jobs:
        jobs.cancel(job.id)
    assert all(one.result().json()["state"] == "cancelled" for one in others)


def test_a_process_that_stops_answers_those_that_wait(
    front_end: FrontEnd, jobs: RedisJobStore, pool: ThreadPoolExecutor
) -> None:
    asked = submitting(front_end, pool, 3 * THREADS)
    await_jobs(jobs, 3 * THREADS)
    front_end.process.send_signal(signal.SIGTERM)
    answers = [one.result() for one in asked]
    assert {(answer.status_code, answer.json()["state"]) for answer in answers} == {(202, "queued")}
    assert all(answer.headers["Retry-After"] for answer in answers)
