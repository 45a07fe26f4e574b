"""The lanes on a real job store, a real vector store and real decoders, with a network that tests can make fail."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bad_files import jpeg
from ingest_parts import MODEL, submit, work_off
from lookalike.errors import QueueUnavailable
from lookalike.jobstore import Lane
from lookalike.records import JobKind, JobState, Query, SearchRequest, WaitingFor
from lookalike.vectorstore import StoredImage
from lookalike_worker import keeping, lanes
from lookalike_worker.context import Context
from lookalike_worker.lanes import IngestLane, SearchLane
from lookalike_worker.sweeper import Sweeper

Make = Callable[..., Context]


def draw(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_bytes(jpeg())


def test_many_hanging_files_in_a_row_cost_themselves_and_not_the_lease(make_worker: Make, image_root: Path) -> None:
    draw(image_root, *(f"hang-{number}.jpg" for number in range(4)), "a.jpg", "z.jpg")
    context = make_worker()
    job_id = submit(context, "hanging")
    sweeper = Sweeper(context.jobs, context.doorbell, every_s=0.1)
    sweeper.start()
    try:
        record = work_off(context, job_id)
    finally:
        sweeper.stop()
    assert (record.state, record.progress.stored, record.progress.failed) == (JobState.SUCCEEDED, 2, 4)
    failures = context.jobs.failures(job_id).failures
    assert {(failure.code, failure.attempts) for failure in failures} == {("decode_timeout", 2)}
    assert context.vectors.count("hanging") == 2


def test_a_slow_search_keeps_its_lease_and_is_answered_at_its_first_attempt(
    make_worker: Make, image_root: Path
) -> None:
    draw(image_root, "good.jpg")
    context = make_worker(search_lease_s=4)
    work_off(context, submit(context, "slow"))
    draw(image_root, *(f"hang-{number}.jpg" for number in range(6)))
    queries = tuple(Query(path=path.name) for path in sorted(image_root.glob("*.jpg")))
    job, _ = context.jobs.create(JobKind.SEARCH, SearchRequest(collection="slow", queries=queries))
    sweeper = Sweeper(context.jobs, context.doorbell, every_s=0.1)
    sweeper.start()
    try:
        SearchLane(context).ring()
    finally:
        sweeper.stop()
    record = context.jobs.get(job.id)
    assert record.state is JobState.SUCCEEDED
    assert record.result
    codes = [query["error"] and query["error"]["code"] for query in record.result["queries"]]
    assert codes == [None] + ["decode_timeout"] * 6


def test_a_picture_that_breaks_the_network_is_set_aside_alone(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_RETRY_PAUSE_S", 0.01)
    from PIL import Image

    draw(image_root, *(f"{number}.jpg" for number in range(5)))
    Image.new("RGB", (300, 300), "white").save(image_root / "poison.png")
    context = make_worker()
    record = work_off(context, submit(context, "poison"))
    assert (record.state, record.progress.stored, record.progress.failed) == (JobState.SUCCEEDED, 5, 1)
    (failure,) = context.jobs.failures(record.id).failures
    assert (failure.uri.rpartition("/")[2], failure.code) == ("poison.png", "quarantined")


def test_rows_that_milvus_refuses_are_found_one_by_one(make_worker: Make, image_root: Path) -> None:
    draw(image_root, "a.jpg", "b.jpg", "refused.jpg")
    context = make_worker()
    record = work_off(context, submit(context, "refusing"))
    assert (record.progress.stored, record.progress.failed) == (2, 1)
    (failure,) = context.jobs.failures(record.id).failures
    assert (failure.code, failure.stage) == ("vector_store_rejected", "store")
    assert context.vectors.count("refusing") == 2


def test_a_refused_row_is_counted_once_though_the_job_store_is_away_in_between(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEEP_EVERY_S", 0.05)
    draw(image_root, "a.jpg", "refused.jpg", "z.jpg")
    context = make_worker()
    upsert, outages = context.vectors.upsert, iter([QueueUnavailable()])

    def locked_out(name: str, images: list[StoredImage], vectors: NDArray[np.float32]) -> None:
        if [image.name for image in images] == ["z.jpg"] and (outage := next(outages, None)):
            raise outage
        upsert(name, images, vectors)

    monkeypatch.setattr(context.vectors, "upsert", locked_out)
    record = work_off(context, submit(context, "away"))
    assert (record.progress.total, record.progress.stored, record.progress.failed) == (3, 2, 1)
    assert next(outages, None) is None


def test_decoders_that_cannot_start_fail_neither_the_job_nor_its_files(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_LONGEST_PAUSE_S", 0.0)
    draw(image_root, "a.jpg")
    broken = make_worker(decoder=("/bin/false",))
    job_id = submit(broken, "starting")
    lane = IngestLane(broken, stopping=lambda: False)
    for _ in range(broken.settings.max_attempts + 3):  # the plan, then the chunk
        lane.ring()
        broken.jobs.sweep()
    held_up = broken.jobs.get(job_id)
    assert (held_up.state, held_up.waiting_for) == (JobState.RUNNING, WaitingFor.WORKER)
    assert work_off(make_worker(), job_id).progress.stored == 1


def test_a_worker_with_another_model_refuses_before_it_writes(make_worker: Make, image_root: Path) -> None:
    draw(image_root, "a.jpg")
    context = make_worker()
    work_off(context, submit(context, "bound"))
    draw(image_root, "b.jpg")
    other = make_worker(model=MODEL.model_copy(update={"fingerprint": "b" * 64}))
    record = work_off(other, submit(other, "bound"))
    assert (record.state, record.error and record.error.code) == (JobState.FAILED, "model_mismatch")
    assert context.vectors.count("bound") == 1
    job, _ = other.jobs.create(JobKind.SEARCH, SearchRequest(collection="bound", queries=(Query(path="a.jpg"),)))
    SearchLane(other).ring()
    refused = other.jobs.get(job.id)
    assert (refused.state, refused.error and refused.error.code) == (JobState.FAILED, "model_mismatch")


def test_an_ingest_waits_for_the_vector_store_without_burning_attempts(make_worker: Make, image_root: Path) -> None:
    draw(image_root, "a.jpg")
    cut_off = make_worker(milvus_uri="http://127.0.0.1:1")
    job_id = submit(cut_off, "waiting")
    lane = IngestLane(cut_off, stopping=lambda: False)
    for _ in range(2):
        lane.ring()
    held_up = cut_off.jobs.get(job_id)
    assert (held_up.state, held_up.waiting_for) == (JobState.RUNNING, WaitingFor.VECTOR_STORE)
    context = make_worker()
    record = work_off(context, job_id)
    assert (record.progress.stored, record.waiting_for) == (1, None)


def test_a_planner_that_dies_every_time_ends_its_job(make_worker: Make) -> None:
    context = make_worker()
    job_id = submit(context, "plans")
    for _ in range(context.settings.max_attempts):
        claim = context.jobs.claim_ingest()
        assert claim
        context.jobs.give_back(claim)  # as the sweeper does for a planner that died
    record = work_off(context, job_id)
    assert (record.state, record.error and record.error.code) == (JobState.FAILED, "quarantined")


def test_a_worker_that_is_told_to_end_gives_its_chunk_back_untried(make_worker: Make, image_root: Path) -> None:
    draw(image_root, *(f"{number}.jpg" for number in range(8)))
    context = make_worker()
    job_id = submit(context, "ending")
    answers = iter([False, False, False])  # the plan, the claim of the chunk, its first look around
    lane = IngestLane(context, stopping=lambda: next(answers, True))
    lane.ring()
    lane.ring()
    assert context.jobs.sweep().waiting[Lane.INGEST] == 1
    claim = context.jobs.claim_ingest()
    assert claim
    assert claim.attempts == 1
    context.jobs.give_back(claim)
    assert work_off(context, job_id).progress.stored == 8
