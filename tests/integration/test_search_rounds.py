"""Searches that share the network, on real servers and decoders: round after round, each with its own answer."""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ingest_parts import draw, engine_of, ingest, pool_of
from lookalike.errors import FileMissing, QueueUnavailable
from lookalike.jobstore import SearchClaim
from lookalike.jobstore.redis import RedisJobStore
from lookalike.records import JobError, JobKind, JobRecord, JobState, Query, SearchRequest
from lookalike.remote import Fetched
from lookalike_worker.context import Context
from lookalike_worker.lanes import SearchLane
from service import until

Make = Callable[..., Context]
NAMES = [f"p{number:02}.png" for number in range(6)]


def submit(context: Context, *names: str) -> str:
    request = SearchRequest(collection="rounds", queries=tuple(Query(path=name) for name in names), limit=1)
    return context.jobs.create(JobKind.SEARCH, request)[0].id


def found(record: JobRecord) -> list[str]:
    """The name of the closest image to each query."""
    assert record.result, record.error
    return [query["hits"][0]["name"] for query in record.result["queries"]]


def stocked(make_worker: Make, image_root: Path, **changes: object) -> Context:
    """A worker whose collection holds six different pictures."""
    draw(image_root, **{name.removesuffix(".png"): number for number, name in enumerate(NAMES)})
    context = make_worker(**changes)
    assert ingest(context, "rounds").progress.stored == len(NAMES)
    pool_of(context).take("decode")
    engine_of(context).seen.clear()
    return context


def test_searches_that_wait_share_a_forward_pass_and_each_gets_its_own_answer(
    make_worker: Make, image_root: Path
) -> None:
    context = stocked(make_worker, image_root)
    jobs = [submit(context, name) for name in NAMES[:4]] + [submit(context, *reversed(NAMES))]
    SearchLane(context).ring()
    assert engine_of(context).seen == [10]
    records = [context.jobs.get(job_id) for job_id in jobs]
    assert [found(record) for record in records] == [[name] for name in NAMES[:4]] + [NAMES[::-1]]


def test_the_next_round_is_decoded_while_the_network_is_at_this_one(make_worker: Make, image_root: Path) -> None:
    context = stocked(make_worker, image_root, search_batch=1)
    jobs = [submit(context, name) for name in NAMES[:3]]
    decoded: list[list[str]] = []
    engine_of(context).before = lambda: decoded.append(pool_of(context).take("decode"))
    SearchLane(context).ring()
    assert decoded == [NAMES[:2], NAMES[2:3], []]
    assert engine_of(context).seen == [1, 1, 1]
    assert [found(context.jobs.get(job_id)) for job_id in jobs] == [[name] for name in NAMES[:3]]


def test_a_search_that_comes_while_another_is_answered_needs_no_message(make_worker: Make, image_root: Path) -> None:
    context = stocked(make_worker, image_root)
    late: list[str] = []
    engine_of(context).before = lambda: late.append(submit(context, NAMES[1])) if not late else None
    submit(context, NAMES[0])
    SearchLane(context).ring()
    assert found(context.jobs.get(late[0])) == [NAMES[1]]


def test_a_search_that_breaks_the_network_takes_none_with_it_that_was_claimed_after_it(
    make_worker: Make, image_root: Path
) -> None:
    context = stocked(make_worker, image_root, search_batch=1)
    Image.new("RGB", (300, 300), "white").save(image_root / "poison.png")
    poison, healthy = submit(context, "poison.png"), submit(context, NAMES[2])
    lane = SearchLane(context)
    lane.ring()
    assert context.jobs.get(healthy).state is JobState.RUNNING
    (claim,) = context.jobs.claim_searches(limit=1)
    assert (claim.job_id, claim.attempts) == (healthy, 1), "it is back, and its attempt was not counted"
    context.jobs.give_back(claim, burn_attempt=False)
    lane.ring()
    assert found(context.jobs.get(healthy)) == [NAMES[2]]
    assert context.jobs.get(poison).state is JobState.RUNNING, "its lease keeps it, until it is tried again"


