"""/v1/jobs: records, waiting, cancel, the ledger and the figure."""

import csv
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bad_files import jpeg
from fakes import Web, build_web
from lookalike.jobstore import ChunkClaim, ChunkOutcome, IngestItem, PlanClaim
from lookalike.records import Failure, FolderSource, IngestRequest, JobError, JobKind, Query, SearchRequest, Stage
from lookalike.roots import file_uri

INGEST = IngestRequest(source=FolderSource(path="."))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path, web_threads=2)
    yield web
    web.close()


def finish_ingest(web: Web, failures: int = 0) -> str:
    """Run an ingest through the store as workers do, one file stored and so many failed."""
    job_id = web.jobs.create(JobKind.INGEST, INGEST)[0].id
    plan = web.jobs.claim_ingest()
    assert isinstance(plan, PlanClaim)
    web.jobs.add_chunk(plan, [IngestItem(uri=f"file:///{number}") for number in range(failures + 1)], cursor="end")
    web.jobs.end_plan(plan, finished=True)
    chunk = web.jobs.claim_ingest()
    assert isinstance(chunk, ChunkClaim)
    lines = tuple(
        Failure(
            uri=f"file:///{number}",
            code="file_empty",
            message="=no, bytes",
            stage=Stage.READ,
            metadata={"album": "spring"},
        )
        for number in range(failures)
    )
    web.jobs.account(chunk, ChunkOutcome(added=1, failures=lines))
    return job_id


def finish_search(web: Web, result: dict[str, Any] | JobError) -> str:
    record, _ = web.jobs.create(JobKind.SEARCH, SearchRequest(queries=(Query(path="a.jpg"),)))
    (claim,) = web.jobs.claim_searches(limit=1)
    web.jobs.finish_search(claim, result)
    return record.id


def hit(uri: str, image_id: str) -> dict[str, Any]:
    places = {"rank": 1, "id": image_id, "uri": uri, "sha256": "0" * 64}
    return {**places, "distance": 0.9, "score": 0.9, "width": 4, "height": 3}


def result_of(*hits: dict[str, Any]) -> dict[str, Any]:
    query = {"query": {"path": "a.jpg"}, "error": None, "hits": list(hits)}
    return {"collection": "default", "metric": "COSINE", "model": None, "took_ms": 1.0, "queries": [query]}


def test_links_name_what_can_be_done_with_a_job(web: Web) -> None:
    queued = web.client.post("/v1/ingests", json={"source": {"type": "folder", "path": "."}}).json
    url = f"/v1/jobs/{queued['id']}"
    possible = {"events", "cancel", "pause"}
    assert queued["links"] == {"self": url} | {name: f"{url}/{name}" for name in possible}
    paused = web.client.post(queued["links"]["pause"]).json
    assert (paused["paused"], set(paused["links"])) == (True, {"self", "events", "cancel", "resume"})
    web.jobs.cancel(queued["id"])

    clean, failed = finish_ingest(web), finish_ingest(web, failures=2)
    assert set(web.client.get(f"/v1/jobs/{clean}").json["links"]) == {"self"}
    assert set(web.client.get(f"/v1/jobs/{failed}").json["links"]) == {"self", "failures", "retry"}
    succeeded = finish_search(web, result_of())
    assert web.client.get(f"/v1/jobs/{succeeded}").json["links"]["figure"] == f"/v1/jobs/{succeeded}/figure.png"
    broken = finish_search(web, JobError(code="model_mismatch", message="no"))
    assert set(web.client.get(f"/v1/jobs/{broken}").json["links"]) == {"self"}


def test_every_hit_has_the_address_of_its_thumbnail_which_answers(web: Web) -> None:
    (web.root / "a.jpg").write_bytes(jpeg())
    uri = file_uri(web.root / "a.jpg")
    image_id = web.vectors.store("spring", uri)
    job_id = finish_search(web, {**result_of(hit(uri, image_id)), "collection": "spring"})
    shown = web.client.get(f"/v1/jobs/{job_id}").json["result"]["queries"][0]["hits"][0]
    assert shown["thumbnail_url"] == f"/v1/images/{image_id}/thumbnail?collection=spring&v={'0' * 16}"
    assert web.client.get(shown["thumbnail_url"]).status_code == 200


