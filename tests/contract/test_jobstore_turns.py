"""Whose turn it is: shares and priorities, standing still, phases, and what a job waits for. Both stores alike."""

import time
from collections import Counter
from dataclasses import replace

import pytest
from jobstores import (
    FOLDER,
    LASTING,
    LIMITS,
    PAST_LEASE_S,
    Make,
    claim_chunk,
    claim_plan,
    failure,
    items,
    planned,
    search_of,
    submit,
)

from lookalike.jobstore import Change, ChunkOutcome, IngestItem, JobStore, Lane, Phase, Planned, Receipt, Renewal
from lookalike.records import IngestRequest, JobKind, JobState, Priority, Stage, WaitingFor

SYNC = FOLDER.model_copy(update={"sync": True})


def with_priority(priority: Priority) -> IngestRequest:
    return FOLDER.model_copy(update={"priority": priority})


def large(make: Make) -> JobStore:
    """A store with room for many chunks of a job."""
    return make(replace(LASTING, lookahead_chunks=200))


def filled(store: JobStore, *requests: IngestRequest, chunks: int) -> list[str]:
    """Jobs that are listed, each with as many chunks waiting."""
    jobs = [submit(store, request) for request in requests]
    for plan in [claim_plan(store) for _ in jobs]:
        for number in range(chunks):
            store.add_chunk(plan, items(str(number)), cursor=str(number))
        store.end_plan(plan, finished=True)
    return [job.id for job in jobs]


def served(store: JobStore, chunks: int) -> list[str]:
    """The jobs of the next chunks, each claimed and accounted."""
    turns = []
    for _ in range(chunks):
        claim = claim_chunk(store)
        store.account(claim, ChunkOutcome(added=1))
        turns.append(claim.job_id)
    return turns


def gone(name: str) -> IngestItem:
    return IngestItem(uri=f"file:///photos/{name}", name=name, change=Change.REMOVED)


@pytest.mark.parametrize("order", [list(Priority), list(reversed(Priority))])
def test_jobs_share_the_workers_by_priority_and_none_starves(make: Make, order: list[Priority]) -> None:
    store = large(make)
    jobs = dict(zip(filled(store, *map(with_priority, order), chunks=100), order, strict=True))
    shares = Counter(jobs[job_id] for job_id in served(store, 105))
    assert {priority: round(share / 5) for priority, share in shares.items()} == {
        Priority.HIGH: 16,
        Priority.NORMAL: 4,
        Priority.LOW: 1,
    }


def test_equal_jobs_interleave_chunk_by_chunk_although_one_comes_late(make: Make) -> None:
    store = large(make)
    (first,) = filled(store, FOLDER, chunks=60)
    served(store, 40)
    second = submit(store).id
    plan = claim_plan(store)
    for name in "abcdefghij":
        store.add_chunk(plan, items(name), cursor=name)
    turns = served(store, 20)
    assert Counter(turns) == {first: 10, second: 10}
    assert all(turns[index] != turns[index + 1] for index in range(19))


def test_a_new_job_does_not_wait_for_all_the_others(make: Make) -> None:
    store = large(make)
    filled(store, *[FOLDER] * 10, chunks=5)
    served(store, 15)
    small = submit(store)
    turns = [store.claim_ingest() for _ in range(7)]
    assert small.id in {claim.job_id for claim in turns if claim}


def test_a_stream_of_new_jobs_does_not_starve_an_old_one(make: Make) -> None:
    store = large(make)
    (old,) = filled(store, FOLDER, chunks=20)
    turns = []
    for _ in range(40):
        submit(store)
        claim = store.claim_ingest()
        assert claim
        turns.append(claim.job_id)
    assert 5 <= turns.count(old) <= 20


def test_a_job_that_had_nothing_to_do_has_no_credit_for_it(make: Make) -> None:
    store = large(make)
    (busy,) = filled(store, FOLDER, chunks=60)
    submit(store)
    plan = claim_plan(store)
    served(store, 30)
    for name in "abcdef":
        store.add_chunk(plan, items(name), cursor=name)
    assert 2 <= served(store, 5).count(busy) <= 3


