"""Every refusal is a problem document, the framework's own included, and every answer carries the same headers."""

import errno
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import Web, build_web
from lookalike import errors
from lookalike_web.app import create_app
from lookalike_web.errors import STATUS, status_of
from lookalike_web.parsing import parse_json
from lookalike_web.refusing import problem_bytes

HEADERS = ("X-Request-ID", "X-Content-Type-Options", "Referrer-Policy", "Content-Security-Policy", "Cache-Control")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = build_web(tmp_path)
    yield web
    web.close()


JSON = "application/json"


@pytest.mark.parametrize(
    ("method", "path", "changed", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "not_found"),
        ("GET", "/v2/jobs", {}, 404, "not_found"),
        ("DELETE", "/v1/jobs", {}, 405, "method_not_allowed"),
        ("TRACE", "/v1/jobs", {}, 405, "method_not_allowed"),
        ("GET", "/v1/jobs", {"headers": {"Accept": "text/html"}}, 406, "not_acceptable"),
        ("GET", "/v1/jobs", {"headers": {"Host": "evil.example"}}, 400, "bad_host"),
        ("GET", "/v1/jobs", {"headers": {"Host": "no host"}}, 400, "bad_host"),
        ("GET", "/nowhere", {"headers": {"Host": "evil.example"}}, 400, "bad_host"),
        ("GET", "/v1/jobs?cursor=" + "a" * 5000, {}, 414, "uri_too_long"),
        ("GET", "/healthz?x=1", {}, 400, "invalid_request"),
        ("POST", "/v1/ingests", {"data": b"{}", "content_type": "text/plain"}, 415, "unsupported_media_type"),
        ("POST", "/v1/ingests", {"data": b"{}"}, 415, "unsupported_media_type"),
        ("POST", "/v1/collections", {"data": {"name": "x"}}, 415, "unsupported_media_type"),
        ("POST", "/v1/ingests", {"data": b"{", "content_type": JSON}, 400, "invalid_request"),
        ("POST", "/v1/ingests", {"data": b"", "content_type": JSON}, 400, "invalid_request"),
        ("POST", "/v1/ingests", {"data": b"[]", "content_type": JSON}, 400, "invalid_request"),
        ("POST", "/v1/ingests", {"data": bytes(17 << 20), "content_type": JSON}, 413, "payload_too_large"),
        ("POST", "/v1/ingests", {"data": bytes(65 << 20), "content_type": JSON}, 413, "payload_too_large"),
        ("POST", "/v1/ingests", {"data": b"--x", "content_type": "multipart/form-data"}, 400, "invalid_request"),
    ],
)
def test_refusals_are_problem_documents(
    web: Web, method: str, path: str, changed: dict[str, Any], status: int, code: str
) -> None:
    answer = web.client.open(path, method=method, **changed)
    problem = json.loads(answer.data)
    assert answer.mimetype == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert set(problem) >= {"type", "title", "status", "detail", "code", "request_id", "instance"}
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert problem["instance"] == path.partition("?")[0]
    assert problem["type"] == f"/docs#error-{code}"
    assert all(answer.headers.get(name) for name in HEADERS)
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b"NaN",
        b"[Infinity]",
        b"1e999",
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"[" * 40 + b"]" * 40,
        b"1" * 5000,
        b"{'a': 1}",
    ],
)
def test_json_that_no_two_readers_agree_on_is_refused(body: bytes) -> None:
    with pytest.raises(errors.InvalidRequest):
        parse_json(body)


def test_ordinary_json_is_read() -> None:
    assert parse_json(b'{"a": [1, 2.5, "\\u00e9\\ud83d\\ude00"], "b": null}') == {"a": [1, 2.5, "é😀"], "b": None}


def test_a_wrong_field_is_named_with_what_is_wrong_with_it(web: Web) -> None:
    answer = web.client.post("/v1/searches", json={"queries": [{"path": "a"}, {"pth": "b"}], "limit": 0})
    problem = answer.json
    assert problem["errors"] == [
        {"loc": "limit", "msg": "`limit` must be 1 or more"},
        {"loc": "queries.1.pth", "msg": "`queries.1.pth` is not a field of this request; /docs lists them"},
    ], "and nothing of the list that the second query is missing from"
    assert problem["detail"] == f"{problem['errors'][0]['msg']}, and 1 more: see `errors`."


