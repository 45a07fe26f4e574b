"""/v1/exports, /v1/imports, and images listed and changed."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import Web, build_web
from lookalike.jobstore import Step, StepClaim
from lookalike.records import JobKind

KEYS = """
[[keys]]
name = "reader"
sha256 = ["{reader}"]
rights = ["search"]

[[keys]]
name = "narrow"
sha256 = ["{narrow}"]
rights = ["search", "ingest"]
collections = ["mine_*"]
roots = ["/nowhere"]

[[keys]]
name = "other"
sha256 = ["{other}"]
rights = ["search", "ingest"]
"""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path)
    yield web
    web.close()


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Web]:
    file = tmp_path / "keys.toml"
    names = ("reader", "narrow", "other")
    file.write_text(KEYS.format(**{name: hashlib.sha256(name.encode()).hexdigest() for name in names}))
    web = build_web(tmp_path, keys_file=file)
    yield web
    web.close()


def as_(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def finish(web: Web) -> None:
    """Have the next job succeed."""
    claim = web.jobs.claim_ingest()
    assert isinstance(claim, StepClaim)
    web.jobs.advance(claim, Step(result={}))


def test_an_export_becomes_a_queued_job_and_what_cannot_be_exported_is_refused(web: Web) -> None:
    web.vectors.store("default", "file:///a.jpg")
    answer = web.client.post("/v1/exports", json={"format": "npy", "filter": "album == 'spring'"})
    assert (answer.status_code, answer.json["kind"], answer.json["state"]) == (202, "export", "queued")
    assert answer.json["request"]["collection"] == "default"
    for body, code in (
        ({"collection": "absent"}, "collection_not_found"),
        ({"filter": " "}, "invalid_filter"),
        ({"format": "csv"}, "invalid_request"),
        ({"webhook": {"url": "https://example.org"}}, "invalid_request"),
    ):
        assert web.client.post("/v1/exports", json=body).json["code"] == code, body


def test_an_import_names_files_that_are_there_or_an_export_that_succeeded(web: Web) -> None:
    (web.root / "backup").mkdir()
    (web.root / "one.parquet").write_bytes(b"PAR1")
    sha256 = web.services.uploads.put(io.BytesIO(b"PAR1"))
    for place in ({"path": "backup"}, {"path": "one.parquet"}, {"uploads": [{"sha256": sha256}]}):
        answer = web.client.post("/v1/imports", json={"collection": "restored", **place})
        assert (answer.status_code, answer.json["kind"]) == (202, "import"), place
        finish(web)
    assert sha256 in web.jobs.uploads_in_use()
    for place, code in (
        ({}, "invalid_request"),
        ({"path": "backup", "job_id": "01J"}, "invalid_request"),
        ({"path": "../etc"}, "invalid_path"),
        ({"path": "absent"}, "file_missing"),
        ({"uploads": [{"sha256": "0" * 64}]}, "upload_not_found"),
        ({"job_id": "01JABSENT"}, "job_not_found"),
    ):
        assert web.client.post("/v1/imports", json={"collection": "restored", **place}).json["code"] == code, place
    web.vectors.store("default", "file:///a.jpg")
    exported = web.client.post("/v1/exports", json={}).json["id"]
    assert web.client.post("/v1/imports", json={"job_id": exported}).json["code"] == "job_not_final"
    finish(web)
    assert web.client.post("/v1/imports", json={"collection": "restored", "job_id": exported}).status_code == 202
    other = web.client.post("/v1/deletions", json={"filter": "a == 1"}).json["id"]
    assert web.client.post("/v1/imports", json={"job_id": other}).json["code"] == "invalid_request"


def test_lists_of_jobs_leave_the_uploads_of_imports_out(web: Web) -> None:
    sha256 = web.services.uploads.put(io.BytesIO(b"PAR1"))
    web.client.post("/v1/imports", json={"uploads": [{"sha256": sha256}]})
    (job,) = web.client.get("/v1/jobs?kind=import").json["jobs"]
    assert "uploads" not in job["request"]


def test_keys_export_and_import_only_what_they_may(keyed: Web) -> None:
    post = keyed.client.post
    for name in ("default", "mine_a"):
        keyed.vectors.store(name, "file:///a.jpg")
    (keyed.root / "backup").mkdir()
    assert post("/v1/exports", json={}, headers=as_("reader")).json["code"] == "forbidden"
    assert post("/v1/exports", json={}, headers=as_("narrow")).json["code"] == "forbidden"
    own = post("/v1/exports", json={"collection": "mine_a"}, headers=as_("narrow")).json["id"]
    finish(keyed)
    theirs = post("/v1/exports", json={}, headers=as_("other")).json["id"]
    finish(keyed)
    into = {"collection": "mine_b"}
    assert post("/v1/imports", json={**into, "job_id": own}, headers=as_("narrow")).status_code == 202
    assert post("/v1/imports", json={**into, "job_id": theirs}, headers=as_("narrow")).json["code"] == "job_not_found"
    # A row may name any file, and who reads an image by its id is not asked for the root of that.
    refused = post("/v1/imports", json={**into, "path": "backup"}, headers=as_("narrow"))
    assert (refused.status_code, refused.json["code"]) == (403, "root_not_allowed")
    assert post("/v1/imports", json={"job_id": own}, headers=as_("narrow")).json["code"] == "forbidden"
    assert keyed.jobs.list_jobs(kind=JobKind.IMPORT).jobs[0].owner == "narrow"


def test_images_are_listed_page_by_page_in_the_order_of_their_ids(web: Web) -> None:
    ids = sorted(web.vectors.store("default", f"file:///{number}.jpg") for number in range(5))
    first = web.client.get("/v1/images?limit=2").json
    assert [image["id"] for image in first["images"]] == ids[:2]
    assert first["images"][0]["thumbnail_url"].startswith("/v1/images/")
    second = web.client.get(f"/v1/images?limit=3&cursor={first['next_cursor']}").json
    assert [image["id"] for image in second["images"]] == ids[2:]
    last = web.client.get(f"/v1/images?cursor={second['next_cursor']}").json
    assert (last["images"], last["next_cursor"]) == ([], None)
    for query, code in (
        ("cursor=later", "invalid_request"),
        ("limit=0", "invalid_request"),
        ("filter=%20", "invalid_filter"),
        ("collection=absent", "collection_not_found"),
    ):
        assert web.client.get(f"/v1/images?{query}").json["code"] == code, query


def test_an_images_metadata_is_patched_and_checked(web: Web) -> None:
    image_id = web.vectors.store("default", "file:///a.jpg")
    url = f"/v1/images/{image_id}?collection=default"
    patched = web.client.patch(url, json={"metadata": {"stars": 5}})
    assert (patched.status_code, patched.json["metadata"]) == (200, {"album": "spring", "stars": 5})
    assert web.client.patch(url, json={"metadata": {"album": None}}).json["metadata"] == {"stars": 5}
    assert web.client.patch(url, json={"metadata": {"uri": "x"}}).json["code"] == "invalid_parameter"
    assert web.client.patch(url, json={}).json["code"] == "invalid_request"
    absent = web.client.patch(f"/v1/images/{'0' * 32}", json={"metadata": {}})
    assert absent.json["code"] == "image_not_found"
    assert web.client.get(url).json["metadata"] == {"stars": 5}


def test_a_key_that_may_only_search_lists_images_and_changes_none(keyed: Web) -> None:
    image_id = keyed.vectors.store("default", "file:///a.jpg")
    assert keyed.client.get("/v1/images", headers=as_("reader")).status_code == 200
    assert keyed.client.get("/v1/images", headers=as_("narrow")).json["code"] == "forbidden"
    refused = keyed.client.patch(f"/v1/images/{image_id}", json={"metadata": {}}, headers=as_("reader"))
    assert refused.json["code"] == "forbidden"
