"""/v1/collections and /v1/images."""

import dataclasses
import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from bad_files import jpeg
from fakes import Web, build_web
from lookalike.roots import file_uri


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path)
    yield web
    web.close()


def store(web: Web, name: str, content: bytes) -> str:
    path = web.root / name
    path.write_bytes(content)
    return web.vectors.store("default", file_uri(path), sha256=hashlib.sha256(content).hexdigest(), label=name)


def test_a_collection_is_created_listed_counted_and_deleted(web: Web) -> None:
    created = web.client.post("/v1/collections", json={"name": "spring", "metric": "L2", "index": "HNSW"})
    assert (created.status_code, created.headers["Location"]) == (201, "/v1/collections/spring")
    assert web.client.post("/v1/collections", json={"name": "spring"}).json["code"] == "collection_exists"
    store(web, "a.jpg", jpeg())
    assert [found["name"] for found in web.client.get("/v1/collections").json["collections"]] == ["default", "spring"]
    assert web.client.get("/v1/collections/default").json["count"] == 1
    shown = web.client.get("/v1/collections/spring").json
    assert (shown["metric"], shown["index"], shown["count"]) == ("L2", "HNSW", 0)
    gone = web.client.delete("/v1/collections/spring")
    assert (gone.status_code, gone.data) == (204, b"")
    for answer in (web.client.get("/v1/collections/spring"), web.client.delete("/v1/collections/spring")):
        assert (answer.status_code, answer.json["code"]) == (404, "collection_not_found")


def test_a_collections_form_is_checked(web: Web) -> None:
    for body in ({"name": "a__b"}, {"name": "1"}, {"name": "a", "metric": "cosine"}, {"name": "a", "count": 0, "x": 1}):
        assert web.client.post("/v1/collections", json=body).json["code"] == "invalid_request", body


def test_milvus_being_down_is_a_503_everywhere_it_is_asked(web: Web) -> None:
    web.vectors.down = True
    for path in ("/v1/collections", "/v1/collections/default", f"/v1/images/{'0' * 32}"):
        answer = web.client.get(path)
        assert (answer.status_code, answer.json["code"]) == (503, "vector_store_unavailable")
        assert int(answer.headers["Retry-After"]) > 0


def test_an_image_is_shown_with_addresses_that_answer_and_deleted(web: Web) -> None:
    image_id = store(web, "a.jpg", jpeg())
    shown = web.client.get(f"/v1/images/{image_id}").json
    assert (shown["id"], shown["name"], shown["metadata"]) == (image_id, "a.jpg", {"album": "spring"})
    for url in (shown["thumbnail_url"], shown["content_url"]):
        assert web.client.get(url, buffered=True).status_code == 200
    assert web.client.delete(f"/v1/images/{image_id}?collection=default").status_code == 204
    assert web.client.get(f"/v1/images/{image_id}").json["code"] == "image_not_found"
    assert (web.root / "a.jpg").exists()
    assert web.client.get(f"/v1/images/{image_id}?collection=absent").json["code"] == "collection_not_found"
    assert web.client.get(f"/v1/images/{image_id}?colection=default").json["code"] == "invalid_request"


