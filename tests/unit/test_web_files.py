"""`/v1/jobs/{id}/files/{name}`: whole, in parts, gone on with, and never two versions in one answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import Web, build_web
from lookalike.errors import SourceUnavailable
from lookalike.records import DeletionRequest, JobKind

PARTS = (b"begin", b"", b"-middle-", b"end")
WHOLE = b"".join(PARTS)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    made = build_web(tmp_path)
    yield made
    made.close()


@pytest.fixture
def url(web: Web) -> str:
    job, _ = web.jobs.create(JobKind.DELETION, DeletionRequest(filter="id != ''"))
    for part, data in enumerate(PARTS):
        web.services.artifacts.write(job.id, "rows.csv", data, part=part)
    return f"/v1/jobs/{job.id}/files/rows.csv"


def rewrite(web: Web, url: str, part: int, data: bytes) -> None:
    web.services.artifacts.write(url.split("/")[3], "rows.csv", data, part=part)


def test_a_file_says_what_it_is_and_how_to_go_on_with_it(web: Web, url: str) -> None:
    answer = web.client.get(url)
    assert (answer.status_code, answer.data, answer.mimetype) == (200, WHOLE, "text/csv")
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert int(answer.headers["Content-Length"]) == len(WHOLE)
    assert not answer.headers["ETag"].startswith("W/")
    head = web.client.head(url)
    assert (head.data, head.headers["Content-Length"], head.headers["ETag"]) == (
        b"",
        str(len(WHOLE)),
        answer.headers["ETag"],
    )
    again = web.client.get(url, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("begin", range(0, len(WHOLE)))
def test_any_rest_of_a_file_can_be_asked_for(web: Web, url: str, begin: int) -> None:
    etag = web.client.head(url).headers["ETag"]
    answer = web.client.get(url, headers={"Range": f"bytes={begin}-", "If-Range": etag})
    assert (answer.status_code, answer.data) == (206, WHOLE[begin:])
    assert answer.headers["Content-Range"] == f"bytes {begin}-{len(WHOLE) - 1}/{len(WHOLE)}"
    assert web.client.get(url, headers={"Range": f"bytes={begin}-{begin}"}).data == WHOLE[begin : begin + 1]


def test_a_range_behind_the_end_is_refused_with_the_size(web: Web, url: str) -> None:
    answer = web.client.get(url, headers={"Range": f"bytes={len(WHOLE)}-"})
    assert (answer.status_code, answer.get_json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(WHOLE)}"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Range": "bytes=0-0,2-3"}),
        ("GET", {"Range": "items=0-1"}),
        ("GET", {"Range": "bytes=all"}),
        ("GET", {"Range": "bytes=1-", "If-Range": "W/{etag}"}),
        ("GET", {"Range": "bytes=1-", "If-None-Match": '"another"'}),
        ("GET", {"If-Match": "{etag}"}),
        ("HEAD", {"Range": "bytes=1-"}),
        ("HEAD", {"Range": "bytes=99-"}),
    ],
)
def test_a_range_that_need_not_be_heeded_is_answered_with_all_of_the_file(
    web: Web, url: str, method: str, headers: dict[str, str]
) -> None:
    etag = web.client.head(url).headers["ETag"]
    answer = web.client.open(url, method=method, headers={k: v.format(etag=etag) for k, v in headers.items()})
    assert (answer.status_code, answer.data) == (200, WHOLE if method == "GET" else b"")
    assert answer.headers["Content-Length"] == str(len(WHOLE))


def test_so_many_bytes_at_the_end_are_all_where_there_are_not_as_many(web: Web, url: str) -> None:
    for wanted in (3, len(WHOLE), len(WHOLE) + 1, 10**30):
        answer = web.client.get(url, headers={"Range": f"bytes=-{wanted}"})
        assert (answer.status_code, answer.data) == (206, WHOLE[-wanted:])


def test_whoever_has_the_file_is_not_sent_a_range_of_it_and_whoever_wants_another_file_nothing(
    web: Web, url: str
) -> None:
    etag = web.client.head(url).headers["ETag"]
    assert web.client.get(url, headers={"Range": "bytes=1-", "If-None-Match": etag}).status_code == 304
    answer = web.client.get(url, headers={"Range": "bytes=1-", "If-Match": '"another"'})
    assert (answer.status_code, answer.mimetype) == (412, "application/problem+json")


def test_the_rest_of_a_file_that_was_written_again_is_not_sent_behind_the_old_beginning(web: Web, url: str) -> None:
    etag = web.client.head(url).headers["ETag"]
    rewrite(web, url, 3, b"new")
    answer = web.client.get(url, headers={"Range": "bytes=4-", "If-Range": etag})
    assert (answer.status_code, answer.data) == (200, b"begin-middle-new")
    assert answer.headers["ETag"] != etag


@pytest.mark.parametrize("data", [b"a longer end", b"", b"END"], ids=["longer", "shorter", "as long"])
def test_a_file_that_is_written_again_while_it_is_sent_breaks_off_instead_of_mixing_both(
    web: Web, url: str, data: bytes
) -> None:
    beginning = bytes(3 << 20)
    rewrite(web, url, 0, beginning)
    answer = web.client.get(url, buffered=False)
    pieces = iter(answer.response)
    received = [next(pieces)]
    rewrite(web, url, 3, data)
    with pytest.raises(SourceUnavailable):
        received.extend(pieces)
    assert (beginning + b"-middle-").startswith(b"".join(received))
    answer.close()
