"""POST /v1/ingests with every kind of source: what is refused at submit, and what reaches the job."""

import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from bad_files import jpeg
from fakes import Web, build_web
from lookalike.jobstore import Lane
from lookalike.records import (
    ArchiveSource,
    IngestRequest,
    ManifestSource,
    ObjectsSource,
    Priority,
    UploadSource,
    URLsSource,
)
from lookalike.uploads import Area, UploadStore, upload_uri
from lookalike.uploads.folder import FolderFiles
from lookalike_web.app import create_app

ABSENT = "0" * 64
SETTINGS: dict[str, Any] = {
    "url_ingest": True,
    "object_roots": ("s3://pictures/open/",),
    "max_urls": 3,
    "webhook_secret": "whsec_c2VjcmV0",
}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path, **SETTINGS)
    (web.root / "list.csv").write_text("uri\na.jpg\n")
    (web.root / "photos").mkdir()
    yield web
    web.close()


def submit(web: Web, source: dict[str, Any], **fields: Any) -> TestResponse:
    return web.client.post("/v1/ingests", json={"source": source, **fields})


def stored(web: Web, answer: TestResponse) -> IngestRequest:
    assert answer.status_code == 202, answer.text
    return IngestRequest.model_validate(web.jobs.get(answer.json["id"]).request)


def refused(answer: TestResponse) -> tuple[int, str]:
    assert answer.mimetype == "application/problem+json", answer.text
    return answer.status_code, answer.json["code"]


def upload(web: Web, content: bytes) -> str:
    return web.services.uploads.put(io.BytesIO(content))


