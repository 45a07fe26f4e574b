"""Processes of the service end, stand still, or run by a wrong clock, while a job runs."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from invariants import assert_invariants
from lookalike.broker import Doorbell
from lookalike.jobstore import Lane
from parts import CHUNK_IMAGES, JOB_IMAGES, LEASE_S, WORKERS, Parts
from service import until

HOUR_S = 3600
KILLED_DECODERS = 6


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_ended_leaves_its_work_to_the_other(parts: Parts, number: signal.Signals) -> None:
    ingest = parts.ingest_half()
    worker = parts.workers["worker-a"]
    worker.signal(number)
    code = worker.process.wait(120)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0), parts.logs()
    assert_invariants(parts, ingest)


def decoders(parts: Parts, *names: str) -> list[psutil.Process]:
    """The decoder processes of ingest workers."""
    parents = [psutil.Process(parts.workers[name].process.pid) for name in names]
    return [child for parent in parents for child in parent.children()]


def test_a_worker_that_the_kernel_kills_for_want_of_memory_takes_its_decoders_with_it(parts: Parts) -> None:
    ingest = parts.ingest_half()
    left = decoders(parts, "worker-a")
    assert left
    parts.workers["worker-a"].process.kill()  # It alone, which is what the kernel picks.
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive
    assert_invariants(parts, ingest)


def test_a_decoder_that_the_kernel_kills_for_want_of_memory_costs_at_most_the_file_it_was_at(parts: Parts) -> None:
    ingest = parts.ingest_half()
    killed = 0
    while killed < KILLED_DECODERS and not parts.job(ingest.job_id)["finished_at"]:
        for decoder in decoders(parts, *WORKERS):
            decoder.kill()
            killed += 1
        time.sleep(0.2)
    parts.finished(ingest.job_id)
    failed = {line["uri"]: line["code"] for line in parts.failures(ingest.job_id)}
    assert set(failed.values()) <= {"decoder_crashed"}
    assert len(failed) <= killed
    assert_invariants(parts, ingest, failed=failed)


def test_everything_killed_at_once_goes_on_when_it_is_started_again(parts: Parts) -> None:
    ingest = parts.ingest_half()
    everything = [*parts.workers.values(), parts.web, parts.milvus, parts.redis]
    for part in everything:
        part.signal(signal.SIGKILL)
    for part in everything:
        part.process.wait(60)
    parts.start_redis()
    parts.start_milvus()
    parts.start_web()
    parts.start_workers()
    assert_invariants(parts, ingest)


def test_what_a_worker_hands_in_that_stood_still_too_long_is_refused(parts: Parts) -> None:
    ingest = parts.ingest_half()
    with parts.workers["worker-a"].stopped():
        time.sleep(2 * LEASE_S)
    assert_invariants(parts, ingest)


def test_no_worker_at_all_for_a_while_costs_time_only(parts: Parts) -> None:
    ingest = parts.ingest_half()
    parts.end_workers()
    parts.start_workers("worker-b")
    assert_invariants(parts, ingest)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_front_end_that_is_ended_takes_no_job_with_it(parts: Parts, number: signal.Signals) -> None:
    ingest = parts.ingest_half()
    parts.web.signal(number)
    parts.web.process.wait(120)
    parts.start_web()
    assert_invariants(parts, ingest)


def test_a_front_end_that_stands_still_holds_up_no_job(parts: Parts) -> None:
    ingest = parts.ingest_half()
    with parts.web.stopped():
        until(lambda: parts.jobs.get(ingest.job_id).state.final, 120, parts.logs)
    assert_invariants(parts, ingest)


def test_a_search_survives_the_death_of_its_worker(parts: Parts) -> None:
    ingest = parts.ingest_all(parts.draw(CHUNK_IMAGES))
    assert_invariants(parts, ingest)
    parts.start_searcher()
    queries = [{"path": f"{path.parent.name}/{path.name}"} for path in ingest.paths]
    with parts.searcher.stopped():  # What is rung for meanwhile may be taken, and is not answered.
        body = {"collection": ingest.collection, "queries": queries, "limit": 1}
        job_id = parts.http.post("/v1/searches", json=body).json()["id"]
        time.sleep(0.5)
        parts.searcher.kill()
    parts.start_searcher()
    record = parts.finished(job_id)
    assert record["state"] == "succeeded", record
    found = [query["hits"][0]["name"] for query in record["result"]["queries"]]
    assert found == [path.name for path in ingest.paths]


def test_messages_doubled_many_times_do_nothing_twice(parts: Parts) -> None:
    ingest = parts.ingest_all(parts.draw(JOB_IMAGES))
    Doorbell.connect(parts.direct).ring(Lane.INGEST, times=40)
    assert_invariants(parts, ingest)


def test_lost_messages_are_rung_again(parts: Parts) -> None:
    ingest = parts.ingest_half()
    with parts.client() as client:
        client.delete("ingest")
    assert_invariants(parts, ingest)


def test_clocks_that_are_two_hours_apart_make_no_difference(parts: Parts) -> None:
    now = [sys.executable, "-c", "import time; print(time.time())"]
    shifted = {"CHAOS_CLOCK_SHIFT_S": str(HOUR_S)}
    said = subprocess.run(now, env={**parts.environ, **shifted}, capture_output=True, text=True, check=True).stdout
    assert float(said) - time.time() > HOUR_S / 2, "the clock of the workers is not shifted"

    # Leases that no busy machine outlasts, and a wrong clock does.
    parts.start_workers("worker-a", CHAOS_CLOCK_SHIFT_S=str(HOUR_S), LOOKALIKE_LEASE_S="120")
    parts.start_workers("worker-b", CHAOS_CLOCK_SHIFT_S=str(-HOUR_S), LOOKALIKE_LEASE_S="120")
    paths = parts.draw(JOB_IMAGES)
    broken = paths[::CHUNK_IMAGES]  # One in each chunk, whose line in the ledger tells how often it was tried.
    for path in broken:
        path.write_bytes(b"")
    ingest = parts.ingest_all(paths)
    job = assert_invariants(parts, ingest, failed=dict.fromkeys(ingest.uris(broken), "file_empty"))
    parts.end_workers()

    assert {line["attempts"] for line in parts.failures(ingest.job_id)} == {1}, "work was taken from who held it"
    assert 0 <= job["progress"]["images_per_s"] < 10_000
