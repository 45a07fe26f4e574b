"""Downloads that are interrupted: what has arrived stays, and the rest is asked for."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from lookalike import Client, ServiceUnreachable
from lookalike.client import connection
from lookalike.client.job import Job
from lookalike.errors import ArtifactNotFound
from lookalike.records import JobRecord

WHOLE = bytes(range(256)) * 4
RECORD = JobRecord.model_validate(
    {"id": "01J", "kind": "export", "state": "succeeded", "created_at": "2026-01-01T00:00:00Z", "request": {}}
)


class Cut(httpx2.SyncByteStream):
    """A body whose connection breaks after some of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self._data
        raise httpx2.ReadError("cut")


class Files:
    """A service with one file, which cuts each answer after `at_once` bytes."""

    def __init__(self, *, at_once: int = len(WHOLE), etag: str = '"one"', data: bytes = WHOLE) -> None:
        self.at_once = at_once
        self.etag = etag
        self.data = data
        self.asked: list[str | None] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        headers = {"ETag": self.etag}
        if asked and request.headers["If-Range"] != self.etag:
            begin = 0
        elif begin >= len(self.data) and asked:
            return httpx2.Response(416, json={"code": "range_not_satisfiable", "detail": "No such bytes."})
        elif asked:
            headers["Content-Range"] = f"bytes {begin}-{len(self.data) - 1}/{len(self.data)}"
        rest = self.data[begin:]
        body = rest if len(rest) <= self.at_once else Cut(rest[: self.at_once])
        kind = {"stream": body} if isinstance(body, Cut) else {"content": body}
        return httpx2.Response(206 if "Content-Range" in headers else 200, headers=headers, **kind)


def job_of(files: object) -> Job:
    client = Client("http://service.test", transport=httpx2.MockTransport(files))  # type: ignore[arg-type]
    return Job(client._connection, RECORD)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.time, "sleep", lambda _: None)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


def only(target: Path) -> bytes:
    """The file, beside which nothing was left."""
    assert list(target.parent.iterdir()) == [target]
    return target.read_bytes()


def test_a_download_that_is_cut_goes_on_where_it_was(target: Path) -> None:
    files = Files(at_once=300)
    job_of(files).download_to("rows.csv", target)
    assert only(target) == WHOLE
    assert files.asked == [None, "bytes=300-", "bytes=600-", "bytes=900-"]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connection.time, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            job_of(Files(at_once=300)).download_to("rows.csv", target)
    assert not target.exists()
    files = Files()
    job_of(files).download_to("rows.csv", target)
    assert only(target) == WHOLE
    assert files.asked == ["bytes=300-"]


def test_a_file_that_has_changed_meanwhile_is_taken_from_its_beginning(target: Path) -> None:
    target.with_name(".rows.csv.old.part").write_bytes(b"of another")
    files = Files(data=b"new")
    job_of(files).download_to("rows.csv", target)
    assert only(target) == b"new"
    assert files.asked == ["bytes=10-"]


def test_more_than_the_file_has_is_no_beginning_of_it(target: Path) -> None:
    target.with_name(".rows.csv.one.part").write_bytes(WHOLE + b"more")
    files = Files()
    job_of(files).download_to("rows.csv", target)
    assert only(target) == WHOLE
    assert files.asked == [f"bytes={len(WHOLE) + 4}-", None]


def test_a_service_that_names_no_version_is_asked_for_all_of_it_again(target: Path) -> None:
    files = Files(at_once=300, etag="W/weak")
    asked = files.asked

    def later_whole(request: httpx2.Request) -> httpx2.Response:
        files.at_once = 300 if not asked else len(WHOLE)
        return files(request)

    job_of(later_whole).download_to("rows.csv", target)
    assert only(target) == WHOLE
    assert asked == [None, None]


def test_a_file_that_is_not_there_leaves_nothing(target: Path) -> None:
    def missing(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(404, json={"code": "artifact_not_found", "detail": "No such file."})

    with pytest.raises(ArtifactNotFound):
        job_of(missing).download_to("rows.csv", target)
    assert list(target.parent.iterdir()) == []


def test_a_service_that_stays_away_is_given_up(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10_000))
    monkeypatch.setattr(connection.time, "monotonic", lambda: float(next(now)))

    def away(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    with pytest.raises(ServiceUnreachable):
        job_of(away).download_to("rows.csv", target)