NAME_RULE = "A name begins with a letter and has letters, digits and single underscores, 48 at most"
QUERY = {"image_id": "0" * 32}


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("ingests", {}, "`source` is needed"),
        ("ingests", {"source": {}}, "`source.path` is needed"),
        ("ingests", {"source": "photos"}, "`source` must be an object"),
        ("ingests", {"source": {"path": ""}}, "`source.path` has too few characters; 1 at least"),
        (
            "ingests",
            {"source": {"type": "urls", "urls": ["http://x"]}, "sync": True},
            "sync compares a collection with a place: its source has to be a folder or a prefix",
        ),
        (
            "ingests",
            {"source": {"type": "tape"}},
            "`source.type` must be 'folder', 'upload', 'archive', 'manifest', 'urls', 'objects', 'failures'",
        ),
        (
            "ingests",
            {"source": {"type": "archive", "path": "a.zip", "url": "http://x"}},
            "`source`: name exactly one of: path, url, upload",
        ),
        ("ingests", {"source": {"type": "urls", "urls": [1]}}, "`source.urls.0` must be text"),
        ("ingests", {"source": {"path": "."}, "priority": "soon"}, "`priority` must be 'low', 'normal' or 'high'"),
        ("ingests", {"source": {"path": "."}, "metadata": []}, "`metadata` must be an object"),
        ("ingests", {"source": {"path": ".", "recursive": "perhaps"}}, "`source.recursive` must be true or false"),
        ("searches", {"queries": []}, "`queries` has too few entries; 1 at least"),
        ("searches", {"queries": "x"}, "`queries` must be a list"),
        (
            "searches",
            {"queries": [{"vector": [0.5] * 32_769}]},
            "`queries.0.vector` has too many entries; 32768 at most",
        ),
        (
            "searches",
            {"queries": [{}]},
            "`queries.0`: a query names exactly one of: path, url, image_id, vector, upload, positive",
        ),
        ("searches", {"queries": [QUERY], "limit": "many"}, "`limit` must be a whole number"),
        (
            "searches",
            {"queries": [QUERY], "colection": "a"},
            "`colection` is not a field of this request; /docs lists them",
        ),
        ("searches", {"queries": [QUERY], "collection": "no-such-name"}, NAME_RULE),
        ("collections", {"name": "a" * 49}, NAME_RULE),
        ("collections", {"name": 1}, "`name` must be text"),
        ("collections", {"name": "a", "metric": "cosine"}, "`metric` must be 'COSINE', 'L2' or 'IP'"),
    ],
)
def test_what_is_wrong_with_a_field_is_said_in_one_plain_sentence(
    web: Web, path: str, body: dict[str, Any], sentence: str
) -> None:
    answer = web.client.post(f"/v1/{path}", json=body)
    assert (answer.status_code, answer.json["detail"]) == (400, f"{sentence}.")
    assert [line["msg"] for line in answer.json["errors"]] == [sentence]


