"""Ingests that are stopped, interrupted, held up or short of memory: what is stored, counted, and not lost."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bad_files import jpeg
from ingest_parts import (
    MeanColours,
    after_batches,
    counts,
    draw,
    engine_of,
    ingest,
    many,
    pool_of,
    submit,
    work_off,
)
from lookalike.errors import VectorStoreUnavailable
from lookalike.jobstore import ChunkClaim, Lane
from lookalike.records import JobState
from lookalike.settings import Settings
from lookalike_worker import lanes
from lookalike_worker.context import Context
from lookalike_worker.engines.halving import Halving
from lookalike_worker.lanes import IngestLane
from lookalike_worker.model import Embedder

Make = Callable[..., Context]


pytestmark = pytest.mark.usefixtures("keen_keepers")


# --- Cancel, pause, resume ------------------------------------------------------------------------------------------


def test_a_cancel_stops_after_one_batch_and_counts_what_is_stored(make_worker: Make, image_root: Path) -> None:
    many(image_root, 40)
    context = make_worker(chunk_images=40)
    job_id = submit(context, "cancelled")
    after_batches(context, 2, lambda: context.jobs.cancel(job_id))
    record = work_off(context, job_id)
    assert record.state is JobState.CANCELLED
    assert engine_of(context).seen == [4, 4, 4], "the batch under way, and none after it"
    assert record.progress.stored == context.vectors.count("cancelled") == 12


def test_a_paused_job_stands_still_and_then_goes_on_to_exact_counts(make_worker: Make, image_root: Path) -> None:
    many(image_root, 40)
    draw(image_root, twin=1)
    context = make_worker(chunk_images=20)
    job_id = submit(context, "paused")
    after_batches(context, 2, lambda: context.jobs.pause(job_id))
    lane = IngestLane(context, stopping=lambda: False)
    for _ in range(5):
        lane.ring()
    held = context.jobs.get(job_id)
    assert (held.state, held.paused, held.progress.done) == (JobState.RUNNING, True, 0)
    assert engine_of(context).seen == [4, 4, 4]
    assert context.vectors.count("paused") == 12, "what was embedded is stored"
    assert context.jobs.claim_ingest() is None

    context.jobs.resume(job_id)
    record = work_off(context, job_id, lane=lane)
    assert counts(record) == {"added": 41, "duplicates": 1}
    assert sum(engine_of(context).seen) == 40, "nothing is embedded twice"
    lane.close()


def test_a_pause_burns_no_attempt(make_worker: Make, image_root: Path) -> None:
    many(image_root, 30)
    context = make_worker(chunk_images=30)
    job_id = submit(context, "patient")
    lane = IngestLane(context, stopping=lambda: False)
    lane.ring()
    for _ in range(context.settings.max_attempts + 1):
        after_batches(context, 0, lambda: context.jobs.pause(job_id))
        lane.ring()
        context.jobs.resume(job_id)
    claim = context.jobs.claim_ingest()
    assert isinstance(claim, ChunkClaim)
    assert (claim.attempts, claim.fresh) == (1, False)
    lane.close()


def test_a_worker_that_dies_after_its_upsert_counts_its_files_once(make_worker: Make, image_root: Path) -> None:
    many(image_root, 8)
    draw(image_root, twin=1)
    context = make_worker(chunk_images=9)
    dead = Killed("before_accounting")
    job_id = submit(context, "died")
    lane = IngestLane(replace(context, crash=dead), stopping=lambda: False)  # type: ignore[arg-type]
    lane.ring()
    with pytest.raises(Killed.Now):
        lane.ring()
    assert context.vectors.count("died") == 9
    record = work_off(context, job_id)
    assert counts(record) == {"added": 9, "duplicates": 1}
    assert sum(engine_of(context).seen) == 8
    lane.close()


def test_a_worker_that_was_asleep_for_longer_than_its_lease_writes_nothing_any_more(
    make_worker: Make, image_root: Path
) -> None:
    many(image_root, 2)
    context = make_worker(lease_s=0.2)
    submit(context, "asleep")

    def successor() -> None:
        time.sleep(0.3)
        assert context.jobs.sweep().lapsed == 1
        claim = context.jobs.claim_ingest()
        assert isinstance(claim, ChunkClaim)

    after_batches(context, 0, successor)
    lane = IngestLane(context, stopping=lambda: False)
    lane.ring()
    lane.ring()
    lane.close()
    assert engine_of(context).seen == [2]
    assert context.vectors.count("asleep") == 0, "they may have been removed again by now"


class Killed:
    """Crash points that raise what no lane catches, in the place of a SIGKILL."""

    class Now(BaseException):
        """The process is gone."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.reached: list[str] = []

    def reach(self, point: str) -> None:
        self.reached.append(point)
        if point == self.point:
            raise self.Now


