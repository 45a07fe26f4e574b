"""The promises of a job store, held by the one on Redis and by its twin in memory."""

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import redis
from jobstores import (
    FOLDER,
    LASTING,
    LIMITS,
    PAST_LEASE_S,
    PROBLEM,
    Make,
    answer,
    claim_chunk,
    claim_plan,
    failure,
    items,
    planned,
    search_of,
    submit,
)

from lookalike.errors import IdempotencyConflict, InvalidParameter, JobExpired, JobNotFound, QueueFull
from lookalike.jobstore import ChunkOutcome, Idempotency, JobStore, Lane, Planned, Receipt, Renewal
from lookalike.jobstore.redis import RedisJobStore
from lookalike.records import JobError, JobKind, JobState, ModelInfo, WorkerInfo


def test_a_new_job_is_queued_and_can_be_read(store: JobStore) -> None:
    job, created = store.create(JobKind.INGEST, FOLDER)
    assert created
    assert job == store.get(job.id)
    assert (job.state, job.started_at, job.progress.total) == (JobState.QUEUED, None, None)
    assert job.request["source"]["path"] == "photos"
    assert abs((datetime.now(UTC) - job.created_at).total_seconds()) < 10


def test_an_unknown_id_is_not_found(store: JobStore) -> None:
    for call in (store.get, store.cancel, store.failures, lambda unknown: store.wait(unknown, timeout_s=0)):
        with pytest.raises(JobNotFound):
            call("01JUNKNOWN")


def test_the_same_idempotency_key_gives_the_same_job_and_another_body_is_a_conflict(store: JobStore) -> None:
    key = Idempotency(key="k", digest="a")
    first, _ = store.create(JobKind.INGEST, FOLDER, idempotency=key)
    again, created = store.create(JobKind.INGEST, FOLDER, idempotency=key)
    assert (again.id, created) == (first.id, False)
    with pytest.raises(IdempotencyConflict):
        store.create(JobKind.INGEST, FOLDER, idempotency=Idempotency(key="k", digest="b"))
    assert len(store.list_jobs().jobs) == 1


def test_submits_are_refused_when_too_many_jobs_wait_and_accepted_again_when_one_ends(make: Make) -> None:
    store = make(replace(LASTING, max_waiting_jobs=2))
    first, _ = submit(store), submit(store)
    with pytest.raises(QueueFull):
        submit(store)
    store.create(JobKind.SEARCH, search_of())  # the other lane has a bound of its own
    store.cancel(first.id)
    submit(store)


def test_submits_are_refused_when_the_requests_of_waiting_jobs_are_too_large_together(make: Make) -> None:
    size = len(FOLDER.model_dump_json(exclude_none=True))
    store = make(replace(LASTING, max_waiting_bytes=2 * size + 50))
    first, _ = submit(store), submit(store)
    with pytest.raises(QueueFull):
        submit(store)
    store.create(JobKind.SEARCH, search_of())
    store.cancel(first.id)
    store.cancel(first.id)  # Once more frees nothing more.
    submit(store)
    with pytest.raises(QueueFull):
        submit(store)


def test_a_job_keeps_its_owner_and_is_listed_by_it(store: JobStore) -> None:
    job, _ = store.create(JobKind.INGEST, FOLDER, owner="gallery")
    search, _ = store.create(JobKind.SEARCH, search_of(), owner="museum")
    nobodys = submit(store)
    assert [store.get(one.id).owner for one in (job, search, nobodys)] == ["gallery", "museum", None]
    assert [one.id for one in store.list_jobs(owner="gallery").jobs] == [job.id]
    assert store.list_jobs(owner="museum", kind=JobKind.INGEST).jobs == ()
    assert {one.owner for one in store.list_jobs().jobs} == {"gallery", "museum", None}


