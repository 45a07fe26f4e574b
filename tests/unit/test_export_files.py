"""Files that call themselves an export: what is read of them, and what is refused before it does harm."""

import io
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from lookalike.errors import ExportInvalid, RowInvalid, VectorInvalid
from lookalike.exports import ExportedRow, ExportFile, ExportHeader, ExportReader, parquet, stored_image, usable_vector
from lookalike.exports.header import parse_header
from lookalike.exports.npy import Matrix
from lookalike.records import ExportFormat, IndexKind, Metric, ModelInfo
from lookalike.roots import image_id

MODEL = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="ab" * 32, dim=4)
HEADER = ExportHeader(
    collection="spring",
    metric=Metric.COSINE,
    index=IndexKind.AUTO,
    model=MODEL,
    format=ExportFormat.PARQUET,
    exported_at=datetime(2026, 11, 1, tzinfo=UTC),
)
URI = "file:///photos/a.jpg"
GOOD: Mapping[str, Any] = {
    "id": image_id(URI),
    "uri": URI,
    "name": "a.jpg",
    "sha256": "0" * 64,
    "size": 1,
    "mtime_ns": -1,
    "width": 2,
    "height": 3,
    "metadata": '{"album": "spring"}',
}


def file_of(name: str, data: bytes) -> ExportFile:
    return ExportFile(name, lambda: nullcontext(io.BytesIO(data)))


def table(rows: int = 1, **columns: Any) -> bytes:
    """A Parquet file as somebody else might write it."""
    values = {name: pyarrow.array([value] * rows) for name, value in GOOD.items()}
    values["vector"] = pyarrow.array([[1.0, 2.0, 3.0, 4.0]] * rows)
    target = io.BytesIO()
    made = pyarrow.table({**values, **columns}).replace_schema_metadata({b"lookalike": HEADER.model_dump_json()})
    pyarrow.parquet.write_table(made, target)
    return target.getvalue()


def read(data: bytes, *, limit: int = 1_000) -> list[ExportedRow]:
    reader = ExportReader([file_of("one.parquet", data)])
    return reader.page(reader.header(), {}, limit=limit, keep=lambda: None)[0]


def test_a_table_that_another_program_wrote_is_read_as_ours_is() -> None:
    for vector in (pyarrow.list_(pyarrow.float64()), pyarrow.large_list(pyarrow.float32())):
        (row,) = read(table(vector=pyarrow.array([[1.0, 2.0, 3.0, 4.0]], vector)))
        assert usable_vector(row, 4).tolist() == [1, 2, 3, 4]
        assert stored_image(row, job="01J").metadata == {"album": "spring"}


def test_every_row_is_read_once_whatever_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 3)
    target = io.BytesIO()
    made = pyarrow.parquet.read_table(io.BytesIO(table(20, size=pyarrow.array(range(20)))))
    pyarrow.parquet.write_table(made, target, row_group_size=7)
    reader = ExportReader([file_of(name, target.getvalue()) for name in ("b.parquet", "a.parquet")])
    header, found = reader.header(), []
    assert reader.count(header) == 40
    cursor: Mapping[str, Any] = {}
    while True:
        rows, cursor = reader.page(header, json.loads(json.dumps(cursor)), limit=6, keep=lambda: None)
        if not rows:
            break
        assert len(rows) <= 6
        found += rows
    assert [row.fields["size"] for row in found if row.fields] == [*range(20), *range(20)]
    assert (found[0].place, found[-1].place) == ("a.parquet: Row 1", "b.parquet: Row 20")