def test_a_thumbnail_is_a_small_webp_that_browsers_keep(web: Web) -> None:
    picture = jpeg((900, 600))
    image_id = store(web, "a.jpg", picture)
    url = web.client.get(f"/v1/images/{image_id}").json["thumbnail_url"]
    answer = web.client.get(url)
    with Image.open(io.BytesIO(answer.data)) as small:
        assert (small.format, small.size) == ("WEBP", (320, 213))
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["ETag"] == f'"{hashlib.sha256(picture).hexdigest()}"'
    again = web.client.get(url, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    # Without the version the address stays the same when the content changes.
    assert "immutable" not in web.client.get(f"/v1/images/{image_id}/thumbnail").headers["Cache-Control"]


def test_the_content_is_the_files_bytes_as_what_they_are(web: Web) -> None:
    picture = jpeg()
    image_id = store(web, 'evil"\n.html', picture)
    answer = web.client.get(f"/v1/images/{image_id}/content", buffered=True)
    assert answer.data == picture
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith("inline")
    assert "\n" not in answer.headers["Content-Disposition"]
    part = web.client.get(f"/v1/images/{image_id}/content", headers={"Range": "bytes=2-5"}, buffered=True)
    assert (part.status_code, part.data) == (206, picture[2:6])
    beyond = web.client.get(f"/v1/images/{image_id}/content", headers={"Range": f"bytes={len(picture)}-"})
    assert (beyond.status_code, beyond.json["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["Content-Range"] == f"bytes */{len(picture)}"
    same = web.client.get(
        f"/v1/images/{image_id}/content", headers={"If-None-Match": answer.headers["ETag"]}, buffered=True
    )
    assert same.status_code == 304


@pytest.mark.parametrize(
    "content", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>", b"%PDF-1.7", b"", b"II*\0"]
)
def test_what_is_not_one_of_the_formats_never_leaves_as_content(web: Web, content: bytes) -> None:
    image_id = store(web, "a.jpg", content)
    answer = web.client.get(f"/v1/images/{image_id}/content")
    assert (answer.status_code, answer.json["code"]) == (422, "unsupported_format")


def test_an_image_whose_file_is_gone_or_replaced_by_a_link_is_not_served(web: Web, tmp_path: Path) -> None:
    image_id = store(web, "a.jpg", jpeg())
    (web.root / "a.jpg").unlink()
    for what in ("thumbnail", "content"):
        answer = web.client.get(f"/v1/images/{image_id}/{what}")
        assert (answer.status_code, answer.json["code"]) == (404, "file_missing")
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    (web.root / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    for what in ("thumbnail", "content"):
        answer = web.client.get(f"/v1/images/{image_id}/{what}")
        assert (answer.status_code, answer.json["code"]) == (422, "not_regular_file")


@pytest.mark.parametrize("bad", ["x", "0" * 31, "0" * 32 + "%0A", "..%2F..%2Fetc%2Fpasswd", "A" * 32])
def test_images_have_ids_and_no_paths(web: Web, bad: str) -> None:
    store(web, "a.jpg", jpeg())
    for what in ("", "/thumbnail", "/content"):
        assert web.client.get(f"/v1/images/{bad}{what}").status_code == 404


class Gallery(BaseHTTPRequestHandler):
    """A web server with one picture, which counts how often it was asked."""

    picture = jpeg((900, 600))
    asked = 0

    def do_GET(self) -> None:
        Gallery.asked += 1
        there = self.path == "/a.jpg"
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", str(len(self.picture) if there else 0))
        self.end_headers()
        self.wfile.write(self.picture if there else b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_an_image_on_the_web_is_fetched_once_for_its_pictures(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gallery)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    web = build_web(tmp_path, url_ingest=True, fetch_private=True)
    try:
        place = f"http://127.0.0.1:{server.server_address[1]}"
        image_id = web.vectors.store("default", f"{place}/a.jpg")
        with Image.open(io.BytesIO(web.client.get(f"/v1/images/{image_id}/thumbnail").data)) as small:
            assert (small.format, small.size) == ("WEBP", (320, 213))
        content = web.client.get(f"/v1/images/{image_id}/content", buffered=True)
        assert (content.data, content.mimetype) == (Gallery.picture, "image/jpeg")
        assert Gallery.asked == 1
        gone = web.vectors.store("default", f"{place}/b.jpg")
        for what in ("thumbnail", "content"):
            answer = web.client.get(f"/v1/images/{gone}/{what}")
            assert (answer.status_code, answer.json["code"]) == (422, "url_http_error")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        web.close()


def test_a_duplicate_names_the_image_it_shares_its_vector_with(web: Web) -> None:
    image_id = store(web, "a.jpg", jpeg())
    assert web.client.get(f"/v1/images/{image_id}").json["duplicate_of"] is None
    kept = web.vectors.images["default"]
    kept[image_id] = dataclasses.replace(kept[image_id], duplicate_of="1" * 32)
    assert web.client.get(f"/v1/images/{image_id}").json["duplicate_of"] == "1" * 32