def test_an_ingest_goes_from_plan_to_chunks_to_exact_counts(store: JobStore) -> None:
    job = submit(store)
    plan = claim_plan(store)
    assert (plan.job_id, plan.cursor, plan.room, plan.attempts) == (job.id, None, 4, 1)
    assert store.add_chunk(plan, items("a", "b"), cursor="b") == 3
    assert store.add_chunk(plan, items("c"), cursor="d", planned=Planned(failures=(failure("d"),))) == 2
    assert store.get(job.id).progress.total is None
    store.end_plan(plan, finished=True)
    assert store.get(job.id).progress.total == 4

    first = claim_chunk(store)
    assert [item.name for item in first.items] == ["a", "b"]
    outcome = ChunkOutcome(added=1, failures=(failure("b"),))
    assert store.account(first, outcome, result={"collection": "default"}) is Receipt.ACCEPTED
    running = store.get(job.id)
    assert (running.state, running.progress.done) == (JobState.RUNNING, 3)

    assert store.account(claim_chunk(store), ChunkOutcome(unchanged=1)) is Receipt.FINISHED
    done = store.get(job.id)
    assert done.state is JobState.SUCCEEDED
    assert done.progress.model_dump(include={"total", "done", "stored", "unchanged", "failed"}) == {
        "total": 4,
        "done": 4,
        "stored": 1,
        "unchanged": 1,
        "failed": 2,
    }
    assert done.result == {"collection": "default"}
    assert done.created_at <= (done.started_at or done.created_at) <= (done.finished_at or done.created_at)
    assert [line.uri[-1] for line in store.failures(job.id).failures] == ["d", "b"]
    assert store.claim_ingest() is None


def test_an_empty_source_succeeds_with_nothing(store: JobStore) -> None:
    job = planned(store)
    done = store.get(job.id)
    assert (done.state, done.progress.total, done.progress.done) == (JobState.SUCCEEDED, 0, 0)


def test_a_chunk_is_accounted_once(store: JobStore) -> None:
    job = planned(store, items("a"), items("b"))
    claim = claim_chunk(store)
    assert store.account(claim, ChunkOutcome(added=1)) is Receipt.ACCEPTED
    assert store.account(claim, ChunkOutcome(added=1)) is Receipt.REFUSED
    assert store.get(job.id).progress.stored == 1


def test_a_lapsed_chunk_is_claimed_again_and_the_late_result_refused(hasty: JobStore) -> None:
    job = planned(hasty, items("a"))
    late = claim_chunk(hasty)
    assert hasty.sweep().lapsed == 0
    time.sleep(PAST_LEASE_S)
    swept = hasty.sweep()
    assert (swept.lapsed, swept.waiting[Lane.INGEST]) == (1, 1)
    again = claim_chunk(hasty)
    assert (again.number, again.attempts, late.attempts) == (late.number, 2, 1)
    assert hasty.renew(late) is Renewal.LOST
    assert hasty.account(late, ChunkOutcome(added=1)) is Receipt.REFUSED
    assert hasty.account(again, ChunkOutcome(added=1)) is Receipt.FINISHED
    assert hasty.get(job.id).progress.stored == 1


def test_a_renewed_lease_does_not_lapse(hasty: JobStore) -> None:
    planned(hasty, items("a"))
    claim = claim_chunk(hasty)
    for _ in range(4):
        time.sleep(LIMITS.lease_s / 2)
        assert hasty.renew(claim) is Renewal.HELD
        assert hasty.sweep().lapsed == 0


def test_a_lapsed_plan_goes_on_behind_its_last_chunk(hasty: JobStore) -> None:
    submit(hasty)
    late = claim_plan(hasty)
    hasty.add_chunk(late, items("a"), cursor="a")
    time.sleep(PAST_LEASE_S)
    assert hasty.sweep().waiting[Lane.INGEST] == 2
    again = claim_plan(hasty)
    assert (again.cursor, again.attempts) == ("a", 2)
    assert hasty.add_chunk(late, items("b"), cursor="b") is None
    assert hasty.end_plan(late, finished=True) is Receipt.REFUSED
    assert hasty.renew(again) is Renewal.HELD


def test_the_look_ahead_is_bounded_and_refilled_at_half(store: JobStore) -> None:
    submit(store)
    plan = claim_plan(store)
    rooms = [store.add_chunk(plan, items(name), cursor=name) for name in "abcd"]
    assert rooms == [3, 2, 1, 0]
    assert store.end_plan(plan, finished=False) is Receipt.ACCEPTED
    answers = [store.account(claim_chunk(store), ChunkOutcome(added=1)) for _ in range(2)]
    assert answers == [Receipt.ACCEPTED, Receipt.PLAN_DUE]
    again = claim_plan(store)
    assert (again.cursor, again.room, again.attempts) == ("d", 2, 1)


def test_jobs_take_turns(store: JobStore) -> None:
    first, second = submit(store), submit(store)
    for plan in (claim_plan(store), claim_plan(store)):
        for name in "abc":
            store.add_chunk(plan, items(name), cursor=name)
        store.end_plan(plan, finished=True)
    turns = [claim_chunk(store).job_id for _ in range(6)]
    assert turns in ([first.id, second.id] * 3, [second.id, first.id] * 3)


