"""Manifests in three formats say which images there are, and what is known of them."""

import csv
import io
import json
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from listing_parts import Place, assert_resumes_anywhere, codes, make_place
from lookalike.errors import FileMissing, ManifestInvalid
from lookalike.records import IngestRequest, ManifestSource, UploadedFile

Rows = Sequence[Mapping[str, Any]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = make_place(tmp_path)
    for name in ("a.jpg", "set/b.jpg", "set/images/c d.jpg", "späß.png"):
        (place.root / name).parent.mkdir(parents=True, exist_ok=True)
        (place.root / name).write_bytes(name.encode())
    return place


def jsonl_of(rows: Rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def csv_of(rows: Rows) -> bytes:
    target = io.StringIO()
    writer = csv.DictWriter(target, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return target.getvalue().encode()


def parquet_of(rows: Rows) -> bytes:
    target = io.BytesIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
    pyarrow.parquet.write_table(table, target, row_group_size=3)
    return target.getvalue()


FORMATS: dict[str, Callable[[Rows], bytes]] = {"jsonl": jsonl_of, "csv": csv_of, "parquet": parquet_of}
EVERY = pytest.mark.parametrize("kind", FORMATS)


def put(place: Place, data: bytes, name: str) -> ManifestSource:
    (place.root / name).write_bytes(data)
    return ManifestSource(path=name)


@EVERY
def test_rows_name_images_in_every_way_and_resume_anywhere(place: Place, kind: str) -> None:
    addresses = {
        "a.jpg": "a.jpg",
        "b.jpg": str(place.root / "set" / "b.jpg"),
        "c d.jpg": (place.root / "set" / "images" / "c d.jpg").as_uri(),
        "späß.png": f"file://{place.root}/späß.png",
        "e.jpg": "https://HOST/pictures/e.jpg",
        "f.jpg": "s3://bucket/f.jpg",
    }
    rows = [
        {"uri": uri, "number": number, "text": f"{name}, 007", "weight": 0.5}
        for number, (name, uri) in enumerate(addresses.items())
    ]

    found = assert_resumes_anywhere(place, put(place, FORMATS[kind](rows), f"m.{kind}"))

    assert codes(found) == dict.fromkeys(addresses, None)
    assert [listed.metadata for listed in found] == [
        {"number": number, "text": f"{name}, 007", "weight": 0.5} for number, name in enumerate(addresses)
    ]
    assert [listed.size for listed in found] == [5, 9, 18, 10, None, None]
    assert found[0].uri == (place.root / "a.jpg").as_uri()
    assert found[4].uri == "https://host/pictures/e.jpg"


@EVERY
def test_bad_rows_are_lines_and_the_rest_goes_on(place: Place, kind: str) -> None:
    outside = place.root.parent / "secret.jpg"
    outside.write_bytes(b"x")
    (place.root / "set" / "out.jpg").symlink_to(outside)
    rows = [
        {"uri": "a.jpg"},
        {"uri": "none.jpg", "tag": "kept"},
        {"uri": "../../secret.jpg"},
        {"uri": str(outside)},
        {"uri": "set/out.jpg"},
        {"uri": "set"},
        {"uri": "ftp://host/a.jpg"},
        {"uri": "https://host:22/a.jpg"},
        {"uri": "s3://other/a.jpg"},
        {"uri": "file://host/a.jpg"},
        {"uri": None, "tag": "no address"},
        {"uri": "set/b.jpg"},
    ]

    found = assert_resumes_anywhere(place, put(place, FORMATS[kind](rows), f"m.{kind}"))

    assert [listed.error and listed.error.code for listed in found] == [
        None,
        "file_missing",
        "invalid_path",
        "invalid_path",
        "not_regular_file",
        "not_regular_file",
        "invalid_url",
        "invalid_url",
        "invalid_path",
        "invalid_url",
        "manifest_invalid",
        None,
    ]
    # It can be tried again when it is there.
    assert (found[1].uri, found[1].metadata) == ((place.root / "none.jpg").as_uri(), {"tag": "kept"})
    assert "secret" not in (found[4].error.message if found[4].error else "")


def test_relative_paths_begin_at_the_manifest_or_at_a_root(place: Place) -> None:
    rows = [{"uri": "images/c d.jpg"}, {"uri": "./b.jpg"}, {"uri": "../a.jpg"}, {"uri": "set/b.jpg"}]
    (place.root / "set" / "m.jsonl").write_bytes(jsonl_of(rows))

    found = place.list(ManifestSource(path="set/m.jsonl"))

    assert [listed.name for listed in found if not listed.error] == ["c d.jpg", "b.jpg", "a.jpg", "b.jpg"]


def test_a_manifest_is_read_wherever_it_lies_and_told_by_its_content(place: Place, tmp_path: Path) -> None:
    for kind, pack in FORMATS.items():
        data = pack([{"picture": "a.jpg"}])
        sha256 = place.uploads.put(io.BytesIO(data))
        (tmp_path / kind).write_bytes(data)
        place.network.files[f"https://host/{kind}"] = tmp_path / kind
        for source in (
            ManifestSource(upload=UploadedFile(sha256=sha256), uri_column="picture"),
            ManifestSource(url=f"https://host/{kind}", uri_column="picture"),
        ):
            assert [listed.name for listed in place.list(source)] == ["a.jpg"]
    with pytest.raises(FileMissing):
        place.list(ManifestSource(path="none.csv"))


def test_csv_cells_are_numbers_only_where_they_are_wholly_that(place: Place) -> None:
    cells = {"whole": "-12", "real": "1.5e3", "postal": "007", "dotted": "1.2.3", "empty": "", "long": "9" * 30}
    source = put(place, csv_of([{"uri": "a.jpg", **cells}]).replace(b"\r\n", b",\r\n"), "m.csv")

    (found,) = place.list(source)

    assert found.metadata == {"whole": -12, "real": 1500.0, "postal": "007", "dotted": "1.2.3", "long": "9" * 30}


def test_types_of_jsonl_and_parquet_are_kept(place: Place) -> None:
    import datetime

    values = {"yes": True, "words": ["x", "y"], "none": None, "nan": float("nan"), "day": datetime.date(2026, 1, 2)}
    found = place.list(put(place, parquet_of([{"uri": "a.jpg", **values}]), "m.parquet"))
    assert found[0].metadata == {"yes": True, "words": ["x", "y"], "day": "2026-01-02"}

    rows: Rows = [
        {"uri": "a.jpg"},
        {"uri": "a.jpg", "deep": {"a": 1}},
        {"uri": "a.jpg", "bad name": 1},
        {"uri": "a.jpg", "id": "x"},
    ]
    found = place.list(put(place, jsonl_of(rows), "m.jsonl"))
    assert [listed.error and listed.error.code for listed in found] == [None, *["invalid_parameter"] * 3]
    assert found[2].error
    assert "Line 3" in found[2].error.message


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("m.jsonl", b"<html>\n", "Line 1"),
        ("m.jsonl", b'{"url": "a.jpg"}\n', "Line 1"),
        ("m.jsonl", b"[" * 100_000, "Line 1"),
        ("m.jsonl", b"\xff\xfe{\x00", "Line 1"),
        ("m.csv", b"", "Line 1"),
        ("m.csv", b"path,tag\na.jpg,x\n", "no column 'uri'"),
        ("m.csv", b"uri,two words\na.jpg,x\n", "two words"),
        ("m.csv", b"uri,sha256\na.jpg,x\n", "sha256"),
        ("m.csv", b"uri\n\x80\n", "Line 2"),
        ("m.parquet", b"uri\na.jpg\n", "Parquet"),
        ("m.parquet", parquet_of([{"uri": "a.jpg", "data": b"bytes"}]), "'data'"),
        ("m.parquet", parquet_of([{"uri": "a.jpg"}])[:-20], "Parquet"),
    ],
)
def test_a_manifest_that_is_none_fails_with_line_and_reason(place: Place, name: str, data: bytes, words: str) -> None:
    with pytest.raises(ManifestInvalid, match=words):
        place.list(put(place, data, name))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (
            "m.jsonl",
            b'{"uri": "a.jpg"}\n\n{"uri": "a.jp\n{"uri": "set/b.jpg"}\n{"uri": "'
            + b"x" * (3 << 20)
            + b'"}\n{"uri": "a.jpg"}',
        ),
        (
            "m.csv",
            b'uri,t\na.jpg,"two\nlines"\na.jpg,1,2\nset/b.jpg,\n\x80,x\na.jpg,"'
            + b"x\n" * 66_000
            + b'"\na.jpg,'
            + b"y" * (3 << 20)
            + b"\na.jpg,z\n",
        ),
    ],
)
def test_broken_and_endless_lines_are_told_in_bounded_memory(place: Place, name: str, data: bytes) -> None:
    source = put(place, data, name)
    tracemalloc.start()
    try:
        found = place.list(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert found[0].error is None
    assert found[-1].error is None
    assert {listed.error.code for listed in found if listed.error} >= {"manifest_invalid"}
    assert [listed.name for listed in found if not listed.error].count("b.jpg") == 1
    assert peak < 24 << 20


def test_neighbours_of_the_last_file_are_found_as_surely_as_it_was(place: Place) -> None:
    (place.root / "other").mkdir()
    (place.root / "other" / "a.jpg").touch()
    (place.root / "other" / "b.jpg").touch()
    (place.root / "set" / "a.jpg").symlink_to("../other/a.jpg")
    (place.root / "set" / "link.jpg").symlink_to(place.root.parent / "secret.jpg")
    (place.root / "set" / "set").mkdir()
    (place.root / "set" / "set" / "x.jpg").touch()
    (place.root.parent / "secret.jpg").touch()
    names = ["a.jpg", "b.jpg", "images/c d.jpg", "images/none.jpg", "b.jpg", "link.jpg", "..", "b.jpg", "set/b.jpg"]
    names += ["set/x.jpg", "set/b.jpg"]
    (place.root / "set" / "m.jsonl").write_bytes(jsonl_of([{"uri": name} for name in names]))

    found = assert_resumes_anywhere(place, ManifestSource(path="set/m.jsonl"))

    really = [listed.error.code if listed.error else listed.uri.removeprefix(place.root.as_uri()) for listed in found]
    assert really == [
        "/other/a.jpg",
        "/set/b.jpg",
        "/set/images/c%20d.jpg",
        "file_missing",
        "/set/b.jpg",
        "not_regular_file",
        "not_regular_file",
        "/set/b.jpg",
        "/set/b.jpg",
        "/set/set/x.jpg",
        "/set/b.jpg",
    ]


def test_half_a_character_in_an_address_costs_its_row_only(place: Place) -> None:
    uris = ["a.jpg", "\\ud800.jpg", "https://a.org/\\ud800", "\\udcff", "a.jpg"]
    lines = "".join(f'{{"uri": "{uri}"}}\n' for uri in uris).encode()

    listed = place.list(put(place, lines, "half.jsonl"))

    assert [line.error and line.error.code for line in listed] == [None, *["invalid_filename"] * 3, None]
    assert all(f"{line.uri}{line.name}".encode() for line in listed)


def test_a_value_of_parquet_that_python_does_not_have_costs_its_row_only(place: Place) -> None:
    times = pyarrow.array([0, 10**15, 1], pyarrow.timestamp("ms"))  # The second is in the year 33658.
    target = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"uri": ["a.jpg", "set/b.jpg", "a.jpg"], "taken": times}), target)
    source = put(place, target.getvalue(), "far.parquet")

    listed = place.list(source)

    assert [line.error and line.error.code for line in listed] == [None, "manifest_invalid", None]
    assert listed[2].metadata == {"taken": "1970-01-01T00:00:00.001000"}
    assert_resumes_anywhere(place, source)


