"""The catalog: each collection's settings and model, kept in Milvus beside the vectors.

So they survive the loss of Redis, and travel with a backup of Milvus. A row is a collection's record as JSON, under its
public name; the vector that Milvus demands of every row carries nothing.
"""

import time
from typing import Any, Final

from lookalike.records import Collection
from lookalike.vectorstore.connection import Connection, Refusal, RefusalKind, loaded

#: A public name begins with a letter, and so never is or begins this one.
CATALOG: Final = "_lookalike_catalog"
CACHE_S: Final = 3.0  #: How long a process may act on a binding that another one has just removed.
MAX_COLLECTIONS: Final = 10_000
MAX_RECORD_BYTES: Final = 8_192
INDEX: Final = {"index_type": "FLAT", "metric_type": "L2", "params": {}}


class Catalog:
    """Reads and writes the records of collections."""

    def __init__(self, connection: Connection, *, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._cache: dict[str, tuple[Collection, float]] = {}

    def find(self, name: str) -> Collection | None:
        """Return a collection's record as this process last saw it; only bound ones, and only for seconds."""
        record, expires = self._cache.get(name, (None, 0.0))
        return record if time.monotonic() < expires else self.read(name)

    def read(self, name: str) -> Collection | None:
        """Return a collection's record as it is now."""
        self.forget(name)
        rows = self._query(ids=[name])
        if not rows:
            return None
        record = Collection.model_validate_json(rows[0]["record"])
        if record.model is not None:
            self._cache[name] = (record, time.monotonic() + CACHE_S)
        return record

    def read_all(self) -> list[Collection]:
        """Return every collection's record, by name."""
        rows = self._query(filter="name != ''", limit=MAX_COLLECTIONS)
        return sorted((Collection.model_validate_json(row["record"]) for row in rows), key=lambda record: record.name)

    def write(self, record: Collection) -> None:
        """Add or replace a collection's record. The caller holds the catalog's lock."""
        self._connection.create(CATALOG, _schema, INDEX, consistency="Strong", timeout_s=self._timeout_s)
        text = record.model_dump_json(exclude={"count", "index_chosen"})
        row = {"name": record.name, "record": text, "vector": [0.0, 0.0]}
        self._connection.call("upsert", CATALOG, [row], timeout_s=self._timeout_s)
        self.forget(record.name)

    def remove(self, name: str) -> None:
        """Remove a collection's record. The caller holds the catalog's lock."""
        self._connection.call("delete", CATALOG, ids=[name], timeout_s=self._timeout_s)
        self.forget(name)

    def forget(self, name: str) -> None:
        """Drop what this process remembers of a collection."""
        self._cache.pop(name, None)

    def _query(self, **what: Any) -> list[dict[str, Any]]:
        def call() -> list[dict[str, Any]]:
            rows = self._connection.call(
                "query",
                CATALOG,
                timeout_s=self._timeout_s,
                output_fields=["record"],
                consistency_level="Strong",
                **what,
            )
            return list(rows)

        try:
            return loaded(call, self._load)
        except Refusal as refusal:
            if refusal.kind is RefusalKind.NOT_FOUND:
                return []  # Nothing was ever written.
            raise

    def _load(self) -> None:
        self._connection.load(CATALOG, INDEX, timeout_s=self._timeout_s)


def _schema() -> Any:
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("name", DataType.VARCHAR, is_primary=True, max_length=48)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    schema.add_field("record", DataType.VARCHAR, max_length=MAX_RECORD_BYTES)
    return schema
