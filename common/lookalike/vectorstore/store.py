"""The store of collections: create, bind to a model, upsert, look up, search, delete.

A collection's public name is a Milvus alias of a physical collection that is named after the model as well, and exists
once a worker has bound the collection to its model. What is written goes to the physical collection of the writer's
model, so vectors of two models cannot meet, whatever happens to the name in between.
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import (
    CollectionExists,
    CollectionNotFound,
    ImageNotFound,
    InvalidFilter,
    InvalidParameter,
)
from lookalike.records import IMAGE_ID, Collection, CollectionRequest, IndexKind, ModelInfo
from lookalike.settings import Settings
from lookalike.vectorstore.catalog import CATALOG, Catalog
from lookalike.vectorstore.checks import (
    batches,
    check_ids,
    check_model,
    check_vectors,
    checked_name,
    filter_refused,
    model_of,
    physical_name,
    slices,
)
from lookalike.vectorstore.connection import CONNECT_TIMEOUT_S, Connection, Refusal, RefusalKind, as_errors, loaded
from lookalike.vectorstore.indexes import IndexSpec, ServerKind, index_for, index_params, metric_for, outgrown
from lookalike.vectorstore.locks import NamedLock, RedisLocks, ThreadLocks
from lookalike.vectorstore.schema import (
    ID,
    OUTPUT_FIELDS,
    VECTOR,
    Found,
    StoredImage,
    from_hit,
    from_row,
    milvus_schema,
)

log = logging.getLogger(__name__)

MAX_IDS: Final = 500  #: Of one look-up or delete.
MAX_LIMIT: Final = 16_384  #: Hits per query that Milvus returns.

_T = TypeVar("_T")


class VectorStore:
    """Collections of images in Milvus. Thread-safe; connects on first use, so it may be made before a fork.

    Every method raises `VectorStoreUnavailable` where Milvus cannot be reached in time, and `VectorStoreRejected` where
    it refuses for good; those that take a collection's name raise `CollectionNotFound`.
    """

    def __init__(self, settings: Settings, *, write_lock: NamedLock | None = None) -> None:
        self._settings = settings
        self._lock: NamedLock = write_lock or ThreadLocks()
        self._write_s = settings.milvus_timeout_s
        self._read_s = settings.milvus_timeout_s / 3
        self._milvus = Connection(settings)
        self._catalog = Catalog(self._milvus, timeout_s=self._read_s)
        self._bound: dict[str, str] = {}  #: The fingerprint each collection was bound to by this process.

    @classmethod
    def connect(cls, settings: Settings) -> "VectorStore":
        """Make a store for a process that shares its collections with others: its locks are in Redis."""
        return cls(settings, write_lock=RedisLocks(settings))

    def close(self) -> None:
        """Close the connections."""
        self._milvus.close()
        if isinstance(self._lock, RedisLocks):
            self._lock.close()

    def ping(self) -> None:
        """Return if Milvus answers; raises `VectorStoreUnavailable` within a few seconds if not."""
        with as_errors():
            self._milvus.call("get_server_version", timeout_s=CONNECT_TIMEOUT_S)

    # --- Collections ---

    def create(self, request: CollectionRequest) -> Collection:
        """Create an empty collection, not yet bound to a model; raises `CollectionExists`."""
        if "metric" in request.model_fields_set and metric_for(request.index, request.metric) is not request.metric:
            raise InvalidParameter("The preset `tutorial` has the metric L2. Leave the metric out, or set it to L2.")
        record = Collection(name=request.name, metric=metric_for(request.index, request.metric), index=request.index)
        with as_errors(), self._structural(record.name):
            if self._catalog.read(record.name) is not None:
                raise CollectionExists
            self._catalog.write(record)
        return record

    def collection(self, name: str) -> Collection:
        """Return a collection's settings and model, as they are now."""
        with as_errors():
            record = self._catalog.read(checked_name(name))
        if record is None:
            raise CollectionNotFound
        return record

    def collections(self) -> list[Collection]:
        """Return all collections by name."""
        with as_errors():
            return self._catalog.read_all()

    def drop(self, name: str) -> None:
        """Delete a collection with all its vectors."""
        with as_errors(), self._structural(checked_name(name)):
            if self._catalog.read(name) is None:
                raise CollectionNotFound
            # The record goes last: a drop that was cut short can be called again.
            self._milvus.discard("drop_alias", name, timeout_s=self._write_s)
            for physical in self._milvus.call("list_collections", timeout_s=self._read_s):
                if re.fullmatch(f"{name}__[0-9a-f]{{12}}", physical):
                    self._milvus.discard("drop_collection", physical, timeout_s=self._write_s)
            self._catalog.remove(name)
        self._bound.pop(name, None)

    def bind(self, name: str, model: ModelInfo) -> Collection:
        """Make a collection ready for this model's vectors.

        Creates it, with the settings' metric and index, if missing. Costs one small query when repeated, and may be
        called by several workers at once. Raises `ModelMismatch` where the collection has another model.
        """
        with as_errors():
            record = self._catalog.read(
                checked_name(name)
            )  # As it is now: it may have been deleted since the last chunk.
            if record is None or record.model is None or self._bound.get(name) != model.fingerprint:
                with self._structural(name):
                    record = self._bind(name, model)
        check_model(record, model)
        self._bound[name] = model.fingerprint
        return record

    def _bind(self, name: str, model: ModelInfo) -> Collection:
        record = self._catalog.read(name) or Collection(
            name=name,
            metric=metric_for(self._settings.index, self._settings.metric),
            index=self._settings.index,
        )
        check_model(record, model)
        bound = record.model_copy(update={"model": model})
        physical = physical_name(name, model.fingerprint)
        spec = self._spec(bound)
        if record.model is None:
            log.info("collection %s gets the index %s: %s", name, spec, spec.reason)
        self._milvus.create(
            physical,
            lambda: milvus_schema(model.dim),
            index_params(bound.metric, spec),
            consistency=self._settings.consistency,
            timeout_s=self._write_s,
        )
        self._milvus.point(name, physical, timeout_s=self._write_s)
        # The record goes last: until it names the model, nobody reads or writes the physical collection.
        if record.model is None:
            self._catalog.write(bound)
        return self._catalog.read(name) or bound

    def maintain(self, name: str) -> str | None:
        """Give a collection with the index AUTO the one its size asks for; returns what changed, if anything.

        For an ingest worker to call when a job ends. Searches that come meanwhile wait for the new index. Where the
        server is Milvus Lite there is nothing to change: its index is exact at every size.
        """
        with as_errors():
            if self._milvus.kind is ServerKind.LITE:
                return None
            return self._with_physical(name, self._maintain, unbound=None)

    def _maintain(self, record: Collection, physical: str) -> str | None:
        rows = self._count(record, physical)
        wanted = self._spec(record, rows)
        with self._lock(record.name):
            current = self._milvus.call("describe_index", physical, VECTOR, timeout_s=self._read_s)
            if not outgrown(current, wanted):
                return None
            params = index_params(record.metric, wanted)
            self._milvus.replace_index(physical, params, alias=record.name, timeout_s=self._write_s)
        return f"index {current['index_type']} replaced by {wanted}: {wanted.reason}"

    # --- Images ---

    def count(self, name: str) -> int:
        """Count the images stored."""
        with as_errors():
            return self._with_physical(name, self._count, unbound=0)

    def _count(self, record: Collection, physical: str) -> int:
        rows = self._read(record, physical, "query", settled=True, output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def upsert(self, name: str, images: Sequence[StoredImage], vectors: NDArray[np.float32]) -> None:
        """Store images with their vectors, shape (n, dim); those stored before are replaced, metadata included."""
        check_ids([image.id for image in images])
        # Milvus keeps both of two rows with one id in one call.
        rows = {image.id: (image, vector) for image, vector in zip(images, vectors, strict=True)}
        with as_errors():
            record = self._catalog.find(checked_name(name))
            if record is None or record.model is None:
                raise CollectionNotFound
            check_vectors(vectors, record.model.dim)
            # The caller's vectors are of the model it bound, whatever the name stands for by now.
            physical = physical_name(name, self._bound.get(name, record.model.fingerprint))
            for batch in batches(rows.values(), record.model.dim):
                self._write(name, physical, batch)

    def _write(self, name: str, physical: str, batch: list[dict[str, Any]]) -> None:
        try:
            if self._milvus.kind is ServerKind.MILVUS:
                self._milvus.call("upsert", physical, batch, timeout_s=self._write_s)
                return
            with self._lock(name):
                # Lite's upsert keeps the old row's metadata where the new one has none; its insert replaces the row.
                self._milvus.call("insert", physical, batch, timeout_s=self._write_s)
                # Lite converts every row not yet flushed to Python floats in each search: 0.3 s per 1,000 rows.
                self._milvus.call("flush", physical, timeout_s=self._write_s)
        except Refusal as refusal:
            if refusal.kind is RefusalKind.NOT_FOUND:
                self._catalog.forget(name)
                self._bound.pop(name, None)
                raise CollectionNotFound("The collection was deleted while images were stored in it.") from refusal
            raise

    def known(self, name: str, ids: Sequence[str]) -> dict[str, StoredImage]:
        """Return those of these images that are stored, by id; none where the collection is missing or unbound."""
        check_ids(ids)
        try:
            with as_errors():
                rows = self._with_physical(name, self._rows(ids, OUTPUT_FIELDS), unbound=list[dict[str, Any]]())
        except CollectionNotFound:
            return {}
        return {row[ID]: from_row(row[ID], row) for row in rows}

    def get(self, name: str, image_id: str) -> StoredImage:
        """Return a stored image; raises `ImageNotFound`."""
        if not IMAGE_ID.fullmatch(image_id):
            raise ImageNotFound
        with as_errors():
            rows = self._with_physical(name, self._rows([image_id], OUTPUT_FIELDS), unbound=list[dict[str, Any]]())
        if not rows:
            raise ImageNotFound
        return from_row(image_id, rows[0])

    def vectors(self, name: str, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of those of these images that are stored, by id."""
        check_ids(ids)
        with as_errors():
            rows = self._with_physical(name, self._rows(ids, [VECTOR]), unbound=list[dict[str, Any]]())
        return {row[ID]: np.asarray(row[VECTOR], dtype=np.float32) for row in rows}

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Delete images; returns how many of them were stored."""
        stored = list(self.known(name, ids))
        with as_errors():
            return self._with_physical(name, lambda _, physical: self._delete(name, physical, stored), unbound=0)

    def _delete(self, name: str, physical: str, ids: list[str]) -> int:
        for some in slices(ids, MAX_IDS):
            with self._data_lock(name):
                self._milvus.call("delete", physical, ids=some, timeout_s=self._write_s)
        return len(ids)

    def search(
        self, name: str, vectors: NDArray[np.float32], *, limit: int, filter: str | None = None
    ) -> list[list[Found]]:
        """Find the closest images to each of (nq, dim) vectors, closest first, at most `limit` each.

        `filter` is a Milvus expression over an image's fields and metadata; raises `InvalidFilter` where Milvus does
        not take it. A field that no image has matches nothing.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidParameter(f"The limit is between 1 and {MAX_LIMIT}.")
        nothing: list[list[Found]] = [[] for _ in vectors]
        with as_errors():
            return self._with_physical(
                name, lambda record, physical: self._search(record, physical, vectors, limit, filter), unbound=nothing
            )

    def _search(
        self, record: Collection, physical: str, vectors: NDArray[np.float32], limit: int, expression: str | None
    ) -> list[list[Found]]:
        check_vectors(vectors, model_of(record).dim)
        if expression is not None and not expression.strip():
            raise InvalidFilter
        params = {"metric_type": record.metric.value, "params": self._spec(record).search_params(limit)}
        try:
            answers = self._read(
                record,
                physical,
                "search",
                data=list(vectors),
                limit=limit,
                # Never put in parentheses: that would make a whole of `a) or (b`. Nothing of ours is combined with it.
                filter=expression or "",
                search_params=params,
                output_fields=OUTPUT_FIELDS,
                anns_field=VECTOR,
            )
        except Refusal as refusal:
            # Everything else about the request was checked here.
            if expression is not None and refusal.kind is RefusalKind.OTHER:
                raise filter_refused(refusal.reason) from refusal
            raise
        return [[from_hit(hit) for hit in hits] for hits in answers]

    # --- Within ---

    def _with_physical(self, name: str, work: Callable[[Collection, str], _T], *, unbound: _T) -> _T:
        """Do work on a collection's physical one. A remembered record may be out of date: then once more, anew."""
        checked_name(name)
        for last in (False, True):
            record = self._catalog.find(name)
            if record is None:
                raise CollectionNotFound
            if record.model is None:
                return unbound
            try:
                return work(record, physical_name(name, record.model.fingerprint))
            except Refusal as refusal:
                if last or refusal.kind is not RefusalKind.NOT_FOUND:
                    raise
                self._catalog.forget(name)
        raise AssertionError("the second round returns or raises")

    def _rows(self, ids: Sequence[str], fields: Sequence[str]) -> Callable[[Collection, str], list[dict[str, Any]]]:
        distinct = list(dict.fromkeys(ids))

        def query(record: Collection, physical: str, *, settled: bool) -> list[dict[str, Any]]:
            return [
                row
                for some in slices(distinct, MAX_IDS)
                for row in self._read(record, physical, "query", settled=settled, ids=some, output_fields=list(fields))
            ]

        def work(record: Collection, physical: str) -> list[dict[str, Any]]:
            rows = query(record, physical, settled=False)
            if len(rows) < len(distinct) and self._milvus.kind is ServerKind.LITE:
                rows = query(record, physical, settled=True)
            return rows

        return work

    def _read(self, record: Collection, physical: str, method: str, *, settled: bool = False, **kwargs: Any) -> Any:
        """Read from a collection, loading it where need be; `settled` waits on Lite for the write under way.

        Lite hides the rows it flushes for as long as that takes, about half a second per 1,000.
        """
        rebuilt = record.index is IndexKind.AUTO and self._milvus.kind is ServerKind.MILVUS
        target = record.name if rebuilt else physical

        # Only searches may trade freshness for speed: counts and what an ingest skips by have to be true now.
        consistency = self._settings.consistency if method == "search" else "Strong"

        def call() -> Any:
            try:
                with self._data_lock(record.name) if settled else nullcontext():
                    return self._milvus.call(
                        method, target, timeout_s=self._read_s, consistency_level=consistency, **kwargs
                    )
            except Refusal as refusal:
                if rebuilt and refusal.kind is RefusalKind.NOT_FOUND:
                    raise Refusal(RefusalKind.NOT_LOADED, refusal.reason) from refusal
                raise

        return loaded(call, lambda: self._reload(record, physical))

    def _reload(self, record: Collection, physical: str) -> None:
        with self._lock(record.name):
            self._milvus.load(physical, index_params(record.metric, self._spec(record)), timeout_s=self._write_s)
            self._milvus.point(record.name, physical, timeout_s=self._write_s)
            if self._milvus.kind is ServerKind.LITE:
                self._milvus.call("flush", physical, timeout_s=self._write_s)

    def _spec(self, record: Collection, rows: int = 0) -> IndexSpec:
        return index_for(record.index, rows, model_of(record).dim, self._milvus.kind)

    @contextmanager
    def _structural(self, name: str) -> Iterator[None]:
        with self._lock(name), self._lock(CATALOG):
            yield

    @contextmanager
    def _data_lock(self, name: str) -> Iterator[None]:
        if self._milvus.kind is ServerKind.LITE:
            with self._lock(name):
                yield
        else:
            yield
