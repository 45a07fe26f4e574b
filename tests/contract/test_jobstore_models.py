"""Which workers get which work: jobs that need a certain model, in the job store on Redis and in its twin in memory."""

from datetime import UTC, datetime

import pytest
import redis
from jobstores import FOLDER, LASTING, answer, items, search_of

from lookalike.jobstore import ChunkClaim, ChunkOutcome, JobStore, Lane, PlanClaim
from lookalike.jobstore.redis import PREFIX, RedisJobStore
from lookalike.records import IngestRequest, JobKind, JobState, ModelInfo, SearchRequest, WaitingFor, WorkerInfo

OLD, NEW = "a" * 64, "b" * 64


def search(store: JobStore, model: str | None) -> str:
    return store.create(JobKind.SEARCH, search_of().model_copy(update={"model": model}))[0].id


def ingest(store: JobStore, model: str | None) -> str:
    return store.create(JobKind.INGEST, FOLDER.model_copy(update={"model": model}))[0].id


def claimed(store: JobStore, model: str | None) -> list[str]:
    return [claim.job_id for claim in store.claim_searches(limit=10, model=model)]


def worker(model: str, lane: str = "search") -> WorkerInfo:
    told = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint=model, dim=12)
    return WorkerInfo.model_validate(
        {
            **dict.fromkeys(("host", "device", "engine", "precision", "engine_reason"), "x"),
            **{"name": f"{lane}-{model[:4]}", "lane": lane, "pid": 1, "model": told},
            "started_at": datetime.now(UTC),
        }
    )


def test_a_worker_gets_searches_for_its_model_and_for_all_oldest_first(store: JobStore) -> None:
    mine, theirs, anyones = search(store, OLD), search(store, NEW), search(store, None)
    assert claimed(store, None) == [anyones]
    later = search(store, None)
    assert claimed(store, OLD) == [mine, later]
    assert claimed(store, OLD) == []
    assert claimed(store, NEW) == [theirs]


def test_a_worker_gets_ingest_work_for_its_model_and_for_all_by_turns(store: JobStore) -> None:
    jobs = {ingest(store, model): model for model in (OLD, None, NEW)}
    for plan in [store.claim_ingest(model=OLD), store.claim_ingest(model=OLD), store.claim_ingest(model=NEW)]:
        assert isinstance(plan, PlanClaim)
        for name in "abcd":
            store.add_chunk(plan, items(name), cursor=name)
        store.end_plan(plan, finished=True)
    turns = []
    while claim := store.claim_ingest(model=OLD):
        assert isinstance(claim, ChunkClaim)
        store.account(claim, ChunkOutcome(added=1))
        turns.append(jobs[claim.job_id])
    assert sorted(turns[:4], key=str) == [None, None, OLD, OLD], "neither waits until the other is done"
    assert len(turns) == 8
    assert store.claim_ingest() is None
    left = store.claim_ingest(model=NEW)
    assert left
    assert jobs[left.job_id] == NEW


def test_a_search_that_is_handed_over_is_left_to_the_workers_of_the_model(store: JobStore) -> None:
    job_id = search(store, None)
    (claim,) = store.claim_searches(limit=1, model=NEW)
    store.give_back(claim, burn_attempt=False, model=OLD)
    assert store.get(job_id).model == OLD
    assert claimed(store, NEW) == []
    assert store.others_waiting(Lane.SEARCH, model=NEW) == [OLD]
    (again,) = store.claim_searches(limit=1, model=OLD)
    assert (again.job_id, again.attempts) == (job_id, 1)
    assert store.others_waiting(Lane.SEARCH, model=NEW) == []
    assert store.finish_search(again, answer())
    assert store.get(job_id).state is JobState.SUCCEEDED


