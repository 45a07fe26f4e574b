"""A Milvus Lite collection that searches at the price of the arithmetic, and waits for no writer.

Milvus Lite 3.2 walks in Python over every row of a collection in each search, holds a lock for that which flushes and
merges hold for as long as they take, and makes Python floats of each row that is not flushed yet. Here all rows are
compared in one matrix product, only those that would be hits are looked at closely, and the files of a collection are
published as a whole whenever they change. What is answered is the same, exact; searches that ask for more than the
closest rows, and collections with an approximate index, are left to Milvus Lite.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
from milvus_lite.engine.projection import build_projection_plan, project_record
from milvus_lite.index.brute_force import BruteForceIndex
from milvus_lite.index.spec import IndexSpec
from milvus_lite.search.filter import evaluate_mask
from milvus_lite.search.indexed_filter import evaluate_segment_filter
from milvus_lite.storage.delta_index import DeltaIndex
from milvus_lite.storage.memtable import MemTable
from milvus_lite.storage.segment import Segment
from numpy.typing import NDArray

from lookalike.vectorstore.lite_collection import ColumnarCollection

_MAX_SCORES: Final = 1 << 24  #: Compared at a time, rows times queries: 64 MB.
#: Rows looked at closely beyond the limit: the product of a whole matrix rounds a little, and may swap neighbours.
_SPARE_ROWS: Final = 16
_WORTH_SHARING: Final = 1 << 20  #: Values of all rows, 4 MB: comparing fewer takes less than waking a thread does.
_MOST_CORES: Final = 4  #: That share a comparison; memory is not read faster by more.
#: What a plain search leaves at its default, and Milvus Lite implements.
_BEYOND_PLAIN: Final = ("partition_names", "group_by_field", "radius", "range_filter", "ranker", "timezone")

_Hit = dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows that lie together: a segment's, or those of one write that is not flushed yet."""

    vectors: NDArray[np.float32]  #: (n, dim)
    squares: NDArray[np.float32]  #: (n,): the squared lengths.
    segment: Segment | None = None
    memtable: MemTable | None = None
    batch: int = 0  #: Its place in the memtable.
    id_name: str = ""  #: The column of ids there.

    def key(self, row: int) -> tuple[Any, int]:
        """Return a row's id, and its number in the order of writes."""
        if self.segment is not None:
            return self.segment.pks[row], int(self.segment.seqs[row])
        written = self._written()
        return written.column(self.id_name)[row].as_py(), written.column("_seq")[row].as_py()

    def keys(self) -> Iterator[tuple[Any, int]]:
        """Yield the keys of rows that are not flushed yet."""
        written = self._written()
        yield from zip(written.column(self.id_name).to_pylist(), written.column("_seq").to_pylist(), strict=True)

    def matches(self, compiled: Any, indexed: Any) -> NDArray[np.bool_]:
        """Mark the rows that match a filter."""
        if self.segment is not None:
            return np.asarray(evaluate_segment_filter(self.segment, compiled, indexed), dtype=np.bool_)
        return np.asarray(evaluate_mask(compiled, pa.Table.from_batches([self._written()])), dtype=np.bool_)

    def _written(self) -> Any:
        memtable: Any = self.memtable
        return memtable._insert_batches[self.batch]


@dataclass(frozen=True, eq=False)
class _Files:
    """A collection's files and tombstones at one moment."""

    segments: tuple[Segment, ...]
    squares: dict[str, NDArray[np.float32]]  #: By the path of the segment's file, which never changes.
    tombstones: DeltaIndex


