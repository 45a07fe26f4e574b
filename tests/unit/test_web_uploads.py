"""/v1/uploads: files in pieces."""

import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from fakes import Web, build_web
from lookalike.uploads import upload_uri

CONTENT = random.Random(7).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BYTES = "application/octet-stream"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path, max_upload_bytes=1 << 17)
    yield web
    web.close()


def begin(web: Web, **body: Any) -> str:
    answer = web.client.post("/v1/uploads", json={"size": len(CONTENT), **body})
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "0"), answer.text
    assert answer.headers["Location"] == f"/v1/uploads/{answer.json['id']}"
    return answer.headers["Location"]


def append(web: Web, url: str, offset: int | str, piece: bytes, content_type: str = BYTES) -> TestResponse:
    return web.client.patch(url, data=piece, content_type=content_type, headers={"Upload-Offset": str(offset)})


def send(web: Web, url: str) -> TestResponse:
    step = 100_000
    for offset in range(0, len(CONTENT), step):
        answer = append(web, url, offset, CONTENT[offset : offset + step])
        assert (answer.status_code, answer.json["offset"]) == (200, min(offset + step, len(CONTENT))), answer.text
        assert answer.headers["Upload-Offset"] == str(answer.json["offset"])
    return answer


def test_a_file_sent_in_pieces_is_one_file_that_an_ingest_can_name(web: Web) -> None:
    url = begin(web, name="paintings.zip", sha256=SHA256)
    assert send(web, url).json["sha256"] == SHA256
    with web.services.open(upload_uri(SHA256)) as opened:
        assert opened.read(max_bytes=1 << 20) == CONTENT
    body = {"source": {"type": "archive", "upload": {"sha256": SHA256, "name": "paintings.zip"}}}
    assert web.client.post("/v1/ingests", json=body).status_code == 202
    known = web.client.post("/v1/uploads", json={"size": len(CONTENT), "sha256": SHA256})
    assert (known.status_code, known.json["sha256"], known.json["offset"]) == (200, SHA256, len(CONTENT))


def test_an_interrupted_upload_goes_on_from_where_it_stands(web: Web) -> None:
    url = begin(web)
    append(web, url, 0, CONTENT[:1000])
    for offset in (0, 999, 1001):
        lost = append(web, url, offset, CONTENT[offset : offset + 10])
        assert (lost.status_code, lost.json["code"], lost.json["offset"]) == (409, "upload_conflict", 1000)
    assert web.client.head(url).headers["Upload-Offset"] == "1000"
    stands = web.client.get(url).json
    assert (stands["offset"], stands["size"], stands["sha256"]) == (1000, len(CONTENT), None)
    for offset in range(1000, len(CONTENT), 100_000):
        answer = append(web, url, offset, CONTENT[offset : offset + 100_000])
    assert answer.json["sha256"] == SHA256


@pytest.mark.parametrize("offset", ["", "-1", "1.5", "x", "9" * 30])
def test_a_piece_says_where_it_belongs(web: Web, offset: str) -> None:
    answer = append(web, begin(web), offset, b"x")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")


def test_pieces_are_bounded_whether_they_say_their_length_or_not(web: Web) -> None:
    url = begin(web)
    said = append(web, url, 0, CONTENT[: (1 << 17) + 1])
    assert (said.status_code, said.json["code"]) == (413, "payload_too_large")
    assert "LOOKALIKE_MAX_UPLOAD_BYTES" in said.json["detail"]
    chunked = web.client.patch(
        url,
        input_stream=io.BytesIO(CONTENT),
        content_type=BYTES,
        headers={"Upload-Offset": "0", "Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert (chunked.status_code, chunked.json["code"]) == (413, "payload_too_large")
    assert web.client.get(url).json["offset"] <= 1 << 17


def test_what_does_not_fit_what_was_announced_is_refused(web: Web) -> None:
    more = append(web, begin(web, size=5), 0, b"123456")
    assert (more.status_code, more.json["code"]) == (400, "invalid_request")
    other = append(web, begin(web, size=5, sha256=SHA256), 0, b"12345")
    assert (other.status_code, other.json["code"]) == (422, "upload_mismatch")
    form = append(web, begin(web), 0, b"12345", content_type="text/plain")
    assert (form.status_code, form.json["code"]) == (415, "unsupported_media_type")
    for bad in ({}, {"size": -1}, {"size": 5, "sha256": "x"}):
        assert web.client.post("/v1/uploads", json=bad).json["code"] == "invalid_request"


def test_an_upload_that_was_given_up_is_gone(web: Web) -> None:
    url = begin(web)
    append(web, url, 0, CONTENT[:1000])
    assert web.client.delete(url).status_code == 204
    for answer in (web.client.get(url), web.client.delete(url), append(web, url, 1000, b"x")):
        assert (answer.status_code, answer.json["code"]) == (404, "upload_not_found")
    for strange in ("x", "..%2F..%2Fused", "0" * 32):
        assert web.client.get(f"/v1/uploads/{strange}").status_code == 404


def test_a_full_disk_refuses_an_upload_before_its_bytes(tmp_path: Path) -> None:
    web = build_web(tmp_path, min_free_bytes=1 << 60)
    answer = web.client.post("/v1/uploads", json={"size": 10})
    assert (answer.status_code, answer.json["code"]) == (507, "insufficient_storage")
    web.close()
