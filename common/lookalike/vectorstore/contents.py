"""The contents of a collection: for each file content, by its SHA-256, the image whose vector can be shared.

They are kept in a collection beside the images, `<physical>__contents`, because Milvus finds rows fast by primary key
only. An entry is a hint: the image may have been deleted or replaced since, so whoever reads one looks at the image.
They are small and looked up by key alone, so on Milvus Lite, whose log keeps them, they are flushed in thousands.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lookalike.vectorstore.checks import slices
from lookalike.vectorstore.connection import Connection, Refusal, RefusalKind, loaded
from lookalike.vectorstore.indexes import ServerKind
from lookalike.vectorstore.locks import NamedLock

SUFFIX: Final = "__contents"
MAX_CONTENTS: Final = 1_000  #: Of one call.
FLUSH_ROWS: Final = 5_000  #: Milvus Lite reads anew what was not flushed when it is started: seconds for 200,000.
INDEX: Final = {"index_type": "FLAT", "metric_type": "L2", "params": {}}


class Contents:
    """Reads and writes the hints. The caller holds the collection's lock where it writes to Milvus Lite."""

    def __init__(self, connection: Connection, lock: NamedLock, *, read_s: float, write_s: float) -> None:
        self._connection = connection
        self._lock = lock
        self._read_s = read_s
        self._write_s = write_s
        self._unflushed: Counter[str] = Counter()

    def create(self, physical: str) -> None:
        """Make the collection of hints beside a physical collection, where it is missing."""
        self._connection.create(physical + SUFFIX, _schema, INDEX, consistency="Session", timeout_s=self._write_s)
        self._flush(physical)  # What an earlier process left.

    def find(self, physical: str, sha256s: Sequence[str], *, consistency: str) -> dict[str, str]:
        """Return the image id last recorded for each of these contents, by SHA-256; none where there are no hints."""
        distinct = list(dict.fromkeys(sha256s))
        rows = [row for some in slices(distinct, MAX_CONTENTS) for row in self._query(physical, some, consistency)]
        return {row["content"]: row["image"] for row in rows}

    def record(self, physical: str, images: Mapping[str, str]) -> None:
        """Add or replace the image id of each of these contents, given by SHA-256."""
        rows = [{"content": sha256, "image": image, "vector": [0.0, 0.0]} for sha256, image in images.items()]
        # Lite's insert replaces a row, and unlike its upsert does not read it before.
        method = "insert" if self._connection.kind is ServerKind.LITE else "upsert"
        for some in slices(rows, MAX_CONTENTS):
            self._connection.call(method, physical + SUFFIX, some, timeout_s=self._write_s)
        self._unflushed[physical] += len(rows)
        if self._unflushed[physical] >= FLUSH_ROWS:
            self._flush(physical)

    def forget(self, physical: str, sha256s: Sequence[str]) -> None:
        """Remove what is recorded of these contents."""
        for some in slices(sha256s, MAX_CONTENTS):
            self._connection.call("delete", physical + SUFFIX, ids=some, timeout_s=self._write_s)

    def _flush(self, physical: str) -> None:
        if self._connection.kind is ServerKind.LITE:
            self._connection.call("flush", physical + SUFFIX, timeout_s=self._write_s)
        del self._unflushed[physical]

    def _query(self, physical: str, sha256s: list[str], consistency: str) -> list[dict[str, Any]]:
        def call() -> list[dict[str, Any]]:
            return list(
                self._connection.call(
                    "query",
                    physical + SUFFIX,
                    ids=sha256s,
                    output_fields=["image"],
                    consistency_level=consistency,
                    timeout_s=self._read_s,
                )
            )

        try:
            return loaded(call, lambda: self._reload(physical))
        except Refusal as refusal:
            if refusal.kind is RefusalKind.NOT_FOUND:
                return []  # Made before there were hints, or being dropped.
            raise

    def _reload(self, physical: str) -> None:
        with self._lock(physical + SUFFIX):
            self._connection.load(physical + SUFFIX, INDEX, timeout_s=self._write_s)


def _schema() -> Any:
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("content", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)  # Milvus demands one.
    schema.add_field("image", DataType.VARCHAR, max_length=32)
    return schema