class SearchingCollection(ColumnarCollection):
    """Milvus Lite's collection with its plain search replaced."""

    _files: _Files
    _flushing: MemTable | None = None  #: What is on its way to a file, until that file is published.

    def search(self, query_vectors: list[Any], top_k: int = 10, *args: Any, **how: Any) -> list[list[_Hit]]:
        """Return the closest rows to each query, closest first, as Milvus Lite does."""
        field = self._resolve_anns_field(how.get("anns_field"))
        beyond = args or how.get("group_size", 1) != 1 or any(how.get(name) is not None for name in _BEYOND_PLAIN)
        metric = self.resolve_search_metric(field, how.get("metric_type"))
        if beyond or not query_vectors or metric not in _MEASURES or not self._is_exact(field):
            return list(super().search(query_vectors, top_k, *args, **how))
        self._require_loaded()
        queries = np.asarray(query_vectors, dtype=np.float32)
        if queries.ndim != 2:
            return list(super().search(query_vectors, top_k, *args, **how))
        look = _Look(self, metric, field, how.get("expr"))
        offset = how.get("offset", 0)
        hits = [found[offset:] for found in look.closest(queries, top_k + offset)]
        return self._as_hits(hits, how.get("output_fields"))

    def _is_exact(self, field: str) -> bool:
        """Tell whether every row is compared: without an index, or with one of a single cell."""
        spec = self._index_specs.get(field)
        return field == self._vector_name and (spec is None or _is_exact(spec))

    def _as_hits(self, found: Sequence[Sequence[tuple[_Part, int, Any, float]]], fields: Any) -> list[list[_Hit]]:
        plan = build_projection_plan(fields, self._schema, api_kind="search")
        places = [(part.segment, row) for hits in found for part, row, _, _ in hits if part.segment is not None]
        stored = iter(self._rows(places, plan))

        def entity(part: _Part, row: int) -> dict[str, Any]:
            record = next(stored) if part.memtable is None else part.memtable.materialize_row(part.batch, row)
            return dict(project_record(record, self._schema, plan))

        return [
            [{"id": pk, "distance": distance, "entity": entity(part, row)} for part, row, pk, distance in hits]
            for hits in found
        ]

    # --- What is there to be searched ---

    def _refresh_segment_cache(self) -> None:
        super()._refresh_segment_cache()
        segments = tuple(self._segment_cache.values())
        known = self._files.squares if hasattr(self, "_files") else {}
        squares = {
            path: known[path] if path in known else _squares(segment.vectors)
            for segment in segments
            if (path := segment.file_path)
        }
        self._files = _Files(segments, squares, self._delta_index.frozen_copy())

    def drop_partition(self, partition_name: str) -> None:
        """Delete a partition's rows."""
        super().drop_partition(partition_name)
        with self._maintenance_lock:
            self._refresh_segment_cache()

    def _trigger_flush(self) -> None:
        self._flushing = self._memtable
        try:
            super()._trigger_flush()
        finally:
            self._flushing = None

    def _read_snapshot(self) -> tuple[tuple[Segment, ...], DeltaIndex]:
        # Only a flush takes rows away from who reads the memtable first; a merge moves them between files.
        if self._flushing is not None:
            segments, tombstones = super()._read_snapshot()
            return segments, tombstones
        files = self._files
        return files.segments, files.tombstones

    def _build_or_load_segment_index(self, seg: Segment, spec: IndexSpec) -> None:
        if spec.field_name == self._vector_name and _is_exact(spec):
            # Nothing is built, kept on disk or copied: it serves the searches that are not plain.
            seg.attach_index(BruteForceIndex.build(seg.vectors, spec.metric_type), spec.field_name)
        else:
            super()._build_or_load_segment_index(seg, spec)


