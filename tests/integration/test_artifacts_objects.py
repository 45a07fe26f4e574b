"""Files of jobs that are kept in an object store, for machines that share no disk."""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lookalike.artifacts import Artifact, Artifacts
from lookalike.errors import ArtifactNotFound, JobNotFound, SourceUnavailable
from lookalike.garbage import collect
from lookalike.settings import Settings
from lookalike.uploads import UploadStore
from object_store import BUCKET

JOB = "01JABC"
DAY_S = 86_400.0

Machine = Callable[[str], Settings]


@pytest.fixture
def machine(s3: Any, tmp_path: Path) -> Machine:  # noqa: ARG001 - the environment names it
    """Make what a machine with a disk of its own has."""

    def make(name: str) -> Settings:
        return Settings(data_dir=tmp_path / name, uploads_url=f"s3://{BUCKET}/lookalike", min_free_bytes=0)

    return make


def keys(s3: Any) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_a_worker_of_one_machine_leaves_the_front_end_of_another_reads(
    s3: Any, machine: Machine, tmp_path: Path
) -> None:
    worker, web = Artifacts.from_settings(machine("worker")), Artifacts.from_settings(machine("web"))
    for part, data in ((10, b"end"), (2, b"old middle, longer"), (0, b"begin "), (2, b"middle ")):
        worker.write(JOB, "a.csv", data, part=part)
    worker.write(JOB, "b.json", b"{}")

    assert keys(s3)[0] == f"lookalike/artifacts/{JOB}/a.csv/00000000"
    assert web.of(JOB) == [Artifact(name="a.csv", size=16), Artifact(name="b.json", size=2)]
    assert b"".join(web.read(JOB, "a.csv")) == b"begin middle end"
    with web.open(JOB, "a.csv") as file:
        assert file.seek(8) == 8
        assert file.read(6) == b"ddle e"
    worker.discard(JOB, "a.csv", part=2)
    worker.discard(JOB, "a.csv", part=3)
    assert b"".join(web.read(JOB, "a.csv")) == b"begin end"
    assert files(tmp_path) == []
    with pytest.raises(ArtifactNotFound):
        web.open(JOB, "c.csv")


def test_a_file_that_is_written_again_while_it_is_read_breaks_off(machine: Machine) -> None:
    artifacts = Artifacts.from_settings(machine("web"))
    artifacts.write(JOB, "a.csv", b"begin")
    artifacts.write(JOB, "a.csv", b"end", part=1)
    with artifacts.open(JOB, "a.csv") as file:
        before = file.etag
        artifacts.write(JOB, "a.csv", b"END", part=1)
        with pytest.raises(SourceUnavailable):
            file.read()
    assert artifacts.open(JOB, "a.csv").etag != before
    artifacts.write(JOB, "a.csv", b"end", part=1)
    assert artifacts.open(JOB, "a.csv").etag == before, "the same bytes again can be gone on with"


class Jobs:
    """A job store that knows one job."""

    def uploads_in_use(self) -> frozenset[str]:
        return frozenset()

    def get(self, job_id: str) -> None:
        if job_id != "live":
            raise JobNotFound


class NoRows:
    def collections(self) -> list[Any]:
        return []


def test_a_clean_up_of_any_machine_removes_what_expired_jobs_left(s3: Any, machine: Machine, tmp_path: Path) -> None:
    for job_id in ("live", "forgotten"):
        Artifacts.from_settings(machine("worker")).write(job_id, "a.csv", b"four", part=3)
    settings = machine("other")
    abandoned = tmp_path / "other" / "artifacts" / "unfinished" / "tmp.unfinished"
    abandoned.parent.mkdir(parents=True)
    abandoned.write_bytes(b"half")
    os.utime(abandoned, (time.time() - 2 * DAY_S,) * 2)
    uploads = UploadStore.from_settings(settings)
    now = time.time()
    assert collect(settings, Jobs(), NoRows(), uploads, dry_run=False, now=now).artifacts == 0  # type: ignore[arg-type]
    for dry_run in (True, False):
        garbage = collect(settings, Jobs(), NoRows(), uploads, dry_run=dry_run, now=now + DAY_S)  # type: ignore[arg-type]
        assert (garbage.artifacts, garbage.freed_bytes) == (1, 4)
    assert keys(s3) == ["lookalike/artifacts/live/a.csv/00000003"]
    assert files(tmp_path) == []


def test_a_store_that_is_out_of_reach_says_so_and_loses_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = machine("web")
    Artifacts.from_settings(settings).write(JOB, "a.csv", b"whole")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        away = Artifacts.from_settings(settings)
        with pytest.raises(SourceUnavailable):
            away.write(JOB, "a.csv", b"new")
        with pytest.raises(SourceUnavailable):
            away.of(JOB)
    assert io.BytesIO(b"".join(Artifacts.from_settings(settings).read(JOB, "a.csv"))).read() == b"whole"
    assert files(tmp_path) == []
