"""Which index a collection gets, and what may become a row."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import InvalidParameter
from lookalike.records import IndexKind, Metric
from lookalike.vectorstore import StoredImage, check_metadata
from lookalike.vectorstore.checks import MAX_BYTES, batches, filter_refused
from lookalike.vectorstore.indexes import (
    ServerKind,
    choose_index,
    index_for,
    metric_for,
)

LITE, MILVUS = ServerKind.LITE, ServerKind.MILVUS


@given(rows=st.integers(0, 10**9), dim=st.integers(1, 32_768))
def test_the_index_that_a_server_gets_by_itself_never_has_to_be_replaced(rows: int, dim: int) -> None:
    assert choose_index(rows, dim, MILVUS) == choose_index(0, dim, MILVUS)


@pytest.mark.parametrize("rows", [0, 10**6])
@pytest.mark.parametrize("kind", [IndexKind.AUTO, IndexKind.FLAT])
def test_milvus_lite_compares_every_row_at_any_size(kind: IndexKind, rows: int) -> None:
    spec = index_for(kind, rows, 2048, LITE)
    assert spec.search["nprobe"] == spec.build["nlist"] == 1


def test_milvus_lite_is_advised_against_where_its_vectors_take_more_than_a_gibibyte() -> None:
    assert not choose_index(131_072, 2048, LITE).advice
    assert "131073 images of 2048 values" in choose_index(131_073, 2048, LITE).advice
    assert not choose_index(10**9, 2048, MILVUS).advice


def test_the_tutorials_numbers_are_kept_on_a_server_and_clamped_on_lite() -> None:
    server = index_for(IndexKind.TUTORIAL, 5000, 2048, MILVUS)
    assert (server.index_type, server.build, server.search) == ("IVF_FLAT", {"nlist": 16_384}, {"nprobe": 128})
    lite = index_for(IndexKind.TUTORIAL, 5000, 2048, LITE)
    assert (lite.build, lite.search) == ({"nlist": 128}, {"nprobe": 128})
    assert "16384 clamped to 128" in lite.reason


def test_the_tutorials_preset_measures_in_l2_and_others_as_asked() -> None:
    assert metric_for(IndexKind.TUTORIAL, Metric.COSINE) is Metric.L2
    assert metric_for(IndexKind.AUTO, Metric.IP) is Metric.IP


@pytest.mark.parametrize("kind", [IndexKind.HNSW, IndexKind.AUTO])
def test_hnsw_looks_at_no_fewer_candidates_than_it_returns(kind: IndexKind) -> None:
    spec = index_for(kind, 0, 2048, MILVUS)
    assert spec.search_params(limit=10)["ef"] == 128
    assert spec.search_params(limit=1000)["ef"] == 1000


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"album": "spring", "year": 2024, "rating": 4.5, "open": True, "tags": ["a", 1, False], "none": []},
        {"least": -(2**63) + 1, "most": 2**63 - 1},
        {"A" * 64: "ü" * 16_000},
    ],
)
def test_metadata_that_can_be_filtered_on_is_accepted(metadata: dict[str, object]) -> None:
    check_metadata(metadata)


@pytest.mark.parametrize("key", ["", "1st", "two words", "a-b", "$meta", "_seq", "ü", "a\n", "a" * 65])
def test_a_metadata_key_that_is_no_name_is_refused(key: str) -> None:
    with pytest.raises(InvalidParameter, match="is not a name"):
        check_metadata({key: 1})


@pytest.mark.parametrize("key", ["id", "vector", "uri", "sha256", "width", "distance"])
def test_a_metadata_key_of_our_own_is_refused(key: str) -> None:
    with pytest.raises(InvalidParameter, match="lookalike's own"):
        check_metadata({key: 1})


@pytest.mark.parametrize(
    "value", [None, {"a": 1}, [[1]], [None], float("nan"), float("inf"), 2**63, -(2**63), "\ud800", ["\udfff"], b"x"]
)
def test_a_metadata_value_that_cannot_be_stored_is_refused(value: object) -> None:
    with pytest.raises(InvalidParameter, match="'field'"):
        check_metadata({"field": value})


def test_metadata_without_measure_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="32768 bytes"):
        check_metadata({f"key{number}": "x" * 1000 for number in range(40)})


def test_a_batch_stays_below_its_rows_and_bytes() -> None:
    heavy = StoredImage(
        id="f" * 32, uri="", name="", sha256="", size=1, mtime_ns=1, width=1, height=1, metadata={"text": "x" * 30_000}
    )
    vector = np.zeros(2048, np.float32)
    cut = list(batches([(heavy, vector)] * 2000, dim=2048))
    assert sum(len(batch) for batch in cut) == 2000
    sizes = [sum(4 * 2048 + len(json.dumps({"text": row["text"]})) for row in batch) for batch in cut]
    assert max(sizes) <= MAX_BYTES
    light = StoredImage(**{**vars(heavy), "metadata": {}})
    assert [len(batch) for batch in batches([(light, vector[:8])] * 2500, dim=8)] == [1000, 1000, 500]


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("unexpected character '=' at column 7\n  album = 'x'\n        ^\ndid you mean '=='?", "did you mean '=='?"),
        ("failed to create query plan: cannot parse expression: a ==, error: line 1:8 mismatched input '<EOF>' "
         "expecting {'(', '[', EXISTS}", "mismatched input '<EOF>'"),
        ("failed to search/query delegator 1 for channel x: fail to Search, reason=worker(1) query failed:  => "
         "unsupported expr proto node: value_expr {\n  value {\n  }\n}\n", "(unsupported expr proto node: value_expr)"),
    ],
)  # fmt: skip
def test_a_parsers_answer_is_put_in_plain_words(answer: str, plain: str) -> None:
    message = filter_refused(answer).message
    assert plain in message
    assert not {"\n", "^", "{"} & set(message)
