"""What is told of jobs and kept with them: versions, positions, ledgers, deliveries, uploads. Both stores alike."""

import threading
import time
from dataclasses import replace

import pytest
from jobstores import (
    FOLDER,
    LASTING,
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

from lookalike.errors import JobNotFound
from lookalike.jobstore import ChunkOutcome, Idempotency, IngestItem, JobStore, Planned, WebhookClaim
from lookalike.records import (
    ArchiveSource,
    DeletionRequest,
    Failure,
    FailuresSource,
    IngestRequest,
    JobKind,
    JobState,
    ManifestSource,
    Priority,
    Query,
    Request,
    SearchRequest,
    Stage,
    UploadedFile,
    UploadSource,
    URLsSource,
    WaitingFor,
    Webhook,
    WebhookState,
)

HOOK = FOLDER.model_copy(update={"webhook": Webhook(url="https://example.com/hook")})


def due(store: JobStore) -> WebhookClaim:
    claim = store.claim_webhook()
    assert claim
    return claim


def test_the_version_grows_with_each_change_that_can_be_seen_and_with_no_other(store: JobStore) -> None:
    job = submit(store)
    seen = [job.version]

    def grew() -> bool:
        seen.append(store.get(job.id).version)
        return seen[-1] > seen[-2]

    plan = claim_plan(store)
    assert grew()  # It is running.
    store.add_chunk(plan, items("a", "b"), cursor="b")
    assert not grew()
    store.add_chunk(plan, items("d"), cursor="d", planned=Planned(unchanged=1))
    assert grew()
    store.end_plan(plan, finished=True)
    assert grew()  # Its total is known.
    claim = claim_chunk(store)
    store.renew(claim)
    assert not grew()
    store.give_back(claim, waiting_for=WaitingFor.SOURCE)
    assert grew()
    for change in (store.pause, store.resume):
        change(job.id)
        assert grew()
    store.account(claim_chunk(store), ChunkOutcome(added=2))
    assert grew()
    claim_chunk(store)
    store.cancel(job.id)
    assert grew()
    assert seen[0] > 0


def test_watching_ends_with_the_next_change(store: JobStore) -> None:
    job = submit(store)
    assert (
        store.watch(job.id, after=0, timeout_s=20).version == job.version
    )  # What is older than `after` comes at once.
    timer = threading.Timer(0.2, store.pause, (job.id,))
    timer.start()
    began = time.monotonic()
    changed = store.watch(job.id, after=job.version, timeout_s=20)
    assert (changed.paused, changed.version > job.version) == (True, True)
    assert time.monotonic() - began < 10
    timer.join()
    assert store.watch(job.id, after=changed.version, timeout_s=0.05) == changed
    final = store.cancel(job.id)
    assert store.watch(job.id, after=final.version, timeout_s=20) == final
    search, _ = store.create(JobKind.SEARCH, search_of())
    (claim,) = store.claim_searches(limit=1)
    timer = threading.Timer(0.2, store.finish_search, (claim, answer()))
    timer.start()
    running = store.get(search.id).version
    assert store.watch(search.id, after=running, timeout_s=20).state is JobState.SUCCEEDED
    assert store.get(search.id).version > running
    timer.join()
    with pytest.raises(JobNotFound):
        store.watch("01JUNKNOWN", after=0, timeout_s=0)


def test_a_queued_job_says_how_many_come_before_it(store: JobStore) -> None:
    ingests = [submit(store) for _ in range(3)]
    assert [store.get(job.id).progress.position for job in ingests] == [0, 1, 2]
    claim_plan(store)
    assert [store.get(job.id).progress.position for job in ingests] == [None, 0, 1]
    searches = [store.create(JobKind.SEARCH, search_of())[0] for _ in range(2)]
    assert [job.progress.position for job in searches] == [0, 1]
    store.claim_searches(limit=1)
    assert [store.get(job.id).progress.position for job in searches] == [None, 0]
    assert {job.progress.position for job in store.list_jobs().jobs} == {None}


def test_what_a_submit_returns_is_what_is_stored(store: JobStore) -> None:
    requests: list[tuple[JobKind, Request]] = [
        (JobKind.SEARCH, search_of(3).model_copy(update={"webhook": HOOK.webhook})),
        (JobKind.SEARCH, search_of().model_copy(update={"model": "a" * 64})),
        (JobKind.INGEST, FOLDER.model_copy(update={"sync": True, "priority": Priority.LOW})),
        (JobKind.DELETION, DeletionRequest(filter="size > 0")),
    ]
    for kind, request in requests:
        for owner in (None, "somebody"):
            told, created = store.create(kind, request, owner=owner)
            assert created
            assert told == store.get(told.id)
    assert [job.kind for job in store.list_jobs().jobs] == [kind for kind, _ in reversed(requests) for _ in "12"]


def test_failures_are_counted_by_code_beyond_the_cap_of_the_ledger(store: JobStore) -> None:
    job = submit(store)
    plan = claim_plan(store)
    vanished = Failure(uri="file:///photos/v", code="file_missing", message="Gone.", stage=Stage.LIST)
    store.add_chunk(plan, items(*"abcdef"), cursor="f", planned=Planned(failures=(vanished, vanished)))
    store.end_plan(plan, finished=True)
    told = failure("c").model_copy(update={"metadata": {"year": 1889}})
    store.account(claim_chunk(store), ChunkOutcome(failures=(failure("a"), failure("b"), told, *map(failure, "def"))))
    done = store.get(job.id)
    assert done.failure_counts == {"file_missing": 2, "image_corrupt": 6}
    assert (done.progress.failed, done.failures_dropped) == (8, 3)
    assert store.failures(job.id).failures == (vanished, vanished, failure("a"), failure("b"), told)


def test_a_ledger_is_capped_by_the_bytes_of_its_lines_as_well(make: Make) -> None:
    long = failure("long").model_copy(update={"metadata": {"about": "ü" * 100}})
    short = failure("b")
    room = sum(len(line.model_dump_json().encode()) for line in (long, short, short))
    store = make(replace(LASTING, max_failures_bytes=room))
    job = submit(store)
    plan = claim_plan(store)
    store.add_chunk(plan, items("a"), cursor="a", planned=Planned(failures=(long,)))
    store.end_plan(plan, finished=True)
    store.account(claim_chunk(store), ChunkOutcome(failures=(long, short, long, short)))
    done = store.get(job.id)
    assert store.failures(job.id).failures == (long, short, short)
    assert (done.progress.failed, done.failures_dropped) == (5, 2)
    assert store.failures(job.id).dropped == 2


def test_a_list_leaves_out_addresses(store: JobStore) -> None:
    submit(store, IngestRequest(source=URLsSource(urls=("https://example.com/a.jpg",))))
    assert store.list_jobs().jobs[0].request["source"] == {"type": "urls"}


def test_a_request_as_long_as_it_may_be_comes_with_each_claim(store: JobStore) -> None:
    request = IngestRequest(source=URLsSource(urls=tuple(f"https://example.com/{n}.jpg" for n in range(1000))))
    other = planned(store, items("a"), items("b"), request=request)
    claims = [claim_chunk(store), claim_chunk(store)]
    assert [(claim.job_id, claim.request) for claim in claims] == [(other.id, request)] * 2


def test_an_idempotency_key_is_found_with_its_job_and_digest(store: JobStore) -> None:
    job, _ = store.create(JobKind.INGEST, FOLDER, idempotency=Idempotency(key="k", digest="d"))
    assert store.find_idempotent("k") == (job.id, "d")
    assert store.find_idempotent("other") is None


def test_every_way_to_end_makes_a_delivery_due_once(store: JobStore) -> None:
    ended = [planned(store, request=HOOK).id, submit(store, HOOK).id]
    assert store.get(ended[1]).webhook == WebhookState(state="waiting")
    store.fail(claim_plan(store), PROBLEM)
    search, _ = store.create(JobKind.SEARCH, search_of().model_copy(update={"webhook": HOOK.webhook}))
    store.finish_search(store.claim_searches(limit=1)[0], answer())
    ended += [search.id, store.cancel(submit(store, HOOK).id).id]
    submit(store, HOOK)  # Not yet.
    store.cancel(submit(store).id)  # Not asked for.
    claims = [due(store) for _ in ended]
    assert sorted(claim.record.id for claim in claims) == sorted(ended)
    assert store.claim_webhook() is None
    for claim in claims:
        assert claim.record.state.final
        assert (claim.url, claim.attempts) == ("https://example.com/hook", 1)
        store.end_webhook(claim)
        assert store.get(claim.record.id).webhook == WebhookState(state="delivered", attempts=1)


def test_a_delivery_that_fails_is_tried_again_in_its_time_and_given_up_in_the_end(store: JobStore) -> None:
    job = planned(store, request=HOOK)
    store.end_webhook(due(store), error="503", retry_in_s=0.1)
    assert store.get(job.id).webhook == WebhookState(state="waiting", attempts=1, error="503")
    assert store.claim_webhook() is None
    time.sleep(0.15)
    again = due(store)
    assert again.attempts == 2
    store.end_webhook(again, error="410")
    given_up = WebhookState(state="failed", attempts=2, error="410")
    assert store.get(job.id).webhook == given_up
    store.end_webhook(again)  # Late, and twice.
    assert store.get(job.id).webhook == given_up


def test_a_delivery_whose_courier_died_is_claimed_again(hasty: JobStore) -> None:
    job = planned(hasty, request=HOOK)
    late = due(hasty)
    assert hasty.claim_webhook() is None
    time.sleep(PAST_LEASE_S)
    again = due(hasty)
    assert (again.record.id, again.attempts) == (job.id, 2)
    hasty.end_webhook(late, error="late")
    assert hasty.get(job.id).webhook == WebhookState(state="waiting", attempts=2)
    hasty.end_webhook(again)
    assert hasty.get(job.id).webhook == WebhookState(state="delivered", attempts=2)


def test_uploads_are_in_use_while_a_request_a_ledger_or_a_planned_chunk_names_them(store: JobStore) -> None:
    sha256 = [f"{number:064x}" for number in range(6)]
    uploaded = [UploadedFile(sha256=value, name="x") for value in sha256[:4]]
    submit(store, IngestRequest(source=UploadSource(files=tuple(uploaded[:2]))))
    submit(store, IngestRequest(source=ManifestSource(upload=uploaded[2])))
    store.cancel(submit(store, IngestRequest(source=FailuresSource(job_id="01J"))).id)
    store.create(JobKind.SEARCH, SearchRequest(queries=(Query(upload=uploaded[3]),)))
    for job in store.list_jobs(kind=JobKind.INGEST, state=JobState.QUEUED).jobs:
        store.cancel(job.id)
    submit(store, IngestRequest(source=ArchiveSource(url="https://example.com/a.zip")))
    plan = claim_plan(store)
    store.add_chunk(plan, [IngestItem(uri=f"upload:{sha256[4]}", name="m")], cursor="m")
    broken = Failure(uri=f"upload:{sha256[5]}", code="image_corrupt", message="", stage=Stage.DECODE)
    store.add_chunk(plan, [], cursor="n", planned=Planned(failures=(broken,)))
    assert store.uploads_in_use() == set(sha256)
    store.account(claim_chunk(store), ChunkOutcome(added=1))
    assert store.uploads_in_use() == set(sha256) - {sha256[4]}


def test_uploads_are_found_in_however_many_jobs_and_failures_there_are(make: Make) -> None:
    store = make(replace(LASTING, max_waiting_jobs=1000, max_failures=3000))
    sha256 = [f"{number:064x}" for number in range(2350)]
    for value in sha256[:250]:
        store.cancel(submit(store, IngestRequest(source=UploadSource(files=(UploadedFile(sha256=value),)))).id)
    submit(store)
    lines = tuple(failure().model_copy(update={"uri": f"upload:{value}"}) for value in sha256[250:])
    store.add_chunk(claim_plan(store), [], cursor="z", planned=Planned(failures=lines))
    assert store.uploads_in_use() == set(sha256)
