"""Redis and Milvus go away in every way there is while a job runs, and come back."""

import hashlib
import shutil
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from invariants import assert_invariants, stored_uris
from parts import CHUNK_IMAGES, Parts
from proxy import Proxy, Way
from service import BUSY_S, SUBMIT_S, until

AWAY_S = 3.0

#: Redis itself, and what the way there makes of it.
FAULTS: dict[str, Callable[[Proxy], None]] = {
    "cut": lambda proxy: proxy.cut(),
    "reset": lambda proxy: proxy.reset_once(),
    "slow": lambda proxy: proxy.delay(0.3),
    "half-open": lambda proxy: proxy.swallow(),
    "deaf": lambda proxy: proxy.swallow(Way.REPLIES),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_survives_redis_being_out_of_reach(parts: Parts, fault: str) -> None:
    ingest = parts.ingest_half()
    FAULTS[fault](parts.redis_proxy)
    time.sleep(AWAY_S)
    parts.redis_proxy.heal()
    assert_invariants(parts, ingest)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_survives_milvus_being_out_of_reach(parts: Parts, fault: str) -> None:
    ingest = parts.ingest_half()
    FAULTS[fault](parts.milvus_proxy)
    time.sleep(AWAY_S)
    parts.milvus_proxy.heal()
    assert_invariants(parts, ingest)


def call_of(script: str) -> bytes:
    """What a call of one of the job store's scripts carries: the SHA-1 of its text."""
    folder = files("lookalike.jobstore") / "lua"
    text = (folder / "prelude.lua").read_bytes() + (folder / f"{script}.lua").read_bytes()
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


@pytest.mark.parametrize("script", ["claim_ingest", "add_chunk", "end_plan", "account"])
def test_a_lost_answer_of_redis_to_a_worker_counts_nothing_twice(parts: Parts, script: str) -> None:
    dropped = parts.redis_proxy.drop_reply(call_of(script), hold_s=0.1)
    ingest = parts.ingest_all(parts.draw(3 * CHUNK_IMAGES))
    assert dropped.wait(60), parts.logs()
    assert_invariants(parts, ingest)


def test_a_lost_answer_of_milvus_to_a_write_stores_nothing_twice(parts: Parts) -> None:
    paths = parts.draw(2 * CHUNK_IMAGES)
    # Only the rows themselves hold a file's path.
    dropped = parts.milvus_proxy.drop_reply(paths[0].name.encode(), hold_s=1.0)
    ingest = parts.ingest_all(paths)
    assert dropped.wait(60), parts.logs()
    assert_invariants(parts, ingest)


def test_a_job_survives_redis_standing_still(parts: Parts) -> None:
    ingest = parts.ingest_half()
    with parts.redis.stopped():
        time.sleep(AWAY_S)
    assert_invariants(parts, ingest)


def test_a_job_survives_milvus_standing_still_and_says_what_it_waits_for(parts: Parts) -> None:
    ingest = parts.ingest_half()
    with parts.milvus.stopped():
        until(lambda: parts.job(ingest.job_id)["waiting_for"] == "vector_store", 120, parts.logs)
    job = assert_invariants(parts, ingest)
    assert job["waiting_for"] is None


def test_an_accepted_job_survives_redis_killed_and_started_again_on_its_file(parts: Parts) -> None:
    ingest = parts.ingest_half()
    time.sleep(1.1)  # What is older than a second is on disk: that is promised, not more.
    parts.redis.kill()
    time.sleep(0.5)
    parts.start_redis()
    assert_invariants(parts, ingest)


def test_what_milvus_lite_has_stored_survives_its_death(parts: Parts) -> None:
    ingest = parts.ingest_half()
    parts.milvus.kill()
    time.sleep(0.5)
    parts.start_milvus()
    assert_invariants(parts, ingest)


def test_while_redis_is_out_of_reach_a_submit_is_refused_within_five_seconds(parts: Parts) -> None:
    folder = parts.draw(1)[0].parent.name
    for fault in ("cut", "half-open"):
        FAULTS[fault](parts.redis_proxy)
        began = time.monotonic()
        answer = parts.http.post("/v1/ingests", json={"source": {"type": "folder", "path": folder}})
        took_s = time.monotonic() - began
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert took_s < SUBMIT_S + BUSY_S
        parts.redis_proxy.heal()


def test_a_full_redis_refuses_new_jobs_shows_old_ones_and_recovers(parts: Parts) -> None:
    paths = parts.draw(CHUNK_IMAGES)
    done = parts.ingest_all(paths)
    assert_invariants(parts, done)
    with parts.client() as client:
        client.config_set("maxmemory", "1mb")
        try:
            answer = parts.http.post("/v1/ingests", json={"source": {"type": "folder", "path": paths[0].parent.name}})
            assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert parts.job(done.job_id)["state"] == "succeeded"
        finally:
            client.config_set("maxmemory", "1gb")
    assert_invariants(parts, parts.ingest_all(parts.draw(CHUNK_IMAGES)))


def test_a_redis_that_fills_up_in_mid_job_holds_the_job_up_and_loses_nothing(parts: Parts) -> None:
    ingest = parts.ingest_half()
    with parts.client() as client:
        client.config_set("maxmemory", "1mb")
        time.sleep(AWAY_S)
        assert parts.job(ingest.job_id)["id"] == ingest.job_id
        client.config_set("maxmemory", "1gb")
    parts.mend_workers()  # Celery ends where it cannot note down a message it took; a supervisor starts it again.
    assert_invariants(parts, ingest)


def test_a_redis_put_back_from_an_older_copy_does_its_jobs_again_and_nothing_is_stored_twice(
    parts: Parts, tmp_path: Path
) -> None:
    ingest, folder, copy = parts.ingest_half(), parts.redis.redis_folder, tmp_path / "copy"
    parts.redis.kill()
    shutil.copytree(folder, copy)
    parts.start_redis()
    parts.milvus_proxy.heal()
    assert_invariants(parts, ingest)

    parts.redis.kill()
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    parts.start_redis()
    assert parts.job(ingest.job_id)["finished_at"] is None, "the copy is of its middle"
    progress = parts.finished(ingest.job_id)["progress"]
    # What was planned after the copy is found stored.
    assert (progress["done"], progress["stored"] + progress["unchanged"], progress["failed"]) == (
        len(ingest.files),
        len(ingest.files),
        0,
    )
    assert sorted(stored_uris(parts, ingest.collection)) == sorted(ingest.files)