def test_a_search_that_was_tried_before_is_alone_with_the_network(make_worker: Make, image_root: Path) -> None:
    context = stocked(make_worker, image_root)
    tried = submit(context, NAMES[0])
    (claim,) = context.jobs.claim_searches(limit=1)
    context.jobs.give_back(claim)
    other = submit(context, NAMES[1])
    held: list[int] = []
    assert isinstance(context.jobs, RedisJobStore)
    store = context.jobs

    def look() -> None:
        held.append(sum(store.get(job_id).state is JobState.RUNNING for job_id in (tried, other)))

    engine_of(context).before = look
    SearchLane(context).ring()
    assert (held, engine_of(context).seen) == ([1, 1], [1, 1])
    assert [found(store.get(job_id)) for job_id in (tried, other)] == [[NAMES[0]], [NAMES[1]]]


def test_a_round_is_answered_although_the_next_one_cannot_be_begun(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = stocked(make_worker, image_root, search_batch=1)
    jobs = [submit(context, name) for name in NAMES[:2]]
    claim_searches, calls = context.jobs.claim_searches, itertools.count(1)

    def away_once(*, limit: int, model: str | None) -> Sequence[SearchClaim]:
        if next(calls) == 2:
            raise QueueUnavailable
        return claim_searches(limit=limit, model=model)

    monkeypatch.setattr(context.jobs, "claim_searches", away_once)
    SearchLane(context).ring()
    assert [found(context.jobs.get(job_id)) for job_id in jobs] == [[name] for name in NAMES[:2]]


class SlowStore:
    """An object store that the second picture lies in, and that is waited for."""

    def __init__(self) -> None:
        self.copy: Future[Fetched] = Future()

    def is_remote(self, uri: str) -> bool:
        return uri.endswith(NAMES[1])

    def fetch(self, _: str) -> Future[Fetched]:
        # What should hold the first search up ends the test.
        threading.Timer(3, self.give_up).start()
        return self.copy

    def give_up(self) -> None:
        if not self.copy.done():
            self.copy.set_exception(FileMissing())


def test_a_round_is_answered_before_the_pictures_of_the_next_are_fetched(make_worker: Make, image_root: Path) -> None:
    context = stocked(make_worker, image_root, search_batch=1)
    store: Any = SlowStore()
    jobs = [submit(context, name) for name in NAMES[:2]]

    uri = context.sources.roots.resolve_file(NAMES[1])

    def arrive() -> None:
        if not store.copy.done():
            store.copy.set_result(Fetched(uri=uri, size=0, mtime_ns=0, etag=""))

    engine_of(context).before = arrive
    SearchLane(replace(context, remote=store)).ring()
    assert [found(context.jobs.get(job_id)) for job_id in jobs] == [[name] for name in NAMES[:2]]


@pytest.mark.usefixtures("keen_keepers")
def test_a_job_store_that_is_away_for_a_moment_loses_no_answer(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = stocked(make_worker, image_root, search_lease_s=60)
    jobs = [submit(context, name) for name in NAMES[:2]]
    finish_search, calls = context.jobs.finish_search, itertools.count(1)

    def away_twice(claim: SearchClaim, outcome: Mapping[str, Any] | JobError) -> bool:
        if next(calls) <= 2:
            raise QueueUnavailable
        return finish_search(claim, outcome)

    monkeypatch.setattr(context.jobs, "finish_search", away_twice)
    SearchLane(context).ring()
    assert [found(context.jobs.get(job_id)) for job_id in jobs] == [[name] for name in NAMES[:2]]
    assert engine_of(context).seen == [2], "nothing was searched twice"


@pytest.mark.usefixtures("keen_keepers")
def test_an_answer_is_dropped_once_its_lease_is_over(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = stocked(make_worker, image_root, search_lease_s=0.3)
    job_id = submit(context, NAMES[0])

    def away(_: SearchClaim, __: Mapping[str, Any] | JobError) -> bool:
        raise QueueUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(context.jobs, "finish_search", away)
        SearchLane(context).ring()  # It ends, and raises nothing.
    until(lambda: context.jobs.sweep().lapsed == 1, timeout_s=10)
    SearchLane(context).ring()
    assert found(context.jobs.get(job_id)) == [NAMES[0]]


@pytest.mark.usefixtures("keen_keepers")
def test_a_job_store_that_is_away_while_pictures_are_decoded_fails_no_search(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = stocked(make_worker, image_root, search_lease_s=60)
    job_id = submit(context, NAMES[0])

    def away(_: SearchClaim) -> None:
        raise QueueUnavailable

    monkeypatch.setattr(context.jobs, "renew", away)
    SearchLane(context).ring()
    assert found(context.jobs.get(job_id)) == [NAMES[0]]