def test_jobs_are_listed_newest_first_in_pages_and_by_kind_and_state(web: Web) -> None:
    ids = [web.jobs.create(JobKind.INGEST, INGEST)[0].id for _ in range(5)]
    web.jobs.cancel(ids[0])
    search = finish_search(web, result_of())
    newest_first = sorted([*ids, search], reverse=True)
    seen: list[str] = []
    query = "?limit=4"
    while query:
        page = web.client.get(f"/v1/jobs{query}").json
        assert len(page["jobs"]) <= 4
        seen += [job["id"] for job in page["jobs"]]
        query = page["next_cursor"] and f"?limit=4&cursor={page['next_cursor']}"
    assert seen == newest_first
    assert [job["id"] for job in web.client.get("/v1/jobs?kind=search").json["jobs"]] == [search]
    assert [job["id"] for job in web.client.get("/v1/jobs?state=cancelled").json["jobs"]] == [ids[0]]
    for bad in ("limit=0", "limit=1001", "limit=x", "kind=nap", "page=2", "limit=1&limit=2"):
        assert web.client.get(f"/v1/jobs?{bad}").json["code"] == "invalid_request", bad
    answer = web.client.get("/v1/jobs?cursor=bogus")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")


def test_unknown_malformed_and_expired_jobs_say_so(web: Web) -> None:
    for path in ("", "/failures", "/figure.png"):
        for unknown in ("01JABSENT", "a:b", "x" * 65, "%00"):
            answer = web.client.get(f"/v1/jobs/{unknown}{path}")
            assert (answer.status_code, answer.json["code"]) == (404, "job_not_found"), (unknown, path)
    assert web.client.post("/v1/jobs/01JABSENT/cancel").json["code"] == "job_not_found"
    job_id = finish_search(web, result_of())
    web.jobs.expire(job_id)
    answer = web.client.get(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json["code"]) == (410, "job_expired")


@pytest.mark.parametrize("ask", [{"query_string": "wait=10"}, {"headers": {"Prefer": "respond-async, wait=10"}}])
def test_a_wait_ends_when_the_job_does(web: Web, ask: dict[str, Any]) -> None:
    job_id = web.jobs.create(JobKind.INGEST, INGEST)[0].id
    timer = threading.Timer(0.3, web.jobs.cancel, [job_id])
    timer.start()
    began = time.monotonic()
    answer = web.client.get(f"/v1/jobs/{job_id}", **ask)
    took = time.monotonic() - began
    timer.join()
    assert answer.json["state"] == "cancelled"
    assert 0.25 < took < 8
    assert "Retry-After" not in answer.headers
    assert answer.headers.get("Preference-Applied") == ("wait=10" if "headers" in ask else None)


def test_a_wait_that_is_over_gives_the_job_as_it_stands(web: Web) -> None:
    job_id = web.jobs.create(JobKind.INGEST, INGEST)[0].id
    answer = web.client.get(f"/v1/jobs/{job_id}?wait=0.1")
    assert (answer.status_code, answer.json["state"], answer.headers["Retry-After"]) == (200, "queued", "1")
    for bad in ("-1", "inf", "nan", "soon"):
        assert web.client.get(f"/v1/jobs/{job_id}?wait={bad}").json["code"] == "invalid_request"
    # RFC 7240: a preference that makes no sense is ignored.
    assert web.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=soon"}).status_code == 200


def test_waits_are_shortened_to_the_longest_allowed(tmp_path: Path) -> None:
    web = build_web(tmp_path, max_wait_s=0.2)
    job_id = web.jobs.create(JobKind.INGEST, INGEST)[0].id
    began = time.monotonic()
    web.client.get(f"/v1/jobs/{job_id}?wait=30")
    assert 0.15 < time.monotonic() - began < 20


def test_waiters_never_take_all_threads(web: Web) -> None:
    """Of two threads one may wait; whoever else wants to is answered at once."""
    job_id = web.jobs.create(JobKind.INGEST, INGEST)[0].id
    app = web.client.application
    waiter = threading.Thread(target=app.test_client().get, args=[f"/v1/jobs/{job_id}?wait=10"])
    waiter.start()
    time.sleep(0.3)
    began = time.monotonic()
    answer = web.client.get(f"/v1/jobs/{job_id}?wait=10")
    took = time.monotonic() - began
    web.jobs.cancel(job_id)
    waiter.join()
    assert took < 8
    assert (answer.json["state"], answer.headers["Retry-After"]) == ("queued", "1")
    assert web.client.get(f"/v1/jobs/{job_id}?wait=10").json["state"] == "cancelled"