def test_a_csv_record_that_goes_on_over_all_lines_is_given_up(place: Place) -> None:
    data = b"uri,title\na.jpg,first\n" + b'"x\n",' * 1_000_000
    source = put(place, data, "endless.csv")
    tracemalloc.start()
    try:
        lines = iter(place.lister.list(IngestRequest(source=source), after=None, keep=place.keep))
        good, endless = next(lines), next(lines)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert good.error is None
    assert endless.error is not None
    assert endless.error.code == "manifest_invalid"
    assert peak < 32 << 20


def test_a_large_value_that_parquet_holds_once_for_all_rows_is_not_unpacked_for_all_at_once(place: Place) -> None:
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 256, pyarrow.int32()), ["x" * 1_000_000])
    target = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"uri": ["a.jpg"] * 256, "note": repeated}), target)
    assert len(target.getvalue()) < 100_000
    source = put(place, target.getvalue(), "repeated.parquet")
    tracemalloc.start()
    try:
        listed = place.lister.list(IngestRequest(source=source), after=None, keep=place.keep)
        refused = sum(line.error is not None for line in listed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert refused == 256  # No metadata is that large.
    assert peak < 200 << 20


def test_a_text_of_parquet_that_is_too_long_costs_its_rows_no_memory_and_others_nothing(place: Place) -> None:
    rows = 1024
    places = pyarrow.array([0] * (rows - 1) + [1], pyarrow.int32())
    notes = pyarrow.DictionaryArray.from_arrays(places, ["x" * 10_000_000, "xxx"])
    tags = pyarrow.array([["a", "b"], None] * (rows // 2))
    target = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"uri": ["a.jpg"] * rows, "note": notes, "tags": tags}), target)
    assert len(target.getvalue()) < 2_000_000
    source = put(place, target.getvalue(), "long.parquet")
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    peak_arrow = 0
    found = []
    try:
        for line in place.lister.list(IngestRequest(source=source), after="1", keep=place.keep):
            peak_arrow = max(peak_arrow, pyarrow.total_allocated_bytes() - before)
            found.append(line)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == rows - 1
    assert all(line.error is not None and "longer than" in line.error.message for line in found[:-1])
    assert (found[-1].error, found[-1].metadata) == (None, {"note": "xxx"})
    assert peak < 32 << 20
    assert peak_arrow < 64 << 20