def test_an_ingest_that_is_handed_over_takes_all_its_chunks_along(store: JobStore) -> None:
    job_id = ingest(store, None)
    plan = store.claim_ingest(model=NEW)
    assert isinstance(plan, PlanClaim)
    for name in "ab":
        store.add_chunk(plan, items(name), cursor=name)
    chunk = store.claim_ingest(model=NEW)
    assert isinstance(chunk, ChunkClaim)
    store.give_back(chunk, burn_attempt=False, model=OLD)
    store.end_plan(plan, finished=True)
    assert store.claim_ingest(model=NEW) is None
    assert store.others_waiting(Lane.INGEST, model=NEW) == [OLD]
    for _ in range(2):
        claim = store.claim_ingest(model=OLD)
        assert isinstance(claim, ChunkClaim)
        assert claim.attempts == 1
        store.account(claim, ChunkOutcome(added=1))
    assert store.get(job_id).state is JobState.SUCCEEDED
    assert store.others_waiting(Lane.INGEST, model=NEW) == []


def test_an_ingest_that_is_handed_over_starts_in_its_new_ring_at_the_ring_s_own_time(store: JobStore) -> None:
    moved = ingest(store, None)
    for _ in range(40):
        plan = store.claim_ingest(model=OLD)
        assert isinstance(plan, PlanClaim)
        store.give_back(plan, burn_attempt=False)
    other = ingest(store, NEW)
    plan = store.claim_ingest()
    assert plan
    store.give_back(plan, burn_attempt=False, model=NEW)
    turns = set()
    for _ in range(4):
        claim = store.claim_ingest(model=NEW)
        assert isinstance(claim, PlanClaim)
        turns.add(claim.job_id)
        store.give_back(claim, burn_attempt=False)
    assert turns == {moved, other}, "what it had of its old ring does not put it behind the others"


def test_a_sweep_counts_only_what_the_sweeper_s_model_can_do(store: JobStore) -> None:
    for model in (OLD, NEW, None):
        search(store, model)
        ingest(store, model)
    assert store.sweep().waiting == {Lane.SEARCH: 1, Lane.INGEST: 1}
    assert store.sweep(model=OLD).waiting == {Lane.SEARCH: 2, Lane.INGEST: 2}


def test_a_job_says_that_it_waits_for_a_model_until_a_worker_of_its_lane_has_it(store: JobStore) -> None:
    job_id = search(store, NEW)
    store.announce(worker(OLD))
    store.announce(worker(NEW, lane="ingest"))
    record = store.get(job_id)
    assert (record.model, record.waiting_for, record.progress.position) == (NEW, WaitingFor.MODEL, 0)
    store.announce(worker(NEW))
    assert store.get(job_id).waiting_for is None


@pytest.mark.parametrize("end", ["cancel", "pause"])
def test_a_job_that_leaves_its_ring_leaves_nothing_to_ring_for(store: JobStore, end: str) -> None:
    job_id = ingest(store, NEW)
    assert store.others_waiting(Lane.INGEST, model=OLD) == [NEW]
    getattr(store, end)(job_id)
    assert store.others_waiting(Lane.INGEST, model=OLD) == []
    waiting = search(store, NEW)
    store.cancel(waiting)
    assert store.others_waiting(Lane.SEARCH, model=OLD) == []


def test_no_key_of_a_model_lasts_for_ever(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        store = RedisJobStore(client, LASTING)
        for model in (OLD, NEW):
            job_id = ingest(store, model)
            store.claim_ingest(model=model)
            search(store, model)
            (claim,) = store.claim_searches(limit=1, model=model)
            store.finish_search(claim, answer())
            store.cancel(job_id)
        plan = store.claim_ingest(model=OLD)
        assert plan is None
        lasting = {key.removeprefix(PREFIX) for key in client.keys("*") if client.pttl(key) == -1}
        assert not [key for key in lasting if key.startswith(("ring", "search", "vtime:", "models"))]


def test_requests_carry_the_model_that_they_need() -> None:
    assert IngestRequest.model_validate({"source": {"type": "folder", "path": "x"}, "model": OLD}).model == OLD
    assert SearchRequest.model_validate({"queries": [{"path": "x"}], "model": "resnet50"}).model == "resnet50"
