"""What the job store leaves in Redis, for how long, and what it takes with it through a restart and costs per chunk."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import redis
from jobstores import (
    FOLDER,
    LASTING,
    LIMITS,
    PAST_LEASE_S,
    PROBLEM,
    answer,
    claim_chunk,
    claim_plan,
    failure,
    items,
    planned,
    search_of,
    submit,
)

from lookalike.errors import JobExpired, JobNotFound, QueueUnavailable
from lookalike.jobstore import ChunkOutcome, Idempotency, Phase, Planned, Receipt
from lookalike.jobstore.redis import PREFIX, RedisJobStore
from lookalike.records import JobKind, JobState, Stage, WaitingFor, Webhook, WebhookState
from ports import free_port
from redis_server import start_redis, valkey_binary
from service import until

HOOK = FOLDER.model_copy(update={"webhook": Webhook(url="https://example.com/hook")})
T = TypeVar("T")
SYNC = FOLDER.model_copy(update={"sync": True})


@contextmanager
def connected(url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        yield client


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with connected(redis_url) as client:
        yield client


def lasting_keys(client: "redis.Redis") -> set[str]:
    return {key.removeprefix(PREFIX) for key in client.keys("*") if client.pttl(key) == -1}


def end_in_every_way(store: RedisJobStore) -> None:
    """End jobs of each kind by success, failure and cancel, with deliveries, splits, pauses, deaths and a prune."""
    key = Idempotency(key="k", digest="d")
    store.create(JobKind.INGEST, HOOK, idempotency=key)
    plan = claim_plan(store)
    store.add_chunk(plan, items("a", "b"), cursor="b", planned=Planned(failures=(failure(),)))
    store.end_plan(plan, finished=True)
    store.split(claim_chunk(store))
    for _ in range(2):
        store.account(claim_chunk(store), ChunkOutcome(added=1, stage_ms={Stage.READ: 1}))
    planned(store, items("a"), request=SYNC)
    assert store.account(claim_chunk(store), ChunkOutcome(added=1)) is Receipt.PLAN_DUE
    store.end_plan(claim_plan(store), finished=True)
    submit(store, HOOK)
    store.fail(claim_plan(store), PROBLEM)
    for _ in range(3):
        store.create(JobKind.SEARCH, search_of())
    answered, broken = store.claim_searches(limit=2)
    store.finish_search(answered, answer())
    store.finish_search(broken, PROBLEM)
    (held,) = store.claim_searches(limit=1)
    store.cancel(held.job_id)
    store.give_back(held)
    paused = planned(store, items("a"), items("b"), items("c"))
    dead, delayed = claim_chunk(store), claim_chunk(store)
    store.give_back(delayed, delay_s=LIMITS.lease_s, waiting_for=WaitingFor.VECTOR_STORE)
    store.pause(paused.id)
    store.cancel(paused.id)
    time.sleep(PAST_LEASE_S)
    store.sweep()
    store.account(dead, ChunkOutcome(added=1))
    store.end_webhook(store.claim_webhook() or pytest.fail("no delivery"), error="503", retry_in_s=3600)
    store.end_webhook(store.claim_webhook() or pytest.fail("no delivery"))
    store.give_back(delayed)


def test_no_key_lasts_for_ever_once_every_job_has_ended(client: "redis.Redis") -> None:
    end_in_every_way(RedisJobStore(client, LIMITS))
    assert lasting_keys(client) == set()


def test_only_keys_of_live_jobs_last_and_the_index_of_jobs_as_long_as_there_are_any(client: "redis.Redis") -> None:
    store = RedisJobStore(client, LASTING)
    store.cancel(submit(store).id)
    assert lasting_keys(client) == set()
    job, _ = store.create(JobKind.INGEST, FOLDER, idempotency=Idempotency(key="k", digest="d"))
    plan = claim_plan(store)
    for name in "ab":
        store.add_chunk(plan, items(name), cursor=name)
    store.end_plan(plan, finished=True)
    store.account(claim_chunk(store), ChunkOutcome(added=1))
    claim_chunk(store)
    store.cancel(submit(store).id)
    own = {f"job:{job.id}{suffix}" for suffix in ("", ":chunks", ":chunk:2", ":rate")}
    assert lasting_keys(client) == own | {
        *("idempotency:k", "live:ingest", "live_bytes:ingest", "leases", "jobs", "vtime"),
    }


def test_an_idempotency_key_lasts_as_long_as_its_job(client: "redis.Redis") -> None:
    store = RedisJobStore(client, replace(LASTING, result_ttl_s=0.2))
    key = Idempotency(key="k", digest="d")
    job, _ = store.create(JobKind.INGEST, FOLDER, idempotency=key)
    time.sleep(0.3)
    assert store.create(JobKind.INGEST, FOLDER, idempotency=key)[1] is False
    store.cancel(job.id)
    assert store.find_idempotent("k") == (job.id, "d")
    time.sleep(0.3)
    assert store.find_idempotent("k") is None


def test_a_record_stays_while_its_delivery_is_tried_and_then_leaves_nothing(client: "redis.Redis") -> None:
    store = RedisJobStore(client, replace(LIMITS, result_ttl_s=1.0, tombstone_ttl_s=2.0))
    job = planned(store, request=HOOK)
    store.end_webhook(store.claim_webhook() or pytest.fail("no delivery"), error="503", retry_in_s=1.5)
    time.sleep(1.2)
    assert store.get(job.id).webhook == WebhookState(state="waiting", attempts=1, error="503")
    time.sleep(0.4)
    store.end_webhook(store.claim_webhook() or pytest.fail("no delivery"))
    assert store.get(job.id).state is JobState.SUCCEEDED
    time.sleep(1.2)
    with pytest.raises(JobExpired):
        store.get(job.id)
    time.sleep(2.2)
    with pytest.raises(JobNotFound):
        store.get(job.id)
    until(lambda: not client.keys("*"), 60)


def test_a_delivery_that_nobody_makes_is_forgotten_with_its_job(client: "redis.Redis") -> None:
    store = RedisJobStore(client, replace(LIMITS, result_ttl_s=0.1, tombstone_ttl_s=0.3))
    planned(store, request=HOOK)
    time.sleep(0.15)
    submit(store)  # The service goes on.
    assert store.claim_webhook() is None
    assert client.exists(f"{PREFIX}webhooks") == 0


def test_thousands_of_expired_jobs_are_forgotten_in_one_sweep(client: "redis.Redis") -> None:
    store = RedisJobStore(client, LASTING)
    client.zadd(f"{PREFIX}jobs", {f"0{number:025}": 0 for number in range(3500)})
    job = submit(store)
    store.sweep()
    assert client.zrange(f"{PREFIX}jobs", 0, -1) == [job.id]


def test_a_server_out_of_memory_does_a_thing_wholly_or_not_at_all(client: "redis.Redis") -> None:
    store = RedisJobStore(client, LASTING)
    refused = 0

    def done(call: Callable[[], T]) -> T:
        """Do it while there is no memory; where that is refused, again when there is."""
        nonlocal refused
        client.config_set("maxmemory", 1)
        try:
            return call()
        except QueueUnavailable:
            refused += 1
        finally:
            client.config_set("maxmemory", 0)
        return call()

    job = done(lambda: submit(store, HOOK))
    plan = done(lambda: claim_plan(store))
    done(lambda: store.add_chunk(plan, items("a", "b"), cursor="b", planned=Planned(unchanged=1)))
    done(lambda: store.add_chunk(plan, items("c"), cursor="c"))
    done(lambda: store.end_plan(plan, finished=True))
    first = done(lambda: claim_chunk(store))
    done(lambda: store.pause(job.id))
    done(lambda: store.give_back(first, waiting_for=WaitingFor.VECTOR_STORE))
    done(lambda: store.resume(job.id))
    done(lambda: store.split(done(lambda: claim_chunk(store))))
    for _ in range(3):
        claim = done(lambda: claim_chunk(store))
        done(lambda claim=claim: store.account(claim, ChunkOutcome(added=1)))
    done(store.sweep)
    delivery = done(store.claim_webhook)
    assert delivery
    done(lambda: store.end_webhook(delivery))
    ended = store.get(job.id)
    assert (ended.state, ended.progress.total, ended.progress.done) == (JobState.SUCCEEDED, 4, 4)
    assert lasting_keys(client) == set()
    assert refused > 5


def test_a_chunk_is_claimed_and_accounted_in_one_call_each(client: "redis.Redis") -> None:
    store = RedisJobStore(client, LASTING)
    planned(store, items("a"), items("b"), items("c"))
    store.account(claim_chunk(store), ChunkOutcome(added=1))  # From now on the server knows the scripts.
    client.config_resetstat()
    outcome = ChunkOutcome(added=1, failures=(failure(),), stage_ms=dict.fromkeys(Stage, 5))
    store.account(claim_chunk(store), outcome, result={"collection": "default"})
    counted = client.info("commandstats")
    assert counted["cmdstat_evalsha"]["calls"] == 2
    assert "cmdstat_eval" not in counted


def test_a_killed_server_comes_back_with_what_stood_still_waited_and_was_to_be_pruned(tmp_path: Path) -> None:
    port, always = free_port(), ("--appendfsync", "always")
    with start_redis(valkey_binary(), tmp_path, port=port, options=always) as url, connected(url) as client:
        store = RedisJobStore(client, LASTING)
        done = planned(store, request=HOOK)
        paused, pruned = planned(store, items("a"), items("b")), planned(store, items("c"), request=SYNC)
        for claim in (claim_chunk(store), claim_chunk(store)):
            if claim.job_id == pruned.id:
                store.account(claim, ChunkOutcome(added=1))
            else:
                store.give_back(claim, burn_attempt=False, waiting_for=WaitingFor.SOURCE)
        store.pause(paused.id)
        before = [store.get(job.id) for job in (paused, pruned, done)]
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
    with start_redis(valkey_binary(), tmp_path, port=port, options=always) as url, connected(url) as client:
        store = RedisJobStore(client, LASTING)
        assert [store.get(job.id) for job in (paused, pruned, done)] == before
        assert (before[0].paused, before[0].waiting_for) == (True, WaitingFor.SOURCE)
        plan = claim_plan(store)
        assert (plan.job_id, plan.phase) == (pruned.id, Phase.PRUNE)
        assert store.claim_ingest() is None
        store.resume(paused.id)
        assert [claim_chunk(store).fresh for _ in range(2)] == [False, True]
        assert store.claim_webhook() is not None


def test_a_plan_is_left_to_who_has_its_listing_open_while_there_are_chunks_to_do(client: "redis.Redis") -> None:
    planner, other = RedisJobStore(client, LASTING), RedisJobStore(client, LASTING)
    submit(planner)
    plan = claim_plan(planner)
    for name in ("a", "b", "c"):
        planner.add_chunk(plan, items(name), cursor=name)
    planner.end_plan(plan, finished=False)
    assert planner.account(claim_chunk(planner), ChunkOutcome(added=1)) is Receipt.PLAN_DUE
    claim_chunk(other)
    assert planner.end_plan(claim_plan(planner), finished=False) is Receipt.PLAN_DUE
    claim_chunk(other)
    assert claim_plan(other).cursor == "c"
