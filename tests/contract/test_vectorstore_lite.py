"""That the reads which Milvus Lite is given here answer, byte for byte, what its own would."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milvus_lite.adapter.grpc.translators.records import records_to_fields_data
from milvus_lite.adapter.grpc.translators.schema import milvus_to_milvus_lite_schema
from milvus_lite.engine.collection import Collection
from milvus_lite.engine.projection import build_projection_plan
from pymilvus.client.prepare import Prepare
from test_vectorstore import images, vectors

from lookalike.vectorstore.lite_collection import ColumnarCollection
from lookalike.vectorstore.schema import OUTPUT_FIELDS, PLACE_FIELDS, STATE_FIELDS, milvus_schema, to_row

DIM = 16
FIELDS = [OUTPUT_FIELDS, STATE_FIELDS, PLACE_FIELDS, ["vector"], ["number", "tags"], ["*"], None]
FILTERS = [
    'uri >= "file:///photos/1" and uri < "file:///photos/4"',
    'id > "00000000000000000000000000000031" and size < 10000000250',
    "number in [7, 8, 299, 1000]",
    "metadata_nobody_has == 1",
    "size > 0",
]


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[ColumnarCollection]:
    """Rows in several files, some of them replaced or deleted since, and nothing in memory only."""
    schema = milvus_to_milvus_lite_schema(Prepare.get_schema_from_collection_schema("photos", milvus_schema(DIM)))
    collection = ColumnarCollection("photos", str(tmp_path), schema)
    rows = [to_row(image, vector.tolist()) for image, vector in zip(images(300), vectors(300), strict=True)]
    order = np.random.default_rng(1).permutation(300).tolist()
    for start in range(0, 300, 100):
        collection.insert([rows[number] for number in order[start : start + 100]])
        collection.flush()
    collection.insert([rows[number] | {"uri": "file:///elsewhere", "tags": ["é", 1, None]} for number in range(20)])
    collection.flush()
    collection.delete([rows[number]["id"] for number in range(10, 40)])
    collection.flush()
    collection.load()
    yield collection
    collection.close()


def sent(collection: Collection, rows: list[dict[str, Any]], fields: list[str] | None, kind: str) -> list[bytes]:
    plan = build_projection_plan(fields, collection.schema, api_kind=kind)
    columns = records_to_fields_data(rows, collection.schema, output_fields=fields, projection_plan=plan)
    return [column.SerializeToString() for column in columns]


def compare(collection: ColumnarCollection) -> None:
    ids = [image.id for image in reversed(images(310))]
    for fields in FIELDS:
        ours = sent(collection, collection.get(ids, output_fields=fields), fields, "get")
        assert ours == sent(collection, Collection.get(collection, ids, output_fields=fields), fields, "get")
        for expression in FILTERS:
            for page in ({}, {"order_by_pk": True, "limit": 30}, {"order_by_pk": True, "limit": 30, "offset": 40}):
                found = collection.query(expression, output_fields=fields, **page)
                expected = Collection.query(collection, expression, output_fields=fields, **page)
                assert sent(collection, found, fields, "query") == sent(collection, expected, fields, "query")


def test_rows_read_by_the_column_are_the_rows_that_milvus_lite_reads(collection: ColumnarCollection) -> None:
    assert len(collection.query(FILTERS[-1])) == 270
    compare(collection)


def test_rows_and_deletions_that_are_not_yet_in_a_file_are_read_as_well(collection: ColumnarCollection) -> None:
    rows = [to_row(image, vector.tolist()) for image, vector in zip(images(305), vectors(305), strict=True)]
    collection.delete([rows[number]["id"] for number in range(100, 120)])
    compare(collection)
    collection.insert([row | {"uri": "file:///photos/2.jpg"} for row in rows[295:]])
    compare(collection)
    assert len(collection.get([row["id"] for row in rows])) == len(collection.query(FILTERS[-1])) == 255
