"""The planner, on the job store's twin in memory."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from lookalike.broker import Doorbell
from lookalike.decodepool import DecodePool
from lookalike.errors import InvalidPath
from lookalike.jobstore import Change, ChunkClaim, ChunkOutcome, Lane, Limits, PlanClaim, Receipt
from lookalike.jobstore.memory import MemoryJobStore
from lookalike.listing import Listed, Lister
from lookalike.records import FolderSource, IngestRequest, JobKind, ModelInfo, UploadedFile, UploadSource, WorkerInfo
from lookalike.roots import OpenedFile, Roots, file_uri, image_id
from lookalike.settings import Settings
from lookalike.sources import Sources
from lookalike.vectorstore import RowState, VectorStore
from lookalike_worker import keeping
from lookalike_worker.context import Context
from lookalike_worker.heart import Heart
from lookalike_worker.ingest.forecast import Forecast
from lookalike_worker.ingest.planner import Planner


class Rings:
    """A doorbell that counts."""

    def __init__(self) -> None:
        self.times = 0

    def ring_enough(self, lane: Lane) -> None:
        assert lane is Lane.INGEST
        self.times += 1


@pytest.fixture
def jobs() -> MemoryJobStore:
    return MemoryJobStore(Limits.from_settings(Settings(lookahead_chunks=4)))


@pytest.fixture
def rings() -> Rings:
    return Rings()


class Rows:
    """A vector store that holds the states of some images, and remembers what it was asked."""

    def __init__(self, states: dict[str, RowState] | None = None) -> None:
        self.held = states or {}
        self.asked: list[int] = []

    def count(self, _: str) -> int:
        return len(self.held)

    def states(self, _: str, ids: Sequence[str], *, settled: bool) -> dict[str, RowState]:
        assert settled
        self.asked.append(len(ids))
        return {image: self.held[image] for image in ids if image in self.held}


def planner(jobs: MemoryJobStore, rings: Rings, root: Path, rows: Rows | None = None) -> Planner:
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
        started_at=jobs.now(),
    )
    settings = Settings(chunk_images=10, data_dir=root.parent / "data", roots=(root,))
    sources = Sources.from_settings(settings)
    nothing = cast(Any, None)  # A planner has no use for it.
    context = Context(
        settings=settings,
        jobs=jobs,
        doorbell=cast(Doorbell, rings),
        sources=sources,
        decoders=cast(DecodePool, nothing),
        embedder=nothing,
        vectors=cast(VectorStore, rows or Rows()),
        heart=Heart(jobs, info, every_s=60, limit_s=60),
        lister=Lister(sources.roots, Uploads(), nothing, jobs),
        remote=nothing,
        artifacts=nothing,
    )
    return Planner(context)


class Uploads:
    """An upload store in which everything is."""

    def put(self, _: object) -> str:
        raise AssertionError

    def open(self, _: str) -> OpenedFile:
        raise AssertionError

    def size(self, _: str) -> int:
        return 1


def state_of(path: Path, **changes: Any) -> dict[str, RowState]:
    """A file as it is stored."""
    status = path.stat()
    fields = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "metadata": {}, **changes}
    return {image_id(file_uri(path)): RowState(etag="", job="earlier", sha256="0" * 64, **fields)}


def folder_of(root: Path, files: int) -> IngestRequest:
    for number in range(files):
        (root / f"{number:03}.jpg").touch()
    return IngestRequest(source=FolderSource(path="."))


def claim_plan(jobs: MemoryJobStore) -> PlanClaim:
    claim = jobs.claim_ingest()
    assert isinstance(claim, PlanClaim)
    return claim


def drain(jobs: MemoryJobStore, planner: Planner) -> list[str]:
    """Do all the work there is; returns the files in the order of their chunks."""
    seen: list[str] = []
    while claim := jobs.claim_ingest():
        if isinstance(claim, PlanClaim):
            planner.plan(claim)
        else:
            seen += [item.uri for item in claim.items]
            jobs.account(claim, ChunkOutcome(added=len(claim.items)))
    return seen


def test_every_file_is_in_one_chunk_and_the_look_ahead_is_never_exceeded(
    jobs: MemoryJobStore, rings: Rings, tmp_path: Path
) -> None:
    job, _ = jobs.create(JobKind.INGEST, folder_of(tmp_path, 95))
    assert planner(jobs, rings, tmp_path).plan(claim_plan(jobs)) is Receipt.ACCEPTED
    assert rings.times == 4
    assert jobs.get(job.id).progress.total is None
    seen = drain(jobs, planner(jobs, rings, tmp_path))
    assert seen == [file_uri(tmp_path / f"{number:03}.jpg") for number in range(95)]
    assert jobs.get(job.id).progress.total == 95
    assert rings.times == 10


def test_another_planner_goes_on_where_a_dead_one_stopped(jobs: MemoryJobStore, rings: Rings, tmp_path: Path) -> None:
    job, _ = jobs.create(JobKind.INGEST, folder_of(tmp_path, 30))
    dead = claim_plan(jobs)
    survivor = planner(jobs, rings, tmp_path)
    jobs.add_chunk(dead, [], cursor=None)
    jobs.give_back(dead)
    survivor.plan(claim_plan(jobs))
    (tmp_path / "0000.jpg").touch()  # sorts behind the first file, before the cursor
    assert len(set(drain(jobs, planner(jobs, rings, tmp_path)))) == 30
    assert jobs.get(job.id).progress.stored == 30


def test_uploads_are_planned_by_their_hashes(jobs: MemoryJobStore, rings: Rings, tmp_path: Path) -> None:
    files = tuple(UploadedFile(sha256=f"{number:064x}", name=f"{number}.jpg") for number in range(25))
    jobs.create(JobKind.INGEST, IngestRequest(source=UploadSource(files=files)))
    planner(jobs, rings, tmp_path).plan(claim_plan(jobs))
    chunk = jobs.claim_ingest()
    assert isinstance(chunk, ChunkClaim)
    assert [item.name for item in chunk.items] == [f"{number}.jpg" for number in range(10)]
    assert chunk.items[0].uri == f"upload:{0:064x}"


def test_a_picture_uploaded_twice_is_one_image(jobs: MemoryJobStore, rings: Rings, tmp_path: Path) -> None:
    files = tuple(UploadedFile(sha256=f"{number % 15:064x}", name=f"{number}.jpg") for number in range(30))
    job, _ = jobs.create(JobKind.INGEST, IngestRequest(source=UploadSource(files=files)))
    assert len(set(drain(jobs, planner(jobs, rings, tmp_path)))) == 15
    assert jobs.get(job.id).progress.total == 15


def test_a_folder_outside_the_roots_is_refused(jobs: MemoryJobStore, rings: Rings, tmp_path: Path) -> None:
    jobs.create(JobKind.INGEST, IngestRequest(source=FolderSource(path="/etc")))
    with pytest.raises(InvalidPath):
        planner(jobs, rings, tmp_path).plan(claim_plan(jobs))


def test_a_cancelled_job_is_planned_no_further(jobs: MemoryJobStore, rings: Rings, tmp_path: Path) -> None:
    job, _ = jobs.create(JobKind.INGEST, folder_of(tmp_path, 30))
    claim = claim_plan(jobs)
    jobs.cancel(job.id)
    planner(jobs, rings, tmp_path).plan(claim)
    assert rings.times == 0
    assert jobs.get(job.id).state.final


def test_only_what_differs_from_the_collection_gets_into_chunks(
    jobs: MemoryJobStore, rings: Rings, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    request = folder_of(root, 6)
    held = [state_of(root / f"{number:03}.jpg") for number in range(3)]
    held += [state_of(root / "003.jpg", mtime_ns=1), state_of(root / "004.jpg", size=7)]
    rows = Rows({image: state for entry in held for image, state in entry.items()})
    job, _ = jobs.create(JobKind.INGEST, request)
    planner(jobs, rings, root, rows).plan(claim_plan(jobs))
    chunk = jobs.claim_ingest()
    assert isinstance(chunk, ChunkClaim)
    assert [(item.name, item.change) for item in chunk.items] == [
        ("003.jpg", Change.CHANGED),
        ("004.jpg", Change.CHANGED),
        ("005.jpg", Change.ADDED),
    ]
    assert jobs.get(job.id).progress.unchanged == 3


def test_metadata_that_a_row_lacks_makes_its_file_a_changed_one(
    jobs: MemoryJobStore, rings: Rings, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    request = folder_of(root, 2).model_copy(update={"metadata": {"album": "spring"}})
    rows = Rows(state_of(root / "000.jpg", metadata={"album": "spring", "year": 2024}) | state_of(root / "001.jpg"))
    jobs.create(JobKind.INGEST, request)
    planner(jobs, rings, root, rows).plan(claim_plan(jobs))
    chunk = jobs.claim_ingest()
    assert isinstance(chunk, ChunkClaim)
    assert [item.name for item in chunk.items] == ["001.jpg"]


def test_nothing_is_looked_up_in_a_collection_that_is_empty(jobs: MemoryJobStore, rings: Rings, tmp_path: Path) -> None:
    jobs.create(JobKind.INGEST, folder_of(tmp_path, 30))
    rows = Rows()
    planner(jobs, rings, tmp_path, rows).plan(claim_plan(jobs))
    assert rows.asked == []


class Endless:
    """A lister of unchanged files that never ends, and tells how many it has listed."""

    def __init__(self, image: Path, pause_s: float) -> None:
        self.uri, self.status, self.pause_s = file_uri(image), image.stat(), pause_s
        self.listed = 0

    def list(self, _: IngestRequest, *, after: str | None, keep: Any) -> Iterator[Listed]:
        for number in range(int(after or 0) + 1, 10**9):
            self.listed = number
            time.sleep(self.pause_s)
            keep()
            yield Listed(self.uri, "a.jpg", str(number), size=self.status.st_size, mtime_ns=self.status.st_mtime_ns)


def test_unchanged_files_show_as_progress_long_before_a_chunk_is_full_and_a_cancel_is_heard_meanwhile(
    jobs: MemoryJobStore, rings: Rings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEEP_EVERY_S", 0.05)
    root = tmp_path / "root"
    root.mkdir()
    job, _ = jobs.create(JobKind.INGEST, folder_of(root, 1))
    mine = planner(jobs, rings, root, Rows(state_of(root / "000.jpg")))
    endless = Endless(root / "000.jpg", 0.002)
    mine._context = replace(mine._context, lister=cast(Lister, endless))
    claim = claim_plan(jobs)
    with ThreadPoolExecutor(1) as thread:
        planned = thread.submit(mine.plan, claim)
        while jobs.get(job.id).progress.unchanged < 100:
            assert not planned.done()
            time.sleep(0.02)
        assert jobs.get(job.id).progress.total is None
        jobs.cancel(job.id)
        listed = endless.listed
        planned.result(timeout=5)
    assert endless.listed < listed + 2000
    assert jobs.get(job.id).state.final
    mine.close()


def test_a_planner_counts_ahead_so_that_the_time_left_is_known_long_before_the_listing_ends(
    jobs: MemoryJobStore, rings: Rings, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    job, _ = jobs.create(JobKind.INGEST, folder_of(root, 400))
    mine = planner(jobs, rings, root)
    while (progress := jobs.get(job.id).progress).eta_s is None:
        claim = jobs.claim_ingest()
        if isinstance(claim, PlanClaim):
            mine.plan(claim)
        else:
            assert claim
            jobs.account(claim, ChunkOutcome(added=len(claim.items)))
        time.sleep(0.005)
    mine.close()
    assert progress.total is None
    assert progress.images_per_s
    # Rounded to tenths both; the whole folder was foreseen.
    assert progress.eta_s == pytest.approx((400 - progress.done) / progress.images_per_s, abs=0.1)


def test_a_forecast_is_told_once_and_begun_only_with_the_listing(jobs: MemoryJobStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    job, _ = jobs.create(JobKind.INGEST, folder_of(root, 7))
    claim = claim_plan(jobs)
    forecast = Forecast(Lister(Roots([root]), Uploads(), cast(Any, None), jobs))
    forecast.begin(replace(claim, cursor="003.jpg"))
    forecast.begin(replace(claim, job_id="another"))
    deadline = time.monotonic() + 60
    while not (told := forecast.tell("another")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert told == 7
    forecast.begin(replace(claim, job_id="another"))
    forecast.close()
    assert (forecast.tell("another"), forecast.tell(job.id)) == (0, 0)