def test_a_search_that_ends_within_its_wait_is_answered_with_its_result(web: Web) -> None:
    web.vectors.store("default", "file:///x")
    (web.root / "a.jpg").write_bytes(jpeg())

    def work() -> None:
        while not (claims := web.jobs.claim_searches(limit=1)):
            time.sleep(0.02)
        web.jobs.finish_search(claims[0], result_of())

    worker = threading.Thread(target=work)
    worker.start()
    answer = web.client.post("/v1/searches", json={"queries": [{"path": "a.jpg"}], "wait": 10})
    worker.join()
    assert (answer.status_code, answer.json["state"]) == (200, "succeeded")
    assert answer.json["result"]["metric"] == "COSINE"
    assert answer.headers["Location"] == answer.json["links"]["self"]
    body = {"queries": [{"path": "a.jpg"}]}
    slow = web.client.post("/v1/searches", json=body, headers={"Prefer": "wait=0"})
    assert (slow.status_code, slow.headers["Preference-Applied"]) == (202, "wait=0")


def test_cancel_answers_the_record_and_leaves_final_jobs_alone(web: Web) -> None:
    job_id = web.jobs.create(JobKind.INGEST, INGEST)[0].id
    answer = web.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json["state"]) == (202, "cancelled")
    done = finish_ingest(web)
    assert web.client.post(f"/v1/jobs/{done}/cancel").json["state"] == "succeeded"


def test_the_whole_ledger_streams_as_ndjson_and_csv(web: Web) -> None:
    job_id = finish_ingest(web, failures=2500)
    url = f"/v1/jobs/{job_id}/failures"
    answer = web.client.get(url)
    assert answer.mimetype == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["uri"] for line in lines] == [f"file:///{number}" for number in range(2500)]
    assert lines[0] == {
        "uri": "file:///0",
        "code": "file_empty",
        "message": "=no, bytes",
        "stage": "read",
        "attempts": 1,
        "name": "",
        "metadata": {"album": "spring"},
    }
    for table in (web.client.get(f"{url}?format=csv"), web.client.get(url, headers={"Accept": "text/csv"})):
        assert table.mimetype == "text/csv"
        rows = list(csv.DictReader(io.StringIO(table.text)))
        assert len(rows) == 2500
        assert rows[7]["uri"] == "file:///7"
        assert rows[7]["message"] == "'=no, bytes", "a spreadsheet must not take it for a formula"
        assert json.loads(rows[7]["metadata"]) == {"album": "spring"}


def test_the_ledger_comes_in_pages_on_demand(web: Web) -> None:
    job_id = finish_ingest(web, failures=5)
    url = f"/v1/jobs/{job_id}/failures"
    page = web.client.get(f"{url}?limit=3").json
    assert (len(page["failures"]), page["dropped"]) == (3, 0)
    rest = web.client.get(f"{url}?limit=3&cursor={page['next_cursor']}").json
    assert [line["uri"] for line in rest["failures"]] == ["file:///3", "file:///4"]
    assert rest["next_cursor"] is None
    assert len(web.client.get(url, headers={"Accept": "application/json"}).json["failures"]) == 5
    assert web.client.get(f"{url}?cursor=x").json["code"] == "invalid_parameter"
    assert web.client.get(f"{url}?format=xml").json["code"] == "invalid_request"
    assert web.client.get(url, headers={"Accept": "image/png"}).status_code == 406


def test_lines_come_in_pages_too_each_naming_the_next(web: Web) -> None:
    job_id = finish_ingest(web, failures=5)
    for media in ("csv", "ndjson"):
        url: str | None = f"/v1/jobs/{job_id}/failures?format={media}&limit=2"
        seen: list[str] = []
        while url:
            answer = web.client.get(url)
            assert media in answer.mimetype
            lines = answer.text.splitlines()
            rows = csv.DictReader(lines) if media == "csv" else map(json.loads, lines)
            seen += [row["uri"] for row in rows]
            following = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
            url = following and following[1]
            assert (url is None) == ("X-Next-Cursor" not in answer.headers)
        assert seen == [f"file:///{number}" for number in range(5)]
    page = web.client.get(f"/v1/jobs/{job_id}/failures?limit=2", headers={"Accept": "text/csv"})
    assert (page.mimetype, len(page.text.splitlines())) == ("text/csv", 3)


def test_the_figure_shows_what_is_there_and_leaves_blank_what_is_gone(web: Web) -> None:
    for name in ("a.jpg", "b.jpg"):
        (web.root / name).write_bytes(jpeg())
    uris = [file_uri(web.root / name) for name in ("a.jpg", "b.jpg")]
    job_id = finish_search(web, result_of(*[hit(uri, web.vectors.store("default", uri)) for uri in uris]))
    (web.root / "b.jpg").unlink()
    answer = web.client.get(f"/v1/jobs/{job_id}/figure.png")
    assert answer.mimetype == "image/png"
    with Image.open(io.BytesIO(answer.data)) as figure:
        assert figure.width > 300
    ingest = finish_ingest(web)
    assert web.client.get(f"/v1/jobs/{ingest}/figure.png").json["code"] == "invalid_parameter"