def test_a_paused_job_hands_out_nothing_until_it_is_resumed(store: JobStore) -> None:
    job = planned(store, items("a"), items("b"))
    held = claim_chunk(store)
    paused = store.pause(job.id)
    assert (paused.state, paused.paused) == (JobState.RUNNING, True)
    assert store.claim_ingest() is None
    assert store.renew(held) is Renewal.PAUSED
    store.give_back(held, burn_attempt=False)
    assert store.claim_ingest() is None
    assert store.sweep().waiting[Lane.INGEST] == 0
    assert store.pause(job.id) == store.get(job.id)  # nothing more to change
    assert not store.resume(job.id).paused
    assert store.sweep().waiting[Lane.INGEST] == 2
    again = claim_chunk(store)
    assert (again.number, again.attempts, again.fresh) == (held.number, 1, False)
    assert store.renew(again) is Renewal.HELD


def test_a_job_paused_before_it_began_stays_queued(store: JobStore) -> None:
    job = submit(store)
    assert store.pause(job.id).state is JobState.QUEUED
    assert store.claim_ingest() is None
    assert store.get(job.id).progress.position is None
    store.resume(job.id)
    assert claim_plan(store).job_id == job.id


def test_a_paused_planner_is_stopped_and_goes_on_where_it_was(store: JobStore) -> None:
    job = submit(store)
    plan = claim_plan(store)
    store.add_chunk(plan, items("a"), cursor="a")
    store.pause(job.id)
    assert store.renew(plan) is Renewal.PAUSED
    assert store.add_chunk(plan, items("b"), cursor="b") is None
    assert store.end_plan(plan, finished=False) is Receipt.ACCEPTED
    assert store.claim_ingest() is None
    store.resume(job.id)
    assert claim_plan(store).cursor == "a"


def test_work_of_a_paused_job_that_lapses_or_was_delayed_stays_with_it(hasty: JobStore) -> None:
    job = planned(hasty, items("a"), items("b"))
    claim_chunk(hasty)
    hasty.give_back(claim_chunk(hasty), delay_s=0.1)
    hasty.pause(job.id)
    time.sleep(PAST_LEASE_S)
    swept = hasty.sweep()
    assert (swept.lapsed, swept.waiting[Lane.INGEST]) == (1, 0)
    assert hasty.claim_ingest() is None
    hasty.resume(job.id)
    assert [claim_chunk(hasty).attempts for _ in range(2)] == [2, 2]


def test_a_paused_job_accounts_for_what_is_in_hand_and_may_end_with_it(store: JobStore) -> None:
    job = planned(store, items("a"))
    claim = claim_chunk(store)
    store.pause(job.id)
    assert store.account(claim, ChunkOutcome(added=1)) is Receipt.FINISHED
    done = store.get(job.id)
    assert (done.state, done.paused) == (JobState.SUCCEEDED, False)
    assert store.pause(job.id) == done


def test_a_paused_job_is_cancelled_at_once(store: JobStore) -> None:
    job = planned(store, items("a"))
    store.pause(job.id)
    cancelled = store.cancel(job.id)
    assert (cancelled.state, cancelled.paused) == (JobState.CANCELLED, False)
    held = planned(store, items("a"), items("b"))
    claim = claim_chunk(store)
    store.pause(held.id)
    asked = store.cancel(held.id)
    assert (asked.state, asked.paused) == (JobState.RUNNING, False)
    assert store.renew(claim) is Renewal.CANCELLED
    assert store.account(claim, ChunkOutcome(added=1)) is Receipt.FINISHED


def test_searches_do_not_stand_still(store: JobStore) -> None:
    job, _ = store.create(JobKind.SEARCH, search_of())
    assert not store.pause(job.id).paused
    assert store.claim_searches(limit=1)