class _Look:
    """One look at a collection: all that can be found in it, and the rules by which it is."""

    def __init__(self, collection: SearchingCollection, metric: str, field: str, expression: str | None) -> None:
        # In this order: what is flushed meanwhile is in two places then, and not in none.
        writing = collection._memtable
        flushing = collection._flushing
        self._files = collection._files
        self._memtables = [table for table in (writing, flushing) if table is not None]
        if flushing is writing:
            self._memtables.pop()
        self._metric = metric
        self._parts = list(self._all_parts(field))
        self._begins = np.cumsum([0, *(len(part.squares) for part in self._parts)])
        # Not the memtable's own index: what is written from now on hides rows here, and is not to be found here itself.
        self._newest: dict[Any, int] = {}  #: Of rows that are not flushed yet, by id.
        for pk, seq in chain.from_iterable(part.keys() for part in self._parts if part.memtable is not None):
            self._newest[pk] = max(seq, self._newest.get(pk, seq))
        self._mask: NDArray[np.bool_] | None = None
        if expression:
            compiled = collection._compile_filter(expression)
            indexed = collection._indexed_filter_plan(compiled)
            masks = [part.matches(compiled, indexed) for part in self._parts]
            self._mask = np.concatenate(masks) if masks else np.zeros(0, np.bool_)

    def closest(self, queries: NDArray[np.float32], limit: int) -> list[list[tuple[_Part, int, Any, float]]]:
        """Find the closest rows to each query: part, row, id and distance."""
        found: list[list[tuple[_Part, int, Any, float]]] = []
        step = max(1, _MAX_SCORES // max(1, self._begins[-1]))
        for first in range(0, len(queries), step):
            some = queries[first : first + step]
            found += [self._best(query, scores, limit) for query, scores in zip(some, self._scores(some), strict=True)]
        return found

    def _all_parts(self, field: str) -> Iterator[_Part]:
        for segment in self._files.segments:
            if segment.num_rows:
                yield _Part(segment.vectors, self._files.squares[segment.file_path], segment=segment)
        for memtable in self._memtables:
            for number, batch in enumerate(list(memtable._insert_batches)):
                column = batch.column(field)
                # The values of a slice are those of the whole.
                values = column.values.to_numpy()[column.offset * column.type.list_size :]
                vectors = values[: len(column) * column.type.list_size].reshape(len(column), column.type.list_size)
                yield _Part(vectors, _squares(vectors), memtable=memtable, batch=number, id_name=memtable._pk_name)

    def _scores(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compare (nq, dim) with all rows: (nq, rows), larger is closer, and -inf is out of the question."""
        rows = int(self._begins[-1])
        scores = np.empty((len(queries), rows), np.float32)
        # One core does not read memory as fast as it can be read. BLAS' own threads lose more than they gain here.
        shares = _cores() if rows * queries.shape[1] >= _WORTH_SHARING else 1
        bounds = [rows * share // shares for share in range(shares + 1)]
        others = [
            _helpers().submit(self._compare, queries, scores, first, last) for first, last in pairwise(bounds[1:])
        ]
        self._compare(queries, scores, 0, bounds[1])
        for other in others:
            other.result()
        if self._mask is not None:
            scores[:, ~self._mask] = -np.inf
        return scores

    def _compare(self, queries: NDArray[np.float32], scores: NDArray[np.float32], first: int, last: int) -> None:
        """Fill in the scores of the rows from `first` to before `last`."""
        for part, begin, end in zip(self._parts, self._begins, self._begins[1:], strict=False):
            low, high = max(first, begin), min(last, end)
            if low >= high:
                continue
            rows = slice(low - begin, high - begin)
            products = (
                part.vectors[rows] @ queries.T
            ).T  # In this order the larger matrix is read as it lies: a third less time.
            if self._metric == "COSINE":
                products /= np.sqrt(np.where(part.squares[rows] == 0, 1, part.squares[rows]))
            elif self._metric == "L2":
                products = 2 * products - part.squares[rows]
            scores[:, low:high] = products

    def _best(
        self, query: NDArray[np.float32], scores: NDArray[np.float32], limit: int
    ) -> list[tuple[_Part, int, Any, float]]:
        wanted = limit + _SPARE_ROWS
        while True:
            exhausted = wanted >= len(scores)
            places = np.arange(len(scores)) if exhausted else np.argpartition(scores, -wanted)[-wanted:]
            possible = places[scores[places] > -np.inf]
            best = list(self._valid(query, possible, limit))
            if len(best) == limit or exhausted or len(possible) < len(places):
                return best
            wanted *= 4  # Rows that were replaced or deleted were in the way.

    def _valid(
        self, query: NDArray[np.float32], places: NDArray[np.intp], limit: int
    ) -> Iterator[tuple[_Part, int, Any, float]]:
        """Measure rows one by one, and yield those that count, closest first."""
        numbers = np.searchsorted(self._begins, places, side="right") - 1
        rows = places - self._begins[numbers]
        pairs = [(self._parts[number], row) for number, row in zip(numbers.tolist(), rows.tolist(), strict=True)]
        if not pairs:
            return
        vectors = np.stack([part.vectors[row] for part, row in pairs]).astype(np.float64)
        distances = _MEASURES[self._metric](query.astype(np.float64), vectors)
        nearness = distances if self._metric == "L2" else -distances
        for index in np.lexsort((places, nearness)).tolist():
            part, row = pairs[index]
            pk, seq = part.key(row)
            if self._counts(part, pk, seq):
                yield part, row, pk, float(distances[index])
                limit -= 1
                if not limit:
                    return

    def _counts(self, part: _Part, pk: Any, seq: int) -> bool:
        """Tell whether a version of a row is the newest, not deleted, and not in a file as well as in memory."""
        newest = self._newest.get(pk, -1)
        if newest > seq or (newest == seq and part.segment is not None):
            return False
        for memtable in self._memtables:
            deleted = memtable._delete_index.get(pk)
            if deleted is not None and deleted[0] > seq:
                return False
        for segment in self._files.segments:
            row = segment.pk_to_row.get(pk)
            if row is not None and segment.seqs[row] > seq:
                return False
        return not self._files.tombstones.is_deleted(pk, seq)


@cache
def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, _MOST_CORES)


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores(), thread_name_prefix="compare")


def _is_exact(spec: IndexSpec) -> bool:
    return spec.index_type in {"FLAT", "BRUTE_FORCE"} or (
        spec.index_type == "IVF_FLAT" and int(spec.build_params.get("nlist", 0)) == 1
    )


def _squares(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    squares: NDArray[np.float32] = np.einsum("ij,ij->i", vectors, vectors)
    return squares


def _cosines(query: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    cosines: NDArray[np.float64] = np.divide(vectors @ query, lengths, out=np.zeros(len(vectors)), where=lengths > 0)
    return cosines


def _squared_distances(query: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    away = vectors - query
    squared: NDArray[np.float64] = np.einsum("ij,ij->i", away, away)
    return squared


def _products(query: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    products: NDArray[np.float64] = vectors @ query
    return products


#: Distances as Milvus states them.
_MEASURES: Final = {"COSINE": _cosines, "L2": _squared_distances, "IP": _products}
