"""What holds after every fault, whatever it was."""

from collections.abc import Mapping
from typing import Any

from parts import MAX_ATTEMPTS, Ingest, Parts

#: Sorts behind every URI.
_END = "\U0010ffff"


def assert_invariants(
    parts: Parts, ingest: Ingest, *, failed: Mapping[str, str] | None = None, within_s: float = 150
) -> dict[str, Any]:
    """Wait for a job's end, and check that nothing was lost, doubled or left behind.

    `failed` is the expected code of each file that cannot be stored, by URI. Returns the job's record.
    """
    failed = failed or {}
    job = parts.finished(ingest.job_id, within_s)
    assert job["state"] == "succeeded", f"{job}\n{parts.logs()}"
    _assert_each_file_in_one_state(parts, job, ingest, failed)
    _assert_nothing_stays_for_ever(parts)
    return job


def _assert_each_file_in_one_state(
    parts: Parts, job: dict[str, Any], ingest: Ingest, failed: Mapping[str, str]
) -> None:
    progress = job["progress"]
    lines = parts.failures(job["id"])
    ledger = {line["uri"]: line["code"] for line in lines}
    stored = stored_uris(parts, ingest.collection)
    assert ledger == dict(failed), parts.logs()
    assert len(lines) == len(ledger), "a file is in the ledger twice"
    assert all(1 <= line["attempts"] <= MAX_ATTEMPTS for line in lines), lines
    assert sorted(stored) == sorted(ingest.files - set(failed)), parts.logs()
    counts = [progress[name] for name in ("total", "done", "stored", "unchanged", "failed")]
    assert counts == [len(ingest.files), len(ingest.files), len(stored), 0, len(failed)], f"{progress}\n{parts.logs()}"
    assert job["failure_counts"] == {code: list(failed.values()).count(code) for code in failed.values()}


def stored_uris(parts: Parts, collection: str) -> list[str]:
    """The URI of every row of a collection, found by walking it, so that a row stored twice is there twice."""
    uris: list[str] = []
    after = None
    while page := parts.vectors.under(collection, "", _END, after=after, limit=1000):
        uris += [row.uri for row in page]
        after = page[-1].id
    return uris


def _assert_nothing_stays_for_ever(parts: Parts) -> None:
    """No key of ours outlives its time: the job is final, so all of them have one."""
    with parts.client() as client:
        keys = [key.decode() for key in client.scan_iter("lookalike:*")]
        lasting = [key for key in keys if client.pttl(key) == -1]
    assert not lasting, lasting
