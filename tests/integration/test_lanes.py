"""The lanes on a real job store, a real vector store and real decoders, with a network that tests can make fail."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bad_files import jpeg
from lookalike.broker import Doorbell
from lookalike.decodepool import DecodePool
from lookalike.errors import VectorStoreRejected
from lookalike.jobstore import Lane
from lookalike.jobstore.redis import RedisJobStore
from lookalike.records import (
    FolderSource,
    IngestRequest,
    JobKind,
    JobRecord,
    JobState,
    ModelInfo,
    Query,
    SearchRequest,
    WorkerInfo,
)
from lookalike.settings import Settings
from lookalike.sources import Sources
from lookalike.vectorstore import StoredImage, VectorStore
from lookalike_worker import lanes
from lookalike_worker.context import Context
from lookalike_worker.heart import Heart
from lookalike_worker.lanes import IngestLane, SearchLane
from lookalike_worker.model import Embedder
from lookalike_worker.sweeper import Sweeper, sweep_once

MOODY = (sys.executable, str(Path(__file__).with_name("moody_decoder.py")))
MODEL = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="a" * 64, dim=12)


@dataclass
class MeanColours:
    """A network that is small: the mean colours of a picture's quarters. Fails on pictures that are all white."""

    name: str = "means"
    device: str = "cpu"
    precision: str = "fp32"
    batch_images: int = 4

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if (images == 255).all(axis=(1, 2, 3)).any():
            raise RuntimeError("white pictures are poison to this network")
        quarters = images.reshape(len(images), 2, 112, 2, 112, 3).mean(axis=(2, 4))
        return quarters.reshape(len(images), 12).astype(np.float32) + 1


class PickyStore(VectorStore):
    """A vector store that refuses rows of a certain name for good."""

    def upsert(self, name: str, images: list[StoredImage], vectors: NDArray[np.float32]) -> None:
        if any(image.name == "refused.jpg" for image in images):
            raise VectorStoreRejected
        super().upsert(name, images, vectors)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(redis_url: str, milvus_uri: str, root: Path, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_url,
        milvus_uri=milvus_uri,
        data_dir=tmp_path / "data",
        roots=(root,),
        collection="lanes",
        lease_s=2,
        search_lease_s=2,
        decode_timeout_s=0.4,
        decode_processes=1,
        chunk_images=8,
    )


Make = Callable[..., Context]


@pytest.fixture
def make(settings: Settings) -> Iterator[Make]:
    made: list[Context] = []

    def make(*, decoder: tuple[str, ...] = MOODY, model: ModelInfo = MODEL, **changes: object) -> Context:
        mine = settings.model_copy(update=changes)
        jobs = RedisJobStore.connect(mine)
        info = WorkerInfo(
            name="worker-test",
            lane="ingest",
            host="h",
            pid=1,
            device="cpu",
            engine="means",
            precision="fp32",
            engine_reason="",
            model=model,
            started_at=jobs.now(),
        )
        context = Context(
            settings=mine,
            jobs=jobs,
            doorbell=Doorbell.connect(mine),
            sources=Sources.from_settings(mine),
            decoders=DecodePool(mine, command=decoder),
            embedder=Embedder(engine=MeanColours(), model=model, reason=""),
            vectors=PickyStore.connect(mine),
            heart=Heart(jobs, info, every_s=0.1, limit_s=60),
        )
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()
        context.jobs.close()  # type: ignore[attr-defined]


def ingest(context: Context, collection: str) -> str:
    request = IngestRequest(collection=collection, source=FolderSource(path="."))
    return context.jobs.create(JobKind.INGEST, request)[0].id


def work_off(context: Context, job_id: str, *, rings: int = 60) -> JobRecord:
    """Ring the ingest lane until the job is final."""
    lane = IngestLane(context, stopping=lambda: False)
    for _ in range(rings):
        lane.ring()
        sweep_once(context.jobs, context.doorbell)
        record = context.jobs.get(job_id)
        if record.state.final:
            return record
        context.jobs.wait(job_id, timeout_s=0.1)
    raise AssertionError(f"not final: {record}")