def test_a_chunk_added_again_after_a_lost_answer_is_added_once(store: JobStore) -> None:
    job = submit(store)
    plan = claim_plan(store)
    rooms = [store.add_chunk(plan, items("a"), cursor="a", planned=Planned(failures=(failure("b"),))) for _ in range(2)]
    assert rooms == [3, 3]
    store.end_plan(plan, finished=True)
    assert store.get(job.id).progress.total == 2
    assert store.account(claim_chunk(store), ChunkOutcome(added=1)) is Receipt.FINISHED
    assert (store.get(job.id).progress.done, store.get(job.id).progress.failed) == (2, 1)


def test_a_late_worker_cannot_fail_a_job_that_another_has(hasty: JobStore) -> None:
    job = planned(hasty, items("a"))
    late = claim_chunk(hasty)
    time.sleep(PAST_LEASE_S)
    hasty.sweep()
    claim_chunk(hasty)
    assert not hasty.fail(late, PROBLEM)
    assert hasty.get(job.id).state is JobState.RUNNING


def test_a_split_chunk_comes_back_in_halves_with_one_attempt_left(store: JobStore) -> None:
    job = planned(store, items("a", "b", "c"))
    whole = claim_chunk(store)
    assert store.split(whole)
    assert not store.split(whole)
    halves = [claim_chunk(store), claim_chunk(store)]
    assert sorted("".join(item.name for item in half.items) for half in halves) == ["a", "bc"]
    assert [half.attempts for half in halves] == [LIMITS.max_attempts] * 2
    for half in halves:
        store.account(half, ChunkOutcome(added=len(half.items)))
    assert store.get(job.id).progress.stored == 3
    assert store.get(job.id).state is JobState.SUCCEEDED


def test_a_chunk_of_a_cancelled_job_is_not_handed_out_again_in_halves(store: JobStore) -> None:
    job = planned(store, items("a", "b"))
    whole = claim_chunk(store)
    store.cancel(job.id)
    assert store.split(whole)
    assert store.claim_ingest() is None
    assert store.get(job.id).state is JobState.CANCELLED


def test_work_given_back_waits_its_delay_and_may_keep_its_attempts(store: JobStore) -> None:
    planned(store, items("a"))
    store.give_back(claim_chunk(store), burn_attempt=False)
    claim = claim_chunk(store)
    assert claim.attempts == 1
    store.give_back(claim, delay_s=0.15, burn_attempt=False)
    assert store.sweep().waiting[Lane.INGEST] == 0
    assert store.claim_ingest() is None
    assert store.renew(claim) is Renewal.LOST
    time.sleep(0.2)
    assert store.sweep().waiting[Lane.INGEST] == 1
    assert claim_chunk(store).attempts == 1


def test_a_plan_given_back_waits_its_delay(store: JobStore) -> None:
    submit(store)
    store.give_back(claim_plan(store), delay_s=0.1)
    assert store.claim_ingest() is None
    time.sleep(0.15)
    assert store.sweep().waiting[Lane.INGEST] == 1
    assert claim_plan(store).attempts == 2


def test_cancel_of_a_waiting_job_is_final_at_once(store: JobStore) -> None:
    for job in (submit(store), store.create(JobKind.SEARCH, search_of())[0]):
        assert store.cancel(job.id).state is JobState.CANCELLED
        assert store.cancel(job.id).state is JobState.CANCELLED
    assert store.claim_ingest() is None
    assert not store.claim_searches(limit=8)


def test_cancel_drops_what_waits_and_counts_what_is_in_hand(store: JobStore) -> None:
    job = planned(store, items("a", "b"), items("c"))
    claim = claim_chunk(store)
    asked = store.cancel(job.id)
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    assert store.claim_ingest() is None
    assert store.renew(claim) is Renewal.CANCELLED
    assert store.account(claim, ChunkOutcome(added=1)) is Receipt.FINISHED
    done = store.get(job.id)
    assert (done.state, done.progress.stored, done.progress.total) == (JobState.CANCELLED, 1, 3)


def test_cancel_stops_the_planner(store: JobStore) -> None:
    job = submit(store)
    plan = claim_plan(store)
    store.add_chunk(plan, items("a"), cursor="a")
    assert store.cancel(job.id).state is JobState.RUNNING
    assert store.add_chunk(plan, items("b"), cursor="b") is None
    store.end_plan(plan, finished=False)
    assert store.get(job.id).state is JobState.CANCELLED


