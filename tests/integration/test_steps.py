"""Jobs done in steps by a worker's ingest lane, on a real job store and a real vector store."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bad_files import jpeg
from ingest_parts import submit, work_off
from lookalike.errors import VectorStoreUnavailable
from lookalike.jobstore import StepClaim
from lookalike.records import DeletionRequest, FolderSource, JobKind, JobState, WaitingFor
from lookalike_worker import steps
from lookalike_worker.context import Context
from lookalike_worker.lanes import IngestLane
from lookalike_worker.steps import deletion

Make = Callable[..., Context]


@pytest.fixture
def stored(make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A worker whose collection `steps` has seven images, five of them of the album `spring`, and pages of two."""
    monkeypatch.setattr(deletion, "PAGE_IMAGES", 2)
    context = make_worker()
    for album, count in {"spring": 5, "autumn": 2}.items():
        (image_root / album).mkdir()
        for number in range(count):
            (image_root / album / f"{number}.jpg").write_bytes(jpeg())
        work_off(context, submit(context, "steps", source=FolderSource(path=album), metadata={"album": album}))
    yield context
    if "steps" in [record.name for record in context.vectors.collections()]:
        context.vectors.drop("steps")


def delete(context: Context, **fields: object) -> str:
    request = DeletionRequest.model_validate({"collection": "steps", "filter": "album == 'spring'", **fields})
    return context.jobs.create(JobKind.DELETION, request)[0].id


def test_what_a_filter_matches_is_deleted_and_nothing_else(stored: Context) -> None:
    record = work_off(stored, delete(stored, dry_run=True))
    assert (record.result or {})["matched"] == 5
    assert (record.result or {})["deleted"] == 0
    assert stored.vectors.count("steps") == 7
    record = work_off(stored, delete(stored))
    assert (record.state, record.progress.total, record.progress.done) == (JobState.SUCCEEDED, 5, 5)
    assert record.result == {"collection": "steps", "dry_run": False, "matched": 5, "deleted": 5}
    left = stored.vectors.matching("steps", None, after=None, limit=10)
    assert {image.metadata["album"] for image in left} == {"autumn"}
    assert len(left) == 2


def test_a_step_that_was_done_and_not_handed_in_is_done_again_and_counts_once(
    stored: Context,
) -> None:
    job_id = delete(stored)
    lane = IngestLane(stored, lambda: False)
    lane.ring()
    claim = stored.jobs.claim_ingest()
    assert isinstance(claim, StepClaim)
    steps.WORK[JobKind.DELETION](stored, claim, lambda: None)
    stored.jobs.give_back(claim)
    record = work_off(stored, job_id)
    assert (record.state, record.progress.done, stored.vectors.count("steps")) == (JobState.SUCCEEDED, 5, 2)
    assert (record.result or {})["deleted"] == 5
    lane.close()


def test_a_job_waits_for_a_vector_store_that_is_away(stored: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = delete(stored)
    lane = IngestLane(stored, lambda: False)

    def away(*_: object, **__: object) -> int:
        raise VectorStoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(stored.vectors, "count_matching", away)
        lane.ring()
    record = stored.jobs.get(job_id)
    assert (record.state, record.waiting_for) == (JobState.RUNNING, WaitingFor.VECTOR_STORE)
    lane.close()


def test_a_job_whose_collection_is_gone_fails_with_its_code(stored: Context) -> None:
    job_id = delete(stored)
    stored.vectors.drop("steps")
    record = work_off(stored, job_id)
    assert record.state is JobState.FAILED
    assert record.error
    assert record.error.code == "collection_not_found"


def test_a_step_that_comes_up_among_chunks_is_done_after_them_and_nothing_is_lost(
    stored: Context, image_root: Path
) -> None:
    for number in range(10, 16):
        (image_root / f"{number}.jpg").write_bytes(jpeg())
    ingest = submit(stored, "steps")
    deletion_id = delete(stored)
    assert work_off(stored, ingest).state is JobState.SUCCEEDED
    assert work_off(stored, deletion_id).state is JobState.SUCCEEDED
    assert stored.vectors.count("steps") == 8


def test_what_matches_no_more_when_its_page_is_deleted_stays(stored: Context) -> None:
    job_id = delete(stored)
    lane = IngestLane(stored, lambda: False)
    lane.ring()
    page = stored.vectors.matching("steps", "album == 'spring'", after=None, limit=2)
    stored.vectors.patch_metadata("steps", page[0].id, {"album": "kept"})
    record = work_off(stored, job_id)
    assert (record.state, (record.result or {})["deleted"]) == (JobState.SUCCEEDED, 4)
    left = stored.vectors.matching("steps", None, after=None, limit=10)
    assert sorted(image.metadata["album"] for image in left) == ["autumn", "autumn", "kept"]
    lane.close()
