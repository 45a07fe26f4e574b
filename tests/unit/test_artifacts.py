"""Files that jobs leave behind: whole or not there, once however often they are written, and gone with their jobs."""

import errno
import io
import os
import time
from pathlib import Path

import pytest

from lookalike.artifacts import Artifact, Artifacts
from lookalike.errors import ArtifactNotFound, InsufficientStorage, JobExpired, JobNotFound, QueueUnavailable
from lookalike.garbage import collect
from lookalike.jobstore import Limits
from lookalike.jobstore.memory import MemoryJobStore
from lookalike.records import DeletionRequest, JobKind, JobRecord
from lookalike.settings import Settings
from lookalike.uploads import UploadStore

JOB = "01JABC"
HOUR_S = 3600.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, min_free_bytes=0)


@pytest.fixture
def artifacts(settings: Settings) -> Artifacts:
    return Artifacts.from_settings(settings)


def read(artifacts: Artifacts, name: str) -> bytes:
    return b"".join(artifacts.read(JOB, name))


@pytest.mark.parametrize(
    "name", ["", "..", "../b.txt", "a/b.txt", "A.txt", ".txt", "a", "a.b.c.d", "a.txt\n", "a\0.txt"]
)
def test_names_that_could_be_paths_or_are_none_are_refused(artifacts: Artifacts, name: str) -> None:
    with pytest.raises(ValueError, match="no artifact can have the name"):
        artifacts.write(JOB, name, b"data")
    with pytest.raises(ArtifactNotFound):
        artifacts.read(JOB, name)


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "a" * 65, "a\n"])
def test_what_no_job_can_be_called_has_no_files(artifacts: Artifacts, tmp_path: Path, job_id: str) -> None:
    (tmp_path / "artifacts" / "kept").mkdir(parents=True)
    with pytest.raises(ValueError, match="no artifact"):
        artifacts.write(job_id, "a.txt", b"data")
    assert artifacts.of(job_id) == []
    assert artifacts.remove(job_id) == 0
    assert (tmp_path / "artifacts" / "kept").is_dir()


def test_parts_read_as_one_file_in_their_order_and_a_part_takes_the_place_of_the_one_before(
    artifacts: Artifacts,
) -> None:
    for part, data in ((10, b"end"), (2, b"old middle, longer"), (0, b"begin "), (2, b"middle ")):
        artifacts.write(JOB, "a.csv", data, part=part)
    assert read(artifacts, "a.csv") == b"begin middle end"
    assert artifacts.of(JOB) == [Artifact(name="a.csv", size=16)]
    artifacts.discard(JOB, "a.csv", part=2)
    artifacts.discard(JOB, "a.csv", part=3)
    assert read(artifacts, "a.csv") == b"begin end"


def test_a_file_of_parts_can_seek_like_one(artifacts: Artifacts) -> None:
    whole = bytes(range(200))
    for part, begin in enumerate((0, 7, 7, 150)):
        artifacts.write(JOB, "a.npy", whole[begin : (7, 7, 150, 200)[part]], part=part)
    with artifacts.open(JOB, "a.npy") as file:
        assert file.read() == whole
        assert file.seek(0, io.SEEK_END) == 200
        assert file.read() == b""
        for begin in (0, 6, 7, 149, 150, 199):
            assert file.seek(begin) == begin
            assert file.read(60) == whole[begin : begin + 60]


def test_a_writer_that_breaks_off_leaves_nothing_or_what_was_there(artifacts: Artifacts, tmp_path: Path) -> None:
    def break_off(name: str) -> None:
        with artifacts.writing(JOB, name) as file:
            file.write(b"half of it")
            raise RuntimeError("killed")

    artifacts.write(JOB, "old.csv", b"whole")
    for name in ("old.csv", "new.csv"):
        with pytest.raises(RuntimeError, match="killed"):
            break_off(name)
    assert read(artifacts, "old.csv") == b"whole"
    assert artifacts.of(JOB) == [Artifact(name="old.csv", size=5)]
    with pytest.raises(ArtifactNotFound):
        artifacts.open(JOB, "new.csv")
    assert not list(tmp_path.rglob("*.unfinished"))


def test_what_a_killed_writer_left_is_no_part(artifacts: Artifacts, tmp_path: Path) -> None:
    artifacts.write(JOB, "a.csv", b"whole")
    (tmp_path / "artifacts" / JOB / "a.csv" / "tmpabc.unfinished").write_bytes(b"half")
    assert read(artifacts, "a.csv") == b"whole"
    assert artifacts.remove(JOB) == 5
    assert not (tmp_path / "artifacts" / JOB).exists()


def test_a_full_disk_is_said_to_be_one_and_keeps_what_was_there(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.write(JOB, "a.csv", b"whole")
    with pytest.raises(InsufficientStorage):
        Artifacts(tmp_path / "artifacts", min_free_bytes=1 << 62).write(JOB, "a.csv", b"more")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(InsufficientStorage):
            artifacts.write(JOB, "a.csv", b"more")
    assert read(artifacts, "a.csv") == b"whole"
    assert not list(tmp_path.rglob("*.unfinished"))


# --- Clean-ups ------------------------------------------------------------------------------------------------------


class Jobs:
    """A job store of which each id says what became of the job."""

    def uploads_in_use(self) -> frozenset[str]:
        return frozenset()

    def get(self, job_id: str) -> JobRecord:
        if job_id in {"expired", "forgotten"}:
            raise {"expired": JobExpired, "forgotten": JobNotFound}[job_id]
        store = MemoryJobStore(Limits.from_settings(Settings()))
        return store.create(JobKind.DELETION, DeletionRequest(filter="id != ''"))[0]


class Vectors:
    """A vector store without collections."""

    def collections(self) -> list[object]:
        return []


def age(folder: Path, age_s: float) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (time.time() - age_s, time.time() - age_s))


def test_what_jobs_left_goes_once_their_records_are_gone_and_not_before(
    settings: Settings, artifacts: Artifacts, tmp_path: Path
) -> None:
    uploads = UploadStore.from_settings(settings)
    for job_id in ("expired", "forgotten", "live"):
        artifacts.write(job_id, "a.csv", b"four", part=0)
        artifacts.write(job_id, "b.csv", b"and four")
        age(tmp_path / "artifacts" / job_id, 2 * HOUR_S)
    artifacts.write("forgotten", "late.csv", b"written a moment ago")

    for dry_run in (True, False):
        garbage = collect(settings, Jobs(), Vectors(), uploads, dry_run=dry_run)  # type: ignore[arg-type]
        assert (garbage.artifacts, garbage.freed_bytes) == (1, 12), "the expired one"
    assert artifacts.jobs() == ["forgotten", "live"]
    age(tmp_path / "artifacts" / "forgotten", 2 * HOUR_S)
    assert collect(settings, Jobs(), Vectors(), uploads, dry_run=False).artifacts == 1  # type: ignore[arg-type]
    assert artifacts.jobs() == ["live"]


def test_nothing_is_removed_while_the_job_store_cannot_be_asked(
    settings: Settings, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.write("expired", "a.csv", b"four")
    age(tmp_path / "artifacts", 2 * HOUR_S)

    def away(*_: object) -> JobRecord:
        raise QueueUnavailable

    monkeypatch.setattr(Jobs, "get", away)
    with pytest.raises(QueueUnavailable):
        collect(settings, Jobs(), Vectors(), UploadStore.from_settings(settings), dry_run=False)  # type: ignore[arg-type]
    assert artifacts.jobs() == ["expired"]
