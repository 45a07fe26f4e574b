"""/v1/bulk-searches: who may ask for what, what is refused, and what reaches the job."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import Web, build_web
from lookalike.jobstore import Step, StepClaim
from lookalike.records import BulkSearchRequest, CollectionRequest, FolderSource

KEYS = """
[[keys]]
name = "reader"
sha256 = ["{reader}"]
rights = ["search"]
collections = ["mine"]

[[keys]]
name = "writer"
sha256 = ["{writer}"]
rights = ["ingest"]

[[keys]]
name = "narrow"
sha256 = ["{narrow}"]
rights = ["search"]
roots = ["{root}/open"]
"""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    file = tmp_path / "keys.toml"
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("reader", "writer", "narrow")}
    file.write_text(KEYS.format(root=tmp_path / "root", **digests))
    web = build_web(tmp_path, keys_file=file, max_urls=2, url_ingest=True)
    for folder in ("open", "closed"):
        (web.root / folder).mkdir()
    for name in ("mine", "other"):
        web.vectors.create(CollectionRequest(name=name))
    yield web
    web.close()


def ask(web: Web, who: str, **body: Any) -> tuple[int, str]:
    wanted = {"collection": "mine", "source": {"path": "open"}, **body}
    answer = web.client.post("/v1/bulk-searches", json=wanted, headers={"Authorization": f"Bearer {who}"})
    return answer.status_code, answer.json.get("code", answer.json.get("kind"))


def test_it_needs_the_right_to_search_in_the_collection_and_to_read_the_source(web: Web) -> None:
    assert ask(web, "reader") == (202, "bulk_search")
    assert ask(web, "reader", collection="other") == (403, "forbidden")
    assert ask(web, "writer") == (403, "forbidden")
    assert ask(web, "narrow") == (202, "bulk_search")
    assert ask(web, "narrow", source={"type": "folder", "path": "closed"}) == (403, "root_not_allowed")
    assert ask(web, "narrow", source={"type": "manifest", "path": "open/list.csv"}) == (403, "root_not_allowed")


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"source": None}, (400, "invalid_request")),
        ({"source": {"type": "failures", "job_id": "1"}}, (400, "invalid_request")),
        ({"source": {"path": "nowhere"}}, (404, "folder_not_found")),
        ({"source": {"path": "../open"}}, (400, "invalid_path")),
        ({"source": {"type": "urls", "urls": ["http://a.b/1"] * 3}}, (413, "too_many_items")),
        ({"source": {"type": "archive", "upload": {"sha256": "0" * 64}}}, (404, "upload_not_found")),
        ({"limit": 1_001}, (400, "invalid_parameter")),
        ({"offset": 3}, (400, "invalid_request")),
        ({"sheets": 101}, (400, "invalid_request")),
        ({"group_by": "metadata"}, (400, "invalid_parameter")),
        ({"model": "resnet18"}, (404, "model_not_found")),
    ],
)
def test_what_can_never_be_answered_is_refused(web: Web, body: dict[str, Any], refused: tuple[int, str]) -> None:
    assert ask(web, "reader", **body) == refused


def test_the_job_has_what_was_asked_for(web: Web) -> None:
    body = {
        "collection": "mine",
        "source": {"path": "open", "include": ["*.png"]},
        "limit": 7,
        "exclude_self": True,
        "variants": ["mirror"],
    }
    answer = web.client.post("/v1/bulk-searches", json=body, headers={"Authorization": "Bearer reader"})
    request = BulkSearchRequest.model_validate(web.jobs.get(answer.json["id"]).request)
    assert request == BulkSearchRequest.model_validate({**body, "source": {**body["source"], "type": "folder"}})
    assert isinstance(request.source, FolderSource)


def test_the_result_of_a_job_is_counts_and_its_record_is_answered_as_it_is(web: Web) -> None:
    job_id = web.client.post(
        "/v1/bulk-searches",
        json={"collection": "mine", "source": {"path": "open"}},
        headers={"Authorization": "Bearer reader"},
    ).json["id"]
    claim = web.jobs.claim_ingest()
    assert isinstance(claim, StepClaim)
    counts = dict.fromkeys(("queries", "failed", "without_hits", "hits", "sheets", "not_on_sheets"), 2)
    result = {"collection": "mine", "metric": "COSINE", "model": None, **counts}
    web.jobs.advance(claim, Step(processed=2, result=result))
    answer = web.client.get(f"/v1/jobs/{job_id}", headers={"Authorization": "Bearer reader"})
    assert (answer.status_code, answer.json["state"], answer.json["result"]) == (200, "succeeded", result)
