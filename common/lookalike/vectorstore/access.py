"""How the parts of the store reach a collection: by name to its record, to the physical collection, to its rows.

The parts share one connection, one catalog and one set of locks. Nothing here knows what a row holds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from lookalike.errors import CollectionNotFound, ModelNotFound
from lookalike.records import Collection
from lookalike.settings import Settings
from lookalike.vectorstore.catalog import CATALOG, Catalog
from lookalike.vectorstore.checks import at_address, model_of, parted, physical_name
from lookalike.vectorstore.connection import Connection, Refusal, RefusalKind, loaded
from lookalike.vectorstore.contents import Contents
from lookalike.vectorstore.indexes import IndexSpec, ServerKind, index_for, index_params, tuned
from lookalike.vectorstore.locks import NamedLock, ThreadLocks

_T = TypeVar("_T")


class Access:
    """What every part of the store is built on."""

    def __init__(self, settings: Settings, *, write_lock: NamedLock | None = None) -> None:
        self._settings = settings
        self._lock: NamedLock = write_lock or ThreadLocks()
        self._write_s = settings.milvus_timeout_s
        self._read_s = settings.milvus_timeout_s / 3
        self._milvus = Connection(settings)
        self._catalog = Catalog(self._milvus, timeout_s=self._read_s)
        self._contents = Contents(self._milvus, self._lock, read_s=self._read_s, write_s=self._write_s)
        self._bound: dict[str, str] = {}  #: The fingerprint each collection was bound to by this process.

    def _with_physical(self, address: str, work: Callable[[Collection, str], _T], *, unbound: _T) -> _T:
        """Do work on the vectors at an address. A remembered record may be out of date: then once more, anew."""
        name, prefix = parted(address)
        for last in (False, True):
            record = self._catalog.find(name)
            if record is None:
                raise CollectionNotFound
            if record.model is None:
                return unbound
            try:
                record = at_address(record, address, prefix)
                return work(record, physical_name(name, model_of(record).fingerprint))
            except ModelNotFound:
                if last:
                    raise
            except Refusal as refusal:
                if last or refusal.kind is not RefusalKind.NOT_FOUND:
                    raise
            self._catalog.forget(name)
        raise AssertionError("the second round returns or raises")

    def _read(
        self,
        record: Collection,
        physical: str,
        method: str,
        *,
        settled: bool = False,
        consistency: str = "Strong",
        **kwargs: Any,
    ) -> Any:
        """Read from a collection, loading it where need be; `settled` waits on Lite for the write under way.

        Lite hides the rows it flushes for as long as that takes, about half a second per 1,000.
        """
        # The alias of one with several models follows its record, and not in the same moment.
        rebuilt = self._milvus.kind is ServerKind.MILVUS and not record.models
        target = record.name if rebuilt else physical

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

    def _count(self, record: Collection, physical: str) -> int:
        rows = self._read(record, physical, "query", settled=True, output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def _reload(self, record: Collection, physical: str) -> None:
        with self._lock(parted(record.name)[0]):
            self._milvus.load(physical, index_params(record.metric, self._spec(record)), timeout_s=self._write_s)
            if record.name != physical:
                self._milvus.point(record.name, physical, timeout_s=self._write_s)
            if self._milvus.kind is ServerKind.LITE:
                self._milvus.call("flush", physical, timeout_s=self._write_s)

    def _spec(self, record: Collection, rows: int = 0) -> IndexSpec:
        spec = index_for(record.index, rows, model_of(record).dim, self._milvus.kind)
        return tuned(spec, record.build, record.search)

    @contextmanager
    def _structural(self, name: str) -> Iterator[None]:
        with self._lock(name), self._lock(CATALOG):
            yield

    @contextmanager
    def _data_lock(self, name: str) -> Iterator[None]:
        if self._milvus.kind is ServerKind.LITE:
            with self._lock(parted(name)[0]):
                yield
        else:
            yield
