"""kill -9 of everything that `lookalike up` runs, while it works: no file lost, none twice, nothing left behind."""

import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest
import redis

from lookalike.gallery import draw_gallery
from lookalike.jobstore import Limits
from lookalike.jobstore.redis import RedisJobStore
from lookalike.records import FolderSource, IngestRequest, JobKind
from lookalike.settings import Settings
from service import until
from stack import Stack

IMAGES = 240


@pytest.fixture(scope="module")
def pictures(stack: Stack) -> list[Path]:
    return draw_gallery(stack.root / "pictures", count=IMAGES, seed=3)


def assert_exact(stack: Stack, job_id: str, collection: str) -> None:
    job = stack.finished(job_id)
    assert job["state"] == "succeeded", job
    progress = job["progress"]
    assert (progress["stored"], progress["unchanged"], progress["failed"]) == (IMAGES, 0, 0), progress
    assert progress["done"] == progress["total"] == IMAGES
    stack.await_ready()  # The job may have ended before what was killed is back.
    assert stack.count(collection) == IMAGES


@pytest.mark.parametrize("victim", ["worker-ingest-1", "worker-search-1", "redis", "milvus", "web"])
def test_a_job_ends_exactly_although_a_process_is_killed_in_its_middle(
    stack: Stack, pictures: list[Path], victim: str
) -> None:
    collection = f"killed_{victim.split('-')[1 if '-' in victim else 0]}"
    pid = stack.pid(victim)  # Looked up before: that takes longer than a part of the job.
    job_id = stack.ingest("pictures", collection=collection)
    until(lambda: stack.job(job_id)["progress"]["stored"], 120, stack.logs)
    os.kill(pid, signal.SIGKILL)
    assert_exact(stack, job_id, collection)
    until(lambda: stack.pid(victim) != pid, 180, stack.logs)
    restarted = next(process for process in stack.status()["processes"] if process["name"] == victim)
    assert restarted["restarts"] >= 1
    hits = stack.search(collection, {"path": str(pictures[0].relative_to(stack.root))})["queries"][0]["hits"]
    assert hits[0]["name"] == pictures[0].name


@pytest.mark.usefixtures("pictures")
def test_both_ingest_workers_killed_again_and_again_lose_nothing(stack: Stack) -> None:
    job_id = stack.ingest("pictures", collection="twice")
    for threshold in (1, 60):
        until(lambda: stack.job(job_id)["progress"]["stored"] >= threshold, 180, stack.logs)  # noqa: B023
        for victim in ("worker-ingest-1", "worker-ingest-2"):
            stack.kill(victim)
        stack.await_ready()
    assert_exact(stack, job_id, "twice")


@pytest.mark.usefixtures("pictures")
def test_a_worker_told_to_end_gives_its_chunk_back_at_once(stack: Stack) -> None:
    job_id = stack.ingest("pictures", collection="ended")
    until(lambda: stack.job(job_id)["progress"]["stored"], 120, stack.logs)
    stack.kill("worker-ingest-2", signal.SIGTERM)
    assert_exact(stack, job_id, "ended")


@pytest.mark.usefixtures("pictures")
def test_a_job_whose_message_was_lost_is_rung_again(stack: Stack) -> None:
    with stack.redis() as client:
        store = RedisJobStore(
            redis.Redis.from_url(stack.redis_url(), decode_responses=True), Limits.from_settings(Settings())
        )
        request = IngestRequest(collection="unheard", source=FolderSource(path="pictures"))
        # Rings that earlier jobs did not need are heard first, or they would be heard for this one.
        until(lambda: client.llen("ingest") == 0 or None, 120, stack.logs)
        job, _ = store.create(JobKind.INGEST, request)  # as a front end that dies before it rings
        assert_exact(stack, job.id, "unheard")
        store.close()


@pytest.mark.usefixtures("pictures")
def test_the_supervisor_killed_leaves_nothing_and_the_next_up_goes_on(stack: Stack) -> None:
    job_id = stack.ingest("pictures", collection="resumed")
    until(lambda: stack.job(job_id)["progress"]["stored"], 120, stack.logs)
    members = stack.members()
    os.kill(stack.status()["pid"], signal.SIGKILL)
    _, alive = psutil.wait_procs(members, timeout=120)
    assert not alive, alive
    assert stack.members() == []
    stack.up()
    assert_exact(stack, job_id, "resumed")


@pytest.mark.usefixtures("pictures")
def test_a_copy_made_while_it_is_down_can_be_put_back(stack: Stack, tmp_path: Path) -> None:
    job_id = stack.ingest("pictures", collection="backed_up")
    assert_exact(stack, job_id, "backed_up")
    stack.down()
    shutil.copytree(stack.data_dir, tmp_path / "copy", symlinks=True)
    shutil.rmtree(stack.data_dir)
    shutil.copytree(tmp_path / "copy", stack.data_dir, symlinks=True)
    stack.up()
    assert_exact(stack, job_id, "backed_up")
    plan = stack.finished(stack.ingest("pictures", collection="backed_up", dry_run=True))
    assert plan["progress"]["unchanged"] == IMAGES, plan


def test_down_leaves_nothing(stack: Stack) -> None:
    stack.down()
    assert stack.members() == []
    assert stack.cli("status").returncode == 4
