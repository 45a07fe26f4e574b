"""The planner, on the job store's twin in memory."""

from pathlib import Path

import pytest

from lookalike.errors import InvalidPath
from lookalike.jobstore import ChunkClaim, ChunkOutcome, Lane, Limits, PlanClaim, Receipt
from lookalike.jobstore.memory import MemoryJobStore
from lookalike.records import FolderSource, IngestRequest, JobKind, ModelInfo, UploadedFile, UploadSource, WorkerInfo
from lookalike.roots import Roots, file_uri
from lookalike.settings import Settings
from lookalike_worker.heart import Heart
from lookalike_worker.ingest.planner import Planner


class Rings:
    """A doorbell that counts."""

    def __init__(self) -> None:
        self.times = 0

    def ring(self, lane: Lane, times: int = 1) -> None:
        assert lane is Lane.INGEST
        self.times += times


@pytest.fixture
def jobs() -> MemoryJobStore:
    return MemoryJobStore(Limits.from_settings(Settings(lookahead_chunks=4)))


@pytest.fixture
def rings() -> Rings:
    return Rings()


def planner(jobs: MemoryJobStore, rings: Rings, root: Path) -> Planner:
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
    heart = Heart(jobs, info, every_s=60, limit_s=60)
    return Planner(jobs, rings, Roots([root]), heart, chunk_images=10)


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
            jobs.account(claim, ChunkOutcome(stored=len(claim.items)))
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