def test_a_bug_is_logged_with_its_traceback_and_answered_without(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(web.services.jobs, "list_jobs", lambda **_: broken())
    answer = web.client.get("/v1/jobs")
    assert (answer.status_code, answer.json["code"]) == (500, "internal_error")
    assert "secret detail" not in answer.text
    (logged,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert logged.exc_info
    assert logged.exc_info[0] is ZeroDivisionError
    assert answer.json["request_id"] in logged.getMessage()


@pytest.mark.parametrize("behind", [OSError, errors.QueueUnavailable], ids=["by itself", "behind another error"])
def test_a_process_that_may_open_no_more_files_is_overloaded_and_has_no_bug(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, behind: type[Exception]
) -> None:
    def open_one_more() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def broken() -> None:
        try:
            open_one_more()
        except OSError as error:
            if behind is OSError:
                raise
            raise behind from error

    monkeypatch.setattr(web.services.jobs, "list_jobs", lambda **_: broken())
    answer = web.client.get("/v1/jobs")
    assert (answer.status_code, answer.json["code"]) == (503, "overloaded")
    assert answer.headers["Retry-After"] == "5"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_errors_that_stand_behind_each_other_are_answered(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = errors.QueueUnavailable(), ValueError()
    first.__cause__, second.__cause__ = second, first

    def broken() -> None:
        raise first

    monkeypatch.setattr(web.services.jobs, "list_jobs", lambda **_: broken())
    assert web.client.get("/v1/jobs").json["code"] == "queue_unavailable"


def test_every_error_class_has_a_status_of_its_own_or_its_ancestors() -> None:
    assert status_of(errors.FileEmpty) == status_of(errors.ImageError) == 422
    assert status_of(errors.InvalidFilter) == 400
    assert status_of(errors.WeightsNotFound) == 500
    assert len({(status, cls.code) for cls, status in STATUS.items()}) == len(STATUS)


def test_a_request_id_is_taken_over_only_where_it_is_harmless(web: Web) -> None:
    assert web.client.get("/healthz", headers={"X-Request-ID": "trace-0001"}).headers["X-Request-ID"] == "trace-0001"
    for strange in ("short", 'a"b{}cdefg', "x" * 200, "with space 12345"):
        assert web.client.get("/healthz", headers={"X-Request-ID": strange}).headers["X-Request-ID"] != strange


def test_one_access_line_per_request_without_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    web = build_web(tmp_path, api_keys=("key-of-a-user",))
    caplog.set_level(logging.INFO)
    web.client.get("/v1/jobs?limit=7", headers={"Authorization": "Bearer key-of-a-user", "X-Request-ID": "trace-0001"})
    (line,) = [json.loads(record.getMessage()) for record in caplog.records if record.name == "lookalike_web.access"]
    assert line.items() >= {"method": "GET", "path": "/v1/jobs", "status": 200, "request_id": "trace-0001"}.items()
    assert line["ms"] >= 0
    assert "key-of-a-user" not in caplog.text


def test_api_keys_guard_v1_and_nothing_else(tmp_path: Path) -> None:
    web = build_web(tmp_path, api_keys=("first-key", "second-key"))

    def ask(path: str, authorization: str | None) -> int:
        headers = {"Authorization": authorization} if authorization is not None else {}
        return web.client.get(path, headers=headers).status_code

    assert ask("/v1/jobs", "Bearer first-key") == ask("/v1/jobs", "Bearer second-key") == 200
    for wrong in (None, "", "Bearer", "Bearer ", "Bearer third-key", "Basic first-key", "first-key", "Bearer é"):
        assert ask("/v1/jobs", wrong) == 401, wrong
    answer = web.client.get("/v1/nowhere")
    assert (answer.status_code, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for open_to_all in ("/healthz", "/docs", "/openapi.json"):
        assert ask(open_to_all, None) == 200


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        (("localhost",), "localhost:8000", 200),
        (("localhost",), "LOCALHOST", 200),
        (("localhost",), "localhost.evil.example", 400),
        (("[::1]",), "[::1]:8000", 200),
        (("[::1]",), "[::2]:8000", 400),
        ((".example.org",), "search.example.org", 200),
        ((".example.org",), "example.org.evil", 400),
        (("*",), "anything.example", 200),
    ],
)
def test_only_names_of_this_service_are_answered(
    tmp_path: Path, allowed: tuple[str, ...], host: str, status: int
) -> None:
    web = build_web(tmp_path, allowed_hosts=allowed)
    assert web.client.get("/healthz", headers={"Host": host}).status_code == status


def test_what_cannot_be_parsed_as_http_is_refused_in_the_same_form() -> None:
    head, _, body = problem_bytes(414, "URI Too Long").partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert head.startswith(b"HTTP/1.1 414 URI Too Long\r\n")
    assert (problem["status"], problem["code"]) == (414, "uri_too_long")
    assert f"Content-Length: {len(body)}".encode() in head


def test_making_an_app_starts_and_connects_nothing(tmp_path: Path) -> None:
    web = build_web(tmp_path)
    create_app(web.services)
    assert not (tmp_path / "data").exists()