def test_every_kind_of_source_becomes_a_job_with_its_options(web: Web) -> None:
    sha256 = upload(web, b"anything")
    sources: list[tuple[dict[str, Any], type]] = [
        ({"type": "upload", "files": [{"sha256": sha256, "name": "a.jpg"}]}, UploadSource),
        ({"type": "archive", "upload": {"sha256": sha256, "name": "a.zip"}}, ArchiveSource),
        ({"type": "archive", "url": "https://example.org/a.zip"}, ArchiveSource),
        ({"type": "archive", "url": "s3://pictures/open/a.zip"}, ArchiveSource),
        ({"type": "manifest", "path": "list.csv", "uri_column": "file"}, ManifestSource),
        ({"type": "urls", "urls": ["https://example.org/a.jpg"]}, URLsSource),
        ({"type": "objects", "prefix": "s3://pictures/open/2024", "include": ["*.jpg"]}, ObjectsSource),
    ]
    for source, kind in sources:
        request = stored(web, submit(web, source, priority="high", label_from_folder=True, checksum=True))
        assert isinstance(request.source, kind)
        read = request.source.model_dump(mode="json", exclude_none=True)
        assert {name: read[name] for name in source} == source
        assert (request.priority, request.label_from_folder, request.checksum) == (Priority.HIGH, True, True)
    assert stored(web, submit(web, {"path": "photos"}, sync=True, dry_run=True)).sync


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"type": "upload", "files": [{"sha256": ABSENT}]}, (404, "upload_not_found")),
        ({"type": "upload", "files": []}, (400, "invalid_request")),
        ({"type": "upload", "files": [{"sha256": "../../etc"}]}, (400, "invalid_request")),
        ({"type": "archive", "upload": {"sha256": ABSENT}}, (404, "upload_not_found")),
        ({"type": "archive", "path": "../a.zip"}, (400, "invalid_path")),
        ({"type": "archive", "path": "absent.zip"}, (422, "file_missing")),
        ({"type": "archive", "path": "photos"}, (422, "not_regular_file")),
        ({"type": "manifest", "path": "/etc/passwd"}, (400, "invalid_path")),
        ({"type": "manifest", "url": "ftp://example.org/list.csv"}, (400, "invalid_url")),
        ({"type": "urls", "urls": ["https://example.org/a.jpg", "file:///etc/passwd"]}, (400, "invalid_url")),
        ({"type": "urls", "urls": ["http://user:pass@example.org/"]}, (400, "invalid_url")),
        ({"type": "urls", "urls": ["http://example.org:22/"]}, (400, "invalid_url")),
        ({"type": "urls", "urls": ["https://example.org/a.jpg"] * 4}, (413, "too_many_items")),
        ({"type": "upload", "files": [{"sha256": ABSENT}] * 4}, (413, "too_many_items")),
        ({"type": "objects", "prefix": "s3://pictures/closed/"}, (400, "invalid_path")),
        ({"type": "objects", "prefix": "/etc"}, (400, "invalid_path")),
        ({"type": "failures", "job_id": "01JABSENT"}, (404, "job_not_found")),
        ({"type": "failures", "job_id": "a:b"}, (400, "invalid_request")),
    ],
)
def test_what_can_never_be_read_is_refused_before_there_is_a_job(
    web: Web, source: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert refused(submit(web, source)) == expected
    assert not web.jobs.list_jobs().jobs
    assert not web.doorbell.rung


def test_addresses_are_fetched_only_where_that_was_switched_on(tmp_path: Path) -> None:
    web = build_web(tmp_path)
    for source in (
        {"type": "urls", "urls": ["https://example.org/a.jpg"]},
        {"type": "archive", "url": "https://example.org/a.zip"},
        {"type": "manifest", "url": "https://example.org/a.csv"},
    ):
        assert refused(submit(web, source)) == (403, "url_ingest_disabled")
    web.close()


def test_a_webhook_needs_a_key_to_sign_with_and_an_address_to_go_to(web: Web, tmp_path: Path) -> None:
    hook = {"url": "https://example.org/hook"}
    assert stored(web, submit(web, {"path": "photos"}, webhook=hook)).webhook is not None
    for bad in ("ftp://example.org", "https://example.org:22/", "https://user@example.org/", "hook"):
        assert refused(submit(web, {"path": "photos"}, webhook={"url": bad})) == (400, "invalid_url"), bad
    body = {"queries": [{"vector": [1.0]}], "webhook": {"url": "hook"}}
    assert refused(web.client.post("/v1/searches", json=body)) == (400, "invalid_url")
    (tmp_path / "other").mkdir()
    unsigned = build_web(tmp_path / "other")
    answer = submit(unsigned, {"path": "."}, webhook=hook)
    assert refused(answer) == (400, "invalid_request")
    assert "LOOKALIKE_WEBHOOK_SECRET" in answer.json["detail"]
    unsigned.close()


def archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        picture = jpeg()
        member = tarfile.TarInfo("cats/a.jpg")
        member.size = len(picture)
        tar.addfile(member, io.BytesIO(picture))
    return content.getvalue()


def test_a_form_takes_one_archive_in_the_place_of_images(web: Web) -> None:
    content = archive()
    data: dict[str, Any] = {
        "archive": (io.BytesIO(content), "cats.tar.gz"),
        "label_from_folder": "true",
        "priority": "low",
        "webhook": '{"url": "https://example.org/hook"}',
    }
    request = stored(web, web.client.post("/v1/ingests", data=data))
    assert isinstance(request.source, ArchiveSource)
    assert request.source.upload is not None
    assert request.source.upload.name == "cats.tar.gz"
    assert (request.label_from_folder, request.priority) == (True, Priority.LOW)
    assert request.webhook is not None
    with web.services.open(upload_uri(request.source.upload.sha256)) as opened:
        assert opened.read(max_bytes=1 << 20) == content
    both = {"archive": (io.BytesIO(content), "a.tar.gz"), "image": (io.BytesIO(jpeg()), "a.jpg")}
    two = {"archive": [(io.BytesIO(content), "a.tar.gz"), (io.BytesIO(content), "b.tar.gz")]}
    for bad in (both, two):
        assert refused(web.client.post("/v1/ingests", data=bad)) == (400, "invalid_request")
    search = {"archive": (io.BytesIO(content), "a.tar.gz")}
    assert refused(web.client.post("/v1/searches", data=search)) == (400, "invalid_request")


def test_a_repeat_answers_its_job_although_the_world_has_changed(web: Web) -> None:
    body = {"source": {"path": "photos"}}
    first = web.client.post("/v1/ingests", json=body, headers={"Idempotency-Key": "k"})
    (web.root / "photos").rmdir()
    again = web.client.post("/v1/ingests", json=body, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json["id"]) == (202, first.json["id"])
    assert web.doorbell.rung == [Lane.INGEST]
    other = web.client.post("/v1/ingests", json={"source": {"path": "."}}, headers={"Idempotency-Key": "k"})
    assert refused(other) == (422, "idempotency_conflict")
    assert refused(submit(web, {"path": "photos"})) == (404, "folder_not_found")


def test_a_request_that_would_fill_redis_is_refused_with_the_bound(tmp_path: Path) -> None:
    web = build_web(tmp_path, url_ingest=True)
    urls = [f"https://example.org/{'a' * 1000}/{number}.jpg" for number in range(6000)]
    answer = submit(web, {"type": "urls", "urls": urls})
    assert refused(answer) == (413, "payload_too_large")
    assert "4194304" in answer.json["detail"]
    assert not web.jobs.list_jobs().jobs
    web.close()


def test_failures_of_a_job_that_still_runs_are_not_known_yet(web: Web) -> None:
    job_id = submit(web, {"path": "photos"}).json["id"]
    assert refused(submit(web, {"type": "failures", "job_id": job_id})) == (409, "job_not_final")
    web.jobs.cancel(job_id)
    assert refused(submit(web, {"type": "failures", "job_id": job_id})) == (400, "invalid_request")


class FarFiles(FolderFiles):
    """Files that count as far away; several have to be asked for at a time to be answered at all."""

    is_local = False

    def __init__(self, folder: Path, *, at_a_time: int) -> None:
        super().__init__(folder)
        self.together: threading.Barrier | None = threading.Barrier(at_a_time)
        self._counting = threading.Lock()
        self.asked: list[str] = []
        self._asking = self.most = 0

    def renew(self, area: Area, sha256: str) -> bool:
        with self._counting:
            self.asked.append(sha256)
            self._asking += 1
            self.most = max(self.most, self._asking)
        if self.together:
            self.together.wait(60)
        try:
            return super().renew(area, sha256)
        finally:
            with self._counting:
                self._asking -= 1


def test_uploads_in_an_object_store_are_looked_for_side_by_side_within_a_bound(tmp_path: Path) -> None:
    near = build_web(tmp_path, max_urls=200)
    files = FarFiles(tmp_path / "far", at_a_time=8)
    store = UploadStore(tmp_path / "far", min_free_bytes=0, max_file_bytes=100, files=files)
    services = replace(near.services, uploads=store)
    web = Web(services, create_app(services).test_client())
    sent = [store.put(io.BytesIO(bytes([number]))) for number in range(64)]
    assert stored(web, submit(web, {"type": "upload", "files": [{"sha256": name} for name in sent + sent]}))
    assert sorted(files.asked) == sorted(sent), "each content once"
    assert 8 <= files.most <= 16
    files.together = None  # Those who are no longer needed are not asked any more.
    lacking = [*sent[:32], ABSENT, *sent[33:]]
    answer = submit(web, {"type": "upload", "files": [{"sha256": name} for name in lacking]})
    assert refused(answer) == (404, "upload_not_found")
    assert ABSENT in answer.json["detail"]
    near.close()
