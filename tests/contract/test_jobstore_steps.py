"""Jobs that are done in steps, in the job store on Redis and in its twin in memory."""

import time

import pytest
from jobstores import LIMITS, PAST_LEASE_S, PROBLEM, Make, claim_plan, failure, items, submit

from lookalike.errors import QueueFull
from lookalike.jobstore import JobStore, PlanClaim, Receipt, Renewal, Step, StepClaim
from lookalike.records import DeletionRequest, JobKind, JobState

DELETION = DeletionRequest(filter="album == 'spring'")
RESULT = {"collection": "default", "dry_run": False, "matched": 3, "deleted": 3}


def start(store: JobStore) -> str:
    return store.create(JobKind.DELETION, DELETION)[0].id


def claim_step(store: JobStore) -> StepClaim:
    claim = store.claim_ingest()
    assert isinstance(claim, StepClaim)
    return claim


def test_a_job_goes_from_step_to_step_by_its_checkpoint(store: JobStore) -> None:
    job_id = start(store)
    first = claim_step(store)
    assert (first.job_id, first.kind, first.request, first.checkpoint) == (job_id, JobKind.DELETION, DELETION, None)
    assert store.claim_ingest() is None, "one step at a time"
    assert store.advance(first, Step(checkpoint={"after": "a"}, total=3, processed=2)) is Receipt.PLAN_DUE
    record = store.get(job_id)
    assert (record.state, record.progress.total, record.progress.done) == (JobState.RUNNING, 3, 2)
    second = claim_step(store)
    assert (second.checkpoint, second.attempts) == ({"after": "a"}, 1)
    assert store.advance(second, Step(processed=1, result=RESULT)) is Receipt.FINISHED
    record = store.get(job_id)
    assert (record.state, record.result, record.progress.done) == (JobState.SUCCEEDED, RESULT, 3)
    assert store.claim_ingest() is None


def test_a_step_is_handed_in_once(store: JobStore) -> None:
    job_id = start(store)
    claim = claim_step(store)
    store.advance(claim, Step(checkpoint={"n": 1}, processed=1))
    assert store.advance(claim, Step(checkpoint={"n": 2}, processed=1)) is Receipt.REFUSED
    assert store.get(job_id).progress.done == 1
    assert claim_step(store).checkpoint == {"n": 1}


def test_a_step_whose_worker_died_is_done_again_from_the_same_checkpoint(hasty: JobStore) -> None:
    start(hasty)
    hasty.advance(claim_step(hasty), Step(checkpoint={"n": 1}))
    dead = claim_step(hasty)
    time.sleep(PAST_LEASE_S)
    assert hasty.sweep().lapsed == 1
    again = claim_step(hasty)
    assert (again.checkpoint, again.attempts) == ({"n": 1}, 2)
    assert hasty.advance(dead, Step(processed=5)) is Receipt.REFUSED
    assert hasty.advance(again, Step(checkpoint={"n": 2})) is Receipt.PLAN_DUE
    assert claim_step(hasty).attempts == 1, "attempts are those at one step"


def test_steps_and_ingests_take_turns(store: JobStore) -> None:
    start(store)
    ingest = submit(store)
    plan = None
    kinds = []
    for _ in range(2):
        claim = store.claim_ingest()
        kinds.append(type(claim))
        if isinstance(claim, PlanClaim):
            plan = claim
        elif isinstance(claim, StepClaim):
            store.advance(claim, Step(checkpoint={}))
    assert set(kinds) == {PlanClaim, StepClaim}
    assert plan
    for number in range(3):
        store.add_chunk(plan, items(f"{number}"), cursor=str(number))
    turns = []
    for _ in range(6):
        claim = store.claim_ingest()
        assert claim
        turns.append(claim.job_id == ingest.id)
        if isinstance(claim, StepClaim):
            store.advance(claim, Step(checkpoint={}))
    assert turns.count(True) == 3, "neither waits for the other's end"


def test_a_job_that_is_cancelled_ends_with_the_step_in_hand(store: JobStore) -> None:
    job_id = start(store)
    claim = claim_step(store)
    assert store.cancel(job_id).state is JobState.RUNNING
    assert store.renew(claim) is Renewal.CANCELLED
    assert store.advance(claim, Step(checkpoint={}, processed=2)) is Receipt.FINISHED
    record = store.get(job_id)
    assert (record.state, record.progress.done) == (JobState.CANCELLED, 2)


def test_a_job_that_waits_for_its_next_step_is_cancelled_at_once(store: JobStore) -> None:
    job_id = start(store)
    store.advance(claim_step(store), Step(checkpoint={}))
    assert store.cancel(job_id).state is JobState.CANCELLED
    assert store.claim_ingest() is None


def test_a_step_that_is_given_back_of_a_cancelled_job_ends_it(store: JobStore) -> None:
    job_id = start(store)
    claim = claim_step(store)
    store.cancel(job_id)
    store.give_back(claim, burn_attempt=False)
    assert store.get(job_id).state is JobState.CANCELLED


def test_a_paused_job_stands_still_until_it_is_resumed(store: JobStore) -> None:
    job_id = start(store)
    claim = claim_step(store)
    assert store.pause(job_id).paused
    assert store.renew(claim) is Renewal.PAUSED
    assert store.advance(claim, Step(checkpoint={"n": 1})) is Receipt.ACCEPTED
    assert store.claim_ingest() is None
    store.resume(job_id)
    assert claim_step(store).checkpoint == {"n": 1}


def test_a_step_given_back_for_later_is_claimed_when_its_time_has_come(store: JobStore) -> None:
    start(store)
    store.give_back(claim_step(store), delay_s=0.2, burn_attempt=False)
    assert store.claim_ingest() is None
    time.sleep(0.25)
    store.sweep()
    assert claim_step(store).attempts == 1


def test_failures_of_steps_are_counted_and_kept(store: JobStore) -> None:
    job_id = start(store)
    store.advance(claim_step(store), Step(checkpoint={}, total=4, processed=1, failures=(failure(),)))
    record = store.get(job_id)
    assert (record.progress.done, record.progress.failed) == (2, 1)
    assert record.failure_counts == {"image_corrupt": 1}
    assert len(store.failures(job_id).failures) == 1


def test_a_step_can_fail_its_job(store: JobStore) -> None:
    job_id = start(store)
    assert store.fail(claim_step(store), PROBLEM)
    assert store.get(job_id).error == PROBLEM


def test_all_jobs_in_steps_share_one_bound(make: Make) -> None:
    from dataclasses import replace

    store = make(replace(LIMITS, max_waiting_jobs=1))
    first = start(store)
    with pytest.raises(QueueFull):
        start(store)
    submit(store)
    store.cancel(first)
    start(store)


def test_a_position_counts_all_that_take_turns(store: JobStore) -> None:
    submit(store)
    job_id = start(store)
    assert store.get(job_id).progress.position == 1
    claim_plan(store)
    assert store.get(job_id).progress.position == 0
