"""That the search which Milvus Lite is given here finds what its own would, and waits for nobody who writes."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milvus_lite.adapter.grpc.translators.schema import milvus_to_milvus_lite_schema
from milvus_lite.engine import collection as engine
from milvus_lite.engine.collection import Collection
from pymilvus.client.prepare import Prepare
from test_vectorstore import images, vectors

from lookalike.vectorstore import lite_search
from lookalike.vectorstore.lite_search import SearchingCollection
from lookalike.vectorstore.schema import OUTPUT_FIELDS, milvus_schema, to_row

DIM = 16
FILTERS = [None, "number in [7, 8, 150, 299]", 'uri >= "file:///photos/2" and size < 10000000250', "size < 0"]
PAGES: list[dict[str, Any]] = [
    {"top_k": 3, "output_fields": OUTPUT_FIELDS},
    {"top_k": 400, "output_fields": ["number", "tags"]},
    {"top_k": 5, "offset": 4, "output_fields": None},
]
QUERIES = [*vectors(2, seed=5).tolist(), vectors(300)[15].tolist(), vectors(300)[200].tolist()]


def rows(count: int) -> list[dict[str, Any]]:
    return [to_row(image, vector.tolist()) for image, vector in zip(images(count), vectors(count), strict=True)]


@pytest.fixture(params=["COSINE", "L2", "IP"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SearchingCollection]:
    """Rows in several files, some of them replaced or deleted since, with the index that exact collections have."""
    schema = milvus_to_milvus_lite_schema(Prepare.get_schema_from_collection_schema("photos", milvus_schema(DIM)))
    collection = SearchingCollection("photos", str(tmp_path), schema)
    order = np.random.default_rng(1).permutation(300).tolist()
    for start in range(0, 300, 100):
        collection.insert([rows(300)[number] for number in order[start : start + 100]])
        collection.flush()
    collection.insert([row | {"uri": "file:///elsewhere", "tags": ["é", 1, None]} for row in rows(20)])
    collection.flush()
    collection.delete([row["id"] for row in rows(40)[10:]])
    collection.flush()
    collection.create_index("vector", {"index_type": "IVF_FLAT", "metric_type": request.param, "params": {"nlist": 1}})
    collection.load()
    yield collection
    collection.close()


def compare(collection: SearchingCollection) -> None:
    """See that we find what Milvus Lite finds, by measuring each row that is there."""
    for expression in FILTERS:
        for how in PAGES:
            wanted: dict[str, Any] = {"expr": expression, "anns_field": "vector", **how}
            ours = collection.search(QUERIES, **wanted)
            theirs = Collection.search(collection, QUERIES, **wanted)
            assert len(ours) == len(QUERIES)
            for found, expected in zip(ours, theirs, strict=True):
                assert [hit["id"] for hit in found] == [hit["id"] for hit in expected]
                assert [hit["entity"] for hit in found] == [hit["entity"] for hit in expected]
                distances = [hit["distance"] for hit in found]
                assert distances == pytest.approx([hit["distance"] for hit in expected], rel=1e-5, abs=1e-5)


def hits(collection: SearchingCollection, query: list[float]) -> list[str]:
    return [hit["id"] for hit in collection.search([query], 3)[0]]


def test_a_search_finds_what_milvus_lite_finds(collection: SearchingCollection) -> None:
    compare(collection)


def test_a_search_finds_what_is_in_no_file_yet_and_not_what_was_deleted_a_moment_ago(
    collection: SearchingCollection,
) -> None:
    collection.delete([row["id"] for row in rows(120)[100:]])
    compare(collection)
    collection.insert([row | {"uri": "file:///photos/2.jpg"} for row in rows(305)[295:]])
    collection.insert([row | {"vector": [-value for value in row["vector"]]} for row in rows(305)[295:298]])
    compare(collection)


def test_more_queries_than_are_compared_at_a_time_are_all_answered(
    collection: SearchingCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lite_search, "_MAX_SCORES", 400)
    compare(collection)


@pytest.mark.parametrize("cores", [2, 3])
def test_cores_that_share_a_comparison_leave_no_row_out(
    collection: SearchingCollection, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(lite_search, "_WORTH_SHARING", 1)
    monkeypatch.setattr(lite_search, "_cores", lambda: cores)
    compare(collection)
    collection.insert([row | {"uri": "file:///photos/2.jpg"} for row in rows(305)[295:]])
    compare(collection)


def test_many_versions_of_the_closest_row_do_not_hide_the_others(collection: SearchingCollection) -> None:
    nearest = rows(300)[200]
    for _ in range(3 * lite_search._SPARE_ROWS):
        collection.insert([nearest])
    compare(collection)


def test_a_search_does_not_wait_for_a_merge_of_files(collection: SearchingCollection) -> None:
    held, done = threading.Event(), threading.Event()

    def merge() -> None:
        with collection._maintenance_lock:
            held.set()
            done.wait()

    merging = threading.Thread(target=merge)
    merging.start()
    held.wait()
    try:
        found: list[str] = []
        searching = threading.Thread(target=lambda: found.extend(hits(collection, QUERIES[0])), daemon=True)
        searching.start()
        searching.join(30)
        assert len(found) == 3
    finally:
        done.set()
        merging.join()


def test_rows_are_found_and_deleted_ones_are_not_while_they_are_flushed(
    collection: SearchingCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, seen = engine.execute_flush, []

    def watched(**how: Any) -> None:
        seen.append(hits(collection, QUERIES[3]))
        flush(**how)
        seen.append(hits(collection, QUERIES[3]))

    monkeypatch.setattr(engine, "execute_flush", watched)
    first, second, *_ = hits(collection, QUERIES[3])
    collection.delete([first])
    collection.insert([{**next(row for row in rows(300) if row["id"] == second), "id": "f" * 32}])
    collection.flush()
    seen.append(hits(collection, QUERIES[3]))
    assert [set(found[:2]) for found in seen] == [{second, "f" * 32}] * 3


def test_an_approximate_index_is_left_to_milvus_lite(collection: SearchingCollection) -> None:
    metric = collection.resolve_search_metric("vector", None)
    collection.release()
    collection.drop_index("vector")
    collection.create_index("vector", {"index_type": "HNSW", "metric_type": metric, "params": {"M": 8}})
    collection.load()
    assert {segment.index.index_type for segment in collection._segments_snapshot()} == {"HNSW"}
    assert len(hits(collection, QUERIES[0])) == 3


def test_a_row_is_found_once_while_its_file_is_published(
    collection: SearchingCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, seen = collection._schedule_bg_maintenance, []

    def watched() -> None:
        seen.append(hits(collection, QUERIES[3]))  # The file is there, and the flush is not over.
        schedule()

    monkeypatch.setattr(collection, "_schedule_bg_maintenance", watched)
    before = hits(collection, QUERIES[3])
    collection.insert([row for row in rows(300) if row["id"] in before])
    collection.flush()
    assert seen == [before]


def test_a_row_that_is_replaced_in_the_midst_of_a_search_is_found(
    collection: SearchingCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = lite_search._Look._scores

    def replaced(look: Any, queries: Any) -> Any:
        collection.insert([row for row in rows(300) if row["id"] in before])
        return scores(look, queries)

    before = hits(collection, QUERIES[3])
    collection.insert([row for row in rows(300) if row["id"] == before[1]])
    monkeypatch.setattr(lite_search._Look, "_scores", replaced)
    assert hits(collection, QUERIES[3]) == before
