"""Uploads, addresses, objects and failures are listed like files: once, in order, from any place on."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from listing_parts import Place, assert_resumes_anywhere, codes, make_place, upload_uri
from lookalike.errors import InvalidPath, JobNotFound
from lookalike.jobstore import PlanClaim, Planned
from lookalike.records import (
    Failure,
    FailuresSource,
    FolderSource,
    IngestRequest,
    JobKind,
    ObjectsSource,
    Stage,
    UploadedFile,
    UploadSource,
    URLsSource,
)
from lookalike.remote import ObjectInfo


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def test_uploads_are_listed_once_with_their_sizes_and_missing_ones_are_told(place: Place) -> None:
    first, second = (place.uploads.put(io.BytesIO(content)) for content in (b"first", b"other"))
    names = [(first, "a.jpg"), ("0" * 64, "never.jpg"), (second, "späß.jpg"), (first, "again.jpg")]
    source = UploadSource(files=tuple(UploadedFile(sha256=sha256, name=name) for sha256, name in names))

    found = assert_resumes_anywhere(place, source)

    assert codes(found) == {"again.jpg": None, "never.jpg": "file_missing", "späß.jpg": None}
    assert [(listed.uri, listed.size) for listed in found] == [
        (upload_uri(first), 5),
        (upload_uri("0" * 64), None),
        (upload_uri(second), 5),
    ]


def test_addresses_are_listed_once_in_canonical_spelling(place: Place) -> None:
    urls = (
        "https://Host/a%20b.jpg",
        "nonsense",
        "https://host/a%20b.jpg",
        "ftp://x/y",
        "http://host/",
        "https://host/c",
    )

    found = assert_resumes_anywhere(place, URLsSource(urls=urls))

    assert [listed.uri for listed in found] == [
        "https://host/a%20b.jpg",
        "nonsense",
        "ftp://x/y",
        "http://host/",
        "https://host/c",
    ]
    assert found[0].name == "a b.jpg"
    assert [listed.error and listed.error.code for listed in found] == [None, "invalid_url", "invalid_url", None, None]


def test_objects_are_chosen_by_the_rules_of_a_folder(place: Place) -> None:
    keys = ["p/a.jpg", "p/b/c.JPG", "p/b/d.txt", "p/.h/e.jpg", "p/", "p/f/", "p//g.jpg", "p/ü.png", "q/z.jpg"]
    place.network.stored = [ObjectInfo(uri=f"s3://bucket/{key}", size=7, mtime_ns=5, etag="e") for key in keys]

    def listed(**options: object) -> list[str]:
        source = ObjectsSource.model_validate({"prefix": "s3://bucket/p", **options})
        return [found.uri.removeprefix("s3://bucket/") for found in assert_resumes_anywhere(place, source)]

    assert listed() == ["p/a.jpg", "p/b/c.JPG", "p/ü.png"]
    assert listed(recursive=False) == ["p/a.jpg", "p/ü.png"]
    assert listed(include=("b/*",), exclude=("*.jpg",)) == ["p/b/d.txt"]
    first, second, _ = place.list(ObjectsSource(prefix="s3://bucket/p/"), label_from_folder=True)
    assert (first.size, first.mtime_ns, first.etag, first.metadata) == (7, 5, "e", {"label": "p"})
    assert second.metadata == {"label": "b"}


def failed_job(place: Place, failures: Sequence[Failure]) -> str:
    record, _ = place.jobs.create(JobKind.INGEST, IngestRequest(source=FolderSource(path=".")))
    claim = place.jobs.claim_ingest()
    assert isinstance(claim, PlanClaim)
    place.jobs.add_chunk(claim, [], cursor="x", planned=Planned(failures=tuple(failures)))
    return record.id


def test_what_failed_is_listed_again_and_what_has_no_address_fails_again(place: Place) -> None:
    uris = {
        "file:///photos/a.jpg": None,
        upload_uri("1" * 64): None,
        "https://host/a.jpg": None,
        "s3://bucket/a#1.jpg": None,
        "file:///photos/x.zip#in%20it.jpg": "archive_invalid",
        "file:///b%2fd.jpg": "archive_invalid",
        "nonsense": "archive_invalid",
    }
    lines = [
        Failure(uri=uri, code="archive_invalid", message="It is broken.", stage=Stage.LIST, name="n", metadata={"a": 1})
        for uri in uris
    ]

    found = assert_resumes_anywhere(place, FailuresSource(job_id=failed_job(place, lines)))

    assert {listed.uri: listed.error and listed.error.code for listed in found} == uris
    assert all(listed.name == "n" and listed.metadata == {"a": 1} for listed in found)
    assert found[-1].error
    assert found[-1].error.message == "It is broken."


def test_an_address_that_is_refused_costs_its_line_of_a_retry_only_and_others_get_their_canonical_spelling(
    place: Place,
) -> None:
    uris = ["https://host:8080/a.jpg", "HTTPS://HOST/a.jpg", "s3://other/a.jpg"]
    lines = [Failure(uri=uri, code="invalid_url", message="", stage=Stage.LIST) for uri in uris]

    found = assert_resumes_anywhere(place, FailuresSource(job_id=failed_job(place, lines)))

    assert [(listed.uri, listed.error and listed.error.code) for listed in found] == [
        (uris[0], "invalid_url"),
        ("https://host/a.jpg", None),
        (uris[2], "invalid_path"),
    ]


def test_a_long_ledger_is_listed_page_by_page(place: Place) -> None:
    lines = [
        Failure(uri=f"file:///{number}.jpg", code="file_missing", message="", stage=Stage.READ)
        for number in range(2500)
    ]
    source = FailuresSource(job_id=failed_job(place, lines))

    whole = place.list(source)

    assert [listed.uri for listed in whole] == [line.uri for line in lines]
    for number in (0, 998, 999, 1000, 1999, 2499):
        assert place.list(source, after=whole[number].cursor) == whole[number + 1 :]
    with pytest.raises(JobNotFound):
        place.list(FailuresSource(job_id="none"))


def test_a_file_is_at_its_place_whatever_globs_say_and_nothing_else_is(place: Place) -> None:
    (place.root / "a.txt").touch()
    (place.root / "folder.jpg").mkdir()
    (place.root / "link.jpg").symlink_to("a.txt")
    base = place.root.as_uri()
    place.network.stored = [ObjectInfo(uri="s3://bucket/a", size=1, mtime_ns=0, etag="")]

    there = [f"{base}/a.txt", "s3://bucket/a", "s3://bucket/locked", "file:///elsewhere/a.jpg"]
    gone = [f"{base}/b.jpg", f"{base}/folder.jpg", f"{base}/link.jpg", f"{base}/no/c.jpg", "s3://bucket/b"]

    assert [place.lister.exists(uri) for uri in there] == [True] * 4  # Of the last two nothing can be told.
    assert [place.lister.exists(uri) for uri in gone] == [False] * 5


def test_a_span_holds_what_lies_under_a_source_and_nothing_beside_it(place: Place) -> None:
    for name in ("s/a.jpg", "s/b/c.jpg", "s.jpg", "s0.jpg", "s-/a.jpg", "r.jpg"):
        (place.root / name).parent.mkdir(exist_ok=True, parents=True)
        (place.root / name).touch()
    first, last = place.lister.span(FolderSource(path="s"))

    inside = [listed.name for listed in place.list(FolderSource(path=".")) if first <= listed.uri < last]

    assert inside == ["a.jpg", "c.jpg"]
    assert place.lister.span(ObjectsSource(prefix="s3://bucket/p")) == ("s3://bucket/p/", "s3://bucket/p0")
    with pytest.raises(InvalidPath):
        place.lister.span(ObjectsSource(prefix="s3://other/p"))