def test_every_crash_point_is_on_the_way_of_an_ordinary_ingest(make_worker: Make, image_root: Path) -> None:
    many(image_root, 16)
    context = make_worker()
    points = Killed("none")
    work_off(replace(context, crash=points), submit(context, "points"))  # type: ignore[arg-type]
    assert set(points.reached) == {
        "after_pop",
        "after_claim",
        "after_plan_chunk",
        "mid_batch",
        "before_upsert",
        "after_upsert",
        "before_accounting",
        "after_accounting",
    }


# --- Single files ---------------------------------------------------------------------------------------------------


def test_a_decoder_that_died_of_something_else_is_given_the_file_once_more(make_worker: Make, image_root: Path) -> None:
    for name in ("abort-once-a.jpg", "abort-b.jpg", "c.jpg"):
        (image_root / name).write_bytes(jpeg())
    context = make_worker()
    record = ingest(context, "retried")
    assert counts(record) == {"added": 2, "failed": 1}
    (failure,) = context.jobs.failures(record.id).failures
    assert (failure.name, failure.code, failure.attempts) == ("abort-b.jpg", "decoder_crashed", 2)
    assert sorted(pool_of(context).take("decode")) == sorted(["abort-once-a.jpg", "abort-b.jpg"] * 2 + ["c.jpg"])


def test_the_time_of_an_ingest_is_split_by_stage(make_worker: Make, image_root: Path) -> None:
    many(image_root, 8)
    stages = ingest(make_worker(), "timed").progress.stages
    assert stages
    assert min(stages.read_s, stages.decode_s, stages.store_s) > 0
    assert stages.embed_s >= 0


# --- Self-protection ------------------------------------------------------------------------------------------------


class Small(MeanColours):
    """A network that runs out of memory for batches above a size."""

    fits = 3

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(images) > self.fits:
            raise RuntimeError("CUDA error: out of memory")
        return super().embed(images)


def test_an_ingest_that_runs_out_of_memory_goes_on_with_smaller_batches(make_worker: Make, image_root: Path) -> None:
    many(image_root, 16)
    context = make_worker(chunk_images=16)
    small = Small(batch_images=8)
    embedder = Embedder(engine=Halving(small), model=context.embedder.model, reason="")
    record = ingest(replace(context, embedder=embedder), "small")
    assert counts(record) == {"added": 16}
    assert max(small.seen) == 2, "eight, halved twice"
    assert embedder.engine.batch_images == 2


def test_one_image_that_does_not_fit_into_the_memory_is_its_own_failure(make_worker: Make, image_root: Path) -> None:
    many(image_root, 2)
    context = make_worker()
    none = Small(batch_images=8)
    none.fits = 0
    embedder = Embedder(engine=Halving(none), model=context.embedder.model, reason="")
    record = ingest(replace(context, embedder=embedder), "none")
    assert counts(record) == {"failed": 2}
    assert {failure.code for failure in context.jobs.failures(record.id).failures} == {"gpu_oom"}


def test_a_removal_that_is_done_again_counts_once(
    make_worker: Make, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_LONGEST_PAUSE_S", 0.0)
    many(image_root, 4)
    context = make_worker()
    ingest(context, "removing")
    (image_root / "p00.png").unlink()
    delete = context.vectors.delete

    def deletes_and_loses_the_answer(name: str, ids: list[str]) -> int:
        delete(name, ids)
        monkeypatch.setattr(context.vectors, "delete", delete)
        raise VectorStoreUnavailable

    monkeypatch.setattr(context.vectors, "delete", deletes_and_loses_the_answer)
    assert counts(ingest(context, "removing", sync=True)) == {"unchanged": 3, "removed": 1}
    assert context.vectors.count("removing") == 3


def test_a_worker_that_hangs_in_a_driver_ends_itself_and_its_work_is_taken_over(
    make_worker: Make, image_root: Path, worker_settings: Settings
) -> None:
    many(image_root, 4)
    context = make_worker()
    job_id = submit(context, "hung")
    context.doorbell.ring(Lane.INGEST)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "LOOKALIKE_REDIS_URL": worker_settings.redis_url.get_secret_value(),
        "LOOKALIKE_MILVUS_URI": worker_settings.milvus_uri or "",
        "LOOKALIKE_DATA_DIR": str(worker_settings.data_dir),
        "LOOKALIKE_ROOTS": str(image_root),
        "LOOKALIKE_LEASE_S": "2",
        "LOOKALIKE_TASK_LIMIT_S": "1.5",
        "LOOKALIKE_SWEEP_S": "0.5",
    }
    script = Path(__file__).with_name("hanging_worker.py")
    ended = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 1, ended.stderr[-3000:]
    assert b"Timeout (" in ended.stderr, "the watchdog says where it hung"
    assert counts(work_off(context, job_id)) == {"added": 4}
