"""POST /v1/ingests and /v1/searches: what is accepted, what is refused, and that the record comes first."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from flask import Request
from werkzeug.test import TestResponse

from bad_files import BAD_FILES, jpeg
from fakes import Web, build_web
from lookalike.jobstore import Lane
from lookalike.records import Collection, IngestRequest, ModelInfo, SearchRequest, UploadSource
from lookalike.uploads import query_uri, upload_uri

FOLDER = {"type": "folder", "path": "photos"}
MODEL = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="f" * 64, dim=4)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path, max_queries=3, max_limit=10, max_upload_images=3, max_upload_bytes=1 << 20)
    (web.root / "photos").mkdir()
    (web.root / "photos" / "a.jpg").write_bytes(jpeg())
    web.vectors.named["default"] = Collection(name="default", model=MODEL)
    yield web
    web.close()


def form(*images: bytes, **fields: str) -> dict[str, Any]:
    parts = [(io.BytesIO(image), f"{number}.jpg") for number, image in enumerate(images)]
    return {"data": {"image": parts, **fields}, "content_type": "multipart/form-data"}


def refused(answer: TestResponse) -> tuple[int, str]:
    assert answer.mimetype == "application/problem+json", answer.text
    return answer.status_code, answer.json["code"]


def test_a_folder_becomes_a_queued_job_and_rings_its_lane(web: Web) -> None:
    body = {"source": {**FOLDER, "include": ["*.jpg"]}, "metadata": {"album": "spring"}}
    answer = web.client.post("/v1/ingests", json=body)
    record = answer.json
    assert (answer.status_code, record["state"], record["kind"]) == (202, "queued", "ingest")
    assert answer.headers["Location"] == record["links"]["self"] == f"/v1/jobs/{record['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert web.doorbell.rung == [Lane.INGEST]
    stored = IngestRequest.model_validate(web.jobs.get(record["id"]).request)
    assert (stored.collection, stored.source.include, stored.metadata) == ("default", ("*.jpg",), {"album": "spring"})


def test_an_ingest_does_not_need_milvus(web: Web) -> None:
    web.vectors.down = True
    assert web.client.post("/v1/ingests", json={"source": FOLDER}).status_code == 202


def test_the_settings_name_the_collection_of_a_request_that_names_none(tmp_path: Path) -> None:
    web = build_web(tmp_path, collection="mine")
    assert (
        web.client.post("/v1/ingests", json={"source": {**FOLDER, "path": "."}}).json["request"]["collection"] == "mine"
    )
    answer = web.client.post("/v1/ingests", **form(jpeg()))
    assert answer.json["request"]["collection"] == "mine"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"path": "../photos"}, (400, "invalid_path")),
        ({"path": "/etc"}, (400, "invalid_path")),
        ({"path": "photos\0"}, (400, "invalid_path")),
        ({"path": "absent"}, (404, "folder_not_found")),
        ({"path": "photos/a.jpg"}, (404, "folder_not_found")),
        ({"path": ""}, (400, "invalid_request")),
        ({"type": "upload", "files": [{"sha256": "0" * 64}]}, (400, "invalid_request")),
        ({"recursive": "perhaps"}, (400, "invalid_request")),
        ({"surprise": 1}, (400, "invalid_request")),
    ],
)
def test_a_source_that_cannot_be_read_is_refused_and_no_job_is_made(
    web: Web, source: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert refused(web.client.post("/v1/ingests", json={"source": {**FOLDER, **source}})) == expected
    assert not web.jobs.list_jobs().jobs
    assert not web.doorbell.rung


@pytest.mark.parametrize("metadata", [{"uri": "x"}, {"1st": "x"}, {"deep": {"er": 1}}])
def test_metadata_that_cannot_be_stored_is_refused_at_submit(web: Web, metadata: dict[str, Any]) -> None:
    assert refused(web.client.post("/v1/ingests", json={"source": FOLDER, "metadata": metadata})) == (
        400,
        "invalid_parameter",
    )
    answer = web.client.post("/v1/ingests", **form(jpeg(), metadata=json.dumps(metadata)))
    assert refused(answer) == (400, "invalid_parameter")


def test_uploaded_images_are_kept_by_their_hash_and_named_by_their_sender(web: Web) -> None:
    pictures = [jpeg(), jpeg((100, 50))]
    answer = web.client.post("/v1/ingests", **form(*pictures, collection="spring", metadata='{"album": "spring"}'))
    assert answer.status_code == 202, answer.text
    stored = IngestRequest.model_validate(web.jobs.get(answer.json["id"]).request)
    assert isinstance(stored.source, UploadSource)
    assert [file.name for file in stored.source.files] == ["0.jpg", "1.jpg"]
    for file, picture in zip(stored.source.files, pictures, strict=True):
        with web.services.sources.open(upload_uri(file.sha256)) as opened:
            assert opened.read(max_bytes=1 << 20) == picture
    assert (stored.collection, stored.metadata) == ("spring", {"album": "spring"})


def test_forms_are_as_strict_as_json(web: Web) -> None:
    assert refused(web.client.post("/v1/ingests", **form(jpeg(), colection="x"))) == (400, "invalid_request")
    assert refused(web.client.post("/v1/ingests", **form(jpeg(), metadata="[1]"))) == (400, "invalid_request")
    assert refused(web.client.post("/v1/ingests", **form(jpeg(), metadata='{"a": NaN}'))) == (400, "invalid_request")
    assert refused(web.client.post("/v1/ingests", **form())) == (400, "invalid_request")
    twice = {"image": (io.BytesIO(jpeg()), "a.jpg"), "collection": ["a", "b"]}
    assert refused(web.client.post("/v1/ingests", data=twice)) == (400, "invalid_request")
    other = {"image": (io.BytesIO(jpeg()), "a.jpg"), "photo": (io.BytesIO(jpeg()), "b.jpg")}
    assert refused(web.client.post("/v1/ingests", data=other)) == (400, "invalid_request")


def test_the_limits_of_a_request_are_named_when_they_are_broken(web: Web) -> None:
    many = web.client.post("/v1/ingests", **form(*[jpeg((8, 8))] * 4))
    assert refused(many) == (413, "too_many_items")
    assert "LOOKALIKE_MAX_UPLOAD_IMAGES" in many.json["detail"]
    swarm = web.client.post("/v1/ingests", **form(*[b"x"] * 100))
    assert refused(swarm) == (413, "too_many_items")
    large = web.client.post("/v1/ingests", data=bytes(2 << 20), content_type="multipart/form-data; boundary=x")
    assert refused(large) == (413, "payload_too_large")
    assert "LOOKALIKE_MAX_UPLOAD_BYTES" in large.json["detail"]
    assert refused(web.client.post("/v1/searches", **form(*[jpeg((8, 8))] * 4)))[1] == "too_many_items"
    query = {"vector": [0.0, 0.0, 0.0, 1.0]}
    assert refused(web.client.post("/v1/searches", json={"queries": [query] * 4})) == (413, "too_many_items")
    assert refused(web.client.post("/v1/searches", json={"queries": [query], "limit": 11})) == (
        400,
        "invalid_parameter",
    )


def test_a_full_disk_refuses_uploads_and_leaves_no_job(tmp_path: Path) -> None:
    web = build_web(tmp_path, min_free_bytes=1 << 60)
    assert refused(web.client.post("/v1/ingests", **form(jpeg()))) == (507, "insufficient_storage")
    assert not web.jobs.list_jobs().jobs
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_a_disk_that_fills_while_a_form_arrives_refuses_it_too(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> BinaryIO:
        return Path("/dev/full").open("r+b", buffering=0)

    monkeypatch.setattr(Request, "_get_file_stream", full)
    assert refused(web.client.post("/v1/ingests", **form(jpeg()))) == (507, "insufficient_storage")


def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    web = build_web(tmp_path, max_waiting_jobs=1)
    body = {"source": {**FOLDER, "path": "."}}
    assert web.client.post("/v1/ingests", json=body).status_code == 202
    answer = web.client.post("/v1/ingests", json=body)
    assert refused(answer) == (503, "queue_full")
    assert int(answer.headers["Retry-After"]) > 0


def test_what_this_installation_lacks_is_said_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    web = build_web(tmp_path, uploads_url="s3://bucket/uploads")
    for answer in (
        web.client.post("/v1/ingests", **form(jpeg())),
        web.client.post("/v1/uploads", json={"size": 1, "sha256": "0" * 64}),
    ):
        assert refused(answer) == (501, "missing_extra")
        assert "pip install 'lookalike[s3]'" in answer.json["detail"]
    web.close()


def test_the_same_key_and_request_answer_the_same_job_and_ring_once(web: Web) -> None:
    def submit(**changed: Any) -> TestResponse:
        return web.client.post("/v1/ingests", headers={"Idempotency-Key": "k"}, **changed)

    picture = jpeg()
    first, again = submit(**form(picture, collection="a")), submit(**form(picture, collection="a"))
    assert first.json["id"] == again.json["id"]
    assert web.doorbell.rung == [Lane.INGEST]
    # The bytes that were sent are part of the request.
    assert refused(submit(**form(jpeg((9, 9)), collection="a"))) == (422, "idempotency_conflict")
    assert refused(submit(**form(picture, collection="b"))) == (422, "idempotency_conflict")
    for bad in ("", "x" * 256, "naïve"):
        answer = web.client.post("/v1/ingests", json={"source": FOLDER}, headers={"Idempotency-Key": bad})
        assert refused(answer) == (400, "invalid_parameter")


def test_waiting_longer_is_still_the_same_search(web: Web) -> None:
    body = {"queries": [{"path": "photos/a.jpg"}]}
    headers = {"Idempotency-Key": "k"}
    first = web.client.post("/v1/searches", json=body, headers=headers)
    again = web.client.post("/v1/searches", json={**body, "wait": 0.01}, headers=headers)
    assert first.json["id"] == again.json["id"]


def test_a_picture_to_search_with_is_kept_apart_from_ingested_ones(web: Web) -> None:
    picture = jpeg()
    answer = web.client.post("/v1/searches", **form(picture, limit="5", filter="album == 'spring'"))
    assert answer.status_code == 202, answer.text
    stored = SearchRequest.model_validate(web.jobs.get(answer.json["id"]).request)
    upload = stored.queries[0].upload
    assert upload is not None
    assert (stored.limit, stored.filter, upload.name) == (5, "album == 'spring'", "0.jpg")
    with web.services.sources.open(query_uri(upload.sha256)) as opened:
        assert opened.read(max_bytes=1 << 20) == picture
    assert web.doorbell.rung == [Lane.SEARCH]


#: A probe reads the header; what is wrong behind it only decoding finds, and the worker reports.
DEEP = {"image_corrupt", "image_truncated"}


@pytest.mark.parametrize("name", sorted(name for name, (_, code) in BAD_FILES.items() if code not in DEEP))
def test_a_single_picture_that_cannot_be_used_is_refused_with_its_code(web: Web, name: str) -> None:
    make, code = BAD_FILES[name]
    (web.root / name).write_bytes(make())
    assert refused(web.client.post("/v1/searches", json={"queries": [{"path": name}]})) == (422, code)
    assert refused(web.client.post("/v1/searches", **form(make()))) == (422, code)
    assert not web.jobs.list_jobs().jobs


def test_among_several_a_bad_picture_is_left_to_the_worker(web: Web) -> None:
    queries = [{"path": "photos/a.jpg"}, {"path": "absent.jpg"}, {"image_id": "0" * 32}]
    assert web.client.post("/v1/searches", json={"queries": queries}).status_code == 202
    assert web.client.post("/v1/searches", **form(jpeg(), b"GIF89a and no more")).status_code == 202


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"path": "photos/absent.jpg"}, (422, "file_missing")),
        ({"path": "../a.jpg"}, (400, "invalid_path")),
        ({"path": "photos"}, (422, "not_regular_file")),
        ({"image_id": "0" * 32}, (404, "image_not_found")),
        ({"image_id": "0' or 1"}, (400, "invalid_request")),
        ({"image_id": "0" * 32 + "\n"}, (400, "invalid_request")),
        ({"vector": [1.0, 2.0]}, (400, "invalid_parameter")),
        ({"vector": []}, (400, "invalid_request")),
        ({"upload": {"sha256": "0" * 64}}, (404, "upload_not_found")),
        ({"path": "photos/a.jpg", "vector": [1.0]}, (400, "invalid_request")),
        ({}, (400, "invalid_request")),
    ],
)
def test_a_query_that_can_never_be_answered_is_refused_at_submit(
    web: Web, query: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert refused(web.client.post("/v1/searches", json={"queries": [query]})) == expected
    assert not web.jobs.list_jobs().jobs


def test_a_search_asks_milvus_for_its_collection(web: Web) -> None:
    body = {"queries": [{"path": "photos/a.jpg"}]}
    for name in ("absent", "default__0123456789ab", "no-such-name"):
        assert refused(web.client.post("/v1/searches", json={**body, "collection": name}))[0] in {400, 404}
    assert refused(web.client.post("/v1/searches", json={**body, "collection": "absent"})) == (
        404,
        "collection_not_found",
    )
    web.vectors.down = True
    answer = web.client.post("/v1/searches", json=body)
    assert refused(answer) == (503, "vector_store_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_link_out_of_the_root_is_no_way_to_a_file_outside(web: Web, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    (web.root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    answer = web.client.post("/v1/searches", json={"queries": [{"path": "link.jpg"}]})
    assert refused(answer) == (422, "not_regular_file")
    assert str(tmp_path) not in answer.text