def test_vectors_that_are_missing_or_of_another_length_are_those_of_their_rows_alone() -> None:
    values = [
        [1.0, 2.0, 3.0, 4.0],
        None,
        [1.0],
        [float("inf"), 0.0, 0.0, 0.0],
        [0.0] * 4,
        [4.0, 3.0, 2.0, 1.0],
        [1e300] * 4,
    ]
    rows = read(table(7, vector=pyarrow.array(values)))
    assert [usable_vector(row, 4).tolist() for row in (rows[0], rows[5])] == [[1, 2, 3, 4], [4, 3, 2, 1]]
    for row in (*rows[1:5], rows[6]):
        with pytest.raises(VectorInvalid, match=r"of this collection|finite|no length"):
            usable_vector(row, 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "0" * 32),
        ("uri", None),
        ("uri", "query:" + "0" * 64),
        ("uri", "fetched:" + "0" * 32),
        ("uri", "file:///photos/../etc/passwd"),
        ("uri", "upload:none"),
        ("uri", "http://\ud800"),
        ("name", "x" * 5_000),
        ("sha256", "ABC"),
        ("duplicate_of", "another"),
        ("size", -1),
        ("width", 2**63),
        ("height", True),
        ("metadata", "[1]"),
        ("metadata", '{"a": {}}'),
        ("metadata", '{"uri": "x"}'),
        ("metadata", "[" * 100_000),
    ],
)
def test_a_row_that_describes_no_image_says_what_is_wrong(field: str, value: object) -> None:
    assert stored_image(ExportedRow(place="Row 1", fields=GOOD), job="01J").job == "01J"
    fields = {**GOOD, field: value}
    if field == "uri" and isinstance(value, str) and value.isascii():
        fields["id"] = image_id(value)
    with pytest.raises(RowInvalid, match="Row 1 cannot be used"):
        stored_image(ExportedRow(place="Row 1", fields=fields), job="01J")


@pytest.mark.parametrize(
    "make",
    [
        lambda: table(300, name=pyarrow.array(["x" * (1 << 20)] * 300)),
        lambda: table(name=pyarrow.array([1])),
        lambda: table(size=pyarrow.array(["1"])),
        lambda: table(vector=pyarrow.array([[1, 2, 3, 4]])),
        lambda: table(vector=pyarrow.array([[0.0] * 40_000], pyarrow.list_(pyarrow.float32(), 40_000))),
        lambda: b"PAR1 and so on",
        lambda: b"",
    ],
    ids=["long texts", "no texts", "no numbers", "whole numbers", "long vectors", "no table", "nothing"],
)
def test_a_table_that_is_none_of_ours_or_would_fill_memory_is_refused(make: Callable[[], bytes]) -> None:
    data = make()
    assert len(data) < 1 << 20, "it is small"
    with pytest.raises(ExportInvalid):
        read(data)


def test_a_row_group_of_too_many_values_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MAX_GROUP_VALUES", 100)
    assert len(read(table(25))) == 25
    with pytest.raises(ExportInvalid, match="too large"):
        read(table(26))


def test_a_table_without_a_header_or_with_two_names_alike_is_refused() -> None:
    target = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a"]}), target)
    with pytest.raises(ExportInvalid, match="which model"):
        read(target.getvalue())
    with pytest.raises(ExportInvalid, match="same name"):
        ExportReader([file_of("a.parquet", table()), file_of("a.parquet", table())]).header()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lookalike_export": 2}, "later version"),
        ({"model": {**MODEL.model_dump(), "fingerprint": "../../x"}}, "model"),
        ({"model": {**MODEL.model_dump(), "dim": 0}}, "model"),
        ({"metric": "HAMMING"}, "metric"),
        ({"images": -1}, "images"),
    ],
)
def test_a_header_is_checked_and_what_later_versions_add_to_it_is_not(change: dict[str, Any], said: str) -> None:
    good = json.loads(HEADER.model_dump_json())
    assert parse_header(json.dumps({**good, "added_later": 1}).encode()) == HEADER
    with pytest.raises(ExportInvalid, match=said):
        parse_header(json.dumps({**good, **change}).encode())
    for data in (b"[]", b"\xff", b"{", b"[" * 100_000):
        with pytest.raises(ExportInvalid):
            parse_header(data)


def saved(array: Any) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=True)
    return target.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        saved(np.zeros((3, 4), np.int32)),
        saved(np.zeros(3, np.float32)),
        saved(np.asfortranarray(np.zeros((3, 4), np.float32))),
        saved(np.array([[{}]], dtype=object)),
        saved(np.zeros((3, 4), np.float32))[:-1],
        saved(np.zeros((1, 40_000), np.float16)),
        b"\x93NUMPY\x03\x00",
        b"",
    ],
    ids=["integers", "no matrix", "by column", "pickled", "cut", "long vectors", "no header", "nothing"],
)
def test_a_matrix_that_is_not_one_of_numbers_is_refused_and_never_unpickled(data: bytes) -> None:
    with pytest.raises(ExportInvalid):
        Matrix(io.BytesIO(data))
    assert Matrix(io.BytesIO(saved(np.ones((3, 4), np.float64)))).read(1, 9).tolist() == [[1.0] * 4] * 2
