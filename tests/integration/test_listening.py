"""Waiting for jobs on a real Redis: who waits is woken by a message, over one subscription of the whole process."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from lookalike.errors import QueueUnavailable
from lookalike.jobstore.redis import RedisJobStore, listening, reads
from lookalike.records import JobKind, JobRecord, JobState, Query, SearchRequest
from lookalike.settings import Settings
from redis_server import start_redis, valkey_binary
from service import until

WAIT_S = 3600.0  #: Longer than any test takes: a waiter that nothing wakes fails its test.
SEARCH = SearchRequest(queries=(Query(path="a.jpg"),))


@pytest.fixture
def store(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisJobStore]:
    """A store whose waiters look by themselves once, at the beginning."""
    monkeypatch.setattr(reads, "LOOK_AGAIN_S", WAIT_S)
    store = RedisJobStore.connect(Settings(redis_url=redis_url))
    yield store
    store.close()


@pytest.fixture
def server(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


class Waiters:
    """Threads that wait, and what came of it."""

    def __init__(self) -> None:
        self.outcomes: list[JobRecord | QueueUnavailable] = []
        self._threads: list[threading.Thread] = []

    def start(self, wait: Callable[[], JobRecord]) -> None:
        def run() -> None:
            try:
                self.outcomes.append(wait())
            except QueueUnavailable as error:
                self.outcomes.append(error)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def states(self) -> list[JobState]:
        """What the waiters were answered, once all were."""
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "nobody woke it"
        return [outcome.state for outcome in self.outcomes if isinstance(outcome, JobRecord)]


def submit(store: RedisJobStore) -> str:
    return store.create(JobKind.SEARCH, SEARCH)[0].id


def subscriptions(server: "redis.Redis") -> list[str]:
    """The connections that listen, by their ids."""
    return [client["id"] for client in server.client_list() if client["psub"] != "0"]


def test_who_waits_is_woken_by_the_message(store: RedisJobStore, server: "redis.Redis") -> None:
    job_id, waiters = submit(store), Waiters()
    waiters.start(lambda: store.wait(job_id, timeout_s=WAIT_S))
    until(lambda: subscriptions(server), 60)
    store.cancel(job_id)
    assert waiters.states() == [JobState.CANCELLED]


def test_who_follows_a_job_is_woken_by_each_of_its_changes(store: RedisJobStore, server: "redis.Redis") -> None:
    job_id, waiters = submit(store), Waiters()
    waiters.start(lambda: store.watch(job_id, after=store.get(job_id).version, timeout_s=WAIT_S))
    until(lambda: subscriptions(server), 60)
    store.claim_searches(limit=1)
    assert waiters.states() == [JobState.RUNNING]


def test_all_that_wait_in_a_process_share_one_subscription(store: RedisJobStore, server: "redis.Redis") -> None:
    jobs, waiters = [submit(store) for _ in range(20)], Waiters()
    for job_id in jobs:
        waiters.start(partial(store.wait, job_id, timeout_s=WAIT_S))
        waiters.start(partial(store.watch, job_id, after=1, timeout_s=WAIT_S))
    until(lambda: subscriptions(server), 60)
    (first,) = subscriptions(server)
    for job_id in jobs:
        store.cancel(job_id)
    assert waiters.states() == [JobState.CANCELLED] * 40
    assert subscriptions(server) == [first]


def test_a_message_that_was_lost_with_its_connection_costs_nobody_his_wait(
    store: RedisJobStore, server: "redis.Redis"
) -> None:
    job_id, waiters = submit(store), Waiters()
    waiters.start(lambda: store.wait(job_id, timeout_s=WAIT_S))
    until(lambda: subscriptions(server), 60)
    with server.pipeline(transaction=True) as pipe:  # The job ends in the moment in which nobody can hear it.
        pipe.client_kill_filter(_type="pubsub", skipme=True)
        pipe.hset(f"lookalike:job:{job_id}", "state", JobState.CANCELLED.value)
        pipe.execute()
    assert waiters.states() == [JobState.CANCELLED]


def test_a_server_that_falls_silent_is_noticed_by_those_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "LOOK_AGAIN_S", WAIT_S)
    monkeypatch.setattr(listening, "_TURN_S", 0.05)
    monkeypatch.setattr(listening, "_ASK_EVERY_S", 0.2)
    with start_redis(valkey_binary(), tmp_path) as url, redis.Redis.from_url(url, decode_responses=True) as server:
        store = RedisJobStore.connect(Settings(redis_url=url))
        job_id, waiters = submit(store), Waiters()
        waiters.start(lambda: store.wait(job_id, timeout_s=WAIT_S))
        until(lambda: subscriptions(server), 60)
        pid = int(server.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            assert waiters.states() == []
            assert len(waiters.outcomes) == 1, "it was told that the store is away"
        finally:
            os.kill(pid, signal.SIGCONT)
            store.close()


def test_a_wait_ends_when_it_is_asked_to(store: RedisJobStore) -> None:
    job_id, waiters, stopped = submit(store), Waiters(), threading.Event()
    waiters.start(lambda: store.wait(job_id, timeout_s=WAIT_S, stopped=stopped.is_set))
    stopped.set()
    assert waiters.states() == [JobState.QUEUED]
