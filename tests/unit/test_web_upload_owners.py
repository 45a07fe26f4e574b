"""Uploads between tenants: who knows a content's hash learns nothing of it, and may not use it, before sending it."""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_web_keys import asking, build_guarded, code, key

from bad_files import jpeg
from fakes import Web
from lookalike.garbage import collect
from lookalike.jobstore import ChunkClaim, ChunkOutcome, IngestItem, PlanClaim
from lookalike.records import Failure, Stage

CONTENT = jpeg()
SHA = hashlib.sha256(CONTENT).hexdigest()
WANTED = {"size": len(CONTENT), "name": "a.jpg", "sha256": SHA}
NAMED = {"source": {"type": "upload", "files": [{"sha256": SHA}]}}
SEARCHED = {"queries": [{"upload": {"sha256": SHA}}]}
OCTETS = "application/octet-stream"

Ask = Callable[..., Any]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    own = ["search", "ingest"]
    web = build_guarded(
        tmp_path, key("one", rights=own), key("two", rights=own), key("boss"), api_keys=("of-old",), webhook_secret="s"
    )
    web.vectors.store("default", "file:///a")
    yield web
    web.close()


def send(ask: Ask, content: bytes = CONTENT, *, begin: int = 0, **wanted: object) -> Any:
    upload = ask("POST", "/v1/uploads", json={**WANTED, **wanted}).json
    headers = {"Upload-Offset": str(begin)}
    return ask("PATCH", f"/v1/uploads/{upload['id']}", data=content, content_type=OCTETS, headers=headers)


def multipart(ask: Ask, path: str) -> Any:
    return ask("POST", path, data={"image": (io.BytesIO(CONTENT), "a.jpg")})


@pytest.mark.parametrize(
    "sending",
    [
        send,
        lambda ask: send(ask, sha256=None),
        lambda ask: multipart(ask, "/v1/ingests"),
    ],
    ids=["with its hash", "without its hash", "in a form"],
)
def test_only_who_has_sent_a_content_learns_that_it_is_here_and_may_name_it(
    web: Web, sending: Callable[[Ask], Any]
) -> None:
    one, two = asking(web, "one"), asking(web, "two")
    nothing = {
        "begun": two("POST", "/v1/uploads", json=WANTED),
        "looked": two("GET", f"/v1/uploads/{SHA}"),
        "named": two("POST", "/v1/ingests", json=NAMED),
        "searched": two("POST", "/v1/searches", json=SEARCHED),
    }
    assert sending(one).status_code in {200, 202}
    something = {
        "begun": two("POST", "/v1/uploads", json=WANTED),
        "looked": two("GET", f"/v1/uploads/{SHA}"),
        "named": two("POST", "/v1/ingests", json=NAMED),
        "searched": two("POST", "/v1/searches", json=SEARCHED),
    }
    for what, answer in something.items():
        same = {name: value for name, value in answer.json.items() if name != "request_id"}
        before = {name: value for name, value in nothing[what].json.items() if name != "request_id"}
        assert (answer.status_code, same) == (nothing[what].status_code, before), what
    for seeing in (one, asking(web, "boss"), asking(web, "of-old")):
        assert seeing("POST", "/v1/uploads", json=WANTED).status_code == 200
        assert seeing("GET", f"/v1/uploads/{SHA}").status_code == 200
        assert seeing("POST", "/v1/ingests", json=NAMED).status_code == 202
        assert seeing("POST", "/v1/searches", json=SEARCHED).status_code == 202

    assert send(two).json["sha256"] == SHA
    assert two("POST", "/v1/uploads", json=WANTED).status_code == 200
    assert two("POST", "/v1/ingests", json=NAMED).status_code == 202


def test_a_picture_that_was_searched_with_is_its_senders_own(web: Web) -> None:
    one, two = asking(web, "one"), asking(web, "two")
    assert multipart(one, "/v1/searches").status_code == 202
    assert code(two("POST", "/v1/searches", json=SEARCHED)) == (404, "upload_not_found")
    assert one("POST", "/v1/searches", json=SEARCHED).status_code == 202


def test_an_unfinished_upload_is_not_there_for_another(web: Web) -> None:
    one, two = asking(web, "one"), asking(web, "two")
    upload = send(one, CONTENT[:100]).json
    assert two("POST", "/v1/uploads", json=WANTED).json["id"] != upload["id"]
    url = f"/v1/uploads/{upload['id']}"
    assert code(two("GET", url)) == (404, "upload_not_found")
    assert code(two("DELETE", url)) == (404, "upload_not_found")
    answer = two("PATCH", url, data=b"x", content_type=OCTETS, headers={"Upload-Offset": "100"})
    assert code(answer) == (404, "upload_not_found")
    assert one("POST", "/v1/uploads", json=WANTED).json == upload, "who began it goes on"
    assert send(one, CONTENT[100:], begin=100).json["sha256"] == SHA


def test_who_sent_what_is_forgotten_by_the_next_clean_up_after_its_time(web: Web) -> None:
    one, parts = asking(web, "one"), web.services
    send(one)
    marks = list(parts.uploads.walk("senders"))
    assert len(marks) == 1
    later = marks[0].renewed_at + parts.settings.upload_ttl_s + 1
    for dry_run, left in ((True, 1), (False, 0)):
        collect(parts.settings, web.jobs, web.vectors, parts.uploads, dry_run=dry_run, now=later)
        assert len(list(parts.uploads.walk("senders"))) == left
    assert one("POST", "/v1/uploads", json=WANTED).status_code == 201


@pytest.mark.parametrize(("who", "kept"), [("one", True), ("boss", False), ("of-old", False)])
def test_a_webhook_goes_along_with_a_retry_of_the_same_key_only(web: Web, who: str, kept: bool) -> None:
    hook = {"url": "https://example.org/told"}
    folder = {"source": {"type": "folder", "path": "."}, "webhook": hook}
    job_id = asking(web, "one")("POST", "/v1/ingests", json=folder).json["id"]
    plan = web.jobs.claim_ingest()
    assert isinstance(plan, PlanClaim)
    web.jobs.add_chunk(plan, [IngestItem(uri="file:///a")], cursor=None)
    web.jobs.end_plan(plan, finished=True)
    chunk = web.jobs.claim_ingest()
    assert isinstance(chunk, ChunkClaim)
    line = Failure(uri="file:///a", code="file_empty", message="Empty.", stage=Stage.READ)
    web.jobs.account(chunk, ChunkOutcome(failures=(line,)))

    again = asking(web, who)("POST", f"/v1/jobs/{job_id}/retry")
    assert again.status_code == 202
    assert ("webhook" in again.json["request"]) == kept, again.json["request"]