def test_a_cancelled_job_ends_although_its_worker_died(hasty: JobStore) -> None:
    ingest = planned(hasty, items("a"))
    claim_chunk(hasty)
    search, _ = hasty.create(JobKind.SEARCH, search_of())
    assert hasty.claim_searches(limit=1)
    for job in (ingest, search):
        assert hasty.cancel(job.id).state is JobState.RUNNING
    time.sleep(PAST_LEASE_S)
    hasty.sweep()
    assert [hasty.get(job.id).state for job in (ingest, search)] == [JobState.CANCELLED] * 2


def test_fail_ends_a_job_and_refuses_its_workers(store: JobStore) -> None:
    job = planned(store, items("a"), items("b"))
    claim = claim_chunk(store)
    assert store.fail(claim, PROBLEM)
    failed = store.get(job.id)
    assert (failed.state, failed.error) == (JobState.FAILED, PROBLEM)
    assert store.account(claim, ChunkOutcome(added=1)) is Receipt.REFUSED
    assert store.claim_ingest() is None
    assert not store.fail(claim, JobError(code="other", message="Later."))
    assert store.get(job.id).error == PROBLEM


def test_searches_are_claimed_together_up_to_the_batch(store: JobStore) -> None:
    jobs = [store.create(JobKind.SEARCH, search_of(queries))[0] for queries in (2, 1, 2)]
    claims = store.claim_searches(limit=4)
    assert [claim.job_id for claim in claims] == [job.id for job in jobs[:2]]
    assert [claim.job_id for claim in store.claim_searches(limit=1)] == [jobs[2].id]
    assert not store.claim_searches(limit=4)


def test_a_search_that_was_tried_before_is_served_alone(store: JobStore) -> None:
    first, second, third = (store.create(JobKind.SEARCH, search_of())[0] for _ in range(3))
    for claim in store.claim_searches(limit=2):
        store.give_back(claim)
    claimed = [[claim.job_id for claim in store.claim_searches(limit=8)] for _ in range(3)]
    assert sorted(claimed[:2]) == sorted([[first.id], [second.id]])
    assert claimed[2] == [third.id]


def test_a_list_leaves_out_what_grows_with_a_job(store: JobStore) -> None:
    store.create(JobKind.SEARCH, search_of(3))
    (listed,) = store.list_jobs().jobs
    assert (listed.request["limit"], "queries" in listed.request, listed.result) == (3, False, None)


def test_a_search_ends_with_its_result_once(store: JobStore) -> None:
    job, _ = store.create(JobKind.SEARCH, search_of(2))
    (claim,) = store.claim_searches(limit=8)
    assert store.get(job.id).state is JobState.RUNNING
    assert store.finish_search(claim, answer(2))
    assert not store.finish_search(claim, answer(2))
    done = store.get(job.id)
    assert (done.state, done.result) == (JobState.SUCCEEDED, answer(2))
    assert (done.progress.total, done.progress.done) == (2, 2)


def test_a_search_ends_with_its_error(store: JobStore) -> None:
    job, _ = store.create(JobKind.SEARCH, search_of(2))
    (claim,) = store.claim_searches(limit=8)
    store.finish_search(claim, PROBLEM)
    failed = store.get(job.id)
    assert (failed.state, failed.error) == (JobState.FAILED, PROBLEM)
    assert (failed.progress.total, failed.progress.done, failed.progress.failed) == (2, 2, 2)


def test_a_lapsed_search_is_claimed_again_first(hasty: JobStore) -> None:
    first, _ = hasty.create(JobKind.SEARCH, search_of())
    (late,) = hasty.claim_searches(limit=1)
    hasty.create(JobKind.SEARCH, search_of())
    time.sleep(PAST_LEASE_S)
    assert hasty.sweep().waiting[Lane.SEARCH] == 2
    (again,) = hasty.claim_searches(limit=1)
    assert (again.job_id, again.attempts) == (first.id, 2)
    assert hasty.renew(late) is Renewal.LOST
    assert not hasty.finish_search(late, answer())


def test_a_running_search_that_is_cancelled_ends_cancelled(store: JobStore) -> None:
    job, _ = store.create(JobKind.SEARCH, search_of())
    (claim,) = store.claim_searches(limit=1)
    store.cancel(job.id)
    assert store.renew(claim) is Renewal.CANCELLED
    store.finish_search(claim, answer())
    done = store.get(job.id)
    assert (done.state, done.result) == (JobState.CANCELLED, None)


def test_waiting_for_a_job_ends_when_it_does(store: JobStore) -> None:
    job, _ = store.create(JobKind.SEARCH, search_of())
    (claim,) = store.claim_searches(limit=1)
    timer = threading.Timer(0.2, store.finish_search, (claim, answer()))
    timer.start()
    began = time.monotonic()
    assert store.wait(job.id, timeout_s=20).state is JobState.SUCCEEDED
    assert time.monotonic() - began < 10
    timer.join()


