"""A worker dies at every point of its work at which something could be lost or done twice."""

import signal
from pathlib import Path

import pytest

from invariants import assert_invariants, stored_uris
from lookalike.roots import file_uri
from parts import CHUNK_IMAGES, MAX_ATTEMPTS, START_S, Parts, died
from service import until

POINTS = [
    "after_pop",
    "after_claim",
    "after_plan_chunk",
    "mid_batch",
    "before_upsert",
    "after_upsert",
    "before_accounting",
    "after_accounting",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_there_costs_no_file_and_doubles_none(
    unmanned_parts: Parts, tmp_path: Path, point: str
) -> None:
    parts, fuse = unmanned_parts, tmp_path / "fuse"
    fuse.touch()
    # Both are armed, and the one fuse burns once: whoever gets there first dies, and the other goes on.
    parts.start_workers(LOOKALIKE_CRASH_AT=f"{point}@{fuse}")
    ingest = parts.ingest_all(parts.draw(5 * CHUNK_IMAGES + 1))

    assert died(parts).process.returncode == -signal.SIGKILL

    job = assert_invariants(parts, ingest)
    assert not fuse.exists()
    assert job["progress"]["added"] == len(ingest.paths)


def test_files_that_kill_every_worker_are_set_aside_within_their_attempts_and_the_job_ends(
    unmanned_parts: Parts,
) -> None:
    parts = unmanned_parts
    worker = parts.workers["worker-a"]
    ingest = parts.ingest_all(parts.draw(2))
    starts = 0

    def ended() -> bool:
        nonlocal starts
        if not worker.is_alive():
            starts += 1
            worker.start(LOOKALIKE_CRASH_AT="before_upsert")  # Without a fuse: every time.
        return bool(parts.job(ingest.job_id)["finished_at"])

    until(ended, 280, parts.logs)
    worker.kill()
    assert_invariants(parts, ingest, failed=dict.fromkeys(ingest.files, "quarantined"))
    # The chunk as often as allowed, then each of its halves once. A start on a slow machine may cost a lease, too.
    assert 2 <= starts <= MAX_ATTEMPTS + 2 + 1


def test_a_file_that_goes_after_it_was_listed_is_missing_and_the_rest_is_stored(
    unmanned_parts: Parts, tmp_path: Path
) -> None:
    parts, fuse = unmanned_parts, tmp_path / "fuse"
    fuse.touch()
    ingest = parts.ingest_all(parts.draw(CHUNK_IMAGES))
    planner = parts.workers["worker-a"]
    planner.start(LOOKALIKE_CRASH_AT=f"after_plan_chunk@{fuse}")
    until(lambda: not planner.is_alive(), START_S, parts.logs)
    gone = file_uri(ingest.paths[1])
    ingest.paths[1].unlink()

    parts.start_workers("worker-b")

    assert_invariants(parts, ingest, failed={gone: "file_missing"})


@pytest.mark.parametrize("point", ["after_claim", "before_accounting", "after_accounting"])
def test_a_worker_that_dies_in_a_step_leaves_a_job_that_ends_exactly(
    unmanned_parts: Parts, tmp_path: Path, point: str
) -> None:
    parts, fuse = unmanned_parts, tmp_path / "fuse"
    ingest = parts.ingest_all(parts.draw(2 * CHUNK_IMAGES))
    parts.start_workers()
    assert_invariants(parts, ingest)
    parts.end_workers()

    fuse.touch()
    parts.start_workers(LOOKALIKE_CRASH_AT=f"{point}@{fuse}")
    # All but one image of the collection, counted once although a step of it is done twice.
    kept = sorted(stored_uris(parts, ingest.collection))[0]
    body = {"collection": ingest.collection, "filter": f"uri != {kept!r}"}
    job_id = parts.http.post("/v1/deletions", json=body).json()["id"]
    assert died(parts).process.returncode == -signal.SIGKILL

    job = parts.finished(job_id)
    assert job["state"] == "succeeded", job
    gone = len(ingest.paths) - 1
    assert (job["progress"]["done"], job["result"]["deleted"]) == (gone, gone)
    assert stored_uris(parts, ingest.collection) == [kept]
