"""/v1/jobs/{id}/events: what a stream says, when it ends, and that streams never take all threads."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from fakes import Web, build_web
from lookalike.errors import QueueUnavailable
from lookalike.jobstore import ChunkClaim, ChunkOutcome, IngestItem, PlanClaim
from lookalike.records import FolderSource, IngestRequest, JobKind
from lookalike_web import events

INGEST = IngestRequest(source=FolderSource(path="."), metadata={"secret": "of the request"})


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path, web_threads=2)
    yield web
    web.close()


def new_job(web: Web) -> str:
    return web.jobs.create(JobKind.INGEST, INGEST)[0].id


def follow(web: Web, job_id: str, last: str | None = None) -> TestResponse:
    headers = {} if last is None else {"Last-Event-ID": last}
    return web.client.get(f"/v1/jobs/{job_id}/events", headers=headers)


def parsed(parts: Iterable[bytes | str]) -> Iterator[dict[str, str]]:
    """The blocks of a stream as they come: fields by their name, comments under the empty one."""
    for part in parts:
        text = part.decode() if isinstance(part, bytes) else part
        for block in text.strip("\n").split("\n\n"):
            yield dict(line.split(": ", 1) if line[0] != ":" else ("", line[2:]) for line in block.splitlines())


def stream(answer: TestResponse) -> Iterator[dict[str, str]]:
    """Read a stream as a server does: to its end, or as long as somebody listens."""
    assert answer.status_code == 200, answer.text
    try:
        yield from parsed(answer.iter_encoded())
    finally:
        answer.close()


def test_a_stream_tells_how_the_job_stands_then_what_changes_then_that_it_is_done(web: Web) -> None:
    job_id = new_job(web)
    answer = follow(web, job_id)
    assert answer.mimetype == "text/event-stream"
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-store", "no")
    found = stream(answer)
    assert int(next(found)["retry"]) > 0
    first = next(found)
    record = json.loads(first["data"])
    assert (first["event"], record["state"], int(first["id"])) == ("progress", "queued", record["version"])
    assert not {"request", "result"} & set(record)
    plan = web.jobs.claim_ingest()
    assert isinstance(plan, PlanClaim)
    second = next(found)
    assert json.loads(second["data"])["state"] == "running"
    assert int(second["id"]) > int(first["id"])
    web.jobs.add_chunk(plan, [IngestItem(uri="file:///a.jpg")], cursor="end")
    web.jobs.end_plan(plan, finished=True)
    chunk = web.jobs.claim_ingest()
    assert isinstance(chunk, ChunkClaim)
    web.jobs.account(chunk, ChunkOutcome(added=1))
    last, done = list(found)
    assert json.loads(last["data"])["progress"]["stored"] == 1
    assert (done["event"], json.loads(done["data"])["links"]) == ("done", {"self": f"/v1/jobs/{job_id}"})
    assert json.loads(done["data"])["state"] == "succeeded"
    assert "id" not in last, "a client that missed `done` must not look like one that has seen it"
    seen = follow(web, job_id, last=done["id"])
    assert (seen.status_code, seen.data) == (204, b"")
    assert [event.get("event") for event in stream(follow(web, job_id, last=second["id"]))] == [
        None,
        "progress",
        "done",
    ]


def test_a_client_that_comes_back_hears_nothing_it_knows_and_at_once_what_it_does_not(web: Web) -> None:
    job_id = new_job(web)
    found = stream(follow(web, job_id))
    known = [next(found), next(found)][1]["id"]
    found.close()
    timer = threading.Timer(0.5, web.jobs.cancel, [job_id])
    timer.start()
    began = time.monotonic()
    back = list(stream(follow(web, job_id, last=known)))
    took = time.monotonic() - began
    timer.join()
    assert [event.get("event") for event in back] == [None, "progress", "done"]
    assert 0.4 < took < 12
    for strange in ("x", "-1", "9" * 40, ""):
        assert len(list(stream(follow(web, job_id, last=strange)))) == 3


def test_a_waiting_job_hears_that_it_has_moved_up(web: Web) -> None:
    before, job_id = new_job(web), new_job(web)
    found = stream(follow(web, job_id))
    first = [next(found), next(found)][1]
    web.jobs.cancel(before)
    second = next(found)
    places = [json.loads(event["data"])["progress"]["position"] for event in (first, second)]
    assert places[0] > places[1]
    assert first["id"] == second["id"]
    found.close()


def test_a_storm_of_changes_is_a_few_events_and_the_last_one_counts(web: Web) -> None:
    job_id = new_job(web)
    stop = threading.Event()

    def storm() -> None:
        while not stop.wait(0.01):
            web.jobs.pause(job_id)
            web.jobs.resume(job_id)
        web.jobs.cancel(job_id)

    timer = threading.Timer(1.0, stop.set)
    thread = threading.Thread(target=storm)
    thread.start()
    timer.start()
    began = time.monotonic()
    found = [event for event in stream(follow(web, job_id)) if "event" in event]
    took = time.monotonic() - began
    thread.join()
    assert 3 <= len(found) <= 4 + took / events.MIN_GAP_S
    assert json.loads(found[-2]["data"])["state"] == "cancelled"


def test_a_quiet_stream_shows_that_it_lives_and_ends_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.2)
    web = build_web(tmp_path, event_stream_s=1.5)
    began = time.monotonic()
    _retry, first, *rest = stream(follow(web, new_job(web)))
    assert 1.2 < time.monotonic() - began < 60
    assert first["event"] == "progress"
    assert rest
    assert all(set(beat) == {""} for beat in rest)
    web.close()


def test_a_stream_ends_when_the_store_goes_away(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = new_job(web)
    found = stream(follow(web, job_id))
    assert [next(found), next(found)][1]["event"] == "progress"

    def away(*_: Any, **__: Any) -> None:
        raise QueueUnavailable

    monkeypatch.setattr(web.jobs, "watch", away)
    assert list(found) == [{"": "queue_unavailable"}]


def test_streams_share_the_threads_that_may_wait_and_give_theirs_back(web: Web) -> None:
    job_id = new_job(web)
    first = follow(web, job_id)
    refused = follow(web, job_id)
    assert (refused.status_code, refused.json["code"]) == (503, "busy")
    assert int(refused.headers["Retry-After"]) > 0
    first.close()
    again = follow(web, job_id)
    assert next(stream(again))["retry"]
    again.close()
    assert follow(web, job_id).status_code == 200


def test_unknown_and_expired_jobs_have_no_stream(web: Web) -> None:
    assert follow(web, "01JABSENT").json["code"] == "job_not_found"
    job_id = new_job(web)
    web.jobs.cancel(job_id)
    web.jobs.expire(job_id)
    assert (follow(web, job_id).status_code, follow(web, job_id).json["code"]) == (410, "job_expired")
    assert web.client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "text/html"}).status_code == 406