def test_waiting_ends_with_its_time(store: JobStore) -> None:
    assert store.wait(submit(store).id, timeout_s=0.05).state is JobState.QUEUED


def test_jobs_are_listed_newest_first_in_pages_and_by_kind_and_state(store: JobStore) -> None:
    ingests = []
    for _ in range(3):
        ingests.append(submit(store).id)
        time.sleep(0.002)  # ids grow with the millisecond
    search, _ = store.create(JobKind.SEARCH, search_of())
    page = store.list_jobs(limit=3)
    assert [job.id for job in page.jobs] == [search.id, *reversed(ingests[1:])]
    rest = store.list_jobs(limit=3, cursor=page.next_cursor)
    assert ([job.id for job in rest.jobs], rest.next_cursor) == ([ingests[0]], None)
    store.cancel(ingests[1])
    assert [job.id for job in store.list_jobs(state=JobState.CANCELLED).jobs] == [ingests[1]]
    assert [job.id for job in store.list_jobs(kind=JobKind.SEARCH).jobs] == [search.id]
    assert store.list_jobs(kind=JobKind.SEARCH, state=JobState.FAILED).jobs == ()


@pytest.mark.parametrize(
    "cursor", ["", "bogus", "(", "8" + "0" * 25, "0" * 27, "U" * 26, "0" * 25 + "\n", "0" * 25 + "٣"]
)
def test_a_cursor_that_no_page_of_jobs_gave_is_refused(store: JobStore, cursor: str) -> None:
    submit(store)
    with pytest.raises(InvalidParameter, match="a page of jobs"):
        store.list_jobs(cursor=cursor)


def test_the_ledger_is_paged_and_says_what_it_dropped(store: JobStore) -> None:
    job = planned(store, items(*"abcdefg"))
    lines = tuple(failure(name) for name in "abcdefg")
    store.account(claim_chunk(store), ChunkOutcome(failures=lines))
    first = store.failures(job.id, limit=3)
    rest = store.failures(job.id, limit=3, cursor=first.next_cursor)
    assert (*first.failures, *rest.failures) == lines[: LIMITS.max_failures]
    assert (rest.next_cursor, rest.dropped) == (None, 2)
    assert store.get(job.id).progress.failed == 7
    with pytest.raises(InvalidParameter):
        store.failures(job.id, cursor="nonsense")


def test_the_rate_and_the_time_left_are_known_while_a_job_runs(store: JobStore) -> None:
    job = planned(store, items("a"), items("b"), items("c"))
    for _ in range(2):
        time.sleep(0.02)
        store.account(claim_chunk(store), ChunkOutcome(added=1))
    progress = store.get(job.id).progress
    assert 0 < (progress.images_per_s or 0) < 60
    assert progress.eta_s is not None


def test_workers_are_live_while_they_announce_themselves(hasty: JobStore) -> None:
    model = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="f", dim=2048)
    info = WorkerInfo(
        name="worker-ingest-1",
        lane="ingest",
        host="h",
        pid=1,
        device="cpu",
        engine="torch",
        precision="fp32",
        engine_reason="",
        model=model,
        started_at=hasty.now(),
    )
    gone = info.model_copy(update={"name": "worker-ingest-0"})
    hasty.announce(info)
    hasty.announce(gone)
    hasty.depart(gone)
    assert list(hasty.workers()) == [info]
    time.sleep(PAST_LEASE_S)
    assert list(hasty.workers()) == []


def test_an_expired_job_says_so_while_its_tombstone_lasts(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        store = RedisJobStore(client, replace(LASTING, result_ttl_s=0.3, tombstone_ttl_s=1.5))
        job = planned(store, items("a"))
        store.account(claim_chunk(store), ChunkOutcome(failures=(failure(),)))
        time.sleep(0.4)
        with pytest.raises(JobExpired):
            store.get(job.id)
        assert store.list_jobs().jobs == ()
        store.sweep()
        time.sleep(1.6)
        with pytest.raises(JobNotFound):
            store.get(job.id)
        assert client.keys("*") == []


def test_a_submit_repeated_after_a_lost_answer_makes_one_job(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.jobstore.redis.store.ULID", lambda: "01JSAME")
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        store = RedisJobStore(client, LASTING)
        submit(store), submit(store)
        assert len(store.list_jobs().jobs) == 1
        assert claim_plan(store)
        assert store.claim_ingest() is None