def test_a_job_says_what_it_waits_for_until_its_work_gets_on(store: JobStore) -> None:
    job = planned(store, items("a"), items("b"))
    store.give_back(claim_chunk(store), waiting_for=WaitingFor.VECTOR_STORE)
    assert store.get(job.id).waiting_for is WaitingFor.VECTOR_STORE
    claim = claim_chunk(store)
    assert store.get(job.id).waiting_for is WaitingFor.VECTOR_STORE
    store.account(claim, ChunkOutcome(added=1))
    assert store.get(job.id).waiting_for is None
    store.give_back(claim_chunk(store), waiting_for=WaitingFor.WORKER)
    assert store.cancel(job.id).waiting_for is None


def test_a_planner_that_gets_on_waits_for_nothing(store: JobStore) -> None:
    job = submit(store)
    store.give_back(claim_plan(store), waiting_for=WaitingFor.SOURCE)
    assert store.get(job.id).waiting_for is WaitingFor.SOURCE
    store.add_chunk(claim_plan(store), items("a"), cursor="a")
    assert store.get(job.id).waiting_for is None


def test_counts_say_what_became_of_the_files_and_where_the_time_went(store: JobStore) -> None:
    job = submit(store)
    plan = claim_plan(store)
    changed = IngestItem(uri="file:///photos/d", name="d", change=Change.CHANGED, metadata={"year": 1889})
    for _ in range(2):  # The second is a repeat after a lost answer.
        found = Planned(unchanged=5, failures=(failure("x"),))
        assert store.add_chunk(plan, [*items("a", "b", "c"), changed], cursor="d", planned=found) == 3
    assert store.get(job.id).progress.unchanged == 5
    store.end_plan(plan, finished=True)
    claim = claim_chunk(store)
    assert claim.items == (*items("a", "b", "c"), changed)
    stage_ms = {Stage.LIST: 9, Stage.READ: 10, Stage.DECODE: 1500, Stage.EMBED: 20, Stage.STORE: 1}
    outcome = ChunkOutcome(added=1, changed=1, moved=1, duplicates=1, failures=(failure("c"),), stage_ms=stage_ms)
    store.account(claim, outcome)
    progress = store.get(job.id).progress.model_dump(exclude={"images_per_s"})
    assert progress == {
        "total": 10,
        "done": 10,
        "stored": 3,
        "added": 1,
        "changed": 1,
        "moved": 1,
        "duplicates": 1,
        "unchanged": 5,
        "failed": 2,
        "removed": 0,
        "eta_s": None,
        "position": None,
        "stages": {"read_s": 0.01, "decode_s": 1.5, "embed_s": 0.02, "store_s": 0.001},
    }
    assert store.get(job.id).failure_counts == {"image_corrupt": 2}


def test_only_the_first_claim_of_a_chunk_is_fresh(store: JobStore) -> None:
    planned(store, items("a", "b"), items("c"))
    first, second = claim_chunk(store), claim_chunk(store)
    assert first.fresh
    assert second.fresh
    store.give_back(second, burn_attempt=False)
    assert not claim_chunk(store).fresh
    store.split(first)
    assert [claim_chunk(store).fresh for _ in range(2)] == [False, False]


def test_a_sync_prunes_once_all_it_listed_is_accounted(store: JobStore) -> None:
    job = planned(store, items("a"), items("b"), request=SYNC)
    assert store.get(job.id).progress.total == 2
    assert store.account(claim_chunk(store), ChunkOutcome(added=1)) is Receipt.ACCEPTED
    last = claim_chunk(store)
    assert store.claim_ingest() is None  # not while a chunk is in hand
    assert store.account(last, ChunkOutcome(added=1)) is Receipt.PLAN_DUE
    assert store.sweep().waiting[Lane.INGEST] == 1
    plan = claim_plan(store)
    assert (plan.phase, plan.cursor, plan.attempts, plan.room) == (Phase.PRUNE, None, 1, 4)
    assert store.add_chunk(plan, [gone("y"), gone("z")], cursor="z") == 3
    assert store.end_plan(plan, finished=True) is Receipt.ACCEPTED
    assert store.account(claim_chunk(store), ChunkOutcome(removed=2)) is Receipt.FINISHED
    done = store.get(job.id)
    assert (done.state, done.progress.total, done.progress.done) == (JobState.SUCCEEDED, 2, 2)
    assert (done.progress.removed, done.progress.stored) == (2, 2)


