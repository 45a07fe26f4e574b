"""Giving a collection another index, other search parameters, or measuring what it has."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import CollectionNotFound, InvalidParameter
from lookalike.records import ChosenIndex, Collection, IndexKind, Metric
from lookalike.vectorstore import indexes
from lookalike.vectorstore.access import Access
from lookalike.vectorstore.checks import checked_name, model_of, physical_name
from lookalike.vectorstore.connection import as_errors
from lookalike.vectorstore.indexes import IndexSpec, check_tuning, index_for, index_params, is_built, metric_for
from lookalike.vectorstore.schema import ID, VECTOR


@dataclass(frozen=True, kw_only=True)
class Reindexed:
    """What became of a collection's index."""

    index: IndexKind
    chosen: ChosenIndex
    rebuilt: bool


@dataclass(frozen=True, kw_only=True)
class IndexFacts:
    """What a measurement needs to know of a collection's index."""

    chosen: ChosenIndex
    metric: Metric
    is_exact: bool  #: Every row is compared.


class Reindexing(Access):
    """What can be done about a collection's index."""

    def index_of(self, name: str) -> IndexFacts | None:
        """Say which index a collection has and why; None where it has no model yet, and so none."""

        def work(record: Collection, physical: str) -> IndexFacts:
            spec = self._spec(record, self._count(record, physical))
            return IndexFacts(chosen=_chosen(spec), metric=record.metric, is_exact=spec.is_exact)

        with as_errors():
            return self._with_physical(name, work, unbound=None)

    def check_reindex(
        self,
        name: str,
        *,
        index: IndexKind | None,
        build: Mapping[str, int] | None,
        search: Mapping[str, int] | None,
        offline: bool,
    ) -> None:
        """Raise `InvalidParameter` for a reindexing that cannot be, or that searches cannot wait for."""
        with as_errors():
            record = self._catalog.read(checked_name(name))
            if record is None:
                raise CollectionNotFound
            self._plan(record, index, build, search, offline=offline)

    def reindex(
        self,
        name: str,
        *,
        index: IndexKind | None = None,
        build: Mapping[str, int] | None = None,
        search: Mapping[str, int] | None = None,
        offline: bool = False,
    ) -> Reindexed:
        """Give a collection another index or parameters; what is None stays. Can be repeated where it was cut short.

        While an index is built, searches wait for the collection's lock and are then answered, each right; with more
        than `REBUILT_ROWS` images, which `offline` allows, they fail with `VectorStoreUnavailable` until it is done.
        """
        with as_errors():
            before = self._catalog.read(checked_name(name))
            if before is None:
                raise CollectionNotFound
            # Outside of the lock, which counting takes on Milvus Lite.
            planned, spec, _ = self._plan(before, index, build, search, offline=offline)
            with self._structural(name):
                record = self._catalog.read(name)
                if record is None:
                    raise CollectionNotFound
                changes = {field: getattr(planned, field) for field in ("index", "build", "search")}
                wanted = record.model_copy(update=changes)
                # Before the index: searches that find another than they expect are only less tuned, and this call is
                # repeated where it does not return.
                self._catalog.write(wanted)
            if wanted.model is None:
                return Reindexed(index=wanted.index, chosen=_chosen(spec), rebuilt=False)
            with self._lock(name):
                rebuilt = self._install(wanted, spec)
        return Reindexed(index=wanted.index, chosen=_chosen(spec), rebuilt=rebuilt)

    def try_search(
        self, name: str, vectors: NDArray[np.float32], *, limit: int, params: Mapping[str, int]
    ) -> list[list[tuple[str, float]]]:
        """Search for each of (nq, dim) vectors with these search parameters: ids and distances, closest first."""

        def work(record: Collection, physical: str) -> list[list[tuple[str, float]]]:
            answers = self._read(
                record,
                physical,
                "search",
                consistency=self._settings.consistency,
                data=list(vectors),
                limit=limit,
                search_params={"metric_type": record.metric.value, "params": dict(params)},
                output_fields=[ID],
                anns_field=VECTOR,
            )
            return [[(hit[ID], float(hit["distance"])) for hit in hits] for hits in answers]

        nothing: list[list[tuple[str, float]]] = [[] for _ in vectors]
        with as_errors():
            return self._with_physical(name, work, unbound=nothing)

    def _plan(
        self,
        record: Collection,
        index: IndexKind | None,
        build: Mapping[str, int] | None,
        search: Mapping[str, int] | None,
        *,
        offline: bool,
    ) -> tuple[Collection, IndexSpec, int]:
        """Return the record as it is to be, the index that follows from it, and the number of rows."""
        kind = index or record.index
        if metric_for(kind, record.metric) is not record.metric:
            raise InvalidParameter("The preset `tutorial` has the metric L2, which a collection cannot change to.")
        is_same = kind is record.index
        kept = {"build": build, "search": search}
        own = {
            field: dict(given) if given is not None else (dict(getattr(record, field)) if is_same else {})
            for field, given in kept.items()
        }
        wanted = record.model_copy(update={"index": kind, **own})
        dim = model_of(record).dim if record.model else 0
        rows = self._rows_of(record)
        check_tuning(index_for(kind, rows, dim, self._milvus.kind), own["build"], own["search"])
        spec = indexes.tuned(index_for(kind, rows, dim, self._milvus.kind), own["build"], own["search"])
        cannot_wait = rows > indexes.REBUILT_ROWS or bool(record.models)
        if record.model and cannot_wait and not offline and not self._is_built(record, spec):
            why = f"has {rows} images" if not record.models else "has several models"
            raise InvalidParameter(
                f"The collection {record.name} {why}: searches would fail while its index is built. "
                "Ask for it with `offline` at a time when that may be."
            )
        return wanted, spec, rows

    def _rows_of(self, record: Collection) -> int:
        return self._count(record, physical_name(record.name, record.model.fingerprint)) if record.model else 0

    def _is_built(self, record: Collection, spec: IndexSpec) -> bool:
        physical = physical_name(record.name, model_of(record).fingerprint)
        if not self._milvus.call("list_indexes", physical, timeout_s=self._read_s):
            return False
        current = self._milvus.call("describe_index", physical, VECTOR, timeout_s=self._read_s)
        return is_built(current, spec)

    def _install(self, record: Collection, spec: IndexSpec) -> bool:
        """See that the index is there, and loaded; returns whether it had to be built."""
        physical = physical_name(record.name, model_of(record).fingerprint)
        params = index_params(record.metric, spec)
        there = bool(self._milvus.call("list_indexes", physical, timeout_s=self._read_s))
        if there and not self._is_built(record, spec):
            self._milvus.replace_index(physical, params, alias=record.name, timeout_s=self._write_s)
            return True
        # As it is, or as a call that was cut short left it.
        self._milvus.load(physical, params, timeout_s=self._write_s)
        self._milvus.point(record.name, physical, timeout_s=self._write_s)
        return not there


def _chosen(spec: IndexSpec) -> ChosenIndex:
    reason = "; ".join(part for part in (spec.reason, spec.advice) if part)
    return ChosenIndex(index_type=spec.index_type, params=dict(spec.build), search=dict(spec.search), reason=reason)