@pytest.mark.parametrize("values", [["y" * 10_000] * 10_000, list(range(500_000))], ids=["texts", "numbers"])
def test_a_long_list_of_parquet_costs_its_row_only(place: Place, values: list[Any]) -> None:
    target = io.BytesIO()
    table = pyarrow.table({"uri": ["a.jpg", "a.jpg", "a.jpg"], "tags": [values[:2], values, None]})
    pyarrow.parquet.write_table(table, target)
    short, long, none = place.list(put(place, target.getvalue(), "lists.parquet"))
    assert (short.error, short.metadata) == (None, {"tags": values[:2]})
    assert long.error is not None
    assert "Row 2 of the manifest cannot be read: it is longer than" in long.error.message
    assert (none.error, none.metadata) == (None, {})


def test_lists_of_lists_are_refused_by_the_name_of_their_column(place: Place) -> None:
    target = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"uri": ["a.jpg"], "boxes": [[[1, 2]]]}), target)
    with pytest.raises(ManifestInvalid, match="'boxes'"):
        place.list(put(place, target.getvalue(), "nested.parquet"))


@pytest.mark.parametrize(
    "kind", [pyarrow.binary(3), pyarrow.list_(pyarrow.binary(3)), pyarrow.opaque(pyarrow.binary(3), "a", "b")], ids=str
)
def test_bytes_of_one_size_which_are_unpacked_for_each_row_are_refused_too(place: Place, kind: Any) -> None:
    target = io.BytesIO()
    column = pyarrow.array([None], kind)
    pyarrow.parquet.write_table(pyarrow.table({"uri": ["a.jpg"], "data": column}), target)
    with pytest.raises(ManifestInvalid, match="'data'"):
        place.list(put(place, target.getvalue(), "bytes.parquet"))


# --- How many there are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_the_rows_of_a_manifest_are_counted_ahead_of_its_listing(place: Place, kind: str) -> None:
    rows: Rows = [{"uri": "a.jpg", "year": number} for number in range(7)]
    source = put(place, FORMATS[kind](rows), f"m.{kind}")
    assert place.lister.count(IngestRequest(source=source), keep=place.keep) == 7


def test_a_manifest_that_would_have_to_be_fetched_is_not_counted(place: Place) -> None:
    source = ManifestSource(url="https://example.org/m.csv")
    assert place.lister.count(IngestRequest(source=source), keep=place.keep) is None