def test_a_sync_without_chunks_prunes_at_once_and_may_be_a_dry_run(store: JobStore) -> None:
    job = submit(store, SYNC.model_copy(update={"dry_run": True}))
    plan = claim_plan(store)
    store.add_chunk(plan, [], cursor="a", planned=Planned(added=3, changed=2, moved=1, unchanged=4))
    assert store.end_plan(plan, finished=True) is Receipt.PLAN_DUE
    prune = claim_plan(store)
    assert prune.phase is Phase.PRUNE
    for _ in range(2):  # Of the same cursor as the first phase's, and once repeated.
        store.add_chunk(prune, [], cursor="a", planned=Planned(removed=7))
    assert store.end_plan(prune, finished=True) is Receipt.FINISHED
    progress = store.get(job.id).progress
    assert (progress.total, progress.done, progress.stored, progress.removed) == (10, 10, 6, 7)


def test_a_removal_that_fails_counts_as_a_failed_file(store: JobStore) -> None:
    job = planned(store, items("a"), request=SYNC)
    store.account(claim_chunk(store), ChunkOutcome(added=1))
    plan = claim_plan(store)
    store.add_chunk(plan, [gone("y"), gone("z")], cursor="z", planned=Planned(failures=(failure("x"),)))
    assert store.get(job.id).progress.total == 2
    store.end_plan(plan, finished=True)
    store.account(claim_chunk(store), ChunkOutcome(removed=1, failures=(failure("y"),)))
    progress = store.get(job.id).progress
    assert (progress.total, progress.done, progress.failed, progress.removed) == (3, 3, 2, 1)


def test_a_sync_may_be_paused_and_cancelled_between_its_phases(store: JobStore) -> None:
    resumed, dropped = (planned(store, items("a"), request=SYNC).id for _ in range(2))
    for claim in [claim_chunk(store), claim_chunk(store)]:
        store.pause(claim.job_id)
        assert store.account(claim, ChunkOutcome(added=1)) is Receipt.ACCEPTED
    assert store.claim_ingest() is None
    assert store.cancel(dropped).state is JobState.CANCELLED
    store.resume(resumed)
    assert claim_plan(store).phase is Phase.PRUNE


def test_a_lapsed_prune_goes_on_behind_its_last_chunk(hasty: JobStore) -> None:
    submit(hasty, SYNC)
    assert hasty.end_plan(claim_plan(hasty), finished=True) is Receipt.PLAN_DUE
    late = claim_plan(hasty)
    hasty.add_chunk(late, [gone("a")], cursor="a")
    time.sleep(PAST_LEASE_S)
    hasty.sweep()
    again = claim_plan(hasty)
    assert (again.phase, again.cursor) == (Phase.PRUNE, "a")
    assert hasty.end_plan(late, finished=True) is Receipt.REFUSED
    assert again.attempts <= LIMITS.max_attempts


def test_the_time_left_goes_by_what_was_foreseen_until_the_listing_ends(store: JobStore) -> None:
    job = submit(store)
    plan = claim_plan(store)
    store.add_chunk(plan, items("a"), cursor="a")
    store.add_chunk(plan, items("b"), cursor="b", planned=Planned(foreseen=2))
    time.sleep(0.02)
    store.account(claim_chunk(store), ChunkOutcome(added=1))
    progress = store.get(job.id).progress
    assert progress.total is None
    assert progress.eta_s is not None
    time.sleep(0.02)
    store.account(claim_chunk(store), ChunkOutcome(added=1))
    assert store.get(job.id).progress.eta_s is None  # The folder grew; nobody knows by how much.
