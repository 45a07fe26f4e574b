"""Bulk searches by the client: what is named, and what is packed and uploaded."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bad_files import jpeg
from lookalike import Client
from lookalike.errors import InvalidPath, InvalidRequest
from lookalike.records import BulkSearchResult

LIMITS = {"max_upload_bytes": 64 << 20, "max_upload_images": 200, "max_file_bytes": 128 << 20, "max_queries": 64}
RESULT = {
    "collection": "default",
    "metric": "COSINE",
    "model": None,
    **dict.fromkeys(("queries", "failed", "without_hits", "hits", "sheets", "not_on_sheets"), 0),
}


class Service:
    """Takes uploads and bulk searches, and answers these at once; of folders it reads none but `/srv`."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.uploaded: list[bytes] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/info":
            return httpx2.Response(200, json={"limits": LIMITS})
        if request.method == "PATCH":
            self.uploaded.append(request.read())
            size = len(self.uploaded[-1])
            return httpx2.Response(200, json={"id": "u", "size": size, "offset": size, "sha256": "f" * 64})
        body = json.loads(request.read())
        if request.url.path == "/v1/uploads":
            return httpx2.Response(201, json={"id": "u", "size": body["size"], "offset": 0})
        path = body["source"].get("path")
        if path and not path.startswith("/srv"):
            return httpx2.Response(400, json={"code": "invalid_path", "detail": "It is under no root."})
        self.asked.append(body)
        record = {
            "id": "01J",
            "kind": "bulk_search",
            "state": "succeeded",
            "created_at": "2026-01-01T00:00:00Z",
            "request": body,
            "result": RESULT,
        }
        return httpx2.Response(200, json=record)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client("http://127.0.0.1:1", transport=httpx2.MockTransport(service)) as client:
        yield client


@pytest.mark.parametrize(
    ("sources", "source"),
    [
        (["/srv/photos"], {"type": "folder", "path": "/srv/photos", "include": ["*.jpg"]}),
        (["/srv/list.csv"], {"type": "manifest", "path": "/srv/list.csv"}),
        (["s3://bucket/new/"], {"type": "objects", "prefix": "s3://bucket/new/", "include": ["*.jpg"]}),
        (["https://a.b/all.zip"], {"type": "archive", "url": "https://a.b/all.zip"}),
        (["https://a.b/1.jpg", "https://a.b/2"], {"type": "urls", "urls": ["https://a.b/1.jpg", "https://a.b/2"]}),
    ],
)
def test_what_the_service_reads_itself_is_only_named(
    client: Client, service: Service, sources: list[str], source: dict[str, Any]
) -> None:
    result = client.bulk_search(*sources, limit=5, include=["*.jpg"], variants=["mirror"], filter=None)
    assert result == BulkSearchResult.model_validate(RESULT)
    assert service.asked == [{"limit": 5, "variants": ["mirror"], "source": source}]
    assert not service.uploaded


def test_local_folders_and_files_become_one_archive(client: Client, service: Service, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/a.jpg", "deep/er/b.jpg", "deep/notes.txt", "c.jpg"):
        (tmp_path / name).write_bytes(jpeg())
    client.bulk_search(tmp_path / "deep", tmp_path / "c.jpg", collection="mine")
    (asked,) = service.asked
    assert asked["source"]["type"] == "archive"
    assert asked["source"]["upload"]["sha256"] == "f" * 64
    with tarfile.open(fileobj=io.BytesIO(b"".join(service.uploaded))) as tar:
        assert sorted(tar.getnames()) == ["c.jpg", "deep/a.jpg", "deep/er/b.jpg"]


def test_what_is_to_be_read_in_place_is_not_uploaded(client: Client, service: Service, tmp_path: Path) -> None:
    with pytest.raises(InvalidPath):
        client.bulk_search(tmp_path, upload=False)
    with pytest.raises(InvalidRequest):
        client.bulk_search()
    assert not service.asked
    assert not service.uploaded
