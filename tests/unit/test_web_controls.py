"""Pause, resume and retry; the limit on submits; and the clean-up."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fakes import Web, build_web
from lookalike.errors import UploadNotFound
from lookalike.jobstore import ChunkClaim, ChunkOutcome, IngestItem, Lane, PlanClaim
from lookalike.records import (
    Failure,
    FailuresSource,
    FolderSource,
    IngestRequest,
    JobKind,
    Priority,
    Query,
    SearchRequest,
    Stage,
    UploadRequest,
    Webhook,
)
from lookalike.uploads import upload_uri
from lookalike_web.throttling import PIECES_PER_SUBMIT
from ports import free_port

ASKED = IngestRequest(
    source=FolderSource(path="."),
    collection="spring",
    metadata={"album": "spring"},
    label_from_folder=True,
    checksum=True,
    sync=True,
    priority=Priority.LOW,
    webhook=Webhook(url="https://example.org/hook"),
)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path, webhook_secret="whsec_c2VjcmV0")
    yield web
    web.close()


def failed_ingest(web: Web, request: IngestRequest) -> str:
    job_id = web.jobs.create(JobKind.INGEST, request)[0].id
    while not web.jobs.get(job_id).state.final:
        claim = web.jobs.claim_ingest()
        match claim:
            case PlanClaim(cursor=None) if not web.jobs.get(job_id).progress.done:
                web.jobs.add_chunk(claim, [IngestItem(uri="file:///a.jpg")], cursor="end")
                web.jobs.end_plan(claim, finished=True)
            case PlanClaim():
                web.jobs.end_plan(claim, finished=True)
            case ChunkClaim():
                line = Failure(uri="file:///a.jpg", code="file_empty", message="No bytes.", stage=Stage.READ)
                web.jobs.account(claim, ChunkOutcome(failures=(line,)))
    return job_id


def test_a_paused_ingest_hands_out_no_work_until_it_is_resumed_which_rings(web: Web) -> None:
    job_id = web.jobs.create(JobKind.INGEST, ASKED)[0].id
    answer = web.client.post(f"/v1/jobs/{job_id}/pause")
    assert (answer.status_code, answer.json["paused"], answer.json["state"]) == (202, True, "queued")
    assert web.jobs.claim_ingest() is None
    assert not web.doorbell.rung
    answer = web.client.post(f"/v1/jobs/{job_id}/resume")
    assert (answer.status_code, answer.json["paused"]) == (202, False)
    assert web.doorbell.rung == [Lane.INGEST] * (web.services.settings.lookahead_chunks + 1)
    assert isinstance(web.jobs.claim_ingest(), PlanClaim)


def test_a_final_ingest_is_neither_paused_nor_rung_for(web: Web) -> None:
    job_id = failed_ingest(web, ASKED)
    for control in ("pause", "resume"):
        answer = web.client.post(f"/v1/jobs/{job_id}/{control}")
        assert (answer.status_code, answer.json["state"], answer.json["paused"]) == (202, "succeeded", False)
    assert not web.doorbell.rung


@pytest.mark.parametrize("control", ["pause", "resume", "retry"])
def test_searches_and_unknown_jobs_have_no_such_controls(web: Web, control: str) -> None:
    search = web.jobs.create(JobKind.SEARCH, SearchRequest(queries=(Query(vector=(1.0,)),)))[0].id
    answer = web.client.post(f"/v1/jobs/{search}/{control}")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    assert web.client.post(f"/v1/jobs/01JABSENT/{control}").json["code"] == "job_not_found"


def test_a_retry_is_a_new_job_like_the_old_one_for_what_failed_in_it(web: Web) -> None:
    job_id = failed_ingest(web, ASKED)
    url = web.client.get(f"/v1/jobs/{job_id}").json["links"]["retry"]
    answer = web.client.post(url, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/jobs/{answer.json['id']}")
    assert answer.json["id"] != job_id
    wanted = IngestRequest.model_validate(web.jobs.get(answer.json["id"]).request)
    assert wanted == ASKED.model_copy(update={"source": FailuresSource(job_id=job_id), "sync": False})
    assert web.doorbell.rung == [Lane.INGEST]
    assert web.client.post(url, headers={"Idempotency-Key": "k"}).json["id"] == answer.json["id"]


def test_only_finished_jobs_with_failures_can_be_retried(web: Web) -> None:
    job_id = web.jobs.create(JobKind.INGEST, ASKED)[0].id
    answer = web.client.post(f"/v1/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json["code"]) == (409, "job_not_final")
    web.jobs.cancel(job_id)
    answer = web.client.post(f"/v1/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    assert len(web.jobs.list_jobs().jobs) == 1


# --- The limit on submits -------------------------------------------------------------------------------------------


FOLDER = {"source": {"type": "folder", "path": "."}}


def test_a_sender_may_submit_so_often_a_minute_and_others_still_can(tmp_path: Path, redis_url: str) -> None:
    web = build_web(tmp_path, redis_url=redis_url, rate_limit=3, api_keys=("one", "two"))

    def submit(key: str) -> Any:
        return web.client.post("/v1/ingests", json=FOLDER, headers={"Authorization": f"Bearer {key}"})

    assert [submit("one").status_code for _ in range(3)] == [202] * 3
    refused = submit("one")
    assert (refused.status_code, refused.json["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert submit("two").status_code == 202
    listed = web.client.get("/v1/jobs", headers={"Authorization": "Bearer one"})
    assert len(listed.json["jobs"]) == 4, "and asking is not limited"
    with redis.Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter("*"))
        assert keys
        assert all(client.ttl(key) > 0 for key in keys), "counts expire by themselves"
        assert not [key for key in keys if b"one" in key or b"two" in key], "keys are secrets"
    web.close()


def test_without_keys_senders_are_told_apart_by_address_and_not_by_what_they_claim(
    tmp_path: Path, redis_url: str
) -> None:
    web = build_web(tmp_path, redis_url=redis_url, rate_limit=1)

    def submit(address: str, **headers: str) -> int:
        environ = {"REMOTE_ADDR": address}
        return web.client.post("/v1/ingests", json=FOLDER, headers=headers, environ_base=environ).status_code

    assert submit("192.0.2.1") == 202
    assert submit("192.0.2.1", Authorization="Bearer made-up") == 429
    assert submit("192.0.2.2") == 202
    web.close()


def test_uploads_are_limited_too_and_their_pieces_more_generously(tmp_path: Path, redis_url: str) -> None:
    web = build_web(tmp_path, redis_url=redis_url, rate_limit=2)

    def begin() -> Any:
        return web.client.post("/v1/uploads", json={"size": 1000})

    def send(upload: Any, place: int) -> Any:
        headers = {"Upload-Offset": str(place), "Content-Type": "application/octet-stream"}
        return web.client.patch(f"/v1/uploads/{upload['id']}", data=b"x", headers=headers)

    upload = begin().json
    assert [send(upload, place).status_code for place in range(2 * PIECES_PER_SUBMIT)] == [200] * 2 * PIECES_PER_SUBMIT
    last = send(upload, 2 * PIECES_PER_SUBMIT)
    assert (last.status_code, last.json["code"]) == (429, "rate_limited")
    assert int(last.headers["Retry-After"]) >= 1
    assert web.client.get(f"/v1/uploads/{upload['id']}").json["offset"] == 2 * PIECES_PER_SUBMIT
    assert begin().status_code == 201, "pieces are no submits"
    assert begin().status_code == 429
    assert web.client.post("/v1/ingests", json=FOLDER).status_code == 429, "and a begun upload is one"
    web.close()


def test_a_limit_that_cannot_be_counted_refuses_soon(tmp_path: Path) -> None:
    web = build_web(tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}", rate_limit=1)
    began = time.monotonic()
    answer = web.client.post("/v1/ingests", json=FOLDER)
    assert (answer.status_code, answer.json["code"]) == (503, "queue_unavailable")
    assert time.monotonic() - began < 30
    web.close()


# --- The clean-up ---------------------------------------------------------------------------------------------------


def test_the_clean_up_says_what_would_go_unless_told_to_remove_it(tmp_path: Path) -> None:
    web = build_web(tmp_path, upload_ttl_s=0.05)
    begun = web.services.partials.begin(UploadRequest(size=10))
    unused, named, stored = (web.services.uploads.put(io.BytesIO(content)) for content in (b"1", b"2", b"3"))
    web.vectors.store("default", upload_uri(stored))
    source = {"type": "upload", "files": [{"sha256": named}]}
    assert web.client.post("/v1/ingests", json={"source": source}).status_code == 202
    time.sleep(0.1)
    dry = web.client.post("/v1/gc", json={}).json
    assert (dry["dry_run"], dry["parts"], dry["uploads"]) == (True, 1, 1)
    assert web.services.partials.get(begun.id).offset == 0
    done = web.client.post("/v1/gc", json={"dry_run": False}).json
    assert (done["dry_run"], done["parts"], done["uploads"]) == (False, 1, 1)
    kept = [web.services.uploads.has(sha256) for sha256 in (unused, named, stored)]
    assert kept == [False, True, True], "what a job or a row refers to stays"
    with pytest.raises(UploadNotFound):
        web.services.partials.get(begun.id)
    web.vectors.down = True
    answer = web.client.post("/v1/gc", json={"dry_run": False})
    assert (answer.status_code, answer.json["code"]) == (503, "vector_store_unavailable")
    web.close()