def draw(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_bytes(jpeg())


def test_many_hanging_files_in_a_row_cost_themselves_and_not_the_lease(make: Make, root: Path) -> None:
    draw(root, *(f"hang-{number}.jpg" for number in range(6)), "a.jpg", "z.jpg")
    context = make()
    job_id = ingest(context, "hanging")
    sweeper = Sweeper(context.jobs, context.doorbell, every_s=0.1)
    sweeper.start()
    try:
        record = work_off(context, job_id)
    finally:
        sweeper.stop()
    assert (record.state, record.progress.stored, record.progress.failed) == (JobState.SUCCEEDED, 2, 6)
    failures = context.jobs.failures(job_id).failures
    assert {(failure.code, failure.attempts) for failure in failures} == {("decode_timeout", 1)}
    assert context.vectors.count("hanging") == 2


def test_a_slow_search_keeps_its_lease_and_is_answered_at_its_first_attempt(make: Make, root: Path) -> None:
    draw(root, "good.jpg", *(f"hang-{number}.jpg" for number in range(6)))
    context = make()
    work_off(context, ingest(context, "slow"))
    queries = tuple(Query(path=path.name) for path in sorted(root.glob("*.jpg")))
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
    make: Make, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_RETRY_PAUSE_S", 0.01)
    from PIL import Image

    draw(root, *(f"{number}.jpg" for number in range(5)))
    Image.new("RGB", (300, 300), "white").save(root / "poison.png")
    context = make()
    record = work_off(context, ingest(context, "poison"))
    assert (record.state, record.progress.stored, record.progress.failed) == (JobState.SUCCEEDED, 5, 1)
    (failure,) = context.jobs.failures(record.id).failures
    assert (failure.uri.rpartition("/")[2], failure.code) == ("poison.png", "quarantined")


def test_rows_that_milvus_refuses_are_found_one_by_one(make: Make, root: Path) -> None:
    draw(root, "a.jpg", "b.jpg", "refused.jpg")
    context = make()
    record = work_off(context, ingest(context, "refusing"))
    assert (record.progress.stored, record.progress.failed) == (2, 1)
    (failure,) = context.jobs.failures(record.id).failures
    assert (failure.code, failure.stage) == ("vector_store_rejected", "store")
    assert context.vectors.count("refusing") == 2


def test_decoders_that_cannot_start_do_not_fail_the_job(make: Make, root: Path) -> None:
    draw(root, "a.jpg")
    broken = make(decoder=("/bin/false",))
    job_id = ingest(broken, "starting")
    lane = IngestLane(broken, stopping=lambda: False)
    for _ in range(2):  # the plan, then the chunk
        lane.ring()
    assert broken.jobs.get(job_id).state is JobState.RUNNING
    assert work_off(make(), job_id).progress.stored == 1


def test_a_worker_with_another_model_refuses_before_it_writes(make: Make, root: Path) -> None:
    draw(root, "a.jpg")
    context = make()
    work_off(context, ingest(context, "bound"))
    draw(root, "b.jpg")
    other = make(model=MODEL.model_copy(update={"fingerprint": "b" * 64}))
    record = work_off(other, ingest(other, "bound"))
    assert (record.state, record.error and record.error.code) == (JobState.FAILED, "model_mismatch")
    assert context.vectors.count("bound") == 1
    job, _ = other.jobs.create(JobKind.SEARCH, SearchRequest(collection="bound", queries=(Query(path="a.jpg"),)))
    SearchLane(other).ring()
    refused = other.jobs.get(job.id)
    assert (refused.state, refused.error and refused.error.code) == (JobState.FAILED, "model_mismatch")


def test_an_ingest_waits_for_the_vector_store_without_burning_attempts(make: Make, root: Path) -> None:
    draw(root, "a.jpg")
    cut_off = make(milvus_uri="http://127.0.0.1:1")
    job_id = ingest(cut_off, "waiting")
    lane = IngestLane(cut_off, stopping=lambda: False)
    for _ in range(2):
        lane.ring()
    assert cut_off.jobs.get(job_id).state is JobState.RUNNING
    context = make()
    record = work_off(context, job_id)
    assert record.progress.stored == 1


def test_a_planner_that_dies_every_time_ends_its_job(make: Make) -> None:
    context = make()
    job_id = ingest(context, "plans")
    for _ in range(context.settings.max_attempts):
        claim = context.jobs.claim_ingest()
        assert claim
        context.jobs.give_back(claim)  # as the sweeper does for a planner that died
    record = work_off(context, job_id)
    assert (record.state, record.error and record.error.code) == (JobState.FAILED, "quarantined")


def test_a_worker_that_is_told_to_end_gives_its_chunk_back_untried(make: Make, root: Path) -> None:
    draw(root, *(f"{number}.jpg" for number in range(8)))
    context = make()
    job_id = ingest(context, "ending")
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
